"""``streamgauge alerts``: every target, checks and tests, and what is wrong usage."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from alerts import cases, promtool
from alerts.rules import ALL_RULES
from monitor.cli.main import streamgauge

GENERATED = Path(__file__).parents[2] / "alerts" / "generated"

needs_tools = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("amtool")) and not os.environ.get("CI"),
    reason="promtool and amtool are not on PATH (Debian: packages prometheus and prometheus-alertmanager)",
)


def run(*arguments):
    return CliRunner().invoke(streamgauge, ["alerts", *arguments])


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["prometheus", "grafana", "alertmanager"])
def test_the_generated_files_are_current(target, tmp_path):
    """What is kept in the repository is what the command writes today.

    Else: streamgauge alerts render --target TARGET --out alerts/generated/TARGET
    """
    result = run("render", "--target", target, "--out", str(tmp_path))

    assert 0 == result.exit_code, result.output
    assert files_in(GENERATED / target) == files_in(tmp_path)


def test_one_engine_at_a_time(tmp_path):
    """A target's files hold nothing of another engine: both loaded would send every alert twice."""
    run("render", "--target", "grafana", "--out", str(tmp_path))

    assert not [name for name in files_in(tmp_path) if name.endswith("streamgauge-rules.yml")]


def test_alerts_link_to_runbooks_and_boards(tmp_path):
    """Both links are on every alert, and the board opens at what the alert is about."""
    result = run("render", "--out", "-", "--runbooks-url", "https://docs.example.org/runbooks",
                 "--grafana-url", "https://grafana.example.org/")  # fmt: skip
    rules = {rule["alert"]: rule["annotations"] for rule in yaml.safe_load(result.output)["groups"][1]["rules"]}
    links = {name: annotations["dashboard_url"] for name, annotations in rules.items()}

    assert len(ALL_RULES) == len(links)
    assert (
        "https://docs.example.org/runbooks/StreamgaugeConsumerStopped/"
        == rules["StreamgaugeConsumerStopped"]["runbook_url"]
    )
    assert (
        "https://grafana.example.org/d/streamgauge-overview?var-cluster={{ $labels.cluster | urlquery }}"
        "&var-kind={{ $labels.kind | urlquery }}&var-consumer={{ $labels.consumer | urlquery }}"
    ) == links["StreamgaugeConsumerStopped"]
    assert "https://grafana.example.org/d/streamgauge-overview" == links["StreamgaugeMonitorDown"]


@pytest.fixture
def with_contacts(tmp_path, monkeypatch):
    """A current folder whose settings tell somebody of critical alerts and warnings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streamgauge.yml").write_text(
        "clusters: [{bootstrap_servers: 'x:1'}]\n"
        "notifications: {pagerduty: [{}], slack: [{severities: [warning], channel: '#streams'}]}\n"
    )
    return tmp_path


def test_contacts_are_rendered_for_grafana(with_contacts):
    """With contacts in the settings there is a file of contact points, and the rules send to them."""
    result = run("render", "--target", "grafana", "--out", "out", "--datasource-uid", "mine")
    written = files_in(with_contacts / "out")
    points = yaml.safe_load(written["provisioning/alerting/streamgauge-contact-points.yaml"])["contactPoints"]
    rules = yaml.safe_load(written["provisioning/alerting/streamgauge-rules.yaml"])["groups"][0]["rules"]

    assert (0, 3) == (result.exit_code, len(written))
    assert ["streamgauge-critical", "streamgauge-warning"] == [point["name"] for point in points]
    assert {"streamgauge-critical", "streamgauge-warning", None} == {
        rule.get("notification_settings", {}).get("receiver") for rule in rules
    }
    assert {"mine", "__expr__"} == {node["datasourceUid"] for rule in rules for node in rule["data"]}


def test_contacts_are_rendered_for_alertmanager(with_contacts):
    """The settings of the folder count, and of whom nobody is told is said beside the file."""
    result = run("render", "--target", "alertmanager", "--out", "-")
    receivers = {each["name"]: list(each)[1:] for each in yaml.safe_load(result.stdout)["receivers"]}

    assert {"streamgauge-critical": ["pagerduty_configs"], "streamgauge-warning": ["slack_configs"],
            "streamgauge-info": [], "streamgauge-none": []} == receivers  # fmt: skip
    assert "streamgauge: nobody is told of alerts with severity info or none: see notifications\n" == result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(("--target", "alertmanager", "--config", "no.yml"), "no.yml", id="no settings file"),
        pytest.param(("--runbooks-url", "docs.example.org"), "'docs.example.org' is no address", id="no address"),
        pytest.param(("--target", "grafana", "--datasource-uid", ""), "'' is no uid of Grafana", id="no data source"),
        pytest.param(("--target", "grafana"), "cannot print the 2 files of target grafana", id="two files as one"),
    ],
)
def test_wrong_usage_is_one_line(arguments, complaint):
    """What was wrong and what to write, exit code 2, no traceback."""
    result = run("render", "--out", "-", *arguments)

    assert 2 == result.exit_code
    assert complaint in result.output
    assert 1 == result.output.count("\n")


@needs_tools
def test_rules_and_routes_are_checked():
    """Each by the tool of its engine."""
    rules, routes = run("check"), run("check", "--target", "alertmanager")

    assert (0, 0) == (rules.exit_code, routes.exit_code)
    assert f"SUCCESS: {len(ALL_RULES) + 1} rules found" in rules.output
    assert "streamgauge-alertmanager.yml' SUCCESS" in routes.output


@needs_tools
def test_rules_that_fail_their_tests_are_told(monkeypatch):
    """All pass: a line each and exit code 0. One fails: promtool's words, and exit code 1."""
    some = {name: document for name, document in cases.documents().items() if "Monitor" in name}
    monkeypatch.setattr(cases, "documents", lambda: some)
    good = run("test")
    some["StreamgaugeMonitorSlow"]["tests"][0]["alert_rule_test"][0]["eval_time"] = "1m"
    bad = run("test")

    assert (0, 3) == (good.exit_code, good.output.count("passed"))
    assert (1, 2) == (bad.exit_code, bad.output.count("passed"))
    assert "StreamgaugeMonitorSlow: FAILED:" in bad.output


def test_without_promtool_nothing_is_claimed(monkeypatch, tmp_path):
    """Out of reach is exit code 3, with the package that has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("test")

    assert 3 == result.exit_code
    assert "cannot test the rules: promtool is not on PATH" in result.output


@needs_tools
def test_a_test_file_that_promtool_says_nothing_about_is_an_error(monkeypatch):
    """A verdict is never made up."""
    monkeypatch.setattr(promtool, "_promtool", lambda purpose: "true")

    result = run("test")

    assert 3 == result.exit_code
    assert "promtool ended with 0" in result.output
