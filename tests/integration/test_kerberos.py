"""GSSAPI against a real broker and a real KDC, where this machine has both: a ticket lets in, and its lack is said."""

import shutil

import kdc
import pytest

from monitor.errors import UnreachableError
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.security import Kerberos, Security
from monitor.settings import Cluster, Sasl

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        any(shutil.which(program, path=kdc.PATH) is None for program in kdc.PROGRAMS),
        reason="no KDC on this machine: install krb5-kdc and krb5-admin-server (Debian) or krb5-server (Red Hat)",
    ),
]


@pytest.fixture
async def realm(tmp_path, monkeypatch):
    """A KDC whose realm is this process's own, without a ticket."""
    pytest.importorskip("gssapi", reason="no Python package gssapi: pip install 'streamgauge[gssapi]'")
    made = kdc.Kdc(tmp_path)
    await made.start()
    monkeypatch.setenv("KRB5_CONFIG", str(made.configuration))
    monkeypatch.setenv("KRB5CCNAME", f"MEMORY:{tmp_path.name}")
    monkeypatch.delenv("KRB5_CLIENT_KTNAME", raising=False)
    yield made
    made.stop()


async def check(config: Cluster) -> None:
    source = KafkaSource(config)
    try:
        await source.check()
    finally:
        await source.close()


async def refusal(config: Cluster) -> str:
    with pytest.raises(UnreachableError) as caught:
        await check(config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_ticket_lets_in(realm, kafka_factory, monkeypatch):
    """Without a ticket, or for another service, one line says so; with a key of the client's own it is let in."""
    principal = f"broker/kafka.sandbox@{kdc.REALM}"
    security = Security(kerberos=Kerberos(realm.configuration, realm.key("broker/kafka.sandbox"), principal))
    client_key = realm.key("monitor")
    sandbox = await kafka_factory(security=security, properties={"connections.max.reauth.ms": "60000"})

    def config(service="broker"):
        return Cluster(
            bootstrap_servers=sandbox.bootstraps["SASL_PLAINTEXT"],
            security_protocol="SASL_PLAINTEXT",
            sasl=Sasl(mechanism="GSSAPI", kerberos_service_name=service, kerberos_domain_name="kafka.sandbox"),
        )

    without = await refusal(config())
    assert "Kerberos gives no log-in at 127.0.0.1:" in without
    assert "get a ticket with kinit, or name a key table by KRB5_CLIENT_KTNAME" in without

    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(client_key))
    await check(config())

    assert "kafka/kafka.sandbox@" in await refusal(config(service="kafka"))
