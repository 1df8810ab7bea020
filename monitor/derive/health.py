"""Health with its evidence: what a position and a consumer are judged to be, and the sentence that says why.

Judged here: losing data, stopped, rewound, ok, unknown, and whether a consumer is over its objective. An age is over
the objective only when all of its interval is: a wide bound never raises an alarm by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from monitor.derive.marks import Marks
from monitor.model import HEALTHS, Bools, Floats, Health, Int8s, Int16s, Int64s, why_text

if TYPE_CHECKING:
    from monitor.derive.consumers import Parts

LOSING_DATA, STOPPED, REWOUND, UNKNOWN_HEALTH, OK = (
    HEALTHS.index(health) for health in (Health.LOSING_DATA, Health.STOPPED, Health.REWOUND, Health.UNKNOWN, Health.OK)
)


def judge_positions(lag: Int64s, memberless: Int8s, abandoned: Bools, *, losing: Marks, back: Marks) -> Int8s:
    """Return the health of each position; ``memberless`` is 1, 0 or -1 (not read) for its consumer.

    ``losing`` lost records lately, ``back`` were set back. On an abandoned topic nobody is to be woken for anything.
    """
    behind = lag > 0
    judged = np.where((lag < 0) | (behind & (memberless < 0)), UNKNOWN_HEALTH, OK).astype(np.int8)
    judged[back.at[lag[back.at] >= 0]] = REWOUND
    judged[behind & (memberless == 1)] = STOPPED
    judged[losing.at[lag[losing.at] >= 0]] = LOSING_DATA
    if abandoned.any():
        judged[abandoned] = np.where(lag[abandoned] < 0, UNKNOWN_HEALTH, OK)
    return judged


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


class Evidence(Sequence[str]):
    """One sentence a consumer with the numbers behind its judgement, made when somebody asks for it.

    There are thousands of consumers, an age changes with every look, and few sentences are ever read.
    """

    def __init__(self, parts: Parts, seconds: Floats, bound: Floats, over: Int8s) -> None:
        self._parts, self._seconds, self._bound, self._over = parts, seconds, bound, over

    def __len__(self) -> int:
        return len(self._seconds)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return the sentence about the consumer in this row."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        parts = self._parts
        if parts.facts_why[index]:
            return f"could not be read: {why_text(int(parts.facts_why[index]))}"
        sentence = self._position(index)
        topics = int(parts.abandoned[index])
        if topics:
            sentence += f"; {topics} abandoned {'topic' if topics == 1 else 'topics'} left out"
        return sentence

    def _position(self, index: int) -> str:
        parts, health = self._parts, HEALTHS[self._parts.health[index]]
        lead = _LEAD[health].format(lost=int(parts.lost.known[index])) if health in _LEAD else ""
        lag, objective = int(parts.total[index]), float(parts.objective[index])
        is_over = self._over[index] == 1
        if lag < 0:
            text = f"{lead}; {self._unknown(index)}" if lead else self._unknown(index)
            return f"{text}, the oldest known one over its objective of {objective:g} s" if is_over else text
        if lag == 0:
            return f"{lead} and caught up" if lead else "caught up"
        text = f"{lag} records behind, {_age(float(self._seconds[index]), float(self._bound[index]))}"
        text = f"{lead} and {text}" if lead else text
        return f"{text}: over its objective of {objective:g} s" if is_over else f"{text}; objective {objective:g} s"

    def _unknown(self, index: int) -> str:
        parts = self._parts
        unknown, reason = int(parts.records.parts_unknown[index]), why_text(int(parts.why[index]))
        text = f"{unknown} of its partitions unknown ({reason})" if unknown else reason
        if parts.records.parts_known[index]:
            text += f"; at least {int(parts.records.known[index])} records behind"
        return text


_LEAD = {
    Health.LOSING_DATA: "losing data: {lost} records deleted unread",
    Health.STOPPED: "no members",
    Health.REWOUND: "set back",
}


def _age(seconds: float, bound: float) -> str:
    if np.isnan(seconds):
        return "age not known yet"
    # No finer than the bound, and no bound that reads as none.
    digits = 1 if bound >= 0.05 else 3  # noqa: PLR2004 (0.05 is the first that rounds to 0.1)
    return f"{seconds:.{digits}f} ± {bound:.{digits}f} s"


def first_reason(why: Int16s, starts: Int64s, parts_unknown: Int64s) -> Int16s:
    """Return the reason of the first unknown position of each consumer, 0 where all are known."""
    result = np.zeros(len(starts) - 1, np.int16)
    with_unknown = np.flatnonzero(parts_unknown > 0)
    if len(with_unknown):
        unknown = np.flatnonzero(why != 0)
        result[with_unknown] = why[unknown[np.searchsorted(unknown, starts[with_unknown])]]
    return result


def any_true(flags: Bools, starts: Int64s) -> Bools:
    """Return for each consumer whether one of its positions has the flag."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(counts[starts[1:]] > counts[starts[:-1]])
