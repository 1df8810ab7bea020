"""The last hour or so of every consumer in a few columns: what sparklines are drawn from.

Kept: lag in records and in seconds of each consumer, and the last micro-batch's duration of Spark queries, for the
last ``CYCLES`` cycles of each cluster. What was unknown in a cycle stays a gap, and a consumer that is gone is dropped.
Values are float64 (exact for counts up to 2**53), NaN where unknown; 2,000 consumers take 3 MB.

A window is never changed, only replaced: whoever reads one in another thread reads it whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np

from monitor.model import ClusterReport, Consumer, Floats, Kind, Report

CYCLES = 60
"""Cycles that are kept: 10 minutes at one every 10 s, about as many points as a sparkline has pixels."""

Object = dict[str, object]


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """The last cycles of a cluster: ``values[name][consumer, cycle]``, oldest first."""

    consumers: tuple[Consumer, ...]
    at: Floats
    values: Mapping[str, Floats]


class Trail:
    """Bounded memory of what was published. ``note`` is called once a publish, by one thread at a time."""

    def __init__(self) -> None:
        self._windows: Mapping[str, _Window] = MappingProxyType({})

    def note(self, report: Report) -> None:
        """Remember the clusters that have been read anew since the last call."""
        windows = dict(self._windows)
        for cluster in report.clusters:
            before = windows.get(cluster.name)
            if before is None or before.at[-1] != cluster.at:
                windows[cluster.name] = _with_cycle(before, cluster)
        self._windows = MappingProxyType(windows)

    def as_json(self, since: float | None = None) -> Object:
        """Return every cluster's cycles after ``since`` (seconds since the epoch), or all that are kept."""
        return {"clusters": [_window_json(name, window, since) for name, window in self._windows.items()]}


def _with_cycle(before: _Window | None, cluster: ClusterReport) -> _Window:
    consumers, columns = cluster.positions.layout.consumers, cluster.consumers
    batch_seconds = np.full(len(consumers), np.nan)
    for index, facts in cluster.spark.items():
        if facts.last_batch_duration_seconds is not None:
            batch_seconds[index] = facts.last_batch_duration_seconds
    values = {
        "lag_records": np.where(columns.lag_records >= 0, columns.lag_records, np.nan),
        "lag_seconds": columns.lag_seconds,
        "batch_duration_seconds": batch_seconds,
    }
    if before is None:
        return _Window(consumers, np.array([cluster.at]), {name: value[:, None] for name, value in values.items()})
    kept = {name: _moved(past, before.consumers, consumers) for name, past in before.values.items()}
    return _Window(
        consumers,
        np.append(before.at, cluster.at)[-CYCLES:],
        {name: np.column_stack((kept[name], value))[:, -CYCLES:] for name, value in values.items()},
    )


def _moved(past: Floats, old: tuple[Consumer, ...], new: tuple[Consumer, ...]) -> Floats:
    """Return the rows of ``past`` in the order of the new consumers, a gap for those that are new."""
    if new is old or new == old:
        return past
    number = {consumer: index for index, consumer in enumerate(old)}
    was = np.array([number.get(consumer, len(old)) for consumer in new], np.int64)
    return np.vstack((past, np.full(past.shape[1], np.nan)))[was]


def _window_json(name: str, window: _Window, since: float | None) -> Object:
    times = [_time(at) for at in window.at]
    # As text, in milliseconds like the times that were given out: such text sorts as the times do.
    first = 0 if since is None else bisect_right(times, _time(since))
    records = _with_gaps(window.values["lag_records"][:, first:], digits=None)
    seconds = _with_gaps(window.values["lag_seconds"][:, first:], digits=3)
    batches = _with_gaps(window.values["batch_duration_seconds"][:, first:], digits=3)
    rows = zip(window.consumers, records, seconds, batches, strict=True)
    return {
        "name": name,
        "at": times[first:],
        "consumers": [
            {"kind": who.kind.value, "name": who.name, "lag_records": lag, "lag_seconds": age}
            | ({"batch_duration_seconds": batch} if who.kind is Kind.SPARK else {})
            for who, lag, age, batch in rows
        ],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _with_gaps(values: Floats, digits: int | None) -> list[list[float | None]]:
    unknown = np.isnan(values)
    known = np.where(unknown, 0, values)
    cells = (known.astype(np.int64) if digits is None else np.round(known, digits)).astype(object)
    cells[unknown] = None
    rows: list[list[float | None]] = cells.tolist()
    return rows
