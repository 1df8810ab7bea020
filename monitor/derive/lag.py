"""Lag in records: what contracts call ``lag`` and ``lost_records``, by position, topic and consumer.

    lag  = log_end - max(committed, log_start)
    lost = max(0, log_start - committed)

Unknown in, unknown out: a sum is known only if all its parts are. The one exception is a partition
without any record: nothing can be unread there, so its lag is 0 even without a commit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.model import (
    UNKNOWN,
    Bools,
    Int16s,
    Int32s,
    Int64s,
    PartitionColumns,
    PositionColumns,
    PositionLayout,
    Why,
)


class RecordLag(NamedTuple):
    """Columns over positions. ``next_offset`` is the next readable offset, max(committed, log_start)."""

    next_offset: Int64s
    lag: Int64s
    lost: Int64s
    why: Int16s
    beyond_end: Bools


def record_lag(partitions: PartitionColumns, positions: PositionColumns) -> RecordLag:
    """Return lag and lost records of every position, -1 with a reason where they are unknown."""
    row = positions.layout.row
    start, end, end_why = partitions.log_start[row], partitions.log_end[row], partitions.why[row]
    committed = positions.committed

    readable = end_why == 0
    empty = readable & (start == end) & ((positions.why == 0) | (positions.why == Why.NO_COMMIT))
    counted = readable & (positions.why == 0)
    beyond = counted & (committed > end)
    known = (counted & ~beyond) | (empty & ~beyond)

    next_offset = np.where(known, np.maximum(committed, start), UNKNOWN)
    lag = np.where(known, end - next_offset, UNKNOWN)
    lost = np.where(known & counted, np.maximum(start - committed, 0), np.where(known, 0, UNKNOWN))
    reason = np.where(positions.why != 0, positions.why, end_why)
    why = np.where(known, 0, np.where(beyond, Why.BEYOND_END, reason)).astype(np.int16)
    return RecordLag(next_offset, lag, lost, why, beyond)


class Sums(NamedTuple):
    """One row a group of positions: total (-1 unless all parts are known), sum of the known parts, counts."""

    total: Int64s
    known: Int64s
    parts_known: Int64s
    parts_unknown: Int64s


def sum_parts(values: Int64s, group: Int32s, groups: int) -> Sums:
    """Add up ``values`` (-1 unknown) by ``group`` (an index below ``groups`` for each value).

    A group without any part has a total of 0: whether that means something is the caller's business.
    """
    known = values >= 0
    # float64 holds sums exactly up to 2**53 records, three orders above the largest clusters.
    added = np.bincount(group, weights=np.where(known, values, 0), minlength=groups).astype(np.int64)
    parts = np.bincount(group, minlength=groups)
    parts_known = np.bincount(group, weights=known, minlength=groups).astype(np.int64)
    unknown = parts - parts_known
    return Sums(np.where(unknown == 0, added, UNKNOWN), added, parts_known, unknown)


class ConsumerTopics(NamedTuple):
    """Which (consumer, topic) pairs a layout has; ``pair`` maps each position to its pair."""

    consumer: Int32s
    topic: Int32s
    pair: Int32s


def consumer_topics(layout: PositionLayout) -> ConsumerTopics:
    """Return the pairs of a layout in order of consumer, then topic."""
    topics = max(1, len(layout.partitions.topics))
    key = layout.consumer.astype(np.int64) * topics + layout.partitions.topic[layout.row]
    pairs, pair = np.unique(key, return_inverse=True)
    return ConsumerTopics((pairs // topics).astype(np.int32), (pairs % topics).astype(np.int32), pair.astype(np.int32))
