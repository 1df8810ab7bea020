"""The whole of /metrics: Prometheus' text format 0.0.4, rendered once a cycle into bytes that everybody is served.

    for every family: its HELP and TYPE, then the block of each cluster; at the end the process's own metrics

The format wants all lines of a family together, so clusters alternate within it. A block with many rows is laid out
when its rows change and patched otherwise (``exposition_slots``); one with few is written anew. Both keep their
compressed pieces while the text stays the same, and what is served is joined from these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from monitor.catalog import BY_NAME, METRICS, Column, Level, Metric
from monitor.model import ClusterReport, DurationHistogram, Report
from monitor.publish.exposition_gzip import Piece, deflate, gunzip, gzip_member
from monitor.publish.exposition_labels import LAID_OUT, rows_key, rows_of
from monitor.publish.exposition_slots import SlotBlock, slot_values
from monitor.settings import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Rendered:
    """One answer, immutable. ``gzip`` is a gzip member of it."""

    gzip: bytes

    @property
    def plain(self) -> bytes:
        """Return the text, unpacked anew each time.

        Nearly nobody asks for it, and for a large cluster it is twenty times the size (100,000 positions: 36 MB,
        unpacked in 40 ms), so it is not kept.
        """
        return gunzip(self.gzip)


class Exposition:
    """What is exposed, and the text so far. ``render`` is called by one thread at a time."""

    def __init__(self, metrics: Metrics) -> None:
        self._settings = metrics
        self._families = [metric for metric in METRICS if _is_on(metric, metrics)]
        self._headers = {metric.name: deflate(_header(metric)) for metric in self._families}
        self._clusters: dict[str, _ClusterText] = {}
        self._own = CollectorRegistry(auto_describe=False)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._own)

    def render(self, report: Report) -> Rendered:
        """Return the report as text and compressed."""
        self._update(report)
        pieces: list[Piece] = []
        for metric in self._families:
            pieces.append(self._headers[metric.name])
            for cluster in self._clusters.values():
                pieces.extend(cluster.pieces(metric))
        pieces.append(deflate(self._about_itself()))
        return Rendered(gzip_member(pieces))

    def _update(self, report: Report) -> None:
        before = self._clusters
        self._clusters = {each.name: before.get(each.name) or _ClusterText() for each in report.clusters}
        for each in report.clusters:
            self._clusters[each.name].update(each, self._families, self._settings.max_positions)

    def _about_itself(self) -> bytes:
        """Return the process's metrics behind the numbers of series, which count them too."""
        own = generate_latest(self._own)
        lines = own.count(b"\n") - own.count(b"\n#") - own.startswith(b"#")
        exposed = sum(each.series for each in self._clusters.values()) + lines + 2  # and the two told here
        dropped = sum(each.dropped for each in self._clusters.values())
        values = {"streamgauge_exposed_series": exposed, "streamgauge_dropped_series": dropped}
        told = [_header(BY_NAME[name]) + b"%s %d\n" % (name.encode(), value) for name, value in values.items()]
        return b"".join((*told, own))


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


class _ClusterText:
    """The blocks of one cluster, and the layouts that they were laid out for."""

    def __init__(self) -> None:
        self.dropped = 0
        self._report: ClusterReport | None = None
        self._keys: dict[Level, object] = {}
        self._laid_out: dict[str, SlotBlock] = {}
        self._written: dict[str, _TextBlock] = {}

    @property
    def series(self) -> int:
        """Return how many series the cluster has."""
        return sum(block.series for blocks in (self._laid_out, self._written) for block in blocks.values())

    def pieces(self, metric: Metric) -> Sequence[Piece]:
        """Return the lines of a metric, compressed."""
        block = self._laid_out.get(metric.name) or self._written.get(metric.name)
        return block.pieces if block else ()

    def update(self, report: ClusterReport, families: Sequence[Metric], max_positions: int) -> None:
        """Take in a new report."""
        if report is self._report:
            return
        keys = {level: rows_key(level, report) for level in LAID_OUT}
        stale = {level for level in LAID_OUT if level not in self._keys or keys[level] != self._keys[level]}
        rows = cache(lambda level: rows_of(level, report))  # only for who lays out anew, once a level
        too_many = len(report.positions.layout) > max_positions
        self.dropped = 0
        for metric in families:
            if metric.read is None or metric.level not in LAID_OUT:
                self._written.setdefault(metric.name, _TextBlock()).write(metric, report)
                continue
            column = metric.read(report)
            if metric.level is Level.POSITION and too_many:
                self._laid_out.pop(metric.name, None)
                self.dropped += int(np.count_nonzero(slot_values(column) >= 0))
            elif metric.level in stale or not self._patched(metric, column):
                self._laid_out.pop(metric.name, None)  # so that there are not two texts at once
                self._laid_out[metric.name] = SlotBlock(metric.name, rows(metric.level), column)
        self._report, self._keys = report, keys

    def _patched(self, metric: Metric, column: Column) -> bool:
        """Return whether the lines of a metric are there and took the values."""
        block = self._laid_out.get(metric.name)
        return block is not None and block.patch(column)


def _is_on(metric: Metric, metrics: Metrics) -> bool:
    """Return whether the lines of a metric come from reports, and are wanted."""
    return metric.level is not Level.EXPOSITION and (metric.opt_in is None or getattr(metrics, metric.opt_in))


def _header(metric: Metric) -> bytes:
    # The help texts of the catalogue hold neither backslash nor newline, so nothing needs escaping.
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n".encode()


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
