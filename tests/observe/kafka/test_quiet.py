"""Groups that rest are read less often, and never told wrong for it."""

import pytest

from monitor.model import Why
from monitor.observe.kafka import quiet
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.fake import Call, ErrorCode, FakeCluster, Member
from monitor.settings import Cluster


@pytest.fixture(autouse=True)
def _regroup_at_once(monkeypatch):
    """Who rests is decided in every cycle; a resting group's commits may be an hour old."""
    monkeypatch.setattr(quiet, "REGROUP_SECONDS", 0.0)
    monkeypatch.setattr(quiet, "QUIET_SECONDS", 3600.0)


@pytest.fixture
async def cluster():
    """A busy topic whose reader is behind, and an idle one whose readers are caught up."""
    async with FakeCluster(brokers=2) as fake:
        fake.topic("busy", partitions=2, records=10, leaders=1)
        fake.topic("idle", partitions=2, records=10, leaders=2)
        fake.group("late", {("busy", 0): 3, ("busy", 1): 10}, coordinator=1)
        fake.group("done", {("idle", 0): 10, ("idle", 1): 10}, members=[Member("c", {"idle": [0, 1]})], coordinator=2)
        fake.group("empty", {("idle", 0): 10}, coordinator=2)
        yield fake


@pytest.fixture
async def observer(cluster):
    source = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=0.5))
    yield source
    await source.close()


async def rest(observer) -> None:
    """Look often enough for whoever is caught up to come to rest."""
    for _ in range(quiet.LOOKS + 2):
        await observer.observe()


def committed(snapshot) -> dict:
    layout = snapshot.positions.layout
    found = {consumer.name: {} for consumer in layout.consumers}
    for index, owner in enumerate(layout.consumer.tolist()):
        why = int(snapshot.positions.why[index])
        where = tuple(layout.partitions.key(layout.row[index]))
        found[layout.consumers[owner].name][where] = f"?{why}" if why else int(snapshot.positions.committed[index])
    return found


def asked_of_2(cluster) -> int:
    return cluster.count("OffsetFetch", broker=2)


ALL = {
    "late": {("busy", 0): 3, ("busy", 1): 10},
    "done": {("idle", 0): 10, ("idle", 1): 10},
    "empty": {("idle", 0): 10},
}


async def test_the_first_cycle_reads_everybody(cluster, observer):
    """So does a command that has one cycle only."""
    assert ALL == committed(await observer.observe())
    assert 1 == asked_of_2(cluster)


async def test_a_resting_group_is_not_asked_about(cluster, observer):
    """Its coordinator is spared, everybody is shown, and ends are read as ever."""
    await rest(observer)
    asked, ends = asked_of_2(cluster), cluster.count("ListOffsets")
    snapshot = await observer.observe()

    assert asked == asked_of_2(cluster)
    assert 4 == cluster.count("ListOffsets") - ends, "start and end of each leader"
    assert ALL == committed(snapshot)
    assert snapshot.up


async def test_a_group_that_lags_is_always_asked_about(cluster, observer):
    """It may commit at any moment though nothing is written."""
    await rest(observer)
    asked = cluster.count("OffsetFetch", broker=1)
    cluster.commit("late", "busy", 0, 9)
    snapshot = await observer.observe()

    assert 9 == committed(snapshot)["late"]["busy", 0]
    assert 1 == cluster.count("OffsetFetch", broker=1) - asked


async def test_a_record_more_wakes_a_group_in_the_same_cycle(cluster, observer):
    """Its commits are read after the end that moved, and all ends after these: never a lag made of two times."""
    await rest(observer)
    cluster.append("idle", 1, 5, timestamp_ms=1000)
    cluster.commit("done", "idle", 1, 14)
    at = len(cluster.journal)
    snapshot = await observer.observe()
    apis = [seen.api for seen in cluster.journal[at:] if seen.broker == 2]

    assert 14 == committed(snapshot)["done"]["idle", 1]
    assert 15 == snapshot.partitions.log_end.tolist()[3]
    assert ["OffsetFetch", "ListOffsets", "ListOffsets"] == apis[-3:]
    at = len(cluster.journal)
    await observer.observe()
    apis = [seen.api for seen in cluster.journal[at:] if seen.api in {"OffsetFetch", "ListOffsets"}]
    assert sorted(apis, reverse=True) == apis, "awake: read before the ends again"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda cluster: setattr(cluster.groups["done"], "state", "PreparingRebalance"), id="state"),
        pytest.param(lambda cluster: cluster.move_coordinator("done", 1), id="coordinator"),
        pytest.param(lambda cluster: cluster.delete_group("empty"), id="deleted"),
        pytest.param(lambda cluster: cluster.fail("ListGroups", ErrorCode(15), broker=1), id="a broker in trouble"),
    ],
)
async def test_a_hint_of_a_change_has_everybody_read(cluster, observer, change):
    """What the lists tell is enough to look closer."""
    await rest(observer)
    asked = asked_of_2(cluster)
    change(cluster)
    snapshot = await observer.observe()

    assert asked_of_2(cluster) > asked
    assert ("empty" in committed(snapshot)) == ("empty" in cluster.groups)


