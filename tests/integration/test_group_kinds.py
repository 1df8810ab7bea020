"""Groups of every kind on real brokers: who is in them, what they read, and where share groups are.

What is true comes from the members themselves: what each was assigned, and what it has done by its own count.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterator

import confluent_kafka
import pytest
from group_clients import Connection, RawMember, ShareMember, StreamsMember, read_share_group_from_the_start
from kafka_feed import Feed, create_topics

from monitor.model import Consumer, Kind, TopicPartition, Why
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.loads import commit_only
from monitor.settings import Cluster, Filter

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 60.0
HOST = "/127.0.0.1"


class Names:
    """Names of this test's topics and groups."""

    def __init__(self) -> None:
        self.prefix = f"kinds-{uuid.uuid4().hex[:8]}"

    def __call__(self, name: str) -> str:
        return f"{self.prefix}-{name}"


@contextlib.contextmanager
def reading(bootstrap: str, group: str, topics: list[str], partitions: int, **settings: str) -> Iterator[dict]:
    """Give a librdkafka consumer that has been assigned so many partitions: its member id and what it has."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "client.id": f"client-of-{group}",
            "enable.auto.commit": False,
            **settings,
        }
    )
    consumer.subscribe(topics)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(consumer.assignment()) != partitions:
        assert time.monotonic() < deadline, f"{group}: {consumer.assignment()}"
        consumer.poll(0.1)
    yield {
        "member_id": consumer.memberid(),
        "assigned": {TopicPartition(each.topic, each.partition) for each in consumer.assignment()},
    }
    consumer.close()


async def observed(source: KafkaSource, wanted: dict[str, str]):
    """Observe until each group has the state wanted; return the last snapshot and facts by group."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        snapshot = await source.observe()
        facts = {group.consumer.name: group for group in snapshot.groups}
        if wanted == {name: group.state for name, group in facts.items()}:
            return snapshot, facts
        assert time.monotonic() < deadline, (wanted, {name: group.state for name, group in facts.items()})
        await asyncio.sleep(0.2)


@pytest.fixture
async def observe():
    """Make sources that look at the groups of some names only, closed in the end."""
    sources = []

    def make(bootstrap: str, names: Names) -> KafkaSource:
        groups = Filter(include=(f"{names.prefix}-*",))
        sources.append(KafkaSource(Cluster(bootstrap_servers=bootstrap, groups=groups, describe_interval_seconds=1)))
        return sources[-1]

    yield make
    for source in sources:
        await source.close()


@pytest.fixture
async def connect_to():
    """Make connections for raw members, closed in the end."""
    connections = []

    async def make(bootstrap: str, client_id: str) -> Connection:
        connections.append(await Connection.to(bootstrap, client_id))
        return connections[-1]

    yield make
    for connection in connections:
        await connection.close()


def told(facts) -> tuple:
    """Return what every kind has: protocol and its type, number of members, assignor, subscription, coordinator."""
    return facts.protocol, facts.protocol_type, facts.members, facts.assignor, facts.subscribed, facts.coordinator


def where(*topics: tuple[str, int]) -> set[TopicPartition]:
    return {TopicPartition(topic, partition) for topic, partitions in topics for partition in range(partitions)}


