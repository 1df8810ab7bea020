"""From the coordinators' answers to rows: who has a position on which partition. Pure.

The layout depends on who committed where, which seldom changes; only offsets move. So the way from the answers
to the rows is planned once and kept for as long as the same groups have positions on the same partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monitor.model import (
    UNKNOWN,
    Consumer,
    Int16s,
    Int32s,
    Int64s,
    PositionColumns,
    PositionLayout,
    TopicPartition,
    Why,
)
from monitor.observe.kafka.cluster import TOPIC_AUTHORIZATION_FAILED, Rows
from monitor.observe.kafka.wire import Offsets, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """What positions are made of.

    Consumers are sorted; ``owner`` says for each that answered which group of which answer is its own.
    ``assigned`` has the partitions of its members, ``subscribed`` the topics they want. ``kept`` has the positions of
    consumers that could not be read, as they were before, each with its failure as error. ``takes_topic`` says which
    topics are looked at. What did not change is the same object as in the sources before.
    """

    consumers: tuple[Consumer, ...]
    answers: Sequence[Offsets]
    owner: Mapping[str, tuple[int, int]]
    assigned: Mapping[str, Mapping[TopicPartition, str]]
    kept: Shape | None = None
    subscribed: Mapping[str, Collection[str]] = field(default_factory=dict)
    takes_topic: Callable[[str], bool] = lambda _name: True

    def is_like(self, other: Sources) -> bool:
        """Return whether both lead to the same rows by the same way: all but the offsets are the same."""
        return (
            len(self.answers) == len(other.answers)
            and all(a.shape is b.shape for a, b in zip(self.answers, other.answers, strict=True))
            and self.kept is other.kept
            and self.consumers == other.consumers
            and self.owner == other.owner
            and self.assigned is other.assigned
            and self.subscribed is other.subscribed
        )


def used_partitions(sources: Sources, rows: Rows) -> dict[str, set[int]]:
    """Return the partitions with a position that the layout lacks, by topic."""
    used: dict[str, set[int]] = {}
    for shape in (*_shapes(sources), _assignments(sources)):
        missing = np.flatnonzero(rows.find(shape.topics, shape.topic, shape.partition) < 0)
        for topic, partition in zip(shape.topic[missing].tolist(), shape.partition[missing].tolist(), strict=True):
            if sources.takes_topic(shape.topics[topic]):
                used.setdefault(shape.topics[topic], set()).add(partition)
    return used


class Plan:
    """The way from answers to positions, for one set of sources over one partition layout."""

    def __init__(self, sources: Sources, rows: Rows, before: PositionLayout | None) -> None:
        self.sources = sources
        self.rows = rows
        parts = [self._committed(sources, rows), self._assigned(sources, rows), self._subscribed(sources, rows)]
        consumer, row, source, error = (np.concatenate(column) for column in zip(*parts, strict=True))
        # A commit comes before the same partition's assignment, which is only wanted where there is no commit.
        order = np.lexsort((source == UNKNOWN, row, consumer))
        consumer, row, source, error = consumer[order], row[order], source[order], error[order]
        first = np.ones(len(row), np.bool_)
        first[1:] = (np.diff(consumer) != 0) | (np.diff(row) != 0)
        self._source, self._error = source[first], error[first]
        starts = np.searchsorted(consumer[first], np.arange(len(sources.consumers) + 1)).astype(np.int64)
        layout = PositionLayout(rows.layout, sources.consumers, starts, row[first].astype(np.int32))
        self.layout = before if before is not None and layout.same_rows(before) else layout
        self._made: tuple[Sequence[Offsets], Int16s, PositionColumns] | None = None

    def columns(self, answers: Sequence[Offsets], partition_why: Int16s) -> PositionColumns:
        """Return the positions: offsets of answers shaped like those planned for.

        Args:
            answers: The answers, in the order of the sources.
            partition_why: Why each partition of the layout is unknown.
        """
        made = self._made
        if made is not None and made[1] is partition_why and _are_same(made[0], answers):
            return made[2]
        # The last element stands for rows that no answer is about.
        offsets = np.concatenate([*(answer.offset for answer in answers), [UNKNOWN]])
        committed = offsets[self._source]
        why = np.where(self._error != 0, self._error, np.where(committed >= 0, 0, Why.NO_COMMIT)).astype(np.int16)
        why[(self._error == 0) & (committed < UNKNOWN)] = Why.MALFORMED
        about = partition_why[self.layout.row]
        # A commit on a topic that is gone says nothing, and one on a topic we may not see is not shown to us.
        lost = (about == Why.TOPIC_GONE) | ((about == TOPIC_AUTHORIZATION_FAILED) & (committed < 0))
        why = np.where(lost & np.isin(why, (0, Why.NO_COMMIT)), about, why)
        columns = PositionColumns(self.layout, np.where(why == 0, committed, UNKNOWN), why, self._lags(answers, why))
        self._made = (answers, partition_why, columns)
        return columns

    def _lags(self, answers: Sequence[Offsets], why: Int16s) -> Int64s | None:
        """Return the lags that brokers counted themselves, None where none of the answers has any."""
        if all(answer.lag is None for answer in answers):
            return None
        nothing = [np.full(len(answer.shape), UNKNOWN, np.int64) for answer in answers]
        lags = [none if answer.lag is None else answer.lag for answer, none in zip(answers, nothing, strict=True)]
        lag = np.concatenate([*lags, [UNKNOWN]])[self._source]
        return np.where((why == 0) & (lag >= 0), lag, UNKNOWN)

    @staticmethod
    def _committed(sources: Sources, rows: Rows) -> tuple[Int32s, Int32s, Int64s, Int16s]:
        index = {consumer.name: i for i, consumer in enumerate(sources.consumers)}
        columns: list[tuple[Int32s, Int32s, Int64s, Int16s]] = [_NOTHING]
        begin = 0
        for number, shape in enumerate(_shapes(sources)):
            is_kept = number == len(sources.answers)
            mine = [
                index.get(name, UNKNOWN) if is_kept or sources.owner.get(name) == (number, i) else UNKNOWN
                for i, name in enumerate(shape.groups)
            ]
            consumer = np.array(mine or [UNKNOWN], np.int32)[shape.group]
            row = rows.find(shape.topics, shape.topic, shape.partition)
            source = np.arange(begin, begin + len(shape), dtype=np.int64)
            if is_kept:
                source[:] = UNKNOWN
            begin += len(shape)
            wanted = (consumer >= 0) & (row >= 0)
            columns.append((consumer[wanted], row[wanted], source[wanted], shape.error[wanted]))
        consumers, row_columns, source_columns, errors = zip(*columns, strict=True)
        return (
            np.concatenate(consumers),
            np.concatenate(row_columns),
            np.concatenate(source_columns),
            np.concatenate(errors),
        )

    @staticmethod
    def _assigned(sources: Sources, rows: Rows) -> tuple[Int32s, Int32s, Int64s, Int16s]:
        shape = _assignments(sources)
        row = rows.find(shape.topics, shape.topic, shape.partition)
        return _without_commit(shape.group[row >= 0], row[row >= 0])

    @staticmethod
    def _subscribed(sources: Sources, rows: Rows) -> tuple[Int32s, Int32s, Int64s, Int16s]:
        pairs = [
            (index, topic)
            for index, consumer in enumerate(sources.consumers)
            for name in sorted(sources.subscribed.get(consumer.name, ()))
            if (topic := rows.topic_number(name)) is not None
        ]
        if not pairs:
            return _NOTHING
        found = [rows.of_topic(topic) for _, topic in pairs]
        consumer = np.repeat(np.array([index for index, _ in pairs], np.int32), [len(each) for each in found])
        return _without_commit(consumer, np.concatenate(found))


def _are_same(some: Sequence[Offsets], others: Sequence[Offsets]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def _without_commit(consumer: Int32s, row: Int32s) -> tuple[Int32s, Int32s, Int64s, Int16s]:
    count = len(row)
    return consumer, row, np.full(count, UNKNOWN, np.int64), np.full(count, Why.NO_COMMIT, np.int16)


_NOTHING = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int16))


def _shapes(sources: Sources) -> list[Shape]:
    shapes = [answer.shape for answer in sources.answers]
    return shapes if sources.kept is None else [*shapes, sources.kept]


def _assignments(sources: Sources) -> Shape:
    """Return the assigned partitions in the form of an answer; ``group`` indexes the consumers."""
    topics: dict[str, int] = {}
    entries = [
        (index, topics.setdefault(topic, len(topics)), partition)
        for index, consumer in enumerate(sources.consumers)
        for topic, partition in sources.assigned.get(consumer.name, ())
    ]
    group, topic, partition = np.array(entries, np.int32).reshape(-1, 3).T
    return Shape(tuple(topics), topic, partition, np.zeros(len(entries), np.int16), group=group)


def keep(names: Mapping[str, int], before: PositionLayout) -> Shape:
    """Return the positions that consumers had before, each with the reason why they are unknown now."""
    index = {consumer.name: i for i, consumer in enumerate(before.consumers)}
    kept = [name for name in names if name in index]
    ranges = [np.arange(*before.starts[index[name] : index[name] + 2]) for name in kept]
    sizes = [len(positions) for positions in ranges]
    row = before.row[np.concatenate([np.empty(0, np.int64), *ranges]).astype(np.int64)]
    layout = before.partitions
    return Shape(
        layout.topics,
        layout.topic[row],
        layout.partition[row],
        np.repeat(np.array([names[name] for name in kept], np.int16), sizes),
        groups=tuple(kept),
        group=np.repeat(np.arange(len(kept), dtype=np.int32), sizes),
        group_error=np.zeros(len(kept), np.int16),
    )
