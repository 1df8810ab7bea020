"""The transport against the fake cluster and against servers that are none: one clear line and a fitting reason."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import subprocess
import sys

import aiokafka.conn
import pytest
import trustme
from pydantic import SecretStr

from monitor.errors import SettingsError, TransportError
from monitor.model import Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.transport import Address, KafkaTransport, Request, addresses
from monitor.sandbox.fake import Call, Disconnect, ErrorCode, FakeCluster, Garbage, Hang, Tear, Truncate
from monitor.settings import Cluster, Sasl, Tls

GROUPS = Request(wire.LIST_GROUPS.key, 4, flexible=True, body=wire.list_groups_request(4))
LEGACY_GROUPS = Request(wire.LIST_GROUPS.key, 2, flexible=False, body=b"")

# Never waited for but where something is wrong.
LONG = 30.0


def cluster_settings(**more) -> Cluster:
    return Cluster(bootstrap_servers="unused:1", timeout_seconds=LONG, **more)


@contextlib.asynccontextmanager
async def transport_for(**more):
    transport = KafkaTransport(cluster_settings(**more))
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
async def transport():
    async with transport_for() as made:
        yield made


@pytest.fixture
async def cluster():
    async with FakeCluster(brokers=2) as fake:
        fake.group("billing", {}, coordinator=1)
        fake.group("shipping", {}, coordinator=2)
        yield fake


def address_of(cluster: FakeCluster, broker: int = 1) -> Address:
    return addresses(cluster.bootstrap)[broker - 1]


@contextlib.asynccontextmanager
async def server(handle, **options):
    """Serve connections by a function of reader and writer; yield the address."""

    async def closing(reader, writer):
        with contextlib.suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()

    listening = await asyncio.start_server(closing, "127.0.0.1", 0, **options)
    async with listening:
        yield Address(*listening.sockets[0].getsockname()[:2])


async def refusal(transport: KafkaTransport, address: Address) -> TransportError:
    """Return what the transport raises on first contact: in one line that names the address."""
    with pytest.raises(TransportError) as caught:
        await transport.versions(address)
    assert "\n" not in str(caught.value)
    assert str(address) in str(caught.value)
    return caught.value


# --- what works -------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [GROUPS, LEGACY_GROUPS], ids=["flexible header", "legacy header"])
async def test_an_answer_comes_back_without_its_header(transport, cluster, request_):
    """The body is exactly what the broker said, whatever headers the version has."""
    body = await transport.send(address_of(cluster), request_)

    if request_.flexible:
        error, groups = wire.decode_list_groups(body, request_.version)
        assert (0, ["billing"]) == (error, [group.name for group in groups])
    else:
        assert b"\0\0\0\0\0\0\0\0\0\1\0\7billing\0\10consumer" == body


async def test_versions_are_those_the_broker_offers(transport, cluster):
    """Lowest and highest version by API key."""
    cluster.brokers[1].versions["OffsetFetch"] = (3, 8)

    offered = await transport.versions(address_of(cluster))

    assert ((3, 8), (0, 5)) == (offered[wire.OFFSET_FETCH.key], offered[wire.LIST_GROUPS.key])


async def test_requests_to_one_broker_share_its_connection(transport, cluster):
    """Many at once connect once, and each gets its own answer."""
    bodies = await asyncio.gather(*(transport.send(address_of(cluster), GROUPS) for _ in range(20)))

    assert (1, 20) == (cluster.count("ApiVersions"), cluster.count("ListGroups"))
    assert 1 == len(set(bodies))


async def test_a_silent_broker_holds_up_no_other(transport, cluster):
    """While one connection waits for its first answer, another broker is asked and answers."""
    cluster.fail("ApiVersions", Hang(), broker=1)
    waiting = asyncio.ensure_future(transport.versions(address_of(cluster, 1)))
    await cluster.asked("ApiVersions", broker=1)

    await transport.send(address_of(cluster, 2), GROUPS)

    assert not waiting.done()
    waiting.cancel()


# --- what breaks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Disconnect(), Tear(7)], ids=["before the answer", "within the answer"])
async def test_a_broken_connection_is_made_anew(transport, cluster, action):
    """The request that met the break says so; the next one connects again."""
    cluster.fail("ListGroups", action, times=1)

    with pytest.raises(TransportError) as caught:
        await transport.send(address_of(cluster), GROUPS)

    assert (f"the connection to {address_of(cluster)} broke", Why.DISCONNECTED) == (str(caught.value), caught.value.why)
    await transport.send(address_of(cluster), GROUPS)
    assert 2 == cluster.count("ApiVersions")


async def test_a_restarted_broker_is_found_again(transport, cluster):
    """Refused while it is away; afterwards it answers on the same transport."""
    await transport.send(address_of(cluster), GROUPS)
    cluster.stop(1)
    with pytest.raises(TransportError):
        await transport.send(address_of(cluster), GROUPS)

    error = await refusal(transport, address_of(cluster))
    cluster.start(1)

    assert Why.REFUSED == error.why
    await transport.send(address_of(cluster), GROUPS)


async def test_every_request_that_waits_hears_of_the_break(transport, cluster):
    """A connection that breaks fails all that was asked over it, at once."""
    cluster.fail("ListGroups", Call(lambda: cluster.stop(1)))

    failed = await asyncio.gather(
        *(transport.send(address_of(cluster), GROUPS) for _ in range(3)), return_exceptions=True
    )

    assert [Why.DISCONNECTED] * 3 == [error.why for error in failed]


async def test_a_dropped_connection_ends_at_once(transport, cluster):
    """A caller that has waited long enough drops the connection; the next request has a new one."""
    fault = cluster.fail("ListGroups", Hang())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await transport.send(address_of(cluster), GROUPS)

    transport.drop(address_of(cluster))

    fault.cancel()
    await transport.send(address_of(cluster), GROUPS)
    assert 2 == cluster.count("ApiVersions")


async def test_the_transport_s_own_limit_drops_the_connection_too(cluster):
    """Where nobody else bounds a request, it ends after twice the timeout, and the next one has a new connection."""
    cluster.fail("ListGroups", Hang(), times=1)
    transport = KafkaTransport(Cluster(bootstrap_servers="unused:1", timeout_seconds=0.05))

    with pytest.raises(TransportError) as caught:
        await transport.send(address_of(cluster), GROUPS)

    assert (f"{address_of(cluster)} did not answer in time", Why.TIMEOUT) == (str(caught.value), caught.value.why)
    assert await transport.send(address_of(cluster), GROUPS)
    await transport.close()


async def test_a_connection_given_up_is_closed_without_waiting_for_a_goodbye():
    """Who gives up on a broker that is silent behind TLS leaves no connection behind: the broker sees its end."""
    authority, context = server_tls()
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def silent(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        tls = context.wrap_socket(plain, server_side=True)
        tls.recv(1)
        loop.call_soon_threadsafe(asked.set)
        # Below TLS, so that a goodbye is not answered. It would be waited for 30 s.
        with tls, socket.socket(fileno=os.dup(tls.fileno())) as raw:
            raw.settimeout(LONG / 3)
            with contextlib.suppress(ConnectionResetError):  # an end as well
                while raw.recv(1000):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(asyncio.to_thread(silent, listener))
        async with transport_for(**tls_settings(authority)) as transport:
            connecting = asyncio.ensure_future(transport.versions(Address(*listener.getsockname()[:2])))
            await asyncio.wait_for(asked.wait(), LONG)

            connecting.cancel()

            await serving


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(Garbage(size=3), id="garbage"),
        pytest.param(Truncate(5), id="a body that ends too early"),
    ],
)
async def test_a_first_answer_that_cannot_be_read(transport, cluster, action):
    """Whoever answers something else than a list of versions is no Kafka broker."""
    cluster.fail("ApiVersions", action)

    error = await refusal(transport, address_of(cluster))

    assert (f"{address_of(cluster)} does not answer like a Kafka broker", Why.MALFORMED) == (str(error), error.why)


async def test_later_answers_are_not_looked_into(transport, cluster):
    """The transport hands bytes through: whether they mean something is the decoder's business."""
    cluster.fail("ListGroups", Garbage(size=3, seed=1), times=1)
    await transport.versions(address_of(cluster))

    assert 3 == len(await transport.send(address_of(cluster), GROUPS))


