"""streamgauge.yml as frozen, validated types: each field once, with its meaning, unit and default.

What a single field may hold is in its annotation; what fields forbid each other is in ``contradictions``, a pure
function, so that whoever reads the file can name every complaint at once with its line. Reading the file is
``monitor.cli.settings_file``. Secrets are ``SecretStr``: masked in every repr and error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

CONTRADICTION = "contradiction"
"""Type of the pydantic error that says: these fields do not go together."""

CERTIFICATE = "-----BEGIN CERTIFICATE-----"
PRIVATE_KEY = "PRIVATE KEY-----"


def matches(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern of ``*`` and ``?``; every other character stands for itself."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    """Take a relative path from the folder of the settings file, where the reader of the file tells it."""
    return path if info.context is None else Path(info.context["folder"]) / path.expanduser()


def _glob_from_folder(path: str, info: ValidationInfo) -> str:
    """Take a relative path or glob from the folder of the settings file; a URI stays as it is."""
    is_uri = ":" in path.partition("/")[0]
    return path if info.context is None or is_uri else str(Path(info.context["folder"]) / Path(path).expanduser())


def _is_certificate(pem: str) -> str:
    if CERTIFICATE not in pem:
        raise PydanticCustomError("pem", "holds no PEM certificate: it starts with {begin}", {"begin": CERTIFICATE})
    return pem


def _is_private_key(pem: SecretStr) -> SecretStr:
    if PRIVATE_KEY not in pem.get_secret_value():
        raise PydanticCustomError("pem", "holds no PEM private key: it starts with -----BEGIN PRIVATE KEY-----")
    return pem


def _is_no_switch(value: object) -> object:
    """Refuse true and false, and so YAML's yes and no, where a number belongs: Python takes them for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "should be a number")
    return value


def _is_url(url: str) -> str:
    """Refuse what is no http(s) URL, and one that holds a password: URLs are shown in messages."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or a bracket that is not closed
        good = False
    if not good:
        raise PydanticCustomError("url", "is no URL: write for example https://login.example.com/oauth2/token")
    if "@" in parts.netloc:
        raise PydanticCustomError("url", "holds a name or password before the @: give client_id and client_secret")
    return url


def _is_extension(text: str) -> str:
    """Refuse what RFC 7628 cannot carry; the name auth is taken by the token itself."""
    if not re.fullmatch(r"(?!auth=)[A-Za-z]+=[\x21-\x7e \t\r\n]+", text):
        raise PydanticCustomError("extension", "should be NAME=VALUE, the name of letters only and not auth")
    return text


Number = Annotated[float, BeforeValidator(_is_no_switch)]
Whole = Annotated[int, BeforeValidator(_is_no_switch)]
File = Annotated[Path, AfterValidator(_from_folder)]
Url = Annotated[str, AfterValidator(_is_url)]
SaslExtension = Annotated[str, AfterValidator(_is_extension)]
CertificatePem = Annotated[str, AfterValidator(_is_certificate)]
PrivateKeyPem = Annotated[SecretStr, AfterValidator(_is_private_key)]


class Sasl(_Part):
    """How to log in to the brokers. Each mechanism has fields of its own."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] = Field(
        "PLAIN",
        description="PLAIN and SCRAM: by name and password. OAUTHBEARER: by token. GSSAPI: by Kerberos.",
    )
    username: str | None = Field(None, min_length=1, description="PLAIN, SCRAM: who logs in.")
    password: SecretStr | None = Field(
        None, description="PLAIN, SCRAM: their password; best as `${NAME}` from the environment."
    )
    token_endpoint: Url | None = Field(
        None, description="OAUTHBEARER: URL that gives tokens for client credentials (RFC 6749, 4.4)."
    )
    client_id: str | None = Field(None, min_length=1, description="OAUTHBEARER: who asks `token_endpoint`.")
    client_secret: SecretStr | None = Field(
        None, description="OAUTHBEARER: the secret of `client_id`; best as `${NAME}` from the environment."
    )
    scope: str | None = Field(
        None, min_length=1, description="OAUTHBEARER: scope to ask for, if the endpoint wants one."
    )
    token_ca_file: File | None = Field(
        None,
        description="OAUTHBEARER: certificates to trust at `token_endpoint` (PEM file), instead of the system's.",
    )
    token_file: File | None = Field(
        None, description="OAUTHBEARER: a file that holds a token and that others renew, instead of `token_endpoint`."
    )
    extensions: tuple[SaslExtension, ...] = Field(
        (), description="OAUTHBEARER: SASL extensions that the brokers want (KIP-342), each as NAME=VALUE."
    )
    kerberos_service_name: str = Field(
        "kafka", min_length=1, description="GSSAPI: first part of the brokers' Kerberos principal."
    )
    kerberos_domain_name: str | None = Field(
        None, min_length=1, description="GSSAPI: host in the brokers' principal, where it is not the host asked."
    )


