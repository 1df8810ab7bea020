"""What a Spark query's numbers mean: idle is not caught up, a batch that hangs, a query gone without a word.

Pure, on one cluster's report. A ``Case`` is a query with its lag and the rates around it; ``judge`` says how grave it
is and why. The health of its positions (losing data and the like) is judged with all the others'; this adds what only
batches tell. Continuous and real-time queries have no batches that could hang or be late: these rules skip them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import NamedTuple, overload

import numpy as np

from monitor.model import (
    HEALTHS,
    ClusterReport,
    Health,
    SparkBatch,
    SparkFacts,
    SparkMode,
    SparkQuery,
    TopicPartition,
)

WINDOW = 20
"""Batches that are judged: the last ones with a known duration."""

ENOUGH = 5
"""Fewer batches than this say nothing about what is usual."""

HUNG_TIMES, HUNG_SECONDS = 10.0, 300.0
"""A batch hangs once it takes so many times the usual, but not sooner than five minutes."""

FIRST_BATCH_SECONDS = 1800.0
"""With nothing to compare with it may be the first one through all there is."""

SILENT_TIMES, SILENT_SECONDS = 3.0, 60.0
"""A query is silent once it missed three triggers (or usual batches), but not sooner than a minute."""

WAITING_SECONDS = 900.0
"""Spark's own maxTriggerDelay: so long a query with minOffsetsPerTrigger may let records wait."""

PERIODIC_SECONDS = 3600.0
"""Two pauses of an hour on record: it is started now and then, and silence in between is as usual."""

LOOP_RESTARTS, LOOP_SECONDS = 3, 900.0
"""More than three restarts in a quarter of an hour are a crash loop."""

