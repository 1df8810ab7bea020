"""The stage: starts parts, says of each in one line how that went and how long it took, and ends them all.

A part registers its end *before* it begins to start: whatever interrupts the start, nothing is left running.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from monitor.errors import StreamgaugeError

END_SECONDS = 20.0
"""How long a part may take to end; processes are killed before that."""

_WIDTH = 80


class Stage:
    """What was started, in order, with what went wrong on the way: ``failed`` and ``skipped`` by the part's name.

    ``on_change`` is told the names of the parts that are starting.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.on_change: Callable[[Sequence[str]], None] = lambda names: None
        self._starting: list[str] = []
        self._ends: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def at_end(self, name: str, end: Callable[[], Awaitable[object]]) -> None:
        """Have ``end`` called by ``end_all``; what was registered first ends last."""
        self._ends.append((name, end))

    async def start(self, name: str, start: Callable[[], Awaitable[str]]) -> None:
        """Start a part that everything else needs; ``start`` returns what is worth saying of it.

        Raises:
            StreamgaugeError: it does not start.
        """
        begun = time.monotonic()
        self._starting.append(name)
        self.on_change(self._starting)
        try:
            detail = await start()
        finally:
            self._starting.remove(name)
            self.on_change(self._starting)
        self.say(line("started", f"{name}: {detail}", time.monotonic() - begun))

    async def try_start(self, name: str, start: Callable[[], Awaitable[str]]) -> None:
        """Start a part that the others can do without; why it does not start is said and kept."""
        try:
            await self.start(name, start)
        except StreamgaugeError as exc:
            self.failed[name] = str(exc)
            self.say(line("failed", f"{name}: {exc}"))

    def skip(self, name: str, reason: str) -> None:
        """Say and keep why a part cannot run on this machine."""
        self.skipped[name] = reason
        self.say(line("skipped", f"{name}: {reason}"))

    async def end_all(self) -> None:
        """End every part, all at once but for the first, which ends last; say what does not end well."""
        first, rest = self._ends[:1], self._ends[1:]
        self._ends = []
        await asyncio.gather(*[self._end(*each) for each in rest])
        await asyncio.gather(*[self._end(*each) for each in first])

    async def _end(self, name: str, end: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await end()
        except (StreamgaugeError, OSError, TimeoutError) as exc:
            self.say(line("failed", f"{name}: ending it: {str(exc) or type(exc).__name__}"))


def line(word: str, text: str, seconds: float | None = None) -> str:
    """Return a line about a part: a word, what it is about, and how long it took."""
    took = "" if seconds is None else f"{seconds:6.1f} s"
    return f"{word:<8} {text:<{_WIDTH}}{took}".rstrip()
