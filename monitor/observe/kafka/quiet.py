"""Reading the commits of all groups, and of those that rest less often.

A group *rests* when it was caught up and no log end of its partitions moved for several looks. What it has committed
is not read in every cycle then: there is nothing it could commit beyond. It is read all the same as soon as anything
hints at a change (a log end of its partitions, its state, a broker that is away), and every QUIET_SECONDS without any.
So a cycle in which nothing moves costs a fraction, and the only thing that may be told late, by that much, is an offset
set back by hand under a group that stands at the end of an idle log (architecture, rule 5).

Ends are read after commits. Where they show that a resting group has something to read again, its commits are read
once more, and all ends after that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from monitor.model import Bools, Int64s, Kind, PartitionColumns, PartitionLayout, PositionColumns, PositionLayout
from monitor.observe.kafka.cluster import Brokers, MapKeeper, Patience, Poll, now
from monitor.observe.kafka.commits import CommitReader, Commits, Joined, Memory
from monitor.observe.kafka.takeover import Takeovers

QUIET_SECONDS = 30.0
"""How old a commit of a resting group may be."""

LOOKS = 3
"""Looks in a row at which a group must have been caught up over ends that stood still."""

REGROUP_SECONDS = 30.0
"""Between two changes of who rests: each makes every question anew."""

WORTH_IT = 0.02
"""The share of the groups that must have come to rest for the questions to be made anew."""

Asked = Mapping[str, Collection[int]]


class RestfulReader:
    """Reads the commits of all groups. ``is_incomplete`` while those of resting groups are as they were before."""

    def __init__(self, brokers: Brokers, clock: Callable[[], float], takeovers: Takeovers) -> None:
        memory = Memory()
        self._active = CommitReader(brokers, clock, memory=memory, takeovers=takeovers)
        self._resting = CommitReader(brokers, clock, memory=memory, takeovers=takeovers)
        self._joined = Joined()
        self._names: frozenset[str] = frozenset()
        self._asked: Asked = {}
        self._asked_active: Asked = {}
        self._asked_resting: Asked = {}
        self._commits: tuple[Commits, Commits] | None = None
        self._signs: object = None
        self._states: Mapping[str, object] = {}
        self._signs_of: Asked = {}
        self._signs_now: list[object] = []
        self._read_at = float("-inf")
        self._regrouped_at = float("-inf")
        self._is_disturbed = False
        self._looks: Int64s = np.zeros(0, np.int64)
        self._seen: PositionLayout | None = None
        self._watched: tuple[PartitionLayout, Bools] | None = None
        self._resting_of: tuple[PositionLayout, frozenset[str], Bools] | None = None
        self.is_incomplete = False

    async def read(
        self, poll: Poll, keeper: MapKeeper, patience: Patience, asked: Asked, states: Mapping[str, object]
    ) -> Commits:
        """Ask every coordinator for its groups; resting ones only if it is time or something hints at a change.

        Args:
            poll: The cycle so far.
            keeper: The map of the cluster.
            patience: How long to try again.
            asked: The brokers that list each group; the same object for as long as that stays so.
            states: What is known of each group beside its commits: a change is a hint.
        """
        self._split(asked)
        active = await self._active.read(poll, keeper, patience, self._asked_active)
        if states is not self._states or self._signs_of is not self._asked_resting:
            self._states, self._signs_of = states, self._asked_resting
            self._signs_now = [states.get(name) for name in self._asked_resting]
        signs = self._signs_now
        before = None if self._commits is None else self._commits[1]
        self.is_incomplete = (
            before is not None
            and bool(self._asked_resting)
            and poll.up
            and not self._is_disturbed
            and signs == self._signs
            and now() - self._read_at < QUIET_SECONDS
        )
        if before is None or not self.is_incomplete:
            before = await self._read_resting(poll, keeper, patience)
            self._signs = signs
        self._commits = (active, before)
        return self._joined.join(active, before)

    async def read_the_rest(self, poll: Poll, keeper: MapKeeper, patience: Patience) -> Commits:
        """Ask for the resting groups as well, in a cycle that began without them."""
        assert self._commits is not None  # noqa: S101 - read() came before
        self._commits = (self._commits[0], await self._read_resting(poll, keeper, patience))
        self.is_incomplete = False
        return self._joined.join(*self._commits)

    def is_outdated_by(self, partitions: PartitionColumns, before: PartitionColumns | None) -> bool:
        """Return whether resting groups that were not asked have something to read again, by the ends of now."""
        if not self.is_incomplete:
            return False
        watched = self._watched
        if before is None or watched is None or not (watched[0] is before.layout is partitions.layout):
            return True
        return bool((_has_moved(partitions, before) & watched[1]).any())

    def learn(self, positions: PositionColumns, partitions: PartitionColumns, before: PartitionColumns | None) -> None:
        """Take note of who was caught up in this cycle over ends that stood still, and let them rest in time."""
        layout = positions.layout
        if self._seen is not layout or before is None or before.layout is not partitions.layout:
            self._seen, self._looks = layout, np.zeros(len(layout.consumers), np.int64)
            self._watch(layout)
            return
        if before.log_end is partitions.log_end and before.why is partitions.why:
            still = partitions.why == 0
        else:
            still = ~_has_moved(partitions, before)
        calm = still[layout.row] & (positions.why == 0) & (positions.committed == partitions.log_end[layout.row])
        filled = np.diff(layout.starts) > 0
        all_calm = np.zeros(len(layout.consumers), np.bool_)
        if filled.any():
            all_calm[filled] = np.logical_and.reduceat(calm, layout.starts[:-1][filled])
        self._looks = np.where(all_calm, self._looks + 1, 0)
        resting = (
            [index for index, who in enumerate(layout.consumers) if who.name in self._names] if self._names else []
        )
        self._is_disturbed = self._is_disturbed or not all_calm[resting].all()
        self._regroup(layout)

    def forget(self, names: Iterable[str]) -> None:
        """Drop groups that are gone."""
        names = list(names)
        self._active.forget(names)
        self._resting.forget(names)

    def remember_sizes(self, sizes: Mapping[str, int]) -> None:
        """Take note of how many positions each group has, to cut the questions to size when they change next."""
        self._active.remember_sizes(sizes)
        self._resting.remember_sizes(sizes)

    async def _read_resting(self, poll: Poll, keeper: MapKeeper, patience: Patience) -> Commits:
        commits = await self._resting.read(poll, keeper, patience, self._asked_resting)
        self._read_at = now()
        # A group that could not be read does not rest: it is asked in every cycle until it is known again.
        self._is_disturbed = self._is_disturbed or bool(commits.unknown)
        return commits

    def _split(self, asked: Asked) -> None:
        if asked is self._asked:
            return
        self._asked = asked
        self._names &= asked.keys()
        self._asked_active = {name: nodes for name, nodes in asked.items() if name not in self._names}
        self._asked_resting = {name: nodes for name, nodes in asked.items() if name in self._names}
        self._commits = None

    def _regroup(self, layout: PositionLayout) -> None:
        if now() - self._regrouped_at < REGROUP_SECONDS:
            return
        calm = np.flatnonzero(self._looks >= LOOKS).tolist()
        names = frozenset(layout.consumers[index].name for index in calm if layout.consumers[index].kind is Kind.GROUP)
        come = len(names - self._names)
        if self._is_disturbed or come >= max(1.0, WORTH_IT * len(layout.consumers)):
            self._regrouped_at = now()
            self._is_disturbed = False
            if names != self._names:
                self._names = names
                self._asked = {}  # split anew
            self._watch(layout)

    def _watch(self, layout: PositionLayout) -> None:
        rows = np.zeros(len(layout.partitions), np.bool_)
        rows[layout.row[self._is_resting(layout)[layout.consumer]]] = True
        self._watched = (layout.partitions, rows)

    def _is_resting(self, layout: PositionLayout) -> Bools:
        """Return for each consumer whether it is resting."""
        if not self._names:
            return np.zeros(len(layout.consumers), np.bool_)
        known = self._resting_of
        if known is None or known[0] is not layout or known[1] is not self._names:
            names = (who.name in self._names for who in layout.consumers)
            known = self._resting_of = (layout, self._names, np.fromiter(names, np.bool_, len(layout.consumers)))
        return known[2]


def _has_moved(partitions: PartitionColumns, before: PartitionColumns) -> Bools:
    moved: Bools = (partitions.log_end != before.log_end) | (partitions.why != 0)
    return moved
