"""Where jobs POST their events when they cannot reach Kafka: a port of its own, which only takes.

``streamgauge.spark.attach(spark, url="http://monitor:9761/")`` sends lines of JSON, some at a time. They are put into
a queue and answered at once with 204; the next cycle reads them. The queue is bounded in number and bytes, and so is a
request: 413 if it is larger. With a token set, a request without it is answered 401. The port of status page and
metrics stays one that only tells.
"""

from __future__ import annotations

import hmac
from collections import deque

from aiohttp import web

from monitor.errors import UnreachableError

LARGEST_REQUEST = 16_000_000
MOST_MESSAGES = 100_000
MOST_BYTES = 64_000_000


class Inbox:
    """Takes what is posted. ``dropped`` counts messages for which there was no room."""

    def __init__(self, token: str | None = None) -> None:
        self.dropped = 0
        self._token = token
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the address.

        Raises:
            UnreachableError: it cannot be listened on.
        """
        app = web.Application(client_max_size=LARGEST_REQUEST)
        app.router.add_post("/{any:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except (OSError, OverflowError) as exc:
            await self.stop()
            problem = f"cannot listen for Spark's events on {host}:{port}: {getattr(exc, 'strerror', None) or exc}"
            raise UnreachableError(f"{problem}: choose another spark_events.listen") from exc  # noqa: EM102
        bound = self._runner.addresses[0][1]
        return f"http://[{host}]:{bound}/" if ":" in host else f"http://{host}:{bound}/"

    def take(self) -> list[bytes]:
        """Return what has come since, oldest first."""
        lines, self._lines, self._bytes = list(self._lines), deque(), 0
        return lines

    async def stop(self) -> None:
        """Listen no longer."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        if self._token is not None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        for line in (await request.read()).splitlines():
            if line:
                self._put(line)
        return web.Response(status=204)

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        while len(self._lines) > MOST_MESSAGES or self._bytes > MOST_BYTES:
            self._bytes -= len(self._lines.popleft())
            self.dropped += 1
