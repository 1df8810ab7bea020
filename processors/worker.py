"""Run a Faust app in this process: check its brokers, start, say what it reads, stop when told.

Faust's own worker takes over logging, standard output and signals; here the app is started as a service instead.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faust
from faust.contrib.asgi import bind_to_running_loop
from mode.threads import WorkerThread

from monitor.errors import StreamgaugeError
from processors import brokers

log = logging.getLogger(__name__)

REPEAT_SECONDS = 10.0
"""How often the same event is logged again."""

EVENTS_KEPT = 1000
"""Different events told apart; some libraries put numbers into the event itself."""

STOP_SECONDS = 20.0
"""How long stopping may take: committing, flushing, leaving the group."""


class OncePerInterval(logging.Filter):
    """Let one of many equal events through each ``seconds``, with the number of those held back.

    While a broker is away, its client logs some seventy lines a second that say so.
    """

    def __init__(self, seconds: float = REPEAT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the event is to be logged."""
        event, now = (record.name, str(record.msg)), self._clock()
        shown_at, held = self._seen.get(event, (-math.inf, 0))
        if now - shown_at < self._seconds:
            self._seen[event] = (shown_at, held + 1)
            return False
        if len(self._seen) >= EVENTS_KEPT:
            self._seen.clear()
        self._seen[event] = (now, 0)
        if held:
            record.msg, record.args = f"{record.getMessage()} ({held} more like it)", ()
        return True


class AppCrashedError(StreamgaugeError):
    """An app's own code raised what it should not."""

    exit_code = 70
    """EX_SOFTWARE of sysexits.h, as for every other fault in code."""


async def run(app: faust.App, say: Callable[[str], None]) -> None:
    """Run an app until SIGINT or SIGTERM; a second one ends the process at once.

    Raises:
        UnreachableError: no broker answers when it starts.
        AppCrashedError: the app crashed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop_once, loop, stop)
    await _unless_stopped(brokers.topics(app), stop)
    if not stop.is_set():
        await _run(app, stop, say)


async def _run(app: faust.App, stop: asyncio.Event, say: Callable[[str], None]) -> None:
    bind_to_running_loop(app)
    app.finalize()

    @app.on_partitions_assigned.connect
    async def tell(_app: Any, /, *args: Any, **_: Any) -> None:
        say(assignment(app, args[0]))

    try:
        await _unless_stopped(app.start(), stop)
        await _unless_stopped(app.wait_until_stopped(), stop)
    finally:
        await _stop(app)
    if app.crash_reason is not None:
        raise AppCrashedError(crash_line(app, app.crash_reason)) from app.crash_reason


async def _stop(app: faust.App) -> None:
    if app.crashed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Faust has used the setting before is the point
            app.conf.stream_wait_empty = False  # nobody works on what is in the streams any more
    # In a task of its own: Faust cancels what it stops, at times the task that asked for it.
    stopping = asyncio.ensure_future(app.stop())
    await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    if not stopping.done():
        log.warning("app did not stop in time", extra={"app": app.conf.id, "seconds": STOP_SECONDS})
        stopping.cancel()
    elif not app.crashed:
        stopping.result()
    for thread in threading.enumerate():
        # A crashed app does not wait for its consumer's thread, which then finds our event loop closed.
        if isinstance(thread, WorkerThread):
            await asyncio.to_thread(thread.join, STOP_SECONDS)


def crash_line(app: faust.App, exc: BaseException) -> str:
    """Return a line saying what an app crashed with, and where."""
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"the app {app.conf.id} crashed: {type(exc).__name__}: {' '.join(str(exc).split())}{where}"


def assignment(app: faust.App, assigned: Iterable[Any]) -> str:
    """Return a line saying which partitions of the user's topics this worker reads."""
    internal = f"{app.conf.id}-"
    partitions: dict[str, list[int]] = {}
    for topic, partition in sorted(assigned):
        if not topic.startswith(internal):
            partitions.setdefault(topic, []).append(partition)
    parts = [f"{topic} {', '.join(map(str, numbers))}" for topic, numbers in partitions.items()]
    reads = f"reads {'; '.join(parts)}" if parts else "waits: no partitions are left for this worker"
    return f"{app.conf.id} {reads} (at {brokers.addresses(app)})"


async def _unless_stopped(work: Any, stop: asyncio.Event) -> None:
    """Await something until it is done or ``stop`` is set; raise what it raises."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        await working
    else:
        working.cancel()
        await asyncio.wait({working})


def _stop_once(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    stop.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
