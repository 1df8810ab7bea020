"""The observer against a cluster that fails in every way: what is known is right, what is not is unknown."""

import asyncio
import dataclasses

import numpy as np
import pytest

from monitor.errors import UnreachableError
from monitor.model import Consumer, Kind, Lookups, Why
from monitor.observe.kafka import commits
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.fake import (
    NO_LEADER,
    Call,
    Corrupt,
    Disconnect,
    ErrorCode,
    FakeCluster,
    Garbage,
    Hang,
    Lie,
    Member,
    Omit,
    Truncate,
)
from monitor.settings import Cluster


@pytest.fixture
async def cluster():
    """Three brokers, a topic of six partitions with ten records each, two groups on it with different coordinators."""
    async with FakeCluster(brokers=3) as fake:
        fake.topic("orders", partitions=6, records=10, timestamp_ms=1_000_000, step_ms=1000)
        fake.group("billing", {("orders", p): p for p in range(6)}, coordinator=1)
        fake.group("shipping", {("orders", p): 10 for p in range(6)}, coordinator=2)
        yield fake


@pytest.fixture
async def observer(cluster):
    source = KafkaSource(settings(cluster))
    yield source
    await source.close()


def settings(cluster, timeout=0.5, **more) -> Cluster:
    return Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=timeout, **more)


def committed(snapshot) -> dict:
    """Group -> {(topic, partition): offset, or the reason why it is unknown}."""
    layout = snapshot.positions.layout
    found = {consumer.name: {} for consumer in layout.consumers}
    for index, owner in enumerate(layout.consumer.tolist()):
        why = int(snapshot.positions.why[index])
        where = tuple(layout.partitions.key(layout.row[index]))
        found[layout.consumers[owner].name][where] = f"?{why}" if why else int(snapshot.positions.committed[index])
    return found


def ends(snapshot) -> dict:
    """(topic, partition) -> (log start, log end), or the reason why they are unknown."""
    columns = snapshot.partitions
    return {
        tuple(columns.layout.key(row)): f"?{columns.why[row]}"
        if columns.why[row]
        else (int(columns.log_start[row]), int(columns.log_end[row]))
        for row in range(len(columns.layout))
    }


def facts(snapshot, name):
    return next(group for group in snapshot.groups if group.consumer.name == name)


ALL_ORDERS = {("orders", p): (0, 10) for p in range(6)}
BILLING = {("orders", p): p for p in range(6)}
SHIPPING = {("orders", p): 10 for p in range(6)}


async def test_everything_is_read_with_requests_by_broker(cluster, observer):
    """Every commit and every end, with one Metadata, and a request a broker for the rest."""
    snapshot = await observer.observe()

    assert {"billing": BILLING, "shipping": SHIPPING} == committed(snapshot)
    assert ALL_ORDERS == ends(snapshot)
    assert snapshot.up
    assert () == snapshot.failures
    assert {
        "Metadata": 1,
        "ListGroups": 3,
        "OffsetFetch": 2,
        "ListOffsets": 9,
        "DescribeCluster": 1,
    } == snapshot.requests
    assert snapshot.requests == {api: cluster.count(api) for api in snapshot.requests}


async def test_requests_do_not_grow_with_groups(cluster, observer):
    """Three hundred groups more are not one request more."""
    for number in range(300):
        cluster.group(f"many-{number}", {("orders", 0): 1})

    snapshot = await observer.observe()

    assert 302 == len(snapshot.groups)
    assert {
        "Metadata": 1,
        "ListGroups": 3,
        "OffsetFetch": 3,
        "ListOffsets": 9,
        "DescribeCluster": 1,
    } == snapshot.requests


async def test_commits_are_read_before_ends(cluster, observer):
    """The first ListOffsets comes after the last OffsetFetch has been answered."""
    await observer.observe()

    apis = [seen.api for seen in cluster.journal if seen.api in {"OffsetFetch", "ListOffsets"}]
    assert sorted(apis, reverse=True) == apis


