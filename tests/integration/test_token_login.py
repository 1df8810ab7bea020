"""OAUTHBEARER against a real broker that checks signatures and ends log-ins: in, out, and no cycle without data."""

import asyncio
import time

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.errors import UnreachableError
from monitor.observe.kafka import tokens as tokens_module
from monitor.observe.kafka import transport as transport_module
from monitor.observe.kafka.source import KafkaSource
from monitor.observe.kafka.transport import KafkaTransport
from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.loads import commit_only
from monitor.sandbox.security import Security
from monitor.sandbox.tokens import Issuer, TokenEndpoint
from monitor.settings import Cluster, Sasl

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ISSUER = Issuer()
SECRET = "correct-horse"
SESSION_SECONDS = 3.0
COMMITS = {"billing": {("orders", 0): 0, ("orders", 1): 0}}


@pytest.fixture(scope="module")
def cluster():
    """A broker that lets in by token for 3 s at most, a topic and a group; shared by this module's tests."""
    sandbox = KafkaSandbox(
        security=Security(users={"alice": SECRET}, issuer=ISSUER),
        properties={"connections.max.reauth.ms": str(int(SESSION_SECONDS * 1000))},
    )

    async def start():
        await sandbox.start()
        admin = AdminClient({"bootstrap.servers": sandbox.bootstrap})
        for created in admin.create_topics([NewTopic("orders", 2, 1)]).values():
            created.result(30)
        await commit_only(sandbox.bootstrap, COMMITS)

    asyncio.run(start())
    yield sandbox
    asyncio.run(sandbox.stop())


def settings(sandbox, **sasl) -> Cluster:
    return Cluster(
        bootstrap_servers=sandbox.bootstraps["SASL_PLAINTEXT"],
        security_protocol="SASL_PLAINTEXT",
        sasl=Sasl.model_validate({"mechanism": "OAUTHBEARER", **sasl}),
    )


def by_endpoint(sandbox, endpoint) -> Cluster:
    return settings(sandbox, token_endpoint=endpoint.url, client_id="monitor", client_secret="s3cret")


def seen(snapshot) -> dict[str, int]:
    assert (True, ()) == (snapshot.up, snapshot.failures)
    layout = snapshot.positions.layout
    return {who.name: int(layout.starts[i + 1] - layout.starts[i]) for i, who in enumerate(layout.consumers)}


async def read(config: Cluster):
    source = KafkaSource(config)
    try:
        await source.check()
        return seen(await source.observe())
    finally:
        await source.close()


async def refusal(config: Cluster) -> str:
    with pytest.raises(UnreachableError) as caught:
        await read(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_token_of_an_endpoint_or_of_a_file_lets_in(cluster, tmp_path):
    """Both ways read the group."""
    (tmp_path / "token").write_text(ISSUER.token("monitor"))
    async with TokenEndpoint(ISSUER) as endpoint:
        assert {"billing": 2} == await read(by_endpoint(cluster, endpoint))

    assert {"billing": 2} == await read(settings(cluster, token_file=tmp_path / "token"))


@pytest.mark.parametrize(
    ("token", "said"),
    [
        pytest.param(
            lambda: Issuer().token("monitor"), "check what the broker expects (issuer sandbox,", id="signature"
        ),
        pytest.param(lambda: ISSUER.token("monitor", aud="web"), "audience web", id="audience"),
        pytest.param(lambda: ISSUER.token("monitor", -60), "the token expired ", id="expired"),
        pytest.param(lambda: ISSUER.token("monitor", nbf=time.time() + 90), "compare the clocks", id="clock skew"),
        pytest.param(lambda: "opaque", "the token is no JWT", id="no JWT"),
    ],
)
async def test_a_token_that_the_broker_refuses(cluster, tmp_path, token, said):
    """The broker's verdict arrives, and what this token's trouble may be; the token is not shown."""
    (tmp_path / "token").write_text(token())

    text = await refusal(settings(cluster, token_file=tmp_path / "token"))

    assert "refused the log-in by OAUTHBEARER (SASL_AUTHENTICATION_FAILED)" in text
    assert said in text
    assert token().rpartition(".")[2] not in text


async def test_an_endpoint_that_refuses_is_named(cluster):
    """It is the endpoint that says no, and not the broker."""
    async with TokenEndpoint(ISSUER, clients={"monitor": "other"}) as endpoint:
        text = await refusal(by_endpoint(cluster, endpoint))

    assert f"token endpoint {endpoint.url} refused client monitor with 401" in text


async def test_a_mechanism_that_the_broker_does_not_take(cluster, monkeypatch):
    """Those that it takes are named."""
    monkeypatch.setattr(transport_module.aiokafka.conn, "gssapi", object())
    config = settings(cluster, mechanism="GSSAPI")

    text = await refusal(config)

    taken = "OAUTHBEARER, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"
    assert f"does not take mechanism GSSAPI: choose one of those it takes ({taken})" in text


@pytest.mark.parametrize("renews", [True, False], ids=["renewed in time", "ended by the broker"])
async def test_log_ins_that_the_broker_ends(cluster, monkeypatch, renews):
    """Over several of its log-ins every cycle is complete: they are renewed on their connection, or else made anew."""
    if not renews:
        monkeypatch.setattr(transport_module, "RENEW_SHARE", 1000.0)
    async with TokenEndpoint(ISSUER, seconds=2) as endpoint:
        config = by_endpoint(cluster, endpoint)
        transport = KafkaTransport(config)
        source = KafkaSource(config, transport=transport)
        before = None
        while endpoint.asked < 3:
            assert {"billing": 2} == seen(await source.observe())
            before = before or dict(transport._connections)
            await asyncio.sleep(0.3)  # time itself is what is waited for: the broker's limit on a log-in
        after = dict(transport._connections)
        await source.close()

    assert renews == (before == after)


async def test_a_kept_token_that_the_broker_refuses_is_replaced_at_once(cluster, monkeypatch):
    """Where the endpoint has better ones by now, a log-in with a kept one that went bad succeeds in the same cycle."""
    monkeypatch.setattr(tokens_module, "FRESH_SECONDS", 0.0)
    async with TokenEndpoint(Issuer()) as endpoint:
        config = by_endpoint(cluster, endpoint)
        transport = KafkaTransport(config)
        await transport._tokens.token()  # kept, and signed by a key that the broker does not know
        endpoint.issuer = ISSUER
        source = KafkaSource(config, transport=transport)

        assert {"billing": 2} == seen(await source.observe())
        await source.close()

    assert 2 == endpoint.asked


async def test_another_client_agrees(cluster):
    """librdkafka gets in by the same endpoint, and is refused by a broker and an endpoint that differ."""

    def topics(endpoint):
        said = []
        client = AdminClient({
            "bootstrap.servers": cluster.bootstraps["SASL_PLAINTEXT"],
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "monitor",
            "sasl.oauthbearer.client.secret": "s3cret",
            "sasl.oauthbearer.token.endpoint.url": endpoint.url,
            "log_level": 0,
            "error_cb": said.append,
        })  # fmt: skip
        try:
            return set(client.list_topics(timeout=30 if endpoint.issuer is ISSUER else 2).topics)
        except KafkaException:
            client.poll(0)
            return {error.name() for error in said}

    async with TokenEndpoint(ISSUER) as right, TokenEndpoint(Issuer()) as wrong:
        assert "orders" in await asyncio.to_thread(topics, right)
        assert "_AUTHENTICATION" in await asyncio.to_thread(topics, wrong)
