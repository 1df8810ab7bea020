"""Spark queries by their checkpoint folders: positions, batches, watermark, without touching the job.

A checkpoint holds ``metadata`` (the query id), ``offsets/N`` (what batch N shall read up to, written before the
batch) and ``commits/N`` (batch N is done). From these:

- *committed* positions are those of ``offsets/<newest commit>``, *planned* those of the newest ``offsets/N`` beyond it;
- a batch's duration is the modification time of ``commits/N`` minus the batchTimestampMs in ``offsets/N``
  (in the middle 0.14 s below what Spark calls triggerExecution);
- a batch's input rows are what its offset ranges span since the batch before it on record. With asynchronous progress
  tracking only every n-th batch is on record, and then stands for those in between as well.

What is assumed, because a checkpoint does not say it:

- Only sources whose offsets look like Kafka's, ``{"topic": {"0": 42}}``, are positions on this cluster. Where two
  sources read the same partition, the slower one is the query's position.
- After a restart Spark runs the batch in flight anew under its *old* batchTimestampMs and rewrites nothing but the
  commit, so that the downtime looks like batch time. A duration is therefore unknown where ``offsets/N`` is much
  younger than its batchTimestampMs (files were copied; real-time mode plans afterwards), where the commit lies before
  the plan or after the next batch's plan, and where the batch took far longer than both its neighbours. A single
  slow batch that is really one cannot be told from a restart, and its duration is unknown too; while it runs, its
  age is known.
- Continuous mode writes no batchTimestampMs: its epochs have positions and a commit time, but no duration.
- Folders are on a file system of this machine, and its clock is the cluster's.

Every file but ``metadata`` is written once, so each is read once. A file that vanishes or is torn while being read is
looked at again once; then it is a failure of that query alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

from monitor.model import Consumer, Failure, Kind, SparkBatch, SparkQuery, SparkSnapshot, TopicPartition
from monitor.settings import Cluster, SparkCheckpoints

HISTORY = 100
"""Batches kept of a query: Spark's own spark.sql.streaming.minBatchesToRetain."""

PLAN_SLACK_SECONDS = 10.0
"""How much younger than its batchTimestampMs a plan may be: asking the sources for their heads takes its time."""

CLOCK_SLACK_SECONDS = 0.05
"""What modification times and the driver's clock may differ by on one machine (the kernel's tick is 4 ms or 10 ms)."""

RESTART_SECONDS = 10.0
"""No driver is back sooner: a JVM, a session and a plan take longer."""

RESTART_FACTOR = 5.0
"""How much longer than its neighbours a batch may take before it may as well hide a restart."""

INT64_MAX = 2**63 - 1
"""Kafka's offsets and times are signed 64-bit integers."""

INT32_DIGITS = 10
"""Kafka's partition numbers are signed 32-bit integers."""

Positions = Mapping[TopicPartition, int]

T = TypeVar("T")


class CheckpointError(Exception):
    """A checkpoint could not be read; ``error`` is the short name of why."""

    def __init__(self, error: str, detail: str) -> None:
        self.error = error
        super().__init__(detail)


# --- the files --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OffsetsFile:
    """``offsets/N``: each source's positions by the source's place or name; None where it is not like Kafka's.

    ``batch_timestamp_ms`` is None in continuous mode; ``written_at`` is the file's modification time.
    """

    batch_timestamp_ms: int | None
    sources: Mapping[str, Positions | None]
    written_at: float = math.nan

    @property
    def planned_at(self) -> float:
        """Return batchTimestampMs in seconds since the epoch, NaN in continuous mode."""
        return math.nan if self.batch_timestamp_ms is None else self.batch_timestamp_ms / 1000


@dataclass(frozen=True, slots=True)
class CommitFile:
    """``commits/N``: the watermark for the next batch in seconds since the epoch, None where there is none."""

    watermark: float | None
    written_at: float = math.nan


def parse_query_id(text: str) -> str:
    """Return the query id that ``metadata`` holds."""
    query_id = _json(text, dict).get("id")
    if not isinstance(query_id, str) or not query_id:
        raise CheckpointError("MALFORMED", "no query id in it")
    return query_id


