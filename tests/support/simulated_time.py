"""Virtual time: an event loop that never waits, and a wall clock that can be set.

Time stands still while anything is ready to run and jumps to the next timer otherwise, so that an hour of waiting
takes as long as what is computed in it. Nothing may wait for the world outside (sockets, threads): it would never come.
"""

from __future__ import annotations

import asyncio
import selectors
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Iterable
from itertools import count
from typing import Any, Generic, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""What the wall clock shows when virtual time begins."""


KEPT_SECONDS = 900.0
"""How far back the truth is kept: longer than anything is looked back for."""


class StuckError(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits would wait for ever."""


class _Selector(selectors.SelectSelector):
    """Passes time instead of waiting for files."""

    def __init__(self, pass_time: Callable[[], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError("every task waits, and no timer would ever wake one")
        if timeout > 0:
            self._pass_time()
        return []


class _Task(asyncio.Task):
    """A task whose hash is its number, so that a set of tasks has the same order in each run."""

    def __init__(self, *args: Any, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop under virtual time. The first exception that nobody takes care of is kept in ``unhandled``."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        super().__init__(_Selector(self._jump))
        self.unhandled: list[dict[str, Any]] = []
        numbers = count()
        self.set_task_factory(lambda loop, coro, **kw: _Task(coro, loop=loop, number=next(numbers), **kw))
        self.set_exception_handler(lambda _loop, context: self.unhandled.append(context))

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._virtual_now

    def _jump(self) -> None:
        self._virtual_now = self._scheduled[0].when()


class Timeline(Generic[T]):
    """A value over time."""

    def __init__(self, at: float, value: T) -> None:
        self._at = [at]
        self._values = [value]

    @property
    def now(self) -> T:
        """Return the latest value."""
        return self._values[-1]

    def put(self, at: float, value: T) -> None:
        """Change the value; forget what nobody looks back for."""
        if value == self._values[-1]:
            return
        self._at.append(at)
        self._values.append(value)
        if len(self._at) > 64 and self._at[32] < at - KEPT_SECONDS:
            del self._at[:32], self._values[:32]

    def during(self, since: float, until: float) -> list[T]:
        """Return every value that it had at some moment from ``since`` to ``until``."""
        first = bisect_right(self._at, since) - 1
        return self._values[max(first, 0) : bisect_right(self._at, until)]


class WallClock:
    """A wall clock that follows virtual time until somebody sets it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offsets: Timeline[float] = Timeline(loop.time(), 0.0)

    @property
    def offset(self) -> float:
        """Return how far it is ahead of the right time."""
        return self.offsets.now

    def jump(self, seconds: float) -> None:
        """Set it ahead, or back."""
        self.offsets.put(self._loop.time(), self.offset + seconds)

    def __call__(self) -> float:
        """Return what it shows, in seconds since the epoch."""
        return EPOCH + self._loop.time() + self.offset


def run_virtually(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a virtual loop of its own, and close that."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(_all_done(pending))
        loop.close()


async def _all_done(tasks: Iterable[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