async def test_layouts_keep_their_identity_while_only_numbers_move(cluster, observer):
    """Whoever built something on a layout may keep it; what moved is in the numbers."""
    first = await observer.observe()
    cluster.append("orders", 3, 5, timestamp_ms=2_000_000)
    cluster.commit("billing", "orders", 3, 7)
    second = await observer.observe()

    assert first.positions.layout is second.positions.layout
    assert 7 == committed(second)["billing"]["orders", 3]
    assert (0, 15) == ends(second)["orders", 3]


@pytest.mark.parametrize(
    ("action", "why"),
    [
        pytest.param(Hang(), Why.TIMEOUT, id="hangs"),
        pytest.param(Disconnect(), Why.DISCONNECTED, id="closes the connection"),
        pytest.param(Truncate(20), Why.MALFORMED, id="answers half"),
        pytest.param(Garbage(200), Why.MALFORMED, id="answers garbage"),
    ],
)
@pytest.mark.parametrize("api", ["ListGroups", "OffsetFetch", "ListOffsets"])
async def test_one_broken_broker_hides_nothing_else(cluster, observer, api, action, why):
    """What depends on it is unknown for that reason; every other number is fresh; it is one entry, and not up."""
    await observer.observe()
    for partition in range(6):
        cluster.append("orders", partition, 1, timestamp_ms=2_000_000)
    cluster.fail(api, action, broker=1)
    snapshot = await observer.observe()

    assert not snapshot.up
    assert {f"1 ({cluster.brokers[1].host}:{cluster.brokers[1].port})"} == {
        failure.name for failure in snapshot.failures if failure.scope == "broker"
    }
    assert Why(why).name in {failure.error for failure in snapshot.failures}
    if why != Why.MALFORMED:
        assert 1 == len(snapshot.failures), "one broker, one entry"
    leader = dict(zip(range(6), cluster.topics["orders"].leader.tolist(), strict=True))
    for (_, partition), seen in ends(snapshot).items():
        if leader[partition] != 1:
            assert (0, 11) == seen
        else:
            assert seen in {(0, 11), f"?{int(why)}"}
    assert SHIPPING == committed(snapshot)["shipping"], "its coordinator is broker 2"
    if api == "OffsetFetch":
        assert dict.fromkeys(BILLING, f"?{int(why)}") == committed(snapshot)["billing"]
    if api == "ListOffsets":
        assert f"?{int(why)}" in ends(snapshot).values()


async def test_a_cluster_that_is_away_is_unknown_and_not_gone(cluster, observer):
    """Every group keeps its rows with a reason while no broker answers; the first answer afterwards is complete."""
    before = await observer.observe()
    for broker in cluster.brokers:
        cluster.stop(broker)
    away = await observer.observe()
    longer = await observer.observe()
    for broker in cluster.brokers:
        cluster.start(broker)
    back = await observer.observe()

    assert not away.up
    assert before.positions.layout is away.positions.layout is back.positions.layout
    reasons = set(committed(away)["billing"].values()) | set(ends(away).values())
    assert reasons <= {f"?{int(Why.REFUSED)}", f"?{int(Why.DISCONNECTED)}"}
    assert committed(away).keys() == committed(longer).keys()
    assert ["cluster"] == [failure.scope for failure in longer.failures], "nobody answers: that is one entry"
    assert back.up
    assert {"billing": BILLING, "shipping": SHIPPING} == committed(back)
    assert ALL_ORDERS == ends(back)


async def test_a_frozen_broker_costs_one_timeout_not_one_a_request(cluster, observer):
    """A broker that does not answer is asked once a cycle, and the other two are read in full."""
    await observer.observe()
    cluster.pause(1)
    asked = len(cluster.journal)
    snapshot = await observer.observe()

    assert SHIPPING == committed(snapshot)["shipping"]
    assert ["TIMEOUT"] == [failure.error for failure in snapshot.failures]
    assert not [seen for seen in cluster.journal[asked:] if seen.broker == 1]


