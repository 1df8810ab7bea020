"""Putting several sources over one set of rows: more consumers behind the groups of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from monitor.derive.layouts import row_numbers
from monitor.model import (
    UNKNOWN,
    Consumer,
    Int16s,
    Int64s,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    PositionLayout,
    TopicPartition,
    Why,
)


class Addition(NamedTuple):
    """A consumer to be put behind the groups: its offsets, and why they are unknown or 0."""

    consumer: Consumer
    offsets: Mapping[TopicPartition, int]
    why: int


class Join:
    """The layout of the groups with the additions behind them, the same object for as long as nothing came or went."""

    def __init__(self) -> None:
        self._laid_for: tuple[PartitionLayout, PositionLayout, object] | None = None
        self._layout: PositionLayout

    def join(
        self, partitions: PartitionColumns, positions: PositionColumns, additions: Sequence[Addition]
    ) -> tuple[PartitionColumns, PositionColumns]:
        """Return both with the additions; a partition that only they know becomes an unknown row."""
        layout = self._lay_out(partitions.layout, positions.layout, additions)
        return _extended(partitions, layout.partitions), _appended(positions, layout, *_columns(additions))

    def _lay_out(
        self, partitions: PartitionLayout, positions: PositionLayout, additions: Sequence[Addition]
    ) -> PositionLayout:
        rows = [(each.consumer, sorted(each.offsets)) for each in additions]
        before = self._laid_for
        if before is None or before[0] is not partitions or before[1] is not positions or before[2] != rows:
            self._layout = _layout_with(partitions, positions, rows)
            self._laid_for = partitions, positions, rows
        return self._layout


def _columns(additions: Sequence[Addition]) -> tuple[Int64s, Int16s]:
    offsets = [UNKNOWN if each.why else offset for each in additions for _, offset in sorted(each.offsets.items())]
    whys = [each.why for each in additions for _ in each.offsets]
    return np.array(offsets, np.int64), np.array(whys, np.int16)


def _layout_with(
    partitions: PartitionLayout, positions: PositionLayout, rows: Sequence[tuple[Consumer, Sequence[TopicPartition]]]
) -> PositionLayout:
    number = row_numbers(partitions)
    extended = _layout_of(partitions, {where for _, wanted in rows for where in wanted if where not in number})
    if extended is not partitions:
        number = row_numbers(extended)
    sizes = [len(wanted) for _, wanted in rows]
    return PositionLayout(
        extended,
        (*positions.consumers, *(consumer for consumer, _ in rows)),
        np.append(positions.starts, positions.starts[-1] + np.cumsum(sizes, dtype=np.int64)),
        np.append(positions.row, [number[where] for _, wanted in rows for where in wanted]).astype(np.int32),
    )


def _layout_of(layout: PartitionLayout, missing: Iterable[TopicPartition]) -> PartitionLayout:
    added = sorted(missing)
    if not added:
        return layout
    topics = tuple(dict.fromkeys((*layout.topics, *(where.topic for where in added))))
    number = {topic: index for index, topic in enumerate(topics)}
    return PartitionLayout(
        topics,
        np.append(layout.topic, [number[where.topic] for where in added]).astype(np.int32),
        np.append(layout.partition, [where.partition for where in added]).astype(np.int32),
    )


def _extended(columns: PartitionColumns, layout: PartitionLayout) -> PartitionColumns:
    more = len(layout) - len(columns.layout)
    if not more:
        return columns
    unknown = np.full(more, UNKNOWN, np.int64)
    return PartitionColumns(
        layout,
        np.append(columns.log_start, unknown),
        np.append(columns.log_end, unknown),
        np.append(columns.last_stable, unknown),
        np.append(columns.why, np.full(more, Why.TOPIC_GONE, np.int16)),
        np.append(columns.read_at, np.full(more, np.nan)),
    )


def _appended(positions: PositionColumns, layout: PositionLayout, committed: Int64s, why: Int16s) -> PositionColumns:
    said = positions.lag_said
    return PositionColumns(
        layout,
        np.append(positions.committed, committed),
        np.append(positions.why, why),
        None if said is None else np.append(said, np.full(len(committed), UNKNOWN, np.int64)),
    )
