"""Grafana's HTTP API: one request after the other, and what its answers mean.

The requests go through the session of grafana-api's ``GrafanaFace``, which knows the address, the log-in and the
certificates. Its own methods are from 2020 and fail on answers without a body, on YAML, on query parameters and outside
``/api``; so only the session is used, behind a protocol of one method that a stand-in can take the place of.

What is assumed of servers, 7.5 to 13: an error's body may be an object, an array, text or nothing; a write that was not
answered may have been carried out; and a path that does not exist is 404 for whoever is logged in, and 401 else.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, Protocol, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

import requests
import yaml
from grafana_api.grafana_face import GrafanaFace

from monitor.errors import StreamgaugeError, UnreachableError, UsageError
from monitor.settings import Grafana as GrafanaSettings

Json: TypeAlias = dict[str, Any]


# --- the edge ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``path`` starts with a slash, its parts and the query are encoded already; a body is JSON."""

    method: str
    path: str
    body: Json | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``retry_after_seconds`` is what a server that is too busy asks for."""

    status: int
    body: bytes = field(default=b"", repr=False)
    media_type: str = "application/json"
    retry_after_seconds: float | None = None

    def content(self) -> Any:
        """Return the body: JSON or YAML as what it says, any other text as text, nothing as None."""
        text = self.body.decode(errors="replace")
        if not text.strip():
            return None
        try:
            if "yaml" in self.media_type:
                return yaml.safe_load(text)
            return json.loads(text)
        except (ValueError, yaml.YAMLError):
            return text


class Transport(Protocol):
    """Carries one request to a Grafana and its answer back."""

    @property
    def url(self) -> str:
        """Return where it is, without a slash at the end and without secrets."""

    def send(self, request: Request) -> Reply:
        """Return the answer, whatever its status.

        Raises:
            UnansweredError: there was none; a write may have been carried out all the same.
        """


class FaceTransport:
    """The session of a ``GrafanaFace``. Bring your own, or have ``connect`` make one."""

    def __init__(self, face: GrafanaFace) -> None:
        self._api = face.api

    @property
    def url(self) -> str:
        """Return where it is."""
        return str(self._api.url).removesuffix("/api")

    def send(self, request: Request) -> Reply:
        """Return the answer, whatever its status; a redirect is an answer and is not followed.

        Raises:
            UnansweredError: there was none.
        """
        try:
            answer = self._api.s.request(
                request.method,
                self.url + request.path,
                json=request.body,
                headers={"Accept": "application/json", **request.headers},
                auth=self._api.auth,
                verify=self._api.verify,
                timeout=self._api.timeout,
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            raise UnansweredError(request, self.url, _why(exc)) from exc
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return Reply(answer.status_code, answer.content, media_type, _seconds(answer.headers.get("Retry-After")))


def connect(settings: GrafanaSettings) -> Grafana:
    """Return the Grafana of the settings; nothing is asked yet.

    Raises:
        UsageError: there is no log-in, or no file with certificates.
    """
    if settings.ca_file is not None and not settings.ca_file.is_file():
        msg = f"grafana.ca_file: there is no file {settings.ca_file}: check the path"
        raise UsageError(msg)
    parts = urlsplit(settings.url)
    host = parts.hostname or ""
    prefix = parts.path.strip("/")
    face = GrafanaFace(
        settings.token.get_secret_value() if settings.token else _name_and_password(settings),
        host=f"[{host}]" if ":" in host else host,
        port=parts.port,
        url_path_prefix=f"{prefix}/" if prefix else "",
        protocol=parts.scheme,
        verify=str(settings.ca_file) if settings.ca_file else True,
        timeout=settings.timeout_seconds,
    )
    if settings.org_id is not None:
        face.api.s.headers["X-Grafana-Org-Id"] = str(settings.org_id)
    grafana = Grafana(FaceTransport(face))
    secrets = (settings.token, settings.password)
    grafana.hide(*(secret.get_secret_value() for secret in secrets if secret is not None))
    return grafana


def login_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the log-in that the environment has, by fields of the settings: a token, or name and password."""
    if environ.get("GRAFANA_TOKEN"):
        return {"token": environ["GRAFANA_TOKEN"]}
    names = {"username": "GRAFANA_USER", "password": "GRAFANA_PASSWORD"}
    return {field: environ[name] for field, name in names.items() if environ.get(name)}