async def test_a_deleted_group_goes_at_once(cluster, observer):
    """Gone is what a coordinator that answered does not list any more."""
    await observer.observe()
    cluster.delete_group("billing")
    snapshot = await observer.observe()

    assert {"shipping": SHIPPING} == committed(snapshot)
    assert snapshot.up


async def test_a_group_its_coordinator_leaves_out_is_not_gone(cluster, observer):
    """A list may be short without an error, right after a restart: the commits say that the group is there."""
    await observer.observe()
    cluster.groups["billing"].listed_by = set()
    snapshot = await observer.observe()

    assert BILLING == committed(snapshot)["billing"]
    assert facts(snapshot, "billing").state is None


async def test_a_loading_coordinator_is_waited_for(cluster, observer):
    """COORDINATOR_LOAD_IN_PROGRESS passes: within the cycle if soon."""
    cluster.fail("OffsetFetch", ErrorCode(14), broker=1, times=1)
    snapshot = await observer.observe()

    assert {"billing": BILLING, "shipping": SHIPPING} == committed(snapshot)
    assert snapshot.up


async def test_a_coordinator_that_keeps_loading_is_unknown(cluster, observer):
    """Its groups are unknown with Kafka's reason, not up, and not waited for again in the next cycle."""
    cluster.fail("OffsetFetch", ErrorCode(14), broker=1)
    await observer.observe()
    asked = cluster.count("OffsetFetch")
    snapshot = await observer.observe()

    assert "?14" in committed(snapshot)["billing"].values() or {} == committed(snapshot)["billing"]
    assert 14 == facts(snapshot, "billing").why
    assert not snapshot.up
    assert ("group", "billing", "COORDINATOR_LOAD_IN_PROGRESS") in {
        (f.scope, f.name, f.error) for f in snapshot.failures
    }
    assert 2 == cluster.count("OffsetFetch") - asked


async def test_a_moved_coordinator_is_found(cluster, observer):
    """The group is read from where it went, in the same cycle."""
    await observer.observe()
    cluster.fail("OffsetFetch", Call(lambda: cluster.move_coordinator("billing", 3)), broker=1, times=1)
    snapshot = await observer.observe()

    assert BILLING == committed(snapshot)["billing"]
    assert snapshot.up


def take_over(cluster, broker: int, *, from_: int) -> None:
    """Let a broker coordinate and lead what another one did, which has left the cluster for good."""
    for name, group in list(cluster.groups.items()):
        if cluster.coordinator(name) == from_:
            cluster.move_coordinator(group.name, broker)
    for topic in cluster.topics.values():
        for partition in np.flatnonzero(topic.leader == from_).tolist():
            cluster.move_leader(topic.name, partition, broker)
    cluster.brokers.pop(from_, None)


async def test_a_group_deleted_while_its_coordinator_was_away_goes(cluster, observer, monkeypatch):
    """The broker that had it is gone for good: the one in its place says so, and is believed once it has settled."""
    monkeypatch.setattr(commits, "SETTLING_SECONDS", 0.2)
    await observer.observe()
    cluster.stop(1)
    away = await observer.observe()
    take_over(cluster, 3, from_=1)
    cluster.delete_group("billing")
    doubtful = await observer.observe()
    await asyncio.sleep(0.3)
    settled = await observer.observe()

    assert "billing" in committed(away)
    assert dict.fromkeys(BILLING, f"?{int(Why.NEW_COORDINATOR)}") == committed(doubtful)["billing"]
    assert {"shipping": SHIPPING} == committed(settled)
    assert settled.up


