"""What boards have in common around their panels: choices at the top, marks on the charts, ways to one another."""

from __future__ import annotations

from alerts.promql import Matcher, equals, matches, series
from alerts.words import CLUSTER_UP, FINDINGS, OBJECTIVE_SECONDS, REBALANCES
from dashboards.board import Annotation, Variable
from dashboards.panels import Link
from dashboards.queries import NO_WATCHDOG, Chosen, alerts

OVERVIEW, CONSUMER, TOPIC, SPARK, FAUST, MONITOR = (
    f"streamgauge-{name}" for name in ("overview", "consumer", "topic", "spark", "faust", "monitor")
)
"""The boards' uids: parts of their addresses, which never change."""


# --- choices -----------------------------------------------------------------------------------------


def choices(name: str, label: str, source: str, *narrowed: Matcher, one: bool = False) -> Variable:
    """Return the choice among the values that a label has on a metric's series."""
    return Variable(name, label, f"label_values({series(source, *narrowed)}, {name})", single=one)


def consumer_choices(kind: str | None = None, *, one: bool = False) -> tuple[Variable, ...]:
    """Return the choices of cluster, kind and consumer, each among what those before it leave.

    ``kind``: only this one, which is no choice. ``one``: one consumer at a time.
    """
    match = equals if one else matches
    in_cluster = match("cluster", "$cluster")
    cluster = choices("cluster", "Cluster", CLUSTER_UP, one=one)
    of_kind = equals("kind", kind) if kind else match("kind", "$kind")
    consumer = choices("consumer", "Consumer", OBJECTIVE_SECONDS, in_cluster, of_kind, one=one)
    if kind:
        return (cluster, consumer)
    return (cluster, choices("kind", "Kind", OBJECTIVE_SECONDS, in_cluster, one=one), consumer)


# --- marks -------------------------------------------------------------------------------------------


def firing(name: str, alert: str) -> Annotation:
    """Return marks for as long as an alert fires: for one that explains a chart, for many of them would cover it."""
    return _alerts(name, alert)


def beginning(alert: str, name: str = "Alerts", among: str | None = None) -> Annotation:
    """Return marks where an alert begins: for many things, some of which are always in alarm.

    ``among``: of these things only, as the right side of ``and``.
    """
    narrowed = "" if among is None else f"\nand {among}"
    return _alerts(name, f"{alert}\nunless\n{alert} offset 1m{narrowed}")


def beginning_among(*labels: str, kind: str | None = None) -> Annotation:
    """Return marks where an alert begins that is about what is chosen, or about nothing narrower.

    ``kind``: of alerts about consumers only those about this kind.
    """
    of_kind = [matches("kind", f"|{kind}")] if kind else []
    return beginning(alerts(NO_WATCHDOG, *of_kind, *(matches(label, f"|${label}") for label in labels)))


def _alerts(name: str, expression: str) -> Annotation:
    text = "{{cluster}} {{consumer}} {{topic}} {{source}}"
    return Annotation(name, expression, "{{alertname}}", text, "red", "severity")


def findings(chosen: Chosen) -> Annotation:
    """Return marks where something more is found about the cluster's data: truncated, re-created, rewound."""
    counted = chosen(FINDINGS)
    return Annotation("Findings", f"{counted} > {counted} offset 1m", "{{finding}}", "{{cluster}}", "orange", "finding")


def rebalances(chosen: Chosen) -> Annotation:
    """Return marks where a group rebalanced: in a window of three minutes, which has two scrapes a minute apart."""
    return Annotation(
        "Rebalances", f"increase({chosen(REBALANCES)}[3m]) > 0", "rebalance", "{{cluster}} {{consumer}}", "blue"
    )


def restarted_workers(chosen: Chosen, started_at: str) -> Annotation:
    """Return marks where a Faust worker started, by the moment that it tells."""
    text = "{{consumer}} {{worker}}"
    recently = f"time() - {chosen(started_at)} < 60"
    return Annotation("Workers started", recently, "worker started", text, "blue")


RESTARTS = Annotation(
    "Monitor restarts",
    'changes(process_start_time_seconds{job=~"$job"}[3m]) > 0',
    "monitor restarted",
    "{{instance}}",
    "purple",
)


# --- ways to other boards ----------------------------------------------------------------------------

TO_CONSUMER = Link("This consumer", CONSUMER, {"cluster": "cluster", "kind": "kind", "consumer": "consumer"})
TO_TOPIC = Link("This topic", TOPIC, {"cluster": "cluster", "topic": "topic"})
TO_SPARK = Link("This query", SPARK, {"cluster": "cluster", "consumer": "consumer"})
TO_MONITOR = Link("The monitor's own health", MONITOR, {"cluster": "cluster"})
OF_ITS_KIND = (
    Link("As a Spark query", SPARK, {"cluster": "$cluster", "consumer": "$consumer"}),
    Link("As a Faust app", FAUST, {"cluster": "$cluster", "consumer": "$consumer"}),
)
"""From the board of a consumer to what only some of them have."""

TO_OVERVIEW = Link("All consumers", OVERVIEW, {})


def row_to_consumer(cluster: str = "Cluster", kind: str = "Kind") -> Link:
    """Return the way from the row of a consumer in a table."""
    where = {"cluster": cluster, "kind": kind, "consumer": "Consumer"}
    return Link("This consumer", CONSUMER, where, from_row=True)


def row_to_topic(cluster: str = "Cluster") -> Link:
    """Return the way from the row of a topic in a table."""
    return Link("This topic", TOPIC, {"cluster": cluster, "topic": "Topic"}, from_row=True)
