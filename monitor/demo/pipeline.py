"""The pipeline of the demo: Kafka, a load, two consumer groups, a Faust app, a Spark query, the monitor and its memory.

    load -> topic readings -> groups billing and shipping, the Faust app, the Spark query
    all of them -> the monitor -> status page, /metrics, /api/v1/report
    the monitor -> topic streamgauge.lag -> the rollup worker -> topic streamgauge.rollups -> the monitor

Everything is real: the processors are the ones that are shipped, in processes of their own, and the monitor is
the service as ``streamgauge serve`` runs it, at a shorter interval. Kafka comes first; the others start side by
side, because Spark takes as long as all the rest together.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

import processors
from monitor import service
from monitor.demo.records import DemoReadings
from monitor.demo.stage import Stage
from monitor.errors import SandboxError, StreamgaugeError
from monitor.model import Consumer as Reader
from monitor.model import Kind
from monitor.operate.own_topics import make_own_topics
from monitor.records import LAG_TOPIC, ROLLUPS_TOPIC
from monitor.sandbox import jars
from monitor.sandbox.java import QUICK, Java, find_java
from monitor.sandbox.kafka import KafkaSandbox, telling
from monitor.sandbox.loads import Consumer, Producer, create_topics
from monitor.sandbox.process import Child, spawn
from monitor.settings import Cluster, Http, Objective, Objectives, Settings, SparkCheckpoints

TOPIC = "readings"
RESULTS = "readings-averages"
PARTITIONS = 4
RATE = 50.0
"""Records a second: visible movement that a laptop does not notice."""

BILLING = Reader(Kind.GROUP, "billing")
SHIPPING = Reader(Kind.GROUP, "shipping")
FAUST = Reader(Kind.GROUP, "streamgauge-readings")
SPARK = Reader(Kind.SPARK, "readings-average-5m")
ROLLUPS = Reader(Kind.GROUP, "streamgauge-rollups")
ROLLUPS_APP = "processors.agents.rollups:app"

FULL_SPEED = 2000.0
SLOW_SPEED = 20.0
"""Of the group shipping while it is slowed: its lag grows by the rate less this."""

SESSION_SECONDS = 45.0
"""Session timeout of the groups (Kafka's default): a pause of the whole machine does not throw them out."""

INTERVAL_SECONDS = 1.0
"""Of the monitor: a person watches."""

DEFAULT_PORT = 9760
PORTS_TRIED = 20

TRIGGER_SECONDS = 3
"""Of the Spark query: longer than its batches take, short enough to watch."""

WORKER_READY_SECONDS = 90.0
SPARK_READY_SECONDS = 180.0
"""It takes 20 s on two idle cores, and two minutes where others use them as well."""
STOP_SECONDS = 4.0
"""How long a process may take to end by itself before it is killed: one that still starts does not listen."""

POLL_SECONDS = 0.25

FAUST_PART = f"Faust app {FAUST.name}"
SPARK_PART = f"Spark query {SPARK.name}"
ROLLUPS_PART = f"rollup worker {ROLLUPS.name}"
PARTS = {FAUST: FAUST_PART, SPARK: SPARK_PART, ROLLUPS: ROLLUPS_PART}
"""What the parts that are processes of their own are called."""

SPARK_JOB = Path(processors.__path__[0], "spark", "jobs", "readings_average.py")

STREAMGAUGE = (sys.executable, "-c", "from monitor.cli.main import main; main()")
"""The streamgauge command, of this very installation."""


class Unavailable(Exception):  # noqa: N818 (it is no error)
    """This machine cannot run a part; the text says why."""


@dataclass(frozen=True, slots=True)
class SparkNeeds:
    """What the Spark query runs with."""

    java: Java
    jars: tuple[Path, ...]


class Pipeline:
    """All parts between ``start`` and ``stop``; ``stage`` knows which were skipped or failed."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        port: int | None = None,
        progress: Callable[[jars.Progress], None] | None = None,
    ) -> None:
        self.stage = Stage(say)
        self.folder = Path(tempfile.mkdtemp(prefix="streamgauge-demo-"))
        self.kafka = KafkaSandbox(progress=progress)
        self.url = ""
        self.is_started = False
        self.children: dict[Reader, Child] = {}
        self.producer: Producer
        self.billing: Consumer
        self.shipping: Consumer
        self._port = port
        self._progress = progress
        self._stop_monitor = asyncio.Event()
        self._monitor: asyncio.Task[None] | None = None
        self._dead: set[Reader] = set()

    @property
    def checkpoint(self) -> Path:
        """Return the folder where the Spark query keeps its position."""
        return self.folder / "checkpoints" / SPARK.name

    async def start(self) -> None:
        """Start everything, and return when each part runs or has said that it failed or was skipped.

        Raises:
            StreamgaugeError: Kafka, a load or the monitor does not start: there is nothing to show then.
        """
        if self._port:
            _refuse_taken(self._port)
        self.stage.at_end("Kafka", self.kafka.stop)
        # Spark's jars may have to be fetched: that and Kafka's start overlap.
        needs = asyncio.create_task(self._spark_needs())
        self.stage.at_end("what Spark needs", lambda: _cancelled(needs))
        await self.stage.start(f"Kafka {self.kafka.version}", self._start_kafka)
        await self.stage.start(f"topic {TOPIC}", self._create_topic)
        await self.stage.start("the monitor's own topics", self._make_own_topics)
        await self.stage.start("load", self._start_producer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.stage.start(f"group {BILLING.name}", self._start_billing))
                tasks.create_task(self.stage.start(f"group {SHIPPING.name}", self._start_shipping))
                tasks.create_task(self.stage.start("monitor", self._start_monitor))
                tasks.create_task(self.stage.try_start(FAUST_PART, self._start_faust))
                tasks.create_task(self.stage.try_start(ROLLUPS_PART, self._start_rollups))
                tasks.create_task(self._try_start_spark(needs))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        self.is_started = True

    async def stop(self) -> None:
        """End every part; the folder with the logs goes, unless a part failed."""
        self.stage.say("\nStopping everything.")
        await self.stage.end_all()
        if self.stage.failed:
            self.stage.say(f"The logs are kept in {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ended(self) -> list[str]:
        """Return a line for each part that has ended by itself since the last call.

        Raises:
            StreamgaugeError: Kafka or the monitor has ended: there is nothing to show any more.
        """
        if self._monitor is not None and self._monitor.done():
            self._monitor.result()
        for node in self.kafka.nodes:
            if node.pid is None:
                raise SandboxError(node.ending())
        new = [
            who
            for who, child in self.children.items()
            if not child.running and who not in self._dead and PARTS[who] not in self.stage.failed
        ]
        self._dead.update(new)
        return [f"{PARTS[who]} {_ending(self.children[who])}" for who in new]

    # --- the parts, in the order in which they start -------------------------------------------------

    async def _start_kafka(self) -> str:
        await self.kafka.start()
        return self.kafka.bootstrap

    async def _create_topic(self) -> str:
        await create_topics(self.kafka.bootstrap, {TOPIC: PARTITIONS})
        return f"{PARTITIONS} partitions"

    async def _make_own_topics(self) -> str:
        """Make what switches on the reports of workers and the rollups, before anybody looks for it."""
        made = await make_own_topics(self.settings(0).clusters[0])
        return f"{len(made)} topics, streamgauge.*"

    async def _start_producer(self) -> str:
        self.producer = Producer(self.kafka.bootstrap, TOPIC, RATE, PARTITIONS, value=DemoReadings(PARTITIONS))
        self.stage.at_end("load", self.producer.stop)
        await self.producer.start()
        return f"{RATE:g} records a second"

    async def _start_billing(self) -> str:
        self.billing = self._consumer(BILLING.name)
        await self.billing.start()
        return "keeps up"

    async def _start_shipping(self) -> str:
        self.shipping = self._consumer(SHIPPING.name)
        await self.shipping.start()
        return "will be slowed on schedule"

    def _consumer(self, group: str) -> Consumer:
        consumer = Consumer(self.kafka.bootstrap, group, TOPIC, FULL_SPEED, session_timeout_seconds=SESSION_SECONDS)
        self.stage.at_end(f"group {group}", consumer.close)
        return consumer

    async def _start_monitor(self) -> str:
        """Serve on the port asked for, or else on the first free one from the default on."""
        self.stage.at_end("monitor", self._end_monitor)
        if self._port is not None:
            self.url = await self._serve(self._port)
            return self.url
        for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
            try:
                self.url = await self._serve(port)
            except StreamgaugeError as exc:
                if not _is_taken(exc):
                    raise
            else:
                return self.url if port == DEFAULT_PORT else f"{self.url} (port {DEFAULT_PORT} is taken)"
        last = DEFAULT_PORT + PORTS_TRIED - 1
        msg = f"cannot serve HTTP: every port from {DEFAULT_PORT} to {last} is taken; name another with --port"
        raise StreamgaugeError(msg)

    async def _serve(self, port: int) -> str:
        """Start the service on a port and return the address of its page."""
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def serves(address: str) -> None:
            if not ready.done():  # cancelled: the demo was told to end meanwhile
                ready.set_result(address)

        self._monitor = asyncio.create_task(
            service.serve(self.settings(port), on_ready=serves, stop=self._stop_monitor)
        )
        self._monitor.add_done_callback(lambda _: ready.cancel())
        try:
            return await ready
        except asyncio.CancelledError:
            if self._monitor.done():
                self._monitor.result()  # what ended it before it served
            raise

    async def _end_monitor(self) -> None:
        self._stop_monitor.set()
        if self._monitor is not None:
            await asyncio.wait({self._monitor})

    def settings(self, port: int) -> Settings:
        """Return the monitor's settings."""
        cluster = Cluster(
            name="demo",
            bootstrap_servers=self.kafka.bootstrap,
            interval_seconds=INTERVAL_SECONDS,
            metadata_interval_seconds=5.0,
            describe_interval_seconds=5.0,
            spark=(
                SparkCheckpoints(path=str(self.checkpoint), name="{folder}", trigger_interval_seconds=TRIGGER_SECONDS),
            ),
        )
        objectives = Objectives(consumers=(Objective(consumer=SHIPPING.name, seconds=10.0),))
        return Settings(clusters=(cluster,), objectives=objectives, http=Http(port=port))

    async def _start_faust(self) -> str:
        child = self._spawn(FAUST, [*STREAMGAUGE, "worker", "--bootstrap-servers", self.kafka.bootstrap], {})
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)

        async def has_committed() -> bool:
            try:
                await admin.start()
                return bool(await admin.list_consumer_group_offsets(FAUST.name))
            except (KafkaError, OSError):
                return False  # its coordinator is being made: asked again until the deadline

        try:
            await _until(has_committed, child, WORKER_READY_SECONDS)
        finally:
            await admin.close()
        return f"{TOPIC} -> {RESULTS}"

    async def _start_rollups(self) -> str:
        """Start the worker; it says in a line which partitions it was assigned."""
        command = [*STREAMGAUGE, "worker", "--app", ROLLUPS_APP, "--bootstrap-servers", self.kafka.bootstrap]
        child = self._spawn(ROLLUPS, command, {})
        assigned = f"{ROLLUPS.name} reads {LAG_TOPIC}".encode()

        async def is_assigned() -> bool:
            return assigned in child.log.read_bytes()

        await _until(is_assigned, child, WORKER_READY_SECONDS)
        return f"{LAG_TOPIC} -> {ROLLUPS_TOPIC}"

    async def _spark_needs(self) -> SparkNeeds:
        """Find what the query runs with.

        Raises:
            Unavailable: this machine cannot run it.
            SandboxError: the jars cannot be fetched.
        """
        if find_spec("pyspark") is None:
            raise Unavailable("pyspark is not installed (streamgauge[spark] brings it)")
        try:
            java = await asyncio.to_thread(find_java, full=True)
        except SandboxError as exc:
            raise Unavailable(str(exc)) from exc
        return SparkNeeds(java, await jars.resolve(jars.SPARK_KAFKA, self._progress))

    async def _try_start_spark(self, needs: asyncio.Task[SparkNeeds]) -> None:
        try:
            await self.stage.try_start(SPARK_PART, lambda: self._start_spark(needs))
        except Unavailable as exc:
            self.stage.skip(SPARK_PART, str(exc))

    async def _start_spark(self, needs: asyncio.Task[SparkNeeds]) -> str:
        found = await needs
        command = [
            sys.executable, str(SPARK_JOB),
            "--bootstrap-servers", self.kafka.bootstrap,
            "--checkpoint", str(self.checkpoint),
            "--jars", ",".join(map(str, found.jars)),
            "--trigger-seconds", str(TRIGGER_SECONDS),
        ]  # fmt: skip
        # What spark-submit adds to the options of its Java, and pyspark runs spark-submit.
        quick = " ".join((*QUICK, os.environ.get("SPARK_SUBMIT_OPTS", "")))
        child = self._spawn(SPARK, command, {"JAVA_HOME": str(found.java.home), "SPARK_SUBMIT_OPTS": quick})

        async def has_committed() -> bool:
            return any(self.checkpoint.glob("commits/[0-9]*"))

        await _until(has_committed, child, SPARK_READY_SECONDS)
        return f"{TOPIC}, its position in a checkpoint folder"

    def _spawn(self, who: Reader, command: list[str], environment: dict[str, str]) -> Child:
        """Start a process of its own that ends with this one; its output goes to a log in the folder."""
        temporary = {"TMPDIR": str(self.folder), "SPARK_LOCAL_DIRS": str(self.folder)}
        environment = {**os.environ, **temporary, **environment}
        child = spawn(command, log=self.folder / f"{who.name}.log", env=environment, cwd=self.folder)
        self.children[who] = child
        self.stage.at_end(PARTS[who], lambda: child.stop(STOP_SECONDS))
        return child


