"""A cycle in which nothing moves keeps what was worked out, and says the same as if it had been worked out anew."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import Leaders, group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.kept import Kept, same
from monitor.derive.report import derive, learn, observe, wanted
from monitor.model import Consumer, GroupFacts, Kind, Report, SparkQuery, SparkSnapshot, TopicPartition, Why
from monitor.publish.report_json import report_json

P0, P1 = ("orders", 0), ("orders", 1)
AT = 1_795_000_000.0


class Anew:
    """Stands in for ``Kept``, and for all of them: every step is done at every look."""

    def __getattr__(self, name):
        return self

    def get(self, step, *inputs):
        return step(*inputs)


def forgetful(history):
    """The same history without anything that is kept only to save work."""
    history.steps = Anew()
    history.settled = ()
    history._columns = history._wanted = None
    return history


def objective(name):
    return 300.0


def everything(report):
    """A report as JSON, with every number and sentence in it."""
    return report_json(Report(report.at, (report,)))


def copied(snapshot):
    """The same snapshot in other objects, as an observer that keeps nothing would give it."""
    partitions, positions = snapshot.partitions, snapshot.positions
    return replace(
        snapshot,
        partitions=replace(partitions, log_start=partitions.log_start.copy(), log_end=partitions.log_end.copy()),
        positions=replace(positions, committed=positions.committed.copy(), why=positions.why.copy()),
        groups=tuple(replace(facts) for facts in snapshot.groups),
    )


def look(history, snapshot, logs=None, sparks=None):
    seen = observe(snapshot, sparks, history)
    while logs is not None and (questions := wanted(seen, history, 10)) is not None:
        learn(Leaders(logs).look_up(questions), history)
    return derive(seen, history, objective, interval_seconds=10.0)


def test_equal_columns_are_the_old_ones():
    """By value once, NaN included; by object from then on."""
    old, times = np.array([1, 2]), np.array([1.0, np.nan])

    assert same(np.array([1, 2]), old) is old
    assert same(times.copy(), times) is times
    assert same(np.array([1, 3]), old) is not old
    assert same(np.array([1]), old) is not old


def test_a_step_is_done_again_for_another_object():
    """Equal is not enough: the step does not look into what it is given."""
    kept, done = Kept(), []

    def step(*inputs):
        done.append(inputs)
        return len(done)

    one, other = np.array([1]), np.array([1])
    assert [1, 1, 2, 2, 3] == [kept.get(step, each) for each in (one, one, other, other, one)]


def test_an_idle_cycle_keeps_its_columns():
    """Other objects that say the same: lag, judgement and sums are the very ones of the cycle before."""
    history = History()
    snapshot = kafka_snapshot({P0: (0, 100), P1: (0, 50)}, {"g": {P0: 90, P1: 50}}, at=AT)
    first = look(history, snapshot)
    second = look(history, replace(copied(snapshot), at=AT + 10, started_at=AT + 9.9))

    for name in ("lag_records", "lost_records", "health", "basis", "why", "why_seconds", "abandoned"):
        assert getattr(first.positions, name) is getattr(second.positions, name), name
    assert first.consumers.lag_records is second.consumers.lag_records
    assert first.consumer_topics.lag_records is second.consumer_topics.lag_records
    assert first.partitions.log_end is second.partitions.log_end
    assert first.positions.lag_seconds is not second.positions.lag_seconds


def test_a_query_that_stands_still_keeps_its_columns():
    """The positions of Spark queries are put behind the groups': the same rows and the same columns."""
    history = History()
    snapshot = kafka_snapshot({P0: (0, 100)}, {"g": {P0: 90}}, at=AT)

    def sparks(offset, *more):
        committed = {TopicPartition(*key): offset for key in (P0, *more)}
        query = SparkQuery(Consumer(Kind.SPARK, "q"), "id", "/chk/q", AT, committed, {}, 1)
        return SparkSnapshot("default", AT, AT, True, (query,))

    first, same_again, moved, longer = (
        look(history, snapshot, sparks=each) for each in (sparks(5), sparks(5), sparks(6), sparks(6, ("orders", 7)))
    )

    assert first.positions.layout is same_again.positions.layout is moved.positions.layout
    assert first.positions.lag_records is same_again.positions.lag_records
    assert [[10, 95], [10, 94], [10, 94, -1]] == [
        each.positions.lag_records.tolist() for each in (first, moved, longer)
    ]


