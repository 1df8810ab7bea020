"""Micro-batches from their files: rows by the offset ranges, durations by the clock, and how the query runs. Pure.

What is assumed, because a checkpoint does not say it:

- Where two sources read the same partition, the slower one is the query's position.
- After a restart Spark runs the batch in flight anew under its *old* batchTimestampMs and rewrites nothing but the
  commit, so that the downtime looks like batch time. A duration is therefore unknown where ``offsets/N`` is much
  younger than its batchTimestampMs (files were copied; real-time mode plans afterwards), where the commit lies before
  the plan or after the next batch's plan, and where the batch took far longer than both its neighbours. A single
  slow batch that is really one cannot be told from a restart, and its duration is unknown too; while it runs, its
  age is known.
- Continuous mode writes no batchTimestampMs: its epochs have positions and a commit time, but no duration.
- Real-time mode writes the plan only when the batch is over, so plan and commit lie next to each other.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from monitor.model import SparkBatch, SparkMode, TopicPartition
from monitor.observe.spark.formats import Sources

HISTORY = 100
"""Batches kept of a query: Spark's own spark.sql.streaming.minBatchesToRetain."""

PLAN_SLACK_SECONDS = 10.0
"""How much younger than its batchTimestampMs a plan may be: asking the sources for their heads takes its time."""

CLOCK_SLACK_SECONDS = 0.05
"""What modification times and the driver's clock may differ by on one machine (the kernel's tick is 4 ms or 10 ms)."""

RESTART_SECONDS = 10.0
"""No driver is back sooner: a JVM, a session and a plan take longer."""

RESTART_FACTOR = 5.0
"""How much longer than its neighbours a batch may take before it may as well hide a restart."""

REAL_TIME_BATCHES = 3
"""As many batches in a row must look like real-time mode before it is taken for that."""

REAL_TIME_SHARE = 0.05
"""Of a real-time batch, at most so much lies between its plan and its commit."""


class Rows(NamedTuple):
    """Records between two plans: all, and the most and the median of one partition."""

    total: int
    most: int
    median: float


class Plan(NamedTuple):
    """``offsets/N`` without its positions. Times are seconds since the epoch, NaN where unknown."""

    planned_at: float
    written_at: float
    watermark: float | None
    rows: Rows | None


class Commit(NamedTuple):
    """``commits/N``: the watermark for the next batch, and when it was written."""

    watermark: float | None
    written_at: float


def slowest(sources: Sources) -> dict[TopicPartition, int]:
    """Join the positions of all sources; of two on the same partition the smaller counts."""
    if len(sources) == 1:
        (only,) = sources.values()
        return {} if only is None else dict(only)
    joined: dict[TopicPartition, int] = {}
    for positions in sources.values():
        for tp, offset in (positions or {}).items():
            joined[tp] = min(offset, joined.get(tp, offset))
    return joined


def input_rows(before: Sources, after: Sources) -> Rows | None:
    """Return how many offsets lie between two plans; None where a start is unknown or nothing is like Kafka's.

    A topic deleted and made anew ends before it started: that counts nothing.
    """
    rows: list[int] = []
    is_known = False
    for source, ends in after.items():
        if ends is None:
            continue
        starts = before.get(source) or {}
        if any(tp not in starts for tp in ends):
            return None  # a partition's start is the log start at that time, which no file holds
        is_known = True
        rows.extend(max(0, end - starts[tp]) for tp, end in ends.items())
    return Rows(sum(rows), max(rows, default=0), median(rows) if rows else 0.0) if is_known else None


def batches_of(plans: Mapping[int, Plan], commits: Mapping[int, Commit], *, since: int = 0) -> list[SparkBatch]:
    """Return the committed batches that have both files, oldest first, at most HISTORY.

    Both mappings are in the order of their numbers. Only the batches from the one before ``since`` on are returned: a
    batch is judged by its neighbours, so a new one may change what is known of the one before.
    """
    done = [number for number in plans if number in commits][-HISTORY:]
    first = max(0, bisect_left(done, since) - 1)
    # One more on the left: it is the first one's neighbour.
    spans = {number: commits[number].written_at - plans[number].planned_at for number in done[max(0, first - 1) :]}
    next_plan = {a: plans[b].planned_at for a, b in pairwise(plans) if a in spans}
    return [_batch(number, plans, commits, _known(i, done, spans, plans, next_plan))
            for i, number in enumerate(done[first:], first)]  # fmt: skip


