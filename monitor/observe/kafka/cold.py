"""The requests that are asked once in a while: who may do what, who coordinates, which features, whose clock.

They are small and many-versioned, so they are not written by hand as those of ``wire``: kio's schemas say what each
version holds, and one walker reads any of them. Only the schemas are kio's. Its own reader, which is native code,
reserves memory for as many elements as an array claims to have, and ends the process when a torn answer claims too
many; the walker reserves nothing, stops where the answer ends, and everything wrong is a MalformedError.

Authorised operations (KIP-430) are names of AclOperation; None where the broker does not say. A broker says none at
all to who lacks DESCRIBE on the thing itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, TypeVar

from monitor.errors import TransportError
from monitor.model import Why, why_name
from monitor.observe.kafka.transport import CLIENT_ID, Address
from monitor.observe.kafka.wire import Api, BrokerAddress, MalformedError, Reader, decode_assignment

T = TypeVar("T")

METADATA = Api(3, "Metadata", 9)
FIND_COORDINATOR = Api(10, "FindCoordinator", 3)
DESCRIBE_GROUPS = Api(15, "DescribeGroups", 5)
SASL_HANDSHAKE = Api(17, "SaslHandshake", 32_767, begins_with_throttle=False)
API_VERSIONS = Api(18, "ApiVersions", 3, begins_with_throttle=False)
DESCRIBE_QUORUM = Api(55, "DescribeQuorum", 0, begins_with_throttle=False)
DESCRIBE_CLUSTER = Api(60, "DescribeCluster", 0)
CONSUMER_GROUP_DESCRIBE = Api(69, "ConsumerGroupDescribe", 0)
SHARE_GROUP_DESCRIBE = Api(77, "ShareGroupDescribe", 0)
STREAMS_GROUP_DESCRIBE = Api(89, "StreamsGroupDescribe", 0)

DESCRIBES: Mapping[str, tuple[Api, tuple[int, int]]] = {
    "classic": (DESCRIBE_GROUPS, (3, 6)),
    "consumer": (CONSUMER_GROUP_DESCRIBE, (0, 1)),
    "share": (SHARE_GROUP_DESCRIBE, (1, 1)),
    "streams": (STREAMS_GROUP_DESCRIBE, (0, 0)),
}
"""How a group of each type of ListGroups v5 is described, and in which versions."""

AT_ONCE = 500
"""Groups in one request: a described group may have thousands of members."""

BROKERS = 1
"""DescribeCluster's endpoint type for brokers, as against controllers (KIP-919)."""

GROUP_KEY = 0
"""FindCoordinator's key type for groups."""

METADATA_LOG = "__cluster_metadata"
"""The one topic of KRaft's quorum."""

# AclOperation.java, by code; a bit each.
OPERATIONS = (
    "UNKNOWN", "ANY", "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "CLUSTER_ACTION",
    "DESCRIBE_CONFIGS", "ALTER_CONFIGS", "IDEMPOTENT_WRITE", "CREATE_TOKENS", "DESCRIBE_TOKENS", "TWO_PHASE_COMMIT",
)  # fmt: skip

DESCRIBE = "DESCRIBE"

NOT_SAID = -(2**31)
"""Authorised operations of an answer that was not asked for them, or of a version without them."""


def operations(bits: int) -> frozenset[str] | None:
    """Return the operations that a bit field of KIP-430 names; None if the broker did not say."""
    if bits == NOT_SAID:
        return None
    codes = [code for code in range(32) if bits >> code & 1]
    return frozenset(OPERATIONS[code] if code < len(OPERATIONS) else f"OPERATION_{code}" for code in codes)


class Asks(Protocol):
    """Who sends a request and has its answer decoded: ``monitor.observe.kafka.cluster.Brokers``, or another."""

    async def ask(
        self,
        address: Address,
        api: Api,
        offered: tuple[int, int],
        encode: Callable[[int], bytes],
        decode: Callable[[bytes, int], T],
    ) -> T:
        """Send a request in the highest version both sides speak; see Brokers.ask."""
        ...


# --- the cluster ------------------------------------------------------------------------------------


class ClusterFacts(NamedTuple):
    """A cluster as one of its brokers describes it.

    ``controller`` is where to send what only a controller does: in KRaft any live broker, which forwards it.
    """

    id: str | None
    controller: int
    brokers: tuple[BrokerAddress, ...]
    operations: frozenset[str] | None


