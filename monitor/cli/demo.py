"""``streamgauge demo``: a real pipeline on this machine, live or checked."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from monitor.cli.options import debug_option, is_debug

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from monitor.demo.pipeline import Pipeline

EXIT_UNTRUE = 1
EXIT_INTERRUPTED = 130


@click.command()
@click.option("--check", is_flag=True, help="Run the scripted scenario instead, and compare with the loads' counts.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port of the status page; 0: a free one. Without it: 9760, or the next free one.",
)
@debug_option
def demo(check: bool, port: int | None) -> int:
    """Start a real pipeline and show its true lag.

    An embedded Kafka, a load, two consumer groups, a Faust app, a Spark query (on a Java 17 or later; left out without
    one) and the monitor, until Ctrl-C. One group is slowed on schedule, so that its lag rises and falls. With --check
    it ends by itself: readers stand still, records are counted, and a verdict a line says whether the monitor knew.

    Exit: 0 fine; 1 with --check, something the monitor said was not true; 3 something could not be started.
    """
    from rich.console import Console

    from monitor.demo.pipeline import Pipeline
    from monitor.demo.run import print_plain
    from monitor.sandbox.jars import Progress

    console = Console()

    def show_progress(progress: Progress) -> None:
        if progress.done % max(1, progress.total // 4) == 0 or progress.done == progress.total:
            print_plain(console, f"download {progress.name}: {progress.done} of {progress.total} jars")

    pipeline = Pipeline(lambda text: print_plain(console, text), port=port, progress=show_progress)
    if not is_debug():
        log_to_file(pipeline.folder / "demo.log")
    return asyncio.run(_until_told(pipeline, console, check=check))


def log_to_file(path: Path) -> None:
    """Log warnings to a file: the screen belongs to the table."""
    import logging

    from monitor.cli.logs import log_to_stderr

    log_to_stderr("warning", as_json=False)
    (shown,) = logging.getLogger().handlers
    kept = logging.FileHandler(path, encoding="utf-8")
    kept.setFormatter(shown.formatter)
    logging.getLogger().handlers[:] = [kept]


async def _until_told(pipeline: Pipeline, console: Console, *, check: bool) -> int:
    """Run until it is over or a signal comes, and return the exit code."""
    from monitor.demo import run

    running = asyncio.current_task()
    assert running is not None  # noqa: S101 - we are in it
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        # Only the first signal counts: the stopping it starts must not be interrupted halfway.
        if not told.is_set():
            told.set()
            running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    try:
        if check:
            return 0 if await run.check(pipeline, console) else EXIT_UNTRUE
        await run.live(pipeline, console)
    except asyncio.CancelledError:
        if not told.is_set():
            raise
        return EXIT_INTERRUPTED if check or not pipeline.is_started else 0
    return 0
