"""The agent on sensor readings: parse, filter, average by window, publish.

It reads raw bytes and parses them itself, because Faust skips what it cannot decode. The key of a record is its
sensor, so that all readings of a sensor are in one partition, as its table entry has to be.

Of each reading that counts, the new average of its window is published: the last record of a sensor and start is
the final one. Faust flushes results before it commits, so a crash repeats readings rather than losing them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faust
from mode.supervisors import CrashingSupervisor

from processors.agents import panes
from processors.agents.reading import BadRecord, Reading, average_record, is_sensible, parse
from streamgauge.faust import reporter

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What became of the records this worker has read."""

    averaged: int = 0
    bad: int = 0
    filtered: int = 0
    late: int = 0

    def __str__(self) -> str:
        return (
            f"{self.averaged} averaged, {self.bad} bad ones sent to the dead letters, "
            f"{self.filtered} out of range, {self.late} too late"
        )


def attach(app: faust.App, *, topic: str, results: str, dead_letters: str) -> Counts:
    """Add the agent, its topics and its table to an app; return its counts."""
    counts = Counts()
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    readings = app.topic(topic, allow_empty=True, **raw)
    averages = app.topic(results, key_type=bytes, key_serializer="raw", value_serializer="json")
    letters = app.topic(dead_letters, allow_empty=True, **raw)
    panes_of = app.Table("averages", default=list)

    # Faust would otherwise start a failing agent anew behind the record, for ever: records lost, and looking well.
    @app.agent(readings, name="readings", supervisor_strategy=CrashingSupervisor)
    async def average(stream: Any) -> None:
        for produced in (averages, letters):
            await produced.maybe_declare()
        async for event in stream.events():
            match parse(event.value):
                case BadRecord(reason):
                    counts.bad += 1
                    if (sensor := reporter(app)) is not None:
                        sensor.note_errors("readings", topic, 1)
                    log.info("bad record", extra={"reason": reason, **_where(event.message)})
                    letter = await letters.send(
                        key=event.key, value=event.value, headers=_headers(event.message, reason)
                    )
                    await letter
                case Reading() as reading if is_sensible(reading, event.message.timestamp):
                    changed = average_of(reading)
                    if changed is None:
                        counts.late += 1
                    else:
                        counts.averaged += 1
                        record = average_record(reading.sensor, changed, panes.WINDOW_SECONDS)
                        await averages.send(key=reading.sensor.encode(), value=record)
                case Reading():
                    counts.filtered += 1

    def average_of(reading: Reading) -> panes.Pane | None:
        added = panes.add(
            panes.from_json(panes_of[reading.sensor]),
            reading.at,
            reading.temperature,
            size=panes.WINDOW_SECONDS,
            keep=panes.KEEP_SECONDS,
        )
        if added is None:
            return None
        kept, changed = added
        panes_of[reading.sensor] = panes.to_json(kept)
        return changed

    return counts


def _where(message: Any) -> dict[str, object]:
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset}


def _headers(message: Any, reason: str) -> Mapping[str, bytes]:
    """Return what a dead letter says of itself: why it is one, and which record it was."""
    return {"reason": reason.encode(), **{name: str(value).encode() for name, value in _where(message).items()}}
