"""What windows cost: 300 s by 30 s, mean of a number, over few and over many keys.

By themselves, records straight into ``processors.windows``, and what they keep: the state as what the process
allocates for it (``tracemalloc``, in a run of its own, as that slows it down), and how the process grows over ten
million records.

On a real Kafka, one worker process each, one after the other, the same records: a declared job, Faust's own hopping
table, a Faust agent that only decodes, and Quix Streams, if there is an environment with it:

    python -m venv ~/.cache/streamgauge/quix-venv
    ~/.cache/streamgauge/quix-venv/bin/pip install quixstreams==3.28.1

(STREAMGAUGE_QUIX_PYTHON names another one.) The contestants are in ``window_contest.py``. Faust's hopping table gets
fewer records, as it is slow. STREAMGAUGE_BENCH_GROWTH sets the number of records to grow over.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.sandbox.kafka import KafkaSandbox
from processors.aggregates import mean
from processors.kept import META, PartitionState
from processors.pipeline import Window
from processors.windows import Span

SPAN = Span(300, 30, grace=30)
WINDOW = Window(SPAN, None, 60, None, mean())
RECORDS = 200_000
GROWTH_RECORDS = int(os.environ.get("STREAMGAUGE_BENCH_GROWTH", "10000000"))
FLUSH_EVERY = 20_000
ROUNDS = 3
RATE = 200.0
"""Records a second of event time: some thirty windows close."""
SHAPES = {"50 keys": 50, "50000 keys": 50_000}
"""Some 120 records a key and pane, or mostly one: then each record is in ten results."""
PARTITIONS = 4
CONTEST = Path(__file__).with_name("window_contest.py")
QUIX_PYTHON = Path(os.environ.get("STREAMGAUGE_QUIX_PYTHON", Path.home() / ".cache/streamgauge/quix-venv/bin/python"))
LIMIT_SECONDS = 300
PANES = 1_000_000

Record = tuple[str, float, float]


def records(keys: int) -> list[Record]:
    """Make records that are up to 20 s out of order."""
    chance = random.Random(keys)
    names = [f"key-{number}" for number in range(keys)]
    return [
        (names[int(chance.random() * keys)], 1_795_000_000 + n / RATE - 20 * chance.random(), float(n % 97))
        for n in range(RECORDS)
    ]


def fill(made: list[Record]) -> tuple[PartitionState, int]:
    """Add all records and take flushes; return the state and the number of final results."""
    state = PartitionState(WINDOW, (), whole=True)
    results = 0
    for number, (key, at, value) in enumerate(made):
        results += len(state.windows.add(key, at, value))  # nothing is late
        if number % FLUSH_EVERY == FLUSH_EVERY - 1:
            state.take_flush()
    return state, results


def by_itself() -> None:
    """Measure without Kafka."""
    for name, keys in SHAPES.items():
        made = records(keys)
        spent = []
        for _ in range(ROUNDS):
            begun = time.process_time()
            state, results = fill(made)
            spent.append(time.process_time() - begun)
        counts = state.windows.counts
        if counts.counted != RECORDS or counts.late:
            sys.exit(f"not every record was counted: {counts}")
        del state
        gc.collect()
        tracemalloc.start()
        state, _ = fill(made)
        state.take_flush()
        held_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        seconds = statistics.median(spent)
        print(f"windows.pure_rate ({name}): {RECORDS / seconds:.0f} 1/s")
        print(f"windows.results_per_record ({name}): {results / RECORDS:.2f}")
        held = state.windows.held
        print(f"windows.bytes_per_key_and_pane ({name}): {held_bytes / held:.0f} bytes ({held} held)")


def grow() -> None:
    """Measure how much the process grows over many records, from when all that is held is there."""
    chance, names = random.Random(1), [f"key-{number}" for number in range(1000)]
    state = PartitionState(WINDOW, (), whole=True)
    begin_bytes = 0
    for number in range(GROWTH_RECORDS):
        at = 1_795_000_000 + number / RATE - 20 * chance.random()
        state.windows.add(names[number % 1000], at, 1.0)
        state.next = number + 1
        if number % FLUSH_EVERY == FLUSH_EVERY - 1:
            state.take_flush()
        if number == min(500_000, GROWTH_RECORDS // 2):
            begin_bytes = rss_bytes()
    grown = (rss_bytes() - begin_bytes) / 1e6
    print(f"windows.rss_growth: {grown:.1f} MB (over {GROWTH_RECORDS} records, {state.windows.held} values held)")


def rss_bytes() -> int:
    """Return the memory of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def produce(bootstrap: str, topic: str, made: list[Record]) -> None:
    """Write records to a topic, each key in one partition."""
    create(bootstrap, {topic: PARTITIONS})
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for key, at, value in made:
        coded = json.dumps({"k": key, "at": at, "v": value}).encode()
        producer.produce(topic, key=key, value=coded, timestamp=int(at * 1000))
    producer.flush()


