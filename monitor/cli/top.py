"""``streamgauge top``: the consumers live, the gravest first, on one screen."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from monitor.cli.options import Where, is_debug, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType
    from rich.live import Live

    from monitor.model import Report
    from monitor.service import Monitor
    from monitor.settings import Settings

EXIT_TERMINATED = 128 + signal.SIGTERM


@click.command()
@settings_options
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Time between cycles, instead of the settings'.",
)
@click.option("-n", "--cycles", type=click.IntRange(min=1), metavar="N", help="Stop after N cycles of every cluster.")
def top(where: Where, interval: float | None, cycles: int | None) -> int | None:
    """Show live how late every consumer is, the gravest first.

    One screen until Ctrl-C. Into a pipe or a file it prints a block each cycle instead.
    """
    from monitor.cli.logs import log_for_results
    from monitor.cli.settings_file import find_settings

    settings = find_settings(where).settings
    log_for_results(debug=is_debug())
    return asyncio.run(_run(paced(settings, interval), cycles))


def paced(settings: Settings, interval: float | None) -> Settings:
    """Return the settings with this interval for every cluster, where one is given."""
    if interval is None:
        return settings
    clusters = tuple(each.model_copy(update={"interval_seconds": interval}) for each in settings.clusters)
    return settings.model_copy(update={"clusters": clusters})


async def _run(settings: Settings, cycles: int | None) -> int | None:
    """Watch until the cycles are over (None), or until SIGTERM; either way the terminal is left as it was."""
    from monitor.service import Monitor

    watching = asyncio.ensure_future(watch(Monitor(settings), cycles))
    terminated = asyncio.Event()

    def terminate() -> None:
        terminated.set()
        watching.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        await watching
    except asyncio.CancelledError:
        if not terminated.is_set():
            raise  # Ctrl-C: asyncio.run makes KeyboardInterrupt of it
        return EXIT_TERMINATED
    return None


async def watch(monitor: Monitor, cycles: int | None) -> None:
    """Show each cycle's report until this many are over.

    Raises:
        UnreachableError: No cluster answers at the start.
    """
    try:
        await monitor.check()
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console()
            with Live(console=console, screen=True, auto_refresh=False) as live:
                await _cycle(monitor, cycles, lambda: _draw(live, console, monitor))
        else:
            await _cycle(monitor, cycles, lambda: _print_block(monitor))
    finally:
        await monitor.close()


async def _cycle(monitor: Monitor, cycles: int | None, show: Callable[[], None]) -> None:
    """Run the monitor and show what it has after each cycle of a cluster; all clusters count as one once each ran."""
    enough = asyncio.Event()
    published = 0

    async def publish() -> None:
        nonlocal published
        if monitor.is_complete():
            show()
        published += 1
        if cycles is not None and published >= cycles * len(monitor.clusters):
            enough.set()

    watching = asyncio.ensure_future(monitor.watch(publish))
    stopping = asyncio.ensure_future(enough.wait())
    try:
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching  # it ends only by an exception: this raises it
    finally:
        for task in (watching, stopping):
            task.cancel()
        await asyncio.gather(watching, stopping, return_exceptions=True)


# --- one screen -------------------------------------------------------------------------------------------


def _draw(live: Live, console: Console, monitor: Monitor) -> None:
    live.update(screen(monitor.report(), blind(monitor), console.height), refresh=True)


def blind(monitor: Monitor) -> list[str]:
    """Return the clusters whose last cycle broke, so that they have no report."""
    return [each.cluster.name for each in monitor.clusters if each.tried and each.report is None]


def screen(report: Report, broken: Sequence[str], height: int) -> RenderableType:
    """Return the report as one screen: a status line, the gravest consumers that fit, what failed and was found."""
    from rich.console import Group
    from rich.text import Text

    from monitor.cli.consumers import abandoned_topics, choose, consumer_table, failure_lines, findings
    from monitor.cli.output import count_text, rich_table

    rows = choose(report, ())
    notes = [*failure_lines(report), *findings(report, rows), *abandoned_topics(rows)][: max(1, height // 4)]
    room = max(1, height - len(notes) - 4)  # status, blank, heading, and how many do not fit
    lines: list[RenderableType] = [Text(status(report, broken), "bold"), Text()]
    if rows:
        lines.append(rich_table(consumer_table(rows[:room])))
    if len(rows) > room:
        lines.append(Text(f"and {count_text(len(rows) - room)} more, none graver", "dim"))
    return Group(*lines, *(Text(line, "yellow", no_wrap=True, overflow="ellipsis") for line in notes))


def status(report: Report, broken: Sequence[str]) -> str:
    """Return one line about every cluster, with the time of its report."""
    from monitor.cli.output import plural, printable

    parts = [
        f"{printable(cluster.name)} {'up' if cluster.up else 'DOWN'} {_clock(cluster.at)}, "
        f"{plural(len(cluster.positions.layout.consumers), 'consumer')}"
        for cluster in report.clusters
    ]
    return "   ".join([*parts, *(f"{printable(name)} FAILED: see streamgauge --debug top" for name in broken)])


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _print_block(monitor: Monitor) -> None:
    from monitor.cli.consumers import choose, consumer_table, failure_lines
    from monitor.cli.output import complain_each, plain_lines

    report = monitor.report()
    rows = choose(report, ())
    table = plain_lines(consumer_table(rows)) if rows else []
    click.echo("\n".join([status(report, blind(monitor)), *table, ""]))
    sys.stdout.flush()  # a block a cycle, also through a pipe
    complain_each(failure_lines(report))
