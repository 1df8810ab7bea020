"""The JSON records on the monitor's own topics, made and read: samples of lag, and what they were rolled up to.

A *sample* (topic ``streamgauge.lag``) is what one cycle said of one consumer, a *rollup* (``streamgauge.rollups``)
what the samples of one window say of it. Both have null where something is unknown. Whoever may write to a topic
decides what is in a record: what does not follow the schema is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA = 1

LAG_TOPIC = "streamgauge.lag"
ROLLUPS_TOPIC = "streamgauge.rollups"

KEPT_SECONDS = {60: 86_400, 3_600: 28 * 86_400, 86_400: 400 * 86_400}
"""Sizes of windows in seconds, and for how long each is kept."""

LARGEST = 10_000
"""Bytes of a record: names of Kafka's have 249 characters at most, and those of groups 32,767 in theory."""


class RefusedError(Exception):
    """A record does not follow its schema."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One cycle's word on one consumer; ``at`` in seconds since the epoch, rates in records per second."""

    at: float
    cluster: str
    kind: str
    name: str
    health: str
    lag_records: int | None
    lag_seconds: float | None
    objective_seconds: float
    over_objective: bool | None
    records_in_per_second: float | None
    records_out_per_second: float | None

    @property
    def key(self) -> str:
        """Return the key of its record."""
        return f"{self.cluster}/{self.kind}/{self.name}"

    def to_json(self) -> bytes:
        """Return its record."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Rollup:
    """What the samples of a window say: ``samples`` in all, of each figure those that knew it.

    ``within_objective`` is the share of the samples that knew whether the objective was kept (0 to 1). ``final``: the
    window is over; one that is not is replaced by a later record of the same key.
    """

    cluster: str
    kind: str
    name: str
    window_seconds: int
    start: int
    final: bool
    samples: int
    lag_records_known: int
    lag_records_max: int | None
    lag_records_mean: float | None
    lag_seconds_known: int
    lag_seconds_max: float | None
    lag_seconds_mean: float | None
    records_in_per_second: float | None
    records_out_per_second: float | None
    objective_known: int
    within_objective: float | None

    @property
    def key(self) -> str:
        """Return the key of its record."""
        return rollup_key(f"{self.cluster}/{self.kind}/{self.name}", self.window_seconds, self.start)

    def to_json(self) -> bytes:
        """Return its record."""
        told = {"schema": SCHEMA, **asdict(self), "end": self.start + self.window_seconds}
        return json.dumps(told, allow_nan=False, separators=(",", ":")).encode()


def rollup_key(consumer: str, window_seconds: int, start: int) -> str:
    """Return the key of a rollup's record; ``consumer`` is the key of its samples."""
    return f"{consumer}|{window_seconds}|{start}"


def read_sample(value: bytes | None) -> Sample:
    """Return the sample that a record holds.

    Raises:
        RefusedError: it holds none.
    """
    told = _object(value)
    return _made(
        lambda: Sample(
            at=_number(told["at"]),
            cluster=_text(told["cluster"]),
            kind=_text(told["kind"]),
            name=_text(told["name"]),
            health=_text(told["health"]),
            lag_records=_or_none(_count, told["lag_records"]),
            lag_seconds=_or_none(_number, told["lag_seconds"]),
            objective_seconds=_number(told["objective_seconds"]),
            over_objective=_or_none(_flag, told["over_objective"]),
            records_in_per_second=_or_none(_number, told["records_in_per_second"]),
            records_out_per_second=_or_none(_number, told["records_out_per_second"]),
        )
    )


def read_rollup(value: bytes | None) -> Rollup:
    """Return the rollup that a record holds.

    Raises:
        RefusedError: it holds none.
    """
    told = _object(value)
    return _made(
        lambda: Rollup(
            cluster=_text(told["cluster"]),
            kind=_text(told["kind"]),
            name=_text(told["name"]),
            window_seconds=_count(told["window_seconds"]),
            start=_count(told["start"]),
            final=_flag(told["final"]),
            samples=_count(told["samples"]),
            lag_records_known=_count(told["lag_records_known"]),
            lag_records_max=_or_none(_count, told["lag_records_max"]),
            lag_records_mean=_or_none(_number, told["lag_records_mean"]),
            lag_seconds_known=_count(told["lag_seconds_known"]),
            lag_seconds_max=_or_none(_number, told["lag_seconds_max"]),
            lag_seconds_mean=_or_none(_number, told["lag_seconds_mean"]),
            records_in_per_second=_or_none(_number, told["records_in_per_second"]),
            records_out_per_second=_or_none(_number, told["records_out_per_second"]),
            objective_known=_count(told["objective_known"]),
            within_objective=_or_none(_number, told["within_objective"]),
        )
    )


def _object(value: bytes | None) -> Mapping[str, Any]:
    if value is None or len(value) > LARGEST:
        raise RefusedError("empty, or larger than is taken")
    try:
        told = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise RefusedError("not JSON") from exc
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise RefusedError("of a schema that is not known here")
    return told


def _made(make: Callable[[], T]) -> T:
    try:
        return make()
    except (KeyError, TypeError, ValueError) as exc:
        raise RefusedError("a field is missing or of another kind") from exc


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise TypeError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise TypeError(value)
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _or_none(read: Any, value: Any) -> Any:
    return None if value is None else read(value)
