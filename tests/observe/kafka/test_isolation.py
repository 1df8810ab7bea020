"""One broker in trouble: what it costs the others, and how soon it is back."""

import asyncio
import itertools

import pytest

from monitor.model import Why
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.fake import Call, Delay, Disconnect, FakeCluster, Garbage, Hang, Member
from monitor.settings import Cluster

TIMEOUT = 0.5


@pytest.fixture
async def cluster():
    """Three brokers that each lead two partitions and coordinate one group."""
    async with FakeCluster(brokers=3) as fake:
        fake.topic("orders", partitions=6, records=10, leaders=[1, 2, 3, 1, 2, 3])
        for broker in (1, 2, 3):
            fake.group(f"group-{broker}", {("orders", p): p for p in range(6)}, coordinator=broker)
        yield fake


@pytest.fixture
async def observer(cluster):
    source = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=TIMEOUT))
    yield source
    await source.close()


def unknown(snapshot) -> set:
    """The names of the groups that are unknown, and the partitions whose ends are."""
    layout = snapshot.partitions.layout
    ends = {f"orders/{layout.partition[row]}" for row in range(len(layout)) if snapshot.partitions.why[row]}
    return ends | {group.consumer.name for group in snapshot.groups if group.why}


OF_BROKER_2 = {"group-2", "orders/1", "orders/4"}


async def seconds_of(cycle) -> tuple[float, object]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    snapshot = await cycle
    return loop.time() - begun, snapshot


async def test_a_frozen_broker_costs_one_timeout(cluster, observer):
    """The first cycle waits for it; later ones go on without it at once, and say that it does not answer."""
    await observer.observe()
    cluster.pause(2)
    waited, first = await seconds_of(observer.observe())
    asked = cluster.count("Metadata")
    later = [await seconds_of(observer.observe()) for _ in range(3)]

    assert waited >= TIMEOUT
    assert sum(seconds for seconds, _ in later) < TIMEOUT * 2
    for snapshot in (first, *(snapshot for _, snapshot in later)):
        assert OF_BROKER_2 <= unknown(snapshot)
        assert {"group-1", "group-3"}.isdisjoint(unknown(snapshot))
        assert not snapshot.up
        assert ("broker", "TIMEOUT") in {(failure.scope, failure.error) for failure in snapshot.failures}
    assert cluster.count("Metadata") - asked <= 3


async def test_a_frozen_broker_is_back_in_the_cycle_after_it_goes_on(cluster, observer):
    """Nothing has to time out once more."""
    await observer.observe()
    cluster.pause(2)
    await observer.observe()
    await observer.observe()
    cluster.resume(2)
    back = await observer.observe()

    assert set() == unknown(back)
    assert back.up


@pytest.mark.parametrize("api", ["OffsetFetch", "ListOffsets", "ListGroups"])
async def test_a_broker_that_hangs_on_one_kind_of_request_costs_one_timeout(cluster, observer, api):
    """It answers everything else, so it is asked again in the background exactly what it owes an answer to."""
    await observer.observe()
    fault = cluster.fail(api, Hang(), broker=2)
    await observer.observe()
    seconds, still = await seconds_of(observer.observe())
    fault.cancel()
    # What hangs is not answered any more: the question has to be asked anew, within its timeout.
    await asyncio.sleep(TIMEOUT + 0.2)
    back = await observer.observe()

    assert seconds < TIMEOUT
    assert OF_BROKER_2 <= unknown(still)
    assert set() == unknown(back)
    assert back.up


@pytest.mark.parametrize("api", ["ListGroups", "OffsetFetch", "DescribeGroups"])
async def test_a_cycle_without_time_left_asks_the_others_all_the_same(cluster, api):
    """Where a timeout is as long as the interval, one broker uses up a cycle: the others still get time to answer."""
    cluster.group("live", {("orders", 1): 1}, members=[Member("c", {"orders": [1]})], coordinator=2)
    interval = {"interval_seconds": TIMEOUT, "timeout_seconds": TIMEOUT, "describe_interval_seconds": 0.01}
    observer = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap, **interval))
    try:
        await observer.observe()
        await asyncio.sleep(0.02)  # descriptions are due again
        cluster.fail("ListOffsets", Delay(TIMEOUT / 10))
        cluster.fail(api, Hang(), broker=2)
        snapshot = await observer.observe()
    finally:
        await observer.close()

    assert {"group-1", "group-3"}.isdisjoint(unknown(snapshot))
    assert {"2"} == {failure.name.split()[0] for failure in snapshot.failures if failure.scope == "broker"}


