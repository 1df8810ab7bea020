"""Whom alerts go to: the contacts of the settings, for Alertmanager and for Grafana.

No secret is ever written into a file: what stands there is ``${NAME}``, an environment variable that the settings
name. Grafana fills that in itself when it reads its provisioning files; Alertmanager does not, so its file goes through
``envsubst`` first; and who hands contact points to Grafana's API fills them in with ``with_secrets``.

Everything goes by severity: ``streamgauge-critical`` is a receiver of Alertmanager and a contact point of Grafana, with
one way to tell somebody for each contact of the settings that wants to know of critical alerts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, assert_never

from alerts.rule import Severity
from monitor.errors import UsageError
from monitor.settings import (
    EmailContact,
    Notifications,
    PagerdutyContact,
    Settings,
    SlackContact,
    TeamsContact,
    WebhookContact,
)

Json: TypeAlias = dict[str, Any]
AnyContact: TypeAlias = EmailContact | SlackContact | PagerdutyContact | TeamsContact | WebhookContact

SUMMARY = "{{ .CommonLabels.severity }}: {{ .CommonAnnotations.summary }}"
TEXT = "{{ range .Alerts }}{{ .Annotations.description }}\n{{ end }}"

USUAL = Notifications(
    webhook=(
        WebhookContact(severities=("critical", "warning", "info")),
        # The watchdog goes to somebody else, who notices when it stops.
        WebhookContact(severities=("none",), url_variable="STREAMGAUGE_HEARTBEAT_URL"),
    )
)
"""What Alertmanager's file has where the settings name nobody."""


class Secret(str):
    """A reference to an environment variable, ``${NAME}``."""

    __slots__ = ()

    @property
    def variable(self) -> str:
        """Return the variable's name."""
        return self[2:-1]


def secret(variable: str) -> Secret:
    """Return what stands in a file for the value of an environment variable."""
    return Secret(f"${{{variable}}}")


def receiver_name(severity: Severity) -> str:
    """Return the name of the receiver or contact point of a severity."""
    return f"streamgauge-{severity}"


def told(notifications: Notifications, severity: Severity) -> Iterator[AnyContact]:
    """Yield the contacts that are told of alerts with this severity."""
    every: tuple[AnyContact, ...] = (
        *notifications.email,
        *notifications.slack,
        *notifications.pagerduty,
        *notifications.teams,
        *notifications.webhook,
    )
    return (each for each in every if severity in each.severities)


def untold(notifications: Notifications) -> list[Severity]:
    """Return the severities of which nobody is told."""
    return [severity for severity in Severity if not any(told(notifications, severity))]


def or_usual(notifications: Notifications) -> Notifications:
    """Return the contacts as they are, or the usual webhooks where the settings name nobody."""
    return USUAL if len(untold(notifications)) == len(Severity) else notifications


# --- Alertmanager ------------------------------------------------------------------------------------


def for_alertmanager(notifications: Notifications) -> list[Json]:
    """Return a receiver for each severity; one of which nobody is told has no configuration and drops its alerts."""
    return [_receiver(severity, [*told(notifications, severity)]) for severity in Severity]


def _receiver(severity: Severity, contacts: Sequence[AnyContact]) -> Json:
    receiver: Json = {"name": receiver_name(severity)}
    for contact in contacts:
        key, config = _alertmanager(contact)
        receiver.setdefault(key, []).append({**config, "send_resolved": True})
    return receiver


def _alertmanager(contact: AnyContact) -> tuple[str, Json]:
    match contact:
        case EmailContact():
            return "email_configs", {"to": ", ".join(contact.to)}
        case SlackContact():
            place = {"channel": contact.channel} if contact.channel else {}
            return "slack_configs", {
                "api_url": secret(contact.url_variable),
                **place,
                "title": SUMMARY,
                "text": TEXT,
            }
        case PagerdutyContact():
            return "pagerduty_configs", {
                "routing_key": secret(contact.key_variable),
                "description": SUMMARY,
                "severity": "{{ .CommonLabels.severity }}",
                "details": {"alerts": TEXT},
            }
        case TeamsContact():
            return "msteamsv2_configs", {"webhook_url": secret(contact.url_variable), "title": SUMMARY, "text": TEXT}
        case WebhookContact():
            token = {"http_config": {"authorization": {"credentials": secret(contact.token_variable)}}} if (
                contact.token_variable
            ) else {}  # fmt: skip
            return "webhook_configs", {"url": secret(contact.url_variable), **token}
        case _:
            assert_never(contact)


