"""Alerts about consumers: late, ever later, stopped, stuck, losing data, or not to be seen."""

from __future__ import annotations

from alerts.promql import CONSUMER, PARTITION, before, by, differs, equals, last, on, series
from alerts.rule import VALUE, Format, Number, Record, Rule, Severity
from alerts.words import (
    ABANDONED,
    FRESH,
    KNOWN_LAG,
    LAG_RECORDS,
    LAG_SECONDS,
    LAG_SECONDS_BOUND,
    LAST_KNOWN,
    LATE_BY,
    LOG_END,
    LOG_START,
    LOST_RECORDS,
    MEMBERS,
    OBJECTIVE_SECONDS,
    PARTITIONS,
    POSITION_LAG_RECORDS,
    POSITION_LAG_SECONDS,
    REBALANCES,
    RECORDS_READ,
    RECORDS_WRITTEN,
    REST,
    TOPIC_ABANDONED,
    TOPIC_LAG_RECORDS,
    health,
    late,
    with_members,
)
from monitor.model import Health, Kind

BUDGET = 0.01
"""The share of the time that a consumer may be over its objective: 99 % of 30 days within leave 7.2 hours."""

FAST, SLOW = 14.4, 6
"""How many times faster than evenly the budget goes: 14.4 spends 2 % of it in an hour, 6 spends 5 % in six hours."""

UNREAD_SHARE = 0.8
"""A consumer that has this much of what its partition still holds before it is near the end that is deleted."""

STORM = 5
"""Rebalances in half an hour that are too many: a deployment that rolls three members makes up to six in minutes."""

_HOT = 5
_CLOCK = 0.95  # the age of a record that nobody takes grows as fast as the clock; a little less, for the bound

_stopped = health(Health.STOPPED, differs("kind", Kind.SPARK))  # a query that ended has an alert of its own
_unknown, _losing_data = (health(each) for each in (Health.UNKNOWN, Health.LOSING_DATA))
_age, _objective = series(LAG_SECONDS), series(OBJECTIVE_SECONDS)
_surely = f"{last(_age, LAST_KNOWN)} - {last(series(LAG_SECONDS_BOUND), LAST_KNOWN)}"
_TOPIC = (*CONSUMER, "topic")
_POSITION = (*_TOPIC, "partition")

# Surely over: the lower end of the age's interval is compared, so that a wide bound raises no alarm by itself. The
# objective is there for as long as the consumer is: it ends the alert of a consumer that is gone, while an age that
# is only unknown for now does not.
_over_objective = by("max", CONSUMER, f"{_surely}\n> {last(_objective, FRESH)}")

OVER_OBJECTIVE = Record(
    "streamgauge:consumer_over_objective:bool", by("max", CONSUMER, f"{_surely}\n> bool {last(_objective, FRESH)}")
)


def _burns(factor: float, window: str, minutes: int, short: str, short_minutes: int) -> str:
    """Return the test that the budget goes this much too fast, over a long window and, to end soon, over a short one.

    Divided is by the whole window and not by the minutes that are known: the first late minute of a new consumer is
    not all of its time.
    """
    limit = f"{factor} * {BUDGET}"
    return (
        # A window that begins and ends with an evaluation holds one more than its minutes.
        f"clamp_max(sum_over_time({OVER_OBJECTIVE.name}[{window}]) / {minutes}, 1) > {limit}\n"
        f"and sum_over_time({OVER_OBJECTIVE.name}[{short}]) / {short_minutes} > {limit}\n"
        # A consumer that is gone burns nothing any more.
        f"and on ({', '.join(CONSUMER)}) {last(_objective, FRESH)}"
    )


_records = series(LAG_RECORDS)
_growing = by(
    "max",
    CONSUMER,
    f"deriv({_records}[30m]) > 0\n"
    f"and {last(_records, FRESH)} > 1.2 * {before(_records, LAST_KNOWN, '15m')}\n"
    f"and {last(_age, LAST_KNOWN)} > 0.5 * {last(_objective, FRESH)}",
)

