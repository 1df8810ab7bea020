"""What a Spark driver's web interface tells, by its REST API: the batch in flight, its tasks, executors; DStreams.

    applications -> of each that runs: running jobs, executors, streaming statistics -> queries, applications

Structured Streaming has no resource there. But each job that a batch runs carries who it is of, as lines in its
description: name, id, runId, batch. So a batch that hangs, of which a listener hears nothing, has its number, its age
(since its oldest running job was submitted) and the progress of its tasks here. Between batches a query has no job, and
only what is of the whole application is known of it. Nothing here tells offsets.

A DStream application has a resource (``streaming/``). It is shown as a query of its own, under the application's name
and id: its batches, how long they waited (phase ``schedulingDelay``) and took, and the oldest that waits or runs.

Answers are untrusted in size and shape: bounded in bytes, and what is not as expected is unknown. Paths that a release
does not know may be answered with 200 and a page in HTML: the content type decides.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from monitor.model import Consumer, Failure, Kind, SparkBatch, SparkDriver, SparkQuery
from monitor.observe.spark.listener import a_count, a_list, a_number, a_text, a_time, an_object
from monitor.settings import Cluster

if TYPE_CHECKING:
    import aiohttp

LARGEST_ANSWER = 8_000_000
"""In bytes; a thousand jobs have 0.8 MB."""

MOST_APPLICATIONS = 20
"""Of one address. A driver has one; a history server has all that ever were, and is no driver."""

MOST_JOBS = 1_000
MOST_QUERIES = 1_000
REMEMBER_SECONDS = 600.0
"""How long an application's queries are remembered that have no job right now."""

_WHO = re.compile(r"\Aid = (?P<id>[0-9a-f-]{36})\nrunId = (?P<run>[0-9a-f-]{36})\nbatch = (?P<batch>\d{1,18}|init)\Z")

Json = Any


class DriverError(Exception):
    """A driver could not be asked; ``error`` is the short name of why."""

    def __init__(self, error: str, detail: str) -> None:
        self.error = error
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class DriverQuery:
    """What a driver shows of a query. ``since`` is when the oldest running job of its batch was submitted."""

    query_id: str
    run_id: str
    name: str | None
    driver: SparkDriver
    since: float | None = None


@dataclass(slots=True)
class DriverLook:
    """One look at every driver: queries by id, DStream applications, and what failed."""

    queries: dict[str, DriverQuery] = field(default_factory=dict)
    applications: list[SparkQuery] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


# --- reading ----------------------------------------------------------------------------------------


def a_rest_time(value: object) -> float | None:
    """Return seconds since the epoch of a time as Spark's API writes it, ``2026-11-22T07:40:12.485GMT``."""
    return a_time(value[:-3] + "Z") if isinstance(value, str) and value.endswith("GMT") else None


def running_applications(answer: Json) -> list[tuple[str, str]]:
    """Return id and name of each application whose last attempt goes on."""
    found = []
    for each in a_list(answer, 10_000):
        application = an_object(each)
        attempts = a_list(application.get("attempts"), 100)
        app_id = a_text(application.get("id"))
        if app_id and not (attempts and an_object(attempts[0]).get("completed")):
            found.append((app_id, a_text(application.get("name")) or app_id))
    return found[:MOST_APPLICATIONS]


def whose(description: object) -> tuple[str | None, str, str, int | None] | None:
    """Return name, query id, run id and batch of a job's description; None where it is of no streaming query.

    The name is whatever the user chose, line breaks and all: what follows it is at the end.
    """
    if not isinstance(description, str) or len(description) > 10_000:  # noqa: PLR2004
        return None
    start = description.rfind("id = ", 0, description.rfind("runId = "))
    found = _WHO.match(description[start:]) if start >= 0 else None
    if found is None:
        return None
    name = a_text(description[:start].removesuffix("\n"))
    return name, found["id"], found["run"], None if found["batch"] == "init" else int(found["batch"])


def running_queries(answer: Json, whole: SparkDriver) -> dict[str, DriverQuery]:
    """Return the queries that run jobs, each with the tasks of its batch; ``whole`` is what is of the application."""
    found: dict[str, DriverQuery] = {}
    for each in a_list(answer, MOST_JOBS):
        job = an_object(each)
        who = whose(job.get("description"))
        if who is None or job.get("status") != "RUNNING":
            continue
        name, query_id, run_id, batch = who
        before = found.get(query_id) or DriverQuery(query_id, run_id, name, replace(whole, batch_id=batch))
        submitted = a_rest_time(job.get("submissionTime"))
        found[query_id] = replace(
            before,
            driver=replace(
                before.driver,
                tasks=_sum(before.driver.tasks, job.get("numTasks")),
                tasks_done=_sum(before.driver.tasks_done, job.get("numCompletedTasks")),
                tasks_running=_sum(before.driver.tasks_running, job.get("numActiveTasks")),
                tasks_failed=_sum(before.driver.tasks_failed, job.get("numFailedTasks")),
            ),
            since=min((at for at in (before.since, submitted) if at is not None), default=None),
        )
    return found


