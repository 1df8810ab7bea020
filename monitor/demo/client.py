"""The monitor as anybody sees it: its report and its metrics, fetched over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import aiohttp

from monitor.errors import UnreachableError
from monitor.model import Consumer

ANSWER_SECONDS = 5.0

Report = Mapping[str, Any]
"""The report as JSON: the manual has its shape."""


class MonitorClient:
    """Asks a running monitor at ``url`` (that of the status page, with the slash at the end)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def report(self, *, partitions: bool = True) -> Report | None:
        """Return the latest report, None while there is none yet; without ``partitions`` by consumer alone.

        Raises:
            UnreachableError: it does not answer.
        """
        body = await self._get(f"api/v1/report?partitions={int(partitions)}")
        return None if body is None else await body.json()

    async def metrics(self) -> str | None:
        """Return the text of /metrics, None while there is nothing yet.

        Raises:
            UnreachableError: it does not answer.
        """
        body = await self._get("metrics")
        return None if body is None else await body.text()

    async def _get(self, path: str) -> aiohttp.ClientResponse | None:
        """Return an answer whose body is read already, None for 503."""
        try:
            async with self._session.get(self.url + path) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as exc:
            msg = f"asking {self.url}{path}: {str(exc) or type(exc).__name__}"
            raise UnreachableError(msg) from exc
        if answer.status == NOT_READY:
            return None
        if answer.status != OK:
            msg = f"asking {self.url}{path}: HTTP status {answer.status}"
            raise UnreachableError(msg)
        return answer


OK = 200
NOT_READY = 503


def consumers(report: Report) -> dict[Consumer, Mapping[str, Any]]:
    """Return what a report says of each consumer of all its clusters."""
    return {
        Consumer(each["kind"], each["name"]): each for cluster in report["clusters"] for each in cluster["consumers"]
    }


def seconds(time: str) -> float:
    """Return a time of the report as seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()
