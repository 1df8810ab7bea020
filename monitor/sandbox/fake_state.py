"""What is true in a fake cluster: brokers, topics with their logs, groups with their commits.

Everything is plain and mutable, so that a test reads like a story. The numbers of a topic are numpy columns, one
row a partition, and the commits of a group on a topic are one column, so that a cluster of 100,000 partitions and
1,000,000 positions takes tens of megabytes. Nothing here knows the wire (``fake_answers``) or misbehaves
(``fake_faults``).
"""

from __future__ import annotations

import struct
import uuid
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from itertools import repeat
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
T = TypeVar("T")

OFFSETS_TOPIC = "__consumer_offsets"

NO_OFFSET = -1
DESCRIBE = 1 << 8
NO_LEADER = -1
NO_TIMESTAMP = -1

CLASSIC = "classic"
CONSUMER = "consumer"
SHARE = "share"
STREAMS = "streams"

Commits = Mapping[tuple[str, int], int] | Mapping[str, Sequence[int] | Int64s]
"""Offsets by (topic, partition), or by topic with one offset a partition (-1: no commit)."""

Versions = dict[str, tuple[int, int]]
"""API name to the lowest and highest version a broker offers."""

# What each release offers of the requests that the fake answers (clients/.../message/*.json of its tag).
# ListOffsets and OffsetFetch begin at v1: v0 left Kafka with 4.0, and no client of this decade speaks it.
RELEASES: dict[str, Versions] = {
    "2.8": {
        "ListOffsets": (1, 6),
        "Metadata": (0, 11),
        "OffsetFetch": (1, 7),
        "FindCoordinator": (0, 3),
        "DescribeGroups": (0, 5),
        "ListGroups": (0, 4),
        "DescribeCluster": (0, 0),
        "ApiVersions": (0, 3),
    },
    "3.7": {
        "ListOffsets": (1, 8),
        "Metadata": (0, 12),
        "OffsetFetch": (1, 9),
        "FindCoordinator": (0, 4),
        "DescribeGroups": (0, 5),
        "ListGroups": (0, 4),
        "DescribeCluster": (0, 1),
        "ApiVersions": (0, 3),
    },
    "3.9": {
        "ListOffsets": (1, 9),
        "Metadata": (0, 12),
        "OffsetFetch": (1, 9),
        "FindCoordinator": (0, 6),
        "DescribeGroups": (0, 5),
        "ListGroups": (0, 5),
        "ConsumerGroupDescribe": (0, 0),
        "DescribeCluster": (0, 1),
        "ApiVersions": (0, 4),
    },
    "4.0": {
        "ListOffsets": (1, 10),
        "Metadata": (0, 13),
        "OffsetFetch": (1, 9),
        "FindCoordinator": (0, 6),
        "DescribeGroups": (0, 6),
        "ListGroups": (0, 5),
        "ConsumerGroupDescribe": (0, 1),
        "DescribeCluster": (0, 2),
        "ApiVersions": (0, 4),
    },
    "4.3": {
        "ListOffsets": (1, 11),
        "Metadata": (0, 13),
        "OffsetFetch": (1, 10),
        "FindCoordinator": (0, 6),
        "DescribeGroups": (0, 6),
        "ListGroups": (0, 5),
        "ConsumerGroupDescribe": (0, 1),
        "ShareGroupDescribe": (1, 1),
        "StreamsGroupDescribe": (0, 0),
        "DescribeShareGroupOffsets": (0, 1),
        "DescribeCluster": (0, 2),
        "ApiVersions": (0, 4),
    },
}
NEWEST = "4.3"

# Kafka 3.9 offers ConsumerGroupDescribe, and refuses every group unless its new coordinator is switched on.
WITHOUT_CONSUMER_PROTOCOL = frozenset({"2.8", "3.7", "3.9"})


@dataclass(slots=True)
class Broker:
    """A broker: where it says it listens, and what it offers."""

    id: int
    versions: Versions
    host: str = "127.0.0.1"
    port: int = 0
    rack: str | None = None
    fenced: bool = False
    """Whether the cluster has noticed that it is gone: it leaves Metadata, and what it led has no leader."""
    throttle_ms: int = 0
    """The throttle time that every answer states."""
    loading_until: float = float("-inf")
    """Until when its coordinator is still loading: COORDINATOR_LOAD_IN_PROGRESS for all its groups."""