@pytest.mark.parametrize(
    "known", [{}, {("orders", 0): 0}, {**BILLING, ("orders", 5): 4}], ids=["none", "some", "older"]
)
async def test_a_new_coordinator_that_knows_less_is_not_believed_yet(cluster, observer, known):
    """A coordinator answers up to its high watermark, which a new one learns late: there is no error then."""
    await observer.observe()
    cluster.stop(1)
    await observer.observe()
    take_over(cluster, 3, from_=1)
    cluster.group("billing", known, coordinator=3)
    early = await observer.observe()
    cluster.group("billing", {**BILLING, ("orders", 5): 6}, coordinator=3)
    late = await observer.observe()
    cluster.commit("billing", "orders", 5, 2)
    reset = await observer.observe()

    assert dict.fromkeys(BILLING, f"?{int(Why.NEW_COORDINATOR)}") == committed(early)["billing"]
    assert SHIPPING == committed(early)["shipping"]
    assert not early.up
    assert {**BILLING, ("orders", 5): 6} == committed(late)["billing"]
    assert late.up
    assert {**BILLING, ("orders", 5): 2} == committed(reset)["billing"], "settled: what it says is so"


async def test_a_coordinator_that_is_handed_over_within_the_cycle_and_knows_less_is_not_believed_yet(cluster, observer):
    """The old one answers that it is none any more, and the new one is behind."""
    await observer.observe()

    def hand_over() -> None:
        cluster.move_coordinator("billing", 3)
        cluster.commit("billing", "orders", 5, 3)

    cluster.fail("OffsetFetch", Call(hand_over), broker=1, times=1)
    early = await observer.observe()
    cluster.move_coordinator("billing", 2)
    cluster.commit("billing", "orders", 5, 4)
    again = await observer.observe()
    cluster.commit("billing", "orders", 5, 5)
    late = await observer.observe()

    doubted = dict.fromkeys(BILLING, f"?{int(Why.NEW_COORDINATOR)}")
    assert [doubted, doubted, BILLING] == [committed(each)["billing"] for each in (early, again, late)]


async def test_a_coordinator_that_was_away_and_knows_less_is_not_believed_yet(cluster, observer):
    """The same broker, back from a crash, may be behind as a new one is."""
    await observer.observe()
    cluster.stop(1)
    away = await observer.observe()
    cluster.start(1)
    cluster.commit("billing", "orders", 5, 3)
    early = await observer.observe()
    cluster.commit("billing", "orders", 5, 5)
    late = await observer.observe()

    assert not away.up
    assert dict.fromkeys(BILLING, f"?{int(Why.NEW_COORDINATOR)}") == committed(early)["billing"]
    assert BILLING == committed(late)["billing"]


async def test_an_offset_set_back_under_a_healthy_coordinator_is_believed_at_once(cluster, observer):
    """A reset by hand is true from the first answer on."""
    await observer.observe()
    cluster.commit("billing", "orders", 5, 1)

    assert {**BILLING, ("orders", 5): 1} == committed(await observer.observe())["billing"]


async def test_a_moved_leader_is_found(cluster, observer):
    """NOT_LEADER_OR_FOLLOWER leads to a new map and the right broker within the cycle."""
    await observer.observe()
    old = int(cluster.topics["orders"].leader[0])
    cluster.move_leader("orders", 0, old % 3 + 1)
    snapshot = await observer.observe()

    assert ALL_ORDERS == ends(snapshot)
    assert snapshot.up


async def test_a_partition_without_a_leader_is_unknown_until_it_has_one(cluster, observer):
    """Absent while nobody leads it, not up; back in the very cycle in which a leader is there."""
    await observer.observe()
    cluster.move_leader("orders", 0, NO_LEADER)
    lost = await observer.observe()
    still = await observer.observe()
    cluster.move_leader("orders", 0, 2)
    back = await observer.observe()

    for snapshot in (lost, still):
        assert ends(snapshot)["orders", 0] in {f"?{int(Why.NO_LEADER)}", "?5", "?6"}
        assert {k: v for k, v in ALL_ORDERS.items() if k[1]} == {k: v for k, v in ends(snapshot).items() if k[1]}
        assert not snapshot.up
    assert ALL_ORDERS == ends(back)
    assert back.up