async def authorised_operations(brokers: Asks, address: Address) -> frozenset[str] | None:
    """Return what we may do on the cluster itself; None where the broker is too old to say (before Kafka 2.3).

    Raises:
        TransportError: The broker could not be asked.
    """
    try:
        return (await describe_cluster(brokers, address)).operations
    except TransportError as exc:
        if exc.why == Why.UNSUPPORTED:
            return None
        raise


async def describe_cluster(brokers: Asks, address: Address) -> ClusterFacts:
    """Ask a broker for its cluster: by DescribeCluster (KIP-700), before Kafka 2.8 by Metadata without topics.

    Raises:
        TransportError: The broker could not be asked, or answered an error; UNSUPPORTED before Kafka 2.3.
    """
    try:
        question = Question(
            DESCRIBE_CLUSTER, (0, 2), {"include_cluster_authorized_operations": True, "endpoint_type": BROKERS}
        )
        return await _ask(brokers, address, question, partial(_cluster_facts, address))
    except TransportError as exc:
        if exc.why != Why.UNSUPPORTED:
            raise
    question = Question(METADATA, (8, 10), {"topics": (), "include_cluster_authorized_operations": True})
    return await _ask(brokers, address, question, partial(_cluster_facts, address))


def _cluster_facts(address: Address, answer: Entity) -> ClusterFacts:
    _raise_for(address, DESCRIBE_CLUSTER, answer)
    found = tuple(
        BrokerAddress(each.get("broker_id", each.get("node_id")), each["host"], each["port"])
        for each in answer["brokers"]
    )
    bits = answer["cluster_authorized_operations"]
    return ClusterFacts(answer["cluster_id"], answer["controller_id"], found, operations(bits))


class Features(NamedTuple):
    """Feature levels by name (KIP-584): the newest that a broker knows, and what its cluster has agreed on."""

    supported: Mapping[str, int]
    agreed: Mapping[str, int]


async def features(brokers: Asks, address: Address) -> Features:
    """Ask a broker for its feature levels (ApiVersions v3, Kafka 2.7 and later).

    Raises:
        TransportError: The broker could not be asked, or answered an error.
    """

    def read(answer: Entity) -> Features:
        _raise_for(address, API_VERSIONS, answer)
        supported = {each["name"]: each["max_version"] for each in answer["supported_features"]}
        return Features(supported, {each["name"]: each["max_version_level"] for each in answer["finalized_features"]})

    fields = {"client_software_name": CLIENT_ID, "client_software_version": version("streamgauge")}
    return await _ask(brokers, address, Question(API_VERSIONS, (3, 4), fields), read)


class Quorum(NamedTuple):
    """KRaft's quorum: its leader, the active controller (-1 without one), and that one's clock in milliseconds.

    ``leader_clock_ms`` is None where the version does not say (before Kafka 3.3).
    """

    leader: int
    leader_clock_ms: int | None


async def quorum(brokers: Asks, address: Address) -> Quorum:
    """Ask who the active controller is, and what its clock shows (DescribeQuorum, needs DESCRIBE on the cluster).

    For the leader itself LastCaughtUpTimestamp is the leader's present time (KIP-836), so that one answer tells the
    difference between its clock and ours to within the time the answer took.

    Raises:
        TransportError: The broker could not be asked, or answered an error; UNSUPPORTED with ZooKeeper.
    """

    def read(answer: Entity) -> Quorum:
        _raise_for(address, DESCRIBE_QUORUM, answer)
        parts = [part for topic in answer["topics"] for part in topic["partitions"]]
        if len(parts) != 1:
            msg = f"{len(parts)} partitions of the one that was asked for"
            raise MalformedError(msg)
        _raise_for(address, DESCRIBE_QUORUM, parts[0])
        leader = parts[0]["leader_id"]
        clocks = [each.get("last_caught_up_timestamp", -1) for each in parts[0]["current_voters"]
                  if each["replica_id"] == leader]  # fmt: skip
        return Quorum(leader, next((clock for clock in clocks if clock > 0), None))

    fields = {"topics": [{"topic_name": METADATA_LOG, "partitions": [{"partition_index": 0}]}]}
    return await _ask(brokers, address, Question(DESCRIBE_QUORUM, (0, 2), fields), read)