# --- servers that are none --------------------------------------------------------------------------


async def closes(_reader, _writer):
    """End the connection at once."""


async def http(reader, writer):
    """Refuse what is no HTTP, as web servers do."""
    await reader.read(4)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def other_correlation(reader, writer):
    """Answer another question than the one asked."""
    await reader.read(4)
    writer.write(b"\0\0\0\x0a\0\0\0\x63\0\0\0\0\0\0")
    await reader.read()


async def negative_size(reader, writer):
    """Begin an answer of less than nothing."""
    await reader.read(4)
    writer.write(b"\xff\xff\xff\xff")
    await reader.read()


async def unasked(reader, writer):
    """Answer before anything is asked, and again."""
    writer.write(b"\0\0\0\x0a\0\0\0\1\0\0\0\0\0\0" * 3)
    await reader.read()


CLOSED = "closed the connection instead of answering: is it a Kafka broker, and is security_protocol PLAINTEXT right?"


@pytest.mark.parametrize(
    ("handle", "text", "why"),
    [
        pytest.param(closes, CLOSED, Why.DISCONNECTED, id="closes at once"),
        pytest.param(http, CLOSED, Why.DISCONNECTED, id="HTTP"),
        pytest.param(other_correlation, "does not answer like a Kafka broker", Why.MALFORMED, id="other correlation"),
        pytest.param(negative_size, "does not answer like a Kafka broker", Why.MALFORMED, id="negative size"),
    ],
)
async def test_a_server_that_is_no_kafka(transport, handle, text, why):
    """It is called what it looks like, with what to check."""
    async with server(handle) as address:
        error = await refusal(transport, address)

    assert (f"{address} {text}", why) == (str(error), error.why)


