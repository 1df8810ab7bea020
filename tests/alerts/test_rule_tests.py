"""Every rule's own tests, run by promtool, and that they would notice a broken rule.

promtool is started twice: once with every test file, once with every broken rule. Each test file gets a rule file with
no more rules than it asks about, which is much faster than with all of them.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_servers import needs_promtool

from alerts import promtool
from alerts.cases import asked_about, case_files, documents, jobs, read_as_text
from alerts.prometheus import render
from alerts.promtool import check
from alerts.rules import ALL_RULES, RECORDS, WATCHDOG
from monitor.errors import StreamgaugeError, UnreachableError

WRITTEN = {
    path.stem: read_as_text(path.read_text()) for path in sorted((Path(__file__).parents[1] / "rules").glob("*.yml"))
}
"""Written by hand in promtool's format, for what takes two rules or many series."""

RULE_TESTS = {**WRITTEN, **documents()}


@pytest.fixture(scope="module")
def verdicts():
    return promtool.test(jobs(RULE_TESTS))


@needs_promtool
@pytest.mark.parametrize("name", RULE_TESTS)
def test_the_rule_does_what_its_test_says(name, verdicts):
    """Fires with this text, stays silent, survives gaps, resolves: as written in the test file."""
    passed, said = verdicts[name]

    assert passed, said


# --- each rule has all of them -----------------------------------------------------------------------


def asked_of(rule):
    """Every test that asks about this rule: its series, and when it expects alerts or none."""
    for document in RULE_TESTS.values():
        for test in document["tests"]:
            asked = [each for each in test["alert_rule_test"] if each["alertname"] == rule.name]
            if asked:
                yield test["input_series"], [(minute(each["eval_time"]), each["exp_alerts"]) for each in asked]


def minute(moment):
    return int(moment.removesuffix("m"))


RESOLVING = [rule for rule in ALL_RULES if rule is not WATCHDOG]


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_every_rule_fires_with_its_words(rule):
    """There is a case in which it fires, and all its annotations are there to be compared."""
    alerts = [alert for _, asked in asked_of(rule) for _, alerts in asked for alert in alerts]

    assert alerts
    assert {"summary", "description", "runbook"} == {key for alert in alerts for key in alert["exp_annotations"]}


@pytest.mark.parametrize("rule", RESOLVING, ids=lambda rule: rule.name)
def test_every_rule_is_held_to_silence(rule):
    """There is a case in which it never fires, though its series are there."""
    assert any(series and not any(alerts for _, alerts in asked) for series, asked in asked_of(rule))


@pytest.mark.parametrize("rule", RESOLVING, ids=lambda rule: rule.name)
def test_every_rule_is_seen_to_resolve(rule):
    """There is a case in which it fires, and later does not."""
    resolved = [
        (fired, silent)
        for _, asked in asked_of(rule)
        for fired, alerts in asked
        for silent, none in asked
        if alerts and not none and fired < silent
    ]

    assert resolved


@pytest.mark.parametrize("rule", RESOLVING, ids=lambda rule: rule.name)
def test_every_rule_loses_a_scrape(rule):
    """There is a case with a sample missing in the middle: one lost scrape or failed cycle resets nothing."""
    gaps = [
        series["values"]
        for given, asked in asked_of(rule)
        for series in given
        if re.search(r"stale (?!_x)", series["values"])
    ]

    assert gaps


@pytest.mark.parametrize("rule", [rule for rule in ALL_RULES if rule.keep], ids=lambda rule: rule.name)
def test_every_rule_that_is_kept_firing_is_held_to_it(rule):
    """There is a case that looks at the alert after it has stopped being true, and before it resolves."""
    assert [fire for case in case_files()[rule.name]["cases"] for fire in case.get("fires", []) if "kept" in fire]


# --- the tests are not blind -------------------------------------------------------------------------

