"""``streamgauge config``: check the settings, print their schema or an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from monitor.cli.options import Where, settings_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from monitor.settings import Cluster, Settings


@click.group()
def config() -> None:
    """Check the settings file, print its schema or an example."""


@config.command()
@settings_options
def check(where: Where) -> None:
    """Read the settings and say what they mean, without secrets.

    Every complaint is a line on stderr with its file and line; the exit code is then 2. No broker is asked.
    """
    from monitor.cli.settings_file import find_settings

    found = find_settings(where)
    click.echo("\n".join([f"{found.source}: fine", *summary(found.settings)]))


@config.command()
def schema() -> None:
    """Print the JSON schema of the settings file, for editors that check while typing."""
    import json

    from monitor.settings import Settings

    described = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
    click.echo(json.dumps(described, indent=2))


@config.command()
def example() -> None:
    """Print a commented settings file to start from."""
    click.echo(example_text(), nl=False)


def example_text() -> str:
    """Return the commented example of a settings file."""
    from importlib.resources import files

    return files("monitor.cli").joinpath("streamgauge.example.yml").read_text("utf-8")


def summary(settings: Settings) -> Iterator[str]:
    """Say in a few lines what the settings mean. Passwords and keys are not looked at."""
    from monitor.cli.output import plural, printable

    for cluster in settings.clusters:
        yield f"cluster {printable(cluster.name)}: {printable(cluster.bootstrap_servers)}, {_security(cluster)}"
        spark = f", {plural(len(cluster.spark), 'checkpoint pattern')} of Spark" if cluster.spark else ""
        yield f"  a cycle every {cluster.interval_seconds:g} s, {cluster.timeout_seconds:g} s for a request{spark}"
    objectives = settings.objectives
    own = f", {plural(len(objectives.consumers), 'pattern')} of their own" if objectives.consumers else ""
    yield f"objective: {objectives.default_seconds:g} s{own}"
    yield f"status page: http://{settings.http.host}:{settings.http.port}/"


def _security(cluster: Cluster) -> str:
    from monitor.cli.output import printable

    parts: list[str] = [cluster.security_protocol]
    if cluster.sasl is not None:
        who = cluster.sasl.username or cluster.sasl.client_id
        file = cluster.sasl.token_file
        parts.append(cluster.sasl.mechanism)
        parts += [f"as {printable(who)}"] if who is not None else []
        parts += [f"by the token in {printable(str(file))}"] if file is not None else []
    if cluster.tls.cert_file is not None or cluster.tls.cert_pem is not None:
        parts.append("with a client certificate")
    if not cluster.tls.check_hostname:
        parts.append("any host name accepted")
    return " ".join(parts)
