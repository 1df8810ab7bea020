"""A fake Kafka cluster of any size in a process of its own: for shapes that no machine at hand could hold for real.

Usage: python fake_kafka.py BROKERS TOPICS PARTITIONS GROUPS TOPICS_A_GROUP. It prints its bootstrap servers, then does
what it reads a line at a time (``move``: every log grows by a record and every commit goes one record further), each
answered by ``ok``.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass

import numpy as np

from monitor.sandbox.fake import FakeCluster

RECORDS = 100
STEP_MS = 1000


@dataclass(frozen=True)
class Size:
    """How large: every group commits on each partition of ``topics_a_group`` topics."""

    brokers: int
    topics: int
    partitions: int
    groups: int
    topics_a_group: int

    @property
    def positions(self) -> int:
        """Return how many positions that makes."""
        return self.groups * self.topics_a_group * self.partitions


XL = Size(brokers=12, topics=1_000, partitions=10, groups=2_000, topics_a_group=5)
XXL = Size(brokers=12, topics=10_000, partitions=10, groups=20_000, topics_a_group=5)


class FakeKafka:
    """The running cluster, as seen from the benchmark."""

    def __init__(self, process: subprocess.Popen[str], size: Size) -> None:
        self._process = process
        self.size = size
        self.bootstrap = self._read()

    def move(self) -> None:
        """Have every log grow by a record and every group commit one record further."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write("move\n")
        self._process.stdin.flush()
        if self._read() != "ok":
            sys.exit("the fake cluster did not move")

    def _read(self) -> str:
        assert self._process.stdout is not None  # noqa: S101
        return self._process.stdout.readline().strip()


def lag_of(group: int) -> int:
    """Return how many records a group is behind on each of its partitions: every fourth is caught up."""
    return group % 4 * 7


@contextlib.contextmanager
def fake_kafka(size: Size) -> Iterator[FakeKafka]:
    """Start a cluster of that size, and end it."""
    command = [sys.executable, __file__, *map(str, astuple(size))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield FakeKafka(process, size)
        finally:
            process.terminate()


def fill(cluster: FakeCluster, size: Size) -> None:
    """Make its topics and groups; records are one a second, the newest a minute old."""
    first_ms = int(time.time() * 1000) - 60_000 - RECORDS * STEP_MS
    for topic in range(size.topics):
        cluster.topic(f"topic-{topic:05}", size.partitions, records=RECORDS, timestamp_ms=first_ms, step_ms=STEP_MS)
    for group in range(size.groups):
        offsets = np.full(size.partitions, RECORDS - lag_of(group), np.int64)
        made = cluster.group(f"group-{group:05}")
        for topic in range(group * size.topics_a_group, (group + 1) * size.topics_a_group):
            made.commit_all(f"topic-{topic % size.topics:05}", offsets)


def move(cluster: FakeCluster) -> None:
    """Let time go on."""
    for topic in cluster.topics.values():
        topic.log_end += 1
        topic.last_stable += 1
    for group in cluster.groups.values():
        for committed in group.commits.values():
            committed.offset += 1


async def main(size: Size) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    async with FakeCluster(size.brokers) as cluster:
        fill(cluster, size)
        print(cluster.bootstrap, flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            move(cluster)
            print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Size(*map(int, sys.argv[1:]))))