class Tls(_Part):
    """Certificates for TLS. Without `ca_file` and `ca_pem` the system's trusted certificates are used."""

    ca_file: File | None = Field(None, description="Certificates to trust (PEM file).")
    ca_pem: CertificatePem | None = Field(
        None, repr=False, description="The same as text, instead of `ca_file`; best as `${NAME}`."
    )
    cert_file: File | None = Field(
        None, description="Client certificate and its chain for mutual TLS (PEM file); may hold the key as well."
    )
    cert_pem: CertificatePem | None = Field(None, repr=False, description="The same as text, instead of `cert_file`.")
    key_file: File | None = Field(None, description="Key of the client certificate (PEM file).")
    key_pem: PrivateKeyPem | None = Field(None, description="The same as text, instead of `key_file`.")
    key_password: SecretStr | None = Field(None, description="Password of an encrypted key.")
    check_hostname: bool = Field(True, description="Whether the certificate must name the host that was asked for.")


class SparkCheckpoints(_Part):
    """Checkpoint folders of Spark queries that read from this cluster."""

    path: Annotated[str, Field(min_length=1), AfterValidator(_glob_from_folder)] = Field(
        description="A checkpoint folder, or a glob that names several."
    )
    name: str | None = Field(None, description="Shown name; `{folder}` stands for the folder's last part.")
    trigger_interval_seconds: Number | None = Field(
        None, gt=0, description="The query's trigger interval, if it has one."
    )


def _is_listening_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:  # noqa: PLR2004
        raise PydanticCustomError("address", "should be HOST:PORT, for example 127.0.0.1:9761")
    return address


class SparkEvents(_Part):
    """Events that Spark jobs send of their queries by `streamgauge.spark.attach`."""

    topic: str | None = Field(
        "streamgauge.spark", min_length=1, description="Topic of this cluster that they are sent to; null: none."
    )
    listen: Annotated[str, AfterValidator(_is_listening_address)] | None = Field(
        None, description="HOST:PORT to take them on by HTTP, for jobs that do not reach Kafka."
    )
    token: SecretStr | None = Field(
        None, description="What jobs must send as `Authorization: Bearer …`; best as `${NAME}` from the environment."
    )


class SparkDriverUi(_Part):
    """A Spark driver's web interface, for what only it knows of the batch in flight."""

    url: Url = Field(description="Its address, as a browser opens it: http://HOST:4040, or that of a proxy.")


class Filter(_Part):
    """Which names are looked at: those that match `include` and do not match `exclude`."""

    include: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("*",), description="Names or patterns (`*` and `?`)."
    )
    exclude: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), description="Names or patterns, out of those.")

    @property
    def takes_all(self) -> bool:
        """Return whether it leaves nothing out."""
        return "*" in self.include and not self.exclude

    @property
    def names(self) -> frozenset[str] | None:
        """Return the names that it takes, where it gives names and no patterns; else None."""
        if any(character in pattern for pattern in self.include for character in "*?"):
            return None
        return frozenset(filter(self.takes, self.include))

    def takes(self, name: str) -> bool:
        """Return whether a name is looked at."""
        return any(matches(name, pattern) for pattern in self.include) and not any(
            matches(name, pattern) for pattern in self.exclude
        )


