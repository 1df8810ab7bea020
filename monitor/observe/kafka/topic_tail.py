"""A topic that reports are written to, read from some time ago on: what is new, once a cycle.

No group and no commits: an observer leaves no traces, and after a restart it reads that time again. Every partition is
read, from the leaders, over connections of its own, so that a flood of reports cannot hold up what lag is read from.
What is read in one cycle is bounded in time and in bytes; the rest comes with the next.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from monitor.errors import TransportError
from monitor.model import Failure, Why, why_name
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import Brokers, MapKeeper, Poll, now
from monitor.observe.kafka.record_batches import (
    FETCH,
    FETCH_VERSION,
    Fetched,
    Record,
    decode_fetch,
    decode_times,
    fetch_request,
    records,
    skip_batch,
)
from monitor.observe.kafka.transport import Address, KafkaTransport, Transport, addresses
from monitor.settings import Cluster, Filter

LOOK_BACK_SECONDS = 3600.0
"""How old events may be at the start: signs of life come every ten seconds, and a hundred batches are kept."""

BYTES_AT_ONCE = 4_000_000
"""Of one answer. A leader gives the first batch whole, however large it is."""

BYTES_A_CYCLE = 64_000_000

OFFSET_OUT_OF_RANGE = 1
NOT_THE_LEADER = frozenset({3, 5, 6, 9})
"""UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REPLICA_NOT_AVAILABLE: the map is old."""


@dataclass(slots=True)
class Read:
    """What one cycle read, and what it could not."""

    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    bytes: int = 0

    def fail(self, topic: str, why: int, detail: str) -> None:
        """Note a failure, each once."""
        failure = Failure("topic", topic, why_name(why), detail)
        if failure not in self.failures:
            self.failures.append(failure)


class Tail(Protocol):
    """Who reads a topic: ``TopicTail``, or a fake in tests."""

    async def read(self) -> Read: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


class TopicTail:
    """Reads one topic of a cluster, on and on."""

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        *,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        look_back_seconds: float = LOOK_BACK_SECONDS,
    ) -> None:
        self._topic = topic
        self._clock = clock
        self._look_back_seconds = look_back_seconds
        self._seconds = cluster.timeout_seconds
        self._brokers = Brokers(transport or KafkaTransport(cluster), cluster.timeout_seconds)
        self._map = MapKeeper(
            self._brokers,
            addresses(cluster.bootstrap_servers),
            cluster.metadata_interval_seconds,
            Filter(include=(topic,)),
        )
        self._next: dict[int, int] = {}

    async def read(self) -> Read:
        """Return what is new; what fails is an entry, and is read by the next cycle."""
        poll, found, deadline = Poll(), Read(), now() + self._seconds
        if not await self._map.refresh_if_due(poll):
            found.failures += poll.failures
            return found
        while now() < deadline and found.bytes < BYTES_A_CYCLE:
            leaders = self._leaders(found)
            came = 0
            for address, partitions in leaders.items():
                came += await self._read_from(address, partitions, found)
            if not came:
                break
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._brokers.close()

    def _leaders(self, found: Read) -> dict[Address, list[int]]:
        """Return the partitions by the leader to ask."""
        topic = self._map.map.topics.get(self._topic)
        if topic is None:
            self._map.expire()
            found.fail(self._topic, Why.TOPIC_GONE, f"there is no topic {self._topic}, or we may not see it")
            return {}
        by_leader: defaultdict[Address, list[int]] = defaultdict(list)
        for partition, leader in zip(topic.partitions.tolist(), topic.leaders.tolist(), strict=True):
            address = self._map.map.brokers.get(leader)
            if address is not None:
                by_leader[address].append(partition)
            else:
                self._map.expire()
                found.fail(self._topic, Why.NO_LEADER, f"partition {partition} has no leader")
        return by_leader

    async def _read_from(self, address: Address, partitions: list[int], found: Read) -> int:
        """Read from one leader; return how many bytes of records came."""
        try:
            await self._place(address, [each for each in partitions if each not in self._next], found)
            offsets = {each: self._next[each] for each in partitions if each in self._next}
            if not offsets:
                return 0
            encode = partial(fetch_request, self._topic, offsets, most_bytes=BYTES_AT_ONCE)
            answers = await self._brokers.ask(
                address, FETCH, (FETCH_VERSION, FETCH_VERSION), lambda _: encode(), decode_fetch
            )
        except TransportError as exc:
            self._map.expire()
            found.fail(self._topic, exc.why, str(exc))
            return 0
        return sum(self._take(answer, found) for answer in answers)

    async def _place(self, address: Address, partitions: list[int], found: Read) -> None:
        """Find where to begin: at the first record of the last hour, else at the end."""
        since_ms = int((self._clock() - self._look_back_seconds) * 1000)
        for time_ms in (since_ms, wire.LATEST):
            left = [each for each in partitions if each not in self._next]
            if not left:
                return
            question = [(self._topic, np.array(left, np.int32), time_ms)]
            encode = partial(wire.list_offsets_request, question)
            answer = await self._brokers.ask(address, wire.LIST_OFFSETS, (6, 11), encode, decode_times)
            for partition, (error, offset) in answer.items():
                if error:
                    self._failed(partition, error, found)
                elif offset >= 0 and partition in left:
                    self._next[partition] = offset

    def _take(self, answer: Fetched, found: Read) -> int:
        first = self._next.get(answer.partition)
        if first is None:
            return 0
        if answer.error:
            self._failed(answer.partition, answer.error, found)
            return 0
        try:
            came, self._next[answer.partition] = records(answer.batches, first)
        except wire.MalformedError as exc:
            found.fail(self._topic, Why.MALFORMED, f"partition {answer.partition} at offset {first}: {exc}")
            came, self._next[answer.partition] = [], skip_batch(answer.batches, first)
        found.records += came
        found.bytes += len(answer.batches)
        return self._next[answer.partition] - first

    def _failed(self, partition: int, error: int, found: Read) -> None:
        if error == OFFSET_OUT_OF_RANGE:
            self._next.pop(partition, None)  # deleted while we were away, or the topic was made anew
        elif error in NOT_THE_LEADER:
            self._map.expire()
        found.fail(self._topic, error, f"partition {partition}: {why_name(error)}")
