"""The rule file for Prometheus and the rules for Grafana say the same: on the same series, at the same moments.

promtool holds the Prometheus file against the cases (test_rule_tests.py). Here the same cases are held against
Grafana's rules: a real Prometheus has their series and answers what those rules ask, and an evaluator does what Grafana
would do.
"""

import json
import re

import pytest
import yaml
from case_samples import BASES, CASES, minute
from grafana_evaluator import GrafanaRule
from prometheus_servers import asked, needs_prometheus

from alerts import grafana
from alerts.cases import case_files
from alerts.rules import ALL_RULES, RECORDS

pytestmark = needs_prometheus

KEPT = {
    (name, case["name"]): {each["at"] for each in case.get("fires", []) if "kept" in each}
    for name, said in case_files().items()
    for case in said["cases"]
}
"""The moments of a case at which an alert is no longer true, and kept firing."""


def in_any_order(alert: object) -> str:
    """Two alerts with the same labels are the same, whatever comes first in them."""
    return json.dumps(alert, sort_keys=True)


class Asked:
    """Answers of a Prometheus at every minute of a case, asked for once a query."""

    def __init__(self, address, base, minutes):
        self.address, self.base, self.minutes, self.known = address, base, minutes, {}

    def __call__(self, expression, at):
        if expression not in self.known:
            self.known[expression] = self.range(expression)
        return self.known[expression].get(at, {})

    def range(self, expression):
        end = self.base + 60 * self.minutes
        span = {"start": self.base, "end": end, "step": 60}
        result = asked(self.address, "/api/v1/query_range", query=expression, **span)["result"]
        moments = {}
        for series in result:
            labels = frozenset((name, value) for name, value in series["metric"].items() if name != "__name__")
            for moment, value in series["values"]:
                moments.setdefault(int(moment), {})[labels] = float(value)
        return moments


# --- the two renderings ------------------------------------------------------------------------------

FILES = grafana.render()
(GROUP,) = yaml.safe_load(FILES[grafana.RULES_FILE])["groups"]
FROM_FILE = {rule["title"]: rule for rule in GROUP["rules"]}
FROM_API = {rule["title"]: rule for rule in json.loads(FILES[grafana.GROUP_FILE])["rules"]}


@pytest.mark.parametrize(("name", "case"), [pytest.param(*each, id=f"{each[0]}: {each[1]['name']}") for each in CASES])
def test_grafana_fires_when_prometheus_does(name, case, backfilled_prometheus):
    """At every moment a case asks about: the same alerts with the same labels and the same words, or none.

    While an alert is only kept firing the words differ: Prometheus repeats the last ones, Grafana makes new ones.
    """
    minutes = max(minute(each["eval_time"]) for each in case["alert_rule_test"])
    base = BASES[id(case)]
    rule = GrafanaRule(FROM_FILE[name], 60, Asked(backfilled_prometheus, base, minutes))

    firing = {at: rule.evaluate(base + 60 * at) for at in range(minutes + 1)}

    for question in case["alert_rule_test"]:
        expected = sorted(question["exp_alerts"], key=in_any_order)
        actual = sorted(firing[minute(question["eval_time"])], key=in_any_order)
        if question["eval_time"] in KEPT[name, case["name"]]:
            expected, actual = ([each["exp_labels"] for each in alerts] for alerts in (expected, actual))
        assert expected == actual, question["eval_time"]


def test_file_and_api_hold_the_same_rules():
    """What the file spells in one way and the API in another is the same, rule by rule."""
    spelled = {"keep_firing_for": "keepFiringFor", "missingSeriesEvalsToResolve": "missing_series_evals_to_resolve"}
    place = {"orgID": 1, "folderUID": "streamgauge", "ruleGroup": "streamgauge"}
    respelled = {
        title: {spelled.get(key, key): value for key, value in rule.items() if key not in place}
        for title, rule in FROM_API.items()
    }

    assert FROM_FILE == respelled
    assert all(place.items() <= rule.items() for rule in FROM_API.values())
    assert [rule.name for rule in ALL_RULES] == list(FROM_FILE)
    assert ("60s", 60) == (GROUP["interval"], json.loads(FILES[grafana.GROUP_FILE])["interval"])


@pytest.mark.parametrize("rule", FROM_FILE.values(), ids=lambda rule: rule["title"])
def test_a_rule_is_one_that_grafana_takes(rule):
    """uid within its limits, refIds once each, the condition is one of them, and nothing is recorded elsewhere."""
    refs = [node["refId"] for node in rule["data"]]

    assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", rule["uid"])
    assert len(set(refs)) == len(refs)
    assert rule["condition"] == refs[-1]
    assert all(node["model"]["refId"] == node["refId"] for node in rule["data"])
    assert not [record.name for record in RECORDS if record.name in str(rule)]


def test_what_counts_when_prometheus_is_away():
    """Alerts stay as they are; the watchdog stops, and that there is no monitor is an alarm."""
    on_error = {title: rule["execErrState"] for title, rule in FROM_FILE.items()}

    assert "OK" == on_error.pop("StreamgaugeWatchdog")
    assert "Alerting" == on_error.pop("StreamgaugeMonitorDown")
    assert {"KeepLast"} == set(on_error.values())
    assert {"OK"} == {rule["noDataState"] for rule in FROM_FILE.values()}
