"""Kafka's wire formats as this monitor needs them: bytes in, columns out.

Only flexible versions are spoken here (compact strings and arrays, tagged fields: KIP-482), which every
broker since Kafka 2.8 offers. The answers that grow with the number of positions (OffsetFetch, ListOffsets,
DescribeShareGroupOffsets) are decoded into numpy columns: entries without texts and tagged fields lie a fixed
stride apart, so a block of them is checked and gathered at once; any other block is walked.

An answer that does not decode to its last byte raises MalformedError. Nothing here waits or logs.
"""

# ruff: noqa: PLR2004 - version numbers and byte sizes are what this module is about

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.model import Int16s, Int32s, Int64s, Member, TopicPartition

Bytes8 = npt.NDArray[np.uint8]


class MalformedError(ValueError):
    """An answer that does not follow its schema."""


class Api(NamedTuple):
    """A request type: its key on the wire, its name, and the first version with flexible headers.

    ``begins_with_throttle`` is whether the first field of its answer is throttle_time_ms (KIP-219).
    """

    key: int
    name: str
    flexible_from: int
    begins_with_throttle: bool = True


LIST_OFFSETS = Api(2, "ListOffsets", 6)
METADATA = Api(3, "Metadata", 9)
OFFSET_FETCH = Api(9, "OffsetFetch", 6)
DESCRIBE_GROUPS = Api(15, "DescribeGroups", 5)
LIST_GROUPS = Api(16, "ListGroups", 3)
DESCRIBE_CLUSTER = Api(60, "DescribeCluster", 0)
CONSUMER_GROUP_DESCRIBE = Api(69, "ConsumerGroupDescribe", 0)
SHARE_GROUP_DESCRIBE = Api(77, "ShareGroupDescribe", 0)
STREAMS_GROUP_DESCRIBE = Api(89, "StreamsGroupDescribe", 0)
DESCRIBE_SHARE_GROUP_OFFSETS = Api(90, "DescribeShareGroupOffsets", 0)

# ListOffsets' special timestamps (ListOffsetsRequest.java)
LATEST = -1
EARLIEST = -2

READ_UNCOMMITTED = 0
READ_COMMITTED = 1


# --- writing ----------------------------------------------------------------------------------------


def uvarint(value: int) -> bytes:
    """Encode an unsigned number in groups of seven bits, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def compact_string(text: str) -> bytes:
    """Encode a string that is not null: its length in bytes plus one, then UTF-8."""
    raw = text.encode()
    return uvarint(len(raw) + 1) + raw


def metadata_request(topics: Sequence[str] | None, version: int) -> bytes:
    """Encode Metadata v9 to v12; ``None`` asks for every topic. Never creates a topic."""
    parts = [b"\0"] if topics is None else [uvarint(len(topics) + 1)]
    for name in topics or ():
        if version >= 10:  # topic ids (KIP-516)
            parts.append(bytes(16))
        parts.append(compact_string(name) + b"\0")
    parts.append(b"\0")  # allow_auto_topic_creation
    if version <= 10:  # include_cluster_authorized_operations: v8 to v10
        parts.append(b"\0")
    parts.append(b"\0\0")  # include_topic_authorized_operations, tags
    return b"".join(parts)


def describe_cluster_request(version: int) -> bytes:
    """Encode DescribeCluster v0 (KIP-700) with the operations that we are authorised to (KIP-430)."""
    del version
    return b"\1\0"


def list_groups_request(version: int) -> bytes:
    """Encode ListGroups v3 to v5 without filters: states since v4 (KIP-518), types since v5 (KIP-848)."""
    return {3: b"\0", 4: b"\1\0", 5: b"\1\1\0"}[version]


def offset_fetch_request(groups: Iterable[str], version: int) -> bytes:
    """Encode OffsetFetch v8 or v9 (KIP-709) for every topic of many groups.

    ``require_stable`` is off: an observer wants what is committed, not to wait for open transactions.
    """
    # topics null; v9 asks as no member: member id null, epoch -1
    tail = b"\0\0" if version == 8 else b"\0\xff\xff\xff\xff\0\0"
    bodies = [compact_string(group) + tail for group in groups]
    return uvarint(len(bodies) + 1) + b"".join(bodies) + b"\0\0"


def old_offset_fetch_request(group: str, version: int) -> bytes:
    """Encode OffsetFetch v6 or v7, which ask for every topic of one group (brokers before 3.0)."""
    return compact_string(group) + (b"\0\0" if version == 6 else b"\0\0\0")


def join_old_offset_fetches(answers: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the answers of v6 or v7 to several groups as the one answer that v8 would be.

    What v8 says of a group is its name and then, byte for byte, what v7 says after the throttle time.

    Raises:
        MalformedError: An answer is shorter than its throttle time.
    """
    if any(len(data) < 4 for _, data in answers):
        raise MalformedError("an answer ends inside its throttle time")
    parts = (compact_string(group) + data[4:] for group, data in answers)
    return bytes(4) + uvarint(len(answers) + 1) + b"".join(parts) + b"\0"