def _sum(so_far: int | None, value: object) -> int | None:
    count = a_count(value)
    return so_far if count is None else (so_far or 0) + count


@dataclass(frozen=True, slots=True)
class Executors:
    """The executors of an application: how many are active, their cores, task and collection seconds so far."""

    active: int
    cores: int
    task_seconds: float
    gc_seconds: float


def executors(answer: Json) -> Executors:
    """Read the executors. A driver that runs tasks itself (local mode) counts as one; else it is none."""
    rows = [an_object(each) for each in a_list(answer, 100_000)]
    workers = [row for row in rows if row.get("id") != "driver" or a_count(row.get("totalCores"))]
    active = [row for row in workers if row.get("isActive") is True]
    return Executors(
        active=len(active),
        cores=sum(a_count(row.get("totalCores")) or 0 for row in active),
        task_seconds=sum(a_number(row.get("totalDuration")) or 0.0 for row in workers) / 1000,
        gc_seconds=sum(a_number(row.get("totalGCTime")) or 0.0 for row in workers) / 1000,
    )


def gc_ratio(now: Executors, before: Executors | None) -> float | None:
    """Return the share of task time spent collecting garbage since the last look; None without any task time."""
    task = now.task_seconds - (before.task_seconds if before else 0.0)
    gc = now.gc_seconds - (before.gc_seconds if before else 0.0)
    # Executors that are gone take their sums along: then there is no difference to speak of.
    return min(1.0, gc / task) if task > 0 and gc >= 0 else None


def stage_times(answer: Json) -> tuple[float | None, float | None, int | None]:
    """Return median and longest task seconds of a stage with summaries of 0.5 and 1.0, and the bytes it spilled."""
    stage = an_object(a_list(answer, 10)[-1]) if a_list(answer, 10) else {}
    run = a_list(an_object(stage.get("taskMetricsDistributions")).get("executorRunTime"), 2)
    middle, longest = (a_number(each) for each in run) if len(run) == 2 else (None, None)  # noqa: PLR2004
    spilled = a_count(stage.get("diskBytesSpilled"))
    return (
        None if middle is None else middle / 1000,
        None if longest is None else longest / 1000,
        spilled,
    )


def stages_of(answer: Json, query_id: str) -> list[int]:
    """Return the stages of a query's running jobs, the latest first."""
    found = []
    for each in a_list(answer, MOST_JOBS):
        who = whose(an_object(each).get("description"))
        if who is not None and who[1] == query_id:
            found += [stage for stage in a_list(an_object(each).get("stageIds"), 100) if a_count(stage) is not None]
    return sorted(found, reverse=True)


def dstream(app_id: str, name: str, statistics: Json, batches: Json, driver: SparkDriver) -> SparkQuery:
    """Return a DStream application as a query: its completed batches, and the oldest that waits or runs."""
    rows = [an_object(each) for each in a_list(batches, 1_000)]
    done = [batch for batch in (_dstream_batch(row) for row in rows if row.get("status") == "COMPLETED") if batch]
    waiting = [
        (number, at)
        for row in rows
        if a_text(row.get("status")) in {"QUEUED", "PROCESSING"}
        and (number := a_count(row.get("batchId"))) is not None
        and (at := a_rest_time(row.get("batchTime"))) is not None
    ]
    oldest = min(waiting, default=(None, None))
    interval = a_number(an_object(statistics).get("batchDuration"))
    done.sort(key=lambda batch: batch.batch_id)
    return SparkQuery(
        consumer=Consumer(Kind.SPARK, name),
        query_id=app_id,
        checkpoint=f"application {app_id}",
        observed_at=driver.at,
        committed={},
        planned={},
        batch_id=done[-1].batch_id if done else None,
        batches=tuple(done[-100:]),
        inflight_batch_id=oldest[0],
        inflight_planned_at=oldest[1],
        trigger_interval_seconds=interval / 1000 if interval else None,
        seen_by=("driver",),
        alive_at=driver.at,
        driver=driver,
    )


def _dstream_batch(row: Mapping[str, Any]) -> SparkBatch | None:
    number, at = a_count(row.get("batchId")), a_rest_time(row.get("batchTime"))
    took, delay = a_number(row.get("processingTime")), a_number(row.get("schedulingDelay"))
    if number is None or at is None or took is None:
        return None
    phases = {"processingTime": took / 1000} | ({} if delay is None else {"schedulingDelay": delay / 1000})
    return SparkBatch(
        batch_id=number,
        planned_at=at,
        committed_at=at + (took + (delay or 0.0)) / 1000,
        duration_seconds=took / 1000,
        input_rows=a_count(row.get("inputSize")),
        phases=phases,
    )


# --- asking -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Application:
    """What is kept of an application between looks."""

    executors: Executors | None = None
    queries: OrderedDict[str, tuple[DriverQuery, float]] = field(default_factory=OrderedDict)