def parse_offsets(text: str) -> OffsetsFile:
    """Parse an offset log entry of version 1 (a line a source, in plan order) or 2 (``source:offset`` lines).

    Raises:
        CheckpointError: it is torn, or of a version unknown here.
    """
    version, header, *lines = _lines(text, versions=("v1", "v2"), at_least=3)
    numbered = (line.partition(":")[::2] for line in lines) if version == "v2" else enumerate(lines)
    sources = {str(source): _source_positions(offset) for source, offset in numbered}
    if not header:  # continuous mode
        return OffsetsFile(None, sources)
    return OffsetsFile(_integer(_json(header, dict), "batchTimestampMs"), sources)


def parse_commit(text: str) -> CommitFile:
    """Parse a commit log entry of version 1 or 2, which differ only in the state's ids.

    Raises:
        CheckpointError: it is torn, or of a version unknown here.
    """
    _, body, *_ = _lines(text, versions=("v1", "v2"), at_least=2)
    # Spark 2.1 wrote an empty object.
    watermark_ms = _integer({"nextBatchWatermarkMs": 0, **_json(body, dict)}, "nextBatchWatermarkMs")
    return CommitFile(watermark_ms / 1000 if watermark_ms > 0 else None)


def parse_initial_offsets(text: str) -> Positions | None:
    """Parse ``sources/I/0``, where Spark's Kafka source keeps what it started from; None if it is not like Kafka's.

    Other sources keep what they like under that name.
    """
    # Spark puts a zero byte in front, for readers as old as 2.1 (SPARK-19517).
    version, _, offsets = text.removeprefix("\0").partition("\n")
    try:
        return _source_positions(offsets.strip()) if version == "v1" else None
    except CheckpointError:
        return None


def _lines(text: str, *, versions: Sequence[str], at_least: int) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    if lines[0] not in versions:
        if lines[0][:1] == "v" and lines[0][1:].isdigit():
            raise CheckpointError("UNSUPPORTED", f"version {lines[0]} is not known here ({' and '.join(versions)} are)")
        raise CheckpointError("MALFORMED", f"it does not begin with a version but with {lines[0][:20]!r}")
    if len(lines) < at_least:
        raise CheckpointError("MALFORMED", f"it ends after {len(lines)} lines")
    return lines


def _source_positions(text: str) -> Positions | None:
    """Return the positions in one source's offset: none yet for "-", None for what is not like Kafka's."""
    if text == "-":
        return {}
    if not text.startswith("{"):
        return None
    topics = _json(text, dict)
    if not topics or not all(_is_partitions(each) for each in topics.values()):
        return None
    return {
        TopicPartition(topic, int(partition)): _offset(offset)
        for topic, partitions in topics.items()
        for partition, offset in partitions.items()
    }


def _is_partitions(value: object) -> bool:
    return isinstance(value, dict) and all(
        key.isascii() and key.isdigit() and len(key) <= INT32_DIGITS and type(offset) is int
        for key, offset in value.items()
    )


def _offset(value: int) -> int:
    if not 0 <= value <= INT64_MAX:
        raise CheckpointError("MALFORMED", f"{value} is no offset")
    return value