def _name_and_password(settings: GrafanaSettings) -> tuple[str, str]:
    if settings.username is None or settings.password is None:
        msg = (
            f"no log-in for Grafana at {settings.url}: set GRAFANA_TOKEN (a service account's token), or GRAFANA_USER "
            "and GRAFANA_PASSWORD, or grafana.token in the settings"
        )
        raise UsageError(msg)
    return settings.username, settings.password.get_secret_value()


def _why(exc: requests.RequestException) -> str:
    """Return why there was no answer in a few words; requests' own texts are long and name the URL again."""
    if isinstance(exc, requests.exceptions.SSLError):
        return "the certificate or the TLS handshake was refused"
    if isinstance(exc, requests.exceptions.ConnectTimeout | requests.exceptions.ReadTimeout):
        return "no answer in time"
    found = re.search(r"\[Errno \d+\] ([^'\")]+)", str(exc))
    return found[1] if found else type(exc).__name__


def _seconds(text: str | None) -> float | None:
    """Read a Retry-After that is a number of seconds; Grafana sends no dates."""
    return float(text) if text and text.isdecimal() else None


# --- what goes wrong ---------------------------------------------------------------------------------


class GrafanaError(StreamgaugeError):
    """A request to Grafana did not do what it was to do."""

    def __init__(self, request: Request, url: str, text: str, status: int | None = None) -> None:
        self.request = request
        self.status = status
        super().__init__(f"{request.method} {url}{request.path}: {text}")


class UnansweredError(GrafanaError, UnreachableError):
    """There was no answer: a write may have been carried out, or not."""


class NotFoundError(GrafanaError):
    """404: it is not there, or this Grafana does not know such things."""


class DeniedError(GrafanaError):
    """401 or 403: not logged in, or not allowed to."""


class ChangedError(GrafanaError):
    """409 or 412: somebody else has changed or created it since it was read."""


class RefusedError(GrafanaError):
    """Any other 3xx or 4xx: Grafana does not take it as it is, and asking again would not help."""


class FaultError(GrafanaError):
    """5xx: Grafana failed; a write may have been carried out, or not."""


_OK, _REDIRECT, _CLIENT_ERROR, _SERVER_ERROR = 200, 300, 400, 500
_TOO_MANY_REQUESTS = 429
_AWAY = frozenset({_TOO_MANY_REQUESTS, 502, 503, 504})
"""Asking again may help."""

_ADVICE: Mapping[int, str] = {
    401: "check the token or the password",
    403: "the token's role may not do that: it needs Admin, or Editor and the rights that the manual lists",
}

_ERRORS: Mapping[int, type[GrafanaError]] = {
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    409: ChangedError,
    412: ChangedError,
}


def text_of(content: object) -> str:
    """Return what an error's body says: ``message`` of an object, of each object of an array, or the text itself."""
    match content:
        case {"message": str() as message} if message:
            return _shortened(message)
        case list():
            return "; ".join(text_of(each) for each in content)
        case str():
            return _shortened(re.sub(r"<[^>]*>", " ", content))
        case _:
            return "no explanation"


def _shortened(text: str) -> str:
    """Return a text that fits into a line, without what could hurt a terminal."""
    words = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"


_SHOWN = 300


# --- asking ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is sent at most, and how long is waited before the second time; then twice as long.

    Nobody there at all is mostly a wrong address, so that is tried again only once.
    """

    attempts: int = 4
    attempts_unanswered: int = 2
    first_seconds: float = 0.5
    most_seconds: float = 20.0

    def seconds(self, attempt: int, asked_for: float | None) -> float:
        """Return how long to wait after the nth attempt (from 0) failed; a server may ask for more, not for ever."""
        return min(self.most_seconds, max(self.first_seconds * 2.0**attempt, asked_for or 0.0))


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a Grafana is: its version, None where it does not tell, and the API groups below /apis with versions."""

    version: str | None
    groups: Mapping[str, tuple[str, ...]]


