"""Tokens for OAUTHBEARER: one for all, kept while it is good, and one clear line without secrets when there is none."""

# ruff: noqa: E501 - a row that tells a story is one line

import asyncio
import json
import socket
import ssl
import time

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingsError, TransportError
from monitor.model import Why
from monitor.observe.kafka.tokens import EndpointTokens, FileTokens, claims, tokens
from monitor.sandbox.tokens import Issuer, TokenEndpoint
from monitor.settings import Sasl

SECRET = "hunter2"
LONG = 30.0


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """What the environment says of proxies is none of these tests' business."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def endpoint():
    async with TokenEndpoint(Issuer(), clients={"me": SECRET}) as made:
        yield made


class Clock:
    """A time that tests set."""

    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at


def login(url, **more) -> Sasl:
    fields = {"token_endpoint": url, "client_id": "me", "client_secret": SECRET, **more}
    return Sasl.model_validate({"mechanism": "OAUTHBEARER", **fields})


async def failure(source) -> str:
    """Return what is said when there is no token: in one line, without the secret."""
    try:
        with pytest.raises(TransportError) as caught:
            await source.token()
    finally:
        await source.close()
    assert Why.REFUSED == caught.value.why
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def answers(endpoint, body, *, status=200, kind="application/json", **headers):
    """Let the endpoint answer this."""

    async def answer(_request):
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, content_type=kind, headers=headers)

    endpoint.answer = answer


# --- an endpoint ------------------------------------------------------------------------------------------------


async def test_the_endpoint_is_asked_by_client_credentials(endpoint):
    """The request is that of RFC 6749, 4.4; what comes back is the endpoint's token for the client."""
    token = await EndpointTokens(login(endpoint.url, scope="kafka lag"), LONG).token()

    assert [{"grant_type": "client_credentials", "scope": "kafka lag"}] == endpoint.forms
    assert ("me", "kafka") == (claims(token)["sub"], claims(token)["aud"])


@pytest.mark.parametrize("secret", ["+ /=%:&", "pässwörd", "🐟"], ids=["signs", "umlauts", "fish"])
async def test_any_secret_arrives(endpoint, secret):
    """Client id and secret arrive as they are in the settings."""
    endpoint.clients = {"i d+%": secret}

    assert await EndpointTokens(login(endpoint.url, client_id="i d+%", client_secret=secret), LONG).token()


async def test_a_token_is_kept_for_four_fifths_of_its_life(endpoint):
    """Until then the endpoint is not asked again; the time counts from before it was asked."""
    endpoint.seconds, clock = 100, Clock()
    source = EndpointTokens(login(endpoint.url), LONG, clock)
    first = await source.token()

    clock.at += 79.9
    assert (first, 1) == (await source.token(), endpoint.asked)
    clock.at += 0.2
    await source.token()
    assert 2 == endpoint.asked


async def test_while_the_endpoint_is_away_a_token_is_used_to_its_end(endpoint):
    """In the last fifth of its life a new one is asked for; while there is none, the old one lets in."""
    endpoint.seconds, clock = 100, Clock()
    source = EndpointTokens(login(endpoint.url), LONG, clock)
    first = await source.token()
    answers(endpoint, "", status=503)

    clock.at += 99.9
    assert (first, 2) == (await source.token(), endpoint.asked)
    clock.at += 0.2
    assert "answered 503 instead of a token" in await failure(source)


