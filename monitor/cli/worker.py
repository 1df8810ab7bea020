"""``streamgauge worker``: run a Faust app, ours or the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from monitor.cli.options import debug_option

if TYPE_CHECKING:
    import faust

    from monitor.settings import Worker
    from processors.worker import Conduct

DEFAULT_APP = "processors.app:app"
BROKERS = "STREAMGAUGE_BROKERS"


@click.command()
@click.option(
    "--app", "spec", default=DEFAULT_APP, show_default=True, metavar="MODULE:APP", help="The Faust app to run."
)
@click.option(
    "--bootstrap-servers",
    metavar="HOST:PORT[,…]",
    help=f"Brokers to read from; the app finds them in ${BROKERS}.",
)
@click.option("--config", metavar="FILE", help="Settings file whose part worker says how to run it.")
@click.option(
    "--data",
    metavar="DIR",
    help="Folder in which each worker takes one of its own, instead of the settings' data_folder.",
)
@click.option(
    "--health",
    metavar="[HOST:]PORT",
    help="Answer GET /healthz there: 503 when there is something to do and nothing moves.",
)
@debug_option
def worker(
    spec: str, *, bootstrap_servers: str | None, config: str | None, data: str | None, health: str | None
) -> int:
    """Run a Faust stream processor.

    Prints a line when partitions are assigned and runs until Ctrl-C or SIGTERM. Start as many as the topic has
    partitions. Without --app: averages of the readings on topic readings, to topic readings-averages.
    """
    import asyncio
    import logging
    import os

    from monitor.cli.logs import log_for_results, log_to_stderr
    from monitor.cli.options import is_debug

    log_for_results(debug=is_debug())
    if bootstrap_servers:
        os.environ[BROKERS] = bootstrap_servers
    conduct = _conduct(config, data, health)
    app = load_app(spec)
    _check_brokers(app, spec, bootstrap_servers)

    from processors.worker import OncePerInterval, run

    def say(line: str) -> None:
        if not is_debug():
            # From here on it runs unattended: what goes wrong is logged.
            log_to_stderr("warning")
            for handler in logging.getLogger().handlers:
                handler.addFilter(OncePerInterval())
        click.echo(line)

    asyncio.run(run(app, say, conduct))
    click.echo(f"{app.conf.id} stopped: {app.counts}" if hasattr(app, "counts") else f"{app.conf.id} stopped")
    return 0


ACKS = {"all": -1, "leader": 1, "none": 0}


def _conduct(config: str | None, data: str | None, health: str | None) -> Conduct:
    """Return how the settings and the options say to run the app.

    Raises:
        UsageError: they are wrong.
    """
    from pathlib import Path

    from monitor.cli.settings_file import load
    from monitor.settings import Worker
    from processors.worker import Conduct

    given = load(Path(config)).worker if config else Worker()
    folder = Path(data) if data else given.data_folder
    return Conduct(
        data=folder,
        health=None if health is None else _address(health),
        patience_seconds=given.patience_seconds,
        stop_seconds=given.stop_seconds,
        settings=kafka_settings(given),
    )


def kafka_settings(given: Worker) -> dict[str, object]:
    """Return Faust's names and values of those of Kafka's settings that are in the file.

    Raises:
        UsageError: a compression needs a package that is not there.
    """
    from aiokafka import codec

    from monitor.errors import UsageError

    if given.compression != "none" and not getattr(codec, f"has_{given.compression}")():
        problem = (
            f"worker.compression: {given.compression} needs the Python package cramjam: install it, or choose gzip"
        )
        raise UsageError(problem)
    names = {
        "acks": ("producer_acks", ACKS[given.acks]),
        "compression": ("producer_compression_type", None if given.compression == "none" else given.compression),
        "linger_seconds": ("producer_linger", given.linger_seconds),
        "batch_bytes": ("producer_max_batch_size", given.batch_bytes),
        "max_poll_records": ("broker_max_poll_records", given.max_poll_records),
        "session_timeout_seconds": ("broker_session_timeout", given.session_timeout_seconds),
        "offset_reset": ("consumer_auto_offset_reset", given.offset_reset),
    }
    return dict(names[name] for name in names if name in given.model_fields_set)


def _address(text: str) -> tuple[str, int]:
    from monitor.errors import UsageError

    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - ports are 16 bits
        problem = f"--health {text}: it must be PORT or HOST:PORT"
        raise UsageError(problem)
    return host.strip("[]") or "127.0.0.1", int(port)


def load_app(spec: str) -> faust.App:
    """Return the Faust app that MODULE:APP names; modules of the current folder are found too.

    Raises:
        UsageError: there is none.
    """
    import sys
    from importlib import import_module

    import faust

    from monitor.errors import UsageError

    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        problem = f"--app {spec}: it must be MODULE:APP, such as {DEFAULT_APP}"
        raise UsageError(problem)
    if "" not in sys.path:
        sys.path.append("")  # last, so that nothing in the current folder shadows anything
    try:
        module = import_module(module_name)
    except Exception as exc:
        problem = f"--app {spec}: cannot import {module_name}: {type(exc).__name__}: {' '.join(str(exc).split())}"
        raise UsageError(problem) from exc
    app = getattr(module, attribute, None)
    if not isinstance(app, faust.App):
        found = "not there" if app is None else f"of type {type(app).__name__}"
        problem = f"--app {spec}: {attribute} in {module_name} is {found}, where a faust.App is wanted"
        raise UsageError(problem)
    return app


def _check_brokers(app: faust.App, spec: str, bootstrap_servers: str | None) -> None:
    """Refuse to run an app against other brokers than those asked for.

    Raises:
        UsageError: the app does not take its brokers from the environment.
    """
    from monitor.errors import UsageError
    from processors.brokers import addresses

    wanted = sorted(each.strip() for each in bootstrap_servers.split(",")) if bootstrap_servers else None
    if wanted is not None and wanted != sorted(addresses(app).split(",")):
        problem = (
            f"--bootstrap-servers {bootstrap_servers}: the app {spec} names its own brokers ({addresses(app)}); "
            f"let it read {BROKERS}, or leave the option out"
        )
        raise UsageError(problem)
