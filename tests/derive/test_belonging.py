"""What belongs to a consumer: topics that a live group no longer reads are shown, and no part of its lag."""

import numpy as np
import pytest
from snapshots import group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import HEALTHS, GroupFacts, Health, TopicPartition, Why

NEW, OLD = ("orders", 0), ("orders-v1", 0)
ENDS = {NEW: (0, 100), OLD: (0, 500)}
COMMITS = {NEW: 90, OLD: 200}


def live(*subscribed, at=1000.0, state="Stable", members=2, assigned=(), **kw):
    owned = {TopicPartition(*key): "client" for key in assigned}
    return GroupFacts(
        group("g"), state, "classic", "consumer", members, assigned=owned,
        subscribed=None if subscribed == (None,) else frozenset(subscribed),
        described_at=kw.pop("described_at", at), **kw,
    )  # fmt: skip


def look(history, facts, commits=COMMITS, ends=ENDS, at=1000.0):
    snapshot = kafka_snapshot(ends, {"g": commits}, at=at, states={"g": facts})
    return derive(observe(snapshot, None, history), history, lambda _: 300.0)


def marks(report):
    return dict(
        zip([report.partitions.layout.topics[i] for i in report.consumer_topics.topic],
            report.consumer_topics.abandoned.tolist(), strict=True)
    )  # fmt: skip


def test_an_abandoned_topic_is_shown_and_left_out():
    """Its own lag stands with it; the consumer's sums, ages, counts and health are those of what it reads."""
    report = look(History(), live("orders"))

    consumers = report.consumers
    assert {"orders": 0, "orders-v1": 1} == marks(report)
    assert [10, 300] == report.positions.lag_records.tolist()
    assert [False, True] == report.positions.abandoned.tolist()
    assert [10, 300] == report.consumer_topics.lag_records.tolist()
    assert (10, 10, 1, 0, 1) == tuple(
        int(column[0])
        for column in (
            consumers.lag_records,
            consumers.known_lag_records,
            consumers.partitions_known,
            consumers.partitions_unknown,
            consumers.abandoned,
        )
    )
    assert "1 abandoned topic left out" in consumers.evidence[0]


def test_an_unknown_abandoned_partition_makes_nothing_unknown():
    """The consumer's total is known although the log of the old topic cannot be read."""
    report = look(History(), live("orders"), ends={NEW: (0, 100), OLD: Why.NO_LEADER})

    assert [10, -1] == report.positions.lag_records.tolist()
    assert 10 == report.consumers.lag_records[0]
    assert Health.OK is HEALTHS[report.consumers.health[0]]


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([((0, 500), 200), ((300, 500), 200), ((300, 500), 200)], id="retention passes it"),
        pytest.param([((0, 500), Why.NO_COMMIT), ((0, 500), 200)], id="it is new"),
    ],
)
def test_nobody_is_woken_for_what_is_abandoned(looks):
    """What happens to the old topic makes neither the consumer nor the position anything but ok."""
    history = History()
    for k, (ends, commit) in enumerate(looks):
        at = 1000.0 + 10 * k
        report = look(history, live("orders", at=at, described_at=at + 1), {NEW: 90, OLD: commit},
                      {NEW: (0, 100), OLD: ends}, at=at)  # fmt: skip

    assert [Health.OK, Health.OK] == [HEALTHS[index] for index in report.positions.health]
    assert Health.OK is HEALTHS[report.consumers.health[0]]


@pytest.mark.parametrize(
    ("facts", "mark"),
    [
        pytest.param(live("orders", "orders-v1"), 0, id="subscribed"),
        pytest.param(live("orders", assigned=[OLD]), 0, id="assigned though not subscribed"),
        pytest.param(live(None), -1, id="the subscription is unknown"),
        pytest.param(live("orders", state="Empty", members=0), 0, id="an empty group keeps everything"),
        pytest.param(live("orders", state="PreparingRebalance"), -1, id="never seen settled"),
        pytest.param(live("orders", why=14), -1, id="could not be read"),
        pytest.param(live("orders", state=None), -1, id="an old broker tells no state"),
    ],
)
def test_only_a_live_group_abandons(facts, mark):
    """Members, state Stable and a subscription that is known: without one of them nothing is abandoned."""
    report = look(History(), facts)

    assert mark == marks(report)["orders-v1"]
    assert not report.positions.abandoned.any()
    assert facts.why or 310 == report.consumers.lag_records[0]


