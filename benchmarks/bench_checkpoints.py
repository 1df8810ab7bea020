"""What it costs to look at the checkpoints of 1,000 Spark queries on this machine's disk, each with 100 batches.

``work`` is the wall clock of a look in which every query has committed a batch and planned another since the one
before, ``own_cpu`` its CPU time; ``idle_own_cpu`` is that of a look in which nothing moved. ``first_work`` and
``first_own_cpu`` are those of the very first look, ``history_own_cpu`` is that of the looks after it together, until
the hundred batches of every query are known. ``rss`` is the memory that all of it takes. What is not of the beginning
is a median of 5.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from monitor.model import SparkSnapshot
from monitor.observe.spark.checkpoint import CheckpointSource
from monitor.settings import Cluster, SparkCheckpoints

QUERIES = 1_000
BATCHES = 100
PARTITIONS = 12
ROUNDS = 5
INTERVAL_MS = 10_000
PINNED = json.loads(
    next(
        line
        for line in (Path(__file__).parents[1] / "tests/data/spark/kafka-4.2.0/offsets/9")
        .read_text("utf-8")
        .splitlines()
        if line.startswith('{"batch')
    )
)["conf"]


class Queries:
    """The folders of queries that move a batch at a time."""

    def __init__(self, root: Path) -> None:
        self._folders = [root / f"query-{number:04}" for number in range(QUERIES)]
        self._began_ms = (int(time.time()) - BATCHES * INTERVAL_MS // 1000 - 600) * 1000
        self._batch = 0
        for number, folder in enumerate(self._folders):
            for each in ("offsets", "commits", "sources/0"):
                (folder / each).mkdir(parents=True)
            for log in ("offsets", "commits"):
                (folder / log / ".crc").write_bytes(b"crc\0")
            (folder / "metadata").write_text(json.dumps({"id": f"{number:08}-0000-0000-0000-000000000000"}), "utf-8")

    def run(self) -> None:
        """Commit the batch in flight of every query and plan the next, as Spark does: with a checksum beside each."""
        plan, commit = self._plan().encode(), b'v1\n{"nextBatchWatermarkMs":0}'
        done_at = (self._began_ms + self._batch * INTERVAL_MS) / 1000 - 5
        for folder in self._folders:
            if self._batch:
                _write(f"{folder}/commits", self._batch - 1, commit, done_at)
            _write(f"{folder}/offsets", self._batch, plan, done_at + 5.1)
        self._batch += 1

    def _plan(self) -> str:
        at = self._began_ms + self._batch * INTERVAL_MS
        header = json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": at, "conf": PINNED})
        offsets = {"orders": {str(partition): 1_000 * self._batch + partition for partition in range(PARTITIONS)}}
        return f"v1\n{header}\n{json.dumps(offsets)}"


def _write(folder: str, number: int, data: bytes, at: float) -> None:
    """Write an entry of a log and its checksum file; without pathlib, as there are 400,000 of them."""
    path = f"{folder}/{number}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(handle, data)
    os.utime(handle, (at, at))
    os.close(handle)
    os.link(f"{folder}/.crc", f"{folder}/.{number}.crc")


async def look(source: CheckpointSource) -> tuple[float, float, SparkSnapshot]:
    """Return the wall clock and the CPU time of a look, and what it saw."""
    gc.collect()
    began, began_cpu = time.perf_counter(), time.process_time()
    seen = await source.observe()
    took = time.perf_counter() - began, time.process_time() - began_cpu
    if len(seen.queries) != QUERIES or seen.failures:
        problem = f"saw {len(seen.queries)} queries, and failures {seen.failures[:3]}"
        raise RuntimeError(problem)
    return *took, seen


def memory_mb() -> float:
    """Return the memory this process holds now (resident set) in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def measure(root: Path) -> None:
    """Measure and print."""
    queries = Queries(root)
    for _ in range(BATCHES + 2):
        queries.run()
    before = memory_mb()
    entry = SparkCheckpoints(path=f"{root}/*")
    source = CheckpointSource(Cluster(bootstrap_servers="unused:9092", spark=(entry,), timeout_seconds=120.0))
    first, first_cpu, seen = await look(source)
    history_cpu, looks = 0.0, 0
    while any(len(query.batches) < BATCHES for query in seen.queries):
        _, cpu, seen = await look(source)
        history_cpu, looks = history_cpu + cpu, looks + 1
    held = memory_mb() - before
    moved, idle = [], []
    for _ in range(ROUNDS):
        queries.run()
        batch = seen.queries[0].batch_id
        work, cpu, seen = await look(source)
        if {query.batch_id for query in seen.queries} != {(batch or 0) + 1}:
            raise RuntimeError("a look missed a batch")
        moved.append((work, cpu))
        idle.append((await look(source))[1])
    work, cpu = (statistics.median(each) for each in zip(*moved, strict=True))
    print(f"checkpoints.work: {work:.4f} s")
    print(f"checkpoints.own_cpu: {cpu:.4f} s")
    print(f"checkpoints.idle_own_cpu: {statistics.median(idle):.4f} s")
    print(f"checkpoints.first_work: {first:.4f} s")
    print(f"checkpoints.first_own_cpu: {first_cpu:.4f} s")
    print(f"checkpoints.history_own_cpu: {history_cpu:.4f} s in {looks} looks")
    print(f"checkpoints.rss: {held:.0f} MB")
    print(f"# load average {os.getloadavg()[0]:.2f}")


def main() -> None:
    """Make the folders, measure, and take them away."""
    root = Path(tempfile.mkdtemp(prefix="streamgauge-checkpoints-"))
    try:
        asyncio.run(measure(root))
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
