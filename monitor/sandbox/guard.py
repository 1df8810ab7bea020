"""Run one command as a child in a process group of its own, and end that group when the starter is gone.

Run as a script by ``process.spawn`` with nothing but the standard library, so that it starts in milliseconds.
Its standard input is a pipe that only the starter holds open: each byte that arrives is the number of a signal to
send to the group; its end, however the starter came to it (kill -9 included), is SIGKILL for the group. SIGKILL
also ends processes that are stopped. The process id of the child, or why there is none, goes to standard output.
Signals pass through here because only the parent of a process knows that its id is not somebody else's by now.

On Linux the kernel also kills the child when this guard dies. It counts the death of the *thread* that forked,
which is why the starter, who may have many threads, does not fork the child itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

PARENT_CHECK_SECONDS = 1.0
"""How often to look whether the starter lives: a process it forked may hold the pipe open after its death."""


def main() -> int:
    """Run the command in the arguments; return its exit status, 128 + signal if it was killed."""
    starter = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the starter's to judge
    child = _start(sys.argv[1:])
    try:
        return _watch(child, starter)
    finally:
        _kill_group(child)


def _start(command: list[str]) -> int:
    """Fork and run the command with the log, which is our standard error, as its output; return its id."""
    report, outcome = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _die_with_parent()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            os.execvp(command[0], command)  # noqa: S606 - running a command is what this is for
        except OSError as exc:
            os.write(outcome, f"cannot run {command[0]}: {exc.strerror}".encode())
        finally:
            os._exit(127)
    os.close(outcome)
    with open(report, "rb") as pipe:  # noqa: PTH123 - a descriptor; it closes when the child runs its command
        failure = pipe.read()
    os.write(1, failure + b"\n" if failure else b"%d\n" % child)
    os.close(1)
    return child


def _die_with_parent() -> None:
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # noqa: PLC0415 - for Linux only

    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() == 1:  # the guard died before the call above
        os._exit(127)


def _watch(child: int, starter: int) -> int:
    """Pass signals on until the child ends, the pipe ends or the starter is gone."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # a handler of any kind, so that the wake-up pipe hears of it
    while True:
        readable, _, _ = select.select([0, wake], [], [], PARENT_CHECK_SECONDS)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if os.getppid() != starter:
            return 128 + signal.SIGKILL
        if wake in readable and {signal.SIGTERM, signal.SIGHUP} & set(os.read(wake, 64)):
            return 128 + signal.SIGTERM
        if 0 in readable:
            numbers = os.read(0, 64)
            if not numbers:
                return 128 + signal.SIGKILL
            for asked in numbers:
                _signal_group(child, asked)


def _signal_group(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended between the look and the signal
        os.killpg(child, number)


def _kill_group(child: int) -> None:
    """Kill what is left of the group: processes that the child started and left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only zombies are left
        os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
