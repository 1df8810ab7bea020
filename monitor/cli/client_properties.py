"""Kafka client properties files (``--command-config``) as the fields of a Cluster.

The syntax is that of java.util.Properties, the JAAS line that of Kafka's JaasConfig, the PEM properties those of
KIP-651; librdkafka's names for the same things are taken as well. Properties that have nothing to do with reaching
a broker are passed over, as Kafka does; what would change how it is reached and cannot be honoured is refused.
No complaint contains a value that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus, unquote, urlsplit

from monitor.cli.yaml_document import printable
from monitor.errors import SettingsError, UsageError
from monitor.settings import LoginFields, contradictions


class Property(NamedTuple):
    """A value and the line it starts in."""

    value: str
    line: int


def cluster_fields(path: Path) -> dict[str, Any]:
    """Read a client properties file and return the fields of ``monitor.settings.Cluster`` that it gives.

    Raises:
        SettingsError: It is wrong or asks for what streamgauge cannot do; one line each complaint.
        UsageError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as exc:
        problem = f"{path} could not be read ({getattr(exc, 'strerror', None) or exc}): check --command-config"
        raise UsageError(problem) from None
    fields, complaints = translate(parse(decode(content)))
    if complaints:
        raise SettingsError([f"{path}:{line}: {text}" for line, text in complaints])
    return fields


# --- the syntax of properties files ---------------------------------------------------------------------


def decode(content: bytes) -> str:
    """Decode as UTF-8, as people write it today, else as Latin-1, which is what Java reads."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.)|$)", re.DOTALL)
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_KEY = re.compile(r"(?P<key>(?:\\.|[^\\=:\s])*)[ \t\f]*[=:]?[ \t\f]*(?P<value>.*)", re.DOTALL)


def parse(text: str) -> dict[str, Property]:
    """Parse the text of a properties file; of a repeated key the last one counts, as in Java."""
    properties = {}
    for line, content in _logical_lines(text):
        match = _KEY.fullmatch(content)
        assert match is not None  # noqa: S101 - the expression matches every text
        properties[_unescape(match["key"])] = Property(_unescape(match["value"]), line)
    return properties


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Join lines that end with an odd number of backslashes with the next one; leave out comments and empty lines."""
    lines: list[tuple[int, str]] = []
    continued = False
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        content = line.lstrip(" \t\f")
        if not continued and (not content or content[0] in "#!"):
            continue
        start, before = lines.pop() if continued else (number, "")
        continued = (len(content) - len(content.rstrip("\\"))) % 2 == 1
        lines.append((start, before + (content[:-1] if continued else content)))
    return lines


def _unescape(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1] is not None:
            return chr(int(match[1], 16))
        return _ESCAPED.get(match[2], match[2]) if match[2] is not None else ""

    joined = _ESCAPE.sub(replace, text)
    # Characters beyond U+FFFF are two escapes in Java; alone, half of one is no character.
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- the JAAS line ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A login module and its options. Not shown in any repr: it holds a password."""

    module: str
    options: Mapping[str, str]


_JAAS_TOKEN = re.compile(
    r"""\s+ | //[^\n]*(?:\n|$) | /\*.*?\*/
    | (?P<quoted>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | (?P<sign>[=;])
    | (?P<word>[^\s=;"'/]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_jaas(text: str) -> Login:
    """Parse ``MODULE required NAME="VALUE" …;``.

    Raises:
        ValueError: It is not of that form; the text says what is missing, and quotes nothing.
    """
    tokens = _jaas_tokens(text)
    if not tokens or tokens[-1] != ("sign", ";"):
        raise ValueError("does not end with a semicolon: add ; at its end")
    words = tokens[:-1]
    if ("sign", ";") in words:
        raise ValueError("names several login modules: keep one")
    module, flag, *rest = [*words, ("", ""), ("", "")][: max(2, len(words))]
    if module[0] != "word" or flag[1].lower() not in {"required", "requisite", "sufficient", "optional"}:
        raise ValueError('should start with a login module and the word required: MODULE required username="…"')
    if (
        len(rest) % 3
        or any(sign != ("sign", "=") for sign in rest[1::3])
        or any(kind == "sign" for kind, _ in [*rest[0::3], *rest[2::3]])
    ):
        raise ValueError('should give each option as NAME="VALUE", separated by spaces')
    return Login(module[1], {name: value for (_, name), (_, value) in zip(rest[0::3], rest[2::3], strict=True)})


def _jaas_tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(text):
        match = _JAAS_TOKEN.match(text, position)
        if match is None:
            raise ValueError("has a quote that is not closed, or a character that needs quotes")
        position = match.end()
        if match.lastgroup is not None:
            value = match[0]
            tokens.append((match.lastgroup, _unquote(value) if match.lastgroup == "quoted" else value))
    return tokens


_QUOTED_ESCAPE = re.compile(r"\\([0-3]?[0-7]{1,2}|.)", re.DOTALL)
_QUOTED_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unquote(quoted: str) -> str:
    """Undo the escapes of java.io.StreamTokenizer, which Kafka's JaasConfig uses."""

    def replace(match: re.Match[str]) -> str:
        return chr(int(match[1], 8)) if match[1].isdecimal() else _QUOTED_ESCAPED.get(match[1], match[1])

    return _QUOTED_ESCAPE.sub(replace, quoted[1:-1])


# --- certificates in properties ----------------------------------------------------------------------------

_PEM = re.compile(r"-----BEGIN (?P<label>[A-Z0-9 ]+)-----(?P<body>.*?)-----END (?P=label)-----", re.DOTALL)
_PEM_LINE = 64  # characters of base64 a line, RFC 7468


def normal_pem(text: str, label: str) -> str | None:
    """Return the PEM blocks in a property whose label ends with ``label``, one line each 64 characters; None if none.

    In a properties file line ends get lost or become spaces, and Kafka reads it all the same; OpenSSL does not.
    """
    blocks = [_wrap(match) for match in _PEM.finditer(text) if match["label"].endswith(label)]
    return "".join(blocks) or None


def _wrap(match: re.Match[str]) -> str:
    body = "".join(match["body"].split())
    if ":" in body:  # headers of an old encrypted key: their lines matter
        return f"{match[0]}\n"
    lines = (body[start : start + _PEM_LINE] for start in range(0, len(body), _PEM_LINE))
    return "\n".join([f"-----BEGIN {match['label']}-----", *lines, f"-----END {match['label']}-----", ""])


# --- what the properties mean -----------------------------------------------------------------------------

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MODULE_OF = {
    "PLAIN": "PlainLoginModule",
    "SCRAM-SHA-256": "ScramLoginModule",
    "SCRAM-SHA-512": "ScramLoginModule",
    "OAUTHBEARER": "OAuthBearerLoginModule",
    "GSSAPI": "Krb5LoginModule",
}
_MECHANISMS = ", ".join(_MODULE_OF)

SASL_PROPERTIES = {
    "sasl.mechanism": "sasl.mechanism",
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.jaas.config": "sasl.username, sasl.password; sasl.client_id, sasl.client_secret, sasl.scope, "
    "sasl.extensions, sasl.token_ca_file; sasl.kerberos_service_name",
    "sasl.username": "sasl.username",
    "sasl.password": "sasl.password",
    "sasl.oauthbearer.token.endpoint.url": "sasl.token_endpoint; sasl.token_file, with file:",
    "sasl.oauthbearer.client.credentials.client.id": "sasl.client_id",
    "sasl.oauthbearer.client.id": "sasl.client_id",
    "sasl.oauthbearer.client.credentials.client.secret": "sasl.client_secret",
    "sasl.oauthbearer.client.secret": "sasl.client_secret",
    "sasl.oauthbearer.scope": "sasl.scope",
    "sasl.oauthbearer.extensions": "sasl.extensions",
    "https.ca.location": "sasl.token_ca_file",
    "sasl.kerberos.service.name": "sasl.kerberos_service_name",
}
"""Kafka's and librdkafka's names for the fields of ``monitor.settings.Sasl``."""

_CHOICES = {
    "sasl.login.callback.handler.class": ("OAuthBearerLoginCallbackHandler",),
    "sasl.oauthbearer.jwt.retriever.class": (
        "DefaultJwtRetriever",
        "ClientCredentialsJwtRetriever",
        "FileJwtRetriever",
    ),
    "sasl.oauthbearer.method": ("oidc",),
    "sasl.oauthbearer.grant.type": ("client_credentials",),
}
"""Properties of OAUTHBEARER that say how to come by a token, and the values, after the last dot, that are understood.

Those of Kafka's own classes: ``OAuthBearerLoginCallbackHandler`` (KIP-768) and the retrievers of KIP-1139; of
librdkafka the method oidc.
"""

TLS_PROPERTIES = {
    "ssl.truststore.location": "ca_file",
    "ssl.ca.location": "ca_file",
    "ssl.truststore.certificates": "ca_pem",
    "ssl.ca.pem": "ca_pem",
    "ssl.keystore.location": "cert_file",
    "ssl.certificate.location": "cert_file",
    "ssl.keystore.certificate.chain": "cert_pem",
    "ssl.certificate.pem": "cert_pem",
    "ssl.key.location": "key_file",
    "ssl.keystore.key": "key_pem",
    "ssl.key.pem": "key_pem",
    "ssl.key.password": "key_password",
}
"""Kafka's and librdkafka's names for the fields of ``monitor.settings.Tls``."""

_PEM_LABEL = {"ca_pem": "CERTIFICATE", "cert_pem": "CERTIFICATE", "key_pem": "PRIVATE KEY"}

_STORES = {
    "ssl.truststore.location": ("ssl.truststore.type", "openssl pkcs12 -nokeys"),
    "ssl.keystore.location": ("ssl.keystore.type", "openssl pkcs12"),
}
"""Properties that name a Java key store unless the type says PEM, and what makes PEM of it."""

_READ = frozenset({
    "bootstrap.servers", "security.protocol", "ssl.truststore.type", "ssl.keystore.type",
    "ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification",
    "sasl.oauthbearer.header.urlencode", *_CHOICES, *SASL_PROPERTIES, *TLS_PROPERTIES,
})  # fmt: skip

_WITHOUT_EFFECT = frozenset({
    "ssl.truststore.password", "ssl.keystore.password", "ssl.protocol", "ssl.enabled.protocols", "ssl.provider",
    "ssl.cipher.suites", "ssl.keymanager.algorithm", "ssl.trustmanager.algorithm", "ssl.secure.random.implementation",
    "security.providers", "sasl.kerberos.kinit.cmd", "sasl.kerberos.ticket.renew.window.factor",
    "sasl.kerberos.ticket.renew.jitter", "sasl.kerberos.min.time.before.relogin", "sasl.login.refresh.window.factor",
    "sasl.login.refresh.window.jitter", "sasl.login.refresh.min.period.seconds", "sasl.login.refresh.buffer.seconds",
    "sasl.login.connect.timeout.ms", "sasl.login.read.timeout.ms", "sasl.login.retry.backoff.ms",
    "sasl.login.retry.backoff.max.ms", "sasl.oauthbearer.scope.claim.name", "sasl.oauthbearer.sub.claim.name",
    "sasl.oauthbearer.jwt.validator.class", "sasl.oauthbearer.clock.skew.seconds",
})  # fmt: skip
"""Known, and nothing that is needed: Python's TLS picks protocol and ciphers, PEM stores have no password, tickets are
renewed by who made them, and a token's claims are the broker's to check."""

_JAVA = "names Java code, which cannot be run here: "
_REFUSED = {
    "sasl.client.callback.handler.class": f"{_JAVA}log in with a user name and a password",
    "sasl.login.class": f"{_JAVA}log in with a user name and a password",
    "ssl.engine.factory.class": f"{_JAVA}give the certificates as PEM",
    "config.providers": "is not supported: write the values into the file",
    "sasl.oauthbearer.config": "makes an unsecured token, which is not supported: name a token endpoint",
    **dict.fromkeys(
        (
            "sasl.oauthbearer.assertion.algorithm",
            "sasl.oauthbearer.assertion.file",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.assertion.private.key.pem",
        ),
        "asks by an assertion, which is not supported: give client id and secret",
    ),
}


def translate(properties: Mapping[str, Property]) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """Return the fields of a Cluster and every complaint as (line, text), in the order of the file."""
    translation = _Translation(properties)
    fields = translation.fields()
    return fields, sorted(translation.complaints)


class _Translation:
    """One file's properties on their way to fields; complaints gather on the way."""

    def __init__(self, properties: Mapping[str, Property]) -> None:
        # An empty value is Kafka's way to say: not set. Only host name checking gives it a meaning of its own.
        self._set = {name: each for name, each in properties.items() if each.value.strip()}
        self._all = properties
        self.complaints: list[tuple[int, str]] = []

    def fields(self) -> dict[str, Any]:
        """Return what the properties say, as far as it could be understood."""
        self._refuse()
        protocol = self._protocol()
        fields: dict[str, Any] = {"security_protocol": protocol}
        if "bootstrap.servers" in self._set:
            fields["bootstrap_servers"] = self._word("bootstrap.servers")
        # With PLAINTEXT Kafka passes over sasl.* and ssl.*, and so do we.
        if protocol.startswith("SASL_"):
            fields["sasl"] = self._sasl()
        if protocol.endswith("SSL"):
            fields["tls"] = self._tls(protocol)
        return fields

    def _word(self, name: str, default: str = "") -> str:
        return self._set[name].value.strip() if name in self._set else default

    def _complain(self, name: str, text: str) -> None:
        line = self._all[name].line if name in self._all else 1
        self.complaints.append((line, f"{printable(name)} {text}"))

    def _refuse(self) -> None:
        known = sorted(_READ | _WITHOUT_EFFECT | _REFUSED.keys())
        for name in self._all.keys() - known:
            # Kafka passes over what it does not know; a slip of the pen here would be a broker out of reach.
            meant = get_close_matches(name, known, n=1, cutoff=0.9)
            if meant:
                self._complain(name, f"is not a property of Kafka clients: did you mean {meant[0]}?")
        for name in self._set.keys() & _REFUSED.keys():
            self._complain(name, _REFUSED[name])
        for name in self._set.keys() & _CHOICES.keys():
            if self._word(name).rpartition(".")[2] not in _CHOICES[name]:
                understood = " or ".join(_CHOICES[name])
                self._complain(name, f"says to do what is not supported here: understood is {understood}")

    def _protocol(self) -> str:
        name = "security.protocol"
        protocol = self._word(name).upper()
        if protocol in _PROTOCOLS:
            return protocol
        if protocol:
            shown = printable(protocol)[:40]
            self._complain(name, f"should be one of {', '.join(_PROTOCOLS)}, not {shown!r}")
            return "PLAINTEXT"
        given = sorted((each.line, name) for name, each in self._set.items() if name.startswith(("sasl.", "ssl.")))
        if given:
            choice = "SASL_SSL or SASL_PLAINTEXT" if any(each.startswith("sasl.") for _, each in given) else "SSL"
            self._complain(given[0][1], f"has no effect without security.protocol: add security.protocol={choice}")
        return "PLAINTEXT"

    def _sasl(self) -> dict[str, Any] | None:
        name = "sasl.mechanisms" if "sasl.mechanisms" in self._set else "sasl.mechanism"
        mechanism = self._word(name).upper()
        if mechanism not in _MODULE_OF:
            what = f"{printable(mechanism)[:40]} is not supported" if mechanism else "is missing (it would be GSSAPI)"
            self._complain(name, f"{what}: use one of {_MECHANISMS}")
            return None
        options = self._jaas_options(mechanism)
        if options is None:
            return None
        ways = {"OAUTHBEARER": self._by_token, "GSSAPI": self._by_kerberos}
        login = ways.get(mechanism, self._by_password)(options)
        return None if login is None else {"mechanism": mechanism, **login}

    def _jaas_options(self, mechanism: str) -> Mapping[str, str] | None:
        """Return the options of the JAAS line, none if there is no such line, None if it is wrong."""
        name = "sasl.jaas.config"
        if name not in self._set:
            return {}
        try:
            login = parse_jaas(self._set[name].value)
        except ValueError as exc:
            self._complain(name, str(exc))
            return None
        if login.module.rpartition(".")[2] != _MODULE_OF[mechanism]:
            self._complain(name, f"names another login module than {mechanism} needs: {_MODULE_OF[mechanism]}")
            return None
        return login.options

    def _by_password(self, options: Mapping[str, str]) -> dict[str, Any] | None:
        if "sasl.jaas.config" not in self._set:
            if {"sasl.username", "sasl.password"} <= self._set.keys():
                return {"username": self._set["sasl.username"].value, "password": self._set["sasl.password"].value}
            self._complain("sasl.jaas.config", "is missing: add it, or sasl.username and sasl.password")
        elif options.get("tokenauth", "").lower() == "true":
            text = "logs in by delegation token, which is not supported: use a user name and a password"
            self._complain("sasl.jaas.config", text)
        elif not options.get("username") or "password" not in options:
            self._complain("sasl.jaas.config", 'should give username="…" and password="…"')
        else:
            return {"username": options["username"], "password": options["password"]}
        return None

    def _by_token(self, options: Mapping[str, str]) -> dict[str, Any] | None:
        endpoint = "sasl.oauthbearer.token.endpoint.url"
        extensions = [f"{name[10:]}={value}" for name, value in options.items() if name.startswith("extension_")]
        extensions += [each.strip() for each in self._word("sasl.oauthbearer.extensions").split(",") if each.strip()]
        found: dict[str, Any] = {"extensions": tuple(extensions)} if extensions else {}
        url = self._word(endpoint)
        if any(name.startswith("unsecuredLogin") for name in options):
            self._complain("sasl.jaas.config", f"makes an unsecured token, which is not supported: add {endpoint}")
        elif not url:
            self._complain(endpoint, "is missing: OAUTHBEARER needs a token endpoint, or file: and a path")
        elif url.lower().startswith("file:"):
            return {"token_file": Path(unquote(urlsplit(url).path)), **found}
        elif credentials := self._client_credentials(options):
            return {"token_endpoint": url, **credentials, **found}
        return None

    def _client_credentials(self, options: Mapping[str, str]) -> dict[str, Any] | None:
        client, alias = "sasl.oauthbearer.client.credentials.client", "sasl.oauthbearer.client"
        who = self._value(f"{client}.id", f"{alias}.id") or options.get("clientId", "")
        secret = self._value(f"{client}.secret", f"{alias}.secret") or options.get("clientSecret", "")
        if not who or not secret:
            ways = f'give {client}.id and {client}.secret, or clientId="…" and clientSecret="…" in sasl.jaas.config'
            self._complain("sasl.jaas.config", f"leaves open who asks for a token: {ways}")
            return None
        encode = "sasl.oauthbearer.header.urlencode"
        if self._word(encode).lower() == "true" and (quote_plus(who), quote_plus(secret)) != (who, secret):
            self._complain(encode, "is not supported where client id or secret has special characters: leave it out")
        at_will = {
            "scope": self._word("sasl.oauthbearer.scope") or options.get("scope"),
            "token_ca_file": self._token_ca(options),
        }
        given = {name: value for name, value in at_will.items() if value}
        return {"client_id": who, "client_secret": secret, **given}

    def _value(self, *names: str) -> str:
        return next((self._set[name].value for name in names if name in self._set), "")

    def _token_ca(self, options: Mapping[str, str]) -> Path | None:
        """Return whom to trust at the token endpoint, which Java says in the JAAS line."""
        store = options.get("ssl.truststore.location")
        if store and options.get("ssl.truststore.type", "JKS").upper() != "PEM":
            text = 'names a Java key store, which is not read: export it as PEM and add ssl.truststore.type="PEM"'
            self._complain("sasl.jaas.config", text)
        ca = self._word("https.ca.location") or store
        return Path(ca) if ca else None

    def _by_kerberos(self, options: Mapping[str, str]) -> dict[str, Any]:
        if options.get("keyTab") or options.get("useKeyTab", "").lower() == "true":
            ways = "log in by a ticket: kinit -kt KEYTAB PRINCIPAL, or set KRB5_CLIENT_KTNAME, and take keyTab out"
            self._complain("sasl.jaas.config", f"names a key table, which is not read from here: {ways}")
        service = self._word("sasl.kerberos.service.name") or options.get("serviceName")
        return {"kerberos_service_name": service} if service else {}

    def _tls(self, protocol: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for name, field in TLS_PROPERTIES.items():
            if name in self._set and self._is_pem_store(name):
                values[field] = self._certificate(name, field)
                origins[field] = name
        if not values.keys() & {"cert_file", "cert_pem"} and "key_password" in values:
            del values["key_password"]  # Kafka does not mind a password without a key
        login = LoginFields("", frozenset()) if protocol.startswith("SASL_") else None  # what it lacks has been said
        for field, text in contradictions(protocol, sasl=login, tls=values.keys()):
            self._complain(origins[field.removeprefix("tls.")], f"as {field}: {text}")
        return {**values, "check_hostname": self._checks_hostname()}

    def _is_pem_store(self, name: str) -> bool:
        if name not in _STORES:
            return True
        kind, command = _STORES[name]
        is_pem = self._word(kind).upper() == "PEM"
        if not is_pem:
            advice = f"if it is PEM add {kind}=PEM, else export it (keytool -importkeystore, then {command})"
            self._complain(name, f"is a {self._shown_kind(kind)} store, which is not read: {advice}")
        return is_pem

    def _shown_kind(self, kind: str) -> str:
        return printable(self._word(kind, "JKS").upper())[:40]

    def _certificate(self, name: str, field: str) -> str | Path | None:
        value = self._set[name].value
        if field.endswith("_file"):
            return Path(value.strip())
        if field not in _PEM_LABEL:
            return value
        pem = normal_pem(value, _PEM_LABEL[field])
        if pem is None:
            self._complain(name, f"holds no PEM block that says BEGIN {_PEM_LABEL[field]}")
        return pem

    def _checks_hostname(self) -> bool:
        switch, verify = "ssl.endpoint.identification.algorithm", "enable.ssl.certificate.verification"
        if self._word(verify, "true").lower() != "true":
            self._complain(verify, "cannot be switched off: name the authority with ssl.ca.location")
        if switch in self._all and self._word(switch).lower() in {"", "none"}:
            return False
        if self._word(switch, "https").lower() != "https":
            self._complain(switch, "should be https, or empty to accept any host name")
        return True
