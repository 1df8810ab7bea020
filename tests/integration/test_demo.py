"""The demo as a user starts it: its verdicts, and that nothing is left of it, however it ends."""

import asyncio
import os
import re
import signal
import socket
import sys
import uuid
from pathlib import Path

import pytest

from monitor.errors import SandboxError
from monitor.sandbox.java import find_java

pytestmark = pytest.mark.integration

MARK = "STREAMGAUGE_TEST_MARK"
STARTED_SECONDS = 300
ENDED_SECONDS = 60


class Demo:
    """A demo in a process of its own; every process it starts inherits its mark."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self._options = options
        self._environment = {**os.environ, "TMPDIR": str(folder), MARK: self.mark, **environment}

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from monitor.cli.main import main; main()", "demo", "--port", "0", *self._options,
            env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def line(self, pattern: str) -> str:
        """Read on until a line matches, and return what its first group matched."""
        assert self.process.stdout is not None
        async with asyncio.timeout(STARTED_SECONDS):
            async for raw in self.process.stdout:
                self.lines.append(raw.decode().rstrip())
                if found := re.search(pattern, self.lines[-1]):
                    return found[1]
        pytest.fail(f"no line matched {pattern}: {self.lines}")

    async def end(self, number: int) -> int:
        """Send a signal, read the rest and return the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(ENDED_SECONDS):
            rest, _ = await self.process.communicate()
        self.lines += rest.decode().splitlines()
        return self.process.returncode or 0

    def processes(self) -> set[int]:
        """Return the processes that carry its mark and have not ended."""
        wanted = f"{MARK}={self.mark}".encode()
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except OSError:  # it ended meanwhile, or is another user's
                continue
        return found

    async def all_gone(self, *ports: int) -> None:
        """Wait until no process is left and nobody listens: of a process that ends, Linux closes the sockets last."""
        async with asyncio.timeout(ENDED_SECONDS):
            while self.processes() or any(is_listened_on(port) for port in ports):
                await asyncio.sleep(0.1)


def is_listened_on(port: int) -> bool:
    """Return whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_check_finds_everything_true(tmp_path: Path) -> None:
    """Exit 0, and a verdict for each kind at each moment; Spark is left out only where there is no Java for it."""
    try:
        find_java(full=True)
        kinds = {"group billing", "group shipping", "group streamgauge-readings", "Spark query readings-average-5m"}
    except SandboxError:
        kinds = {"group billing", "group shipping", "group streamgauge-readings"}
    demo = Demo(tmp_path, "--check")
    await demo.start()
    async with asyncio.timeout(2 * STARTED_SECONDS):
        output, _ = await demo.process.communicate()
    said = output.decode()
    passed = re.findall(r"^ok   (\w+): ((?:group|Spark query) \S+): lag (\d+) = \3 counted", said, re.MULTILINE)

    assert demo.process.returncode == 0, said
    assert {(moment, kind) for moment in ("drained", "backlog", "resumed") for kind in kinds} == {
        (moment, kind) for moment, kind, _ in passed
    }
    assert {("drained", "0"), ("backlog", "400"), ("resumed", "0")} == {(moment, lag) for moment, _, lag in passed}
    assert re.search(
        r"^ok   resumed: worker of group streamgauge-readings: running; .+ late as counted$", said, re.MULTILINE
    )
    assert re.search(
        r"^ok   resumed: worker of group streamgauge-rollups: running; [\d,]+ added, 0 bad, ", said, re.MULTILINE
    )
    await demo.all_gone()
    assert [] == list(tmp_path.iterdir())


async def test_a_demo_that_was_killed_leaves_no_process_and_no_port(tmp_path: Path) -> None:
    """After kill -9 everything it started is gone; a second start works, and a Ctrl-C ends it with 0 and no trace."""
    without_java = {"PATH": str(Path(sys.executable).parent), "JAVA_HOME": ""}
    killed, second = Demo(tmp_path, **without_java), Demo(tmp_path, **without_java)
    await killed.start()
    kafka = int(await killed.line(r"^started  Kafka \S+ 127\.0\.0\.1:(\d+)"))
    page = int(await killed.line(r"^Status page: http://127\.0\.0\.1:(\d+)/"))
    await killed.line(r"^(billing)")
    assert is_listened_on(kafka)
    assert is_listened_on(page)
    assert len(killed.processes()) > 2
    await killed.end(signal.SIGKILL)
    await killed.all_gone(kafka, page)
    left = set(tmp_path.iterdir())

    await second.start()
    await second.line(r"^skipped  (Spark query) readings-average-5m: no Java 17 or later found")
    await second.line(r"^(shipping) is slowed")
    assert 0 == await second.end(signal.SIGINT), second.lines
    await second.all_gone()
    assert left >= set(tmp_path.iterdir())  # Kafka's sandbox removes what killed ones have left
