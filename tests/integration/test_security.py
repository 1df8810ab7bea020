"""TLS, mutual TLS, SASL and ACLs against a real broker: it reads what it may, and says in one line what it may not."""

import asyncio

import pytest
import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from monitor.errors import UnreachableError
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.loads import commit_only
from monitor.sandbox.security import Security
from monitor.settings import Cluster, Sasl, Tls

pytestmark = pytest.mark.integration

ALLOW = AclPermissionType.ALLOW
PASSWORD = "correct-horse"
COMMITS = {"billing": {("orders", 0): 0, ("orders", 1): 0}, "secret": {("orders", 0): 0}}


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A broker with every listener and ACLs, a topic, two groups, and the client's files; shared by this module."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    server = ca.issue_cert("127.0.0.1", "localhost")
    client = ca.issue_cert("monitor", common_name="monitor")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    for blob in client.cert_chain_pems:
        blob.write_to_path(folder / "client.pem", append=True)
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    sandbox = KafkaSandbox(
        security=Security(
            server_pem=server.private_key_and_cert_chain_pem.bytes().decode(),
            client_ca_pem=ca.cert_pem.bytes().decode(),
            users={"monitor": PASSWORD, "nobody": PASSWORD},
            authorizer=True,
            super_users=("User:monitor",),
        ),
        # A client is known by the common name of its certificate.
        properties={"ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/"},
    )
    asyncio.run(sandbox.start())
    admin = AdminClient({"bootstrap.servers": sandbox.bootstrap})
    for created in admin.create_topics([NewTopic("orders", 2, 1)]).values():
        created.result(30)
    asyncio.run(commit_only(sandbox.bootstrap, COMMITS))
    yield sandbox, folder, admin
    asyncio.run(sandbox.stop())


def cluster(sandbox, listener, **options) -> Cluster:
    return Cluster(bootstrap_servers=sandbox.bootstraps[listener], timeout_seconds=5, **options)


def sasl(mechanism, username="monitor", password=PASSWORD) -> Sasl:
    return Sasl(mechanism=mechanism, username=username, password=password)


async def read(config: Cluster):
    source = KafkaSource(config)
    try:
        await source.check()
        return await source.observe()
    finally:
        await source.close()


async def refusal(config: Cluster) -> str:
    with pytest.raises(UnreachableError) as caught:
        await read(config)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def groups(snapshot) -> dict[str, int]:
    layout = snapshot.positions.layout
    return {who.name: int(layout.starts[i + 1] - layout.starts[i]) for i, who in enumerate(layout.consumers)}


async def test_every_way_in_and_every_refusal(secured):
    """Each protocol and mechanism reads both groups; each wrong key is one clear line without the secret."""
    sandbox, folder, _ = secured
    ca, tls = folder / "ca.pem", Tls(ca_file=folder / "ca.pem")
    client = Tls(ca_file=ca, cert_file=folder / "client.pem", key_file=folder / "client.key")
    ways = {
        "tls": cluster(sandbox, "SSL", security_protocol="SSL", tls=tls),
        "inline pem": cluster(sandbox, "SSL", security_protocol="SSL", tls=Tls(ca_pem=ca.read_text())),
        "mutual tls": cluster(sandbox, "MTLS", security_protocol="SSL", tls=client),
    }
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        ways[f"{mechanism} in the clear"] = cluster(
            sandbox, "SASL_PLAINTEXT", security_protocol="SASL_PLAINTEXT", sasl=sasl(mechanism)
        )
        ways[f"{mechanism} over tls"] = cluster(
            sandbox, "SASL_SSL", security_protocol="SASL_SSL", sasl=sasl(mechanism), tls=tls
        )
    for way, config in ways.items():
        snapshot = await read(config)
        assert snapshot.up, (way, snapshot.failures)
        assert {"billing": 2, "secret": 1} == groups(snapshot), way

    plain = sandbox.bootstraps["SASL_PLAINTEXT"]
    wrong = Cluster(
        bootstrap_servers=plain, security_protocol="SASL_PLAINTEXT", sasl=sasl("SCRAM-SHA-256", password="wrong-staple")
    )
    assert "SASL_AUTHENTICATION_FAILED" in await refusal(wrong)
    assert "wrong-staple" not in await refusal(wrong)
    stranger = cluster(sandbox, "SSL", security_protocol="SSL", tls=Tls(ca_file=folder / "stranger.pem"))
    assert "certificate of 127.0.0.1" in await refusal(stranger)
    assert await refusal(cluster(sandbox, "MTLS", security_protocol="SSL", tls=tls))
    assert await refusal(
        Cluster(bootstrap_servers=sandbox.bootstrap, security_protocol="SSL", tls=tls, timeout_seconds=2)
    )
    assert await refusal(Cluster(bootstrap_servers=sandbox.bootstraps["SSL"], timeout_seconds=2))


async def test_a_user_that_may_see_one_group_of_two(secured):
    """Who may describe one group and its topic gets its lag; the other group is left out by the broker or refused."""
    sandbox, _, admin = secured
    rights = {ResourceType.GROUP: "billing", ResourceType.TOPIC: "orders"}
    bindings = [
        AclBinding(kind, name, *(ResourcePatternType.LITERAL, "User:nobody", "*", AclOperation.DESCRIBE, ALLOW))
        for kind, name in rights.items()
    ]
    for made in admin.create_acls(bindings).values():
        made.result(30)
    snapshot = await read(
        cluster(sandbox, "SASL_PLAINTEXT", security_protocol="SASL_PLAINTEXT", sasl=sasl("PLAIN", username="nobody"))
    )

    assert {"billing": 2} == {name: size for name, size in groups(snapshot).items() if name == "billing"}
    assert [0, 0] == snapshot.positions.committed[:2].tolist()
    assert "secret" not in groups(snapshot) or snapshot.failures