class Run(NamedTuple):
    """Records in a row: their timestamps start at ``timestamp_ms`` and grow by ``step_ms`` each."""

    offset: int
    size: int
    timestamp_ms: int
    step_ms: int

    @property
    def end(self) -> int:
        """Return the offset after the last record."""
        return self.offset + self.size

    def timestamp_at(self, offset: int) -> int:
        """Return the timestamp of one record, in milliseconds."""
        return self.timestamp_ms + (offset - self.offset) * self.step_ms

    def first_not_before(self, timestamp_ms: int, start: int) -> int:
        """Return the first offset from ``start`` on whose timestamp is not earlier; ``end`` if none is."""
        return self.offset + bisect_left(
            range(self.size),
            timestamp_ms,
            max(start - self.offset, 0),
            key=lambda i: self.timestamp_ms + i * self.step_ms,
        )


class Record(NamedTuple):
    """An offset and the timestamp of the record there, in milliseconds."""

    offset: int
    timestamp_ms: int


NO_RECORD = Record(NO_OFFSET, NO_TIMESTAMP)


@dataclass(slots=True, eq=False)
class Topic:
    """A topic: one row a partition in every column."""

    name: str
    id: uuid.UUID
    leader: Int32s
    replicas: list[tuple[int, ...]]
    log_start: Int64s
    log_end: Int64s
    last_stable: Int64s
    leader_epoch: Int32s
    runs: list[tuple[Run, ...]]
    """The records of each partition by timestamp; partitions with equal records share one tuple."""
    internal: bool = False
    error: dict[int, int] = field(default_factory=dict)
    """Error code that the leader answers for a partition, whatever it is asked."""

    def __len__(self) -> int:
        return len(self.leader)

    def append(self, partition: int, count: int, timestamp_ms: int, step_ms: int = 0) -> None:
        """Write records at the end of a partition; ``step_ms`` (0 or more) lies between two of them."""
        end = int(self.log_end[partition])
        self.runs[partition] = (*self.runs[partition], Run(end, count, timestamp_ms, step_ms))
        if self.last_stable[partition] == end:
            self.last_stable[partition] += count
        self.log_end[partition] += count

    def record_at_or_after(self, partition: int, timestamp_ms: int) -> Record:
        """Return the first record that is not older, NO_RECORD if there is none."""
        start = int(self.log_start[partition])
        for run in self.runs[partition]:
            if run.end <= start or run.timestamp_at(run.end - 1) < timestamp_ms:
                continue
            offset = run.first_not_before(timestamp_ms, start)
            if start <= offset < run.end:
                return Record(offset, run.timestamp_at(offset))
        return NO_RECORD

    def newest_record(self, partition: int) -> Record:
        """Return the first of the records with the highest timestamp, NO_RECORD if the log is empty."""
        start = int(self.log_start[partition])
        runs = [run for run in self.runs[partition] if run.end > start]
        if not runs:
            return NO_RECORD
        newest = max(run.timestamp_at(run.end - 1) for run in runs)
        return self.record_at_or_after(partition, newest)

    def truncate(self, partition: int, end: int) -> None:
        """Cut the log at an offset, as an unclean leader election does."""
        self.log_end[partition] = end
        self.last_stable[partition] = min(int(self.last_stable[partition]), end)
        self.log_start[partition] = min(int(self.log_start[partition]), end)
        self.runs[partition] = tuple(
            run._replace(size=min(run.size, end - run.offset)) for run in self.runs[partition] if run.offset < end
        )
        self.leader_epoch[partition] += 1


@dataclass(slots=True, eq=False)
class Committed:
    """What a group has committed on one topic: offset a partition, -1 for none; the rest where it is not usual."""

    offset: Int64s
    metadata: dict[int, str | None] = field(default_factory=dict)
    leader_epoch: dict[int, int] = field(default_factory=dict)
    error: dict[int, int] = field(default_factory=dict)
    """Error code that the coordinator answers for a partition, e.g. 88 (UNSTABLE_OFFSET_COMMIT)."""

    def reach(self, partition: int) -> None:
        """Make room for a partition."""
        missing = partition + 1 - len(self.offset)
        if missing > 0:
            self.offset = np.concatenate([self.offset, np.full(missing, NO_OFFSET, np.int64)])


