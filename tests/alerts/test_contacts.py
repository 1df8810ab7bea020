"""Whom alerts go to: by severity, with every secret left to the environment, in Alertmanager and in Grafana alike."""

import re
import typing

import pytest
import yaml
from prometheus_servers import needs_amtool

from alerts import grafana
from alerts.alertmanager import check, filled, render
from alerts.contacts import (
    Secret,
    for_alertmanager,
    for_grafana,
    in_file,
    or_usual,
    receiver_name,
    secrets_of,
    untold,
    with_secrets,
)
from alerts.rule import Severity
from monitor.errors import UnreachableError, UsageError
from monitor.settings import AlertSeverity, Notifications, Settings

SMTP = {"smarthost": "smtp.example.org:587", "sender": "streamgauge@example.org", "username": "streamgauge"}
KINDS = {
    "email": {"to": ["team@example.org", "boss@example.org"], "severities": ["info"]},
    "slack": {"channel": "#streams", "url_variable": "OUR_SLACK"},
    "pagerduty": {},
    "teams": {"url_variable": "OUR_TEAMS"},
    "webhook": {"severities": ["warning"], "url_variable": "OUR_HOOK", "token_variable": "OUR_TOKEN"},
}
SECRETS = {
    "OUR_SLACK": "https://hooks.example.org/T0/B0",
    "OUR_TEAMS": "https://teams.example.org/workflow",
    "OUR_HOOK": "https://hook.example.org/alerts",
    "OUR_TOKEN": "t0ken",
    "STREAMGAUGE_PAGERDUTY_KEY": "0123456789abcdef",
    "STREAMGAUGE_SMTP_PASSWORD": "hunter2",
}


def settings(*kinds, **changes):
    """Settings with a contact of each of these kinds."""
    named = {kind: [KINDS[kind] | changes] for kind in kinds}
    return Settings.model_validate(
        {"clusters": [{"bootstrap_servers": "x:1"}], "notifications": named | {"smtp": SMTP}}
    )


ALL = settings(*KINDS)


def test_the_severities_of_the_settings_are_those_of_the_rules():
    """Both name the same ones: the settings cannot ask the rules."""
    assert list(Severity) == list(typing.get_args(AlertSeverity))


@needs_amtool
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "teams"])
def test_amtool_accepts_each_kind(kind):
    """Each alone, with its secrets from the environment or without."""
    assert "SUCCESS" in check(render(settings(kind).notifications))


@needs_amtool
def test_an_amtool_that_does_not_know_teams_says_so():
    """Alertmanager has Teams' workflows from 0.28 on; an older amtool is out of reach, and the rules are not wrong."""
    text = render(settings("teams").notifications)
    if "SUCCESS" in (said := checked(text)):
        return
    assert "cannot check the routes: this amtool does not know Teams; take that of Alertmanager 0.28 or later" == said


def checked(text):
    try:
        return check(text)
    except UnreachableError as exc:
        return str(exc)


@needs_amtool
def test_amtool_never_sees_a_secret(monkeypatch):
    """It would quote one that it does not like: what is checked holds no value of the environment."""
    monkeypatch.setenv("OUR_SLACK", "hunter2://nowhere")

    assert "SUCCESS" in check(render(settings("slack").notifications))


def test_alertmanager_tells_each_severity_to_its_contacts():
    """A receiver for each severity, with what the settings want for it, and nothing where nobody wants to know."""
    receivers = {each.pop("name"): each for each in for_alertmanager(ALL.notifications)}
    ways = {name: list(receiver) for name, receiver in receivers.items()}

    assert {
        "streamgauge-critical": ["slack_configs", "pagerduty_configs", "msteamsv2_configs"],
        "streamgauge-warning": ["slack_configs", "msteamsv2_configs", "webhook_configs"],
        "streamgauge-info": ["email_configs"],
        "streamgauge-none": [],
    } == ways
    assert [{"to": "team@example.org, boss@example.org", "send_resolved": True}] == receivers["streamgauge-info"][
        "email_configs"
    ]
    assert [Severity.NONE] == untold(ALL.notifications)


def test_nobody_named_is_the_usual_webhook():
    """All go to one address, and the watchdog to another: to somebody who notices when it stops."""
    receivers = {each["name"]: each["webhook_configs"] for each in for_alertmanager(or_usual(Notifications()))}

    assert ["${STREAMGAUGE_WEBHOOK_URL}"] * 3 + ["${STREAMGAUGE_HEARTBEAT_URL}"] == [
        config["url"] for severity in Severity for config in receivers[receiver_name(severity)]
    ]


def test_mail_needs_a_server():
    """Alertmanager cannot send mail by itself; what is missing is named."""
    wanting = ALL.notifications.model_copy(update={"smtp": None})

    with pytest.raises(UsageError, match=r"notifications\.smtp is missing; add it with smarthost"):
        render(wanting)


def leaves(document, key=""):
    if isinstance(document, dict):
        for name, value in document.items():
            yield from leaves(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value, key)
    else:
        yield key, document


def test_every_secret_comes_from_the_environment():
    """Every key, password and address that is one, in both files, is the name of a variable and nothing else."""
    routes = yaml.safe_load(render(ALL.notifications))
    (points,) = (yaml.safe_load(text) for text in grafana.render_contacts(ALL).values())
    places = {"api_url", "routing_key", "webhook_url", "url", "credentials", "integrationKey", "smtp_auth_password",
              "authorization_credentials"}  # fmt: skip
    found = [value for document in (routes, points) for key, value in leaves(document) if key in places]

    assert {f"${{{name}}}" for name in SECRETS} == set(found)


