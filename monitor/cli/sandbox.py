"""``streamgauge sandbox``: a real Kafka on this machine, for as long as the command runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from monitor.cli.options import debug_option
from monitor.sandbox.versions import KAFKA_VERSIONS

if TYPE_CHECKING:
    from monitor.sandbox.jars import Progress
    from monitor.sandbox.kafka import KafkaSandbox

EXIT_INTERRUPTED = 130

_LOOK_SECONDS = 0.2
"""How often to look whether the parent and the nodes are still there."""


@click.group()
@debug_option
def sandbox() -> None:
    """Start a real Kafka on this machine, for trying things out."""


@sandbox.command()
@click.option("--nodes", type=click.Choice(["1", "3"]), default="1", show_default=True, help="How many nodes.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Where the first node listens, the others on the ports after it. Without it: any free ones.",
)
@click.option(
    "--data", type=click.Path(file_okay=False), metavar="DIR", help="Folder for the data, kept and used again later."
)
@click.option(
    "--version",
    default=KAFKA_VERSIONS[0],
    show_default=True,
    metavar="VERSION",
    help=f"Version of Kafka: {', '.join(KAFKA_VERSIONS)}; the beginning is enough.",
)
@click.option("--zookeeper", is_flag=True, help="Run on a ZooKeeper, as Kafka 3 can.")
@debug_option
def kafka(nodes: str, port: int, data: str | None, version: str, *, zookeeper: bool) -> int:
    """Run Apache Kafka until Ctrl-C, SIGTERM or the end of the process that started this command.

    Prints "bootstrap: HOST:PORT" once it answers. It listens on 127.0.0.1 only. Kafka itself is downloaded once, and
    runs on a Java 17 or later: that of JAVA_HOME, else the one on the PATH, else that of streamgauge[sandbox].
    """
    from monitor.sandbox.kafka import KafkaSandbox

    with _progress() as progress:
        cluster = KafkaSandbox(
            int(nodes), port=port, data=data, version=version, zookeeper=zookeeper, progress=progress
        )
        return asyncio.run(_until_told(cluster))


async def _until_told(cluster: KafkaSandbox) -> int:
    """Run the cluster until a signal comes or the parent goes; return the exit code."""
    running = asyncio.current_task()
    assert running is not None  # noqa: S101 - we are in it
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, running.cancel)
    answered = False
    try:
        async with cluster:
            answered = True
            click.echo(f"bootstrap: {cluster.bootstrap}")
            for node in cluster.nodes:
                click.echo(f"node {node.id}: {node.address}, pid {node.pid}, log {node.log}", err=True)
            if (keeper := cluster.zookeeper) is not None:
                click.echo(f"zookeeper: {keeper.address}, pid {keeper.pid}, log {keeper.log}", err=True)
            await _while_wanted(cluster)
    except asyncio.CancelledError:
        return 0 if answered else EXIT_INTERRUPTED
    return 0


async def _while_wanted(cluster: KafkaSandbox) -> None:
    """Return when the parent has gone; say once of each node that it ended.

    Raises:
        SandboxError: No node runs any more, or the ZooKeeper does not.
    """
    from monitor.errors import SandboxError

    parent, gone = os.getppid(), set()
    while os.getppid() == parent:
        if cluster.zookeeper is not None and cluster.zookeeper.pid is None:
            msg = f"{cluster.zookeeper.ending()}: without it the sandbox is of no use, start it again"
            raise SandboxError(msg)
        for node in cluster.nodes:
            if node.pid is None and node.id not in gone:
                gone.add(node.id)
                if len(gone) == len(cluster.nodes):
                    msg = f"{node.ending()}: nothing is left of the sandbox, start it again"
                    raise SandboxError(msg)
                click.echo(f"streamgauge: {node.ending()}; the others go on", err=True)
        await asyncio.sleep(_LOOK_SECONDS)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows on stderr how far a download is: a bar on a terminal, else a few lines."""
    if not sys.stderr.isatty():
        yield _plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
    from rich.progress import Progress as Bar

    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("downloading {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("jars"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:

        def show(progress: Progress) -> None:
            if progress.name not in tasks:
                tasks[progress.name] = bar.add_task(progress.name, total=progress.total)
            bar.update(tasks[progress.name], completed=progress.done)
            if progress.done == progress.total:
                bar.remove_task(tasks.pop(progress.name))

        yield show


def _plain(progress: Progress) -> None:
    if progress.done in {0, progress.total}:
        click.echo(f"downloading {progress.name}: {progress.done} of {progress.total} jars", err=True)