async def test_a_resting_group_of_a_silent_coordinator_is_unknown(cluster, observer):
    """That its commits need not be read is no reason to show them while nobody could be asked."""
    await rest(observer)
    cluster.stop(2)
    snapshot = await observer.observe()

    assert {f"?{int(Why.REFUSED)}"} == set(committed(snapshot)["done"].values())
    assert not snapshot.up


async def test_an_offset_set_back_by_hand_is_seen_in_time(cluster, observer, monkeypatch):
    """Nothing hints at it: it is seen when the commits of a resting group are as old as they may be."""
    await rest(observer)
    cluster.commit("empty", "idle", 0, 2)
    early = await observer.observe()
    monkeypatch.setattr(quiet, "QUIET_SECONDS", 0.0)
    late = await observer.observe()

    assert 10 == committed(early)["empty"]["idle", 0]
    assert 2 == committed(late)["empty"]["idle", 0]
    when = {group.consumer.name: at for group, at in zip(early.groups, early.read_at.tolist(), strict=True)}
    assert when["empty"] < early.started_at < when["late"], "it says how old it is"


async def test_a_new_topic_and_a_new_group_are_seen_while_others_rest(cluster, observer):
    """New rows do not confuse who rests."""
    await rest(observer)
    cluster.topic("new", partitions=1, records=4)
    cluster.group("another", {("new", 0): 1}, coordinator=2)
    first = await observer.observe()
    second = await observer.observe()

    assert {**ALL, "another": {("new", 0): 1}} == committed(first) == committed(second)


# --- last stable offsets ----------------------------------------------------------------------------


def stable(snapshot) -> list:
    return snapshot.partitions.last_stable.tolist()


async def test_a_last_stable_offset_is_not_asked_for_while_nothing_is_written(cluster, observer):
    """A transaction that is opened writes a record: without one, the last stable offset is the log end still."""
    await observer.observe()
    asked = cluster.count("ListOffsets")
    snapshot = await observer.observe()

    assert 4 == cluster.count("ListOffsets") - asked
    assert [10] * 4 == stable(snapshot)


async def test_an_open_transaction_is_seen_when_it_writes_and_until_it_ends(cluster, observer):
    """It holds the last stable offset back, which moves again without the log end when it ends."""
    topic = cluster.topics["idle"]
    await observer.observe()
    await observer.observe()
    topic.log_end[1] += 3
    opened = await observer.observe()
    topic.last_stable[1] += 2
    partly = await observer.observe()
    topic.last_stable[1] += 1
    ended = await observer.observe()
    after = await observer.observe()

    assert [[10, 10, 10, 10], [10, 10, 10, 12], [10, 10, 10, 13], [10, 10, 10, 13]] == [
        stable(each) for each in (opened, partly, ended, after)
    ]


async def test_a_last_stable_offset_read_after_its_end_is_never_beyond_it(cluster, observer):
    """Between the two answers the log may grow."""
    await observer.observe()
    await observer.observe()
    cluster.append("idle", 1, 1, timestamp_ms=1000)
    grow = Call(lambda: cluster.append("idle", 1, 5, timestamp_ms=1000))
    cluster.fail("ListOffsets", grow, broker=2, when=lambda header, body: body[4] == 1)
    snapshot = await observer.observe()

    assert snapshot.partitions.log_end.tolist() == stable(snapshot)
    assert 11 == stable(snapshot)[3]


async def test_a_last_stable_offset_that_cannot_be_read_is_unknown_alone(cluster, observer):
    """The lag does not depend on it."""
    cluster.fail("ListOffsets", ErrorCode(78), broker=2, when=lambda header, body: body[4] == 1)
    snapshot = await observer.observe()

    assert [10, 10, -1, -1] == stable(snapshot)
    assert [10] * 4 == snapshot.partitions.log_end.tolist()
