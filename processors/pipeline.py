"""A small typed way to declare a job: what is read, what is done to each record, what is written.

    averages = (
        read("readings", name="averages")
        .filter(lambda reading: reading["temperature"] < 60)
        .window(300, 30, grace=60, at=lambda reading: reading["at"])
        .aggregate(mean(lambda reading: reading["temperature"]))
        .to("readings-averages-5m")
    )

Steps are plain functions of a value. A declaration does nothing; ``processors.memory`` runs it on records at hand and
``processors.job_app`` on Kafka, both by ``processors.running``. What cannot be is one line when it is declared; what
goes wrong with a record sends that record to the dead letters and touches no other.

Keys are texts. A window is kept by the key of the record, or that given by ``key_by``, which sends values as JSON
through a topic of its own, so that all records of a key come to one partition.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, Generic, TypeVar

from monitor.errors import UsageError
from processors.aggregates import Aggregate
from processors.coding import encoder, text
from processors.windows import Result, Span

__all__ = ["Job", "JobError", "Poison", "Stream", "Windowed", "from_json", "read", "to_json"]

V = TypeVar("V")
W = TypeVar("W")
J = TypeVar("J")
K = TypeVar("K")
R = TypeVar("R")

NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""Kafka's characters of a topic name; 249 of them at most, and ours are longer by a word."""

AHEAD_SECONDS = 60
"""How much later than its record's timestamp an event time may be: clocks differ. One from far in the future would
close all windows."""


class JobError(UsageError):
    """A job was declared that cannot be."""


@dataclass(frozen=True, slots=True)
class Poison:
    """Stop loudly when more than ``limit`` of the ``last`` records failed (a ratio, 0 to 1)."""

    limit: float = 0.5
    last: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= 1:
            problem = f"poison limit {self.limit!r}: it must be a ratio, 0 to 1"
            raise JobError(problem)
        if self.last < 1:
            problem = f"poison limit over the last {self.last!r} records: it must be one or more"
            raise JobError(problem)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its kind and its function, which gives the values that a value becomes."""

    kind: str
    apply: Callable[[Any], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class KeyBy:
    """Give each value a new key, and send it to the partition of that."""

    function: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Window:
    """Aggregate by window; ``at`` gives event times, without it they are the records' timestamps."""

    span: Span
    at: Callable[[Any], float] | None
    ahead_seconds: float
    late: str | None
    aggregate: Aggregate[Any, Any]


Stage = Step | KeyBy | Window


def from_json(value: bytes | None) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        raise ValueError("the record has no value")
    try:
        return json.loads(value)
    except RecursionError as exc:
        raise ValueError("JSON nested too deeply") from exc


def to_json(value: Any) -> bytes:
    """Return a value as JSON; results and dataclasses by their fields, without NaN, which is no JSON.

    Raises:
        ValueError: it cannot be said in JSON.
        TypeError: it cannot be said in JSON.
    """
    if isinstance(value, Result):
        key, start, end, held, final, partial = value
        key_said = text(key) if type(key) is str else _said(key)
        held_said = float.__repr__(held) if type(held) is float and math.isfinite(held) else _said(held)
        flags = '"final":true' if final else '"final":false'
        flags += ',"partial":true}' if partial else ',"partial":false}'
        return f'{{"key":{key_said},"start":{start},"end":{end},"value":{held_said},{flags}'.encode()
    return _said(value).encode()


def read(
    topic: str,
    *,
    name: str,
    decode: Callable[[bytes | None], V] = from_json,
    dead_letters: str | None = None,
    poison: Poison | None = None,
) -> Stream[V]:
    """Begin a job that reads a topic.

    ``name`` is the job's, and its consumer group. ``dead_letters`` is the topic for what fails: ``TOPIC-dlq``.

    Raises:
        JobError: there can be no such job.
    """
    _check_name("job name", name)
    _check_name("topic", topic)
    _check_name("topic of dead letters", dead_letters or f"{topic}-dlq")
    _check_function("decode", decode)
    return Stream(Job(name, topic, decode, (), "", to_json, dead_letters or f"{topic}-dlq", poison or Poison()))


@dataclass(frozen=True, slots=True)
class Job:
    """A job, whole: made by ``read(…)…to(…)``."""

    name: str
    source: str
    decode: Callable[[bytes | None], Any]
    stages: tuple[Stage, ...]
    sink: str
    encode: Callable[[Any], bytes]
    dead_letters: str
    poison: Poison

    @property
    def rekeyed(self) -> str | None:
        """Return the topic that ``key_by`` sends through; the monitor knows such topics by their names."""
        has_one = any(isinstance(stage, KeyBy) for stage in self.stages)
        return f"{self.name}-by-key-repartition" if has_one else None

    @property
    def late(self) -> str | None:
        """Return the topic for late records, if there is one."""
        return next((stage.late for stage in self.stages if isinstance(stage, Window)), None)


