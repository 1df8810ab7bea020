"""Asking Grafana: what its answers mean, what is asked again, and what its errors look like to a person."""

import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trustme
from grafana_api.grafana_face import GrafanaFace

from dashboards.fake_grafana import FakeGrafana, Profile
from dashboards.fake_http import serve
from dashboards.grafana import (
    ChangedError,
    DeniedError,
    FaceTransport,
    FaultError,
    Grafana,
    NotFoundError,
    Patience,
    RefusedError,
    Reply,
    UnansweredError,
    connect,
    path_of,
)
from monitor.errors import UsageError
from monitor.settings import Grafana as GrafanaSettings

TOKEN = "glsa_secret"
HTML = "text/html"


class Scripted:
    """A transport that answers with what is in the script; an exception class is raised."""

    url = "http://grafana.example"

    def __init__(self, *script):
        self.script, self.requests = list(script), []

    def send(self, request):
        self.requests.append(request)
        answer = self.script.pop(0)
        if isinstance(answer, Reply):
            return answer
        raise answer(request, self.url, "gone")


def grafana_of(transport):
    """A Grafana, and the seconds that it has waited."""
    waited = []
    return Grafana(transport, patience=Patience(), sleep=waited.append), waited


# --- what an answer is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(Reply(200, b'{"a": [1]}'), {"a": [1]}, id="JSON"),
        pytest.param(Reply(204), None, id="204 without a body"),
        pytest.param(Reply(202, b" \n"), None, id="blanks"),
        pytest.param(Reply(200, b"groups:\n- name: a\n", "application/yaml"), {"groups": [{"name": "a"}]}, id="YAML"),
        pytest.param(Reply(200, b"resource {}", "text/hcl"), "resource {}", id="other text"),
    ],
)
def test_an_answer_is_what_its_type_says(reply, expected):
    """Bodies may be JSON, YAML, any text, or nothing."""
    assert expected == Grafana(Scripted(reply)).get("api", "x")


PROXY_PAGE = b"<html><head><title>Bad</title></head><body>Bad\n Gateway</body></html>"
REQUIRED = b'[{"fieldNames":["Type"],"classification":"RequiredError","message":"Required"},{"message":"No"}]'


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        pytest.param(Reply(400, b'{"message":"uid too long"}'), RefusedError, "400 uid too long", id="an object"),
        pytest.param(
            Reply(400, b'{"message":"a\\u001b[31m\\nb"}'), RefusedError, "400 a [31m b", id="a terminal's control"
        ),
        pytest.param(
            Reply(400, b'{"message":"%s"}' % (b"x" * 999)), RefusedError, f"400 {'x' * 300}…", id="a long text"
        ),
        pytest.param(Reply(422, REQUIRED), RefusedError, "422 Required; No", id="an array"),
        pytest.param(Reply(500), FaultError, "500 no explanation", id="nothing"),
        pytest.param(Reply(500, b'{"error":1}'), FaultError, "500 no explanation", id="no message"),
        pytest.param(Reply(400, PROXY_PAGE, HTML), RefusedError, "400 Bad Bad Gateway", id="a page"),
        pytest.param(Reply(404, b""), NotFoundError, "404 no explanation", id="404"),
        pytest.param(
            Reply(401, b'{"message":"Unauthorized"}'),
            DeniedError,
            "401 Unauthorized: check the token or the password",
            id="401",
        ),
        pytest.param(Reply(409, b'{"message":"someone else"}'), ChangedError, "409 someone else", id="409"),
        pytest.param(
            Reply(412, b'{"message":"someone else","status":"version-mismatch"}'), ChangedError, "412 someone", id="412"
        ),
        pytest.param(
            Reply(412, b'{"message":"same name","status":"name-exists"}'),
            RefusedError,
            "412 same name",
            id="412 that no repetition mends",
        ),
        pytest.param(Reply(302), RefusedError, "redirects elsewhere", id="a redirect"),
        pytest.param(Reply(200, b"<!doctype html>", HTML), RefusedError, "answered with a page", id="a log-in page"),
    ],
)
def test_an_error_says_what_was_tried_and_why_it_failed(reply, error, text):
    """Each status is an error of its own kind, with the request, the address, and what the server said."""
    with pytest.raises(error) as caught:
        Grafana(Scripted(reply)).write("PUT", "api", "x", body={})

    assert str(caught.value).startswith(f"PUT http://grafana.example/api/x: {text}")


def test_what_is_not_there_is_none():
    """``find`` takes 404 for an answer, with or without a body."""
    assert None is Grafana(Scripted(Reply(404))).find("api", "x")


def test_paths_and_queries_hold_any_character():
    """A name with a slash stays one part of the path, and a query is encoded."""
    assert "/api/a%2Fb/%C3%BC?q=1+%26+2&limit=5" == path_of("api", "a/b", "ü", q="1 & 2", limit=5)


# --- what is asked again -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "waited"),
    [
        pytest.param([Reply(503), Reply(502), Reply(200, b"1")], [0.5, 1.0], id="away"),
        pytest.param([UnansweredError, Reply(200, b"1")], [0.5], id="no answer"),
        pytest.param([Reply(429, retry_after_seconds=7.0), Reply(200, b"1")], [7.0], id="as long as it asks for"),
        pytest.param([Reply(429, retry_after_seconds=9e9), Reply(200, b"1")], [20.0], id="but not for ever"),
    ],
)
def test_reading_waits_for_a_server_that_is_away(script, waited):
    """Reading changes nothing, so it is repeated, each time after twice as long."""
    grafana, seconds = grafana_of(Scripted(*script))

    assert (1, waited) == (grafana.get("api", "x"), seconds)


