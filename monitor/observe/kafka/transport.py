"""One connection a broker: the only module that touches aiokafka.

What is used of it is ``aiokafka.conn``: framing, TLS, SASL and the versions a broker offers. Its client is
left out on purpose. It keeps a list of brokers and a metadata task of its own, and makes all connections
under one lock, so that one silent broker would delay the others; this monitor owns the list itself
(``cluster``) and must read every other broker at full speed while one is away.

Where brokers let a log-in hold for a while only (connections.max.reauth.ms), it is renewed on the same connection
(KIP-368) when most of that time has passed and somebody has a request to send. aiokafka knows only the first log-in;
what renewing adds is here. So is the end of a refused OAUTHBEARER log-in (RFC 7628, 3.2.3), which aiokafka takes for
success.

Everything that can go wrong leaves here as TransportError with a reason (``monitor.model.Why`` or the
broker's error code). Bounding a request in time is the caller's part: cancel it, then ``drop`` the address.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import math
import re
import socket
import ssl
import tempfile
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple, Protocol

import aiokafka.conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, KafkaError, SaslAuthenticationFailed
from aiokafka.protocol.api import RequestHeader_v1, RequestHeader_v2, ResponseHeader_v0, ResponseHeader_v1

from monitor.errors import SettingsError, TransportError
from monitor.model import Why, why_name
from monitor.observe.kafka.tokens import Tokens, tokens
from monitor.settings import Cluster, Tls

CLIENT_ID = "streamgauge"

DEFAULT_PORT = 9092
LAST_PORT = 65_535

# A little less than the broker's connections.max.idle.ms default, 10 minutes.
IDLE_MS = 540_000

RENEW_SHARE = 0.85
"""Share of a log-in's time after which it is renewed; Kafka's own clients do so at 0.85 to 0.95."""

UNSUPPORTED_SASL_MECHANISM = 33
SASL_AUTHENTICATION_FAILED = 58

_QUOTED = 200
"""Characters of a broker's own words that are quoted at most."""

TLS_PROTOCOLS = frozenset({"SSL", "SASL_SSL"})

Versions = Mapping[int, tuple[int, int]]
"""API key to the lowest and highest version a broker offers."""


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as people do."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request ready to be sent: ``body`` is what follows the header."""

    api_key: int
    version: int
    flexible: bool
    body: bytes


