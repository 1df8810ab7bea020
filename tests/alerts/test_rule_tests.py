"""Every rule's own tests, run by promtool, and that every rule has them."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from alerts.prometheus import FILE_NAME, render
from alerts.promtool import check
from alerts.rules import RULES
from monitor.errors import StreamgaugeError, UnreachableError

RULE_TESTS = sorted((Path(__file__).parents[1] / "rules").glob("*.yml"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool is not on PATH (Debian: package prometheus)",
)


def run(path, folder, rules):
    """Run a promtool test file against a rule file; return its exit code and what it printed."""
    (folder / FILE_NAME).write_text(rules)
    shutil.copy(path, folder)
    command = ["promtool", "test", "rules", str(folder / path.name)]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    return answer.returncode, answer.stdout + answer.stderr


def expectations():
    """Every expectation of every test file: alert name and the alerts that are expected."""
    for path in RULE_TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for expected in test["alert_rule_test"]:
                yield expected["alertname"], expected["exp_alerts"]


@needs_promtool
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rule_does_what_its_test_says(path, tmp_path):
    """Fires with this text, stays silent, survives gaps, resolves: as written in the test file."""
    code, said = run(path, tmp_path, render())

    assert 0 == code, said


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_tested_both_ways(rule):
    """There is a case in which it fires, with its text, and one in which it stays silent."""
    cases = [alerts for name, alerts in expectations() if name == rule.name]

    assert any(not alerts for alerts in cases), "no case in which it stays silent"
    assert any(alert["exp_annotations"]["description"] for alerts in cases for alert in alerts)


BROKEN = [
    pytest.param("consumer_over_objective", "[15m]", "[3m]", id="an unknown age ends the alert"),
    pytest.param("consumer_over_objective", "_bound[15m]", "_bound[15m]*0", id="a wide bound fires by itself"),
    pytest.param("consumer_over_objective", "[3m]", "[30s]", id="a lost scrape starts anew"),
    pytest.param("consumer_over_objective", "[3m]", "[15m]", id="one sample fires by itself"),
    pytest.param("consumer_over_objective", "max by (cluster, kind, consumer) (", "(", id="two monitors, two alerts"),
    pytest.param("consumer_over_objective", "for: 5m", "for: 4m", id="fires sooner"),
    pytest.param("consumer_over_objective", "for: 5m", "for: 6m", id="fires later"),
    pytest.param("consumer_over_objective", "keep_firing_for: 5m", "keep_firing_for: 1h", id="never lets go"),
    pytest.param("consumer_over_objective", "        keep_firing_for: 5m\n", "", id="lets go at once"),
    pytest.param("consumer_over_objective", "severity: warning", "severity: critical", id="another severity"),
    pytest.param("consumer_over_objective", "humanizeDuration", "humanize", id="another unit in the text"),
    pytest.param("consumer_over_objective", "consumer=%q", "consumer='%s'", id="a quote in a name, unquoted"),
    pytest.param("consumer_stopped", "[3m]", "[30s]", id="a lost scrape starts anew (stopped)"),
    pytest.param("consumer_stopped", 'health="unknown"', 'health="ok"', id="an unknown health ends the alert"),
    pytest.param("consumer_stopped", "last_over_time", "max_over_time", id="a restart in between is not seen"),
    pytest.param("cluster_down", "[3m]", "[30s]", id="a lost scrape starts anew (down)"),
    pytest.param("cluster_down", "max by (cluster, source)", "min by (cluster, source)", id="one of two monitors"),
    pytest.param("cluster_down", "time() - ", "", id="a moment shown as a duration"),
    pytest.param("monitor_stale", "[6h]", "[3m]", id="a vanished cluster is forgotten"),
    pytest.param("monitor_stale", ") == 0", ") == 7", id="a cluster down is stale"),
    pytest.param("monitor_stale", "unless on (cluster, source)", "unless on (source)", id="another cluster down"),
    pytest.param("monitor_down", "unless on () absent", "unless on (cluster) absent", id="two alerts for one monitor"),
    pytest.param("monitor_down", "absent_over_time(streamgauge_cluster_up[3m])", "absent(streamgauge_cluster_up)",
                 id="a lost scrape is an outage"),
    pytest.param("spark_batch_slower_than_trigger", "inflight_batch_age", "last_batch_duration", id="a hung batch"),
    pytest.param("spark_batch_slower_than_trigger", "[3m]", "[30s]", id="a lost scrape starts anew (batch)"),
]  # fmt: skip


@needs_promtool
@pytest.mark.parametrize(("stem", "old", "new"), BROKEN)
def test_the_tests_notice_a_broken_rule(stem, old, new, tmp_path):
    """With a fault put into the rule file the test of that rule fails: the tests are not blind."""
    (path,) = (path for path in RULE_TESTS if path.stem == stem)
    text = render()
    assert old in text

    code, said = run(path, tmp_path, text.replace(old, new))

    assert 1 == code, said
    assert "FAILED" in said


@needs_promtool
def test_promtool_accepts_the_rules():
    """All lints on, nothing to complain about."""
    assert f"SUCCESS: {len(RULES)} rules found" in check(render())


@needs_promtool
def test_a_rule_that_does_not_parse_is_one_line():
    """What promtool complains about arrives as one line with the reason."""
    broken = replace(RULES[0], expression="max by (")

    with pytest.raises(StreamgaugeError, match=r"promtool does not accept the rules: .*parse error") as caught:
        check(render([broken]))

    assert "\n" not in str(caught.value)
    assert 3 == caught.value.exit_code


def test_without_promtool_it_says_so(monkeypatch, tmp_path):
    """No promtool on PATH: nothing is claimed, and the exit code is that of something out of reach."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UnreachableError, match="promtool is not on PATH") as caught:
        check(render())

    assert 3 == caught.value.exit_code