# A group that could not be read has the health unknown, and every other health is 0: that ends nothing. Nor does it
# that retention deletes what a stopped group has not read: losing data is graver, and stands in the place of stopped.
_consumer_stopped = by(
    "max",
    CONSUMER,
    f"{last(_stopped, FRESH)} == 1\n"
    "or\n"
    f"max_over_time({_stopped}[{FRESH}]) == 1 and ignoring (health) {last(_unknown, FRESH)} == 1\n"
    "or\n"
    f"{last(_losing_data, FRESH)} == 1 and ignoring (health) {last(series(MEMBERS), FRESH)} == 0",
)

# The monitor says both of these for 15 minutes after they were last seen to happen, so that the largest value of the
# window, which a look without an answer does not take away, is never one that is long over.
_losing = by("max", CONSUMER, f"max_over_time({_losing_data}[{FRESH}]) == 1")
_rewound = by("max", CONSUMER, f"max_over_time({health(Health.REWOUND)}[{FRESH}]) == 1")

_incomplete = (
    by("max", CONSUMER, f"{last(series(PARTITIONS, equals('status', 'unknown')), FRESH)} > 0")
    + "\nor\n"
    + by("max", CONSUMER, f"{last(_unknown, FRESH)} == 1")
)

# --- by topic and partition --------------------------------------------------------------------------
# An age that stands still is not enough: on a topic with transactions the last offset is a marker that nobody reads,
# so a lag of 1 may rest for ever. Something must have been written meanwhile, and must have been waiting before.

_topic_lag = series(TOPIC_LAG_RECORDS)
_stalled = by(
    "count",
    CONSUMER,
    by(
        "max",
        _TOPIC,
        f"increase({series(RECORDS_READ)}[15m]) == 0\n"
        f"and min_over_time({_topic_lag}[15m]) > 0\n"
        f"and {before(_topic_lag, LAST_KNOWN, '15m')} > 0\n"
        f"unless {ABANDONED}",
    )
    + f"\nand on (cluster, topic) increase({series(RECORDS_WRITTEN)}[15m]) > 0"
    + f"\nand {on(CONSUMER)} {with_members()}",
)

_waiting, _waiting_seconds = series(POSITION_LAG_RECORDS, REST), series(POSITION_LAG_SECONDS, REST)
_partition_stuck = by(
    "count",
    CONSUMER,
    by("max", _POSITION, f"deriv({_waiting_seconds}[15m]) > {_CLOCK}\nand min_over_time({_waiting}[15m]) > 0")
    # A monitor that has just begun has not seen it for 15 minutes. Asked by topic: one look at all positions costs more
    # than all rules that look at none.
    + f"\nand {on(_TOPIC)} {before(series(RECORDS_READ), LAST_KNOWN, '15m')}"
    + f"\nunless {on(_TOPIC)} {ABANDONED}"
    + f"\nand {on(PARTITION)} delta({series(LOG_END)}[15m]) > 0"
    + f"\nand {on(CONSUMER)} {with_members()}"
    + f"\nand {on(CONSUMER)} {late(0.5)}",
)

# More than five times the average of the others, max > 5 * (sum - max) / (n - 1), is max > 5 * sum / (n + 4): so the
# positions are looked at once, and with a single partition it is never true.
_lag_now = last(_waiting, FRESH)
_partitions = by("count", PARTITION[:2], by("max", PARTITION, last(series(LOG_END), LAST_KNOWN)))
_hot_partition = (
    by("max", _TOPIC, _lag_now)
    + f"\n> {_HOT} * {by('max', _TOPIC, last(_topic_lag, LAST_KNOWN))}\n"
    + f"/ {on(PARTITION[:2])} group_left () ({_partitions} + {_HOT - 1})\n"
    + f"and {on(CONSUMER)} {late(0.5)}\n"
    + f"unless {on(_TOPIC)} {ABANDONED}"
)