@pytest.mark.parametrize(
    ("says", "seconds"),
    [
        pytest.param({"expires_in": 60}, 60, id="expires_in"),
        pytest.param({"expires_in": "60"}, 60, id="expires_in as text"),
        pytest.param({"expires_in": 1e9, "exp": 0}, 1e9, id="expires_in comes first"),
        pytest.param({"iat": 5000, "exp": 5060}, 60, id="times of the token, by its own clock"),
        pytest.param({"exp in": 3600}, 3600, id="the end of the token, by our clock"),
    ],
)
async def test_how_long_a_token_is_good(endpoint, says, seconds):
    """The answer tells, else the token, whatever this machine's clock says where the token has both times."""
    of_answer = {name: value for name, value in says.items() if name == "expires_in"}
    of_token = {"iat": None, "exp": None} | {name: says[name] for name in says.keys() & {"iat", "exp"}}
    if "exp in" in says:
        of_token["exp"] = time.time() + says["exp in"]
    answers(endpoint, {"access_token": Issuer().token("me", **of_token), **of_answer})
    clock = Clock()
    source = EndpointTokens(login(endpoint.url), LONG, clock)
    await source.token()

    clock.at += 0.8 * seconds - 10
    await source.token()
    assert 1 == endpoint.asked
    clock.at += 20
    await source.token()
    assert 2 == endpoint.asked


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"access_token": "opaque"}, id="nothing said"),
        pytest.param({"access_token": "opaque", "expires_in": None}, id="null"),
        pytest.param({"access_token": "opaque", "expires_in": 0}, id="0 s"),
        pytest.param({"access_token": "opaque", "expires_in": -5}, id="less than 0 s"),
        pytest.param({"access_token": "opaque", "expires_in": "soon"}, id="a word"),
        pytest.param({"access_token": "opaque", "expires_in": True}, id="a switch"),
        pytest.param('{"access_token": "opaque", "expires_in": NaN}', id="no number"),
        pytest.param('{"access_token": "opaque", "expires_in": 1e999}', id="for ever"),
        pytest.param({"access_token": Issuer().token("me", exp=5)}, id="expired long ago"),
    ],
)
async def test_a_token_that_does_not_say_how_long_it_is_good_is_used_once(endpoint, answer):
    """Where it is not known how long a token is good, each log-in gets a new one."""
    answers(endpoint, answer)
    source = EndpointTokens(login(endpoint.url), LONG, Clock())

    await source.token()
    await source.token()

    assert 2 == endpoint.asked


async def test_many_log_ins_ask_once(endpoint):
    """Log-ins of many brokers at once wait for one answer; that somebody gives up does not take it from the others."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def late(request):
        arrived.set()
        await go.wait()
        return await endpoint.give(request)

    endpoint.answer = late
    source = EndpointTokens(login(endpoint.url), LONG)
    impatient, *others = [asyncio.create_task(source.token()) for _ in range(10)]
    await asyncio.wait_for(arrived.wait(), LONG)
    impatient.cancel()
    go.set()
    got = await asyncio.gather(*others)

    assert (1, 1) == (len(set(got)), endpoint.asked)
    assert impatient.cancelled()


async def test_a_request_is_ended_with_its_source(endpoint):
    """Closing leaves no task behind, and no exception that nobody looks at."""
    arrived = asyncio.Event()

    async def never(_request):
        arrived.set()
        await asyncio.Event().wait()

    endpoint.answer = never
    source = EndpointTokens(login(endpoint.url), LONG)
    waiting = asyncio.create_task(source.token())
    await asyncio.wait_for(arrived.wait(), LONG)

    await source.close()

    assert [] == [task for task in asyncio.all_tasks() if task.get_name() == "token"]
    assert await asyncio.gather(waiting, return_exceptions=True)


async def test_after_a_failure_the_endpoint_is_asked_again(endpoint):
    """A failure is nobody's answer but of those who waited for it."""
    source = EndpointTokens(login(endpoint.url), LONG)
    answers(endpoint, {}, status=503)
    await failure(source)
    endpoint.answer = endpoint.give

    assert await source.token()


async def test_a_refused_token_is_not_used_again(endpoint):
    """After a broker refused it, the next log-in has a new one; that an older one was refused changes nothing."""
    source = EndpointTokens(login(endpoint.url), LONG)
    token = await source.token()

    assert not source.refused("another")
    assert token == await source.token()
    source.refused(token)
    await source.token()

    assert 2 == endpoint.asked


@pytest.mark.parametrize(("age", "worth_it"), [(0.9, False), (1.1, True)], ids=["new", "kept for a while"])
async def test_after_which_refusal_another_token_may_do_better(endpoint, age, worth_it):
    """A token just made is as good as the next one; of one that was kept, the key may have been replaced since."""
    clock = Clock()
    source = EndpointTokens(login(endpoint.url), LONG, clock)
    token = await source.token()

    clock.at += age

    assert worth_it == source.refused(token)
    assert not source.refused(token)


