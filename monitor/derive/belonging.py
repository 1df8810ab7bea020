"""Which topics belong to a consumer, and which it has abandoned.

A topic is abandoned when a *live* group (it has members, it is Stable, what it subscribes to is known) neither
subscribes to it nor has any of it assigned. A group without members keeps everything; one that is rebalancing or could
not be read keeps what was judged last. Descriptions are read rarely and commits often: a commit that moved after the
group was described proves that somebody reads there, whatever the description says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from monitor.derive.groups import EMPTY_STATES
from monitor.derive.lag import ConsumerTopics
from monitor.derive.layouts import carry
from monitor.model import UNKNOWN, Bools, Floats, GroupFacts, Int8s, Int32s, Int64s, Kind, PositionLayout

STABLE = "Stable"
NO, YES = 0, 1


class Counted(NamedTuple):
    """The positions that count for their consumers: all but those on abandoned topics.

    ``rows`` picks them from a column over positions, ``owner`` is the consumer of each, and those of consumer c are
    ``starts[c]:starts[c + 1]`` of what was picked. ``abandoned`` is a column over all positions.
    """

    rows: slice | Int64s
    owner: Int32s
    starts: Int64s
    abandoned: Bools


def counted(layout: PositionLayout, owner: Int32s, pair: Int32s, abandoned: Int8s) -> Counted:
    """Return which positions count; ``abandoned`` is the judgement of the pairs, ``pair`` the pair of each position."""
    left = abandoned[pair] == YES
    if not left.any():
        return Counted(slice(None), owner, layout.starts, left)
    rows = np.flatnonzero(~left)
    starts = np.concatenate([[0], np.cumsum(np.bincount(owner[rows], minlength=len(layout.consumers)))])
    return Counted(rows, owner[rows], starts.astype(np.int64), left)


class Belonging:
    """The judgement of every (consumer, topic) pair: 1 abandoned, 0 not, -1 where the subscription is unknown.

    ``abandoned`` is another object whenever it says something else.
    """

    def __init__(self) -> None:
        self.abandoned: Int8s = np.zeros(0, np.int8)
        self._moved_at = np.zeros(0, np.float64)
        self._judged: list[object] = []
        self._groups: Sequence[GroupFacts] = ()

    def carry(self, pair_was: Int64s, consumer_was: Int64s, pairs: ConsumerTopics, read_at: Floats) -> None:
        """Follow pairs to their new places; ``read_at`` is when the commits of each were read.

        A new topic of a consumer that was there before has just been committed.
        """
        is_new = pair_was < 0
        is_late = is_new & (consumer_was[pairs.consumer] >= 0)
        self.abandoned = carry(self.abandoned, pair_was, UNKNOWN)
        self._moved_at = np.where(is_late, read_at, carry(self._moved_at, pair_was, -np.inf))
        self._judged = [self._judged[was] if was >= 0 else None for was in consumer_was.tolist()]
        for consumer in pairs.consumer[is_new].tolist():
            self._judged[consumer] = None
        self._groups = ()

    def note_moved(self, pairs: Int64s, read_at: Floats) -> None:
        """Note that commits on these pairs are others than at the last look, and when they were read."""
        self._moved_at[pairs] = read_at
        if (self.abandoned[pairs] == YES).any():
            self.abandoned = self.abandoned.copy()
            self.abandoned[pairs] = np.minimum(self.abandoned[pairs], NO)

    def judge(self, groups: Sequence[GroupFacts], pairs: ConsumerTopics, topics: Sequence[str]) -> None:
        """Judge every consumer whose state or description is another one than at the last look."""
        if groups is self._groups:
            return
        self._groups = groups
        due = [index for index, facts in enumerate(groups) if _is_due(facts, self._judged[index])]
        if not due:
            return
        judged = self.abandoned.copy()
        starts = np.searchsorted(pairs.consumer, np.arange(len(groups) + 1)).tolist()
        for index in due:
            facts, mine = groups[index], slice(starts[index], starts[index + 1])
            self._judged[index] = _basis(facts)
            judged[mine] = _verdict(
                facts, [topics[topic] for topic in pairs.topic[mine].tolist()], self._moved_at[mine]
            )
        if not np.array_equal(judged, self.abandoned):
            self.abandoned = judged


def _basis(facts: GroupFacts) -> object:
    """Return what a judgement rests on."""
    return facts.state, facts.members, facts.described_at, facts.subscribed


def _is_due(facts: GroupFacts, judged: object) -> bool:
    is_settled = facts.state == STABLE or _is_empty(facts)
    return is_settled and not facts.why and _basis(facts) != judged


def _is_empty(facts: GroupFacts) -> bool:
    return facts.members == 0 or facts.state in EMPTY_STATES


def _verdict(facts: GroupFacts, topics: Sequence[str], moved_at: Floats) -> Int8s:
    if _is_empty(facts):
        return np.full(len(topics), NO, np.int8)
    if facts.subscribed is None or facts.consumer.kind is Kind.SPARK:
        return np.full(len(topics), UNKNOWN, np.int8)
    left = [topic not in facts.subscribed for topic in topics]
    if any(left):
        assigned = {where.topic for where in facts.assigned}
        described_at = np.inf if facts.described_at is None else facts.described_at
        left = [
            is_left and topic not in assigned and moved <= described_at
            for is_left, topic, moved in zip(left, topics, moved_at.tolist(), strict=True)
        ]
    return np.array(left, np.int8)
