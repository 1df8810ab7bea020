"""Reading streamgauge.yml: every complaint at once, with its line, and never a secret."""

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.cli.options import Where
from monitor.cli.settings_file import find_settings, load, models
from monitor.cli.yaml_document import expand
from monitor.errors import SettingsError, UsageError

SECRET = "hunter2"

GOOD = """\
clusters:
  - name: a
    bootstrap_servers: a-1:9092,a-2:9092
    security_protocol: SASL_SSL
    sasl: {mechanism: SCRAM-SHA-256, username: me, password: "${PASSWORD}"}
    tls:
      key_password:
    spark:
      - path: checkpoints/*
      - path: s3a://bucket/x
  - name: b
    bootstrap_servers: b:${PORT:-9093}
objectives:
  consumers:
    - {consumer: "billing-*", seconds: "${SECONDS}"}
http:
"""


@pytest.fixture
def written(tmp_path):
    """Write a settings file and return its path."""

    def write(text, name="s.yml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def complaints(path, environ=None):
    with pytest.raises(SettingsError) as caught:
        load(path, environ or {})
    return [line.removeprefix(f"{path}:") for line in caught.value.complaints]


def test_a_good_file_becomes_settings(written, tmp_path):
    """Values come from the file and the environment, are converted, and paths are taken from the file's folder."""
    settings = load(written(GOOD), {"PASSWORD": "p: #}${X}", "SECONDS": "60"})

    a, b = settings.clusters
    assert "p: #}${X}" == a.sasl.password.get_secret_value()
    assert [f"{tmp_path}/checkpoints/*", "s3a://bucket/x"] == [each.path for each in a.spark]
    assert "b:9093" == b.bootstrap_servers
    assert 60.0 == settings.objectives.seconds_for("billing-eu")
    assert 9760 == settings.http.port


def test_anchors_and_merge_keys_work(written):
    """A block may be written once and used twice, with own keys before merged ones."""
    text = """\
clusters:
  - &base {name: a, bootstrap_servers: "x:1", interval_seconds: 3}
  - {<<: *base, name: b, timeout_seconds: 4}
  - <<: [{timeout_seconds: 1, name: no}, *base]
    name: c
"""
    settings = load(written(text), {})

    assert [("a", 3, 5), ("b", 3, 4), ("c", 3, 1)] == [
        (each.name, each.interval_seconds, each.timeout_seconds) for each in settings.clusters
    ]


HEAD = "clusters:\n  - bootstrap_servers: x:1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "1: is empty: name at least one cluster", id="empty file"),
        pytest.param("# nothing\n", "1: is empty: name at least one cluster", id="only comments"),
        pytest.param("hello\n", "1: the file should hold keys, each as KEY: VALUE", id="a word"),
        pytest.param("- a\n", "1: the file should hold keys, each as KEY: VALUE", id="a list"),
        pytest.param("http:\n  port: 1\n", "1: clusters is missing", id="no clusters"),
        pytest.param("clusters: []\n", "1: clusters is empty: give at least one", id="empty list"),
        pytest.param("clusters:\n", "1: clusters is missing", id="key without value"),
        pytest.param("clusters: x:1\n", "1: clusters should be a list, each item after a dash", id="text for list"),
        pytest.param("clusters:\n  - x:1\n", "2: clusters[0] should hold keys, each as KEY: VALUE", id="text for keys"),
        pytest.param("clusters:\n  - name: a\n", "2: clusters[0].bootstrap_servers is missing", id="missing"),
        pytest.param(
            "clusters:\n  - bootstrap_server: x:1\n    bootstrap_servers: x:1\n",
            "2: unknown key `bootstrap_server` in clusters[0]: did you mean `bootstrap_servers`?",
            id="unknown key with a near one",
        ),
        pytest.param(
            HEAD + "objectivs: {}\n", "3: unknown key `objectivs`: did you mean `objectives`?", id="at the top"
        ),
        pytest.param(
            HEAD + "username: me\n",
            "3: unknown key `username`: it belongs in clusters[].sasl or grafana or notifications.smtp",
            id="in the wrong place",
        ),
        pytest.param(
            HEAD + "http:\n  xyzzy: 1\n", "4: unknown key `xyzzy` in http: known are host, port", id="nothing near"
        ),
        pytest.param(
            HEAD + "true: 1\n",
            "3: unknown key `true`: known are clusters, objectives, http, metrics, worker, grafana, notifications",
            id="key that is no text",
        ),
        pytest.param(
            HEAD + "http: {[1]: 2}\n", "3: a key in http is not plain text: write KEY: VALUE", id="list as key"
        ),
        pytest.param(
            HEAD + "http:\n  port: 1\n  port: 2\n",
            "5: key `port` in http is there twice (first in line 4)",
            id="duplicate key",
        ),
        pytest.param(
            HEAD + "  - bootstrap_servers: y:1\n",
            "3: clusters[1] is called 'default' like clusters[0]: give each its own name",
            id="two without a name",
        ),
        pytest.param(
            "clusters:\n  - {name: a, bootstrap_servers: x}\n  - bootstrap_servers: x\n    name: a\n",
            "4: clusters[1] is called 'a' like clusters[0]: give each its own name",
            id="two of one name",
        ),
        pytest.param(
            HEAD + "    name: 5\n", "3: clusters[0].name should be text: put it in quotes", id="number for text"
        ),
        pytest.param(HEAD + "    name: ''\n", "3: clusters[0].name is empty", id="empty text"),
        pytest.param(
            HEAD + "    interval_seconds: fast\n",
            "3: clusters[0].interval_seconds should be a number, not 'fast'",
            id="word for number",
        ),
        pytest.param(
            HEAD + "    interval_seconds: .nan\n",
            "3: clusters[0].interval_seconds should be a number, not '.nan'",
            id="not a number",
        ),
        pytest.param(
            HEAD + "    interval_seconds: 0\n",
            "3: clusters[0].interval_seconds should be at least 0.1, not '0'",
            id="too small",
        ),
        pytest.param(
            HEAD + "    timeout_seconds: -1\n",
            "3: clusters[0].timeout_seconds should be greater than 0, not '-1'",
            id="negative",
        ),
        pytest.param(
            HEAD + "    lookups_per_cycle: 1.5\n",
            "3: clusters[0].lookups_per_cycle should be a whole number, not '1.5'",
            id="fraction",
        ),
        pytest.param(
            HEAD + "http: {port: 70000}\n", "3: http.port should be at most 65535, not '70000'", id="too large"
        ),
        pytest.param(
            HEAD + "metrics: {lost_records: maybe}\n",
            "3: metrics.lost_records should be true or false, not 'maybe'",
            id="switch",
        ),
        pytest.param(
            HEAD + "    security_protocol: SASLSSL\n",
            "3: clusters[0].security_protocol should be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL', not 'SASLSSL': "  # noqa: E501
            "did you mean SASL_SSL?",
            id="choice",
        ),
        pytest.param(
            "clusters:\n  - bootstrap_servers: x:99999\n",
            "2: clusters[0].bootstrap_servers: 'x:99999' is not HOST:PORT: write for example localhost:9092",
            id="port that is none",
        ),
        pytest.param(
            HEAD + "    security_protocol: SASL_SSL\n",
            "3: clusters[0].security_protocol: SASL_SSL needs a log-in: add sasl with username and password",
            id="log-in missing",
        ),
        pytest.param(
            HEAD + "    security_protocol: SASL_SSL\n    sasl:\n      username: a\n",
            "4: clusters[0].sasl.password: is missing: PLAIN logs in with username and password",
            id="password missing",
        ),
        pytest.param(
            HEAD + "    security_protocol: SASL_SSL\n    sasl: hello\n",
            "4: clusters[0].sasl should hold keys, each as KEY: VALUE",
            id="text for a log-in",
        ),
        pytest.param(
            HEAD + "    security_protocol: SASL_SSL\n    sasl: {mechanism: OAUTHBEARER, token_file: nowhere}\n",
            "4: clusters[0].sasl.token_file: there is no file {folder}/nowhere: check the path",
            id="token file that is not there",
        ),
        pytest.param(
            HEAD
            + "    security_protocol: SASL_SSL\n    sasl: {mechanism: OAUTHBEARER, token_endpoint: 'x:1', client_id: a, client_secret: b}\n",  # noqa: E501
            "4: clusters[0].sasl.token_endpoint: is no URL: write for example https://login.example.com/oauth2/token",
            id="endpoint that is no URL",
        ),
        pytest.param(
            HEAD + "    sasl: {username: a, password: b}\n",
            "3: clusters[0].sasl: would not be used with security_protocol PLAINTEXT: choose SASL_PLAINTEXT or SASL_SSL, "  # noqa: E501
            "or take sasl out",
            id="log-in without SASL",
        ),
        pytest.param(
            HEAD
            + "    security_protocol: SASL_PLAINTEXT\n    sasl: {username: a, password: b}\n    tls: {check_hostname: no}\n",  # noqa: E501
            "5: clusters[0].tls: would not be used with security_protocol SASL_PLAINTEXT: choose SASL_SSL, or take tls out",  # noqa: E501
            id="certificates without SSL",
        ),
        pytest.param(
            HEAD + "    security_protocol: SSL\n    tls: {ca_file: nowhere.pem}\n",
            "4: clusters[0].tls.ca_file: there is no file {folder}/nowhere.pem: check the path",
            id="file that is not there",
        ),
        pytest.param(
            HEAD + "    security_protocol: SSL\n    tls: {ca_pem: abc}\n",
            "4: clusters[0].tls.ca_pem: holds no PEM certificate: it starts with -----BEGIN CERTIFICATE-----",
            id="no certificate",
        ),
        pytest.param(
            HEAD + "    name: ${NOPE}\n",
            "3: clusters[0].name: environment variable NOPE is not set: set it, or write ${NOPE:-default}",
            id="environment variable missing",
        ),
        pytest.param(
            HEAD + "    name: ${}\n",
            "3: clusters[0].name: after ${ comes a NAME and }, or NAME:-default and }; write $${ for the characters ${",
            id="reference without a name",
        ),
        pytest.param(
            HEAD + "    spark: &a [*a]\n",
            "3: clusters[0].spark[0] contains itself: take the anchor apart",
            id="endless",
        ),
        pytest.param(
            HEAD + "    <<: 5\n", "3: << in clusters[0] takes a mapping: write <<: *NAME", id="merge of a number"
        ),
        pytest.param("clusters:\n\t- x\n", "2: contains a tab where spaces belong: use spaces", id="tab"),
        pytest.param("a: [1\n", "2: a [ is not closed, or a comma is missing", id="bracket"),
        pytest.param("a: {b\n", "2: a { is not closed, or a comma is missing", id="brace"),
        pytest.param("a: 'b\n", "2: a quote is not closed", id="quote"),
        pytest.param(
            "a: b: c\n", "1: has a colon where none belongs: check the indentation, or quote the value", id="colon"
        ),
        pytest.param("a:\n    b: 1\n  c: 2\n", "3: the indentation does not fit the lines above", id="indentation"),
        pytest.param("a: 1\n---\nb: 2\n", "2: holds a second document (---): keep one", id="two documents"),
        pytest.param(
            "a: b\x07\n", "1: contains the character U+0007, which YAML does not allow: take it out", id="bell"
        ),
        pytest.param("[" * 5000, "1: is nested too deeply", id="deep"),
    ],
)
def test_one_complaint(written, text, expected):
    """A file with one thing wrong has one complaint, with its line and what to do."""
    path = written(text)

    assert [expected.replace("{folder}", str(path.parent))] == complaints(path)


