"""The words: what one poll saw (Snapshot), what it means (Report), and the keys between them.

A cluster has ten thousands of positions (a consumer on a partition), so whatever exists once a
partition or once a position is a numpy column here; objects exist once a consumer or once a cluster.
Columns of one table have the same length and order, and a *layout* names their rows. A layout keeps
its identity (``is``) for as long as nothing came or went, so that later steps can keep what they built on it.

Unknown is a value: offsets and counts use ``UNKNOWN`` (-1), seconds use NaN, and the column ``why``
beside them says the reason (0 means known). Times are seconds since the epoch as floats; record
timestamps on the wire are integer milliseconds and named so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Int16s = npt.NDArray[np.int16]
Int8s = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

UNKNOWN = -1
"""In integer columns: no value. Offsets, lags and counts are never negative."""


# --- keys -------------------------------------------------------------------------------------------


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Kind(StrEnum):
    """Who reads: see the word *consumer* in the manual."""

    GROUP = "group"
    SHARE_GROUP = "share_group"
    SPARK = "spark"


class Consumer(NamedTuple):
    """A reader of a cluster. ``name`` is the group id or, for Spark, the shown name of the query."""

    kind: Kind
    name: str


class Health(StrEnum):
    """What a consumer's position means, gravest first; UNKNOWN only where nothing known is worse than ok."""

    LOSING_DATA = "losing_data"
    LOST = "lost"
    STALLED = "stalled"
    STOPPED = "stopped"
    BLOCKED = "blocked"
    FALLING_BEHIND = "falling_behind"
    REWOUND = "rewound"
    CATCHING_UP = "catching_up"
    UNKNOWN = "unknown"
    OK = "ok"


HEALTHS: tuple[Health, ...] = tuple(Health)
"""Health as a column holds its index in here: the smaller, the graver."""


class Basis(IntEnum):
    """What a lag in seconds rests on."""

    NONE = 0
    RECORD = 1
    """The record's own timestamp, placed by look-ups."""
    ARRIVAL = 2
    """When the record arrived, placed between two of our own readings of the log end."""


# --- why something is unknown -----------------------------------------------------------------------


class Why(IntEnum):
    """Our own reasons for an unknown; the broker's reasons are its error codes (-1 and 1 to 999)."""

    KNOWN = 0
    NO_COMMIT = 1000
    TIMEOUT = 1001
    DISCONNECTED = 1002
    REFUSED = 1003
    MALFORMED = 1004
    NO_LEADER = 1005
    NO_COORDINATOR = 1006
    TOPIC_GONE = 1007
    NOT_ASKED = 1008
    UNSUPPORTED = 1009
    BEYOND_END = 1010
    PART_UNKNOWN = 1011
    NOT_PLACED = 1012
    NO_TIMESTAMP = 1013
    LAG_UNKNOWN = 1014
    SHARE_GROUP = 1015
    FIRST_READING = 1016
    NO_POSITIONS = 1017
    CHECKPOINT = 1018
    NEW_COORDINATOR = 1019
    THROTTLED = 1020
    SHARE_AGE = 1021


WHY_TEXT: dict[int, str] = {
    Why.KNOWN: "",
    Why.NO_COMMIT: "no offset committed yet",
    Why.TIMEOUT: "the broker did not answer in time",
    Why.DISCONNECTED: "the connection broke",
    Why.REFUSED: "the broker could not be connected",
    Why.MALFORMED: "the answer could not be decoded",
    Why.NO_LEADER: "the partition has no leader",
    Why.NO_COORDINATOR: "no broker coordinates the group right now",
    Why.TOPIC_GONE: "the topic does not exist (any more)",
    Why.NOT_ASKED: "not asked in this cycle",
    Why.UNSUPPORTED: "the broker does not offer the request this needs",
    Why.BEYOND_END: "the committed offset lies beyond the log end",
    Why.PART_UNKNOWN: "at least one of its partitions is unknown",
    Why.NOT_PLACED: "the record's time has not been looked up yet",
    Why.NO_TIMESTAMP: "the records carry no timestamp",
    Why.LAG_UNKNOWN: "the lag in records is unknown",
    Why.SHARE_GROUP: "brokers before Kafka 4.2 do not tell the lag of share groups",
    Why.FIRST_READING: "a rate needs two readings",
    Why.NO_POSITIONS: "it has no partitions",
    Why.CHECKPOINT: "its checkpoint could not be read",
    Why.THROTTLED: "the broker throttles us",
    Why.SHARE_AGE: "share groups: the broker tells how many records wait, not since when",
    Why.NEW_COORDINATOR: "its coordinator has just taken over and does not know all of it yet",
}

