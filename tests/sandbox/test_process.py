"""Children end with their parent, whatever ends it. The kernel is asked whether they are gone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from monitor.errors import SandboxError
from monitor.sandbox.process import child, spawn

SLEEP = ["sh", "-c", "echo $$; exec sleep 600"]

PARENT = """
import os, pathlib, sys, threading, time
from monitor.sandbox.process import spawn

log = pathlib.Path(sys.argv[1])
child = spawn(sys.argv[2:], log=log)
while not log.read_text():
    time.sleep(0.01)
{before}
print(child.pid, flush=True)
time.sleep(600)
"""


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


def said(log: Path, words: str) -> bool:
    """Wait until a log has these words; say whether it came to that."""
    deadline = time.monotonic() + 20
    while words not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    return words in log.read_text()


def parent_of(command: list[str], log: Path, before: str = "") -> tuple[subprocess.Popen[str], int]:
    """Start a Python that starts a child; return it and the child's process id."""
    script = PARENT.format(before=before)
    process = subprocess.Popen([sys.executable, "-c", script, str(log), *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def test_a_child_runs_to_its_end(tmp_path: Path):
    """Its output is in the log and its status is returned."""
    log = tmp_path / "log"
    async with child(["sh", "-c", "echo said; echo complained >&2; exit 7"], log=log) as process:
        status = await process.wait()

    assert 7 == status
    assert "said\ncomplained\n" == log.read_text()


async def test_what_is_asked_for_reaches_the_child(tmp_path: Path):
    """Environment, working directory and an empty input are the child's."""
    log = tmp_path / "log"
    async with child(
        ["/bin/sh", "-c", "cat; pwd; echo $WORD"], log=log, env={"WORD": "given", "PATH": "/bin:/usr/bin"}, cwd=tmp_path
    ) as process:
        await process.wait()

    assert f"{tmp_path}\ngiven\n" == log.read_text()


def test_a_command_that_is_not_there_is_one_line(tmp_path: Path):
    """The error names the command and the reason."""
    with pytest.raises(SandboxError, match=r"^cannot run /no/such/program: No such file or directory$"):
        spawn(["/no/such/program"], log=tmp_path / "log")


async def test_the_end_of_the_block_ends_the_child(tmp_path: Path):
    """SIGTERM is enough for a child that heeds it."""
    async with child(SLEEP, log=tmp_path / "log") as process:
        assert process.running

    assert 128 + signal.SIGTERM == process.returncode
    assert gone(process.pid)


async def test_a_child_that_heeds_nothing_is_killed(tmp_path: Path):
    """After the grace, SIGKILL; the shell in between and what it started are both gone."""
    log = tmp_path / "log"
    process = spawn(["sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait"], log=log)
    said(log, "\n")
    status = await process.stop(grace_seconds=0.1)

    assert 128 + signal.SIGKILL == status
    assert gone(int(log.read_text()))


async def test_a_paused_child_can_be_stopped_in_an_orderly_way(tmp_path: Path):
    """A stopped process acts on SIGTERM once it goes on, so it is let go on."""
    process = spawn(["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"], log=tmp_path / "log")
    said(tmp_path / "log", "ready")
    process.pause()
    status = await process.stop()

    assert 5 == status


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path):
    """A child belongs to the process, not to the thread: Linux alone would end it with the thread."""
    log, started = tmp_path / "log", []
    command = ["sh", "-c", "trap 'echo alive' USR1; echo ready; while :; do sleep 0.01; done"]
    thread = threading.Thread(target=lambda: started.append(spawn(command, log=log)))
    thread.start()
    thread.join()
    [process] = started
    said(log, "ready")
    process.send_signal(signal.SIGUSR1)
    heard = said(log, "alive")
    process.kill()

    assert heard


def test_signals_to_a_child_that_has_ended_go_nowhere(tmp_path: Path):
    """Nobody else can get them: they pass through the child's own parent."""
    process = spawn(["true"], log=tmp_path / "log")
    process.kill()
    process.pause()
    process.kill()

    assert process.returncode in {0, 128 + signal.SIGKILL}


@pytest.mark.parametrize(
    ("number", "before"),
    [
        pytest.param(signal.SIGKILL, "", id="kill -9"),
        pytest.param(signal.SIGTERM, "", id="SIGTERM nobody handles"),
        pytest.param(signal.SIGINT, "", id="Ctrl-C"),
        pytest.param(signal.SIGKILL, "child.pause()", id="kill -9 while the child is paused"),
        pytest.param(
            signal.SIGKILL,
            "t = threading.Thread(target=lambda: None); t.start(); t.join()",
            id="kill -9 of a parent with threads that ended",
        ),
    ],
)
def test_a_child_ends_with_its_parent(tmp_path: Path, number: signal.Signals, before: str):
    """However the parent ends, the child and what the child started end as well."""
    parent, pid = parent_of(["sh", "-c", "sleep 600 & echo $!; wait"], tmp_path / "log", before)
    parent.send_signal(number)
    end(parent)

    assert gone(pid)
    assert gone(int((tmp_path / "log").read_text().split("\n")[0]))


def test_a_fork_that_outlives_the_parent_does_not_keep_the_child(tmp_path: Path):
    """A forked process holds the pipe to the guard open; the guard sees that its own parent is gone."""
    fork = "\nif os.fork() == 0:\n    os.close(1)\n    time.sleep(600)\n"
    parent, pid = parent_of(SLEEP, tmp_path / "log", f"print(os.getpid(), flush=True){fork}")
    assert parent.stdout is not None
    child_pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    end(parent)

    assert pid == parent.pid
    assert gone(child_pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with the thread that forked it")
def test_a_child_ends_with_its_guard(tmp_path: Path):
    """Even where the guard alone is killed, the child does not stay."""
    process = spawn(SLEEP, log=tmp_path / "log")
    guard = int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(guard, signal.SIGKILL)

    assert gone(process.pid)
    assert not process.running
    process.kill()
