"""What a healthy broker answers: a request and the truth in, bytes out. Pure.

Requests are read and most answers are written by kio's schemas. The three answers that grow with the cluster
(Metadata, OffsetFetch, ListOffsets) are written by hand, in rows of numpy where entries have a fixed size; the
tests hold every version of them against kio. Which error goes where follows Kafka 4.3, beside which the tests put
the fake; the one difference of older brokers that matters to an observer is ``Truth.has_consumer_protocol``.
"""

# ruff: noqa: PLR2004 - version numbers are what this module is about

from __future__ import annotations

import dataclasses
import datetime
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from kio.index import KioIndexError, load_payload_module, load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode as KioErrorCode
from kio.serial import entity_reader, entity_writer
from kio.serial.errors import SerialError
from kio.static.constants import EntityType

from monitor.sandbox.fake_state import (
    CLASSIC,
    CONSUMER,
    NO_LEADER,
    NO_OFFSET,
    NO_RECORD,
    OFFSETS_TOPIC,
    SHARE,
    STREAMS,
    Broker,
    Committed,
    Group,
    Int64s,
    Member,
    Record,
    Topic,
    Truth,
)

API_KEYS = {
    "ListOffsets": 2,
    "Metadata": 3,
    "OffsetFetch": 9,
    "FindCoordinator": 10,
    "DescribeGroups": 15,
    "ListGroups": 16,
    "ApiVersions": 18,
    "DescribeCluster": 60,
    "ConsumerGroupDescribe": 69,
    "ShareGroupDescribe": 77,
    "StreamsGroupDescribe": 89,
    "DescribeShareGroupOffsets": 90,
}
API_NAMES = {key: name for name, key in API_KEYS.items()}

NONE = 0
UNKNOWN_TOPIC_OR_PARTITION = 3
LEADER_NOT_AVAILABLE = 5
NOT_LEADER_OR_FOLLOWER = 6
OFFSET_NOT_AVAILABLE = 78
COORDINATOR_LOAD_IN_PROGRESS = 14
COORDINATOR_NOT_AVAILABLE = 15
NOT_COORDINATOR = 16
UNKNOWN_MEMBER_ID = 25
TOPIC_AUTHORIZATION_FAILED = 29
GROUP_AUTHORIZATION_FAILED = 30
UNSUPPORTED_VERSION = 35
INVALID_REQUEST = 42
GROUP_ID_NOT_FOUND = 69
FENCED_LEADER_EPOCH = 74
UNKNOWN_LEADER_EPOCH = 75
UNKNOWN_TOPIC_ID = 100
STALE_MEMBER_EPOCH = 113

# ListOffsets' special timestamps (ListOffsetsRequest.java), and the first version that knows each.
LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
EARLIEST_PENDING_UPLOAD = -6
KNOWN_SINCE = {
    LATEST: 1,
    EARLIEST: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}

NOT_KNOWN_YET = 1 << 15

GROUP_KEY = 0
"""FindCoordinator's key type for groups."""

# DESCRIBE, and READ and DELETE for groups: bits by AclOperation's code.
AUTHORIZED_OPERATIONS = {"topic": 1 << 8, "group": 1 << 8 | 1 << 6 | 1 << 3, "cluster": 1 << 8}
NOT_ASKED = -(2**31)


class RefusedError(Exception):
    """A request that makes a broker close the connection: unknown, of a wrong version, or unreadable."""


@dataclass(frozen=True, slots=True)
class Header:
    """What comes before the body of a request."""

    api_key: int
    version: int
    correlation_id: int = 0
    client_id: str | None = None

    @property
    def api(self) -> str:
        """Return the request's name, or its number if the fake does not know it."""
        return API_NAMES.get(self.api_key, str(self.api_key))


def split(frame: bytes) -> tuple[Header, bytes]:
    """Split a request, without the size before it, into header and body.

    Raises:
        RefusedError: It ends inside its header.
    """
    try:
        api_key, version, correlation_id, size = struct.unpack_from(">hhih", frame)
    except struct.error as exc:
        msg = f"a request of {len(frame)} bytes"
        raise RefusedError(msg) from exc
    end = 10 + max(size, 0)
    # The client id is not compact even where the header has tags (RequestHeader.json).
    client_id = frame[10:end].decode(errors="replace") if size >= 0 else None
    header = Header(api_key, version, correlation_id, client_id)
    schema = _request_schema(api_key, version)
    has_tags = schema is not None and schema.__header_schema__.__version__ == 2
    return header, frame[end + has_tags :]  # no client sends tagged fields in a header


def join(header: Header, body: bytes) -> bytes:
    """Return an answer as it travels: size, header and body."""
    key, version = header.api_key, header.version
    known = _response_schema(key, version)
    tags = b"\0" if known is not None and known.__header_schema__.__version__ == 1 else b""
    return struct.pack(">ii", 4 + len(tags) + len(body), header.correlation_id) + tags + body


def answer(truth: Truth, broker_id: int, header: Header, body: bytes, now: float) -> bytes:
    """Return the body of a broker's answer.

    Args:
        truth: The cluster.
        broker_id: Who is asked.
        header: The request's header.
        body: The request's body.
        now: Epoch seconds, or what the test calls so.

    Raises:
        RefusedError: The broker would close the connection.
    """
    broker = truth.brokers[broker_id]
    low, high = broker.versions.get(header.api, (0, -1))
    if not low <= header.version <= high:
        if header.api == "ApiVersions":
            return _encode(_api_versions(broker, 0, UNSUPPORTED_VERSION))
        msg = f"{header.api} v{header.version} is not offered"
        raise RefusedError(msg)
    schema = _request_schema(header.api_key, header.version)
    try:
        request = _decode(schema, body)
    except (SerialError, ValueError, struct.error) as exc:
        msg = f"{header.api} v{header.version} could not be read: {exc}"
        raise RefusedError(msg) from exc
    return _ANSWERS[header.api](_Asked(truth, broker, request, header.version, now))