async def test_a_topic_deleted_between_two_calls(cluster, observer):
    """Deleted after its commits were read: unknown because it is gone; the next cycle shows nothing of it."""
    cluster.topic("doomed", partitions=2, records=3)
    cluster.group("on-doomed", {("doomed", 0): 1, ("doomed", 1): 1}, coordinator=1)
    await observer.observe()
    cluster.fail("ListOffsets", Call(lambda: cluster.topics.get("doomed") and cluster.delete_topic("doomed")), times=1)
    between = await observer.observe()
    after = await observer.observe()

    assert {("doomed", p): f"?{int(Why.TOPIC_GONE)}" for p in (0, 1)} == committed(between)["on-doomed"]
    assert BILLING == committed(between)["billing"]
    assert {} == committed(after)["on-doomed"]
    assert ALL_ORDERS == ends(after)


async def test_a_commit_on_a_topic_that_is_gone_is_unknown(cluster, observer):
    """The broker still has the offsets of a deleted topic: no end to compare with, so no zero."""
    cluster.topic("doomed", records=3)
    cluster.group("on-doomed", {("doomed", 0): 1}, coordinator=1)
    cluster.delete_topic("doomed", keep_commits=True)
    snapshot = await observer.observe()

    assert {("doomed", 0): f"?{int(Why.TOPIC_GONE)}"} == committed(snapshot)["on-doomed"]
    assert snapshot.up, "nothing is wrong with the brokers"


async def test_new_topics_and_partitions_are_seen_with_the_group_that_reads_them(cluster, observer):
    """A map older than a topic is read anew as soon as somebody commits there."""
    await observer.observe()
    cluster.topic("young", partitions=2, records=4)
    cluster.commit("billing", "young", 1, 3)
    snapshot = await observer.observe()

    assert 3 == committed(snapshot)["billing"]["young", 1]
    assert (0, 4) == ends(snapshot)["young", 1]


async def test_a_forbidden_group_leaves_the_others_alone(cluster, observer):
    """GROUP_AUTHORIZATION_FAILED is an entry and a reason; the cluster is up."""
    cluster.forbid(group="billing")
    cluster.lists_forbidden_groups = True
    snapshot = await observer.observe()

    assert 30 == facts(snapshot, "billing").why
    assert ["GROUP_AUTHORIZATION_FAILED"] == [failure.error for failure in snapshot.failures]
    assert SHIPPING == committed(snapshot)["shipping"]
    assert snapshot.up


async def test_metadata_of_4_kilobytes(cluster, observer):
    """Entries with metadata take the general way and say the same."""
    cluster.commit("billing", "orders", 2, 5, metadata="m" * 4096)
    cluster.commit("billing", "orders", 3, 6, metadata=None)
    snapshot = await observer.observe()

    assert {**BILLING, ("orders", 2): 5, ("orders", 3): 6} == committed(snapshot)["billing"]


@pytest.mark.parametrize("name", ["two words", 'it\'s "quoted"', "line\nbreak\ttab", "größe-組", "", "a" * 249])
async def test_names_nobody_expects(cluster, observer, name):
    """Spaces, quotes, newlines, non-ASCII, the empty name: read like any other."""
    cluster.group(name, {("orders", 0): 4})
    snapshot = await observer.observe()

    assert {("orders", 0): 4} == committed(snapshot)[name]


async def test_a_partition_left_out_of_an_answer_is_unknown(cluster, observer):
    """A leader that says nothing about a partition has not said zero."""
    cluster.fail("ListOffsets", Omit(topics=["orders"], partitions=[0, 1, 2, 3, 4, 5]), broker=2)
    snapshot = await observer.observe()

    leader = cluster.topics["orders"].leader.tolist()
    for (_, partition), seen in ends(snapshot).items():
        assert seen == (f"?{int(Why.MALFORMED)}" if leader[partition] == 2 else (0, 10))
    assert not snapshot.up


