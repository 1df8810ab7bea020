"""What ``streamgauge.faust.install`` costs a Faust agent that does nothing, which is when a sensor costs most.

One worker reads from a real broker, and every BLOCK records the sensor is taken out or put back in. Blocks without it
give the CPU time of a record. What the sensor adds is taken two ways:

- ``overhead_plain``: the calls that Faust makes for a record, timed by themselves with the sensor and without, and its
  report every five seconds, as share of that CPU time;
- ``overhead_plain_in_place``: blocks with it against those around them. It holds whatever else the sensor may do to
  the app, and on a machine with other work it is known only within its ``_error``.

Commits are out of the way, as sensors must not come and go within one.

``overhead_fast`` is for declared jobs, whose batches go past Faust's streams and are reported a chunk at a time: the
CPU time of that report by that of working on the chunk (decoding and a window), fetching and sending left out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from typing import Any

import faust
from aiokafka.structs import ConsumerRecord
from confluent_kafka import Producer
from faust.contrib.asgi import bind_to_running_loop
from faust.sensors import Sensor
from faust.types import TP

import streamgauge.faust
from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.loads import create_topics
from processors.aggregates import mean
from processors.job_app import CHUNK, JobApp, record_of
from processors.pipeline import read

BLOCK = 500
PAIRS = 500
WARM_UP = 5 * BLOCK
TOPIC = "sensor-bench"
PARTITIONS = 4
VALUE = b'{"sensor": "s-17", "temperature": 21.5, "at": 1795000000.123}'


class Meter:
    """Takes the sensor in and out, and the CPU time of each block."""

    def __init__(self, app: faust.App) -> None:
        self.blocks: list[float] = []
        self.done = asyncio.Event()
        self._app = app
        self._sensor = streamgauge.faust.install(app)
        self._is_in = True
        self._seen = -WARM_UP
        self._since = 0.0

    def note(self) -> None:
        """Count a record."""
        self._seen += 1
        if self._seen >= 0 and self._seen % BLOCK == 0:
            now = time.process_time()
            if self._seen:
                self.blocks.append(now - self._since)
            self._switch()
            self._since = time.process_time()

    def overheads(self) -> list[float]:
        """Return by how much each block with the sensor took longer than those around it; the first one is without."""
        without, having = self.blocks[0::2], self.blocks[1::2]
        around = [(before + after) / 2 for before, after in itertools.pairwise(without)]
        return [one / other - 1 for one, other in zip(having, around, strict=False)]

    def _switch(self) -> None:
        if len(self.blocks) >= 2 * PAIRS:
            self.done.set()
        elif self._is_in:
            self._app.sensors.remove(self._sensor)
        else:
            self._app.sensors._sensors.add(self._sensor)  # noqa: SLF001 - add() would make a new beacon each time
        self._is_in = not self._is_in


async def measure(bootstrap: str, folder: str) -> Meter:
    """Run an agent over all records."""
    app = faust.App(
        "sensor-bench",
        broker=f"kafka://{bootstrap}",
        web_enabled=False,
        datadir=folder,
        broker_commit_interval=3600.0,
        consumer_auto_offset_reset="earliest",
    )
    meter = Meter(app)
    raw: dict[str, Any] = {"value_type": bytes, "value_serializer": "raw"}

    @app.agent(app.topic(TOPIC, **raw))
    async def nothing(stream: Any) -> None:
        async for _ in stream:
            meter.note()

    bind_to_running_loop(app)
    app.finalize()
    await app.start()
    await meter.done.wait()
    app.conf.stream_wait_empty = False
    await app.stop()
    return meter


CALLS = 100_000
ROUNDS = 7


class Stream:
    """What a sensor looks at of a stream."""

    prefix = "nothing"

    def get_root_stream(self) -> Stream:
        """Return itself."""
        return self


def calls_seconds(app: faust.App) -> float:
    """Return the CPU time of what Faust calls for one record, by all sensors of an app: the quickest round."""
    sensors: Any = app.sensors
    stream, at = Stream(), TP(TOPIC, 0)
    spent = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for offset in range(CALLS):
            sensors.on_message_in(at, offset, None)
            state = sensors.on_stream_event_in(at, offset, stream, None)
            sensors.on_stream_event_out(at, offset, stream, None, state)
            sensors.on_message_out(at, offset, None)
        spent.append((time.process_time() - begun) / CALLS)
    return min(spent)


def sensor_seconds() -> tuple[float, float]:
    """Return the CPU time that the sensor adds to a record, and that of making a report."""
    app = faust.App("sensor-calls", web_enabled=False)
    app.sensors.add(Sensor())  # Faust has its own monitor there, so that the loop over sensors is paid for already
    before = calls_seconds(app)
    sensor = streamgauge.faust.install(app)
    added = calls_seconds(app) - before
    begun = time.process_time()
    for _ in range(100):
        json.dumps(sensor.report())
    return added, (time.process_time() - begun) / 100


def fast_seconds() -> tuple[float, float]:
    """Return the CPU time of a record in a declared job without the sensor, and what reporting adds to it."""
    job = (
        read("readings", name="sensor-fast")
        .window(300, 30, at=lambda value: float(value["at"]))
        .aggregate(mean(lambda value: float(value["temperature"])))
        .to("averages")
    )
    app = JobApp(job, "127.0.0.1:1")
    (part,) = app._parts  # noqa: SLF001 - what a worker calls is what is measured
    messages = [
        ConsumerRecord("readings", 0, offset, 1_795_000_000_000, 0, b"s-17", VALUE, None, 4, len(VALUE), ())
        for offset in range(CALLS)
    ]
    begun = time.process_time()
    for message in messages:
        part.process(record_of(message))
    worked = (time.process_time() - begun) / CALLS
    spent = []
    for _ in range(2):
        begun = time.process_time()
        for first in range(0, CALLS, CHUNK):
            app._report(part, messages[first : first + CHUNK], 0.01, 0)  # noqa: SLF001 - as above
        spent.append((time.process_time() - begun) / CALLS)
        streamgauge.faust.install(app)
    return worked, spent[1] - spent[0]


async def main() -> None:
    """Measure and print."""
    sandbox = KafkaSandbox()
    await sandbox.start()
    try:
        await create_topics(sandbox.bootstrap, {TOPIC: PARTITIONS, streamgauge.faust.TOPIC: 1})
        producer = Producer({"bootstrap.servers": sandbox.bootstrap, "queue.buffering.max.messages": 1_000_000})
        for number in range(WARM_UP + BLOCK * (2 * PAIRS + 20)):
            producer.produce(TOPIC, VALUE, partition=number % PARTITIONS)
        producer.flush()
        with tempfile.TemporaryDirectory() as folder:
            meter = await measure(sandbox.bootstrap, folder)
    finally:
        await sandbox.stop()
    overheads = meter.overheads()
    error = 1.25 * statistics.stdev(overheads) / math.sqrt(len(overheads))  # standard error of a median
    plain = statistics.median(meter.blocks[0::2]) / BLOCK
    added, report = sensor_seconds()
    share = added / plain + report / streamgauge.faust.INTERVAL_SECONDS
    print(f"sensor.overhead_plain: {100 * share:.2f} %")
    print(f"sensor.overhead_plain_in_place: {100 * statistics.median(overheads):.2f} %")
    print(f"sensor.overhead_plain_in_place_error: {100 * error:.2f} %")
    worked, told = fast_seconds()
    print(f"sensor.overhead_fast: {100 * (told / worked + report / streamgauge.faust.INTERVAL_SECONDS):.2f} %")
    print(f"sensor.per_record: {1e6 * added:.2f} us")
    print(f"sensor.per_report: {1e6 * report:.0f} us")
    print(f"sensor.plain_per_record: {1e6 * plain:.1f} us")
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
