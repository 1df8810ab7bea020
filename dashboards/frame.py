"""What boards have in common around their panels: choices at the top, marks on the charts, ways to one another."""

from __future__ import annotations

from alerts.promql import Matcher, equals, matches, series
from alerts.words import CLUSTER_UP, FINDINGS, OBJECTIVE_SECONDS, REBALANCES
from dashboards.board import Annotation, Variable
from dashboards.panels import Link
from dashboards.queries import NO_WATCHDOG, Chosen, alerts

OVERVIEW, CONSUMER, TOPIC, SPARK, MONITOR = (
    f"streamgauge-{name}" for name in ("overview", "consumer", "topic", "spark", "monitor")
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


def firing(*expressions: str) -> Annotation:
    """Return marks for as long as one of our alerts fires."""
    return Annotation(
        "Alerts",
        "\nor\n".join(expressions),
        "{{alertname}}",
        "{{cluster}} {{consumer}} {{topic}} {{source}}",
        "red",
        "severity",
    )


def firing_among(*labels: str) -> Annotation:
    """Return the marks of alerts about what is chosen, several at once, and of those about nothing narrower."""
    return firing(alerts(NO_WATCHDOG, *(matches(label, f"|${label}") for label in labels)))


def findings(chosen: Chosen) -> Annotation:
    """Return marks while something is found about the cluster's data: truncated, re-created, rewound."""
    return Annotation("Findings", f"{chosen(FINDINGS)} > 0", "{{finding}}", "{{cluster}}", "orange", "finding")


def rebalances(chosen: Chosen) -> Annotation:
    """Return marks where a group rebalanced: in a window of three minutes, which has two scrapes a minute apart."""
    return Annotation(
        "Rebalances", f"increase({chosen(REBALANCES)}[3m]) > 0", "rebalance", "{{cluster}} {{consumer}}", "blue"
    )


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
TO_OVERVIEW = Link("All consumers", OVERVIEW, {})

ROW_TO_CONSUMER = Link(
    "This consumer", CONSUMER, {"cluster": "Cluster", "kind": "Kind", "consumer": "Consumer"}, from_row=True
)
ROW_TO_SPARK = Link("This query", SPARK, {"cluster": "Cluster", "consumer": "Consumer"}, from_row=True)
ROW_TO_TOPIC = Link("This topic", TOPIC, {"cluster": "Cluster", "topic": "Topic"}, from_row=True)
