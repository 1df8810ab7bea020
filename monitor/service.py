"""The monitor: start, one cycle of every cluster, publish, stop.

    start -> watch every cluster: cycle -> publish -> wait for the next -> stop

A cycle reads commits, then ends, joins what is seen of Spark's queries, looks up the times of records within its
budget, derives and returns a report. Each cluster runs on its own task and interval; what is published is one
immutable reference, so that no reader of it can slow or tear a cycle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from monitor.derive.history import History
from monitor.derive.report import Observed, derive, learn, observe, wanted
from monitor.errors import UnreachableError
from monitor.model import ClusterReport, Found, KafkaSnapshot, Lookups, Report, SparkSnapshot
from monitor.settings import Cluster, Settings

if TYPE_CHECKING:
    from monitor.own_topics import OwnTopics
    from monitor.publish.http import Published

log = structlog.get_logger(__name__)


class KafkaReader(Protocol):
    """Who reads a Kafka cluster: ``monitor.observe.kafka.source.KafkaSource``, or a fake in tests."""

    async def observe(self) -> KafkaSnapshot: ...  # noqa: D102
    async def look_up(self, wanted: Lookups) -> Found: ...  # noqa: D102
    async def check(self) -> None: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


class SparkReader(Protocol):
    """Who sees a cluster's Spark queries: ``monitor.observe.spark.source.SparkSource``, or a fake."""

    async def listen(self) -> str | None: ...  # noqa: D102
    async def observe(self) -> SparkSnapshot: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Budget:
    """What a cycle may spend on record times: rounds of look-ups, one request a leader each, and seconds.

    ``cycles`` is how many cycles' worth of look-ups (the setting ``lookups_per_cycle``) it may ask.
    """

    rounds: int
    seconds: float
    cycles: int = 1


STEADY = Budget(rounds=12, seconds=2.0)
"""For a service: what one cycle leaves open, the next ones narrow."""

ONE_SHOT = Budget(rounds=60, seconds=8.0, cycles=50)
"""For a command that has one cycle to get it right."""


class ClusterMonitor:
    """One cluster: its readers, its history, its latest report."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        budget: Budget,
        kafka: KafkaReader,
        spark: SparkReader | None,
        *,
        own: OwnTopics | None = None,
    ) -> None:
        self.cluster = cluster
        self.report: ClusterReport | None = None
        self.tried = False
        self.kafka = kafka
        self._spark = spark
        self._own = own
        self._budget = budget
        self._objective_seconds = settings.objectives.seconds_for
        self._history = History()

    async def cycle(self) -> ClusterReport:
        """Observe once, look up record times within the budget, and derive the report."""
        kafka, spark = await self._observe()
        seen = observe(kafka, spark, self._history)
        await self._look_up(seen)
        report = derive(seen, self._history, self._objective_seconds, interval_seconds=self.cluster.interval_seconds)
        self.report = report if self._own is None else self._own.join(report)
        return self.report

    async def watch(self, publish: Callable[[], Awaitable[None]]) -> None:
        """Cycle for ever, starting every ``interval_seconds``; a cycle that takes longer delays the next."""
        while True:
            started = asyncio.get_running_loop().time()
            was_up = self.report.up if self.report is not None else None
            try:
                await self.cycle()
                self._log_change(was_up)
            except Exception:
                # A fault of ours about one cluster must not blind the others: its numbers go, and the log says why.
                self.report = None
                log.exception("cycle failed", cluster=self.cluster.name)
            self.tried = True
            await publish()
            self._look_at_own_topics(publish)
            await asyncio.sleep(max(0.0, self.cluster.interval_seconds - (asyncio.get_running_loop().time() - started)))

    async def listen(self) -> None:
        """Take what Spark jobs send by HTTP, if the settings say where.

        Raises:
            UnreachableError: it cannot be listened on.
        """
        address = await self._spark.listen() if self._spark is not None else None
        if address is not None:
            log.info("listening for Spark's events", cluster=self.cluster.name, address=address)

    async def close(self) -> None:
        """Close every connection."""
        if self._own is not None:
            await self._own.close()
        if self._spark is not None:
            await self._spark.close()
        await self.kafka.close()

    def _look_at_own_topics(self, publish: Callable[[], Awaitable[None]]) -> None:
        own, report = self._own, self.report
        if own is None or report is None:
            return

        async def told() -> None:
            if self.report is not None:
                self.report = own.join(self.report)
                await publish()

        own.look(report, told)

    def _log_change(self, was_up: bool | None) -> None:
        report = self.report
        if report is None or report.up is was_up:
            return
        if report.up:
            log.info("cluster read in full", cluster=report.name)
        else:
            first = report.failures[0].detail if report.failures else ""
            log.warning("cluster not read in full", cluster=report.name, failures=len(report.failures), first=first)

    async def _observe(self) -> tuple[KafkaSnapshot, SparkSnapshot | None]:
        if self._spark is None:
            return await self.kafka.observe(), None
        # Spark's positions are commits: they are read before Kafka's log ends, as commits are.
        spark = await self._spark.observe()
        return await self.kafka.observe(), spark

    async def _look_up(self, seen: Observed) -> None:
        deadline = asyncio.get_running_loop().time() + self._budget.seconds
        left = self.cluster.lookups_per_cycle * self._budget.cycles
        for _ in range(self._budget.rounds):
            questions = wanted(seen, self._history, left)
            if questions is None or asyncio.get_running_loop().time() > deadline:
                return
            learn(await self.kafka.look_up(questions), self._history)
            left -= len(questions)


class Monitor:
    """All clusters of the settings. ``cycle`` is the whole of a one-shot command; ``watch`` never ends."""

    def __init__(self, settings: Settings, *, budget: Budget = STEADY) -> None:
        self.settings = settings
        self.clusters = [_cluster_monitor(cluster, settings, budget) for cluster in settings.clusters]

    async def check(self) -> None:
        """Make sure that at least one cluster answers.

        Raises:
            UnreachableError: none does; the text says of each what was tried and what to do.
        """
        answers = await asyncio.gather(*(each.kafka.check() for each in self.clusters), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        for answer in failed:
            if not isinstance(answer, UnreachableError):
                raise answer
        if len(failed) == len(self.clusters):
            raise UnreachableError("; ".join(str(answer) for answer in failed)) from failed[0]

    async def cycle(self) -> Report:
        """Run one cycle of every cluster, all at once, and return the report."""
        await asyncio.gather(*(each.cycle() for each in self.clusters))
        return self.report()

    def report(self) -> Report:
        """Return the latest report of every cluster that has one."""
        reports = tuple(each.report for each in self.clusters if each.report is not None)
        return Report(max((each.at for each in reports), default=0.0), reports)

    def is_complete(self) -> bool:
        """Return whether every cluster has answered or failed once."""
        return all(each.tried for each in self.clusters)

    async def watch(self, publish: Callable[[], Awaitable[None]]) -> None:
        """Run every cluster's cycles at its interval and call ``publish`` after each; ends only by cancellation."""
        async with asyncio.TaskGroup() as group:
            for each in self.clusters:
                group.create_task(each.watch(publish))

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(each.close() for each in self.clusters))


