"""Populate a cluster to a given size with records and committed offsets whose truth is known.

Every partition of every topic gets a handful of records of 100 bytes whose timestamps are one a minute from an
hour ago; every group commits on so many partitions, a quarter of them at the log end. The same seed gives the same
numbers. It expects a cluster where these topics do not exist yet.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from monitor.errors import SandboxError
from monitor.model import TopicPartition
from monitor.sandbox.loads import commit_only, create_topics, now_ms

RECORD_BYTES = 100
RECORDS = (4, 12)
"""Fewest and most records of a partition."""

CAUGHT_UP_SHARE = 0.25
FIRST_RECORD_MS_AGO = 3_600_000
STEP_MS = 60_000
BATCHES_AT_ONCE = 500
"""Batches on their way at a time: enough to fill every request, few enough to keep memory flat."""

TOPICS_AT_ONCE = 100
"""A broker on two cores makes some 150 partitions a second: so many topics of ten are led well within the patience."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large: ``positions`` are the partitions that each group commits on."""

    topics: int
    partitions: int
    groups: int
    positions: int


XL = Shape(topics=1000, partitions=10, groups=2000, positions=50)
"""10,000 partitions and 100,000 positions: the size at which monitors are compared."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What was written: log ends, committed offsets by group, and the timestamp of the first record of every partition.

    The record at offset n of any partition has the timestamp ``first_ms + n * STEP_MS``.
    """

    ends: dict[TopicPartition, int]
    committed: dict[str, dict[TopicPartition, int]]
    first_ms: int

    def lag(self, group: str) -> dict[TopicPartition, int]:
        """Return the lag of every position of a group in records."""
        return {where: self.ends[where] - offset for where, offset in self.committed[group].items()}

    def record_time(self, offset: int) -> float:
        """Return the timestamp of the records at an offset, in seconds since the epoch."""
        return (self.first_ms + offset * STEP_MS) / 1000


def plan(shape: Shape, first_ms: int, *, seed: int = 1) -> Truth:
    """Return what ``populate`` writes, without writing it.

    Raises:
        SandboxError: a group would have to commit on more partitions than there are.
    """
    if shape.positions > shape.topics * shape.partitions:
        msg = f"{shape.positions} positions a group need more than {shape.topics} x {shape.partitions} partitions"
        raise SandboxError(msg)
    chance = random.Random(seed)  # noqa: S311 (spread, not a secret)
    ends = {
        TopicPartition(f"topic-{topic:04}", partition): chance.randint(*RECORDS)
        for topic in range(shape.topics)
        for partition in range(shape.partitions)
    }
    committed = {
        f"group-{group:04}": {
            where: ends[where] if chance.random() < CAUGHT_UP_SHARE else chance.randrange(ends[where])
            for where in _read_by_one(shape, chance)
        }
        for group in range(shape.groups)
    }
    return Truth(ends, committed, first_ms)


def _read_by_one(shape: Shape, chance: random.Random) -> list[TopicPartition]:
    """Choose what a group reads: whole topics, as groups do, and part of one if it does not come out even."""
    topics = chance.sample(range(shape.topics), -(-shape.positions // shape.partitions))
    everything = [TopicPartition(f"topic-{topic:04}", p) for topic in topics for p in range(shape.partitions)]
    return everything[: shape.positions]


async def populate(bootstrap: str, shape: Shape, *, seed: int = 1, replicas: int = 1) -> Truth:
    """Create the topics, write the records, commit the offsets, and return what was written.

    Raises:
        SandboxError: the cluster refuses something, or a topic holds records already.
    """
    truth = plan(shape, now_ms() - FIRST_RECORD_MS_AGO, seed=seed)
    topics = list(dict.fromkeys(where.topic for where in truth.ends))
    for first in range(0, len(topics), TOPICS_AT_ONCE):
        chunk = dict.fromkeys(topics[first : first + TOPICS_AT_ONCE], shape.partitions)
        await create_topics(bootstrap, chunk, replicas=replicas)
    await _write(bootstrap, truth)
    await commit_only(bootstrap, truth.committed)
    return truth


async def _write(bootstrap: str, truth: Truth) -> None:
    """Write one batch a partition, and check that it starts the log."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, linger_ms=5) as producer:
        places = list(truth.ends)
        for start in range(0, len(places), BATCHES_AT_ONCE):
            chosen = places[start : start + BATCHES_AT_ONCE]
            answers = await asyncio.gather(*[_write_partition(producer, truth, where) for where in chosen])
            for where, offset in zip(chosen, answers, strict=True):
                if offset != 0:
                    msg = f"populating topic {where.topic}: partition {where.partition} holds {offset} records already"
                    raise SandboxError(msg)


async def _write_partition(producer: AIOKafkaProducer, truth: Truth, where: TopicPartition) -> int:
    batch = producer.create_batch()
    for offset in range(truth.ends[where]):
        value = (b"%d " % offset).ljust(RECORD_BYTES, b".")
        batch.append(key=None, value=value, timestamp=truth.first_ms + offset * STEP_MS)
    batch.close()
    answer = await producer.send_batch(batch, where.topic, partition=where.partition)
    return int((await answer).offset)
