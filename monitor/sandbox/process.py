"""Child processes that end with their parent, whatever ends it.

Every child runs under a guard (``guard.py``) that kills the child's process group when the parent is gone: after
Ctrl-C, SIGTERM, kill -9, and also where the child is stopped (SIGSTOP). Nothing here is bound to an event loop: a
child that was started in one loop can be waited for in another, which is what a session-wide pytest fixture needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from monitor.errors import SandboxError

GRACE_SECONDS = 15.0
"""How long a child may take to end by itself once it was asked to."""

_GUARD = Path(__file__).with_name("guard.py")
_POLL_SECONDS = 0.02


class Child:
    """A running child; ``pid`` is its process and process group id, ``log`` the file that holds its output."""

    def __init__(self, guard: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._guard = guard

    @property
    def returncode(self) -> int | None:
        """Return the exit status, 128 + signal if a signal ended it, None while it runs."""
        status = self._guard.poll()
        if status is not None and status < 0:
            # The guard itself was killed. Linux ends the child with it; elsewhere this does.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return status if status is None or status >= 0 else 128 - status

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self.returncode is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the child's process group; does nothing if it has ended."""
        assert self._guard.stdin is not None  # noqa: S101 - spawn made it a pipe
        with contextlib.suppress(BrokenPipeError, ValueError):  # ended: the guard is gone, or the pipe was closed
            self._guard.stdin.write(bytes([number]))

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP): its sockets stay open and nobody answers."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after a pause."""
        self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL) and return when it is gone."""
        self.send_signal(signal.SIGKILL)
        self._guard.wait()
        self._close()

    async def wait(self) -> int:
        """Wait until it ends and return its exit status (see ``returncode``)."""
        while (status := self.returncode) is None:  # noqa: ASYNC110 - an event would belong to one loop
            await asyncio.sleep(_POLL_SECONDS)
        self._close()
        return status

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Ask it to end (SIGTERM; a paused one goes on for that), kill it if it does not, return its exit status."""
        deadline = time.monotonic() + grace_seconds
        self.send_signal(signal.SIGTERM)
        self.resume()
        try:
            while self.running and time.monotonic() < deadline:  # noqa: ASYNC110 - see wait
                await asyncio.sleep(_POLL_SECONDS)
        finally:  # cancelled as well
            self.kill()
        return await self.wait()

    def _close(self) -> None:
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()


def spawn(command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Child:
    """Start a command under a guard; its output is appended to ``log``, its input is empty.

    Raises:
        SandboxError: It cannot be run.
    """
    with log.open("ab") as output:
        guard = subprocess.Popen(  # noqa: S603 - running what the caller names is what this is for
            [sys.executable, "-I", "-S", str(_GUARD), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            bufsize=0,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C on the terminal is the parent's to judge
        )
    assert guard.stdout is not None  # noqa: S101 - made a pipe above
    answer = guard.stdout.readline().decode().strip()
    child = Child(guard, int(answer) if answer.isdecimal() else 0, log)
    if not child.pid:
        child.kill()
        raise SandboxError(answer or f"cannot run {command[0]}: see {log}")
    return child


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> AsyncIterator[Child]:
    """Run a command for as long as the block lasts; see ``spawn`` and ``Child.stop``.

    Raises:
        SandboxError: It cannot be run.
    """
    process = spawn(command, log=log, env=env, cwd=cwd)
    try:
        yield process
    finally:
        await process.stop(grace_seconds)