GROWS = 1.05
"""What is written must exceed what is read by this factor before the lag is said to grow."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """A partition of a query; lags in records, None where unknown: behind its commits, its plan, and as Spark tells."""

    key: TopicPartition
    log_end: int | None
    committed: int | None
    planned: int | None
    lag: int | None
    planned_lag: int | None
    reported_lag: int | None
    lag_seconds: float | None
    lag_seconds_bound: float | None


@dataclass(frozen=True)  # without slots: what is worked out once is kept
class Case:
    """A query with all that is judged. Rates are records per second; ``lag`` and ``lag_seconds`` None where unknown."""

    at: float
    facts: SparkFacts
    partitions: tuple[PartitionLag, ...]
    lag: int | None
    lag_seconds: float | None
    written_per_second: float | None

    @property
    def query(self) -> SparkQuery:
        """Return the query itself."""
        return self.facts.query

    @property
    def has_batches(self) -> bool:
        """Return whether durations and batches in flight mean something."""
        return self.query.mode in {SparkMode.MICRO_BATCH, SparkMode.ASYNC_PROGRESS}

    @cached_property
    def batches(self) -> Sequence[SparkBatch]:
        """Return the last batches with a known duration that read something or cannot say."""
        known = [each for each in self.query.batches if each.duration_seconds is not None and each.input_rows != 0]
        return known[-WINDOW:]

    @cached_property
    def durations(self) -> list[float]:
        """Return their durations in seconds."""
        return [each.duration_seconds for each in self.batches if each.duration_seconds is not None]

    @cached_property
    def usual_seconds(self) -> float | None:
        """Return the duration that all but few batches keep to, None with too few of them."""
        durations = sorted(self.durations)
        return durations[math.ceil(0.95 * len(durations)) - 1] if len(durations) >= ENOUGH else None

    @property
    def beat_seconds(self) -> float | None:
        """Return how often it is expected to do something: its interval or its usual batch, whichever is longer."""
        known = [each for each in (self.facts.trigger_interval_seconds, self.usual_seconds) if each is not None]
        return max(known, default=None)

    @property
    def utilisation(self) -> float | None:
        """Return the median share of its trigger interval that a batch takes, None without either."""
        interval, durations = self.facts.trigger_interval_seconds, self.durations
        return median(durations) / interval if interval and len(durations) >= ENOUGH else None

    @property
    def moved_at(self) -> float | None:
        """Return when it last planned or committed."""
        moves = [self.facts.last_commit_at, self.query.inflight_planned_at]
        return max((each for each in moves if each is not None), default=None)

    @property
    def is_alive(self) -> bool | None:
        """Return whether the job itself gave a sign of life lately; None where no source could tell."""
        alive_at = self.query.alive_at
        return None if alive_at is None else self.at - alive_at <= self.silent_seconds

    @cached_property
    def silent_seconds(self) -> float:
        """Return how long nothing may happen before it is silent."""
        usual = max(SILENT_SECONDS, SILENT_TIMES * (self.beat_seconds or 0.0))
        moments = [each.committed_at for each in self.query.batches]
        pauses = [b - a for a, b in pairwise(moments) if b - a >= PERIODIC_SECONDS]
        return max(usual, 1.5 * max(pauses)) if len(pauses) > 1 else usual

    @property
    def grows(self) -> bool | None:
        """Return whether more is written than it reads; None where one of both is unknown."""
        read = self.facts.input_rows_per_second
        if self.written_per_second is None or read is None:
            return None
        return self.written_per_second > GROWS * read


class Verdict(NamedTuple):
    """How grave it is, under which name, and the sentence with the numbers."""

    health: Health
    kind: str
    evidence: str


def case_of(report: ClusterReport, index: int, *, partitions: bool = True) -> Case:
    """Return the case of the consumer in this row, which must be a Spark query; its partitions only if wanted."""
    facts, columns, layout = report.spark[index], report.consumers, report.positions.layout
    rows = range(int(layout.starts[index]), int(layout.starts[index + 1]))
    topics = np.unique(layout.partitions.topic[layout.row[rows.start : rows.stop]])
    written = float(report.topics.records_per_second[topics].sum()) if len(topics) else math.nan
    lag, seconds = int(columns.lag_records[index]), float(columns.lag_seconds[index])
    return Case(
        at=report.at,
        facts=facts,
        partitions=tuple(_partition(report, facts.query, row) for row in rows) if partitions else (),
        lag=lag if lag >= 0 else None,
        lag_seconds=None if math.isnan(seconds) else seconds,
        written_per_second=None if math.isnan(written) else written,
    )


def _partition(report: ClusterReport, query: SparkQuery, row: int) -> PartitionLag:
    positions, ends = report.positions, report.partitions
    where = int(positions.layout.row[row])
    key, end = ends.layout.key(where), int(ends.log_end[where])
    planned, seconds = query.planned.get(key), float(positions.lag_seconds[row])
    return PartitionLag(
        key=key,
        log_end=_known(end),
        committed=_known(int(positions.committed[row])),
        planned=planned,
        lag=_known(int(positions.lag_records[row])),
        planned_lag=max(0, end - planned) if planned is not None and end >= 0 else None,
        reported_lag=query.reported.get(key),
        lag_seconds=None if math.isnan(seconds) else seconds,
        lag_seconds_bound=None if math.isnan(seconds) else float(positions.lag_seconds_bound[row]),
    )


def _known(value: int) -> int | None:
    return value if value >= 0 else None


def judge(case: Case) -> Verdict | None:
    """Return the gravest that the query's batches tell, None where they tell nothing bad."""
    found = [verdict for rule in _RULES if (verdict := rule(case)) is not None]
    return min(found, key=lambda each: HEALTHS.index(each.health), default=None)


def judged(report: ClusterReport) -> ClusterReport:
    """Return the report with the health of every Spark query whose batches tell something graver than its positions.

    Where none does it is the same report. A query that could not be read in this cycle is unknown and stays so.
    """
    columns = report.consumers
    worse: dict[int, str] = {}
    health = columns.health.copy()
    for index in report.spark:
        if report.groups[index].why:
            continue
        verdict = judge(case_of(report, index, partitions=False))
        if verdict is not None and HEALTHS.index(verdict.health) < health[index]:
            health[index] = HEALTHS.index(verdict.health)
            worse[index] = verdict.evidence
    if not worse:
        return report
    return replace(report, consumers=replace(columns, health=health, evidence=_Evidence(columns.evidence, worse)))


class _Evidence(Sequence[str]):
    """The sentences of others, with some of our own in their place."""

    def __init__(self, others: Sequence[str], own: Mapping[int, str]) -> None:
        self._others, self._own = others, own

    def __len__(self) -> int:
        return len(self._others)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return the sentence about the consumer in this row."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        own = self._own.get(index if index >= 0 else index + len(self))
        return self._others[index] if own is None else own


# --- the rules --------------------------------------------------------------------------------------


def ended(case: Case) -> Verdict | None:
    """It said that it ended; with records waiting nobody reads them."""
    query = case.query
    if query.ended_at is None or case.lag == 0:
        return None
    how = f"ended with {' '.join(query.exception.split())[:200]}" if query.exception else "was stopped"
    return Verdict(Health.STOPPED, "ended", f"it {how}, {age(case.at - query.ended_at)} ago; {behind(case)}")