class Transport(Protocol):
    """What reading a cluster needs of a connection layer; a fake one fits behind it as well."""

    async def versions(self, address: Address) -> Versions:
        """Connect if need be and return what the broker offers.

        Raises:
            TransportError: The broker could not be connected or refused the log-in.
        """
        ...

    async def send(self, address: Address, request: Request) -> bytes:
        """Send a request and return the body of its answer, without the header.

        Raises:
            TransportError: The broker could not be connected, or the connection broke.
        """
        ...

    def drop(self, address: Address) -> None:
        """Close the connection at once, without a word to the other side; the next request makes a new one."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


def addresses(bootstrap_servers: str) -> tuple[Address, ...]:
    """Split ``HOST:PORT,HOST:PORT``; the port is 9092 if none is given.

    Raises:
        SettingsError: A port is not a number from 1 to 65535, or there is no address.
    """
    found = []
    for text in filter(None, (part.strip() for part in bootstrap_servers.split(","))):
        host, _, port = text.rpartition(":") if _has_port(text) else (text, "", str(DEFAULT_PORT))
        # isdecimal() knows other digits than ours; int() takes them as well
        if not _is_host(host) or not port.isdecimal() or not 1 <= int(port) <= LAST_PORT:
            raise SettingsError([f"bootstrap_servers: {text!r} is not HOST:PORT: write for example localhost:9092"])
        found.append(Address(host.strip("[]"), int(port)))
    if not found:
        raise SettingsError(["bootstrap_servers names no broker: write for example localhost:9092"])
    return tuple(found)


def _has_port(text: str) -> bool:
    """Return whether a colon separates a port: not those within an IPv6 address."""
    return "]:" in text if text.startswith("[") else text.count(":") == 1


def _is_host(text: str) -> bool:
    """Return whether a text may name a host: no URL, no blank, and colons in an IPv6 address only."""
    if text.startswith("[") != text.endswith("]"):
        return False
    if ":" in text or text.startswith("["):
        try:
            return ipaddress.ip_address(text.removeprefix("[").removesuffix("]")).version == 6  # noqa: PLR2004
        except ValueError:
            return False
    return bool(text) and "/" not in text and not any(char.isspace() for char in text)


class KafkaTransport:
    """Connections by address, made when first needed and made anew after they broke."""

    def __init__(self, cluster: Cluster) -> None:
        self._tokens = _Tokens(cluster) if _by_token(cluster) else None
        self.options = _options(cluster) | ({"sasl_oauth_token_provider": self._tokens} if self._tokens else {})
        """How to connect and to log in, as arguments of aiokafka's connections and clients."""
        self._connections: dict[Address, _Connection] = {}
        self._locks: dict[Address, asyncio.Lock] = {}
        _silence()

    async def versions(self, address: Address) -> Versions:
        """Connect if need be and return what the broker offers; see Transport."""
        connection = await self._connection(address)
        offered: Versions = connection._versions  # noqa: SLF001 - it has no public name
        return offered

    async def send(self, address: Address, request: Request) -> bytes:
        """Send a request and return the body of its answer; see Transport."""
        connection = await self._connection(address)
        try:
            body: bytes = await connection.send(_Outgoing(request))
        except (KafkaError, OSError, TimeoutError) as exc:
            if self._connections.get(address) is connection:  # not one that somebody made meanwhile
                self.drop(address)
            raise _translate(address, exc) from exc
        return body

    def drop(self, address: Address) -> None:
        """Close the connection at once; see Transport."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            connection.close()

    async def close(self) -> None:
        """Close every connection and wait until the sockets are closed."""
        connections = list(self._connections.values())
        self._connections.clear()
        await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)
        if self._tokens is not None:
            await self._tokens.close()

    async def _connection(self, address: Address) -> _Connection:
        # A lock an address: requests to one broker share its connection, other brokers do not wait.
        async with self._locks.setdefault(address, asyncio.Lock()):
            connection = self._connections.get(address)
            # Under the lock: between the steps of a log-in the broker takes no other request.
            if connection is not None and connection.connected() and await connection.is_logged_in():
                return connection
            self.drop(address)
            try:
                connection = await self._connect(address)
            except TransportError as exc:
                if exc.why != SASL_AUTHENTICATION_FAILED or self._tokens is None or not self._tokens.refused():
                    raise
                connection = await self._connect(address)  # with another token than that which was kept
            self._connections[address] = connection
            return connection

    async def _connect(self, address: Address) -> _Connection:
        connection = _Connection(address.host, address.port, **self.options)
        try:
            await connection.connect()
        # Whatever a server that is no Kafka sends makes aiokafka's decoders raise anything.
        except Exception as exc:
            raise self._refusal(address, connection, exc) from exc
        return connection

    def _refusal(self, address: Address, connection: _Connection, exc: BaseException) -> TransportError:
        """Say why a connection did not come about, and what to do about a log-in that was refused."""
        cause, mechanism = _cause(exc), self.options.get("sasl_mechanism")
        number = getattr(cause, "errno", None) if isinstance(cause, KafkaError) else None
        if type(cause).__module__.partition(".")[0] == "gssapi":
            minor = _printable(str(cause).rpartition("): ")[2])
            advice = "get a ticket with kinit, or name a key table by KRB5_CLIENT_KTNAME, and check the service name"
            return TransportError(f"Kerberos gives no log-in at {address}: {minor}: {advice}", Why.REFUSED)
        if number == UNSUPPORTED_SASL_MECHANISM:
            offered = ", ".join(sorted(map(_printable, connection.mechanisms))) or "none"
            text = f"{address} does not take mechanism {mechanism}: choose one of those it takes ({offered})"
            return TransportError(text, UNSUPPORTED_SASL_MECHANISM)
        if number != SASL_AUTHENTICATION_FAILED:
            return _translate_first(address, exc, self.options["security_protocol"])
        advice = _ADVICE.get(str(mechanism), "")
        said = _printable(" ".join(str(each) for each in cause.args if each))
        if self._tokens is not None:
            advice, said = self._tokens.about(), self._tokens.without_token(said)
        quoted = f' and said "{said}"' if said else ""
        text = f"{address} refused the log-in by {mechanism} (SASL_AUTHENTICATION_FAILED){quoted}: {advice}"
        return TransportError(text, SASL_AUTHENTICATION_FAILED)


_ADVICE = {
    **dict.fromkeys(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), "check username and password"),
    "GSSAPI": "check that the broker knows the realm, and kerberos_service_name",
}


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens as aiokafka's connection wants to ask for them; remembers the one that was shown last."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.sasl is not None  # noqa: S101 - the mechanism stands in it
        self._source: Tokens = tokens(cluster.sasl, cluster.timeout_seconds)
        self._extensions = dict(each.split("=", 1) for each in cluster.sasl.extensions)
        self._shown = ""

    async def token(self) -> str:
        """Return a token; see Tokens."""
        self._shown = await self._source.token()
        return self._shown

    def extensions(self) -> dict[str, str]:
        """Return the SASL extensions (KIP-342)."""
        return self._extensions

    def refused(self) -> bool:
        """Take note that a broker refused it; return whether another one may do better."""
        return self._source.refused(self._shown)

    def about(self) -> str:
        """Say what there is to check about it."""
        return self._source.about(self._shown)

    def without_token(self, text: str) -> str:
        """Return a broker's words without the token, should they repeat it."""
        return text.replace(self._shown, "…") if self._shown else text

    async def close(self) -> None:
        """End what is under way."""
        await self._source.close()