KAFKA_ERRORS: dict[int, str] = {
    -1: "UNKNOWN_SERVER_ERROR",
    1: "OFFSET_OUT_OF_RANGE",
    2: "CORRUPT_MESSAGE",
    3: "UNKNOWN_TOPIC_OR_PARTITION",
    4: "INVALID_FETCH_SIZE",
    5: "LEADER_NOT_AVAILABLE",
    6: "NOT_LEADER_OR_FOLLOWER",
    7: "REQUEST_TIMED_OUT",
    8: "BROKER_NOT_AVAILABLE",
    9: "REPLICA_NOT_AVAILABLE",
    10: "MESSAGE_TOO_LARGE",
    11: "STALE_CONTROLLER_EPOCH",
    12: "OFFSET_METADATA_TOO_LARGE",
    13: "NETWORK_EXCEPTION",
    14: "COORDINATOR_LOAD_IN_PROGRESS",
    15: "COORDINATOR_NOT_AVAILABLE",
    16: "NOT_COORDINATOR",
    17: "INVALID_TOPIC_EXCEPTION",
    18: "RECORD_LIST_TOO_LARGE",
    19: "NOT_ENOUGH_REPLICAS",
    20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    21: "INVALID_REQUIRED_ACKS",
    22: "ILLEGAL_GENERATION",
    23: "INCONSISTENT_GROUP_PROTOCOL",
    24: "INVALID_GROUP_ID",
    25: "UNKNOWN_MEMBER_ID",
    26: "INVALID_SESSION_TIMEOUT",
    27: "REBALANCE_IN_PROGRESS",
    28: "INVALID_COMMIT_OFFSET_SIZE",
    29: "TOPIC_AUTHORIZATION_FAILED",
    30: "GROUP_AUTHORIZATION_FAILED",
    31: "CLUSTER_AUTHORIZATION_FAILED",
    32: "INVALID_TIMESTAMP",
    33: "UNSUPPORTED_SASL_MECHANISM",
    34: "ILLEGAL_SASL_STATE",
    35: "UNSUPPORTED_VERSION",
    36: "TOPIC_ALREADY_EXISTS",
    37: "INVALID_PARTITIONS",
    38: "INVALID_REPLICATION_FACTOR",
    39: "INVALID_REPLICA_ASSIGNMENT",
    40: "INVALID_CONFIG",
    41: "NOT_CONTROLLER",
    42: "INVALID_REQUEST",
    43: "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    44: "POLICY_VIOLATION",
    45: "OUT_OF_ORDER_SEQUENCE_NUMBER",
    46: "DUPLICATE_SEQUENCE_NUMBER",
    47: "INVALID_PRODUCER_EPOCH",
    48: "INVALID_TXN_STATE",
    49: "INVALID_PRODUCER_ID_MAPPING",
    50: "INVALID_TRANSACTION_TIMEOUT",
    51: "CONCURRENT_TRANSACTIONS",
    52: "TRANSACTION_COORDINATOR_FENCED",
    53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    54: "SECURITY_DISABLED",
    55: "OPERATION_NOT_ATTEMPTED",
    56: "KAFKA_STORAGE_ERROR",
    57: "LOG_DIR_NOT_FOUND",
    58: "SASL_AUTHENTICATION_FAILED",
    59: "UNKNOWN_PRODUCER_ID",
    60: "REASSIGNMENT_IN_PROGRESS",
    61: "DELEGATION_TOKEN_AUTH_DISABLED",
    62: "DELEGATION_TOKEN_NOT_FOUND",
    63: "DELEGATION_TOKEN_OWNER_MISMATCH",
    64: "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED",
    65: "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
    66: "DELEGATION_TOKEN_EXPIRED",
    67: "INVALID_PRINCIPAL_TYPE",
    68: "NON_EMPTY_GROUP",
    69: "GROUP_ID_NOT_FOUND",
    70: "FETCH_SESSION_ID_NOT_FOUND",
    71: "INVALID_FETCH_SESSION_EPOCH",
    72: "LISTENER_NOT_FOUND",
    73: "TOPIC_DELETION_DISABLED",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    76: "UNSUPPORTED_COMPRESSION_TYPE",
    77: "STALE_BROKER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    79: "MEMBER_ID_REQUIRED",
    80: "PREFERRED_LEADER_NOT_AVAILABLE",
    81: "GROUP_MAX_SIZE_REACHED",
    82: "FENCED_INSTANCE_ID",
    83: "ELIGIBLE_LEADERS_NOT_AVAILABLE",
    84: "ELECTION_NOT_NEEDED",
    85: "NO_REASSIGNMENT_IN_PROGRESS",
    86: "GROUP_SUBSCRIBED_TO_TOPIC",
    87: "INVALID_RECORD",
    88: "UNSTABLE_OFFSET_COMMIT",
    89: "THROTTLING_QUOTA_EXCEEDED",
    90: "PRODUCER_FENCED",
    91: "RESOURCE_NOT_FOUND",
    92: "DUPLICATE_RESOURCE",
    93: "UNACCEPTABLE_CREDENTIAL",
    94: "INCONSISTENT_VOTER_SET",
    95: "INVALID_UPDATE_VERSION",
    96: "FEATURE_UPDATE_FAILED",
    97: "PRINCIPAL_DESERIALIZATION_FAILURE",
    98: "SNAPSHOT_NOT_FOUND",
    99: "POSITION_OUT_OF_RANGE",
    100: "UNKNOWN_TOPIC_ID",
    101: "DUPLICATE_BROKER_REGISTRATION",
    102: "BROKER_ID_NOT_REGISTERED",
    103: "INCONSISTENT_TOPIC_ID",
    104: "INCONSISTENT_CLUSTER_ID",
    105: "TRANSACTIONAL_ID_NOT_FOUND",
    106: "FETCH_SESSION_TOPIC_ID_ERROR",
    107: "INELIGIBLE_REPLICA",
    108: "NEW_LEADER_ELECTED",
    109: "OFFSET_MOVED_TO_TIERED_STORAGE",
    110: "FENCED_MEMBER_EPOCH",
    111: "UNRELEASED_INSTANCE_ID",
    112: "UNSUPPORTED_ASSIGNOR",
    113: "STALE_MEMBER_EPOCH",
    114: "MISMATCHED_ENDPOINT_TYPE",
    115: "UNSUPPORTED_ENDPOINT_TYPE",
    116: "UNKNOWN_CONTROLLER_ID",
    117: "UNKNOWN_SUBSCRIPTION_ID",
    118: "TELEMETRY_TOO_LARGE",
    119: "INVALID_REGISTRATION",
    120: "TRANSACTION_ABORTABLE",
    121: "INVALID_RECORD_STATE",
    122: "SHARE_SESSION_NOT_FOUND",
    123: "INVALID_SHARE_SESSION_EPOCH",
    124: "FENCED_STATE_EPOCH",
    125: "INVALID_VOTER_KEY",
    126: "DUPLICATE_VOTER",
    127: "VOTER_NOT_FOUND",
    128: "INVALID_REGULAR_EXPRESSION",
    129: "REBOOTSTRAP_REQUIRED",
    130: "STREAMS_INVALID_TOPOLOGY",
    131: "STREAMS_INVALID_TOPOLOGY_EPOCH",
    132: "STREAMS_TOPOLOGY_FENCED",
    133: "SHARE_SESSION_LIMIT_REACHED",
}
"""Kafka's protocol error codes and names (protocol guide, "Error Codes")."""