async def sasl_mechanisms(brokers: Asks, address: Address) -> tuple[str, ...]:
    """Return the log-ins a listener offers; none if it wants none. For a connection without log-in.

    A handshake for no mechanism at all is refused with the list of those there are (KIP-43).

    Raises:
        TransportError: The broker could not be asked.
    """
    question = Question(SASL_HANDSHAKE, (0, 1), {"mechanism": ""})
    return await _ask(brokers, address, question, lambda answer: tuple(answer["mechanisms"]))


# --- topics -----------------------------------------------------------------------------------------


class TopicFacts(NamedTuple):
    """A topic as Metadata describes it. ``leaderless`` are its partitions without a leader."""

    name: str
    error: int
    internal: bool
    partitions: int
    leaderless: tuple[int, ...]
    operations: frozenset[str] | None


async def describe_topics(
    brokers: Asks, address: Address, names: Iterable[str] | None = None
) -> tuple[TopicFacts, ...]:
    """Ask for topics with what we may do on each (Metadata v8 to v12, Kafka 2.3 and later); creates none.

    Without names the broker lists every topic that we may describe, and leaves out the others without a word; by name
    they are refused (TOPIC_AUTHORIZATION_FAILED).

    Raises:
        TransportError: The broker could not be asked.
    """

    def read(answer: Entity) -> tuple[TopicFacts, ...]:
        return tuple(
            TopicFacts(
                each["name"],
                each["error_code"],
                each["is_internal"],
                len(each["partitions"]),
                tuple(sorted(part["partition_index"] for part in each["partitions"] if part["leader_id"] < 0)),
                operations(each["topic_authorized_operations"]),
            )
            for each in answer["topics"]
            if each["name"] is not None
        )

    topics = None if names is None else [{"name": name} for name in names]
    fields = {"topics": topics, "include_topic_authorized_operations": True}
    return await _ask(brokers, address, Question(METADATA, (8, 12), fields), read)


# --- groups -----------------------------------------------------------------------------------------


class GroupAccess(NamedTuple):
    """A group as its coordinator describes it, as far as permissions go.

    ``topics`` are those that its members are assigned or subscribe to by name.
    """

    name: str
    error: int
    detail: str
    state: str
    members: int
    topics: frozenset[str]
    operations: frozenset[str] | None


async def describe_groups(
    brokers: Asks, address: Address, names: Sequence[str], type_: str = "classic"
) -> list[GroupAccess]:
    """Ask a coordinator for groups of one type (a key of DESCRIBES) with what we may do on each.

    Raises:
        TransportError: The broker could not be asked, or does not offer the request.
    """
    api, offered = DESCRIBES[type_]
    parts = [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]
    asks = [
        # The list has another name in DescribeGroups than in those that came later.
        Question(api, offered, {"groups": part, "group_ids": part, "include_authorized_operations": True})
        for part in parts
    ]
    answers = await asyncio.gather(*(_ask(brokers, address, question, _group_accesses) for question in asks))
    return [group for answer in answers for group in answer]


def _group_accesses(answer: Entity) -> list[GroupAccess]:
    return [
        GroupAccess(
            each["group_id"],
            each["error_code"],
            each.get("error_message") or "",
            each["group_state"],
            len(each["members"]),
            frozenset(_topics_of(each)),
            operations(each["authorized_operations"]),
        )
        for each in answer["groups"]
    ]


def _topics_of(group: Entity) -> Iterable[str]:
    for member in group["members"]:
        yield from member.get("subscribed_topic_names", ())
        if group.get("protocol_type") == "consumer":
            yield from (where.topic for where in decode_assignment(member["member_assignment"]))
            yield from subscribed(member["member_metadata"])
        for part in (member.get("assignment") or {}).get("topic_partitions", ()):
            yield part["topic_name"]
    for part in (group.get("topology") or {}).get("subtopologies") or ():
        yield from part["source_topics"]
        yield from (topic["name"] for topic in part["repartition_source_topics"])


def subscribed(data: bytes) -> list[str]:
    """Decode the topics of a consumer protocol subscription; empty for what is not one.

    Clients write these bytes and brokers do not look into them: a broken one is no fault of the answer around it.
    """
    read = _Cursor(data)
    try:
        if read.i16() < 0:
            return []
        return [read.take(read.i16()).decode() for _ in range(read.i32())]
    except (MalformedError, UnicodeDecodeError):
        return []