_QUESTION = np.dtype([("partition", ">i4"), ("epoch", ">i4"), ("timestamp", ">i8"), ("tags", "u1")])


def list_offsets_request(
    topics: Sequence[tuple[str, Int32s, Int64s | int]], version: int, *, isolation: int = READ_UNCOMMITTED
) -> bytes:
    """Encode ListOffsets v6 to v11.

    Args:
        topics: Name, distinct partitions, and the timestamp in milliseconds of each (or one for all).
        version: The version spoken.
        isolation: READ_COMMITTED makes LATEST the last stable offset (KIP-98).
    """
    parts = [struct.pack(">ib", -1, isolation), uvarint(len(topics) + 1)]
    for name, partitions, timestamps in topics:
        questions = np.empty(len(partitions), _QUESTION)
        questions["partition"] = partitions
        # No leader epoch: with one, a stale view answers FENCED_LEADER_EPOCH instead of NOT_LEADER.
        questions["epoch"] = -1
        questions["timestamp"] = timestamps
        questions["tags"] = 0
        parts += [compact_string(name), uvarint(len(partitions) + 1), questions.tobytes(), b"\0"]
    if version >= 10:  # timeout_ms (KIP-1075), for offsets in tiered storage
        parts.append(struct.pack(">i", 0))
    parts.append(b"\0")
    return b"".join(parts)


def describe_groups_request(groups: Sequence[str], version: int) -> bytes:
    """Encode DescribeGroups v5 or v6, ConsumerGroupDescribe, ShareGroupDescribe or StreamsGroupDescribe.

    They ask alike: names, and whether to tell what the asker may do (no).
    """
    del version
    return uvarint(len(groups) + 1) + b"".join(compact_string(group) for group in groups) + b"\0\0"


def share_group_offsets_request(groups: Sequence[str], version: int) -> bytes:
    """Encode DescribeShareGroupOffsets v0 or v1 (KIP-932, KIP-1226) for every topic of many share groups."""
    del version
    # topics null, tags
    return uvarint(len(groups) + 1) + b"".join(compact_string(group) + b"\0\0" for group in groups) + b"\0"


# --- reading ----------------------------------------------------------------------------------------


class Reader:
    """A cursor over one answer; every read past the end raises MalformedError."""

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self.data = data
        self.pos = pos

    def _number(self, fmt: str, size: int) -> int:
        try:
            (value,) = struct.unpack_from(fmt, self.data, self.pos)
        except struct.error as exc:
            msg = f"the answer ends at byte {len(self.data)}, inside a number"
            raise MalformedError(msg) from exc
        self.pos += size
        return int(value)

    def i8(self) -> int:
        """Read a signed byte."""
        return self._number(">b", 1)

    def i16(self) -> int:
        """Read two bytes."""
        return self._number(">h", 2)

    def i32(self) -> int:
        """Read four bytes."""
        return self._number(">i", 4)

    def uvarint(self) -> int:
        """Read an unsigned varint of at most 32 bits."""
        value = shift = 0
        while True:
            if self.pos >= len(self.data):
                msg = f"the answer ends at byte {len(self.data)}, inside a length"
                raise MalformedError(msg)
            byte = self.data[self.pos]
            self.pos += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:  # five groups of seven bits hold 32
                msg = f"the length at byte {self.pos} has more than 32 bits"
                raise MalformedError(msg)
        if value > 0xFFFFFFFF:
            msg = f"the length at byte {self.pos} has more than 32 bits"
            raise MalformedError(msg)
        return value

    def skip(self, size: int) -> None:
        """Step over bytes."""
        if size < 0 or self.pos + size > len(self.data):
            msg = f"the answer ends at byte {len(self.data)}, {self.pos + size} wanted"
            raise MalformedError(msg)
        self.pos += size

    def take(self, size: int) -> bytes:
        """Read bytes."""
        start = self.pos
        self.skip(size)
        return self.data[start : self.pos]

    def count(self) -> int:
        """Read the length of a compact array; null counts as empty."""
        return self._plausible(max(self.uvarint() - 1, 0))

    def _plausible(self, count: int) -> int:
        # An element has a byte at least: a length beyond what is left is garbage, not a reason to allocate.
        if count > len(self.data) - self.pos:
            msg = f"an array of {count} elements in an answer of {len(self.data)} bytes"
            raise MalformedError(msg)
        return count

    def nullable_count(self) -> int | None:
        """Read the length of a compact array that may be null."""
        size = self.uvarint() - 1
        return None if size < 0 else self._plausible(size)

    def is_null(self) -> bool:
        """Read the byte before a struct that may be null, and return whether it is."""
        return self.i8() < 0

    def string(self) -> str | None:
        """Read a compact nullable string."""
        size = self.uvarint() - 1
        if size < 0:
            return None
        raw = self.take(size)
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            msg = f"the string at byte {self.pos - size} is not UTF-8"
            raise MalformedError(msg) from exc

    def name(self) -> str:
        """Read a compact string that may not be null."""
        text = self.string()
        if text is None:
            msg = f"the string at byte {self.pos} is null"
            raise MalformedError(msg)
        return text

    def blob(self) -> bytes:
        """Read compact bytes; null is empty."""
        return self.take(max(self.uvarint() - 1, 0))

    def i32s(self) -> Int32s:
        """Read a compact array of four-byte numbers."""
        return np.frombuffer(self.take(4 * self.count()), ">i4").astype(np.int32)

    def tags(self) -> None:
        """Step over tagged fields: none of them matters here."""
        # Their number is what it says, not one more as the length of an array.
        for _ in range(self._plausible(self.uvarint())):
            self.uvarint()
            self.skip(self.uvarint())

    def end(self) -> None:
        """Check that nothing is left."""
        if self.pos != len(self.data):
            msg = f"{len(self.data) - self.pos} bytes are left after the answer"
            raise MalformedError(msg)


