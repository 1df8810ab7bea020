"""Whether a worker gets on, judged by what moves and not by what state it says it is in.

Faust's own state says *running* while its brokers are away, while an agent hangs and while a recovery waits for records
that never come. A worker is well as long as it has nothing to do or something moves: records processed, commits,
offsets, records of changelogs still to be read. It is not once it has had something to do for ``patience_seconds`` and
nothing moved. A worker whose event loop stands still does not answer at all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import faust
from faust.exceptions import FaustError

from streamgauge.faust import Reporter


class Seen(NamedTuple):
    """A look at a worker: what it has to do (nothing: empty), and numbers of which one changes when it gets on."""

    to_do: str
    moves: tuple[object, ...]


class Progress:
    """What was seen of a worker, look by look."""

    def __init__(self, patience_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._moves: tuple[object, ...] | None = None
        self._since = clock()
        self._was_busy = False

    def complaint(self, seen: Seen) -> str:
        """Take in a look; return what is wrong, nothing if the worker gets on."""
        now = self._clock()
        if not (seen.to_do and self._was_busy) or seen.moves != self._moves:
            self._moves, self._since = seen.moves, now
        self._was_busy = bool(seen.to_do)
        standing = now - self._since
        return f"{seen.to_do}, and nothing has moved for {standing:.0f} s" if standing > self._patience_seconds else ""


def look(app: faust.App, reporter: Reporter) -> Seen:
    """Look at a running app."""
    report = reporter.report()
    agents, recovery = report["agents"], report["recovery"]
    behind, committed = _behind(app)
    return Seen(
        _to_do(report, sum(each["buffered"] or 0 for each in agents), behind),
        (
            sum(each["events"] + each["decode_errors"] for each in agents),
            report["commits"]["count"],
            committed,
            recovery["remaining"],
            report["rebalances"]["count"],
        ),
    )


def _to_do(report: dict[str, Any], buffered: int, behind: int) -> str:
    """Return the first thing that is to be done."""
    things = (
        (report["state"] == "recovering", f"{report['recovery']['remaining']} records of changelogs are to be read"),
        (report["state"] == "rebalancing", "a rebalance is to end"),
        (report["state"] == "starting", "partitions are to be assigned"),
        (buffered > 0, f"{buffered} records wait for an agent"),
        (report["commits"]["waiting_seconds"] > 0, "processed records wait for a commit"),
        (behind > 0, f"{behind} partitions have records that are not committed"),
    )
    return next((words for is_so, words in things if is_so), "")


def _behind(app: faust.App) -> tuple[int, int]:
    """Return how many of its partitions have more than was committed, as far as was fetched, and the sum of commits."""
    consumer: Any = getattr(app, "_consumer", None)
    behind = total = 0
    if consumer is None or app.rebalancing or app.in_recovery:
        return 0, 0
    with contextlib.suppress(FaustError):  # before the first assignment there is nothing to ask about
        for tp in consumer.assignment():
            committed = consumer._committed_offset.get(tp) or 0  # noqa: SLF001 - it has no public name
            if tp.topic in app.topics.acking_topics:
                total += committed
                behind += (consumer.highwater(tp) or 0) > committed
    return behind, total
