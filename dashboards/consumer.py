"""One consumer: how late it is against its objective, whether that gets better, and where the records lie.

At the top what decides; then the same over time; then the group, which is the usual cause; last its partitions, which
lead on to the topic.
"""

from __future__ import annotations

from alerts.promql import by, equals, on, series
from alerts.words import (
    HEALTH,
    LAG_RECORDS,
    LAG_SECONDS,
    LAG_SECONDS_BOUND,
    LOST_RECORDS,
    MEMBERS,
    OBJECTIVE_SECONDS,
    PARTITIONS,
    POSITION_LAG_RECORDS,
    POSITION_LAG_SECONDS,
    REBALANCES,
    RECORDS_READ,
    RECORDS_WRITTEN,
    TOPIC_ABANDONED,
    TOPIC_LAG_RECORDS,
)
from dashboards import frame
from dashboards.board import Board, Row
from dashboards.panels import (
    DASHED,
    GOOD_IS_ZERO,
    OF_OBJECTIVE,
    RATIO,
    RED_ABOVE_ZERO,
    Column,
    Override,
    Query,
    Step,
    lines,
    painted,
    stat,
    table,
    timeline,
    unit_of,
)
from dashboards.queries import (
    COMMITTED,
    CONSUMER_INFO,
    CONSUMER_STATE,
    HEALTH_COLORS,
    NO_WATCHDOG,
    OWNER,
    POSITION,
    POSITION_BOUND,
    POSITION_LOST,
    REBALANCING_SECONDS,
    WORST,
    Chosen,
    alerts,
)

CHOSEN = Chosen(one=("cluster", "kind", "consumer"))

_age, _bound, _objective = (CHOSEN.by_consumer(name) for name in (LAG_SECONDS, LAG_SECONDS_BOUND, OBJECTIVE_SECONDS))
_growth = f"deriv({CHOSEN(LAG_RECORDS)}[10m])"
_IN_TOPIC = ("cluster", "topic")

# Not of topics that the group has abandoned: those are no part of its lag.
_its_topics = f"{by('max', _IN_TOPIC, CHOSEN(TOPIC_LAG_RECORDS))}\nunless\n" + by(
    "max", _IN_TOPIC, f"{CHOSEN(TOPIC_ABANDONED)} == 1"
)
_written = f"rate({series(RECORDS_WRITTEN, equals('cluster', '$cluster'))}[$__rate_interval])"

NOW = Row(
    "How late, and does it get better?",
    (
        stat(
            "Health",
            "What the consumer's position means, by the monitor's judgement. Unknown: it could not be judged.",
            Query(by("max", ("health",), f"{CHOSEN(HEALTH)} == 1"), "{{health}}"),
            unit="none",
            width=4,
            only_name=True,
            overrides=painted(HEALTH_COLORS),
            links=(*frame.OF_ITS_KIND, frame.TO_OVERVIEW),
        ),
        stat(
            "Age of objective",
            "The share of its objective that the consumer has used up: above 100 % it is late.",
            Query(f"max({CHOSEN.of_objective})"),
            unit=RATIO,
            width=4,
            steps=OF_OBJECTIVE,
            decimals=0,
        ),
        stat(
            "Age",
            "Age of the oldest record still to be read, on any partition; the true age lies within plus or minus the "
            "bound.",
            Query(f"max({CHOSEN(LAG_SECONDS)})", "age"),
            Query(f"max({CHOSEN(LAG_SECONDS_BOUND)})", "±"),
            unit=unit_of(LAG_SECONDS),
            width=4,
            named=True,
        ),
        stat(
            "Records to read",
            "Records still to be read over all partitions; unknown while one of them is.",
            Query(f"max({CHOSEN(LAG_RECORDS)})"),
            unit=unit_of(LAG_RECORDS),
            width=3,
        ),
        stat(
            "Caught up in",
            "How long until nothing is left to read, if the last ten minutes go on: records to read by how fast they "
            "become fewer. A dash: they do not become fewer, or the age is below a tenth of the objective and there is "
            "nothing to be caught up with.",
            Query(f"max(\n  {CHOSEN(LAG_RECORDS)}\n  / (-{_growth} > 0)\n  and {CHOSEN.of_objective} > 0.1\n)"),
            unit="s",
            width=3,
            no_value="–",
        ),
        stat(
            "Records lost",
            "Records that were deleted before the consumer read them.",
            Query(f"max({CHOSEN(LOST_RECORDS)})"),
            unit=unit_of(LOST_RECORDS),
            width=3,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Partitions unknown",
            "Partitions of the consumer whose lag could not be told: what it says is at least that.",
            Query(f"max({CHOSEN(PARTITIONS, equals('status', 'unknown'))})"),
            unit=unit_of(PARTITIONS),
            width=3,
            steps=(Step(None, "green"), Step(1, "purple")),
        ),
    ),
)