def _integer(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not abs(value) <= INT64_MAX:
        raise CheckpointError("MALFORMED", f"{name} is {value!r}")
    return value


def _json(text: str, kind: type[T]) -> T:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError("MALFORMED", f"it is not JSON: {text[:40]!r}") from exc
    if not isinstance(value, kind):
        raise CheckpointError("MALFORMED", f"it is not a JSON object: {text[:40]!r}")
    return value


# --- a checkpoint -----------------------------------------------------------------------------------


Entry = TypeVar("Entry", OffsetsFile, CommitFile)


class Log(Generic[Entry]):
    """``offsets/`` or ``commits/``: entries by batch id, each file read once.

    Entries are never rewritten, except by whoever rewinds a query by hand; the newest one is checked for that.
    """

    def __init__(self, folder: Path, parse: Callable[[str], Entry]) -> None:
        self.entries: dict[int, Entry] = {}
        self._folder = folder
        self._parse: Callable[[str], Entry] = parse
        self._newest: tuple[int, int, int] | None = None

    def refresh(self) -> None:
        """List the folder, forget what is gone, read what is new (the last HISTORY and one)."""
        numbers = sorted(int(name) for name in _names(self._folder) if name.isascii() and name.isdigit())
        numbers = numbers[-(HISTORY + 1) :]
        stamp = self._stamp(numbers[-1]) if numbers else None
        if self._newest is not None and stamp is not None and stamp[0] <= self._newest[0] and stamp != self._newest:
            self.entries.clear()
        self.entries = {number: self.entries.get(number) or self._read(number) for number in numbers}
        self._newest = stamp

    def _stamp(self, number: int) -> tuple[int, int, int]:
        stat = (self._folder / str(number)).stat()
        return number, stat.st_mtime_ns, stat.st_ino

    def _read(self, number: int) -> Entry:
        path = self._folder / str(number)
        with path.open(encoding="utf-8") as file:
            written_at = os.fstat(file.fileno()).st_mtime
            entry: Entry = replace(_parsed(path, file.read(), self._parse), written_at=written_at)
            return entry


class Checkpoint:
    """One checkpoint folder, and what was read of it so far."""

    def __init__(self, path: str, shown: SparkCheckpoints) -> None:
        self.path = path
        self.name = (shown.name or "{folder}").replace("{folder}", Path(path).name)
        self.query_id: str | None = None
        self._folder = Path(path)
        self._trigger_interval_seconds = shown.trigger_interval_seconds
        self._commits = Log(self._folder / "commits", parse_commit)
        self._offsets = Log(self._folder / "offsets", parse_offsets)
        self._initial: dict[str, Positions | None] = {}

    def look(self, clock: Callable[[], float]) -> SparkQuery:
        """Read what is new and return the query; its consumer carries the name as configured.

        Raises:
            CheckpointError: it cannot be read, twice in a row.
        """
        try:
            return self._look(clock)
        except CheckpointError:
            # Renames are atomic where Spark writes, but a listing and what it lists are two moments.
            return self._look(clock)

    def _look(self, clock: Callable[[], float]) -> SparkQuery:
        try:
            self._read()
        except FileNotFoundError as exc:
            raise CheckpointError("NOT_FOUND", f"{exc.filename} does not exist") from exc
        except UnicodeDecodeError as exc:
            raise CheckpointError("MALFORMED", f"a file in {self.path} is not text: {exc.reason}") from exc
        except OSError as exc:
            raise CheckpointError("UNREADABLE", f"{exc.filename or self.path}: {exc.strerror or exc}") from exc
        return self._query(clock())

    def _read(self) -> None:
        query_id = self._read_query_id()
        if query_id != self.query_id:
            self.query_id = query_id  # also where a checkpoint was made anew in its old place
            self._commits.entries, self._offsets.entries, self._initial = {}, {}, {}
        # Commits first: a batch that is committed in between then looks in flight a moment longer, never lost.
        self._commits.refresh()
        self._offsets.refresh()
        for source in _names(self._folder / "sources"):
            if source not in self._initial:
                self._read_initial(source)

    def _read_query_id(self) -> str:
        if not self._folder.is_dir():
            raise CheckpointError("NOT_FOUND", f"there is no folder {self.path}: is the path right?")
        metadata = self._folder / "metadata"
        if not metadata.exists():
            detail = f"{self.path} has no file 'metadata': name the folder that the query has as checkpointLocation"
            raise CheckpointError("NOT_A_CHECKPOINT", detail)
        return _parsed(metadata, metadata.read_text("utf-8"), parse_query_id)

    def _read_initial(self, source: str) -> None:
        path = self._folder / "sources" / source / "0"
        # Spark makes the folder first, and the file only once it has asked the brokers.
        with contextlib.suppress(FileNotFoundError):
            self._initial[source] = _parsed(path, path.read_text("utf-8"), parse_initial_offsets)

    def _query(self, now: float) -> SparkQuery:
        offsets, commits = self._offsets.entries, self._commits.entries
        newest = max(commits, default=None)
        if newest is not None and newest not in offsets:
            raise CheckpointError("MALFORMED", f"{self.path} has commits/{newest} but no offsets/{newest}")
        inflight = [number for number in offsets if newest is None or number > newest]
        planned_ms = offsets[inflight[0]].batch_timestamp_ms if inflight else None
        return SparkQuery(
            consumer=Consumer(Kind.SPARK, self.name),
            query_id=self.query_id or "",
            checkpoint=self.path,
            observed_at=now,
            committed=slowest(self._initial if newest is None else offsets[newest].sources),
            planned=slowest(offsets[inflight[-1]].sources) if inflight else {},
            batch_id=newest,
            batches=batches_of(offsets, commits, self._initial),
            inflight_batch_id=inflight[0] if inflight else None,
            inflight_planned_at=None if planned_ms is None else planned_ms / 1000,
            watermark=None if newest is None else commits[newest].watermark,
            trigger_interval_seconds=self._trigger_interval_seconds,
        )


def _names(folder: Path) -> list[str]:
    """List a folder; one that is not there yet is empty: Spark makes it with its first file."""
    try:
        return [each.name for each in folder.iterdir()]
    except FileNotFoundError:
        return []


def _parsed(path: Path, text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except CheckpointError as exc:
        raise CheckpointError(exc.error, f"{path}: {exc}") from exc


# --- arithmetic -------------------------------------------------------------------------------------


def slowest(sources: Mapping[str, Positions | None]) -> dict[TopicPartition, int]:
    """Join the positions of all sources; of two on the same partition the smaller counts."""
    joined: dict[TopicPartition, int] = {}
    for positions in sources.values():
        for tp, offset in (positions or {}).items():
            joined[tp] = min(offset, joined.get(tp, offset))
    return joined


def input_rows(before: Mapping[str, Positions | None], after: Mapping[str, Positions | None]) -> int | None:
    """Return how many offsets lie between two plans; None where a start is unknown or nothing is like Kafka's.

    A topic deleted and made anew ends before it started: that counts nothing.
    """
    rows, known = 0, False
    for source, ends in after.items():
        if ends is None:
            continue
        starts = before.get(source) or {}
        if any(tp not in starts for tp in ends):
            return None  # a partition's start is the log start at that time, which no file holds
        known = True
        rows += sum(max(0, end - starts[tp]) for tp, end in ends.items())
    return rows if known else None


def batches_of(
    offsets: Mapping[int, OffsetsFile], commits: Mapping[int, CommitFile], start: Mapping[str, Positions | None]
) -> tuple[SparkBatch, ...]:
    """Return the committed batches that have both files, oldest first, at most HISTORY; ``start`` precedes batch 0."""
    numbers = sorted(offsets)
    before = {0: start} | {b: offsets[a].sources for a, b in pairwise(numbers)}
    next_plan = {a: offsets[b].planned_at for a, b in pairwise(numbers)}
    done = [number for number in numbers if number in commits][-HISTORY:]
    spans = [commits[number].written_at - offsets[number].planned_at for number in done]
    known = [
        is_duration(
            spans[i],
            plan_delay=offsets[number].written_at - offsets[number].planned_at,
            until_next_plan=next_plan.get(number, math.inf) - offsets[number].planned_at,
            neighbours=spans[max(0, i - 1) : i] + spans[i + 1 : i + 2],
        )
        for i, number in enumerate(done)
    ]
    return tuple(
        SparkBatch(
            batch_id=number,
            planned_at=offsets[number].planned_at,
            committed_at=commits[number].written_at,
            duration_seconds=spans[i] if known[i] else None,
            input_rows=input_rows(before.get(number, {}), offsets[number].sources),
        )
        for i, number in enumerate(done)
    )


def is_duration(span: float, *, plan_delay: float, until_next_plan: float, neighbours: Sequence[float]) -> bool:
    """Return whether the time from plan to commit is the batch's duration: see what this module assumes.

    All in seconds; ``plan_delay`` is the plan file's age against its batchTimestampMs.
    """
    usual = max((each for each in neighbours if each >= 0), default=math.inf)
    longest = max(RESTART_SECONDS, RESTART_FACTOR * usual)
    # batchTimestampMs is cut to the millisecond, and file systems cut times as they like.
    return 0 <= span <= min(longest, until_next_plan + CLOCK_SLACK_SECONDS) and plan_delay <= PLAN_SLACK_SECONDS


# --- all checkpoints of a cluster -------------------------------------------------------------------


class CheckpointSource:
    """Every checkpoint that the settings name for a cluster, looked at in a thread, one look at a time."""

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._clock = clock
        self._checkpoints: dict[str, Checkpoint] = {}
        self._looking: asyncio.Future[tuple[list[SparkQuery], list[Failure]]] | None = None

    async def observe(self) -> SparkSnapshot:
        """Look at every checkpoint; what fails is an entry.

        A look that takes longer than ``timeout_seconds`` (a file system that hangs) is a failure of all, and is waited
        for again the next time instead of being started twice.
        """
        started_at = self._clock()
        if self._looking is None:
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        done, _ = await asyncio.wait({self._looking}, timeout=self._cluster.timeout_seconds)
        queries, failures = self._looking.result() if done else ([], self._timed_out())
        if done:
            self._looking = None
        return SparkSnapshot(
            self._cluster.name, started_at, self._clock(), not failures, tuple(queries), tuple(failures)
        )

    def _timed_out(self) -> list[Failure]:
        paths = dict.fromkeys((*self._checkpoints, *(entry.path for entry in self._cluster.spark)))
        detail = f"not read within {self._cluster.timeout_seconds:g} s: does its file system answer?"
        return [Failure("checkpoint", path, "TIMEOUT", detail) for path in paths]

    def _look(self) -> tuple[list[SparkQuery], list[Failure]]:
        failures: list[Failure] = []
        # Swapped as one reference: a look that hangs is asked from outside which checkpoints there are.
        self._checkpoints = self._find(failures)
        queries = []
        for path, checkpoint in self._checkpoints.items():
            try:
                queries.append(checkpoint.look(self._clock))
            except CheckpointError as exc:
                failures.append(Failure("checkpoint", path, exc.error, str(exc)))
        shown = shown_names([each for each in self._checkpoints.values() if each.query_id is not None])
        named = [replace(query, consumer=Consumer(Kind.SPARK, shown[query.checkpoint])) for query in queries]
        return named, failures

    def _find(self, failures: list[Failure]) -> dict[str, Checkpoint]:
        found: dict[str, Checkpoint] = {}
        for entry in self._cluster.spark:
            try:
                paths = self._paths(entry.path)
            except CheckpointError as exc:
                failures.append(Failure("checkpoint", entry.path, exc.error, str(exc)))
                paths = []
            except OSError as exc:
                failures.append(Failure("checkpoint", entry.path, "UNREADABLE", f"{entry.path}: {exc.strerror or exc}"))
                paths = []
            for path in paths:
                found.setdefault(path, self._checkpoints.get(path) or Checkpoint(path, entry))
        return found

    def _paths(self, configured: str) -> list[str]:
        """Return the folders that a path or glob names. A glob that matches nothing (yet) is fine; its root must exist.

        Raises:
            CheckpointError: it can never match.
        """
        path = configured.removeprefix("file://")
        if "://" in path or path.startswith(("s3a:", "hdfs:")):
            detail = (
                f"{configured}: only folders of this machine's file system can be read: mount it and name the folder"
            )
            raise CheckpointError("UNSUPPORTED", detail)
        pattern = str(Path(path).expanduser().absolute())
        if not glob.has_magic(pattern):
            return [pattern]
        root = _fixed_part(pattern)
        known = [each for each in self._checkpoints if Path(each).is_relative_to(root)]
        if not root.is_dir():
            # A file system that is not mounted must not make queries leave: each known one fails by its own name.
            if known:
                return known
            raise CheckpointError("NOT_FOUND", f"there is no folder {root}, in which {configured} is looked for")
        matches = glob.glob(pattern)  # noqa: PTH207 (Path.glob matches hidden folders too)
        return sorted(each for each in matches if _is_checkpoint(Path(each)))


def _fixed_part(pattern: str) -> Path:
    parts = Path(pattern).parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _is_checkpoint(path: Path) -> bool:
    """Return whether a glob's match is meant: other folders and files may lie beside checkpoints."""
    try:
        return any((path / each).exists() for each in ("metadata", "offsets", "commits"))
    except OSError:
        return True  # whatever it is, looking at it will fail and say why


def shown_names(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """Return the shown name of each by path: as configured, else with the short query id, else with the path."""
    shown = {each.path: each.name for each in checkpoints}
    for longer in ("{name} ({query_id:.8})", "{name} ({path})"):
        times = Counter(shown.values())
        for each in checkpoints:
            if times[shown[each.path]] > 1:
                shown[each.path] = longer.format(name=each.name, query_id=each.query_id, path=each.path)
    return shown
