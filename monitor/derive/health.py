"""Health with its evidence: what a position and a consumer are judged to be, and the sentence that says why.

Judged here: ok, stopped, unknown, and whether a consumer is over its objective. An age is over the objective
only when all of its interval is: a wide bound never raises an alarm by itself.
"""

from __future__ import annotations

import numpy as np

from monitor.model import HEALTHS, Bools, Floats, GroupFacts, Health, Int8s, Int16s, Int64s, Kind, why_text

OK, STOPPED, UNKNOWN_HEALTH = (HEALTHS.index(health) for health in (Health.OK, Health.STOPPED, Health.UNKNOWN))

EMPTY_STATES = frozenset({"Empty", "Dead"})
"""Kafka's group states that say: no members."""


def is_without_members(facts: GroupFacts) -> bool | None:
    """Return whether nobody reads for this consumer; None where that was not read."""
    if facts.consumer.kind is Kind.SPARK:
        return False
    if facts.members is not None:
        return facts.members == 0
    return None if facts.state is None else facts.state in EMPTY_STATES


def judge_positions(lag: Int64s, memberless: Int8s) -> Int8s:
    """Return the health of each position; ``memberless`` is 1, 0 or -1 (not read) for its consumer."""
    stopped = (lag > 0) & (memberless == 1)
    unknown = (lag < 0) | ((lag > 0) & (memberless < 0))
    return np.where(stopped, STOPPED, np.where(unknown, UNKNOWN_HEALTH, OK)).astype(np.int8)


def gravest(health: Int8s, starts: Int64s) -> Int8s:
    """Return the gravest health of each consumer's positions; unknown for a consumer without any."""
    result = np.full(len(starts) - 1, UNKNOWN_HEALTH, np.int8)
    filled = np.flatnonzero(np.diff(starts) > 0)
    if len(filled):
        result[filled] = np.minimum.reduceat(health, starts[filled])
    return result


def judge_objective(surely: Floats, possibly: Floats, objective: Floats) -> Int8s:
    """Return 1 where the age is surely over, 0 where it surely is not or may just not be, -1 where it is unknown.

    ``surely`` is the lower end of the largest age known, ``possibly`` the upper end of the largest age (NaN unknown).
    """
    over = surely > objective
    return np.where(over, 1, np.where(np.isnan(possibly), -1, 0)).astype(np.int8)


def evidence(
    facts: GroupFacts, health: Health, *, lag: int, known_lag: int, seconds: float, bound: float, objective: float,
    over: int, known: int, unknown: int, why: int,
) -> str:  # fmt: skip
    """Return one sentence with the numbers behind the judgement."""
    if facts.why:
        return f"could not be read: {why_text(facts.why)}"
    if lag < 0:
        part = f"{unknown} of its partitions unknown ({why_text(why)})" if unknown else why_text(why)
        if known:
            part += f"; at least {known_lag} records behind"
        if over == 1:
            part += f", the oldest known one over its objective of {objective:g} s"
        return f"no members; {part}" if health is Health.STOPPED else part
    age = "age not known yet" if np.isnan(seconds) else _age(seconds, bound)
    behind = "caught up" if lag == 0 else f"{lag} records behind, {age}"
    if health is Health.STOPPED:
        behind = f"no members and {behind}"
    if over == 1:
        return f"{behind}: over its objective of {objective:g} s"
    return behind if lag == 0 else f"{behind}; objective {objective:g} s"


def _age(seconds: float, bound: float) -> str:
    # No finer than the bound, and no bound that reads as none.
    digits = 1 if bound >= 0.05 else 3  # noqa: PLR2004 (0.05 is the first that rounds to 0.1)
    return f"{seconds:.{digits}f} ± {bound:.{digits}f} s"


def memberless_column(groups: tuple[GroupFacts, ...]) -> Int8s:
    """Return ``is_without_members`` of every consumer as 1, 0 or -1 (not read)."""
    answers = (is_without_members(facts) for facts in groups)
    return np.fromiter((-1 if answer is None else int(answer) for answer in answers), np.int8, len(groups))


def first_reason(why: Int16s, starts: Int64s, parts_unknown: Int64s) -> Int16s:
    """Return the reason of the first unknown position of each consumer, 0 where all are known."""
    result = np.zeros(len(starts) - 1, np.int16)
    for consumer in np.flatnonzero(parts_unknown > 0):
        rows = why[starts[consumer] : starts[consumer + 1]]
        result[consumer] = rows[rows != 0][0]
    return result


def any_true(flags: Bools, starts: Int64s) -> Bools:
    """Return for each consumer whether one of its positions has the flag."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(counts[starts[1:]] > counts[starts[:-1]])