BROKEN = [
    pytest.param("consumer_over_objective", "[15m]", "[3m]", id="an unknown age ends the alert"),
    pytest.param("consumer_over_objective", ") - last", ") - 0 * last", id="a wide bound fires by itself"),
    pytest.param("consumer_over_objective", "[3m]", "[30s]", id="a lost scrape starts anew"),
    pytest.param("consumer_over_objective", "[3m]", "[15m]", id="one sample fires by itself"),
    pytest.param("consumer_over_objective", "max by (cluster, kind, consumer) (", "(", id="two monitors, two alerts"),
    pytest.param("consumer_over_objective", "for: 5m", "for: 4m", id="fires sooner"),
    pytest.param("consumer_over_objective", "for: 5m", "for: 6m", id="fires later"),
    pytest.param("consumer_over_objective", "keep_firing_for: 5m", "keep_firing_for: 1h", id="never lets go"),
    pytest.param("consumer_over_objective", "        keep_firing_for: 5m\n", "", id="lets go at once"),
    pytest.param("consumer_over_objective", "severity: warning", "severity: critical", id="another severity"),
    pytest.param("consumer_over_objective", "humanizeDuration", "humanize", id="another unit in the text"),
    pytest.param("consumer_over_objective", "consumer=%q", 'consumer="%s"', id="a quote in a name, unquoted"),
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
    pytest.param("StreamgaugeConsumerBudgetBurnFast", "[1h]) / 60", "[1h]) / 60 * 0 + 1", id="a short burst burns all"),
    pytest.param("StreamgaugeConsumerBudgetBurnFast", "sum_over_time(streamgauge:consumer_over_objective:bool[5m]) / 5",
                 "vector(1)", id="burns on when all is well"),
    pytest.param("StreamgaugeConsumerBudgetBurnFast", "sum_over_time", "3 * avg_over_time",
                 id="the first minutes are all of the time"),
    pytest.param("StreamgaugeConsumerBudgetBurnFast", "and on (cluster, kind, consumer) last",
                 "or on (cluster, kind, consumer) 0 * last", id="who is gone burns on"),
    pytest.param("StreamgaugeConsumerBudgetBurnFast", ") - last", ") - 0 * last", id="a wide bound burns"),
    pytest.param("StreamgaugeConsumerBudgetBurnSlow", "[30m]) / 30", "[30m]) / 300", id="another share"),
    pytest.param("StreamgaugeConsumerBudgetBurnSlow", "6 * 0.01", "5 * 0.01", id="another factor"),
    pytest.param("StreamgaugeConsumerGrowing", "1.2 * ", "0 * ", id="any slope is growth"),
    pytest.param("StreamgaugeConsumerGrowing", "0.5 * ", "0 * ", id="growth without a floor"),
    pytest.param("StreamgaugeConsumerGrowing", "[3m]", "[30s]", id="a lost scrape starts anew (growing)"),
    pytest.param("StreamgaugeConsumerLosingData", "max_over_time", "last_over_time", id="an unread group is fine"),
    pytest.param("StreamgaugeConsumerLosingData", 'health="losing_data"', 'health="stopped"', id="another health"),
    pytest.param("StreamgaugeConsumerLostRecords", "[3m]", "[30s]", id="a lost scrape starts anew (lost)"),
    pytest.param("StreamgaugeConsumerRewound", "[3m]", "[30s]", id="a lost scrape starts anew (rewound)"),
    pytest.param("StreamgaugeConsumerRebalanceStorm", "> 5", "> 1", id="a few rebalances are a storm"),
    pytest.param("StreamgaugeConsumerRebalanceStorm", "increase(", "changes(", id="a restarted count is a storm"),
    pytest.param("StreamgaugeConsumerIncomplete", "for: 15m", "for: 5m", id="a broker away for a moment"),
    pytest.param("StreamgaugeConsumerIncomplete", 'health="unknown"', 'health="lost"', id="who may not be read"),
    pytest.param("StreamgaugeConsumerIncomplete", 'status="known"', 'status="unknown"', id="another number"),
    pytest.param("StreamgaugeConsumerStalled", "topic_records_total[15m]) > 0", "topic_records_total[15m]) >= 0",
                 id="a marker on an idle topic"),
    pytest.param("StreamgaugeConsumerStalled", "abandoned[15m]) == 1", "abandoned[15m]) == 7", id="an abandoned topic"),
    pytest.param("StreamgaugeConsumerStalled", "members[3m]) > 0", "members[3m]) >= 0", id="a group without members"),
    pytest.param("StreamgaugeConsumerStalled", "and last_over_time(streamgauge_consumer_topic_lag_records[15m]",
                 "or last_over_time(streamgauge_consumer_topic_lag_records[15m]", id="a monitor that has just begun"),
    pytest.param("StreamgaugeConsumerPartitionStuck", "> 0.95", "> 0.4", id="a slow reader is stuck"),
    pytest.param("StreamgaugeConsumerPartitionStuck", "end_offset[15m]) > 0", "end_offset[15m]) >= 0",
                 id="a marker on an idle partition"),
    pytest.param("StreamgaugeConsumerPartitionStuck", "records_total[15m] offset 15m", "records_total[15m] offset 1s",
                 id="a monitor that has just begun is sure"),
    pytest.param("StreamgaugeConsumerPartitionStuck", 'partition!="rest"', 'partition!=""', id="the rest is stuck"),
    pytest.param("StreamgaugeConsumerPartitionStuck", "abandoned[15m]) == 1", "abandoned[15m]) == 7",
                 id="an abandoned topic is stuck"),
    pytest.param("StreamgaugeConsumerHotPartition", "> 5 * ", "> 0.5 * ", id="an even lag is hot"),
    pytest.param("StreamgaugeConsumerHotPartition", " + 4)", " + 5)", id="a single partition is hot"),
    pytest.param("StreamgaugeConsumerHotPartition", "max by (cluster, topic, partition)",
                 "max by (cluster, topic, partition, instance)", id="two monitors have twice the partitions"),
    pytest.param("StreamgaugeConsumerHotPartition", "0.5 * ", "0 * ", id="a young lag is hot"),
    pytest.param("StreamgaugeConsumerNearRetention", "> 0.8", "> 0.4", id="half of a log"),
    pytest.param("StreamgaugeConsumerNearRetention", " offset 6h", "", id="no deletion is seen"),
    pytest.param("StreamgaugeConsumerNearRetention", "start_offset[3m]) > last", "start_offset[3m]) >= last",
                 id="nothing is deleted"),
    pytest.param("StreamgaugeConsumerAbandonedTopics", "max by (cluster, kind, consumer, topic)",
                 "max by (cluster, kind, consumer, topic, instance)", id="two monitors count twice"),
    pytest.param("StreamgaugeSparkStuck", "10 * ", "1 * ", id="a long interval is stuck"),
    pytest.param("StreamgaugeSparkStuck", "> 1800", "> 18000", id="without an interval"),
    pytest.param("StreamgaugeSparkNotCommitting", "lag_records[3m]) > 0", "lag_records[3m]) >= 0", id="no records"),
    pytest.param("StreamgaugeSparkNotCommitting", "unless last_over_time(streamgauge_spark_inflight",
                 "and last_over_time(streamgauge_spark_inflight", id="a batch in flight"),
    pytest.param("StreamgaugeSparkNotCommitting", 'health="lost"', 'health="ok"', id="told twice that it is gone"),
    pytest.param("StreamgaugeSparkLost", 'health="lost"', 'health="stalled"', id="any grave health"),
    pytest.param("StreamgaugeSparkLost", 'health="unknown"', 'health="ok"', id="not judged once"),
    pytest.param("StreamgaugeSparkEnded", ',kind="spark"', "", id="a group that stopped"),
    pytest.param("StreamgaugeSparkEnded", "[3m]", "[30s]", id="a lost scrape starts anew (ended)"),
    pytest.param("StreamgaugeSparkEnded", "unless max by", "and max by", id="told as ended though it failed"),
    pytest.param("StreamgaugeSparkFailed", "failed[3m]) == 1", "failed[3m]) >= 0", id="any end is a failure"),
    pytest.param("StreamgaugeSparkFailed", "[3m]", "[30s]", id="a lost scrape starts anew (failed)"),
    pytest.param("StreamgaugeSparkFailed", 'health="unknown"', 'health="ok"', id="a failed one not judged once"),
    pytest.param("StreamgaugeSparkStateGrowing", "[6h])\n          ) == 0", "[6h])\n          ) >= 0", id="rows leave"),
    pytest.param("StreamgaugeSparkStateGrowing", "offset 1h", "offset 6h", id="state that fills up and stands"),
    pytest.param("StreamgaugeSparkStateGrowing", "0.05 * ", "0.04 * ", id="state that hardly grows"),
    pytest.param("StreamgaugeSparkStateGrowing", "0.05 * ", "0.06 * ", id="state that doubles within a week"),
    pytest.param("StreamgaugeSparkStateGrowing", ") > 0)", ") >= 0)", id="state that was empty"),
    pytest.param("StreamgaugeSparkStateGrowing", "[3m]", "[30s]", id="a lost scrape starts anew (state)"),
    pytest.param("StreamgaugeSparkStateGrowing", "max by (cluster, kind, consumer)",
                 "max by (cluster, kind, consumer, instance)", id="another monitor starts anew"),
    pytest.param("StreamgaugeSparkWatermarkStanding", "rows_total[30m]) > 0", "rows_total[30m]) >= 0", id="no rows"),
    pytest.param("StreamgaugeSparkWatermarkStanding", "offset 30m", "offset 1s", id="a watermark that moves"),
    pytest.param("StreamgaugeFaustWorkerGone", "offset 20m", "offset 1s", id="one in its place"),
    pytest.param("StreamgaugeFaustWorkerGone", "unless on", "and on", id="fewer than before"),
    pytest.param("StreamgaugeFaustWorkerGone", "[3m]", "[30s]", id="a lost scrape starts anew (worker)"),
    pytest.param("StreamgaugeFaustErrors", "> 0.05", "> 0.03", id="one in twenty-five"),
    pytest.param("StreamgaugeFaustErrors", ">= 5", ">= 0", id="a few failures"),
    pytest.param("StreamgaugeFaustErrors", "sum by (cluster, kind, consumer)", "max by (cluster, kind, consumer)",
                 id="one worker is the app"),
    pytest.param("StreamgaugeFaustErrors", "clamp_max(", "clamp_min(", id="more than all"),
    pytest.param("StreamgaugeFaustRecoveryStuck", ">= last", "> 0 * last", id="a long recovery"),
    pytest.param("StreamgaugeFaustRecoveryStuck", "min_over_time(streamgauge_faust_recovering[10m])",
                 "last_over_time(streamgauge_faust_recovering[10m])", id="a recovery that has just begun"),
    pytest.param("StreamgaugeFaustRecoveryStuck", "[30m]) == 1", "[30m]) == 7", id="without a word on what is left"),
    pytest.param("StreamgaugeDeadLetters", "(?i:", "(?:", id="a name in capitals"),
    pytest.param("StreamgaugeDeadLetters", "[-_.](dlq", "(|dlq", id="any topic"),
    pytest.param("StreamgaugeDeadLetters", "and on (cluster)", "or on (cluster) 0 *", id="a new monitor"),
    pytest.param("StreamgaugeDeadLetters", "increase(", "resets(", id="nothing is counted"),
    pytest.param("StreamgaugeTopicRecreated", 'finding="recreated"', 'finding=~".+"', id="any finding"),
    pytest.param("StreamgaugeLogTruncated", "[3m]", "[30s]", id="a lost scrape starts anew (truncated)"),
    pytest.param("StreamgaugeCommitBeyondEnd", "> 0", ">= 0", id="a finding that never ends"),
    pytest.param("StreamgaugeClockSkew", "severity: info", "severity: critical", id="a clock wakes somebody"),
    pytest.param("StreamgaugeSourceFailing", "[10m]", "[30m]", id="one failure fires"),
    pytest.param("StreamgaugeMonitorSlow", "for: 10m", "for: 1m", id="one slow look"),
    pytest.param("StreamgaugeSeriesDropped", "max by () (", "(", id="two monitors, two alerts for dropped series"),
    pytest.param("StreamgaugeWatchdog", "vector(1)", "vector(1) and on () absent(streamgauge_cluster_up)",
                 id="a watchdog that sleeps"),
]  # fmt: skip


