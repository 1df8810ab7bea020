"""Every metric once: name, type, unit, help, labels, and how to read it from a report.

Exposition, alert rules, boards and the manual read names and meanings from here; none of them spells one out.
A metric has a *level*, which says what its rows are and so which labels they carry. Reading a metric gives one value
a row, in the order of the level's rows: integer columns hold -1 and float columns NaN where the value is unknown, and
an unknown value is a series that is absent, never a zero.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from monitor.model import (
    HEALTHS,
    UNKNOWN,
    ClusterReport,
    Consumer,
    DurationHistogram,
    FaustAgent,
    FaustWorker,
    Floats,
    Int64s,
    Member,
    SparkFacts,
    TopicPartition,
    Why,
)

Column: TypeAlias = Int64s | Floats
"""Values row for row: int64 with -1, or float64 with NaN, where unknown. Known values are never negative."""


class Type(StrEnum):
    """Prometheus' metric types that are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Level(StrEnum):
    """What the rows of a metric are. LABELS has the labels of each, and the comments say the order of the rows."""

    SOURCE = "source"  # ClusterReport.sources
    REQUEST = "request"  # ClusterReport.requests_total
    FAILURE = "failure"  # ClusterReport.failures_total
    PARTITION = "partition"  # ClusterReport.partitions.layout
    TOPIC = "topic"  # ClusterReport.partitions.layout.topics
    POSITION = "position"  # ClusterReport.positions.layout
    CONSUMER_TOPIC = "consumer_topic"  # ClusterReport.consumer_topics
    CONSUMER = "consumer"  # ClusterReport.positions.layout.consumers
    CONSUMER_STATUS = "consumer_status"  # each consumer's PARTITION_STATUSES, consumer by consumer
    CONSUMER_HEALTH = "consumer_health"  # each consumer's HEALTHS, consumer by consumer
    CONSUMER_STATE = "consumer_state"  # each consumer's GROUP_STATES, consumer by consumer
    CONSUMER_PROTOCOL = "consumer_protocol"  # one a consumer, with its protocol as label
    OWNER = "owner"  # owner_rows(report): who owns which partition
    FINDING = "finding"  # finding_kinds(report)
    SPARK = "spark"  # ClusterReport.spark
    SPARK_PHASE = "spark_phase"  # spark_phases(report): each query's phases, query by query
    FAUST_WORKER = "faust_worker"  # ClusterReport.faust
    FAUST_AGENT = "faust_agent"  # faust_agents(report): each worker's agents, worker by worker
    FAUST_TABLE = "faust_table"  # faust_tables(report): each worker's tables, worker by worker
    EXPOSITION = "exposition"  # one row: the exposition counts itself


LABELS: Mapping[Level, tuple[str, ...]] = MappingProxyType(
    {
        Level.SOURCE: ("cluster", "source"),
        Level.REQUEST: ("cluster", "source", "api"),
        Level.FAILURE: ("cluster", "source", "scope"),
        Level.PARTITION: ("cluster", "topic", "partition"),
        Level.TOPIC: ("cluster", "topic"),
        Level.POSITION: ("cluster", "kind", "consumer", "topic", "partition"),
        Level.CONSUMER_TOPIC: ("cluster", "kind", "consumer", "topic"),
        Level.CONSUMER: ("cluster", "kind", "consumer"),
        Level.CONSUMER_STATUS: ("cluster", "kind", "consumer", "status"),
        Level.CONSUMER_HEALTH: ("cluster", "kind", "consumer", "health"),
        Level.CONSUMER_STATE: ("cluster", "kind", "consumer", "state"),
        Level.CONSUMER_PROTOCOL: ("cluster", "kind", "consumer", "protocol"),
        Level.OWNER: ("cluster", "kind", "consumer", "topic", "partition", "client_id", "member_id", "host"),
        Level.FINDING: ("cluster", "finding"),
        Level.SPARK: ("cluster", "kind", "consumer"),
        Level.SPARK_PHASE: ("cluster", "kind", "consumer", "phase"),
        Level.FAUST_WORKER: ("cluster", "kind", "consumer", "worker"),
        Level.FAUST_AGENT: ("cluster", "kind", "consumer", "worker", "agent", "topic"),
        Level.FAUST_TABLE: ("cluster", "kind", "consumer", "worker", "table"),
        Level.EXPOSITION: (),
    }
)

PARTITION_STATUSES = ("known", "unknown")