class _Connection(AIOKafkaConnection):  # type: ignore[misc]
    """A connection that renews its log-in, and is closed at once.

    Closing TLS in order would wait for a goodbye that a silent broker never answers.
    """

    mechanisms: tuple[str, ...] = ()
    """What the broker takes to log in, as far as it was asked."""

    _renew_at = math.inf
    """Time of the event loop at which the log-in is to be renewed."""

    async def is_logged_in(self) -> bool:
        """Renew the log-in if that is due; return whether the connection can be used."""
        if self._loop.time() < self._renew_at:
            return True
        try:
            await self._do_sasl_handshake()
        except Exception:  # noqa: BLE001 - as in _connection; a fresh connection decides, and says what is wrong
            return False
        return True

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request; what the broker says about the log-in is noted on the way."""
        answer = super().send(request, expect_response)
        return answer if isinstance(request, _Outgoing) else self._note(answer)

    async def _note(self, answer: Coroutine[Any, Any, Any]) -> Any:
        response = await answer
        self.mechanisms = tuple(getattr(response, "enabled_mechanisms", self.mechanisms))
        lifetime_ms = getattr(response, "session_lifetime_ms", None)
        if lifetime_ms is not None:
            self._renew_at = self._loop.time() + RENEW_SHARE * lifetime_ms / 1000 if lifetime_ms > 0 else math.inf
        return response

    def authenticator_oauth(self) -> Any:
        """Log in by token; see _ByToken."""
        return _ByToken(sasl_oauth_token_provider=self._sasl_oauth_token_provider)

    def close(self, reason: Any = None, exc: BaseException | None = None) -> asyncio.Future[None]:
        """Close without a word, and return what is done when the socket is closed."""
        writer = self._writer
        done: asyncio.Future[None] = super().close(reason, exc)
        if writer is not None:
            writer.transport.abort()
        return done


class _ByToken(OAuthAuthenticator):  # type: ignore[misc]
    """Shows the token and waits for the verdict.

    A broker that refuses a token answers what is wrong and fails the log-in only after a further message of the client
    (RFC 7628, 3.2.3). Who does not send that holds a connection that it believes to be logged in.
    """

    _is_refused = False

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        """Return the next message and whether an answer to it is expected, None if the broker is content."""
        if self._is_refused:
            raise SaslAuthenticationFailed((payload or b"").decode("latin-1"))
        if not payload:
            message: tuple[bytes, bool] | None = await super().step(payload)
            return message
        self._is_refused = True
        return b"\x01", True


class _Outgoing:
    """A request as aiokafka's connection wants to see it."""

    class RESPONSE_TYPE:  # noqa: N801 - aiokafka's name
        """Hands the answer's bytes through."""

        @staticmethod
        def decode(buffer: BytesIO) -> bytes:
            """Return what follows the header."""
            return buffer.read()

    def __init__(self, request: Request) -> None:
        self.API_KEY = request.api_key
        self.API_VERSION = request.version
        self._request = request

    def prepare(self, _versions: Versions) -> _Outgoing:
        """Return itself: the version has been chosen."""
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> Any:
        """Build header v2 for flexible versions (KIP-482), v1 otherwise."""
        header = RequestHeader_v2 if self._request.flexible else RequestHeader_v1
        return header(self, correlation_id=correlation_id, client_id=client_id)

    def parse_response_header(self, buffer: BytesIO) -> Any:
        """Read header v1 for flexible versions, v0 otherwise."""
        header = ResponseHeader_v1 if self._request.flexible else ResponseHeader_v0
        return header.decode(buffer)

    def encode(self) -> bytes:
        """Return the body."""
        return self._request.body