async def test_a_group_left_out_of_an_answer_is_unknown(cluster, observer):
    """A coordinator that says nothing about a group has not said that it is gone."""
    await observer.observe()
    cluster.fail("OffsetFetch", Omit(groups=["billing"]))
    snapshot = await observer.observe()

    assert Why.MALFORMED == facts(snapshot, "billing").why
    assert dict.fromkeys(BILLING, f"?{int(Why.MALFORMED)}") == committed(snapshot)["billing"]


async def test_a_negative_end_is_no_number(cluster, observer):
    """A leader that answers -1 without an error knows nothing."""

    def lie(answer):
        topics = tuple(
            dataclasses.replace(t, partitions=tuple(dataclasses.replace(p, offset=-1) for p in t.partitions))
            for t in answer.topics
        )
        return dataclasses.replace(answer, topics=topics)

    cluster.fail("ListOffsets", Lie(lie), broker=2)
    snapshot = await observer.observe()

    assert {f"?{int(Why.MALFORMED)}", (0, 10)} == set(ends(snapshot).values())


async def test_any_corrupt_byte_is_survived(cluster, observer):
    """Whatever byte of the commits is wrong, the other coordinator's groups are right and nothing is raised."""
    await observer.observe()
    for byte in range(0, 120, 7):
        fault = cluster.fail("OffsetFetch", Corrupt({byte: 0xFF}), broker=1)
        snapshot = await observer.observe()
        assert SHIPPING == committed(snapshot)["shipping"]
        fault.cancel()
    assert {"billing": BILLING, "shipping": SHIPPING} == committed(await observer.observe())


async def test_members_assignments_and_protocols(cluster, observer):
    """Classic and KIP-848 groups: members, state, owners, and assigned partitions without a commit."""
    cluster.topic("pair", partitions=2, records=10)
    both = {"pair": [0, 1]}
    cluster.group("old", {("pair", 0): 3}, members=[Member("c-old", both)], coordinator=1)
    cluster.group("new", {("pair", 0): 3}, type="consumer", members=[Member("c-new", both)])
    snapshot = await observer.observe()

    for name, client in [("old", "c-old"), ("new", "c-new")]:
        group = facts(snapshot, name)
        assert ("Stable", 1, {("pair", 0): client, ("pair", 1): client}) == (group.state, group.members, group.assigned)
        assert {("pair", 0): 3, ("pair", 1): f"?{int(Why.NO_COMMIT)}"} == committed(snapshot)[name]
    assert ("classic", "consumer") == (facts(snapshot, "old").protocol, facts(snapshot, "new").protocol)


async def test_the_changelogs_of_a_faust_app_are_not_its_input(cluster, observer):
    """Faust's assignor hands them out too and commits nothing there; somebody else's changelog is a topic like any."""
    cluster.topic("app-averages-changelog", records=5)
    cluster.topic("other-averages-changelog", records=5)
    cluster.topic("words", records=10)
    assigned = {"words": [0], "app-averages-changelog": [0], "other-averages-changelog": [0]}
    cluster.group("app", {("words", 0): 3}, members=[Member("worker", assigned)])
    snapshot = await observer.observe()

    assert {("words", 0): 3, ("other-averages-changelog", 0): f"?{int(Why.NO_COMMIT)}"} == committed(snapshot)["app"]
    assert {("words", 0), ("other-averages-changelog", 0)} == set(facts(snapshot, "app").assigned)


