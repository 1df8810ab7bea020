"""``streamgauge doctor``: what a person at three in the morning would check, in that order, and what it means.

A check is data: a name, what it needs, and a coroutine that returns lines (verdict, what, seen, what to do). The
runner starts them all; each waits for what it needs, is skipped if none of that went well, and is bounded in time.
So independent checks run although another failed, and nothing hangs. Requests only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from monitor.errors import TransportError

CONFIGURATION = "configuration"
CLUSTER = "cluster"

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_UNREACHABLE = 3


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing a check found: what was looked at, what was seen, and what to do about it (empty for nothing)."""

    verdict: Verdict
    what: str
    seen: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A line of a check of a cluster; ``cluster`` is empty for what is about all of them."""

    cluster: str
    check: str
    line: Line


@dataclass(frozen=True, slots=True)
class Check:
    """A check: it runs when those it ``needs`` have run and something of each went well.

    ``steps`` is how many requests it makes in a row, each of which may take the timeout.
    """

    name: str
    run: Callable[[], Awaitable[Sequence[Line]]]
    needs: tuple[str, ...] = ()
    steps: int = 1


def ok(what: str, seen: str) -> Line:
    """Return the line of something that is fine."""
    return Line(Verdict.OK, what, seen)


def warning(what: str, seen: str, advice: str) -> Line:
    """Return the line of something that is not wrong, and may become so."""
    return Line(Verdict.WARNING, what, seen, advice)


def failed(what: str, seen: str, advice: str) -> Line:
    """Return the line of something that makes numbers incomplete, or stops them."""
    return Line(Verdict.FAILED, what, seen, advice)


def skipped(what: str, seen: str, advice: str = "") -> Line:
    """Return the line of something that could not be looked at, and why."""
    return Line(Verdict.SKIPPED, what, seen, advice)


def went_well(lines: Iterable[Line]) -> bool:
    """Return whether there is something to go on with: not all of it failed or was skipped."""
    return any(line.verdict in {Verdict.OK, Verdict.WARNING} for line in lines)


async def run_checks(checks: Sequence[Check], timeout_seconds: float) -> list[tuple[str, Line]]:
    """Run checks and return each one's lines under its name, in the order of the checks.

    What a check needs stands before it; what is needed and not there is taken for fine.
    """
    tasks: dict[str, asyncio.Task[Sequence[Line]]] = {}
    async with asyncio.TaskGroup() as group:
        for check in checks:
            before = {name: tasks[name] for name in check.needs if name in tasks}
            tasks[check.name] = group.create_task(_run(check, before, timeout_seconds))
    return [(name, line) for name, task in tasks.items() for line in task.result()]


async def _run(
    check: Check, before: Mapping[str, asyncio.Task[Sequence[Line]]], timeout_seconds: float
) -> Sequence[Line]:
    for name, task in before.items():
        lines = await task
        if not went_well(lines):
            return [skipped(check.name, why_skipped(name, lines))]
    # Each step has its own limit, whose text says more; this one makes sure.
    seconds = timeout_seconds * check.steps + 1
    try:
        async with asyncio.timeout(seconds):
            return await check.run()
    except TimeoutError:
        return [failed(check.name, f"not finished within {seconds:g} s", "run it again; --debug shows what is logged")]
    except TransportError as exc:
        return [failed(check.name, str(exc), "see what failed above")]


def why_skipped(name: str, lines: Sequence[Line]) -> str:
    """Say why what needs a check is skipped: the check failed, or it was skipped itself, for its reason."""
    if any(line.verdict is Verdict.FAILED for line in lines):
        return f"not looked at: {name} failed"
    return lines[0].seen


def softened(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of a check of things of which one is enough: a failure is a warning beside one that is fine."""
    if not went_well(lines):
        return list(lines)
    return [replace(line, verdict=Verdict.WARNING) if line.verdict is Verdict.FAILED else line for line in lines]


def exit_code(results: Sequence[Result], *, strict: bool = False) -> int:
    """Return the exit code: 2 configuration, 3 no cluster answers at all, 1 numbers are incomplete, 0 fine."""
    bad = {Verdict.FAILED, Verdict.WARNING} if strict else {Verdict.FAILED}
    if any(each.check == CONFIGURATION and each.line.verdict is Verdict.FAILED for each in results):
        return EXIT_CONFIGURATION
    if not any(each.check == CLUSTER and went_well([each.line]) for each in results):
        return EXIT_UNREACHABLE
    return EXIT_FAILED if any(each.line.verdict in bad for each in results) else 0


def some(names: Iterable[object], most: int = 5) -> str:
    """Write a list of names, and of a long one how many more there are."""
    listed = [str(name) for name in names]
    shown = ", ".join(listed[:most])
    return shown if len(listed) <= most else f"{shown} and {len(listed) - most} more"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 group``, ``2 groups``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