def test_every_complaint_at_once(written):
    """A file with seven things wrong has seven complaints, in the order of the file."""
    text = """\
clusters:
  - bootstrap_server: x:1
    interval_seconds: often
    security_protocol: SASL_SSL
    tls: {ca_file: a, ca_pem: b}
  - name: ${NOPE}
    bootstrap_servers: y:1
    timeout_seconds: 0
http: {port: x}
"""
    heard = complaints(written(text))

    assert [2, 2, 3, 4, 5, 5, 6, 8, 9] == [int(line.partition(":")[0]) for line in heard]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(f"password: *{SECRET}", id="starts with an asterisk"),
        pytest.param(f"password: &{SECRET}", id="starts with an ampersand"),
        pytest.param(f"password: !{SECRET}", id="starts with an exclamation mark"),
        pytest.param(f"password: !{SECRET}!x y", id="two exclamation marks"),
        pytest.param(f"password: '@'{SECRET}", id="after a quote"),
        pytest.param(f"password: @{SECRET}", id="starts with an at sign"),
        pytest.param(f"password: %{SECRET}", id="starts with a percent sign"),
        pytest.param(f"password: |{SECRET}", id="starts with a bar"),
        pytest.param(f"password: a: {SECRET}", id="holds a colon"),
        pytest.param(f'password: "\\q{SECRET}"', id="holds a backslash"),
        pytest.param(f"password: [{SECRET}]", id="in brackets"),
        pytest.param(f"password: {{{SECRET}: {SECRET}}}", id="in braces"),
        pytest.param(f"password: ${{{SECRET}", id="half a reference"),
        pytest.param("password: 0x68756e74", id="looks like a number"),
        pytest.param(f"passwrd: {SECRET}", id="misspelt key"),
        pytest.param(f"mechanism: ${{ENV_SECRET}}\n      password: {SECRET}", id="from the environment into a choice"),
        pytest.param(f"password: {SECRET}\n      password: {SECRET}", id="twice"),
        pytest.param(f"? {{{SECRET}: 1}}\n      : 2", id="as a key"),
    ],
)
def test_complaints_never_quote_a_secret(written, line):
    """Whatever is wrong around a password, no complaint shows it; nor does any repr."""
    text = HEAD + f"    security_protocol: SASL_SSL\n    sasl:\n      username: me\n      {line}\n"

    heard = "\n".join(complaints(written(text), {"ENV_SECRET": SECRET}))

    assert heard
    assert SECRET not in heard
    assert "0x68756e74" not in heard
    assert "1751477876" not in heard


