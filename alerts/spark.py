"""Alerts about Spark queries."""

from __future__ import annotations

from alerts.promql import CONSUMER, before, by, equals, last, on, series
from alerts.rule import VALUE, Format, Number, Rule, Severity
from alerts.words import (
    BATCH_SECONDS,
    FAILED,
    FRESH,
    INFLIGHT_SECONDS,
    INPUT_ROWS,
    KNOWN_LAG,
    KNOWN_LAG_RECORDS,
    LAST_COMMIT,
    LAST_KNOWN,
    LATE_BY,
    OBJECTIVE_SECONDS,
    STATE_ROWS,
    TRIGGER_SECONDS,
    WATERMARK,
    health,
)
from monitor.model import Health, Kind

UNTRIGGERED_SECONDS = 1800
"""What is long for a query whose trigger interval is not in the settings."""

GROWN = 0.05
"""The share by which state grows in six hours if it doubles within five days: less is left to the board."""

# The batch in flight counts as well: one that hangs is never committed.
_batch_slower = by(
    "max",
    CONSUMER,
    "\nor\n".join(
        f"{last(series(duration), FRESH)} > {last(series(TRIGGER_SECONDS), FRESH)}"
        for duration in (BATCH_SECONDS, INFLIGHT_SECONDS)
    ),
)

_trigger = last(series(TRIGGER_SECONDS), FRESH)
_inflight = last(series(INFLIGHT_SECONDS), FRESH)
_since_commit = f"(time() - {last(series(LAST_COMMIT), FRESH)})"


def _too_long(seconds: str, triggers: int, least: int) -> str:
    """Compare with so many trigger intervals, and with half an hour where the interval is unknown."""
    return (
        f"{seconds} > clamp_min({triggers} * {_trigger}, {least})\n"
        "or\n"
        f"({seconds} unless {_trigger}) > {UNTRIGGERED_SECONDS}"
    )


_stuck = by("max", CONSUMER, _too_long(_inflight, 10, 600))

_SPARK = equals("kind", Kind.SPARK)


def _judged(value: Health) -> str:
    """Return queries with this health; a look at which one could not be judged ends nothing."""
    own = health(value, _SPARK)
    return by(
        "max",
        CONSUMER,
        f"{last(own, FRESH)} == 1\n"
        "or\n"
        f"max_over_time({own}[{FRESH}]) == 1 and ignoring (health) {last(health(Health.UNKNOWN, _SPARK), FRESH)} == 1",
    )


_lost, _stopped = _judged(Health.LOST), _judged(Health.STOPPED)
_with_exception = by("max", CONSUMER, f"{last(series(FAILED), FRESH)} == 1")
_failed = f"{_stopped}\nand {_with_exception}"
_ended = f"{_stopped}\nunless {_with_exception}"

# With a batch in flight it is stuck, and one that is lost or has ended has an alert of its own as well; with nothing to
# read it has nothing to commit.
_not_committing = by(
    "max",
    CONSUMER,
    f"(\n{_too_long(_since_commit, 20, 900)}\n)\nand {last(series(KNOWN_LAG_RECORDS), FRESH)} > 0\nunless {_inflight}"
    f"\nunless {on(CONSUMER)} (\n{_lost}\nor\n{_stopped}\n)",
)

_watermark = series(WATERMARK)
_watermark_standing = by(
    "max",
    CONSUMER,
    f"time() - ({last(_watermark, FRESH)} == {before(_watermark, LAST_KNOWN, '30m')})\n"
    f"and increase({series(INPUT_ROWS)}[30m]) > 0",
)

_state = series(STATE_ROWS)


def _state_before(ago: str) -> str:
    return by("max", CONSUMER, before(_state, LAST_KNOWN, ago))


# Windows that close and keys that expire take rows away again: state that fell but once is left alone. So is one that
# fills up and then stands, and one that was empty, of which everything would be growth. Each side is aggregated by
# itself, or a monitor in the place of another would have to be watched for six hours before it sees anything.
_state_now = by("max", CONSUMER, last(_state, FRESH))
_state_growing = (
    f"{_state_now}\n- {_state_before('6h')}\n> {GROWN} * ({_state_before('6h')} > 0)\n"
    f"and {_state_now} > {_state_before('1h')}\n"
    # Prometheus means counters by it, but what it counts is how often a value fell.
    f"and {by('max', CONSUMER, f'resets({_state}[6h])')} == 0"
)