@dataclass(frozen=True, slots=True)
class Stream(Generic[V]):
    """A job that is being declared, whose values are of kind V by now. Each step gives a new one."""

    _job: Job

    def map(self, function: Callable[[V], W]) -> Stream[W]:
        """Make another value of each."""
        _check_function("map", function)
        return Stream(self._with(Step("map", lambda value: (function(value),))))

    def filter(self, wanted: Callable[[V], bool]) -> Stream[V]:
        """Keep the values that are wanted."""
        _check_function("filter", wanted)
        return Stream(self._with(Step("filter", lambda value: (value,) if wanted(value) else ())))

    def flat_map(self, function: Callable[[V], Iterable[W]]) -> Stream[W]:
        """Make any number of values of each."""
        _check_function("flat_map", function)
        return Stream(self._with(Step("flat_map", function)))

    def join(self, table: Mapping[K, J], on: Callable[[V], K], into: Callable[[V, J | None], W]) -> Stream[W]:
        """Join each value with what a table has under the key ``on`` gives, or None.

        The table is any mapping: a static data set, or a Faust table, which has what is in the record's partition.
        """
        given: object = table  # declarations are not all type-checked
        if not isinstance(given, Mapping):
            problem = f"join with {type(table).__name__}: it must be a mapping, such as a dictionary or a Faust table"
            raise JobError(problem)
        _check_function("join on", on)
        _check_function("join into", into, takes=2)
        return Stream(self._with(Step("join", lambda value: (into(value, table.get(on(value))),))))

    def key_by(self, function: Callable[[V], str]) -> Stream[V]:
        """Give each value a key; from here on it is what JSON makes of it, in the partition of that key."""
        _check_function("key_by", function)
        if any(isinstance(stage, KeyBy) for stage in self._job.stages):
            raise JobError(
                "key_by twice: once is enough before a window; write to a topic and read that in another job"
            )
        self._check_before_window("key_by")
        return Stream(self._with(KeyBy(function)))

    def window(
        self,
        size: int,
        step: int | None = None,
        *,
        grace: int = 0,
        at: Callable[[V], float] | None = None,
        ahead: float = AHEAD_SECONDS,
        late: str | None = None,
    ) -> Windowed[V]:
        """Cut into windows of ``size`` seconds, one every ``step`` (tumbling without), by event time.

        ``at`` gives the event time of a value in seconds since the epoch; without it the record's timestamp is taken.
        A value more than ``ahead`` seconds later than its record's timestamp fails. ``late`` is a topic for records
        that missed windows; they are counted in any case.

        Raises:
            WindowError: there can be no such windows.
            JobError: there can be no such job.
        """
        self._check_before_window("window")
        if at is not None:
            _check_function("window at", at)
        if late is not None:
            self._check_target("topic of late records", late)
        return Windowed(self._job, Span(size, size if step is None else step, grace), at, ahead, late)

    def to(self, topic: str, *, encode: Callable[[V], bytes] = to_json) -> Job:
        """End the job: write values to a topic, under their keys.

        Raises:
            JobError: it would read what it writes.
        """
        self._check_target("topic", topic)
        _check_function("encode", encode)
        return replace(self._job, sink=topic, encode=encode)

    def _with(self, stage: Stage) -> Job:
        return replace(self._job, stages=(*self._job.stages, stage))

    def _check_before_window(self, what: str) -> None:
        if any(isinstance(stage, Window) for stage in self._job.stages):
            problem = f"{what} after a window: write results to a topic and read that in another job"
            raise JobError(problem)

    def _check_target(self, what: str, topic: str) -> None:
        _check_name(what, topic)
        if topic == self._job.source:
            problem = f"{what} {topic!r}: the job {self._job.name} reads that itself, without end"
            raise JobError(problem)


@dataclass(frozen=True, slots=True)
class Windowed(Generic[V]):
    """Windows that want an aggregate."""

    _job: Job
    _span: Span
    _at: Callable[[V], float] | None
    _ahead: float
    _late: str | None

    def aggregate(self, aggregate: Aggregate[V, R]) -> Stream[Result]:
        """Aggregate each key and window; what goes on are final results."""
        given: object = aggregate  # declarations are not all type-checked
        if not isinstance(given, Aggregate):
            problem = f"aggregate {given!r}: it must be one of processors.aggregates, such as count()"
            raise JobError(problem)
        window = Window(self._span, self._at, self._ahead, self._late, aggregate)
        return Stream(replace(self._job, stages=(*self._job.stages, window)))


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in {".", ".."}:
        problem = f"{what} {name!r}: it must be of letters, digits, dots, dashes and underscores, 200 at most"
        raise JobError(problem)


def _check_function(what: str, function: Any, takes: int = 1) -> None:
    wanted = "a plain function of a value" if takes == 1 else "a plain function of a value and what was found"
    if not callable(function) or inspect.iscoroutinefunction(function):
        problem = f"{what} {function!r}: it must be {wanted}"
        raise JobError(problem)
    try:
        signature = inspect.signature(function)
    except ValueError:  # some of C's have none
        return
    try:
        signature.bind(*range(takes))
    except TypeError as exc:
        problem = f"{what} {getattr(function, '__name__', function)}{signature}: it must be {wanted}"
        raise JobError(problem) from exc


def _fields(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    problem = f"{type(value).__name__} cannot be said in JSON"
    raise TypeError(problem)


_said = encoder(allow_nan=False, default=_fields)
