"""Tokens for OAUTHBEARER: of an endpoint, for client credentials (RFC 6749, 4.4), or of a file that others renew.

One token serves all brokers of a cluster. That of an endpoint is used for four fifths of its life, which the answer
tells (``expires_in``), else the token itself (a JWT's ``exp``, RFC 7519); for the rest of it, while no new one is to be
had. One that tells neither is used for one log-in. The endpoint is asked when a broker wants a log-in and never twice
at once, and it is given its time even when whoever asked first gives up. A file is read at each log-in. A token that a
broker refused is not used again; after one that had been kept for a while, and whose key may have been replaced since,
a new one is worth another log-in.

Whatever goes wrong is a TransportError in one line, without the secret and without the token.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from monitor.errors import SettingsError, TransportError
from monitor.model import Why
from monitor.settings import Sasl

if TYPE_CHECKING:
    from aiohttp import ClientResponse

USED_SHARE = 0.8
"""Share of a token's life that it is used for, as Kafka's own clients have it (sasl.login.refresh.window.factor)."""

FRESH_SECONDS = 1.0
"""Age of a token up to which its refusal is final: what is wrong is wrong with the next one as well."""

TIMEOUT_SHARE = 0.8
"""Share of a request's time that the endpoint may take: what is left is for the broker, and for saying who was slow."""

_LONGEST = 1_048_576
"""Bytes of an answer or a file that are read at most."""

_QUOTED = 200
"""Characters of somebody else's words that are quoted at most."""

_OK, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN = 200, 400, 401, 403


class Tokens(Protocol):
    """Where tokens come from."""

    async def token(self) -> str:
        """Return a token that is good now, as far as one can know.

        Raises:
            TransportError: There is none: who was asked, what came back, and what to do.
        """
        ...

    def refused(self, token: str) -> bool:
        """Take note that a broker refused a token; return whether another one may do better."""
        ...

    def about(self, token: str) -> str:
        """Say what there is to check about a token that a broker refused."""
        ...

    async def close(self) -> None:
        """End what is under way."""
        ...


def tokens(sasl: Sasl, timeout_seconds: float) -> Tokens:
    """Return the tokens that the settings name; ``timeout_seconds`` is what one request to a broker may take.

    Raises:
        SettingsError: ``token_ca_file`` cannot be used.
    """
    return FileTokens(sasl.token_file) if sasl.token_file is not None else EndpointTokens(sasl, timeout_seconds)


class FileTokens:
    """A token in a file, read anew at each log-in: whoever wrote it keeps it fresh."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """Read the token; see Tokens."""
        try:
            content = await asyncio.to_thread(self._read)
        except OSError as exc:
            problem = f"token_file {self._path} could not be read: {exc.strerror or exc}: check the path"
            raise _failure(problem) from exc
        text = content.decode("latin-1").strip()
        if not _is_token(text):
            what = "holds no token" if text else "is empty"
            problem = f"token_file {self._path} {what}: the file should hold one token and nothing else"
            raise _failure(problem)
        return text

    def refused(self, token: str) -> bool:
        """Return that none will: it was read just now."""
        del token
        return False

    def about(self, token: str) -> str:
        """Say what there is to check; see Tokens."""
        return f"{_good_when(token)}, it came from {self._path}"

    async def close(self) -> None:
        """Do nothing."""

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(_LONGEST)


@dataclass(frozen=True, slots=True)
class _Held:
    text: str = field(repr=False)
    asked_at: float
    """Time of the event loop."""
    seconds: float
    """How long it is good from then on, 0 if unknown."""

    def is_good(self, at: float, share: float = 1.0) -> bool:
        """Return whether a share of its life is not over at a time."""
        return at < self.asked_at + share * self.seconds


def _now() -> float:
    return asyncio.get_running_loop().time()


class EndpointTokens:
    """Tokens of an endpoint: one is kept for as long as it is good. ``clock`` is the event loop's time."""

    def __init__(self, sasl: Sasl, timeout_seconds: float, clock: Callable[[], float] = _now) -> None:
        assert sasl.token_endpoint and sasl.client_id and sasl.client_secret is not None  # noqa: S101, PT018 - settings see to it
        self._url = sasl.token_endpoint
        self._client_id = sasl.client_id
        self._secret = sasl.client_secret.get_secret_value()
        # Not encoded any further, as Kafka's own clients send them (its sasl.oauthbearer.header.urlencode is false).
        pair = f"{self._client_id}:{self._secret}".encode()
        self._credentials = f"Basic {base64.b64encode(pair).decode()}"
        self._form = {"grant_type": "client_credentials", **({"scope": sasl.scope} if sasl.scope else {})}
        self._seconds = timeout_seconds * TIMEOUT_SHARE
        self._tls = _tls_context(sasl.token_ca_file) if self._url.lower().startswith("https:") else None
        # Without the query, which may hold a key.
        self._name = f"token endpoint {urlunsplit((*urlsplit(self._url)[:3], '', ''))}"
        self._clock = clock
        self._held: _Held | None = None
        self._asking: asyncio.Task[_Held] | None = None

    async def token(self) -> str:
        """Return the kept token, or ask for a new one, together with whoever asks meanwhile; see Tokens."""
        held = self._held
        if held is not None and held.is_good(self._clock(), USED_SHARE):
            return held.text
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="token")
            self._asking.add_done_callback(self._asked)
        try:
            # Shielded: others may wait for the same answer when this log-in is given up.
            return (await asyncio.shield(self._asking)).text
        except TransportError:
            if held is None or not held.is_good(self._clock()):
                raise
            return held.text

    def refused(self, token: str) -> bool:
        """Forget the token; see Tokens."""
        held = self._held
        if held is None or held.text != token:
            return False
        self._held = None
        return self._clock() - held.asked_at > FRESH_SECONDS

    def about(self, token: str) -> str:
        """Say what there is to check; see Tokens."""
        return f"{_good_when(token)}, it came from {self._name}"

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def _asked(self, task: asyncio.Task[_Held]) -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is None:
            self._held = task.result()

    async def _ask(self) -> _Held:
        import aiohttp  # noqa: PLC0415 - slow to import, and needed with an endpoint only

        asked_at = self._clock()
        try:
            async with (
                asyncio.timeout(self._seconds),
                aiohttp.ClientSession() as session,
                session.post(
                    self._url,
                    data=self._form,
                    headers={"Accept": "application/json", "Authorization": self._credentials},
                    ssl=self._tls or True,
                    proxy=_proxy(self._url),
                    allow_redirects=False,  # who the credentials are for is in the settings
                ) as response,
            ):
                content = await _content(response)
        except TimeoutError as exc:
            text = f"{self._name} did not answer within {self._seconds:g} s: check that it runs"
            raise _failure(text) from exc
        except aiohttp.ClientConnectorCertificateError as exc:
            why = getattr(exc.certificate_error, "verify_message", "") or exc.certificate_error
            text = f"the certificate of {self._name} is not trusted: {why}: name its authority by token_ca_file"
            raise _failure(text) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            text = f"{self._name} could not be asked: {_reason(exc)}: check token_endpoint and that it runs"
            raise _failure(text) from exc
        text, seconds = self._understand(response.status, response.content_type, content)
        return _Held(text, asked_at, seconds)

    def _understand(self, status: int, kind: str, content: bytes) -> tuple[str, float]:
        """Return the token in an answer and for how many seconds it is good, 0 if that is not known."""
        answer = _json(content)
        if status != _OK:
            raise _failure(self._refusal(status, answer))
        if answer is None:
            text = f"{self._name} answered {_printable(kind)}, no JSON object: is it the URL that gives tokens?"
            raise _failure(text)
        token = answer.get("access_token")
        if not isinstance(token, str) or not _is_token(token):
            text = f"{self._name} answered without an access_token that could be used: is it the URL that gives tokens?"
            raise _failure(text)
        return token, _seconds(answer.get("expires_in")) or _life(token)

    def _refusal(self, status: int, answer: Mapping[str, Any] | None) -> str:
        said = " ".join(
            _printable(str(answer[name])) for name in ("error", "error_description") if answer and name in answer
        )
        said = said.replace(self._secret, "…") if self._secret else said
        quoted = f" ({said})" if said else ""
        if status in {_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN}:
            who = _printable(self._client_id)
            return f"{self._name} refused client {who} with {status}{quoted}: check client_id, client_secret and scope"
        return f"{self._name} answered {status}{quoted} instead of a token: check token_endpoint and that it runs"


