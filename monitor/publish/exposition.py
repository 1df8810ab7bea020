"""The whole of /metrics: Prometheus' text format 0.0.4, rendered once a cycle into bytes that everybody is served.

    for every family: its HELP and TYPE, then the block of each cluster; at the end the process's own metrics

The format wants all lines of a family together, so clusters alternate within it. Each cluster keeps its text and its
compressed pieces (``exposition_cluster``), and what is served is joined from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from monitor.catalog import BY_NAME, METRICS, Level, Metric
from monitor.model import Report
from monitor.publish.exposition_budget import STEP_TEXT, Taken, next_steps, saved
from monitor.publish.exposition_cluster import ClusterText
from monitor.publish.exposition_gzip import Piece, deflate, gunzip, gzip_member
from monitor.settings import Metrics

log = structlog.get_logger(__name__)

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


_COUNTS = ("streamgauge_exposed_series", "streamgauge_dropped_series")


class Exposition:
    """What is exposed, and the text so far. ``render`` is called by one thread at a time."""

    def __init__(self, metrics: Metrics) -> None:
        self._settings = metrics
        self._families = [metric for metric in METRICS if _is_on(metric, metrics)]
        self._headers = {metric.name: deflate(_header(metric)) for metric in self._families}
        self._clusters: dict[str, ClusterText] = {}
        self._taken: Taken = frozenset()
        self._own = CollectorRegistry(auto_describe=False)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._own)

    def render(self, report: Report) -> Rendered:
        """Return the report as text and compressed."""
        own = generate_latest(self._own)
        own_series = own.count(b"\n") - own.count(b"\n#") - own.startswith(b"#") + len(_COUNTS)
        self._update(report, own_series)
        pieces: list[Piece] = []
        for metric in self._families:
            pieces.append(self._headers[metric.name])
            for cluster in self._clusters.values():
                pieces.extend(cluster.pieces(metric))
        counts = (own_series + sum(each.series for each in self._clusters.values()),
                  sum(each.dropped for each in self._clusters.values()))  # fmt: skip
        told = [
            _header(BY_NAME[name]) + b"%s %d\n" % (name.encode(), n) for name, n in zip(_COUNTS, counts, strict=True)
        ]
        pieces.append(deflate(b"".join((*told, own))))
        return Rendered(gzip_member(pieces))

    def _update(self, report: Report, own_series: int) -> None:
        before = self._clusters
        self._clusters = {
            each.name: before.get(each.name) or ClusterText(self._families, self._settings) for each in report.clusters
        }
        for each in report.clusters:
            self._clusters[each.name].look(each)
        self._leave_out(own_series)
        for name, cluster in self._clusters.items():
            cluster.lay(frozenset(step for step, of in self._taken if of == name))

    def _leave_out(self, own_series: int) -> None:
        """Decide what the cap on the whole answer leaves out, and say so when that changes."""
        clusters, limit = self._clusters, self._settings.max_series
        savings = {(step, name): saving for name, each in clusters.items() for step, saving in each.savings.items()}
        total = own_series + sum(each.rows for each in clusters.values())
        taken = next_steps(savings, total, limit, self._taken)
        if taken != self._taken:
            self._taken = taken
            fields = {"max_series": limit, "wanted": total, "left": total - saved(savings, taken)}
            if taken:
                what = [f"{STEP_TEXT[step]} of {name}" for step, name in sorted(taken)]
                log.warning("more series than max_series: some are left out", left_out=what, **fields)
            else:
                log.info("no series is left out any more", **fields)


def _is_on(metric: Metric, metrics: Metrics) -> bool:
    """Return whether the lines of a metric come from reports, and are wanted."""
    return metric.level is not Level.EXPOSITION and (metric.opt_in is None or getattr(metrics, metric.opt_in))


def _header(metric: Metric) -> bytes:
    # The help texts of the catalogue hold neither backslash nor newline, so nothing needs escaping.
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n".encode()