COURSE = Row(
    "Since when?",
    (
        lines(
            "Age and objective",
            "Age of the oldest record still to be read, the age that is allowed (dashed), and the interval that the "
            "true age lies in. A gap: not known at that time.",
            Query(_age, "age"),
            Query(f"{_age} + {_bound}", "at most"),
            Query(f"clamp_min({_age} - {_bound}, 0)", "at least"),
            Query(_objective, "objective"),
            unit=unit_of(LAG_SECONDS),
            overrides=(
                Override("byName", "objective", {**DASHED, "color": {"mode": "fixed", "fixedColor": "red"}}),
                Override("byName", "age", {"color": {"mode": "fixed", "fixedColor": "blue"}, "custom.lineWidth": 2}),
                *painted({"at most": "light-blue", "at least": "light-blue"}),
            ),
        ),
        lines(
            "Records to read by topic",
            "Records still to be read of each topic, stacked; a topic with an unknown partition is missing. Needs "
            "metrics.level topic or position.",
            Query(by("max", _IN_TOPIC, CHOSEN(TOPIC_LAG_RECORDS)), "{{topic}}"),
            unit=unit_of(TOPIC_LAG_RECORDS),
            axis="records",
            stacked=True,
            links=(frame.TO_TOPIC,),
        ),
        lines(
            "Written and read",
            "Records written a second to the topics that the consumer reads, and records it read a second. Where "
            "reading lies below writing, lag grows.",
            Query(f"sum(\n{by('max', _IN_TOPIC, _written)}\nand {on(_IN_TOPIC)} (\n{_its_topics}\n)\n)", "written"),
            Query(f"sum({CHOSEN.rate(RECORDS_READ)})", "read"),
            unit=unit_of(RECORDS_READ),
            axis="records/s",
            links=frame.OF_ITS_KIND,
        ),
        lines(
            "Growth of the lag",
            "How many records a second the lag grew over the ten minutes before; below zero it is catching up.",
            Query(f"max({_growth})", "growth"),
            unit=unit_of(LAG_RECORDS),
            axis="records/s",
            minimum=None,
            steps=(Step(None, "green"), Step(0, "red")),
        ),
        timeline(
            "Health over time",
            "What its position meant, when. A gap: the monitor did not see the consumer.",
            Query(by("max", ("health",), f"{CHOSEN(HEALTH)} == 1"), "{{health}}"),
            overrides=painted(HEALTH_COLORS),
        ),
        timeline(
            "Its alerts over time",
            "Which alerts about this consumer fired when, by Prometheus' own rules. Empty where nothing fired, or "
            "where Prometheus does not evaluate streamgauge's rules.",
            Query(
                by("max", ("alertname",), alerts(NO_WATCHDOG, *CHOSEN.matchers)),
                "{{alertname}}",
            ),
        ),
    ),
)

