"""Lag in records: what contracts call ``lag`` and ``lost_records``, by position, topic and consumer.

    lag  = log_end - max(committed, log_start)
    lost = max(0, log_start - committed)

Unknown in, unknown out: a sum is known only if all its parts are. The one exception is a partition
without any record: nothing can be unread there, so its lag is 0 even without a commit.

A share group reads a partition at many places at once. Its lag is what the broker itself counts (KIP-1226), and
unknown where it does not.
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
    """Columns over positions. ``next_offset`` is the next readable offset, max(committed, log_start).

    Of a share group there is none, and it is -1.
    """

    next_offset: Int64s
    lag: Int64s
    lost: Int64s
    why: Int16s
    beyond_end: Bools


def record_lag(partitions: PartitionColumns, positions: PositionColumns, is_shared: Bools | None = None) -> RecordLag:
    """Return lag and lost records of every position, -1 with a reason where they are unknown.

    ``is_shared`` are the positions of share groups, None where there are none.
    """
    counted = _by_offsets(partitions, positions)
    return counted if is_shared is None else _as_told(counted, positions, is_shared)


def _by_offsets(partitions: PartitionColumns, positions: PositionColumns) -> RecordLag:
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


def _as_told(counted: RecordLag, positions: PositionColumns, is_shared: Bools) -> RecordLag:
    """Return the same with the lag of share groups as the broker told it; only an empty partition needs no telling."""
    nothing = np.full(len(positions.layout), UNKNOWN, np.int64)
    said = nothing if positions.lag_said is None else positions.lag_said
    told = is_shared & (positions.why == 0) & (said >= 0)
    untold = is_shared & ~told & (counted.lag != 0)
    reason = np.where(positions.why != 0, positions.why, Why.UNSUPPORTED)
    return RecordLag(
        np.where(is_shared, UNKNOWN, counted.next_offset),
        np.where(told, said, np.where(untold, UNKNOWN, counted.lag)),
        np.where(untold, UNKNOWN, counted.lost),
        np.where(told, 0, np.where(untold, reason, counted.why)).astype(np.int16),
        counted.beyond_end & ~is_shared,
    )


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
