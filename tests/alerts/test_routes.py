"""Who is told of which alert, what is muted by what, and that no secret is in any file."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from alerts import grafana
from alerts.alertmanager import FILE_NAME, INHIBITIONS, check, filled, render
from alerts.contacts import Contact, receiver_name
from alerts.rule import Severity
from alerts.rules import ALL_RULES
from monitor.errors import StreamgaugeError, UnreachableError

needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None and not os.environ.get("CI"),
    reason="amtool is not on PATH (Debian: package prometheus-alertmanager)",
)

EVERY_KIND = {
    Severity.CRITICAL: Contact.PAGERDUTY,
    Severity.WARNING: Contact.SLACK,
    Severity.INFO: Contact.EMAIL,
    Severity.NONE: Contact.WEBHOOK,
}


@needs_amtool
@pytest.mark.parametrize("contacts", [{}, EVERY_KIND], ids=["webhooks", "every kind"])
def test_amtool_accepts_the_routes(contacts):
    """With the variables filled in it is a whole configuration."""
    assert f"{len(INHIBITIONS)} inhibit rules - 4 receivers" in check(render(contacts))


@needs_amtool
def test_routes_that_are_wrong_are_one_line():
    """What amtool complains about arrives as one line with the reason."""
    with pytest.raises(StreamgaugeError, match=r"amtool does not accept the routes: .*undefined receiver") as caught:
        check(render().replace("receiver: streamgauge-critical", "receiver: nobody"))

    assert "\n" not in str(caught.value)


@needs_amtool
@pytest.mark.parametrize("severity", Severity)
def test_an_alert_goes_to_the_receiver_of_its_severity(severity, tmp_path):
    """Asked of Alertmanager's own routing."""
    (tmp_path / FILE_NAME).write_text(filled(render(), {}))
    rule = next(rule for rule in ALL_RULES if rule.severity is severity)
    command = ["amtool", "config", "routes", "test", f"--config.file={tmp_path / FILE_NAME}",
               f"alertname={rule.name}", f"severity={severity}"]  # fmt: skip
    answer = subprocess.run(command, check=True, capture_output=True, text=True)

    assert receiver_name(severity) == answer.stdout.strip()


