"""The overview: is anything late, what, since when, and does the monitor itself see everything?

From the symptom (over objective) to what is behind it (records, rates, batches), and last the monitor, which says
how far all of it can be trusted. Charts show the worst of the range shown, so that a cluster with thousands of
consumers stays readable; the table has them all.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, SOURCE, Matcher, by, matches, series
from dashboards.board import Annotation, Board, Row, Variable
from dashboards.panels import (
    GOOD_IS_ZERO,
    OF_OBJECTIVE,
    RATIO,
    Column,
    Override,
    Query,
    Step,
    lines,
    stat,
    table,
    thresholds,
    unit_of,
)
from monitor.catalog import BY_NAME
from monitor.model import Health

WORST = 20
"""Lines on a chart: more cannot be told apart."""

LAG_SECONDS = "streamgauge_consumer_max_lag_seconds"
LAG_SECONDS_BOUND = "streamgauge_consumer_max_lag_seconds_bound"
OBJECTIVE_SECONDS = "streamgauge_consumer_objective_seconds"
KNOWN_LAG_RECORDS = "streamgauge_consumer_known_lag_records"
LAG_RECORDS = "streamgauge_consumer_sum_lag_records"
LOST_RECORDS = "streamgauge_consumer_sum_lost_records"
READ_RECORDS = "streamgauge_consumer_records_total"
WRITTEN_RECORDS = "streamgauge_topic_records_total"
MEMBERS = "streamgauge_consumer_members"
HEALTH = "streamgauge_consumer_health"
CLUSTER_UP = "streamgauge_cluster_up"
BATCH_SECONDS = "streamgauge_spark_last_batch_duration_seconds"
TRIGGER_SECONDS = "streamgauge_spark_trigger_interval_seconds"
INFLIGHT_SECONDS = "streamgauge_spark_inflight_batch_age_seconds"
LAST_COMMIT = "streamgauge_spark_last_commit_timestamp_seconds"
INPUT_ROWS = "streamgauge_spark_input_rows_total"
OBSERVE_SECONDS = "streamgauge_observe_duration_seconds"
OBSERVE_FAILURES = "streamgauge_observe_failures_total"
LAST_SUCCESS = "streamgauge_observe_last_success_timestamp_seconds"
EXPOSED_SERIES = "streamgauge_exposed_series"
DROPPED_SERIES = "streamgauge_dropped_series"

HEALTH_COLORS = {
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


def _chosen(name: str, *more: Matcher) -> str:
    """Select the series of what is chosen at the top of the board."""
    labels = BY_NAME[name].labels
    chosen = [matches(label, f"${label}") for label in CONSUMER if label in labels]
    return series(name, *chosen, *more)


def _of_consumers(expression: str, operator: str = "max") -> str:
    return by(operator, CONSUMER, expression)


def _worst(shown: str, ranked_by: str, labels: tuple[str, ...] = CONSUMER) -> str:
    """Keep the WORST series by a value over the whole range shown: the same ones at every step."""
    return f"{shown}\nand\ntopk({WORST}, {by('max', labels, ranked_by)})"


def _largest(selector: str) -> str:
    """Return the largest value in the range shown, the same at every step of a chart."""
    return f"max_over_time({selector}[$__range] @ end())"


def _worst_gauge(name: str) -> str:
    return _worst(_of_consumers(_chosen(name)), _largest(_chosen(name)))


def _rate(name: str) -> str:
    return f"rate({_chosen(name)}[$__rate_interval])"


def _worst_rate(name: str, labels: tuple[str, ...]) -> str:
    return _worst(by("sum", labels, _rate(name)), f"increase({_chosen(name)}[$__range] @ end())", labels)


_age, _bound, _objective = _chosen(LAG_SECONDS), _chosen(LAG_SECONDS_BOUND), _chosen(OBJECTIVE_SECONDS)
_of_objective = f"{_age} / {_objective}"
_stopped = _chosen(HEALTH, Matcher("health", "=", Health.STOPPED))

VARIABLES = (
    Variable("cluster", "Cluster", f"label_values({series(CLUSTER_UP)}, cluster)"),
    Variable("kind", "Kind", f"label_values({series(OBJECTIVE_SECONDS, matches('cluster', '$cluster'))}, kind)"),
    Variable(
        "consumer",
        "Consumer",
        "label_values("
        f"{series(OBJECTIVE_SECONDS, matches('cluster', '$cluster'), matches('kind', '$kind'))}, consumer)",
    ),
)

ALERTS = Annotation(
    "Alerts",
    'ALERTS{alertname=~"Streamgauge.+",alertstate="firing"}',
    "{{alertname}}",
    "{{cluster}} {{consumer}}",
    "red",
)

NOW = Row(
    "Is anything late?",
    (
        stat(
            "Clusters",
            "Whether the last look at each source of a cluster was complete. Incomplete: somebody who had to be "
            "asked is away, and what could not be read is unknown.",
            Query(by("max", SOURCE, _chosen(CLUSTER_UP)), "{{cluster}} {{source}}"),
            unit=unit_of(CLUSTER_UP),
            width=6,
            steps=(Step(None, "red"), Step(1, "green")),
            texts={"1": "complete", "0": "incomplete"},
            named=True,
        ),
        stat(
            "Over objective",
            "Consumers that are surely later than they are allowed: the age less its bound is above the objective.",
            Query(f"sum(\n{_of_consumers(f'{_age} - {_bound} > bool {_objective}')}\n)"),
            unit="short",
            width=4,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Stopped",
            "Consumer groups that nobody reads for although records wait.",
            Query(f"sum(\n{_of_consumers(_stopped)}\n)"),
            unit="short",
            width=4,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Age unknown",
            "Consumers whose age is not known right now: a partition could not be read, nothing is committed yet, or "
            "a record's time has not been found yet. They may be late.",
            Query(f"count(\n{_of_consumers(_objective)}\nunless\n{_of_consumers(_age)}\n) or 0 * count({_age})"),
            unit="short",
            width=4,
            steps=(Step(None, "green"), Step(1, "purple")),
        ),
        stat(
            "Worst age of objective",
            "The share of its objective that the latest consumer has used up: above 100 % it is late.",
            Query(f"max({_of_objective})"),
            unit=RATIO,
            width=6,
            steps=OF_OBJECTIVE,
        ),
    ),
)

CONSUMERS = Row(
    "Consumers",
    (
        table(
            "Consumers by age",
            "Every consumer, the latest first. An empty cell is a value that is not known right now. The true age "
            "lies within the age plus or minus the bound.",
            Column("Health", by("max", (*CONSUMER, "health"), f"{_chosen(HEALTH)} == 1"), label="health"),
            Column(
                "Age of objective",
                _of_consumers(_of_objective),
                RATIO,
                0,
                shown={
                    "min": 0,
                    "max": 1,
                    "thresholds": thresholds(OF_OBJECTIVE),
                    "custom.displayMode": "gradient-gauge",
                },
            ),
            Column("Age", _of_consumers(_age), unit_of(LAG_SECONDS)),
            Column("Bound", _of_consumers(_bound), unit_of(LAG_SECONDS_BOUND)),
            Column("Objective", _of_consumers(_objective), unit_of(OBJECTIVE_SECONDS)),
            Column("Lag, records", _of_consumers(_chosen(LAG_RECORDS)), unit_of(LAG_RECORDS)),
            Column("At least, records", _of_consumers(_chosen(KNOWN_LAG_RECORDS)), unit_of(KNOWN_LAG_RECORDS)),
            Column("Read, records/s", _of_consumers(_rate(READ_RECORDS), "sum"), unit_of(READ_RECORDS), 1),
            Column("Members", _of_consumers(_chosen(MEMBERS)), unit_of(MEMBERS)),
            Column(
                "Lost, records",
                _of_consumers(_chosen(LOST_RECORDS)),
                unit_of(LOST_RECORDS),
                shown={"thresholds": thresholds(GOOD_IS_ZERO), "custom.displayMode": "color-text"},
            ),
            keys={"cluster": "Cluster", "kind": "Kind", "consumer": "Consumer"},
            sort_by="Age of objective",
            height=11,
        ),
        lines(
            "Age of objective over time",
            f"How much of its objective each of the {WORST} latest consumers has used up: one scale for all of them.",
            Query(
                _worst(_of_consumers(_of_objective), f"{_largest(_age)} / {_largest(_objective)}"),
                "{{consumer}}",
            ),
            unit=RATIO,
            steps=OF_OBJECTIVE,
        ),
        lines(
            "Consumers by health",
            "How many consumers are in each health. Unknown: could not be judged, so it may be anything.",
            Query(by("sum", ("health",), by("max", (*CONSUMER, "health"), _chosen(HEALTH))) + " > 0", "{{health}}"),
            unit="short",
            stacked=True,
            overrides=tuple(
                Override("byName", health, {"color": {"mode": "fixed", "fixedColor": color}})
                for health, color in HEALTH_COLORS.items()
            ),
        ),
        lines(
            "Lag in seconds",
            f"Age of the oldest record still to be read, the {WORST} largest. A gap: not known at that time.",
            Query(_worst_gauge(LAG_SECONDS), "{{consumer}}"),
            unit=unit_of(LAG_SECONDS),
        ),
        lines(
            "Lag in records",
            f"Records still to be read, the {WORST} largest: at least, where a partition was unknown at that time.",
            Query(_worst_gauge(KNOWN_LAG_RECORDS), "{{consumer}}"),
            unit=unit_of(KNOWN_LAG_RECORDS),
            axis="records",
        ),
    ),
)

THROUGHPUT = Row(
    "Throughput",
    (
        lines(
            "Produced",
            f"Records written a second, the {WORST} busiest topics, by their log ends.",
            Query(_worst_rate(WRITTEN_RECORDS, ("cluster", "topic")), "{{topic}}"),
            unit=unit_of(WRITTEN_RECORDS),
            axis="records/s",
        ),
        lines(
            "Read",
            f"Records read a second, the {WORST} busiest consumers, by their committed offsets.",
            Query(_worst_rate(READ_RECORDS, CONSUMER), "{{consumer}}"),
            unit=unit_of(READ_RECORDS),
            axis="records/s",
        ),
    ),
)

_DASHED = {"custom.lineStyle": {"fill": "dash", "dash": [8, 8]}, "custom.lineWidth": 2}

SPARK = Row(
    "Spark",
    (
        lines(
            "Batch duration and trigger interval",
            "How long the last committed micro-batch took, how long the one in flight has been running, and the "
            "trigger interval (dashed). Above the dashed line the query cannot keep its rhythm.",
            Query(_worst_gauge(BATCH_SECONDS), "{{consumer}}"),
            Query(_worst_gauge(INFLIGHT_SECONDS), "{{consumer}} in flight"),
            Query(_of_consumers(_chosen(TRIGGER_SECONDS)), "{{consumer}} trigger"),
            unit=unit_of(BATCH_SECONDS),
            overrides=(Override("byRegexp", "/ trigger$/", _DASHED),),
        ),
        lines(
            "Since the last commit",
            f"Time since a query last committed a micro-batch, the {WORST} longest. It falls with each batch; "
            "a line that only rises is a query that is stuck or gone.",
            Query(
                _worst(
                    f"time() - {_of_consumers(_chosen(LAST_COMMIT))}",
                    f"time() - {_largest(_chosen(LAST_COMMIT))}",
                ),
                "{{consumer}}",
            ),
            unit=unit_of(LAST_COMMIT),
        ),
        lines(
            "Read by Spark",
            f"Records in the offset ranges of committed micro-batches a second, the {WORST} busiest queries.",
            Query(_worst_rate(INPUT_ROWS, CONSUMER), "{{consumer}}"),
            unit=unit_of(INPUT_ROWS),
            width=24,
            axis="records/s",
        ),
    ),
)

MONITOR = Row(
    "Monitor",
    (
        lines(
            "Duration of a look",
            "How long the last look at each source took. Longer than the interval: cycles start late.",
            Query(by("max", SOURCE, _chosen(OBSERVE_SECONDS)), "{{cluster}} {{source}}"),
            unit=unit_of(OBSERVE_SECONDS),
        ),
        lines(
            "Since the last complete look",
            "Time since everybody who had to be asked answered. Numbers cannot be younger than that.",
            Query(f"time() - {by('max', SOURCE, _chosen(LAST_SUCCESS))}", "{{cluster}} {{source}}"),
            unit=unit_of(LAST_SUCCESS),
        ),
        lines(
            "Failed reads",
            "Reads that failed a second, by what they were about. What failed is unknown, never zero.",
            Query(by("sum", (*SOURCE, "scope"), _rate(OBSERVE_FAILURES)), "{{cluster}} {{source}} {{scope}}"),
            unit=unit_of(OBSERVE_FAILURES),
            axis="failures/s",
        ),
        lines(
            "Series",
            "Series in an answer of /metrics, and those left out because their cluster has more positions than the "
            "settings allow.",
            Query(f"max({series(EXPOSED_SERIES)})", "exposed"),
            Query(f"max({series(DROPPED_SERIES)})", "dropped"),
            unit=unit_of(EXPOSED_SERIES),
        ),
    ),
)

OVERVIEW = Board(
    "streamgauge-overview",
    "Streaming overview",
    "How late is every reader of every Kafka cluster, and how far can that be trusted?",
    VARIABLES,
    (ALERTS,),
    (NOW, CONSUMERS, THROUGHPUT, SPARK, MONITOR),
)
