"""The two ways to run a pipeline: live until somebody ends it, or the check."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live

from monitor.demo.boards import Boards
from monitor.demo.check import Check
from monitor.demo.client import MonitorClient, Report
from monitor.demo.pipeline import FULL_SPEED, RATE, SLOW_SPEED, Pipeline
from monitor.demo.table import block, facts, screen
from monitor.sandbox.loads import Consumer

SCREEN_SECONDS = 1.0
BLOCK_SECONDS = 5.0
"""Time between two blocks where there is no terminal to redraw."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the schedule: how many records a second the group shipping reads at most, and for how long."""

    speed: float
    seconds: float
    text: str


SCHEDULE = (
    Phase(SLOW_SPEED, 25.0, f"slowed to {SLOW_SPEED:g} records a second, its lag rises"),
    Phase(FULL_SPEED, 20.0, "at full speed, its lag falls"),
)


class Schedule:
    """Slows a consumer and lets it go again, in turn and for ever."""

    def __init__(self, consumer: Consumer, phases: Sequence[Phase] = SCHEDULE) -> None:
        self._consumer = consumer
        self._phases = itertools.cycle(phases)
        self._phase = phases[0]
        self._until: float | None = None

    def step(self, now: float) -> str:
        """Set the speed that is due at ``now`` (seconds of a monotonic clock) and return a line about it."""
        if self._until is None or now >= self._until:
            self._phase = next(self._phases)
            self._until = now + self._phase.seconds
            self._consumer.slow_down(self._phase.speed)
        return f"{self._consumer.group} is {self._phase.text} ({self._until - now:.0f} s more)"


async def live(pipeline: Pipeline, console: Console) -> None:
    """Start the pipeline and show its table until cancelled.

    Raises:
        StreamgaugeError: something that everything else needs does not start, or ends.
    """
    async with _running(pipeline, console), MonitorClient(pipeline.url) as client:
        await Boards(pipeline.stage, pipeline.folder, pipeline.url, os.environ).start()
        console.print(f"\nStatus page: {pipeline.url}    Ctrl-C ends the demo.", highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            with Live(console=console, auto_refresh=False) as view:
                await _show(
                    pipeline, client, console, SCREEN_SECONDS, lambda *said: view.update(screen(*said), refresh=True)
                )
        else:
            await _show(pipeline, client, console, BLOCK_SECONDS, lambda *said: print_plain(console, block(*said)))


async def check(pipeline: Pipeline, console: Console) -> bool:
    """Start the pipeline, run the scripted scenario, and return whether everything that was said was true.

    Raises:
        StreamgaugeError: something that everything else needs does not start, or ends.
    """
    async with _running(pipeline, console), MonitorClient(pipeline.url) as client:
        return await Check(pipeline, client, lambda text: print_plain(console, text)).run()


def print_plain(console: Console, text: str) -> None:
    """Print lines as they are: no colours, no wrapping, nothing read as markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.asynccontextmanager
async def _running(pipeline: Pipeline, console: Console) -> AsyncIterator[None]:
    """Start a pipeline, and stop it whatever happens."""
    try:
        with console.status("") as status:
            pipeline.stage.on_change = lambda names: status.update(f"starting {', '.join(names)}")
            await pipeline.start()
        yield
    finally:
        await pipeline.stop()


async def _show(
    pipeline: Pipeline,
    client: MonitorClient,
    console: Console,
    every_seconds: float,
    draw: Callable[[Report, list[str]], None],
) -> None:
    """Draw the report again and again, until cancelled."""
    schedule = Schedule(pipeline.shipping)
    while True:
        for text in pipeline.ended():
            print_plain(console, text)
        below = [
            f"load: {RATE:g} records a second, {sum(pipeline.producer.sent):,} so far",
            schedule.step(time.monotonic()),
        ]
        report = await client.report(partitions=False)
        if report is not None:
            draw(report, [*facts(report), *below])
        await asyncio.sleep(every_seconds)