class Cluster(_Part):
    """A Kafka cluster and what reads from it."""

    name: str = Field("default", min_length=1, description="Shown name, and the label `cluster` of every metric.")
    bootstrap_servers: str = Field(min_length=1, description="HOST:PORT, several separated by commas.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Whether to encrypt (SSL) and to log in (SASL)."
    )
    sasl: Sasl | None = Field(None, description="Log-in, needed by the SASL protocols.")
    tls: Tls = Field(Tls(), description="Certificates, for the SSL protocols.")
    interval_seconds: Number = Field(10.0, ge=0.1, description="Time from the start of one cycle to the next.")
    timeout_seconds: Number = Field(5.0, gt=0, description="How long one request to one broker may take.")
    metadata_interval_seconds: Number = Field(
        60.0, gt=0, description="How often topics are listed anew when nothing tells to."
    )
    describe_interval_seconds: Number = Field(60.0, gt=0, description="How often unchanged groups are described anew.")
    lookups_per_cycle: Whole = Field(
        2000, ge=0, description="Record time look-ups a cycle; 0 switches seconds by record off."
    )
    groups: Filter = Field(Filter(), description="Which groups are looked at; nobody is asked about the others.")
    topics: Filter = Field(Filter(), description="Which topics are looked at; nobody is asked about the others.")
    spark: tuple[SparkCheckpoints, ...] = Field((), description="Spark queries, by their checkpoint folders.")
    own_topics: bool = Field(
        True, description="Read and write the monitor's own topics (`streamgauge.*`), those of them that exist."
    )
    spark_events: SparkEvents | None = Field(None, description="Spark queries, by what their jobs tell themselves.")
    spark_drivers: tuple[SparkDriverUi, ...] = Field((), description="Spark queries, by their drivers' web interfaces.")

    @model_validator(mode="after")
    def _fits_together(self) -> Cluster:
        tls = {name for name in self.tls.model_fields_set if getattr(self.tls, name) is not None}
        found = contradictions(self.security_protocol, sasl=_login_fields(self.sasl), tls=tls)
        if found:
            text = "; ".join(f"{field}: {problem}" for field, problem in found)
            raise PydanticCustomError(CONTRADICTION, "{text}", {"text": text})
        return self


class Objective(_Part):
    """The age in seconds that consumers matching a pattern are allowed."""

    consumer: str = Field(min_length=1, description="Name or pattern (`*` and `?`).")
    seconds: Number = Field(gt=0, description="The age they are allowed.")


class Objectives(_Part):
    """How late a consumer may be. The first pattern that matches wins."""

    default_seconds: Number = Field(300.0, gt=0, description="The age allowed to everybody else.")
    consumers: tuple[Objective, ...] = Field((), description="Objectives by name or pattern.")

    def seconds_for(self, name: str) -> float:
        """Return the allowed age in seconds of the consumer with this name."""
        for objective in self.consumers:
            if matches(name, objective.consumer):
                return objective.seconds
        return self.default_seconds


class Http(_Part):
    """Where metrics, page and API are served."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; `0.0.0.0` for every interface.")
    port: Whole = Field(9760, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")


Detail = Literal["position", "topic", "consumer"]
"""How finely a consumer is exposed: by partition, by topic, or as a whole."""


class ConsumerLevel(_Part):
    """How finely the consumers matching a pattern are exposed."""

    consumer: str = Field(min_length=1, description="Name or pattern (`*` and `?`).")
    level: Detail = Field(description="As for `metrics.level`.")


class Metrics(_Part):
    """What /metrics exposes."""

    level: Detail = Field(
        "position",
        description="How finely consumers are exposed: by partition (position), by topic, or only as a whole.",
    )
    levels: tuple[ConsumerLevel, ...] = Field(
        (), description="Levels by name or pattern of the consumer. The first pattern that matches wins."
    )
    max_positions: Whole = Field(
        200_000,
        ge=0,
        description="Positions of a cluster exposed one by one; beyond it those that lag most are, and the rest of "
        "each consumer and topic is summed.",
    )
    max_series: Whole = Field(
        1_000_000,
        ge=1,
        description="Series in one answer, over all clusters; beyond it what is finest is left out, and counted.",
    )
    committed_offset: bool = Field(False, description="Expose the committed offset of every position.")
    lag_seconds_bound: bool = Field(False, description="Expose the bound of the age of every position.")
    lost_records: bool = Field(False, description="Expose the lost records of every position.")
    owner_info: bool = Field(False, description="Expose which member owns each partition, as labels of a series.")

    def level_for(self, name: str) -> Detail:
        """Return how finely the consumer with this name is exposed."""
        for each in self.levels:
            if matches(name, each.consumer):
                return each.level
        return self.level


AlertSeverity = Literal["critical", "warning", "info", "none"]
"""Of which alerts somebody is told; ``none`` is the watchdog, which says that alerts arrive."""


def _is_variable(name: str) -> str:
    """Refuse what is no name of an environment variable, without quoting it: it may be the secret itself."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise PydanticCustomError(
            "variable", "is no name of an environment variable: write for example SLACK_URL, and the secret in there"
        )
    return name


def _is_mail_address(text: str) -> str:
    if not re.fullmatch(r"[^@\s,]+@[^@\s,]+", text):
        raise PydanticCustomError("address", "is no e-mail address: write for example team@example.org")
    return text


