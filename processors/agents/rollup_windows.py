"""Samples of one consumer in windows of a minute, an hour and a day: values, no Faust, no clock, no I/O.

    state, due = add(state, offset, sample)

``due`` is what is to be written because of a sample: each window that it ended, and once a minute the hour and the day
as they are so far. A window that is written for good is followed by the removal of the one that falls out of what is
kept (``monitor.records.KEPT_SECONDS``), so that a topic holds as much of each size as it should.

The state is a few numbers a window, as JSON keeps them in a table. It knows the last sample in it, so that one that
comes again changes nothing; what was due is to be written before the state is, or it could be lost. Windows go by the
samples' own times; a sample older than the window that is open is left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from monitor.records import KEPT_SECONDS, Rollup, Sample, rollup_key

State = Mapping[str, Any]
"""``{"offset": …, "at": …, "windows": {"60": {"start": …, …}}}``, the first two the last sample's; empty at first."""

FIGURES = ("lag_records", "lag_seconds", "records_in_per_second", "records_out_per_second")
SIZES = tuple(KEPT_SECONDS)
SHORTEST = SIZES[0]


class Due(NamedTuple):
    """A record to be written: a rollup under its key, or the removal of one."""

    key: str
    rollup: Rollup | None


def add(state: State, offset: int, sample: Sample) -> tuple[State, list[Due]]:
    """Return the state with a sample in it, and what is to be written."""
    if offset <= state.get("offset", -1) and sample.at <= state["at"]:  # later ones are of a topic that was made anew
        return state, []
    windows: dict[str, Any] = dict(state.get("windows", {}))
    due: list[Due] = []
    ended_a_minute = False
    for size in SIZES:
        start = int(sample.at // size) * size
        window = windows.get(str(size))
        if window is not None and start > window["start"]:
            due += _ended(sample, size, window)
            ended_a_minute |= size == SHORTEST
            window = None
        elif window is not None and start == window["start"] and ended_a_minute:
            due.append(_told(sample, size, window, final=False))
        if window is None or start == window["start"]:
            windows[str(size)] = _with(window or _empty(start), sample)
    return {"offset": offset, "at": sample.at, "windows": windows}, due


def _ended(sample: Sample, size: int, window: Mapping[str, Any]) -> list[Due]:
    gone = window["start"] - KEPT_SECONDS[size]
    return [_told(sample, size, window, final=True), Due(rollup_key(sample.key, size, gone), None)]


def _empty(start: int) -> dict[str, Any]:
    return {"start": start, "samples": 0, "within": [0, 0], **{name: [0, 0, None] for name in FIGURES}}


def _with(window: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
    """Return a window with a sample in it: of each figure the number, the sum and the maximum of those known."""
    added = dict(window, samples=window["samples"] + 1)
    for name in FIGURES:
        value = getattr(sample, name)
        if value is not None:
            count, total, most = window[name]
            added[name] = [count + 1, total + value, value if most is None else max(most, value)]
    if sample.over_objective is not None:
        known, kept = window["within"]
        added["within"] = [known + 1, kept + (not sample.over_objective)]
    return added


def _told(sample: Sample, size: int, window: Mapping[str, Any], *, final: bool) -> Due:
    known, kept = window["within"]
    rollup = Rollup(
        cluster=sample.cluster,
        kind=sample.kind,
        name=sample.name,
        window_seconds=size,
        start=window["start"],
        final=final,
        samples=window["samples"],
        lag_records_known=window["lag_records"][0],
        lag_records_max=window["lag_records"][2],
        lag_records_mean=_mean(window["lag_records"]),
        lag_seconds_known=window["lag_seconds"][0],
        lag_seconds_max=window["lag_seconds"][2],
        lag_seconds_mean=_mean(window["lag_seconds"]),
        records_in_per_second=_mean(window["records_in_per_second"]),
        records_out_per_second=_mean(window["records_out_per_second"]),
        objective_known=known,
        within_objective=kept / known if known else None,
    )
    return Due(rollup.key, rollup)


def _mean(figure: list[Any]) -> float | None:
    count, total, _ = figure
    return total / count if count else None