class BrokerAddress(NamedTuple):
    """A broker as Metadata names it."""

    node: int
    host: str
    port: int


@dataclass(frozen=True, slots=True, eq=False)
class Topic:
    """A topic as Metadata describes it: row i is ``partitions[i]`` (ascending) and its leader, -1 if it has none.

    ``id`` is empty where the broker does not tell it (before v10, KIP-516).
    """

    name: str
    error: int
    internal: bool
    partitions: Int32s
    leaders: Int32s
    id: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Metadata:
    """One Metadata answer."""

    brokers: tuple[BrokerAddress, ...]
    topics: tuple[Topic, ...]


def decode_metadata(data: bytes, version: int) -> Metadata:
    """Decode Metadata v9 to v12.

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    read = Reader(data)
    read.i32()  # throttle_time_ms
    brokers = []
    for _ in range(read.count()):
        brokers.append(BrokerAddress(read.i32(), read.name(), read.i32()))
        read.string()  # rack
        read.tags()
    read.string()  # cluster_id
    read.i32()  # controller_id
    topics = [_topic(read, version) for _ in range(read.count())]
    if version <= 10:  # cluster_authorized_operations: v8 to v10
        read.i32()
    read.tags()
    read.end()
    return Metadata(tuple(brokers), tuple(topics))


def _topic(read: Reader, version: int) -> Topic:
    error = read.i16()
    name = read.name()
    id_ = read.take(16) if version >= 10 else b""
    internal = bool(read.i8())
    rows = sorted(_partition(read) for _ in range(read.count()))
    read.i32()  # topic_authorized_operations
    read.tags()
    columns = np.array(rows, np.int32).reshape(-1, 2)
    return Topic(name, error, internal, columns[:, 0].copy(), columns[:, 1].copy(), b"" if id_ == _NO_ID else id_)


_NO_ID = bytes(16)

_PARTITION = struct.Struct(">hiii")


def _partition(read: Reader) -> tuple[int, int]:
    try:
        _error, partition, leader, _epoch = _PARTITION.unpack_from(read.data, read.pos)
    except struct.error as exc:
        msg = f"the answer ends at byte {len(read.data)}, inside a partition"
        raise MalformedError(msg) from exc
    read.pos += _PARTITION.size
    for _ in range(3):  # replicas, in sync, offline
        read.skip(4 * read.count())
    read.tags()
    return partition, leader


def decode_describe_cluster(data: bytes, version: int) -> tuple[int, int]:
    """Decode DescribeCluster v0 into its error code and the bits of our authorised operations on the cluster.

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    del version
    read = Reader(data)
    read.i32()  # throttle_time_ms
    error = read.i16()
    read.string()  # error_message
    read.name()  # cluster_id
    read.i32()  # controller_id
    for _ in range(read.count()):
        read.i32()  # broker_id
        read.name()  # host
        read.i32()  # port
        read.string()  # rack
        read.tags()
    operations = read.i32()
    read.tags()
    read.end()
    return error, operations


