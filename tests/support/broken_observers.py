"""Observers that are wrong in one way each: something around a reader, to show that a simulation notices."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from monitor.model import (
    UNKNOWN,
    Found,
    GroupFacts,
    KafkaSnapshot,
    Lookups,
    PartitionColumns,
    PositionColumns,
    PositionLayout,
    Why,
)
from monitor.service import KafkaReader


class Around:
    """A reader that hands everything through; its kind of wrong overrides a part of it."""

    def __init__(self, reader: KafkaReader) -> None:
        self.reader: Any = reader

    async def observe(self) -> KafkaSnapshot:
        """Read, and change what was read."""
        return self.change(await self.reader.observe())

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        """Return what is said to have been read."""
        return snapshot

    async def look_up(self, wanted: Lookups) -> Found:
        """Look up."""
        found: Found = await self.reader.look_up(wanted)
        return found

    async def check(self) -> None:
        """Check."""
        await self.reader.check()

    async def close(self) -> None:
        """Close."""
        await self.reader.close()


def changed(change: Callable[[KafkaSnapshot], KafkaSnapshot]) -> type[Around]:
    """Return a reader that changes every snapshot."""

    class Changed(Around):
        def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
            return change(snapshot)

    return Changed


class KeepsCommits(Around):
    """Shows the last committed offset where it could not be read."""

    def __init__(self, reader: KafkaReader) -> None:
        super().__init__(reader)
        self._last: dict[object, int] = {}

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        positions = snapshot.positions
        layout = positions.layout
        names = [layout.consumers[owner] for owner in layout.consumer.tolist()]
        keys = [(name, layout.partitions.key(row)) for name, row in zip(names, layout.row.tolist(), strict=True)]
        failed = (positions.why != 0) & (positions.why != Why.NO_COMMIT)
        committed = [
            self._last.get(key, UNKNOWN) if bad else value
            for key, bad, value in zip(keys, failed.tolist(), positions.committed.tolist(), strict=True)
        ]
        self._last.update({key: value for key, value in zip(keys, committed, strict=True) if value >= 0})
        why = np.where(failed & (np.array(committed, np.int64) >= 0), 0, positions.why).astype(np.int16)
        kept = dataclasses.replace(positions, committed=np.array(committed, np.int64), why=why)
        return dataclasses.replace(snapshot, positions=kept)


class KeepsEnds(Around):
    """Shows the last log ends where they could not be read."""

    def __init__(self, reader: KafkaReader) -> None:
        super().__init__(reader)
        self._last: dict[object, tuple[int, int]] = {}

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        parts: PartitionColumns = snapshot.partitions
        start, end, why = parts.log_start.copy(), parts.log_end.copy(), parts.why.copy()
        for row in range(len(parts.layout)):
            key = parts.layout.key(row)
            if not why[row]:
                self._last[key] = int(start[row]), int(end[row])
            elif key in self._last:
                (start[row], end[row]), why[row] = self._last[key], 0
        kept = dataclasses.replace(parts, log_start=start, log_end=end, why=why)
        return dataclasses.replace(snapshot, partitions=kept)


class GivesUp(Around):
    """Does not ask again about a group that could not be read once."""

    def __init__(self, reader: KafkaReader) -> None:
        super().__init__(reader)
        self._given_up: dict[object, int] = {}

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        for facts in snapshot.groups:
            if facts.why:
                self._given_up.setdefault(facts.consumer, facts.why)
        layout = snapshot.positions.layout
        given_up = np.array([self._given_up.get(who, 0) for who in layout.consumers], np.int16)[layout.consumer]
        why = np.where(given_up != 0, given_up, snapshot.positions.why).astype(np.int16)
        committed = np.where(given_up != 0, UNKNOWN, snapshot.positions.committed)
        positions = dataclasses.replace(snapshot.positions, committed=committed, why=why)
        return dataclasses.replace(snapshot, positions=positions)


class ForgetsNobody(Around):
    """Goes on showing groups that are gone."""

    def __init__(self, reader: KafkaReader) -> None:
        super().__init__(reader)
        self._seen: dict[object, GroupFacts] = {}

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        self._seen.update({facts.consumer: facts for facts in snapshot.groups})
        here = {facts.consumer for facts in snapshot.groups}
        return with_consumers(snapshot, [facts for who, facts in self._seen.items() if who not in here])


class LeaksTasks(Around):
    """Leaves a task behind in every cycle."""

    def __init__(self, reader: KafkaReader) -> None:
        super().__init__(reader)
        self._tasks: list[asyncio.Task[None]] = []

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        self._tasks.append(asyncio.get_running_loop().create_task(asyncio.sleep(1e6)))
        return snapshot


class LeavesConnections(Around):
    """Does not close its connections."""

    async def close(self) -> None:
        """Do nothing."""


class KeepsSnapshots(Around):
    """Holds on to everything that it has ever read."""

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        self.reader.everything = [*getattr(self.reader, "everything", ()), snapshot]
        return snapshot


class KeepsNames(Around):
    """Remembers the name of every group and topic for ever."""

    def change(self, snapshot: KafkaSnapshot) -> KafkaSnapshot:
        names = {facts.consumer.name for facts in snapshot.groups}
        names.update(snapshot.partitions.layout.topics)
        self.reader.names = getattr(self.reader, "names", set()) | names
        return snapshot


class Dawdles(Around):
    """Takes a minute for a cycle."""

    async def observe(self) -> KafkaSnapshot:
        """Read, and wait."""
        await asyncio.sleep(60)
        return await super().observe()


class ShiftsTimes(Around):
    """Says that records are five seconds older than they are."""

    async def look_up(self, wanted: Lookups) -> Found:
        """Look up, and change what was found."""
        found = await super().look_up(wanted)
        times = np.where(found.timestamp_ms >= 0, found.timestamp_ms - 5000, found.timestamp_ms)
        return dataclasses.replace(found, timestamp_ms=times)


def with_consumers(snapshot: KafkaSnapshot, more: list[GroupFacts]) -> KafkaSnapshot:
    """Add consumers without positions."""
    old = snapshot.positions.layout
    starts = np.append(old.starts, np.repeat(old.starts[-1], len(more))).astype(np.int64)
    layout = PositionLayout(old.partitions, (*old.consumers, *(facts.consumer for facts in more)), starts, old.row)
    positions = dataclasses.replace(snapshot.positions, layout=layout)
    groups = (*snapshot.groups, *more)
    read_at = np.append(snapshot.read_at, np.full(len(more), np.nan))
    return dataclasses.replace(snapshot, positions=positions, groups=groups, read_at=read_at)


def twice(snapshot: KafkaSnapshot) -> KafkaSnapshot:
    """Show the first consumer another time."""
    return with_consumers(snapshot, list(snapshot.groups[:1]))


def without_last(snapshot: KafkaSnapshot) -> KafkaSnapshot:
    """Leave the last consumer out."""
    old: PositionColumns = snapshot.positions
    if not old.layout.consumers:
        return snapshot
    count = int(old.layout.starts[-2])
    layout = PositionLayout(
        old.layout.partitions, old.layout.consumers[:-1], old.layout.starts[:-1], old.layout.row[:count]
    )
    columns = {"committed": old.committed[:count], "why": old.why[:count]}
    said = getattr(old, "lag_said", None)
    if said is not None:
        columns["lag_said"] = said[:count]
    positions = dataclasses.replace(old, layout=layout, **columns)
    return dataclasses.replace(
        snapshot, positions=positions, groups=snapshot.groups[:-1], read_at=snapshot.read_at[:-1]
    )


def without_last_positions(snapshot: KafkaSnapshot) -> KafkaSnapshot:
    """Leave one position of each consumer out."""
    old: PositionColumns = snapshot.positions
    keep = np.ones(len(old.layout), np.bool_)
    ends = old.layout.starts[1:][np.diff(old.layout.starts) > 1] - 1
    keep[ends] = False
    starts = np.concatenate([[0], np.cumsum(keep)])[old.layout.starts].astype(np.int64)
    layout = PositionLayout(old.layout.partitions, old.layout.consumers, starts, old.layout.row[keep])
    columns = {"committed": old.committed[keep], "why": old.why[keep]}
    said = getattr(old, "lag_said", None)
    if said is not None:
        columns["lag_said"] = said[keep]
    return dataclasses.replace(snapshot, positions=dataclasses.replace(old, layout=layout, **columns))


def without_members(snapshot: KafkaSnapshot) -> KafkaSnapshot:
    """Say of every group that it has no members."""
    groups = tuple(dataclasses.replace(facts, members=0) for facts in snapshot.groups)
    return dataclasses.replace(snapshot, groups=groups)
