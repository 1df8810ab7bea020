"""What all rules cost a real Prometheus over the series of 2,000 groups on 100,000 positions.

Durations are divided and scraped is as much faster (``alerts.haste``), so that every window holds as many samples as
at one scrape a minute, without an hour of waiting; only what looks back six hours is filled for a part.
"""

import asyncio
import re
import sys
import time
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_api import serving
from prometheus_servers import asked, needs_prometheus, prometheus

from alerts.haste import hastened, hastened_record
from alerts.rules import ALL_RULES, RECORDS
from monitor.derive.report import derive, observe
from monitor.model import Report
from monitor.publish.exposition import Exposition
from monitor.publish.http import Published
from monitor.settings import Metrics

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import xl
from bench_exposition import Observing, with_every_age

pytestmark = [pytest.mark.integration, pytest.mark.soak, needs_prometheus]

FASTER = 12
SCRAPES = 20
"""More than the samples of the 15 minutes that rules look back at what has most series."""

ROUNDS = 3
ALLOWED_SECONDS = 60 / 10
"""A tenth of the minute in which Prometheus evaluates rules unless told otherwise."""


class Watched(Observing):
    """A cluster of the shape XL at the time it is now, of whose groups every hundredth is late."""

    def report(self, rows):
        self._moves += 1
        at = time.time()
        seen = xl.snapshot(rows, at=at, moved=100 * self._moves, seed=self._moves)
        observed = observe(seen, None, self._history)
        cluster = derive(observed, self._history, self._objective, interval_seconds=60 / FASTER)
        return Report(at, (with_every_age(cluster, xl.ages(cluster.positions.lag_records, 1_000.0)),))

    @staticmethod
    def _objective(name):
        return 300.0 if name.endswith("00") else 7_200.0


@asynccontextmanager
async def monitor():
    """Gives the port on which a new report of all that is served with every scrape interval."""
    rows, watched, exposition = xl.layout(), Watched(), Exposition(Metrics())

    def publish():
        report = watched.report(rows)
        return Published(report, exposition.render(report), complete=True)

    async with serving(publish, lambda: 60 / FASTER) as port:
        yield port


async def test_all_rules_are_evaluated_within_a_tenth_of_their_interval(tmp_path):
    """Rules of a group are evaluated one after the other: their CPU time is how long it takes where nobody else works.

    Of each rule the best of some rounds counts, for garbage is collected meanwhile. Nothing is scraped then any more.
    """
    interval = f"{60 // FASTER}s"
    async with monitor() as port:
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval},
            "scrape_configs": [{"job_name": "streamgauge", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
        }
        with prometheus(tmp_path, "--web.enable-lifecycle", config=yaml.safe_dump(config)) as address:
            while await asyncio.to_thread(scrapes, address) < SCRAPES:
                await asyncio.sleep(60 / FASTER)
            series = await asyncio.to_thread(series_of, address)
            (tmp_path / "prometheus.yml").write_text("{}\n")
            await asyncio.to_thread(reload, address)
            at = time.time()
            rounds = [await asyncio.to_thread(costs, address, at) for _ in range(ROUNDS)]

    best = {name: min(each[name] for each in rounds) for name in rounds[0]}
    print(
        f"\nseries {series}, CPU {sum(best.values()):.2f} s:",
        *(f"{best[n]:.2f} {n}" for n in sorted(best, key=best.get)[-5:]),
    )
    assert series > 300_000
    assert len(ALL_RULES) + len(RECORDS) == len(best)
    assert sum(best.values()) < ALLOWED_SECONDS


def scrapes(address):
    result = asked(address, "/api/v1/query", query="count_over_time(streamgauge_exposed_series[1h])")["result"]
    return int(result[0]["value"][1]) if result else 0


def series_of(address):
    return int(asked(address, "/api/v1/query", query='count({__name__=~"streamgauge_.+"})')["result"][0]["value"][1])


def reload(address):
    with urllib.request.urlopen(f"{address}/-/reload", b"", timeout=60):  # noqa: S310 (our own)
        pass


def costs(address, at):
    """CPU seconds of Prometheus for each rule's expression at a moment."""
    seconds, before = {}, cpu_of(address)
    rules = [hastened(rule, FASTER) for rule in ALL_RULES] + [hastened_record(record, FASTER) for record in RECORDS]
    for rule in rules:
        asked(address, "/api/v1/query", query=rule.expression, time=at)
        now = cpu_of(address)
        seconds[rule.name], before = now - before, now
    return seconds


def cpu_of(address):
    """What Prometheus says of itself."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:  # noqa: S310 (our own)
        return float(re.search(rb"^process_cpu_seconds_total (\S+)$", answer.read(), re.MULTILINE)[1])