async def test_a_server_that_speaks_unasked(transport):
    """Frames that nobody asked for end the connection, not the process."""
    async with server(unasked) as address:
        with contextlib.suppress(TransportError):
            await transport.versions(address)
        with pytest.raises(TransportError):
            await transport.send(address, GROUPS)


async def test_a_server_that_never_answers_is_the_caller_s_timeout(transport):
    """The transport waits as long as it is let; given up, it can be asked again."""
    asked = []

    async def silent(reader, _writer):
        asked.append(await reader.read(1))
        await reader.read()

    async with server(silent) as address:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await transport.versions(address)
            transport.drop(address)

        assert [b"\0", b"\0"] == asked


async def test_a_refused_port(transport):
    """A port nobody listens on says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])

    error = await refusal(transport, address)

    assert (f"{address} refused the connection", Why.REFUSED) == (str(error), error.why)


async def test_a_refused_port_of_a_name_with_several_addresses(transport, monkeypatch):
    """Refused by all of them is refused, without a list of each."""

    async def both(*_args, **_options):
        each = "[Errno 111] Connect call failed ('{}', 9)"
        raise OSError(f"Multiple exceptions: {each.format('::1')}, {each.format('127.0.0.1')}")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", both)

    error = await refusal(transport, Address("localhost", 9))

    assert ("localhost:9 refused the connection", Why.REFUSED) == (str(error), error.why)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".invalid"], ids=["unknown", "too long"])
async def test_a_name_that_does_not_resolve(transport, host):
    """DNS failure names the name."""
    error = await refusal(transport, Address(host, 9092))

    assert Why.REFUSED == error.why
    assert str(error).startswith(f"the name of {host}:9092 does not resolve: ")


async def test_a_log_in_that_is_not_offered(cluster):
    """Without SASL at the broker, that is what is said."""
    async with transport_for(
        security_protocol="SASL_PLAINTEXT", sasl=Sasl(username="u", password=SecretStr("p"))
    ) as it:
        error = await refusal(it, address_of(cluster))

    assert (f"{address_of(cluster)} offers no log-in: is security_protocol right?", Why.UNSUPPORTED) == (
        str(error),
        error.why,
    )


async def test_kerberos_without_its_package(monkeypatch):
    """Without the package gssapi, which is an extra, one line says how to come by it."""
    monkeypatch.setattr(aiokafka.conn, "gssapi", None)
    config = cluster_settings(security_protocol="SASL_PLAINTEXT", sasl=Sasl(mechanism="GSSAPI"))

    with pytest.raises(SettingsError) as caught:
        KafkaTransport(config)

    (said,) = caught.value.complaints
    assert said.startswith("clusters.default: mechanism GSSAPI needs the Python package gssapi, ")
    assert said.endswith(" then pip install 'streamgauge[gssapi]'")


async def test_a_connection_that_somebody_made_meanwhile_stays(transport, cluster):
    """Who hears late that a connection broke does not close the one that was made after it."""
    address = address_of(cluster)
    cluster.fail("ListGroups", Hang())
    waiting = asyncio.ensure_future(transport.send(address, GROUPS))
    await cluster.asked("ListGroups")
    old = transport._connections.pop(address)
    made = await transport._connection(address)

    old.close()
    with pytest.raises(TransportError):
        await waiting

    assert made is await transport._connection(address)


async def test_versions_refused_by_error_code_are_none(transport, cluster):
    """A broker that refuses even ApiVersions offers nothing."""
    cluster.fail("ApiVersions", ErrorCode(35))

    assert {} == dict(await transport.versions(address_of(cluster)))


# --- TLS --------------------------------------------------------------------------------------------


def server_tls(*, client_authority: trustme.CA | None = None) -> tuple[trustme.CA, ssl.SSLContext]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client_authority.configure_trust(context)
    return authority, context


def tls_settings(authority: trustme.CA, **more) -> dict:
    return {"security_protocol": "SSL", "tls": Tls(ca_pem=authority.cert_pem.bytes().decode(), **more)}


@pytest.mark.parametrize("given_as", ["file", "text"])
async def test_tls_with_an_authority_of_one_s_own(tmp_path, given_as):
    """The certificates to trust come from a file or from the settings themselves."""
    authority, context = server_tls()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pem = authority.cert_pem.bytes().decode()
    tls = Tls(ca_file=tmp_path / "ca.pem") if given_as == "file" else Tls(ca_pem=pem)
    async with FakeCluster(tls=context) as cluster, transport_for(security_protocol="SSL", tls=tls) as transport:
        assert wire.METADATA.key in await transport.versions(address_of(cluster))


@pytest.mark.parametrize("given_as", ["two files", "one file", "text"])
async def test_mutual_tls(tmp_path, given_as):
    """The client's certificate and key come from two files, one file, or the settings themselves."""
    clients = trustme.CA()
    mine = clients.issue_cert("streamgauge@example.org")
    authority, context = server_tls(client_authority=clients)
    cert, key = mine.cert_chain_pems[0].bytes().decode(), mine.private_key_pem.bytes().decode()
    (tmp_path / "cert.pem").write_text(cert)
    (tmp_path / "key.pem").write_text(key)
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    given = {
        "two files": {"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"},
        "one file": {"cert_file": tmp_path / "both.pem"},
        "text": {"cert_pem": cert, "key_pem": SecretStr(key)},
    }[given_as]
    async with (
        FakeCluster(tls=context) as cluster,
        transport_for(**tls_settings(authority, **given)) as transport,
    ):
        assert wire.METADATA.key in await transport.versions(address_of(cluster))


