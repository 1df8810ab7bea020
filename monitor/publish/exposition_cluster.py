"""The text of one cluster: for every metric one block of lines, or two where some positions are summed.

    look   take in a report: write what has few lines, and count the series of what has many
    lay    lay out or patch those, but for the steps that the cap on the whole answer asks for

A block is laid out when its rows change and patched otherwise (``exposition_slots``). Both it and its compressed pieces
stay as they are where the values do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import structlog

from monitor.catalog import Column, Level, Metric, Type, owner_rows
from monitor.model import ClusterReport, Consumer, DurationHistogram
from monitor.publish.exposition_budget import FINENESS, Cut, Picked, Positions, Step, fineness_of, step_of
from monitor.publish.exposition_gzip import Piece, deflate
from monitor.publish.exposition_labels import LAID_OUT, Rows, rest_rows, rows_key, rows_of
from monitor.publish.exposition_slots import SlotBlock, is_known
from monitor.settings import Metrics

log = structlog.get_logger(__name__)


OF_GROUPS = frozenset({Level.CONSUMER_STATE, Level.CONSUMER_PROTOCOL})
"""The levels of which nothing changes while what is known of the groups stays the same object."""

RowsOf = Callable[[Level], Rows]
"""Gives the rows of a level; for who lays out anew, so it makes them once for all metrics of a level."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Lines of a metric that are laid out together: while ``key`` is the same, so are its rows."""

    name: str
    key: object
    rows: Callable[[RowsOf], Rows]
    size: int
    cut: Cut | None


class ClusterText:
    """The blocks of one cluster, and what they were laid out for. Not for several threads at once."""

    def __init__(self, families: Sequence[Metric], settings: Metrics) -> None:
        self.savings: Mapping[Step, int] = {}
        self.dropped = 0
        self._families = families
        self._report: ClusterReport | None = None
        self._taken: frozenset[Step] | None = None
        self._segments: dict[str, tuple[Segment, ...]] = {}
        self._columns: dict[str, Column] = {}
        self._written: dict[str, _TextBlock] = {}
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._rows = _ChosenRows(settings)

    @property
    def series(self) -> int:
        """Return how many series the cluster has in the text."""
        slots = sum(block.slots.series for block in self._blocks.values())
        return slots + sum(block.series for block in self._written.values())

    @property
    def rows(self) -> int:
        """Return how many series the cluster may have at most, if nothing is left out of the answer."""
        sizes = sum(segment.size for segments in self._segments.values() for segment in segments)
        return sizes + sum(block.series for block in self._written.values())

    def pieces(self, metric: Metric) -> Iterator[Piece]:
        """Yield the lines of a metric, compressed."""
        if metric.name in self._written:
            yield from self._written[metric.name].pieces
        for segment in self._segments.get(metric.name, ()):
            block = self._blocks.get((metric.name, segment.name))
            if block is not None:
                yield from block.slots.pieces

    def look(self, report: ClusterReport) -> None:
        """Take in a report, and count the series that it may have."""
        if report is self._report:
            return
        self._taken = None
        same_groups = self._report is not None and _are_groups_same(report, self._report)
        self._rows.update(report)
        savings = dict.fromkeys(Step, 0)
        for metric in self._families:
            if metric.read is None or metric.level not in LAID_OUT:
                self._written.setdefault(metric.name, _TextBlock()).write(metric, report)
                continue
            if not (same_groups and metric.level in OF_GROUPS and metric.name in self._segments):
                self._columns[metric.name] = column = metric.read(report)
                self._segments[metric.name] = self._rows.segments(metric, report, len(column))
            segments = self._segments[metric.name]
            step = step_of(metric)
            if step is not None:
                savings[step] += sum(segment.size for segment in segments)
        self._report, self.savings = report, savings

    def lay(self, taken: frozenset[Step]) -> None:
        """Bring the text to the report that was looked at, without what the steps taken leave out."""
        if self._report is None or taken == self._taken:
            return
        self._taken, self.dropped = None, 0  # in case it does not get to the end
        rows: RowsOf = cache(partial(rows_of, report=self._report))
        laid: dict[tuple[str, str], _Block] = {}
        before, self._blocks = self._blocks, laid
        for metric in self._families:
            if metric.name not in self._segments:
                continue
            segments, column = self._segments[metric.name], self._columns[metric.name]
            is_left_out = step_of(metric) in taken
            self.dropped += self._rows.count_dropped(metric, column, segments, is_left_out=is_left_out)
            for segment in () if is_left_out else segments:
                name = (metric.name, segment.name)
                block = before.pop(name, None)
                if block is None or block.key != segment.key or not block.slots.patch(column, segment.cut):
                    block = None  # so that there are not two texts at once
                    block = _Block(segment.key, SlotBlock(metric.name, segment.rows(rows), column, segment.cut))
                laid[name] = block
        self._taken = taken


def _are_groups_same(report: ClusterReport, before: ClusterReport) -> bool:
    is_same: bool = (
        report.groups is before.groups and report.positions.layout.consumers is before.positions.layout.consumers
    )
    return is_same


@dataclass(frozen=True, slots=True)
class _Block:
    key: object
    slots: SlotBlock


