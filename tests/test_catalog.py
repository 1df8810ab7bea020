"""The catalogue: names and labels are a contract, and the manual's page is made from it."""

import re
from pathlib import Path

import pytest

from monitor.catalog import BY_NAME, LABELS, METRICS, Level, Type, reference_page
from monitor.settings import Metrics

ROOT = Path(__file__).parents[1]

CONSUMER = ("cluster", "kind", "consumer")
POSITION = (*CONSUMER, "topic", "partition")
WORKER = (*CONSUMER, "worker")
CONTRACT = {
    "streamgauge_cluster_up": ("gauge", ("cluster", "source")),
    "streamgauge_partition_log_start_offset": ("gauge", ("cluster", "topic", "partition")),
    "streamgauge_partition_log_end_offset": ("gauge", ("cluster", "topic", "partition")),
    "streamgauge_topic_records_total": ("counter", ("cluster", "topic")),
    "streamgauge_consumer_lag_records": ("gauge", POSITION),
    "streamgauge_consumer_lag_seconds": ("gauge", POSITION),
    "streamgauge_consumer_committed_offset": ("gauge", POSITION),
    "streamgauge_consumer_lag_seconds_bound": ("gauge", POSITION),
    "streamgauge_consumer_lost_records": ("gauge", POSITION),
    "streamgauge_consumer_topic_lag_records": ("gauge", (*CONSUMER, "topic")),
    "streamgauge_consumer_sum_lag_records": ("gauge", CONSUMER),
    "streamgauge_consumer_known_lag_records": ("gauge", CONSUMER),
    "streamgauge_consumer_max_lag_seconds": ("gauge", CONSUMER),
    "streamgauge_consumer_max_lag_seconds_bound": ("gauge", CONSUMER),
    "streamgauge_consumer_sum_lost_records": ("gauge", CONSUMER),
    "streamgauge_consumer_objective_seconds": ("gauge", CONSUMER),
    "streamgauge_consumer_members": ("gauge", CONSUMER),
    "streamgauge_consumer_partition_owner_info": ("gauge", (*POSITION, "client_id", "member_id", "host")),
    "streamgauge_findings": ("gauge", ("cluster", "finding")),
    "streamgauge_consumer_records_total": ("counter", (*CONSUMER, "topic")),
    "streamgauge_consumer_topic_abandoned": ("gauge", (*CONSUMER, "topic")),
    "streamgauge_consumer_rebalances_total": ("counter", CONSUMER),
    "streamgauge_consumer_rebalancing_seconds_total": ("counter", CONSUMER),
    "streamgauge_observe_interval_seconds": ("gauge", ("cluster", "source")),
    "streamgauge_consumer_partitions": ("gauge", (*CONSUMER, "status")),
    "streamgauge_consumer_health": ("gauge", (*CONSUMER, "health")),
    "streamgauge_consumer_state": ("gauge", (*CONSUMER, "state")),
    "streamgauge_consumer_info": ("gauge", (*CONSUMER, "protocol")),
    "streamgauge_spark_batch_duration_seconds": ("histogram", CONSUMER),
    "streamgauge_spark_last_batch_duration_seconds": ("gauge", CONSUMER),
    "streamgauge_spark_trigger_interval_seconds": ("gauge", CONSUMER),
    "streamgauge_spark_last_commit_timestamp_seconds": ("gauge", CONSUMER),
    "streamgauge_spark_inflight_batch_age_seconds": ("gauge", CONSUMER),
    "streamgauge_spark_watermark_timestamp_seconds": ("gauge", CONSUMER),
    "streamgauge_spark_state_rows": ("gauge", CONSUMER),
    "streamgauge_spark_failed": ("gauge", CONSUMER),
    "streamgauge_spark_batches_total": ("counter", CONSUMER),
    "streamgauge_spark_input_rows_total": ("counter", CONSUMER),
    "streamgauge_spark_output_rows_total": ("counter", CONSUMER),
    "streamgauge_spark_restarts_total": ("counter", CONSUMER),
    "streamgauge_spark_batch_phase_seconds_total": ("counter", (*CONSUMER, "phase")),
    "streamgauge_faust_up": ("gauge", WORKER),
    "streamgauge_faust_report_timestamp_seconds": ("gauge", WORKER),
    "streamgauge_faust_start_timestamp_seconds": ("gauge", WORKER),
    "streamgauge_faust_events_total": ("counter", (*WORKER, "agent", "topic")),
    "streamgauge_faust_event_errors_total": ("counter", (*WORKER, "agent", "topic")),
    "streamgauge_faust_event_duration_seconds": ("histogram", (*WORKER, "agent", "topic")),
    "streamgauge_faust_buffered_records": ("gauge", (*WORKER, "agent", "topic")),
    "streamgauge_faust_buffer_size_records": ("gauge", (*WORKER, "agent", "topic")),
    "streamgauge_faust_buffer_full_total": ("counter", WORKER),
    "streamgauge_faust_commits_total": ("counter", WORKER),
    "streamgauge_faust_uncommitted_seconds": ("gauge", WORKER),
    "streamgauge_faust_rebalances_total": ("counter", WORKER),
    "streamgauge_faust_rebalancing_seconds_total": ("counter", WORKER),
    "streamgauge_faust_recovering": ("gauge", WORKER),
    "streamgauge_faust_recovery_remaining_records": ("gauge", WORKER),
    "streamgauge_faust_assigned_partitions": ("gauge", WORKER),
    "streamgauge_faust_table_entries": ("gauge", (*WORKER, "table")),
    "streamgauge_observe_duration_seconds": ("gauge", ("cluster", "source")),
    "streamgauge_observe_last_success_timestamp_seconds": ("gauge", ("cluster", "source")),
    "streamgauge_observe_requests_total": ("counter", ("cluster", "source", "api")),
    "streamgauge_observe_failures_total": ("counter", ("cluster", "source", "scope")),
    "streamgauge_exposed_series": ("gauge", ()),
    "streamgauge_dropped_series": ("gauge", ()),
}
"""What rules and boards of other people rely on: changed only by adding."""


