"""What an exposition of the shape XL costs: patching, laying out, compressing, and fetching it over HTTP.

``patch`` is the CPU time of a whole render, compression included, in which every lag has changed; ``idle`` of one
in which only time has passed; ``still`` of one whose columns are new, with the same values; ``churn`` of one after 1 %
of the positions went or came, ``churn_consumers`` 1 % of the consumers; ``build`` of the first.
``capped`` is ``patch`` with 50,000 of the 100,000 positions exact and the rest summed, ``swap`` the same in a cycle in
which some of the exact ones are swapped, which is one a minute at most. ``xxl_*`` is ten times the shape, with
1,000,000 positions, in a process of its own: ``xxl_topic_*`` by topic, ``xxl_capped_*`` with 200,000 exact positions
and no cap on the whole answer; ``held`` is the memory that an exposition keeps, ``peak`` what the first render takes.
``vs_generate_latest`` is how many times the CPU time of ``patch`` prometheus_client takes for the text alone of the
same series, by a custom collector that has all labels at hand. The GETs are whole answers of ``HttpServer`` over
loopback to a client in another process, by its wall clock; each finds a report that nobody has fetched before.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

sys.path.insert(0, str(Path(__file__).parent))
import xl

from monitor.catalog import GROUP_STATES, METRICS, PARTITION_STATUSES, Level, Type, finding_kinds
from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import HEALTHS, ClusterReport, Floats, PositionLayout, Report
from monitor.publish.exposition import Exposition, Rendered
from monitor.publish.http import HttpServer, Published
from monitor.settings import Metrics

ROUNDS = 5
CAPPED = Metrics(max_positions=50_000)
XXL = {"topic": Metrics(level="topic"), "capped": Metrics(max_series=10_000_000)}

Table = TypeVar("Table", bound=Any)

CLIENT = """
import http.client, sys, time
port, encoding, rounds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for _ in range(rounds):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    began = time.perf_counter()
    connection.request("GET", "/metrics", headers={"Accept-Encoding": encoding})
    answer = connection.getresponse()
    body = answer.read()
    print(time.perf_counter() - began, answer.status, len(body), answer.getheader("Content-Encoding") or "identity")
    connection.close()
"""


class Observing:
    """A cluster of the shape XL, seen again and again."""

    def __init__(self) -> None:
        self._history = History()
        self._at = 1_000.0
        self._moves = 0

    def moved(self, rows: PositionLayout) -> Report:
        """Return the report of a cycle in which every log and nearly every lag has moved."""
        self._moves += 1
        return self.idle(rows)

    def idle(self, rows: PositionLayout) -> Report:
        """Return the report of a cycle in which nothing moved but time."""
        self._at += 10.0
        at = self._at
        seen = xl.snapshot(rows, at=at, moved=100 * self._moves, seed=self._moves)
        cluster = derive(observe(seen, None, self._history), self._history, lambda _: 300.0)
        return Report(at, (with_every_age(cluster, xl.ages(cluster.positions.lag_records, at)),))


def still(report: Report) -> Report:
    """Return the same report ten seconds later, in new columns."""
    (cluster,) = report.clusters
    tables = ("partitions", "topics", "positions", "consumer_topics", "consumers")
    copies = {name: with_copied_columns(getattr(cluster, name)) for name in tables}
    return Report(report.at + 10.0, (replace(cluster, at=report.at + 10.0, **copies),))


def with_copied_columns(table: Table) -> Table:
    """Return a table of columns, each in a new array."""
    columns = {each.name: getattr(table, each.name) for each in fields(table)}
    return replace(table, **{name: each.copy() for name, each in columns.items() if isinstance(each, np.ndarray)})


def with_every_age(report: ClusterReport, seconds: Floats) -> ClusterReport:
    """Return the report as it is once look-ups have placed every position: the most series there can be."""
    starts = report.positions.layout.starts
    consumers = np.full(len(starts) - 1, np.nan)
    filled = np.flatnonzero(np.diff(starts))
    consumers[filled] = np.maximum.reduceat(seconds, starts[filled])
    return replace(
        report,
        positions=replace(report.positions, lag_seconds=seconds, lag_seconds_bound=seconds / 10),
        consumers=replace(report.consumers, lag_seconds=consumers, lag_seconds_bound=consumers / 10),
    )


class StockCollector:
    """The same series by prometheus_client's families. It has the labels of every row ready, which is the fast case."""

    def __init__(self, report: Report) -> None:
        (self._cluster,) = report.clusters
        self._labels = labels_by_level(self._cluster)

    def collect(self) -> Iterator[Family]:
        """Yield the families that have values in this shape."""
        for metric in METRICS:
            if metric.read is None or metric.opt_in:
                continue
            kind = CounterMetricFamily if metric.type is Type.COUNTER else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            values = metric.read(self._cluster).tolist()
            for labels, value in zip(self._labels.get(metric.level, ()), values, strict=True):
                if value >= 0:
                    family.add_metric(labels, value)
            yield family


