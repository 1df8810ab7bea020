"""When a rule would have fired, from the moments at which its expression was true: as Prometheus does, but afterwards.

An alert is pending while its expression is true, and fires once it has been for ``hold``; one evaluation that is not
true starts the wait anew. A firing alert that is no longer true is kept for ``keep``, counted from the first evaluation
at which it was not, and goes on as if nothing had been when it is true again before that is over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from alerts.rule import Rule

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_DURATION = re.compile(r"(\d+)([smhdw])")


def whole_seconds(duration: str) -> int | None:
    """Return the seconds of a duration such as ``90s``, ``5m`` or ``7d``, None where it is none."""
    match = _DURATION.fullmatch(duration)
    return int(match[1]) * _SECONDS[match[2]] if match else None


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert from its beginning to its end, in whole seconds since the epoch.

    ``end`` is None where it was still firing at the last evaluation. ``worst`` is the largest value that its expression
    had while it fired.
    """

    rule: Rule
    labels: Mapping[str, str]
    begin: int
    end: int | None
    worst: float

    @property
    def key(self) -> tuple[str, ...]:
        """Return what tells this alert from another: its name and its labels."""
        return (self.rule.name, *(self.labels.get(label, "") for label in self.rule.labels))

    def seconds_until(self, last: int) -> int:
        """Return how long it fired, up to the last evaluation where it has no end."""
        return (last if self.end is None else self.end) - self.begin


def firings(rule: Rule, labels: Mapping[str, str], values: Mapping[int, float], step: int, last: int) -> list[Firing]:
    """Return when one alert of a rule would have fired.

    ``values`` are those of the expression at the evaluations at which it was true; evaluated is every ``step`` seconds
    up to ``last``.
    """
    hold, keep = whole_seconds(rule.hold), whole_seconds(rule.keep or "0s")
    assert hold is not None and keep is not None, rule.name  # noqa: PT018, S101 (a rule of ours has durations)
    return [
        Firing(
            rule, labels, begin, end, max(values[at] for at in values if begin <= at <= (last if end is None else end))
        )
        for begin, end in episodes(sorted(values), hold, keep, step, last)
    ]


def episodes(true_at: Iterable[int], hold: int, keep: int, step: int, last: int) -> Iterator[tuple[int, int | None]]:
    """Yield beginning and end of each time an alert fires; the end is None where it has none up to ``last``.

    ``true_at`` are the evaluations at which it was true, in order.
    """
    begin: int | None = None
    since = previous = None
    for at in true_at:
        if previous is not None and begin is not None and at > (end := _end(previous, keep, step)):
            yield begin, end
            begin = None
        if begin is None and (previous is None or at - previous > step):
            since = at
        if begin is None and since is not None and at - since >= hold:
            begin = at
        previous = at
    if begin is not None and previous is not None:
        end = _end(previous, keep, step)
        yield begin, end if end <= last else None


def _end(previous: int, keep: int, step: int) -> int:
    """Return the evaluation at which an alert ends that was true for the last time at ``previous``."""
    return previous + step + -(-keep // step) * step