class ListedGroup(NamedTuple):
    """A group as ListGroups names it; None where the version does not say."""

    name: str
    protocol_type: str
    state: str | None
    type: str | None


def decode_list_groups(data: bytes, version: int) -> tuple[int, tuple[ListedGroup, ...]]:
    """Decode ListGroups v3 to v5 into its error code and its groups.

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    read = Reader(data)
    read.i32()  # throttle_time_ms
    error = read.i16()
    groups = []
    for _ in range(read.count()):
        name, protocol_type = read.name(), read.name()
        state = read.name() if version >= 4 else None
        kind = read.name() if version >= 5 else None
        read.tags()
        groups.append(ListedGroup(name, protocol_type, state, kind))
    read.tags()
    read.end()
    return error, tuple(groups)


# --- descriptions of groups -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    """A group as its coordinator describes it; the words are those of ``model.GroupFacts``.

    ``assigned`` maps each partition to its owner's client id, empty where several members of a share group read it.
    """

    name: str
    error: int
    state: str = ""
    members: tuple[Member, ...] = ()
    assigned: dict[TopicPartition, str] = field(default_factory=dict)
    subscribed: frozenset[str] | None = None
    assignor: str | None = None
    epoch: int | None = None


MOST_ASSIGNED = 1_000_000
"""More partitions than a cluster has: an answer about so many is garbage, not a reason to allocate."""


class _Topics:
    """What the members of a group subscribe to together: unknown as soon as one of them cannot be told."""

    def __init__(self) -> None:
        self._names: set[str] | None = None
        self._is_unknown = False

    def add(self, names: Iterable[str] | None) -> None:
        if names is None:
            self._is_unknown = True
        elif self._names is None:
            self._names = set(names)
        else:
            self._names.update(names)

    def known(self) -> frozenset[str] | None:
        return None if self._is_unknown or self._names is None else frozenset(self._names)


def decode_describe_groups(data: bytes, version: int) -> list[DescribedGroup]:
    """Decode DescribeGroups v5 or v6 (classic groups).

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    return _described(data, version, _classic_group)


def decode_consumer_group_describe(data: bytes, version: int) -> list[DescribedGroup]:
    """Decode ConsumerGroupDescribe v0 or v1 (KIP-848).

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    return _described(data, version, _consumer_group)


def decode_share_group_describe(data: bytes, version: int) -> list[DescribedGroup]:
    """Decode ShareGroupDescribe v1 (KIP-932): a partition may be assigned to several members.

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    return _described(data, version, _share_group)


def decode_streams_group_describe(data: bytes, version: int) -> list[DescribedGroup]:
    """Decode StreamsGroupDescribe v0 (KIP-1071).

    A member is assigned tasks: partition p of every topic its subtopology reads. Where these topics do not have the
    same number of partitions, some that are told here do not exist. Standby and warm-up tasks read no input.

    Raises:
        MalformedError: The answer does not follow the schema.
    """
    return _described(data, version, _streams_group)


def _described(data: bytes, version: int, group: Callable[[Reader, int], DescribedGroup]) -> list[DescribedGroup]:
    read = Reader(data)
    read.i32()  # throttle_time_ms
    groups = [group(read, version) for _ in range(read.count())]
    read.tags()
    read.end()
    return groups


def _classic_group(read: Reader, version: int) -> DescribedGroup:
    error = read.i16()
    if version >= 6:  # error_message (KIP-1043)
        read.string()
    name, state, protocol_type, protocol = read.name(), read.name(), read.name(), read.name()
    is_consumer = protocol_type == "consumer"
    members, topics = [], _Topics()
    subscriptions: dict[bytes, frozenset[str] | None] = {}  # most members of a group say the same
    for _ in range(read.count()):
        member_id, instance_id, client, host = read.name(), read.string(), read.name(), read.name()
        metadata, assignment = read.blob(), read.blob()
        read.tags()
        assigned: Sequence[TopicPartition] = ()
        if is_consumer:
            if metadata not in subscriptions:
                subscriptions[metadata] = decode_subscription(metadata)
            topics.add(subscriptions[metadata])
            assigned = decode_assignment(assignment)
        members.append(Member(member_id, client, host, instance_id, None, tuple(assigned)))
    read.i32()  # authorized_operations
    read.tags()
    return DescribedGroup(
        name,
        error,
        state,
        tuple(members),
        {where: member.client_id for member in members for where in member.assigned},
        topics.known(),
        protocol or None,
    )


