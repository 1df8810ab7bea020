"""Spark queries beside the groups: their positions as a consumer's, their batches counted."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from monitor.model import (
    Consumer,
    DurationHistogram,
    SparkBatch,
    SparkFacts,
    SparkPast,
    SparkQuery,
    SparkSnapshot,
    TopicPartition,
    Why,
)

DURATION_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the batch duration histogram in seconds: from real-time jobs to half an hour."""


RATE_BATCHES = 20
"""Batches over which a query's throughput and trigger interval are worked out."""

ON_TIME_SECONDS = 0.1
"""How long after a trigger's time a batch may be planned and still have been on time."""

ON_TIME_SHARE = 0.8
"""So many of the last batches must have been on time before they tell the trigger interval."""

ON_TIME_BATCHES = 5

PAST = 100
"""Batches after which the state is remembered."""


@dataclass(slots=True)
class SparkMemory:
    """What is kept of a query between looks. Counting starts with the first look: what was before is history."""

    query: SparkQuery
    counted_to: int
    last: SparkBatch | None = None
    last_duration: float | None = None
    batches_total: int = 0
    input_rows_total: int = 0
    duration_sum: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(DURATION_BOUNDS) + 1))
    inferred: float | None = None
    rows_per_second: float | None = None
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=PAST))
    restarts_total: int = 0
    past: deque[SparkPast] = field(default_factory=lambda: deque(maxlen=PAST))
    told_to: int = -1
    output_rows_total: int | None = None
    phase_seconds_total: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count nothing that came before the first look."""
        self.told_to = self.counted_to

    def see(self, query: SparkQuery) -> None:
        """Take in a look at the query: count the batches that are new, and restarts."""
        self._note_restarts(self.query, query)
        is_moved = query.batches is not self.query.batches or not self.batches_total
        self.query = query
        for batch in _newer(query.batches, self.last):
            self.last = batch
            self.last_duration = batch.duration_seconds
            if batch.batch_id > self.counted_to:
                self._count(batch)
        self._note_told(query.batches)
        self._note_state(query)
        if is_moved:
            # Once known it stays: a query that is always late tells no interval.
            self.inferred = inferred_interval(query.batches) or self.inferred
            self.rows_per_second = rows_per_second(query.batches)

    def facts(self, at: float) -> SparkFacts:
        """Return what is exported of the query, as of ``at``."""
        planned_at, configured = self.query.inflight_planned_at, self.query.trigger_interval_seconds
        return SparkFacts(
            query=self.query,
            last_batch_duration_seconds=self.last_duration,
            last_commit_at=self.last.committed_at if self.last else None,
            inflight_batch_age_seconds=max(0.0, at - planned_at) if planned_at is not None else None,
            batches_total=self.batches_total,
            input_rows_total=self.input_rows_total,
            durations=DurationHistogram(
                DURATION_BOUNDS, tuple(accumulate(self.buckets[:-1])), sum(self.buckets), self.duration_sum
            ),
            trigger_interval_seconds=self.inferred if configured is None else configured,
            trigger_inferred=configured is None and self.inferred is not None,
            input_rows_per_second=self.rows_per_second,
            restarts=tuple(self.restarts),
            restarts_total=self.restarts_total,
            past=tuple(self.past),
            output_rows_total=self.output_rows_total,
            phase_seconds_total=dict(self.phase_seconds_total),
        )

    def _count(self, batch: SparkBatch) -> None:
        self.counted_to = batch.batch_id
        self.batches_total += 1
        self.input_rows_total += batch.input_rows or 0
        if batch.duration_seconds is not None:
            self.duration_sum += batch.duration_seconds
            self.buckets[bisect_left(DURATION_BOUNDS, batch.duration_seconds)] += 1

    def _note_told(self, batches: Sequence[SparkBatch]) -> None:
        """Count what only a listener tells, which may come a look later than the batch itself."""
        for batch in batches:
            if batch.phases is None or batch.batch_id <= self.told_to:
                continue
            self.told_to = batch.batch_id
            if batch.output_rows is not None:
                self.output_rows_total = (self.output_rows_total or 0) + batch.output_rows
            for phase, seconds in batch.phases.items():
                self.phase_seconds_total[phase] = self.phase_seconds_total.get(phase, 0.0) + seconds

    def _note_restarts(self, before: SparkQuery, after: SparkQuery) -> None:
        # Each run of a query has an id of its own; without a listener only the batches that it interrupted tell.
        is_other_run = None not in {before.run_id, after.run_id} and before.run_id != after.run_id
        # More batches are read after the first look: their signs are of restarts before it.
        is_history = _first_batch(after) < _first_batch(before)
        signs = 0 if is_history else max(0, after.restarts - before.restarts)
        for _ in range(max(signs, int(is_other_run))):
            self.restarts.append(after.observed_at)
            self.restarts_total += 1

    def _note_state(self, query: SparkQuery) -> None:
        if not query.state or query.batch_id is None or (self.past and query.batch_id <= self.past[-1].batch_id):
            return
        self.past.append(
            SparkPast(
                query.observed_at,
                query.batch_id,
                sum(each.rows for each in query.state),
                sum(each.memory_bytes for each in query.state),
                _total(each.rows_removed for each in query.state),
                _total(each.rows_dropped_by_watermark for each in query.state),
            )
        )


def inferred_interval(batches: Sequence[SparkBatch]) -> float | None:
    """Return the trigger interval that the batches keep to, in seconds; None where they keep to none.

    Spark starts the batches of a processing-time trigger at multiples of its interval since the epoch, so that the
    greatest common divisor of the moments of those on time is the interval: of whole seconds, as nearly all are.
    """
    planned = [each.planned_at for each in batches[-RATE_BATCHES:] if each.planned_at == each.planned_at]
    on_time = [math.floor(at) for at in planned if at - math.floor(at) < ON_TIME_SECONDS]
    if len(set(on_time)) < max(ON_TIME_BATCHES, ON_TIME_SHARE * len(planned)):
        return None
    return float(math.gcd(*on_time))


def rows_per_second(batches: Sequence[SparkBatch]) -> float | None:
    """Return the records read per second over the last batches; None where rows or times are not known."""
    last = batches[-RATE_BATCHES:]
    rows = _total(each.input_rows for each in last[1:])
    seconds = last[-1].committed_at - last[0].committed_at if last else 0.0
    return rows / seconds if rows is not None and len(last) > 1 and seconds > 0 else None


def _first_batch(query: SparkQuery) -> float:
    return query.batches[0].batch_id if query.batches else math.inf


def _total(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _newer(batches: Sequence[SparkBatch], last: SparkBatch | None) -> Sequence[SparkBatch]:
    """Return the batches from the last one seen on: a look has a hundred, and few are new."""
    if last is None:
        return batches
    first = len(batches)
    while first and batches[first - 1].batch_id >= last.batch_id:
        first -= 1
    return batches[first:]


def remember(memory: dict[str, SparkMemory], snapshot: SparkSnapshot) -> dict[str, SparkMemory]:
    """Return the queries that are there, by checkpoint: those seen now, and those whose checkpoint failed now.

    A query whose checkpoint was neither seen nor failed is gone.
    """
    failed = {failure.name for failure in snapshot.failures}
    kept = {path: known for path, known in memory.items() if path in failed}
    for query in snapshot.queries:
        known = memory.get(query.checkpoint)
        if known is None or known.query.query_id != query.query_id:
            seen = max((batch.batch_id for batch in query.batches), default=-1)
            known = SparkMemory(query, counted_to=seen)
        known.see(query)
        kept[query.checkpoint] = known
    return kept


def consumers(
    memory: Mapping[str, SparkMemory], snapshot: SparkSnapshot
) -> list[tuple[SparkMemory, Consumer, Mapping[TopicPartition, int], int]]:
    """Return each query with its positions and 0, or with the reason why they are unknown in this look."""
    seen = {query.checkpoint for query in snapshot.queries}
    return [
        (known, known.query.consumer, known.query.committed, 0 if path in seen else Why.CHECKPOINT)
        for path, known in sorted(memory.items())
    ]
