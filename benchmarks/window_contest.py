"""Who processes windows in one worker process: one contestant a run, named on the command line.

Usage: python window_contest.py CONTESTANT BOOTSTRAP TOPIC RECORDS NAME

Each reads a topic of JSON records ``{"k": key, "at": seconds, "v": number}`` from its beginning and stops after a
number of records. It prints one line of JSON: seconds from its first record to its last, and the CPU seconds used in
between. What it writes is written by then.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

SIZE, STEP, GRACE = 300, 30, 30


class Clock:
    """From the first record to the last."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.seen = 0
        self._begun: tuple[float, float] | None = None

    def tick(self, count: int = 1) -> bool:
        """Count records; return whether that was the last."""
        if self._begun is None:
            self.begin()
        self.seen += count
        return self.seen >= self.records

    def begin(self) -> None:
        """Begin to measure."""
        self._begun = (time.monotonic(), time.process_time())

    def report(self) -> None:
        """Print what was measured."""
        begun = self._begun or (math.nan, math.nan)
        wall, cpu = time.monotonic() - begun[0], time.process_time() - begun[1]
        print(json.dumps({"records": self.seen, "wall_seconds": wall, "cpu_seconds": cpu}), flush=True)


def plain(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run a Faust agent as shipped that only decodes each record."""
    import faust

    app = faust.App(name, broker=f"kafka://{bootstrap}", **_options(name))

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))
    async def read(stream: Any) -> None:
        async for value in stream:
            json.loads(value)
            if clock.tick():
                done.set()

    done = asyncio.Event()
    asyncio.run(_run(app, done, clock))


def faust_hopping(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run a Faust agent with its own hopping table."""
    import faust

    app = faust.App(name, broker=f"kafka://{bootstrap}", **_options(name))
    table = app.Table("means", default=lambda: [0, 0.0]).hopping(SIZE, STEP, expires=SIZE + GRACE)
    table = table.relative_to_stream()

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))
    async def read(stream: Any) -> None:
        async for value in stream:
            record = json.loads(value)
            window = table[record["k"]]
            count, total = window.value()
            table[record["k"]] = [count + 1, total + record["v"]]
            if clock.tick():
                done.set()

    done = asyncio.Event()
    asyncio.run(_run(app, done, clock))


def ours(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run a declared job."""
    from processors.aggregates import mean
    from processors.job_app import JobApp
    from processors.pipeline import read

    job = (
        read(topic, name=name)
        .window(SIZE, STEP, grace=GRACE, at=lambda value: value["at"])
        .aggregate(mean(lambda value: value["v"]))
        .to(f"{name}-out")
    )

    class Timed(JobApp):
        async def _process(self, part: Any, records: Any) -> None:
            last = clock.tick(len(records))
            await super()._process(part, records)
            if last:
                done.set()

    done = asyncio.Event()
    app = Timed(job, bootstrap)
    asyncio.run(_run(app, done, clock, before_report=app.write_out))


def tumbling(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run a declared job with tumbling windows of one step."""
    global SIZE  # noqa: PLW0603  # one contestant a process
    SIZE = STEP
    ours(bootstrap, topic, clock, name)


def quix_hopping(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run Quix Streams' hopping windows; in the environment that it is installed in."""
    _quix(bootstrap, topic, clock, name, lambda frame: frame.hopping_window(SIZE * 1000, STEP * 1000, GRACE * 1000))


def quix_tumbling(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run Quix Streams' tumbling windows of one step."""
    _quix(bootstrap, topic, clock, name, lambda frame: frame.tumbling_window(STEP * 1000, GRACE * 1000))


def recovery(bootstrap: str, topic: str, clock: Clock, name: str) -> None:
    """Run a declared job from its start to its first record, before which all that is kept is read back."""
    clock.begin()
    ours(bootstrap, topic, clock, name)


def _quix(bootstrap: str, topic: str, clock: Clock, name: str, window: Callable[[Any], Any]) -> None:
    from quixstreams import Application

    app = Application(
        broker_address=bootstrap,
        consumer_group=name,
        auto_offset_reset="earliest",
        state_dir=f"{tempfile.gettempdir()}/{name}-{os.getpid()}",
        loglevel="WARNING",
    )

    def event_time(value: Any, _headers: Any, _timestamp: float, _kind: Any) -> int:
        if clock.tick():
            app.stop()
        return int(value["at"] * 1000)

    source = app.topic(topic, value_deserializer="json", timestamp_extractor=event_time)
    frame = window(app.dataframe(source).apply(lambda value: value["v"])).mean().final()
    frame.to_topic(app.topic(f"{name}-out"))
    app.run()
    clock.report()


def _options(name: str) -> dict[str, Any]:
    return {
        "store": "memory://",
        "web_enabled": False,
        "datadir": f"{tempfile.gettempdir()}/{name}-{os.getpid()}",
        "topic_partitions": 4,
    }


async def _run(app: Any, done: asyncio.Event, clock: Clock, before_report: Any = None) -> None:
    from faust.contrib.asgi import bind_to_running_loop

    bind_to_running_loop(app)
    app.finalize()
    starting = asyncio.ensure_future(app.start())
    waiting = asyncio.ensure_future(done.wait())
    crashing = asyncio.ensure_future(app.wait_until_stopped())
    await asyncio.wait({waiting, crashing}, return_when=asyncio.FIRST_COMPLETED)
    if not done.is_set():
        sys.exit(f"{app.conf.id} crashed: {app.crash_reason!r}")
    if before_report is not None:
        await before_report()
    await app.producer.flush()
    clock.report()
    sys.stdout.flush()
    starting.cancel()
    os._exit(0)  # what a clean stop takes is not asked here


CONTESTANTS = {
    each.__name__: each for each in (plain, faust_hopping, ours, tumbling, quix_hopping, quix_tumbling, recovery)
}

if __name__ == "__main__":
    contestant, brokers, source, count, own = sys.argv[1:]
    CONTESTANTS[contestant](brokers, source, Clock(int(count)), own)