FINDING_KINDS = ("beyond_end", "clock_skew", "lost", "recreated", "rewound", "truncated")
"""What deriving can find. A source may find more: those kinds have rows only while there is such a finding."""

GROUP_STATES = (
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
    "NotReady",
    "Dead",
)
"""The states a group of any protocol can be in, as Kafka spells them (org.apache.kafka.common.GroupState)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``unit`` is what a value counts or measures, for boards and the manual.

    ``read`` gives the column of a gauge or counter and ``histograms`` those of a histogram, row for row with the
    level; both are None where the exposition itself knows the value.
    ``opt_in`` names the field of ``settings.Metrics`` that switches it on; None: always on.
    """

    name: str
    type: Type
    unit: str
    level: Level
    help: str
    read: Callable[[ClusterReport], Column] | None = None
    histograms: Callable[[ClusterReport], Sequence[DurationHistogram]] | None = None
    opt_in: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of its labels in the order they are exposed (a histogram adds ``le``)."""
        return LABELS[self.level]


# --- rows that are no layout ------------------------------------------------------------------------


def owner_rows(report: ClusterReport) -> Iterator[tuple[Consumer, TopicPartition, Member]]:
    """Yield every partition that a member of a group owns, with its owner, member by member.

    A consumer whose members were not read has no rows, nor has a member without partitions.
    """
    for facts in report.groups:
        for owner in facts.owners:
            for owned in owner.assigned:
                yield facts.consumer, owned, owner


def finding_kinds(report: ClusterReport) -> tuple[str, ...]:
    """Return the kinds of findings that are counted: those that deriving knows, whether there are any or not."""
    return tuple(sorted({*FINDING_KINDS, *(finding.kind for finding in report.findings)}))


def faust_agents(report: ClusterReport) -> Iterator[tuple[FaustWorker, FaustAgent]]:
    """Yield every agent and topic of every Faust worker that reports."""
    for worker in report.faust:
        for agent in worker.agents:
            yield worker, agent


def spark_phases(report: ClusterReport) -> Iterator[tuple[int, str, float]]:
    """Yield every phase of every Spark query that tells them: the consumer's index, the phase, its seconds in all."""
    for index, facts in report.spark.items():
        for phase, seconds in facts.phase_seconds_total.items():
            yield index, phase, seconds


def faust_tables(report: ClusterReport) -> Iterator[tuple[FaustWorker, str, int | None]]:
    """Yield every table of every Faust worker that reports, with its number of entries."""
    for worker in report.faust:
        for table, entries in worker.tables.items():
            yield worker, table, entries


# --- columns that take more than a name --------------------------------------------------------------


def _known_lag(report: ClusterReport) -> Int64s:
    """A lower bound from no known partition at all says nothing: then it is unknown."""
    consumers = report.consumers
    return np.where(consumers.partitions_known > 0, consumers.known_lag_records, UNKNOWN)


def _partition_counts(report: ClusterReport) -> Int64s:
    """Without positions the counts are 0 only where that is what was read."""
    consumers = report.consumers
    unread = (consumers.partitions_known + consumers.partitions_unknown == 0) & (consumers.why != Why.NO_POSITIONS)
    counts = np.column_stack((consumers.partitions_known, consumers.partitions_unknown))
    counts[unread] = UNKNOWN
    return _flat(counts)


def _health_flags(report: ClusterReport) -> Int64s:
    return _flat(report.consumers.health[:, None] == np.arange(len(HEALTHS), dtype=np.int8))


def _state_flags(report: ClusterReport) -> Int64s:
    number = {state: index for index, state in enumerate(GROUP_STATES)}
    states = np.fromiter((number.get(each.state or "", UNKNOWN) for each in report.groups), np.int64)
    flags = (states[:, None] == np.arange(len(GROUP_STATES))).astype(np.int64)
    flags[states == UNKNOWN] = UNKNOWN
    return _flat(flags)


def _protocol_known(report: ClusterReport) -> Int64s:
    return np.fromiter((1 if each.protocol else UNKNOWN for each in report.groups), np.int64)


def _owned(report: ClusterReport) -> Int64s:
    return np.ones(sum(len(owner.assigned) for each in report.groups for owner in each.owners), np.int64)


def _finding_counts(report: ClusterReport) -> Int64s:
    counts = Counter(finding.kind for finding in report.findings)
    return np.array([counts[kind] for kind in finding_kinds(report)], np.int64)


