"""One topic: who reads it and how late, how evenly it is written, and how long what is unread will still be there.

A reader leads to its own board. Partitions can be narrowed; readers are shown whole.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, PARTITION, by, equals, on, series
from alerts.words import (
    FINDINGS,
    LAG_SECONDS,
    LOG_END,
    LOG_START,
    OBJECTIVE_SECONDS,
    POSITION_LAG_RECORDS,
    POSITION_LAG_SECONDS,
    RECORDS_READ,
    RECORDS_WRITTEN,
    REST,
    TOPIC_ABANDONED,
    TOPIC_LAG_RECORDS,
)
from dashboards import frame
from dashboards.board import Board, Row
from dashboards.panels import (
    GAUGE_OF_OBJECTIVE,
    OF_OBJECTIVE,
    RATIO,
    Column,
    Override,
    Query,
    Step,
    lines,
    mappings,
    stat,
    table,
    unit_of,
)
from dashboards.queries import NO_WATCHDOG, POSITION, WORST, Chosen, alerts, worst

CHOSEN = Chosen(one=("cluster", "topic"), many=("partition",))


def _by_partition(name: str, at: str = "") -> str:
    """Return a gauge by partition; the choice of a partition has no rest in it, which has no log of its own."""
    return by("max", PARTITION, f"{CHOSEN(name)}{at}")


def _held(at: str = "") -> str:
    """Return how many records each partition holds."""
    return f"{_by_partition(LOG_END, at)}\n- {_by_partition(LOG_START, at)}"


def _written(at: str = "") -> str:
    """Return how many records a second are written to each partition."""
    return by("max", PARTITION, f"deriv({CHOSEN(LOG_END)}[10m]{at})")


def _unread(at: str = "") -> str:
    """Return how many records each reader has still to read of each partition."""
    return by("max", POSITION, f"{CHOSEN(POSITION_LAG_RECORDS, REST)}{at}")


def _share_unread(at: str = "") -> str:
    """Return the share of what a partition holds that a reader has still to read."""
    return f"{_unread(at)}\n/ {on(PARTITION)} group_left () (\n{_held(at)}\n> 0\n)"


AT_END = " @ end()"
"""At the end of the range shown, whichever step of a chart it is."""

_all_known = (
    f"count({_by_partition(LOG_END)})\n== count({by('max', PARTITION, f'last_over_time({CHOSEN(LOG_END)}[1h])')})"
)

# What is unread begins as far above the log start as the log holds records less those that are unread. The log start
# moves by whole segments: six hours smooth that, and without any movement nothing is going to be deleted.
_deleted = f"deriv({CHOSEN(LOG_START)}[6h]) > 0"
_before_loss = (
    f"(\n(\n{_held()}\n)\n- {on(PARTITION)} group_right ()\n{_unread()}\n)\n"
    f"/ {on(PARTITION)} group_left () {by('max', PARTITION, _deleted)}"
)

_objective = by("max", CONSUMER, series(OBJECTIVE_SECONDS, equals("cluster", "$cluster")))

# The largest age is one only where all of them are known: no partition of the topic is unknown to the reader, and each
# that has a lag has an age.
_ages, _lags = CHOSEN(POSITION_LAG_SECONDS), CHOSEN(POSITION_LAG_RECORDS)
_age_here = (
    f"{by('max', CONSUMER, _ages)}\nand\n{by('max', CONSUMER, CHOSEN(TOPIC_LAG_RECORDS))}\n"
    f"and\n({by('count', CONSUMER, _ages)} == {by('count', CONSUMER, _lags)})"
)
_of_objective = f"(\n{_age_here}\n)\n/ {_objective}"

NOW = Row(
    "Is what is here being read?",
    (
        stat(
            "Readers",
            "Consumers with a position on the topic; those that have abandoned it left out.",
            Query(
                f"count(\n{by('max', CONSUMER, f'{CHOSEN(TOPIC_LAG_RECORDS)} >= 0')}\nunless\n"
                f"{by('max', CONSUMER, f'{CHOSEN(TOPIC_ABANDONED)} == 1')}\n)\n"
                f"or on ()\n0 * count({CHOSEN(LOG_END)})"
            ),
            unit="short",
            width=4,
        ),
        stat(
            "Worst reader's age of objective",
            "The share of its objective that the latest reader has used up on this topic: above 100 % it is late.",
            Query(f"max(\n{_of_objective}\n)"),
            unit=RATIO,
            width=4,
            steps=OF_OBJECTIVE,
            decimals=0,
        ),
        stat(
            "Most unread of what is held",
            "The largest share known of what a partition still holds that a reader has not read. Near 100 % the oldest "
            "unread records are the next to be deleted, unless the topic is young and nothing was deleted yet.",
            Query(f"max(\n{_share_unread()}\n)"),
            unit=RATIO,
            width=4,
            steps=(Step(None, "green"), Step(0.5, "yellow"), Step(0.8, "red")),
            decimals=0,
        ),
        stat(
            "Until unread records are deleted",
            "How long until retention reaches the oldest unread record of any reader, if it goes on deleting as in "
            "the last six hours. No end in sight: nothing was deleted in that time.",
            Query(f"min(\n{_before_loss}\n)"),
            unit="s",
            width=4,
            steps=(Step(None, "red"), Step(4 * 3600, "yellow"), Step(24 * 3600, "green")),
            no_value="no end in sight",
        ),
        stat(
            "Records held",
            "Records that are still there, by the log ends less the log starts; of compacted or transactional topics "
            "fewer. Unknown while a partition is that was known within the last hour.",
            Query(f"sum(\n{_held()}\n)\nand on ()\n(\n{_all_known}\n)"),
            unit="short",
            width=4,
        ),
        stat(
            "Written, records/s",
            "Records written a second to the topic, by its log ends.",
            Query(f"sum({CHOSEN.rate(RECORDS_WRITTEN)})"),
            unit=unit_of(RECORDS_WRITTEN),
            width=4,
            decimals=1,
        ),
    ),
)

READERS = Row(
    "Who reads it",
    (
        table(
            "Readers by age",
            "Every consumer with a position on the topic, the latest first: its age and lag on this topic alone. "
            "Abandoned: the group neither subscribes to the topic nor has any of it assigned. A consumer's name leads "
            "to its own board. Age needs metrics.level position, the rest topic.",
            Column("Age of objective", _of_objective, RATIO, 0, shown=GAUGE_OF_OBJECTIVE),
            Column("Age", _age_here, unit_of(LAG_SECONDS)),
            Column("Lag, records", by("max", CONSUMER, CHOSEN(TOPIC_LAG_RECORDS)), unit_of(TOPIC_LAG_RECORDS)),
            Column("Read, records/s", by("sum", CONSUMER, CHOSEN.rate(RECORDS_READ)), unit_of(RECORDS_READ), 1),
            Column(
                "Abandoned",
                by("max", CONSUMER, CHOSEN(TOPIC_ABANDONED)),
                shown={"mappings": mappings({"0": "no", "1": "yes"})},
            ),
            keys={"kind": "Kind", "consumer": "Consumer"},
            hidden=("cluster",),
            sort_by="Age of objective",
            height=8,
            links={"Consumer": frame.row_to_consumer(cluster="$cluster")},
        ),
        lines(
            "Age of objective by reader",
            "How much of its objective each reader has used up on this topic: one scale for all of them.",
            Query(_of_objective, "{{consumer}}"),
            unit=RATIO,
            steps=OF_OBJECTIVE,
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Written and read",
            "Records written to the topic a second, and read of it by each consumer. Where reading lies below "
            "writing, lag grows.",
            Query(f"sum({CHOSEN.rate(RECORDS_WRITTEN)})", "written"),
            Query(by("sum", CONSUMER, CHOSEN.rate(RECORDS_READ)), "{{consumer}}"),
            unit=unit_of(RECORDS_READ),
            axis="records/s",
            overrides=(Override("byFrameRefID", "B", {"links": [frame.TO_CONSUMER.json()]}),),
        ),
    ),
)

PARTITIONS = Row(
    "Its partitions",
    (
        table(
            "Partitions",
            "What each partition holds, how fast it is written, and how far behind the reader with the most to read "
            "is, of those that are known.",
            Column("Written, records/s", _written(), "short", 1),
            Column("Log start", _by_partition(LOG_START), unit_of(LOG_START), 0),
            Column("Log end", _by_partition(LOG_END), unit_of(LOG_END), 0),
            Column("Held, records", _held(), "short"),
            Column("Most to read, records", _by_partition(POSITION_LAG_RECORDS), "short"),
            Column("Largest age", _by_partition(POSITION_LAG_SECONDS), unit_of(POSITION_LAG_SECONDS)),
            keys={"partition": "Partition"},
            hidden=("cluster", "topic"),
            sort_by="Written, records/s",
            height=9,
        ),
        lines(
            "Written by partition",
            f"Records written a second over ten minutes, the {WORST} busiest partitions at the end. Far apart: "
            "keys are uneven, and so will be the members' work.",
            Query(worst(_written(), _written(AT_END), PARTITION), "{{partition}}"),
            unit="short",
            axis="records/s",
        ),
        lines(
            "Held by partition",
            f"Records that are still there, the {WORST} fullest partitions at the end. A step down is retention.",
            Query(worst(f"(\n{_held()}\n)", _held(AT_END), PARTITION), "{{partition}}"),
            unit="short",
            axis="records",
        ),
        lines(
            "Unread share of what is held",
            f"The share of a partition's records that a reader has not read, the {WORST} largest at the end. "
            "What reaches 100 % is lost when retention deletes next.",
            Query(worst(_share_unread(), _share_unread(AT_END), POSITION), "{{consumer}} {{partition}}"),
            unit=RATIO,
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Findings in the cluster",
            "What is odd about the cluster's data, by kind: commits beyond the end of the log, topics created anew, "
            "logs cut off, commits set back, clocks that are wrong.",
            Query(by("max", ("finding",), CHOSEN(FINDINGS)), "{{finding}}"),
            unit=unit_of(FINDINGS),
        ),
    ),
)

_in_cluster = equals("cluster", "$cluster")

TOPIC_BOARD = Board(
    frame.TOPIC,
    "Streaming topic",
    "One topic: who reads it, how evenly it is written, and how long what is unread will still be there.",
    (
        frame.choices("cluster", "Cluster", LOG_END, one=True),
        frame.choices("topic", "Topic", LOG_END, _in_cluster, one=True),
        frame.choices("partition", "Partition", LOG_END, _in_cluster, equals("topic", "$topic")),
    ),
    (
        frame.firing("Alerts", alerts(NO_WATCHDOG, _in_cluster, equals("topic", "$topic"))),
        frame.beginning(
            alerts(NO_WATCHDOG, _in_cluster, equals("topic", ""), equals("consumer", "")), "Alerts about the cluster"
        ),
        frame.findings(CHOSEN),
    ),
    (NOW, READERS, PARTITIONS),
)