def _options(cluster: Cluster) -> dict[str, Any]:
    options: dict[str, Any] = {
        "client_id": CLIENT_ID,
        # Each step's own limit; the caller bounds the whole, and closes the connection when it is passed.
        "request_timeout_ms": cluster.timeout_seconds * 1000 * 2,
        "max_idle_ms": IDLE_MS,
        "security_protocol": cluster.security_protocol,
    }
    if cluster.security_protocol in TLS_PROTOCOLS:
        options["ssl_context"] = tls_context(cluster.tls)
    if cluster.security_protocol.startswith("SASL_"):
        if cluster.sasl is None:
            raise SettingsError(
                [f"clusters.{cluster.name}: {cluster.security_protocol} needs sasl: add user and password"]
            )
        if cluster.sasl.mechanism == "GSSAPI" and aiokafka.conn.gssapi is None:
            raise SettingsError([f"clusters.{cluster.name}: {_NO_GSSAPI}"])
        options |= {
            "sasl_mechanism": cluster.sasl.mechanism,
            "sasl_kerberos_service_name": cluster.sasl.kerberos_service_name,
            "sasl_kerberos_domain_name": cluster.sasl.kerberos_domain_name,
            "sasl_plain_username": cluster.sasl.username,
            "sasl_plain_password": cluster.sasl.password and cluster.sasl.password.get_secret_value(),
        }
    return options


_NO_GSSAPI = (
    "mechanism GSSAPI needs the Python package gssapi, which is built on the Kerberos of this machine: install the "
    "system package libkrb5-dev (Debian) or krb5-devel (Red Hat), then pip install 'streamgauge[gssapi]'"
)


def _by_token(cluster: Cluster) -> bool:
    return cluster.sasl is not None and cluster.sasl.mechanism == "OAUTHBEARER"


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of a client that trusts and shows what the settings say.

    Raises:
        SettingsError: A file cannot be read or holds no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file, cadata=tls.ca_pem)
    except OSError as exc:
        where = f"tls.ca_file: {tls.ca_file}" if tls.ca_file is not None else "tls.ca_pem"
        raise SettingsError([f"{where} could not be read as PEM certificates: {exc}"]) from exc
    context.check_hostname = tls.check_hostname
    if tls.cert_file is not None or tls.cert_pem is not None:
        _load_client_certificate(context, tls)
    return context


def _load_client_certificate(context: ssl.SSLContext, tls: Tls) -> None:
    password = None if tls.key_password is None else tls.key_password.get_secret_value()
    key_pem = None if tls.key_pem is None else tls.key_pem.get_secret_value()
    with ExitStack() as stack:
        cert = tls.cert_file if tls.cert_pem is None else _as_file(stack, tls.cert_pem)
        key = tls.key_file if key_pem is None else _as_file(stack, key_pem)
        try:
            # An empty password instead of none: with none, OpenSSL asks on the terminal.
            context.load_cert_chain(str(cert), key, password or "")
        except OSError as exc:
            named = "tls.cert_pem" if tls.cert_pem is not None else f"tls.cert_file: {tls.cert_file}"
            key_named = "tls.key_pem" if key_pem is not None else f"key {tls.key_file}"
            with_key = "" if key is None else f" with {key_named}"
            message = (
                f"{named}{with_key} could not be used as client certificate (files, password, do they fit?): {exc}"
            )
            raise SettingsError([message]) from exc


