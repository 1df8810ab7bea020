"""Spark queries: do they keep the rhythm of their trigger, and if not, where does the time or the input go?

All queries at once or those chosen; each leads to its board as a consumer, for topics and partitions.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, by
from alerts.words import (
    BATCH_SECONDS,
    HEALTH,
    INFLIGHT_SECONDS,
    INPUT_ROWS,
    KNOWN_LAG_RECORDS,
    LAG_SECONDS,
    LAST_COMMIT,
    STATE_ROWS,
    TOPIC_LAG_RECORDS,
    TRIGGER_SECONDS,
    WATERMARK,
)
from dashboards import frame
from dashboards.board import Board, Row
from dashboards.panels import (
    DASHED,
    GAUGE_OF_OBJECTIVE,
    OF_OBJECTIVE,
    RATIO,
    Column,
    Link,
    Override,
    Panel,
    Query,
    Step,
    lines,
    stat,
    table,
    unit_of,
)
from dashboards.queries import BATCH_DURATIONS, BATCHES, CONSUMER_TOPIC, WORST, Chosen, largest, worst
from monitor.model import Kind

CHOSEN = Chosen(many=("cluster", "consumer"), kind=Kind.SPARK)

OF_TRIGGER = (Step(None, "green"), Step(0.8, "yellow"), Step(1, "red"))
"""The share of its trigger interval that a batch takes: above 1 the query cannot keep its rhythm."""

_behind = f"time() - {CHOSEN.by_consumer(WATERMARK)}"
_of_trigger = f"{CHOSEN(BATCH_SECONDS)} / {CHOSEN(TRIGGER_SECONDS)}"


def _since_commit(chosen: Chosen) -> str:
    return f"time() - {chosen.by_consumer(LAST_COMMIT)}"


def batches_and_triggers(chosen: Chosen, link: Link) -> Panel:
    """Return the chart of how long batches take against how often they are wanted."""
    return lines(
        "Batch duration and trigger interval",
        "How long the last committed micro-batch took, how long the one in flight has been running, and the "
        "trigger interval (dashed). Above the dashed line the query cannot keep its rhythm.",
        Query(chosen.worst(BATCH_SECONDS), "{{consumer}}"),
        Query(chosen.worst(INFLIGHT_SECONDS), "{{consumer}} in flight"),
        Query(chosen.by_consumer(TRIGGER_SECONDS), "{{consumer}} trigger"),
        unit=unit_of(BATCH_SECONDS),
        overrides=(Override("byRegexp", "/ trigger$/", DASHED),),
        links=(link,),
    )


def since_the_last_commit(chosen: Chosen, link: Link) -> Panel:
    """Return the chart of how long queries have committed nothing."""
    return lines(
        "Since the last commit",
        f"Time since a query last committed a micro-batch, the {WORST} longest. It falls with each batch; "
        "a line that only rises is a query that is stuck or gone.",
        Query(worst(_since_commit(chosen), f"time() - {largest(chosen(LAST_COMMIT))}"), "{{consumer}}"),
        unit=unit_of(LAST_COMMIT),
        links=(link,),
    )


NOW = Row(
    "Do the queries keep up?",
    (
        stat(
            "Worst age of objective",
            "The share of its objective that the latest query has used up: above 100 % it is late.",
            Query(f"max({CHOSEN.of_objective})"),
            unit=RATIO,
            width=4,
            steps=OF_OBJECTIVE,
            decimals=0,
        ),
        stat(
            "Slowest batch of trigger interval",
            "The last committed micro-batch against the trigger interval of its query, the slowest: above 100 % it "
            "cannot keep its rhythm. Unknown where no query's trigger interval is in the settings.",
            Query(f"max({_of_trigger})"),
            unit=RATIO,
            width=4,
            steps=OF_TRIGGER,
            decimals=0,
        ),
        stat(
            "Longest batch in flight",
            "How long ago the oldest micro-batch that is not committed yet was planned.",
            Query(f"max({CHOSEN(INFLIGHT_SECONDS)})"),
            unit=unit_of(INFLIGHT_SECONDS),
            width=4,
            no_value="none in flight",
        ),
        stat(
            "Longest since a commit",
            "Time since the query that has been silent longest committed a micro-batch. With nothing to read, a query "
            "has nothing to commit.",
            Query(f"max({_since_commit(CHOSEN)})"),
            unit=unit_of(LAST_COMMIT),
            width=4,
        ),
        stat(
            "Farthest watermark behind",
            "How far the event-time watermark that is farthest behind lies behind the clock: windows that end later "
            "are still open.",
            Query(f"max({_behind})"),
            unit=unit_of(WATERMARK),
            width=4,
            no_value="no watermark",
        ),
        stat(
            "Records to read",
            "Records still to be read by all the queries together, at least.",
            Query(f"sum({CHOSEN.by_consumer(KNOWN_LAG_RECORDS)})"),
            unit=unit_of(KNOWN_LAG_RECORDS),
            width=4,
        ),
    ),
)

QUERIES = Row(
    "Queries",
    (
        table(
            "Queries by age",
            "Every query, the latest first. A question mark is a value that is not known right now, or that there is "
            "none of: a watermark, a batch in flight, a trigger interval in the settings. A query's name leads to its "
            "board as a consumer.",
            Column("Health", by("max", (*CONSUMER, "health"), f"{CHOSEN(HEALTH)} == 1"), label="health"),
            Column("Age of objective", by("max", CONSUMER, CHOSEN.of_objective), RATIO, 0, shown=GAUGE_OF_OBJECTIVE),
            Column("Age", CHOSEN.by_consumer(LAG_SECONDS), unit_of(LAG_SECONDS)),
            Column("At least, records", CHOSEN.by_consumer(KNOWN_LAG_RECORDS), unit_of(KNOWN_LAG_RECORDS)),
            Column("Last batch", CHOSEN.by_consumer(BATCH_SECONDS), unit_of(BATCH_SECONDS)),
            Column("Trigger", CHOSEN.by_consumer(TRIGGER_SECONDS), unit_of(TRIGGER_SECONDS)),
            Column("In flight", CHOSEN.by_consumer(INFLIGHT_SECONDS), unit_of(INFLIGHT_SECONDS)),
            Column("Since commit", _since_commit(CHOSEN), unit_of(LAST_COMMIT)),
            Column("Watermark behind", _behind, unit_of(WATERMARK)),
            Column("Read, records/s", by("sum", CONSUMER, CHOSEN.rate(INPUT_ROWS)), unit_of(INPUT_ROWS), 1),
            keys={"cluster": "Cluster", "kind": "Kind", "consumer": "Consumer"},
            sort_by="Age of objective",
            height=8,
            links={"Consumer": frame.row_to_consumer()},
        ),
        lines(
            "Age of objective over time",
            f"How much of its objective each of the {WORST} latest queries has used up: one scale for all of them.",
            Query(CHOSEN.worst_of_objective, "{{consumer}}"),
            unit=RATIO,
            steps=OF_OBJECTIVE,
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Records to read by topic",
            f"Records still to be read of each topic, the {WORST} most. Needs metrics.level topic or position.",
            Query(CHOSEN.worst(TOPIC_LAG_RECORDS, CONSUMER_TOPIC), "{{consumer}} {{topic}}"),
            unit=unit_of(TOPIC_LAG_RECORDS),
            axis="records",
            links=(frame.TO_TOPIC,),
        ),
    ),
)

BATCH_ROW = Row(
    "Micro-batches",
    (
        batches_and_triggers(CHOSEN, frame.TO_CONSUMER),
        lines(
            "Batch durations",
            "Half of the micro-batches took less than the one line, 95 of 100 less than the other: from planned to "
            "committed. Read off a histogram: between two of its bounds the line is a guess.",
            Query(CHOSEN.quantile(0.5, BATCH_DURATIONS, CONSUMER), "{{consumer}} half"),
            Query(CHOSEN.quantile(0.95, BATCH_DURATIONS, CONSUMER), "{{consumer}} 95 %"),
            unit=unit_of(BATCH_DURATIONS),
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Read",
            f"Records in the offset ranges of committed micro-batches a second, the {WORST} busiest queries.",
            Query(CHOSEN.busiest(INPUT_ROWS, CONSUMER), "{{consumer}}"),
            unit=unit_of(INPUT_ROWS),
            axis="records/s",
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Batches",
            f"Micro-batches committed a second, the {WORST} busiest queries. 0: it commits nothing.",
            Query(CHOSEN.busiest(BATCHES, CONSUMER), "{{consumer}}"),
            unit=unit_of(BATCHES),
            axis="batches/s",
            links=(frame.TO_CONSUMER,),
        ),
        since_the_last_commit(CHOSEN, frame.TO_CONSUMER),
        lines(
            "Watermark behind the clock",
            f"How far a query's event-time watermark lies behind the clock, the {WORST} farthest. A line that rises "
            "while the query reads: one source is silent, and windows do not close.",
            Query(worst(_behind, f"time() - {largest(CHOSEN(WATERMARK))}"), "{{consumer}}"),
            unit=unit_of(WATERMARK),
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "State",
            f"Rows in the state of a query after its last micro-batch, the {WORST} largest. A line that never falls is "
            "state that nothing removes. Only queries whose job tells of itself (streamgauge.spark.attach) have one.",
            Query(CHOSEN.worst(STATE_ROWS), "{{consumer}}"),
            unit=unit_of(STATE_ROWS),
            width=24,
            axis="rows",
            links=(frame.TO_CONSUMER,),
        ),
    ),
)

SPARK_BOARD = Board(
    frame.SPARK,
    "Streaming Spark queries",
    "Do the Spark queries keep the rhythm of their trigger, and if not, where does it stick?",
    frame.consumer_choices(Kind.SPARK),
    (frame.beginning_among("cluster", "consumer", kind=Kind.SPARK), frame.findings(CHOSEN)),
    (NOW, QUERIES, BATCH_ROW),
)
