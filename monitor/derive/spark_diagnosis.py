"""Why a Spark query is late: its bottleneck with the numbers that show it, and the setting to change.

Pure. First what is plainly wrong (``spark_health``), then, of a query whose batches have little or no time to spare,
the bottleneck: rules in the order in which one hides the next, each on the median of its last batches. Phases, state
and tasks are only told by the job itself; a rule without its numbers says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from statistics import correlation, median
from typing import NamedTuple

from monitor.derive.spark_health import ENOUGH, Case, age, behind, judge
from monitor.model import SparkMode, SparkPast

PRESSED = 0.8
"""From this share of its trigger interval on, a batch has no time to spare."""

SPARE = 0.3
"""Below this share, with nothing waiting, it has more than it needs (streaminglens' threshold)."""

LARGE_SHARE = 0.2
"""A phase that should be short takes more than a fifth of the batch."""

LARGE_SECONDS = 1.0
"""Or takes longer than this."""

MOST_SHARE = 0.7
"""A phase that is nearly all of the batch."""

SKEWED = 3.0
"""The fullest partition, or the longest task, against the median one."""

SKEWED_ROWS = 100
"""A batch as small as this is no matter how it is spread."""

FILL = 0.7
"""A batch should fill so much of its interval: the rest is for what does not grow with its rows."""

STATE_BATCHES = 10
"""Fewer batches than this say nothing about whether state grows for good."""


class Diagnosis(NamedTuple):
    """What is wrong, the numbers that show it, and what to do. ``setting`` is the one to change, None where none is."""

    kind: str
    text: str
    remedy: str
    setting: str | None = None


Rule = Callable[[Case], Diagnosis | None]


def diagnose(case: Case) -> list[Diagnosis]:
    """Return what is wrong with the query, what matters most first; empty where nothing is."""
    found = []
    verdict = judge(case)
    if verdict is not None and verdict.kind in _REMEDIES:
        remedy, setting = _REMEDIES[verdict.kind]
        found.append(Diagnosis(verdict.kind, verdict.evidence, remedy, setting))
    rules = [*(_BOTTLENECKS if is_pressed(case) else ()), *_OTHERS]
    found += [diagnosis for rule in rules if (diagnosis := rule(case)) is not None]
    if not found and is_pressed(case):
        found.append(_no_phases(case))
    return found


def is_pressed(case: Case) -> bool:
    """Return whether its batches are what makes it late, or will be soon: no time to spare, or rate-limited."""
    if not case.has_batches or len(case.durations) < ENOUGH:
        return False
    if (case.utilisation or 0.0) > PRESSED or rate_limited(case) is not None:
        return True
    return bool(case.facts.trigger_interval_seconds is None and case.lag and case.grows)


_REMEDIES: dict[str, tuple[str, str | None]] = {
    "lost": ("look for its driver and start it again: it goes on from its checkpoint", None),
    "ended": ("mend what it ended for and start it again: it goes on from its checkpoint", None),
    "hung_batch": (
        "look at the driver's page of running tasks: a sink or a look-up without a timeout, executors that never came, "
        "or a record that is never done; a restart runs the same batch again",
        None,
    ),
    "idle_but_lagging": (
        "lower minOffsetsPerTrigger or maxTriggerDelay, which let it wait, or look whether it may still read the topic",
        "minOffsetsPerTrigger",
    ),
    "crash_loop": ("the same batch fails each time: mend the cause, or skip the record that it fails on", None),
}


# --- bottlenecks: of batches without time to spare --------------------------------------------------


def rate_limited(case: Case) -> Diagnosis | None:
    """Every batch takes the same number of records, is done soon, and records wait."""
    rows = [each.input_rows for each in case.batches if each.input_rows]
    interval, share = case.facts.trigger_interval_seconds, case.utilisation
    if len(rows) < ENOUGH or interval is None or share is None or share >= 0.5 or not case.lag:  # noqa: PLR2004 (half)
        return None
    most = max(rows)
    if sum(each >= 0.99 * most for each in rows) <= 0.8 * len(rows) or case.lag <= most:
        return None
    better = _round(most * FILL / share)
    return Diagnosis(
        "rate_limited",
        f"nearly every batch reads {most:,} records and takes {share:.0%} of its interval of {age(interval)}, while "
        f"{case.lag:,} wait",
        f"raise maxOffsetsPerTrigger from about {most:,} to {better:,}, or trigger more often",
        "maxOffsetsPerTrigger",
    )


def unbounded_burst(case: Case) -> Diagnosis | None:
    """Batches take as long as they have records, and some have far more than others."""
    pairs = [(float(each.input_rows), each.duration_seconds) for each in case.batches
             if each.input_rows and each.duration_seconds is not None]  # fmt: skip
    interval = case.facts.trigger_interval_seconds
    if interval is None or len(pairs) < ENOUGH:
        return None
    rows, seconds = [each for each, _ in pairs], [each for _, each in pairs]
    if max(rows) < SKEWED * median(rows) or max(seconds) <= interval or len(set(seconds)) == 1:
        return None
    related = correlation(rows, seconds)
    if related <= 0.9:  # noqa: PLR2004 (nearly all of it)
        return None
    speed = sum(rows) / sum(seconds)
    limit = _round(FILL * interval * speed)
    return Diagnosis(
        "unbounded_burst",
        f"batches have {min(rows):,.0f} to {max(rows):,.0f} records and take {age(min(seconds))} to "
        f"{age(max(seconds))}, beyond the interval of {age(interval)}; their duration follows their records "
        f"(r = {related:.2f})",
        f"set maxOffsetsPerTrigger to {limit:,}, which takes {FILL:.0%} of the interval at {speed:,.0f} records/s",
        "maxOffsetsPerTrigger",
    )


def fixed_overhead(case: Case) -> Diagnosis | None:
    """Batches take the same time however few records they have."""
    pairs = [(each.input_rows, each.duration_seconds) for each in case.batches
             if each.input_rows and each.duration_seconds is not None]  # fmt: skip
    if len(pairs) < ENOUGH:
        return None
    rows, seconds = [each for each, _ in pairs], [each for _, each in pairs]
    if max(rows) < 5 * min(rows) or max(seconds) > 1.5 * min(seconds):
        return None
    stores = case.query.pinned.get("spark.sql.shuffle.partitions")
    pinned = f" (this checkpoint holds it to {stores}: a new one is needed)" if stores else ""
    return Diagnosis(
        "fixed_overhead",
        f"batches of {min(rows):,} to {max(rows):,} records all take about {age(median(seconds))}",
        f"trigger less often, or give each batch less to organise: fewer spark.sql.shuffle.partitions{pinned}, fewer "
        "queries in one driver",
        "spark.sql.shuffle.partitions",
    )


def source_metadata(case: Case) -> Diagnosis | None:
    """Asking the brokers for their heads takes long."""
    return _long_phase(
        case,
        ("latestOffset",),
        "source_metadata",
        "asking the brokers how far their logs go",
        "fewer topics and partitions in one query, no wide subscribePattern; check whether brokers are slow to answer",
    )


def planning(case: Case) -> Diagnosis | None:
    """Planning each batch takes long."""
    return _long_phase(
        case,
        ("queryPlanning",),
        "planning",
        "planning the query",
        "simplify the plan, no union that grows; cache inside foreachBatch; more cores for the driver "
        "(spark.driver.cores)",
    )


def checkpoint_writes(case: Case) -> Diagnosis | None:
    """Writing the checkpoint takes long."""
    return _long_phase(
        case,
        ("walCommit", "commitOffsets"),
        "checkpoint_writes",
        "writing the checkpoint",
        "a faster file system for the checkpoint, a longer trigger interval or, for a query without state, "
        "asyncProgressTrackingEnabled",
    )


def state(case: Case) -> Diagnosis | None:
    """Reading, writing and committing state takes most of the work."""
    add_batch = _phase(case, ("addBatch",))
    parts = case.query.state
    told = [each for each in parts if each.commit_seconds is not None]
    if not told or add_batch is None:
        return None
    # Sums over tasks: so many ran at once.
    cores = case.query.driver.cores if case.query.driver and case.query.driver.cores else math.inf
    seconds = sum(
        ((each.updates_seconds or 0) + (each.removals_seconds or 0) + (each.commit_seconds or 0))
        / max(1, min(each.stores or 1, cores))
        for each in told
    )
    if seconds <= 0.5 * add_batch:
        return None
    provider = case.query.pinned.get("spark.sql.streaming.stateStore.providerClass", "").rpartition(".")[2]
    is_rocks = provider.startswith("RocksDB")
    better = (
        "changelog checkpointing (spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled)"
        if is_rocks
        else "RocksDB as spark.sql.streaming.stateStore.providerClass (pinned: needs a new checkpoint)"
    )
    return Diagnosis(
        "state",
        f"state takes {age(round(seconds, 2))} of the {age(round(add_batch, 2))} that a batch works "
        f"({sum(each.rows for each in parts):,} rows, {_bytes(sum(each.memory_bytes for each in parts))})",
        f"{better}, a shorter watermark or time to live, fewer stores (spark.sql.shuffle.partitions)",
        "spark.sql.streaming.stateStore.providerClass",
    )


def memory(case: Case) -> Diagnosis | None:
    """Executors collect garbage or spill."""
    driver = case.query.driver
    gc, spilled = (driver.gc_ratio, driver.spilled_bytes) if driver is not None else (None, None)
    if (gc or 0) <= 0.1 and not spilled:  # noqa: PLR2004 (a tenth of their time)
        return None
    told = [f"{gc:.0%} of the executors' time goes into collecting garbage"] if gc and gc > 0.1 else []  # noqa: PLR2004
    told += [f"{_bytes(spilled)} were spilled"] if spilled else []
    return Diagnosis(
        "memory", " and ".join(told),
        "raise spark.executor.memory, or make batches smaller (maxOffsetsPerTrigger); state into RocksDB, off the heap",
        "spark.executor.memory",
    )  # fmt: skip


def skew(case: Case) -> Diagnosis | None:
    """One partition or task has far more than the others."""
    pairs = [(each.most_rows, each.median_rows) for each in case.batches
             if each.most_rows is not None and each.median_rows is not None]  # fmt: skip
    pairs = [(most, usual) for most, usual in pairs if most >= SKEWED_ROWS]
    driver, told = case.query.driver, None
    if len(pairs) >= ENOUGH and len(case.partitions) > 1:
        fullest, other = median([each for each, _ in pairs]), median([each for _, each in pairs])
        if fullest > SKEWED * other:
            told = f"the fullest partition has {fullest:,.0f} records a batch, the median one {other:,.0f}"
    longest, usual = (driver.longest_task_seconds, driver.median_task_seconds) if driver is not None else (None, None)
    if told is None and longest and usual and longest > max(SKEWED * usual, LARGE_SECONDS):
        told = f"the longest task took {age(round(longest, 2))}, the median one {age(round(usual, 2))}"
    if told is None:
        return None
    remedy = "set minPartitions above the number of Kafka partitions so that large ones are split, or spread the keys"
    return Diagnosis("skew", told, remedy, "minPartitions")


def too_few_tasks(case: Case) -> Diagnosis | None:
    """There are more cores than partitions to read."""
    cores = case.query.driver.cores if case.query.driver is not None else None
    if cores is None or not case.partitions or len(case.partitions) >= cores or not _is_work(case):
        return None
    return Diagnosis(
        "too_few_tasks",
        f"{len(case.partitions)} Kafka partitions are read by as many tasks, on {cores} cores",
        f"set minPartitions to {2 * cores} or more, add partitions, or repartition after reading",
        "minPartitions",
    )


def tiny_tasks(case: Case) -> Diagnosis | None:
    """Very many tasks with next to nothing to do."""
    driver = case.query.driver
    if driver is None or not driver.tasks or not driver.cores or driver.median_task_seconds is None:
        return None
    if driver.tasks <= 4 * driver.cores or driver.median_task_seconds >= 0.1:  # noqa: PLR2004 (four rounds, 100 ms)
        return None
    return Diagnosis(
        "tiny_tasks",
        f"{driver.tasks} tasks on {driver.cores} cores, half of them done within "
        f"{driver.median_task_seconds * 1000:.0f} ms",
        f"lower spark.sql.shuffle.partitions to {2 * driver.cores} (pinned by the checkpoint: needs a new one)",
        "spark.sql.shuffle.partitions",
    )


def cores(case: Case) -> Diagnosis | None:
    """Every core works, and tasks wait for one."""
    driver = case.query.driver
    if driver is None or not driver.cores or driver.tasks is None or driver.tasks_running is None or not _is_work(case):
        return None
    left = driver.tasks - (driver.tasks_done or 0) - driver.tasks_running
    if driver.tasks_running < driver.cores or left <= driver.cores:
        return None
    needed = math.ceil(driver.cores * max(1.0, (case.utilisation or 1.0)) / FILL)
    return Diagnosis(
        "cores", f"all {driver.cores} cores work and {left} tasks wait",
        f"more executors (spark.executor.instances) or cores (spark.executor.cores): about {needed} cores in all",
        "spark.executor.cores",
    )  # fmt: skip


def sink(case: Case) -> Diagnosis | None:
    """Nearly all of the batch is the work itself, and nothing above explains it: it is the job or its sink."""
    if not _is_work(case) or any(rule(case) is not None for rule in _BEFORE_SINK):
        return None
    add_batch = _phase(case, ("addBatch",)) or 0.0
    return Diagnosis(
        "sink", f"{age(round(add_batch, 2))} of each batch are the work itself: its transformations and its sink",
        "write in batches, not record by record; give the sink more connections; else more cores "
        f"(spark.executor.cores) or smaller batches{_smaller(case)}",
        "maxOffsetsPerTrigger",
    )  # fmt: skip


_BEFORE_SINK: tuple[Rule, ...] = (
    rate_limited, unbounded_burst, fixed_overhead, source_metadata, planning, checkpoint_writes, state, memory, skew,
    too_few_tasks, tiny_tasks, cores,
)  # fmt: skip

_BOTTLENECKS: tuple[Rule, ...] = (*_BEFORE_SINK, sink)


def _no_phases(case: Case) -> Diagnosis:
    """Say what is seen of slow batches from outside."""
    share = case.utilisation
    busy = f"batches take {age(round(median(case.durations), 2))}"
    if share is not None:
        busy += f", {share:.0%} of their trigger interval"
    return Diagnosis(
        "slow_batches", f"{busy}; {behind(case)}",
        f"more cores, or smaller batches{_smaller(case)}; let the job tell its phases (streamgauge.spark.attach) to "
        "see which of them it is",
        "maxOffsetsPerTrigger",
    )  # fmt: skip


# --- what is wrong however fast it is ---------------------------------------------------------------


def watermark_stalled(case: Case) -> Diagnosis | None:
    """Batches read records and the watermark stays where it is."""
    marks = [(each.watermark, each.input_rows) for each in case.query.batches if each.input_rows]
    last = [mark for mark, _ in marks[-ENOUGH:]]
    if len(last) < ENOUGH or last[-1] is None or len(set(last)) > 1:
        return None
    if case.query.watermark is not None and case.query.watermark != last[-1]:
        return None  # it has just moved on
    since = next((each for each in case.query.batches if each.watermark == last[-1]), case.query.batches[-1])
    policy = case.query.pinned.get("spark.sql.streaming.multipleWatermarkPolicy", "min")
    idle = (
        "; of several inputs the slowest counts (multipleWatermarkPolicy min): one of them may be idle"
        if (case.query.sources or 1) > 1 and policy == "min"
        else ""
    )
    return Diagnosis(
        "watermark_stalled",
        f"the watermark has stood still for {age(case.at - since.committed_at)} while records were read: no window "
        f"closes and state grows{idle}",
        "look for records whose event time is far behind or unset, or for an input without records",
        "spark.sql.streaming.multipleWatermarkPolicy" if idle else None,
    )


def state_growth(case: Case) -> Diagnosis | None:
    """State has only grown, and nothing was ever removed."""
    past = case.facts.past
    if len(past) < STATE_BATCHES or past[-1].rows <= past[0].rows or past[0].rows == 0:
        return None
    if any(b.rows < a.rows for a, b in pairwise(past)) or any(each.rows_removed for each in past):
        return None
    first, last = past[0], past[-1]
    hours = (last.at - first.at) / 3600
    pace = f" ({(last.rows - first.rows) / hours:,.0f} rows an hour)" if hours > 0 else ""
    return Diagnosis(
        "state_growth",
        f"state grew from {first.rows:,} to {last.rows:,} rows ({_bytes(last.memory_bytes)}) over {len(past)} batches "
        f"and nothing was removed{pace}",
        "give the query a watermark on every stateful input, or a time to live; without either state grows for ever",
    )


def late_rows(case: Case) -> Diagnosis | None:
    """Records came after the watermark and were dropped."""
    past = case.facts.past
    dropped = sum(each.rows_dropped_by_watermark or 0 for each in past)
    if not dropped:
        return None
    return Diagnosis(
        "late_rows", f"{dropped:,} rows were dropped behind the watermark in the last {_batches(past)}",
        "a longer delay in withWatermark, or accept them as lost", "withWatermark",
    )  # fmt: skip


def more_than_needed(case: Case) -> Diagnosis | None:
    """Batches take little of their interval and nothing waits."""
    share = case.utilisation
    if case.query.mode is not SparkMode.MICRO_BATCH or share is None or share >= SPARE or case.lag != 0:
        return None
    if len(case.durations) < 2 * ENOUGH:
        return None
    return Diagnosis(
        "more_than_needed", f"batches take {share:.0%} of their interval and nothing waits",
        "fewer executors would do, or a shorter trigger interval for fresher results", "spark.executor.instances",
    )  # fmt: skip


_OTHERS: tuple[Rule, ...] = (watermark_stalled, state_growth, late_rows, more_than_needed)

HARMLESS = frozenset({"more_than_needed"})
"""Kinds that are advice and no trouble."""


# --- numbers ----------------------------------------------------------------------------------------


def _phase(case: Case, names: tuple[str, ...]) -> float | None:
    """Return the median seconds of these phases together; None where too few batches tell them."""
    told = [sum(each.phases.get(name, 0.0) for name in names) for each in case.batches if each.phases]
    return median(told) if len(told) >= ENOUGH else None


_PHASE_SETTINGS = {
    "source_metadata": "subscribePattern",
    "planning": "spark.driver.cores",
    "checkpoint_writes": "asyncProgressTrackingEnabled",
}


def _long_phase(case: Case, names: tuple[str, ...], kind: str, doing: str, remedy: str) -> Diagnosis | None:
    seconds, durations = _phase(case, names), case.durations
    if seconds is None:
        return None
    share = seconds / median(durations) if median(durations) > 0 else 0.0
    if share <= LARGE_SHARE and seconds <= LARGE_SECONDS:
        return None
    text = f"{doing} takes {age(round(seconds, 2))} of each batch ({share:.0%}; {' and '.join(names)})"
    return Diagnosis(kind, text, remedy, _PHASE_SETTINGS[kind])


def _is_work(case: Case) -> bool:
    """Return whether nearly all of a batch is the work itself."""
    seconds = _phase(case, ("addBatch",))
    return seconds is not None and seconds > MOST_SHARE * median(case.durations)


def _smaller(case: Case) -> str:
    """Suggest a maxOffsetsPerTrigger that fills its interval, where it can be told."""
    interval = case.facts.trigger_interval_seconds
    rows = sum(each.input_rows or 0 for each in case.batches)
    if interval is None or not rows or not sum(case.durations):
        return " (maxOffsetsPerTrigger)"
    speed = rows / sum(case.durations)
    return f" (maxOffsetsPerTrigger {_round(FILL * interval * speed):,} at {speed:,.0f} records/s)"


def _round(value: float) -> int:
    """Round to two digits that count: a suggestion is no measurement."""
    if value < 10:  # noqa: PLR2004 (one digit)
        return max(1, round(value))
    unit: int = 10 ** (math.floor(math.log10(value)) - 1)
    return round(value / unit) * unit


def _bytes(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def _batches(past: tuple[SparkPast, ...]) -> str:
    return "batch" if len(past) == 1 else f"{len(past)} batches"