async def _content(response: ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _LONGEST:
            break
    return bytes(content[:_LONGEST])


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL. aiohttp's own look-up would read ~/.netrc as well."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _tls_context(authorities: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as exc:
        message = f"sasl.token_ca_file: {authorities} could not be read as PEM certificates: {exc}"
        raise SettingsError([message]) from exc


def _failure(text: str) -> TransportError:
    return TransportError(text, Why.REFUSED)


def _reason(exc: BaseException) -> str:
    """Return in a few words why a connection failed; aiohttp wraps what the system said."""
    inner = getattr(exc, "os_error", None) or exc
    return _printable(getattr(inner, "strerror", None) or str(inner) or type(inner).__name__)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:_QUOTED]


def _is_token(text: str) -> bool:
    """Return whether a text can go into a log-in: RFC 7628 ends the token with a control character."""
    return re.fullmatch(r"[\x21-\x7e]+", text) is not None


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _seconds(value: object) -> float:
    """Return a number of seconds, also one written as text, as some endpoints do; 0 if it is none above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    with contextlib.suppress(ValueError, OverflowError):
        number = float(value)
        return number if math.isfinite(number) and number > 0 else 0.0
    return 0.0


def claims(token: str) -> Mapping[str, Any]:
    """Return what a JWT says about itself, without checking who signed it; nothing for another token."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        return {}
    try:
        content = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except (binascii.Error, ValueError):
        return {}
    return _json(content) or {}


def _life(token: str) -> float:
    """Return for how many seconds a JWT is good from now, by the clock of who made it where it tells; 0 if unknown."""
    said = claims(token)
    expires, issued = _seconds(said.get("exp")), _seconds(said.get("iat"))
    return max(0.0, expires - (issued or time.time())) if expires else 0.0


def _good_when(token: str) -> str:
    """Say, for whom a broker refused, what the token tells of itself, by this machine's clock."""
    said, at = claims(token), time.time()
    expires, begins = _seconds(said.get("exp")), _seconds(said.get("nbf")) or _seconds(said.get("iat"))
    if not said:
        return "the token is no JWT"
    if expires and expires <= at:
        return f"the token expired {_span(at - expires)} ago"
    if begins > at:
        return f"the token is good only in {_span(begins - at)}: compare the clocks"
    whose = [f"{word} {_printable(str(said[name]))}" for name, word in _WHOSE.items() if said.get(name)]
    still = f"is good for {_span(expires - at)} more" if expires else "does not say when it expires"
    return f"the token {still}, so check what the broker expects ({', '.join(whose) or 'it names nobody'})"


_WHOSE = {"iss": "issuer", "aud": "audience", "sub": "subject"}


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s"
