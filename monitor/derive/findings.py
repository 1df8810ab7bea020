"""What an operator should know, in words: events of the last quarter of an hour, and conditions while they hold.

An event (a topic created again, a log cut, a commit set back, records lost) is told for KEPT_SECONDS after it was last
seen to happen, once a topic or once a consumer on a topic: what happens again, or to another partition, joins it.
A condition (a commit beyond the end, a clock that is wrong) has the time since when it has been seen at every look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple

import numpy as np

from monitor.derive.identity import Breaks
from monitor.derive.reads import Events
from monitor.model import Change, Consumer, Finding, Int64s, PartitionColumns, PositionLayout

KEPT_SECONDS = 900.0
"""How long an event is told."""

MOST = 1_000
"""Events that are kept; beyond it the oldest go, and a finding says how many."""

MOST_CHANGES = 100
"""Partitions that a finding lists with old and new value; its numbers count them all."""

SHOWN = 3
"""Partitions or consumers that a text names; it counts the others."""


class Key(NamedTuple):
    """What findings are joined by."""

    kind: str
    topic: str
    consumer: Consumer | None = None


class Part(NamedTuple):
    """What happened to a partition, or with ``partition`` None to a topic. ``records`` -1: unknown."""

    partition: int | None
    old: int | str
    new: int | str
    records: int = 0


@dataclass(slots=True)
class _Event:
    at: float
    parts: dict[int | None, Part] = field(default_factory=dict)
    consumers: dict[Consumer, None] = field(default_factory=dict)
    finding: Finding | None = None


class Notebook:
    """The events that are told, and since when conditions hold: bounded, whatever happens to a cluster."""

    def __init__(self) -> None:
        self._events: dict[Key, _Event] = {}
        self._since: dict[Key, float] = {}
        self._left_out: list[tuple[float, int]] = []

    def note(self, key: Key, at: float, parts: Sequence[Part], consumers: Sequence[Consumer] = ()) -> None:
        """Note an event, joined with what is told of the same kind, topic and consumer."""
        event = self._events.pop(key, None) or _Event(at)
        for part in parts:
            before = event.parts.get(part.partition)
            event.parts[part.partition] = part if before is None else _joined(key.kind, before, part)
        event.consumers |= dict.fromkeys(consumers)
        event.at, event.finding = at, None
        self._events[key] = event  # the newest stand last
        too_many = len(self._events) - MOST
        if too_many > 0:
            self.leave_out(too_many, at)
            for oldest in list(islice(self._events, too_many)):
                del self._events[oldest]

    def leave_out(self, count: int, at: float) -> None:
        """Say that so many events are not told."""
        self._left_out.append((at, count))

    def forget(self, topic: str) -> None:
        """Take back what was told of a topic."""
        for key in [key for key in self._events if key.topic == topic]:
            del self._events[key]

    def events(self, at: float) -> list[Finding]:
        """Return what happened lately, the newest first, and forget what did not."""
        while self._events and at - next(iter(self._events.values())).at > KEPT_SECONDS:
            del self._events[next(iter(self._events))]
        self._left_out = [each for each in self._left_out if at - each[0] <= KEPT_SECONDS]
        told = [_finding_of(key, event) for key, event in reversed(self._events.items())]
        more = sum(count for _, count in self._left_out)
        if more:
            told.append(Finding("left_out", f"{more} further findings of the last {KEPT_SECONDS / 60:.0f} minutes"))
        return told

    def conditions(self, holding: Mapping[Key, Sequence[Part]], at: float) -> list[Finding]:
        """Return the conditions that hold now, each with the time since when it does."""
        self._since = {key: self._since.get(key, at) for key in holding}
        return [_finding(key, parts, (), self._since[key], at) for key, parts in holding.items()]


def _joined(kind: str, before: Part, part: Part) -> Part:
    if kind != LOST:
        return part
    return Part(part.partition, before.old, part.new, before.records + part.records)


def _finding_of(key: Key, event: _Event) -> Finding:
    if event.finding is None:
        event.finding = _finding(key, list(event.parts.values()), tuple(event.consumers), event.at, event.at)
    return event.finding


def _finding(key: Key, parts: Sequence[Part], consumers: Sequence[Consumer], seen_at: float, at: float) -> Finding:
    numbers = [part.records for part in parts]
    records = None if key.kind not in _COUNTED or min(numbers) < 0 else sum(numbers)
    text = _TEXT[key.kind](_where(key, parts), parts, records, consumers)
    return Finding(
        key.kind,
        f"{text} (since {_clock(seen_at)})" if seen_at < at else text,
        key.topic,
        parts[0].partition if len(parts) == 1 else None,
        key.consumer,
        seen_at,
        records,
        () if key.kind == CLOCK_SKEW else tuple(Change(*part[:3]) for part in parts[:MOST_CHANGES]),
    )


# --- texts --------------------------------------------------------------------------------------------

RECREATED, TRUNCATED, REWOUND, LOST = "recreated", "truncated", "rewound", "lost"
BEYOND_END, CLOCK_SKEW = "beyond_end", "clock_skew"

_COUNTED = frozenset({TRUNCATED, REWOUND, LOST})
"""The kinds that are about a number of records."""


def _where(key: Key, parts: Sequence[Part]) -> str:
    single = parts[0].partition if len(parts) == 1 else None
    place = key.topic if single is None else f"{key.topic}/{single}"
    return place if key.consumer is None else f"{key.consumer.name} on {place}"


def _changes(parts: Sequence[Part], what: str) -> str:
    """Return "committed offset went back from 90 to 10", or the same of several partitions with the first ones."""
    if len(parts) == 1:
        return f"{what} from {parts[0].old} to {parts[0].new}"
    shown = [f"{part.partition} from {part.old} to {part.new}" for part in parts[:SHOWN]]
    return f"{what} on {_listed(shown, len(parts), 'partitions')}"


def _listed(shown: Sequence[str], count: int, of_what: str) -> str:
    left = count - len(shown)
    return f"{count} {of_what} ({', '.join(shown)}{f' and {left} more' if left else ''})"


def _recreated(where: str, parts: Sequence[Part], records: int | None, consumers: Sequence[Consumer]) -> str:
    if parts[0].partition is None:
        return f"{where}: was deleted and created again: its topic id was {parts[0].old} and is {parts[0].new}"
    return f"{where}: was deleted and created again: {_changes(parts, 'its logs begin anew, the log end went')}"


def _truncated(where: str, parts: Sequence[Part], records: int | None, consumers: Sequence[Consumer]) -> str:
    text = f"{where}: {_changes(parts, 'log end fell')}: {records} records are gone"
    if not consumers:
        return text
    names = [consumer.name for consumer in consumers]
    shown = names[0] if len(names) == 1 else _listed(names[:SHOWN], len(names), "consumers")
    return f"{text}; committed beyond it: {shown}"


def _rewound(where: str, parts: Sequence[Part], records: int | None, consumers: Sequence[Consumer]) -> str:
    again = "how many records are read again is unknown" if records is None else f"{records} records are read again"
    return f"{where}: {_changes(parts, 'committed offset went back')}: {again}"


def _lost(where: str, parts: Sequence[Part], records: int | None, consumers: Sequence[Consumer]) -> str:
    return f"{where}: {records} records were deleted before they were read: {_changes(parts, 'log start moved')}"


def _beyond_end(where: str, parts: Sequence[Part], records: int | None, consumers: Sequence[Consumer]) -> str:
    if len(parts) == 1:
        return f"{where}: committed offset {parts[0].old} lies beyond the log end {parts[0].new}"
    shown = [f"{part.old} of {part.new} on {part.partition}" for part in parts[:SHOWN]]
    return f"{where}: committed offsets lie beyond the log end on {_listed(shown, len(parts), 'partitions')}"


def _clock_skew(where: str, parts: Sequence[Part], records: int | None, consumers: Sequence[Consumer]) -> str:
    if len(parts) == 1:
        return f"{where}: the next record's timestamp lies in the future: a clock is wrong, its age counts as 0"
    shown = [str(part.partition) for part in parts[:SHOWN]]
    where += f": the next records' timestamps on {_listed(shown, len(parts), 'partitions')} lie in the future"
    return f"{where}: a clock is wrong, their ages count as 0"


_TEXT: Mapping[str, Callable[[str, Sequence[Part], int | None, Sequence[Consumer]], str]] = {
    RECREATED: _recreated,
    TRUNCATED: _truncated,
    REWOUND: _rewound,
    LOST: _lost,
    BEYOND_END: _beyond_end,
    CLOCK_SKEW: _clock_skew,
}


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


# --- from columns to findings -------------------------------------------------------------------------


def note_breaks(
    notebook: Notebook, breaks: Breaks, columns: PartitionColumns, *, layout: PositionLayout, committed: Int64s,
    at: float,
) -> None:  # fmt: skip
    """Note topics that were created again, and logs that were cut with the consumers whose commit lies beyond."""
    for topic, changes in breaks.recreated.items():
        notebook.forget(topic)  # what was said of it before the new id had been read
        notebook.note(Key(RECREATED, topic), at, [Part(*change) for change in changes])
    rows, log_end = columns.layout, columns.log_end
    cut = np.flatnonzero(breaks.cut)
    beyond = np.flatnonzero(breaks.cut[layout.row] & (committed > log_end[layout.row]))
    owner = np.searchsorted(layout.starts, beyond, side="right") - 1
    for number in np.unique(rows.topic[cut]).tolist():
        parts = [
            Part(int(rows.partition[row]), old, new, old - new)
            for row in cut[rows.topic[cut] == number].tolist()
            for old, new in [(int(breaks.old_end[row]), int(log_end[row]))]
        ]
        who = np.unique(owner[rows.topic[layout.row[beyond]] == number]).tolist()
        notebook.note(Key(TRUNCATED, rows.topics[number]), at, parts, [layout.consumers[index] for index in who])


def note_events(notebook: Notebook, kind: str, events: Events | None, layout: PositionLayout, at: float) -> None:
    """Note what happened to positions, at most MOST consumers and topics of it."""
    if events is None:
        return
    noted = left = 0
    for key, indices in _by_topic(kind, layout, events.at):
        if noted == MOST:
            left += 1
            continue
        noted += 1
        rows = layout.row[events.at[indices]]
        notebook.note(
            key,
            at,
            list(
                map(
                    Part,
                    layout.partitions.partition[rows].tolist(),
                    events.old[indices].tolist(),
                    events.new[indices].tolist(),
                    events.records[indices].tolist(),
                )
            ),
        )
    if left:
        notebook.leave_out(left, at)


def holding(kind: str, at: Int64s, old: Int64s, new: Int64s, layout: PositionLayout) -> dict[Key, list[Part]]:
    """Return a condition of positions by consumer and topic."""
    partition = layout.partitions.partition[layout.row[at]]
    return {
        key: list(map(Part, partition[indices].tolist(), old[indices].tolist(), new[indices].tolist()))
        for key, indices in _by_topic(kind, layout, at)
    }


def _by_topic(kind: str, layout: PositionLayout, at: Int64s) -> Iterator[tuple[Key, Int64s]]:
    """Yield the indices into ``at`` of each consumer and topic."""
    owner = np.searchsorted(layout.starts, at, side="right") - 1
    topic = layout.partitions.topic[layout.row[at]]
    order = np.lexsort((topic, owner))
    ends = np.flatnonzero((np.diff(owner[order]) != 0) | (np.diff(topic[order]) != 0)) + 1
    for indices in np.split(order, ends) if len(at) else ():
        first = indices[0]
        yield Key(kind, layout.partitions.topics[topic[first]], layout.consumers[owner[first]]), indices
