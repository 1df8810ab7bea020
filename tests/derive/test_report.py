"""Consumers in a report: totals, health with evidence, rates, counters, Spark queries beside groups."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import (
    HEALTHS,
    Consumer,
    Failure,
    GroupFacts,
    Health,
    Kind,
    SparkBatch,
    SparkQuery,
    SparkSnapshot,
    TopicPartition,
    Why,
)

P0, P1 = ("orders", 0), ("orders", 1)
EMPTY = GroupFacts(group("g"), state="Empty", protocol="classic", members=0)


def one(ends, commits, history=None, sparks=None, objective=300.0, **kw):
    history = history or History()
    return derive(observe(kafka_snapshot(ends, commits, **kw), sparks, history), history, lambda _: objective)


def health_of(report, index=0):
    return HEALTHS[report.consumers.health[index]]


def test_a_total_with_an_unknown_part_is_unknown_and_keeps_its_lower_bound():
    """A dead broker never makes lag fall: the sum is unknown, what is known stands beside it."""
    report = one({P0: (0, 100), P1: Why.NO_LEADER}, {"g": {P0: 58, P1: 10}})

    consumers = report.consumers
    assert (-1, 42, 1, 1) == (
        consumers.lag_records[0],
        consumers.known_lag_records[0],
        consumers.partitions_known[0],
        consumers.partitions_unknown[0],
    )
    assert np.isnan(consumers.lag_seconds[0])
    assert Why.NO_LEADER == consumers.why[0]
    assert health_of(report) is Health.UNKNOWN


@pytest.mark.parametrize(
    ("committed", "facts", "health"),
    [
        pytest.param(100, EMPTY, Health.OK, id="nobody reads, nothing to read"),
        pytest.param(58, EMPTY, Health.STOPPED, id="nobody reads what is there"),
        pytest.param(58, GroupFacts(group("g"), state="Stable", members=2), Health.OK, id="somebody reads"),
        pytest.param(58, GroupFacts(group("g"), state="Empty"), Health.STOPPED, id="the state alone tells"),
        pytest.param(58, GroupFacts(group("g")), Health.UNKNOWN, id="old broker: no state, no judgement"),
        pytest.param(100, GroupFacts(group("g")), Health.OK, id="caught up needs no state"),
        pytest.param(Why.NO_COMMIT, GroupFacts(group("g"), state="Stable", members=1), Health.UNKNOWN, id="no commit"),
        pytest.param(Why.TIMEOUT, EMPTY, Health.UNKNOWN, id="not read"),
    ],
)
def test_health(committed, facts, health):
    """Health is judged from lag and members, and unknown where one of them is missing."""
    assert health_of(one({P0: (0, 100)}, {"g": {P0: committed}}, states={"g": facts})) is health


def test_stopped_outweighs_an_unknown_partition():
    """Unknown only where nothing known is worse than ok."""
    report = one({P0: (0, 100), P1: Why.TIMEOUT}, {"g": {P0: 58, P1: 1}}, states={"g": EMPTY})

    assert health_of(report) is Health.STOPPED
    assert "no members" in report.consumers.evidence[0]


def test_a_group_that_could_not_be_read_is_unknown_and_says_why():
    """No positions and a reason: nothing about it is zero."""
    facts = GroupFacts(group("g"), why=30)
    report = one({P0: (0, 100)}, {"g": {}}, states={"g": facts})

    assert -1 == report.consumers.lag_records[0]
    assert -1 == report.consumers.members[0]
    assert 30 == report.consumers.why[0]
    assert "GROUP_AUTHORIZATION_FAILED" in report.consumers.evidence[0]


def test_evidence_claims_no_lower_bound_where_nothing_is_known():
    """With no partition known there is no "at least", and a group without partitions says so."""
    unread = one({P0: Why.TIMEOUT}, {"g": {P0: 3}})
    nothing = one({P0: (0, 1)}, {"g": {}})

    assert "1 of its partitions unknown (the broker did not answer in time)" == unread.consumers.evidence[0]
    assert "it has no partitions" == nothing.consumers.evidence[0]


def test_beyond_the_end_is_a_finding():
    """A commit past the log end is told with both numbers, and is no zero."""
    report = one({P0: (0, 100)}, {"g": {P0: 200}})

    assert -1 == report.consumers.lag_records[0]
    assert ["beyond_end"] == [f.kind for f in report.findings]
    assert "200" in report.findings[0].text
    assert "100" in report.findings[0].text


def test_rates_and_read_counters_grow_with_what_moved():
    """30 records in 10 s came, 20 were read."""
    history = History()
    first = one({P0: (0, 100)}, {"g": {P0: 50}}, history, at=1000.0)
    second = one({P0: (0, 130)}, {"g": {P0: 70}}, history, at=1010.0)

    assert np.isnan(first.topics.records_per_second[0])
    assert Why.FIRST_READING == first.consumers.why_rate[0]
    assert 3.0 == second.topics.records_per_second[0]
    assert 2.0 == second.consumers.records_per_second[0]
    assert [0] == first.consumer_topics.records_total.tolist()
    assert [20] == second.consumer_topics.records_total.tolist()


def test_an_empty_partition_without_a_commit_leaves_the_rate_known():
    """Faust is assigned a topic of its own that never holds a record: what it reads elsewhere is known all the same."""
    history = History()
    one({P0: (0, 100), P1: (0, 0)}, {"g": {P0: 50, P1: Why.NO_COMMIT}}, history, at=1000.0)
    empty = one({P0: (0, 130), P1: (0, 0)}, {"g": {P0: 70, P1: Why.NO_COMMIT}}, history, at=1010.0)
    filled = one({P0: (0, 130), P1: (0, 5)}, {"g": {P0: 90, P1: Why.NO_COMMIT}}, history, at=1020.0)

    assert 2.0 == empty.consumers.records_per_second[0]
    assert np.isnan(filled.consumers.records_per_second[0])


def test_an_outage_neither_invents_nor_loses_reads():
    """While the commit is unknown the rate is too; afterwards what was read in between is counted once."""
    history = History()
    one({P0: (0, 100)}, {"g": {P0: 50}}, history, at=1000.0)
    during = one({P0: Why.TIMEOUT}, {"g": {P0: Why.TIMEOUT}}, history, at=1010.0, up=False)
    after = one({P0: (0, 130)}, {"g": {P0: 90}}, history, at=1020.0)

    assert np.isnan(during.consumers.records_per_second[0])
    assert -1 == during.topics.records_total[0]
    assert 2.0 == after.consumers.records_per_second[0]
    assert [40] == after.consumer_topics.records_total.tolist()
    assert 1000.0 == during.sources[0].last_success


def test_a_rewind_is_not_a_negative_read():
    """A commit that moves back counts nothing."""
    history = History()
    one({P0: (0, 100)}, {"g": {P0: 90}}, history, at=1000.0)
    report = one({P0: (0, 100)}, {"g": {P0: 10}}, history, at=1010.0)

    assert [0] == report.consumer_topics.records_total.tolist()


def test_layouts_keep_their_identity_while_nothing_comes_or_goes():
    """Publishers keep what they built on a layout: equal rows are the same object, new rows are not."""
    history = History()
    first = one({P0: (0, 100)}, {"g": {P0: 50}}, history)
    second = one({P0: (0, 110)}, {"g": {P0: 60}}, history)
    third = one({P0: (0, 110), P1: (0, 1)}, {"g": {P0: 60}}, history)

    assert first.positions.layout is second.positions.layout
    assert first.partitions.layout is second.partitions.layout is second.positions.layout.partitions
    assert third.partitions.layout is not second.partitions.layout


@pytest.mark.parametrize(("objective", "over"), [(5.0, 1), (60.0, 0)])
def test_over_objective_needs_the_whole_interval(objective, over):
    """Placed between two readings 10 s apart: surely older than 5 s, not surely older than 60 s."""
    history = History()
    for k, end in enumerate([10, 20, 30]):
        report = one({P0: (0, end)}, {"g": {P0: 10}}, history, at=1000.0 + 10 * k, objective=objective)

    assert over == report.consumers.over_objective[0]
    assert ("over its objective" in report.consumers.evidence[0]) == bool(over)


def test_over_objective_is_told_beside_an_unknown_partition():
    """One partition is surely too old: that another one is unknown changes nothing about it."""
    history = History()
    for k, end in enumerate([10, 20, 30]):
        report = one({P0: (0, end), P1: Why.TIMEOUT}, {"g": {P0: 10, P1: 3}}, history, at=1000.0 + 10 * k, objective=5)

    assert 1 == report.consumers.over_objective[0]
    assert "over its objective of 5 s" in report.consumers.evidence[0]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), min_size=1), st.integers(1, 10))
def test_adding_an_equal_commit_never_improves_health(commits, members):
    """A consumer with one more partition, no better than its worst, is judged no better."""
    ends = {(topic, 0): (0, 100) for topic in (*commits, "z")}
    facts = {"g": GroupFacts(group("g"), state="Empty", members=0)}
    positions = {(topic, 0): offset for topic, offset in commits.items()}
    before = one(ends, {"g": positions}, states=facts)
    after = one(ends, {"g": {**positions, ("z", 0): min(commits.values())}}, states=facts)

    assert after.consumers.health[0] <= before.consumers.health[0]


def spark_query(batches, committed, **kw):
    return SparkQuery(
        Consumer(Kind.SPARK, "q"), "id-1", "/chk/q", 1000.0, committed, {}, batches[-1].batch_id, tuple(batches), **kw
    )


def batch(number, duration=2.0, rows=5):
    return SparkBatch(number, 990.0 + number, 992.0 + number, duration, rows)


def test_a_spark_query_stands_beside_the_groups():
    """Its lag is counted against the broker's log end like everybody's; it has no members and no state."""
    sparks = SparkSnapshot("default", 999.0, 1000.0, True, (spark_query([batch(0)], {TopicPartition(*P0): 30}),))
    report = one({P0: (0, 100)}, {"g": {P0: 100}}, sparks=sparks)

    assert [Kind.GROUP, Kind.SPARK] == [c.kind for c in report.positions.layout.consumers]
    assert [0, 70] == report.consumers.lag_records.tolist()
    assert -1 == report.consumers.members[1]
    assert health_of(report, 1) is Health.OK
    assert 2.0 == report.spark[1].last_batch_duration_seconds


def test_spark_batches_are_counted_once_and_from_the_first_look_on():
    """History at start is not growth; the same batch seen twice counts once."""
    history = History()
    totals = []
    for last in (3, 3, 5):
        sparks = SparkSnapshot(
            "default",
            999.0,
            1000.0,
            True,
            (spark_query([batch(n) for n in range(last + 1)], {TopicPartition(*P0): 1}),),
        )
        report = one({P0: (0, 9)}, {}, history, sparks)
        totals.append(
            (report.spark[0].batches_total, report.spark[0].input_rows_total, report.spark[0].durations.count)
        )

    assert [(0, 0, 0), (0, 0, 0), (2, 10, 2)] == totals


def test_a_failed_checkpoint_is_unknown_and_a_removed_one_is_gone():
    """A query whose checkpoint could not be read keeps its place with a reason; one no longer there leaves."""
    history = History()
    good = SparkSnapshot("default", 999.0, 1000.0, True, (spark_query([batch(0)], {TopicPartition(*P0): 30}),))
    one({P0: (0, 100)}, {}, history, good)

    torn = SparkSnapshot("default", 1009.0, 1010.0, False, (), (Failure("checkpoint", "/chk/q", "CORRUPT"),))
    failed = one({P0: (0, 100)}, {}, history, torn, at=1010.0)
    gone = one({P0: (0, 100)}, {}, history, SparkSnapshot("default", 1019.0, 1020.0, True, ()), at=1020.0)

    assert [-1] == failed.consumers.lag_records.tolist()
    assert Why.CHECKPOINT == failed.consumers.why[0]
    assert () == gone.positions.layout.consumers


def test_a_query_on_a_topic_the_cluster_does_not_list_is_unknown():
    """A topic that only the checkpoint names has no log end to compare with."""
    sparks = SparkSnapshot("default", 999.0, 1000.0, True, (spark_query([batch(0)], {TopicPartition("gone", 2): 30}),))
    report = one({P0: (0, 100)}, {}, sparks=sparks)

    assert [-1] == report.positions.lag_records.tolist()
    assert [Why.TOPIC_GONE] == report.positions.why.tolist()
    assert report.partitions.layout.key(1) == TopicPartition("gone", 2)
