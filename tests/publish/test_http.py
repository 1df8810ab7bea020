"""What is served, over real sockets: whole answers, the right codes, and nobody held up by a slow client."""

import asyncio
import contextlib
import gzip
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import pytest
from reports import SCRIPT_NAME, Pipeline, Reader, report_of, shop

from monitor.errors import StreamgaugeError
from monitor.publish import http as served
from monitor.publish.http import HttpServer, Published
from monitor.publish.report_json import consumer_json, report_json
from monitor.publish.trail import Trail

TEXT = b"# HELP streamgauge_cluster_up ...\nstreamgauge_cluster_up 1\n"


@dataclass
class Bytes:
    """An exposition as the server sees it."""

    plain: bytes = TEXT
    gzip: bytes = gzip.compress(TEXT)


class Served:
    """A server with what it serves, and a client."""

    def __init__(self, server, host, port, session, latest):
        self._server, self.host, self.port, self._session, self._latest = server, host, port, session, latest

    @property
    def clients(self):
        return [each.peername for each in self._server._runner.server.connections]

    def publish(self, *clusters, rendered=None, complete=True):
        self._latest[0] = Published(report_of(*clusters), rendered or Bytes(), complete)

    async def request(self, method, path, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://{self.host}:{self.port}{path}"
        # The path goes out as it is written here, and the body is what came over the wire.
        async with self._session.request(method, aiohttp.client.URL(url, encoded=True), headers=headers) as response:
            return response.status, response.headers, await response.read()

    async def get(self, path, **headers):
        return await self.request("GET", path, **headers)

    async def json(self, path):
        status, headers, body = await self.get(path)
        assert "application/json" == headers["Content-Type"].split(";")[0]
        return status, json.loads(body)


@asynccontextmanager
async def serving(*clusters, trail=None, **kw):
    latest = [None]
    server = HttpServer("127.0.0.1", 0, lambda: latest[0], trail=trail)
    host, port = await server.start()
    bare = {"Accept-Encoding": "identity", "Accept": "*/*"}
    try:
        async with aiohttp.ClientSession(auto_decompress=False, headers=bare) as session:
            it = Served(server, host, port, session, latest)
            if clusters:
                it.publish(*clusters, **kw)
            yield it
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def cluster():
    return shop().run(3)


# --- metrics and health -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/api/v1/report"])
async def test_nothing_is_served_before_there_is_anything(path):
    """503 with one line, never an answer that is empty or half."""
    async with serving() as it:
        status, _, body = await it.get(path)

        assert 503 == status
        assert b"\n" not in body.rstrip(b"\n")
        assert body.strip()


async def test_incomplete_is_not_ready(cluster):
    """Until every cluster has answered or failed once there are no metrics, but what is known can be read."""
    async with serving(cluster, complete=False) as it:
        assert 503 == (await it.get("/metrics"))[0]
        assert 503 == (await it.get("/readyz"))[0]
        assert 200 == (await it.get("/api/v1/report"))[0]

        it.publish(cluster)

        assert (200, b"ok\n") == (await it.get("/readyz"))[::2]
        assert (200, TEXT) == (await it.get("/metrics"))[::2]


async def test_the_process_lives_before_it_is_ready():
    """/healthz is about the process."""
    async with serving() as it:
        assert (200, b"ok\n") == (await it.get("/healthz"))[::2]


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        pytest.param("gzip", True, id="gzip"),
        pytest.param("GZIP;q=0.5, identity", True, id="any case, with a weight"),
        pytest.param("deflate, br;q=1.0, *;q=0.1", True, id="anything"),
        pytest.param("gzip;q=0", False, id="anything but"),
        pytest.param("*, gzip;q=0", False, id="everything but"),
        pytest.param("deflate, br", False, id="others"),
        pytest.param("gzip;q=nan", False, id="nonsense"),
        pytest.param("", False, id="none"),
    ],
)
async def test_metrics_are_compressed_for_who_accepts_it(cluster, accepted, is_compressed):
    """The bytes that were made ready, in the form that was asked for."""
    ready = Bytes()
    async with serving(cluster, rendered=ready) as it:
        status, headers, body = await it.get("/metrics", Accept_Encoding=accepted)

        assert 200 == status
        assert (ready.gzip if is_compressed else TEXT) == body
        assert ("gzip" if is_compressed else None) == headers.get("Content-Encoding")
        assert "text/plain; version=0.0.4; charset=utf-8" == headers["Content-Type"]
        assert "Accept-Encoding" == headers["Vary"]


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/api/v1/report", "/"])
async def test_head_has_the_length_and_no_body(cluster, path):
    """HEAD says what GET would send."""
    async with serving(cluster) as it:
        _, _, body = await it.get(path)
        status, headers, nothing = await it.request("HEAD", path)

        assert (200, b"") == (status, nothing)
        assert str(len(body)) == headers["Content-Length"]