@dataclass(slots=True)
class Member:
    """A member of a group, and the partitions assigned to it by topic."""

    client_id: str
    assignment: Mapping[str, Sequence[int]] = field(default_factory=dict)
    host: str = "/127.0.0.1"
    member_id: str = ""
    instance_id: str | None = None
    rack: str | None = None
    epoch: int = 1
    member_type: int = 1
    """KIP-1099: 0 speaks the classic protocol, 1 the new one."""
    target: Mapping[str, Sequence[int]] | None = None
    """Where the coordinator wants it to be (KIP-848), if not where it is."""
    assignment_bytes: bytes | None = None
    """What a classic member was assigned, if that is not a consumer's assignment (Connect, or broken)."""
    subscription: Sequence[str] | None = None
    """The topics it subscribes to, if not those of its assignment."""
    subscription_regex: str | None = None
    """The pattern it subscribes to beside that (KIP-848)."""
    subscription_bytes: bytes | None = None
    """What a classic member says it subscribes to, if that is not a consumer's subscription."""

    def __post_init__(self) -> None:
        self.member_id = self.member_id or f"{self.client_id}-{zlib.crc32(self.client_id.encode()):08x}"

    @property
    def subscribed(self) -> tuple[str, ...]:
        """Return the topics it subscribes to by name."""
        return tuple(self.assignment if self.subscription is None else self.subscription)


@dataclass(slots=True, eq=False)
class Group:
    """A group as its coordinator knows it."""

    name: str
    type: str = CLASSIC
    protocol_type: str = "consumer"
    state: str = "Empty"
    protocol: str = "range"
    """The assignor."""
    epoch: int = 1
    members: list[Member] = field(default_factory=list)
    commits: dict[str, Committed] = field(default_factory=dict)
    """Of a share group: the start offsets of its share partitions, -1 before the first acknowledgement."""
    acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)
    """Of a share group: how many records beyond the start offset are done."""
    error: int = 0
    """Error code that the coordinator answers instead of the group's offsets or description."""
    listed_by: set[int] | None = None
    """Brokers that list it; None: its coordinator. Empty: it is left out, as one that is not loaded yet."""

    def commit(
        self, topic: str, partition: int, offset: int, *, metadata: str | None = "", leader_epoch: int = -1
    ) -> None:
        """Commit an offset; -1 withdraws it."""
        committed = self.commits.setdefault(topic, Committed(np.empty(0, np.int64)))
        committed.reach(partition)
        committed.offset[partition] = offset
        _put(committed.metadata, partition, metadata, "")
        _put(committed.leader_epoch, partition, leader_epoch, -1)

    def commit_all(self, topic: str, offsets: Sequence[int] | Int64s) -> None:
        """Commit on every partition of a topic at once: one offset each, -1 for none."""
        self.commits[topic] = Committed(np.array(offsets, np.int64))


@lru_cache(10_000)
def _java_hash(text: str) -> int:
    """Return the absolute value of ``String.hashCode()``, that of the smallest integer being 0."""
    units = struct.unpack(f">{len(text.encode('utf-16-be')) // 2}H", text.encode("utf-16-be"))
    code = reduce(lambda code, unit: (31 * code + unit) % 2**32, units, 0)
    return min(code, 2**32 - code) % 2**31


