"""Whom alerts go to: contacts by severity, for Alertmanager and for Grafana, with every secret left to the environment.

No address and no key is ever written into a file: what stands there is ``${STREAMGAUGE_...}``. Grafana fills that in
itself when it reads its provisioning files; Alertmanager does not, so its file goes through ``envsubst`` first.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeAlias

from alerts.rule import Severity

Json: TypeAlias = dict[str, Any]


class Contact(StrEnum):
    """A way to reach somebody."""

    EMAIL = "email"
    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    TEAMS = "teams"
    WEBHOOK = "webhook"


USUAL: Mapping[Severity, Contact] = dict.fromkeys(Severity, Contact.WEBHOOK)

SUMMARY = "{{ .CommonLabels.severity }}: {{ .CommonAnnotations.summary }}"
TEXT = "{{ range .Alerts }}{{ .Annotations.description }}\n{{ end }}"


class Secret(str):
    """The name of an environment variable, written as ``${NAME}``."""

    __slots__ = ()


def environment(name: str) -> Secret:
    """Return what stands in a file for the value of an environment variable."""
    return Secret(f"${{STREAMGAUGE_{name}}}")


def receiver_name(severity: Severity) -> str:
    """Return the name of the receiver or contact point of a severity."""
    return f"streamgauge-{severity}"


def webhook_url(severity: Severity) -> Secret:
    """Return the address of the webhook; that of the watchdog is somebody else's, who notices when it stops."""
    return environment("HEARTBEAT_URL" if severity is Severity.NONE else "WEBHOOK_URL")


def for_alertmanager(severity: Severity, contact: Contact) -> Json:
    """Return the receiver of a severity for Alertmanager. Teams needs Alertmanager 0.26."""
    configs: dict[Contact, Json] = {
        Contact.EMAIL: {"email_configs": [{"to": environment("EMAIL_TO"), "send_resolved": True}]},
        Contact.SLACK: {
            "slack_configs": [
                {
                    "api_url": environment("SLACK_URL"),
                    "channel": environment("SLACK_CHANNEL"),
                    "title": SUMMARY,
                    "text": TEXT,
                    "send_resolved": True,
                }
            ]
        },
        Contact.PAGERDUTY: {
            "pagerduty_configs": [
                {
                    "routing_key": environment("PAGERDUTY_KEY"),
                    "description": SUMMARY,
                    "severity": "{{ .CommonLabels.severity }}",
                    "details": {"alerts": TEXT},
                }
            ]
        },
        Contact.TEAMS: {
            "msteams_configs": [
                {"webhook_url": environment("TEAMS_URL"), "title": SUMMARY, "text": TEXT, "send_resolved": True}
            ]
        },
        Contact.WEBHOOK: {"webhook_configs": [{"url": webhook_url(severity), "send_resolved": True}]},
    }
    return {"name": receiver_name(severity), **configs[contact]}


def for_grafana(severity: Severity, contact: Contact) -> Json:
    """Return the contact point of a severity for Grafana's provisioning files."""
    settings: dict[Contact, Json] = {
        Contact.EMAIL: {"addresses": environment("EMAIL_TO")},
        Contact.SLACK: {"url": environment("SLACK_URL"), "recipient": environment("SLACK_CHANNEL")},
        Contact.PAGERDUTY: {"integrationKey": environment("PAGERDUTY_KEY")},
        Contact.TEAMS: {"url": environment("TEAMS_URL")},
        Contact.WEBHOOK: {"url": webhook_url(severity)},
    }
    name = receiver_name(severity)
    receiver = {"uid": name, "type": str(contact), "settings": settings[contact], "disableResolveMessage": False}
    return {"orgId": 1, "name": name, "receivers": [receiver]}