async def test_mutual_tls_without_a_certificate_is_refused_by_the_broker():
    """A broker that wants a client certificate and gets none says so, or just closes: then it is asked about."""
    authority, context = server_tls(client_authority=trustme.CA())
    async with FakeCluster(tls=context) as cluster, transport_for(**tls_settings(authority)) as transport:
        error = await refusal(transport, address_of(cluster))

    assert error.why in {Why.REFUSED, Why.DISCONNECTED}
    assert "certificate" in str(error).lower()


async def test_an_untrusted_certificate():
    """A certificate of an authority that is not trusted says so, in OpenSSL's words."""
    _, context = server_tls()
    async with FakeCluster(tls=context) as cluster, transport_for(**tls_settings(trustme.CA())) as transport:
        error = await refusal(transport, address_of(cluster))

    assert Why.REFUSED == error.why
    assert str(error).startswith(f"the certificate of {address_of(cluster)} is not trusted: ")


async def test_a_certificate_for_another_host_unless_that_is_allowed():
    """The name that was asked for must be in the certificate, unless check_hostname is off."""
    authority, context = server_tls()
    async with FakeCluster(tls=context) as cluster:
        address = Address("localhost", address_of(cluster).port)
        async with transport_for(**tls_settings(authority)) as strict:
            error = await refusal(strict, address)
        async with transport_for(**tls_settings(authority, check_hostname=False)) as lenient:
            assert await lenient.versions(address)

    assert (Why.REFUSED, True) == (error.why, "not valid for 'localhost'" in str(error))