def decode_subscription(data: bytes) -> frozenset[str] | None:
    """Decode the topics of a consumer protocol subscription (v0 to v3); None for what is not one.

    Topics come first and user data after them in every version. What follows is not read: nothing of it is needed
    here, and clients write it as they like (Faust calls the fields of v0 its version 4).
    """
    read = Reader(data)
    try:
        if read.i16() < 0 or (count := read.i32()) < 0:
            return None
        topics = frozenset(read.take(read.i16()).decode() for _ in range(count))
        read.skip(max(read.i32(), 0))  # user_data, -1 for null
    except (MalformedError, UnicodeDecodeError):
        return None
    return topics


def decode_assignment(data: bytes) -> list[TopicPartition]:
    """Decode a consumer protocol assignment v0 to v3; empty for what is not one.

    Clients write these bytes and brokers do not look into them, so a foreign or broken one is no fault of
    the answer that carries it.
    """
    read = Reader(data)
    found = []
    try:
        if read.i16() < 0:
            return []
        for _ in range(read.i32()):
            name = read.take(read.i16()).decode()
            partitions = np.frombuffer(read.take(4 * read.i32()), ">i4").tolist()
            found += [TopicPartition(name, partition) for partition in partitions]
    except (MalformedError, UnicodeDecodeError):
        return []
    return found


def _consumer_group(read: Reader, version: int) -> DescribedGroup:
    error, name, state, epoch = _head(read)
    assignor = read.name()
    topics = _Topics()
    members = tuple(_consumer_member(read, version, topics) for _ in range(read.count()))
    read.i32()  # authorized_operations
    read.tags()
    assigned = {where: member.client_id for member in members for where in member.assigned}
    return DescribedGroup(name, error, state, members, assigned, topics.known(), assignor or None, epoch)


def _head(read: Reader) -> tuple[int, str, str, int | None]:
    """Read what descriptions of all new protocols begin with: error, name, state, and the group epoch."""
    error = read.i16()
    read.string()  # error_message
    name, state = read.name(), read.name()
    epoch = read.i32()
    read.i32()  # assignment_epoch
    return error, name, state, None if error else epoch


def _consumer_member(read: Reader, version: int, topics: _Topics) -> Member:
    member_id, instance_id = read.name(), read.string()
    read.string()  # rack_id
    epoch = read.i32()
    client, host = read.name(), read.name()
    names = [read.name() for _ in range(read.count())]
    # A pattern is RE2J's (subscribed_topic_regex, KIP-848): what it matches, only the coordinator knows for sure.
    topics.add(None if read.string() else names)
    assigned = _assignment(read)
    _assignment(read)  # the target assignment
    if version >= 1:
        read.i8()  # member_type
    read.tags()
    return Member(member_id, client, host, instance_id, epoch, assigned)


def _assignment(read: Reader) -> tuple[TopicPartition, ...]:
    found = []
    for _ in range(read.count()):
        read.skip(16)  # topic_id
        name = read.name()
        found += [TopicPartition(name, partition) for partition in read.i32s().tolist()]
        read.tags()
    read.tags()
    return tuple(found)


def _share_group(read: Reader, _version: int) -> DescribedGroup:
    error, name, state, epoch = _head(read)
    assignor = read.name()
    topics = _Topics()
    members = tuple(_share_member(read, topics) for _ in range(read.count()))
    read.i32()  # authorized_operations
    read.tags()
    assigned: dict[TopicPartition, str] = {}
    for member in members:
        for where in member.assigned:
            assigned[where] = "" if assigned.get(where, member.client_id) != member.client_id else member.client_id
    return DescribedGroup(name, error, state, members, assigned, topics.known(), assignor or None, epoch)


def _share_member(read: Reader, topics: _Topics) -> Member:
    member_id = read.name()
    read.string()  # rack_id
    epoch = read.i32()
    client, host = read.name(), read.name()
    topics.add([read.name() for _ in range(read.count())])
    assigned = _assignment(read)
    read.tags()
    return Member(member_id, client, host, None, epoch, assigned)


def _streams_group(read: Reader, _version: int) -> DescribedGroup:
    error, name, state, epoch = _head(read)
    sources = _topology(read)
    left = MOST_ASSIGNED
    members = []
    for _ in range(read.count()):
        members.append(_streams_member(read, sources or {}, left))
        left -= len(members[-1].assigned)
    read.i32()  # authorized_operations
    read.tags()
    assigned = {where: member.client_id for member in members for where in member.assigned}
    topics = None if sources is None else frozenset(topic for names in sources.values() for topic in names)
    return DescribedGroup(name, error, state, tuple(members), assigned, topics, None, epoch)