def _known(
    i: int, done: Sequence[int], spans: Mapping[int, float], plans: Mapping[int, Plan], next_plan: Mapping[int, float]
) -> float | None:
    """Return the duration of the batch at a place, None where it is unknown."""
    number = done[i]
    plan = plans[number]
    known = is_duration(
        spans[number],
        plan_delay=plan.written_at - plan.planned_at,
        until_next_plan=next_plan.get(number, math.inf) - plan.planned_at,
        neighbours=[spans[each] for each in (*done[max(0, i - 1) : i], *done[i + 1 : i + 2])],
    )
    return spans[number] if known else None


def _batch(number: int, plans: Mapping[int, Plan], commits: Mapping[int, Commit], duration: float | None) -> SparkBatch:
    plan, rows = plans[number], plans[number].rows
    return SparkBatch(
        batch_id=number,
        planned_at=plan.planned_at,
        committed_at=commits[number].written_at,
        duration_seconds=duration,
        input_rows=rows.total if rows else None,
        most_rows=rows.most if rows else None,
        median_rows=rows.median if rows else None,
        watermark=plan.watermark,
    )


def is_duration(span: float, *, plan_delay: float, until_next_plan: float, neighbours: Sequence[float]) -> bool:
    """Return whether the time from plan to commit is the batch's duration: see what this module assumes.

    All in seconds; ``plan_delay`` is the plan file's age against its batchTimestampMs.
    """
    # batchTimestampMs is cut to the millisecond, and file systems cut times as they like.
    is_before_next = not span > until_next_plan + CLOCK_SLACK_SECONDS  # nobody knows when that was: NaN
    return 0 <= span <= longest(neighbours) and is_before_next and plan_delay <= PLAN_SLACK_SECONDS


def longest(neighbours: Sequence[float]) -> float:
    """Return the seconds beyond which a batch between these may as well hide a restart."""
    usual = max((each for each in neighbours if each >= 0), default=math.inf)
    return max(RESTART_SECONDS, RESTART_FACTOR * usual)


def restarts(batches: Sequence[SparkBatch]) -> int:
    """Return how many batches look as if a restart had interrupted them: much longer than both, committed in order."""
    spans = [each.committed_at - each.planned_at for each in batches]
    return sum(
        batches[i].duration_seconds is None
        and longest([spans[i - 1], spans[i + 1]]) < spans[i] <= after.planned_at - at.planned_at + CLOCK_SLACK_SECONDS
        for i, (at, after) in enumerate(pairwise(batches))
        if i
    )


def mode_of(plans: Mapping[int, Plan], commits: Mapping[int, Commit]) -> SparkMode:
    """Return how the query runs, as far as its last files show it."""
    numbers = list(plans)[-REAL_TIME_BATCHES - 1 :]
    if numbers and math.isnan(plans[numbers[-1]].planned_at):
        return SparkMode.CONTINUOUS
    if any(b - a > 1 for a, b in pairwise(numbers)):
        return SparkMode.ASYNC_PROGRESS
    done = [number for number in numbers if number in commits][-REAL_TIME_BATCHES:]
    is_real_time = len(done) == REAL_TIME_BATCHES and all(_ends_planned(plans[n], commits[n]) for n in done)
    # Files that were copied lie next to each other as well, but long after the next batch.
    in_order = all(commits[a].written_at <= plans[b].planned_at + CLOCK_SLACK_SECONDS for a, b in pairwise(done))
    return SparkMode.REAL_TIME if is_real_time and in_order else SparkMode.MICRO_BATCH


def _ends_planned(plan: Plan, commit: Commit) -> bool:
    """Return whether a batch was planned on record only when it was over: a second or more, nearly all before that."""
    span = commit.written_at - plan.planned_at
    return span >= 1 and 0 <= commit.written_at - plan.written_at <= REAL_TIME_SHARE * span
