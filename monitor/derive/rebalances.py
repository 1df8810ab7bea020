"""Rebalances of every consumer since the monitor first saw it: how many, and for how long.

The group epoch of the newer protocols (KIP-848) counts them: each makes it larger. A classic group has no such number
that can be read, so at least one rebalance is counted each time it was seen rebalancing, and each time two
descriptions of it while Stable differ in members or assignment although it was never seen rebalancing between them.

Time is known between looks only. Of a rebalance that was seen, at least the time from the first to the last look at
it, at most from the last look before it to the first one after it; of one that was not, at most one gap between two
looks. A look lasts from ``begun`` to ``done``, and the state may have been read at any moment in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from monitor.derive.groups import NOT_TOLD, REBALANCING, SETTLED, GroupColumns
from monitor.model import UNKNOWN, Bools, Floats, GroupFacts, Int64s, RebalanceColumns


@dataclass(slots=True)
class _Tally:
    """One row a consumer. Times of looks are NaN where there was none."""

    count: Int64s
    by_epoch: Bools
    seconds: Floats  # of rebalances that are over
    slack: Floats
    is_on: Bools  # seen rebalancing, and not settled since
    on_done: Floats  # when the first look at it was done
    on_begun: Floats  # when the last look at it had begun
    looked_begun: Floats  # when the last look at the settled group had begun
    gap: Floats  # longest time between two looks at the settled group since it was described
    seen: Int64s  # rebalances seen since it was described
    epoch: Int64s
    described_at: Floats

    @classmethod
    def fresh(cls, count: int) -> _Tally:
        times = [np.full(count, np.nan) for _ in range(4)]
        return cls(
            np.full(count, UNKNOWN, np.int64), np.zeros(count, np.bool_), np.zeros(count), np.zeros(count),
            np.zeros(count, np.bool_), times[0], times[1], times[2], np.zeros(count), np.zeros(count, np.int64),
            np.full(count, UNKNOWN, np.int64), times[3],
        )  # fmt: skip


class Rebalances:
    """What was counted so far; ``observe`` takes in a look."""

    def __init__(self) -> None:
        self._tally = _Tally.fresh(0)
        self._who: list[object] = []

    def carry(self, consumer_was: Int64s) -> None:
        """Follow consumers to their new places; new ones have no past."""
        new = _Tally.fresh(len(consumer_was))
        for part in fields(_Tally):
            old, fresh = getattr(self._tally, part.name), getattr(new, part.name)
            kept = np.flatnonzero(consumer_was >= 0)
            fresh[kept] = old[consumer_was[kept]]
        self._tally = new
        self._who = [self._who[was] if was >= 0 else None for was in consumer_was.tolist()]

    def observe(self, groups: Sequence[GroupFacts], columns: GroupColumns, begun: float, done: float) -> None:
        """Take in a look at all groups."""
        tally = self._tally
        tally.count[(columns.motion != NOT_TOLD) & (tally.count < 0)] = 0
        settled, rebalancing = columns.motion == SETTLED, columns.motion == REBALANCING
        if rebalancing.any() or tally.is_on.any():
            self._watch(settled, rebalancing, columns.epoch >= 0, begun, done)
        tally.gap[settled] = np.fmax(tally.gap[settled], done - tally.looked_begun[settled])
        tally.looked_begun[settled] = begun
        described = settled & (columns.memberless >= 0) & (columns.described_at != tally.described_at)
        for index in np.flatnonzero(described & ~np.isnan(columns.described_at)).tolist():
            self._describe(index, groups[index], int(columns.epoch[index]), float(columns.described_at[index]))

    def columns(self, done: float) -> RebalanceColumns:
        """Return what was counted, with those under way as of the look that was done then."""
        tally = self._tally
        least, most = _limits(tally, np.full(len(tally.count), done))
        told, on = tally.count >= 0, tally.is_on
        return RebalanceColumns(
            tally.count.copy(),
            told & tally.by_epoch,
            np.where(told, tally.seconds + np.where(on, least, 0.0), np.nan),
            np.where(told, tally.slack + np.where(on, most - least, 0.0), np.nan),
        )

    def _watch(self, settled: Bools, rebalancing: Bools, has_epoch: Bools, begun: float, done: float) -> None:
        tally = self._tally
        starts = rebalancing & ~tally.is_on
        tally.is_on |= starts
        tally.on_done[starts] = done
        tally.seen[starts] += 1
        tally.count[starts & ~has_epoch] += 1
        tally.on_begun[rebalancing] = begun
        # Who was rebalancing at the very first look is counted from that look on.
        tally.looked_begun[starts & np.isnan(tally.looked_begun)] = begun
        ends = np.flatnonzero(settled & tally.is_on)
        least, most = _limits(tally, np.full(len(tally.count), done))
        tally.seconds[ends] += least[ends]
        tally.slack[ends] += most[ends] - least[ends]
        tally.is_on[ends] = False
        tally.looked_begun[ends] = np.nan

    def _describe(self, index: int, facts: GroupFacts, epoch: int, described_at: float) -> None:
        tally = self._tally
        is_first, seen = bool(np.isnan(tally.described_at[index])), int(tally.seen[index])
        more = 0
        if epoch >= 0:
            before = int(tally.epoch[index])
            if is_first:
                tally.by_epoch[index] = tally.count[index] == 0
            elif before > epoch:  # another group of that name: its epochs began anew
                more, tally.by_epoch[index] = max(epoch, 1), False
            elif before >= 0:
                more = epoch - before
            hidden = max(0, more - seen)
        else:
            who = frozenset((member.member_id, frozenset(member.assigned)) for member in facts.owners)
            more = hidden = int(not is_first and seen == 0 and who != self._who[index])
            self._who[index] = who
            tally.by_epoch[index] = False
        tally.count[index] += more
        tally.slack[index] += hidden * tally.gap[index]
        tally.epoch[index], tally.described_at[index] = epoch, described_at
        tally.gap[index], tally.seen[index] = 0.0, 0


def _limits(tally: _Tally, done: Floats) -> tuple[Floats, Floats]:
    """Return how long the rebalances under way took at least and at most, NaN for groups without one."""
    least = np.maximum(tally.on_begun - tally.on_done, 0.0)
    return least, np.maximum(done - tally.looked_begun, least)
