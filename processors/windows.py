"""Sliding windows over event time as sums of panes: values only, no Faust, no clock, no I/O.

Time is cut into *panes* of one step. A record is added to one pane of its key, and a window is the sum of the
``size / step`` panes that it covers, taken when it closes: work and memory of a record do not grow with the number of
windows that it lies in. (Faust writes a table entry and a changelog record for each of them.)

**Watermark.** The watermark of a source partition is the greatest event time seen in it. That of these windows is the
smallest among their sources: those that have brought a record and those that are expected to, without the idle ones.
It never goes back. A window closes when the watermark has reached its end plus the grace, and gives one final result
for each key. A record is counted in those of its windows that are still open; if some of them are closed it is late
as well, which is told with how many it has missed.

Nothing but records, ``idle``, ``expect`` and ``close_all`` moves anything, so the same input gives the same output
at any speed. ``snapshot`` holds all of the state, watermarks included: what is restored from it judges lateness as
the original would have. ``take_changes`` tells what has changed since it was last asked, for those who keep the state
elsewhere and write only that.

All times are seconds since the epoch. Windows begin at multiples of their step; their end is exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from monitor.errors import UsageError
from processors.aggregates import Aggregate

END_OF_TIME = 253_402_300_800
"""The year 10000. A time beyond it is milliseconds taken for seconds, or nonsense."""

Source = int | str
"""What brings records in the order of its event times, more or less: a partition."""

SNAPSHOT_VERSION = 1


class WindowError(UsageError):
    """Windows were declared that cannot be, or restored from a snapshot of other ones."""


@dataclass(frozen=True, slots=True)
class Span:
    """Windows of ``size`` seconds, one every ``step`` seconds, open for ``grace`` seconds beyond their end.

    Raises:
        WindowError: there can be no such windows.
    """

    size: int
    step: int
    grace: int = 0

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("step", 1), ("grace", 0)):
            seconds = getattr(self, name)
            if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < least:
                problem = f"window {name} {seconds!r}: it must be a whole number of seconds, {least} or more"
                raise WindowError(problem)
        if self.size % self.step:
            problem = f"window size {self.size} s by step {self.step} s: the step must divide the size"
            raise WindowError(problem)

    @property
    def panes(self) -> int:
        """Return how many panes a window covers."""
        return self.size // self.step


class Result(NamedTuple):
    """What a window holds of a key.

    Key and start identify it: a final result that is sent again has the same ones and the same value. ``partial``
    says that the window may lack records from before these windows were begun.
    """

    key: Any
    start: int
    end: int
    value: Any
    final: bool
    partial: bool = False


class Late(NamedTuple):
    """A record that came after windows it belongs to had closed: ``missed`` of its ``of`` windows."""

    key: Any
    at: float
    value: Any
    missed: int
    of: int

    @property
    def is_lost(self) -> bool:
        """Return whether no window has counted it."""
        return self.missed == self.of


@dataclass(slots=True)
class Counts:
    """What became of the records, and how many results are final."""

    counted: int = 0
    """Records counted in one window or more."""
    partly_late: int = 0
    """Those of them that missed other windows."""
    late: int = 0
    """Records that no window has counted."""
    results: int = 0


class Change(NamedTuple):
    """A pane's value of a key: what it is now and what it was at the last ``take_changes``; NEW if it was not yet."""

    number: int
    key: Hashable
    now: Any
    before: Any


class Changes(NamedTuple):
    """What has changed; ``lost`` is kept elsewhere but never was valid, ``removed`` was, and its windows are closed."""

    changed: list[Change]
    lost: list[tuple[int, Hashable]]
    removed: list[tuple[int, Hashable]]


NOTHING: Sequence[Result | Late] = ()
NEW: Any = object()
UNKNOWN: Any = object()
"""What was before is not known: it may be kept somewhere, and wrong."""


