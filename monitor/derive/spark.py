"""Spark queries beside the groups: their positions as a consumer's, their batches counted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.model import (
    Consumer,
    DurationHistogram,
    SparkBatch,
    SparkFacts,
    SparkQuery,
    SparkSnapshot,
    TopicPartition,
    Why,
)

DURATION_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the batch duration histogram in seconds: from real-time jobs to half an hour."""


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

    def see(self, query: SparkQuery) -> None:
        """Take in a look at the query: count the batches that are new."""
        self.query = query
        for batch in query.batches:
            if self.last is None or batch.batch_id >= self.last.batch_id:
                self.last = batch
                self.last_duration = batch.duration_seconds
            if batch.batch_id > self.counted_to:
                self._count(batch)

    def facts(self, at: float) -> SparkFacts:
        """Return what is exported of the query, as of ``at``."""
        planned_at = self.query.inflight_planned_at
        cumulative = [sum(self.buckets[: index + 1]) for index in range(len(DURATION_BOUNDS))]
        return SparkFacts(
            query=self.query,
            last_batch_duration_seconds=self.last_duration,
            last_commit_at=self.last.committed_at if self.last else None,
            inflight_batch_age_seconds=max(0.0, at - planned_at) if planned_at is not None else None,
            batches_total=self.batches_total,
            input_rows_total=self.input_rows_total,
            durations=DurationHistogram(DURATION_BOUNDS, tuple(cumulative), sum(self.buckets), self.duration_sum),
        )

    def _count(self, batch: SparkBatch) -> None:
        self.counted_to = batch.batch_id
        self.batches_total += 1
        self.input_rows_total += batch.input_rows or 0
        if batch.duration_seconds is not None:
            self.duration_sum += batch.duration_seconds
            self.buckets[bisect_left(DURATION_BOUNDS, batch.duration_seconds)] += 1


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
