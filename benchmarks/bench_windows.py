"""What windows cost by themselves: 300 s by 30 s, mean of a number, over few and over many keys.

No Kafka and no Faust: records go straight into ``processors.windows``. The state is measured as what the process
allocates for it (``tracemalloc``), in a run of its own, as that slows it down.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
import tracemalloc

from processors.aggregates import mean
from processors.windows import Span, Windows

SPAN = Span(300, 30, grace=30)
RECORDS = 200_000
ROUNDS = 3
RATE = 200.0
"""Records a second of event time: some thirty windows close."""
SHAPES = {"50 keys": 50, "50000 keys": 50_000}
"""Some 120 records a key and pane, or mostly one: then each record is in ten results."""

Record = tuple[str, float, float]


def records(keys: int) -> list[Record]:
    """Make records that are up to 20 s out of order."""
    chance = random.Random(keys)
    names = [f"key-{number}" for number in range(keys)]
    return [
        (names[int(chance.random() * keys)], 1_795_000_000 + n / RATE - 20 * chance.random(), float(n % 97))
        for n in range(RECORDS)
    ]


def fill(made: list[Record]) -> tuple[Windows, int]:
    """Add all records; return the windows and the number of final results."""
    windows = Windows(SPAN, mean())
    results = 0
    for key, at, value in made:
        results += len(windows.add(key, at, value))  # nothing is late
    return windows, results


def main() -> None:
    """Measure and print."""
    for name, keys in SHAPES.items():
        made = records(keys)
        spent = []
        for _ in range(ROUNDS):
            begun = time.process_time()
            windows, results = fill(made)
            spent.append(time.process_time() - begun)
        if windows.counts.counted != RECORDS or windows.counts.late:
            sys.exit(f"not every record was counted: {windows.counts}")
        tracemalloc.start()
        windows, _ = fill(made)
        held_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        seconds = statistics.median(spent)
        print(f"windows.pure_rate ({name}): {RECORDS / seconds:.0f} 1/s")
        print(f"windows.results_per_record ({name}): {results / RECORDS:.2f}")
        print(f"windows.bytes_per_key_and_pane ({name}): {held_bytes / windows.held:.0f} bytes ({windows.held} held)")
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