class Truth:
    """The cluster: what every broker would answer from, were they all well.

    Args:
        brokers: How many, with ids from 1 on; or their ids.
        release: Which Kafka they play: a key of RELEASES.
    """

    cluster_id = "fake-cluster"

    def __init__(self, brokers: int | Iterable[int] = 1, *, release: str = NEWEST) -> None:
        ids = range(1, brokers + 1) if isinstance(brokers, int) else brokers
        # A port nobody listens on names the broker as long as it is only spoken to in process.
        self.brokers = {id_: Broker(id_, dict(RELEASES[release]), port=9091 + id_) for id_ in ids}
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.coordinators: dict[str, int] = {}
        """Coordinators that are not where the hash of the group's name puts them."""
        self.offsets: Topic | None = None
        """``__consumer_offsets``, if clients may see it: each partition is led by whoever coordinates its groups."""
        self.behind: dict[str, Group | None] = {}
        """What the coordinator of a group has in its place, None: it does not know the group. A coordinator that has
        just taken over answers up to the high watermark of its log, and that may lie behind what was committed. It
        refuses to tell the end of that log as long (KIP-207)."""
        self.forbidden_topics: set[str] = set()
        self.forbidden_groups: set[str] = set()
        self.has_consumer_protocol = release not in WITHOUT_CONSUMER_PROTOCOL
        """Whether the new group coordinator is on (KIP-848); without it ConsumerGroupDescribe is refused."""
        self.cluster_operations = DESCRIBE
        """What the client may do on the cluster: bits of AclOperation (KIP-430)."""
        self.lists_forbidden_groups = False
        """Whether ListGroups names them all the same, as it does for who may describe the cluster."""
        self._topics_made = 0

    # --- topics ---

    def topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        records: int = 0,
        log_start: int = 0,
        timestamp_ms: int = 0,
        step_ms: int = 0,
        leaders: Iterable[int] | int | None = None,
        replication: int = 1,
        internal: bool = False,
    ) -> Topic:
        """Create a topic, anew (with a new id) if it exists.

        Args:
            name: Its name.
            partitions: How many.
            records: So many in each partition, from offset ``log_start`` on.
            log_start: The log start offset of each.
            timestamp_ms: Of the first record of each.
            step_ms: From each record to the next.
            leaders: The leader of each, or of all; in turn by default.
            replication: How many replicas each has, the leader first.
            internal: Whether Metadata calls it internal.
        """
        ids = list(self.brokers)
        first = zlib.crc32(name.encode()) % len(ids)
        if leaders is None:
            leaders = (ids[(first + i) % len(ids)] for i in range(partitions))
        elif isinstance(leaders, int):
            leaders = repeat(leaders, partitions)
        leader = np.fromiter(leaders, np.int32, partitions)
        sets = {
            id_: tuple(ids[(ids.index(id_) + i) % len(ids)] for i in range(min(replication, len(ids)))) for id_ in ids
        }
        self._topics_made += 1
        topic = self.topics[name] = Topic(
            name,
            # The same story has the same ids; a topic that is made again has another.
            uuid.uuid5(uuid.NAMESPACE_URL, f"{self.cluster_id}/{self._topics_made}/{name}"),
            leader,
            [sets[id_] for id_ in leader.tolist()],
            np.full(partitions, log_start, np.int64),
            np.full(partitions, log_start + records, np.int64),
            np.full(partitions, log_start + records, np.int64),
            np.zeros(partitions, np.int32),
            [(Run(log_start, records, timestamp_ms, step_ms),) if records else ()] * partitions,
            internal,
        )
        return topic

    def delete_topic(self, name: str, *, keep_commits: bool = False) -> None:
        """Delete a topic and, as coordinators do, the offsets committed on it."""
        del self.topics[name]
        if not keep_commits:
            for group in self.groups.values():
                group.commits.pop(name, None)

    def add_partitions(self, name: str, leaders: Sequence[int]) -> None:
        """Add empty partitions to a topic, one a leader; each has as many replicas as the topic's first."""
        topic, count = self.topics[name], len(leaders)
        ids = list(self.brokers)
        width = len(topic.replicas[0])
        topic.leader = np.append(topic.leader, leaders).astype(np.int32)
        topic.replicas += [tuple(ids[(ids.index(id_) + i) % len(ids)] for i in range(width)) for id_ in leaders]
        topic.log_start, topic.log_end, topic.last_stable = (
            np.append(column, np.zeros(count, np.int64))
            for column in (topic.log_start, topic.log_end, topic.last_stable)
        )
        topic.leader_epoch = np.append(topic.leader_epoch, np.zeros(count, np.int32))
        topic.runs += [()] * count

    def append(self, topic: str, partition: int, count: int, *, timestamp_ms: int, step_ms: int = 0) -> None:
        """Write records at the end of a partition; ``step_ms`` (0 or more) lies between two of them."""
        self.topics[topic].append(partition, count, timestamp_ms, step_ms)

    def expire(self, topic: str, partition: int, log_start: int) -> None:
        """Drop the records before an offset, as retention or DeleteRecords does."""
        found = self.topics[topic]
        found.log_start[partition] = log_start
        found.runs[partition] = tuple(run for run in found.runs[partition] if run.end > log_start)

    def truncate(self, topic: str, partition: int, log_end: int) -> None:
        """Cut a log at an offset, as an unclean leader election does; its epoch grows."""
        self.topics[topic].truncate(partition, log_end)

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Make a broker the leader of a partition, NO_LEADER none; its epoch grows."""
        found = self.topics[topic]
        found.leader[partition] = broker
        found.leader_epoch[partition] += 1
        if broker != NO_LEADER and broker not in found.replicas[partition]:
            found.replicas[partition] = (broker, *found.replicas[partition][1:])

    # --- groups ---

    def group(
        self,
        name: str,
        commits: Commits | None = None,
        *,
        type: str = CLASSIC,  # noqa: A002 - Kafka's word
        protocol_type: str = "consumer",
        state: str | None = None,
        members: Iterable[Member] = (),
        coordinator: int | None = None,
    ) -> Group:
        """Create a group, in place of one of that name; its state is Stable if it has members, else Empty."""
        members = list(members)
        group = self.groups[name] = Group(
            name, type, protocol_type, state or ("Stable" if members else "Empty"), members=members
        )
        if coordinator is not None:
            self.coordinators[name] = coordinator
        for key, value in (commits or {}).items():
            if isinstance(key, tuple):
                group.commit(*key, int(value))  # type: ignore[arg-type]
            else:
                group.commit_all(key, value)  # type: ignore[arg-type]
        return group

    def commit(self, group: str, topic: str, partition: int, offset: int, *, metadata: str | None = "") -> None:
        """Commit an offset; a group that does not exist comes into being, without members, as for any client."""
        if group not in self.groups:
            self.group(group, protocol_type="")
        self.groups[group].commit(topic, partition, offset, metadata=metadata)

    def delete_group(self, name: str) -> None:
        """Delete a group and its offsets."""
        del self.groups[name]

    def known_group(self, name: str) -> Group | None:
        """Return a group as its coordinator knows it now, None if it does not know it."""
        return self.behind[name] if name in self.behind else self.groups.get(name)

    def show_offsets(self, partitions: int) -> None:
        """Have ``__consumer_offsets``, which clients may see."""
        self.offsets = self.topic(OFFSETS_TOPIC, partitions, internal=True)
        del self.topics[OFFSETS_TOPIC]

    def offsets_leaders(self) -> dict[int, set[int]]:
        """Return who leads each partition of ``__consumer_offsets``: who coordinates the groups that it has or had."""
        if self.offsets is None:
            return {}
        leads: dict[int, set[int]] = {}
        for name in self.groups.keys() | self.coordinators:
            leads.setdefault(self.offsets_partition(name), set()).add(self.coordinator(name))
        return {number: leads.get(number, {int(leader)}) for number, leader in enumerate(self.offsets.leader)}

    def offsets_partition(self, group: str) -> int:
        """Return the partition of ``__consumer_offsets`` that a group's offsets are in, by Java's hash of its name."""
        return 0 if self.offsets is None else _java_hash(group) % len(self.offsets)

    def coordinator(self, group: str) -> int:
        """Return the broker that coordinates a group, whether the group exists or not."""
        ids = list(self.brokers)
        return self.coordinators.get(group, ids[zlib.crc32(group.encode()) % len(ids)])

    def move_coordinator(self, group: str, broker: int) -> None:
        """Make a broker the coordinator of a group."""
        self.coordinators[group] = broker

    # --- who may see what ---

    def forbid(self, *, topic: str | None = None, group: str | None = None) -> None:
        """Take away the permission to describe a topic or a group."""
        self.forbidden_topics.update(filter(None, [topic]))
        self.forbidden_groups.update(filter(None, [group]))

    def allow(self, *, topic: str | None = None, group: str | None = None) -> None:
        """Give it back."""
        self.forbidden_topics.discard(topic or "")
        self.forbidden_groups.discard(group or "")


def _put(sparse: dict[int, T], key: int, value: T, usual: object) -> None:
    if value == usual:
        sparse.pop(key, None)
    else:
        sparse[key] = value
