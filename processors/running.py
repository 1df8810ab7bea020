"""What a job does to a record, as values: records in, what is to be sent out. No Faust, no clock, no I/O.

A job is one part, or two with a ``key_by`` between them, each with a topic that it reads. A record is taken whole or
not at all: if a step raises, the record goes to the dead letters as it came, with what was raised and where it was,
and neither windows nor outputs have changed.

**Origin.** What ``key_by`` sends says in a header which record of the source it was made of. That is what is compared
to know a repeated record, which changes nothing: sent again, it has another offset in the topic between. It is also
whose watermark it moves: records of many partitions meet there, each in an order of its own.

**Idle.** In the second part a partition of the source that has brought nothing for ``IDLE_SECONDS`` in which records
came from others holds windows open no longer. Time in which nothing comes at all does not count, as the brokers may be
away; at most ``GAP_SECONDS`` are counted between two records.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from monitor.errors import StreamgaugeError
from processors.pipeline import Job, KeyBy, Poison, Stage, Step, Window, from_json, to_json
from processors.windows import Late, Result, Windows

IDLE_SECONDS = 30.0
GAP_SECONDS = 1.0

ORIGIN = "streamgauge.origin"
"""Header of what ``key_by`` sends: PARTITION/OFFSET/INDEX of what it was made of."""

Headers = tuple[tuple[str, bytes], ...]


class TooManyFailuresError(StreamgaugeError):
    """More records failed than the job bears: they are not the exception any more, something is wrong."""

    exit_code = 70


class Record(NamedTuple):
    """A record as Kafka has it; its timestamp in seconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Output(NamedTuple):
    """What is to be sent; a timestamp if it is to have that of the record it came from."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: float | None = None


class Element(NamedTuple):
    """A value on its way, with its key."""

    key: str | None
    value: Any


@dataclass(slots=True)
class Counts:
    """What became of the records this worker has read."""

    read: int = 0
    sent: int = 0
    failed: int = 0
    partly_late: int = 0
    late: int = 0
    repeated: int = 0

    def __str__(self) -> str:
        return (
            f"{self.read} read, {self.sent} sent, {self.failed} sent to the dead letters, "
            f"{self.late} too late, {self.partly_late} too late for some windows"
        )


class StepError(Exception):
    """A step raised."""

    def __init__(self, kind: str, exc: Exception) -> None:
        super().__init__(f"{kind}: {type(exc).__name__}: {' '.join(str(exc).split())}")


class Failures:
    """How many of the last records failed."""

    def __init__(self, poison: Poison) -> None:
        self._poison = poison
        self._last: deque[bool] = deque(maxlen=poison.last)
        self._failed = 0
        self._why = ""

    def note(self, why: str | None) -> None:
        """Count a record; ``why`` it failed, if it did."""
        if len(self._last) == self._poison.last:
            self._failed -= self._last[0]
        self._last.append(why is not None)
        self._failed += why is not None
        self._why = why or self._why

    def check(self, job: Job) -> None:
        """Raise if too many of the last records failed.

        Raises:
            TooManyFailuresError: too many did.
        """
        if len(self._last) == self._poison.last and self._failed > self._poison.limit * self._poison.last:
            problem = (
                f"the job {job.name} stops: {self._failed} of the last {self._poison.last} records failed "
                f"(limit {self._poison.limit:g}), the last by {self._why}; they are on {job.dead_letters}"
            )
            raise TooManyFailuresError(problem)


class PartitionState:
    """What is kept of one partition that a part reads: windows, what has been applied, who is idle."""

    def __init__(self, window: Window | None, sources: Iterable[int], *, whole: bool) -> None:
        self.applied: dict[int, tuple[int, int]] = {}
        self.windows = None if window is None else Windows(window.span, window.aggregate, whole=whole)
        self._busy_seconds = 0.0
        self._last_at: float | None = None
        self._heard: dict[int, float] = dict.fromkeys(sources, 0.0)
        if self.windows is not None:
            self.windows.expect(self._heard)

    def idle_sources(self, source: int, now: float) -> list[int]:
        """Note that a record of ``source`` has come; return which others have become idle."""
        if self._last_at is not None:
            self._busy_seconds += min(max(0.0, now - self._last_at), GAP_SECONDS)
        self._last_at = now
        self._heard[source] = self._busy_seconds
        silent = [other for other, heard in self._heard.items() if self._busy_seconds - heard >= IDLE_SECONDS]
        for other in silent:
            self._heard[other] = math.inf  # told once; until it is heard again
        return silent


class Part:
    """One part of a job: the steps from a topic that is read to one that is written."""

    def __init__(
        self, job: Job, topic: str, stages: Sequence[Stage], counts: Counts, *, rekeyed: bool, sources: int = 0
    ) -> None:
        self.job, self.topic, self.counts = job, topic, counts
        self._rekeyed, self._sources = rekeyed, sources
        self._failures = Failures(job.poison)
        places = [number for number, stage in enumerate(stages) if not isinstance(stage, Step)]
        self._end = stages[places[0]] if places else None
        split = places[0] if places else len(stages)
        self._before = [stage for stage in stages[:split] if isinstance(stage, Step)]
        self._after = [stage for stage in stages[split + 1 :] if isinstance(stage, Step)]
        self._window = self._end if isinstance(self._end, Window) else None
        self._states: dict[int, PartitionState] = {}

    def process(self, record: Record, now: float = 0.0) -> list[Output]:
        """Return what is to be sent because of a record; ``now`` is any clock of seconds."""
        source, position = self._origin(record)
        state = self._states.get(record.partition)
        if state is None:
            sources = range(self._sources) if self._rekeyed else ()
            state = self._states[record.partition] = PartitionState(self._window, sources, whole=record.offset == 0)
        if position <= state.applied.get(source, (-1, 0)):
            self.counts.repeated += 1
            return []
        self.counts.read += not self._rekeyed
        try:
            outputs = self._take(record, state, source)
        except StepError as exc:
            outputs = [self._letter(record, exc)]
            self._failures.note(str(exc))
        else:
            self._failures.note(None)
        state.applied[source] = position
        if self._rekeyed and state.windows is not None:
            for silent in state.idle_sources(source, now):
                outputs += self._finish(state.windows.idle(silent), record)
        return outputs

    def check(self) -> None:
        """Raise if too many of the last records failed; call it when what ``process`` gave has been sent.

        Raises:
            TooManyFailuresError: too many did.
        """
        self._failures.check(self.job)

    def keep(self, partitions: Iterable[int]) -> None:
        """Forget what is kept of other partitions: they are read elsewhere now."""
        kept = set(partitions)
        self._states = {partition: state for partition, state in self._states.items() if partition in kept}

    def idle(self, source: int) -> list[Output]:
        """Hold nothing back for a partition of the source any longer."""
        return [
            output
            for partition, state in self._states.items()
            if state.windows is not None
            for output in self._finish(state.windows.idle(source), self._nothing(partition))
        ]

    def close(self) -> list[Output]:
        """Close all windows, as nothing more will come."""
        return [
            output
            for partition, state in self._states.items()
            if state.windows is not None
            for output in self._finish(state.windows.close_all(), self._nothing(partition))
        ]

    def early(self) -> list[Result]:
        """Return what open windows hold so far."""
        return [
            result for state in self._states.values() if state.windows is not None for result in state.windows.early()
        ]

    def _take(self, record: Record, state: PartitionState, source: int) -> list[Output]:
        elements = self._elements(record)
        match self._end:
            case None:
                outputs = [self._sunk(element) for element in elements]
                self.counts.sent += len(outputs)
                return outputs
            case KeyBy(function):
                return [self._sent_on(function, record, number, each.value) for number, each in enumerate(elements)]
            case Window() as window if state.windows is not None:
                items = [
                    (_window_key(each.key), self._event_time(window, each.value, record), each.value)
                    for each in elements
                ]
                given = _guarded("aggregate", state.windows.add_all, items, source)
                return self._finish(given, record)
        raise AssertionError(self._end)

    def _elements(self, record: Record) -> list[Element]:
        key = None if record.key is None else _guarded("key", record.key.decode)
        values = [_guarded("decode", from_json if self._rekeyed else self.job.decode, record.value)]
        for step in self._before:
            values = [became for value in values for became in _guarded(step.kind, _all, step, value)]
        return [Element(key, value) for value in values]

    def _sunk(self, element: Element) -> Output:
        value = _guarded("encode", self.job.encode, element.value)
        return Output(self.job.sink, None if element.key is None else element.key.encode(), value)

    def _sent_on(self, function: Any, record: Record, number: int, value: Any) -> Output:
        key = _guarded("key_by", function, value)
        if not isinstance(key, str):
            raise StepError("key_by", TypeError(f"the key {key!r} is not a text"))
        origin = f"{record.partition}/{record.offset}/{number}".encode()
        kept = tuple(header for header in record.headers if header[0] != ORIGIN)
        topic = self.job.rekeyed or ""
        coded = _guarded("key_by", to_json, value)
        return Output(topic, key.encode(), coded, (*kept, (ORIGIN, origin)), record.timestamp)

    def _event_time(self, window: Window, value: Any, record: Record) -> float:
        if window.at is None:
            return record.timestamp
        at: float = _guarded("window at", window.at, value)
        if _guarded("window at", lambda: at > record.timestamp + window.ahead_seconds):
            ahead = at - record.timestamp
            raise StepError("window at", ValueError(f"event time {at!r} is {ahead:.0f} s later than its record"))
        return at

    def _finish(self, given: Sequence[Result | Late], record: Record) -> list[Output]:
        """Take results through the steps after the window; one that fails goes to the dead letters by itself."""
        outputs: list[Output] = []
        for each in given:
            if isinstance(each, Late):
                self.counts.late += each.is_lost
                self.counts.partly_late += not each.is_lost
                if self._window is not None and self._window.late is not None:
                    outputs.append(_late_one(self._window.late, each, record))
                continue
            try:
                values: list[Any] = [each]
                for step in self._after:
                    values = [became for value in values for became in _guarded(step.kind, _all, step, value)]
                sunk = [self._sunk(Element(each.key, value)) for value in values]
            except StepError as exc:
                outputs.append(self._letter(record._replace(key=each.key.encode(), value=_said(each)), exc))
            else:
                self.counts.sent += len(sunk)
                outputs += sunk
        return outputs

    def _letter(self, record: Record, exc: StepError) -> Output:
        self.counts.failed += 1
        return Output(self.job.dead_letters, record.key, record.value, _told(record, ("error", str(exc))))

    def _origin(self, record: Record) -> tuple[int, tuple[int, int]]:
        if self._rekeyed:
            for name, value in record.headers:
                if name == ORIGIN:
                    partition, offset, number = map(int, value.split(b"/"))
                    return partition, (offset, number)
        return record.partition, (record.offset, 0)

    def _nothing(self, partition: int) -> Record:
        """Return what stands for the record where there is none."""
        return Record(self.topic, partition, -1, math.nan, None, None)


def parts(job: Job, *, partitions: int) -> list[Part]:
    """Return the parts of a job, sharing their counts; ``partitions`` is how many the source has."""
    counts = Counts()
    cut = next((number + 1 for number, stage in enumerate(job.stages) if isinstance(stage, KeyBy)), None)
    first = Part(job, job.source, job.stages[:cut], counts, rekeyed=False)
    if cut is None or job.rekeyed is None:
        return [first]
    return [first, Part(job, job.rekeyed, job.stages[cut:], counts, rekeyed=True, sources=partitions)]


def _guarded(kind: str, function: Any, *given: Any) -> Any:
    try:
        return function(*given)
    except Exception as exc:
        raise StepError(kind, exc) from exc


def _all(step: Step, value: Any) -> list[Any]:
    return list(step.apply(value))


def _window_key(key: str | None) -> str:
    if key is None:
        raise StepError("window", ValueError("the record has no key; give it one by key_by"))
    return key


def _told(record: Record, *more: tuple[str, str]) -> Headers:
    """Return a record's headers and what is said of it: where it was, and more."""
    facts = (("topic", record.topic), ("partition", record.partition), ("offset", record.offset), *more)
    return (*record.headers, *((f"streamgauge.{name}", str(fact).encode()) for name, fact in facts))


def _late_one(topic: str, late: Late, record: Record) -> Output:
    missed = ("missed", f"{late.missed} of {late.of} windows"), ("event_time", f"{late.at!r}")
    return Output(topic, record.key, record.value, _told(record, *missed))


def _said(result: Result) -> bytes:
    try:
        return to_json(result)
    except (ValueError, TypeError):
        return repr(result).encode()