class Windows:
    """The windows of the keys of one partition.

    ``whole`` says that no record from before the first one given belongs to it; otherwise the results of windows
    that such records can have lain in are marked as partial: windows that begin up to the grace after the first
    event time.
    """

    def __init__(self, span: Span, aggregate: Aggregate[Any, Any], *, whole: bool = True) -> None:
        self.span = span
        self.aggregate = aggregate
        self.counts = Counts()
        self._size, self._step, self._grace, self._n = span.size, span.step, span.grace, span.panes
        self._whole = whole
        self._whole_from = -math.inf  # if not whole: windows that begin later lack nothing
        self._seen: dict[Source, float] = {}
        self._idle: set[Source] = set()
        self._watermark = -math.inf
        # Windows are numbered by their last pane: window w covers panes w - n + 1 to w.
        self._closed = -math.inf  # all windows up to this one are closed, whether they held anything or not
        self._due = -math.inf  # the watermark at which the next one closes
        self._panes: dict[int, dict[Hashable, Any]] = {}
        # By pane and key: what was there at the last ``take_changes``. None while nobody asks for changes.
        self._touched: dict[int, dict[Hashable, Any]] | None = None
        self._gone: list[tuple[int, Iterable[Hashable]]] = []

    @property
    def watermark(self) -> float:
        """Return the event time up to which everything has come, minus infinity before anything is known."""
        return self._watermark

    @property
    def held(self) -> int:
        """Return how many values are held: one a key and pane."""
        return sum(map(len, self._panes.values()))

    def add(self, key: Hashable, at: float, value: Any, source: Source = 0) -> Sequence[Result | Late]:
        """Add a record; return what comes of it: that it is late, then the results that became final.

        Nothing is changed if it raises.

        Raises:
            ValueError: ``at`` is no time of the years 1970 to 9999, or the value cannot be aggregated.
            TypeError: the value or the key is of a kind that cannot be aggregated.
        """
        if not 0 <= at < END_OF_TIME:
            raise ValueError(_no_time(at))
        number = int(at // self._step)
        if number > self._closed:  # all its windows are open
            pane = self._panes.get(number)
            acc = NEW if pane is None else pane.get(key, NEW)
            self._touch(number, key, acc)
            added = self.aggregate.add(self.aggregate.first() if acc is NEW else acc, value)
            if pane is None:
                self._panes[number] = {key: added}
            else:
                pane[key] = added
            self.counts.counted += 1
            late = NOTHING
        else:
            late = self._add_late(number, key, at, value)
        final = self._advance(source, at)
        return (*late, *final) if late else final

    def add_all(self, items: Sequence[tuple[Hashable, float, Any]], source: Source = 0) -> Sequence[Result | Late]:
        """Add what one record consists of, all of it or, if it raises, none of it.

        Lateness of all of them is judged by the watermark from before the first.

        Raises:
            ValueError: one cannot be added.
            TypeError: one cannot be added.
        """
        staged: dict[tuple[int, Hashable], Any] = {}
        lates: list[Late] = []
        lost = partly = 0
        for key, at, value in items:
            if not 0 <= at < END_OF_TIME:
                raise ValueError(_no_time(at))
            number = int(at // self._step)
            missed = self._missed(number)
            if missed:
                lates.append(Late(key, at, value, missed, self._n))
                partly += missed < self._n
            if missed == self._n:
                lost += 1
                self.aggregate.add(self.aggregate.first(), value)  # a value that cannot be is an error, late or not
                continue
            acc = staged.get((number, key), NEW)
            if acc is NEW:
                acc = self._panes.get(number, {}).get(key, NEW)
                self._touch(number, key, acc)
                acc = self.aggregate.first() if acc is NEW else self.aggregate.copy(acc)
            staged[number, key] = self.aggregate.add(acc, value)
        for (number, key), acc in staged.items():
            self._panes.setdefault(number, {})[key] = acc
        self.counts.counted += len(items) - lost
        self.counts.partly_late += partly
        self.counts.late += lost
        # The smallest time before the greatest: the first of a source says where what is known begins.
        times = [at for _, at, _ in items]
        final = (*self._advance(source, min(times)), *self._advance(source, max(times))) if times else NOTHING
        return (*lates, *final)

    def expect(self, sources: Iterable[Source]) -> None:
        """Hold the watermark back until each of these sources has brought a record or is idle."""
        for source in sources:
            self._seen.setdefault(source, -math.inf)

    def idle(self, source: Source) -> Sequence[Result | Late]:
        """Hold nothing back for a source until it brings its next record; return the results that became final."""
        self._seen.setdefault(source, -math.inf)
        self._idle.add(source)
        return self._close_due()

    def early(self, keys: Iterable[Hashable] | None = None) -> list[Result]:
        """Return what open windows hold so far, of all keys or of some; nothing is changed."""
        wanted = None if keys is None else set(keys)
        open_windows = sorted({w for number in self._panes for w in range(number, number + self._n)})
        return [
            result
            for w in open_windows
            if w > self._closed
            for result in self._results(w, final=False)
            if wanted is None or result.key in wanted
        ]

    def close_all(self) -> list[Result]:
        """Close every window, as nothing more will come; return their results."""
        results: list[Result] = []
        while self._panes:
            results += self._close(self._next())
        self._due = self._end(self._closed + 1) + self._grace
        return results

    def snapshot(self) -> dict[str, Any]:
        """Return all of the state in lists, dictionaries and numbers: JSON if keys and values are."""
        encode = self.aggregate.encode
        panes = [[number, [[key, encode(acc)] for key, acc in pane.items()]] for number, pane in self._panes.items()]
        return {**self.head(), "panes": panes}

    def head(self) -> dict[str, Any]:
        """Return the state without panes: what is small, and changes with every record."""
        return {
            "version": SNAPSHOT_VERSION,
            "span": [self._size, self._step, self._grace],
            "aggregate": self.aggregate.name,
            "whole": self._whole,
            "whole_from": _finite(self._whole_from),
            "watermark": _finite(self._watermark),
            "closed": _finite(self._closed),
            "sources": [[source, _finite(at), source in self._idle] for source, at in self._seen.items()],
            "counts": [self.counts.counted, self.counts.partly_late, self.counts.late, self.counts.results],
        }

    def track_changes(self) -> None:
        """Begin to note what changes; what is there already counts as unchanged."""
        self._touched = {}

    @property
    def touched(self) -> int:
        """Return how many values may have changed since ``take_changes``."""
        return sum(map(len, self._touched.values())) if self._touched else 0

    def take_changes(self) -> Changes:
        """Return what has changed since this was last asked.

        Values are those held, not copies: encode them before anything is added.
        """
        touched, gone = self._touched or {}, self._gone
        self._touched, self._gone = {}, []
        changed, lost = [], []
        for number, keys in touched.items():
            pane = self._panes.get(number, {})
            for key, before in keys.items():
                acc = pane.get(key, NEW)
                if acc is not NEW:
                    changed.append(Change(number, key, acc, before))
                elif before is UNKNOWN:
                    lost.append((number, key))
        removed = [
            (number, key)
            for number, keys in gone
            for was in (touched.get(number, {}),)
            for key in keys
            if (before := was.get(key)) is not NEW and before is not UNKNOWN
        ]
        return Changes(changed, lost, removed)

    def drop_closed(self) -> None:
        """Drop panes whose windows are all closed; ``take_changes`` tells that they are gone."""
        for number in [number for number in self._panes if self._missed(number) == self._n]:
            self._gone.append((number, self._panes.pop(number)))

    def mark_changed(self, number: int, key: Hashable, *, known: bool) -> None:
        """Have ``take_changes`` tell this value, as what is kept of it elsewhere is not this; or that it is gone.

        ``known`` says that what is held here is what was kept before that.
        """
        acc = self._panes.get(number, {}).get(key, NEW)
        if self._touched is not None:
            held = known and acc is not NEW
            self._touched.setdefault(number, {})[key] = self.aggregate.copy(acc) if held else UNKNOWN

    @classmethod
    def restore(cls, span: Span, aggregate: Aggregate[Any, Any], snapshot: dict[str, Any]) -> Windows:
        """Return the windows that a snapshot was taken of; from here on they do exactly what those would have done.

        Raises:
            WindowError: it is a snapshot of other windows.
        """
        was = (snapshot.get("version"), snapshot.get("span"), snapshot.get("aggregate"))
        now = (SNAPSHOT_VERSION, [span.size, span.step, span.grace], aggregate.name)
        if was != now:
            problem = f"windows kept as {_said(*was)} cannot go on as {_said(*now)}: start under another name"
            raise WindowError(problem)
        self = cls(span, aggregate, whole=snapshot["whole"])
        self._whole_from = _infinite(snapshot["whole_from"])
        self._watermark, self._closed = _infinite(snapshot["watermark"]), _infinite(snapshot["closed"])
        self._seen = {source: _infinite(at) for source, at, _ in snapshot["sources"]}
        self._idle = {source for source, _, is_idle in snapshot["sources"] if is_idle}
        self._panes = {
            number: {_key(key): aggregate.decode(acc) for key, acc in pane} for number, pane in snapshot["panes"]
        }
        self.counts = Counts(*snapshot["counts"])
        self._due = self._end(self._closed + 1) + self._grace
        return self

    def _touch(self, number: int, key: Hashable, acc: Any) -> None:
        """Note what a value was before it is changed for the first time since ``take_changes``."""
        if self._touched is not None:
            before = self._touched.setdefault(number, {})
            if key not in before:
                before[key] = acc if acc is NEW else self.aggregate.copy(acc)

    # Windows w with number <= w < number + n hold the pane of that number; those up to ``closed`` are closed.

    def _missed(self, number: int) -> int:
        return int(min(self._n, max(0, self._closed - number + 1)))

    def _add_late(self, number: int, key: Hashable, at: float, value: Any) -> Sequence[Late]:
        missed = self._missed(number)
        acc = self._panes.get(number, {}).get(key, NEW)
        if missed < self._n:
            self._touch(number, key, acc)
        # Of a lost one as well: a value that cannot be aggregated is an error, late or not.
        added = self.aggregate.add(self.aggregate.first() if acc is NEW else acc, value)
        if missed == self._n:
            self.counts.late += 1
        else:
            self._panes.setdefault(number, {})[key] = added
            self.counts.counted += 1
            self.counts.partly_late += 1
        return (Late(key, at, value, missed, self._n),)

    def _advance(self, source: Source, at: float) -> Sequence[Result | Late]:
        before = self._seen.get(source, -math.inf)
        if before == -math.inf:
            self._whole_from = max(self._whole_from, at + self._grace)
        self._seen[source] = max(at, before)
        if source in self._idle:
            self._idle.discard(source)  # and may be the only one awake
        elif at <= before or before > self._watermark:  # it has not moved, or another one holds the watermark back
            return NOTHING
        return self._close_due()

    def _close_due(self) -> Sequence[Result | Late]:
        awake = [at for source, at in self._seen.items() if source not in self._idle]
        if awake:
            self._watermark = max(self._watermark, min(awake))
        if self._watermark < self._due or self._watermark == -math.inf:
            return NOTHING
        closed = self._last_closed()
        results: list[Result] = []
        while self._panes and self._next() <= closed:
            results += self._close(self._next())
        self._closed = closed
        self._due = self._end(closed + 1) + self._grace
        return results

    def _last_closed(self) -> int:
        """Return the last window whose end and grace the watermark has reached."""
        # Ends and grace are whole: floor first, and nothing is rounded.
        return (math.floor(self._watermark) - self._grace) // self._step - 1

    def _next(self) -> int:
        """Return the first window that is open and holds anything."""
        return int(max(min(self._panes), self._closed + 1))

    def _end(self, window: float) -> float:
        return (window + 1) * self._step

    def _close(self, window: int) -> list[Result]:
        results = self._results(window, final=True)
        self._closed = window
        closed = self._panes.pop(window - self._n + 1, None)
        if closed and self._touched is not None:
            self._gone.append((window - self._n + 1, closed))
        self.counts.results += len(results)
        return results

    def _results(self, window: int, *, final: bool) -> list[Result]:
        end = (window + 1) * self._step
        start = end - self._size
        partial = not self._whole and start <= self._whole_from
        result = self.aggregate.result
        return [Result(key, start, end, result(acc), final, partial) for key, acc in self._sums(window).items()]

    def _sums(self, window: int) -> dict[Hashable, Any]:
        numbers = range(window - self._n + 1, window + 1)
        panes = [pane for number in numbers if (pane := self._panes.get(number))]
        if len(panes) == 1:
            return panes[0]
        merge = self.aggregate.merge
        sums = dict(panes[0])
        for pane in panes[1:]:
            for key, acc in pane.items():
                before = sums.get(key, NEW)
                sums[key] = acc if before is NEW else merge(before, acc)
        return sums


def _no_time(at: float) -> str:
    return f"event time {at!r} is not a time in seconds since the epoch, of the years 1970 to 9999"


def _finite(at: float | None) -> float | None:
    return None if at is None or math.isinf(at) else at


def _infinite(at: float | None) -> float:
    return -math.inf if at is None else at


def _key(key: Any) -> Hashable:
    """Return a key as it was: JSON has lists for tuples."""
    return tuple(map(_key, key)) if isinstance(key, list) else key


def _said(version: object, span: object, aggregate: object) -> str:
    return f"{aggregate} over {span} (format {version})"
