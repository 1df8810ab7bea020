"""The Spark queries of a cluster by all that can be seen of them: the only thing of this room that the service knows.

    checkpoints, events from the topic or by HTTP, drivers (all at once) -> join -> snapshot

Each source fails by itself: what one cannot read is an entry, and the others' queries are there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from monitor.model import Failure, SparkQuery, SparkSnapshot
from monitor.observe.kafka.topic_tail import Tail, TopicTail
from monitor.observe.spark.driver import DriverLook, DriverSource
from monitor.observe.spark.join import LISTENER, join
from monitor.observe.spark.listener import Told
from monitor.observe.spark.listener_http import Inbox
from monitor.settings import Cluster


class Checkpoints(Protocol):
    """Who reads checkpoints: ``monitor.observe.spark.checkpoint.CheckpointSource``, or a fake."""

    async def observe(self) -> SparkSnapshot: ...  # noqa: D102


@dataclass(slots=True)
class Seen:
    """What one look at everything saw, before it is joined."""

    queries: list[SparkQuery] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    drivers: DriverLook | None = None
    up: bool = True


class SparkSource:
    """Every Spark query that the settings of a cluster lead to."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        clock: Callable[[], float] = time.time,
        checkpoints: Checkpoints | None = None,
        tail: Tail | None = None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._checkpoints = checkpoints or _checkpoints(cluster)
        self._tail = tail or _tail(cluster)
        self._inbox = _inbox(cluster)
        self._drivers = DriverSource(cluster, clock=clock) if cluster.spark_drivers else None
        self._told = Told()

    async def listen(self) -> str | None:
        """Take events by HTTP from now on, if the settings say where; return the address.

        Raises:
            UnreachableError: it cannot be listened on.
        """
        events = self._cluster.spark_events
        if self._inbox is None or events is None or events.listen is None:
            return None
        host, _, port = events.listen.rpartition(":")
        return await self._inbox.start(host.strip("[]"), int(port))

    async def observe(self) -> SparkSnapshot:
        """Look at everything once. What fails is an entry."""
        started_at, seen = self._clock(), Seen()
        await asyncio.gather(self._look_at_checkpoints(seen), self._hear(seen), self._look_at_drivers(seen))
        now = self._clock()
        queries, findings = join(seen.queries, self._told, now, seen.drivers)
        return SparkSnapshot(
            self._cluster.name, started_at, now, seen.up, tuple(queries), tuple(seen.failures), tuple(findings)
        )

    async def close(self) -> None:
        """Close connections, and listen no longer."""
        if self._tail is not None:
            await self._tail.close()
        if self._inbox is not None:
            await self._inbox.stop()
        if self._drivers is not None:
            await self._drivers.close()

    async def _look_at_checkpoints(self, seen: Seen) -> None:
        if self._checkpoints is None:
            return
        snapshot = await self._checkpoints.observe()
        seen.queries += snapshot.queries
        seen.failures += snapshot.failures
        seen.up = seen.up and snapshot.up

    async def _look_at_drivers(self, seen: Seen) -> None:
        if self._drivers is not None:
            seen.drivers = await self._drivers.look()
            seen.failures += seen.drivers.failures
            seen.up = seen.up and not seen.drivers.failures

    async def _hear(self, seen: Seen) -> None:
        """Take in what jobs tell."""
        now = self._clock()
        if self._tail is not None:
            read = await self._tail.read()
            seen.failures += read.failures
            seen.up = seen.up and not read.failures
            for record in read.records:
                if record.value is not None:
                    self._told.take(record.value, now)
        if self._inbox is not None:
            for line in self._inbox.take():
                self._told.take(line, now)
        self._told.settle(now)
        # What somebody wrote wrongly says nothing against our reading of it.
        seen.failures += [
            Failure(LISTENER, "events", "MALFORMED", f"{count} not taken: {reason}")
            for reason, count in self._told.refusals().items()
        ]


def _checkpoints(cluster: Cluster) -> Checkpoints | None:
    if not cluster.spark:
        return None
    from monitor.observe.spark.checkpoint import CheckpointSource  # noqa: PLC0415 (only where there are some)

    return CheckpointSource(cluster)


def _tail(cluster: Cluster) -> TopicTail | None:
    events = cluster.spark_events
    return TopicTail(cluster, events.topic) if events is not None and events.topic is not None else None


def _inbox(cluster: Cluster) -> Inbox | None:
    events = cluster.spark_events
    if events is None or events.listen is None:
        return None
    return Inbox(events.token.get_secret_value() if events.token is not None else None)