def test_settings_never_show_a_secret(written):
    """Neither repr nor dump nor JSON of settings shows a password or key."""
    pem = "-----BEGIN CERTIFICATE-----\\n-----END CERTIFICATE-----"
    key = f"-----BEGIN PRIVATE KEY-----\\n{SECRET}"
    text = HEAD + (
        f"    security_protocol: SASL_SSL\n    sasl: {{username: me, password: {SECRET}}}\n"
        f'    tls: {{cert_pem: "{pem}", key_pem: "{key}", key_password: {SECRET}}}\n'
    )
    settings = load(written(text), {})

    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"

    assert SECRET == settings.clusters[0].tls.key_password.get_secret_value()
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"a: \xff\n", "{path}:1: is not UTF-8 text: save it as UTF-8", id="latin-1"),
        pytest.param("ä: 1\nb: 2".encode("utf-16"), "{path}:1: is not UTF-8 text: save it as UTF-8", id="utf-16"),
    ],
)
def test_files_that_are_not_text(written, content, expected):
    """A file in another encoding says where and what to do."""
    path = written(content)

    with pytest.raises(UsageError) as caught:
        load(path, {})

    assert expected.format(path=path) == str(caught.value)


def test_a_byte_order_mark_is_fine(written):
    """Editors that write one write UTF-8 all the same."""
    assert "x:1" == load(written(b"\xef\xbb\xbf" + HEAD.encode()), {}).clusters[0].bootstrap_servers


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("nowhere.yml", "there is no file nowhere.yml: check the path, or write one with: ", id="missing"),
        pytest.param(".", ". could not be read (Is a directory): check the path", id="a folder"),
        pytest.param("a\0b", "a\0b could not be read (embedded null byte): check the path", id="no path at all"),
    ],
)
def test_files_that_cannot_be_read(in_folder, path, expected):
    """A file that is not there, or none, says so."""
    with pytest.raises(UsageError) as caught:
        load(Path(path), {})

    assert str(caught.value).startswith(expected)