HTML = "<html><form>Log in!</form></html>"
URL_HINT = "is it the URL that gives tokens?"
RUNS_HINT = "check token_endpoint and that it runs"
CLIENT_HINT = "check client_id, client_secret and scope"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param({"body": HTML, "kind": "text/html"}, f"answered text/html, no JSON object: {URL_HINT}", id="a page"),
        pytest.param({"body": "[]"}, f"answered application/json, no JSON object: {URL_HINT}", id="a list"),
        pytest.param({"body": "[" * 100_000}, f"answered application/json, no JSON object: {URL_HINT}", id="deep"),
        pytest.param({"body": {}}, f"answered without an access_token that could be used: {URL_HINT}", id="no token"),
        pytest.param({"body": {"access_token": 5}}, f"answered without an access_token that could be used: {URL_HINT}", id="a number"),
        pytest.param({"body": {"access_token": "a\x01auth=b"}}, f"answered without an access_token that could be used: {URL_HINT}", id="a token that would end early"),
        pytest.param({"body": {"access_token": "x" * 2_000_000}}, f"answered application/json, no JSON object: {URL_HINT}", id="too much"),
        pytest.param({"body": {"error": "invalid_scope"}, "status": 400}, f"refused client me with 400 (invalid_scope): {CLIENT_HINT}", id="refused"),
        pytest.param({"body": HTML, "kind": "text/html", "status": 403}, f"refused client me with 403: {CLIENT_HINT}", id="refused by a page"),
        pytest.param({"body": {"error": "invalid_client", "error_description": f"no\n{SECRET}!"}, "status": 401}, f"refused client me with 401 (invalid_client no …!): {CLIENT_HINT}", id="refused with the secret in it"),
        pytest.param({"body": "", "status": 404}, f"answered 404 instead of a token: {RUNS_HINT}", id="another path"),
        pytest.param({"body": "", "status": 503}, f"answered 503 instead of a token: {RUNS_HINT}", id="overloaded"),
        pytest.param({"body": "", "status": 302, "Location": "/elsewhere"}, f"answered 302 instead of a token: {RUNS_HINT}", id="sent elsewhere"),
    ],
)  # fmt: skip
async def test_an_answer_without_a_token(endpoint, answer, said):
    """Who was asked, what came back, and what to do."""
    answers(endpoint, **answer)

    assert f"token endpoint {endpoint.url} {said}" == await failure(EndpointTokens(login(endpoint.url), LONG))


async def test_a_wrong_client_secret(endpoint):
    """What the endpoint says of it is passed on."""
    said = await failure(EndpointTokens(login(endpoint.url, client_secret="hunter2-wrong"), LONG))

    reason = "(invalid_client unknown client, or a wrong secret)"
    assert f"token endpoint {endpoint.url} refused client me with 401 {reason}: {CLIENT_HINT}" == said


async def test_an_endpoint_that_is_down():
    """Nobody listens: the system's word for it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/token?key={SECRET}"

    said = await failure(EndpointTokens(login(url), LONG))

    name = url.partition("?")[0]
    assert said.startswith(f"token endpoint {name} could not be asked: ")
    assert said.endswith(f": {RUNS_HINT}")


async def test_a_silent_endpoint(endpoint):
    """It gets four fifths of what a request may take."""

    async def never(_request):
        await asyncio.Event().wait()

    endpoint.answer = never

    async with asyncio.timeout(LONG):
        said = await failure(EndpointTokens(login(endpoint.url), 0.1))

    assert f"token endpoint {endpoint.url} did not answer within 0.08 s: check that it runs" == said


async def test_a_server_that_is_no_endpoint():
    """What speaks no HTTP, or hangs up, is one line as well."""

    async def rude(reader, writer):
        await reader.readline()
        writer.write(b"\x00\x00\x00\x04????")
        writer.close()

    async with await asyncio.start_server(rude, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        said = await failure(EndpointTokens(login(url), LONG))

    assert said.startswith(f"token endpoint {url} could not be asked: ")


async def test_an_endpoint_with_an_authority_of_its_own(tmp_path):
    """With token_ca_file its certificate is trusted; without, it is not, and that is said."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with TokenEndpoint(Issuer(), clients={"me": SECRET}, tls=context) as endpoint:
        assert await tokens(login(endpoint.url, token_ca_file=tmp_path / "ca.pem"), LONG).token()
        said = await failure(tokens(login(endpoint.url), LONG))

    assert said.startswith(f"the certificate of token endpoint {endpoint.url} is not trusted: ")
    assert said.endswith(": name its authority by token_ca_file")