def labels_by_level(report: ClusterReport) -> Mapping[Level, Sequence[tuple[str, ...]]]:
    """Return the label values of the rows of every level, as prometheus_client wants them."""
    layout, pairs, topics = report.positions.layout, report.consumer_topics, report.partitions.layout.topics
    who = [(report.name, str(kind), name) for kind, name in layout.consumers]
    where = [(key.topic, str(key.partition)) for key in map(layout.partitions.key, range(len(layout.partitions)))]
    return {
        Level.SOURCE: [(report.name, source.source) for source in report.sources],
        Level.REQUEST: [(report.name, *key) for key in report.requests_total],
        Level.FAILURE: [(report.name, *key) for key in report.failures_total],
        Level.PARTITION: [(report.name, *each) for each in where],
        Level.TOPIC: [(report.name, topic) for topic in topics],
        Level.POSITION: [
            (*who[c], *where[row]) for c, row in zip(layout.consumer.tolist(), layout.row.tolist(), strict=True)
        ],
        Level.CONSUMER_TOPIC: [
            (*who[c], topics[t]) for c, t in zip(pairs.consumer.tolist(), pairs.topic.tolist(), strict=True)
        ],
        Level.CONSUMER: who,
        Level.CONSUMER_STATUS: [(*each, status) for each, status in product(who, PARTITION_STATUSES)],
        Level.CONSUMER_HEALTH: [(*each, str(health)) for each, health in product(who, HEALTHS)],
        Level.CONSUMER_STATE: [(*each, state) for each, state in product(who, GROUP_STATES)],
        Level.CONSUMER_PROTOCOL: [
            (*each, facts.protocol or "") for each, facts in zip(who, report.groups, strict=True)
        ],
        Level.FINDING: [(report.name, kind) for kind in finding_kinds(report)],
        Level.SPARK: [],
        Level.FAUST_WORKER: [],
        Level.FAUST_AGENT: [],
        Level.FAUST_TABLE: [],
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time, user and system, that a call takes."""
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def rendering(exposition: Exposition, reports: Callable[[int], Report], rounds: int = ROUNDS) -> float:
    """Return the median CPU time of rendering ``reports(round)``, each made beforehand."""
    return statistics.median(cpu_seconds(partial(exposition.render, reports(number))) for number in range(rounds))


def seconds_of_generate_latest(report: Report) -> float:
    """Return the median CPU time of prometheus_client's text of the same series."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StockCollector(report))
    return statistics.median(cpu_seconds(lambda: generate_latest(registry)) for _ in range(ROUNDS))


async def seconds_of_get(report: Report, rendered: Rendered, encoding: str) -> float:
    """Return the median wall clock of fetching the answer; every GET finds a report that nobody has fetched yet."""
    server = HttpServer("127.0.0.1", 0, lambda: Published(replace(report), rendered, complete=True))
    _, port = await server.start()
    try:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(port), encoding, str(ROUNDS), stdout=subprocess.PIPE
        )
        out, _ = await client.communicate()
    finally:
        await server.stop()
    answers = [line.split() for line in out.decode().splitlines()]
    size = len(rendered.gzip if encoding == "gzip" else rendered.plain)
    if [answer[1:] for answer in answers] != [["200", str(size), encoding]] * ROUNDS:
        problem = f"GET /metrics with Accept-Encoding: {encoding} answered {answers}, not {size} bytes"
        raise RuntimeError(problem)
    return statistics.median(float(answer[0]) for answer in answers)


