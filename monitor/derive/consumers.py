"""Positions rolled up to consumers: sums of records, the interval of the largest age, the gravest health.

What changes only with what was read (``Parts``) is kept for as long as nothing of it moved; what changes with the
clock is worked out at every look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from monitor.derive import health
from monitor.derive.belonging import YES, Counted
from monitor.derive.history import History
from monitor.derive.lag import Sums, sum_parts
from monitor.derive.observed import Observed
from monitor.model import (
    UNKNOWN,
    Basis,
    Bools,
    Consumer,
    ConsumerColumns,
    Floats,
    Int8s,
    Int16s,
    Int64s,
    PositionReport,
    Why,
)


class Parts(NamedTuple):
    """What a consumer's positions add up to, apart from ages; columns as in ``ConsumerColumns``."""

    facts_why: Int16s
    records: Sums
    lost: Sums
    total: Int64s
    aged: Bools
    basis: Int8s
    assumed: Bools
    why: Int16s
    why_seconds: Int16s
    health: Int8s
    abandoned: Int64s
    objective: Floats
    lost_total: Int64s


def roll_up(
    seen: Observed, positions: PositionReport, history: History, objective_seconds: Callable[[str], float]
) -> ConsumerColumns:
    """Roll positions up to consumers."""
    counts, steps = seen.counted, history.steps
    objective = steps.objectives.get(_objectives, positions.layout.consumers, objective_seconds)
    parts = steps.parts.get(
        lambda *_: _parts(counts, history, positions, objective),
        counts, history.groups.why, history.pairs, history.belonging.abandoned, objective,
        positions.lag_records, positions.lost_records, positions.why, positions.why_seconds, positions.basis,
        positions.assumed, positions.health,
    )  # fmt: skip
    ages, bounds = positions.lag_seconds[counts.rows], positions.lag_seconds_bound[counts.rows]
    lower, upper = _largest(ages - bounds, counts.starts), _largest(ages + bounds, counts.starts)
    seconds = np.where(parts.aged, (lower + upper) / 2, np.nan)
    bound = np.where(parts.aged, (upper - lower) / 2, np.nan)
    over = health.judge_objective(lower, np.where(parts.aged, upper, np.nan), objective)
    why_rate = np.where(parts.total < 0, parts.why, Why.FIRST_READING)
    return ConsumerColumns(
        lag_records=parts.total,
        known_lag_records=parts.records.known,
        lost_records=parts.lost_total,
        lag_seconds=seconds,
        lag_seconds_bound=bound,
        basis=parts.basis,
        assumed=parts.assumed,
        partitions_known=parts.records.parts_known,
        partitions_unknown=parts.records.parts_unknown,
        records_per_second=seen.read_rate,
        objective_seconds=objective,
        over_objective=over,
        members=history.groups.members,
        observed_at=history.read_at,
        health=parts.health,
        why=parts.why,
        why_seconds=parts.why_seconds,
        why_rate=np.where(np.isnan(seen.read_rate), why_rate, 0).astype(np.int16),
        abandoned=parts.abandoned,
        rebalances=history.rebalances.columns(seen.kafka.at),
        evidence=health.Evidence(parts, seconds, bound, over),
    )


def _parts(counts: Counted, history: History, positions: PositionReport, objective: Floats) -> Parts:
    rows, starts, count = counts.rows, counts.starts, len(counts.starts) - 1
    groups, pairs, abandoned = history.groups, history.pairs, history.belonging.abandoned
    why, why_seconds = positions.why[rows], positions.why_seconds[rows]
    records = sum_parts(positions.lag_records[rows], counts.owner, count)
    losses = sum_parts(positions.lost_records[rows], counts.owner, count)
    is_unread = (groups.why != 0) | (np.diff(starts) == 0)
    total = np.where(is_unread, UNKNOWN, records.total)

    aged = ~health.any_true(why_seconds != 0, starts) & ~is_unread
    first = np.where(groups.why != 0, groups.why, health.first_reason(why, starts, records.parts_unknown))
    reason = np.where(total >= 0, 0, np.where(first != 0, first, Why.NO_POSITIONS)).astype(np.int16)
    judged = health.gravest(positions.health[rows], starts)
    return Parts(
        groups.why,
        records,
        losses,
        total,
        aged,
        np.where(aged, _largest(positions.basis[rows].astype(float), starts), Basis.NONE).astype(np.int8),
        aged & health.any_true(positions.assumed[rows], starts),
        reason,
        np.where(aged, 0, _why_seconds(why_seconds, starts, total, reason)).astype(np.int16),
        np.where(groups.why != 0, health.UNKNOWN_HEALTH, judged).astype(np.int8),
        np.bincount(pairs.consumer, weights=abandoned == YES, minlength=count).astype(np.int64),
        objective,
        np.where(is_unread, UNKNOWN, losses.total),
    )


def _why_seconds(why_seconds: Int16s, starts: Int64s, total: Int64s, reason: Int16s) -> Int16s:
    """Return why the age is unknown: as the records where these are unknown, else the first reason of a position."""
    unknown = np.diff(np.concatenate([[0], np.cumsum(why_seconds != 0)])[starts])
    first = health.first_reason(why_seconds, starts, unknown)
    return np.where(total < 0, reason, first).astype(np.int16)


def _largest(values: Floats, starts: Int64s) -> Floats:
    """Return the largest known value of each consumer, NaN without one."""
    result = np.full(len(starts) - 1, np.nan)
    filled = np.flatnonzero(np.diff(starts) > 0)
    if len(filled):
        result[filled] = np.fmax.reduceat(values, starts[filled])
    return result


def _objectives(consumers: tuple[Consumer, ...], objective_seconds: Callable[[str], float]) -> Floats:
    return np.array([objective_seconds(consumer.name) for consumer in consumers], float)