async def _until(is_ready: Callable[[], Awaitable[bool]], child: Child, wait_seconds: float) -> None:
    """Wait until a child is ready.

    Raises:
        SandboxError: it ends before, or takes too long; quotes its log.
    """
    deadline = time.monotonic() + wait_seconds
    while not await is_ready():
        if not child.running:
            raise SandboxError(_ending(child))
        if time.monotonic() > deadline:
            msg = f"not ready after {wait_seconds:g} s: {telling(child.log)} (log: {child.log})"
            raise SandboxError(msg)
        await asyncio.sleep(POLL_SECONDS)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it is over."""
    task.cancel()
    await asyncio.wait({task})


def _ending(child: Child) -> str:
    return f"ended with status {child.returncode}: {telling(child.log)} (log: {child.log})"


def _refuse_taken(port: int) -> None:
    """Complain about a port before anything is started for nothing.

    Raises:
        StreamgaugeError: it is in use, or not permitted.
    """
    http = Http(port=port)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((http.host, port))
        except OSError as exc:
            msg = f"cannot serve HTTP on {http.host}:{port}: {exc.strerror}; name another port, or leave --port out"
            raise StreamgaugeError(msg) from exc


def _is_taken(exc: StreamgaugeError) -> bool:
    """Return whether an error of the monitor's server says that its port is in use."""
    return isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRINUSE
