"""Kafka client properties: Java's syntax, Kafka's meaning, one line for what cannot be honoured, never a secret."""

# ruff: noqa: E501 - a row that tells a story is one line

import ssl
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.cli.client_properties import cluster_fields, decode, normal_pem, parse, parse_jaas, translate
from monitor.errors import SettingsError
from monitor.settings import Cluster

SECRET = "hunter2"
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"
OAUTH_LOGIN = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
KERBEROS_LOGIN = "com.sun.security.auth.module.Krb5LoginModule"
MECHANISMS = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, GSSAPI"
CA = trustme.CA()
CERT = CA.issue_cert("localhost")
CA_PEM = CA.cert_pem.bytes().decode()
CERT_PEM = CERT.cert_chain_pems[0].bytes().decode()
KEY_PEM = CERT.private_key_pem.bytes().decode()


def one_line(pem):
    """A PEM as a properties file holds it: line ends as escapes."""
    return pem.strip().replace("\n", "\\n")


def values(text):
    return {key: each.value for key, each in parse(text).items()}


# --- syntax -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a=1\nb:2\nc 3\n", {"a": "1", "b": "2", "c": "3"}, id="three separators"),
        pytest.param(" \t a \t=\t 1 ", {"a": "1 "}, id="blanks before count, blanks behind stay"),
        pytest.param("a = = b", {"a": "= b"}, id="only the first separator separates"),
        pytest.param("# a=1\n ! b=2\n\nc=3", {"c": "3"}, id="comments and empty lines"),
        pytest.param("a=1 # not a comment", {"a": "1 # not a comment"}, id="no comment behind a value"),
        pytest.param("a=x\\\n   y\\\n\tz", {"a": "xyz"}, id="continued lines"),
        pytest.param("a=x\\\\\nb=1", {"a": "x\\", "b": "1"}, id="an escaped backslash continues nothing"),
        pytest.param("a=x\\\n# y", {"a": "x# y"}, id="a comment cannot continue a line"),
        pytest.param("a=x\\", {"a": "x"}, id="a backslash at the end of the file"),
        pytest.param("a\\ b\\=c\\:=1", {"a b=c:": "1"}, id="escaped separators in a key"),
        pytest.param("a=\\t\\n\\r\\f\\q\\\\", {"a": "\t\n\r\fq\\"}, id="escapes"),
        pytest.param("a=\\u00e9\\ud83d\\ude00", {"a": "é😀"}, id="unicode escapes, also of two halves"),
        pytest.param("a\nb=\nc", {"a": "", "b": "", "c": ""}, id="no value"),
        pytest.param("a=1\na=2", {"a": "2"}, id="the last one counts"),
        pytest.param("a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}, id="all line ends"),
        pytest.param("", {}, id="nothing"),
    ],
)
def test_the_syntax_is_javas(text, expected):
    """The format is that of java.util.Properties."""
    assert expected == values(text)


