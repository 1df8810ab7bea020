"""What earlier polls showed, in bounded columns: the only state that changes, owned by the service, one a cluster.

It keeps the last readings of every log end (they place an offset in arrival time), running totals of what every
consumer read (rates and the read counter), the brackets of the search for record times, and counts since the start.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from monitor.derive.lag import ConsumerTopics, consumer_topics
from monitor.derive.layouts import carry, moved_partitions, moved_positions
from monitor.derive.placement import Brackets
from monitor.derive.spark import SparkMemory
from monitor.model import (
    UNKNOWN,
    Bools,
    Floats,
    Int32s,
    Int64s,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    PositionLayout,
)

ARRIVAL_READINGS = 48
"""Readings of the log ends that are kept: 8 minutes at one every 10 s, 48 x 8 bytes a partition."""

RATE_WINDOW_SECONDS = 60.0
"""Rates are averages over about this long: steady enough to read, young enough to act on."""


@dataclass(slots=True)
class Window:
    """The last values of a column with the time of each, reaching back about RATE_WINDOW_SECONDS."""

    points: deque[tuple[float, Int64s]] = field(default_factory=deque)

    def add(self, at: float, values: Int64s) -> None:
        """Keep a reading, and forget those no longer needed to span the window."""
        self.points.append((at, values))
        while len(self.points) > 2 and at - self.points[1][0] >= RATE_WINDOW_SECONDS:  # noqa: PLR2004 (two make a rate)
            self.points.popleft()

    def carry(self, moved: Int64s) -> None:
        """Follow rows to their new places; new rows have no past."""
        self.points = deque((at, carry(values, moved, UNKNOWN)) for at, values in self.points)

    def per_second(self) -> Floats:
        """Return the mean growth per second since the oldest known reading; NaN without one or after a fall."""
        at, last = self.points[-1]
        rate = np.full(len(last), np.nan)
        for then, values in reversed(list(self.points)[:-1]):
            usable = (values >= 0) & (last >= values) & (at > then)
            rate[usable] = (last[usable] - values[usable]) / (at - then)
        return rate


@dataclass(slots=True)
class Arrivals:
    """Readings of the log ends: ``ends[k]`` was read after ``begun[k]`` and before ``done[k]``; newest last."""

    begun: deque[float] = field(default_factory=lambda: deque(maxlen=ARRIVAL_READINGS))
    done: deque[float] = field(default_factory=lambda: deque(maxlen=ARRIVAL_READINGS))
    ends: deque[Int64s] = field(default_factory=lambda: deque(maxlen=ARRIVAL_READINGS))

    def add(self, begun: float, done: float, ends: Int64s) -> None:
        """Keep a reading; -1 where the end was not read."""
        self.begun.append(begun)
        self.done.append(done)
        self.ends.append(ends)

    def carry(self, moved: Int64s, restarted: Bools) -> None:
        """Follow rows to their new places; ``restarted`` rows (by new row) lose their past."""
        kept = [np.where(restarted, UNKNOWN, carry(ends, moved, UNKNOWN)) for ends in self.ends]
        self.ends = deque(kept, maxlen=ARRIVAL_READINGS)

    def between(self, rows: Int32s, offsets: Int64s) -> tuple[Floats, Floats]:
        """Return after which and before which moment the record at each offset arrived, NaN where no reading tells."""
        after, before = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        for begun, done, ends in zip(self.begun, self.done, self.ends, strict=True):
            end = ends[rows]
            after[(end >= 0) & (end <= offsets)] = begun
            before[(end > offsets) & np.isnan(before)] = done
        return after, before


class History:
    """The past of one cluster. ``observe`` takes a new poll in; everything else reads.

    Not safe for two cycles at once: the service runs one cycle of a cluster at a time.
    """

    def __init__(self) -> None:
        nothing = np.zeros(0, np.int32)
        partitions = PartitionLayout((), nothing, nothing)
        self.layout = PositionLayout(partitions, (), np.zeros(1, np.int64), nothing)
        self.pairs: ConsumerTopics = consumer_topics(self.layout)
        self.brackets = Brackets.fresh(0)
        self.arrivals = Arrivals()
        self.topic_window = Window()
        self.consumer_window = Window()
        self.committed = np.zeros(0, np.int64)
        self.pair_total = np.zeros(0, np.int64)
        self.last_end = np.zeros(0, np.int64)
        self.restarted = np.zeros(0, np.bool_)
        self.last_success: dict[str, float] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.spark: dict[str, SparkMemory] = {}

    def observe(self, partitions: PartitionColumns, positions: PositionColumns, begun: float, done: float) -> None:
        """Take in a poll, read between ``begun`` and ``done``: follow the rows, then remember ends and totals."""
        if not self.layout.same_rows(positions.layout):
            self._move(positions.layout)
        # A log end that fell: the topic was re-created or cut, and nothing known of its records holds any more.
        fell = (partitions.log_end >= 0) & (partitions.log_end < self.last_end)
        self.restarted = fell[self.layout.row]
        if fell.any():
            self.arrivals.carry(np.arange(len(fell), dtype=np.int64), fell)
        self.last_end = np.where(partitions.log_end >= 0, partitions.log_end, self.last_end)
        self.arrivals.add(begun, done, partitions.log_end)
        self._count_reads(positions)

    def observe_rates(self, at: float, topic_totals: Int64s, consumers_known: Bools) -> tuple[Floats, Floats]:
        """Remember running totals and return records per second of topics and of consumers, NaN where unknown."""
        self.topic_window.add(at, topic_totals)
        owner = self.pairs.consumer
        read = np.bincount(owner, weights=self.pair_total, minlength=len(self.layout.consumers)).astype(np.int64)
        self.consumer_window.add(at, np.where(consumers_known, read, UNKNOWN))
        return self.topic_window.per_second(), self.consumer_window.per_second()

    def count(self, source: str, requests: Mapping[str, int], failed_scopes: Mapping[str, int]) -> None:
        """Add up requests by API and failures by scope of one source."""
        for api, number in requests.items():
            self.requests[source, api] += number
        for scope, number in failed_scopes.items():
            self.failures[source, scope] += number

    def _move(self, layout: PositionLayout) -> None:
        old, old_pairs = self.layout, self.pairs
        rows = moved_partitions(old.partitions, layout.partitions)
        at = moved_positions(old, layout, rows)
        self.brackets = self.brackets.carried(at)
        self.committed = carry(self.committed, at, UNKNOWN)
        self.last_end = carry(self.last_end, rows, UNKNOWN)
        self.arrivals.carry(rows, np.zeros(len(rows), np.bool_))
        topic_was = _index_of(old.partitions.topics, layout.partitions.topics)
        self.topic_window.carry(topic_was)
        consumer_was = _index_of(old.consumers, layout.consumers)
        self.consumer_window.carry(consumer_was)
        self.layout, self.pairs = layout, consumer_topics(layout)
        self.pair_total = self._carry_totals(old_pairs, consumer_was, topic_was)

    def _carry_totals(self, old: ConsumerTopics, consumer_was: Int64s, topic_was: Int64s) -> Int64s:
        before = dict(zip(zip(old.consumer.tolist(), old.topic.tolist(), strict=True), self.pair_total, strict=True))
        was = zip(consumer_was[self.pairs.consumer].tolist(), topic_was[self.pairs.topic].tolist(), strict=True)
        return np.fromiter((before.get(pair, 0) for pair in was), np.int64, len(self.pairs.consumer))

    def _count_reads(self, positions: PositionColumns) -> None:
        known = (positions.committed >= 0) & (self.committed >= 0)
        advance = np.where(known, np.maximum(positions.committed - self.committed, 0), 0)
        pairs = len(self.pairs.consumer)
        self.pair_total = self.pair_total + np.bincount(self.pairs.pair, weights=advance, minlength=pairs).astype(
            np.int64
        )
        self.committed = np.where(positions.committed >= 0, positions.committed, self.committed)


def _index_of(old: tuple[object, ...], new: tuple[object, ...]) -> Int64s:
    number = {value: index for index, value in enumerate(old)}
    return np.fromiter((number.get(value, -1) for value in new), np.int64, len(new))
