"""What commits did between two readings: how far they read, whether one was set back, whether records went unread.

    forward            counted as read
    back               set back: what lies between is read again. Not where the log was cut below it or is another one
    passed by the log  records deleted although the commit was below them

A log start that passes a commit is believed only with the next reading of that commit: commits are read before starts,
and a reader that deletes what it has read (Kafka Streams does with its repartition topics) may have been on its way.
A commit that has meanwhile left the deleted range may have read it or not, which nobody can tell: nothing is said then.
Nor is anything said of commits that jump forward: what was written between two looks may have been read as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.derive.identity import Breaks, Growth
from monitor.derive.layouts import carry
from monitor.derive.marks import NO_MARKS, Marks
from monitor.model import UNKNOWN, Bools, Int32s, Int64s, PartitionColumns, PositionColumns

REWOUND_SECONDS = 900.0
"""A commit that was set back is told for this long, or until it is back where it was."""

LOSING_SECONDS = 900.0
"""Records were lost this recently: retention deletes in steps, by default every 5 minutes at most
(log.retention.check.interval.ms), and whole segments at a time."""


class Events(NamedTuple):
    """Positions (ascending) with an old and a new value, and how many records it is about, -1 where unknown."""

    at: Int64s
    old: Int64s
    new: Int64s
    records: Int64s


class Moves(NamedTuple):
    """What changed between two readings. ``moved``: positions whose commit is another one; ``advance`` None: none."""

    moved: Int64s
    advance: Int64s | None
    rewound: Events | None
    lost: Events | None


NOTHING = Moves(np.zeros(0, np.int64), None, None, None)


class Reads:
    """The last known commit of every position, and what is remembered of the few that were set back or lose records.

    ``back`` marks those set back (value: where they were), ``losing`` those that lost records lately.
    """

    def __init__(self) -> None:
        self.committed = np.zeros(0, np.int64)
        self.back: Marks = NO_MARKS
        self.losing: Marks = NO_MARKS
        self._passed: Marks = NO_MARKS  # log starts not yet believed: value is the start now, other the start before
        self._read: Int64s | None = None

    def carry(self, moved: Int64s) -> None:
        """Follow positions to their new places; new ones have no past."""
        before = len(self.committed)
        self.back = self.back.carried(moved, before)
        self.losing = self.losing.carried(moved, before)
        self._passed = self._passed.carried(moved, before)
        self.committed = carry(self.committed, moved, UNKNOWN)
        self._read = None

    def observe(
        self, positions: PositionColumns, partitions: PartitionColumns, breaks: Breaks | None, growth: Growth | None,
        *, is_shared: Bools | None, at: float,
    ) -> Moves:  # fmt: skip
        """Take in a poll. ``is_shared`` are the positions of share groups, whose start the broker itself moves."""
        committed, row = positions.committed, positions.layout.row
        if breaks is not None:
            self._forget(breaks, row)
        lost = self._lost(committed)
        moves = NOTHING
        if committed is not self._read or breaks is not None:
            moves = self._moves(committed, partitions, row, at)
            self.committed = np.where(committed >= 0, committed, self.committed)
            self._read = committed
        if growth is not None:
            self._note_passed(committed, partitions.log_start, growth, row, is_shared)
        if lost is not None:
            self.losing = self.losing.put(lost.at, lost.new, lost.new, at + LOSING_SECONDS)
        self._expire(committed, at)
        return moves if lost is None else moves._replace(lost=lost)

    def _forget(self, breaks: Breaks, row: Int32s) -> None:
        renewed, broken = breaks.renewed[row], breaks.broken[row]
        self.committed = np.where(renewed, UNKNOWN, self.committed)
        self.back = self.back.only(~broken[self.back.at])
        self.losing = self.losing.only(~broken[self.losing.at])
        self._passed = self._passed.only(~broken[self._passed.at])

    def _moves(self, committed: Int64s, partitions: PartitionColumns, row: Int32s, at: float) -> Moves:
        before = self.committed
        other = (committed >= 0) & (before >= 0) & (committed != before)
        moved = np.flatnonzero(other)
        if not len(moved):
            return NOTHING
        advance = np.where(other, np.maximum(committed - before, 0), 0)
        return Moves(moved, advance, self._rewound(moved, committed, partitions, row, at), None)

    def _rewound(
        self, moved: Int64s, committed: Int64s, partitions: PartitionColumns, row: Int32s, at: float
    ) -> Events | None:
        down = moved[committed[moved] < self.committed[moved]]
        if not len(down):
            return None
        old, new = self.committed[down], committed[down]
        start, end = partitions.log_start[row[down]], partitions.log_end[row[down]]
        again = np.where(end >= 0, np.minimum(old, end) - np.maximum(new, start), UNKNOWN)
        # A commit beyond the end has to come back, and where everything between was deleted nothing is read again.
        real = ((end < 0) | ((old <= end) & (again > 0))).nonzero()[0]
        if not len(real):
            return None
        down, old, new, again = down[real], old[real], new[real], again[real]
        highest = np.maximum(old, self._marked_value(down))
        self.back = self.back.put(down, highest, highest, at + REWOUND_SECONDS)
        return Events(down, old, new, again)

    def _marked_value(self, at: Int64s) -> Int64s:
        if not self.back:
            return np.full(len(at), UNKNOWN, np.int64)
        place = np.clip(np.searchsorted(self.back.at, at), 0, len(self.back.at) - 1)
        return np.where(self.back.at[place] == at, self.back.value[place], UNKNOWN)

    def _note_passed(
        self, committed: Int64s, log_start: Int64s, growth: Growth, row: Int32s, is_shared: Bools | None
    ) -> None:
        below = growth.grown[row] & (committed >= 0) & (committed < log_start[row])
        if is_shared is not None:
            below &= ~is_shared
        at = np.flatnonzero(below)
        self._passed = self._passed.put(at, log_start[row[at]], growth.old_start[row[at]], np.inf)

    def _lost(self, committed: Int64s) -> Events | None:
        """Return what was lost for sure: the commit was read once more, and still lies below the log start."""
        passed = self._passed
        if not passed:
            return None
        now = committed[passed.at]
        self._passed = passed.only(now < 0)
        sure = (now >= 0) & (now < passed.value)
        if not sure.any():
            return None
        old, new = passed.other[sure], passed.value[sure]
        return Events(passed.at[sure], old, new, new - np.maximum(now[sure], old))

    def _expire(self, committed: Int64s, at: float) -> None:
        if self.back:
            back = self.back
            self.back = back.only((back.until > at) & (committed[back.at] < back.value))
        if self.losing:
            losing = self.losing
            self.losing = losing.only((losing.until > at) & (committed[losing.at] < losing.value))
