"""What an alert rule and a recording rule are, for whichever engine evaluates them.

A rule's texts name labels and numbers in braces: "{consumer} is {value} late, its objective is {objective}". A label is
one of the alert's own, ``value`` is what its expression gave, any other number is read from a metric for the same
labels. How an engine spells that is the renderer's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from string import Formatter

from alerts.promql import Matcher, equals, series


class Severity(StrEnum):
    """Who is to act, and when."""

    CRITICAL = "critical"
    """A person, now."""
    WARNING = "warning"
    """A person, today."""
    INFO = "info"
    """Nobody: it explains other alerts."""
    NONE = "none"
    """Nobody: it says that alerts arrive."""


class Format(StrEnum):
    """How a number is shown in a text."""

    SECONDS = "seconds"
    COUNT = "count"
    RATE = "rate"
    SHARE = "share"


VALUE = "value"
"""The name under which a text shows the value of the alert's own expression."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text: the largest value of ``metric`` for the alert's labels within ``window``.

    ``metric`` None: the value of the alert's own expression. ``since``: the metric is a moment in seconds since the
    epoch, and shown is how long ago it is. ``where`` picks among its series by a label that the alert does not have.
    """

    name: str
    format: Format
    metric: str | None = None
    window: str = "3m"
    since: bool = False
    where: Matcher | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule: what is worth being worked out once a minute, because alerts look back at it over hours.

    Where an engine records nothing, a range of it is the same range of its expression, one look a minute.
    """

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert rule. ``labels`` are the labels its expression ends up with: one alert for each combination.

    ``hold`` is how long the expression must be true before the alert fires, ``keep`` how long it goes on firing after
    the expression has become false (Prometheus: ``for`` and ``keep_firing_for``). ``subject`` is a metric with a series
    for everything that the alert may be about, in alarm or not; None: the alert is about one thing, or about absence.
    """

    name: str
    severity: Severity
    labels: tuple[str, ...]
    expression: str
    hold: str
    summary: str
    description: str
    numbers: tuple[Number, ...] = ()
    keep: str | None = None
    subject: str | None = None

    def __post_init__(self) -> None:
        known = {*self.labels, *(number.name for number in self.numbers)}
        unknown = placeholders(self.description) - known
        if unknown:
            msg = f"the description of {self.name} names {sorted(unknown)}: it may name {sorted(known)}"
            raise LookupError(msg)
        if placeholders(self.summary):
            msg = f"the summary of {self.name} must be the same for all its alerts: no {{names}} in it"
            raise LookupError(msg)
        own = [equals(label, "") for label in self.labels]
        for number in self.numbers:
            if number.metric is not None:
                series(number.metric, *own, *([number.where] if number.where else []))
        if self.subject is not None:
            series(self.subject, *own)

    @property
    def runbook(self) -> str:
        """Return the path of its runbook page in the repository."""
        return f"docs/runbooks/{self.name}.md"


def placeholders(text: str) -> set[str]:
    """Return the names in braces in a text."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}