def decode_answer(header: Header, body: bytes) -> Any:
    """Read an answer's body as kio's entity."""
    entity, _ = entity_reader(load_response_schema(header.api_key, header.version))(body, 0)
    return entity


def encode_answer(entity: Any) -> bytes:
    """Write kio's entity of an answer."""
    return _encode(entity)


# --- kio --------------------------------------------------------------------------------------------


@cache
def _request_schema(api_key: int, version: int) -> Any:
    return _schema(load_request_schema, api_key, version)


@cache
def _response_schema(api_key: int, version: int) -> Any:
    return _schema(load_response_schema, api_key, version)


def _schema(load: Callable[[int, int], Any], api_key: int, version: int) -> Any:
    try:
        return load(api_key, version)
    except KioIndexError:
        return None


@lru_cache(maxsize=64)  # a monitor asks the same questions again and again, some of them large
def _decode(schema: Any, body: bytes) -> Any:
    # Bytes that are left over are ignored, as Kafka does: librdkafka 2.16 ends Metadata v13 with three of them.
    entity, _ = entity_reader(schema)(body, 0)
    return entity


def _encode(entity: Any) -> bytes:
    with io.BytesIO() as buffer:
        entity_writer(type(entity))(buffer, entity)
        return buffer.getvalue()


@cache
def _names(schema: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(schema))


def _build(schema: Any, **values: Any) -> Any:
    """Make an entity of whatever version: values for fields that it does not have are left out."""
    if "error_code" in values:
        values["error_code"] = KioErrorCode(values["error_code"])
    return schema(**{name: value for name, value in values.items() if name in _names(schema)})


def _response(asked: _Asked, api: str, **values: Any) -> bytes:
    """Write a whole answer, with the throttle time where the version has one."""
    schema = _response_schema(API_KEYS[api], asked.version)
    return _encode(_build(schema, throttle_time=_milliseconds(asked.broker.throttle_ms), **values))


@cache
def _parts(api: str, version: int) -> Any:
    """Return the module with the parts of an answer, by their names in the schema."""
    return load_payload_module(API_KEYS[api], version, EntityType.response)


def _milliseconds(number: int) -> Any:
    return datetime.timedelta(milliseconds=number)


class _Out:
    """Bytes in the making: strings, arrays and tags as the version wants them (KIP-482)."""

    def __init__(self, *, flexible: bool) -> None:
        self.flexible = flexible
        self._parts: list[bytes] = []

    def raw(self, data: bytes) -> None:
        self._parts.append(data)

    def pack(self, fmt: str, *values: int) -> None:
        self._parts.append(struct.pack(fmt, *values))

    def string(self, text: str | None) -> None:
        self._parts.append(_string(text, flexible=self.flexible))

    def array(self, count: int) -> None:
        self._parts.append(_uvarint(count + 1) if self.flexible else struct.pack(">i", count))

    def tags(self) -> None:
        if self.flexible:
            self._parts.append(b"\0")

    def done(self) -> bytes:
        return b"".join(self._parts)


def _string(text: str | None, *, flexible: bool) -> bytes:
    if text is None:
        return b"\0" if flexible else b"\xff\xff"
    raw = text.encode()
    return (_uvarint(len(raw) + 1) if flexible else struct.pack(">h", len(raw))) + raw


def _uvarint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- what is asked ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    truth: Truth
    broker: Broker
    request: Any
    version: int
    now: float

    def group_error(self, name: str) -> int:
        """Return why this broker does not talk about a group, 0 if it does."""
        truth = self.truth
        if name in truth.forbidden_groups:
            return GROUP_AUTHORIZATION_FAILED
        if truth.coordinator(name) != self.broker.id:
            return NOT_COORDINATOR
        if self.now < self.broker.loading_until:
            return COORDINATOR_LOAD_IN_PROGRESS
        group = truth.known_group(name)
        return group.error if group is not None else NONE


def _api_versions(broker: Broker, version: int, error: int = NONE) -> Any:
    """Build the list of versions; for a version of ApiVersions itself that is not known, only its own (KIP-511)."""
    parts = _parts("ApiVersions", version)
    offered = sorted((API_KEYS[name], *versions) for name, versions in broker.versions.items())
    return _build(
        parts.ApiVersionsResponse,
        error_code=error,
        throttle_time=_milliseconds(broker.throttle_ms),
        api_keys=tuple(
            _build(parts.ApiVersion, api_key=key, min_version=low, max_version=high)
            for key, low, high in offered
            if not error or key == API_KEYS["ApiVersions"]
        ),
    )


# --- Metadata ---------------------------------------------------------------------------------------


