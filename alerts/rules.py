"""The alert rules: what to wake somebody for, and what to say.

Three habits run through all expressions.

*Thresholds are data.* The age a consumer is allowed and the trigger interval of a query are metrics, and the rules
compare with those; the only numbers here are windows.

*A gap is not an end.* Every gauge is read through ``last_over_time``: a series that is missing from a scrape or two,
because a cycle failed or the monitor was restarted, leaves the alert as it is. FRESH is shorter than every ``hold``,
so that one single sample can never fire by itself.

*One alert a consumer.* Each expression is compared series by series and then aggregated, so neither its partitions nor
two monitors side by side give two alerts for one thing.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, SOURCE, by, equals, last, series
from alerts.rule import VALUE, Format, Number, Rule, Severity
from monitor.model import Health

FRESH = "3m"
"""How old a sample may be and still count as now: two lost scrapes at Prometheus' default interval of 1 minute."""

LAST_KNOWN = "15m"
"""How long the last known age of a consumer stands in for one that became unknown while a broker is away."""

REMEMBERED = "6h"
"""How long a cluster that vanished from the monitor's answers is missed; after that it counts as taken out."""

STALE_AFTER_LOOKS = 30
"""No complete look for so many intervals is stale: five minutes at the default of 10 s."""

STALE_AFTER_SECONDS = 300
"""But at least this long, however short the interval."""

LAG_SECONDS = "streamgauge_consumer_max_lag_seconds"
LAG_SECONDS_BOUND = "streamgauge_consumer_max_lag_seconds_bound"
OBJECTIVE_SECONDS = "streamgauge_consumer_objective_seconds"
KNOWN_LAG_RECORDS = "streamgauge_consumer_known_lag_records"
HEALTH = "streamgauge_consumer_health"
MEMBERS = "streamgauge_consumer_members"
CLUSTER_UP = "streamgauge_cluster_up"
LAST_SUCCESS = "streamgauge_observe_last_success_timestamp_seconds"
INTERVAL_SECONDS = "streamgauge_observe_interval_seconds"
BATCH_SECONDS = "streamgauge_spark_last_batch_duration_seconds"
INFLIGHT_SECONDS = "streamgauge_spark_inflight_batch_age_seconds"
TRIGGER_SECONDS = "streamgauge_spark_trigger_interval_seconds"

_stopped = series(HEALTH, equals("health", Health.STOPPED))
_unknown = series(HEALTH, equals("health", Health.UNKNOWN))
_losing_data = series(HEALTH, equals("health", Health.LOSING_DATA))
_cluster_up = series(CLUSTER_UP)
_incomplete = f"{by('max', SOURCE, last(_cluster_up, FRESH))} == 0"

# Surely over: the lower end of the age's interval is compared, so that a wide bound raises no alarm by itself. The
# objective is there for as long as the consumer is: it ends the alert of a consumer that is gone, while an age that
# is only unknown for now does not.
_over_objective = by(
    "max",
    CONSUMER,
    f"{last(series(LAG_SECONDS), LAST_KNOWN)} - {last(series(LAG_SECONDS_BOUND), LAST_KNOWN)}\n"
    f"> {last(series(OBJECTIVE_SECONDS), FRESH)}",
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
    f"unless on () absent_over_time({_cluster_up}[{FRESH}])"
)

# The batch in flight counts as well: one that hangs is never committed.
_batch_slower = by(
    "max",
    CONSUMER,
    "\nor\n".join(
        f"{last(series(duration), FRESH)} > {last(series(TRIGGER_SECONDS), FRESH)}"
        for duration in (BATCH_SECONDS, INFLIGHT_SECONDS)
    ),
)

_known_lag = Number("records", Format.COUNT, KNOWN_LAG_RECORDS)

RULES: tuple[Rule, ...] = (
    Rule(
        "StreamgaugeConsumerOverObjective",
        Severity.WARNING,
        CONSUMER,
        _over_objective,
        hold="5m",
        keep="5m",
        summary="A consumer is later than its objective allows.",
        description="The {kind} {consumer} on cluster {cluster} is at least {value} late; its objective is "
        "{objective}. Records known to wait: {records}.",
        numbers=(
            Number(VALUE, Format.SECONDS),
            Number("objective", Format.SECONDS, OBJECTIVE_SECONDS),
            _known_lag,
        ),
    ),
    Rule(
        "StreamgaugeConsumerStopped",
        Severity.CRITICAL,
        CONSUMER,
        _consumer_stopped,
        hold="5m",
        keep="5m",
        summary="Nobody reads for a consumer any more, and records wait for it.",
        description="The {kind} {consumer} on cluster {cluster} has no members, and records wait for it. Records "
        "known to wait: {records}; age of the oldest: {age}; objective: {objective}.",
        numbers=(
            _known_lag,
            Number("age", Format.SECONDS, LAG_SECONDS, window=LAST_KNOWN),
            Number("objective", Format.SECONDS, OBJECTIVE_SECONDS),
        ),
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
    ),
    Rule(
        "StreamgaugeMonitorDown",
        Severity.CRITICAL,
        (),
        f"absent_over_time({_cluster_up}[{FRESH}])",
        hold="2m",
        summary="There is no monitor, or it is not scraped: no alert about a consumer can fire.",
        description="Prometheus has seen no streamgauge_cluster_up of any cluster for longer than 3 minutes: the "
        "monitor is down, cannot be scraped, or has no answer yet from any cluster.",
    ),
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
        numbers=(
            Number(VALUE, Format.SECONDS),
            Number("trigger", Format.SECONDS, TRIGGER_SECONDS),
            _known_lag,
        ),
    ),
)
