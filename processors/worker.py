"""Run a Faust app in this process: check its brokers, start, say what it reads, stop when told.

Faust's own worker takes over logging, standard output and signals; here the app is started as a service instead, with
what any number of workers on one machine need: a data folder each, no web server, the sensor, and a page that says
whether it gets on. Told to stop, it works off what its agents have begun, commits and leaves the group, within a
deadline: what is not committed by then is read again by whoever gets its partitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import math
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import faust
from aiohttp import web
from faust.contrib.asgi import bind_to_running_loop
from mode.threads import WorkerThread

import streamgauge.faust
from monitor.errors import StreamgaugeError, UsageError
from processors import brokers
from processors.progress import Progress, look
from streamgauge.faust import Reporter

log = logging.getLogger(__name__)

REPEAT_SECONDS = 10.0
"""How often the same event is logged again."""

EVENTS_KEPT = 1000
"""Different events told apart; some libraries put numbers into the event itself."""

STOP_SECONDS = 20.0
"""How long stopping may take: committing, flushing, leaving the group."""


LAST_SECONDS = 5.0
"""How long a worker that did not stop in time may take to end what is left; then the process ends as it is."""


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


class NotStoppedError(StreamgaugeError):
    """An app did not stop within the deadline."""

    exit_code = 70


@dataclass(frozen=True, slots=True)
class Conduct:
    """How a worker is run, beside the app itself.

    ``data`` is the folder in which it takes one for itself, None: the app's own; ``health`` is where it says whether it
    gets on, as host and port, None: nowhere; ``settings`` are Faust's, by name, that replace the app's.
    """

    data: Path | None = None
    health: tuple[str, int] | None = None
    patience_seconds: float = 300.0
    stop_seconds: float = STOP_SECONDS
    settings: Mapping[str, object] = field(default_factory=dict)


async def run(app: faust.App, say: Callable[[str], None], conduct: Conduct = Conduct()) -> None:
    """Run an app until SIGINT or SIGTERM; a second one ends the process at once.

    Raises:
        NotStoppedError: it did not stop within the deadline.
        UnreachableError: no broker answers when it starts.
        AppCrashedError: the app crashed.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop_once, loop, stop)
    await _unless_stopped(brokers.topics(app), stop)
    if not stop.is_set():
        with contextlib.ExitStack() as held:
            if conduct.data is not None:
                configure(app, {"datadir": held.enter_context(own_folder(conduct.data))})
            configure(app, {**conduct.settings, "web_enabled": False})  # it has no log-in, and its port is taken
            await _run(app, stop, say, conduct)


def configure(app: faust.App, settings: Mapping[str, object]) -> None:
    """Set Faust's settings of an app that has not started yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that topics and agents were declared before: none of these is used by then
        for name, value in settings.items():
            setattr(app.conf, name, value)


@contextlib.contextmanager
def own_folder(base: Path) -> Iterator[Path]:
    """Take the first folder ``worker-N`` that no running worker has, so that a restart finds its tables again.

    Raises:
        UsageError: the folder cannot be made or written.
    """
    try:
        for number in itertools.count():
            folder = base / f"worker-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            break
    except OSError as exc:
        problem = f"the data folder {base} cannot be used: {exc.strerror}: name another with --data"
        raise UsageError(problem) from exc
    try:
        yield folder
    finally:
        os.close(lock)  # the lock goes with it, as it does when the process is killed


async def _run(app: faust.App, stop: asyncio.Event, say: Callable[[str], None], conduct: Conduct) -> None:
    reporter = streamgauge.faust.install(app)
    reporter.outcomes = lambda: outcomes(app)
    bind_to_running_loop(app)
    app.finalize()
    health = None if conduct.health is None else await _serve_health(app, reporter, conduct)

    @app.on_partitions_assigned.connect
    async def tell(_app: Any, /, *args: Any, **_: Any) -> None:
        say(assignment(app, args[0]))

    try:
        await _unless_stopped(app.start(), stop)
        await _unless_stopped(app.wait_until_stopped(), stop)
    finally:
        await _stop(app, conduct.stop_seconds)
        if health is not None:
            await health.cleanup()
    if app.crash_reason is not None:
        raise AppCrashedError(crash_line(app, app.crash_reason)) from app.crash_reason


def outcomes(app: faust.App) -> dict[str, int]:
    """Return what became of the records that an app has read, if it counts that as ours do: a dataclass ``counts``."""
    counts = getattr(app, "counts", None)
    if not is_dataclass(counts) or isinstance(counts, type):
        return {}
    return {name: value for name, value in asdict(counts).items() if type(value) is int and value >= 0}


async def _stop(app: faust.App, seconds: float) -> None:
    """Stop an app.

    Raises:
        NotStoppedError: it does not stop in time.
    """
    if app.crashed:
        configure(app, {"stream_wait_empty": False})  # nobody works on what is in the streams any more
    deadline = time.monotonic() + seconds
    # In a task of its own: Faust cancels what it stops, at times the task that asked for it.
    stopping = asyncio.ensure_future(app.stop())
    await asyncio.wait({stopping}, timeout=seconds)
    in_time = stopping.done()
    if not in_time:
        stopping.cancel()
    elif not app.crashed:
        stopping.result()
    for thread in threading.enumerate():
        # A crashed app does not wait for its consumer's thread, which then finds our event loop closed.
        if isinstance(thread, WorkerThread):
            await asyncio.to_thread(thread.join, max(0.0, deadline - time.monotonic()))
            in_time &= not thread.is_alive()
    if not in_time:
        # What does not let itself be cancelled must not keep the process either.
        last = threading.Timer(LAST_SECONDS, os._exit, (NotStoppedError.exit_code,))
        last.daemon = True
        last.start()
        problem = (
            f"the app {app.conf.id} did not stop within {seconds:g} s: what was not committed is read again "
            "(worker.stop_seconds in the settings allows for more)"
        )
        raise NotStoppedError(problem)


async def _serve_health(app: faust.App, reporter: Reporter, conduct: Conduct) -> web.AppRunner:
    """Answer GET /healthz: 200 while the worker gets on, else 503, with the reason and its report as JSON.

    Raises:
        UsageError: it cannot be listened there.
    """
    progress = Progress(conduct.patience_seconds)

    async def healthz(_: web.Request) -> web.Response:
        complaint = progress.complaint(look(app, reporter))
        body = {"ok": not complaint, "problem": complaint or None, "report": reporter.report()}
        return web.json_response(body, status=503 if complaint else 200)

    site = web.Application()
    site.router.add_get("/healthz", healthz)
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    host, port = conduct.health or ("127.0.0.1", 0)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as exc:
        await runner.cleanup()
        problem = f"--health {host}:{port}: it cannot be listened there: {exc.strerror or exc}"
        raise UsageError(problem) from exc
    return runner


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
