"""One cycle's snapshots over one set of rows, taken into the history: what every later step reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from monitor.derive import spark
from monitor.derive.belonging import Counted, counted
from monitor.derive.health import any_true
from monitor.derive.history import History
from monitor.derive.join import Addition
from monitor.derive.lag import RecordLag, Sums, record_lag, sum_parts
from monitor.model import (
    Bools,
    Consumer,
    Floats,
    GroupFacts,
    Int64s,
    KafkaSnapshot,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    SparkFacts,
    SparkSnapshot,
)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The latest snapshots of one cluster over one set of rows, taken into its history.

    ``counted`` are the positions that count for their consumers. ``topics`` sums the log ends of each topic; the rates
    are records per second of topics and of consumers.
    """

    kafka: KafkaSnapshot
    spark: SparkSnapshot | None
    partitions: PartitionColumns
    positions: PositionColumns
    groups: tuple[GroupFacts, ...]
    facts: dict[int, SparkFacts]
    records: RecordLag
    counted: Counted
    topics: Sums
    topic_rate: Floats
    read_rate: Floats


def observe(kafka: KafkaSnapshot, sparks: SparkSnapshot | None, history: History) -> Observed:
    """Join what all sources of a cluster saw, take it into the history, and count the lag in records."""
    partitions, positions, groups, facts = _join(kafka, sparks, history)
    read_at = np.append(kafka.read_at, [each.query.observed_at for each in facts.values()])
    partitions, positions = history.observe(kafka, partitions, positions, groups, read_at)
    layout = history.layout
    _count(kafka, sparks, history)

    steps = history.steps
    records = steps.records.get(
        lambda *_: record_lag(partitions, positions, history.is_shared),
        partitions.log_start, partitions.log_end, partitions.why,
        positions.committed, positions.why, positions.lag_said, layout,
    )  # fmt: skip
    history.want(records)
    counts = steps.counted.get(counted, layout, history.owner, history.pairs.pair, history.belonging.abandoned)
    topics = steps.topics.get(_topic_ends, partitions.log_end, layout.partitions)
    known = steps.reads_known.get(_all_reads_known, positions.committed, records.lag, counts)
    topic_rate, read_rate = history.observe_rates(kafka.at, topics.total, known)
    return Observed(kafka, sparks, partitions, positions, groups, facts, records, counts, topics, topic_rate, read_rate)


def _with_queries(groups: tuple[GroupFacts, ...], queries: tuple[tuple[Consumer, int], ...]) -> tuple[GroupFacts, ...]:
    return (*groups, *(GroupFacts(who, why=why) for who, why in queries))


def _count(kafka: KafkaSnapshot, sparks: SparkSnapshot | None, history: History) -> None:
    for source, seen in (("kafka", kafka), ("spark", sparks)):
        if seen is not None:
            requests = kafka.requests if source == "kafka" else {}
            history.count(source, requests, Counter(failure.scope for failure in seen.failures))
            if seen.up:
                history.last_success[source] = seen.at


def _topic_ends(log_end: Int64s, layout: PartitionLayout) -> Sums:
    return sum_parts(log_end, layout.topic, len(layout.topics))


def _all_reads_known(committed: Int64s, lag: Int64s, counts: Counted) -> Bools:
    """Return for each consumer whether it has positions and what it read is known of each.

    Nothing has been read of a partition without any record: there, no commit is as good as one.
    """
    unknown = ((committed < 0) & (lag < 0))[counts.rows]
    return ~any_true(unknown, counts.starts) & (np.diff(counts.starts) > 0)


def _join(
    kafka: KafkaSnapshot, sparks: SparkSnapshot | None, history: History
) -> tuple[PartitionColumns, PositionColumns, tuple[GroupFacts, ...], dict[int, SparkFacts]]:
    """Put the Spark queries behind the groups."""
    if sparks is None:
        return kafka.partitions, kafka.positions, kafka.groups, {}
    history.spark = spark.remember(history.spark, sparks)
    queries = spark.consumers(history.spark, sparks)
    added = [Addition(who, offsets, why) for _, who, offsets, why in queries]
    partitions, positions = history.join.join(kafka.partitions, kafka.positions, added)
    first = len(kafka.groups)
    who_and_why = tuple((who, why) for _, who, _, why in queries)
    if who_and_why != history.queries:
        history.queries = who_and_why
    groups = history.steps.facts.get(_with_queries, kafka.groups, history.queries)
    return partitions, positions, groups, {first + i: m.facts(kafka.at) for i, (m, *_) in enumerate(queries)}
