"""A fake Kafka cluster that speaks the wire protocol, and misbehaves when told to.

It is for the failures that a real broker does not produce on demand, and for clusters larger than the machine.
What is true is plain data (``fake_state``), what a healthy broker says about it is a pure function
(``fake_answers``), and so is what a scripted one does (``fake_faults``). This module carries that out: over TCP
on loopback, one port a broker, or in process under whatever clock a simulation has::

    async with FakeCluster(brokers=3) as cluster:
        cluster.topic("orders", partitions=4, records=100)
        cluster.group("billing", {("orders", 0): 58})
        cluster.fail("OffsetFetch", Delay(2.0), broker=1, times=1)
        cluster.stop(2)
        ...  # point a client at cluster.bootstrap
        assert cluster.count("ListGroups", broker=3) == 1

It answers what an observer asks: ApiVersions, Metadata, ListGroups, DescribeGroups, ConsumerGroupDescribe,
OffsetFetch, ListOffsets, FindCoordinator. Nothing can be produced to it or fetched from it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from monitor.sandbox.fake_answers import Header, RefusedError, answer, join, split
from monitor.sandbox.fake_faults import (
    Action,
    Call,
    Corrupt,
    Delay,
    Disconnect,
    ErrorCode,
    Fault,
    Garbage,
    Hang,
    Lie,
    Omit,
    Reaction,
    Tear,
    Truncate,
)
from monitor.sandbox.fake_state import NEWEST, NO_LEADER, RELEASES, Broker, Group, Member, Topic, Truth

__all__ = [
    "NEWEST",
    "NO_LEADER",
    "RELEASES",
    "Broker",
    "Call",
    "Corrupt",
    "Delay",
    "Disconnect",
    "ErrorCode",
    "FakeCluster",
    "Fault",
    "Garbage",
    "Group",
    "Hang",
    "Header",
    "Lie",
    "Member",
    "Omit",
    "Reaction",
    "Seen",
    "Tear",
    "Topic",
    "Truncate",
    "Truth",
]

HOST = "127.0.0.1"

# Kafka's socket.request.max.bytes default: beyond it, what arrives is no request.
LARGEST_REQUEST = 104_857_600


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that arrived, for the journal."""

    at: float
    broker: int
    api: str
    version: int
    size: int
    """Bytes of its body."""
    client_id: str | None


