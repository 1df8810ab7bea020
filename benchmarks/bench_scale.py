"""What a position costs at ten times the shape XL: 1,000,000 positions, 100,000 partitions, 20,000 groups, 12 brokers.

The brokers are fakes in another process, so nothing of theirs is measured. Both shapes are exposed by topic, and each
runs in a process of its own, which is what its resident size means. ``scale.xxl_over_xl`` is the ratio of CPU seconds a
position in cycles where every log end and every commit has moved. The lag of every group is checked each time.

Usage: python bench_scale.py [xl|xxl]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fake_kafka import XL, XXL, FakeKafka, Size, fake_kafka, lag_of

from monitor.model import ClusterReport
from monitor.service import Monitor, Publisher
from monitor.settings import Settings

SIZES = {"xl": XL, "xxl": XXL}
ROUNDS = 5
WARM_UP = 2


def check(report: ClusterReport, size: Size) -> None:
    """End the benchmark unless every group is as far behind as it was made."""
    per_group = size.topics_a_group * size.partitions
    expected = [lag_of(int(who.name.removeprefix("group-"))) * per_group for who in report.positions.layout.consumers]
    if expected != report.consumers.lag_records.tolist() or len(report.positions.layout) != size.positions:
        sys.exit(f"the lag of {size} is not what was made; failures: {report.failures[:3]}")


def rss_mb() -> float:
    """Return the largest resident size of this process so far in MB (10^6 bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


async def measure(kafka: FakeKafka) -> dict[str, float]:
    """Run cycles and return what one costs."""
    settings = Settings(
        clusters=[{"bootstrap_servers": kafka.bootstrap, "timeout_seconds": 30, "interval_seconds": 60}],
        http={"port": 0},
        metrics={"level": "topic"},
    )
    monitor = Monitor(settings)
    publisher = Publisher(monitor)
    await publisher.start()
    moving, idle, work = [], [], []
    try:
        for number in range(WARM_UP + 2 * ROUNDS):
            moves = number < WARM_UP + ROUNDS
            if number and moves:
                await asyncio.to_thread(kafka.move)
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            await monitor.cycle()
            await publisher.publish()
            spent = time.process_time() - cpu
            check(monitor.report().clusters[0], kafka.size)
            if number >= WARM_UP:
                (moving if moves else idle).append(spent)
                work.append(time.perf_counter() - wall)
        requests = monitor.report().clusters[0].requests_total
    finally:
        await publisher.stop()
        await monitor.close()
    return {
        "cpu": statistics.median(moving),
        "idle": statistics.median(idle),
        "work": statistics.median(work[:ROUNDS]),
        "rss": rss_mb(),
        "requests": sum(requests.values()) / (WARM_UP + 2 * ROUNDS),
    }


def main() -> None:
    """Measure both shapes and print."""
    if len(sys.argv) > 1:
        with fake_kafka(SIZES[sys.argv[1]]) as kafka:
            print(json.dumps(asyncio.run(measure(kafka))))
        return
    seen = {}
    for name in SIZES:
        done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, text=True, check=True)
        seen[name] = json.loads(done.stdout.splitlines()[-1])  # what was logged comes before
    for name, values in seen.items():
        print(f"scale.{name}_own_cpu: {values['cpu']:.3f} s")
        print(f"scale.{name}_idle_own_cpu: {values['idle']:.3f} s")
        print(f"scale.{name}_work: {values['work']:.3f} s")
        print(f"scale.{name}_requests: {values['requests']:.0f} 1")
    a_position = {name: values["cpu"] / SIZES[name].positions for name, values in seen.items()}
    print(f"scale.xxl_over_xl: {a_position['xxl'] / a_position['xl']:.2f} x")
    print(f"scale.xl_rss: {seen['xl']['rss']:.0f} MB")
    print(f"scale.xxl_rss: {seen['xxl']['rss']:.0f} MB")
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
