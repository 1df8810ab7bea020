"""The stand-in over HTTP, on 127.0.0.1: for what starts at an address, as commands do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dashboards.grafana import Request, Transport, UnansweredError


@contextmanager
def serve(fake: Transport, *, token: str | None = None, port: int = 0) -> Iterator[str]:
    """Serve a stand-in and yield its address; port 0: a free one; with ``token`` only for whoever has that."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer goes out as a whole: in pieces each would wait for the one before
        disable_nagle_algorithm = True

        def _carry_out(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self._answer(401, b'{"message":"Unauthorized"}', "application/json", None)
                return
            try:
                reply = fake.send(Request(self.command, self.path, body, dict(self.headers.items())))
            except UnansweredError:
                self.close_connection = True
                return
            self._answer(reply.status, reply.body, reply.media_type, reply.retry_after_seconds)

        def _answer(self, status: int, body: bytes, media_type: str, retry_after_seconds: float | None) -> None:
            self.send_response(status)
            if status != 204:  # noqa: PLR2004 - an answer without a body has no type either
                self.send_header("Content-Type", f"{media_type}; charset=UTF-8")
                self.send_header("Content-Length", str(len(body)))
            if retry_after_seconds is not None:
                self.send_header("Retry-After", f"{retry_after_seconds:g}")
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _carry_out  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
