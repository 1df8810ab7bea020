"""What is known of consumers beside their positions, as columns: one pass over the facts of a cycle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.model import UNKNOWN, Floats, GroupFacts, Int8s, Int16s, Int64s, Kind

NOT_TOLD, SETTLED, REBALANCING = -1, 0, 1
"""What a group's state says about rebalances, as the column ``motion`` holds it."""

REBALANCING_STATES = frozenset({"PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling"})
"""The first two of the classic protocol, the others of KIP-848 and what came after it."""

EMPTY_STATES = frozenset({"Empty", "Dead"})
"""Kafka's group states that say: no members."""


class GroupColumns(NamedTuple):
    """One row a consumer.

    ``members`` is -1 where not read; ``memberless`` 1, 0, or -1 where nobody told; ``motion`` one of the three above;
    ``epoch`` -1, and the times NaN, where there is none.
    """

    why: Int16s
    members: Int64s
    memberless: Int8s
    motion: Int8s
    epoch: Int64s
    described_at: Floats


def group_columns(groups: tuple[GroupFacts, ...]) -> GroupColumns:
    """Return the facts of a cycle as columns."""
    count = len(groups)
    return GroupColumns(
        why=np.fromiter((facts.why for facts in groups), np.int16, count),
        members=np.fromiter(map(_members, groups), np.int64, count),
        memberless=np.fromiter(map(_memberless, groups), np.int8, count),
        motion=np.fromiter(map(_motion, groups), np.int8, count),
        epoch=np.fromiter((UNKNOWN if facts.epoch is None else facts.epoch for facts in groups), np.int64, count),
        described_at=np.fromiter((_time(facts.described_at) for facts in groups), np.float64, count),
    )


def _members(facts: GroupFacts) -> int:
    if facts.members is not None:
        return facts.members
    return 0 if facts.consumer.kind is not Kind.SPARK and facts.state in EMPTY_STATES else UNKNOWN


def _memberless(facts: GroupFacts) -> int:
    if facts.consumer.kind is Kind.SPARK:
        return 0
    if facts.members is not None:
        return facts.members == 0
    return UNKNOWN if facts.state is None else facts.state in EMPTY_STATES


def _motion(facts: GroupFacts) -> int:
    if facts.why or facts.state is None:
        return NOT_TOLD
    return REBALANCING if facts.state in REBALANCING_STATES else SETTLED


def _time(at: float | None) -> float:
    return np.nan if at is None else at
