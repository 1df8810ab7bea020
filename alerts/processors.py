"""Alerts about stream processors: Faust apps by what their workers report, and topics of dead letters.

That an app is late is told by the alerts about consumers, for an app is a group: what is here explains it, and so calls
nobody at night.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, before, by, last, matches, on, series
from alerts.rule import VALUE, Format, Number, Rule, Severity
from alerts.words import (
    CLUSTER_UP,
    FAUST_ERRORS,
    FAUST_EVENTS,
    FAUST_RECOVERING,
    FAUST_REMAINING,
    FAUST_UP,
    FRESH,
    KNOWN_LAG,
    LAST_KNOWN,
    LATE_BY,
    RECORDS_WRITTEN,
)

ERROR_SHARE = 0.05
"""The share of its records that an app may fail on."""

ERRORS_LEAST = 5
"""Failures in a quarter of an hour that are too few to speak of a share."""

DEAD_LETTERS = "(?i:.+[-_.](dlq|dlt|dead[-_.]?letters?))"
"""Topics of dead letters by their usual names: ``orders-dlq``, ``orders.DLT``, ``orders-dead-letters``."""

_WORKER = (*CONSUMER, "worker")
_AGENT = (*_WORKER, "agent", "topic")

# A worker that was stopped in order is gone from the answers, and so is after a quarter of an hour one that was not.
# Another one in its place, under a name of its own, makes as many as there were before.
_up = series(FAUST_UP)
_reporting = by("sum", CONSUMER, by("max", _WORKER, last(_up, FRESH)))
_reported = by("sum", CONSUMER, by("max", _WORKER, before(_up, FRESH, "20m")))
_gone = (
    by("count", CONSUMER, f"{by('max', _WORKER, last(_up, FRESH))} == 0")
    + f"\nunless {on(CONSUMER)} {_reporting} >= {_reported}"
)


def _in_a_quarter(name: str) -> str:
    """Return how much a count of the agents has grown in 15 minutes, by app."""
    return by("sum", CONSUMER, by("max", _AGENT, f"increase({series(name)}[15m])"))


# Records that could not be decoded are no events, so that there may be more failures than events.
_failing = (
    f"clamp_max(\n{_in_a_quarter(FAUST_ERRORS)}\n/\n{_in_a_quarter(FAUST_EVENTS)},\n1) > {ERROR_SHARE}\n"
    f"and {_in_a_quarter(FAUST_ERRORS)} >= {ERRORS_LEAST}"
)

_recovering, _remaining = series(FAUST_RECOVERING), series(FAUST_REMAINING)
_recovery_stuck = by(
    "count",
    CONSUMER,
    by(
        "max",
        _WORKER,
        f"min_over_time({_recovering}[10m]) == 1\n"
        f"and {last(_remaining, FRESH)} >= {before(_remaining, LAST_KNOWN, '10m')}\n"
        "or\n"
        f"min_over_time({_recovering}[30m]) == 1 and {before(_recovering, LAST_KNOWN, '30m')} == 1\n"
        f"unless {last(_remaining, LAST_KNOWN)}",
    ),
)

# A topic of dead letters is often made by the first of them: a counter that is born with it has not grown.
_TOPIC = ("cluster", "topic")
_written = series(RECORDS_WRITTEN, matches("topic", DEAD_LETTERS))
_dead_letters = by(
    "max",
    _TOPIC,
    f"increase({_written}[15m]) > 0\n"
    "or\n"
    f"({last(_written, FRESH)} > 0 unless {before(_written, LAST_KNOWN, '15m')}\n"
    f"and on (cluster) {before(series(CLUSTER_UP), LAST_KNOWN, '15m')})",
)

_count = Number(VALUE, Format.COUNT)

PROCESSOR_RULES: tuple[Rule, ...] = (
    Rule(
        "StreamgaugeFaustWorkerGone",
        Severity.WARNING,
        CONSUMER,
        _gone,
        hold="5m",
        keep="5m",
        summary="A Faust worker has gone silent, and no other has taken its place.",
        description="Workers of the Faust app {consumer} on cluster {cluster} that stopped reporting without having "
        "been stopped: {value}. Records known to wait: {records}; age of the oldest: {age}.",
        numbers=(_count, KNOWN_LAG, LATE_BY),
        subject=FAUST_UP,
    ),
    Rule(
        "StreamgaugeFaustErrors",
        Severity.WARNING,
        CONSUMER,
        _failing,
        hold="5m",
        keep="10m",
        summary="A Faust app fails on many of its records.",
        description="The Faust app {consumer} on cluster {cluster} failed on {value} of its records in the last 15 "
        "minutes. Records known to wait: {records}.",
        numbers=(Number(VALUE, Format.SHARE), KNOWN_LAG),
        subject=FAUST_UP,
    ),
    Rule(
        "StreamgaugeFaustRecoveryStuck",
        Severity.WARNING,
        CONSUMER,
        _recovery_stuck,
        hold="5m",
        keep="5m",
        summary="A Faust worker does not get on with the recovery of its tables, and processes nothing meanwhile.",
        description="Workers of the Faust app {consumer} on cluster {cluster} that read their tables back from "
        "changelogs and do not get on: {value}. Changelog records that the last of them has still to read: "
        "{remaining}; records known to wait: {records}.",
        numbers=(_count, Number("remaining", Format.COUNT, FAUST_REMAINING), KNOWN_LAG),
        subject=FAUST_UP,
    ),
    Rule(
        "StreamgaugeDeadLetters",
        Severity.WARNING,
        _TOPIC,
        _dead_letters,
        hold="5m",
        keep="10m",
        summary="Records were set aside as dead letters.",
        description="Records written to {topic} on cluster {cluster} in the last 15 minutes, because somebody could "
        "not process them: {value}.",
        numbers=(_count,),
        subject=RECORDS_WRITTEN,
    ),
)