async def test_a_proxy_that_the_environment_names_is_used(endpoint, monkeypatch):
    """Where only a proxy leads out, it is asked, unless no_proxy names the host."""
    monkeypatch.setenv("http_proxy", endpoint.url.removesuffix("/token"))
    monkeypatch.delenv("no_proxy", raising=False)

    assert await EndpointTokens(login("http://login.invalid/token"), LONG).token()
    monkeypatch.setenv("no_proxy", ".invalid")
    assert await failure(EndpointTokens(login("http://login.invalid/token"), LONG))


async def test_an_authority_that_is_none(tmp_path):
    """A file that holds no certificate is said at the start."""
    (tmp_path / "ca.pem").write_text("abc")

    with pytest.raises(SettingsError, match=r"sasl\.token_ca_file: .* could not be read as PEM certificates"):
        tokens(login("https://127.0.0.1:1/", token_ca_file=tmp_path / "ca.pem"), LONG)


# --- a file -----------------------------------------------------------------------------------------------------


def file_login(path) -> Sasl:
    return Sasl(mechanism="OAUTHBEARER", token_file=path)


async def test_a_file_is_read_at_each_log_in(tmp_path):
    """Whoever renews the token writes the file; blanks around it do not count."""
    path = tmp_path / "token"
    source = tokens(file_login(path), LONG)

    path.write_text("first\n")
    assert "first" == await source.token()
    path.write_text(" second ")
    assert "second" == await source.token()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(None, "could not be read: No such file or directory: check the path", id="missing"),
        pytest.param(b" \n", "is empty: the file should hold one token and nothing else", id="empty"),
        pytest.param(b"hunter2\nb\n", "holds no token: the file should hold one token and nothing else", id="two"),
        pytest.param(b"hunter2\xff", "holds no token: the file should hold one token and nothing else", id="bytes"),
    ],
)
async def test_a_file_without_a_token(tmp_path, content, said):
    """What is wrong with it is said, and not what it holds."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)

    assert f"token_file {path} {said}" == await failure(FileTokens(path))


# --- a refused token --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "said"),
    [
        pytest.param({"exp": -90.0}, "the token expired 90 s ago", id="expired"),
        pytest.param({"nbf": 90.0}, "the token is good only in 90 s: compare the clocks", id="not yet"),
        pytest.param({"iat": 90.0}, "the token is good only in 90 s: compare the clocks", id="made in the future"),
        pytest.param({"exp": 90.0}, "the token is good for 90 s more, so check what the broker expects (issuer sandbox, audience kafka, subject me)", id="good"),
        pytest.param({}, "the token does not say when it expires, so check what the broker expects (issuer sandbox, audience kafka, subject me)", id="without times"),
    ],
)  # fmt: skip
def test_what_a_refused_token_tells(tmp_path, times, said):
    """Its own times by this machine's clock show a token that is too old or too new; else whom it names."""
    at = time.time() + 0.25  # far from where a second rounds the other way
    token = Issuer().token("me", **({"exp": None, "iat": None} | {name: at + each for name, each in times.items()}))

    assert f"{said}, it came from {tmp_path}" == FileTokens(tmp_path).about(token)


def test_a_refused_token_of_another_kind(tmp_path):
    """What is no JWT tells nothing, and is not shown."""
    assert f"the token is no JWT, it came from {tmp_path}" == FileTokens(tmp_path).about(SECRET)


@given(st.text() | st.binary().map(lambda each: f"a.{each.hex()}.c"))
def test_anything_may_be_a_token(text):
    """Whatever a token holds, looking into it breaks nothing."""
    assert isinstance(claims(text), dict)


@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.text() | st.none(), max_size=5))
def test_claims_are_those_that_were_signed(said):
    """What an issuer put into a token is what is read out of it."""
    read = claims(Issuer().token("me", 5, **{f"x{name}": value for name, value in said.items()}))

    assert repr(said) == repr({name[1:]: value for name, value in read.items() if name.startswith("x")})
