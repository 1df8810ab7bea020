"""streamgauge.yml as frozen, validated types: each field once, with its meaning, unit and default."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sasl(_Part):
    """How to log in to the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str
    password: SecretStr


class Tls(_Part):
    """Certificates for TLS. Without ``ca_file`` the system's trusted certificates are used."""

    ca_file: Path | None = None
    cert_file: Path | None = Field(None, description="Client certificate (PEM) for mutual TLS.")
    key_file: Path | None = Field(None, description="Key of the client certificate (PEM).")
    key_password: SecretStr | None = None
    check_hostname: bool = True


class SparkCheckpoints(_Part):
    """Checkpoint folders of Spark queries that read from this cluster."""

    path: str = Field(description="A checkpoint folder, or a glob that names several.")
    name: str | None = Field(None, description="Shown name; {folder} stands for the folder's last part.")
    trigger_interval_seconds: float | None = Field(
        None, gt=0, description="The query's trigger interval, if it has one."
    )


class Cluster(_Part):
    """A Kafka cluster and what reads from it."""

    name: str = Field("default", min_length=1)
    bootstrap_servers: str = Field(min_length=1, description="HOST:PORT, several separated by commas.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl: Sasl | None = None
    tls: Tls = Tls()
    interval_seconds: float = Field(10.0, ge=0.1, description="Time from the start of one cycle to the next.")
    timeout_seconds: float = Field(5.0, gt=0, description="How long one request to one broker may take.")
    metadata_interval_seconds: float = Field(
        60.0, gt=0, description="How often topics are listed anew when nothing tells to."
    )
    describe_interval_seconds: float = Field(60.0, gt=0, description="How often unchanged groups are described anew.")
    lookups_per_cycle: int = Field(
        2000, ge=0, description="Record time look-ups a cycle; 0 switches seconds by record off."
    )
    spark: tuple[SparkCheckpoints, ...] = ()


class Objective(_Part):
    """The age in seconds that consumers matching a pattern are allowed."""

    consumer: str = Field(description="Name or pattern (* and ?).")
    seconds: float = Field(gt=0)


class Objectives(_Part):
    """How late a consumer may be. The first pattern that matches wins."""

    default_seconds: float = Field(300.0, gt=0)
    consumers: tuple[Objective, ...] = ()

    def seconds_for(self, name: str) -> float:
        """Return the allowed age in seconds of the consumer with this name."""
        for objective in self.consumers:
            if fnmatchcase(name, objective.consumer):
                return objective.seconds
        return self.default_seconds


class Http(_Part):
    """Where metrics, page and API are served."""

    host: str = "127.0.0.1"
    port: int = Field(9760, ge=0, le=65535, description="0 picks a free port.")


class Metrics(_Part):
    """What /metrics exposes."""

    max_positions: int = Field(
        200_000,
        ge=0,
        description="Positions exposed one by one; beyond it a cluster is exposed by topic, and counted.",
    )
    committed_offset: bool = False
    lag_seconds_bound: bool = False
    lost_records: bool = False


class Settings(_Part):
    """The whole of streamgauge.yml."""

    clusters: tuple[Cluster, ...] = Field(min_length=1)
    objectives: Objectives = Objectives()
    http: Http = Http()
    metrics: Metrics = Metrics()