async def test_a_partition_that_turns_out_to_be_led_by_a_failing_broker_is_unknown(cluster):
    """It has no leader at first: whoever leads it in a newer map is not asked if it had failed before."""
    settings = Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=TIMEOUT, metadata_interval_seconds=0.01)
    observer = KafkaSource(settings)
    try:
        await observer.observe()
        cluster.move_leader("orders", 1, -1)
        maps = itertools.count()
        cluster.fail("Metadata", Call(lambda: next(maps) and cluster.move_leader("orders", 1, 2)))
        cluster.fail("OffsetFetch", Disconnect(), broker=2)
        snapshot = await observer.observe()
    finally:
        await observer.close()

    assert next(maps) > 1, "the map was read again within the cycle"
    assert "orders/1" in unknown(snapshot)
    assert [-1, -1] == [snapshot.partitions.log_start[1], snapshot.partitions.log_end[1]]


def asking() -> int:
    """How many tasks ask silent brokers."""
    return sum("_until_answered" in task.get_coro().__qualname__ for task in asyncio.all_tasks())


async def test_a_silent_broker_is_asked_by_one_task(cluster, observer):
    """However many requests timed out at once, one of them is asked again; nothing is left over at the end."""
    await observer.observe()
    cluster.pause(2)
    for _ in range(3):
        await observer.observe()
    silent = asking()
    await observer.close()

    assert 1 == silent
    assert 0 == asking()


async def test_a_silent_broker_that_left_the_cluster_is_forgotten(cluster, observer):
    """Who is no broker of the cluster any more owes no answer."""
    observer = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap.split(",")[0], timeout_seconds=TIMEOUT))
    try:
        await observer.observe()
        cluster.pause(2)
        await observer.observe()
        cluster.brokers[2].fenced = True
        for partition in (1, 4):
            cluster.move_leader("orders", partition, 3)
        cluster.move_coordinator("group-2", 3)
        await observer.observe()
        away = await observer.observe()
        left = asking()
    finally:
        await observer.close()

    assert set() == unknown(away)
    assert away.up
    assert 0 == left


async def test_a_broker_that_is_slow_at_every_step_does_not_eat_the_interval(cluster):
    """Each answer in time, all of them together not: the cycle ends without it before the next is due."""
    settings = Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=0.6, interval_seconds=1.0)
    observer = KafkaSource(settings)
    try:
        await observer.observe()
        cluster.fail(None, Delay(0.35), broker=2)
        seconds, slow = await seconds_of(observer.observe())
    finally:
        await observer.close()

    assert {"orders/1", "orders/4"} <= unknown(slow)
    assert {"group-1", "group-3", "orders/0", "orders/2"}.isdisjoint(unknown(slow))
    assert seconds < 1.0


async def test_a_broker_that_throttles_is_left_alone_for_as_long_as_it_says(cluster, observer):
    """A quota of its: what cannot be asked in time is unknown for that reason, and the others are not waited with."""
    await observer.observe()
    cluster.brokers[2].throttle_ms = 60_000
    await observer.observe()
    asked = cluster.count(broker=2)
    seconds, throttled = await seconds_of(observer.observe())

    assert 0 == cluster.count(broker=2) - asked
    assert OF_BROKER_2 <= unknown(throttled)
    assert {"group-1", "group-3"}.isdisjoint(unknown(throttled))
    assert {int(Why.THROTTLED)} == {group.why for group in throttled.groups if group.why}
    assert seconds < TIMEOUT * 2