def _topology(read: Reader) -> dict[str, tuple[str, ...]] | None:
    """Read which topics each subtopology reads; None while the group has none, or its topics are not as needed."""
    if read.is_null():
        return None
    read.i32()  # epoch
    count = read.nullable_count()
    sources: dict[str, tuple[str, ...]] = {}
    for _ in range(count or 0):
        name = read.name()
        topics = [read.name() for _ in range(read.count())]
        for _ in range(read.count()):
            read.name()  # repartition_sink_topics
        for _ in range(read.count()):
            _topic_info(read)  # state_changelog_topics
        topics += [_topic_info(read) for _ in range(read.count())]  # repartition_source_topics
        read.tags()
        sources[name] = tuple(dict.fromkeys(topics))
    read.tags()
    return None if count is None else sources


def _topic_info(read: Reader) -> str:
    name = read.name()
    read.skip(6)  # partitions, replication_factor
    _key_values(read)
    read.tags()
    return name


def _key_values(read: Reader) -> None:
    for _ in range(read.count()):
        read.name()
        read.name()
        read.tags()


def _streams_member(read: Reader, sources: Mapping[str, Sequence[str]], left: int) -> Member:
    member_id, epoch, instance_id = read.name(), read.i32(), read.string()
    read.string()  # rack_id
    client, host = read.name(), read.name()
    read.i32()  # topology_epoch
    read.name()  # process_id
    if not read.is_null():  # user_endpoint
        read.name()
        read.skip(2)
        read.tags()
    _key_values(read)  # client_tags
    for _ in range(2):  # task_offsets, task_end_offsets
        for _ in range(read.count()):
            read.name()
            read.skip(12)
            read.tags()
    assigned = [
        TopicPartition(topic, partition)
        for topic, partitions in _active(read, sources, left)
        for partition in partitions
    ]
    _active(read, {}, left)  # the target assignment
    read.i8()  # is_classic
    read.tags()
    return Member(member_id, client, host, instance_id, epoch, tuple(assigned))


def _active(read: Reader, sources: Mapping[str, Sequence[str]], left: int) -> list[tuple[str, list[int]]]:
    """Read a member's tasks and return the partitions that its active ones read, by topic."""
    found = []
    for _ in range(read.count()):
        name, partitions = read.name(), read.i32s().tolist()
        read.tags()
        topics = sources.get(name, ())
        left -= len(topics) * len(partitions)
        if left < 0:
            msg = f"a streams group is assigned more than {MOST_ASSIGNED} partitions"
            raise MalformedError(msg)
        found += [(topic, partitions) for topic in topics]
    for _ in range(2):  # standby_tasks, warmup_tasks
        for _ in range(read.count()):
            read.name()
            read.i32s()
            read.tags()
    read.tags()
    return found


# --- the large answers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Everything of a large answer but its moving numbers: which entry is about what.

    One entry a position (OffsetFetch, DescribeShareGroupOffsets) or a partition (ListOffsets). ``topic`` indexes
    ``topics``; ``group`` indexes ``groups`` and is empty for ListOffsets. ``error`` is the broker's code of each entry.
    A shape keeps its identity (``is``) from answer to answer while only numbers move.
    """

    topics: tuple[str, ...]
    topic: Int32s
    partition: Int32s
    error: Int16s
    groups: tuple[str, ...] = ()
    group: Int32s = field(default_factory=lambda: np.empty(0, np.int32))
    group_error: Int16s = field(default_factory=lambda: np.empty(0, np.int16))

    def __len__(self) -> int:
        return len(self.partition)


class Offsets(NamedTuple):
    """The moving numbers of an answer, row for row with ``shape``.

    Timestamps are only from ListOffsets. ``lag`` is only from DescribeShareGroupOffsets v1, -1 where the broker does
    not know it; there ``offset`` is the share-partition start offset, -1 before the first fetch.
    """

    shape: Shape
    offset: Int64s
    timestamp_ms: Int64s
    lag: Int64s | None = None


class _Entry(NamedTuple):
    """Where the numbers of an entry lie when it has its usual, fixed size."""

    stride: int
    offset: int
    error: int
    moving: tuple[int, int]
    """First and last-but-one byte of what may differ between two answers of the same shape."""
    timestamp: int | None = None
    lag: int | None = None
    text: int | None = None
    """The length of a string, if there is one: one byte, 0 for null or 1 for empty."""
    id_size: int = 0
    """So many bytes of topic id are between the topic's name and its entries."""


