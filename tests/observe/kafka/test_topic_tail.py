"""The topic of events on a real Kafka: what another client wrote is read once, in bounds, whatever is between."""

import time
import uuid

import pytest
from confluent_kafka import Producer
from kafka_feed import create_topics

from monitor.observe.kafka.topic_tail import TopicTail
from monitor.settings import Cluster

pytestmark = pytest.mark.integration


@pytest.fixture
def topic(kafka):
    name = f"events-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {name: 3})
    return name


def write(kafka, topic, values, *, at=None, **settings):
    """Write with confluent-kafka; with a transactional id as one transaction."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **settings})
    if "transactional.id" in settings:
        producer.init_transactions(30)
        producer.begin_transaction()
    failed = []
    for number, value in enumerate(values):
        producer.produce(
            topic, value=value, key=str(number), timestamp=int((at or time.time()) * 1000),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )  # fmt: skip
    if "transactional.id" in settings:
        producer.commit_transaction(30)
    assert 0 == producer.flush(30)
    assert [] == failed


def tail(kafka, topic):
    return TopicTail(Cluster(bootstrap_servers=kafka.bootstrap), topic)


def sorted_values(read):
    return sorted(record.value for record in read.records)


async def test_what_was_written_is_read_once(kafka, topic):
    """Of three partitions, plain, gzip and in a transaction; then only what is new; tombstones too."""
    first = [b"a%d" % number for number in range(50)]
    write(kafka, topic, first[:20])
    write(kafka, topic, first[20:40], **{"compression.type": "gzip"})
    write(kafka, topic, first[40:], **{"transactional.id": topic})
    reader = tail(kafka, topic)
    read = await reader.read()
    assert [] == read.failures
    assert sorted(first) == sorted_values(read)

    assert [] == (await reader.read()).records
    write(kafka, topic, [b"new", None])
    again = await reader.read()
    await reader.close()

    assert {b"new", None} == {record.value for record in again.records}


async def test_what_is_old_is_not_read(kafka, topic):
    """Reading begins with the last hour; a partition without any record since begins at its end."""
    write(kafka, topic, [b"old"] * 30, at=time.time() - 7200)
    write(kafka, topic, [b"young"], at=time.time() - 60)
    reader = tail(kafka, topic)
    read = await reader.read()
    await reader.close()

    assert [b"young"] == sorted_values(read)


async def test_what_cannot_be_opened_is_a_failure_and_not_the_end(kafka, topic):
    """Records packed with another codec are stepped over and named; those behind them are read."""
    write(kafka, topic, [b"x" * 500] * 30, **{"compression.type": "lz4"})
    reader = tail(kafka, topic)
    seen = []
    for _ in range(3):
        seen += (await reader.read()).failures
    write(kafka, topic, [b"after"])
    read = await reader.read()
    await reader.close()

    assert {("topic", topic, "MALFORMED")} == {(each.scope, each.name, each.error) for each in seen}
    assert "packed with lz4: only gzip can be opened here" in seen[0].detail
    assert [b"after"] == sorted_values(read)


async def test_a_topic_that_is_not_there_is_a_failure_until_it_is(kafka):
    """It is not created by asking, and found once somebody has made it."""
    name = f"events-{uuid.uuid4().hex[:8]}"
    reader = tail(kafka, name)
    read = await reader.read()
    assert [("topic", name, "TOPIC_GONE")] == [(each.scope, each.name, each.error) for each in read.failures]

    create_topics(kafka.bootstrap, {name: 1})
    while read.failures:
        read = await reader.read()
    write(kafka, name, [b"a"])
    # The position is the end as it was when the topic was first read, or the start: the record lies behind either.
    assert [b"a"] == sorted_values(await reader.read())
    await reader.close()


async def test_without_any_broker_it_is_a_failure():
    """Nothing is raised: the next cycle tries again."""
    reader = TopicTail(Cluster(bootstrap_servers="127.0.0.1:1", timeout_seconds=1.0), "events")
    read = await reader.read()
    await reader.close()

    assert ["cluster"] == [each.scope for each in read.failures]
