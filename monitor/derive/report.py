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
from monitor.derive.findings import BEYOND_END, CLOCK_SKEW, Key, Part, holding
from monitor.derive.history import History
from monitor.derive.lag import Sums, sum_parts
from monitor.derive.observed import Observed, observe
from monitor.derive.seconds import SecondsLag, place, seconds_lag
from monitor.derive.spark_health import judged
from monitor.model import (
    Bools,
    ClusterReport,
    ConsumerTopicColumns,
    Failure,
    Finding,
    Found,
    Int32s,
    Int64s,
    KafkaSnapshot,
    Lookups,
    PositionLayout,
    PositionReport,
    SourceStatus,
    SparkSnapshot,
    TopicColumns,
)

__all__ = ["Observed", "derive", "learn", "observe", "wanted"]


def wanted(seen: Observed, history: History, limit: int) -> Lookups | None:
    """Return up to ``limit`` look-ups that would narrow the ages most, None when they are narrow enough."""
    known = (history.brackets.version, seen.records)
    if all(one is other for one, other in zip(known, history.settled, strict=False)) and history.settled:
        return None
    layout = seen.positions.layout
    lagging = (seen.records.lag > 0) & (seen.records.next_offset >= 0)
    questions = placement.next_lookups(
        layout,
        history.brackets,
        lagging,
        seen.partitions.log_end[layout.row],
        at_ms=int(seen.kafka.at * 1000),
        limit=limit,
    )
    if questions is None and limit > 0 and not placement.may_open_later(history.brackets, lagging):
        history.settled = known  # until something new is known there is nothing to ask
    return questions


def learn(found: Found, history: History) -> None:
    """Take the answers of look-ups into the history."""
    history.brackets.learn(history.layout, found)


def derive(
    seen: Observed,
    history: History,
    objective_seconds: Callable[[str], float],
    *,
    interval_seconds: float | None = None,
) -> ClusterReport:
    """Return the report on what was seen.

    ``objective_seconds`` gives the age that a consumer is allowed by its name; ``interval_seconds`` is how often the
    cluster is read, None where nobody says.
    """
    age = _age(seen, history)
    positions = _positions(seen, history, age)
    pairs = history.steps.pairs.get(_topic_lag, seen.records.lag, history.pairs.pair, history.pairs.consumer)
    report = ClusterReport(
        name=seen.kafka.cluster,
        at=seen.kafka.at,
        up=seen.kafka.up,
        sources=_sources(seen, history, interval_seconds),
        partitions=seen.partitions,
        topics=TopicColumns(seen.topics.parts_known + seen.topics.parts_unknown, seen.topics.total, seen.topic_rate),
        positions=positions,
        consumer_topics=ConsumerTopicColumns(
            positions.layout, history.pairs.consumer, history.pairs.topic, pairs.total, history.pair_total,
            history.belonging.abandoned,
        ),
        consumers=roll_up(seen, positions, history, objective_seconds),
        groups=seen.groups,
        spark=seen.facts,
        findings=_findings(seen, history, age),
        failures=_failures(seen),
        requests_total=dict(history.requests),
        failures_total=dict(history.failures),
    )  # fmt: skip
    return judged(report)


def _age(seen: Observed, history: History) -> SecondsLag:
    layout, log_end = seen.positions.layout, seen.partitions.log_end
    brackets, arrivals = history.brackets, history.arrivals
    places = history.steps.places.get(
        lambda *_: place(
            seen.records, brackets, arrivals, layout=layout, log_end=log_end[layout.row], is_shared=history.is_shared
        ),
        layout, seen.records, brackets.version, arrivals.version, log_end,
    )  # fmt: skip
    return seconds_lag(places, seen.kafka.at)


def _positions(seen: Observed, history: History, age: SecondsLag) -> PositionReport:
    abandoned = seen.counted.abandoned
    lag, memberless, reads = seen.records.lag, history.groups.memberless, history.reads
    judged = history.steps.judged.get(
        lambda *_: health.judge_positions(
            lag, memberless[history.owner], abandoned, losing=reads.losing, back=reads.back
        ),
        lag, memberless, history.owner, abandoned, reads.losing, reads.back,
    )  # fmt: skip
    return PositionReport(
        seen.positions.layout,
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
        abandoned,
    )


def _topic_lag(lag: Int64s, pair: Int32s, consumer: Int32s) -> Sums:
    return sum_parts(lag, pair, len(consumer))


def _sources(seen: Observed, history: History, interval_seconds: float | None) -> tuple[SourceStatus, ...]:
    snapshots: dict[str, KafkaSnapshot | SparkSnapshot] = {"kafka": seen.kafka}
    if seen.spark is not None:
        snapshots["spark"] = seen.spark
    return tuple(
        SourceStatus(
            name,
            snapshot.up,
            snapshot.at,
            snapshot.at - snapshot.started_at,
            history.last_success.get(name),
            interval_seconds,
        )
        for name, snapshot in snapshots.items()
    )


def _failures(seen: Observed) -> tuple[Failure, ...]:
    return (*seen.kafka.failures, *(seen.spark.failures if seen.spark else ()))


def _findings(seen: Observed, history: History, age: SecondsLag) -> tuple[Finding, ...]:
    """Return what the source says, then what holds now, then what happened lately."""
    layout, at = seen.positions.layout, seen.kafka.at
    beyond = history.steps.beyond_end.get(_beyond_end, seen.records.beyond_end, seen.positions.committed,
                                          seen.partitions.log_end, layout)  # fmt: skip
    skewed = _held(CLOCK_SKEW, age.future, seen.positions.committed, seen.positions.committed, layout)
    conditions = history.notebook.conditions({**beyond, **skewed}, at)
    sources = (*seen.kafka.findings, *(seen.spark.findings if seen.spark else ()))
    return (*sources, *conditions, *history.notebook.events(at))


def _beyond_end(flags: Bools, committed: Int64s, log_end: Int64s, layout: PositionLayout) -> dict[Key, list[Part]]:
    at = np.flatnonzero(flags)
    return _held(BEYOND_END, at, committed, log_end[layout.row], layout) if len(at) else {}


def _held(kind: str, at: Int64s, old: Int64s, new: Int64s, layout: PositionLayout) -> dict[Key, list[Part]]:
    return holding(kind, at, old[at], new[at], layout) if len(at) else {}
