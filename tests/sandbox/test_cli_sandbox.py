"""``streamgauge sandbox kafka`` as a process: it answers, and it ends with those who started it."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.sandbox.kafka import registered
from monitor.sandbox.versions import KAFKA_VERSIONS

COMMAND = [str(Path(sys.executable).with_name("streamgauge")), "sandbox", "kafka"]


class Running:
    """The command, started, with what it said once it answered."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.said = self.process.stdout.readline()
        self.bootstrap = self.said.removeprefix("bootstrap: ").strip()
        self.node = next((line for line in self.process.stderr if line.startswith("node 1: ")), "")
        self.java = int(re.search(r"pid (\d+)", self.node)[1])

    def end(self) -> tuple[int, str]:
        """Wait for its end and return its exit code and the rest of what it said to stderr."""
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error


@pytest.fixture
def running() -> Iterator[Running]:
    """The command, answering; it is killed if the test leaves it."""
    started = Running(COMMAND)
    yield started
    started.process.kill()
    started.end()


def gone(pid: int) -> bool:
    """Wait until a process, anybody's, has ended; say whether it did."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 20)[0])
    finally:
        os.close(handle)


def free(bootstrap: str) -> bool:
    """Say whether the port can be listened on."""
    host, _, port = bootstrap.rpartition(":")
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its closed connections may linger
        try:
            server.bind((host, int(port)))
            server.listen()
        except OSError:
            return False
    return True


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.integration
def test_it_says_where_it_answers_and_ends_on_sigterm(running: Running):
    """The one line on stdout is the address, where a broker answers; SIGTERM ends all with 0."""
    host, _, port = running.bootstrap.rpartition(":")

    assert re.fullmatch(r"bootstrap: 127\.0\.0\.1:\d+\n", running.said)
    assert {1} == asyncio.run(registered(host, int(port)))

    running.process.send_signal(signal.SIGTERM)

    assert (0, "") == running.end()
    assert gone(running.java)
    assert free(running.bootstrap)


@pytest.mark.integration
def test_ctrl_c_is_how_it_is_meant_to_end(running: Running):
    """Ctrl-C after it answered is no failure."""
    running.process.send_signal(signal.SIGINT)

    assert (0, "") == running.end()
    assert gone(running.java)


@pytest.mark.integration
def test_kill_9_leaves_no_java_and_no_port(running: Running):
    """Nothing of it gets to run any more, and still no broker stays, even one that is stopped."""
    os.kill(running.java, signal.SIGSTOP)
    running.process.kill()
    running.end()

    assert gone(running.java)
    assert free(running.bootstrap)


@pytest.mark.integration
def test_it_ends_with_its_parent():
    """A shell that started it is killed: it ends by itself, and so does its broker."""
    shell = Running(["sh", "-c", f"{' '.join(COMMAND)} & echo $! >&2; wait"])
    shell.process.kill()
    shell.process.wait()  # its output ends when the command, which has it as well, has ended

    assert "" == shell.process.stdout.read()
    assert gone(shell.java)
    assert free(shell.bootstrap)

    shell.end()


@pytest.mark.integration
def test_a_broker_that_is_killed_ends_it_with_a_line(running: Running):
    """Without a node left there is nothing to live for: exit code 3 and how the node ended."""
    os.kill(running.java, signal.SIGKILL)
    code, error = running.end()

    assert 3 == code
    assert re.match(r"streamgauge: Kafka \S+ node 1 was ended by SIGKILL: ", error)
    assert 1 == len(error.splitlines())


@pytest.mark.integration
def test_a_taken_port_is_one_line():
    """Exit code 3, what was tried and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert (
            3,
            "",
            f"streamgauge: cannot listen on 127.0.0.1:{port}: Address already in use; choose another port, or none\n",
        ) == run("--port", str(port))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--version", "2.8"], f"use one of {', '.join(KAFKA_VERSIONS)}", id="version"),
        pytest.param(["--nodes", "2"], "'2' is not one of '1', '3'", id="nodes"),
        pytest.param(["--port", "70000"], "70000 is not in the range", id="port"),
        pytest.param(["--port", "65535"], "65535 is no port for 1 nodes", id="no room for the node"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], complaint: str):
    """Exit code 2, before anything is started."""
    code, out, error = run(*arguments)

    assert (2, "", 1) == (code, out, len(error.splitlines()))
    assert complaint in error


def test_help_names_every_version():
    """Who reads the help learns what --version takes."""
    code, out, _ = run("--help")

    assert 0 == code
    assert [] == [version for version in KAFKA_VERSIONS if version not in out]
