"""Which series there are: by the settings, under the cap on positions, and under the cap on the whole answer.

*By the settings* each consumer is exposed by partition, by topic or as a whole; what is finer is not laid out, and not
missed: it was chosen. *Beyond a cap* series are left out, and counted. Of a cluster with more positions than
``max_positions`` those that lag most stay exact, and the others of each consumer and topic become one: the rest.
If the whole answer has more series than ``max_series``, steps are taken until it fits: see ``Step``.

Rows are counted, not known values: what is unknown today may be known tomorrow, and must fit then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from monitor.catalog import Column, Level, Metric, Type
from monitor.model import UNKNOWN, Bools, Int64s, PositionLayout, PositionReport
from monitor.publish.exposition_labels import RestRows
from monitor.settings import Detail, Metrics

RANK_SECONDS = 60.0
"""How often it is looked whether the exact positions are still those that lag most: each swap is a new series."""

SURELY = 2
"""A position takes the place of another only if it lags more than so many times as much: else two would alternate."""

SWAPPED_SHARE = 100
SWAPPED_AT_LEAST = 10
"""At most a hundredth of the exact positions is swapped at a time, or these few, so that series live long."""

ROOM = 0.9
"""What was left out comes back only where it would fill no more than this part of the cap: else it would flap."""

Indices = npt.NDArray[np.intp]

FINENESS: Mapping[Detail, int] = {"consumer": 0, "topic": 1, "position": 2}


class Cut(Protocol):
    """Makes a column of a level to that of the rows that are laid out. While it is the same object, so is the cut."""

    def __call__(self, column: Column) -> Column: ...  # noqa: D102


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """Some of the rows."""

    rows: Indices

    def __call__(self, column: Column) -> Column:
        """Return their values."""
        return column[self.rows]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Rows put together: those of group ``filled[i]`` of ``count`` are ``rows[starts[i]:starts[i + 1]]``."""

    rows: Indices
    starts: Indices
    filled: Int64s
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Summed:
    """The sum of each group, unknown while one of its values is, or where it has none."""

    groups: Groups

    def __call__(self, column: Column) -> Column:
        """Return the sums."""
        groups = self.groups
        sums = np.full(groups.count, UNKNOWN, np.int64)
        if len(groups.rows):
            values = column[groups.rows].astype(np.int64, copy=False)
            known = np.minimum.reduceat(values, groups.starts) >= 0
            sums[groups.filled] = np.where(known, np.add.reduceat(values, groups.starts), UNKNOWN)
        return sums


@dataclass(frozen=True, slots=True, eq=False)
class Largest:
    """The largest value of each group, unknown while one of its values is, or where it has none."""

    groups: Groups

    def __call__(self, column: Column) -> Column:
        """Return the largest values."""
        groups = self.groups
        largest = np.full(groups.count, np.nan)
        if len(groups.rows):
            largest[groups.filled] = np.maximum.reduceat(column[groups.rows], groups.starts)  # NaN wins
        return largest


@dataclass(frozen=True, slots=True, eq=False)
class Rest:
    """The positions that are not exact: ``rows`` names the series that stand for them."""

    rows: RestRows
    summed: Summed
    largest: Largest

    def cut(self, metric: Metric) -> Cut | None:
        """Return how the rest of a metric is made; None where a rest would mean nothing (an offset, a bound)."""
        cuts: Mapping[str, Cut] = {
            "streamgauge_consumer_lag_records": self.summed,
            "streamgauge_consumer_lost_records": self.summed,
            "streamgauge_consumer_lag_seconds": self.largest,
        }
        return cuts.get(metric.name)


