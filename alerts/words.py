"""What rules share: metrics by short names, the windows they are read through, numbers that many texts tell."""

from __future__ import annotations

from alerts.promql import CONSUMER, Matcher, by, differs, equals, last, series
from alerts.rule import Format, Number

FRESH = "3m"
"""How old a sample may be and still count as now: two lost scrapes at Prometheus' default interval of 1 minute."""

LAST_KNOWN = "15m"
"""How long the last known age of a consumer stands in for one that became unknown while a broker is away."""

REMEMBERED = "6h"
"""How long a cluster that vanished from the monitor's answers is missed; after that it counts as taken out."""

LAG_SECONDS = "streamgauge_consumer_max_lag_seconds"
LAG_SECONDS_BOUND = "streamgauge_consumer_max_lag_seconds_bound"
OBJECTIVE_SECONDS = "streamgauge_consumer_objective_seconds"
LAG_RECORDS = "streamgauge_consumer_sum_lag_records"
KNOWN_LAG_RECORDS = "streamgauge_consumer_known_lag_records"
LOST_RECORDS = "streamgauge_consumer_sum_lost_records"
HEALTH = "streamgauge_consumer_health"
MEMBERS = "streamgauge_consumer_members"
PARTITIONS = "streamgauge_consumer_partitions"
REBALANCES = "streamgauge_consumer_rebalances_total"
TOPIC_LAG_RECORDS = "streamgauge_consumer_topic_lag_records"
TOPIC_ABANDONED = "streamgauge_consumer_topic_abandoned"
RECORDS_READ = "streamgauge_consumer_records_total"
POSITION_LAG_RECORDS = "streamgauge_consumer_lag_records"
POSITION_LAG_SECONDS = "streamgauge_consumer_lag_seconds"
RECORDS_WRITTEN = "streamgauge_topic_records_total"
LOG_START = "streamgauge_partition_log_start_offset"
LOG_END = "streamgauge_partition_log_end_offset"
CLUSTER_UP = "streamgauge_cluster_up"
FINDINGS = "streamgauge_findings"
LAST_SUCCESS = "streamgauge_observe_last_success_timestamp_seconds"
INTERVAL_SECONDS = "streamgauge_observe_interval_seconds"
LOOK_SECONDS = "streamgauge_observe_duration_seconds"
FAILURES = "streamgauge_observe_failures_total"
DROPPED_SERIES = "streamgauge_dropped_series"
BATCH_SECONDS = "streamgauge_spark_last_batch_duration_seconds"
INFLIGHT_SECONDS = "streamgauge_spark_inflight_batch_age_seconds"
TRIGGER_SECONDS = "streamgauge_spark_trigger_interval_seconds"
LAST_COMMIT = "streamgauge_spark_last_commit_timestamp_seconds"
WATERMARK = "streamgauge_spark_watermark_timestamp_seconds"
STATE_ROWS = "streamgauge_spark_state_rows"
FAILED = "streamgauge_spark_failed"
INPUT_ROWS = "streamgauge_spark_input_rows_total"
FAUST_UP = "streamgauge_faust_up"
FAUST_EVENTS = "streamgauge_faust_events_total"
FAUST_ERRORS = "streamgauge_faust_event_errors_total"
FAUST_RECOVERING = "streamgauge_faust_recovering"
FAUST_REMAINING = "streamgauge_faust_recovery_remaining_records"

KNOWN_LAG = Number("records", Format.COUNT, KNOWN_LAG_RECORDS)
LATE_BY = Number("age", Format.SECONDS, LAG_SECONDS, window=LAST_KNOWN)

REST = differs("partition", "rest")
"""Leaves out the series that stands for the partitions of a topic that are not exposed one by one."""

ABANDONED = f"{last(series(TOPIC_ABANDONED), LAST_KNOWN)} == 1"
"""Topics that a group no longer reads: nobody is to be woken for those."""


def health(value: str, *matchers: Matcher) -> str:
    """Return the selector of one health of the consumers, or of some of them."""
    return series(HEALTH, equals("health", value), *matchers)


def late(share: float) -> str:
    """Return consumers whose age is above this share of their objective: a floor under tests of growth and spread."""
    age = last(series(LAG_SECONDS), LAST_KNOWN)
    return by("max", CONSUMER, f"{age} > {share:g} * {last(series(OBJECTIVE_SECONDS), FRESH)}")


def with_members() -> str:
    """Return groups that have members: without, it is another matter and another alert."""
    return by("max", CONSUMER, f"{last(series(MEMBERS), FRESH)} > 0")