class Coordinator(NamedTuple):
    """Who coordinates a group; ``node`` is -1 and ``error`` says why if nobody does."""

    node: int
    error: int


async def find_coordinators(brokers: Asks, address: Address, groups: Sequence[str]) -> dict[str, Coordinator]:
    """Ask who coordinates groups: many at once (KIP-699), before Kafka 3.0 one at a time.

    Raises:
        TransportError: The broker could not be asked.
    """
    found: dict[str, Coordinator] = {}
    try:
        for at in range(0, len(groups), AT_ONCE):
            fields = {"coordinator_keys": groups[at : at + AT_ONCE], "key_type": GROUP_KEY}
            found |= await _ask(brokers, address, Question(FIND_COORDINATOR, (4, 6), fields), _coordinators)
    except TransportError as exc:
        if exc.why != Why.UNSUPPORTED:
            raise
        for group in groups:
            question = Question(FIND_COORDINATOR, (1, 3), {"key": group, "key_type": GROUP_KEY})
            found[group] = await _ask(brokers, address, question, _coordinator)
    return found


def _coordinators(answer: Entity) -> dict[str, Coordinator]:
    return {each["key"]: _coordinator(each) for each in answer["coordinators"]}


def _coordinator(answer: Entity) -> Coordinator:
    return Coordinator(-1 if answer["error_code"] else answer["node_id"], answer["error_code"])


# --- asking by kio's schemas --------------------------------------------------------------------------

Entity = dict[str, Any]
"""An answer, or a part of one: values by kio's names of the fields; codes and times as their numbers."""


class Question(NamedTuple):
    """A request with its fields: a version takes those it has; what is left out is zero, empty or null."""

    api: Api
    offered: tuple[int, int]
    fields: Mapping[str, object]


async def _ask(brokers: Asks, address: Address, question: Question, read: Callable[[Entity], T]) -> T:
    api, offered, fields = question
    # The header of an ApiVersions answer has no tagged fields in any version (ApiVersionsResponse.json). What the
    # transport took for their number, a zero, is the first byte of the error code, whose values are small.
    taken = b"\0" if api is API_VERSIONS else b""
    return await brokers.ask(
        address,
        api,
        offered,
        partial(encode, api.key, fields),
        lambda data, version: read(decode(api.key, taken + data, version)),
    )


def _raise_for(address: Address, api: Api, answer: Entity) -> None:
    code = answer.get("error_code", 0)
    if code:
        message = f"{address} answered {why_name(code)} to {api.name}"
        raise TransportError(message, code)


def encode(api_key: int, asked: Mapping[str, object], version: int) -> bytes:
    """Encode a request of any version; ``asked`` has values by field name, nested parts as mappings."""
    from kio.index import load_request_schema  # noqa: PLC0415 - slow to import, and rarely needed
    from kio.serial import entity_writer  # noqa: PLC0415

    schema = load_request_schema(api_key, version)
    buffer = io.BytesIO()
    entity_writer(schema)(buffer, _filled(schema, asked))
    return buffer.getvalue()


def _filled(schema: type, asked: Mapping[str, object]) -> Any:
    return schema(**{each.name: _value(each, asked.get(each.name)) for each in _plan(schema) if each.tag is None})


def _value(field: _Field, value: Any) -> object:
    if field.is_array:
        if value is None and field.is_nullable:
            return None
        return tuple(_filled(field.part, each) if field.part is not None else each for each in value or ())
    if value is None:
        return _ZERO[field.kind]
    return value


_ZERO: Mapping[str, object] = {
    "int8": 0,
    "int16": 0,
    "int32": 0,
    "int64": 0,
    "bool": False,
    "string": "",
    "bytes": b"",
    "uuid": None,
}


def decode(api_key: int, data: bytes, version: int) -> Entity:
    """Decode an answer of any version by kio's schema of it.

    Raises:
        MalformedError: The answer does not follow the schema, or bytes are left after it.
    """
    from kio.index import load_response_schema  # noqa: PLC0415 - slow to import, and rarely needed

    schema = load_response_schema(api_key, version)
    read = _Cursor(data)
    answer = read.entity(schema, is_flexible=schema.__flexible__)
    read.end()
    return answer