class Positions:
    """Which positions of a cluster are exposed one by one, and which are summed, from cycle to cycle.

    ``exact`` is None where all are, ``rest`` where none is summed. ``wanted`` are those that the settings ask for
    (None: all), ``left_out`` those of them that are summed.
    """

    def __init__(self, limit: int) -> None:
        self.wanted: Picked | None = None
        self.exact: Picked | None = None
        self.rest: Rest | None = None
        self.left_out = Picked(np.zeros(0, np.intp))
        self.count = 0
        self._limit = limit
        self._layout: PositionLayout | None = None
        self._asked = self._members = np.zeros(0, np.bool_)
        self._pairs: tuple[RestRows, Int64s] | None = None
        self._ranked_at = 0.0

    @property
    def is_capped(self) -> bool:
        """Return whether there are more than may be exposed one by one."""
        return self.count > self._limit

    def update(self, report: PositionReport, fineness: npt.NDArray[np.int8], at: float) -> None:
        """Take in a new report; ``fineness`` says of each consumer how finely it is exposed."""
        layout, lag = report.layout, report.lag_records
        if layout is not self._layout:
            before, self._layout, self._pairs = self._layout, layout, None
            self._asked = asked = np.repeat(fineness == FINENESS["position"], np.diff(layout.starts))
            self.count = int(np.count_nonzero(asked))
            self.wanted = None if self.count == len(asked) else Picked(np.flatnonzero(asked))
            members = asked
            if self.is_capped:
                kept = carry(self._members, before, layout) & asked if before else np.zeros_like(asked)
                members = filled(kept, asked, lag, self._limit)
            self._ranked_at = at
        elif self.is_capped and not 0 <= at - self._ranked_at < RANK_SECONDS:
            members = swapped(self._members, self._asked, lag, self._limit)
            self._ranked_at = at
        else:
            return
        if self._pairs is None or members is not self._members:
            self._members = members
            self._select(layout)

    def _select(self, layout: PositionLayout) -> None:
        if not self.is_capped:
            self.exact, self.rest, self.left_out = self.wanted, None, Picked(np.zeros(0, np.intp))
            return
        if self._pairs is None:
            self._pairs = pairs_of(layout, self._asked)
        rows, pair = self._pairs
        self.exact = Picked(np.flatnonzero(self._members))
        summed = np.flatnonzero(self._asked & ~self._members)
        self.left_out = Picked(summed)
        groups = grouped(summed, pair[summed], len(rows.consumer))
        self.rest = Rest(rows, Summed(groups), Largest(groups))


