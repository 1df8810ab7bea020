"""What belongs to a consumer, and which topic it is, on a real broker: what we did ourselves is what must be told."""

import asyncio
import time
import uuid

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from kafka_feed import create_topics

from monitor.model import TopicPartition
from monitor.observe.kafka import quiet
from monitor.observe.kafka.source import KafkaSource
from monitor.publish.report_json import consumer_json
from monitor.sandbox.loads import commit_only
from monitor.service import STEADY, ClusterMonitor
from monitor.settings import Settings

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = 60.0


@pytest.fixture
def prefix():
    return f"ident-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def monitor(kafka, prefix):
    """A monitor that looks at the groups and topics of this test only: the broker has those of others, too."""
    wanted = {"include": (f"{prefix}-*",)}
    settings = Settings(
        clusters=[
            {
                "bootstrap_servers": kafka.bootstrap,
                "groups": wanted,
                "topics": wanted,
                "describe_interval_seconds": 0.1,
            }
        ]
    )
    source = KafkaSource(settings.clusters[0])
    yield ClusterMonitor(settings.clusters[0], settings, STEADY, source, None)
    await source.close()


def write(bootstrap: str, topic: str, count: int) -> None:
    """Write so many records to the topic's one partition; each is acknowledged."""
    acknowledged = []
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "log_level": 3})
    for _ in range(count):
        producer.produce(topic, b"x", partition=0, on_delivery=lambda error, _: acknowledged.append(error))
    producer.flush(PATIENCE_SECONDS)
    assert [None] * count == acknowledged


def consumer(report, name) -> dict:
    """What the report says of a group, as JSON."""
    names = [who.name for who in report.positions.layout.consumers]
    return consumer_json(report, names.index(name))


async def until(monitor, said) -> object:
    """Cycle until a report says something; return that report."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not said(report := await monitor.cycle()):
        assert time.monotonic() < deadline, report.findings
        await asyncio.sleep(0.2)
    return report


def findings(report, kind) -> list:
    return [finding for finding in report.findings if finding.kind == kind]


async def test_a_topic_that_a_live_group_left_is_abandoned(kafka, monitor, prefix):
    """Its lag is shown and is no part of the group's; with the last member gone it belongs to the group again."""
    kept, left, group = f"{prefix}-kept", f"{prefix}-left", f"{prefix}-group"
    create_topics(kafka.bootstrap, {kept: 1, left: 1})
    write(kafka.bootstrap, kept, 10)
    write(kafka.bootstrap, left, 30)
    await commit_only(kafka.bootstrap, {group: {TopicPartition(kept, 0): 4, TopicPartition(left, 0): 10}})
    # It must not commit what it happens to be given before it is paused.
    reader = confluent_kafka.Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": group, "enable.auto.commit": False}
    )
    reader.subscribe([kept])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not reader.assignment():
        assert time.monotonic() < deadline
        reader.poll(0.1)
    reader.pause(reader.assignment())

    live = consumer(await until(monitor, lambda report: report.consumers.abandoned.any()), group)
    await asyncio.to_thread(reader.close)
    empty = consumer(await until(monitor, lambda report: not report.consumers.abandoned.any()), group)

    assert {kept: False, left: True} == {each["topic"]: each["abandoned"] for each in live["partitions"]}
    assert {kept: 6, left: 20} == {each["topic"]: each["lag_records"] for each in live["partitions"]}
    assert [6, 1] == [live["lag_records"], live["members"]]
    assert [26, 0] == [empty["lag_records"], empty["members"]]


async def test_a_topic_created_again_is_told_and_its_lag_begins_anew(kafka, monitor, prefix):
    """Longer than it was before, so that nothing but its id tells; what is committed then counts from its own start."""
    topic, group = f"{prefix}-topic", f"{prefix}-group"
    create_topics(kafka.bootstrap, {topic: 1})
    write(kafka.bootstrap, topic, 5)
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 3}})
    before = await monitor.cycle()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
    await until(monitor, lambda report: topic not in report.partitions.layout.topics)
    create_topics(kafka.bootstrap, {topic: 1})
    write(kafka.bootstrap, topic, 9)
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 7}})
    monitor.kafka._map.expire()
    after = await until(monitor, lambda report: findings(report, "recreated"))

    assert 2 == consumer(before, group)["lag_records"]
    assert 2 == consumer(after, group)["lag_records"]
    (told,) = findings(after, "recreated")
    assert topic == told.topic
    assert not findings(after, "truncated")
    assert not findings(after, "rewound")


async def test_offsets_set_by_hand_are_told_with_old_and_new(kafka, monitor, prefix):
    """Back: how many records are read again; beyond the end: what lies where."""
    topic, group = f"{prefix}-topic", f"{prefix}-group"
    create_topics(kafka.bootstrap, {topic: 1})
    write(kafka.bootstrap, topic, 20)
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 15}})
    await monitor.cycle()
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 2}})
    back = await monitor.cycle()
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 99}})
    beyond = await monitor.cycle()

    (told,) = findings(back, "rewound")
    assert "15" in told.text
    assert "2" in told.text
    assert 13 == told.records
    assert 18 == consumer(back, group)["lag_records"]
    assert "stopped" == consumer(back, group)["health"], "nobody reads: graver than having been set back"
    (told,) = findings(beyond, "beyond_end")
    assert "99" in told.text
    assert "20" in told.text
    assert consumer(beyond, group)["lag_records"] is None


async def test_a_group_at_the_end_of_an_idle_log_costs_its_coordinator_nothing(kafka, monitor, prefix, monkeypatch):
    """Its commits are not read again until a record comes, and then in the same cycle."""
    monkeypatch.setattr(quiet, "REGROUP_SECONDS", 0.0)
    topic, group = f"{prefix}-topic", f"{prefix}-group"
    create_topics(kafka.bootstrap, {topic: 1})
    write(kafka.bootstrap, topic, 5)
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 5}})
    for _ in range(quiet.LOOKS + 2):
        await monitor.cycle()
    fetches = [(await monitor.cycle()).requests_total["kafka", "OffsetFetch"] for _ in range(3)]
    write(kafka.bootstrap, topic, 4)
    await commit_only(kafka.bootstrap, {group: {TopicPartition(topic, 0): 6}})
    woken = await monitor.cycle()

    assert fetches[0] == fetches[2]
    assert woken.requests_total["kafka", "OffsetFetch"] == fetches[2] + 1
    assert 3 == consumer(woken, group)["lag_records"]
