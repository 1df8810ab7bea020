"""Putting several sources over one set of rows, and carrying columns over when rows come and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from monitor.model import (
    UNKNOWN,
    Consumer,
    Int64s,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    PositionLayout,
    TopicPartition,
    Why,
)

T = TypeVar("T", bound=np.generic)


def row_numbers(layout: PartitionLayout) -> dict[TopicPartition, int]:
    """Return the row of every partition."""
    return {layout.key(row): row for row in range(len(layout))}


def extend_partitions(columns: PartitionColumns, missing: Iterable[TopicPartition]) -> PartitionColumns:
    """Return the columns with a row added for each partition that somebody reads and the cluster does not list."""
    added = sorted(set(missing))
    if not added:
        return columns
    layout = columns.layout
    topics = dict.fromkeys((*layout.topics, *(tp.topic for tp in added)))
    number = {topic: index for index, topic in enumerate(topics)}
    extended = PartitionLayout(
        tuple(topics),
        np.append(layout.topic, [number[tp.topic] for tp in added]).astype(np.int32),
        np.append(layout.partition, [tp.partition for tp in added]).astype(np.int32),
    )
    unknown = np.full(len(added), UNKNOWN, np.int64)
    return PartitionColumns(
        extended,
        np.append(columns.log_start, unknown),
        np.append(columns.log_end, unknown),
        np.append(columns.last_stable, unknown),
        np.append(columns.why, np.full(len(added), Why.TOPIC_GONE, np.int16)),
        np.append(columns.read_at, np.full(len(added), np.nan)),
    )


def append_consumers(
    positions: PositionColumns,
    partitions: PartitionLayout,
    extra: Sequence[tuple[Consumer, Mapping[TopicPartition, int], int]],
) -> PositionColumns:
    """Return the positions with more consumers behind them: (consumer, its offsets, why they are unknown or 0)."""
    row_of = row_numbers(partitions)
    rows, committed, why, sizes = [], [], [], []
    for _, offsets, reason in extra:
        sizes.append(len(offsets))
        for tp, offset in sorted(offsets.items()):
            rows.append(row_of[tp])
            committed.append(UNKNOWN if reason else offset)
            why.append(reason)
    old = positions.layout
    layout = PositionLayout(
        partitions,
        (*old.consumers, *(consumer for consumer, _, _ in extra)),
        np.append(old.starts, old.starts[-1] + np.cumsum(sizes, dtype=np.int64)),
        np.append(old.row, rows).astype(np.int32),
    )
    return PositionColumns(
        layout,
        np.append(positions.committed, committed).astype(np.int64),
        np.append(positions.why, why).astype(np.int16),
    )


def moved_partitions(old: PartitionLayout, new: PartitionLayout) -> Int64s:
    """Return for each row of ``new`` the row it had in ``old``, -1 where it is new."""
    before = row_numbers(old)
    return np.fromiter((before.get(new.key(row), -1) for row in range(len(new))), np.int64, len(new))


def moved_positions(old: PositionLayout, new: PositionLayout, moved: Int64s) -> Int64s:
    """Return for each position of ``new`` the index it had in ``old``, -1 where it is new."""
    if not len(old):
        return np.full(len(new), -1, np.int64)
    number = {consumer: index for index, consumer in enumerate(old.consumers)}
    was = np.array([number.get(consumer, -1) for consumer in new.consumers], np.int64)[new.consumer]
    was_row = moved[new.row]
    width = len(old.partitions) + 1
    old_keys = old.consumer.astype(np.int64) * width + old.row
    order = np.argsort(old_keys)
    wanted = was * width + was_row
    place = np.clip(np.searchsorted(old_keys, wanted, sorter=order), 0, len(old) - 1)
    hit = order[place]
    return np.where((was >= 0) & (was_row >= 0) & (old_keys[hit] == wanted), hit, -1)


def carry(column: npt.NDArray[T], moved: Int64s, fresh: float) -> npt.NDArray[T]:
    """Return a column over the new rows: the old value where the row existed, ``fresh`` where not."""
    if not len(column):
        return np.full(len(moved), fresh, column.dtype)
    return np.where(moved >= 0, column[moved], np.asarray(fresh, column.dtype))
