"""What a job does to a record, as values: records in, what is to be sent out. No Faust, no clock, no I/O.

A job is one part, or two with a ``key_by`` between them, each with a topic that it reads. A record is taken whole or
not at all: if a step raises, the record goes to the dead letters as it came, with what was raised and where it was,
and neither windows nor outputs have changed.

**Origin.** What ``key_by`` sends says in a header which record of the source it was made of. That is what is compared
to know a repeated record, which changes nothing: sent again, it has another offset in the topic between. It is also
whose watermark it moves: records of many partitions meet there, each in an order of its own.

**Idle.** Who reads a partition of the source knows when there is nothing more in it. If it has sent nothing to a
partition of the topic between for ``IDLE_SECONDS`` in which others brought records, it sends a marker there: windows
wait for that source no longer, until its next record. The marker is a record among the others, so that reading them
again closes the same windows at the same place. A partition that is read slowly, or by nobody for a while, is not idle.

**Kept.** What a part knows of a partition can be taken out as flushes, and made again of what they left
(``processors.kept``). Records that are read again after that are known by what had been applied.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from monitor.errors import StreamgaugeError
from processors.kept import NOTHING_APPLIED, PartitionState, Position
from processors.pipeline import Job, KeyBy, Poison, Stage, Step, Window, from_json, to_json
from processors.windows import Late, Result

IDLE_SECONDS = 30.0

LARGEST = 900_000
"""Bytes of a record that is sent: brokers and producers take a megabyte, and headers come on top."""

LONGEST_ERROR = 10_000
"""Characters of an error in a header: some say the whole value."""

FACTS = 5
"""Headers that say of a record where it was and why it is there."""

LONGEST_KEY = 32_768
"""Bytes of the key of a window. Each is kept with every pane, and a changelog takes records of a megabyte."""

ORIGIN = "streamgauge.origin"
"""Header of what ``key_by`` sends: PARTITION/OFFSET/INDEX of what it was made of."""

IDLE = "streamgauge.idle"
"""Header of a marker among what ``key_by`` sends: PARTITION/OFFSET; nothing from up to there comes after it."""

MARKED = 2**31
"""The index of a marker: it comes after all that was made of the record."""

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
    partition: int | None = None
    source: int | None = None
    """Of what ``key_by`` sends: which partition it was read from."""


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


class Quiet:
    """Which partitions of the source have been quiet towards which partitions of the topic between, and since when."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}
        self._marked: set[tuple[int, int]] = set()

    def sent(self, source: int, to: int, now: float) -> None:
        """Note that something was sent."""
        self._since[source, to] = now
        self._marked.discard((source, to))

    def sources(self, now: float) -> set[int]:
        """Return the sources that a marker is due of, if there is nothing more to read in them."""
        return {
            source
            for (source, to), since in self._since.items()
            if now - since >= IDLE_SECONDS and (source, to) not in self._marked
        }

    def expect(self, sources: Iterable[int], targets: Iterable[int], now: float) -> None:
        """Begin to count for these sources, and forget others: they are read elsewhere."""
        wanted = set(sources)
        self._since = {(source, to): self._since.get((source, to), now) for source in wanted for to in targets}
        self._marked = {pair for pair in self._marked if pair in self._since}

    def busy(self, source: int, now: float) -> None:
        """Begin to count anew for a source: it has more to read, or that is not known."""
        for pair in self._since:
            if pair[0] == source:
                self._since[pair] = now

    def markers(self, source: int, now: float) -> list[int]:
        """Return the partitions that a marker of a source is to be sent to; only once."""
        due = [
            pair
            for pair, since in self._since.items()
            if pair[0] == source and now - since >= IDLE_SECONDS and pair not in self._marked
        ]
        self._marked.update(due)
        return [to for _, to in due]


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
        self.window = self._end if isinstance(self._end, Window) else None
        self._states: dict[int, PartitionState] = {}
        self.kept: Callable[[int], Mapping[bytes, bytes]] = lambda _: {}
        """Gives what is kept of a partition; asked when its first record comes."""

    @property
    def state(self) -> Mapping[int, PartitionState]:
        """Return what is known of each partition."""
        return self._states

    def process(self, record: Record) -> list[Output]:
        """Return what is to be sent because of a record.

        Raises:
            WindowError: what is kept of its partition was kept by other windows.
        """
        state = self._states.get(record.partition) or self._state(record)
        source, position, is_marker = self._origin(record)
        if record.offset < state.next or position <= state.applied.get(source, NOTHING_APPLIED):
            self.counts.repeated += 1
            state.next = max(state.next, record.offset + 1)
            return []
        if is_marker:
            outputs = [] if state.windows is None else self._finish(state.windows.idle(source), record)
        else:
            self.counts.read += not self._rekeyed
            try:
                outputs = self._take(record, state, source)
            except StepError as exc:
                outputs = [self._letter(record, exc)]
                self._failures.note(str(exc))
            else:
                self._failures.note(None)
        state.applied[source] = position
        state.next = record.offset + 1
        return outputs

    def marker(self, source: int, offset: int, to: int) -> Output:
        """Return the marker that a partition of the source is idle, all of it up to an offset having been sent."""
        header = (IDLE, f"{source}/{offset}".encode())
        return Output(self.job.rekeyed or "", None, None, (header,), partition=to, source=source)

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

    def forget(self, partition: int) -> None:
        """Forget what is kept of a partition: it is asked for anew."""
        self._states.pop(partition, None)

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

    def begin(self, partition: int, offset: int) -> Mapping[int, int] | None:
        """Ask for what is kept of a partition, whose first record has an offset; None if that was done before.

        Returns the offsets, by partition of the source, that have been applied up to: those before them are known.
        """
        if partition in self._states:
            return None
        state = self._state(Record(self.topic, partition, offset, math.nan, None, None))
        return {source: last + 1 for source, (last, _) in state.applied.items()}

    def _state(self, record: Record) -> PartitionState:
        sources = range(self._sources) if self._rekeyed else ()
        whole = record.offset == 0
        if self.window is None:
            state = PartitionState(None, sources, whole=whole)
        else:
            state = PartitionState.restore(self.kept(record.partition), self.window, sources, whole=whole)
        self._states[record.partition] = state
        return state

    def _take(self, record: Record, state: PartitionState, source: int) -> list[Output]:
        elements = self._elements(record)
        match self._end:
            case None:
                outputs = [self._sunk(element.key, element.value) for element in elements]
                self.counts.sent += len(outputs)
                return outputs
            case KeyBy(function):
                return [self._sent_on(function, record, number, each.value) for number, each in enumerate(elements)]
            case Window() as window if state.windows is not None:
                items = [
                    (_window_key(each.key), self._event_time(window, each.value, record), each.value)
                    for each in elements
                ]
                if len(items) == 1:
                    given = _guarded("aggregate", state.windows.add, *items[0], source)
                else:
                    given = _guarded("aggregate", state.windows.add_all, items, source)
                return self._finish(given, record) if given else []
        raise AssertionError(self._end)

    def _elements(self, record: Record) -> list[Element]:
        key = None if record.key is None else _guarded("key", record.key.decode)
        values = [_guarded("decode", from_json if self._rekeyed else self.job.decode, record.value)]
        for step in self._before:
            values = [became for value in values for became in _guarded(step.kind, _all, step, value)]
        return [Element(key, value) for value in values]

    def _sunk(self, key: str | None, value: Any) -> Output:
        try:
            coded = self.job.encode(value)
        except Exception as exc:
            raise StepError("encode", exc) from exc
        name = None if key is None else key.encode()
        if len(coded) + len(name or b"") > LARGEST:
            raise _too_large("to", len(coded) + len(name or b""))
        return Output(self.job.sink, name, coded)

    def _sent_on(self, function: Any, record: Record, number: int, value: Any) -> Output:
        key = _guarded("key_by", function, value)
        if not isinstance(key, str):
            raise StepError("key_by", TypeError(f"the key {key!r} is not a text"))
        origin = f"{record.partition}/{record.offset}/{number}".encode()
        kept = tuple(header for header in record.headers if header[0] not in {ORIGIN, IDLE})
        topic = self.job.rekeyed or ""
        coded = _guarded("key_by", to_json, value)
        sent_as = _guarded("key_by", key.encode)  # JSON can say texts that are none
        headers = (*kept, (ORIGIN, origin))
        return _sendable("key_by", Output(topic, sent_as, coded, headers, record.timestamp, source=record.partition))

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
                if self.window is not None and self.window.late is not None:
                    outputs.append(_late_one(self.window.late, each, record))
                continue
            try:
                if self._after:
                    values: list[Any] = [each]
                    for step in self._after:
                        values = [became for value in values for became in _guarded(step.kind, _all, step, value)]
                    sunk = [self._sunk(each.key, value) for value in values]
                else:
                    sunk = [self._sunk(each.key, each)]
            except StepError as exc:
                outputs.append(self._letter(record._replace(key=each.key.encode(), value=_said(each)), exc))
            else:
                self.counts.sent += len(sunk)
                outputs += sunk
        return outputs

    def _letter(self, record: Record, exc: StepError) -> Output:
        self.counts.failed += 1
        error = str(exc)[:LONGEST_ERROR]
        return _shortened(Output(self.job.dead_letters, record.key, record.value, _told(record, ("error", error))))

    def _origin(self, record: Record) -> tuple[int, Position, bool]:
        """Return what a record was made of, and whether it is a marker."""
        if self._rekeyed:
            for name, value in record.headers:
                if name == ORIGIN:
                    partition, offset, index = map(int, value.split(b"/"))
                    return partition, (offset, index), False
                if name == IDLE:
                    partition, offset = map(int, value.split(b"/"))
                    return partition, (offset, MARKED), True
        return record.partition, (record.offset, 0), False

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
    if len(key) > LONGEST_KEY // 4 and len(key.encode()) > LONGEST_KEY:
        raise StepError("window", ValueError(f"the key is longer than {LONGEST_KEY} bytes"))
    return key