async def test_a_short_throttle_is_waited_for(cluster, observer):
    """A broker that asks for a moment gets it, and everything is known."""
    await observer.observe()
    cluster.brokers[2].throttle_ms = 40
    waited = await observer.observe()

    assert set() == unknown(waited)
    assert waited.up


async def test_a_broken_connection_is_made_anew_within_the_cycle(cluster, observer):
    """Broken once is no reason to be unknown."""
    await observer.observe()
    cluster.fail("ListOffsets", Disconnect(), broker=2, times=1)
    snapshot = await observer.observe()

    assert set() == unknown(snapshot)
    assert snapshot.up


async def test_a_group_listed_by_two_coordinators_counts_once(cluster, observer):
    """As happens while a coordinator moves: one consumer, its offsets from whoever has them."""
    cluster.groups["group-2"].listed_by = {1, 2}
    snapshot = await observer.observe()

    assert ["group-1", "group-2", "group-3"] == [group.consumer.name for group in snapshot.groups]
    assert set() == unknown(snapshot)


async def test_one_forbidden_group_touches_no_other(cluster, observer):
    """It is unknown with the broker's reason; the cluster is up, since nothing is away."""
    cluster.lists_forbidden_groups = True
    cluster.forbid(group="group-2")
    snapshot = await observer.observe()

    assert {"group-2"} == unknown(snapshot)
    assert snapshot.up
    assert {("group", "group-2", "GROUP_AUTHORIZATION_FAILED")} <= {
        (f.scope, f.name, f.error) for f in snapshot.failures
    }


async def test_an_answer_that_lies_about_its_throttle_does_no_harm(cluster, observer):
    """A negative throttle time is none."""
    cluster.brokers[1].throttle_ms = -5
    snapshot = await observer.observe()

    assert set() == unknown(snapshot)


async def test_an_answer_that_cannot_be_decoded_tells_no_throttle(cluster, observer):
    """What begins like a long throttle and is garbage is not obeyed; and an absurd one is not obeyed for long."""
    await observer.observe()
    cluster.fail("ListGroups", Garbage(seed=3), broker=2, times=1)
    await observer.observe()
    after = await observer.observe()

    assert set() == unknown(after)


async def test_a_very_long_throttle_is_not_obeyed_for_long(cluster, observer, monkeypatch):
    """It may have meant something else: after a minute the broker is asked all the same."""
    monkeypatch.setattr("monitor.observe.kafka.cluster.LONGEST_THROTTLE_SECONDS", 0.2)
    await observer.observe()
    cluster.brokers[2].throttle_ms = 2**31 - 1
    await observer.observe()
    cluster.brokers[2].throttle_ms = 0
    await asyncio.sleep(0.3)
    after = await observer.observe()

    assert set() == unknown(after)


@pytest.mark.parametrize("api", ["DescribeGroups", "DescribeCluster", "DescribeShareGroupOffsets"])
async def test_what_lag_does_not_depend_on_may_hang_and_takes_nothing_along(cluster, api, monkeypatch):
    """What it tells is unknown, every commit and end is read; it is tried twice, then seldom."""
    cluster.group("live", {("orders", 1): 1}, members=[Member("c", {"orders": [1]})], coordinator=2)
    cluster.group("shared", type="share", protocol_type="share", coordinator=2)
    monkeypatch.setattr("monitor.observe.kafka.cluster.ASIDE_SECONDS", 1.0)
    settings = Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=TIMEOUT, describe_interval_seconds=0.01)
    observer = KafkaSource(settings)
    try:
        fault = cluster.fail(api, Hang(), broker=None if api == "DescribeCluster" else 2)
        first = await observer.observe()
        await observer.observe()
        seconds, later = await seconds_of(observer.observe())
        fault.cancel()
        await asyncio.sleep(1.5)
        back = await observer.observe()
    finally:
        await observer.close()

    for snapshot in (first, later):
        assert unknown(snapshot) <= {"shared"}
    assert seconds < TIMEOUT
    members = {group.consumer.name: group.members for group in later.groups}
    assert (None if api == "DescribeGroups" else 1) == members["live"]
    assert 1 == {group.consumer.name: group.members for group in back.groups}["live"]
    assert back.up
