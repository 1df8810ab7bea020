"""The ZooKeeper of a Kafka cluster that still runs on one: a process of its own beside the brokers.

It is Apache ZooKeeper from Kafka's own jars, alone, on the loopback, and without its admin server. Whether it serves,
and which brokers it knows, is asked by its four-letter words ``srvr`` and ``dump``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

from monitor.errors import SandboxError
from monitor.sandbox.process import Child, spawn

SESSION_MS = 6000
"""How long a broker that fell silent stays registered; by default 18 s."""

START_SECONDS = 60.0
"""How long it may take until it serves; it takes 1 s on two idle cores."""

_HEAP = "-Xmx128m"
_MAIN = "org.apache.zookeeper.server.ZooKeeperServerMain"
_TICK_MS = 1000
"""Sessions last 2 to 20 ticks."""

_ANSWER_SECONDS = 2.0
_POLL_SECONDS = 0.05


class ZooKeeper:
    """One ZooKeeper. Signals are sent at once; starting and stopping wait.

    Args:
        command: Makes the command that runs a class with Kafka's jars, given its name and arguments.
        folder: For its configuration, log and data.
        host: Address to listen on.
        port: Where to listen.
        telling: Says what a log has to say about a failure.
    """

    def __init__(
        self,
        command: Callable[..., list[str]],
        folder: Path,
        host: str,
        port: int,
        telling: Callable[[Path], str],
    ) -> None:
        self.address = f"{host}:{port}"
        self.log = folder / "zookeeper.log"
        self.data = folder / "data"
        self._host, self._port = host, port
        self._configuration = folder / "zoo.cfg"
        self._command = command
        self._telling = telling
        self._process: Child | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id of its Java, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.running else None

    def kill(self) -> None:
        """End it at once, as kill -9 does; its data stays."""
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP)."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Let it go on after a pause."""
        if self._process is not None:
            self._process.resume()

    async def stop(self) -> None:
        """Shut it down in an orderly way and wait until it is gone."""
        if self._process is not None:
            await self._process.stop()

    async def start(self) -> None:
        """Start it and wait until it serves; does nothing if it runs.

        Raises:
            SandboxError: It ended or did not serve in time; quotes its log.
        """
        if self._process is not None and self._process.running:
            return
        self._configuration.parent.mkdir(exist_ok=True)
        self._configuration.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        self._process = spawn(self._command(_MAIN, str(self._configuration), heap=_HEAP), log=self.log)
        deadline = time.monotonic() + START_SECONDS
        while not (await self._said("srvr")).startswith("Zookeeper version"):
            if self.pid is None:
                raise SandboxError(self.ending())
            if time.monotonic() > deadline:
                msg = (
                    f"{self} did not answer on {self.address} within {START_SECONDS:.0f} s: "
                    f"{self._telling(self.log)} (log: {self.log})"
                )
                raise SandboxError(msg)
            await asyncio.sleep(_POLL_SECONDS)

    async def forgotten(self, broker: int) -> None:
        """Wait until a broker that ended is no longer registered: its successor could not register before."""
        registered = re.compile(rf"^\s*/brokers/ids/{broker}$", re.MULTILINE)
        while registered.search(await self._said("dump")):  # noqa: ASYNC110 - another process's event
            await asyncio.sleep(_POLL_SECONDS)

    def ending(self) -> str:
        """Say that it ended, and what its log says about that."""
        return f"{self} ended: {self._telling(self.log)} (log: {self.log})"

    def _settings(self) -> dict[str, str]:
        return {
            "dataDir": str(self.data),
            "clientPort": str(self._port),
            "clientPortAddress": self._host,
            "tickTime": str(_TICK_MS),
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "srvr,dump",
        }

    async def _said(self, word: str) -> str:
        """Return its answer to a four-letter word, nothing while there is none."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writer.write(word.encode())
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError):
            return ""

    def __str__(self) -> str:
        """Name it for messages."""
        return "ZooKeeper"