async def test_groups_are_described_when_they_change_not_every_cycle(cluster, observer):
    """A steady group costs no DescribeGroups; a change of state costs one."""
    cluster.group("old", {("orders", 0): 3}, members=[Member("c", {"orders": [0]})], coordinator=1)
    await observer.observe()
    await observer.observe()
    steady = cluster.count("DescribeGroups")
    cluster.groups["old"].state = "PreparingRebalance"
    await observer.observe()

    assert 1 == steady
    assert 2 == cluster.count("DescribeGroups")


async def test_a_share_group_is_unknown_with_its_reason(cluster, observer):
    """Before Kafka 4.1 nobody can be asked where it is: shown, unknown, and no fault of the cluster's."""
    for broker in cluster.brokers.values():
        broker.versions.pop("DescribeShareGroupOffsets", None)
    cluster.group("shared", type="share", protocol_type="share", members=[Member("s")])
    snapshot = await observer.observe()

    assert Consumer(Kind.SHARE_GROUP, "shared") in snapshot.positions.layout.consumers
    assert Why.SHARE_GROUP == facts(snapshot, "shared").why
    assert snapshot.up


async def test_look_ups_go_to_the_leaders_and_come_back_in_order(cluster, observer):
    """One request a leader; row for row the first record at or after each time, -1 where there is none."""
    snapshot = await observer.observe()
    rows = np.array([5, 0, 3], np.int32)
    asked = cluster.count("ListOffsets")
    found = await observer.look_up(
        Lookups(snapshot.partitions.layout, rows, np.array([1_000_500, 1_003_000, 9_000_000], np.int64))
    )

    assert [1, 3, -1] == found.offset.tolist()
    assert [1_001_000, 1_003_000, -1] == found.timestamp_ms.tolist()
    assert [0, 0, 0] == found.why.tolist()
    leaders = {int(cluster.topics["orders"].leader[p]) for p in (5, 0, 3)}
    assert len(leaders) == cluster.count("ListOffsets") - asked


async def test_a_failed_look_up_has_its_reason_and_is_told(cluster, observer):
    """Positions keep what is known; the failure is an entry of the next snapshot."""
    snapshot = await observer.observe()
    cluster.fail("ListOffsets", Hang(), broker=1, times=1)
    layout = snapshot.partitions.layout
    found = await observer.look_up(Lookups(layout, np.arange(6, dtype=np.int32), np.zeros(6, np.int64)))
    after = await observer.observe()

    leader = cluster.topics["orders"].leader
    assert [Why.TIMEOUT if node == 1 else 0 for node in leader.tolist()] == found.why.tolist()
    assert "TIMEOUT" in {failure.error for failure in after.failures}


async def test_check_says_what_was_tried():
    """One line with the address and what to do."""
    source = KafkaSource(Cluster(bootstrap_servers="127.0.0.1:1", timeout_seconds=0.5))
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 refused the connection; check bootstrap_servers"):
        await source.check()
    await source.close()


async def test_slow_brokers_are_asked_side_by_side(cluster):
    """Every broker has its question while none has answered yet."""
    observer = KafkaSource(settings(cluster, timeout=60))
    await observer.check()
    cluster.fail("ListGroups", Hang())
    cycle = asyncio.create_task(observer.observe())
    try:
        await asyncio.wait_for(cluster.asked("ListGroups", times=3), 20)
    finally:
        cycle.cancel()
        await asyncio.gather(cycle, return_exceptions=True)
        await observer.close()

    assert {1, 2, 3} == {seen.broker for seen in cluster.journal if seen.api == "ListGroups"}


async def test_nothing_is_left_running(cluster):
    """After an outage and a close no task of ours is left, and every connection is closed."""
    before = asyncio.all_tasks()
    observer = KafkaSource(settings(cluster))
    await observer.observe()
    ours = {task for task in asyncio.all_tasks() - before if "aiokafka" in repr(task)}
    cluster.pause(1)
    await observer.observe()
    await observer.close()
    cluster.resume(1)

    assert ours, "a connection reads in a task"
    assert not [task for task in asyncio.all_tasks() - before if "aiokafka" in repr(task)]
