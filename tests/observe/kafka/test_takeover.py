"""Coordinators that have just taken over: what they do not know yet is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.model import Why
from monitor.observe.kafka.source import KafkaSource
from monitor.observe.kafka.takeover import offsets_partition
from monitor.sandbox.fake import Call, Disconnect, FakeCluster, Truncate
from monitor.sandbox.fake_state import Group
from monitor.settings import Cluster


@pytest.fixture
async def cluster():
    """Two brokers; the offsets of a group are where clients may see it."""
    async with FakeCluster(brokers=2) as fake:
        fake.topic("orders", partitions=2, records=100, leaders=1)
        fake.group("billing", {("orders", 0): 40, ("orders", 1): 41}, coordinator=2)
        fake.show_offsets(12)
        yield fake


@pytest.fixture
async def observer(cluster):
    source = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=0.5))
    yield source
    await source.close()


def committed(snapshot) -> list:
    """What the snapshot says of billing: its offsets, or why they are unknown; nothing if it is not there."""
    return [Why(group.why) for group in snapshot.groups if group.why] or snapshot.positions.committed.tolist()


def less() -> Group:
    group = Group("billing", "classic", "consumer", "Empty")
    group.commit("orders", 0, 30)
    group.commit("orders", 1, 41)
    return group


async def test_what_a_new_coordinator_does_not_know_yet_is_unknown_from_the_first_cycle(cluster, observer):
    """Nothing was read before that it could be compared with; it says itself that it is behind."""
    cluster.behind["billing"] = less()
    first = await observer.observe()
    del cluster.behind["billing"]
    later = await observer.observe()

    assert [Why.NEW_COORDINATOR] == committed(first)
    assert not first.up
    assert [40, 41] == committed(later)
    assert later.up


async def test_a_new_coordinator_that_does_not_know_a_group_is_not_believed_that_there_is_none(cluster, observer):
    """Nobody lists it, so it is not there; and the cluster is not up, for that reason."""
    cluster.behind["billing"] = None
    first = await observer.observe()
    del cluster.behind["billing"]
    later = await observer.observe()

    assert [] == committed(first)
    assert [("broker", "NEW_COORDINATOR")] == [(failure.scope, failure.error) for failure in first.failures]
    assert not first.up
    assert [40, 41] == committed(later)
    assert later.up


async def test_offsets_that_moved_before_the_takeover_are_not_told_from_before(cluster, observer):
    """Newer than what was read last, and older than what was acknowledged: that is no answer."""
    await observer.observe()
    cluster.commit("billing", "orders", 0, 60)
    cluster.move_coordinator("billing", 1)
    cluster.behind["billing"] = Group("billing", "classic", "consumer", "Empty")
    cluster.behind["billing"].commit("orders", 0, 50)
    cluster.behind["billing"].commit("orders", 1, 41)
    behind = await observer.observe()
    del cluster.behind["billing"]
    after = await observer.observe()

    assert [Why.NEW_COORDINATOR] == committed(behind)
    assert [60, 41] == committed(after)


async def test_a_coordinator_that_catches_up_within_the_cycle_is_believed_in_it(cluster, observer):
    """It is asked again until it knows all."""
    cluster.behind["billing"] = None
    asked = []
    cluster.fail("ListOffsets", Call(lambda: asked.append(1) or (len(asked) == 3 and cluster.behind.clear())))
    snapshot = await observer.observe()

    assert [40, 41] == committed(snapshot)
    assert snapshot.up


async def test_a_coordinator_is_asked_once_whether_it_knows_all(cluster, observer):
    """And again when its connection has broken; what it costs is one request then, and none in other cycles."""
    counts = []
    for cycle in range(6):
        if cycle == 4:
            cluster.fail("OffsetFetch", Disconnect(), times=1)
        before = cluster.count("ListOffsets", broker=2)
        assert [40, 41] == committed(await observer.observe())
        counts.append(cluster.count("ListOffsets", broker=2) - before)

    assert [1, 0, 0, 0, 1, 0] == counts, "broker 2 leads no partition that is asked for its ends"


async def test_who_lost_a_group_is_asked_again_when_it_has_it_back(cluster, observer):
    """What it said when it coordinated the group the first time says nothing of the second."""
    await observer.observe()
    cluster.move_coordinator("billing", 1)
    assert [40, 41] == committed(await observer.observe())
    cluster.move_coordinator("billing", 2)
    cluster.behind["billing"] = less()
    behind = await observer.observe()
    del cluster.behind["billing"]

    assert [Why.NEW_COORDINATOR] == committed(behind)
    assert [40, 41] == committed(await observer.observe())


@pytest.mark.parametrize(
    "fault", [Truncate(30), Call(lambda: None)], ids=["its answer is not understood", "it may not be seen"]
)
async def test_where_a_coordinator_cannot_be_asked_its_answer_is_all_there_is(cluster, observer, fault):
    """Less than was known before is doubted then; for the first answer there is nothing to go by."""
    if isinstance(fault, Call):
        cluster.offsets = None
    else:
        cluster.fail("ListOffsets", fault, times=1)
    assert [40, 41] == committed(await observer.observe())
    if isinstance(fault, Call):
        cluster.move_coordinator("billing", 1)
        cluster.behind["billing"] = less()
        assert [Why.NEW_COORDINATOR] == committed(await observer.observe())


@pytest.mark.parametrize(
    ("group", "code"),
    # What Java 17 prints for "…".hashCode().
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("polygenelubricants", -2147483648),
        ("streamgauge", 1634316665),
        ("Übung", 206210088),
        ("\N{GRINNING FACE}", 1772899),
    ],
)
def test_a_group_is_in_the_partition_that_java_puts_it_in(group, code):
    """The absolute value of the hash, that of the smallest integer being 0."""
    assert (0 if code == -(2**31) else abs(code) % 50) == offsets_partition(group, 50)


@given(st.text(), st.integers(1, 1000))
def test_the_partition_of_any_name_is_one_of_those_there_are(group, partitions):
    """And the one that the fake broker, which has its own arithmetic, puts it in."""
    fake = FakeCluster(brokers=1)
    fake.show_offsets(partitions)

    assert fake.offsets_partition(group) == offsets_partition(group, partitions) < partitions
