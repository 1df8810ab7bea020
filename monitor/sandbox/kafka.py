"""A real Apache Kafka in processes of its own: one or three nodes, on KRaft (each broker and controller) or ZooKeeper.

    async with KafkaSandbox(nodes=3) as kafka:
        ...  # kafka.bootstrap
        kafka.nodes[0].kill()
        await kafka.nodes[0].start()

It listens on 127.0.0.1 only, is ready when every node answers Metadata with all nodes in it, and ends with the
process that started it (``process``). What is not set here or by ``properties`` is Kafka's default. Nothing is bound
to an event loop: a sandbox started in one can be used and stopped in another.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from monitor.errors import SandboxError, UsageError
from monitor.sandbox import jars
from monitor.sandbox.classes import ClassArchive
from monitor.sandbox.java import QUICK, Java, find_java
from monitor.sandbox.process import GRACE_SECONDS, Child, spawn
from monitor.sandbox.security import Security
from monitor.sandbox.versions import KAFKA_VERSIONS
from monitor.sandbox.zookeeper import SESSION_MS, ZooKeeper

HOST = "127.0.0.1"
NEWEST = KAFKA_VERSIONS[0]

START_SECONDS = 120.0
"""How long nodes may take until they answer; one takes 4 to 11 s on two idle cores."""

ANSWER_SECONDS = 2.0
"""How long one Metadata exchange may take."""

PLAINTEXT = "PLAINTEXT"
CONTROLLER = "CONTROLLER"
OUTSIDE = "OUTSIDE"

_POLL_SECONDS = 0.1

_ARCHIVING_SECONDS = 15.0
"""How long a node may take to end when it leaves a class archive; it takes 1 to 3 s."""


class Node:
    """One broker, with KRaft a controller as well. Signals are sent at once; starting and stopping wait."""

    def __init__(self, sandbox: KafkaSandbox, number: int, folder: Path, ports: Mapping[str, int]) -> None:
        self.id = number
        self.folder = folder
        self.log = folder / "kafka.log"
        self.properties = folder / "server.properties"
        self.meta = folder / "data" / "meta.properties"
        self.archive = folder / "classes.jsa"
        self.leaves_archive = False
        self.addresses = {listener: f"{HOST}:{port}" for listener, port in ports.items()}
        self._sandbox = sandbox
        self._process: Child | None = None

    @property
    def address(self) -> str:
        """Return host and port of the plaintext listener."""
        return self.addresses[PLAINTEXT]

    @property
    def pid(self) -> int | None:
        """Return the process id of its Java, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.running else None

    @property
    def left_archive(self) -> bool:
        """Return whether it ended as it was asked to, and not before its class archive was written."""
        in_order = self._process is not None and self._process.returncode == 128 + signal.SIGTERM
        return in_order and self.archive.exists()

    def kill(self) -> None:
        """End it at once, as kill -9 does; its data stays."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP): connections stay open and nobody answers."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Let it go on after a pause."""
        if self._process is not None:
            self._process.resume()

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Shut it down in an orderly way and wait until it is gone; kill it if that takes longer."""
        if self._process is not None:
            await self._process.stop(grace_seconds)

    async def start(self) -> None:
        """Start it on its ports and data and wait until it answers; does nothing if it runs.

        Raises:
            SandboxError: It ended or did not answer in time; quotes its log.
        """
        if self.pid is None:
            if self._sandbox.zookeeper is not None:
                await self._sandbox.zookeeper.forgotten(self.id)
            self.launch()
            await self.answered({self.id})

    def launch(self) -> None:
        """Start it without waiting for an answer.

        Raises:
            SandboxError: Java cannot be run.
        """
        archive = self.archive if self.leaves_archive else None
        command = self._sandbox.command("kafka.Kafka", str(self.properties), folder=self.folder, archive=archive)
        self._process = spawn(command, log=self.log)

    async def answered(self, wanted: set[int]) -> None:
        """Wait until it answers Metadata with these nodes.

        Raises:
            SandboxError: It ended or did not answer in time; quotes its log.
        """
        deadline = time.monotonic() + START_SECONDS
        while not wanted <= await self._brokers():
            if self.pid is None:
                raise SandboxError(self.ending())
            if time.monotonic() > deadline:
                msg = (
                    f"{self} did not answer on {self.address} within {START_SECONDS:.0f} s: "
                    f"{telling(self.log)} (log: {self.log})"
                )
                raise SandboxError(msg)
            await asyncio.sleep(_POLL_SECONDS)

    def ending(self) -> str:
        """Say how it ended, and what its log says about that."""
        status = (self._process.returncode if self._process is not None else None) or 0
        number = status - 128  # as shells have it
        how = f"was ended by {signal.Signals(number).name}" if number > 0 else f"ended with status {status}"
        return f"{self} {how}: {telling(self.log)} (log: {self.log})"

    async def _brokers(self) -> set[int]:
        host, _, port = self.address.rpartition(":")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await registered(host, int(port))
        except (OSError, TimeoutError, EOFError):
            return set()  # not yet: the caller asks again, and gives up at its deadline

    def __str__(self) -> str:
        """Name it for messages."""
        return f"Kafka {self._sandbox.version} node {self.id}"


class KafkaSandbox:
    """A Kafka cluster of this machine, running inside ``async with`` or between ``start`` and ``stop``.

    Args:
        nodes: How many, 1 or 3; with 3, Kafka's internal topics have three replicas.
        port: Where the first node listens, the others on the ports after it; 0 chooses free ones.
        data: Folder that is kept and used again by a later start; None for one that goes at the end.
        version: One of ``versions.KAFKA_VERSIONS``, or the beginning of one ("3.9").
        properties: Broker properties; they win over the sandbox's own.
        security: Listeners beside the plaintext one, users and access control.
        zookeeper: Run on a ZooKeeper (``KafkaSandbox.zookeeper``), which Kafka 3 can, and not on KRaft.
        outside: Where clients find each node, HOST:PORT by node, if something stands between: a proxy that can fail.
            Adds the plaintext listener OUTSIDE, which advertises these and listens elsewhere (``Node.addresses``).
        heap_mb: Java heap a node.
        progress: Told about jars that are fetched.

    Raises:
        UsageError: One of these is not possible.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        port: int = 0,
        data: Path | str | None = None,
        version: str = NEWEST,
        properties: Mapping[str, str] | None = None,
        security: Security | None = None,
        zookeeper: bool = False,
        outside: Sequence[str] = (),
        heap_mb: int = 512,
        progress: Callable[[jars.Progress], None] | None = None,
    ) -> None:
        if nodes not in {1, 3}:
            msg = f"a sandbox has 1 or 3 nodes, not {nodes}"
            raise UsageError(msg)
        if not 0 <= port <= 65535 - nodes:
            msg = f"{port} is no port for {nodes} nodes: use 1 to {65535 - nodes}, or 0 for any free one"
            raise UsageError(msg)
        if data is not None and "," in str(data):
            msg = f"the data folder {data} has a comma in its name, which Kafka takes for two folders: name another one"
            raise UsageError(msg)
        if outside and len(outside) != nodes:
            msg = f"{nodes} nodes need {nodes} addresses outside, not {len(outside)}"
            raise UsageError(msg)
        self.version = known_version(version)
        if zookeeper and not self.version.startswith("3."):
            on_it = ", ".join(each for each in KAFKA_VERSIONS if each.startswith("3."))
            msg = f"Kafka {self.version} runs without ZooKeeper: use one of {on_it} with it"
            raise UsageError(msg)
        if zookeeper and security is not None and (security.users or security.authorizer):
            raise UsageError("users and access control are set up for KRaft only: leave them out, or ZooKeeper")
        self.zookeeper: ZooKeeper | None = None
        self._on_zookeeper = zookeeper
        self.nodes: tuple[Node, ...] = ()
        self._count = nodes
        self._port = port
        self._data = None if data is None else Path(data).expanduser().resolve()
        self._properties = dict(properties or {})
        self._security = security or Security()
        self._outside = tuple(outside)
        self._heap_mb = heap_mb
        self._progress = progress
        self._temporary: Path | None = None
        self._java: Java | None = None
        self._classpath = ""
        self._classes: ClassArchive | None = None
        self._archive: Path | None = None
        self._held = contextlib.ExitStack()

    @property
    def bootstrap(self) -> str:
        """Return the plaintext addresses of all nodes, separated by commas."""
        return self.bootstraps[PLAINTEXT]

    @property
    def bootstraps(self) -> dict[str, str]:
        """Return the addresses of all nodes by listener."""
        names = (PLAINTEXT, *self._security.listeners)
        return {name: ",".join(node.addresses[name] for node in self.nodes) for name in names}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start all nodes and wait until each answers with all of them.

        Raises:
            SandboxError: No Java, no jars, a port taken, or a node did not come up; says what to do.
        """
        if any(node.pid for node in self.nodes):
            raise SandboxError("this sandbox runs already: stop it first, or make another")
        try:
            self._java = find_java()
            kafka = jars.KAFKA[self.version]
            found = await jars.resolve(kafka, self._progress)
            self._classpath = ":".join(map(str, found))
            self._classes = ClassArchive(self._java, kafka.name, found)
            self._archive = await asyncio.to_thread(self._classes.find)
            self._prepare()
            self.nodes[0].leaves_archive = self._archive is None and self._classes.possible
            if self.zookeeper is None:
                await self._format()
            else:
                await self.zookeeper.start()
            for node in self.nodes:
                node.launch()
            await asyncio.gather(*(node.answered({node.id for node in self.nodes}) for node in self.nodes))
        except BaseException as exc:  # cancelled as well
            self._end(keep_logs=isinstance(exc, SandboxError))
            raise

    async def stop(self) -> None:
        """Stop all nodes and remove their data, unless a folder was named for it: then they shut down in order."""
        try:
            if self._data is not None:
                await asyncio.gather(*(node.stop() for node in self.nodes))
                if self.zookeeper is not None:
                    await self.zookeeper.stop()
            await self._keep_archive()
        finally:
            self._end(keep_logs=False)

    async def _keep_archive(self) -> None:
        """Have the first node end in order if it leaves a class archive that is still missing, and keep that."""
        if self._classes is None or not (self.nodes and self.nodes[0].leaves_archive):
            return
        node = self.nodes[0]
        if await asyncio.to_thread(self._classes.find) is None:
            if node.pid is not None:
                await node.stop(_ARCHIVING_SECONDS)
            if node.left_archive:
                await asyncio.to_thread(self._classes.keep, node.archive)
        node.archive.unlink(missing_ok=True)

    def command(
        self, main: str, *arguments: str, folder: Path | None = None, heap: str = "", archive: Path | None = None
    ) -> list[str]:
        """Return the command that runs a class of Kafka's, for a node with this folder if it is one.

        Java is told to start fast, to stay small, and to leave a class archive when it ends if a file is named.
        """
        if self._java is None:
            raise SandboxError("this sandbox was not started: use it inside async with")
        return [
            str(self._java.executable),
            *(heap or f"-Xmx{self._heap_mb}m", *QUICK, "-XX:-UsePerfData"),
            *_LOGGING,
            *(() if self._archive is None else (f"-XX:SharedArchiveFile={self._archive}",)),
            # What cannot be archived is told class by class, which a reader would take for what went wrong.
            *(() if archive is None else (f"-XX:ArchiveClassesAtExit={archive}", "-Xlog:cds=error")),
            *(() if folder is None else self._security.java_options(folder)),
            *("-cp", self._classpath, main, *arguments),
        ]

    def _prepare(self) -> None:
        """Choose folders and ports and write each node's properties."""
        try:
            root = self._make_temporary() if self._data is None else self._claim(self._data)
            if self._on_zookeeper:
                port = self._held.enter_context(_hold(0))
                self.zookeeper = ZooKeeper(self.command, root / _ZOOKEEPER, HOST, port, telling)
            held = self._hold_ports()
            self.nodes = tuple(
                Node(self, number, root / f"node-{number}", ports) for number, ports in enumerate(held, start=1)
            )
            for node in self.nodes:
                node.folder.mkdir(exist_ok=True)
                node.properties.write_text("".join(f"{k}={v}\n" for k, v in self._node_properties(node).items()))
        except OSError as exc:
            msg = (
                f"cannot prepare {exc.filename or 'the data folder'}: {exc.strerror}; free space or name another folder"
            )
            raise SandboxError(msg) from exc

    def _make_temporary(self) -> Path:
        """Make a folder that goes at the end, and remove those of sandboxes that were killed."""
        for left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*/{_LOCK}"):
            with left.open() as file:
                # Without data in it, it is the log of a failed start, which somebody may want to read.
                if _try_lock(file) and any(left.parent.glob("node-*/data")):
                    shutil.rmtree(left.parent, ignore_errors=True)
        self._temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
        _try_lock(self._held.enter_context((self._temporary / _LOCK).open("w")))
        return self._temporary

    def _claim(self, data: Path) -> Path:
        """Make the kept folder this sandbox's own for as long as it runs."""
        data.mkdir(parents=True, exist_ok=True)
        if not _try_lock(self._held.enter_context((data / _LOCK).open("w"))):
            msg = f"another sandbox runs on {data}: stop it, or name another folder"
            raise SandboxError(msg)
        found = len(list(data.glob("node-*")))
        if found not in {0, self._count}:
            msg = f"{data} holds {found} nodes, not {self._count}: start it with {found}, or name another folder"
            raise UsageError(msg)
        if found and (data / _ZOOKEEPER).exists() != self._on_zookeeper:
            what = "without" if self._on_zookeeper else "with"
            msg = f"{data} holds a cluster {what} ZooKeeper: start it {what} it, or name another folder"
            raise UsageError(msg)
        return data

    def _hold_ports(self) -> list[dict[str, int]]:
        """Return each node's port by listener, none of them in use."""
        nodes = []
        for index in range(self._count):
            fixed = {PLAINTEXT: self._port + index} if self._port else {}
            names = (
                PLAINTEXT,
                *(() if self._on_zookeeper else (CONTROLLER,)),
                *self._security.listeners,
                *((OUTSIDE,) if self._outside else ()),
            )
            nodes.append({name: self._held.enter_context(_hold(fixed.get(name, 0))) for name in names})
        return nodes

    def _node_properties(self, node: Node) -> dict[str, str]:
        listeners = ",".join(f"{name}://{address}" for name, address in node.addresses.items())
        found = {name: address for name, address in node.addresses.items() if name != CONTROLLER}
        if self._outside:
            found[OUTSIDE] = self._outside[node.id - 1]
        advertised = ",".join(f"{name}://{address}" for name, address in found.items())
        return {
            **self._role(node),
            "listeners": listeners,
            "advertised.listeners": advertised,
            "listener.security.protocol.map": ",".join(
                f"{name}:{self._security.protocol(name)}" for name in node.addresses
            ),
            "inter.broker.listener.name": PLAINTEXT,
            "log.dirs": str(node.folder / "data"),
            **{name: str(self._count) for name in _REPLICATION},
            **{name: str(min(2, self._count)) for name in _MIN_ISR},
            **_QUICK,
            **self._security.properties(node.folder),
            **self._properties,
        }

    def _role(self, node: Node) -> dict[str, str]:
        """Return what makes a node part of this cluster."""
        if self.zookeeper is not None:
            return {
                "broker.id": str(node.id),
                "zookeeper.connect": self.zookeeper.address,
                "zookeeper.session.timeout.ms": str(SESSION_MS),
            }
        return {
            "process.roles": "broker,controller",
            "node.id": str(node.id),
            "controller.quorum.voters": ",".join(f"{each.id}@{each.addresses[CONTROLLER]}" for each in self.nodes),
            "controller.listener.names": CONTROLLER,
        }

    async def _format(self) -> None:
        """Have Kafka format the folders of nodes that were never started."""
        new = [node for node in self.nodes if not node.meta.exists()]
        cluster_id = next((_cluster_id(node.meta) for node in self.nodes if node not in new), _new_cluster_id())
        arguments = ("format", "--cluster-id", cluster_id, "--ignore-formatted", *self._security.scram_arguments())
        runs = [
            (node, spawn(self.command(_STORAGE, *arguments, "--config", str(node.properties)), log=node.log))
            for node in new
        ]
        try:
            for node, process in runs:
                if await process.wait():
                    msg = f"{node} cannot be formatted: {telling(node.log)} (log: {node.log})"
                    raise SandboxError(msg)
        finally:
            for _, process in runs:
                process.kill()

    def _end(self, *, keep_logs: bool) -> None:
        """Kill what still runs, remove what is not to be kept, and let go of ports and folder."""
        for node in self.nodes:
            node.kill()
            if keep_logs and self._temporary is not None:
                shutil.rmtree(node.meta.parent, ignore_errors=True)
        if self.zookeeper is not None:
            self.zookeeper.kill()
            if keep_logs and self._temporary is not None:
                shutil.rmtree(self.zookeeper.data, ignore_errors=True)
        if self._temporary is not None and not (keep_logs and self.nodes):
            shutil.rmtree(self._temporary)
        self._temporary = None
        self._held.close()