# Where nothing is deleted there is nothing to lose, however much waits. Deletion comes in steps, a segment at a time:
# six hours see them, and need no rate.
_start, _end = series(LOG_START), series(LOG_END)
_near_retention = by(
    "max",
    CONSUMER,
    f"{_lag_now}\n/ {on(PARTITION)} group_left ()\n"
    + by(
        "max",
        PARTITION,
        f"{last(_end, FRESH)} - {last(_start, FRESH)} > 0\n"
        f"and {last(_start, FRESH)} > {before(_start, LAST_KNOWN, '6h')}",
    )
    + f"\n> {UNREAD_SHARE}\nunless {on(_TOPIC)} {ABANDONED}",
)

_abandoned = by("count", CONSUMER, by("max", _TOPIC, f"{last(series(TOPIC_ABANDONED), FRESH)} == 1"))

_allowed = Number("objective", Format.SECONDS, OBJECTIVE_SECONDS)
_count = Number(VALUE, Format.COUNT)
_WHO = "The {kind} {consumer} on cluster {cluster}"

CONSUMER_RULES: tuple[Rule, ...] = (
    Rule(
        "StreamgaugeConsumerOverObjective",
        Severity.WARNING,
        CONSUMER,
        _over_objective,
        hold="5m",
        keep="5m",
        summary="A consumer is later than its objective allows.",
        description=f"{_WHO} is at least {{value}} late; its objective is {{objective}}. "
        "Records known to wait: {records}.",
        numbers=(Number(VALUE, Format.SECONDS), _allowed, KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerBudgetBurnFast",
        Severity.CRITICAL,
        CONSUMER,
        _burns(FAST, "1h", 60, "5m", 5),
        hold="2m",
        keep="5m",
        summary="A consumer is over its objective so much that a month's allowance is gone in two days.",
        description=f"{_WHO} was over its objective for {{value}} of the last hour, and still is; 1% of the time is "
        "what it may be. Age of the oldest record: {age}; objective: {objective}.",
        numbers=(Number(VALUE, Format.SHARE), LATE_BY, _allowed),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerBudgetBurnSlow",
        Severity.WARNING,
        CONSUMER,
        _burns(SLOW, "6h", 360, "30m", 30),
        hold="5m",
        keep="10m",
        summary="A consumer is over its objective again and again: a month's allowance is gone in five days.",
        description=f"{_WHO} was over its objective for {{value}} of the last six hours, and lately too; 1% of the "
        "time is what it may be. Age of the oldest record: {age}; objective: {objective}.",
        numbers=(Number(VALUE, Format.SHARE), LATE_BY, _allowed),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerGrowing",
        Severity.WARNING,
        CONSUMER,
        _growing,
        hold="10m",
        keep="10m",
        summary="A consumer falls behind, and has used up half of its objective.",
        description="What waits for the {kind} {consumer} on cluster {cluster} grows by {value} records per "
        "second. Records known to wait: {records}; age of the oldest: {age}; objective: {objective}.",
        numbers=(Number(VALUE, Format.RATE), KNOWN_LAG, LATE_BY, _allowed),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerStopped",
        Severity.CRITICAL,
        CONSUMER,
        _consumer_stopped,
        hold="5m",
        keep="5m",
        summary="Nobody reads for a consumer any more, and records wait for it.",
        description=f"{_WHO} has no members, and records wait for it. Records known to wait: {{records}}; age of the "
        "oldest: {age}; objective: {objective}.",
        numbers=(KNOWN_LAG, LATE_BY, _allowed),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerLosingData",
        Severity.CRITICAL,
        CONSUMER,
        _losing,
        hold="5m",
        keep="5m",
        summary="Records are being deleted before a consumer has read them.",
        description=f"{_WHO} loses data: retention deletes what it has not read. Records lost at its present "
        "position: {lost}; records known to wait: {records}.",
        numbers=(Number("lost", Format.COUNT, LOST_RECORDS), KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerLostRecords",
        Severity.WARNING,
        CONSUMER,
        by("max", CONSUMER, f"{last(series(LOST_RECORDS), FRESH)} > 0"),
        hold="5m",
        keep="5m",
        summary="Records were deleted before a consumer had read them.",
        description=f"{_WHO} stands below the start of its logs: {{value}} records that it has not read are gone.",
        numbers=(_count,),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerRewound",
        Severity.WARNING,
        CONSUMER,
        _rewound,
        hold="5m",
        keep="5m",
        summary="A consumer was set back: it reads again what it had read.",
        description="Offsets of the {kind} {consumer} on cluster {cluster} moved back. Records known to wait: "
        "{records}; age of the oldest: {age}.",
        numbers=(KNOWN_LAG, LATE_BY),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerRebalanceStorm",
        Severity.WARNING,
        CONSUMER,
        by("max", CONSUMER, f"increase({series(REBALANCES)}[30m]) > {STORM}"),
        hold="5m",
        keep="10m",
        summary="A group rebalances again and again.",
        description=f"{_WHO} had {{value}} rebalances in the last 30 minutes. Members: {{members}}; records known to "
        "wait: {records}.",
        numbers=(_count, Number("members", Format.COUNT, MEMBERS), KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerIncomplete",
        Severity.WARNING,
        CONSUMER,
        _incomplete,
        hold="15m",
        keep="5m",
        summary="A consumer cannot be read completely: its lag is unknown.",
        description=f"{_WHO} cannot be read completely, so that its age and its sum are unknown and other alerts about "
        "it may be silent. Partitions unknown: {unknown}; known: {known}. Records known to wait: {records}.",
        numbers=(
            Number("unknown", Format.COUNT, PARTITIONS, where=equals("status", "unknown")),
            Number("known", Format.COUNT, PARTITIONS, where=equals("status", "known")),
            KNOWN_LAG,
        ),
        subject=OBJECTIVE_SECONDS,
    ),
)

DETAIL_RULES: tuple[Rule, ...] = (
    Rule(
        "StreamgaugeConsumerStalled",
        Severity.CRITICAL,
        CONSUMER,
        _stalled,
        hold="5m",
        keep="5m",
        summary="A consumer has members, but it does not read what is written.",
        description=f"{_WHO} has committed nothing for 15 minutes on {{value}} of its topics, though records wait and "
        "more are written. Members: {members}; records known to wait: {records}; age of the oldest: {age}.",
        numbers=(_count, Number("members", Format.COUNT, MEMBERS), KNOWN_LAG, LATE_BY),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerPartitionStuck",
        Severity.WARNING,
        CONSUMER,
        _partition_stuck,
        hold="5m",
        keep="5m",
        summary="A consumer does not get on with some of its partitions.",
        description=f"{_WHO} has taken nothing for 15 minutes from {{value}} of its partitions, though records wait "
        "there and more are written. Age of the oldest: {age}; objective: {objective}.",
        numbers=(_count, LATE_BY, _allowed),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerHotPartition",
        Severity.WARNING,
        _TOPIC,
        _hot_partition,
        hold="15m",
        keep="10m",
        summary="One partition of a topic lags far more than the others.",
        description=f"{_WHO} has {{value}} records before it on one partition of {{topic}}: more than five times as "
        "many as on the others on average. Records that wait on the whole topic: {records}.",
        numbers=(_count, Number("records", Format.COUNT, TOPIC_LAG_RECORDS)),
        subject=TOPIC_LAG_RECORDS,
    ),
    Rule(
        "StreamgaugeConsumerNearRetention",
        Severity.CRITICAL,
        CONSUMER,
        _near_retention,
        hold="10m",
        keep="10m",
        summary="A consumer is about to lose records to retention.",
        description=f"{_WHO} has still to read {{value}} of what one of its partitions holds, and the oldest of it is "
        "being deleted. Records known to wait: {records}; age of the oldest: {age}.",
        numbers=(Number(VALUE, Format.SHARE), KNOWN_LAG, LATE_BY),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeConsumerAbandonedTopics",
        Severity.INFO,
        CONSUMER,
        _abandoned,
        hold="15m",
        keep="5m",
        summary="A group has offsets on topics that it no longer reads.",
        description=f"{_WHO} neither subscribes to {{value}} of the topics that it once committed to nor has any of "
        "them assigned. They are no part of its lag.",
        numbers=(_count,),
        subject=OBJECTIVE_SECONDS,
    ),
)
"""What reads metrics by topic and partition: silent where ``metrics.level`` or a cap leaves those out."""
