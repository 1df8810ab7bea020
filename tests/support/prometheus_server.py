"""A real Prometheus for tests: started on a free port, asked by its API, and ended with the test."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

PATIENCE_SECONDS = 60.0


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self.session, self.address = session, f"http://127.0.0.1:{port}"

    async def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer that says success."""
        async with self.session.get(f"{self.address}{path}", params=parameters) as answer:
            body = await answer.json()
            assert "success" == body["status"], body
            return body["data"]

    async def is_ready(self) -> bool:
        try:
            async with self.session.get(f"{self.address}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@asynccontextmanager
async def prometheus_server(
    folder: Path, rules: Mapping[str, str], target: int | None = None
) -> AsyncIterator[Prometheus]:
    """Run Prometheus on rule files and on the data in a folder, scraping a port every second if one is given."""
    for name, text in rules.items():
        (folder / name).write_text(text)
    targets = [] if target is None else [f"127.0.0.1:{target}"]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": list(rules),
        "scrape_configs": [{"job_name": "streamgauge", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession() as session:
            server = Prometheus(session, port)
            await until(lambda: _unless_it_died(process, folder / "log", server))
            yield server
    finally:
        process.terminate()
        process.wait(20)


async def _unless_it_died(process: subprocess.Popen[bytes], log: Path, server: Prometheus) -> bool:
    """Return whether it is ready, and fail with Prometheus' own words if it has ended."""
    assert process.poll() is None, log.read_text()[-2000:]
    return await server.is_ready()