class Grafana:
    """A Grafana. Reading is repeated while the server is away; writing only where it said that it did nothing."""

    def __init__(
        self, transport: Transport, *, patience: Patience | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._transport = transport
        self._patience = patience or Patience()
        self._sleep = sleep
        self._secrets: set[str] = set()

    @property
    def url(self) -> str:
        """Return where it is."""
        return self._transport.url

    @cached_property
    def abilities(self) -> Abilities:
        """Ask what it is, once. An API group that may not be listed counts as absent."""
        health = self.find("api", "health")
        try:
            listed = self.find("apis")
        except (DeniedError, RefusedError):  # a proxy in between that lets nothing but /api through
            listed = None
        groups = listed.get("groups", []) if isinstance(listed, dict) else []
        return Abilities(
            health.get("version") or None if isinstance(health, dict) else None,
            {each["name"]: tuple(version["version"] for version in each["versions"]) for each in groups},
        )

    def hide(self, *secrets: str) -> None:
        """Keep these texts out of every error from now on, even where Grafana repeats them."""
        self._secrets.update(filter(None, secrets))

    def get(self, *path: str, **query: str | int) -> Any:
        """Return what is there.

        Raises:
            GrafanaError: it cannot be read.
        """
        return self._ask(Request("GET", path_of(*path, **query)))

    def find(self, *path: str, **query: str | int) -> Any | None:
        """Return what is there, None if nothing is.

        Raises:
            GrafanaError: it cannot be read.
        """
        try:
            return self.get(*path, **query)
        except NotFoundError:
            return None

    def write(self, method: str, *path: str, body: Json | None = None, **query: str | int) -> Any:
        """Have something created, changed or deleted, and return what Grafana says.

        Raises:
            ChangedError: somebody else was faster.
            UnansweredError, FaultError: it may have happened.
            GrafanaError: it did not happen.
        """
        return self._ask(Request(method, path_of(*path, **query), body))

    def _ask(self, request: Request) -> Any:
        attempt = 0
        while True:
            try:
                reply = self._transport.send(request)
            except UnansweredError:
                if request.method != "GET" or attempt + 1 >= self._patience.attempts_unanswered:
                    raise
                asked_for = None
            else:
                may_repeat = reply.status in _AWAY if request.method == "GET" else reply.status == _TOO_MANY_REQUESTS
                if not may_repeat or attempt + 1 >= self._patience.attempts:
                    return self._content(request, reply)
                asked_for = reply.retry_after_seconds
            self._sleep(self._patience.seconds(attempt, asked_for))
            attempt += 1

    def _content(self, request: Request, reply: Reply) -> Any:
        if _OK <= reply.status < _REDIRECT:
            content = reply.content()
            if isinstance(content, str) and "html" in reply.media_type:
                self._refuse(request, reply, RefusedError, "answered with a page: is that Grafana's address?")
            return content
        if reply.status < _CLIENT_ERROR:
            self._refuse(request, reply, RefusedError, "redirects elsewhere: give the address it redirects to")
        content = reply.content()
        text = f"{reply.status} {text_of(content)}"
        if reply.status in _ADVICE:
            text = f"{text}: {_ADVICE[reply.status]}"
        is_taken = isinstance(content, dict) and content.get("status") == "name-exists"
        usual = FaultError if reply.status >= _SERVER_ERROR else RefusedError
        return self._refuse(request, reply, RefusedError if is_taken else _ERRORS.get(reply.status, usual), text)

    def _refuse(self, request: Request, reply: Reply, error: type[GrafanaError], text: str) -> NoReturn:
        # The longest first: a secret may be part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "********")
        raise error(request, self.url, text, reply.status)


def path_of(*parts: str, **query: str | int) -> str:
    """Return the path of parts, each of which may hold any character, and a query."""
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    return f"{path}?{urlencode(query)}" if query else path