def lost(case: Case) -> Verdict | None:
    """Records wait, nothing is in flight, nothing has moved for several triggers, and nobody says that it lives."""
    moved_at, query = case.moved_at, case.query
    if query.ended_at is not None or not case.lag or case.is_alive or moved_at is None:
        return None
    silence = case.at - moved_at
    if query.inflight_batch_id is not None:
        # With a batch in flight a checkpoint alone cannot tell a batch that hangs from a driver that is gone.
        is_gone = case.is_alive is False and hung_after(case) < silence
    else:
        is_gone = silence > case.silent_seconds
    if not is_gone:
        return None
    usual = f", where {age(case.beat_seconds)} are usual" if case.beat_seconds is not None else ""
    return Verdict(Health.LOST, "lost", f"nothing has moved for {age(silence)}{usual}, without a word; {behind(case)}")


def hung(case: Case) -> Verdict | None:
    """A batch is in flight for far longer than any usual one."""
    seconds, query = case.facts.inflight_batch_age_seconds, case.query
    if not case.has_batches or seconds is None or query.ended_at is not None or seconds <= hung_after(case):
        return None
    usual = f", where {age(case.usual_seconds)} are usual" if case.usual_seconds is not None else ""
    text = f"batch {query.inflight_batch_id} is in flight for {age(seconds)}{usual}"
    driver = query.driver
    if driver is not None and driver.tasks is not None:
        text += f", with {driver.tasks_done} of {driver.tasks} tasks done and {driver.tasks_running} running"
    elif case.is_alive is None:
        text += ": it hangs, or its driver is gone (the checkpoint cannot tell which)"
    return Verdict(Health.STALLED, "hung_batch", f"{text}; {behind(case)}")


def hung_after(case: Case) -> float:
    """Return the seconds after which a batch in flight hangs."""
    usual, interval = case.usual_seconds, case.facts.trigger_interval_seconds
    if usual is None:
        return max(FIRST_BATCH_SECONDS, SILENT_TIMES * (interval or 0.0))
    return max(HUNG_SECONDS, HUNG_TIMES * usual, SILENT_TIMES * (interval or 0.0))


def waiting(case: Case) -> Verdict | None:
    """It lives and does nothing although records wait: idle is not caught up."""
    moved_at = case.moved_at
    if not case.lag or not case.is_alive or case.query.inflight_batch_id is not None or moved_at is None:
        return None
    idle = case.at - moved_at
    if idle <= max(WAITING_SECONDS, case.silent_seconds):
        return None
    return Verdict(Health.STALLED, "idle_but_lagging", f"idle for {age(idle)} although records wait; {behind(case)}")


def crash_loop(case: Case) -> Verdict | None:
    """It starts again and again."""
    lately = [at for at in case.facts.restarts if case.at - at <= LOOP_SECONDS]
    if len(lately) <= LOOP_RESTARTS:
        return None
    text = f"restarted {len(lately)} times within {age(LOOP_SECONDS)}"
    if case.query.exception:
        text += f", the last time for {' '.join(case.query.exception.split())[:200]}"
    return Verdict(Health.STALLED, "crash_loop", f"{text}; {behind(case)}")


def falling_behind(case: Case) -> Verdict | None:
    """Batches take longer than the interval, or there is none, and more is written than read."""
    interval, durations, read = case.facts.trigger_interval_seconds, case.durations, case.facts.input_rows_per_second
    if not case.has_batches or not case.lag or not case.grows or len(durations) < ENOUGH:
        return None
    if interval is not None and min(durations[-ENOUGH:]) <= interval:
        return None
    slow = f"the last {ENOUGH} batches took longer than the trigger interval of {age(interval)}" if interval else (
        f"batches take {age(median(durations))}"
    )  # fmt: skip
    text = f"{slow}, and of {case.written_per_second:.0f} records/s it reads {read:.0f}; {behind(case)}"
    return Verdict(Health.FALLING_BEHIND, "falling_behind", text)


_RULES: tuple[Callable[[Case], Verdict | None], ...] = (lost, ended, hung, waiting, crash_loop, falling_behind)


# --- words ------------------------------------------------------------------------------------------


def behind(case: Case) -> str:
    """Say how late it is."""
    if case.lag is None:
        return "its lag is unknown"
    if case.lag == 0:
        return "caught up"
    text = f"{case.lag:,} records behind"
    return text if case.lag_seconds is None else f"{text}, the oldest {age(case.lag_seconds)} old"


def age(seconds: float | None) -> str:
    """Write a duration for a person."""
    if seconds is None:
        return "an unknown time"
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