def _metadata(asked: _Asked) -> bytes:
    truth, version = asked.truth, asked.version
    out = _Out(flexible=version >= 9)
    if version >= 3:
        out.pack(">i", asked.broker.throttle_ms)
    live = [broker for broker in truth.brokers.values() if not broker.fenced]
    out.array(len(live))
    for broker in live:
        out.pack(">i", broker.id)
        out.string(broker.host)
        out.pack(">i", broker.port)
        if version >= 1:
            out.string(broker.rack)
        out.tags()
    if version >= 2:
        out.string(truth.cluster_id)
    if version >= 1:
        out.pack(">i", live[0].id if live else -1)  # KRaft names any broker as controller
    topics = list(_wanted_topics(asked))
    out.array(len(topics))
    for name, topic, error in topics:
        _metadata_topic(out, asked, name, topic, error)
    if 8 <= version <= 10:
        wanted = asked.request.include_cluster_authorized_operations
        out.pack(">i", AUTHORIZED_OPERATIONS["cluster"] if wanted else NOT_ASKED)
    if version >= 13:
        out.pack(">h", NONE)
    out.tags()
    return out.done()


def _wanted_topics(asked: _Asked) -> Iterator[tuple[str | None, Topic | None, int]]:
    """Yield name, topic and error of what is asked for; without names all that may be seen, silently."""
    truth, wanted = asked.truth, asked.request.topics
    if wanted is None or (asked.version == 0 and not wanted):
        for topic in truth.topics.values():
            if topic.name not in truth.forbidden_topics:
                yield topic.name, topic, NONE
        if truth.offsets is not None:
            yield OFFSETS_TOPIC, truth.offsets, NONE
        return
    by_id = {topic.id: topic for topic in truth.topics.values()} if asked.version >= 10 else {}
    for question in wanted:
        name = question.name
        if name is None:
            found = by_id.get(question.topic_id)
            if found is None or found.name in truth.forbidden_topics:
                yield None, None, UNKNOWN_TOPIC_ID
            else:
                yield found.name, found, NONE
        elif name in truth.forbidden_topics:
            yield name, None, TOPIC_AUTHORIZATION_FAILED
        elif name in truth.topics:
            yield name, truth.topics[name], NONE
        elif name == OFFSETS_TOPIC and truth.offsets is not None:
            yield name, truth.offsets, NONE
        else:
            yield name, None, UNKNOWN_TOPIC_OR_PARTITION


def _metadata_topic(out: _Out, asked: _Asked, name: str | None, topic: Topic | None, error: int) -> None:
    version = asked.version
    out.pack(">h", error)
    # Null names came with v12; before, a topic that is asked for by its id and unknown has an empty one.
    out.string(name if name is not None or version >= 12 else "")
    if version >= 10:
        out.raw(topic.id.bytes if topic is not None else bytes(16))
    if version >= 1:
        out.raw(b"\1" if topic is not None and topic.internal else b"\0")
    out.array(0 if topic is None else len(topic))
    if topic is not None:
        out.raw(_metadata_partitions(asked.truth, topic, version))
    if version >= 8:
        wanted = asked.request.include_topic_authorized_operations and topic is not None
        out.pack(">i", AUTHORIZED_OPERATIONS["topic"] if wanted else NOT_ASKED)
    out.tags()


def _metadata_partitions(truth: Truth, topic: Topic, version: int) -> bytes:
    fenced = {broker.id for broker in truth.brokers.values() if broker.fenced}
    # Many partitions, few different sets of replicas: those are written once.
    replicas = {nodes: _replicas(nodes, fenced, version) for nodes in set(topic.replicas)}
    has_epoch = version >= 7
    head = struct.Struct(">hiii" if has_epoch else ">hii")
    rows = zip(topic.leader.tolist(), topic.leader_epoch.tolist(), topic.replicas, strict=True)
    parts = []
    for index, (leader, epoch, nodes) in enumerate(rows):
        is_led = leader != NO_LEADER and leader not in fenced
        error, shown = (NONE, leader) if is_led else (LEADER_NOT_AVAILABLE, NO_LEADER)
        parts.append(head.pack(error, index, shown, epoch) if has_epoch else head.pack(error, index, shown))
        parts.append(replicas[nodes])
    return b"".join(parts)


def _replicas(nodes: Sequence[int], fenced: set[int], version: int) -> bytes:
    out = _Out(flexible=version >= 9)
    offline = [node for node in nodes if node in fenced]
    in_sync = [node for node in nodes if node not in fenced]
    for ids in (nodes, in_sync, offline) if version >= 5 else (nodes, in_sync):
        out.array(len(ids))
        out.pack(f">{len(ids)}i", *ids)
    out.tags()
    return out.done()


# --- ListOffsets ------------------------------------------------------------------------------------


def _list_offsets(asked: _Asked) -> bytes:
    version, request = asked.version, asked.request
    out = _Out(flexible=version >= 6)
    if version >= 2:
        out.pack(">i", asked.broker.throttle_ms)
    out.array(len(request.topics))
    committed_only = version >= 2 and request.isolation_level == 1
    for question in request.topics:
        out.string(question.name)
        out.array(len(question.partitions))
        # Columns are for the many: for a few partitions they cost ten times as much.
        is_own = question.name == OFFSETS_TOPIC and asked.truth.offsets is not None
        answer_ends = _offsets_ends if is_own else _few_ends if len(question.partitions) <= FEW else _ends
        out.raw(answer_ends(asked, question, committed_only=committed_only))
        out.tags()
    out.tags()
    return out.done()


@cache
def _end_rows(version: int) -> np.dtype[Any]:
    fields = [("partition", ">i4"), ("error", ">i2"), ("timestamp", ">i8"), ("offset", ">i8")]
    fields += [("epoch", ">i4")] if version >= 4 else []
    return np.dtype(fields + ([("tags", "u1")] if version >= 6 else []))