async def test_tls_on_a_plaintext_port(cluster):
    """The broker breaks off the handshake; the setting to look at is named."""
    async with transport_for(**tls_settings(trustme.CA())) as transport:
        error = await refusal(transport, address_of(cluster))

    expected = f"{address_of(cluster)} broke off the TLS handshake: does it speak TLS, as security_protocol SSL has it?"
    assert (expected, Why.REFUSED) == (str(error), error.why)


async def test_plaintext_on_a_tls_port(transport):
    """The broker closes without an answer; the setting to look at is named."""
    _, context = server_tls()
    async with FakeCluster(tls=context) as cluster:
        error = await refusal(transport, address_of(cluster))

    assert (f"{address_of(cluster)} {CLOSED}", Why.DISCONNECTED) == (str(error), error.why)


def test_certificates_that_cannot_be_read_are_wrong_settings(tmp_path):
    """Missing files, files without certificates, keys that do not fit: named by their setting, no secret told."""
    authority = trustme.CA()
    mine, other = authority.issue_cert("a@example.org"), authority.issue_cert("b@example.org")
    cert, other_key = mine.cert_chain_pems[0].bytes().decode(), other.private_key_pem.bytes().decode()
    (tmp_path / "empty.pem").write_text("nothing")
    wrong = {
        f"tls.ca_file: {tmp_path / 'none.pem'} ": Tls(ca_file=tmp_path / "none.pem"),
        f"tls.ca_file: {tmp_path / 'empty.pem'} ": Tls(ca_file=tmp_path / "empty.pem"),
        "tls.ca_pem ": Tls(ca_pem="-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----"),
        f"tls.cert_file: {tmp_path / 'empty.pem'} ": Tls(cert_file=tmp_path / "empty.pem"),
        "tls.cert_pem with tls.key_pem ": Tls(cert_pem=cert, key_pem=SecretStr(other_key)),
    }
    for start, tls in wrong.items():
        with pytest.raises(SettingsError) as caught:
            KafkaTransport(cluster_settings(security_protocol="SSL", tls=tls))

        assert str(caught.value).startswith(start)
        assert "\n" not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


