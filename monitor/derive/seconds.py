"""Lag in seconds of every position, with its bound: from record times where placed, else from our own readings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.derive.history import Arrivals
from monitor.derive.lag import RecordLag
from monitor.derive.placement import Brackets, times
from monitor.model import Basis, Bools, Floats, Int8s, Int16s, Int64s, PositionLayout, Why

ROUNDING_SECONDS = 0.001
"""Record timestamps and our own clock readings are whole milliseconds: no bound is finer than that."""


class SecondsLag(NamedTuple):
    """Columns over positions: the true value lies within ``seconds`` ± ``bound``; NaN with ``why`` where unknown.

    ``future``: the record's timestamp lies ahead of our clock.
    """

    seconds: Floats
    bound: Floats
    basis: Int8s
    assumed: Bools
    why: Int16s
    future: Bools


def seconds_lag(
    layout: PositionLayout, records: RecordLag, brackets: Brackets, arrivals: Arrivals, *, log_end: Int64s, at: float
) -> SecondsLag:
    """Return the age of the first unread record of every position at the moment ``at``."""
    at_ms = int(at * 1000)
    lagging = records.lag > 0
    placed = times(brackets, log_end, at_ms)
    by_record = lagging & ~np.isnan(placed.earliest_ms)
    oldest, youngest = at - placed.earliest_ms / 1000, at - placed.latest_ms / 1000
    youngest = np.where(placed.maybe_none, 0.0, youngest)

    unplaced = np.flatnonzero(lagging & ~by_record)
    after, before = arrivals.between(layout.row[unplaced], records.next_offset[unplaced])
    oldest[unplaced], youngest[unplaced] = at - after, at - before
    by_arrival = np.zeros(len(layout), np.bool_)
    by_arrival[unplaced] = ~np.isnan(after) & ~np.isnan(before)

    known = by_record | by_arrival
    future = by_record & (oldest < 0)
    oldest, youngest = np.maximum(oldest, 0.0), np.maximum(youngest, 0.0)
    seconds = np.where(known, (oldest + youngest) / 2, np.nan)
    bound = np.where(known, np.maximum((oldest - youngest) / 2, ROUNDING_SECONDS), np.nan)
    caught_up = records.lag == 0
    seconds[caught_up | future] = 0.0
    bound[caught_up] = 0.0
    basis = np.where(by_arrival, Basis.ARRIVAL, np.where(known | caught_up, Basis.RECORD, Basis.NONE)).astype(np.int8)
    return SecondsLag(
        seconds,
        bound,
        basis,
        assumed=by_record & ~placed.landed,
        why=_reasons(records, brackets, known | caught_up),
        future=future,
    )


def _reasons(records: RecordLag, brackets: Brackets, known: Bools) -> Int16s:
    no_stamp = (brackets.asked_ms == 0) & (brackets.low < 0) & (brackets.high < 0)
    not_known = np.where(records.lag < 0, Why.LAG_UNKNOWN, np.where(no_stamp, Why.NO_TIMESTAMP, Why.NOT_PLACED))
    return np.where(known, 0, not_known).astype(np.int16)