class DriverSource:
    """Asks every driver that the settings of a cluster name, all at once, each within ``timeout_seconds``."""

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.time) -> None:
        self._urls = [each.url.rstrip("/") for each in cluster.spark_drivers]
        self._seconds = cluster.timeout_seconds
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._kept: dict[tuple[str, str], _Application] = {}

    async def look(self) -> DriverLook:
        """Look at every driver once. One that does not answer is an entry."""
        import aiohttp  # noqa: PLC0415 (only where there are drivers)

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._seconds))
        look = DriverLook()
        await asyncio.gather(*(self._ask(url, look) for url in self._urls))
        return look

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, url: str, look: DriverLook) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                running = running_applications(await self._get(url, "applications"))
                for app_id, name in running:
                    await self._ask_of(url, app_id, name, look)
        except TimeoutError:
            detail = f"{url} did not answer within {self._seconds:g} s"
            look.failures.append(Failure("driver", url, "TIMEOUT", detail))
        except DriverError as exc:
            look.failures.append(Failure("driver", url, exc.error, str(exc)))
        else:
            here = {app_id for app_id, _ in running}
            self._kept = {key: kept for key, kept in self._kept.items() if key[0] != url or key[1] in here}

    async def _ask_of(self, url: str, app_id: str, name: str, look: DriverLook) -> None:
        kept = self._kept.setdefault((url, app_id), _Application())
        base = f"applications/{quote(app_id, safe='')}"
        jobs = await self._get(url, f"{base}/jobs?status=running")
        all_executors = executors(await self._get(url, f"{base}/executors"))
        now = self._clock()
        whole = SparkDriver(
            at=now,
            executors=all_executors.active,
            cores=all_executors.cores,
            gc_ratio=gc_ratio(all_executors, kept.executors),
        )
        kept.executors = all_executors
        running = running_queries(jobs, whole)
        for query_id, query in list(running.items())[:MOST_QUERIES]:
            running[query_id] = await self._with_stage(url, base, query, stages_of(jobs, query_id))
        look.queries |= _remembered(kept, running, whole)
        statistics = await self._get(url, f"{base}/streaming/statistics", or_none=True)
        if statistics is not None:
            batches = await self._get(url, f"{base}/streaming/batches", or_none=True)
            look.applications.append(dstream(app_id, name, statistics, batches, whole))

    async def _with_stage(self, url: str, base: str, query: DriverQuery, stages: Sequence[int]) -> DriverQuery:
        """Return a query with the task times of the latest stage that has finished tasks."""
        for stage in stages[:2]:
            answer = await self._get(url, f"{base}/stages/{stage}?withSummaries=true&quantiles=0.5,1.0", or_none=True)
            middle, longest, spilled = stage_times(answer)
            if longest is not None:
                driver = replace(
                    query.driver, median_task_seconds=middle, longest_task_seconds=longest, spilled_bytes=spilled
                )
                return replace(query, driver=driver)
        return query

    async def _get(self, url: str, path: str, *, or_none: bool = False) -> Json:
        """Return what an address answers; None for what it does not have, if that is allowed."""
        import aiohttp  # noqa: PLC0415

        assert self._session is not None  # noqa: S101 (look makes it)
        whole = f"{url}/api/v1/{path}"
        try:
            async with self._session.get(whole, headers={"Accept": "application/json"}) as answer:
                if answer.status == 404 and or_none:  # noqa: PLR2004
                    return None
                if answer.status != 200:  # noqa: PLR2004
                    raise DriverError("REFUSED", f"{whole} answers {answer.status} {answer.reason}")
                if "json" not in answer.content_type:
                    if or_none:
                        return None
                    raise DriverError("MALFORMED", f"{whole} answers {answer.content_type}: is it a Spark driver's?")
                body = await _read(answer.content, whole)
        except aiohttp.ClientError as exc:
            raise DriverError("UNREACHABLE", f"{whole}: {exc}") from exc
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise DriverError("MALFORMED", f"{whole} answers what is not JSON") from exc


async def _read(content: aiohttp.StreamReader, whole: str) -> bytes:
    parts, size = [], 0
    async for part in content.iter_any():
        size += len(part)
        if size > LARGEST_ANSWER:
            raise DriverError("MALFORMED", f"{whole} answers more than {LARGEST_ANSWER:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _remembered(kept: _Application, running: dict[str, DriverQuery], whole: SparkDriver) -> dict[str, DriverQuery]:
    """Return the queries that run jobs, and those that did a while ago with what is of the application."""
    for query_id, query in running.items():
        kept.queries[query_id] = (query, whole.at)
        kept.queries.move_to_end(query_id)
    for query_id, (_, at) in list(kept.queries.items()):
        if whole.at - at > REMEMBER_SECONDS or len(kept.queries) > MOST_QUERIES:
            del kept.queries[query_id]
    resting = {
        query_id: DriverQuery(query_id, query.run_id, query.name, whole)
        for query_id, (query, _) in kept.queries.items()
    }
    return {**resting, **running}


def is_later(batch_id: int | None, than: int | None) -> bool:
    """Return whether a batch comes after another one, None being before all."""
    return batch_id is not None and batch_id > (-math.inf if than is None else than)
