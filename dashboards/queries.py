"""Expressions that boards share, narrowed to what is chosen at the top of a board.

A chart shows the WORST series of the whole range shown, the same ones at every step; a table has them all. Names are
looked up in the catalogue; the few that are not ours (a process's own, and what Prometheus writes itself) are in the
tests' list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alerts.promql import CONSUMER, Matcher, by, differs, equals, matches, series
from alerts.words import LAG_SECONDS, LAG_SECONDS_BOUND, OBJECTIVE_SECONDS
from monitor.catalog import BY_NAME
from monitor.model import Health

WORST = 20
"""Lines on a chart: more cannot be told apart."""

CONSUMER_TOPIC = (*CONSUMER, "topic")
POSITION = (*CONSUMER_TOPIC, "partition")

CONSUMER_STATE = "streamgauge_consumer_state"
CONSUMER_INFO = "streamgauge_consumer_info"
REBALANCING_SECONDS = "streamgauge_consumer_rebalancing_seconds_total"
POSITION_BOUND = "streamgauge_consumer_lag_seconds_bound"
COMMITTED = "streamgauge_consumer_committed_offset"
POSITION_LOST = "streamgauge_consumer_lost_records"
OWNER = "streamgauge_consumer_partition_owner_info"
BATCH_DURATIONS = "streamgauge_spark_batch_duration_seconds"
BATCHES = "streamgauge_spark_batches_total"
REQUESTS = "streamgauge_observe_requests_total"
EXPOSED_SERIES = "streamgauge_exposed_series"

ALERTS = "ALERTS"
"""Prometheus' own series of its alerts, each with the labels of the alert."""

HEALTH_COLORS: Mapping[str, str] = {
    Health.LOSING_DATA: "dark-red",
    Health.LOST: "dark-red",
    Health.STALLED: "red",
    Health.STOPPED: "red",
    Health.BLOCKED: "orange",
    Health.FALLING_BEHIND: "orange",
    Health.REWOUND: "yellow",
    Health.CATCHING_UP: "yellow",
    Health.UNKNOWN: "purple",
    Health.OK: "green",
}
"""Colour is never alone: the name stands beside it."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is chosen at the top of a board: each variable narrows whatever has a label of its name.

    Of ``one`` there is one value at a time: Grafana puts it in as it is. Of ``many`` there are several, and Grafana
    puts in a regular expression. ``kind`` is for a board about consumers of one kind only.
    """

    many: tuple[str, ...] = ()
    one: tuple[str, ...] = ()
    kind: str | None = None

    @property
    def matchers(self) -> tuple[Matcher, ...]:
        """Return how each choice narrows."""
        fixed = [equals("kind", self.kind)] if self.kind else []
        ones = [equals(label, f"${label}") for label in self.one]
        return (*fixed, *ones, *(matches(label, f"${label}") for label in self.many))

    def __call__(self, name: str, *more: Matcher) -> str:
        """Return the selector of a metric's series that are chosen."""
        known = BY_NAME[name].labels
        return series(name, *(each for each in self.matchers if each.label in known), *more)

    def quantile(self, share: float, name: str, labels: tuple[str, ...]) -> str:
        """Return the value that this share of what a histogram counted lies below."""
        buckets = self(name).replace(name, f"{name}_bucket", 1)
        return f"histogram_quantile({share:g}, {by('sum', (*labels, 'le'), f'rate({buckets}[$__rate_interval])')})"

    def rate(self, name: str, *more: Matcher) -> str:
        """Return a counter's growth a second."""
        return f"rate({self(name, *more)}[$__rate_interval])"

    def by_consumer(self, name: str, *more: Matcher) -> str:
        """Return a gauge, one series a consumer whatever other labels it has."""
        return by("max", CONSUMER, self(name, *more))

    def worst(self, name: str, labels: tuple[str, ...] = CONSUMER) -> str:
        """Return a gauge's WORST series of the range shown."""
        return worst(by("max", labels, self(name)), largest(self(name)), labels)

    def busiest(self, name: str, labels: tuple[str, ...]) -> str:
        """Return the growth a second of the WORST series that grew most in the range shown."""
        return worst(by("sum", labels, self.rate(name)), f"increase({self(name)}[$__range] @ end())", labels)

    def since(self, name: str, labels: tuple[str, ...]) -> str:
        """Return how long ago a moment was when it was scraped: how seldom Prometheus scrapes is no part of it."""
        return by("min", labels, f"timestamp({self(name)}) - {self(name)}")

    @property
    def of_objective(self) -> str:
        """Return ages as the share of their objective, series by series."""
        return f"{self(LAG_SECONDS)} / {self(OBJECTIVE_SECONDS)}"

    @property
    def surely_over(self) -> str:
        """Return 1 for a consumer that is over its objective even at the lower end of its age, else 0."""
        return f"{self(LAG_SECONDS)} - {self(LAG_SECONDS_BOUND)} > bool {self(OBJECTIVE_SECONDS)}"

    @property
    def worst_of_objective(self) -> str:
        """Return the ages as shares of their objectives of the WORST consumers of the range shown."""
        return worst(
            by("max", CONSUMER, self.of_objective),
            f"{largest(self(LAG_SECONDS))} / {largest(self(OBJECTIVE_SECONDS))}",
        )


def worst(shown: str, ranked_by: str, labels: tuple[str, ...] = CONSUMER, most: int = WORST) -> str:
    """Keep the series with the largest values over the whole range shown: the same ones at every step."""
    return f"{shown}\nand\ntopk({most}, {by('max', labels, ranked_by)})"


def largest(selector: str) -> str:
    """Return the largest value in the range shown, the same at every step of a chart."""
    return f"max_over_time({selector}[$__range] @ end())"


def alerts(*more: Matcher) -> str:
    """Return the selector of our alerts that fire, as Prometheus' own rules make them."""
    matchers = [matches("alertname", "Streamgauge.+"), equals("alertstate", "firing"), *more]
    return f"{ALERTS}{{{','.join(map(str, matchers))}}}"


NO_WATCHDOG = differs("severity", "none")
"""Leaves out the alert that always fires."""
