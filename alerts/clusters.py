"""Alerts about clusters, what happened to their data, and the monitor itself."""

from __future__ import annotations

from alerts.promql import SOURCE, by, equals, last, series
from alerts.rule import VALUE, Format, Number, Rule, Severity
from alerts.words import (
    CLUSTER_UP,
    DROPPED_SERIES,
    FAILURES,
    FINDINGS,
    FRESH,
    INTERVAL_SECONDS,
    LAST_SUCCESS,
    LOOK_SECONDS,
    REMEMBERED,
)

STALE_AFTER_LOOKS = 30
"""No complete look for so many intervals is stale: five minutes at the default of 10 s."""

STALE_AFTER_SECONDS = 300
"""But at least this long, however short the interval."""

_cluster_up = series(CLUSTER_UP)
_incomplete = f"{by('max', SOURCE, last(_cluster_up, FRESH))} == 0"
_absent = f"absent_over_time({_cluster_up}[{FRESH}])"

# A cluster that is down cannot be looked at completely, and a monitor that is gone looks at nothing:
# both have alerts of their own.
_last_look = f"max_over_time({series(LAST_SUCCESS)}[{REMEMBERED}])"
_interval = f"max_over_time({series(INTERVAL_SECONDS)}[{REMEMBERED}])"
_stale_after = by(
    "max",
    SOURCE,
    f"clamp_min({STALE_AFTER_LOOKS} * {_interval}, {STALE_AFTER_SECONDS})\n"
    # A monitor that does not tell its interval must not pass for one that is never stale.
    f"or {_last_look} * 0 + {STALE_AFTER_SECONDS}",
)
_monitor_stale = (
    f"time() - {by('max', SOURCE, _last_look)} > {_stale_after}\n"
    f"unless on ({', '.join(SOURCE)}) {_incomplete}\n"
    f"unless on () {_absent}"
)

# Ten minutes of failures, waited for fifteen: one bad look is out of the window before it can fire.
_failing = by("max", (*SOURCE, "scope"), f"increase({series(FAILURES)}[10m]) > 0")

_monitor_slow = by("max", SOURCE, f"{last(series(LOOK_SECONDS), FRESH)} > {last(series(INTERVAL_SECONDS), FRESH)}")

_dropped = by("max", (), f"{last(series(DROPPED_SERIES), FRESH)} > 0")


def _finding(kind: str, name: str, severity: Severity, summary: str, what: str) -> Rule:
    """Return the rule about one kind of finding: events are told for 15 minutes, conditions while they hold."""
    found = last(series(FINDINGS, equals("finding", kind)), FRESH)
    return Rule(
        name,
        severity,
        ("cluster",),
        by("max", ("cluster",), f"{found} > 0"),
        hold="5m",
        keep="10m",
        summary=summary,
        description=f"{what} on cluster {{cluster}}. Findings of this kind: {{value}}; which topics and partitions, "
        "with old and new offsets: streamgauge lag -o json.",
        numbers=(Number(VALUE, Format.COUNT),),
        subject=CLUSTER_UP,
    )


CLUSTER_RULES: tuple[Rule, ...] = (
    _finding(
        "recreated",
        "StreamgaugeTopicRecreated",
        Severity.WARNING,
        "A topic was deleted and created again.",
        "A topic was created anew under its old name",
    ),
    _finding(
        "truncated",
        "StreamgaugeLogTruncated",
        Severity.CRITICAL,
        "A log was cut: brokers lost records that had been written.",
        "The end of a log fell",
    ),
    _finding(
        "beyond_end",
        "StreamgaugeCommitBeyondEnd",
        Severity.WARNING,
        "A consumer's commit lies beyond the end of its log.",
        "An offset was committed that the log does not reach",
    ),
    _finding(
        "clock_skew",
        "StreamgaugeClockSkew",
        Severity.INFO,
        "Records come from the future: a producer's clock, or ours, is wrong.",
        "Records have timestamps in the future",
    ),
    Rule(
        "StreamgaugeClusterDown",
        Severity.CRITICAL,
        SOURCE,
        _incomplete,
        hold="5m",
        keep="5m",
        summary="A cluster does not answer, or not completely.",
        description="The source {source} of cluster {cluster} does not answer completely: somebody who had to be asked "
        "is away. The last complete look at it ended {since} ago; what could not be read since is unknown.",
        numbers=(Number("since", Format.SECONDS, LAST_SUCCESS, window=REMEMBERED, since=True),),
        subject=CLUSTER_UP,
    ),
    Rule(
        "StreamgaugeSourceFailing",
        Severity.WARNING,
        (*SOURCE, "scope"),
        _failing,
        hold="15m",
        keep="10m",
        summary="Reads of a source fail again and again.",
        description="{value} reads about a {scope} failed in the last 10 minutes at the source {source} of cluster "
        "{cluster}. What they were about is unknown meanwhile.",
        numbers=(Number(VALUE, Format.COUNT),),
        subject=FAILURES,
    ),
    Rule(
        "StreamgaugeMonitorStale",
        Severity.CRITICAL,
        SOURCE,
        _monitor_stale,
        hold="2m",
        summary="The monitor answers, but it has stopped looking at a cluster.",
        description="The last complete look at the source {source} of cluster {cluster} ended {value} ago, and the "
        "monitor does not say that the cluster is down. Alerts about consumers of this cluster cannot be trusted.",
        numbers=(Number(VALUE, Format.SECONDS),),
        subject=CLUSTER_UP,
    ),
    Rule(
        "StreamgaugeMonitorDown",
        Severity.CRITICAL,
        (),
        _absent,
        hold="2m",
        summary="There is no monitor, or it is not scraped: no alert about a consumer can fire.",
        description="Prometheus has seen no streamgauge_cluster_up of any cluster for longer than 3 minutes: the "
        "monitor is down, cannot be scraped, or has no answer yet from any cluster.",
    ),
    Rule(
        "StreamgaugeMonitorSlow",
        Severity.WARNING,
        SOURCE,
        _monitor_slow,
        hold="10m",
        keep="10m",
        summary="The monitor takes longer for a look at a cluster than it has.",
        description="A look at the source {source} of cluster {cluster} takes {value}; one is due every {interval}. "
        "Numbers are older than they should be.",
        numbers=(Number(VALUE, Format.SECONDS), Number("interval", Format.SECONDS, INTERVAL_SECONDS)),
        subject=CLUSTER_UP,
    ),
    Rule(
        "StreamgaugeSeriesDropped",
        Severity.WARNING,
        (),
        _dropped,
        hold="15m",
        keep="10m",
        summary="The monitor has more to tell than its settings allow.",
        description="{value} series are left out of the monitor's answer, so that alerts by partition or topic may be "
        "silent and boards incomplete.",
        numbers=(Number(VALUE, Format.COUNT),),
    ),
)

WATCHDOG = Rule(
    "StreamgaugeWatchdog",
    Severity.NONE,
    (),
    "vector(1)",
    hold="0s",
    summary="Always fires: where it does not arrive, no alert does.",
    description="This alert says that rules are evaluated and notifications delivered. Send it to somebody outside who "
    "raises the alarm when it stops.",
)