def test_a_value_of_the_environment_is_no_yaml():
    """A password full of YAML's characters stays one value."""
    text = filled(render(ALL.notifications), {"STREAMGAUGE_SMTP_PASSWORD": "a: b # {c} 'd"})

    assert "a: b # {c} 'd" == yaml.safe_load(text)["global"]["smtp_auth_password"]


# --- Grafana -----------------------------------------------------------------------------------------


def test_grafana_has_a_point_for_each_contact_and_severity():
    """Named by severity, each with a uid of its own that Grafana takes."""
    points = for_grafana(ALL)

    assert [
        ("streamgauge-critical", "slack"), ("streamgauge-critical", "pagerduty"), ("streamgauge-critical", "teams"),
        ("streamgauge-warning", "slack"), ("streamgauge-warning", "teams"), ("streamgauge-warning", "webhook"),
        ("streamgauge-info", "email"),
    ] == [(point["name"], point["type"]) for point in points]  # fmt: skip
    assert len({point["uid"] for point in points}) == len(points)
    assert all(re.fullmatch(r"streamgauge-[A-Za-z0-9_-]{1,28}", point["uid"]) for point in points)


def test_another_kind_leaves_uids_as_they_are():
    """A contact that comes into the settings makes no other one new in Grafana."""
    alone, with_mail = (for_grafana(settings(*kinds, severities=["info"])) for kinds in (["slack"], ["email", "slack"]))

    assert {"streamgauge-info-slack-1"} == {point["uid"] for point in alone}
    assert {"streamgauge-info-slack-1", "streamgauge-info-email-1"} == {point["uid"] for point in with_mail}


def test_secrets_are_filled_in_for_the_api():
    """What goes to Grafana's API has values, and not the names of variables."""
    filled_in = with_secrets(for_grafana(ALL), SECRETS)
    values = [value for point in filled_in for value in point["settings"].values()]

    assert {SECRETS[name] for name in SECRETS if "SMTP" not in name} <= set(values)
    assert not [value for value in values if isinstance(value, Secret)]
    assert [point["uid"] for point in for_grafana(ALL)] == [point["uid"] for point in filled_in]


def test_a_secret_that_is_not_set_is_named():
    """All of them in one line; an empty one is none."""
    with pytest.raises(UsageError, match="OUR_SLACK, STREAMGAUGE_PAGERDUTY_KEY not set in the environment"):
        with_secrets(for_grafana(settings("slack", "pagerduty")), {"OUR_SLACK": ""})


def test_the_rules_send_to_the_points_that_there_are():
    """Each rule names the contact point of its severity where there is one, and each of those is in the file."""
    receivers = grafana.receivers_of(ALL)
    rules = yaml.safe_load(grafana.render(receivers=receivers)[grafana.RULES_FILE])["groups"][0]["rules"]
    (text,) = grafana.render_contacts(ALL).values()
    points = yaml.safe_load(text)["contactPoints"]
    sent = {rule.get("notification_settings", {}).get("receiver") for rule in rules}

    assert {point["name"] for point in points} | {None} == sent
    assert [3, 3, 1] == [len(point["receivers"]) for point in points]
    assert {} == grafana.render_contacts(settings())
    assert "notification_settings" not in str(grafana.render())


def test_a_dollar_in_a_file_is_no_variable():
    """Grafana would take it for one; secrets stay variables."""
    points = for_grafana(settings("slack", channel="#money$"))
    (receiver,) = in_file(points)["contactPoints"][0]["receivers"]

    assert ("#money$$", "${OUR_SLACK}") == (receiver["settings"]["recipient"], receiver["settings"]["url"])
    assert ["OUR_SLACK", "OUR_SLACK"] == [each.variable for each in secrets_of(points)]


# --- what the settings refuse ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "complaint"),
    [
        pytest.param("slack", {"url_variable": "https://hooks.example.org/x"}, "no name of an env", id="a secret"),
        pytest.param(
            "slack", {"url": "https://hooks.example.org/x"}, "write url_variable: NAME", id="a secret in place"
        ),
        pytest.param("webhook", {"token": "hooks.example.org"}, "write token_variable: NAME", id="a token in place"),
        pytest.param(
            "pagerduty", {"severities": ["none"]}, "'critical', 'warning' or 'info'", id="pagerduty: watchdog"
        ),
        pytest.param("email", {"to": ["team"]}, "no e-mail address", id="no address"),
        pytest.param("email", {"to": []}, "at least 1 item", id="nobody"),
        pytest.param("webhook", {"severities": []}, "at least 1 item", id="no severity"),
        pytest.param("webhook", {"severities": ["urgent"]}, "'critical', 'warning'", id="unknown severity"),
    ],
)
def test_the_settings_refuse(kind, fields, complaint):
    """Each is told in words, and a secret that was put in the wrong place is not repeated."""
    with pytest.raises(ValueError, match=complaint) as caught:
        settings(kind, **fields)

    assert "hooks.example.org" not in str(caught.value)


@pytest.mark.parametrize("smarthost", ["smtp.example.org", "smtp://smtp.example.org:25", "a@b:25"])
def test_a_mail_server_is_host_and_port(smarthost):
    """What Alertmanager could not use is told at once."""
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        Notifications.model_validate({"smtp": SMTP | {"smarthost": smarthost}})