class FakeCluster(Truth):
    """The truth about a cluster, its brokers' manners, and their ports while it is entered.

    Args:
        brokers: How many, with ids from 1 on; or their ids.
        release: Which Kafka they play: a key of RELEASES; ``cluster.brokers[1].versions`` can be changed.
        clock: What the journal and ``loading_until`` mean by now.
        tls: A server's TLS context, to speak TLS on every port.
    """

    def __init__(
        self,
        brokers: int | Iterable[int] = 1,
        *,
        release: str = NEWEST,
        clock: Callable[[], float] = time.time,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(brokers, release=release)
        self.clock = clock
        self.journal: list[Seen] = []
        self._faults: list[Fault] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._ports = {id_: _Port(self, id_, tls) for id_ in self.brokers}
        self._stopped: set[int] = set()
        self._paused: set[int] = set()
        self._is_open = False

    # --- scripting ---

    def fail(
        self,
        api: str | None = None,
        *actions: Action,
        broker: int | None = None,
        times: int | None = None,
        when: Callable[[Header, bytes], bool] | None = None,
    ) -> Fault:
        """Script what happens to requests from now on.

        Args:
            api: The kind of request by name, None for every kind.
            *actions: What happens, in this order. Several faults that meet a request apply one after another.
            broker: At this broker only.
            times: For so many requests, None until it is cancelled.
            when: For requests only that this says True to, given header and body.
        """
        fault = Fault(api, broker, actions, times, when)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Cancel every fault and let every broker run."""
        for fault in self._faults:
            fault.cancel()
        self._faults.clear()
        for id_ in self.brokers:
            self.resume(id_)
            self.start(id_)

    def stop(self, broker: int) -> None:
        """Kill a broker: its connections break and its port refuses. Leaders stay where they are."""
        self._stopped.add(broker)
        self._ports[broker].close()

    def start(self, broker: int) -> None:
        """Start it again, on the same port."""
        if broker in self._stopped:
            self._stopped.remove(broker)
            if self._is_open:
                self._ports[broker].open()

    def pause(self, broker: int) -> None:
        """Freeze a broker, as SIGSTOP does: it accepts connections and reads nothing."""
        self._paused.add(broker)

    def resume(self, broker: int) -> None:
        """Let it go on; what was asked meanwhile is answered now."""
        self._paused.discard(broker)
        self._ports[broker].resume()

    def is_stopped(self, broker: int) -> bool:
        """Return whether it was stopped."""
        return broker in self._stopped

    def is_running(self, broker: int) -> bool:
        """Return whether it is neither stopped nor paused."""
        return broker not in self._paused and broker not in self._stopped

    # --- answering ---

    def react(self, broker: int, header: Header, body: bytes, now: float | None = None) -> Reaction:
        """Decide what a running broker does about a request, and write it into the journal.

        ``now`` is the time, by the cluster's clock if it is not given.
        """
        now = self.clock() if now is None else now
        self.journal.append(Seen(now, broker, header.api, header.version, len(body), header.client_id))
        actions = [action for fault in self._meeting(broker, header, body) for action in fault.actions]
        for action in actions:
            action.before()
        try:
            reaction = Reaction(answer(self, broker, header, body, now))
        except RefusedError:
            return Reaction(b"", cut=0)
        finally:
            self._notify()
        for action in actions:
            reaction = action.on(header, reaction)
        return reaction

    async def exchange(
        self,
        broker: int,
        header: Header,
        body: bytes,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> bytes:
        """Ask a broker in process, with no port involved, and return the body of its answer.

        Waits for ever where the broker never answers.

        Args:
            broker: Who is asked.
            header: The request's header.
            body: The request's body.
            sleep: What waits for a delay: that of a simulation's clock.

        Raises:
            ConnectionRefusedError: The broker is stopped.
            ConnectionResetError: It closed the connection.
        """
        if self.is_stopped(broker):
            raise ConnectionRefusedError(broker)
        reaction = self.react(broker, header, body) if self.is_running(broker) else Reaction(None)
        if reaction.delay_seconds:
            await sleep(reaction.delay_seconds)
        if self.is_stopped(broker) or reaction.cut is not None:
            raise ConnectionResetError(broker)
        if reaction.body is None:
            await asyncio.get_running_loop().create_future()
            raise AssertionError
        return reaction.body

    def _meeting(self, broker: int, header: Header, body: bytes) -> list[Fault]:
        self._faults = [fault for fault in self._faults if not fault.is_over]
        meeting = [fault for fault in self._faults if fault.meets(broker, header, body)]
        for fault in meeting:
            fault.happened += 1
        return meeting

    # --- what was asked ---

    def count(self, api: str | None = None, *, broker: int | None = None) -> int:
        """Return how many requests of a kind (of any) a broker (any) has seen."""
        return sum(api in {None, seen.api} and broker in {None, seen.broker} for seen in self.journal)

    async def asked(self, api: str | None = None, *, broker: int | None = None, times: int = 1) -> None:
        """Wait until so many requests have arrived, counted from the start of the journal."""
        if self.count(api, broker=broker) < times:
            arrived = asyncio.get_running_loop().create_future()
            self._waiting.append((lambda: self.count(api, broker=broker) >= times, arrived))
            await arrived

    def _notify(self) -> None:
        due = [waiting for waiting in self._waiting if waiting[0]()]
        for waiting in due:
            self._waiting.remove(waiting)
            if not waiting[1].done():
                waiting[1].set_result(None)

    # --- ports ---

    @property
    def bootstrap(self) -> str:
        """Return the addresses of all brokers, stopped ones too, as clients want them."""
        return ",".join(self._ports[id_].address for id_ in self.brokers)

    async def __aenter__(self) -> Self:
        """Open a port for every broker; one that was stopped before is stopped again."""
        self._is_open = True
        for id_, port in self._ports.items():
            port.open()
            self.brokers[id_].host, self.brokers[id_].port = HOST, port.number
        for id_ in self._stopped:
            self._ports[id_].close()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every port and connection."""
        self._is_open = False
        await asyncio.gather(*(port.finish() for port in self._ports.values()))


class _Port:
    """The port of one broker: accepts, reads requests one by one as Kafka does, and carries reactions out."""

    def __init__(self, cluster: FakeCluster, broker: int, tls: ssl.SSLContext | None) -> None:
        self._cluster = cluster
        self._broker = broker
        self._tls = tls
        self._listener: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()
        self.number = 0

    @property
    def address(self) -> str:
        return f"{HOST}:{self.number}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._listener = socket.create_server((HOST, self.number), backlog=512)
        self._listener.setblocking(False)
        self.number = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def close(self) -> None:
        """Stop listening and break every connection."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.cancel()

    async def finish(self) -> None:
        """Close, and wait until nothing is left."""
        self.close()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def resume(self) -> None:
        """Wake up what waits while the broker is paused."""
        self._resumed.set()
        self._resumed = asyncio.Event()

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it went away before it was accepted
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = asyncio.get_running_loop().create_task(self._serve(accepted))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: accepted.close())  # one that is cancelled before it begins ends here

    async def _serve(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls)
        except (OSError, asyncio.CancelledError):  # ssl.SSLError is an OSError: the client does not speak TLS
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the broker was stopped: either ends the connection
        finally:
            transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return False when the connection is to be closed."""
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        if not 0 <= size <= LARGEST_REQUEST:
            return False
        frame = await reader.readexactly(size)
        await self._until_running()
        try:
            header, body = split(frame)
        except RefusedError:
            return False
        reaction = self._cluster.react(self._broker, header, body)
        if reaction.delay_seconds:
            await asyncio.sleep(reaction.delay_seconds)
        await self._until_running()  # a scripted call may have paused or stopped it meanwhile
        if reaction.body is None and reaction.cut is None:
            await _until_closed(reader)
            return False
        writer.write(join(header, reaction.body or b"")[: reaction.cut])
        await writer.drain()
        if reaction.cut is not None:
            writer.close()
            await writer.wait_closed()
            return False
        return True

    async def _until_running(self) -> None:
        while not self._cluster.is_running(self._broker):
            await self._resumed.wait()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Wait until the client closes; what it still asks is not read as requests."""
    while await reader.read(65536):
        pass