_trigger_number = Number("trigger", Format.SECONDS, TRIGGER_SECONDS)
_duration = Number(VALUE, Format.SECONDS)
_since = Number("since", Format.SECONDS, LAST_COMMIT, window=LAST_KNOWN, since=True)

SPARK_RULES: tuple[Rule, ...] = (
    Rule(
        "StreamgaugeSparkBatchSlowerThanTrigger",
        Severity.WARNING,
        CONSUMER,
        _batch_slower,
        hold="10m",
        keep="5m",
        summary="A Spark query's micro-batches take longer than its trigger interval.",
        description="A micro-batch of the query {consumer} on cluster {cluster} took {value}, or has been in flight "
        "for that long; its trigger interval is {trigger}. Records known to wait: {records}.",
        numbers=(_duration, _trigger_number, KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkStuck",
        Severity.CRITICAL,
        CONSUMER,
        _stuck,
        hold="5m",
        keep="5m",
        summary="A Spark query's micro-batch does not end.",
        description="A micro-batch of the query {consumer} on cluster {cluster} was planned {value} ago and is not "
        "committed; its trigger interval is {trigger}. Records known to wait: {records}.",
        numbers=(_duration, _trigger_number, KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkNotCommitting",
        Severity.CRITICAL,
        CONSUMER,
        _not_committing,
        hold="5m",
        keep="5m",
        summary="A Spark query plans no micro-batches any more, and records wait for it.",
        description="The query {consumer} on cluster {cluster} committed its last micro-batch {value} ago and has none "
        "in flight; its trigger interval is {trigger}. Records known to wait: {records}.",
        numbers=(_duration, _trigger_number, KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkLost",
        Severity.CRITICAL,
        CONSUMER,
        _lost,
        hold="5m",
        keep="5m",
        summary="A Spark query has gone without a word, and records wait for it.",
        description="The query {consumer} on cluster {cluster} does nothing any more and has not said that it ended; "
        "its last commit is {since} ago. Records known to wait: {records}; age of the oldest: {age}.",
        numbers=(_since, KNOWN_LAG, LATE_BY),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkEnded",
        Severity.CRITICAL,
        CONSUMER,
        _ended,
        hold="5m",
        keep="5m",
        summary="A Spark query has ended, and records wait for it.",
        description="The query {consumer} on cluster {cluster} said that it ended; its last commit is {since} ago. "
        "Records known to wait: {records}; age of the oldest: {age}.",
        numbers=(_since, KNOWN_LAG, LATE_BY),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkFailed",
        Severity.CRITICAL,
        CONSUMER,
        _failed,
        hold="5m",
        keep="5m",
        summary="A Spark query has ended with an exception, and records wait for it.",
        description="The query {consumer} on cluster {cluster} said that it ended with an exception; its last commit "
        "is {since} ago. Records known to wait: {records}; age of the oldest: {age}.",
        numbers=(_since, KNOWN_LAG, LATE_BY),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkWatermarkStanding",
        Severity.WARNING,
        CONSUMER,
        _watermark_standing,
        hold="10m",
        keep="5m",
        summary="A Spark query reads, but its watermark stands still.",
        description="The watermark of the query {consumer} on cluster {cluster} is {value} old and has not moved for "
        "30 minutes, though the query reads. Records known to wait: {records}.",
        numbers=(_duration, KNOWN_LAG),
        subject=OBJECTIVE_SECONDS,
    ),
    Rule(
        "StreamgaugeSparkStateGrowing",
        Severity.WARNING,
        CONSUMER,
        _state_growing,
        hold="10m",
        keep="5m",
        summary="A Spark query's state only grows.",
        description="The state of the query {consumer} on cluster {cluster} has grown by {value} rows in 6 hours and "
        "not shrunk once meanwhile. Rows in it now: {rows}.",
        numbers=(Number(VALUE, Format.COUNT), Number("rows", Format.COUNT, STATE_ROWS)),
        subject=OBJECTIVE_SECONDS,
    ),
)
