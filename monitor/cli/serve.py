"""``streamgauge serve``: the monitor as a service."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from monitor.cli.logs import LEVELS
from monitor.cli.options import Where, is_debug, settings_options

if TYPE_CHECKING:
    from monitor.settings import Settings


@click.command()
@settings_options
@click.option("--host", metavar="ADDRESS", help="Address to listen on, instead of the settings'.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port to listen on, instead of the settings'; 0: a free one.",
)
@click.option(
    "--create-topics",
    is_flag=True,
    help="Make the monitor's own topics (streamgauge.*) where they do not exist: reports of workers, samples of lag "
    "and what they are rolled up to need them.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What to log.")
def serve(where: Where, *, host: str | None, port: int | None, create_topics: bool, log_level: str) -> None:
    """Run the monitor: metrics, status page and API.

    It prints the address of the status page once it answers, and runs until Ctrl-C or SIGTERM. A cluster that cannot
    be reached is shown as down and tried again. The log goes to stderr: lines for a terminal, JSON otherwise.
    """
    from monitor.cli.logs import log_to_stderr
    from monitor.cli.settings_file import find_settings

    settings = listening_on(find_settings(where).settings, host, port)
    log_to_stderr("debug" if is_debug() else log_level)
    if create_topics:
        asyncio.run(_create_topics(settings))
    asyncio.run(_until_signalled(settings))


async def _create_topics(settings: Settings) -> None:
    from monitor.operate.own_topics import make_own_topics

    for cluster in settings.clusters:
        for topic in await make_own_topics(cluster):
            click.echo(f"made topic {topic} in cluster {cluster.name}")


def listening_on(settings: Settings, host: str | None, port: int | None) -> Settings:
    """Return the settings with this host and port, where they are given."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return settings.model_copy(update={"http": settings.http.model_copy(update=given)})


async def _until_signalled(settings: Settings) -> None:
    from monitor import service

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await service.serve(settings, on_ready=_announce, stop=stop)


def _announce(address: str) -> None:
    click.echo(f"status page: {address}")
