"""What ``streamgauge.spark`` sends of a job's queries, message by message, as what is known of each query.

The schema is in the docstring of ``streamgauge.spark``; the events in it are Spark's own JSON, 3.5 to 4.3. No pyspark,
no I/O, and the time is given.

What a batch is: a progress event with the phase ``addBatch``; without it nothing was run, and the batch id is that of
the next one. Its duration is ``batchDuration`` (4.0), else ``triggerExecution``, else the sum of its phases. Its rows
are what the offset ranges of Kafka-like sources span, since ``numInputRows`` counts a row as often as the plan reads
it; where there are other sources, or a range has no start, it is what Spark counted. Offsets are JSON objects in some
releases and JSON in a string in others.

**Whoever may write to the topic decides what is in it.** A message that does not follow the schema is counted by its
reason and changes nothing. Numbers, texts and lists have their bounds, and so has everything that is kept: queries,
batches of each, positions of all. Times of the future count as now.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

from monitor.model import SparkBatch, SparkMode, SparkState, TopicPartition

VERSION = 1

MOST_QUERIES = 10_000
MOST_BATCHES = 100
"""Kept of a query, as Spark itself keeps in a checkpoint."""
MOST_POSITIONS = 2_000_000
"""Of all queries together; some 200 MB."""
MOST_INSTANCES = 1_000
MOST_OPERATORS = 100
MOST_REMEMBERED = 2_000
"""Sequence numbers of a process by which a message that was sent again is known."""
LARGEST_MESSAGE = 8_000_000
"""In bytes; streamgauge.spark sends 0.9 MB at most."""
LONGEST_TEXT = 500

EVENTS = frozenset({"started", "progress", "idle", "terminated"})
SIGNS_OF_LIFE = frozenset({"alive", "ended"})

FORGET_SECONDS = 24 * 3600.0
"""After how long without a word a query is forgotten."""

INT63 = 2**63 - 1

Positions = Mapping[TopicPartition, int]


class RefusedError(ValueError):
    """A message that does not follow the schema; the text is the reason, the same for the same kind of fault."""


# --- values that may be anything --------------------------------------------------------------------


def a_text(value: object) -> str | None:
    """Return a text, cut; None for anything else, and for an empty one."""
    return value[:LONGEST_TEXT] if isinstance(value, str) and value else None


def a_count(value: object) -> int | None:
    """Return a whole number from 0 on; None for anything else (Spark's word for unknown is -1)."""
    return value if type(value) is int and 0 <= value <= INT63 else None


def a_number(value: object) -> float | None:
    """Return a finite number from 0 on; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if 0 <= number < math.inf else None


def a_time(value: object) -> float | None:
    """Return seconds since the epoch of ISO 8601 in UTC, as Spark writes it; None for anything else and for the epoch.

    The epoch is Spark's word for: no watermark yet.
    """
    if not isinstance(value, str) or len(value) > 40:  # noqa: PLR2004
        return None
    try:
        at = datetime.fromisoformat(value).timestamp() if value.endswith("Z") else 0.0
    except (ValueError, OverflowError):
        return None
    return at if at > 0 else None


def an_object(value: object) -> Mapping[str, Any]:
    """Return an object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def a_list(value: object, most: int) -> list[Any]:
    """Return a list, cut; an empty one for anything else."""
    return value[:most] if isinstance(value, list) else []


def positions(value: object) -> Positions | None:
    """Return offsets like Kafka's, ``{"topic": {"0": 42}}``, as an object or in a string; None for what is not."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, dict) or not value:
        return None
    found = {}
    for topic, partitions in value.items():
        if not isinstance(partitions, dict):
            return None
        for partition, offset in partitions.items():
            if not _is_partition(partition) or a_count(offset) is None:
                return None
            found[TopicPartition(topic, int(partition))] = offset
    return found


def _is_partition(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9  # noqa: PLR2004


# --- a batch ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """A progress event, read. ``is_batch``: something was run; else only the watermark may be news."""

    is_batch: bool
    batch: SparkBatch
    ends: Positions
    reported: Positions
    watermark: float | None
    state: tuple[SparkState, ...]
    sources: int
    kafka_sources: int


def read_progress(event: Mapping[str, Any]) -> Progress:
    """Read a progress event.

    Raises:
        RefusedError: there is no batch id or no time in it.
    """
    batch_id, planned_at = a_count(event.get("batchId")), a_time(event.get("timestamp"))
    if batch_id is None:
        raise RefusedError("a progress event without a batch id")
    if planned_at is None:
        raise RefusedError("a progress event without a time")
    phases = _phases(event)
    duration = _duration(event, phases)
    sources = a_list(event.get("sources"), MOST_OPERATORS)
    spans = [_Span.read(an_object(source)) for source in sources]
    rows, most, middle = _rows(event, spans)
    watermark = a_time(an_object(event.get("eventTime")).get("watermark"))
    batch = SparkBatch(
        batch_id=batch_id,
        planned_at=planned_at,
        committed_at=planned_at + (duration or 0.0),
        duration_seconds=duration,
        input_rows=rows,
        most_rows=most,
        median_rows=middle,
        watermark=watermark,
        output_rows=a_count(an_object(event.get("sink")).get("numOutputRows")),
        phases=phases or None,
    )
    return Progress(
        is_batch="addBatch" in phases,
        batch=batch,
        ends=slowest(span.ends for span in spans),
        reported=_reported(spans),
        watermark=watermark,
        state=_state(event),
        sources=len(sources),
        kafka_sources=sum(span.is_kafka for span in spans),
    )


def _phases(event: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of each phase, without the whole."""
    told = an_object(event.get("durationMs"))
    found = {name[:60]: a_number(value) for name, value in list(told.items())[:30] if name != "triggerExecution"}
    return {name: value / 1000 for name, value in found.items() if value is not None}


def _duration(event: Mapping[str, Any], phases: Mapping[str, float]) -> float | None:
    for told in (event.get("batchDuration"), an_object(event.get("durationMs")).get("triggerExecution")):
        milliseconds = a_number(told)
        if milliseconds is not None:
            return milliseconds / 1000
    return sum(phases.values()) if phases else None


@dataclass(frozen=True, slots=True)
class _Span:
    """What a source brought: positions before and after, and its newest; empty where they are not like Kafka's."""

    starts: Positions
    ends: Positions
    newest: Positions

    @property
    def is_kafka(self) -> bool:
        return bool(self.ends)

    @classmethod
    def read(cls, source: Mapping[str, Any]) -> _Span:
        starts, ends, newest = (positions(source.get(name)) for name in ("startOffset", "endOffset", "latestOffset"))
        return cls(starts or {}, ends or {}, newest or {})

    def rows(self) -> list[int] | None:
        """Return the records of each partition; None where one has no start. A topic made anew may end below it."""
        if not self.ends.keys() <= self.starts.keys():
            return None
        return [max(0, end - self.starts[key]) for key, end in self.ends.items()]


def _rows(event: Mapping[str, Any], spans: list[_Span]) -> tuple[int | None, int | None, float | None]:
    """Return the rows of a batch, and the most and the median of one partition."""
    by_partition: list[int] = []
    for span in spans:
        rows = span.rows() if span.is_kafka else None
        if rows is None:
            return a_count(event.get("numInputRows")), None, None
        by_partition += rows
    if not by_partition:
        return a_count(event.get("numInputRows")), None, None
    return sum(by_partition), max(by_partition), float(median(by_partition))


def _reported(spans: list[_Span]) -> Positions:
    """Return the lag that Spark tells: its newest offsets are those of when the batch was planned."""
    told: dict[TopicPartition, int] = {}
    for span in spans:
        for key, end in span.ends.items():
            if key in span.newest:
                told[key] = max(told.get(key, 0), span.newest[key] - end, 0)
    return told


def slowest(sources: Iterator[Positions] | list[Positions]) -> Positions:
    """Join the positions of sources; where two read the same partition, the slower one counts."""
    joined: dict[TopicPartition, int] = {}
    for each in sources:
        for key, offset in each.items():
            joined[key] = min(offset, joined.get(key, offset))
    return joined


def _state(event: Mapping[str, Any]) -> tuple[SparkState, ...]:
    found = []
    for place, told in enumerate(a_list(event.get("stateOperators"), MOST_OPERATORS)):
        operator = an_object(told)
        rows, memory = a_count(operator.get("numRowsTotal")), a_count(operator.get("memoryUsedBytes"))
        if rows is None or memory is None:
            continue
        found.append(
            SparkState(
                operator=f"{(a_text(operator.get('operatorName')) or 'operator')[:60]} {place}",
                rows=rows,
                memory_bytes=memory,
                rows_updated=a_count(operator.get("numRowsUpdated")),
                rows_removed=a_count(operator.get("numRowsRemoved")),
                rows_dropped_by_watermark=a_count(operator.get("numRowsDroppedByWatermark")),
                updates_seconds=_seconds(operator.get("allUpdatesTimeMs")),
                removals_seconds=_seconds(operator.get("allRemovalsTimeMs")),
                commit_seconds=_seconds(operator.get("commitTimeMs")),
                stores=a_count(operator.get("numStateStoreInstances")),
            )
        )
    return tuple(found)


def _seconds(value: object) -> float | None:
    milliseconds = a_number(value)
    return None if milliseconds is None else milliseconds / 1000


# --- the trigger ------------------------------------------------------------------------------------


def trigger_of(text: str | None) -> tuple[float | None, SparkMode | None]:
    """Return the interval in seconds of a trigger as Spark prints it, None without one; and the mode it means."""
    name, _, inside = (text or "").partition("(")
    digits = re.match(r"\d{1,12}", inside)
    milliseconds = int(digits[0]) if digits else 0
    if name.startswith("ProcessingTimeTrigger"):
        return (milliseconds / 1000 or None), SparkMode.MICRO_BATCH
    if name.startswith("ContinuousTrigger"):
        return None, SparkMode.CONTINUOUS
    if name.startswith("RealTimeTrigger"):
        return None, SparkMode.REAL_TIME
    return None, None


# --- a query ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class ToldQuery:
    """What was told of a query so far. Times are the driver's, in seconds since the epoch."""

    query_id: str
    app: str
    heard_at: float
    name: str | None = None
    run_id: str | None = None
    trigger: str | None = None
    checkpoint: str | None = None
    ended_at: float | None = None
    exception: str | None = None
    restarts: int = 0
    batches: OrderedDict[int, SparkBatch] = field(default_factory=OrderedDict)
    last: Progress | None = None
    watermark: float | None = None

    @property
    def size(self) -> int:
        """Return how many positions are kept of it."""
        return 1 + (len(self.last.ends) + len(self.last.reported) if self.last else 0)

    def hear(self, at: float, app: str, run_id: str | None) -> None:
        """Note a sign of life of a run: another one than before is a restart, unless it is old news.

        What is told of the query and of its process may come by different partitions, in any order.
        """
        if at >= self.heard_at and run_id not in (None, self.run_id):
            self.restarts += self.run_id is not None
            self.run_id, self.ended_at, self.exception = run_id, None, None
        if at >= self.heard_at or run_id == self.run_id:
            self.app = app
            self.heard_at = max(self.heard_at, at)

    def end(self, at: float, exception: str | None) -> None:
        """Note that the run has ended, and by what if it failed."""
        self.ended_at, self.exception = at, exception

    def progress(self, told: Progress) -> None:
        """Take in a progress event."""
        self.watermark = told.watermark if told.watermark is not None else self.watermark
        if not told.is_batch:
            return
        self.batches.pop(told.batch.batch_id, None)  # run again, after a restart: the last time counts
        self.batches[told.batch.batch_id] = told.batch
        while len(self.batches) > MOST_BATCHES:
            self.batches.popitem(last=False)
        self.last = told


@dataclass(slots=True)
class Instance:
    """A process that sends: which of its messages came, and what it says of those that never will."""

    heard_at: float
    first: int
    last: int
    seen: OrderedDict[int, None] = field(default_factory=OrderedDict)
    received: int = 0
    dropped: int = 0
    bus_dropped: int = 0
    is_over: bool = False
    lost: int = 0
    _missing: int = 0

    def settle(self) -> None:
        """Count as lost what was missing before already and has not come since: partitions are not read in order."""
        missing = self.last - self.first + 1 - self.received
        self.lost, self._missing = min(missing, self._missing), missing

    def take(self, seq: int) -> bool:
        """Note a message; return whether it is a new one."""
        if seq in self.seen:
            return False
        self.seen[seq] = None
        while len(self.seen) > MOST_REMEMBERED:
            self.seen.popitem(last=False)
        self.first, self.last = min(self.first, seq), max(self.last, seq)
        self.received += 1
        return True


class Told:
    """Everything that was told, by query id. ``refused`` counts messages that were not taken, by reason."""

    def __init__(self) -> None:
        self.queries: OrderedDict[str, ToldQuery] = OrderedDict()
        self.instances: OrderedDict[tuple[str, str], Instance] = OrderedDict()
        self.refused: Counter[str] = Counter()
        self._size = 0

    def take(self, message: bytes, now: float) -> None:
        """Take in a message; one that is not understood is counted and changes nothing."""
        try:
            self._take(message, now)
        except RefusedError as exc:
            self.refused[str(exc)] += 1

    def refusals(self) -> Counter[str]:
        """Return what was refused since this was asked last."""
        refused, self.refused = self.refused, Counter()
        return refused

    def settle(self, now: float) -> None:
        """End a look: count what is lost, forget queries and processes that have long been silent."""
        for sender in self.instances.values():
            sender.settle()
        for query in [each for each in self.queries.values() if now - each.heard_at > FORGET_SECONDS]:
            self._drop(query)
        for key in [key for key, each in self.instances.items() if now - each.heard_at > FORGET_SECONDS]:
            del self.instances[key]

    def _take(self, message: bytes, now: float) -> None:
        envelope = _envelope(message)
        kind, event = envelope["kind"], an_object(envelope.get("event"))
        at = min(a_number(envelope.get("at")) or now, now)
        app, instance = a_text(envelope.get("app")) or "", a_text(envelope.get("instance")) or ""
        sender = self._sender(app, instance, a_count(envelope.get("seq")) or 0, at)
        if sender is None:
            return  # it was sent twice
        if kind in SIGNS_OF_LIFE:
            self._alive(sender, kind, event, at, app)
            return
        progress = read_progress(event) if kind == "progress" else None
        query = self._query(event, at, app)
        before = query.size
        if progress is not None:
            query.progress(progress)
        elif kind == "terminated":
            query.end(at, _first_words(a_text(event.get("exception")), a_text(event.get("errorClassOnException"))))
        query.name = a_text(event.get("name")) or query.name
        self._grow(query, query.size - before)

    def _sender(self, app: str, instance: str, seq: int, at: float) -> Instance | None:
        key = (app, instance)
        sender = self.instances.pop(key, None) or Instance(at, seq, seq - 1)
        self.instances[key] = sender
        while len(self.instances) > MOST_INSTANCES:
            self.instances.popitem(last=False)
        sender.heard_at = max(sender.heard_at, at)
        return sender if sender.take(seq) else None

    def _alive(self, sender: Instance, kind: str, event: Mapping[str, Any], at: float, app: str) -> None:
        sender.is_over = kind == "ended"
        dropped = an_object(event.get("dropped"))
        sender.dropped = max(sender.dropped, sum(a_count(each) or 0 for each in list(dropped.values())[:10]))
        sender.bus_dropped = max(sender.bus_dropped, a_count(event.get("bus_dropped")) or 0)
        for told in a_list(event.get("queries"), MOST_QUERIES):
            running = an_object(told)
            query = self._query(running, at, app)
            query.name = a_text(running.get("name")) or query.name
            query.trigger = a_text(running.get("trigger")) or query.trigger
            query.checkpoint = a_text(running.get("checkpoint")) or query.checkpoint

    def _query(self, event: Mapping[str, Any], at: float, app: str) -> ToldQuery:
        query_id = a_text(event.get("id"))
        if query_id is None:
            raise RefusedError("a query without an id")
        query = self.queries.get(query_id)
        if query is None:
            query = self.queries[query_id] = ToldQuery(query_id, app, at)
            self._grow(query, query.size)
        query.hear(at, app, a_text(event.get("runId")))
        return query

    def _grow(self, query: ToldQuery, by: int) -> None:
        """Keep within bounds: whoever was silent for longest goes first."""
        self._size += by
        self.queries.move_to_end(query.query_id)
        while len(self.queries) > MOST_QUERIES or (self._size > MOST_POSITIONS and len(self.queries) > 1):
            self._drop(next(iter(self.queries.values())))
            self.refused["more queries or positions than are kept: the longest silent one was forgotten"] += 1

    def _drop(self, query: ToldQuery) -> None:
        del self.queries[query.query_id]
        self._size -= query.size


def _envelope(message: bytes) -> Mapping[str, Any]:
    if len(message) > LARGEST_MESSAGE:
        raise RefusedError("a message larger than is taken")
    try:
        envelope = json.loads(message)
    except (ValueError, RecursionError) as exc:
        raise RefusedError("a message that is not JSON") from exc
    if not isinstance(envelope, dict):
        raise RefusedError("a message that is no JSON object")
    if envelope.get("v") != VERSION:
        raise RefusedError("a message of a version that is not known here")
    if a_text(envelope.get("kind")) not in EVENTS | SIGNS_OF_LIFE:
        raise RefusedError("a message of a kind that is not known here")
    return envelope


def _first_words(exception: str | None, error_class: str | None) -> str | None:
    """Return why it ended: the error class, and the first line of what was raised."""
    if exception is None:
        return error_class
    line = next((line.strip() for line in exception.splitlines() if line.strip()), "")
    return line if error_class is None or error_class in line else f"[{error_class}] {line}"
