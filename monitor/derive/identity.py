"""Are these still the same logs? Topics that were created again, and logs that were cut.

A topic's id says it for sure (KIP-516), also where the new topic has already grown beyond the old one within one
interval. Without ids a log start that fell together with its end says the same: nothing but a new log begins lower.
A log end that fell while the topic is the same was cut (an unclean leader election, a restore): records are gone.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from monitor.derive.layouts import carry
from monitor.model import UNKNOWN, Bools, Change, Int64s, PartitionColumns, PartitionLayout

REMEMBERED_SECONDS = 900.0
"""How long the id of a topic that is gone is kept, to know it when its name comes back."""


class Breaks(NamedTuple):
    """Columns over partitions: where the past counts for nothing any more, and what the log ended at before.

    ``renewed``: another topic of the same name; ``cut``: the same topic, and its log end fell. ``recreated`` says of
    each such topic what was and what is.
    """

    renewed: Bools
    cut: Bools
    old_end: Int64s
    recreated: Mapping[str, tuple[Change, ...]]

    @property
    def broken(self) -> Bools:
        """Return which partitions are either."""
        return self.renewed | self.cut


class Growth(NamedTuple):
    """Columns over partitions: where the log start moved up, and where it was before."""

    grown: Bools
    old_start: Int64s


class Identity:
    """The last known start and end of every log, and the ids of topics."""

    def __init__(self) -> None:
        self._end = np.zeros(0, np.int64)
        self._start = np.zeros(0, np.int64)
        self._read: tuple[object, ...] = ()
        self._ids: Mapping[str, bytes] = {}
        self._gone: dict[str, tuple[bytes, float]] = {}

    def carry(self, rows: Int64s) -> None:
        """Follow rows to their new places; new rows have no past."""
        self._end, self._start = carry(self._end, rows, UNKNOWN), carry(self._start, rows, UNKNOWN)
        self._read = ()

    def observe(
        self, columns: PartitionColumns, ids: Mapping[str, bytes], at: float
    ) -> tuple[Breaks | None, Growth | None]:
        """Take in a poll and return what broke and which logs lost their beginning, None where none did."""
        read = (columns.log_start, columns.log_end, ids)
        if len(read) == len(self._read) and all(new is old for new, old in zip(read, self._read, strict=True)):
            return None, None
        self._read = read
        breaks = self._breaks(columns, self._other_ids(ids, at))
        renewed = breaks.renewed if breaks is not None else np.zeros(len(columns.layout), np.bool_)
        grown = (columns.log_start > self._start) & (self._start >= 0)
        if breaks is not None:
            grown &= ~breaks.broken
        growth = Growth(grown, self._start) if grown.any() else None
        # Of a topic that is another one even what could not be read now is forgotten: it would look like a fall later.
        self._end = np.where((columns.log_end >= 0) | renewed, columns.log_end, self._end)
        self._start = np.where((columns.log_start >= 0) | renewed, columns.log_start, self._start)
        return breaks, growth

    def _breaks(self, columns: PartitionColumns, other: Mapping[str, Change]) -> Breaks | None:
        fell = (columns.log_end >= 0) & (columns.log_end < self._end)
        if not other and not fell.any():
            return None
        layout = columns.layout
        recreated: dict[str, tuple[Change, ...]] = {topic: (change,) for topic, change in other.items()}
        lower = fell & (columns.log_start >= 0) & (columns.log_start < self._start)
        for topic in {layout.topics[number] for number in layout.topic[lower].tolist()}:
            if topic not in recreated and topic not in self._ids:
                rows = np.flatnonzero(lower & (layout.topic == layout.topics.index(topic)))
                recreated[topic] = tuple(
                    Change(int(layout.partition[row]), int(self._end[row]), int(columns.log_end[row])) for row in rows
                )
        renewed = _rows_of(layout, recreated)
        return Breaks(renewed, fell & ~renewed, self._end, recreated)

    def _other_ids(self, ids: Mapping[str, bytes], at: float) -> dict[str, Change]:
        """Return the topics whose id is another one, and remember the ids of those that are gone."""
        if ids is self._ids:
            return {}
        self._gone = {
            topic: (known, seen_at)
            for topic, (known, seen_at) in self._gone.items()
            if at - seen_at <= REMEMBERED_SECONDS and topic not in self._ids
        } | {topic: (known, at) for topic, known in self._ids.items() if topic not in ids}
        before = {topic: known for topic, (known, _) in self._gone.items()} | dict(self._ids)
        self._ids = ids
        return {
            topic: Change(None, id_text(before[topic]), id_text(now))
            for topic, now in ids.items()
            if before.get(topic, now) != now
        }


def id_text(topic_id: bytes) -> str:
    """Return a topic id as Kafka's own tools write it: base64 without padding."""
    return urlsafe_b64encode(topic_id).rstrip(b"=").decode()


def _rows_of(layout: PartitionLayout, topics: Mapping[str, object]) -> Bools:
    numbers = [number for number, topic in enumerate(layout.topics) if topic in topics]
    return np.isin(layout.topic, numbers)
