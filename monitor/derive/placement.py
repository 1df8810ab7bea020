"""Lag in seconds: when was the first unread record written? A search by timestamps, one step at a time.

A leader answers the question *which is the first record at or after time t?* (ListOffsets by timestamp)
with its offset and timestamp, and needs no record to be fetched. For a wanted offset ``c`` each answer
``(o, T(o))`` narrows a **bracket**, and holds for every other position of that partition too:

- ``o <= c``: the lower end. The record at ``c`` is at least as late as ``T(o)`` **if timestamps are in order**;
  with ``o == c`` it *is* the record, and nothing is assumed.
- ``o > c``, or no such record: the upper end. Every record before ``o`` is earlier than ``t``: that is proof,
  whatever the order.

Between the ends the next time to ask is interpolated by offset, and halved every third step, so that
an uneven flow costs a few rounds more and never many.

What the search cannot tell apart stays inside the bound: the offset right before ``o`` may be a transaction
marker that no consumer ever sees, and then the next readable record is ``o`` itself; at the end of the log
there may then be no readable record at all.

All times here are integer milliseconds since the epoch, as the records carry them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from monitor.model import UNKNOWN, Bools, Floats, Found, Int8s, Int32s, Int64s, Lookups, PositionLayout

NOT_ASKED = np.iinfo(np.int64).max
"""Upper end of a bracket before any look-up: later than every timestamp."""

PRECISION_MS = 20
"""A bracket this narrow is good enough: finer than any clock that two hosts agree on."""

PRECISION_SHARE = 0.002
"""And so is one narrower than this share of the age: 0.2 %."""

MAX_STEPS = 64
"""Each look-up at least takes one time out of the bracket; an answer that does not is not asked for again for ever."""

HALVE_EVERY = 3
"""Every so many steps the bracket is halved instead of interpolated."""


@dataclass(slots=True)
class Brackets:
    """What look-ups have shown about every position; columns over a position layout.

    ``low`` and ``low_ms``: the last record known at or before the wanted offset, -1 without.
    ``high`` and ``high_ms``: the first record known behind it, -1 without; ``asked_ms``: the earliest time
    whose answer lay behind it (every record up to ``high`` is earlier). ``steps``: look-ups so far. ``exists``: whether
    there was a record at the wanted offset when the log end was last read.
    """

    wanted: Int64s
    low: Int64s
    low_ms: Int64s
    high: Int64s
    high_ms: Int64s
    asked_ms: Int64s
    steps: Int8s
    exists: Bools
    version: object = field(default_factory=object)
    """Another object whenever any of the others but ``steps`` is another."""

    @classmethod
    def fresh(cls, size: int) -> Brackets:
        """Return brackets that know nothing."""
        wanted, low, low_ms, high, high_ms = (np.full(size, UNKNOWN, np.int64) for _ in range(5))
        return cls(wanted, low, low_ms, high, high_ms, np.full(size, NOT_ASKED, np.int64), np.zeros(size, np.int8),
                   np.zeros(size, np.bool_))  # fmt: skip

    def carried(self, moved: Int64s) -> Brackets:
        """Return the brackets over new rows: ``moved`` has the old row of each, -1 for a row without a past."""
        new = Brackets.fresh(len(moved))
        kept = np.flatnonzero(moved >= 0)
        for name in ("wanted", "low", "low_ms", "high", "high_ms", "asked_ms", "steps", "exists"):
            getattr(new, name)[kept] = getattr(self, name)[moved[kept]]
        return new

    def want(self, offsets: Int64s, exists: Bools, restarted: Bools | None) -> None:
        """Aim at new offsets (-1: none), keeping what still holds; ``restarted`` positions forget everything.

        ``exists`` says where there is a record at the offset, or was one.

        A position that moved past its upper end has a better lower end now; one that moved back knows nothing.
        """
        self.version = object()
        forget = (offsets < self.wanted) & (offsets >= 0)
        if restarted is not None:
            forget |= restarted
        passed = ~forget & (self.high >= 0) & (offsets >= self.high)
        self.low = np.where(forget, UNKNOWN, np.where(passed, self.high, self.low))
        self.low_ms = np.where(forget, UNKNOWN, np.where(passed, self.high_ms, self.low_ms))
        moved = forget | passed | ((self.high < 0) & (offsets != self.wanted) & (offsets >= 0))
        self.high = np.where(moved, UNKNOWN, self.high)
        self.high_ms = np.where(moved, UNKNOWN, self.high_ms)
        self.asked_ms = np.where(moved, NOT_ASKED, self.asked_ms)
        self.steps = np.where(moved | (offsets != self.wanted), 0, self.steps).astype(np.int8)
        self.wanted = np.where(offsets >= 0, offsets, self.wanted)
        self.exists = exists

    def learn(self, layout: PositionLayout, found: Found) -> None:
        """Narrow every position of the partitions that were looked up; answers that failed teach nothing."""
        answered = found.why == 0
        if not answered.any():
            return
        self.version = object()
        answer_of = np.full(len(layout.partitions), -1, np.int64)
        answer_of[found.asked.row[answered]] = np.flatnonzero(answered)
        index = answer_of[layout.row]
        at = np.flatnonzero(index >= 0)
        index = index[at]
        offset, stamp, asked = found.offset[index], found.timestamp_ms[index], found.asked.timestamp_ms[index]

        below = (offset >= 0) & (offset <= self.wanted[at])
        better = below & (offset > self.low[at])
        self.low[at[better]] = offset[better]
        self.low_ms[at[better]] = stamp[better]

        # That there is no such record yet proves nothing of one that has yet to be written.
        above = ~below & (asked < self.asked_ms[at]) & ((offset >= 0) | self.exists[at])
        self.asked_ms[at[above]] = asked[above]
        self.high[at[above]] = offset[above]
        self.high_ms[at[above]] = np.where(offset[above] >= 0, stamp[above], UNKNOWN)


class Times(NamedTuple):
    """The earliest and latest time the wanted record may have, NaN where no look-up has placed it.

    The latest is infinite where nothing bounds it but now. ``landed``: a look-up answered with the record itself.
    ``maybe_none``: there may be no readable record left.
    """

    earliest_ms: Floats
    latest_ms: Floats
    landed: Bools
    maybe_none: Bools


def times(brackets: Brackets, log_end: Int64s) -> Times:
    """Return between which times the wanted record of every position was written."""
    landed = (brackets.low == brackets.wanted) & (brackets.low >= 0)
    # The very first record of the log lies behind the wanted offset: then it is the first unread one.
    first = (brackets.low < 0) & (brackets.high >= 0) & (brackets.asked_ms == 0)
    placed = brackets.low >= 0
    upper = np.where(brackets.asked_ms == NOT_ASKED, np.inf, brackets.asked_ms - 1)
    # The offset just before the next known record may be a transaction marker: then that record is the first unread.
    marker = ~landed & (brackets.high >= 0) & (brackets.high == brackets.wanted + 1)
    upper = np.where(marker, np.maximum(upper, brackets.high_ms), upper)
    upper = np.where(landed, brackets.low_ms, np.maximum(upper, brackets.low_ms))
    maybe_none = placed & ~landed & (brackets.high < 0) & (brackets.asked_ms != NOT_ASKED)
    maybe_none &= log_end == brackets.wanted + 1
    earliest = np.where(first, brackets.high_ms, brackets.low_ms)
    latest = np.where(first, brackets.high_ms, upper)
    placed |= first
    return Times(
        np.where(placed, earliest, np.nan).astype(float),
        np.where(placed, latest, np.nan).astype(float),
        landed | first,
        maybe_none,
    )


def next_lookups(
    layout: PositionLayout, brackets: Brackets, lagging: Bools, log_end: Int64s, *, at_ms: int, limit: int
) -> Lookups | None:
    """Return the look-ups that narrow most, at most ``limit`` and one a partition; None when all are narrow enough.

    ``lagging`` says which positions need seconds at all, ``log_end`` is a column over positions.
    """
    width = np.where(brackets.asked_ms == NOT_ASKED, at_ms + 1, brackets.asked_ms) - np.where(
        brackets.low >= 0, brackets.low_ms + 1, 0
    )
    age = np.maximum(at_ms - np.maximum(brackets.low_ms, 0), 0)
    fine = np.maximum(PRECISION_MS, age * PRECISION_SHARE)
    # One look-up may still land on the record itself and turn an assumption into a proof; and with the next record
    # (or the end of the log) right behind, only landing tells the record from a marker.
    beside = (brackets.wanted - brackets.low == 1) | (brackets.high == brackets.wanted + 1)
    beside |= (brackets.high < 0) & (log_end == brackets.wanted + 1)
    open_ = lagging & (width > 0) & (brackets.low != brackets.wanted) & ((width > fine) | beside)
    candidates = np.flatnonzero(open_ & (brackets.steps < MAX_STEPS) & (brackets.low < brackets.wanted))
    if not len(candidates) or limit <= 0:
        return None
    chosen = _widest_of_each_partition(candidates, layout.row[candidates], width[candidates], limit)
    ask = _time_to_ask(brackets, chosen, log_end, at_ms)
    brackets.steps[chosen] += 1
    return Lookups(layout.partitions, layout.row[chosen], ask)


def may_open_later(brackets: Brackets, lagging: Bools) -> bool:
    """Return whether time alone makes a bracket wide enough to be looked up, where none is now.

    A record is as old as the time since its lower end for as long as nothing is known behind it.
    """
    no_top = lagging & (brackets.asked_ms == NOT_ASKED) & (brackets.low != brackets.wanted)
    return bool((no_top & (brackets.steps < MAX_STEPS) & (brackets.low < brackets.wanted)).any())


def _widest_of_each_partition(candidates: Int64s, rows: Int32s, width: Int64s, limit: int) -> Int64s:
    """Return the candidate with the widest bracket of each partition, the widest ones first, at most ``limit``."""
    order = np.lexsort((-width, rows))
    first = np.ones(len(order), np.bool_)
    first[1:] = rows[order][1:] != rows[order][:-1]
    best = order[first]
    best = best[np.argsort(-width[best], kind="stable")][:limit]
    return candidates[best]


def _time_to_ask(brackets: Brackets, chosen: Int64s, log_end: Int64s, at_ms: int) -> Int64s:
    """Return the time that splits each bracket best; a bracket without a lower end asks for the log's first record."""
    low, low_ms = brackets.low[chosen], brackets.low_ms[chosen]
    high, asked = brackets.high[chosen], brackets.asked_ms[chosen]
    wanted = brackets.wanted[chosen]
    open_top = asked == NOT_ASKED
    top_ms = np.where(open_top, np.maximum(at_ms + 1, low_ms + 2), asked)
    top = np.where(high >= 0, high, np.maximum(log_end[chosen], wanted + 1))

    share = (wanted - low - 0.5) / np.maximum(top - low, 1)
    interpolated = low_ms + 1 + ((top_ms - low_ms - 1) * share).astype(np.int64)
    halved = low_ms + 1 + (top_ms - low_ms - 1) // 2
    ask = np.where(brackets.steps[chosen] % HALVE_EVERY == HALVE_EVERY - 1, halved, interpolated)
    ask = np.where(wanted - low == 1, low_ms + 1, ask)
    ask = np.clip(ask, low_ms + 1, np.maximum(top_ms - 1, low_ms + 1))
    return np.where(low < 0, 0, ask).astype(np.int64)