GROUP = Row(
    "The group",
    (
        timeline(
            "State over time",
            "The group's state as Kafka reports it, and its protocol. A Spark query or a group that nobody could ask "
            "has none.",
            Query(by("max", ("state",), f"{CHOSEN(CONSUMER_STATE)} == 1"), "{{state}}"),
            Query(by("max", ("protocol",), CHOSEN(CONSUMER_INFO)), "protocol: {{protocol}}"),
            width=8,
            height=8,
        ),
        lines(
            "Members and partitions",
            "Members of the group, and its partitions by whether their lag is known. More members than partitions: "
            "some of them have nothing to do.",
            Query(f"max({CHOSEN(MEMBERS)})", "members"),
            Query(by("max", ("status",), CHOSEN(PARTITIONS)), "partitions {{status}}"),
            unit="short",
            width=8,
            height=8,
        ),
        lines(
            "Rebalances",
            "Rebalances in the ten minutes before, and the share of that time they took, at least. While a group "
            "rebalances, most protocols let nobody read.",
            Query(f"max(increase({CHOSEN(REBALANCES)}[10m]))", "rebalances"),
            Query(f"max(increase({CHOSEN(REBALANCING_SECONDS)}[10m])) / 600", "share of the time"),
            unit="short",
            width=8,
            height=8,
            overrides=(Override("byName", "share of the time", {"unit": RATIO, "custom.axisPlacement": "right"}),),
        ),
    ),
)


_IN_CONSUMER = ("topic", "partition")
"""The labels that name a position of one consumer."""


def _by_position(name: str) -> str:
    return by("max", _IN_CONSUMER, CHOSEN(name))


PARTITIONS_ROW = Row(
    "Where?",
    (
        table(
            "Its partitions by age",
            "Every partition, the latest first; partition rest stands for all that are not exposed one by one. "
            "Committed offset, bound, lost records and owner are there only where metrics.committed_offset, "
            "lag_seconds_bound, lost_records and owner_info are true. Needs metrics.level position.",
            Column("Age", _by_position(POSITION_LAG_SECONDS), unit_of(POSITION_LAG_SECONDS)),
            Column("Bound", _by_position(POSITION_BOUND), unit_of(POSITION_BOUND)),
            Column("Lag, records", _by_position(POSITION_LAG_RECORDS), unit_of(POSITION_LAG_RECORDS)),
            Column("Committed", _by_position(COMMITTED), unit_of(COMMITTED), 0),
            Column("Lost, records", _by_position(POSITION_LOST), unit_of(POSITION_LOST), shown=RED_ABOVE_ZERO),
            Column("Owner", by("max", (*_IN_CONSUMER, "client_id"), CHOSEN(OWNER)), label="client_id"),
            Column("Host", by("max", (*_IN_CONSUMER, "host"), CHOSEN(OWNER)), label="host"),
            keys={"topic": "Topic", "partition": "Partition"},
            sort_by="Age",
            height=11,
            links={"Topic": frame.row_to_topic("$cluster")},
        ),
        lines(
            "Age by partition",
            f"The {WORST} latest partitions. One alone points at a hot key or a record that cannot be processed; all "
            "of one member at that member; all of one broker at that broker.",
            Query(CHOSEN.worst(POSITION_LAG_SECONDS, POSITION), "{{topic}} {{partition}}"),
            unit=unit_of(POSITION_LAG_SECONDS),
            links=(frame.TO_TOPIC,),
        ),
        lines(
            "Records to read by partition",
            f"The {WORST} partitions with the most records still to be read.",
            Query(CHOSEN.worst(POSITION_LAG_RECORDS, POSITION), "{{topic}} {{partition}}"),
            unit=unit_of(POSITION_LAG_RECORDS),
            axis="records",
            links=(frame.TO_TOPIC,),
        ),
    ),
)

_about_it = alerts(NO_WATCHDOG, *CHOSEN.matchers)
_over_objective = alerts(equals("alertname", "StreamgaugeConsumerOverObjective"), *CHOSEN.matchers)
_about_its_cluster = alerts(NO_WATCHDOG, equals("cluster", "$cluster"), equals("consumer", ""))

CONSUMER_BOARD = Board(
    frame.CONSUMER,
    "Streaming consumer",
    "One reader of a Kafka cluster: how late, since when, whether it gets better, and where.",
    frame.consumer_choices(one=True),
    (
        frame.beginning(_about_it),
        frame.firing("Over its objective", _over_objective),
        frame.beginning(_about_its_cluster, "Alerts about the cluster"),
        frame.findings(CHOSEN),
        frame.rebalances(CHOSEN),
    ),
    (NOW, COURSE, GROUP, PARTITIONS_ROW),
)
