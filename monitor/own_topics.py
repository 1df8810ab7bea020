"""The monitor's own topics of a cluster, beside its cycles: read and written only where they exist, never made here.

    join   put what is known from them into a report
    look   start to read and write them, each unless that is under way still

    streamgauge.faust    what Faust workers report           read
    streamgauge.rollups  the last hour of each consumer      read
    streamgauge.lag      a sample of each consumer           written

A cycle never waits for it, and none waits for another. Which topics exist is in the cycle's report, so looking for them
costs no request; making one (``streamgauge serve --create-topics``) is what switches its use on.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from monitor.model import ClusterReport, Consumer, Failure, FaustSnapshot, LastHour, SourceStatus
from monitor.publish.samples import samples
from monitor.records import LAG_TOPIC, ROLLUPS_TOPIC, Sample

log = structlog.get_logger(__name__)

FAUST_TOPIC = "streamgauge.faust"


class FaustReader(Protocol):
    """Who reads the reports of Faust workers: ``monitor.observe.faust.source.FaustSource``, or a fake in tests."""

    async def look(self) -> FaustSnapshot: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


class RollupReader(Protocol):
    """Who reads rollups: ``monitor.observe.rollups.RollupSource``, or a fake in tests."""

    async def look(self) -> tuple[dict[Consumer, LastHour], tuple[Failure, ...]]: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


class SampleWriter(Protocol):
    """Who writes samples: ``monitor.publish.topic.LagWriter``, or a fake in tests."""

    async def write(self, samples: Iterable[Sample]) -> tuple[Failure, ...]: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


@dataclass(slots=True)
class _Job:
    """Reading or writing one topic: what it is called as a source, and how it went last."""

    source: str
    topic: str
    run: Callable[[ClusterReport], Awaitable[tuple[Failure, ...]]]
    task: asyncio.Task[None] | None = None
    status: SourceStatus | None = None
    failures: tuple[Failure, ...] = ()


class OwnTopics:
    """What is known from the topics of one cluster."""

    def __init__(
        self,
        cluster: str,
        *,
        faust: FaustReader,
        rollups: RollupReader,
        lag: SampleWriter,
        interval_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._faust, self._rollups, self._lag = faust, rollups, lag
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._workers: FaustSnapshot | None = None
        self._hours: Mapping[Consumer, LastHour] = {}
        self._joined: tuple[Failure, ...] = ()
        self._failures_total: Counter[tuple[str, str]] = Counter()
        self._jobs = (
            _Job("faust", FAUST_TOPIC, self._read_workers),
            _Job("rollups", ROLLUPS_TOPIC, self._read_rollups),
            _Job("lag", LAG_TOPIC, self._write_samples),
        )

    def join(self, report: ClusterReport) -> ClusterReport:
        """Return the report with what is known; joining again changes nothing else."""
        done = [(job.status, job) for job in self._jobs if job.status is not None]
        if not done:
            return report
        names = {status.source for status, _ in done}
        others = tuple(each for each in report.failures if each not in self._joined)
        self._joined = tuple(failure for _, job in done for failure in job.failures)
        return replace(
            report,
            faust=() if self._workers is None else self._workers.workers,
            last_hour=self._hours,
            sources=(
                *(each for each in report.sources if each.source not in names),
                *(status for status, _ in done),
            ),
            failures=(*others, *self._joined),
            failures_total={**report.failures_total, **self._failures_total},
        )

    def look(self, report: ClusterReport, told: Callable[[], Awaitable[None]]) -> None:
        """Read and write in the background, for the next report; the first time of each ``told`` is awaited then."""
        for job in self._jobs:
            if job.topic in report.partitions.layout.topics and (job.task is None or job.task.done()):
                job.task = asyncio.create_task(self._run(job, report, told))

    async def close(self) -> None:
        """End what is under way and close the connections."""
        tasks = [job.task for job in self._jobs if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(self._faust.close(), self._rollups.close(), self._lag.close())

    async def _run(self, job: _Job, report: ClusterReport, told: Callable[[], Awaitable[None]]) -> None:
        started_at, is_first = self._clock(), job.status is None
        try:
            job.failures = await job.run(report)
        except Exception as exc:
            # A fault of ours here must not end the cycles that lag comes from, nor may what is stale look well.
            log.exception("own topic failed", cluster=self._cluster, topic=job.topic)
            job.failures = (Failure("topic", job.topic, type(exc).__name__, "a fault of ours: the log has more"),)
            self._forget(job)
        now, is_up = self._clock(), not any(each.error != "MALFORMED" for each in job.failures)
        before = None if job.status is None else job.status.last_success
        last_success = now if is_up else before
        job.status = SourceStatus(job.source, is_up, now, now - started_at, last_success, self._interval_seconds)
        self._failures_total.update((job.source, each.scope) for each in job.failures)
        if is_first:
            await told()

    def _forget(self, job: _Job) -> None:
        if job.source == "faust":
            self._workers = None
        elif job.source == "rollups":
            self._hours = {}

    async def _read_workers(self, _report: ClusterReport) -> tuple[Failure, ...]:
        self._workers = await self._faust.look()
        return self._workers.failures

    async def _read_rollups(self, _report: ClusterReport) -> tuple[Failure, ...]:
        self._hours, failures = await self._rollups.look()
        return failures

    async def _write_samples(self, report: ClusterReport) -> tuple[Failure, ...]:
        return await self._lag.write(samples(report))
