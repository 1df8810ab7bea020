"""Listeners beside the plaintext one: TLS, mutual TLS and SASL, and who may do what.

Kept apart from ``kafka`` because it is all about names of Kafka's properties. Nothing here is secret: the sandbox
listens on the loopback only, and its passwords are on command lines and in files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monitor.errors import UsageError
from monitor.sandbox.pem import pkcs8
from monitor.sandbox.tokens import Issuer

SSL = "SSL"
MTLS = "MTLS"
SASL_PLAINTEXT = "SASL_PLAINTEXT"
SASL_SSL = "SASL_SSL"

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = ("PLAIN", *SCRAM)
OAUTHBEARER = "OAUTHBEARER"
GSSAPI = "GSSAPI"

_KEY_SET = "token-keys.json"

_MODULES = "org.apache.kafka.common.security"
_PROTOCOLS = {MTLS: "SSL"}


@dataclass(frozen=True)
class Kerberos:
    """Who the brokers are to a KDC.

    Attributes:
        configuration: krb5.conf, which names realm and KDC.
        keytab: A file with the key of ``principal``.
        principal: "SERVICE/HOST@REALM".
    """

    configuration: Path
    keytab: Path
    principal: str


@dataclass(frozen=True)
class Security:
    """Which listeners there are beside PLAINTEXT, and whether access is controlled.

    Attributes:
        server_pem: The server's private key and certificate chain (PEM). Adds the listener SSL.
        client_ca_pem: Who signs client certificates (PEM). Adds MTLS, TLS that wants a client certificate.
        users: Passwords by name, for SASL PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512. Adds SASL_PLAINTEXT and, with
            ``server_pem``, SASL_SSL. SCRAM users are written when a data folder is first used.
        issuer: Whose tokens let in, by OAUTHBEARER on the same listeners; ``tokens.TokenEndpoint`` hands them out.
        kerberos: Lets in whom a KDC knows, by GSSAPI on the same listeners.
        authorizer: Let ACLs decide. Without one a user may do nothing; who comes without a name (PLAINTEXT, SSL)
            may do everything, as may ``super_users``.
        super_users: Principals such as "User:admin".

    Raises:
        UsageError: A name or password has characters that Kafka's formats cannot carry, or a part is missing.
    """

    server_pem: str | None = None
    client_ca_pem: str | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    issuer: Issuer | None = None
    kerberos: Kerberos | None = None
    authorizer: bool = False
    super_users: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.client_ca_pem is not None and self.server_pem is None:
            raise UsageError("mutual TLS needs a server certificate as well: give server_pem")
        for name, password in self.users.items():
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not re.fullmatch(r"[^\s\"'\\,=;\[\]]+", password):
                msg = (
                    f"user {name!r}: a name has letters, digits, '_', '.' and '-'; a password has no space and "
                    "none of \" ' \\ , = ; [ ]"
                )
                raise UsageError(msg)

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Return the names of the SASL mechanisms it lets in by."""
        given = {OAUTHBEARER: self.issuer, GSSAPI: self.kerberos}
        return (*(MECHANISMS if self.users else ()), *(name for name, how in given.items() if how is not None))

    @property
    def listeners(self) -> tuple[str, ...]:
        """Return the names of the listeners it adds."""
        wanted = {
            SSL: self.server_pem,
            MTLS: self.client_ca_pem,
            SASL_PLAINTEXT: self.mechanisms,
            SASL_SSL: self.mechanisms and self.server_pem,
        }
        return tuple(name for name, given in wanted.items() if given)

    def properties(self, folder: Path) -> dict[str, str]:
        """Return the broker properties, and write the files they name into a folder.

        Raises:
            UsageError: ``server_pem`` holds no private key that Kafka can read.
        """
        if self.server_pem is not None:
            (folder / "server.pem").write_text(pkcs8(self.server_pem))
        if self.client_ca_pem is not None:
            (folder / "client-ca.pem").write_text(self.client_ca_pem)
        if self.issuer is not None:
            (folder / _KEY_SET).write_text(self.issuer.key_set())
        found = dict(self._access())
        for listener in self.listeners:
            prefix = f"listener.name.{listener.lower()}."
            options = {**self._tls(listener, folder), **self._sasl(listener, folder)}
            found |= {f"{prefix}{name}": value for name, value in options.items()}
        return found

    def protocol(self, listener: str) -> str:
        """Return the security protocol of a listener: of those without security, PLAINTEXT."""
        return _PROTOCOLS.get(listener, listener) if listener in self.listeners else "PLAINTEXT"

    def java_options(self, folder: Path) -> Iterator[str]:
        """Yield what the Java of a node with this folder needs to be told beside the properties."""
        if self.issuer is not None:
            # Kafka reads keys only from where this says (3.9.2 and 4.0 on by URL, 4.1 on files by their own name).
            yield f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={(folder / _KEY_SET).as_uri()}"
            yield f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.files={folder / _KEY_SET}"
        if self.kerberos is not None:
            yield f"-Djava.security.krb5.conf={self.kerberos.configuration}"

    def scram_arguments(self) -> Iterator[str]:
        """Yield the arguments of Kafka's storage tool that create the SCRAM users (KIP-900)."""
        for name, password in self.users.items():
            for mechanism in SCRAM:
                yield "--add-scram"
                yield f"{mechanism}=[name={name},password={password}]"

    def _access(self) -> Iterator[tuple[str, str]]:
        if self.authorizer:
            yield "authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            # The nodes themselves talk over PLAINTEXT.
            yield "super.users", ";".join(("User:ANONYMOUS", *self.super_users))

    def _tls(self, listener: str, folder: Path) -> dict[str, str]:
        if listener == SASL_PLAINTEXT:
            return {}
        options = {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(folder / "server.pem")}
        if listener == MTLS:
            options |= {
                "ssl.client.auth": "required",
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(folder / "client-ca.pem"),
            }
        return options

    def _sasl(self, listener: str, folder: Path) -> dict[str, str]:
        if listener not in {SASL_PLAINTEXT, SASL_SSL}:
            return {}
        enabled = {"sasl.enabled.mechanisms": ",".join(self.mechanisms)}
        return {**enabled, **(self._passwords() if self.users else {}), **self._tokens(folder), **self._tickets()}

    def _tickets(self) -> dict[str, str]:
        if self.kerberos is None:
            return {}
        options = f'useKeyTab=true storeKey=true keyTab="{self.kerberos.keytab}" principal="{self.kerberos.principal}"'
        return {
            "gssapi.sasl.jaas.config": f"com.sun.security.auth.module.Krb5LoginModule required {options};",
            "sasl.kerberos.service.name": self.kerberos.principal.partition("/")[0],
        }

    def _tokens(self, folder: Path) -> dict[str, str]:
        if self.issuer is None:
            return {}
        return {
            "oauthbearer.sasl.jaas.config": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required;",
            "oauthbearer.sasl.server.callback.handler.class": (
                f"{_MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler"
            ),
            "sasl.oauthbearer.jwks.endpoint.url": (folder / _KEY_SET).as_uri(),
            "sasl.oauthbearer.expected.issuer": self.issuer.name,
            "sasl.oauthbearer.expected.audience": self.issuer.audience,
            # Kafka forgives 30 s; whoever waits for a token to expire does not want to wait for those.
            "sasl.oauthbearer.clock.skew.seconds": "0",
        }

    def _passwords(self) -> dict[str, str]:
        users = " ".join(f'user_{name}="{password}"' for name, password in self.users.items())
        return {
            "plain.sasl.jaas.config": f"{_MODULES}.plain.PlainLoginModule required {users};",
            **{
                f"{mechanism.lower()}.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;"
                for mechanism in SCRAM
            },
        }