def _ends(asked: _Asked, question: Any, *, committed_only: bool) -> bytes:
    partition = np.array([each.partition_index for each in question.partitions], np.int64)
    timestamp = np.array([each.timestamp for each in question.partitions], np.int64)
    rows = np.zeros(len(partition), _end_rows(asked.version))
    rows["partition"] = partition
    error, offset, found_at = _look_up(asked, question, partition, timestamp, committed_only=committed_only)
    failed = error != NONE
    rows["error"] = error
    rows["offset"] = np.where(failed, NO_OFFSET, offset)
    rows["timestamp"] = np.where(failed, -1, found_at)
    if asked.version >= 4:
        topic = asked.truth.topics.get(question.name)
        known = ~failed & (offset != NO_OFFSET)
        rows["epoch"] = -1
        if topic is not None:
            rows["epoch"][known] = topic.leader_epoch[partition[known]]
    blob: bytes = rows.tobytes()
    return blob


def _look_up(
    asked: _Asked, question: Any, partition: Int64s, timestamp: Int64s, *, committed_only: bool
) -> tuple[Int64s, Int64s, Int64s]:
    """Return error, offset and timestamp for each partition asked for."""
    truth = asked.truth
    topic = truth.topics.get(question.name)
    count = 0 if topic is None else len(topic)
    error = np.zeros(len(partition), np.int64)
    offset = np.full(len(partition), NO_OFFSET, np.int64)
    found_at = np.full(len(partition), -1, np.int64)
    is_known = (partition >= 0) & (partition < count)
    error[~is_known] = UNKNOWN_TOPIC_OR_PARTITION
    if topic is not None:
        at = partition[is_known]
        error[is_known] = np.where(topic.leader[at] == asked.broker.id, NONE, NOT_LEADER_OR_FOLLOWER)
        if asked.version >= 4:
            asked_epoch = np.array([each.current_leader_epoch for each in question.partitions], np.int64)[is_known]
            told = (asked_epoch >= 0) & (error[is_known] == NONE)
            stale = told & (asked_epoch < topic.leader_epoch[at])
            ahead = told & (asked_epoch > topic.leader_epoch[at])
            error[is_known] = np.select([stale, ahead], [FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH], error[is_known])
        for index, code in topic.error.items():
            error[partition == index] = code
    error[_unknown_timestamp(timestamp, asked.version)] = UNSUPPORTED_VERSION
    _, first, times = np.unique(partition, return_index=True, return_counts=True)
    error[np.isin(partition, partition[first[times > 1]])] = INVALID_REQUEST
    if question.name in truth.forbidden_topics:
        error[:] = TOPIC_AUTHORIZATION_FAILED
    good = np.flatnonzero(error == NONE)
    if topic is not None and len(good):
        end = topic.last_stable if committed_only else topic.log_end
        offset[good], found_at[good] = _offsets(topic, partition[good], timestamp[good], end)
    return error, offset, found_at


def _unknown_timestamp(timestamp: Int64s, version: int) -> Any:
    known = [special for special, since in KNOWN_SINCE.items() if version >= since]
    return (timestamp < 0) & ~np.isin(timestamp, known)


def _offsets(topic: Topic, partition: Int64s, timestamp: Int64s, end: Int64s) -> tuple[Int64s, Int64s]:
    offset = np.full(len(partition), NO_OFFSET, np.int64)
    found_at = np.full(len(partition), -1, np.int64)
    latest = timestamp == LATEST
    offset[latest] = end[partition[latest]]
    # Nothing is in tiered storage: the local log is all there is.
    earliest = (timestamp == EARLIEST) | (timestamp == EARLIEST_LOCAL)
    offset[earliest] = topic.log_start[partition[earliest]]
    for i in np.flatnonzero((timestamp >= 0) | (timestamp == MAX_TIMESTAMP)).tolist():
        offset[i], found_at[i] = _record(topic, int(partition[i]), int(timestamp[i]), end)
    return offset, found_at


def _record(topic: Topic, partition: int, timestamp: int, end: Int64s) -> Record:
    found = (
        topic.newest_record(partition) if timestamp == MAX_TIMESTAMP else topic.record_at_or_after(partition, timestamp)
    )
    # Nobody is told of a record beyond the end that they may see, nor of an earlier one in its stead.
    return found if found.offset < end[partition] else NO_RECORD


FEW = 16
"""Partitions of a topic that are answered one by one."""


@cache
def _end_row(version: int) -> struct.Struct:
    return struct.Struct(">ihqq" + ("i" if version >= 4 else "") + ("x" if version >= 6 else ""))


def _few_ends(asked: _Asked, question: Any, *, committed_only: bool) -> bytes:
    """Answer as ``_ends`` does, partition by partition."""
    topic, row = asked.truth.topics.get(question.name), _end_row(asked.version)
    numbers = [each.partition_index for each in question.partitions]
    twice = {number for number in numbers if numbers.count(number) > 1}
    parts = []
    for each in question.partitions:
        error = _end_error(asked, topic, question.name, each, twice)
        found, epoch = NO_RECORD, -1
        if topic is not None and not error:
            end = topic.last_stable if committed_only else topic.log_end
            found = _end(topic, each.partition_index, each.timestamp, end)
            epoch = int(topic.leader_epoch[each.partition_index]) if found.offset != NO_OFFSET else -1
        values = (each.partition_index, error, found.timestamp_ms, found.offset, epoch)
        parts.append(row.pack(*values[: 5 if asked.version >= 4 else 4]))
    return b"".join(parts)