def test_without_amtool_it_says_so(monkeypatch, tmp_path):
    """No amtool on PATH: nothing is claimed."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UnreachableError, match="amtool is not on PATH"):
        check(render())


# --- inhibition --------------------------------------------------------------------------------------


def matches(labels, matchers):
    """Alertmanager's matchers, all of them; a label that is not there is empty."""
    return all(fits(labels, *re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', each).groups()) for each in matchers)


def fits(labels, label, operator, value):
    own = labels.get(label, "")
    if operator.endswith("~"):
        return (re.fullmatch(value, own) is not None) == (operator == "=~")
    return (own == value) == (operator == "=")


def mutes(source, target):
    """Whether an alert mutes another, as Alertmanager says it: an alert that is both source and target mutes itself
    not.
    """
    for rule in yaml.safe_load(render())["inhibit_rules"]:
        is_both = matches(target, rule["source_matchers"]) and matches(target, rule["target_matchers"])
        are_equal = all(source.get(label, "") == target.get(label, "") for label in rule.get("equal", []))
        if (
            matches(source, rule["source_matchers"])
            and matches(target, rule["target_matchers"])
            and are_equal
            and not is_both
        ):
            return True
    return False


def alert(name, consumer="billing", cluster="default"):
    (rule,) = (rule for rule in ALL_RULES if rule.name == f"Streamgauge{name}")
    labels = {"cluster": cluster, "kind": "group", "consumer": consumer, "source": "kafka", "scope": "group",
              "topic": "orders"}  # fmt: skip
    own = {label: labels[label] for label in rule.labels}
    return {"alertname": rule.name, "severity": str(rule.severity), **own}


@pytest.mark.parametrize(
    ("source", "target", "is_muted"),
    [
        pytest.param(alert("MonitorDown"), alert("ConsumerStopped"), True, id="no monitor: everything"),
        pytest.param(alert("MonitorDown"), alert("SeriesDropped"), True, id="no monitor: what has no labels"),
        pytest.param(alert("MonitorDown"), alert("Watchdog"), False, id="no monitor: not the watchdog"),
        pytest.param(alert("MonitorDown"), alert("MonitorDown"), False, id="no monitor: not itself"),
        pytest.param(alert("ClusterDown"), alert("ConsumerIncomplete"), True, id="cluster away: what is unknown"),
        pytest.param(alert("ClusterDown"), alert("SourceFailing"), True, id="cluster away: failures"),
        pytest.param(alert("ClusterDown"), alert("ConsumerStopped"), False, id="cluster away: what is surely bad"),
        pytest.param(alert("ClusterDown"), alert("ConsumerGrowing", cluster="other"), False, id="another cluster"),
        pytest.param(alert("ClusterDown"), alert("SeriesDropped"), False, id="what is about no cluster"),
        pytest.param(alert("ConsumerStopped"), alert("ConsumerOverObjective"), True, id="paged for it already"),
        pytest.param(alert("ConsumerStopped"), alert("ConsumerOverObjective", "x"), False, id="another consumer"),
        pytest.param(alert("ConsumerStopped"), alert("ConsumerLosingData"), False, id="two pages are two pages"),
        pytest.param(alert("LogTruncated"), alert("ClockSkew"), False, id="both without a consumer"),
        pytest.param(alert("LogTruncated"), alert("CommitBeyondEnd"), True, id="a log that was cut explains it"),
    ],
)
def test_what_is_explained_is_muted(source, target, is_muted):
    """What explains another alert mutes it, and nothing else."""
    assert is_muted == mutes(source, target)


# --- contacts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Contact)
def test_what_is_secret_comes_from_the_environment(kind):
    """Every address and key, for Alertmanager and for Grafana, is the name of a variable and nothing else."""
    contacts = dict.fromkeys(Severity, kind)
    routes = yaml.safe_load(render(contacts))
    (points,) = (yaml.safe_load(text) for text in grafana.render_contacts(contacts).values())
    places = {"to", "api_url", "channel", "routing_key", "webhook_url", "url", "addresses", "recipient",
              "integrationKey", "smtp_auth_password", "smtp_auth_username", "smtp_from", "smtp_smarthost"}  # fmt: skip
    values = [value for document in (routes, points) for key, value in leaves(document) if key in places]

    assert len(values) >= 8
    assert [] == [value for value in values if not re.fullmatch(r"\$\{STREAMGAUGE_[A-Z_]+\}", value)]


def leaves(document, key=""):
    if isinstance(document, dict):
        for name, value in document.items():
            yield from leaves(value, name)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value, key)
    else:
        yield key, document


def test_a_value_of_the_environment_is_no_yaml():
    """A password full of YAML's characters stays one value."""
    text = filled(render({Severity.INFO: Contact.EMAIL}), {"STREAMGAUGE_SMTP_PASSWORD": "a: b # {c} 'd"})

    assert "a: b # {c} 'd" == yaml.safe_load(text)["global"]["smtp_auth_password"]


def test_the_heartbeat_is_somebody_else():
    """The watchdog does not go where the alerts go."""
    receivers = {each["name"]: each for each in yaml.safe_load(render())["receivers"]}

    assert "${STREAMGAUGE_HEARTBEAT_URL}" == receivers["streamgauge-none"]["webhook_configs"][0]["url"]
    assert "${STREAMGAUGE_WEBHOOK_URL}" == receivers["streamgauge-warning"]["webhook_configs"][0]["url"]


def test_grafana_sends_to_the_contacts_that_there_are():
    """Each rule names the contact point of its severity, and each of those is in the file beside it."""
    receivers = {severity: receiver_name(severity) for severity in Severity}
    rules = yaml.safe_load(grafana.render(receivers=receivers)[grafana.RULES_FILE])["groups"][0]["rules"]
    points = yaml.safe_load(grafana.render_contacts(EVERY_KIND)[grafana.CONTACTS_FILE])["contactPoints"]

    assert {point["name"] for point in points} == {rule["notification_settings"]["receiver"] for rule in rules}
    assert ["pagerduty", "slack", "email", "webhook"] == [point["receivers"][0]["type"] for point in points]
    assert "notification_settings" not in str(grafana.render())
