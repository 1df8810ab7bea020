"""What one whole cycle and one scrape cost at the shape XL, on a real broker beside it on the same two cores.

``cycle.own_cpu`` is the CPU time of the monitor's process from the first request of a cycle until a gzip GET of its
exposition has been answered, while every log end and every commit has moved since the cycle before; ``idle_own_cpu``
the same while nothing moved and no age has to be looked up any more, ``churn_own_cpu`` while 1 % of the groups went and
came. ``work`` is the wall time of
observing, deriving and rendering. Broker CPU is net of what it uses at rest. The numbers are checked: a report that
differs from what was written ends the benchmark.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from xl_kafka import XL, XlKafka, moved, xl_kafka

from monitor.model import ClusterReport
from monitor.sandbox.populate import plan
from monitor.service import Monitor, Publisher
from monitor.settings import Settings

ROUNDS = 5
WARM_UP = 3
SETTLING_CYCLES = 200
ENDS_REQUESTS = 2
"""ListOffsets of a cycle in which nothing moved and nothing is looked up: log start and log end."""

CLIENT = """
import sys, urllib.request
for line in sys.stdin:
    request = urllib.request.Request(line.strip() + "metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        print(answer.status, len(answer.read()), answer.headers["Content-Encoding"], flush=True)
"""


class Measured:
    """One cycle: seconds and requests."""

    def __init__(self, *, work: float, cpu: float, broker_cpu: float, requests: int) -> None:
        self.work = work
        self.cpu = cpu
        self.broker_cpu = broker_cpu
        self.requests = requests


class Bench:
    """The monitor under measurement, and a client in another process."""

    def __init__(self, kafka: XlKafka) -> None:
        self.kafka = kafka
        settings = Settings(clusters=[{"bootstrap_servers": kafka.bootstrap}], http={"port": 0})
        self.monitor = Monitor(settings)
        self.publisher = Publisher(self.monitor)
        self.address = ""
        self.rest = 0.0
        self.client = subprocess.Popen(
            [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def start(self) -> None:
        """Listen, and see what the broker uses at rest."""
        self.address = await self.publisher.start()
        begin, at = self.kafka.cpu_seconds(), time.monotonic()
        await asyncio.sleep(5)
        self.rest = (self.kafka.cpu_seconds() - begin) / (time.monotonic() - at)

    async def cycle(self) -> Measured:
        """Run one cycle and one scrape."""
        asked, broker = self._requests(), self.kafka.cpu_seconds()
        wall, cpu = time.perf_counter(), time.process_time()
        await self.monitor.cycle()
        for each in self.monitor.clusters:
            each.tried = True
        await self.publisher.publish()
        work = time.perf_counter() - wall
        answer = await asyncio.to_thread(self._get)
        spent = time.process_time() - cpu
        broker = self.kafka.cpu_seconds() - broker - self.rest * (time.perf_counter() - wall)
        if not answer.startswith("200 ") or not answer.endswith(" gzip"):
            sys.exit(f"the scrape answered {answer}")
        return Measured(work=work, cpu=spent, broker_cpu=broker, requests=self._requests() - asked)

    async def cycles(self, before: str = "") -> list[Measured]:
        """Measure ROUNDS cycles, each after ``move`` or ``churn`` of the cluster if named."""
        measured = []
        for step in range(1, ROUNDS + 1):
            if before:
                await asyncio.to_thread(getattr(self.kafka, before), step)
            gc.collect()
            measured.append(await self.cycle())
        return measured

    async def settle(self) -> int:
        """Run cycles until every age is as narrow as it gets and nothing is looked up any more; return how many."""
        for number in range(1, SETTLING_CYCLES + 1):
            before = self.report().requests_total["kafka", "ListOffsets"]
            await self.cycle()
            if self.report().requests_total["kafka", "ListOffsets"] - before <= ENDS_REQUESTS:
                return number
        sys.exit(f"after {SETTLING_CYCLES} cycles in which nothing moved, ages are still looked up")

    def received(self) -> Counter[str]:
        """Return the bytes received by API since the start."""
        return Counter(self.monitor.clusters[0].kafka.received_bytes)

    async def print_traffic(self, before: str) -> None:
        """Run one more cycle, and print its requests and bytes by API."""
        if before:
            await asyncio.to_thread(getattr(self.kafka, before), ROUNDS + 1)
        asked, received = Counter(self.report().requests_total), self.received()
        await self.cycle()
        asked = Counter(self.report().requests_total) - asked
        for (_, api), count in sorted(asked.items()):
            print(f"# {before or 'idle'}: {api} {count} requests, {(self.received() - received)[api]} bytes received")

    def report(self) -> ClusterReport:
        """Return the latest report."""
        return self.monitor.report().clusters[0]

    def _requests(self) -> int:
        report = self.monitor.clusters[0].report
        return sum(report.requests_total.values()) if report is not None else 0

    def _get(self) -> str:
        assert self.client.stdin is not None and self.client.stdout is not None  # noqa: S101, PT018
        self.client.stdin.write(self.address + "\n")
        self.client.stdin.flush()
        return self.client.stdout.readline().strip()

    async def stop(self) -> None:
        """End everything."""
        self.client.terminate()
        self.client.wait()
        await self.publisher.stop()
        await self.monitor.close()


def check(report: ClusterReport, kafka: XlKafka, step: int) -> None:
    """End the benchmark unless every lag of the report is what was written."""
    truth = plan(XL, kafka.first_ms)
    commits = moved(truth, step)
    layout = report.positions.layout
    owner = layout.consumer
    wrong = 0
    for index in range(len(layout)):
        where = layout.partitions.key(layout.row[index])
        committed = commits[layout.consumers[owner[index]].name][where]
        wrong += int(report.positions.lag_records[index]) != truth.ends[where] + step - committed
    if wrong or len(layout) != XL.groups * XL.positions:
        sys.exit(f"{wrong} of {len(layout)} positions differ from what was written")


def rss_mb() -> float:
    """Return the largest resident size of this process so far in MB (10^6 bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


async def main() -> None:
    """Measure and print."""
    async with xl_kafka() as kafka:
        bench = Bench(kafka)
        await bench.start()
        try:
            first = await bench.cycle()
            check(bench.report(), kafka, 0)
            for _ in range(WARM_UP):
                await bench.cycle()
            moving = await bench.cycles("move")
            rss = rss_mb()
            check(bench.report(), kafka, ROUNDS)
            await bench.print_traffic("move")
            settling = await bench.settle()
            idle = await bench.cycles()
            await bench.print_traffic("")
            churn = await bench.cycles("churn")
            if not bench.report().up:
                sys.exit(f"not everything could be read: {bench.report().failures[:3]}")
        finally:
            await bench.stop()
    print(f"cycle.first_work: {first.work:.3f} s")
    print(f"cycle.first_own_cpu: {first.cpu:.3f} s")
    print(f"cycle.work: {median([each.work for each in moving]):.3f} s")
    print(f"cycle.own_cpu: {median([each.cpu for each in moving]):.3f} s")
    print(f"cycle.broker_cpu: {median([each.broker_cpu for each in moving]):.3f} s")
    print(f"cycle.requests: {max(each.requests for each in moving + idle)} 1")
    print(f"cycle.rss: {rss:.0f} MB")
    print(f"cycle.idle_own_cpu: {median([each.cpu for each in idle]):.3f} s")
    print(f"# idle after {settling} cycles in which the ages of {XL.groups * XL.positions} positions were looked up")
    print(f"cycle.churn_own_cpu: {median([each.cpu for each in churn]):.3f} s")
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
