"""The monitor's own topics of a cluster, beside its cycles: read and written only where they exist, never made here.

    join   put what is known from them into a report
    look   start to read and write them, unless that is under way still

A cycle never waits for it. Which topics exist is in the cycle's report, so looking for them costs no request; making
one (``streamgauge serve --create-topics``) is what switches its use on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import structlog

from monitor.model import ClusterReport, Failure, FaustSnapshot, SourceStatus

log = structlog.get_logger(__name__)

FAUST_TOPIC = "streamgauge.faust"


class FaustReader(Protocol):
    """Who reads the reports of Faust workers: ``monitor.observe.faust.source.FaustSource``, or a fake in tests."""

    async def look(self) -> FaustSnapshot: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


class OwnTopics:
    """What is known from the topics of one cluster."""

    def __init__(self, cluster: str, *, faust: FaustReader, interval_seconds: float | None = None) -> None:
        self._cluster = cluster
        self._faust = faust
        self._interval_seconds = interval_seconds
        self._workers: FaustSnapshot | None = None
        self._last_success: float | None = None
        self._failures_total: Counter[tuple[str, str]] = Counter()
        self._looking: asyncio.Task[None] | None = None

    def join(self, report: ClusterReport) -> ClusterReport:
        """Return the report with what is known."""
        workers = self._workers
        if workers is None:
            return report
        status = SourceStatus(
            "faust",
            workers.up,
            workers.at,
            workers.at - workers.started_at,
            self._last_success,
            self._interval_seconds,
        )
        failures = tuple(each for each in report.failures if each not in workers.failures)
        return replace(
            report,
            faust=workers.workers,
            sources=(*(each for each in report.sources if each.source != "faust"), status),
            failures=(*failures, *workers.failures),
            failures_total={**report.failures_total, **self._failures_total},
        )

    def look(self, report: ClusterReport, told: Callable[[], Awaitable[None]]) -> None:
        """Read what is new in the background, for the next report; the first time ``told`` is awaited then."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(set(report.partitions.layout.topics), told))

    async def _look(self, topics: set[str], told: Callable[[], Awaitable[None]]) -> None:
        try:
            if FAUST_TOPIC in topics:
                is_first = self._workers is None
                self._take(await self._faust.look())
                if is_first:
                    await told()
        except Exception:
            # A fault of ours here must not end the cycles that lag comes from.
            self._workers = None
            log.exception("reading own topics failed", cluster=self._cluster)

    def _take(self, workers: FaustSnapshot) -> None:
        self._workers = workers
        if workers.up:
            self._last_success = workers.at
        self._count(workers.failures)

    def _count(self, failures: tuple[Failure, ...]) -> None:
        self._failures_total.update(("faust", each.scope) for each in failures)

    async def close(self) -> None:
        """End what is under way and close the connections."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._faust.close()