def _is_host_and_port(text: str) -> str:
    if not re.fullmatch(r"[^\s:/@]+:[0-9]{1,5}", text):
        raise PydanticCustomError("address", "is not HOST:PORT: write for example smtp.example.org:587")
    return text


Variable = Annotated[str, AfterValidator(_is_variable)]
MailAddress = Annotated[str, AfterValidator(_is_mail_address)]
HostAndPort = Annotated[str, AfterValidator(_is_host_and_port)]


class _Secretive(_Part):
    @model_validator(mode="before")
    @classmethod
    def _names_variables(cls, data: object) -> object:
        """Say where a secret belongs that was written into the file."""
        for key in ("url", "key", "token", "password"):
            if isinstance(data, dict) and key in data and f"{key}_variable" in cls.model_fields:
                raise PydanticCustomError(
                    "secret",
                    "{key} stays out of the file: write {key}_variable: NAME, and set NAME in the environment",
                    {"key": key},
                )
        return data


class Contact(_Secretive):
    """What every way to tell somebody has. Secrets are not in here: their environment variables are named."""

    severities: tuple[AlertSeverity, ...] = Field(
        ("critical", "warning"),
        min_length=1,
        description="Of which alerts they are told: critical, warning, info, and none (the watchdog).",
    )


class EmailContact(Contact):
    """Alerts by e-mail. Alertmanager sends through `notifications.smtp`, Grafana through its own mail settings."""

    to: tuple[MailAddress, ...] = Field(min_length=1, description="Addresses.")


class SlackContact(Contact):
    """Alerts into a Slack channel, by an incoming webhook."""

    channel: str | None = Field(None, min_length=1, description="Channel or person, where it is not the webhook's own.")
    url_variable: Variable = Field(
        "STREAMGAUGE_SLACK_URL", description="Environment variable that holds the webhook's URL."
    )


class PagerdutyContact(Contact):
    """Alerts as incidents of a PagerDuty service, by its Events API v2. It knows no severity none."""

    severities: tuple[Literal["critical", "warning", "info"], ...] = Field(
        ("critical",), min_length=1, description="Of which alerts they are told: critical, warning and info."
    )
    key_variable: Variable = Field(
        "STREAMGAUGE_PAGERDUTY_KEY", description="Environment variable that holds the service's integration key."
    )


class TeamsContact(Contact):
    """Alerts into a channel of Microsoft Teams, by a workflow's webhook. Alertmanager has this from 0.28 on."""

    url_variable: Variable = Field(
        "STREAMGAUGE_TEAMS_URL", description="Environment variable that holds the workflow's URL."
    )


class WebhookContact(Contact):
    """Alerts as JSON to a URL of yours."""

    url_variable: Variable = Field("STREAMGAUGE_WEBHOOK_URL", description="Environment variable that holds the URL.")
    token_variable: Variable | None = Field(
        None, description="Environment variable that holds a bearer token for it, if it wants one."
    )


class Smtp(_Secretive):
    """The mail server that Alertmanager sends through."""

    smarthost: HostAndPort = Field(description="HOST:PORT.")
    sender: MailAddress = Field(description="Address that mails come from.")
    username: str | None = Field(None, min_length=1, description="Who logs in, if the server wants it.")
    password_variable: Variable = Field(
        "STREAMGAUGE_SMTP_PASSWORD", description="Environment variable that holds the password of `username`."
    )
    require_tls: bool = Field(True, description="Whether to refuse a server without TLS.")


class Notifications(_Part):
    """Whom `alerts render` lets alerts go to. The monitor itself sends nothing."""

    email: tuple[EmailContact, ...] = Field((), description="By e-mail.")
    slack: tuple[SlackContact, ...] = Field((), description="Into Slack.")
    pagerduty: tuple[PagerdutyContact, ...] = Field((), description="To PagerDuty.")
    teams: tuple[TeamsContact, ...] = Field((), description="Into Microsoft Teams.")
    webhook: tuple[WebhookContact, ...] = Field((), description="To a URL.")
    smtp: Smtp | None = Field(None, description="The mail server, for `email` by Alertmanager.")