def smtp(notifications: Notifications) -> Json:
    """Return Alertmanager's global settings of the mail server, empty where nobody is told by e-mail.

    Raises:
        UsageError: somebody is, and there is no mail server.
    """
    if not notifications.email:
        return {}
    server = notifications.smtp
    if server is None:
        raise UsageError(
            "cannot write notifications.email for Alertmanager: notifications.smtp is missing; add it with "
            "smarthost: HOST:PORT and sender: ADDRESS"
        )
    login = {"smtp_auth_username": server.username, "smtp_auth_password": secret(server.password_variable)}
    return {
        "smtp_smarthost": server.smarthost,
        "smtp_from": server.sender,
        **(login if server.username else {}),
        "smtp_require_tls": server.require_tls,
    }


# --- Grafana -----------------------------------------------------------------------------------------


def for_grafana(settings: Settings) -> list[Json]:
    """Return the contact points of the settings, each as ``POST /api/v1/provisioning/contact-points`` takes it.

    Those of one severity share a name, ``streamgauge-critical``: Grafana shows them as one contact point with several
    integrations. Every ``uid`` starts with ``streamgauge-``. A value that is a ``Secret`` is ``${NAME}`` and has to be
    filled in for the API (``with_secrets``); Grafana never gives it back. Empty where the settings name nobody.
    """
    return [point for severity in Severity for point in _points(severity, told(settings.notifications, severity))]


def _points(severity: Severity, contacts: Iterator[AnyContact]) -> Iterator[Json]:
    seen: Counter[str] = Counter()
    for contact in contacts:
        kind, values = _grafana(contact)
        seen[kind] += 1  # counted by kind, so that a new e-mail contact leaves the uid of a Slack one as it is
        yield _point(receiver_name(severity), kind, seen[kind], values)


def _point(name: str, kind: str, number: int, values: Json) -> Json:
    return {
        "uid": f"{name}-{kind}-{number}",
        "name": name,
        "type": kind,
        "settings": values,
        "disableResolveMessage": False,
    }


def _grafana(contact: AnyContact) -> tuple[str, Json]:
    match contact:
        case EmailContact():
            return "email", {"addresses": ";".join(contact.to), "subject": SUMMARY, "message": TEXT}
        case SlackContact():
            place = {"recipient": contact.channel} if contact.channel else {}
            return "slack", {"url": secret(contact.url_variable), **place, "title": SUMMARY, "text": TEXT}
        case PagerdutyContact():
            return "pagerduty", {
                "integrationKey": secret(contact.key_variable),
                "severity": "{{ .CommonLabels.severity }}",
                "summary": SUMMARY,
            }
        case TeamsContact():
            return "teams", {"url": secret(contact.url_variable), "title": SUMMARY, "message": TEXT}
        case WebhookContact():
            token = {"authorization_credentials": secret(contact.token_variable)} if contact.token_variable else {}
            return "webhook", {"url": secret(contact.url_variable), **token}
        case _:
            assert_never(contact)


def with_secrets(points: Sequence[Json], environ: Mapping[str, str]) -> list[Json]:
    """Return Grafana's contact points with the values of the environment in place of their secrets.

    Raises:
        UsageError: a variable is not set, or empty.
    """
    missing = sorted({each.variable for each in secrets_of(points) if not environ.get(each.variable)})
    if missing:
        msg = (
            f"cannot fill in the contact points: {', '.join(missing)} not set in the environment; set it and try again"
        )
        raise UsageError(msg)
    return [
        {**point, "settings": {key: _filled(value, environ) for key, value in point["settings"].items()}}
        for point in points
    ]


def secrets_of(points: Sequence[Json]) -> list[Secret]:
    """Return every secret of Grafana's contact points, in their order."""
    return [value for point in points for value in point["settings"].values() if isinstance(value, Secret)]


def _filled(value: Any, environ: Mapping[str, str]) -> Any:
    return environ[value.variable] if isinstance(value, Secret) else value


def in_file(points: Sequence[Json]) -> Json:
    """Return contact points as Grafana's provisioning file has them: those of one name together, secrets by name.

    Grafana takes every ``$`` for a variable: one that is none is doubled.
    """
    names = dict.fromkeys(point["name"] for point in points)
    return {
        "apiVersion": 1,
        "contactPoints": [
            {
                "orgId": 1,
                "name": name,
                "receivers": [
                    {
                        **{key: value for key, value in point.items() if key != "name"},
                        "settings": {key: _spelled(value) for key, value in point["settings"].items()},
                    }
                    for point in points
                    if point["name"] == name
                ],
            }
            for name in names
        ],
    }


def _spelled(value: str) -> str:
    return str(value) if isinstance(value, Secret) else value.replace("$", "$$")