@pytest.fixture(scope="module")
def broken_verdicts():
    whole, broken = jobs(RULE_TESTS), {}
    for param in BROKEN:
        name, old, new = param.values
        document, rules = whole[name]
        assert old in rules, f"{param.id}: there is no {old} in the rules of {name}"
        broken[param.id] = (document, rules.replace(old, new))
    return promtool.test(broken)


@needs_promtool
@pytest.mark.parametrize("fault", [param.id for param in BROKEN])
def test_the_tests_notice_a_broken_rule(fault, broken_verdicts):
    """With a fault put into the rule file the test of that rule fails: the tests are not blind."""
    passed, said = broken_verdicts[fault]

    assert not passed
    assert said.startswith("FAILED:"), said
    assert "exp:" in said, said


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_every_rule_has_a_fault_that_is_noticed(rule):
    """No rule is without a mutation."""
    broken = {rule_name for param in BROKEN for rule_name in asked_about(RULE_TESTS[param.values[0]])}

    assert rule.name in broken


# --- promtool itself ---------------------------------------------------------------------------------


@needs_promtool
def test_promtool_accepts_the_rules():
    """All lints on, nothing to complain about."""
    assert f"SUCCESS: {len(ALL_RULES) + len(RECORDS)} rules found" in check(render())


@needs_promtool
def test_a_rule_that_does_not_parse_is_one_line():
    """What promtool complains about arrives as one line with the reason."""
    broken = replace(ALL_RULES[0], expression="max by (")

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
