"""Send records in batches: one request to the producer for many records, each in the partition of its key.

Faust's ``topic.send`` makes some ten objects and a future a record. Here records are put into a batch for each
partition, and batches are awaited. Records of a partition are sent in the order in which they were put.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from aiokafka.partitioner import DefaultPartitioner

from processors.running import Output

KEYS_KNOWN = 100_000
"""Keys whose partition is remembered: the hash is plain Python, some 5 us."""


PARTITIONER = DefaultPartitioner()
"""That of Kafka's own producers."""


class Sent(NamedTuple):
    """A batch that was handed to the producer: its future, and how many records it has."""

    partition: int
    future: asyncio.Future[Any]
    records: int

    async def last_offset(self) -> int:
        """Return the offset of the last record when all are acknowledged."""
        return int((await self.future).offset) + self.records - 1


class Outbox:
    """Outputs that wait to be sent, and batches that wait to be acknowledged.

    ``producer`` gives the producer once it has started. ``on_sent`` is told of each output that has a source to which
    partition it goes.
    """

    def __init__(self, producer: Callable[[], Any], on_sent: Callable[[Output, int], None] = lambda *_: None) -> None:
        self._producer = producer
        self._on_sent = on_sent
        self._waiting: deque[Output] = deque()
        self._batches: dict[tuple[str, int], Any] = {}
        self._sent: list[Sent] = []
        self._known: dict[tuple[str, bytes], int] = {}
        self._partitions: dict[str, list[int]] = {}

    def put(self, outputs: Iterable[Output]) -> None:
        """Have outputs sent by the next ``send``."""
        self._waiting.extend(outputs)

    async def send(self) -> None:
        """Hand all outputs to the producer. If it is cancelled, the rest is sent by the next one.

        Raises:
            KafkaError: the producer does not take them.
        """
        producer, waiting, batches = self._producer(), self._waiting, self._batches
        for topic in {output.topic for output in waiting}:
            await self._learn(producer, topic)
        while waiting:
            output = waiting[0]
            topic, key, value, headers, at, partition, source = output
            if partition is None:
                partition = self._partition(topic, key)
            place = (topic, partition)
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = producer.create_batch()
            at_ms = None if at is None else int(at * 1000)
            if batch.append(key=key, value=value, timestamp=at_ms, headers=list(headers)) is None:  # it is full
                await self._hand_over(producer, place)
                continue
            waiting.popleft()
            if source is not None and value is not None:
                self._on_sent(output, partition)
        for place in list(batches):
            await self._hand_over(producer, place)

    def take_sent(self) -> list[Sent]:
        """Return batches that were handed over since this was last asked; await them all."""
        sent, self._sent = self._sent, []
        return sent

    async def _hand_over(self, producer: Any, place: tuple[str, int]) -> None:
        batch = self._batches[place]
        batch.close()
        future = await producer.send_batch(batch, place[0], partition=place[1])
        del self._batches[place]
        self._sent.append(Sent(place[1], future, batch.record_count()))

    async def _learn(self, producer: Any, topic: str) -> None:
        """Learn which partitions a topic has now."""
        partitions = sorted(await producer.partitions_for(topic))
        if partitions != self._partitions.get(topic):
            self._partitions[topic] = partitions
            self._known.clear()

    def _partition(self, topic: str, key: bytes | None) -> int:
        partitions = self._partitions[topic]
        if len(partitions) == 1:
            return partitions[0]
        if key is None:
            return random.choice(partitions)  # noqa: S311  # no secret
        known = self._known.get((topic, key))
        if known is None:
            if len(self._known) >= KEYS_KNOWN:
                self._known.clear()
            known = self._known[topic, key] = int(PARTITIONER(key, partitions, partitions))
        return known


async def acknowledged(sent: Iterable[Sent]) -> dict[int, int]:
    """Wait for batches to be acknowledged; return the offset of the last record of each partition.

    Raises:
        KafkaError: one was not; all have been waited for.
    """
    batches = list(sent)
    offsets = await asyncio.gather(*(each.last_offset() for each in batches), return_exceptions=True)
    last: dict[int, int] = {}
    for batch, offset in zip(batches, offsets, strict=True):
        if isinstance(offset, BaseException):
            raise offset
        last[batch.partition] = offset
    return last