def create(bootstrap: str, topics: dict[str, int], config: dict[str, str] | None = None) -> None:
    """Create topics."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = [NewTopic(name, partitions, 1, config=config or {}) for name, partitions in topics.items()]
    for created in admin.create_topics(new).values():
        created.result(30)


def contest(who: str, bootstrap: str, topic: str, count: int, name: str) -> tuple[float, float] | None:
    """Return records a second and CPU seconds a record, or None if it did not come to its end."""
    python = QUIX_PYTHON if who.startswith("quix") else Path(sys.executable)
    if not python.exists():
        print(f"# {who}: unknown, no {python}")
        return None
    command = [str(python), str(CONTEST), who, bootstrap, topic, str(count), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        said = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as exc:
        print(f"# {who}: unknown, {type(exc).__name__}")
        return None
    return said["records"] / said["wall_seconds"], said["cpu_seconds"] / said["records"]


def on_kafka(bootstrap: str) -> None:
    """Measure worker processes, and compare."""
    for name, keys in SHAPES.items():
        topic = f"readings-{keys}"
        produce(bootstrap, topic, records(keys))
        rates = {}
        counts = {"ours": RECORDS, "plain": 30_000, "faust_hopping": 1500, "quix_hopping": RECORDS // 4}
        counts |= {"tumbling": RECORDS, "quix_tumbling": RECORDS // 4}
        for who, count in counts.items():
            own = f"{who.replace('_', '-')}-{keys}"
            create(bootstrap, {f"{own}-out": PARTITIONS})
            measured = contest(who, bootstrap, topic, count, own)
            if measured is not None:
                rates[who] = measured[0]
                print(f"windows.rate ({who}, {name}): {measured[0]:.0f} 1/s ({measured[1] * 1e6:.0f} us CPU a record)")
        for ratio, ours, other in (
            ("vs_faust_hopping", "ours", "faust_hopping"),
            ("vs_plain_agent", "ours", "plain"),
            ("vs_quix_hopping", "ours", "quix_hopping"),
            ("vs_quix_tumbling", "tumbling", "quix_tumbling"),
        ):
            if ours in rates and other in rates:
                print(f"windows.{ratio} ({name}): {rates[ours] / rates[other]:.2f} ratio", flush=True)


def recover(bootstrap: str) -> None:
    """Measure how long a worker takes from its start to its first record when a million panes are kept."""
    state = PartitionState(WINDOW, (), whole=True)
    for number in range(PANES):
        state.windows.add(f"key-{number % (PANES // 10)}", 1_795_000_000 + number // (PANES // 10) * 30, 1.0)
    state.next = 1
    flush = state.take_flush()
    for name, entries in (("recovery", [*flush.entries, (META, flush.meta)]), ("start", [])):
        config = {"cleanup.policy": "compact"}
        create(bootstrap, {f"{name}-in": 1, f"{name}-out": 1})
        create(bootstrap, {f"{name}-panes-changelog": 1}, config)
        producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 2 * PANES})
        for key, value in entries:
            producer.produce(f"{name}-panes-changelog", key=key, value=value)
        for _ in range(2):
            producer.produce(f"{name}-in", key="key-1", value=b'{"k": "key-1", "at": 1795000290, "v": 1}')
        producer.flush()
        measured = contest("recovery", bootstrap, f"{name}-in", 1, name)
        if measured is not None:
            print(f"windows.{name}_seconds: {2 / measured[0]:.1f} s ({len(entries)} entries)")


async def main() -> None:
    """Measure and print."""
    by_itself()
    grow()
    async with KafkaSandbox() as sandbox:
        await asyncio.to_thread(on_kafka, sandbox.bootstrap)
        await asyncio.to_thread(recover, sandbox.bootstrap)
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
