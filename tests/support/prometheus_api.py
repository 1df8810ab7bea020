"""A real Prometheus that scrapes a port every second, and its API; and a monitor of which only the answers are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from prometheus_servers import PATIENCE_SECONDS, prometheus

from monitor.publish.http import HttpServer, Published


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session, self.address = session, address

    async def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer that says success."""
        async with self.session.get(f"{self.address}{path}", params=parameters) as answer:
            body = await answer.json()
            assert "success" == body["status"], body
            return body["data"]

    async def query(self, expression: str, at: float | None = None) -> list[Any]:
        """Return an expression's series with their value at a moment, now if none is given."""
        moment = {} if at is None else {"time": at}
        return list((await self.get("/api/v1/query", query=expression, **moment))["result"])

    async def query_range(
        self, expression: str, *, end: float | None = None, seconds: float = 20, step: float = 1
    ) -> list[Any]:
        """Return an expression's series with their values over the seconds up to a moment, now if none is given."""
        end = time.time() if end is None else end
        data = await self.get("/api/v1/query_range", query=expression, start=end - seconds, end=end, step=step)
        return list(data["result"])

    async def rules(self) -> dict[str, Any]:
        """Return every rule by its name."""
        groups = (await self.get("/api/v1/rules"))["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


async def until(question: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until a question is answered with something true, and return that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (answer := await question()):
        assert time.monotonic() < deadline, f"{question} is still {answer!r} after {PATIENCE_SECONDS:g} s"
        await asyncio.sleep(0.2)
    return answer


@asynccontextmanager
async def serving(publish: Callable[[], Published], wait_seconds: Callable[[], float]) -> AsyncIterator[int]:
    """Serve what is published as the service serves it, and publish anew after each wait; gives the port."""
    latest: list[Published] = []

    async def run() -> None:
        while True:
            latest[:] = [await asyncio.to_thread(publish)]
            await asyncio.sleep(max(0.0, wait_seconds()))

    server = HttpServer("127.0.0.1", 0, lambda: latest[0] if latest else None)
    _, port = await server.start()
    running = asyncio.create_task(run())
    try:
        yield port
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


@asynccontextmanager
async def scraping(folder: Path, rules: Mapping[str, str], target: int) -> AsyncIterator[Prometheus]:
    """Run Prometheus on rule files; it scrapes a port of this machine and evaluates the rules every second."""
    for name, text in rules.items():
        (folder / name).write_text(text)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": list(rules),
        "scrape_configs": [{"job_name": "streamgauge", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    with prometheus(folder, config=yaml.safe_dump(config)) as address:
        async with aiohttp.ClientSession() as session:
            yield Prometheus(session, address)