class _TextBlock:
    """The few lines of one metric of one cluster, written anew. While they are the same, so is the compressed piece."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.series = 0
        self._text = b""

    def write(self, metric: Metric, report: ClusterReport) -> None:
        """Take in a new report."""
        lines = list(_lines(metric, report))
        text = b"".join(lines)
        if text != self._text:
            self._text, self.series, self.pieces = text, len(lines), [deflate(text)]


class _ChosenRows:
    """Which rows of each level there are by the settings, kept while what they depend on stays the same."""

    def __init__(self, settings: Metrics) -> None:
        self._settings = settings
        self._positions = Positions(settings.max_positions)
        self._consumers: tuple[Consumer, ...] | None = None
        self._fineness = np.zeros(0, np.int8)
        self._topics: _Chosen = _Chosen(None, None)
        self._owners: _Chosen = _Chosen(None, None)

    def update(self, report: ClusterReport) -> None:
        """Take in a new report."""
        layout, pairs = report.positions.layout, report.consumer_topics
        if layout.consumers is not self._consumers:
            self._consumers = layout.consumers
            self._fineness = fineness_of([each.name for each in layout.consumers], self._settings)
        was_capped = self._positions.is_capped
        self._positions.update(report.positions, self._fineness, report.at)
        if self._positions.is_capped is not was_capped:
            _log_cap(report.name, self._positions, self._settings.max_positions)
        if self._topics.of is not layout:
            shown = self._fineness[pairs.consumer] >= FINENESS["topic"]
            self._topics = _Chosen(layout, None if shown.all() else Picked(np.flatnonzero(shown)))
        if self._settings.owner_info:
            key = rows_key(Level.OWNER, report)
            if self._owners.of != (layout.consumers, key):
                self._owners = _Chosen((layout.consumers, key), self._owners_shown(report))

    def segments(self, metric: Metric, report: ClusterReport, size: int) -> tuple[Segment, ...]:
        """Return the segments of a metric with many rows; ``size`` is their number without any cut."""
        level, key = metric.level, rows_key(metric.level, report)
        match level:
            case Level.POSITION:
                return self._position_segments(metric, report, key, size)
            case Level.CONSUMER_TOPIC if metric.type is not Type.COUNTER:
                picked = self._topics.picked
            case Level.OWNER:
                picked = self._owners.picked
            case _:
                picked = None
        return (_segment(level, key, picked, size),)

    def _position_segments(self, metric: Metric, report: ClusterReport, key: object, size: int) -> tuple[Segment, ...]:
        exact = _segment(metric.level, key, self._positions.exact, size)
        rest = self._positions.rest
        cut = rest.cut(metric) if rest is not None else None
        if rest is None or cut is None:
            return (exact,)
        rows = rest.rows
        return (exact, Segment("rest", rows, lambda _: rest_rows(rows, report), len(rows.topic), cut))

    def count_dropped(self, metric: Metric, column: Column, segments: Sequence[Segment], *, is_left_out: bool) -> int:
        """Return how many series of a metric the settings ask for and the caps leave out."""
        if metric.level is Level.POSITION:
            return _count_known(column, self._positions.wanted if is_left_out else self._positions.left_out)
        return sum(_count_known(column, segment.cut) for segment in segments) if is_left_out else 0

    def _owners_shown(self, report: ClusterReport) -> Picked | None:
        """Return the owners of partitions whose consumer is exposed by partition, each once."""
        shown = dict(zip(report.positions.layout.consumers, self._fineness == FINENESS["position"], strict=True))
        first: dict[object, int] = {}
        count = 0
        for consumer, owned, member in owner_rows(report):
            if shown.get(consumer):
                first.setdefault((consumer, owned, member.client_id, member.member_id, member.host), count)
            count += 1
        return None if len(first) == count else Picked(np.fromiter(first.values(), np.intp, len(first)))


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The rows picked of a level (None: all), and what they were picked of."""

    of: object
    picked: Picked | None


def _segment(level: Level, key: object, picked: Picked | None, size: int) -> Segment:
    if picked is None:
        return Segment("", (key, None), lambda of: of(level), size, None)
    return Segment("", (key, picked), lambda of: of(level).picked(picked.rows), len(picked.rows), picked)


def _log_cap(cluster: str, positions: Positions, limit: int) -> None:
    fields = {"cluster": cluster, "positions": positions.count, "max_positions": limit}
    if positions.is_capped:
        log.warning("more positions than max_positions: those that lag least are summed", **fields)
    else:
        log.info("every position is exposed again", **fields)


def _lines(metric: Metric, report: ClusterReport) -> Iterator[bytes]:
    """Yield the lines of a metric with few rows, of a histogram those of each row together."""
    rows = rows_of(metric.level, report)
    name = metric.name.encode()
    if metric.histograms is not None:
        for head, histogram in zip(rows.heads, metric.histograms(report), strict=True):
            yield from _histogram_lines(name, head, histogram)
    elif metric.read is not None:
        for head, value in zip(rows.heads, metric.read(report).tolist(), strict=True):
            if _is_known(value):
                yield b"%s%s} %s\n" % (name, head, repr(value).encode())


def _histogram_lines(name: bytes, head: bytes, histogram: DurationHistogram) -> Iterator[bytes]:
    bounds = [*map(repr, histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, (*histogram.counts, histogram.count), strict=True):
        yield b'%s_bucket%s,le="%s"} %d\n' % (name, head, bound.encode(), count)
    yield b"%s_sum%s} %s\n" % (name, head, repr(histogram.sum).encode())
    yield b"%s_count%s} %d\n" % (name, head, histogram.count)


def _is_known(value: float) -> bool:
    return value >= 0 if isinstance(value, int) else math.isfinite(value)


def _count_known(column: Column, cut: Cut | None) -> int:
    return int(np.count_nonzero(is_known(cut(column) if cut is not None else column)))
