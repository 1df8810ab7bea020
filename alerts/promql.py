"""PromQL from the catalogue: expressions are strings, but the names in them are looked up first.

A metric or a label that the catalogue does not have is an error at import, not a rule that is silently never true.
What is written here stays within what Prometheus 2.33 and later, Thanos and Mimir all understand.
"""

from __future__ import annotations

from typing import NamedTuple

from monitor.catalog import BY_NAME

CONSUMER = ("cluster", "kind", "consumer")
"""The labels that name a consumer."""

SOURCE = ("cluster", "source")
"""The labels that name a source of a cluster."""

PARTITION = ("cluster", "topic", "partition")
"""The labels that name a partition."""


class Matcher(NamedTuple):
    """A label matcher: ``Matcher("health", "=", "stopped")``."""

    label: str
    operator: str
    value: str

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.operator}"{escaped}"'


def equals(label: str, value: str) -> Matcher:
    """Match series whose label has exactly this value."""
    return Matcher(label, "=", value)


def matches(label: str, pattern: str) -> Matcher:
    """Match series whose label matches this regular expression as a whole."""
    return Matcher(label, "=~", pattern)


def series(name: str, *matchers: Matcher) -> str:
    """Return a selector of a metric.

    Raises:
        LookupError: the catalogue has no such metric, or the metric no such label.
    """
    metric = BY_NAME.get(name)
    if metric is None:
        msg = f"the catalogue has no metric {name}"
        raise LookupError(msg)
    for matcher in matchers:
        if matcher.label not in metric.labels:
            msg = f"{name} has no label {matcher.label}: it has {', '.join(metric.labels)}"
            raise LookupError(msg)
    return f"{name}{{{','.join(map(str, matchers))}}}" if matchers else name


def differs(label: str, value: str) -> Matcher:
    """Match series whose label has any other value."""
    return Matcher(label, "!=", value)


def last(selector: str, window: str) -> str:
    """Return the newest sample of the window: a gap shorter than the window changes nothing."""
    return f"last_over_time({selector}[{window}])"


def before(selector: str, window: str, ago: str) -> str:
    """Return the newest sample of the window that ended some time ago."""
    return f"last_over_time({selector}[{window}] offset {ago})"


def on(labels: tuple[str, ...]) -> str:
    """Return the labels by which the two sides of an operator are matched."""
    return f"on ({', '.join(labels)})"


def by(operator: str, labels: tuple[str, ...], expression: str) -> str:
    """Aggregate an expression down to some labels: the scrape's own labels (instance, job, pod) go."""
    return f"{operator} by ({', '.join(labels)}) (\n{_indented(expression)}\n)"


def _indented(expression: str) -> str:
    return "\n".join(f"  {line}" for line in expression.splitlines())