async def test_a_large_answer_is_whole_while_it_is_swapped(cluster):
    """Twenty readers and a hundred publishes at once: every body is one of those published, never parts of two."""
    async with serving(cluster) as it:
        texts = [bytes([65 + i]) * 3_000_000 for i in range(4)]
        ready = [Bytes(text, gzip.compress(text, 1)) for text in texts]
        it.publish(cluster, rendered=ready[0])

        async def swap():
            for i in range(100):
                it.publish(cluster, rendered=ready[i % 4])
                await asyncio.sleep(0)

        swapping = asyncio.create_task(swap())
        bodies = [body for _, _, body in await asyncio.gather(*(it.get("/metrics") for _ in range(20)))]
        await swapping

        assert all(body in texts for body in bodies)


async def test_plain_text_is_made_once_for_all_who_ask(cluster):
    """Of a large cluster the plain text is made on demand: five scrapers cost as much as one, the next report anew."""

    class OnDemand(Bytes):
        made = 0

        @property
        def plain(self):
            OnDemand.made += 1
            return TEXT

        @plain.setter
        def plain(self, _): ...

    async with serving(cluster, rendered=OnDemand()) as it:
        await asyncio.gather(*(it.get("/metrics") for _ in range(5)))
        assert 1 == OnDemand.made

        it.publish(cluster, rendered=OnDemand())
        await it.get("/metrics")
        assert 2 == OnDemand.made


# --- the API ----------------------------------------------------------------------------------------


async def test_the_report_is_served_as_json(cluster):
    """With and without partitions, compressed or not, the document of ``report_json``."""
    async with serving(cluster) as it:
        full, slim = (report_json(report_of(cluster), partitions=with_them) for with_them in (True, False))

        assert (200, full) == await it.json("/api/v1/report")
        assert (200, full) == await it.json("/api/v1/report?partitions=1")
        assert (200, slim) == await it.json("/api/v1/report?partitions=0")
        _, headers, body = await it.get("/api/v1/report?partitions=0", Accept_Encoding="gzip")
        assert "gzip" == headers["Content-Encoding"]
        assert slim == json.loads(gzip.decompress(body))


async def test_who_has_the_report_is_told_so(cluster):
    """304 for the entity tag of the latest report, a new body for the next."""
    pipeline = shop()
    async with serving(pipeline.report()) as it:
        _, headers, _ = await it.get("/api/v1/report")
        tag = headers["ETag"]

        status, headers, body = await it.get("/api/v1/report", If_None_Match=f'"other", {tag}')
        assert (304, b"", tag) == (status, body, headers["ETag"])

        it.publish(pipeline.report())
        status, headers, body = await it.get("/api/v1/report", If_None_Match=tag)
        assert 200 == status
        assert tag != headers["ETag"]
        assert pipeline.start + 10 == pytest.approx(1_795_000_010)
        assert "2026-11-18T11:06:50.000Z" == json.loads(body)["at"]


NAMES = [
    "billing",
    "a/b",
    "/",
    "",
    "a b",
    "quo\"te's",
    "new\nline",
    "tab\tand\x01control",
    "größe-日本-🎏",
    "100%",
    "%2F",
    "a+b&c=d?e#f;g",
    "back\\slash",
    SCRIPT_NAME,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_a_consumer_is_found_by_any_name(name):
    """Percent-encoded, every group id that Kafka allows is a path."""
    cluster = Pipeline({"t": (2, 1.0)}, {n: Reader({"t": 1}, i) for i, n in enumerate(NAMES)}, look_ups=False).run(1)
    async with serving(cluster) as it:
        answer = await it.json(f"/api/v1/consumers/group/{quote(name, safe='')}")

        expected = {"cluster": "default", "consumer": consumer_json(cluster, NAMES.index(name))}
        assert (200, expected) == answer


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        pytest.param("group/nobody", 404, "no group 'nobody'", id="no such name"),
        pytest.param("spark/billing", 404, "no spark 'billing'", id="another kind"),
        pytest.param("queue/x", 404, "no kind 'queue': there are group, share_group, spark", id="no such kind"),
        pytest.param("group/billing?cluster=c", 404, "no group 'billing' in cluster 'c'", id="no such cluster"),
        pytest.param(
            "group/billing",
            400,
            "group 'billing' is in the clusters 'default', 'b': say which with ?cluster=",
            id="in two clusters",
        ),
        pytest.param("group/a%FFb%0A", 404, "no group 'a%FFb\\n'", id="not UTF-8"),
    ],
)
async def test_what_is_not_there_is_one_line(cluster, path, status, error):
    """An error is JSON with one clear line."""
    async with serving(cluster, shop(name="b").run(1)) as it:
        assert (status, {"error": error}) == await it.json(f"/api/v1/consumers/{path}")