def _last_success(report: ClusterReport) -> Floats:
    return _floats(source.last_success for source in report.sources)


def _flat(table: npt.NDArray[Any]) -> Int64s:
    """Return a table of a few values a consumer as one column, consumer by consumer."""
    column: Int64s = table.astype(np.int64).reshape(-1)
    return column


def _floats(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _spark(read: Callable[[SparkFacts], float | None]) -> Callable[[ClusterReport], Floats]:
    return lambda report: _floats(read(facts) for facts in report.spark.values())


def _spark_count(read: Callable[[SparkFacts], int]) -> Callable[[ClusterReport], Int64s]:
    return lambda report: np.fromiter((read(facts) for facts in report.spark.values()), np.int64)


def _state_rows(facts: SparkFacts) -> int | None:
    """A query without state and one that tells none look alike: neither has a number."""
    return sum(each.rows for each in facts.query.state) if facts.query.state else None


def _spark_failed(facts: SparkFacts) -> bool | None:
    """Only a listener tells how a query ended: without one it is unknown, also for one that seems to run."""
    return facts.query.exception is not None if "listener" in facts.query.seen_by else None


def _faust(read: Callable[[FaustWorker], float | None], *, of_now: bool = True) -> Callable[[ClusterReport], Floats]:
    """Read something of each worker; what it said of the moment (``of_now``) is unknown once it is silent."""
    return lambda report: _floats(None if of_now and each.is_silent else read(each) for each in report.faust)


def _faust_count(read: Callable[[FaustWorker], int]) -> Callable[[ClusterReport], Int64s]:
    return lambda report: np.fromiter((read(each) for each in report.faust), np.int64)


def _faust_count_now(read: Callable[[FaustWorker], int | None]) -> Callable[[ClusterReport], Int64s]:
    def column(report: ClusterReport) -> Int64s:
        told = (None if each.is_silent else read(each) for each in report.faust)
        return np.fromiter((UNKNOWN if each is None else each for each in told), np.int64)

    return column


def _faust_agent_count(read: Callable[[FaustAgent], int]) -> Callable[[ClusterReport], Int64s]:
    return lambda report: np.fromiter((read(agent) for _, agent in faust_agents(report)), np.int64)


def _faust_buffers(read: Callable[[FaustAgent], int | None]) -> Callable[[ClusterReport], Int64s]:
    def column(report: ClusterReport) -> Int64s:
        told = ((None if worker.is_silent else read(agent)) for worker, agent in faust_agents(report))
        return np.fromiter((UNKNOWN if each is None else each for each in told), np.int64)

    return column


def _faust_entries(report: ClusterReport) -> Int64s:
    told = (UNKNOWN if entries is None or worker.is_silent else entries for worker, _, entries in faust_tables(report))
    return np.fromiter(told, np.int64)


def _assigned(worker: FaustWorker) -> int | None:
    return None if worker.assigned is None else sum(map(len, worker.assigned.values()))


# --- the metrics, in the order they are exposed ------------------------------------------------------

METRICS: tuple[Metric, ...] = (
    Metric(
        "streamgauge_cluster_up",
        Type.GAUGE,
        "bool",
        Level.SOURCE,
        "Whether the last look at this source of the cluster was complete: 1 if everyone asked answered, else 0.",
        lambda report: np.fromiter((source.up for source in report.sources), np.int64),
    ),
    Metric(
        "streamgauge_consumer_sum_lag_records",
        Type.GAUGE,
        "records",
        Level.CONSUMER,
        "Records the consumer has still to read, over all its partitions; absent while any of them is unknown.",
        lambda report: report.consumers.lag_records,
    ),
    Metric(
        "streamgauge_consumer_known_lag_records",
        Type.GAUGE,
        "records",
        Level.CONSUMER,
        "Records the consumer has still to read on its known partitions: a lower bound of the sum.",
        _known_lag,
    ),
    Metric(
        "streamgauge_consumer_max_lag_seconds",
        Type.GAUGE,
        "seconds",
        Level.CONSUMER,
        "Age of the oldest record the consumer has still to read, on any partition; absent while one is unknown.",
        lambda report: report.consumers.lag_seconds,
    ),
    Metric(
        "streamgauge_consumer_max_lag_seconds_bound",
        Type.GAUGE,
        "seconds",
        Level.CONSUMER,
        "The true age lies within streamgauge_consumer_max_lag_seconds plus or minus this.",
        lambda report: report.consumers.lag_seconds_bound,
    ),
    Metric(
        "streamgauge_consumer_sum_lost_records",
        Type.GAUGE,
        "records",
        Level.CONSUMER,
        "Records that were deleted before the consumer read them: its commits lie that far below the log starts.",
        lambda report: report.consumers.lost_records,
    ),
    Metric(
        "streamgauge_consumer_objective_seconds",
        Type.GAUGE,
        "seconds",
        Level.CONSUMER,
        "The age the consumer is allowed, from the settings.",
        lambda report: report.consumers.objective_seconds,
    ),
    Metric(
        "streamgauge_consumer_members",
        Type.GAUGE,
        "members",
        Level.CONSUMER,
        "Members of the group.",
        lambda report: report.consumers.members,
    ),
    Metric(
        "streamgauge_consumer_rebalances_total",
        Type.COUNTER,
        "rebalances",
        Level.CONSUMER,
        "Rebalances of the group since the monitor first saw it: all of them where its protocol numbers them (group "
        "epoch), else those that were noticed.",
        lambda report: report.consumers.rebalances.count,
    ),
    Metric(
        "streamgauge_consumer_rebalancing_seconds_total",
        Type.COUNTER,
        "seconds",
        Level.CONSUMER,
        "Seconds that those rebalances took, at least: from the first to the last look at each.",
        lambda report: report.consumers.rebalances.seconds,
    ),
    Metric(
        "streamgauge_consumer_partitions",
        Type.GAUGE,
        "partitions",
        Level.CONSUMER_STATUS,
        "Partitions of the consumer whose lag is known, and those whose lag is unknown; none of abandoned topics.",
        _partition_counts,
    ),
    Metric(
        "streamgauge_consumer_health",
        Type.GAUGE,
        "bool",
        Level.CONSUMER_HEALTH,
        "What the consumer's position means: 1 for the health it is in, 0 for every other.",
        _health_flags,
    ),
    Metric(
        "streamgauge_consumer_state",
        Type.GAUGE,
        "bool",
        Level.CONSUMER_STATE,
        "The group's state as Kafka reports it: 1 for the state it is in, 0 for every other.",
        _state_flags,
    ),
    Metric(
        "streamgauge_consumer_info",
        Type.GAUGE,
        "bool",
        Level.CONSUMER_PROTOCOL,
        "Always 1: the group's protocol as label.",
        _protocol_known,
    ),
    Metric(
        "streamgauge_consumer_topic_lag_records",
        Type.GAUGE,
        "records",
        Level.CONSUMER_TOPIC,
        "Records the consumer has still to read of a topic; absent while any of its partitions there is unknown.",
        lambda report: report.consumer_topics.lag_records,
    ),
    Metric(
        "streamgauge_consumer_topic_abandoned",
        Type.GAUGE,
        "bool",
        Level.CONSUMER_TOPIC,
        "1 where the group neither subscribes to the topic nor has any of it assigned, so that it is no part of its "
        "lag, else 0; absent where its subscription is unknown.",
        lambda report: report.consumer_topics.abandoned.astype(np.int64),
    ),
    Metric(
        "streamgauge_consumer_records_total",
        Type.COUNTER,
        "records",
        Level.CONSUMER_TOPIC,
        "Records of a topic the consumer has read since the monitor started, by its committed offsets.",
        lambda report: report.consumer_topics.records_total,
    ),
    Metric(
        "streamgauge_consumer_lag_records",
        Type.GAUGE,
        "records",
        Level.POSITION,
        "Records the consumer has still to read of a partition: log end less the committed offset or the log start, "
        "whichever is higher.",
        lambda report: report.positions.lag_records,
    ),
    Metric(
        "streamgauge_consumer_lag_seconds",
        Type.GAUGE,
        "seconds",
        Level.POSITION,
        "Age of the first record of a partition that the consumer has still to read; 0 where it has read them all.",
        lambda report: report.positions.lag_seconds,
    ),
    Metric(
        "streamgauge_consumer_lag_seconds_bound",
        Type.GAUGE,
        "seconds",
        Level.POSITION,
        "The true age lies within streamgauge_consumer_lag_seconds plus or minus this.",
        lambda report: report.positions.lag_seconds_bound,
        opt_in="lag_seconds_bound",
    ),
    Metric(
        "streamgauge_consumer_committed_offset",
        Type.GAUGE,
        "offset",
        Level.POSITION,
        "Offset of the next record the consumer will read of a partition, as committed.",
        lambda report: report.positions.committed,
        opt_in="committed_offset",
    ),
    Metric(
        "streamgauge_consumer_lost_records",
        Type.GAUGE,
        "records",
        Level.POSITION,
        "Records of a partition that were deleted before the consumer read them.",
        lambda report: report.positions.lost_records,
        opt_in="lost_records",
    ),
    Metric(
        "streamgauge_consumer_partition_owner_info",
        Type.GAUGE,
        "bool",
        Level.OWNER,
        "Always 1: the member that owns the partition, as labels.",
        _owned,
        opt_in="owner_info",
    ),
    Metric(
        "streamgauge_topic_records_total",
        Type.COUNTER,
        "records",
        Level.TOPIC,
        "Records ever written to a topic, by its log ends; absent while the log end of any partition is unknown.",
        lambda report: report.topics.records_total,
    ),
    Metric(
        "streamgauge_partition_log_start_offset",
        Type.GAUGE,
        "offset",
        Level.PARTITION,
        "Offset of the first record that is still there.",
        lambda report: report.partitions.log_start,
    ),
    Metric(
        "streamgauge_partition_log_end_offset",
        Type.GAUGE,
        "offset",
        Level.PARTITION,
        "Offset that the next record written will have.",
        lambda report: report.partitions.log_end,
    ),
    Metric(
        "streamgauge_spark_batch_duration_seconds",
        Type.HISTOGRAM,
        "seconds",
        Level.SPARK,
        "How long micro-batches took from being planned to being committed, since the monitor first saw the query.",
        histograms=lambda report: [facts.durations for facts in report.spark.values()],
    ),
    Metric(
        "streamgauge_spark_last_batch_duration_seconds",
        Type.GAUGE,
        "seconds",
        Level.SPARK,
        "How long the last committed micro-batch took; absent where it spans a restart.",
        _spark(lambda facts: facts.last_batch_duration_seconds),
    ),
    Metric(
        "streamgauge_spark_trigger_interval_seconds",
        Type.GAUGE,
        "seconds",
        Level.SPARK,
        "The query's trigger interval, from the settings or its listener, else the one that its batches keep to.",
        _spark(lambda facts: facts.trigger_interval_seconds),
    ),
    Metric(
        "streamgauge_spark_restarts_total",
        Type.COUNTER,
        "restarts",
        Level.SPARK,
        "Restarts of the query since the monitor first saw it.",
        _spark_count(lambda facts: facts.restarts_total),
    ),
    Metric(
        "streamgauge_spark_last_commit_timestamp_seconds",
        Type.GAUGE,
        "timestamp",
        Level.SPARK,
        "When the last micro-batch was committed, seconds since the epoch.",
        _spark(lambda facts: facts.last_commit_at),
    ),
    Metric(
        "streamgauge_spark_inflight_batch_age_seconds",
        Type.GAUGE,
        "seconds",
        Level.SPARK,
        "How long ago the micro-batch in flight was planned; absent while none is.",
        _spark(lambda facts: facts.inflight_batch_age_seconds),
    ),
    Metric(
        "streamgauge_spark_watermark_timestamp_seconds",
        Type.GAUGE,
        "timestamp",
        Level.SPARK,
        "The query's event-time watermark, seconds since the epoch; absent for a query without one.",
        _spark(lambda facts: facts.query.watermark),
    ),
    Metric(
        "streamgauge_spark_state_rows",
        Type.GAUGE,
        "rows",
        Level.SPARK,
        "Rows in the query's state after its last micro-batch, over all its stateful operators; absent for a query "
        "without state, and unless its listener tells them.",
        _spark(_state_rows),
    ),
    Metric(
        "streamgauge_spark_failed",
        Type.GAUGE,
        "bool",
        Level.SPARK,
        "Whether the query told that it ended with an exception and has not run since: 1 if so, else 0; absent unless "
        "it has a listener.",
        _spark(_spark_failed),
    ),
    Metric(
        "streamgauge_spark_batches_total",
        Type.COUNTER,
        "batches",
        Level.SPARK,
        "Micro-batches committed since the monitor first saw the query.",
        _spark_count(lambda facts: facts.batches_total),
    ),
    Metric(
        "streamgauge_spark_input_rows_total",
        Type.COUNTER,
        "rows",
        Level.SPARK,
        "Records in the offset ranges of those micro-batches: an upper bound where topics are compacted or "
        "transactional.",
        _spark_count(lambda facts: facts.input_rows_total),
    ),
    Metric(
        "streamgauge_spark_output_rows_total",
        Type.COUNTER,
        "rows",
        Level.SPARK,
        "Rows that micro-batches wrote since the monitor first saw the query; absent unless its listener tells them.",
        _spark(lambda facts: facts.output_rows_total),
    ),
    Metric(
        "streamgauge_spark_batch_phase_seconds_total",
        Type.COUNTER,
        "seconds",
        Level.SPARK_PHASE,
        "How long micro-batches spent in each phase (addBatch, walCommit, …) since the monitor first saw the query; "
        "absent unless its listener tells them.",
        lambda report: _floats(seconds for _, _, seconds in spark_phases(report)),
    ),
    Metric(
        "streamgauge_faust_up",
        Type.GAUGE,
        "bool",
        Level.FAUST_WORKER,
        "Whether the Faust worker reports: 0 once it should have again and did not. One that was stopped is gone.",
        lambda report: np.fromiter((not each.is_silent for each in report.faust), np.int64),
    ),
    Metric(
        "streamgauge_faust_report_timestamp_seconds",
        Type.GAUGE,
        "timestamp",
        Level.FAUST_WORKER,
        "When the worker made its latest report, by its own clock, seconds since the epoch.",
        _faust(lambda each: each.reported_at, of_now=False),
    ),
    Metric(
        "streamgauge_faust_start_timestamp_seconds",
        Type.GAUGE,
        "timestamp",
        Level.FAUST_WORKER,
        "When the worker started, by its own clock, seconds since the epoch.",
        _faust(lambda each: each.started_at, of_now=False),
    ),
    Metric(
        "streamgauge_faust_events_total",
        Type.COUNTER,
        "records",
        Level.FAUST_AGENT,
        "Records that an agent of the worker has processed since the worker started, those it raised on included.",
        _faust_agent_count(lambda each: each.events_total),
    ),
    Metric(
        "streamgauge_faust_event_errors_total",
        Type.COUNTER,
        "records",
        Level.FAUST_AGENT,
        "Records that an agent raised on or set aside as failed, and those that could not be decoded for it.",
        _faust_agent_count(lambda each: each.errors_total),
    ),
    Metric(
        "streamgauge_faust_event_duration_seconds",
        Type.HISTOGRAM,
        "seconds",
        Level.FAUST_AGENT,
        "How long an agent took over a record, from being handed it to being done with it.",
        histograms=lambda report: [agent.durations for _, agent in faust_agents(report)],
    ),
    Metric(
        "streamgauge_faust_buffered_records",
        Type.GAUGE,
        "records",
        Level.FAUST_AGENT,
        "Records that wait in the worker for an agent.",
        _faust_buffers(lambda each: each.buffered),
    ),
    Metric(
        "streamgauge_faust_buffer_size_records",
        Type.GAUGE,
        "records",
        Level.FAUST_AGENT,
        "Records that may wait in the worker for an agent before its partitions are paused.",
        _faust_buffers(lambda each: each.buffer_size),
    ),
    Metric(
        "streamgauge_faust_buffer_full_total",
        Type.COUNTER,
        "pauses",
        Level.FAUST_WORKER,
        "How often a partition was paused because agents did not keep up.",
        _faust_count(lambda each: each.buffer_full_total),
    ),
    Metric(
        "streamgauge_faust_commits_total",
        Type.COUNTER,
        "commits",
        Level.FAUST_WORKER,
        "Commits of the worker that went through.",
        _faust_count(lambda each: each.commits_total),
    ),
    Metric(
        "streamgauge_faust_uncommitted_seconds",
        Type.GAUGE,
        "seconds",
        Level.FAUST_WORKER,
        "How long the oldest processed record has waited for a commit of its partition; 0 where none waits.",
        _faust(lambda each: each.uncommitted_seconds),
    ),
    Metric(
        "streamgauge_faust_rebalances_total",
        Type.COUNTER,
        "rebalances",
        Level.FAUST_WORKER,
        "Rebalances that the worker took part in since it started, its first one included.",
        _faust_count(lambda each: each.rebalances_total),
    ),
    Metric(
        "streamgauge_faust_rebalancing_seconds_total",
        Type.COUNTER,
        "seconds",
        Level.FAUST_WORKER,
        "Seconds for which rebalances have kept the worker from its records, recovery of its tables included.",
        _faust(lambda each: each.rebalancing_seconds_total, of_now=False),
    ),
    Metric(
        "streamgauge_faust_recovering",
        Type.GAUGE,
        "bool",
        Level.FAUST_WORKER,
        "Whether the worker reads its tables back from their changelogs: 1 while it does, else 0.",
        _faust_count_now(lambda each: each.recovering),
    ),
    Metric(
        "streamgauge_faust_recovery_remaining_records",
        Type.GAUGE,
        "records",
        Level.FAUST_WORKER,
        "Records of changelogs that the worker has still to read before its tables are recovered.",
        _faust_count_now(lambda each: each.recovery_remaining),
    ),
    Metric(
        "streamgauge_faust_assigned_partitions",
        Type.GAUGE,
        "partitions",
        Level.FAUST_WORKER,
        "Partitions that the worker has, those of its own internal topics included.",
        _faust_count_now(_assigned),
    ),
    Metric(
        "streamgauge_faust_table_entries",
        Type.GAUGE,
        "entries",
        Level.FAUST_TABLE,
        "Entries of a table in the worker; an estimate for RocksDB.",
        _faust_entries,
    ),
    Metric(
        "streamgauge_findings",
        Type.GAUGE,
        "findings",
        Level.FINDING,
        "Findings about the cluster's data right now, by kind.",
        _finding_counts,
    ),
    Metric(
        "streamgauge_observe_duration_seconds",
        Type.GAUGE,
        "seconds",
        Level.SOURCE,
        "How long the last look at this source took.",
        lambda report: _floats(source.duration_seconds for source in report.sources),
    ),
    Metric(
        "streamgauge_observe_interval_seconds",
        Type.GAUGE,
        "seconds",
        Level.SOURCE,
        "How often this source is looked at, from the settings.",
        lambda report: _floats(source.interval_seconds for source in report.sources),
    ),
    Metric(
        "streamgauge_observe_last_success_timestamp_seconds",
        Type.GAUGE,
        "timestamp",
        Level.SOURCE,
        "When the last complete look at this source ended, seconds since the epoch; absent until there is one.",
        _last_success,
    ),
    Metric(
        "streamgauge_observe_requests_total",
        Type.COUNTER,
        "requests",
        Level.REQUEST,
        "Requests sent to this source, by API, since the monitor started.",
        lambda report: np.fromiter(report.requests_total.values(), np.int64),
    ),
    Metric(
        "streamgauge_observe_failures_total",
        Type.COUNTER,
        "failures",
        Level.FAILURE,
        "Reads of this source that failed, by what they were about, since the monitor started.",
        lambda report: np.fromiter(report.failures_total.values(), np.int64),
    ),
    Metric(
        "streamgauge_exposed_series",
        Type.GAUGE,
        "series",
        Level.EXPOSITION,
        "Series in this answer, this one included.",
    ),
    Metric(
        "streamgauge_dropped_series",
        Type.GAUGE,
        "series",
        Level.EXPOSITION,
        "Series left out of this answer because there are more than the settings allow.",
    ),
)

BY_NAME: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in METRICS})


