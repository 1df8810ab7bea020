"""Carrying columns over when rows come and go."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from monitor.model import Int64s, PartitionLayout, PositionLayout, TopicPartition

T = TypeVar("T", bound=np.generic)


def row_numbers(layout: PartitionLayout) -> dict[TopicPartition, int]:
    """Return the row of every partition."""
    return {layout.key(row): row for row in range(len(layout))}


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
