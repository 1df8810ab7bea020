"""The shape XL of the published comparison, built in memory: 10,000 partitions, 2,000 groups, 100,000 positions.

1,000 topics of 10 partitions; each group reads 5 topics whole. A quarter of the positions is caught up.
"""

from __future__ import annotations

import numpy as np

from monitor.model import (
    Consumer,
    Floats,
    GroupFacts,
    Int64s,
    KafkaSnapshot,
    Kind,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    PositionLayout,
)

TOPICS = 1_000
PARTITIONS_A_TOPIC = 10
GROUPS = 2_000
TOPICS_A_GROUP = 5
POSITIONS_A_GROUP = TOPICS_A_GROUP * PARTITIONS_A_TOPIC
REQUESTS = {"Metadata": 1, "ListGroups": 1, "OffsetFetch": 2, "ListOffsets": 1}


def layout(groups: int = GROUPS, skip: int = 0) -> PositionLayout:
    """Return the rows. ``skip`` leaves so many of its positions out of every hundredth group."""
    topics = tuple(f"topic-{number:04d}" for number in range(TOPICS))
    partitions = PartitionLayout(
        topics,
        np.repeat(np.arange(TOPICS, dtype=np.int32), PARTITIONS_A_TOPIC),
        np.tile(np.arange(PARTITIONS_A_TOPIC, dtype=np.int32), TOPICS),
    )
    rows = [_rows_of_group(group)[skip if group % 100 == 0 else 0 :] for group in range(groups)]
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    consumers = tuple(Consumer(Kind.GROUP, f"group-{number:04d}") for number in range(groups))
    return PositionLayout(partitions, consumers, starts, np.concatenate(rows).astype(np.int32))


def _rows_of_group(group: int) -> Int64s:
    topics = np.sort((group * TOPICS_A_GROUP + np.arange(TOPICS_A_GROUP)) % TOPICS)
    rows: Int64s = topics[:, None] * PARTITIONS_A_TOPIC + np.arange(PARTITIONS_A_TOPIC)
    return rows.reshape(-1)


def snapshot(rows: PositionLayout, *, at: float, moved: int = 0, seed: int = 1) -> KafkaSnapshot:
    """Return what a poll at ``at`` would see: logs and commits ``moved`` records further than at the start."""
    random = np.random.default_rng(seed)
    count = len(rows.partitions)
    start = random.integers(0, 1_000, count)
    end = start + random.integers(1_000, 1_000_000, count) + moved
    lag = random.integers(0, 900, len(rows)) * (random.random(len(rows)) > 0.25)
    zeros = np.zeros(count, np.int16)
    partitions = PartitionColumns(rows.partitions, start, end, end.copy(), zeros, np.full(count, at))
    committed = PositionColumns(rows, end[rows.row] - lag, np.zeros(len(rows), np.int16))
    facts = tuple(GroupFacts(consumer, "Stable", "classic", "consumer", members=3) for consumer in rows.consumers)
    return KafkaSnapshot(
        "default", at - 0.2, at, True, partitions, committed, facts, np.full(len(facts), at), (), REQUESTS
    )


def ages(lag_records: Int64s, at: float) -> Floats:
    """Return an age for every position: 0 where caught up, else it grows with ``at`` and differs from row to row."""
    return np.where(lag_records > 0, at - 1_000.0 + np.arange(len(lag_records)) % 3_600 + 0.123, 0.0)
