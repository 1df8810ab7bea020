"""A real Kafka of the shape XL, and what moves it: 10,000 partitions, 2,000 groups, 100,000 positions.

Everything that fills or moves the cluster runs in processes of its own, so that what a benchmark measures of itself
is the monitor's alone.

Usage: python xl_kafka.py fill|move|churn BOOTSTRAP FIRST_MS STEP
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from monitor.model import TopicPartition
from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.loads import commit_only
from monitor.sandbox.populate import XL, Truth, plan, populate

HEAP_MB = 3072
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class XlKafka:
    """The running cluster: where it is, and the process that it is."""

    bootstrap: str
    pid: int
    first_ms: int

    def move(self, step: int) -> None:
        """Have every log grow by a record and every group commit one record further; ``step`` counts from 1."""
        _run("move", self.bootstrap, self.first_ms, step)

    def churn(self, step: int) -> None:
        """Have one in a hundred groups go and as many others come."""
        _run("churn", self.bootstrap, self.first_ms, step)

    def cpu_seconds(self) -> float:
        """Return the CPU time that the broker has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.asynccontextmanager
async def xl_kafka() -> AsyncIterator[XlKafka]:
    """Start a broker and fill it."""
    started = time.monotonic()
    async with KafkaSandbox(heap_mb=HEAP_MB) as sandbox:
        # The plan's times count from an hour before the fill.
        first_ms = int(time.time() * 1000) - 3_600_000
        await asyncio.to_thread(_run, "fill", sandbox.bootstrap, first_ms, 0)
        print(f"# Kafka with {XL} ready after {time.monotonic() - started:.0f} s", flush=True)
        pid = sandbox.nodes[0].pid
        assert pid is not None  # noqa: S101
        yield XlKafka(sandbox.bootstrap, pid, first_ms)


def _run(what: str, bootstrap: str, first_ms: int, step: int) -> None:
    subprocess.run([sys.executable, __file__, what, bootstrap, str(first_ms), str(step)], check=True)


async def _fill(bootstrap: str, _first_ms: int, _step: int) -> None:
    await populate(bootstrap, XL)


async def _move(bootstrap: str, first_ms: int, step: int) -> None:
    from confluent_kafka import Producer

    truth = plan(XL, first_ms)
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for where in truth.ends:
        producer.produce(where.topic, b"x" * 100, partition=where.partition)
    left = await asyncio.to_thread(producer.flush, 120)
    if left:
        sys.exit(f"{left} records were not delivered")
    await commit_only(bootstrap, moved(truth, step))


def moved(truth: Truth, step: int) -> dict[str, dict[TopicPartition, int]]:
    """Return the commits after so many moves: as many records further."""
    return {
        group: {where: offset + step for where, offset in offsets.items()} for group, offsets in truth.committed.items()
    }


async def _churn(bootstrap: str, first_ms: int, step: int) -> None:
    from confluent_kafka.admin import AdminClient

    truth = plan(XL, first_ms)
    names = list(truth.committed)
    chosen = names[:: XL.groups // 20]
    gone = [f"{name}-{step - 1}" if step > 1 else name for name in chosen]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_consumer_groups(gone).values():
        future.result(30)
    await commit_only(bootstrap, {f"{name}-{step}": truth.committed[name] for name in chosen})


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # fresh topics move about while they are filled
    asyncio.run({"fill": _fill, "move": _move, "churn": _churn}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:5])))