def why_name(code: int) -> str:
    """Return the short name of a reason: Kafka's (``NOT_COORDINATOR``) or ours (``TIMEOUT``)."""
    if code in WHY_TEXT:
        return Why(code).name
    return KAFKA_ERRORS.get(code, f"KAFKA_ERROR_{code}")


def why_text(code: int) -> str:
    """Return the sentence a person reads for a reason; empty for 0 (known)."""
    return WHY_TEXT[code] if code in WHY_TEXT else f"the broker answered {why_name(code)}"


@dataclass(frozen=True, slots=True)
class Failure:
    """One read that failed. ``scope`` is cluster, broker, group, topic, partition, query or checkpoint."""

    scope: str
    name: str
    error: str
    detail: str = ""


class Change(NamedTuple):
    """What was and what is: offsets of a partition, or ids of a whole topic (``partition`` None)."""

    partition: int | None
    old: int | str
    new: int | str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something true about the data that an operator should know, with the topic or consumer it is about.

    ``seen_at``: of an event, when it was last seen to happen; of a condition, since when it has been seen. ``records``
    is how many records it is about, None where that is unknown or makes no sense. ``changes`` has old and new value.
    """

    kind: str
    text: str
    topic: str | None = None
    partition: int | None = None
    consumer: Consumer | None = None
    seen_at: float | None = None
    records: int | None = None
    changes: tuple[Change, ...] = ()


# --- layouts: which row is whose --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PartitionLayout:
    """The rows of every per-partition column of a cluster, grouped by topic.

    ``topic[i]`` indexes ``topics``; ``partition[i]`` is the partition number.
    Use ``same_rows`` to compare: equality is identity.
    """

    topics: tuple[str, ...]
    topic: Int32s
    partition: Int32s

    def __len__(self) -> int:
        return len(self.partition)

    def same_rows(self, other: PartitionLayout) -> bool:
        """Return whether both name the same partitions in the same order."""
        return self is other or (
            self.topics == other.topics
            and np.array_equal(self.topic, other.topic)
            and np.array_equal(self.partition, other.partition)
        )

    def key(self, row: int) -> TopicPartition:
        """Return the topic and partition of a row."""
        return TopicPartition(self.topics[self.topic[row]], int(self.partition[row]))


@dataclass(frozen=True, slots=True, eq=False)
class PositionLayout:
    """The rows of every per-position column: which consumer on which partition.

    Rows of a consumer are contiguous: ``starts[c]:starts[c + 1]``. ``row[i]`` is a row of ``partitions``.
    A consumer without any position has an empty range.
    """

    partitions: PartitionLayout
    consumers: tuple[Consumer, ...]
    starts: Int64s
    row: Int32s

    def __len__(self) -> int:
        return len(self.row)

    @property
    def consumer(self) -> Int32s:
        """Return the index into ``consumers`` of each row."""
        return np.repeat(np.arange(len(self.consumers), dtype=np.int32), np.diff(self.starts))

    def same_rows(self, other: PositionLayout) -> bool:
        """Return whether both name the same positions in the same order, over the same partitions."""
        return self is other or (
            self.partitions.same_rows(other.partitions)
            and self.consumers == other.consumers
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.row, other.row)
        )


# --- snapshots: what one poll of one source saw -----------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PartitionColumns:
    """What the leaders said about every partition; -1 where unknown, and then ``why`` has the reason.

    ``why`` is about ``log_start`` and ``log_end`` together: both are known or neither is used.
    ``last_stable`` may be unknown on its own. ``read_at`` is when the leader's answer with the
    log end arrived, NaN if none did.
    """

    layout: PartitionLayout
    log_start: Int64s
    log_end: Int64s
    last_stable: Int64s
    why: Int16s
    read_at: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PositionColumns:
    """What the coordinators said: ``committed`` is the next offset to be read, -1 where there is none or it is unknown.

    ``why`` is 0 where committed is known, ``Why.NO_COMMIT`` where an assigned partition has no commit,
    else the failure. For share groups ``committed`` is the share-partition start offset (KIP-932).
    ``lag_said`` is the lag where the broker itself counts it (share groups, KIP-1226), -1 where it does not or does not
    know; None: nowhere. Where it is known it counts, and not the arithmetic of offsets.
    """

    layout: PositionLayout
    committed: Int64s
    why: Int16s
    lag_said: Int64s | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group as its coordinator describes it.

    ``epoch`` is its member epoch (KIP-848 and later protocols), None for the classic protocol. ``assigned`` is empty
    for a share group's member too where the broker does not tell, and for members of Kafka Connect.
    """

    member_id: str
    client_id: str
    host: str
    instance_id: str | None = None
    epoch: int | None = None
    assigned: tuple[TopicPartition, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """What is known of a consumer beside its positions. ``members`` is None where it was not read.

    ``why`` is not 0 where the group could not be read at all in this cycle; it has no positions then,
    or positions with the same reason.
    ``assigned`` maps each assigned partition to the client id of the member that owns it; ``owners`` are the members.
    ``subscribed`` are the topics its members subscribe to: None where it was not read, or where a subscription cannot
    be told from outside (a pattern not understood, bytes of a foreign protocol, members that assign themselves).
    ``epoch`` is the group epoch (KIP-848 and later protocols): each rebalance adds at least one.
    ``described_at`` is when members, assignment, subscription and epoch were read.
    """

    consumer: Consumer
    state: str | None = None
    protocol: str | None = None
    protocol_type: str | None = None
    members: int | None = None
    why: int = 0
    assigned: Mapping[TopicPartition, str] = field(default_factory=dict)
    owners: tuple[Member, ...] = ()
    subscribed: frozenset[str] | None = None
    assignor: str | None = None
    epoch: int | None = None
    coordinator: int | None = None
    described_at: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class KafkaSnapshot:
    """One poll of one Kafka cluster. ``groups[i]`` is about ``positions.layout.consumers[i]``.

    ``groups`` is the same object for as long as nothing of it changed; ``read_at`` is when the commits of each group
    were read, NaN where they were not.

    ``up`` is true when every broker that had to be asked answered and every partition asked has a leader:
    what is missing then is missing for a reason of its own (permissions, deletion), not because a broker is away.
    ``requests`` counts requests sent in this poll by API name. ``at`` is when the poll ended.
    ``topic_ids`` has the id of each topic where brokers tell it (KIP-516, Kafka 2.8): a topic that was deleted and
    created again has another. It is the same object for as long as none changed.
    ``findings`` are what the source itself has to say, such as what it may not see.
    """

    cluster: str
    started_at: float
    at: float
    up: bool
    partitions: PartitionColumns
    positions: PositionColumns
    groups: tuple[GroupFacts, ...]
    read_at: Floats
    failures: tuple[Failure, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    topic_ids: Mapping[str, bytes] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class SparkMode(StrEnum):
    """How a streaming query runs: what its records mean, and which judgements make sense of it."""

    MICRO_BATCH = "micro_batch"
    ASYNC_PROGRESS = "async_progress"
    """Micro-batches of which only every n-th is on record (asynchronous progress tracking)."""
    CONTINUOUS = "continuous"
    """Epochs without a beginning: positions, but neither durations nor batches in flight."""
    REAL_TIME = "real_time"
    """Batches as long as they are configured to be, planned on record only once they are done."""


@dataclass(frozen=True, slots=True)
class SparkBatch:
    """One committed micro-batch, from its two files or from the query's own progress.

    ``planned_at`` is batchTimestampMs, NaN in continuous mode, which writes none; ``committed_at`` the modification
    time of its commit file; ``duration_seconds`` None where the batch spans a restart. ``input_rows`` is the sum of
    its offset ranges, an upper bound on compacted or transactional topics; None where a start is unknown.

    ``most_rows`` and ``median_rows`` are those of one partition, None as ``input_rows`` is. ``watermark`` was in effect
    in it, None where there was none. Only the query itself tells ``output_rows``, and ``phases``: the seconds by key of
    durationMs, without triggerExecution.
    """

    batch_id: int
    planned_at: float
    committed_at: float
    duration_seconds: float | None
    input_rows: int | None
    most_rows: int | None = None
    median_rows: float | None = None
    watermark: float | None = None
    output_rows: int | None = None
    phases: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class SparkState:
    """A stateful operator after the last batch, as the query tells it; ``operator`` is its name and place in the plan.

    Seconds are sums over the tasks of that batch, of which ``stores`` ran at most at once. None: not told.
    """

    operator: str
    rows: int
    memory_bytes: int
    rows_updated: int | None = None
    rows_removed: int | None = None
    rows_dropped_by_watermark: int | None = None
    updates_seconds: float | None = None
    removals_seconds: float | None = None
    commit_seconds: float | None = None
    stores: int | None = None


@dataclass(frozen=True, slots=True)
class SparkDriver:
    """What the driver's own interface tells of the moment ``at``: the tasks of the batch in flight, and executors.

    Task counts are of the jobs that run, None where none does. ``gc_ratio`` is the share of executor task time spent
    collecting garbage, 0 to 1. Task seconds are of the last stage that finished. None: not told.
    """

    at: float
    batch_id: int | None = None
    tasks: int | None = None
    tasks_done: int | None = None
    tasks_running: int | None = None
    tasks_failed: int | None = None
    executors: int | None = None
    cores: int | None = None
    gc_ratio: float | None = None
    spilled_bytes: int | None = None
    median_task_seconds: float | None = None
    longest_task_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SparkQuery:
    """A streaming query as its checkpoint shows it. Offsets are exclusive, like Kafka's committed offset.

    ``committed`` are the positions after the last committed batch, ``planned`` those of the batch in flight
    (empty when none is). ``reported`` is the lag in records that Spark itself tells, by partition: see the manual for
    why it is 0.

    ``pinned`` are the settings that the checkpoint holds the query to. ``sources`` counts its sources,
    ``kafka_sources`` those whose offsets are like Kafka's. ``restarts`` are those that its last batches show signs of:
    there were at least so many. Only the job itself tells ``run_id``, ``state``, ``driver``, how it ended, and when it
    last gave a sign of life (``alive_at``; None where no source could tell).

    ``seen_by`` are the sources that know it (checkpoint, listener, driver), and ``via`` says which of them, or the
    settings, each of its values is from, by its name here; what is not named there is from the first of ``seen_by``.
    """

    consumer: Consumer
    query_id: str
    checkpoint: str
    observed_at: float
    committed: Mapping[TopicPartition, int]
    planned: Mapping[TopicPartition, int]
    batch_id: int | None
    batches: tuple[SparkBatch, ...] = ()
    inflight_batch_id: int | None = None
    inflight_planned_at: float | None = None
    watermark: float | None = None
    trigger_interval_seconds: float | None = None
    seen_by: tuple[str, ...] = ("checkpoint",)
    mode: SparkMode = SparkMode.MICRO_BATCH
    pinned: Mapping[str, str] = field(default_factory=dict)
    sources: int | None = None
    kafka_sources: int | None = None
    restarts: int = 0
    reported: Mapping[TopicPartition, int] = field(default_factory=dict)
    run_id: str | None = None
    alive_at: float | None = None
    ended_at: float | None = None
    exception: str | None = None
    state: tuple[SparkState, ...] = ()
    driver: SparkDriver | None = None
    via: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class SparkSnapshot:
    """One look at every checkpoint configured for a cluster, and at what its jobs tell themselves.

    ``findings`` are what the sources have to say about each other, such as events that one of them has not.
    """

    cluster: str
    started_at: float
    at: float
    up: bool
    queries: tuple[SparkQuery, ...]
    failures: tuple[Failure, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class FaustAgent:
    """What an agent of one Faust worker did with the records of one topic, since that worker started.

    ``errors_total``: records it raised on, and those that could not be decoded. ``buffered`` of at most ``buffer_size``
    records wait for the agent; None where that was not told.
    """

    agent: str
    topic: str
    events_total: int
    errors_total: int
    durations: DurationHistogram
    buffered: int | None
    buffer_size: int | None


@dataclass(frozen=True, slots=True)
class FaustWorker:
    """A Faust worker by its own latest report (``streamgauge.faust``); ``consumer`` is its app's group.

    ``is_silent``: it should have reported again and did not, so only what it counted holds.
    ``uncommitted_seconds``: how long the oldest processed record has waited for a commit of its partition.
    ``recovery_remaining``: records of changelogs still to be read. Lag is no part of it: brokers tell that.
    ``outcomes``: how many records came to what since it started, in the app's own words; empty where it does not say.
    """

    consumer: Consumer
    worker: str
    state: str
    reported_at: float
    started_at: float
    interval_seconds: float
    agents: tuple[FaustAgent, ...]
    commits_total: int
    commit_age_seconds: float | None
    uncommitted_seconds: float | None
    rebalances_total: int
    rebalancing_seconds_total: float
    last_rebalance_seconds: float | None
    recovering: bool | None
    recovery_remaining: int | None
    tables: Mapping[str, int | None]
    assigned: Mapping[str, tuple[int, ...]] | None
    buffer_full_total: int
    dropped_reports: int
    report_age_seconds: float = 0.0
    is_silent: bool = False
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FaustSnapshot:
    """One look at what Faust workers report."""

    cluster: str
    started_at: float
    at: float
    up: bool
    workers: tuple[FaustWorker, ...]
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class LastHour:
    """What rollups say of a consumer's last hour; ``minutes`` of it are kept. None where none of them knew.

    ``within_objective`` is a share of the time (0 to 1), rates are records per second.
    """

    minutes: int
    lag_records_max: int | None
    lag_records_mean: float | None
    lag_seconds_max: float | None
    lag_seconds_mean: float | None
    records_in_per_second: float | None
    records_out_per_second: float | None
    within_objective: float | None


# --- look-ups by timestamp --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Lookups:
    """Questions for the leaders: which is the first record of a partition at or after a timestamp?

    ``row`` are distinct rows of the partition layout (the protocol allows one question a partition
    a request), ``timestamp_ms`` the times asked for.
    """

    layout: PartitionLayout
    row: Int32s
    timestamp_ms: Int64s

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The leaders' answers, row for row: offset and timestamp of that record, both -1 where there is none.

    ``why`` not 0: not answered, the other two mean nothing.
    """

    asked: Lookups
    offset: Int64s
    timestamp_ms: Int64s
    why: Int16s


# --- the report -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How reading one source went: ``last_success`` is when it last read everything it asked for.

    ``interval_seconds`` is how often it is read, by the settings; None where nobody said.
    """

    source: str
    up: bool
    observed_at: float
    duration_seconds: float
    last_success: float | None
    interval_seconds: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TopicColumns:
    """One row a topic of ``PartitionLayout.topics``: partitions, records ever (sum of log ends), records per second."""

    partitions: Int64s
    records_total: Int64s
    records_per_second: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PositionReport:
    """Lag of every position. ``why`` is the reason of an unknown ``lag_records``, ``why_seconds`` of unknown seconds.

    ``basis`` holds Basis values, ``health`` indexes HEALTHS. ``abandoned``: on a topic that its consumer no longer
    reads; such a position has its own lag and is no part of its consumer's.
    """

    layout: PositionLayout
    committed: Int64s
    lag_records: Int64s
    lost_records: Int64s
    lag_seconds: Floats
    lag_seconds_bound: Floats
    basis: Int8s
    assumed: Bools
    health: Int8s
    why: Int16s
    why_seconds: Int16s
    abandoned: Bools


@dataclass(frozen=True, slots=True, eq=False)
class ConsumerTopicColumns:
    """Lag by consumer and topic: row i is consumer ``consumer[i]`` on topic ``topic[i]``.

    ``records_total`` counts what was read since the monitor started. ``abandoned``: 1 where a live group neither
    subscribes to the topic nor has any of it assigned, 0 where it does, -1 where its subscription is unknown.
    """

    positions: PositionLayout
    consumer: Int32s
    topic: Int32s
    lag_records: Int64s
    records_total: Int64s
    abandoned: Int8s


@dataclass(frozen=True, slots=True, eq=False)
class RebalanceColumns:
    """Rebalances of every consumer since the monitor first saw it; -1 and NaN where its state was never told.

    ``count`` is ``exact`` where each was counted by the group's epoch, else there were at least so many. Those counted
    took at least ``seconds`` and at most ``seconds + seconds_bound`` together.
    """

    count: Int64s
    exact: Bools
    seconds: Floats
    seconds_bound: Floats


@dataclass(frozen=True, slots=True, eq=False)
class ConsumerColumns:
    """One row a consumer of ``PositionLayout.consumers``. Positions on abandoned topics are no part of any of it.

    ``lag_records`` and ``lag_seconds`` are unknown with any partition unknown; ``known_lag_records`` sums
    the known ones. ``abandoned`` counts its abandoned topics.
    ``members`` -1 where not read, ``observed_at`` NaN. ``over_objective``: 1 yes, 0 no, -1 unknown. ``evidence`` makes
    its sentences as they are asked for.
    """

    lag_records: Int64s
    known_lag_records: Int64s
    lost_records: Int64s
    lag_seconds: Floats
    lag_seconds_bound: Floats
    basis: Int8s
    assumed: Bools
    partitions_known: Int64s
    partitions_unknown: Int64s
    records_per_second: Floats
    objective_seconds: Floats
    over_objective: Int8s
    members: Int64s
    observed_at: Floats
    health: Int8s
    why: Int16s
    why_seconds: Int16s
    why_rate: Int16s
    abandoned: Int64s
    rebalances: RebalanceColumns
    evidence: Sequence[str]


@dataclass(frozen=True, slots=True)
class DurationHistogram:
    """Cumulative counts for a Prometheus histogram: ``counts[i]`` batches took at most ``bounds[i]`` seconds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    count: int
    sum: float


class SparkPast(NamedTuple):
    """What a query's state was after an earlier batch: sums over its stateful operators, counts of that batch."""

    at: float
    batch_id: int
    rows: int
    memory_bytes: int
    rows_removed: int | None
    rows_dropped_by_watermark: int | None


@dataclass(frozen=True, slots=True)
class SparkFacts:
    """What a Spark query's report says beyond lag. Totals count since the monitor first saw the query.

    ``trigger_interval_seconds`` is the configured one, else (``trigger_inferred``) the one its batches keep to.
    ``input_rows_per_second`` is over the batches on record, None where their rows or times are not known. ``restarts``
    are the moments of those that the monitor saw: there were at least so many. ``past`` is its state after each batch
    seen, oldest first. ``output_rows_total`` (None where never told) and ``phase_seconds_total`` are of the batches
    that a listener told since.
    """

    query: SparkQuery
    last_batch_duration_seconds: float | None
    last_commit_at: float | None
    inflight_batch_age_seconds: float | None
    batches_total: int
    input_rows_total: int
    durations: DurationHistogram
    trigger_interval_seconds: float | None = None
    trigger_inferred: bool = False
    input_rows_per_second: float | None = None
    restarts: tuple[float, ...] = ()
    restarts_total: int = 0
    past: tuple[SparkPast, ...] = ()
    output_rows_total: int | None = None
    phase_seconds_total: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class ClusterReport:
    """Everything known of one cluster at one moment.

    ``groups`` and ``consumers`` rows follow ``positions.layout.consumers``.

    ``spark`` maps a consumer's index to its query; ``requests_total`` and ``failures_total`` count since the start,
    by (source, api) and (source, scope). ``faust`` are the Faust workers that report, whether or not their group is
    among the consumers.
    """

    name: str
    at: float
    up: bool
    sources: tuple[SourceStatus, ...]
    partitions: PartitionColumns
    topics: TopicColumns
    positions: PositionReport
    consumer_topics: ConsumerTopicColumns
    consumers: ConsumerColumns
    groups: tuple[GroupFacts, ...]
    spark: Mapping[int, SparkFacts] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    failures: tuple[Failure, ...] = ()
    requests_total: Mapping[tuple[str, str], int] = field(default_factory=dict)
    failures_total: Mapping[tuple[str, str], int] = field(default_factory=dict)
    faust: tuple[FaustWorker, ...] = ()
    last_hour: Mapping[Consumer, LastHour] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What every publisher reads: immutable, swapped as one reference."""

    at: float
    clusters: tuple[ClusterReport, ...]