def _offsets_ends(asked: _Asked, question: Any, **_: bool) -> bytes:
    """Answer for ``__consumer_offsets``: one that does not know all of a partition yet does not tell where it ends."""
    truth, row, parts = asked.truth, _end_row(asked.version), []
    leaders = truth.offsets_leaders()
    behind = {truth.offsets_partition(name) for name in truth.behind if truth.coordinator(name) == asked.broker.id}
    for each in question.partitions:
        number = each.partition_index
        error = OFFSET_NOT_AVAILABLE if number in behind else NONE
        if asked.broker.id not in leaders.get(number, ()):
            error = NOT_LEADER_OR_FOLLOWER
        values = (number, error, -1, NO_OFFSET if error else 0, -1)
        parts.append(row.pack(*values[: 5 if asked.version >= 4 else 4]))
    return b"".join(parts)


def _end_error(  # noqa: PLR0911 - one line a rule
    asked: _Asked, topic: Topic | None, name: str, each: Any, twice: set[int]
) -> int:
    """Return why a partition is not answered for, 0 if it is; the order is that of ``_look_up``, the last one first."""
    partition, truth = each.partition_index, asked.truth
    if name in truth.forbidden_topics:
        return TOPIC_AUTHORIZATION_FAILED
    if partition in twice:
        return INVALID_REQUEST
    if each.timestamp < 0 and asked.version < KNOWN_SINCE.get(each.timestamp, NOT_KNOWN_YET):
        return UNSUPPORTED_VERSION
    if topic is not None and partition in topic.error:
        return topic.error[partition]
    if topic is None or not 0 <= partition < len(topic):
        return UNKNOWN_TOPIC_OR_PARTITION
    if topic.leader[partition] != asked.broker.id:
        return NOT_LEADER_OR_FOLLOWER
    told = each.current_leader_epoch if asked.version >= 4 else -1
    if told < 0 or told == topic.leader_epoch[partition]:
        return NONE
    return FENCED_LEADER_EPOCH if told < topic.leader_epoch[partition] else UNKNOWN_LEADER_EPOCH


def _end(topic: Topic, partition: int, timestamp: int, end: Int64s) -> Record:
    if timestamp == LATEST:
        return Record(int(end[partition]), -1)
    if timestamp in {EARLIEST, EARLIEST_LOCAL}:
        return Record(int(topic.log_start[partition]), -1)
    if timestamp >= 0 or timestamp == MAX_TIMESTAMP:
        return _record(topic, partition, timestamp, end)
    return NO_RECORD


# --- OffsetFetch ------------------------------------------------------------------------------------


def _offset_fetch(asked: _Asked) -> bytes:
    version, request = asked.version, asked.request
    out = _Out(flexible=version >= 6)
    if version >= 3:
        out.pack(">i", asked.broker.throttle_ms)
    if version >= 8:
        out.array(len(request.groups))
        for question in request.groups:
            error = asked.group_error(question.group_id) or _member_error(asked, question)
            out.string(question.group_id)
            _fetched_topics(out, asked, question.group_id, question.topics if not error else ())
            out.pack(">h", error)
            out.tags()
    else:
        error = asked.group_error(request.group_id)
        if version >= 2:
            _fetched_topics(out, asked, request.group_id, request.topics if not error else ())
            out.pack(">h", error)
        else:  # v1 has no place for an error but the partitions
            _fetched_topics(out, asked, request.group_id, request.topics, error)
    out.tags()
    return out.done()


def _member_error(asked: _Asked, question: Any) -> int:
    """Return what speaks against a member asking about its own group (v9, KIP-848)."""
    group = asked.truth.known_group(question.group_id)
    if asked.version < 9 or (question.member_id is None and question.member_epoch < 0):
        return NONE
    if group is None:
        return GROUP_ID_NOT_FOUND
    if group.type != CONSUMER:
        return NONE
    epochs = {member.member_id: member.epoch for member in group.members}
    if question.member_id not in epochs:
        return UNKNOWN_MEMBER_ID
    return NONE if epochs[question.member_id] == question.member_epoch else STALE_MEMBER_EPOCH


@cache
def _commit_rows(version: int) -> np.dtype[Any]:
    fields = [("partition", ">i4"), ("offset", ">i8")]
    fields += [("epoch", ">i4")] if version >= 5 else []
    fields += [("metadata", "u1" if version >= 6 else ">i2"), ("error", ">i2")]
    return np.dtype(fields + ([("tags", "u1")] if version >= 6 else []))


def _fetched_topics(out: _Out, asked: _Asked, name: str, topics: Iterable[Any] | None, error: int = NONE) -> None:
    group = asked.truth.known_group(name)
    found = list(_fetched(asked, group, topics))
    out.array(len(found))
    for topic, topic_id, committed, partitions, topic_error in found:
        if asked.version >= 10:
            out.raw(topic_id)
        else:
            out.string(topic)
        out.array(len(partitions))
        out.raw(_commits(asked.version, committed, partitions, error or topic_error))
        out.tags()


