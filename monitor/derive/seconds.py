"""Lag in seconds of every position, with its bound: from record times where placed, else from our own readings.

Where a record lies in time changes only with what is known of it; its age changes with every look. So the first is
worked out apart (``place``), and kept for as long as nothing new is known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.derive.history import Arrivals
from monitor.derive.lag import RecordLag
from monitor.derive.placement import Brackets, times
from monitor.model import Basis, Bools, Floats, Int8s, Int16s, Int64s, PositionLayout, Why

ROUNDING_SECONDS = 0.001
"""Record timestamps and our own clock readings are whole milliseconds: no bound is finer than that."""


class Places(NamedTuple):
    """When the first unread record was written, as far as known.

    ``rows`` are the positions that lag and whose record is placed between ``earliest`` and ``latest``, seconds since
    the epoch; the latest is infinite where the record may be as young as now. ``by_record``: placed by its timestamp,
    not by its arrival. The other columns are over all positions, and ``caught_up`` is 0 where nothing is unread, NaN
    elsewhere.
    """

    rows: Int64s
    earliest: Floats
    latest: Floats
    by_record: Bools
    caught_up: Floats
    basis: Int8s
    assumed: Bools
    why: Int16s


class SecondsLag(NamedTuple):
    """Columns over positions: the true value lies within ``seconds`` ± ``bound``; NaN with ``why`` where unknown.

    ``future``: the positions whose record's timestamp lies ahead of our clock.
    """

    seconds: Floats
    bound: Floats
    basis: Int8s
    assumed: Bools
    why: Int16s
    future: Int64s


def place(
    records: RecordLag, brackets: Brackets, arrivals: Arrivals, *, layout: PositionLayout, log_end: Int64s,
    is_shared: Bools | None = None,
) -> Places:  # fmt: skip
    """Return when the first unread record of every position was written; ``log_end`` is a column over positions."""
    lagging = records.lag > 0
    placed = times(brackets, log_end)
    by_record = lagging & ~np.isnan(placed.earliest_ms)
    earliest, latest = placed.earliest_ms / 1000, placed.latest_ms / 1000
    latest[placed.maybe_none] = np.inf

    unplaced = np.flatnonzero(lagging & ~by_record)
    after, before = arrivals.between(layout.row[unplaced], records.next_offset[unplaced])
    earliest[unplaced], latest[unplaced] = after, before
    known = by_record.copy()
    known[unplaced] = ~np.isnan(after) & ~np.isnan(before)

    caught_up = records.lag == 0
    rows = np.flatnonzero(known)
    basis = np.where(by_record | caught_up, Basis.RECORD, np.where(known, Basis.ARRIVAL, Basis.NONE)).astype(np.int8)
    return Places(
        rows,
        earliest[rows],
        latest[rows],
        by_record[rows],
        np.where(caught_up, 0.0, np.nan),
        basis,
        by_record & ~placed.landed,
        _reasons(records, is_shared, brackets, known | caught_up),
    )


def seconds_lag(places: Places, at: float) -> SecondsLag:
    """Return the age of the first unread record of every position at the moment ``at``."""
    oldest, youngest = at - places.earliest, np.maximum(at - places.latest, 0.0)
    ahead = places.rows[places.by_record & (oldest < 0)]
    oldest = np.maximum(oldest, 0.0)
    seconds, bound = places.caught_up.copy(), places.caught_up.copy()
    seconds[places.rows] = (oldest + youngest) / 2
    bound[places.rows] = np.maximum((oldest - youngest) / 2, ROUNDING_SECONDS)
    return SecondsLag(seconds, bound, places.basis, places.assumed, places.why, ahead)


def _reasons(records: RecordLag, is_shared: Bools | None, brackets: Brackets, known: Bools) -> Int16s:
    no_stamp = (brackets.asked_ms == 0) & (brackets.low < 0) & (brackets.high < 0)
    not_known = np.where(records.lag < 0, Why.LAG_UNKNOWN, np.where(no_stamp, Why.NO_TIMESTAMP, Why.NOT_PLACED))
    if is_shared is not None:
        not_known = np.where(is_shared & (records.lag > 0), Why.SHARE_AGE, not_known)
    return np.where(known, 0, not_known).astype(np.int16)