def test_a_stopped_group_is_stopped_by_what_it_left_too():
    """Without members nobody knows what will be read: an empty group keeps its lag until Kafka drops its offsets."""
    history = History()
    look(history, live("orders"))

    report = look(history, live(None, state="Empty", members=0, at=1010.0), at=1010.0)

    assert 310 == report.consumers.lag_records[0]
    assert Health.STOPPED is HEALTHS[report.consumers.health[0]]


@pytest.mark.parametrize(
    "passing",
    [
        pytest.param(live(None, state="PreparingRebalance", at=1010.0), id="rebalancing"),
        pytest.param(live("orders", "orders-v1", state="CompletingRebalance", at=1010.0), id="half a description"),
        pytest.param(live(None, why=14, at=1010.0), id="its coordinator is loading"),
    ],
)
def test_what_passes_changes_no_judgement(passing):
    """While a group rebalances or cannot be read, the last judgement stands: it does not flap."""
    history = History()
    before = look(history, live("orders"))
    during = look(history, passing, at=1010.0)
    after = look(history, live("orders", at=1020.0), at=1020.0)

    assert [{"orders": 0, "orders-v1": 1}] * 3 == [marks(before), marks(during), marks(after)]


def test_a_commit_that_moves_proves_a_reader():
    """The description is older than the commit: somebody subscribed since, so nothing is abandoned before a new one."""
    history = History()
    look(history, live("orders"))
    moved = look(history, live("orders", at=1010.0, described_at=1000.0), {NEW: 95, OLD: 210}, at=1010.0)
    stands = look(history, live("orders", at=1020.0, described_at=1000.0), {NEW: 95, OLD: 210}, at=1020.0)
    described = look(history, live("orders", described_at=1030.0), {NEW: 95, OLD: 210}, at=1031.0)

    assert [0, 0, 1] == [marks(report)["orders-v1"] for report in (moved, stands, described)]


def test_a_topic_that_appears_after_the_description_is_not_abandoned():
    """The group began to commit on a topic that its last description does not know yet."""
    history = History()
    look(history, live("orders"), {NEW: 90})

    report = look(history, live("orders", at=1010.0, described_at=1000.0), {NEW: 95, OLD: 1}, at=1010.0)

    assert {"orders": 0, "orders-v1": 0} == marks(report)


def test_a_judgement_follows_its_topic():
    """Rows come and go around it."""
    history = History()
    facts = live("orders", described_at=1000.0)
    look(history, facts)
    ends = {("a", 0): (0, 1), **ENDS}
    snapshot = kafka_snapshot(
        ends, {"before": {("a", 0): 0}, "g": COMMITS}, at=1010.0, states={"g": live(None, state="PreparingRebalance")}
    )

    report = derive(observe(snapshot, None, history), history, lambda _: 300.0)

    assert [-1, 0, 1] == report.consumer_topics.abandoned.tolist()
    assert [1, 10] == report.consumers.lag_records.tolist()


def test_the_age_is_that_of_what_is_read():
    """The old topic's record is hours old: neither the age nor the objective know of it."""
    history = History()
    for k in range(3):
        ends = {NEW: (0, 100 + k), OLD: (0, 500)}
        report = look(history, live("orders", at=1000.0 + 10 * k), {NEW: 100, OLD: 200}, ends, at=1000.0 + 10 * k)

    assert report.consumers.lag_seconds[0] < 30
    assert np.isnan(report.positions.lag_seconds[1])
