"""Getting to an address, one step after another: its name, a connection, TLS. Each step is bounded and closed again.

Names are resolved in threads of their own that nobody waits for: a resolver that hangs must not keep a program from
ending, as the event loop's own would.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka.transport import Address, Request, Transport, Versions
from monitor.observe.kafka.wire import Api, MalformedError

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run something that blocks beside the event loop; cancelled, it is left behind and keeps nobody."""
    future: Future[T] = Future()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            result = work()
        except Exception as exc:  # noqa: BLE001 - raised again where it is awaited
            future.set_exception(exc)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True, name="streamgauge doctor").start()
    return await asyncio.wrap_future(future)


class ReachError(Exception):
    """An address could not be reached; its text says why, its advice what to do."""

    def __init__(self, text: str, advice: str) -> None:
        self.advice = advice
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Reached:
    """An address that accepts connections, and what its name stands for: those that answered and those that hang."""

    answering: tuple[str, ...]
    silent: tuple[str, ...] = ()


async def reach(address: Address, seconds: float) -> Reached:
    """Resolve an address and connect to everything its name stands for.

    Raises:
        ReachError: The name does not resolve, or nothing accepts a connection.
    """
    places = await _resolve(address, seconds)
    refusals = dict(
        zip(places, await asyncio.gather(*(_connect(p, address.port, seconds) for p in places)), strict=True)
    )
    answering = tuple(place for place, refusal in refusals.items() if refusal is None)
    if answering:
        return Reached(answering, tuple(place for place, why in refusals.items() if isinstance(why, TimeoutError)))
    # One line: of localhost's two addresses both refuse, and a person wants to hear it once.
    place, why = next(iter(refusals.items()))
    where = f"{address}" if place == address.host else f"{address} ({', '.join(places)})"
    raise _unreachable(where, why, seconds)


def _unreachable(where: str, why: Exception | None, seconds: float) -> ReachError:
    match why:
        case TimeoutError():
            text = f"{where} does not answer within {seconds:g} s"
            return ReachError(text, "check that the host runs, and firewalls and routes in between")
        case ConnectionRefusedError():
            text = f"{where} refuses connections: nothing listens there"
            return ReachError(text, "check the port, and that the broker runs")
        case _:
            text = f"{where} cannot be connected: {getattr(why, 'strerror', None) or why}"
            return ReachError(text, "check the address, and the network of this machine")


async def _resolve(address: Address, seconds: float) -> tuple[str, ...]:
    advice = f"correct the name, or let this machine know it (DNS, /etc/hosts); try: getent hosts {address.host}"
    try:
        async with asyncio.timeout(seconds):
            found = await in_thread(lambda: socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
    except TimeoutError as exc:
        message = f"the name {address.host} is not resolved within {seconds:g} s"
        raise ReachError(message, "check the name servers of this machine") from exc
    except (OSError, UnicodeError) as exc:
        text = getattr(exc, "strerror", None) or "it is no host name"
        message = f"the name {address.host} does not resolve: {text}"
        raise ReachError(message, advice) from exc
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _connect(place: str, port: int, seconds: float) -> Exception | None:
    """Return why a place does not accept a connection, None if it does."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(place, port)
    except OSError as exc:  # TimeoutError is one
        return exc
    writer.transport.abort()
    return None


@dataclass(frozen=True, slots=True)
class Shaken:
    """A TLS handshake: the protocol and the peer's certificate in DER, None if it was not shown."""

    protocol: str
    certificate: bytes | None


async def shake_hands(address: Address, context: ssl.SSLContext, seconds: float) -> Shaken:
    """Connect by TLS and look at what the other side shows.

    Raises:
        OSError: It did not come about: ssl.SSLError for what is about TLS, TimeoutError within ``seconds``.
        EOFError: The other side closed the connection.
    """
    async with asyncio.timeout(seconds):
        _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=address.host)
    shown = writer.get_extra_info("ssl_object")
    try:
        return Shaken(shown.version() or "TLS", shown.getpeercert(binary_form=True))
    finally:
        writer.transport.abort()


def trusting_anybody() -> ssl.SSLContext:
    """Return a TLS context that looks and does not judge, to show why another one refused. Nothing is sent by it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Asker:
    """Asks a broker once and says what happens. It fits where ``monitor.observe.kafka.cold`` wants somebody who asks.

    Checks run at once and share a connection, on which a broker answers one request after another. So they take turns:
    one that is never answered fails by itself, ends the connection, and the next begins with a new one. If that does
    not come about, nobody waits for this broker any more.
    """

    def __init__(self, transport: Transport, timeout_seconds: float) -> None:
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._turns: dict[Address, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._frozen: dict[Address, TransportError] = {}

    async def versions(self, address: Address) -> Versions:
        """Connect, log in, and return what the broker offers.

        Raises:
            TransportError: One of these did not succeed.
        """
        async with self._turns[address]:
            return await self._versions(address)

    async def ask(
        self,
        address: Address,
        api: Api,
        offered: tuple[int, int],
        encode: Callable[[int], bytes],
        decode: Callable[[bytes, int], T],
    ) -> T:
        """Send one request in the highest version both sides speak, and decode the answer.

        Raises:
            TransportError: No answer within the timeout, no connection, no common version, or not decodable.
        """
        async with self._turns[address]:
            low, high = (await self._versions(address)).get(api.key, (0, -1))
            version = min(high, offered[1])
            if version < max(low, offered[0]):
                message = f"{address} offers {api.name} v{low} to v{high}, v{offered[0]} to v{offered[1]} wanted"
                raise TransportError(message if high >= 0 else f"{address} does not offer {api.name}", Why.UNSUPPORTED)
            request = Request(api.key, version, version >= api.flexible_from, encode(version))
            answer = await self._bounded(
                address, self._transport.send(address, request), f"{address} did not answer {api.name}"
            )
        try:
            return decode(answer, version)
        except MalformedError as exc:
            message = f"the answer of {address} to {api.name} v{version} could not be decoded: {exc}"
            raise TransportError(message, Why.MALFORMED) from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.close()

    async def _versions(self, address: Address) -> Versions:
        if address in self._frozen:
            raise self._frozen[address]
        silence = f"{address} accepts the connection and says nothing"
        try:
            return await self._bounded(address, self._transport.versions(address), silence)
        except TransportError as exc:
            if exc.why == Why.TIMEOUT:
                self._frozen[address] = exc
            raise

    async def _bounded(self, address: Address, answer: Awaitable[T], silence: str) -> T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await answer
        except TimeoutError as exc:
            self._transport.drop(address)
            message = f"{silence} within {self._timeout_seconds:g} s"
            raise TransportError(message, Why.TIMEOUT) from exc