async def test_the_cluster_tells_two_of_a_name_apart(cluster):
    """?cluster= says which."""
    async with serving(cluster, shop(name="b").run(1)) as it:
        status, answer = await it.json("/api/v1/consumers/group/billing?cluster=b")

        assert (200, "b") == (status, answer["cluster"])


async def test_the_trail_is_served():
    """All that is kept, or what is new since a time."""
    trail, pipeline = Trail(), shop()
    for _ in range(3):
        cluster = pipeline.report()
        trail.note(report_of(cluster))
    async with serving(cluster, trail=trail) as it:
        assert (200, trail.as_json()) == await it.json("/api/v1/trail")
        status, answer = await it.json("/api/v1/trail?since=2026-11-18T11:06:50.000Z")
        assert (200, ["2026-11-18T11:07:00.000Z"]) == (status, answer["clusters"][0]["at"])


@pytest.mark.parametrize("path", ["trail?since=yesterday", "report?partitions=no"])
async def test_wrong_parameters_are_refused(cluster, path):
    """400, naming what is wrong."""
    async with serving(cluster) as it:
        status, answer = await it.json(f"/api/v1/{path}")

        assert 400 == status
        assert repr(path.rpartition("=")[2]) in answer["error"]


async def test_bodies_are_dropped_with_their_report(cluster):
    """What was made of a report is kept for as long as it is the latest, and of one report not without bound."""
    made = served._Made()
    one, two = report_of(cluster), report_of(cluster)

    assert b"a" == await made.of(one, "x", lambda: b"a")
    assert b"a" == await made.of(one, "x", lambda: b"b")
    assert b"c" == await made.of(two, "x", lambda: b"c")
    for i in range(3 * made.LIMIT):
        await made.of(two, str(i), lambda: b"")
    assert made.LIMIT == len(made._bodies)


# --- the rest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/page/../../service.py", 404),
        ("GET", "/..%2fservice.py", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/api/v1/report", 405),
        ("PUT", "/", 405),
    ],
)
async def test_unknown_paths_and_wrong_methods(cluster, method, path, status):
    """One line that helps."""
    async with serving(cluster) as it:
        got, _, body = await it.request(method, path)

        assert status == got
        assert 1 == body.count(b"\n")
        assert (b"/metrics" if status == 404 else b"GET and HEAD") in body


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/metrics", "/api/v1/report", "/nowhere"])
async def test_every_answer_is_guarded(cluster, path):
    """Only own scripts, no sniffing, no referrer, no other origin."""
    async with serving(cluster) as it:
        _, headers, _ = await it.get(path, Origin="http://elsewhere.example")

        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert ("nosniff", "no-referrer") == (headers["X-Content-Type-Options"], headers["Referrer-Policy"])
        assert not [name for name in headers if name.startswith("Access-Control")]


async def test_the_page_is_served_with_its_parts(cluster):
    """The page and what it names, each with its type, and 304 for who has it."""
    async with serving(cluster) as it:
        for path, kind in [
            ("/", "text/html"),
            ("/app.js", "text/javascript"),
            ("/style.css", "text/css"),
            ("/icon.svg", "image/svg+xml"),
        ]:
            status, headers, body = await it.get(path, Accept_Encoding="gzip")
            assert (200, kind) == (status, headers["Content-Type"].split(";")[0])
            plain = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
            assert (200, plain) == (await it.get(path))[::2]
            assert 304 == (await it.get(path, If_None_Match=headers["ETag"]))[0]


