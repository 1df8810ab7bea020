"""Run a job on records at hand, without Kafka: for its tests, and to see what it does.

    run = Memory(averages)
    run.feed({"sensor": "s-1", "temperature": 21.5, "at": 1795000000}, key="s-1")
    run.close()
    run.values("readings-averages-5m")

It is the code that runs in the worker; only sending and receiving are left out. What ``key_by`` sends arrives at
once, in a partition that the key gives; a partition of the source has nothing more to read than what was fed.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import Any

from processors.pipeline import Job, from_json, to_json
from processors.running import Counts, Headers, Output, Quiet, Record, parts
from processors.windows import Result

NEXT = -1
"""An offset: the one after the last of its partition."""


class Memory:
    """A run of a job; ``sent`` has all that it wrote, by topic and in order."""

    def __init__(self, job: Job, *, partitions: int = 1) -> None:
        self._parts = parts(job, partitions=partitions)
        self._partitions = partitions
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)
        self._quiet = Quiet()
        self._quiet.expect(range(partitions), range(partitions), 0.0)
        self.sent: dict[str, list[Output]] = defaultdict(list)

    @property
    def counts(self) -> Counts:
        """Return what became of the records so far."""
        return self._parts[0].counts

    def feed(
        self,
        value: Any,
        key: str | bytes | None = None,
        *,
        partition: int = 0,
        offset: int | None = None,
        timestamp: float | None = None,
        headers: Headers = (),
        now: float = 0.0,
    ) -> None:
        """Feed a record: bytes or None as they are, anything else as JSON.

        The offset is the next one of its partition; the timestamp is the value's ``at``, if it has one, else zero.

        Raises:
            TooManyFailuresError: too many of the last records failed.
        """
        coded = value if value is None or isinstance(value, bytes) else to_json(value)
        at = timestamp if timestamp is not None else value.get("at", 0) if isinstance(value, dict) else 0
        keyed = key.encode() if isinstance(key, str) else key
        record = Record(self._parts[0].topic, partition, NEXT, float(at), keyed, coded, headers)
        self._receive(0, record if offset is None else record._replace(offset=offset), now)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Send markers of partitions that have been quiet; ``now`` is any clock of seconds."""
        for source in self._quiet.sources(now):
            last = self._offsets[self._parts[0].topic, source] - 1
            for to in self._quiet.markers(source, now):
                self._send(0, [self._parts[0].marker(source, last, to)], now)

    def idle(self, partition: int) -> None:
        """Hold no window back for a partition of the source any longer."""
        for number, part in enumerate(self._parts):
            self._send(number, part.idle(partition), 0.0)

    def close(self) -> None:
        """Close all windows, as nothing more will come."""
        for number, part in enumerate(self._parts):
            self._send(number, part.close(), 0.0)

    def early(self) -> list[Result]:
        """Return what open windows hold so far."""
        return [result for part in self._parts for result in part.early()]

    def values(self, topic: str) -> list[Any]:
        """Return what was written to a topic, from JSON."""
        return [from_json(output.value) for output in self.sent[topic]]

    def _receive(self, number: int, record: Record, now: float) -> None:
        part, place = self._parts[number], (record.topic, record.partition)
        offset = self._offsets[place] if record.offset == NEXT else record.offset
        self._offsets[place] = max(self._offsets[place], offset + 1)
        self._send(number, part.process(record._replace(offset=offset)), now)
        part.check()

    def _send(self, number: int, outputs: list[Output], now: float) -> None:
        following = self._parts[number + 1].topic if number + 1 < len(self._parts) else None
        for output in outputs:
            self.sent[output.topic].append(output)
            if output.topic == following:
                partition = output.partition
                if partition is None:
                    partition = zlib.crc32(output.key or b"") % self._partitions
                    self._quiet.sent(output.source or 0, partition, now)
                at = output.timestamp or 0.0
                record = Record(following, partition, NEXT, at, output.key, output.value, output.headers)
                self._receive(number + 1, record, now)