_TEMPORARY = "streamgauge-kafka-"
_LOCK = "sandbox.lock"
_ZOOKEEPER = "zookeeper"

_STORAGE = "kafka.tools.StorageTool"

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    # Hundreds of lines that say what server.properties says.
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.log=warn",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.storage=warn",
)

_REPLICATION = (
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "share.coordinator.state.topic.replication.factor",
)

_MIN_ISR = ("transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr")

_QUICK = {
    # A node killed and started again is let in when its former session has timed out, by default after 9 s.
    "broker.session.timeout.ms": "5000",
    "broker.heartbeat.interval.ms": "1000",
    # Kafka waits 3 s for more members before a group's first assignment.
    "group.initial.rebalance.delay.ms": "0",
    # 128 MB by default, a quarter of the heap, for compaction that a sandbox hardly sees.
    "log.cleaner.dedupe.buffer.size": "8388608",
}


def known_version(text: str) -> str:
    """Return the version that begins with the text ("3.9" is enough).

    Raises:
        UsageError: There is none.
    """
    found = next((version for version in KAFKA_VERSIONS if f"{version}.".startswith(f"{text}.")), None)
    if found is None:
        msg = f"the sandbox has no Kafka {text}: use one of {', '.join(KAFKA_VERSIONS)}"
        raise UsageError(msg)
    return found


