"""Positions rolled up to consumers: sums of records, the interval of the largest age, the gravest health."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monitor.derive import health
from monitor.derive.lag import sum_parts
from monitor.derive.observed import Observed
from monitor.model import (
    HEALTHS,
    UNKNOWN,
    Basis,
    ConsumerColumns,
    Floats,
    GroupFacts,
    Int64s,
    Kind,
    PositionReport,
    Why,
)


def roll_up(seen: Observed, positions: PositionReport, objective_seconds: Callable[[str], float]) -> ConsumerColumns:
    """Roll positions up to consumers: sums of records, and the interval of the largest age."""
    layout, groups = positions.layout, seen.groups
    count, owner, starts = len(layout.consumers), layout.consumer, layout.starts
    records = sum_parts(positions.lag_records, owner, count)
    lost = sum_parts(positions.lost_records, owner, count)
    unread = np.array([facts.why != 0 or not int(starts[i + 1] - starts[i]) for i, facts in enumerate(groups)], bool)
    total = np.where(unread, UNKNOWN, records.total)

    lower = _largest(positions.lag_seconds - positions.lag_seconds_bound, starts)
    upper = _largest(positions.lag_seconds + positions.lag_seconds_bound, starts)
    aged = ~health.any_true(np.isnan(positions.lag_seconds), starts) & ~unread
    seconds = np.where(aged, (lower + upper) / 2, np.nan)
    bound = np.where(aged, (upper - lower) / 2, np.nan)
    objective = np.array([objective_seconds(who.name) for who in layout.consumers], float)
    over = health.judge_objective(lower, np.where(aged, upper, np.nan), objective)

    reason = health.first_reason(positions.why, starts, records.parts_unknown)
    why = np.where(total >= 0, 0, np.where(records.parts_unknown > 0, reason, Why.NO_POSITIONS)).astype(np.int16)
    why = np.where(total >= 0, why, [facts.why or int(why[i]) for i, facts in enumerate(groups)]).astype(np.int16)
    why_seconds = np.where(aged, 0, np.where(total < 0, why, Why.NOT_PLACED)).astype(np.int16)
    judged = np.where(
        [facts.why != 0 for facts in groups], health.UNKNOWN_HEALTH, health.gravest(positions.health, starts)
    )
    why_rate = np.where(~np.isnan(seen.read_rate), 0, np.where(total < 0, why, Why.FIRST_READING)).astype(np.int16)
    return ConsumerColumns(
        lag_records=total,
        known_lag_records=records.known,
        lost_records=np.where(unread, UNKNOWN, lost.total),
        lag_seconds=seconds,
        lag_seconds_bound=bound,
        basis=np.where(aged, _largest(positions.basis.astype(float), starts), Basis.NONE).astype(np.int8),
        assumed=aged & health.any_true(positions.assumed, starts),
        partitions_known=records.parts_known,
        partitions_unknown=records.parts_unknown,
        records_per_second=seen.read_rate,
        objective_seconds=objective,
        over_objective=over,
        members=_members(groups),
        health=judged.astype(np.int8),
        why=why,
        why_seconds=why_seconds,
        why_rate=why_rate,
        evidence=tuple(
            health.evidence(
                facts,
                HEALTHS[judged[i]],
                lag=int(total[i]),
                known_lag=int(records.known[i]),
                seconds=float(seconds[i]),
                bound=float(bound[i]),
                objective=float(objective[i]),
                over=int(over[i]),
                known=int(records.parts_known[i]),
                unknown=int(records.parts_unknown[i]),
                why=int(why[i]),
            )
            for i, facts in enumerate(groups)
        ),
    )


def _largest(values: Floats, starts: Int64s) -> Floats:
    """Return the largest known value of each consumer, NaN without one."""
    result = np.full(len(starts) - 1, np.nan)
    filled = np.flatnonzero(np.diff(starts) > 0)
    if len(filled):
        result[filled] = np.fmax.reduceat(values, starts[filled])
    return result


def _members(groups: tuple[GroupFacts, ...]) -> Int64s:
    def of(facts: GroupFacts) -> int:
        if facts.members is not None:
            return facts.members
        is_empty = facts.consumer.kind is not Kind.SPARK and facts.state in health.EMPTY_STATES
        return 0 if is_empty else UNKNOWN

    return np.fromiter(map(of, groups), np.int64, len(groups))