# partition i4, offset i8, leader epoch i4, metadata (one byte: empty or null), error i2, tags
_COMMIT = _Entry(stride=20, offset=4, error=17, moving=(4, 16), text=16)
# partition i4, error i2, timestamp i8, offset i8, leader epoch i4, tags
_END = _Entry(stride=27, offset=14, error=4, moving=(6, 26), timestamp=6)
# partition i4, start offset i8, leader epoch i4, lag i8 (v1), error i2, error message (null or empty), tags
_SHARE = {
    0: _Entry(stride=20, offset=4, error=16, moving=(4, 16), text=18, id_size=16),
    1: _Entry(stride=28, offset=4, error=24, moving=(4, 24), lag=16, text=26, id_size=16),
}


class _Decoder(ABC):
    """Decode the answers to one question, asked again and again.

    From cycle to cycle only numbers move. So the answer before serves as a template: where every other byte
    is the same, the numbers are gathered from the known places, and the shape stays the same object.
    """

    def __init__(self) -> None:
        self._template: _Template | None = None
        self._data = b""
        self._answer: Offsets | None = None

    def decode(self, data: bytes) -> Offsets:
        """Decode one answer; byte for byte the answer before gives the very same object.

        Raises:
            MalformedError: The answer does not follow the schema.
        """
        if self._answer is not None and self._data == data:
            return self._answer
        if self._template is None or not self._template.fits(data):
            self._template = self._lay_out(data)
        self._data, self._answer = data, self._template.read(data)
        return self._answer

    @abstractmethod
    def _lay_out(self, data: bytes) -> _Template: ...


class OffsetFetchDecoder(_Decoder):
    """Decode OffsetFetch v8 and v9 answers."""

    def _lay_out(self, data: bytes) -> _Template:
        return _commits_template(data)


class ListOffsetsDecoder(_Decoder):
    """Decode ListOffsets v6 to v11 answers."""

    def _lay_out(self, data: bytes) -> _Template:
        return _ends_template(data)


class ShareOffsetsDecoder(_Decoder):
    """Decode DescribeShareGroupOffsets answers of one version, 0 or 1."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self._version = version

    def _lay_out(self, data: bytes) -> _Template:
        return _share_template(data, self._version)


class _Template:
    """An answer's constant bytes, its shape, and where its numbers lie."""

    def __init__(self, data: bytes, shape: Shape, starts: Int64s, entry: _Entry) -> None:
        self._shape = shape
        self._size = len(data)
        self._words = _words(data)
        constant = np.full(len(self._words) * 8, 0xFF, np.uint8)
        constant[:4] = 0  # throttle_time_ms
        first, end = entry.moving
        for byte in range(first, end):
            constant[starts + byte] = 0
        self._constant = constant.view(np.uint64)
        self._words &= self._constant
        self._offset_at = starts + entry.offset
        self._timestamp_at = None if entry.timestamp is None else starts + entry.timestamp
        self._lag_at = None if entry.lag is None else starts + entry.lag

    def fits(self, data: bytes) -> bool:
        """Return whether an answer differs from this one in its numbers only."""
        if len(data) != self._size:
            return False
        words = _words(data)
        words &= self._constant
        return bool(np.array_equal(words, self._words))

    def read(self, data: bytes) -> Offsets:
        """Gather the numbers of an answer that fits."""
        raw = np.frombuffer(data, np.uint8)
        offset = _gather(raw, self._offset_at, ">i8").astype(np.int64)
        times = _NO_TIMES if self._timestamp_at is None else _gather(raw, self._timestamp_at, ">i8").astype(np.int64)
        lag = None if self._lag_at is None else _gather(raw, self._lag_at, ">i8").astype(np.int64)
        return Offsets(self._shape, offset, times, lag)


_NO_TIMES = np.empty(0, np.int64)