def test_an_encrypted_key_needs_its_password(tmp_path):
    """Without it or with a wrong one the settings are wrong; nobody is asked for it, not even on a terminal."""
    from cryptography.hazmat.primitives import serialization

    mine = trustme.CA().issue_cert("a@example.org")
    key = serialization.load_pem_private_key(mine.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {"cert_file": tmp_path / "cert.pem", "key_file": tmp_path / "key.pem"}

    with pytest.raises(SettingsError):
        KafkaTransport(cluster_settings(security_protocol="SSL", tls=Tls(**files, key_password=SecretStr("wrong"))))
    KafkaTransport(cluster_settings(security_protocol="SSL", tls=Tls(**files, key_password=SecretStr("secret"))))
    said = on_a_terminal(
        f"""
import sys
from monitor.errors import SettingsError
from monitor.observe.kafka.transport import KafkaTransport
from monitor.settings import Cluster, Tls
tls = Tls(cert_file={str(tmp_path / "cert.pem")!r}, key_file={str(tmp_path / "key.pem")!r})
try:
    KafkaTransport(Cluster(bootstrap_servers="unused:1", security_protocol="SSL", tls=tls))
except SettingsError:
    print("wrong settings")
"""
    )
    assert "wrong settings" == said.strip()


def on_a_terminal(code: str) -> str:
    """Run Python with a terminal of its own and return what is written to it; what it asks is never answered."""
    spawn = "import pty, sys; pty.spawn([sys.executable, '-c', sys.argv[1]])"
    command = [sys.executable, "-c", spawn, code]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LONG, check=True, start_new_session=True
    ).stdout.decode()


# --- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("localhost:9092", ["localhost:9092"], id="host and port"),
        pytest.param("a:1,b:65535", ["a:1", "b:65535"], id="several"),
        pytest.param(" a:1 , b:2 ,", ["a:1", "b:2"], id="blanks and a trailing comma"),
        pytest.param("kafka", ["kafka:9092"], id="the port that Kafka has"),
        pytest.param("127.0.0.1", ["127.0.0.1:9092"], id="an IPv4 address"),
        pytest.param("[::1]:9093", ["[::1]:9093"], id="IPv6 with port"),
        pytest.param("[::1]", ["[::1]:9092"], id="IPv6 in brackets"),
        pytest.param("2001:db8::7", ["[2001:db8::7]:9092"], id="bare IPv6"),
        pytest.param("fe80::1%eth0", ["[fe80::1%eth0]:9092"], id="IPv6 with its interface"),
        pytest.param("größe.example:9", ["größe.example:9"], id="a name beyond ASCII"),
    ],
)
def test_addresses(text, expected):
    """What people write as bootstrap servers is understood."""
    assert expected == [str(address) for address in addresses(text)]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(" , ", id="commas"),
        pytest.param("host:port", id="a port in letters"),
        pytest.param("host:", id="no port after the colon"),
        pytest.param(":9092", id="no host"),
        pytest.param("host:0", id="port 0"),
        pytest.param("host:65536", id="a port too high"),
        pytest.param("host:-1", id="a negative port"),
        pytest.param("host:9092:9093", id="two ports"),
        pytest.param("PLAINTEXT://host:9092", id="a listener"),
        pytest.param("http://host", id="a URL"),
        pytest.param("host/path:9092", id="a path"),
        pytest.param("a b:9092", id="a blank within"),
        pytest.param("a:1 b:2", id="blanks instead of commas"),
        pytest.param("[host]:9092", id="brackets around a name"),
        pytest.param("[127.0.0.1]:9092", id="brackets around IPv4"),
        pytest.param("[::1:9092", id="a bracket that does not close"),
        pytest.param("host:²", id="a digit that is no number"),
    ],
)
def test_addresses_that_are_none(text):
    """What is no HOST:PORT is refused in one line that says how to write it."""
    with pytest.raises(SettingsError) as caught:
        addresses(text)

    (complaint,) = caught.value.complaints
    assert complaint.startswith("bootstrap_servers")
    assert "write for example localhost:9092" in complaint
    assert "\n" not in complaint


def test_aiokafka_keeps_quiet_unless_somebody_wants_to_hear_it():
    """Its log lines would repeat what comes back as an error; a level that was set stays."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    try:
        logger.setLevel(logging.NOTSET)
        KafkaTransport(cluster_settings())
        assert not logger.isEnabledFor(logging.CRITICAL)
        logger.setLevel(logging.DEBUG)
        KafkaTransport(cluster_settings())
        assert logging.DEBUG == logger.level
    finally:
        logger.setLevel(before)