def test_what_nobody_wants_to_know_is_not_asked_again():
    """Every age is narrow enough, and nothing moves: no bracket is looked at."""
    history = History()
    log = {P0: [(i, int(AT * 1000) - 60_000 * (10 - i)) for i in range(10)]}
    snapshot = kafka_snapshot({P0: (0, 10)}, {"g": {P0: 4}}, at=AT)
    look(history, snapshot, log)
    settled = history.settled
    look(history, replace(copied(snapshot), at=AT + 10), log)

    assert settled
    assert settled is history.settled


def test_a_record_too_young_to_be_looked_up_is_so_later():
    """A record written right now is placed well enough; that its age grows alone makes it worth a question."""
    history, now = History(), int(AT * 1000)
    log = {P0: [(0, now - 60_000), (1, now - 5), *((i, now + i) for i in range(2, 8))]}
    look(history, kafka_snapshot({P0: (0, 2)}, {"g": {P0: 1}}, at=AT), log)
    snapshot = kafka_snapshot({P0: (0, 8)}, {"g": {P0: 5}}, at=AT + 0.01)
    young = look(history, snapshot, log)
    old = look(history, replace(copied(snapshot), at=AT + 600, started_at=AT + 600), log)

    assert young.positions.lag_seconds_bound[0] < 0.01
    assert abs(old.positions.lag_seconds[0] - 599.995) <= old.positions.lag_seconds_bound[0] + 1e-9
    assert old.positions.lag_seconds_bound[0] < 1


FACTS = [
    GroupFacts(group("g"), "Stable", "classic", members=1, subscribed=frozenset({"orders"}), described_at=AT),
    GroupFacts(group("g"), "Stable", "classic", members=1, subscribed=frozenset({"old"}), described_at=AT + 25),
    GroupFacts(group("g"), "Empty", "classic", members=0),
    GroupFacts(group("g"), "PreparingRebalance", "classic"),
    GroupFacts(group("g"), why=30),
]
CYCLES = st.lists(
    st.tuples(
        st.sampled_from([(0, 100), (40, 100), (0, 130), (0, 20), Why.TIMEOUT]),
        st.sampled_from([0, 60, 90, 120, Why.NO_COMMIT]),
        st.sampled_from(FACTS),
        st.sampled_from([b"a", b"b"]),
        st.booleans(),
        st.sampled_from([10.0, 400.0]),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=200)
@given(CYCLES, st.data())
def test_what_is_kept_is_what_would_be_worked_out(cycles, data):
    """Cycle for cycle, with repeats and look-ups in between, both say the same."""
    kept, anew, at = History(), History(), AT
    log = {("orders", 0): [(i, int(AT * 1000) - 1000 * (130 - i)) for i in range(130)], ("old", 0): [(0, 1), (1, 2)]}
    for ends, commit, facts, number, has_more, seconds in cycles:
        commits = {"g": {P0: commit, ("old", 0): 1}} | ({"h": {P0: 7}} if has_more else {})
        for repeat in range(data.draw(st.integers(1, 3))):
            at += seconds
            snapshot = kafka_snapshot(
                {P0: ends, ("old", 0): (0, 2)}, commits, at=at, states={"g": facts}, ids={"orders": number * 16}
            )
            logs = log if data.draw(st.booleans()) else None
            reports = [everything(look(each, copied(snapshot), logs)) for each in (kept, forgetful(anew))]
            assert reports[0] == reports[1], repeat
