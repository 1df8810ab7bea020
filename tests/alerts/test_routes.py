"""Which receiver an alert goes to, and what is muted by what."""

import re
import subprocess

import pytest
import yaml
from prometheus_servers import needs_amtool

from alerts.alertmanager import FILE_NAME, INHIBITIONS, check, filled, render
from alerts.contacts import receiver_name
from alerts.rule import Severity
from alerts.rules import ALL_RULES
from monitor.errors import StreamgaugeError, UnreachableError


@needs_amtool
def test_amtool_accepts_the_routes():
    """With the variables filled in it is a whole configuration."""
    assert f"{len(INHIBITIONS)} inhibit rules - 4 receivers" in check(render())


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