class _Field(NamedTuple):
    """A field of kio's schema, as the walker wants it: ``part`` is the schema of a nested entity."""

    name: str
    kind: str
    part: type | None
    is_array: bool
    is_nullable: bool
    tag: int | None
    default: Any
    """Of a tagged field: what it is when it is left out."""


@cache
def _plan(schema: type) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(schema)
    return tuple(
        _field(each, hints[each.name])
        for each in dataclasses.fields(schema)  # in the order of the wire
    )


def _field(declared: dataclasses.Field[Any], hint: Any) -> _Field:
    is_nullable = types.NoneType in typing.get_args(hint)
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        hint = next(each for each in typing.get_args(hint) if each is not types.NoneType)
    is_array = typing.get_origin(hint) is tuple
    inner: Any = typing.get_args(hint)[0] if is_array else hint
    metadata, default = declared.metadata, declared.default
    return _Field(
        declared.name,
        metadata.get("kafka_type", ""),
        inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None,
        is_array,
        is_nullable,
        metadata.get("tag"),
        (() if is_array else None) if default is dataclasses.MISSING else default,
    )


class _Cursor(Reader):
    """A reader that follows a schema, of flexible versions or older ones."""

    __slots__ = ("_is_flexible",)

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._is_flexible = False

    def entity(self, schema: type, *, is_flexible: bool) -> Entity:
        """Read an entity with everything in it."""
        self._is_flexible = is_flexible
        return self._entity(schema)

    def _entity(self, schema: type) -> Entity:
        plan = _plan(schema)
        found = {each.name: self._read(each) for each in plan if each.tag is None}
        if self._is_flexible:
            tagged: dict[int | None, _Field] = {each.tag: each for each in plan if each.tag is not None}
            found |= {each.name: each.default for each in tagged.values()}
            found |= self._tagged(tagged)
        return found

    def _tagged(self, known: Mapping[int | None, _Field]) -> Entity:
        found = {}
        for _ in range(self.uvarint()):
            tag, size = self.uvarint(), self.uvarint()
            end = self.pos + size
            if tag not in known:
                self.skip(size)
                continue
            found[known[tag].name] = self._read(known[tag])
            if self.pos != end:
                msg = f"tagged field {tag} ends at byte {self.pos}, not {end}"
                raise MalformedError(msg)
        return found

    def _read(self, field: _Field) -> Any:
        if field.is_array:
            # A null array is an empty one. Every element has a byte at least: a length that lies meets the end.
            return tuple(self._one(field) for _ in range(self._size(4)))
        if field.part is not None and field.is_nullable and self.i8() < 0:
            return None
        return self._one(field)

    def _one(self, field: _Field) -> Any:
        if field.part is not None:
            return self._entity(field.part)
        if field.kind in {"string", "bytes", "records"}:
            return self._text(field)
        reader = _READERS.get(field.kind)
        if reader is None:
            msg = f"a field of type {field.kind} is not known"
            raise MalformedError(msg)
        return reader(self)

    def _text(self, field: _Field) -> str | bytes | None:
        size = self._size(2 if field.kind == "string" else 4)
        if size < 0:
            if not field.is_nullable:
                msg = f"{field.name} at byte {self.pos} is null"
                raise MalformedError(msg)
            return None
        raw = self.take(size)
        if field.kind != "string":
            return raw
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            msg = f"the string at byte {self.pos - size} is not UTF-8"
            raise MalformedError(msg) from exc

    def _size(self, width: int) -> int:
        """Read the length of a text or an array, -1 for null."""
        if self._is_flexible:
            return self.uvarint() - 1
        return self.i16() if width == 2 else self.i32()  # noqa: PLR2004 - bytes of an old length

    def signed(self, size: int) -> int:
        """Read a signed number of so many bytes."""
        return int.from_bytes(self.take(size), "big", signed=True)


_READERS: Mapping[str, Callable[[_Cursor], object]] = {
    "int8": partial(_Cursor.signed, size=1),
    "int16": partial(_Cursor.signed, size=2),
    "int32": partial(_Cursor.signed, size=4),
    "int64": partial(_Cursor.signed, size=8),
    "error_code": partial(_Cursor.signed, size=2),
    "timedelta_i32": partial(_Cursor.signed, size=4),
    "uint16": lambda read: int.from_bytes(read.take(2), "big"),
    "bool": lambda read: read.i8() != 0,
    "uuid": lambda read: read.take(16),
}