async def test_classic_new_foreign_and_simple_groups(kafka, observe, connect_to):
    """Members, owner and host of each partition, assignor, epochs and subscription, as the members know them."""
    names = Names()
    a, b = names("a"), names("b")
    classic, new, connect, simple = (names(kind) for kind in ("classic", "new", "connect", "simple"))
    await asyncio.to_thread(create_topics, kafka.bootstrap, {a: 3, b: 2})
    worker = RawMember(await connect_to(kafka.bootstrap, "worker"), connect)
    await worker.join("connect", "sessioned", b"\0\1of Connect", b"\0\1of Connect")
    await commit_only(kafka.bootstrap, {simple: {TopicPartition(a, 1): 0}})
    source = observe(kafka.bootstrap, names)
    with (
        reading(kafka.bootstrap, classic, [a, b], 5, **{"group.instance.id": "static"}) as old,
        reading(kafka.bootstrap, new, [a], 3, **{"group.protocol": "consumer"}) as young,
    ):
        states = dict.fromkeys((classic, new, connect), "Stable") | {simple: "Empty"}
        snapshot, facts = await observed(source, states)
        assert snapshot.up
        assert () == snapshot.failures
        assert ("classic", "consumer", 1, "range", {a, b}, 1) == told(facts[classic])
        assert ("consumer", "consumer", 1, "uniform", {a}, 1) == told(facts[new])
        assert ("classic", "connect", 1, "sessioned", None, 1) == told(facts[connect])
        assert ("classic", None, 0, None, None, 1) == told(facts[simple])
        for name, member, instance in [(classic, old, "static"), (new, young, None)]:
            (owner,) = facts[name].owners
            assert (member["member_id"], f"client-of-{name}", HOST, instance) == (
                owner.member_id,
                owner.client_id,
                owner.host,
                owner.instance_id,
            )
            assert member["assigned"] == set(owner.assigned) == set(facts[name].assigned)
            assert {owner.client_id} == set(facts[name].assigned.values())
        assert (None, None) == (facts[classic].epoch, facts[classic].owners[0].epoch)
        epoch = facts[new].epoch
        assert epoch == facts[new].owners[0].epoch >= 1
        (owner,) = facts[connect].owners
        assert (worker.member_id, "worker", HOST, ()) == (owner.member_id, owner.client_id, owner.host, owner.assigned)
        # Nobody has committed but the simple group: what is assigned is a position all the same.
        rows = positions(snapshot)
        assert where((a, 3), (b, 2)) == rows[classic]
        assert where((a, 3)) == rows[new]
        assert {TopicPartition(a, 1)} == rows[simple]
        assert set() == rows[connect]

        with reading(kafka.bootstrap, new, [b], 2, **{"group.protocol": "consumer"}):
            await grown(source, new, epoch)

    await worker.leave()
    states = {classic: "Stable", new: "Empty", connect: "Empty", simple: "Empty"}
    _, facts = await observed(source, states)  # a static member stays for its session, wherever it is
    assert [1, 0, 0] == [facts[name].members for name in (classic, new, connect)]


def positions(snapshot) -> dict[str, set[TopicPartition]]:
    """Return the partitions on which each consumer has a position."""
    layout = snapshot.positions.layout
    return {
        consumer.name: {layout.partitions.key(row) for row in layout.row[first:end].tolist()}
        for consumer, first, end in zip(layout.consumers, layout.starts, layout.starts[1:], strict=False)
    }