def _fetched(
    asked: _Asked, group: Group | None, topics: Iterable[Any] | None
) -> Iterator[tuple[str, bytes, Committed, Int64s, int]]:
    """Yield name, id, commits, partitions and error of each topic asked for; without names all that may be seen."""
    truth = asked.truth
    commits = group.commits if group is not None and group.type != SHARE else {}
    if topics is None:
        for name, committed in commits.items():
            topic = truth.topics.get(name)
            # v10 speaks of topics by their ids: one that is gone has none.
            if name not in truth.forbidden_topics and (topic is not None or asked.version < 10):
                wanted = committed.offset != NO_OFFSET
                wanted[list(committed.error)] = True
                yield name, topic.id.bytes if topic is not None else b"", committed, np.flatnonzero(wanted), NONE
        return
    names = {topic.id: topic.name for topic in truth.topics.values()} if asked.version >= 10 else {}
    for question in topics:
        name = names.get(question.topic_id, "") if asked.version >= 10 else question.name
        topic_id = (
            (question.topic_id.bytes if question.topic_id is not None else bytes(16)) if asked.version >= 10 else b""
        )
        partitions = np.array(question.partition_indexes, np.int64)
        if name in truth.forbidden_topics:
            yield name, topic_id, _NOTHING, partitions, TOPIC_AUTHORIZATION_FAILED
        elif not name:
            yield name, topic_id, _NOTHING, partitions, UNKNOWN_TOPIC_ID
        else:
            yield name, topic_id, commits.get(name, _NOTHING), partitions, NONE


_NOTHING = Committed(np.empty(0, np.int64))


def _commits(version: int, committed: Committed, partition: Int64s, error: int) -> bytes:
    """Write the entries of one topic; an error stands in place of an offset."""
    dtype = _commit_rows(version)
    rows = np.zeros(len(partition), dtype)
    rows["partition"] = partition
    rows["offset"] = NO_OFFSET
    within = (partition >= 0) & (partition < len(committed.offset))
    rows["offset"][within] = committed.offset[partition[within]]
    rows["error"] = error
    for index, code in committed.error.items():
        rows["error"][partition == index] = error or code
    rows["offset"][rows["error"] != NONE] = NO_OFFSET
    if version >= 5:
        rows["epoch"] = -1
        for index, epoch in committed.leader_epoch.items():
            rows["epoch"][(partition == index) & (rows["error"] == NONE)] = epoch
    if version >= 6:
        rows["metadata"] = 1  # empty; in legacy versions that is 0
    blob = rows.tobytes()
    place = dtype.fields["metadata"][1]  # type: ignore[index]
    width = dtype["metadata"].itemsize
    parts, done = [], 0
    for row in np.flatnonzero(np.isin(partition, list(committed.metadata)) & (rows["error"] == NONE)).tolist():
        cut = row * dtype.itemsize + place
        parts += [blob[done:cut], _string(committed.metadata[int(partition[row])], flexible=version >= 6)]
        done = cut + width
    return b"".join([*parts, blob[done:]])


# --- groups -----------------------------------------------------------------------------------------


def _list_groups(asked: _Asked) -> bytes:
    parts = _parts("ListGroups", asked.version)
    if asked.now < asked.broker.loading_until:
        return _response(asked, "ListGroups", error_code=COORDINATOR_LOAD_IN_PROGRESS, groups=())
    states = {state.lower() for state in getattr(asked.request, "states_filter", ())}
    types = {kind.lower() for kind in getattr(asked.request, "types_filter", ())}
    groups = tuple(
        _build(
            parts.ListedGroup,
            group_id=group.name,
            protocol_type=group.protocol_type,
            group_state=group.state,
            group_type=group.type,
        )
        for group in map(asked.truth.known_group, asked.truth.groups)
        if group is not None
        and _is_listed(asked, group)
        and (not states or group.state.lower() in states)
        and (not types or group.type.lower() in types)
    )
    return _response(asked, "ListGroups", error_code=NONE, groups=groups)


def _is_listed(asked: _Asked, group: Group) -> bool:
    truth = asked.truth
    if group.name in truth.forbidden_groups and not truth.lists_forbidden_groups:
        return False
    if group.listed_by is not None:
        return asked.broker.id in group.listed_by
    return truth.coordinator(group.name) == asked.broker.id


def _describe_groups(asked: _Asked) -> bytes:
    groups = tuple(_classic_group(asked, name) for name in asked.request.groups)
    return _response(asked, "DescribeGroups", groups=groups)


def _classic_group(asked: _Asked, name: str) -> Any:
    parts = _parts("DescribeGroups", asked.version)
    group = asked.truth.known_group(name)
    error, message, state = asked.group_error(name), None, ""
    if not error and (group is None or group.type != CLASSIC):
        # Before v6 (KIP-1043) a group that is none, or of another kind, is "Dead" and no error.
        state, group = "Dead", None
        if asked.version >= 6:
            known = asked.truth.known_group(name) is not None
            error = GROUP_ID_NOT_FOUND
            message = f"Group {name} is not a classic group." if known else f"Group {name} not found."
    shown = group if not error else None
    return _build(
        parts.DescribedGroup,
        error_code=error,
        error_message=message,
        group_id=name,
        group_state=state if shown is None else shown.state,
        protocol_type="" if shown is None else shown.protocol_type,
        # Between two generations there is no protocol, and nobody has an assignment.
        protocol_data=shown.protocol if shown is not None and shown.state == "Stable" else "",
        members=() if shown is None else tuple(_classic_member(parts, shown, member) for member in shown.members),
        authorized_operations=_operations(asked),
    )


def _operations(asked: _Asked) -> int:
    wanted = getattr(asked.request, "include_authorized_operations", False)
    return AUTHORIZED_OPERATIONS["group"] if wanted else NOT_ASKED