def pairs_of(layout: PositionLayout, asked: Bools) -> tuple[RestRows, Int64s]:
    """Return the (consumer, topic) pairs of the positions asked for, and the pair of each position (-1: none)."""
    topics = max(1, len(layout.partitions.topics))
    key = layout.consumer[asked].astype(np.int64) * topics + layout.partitions.topic[layout.row[asked]]
    pairs, number = np.unique(key, return_inverse=True)
    pair = np.full(len(layout), -1, np.int64)
    pair[asked] = number
    return RestRows(pairs // topics, pairs % topics), pair


def grouped(rows: Indices, group: Int64s, count: int) -> Groups:
    """Put rows together by their group."""
    order = np.argsort(group, kind="stable")
    filled_groups, starts = np.unique(group[order], return_index=True)
    return Groups(rows[order], starts, filled_groups, count)


def largest_first(values: Int64s, count: int) -> Indices:
    """Return the places of the ``count`` largest values, largest first; of equal ones the earlier."""
    if count <= 0:
        return np.zeros(0, np.intp)
    places = np.arange(len(values))
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        above = np.flatnonzero(values > least)
        places = np.append(above, np.flatnonzero(values == least)[: count - len(above)])
    return places[np.argsort(-values[places], kind="stable")]


def filled(members: Bools, asked: Bools, lag: Int64s, limit: int) -> Bools:
    """Return the members with the most lagging others added, up to the limit. Unknown lag counts least."""
    others = np.flatnonzero(asked & ~members)
    result = members.copy()
    result[others[largest_first(lag[others], limit - int(np.count_nonzero(members)))]] = True
    return result


def swapped(members: Bools, asked: Bools, lag: Int64s, limit: int) -> Bools:
    """Return the members with some replaced by others that surely lag more, or the very same object.

    A member whose lag is unknown right now stays: as part of the rest it would make the sum of the others unknown.
    """
    inside, outside = np.flatnonzero(members & (lag >= 0)), np.flatnonzero(asked & ~members & (lag >= 0))
    most = min(max(limit // SWAPPED_SHARE, SWAPPED_AT_LEAST), len(inside), len(outside))
    out = inside[largest_first(-lag[inside], most)]
    come = outside[largest_first(lag[outside], most)]
    surely = lag[come] > SURELY * lag[out].astype(np.float64)  # from true to false: the pairs get ever closer
    if not surely.any():
        return members
    result = members.copy()
    result[out[surely]], result[come[surely]] = False, True
    return result


def carry(members: Bools, old: PositionLayout, new: PositionLayout) -> Bools:
    """Return for each position of a new layout whether it was a member in the old one."""
    if not members.any() or not len(new):
        return np.zeros(len(new), np.bool_)
    consumer = {each: index for index, each in enumerate(old.consumers)}
    topic = {each: index for index, each in enumerate(old.partitions.topics)}
    was_consumer = np.array([consumer.get(each, -1) for each in new.consumers], np.int64)[new.consumer]
    was_topic = np.array([topic.get(each, -1) for each in new.partitions.topics], np.int64)
    was_topic = was_topic[new.partitions.topic[new.row]]
    old_row = old.row[members]
    old_partition, partition = old.partitions.partition[old_row], new.partitions.partition[new.row]
    topics, width = len(topic), int(max(old_partition.max(), partition.max())) + 1
    then = (old.consumer[members].astype(np.int64) * topics + old.partitions.topic[old_row]) * width + old_partition
    now = (was_consumer * topics + was_topic) * width + partition
    return (was_consumer >= 0) & (was_topic >= 0) & np.isin(now, then)


# --- the cap on the whole answer ---------------------------------------------------------------------


class Step(IntEnum):
    """What is left out, in this order and from the cluster where it saves most, until the answer fits.

    What fits again at the end is put back, the last first. What is exposed of consumers as a whole and of topics is
    never left out: alerts live on it.
    """

    OWNERS = 0
    PARTITIONS = 1
    POSITIONS = 2
    TOPICS = 3
    READS = 4


STEP_TEXT: Mapping[Step, str] = {
    Step.OWNERS: "owners of partitions",
    Step.PARTITIONS: "offsets of partitions",
    Step.POSITIONS: "lag by partition",
    Step.TOPICS: "lag by topic",
    Step.READS: "records read by topic",
}

Taken = frozenset[tuple[Step, str]]
"""Steps, each with the name of the cluster where it is taken."""


def step_of(metric: Metric) -> Step | None:
    """Return the step that leaves a metric out, None for those that stay."""
    if metric.level is Level.CONSUMER_TOPIC:
        return Step.READS if metric.type is Type.COUNTER else Step.TOPICS
    return {Level.OWNER: Step.OWNERS, Level.PARTITION: Step.PARTITIONS, Level.POSITION: Step.POSITIONS}.get(
        metric.level
    )


def steps_to_take(savings: Mapping[tuple[Step, str], int], excess: float) -> Taken:
    """Return what to leave out to be rid of ``excess`` series; if even all is not enough, all."""
    taken: list[tuple[Step, str]] = []
    for each in sorted((each for each in savings if savings[each]), key=lambda each: (each[0], -savings[each], each)):
        if excess <= 0:
            break
        taken.append(each)
        excess -= savings[each]
    for each in reversed(taken[:-1]):
        if excess + savings[each] <= 0:
            taken.remove(each)
            excess += savings[each]
    return frozenset(taken)


def next_steps(savings: Mapping[tuple[Step, str], int], total: int, limit: int, current: Taken) -> Taken:
    """Return what to leave out of ``total`` series: the same as now while that fits and little more would."""
    if total - saved(savings, current) > limit:
        return steps_to_take(savings, total - limit)
    roomy = steps_to_take(savings, total - ROOM * limit)
    return roomy if saved(savings, roomy) < saved(savings, current) else current


def saved(savings: Mapping[tuple[Step, str], int], taken: Collection[tuple[Step, str]]) -> int:
    """Return how many series are left out."""
    return sum(savings.get(each, 0) for each in taken)


def fineness_of(names: Collection[str], metrics: Metrics) -> npt.NDArray[np.int8]:
    """Return how finely each consumer is exposed, as FINENESS has it."""
    if not metrics.levels:
        return np.full(len(names), FINENESS[metrics.level], np.int8)
    return np.fromiter((FINENESS[metrics.level_for(name)] for name in names), np.int8, len(names))
