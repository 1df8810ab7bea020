"""What earlier polls showed, in bounded columns: the only state that changes, owned by the service, one a cluster.

It keeps the last readings of every log end (they place an offset in arrival time), running totals of what every
consumer read (rates and the read counter), the brackets of the search for record times, which logs and commits they
were (``identity``, ``reads``), what belongs to whom (``belonging``), rebalances, what is to be told (``notebook``), and
counts since the start.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monitor.derive.belonging import Belonging
from monitor.derive.findings import LOST, REWOUND, Notebook, note_breaks, note_events
from monitor.derive.groups import GroupColumns, group_columns
from monitor.derive.identity import Identity
from monitor.derive.join import Join
from monitor.derive.kept import Steps, same
from monitor.derive.lag import ConsumerTopics, RecordLag, consumer_topics
from monitor.derive.layouts import carry, moved_partitions, moved_positions
from monitor.derive.placement import Brackets
from monitor.derive.reads import Moves, Reads
from monitor.derive.rebalances import Rebalances
from monitor.derive.spark import SparkMemory
from monitor.model import (
    UNKNOWN,
    Bools,
    Consumer,
    Floats,
    GroupFacts,
    Int32s,
    Int64s,
    KafkaSnapshot,
    Kind,
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

    def forget(self, rows: Int64s) -> None:
        """Take the past away from these rows: their next value is the first of something new."""
        forgotten = np.zeros(len(self.points[-1][1]) if self.points else 0, np.bool_)
        forgotten[rows] = True
        self.points = deque((at, np.where(forgotten, UNKNOWN, values)) for at, values in self.points)

    def per_second(self) -> Floats:
        """Return the mean growth per second since the oldest known reading; NaN without one or after a fall."""
        at, last = self.points[-1]
        rate = np.full(len(last), np.nan)
        for then, values in reversed(list(self.points)[:-1]):
            usable = (values >= 0) & (last >= values) & (at > then)
            rate[usable] = (last[usable] - values[usable]) / (at - then)
        return rate


@dataclass(slots=True)
class Reading:
    """Log ends as they were read between ``begun`` and ``done``, and, all the same, once more after ``again_begun``."""

    begun: float
    done: float
    again_begun: float
    ends: Int64s


@dataclass(slots=True)
class Arrivals:
    """Readings of the log ends, newest last. ``version`` is another object whenever they are others."""

    readings: deque[Reading] = field(default_factory=lambda: deque(maxlen=ARRIVAL_READINGS))
    version: object = field(default_factory=object)

    def add(self, begun: float, done: float, ends: Int64s) -> None:
        """Keep a reading; -1 where the end was not read. The same ends again only last longer."""
        if self.readings and self.readings[-1].ends is ends:
            self.readings[-1].again_begun = begun
            return
        self.readings.append(Reading(begun, done, begun, ends))
        self.version = object()

    def carry(self, moved: Int64s) -> None:
        """Follow rows to their new places."""
        self._replace(lambda ends: carry(ends, moved, UNKNOWN))

    def forget(self, rows: Bools) -> None:
        """Take the past away from these rows."""
        self._replace(lambda ends: np.where(rows, UNKNOWN, ends))

    def _replace(self, change: Callable[[Int64s], Int64s]) -> None:
        for reading in self.readings:
            reading.ends = change(reading.ends)
        self.version = object()

    def between(self, rows: Int32s, offsets: Int64s) -> tuple[Floats, Floats]:
        """Return after which and before which moment the record at each offset arrived, NaN where no reading tells."""
        after, before = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
        for reading in self.readings if len(rows) else ():
            end = reading.ends[rows]
            after[(end >= 0) & (end <= offsets)] = reading.again_begun
            before[(end > offsets) & np.isnan(before)] = reading.done
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
        self.owner = self.layout.consumer
        self.is_shared: Bools | None = None
        self.brackets = Brackets.fresh(0)
        self.arrivals = Arrivals()
        self.topic_window = Window()
        self.consumer_window = Window()
        self.pair_total = np.zeros(0, np.int64)
        self.restarted: Bools | None = None
        self.settled: tuple[object, ...] = ()
        self._wanted: RecordLag | None = None
        self._columns: tuple[PartitionColumns, PositionColumns] | None = None
        self.identity = Identity()
        self.reads = Reads()
        self.belonging = Belonging()
        self.rebalances = Rebalances()
        self.notebook = Notebook()
        self.groups: GroupColumns = group_columns(())
        self.read_at = np.zeros(0)
        self.queries: tuple[tuple[Consumer, int], ...] = ()
        self.steps = Steps()
        self.join = Join()
        self.last_success: dict[str, float] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.spark: dict[str, SparkMemory] = {}

    def observe(
        self, kafka: KafkaSnapshot, partitions: PartitionColumns, positions: PositionColumns,
        groups: tuple[GroupFacts, ...], read_at: Floats,
    ) -> tuple[PartitionColumns, PositionColumns]:  # fmt: skip
        """Take in a poll: follow the rows, then remember what logs, commits and groups say.

        Return the columns with what is as it was before as the same objects, layouts first of all: later steps, and
        publishers, keep what they made of them.
        """
        self.read_at = read_at
        self.groups = self.steps.groups.get(lambda *_: _as_before(group_columns(groups), self.groups), groups)
        if not self.layout.same_rows(positions.layout):
            self._move(positions.layout, kafka.at)
        partitions, positions = self._recognised(partitions, positions)
        self._observe_logs(kafka, partitions, positions)
        self.belonging.judge(groups, self.pairs, self.layout.partitions.topics)
        self.rebalances.observe(groups, self.groups, kafka.started_at, kafka.at)
        return partitions, positions

    def _recognised(
        self, partitions: PartitionColumns, positions: PositionColumns
    ) -> tuple[PartitionColumns, PositionColumns]:
        ends, said = self._columns if self._columns is not None else (partitions, positions)
        partitions = PartitionColumns(
            self.layout.partitions,
            same(partitions.log_start, ends.log_start),
            same(partitions.log_end, ends.log_end),
            same(partitions.last_stable, ends.last_stable),
            same(partitions.why, ends.why),
            same(partitions.read_at, ends.read_at),
        )
        lag_said = positions.lag_said
        if lag_said is not None and said.lag_said is not None:
            lag_said = same(lag_said, said.lag_said)
        positions = PositionColumns(
            self.layout, same(positions.committed, said.committed), same(positions.why, said.why), lag_said
        )
        self._columns = partitions, positions
        return partitions, positions

    def _observe_logs(self, kafka: KafkaSnapshot, partitions: PartitionColumns, positions: PositionColumns) -> None:
        layout = self.layout
        breaks, growth = self.identity.observe(partitions, kafka.topic_ids, kafka.at)
        # Where a log is not what it was, nothing known of its records holds any more.
        self.restarted = None if breaks is None else breaks.broken[layout.row]
        if breaks is not None:
            self.arrivals.forget(breaks.broken)
            self.topic_window.forget(np.unique(layout.partitions.topic[breaks.broken]))
            note_breaks(self.notebook, breaks, partitions, layout=layout, committed=positions.committed, at=kafka.at)
        self.arrivals.add(kafka.started_at, kafka.at, partitions.log_end)
        moves = self.reads.observe(positions, partitions, breaks, growth, is_shared=self.is_shared, at=kafka.at)
        self._note_moves(moves, kafka.at)

    def _note_moves(self, moves: Moves, at: float) -> None:
        pairs = self.pairs
        if moves.advance is not None:
            read = np.bincount(pairs.pair, weights=moves.advance, minlength=len(pairs.consumer))
            self.pair_total = self.pair_total + read.astype(np.int64)
        has_moved = np.zeros(len(pairs.consumer), np.bool_)
        has_moved[pairs.pair[moves.moved]] = True
        moved = np.flatnonzero(has_moved)
        self.belonging.note_moved(moved, self._read_at(pairs.consumer[moved], at))
        note_events(self.notebook, REWOUND, moves.rewound, self.layout, at)
        note_events(self.notebook, LOST, moves.lost, self.layout, at)

    def want(self, records: RecordLag) -> None:
        """Aim the search for record times at the first unread record of every position."""
        if records is not self._wanted or self.restarted is not None:
            self.brackets.want(records.next_offset, records.lag > 0, self.restarted)
            self._wanted = records

    def _read_at(self, consumers: Int32s, at: float) -> Floats:
        """Return when the commits of each of these consumers were read, at the latest when the poll ended."""
        read_at: Floats = np.fmin(self.read_at[consumers], at)
        return read_at

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

    def _move(self, layout: PositionLayout, at: float) -> None:
        old, old_pairs = self.layout, self.pairs
        rows = moved_partitions(old.partitions, layout.partitions)
        positions = moved_positions(old, layout, rows)
        self.brackets = self.brackets.carried(positions)
        self.reads.carry(positions)
        self.identity.carry(rows)
        self.arrivals.carry(rows)
        topic_was = _index_of(old.partitions.topics, layout.partitions.topics)
        self.topic_window.carry(topic_was)
        consumer_was = _index_of(old.consumers, layout.consumers)
        self.consumer_window.carry(consumer_was)
        self.rebalances.carry(consumer_was)
        self.layout, self.pairs, self.owner = layout, consumer_topics(layout), layout.consumer
        self.is_shared = _positions_of(layout, Kind.SHARE_GROUP)
        pair_was = _pairs_before(old_pairs, self.pairs, consumer_was, topic_was)
        self.pair_total = carry(self.pair_total, pair_was, 0)
        self.belonging.carry(pair_was, consumer_was, self.pairs, self._read_at(self.pairs.consumer, at))


def _as_before(new: GroupColumns, old: GroupColumns) -> GroupColumns:
    """Return the columns, those that are equal to the old ones as the same objects."""
    columns: Iterable[tuple[Any, Any]] = zip(new, old, strict=True)
    return GroupColumns._make(same(column, before) for column, before in columns)


def _positions_of(layout: PositionLayout, kind: Kind) -> Bools | None:
    """Return which positions are a kind of consumer's, None where none is."""
    consumers = np.fromiter((consumer.kind is kind for consumer in layout.consumers), np.bool_, len(layout.consumers))
    return consumers[layout.consumer] if consumers.any() else None


def _pairs_before(old: ConsumerTopics, new: ConsumerTopics, consumer_was: Int64s, topic_was: Int64s) -> Int64s:
    """Return for each pair the number it had before, -1 where it is new."""
    width = 1 + max(old.topic.max(initial=0), topic_was.max(initial=0))
    before = old.consumer.astype(np.int64) * width + old.topic  # ascending, as pairs are
    consumer, topic = consumer_was[new.consumer], topic_was[new.topic]
    wanted = consumer * width + topic
    if not len(before):
        return np.full(len(wanted), -1, np.int64)
    place = np.clip(np.searchsorted(before, wanted), 0, len(before) - 1)
    return np.where((consumer >= 0) & (topic >= 0) & (before[place] == wanted), place, -1)


def _index_of(old: tuple[object, ...], new: tuple[object, ...]) -> Int64s:
    number = {value: index for index, value in enumerate(old)}
    return np.fromiter((number.get(value, -1) for value in new), np.int64, len(new))