# --- which file ---------------------------------------------------------------------------------------------


def named(folder, name):
    (folder / f"{name}.yml").write_text(f"clusters:\n  - {{name: {name}, bootstrap_servers: 'x:1'}}\n")
    return str(folder / f"{name}.yml")


@pytest.mark.parametrize(
    ("where", "has_default", "expected"),
    [
        pytest.param({"config": "asked.yml"}, True, ("asked", "asked.yml"), id="--config first"),
        pytest.param(
            {"bootstrap_servers": "x:1"}, True, ("default", "--bootstrap-servers"), id="then the brokers named"
        ),
        pytest.param({}, True, ("streamgauge", "streamgauge.yml"), id="then the folder"),
        pytest.param({}, False, ("variable", "{folder}/variable.yml"), id="then the environment"),
    ],
)
def test_which_settings_count(in_folder, where, has_default, expected):
    """Of several places that name settings the most explicit counts."""
    named(in_folder, "asked")
    if has_default:
        named(in_folder, "streamgauge")
    environ = {"STREAMGAUGE_CONFIG": named(in_folder, "variable")}

    found = find_settings(Where(**where), environ)

    name, source = expected
    assert (name, source.format(folder=in_folder)) == (found.settings.clusters[0].name, found.source)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        pytest.param({}, "no settings: there is no ./streamgauge.yml and $STREAMGAUGE_CONFIG is not set", id="none"),
        pytest.param(
            {"config": "a", "bootstrap_servers": "b"}, "--config and --bootstrap-servers are two ways", id="two"
        ),
        pytest.param(
            {"config": "a", "command_config": "b"}, "--config and --bootstrap-servers are two ways", id="two more"
        ),
        pytest.param(
            {"bootstrap_servers": "x:0"}, "--bootstrap-servers: 'x:0' is not HOST:PORT: write", id="no address"
        ),
        pytest.param({"bootstrap_servers": " , "}, "--bootstrap-servers: names no broker: write", id="only a comma"),
        pytest.param({"command_config": "c"}, "--command-config names no bootstrap.servers: give", id="no brokers"),
        pytest.param(
            {"command_config": "n", "bootstrap_servers": "x"},
            "n could not be read (No such file or directory)",
            id="no file",
        ),
    ],
)
def test_no_settings(in_folder, where, expected):
    """Without settings the line says where they were looked for and how to give them."""
    (in_folder / "c").write_text("client.id=me\n")

    with pytest.raises(UsageError) as caught:
        find_settings(Where(**where), {})

    assert str(caught.value).startswith(expected)


