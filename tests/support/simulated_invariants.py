"""What has to hold after every cycle of a simulated monitor, whatever happened: each a named function.

A function yields a sentence for everything that is wrong. It compares the report with the world's own bookkeeping;
the moments that count are those of the cycle. Something unknown or missing needs a *cause* near: one that was there
during the cycle or within one interval before it, so that everything is back in the second cycle after its cause is
gone. A cause at one broker excuses what that broker leads or coordinates and nothing else.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from simulated_memory import weigh
from simulated_time import EPOCH, Timeline
from simulated_world import Cause, Log, Partition, World

from monitor.model import HEALTHS, Basis, ClusterReport, Health, Why, why_name
from monitor.settings import Cluster

LIST_OFFSETS = "(ListOffsets)"

SETTLING_SECONDS = 30.0
"""So long a new coordinator that knows less than the old one is not believed (Kafka's replica.lag.time.max.ms)."""

LOOK_UP_SECONDS = 2.0
"""What a cycle may spend on record times (monitor.service.STEADY)."""

TIMEOUTS_A_CYCLE = 6
"""So many timeouts a cycle may last at most: the map, the lists, the commits, trying again, the ends, the look-ups."""

ROUNDING_SECONDS = 0.0015
"""Timestamps are whole milliseconds, and so is the moment of the report where ages are computed."""

ARRIVALS_SECONDS = 600.0
"""An age by arrival rests on our own readings: at most 48, and older ones than these do not count."""

# What may be unknown though every broker answered as it should.
HARMLESS = {
    Why.KNOWN, Why.NO_COMMIT, Why.TOPIC_GONE, Why.UNSUPPORTED, Why.SHARE_GROUP, Why.BEYOND_END, Why.NO_POSITIONS,
    3, 17, 24, 29, 30, 31, 35, 43, 69, 100,
}  # fmt: skip


@dataclass(slots=True)
class Row:
    """One position of a report."""

    group: str
    where: Partition
    committed: int
    lag: int
    lost: int
    seconds: float
    bound: float
    basis: int
    assumed: bool
    why: int
    log_start: int
    log_end: int


@dataclass
class Memory:
    """What is remembered between cycles about what was shown."""

    shown: dict[tuple[str, Partition], int] = field(default_factory=dict)
    """The last committed offset shown of each position."""
    whole_at: dict[str, float] = field(default_factory=dict)
    """When the last cycle began that showed a group in full."""
    counters: dict[str, float] = field(default_factory=dict)
    previous: tuple[float, float] | None = None
    peak: int = 0
    """The largest number of rows that there were so far."""
    elements_a_row: float = 0.0
    """What was held when it was weighed first, compared with the rows."""


@dataclass
class Cycle:
    """One cycle and what it said: began and ended in virtual time; ``offsets`` is how wrong the wall clock was when."""

    number: int
    began: float
    ended: float
    report: ClusterReport
    text: str
    world: World
    cluster: Cluster
    offsets: Timeline[float]
    memory: Memory
    roots: tuple[object, ...]
    """What the monitor holds on to."""
    tasks: frozenset[asyncio.Task[object]]
    """Tasks that are there and have no business to be."""

    @property
    def interval(self) -> float:
        """Return the cluster's interval in seconds."""
        return self.cluster.interval_seconds

    @cached_property
    def rows(self) -> list[Row]:
        """Return the positions."""
        report, positions, parts = self.report, self.report.positions, self.report.partitions
        names = [who.name for who in positions.layout.consumers]
        at = positions.layout.row.tolist()
        return (
            [
                Row(names[owner], tuple(positions.layout.partitions.key(row)), *values, start, end)
                for owner, row, values, start, end in zip(
                    positions.layout.consumer.tolist(),
                    at,
                    zip(
                        positions.committed.tolist(),
                        positions.lag_records.tolist(),
                        positions.lost_records.tolist(),
                        positions.lag_seconds.tolist(),
                        positions.lag_seconds_bound.tolist(),
                        positions.basis.tolist(),
                        positions.assumed.tolist(),
                        positions.why.tolist(),
                        strict=True,
                    ),
                    parts.log_start[at].tolist(),
                    parts.log_end[at].tolist(),
                    strict=True,
                )
            ]
            if report
            else []
        )

    @cached_property
    def partitions(self) -> dict[Partition, tuple[int, int, int, int]]:
        """Return log start, log end, last stable offset and why of every partition."""
        parts = self.report.partitions
        columns = zip(
            parts.log_start.tolist(),
            parts.log_end.tolist(),
            parts.last_stable.tolist(),
            parts.why.tolist(),
            strict=True,
        )
        return {tuple(parts.layout.key(row)): values for row, values in enumerate(columns)}

    @cached_property
    def groups(self) -> list[str]:
        """Return the groups, as often as they are there."""
        return [who.name for who in self.report.positions.layout.consumers]

    def logs(self, where: Partition) -> list[Log]:
        """Return the lives of a partition during the cycle."""
        return self.world.logs_during(where, self.began, self.ended)

    def commits(self, group: str, where: Partition) -> list[int]:
        """Return what was committed during the cycle, -1 for none."""
        truth = self.world.groups.get(group)
        found = None if truth is None else truth.commits.get(where)
        return [-1] if found is None else found.during(self.began, self.ended) or [-1]

    # --- excuses ---

    @cached_property
    def near(self) -> list[Cause]:
        """Return the causes that may still be felt in this cycle."""
        return [each for each in self.world.causes if each.is_near(self.began - self.interval, self.ended)]

    def _touches(self, cause: Cause, group: str | None, where: Partition | None) -> bool:
        if cause.group is not None:
            return cause.group == group
        if cause.topic is not None:
            return where is not None and cause.topic == where[0] and cause.partition in {None, where[1]}
        if cause.broker is not None:
            return cause.broker in self._brokers_of(group, where)
        return True

    def _brokers_of(self, group: str | None, where: Partition | None) -> set[int]:
        since, world = self.began - self.interval, self.world
        brokers: set[int] = set()
        if group in world.groups:
            brokers.update(world.groups[group].coordinator.during(since, self.ended))
            brokers.update(*world.groups[group].listed_by.during(since, self.ended))
        if where in world.leaders:
            brokers.update(world.leaders[where].during(since, self.ended))
        return brokers

    def is_excused(self, group: str | None, where: Partition | None) -> bool:
        """Return whether there is a cause for a group or partition or position to be unknown or missing."""
        return (
            any(self._touches(each, group, where) for each in self.near)
            or (group is not None and self.is_settling(group))
            or _is_out_of_time(self)
        )

    def is_settling(self, group: str) -> bool:
        """Return whether a coordinator may know less than was known of the group before it was last unread."""
        truth = self.world.groups.get(group)
        if truth is None:
            return False
        reach = SETTLING_SECONDS + 2 * self.interval
        if truth.went_back_at < min(self.memory.whole_at.get(group, 0.0), self.began - reach) - self.interval:
            return False
        brokers = set(truth.coordinator.during(self.began - reach - self.interval, self.ended))
        return any(
            each.is_near(self.began - reach, self.ended)
            and (each.group == group or each.broker in brokers or each.is_about_all)
            for each in self.world.causes
        )


# --- faults that are known --------------------------------------------------------------------------

# What the simulation has found and is not mended yet. Each entry goes when the fault is mended; until then it
# excuses that fault and as little else as can be.


def _is_out_of_time(cycle: Cycle) -> bool:
    """Return whether the cycle lasted so long that its deadline cut off what was still to be asked of anybody.

    A broker that answers late and never times out is enough for that (monitor/observe/kafka/source.py: WITHIN).
    """
    return cycle.ended - cycle.began >= OUT_OF_TIME * cycle.interval


OUT_OF_TIME = 0.79


# --- (a) numbers ------------------------------------------------------------------------------------


def numbers_are_borne_out(cycle: Cycle) -> Iterator[str]:
    """Every offset shown was true at some moment of the cycle."""
    for where, (start, end, stable, _) in cycle.partitions.items():
        for name, shown in (("start", start), ("end", end), ("stable", stable)):
            if shown < 0:
                continue
            true = {value for log in cycle.logs(where) for value in getattr(log, name).during(cycle.began, cycle.ended)}
            if shown not in true:
                yield f"log {name} of {where} is shown as {shown}, and was {sorted(true)}"
    for row in cycle.rows:
        if row.committed >= 0 and row.committed not in cycle.commits(row.group, row.where):
            yield from _unless_told_by_one_behind(cycle, row)


def _unless_told_by_one_behind(cycle: Cycle, row: Row) -> Iterator[str]:
    """A coordinator that knows less says so where it can be asked, else it is found out by what was known before."""
    truth = cycle.world.groups.get(row.group)
    was = cycle.memory.shown.get((row.group, row.where), -1)
    can_be_asked = cycle.world.fake.offsets is not None and not any(
        LIST_OFFSETS in each.text or each.is_away for each in cycle.near
    )
    if truth is not None and not can_be_asked and True in truth.behind.during(cycle.began, cycle.ended):
        if any(each.topic == row.where[0] for each in cycle.near):
            return  # it could not be read before, so that there is nothing to compare with
        told = truth.behind_offsets.get(row.where, set())
        if row.committed in told and row.committed >= was:
            return
    yield (
        f"committed offset of {row.group} on {row.where} is shown as {row.committed} (before: {was}), "
        f"and was {cycle.commits(row.group, row.where)}"
    )


def lags_follow_from_their_parts(cycle: Cycle) -> Iterator[str]:
    """A lag is the log end minus the larger of committed offset and log start, each as shown; else it is unknown."""
    for row in cycle.rows:
        is_empty = row.log_end >= 0 and row.log_start == row.log_end
        if row.lag >= 0 and row.log_end < 0:
            yield f"{row.group} on {row.where} has lag {row.lag} without a log end"
        elif row.lag >= 0 and row.lag != row.log_end - max(row.committed, row.log_start):
            yield f"{row.group} on {row.where} has lag {row.lag}: {row}"
        elif row.lag >= 0 and row.committed < 0 and not is_empty:
            yield f"{row.group} on {row.where} has lag {row.lag} without a commit"
        if row.lost >= 0 and row.lost != (max(row.log_start - row.committed, 0) if row.committed >= 0 else 0):
            yield f"{row.group} on {row.where} has lost {row.lost}: {row}"
        if (row.why == 0) != (row.lag >= 0):
            yield f"{row.group} on {row.where} has lag {row.lag} and the reason {why_name(row.why)}"


def ages_lie_within_their_bound(cycle: Cycle) -> Iterator[str]:
    """The age of the first unread record lies within the bound, unless it is assumed from timestamps out of order."""
    at = cycle.report.at
    for row in cycle.rows:
        if math.isnan(row.seconds):
            continue
        if row.lag < 0 or math.isnan(row.bound) or row.bound < 0 or row.seconds < 0:
            yield f"{row.group} on {row.where}: {row.seconds} ± {row.bound} s with lag {row.lag}"
        elif row.lag > 0:
            yield from _age_of(cycle, row, at)
        elif row.seconds != 0:
            yield f"{row.group} on {row.where} is caught up and {row.seconds} s old"


def _age_of(cycle: Cycle, row: Row, at: float) -> Iterator[str]:
    logs = cycle.logs(row.where)
    begins = {max(row.committed, start) for log in logs for start in log.start.during(cycle.began, cycle.ended)} | {
        max(row.committed, row.log_start)
    }
    records = [
        (log, each, offset)
        for log in logs
        for offset in begins
        for each in log.records_at(offset, cycle.began, cycle.ended)
    ]
    if any(_was_cut_during(cycle, log, max(row.committed, row.log_start)) for log in logs):
        return
    if any(_was_cut_unseen(cycle, log, row) for log in logs):
        return
    if row.assumed and any(log.disordered_at > cycle.began - ARRIVALS_SECONDS * 6 for log in logs):
        return
    if row.basis == Basis.ARRIVAL:
        # Our own clock tells when: as far as it was set meanwhile, it is wrong about it.
        offsets = [0.0, *cycle.offsets.during(cycle.began - ARRIVALS_SECONDS, cycle.ended)]
        slack = max(offsets) - min(offsets)
        true = [at - (EPOCH + each.at) for _, each, _ in records]
    else:
        slack = 0.0
        true = [max(0.0, at - each_ms / 1000) for each_ms in (_stamp(each, offset) for _, each, offset in records)]
    reach = row.bound + slack + ROUNDING_SECONDS
    if not any(row.seconds - reach <= max(each, 0.0) <= row.seconds + reach for each in true):
        kind = Basis(row.basis).name + (", assumed" if row.assumed else "")
        yield f"{row.group} on {row.where} is {row.seconds:.3f} ± {row.bound:.3f} s old ({kind}), and was {true}: {row}"


def _was_cut_unseen(cycle: Cycle, log: Log, row: Row) -> bool:
    """Return whether a log was cut and had grown beyond its old end before anybody could look at it again."""
    leaders = cycle.world.leaders[row.where]
    for cut, was in log.cuts:
        brokers = set(leaders.during(cut - cycle.interval, cycle.ended))
        if row.committed < was and any(
            each.broker in brokers and each.is_near(cut - cycle.interval, cut + cycle.interval)
            for each in cycle.world.causes
        ):
            return True
    return False


def _was_cut_during(cycle: Cycle, log: Log, offset: int) -> bool:
    """Return whether a record may have gone between the moment its log end was read and a look-up in that cycle.

    Then the answer names a later record, or none, though the one asked about had been there. The next cycle knows.
    """
    is_expired = max(log.start.during(cycle.began, cycle.ended)) > offset
    is_cut = any(cycle.began <= each.until <= cycle.ended for each in log.written)
    return is_expired or is_cut or log.died <= cycle.ended or log.born >= cycle.began


def _stamp(each: object, offset: int) -> int:
    return each.timestamp_ms + (offset - each.offset) * each.step_ms  # type: ignore[attr-defined]


# --- (b) totals and zeros ---------------------------------------------------------------------------


def totals_miss_nothing(cycle: Cycle) -> Iterator[str]:
    """A consumer's total is known only with all its parts, and is their sum; so is what is said of the known ones."""
    consumers, layout = cycle.report.consumers, cycle.report.positions.layout
    lags = cycle.report.positions.lag_records
    counts = ~_abandoned(cycle)
    shown = {(row.group, row.where) for row in cycle.rows}
    for number, name in enumerate(cycle.groups):
        rows = slice(int(layout.starts[number]), int(layout.starts[number + 1]))
        parts, total = lags[rows][counts[rows]], int(consumers.lag_records[number])
        known = int(parts[parts >= 0].sum())
        if total >= 0 and (not len(lags[rows]) or (parts < 0).any()):
            yield f"{name} has the total {total} of the parts {parts.tolist()}"
        elif total >= 0 and total != known:
            yield f"{name} has the total {total}, its parts add up to {known}"
        if int(consumers.known_lag_records[number]) not in {known, -1}:
            yield f"{name} has the known lag {consumers.known_lag_records[number]}, its known parts add up to {known}"
        seconds = float(consumers.lag_seconds[number])
        if not math.isnan(seconds) and np.isnan(cycle.report.positions.lag_seconds[rows][counts[rows]]).any():
            yield f"{name} has the age {seconds} with a part of unknown age"
        if total >= 0:
            for where in _missing(cycle, name, shown):
                yield f"{name} has the total {total} without {where}"


def _abandoned(cycle: Cycle) -> np.ndarray:
    """Return the positions that are out of their consumer's lag (topics it no longer subscribes to)."""
    found = getattr(cycle.report.positions, "abandoned", None)
    return np.zeros(len(cycle.rows), np.bool_) if found is None else np.asarray(found, np.bool_)


def _missing(cycle: Cycle, name: str, shown: set[tuple[str, Partition]]) -> Iterator[Partition]:
    """Yield the positions that a group had all along since an interval before the cycle, and that are not shown."""
    truth, since = cycle.world.groups.get(name), cycle.began - cycle.interval
    group = cycle.world.fake.groups.get(name)
    was_never_listed = name not in cycle.memory.whole_at and group is not None and group.listed_by is not None
    if truth is None or was_never_listed:
        return
    for where, commits in truth.commits.items():
        had = commits.during(since, cycle.ended)
        lives = any(log.lives_throughout(since, cycle.ended) for log in cycle.world.logs.get(where, ()))
        if (name, where) in shown or not lives or not had or min(had) < 0 or commits._at[0] > since:
            continue
        # Where one may not see the topic, the coordinator leaves its offsets out without a word.
        is_hidden = any(each.topic == where[0] and each.partition is None for each in cycle.near)
        was_told_less = True in truth.behind.during(cycle.began, cycle.ended)
        is_new = (name, where) not in cycle.memory.shown
        if not is_hidden and not (was_told_less and is_new):
            yield where


def zeros_are_measured(cycle: Cycle) -> Iterator[str]:
    """Where 0 is shown, it was 0: read to the end or nothing there, no members."""
    for row in cycle.rows:
        if row.lag != 0:
            continue
        logs = cycle.logs(row.where)
        ends = {end for log in logs for end in log.end.during(cycle.began, cycle.ended)}
        is_empty = ends & {start for log in logs for start in log.start.during(cycle.began, cycle.ended)}
        if not is_empty and not (row.committed >= 0 and row.committed in ends):
            yield f"{row.group} on {row.where} is shown as caught up at {row.committed}, the end was {sorted(ends)}"
    consumers = cycle.report.consumers
    since = cycle.began - cycle.cluster.describe_interval_seconds - 2 * cycle.interval
    for number, name in enumerate(cycle.groups):
        truth = cycle.world.groups.get(name)
        members = int(consumers.members[number])
        if members >= 0 and (truth is None or members not in truth.members.during(since, cycle.ended)):
            had = None if truth is None else truth.members.during(since, cycle.ended)
            yield f"{name} is shown with {members} members, and had {had}"
        if consumers.health[number] == HEALTHS.index(Health.STOPPED) and (
            truth is None or 0 not in truth.members.during(since, cycle.ended)
        ):
            yield f"{name} is shown as stopped, and had members all the time"


# --- (c) back in time, gone in time -----------------------------------------------------------------


def nothing_is_unknown_without_cause(cycle: Cycle) -> Iterator[str]:
    """What is unknown has a cause that was there in this cycle or the interval before, at a broker that it needs."""
    for row in cycle.rows:
        if row.lag >= 0 or _is_unknown_in_truth(cycle, row) or cycle.is_excused(row.group, row.where):
            continue
        yield f"{row.group} on {row.where} is unknown without a cause: {why_name(row.why)}"
    since = cycle.began - cycle.interval
    for where, (*_, why) in cycle.partitions.items():
        lives = any(log.lives_throughout(since, cycle.ended) for log in cycle.world.logs.get(where, ()))
        if why and lives and not cycle.is_excused(None, where):
            yield f"{where} is unknown without a cause: {why_name(why)}"
    for row in cycle.rows:
        if (
            row.lag > 0
            and math.isnan(row.seconds)
            and not cycle.is_excused(row.group, row.where)
            and _lagged(cycle, row)
        ):
            yield f"the age of {row.group} on {row.where} is unknown without a cause: {row}"


def _lagged(cycle: Cycle, row: Row) -> bool:
    """Return whether there was time to look up the record: it was the first unread one in the cycle before as well."""
    truth, since = cycle.world.groups[row.group], cycle.began - cycle.interval
    return {row.committed} == set(truth.commits[row.where].during(since, cycle.ended))


def _is_unknown_in_truth(cycle: Cycle, row: Row) -> bool:
    commits = cycle.commits(row.group, row.where)
    logs = cycle.logs(row.where)
    if row.why == Why.NO_COMMIT:
        return -1 in commits
    if row.why == Why.BEYOND_END:
        ends = [end for log in logs for end in log.end.during(cycle.began, cycle.ended)]
        return bool(ends) and max(commits) > min(ends)
    since = cycle.began - cycle.interval
    return not any(log.lives_throughout(since, cycle.ended) for log in cycle.world.logs.get(row.where, ()))


def nothing_is_missing_without_cause(cycle: Cycle) -> Iterator[str]:
    """What is there is shown: at once where somebody reads it, after the metadata interval where nobody does."""
    shown = {(row.group, row.where) for row in cycle.rows}
    for name in cycle.world.readers:
        for where in _missing(cycle, name, shown):
            if not cycle.is_excused(name, where):
                yield f"{name} on {where} is missing without a cause"
    since = cycle.began - cycle.cluster.metadata_interval_seconds - 2 * cycle.interval
    for where, logs in cycle.world.logs.items():
        lives = any(log.lives_throughout(since, cycle.ended) for log in logs)
        was_hidden = any(each.topic == where[0] and each.is_near(since, cycle.ended) for each in cycle.world.causes)
        if lives and where not in cycle.partitions and not was_hidden and not cycle.is_excused(None, where):
            yield f"{where} is missing without a cause"


def nothing_is_shown_that_is_gone(cycle: Cycle) -> Iterator[str]:
    """What is gone goes in the second cycle after that; what a member was assigned, when it is described anew."""
    since = cycle.began - cycle.interval
    described = since - cycle.cluster.describe_interval_seconds - cycle.interval
    for row in cycle.rows:
        truth = cycle.world.groups.get(row.group)
        if truth is not None:
            commits = truth.commits.get(row.where)
            had = commits is not None and max(commits.during(since, cycle.ended), default=-1) >= 0
            if had or any(row.where in each for each in truth.assigned.during(described, cycle.ended)):
                continue
        if not cycle.is_excused(row.group, row.where):
            yield f"{row.group} on {row.where} is shown, and is gone: {row}"
    for name in cycle.groups:
        truth = cycle.world.groups.get(name)
        is_there = truth is not None and set(truth.state.during(since, cycle.ended)) != {None}
        if not is_there and not cycle.is_excused(name, None):
            yield f"{name} is shown, and is gone"
    used = {row.where for row in cycle.rows}
    mapped = since - cycle.cluster.metadata_interval_seconds - cycle.interval
    for where, (*_, why) in cycle.partitions.items():
        # What nobody reads, and is said to be unknown, may stay until the map is read anew.
        lived = cycle.world.logs_during(where, mapped if why else since, cycle.ended)
        if not lived and where not in used and not cycle.is_excused(None, where):
            yield f"{where} is shown, and is gone"


def everybody_counts_once(cycle: Cycle) -> Iterator[str]:
    """No consumer and no position is there twice, whoever lists it."""
    for what, times in (Counter(cycle.groups) + Counter((row.group, row.where) for row in cycle.rows)).items():
        if times > 1:
            yield f"{what} is there {times} times"


# --- (d) up -----------------------------------------------------------------------------------------


def up_is_honest(cycle: Cycle) -> Iterator[str]:
    """Up means that everything was read; not up has a cause."""
    world, report = cycle.world, cycle.report
    if not report.up:
        if not cycle.near and not any(cycle.is_excused(name, None) for name in cycle.groups):
            yield f"the cluster is not up without a cause: {report.failures}"
        return
    for row in cycle.rows:
        if row.why not in HARMLESS:
            yield f"the cluster is up, and {row.group} on {row.where} unknown: {why_name(row.why)}"
    for where, (*_, why) in cycle.partitions.items():
        if why not in HARMLESS:
            yield f"the cluster is up, and {where} unknown: {why_name(why)}"
    for cause in world.causes:
        was_away = cause.since <= cycle.began and cause.until >= cycle.ended and cause.is_away
        if was_away and cause.broker is not None and not _was_fenced(cycle, cause.broker):
            yield f"the cluster is up, and all the time {cause.text}"


def _was_fenced(cycle: Cycle, broker: int) -> bool:
    """Return whether the map may be without a broker: nothing needed it, or a newer map would have been asked for."""
    mapped = cycle.began - cycle.cluster.metadata_interval_seconds - cycle.interval
    return any(cycle.world.fenced[broker].during(mapped, cycle.ended))


# --- (e) what is held -------------------------------------------------------------------------------


def memory_is_bounded(cycle: Cycle) -> Iterator[str]:
    """What is held depends on what there is, not on what there was; every tenth cycle, since looking takes long."""
    rows = len(cycle.rows) + len(cycle.partitions) + 10 * len(cycle.groups) + 100
    cycle.memory.peak = max(cycle.memory.peak, rows)
    if cycle.number % 10:
        return
    weight = weigh(cycle.roots)
    cycle.memory.elements_a_row = cycle.memory.elements_a_row or weight.elements / cycle.memory.peak
    limit = round(GROWTH * cycle.memory.elements_a_row * cycle.memory.peak)
    if weight.elements > limit:
        yield f"{weight.elements} elements are held, at most {limit} should be; largest: {weight.largest}"
    long_gone = {text for text, at in cycle.world.gone.items() if at < cycle.began - FORGOTTEN_AFTER_SECONDS}
    known = sorted(weight.texts & long_gone)
    if len(known) > NAMES_LEFT:
        yield f"still known by name, though gone for long: {', '.join(known)}"


GROWTH = 1.5
"""How much more than after the first cycles may be held, compared with the largest number of rows so far."""

FORGOTTEN_AFTER_SECONDS = 300.0
"""By then what is gone is forgotten, by name as well."""

NAMES_LEFT = 2
"""What was kept from the last time that something changed may name something that is gone, and goes with the next."""


def nothing_is_left_over(cycle: Cycle) -> Iterator[str]:
    """After a cycle no task of it runs any more, and there is one connection a broker at most.

    A broker that does not answer may be waited for by one task until it does.
    """
    silent = {each.broker for each in cycle.near if each.broker is not None}
    is_everybody = any(each.is_about_all for each in cycle.near) or _is_out_of_time(cycle)
    allowed = len(cycle.world.fake.brokers) if is_everybody else len(silent)
    if len(cycle.tasks) > allowed:
        found = ", ".join(sorted(map(str, cycle.tasks)))
        yield f"{len(cycle.tasks)} tasks are left over, {allowed} brokers may be silent: {found}"
    connections = cycle.world.transport.open_connections
    if connections > len(cycle.world.fake.brokers):
        yield f"{connections} connections are open to {len(cycle.world.fake.brokers)} brokers"


# --- (f) the exposition -----------------------------------------------------------------------------


def exposition_says_the_same(cycle: Cycle) -> Iterator[str]:
    """What is exposed is what the report says, no more and no less; nothing unknown is a number."""
    samples: dict[str, float] = {}
    for line in cycle.text.splitlines():
        if line.startswith("#"):
            continue
        series, value = line.split()  # no name here has a blank
        if series in samples:
            yield f"{series} is there twice"
        samples[series] = float(value)
        if (
            series.startswith("streamgauge_observe_duration_seconds")
            and len(set(cycle.offsets.during(cycle.began, cycle.ended))) > 1
        ):
            continue  # known: it is measured by the wall clock (KafkaSnapshot.at - started_at), and that was set
        if not samples[series] >= 0:
            yield f"{series} is {value}"
    families = {series.partition("{")[0] for series in samples}
    told = {series: value for series, value in samples.items() if series.partition("{")[0] in SAME}
    expected = dict(_expected(cycle))
    for series in sorted(told.keys() | expected.keys()):
        slack = EXPOSED_SECONDS if "_seconds{" in series else 0.0
        if abs(told.get(series, -1.0) - expected.get(series, -1.0)) > slack:
            yield f"{series} is exposed as {told.get(series)}, the report has {expected.get(series)}"
    if "streamgauge_cluster_up" not in families:
        yield "streamgauge_cluster_up is not exposed"
    counters = {series: value for series, value in samples.items() if series.startswith(GROWING)}
    for series, value in counters.items():
        if value < cycle.memory.counters.get(series, 0.0):
            yield f"{series} fell from {cycle.memory.counters[series]} to {value}"
    cycle.memory.counters = counters


GROWING = (
    "streamgauge_consumer_records_total{",
    "streamgauge_observe_requests_total{",
    "streamgauge_observe_failures_total{",
)
EXPOSED_SECONDS = 0.000501
"""Seconds are exposed in whole milliseconds."""
SAME = {
    "streamgauge_cluster_up",
    "streamgauge_partition_log_start_offset",
    "streamgauge_partition_log_end_offset",
    "streamgauge_consumer_lag_records",
    "streamgauge_consumer_lag_seconds",
    "streamgauge_consumer_sum_lag_records",
    "streamgauge_consumer_max_lag_seconds",
    "streamgauge_consumer_members",
}


def _expected(cycle: Cycle) -> Iterator[tuple[str, float]]:
    report, name = cycle.report, cycle.report.name
    yield f'streamgauge_cluster_up{{cluster="{name}",source="kafka"}}', float(report.up)
    for (topic, partition), (start, end, _, _) in cycle.partitions.items():
        labels = f'{{cluster="{name}",topic="{topic}",partition="{partition}"}}'
        for what, value in (("start", start), ("end", end)):
            if value >= 0:
                yield f"streamgauge_partition_log_{what}_offset{labels}", value
    for row in cycle.rows:
        topic, partition = row.where
        labels = f'{{cluster="{name}",kind="group",consumer="{row.group}",topic="{topic}",partition="{partition}"}}'
        if row.lag >= 0:
            yield f"streamgauge_consumer_lag_records{labels}", row.lag
        if not math.isnan(row.seconds):
            yield f"streamgauge_consumer_lag_seconds{labels}", row.seconds
    consumers = report.consumers
    for number, group in enumerate(cycle.groups):
        labels = f'{{cluster="{name}",kind="group",consumer="{group}"}}'
        for family, column in (
            ("sum_lag_records", consumers.lag_records),
            ("max_lag_seconds", consumers.lag_seconds),
            ("members", consumers.members),
        ):
            if column[number] >= 0:
                yield f"streamgauge_consumer_{family}{labels}", float(column[number])


# --- (g) time ---------------------------------------------------------------------------------------


def cycles_keep_time(cycle: Cycle) -> Iterator[str]:
    """Cycles follow each other at the interval or as soon as the one before has ended, and end in time."""
    limit = TIMEOUTS_A_CYCLE * cycle.cluster.timeout_seconds + LOOK_UP_SECONDS
    if cycle.ended - cycle.began > limit:
        yield f"the cycle lasted {cycle.ended - cycle.began:.1f} s, at most {limit:.1f} s are allowed"
    if cycle.memory.previous is not None:
        began, ended = cycle.memory.previous
        due = max(began + cycle.interval, ended)
        if not due - 1e-6 <= cycle.began <= due + 1e-6:
            yield f"the cycle began at {cycle.began:.3f}, it was due at {due:.3f}"
    cycle.memory.previous = (cycle.began, cycle.ended)


INVARIANTS: tuple[Callable[[Cycle], Iterator[str]], ...] = (
    numbers_are_borne_out,
    lags_follow_from_their_parts,
    ages_lie_within_their_bound,
    totals_miss_nothing,
    zeros_are_measured,
    nothing_is_unknown_without_cause,
    nothing_is_missing_without_cause,
    nothing_is_shown_that_is_gone,
    everybody_counts_once,
    up_is_honest,
    memory_is_bounded,
    nothing_is_left_over,
    exposition_says_the_same,
    cycles_keep_time,
)


def check(cycle: Cycle) -> dict[str, list[str]]:
    """Return what is wrong, by the name of the invariant, and remember what was shown."""
    wrong = {each.__name__: found for each in INVARIANTS if (found := list(each(cycle)))}
    _remember(cycle)
    return wrong


def _remember(cycle: Cycle) -> None:
    memory, shown = cycle.memory, set()
    unknown = {row.group for row in cycle.rows if row.committed < 0 and row.why != Why.NO_COMMIT}
    for row in cycle.rows:
        shown.add((row.group, row.where))
        if row.committed >= 0:
            memory.shown[row.group, row.where] = row.committed
    whole = set(cycle.groups) - unknown
    for name in whole:
        memory.whole_at[name] = cycle.began
    # Where a group is shown in full, what is not there any more is gone for the observer as well.
    memory.shown = {key: value for key, value in memory.shown.items() if key in shown or key[0] not in whole}
