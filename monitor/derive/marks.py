"""Columns for the few: something remembered about some positions, where a column over all would be nearly empty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.model import Bools, Floats, Int64s


class Marks(NamedTuple):
    """Row i is about position ``at[i]``, ascending, each once. What the values mean is the owner's business."""

    at: Int64s
    value: Int64s
    other: Int64s
    until: Floats

    def __bool__(self) -> bool:
        return len(self.at) > 0

    def put(self, at: Int64s, value: Int64s, other: Int64s, until: float) -> Marks:
        """Return the marks with these positions marked anew; ``at`` is ascending."""
        if not len(at):
            return self
        stays = ~np.isin(self.at, at)
        order = np.argsort(np.concatenate([self.at[stays], at]), kind="stable")
        return Marks(
            np.concatenate([self.at[stays], at])[order],
            np.concatenate([self.value[stays], value])[order],
            np.concatenate([self.other[stays], other])[order],
            np.concatenate([self.until[stays], np.full(len(at), until)])[order],
        )

    def only(self, wanted: Bools) -> Marks:
        """Return the marks of these rows; the same object where that is all of them."""
        return self if wanted.all() else self._picked(wanted)

    def carried(self, moved: Int64s, old_length: int) -> Marks:
        """Follow positions to their new places: ``moved`` has for each new position the old one, -1 without."""
        if not self:
            return self
        place = np.full(old_length, -1, np.int64)
        place[moved[moved >= 0]] = np.flatnonzero(moved >= 0)
        new = place[self.at]
        order = np.argsort(new, kind="stable")
        order = order[new[order] >= 0]
        return self._picked(order)._replace(at=new[order])

    def _picked(self, rows: Bools | Int64s) -> Marks:
        return Marks(self.at[rows], self.value[rows], self.other[rows], self.until[rows])


NO_MARKS = Marks(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))
