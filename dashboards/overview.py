"""The overview: is anything late, what, since when, and does the monitor itself see everything?

From the symptom (over objective) to what is behind it (records, rates, batches), and last the monitor, which says
how far all of it can be trusted. Charts show the worst of the range shown, so that a cluster with thousands of
consumers stays readable; the table has them all, and each row leads to the consumer's own board.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, SOURCE, by, equals, matches
from alerts.words import (
    CLUSTER_UP,
    FAILURES,
    HEALTH,
    KNOWN_LAG_RECORDS,
    LAG_RECORDS,
    LAG_SECONDS,
    LAG_SECONDS_BOUND,
    LOST_RECORDS,
    MEMBERS,
    OBJECTIVE_SECONDS,
    RECORDS_READ,
    RECORDS_WRITTEN,
)
from dashboards import frame
from dashboards.board import Board, Row
from dashboards.monitor import since_the_last_complete_look
from dashboards.panels import (
    GAUGE_OF_OBJECTIVE,
    GOOD_IS_ZERO,
    OF_OBJECTIVE,
    RATIO,
    RED_ABOVE_ZERO,
    Column,
    Query,
    Step,
    lines,
    painted,
    stat,
    table,
    timeline,
    unit_of,
)
from dashboards.queries import HEALTH_COLORS, NO_WATCHDOG, WORST, Chosen, alerts, worst
from dashboards.spark import batches_and_triggers, since_the_last_commit
from monitor.model import Health

CHOSEN = Chosen(many=("cluster", "kind", "consumer"))

ALERTS_SHOWN = 30

_ALERT = ("alertname", *CONSUMER, "source")

_age, _bound, _objective = CHOSEN(LAG_SECONDS), CHOSEN(LAG_SECONDS_BOUND), CHOSEN(OBJECTIVE_SECONDS)
_firing = alerts(NO_WATCHDOG, matches("cluster", "|$cluster"), matches("consumer", "|$consumer"))


def _in_health(health: Health) -> str:
    """Count the consumers that are in a health."""
    return f"sum(\n{CHOSEN.by_consumer(HEALTH, equals('health', health))}\n)"


NOW = Row(
    "Is anything late?",
    (
        stat(
            "Clusters",
            "Whether the last look at each source of a cluster was complete. Incomplete: somebody who had to be "
            "asked is away, and what could not be read is unknown.",
            Query(by("max", SOURCE, CHOSEN(CLUSTER_UP)), "{{cluster}} {{source}}"),
            unit=unit_of(CLUSTER_UP),
            width=6,
            steps=(Step(None, "red"), Step(1, "green")),
            texts={"1": "complete", "0": "incomplete"},
            named=True,
            links=(frame.TO_MONITOR,),
        ),
        stat(
            "Over objective",
            "Consumers that are surely later than they are allowed: the age less its bound is above the objective.",
            Query(f"sum(\n{by('max', CONSUMER, CHOSEN.surely_over)}\n)"),
            unit="short",
            width=3,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Worst age of objective",
            "The share of its objective that the latest consumer has used up: above 100 % it is late.",
            Query(f"max({CHOSEN.of_objective})"),
            unit=RATIO,
            width=3,
            steps=OF_OBJECTIVE,
            decimals=0,
        ),
        stat(
            "Stopped",
            "Consumer groups that nobody reads for although records wait.",
            Query(_in_health(Health.STOPPED)),
            unit="short",
            width=3,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Losing records",
            "Consumers that lost records lately: these were deleted before they were read.",
            Query(_in_health(Health.LOSING_DATA)),
            unit="short",
            width=3,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Age unknown",
            "Consumers whose age is not known right now: a partition could not be read, nothing is committed yet, or "
            "a record's time has not been found yet. They may be late.",
            Query(
                f"count(\n{by('max', CONSUMER, _objective)}\nunless\n{by('max', CONSUMER, _age)}\n)"
                f" or 0 * count({_age})"
            ),
            unit="short",
            width=3,
            steps=(Step(None, "green"), Step(1, "purple")),
        ),
        stat(
            "Alerts firing",
            "Alerts of streamgauge's rules that fire right now, the one that always fires left out. Unknown where "
            "Prometheus does not evaluate the rules.",
            Query(f"count({_firing})\nor 0 * count({alerts()})"),
            unit="short",
            width=3,
            steps=GOOD_IS_ZERO,
        ),
    ),
)

CONSUMERS = Row(
    "Consumers",
    (
        table(
            "Consumers by age",
            "Every consumer, the latest first. A question mark is a value that is not known right now. The true age "
            "lies within the age plus or minus the bound. A consumer's name leads to its own board.",
            Column("Health", by("max", (*CONSUMER, "health"), f"{CHOSEN(HEALTH)} == 1"), label="health"),
            Column("Age of objective", by("max", CONSUMER, CHOSEN.of_objective), RATIO, 0, shown=GAUGE_OF_OBJECTIVE),
            Column("Age", by("max", CONSUMER, _age), unit_of(LAG_SECONDS)),
            Column("Bound", by("max", CONSUMER, _bound), unit_of(LAG_SECONDS_BOUND)),
            Column("Objective", by("max", CONSUMER, _objective), unit_of(OBJECTIVE_SECONDS)),
            Column("Lag, records", CHOSEN.by_consumer(LAG_RECORDS), unit_of(LAG_RECORDS)),
            Column("At least, records", CHOSEN.by_consumer(KNOWN_LAG_RECORDS), unit_of(KNOWN_LAG_RECORDS)),
            Column("Read, records/s", by("sum", CONSUMER, CHOSEN.rate(RECORDS_READ)), unit_of(RECORDS_READ), 1),
            Column("Members", CHOSEN.by_consumer(MEMBERS), unit_of(MEMBERS)),
            Column("Lost, records", CHOSEN.by_consumer(LOST_RECORDS), unit_of(LOST_RECORDS), shown=RED_ABOVE_ZERO),
            keys={"cluster": "Cluster", "kind": "Kind", "consumer": "Consumer"},
            sort_by="Age of objective",
            height=11,
            links={"Consumer": frame.row_to_consumer()},
        ),
        lines(
            "Age of objective over time",
            f"How much of its objective each of the {WORST} latest consumers has used up: one scale for all of them.",
            Query(CHOSEN.worst_of_objective, "{{consumer}}"),
            unit=RATIO,
            steps=OF_OBJECTIVE,
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Consumers by health",
            "How many consumers are in each health. Unknown: could not be judged, so it may be anything.",
            Query(by("sum", ("health",), by("max", (*CONSUMER, "health"), CHOSEN(HEALTH))) + " > 0", "{{health}}"),
            unit="short",
            stacked=True,
            overrides=painted(HEALTH_COLORS),
        ),
        lines(
            "Lag in seconds",
            f"Age of the oldest record still to be read, the {WORST} largest. A gap: not known at that time.",
            Query(CHOSEN.worst(LAG_SECONDS), "{{consumer}}"),
            unit=unit_of(LAG_SECONDS),
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Lag in records",
            f"Records still to be read, the {WORST} largest: at least, where a partition was unknown at that time.",
            Query(CHOSEN.worst(KNOWN_LAG_RECORDS), "{{consumer}}"),
            unit=unit_of(KNOWN_LAG_RECORDS),
            axis="records",
            links=(frame.TO_CONSUMER,),
        ),
        timeline(
            "Alerts over time",
            f"Which alerts fired when, the {ALERTS_SHOWN} longest, by Prometheus' own rules. Empty where it does not "
            "evaluate streamgauge's rules, or where nothing fired.",
            Query(
                worst(
                    by("max", _ALERT, _firing), f"count_over_time({_firing}[$__range] @ end())", _ALERT, ALERTS_SHOWN
                ),
                "{{alertname}} {{consumer}} {{source}}",
            ),
            width=24,
            height=11,
            links=(frame.TO_CONSUMER,),
        ),
    ),
)

THROUGHPUT = Row(
    "Throughput",
    (
        lines(
            "Produced",
            f"Records written a second, the {WORST} busiest topics, by their log ends.",
            Query(CHOSEN.busiest(RECORDS_WRITTEN, ("cluster", "topic")), "{{topic}}"),
            unit=unit_of(RECORDS_WRITTEN),
            axis="records/s",
            links=(frame.TO_TOPIC,),
        ),
        lines(
            "Read",
            f"Records read a second, the {WORST} busiest consumers, by their committed offsets.",
            Query(CHOSEN.busiest(RECORDS_READ, CONSUMER), "{{consumer}}"),
            unit=unit_of(RECORDS_READ),
            axis="records/s",
            links=(frame.TO_CONSUMER,),
        ),
    ),
)

SPARK = Row(
    "Spark",
    (
        batches_and_triggers(CHOSEN, frame.TO_SPARK),
        since_the_last_commit(CHOSEN, frame.TO_SPARK),
    ),
)

MONITOR = Row(
    "Can it be trusted?",
    (
        since_the_last_complete_look(CHOSEN, frame.TO_MONITOR),
        lines(
            "Failed reads",
            "Reads that failed a second, by what they were about. What failed is unknown, never zero.",
            Query(by("sum", (*SOURCE, "scope"), CHOSEN.rate(FAILURES)), "{{cluster}} {{source}} {{scope}}"),
            unit=unit_of(FAILURES),
            axis="failures/s",
            links=(frame.TO_MONITOR,),
        ),
    ),
)

OVERVIEW = Board(
    frame.OVERVIEW,
    "Streaming overview",
    "How late is every reader of every Kafka cluster, and how far can that be trusted?",
    frame.consumer_choices(),
    (frame.beginning_among("cluster", "consumer"), frame.findings(CHOSEN)),
    (NOW, CONSUMERS, THROUGHPUT, SPARK, MONITOR),
)
