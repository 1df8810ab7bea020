"""Produce and consume with confluent-kafka: a client that is not ours, whose counts are the truth."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PATIENCE_SECONDS = 120.0


def create_topics(bootstrap: str, topics: Mapping[str, int]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(name, partitions, 1) for name, partitions in topics.items()]
    for created in admin.create_topics(wanted).values():
        created.result(PATIENCE_SECONDS)


class Feed:
    """Produce records and count them by partition as they are acknowledged."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.sent = [0] * partitions
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap})

    def send(self, key: str, value: bytes, at: float) -> None:
        self._producer.produce(self._topic, key=key, value=value, timestamp=int(at * 1000), on_delivery=self._count)
        self._producer.poll(0)

    def flush(self) -> None:
        assert 0 == self._producer.flush(PATIENCE_SECONDS)

    def _count(self, error: object, message: Message) -> None:
        assert error is None
        self.sent[message.partition()] += 1


def consume(bootstrap: str, topic: str, count: int | None = None) -> list[Message]:
    """Read ``count`` records of a topic with one partition, waiting for them; without a count what is there now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4())})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    if count is None:
        count = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=PATIENCE_SECONDS)[1]
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records on {topic}"
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            found.append(message)
    consumer.close()
    return found


def committed(bootstrap: str, group: str, topic: str, partitions: int) -> list[int]:
    """Return a group's committed offsets of a topic, by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    offsets = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=30)
    consumer.close()
    return [each.offset for each in offsets]