def _words(data: bytes) -> npt.NDArray[np.uint64]:
    """Return a private copy as words of eight bytes, zeros after the end: compared eight bytes at a time."""
    words = np.zeros((len(data) + 7) // 8, np.uint64)
    words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return words


def _gather(raw: Bytes8, at: Int64s, dtype: str) -> npt.NDArray[np.generic]:
    """Read a big-endian number at each byte position."""
    size = np.dtype(dtype).itemsize
    windows = np.lib.stride_tricks.as_strided(raw, (max(len(raw) - size + 1, 0), size), (1, 1), writeable=False)
    return np.ascontiguousarray(windows[at]).view(dtype)[:, 0] if len(at) else np.empty(0, dtype)


class _Blocks:
    """The partition entries of an answer, collected topic block by topic block, turned into columns at the end."""

    def __init__(self, read: Reader, entry: _Entry, walk: Callable[[Reader], int]) -> None:
        self._read = read
        self._entry = entry
        self._walk = walk
        self._names: dict[bytes, int] = {}
        self.topic: list[int] = []
        self.start: list[int] = []
        self.size: list[int] = []
        self.entries = 0
        self._odd: list[tuple[int, int, int]] = []

    def block(self) -> None:
        """Read one topic: its name, its entries, its tags."""
        read = self._read
        raw = read.blob()
        read.skip(self._entry.id_size)
        count = read.count()
        self.topic.append(self._names.setdefault(raw, len(self._names)))
        self.start.append(read.pos)
        self.size.append(count)
        if not self._is_fixed(count):
            for index in range(self.entries, self.entries + count):
                start = read.pos
                self._odd.append((index, start, self._walk(read)))
        self.entries += count
        read.tags()

    def _is_fixed(self, count: int) -> bool:
        """Step over a block whose entries all have the usual size; False (and no step) if one has not."""
        read, stride = self._read, self._entry.stride
        data, start = read.data, read.pos
        end = start + count * stride
        if end > len(data) or any(data[start + stride - 1 : end : stride]):
            return False
        text = self._entry.text
        if text is not None and data[start + text : end : stride].strip(b"\0\1"):
            return False
        read.pos = end
        return True

    def columns(self, data: bytes) -> tuple[tuple[str, ...], Int32s, Int32s, Int16s, Int64s]:
        """Return topics, then topic, partition, error and start byte of every entry."""
        sizes = np.array(self.size, np.int64)
        begins = np.cumsum(sizes) - sizes
        within = np.arange(self.entries, dtype=np.int64) - np.repeat(begins, sizes)
        starts = np.repeat(np.array(self.start, np.int64), sizes) + within * self._entry.stride
        errors = starts + self._entry.error
        if self._odd:
            index, start, error = np.array(self._odd, np.int64).T
            starts[index] = start
            errors[index] = error
        raw = np.frombuffer(data, np.uint8)
        try:
            topics = tuple(name.decode() for name in self._names)
        except UnicodeDecodeError as exc:
            raise MalformedError("the name of a topic is not UTF-8") from exc
        return (
            topics,
            np.repeat(np.array(self.topic, np.int32), sizes),
            _gather(raw, starts, ">i4").astype(np.int32),
            _gather(raw, errors, ">i2").astype(np.int16),
            starts,
        )


def _walk_commit(read: Reader) -> int:
    """Step over one OffsetFetch entry of any size and return where its error lies."""
    read.skip(16)
    read.skip(max(read.uvarint() - 1, 0))
    error_at = read.pos
    read.i16()
    read.tags()
    return error_at


def _walk_end(read: Reader) -> int:
    """Step over one ListOffsets entry of any size and return where its error lies."""
    error_at = read.pos + _END.error
    read.skip(_END.stride - 1)
    read.tags()
    return error_at


def _walk_share(entry: _Entry, read: Reader) -> int:
    """Step over one DescribeShareGroupOffsets entry of any size and return where its error lies."""
    error_at = read.pos + entry.error
    read.skip(entry.error + 2)
    read.skip(max(read.uvarint() - 1, 0))  # error_message
    read.tags()
    return error_at


def _commits_template(data: bytes) -> _Template:
    return _groups_template(data, _COMMIT, _walk_commit)


def _share_template(data: bytes, version: int) -> _Template:
    entry = _SHARE[version]
    return _groups_template(data, entry, partial(_walk_share, entry), has_message=True)


def _groups_template(
    data: bytes, entry: _Entry, walk: Callable[[Reader], int], *, has_message: bool = False
) -> _Template:
    """Lay out an answer that lists entries by group and topic; ``has_message`` beside the group's error."""
    read = Reader(data)
    read.i32()  # throttle_time_ms
    blocks = _Blocks(read, entry, walk)
    groups, errors, sizes = [], [], []
    for _ in range(read.count()):
        groups.append(read.name())
        before = blocks.entries
        for _ in range(read.count()):
            blocks.block()
        sizes.append(blocks.entries - before)
        errors.append(read.i16())
        if has_message:
            read.string()
        read.tags()
    read.tags()
    read.end()
    topics, topic, partition, error, starts = blocks.columns(data)
    shape = Shape(
        topics,
        topic,
        partition,
        error,
        groups=tuple(groups),
        group=np.repeat(np.arange(len(groups), dtype=np.int32), sizes),
        group_error=np.array(errors, np.int16),
    )
    return _Template(data, shape, starts, entry)


def _ends_template(data: bytes) -> _Template:
    read = Reader(data)
    read.i32()  # throttle_time_ms
    blocks = _Blocks(read, _END, _walk_end)
    for _ in range(read.count()):
        blocks.block()
    read.tags()
    read.end()
    topics, topic, partition, error, starts = blocks.columns(data)
    return _Template(data, Shape(topics, topic, partition, error), starts, _END)