class Grafana(_Part):
    """The Grafana that `dashboards apply` and `alerts apply` write to."""

    url: Url = Field(description="Where it is served, with its sub-path if it has one.")
    token: SecretStr | None = Field(
        None, description="A service account's token; best as `${GRAFANA_TOKEN}`, which is also taken without this."
    )
    username: str | None = Field(None, min_length=1, description="Instead of `token`: who logs in.")
    password: SecretStr | None = Field(None, description="Instead of `token`: their password; best as `${NAME}`.")
    org_id: Whole | None = Field(None, ge=1, description="Organisation, where it is not the log-in's own.")
    ca_file: File | None = Field(None, description="Certificates to trust (PEM file), instead of the system's.")
    timeout_seconds: Number = Field(10.0, gt=0, description="How long one request may take.")
    prometheus_url: Url = Field("http://127.0.0.1:9090", description="Where Grafana reaches Prometheus.")
    prometheus_username: str | None = Field(None, min_length=1, description="Who logs in to Prometheus, if needed.")
    prometheus_password: SecretStr | None = Field(None, description="Their password; best as `${NAME}`.")
    scrape_interval_seconds: Whole = Field(60, ge=1, description="How often Prometheus scrapes the monitor.")
    datasource_uid: str | None = Field(
        None, min_length=1, description="A data source for that Prometheus which is there already: none is made then."
    )
    runbooks_url: Url | None = Field(None, description="Where the manual's runbooks are served: alerts link there.")

    @model_validator(mode="after")
    def _has_one_login(self) -> Grafana:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise PydanticCustomError("login", "give token, or username and password, not both")
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError("login", "username and password go together: give both")
        if (self.prometheus_username is None) != (self.prometheus_password is None):
            raise PydanticCustomError("login", "prometheus_username and prometheus_password go together: give both")
        return self


class Worker(_Part):
    """How `streamgauge worker` runs an app. Of Kafka's settings those given here replace the app's own."""

    acks: Literal["all", "leader", "none"] = Field(
        "all",
        description="Who must have a record before it counts as sent. All: results are acknowledged before offsets are "
        "committed, which with fewer would lose them when a leader dies.",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "none", description="Of records sent. None: a worker is short of CPU before it is short of network."
    )
    linger_seconds: Number = Field(
        0.0, ge=0, description="How long to wait for more to send. 0: jobs send in batches already, agents one by one."
    )
    batch_bytes: Whole = Field(
        16_384, ge=1, description="Of a partition in one request. Kafka's own default; more helps with compression."
    )
    max_poll_records: Whole | None = Field(
        None, ge=1, description="Records taken at once. No limit: what was fetched is in memory already."
    )
    session_timeout_seconds: Number = Field(
        60.0,
        gt=0,
        description="Silence after which a worker loses its partitions. A minute: a pause of the machine or a long "
        "cleanup of tables costs no rebalance; a worker that was killed holds its partitions for as long.",
    )
    offset_reset: Literal["earliest", "latest"] = Field(
        "earliest", description="Where to begin without a commit. Earliest: nothing that was written is passed over."
    )
    data_folder: File | None = Field(
        None,
        description="Where each worker takes a folder of its own (worker-N) for tables on disk; without it the app's "
        "own folder is used, by one worker at a time.",
    )
    stop_seconds: Number = Field(
        20.0,
        gt=0,
        description="How long stopping may take: working off what was begun, committing, leaving the group. Less than "
        "the 30 s after which Kubernetes kills.",
    )
    patience_seconds: Number = Field(
        300.0,
        gt=0,
        description="With something to do and nothing moving for so long, /healthz says 503. Longer than the slowest "
        "record and than brokers are away for a restart: starting the worker anew helps neither.",
    )


class Settings(_Part):
    """The whole of streamgauge.yml."""

    clusters: tuple[Cluster, ...] = Field(min_length=1, description="What is watched.")
    objectives: Objectives = Field(Objectives(), description="How late a consumer may be.")
    http: Http = Field(Http(), description="Where metrics, page and API are served.")
    metrics: Metrics = Field(Metrics(), description="What /metrics exposes.")
    worker: Worker = Field(Worker(), description="How `streamgauge worker` runs an app.")
    grafana: Grafana | None = Field(None, description="Where boards and rules are applied to.")
    notifications: Notifications = Field(
        Notifications(), description="Whom alerts go to, for the files that `alerts render` writes."
    )

    @model_validator(mode="after")
    def _has_distinct_names(self) -> Settings:
        repeated = repeated_names(cluster.name for cluster in self.clusters)
        if repeated:
            names = ", ".join(map(repr, repeated))
            raise PydanticCustomError(CONTRADICTION, "clusters: several are called {names}", {"names": names})
        return self


class LoginFields(NamedTuple):
    """A mechanism, and the names of the fields of ``Sasl`` that are set."""

    mechanism: str
    fields: Set[str]


