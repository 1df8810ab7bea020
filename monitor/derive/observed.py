"""One cycle's snapshots over one set of rows, taken into the history: what every later step reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from monitor.derive import spark
from monitor.derive.health import any_true
from monitor.derive.history import History
from monitor.derive.lag import RecordLag, Sums, record_lag, sum_parts
from monitor.derive.layouts import append_consumers, extend_partitions
from monitor.model import (
    Bools,
    Floats,
    GroupFacts,
    KafkaSnapshot,
    PartitionColumns,
    PositionColumns,
    SparkFacts,
    SparkSnapshot,
)


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The latest snapshots of one cluster over one set of rows, taken into its history.

    ``topics`` sums the log ends of each topic; the rates are records per second of topics and of consumers.
    """

    kafka: KafkaSnapshot
    spark: SparkSnapshot | None
    partitions: PartitionColumns
    positions: PositionColumns
    groups: tuple[GroupFacts, ...]
    facts: dict[int, SparkFacts]
    records: RecordLag
    topics: Sums
    topic_rate: Floats
    read_rate: Floats


def observe(kafka: KafkaSnapshot, sparks: SparkSnapshot | None, history: History) -> Observed:
    """Join what all sources of a cluster saw, take it into the history, and count the lag in records."""
    partitions, positions, groups, facts = _join(kafka, sparks, history)
    history.observe(partitions, positions, kafka.started_at, kafka.at)
    # One layout object for as long as the rows are the same: publishers keep what they built on it.
    partitions = replace(partitions, layout=history.layout.partitions)
    positions = replace(positions, layout=history.layout)
    for source, seen in (("kafka", kafka), ("spark", sparks)):
        if seen is not None:
            requests = kafka.requests if source == "kafka" else {}
            history.count(source, requests, Counter(failure.scope for failure in seen.failures))
            if seen.up:
                history.last_success[source] = seen.at
    records = record_lag(partitions, positions)
    history.brackets.want(records.next_offset, history.restarted)
    topics = sum_parts(partitions.log_end, history.layout.partitions.topic, len(history.layout.partitions.topics))
    topic_rate, read_rate = history.observe_rates(kafka.at, topics.total, _all_reads_known(positions, records))
    return Observed(kafka, sparks, partitions, positions, groups, facts, records, topics, topic_rate, read_rate)


def _all_reads_known(positions: PositionColumns, records: RecordLag) -> Bools:
    """Return for each consumer whether it has positions and what it read is known of each.

    Nothing has been read of a partition without any record: there, no commit is as good as one.
    """
    starts = positions.layout.starts
    unknown = (positions.committed < 0) & (records.lag < 0)
    return ~any_true(unknown, starts) & (np.diff(starts) > 0)


def _join(
    kafka: KafkaSnapshot, sparks: SparkSnapshot | None, history: History
) -> tuple[PartitionColumns, PositionColumns, tuple[GroupFacts, ...], dict[int, SparkFacts]]:
    """Put the Spark queries behind the groups; a partition only Spark knows becomes an unknown row."""
    if sparks is None:
        return kafka.partitions, kafka.positions, kafka.groups, {}
    history.spark = spark.remember(history.spark, sparks)
    queries = spark.consumers(history.spark, sparks)
    listed = set(kafka.partitions.layout.topics)
    wanted_rows = {tp for _, _, offsets, _ in queries for tp in offsets}
    missing = {tp for tp in wanted_rows if tp.topic not in listed}
    if len(missing) < len(wanted_rows):
        rows = {kafka.partitions.layout.key(row) for row in _rows_of_topics(kafka, {tp.topic for tp in wanted_rows})}
        missing |= {tp for tp in wanted_rows if tp not in rows}
    partitions = extend_partitions(kafka.partitions, missing)
    positions = append_consumers(kafka.positions, partitions.layout, [(who, at, why) for _, who, at, why in queries])
    first = len(kafka.groups)
    groups = (*kafka.groups, *(GroupFacts(who, observed_at=m.query.observed_at, why=why) for m, who, _, why in queries))
    return partitions, positions, groups, {first + i: m.facts(kafka.at) for i, (m, *_) in enumerate(queries)}


def _rows_of_topics(kafka: KafkaSnapshot, topics: set[str]) -> list[int]:
    layout = kafka.partitions.layout
    numbers = [index for index, topic in enumerate(layout.topics) if topic in topics]
    return np.flatnonzero(np.isin(layout.topic, numbers)).tolist()
