"""What happens to a reading, as values: parse, filter, and the record of an average. No Faust, no clock, no I/O.

A reading is JSON, ``{"sensor": "s-17", "temperature": 21.4, "at": 1795000000.123}``; ``at`` is when it was measured,
in seconds since the epoch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from processors.agents.panes import Pane

COLDEST, HOTTEST = -90.0, 60.0
"""Air temperatures in degrees Celsius beyond which a sensor is broken (measured on Earth: -89.2 and 56.7)."""

AHEAD_SECONDS = 60.0
"""How much later than its record a reading may say it was measured: clocks differ. One from far in the future would
end all open windows of its sensor."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement: degrees Celsius, seconds since the epoch."""

    sensor: str
    temperature: float
    at: float


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is no reading, and why."""

    reason: str


def parse(value: bytes | None) -> Reading | BadRecord:
    """Parse a record's value."""
    try:
        fields = json.loads(value or b"")
    except (ValueError, RecursionError):
        return BadRecord("not JSON")
    if not isinstance(fields, dict):
        return BadRecord("not a JSON object")
    sensor = fields.get("sensor")
    if not isinstance(sensor, str) or not sensor:
        return BadRecord("sensor is not a name")
    temperature, at = _number(fields.get("temperature")), _number(fields.get("at"))
    if temperature is None:
        return BadRecord("temperature is not a number")
    if at is None or at < 0:
        return BadRecord("at is not a time")
    return Reading(sensor, temperature, at)


def is_sensible(reading: Reading, record_at: float) -> bool:
    """Return whether a reading can be true; ``record_at`` is its record's timestamp in seconds since the epoch."""
    return COLDEST <= reading.temperature <= HOTTEST and reading.at <= record_at + AHEAD_SECONDS


def average_record(sensor: str, pane: Pane, size: int) -> dict[str, object]:
    """Return what is published of a window: ``end`` is exclusive, a later record of the same window replaces it."""
    return {
        "sensor": sensor,
        "start": pane.start,
        "end": pane.start + size,
        "count": pane.count,
        "average": pane.average,
    }


def _number(value: object) -> float | None:
    """Return a finite number as float; None for anything else (true and false are numbers in Python only)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
