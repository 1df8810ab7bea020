"""Transactions: what an open one has written and committed is told apart from what counts."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.observe.kafka.source import KafkaSource
from monitor.settings import Cluster

pytestmark = pytest.mark.integration

SECONDS = 60.0


class Transactional:
    """A producer that reads as a group and commits within its transactions, as Kafka Streams does."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        self._topic = topic
        self._where = TopicPartition(topic, 0)
        admin = AdminClient({"bootstrap.servers": bootstrap})  # kept: it gives up what it has not answered
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(SECONDS)
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        self._producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"{topic}-writer"})
        self._producer.init_transactions(SECONDS)

    def begin(self, records: int, committed: int) -> None:
        """Write records and commit an offset, and leave the transaction open."""
        self._producer.begin_transaction()
        for _ in range(records):
            self._producer.produce(self._topic, b"x", partition=0)
        assert 0 == self._producer.flush(SECONDS)
        offsets = [TopicPartition(self._topic, 0, committed)]
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return self._producer.send_offsets_to_transaction(
                    offsets, self._consumer.consumer_group_metadata(), SECONDS
                )
            except KafkaException as exc:
                # A young coordinator loads for some seconds.
                if not exc.args[0].retriable() or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def commit(self) -> None:
        self._producer.commit_transaction(SECONDS)

    def abort(self) -> None:
        self._producer.abort_transaction(SECONDS)

    def close(self) -> None:
        self._consumer.close()


async def read(source: KafkaSource, group: str, topic: str) -> tuple[int, int, int] | None:
    """Return committed offset, last stable offset and log end as the monitor sees them; None before any commit."""
    snapshot = await source.observe()
    layout = snapshot.positions.layout
    found = [
        index
        for index, owner in enumerate(layout.consumer.tolist())
        if (layout.consumers[owner].name, layout.partitions.key(layout.row[index])) == (group, (topic, 0))
    ]
    if not found:
        return None
    (at,) = found
    row = layout.row[at]
    partitions = snapshot.partitions
    return int(snapshot.positions.committed[at]), int(partitions.last_stable[row]), int(partitions.log_end[row])


async def read_once_marked(source: KafkaSource, group: str, topic: str, end: int) -> tuple[int, int, int] | None:
    """Read when the end of a transaction is marked everywhere: brokers write the markers after they have answered."""
    deadline = time.monotonic() + SECONDS
    while (seen := await read(source, group, topic)) is None or seen[1] != end:
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.05)
    return seen


async def test_an_open_transaction_moves_no_commit_and_hides_no_lag(kafka):
    """Its commit counts once it is committed and never if it is aborted; the log end goes on, the stable one waits."""
    topic = group = f"transactions-{uuid.uuid4().hex[:8]}"
    writer = await asyncio.to_thread(Transactional, kafka.bootstrap, topic, group)
    source = KafkaSource(Cluster(bootstrap_servers=kafka.bootstrap))
    try:
        await asyncio.to_thread(writer.begin, 5, 3)
        await asyncio.to_thread(writer.commit)
        first = await read_once_marked(source, group, topic, end=6)
        await asyncio.to_thread(writer.begin, 4, 5)
        is_open = await read(source, group, topic)
        await asyncio.to_thread(writer.abort)
        aborted = await read_once_marked(source, group, topic, end=11)
    finally:
        await source.close()
        await asyncio.to_thread(writer.close)

    # Each transaction ends with a marker, which has an offset of its own.
    assert (3, 6, 6) == first
    assert (3, 6, 10) == is_open
    assert (3, 11, 11) == aborted