class Publisher:
    """What is served: the latest report and its exposition, swapped as one reference."""

    def __init__(self, monitor: Monitor) -> None:
        from monitor.publish.exposition import Exposition  # noqa: PLC0415 (not needed by one-shot commands)
        from monitor.publish.http import HttpServer  # noqa: PLC0415
        from monitor.publish.trail import Trail  # noqa: PLC0415

        self._monitor = monitor
        self._exposition = Exposition(monitor.settings.metrics)
        self._trail = Trail()
        self._latest: Published | None = None
        self._one_at_a_time = asyncio.Lock()
        http = monitor.settings.http
        self._server = HttpServer(http.host, http.port, lambda: self._latest, trail=self._trail)

    async def start(self) -> str:
        """Listen, and return the address of the status page."""
        host, port = await self._server.start()
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    async def publish(self) -> None:
        """Render the latest report and serve it from now on."""
        from monitor.publish.http import Published  # noqa: PLC0415

        async with self._one_at_a_time:
            report, complete = self._monitor.report(), self._monitor.is_complete()
            # In a thread: a scrape must be answered at once, however large the next exposition is.
            rendered = await asyncio.to_thread(self._exposition.render, report)
            self._trail.note(report)
            self._latest = Published(report, rendered, complete)

    async def stop(self) -> None:
        """Stop listening."""
        await self._server.stop()


async def serve(settings: Settings, *, on_ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Run the monitor until ``stop`` is set; ``on_ready`` gets the address of the status page once it answers.

    Raises:
        StreamgaugeError: the HTTP port cannot be listened on.
    """
    monitor = Monitor(settings)
    for each in monitor.clusters:
        await each.listen()
    publisher = Publisher(monitor)
    on_ready(await publisher.start())
    watching = asyncio.create_task(monitor.watch(publisher.publish))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching  # it never ends by itself: this raises what ended it
    finally:
        for task in (watching, stopping):
            task.cancel()
        await asyncio.gather(watching, stopping, return_exceptions=True)
        await publisher.stop()
        await monitor.close()


def _cluster_monitor(cluster: Cluster, settings: Settings, budget: Budget) -> ClusterMonitor:
    from monitor.observe.kafka.source import KafkaSource  # noqa: PLC0415 (numpy and aiokafka cost start-up time)

    spark: SparkReader | None = None
    if cluster.spark or cluster.spark_events or cluster.spark_drivers:
        from monitor.observe.spark.source import SparkSource  # noqa: PLC0415

        spark = SparkSource(cluster)
    own = _own_topics(cluster) if budget is STEADY and cluster.own_topics else None
    return ClusterMonitor(cluster, settings, budget, KafkaSource(cluster), spark, own=own)


def _own_topics(cluster: Cluster) -> OwnTopics:
    from monitor.observe.faust.source import FaustSource  # noqa: PLC0415 (not needed by one-shot commands)
    from monitor.observe.kafka.clients import client_options  # noqa: PLC0415
    from monitor.observe.rollups import RollupSource  # noqa: PLC0415
    from monitor.own_topics import OwnTopics  # noqa: PLC0415
    from monitor.publish.topic import LagWriter  # noqa: PLC0415

    return OwnTopics(
        cluster.name,
        faust=FaustSource(cluster),
        rollups=RollupSource(cluster),
        lag=LagWriter(client_options(cluster), cluster.timeout_seconds),
        interval_seconds=cluster.interval_seconds,
    )