def _as_file(stack: ExitStack, pem: str) -> str:
    """Write a text where OpenSSL wants a file, readable by us only and gone with the stack."""
    file = tempfile.NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115 - the stack closes it
    stack.enter_context(file)
    file.write(pem)
    file.flush()
    return file.name


def _silence() -> None:
    """Keep aiokafka's loggers quiet unless somebody set their level: what they say comes back as TransportError."""
    logger = logging.getLogger("aiokafka")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)


def _translate_first(address: Address, exc: BaseException, security_protocol: str) -> TransportError:
    """Say why a connection did not come about: here a wrong port or protocol shows."""
    cause = _cause(exc)
    if isinstance(exc, KafkaConnectionError) and isinstance(cause, KafkaConnectionError | EOFError | ConnectionError):
        hint = f"is it a Kafka broker, and is security_protocol {security_protocol} right?"
        if security_protocol in TLS_PROTOCOLS:
            hint = f"does it want a client certificate, or another security_protocol than {security_protocol}?"
        return TransportError(f"{address} closed the connection instead of answering: {hint}", Why.DISCONNECTED)
    if isinstance(cause, ConnectionRefusedError):
        return _translate(address, exc)
    if isinstance(cause, ConnectionError | ssl.SSLEOFError) and security_protocol in TLS_PROTOCOLS:
        hint = f"does it speak TLS, as security_protocol {security_protocol} has it?"
        return TransportError(f"{address} broke off the TLS handshake: {hint}", Why.REFUSED)
    if isinstance(cause, ConnectionError):
        return TransportError(f"{address} could not be connected: {cause.strerror or cause}", Why.REFUSED)
    return _translate(address, exc)


def _translate(address: Address, exc: BaseException) -> TransportError:
    why: int
    match _cause(exc):
        case TransportError() as cause:
            return cause
        case socket.gaierror() as cause:
            text, why = f"the name of {address} does not resolve: {cause.strerror}", Why.REFUSED
        case ssl.SSLCertVerificationError() as cause:
            text, why = f"the certificate of {address} is not trusted: {cause.verify_message}", Why.REFUSED
        case ssl.SSLError() as cause:
            text, why = f"TLS with {address} failed: {cause.reason or cause}", Why.REFUSED
        case TimeoutError():
            text, why = f"{address} did not answer in time", Why.TIMEOUT
        case OSError() as cause if _is_refusal(cause):
            text, why = f"{address} refused the connection", Why.REFUSED
        case KafkaConnectionError() | EOFError() | ConnectionError():
            text, why = f"the connection to {address} broke", Why.DISCONNECTED
        case OSError() as cause:
            text, why = f"{address} could not be connected: {cause.strerror or cause}", Why.REFUSED
        case UnicodeError():  # from the codec of host names; answers are decoded elsewhere
            text, why = f"the name of {address} does not resolve: it is no host name", Why.REFUSED
        case IncompatibleBrokerVersion():  # our own requests are checked before: this is about SASL
            text, why = f"{address} offers no log-in: is security_protocol right?", Why.UNSUPPORTED
        case KafkaError() as cause if getattr(cause, "errno", None) is not None:
            why = int(cause.errno)
            text = f"{address} answered {why_name(why)}"
        case _:
            text, why = f"{address} does not answer like a Kafka broker", Why.MALFORMED
    return TransportError(text, why)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:_QUOTED]


def _is_refusal(exc: OSError) -> bool:
    """Return whether nobody listens, at any of the name's addresses: asyncio puts several failures into one text."""
    numbers = set(re.findall(r"\[Errno (\d+)\]", str(exc)))
    return isinstance(exc, ConnectionRefusedError) or numbers == {str(errno.ECONNREFUSED)}


def _cause(exc: BaseException) -> BaseException:
    """Return what broke a connection, where aiokafka tells: what came in could not be read, or TLS failed."""
    return exc.__cause__ if isinstance(exc, KafkaConnectionError) and exc.__cause__ is not None else exc