def test_a_variable_that_names_nothing(in_folder):
    """A file that only the environment names is missed under the variable's name."""
    with pytest.raises(UsageError, match=r"^\$STREAMGAUGE_CONFIG names gone.yml, which does not exist: correct it"):
        find_settings(Where(), {"STREAMGAUGE_CONFIG": "gone.yml"})


def test_client_properties_may_name_the_brokers(in_folder):
    """--command-config alone is enough where it has bootstrap.servers."""
    (in_folder / "c").write_text("bootstrap.servers = x:1,y:2\n")

    assert "x:1,y:2" == find_settings(Where(command_config="c"), {}).settings.clusters[0].bootstrap_servers


# --- properties -----------------------------------------------------------------------------------------------

NAMES = st.text(string.ascii_uppercase + "_", min_size=1, max_size=8).filter(lambda name: not name[0].isdigit())
PLAIN = st.text().filter(lambda text: "${" not in text)


@given(PLAIN, NAMES, st.text(), PLAIN)
def test_references_are_replaced_once(before, name, value, after):
    """What a variable holds is taken as it is, even where it looks like a reference itself."""
    if before.endswith("$"):
        before += " "

    assert f"{before}{value}{after}" == expand(f"{before}${{{name}}}{after}", {name: value})


@given(NAMES, st.text().filter(lambda text: "}" not in text), st.text())
def test_defaults_fill_in(name, default, value):
    """The default is taken where the variable is not set or empty, as in a shell."""
    reference = f"${{{name}:-{default}}}"

    assert default == expand(reference, {})
    assert (value or default) == expand(reference, {name: value})


@given(PLAIN)
def test_text_without_references_stays(text):
    """Nothing else is touched: dollars and braces are text."""
    assert text == expand(text, {})


@given(st.text(string.ascii_letters + string.digits + "{}$:- ", max_size=20))
def test_a_bad_reference_is_not_quoted(text):
    """Whatever follows ``${``, the complaint names a variable at most."""
    with pytest.raises(LookupError) as caught:
        expand(f"${{1{SECRET}{text}", {})

    assert SECRET not in caught.value.args[0]


def test_every_part_of_the_settings_is_found():
    """The places of all parts are known, for advice and for the manual."""
    assert [
        "the top of the file", "clusters[]", "clusters[].sasl", "clusters[].tls", "clusters[].groups",
        "clusters[].topics", "clusters[].spark[]", "clusters[].spark_events", "clusters[].spark_drivers[]",
        "objectives", "objectives.consumers[]", "http", "metrics",
        "metrics.levels[]", "worker", "grafana", "notifications", "notifications.email[]", "notifications.slack[]",
        "notifications.pagerduty[]", "notifications.teams[]", "notifications.webhook[]", "notifications.smtp",
    ] == [place for place, _ in models()]  # fmt: skip
