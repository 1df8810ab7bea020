"""Faust workers of a cluster: the latest report of each, read from ``streamgauge.faust`` where that topic exists.

    look   read what is new on the topic
    told   the workers as of now, and how reading went

A worker that has stopped is gone. One that falls silent is not: it is *silent* from three of its intervals on, when
nothing it said of the moment holds any more, and forgotten after FORGET_SECONDS. A worker's times are those of its own
clock; how old a report is goes by when it came, except for those that were there before us.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from monitor.model import Failure, FaustSnapshot, FaustWorker
from monitor.observe.faust.reports import RefusedError, read_report
from monitor.observe.kafka.topic_tail import Tail, TopicTail
from monitor.settings import Cluster

TOPIC = "streamgauge.faust"

LOOK_BACK_SECONDS = 120.0
"""How old reports may be when the monitor starts: a dozen of the usual intervals."""

SILENT_INTERVALS = 3
SILENT_SECONDS = 2.0
"""A worker is silent after so many of its intervals, and this for the way here."""

FORGET_SECONDS = 900.0

MOST_WORKERS = 1000


@dataclass(slots=True)
class _Heard:
    worker: FaustWorker
    at: float


class FaustSource:
    """The workers that report in one cluster."""

    def __init__(self, cluster: Cluster, *, tail: Tail | None = None, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster.name
        self._clock = clock
        self._tail = tail or TopicTail(cluster, TOPIC, look_back_seconds=LOOK_BACK_SECONDS)
        self._heard: dict[tuple[str, str], _Heard] = {}
        self._is_first = True

    async def look(self) -> FaustSnapshot:
        """Read what is new and return the workers."""
        started_at = self._clock()
        read = await self._tail.read()
        refused: Counter[str] = Counter()
        for record in read.records:
            try:
                self._hear(read_report(record.value), record.timestamp_ms / 1000)
            except RefusedError as exc:
                refused[str(exc)] += 1
        self._is_first = self._is_first and not read.records
        now = self._clock()
        self._heard = {key: each for key, each in self._heard.items() if now - each.at < FORGET_SECONDS}
        failures = (
            *read.failures,
            *(Failure("topic", TOPIC, "MALFORMED", f"{n} records are no reports: {why}") for why, n in refused.items()),
        )
        workers = tuple(self._told(key, now) for key in sorted(self._heard))
        return FaustSnapshot(self._cluster, started_at, now, not read.failures, workers, failures)

    async def close(self) -> None:
        """Close the connections."""
        await self._tail.close()

    def _hear(self, worker: FaustWorker, written_at: float) -> None:
        key = (worker.consumer.name, worker.worker)
        if worker.state == "stopped":
            self._heard.pop(key, None)
            return
        if key not in self._heard and len(self._heard) >= MOST_WORKERS:
            raise RefusedError("more workers than are kept")
        # What was there before us may be old; what comes now has just been written, whatever its clock says.
        now = self._clock()
        self._heard[key] = _Heard(worker, min(written_at, now) if self._is_first else now)

    def _told(self, key: tuple[str, str], now: float) -> FaustWorker:
        heard = self._heard[key]
        age = now - heard.at
        limit = SILENT_INTERVALS * heard.worker.interval_seconds + SILENT_SECONDS
        return replace(heard.worker, report_age_seconds=max(0.0, age), is_silent=age > limit)
