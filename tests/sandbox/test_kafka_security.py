"""Listeners beside the plaintext one, and who may do what; confluent-kafka is the witness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from monitor.errors import UsageError
from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.pem import pkcs8
from monitor.sandbox.security import MECHANISMS, Kerberos, Security
from monitor.sandbox.tokens import Issuer

Factory = Callable[..., Awaitable[KafkaSandbox]]


class Certificates:
    """An authority, a server's and a client's certificate, as PEM text and files."""

    def __init__(self, folder: Path, kind: trustme.KeyType = trustme.KeyType.ECDSA) -> None:
        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost", key_type=kind)
        client = authority.issue_cert("client@example.org")
        self.authority = authority.cert_pem.bytes().decode()
        self.server_key = server.private_key_pem.bytes().decode()
        self.server = self.server_key + "".join(blob.bytes().decode() for blob in server.cert_chain_pems)
        self.authority_file, self.client_file = folder / "ca.pem", folder / "client.pem"
        authority.cert_pem.write_to_path(self.authority_file)
        client.private_key_and_cert_chain_pem.write_to_path(self.client_file)


def topics(bootstrap: str, **options: str) -> set[str]:
    """Return which topics another client may see."""
    names = {key.replace("_", "."): value for key, value in options.items()}
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **names})
    return set(client.list_topics(timeout=30 if options.get("sasl_password") != "wrong" else 2).topics)


@pytest.mark.parametrize(
    ("security", "mechanisms", "listeners"),
    [
        pytest.param(Security(), (), (), id="nothing"),
        pytest.param(Security(users={"a": "b"}), MECHANISMS, ("SASL_PLAINTEXT",), id="users"),
        pytest.param(Security(issuer=Issuer()), ("OAUTHBEARER",), ("SASL_PLAINTEXT",), id="tokens"),
        pytest.param(
            Security(kerberos=Kerberos(Path("c"), Path("k"), "kafka/h@R"), issuer=Issuer(), users={"a": "b"}),
            (*MECHANISMS, "OAUTHBEARER", "GSSAPI"),
            ("SASL_PLAINTEXT",),
            id="all",
        ),
    ],
)
def test_what_there_is_to_log_in_by(security: Security, mechanisms: tuple[str, ...], listeners: tuple[str, ...]):
    """Each way in adds its mechanism, and the first adds the listener."""
    assert (mechanisms, listeners) == (security.mechanisms, security.listeners)


@pytest.mark.integration
async def test_every_listener_lets_in_whom_it_should(kafka_factory: Factory, tmp_path: Path):
    """TLS, mutual TLS and each SASL mechanism work; no certificate and a wrong password do not; ACLs decide."""
    pem = Certificates(tmp_path)
    sandbox = await kafka_factory(
        security=Security(pem.server, pem.authority, {"alice": "s3cret!"}, authorizer=True),
        properties={"auto.create.topics.enable": "false"},
    )
    at, tls, trust = sandbox.bootstraps, {"security_protocol": "SSL"}, {"ssl_ca_location": str(pem.authority_file)}
    key = {"ssl_certificate_location": str(pem.client_file), "ssl_key_location": str(pem.client_file)}
    admin = AdminClient({"bootstrap.servers": sandbox.bootstrap})
    admin.create_topics([_topic("seen"), _topic("hidden")])["hidden"].result(30)

    assert {"PLAINTEXT", "SSL", "MTLS", "SASL_PLAINTEXT", "SASL_SSL"} == set(at)
    assert {"seen", "hidden"} == topics(at["SSL"], **tls, **trust)
    assert set() == topics(at["MTLS"], **tls, **trust, **key)
    with pytest.raises(KafkaException):
        topics(at["MTLS"], **tls, **trust, sasl_password="wrong")  # no certificate; a short wait

    rule = AclBinding(
        ResourceType.TOPIC, "seen", ResourcePatternType.LITERAL, "User:alice", "*",
        AclOperation.DESCRIBE, AclPermissionType.ALLOW,
    )  # fmt: skip
    for future in admin.create_acls([rule]).values():
        future.result(30)
    for mechanism in MECHANISMS:
        alice = {"sasl_mechanism": mechanism, "sasl_username": "alice", "sasl_password": "s3cret!"}
        sasl, both = {"security_protocol": "SASL_PLAINTEXT"}, {"security_protocol": "SASL_SSL", **trust}

        assert {"seen"} == topics(at["SASL_PLAINTEXT"], **sasl, **alice)
        assert {"seen"} == topics(at["SASL_SSL"], **both, **alice)
        with pytest.raises(KafkaException):
            topics(at["SASL_PLAINTEXT"], **sasl, **(alice | {"sasl_password": "wrong"}))


def _topic(name: str):
    from confluent_kafka.admin import NewTopic

    return NewTopic(name, 1, 1)


@pytest.mark.parametrize("kind", list(trustme.KeyType), ids=lambda kind: kind.name)
def test_a_traditional_key_becomes_pkcs8(tmp_path: Path, kind: trustme.KeyType):
    """Another library reads the same key out of both forms; the certificates stay."""
    pem = Certificates(tmp_path, kind)
    converted = pkcs8(pem.server)
    key, before = (load_pem_private_key(text.encode(), None) for text in (converted, pem.server_key))

    assert converted.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert before.private_numbers() == key.private_numbers()
    assert pem.server.removeprefix(pem.server_key).strip() in converted
    assert converted == pkcs8(converted)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"users": {"a b": "x"}}, "user 'a b': a name has letters", id="a name with a space"),
        pytest.param({"users": {"a": 'x"y'}}, "user 'a': a name has letters", id="a password with a quote"),
        pytest.param({"client_ca_pem": "x"}, "mutual TLS needs a server certificate", id="client CA alone"),
    ],
)
def test_what_kafka_cannot_take_is_refused(options: dict[str, object], complaint: str):
    """Before anything is started, in a line, and without the password."""
    with pytest.raises(UsageError, match=complaint) as caught:
        Security(**options)

    assert 'x"y' not in str(caught.value)


@pytest.mark.parametrize(
    ("pem", "complaint"),
    [
        pytest.param("-----BEGIN CERTIFICATE-----", "holds no private key", id="certificates only"),
        pytest.param(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----",
            "write it unencrypted",
            id="encrypted",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_one_line(pem: str, complaint: str):
    """The line says what is wrong with it."""
    with pytest.raises(UsageError, match=complaint):
        pkcs8(pem)