@pytest.mark.parametrize(
    ("answer", "waited"),
    [pytest.param(Reply(503), [0.5, 1.0, 2.0], id="away"), pytest.param(UnansweredError, [0.5], id="no answer")],
)
def test_reading_ends_some_time(answer, waited):
    """After the last attempt the error is said; a server that is not there at all is tried once more only."""
    transport = Scripted(*[answer] * 5)
    grafana, seconds = grafana_of(transport)

    with pytest.raises((FaultError, UnansweredError)):
        grafana.get("api", "x")
    assert (len(waited) + 1, waited) == (len(transport.requests), seconds)


@pytest.mark.parametrize("answer", [Reply(503), Reply(500), UnansweredError], ids=["away", "fault", "no answer"])
def test_a_write_that_may_have_happened_is_not_repeated(answer):
    """Whoever asked decides after a look at what is there."""
    transport = Scripted(answer, Reply(200, b"1"))

    with pytest.raises((FaultError, UnansweredError)):
        Grafana(transport, sleep=lambda seconds: None).write("POST", "api", "x", body={})
    assert 1 == len(transport.requests)


def test_a_write_that_was_refused_for_now_is_repeated():
    """429 says that nothing was done."""
    grafana, seconds = grafana_of(Scripted(Reply(429, retry_after_seconds=2.0), Reply(202, b"1")))

    assert (1, [2.0]) == (grafana.write("POST", "api", "x", body={}), seconds)


# --- over HTTP ---------------------------------------------------------------------------------------


def settings(url, **more):
    return GrafanaSettings(url=url, **({"token": TOKEN} | more))


def test_the_session_of_grafana_api_carries_everything():
    """Log-in, folders with bodies, 404 and 204 go through the session of a GrafanaFace."""
    fake = FakeGrafana(Profile.MODERN)
    fake.add_folder("f", "F")
    fake.groups["f", "g"] = {"interval": 60, "rules": [], "provenance": "api"}
    with serve(fake, token=TOKEN) as url:
        grafana = connect(settings(url))

        assert "13.2.3" == grafana.abilities.version
        assert ("v2", "v1", "v1beta1", "v0alpha1") == grafana.abilities.groups["dashboard.grafana.app"]
        assert "N" == grafana.write("POST", "api", "folders", body={"uid": "n", "title": "N"})["title"]
        assert None is grafana.find("api", "folders", "nope")
        assert None is grafana.write("DELETE", "api", "v1", "provisioning", "folder", "f", "rule-groups", "g")


def test_a_wrong_token_is_said_and_not_shown():
    """The complaint says what to check, without the token."""
    with serve(FakeGrafana(), token="another") as url, pytest.raises(DeniedError, match="check the token") as caught:
        connect(settings(url)).get("api", "folders")

    assert TOKEN not in str(caught.value)


def test_a_face_of_ones_own_is_as_good():
    """Whoever has a GrafanaFace already brings it."""
    fake = FakeGrafana()
    with serve(fake, token="mine") as url:
        host, _, port = url.removeprefix("http://").partition(":")
        face = GrafanaFace(auth="mine", host=host, port=int(port))

        assert [] == Grafana(FaceTransport(face)).get("api", "folders")


@contextmanager
def answering(answer, tls=None):
    """A server of one handler: ``answer`` gets the handler; ``tls`` is its side's context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # a client that refuses the certificate hangs up
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_redirect_is_not_followed_with_the_token():
    """Where it leads is not where the token belongs."""
    asked = []

    def redirect(handler):
        asked.append(handler.path)
        handler.send_response(302)
        handler.send_header("Location", "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with answering(redirect) as url, pytest.raises(RefusedError, match="give the address it redirects to"):
        connect(settings(url)).get("api", "folders")

    assert ["/api/folders"] == asked


def test_a_sub_path_and_an_organisation_are_part_of_every_request():
    """Below /apis as well, and the organisation goes by its header."""
    asked = []

    def note(handler):
        asked.append((handler.path, handler.headers["X-Grafana-Org-Id"], handler.headers["Authorization"]))
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with answering(note) as url:
        grafana = connect(settings(f"{url}/grafana/", org_id=7))
        grafana.get("api", "folders")
        grafana.get("apis")

    assert [("/grafana/api/folders", "7", f"Bearer {TOKEN}"), ("/grafana/apis", "7", f"Bearer {TOKEN}")] == asked


def test_a_certificate_counts_by_the_authority_that_is_named(tmp_path):
    """With ``ca_file`` a private authority is trusted; without, its certificate is refused, and that is said."""
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"[]")

    with answering(answer, tls) as url:
        assert [] == connect(settings(url, ca_file=tmp_path / "ca.pem")).get("api", "folders")
        with pytest.raises(UnansweredError, match="the certificate or the TLS handshake was refused"):
            connect(settings(url)).write("POST", "api", "folders", body={})


def test_nobody_there_is_said_in_a_line():
    """The address, and why; no stack of causes."""
    with serve(FakeGrafana()) as url:
        pass

    with pytest.raises(UnansweredError) as caught:
        Grafana(connect(settings(url))._transport, sleep=lambda seconds: None).get("api", "health")

    assert f"GET {url}/api/health: Connection refused" == str(caught.value)


def test_without_a_log_in_it_says_where_one_may_come_from():
    """Grafana without a log-in is not asked at all."""
    with pytest.raises(UsageError, match="set GRAFANA_TOKEN"):
        connect(settings("http://x", token=None))
    with pytest.raises(UsageError, match=r"no file /no/such\.pem: check the path"):
        connect(settings("http://x", ca_file="/no/such.pem"))
