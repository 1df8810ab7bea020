"""Serving over HTTP: metrics, health, the report as JSON, and the status page.

What is served is the latest ``Published``, one immutable reference: an answer takes it once and is whole, however
often it is swapped meanwhile. Metrics are bytes made before anybody asks. JSON and the plain text of large clusters
are made in a thread when asked for, once for as long as their report is the latest, however many ask.

Clients are not trusted to be quick: a body goes out in small pieces, each waits for the one before to be taken, and
whoever has not taken all of it in ``SEND_SECONDS`` is cut off. There are no requests with a body, no cookies and no
way to change anything.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from isal import isal_zlib

from monitor.errors import StreamgaugeError
from monitor.model import Consumer, Kind, Report
from monitor.publish.report_json import consumer_json, dump, find, json_pieces
from monitor.publish.trail import Trail

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
JSON_TYPE = "application/json; charset=utf-8"

KEEP_ALIVE_SECONDS = 75.0  # nginx's default: longer than the scrape intervals in use
SEND_SECONDS = 30.0
STOP_SECONDS = 1.0
PIECE = 256 * 1024  # of a body: what waits in memory for a slow client is at most this
WORTH_COMPRESSING = 1400  # less fits into one packet of an Ethernet

NOT_READY = "not ready: not every cluster has answered or failed once yet\n"
PATHS = "/ (status page), /metrics, /healthz, /readyz, /api/v1/report, /api/v1/consumers/KIND/NAME, /api/v1/trail"

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Server": "streamgauge",
}


class Rendered(Protocol):
    """An exposition ready to be served: ``monitor.publish.exposition.Rendered``."""

    @property
    def plain(self) -> bytes: ...  # noqa: D102

    @property
    def gzip(self) -> bytes: ...  # noqa: D102


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What is served from now on. ``complete``: every cluster has answered or failed once."""

    report: Report
    rendered: Rendered
    complete: bool


