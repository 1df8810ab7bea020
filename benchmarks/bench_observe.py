"""What reading a cluster of the shape XL costs: requests, decoding, positions; no look-ups, nothing derived."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from xl_kafka import XL, xl_kafka

from monitor.observe.kafka.source import KafkaSource
from monitor.settings import Cluster

ROUNDS = 7
WARM_UP = 3


async def main() -> None:
    """Measure and print."""
    work, cpu = [], []
    async with xl_kafka() as kafka:
        source = KafkaSource(Cluster(bootstrap_servers=kafka.bootstrap))
        for number in range(WARM_UP + ROUNDS):
            if number >= WARM_UP:
                await asyncio.to_thread(kafka.move, number - WARM_UP + 1)
            wall, spent = time.perf_counter(), time.process_time()
            snapshot = await source.observe()
            if number >= WARM_UP:
                work.append(time.perf_counter() - wall)
                cpu.append(time.process_time() - spent)
            if not snapshot.up or len(snapshot.positions.layout) != XL.groups * XL.positions:
                sys.exit(f"not everything was read: {snapshot.failures[:3]}")
        await source.close()
    print(f"observe.own_cpu: {statistics.median(cpu):.3f} s")
    print(f"observe.work: {statistics.median(work):.3f} s")
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