# --- the manual's page -------------------------------------------------------------------------------

_PAGE_HEAD = """\
# Metrics

Served at `/metrics` in the Prometheus text format 0.0.4. A value that is unknown in a cycle is a series that is absent
from that answer: no series is ever 0 or NaN for want of knowledge. Beyond `metrics.max_positions` the
positions that lag most stay exact, and the others of each consumer and topic are one series with `partition="rest"`;
`streamgauge_dropped_series` says how many series are left out. See [How many series](series.md).
The process's own `process_*` and `python_*` metrics follow at the end.

A consumer is out of its objective where `streamgauge_consumer_max_lag_seconds` less its bound exceeds
`streamgauge_consumer_objective_seconds`.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def reference_page() -> str:
    """Return ``docs/metrics.md``: the catalogue as a page of the manual."""
    return _PAGE_HEAD + "".join(map(_page_row, METRICS))


def _page_row(metric: Metric) -> str:
    opt_in = f" Off unless `metrics.{metric.opt_in}` is true." if metric.opt_in else ""
    labels = ", ".join(metric.labels)
    return f"| `{metric.name}` | {metric.type} | {labels} | {metric.help}{opt_in} |\n"


if __name__ == "__main__":  # python -m monitor.catalog > docs/metrics.md
    sys.stdout.write(reference_page())
