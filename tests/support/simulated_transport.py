"""The connection layer of the observer over a fake cluster in process: latency, broken and refused connections.

It does what a TCP connection to a broker does: requests of one connection are served one by one, a stopped broker
breaks its connections, a paused one accepts them and answers when it goes on. Nothing is decoded here but the list
of versions, and that by kio.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import struct
from collections import Counter
from dataclasses import dataclass, field

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka.transport import Address, Request
from monitor.sandbox.fake import FakeCluster, Header
from monitor.sandbox.fake_answers import API_KEYS, decode_answer

VERSIONS = API_KEYS["ApiVersions"]

SHORTEST_SECONDS, LONGEST_SECONDS = 0.0005, 0.004
"""One way between monitor and broker."""


@dataclass(eq=False)
class _Connection:
    broker: int
    broken: asyncio.Future[None]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    versions: dict[int, tuple[int, int]] | None = None


class SimulatedTransport:
    """Fits ``monitor.observe.kafka.transport.Transport``.

    ``refused`` are brokers that cannot be connected; ``unreachable`` ones lose every packet, both ways.
    ``failures`` counts what went wrong, by broker, since it was cleared last.
    """

    def __init__(self, fake: FakeCluster, latency: random.Random) -> None:
        self._fake = fake
        self._latency = latency
        self._connections: dict[Address, _Connection] = {}
        self._locks: dict[Address, asyncio.Lock] = {}
        self._running = asyncio.Event()
        self.refused: set[int] = set()
        self.failures: Counter[int] = Counter()
        self.requests = 0
        self._digest = hashlib.blake2b()

    # --- what the simulation does to it ---

    def break_connections(self, broker: int) -> None:
        """Break every connection to a broker, as its end does."""
        for connection in list(self._connections.values()):
            if connection.broker == broker and not connection.broken.done():
                connection.broken.set_result(None)

    def wake(self) -> None:
        """Have requests look again whether their broker runs."""
        self._running.set()
        self._running = asyncio.Event()

    @property
    def open_connections(self) -> int:
        """Return how many connections there are."""
        return sum(not each.broken.done() for each in self._connections.values())

    @property
    def digest(self) -> str:
        """Return the digest of every request and answer so far, with the times."""
        return self._digest.hexdigest()

    # --- what the observer does with it ---

    async def versions(self, address: Address) -> dict[int, tuple[int, int]]:
        """Connect if need be and return what the broker offers."""
        connection = await self._connection(address)
        assert connection.versions is not None
        return connection.versions

    async def send(self, address: Address, request: Request) -> bytes:
        """Send a request and return the body of its answer."""
        connection = await self._connection(address)
        return await self._exchange(address, connection, request.api_key, request.version, request.body)

    def drop(self, address: Address) -> None:
        """Close the connection at once."""
        connection = self._connections.pop(address, None)
        if connection is not None and not connection.broken.done():
            connection.broken.set_result(None)

    async def close(self) -> None:
        """Close every connection."""
        for address in list(self._connections):
            self.drop(address)

    # --- ---

    async def _connection(self, address: Address) -> _Connection:
        async with self._locks.setdefault(address, asyncio.Lock()):
            connection = self._connections.get(address)
            if connection is not None and not connection.broken.done():
                return connection
            self.drop(address)
            connection = await self._connect(address)
            self._connections[address] = connection
            try:
                answer = await self._exchange(address, connection, VERSIONS, 3, b"\x05test\x021\x00")
                connection.versions = self._read_versions(address, answer)
            except BaseException:
                self.drop(address)
                raise
            return connection

    async def _connect(self, address: Address) -> _Connection:
        await asyncio.sleep(self._one_way())
        broker = next(
            (each.id for each in self._fake.brokers.values() if (each.host, each.port) == tuple(address)), None
        )
        if broker is None or broker in self.refused or self._fake.is_stopped(broker):
            if broker is not None:
                self.failures[broker] += 1
            raise TransportError(f"{address} refused the connection", Why.REFUSED)
        return _Connection(broker, asyncio.get_running_loop().create_future())

    def _read_versions(self, address: Address, answer: bytes) -> dict[int, tuple[int, int]]:
        try:
            entity = decode_answer(Header(VERSIONS, 3), answer)
        except Exception as exc:
            raise TransportError(f"{address} does not answer like a Kafka broker", Why.MALFORMED) from exc
        return {int(each.api_key): (int(each.min_version), int(each.max_version)) for each in entity.api_keys}

    async def _exchange(self, address: Address, connection: _Connection, key: int, version: int, body: bytes) -> bytes:
        broker = connection.broker
        try:
            async with connection.turn:
                await self._pass(connection, self._one_way())
                await self._until_running(connection)
                self._note(b">", broker, key, version, body)
                self.requests += 1
                header = Header(key, version, client_id="streamgauge")
                reaction = self._fake.react(broker, header, body)
                await self._pass(connection, reaction.delay_seconds + self._one_way())
                await self._until_running(connection)
                if reaction.cut is not None:
                    self.break_connections(broker)
                    await self._pass(connection, 0)
                if reaction.body is None:
                    await self._pass(connection, None)
                assert reaction.body is not None
                self._note(b"<", broker, key, version, reaction.body)
                return reaction.body
        except ConnectionResetError as exc:
            self.failures[broker] += 1
            if self._connections.get(address) is connection:
                self.drop(address)
            raise TransportError(f"the connection to {address} broke", Why.DISCONNECTED) from exc

    async def _pass(self, connection: _Connection, seconds: float | None) -> None:
        """Let time pass, for ever with None; the end of the connection ends it."""
        done, _ = await asyncio.wait([connection.broken], timeout=seconds)
        if done:
            raise ConnectionResetError

    async def _until_running(self, connection: _Connection) -> None:
        while not self._fake.is_running(connection.broker):
            if self._fake.is_stopped(connection.broker):
                raise ConnectionResetError
            await self._running.wait()
        if connection.broken.done():
            raise ConnectionResetError

    def _one_way(self) -> float:
        return self._latency.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)

    def _note(self, way: bytes, broker: int, key: int, version: int, body: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self._digest.update(way + struct.pack(">dihhi", now, broker, key, version, len(body)) + body)