def _classic_member(parts: Any, group: Group, member: Member) -> Any:
    is_stable = group.state == "Stable"
    assignment, subscription = member.assignment_bytes, member.subscription_bytes
    if assignment is None:
        assignment = consumer_assignment(member.assignment) if is_stable else b""
    if subscription is None:
        subscription = _subscription(member.subscribed) if is_stable else b""
    return _build(
        parts.DescribedGroupMember,
        member_id=member.member_id,
        group_instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.host,
        member_metadata=subscription,
        member_assignment=assignment,
    )


def consumer_assignment(assignment: Mapping[str, Sequence[int]]) -> bytes:
    """Write a consumer's assignment as its group's leader does (ConsumerProtocolAssignment.json v0)."""
    out = _Out(flexible=False)
    out.pack(">h", 0)
    out.array(len(assignment))
    for topic, partitions in assignment.items():
        out.string(topic)
        out.array(len(partitions))
        out.pack(f">{len(partitions)}i", *partitions)
    out.pack(">i", -1)  # no user data
    return out.done()


def _subscription(topics: Iterable[str]) -> bytes:
    out = _Out(flexible=False)
    names = list(topics)
    out.pack(">h", 0)
    out.array(len(names))
    for name in names:
        out.string(name)
    out.pack(">i", -1)
    return out.done()


def _consumer_group_describe(asked: _Asked) -> bytes:
    groups = tuple(_new_group(asked, "ConsumerGroupDescribe", CONSUMER, name) for name in asked.request.group_ids)
    return _response(asked, "ConsumerGroupDescribe", groups=groups)


def _share_group_describe(asked: _Asked) -> bytes:
    groups = tuple(_new_group(asked, "ShareGroupDescribe", SHARE, name) for name in asked.request.group_ids)
    return _response(asked, "ShareGroupDescribe", groups=groups)


def _streams_group_describe(asked: _Asked) -> bytes:
    groups = tuple(_new_group(asked, "StreamsGroupDescribe", STREAMS, name) for name in asked.request.group_ids)
    return _response(asked, "StreamsGroupDescribe", groups=groups)


def _new_group(asked: _Asked, api: str, kind: str, name: str) -> Any:
    """Describe a group of one of the protocols that came with KIP-848 and after."""
    parts = _parts(api, asked.version)
    group = asked.truth.groups.get(name)
    error, message = asked.group_error(name), None
    if kind == CONSUMER and not asked.truth.has_consumer_protocol:
        error = UNSUPPORTED_VERSION
    elif not error and group is None:
        error, message = GROUP_ID_NOT_FOUND, f"Group {name} not found."
    elif not error and group is not None and group.type != kind:
        error, message = GROUP_ID_NOT_FOUND, f"Group {name} is not a {kind} group."
    elif not error and group is not None and _topics_of(group) & asked.truth.forbidden_topics:
        error = TOPIC_AUTHORIZATION_FAILED
        message = "The group has described topic(s) that the client is not authorized to describe."
    shown = group if not error else None
    epoch = 0 if shown is None else shown.epoch
    tasks = {} if shown is None else {topic: str(index) for index, topic in enumerate(sorted(_topics_of(shown)))}
    member_of = partial(_streams_member, parts, tasks) if kind == STREAMS else partial(_new_member, asked, parts)
    return _build(
        parts.DescribedGroup,
        error_code=error,
        error_message=message,
        group_id=name,
        group_state="" if shown is None else shown.state,
        group_epoch=epoch,
        assignment_epoch=epoch,
        assignor_name="" if shown is None else shown.protocol,
        topology=_topology(parts, tasks) if kind == STREAMS and shown is not None else None,
        members=() if shown is None else tuple(map(member_of, shown.members)),
        authorized_operations=_operations(asked),
    )


def _topics_of(group: Group) -> set[str]:
    return {
        topic
        for member in group.members
        for topic in (*member.assignment, *(member.target or ()), *(member.subscription or ()))
    }


def _new_member(asked: _Asked, parts: Any, member: Member) -> Any:
    def assignment(topics: Mapping[str, Sequence[int]]) -> Any:
        known = asked.truth.topics
        return parts.Assignment(
            topic_partitions=tuple(
                parts.TopicPartitions(
                    topic_id=known[name].id if name in known else None, topic_name=name, partitions=tuple(partitions)
                )
                for name, partitions in topics.items()
            )
        )

    return _build(
        parts.Member,
        member_id=member.member_id,
        instance_id=member.instance_id,
        rack_id=member.rack,
        member_epoch=member.epoch,
        client_id=member.client_id,
        client_host=member.host,
        subscribed_topic_names=member.subscribed,
        subscribed_topic_regex=member.subscription_regex,
        assignment=assignment(member.assignment),
        target_assignment=assignment(member.assignment if member.target is None else member.target),
        member_type=member.member_type,
    )


def _topology(parts: Any, tasks: Mapping[str, str]) -> Any:
    """Write a topology in which each topic has a subtopology of its own, so that any assignment can be told."""
    subtopologies = tuple(
        _build(
            parts.Subtopology,
            subtopology_id=name,
            source_topics=(topic,),
            state_changelog_topics=(),
            repartition_source_topics=(),
        )
        for topic, name in tasks.items()
    )
    return _build(parts.Topology, epoch=1, subtopologies=subtopologies)