def test_names_types_and_labels_are_the_contract():
    """Other programs rely on them: a metric is added, never renamed or relabelled."""
    catalogue = {metric.name: (str(metric.type), metric.labels) for metric in METRICS}

    assert CONTRACT == catalogue
    assert METRICS == tuple(BY_NAME.values())


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_as_prometheus_asks(metric):
    """Base units in the name, ``_total`` for counters and for nothing else, one line of help."""
    assert re.fullmatch("streamgauge_[a-z_]+", metric.name)
    assert (metric.type is Type.COUNTER) == metric.name.endswith("_total")
    assert (metric.unit in {"seconds", "timestamp"}) == ("_seconds" in metric.name)
    assert (metric.unit == "timestamp") == metric.name.endswith("_timestamp_seconds")
    assert metric.help.endswith(".")
    assert not set(metric.help) & set("\n|\\")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_says_where_its_values_come_from(metric):
    """Histograms have counts, the exposition counts itself, all others are read as a column."""
    sources = {
        "column": metric.read is not None,
        "counts": metric.histograms is not None,
        "itself": metric.level is Level.EXPOSITION,
    }

    assert 1 == sum(sources.values())
    assert (metric.type is Type.HISTOGRAM) == sources["counts"]


def test_what_is_switched_on_by_the_settings_is_a_setting():
    """Every switch the catalogue names is a setting that is off, and every such setting switches something."""
    switches = {metric.opt_in for metric in METRICS} - {None}
    fields = {name for name, field in Metrics.model_fields.items() if field.annotation is bool}

    assert fields == switches
    assert [False] * len(switches) == [getattr(Metrics(), switch) for switch in switches]


def test_every_level_has_labels_and_a_metric():
    """No level without meaning."""
    assert set(Level) == set(LABELS) == {metric.level for metric in METRICS}


def test_the_manual_shows_the_catalogue():
    """docs/metrics.md is generated: ``python -m monitor.catalog > docs/metrics.md`` writes it anew."""
    assert reference_page() == (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
