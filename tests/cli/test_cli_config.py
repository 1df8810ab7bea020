"""``streamgauge config``: check, schema, example."""

import json
import re

import pytest
from pydantic import BaseModel

from monitor.cli.config import example_text
from monitor.cli.settings_file import load, models
from monitor.settings import Cluster, Settings

SECRET = "hunter2"
ENVIRON = {
    "KAFKA_PASSWORD": SECRET,
    "KAFKA_CA": "-----BEGIN CERTIFICATE-----",
    "KAFKA_CERT": "-----BEGIN CERTIFICATE-----",
    "KAFKA_KEY": f"-----BEGIN PRIVATE KEY-----{SECRET}",
    "SPARK_EVENTS_TOKEN": SECRET,
}


def switched_on(text):
    """Take the # away from lines that are settings: # and no blank, or, below such a line, # and an indentation."""
    lines = []
    for line in text.splitlines():
        indent, mark, rest = line.partition("#")
        is_setting = mark and not indent.strip() and (rest[:1].isalpha() or rest[:2] == "  ")
        lines.append(indent + rest if is_setting else line)
    return "\n".join(lines) + "\n"


def test_the_example_is_fine(run, in_folder):
    """What ``config example`` prints passes ``config check`` as it is, without anything in the environment."""
    (in_folder / "streamgauge.yml").write_text(run("config", "example").stdout)

    result = run("config", "check")

    assert (0, "") == (result.exit_code, result.stderr)
    assert "streamgauge.yml: fine" == result.stdout.splitlines()[0]


def test_every_setting_of_the_example_is_fine(run, in_folder):
    """So does the example with every setting in it switched on, and no secret is shown."""
    (in_folder / "streamgauge.yml").write_text(switched_on(example_text()))

    result = run("config", "check", env=ENVIRON)

    assert (0, "") == (result.exit_code, result.stderr)
    assert [
        "streamgauge.yml: fine",
        "cluster production: localhost:9092, SASL_SSL SCRAM-SHA-512 as streamgauge with a client certificate",
        "  a cycle every 10 s, 5 s for a request, 1 checkpoint pattern of Spark",
        "objective: 300 s, 1 pattern of their own",
        "status page: http://127.0.0.1:9760/",
    ] == result.stdout.splitlines()
    assert SECRET not in result.output


def test_the_example_names_every_setting():
    """Whoever reads the example has seen every key there is."""
    named = set(re.findall(r"[a-z_]+(?=:)", example_text())) | {"ca_file", "cert_file", "key_file"}

    assert set() == {name for _, model in models() for name in model.model_fields} - named


def test_the_example_shows_the_defaults(in_folder):
    """Where the example shows a default it is the one that counts."""
    path = in_folder / "streamgauge.yml"
    path.write_text(switched_on(example_text()))
    shown = load(path, ENVIRON)

    numbers = {
        "interval_seconds", "timeout_seconds", "metadata_interval_seconds", "describe_interval_seconds",
        "lookups_per_cycle",
    }  # fmt: skip
    plain = Cluster(bootstrap_servers="x:1")
    assert plain.model_dump(include=numbers) == shown.clusters[0].model_dump(include=numbers)
    assert Settings(clusters=[plain]).http == shown.http
    assert Settings(clusters=[plain]).metrics == shown.metrics.model_copy(update={"levels": ()})
    assert Settings(clusters=[plain]).objectives.default_seconds == shown.objectives.default_seconds


def test_check_complains_about_everything(run, in_folder):
    """Every complaint is a line on stderr under the program's name, with file and line; the exit code is 2."""
    (in_folder / "streamgauge.yml").write_text("clusters:\n  - bootstrap_server: x\n    interval_seconds: no\nhttpd:\n")

    result = run("config", "check")

    assert (2, "") == (result.exit_code, result.stdout)
    assert [
        "streamgauge: streamgauge.yml:2: clusters[0].bootstrap_servers is missing",
        "streamgauge: streamgauge.yml:2: unknown key `bootstrap_server` in clusters[0]: "
        "did you mean `bootstrap_servers`?",
        "streamgauge: streamgauge.yml:3: clusters[0].interval_seconds should be a number, not 'no'",
    ] == result.stderr.splitlines()


def test_check_takes_client_properties(run, in_folder):
    """A client properties file can be checked as well."""
    login = f"sasl.mechanism=PLAIN\nsasl.username=u\nsasl.password={SECRET}"
    (in_folder / "c").write_text(f"security.protocol=SASL_PLAINTEXT\n{login}")

    result = run("config", "check", "--bootstrap-servers", "x:1", "--command-config", "c")

    assert "cluster default: x:1, SASL_PLAINTEXT PLAIN as u" in result.stdout
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("login", "said"),
    [
        pytest.param(
            "{mechanism: OAUTHBEARER, token_endpoint: 'https://x/t', client_id: me, client_secret: hunter2}",
            "OAUTHBEARER as me",
            id="by an endpoint's token",
        ),
        pytest.param(
            "{mechanism: OAUTHBEARER, token_file: s.yml}", "OAUTHBEARER by the token in s.yml", id="by a file's token"
        ),
        pytest.param("{mechanism: GSSAPI}", "GSSAPI", id="by Kerberos"),
    ],
)
def test_check_says_who_logs_in(run, in_folder, login, said):
    """Each mechanism is named with who logs in by it, as far as the settings know, and without the secret."""
    head = "clusters:\n  - bootstrap_servers: x:1\n    security_protocol: SASL_PLAINTEXT\n"
    (in_folder / "s.yml").write_text(f"{head}    sasl: {login}\n")

    result = run("config", "check", "--config", "s.yml")

    assert f"cluster default: x:1, SASL_PLAINTEXT {said}" == result.stdout.splitlines()[1]
    assert SECRET not in result.output


def test_the_schema_is_json_and_names_everything(run):
    """The schema is JSON, knows every key, and refuses others."""
    schema = json.loads(run("config", "schema").stdout)

    assert "object" == schema["type"]
    assert schema["additionalProperties"] is False
    known = {key for part in [schema, *schema["$defs"].values()] for key in part["properties"]}
    assert {name for _, model in models() for name in model.model_fields} == known
    secret = {"format": "password", "type": "string", "writeOnly": True}
    sasl = schema["$defs"]["Sasl"]["properties"]
    assert [secret, secret] == [sasl[name]["anyOf"][0] for name in ("password", "client_secret")]


@pytest.mark.parametrize("model", dict.fromkeys(model for _, model in models()), ids=lambda model: model.__name__)
def test_every_setting_is_described(model: type[BaseModel]):
    """Each part and each key says what it means."""
    assert model.__doc__
    assert [] == [name for name, field in model.model_fields.items() if not field.description]