def telling(log: Path, lines: int = 3) -> str:
    """Return the last lines of a log that say what is wrong, else its last lines, in one line."""
    written = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = [line.strip() for line in written if line.strip() and not re.match(r"\s+at |\s+\.\.\. \d+ more", line)]
    wrong = [line for line in said if re.search(r"ERROR|FATAL|Exception|Error:|No space left|in use", line)]
    quoted = list(dict.fromkeys(wrong or said))[-lines:]
    return " | ".join(line[:300] for line in quoted) or "its log is empty"


def _try_lock(file: IO[str]) -> bool:
    """Lock a file for as long as it is open, unless another process has; say whether."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _new_cluster_id() -> str:
    # Kafka's own ids are url-safe base64 without padding, and never begin with a dash.
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "A")


def _cluster_id(meta: Path) -> str:
    found = re.search(r"^cluster\.id=(.+)$", meta.read_text(), re.MULTILINE)
    if found is None:
        msg = f"{meta} names no cluster: remove its folder, or name another one"
        raise SandboxError(msg)
    return found[1].strip()


@contextlib.contextmanager
def _hold(port: int) -> Iterator[int]:
    """Yield a free port of this machine, and keep others from getting it where the system allows that.

    A port that was only looked at can be gone when Java listens, seconds later, and when a stopped node comes back:
    any outgoing connection may be given it. On Linux a socket that is bound but does not listen keeps the port from
    everybody but those who set SO_REUSEADDR, as Java does.

    Raises:
        SandboxError: The port asked for is taken.
    """
    with socket.socket() as held:
        if port:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former run may linger
        try:
            held.bind((HOST, port))
        except OSError as exc:
            msg = f"cannot listen on {HOST}:{port}: {exc.strerror}; choose another port, or none"
            raise SandboxError(msg) from exc
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        chosen: int = held.getsockname()[1]
        if sys.platform != "linux":
            held.close()
        yield chosen


async def registered(host: str, port: int) -> set[int]:
    """Ask a broker who is in its cluster (Metadata, version 9 and no topics), and return the ids.

    Raises:
        OSError: It cannot be connected.
        EOFError: It closed the connection, or what it sent is no answer.
    """
    from kio.schema.metadata.v9.request import MetadataRequest  # noqa: PLC0415 - slow to import
    from kio.schema.metadata.v9.response import MetadataResponse  # noqa: PLC0415

    question = MetadataRequest(
        topics=(), allow_auto_topic_creation=False,
        include_cluster_authorized_operations=False, include_topic_authorized_operations=False,
    )  # fmt: skip
    answer = await _exchange(host, port, question, MetadataResponse)
    return {int(broker.node_id) for broker in answer.brokers}


async def _exchange(host: str, port: int, question: Any, schema: Any) -> Any:
    """Send one request of a flexible version on a connection of its own and read its answer."""
    from kio.schema.response_header.v1.header import ResponseHeader  # noqa: PLC0415 - slow to import
    from kio.serial import entity_reader, entity_writer  # noqa: PLC0415 - slow to import
    from kio.static.primitive import i16, i32  # noqa: PLC0415 - slow to import

    header = question.__header_schema__(
        request_api_key=i16(question.__api_key__), request_api_version=i16(question.__version__),
        correlation_id=i32(1), client_id="streamgauge-sandbox",
    )  # fmt: skip
    buffer = BytesIO()
    entity_writer(type(header))(buffer, header)
    entity_writer(type(question))(buffer, question)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(len(buffer.getvalue()).to_bytes(4, "big") + buffer.getvalue())
        size = int.from_bytes(await reader.readexactly(4), "big")
        body = await reader.readexactly(size)
    finally:
        writer.transport.abort()
    _, start = entity_reader(ResponseHeader)(body, 0)
    answer, _ = entity_reader(schema)(body, start)
    return answer
