"""What Faust workers report, read from records as they are on the topic, and when a worker counts as silent."""

import contextlib
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.model import Consumer, Failure, Kind
from monitor.observe.faust.reports import RefusedError, read_report
from monitor.observe.faust.source import FORGET_SECONDS, FaustSource
from monitor.observe.kafka.record_batches import Record
from monitor.observe.kafka.topic_tail import Read
from monitor.settings import Cluster

AT = 1_795_000_000.0
CLUSTER = Cluster(bootstrap_servers="127.0.0.1:1")

# As a worker wrote it; the names are spelled out in streamgauge/faust.py.
TOLD = {
    "schema": 1, "app": "shop", "worker": "host-1", "at": AT, "started_at": AT - 60, "interval_seconds": 5.0,
    "state": "running", "dropped_reports": 2, "bounds_seconds": [0.001, 0.1],
    "agents": [{"agent": "add", "topic": "orders", "events": 10, "errors": 1, "decode_errors": 2, "seconds": 0.5,
                "durations": [7, 2, 1], "buffered": 3, "buffer_size": 4096}],
    "commits": {"count": 4, "age_seconds": 1.5, "waiting_seconds": 0.25},
    "buffer_full": {"orders": 2, "returns": 1},
    "rebalances": {"count": 3, "seconds": 4.5, "last_seconds": 1.0, "running_seconds": None},
    "recovery": {"running": True, "remaining": 90},
    "tables": [{"table": "totals", "entries": 7}, {"table": "big", "entries": None}],
    "assigned": {"orders": [0, 1], "returns": [2]},
}  # fmt: skip


def told(**changed):
    return json.dumps({**TOLD, **changed}).encode()


def test_outcomes_are_told_in_the_words_of_the_app():
    """How many records came to what, as the worker wrote it."""
    assert {"averaged": 9, "late": 1} == read_report(told(outcomes={"averaged": 9, "late": 1})).outcomes


def test_a_report_says_what_the_worker_wrote():
    """Errors are those raised and those not decoded; durations are cumulative, as Prometheus has them."""
    worker = read_report(told())
    (agent,) = worker.agents

    assert (Consumer(Kind.GROUP, "shop"), "host-1", "running") == (worker.consumer, worker.worker, worker.state)
    assert (10, 3, 3, 4096) == (agent.events_total, agent.errors_total, agent.buffered, agent.buffer_size)
    assert ((0.001, 0.1), (7, 9), 10, 0.5) == (
        agent.durations.bounds,
        agent.durations.counts,
        agent.durations.count,
        agent.durations.sum,
    )
    assert {} == worker.outcomes  # sensors of before did not tell them
    assert (4, 1.5, 0.25) == (worker.commits_total, worker.commit_age_seconds, worker.uncommitted_seconds)
    assert (3, 4.5, 1.0) == (worker.rebalances_total, worker.rebalancing_seconds_total, worker.last_rebalance_seconds)
    assert (True, 90, 3, 2) == (
        worker.recovering,
        worker.recovery_remaining,
        worker.buffer_full_total,
        worker.dropped_reports,
    )
    assert {"totals": 7, "big": None} == worker.tables
    assert {"orders": (0, 1), "returns": (2,)} == worker.assigned


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(None, "empty", id="a tombstone"),
        pytest.param(b"{", "not JSON", id="torn"),
        pytest.param(b"[" * 100_000, "not JSON", id="nested without end"),
        pytest.param(b" " * 2_000_000, "larger", id="large"),
        pytest.param(b"[]", "schema", id="no object"),
        pytest.param(told(schema=2), "schema", id="of tomorrow"),
        pytest.param(told(state="happy"), "field", id="a state that there is not"),
        pytest.param(told(at=float("nan")), "field", id="no time"),
        pytest.param(told(worker=""), "field", id="no name"),
        pytest.param(told(agents=TOLD["agents"] * 2), "field", id="an agent twice"),
        pytest.param(told(outcomes={"late": -1}), "field", id="less than no record"),
        pytest.param(told(outcomes={str(n): n for n in range(101)}), "field", id="too many outcomes"),
        pytest.param(told(outcomes=["late"]), "field", id="outcomes without numbers"),
        pytest.param(told(bounds_seconds=[0.1, 0.001]), "field", id="bounds out of order"),
        pytest.param(told(bounds_seconds=[0.1]), "field", id="durations that fit no bounds"),
        pytest.param(told(assigned=[1]), "field", id="partitions without topics"),
        pytest.param(told(commits={"count": True, "age_seconds": 0, "waiting_seconds": 0}), "field", id="true for 1"),
        pytest.param(told(commits={"count": 2**80, "age_seconds": 0, "waiting_seconds": 0}), "field", id="too many"),
    ],
)
def test_what_is_no_report_is_refused(value, says):
    """Anybody may be able to write to the topic."""
    with pytest.raises(RefusedError, match=says):
        read_report(value)


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}))


@given(st.data())
def test_a_record_with_anything_in_it_is_read_or_refused(data):
    """Never anything else."""
    record = copy.deepcopy(TOLD)
    place = record
    while True:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[name], dict | list) or not place[name] or data.draw(st.booleans()):
            place[name] = data.draw(LEAVES)
            break
        place = place[name]
    with contextlib.suppress(RefusedError):
        read_report(json.dumps(record).encode())


class Topic:
    """A topic that is read in pieces."""

    def __init__(self):
        self.new = Read()
        self.offset = 0

    def write(self, value, at=AT):
        self.new.records.append(Record(self.offset, int(at * 1000), None, value))
        self.offset += 1

    async def read(self):
        read, self.new = self.new, Read()
        return read

    async def close(self):
        pass


class Clock:
    now = AT

    def __call__(self):
        return self.now


@pytest.fixture
def topic():
    return Topic()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def source(topic, clock):
    return FaustSource(CLUSTER, tail=topic, clock=clock)


async def test_of_each_worker_its_latest_report_counts(topic, source):
    """Workers of one app, and of another."""
    for worker, app, commits in (("a", "shop", 1), ("b", "shop", 2), ("a", "log", 3), ("a", "shop", 9)):
        topic.write(told(app=app, worker=worker, commits={**TOLD["commits"], "count": commits}))
    seen = await source.look()

    assert [("log", "a", 3), ("shop", "a", 9), ("shop", "b", 2)] == [
        (each.consumer.name, each.worker, each.commits_total) for each in seen.workers
    ]
    assert seen.up


async def test_a_worker_falls_silent_and_is_forgotten_later(topic, source, clock):
    """After three of its intervals and two seconds; it is known for a quarter of an hour."""
    topic.write(told())
    await source.look()
    states = []
    for age in (17.0, 17.1, FORGET_SECONDS - 1, FORGET_SECONDS):
        clock.now = AT + age
        states.append([each.is_silent for each in (await source.look()).workers])

    assert [[False], [True], [True], []] == states


async def test_a_worker_that_stops_is_gone_at_once(topic, source):
    """It said so itself."""
    topic.write(told())
    assert 1 == len((await source.look()).workers)
    topic.write(told(state="stopped"))

    assert () == (await source.look()).workers


async def test_a_report_from_before_the_monitor_started_is_as_old_as_its_record(topic, source):
    """One that comes while it runs is new, whatever the worker's clock says."""
    topic.write(told(worker="gone"), at=AT - 100)
    first = await source.look()
    topic.write(told(worker="late clock"), at=AT - 100)
    second = await source.look()

    assert [("gone", True, 100.0)] == [(each.worker, each.is_silent, each.report_age_seconds) for each in first.workers]
    assert [("gone", True), ("late clock", False)] == [(each.worker, each.is_silent) for each in second.workers]


async def test_what_is_no_report_is_a_failure_and_hides_nothing(topic, source):
    """Equal ones are one entry; a topic that cannot be read is not up."""
    for value in (b"{", told(), b"}"):
        topic.write(value)
    seen = await source.look()
    assert [Failure("topic", "streamgauge.faust", "MALFORMED", "2 records are no reports: not JSON")] == list(
        seen.failures
    )
    assert (True, 1) == (seen.up, len(seen.workers))
    topic.new.failures.append(Failure("topic", "streamgauge.faust", "TOPIC_AUTHORIZATION_FAILED"))
    seen = await source.look()

    assert (False, 1, 1) == (seen.up, len(seen.failures), len(seen.workers))
