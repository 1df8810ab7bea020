"""The tumbling windows of one sensor, kept in one table entry: values, no Faust, no clock, no I/O.

A sensor has a few *panes*, one a window, oldest first. Which panes are kept is decided by event time alone: those
that began less than ``keep`` seconds before the newest one. So what is held of a sensor is bounded, a replay of old
records gives the same averages as reading them fresh, and a reader that is an hour late loses nothing. Faust's own
windowed tables expire by the wall clock instead: they delete the windows of a late reader while it still fills them.

All times are seconds since the epoch; windows begin at multiples of their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_SECONDS = 60
KEEP_SECONDS = 300
"""How much older than the newest window of its sensor a window may be and still take readings."""


@dataclass(frozen=True, slots=True)
class Pane:
    """One window of one sensor: how many values and their sum."""

    start: int
    count: int
    total: float

    @property
    def average(self) -> float:
        """Return the mean of the values."""
        return self.total / self.count


Panes = tuple[Pane, ...]


def window_start(at: float, size: int) -> int:
    """Return the beginning of the window of ``size`` seconds that a moment lies in."""
    return int(at // size) * size


def add(panes: Panes, at: float, value: float, *, size: int, keep: int) -> tuple[Panes, Pane] | None:
    """Add a value to its window; return all panes and the changed one, or None if its window is no longer kept."""
    start = window_start(at, size)
    oldest = max((pane.start for pane in panes), default=start) - keep
    if start <= oldest:
        return None
    before = next((pane for pane in panes if pane.start == start), Pane(start, 0, 0.0))
    changed = Pane(start, before.count + 1, before.total + value)
    others = [pane for pane in panes if pane.start != start and pane.start > start - keep]
    return tuple(sorted((*others, changed), key=lambda pane: pane.start)), changed


def to_json(panes: Panes) -> list[list[float]]:
    """Return panes as JSON keeps them in a table: ``[start, count, total]`` each."""
    return [[pane.start, pane.count, pane.total] for pane in panes]


def from_json(rows: Sequence[Sequence[float]]) -> Panes:
    """Return panes from what ``to_json`` made."""
    return tuple(Pane(int(start), int(count), total) for start, count, total in rows)
