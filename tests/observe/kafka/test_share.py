"""Where share groups are: what their coordinators say, group by group and partition by partition."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.model import UNKNOWN, Consumer, Kind, Why
from monitor.observe.kafka import share
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.fake import Disconnect, ErrorCode, FakeCluster, Garbage, Hang, Lie, Member, Omit
from monitor.settings import Cluster


@pytest.fixture
async def cluster():
    """Three brokers; two share groups at different coordinators and a classic group on the same topic."""
    async with FakeCluster(brokers=3) as fake:
        fake.topic("orders", partitions=3, records=100)
        fake.group("jobs", {"orders": [90, 40, -1]}, type="share", protocol_type="share", coordinator=1)
        fake.groups["jobs"].acknowledged["orders", 1] = 25
        fake.group("mails", {"orders": [100]}, type="share", protocol_type="share", coordinator=2)
        fake.group("billing", {("orders", 0): 58}, coordinator=1)
        yield fake


@pytest.fixture
async def observer(cluster):
    source = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=0.5))
    yield source
    await source.close()


def seen(snapshot, name: str, kind: Kind = Kind.SHARE_GROUP) -> dict:
    """(topic, partition) -> (start offset, lag) or why they are unknown."""
    positions = snapshot.positions
    layout = positions.layout
    number = layout.consumers.index(Consumer(kind, name))
    lag = np.full(len(layout), UNKNOWN) if positions.lag_said is None else positions.lag_said
    return {
        tuple(layout.partitions.key(layout.row[i])): f"?{positions.why[i]}"
        if positions.why[i]
        else (int(positions.committed[i]), int(lag[i]))
        for i in range(layout.starts[number], layout.starts[number + 1])
    }


NOTHING_YET = f"?{int(Why.NO_COMMIT)}"
JOBS = {("orders", 0): (90, 10), ("orders", 1): (40, 35), ("orders", 2): NOTHING_YET}
MAILS = {("orders", 0): (100, 0)}


async def test_start_offsets_and_lags(cluster, observer):
    """Records done beyond the start offset are no lag; before the first acknowledgement there is nothing to tell."""
    snapshot = await observer.observe()

    assert (JOBS, MAILS) == (seen(snapshot, "jobs"), seen(snapshot, "mails"))
    assert {("orders", 0): (58, UNKNOWN)} == seen(snapshot, "billing", Kind.GROUP)
    assert [] == list(snapshot.failures)
    assert (2, snapshot.up) == (cluster.count("DescribeShareGroupOffsets"), True)


async def test_without_share_groups_nobody_is_asked_for_them(cluster, observer):
    """A cluster that has none pays nothing."""
    for name in ("jobs", "mails"):
        cluster.delete_group(name)
    snapshot = await observer.observe()

    assert snapshot.positions.lag_said is None
    assert 0 == cluster.count("DescribeShareGroupOffsets")


async def test_layouts_keep_their_identity_while_share_groups_only_move(cluster, observer):
    """The way from answers to rows is planned once for them as for others."""
    before = await observer.observe()
    cluster.commit("jobs", "orders", 0, 95)
    after = await observer.observe()

    assert before.positions.layout is after.positions.layout
    assert (95, 5) == seen(after, "jobs")["orders", 0]


async def test_a_broker_that_tells_no_lag(cluster, observer):
    """Kafka 4.1 says where the group starts and not how much it lags: that is unknown, not end minus start."""
    for broker in cluster.brokers.values():
        broker.versions["DescribeShareGroupOffsets"] = (0, 0)
    snapshot = await observer.observe()

    expected = {("orders", 0): (90, UNKNOWN), ("orders", 1): (40, UNKNOWN), ("orders", 2): NOTHING_YET}
    assert expected == seen(snapshot, "jobs")


async def test_brokers_of_two_versions(cluster, observer):
    """During an upgrade each coordinator tells what it can."""
    cluster.brokers[1].versions["DescribeShareGroupOffsets"] = (0, 0)
    snapshot = await observer.observe()

    assert ((90, UNKNOWN), MAILS) == (seen(snapshot, "jobs")["orders", 0], seen(snapshot, "mails"))


@pytest.mark.parametrize(
    ("code", "is_up"),
    [pytest.param(30, True, id="forbidden"), pytest.param(-1, False, id="unknown error")],
)
async def test_one_group_that_fails_leaves_the_others_alone(cluster, observer, code, is_up):
    """It is unknown with the reason its coordinator gave; the cluster is to blame only if that is."""
    cluster.group("more", {"orders": [7]}, type="share", coordinator=1)
    cluster.fail("DescribeShareGroupOffsets", ErrorCode(code, {"jobs"}))
    snapshot = await observer.observe()

    facts = {group.consumer.name: group.why for group in snapshot.groups}
    assert {"jobs": code, "more": 0, "mails": 0, "billing": 0} == facts
    assert ({("orders", 0): (7, 93)}, MAILS, {}) == (
        seen(snapshot, "more"),
        seen(snapshot, "mails"),
        seen(snapshot, "jobs"),
    )
    assert [("group", "jobs")] == [(each.scope, each.name) for each in snapshot.failures]
    assert is_up == snapshot.up


async def test_a_group_that_fails_later_keeps_its_rows(cluster, observer):
    """Unknown is not gone."""
    await observer.observe()
    cluster.fail("DescribeShareGroupOffsets", ErrorCode(30, {"jobs"}))
    snapshot = await observer.observe()

    assert (dict.fromkeys(JOBS, "?30"), MAILS) == (seen(snapshot, "jobs"), seen(snapshot, "mails"))


async def test_a_partition_with_an_error_is_unknown(cluster, observer):
    """Its share coordinator could not be asked: the other partitions count."""
    cluster.groups["jobs"].commits["orders"].error[1] = 15
    snapshot = await observer.observe()

    assert {**JOBS, ("orders", 1): "?15"} == seen(snapshot, "jobs")


async def test_a_lag_below_nothing_is_no_lag(cluster, observer):
    """A number that cannot be is unknown."""

    cluster.fail("DescribeShareGroupOffsets", Lie(lambda entity: with_lag(entity, -7)), broker=2)
    snapshot = await observer.observe()

    assert {("orders", 0): (100, UNKNOWN)} == seen(snapshot, "mails")


def with_lag(entity, lag: int):
    """Return an answer, or a part of one, that says this lag everywhere."""
    if hasattr(entity, "lag"):
        return replace(entity, lag=lag)
    inner = next(name for name in ("groups", "topics", "partitions") if hasattr(entity, name))
    return replace(entity, **{inner: tuple(with_lag(part, lag) for part in getattr(entity, inner))})


@pytest.mark.parametrize(
    ("action", "why"),
    [
        pytest.param(Garbage(), Why.MALFORMED, id="garbage"),
        pytest.param(Hang(), Why.TIMEOUT, id="no answer"),
        pytest.param(Disconnect(), Why.DISCONNECTED, id="disconnect"),
        pytest.param(Omit(groups={"jobs"}), Why.MALFORMED, id="left out"),
    ],
)
async def test_a_broker_that_does_not_answer_properly(cluster, observer, action, why):
    """Its share groups are unknown for that reason, with their rows; those of others and all commits are known."""
    await observer.observe()
    cluster.fail("DescribeShareGroupOffsets", action, broker=1)
    snapshot = await observer.observe()

    assert (dict.fromkeys(JOBS, f"?{int(why)}"), MAILS) == (seen(snapshot, "jobs"), seen(snapshot, "mails"))
    assert {("orders", 0): (58, UNKNOWN)} == seen(snapshot, "billing", Kind.GROUP)
    assert not snapshot.up


async def test_a_share_group_whose_coordinator_moves(cluster, observer):
    """The broker that listed it sends it away: whoever has it now is found within the cycle."""
    cluster.groups["jobs"].listed_by = {1}
    cluster.move_coordinator("jobs", 3)
    snapshot = await observer.observe()

    assert JOBS == seen(snapshot, "jobs")


async def test_a_share_group_that_two_brokers_list(cluster, observer):
    """It counts once, whichever of them is asked first."""
    cluster.groups["jobs"].listed_by = {1, 3}
    snapshot = await observer.observe()

    assert JOBS == seen(snapshot, "jobs")
    assert 3 == len(snapshot.positions.layout.consumers)


async def test_a_share_group_that_is_gone(cluster, observer):
    """Nobody lists it, and its coordinator has nothing of it."""
    await observer.observe()
    cluster.delete_group("jobs")
    await observer.observe()
    snapshot = await observer.observe()

    assert Consumer(Kind.SHARE_GROUP, "jobs") not in snapshot.positions.layout.consumers
    assert MAILS == seen(snapshot, "mails")


async def test_assigned_partitions_of_a_share_group(cluster, observer):
    """A partition that a member reads and nobody has acknowledged on is a position, with nothing known yet."""
    members = [Member("worker", {"orders": [0, 1]})]
    cluster.group("mails", {"orders": [100]}, type="share", members=members, coordinator=2)
    snapshot = await observer.observe()

    assert {**MAILS, ("orders", 1): NOTHING_YET, ("orders", 2): NOTHING_YET} == seen(snapshot, "mails")
    (facts,) = (group for group in snapshot.groups if group.consumer.name == "mails")
    assert (1, frozenset({"orders"}), {("orders", 0): "worker", ("orders", 1): "worker"}) == (
        facts.members,
        facts.subscribed,
        facts.assigned,
    )


async def test_many_share_groups_are_asked_for_in_turns(cluster, observer):
    """A coordinator is asked for so many at once, and for every one."""
    most = share.SHARED.groups_at_once
    for number in range(most + 5):
        cluster.group(f"g-{number}", {"orders": [number]}, type="share", coordinator=3)
    snapshot = await observer.observe()

    assert [{("orders", 0): (n, 100 - n)} for n in range(100)] == [seen(snapshot, f"g-{n}") for n in range(100)]
    assert 2 == cluster.count("DescribeShareGroupOffsets", broker=3)