class HttpServer:
    """Serves what ``latest`` returns, None before there is anything. ``trail`` is what sparklines are drawn from."""

    def __init__(
        self, host: str, port: int, latest: Callable[[], Published | None], *, trail: Trail | None = None
    ) -> None:
        self._host, self._port = host, port
        self._latest = latest
        self._trail = trail or Trail()
        self._made = _Made()
        self._runner: web.AppRunner | None = None

    async def start(self) -> tuple[str, int]:
        """Listen, and return the host and port that are listened on.

        Raises:
            StreamgaugeError: they cannot be.
        """
        runner = web.AppRunner(
            self._app(), access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=STOP_SECONDS
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except (OSError, UnicodeError) as exc:  # UnicodeError: not even the form of a host name
            await runner.cleanup()
            raise StreamgaugeError(_cannot_listen(self._host, self._port, exc)) from exc
        self._runner = runner
        host, port = runner.addresses[0][:2]
        return host, port

    async def stop(self) -> None:
        """Stop listening, and cut off whoever still reads."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_say_what_is_wrong])
        app.on_response_prepare.append(_add_security_headers)
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/api/v1/report", self._report),
                web.get("/api/v1/consumers/{kind}/{name:(?s:.*)}", self._consumer),  # a name may hold line breaks
                web.get("/api/v1/trail", self._trail_json),
                *_page_routes(),
            ]
        )
        return app

    # --- metrics and health

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        published = self._latest()
        if published is None or not published.complete:
            return await _send(request, NOT_READY.encode(), TEXT_TYPE, status=503)
        headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
        if accepts_gzip(request):
            return await _send(request, published.rendered.gzip, METRICS_TYPE, headers | {"Content-Encoding": "gzip"})
        rendered = published.rendered
        plain = await self._made.of(published.report, "metrics", lambda: rendered.plain)
        return await _send(request, plain, METRICS_TYPE, headers)

    async def _healthz(self, request: web.Request) -> web.StreamResponse:
        return await _send(request, b"ok\n", TEXT_TYPE)

    async def _readyz(self, request: web.Request) -> web.StreamResponse:
        published = self._latest()
        if published is None or not published.complete:
            return await _send(request, NOT_READY.encode(), TEXT_TYPE, status=503)
        return await _send(request, b"ok\n", TEXT_TYPE)

    # --- the API

    async def _report(self, request: web.Request) -> web.StreamResponse:
        report = self._latest_report()
        partitions = request.query.get("partitions", "1")
        if partitions not in {"0", "1"}:
            raise _problem(400, f"partitions is 0 or 1, not {partitions!r}")
        return await self._send_json(
            request, report, f"report{partitions}", lambda: json_pieces(report, partitions=partitions == "1")
        )

    async def _consumer(self, request: web.Request) -> web.StreamResponse:
        report = self._latest_report()
        kind, name, cluster = request.match_info["kind"], request.match_info["name"], request.query.get("cluster")
        if kind not in set(Kind):
            raise _problem(404, f"no kind {kind!r}: there are {', '.join(Kind)}")
        where = find(report, Consumer(Kind(kind), name), cluster)
        if not where:
            raise _problem(404, f"no {kind} {name!r}" + (f" in cluster {cluster!r}" if cluster else ""))
        if len(where) > 1:
            names = ", ".join(repr(found.name) for found, _ in where)
            raise _problem(400, f"{kind} {name!r} is in the clusters {names}: say which with ?cluster=")
        found, index = where[0]
        key = dump(["consumer", kind, name, found.name])
        return await self._send_json(
            request, report, key, lambda: [dump({"cluster": found.name, "consumer": consumer_json(found, index)})]
        )

    async def _trail_json(self, request: web.Request) -> web.StreamResponse:
        report, since = self._latest_report(), request.query.get("since")
        try:
            after = None if since is None else _seconds(since)
        except (ValueError, OverflowError) as exc:
            raise _problem(400, f"since is a time such as 2026-11-23T13:00:00.123Z, not {since!r}") from exc
        return await self._send_json(request, report, f"trail{after}", lambda: [dump(self._trail.as_json(after))])

    def _latest_report(self) -> Report:
        published = self._latest()
        if published is None:
            raise _problem(503, "no cluster has been read yet")
        return published.report

    async def _send_json(
        self, request: web.Request, report: Report, key: str, pieces: Callable[[], Iterable[str]]
    ) -> web.StreamResponse:
        """Send JSON made of a report, or 304 to who has it already."""
        etag = self._made.etag(report)
        headers = {"ETag": etag, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
        if _has(request, etag):
            return await _send(request, b"", JSON_TYPE, headers, status=304)
        gzipped = accepts_gzip(request)
        body = await self._made.of(report, f"{key}{gzipped}", lambda: _encoded(pieces(), compress=gzipped))
        return await _send(request, body, JSON_TYPE, headers | ({"Content-Encoding": "gzip"} if gzipped else {}))


class _Made:
    """Bodies made from the latest report, each once and in a thread, dropped with the report.

    Entity tags are weak (RFC 9110): they stand for a report, whatever its encoding.
    """

    LIMIT = 64  # bodies of one report: consumers that are looked at

    def __init__(self) -> None:
        self._start = uuid.uuid4().hex[:12]  # another process' third report is not ours
        self._report: Report | None = None
        self._number = 0
        self._bodies: dict[str, asyncio.Future[bytes]] = {}

    def etag(self, report: Report) -> str:
        """Return the entity tag of everything made from the report."""
        self._turn_to(report)
        return f'W/"{self._start}-{self._number}"'

    def of(self, report: Report, key: str, make: Callable[[], bytes]) -> Awaitable[bytes]:
        """Return what ``make`` returns, called once for this report and key."""
        self._turn_to(report)
        if key not in self._bodies and len(self._bodies) >= self.LIMIT:
            self._bodies.pop(next(iter(self._bodies)))
        if key not in self._bodies:
            self._bodies[key] = asyncio.ensure_future(asyncio.to_thread(make))
        # One client that goes away must not take the body from the others.
        return asyncio.shield(self._bodies[key])

    def _turn_to(self, report: Report) -> None:
        if report is not self._report:
            self._report, self._bodies = report, {}
            self._number += 1


# --- answers ----------------------------------------------------------------------------------------


async def _send(
    request: web.Request, body: bytes, content_type: str, headers: dict[str, str] | None = None, *, status: int = 200
) -> web.StreamResponse:
    """Send a body piece by piece, no faster than it is taken."""
    response = web.StreamResponse(status=status, headers={"Content-Type": content_type, **(headers or {})})
    if status != web.HTTPNotModified.status_code:
        response.content_length = len(body)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await response.prepare(request)
            if request.method != hdrs.METH_HEAD:
                view = memoryview(body)
                for begin in range(0, len(view), PIECE):
                    await response.write(view[begin : begin + PIECE])
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # Gone in the middle of its answer: there is nobody left to tell, and nothing wrong here.
    return response


def _encoded(pieces: Iterable[str], *, compress: bool) -> bytes:
    if not compress:
        return "".join(pieces).encode()
    compressor = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)  # 16 + 15: with gzip's header and trailer
    return b"".join([*(compressor.compress(piece.encode()) for piece in pieces), compressor.flush()])


def accepts_gzip(request: web.BaseRequest) -> bool:
    """Return whether Accept-Encoding allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for item in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower().split(","):
        coding, _, parameter = item.partition(";")
        weights[coding.strip()] = _weight(parameter)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if math.isfinite(weight) else 0.0


def _has(request: web.Request, etag: str) -> bool:
    known = request.headers.get(hdrs.IF_NONE_MATCH, "")
    return etag in {tag.strip() for tag in known.split(",")}


def _seconds(time: str) -> float:
    at = datetime.fromisoformat(time)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _problem(status: int, text: str) -> web.HTTPException:
    error: type[web.HTTPException] = {
        400: web.HTTPBadRequest,
        404: web.HTTPNotFound,
        503: web.HTTPServiceUnavailable,
    }[status]
    return error(text=dump({"error": text}), content_type="application/json")


@web.middleware
async def _say_what_is_wrong(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer one clear line where aiohttp's router says no."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as exc:
        exc.text = f"{exc.method} is not allowed here: GET and HEAD are\n"
        raise
    except web.HTTPNotFound as exc:
        if exc.content_type == "text/plain":
            exc.text = f"nothing here; there are {PATHS}\n"
        raise


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY)


# --- the page ---------------------------------------------------------------------------------------


def _page_routes() -> list[web.RouteDef]:
    folder = resources.files("monitor.publish") / "page"
    routes = []
    for name, content_type in PAGE.items():
        path = "/" if name == "index.html" else f"/{name}"
        routes.append(web.get(path, _file_handler((folder / name).read_bytes(), content_type)))
    return routes


def _file_handler(body: bytes, content_type: str) -> Handler:
    etag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'
    gzipped = _encoded([body.decode()], compress=True)
    headers = {"ETag": etag, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}

    async def handle(request: web.Request) -> web.StreamResponse:
        if _has(request, etag):
            return await _send(request, b"", content_type, headers, status=304)
        if accepts_gzip(request) and len(body) > WORTH_COMPRESSING:
            return await _send(request, gzipped, content_type, headers | {"Content-Encoding": "gzip"})
        return await _send(request, body, content_type, headers)

    return handle


def _cannot_listen(host: str, port: int, exc: OSError | UnicodeError) -> str:
    where = f"cannot serve HTTP on {host}:{port}"
    code = exc.errno if isinstance(exc, OSError) else None
    if code == errno.EADDRINUSE:
        return f"{where}: the port is taken; stop what uses it, or set http.port (0 picks a free one)"
    if code == errno.EACCES:
        return f"{where}: not permitted; set http.port to 1024 or higher"
    reason = exc.strerror if isinstance(exc, OSError) else exc
    return f"{where}: {reason}; set http.host to an address of this machine"
