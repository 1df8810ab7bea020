"""The fake broker seen by clients of others: librdkafka and aiokafka find in it what was put there."""

import asyncio
import json
import sys

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from monitor.sandbox.fake import RELEASES, FakeCluster, Member

HOUR = 1_700_000_000_000
METADATA = 'größe, "quoted"\n' + "x" * 4096

# In a process of its own: librdkafka's admin client can take the interpreter down with it.
CONFLUENT = """
import json, sys
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

bootstrap, groups, at = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
admin = AdminClient({"bootstrap.servers": bootstrap})
found = admin.list_topics(timeout=10)
topics = {t.topic: {str(p.id): p.leader for p in t.partitions.values()} for t in found.topics.values()}
brokers = {str(b.id): f"{b.host}:{b.port}" for b in found.brokers.values()}
listing = admin.list_consumer_groups(request_timeout=10).result()
partitions = [TopicPartition(t, int(p)) for t in topics for p in topics[t]]

def offsets(spec, **options):
    asked = admin.list_offsets({tp: spec for tp in partitions}, request_timeout=10, **options)
    return {f"{tp.topic}-{tp.partition}": [f.result().offset, f.result().timestamp] for tp, f in asked.items()}

def committed(group):
    (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=10).values()
    return {f"{tp.topic}-{tp.partition}": [tp.offset, tp.metadata or ""] for tp in future.result().topic_partitions}

def described(group):
    (future,) = admin.describe_consumer_groups([group], request_timeout=10).values()
    d = future.result()
    assigned = [sorted([tp.topic, tp.partition] for tp in m.assignment.topic_partitions) for m in d.members]
    members = [[m.client_id, m.host, parts] for m, parts in zip(d.members, assigned)]
    return [d.state.name, d.type.name, d.coordinator.id, sorted(members)]

print(json.dumps({
    "brokers": brokers,
    "topics": topics,
    "groups": {g.group_id: [g.state.name, g.type.name] for g in listing.valid},
    "errors": [str(e) for e in listing.errors],
    "committed": {group: committed(group) for group in groups},
    "described": {group: described(group) for group in groups},
    "start": offsets(OffsetSpec.earliest()),
    "end": offsets(OffsetSpec.latest()),
    "stable": offsets(OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED),
    "by_time": offsets(OffsetSpec.for_timestamp(at)),
    "newest": offsets(OffsetSpec.max_timestamp()),
}))
"""


def story(cluster: FakeCluster) -> None:
    cluster.topic("orders", 4, records=100, timestamp_ms=HOUR, step_ms=1000, replication=2)
    cluster.topic("größe", 1)
    cluster.expire("orders", 1, 40)
    cluster.topics["orders"].last_stable[2] = 70
    cluster.append("orders", 3, 5, timestamp_ms=HOUR + 500_000)
    cluster.group(
        "billing",
        {("orders", 0): 58, ("orders", 3): 3},
        members=[Member("c-1", {"orders": [0, 1]}, host="/10.0.0.1"), Member("c-2", {"orders": [2, 3]})],
    )
    cluster.commit("billing", "orders", 1, 41, metadata=METADATA)
    cluster.group('a "quoted" group ü', {"orders": [1, 2, 3, 4]}, coordinator=3)


async def run(cluster: FakeCluster, groups: list[str], at: int) -> dict:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CONFLUENT, cluster.bootstrap, json.dumps(groups), str(at), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert 0 == process.returncode
    return json.loads(out)


@pytest.mark.parametrize("release", ["3.7", "3.9", "4.0", "4.3"])
async def test_librdkafka_finds_what_was_put_there(release):
    """Brokers, topics, groups, members, commits and offsets of every kind are those of the story."""
    quoted = 'a "quoted" group ü'
    async with FakeCluster(brokers=3, release=release) as cluster:
        story(cluster)
        if "ConsumerGroupDescribe" in RELEASES[release]:
            cluster.has_consumer_protocol = True  # off by default in 3.9
            cluster.group("new", {("orders", 2): 9}, type="consumer", members=[Member("c-3", {"orders": [2]})])
        seen = await run(cluster, list(cluster.groups), HOUR + 50_500)
        addresses = cluster.bootstrap.split(",")
        leaders = cluster.topics["orders"].leader.tolist()
        coordinators = {name: cluster.coordinator(name) for name in cluster.groups}

    assert dict(zip("123", addresses, strict=True)) == seen["brokers"]
    assert {"orders", "größe"} == seen["topics"].keys()
    assert leaders == [seen["topics"]["orders"][str(p)] for p in range(4)]
    assert [] == seen["errors"]
    states = {name: state for name, (state, _) in seen["groups"].items()}
    assert {"billing": "STABLE", quoted: "EMPTY"} | ({"new": "STABLE"} if "new" in coordinators else {}) == states
    assert {"orders-0": [58, ""], "orders-1": [41, METADATA], "orders-3": [3, ""]} == seen["committed"]["billing"]
    assert {f"orders-{p}": [p + 1, ""] for p in range(4)} == seen["committed"][quoted]
    members = [
        ["c-1", "/10.0.0.1", [["orders", 0], ["orders", 1]]],
        ["c-2", "/127.0.0.1", [["orders", 2], ["orders", 3]]],
    ]
    assert ["STABLE", "CLASSIC", coordinators["billing"], members] == seen["described"]["billing"]
    if "new" in coordinators:
        expected = ["STABLE", "CONSUMER", coordinators["new"], [["c-3", "/127.0.0.1", [["orders", 2]]]]]
        assert expected == seen["described"]["new"]
        assert ["STABLE", "CONSUMER"] == seen["groups"]["new"]

    def of(spec):
        return [seen[spec][f"orders-{p}"] for p in range(4)] + [seen[spec]["größe-0"]]

    assert [0, 40, 0, 0, 0] == [offset for offset, _ in of("start")]
    assert [100, 100, 100, 105, 0] == [offset for offset, _ in of("end")]
    assert [100, 100, 70, 105, 0] == [offset for offset, _ in of("stable")]
    assert [[51, HOUR + 51_000]] * 4 + [[-1, -1]] == of("by_time")
    assert [[99, HOUR + 99_000]] * 3 + [[100, HOUR + 500_000], [-1, -1]] == of("newest")


@pytest.mark.parametrize("release", RELEASES)
async def test_aiokafka_finds_what_was_put_there(release):
    """Start, end and look-up by time, asked of every leader by a consumer without a group."""
    async with FakeCluster(brokers=2, release=release) as cluster:
        story_partitions = [TopicPartition("orders", p) for p in range(3)]
        topic = cluster.topic("orders", 3, records=100, timestamp_ms=HOUR, step_ms=1000)
        topic.log_start[2] = 7
        consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap)
        await consumer.start()
        try:
            topics = await consumer.topics()
            starts = await consumer.beginning_offsets(story_partitions)
            ends = await consumer.end_offsets(story_partitions)
            found = await consumer.offsets_for_times(dict.fromkeys(story_partitions, HOUR + 50_500))
            later = await consumer.offsets_for_times(dict.fromkeys(story_partitions, HOUR + 99_001))
        finally:
            await consumer.stop()

    assert {"orders"} == topics
    assert [0, 0, 7] == [starts[tp] for tp in story_partitions]
    assert [100, 100, 100] == [ends[tp] for tp in story_partitions]
    assert [(51, HOUR + 51_000)] * 3 == [tuple(found[tp]) for tp in story_partitions]
    assert [None] * 3 == [later[tp] for tp in story_partitions]