def java_store(text, *, is_key):
    """Write a text as java.util.Properties.store does."""
    special = {
        "\t": "\\t",
        "\n": "\\n",
        "\r": "\\r",
        "\f": "\\f",
        "\\": "\\\\",
        "=": "\\=",
        ":": "\\:",
        "#": "\\#",
        "!": "\\!",
    }
    out = []
    for at, char in enumerate(text):
        if char == " " and (at == 0 or is_key):
            out.append("\\ ")
        elif char in special:
            out.append(special[char])
        elif not " " <= char <= "~":
            units = char.encode("utf-16-be")
            out += [f"\\u{units[i]:02X}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
        else:
            out.append(char)
    return "".join(out)


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_what_java_writes_is_read_back(properties):
    """Whatever keys and values hold, the file that Java writes for them gives them back."""
    text = "".join(f"{java_store(k, is_key=True)}={java_store(v, is_key=False)}\n" for k, v in properties.items())

    assert properties == values(text)


@given(st.text())
def test_any_text_is_read_without_a_fault(text):
    """Nothing that stands in a file breaks the reader, and every line number lies in the file."""
    fields, complaints = translate(parse(text))

    assert isinstance(fields, dict)
    assert all(1 <= line <= text.count("\n") + text.count("\r") + 1 for line, _ in complaints)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig"])
def test_both_encodings_are_read(encoding):
    """Java reads Latin-1, people write UTF-8: both are understood."""
    assert "pässwörd" == decode("pässwörd".encode(encoding))


# --- the JAAS line ----------------------------------------------------------------------------------------------


def quoted(text):
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'


@given(st.text(), st.text())
@example('a"b;c', "x y=z\\")
def test_quoted_names_and_passwords_are_read_back(username, password):
    """Any user name and password survive the quotes of the JAAS line."""
    login = parse_jaas(f"{PLAIN_LOGIN} required username={quoted(username)} password={quoted(password)};")

    assert PLAIN_LOGIN == login.module
    assert {"username": username, "password": password} == login.options


@given(st.text())
def test_a_broken_jaas_line_is_not_quoted(text):
    """Whatever is wrong with a JAAS line, the complaint does not repeat it; nor does the login's repr."""
    try:
        shown = repr(parse_jaas(f'{PLAIN_LOGIN} required password="{SECRET}" {text}'))
    except ValueError as exc:
        shown = str(exc)

    assert SECRET not in shown


@pytest.mark.parametrize(
    ("text", "options"),
    [
        pytest.param('M required username="a" password="b" ;', {"username": "a", "password": "b"}, id="blank before ;"),
        pytest.param("M REQUIRED username=a-1_$ password='b c';", {"username": "a-1_$", "password": "b c"}, id="bare"),
        pytest.param('M required a = "b";', {"a": "b"}, id="blanks around the sign"),
        pytest.param('M required // x\n a="b" /* y;\n */;', {"a": "b"}, id="comments"),
        pytest.param('M required a="\\101\\"";', {"a": 'A"'}, id="octal and escaped quote"),
        pytest.param("M required;", {}, id="no options"),
    ],
)
def test_jaas_lines(text, options):
    """The line is read as Kafka's own parser does."""
    assert options == parse_jaas(text).options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('M required a="b"', "does not end with a semicolon", id="no semicolon"),
        pytest.param('M required a="b;', "has a quote that is not closed", id="open quote"),
        pytest.param('M a="b";', "should start with a login module and the word required", id="no flag"),
        pytest.param(";", "should start with a login module and the word required", id="nothing"),
        pytest.param('M required a "b";', 'should give each option as NAME="VALUE"', id="no sign"),
        pytest.param("M required a=;", 'should give each option as NAME="VALUE"', id="no value"),
        pytest.param("M required a==b;", 'should give each option as NAME="VALUE"', id="two signs"),
        pytest.param("M required a=b; N required;", "names several login modules", id="two modules"),
    ],
)
def test_jaas_lines_that_are_wrong(text, expected):
    """What is wrong is said without what stands there."""
    with pytest.raises(ValueError, match=expected):
        parse_jaas(text)


# --- meaning ----------------------------------------------------------------------------------------------------