# --- bad luck ---------------------------------------------------------------------------------------


async def test_a_taken_port_is_one_line():
    """What, where, what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StreamgaugeError) as failed:
            await HttpServer("127.0.0.1", port, lambda: None).start()

    expected = (
        f"cannot serve HTTP on 127.0.0.1:{port}: the port is taken; "
        "stop what uses it, or set http.port (0 picks a free one)"
    )
    assert expected == str(failed.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "host.invalid", "a..b"], ids=["not ours", "unknown", "not a name"])
async def test_a_wrong_address_is_one_line(host):
    """An address that is not this machine's, a name that nobody knows, and one that is none."""
    with pytest.raises(StreamgaugeError) as failed:
        await HttpServer(host, 0, lambda: None).start()

    assert str(failed.value).startswith(f"cannot serve HTTP on {host}:0: ")
    assert "\n" not in str(failed.value)


async def test_the_port_is_free_again_after_stop():
    """Start, stop, and start again on the same port; stopping twice is no error."""
    first = HttpServer("127.0.0.1", 0, lambda: None)
    host, port = await first.start()
    await first.stop()
    await first.stop()

    second = HttpServer(host, port, lambda: None)
    assert (host, port) == await second.start()
    await second.stop()


async def test_a_client_that_does_not_read_holds_nobody_up(cluster, monkeypatch, caplog):
    """It is cut off after its time; others are answered meanwhile, and little of its answer waits in memory."""
    monkeypatch.setattr(served, "SEND_SECONDS", 0.5)
    large = bytes(50_000_000)
    async with serving(cluster, rendered=Bytes(large, b"")) as it:
        loop = asyncio.get_running_loop()
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await loop.sock_connect(slow, (it.host, it.port))
            await loop.sock_sendall(slow, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await loop.sock_recv(slow, 100)).startswith(b"HTTP/1.1 200 OK")
            assert 200 == (await it.get("/healthz"))[0]

            assert slow.getsockname() in it.clients
            async with asyncio.timeout(20):
                while slow.getsockname() in it.clients:
                    await asyncio.sleep(0.01)

            received = 0
            with contextlib.suppress(ConnectionResetError):
                while chunk := await loop.sock_recv(slow, 1_000_000):
                    received += len(chunk)
            assert received < len(large) / 2
            assert 200 == (await it.get("/healthz"))[0]
    assert [] == caplog.records


async def test_a_client_that_goes_away_is_no_error(cluster, caplog):
    """It hangs up in the middle of its answer, or before it: nothing is logged, and others are served."""
    large = bytes(50_000_000)
    async with serving(cluster, rendered=Bytes(large, b"")) as it:
        for read in (0, 0, 1000):
            reader, writer = await asyncio.open_connection(it.host, it.port, limit=1024)
            writer.write(2 * b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            await writer.drain()
            await reader.readexactly(read)
            writer.transport.abort()
        async with asyncio.timeout(20):
            while it.clients:
                await asyncio.sleep(0.01)
        assert 200 == (await it.get("/healthz"))[0]
    assert [] == caplog.records


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS on a plain port"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="no such version"),
        pytest.param(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="a line without end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n", id="5,000 headers"),
        pytest.param(b"\x00" * 1000 + b"\r\n\r\n", id="zeros"),
    ],
)
async def test_what_is_not_http_is_refused(cluster, sent):
    """A 400 and the connection is closed; the server goes on."""
    async with serving(cluster) as it:
        reader, writer = await asyncio.open_connection(it.host, it.port)
        writer.write(sent)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()

        assert answer.split(b"\r\n")[0] in {b"HTTP/1.1 400 Bad Request", b"HTTP/1.0 400 Bad Request", b""}
        assert (200, b"ok\n") == (await it.get("/healthz"))[::2]


async def test_stop_does_not_wait_for_a_slow_client(cluster, monkeypatch):
    """A client in the middle of a large answer is cut off at stop."""
    monkeypatch.setattr(served, "STOP_SECONDS", 0.1)
    latest = Published(report_of(cluster), Bytes(bytes(50_000_000), b""), complete=True)
    server = HttpServer("127.0.0.1", 0, lambda: latest)
    host, port = await server.start()
    reader, writer = await asyncio.open_connection(host, port, limit=1024)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readexactly(100)

    await asyncio.wait_for(server.stop(), 10)

    writer.transport.abort()