def memory_mb() -> float:
    """Return the memory this process holds now (resident set) in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """Return the most memory this process has held (resident set) since ``forget_peak`` in MB."""
    line = next(line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Count the peak from now on (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def capped(rows: PositionLayout) -> tuple[float, float]:
    """Return the median CPU time of a usual cycle beyond the cap, and of one that swaps exact positions."""
    observing, exposition = Observing(), Exposition(CAPPED)
    exposition.render(observing.moved(rows))
    # Ten seconds a cycle, and a look at the ranking every minute: the sixth has it. Two rounds warm up.
    seconds = [rendering(exposition, lambda _: observing.moved(rows), rounds=1) for _ in range(6 * (ROUNDS + 2))]
    usual = [each for number, each in enumerate(seconds, 1) if number % 6]
    return statistics.median(usual[10:]), statistics.median(seconds[17::6])


def xxl(name: str) -> None:
    """Measure ten times the shape and print."""
    xl.TOPICS, groups = 10 * xl.TOPICS, 10 * xl.GROUPS
    observing, rows = Observing(), xl.layout(groups)
    observing.moved(rows)
    report = observing.moved(rows)
    gc.collect()
    before = memory_mb()
    forget_peak()
    exposition = Exposition(XXL[name])
    build = cpu_seconds(lambda: exposition.render(report))
    gc.collect()
    print(f"exposition.xxl_{name}_peak: {peak_mb() - before:.0f} MB")
    print(f"exposition.xxl_{name}_held: {memory_mb() - before:.0f} MB")
    print(f"exposition.xxl_{name}_build: {build:.4f} s")
    print(f"exposition.xxl_{name}_patch: {rendering(exposition, lambda _: observing.moved(rows)):.4f} s")
    report = observing.moved(rows)
    exposition.render(report)
    print(f"exposition.xxl_{name}_still: {rendering(exposition, lambda _: still(report)):.4f} s", flush=True)


def main() -> None:
    """Measure and print."""
    observing, rows, fewer = Observing(), xl.layout(), xl.layout(skip=xl.POSITIONS_A_GROUP)
    first = observing.moved(rows)
    before = memory_mb()
    build = statistics.median(cpu_seconds(lambda: Exposition(Metrics()).render(first)) for _ in range(ROUNDS))
    exposition = Exposition(Metrics())
    exposition.render(first)
    held = memory_mb() - before
    patch = rendering(exposition, lambda _: observing.moved(rows))
    idle = rendering(exposition, lambda _: observing.idle(rows))
    churn = rendering(exposition, lambda n: observing.moved((fewer, rows)[n % 2]))
    without = xl.layout(xl.GROUPS - xl.GROUPS // 100)
    churn_consumers = rendering(exposition, lambda n: observing.moved((without, rows)[n % 2]))
    exposition.render(report := observing.moved(rows))
    unmoved = rendering(exposition, lambda _: still(report))
    report = observing.moved(rows)
    rendered = exposition.render(report)
    text = rendered.plain
    print(f"exposition.patch: {patch:.4f} s")
    print(f"exposition.idle: {idle:.4f} s")
    print(f"exposition.still: {unmoved:.4f} s")
    print(f"exposition.churn: {churn:.4f} s")
    print(f"exposition.churn_consumers: {churn_consumers:.4f} s")
    print(f"exposition.build: {build:.4f} s")
    print(f"exposition.held: {held:.0f} MB")
    print(f"exposition.series: {text.count(b'streamgauge_') - text.count(b'# '):d}")
    print(f"exposition.bytes: {len(text)} ({len(rendered.gzip)} compressed)")
    print(f"exposition.vs_generate_latest: {seconds_of_generate_latest(report) / patch:.0f} x", flush=True)
    print(f"exposition.get_gzip: {asyncio.run(seconds_of_get(report, rendered, 'gzip')):.4f} s")
    print(f"exposition.get_plain: {asyncio.run(seconds_of_get(report, rendered, 'identity')):.4f} s")
    usual, swap = capped(rows)
    print(f"exposition.capped: {usual:.4f} s")
    print(f"exposition.swap: {swap:.4f} s", flush=True)
    for name in XXL:
        subprocess.run([sys.executable, __file__, name], check=True)
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    xxl(sys.argv[1]) if len(sys.argv) > 1 else main()
