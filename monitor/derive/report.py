"""From snapshots to a report: the whole chain on one screen.

    observe -> lag in records -> (look-ups) -> lag in seconds -> health -> consumers -> report

One cycle is ``observe`` once, then ``wanted`` and ``learn`` in turn for as long as the budget lasts,
then ``derive``. Arithmetic on values and on the one cluster's history: no I/O, and no clock but the snapshots'.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monitor.derive import health, placement
from monitor.derive.consumers import roll_up
from monitor.derive.history import History
from monitor.derive.lag import sum_parts
from monitor.derive.observed import Observed, observe
from monitor.derive.seconds import SecondsLag, seconds_lag
from monitor.model import (
    ClusterReport,
    ConsumerTopicColumns,
    Failure,
    Finding,
    Found,
    KafkaSnapshot,
    Lookups,
    PositionReport,
    SourceStatus,
    SparkSnapshot,
    TopicColumns,
)

__all__ = ["Observed", "derive", "learn", "observe", "wanted"]


def wanted(seen: Observed, history: History, limit: int) -> Lookups | None:
    """Return up to ``limit`` look-ups that would narrow the ages most, None when they are narrow enough."""
    return placement.next_lookups(
        seen.positions.layout,
        history.brackets,
        seen.records.lag > 0,
        seen.partitions.log_end[seen.positions.layout.row],
        at_ms=int(seen.kafka.at * 1000),
        limit=limit,
    )


def learn(found: Found, history: History) -> None:
    """Take the answers of look-ups into the history."""
    history.brackets.learn(history.layout, found)


def derive(seen: Observed, history: History, objective_seconds: Callable[[str], float]) -> ClusterReport:
    """Return the report on what was seen."""
    layout, at = seen.positions.layout, seen.kafka.at
    age = seconds_lag(
        layout,
        seen.records,
        history.brackets,
        history.arrivals,
        log_end=seen.partitions.log_end[layout.row],
        at=at,
    )
    memberless = health.memberless_column(seen.groups)
    judged = health.judge_positions(seen.records.lag, memberless[layout.consumer])
    positions = PositionReport(
        layout,
        seen.positions.committed,
        seen.records.lag,
        seen.records.lost,
        age.seconds,
        age.bound,
        age.basis,
        age.assumed,
        judged,
        seen.records.why,
        age.why,
    )
    pairs = sum_parts(seen.records.lag, history.pairs.pair, len(history.pairs.consumer))
    return ClusterReport(
        name=seen.kafka.cluster,
        at=at,
        up=seen.kafka.up,
        sources=_sources(seen, history),
        partitions=seen.partitions,
        topics=TopicColumns(seen.topics.parts_known + seen.topics.parts_unknown, seen.topics.total, seen.topic_rate),
        positions=positions,
        consumer_topics=ConsumerTopicColumns(
            layout, history.pairs.consumer, history.pairs.topic, pairs.total, history.pair_total
        ),
        consumers=roll_up(seen, positions, objective_seconds),
        groups=seen.groups,
        spark=seen.facts,
        findings=_findings(seen, age),
        failures=_failures(seen),
        requests_total=dict(history.requests),
        failures_total=dict(history.failures),
    )


def _sources(seen: Observed, history: History) -> tuple[SourceStatus, ...]:
    snapshots: dict[str, KafkaSnapshot | SparkSnapshot] = {"kafka": seen.kafka}
    if seen.spark is not None:
        snapshots["spark"] = seen.spark
    return tuple(
        SourceStatus(name, snapshot.up, snapshot.at, snapshot.at - snapshot.started_at, history.last_success.get(name))
        for name, snapshot in snapshots.items()
    )


def _failures(seen: Observed) -> tuple[Failure, ...]:
    return (*seen.kafka.failures, *(seen.spark.failures if seen.spark else ()))


def _findings(seen: Observed, age: SecondsLag) -> tuple[Finding, ...]:
    layout = seen.positions.layout
    found = []
    for index in np.flatnonzero(seen.records.beyond_end | age.future):
        consumer = layout.consumers[int(np.searchsorted(layout.starts, index, side="right")) - 1]
        topic, partition = layout.partitions.key(layout.row[index])
        where = f"{consumer.name} on {topic}/{partition}"
        if seen.records.beyond_end[index]:
            end = seen.partitions.log_end[layout.row[index]]
            text = f"{where}: committed offset {seen.positions.committed[index]} lies beyond the log end {end}"
            found.append(Finding("beyond_end", text, topic, partition, consumer))
        else:
            text = f"{where}: the next record's timestamp lies in the future: a clock is wrong, its age counts as 0"
            found.append(Finding("clock_skew", text, topic, partition, consumer))
    return tuple(found)