def contradictions(protocol: str, *, sasl: LoginFields | None, tls: Set[str]) -> list[tuple[str, str]]:
    """Return what does not go together in a cluster's security settings, as (field, what to do) pairs.

    ``tls`` are the names of the fields of ``Tls`` that are set.
    """
    has_cert, has_key = tls & {"cert_file", "cert_pem"}, tls & {"key_file", "key_pem"}
    rules = (
        (
            protocol.startswith("SASL_") and sasl is None,
            "security_protocol",
            f"{protocol} needs a log-in: add sasl with username and password",
        ),
        (
            sasl is not None and not protocol.startswith("SASL_"),
            "sasl",
            f"would not be used with security_protocol {protocol}: choose {_with_sasl(protocol)}, or take sasl out",
        ),
        (
            bool(tls) and not protocol.endswith("SSL"),
            "tls",
            f"would not be used with security_protocol {protocol}: choose {_with_tls(protocol)}, or take tls out",
        ),
        ({"ca_file", "ca_pem"} <= tls, "tls.ca_pem", "give ca_file or ca_pem, not both"),
        (len(has_cert) > 1, "tls.cert_pem", "give cert_file or cert_pem, not both"),
        (len(has_key) > 1, "tls.key_pem", "give key_file or key_pem, not both"),
        (
            bool(has_key) and not has_cert,
            f"tls.{next(iter(sorted(has_key)), '')}",
            "a key needs its certificate: add cert_file or cert_pem",
        ),
        (
            "key_password" in tls and not (has_cert or has_key),
            "tls.key_password",
            "there is no key it could open: add cert_file and key_file",
        ),
    )
    found = [(field, text) for is_wrong, field, text in rules if is_wrong]
    return [*found, *_login_contradictions(sasl)] if sasl is not None else found


def _login_fields(sasl: Sasl | None) -> LoginFields | None:
    if sasl is None:
        return None
    return LoginFields(sasl.mechanism, {name for name in sasl.model_fields_set if getattr(sasl, name) is not None})


_NAME_AND_PASSWORD = frozenset({"username", "password"})
_BY_ENDPOINT = frozenset({"token_endpoint", "client_id", "client_secret"})
_BY_ENDPOINT_AT_WILL = frozenset({"scope", "token_ca_file"})
_USED_BY = {
    "PLAIN": _NAME_AND_PASSWORD,
    "SCRAM-SHA-256": _NAME_AND_PASSWORD,
    "SCRAM-SHA-512": _NAME_AND_PASSWORD,
    "OAUTHBEARER": _BY_ENDPOINT | _BY_ENDPOINT_AT_WILL | {"token_file", "extensions"},
    "GSSAPI": frozenset({"kerberos_service_name", "kerberos_domain_name"}),
}
"""The fields of ``Sasl`` that each mechanism reads."""


def _login_contradictions(login: LoginFields) -> Iterator[tuple[str, str]]:
    """Yield (field, what to do) for what a mechanism lacks or would not use; nothing for an unknown mechanism."""
    mechanism, given = login.mechanism, login.fields - {"mechanism"}
    used = _USED_BY.get(mechanism, given)
    has_file = mechanism == "OAUTHBEARER" and "token_file" in given
    for name in sorted(given - used):
        users = " or ".join(each for each, fields in _USED_BY.items() if name in fields)
        yield f"sasl.{name}", f"would not be used with mechanism {mechanism}: take it out, or choose {users}"
    if used == _NAME_AND_PASSWORD:
        for name in sorted(used - given, reverse=True):
            yield f"sasl.{name}", f"is missing: {mechanism} logs in with username and password"
    if has_file:
        for name in sorted(given & (_BY_ENDPOINT | _BY_ENDPOINT_AT_WILL)):
            yield f"sasl.{name}", "would not be used with token_file: give token_endpoint or token_file, not both"
    elif mechanism == "OAUTHBEARER":
        ways = "token_endpoint, client_id and client_secret, or with token_file"
        for name in sorted(_BY_ENDPOINT - given, key=list(Sasl.model_fields).index):
            yield f"sasl.{name}", f"is missing: OAUTHBEARER logs in with {ways}"


def repeated_names(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _with_sasl(protocol: str) -> str:
    return {"SSL": "SASL_SSL"}.get(protocol, "SASL_PLAINTEXT or SASL_SSL")


def _with_tls(protocol: str) -> str:
    return {"SASL_PLAINTEXT": "SASL_SSL"}.get(protocol, "SSL")
