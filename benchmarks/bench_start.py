"""How soon it answers: the service's first complete /metrics at the shape XL, ``--help``, and one ``lag``."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from xl_kafka import XL, xl_kafka

from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.populate import Shape, populate

ROUNDS = 5
STREAMGAUGE = str(Path(sys.executable).with_name("streamgauge"))
SMALL = Shape(topics=5, partitions=4, groups=10, positions=8)
PORT = 19760


def first_complete_answer(bootstrap: str) -> float:
    """Return the seconds from starting ``serve`` to a complete 200 of /metrics."""
    began = time.perf_counter()
    serving = subprocess.Popen(
        [STREAMGAUGE, "serve", "--bootstrap-servers", bootstrap, "--port", str(PORT)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            body = get("/metrics")
            if body is not None:
                took = time.perf_counter() - began
                found = body.count(b"\nstreamgauge_consumer_lag_records{")
                if found != XL.groups * XL.positions:
                    sys.exit(f"the first 200 has {found} positions")
                return took
            if serving.poll() is not None:
                sys.exit("serve ended")
            time.sleep(0.01)
    finally:
        serving.terminate()
        serving.wait()


def get(path: str) -> bytes | None:
    """Return the body of a 200, None for anything else."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status == http.client.OK else None
    except OSError:
        return None
    finally:
        connection.close()


def command(*args: str) -> tuple[float, str]:
    """Return how long a command takes, and what it prints."""
    began = time.perf_counter()
    done = subprocess.run([STREAMGAUGE, *args], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        sys.exit(f"{args}: {done.stderr}")
    return time.perf_counter() - began, done.stdout


async def main() -> None:
    """Measure and print."""
    helps = [command("--help")[0] for _ in range(ROUNDS)]
    async with KafkaSandbox() as small:
        await populate(small.bootstrap, SMALL)
        lags = []
        for _ in range(ROUNDS):
            took, printed = await asyncio.to_thread(
                command, "lag", "-o", "json", "--bootstrap-servers", small.bootstrap
            )
            lags.append(took)
            if len(json.loads(printed)["clusters"][0]["consumers"]) != SMALL.groups:
                sys.exit("lag did not show every group")
    async with xl_kafka() as kafka:
        starts = [await asyncio.to_thread(first_complete_answer, kafka.bootstrap) for _ in range(ROUNDS)]
    print(f"start.first_complete_answer: {statistics.median(starts):.2f} s")
    print(f"start.help: {statistics.median(helps):.2f} s")
    print(f"start.lag_small: {statistics.median(lags):.2f} s")
    print(f"# load average {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
