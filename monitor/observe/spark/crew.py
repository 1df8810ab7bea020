"""Threads for calls that may hang: each in one thread, never twice at once, and nobody waits for one that hangs.

A thread that hangs in a file system cannot be ended. So these are daemon threads, which keep no process from ending;
while one hangs, its call is not made again, and it counts against the crew's size, so that there are never more.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

STALL_SECONDS = 0.1
"""How long nothing is answered before a further thread is started, where one was thought to be enough."""


class _Run(Generic[T]):
    """The calls of one ``Crew.run``: those left, the answers, and the event that says that all are there."""

    def __init__(self, jobs: Mapping[str, Callable[[], T]]) -> None:
        self.left = deque(jobs.items())
        self.answers: dict[str, T] = {}
        self.fault: BaseException | None = None
        self.open = len(jobs)
        self.is_over = False
        self.done = asyncio.Event()
        self.loop = asyncio.get_running_loop()


class Crew(Generic[T]):
    """Runs calls in at most ``size`` daemon threads, ``at_once`` of them from the beginning."""

    def __init__(self, size: int, at_once: int) -> None:
        self._size = size
        self._at_once = at_once
        self._threads = 0
        self._busy: set[str] = set()
        self._late: dict[str, T] = {}
        self._lock = threading.Lock()

    async def run(self, jobs: Mapping[str, Callable[[], T]], timeout_seconds: float) -> dict[str, T]:
        """Make the calls, and return the answers that came in time, by name.

        A call that still hangs from before is not made; where it has answered meanwhile, that is its answer. What has
        not begun in time is not made. What a call raises is raised here.
        """
        with self._lock:
            late, self._late = self._late, {}
            answers = {name: answer for name, answer in late.items() if name in jobs}
            run = _Run({name: job for name, job in jobs.items() if name not in self._busy and name not in answers})
        if not run.open:
            return answers
        until = run.loop.time() + timeout_seconds
        self._start(run, self._at_once)
        while not run.done.is_set() and (left := until - run.loop.time()) > 0:
            before = len(run.answers)
            try:
                await asyncio.wait_for(run.done.wait(), min(left, STALL_SECONDS))
            except TimeoutError:
                if len(run.answers) == before:
                    self._start(run, 1)
        with self._lock:
            run.is_over = True
            run.left.clear()
        if run.fault is not None:
            raise run.fault
        return answers | run.answers

    def _start(self, run: _Run[T], most: int) -> None:
        for _ in range(min(most, len(run.left))):
            with self._lock:
                if self._threads >= self._size:
                    return
                self._threads += 1
            threading.Thread(target=self._work, args=(run,), daemon=True, name="checkpoints").start()

    def _work(self, run: _Run[T]) -> None:
        try:
            while True:
                with self._lock:
                    if not run.left:
                        return
                    name, job = run.left.popleft()
                    self._busy.add(name)
                self._make(run, name, job)
        finally:
            with self._lock:
                self._threads -= 1

    def _make(self, run: _Run[T], name: str, job: Callable[[], T]) -> None:
        answered: dict[str, T] = {}
        try:
            answered[name] = job()
        except BaseException as exc:  # noqa: BLE001 (it is raised where it is waited for)
            run.fault = exc
        with self._lock:
            self._busy.discard(name)
            answers = self._late if run.is_over else run.answers
            answers.update(answered)
            run.open -= 1
            is_done = (run.open == 0 or run.fault is not None) and not run.is_over
        if is_done:
            run.loop.call_soon_threadsafe(run.done.set)