def _told(record: Record, *more: tuple[str, str]) -> Headers:
    """Return a record's headers and what is said of it: where it was, and more."""
    facts = (("topic", record.topic), ("partition", record.partition), ("offset", record.offset), *more)
    return (*record.headers, *((f"streamgauge.{name}", str(fact).encode()) for name, fact in facts))


def _late_one(topic: str, late: Late, record: Record) -> Output:
    missed = ("missed", f"{late.missed} of {late.of} windows"), ("event_time", f"{late.at!r}")
    return _shortened(Output(topic, record.key, record.value, _told(record, *missed)))


def _bytes(output: Output) -> int:
    size = len(output.key or b"") + len(output.value or b"")
    if output.headers:
        size += sum(len(name) + len(value) for name, value in output.headers)
    return size


def _too_large(kind: str, size: int) -> StepError:
    return StepError(kind, ValueError(f"a record of {size} bytes, more than {LARGEST}"))


def _sendable(kind: str, output: Output) -> Output:
    if _bytes(output) > LARGEST:
        raise _too_large(kind, _bytes(output))
    return output


def _shortened(output: Output) -> Output:
    """Return what is too large to be sent again without key, value and other headers: where it is, is said."""
    if _bytes(output) <= LARGEST:
        return output
    said = tuple(header for header in output.headers if header[0].startswith("streamgauge."))[-FACTS:]
    return output._replace(key=None, value=None, headers=(*said, ("streamgauge.left_out", b"key and value")))


def _said(result: Result) -> bytes:
    try:
        return to_json(result)
    except (ValueError, TypeError):
        return repr(result).encode()