OAUTH = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n"
URL = "sasl.oauthbearer.token.endpoint.url="
CREDENTIALS = {"token_endpoint": "https://x/t", "client_id": "me", "client_secret": SECRET}
SASL = f'sasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config={SCRAM_LOGIN} required username="me" password="{SECRET}";\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {"security_protocol": "PLAINTEXT"}, id="nothing"),
        pytest.param("client.id=x\nacks=all\nfoo.bar=1", {"security_protocol": "PLAINTEXT"}, id="other properties"),
        pytest.param(
            "security.protocol=PLAINTEXT\n" + SASL,
            {"security_protocol": "PLAINTEXT"},
            id="log-in that Kafka passes over",
        ),
        pytest.param(
            "security.protocol=sasl_plaintext\n" + SASL,
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl": {"mechanism": "SCRAM-SHA-512", "username": "me", "password": SECRET},
            },
            id="SCRAM",
        ),
        pytest.param(
            f"security.protocol=SASL_SSL\nsasl.mechanisms=PLAIN\nsasl.username=me\nsasl.password={SECRET}\nssl.ca.location=ca.pem",
            {
                "security_protocol": "SASL_SSL",
                "sasl": {"mechanism": "PLAIN", "username": "me", "password": SECRET},
                "tls": {"ca_file": Path("ca.pem"), "check_hostname": True},
            },
            id="librdkafka's names",
        ),
        pytest.param(
            f"{OAUTH}{URL}https://x/t\nsasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler\n"
            f'sasl.jaas.config={OAUTH_LOGIN} required clientId="me" clientSecret="{SECRET}" scope="kafka" '
            'extension_logicalCluster="lkc-1" ssl.truststore.type="PEM" ssl.truststore.location="/t.pem";',
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl": {
                    "mechanism": "OAUTHBEARER",
                    **CREDENTIALS,
                    "scope": "kafka",
                    "token_ca_file": Path("/t.pem"),
                    "extensions": ("logicalCluster=lkc-1",),
                },
            },
            id="client credentials in the JAAS line",
        ),
        pytest.param(
            f"{OAUTH}{URL}https://x/t\nsasl.oauthbearer.client.credentials.client.id=me\n"
            f"sasl.oauthbearer.client.credentials.client.secret={SECRET}\nsasl.oauthbearer.scope=kafka\n"
            "sasl.oauthbearer.jwt.retriever.class=org.apache.kafka.common.security.oauthbearer.ClientCredentialsJwtRetriever\n"
            f'sasl.jaas.config={OAUTH_LOGIN} required clientId="other" clientSecret="other";',
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl": {"mechanism": "OAUTHBEARER", **CREDENTIALS, "scope": "kafka"},
            },
            id="client credentials by KIP-1139, which win over the JAAS line",
        ),
        pytest.param(
            f"{OAUTH}{URL}https://x/t\nsasl.oauthbearer.method=oidc\nsasl.oauthbearer.client.id=me\n"
            f"sasl.oauthbearer.client.secret={SECRET}\nsasl.oauthbearer.extensions=a=b, c=d\nhttps.ca.location=ca.pem",
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl": {
                    "mechanism": "OAUTHBEARER",
                    **CREDENTIALS,
                    "token_ca_file": Path("ca.pem"),
                    "extensions": ("a=b", "c=d"),
                },
            },
            id="client credentials in librdkafka's names",
        ),
        pytest.param(
            f"{OAUTH}{URL}file:///var/run/a%20token\nsasl.jaas.config={OAUTH_LOGIN} required;",
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl": {"mechanism": "OAUTHBEARER", "token_file": Path("/var/run/a token")},
            },
            id="token in a file",
        ),
        pytest.param(
            f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=GSSAPI\nsasl.kerberos.service.name=broker\nsasl.jaas.config={KERBEROS_LOGIN} required useTicketCache=true;",
            {
                "security_protocol": "SASL_PLAINTEXT",
                "sasl": {"mechanism": "GSSAPI", "kerberos_service_name": "broker"},
            },
            id="Kerberos by a ticket",
        ),
        pytest.param(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=GSSAPI",
            {"security_protocol": "SASL_PLAINTEXT", "sasl": {"mechanism": "GSSAPI"}},
            id="Kerberos without anything",
        ),
        pytest.param(
            "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=/t.pem\nssl.truststore.password=x\n"
            "ssl.keystore.type=pem\nssl.keystore.location=/k.pem\nssl.key.password=y",
            {
                "security_protocol": "SSL",
                "tls": {
                    "ca_file": Path("/t.pem"),
                    "cert_file": Path("/k.pem"),
                    "key_password": "y",
                    "check_hostname": True,
                },
            },
            id="PEM stores",
        ),
        pytest.param(
            "security.protocol=SSL\nssl.certificate.location=c\nssl.key.location=k\nssl.endpoint.identification.algorithm=",
            {
                "security_protocol": "SSL",
                "tls": {"cert_file": Path("c"), "key_file": Path("k"), "check_hostname": False},
            },
            id="certificate and key apart, any host name",
        ),
        pytest.param(
            "security.protocol=SSL\nssl.key.password=x",
            {"security_protocol": "SSL", "tls": {"check_hostname": True}},
            id="password without key",
        ),
        pytest.param(
            f"security.protocol=SSL\nssl.truststore.certificates={one_line(CA_PEM)}\n"
            f"ssl.keystore.certificate.chain={one_line(CERT_PEM)}\nssl.keystore.key={one_line(KEY_PEM)}",
            {
                "security_protocol": "SSL",
                "tls": {"ca_pem": CA_PEM, "cert_pem": CERT_PEM, "key_pem": KEY_PEM, "check_hostname": True},
            },
            id="PEM in the file",
        ),
    ],
)
def test_what_properties_mean(text, expected):
    """Properties become the fields of a cluster, and those pass its own checks."""
    fields, complaints = translate(parse(text))

    assert ([], expected) == (complaints, fields)
    assert Cluster(bootstrap_servers="x:1", **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("security.protocol=TLS", "1 security.protocol should be one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL, not 'TLS'", id="protocol"),
        pytest.param(SASL, "1 sasl.mechanism has no effect without security.protocol: add security.protocol=SASL_SSL or SASL_PLAINTEXT", id="no protocol"),
        pytest.param("ssl.ca.location=x", "1 ssl.ca.location has no effect without security.protocol: add security.protocol=SSL", id="no protocol for TLS"),
        pytest.param("security.protocol=SASL_SSL\nsasl.mechanism=anonymous", f"2 sasl.mechanism ANONYMOUS is not supported: use one of {MECHANISMS}", id="mechanism"),
        pytest.param("security.protocol=SASL_SSL", f"1 sasl.mechanism is missing (it would be GSSAPI): use one of {MECHANISMS}", id="no mechanism"),
        pytest.param(OAUTH, "1 sasl.oauthbearer.token.endpoint.url is missing: OAUTHBEARER needs a token endpoint, or file: and a path", id="no token endpoint"),
        pytest.param(OAUTH + f"{URL}https://x/t\nsasl.oauthbearer.client.credentials.client.id=me", "1 sasl.jaas.config leaves open who asks for a token: give sasl.oauthbearer.client.credentials.client.id and sasl.oauthbearer.client.credentials.client.secret, or clientId=\"…\" and clientSecret=\"…\" in sasl.jaas.config", id="no client secret"),
        pytest.param(OAUTH + f'sasl.jaas.config={OAUTH_LOGIN} required unsecuredLoginStringClaim_sub="me";', "3 sasl.jaas.config makes an unsecured token, which is not supported: add sasl.oauthbearer.token.endpoint.url", id="unsecured token"),
        pytest.param(OAUTH + f'{URL}file:/t\nsasl.jaas.config={PLAIN_LOGIN} required;', "4 sasl.jaas.config names another login module than OAUTHBEARER needs: OAuthBearerLoginModule", id="module of another mechanism"),
        pytest.param(OAUTH + f"{URL}file:/t\nsasl.login.callback.handler.class=com.example.Vault", "4 sasl.login.callback.handler.class says to do what is not supported here: understood is OAuthBearerLoginCallbackHandler", id="handler of one's own"),
        pytest.param(OAUTH + f"{URL}file:/t\nsasl.oauthbearer.jwt.retriever.class=org.apache.kafka.common.security.oauthbearer.JwtBearerJwtRetriever", "4 sasl.oauthbearer.jwt.retriever.class says to do what is not supported here: understood is DefaultJwtRetriever or ClientCredentialsJwtRetriever or FileJwtRetriever", id="retriever by assertion"),
        pytest.param(OAUTH + f"{URL}https://x/t\nsasl.oauthbearer.client.id=me\nsasl.oauthbearer.client.secret={SECRET}+\nsasl.oauthbearer.header.urlencode=true", "6 sasl.oauthbearer.header.urlencode is not supported where client id or secret has special characters: leave it out", id="encoded secret"),
        pytest.param(OAUTH + f'{URL}https://x/t\nsasl.jaas.config={OAUTH_LOGIN} required clientId="me" clientSecret="{SECRET}" ssl.truststore.location="/t.jks";', '4 sasl.jaas.config names a Java key store, which is not read: export it as PEM and add ssl.truststore.type="PEM"', id="Java store for the endpoint"),
        pytest.param(f'security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI\nsasl.jaas.config={KERBEROS_LOGIN} required useKeyTab=true keyTab="/k" principal="me";', "3 sasl.jaas.config names a key table, which is not read from here: log in by a ticket: kinit -kt KEYTAB PRINCIPAL, or set KRB5_CLIENT_KTNAME, and take keyTab out", id="key table"),
        pytest.param("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN", "1 sasl.jaas.config is missing: add it, or sasl.username and sasl.password", id="no log-in"),
        pytest.param(f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config={SCRAM_LOGIN} required;", "3 sasl.jaas.config names another login module than PLAIN needs: PlainLoginModule", id="other module"),
        pytest.param(f'security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config={PLAIN_LOGIN} required username="a";', '3 sasl.jaas.config should give username="…" and password="…"', id="no password"),
        pytest.param(f'security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config={SCRAM_LOGIN} required username="a" password="{SECRET}" tokenauth="true";', "3 sasl.jaas.config logs in by delegation token, which is not supported: use a user name and a password", id="delegation token"),
        pytest.param(f'security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config={PLAIN_LOGIN} required password="{SECRET}"', "3 sasl.jaas.config does not end with a semicolon: add ; at its end", id="no semicolon"),
        pytest.param("security.protocol=SSL\nssl.truststore.location=/x/t.jks", "2 ssl.truststore.location is a JKS store, which is not read: if it is PEM add ssl.truststore.type=PEM, else export it (keytool -importkeystore, then openssl pkcs12 -nokeys)", id="JKS"),
        pytest.param("security.protocol=SSL\nssl.keystore.type=PKCS12\nssl.keystore.location=k.p12", "3 ssl.keystore.location is a PKCS12 store, which is not read: if it is PEM add ssl.keystore.type=PEM, else export it (keytool -importkeystore, then openssl pkcs12)", id="PKCS12"),
        pytest.param("security.protocol=SSL\nssl.ca.pem=abc", "2 ssl.ca.pem holds no PEM block that says BEGIN CERTIFICATE", id="no PEM"),
        pytest.param("security.protocol=SSL\nssl.key.location=k", "2 ssl.key.location as tls.key_file: a key needs its certificate: add cert_file or cert_pem", id="key without certificate"),
        pytest.param(f"security.protocol=SSL\nssl.ca.location=x\nssl.truststore.certificates={one_line(CA_PEM)}", "3 ssl.truststore.certificates as tls.ca_pem: give ca_file or ca_pem, not both", id="two authorities"),
        pytest.param("security.protocol=SSL\nenable.ssl.certificate.verification=false", "2 enable.ssl.certificate.verification cannot be switched off: name the authority with ssl.ca.location", id="no verification"),
        pytest.param("security.protocol=SSL\nssl.endpoint.identification.algorithm=ldaps", "2 ssl.endpoint.identification.algorithm should be https, or empty to accept any host name", id="algorithm"),
        pytest.param("sasl.login.class=x\nsecurity.protocol=PLAINTEXT", "1 sasl.login.class names Java code, which cannot be run here: log in with a user name and a password", id="Java code"),
        pytest.param("config.providers=file", "1 config.providers is not supported: write the values into the file", id="config providers"),
        pytest.param("security.protocl=SSL", "1 security.protocl is not a property of Kafka clients: did you mean security.protocol?", id="slip of the pen"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured(text, expected):
    """What is wrong or not supported is one line, with what to do, and without a secret."""
    _, complaints = translate(parse(text))

    heard = [f"{line} {complaint}" for line, complaint in complaints]
    assert [expected] == heard
    assert SECRET not in heard[0]


def test_complaints_name_file_and_line(tmp_path):
    """All complaints come at once, each with file and line."""
    path = tmp_path / "client.properties"
    path.write_text("\nsecurity.protocol=SASL_SSL\nsasl.mechanism=X\nssl.ca.pem=y\n")

    with pytest.raises(SettingsError) as caught:
        cluster_fields(path)

    first, second = caught.value.complaints
    assert first.startswith(f"{path}:3: sasl.mechanism X is not supported")
    assert second.startswith(f"{path}:4: ssl.ca.pem holds no PEM")


SPOILT = {
    "continued lines": lambda pem: pem.replace("\n", ""),
    "blanks for line ends": lambda pem: pem.replace("\n", " "),
    "indented": lambda pem: pem.replace("\n", "\n   "),
    "words around it": lambda pem: f"subject=x\n{pem}\nissuer=y",
    "as it is": lambda pem: pem,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_pem_that_lost_its_line_ends_is_mended(spoil):
    """Whatever a properties file made of the line ends, OpenSSL reads what comes out, as Kafka reads what went in."""
    mended = normal_pem(spoil(CA_PEM), "CERTIFICATE")

    assert CA_PEM == mended
    assert 1 == ssl.create_default_context(cadata=mended).cert_store_stats()["x509_ca"]


def test_several_certificates_stay_several():
    """A bundle of authorities keeps all of them; what is no certificate is left out."""
    assert CA_PEM + CERT_PEM == normal_pem(f"{CA_PEM}{KEY_PEM}{CERT_PEM}", "CERTIFICATE")
    assert KEY_PEM == normal_pem(f"{CA_PEM}{KEY_PEM}{CERT_PEM}", "PRIVATE KEY")