def _streams_member(parts: Any, tasks: Mapping[str, str], member: Member) -> Any:
    def assignment(topics: Mapping[str, Sequence[int]]) -> Any:
        active = tuple(
            _build(parts.TaskIds, subtopology_id=tasks[topic], partitions=tuple(partitions))
            for topic, partitions in topics.items()
        )
        return _build(parts.Assignment, active_tasks=active, standby_tasks=(), warmup_tasks=())

    return _build(
        parts.Member,
        member_id=member.member_id,
        member_epoch=member.epoch,
        instance_id=member.instance_id,
        rack_id=member.rack,
        client_id=member.client_id,
        client_host=member.host,
        topology_epoch=1,
        process_id=member.client_id,
        user_endpoint=None,
        client_tags=(),
        task_offsets=(),
        task_end_offsets=(),
        assignment=assignment(member.assignment),
        target_assignment=assignment(member.assignment if member.target is None else member.target),
        is_classic=not member.member_type,
    )


def _describe_share_group_offsets(asked: _Asked) -> bytes:
    parts = _parts("DescribeShareGroupOffsets", asked.version)
    groups = []
    for question in asked.request.groups:
        error = asked.group_error(question.group_id)
        # A group that is none, or of another kind, has no share partitions, and that is no error.
        topics = () if error else tuple(_share_topics(asked, parts, question))
        groups.append(
            _build(
                parts.DescribeShareGroupOffsetsResponseGroup,
                group_id=question.group_id,
                topics=topics,
                error_code=error,
                error_message=None,
            )
        )
    return _response(asked, "DescribeShareGroupOffsets", groups=tuple(groups))


def _share_topics(asked: _Asked, parts: Any, question: Any) -> Iterator[Any]:
    group = asked.truth.groups.get(question.group_id)
    if group is None or group.type != SHARE:
        return
    wanted = None if question.topics is None else {each.topic_name: each.partitions for each in question.topics}
    for name, committed in group.commits.items():
        topic = asked.truth.topics.get(name)
        if topic is None or name in asked.truth.forbidden_topics or (wanted is not None and name not in wanted):
            continue
        numbers = range(len(committed.offset)) if wanted is None else wanted[name]
        yield _build(
            parts.DescribeShareGroupOffsetsResponseTopic,
            topic_name=name,
            topic_id=topic.id,
            partitions=tuple(_share_partition(parts, group, topic, number) for number in numbers),
        )


def _share_partition(parts: Any, group: Group, topic: Topic, number: int) -> Any:
    committed = group.commits[topic.name]
    error = committed.error.get(number, NONE)
    start = int(committed.offset[number]) if number < len(committed.offset) and not error else NO_OFFSET
    lag = int(topic.log_end[number]) - start - group.acknowledged.get((topic.name, number), 0)
    return _build(
        parts.DescribeShareGroupOffsetsResponsePartition,
        partition_index=number,
        start_offset=start,
        leader_epoch=0,
        lag=lag if start != NO_OFFSET else NO_OFFSET,
        error_code=error,
        error_message=None,
    )


def _find_coordinator(asked: _Asked) -> bytes:
    request = asked.request
    if asked.version < 4:
        return _response(asked, "FindCoordinator", **_coordinator(asked, request.key))
    parts = _parts("FindCoordinator", asked.version)
    coordinators = tuple(
        _build(parts.Coordinator, key=key, **_coordinator(asked, key)) for key in request.coordinator_keys
    )
    return _response(asked, "FindCoordinator", coordinators=coordinators)


def _coordinator(asked: _Asked, key: str) -> dict[str, Any]:
    truth = asked.truth
    node = truth.brokers.get(truth.coordinator(key))
    error = NONE
    if getattr(asked.request, "key_type", GROUP_KEY) != GROUP_KEY:
        error = INVALID_REQUEST
    elif key in truth.forbidden_groups:
        error = GROUP_AUTHORIZATION_FAILED
    elif node is None or node.fenced:
        error = COORDINATOR_NOT_AVAILABLE
    if error or node is None:
        return {"error_code": error, "error_message": None, "node_id": -1, "host": "", "port": -1}
    message = "NONE" if asked.version < 4 else ""  # as Kafka has it
    return {"error_code": NONE, "error_message": message, "node_id": node.id, "host": node.host, "port": node.port}


def _describe_cluster(asked: _Asked) -> bytes:
    parts, request = _parts("DescribeCluster", asked.version), asked.request
    brokers = tuple(
        _build(
            parts.DescribeClusterBroker,
            broker_id=each.id,
            host=each.host,
            port=each.port,
            rack=each.rack,
            is_fenced=each.fenced,
        )
        for each in asked.truth.brokers.values()
        if not each.fenced or getattr(request, "include_fenced_brokers", False)
    )
    return _response(
        asked,
        "DescribeCluster",
        error_code=NONE,
        error_message=None,
        endpoint_type=1,
        cluster_id=asked.truth.cluster_id,
        controller_id=asked.broker.id,
        brokers=brokers,
        cluster_authorized_operations=(
            asked.truth.cluster_operations if request.include_cluster_authorized_operations else NOT_ASKED
        ),
    )


_ANSWERS: dict[str, Callable[[_Asked], bytes]] = {
    "DescribeCluster": _describe_cluster,
    "ListOffsets": _list_offsets,
    "Metadata": _metadata,
    "OffsetFetch": _offset_fetch,
    "FindCoordinator": _find_coordinator,
    "DescribeGroups": _describe_groups,
    "ListGroups": _list_groups,
    "ApiVersions": lambda asked: _encode(_api_versions(asked.broker, asked.version)),
    "ConsumerGroupDescribe": _consumer_group_describe,
    "ShareGroupDescribe": _share_group_describe,
    "StreamsGroupDescribe": _streams_group_describe,
    "DescribeShareGroupOffsets": _describe_share_group_offsets,
}