async def grown(source: KafkaSource, name: str, epoch: int) -> None:
    """Observe until a second member is known, with a group epoch above the one before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        snapshot = await source.observe()
        (facts,) = (group for group in snapshot.groups if group.consumer.name == name)
        if facts.members == 2:
            break
        assert time.monotonic() < deadline, facts
        await asyncio.sleep(0.2)
    assert facts.epoch > epoch


async def test_share_and_streams_groups(kafka, observe, connect_to):
    """Tasks of a streams group as partitions; the lag of a share group is what was produced minus acknowledged."""
    names = Names()
    a, b, jobs, app = names("a"), names("b"), names("jobs"), names("app")
    await asyncio.to_thread(create_topics, kafka.bootstrap, {a: 2, b: 3})
    feed = Feed(kafka.bootstrap, a, 2)
    for number in range(40):
        feed.send(str(number), b"x", time.time())
    await asyncio.to_thread(feed.flush)
    connection = await connect_to(kafka.bootstrap, "sharer")
    await read_share_group_from_the_start(connection, jobs)
    sharer = ShareMember(connection, jobs)
    streamer = StreamsMember(await connect_to(kafka.bootstrap, "streamer"), app)
    await asyncio.gather(sharer.join({a: 2}), streamer.join([a, b], 3))
    source = observe(kafka.bootstrap, names)
    snapshot, facts = await observed(source, {jobs: "Stable", app: "Stable"})

    assert ("share", "share", 1, "simple", {a}, 1) == told(facts[jobs])
    assert ("streams", "streams", 1, None, {a, b}, 1) == told(facts[app])
    for name, member, read in [(jobs, sharer, where((a, 2))), (app, streamer, where((a, 2), (b, 3)))]:
        (owner,) = facts[name].owners
        assert (member.member_id, HOST, member.epoch, None) == (
            owner.member_id,
            owner.host,
            owner.epoch,
            owner.instance_id,
        )
        assert read == set(owner.assigned) == set(facts[name].assigned) == positions(snapshot)[name]
        assert facts[name].epoch >= member.epoch
    assert ("sharer", "streamer") == (facts[jobs].owners[0].client_id, facts[app].owners[0].client_id)
    assert [(-1, -1, Why.NO_COMMIT)] * 2 == shares(snapshot, jobs)

    # Some in the middle, some at the start; then everything of the other partition.
    assert feed.sent == [await sharer.fetch(a, partition, 100) for partition in range(2)]
    await sharer.acknowledge(a, 0, 3, 5)
    await sharer.acknowledge(a, 0, 0, 0)
    done = [4, feed.sent[1]]
    await sharer.acknowledge(a, 1, 0, done[1] - 1)
    snapshot = await source.observe()
    assert [(feed.sent[0] - done[0], 0), (0, 0)] == [(lag, why) for _, lag, why in shares(snapshot, jobs)]
    # A coordinator tells the start offset as of the write before: it may be behind what is done, never beyond.
    assert all(0 <= start <= most for (start, _, _), most in zip(shares(snapshot, jobs), [1, done[1]], strict=True))
    assert snapshot.up

    for number in range(10):
        feed.send(str(number), b"x", time.time())
    await asyncio.to_thread(feed.flush)
    snapshot = await source.observe()
    lags = [sent - acknowledged for sent, acknowledged in zip(feed.sent, done, strict=True)]
    assert lags == [lag for _, lag, _ in shares(snapshot, jobs)]

    await sharer.leave()
    await streamer.leave()
    snapshot, facts = await observed(source, {jobs: "Empty", app: "Empty"})
    assert [0, 0] == [facts[name].members for name in (jobs, app)]
    assert lags == [lag for _, lag, _ in shares(snapshot, jobs)], "its lag stays when nobody works on it"


def shares(snapshot, group: str) -> list[tuple[int, int, int]]:
    """Return start offset, lag and reason of each partition of a share group."""
    columns = snapshot.positions
    number = columns.layout.consumers.index(Consumer(Kind.SHARE_GROUP, group))
    first, end = columns.layout.starts[number : number + 2]
    return list(
        zip(
            columns.committed[first:end].tolist(),
            columns.lag_said[first:end].tolist(),
            columns.why[first:end].tolist(),
            strict=True,
        )
    )


@pytest.mark.parametrize(
    ("version", "protocols"),
    [
        pytest.param("3.9", ["classic"], id="3.9: types are told, and there is one"),
        pytest.param("4.0", ["classic", "consumer"], id="4.0: two of them"),
    ],
)
async def test_groups_on_older_brokers(kafka_factory, observe, version, protocols):
    """What these brokers have is described as on the newest, and nothing that they lack is a failure."""
    sandbox = await kafka_factory(version=version)
    names = Names()
    await asyncio.to_thread(create_topics, sandbox.bootstrap, {names("a"): 2})
    source = observe(sandbox.bootstrap, names)
    with contextlib.ExitStack() as members:
        expected = {}
        for protocol in protocols:
            settings = {"group.protocol": protocol}
            member = members.enter_context(reading(sandbox.bootstrap, names(protocol), [names("a")], 2, **settings))
            expected[names(protocol)] = member
        snapshot, facts = await observed(source, dict.fromkeys(expected, "Stable"))

        assert (True, ()) == (snapshot.up, snapshot.failures)
        for protocol in protocols:
            group = facts[names(protocol)]
            assignor = {"classic": "range", "consumer": "uniform"}[protocol]
            assert (protocol, "consumer", 1, assignor, {names("a")}, 1) == told(group)
            assert [expected[names(protocol)]["member_id"]] == [owner.member_id for owner in group.owners]
            assert expected[names(protocol)]["assigned"] == set(group.assigned) == positions(snapshot)[names(protocol)]
