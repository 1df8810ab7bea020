"""The monitor as a process of its own, one cycle at a time, for whoever lets brokers fail in the middle of one.

It is the service as it ships, with two differences: a cycle runs when a line on stdin says so, and its transport
stops at a given request until it is told to go on. Lines are JSON, both ways:

    argument  the settings
    -> stdout {"address": "http://127.0.0.1:NNN/"}
    <- stdin  {"strike": {"api": 9, "nth": 1, "when": "before", "port": null}, "measure": false}
    -> stdout {"struck": true}      the n-th request of that API is about to be sent, or its answer has arrived
    <- stdin  {}                    go on
    -> stdout {"done": true, "seconds": 0.2, "requests": {"9": 3}, "measured": {...}}
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.observe.kafka.source import KafkaSource
from monitor.observe.kafka.transport import Address, KafkaTransport, Request, Versions
from monitor.service import Monitor, Publisher
from monitor.settings import Settings


@dataclass(frozen=True)
class Strike:
    """Where in a cycle to stop: at the n-th request of an API, of those to one port only if a port is given."""

    api: int
    nth: int
    when: str
    port: int | None = None

    def is_at(self, moment: str, address: Address, request: Request) -> bool:
        return (self.when, self.api) == (moment, request.api_key) and self.port in {None, address.port}


class StoppingTransport:
    """A transport that calls back at one moment of a cycle, and is otherwise the one behind it."""

    def __init__(self, behind: KafkaTransport, struck: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.strike: Strike | None = None
        self.requests: Counter[int] = Counter()
        self._behind = behind
        self._struck = struck
        self._left = 0
        self._stop: asyncio.Task[None] | None = None

    def arm(self, strike: Strike | None) -> None:
        """Begin a cycle."""
        self.strike, self._left = strike, 0 if strike is None else strike.nth
        self.requests.clear()

    async def disarm(self) -> None:
        """End a cycle: wait for the word to go on, if that is still to come, and stop nowhere else."""
        self.strike = None
        if self._stop is not None:
            await self._stop
            self._stop = None

    async def versions(self, address: Address) -> Versions:
        return await self._behind.versions(address)

    async def send(self, address: Address, request: Request) -> bytes:
        self.requests[request.api_key] += 1
        await self._at("before", address, request)
        answer = await self._behind.send(address, request)
        await self._at("after", address, request)
        return answer

    def drop(self, address: Address) -> None:
        self._behind.drop(address)

    async def close(self) -> None:
        await self._behind.close()

    async def _at(self, moment: str, address: Address, request: Request) -> None:
        if self.strike is not None and self.strike.is_at(moment, address, request):
            self._left -= 1
            if self._left == 0:
                self.strike = None
                # The monitor gives a request up after a while; the other side goes on to answer all the same.
                self._stop = asyncio.create_task(self._struck())
                await asyncio.shield(self._stop)


def measured(monitor: Monitor) -> dict[str, int]:
    """Return what may not grow: memory, tasks, files and sockets, threads, rows."""
    gc.collect()
    proc = Path("/proc/self")
    pages = int((proc / "statm").read_text().split()[1])
    kinds = Counter(map(_kind, (proc / "fd").iterdir()))
    report = monitor.clusters[0].report
    return {
        "rss_kb": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "tasks": len(asyncio.all_tasks()),
        "sockets": kinds["socket"],
        "files": kinds.total(),
        "threads": len(list((proc / "task").iterdir())),
        "objects": len(gc.get_objects()),
        "positions": 0 if report is None else len(report.positions.layout),
        "partitions": 0 if report is None else len(report.partitions.layout),
    }


def _kind(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink()).partition(":")[0]
    except FileNotFoundError:  # the descriptor of the listing itself
        return "gone"


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


async def main(settings: Settings) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)

    async def struck() -> None:
        say({"struck": True})
        await lines.readline()

    monitor = Monitor(settings)
    (cluster,) = monitor.clusters
    transport = StoppingTransport(KafkaTransport(settings.clusters[0]), struck)
    cluster.kafka = KafkaSource(settings.clusters[0], transport=transport)
    publisher = Publisher(monitor)
    say({"address": await publisher.start()})
    try:
        while line := await lines.readline():
            order = json.loads(line)
            transport.arm(Strike(**order["strike"]) if order["strike"] else None)
            began = time.monotonic()
            await cluster.cycle()
            await transport.disarm()
            cluster.tried = True
            await publisher.publish()
            done = {"done": True, "seconds": time.monotonic() - began, "requests": dict(transport.requests)}
            say(done | ({"measured": measured(monitor)} if order["measure"] else {}))
    finally:
        await publisher.stop()
        await monitor.close()


if __name__ == "__main__":
    asyncio.run(main(Settings.model_validate_json(sys.argv[1])))
