"""The decoders against kio, an implementation of others: same values, same refusals, nothing but MalformedError."""

import contextlib
import dataclasses
import datetime
import io
import types
import typing
import uuid
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.schema.consumer_protocol_assignment import v0, v1, v2, v3
from kio.schema.consumer_protocol_subscription import v0 as s0
from kio.schema.consumer_protocol_subscription import v1 as s1
from kio.schema.consumer_protocol_subscription import v2 as s2
from kio.schema.consumer_protocol_subscription import v3 as s3
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType
from kio.static.primitive import i32, i64

from monitor.model import Member, TopicPartition
from monitor.observe.kafka import wire


def over(*strategies, examples=80, **named):
    """Check over examples, however long one takes: machines that run tests are busy."""
    limits = settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    return lambda test: limits(given(*strategies, **named)(test))


# --- answers of every form, made from kio's schemas -------------------------------------------------

INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


def number(bits: int) -> st.SearchStrategy:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.integers(120, 300).map(lambda n: "ü" * n)

SIMPLE = {
    **{name: number(bits) for name, bits in INTEGERS.items()},
    "uint16": st.integers(0, 2**16 - 1),
    "string": texts,
    "bytes": st.binary(max_size=12) | st.integers(120, 300).map(bytes),
    "uuid": st.uuids(),
    "bool": st.booleans(),
    "error_code": st.just(ErrorCode.none) | st.sampled_from(ErrorCode),
    "timedelta_i32": st.integers(0, 2**31 - 1).map(lambda ms: datetime.timedelta(milliseconds=ms)),
}


@cache
def with_tags(schema: type) -> type:
    """Return a copy of kio's class that has a tagged field of a version to come, in every part of it."""
    hints = typing.get_type_hints(schema)
    fields = []
    for each in dataclasses.fields(schema):
        kind, (part, is_array) = hints[each.name], part_of(hints[each.name])
        if part is not None:
            copy = with_tags(part)
            kind = tuple[copy, ...] if is_array else copy
            if is_optional(hints[each.name]):
                kind |= None
        fields.append((each.name, kind, dataclasses.field(metadata=each.metadata, kw_only=True)))
    unknown = dataclasses.field(default=b"", metadata={"kafka_type": "bytes", "tag": 77}, kw_only=True)
    constants = {
        name: getattr(schema, name)
        for name in ("__type__", "__version__", "__flexible__", "__api_key__", "__header_schema__")
    }
    return dataclasses.make_dataclass(
        schema.__name__, [*fields, ("unknown", bytes, unknown)], namespace=constants, frozen=True
    )


def part_of(hint) -> tuple[type | None, bool]:
    """Return the class of a nested entity, if the field holds any, and whether it holds an array of them."""
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        (hint,) = (each for each in typing.get_args(hint) if each is not types.NoneType)
    is_array = typing.get_origin(hint) is tuple
    inner = typing.get_args(hint)[0] if is_array else hint
    return (inner if dataclasses.is_dataclass(inner) else None), is_array


def is_optional(hint) -> bool:
    return types.NoneType in typing.get_args(hint)


@st.composite
def entities(draw, schema: type, special: dict, *, tags: bool):
    """Draw an entity; ``special`` has strategies for fields by name."""
    hints = typing.get_type_hints(schema)
    values = {}
    for each in dataclasses.fields(schema):
        hint = hints[each.name]
        part, is_array = part_of(hint)
        if each.name == "unknown":
            values[each.name] = (
                draw(st.just(b"") | st.binary(min_size=1, max_size=5) | st.just(bytes(200))) if tags else b""
            )
        elif each.name in special:
            values[each.name] = draw(special[each.name])
        elif part is not None:
            one = entities(part, special, tags=tags)
            one = st.lists(one, max_size=3).map(tuple) if is_array else one
            values[each.name] = draw(st.none() | one) if is_optional(hint) else draw(one)
        else:
            one = SIMPLE[each.metadata["kafka_type"]]
            if is_array:
                one = st.lists(one, max_size=4).map(tuple)
            elif is_optional(hint):
                one = st.none() | one
            values[each.name] = draw(one)
    return schema(**values)


@st.composite
def many(draw, entries: st.SearchStrategy):
    """Draw an array: few entries, or so many of them that lengths take two bytes."""
    few = draw(st.lists(entries, max_size=5))
    return tuple(few) * draw(st.sampled_from([1, 1, 1, 60]))


def answers(api: wire.Api, versions: range, special: dict | None = None, *, is_large: bool = False):
    """Return a strategy of (version, entity), in half of the cases with tagged fields of a version to come."""

    def of(version: int, tags: bool):
        schema = with_tags(load_response_schema(api.key, version))
        fields = dict(special or {})
        if is_large:
            # With tags in the entries and without: tags beside them leave the fast path open.
            entry = partition_class(schema)
            fields["partitions"] = st.booleans().flatmap(
                lambda within: many(entities(entry, special or {}, tags=tags and within))
            )
        return entities(schema, fields, tags=tags).map(lambda entity: (version, entity))

    return st.tuples(st.sampled_from(versions), st.booleans()).flatmap(lambda drawn: of(*drawn))


def partition_class(schema: type) -> type:
    """Return the class of the entries below ``partitions``, wherever it is."""
    for name, hint in typing.get_type_hints(schema).items():
        part, _ = part_of(hint)
        if part is not None:
            found = part if name == "partitions" else partition_class(part)
            if found is not None:
                return found
    return None


def encoded(entity) -> bytes:
    with io.BytesIO() as buffer:
        entity_writer(type(entity))(buffer, entity)
        return buffer.getvalue()


# Metadata of commits: mostly none, as in life, so that both the fast and the general path are taken.
commit_metadata = st.sampled_from(["", "", None, "x", "ü" * 70, "m" * 4096])

offset_fetches = answers(wire.OFFSET_FETCH, range(8, 10), {"metadata": commit_metadata}, is_large=True)
plain_fetches = answers(wire.OFFSET_FETCH, range(8, 10), {"metadata": st.sampled_from(["", None])}, is_large=True)
list_offsets = answers(wire.LIST_OFFSETS, range(7, 12), is_large=True)
metadatas = answers(wire.METADATA, range(9, 13), {"name": texts})
group_lists = answers(wire.LIST_GROUPS, range(3, 6))


# --- the two large answers --------------------------------------------------------------------------


def commits_told(entity) -> tuple:
    """Return groups with errors, and rows of group, topic, partition, error and offset, as kio's entity has them."""
    return (
        [(group.group_id, int(group.error_code)) for group in entity.groups],
        [
            (group.group_id, topic.name, p.partition_index, int(p.error_code), p.committed_offset)
            for group in entity.groups
            for topic in group.topics
            for p in topic.partitions
        ],
    )


def commits_decoded(offsets: wire.Offsets) -> tuple:
    shape = offsets.shape
    assert len(shape) == len(shape.topic) == len(shape.error) == len(shape.group) == len(offsets.offset)
    columns = (shape.group, shape.topic, shape.partition, shape.error, offsets.offset)
    return (
        list(zip(shape.groups, shape.group_error.tolist(), strict=True)),
        [
            (shape.groups[g], shape.topics[t], p, error, offset)
            for g, t, p, error, offset in zip(*(column.tolist() for column in columns), strict=True)
        ],
    )


def ends_told(entity) -> list:
    return [
        (topic.name, p.partition_index, int(p.error_code), p.offset, p.timestamp)
        for topic in entity.topics
        for p in topic.partitions
    ]


def ends_decoded(offsets: wire.Offsets) -> list:
    shape = offsets.shape
    columns = (shape.topic, shape.partition, shape.error, offsets.offset, offsets.timestamp_ms)
    return [
        (shape.topics[t], p, error, offset, at)
        for t, p, error, offset, at in zip(*(column.tolist() for column in columns), strict=True)
    ]


@over(offset_fetches | plain_fetches)
def test_offset_fetch_reads_as_kio_wrote_it(drawn):
    """Every group, position, offset and error of v8 and v9, with and without metadata and tagged fields."""
    _, entity = drawn

    assert commits_told(entity) == commits_decoded(wire.OffsetFetchDecoder().decode(encoded(entity)))


@over(list_offsets)
def test_list_offsets_reads_as_kio_wrote_it(drawn):
    """Every partition, offset, timestamp and error of v7 to v11."""
    _, entity = drawn

    assert ends_told(entity) == ends_decoded(wire.ListOffsetsDecoder().decode(encoded(entity)))


@st.composite
def moved(draw, drawn, path: tuple[str, ...], fields: dict[str, int]):
    """Draw an answer like another, but for its moving numbers."""
    version, entity = drawn
    return version, entity, _moved(draw, entity, path, fields)


def _moved(draw, entity, path, fields):
    if not path:
        return dataclasses.replace(entity, **{name: draw(number(bits)) for name, bits in fields.items()})
    name, *rest = path
    parts = getattr(entity, name)
    # Thousands of draws are slow: one a distinct entry is enough.
    new = {id(part): _moved(draw, part, tuple(rest), fields) for part in parts}
    return dataclasses.replace(entity, **{name: tuple(new[id(part)] for part in parts)})


COMMIT_PATH = ("groups", "topics", "partitions")
END_PATH = ("topics", "partitions")
throttle = st.integers(0, 2**31 - 1).map(lambda ms: datetime.timedelta(milliseconds=ms))


@over(
    offset_fetches.flatmap(
        lambda drawn: moved(drawn, COMMIT_PATH, {"committed_offset": 64, "committed_leader_epoch": 32})
    ),
    throttle,
)
def test_commits_that_only_moved_keep_their_shape(drawn, throttle_time):
    """An answer that differs in offsets, epochs and throttle time only has the very same shape, and its own offsets."""
    _, first, second = drawn
    second = dataclasses.replace(second, throttle_time=throttle_time)
    decoder = wire.OffsetFetchDecoder()

    before, after = decoder.decode(encoded(first)), decoder.decode(encoded(second))

    assert before.shape is after.shape
    assert (commits_told(first), commits_told(second)) == (commits_decoded(before), commits_decoded(after))


@over(
    list_offsets.flatmap(lambda drawn: moved(drawn, END_PATH, {"offset": 64, "timestamp": 64, "leader_epoch": 32})),
    throttle,
)
def test_ends_that_only_moved_keep_their_shape(drawn, throttle_time):
    """The same for ListOffsets, timestamps among what moves."""
    _, first, second = drawn
    second = dataclasses.replace(second, throttle_time=throttle_time)
    decoder = wire.ListOffsetsDecoder()

    before, after = decoder.decode(encoded(first)), decoder.decode(encoded(second))

    assert before.shape is after.shape
    assert (ends_told(first), ends_told(second)) == (ends_decoded(before), ends_decoded(after))


@over(offset_fetches, offset_fetches, offset_fetches)
def test_commits_of_another_shape_are_decoded_anew(first, second, third):
    """Whatever was decoded before, an answer means what it says."""
    decoder = wire.OffsetFetchDecoder()

    for _, entity in (first, second, third, second):
        assert commits_told(entity) == commits_decoded(decoder.decode(encoded(entity)))


def commit_answer(*, groups=("g", "h"), topic="t", partitions=(0, 1), metadata="", error=0, group_error=0):
    """Return OffsetFetch v8 with a little of everything that may change while its size does not."""
    from kio.schema.offset_fetch.v8 import response

    rows = tuple(
        response.OffsetFetchResponsePartitions(
            partition_index=i32(p), committed_offset=i64(p * 7), metadata=metadata, error_code=ErrorCode(error)
        )
        for p in partitions
    )
    return encoded(
        response.OffsetFetchResponse(
            throttle_time=datetime.timedelta(0),
            groups=tuple(
                response.OffsetFetchResponseGroup(
                    group_id=name,
                    topics=(response.OffsetFetchResponseTopics(name=topic, partitions=rows),),
                    error_code=ErrorCode(group_error),
                )
                for name in groups
            ),
        )
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"groups": ("g", "i")}, id="another group"),
        pytest.param({"topic": "s"}, id="another topic"),
        pytest.param({"partitions": (0, 2)}, id="another partition"),
        pytest.param({"metadata": None}, id="null metadata"),
        pytest.param({"error": 3}, id="an error of a partition"),
        pytest.param({"group_error": 14}, id="an error of a group"),
    ],
)
def test_a_change_beside_the_numbers_makes_a_new_shape(change):
    """Of equal size but about something else: the shape is another, and back again it is right again."""
    from kio.schema.offset_fetch.v8 import response

    decoder = wire.OffsetFetchDecoder()
    first = decoder.decode(commit_answer())
    data = commit_answer(**change)

    second = decoder.decode(data)

    assert len(data) == len(commit_answer())
    assert first.shape is not second.shape
    entity, _ = entity_reader(response.OffsetFetchResponse)(data, 0)
    assert commits_told(entity) == commits_decoded(second)
    assert commits_decoded(first) == commits_decoded(decoder.decode(commit_answer()))


def end_answer(*, topic="t", partitions=(0, 1), error=0):
    """Return ListOffsets v7 with what may change while its size does not."""
    from kio.schema.list_offsets.v7 import response

    rows = tuple(
        response.ListOffsetsPartitionResponse(partition_index=i32(p), offset=i64(p * 7), error_code=ErrorCode(error))
        for p in partitions
    )
    topics = (response.ListOffsetsTopicResponse(name=topic, partitions=rows),)
    return response.ListOffsetsResponse(throttle_time=datetime.timedelta(0), topics=topics)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"topic": "s"}, id="another topic"),
        pytest.param({"partitions": (0, 2)}, id="another partition"),
        pytest.param({"error": 6}, id="an error"),
    ],
)
def test_a_change_beside_the_ends_makes_a_new_shape(change):
    """The same for ListOffsets."""
    decoder = wire.ListOffsetsDecoder()
    before, after = end_answer(), end_answer(**change)
    first = decoder.decode(encoded(before))

    second = decoder.decode(encoded(after))

    assert len(encoded(before)) == len(encoded(after))
    assert first.shape is not second.shape
    assert ends_told(after) == ends_decoded(second)
    assert ends_told(before) == ends_decoded(decoder.decode(encoded(before)))


# --- the other answers ------------------------------------------------------------------------------


@over(metadatas)
def test_metadata_reads_as_kio_wrote_it(drawn):
    """Brokers with host and port, topics with error, kind and leaders, in the order of partitions."""
    version, entity = drawn

    read = wire.decode_metadata(encoded(entity), version)

    assert [(b.node_id, b.host, b.port) for b in entity.brokers] == [tuple(broker) for broker in read.brokers]
    told = [
        (t.name, int(t.error_code), t.is_internal, sorted((p.partition_index, p.leader_id) for p in t.partitions))
        for t in entity.topics
    ]
    assert told == [
        (t.name, t.error, t.internal, list(zip(t.partitions.tolist(), t.leaders.tolist(), strict=True)))
        for t in read.topics
    ]


@over(group_lists)
def test_list_groups_reads_as_kio_wrote_it(drawn):
    """Error, names and protocol types; states from v4 and types from v5, unknown before."""
    version, entity = drawn

    error, groups = wire.decode_list_groups(encoded(entity), version)

    told = [
        (g.group_id, g.protocol_type, getattr(g, "group_state", None), getattr(g, "group_type", None))
        for g in entity.groups
    ]
    assert (int(entity.error_code), told) == (error, [tuple(group) for group in groups])


@st.composite
def assignments(draw):
    """Draw what a consumer was assigned, and the bytes that its leader would write for it."""
    module = draw(st.sampled_from([v0, v1, v2, v3]))
    schema = module.ConsumerProtocolAssignment
    (part,) = (
        part_of(hint)[0] for name, hint in typing.get_type_hints(schema).items() if name == "assigned_partitions"
    )
    topics = draw(st.dictionaries(texts, st.lists(number(32), max_size=4, unique=True), max_size=3))
    entity = schema(
        assigned_partitions=tuple(part(topic=name, partitions=tuple(ps)) for name, ps in topics.items()),
        user_data=draw(st.none() | st.binary(max_size=4)),
    )
    data = int(schema.__version__).to_bytes(2, "big") + encoded(entity)
    return [TopicPartition(name, p) for name, ps in topics.items() for p in ps], data


@over(assignments())
def test_an_assignment_reads_as_kio_wrote_it(drawn):
    """Topics and partitions of v0 to v3, user data or not."""
    partitions, data = drawn

    assert partitions == wire.decode_assignment(data)


@over(st.binary(max_size=40) | assignments().flatmap(lambda drawn: cut(drawn[1])))
@example(b"")
@example(b"\0\0\x7f\xff\xff\xff")
@example(b"\0\0\0\0\0\1\0\1t\x7f\xff\xff\xff")
@example(b"\0\0\0\0\0\1\xff\xff")
def test_an_assignment_of_other_bytes_raises_nothing(data):
    """Clients may write what they like there: it is no assignment then, and no failure."""
    assert isinstance(wire.decode_assignment(data), list)


def cut(data: bytes) -> st.SearchStrategy:
    return st.integers(0, max(len(data) - 1, 0)).map(lambda size: data[:size])


SUBSCRIPTIONS = {0: s0, 1: s1, 2: s2, 3: s3}


@st.composite
def subscriptions(draw):
    """Draw what a consumer subscribes to, and the bytes that it would write for it."""
    version = draw(st.sampled_from(range(4)))
    schema = SUBSCRIPTIONS[version].ConsumerProtocolSubscription
    names = draw(st.lists(texts, max_size=3, unique=True))
    entity = draw(entities(schema, {"topics": st.just(tuple(names))}, tags=False))
    return frozenset(names), version.to_bytes(2, "big") + encoded(entity)


@over(subscriptions())
def test_a_subscription_reads_as_kio_wrote_it(drawn):
    """The topics of v0 to v3, whatever follows them."""
    topics, data = drawn

    assert topics == wire.decode_subscription(data)


@over(subscriptions(), st.data())
def test_a_subscription_cut_short_is_unknown(drawn, data):
    """Cut within topics or user data it tells nothing; cut behind them, it still tells all its topics."""
    topics, whole = drawn

    assert wire.decode_subscription(data.draw(cut(whole))) in {None, topics}
    assert wire.decode_subscription(whole[:5]) is None
    assert wire.decode_subscription(b"\0\0" + b"\0\0\0\1" + b"\0\1t" + b"\0\0\0\3{}") is None


@over(st.binary(max_size=40))
@example(b"")
@example(b"\0\0\x7f\xff\xff\xff")
@example(b"\0\0\0\0\0\1\0\1\xff\xff\xff\xff\xff")
def test_a_subscription_of_other_bytes_raises_nothing(data):
    """It is none then, or happens to be one: the bytes are the client's."""
    assert isinstance(wire.decode_subscription(data), frozenset | None)


def test_the_subscription_of_a_faust_worker():
    """It calls the fields of v0 its version 4, and user data of its own follows."""
    data = b"\0\4" + b"\0\0\0\1" + b"\0\6orders" + b"\0\0\0\2{}"

    assert frozenset({"orders"}) == wire.decode_subscription(data)


# One pair a member: its bytes are drawn once, so that the truth is known when they are decoded.
assignment_pool = st.lists(assignments(), min_size=1, max_size=3)
subscription_pool = st.lists(subscriptions(), min_size=1, max_size=3)


def together(members: list[frozenset[str] | None]) -> frozenset[str] | None:
    """Return what members subscribe to, None with nobody there or anybody unknown."""
    return frozenset().union(*members) if members and None not in members else None


def owners(members) -> dict[TopicPartition, str]:
    return {where: member.client_id for member in members for where in member.assigned}


@over(assignment_pool, subscription_pool, st.data())
def test_describe_groups_reads_as_kio_wrote_it(pool, subscribing, data):
    """State, assignor, members and what they read and subscribe to; the last two of consumers only."""
    truth = {raw: partitions for partitions, raw in pool}
    topics = {raw: names for names, raw in subscribing}
    special = {
        "member_assignment": st.sampled_from([*truth, b"", b"\xff\xff"]),
        "member_metadata": st.sampled_from([*topics, *topics, b""]),
        "protocol_type": st.sampled_from(["consumer", "connect", ""]),
    }
    version, entity = data.draw(answers(wire.DESCRIBE_GROUPS, range(5, 7), special))

    read = wire.decode_describe_groups(encoded(entity), version)

    expected = []
    for g in entity.groups:
        is_consumer = g.protocol_type == "consumer"
        members = tuple(
            Member(
                m.member_id,
                m.client_id,
                m.client_host,
                m.group_instance_id,
                None,
                tuple(truth.get(m.member_assignment, [])) if is_consumer else (),
            )
            for m in g.members
        )
        told = [topics.get(m.member_metadata) if is_consumer else None for m in g.members]
        expected.append(
            wire.DescribedGroup(
                g.group_id,
                int(g.error_code),
                g.group_state,
                members,
                owners(members),
                together(told),
                g.protocol_data or None,
            )
        )
    assert expected == read


def where(assignment) -> tuple[TopicPartition, ...]:
    return tuple(TopicPartition(each.topic_name, p) for each in assignment.topic_partitions for p in each.partitions)


@over(answers(wire.CONSUMER_GROUP_DESCRIBE, range(2), {"subscribed_topic_regex": st.sampled_from([None, "", "a.*"])}))
def test_consumer_group_describe_reads_as_kio_wrote_it(drawn):
    """The same for the new protocol: where members are and not where they are meant to be; no pattern is guessed."""
    version, entity = drawn

    read = wire.decode_consumer_group_describe(encoded(entity), version)

    expected = []
    for g in entity.groups:
        members = tuple(
            Member(m.member_id, m.client_id, m.client_host, m.instance_id, m.member_epoch, where(m.assignment))
            for m in g.members
        )
        told = [None if m.subscribed_topic_regex else frozenset(m.subscribed_topic_names) for m in g.members]
        expected.append(
            wire.DescribedGroup(
                g.group_id,
                int(g.error_code),
                g.group_state,
                members,
                owners(members),
                together(told),
                g.assignor_name or None,
                g.group_epoch if not g.error_code else None,
            )
        )
    assert expected == read


# Few topics and partitions, so that members of a group share them.
shared_partitions = st.lists(st.sampled_from([i32(0), i32(1)]), max_size=2, unique=True).map(tuple)
share_groups = answers(
    wire.SHARE_GROUP_DESCRIBE, range(1, 2), {"topic_name": st.sampled_from("ab"), "partitions": shared_partitions}
)


@over(share_groups)
def test_share_group_describe_reads_as_kio_wrote_it(drawn):
    """A partition that several members read has no single owner."""
    version, entity = drawn

    read = wire.decode_share_group_describe(encoded(entity), version)

    expected = []
    for g in entity.groups:
        members = tuple(
            Member(m.member_id, m.client_id, m.client_host, None, m.member_epoch, where(m.assignment))
            for m in g.members
        )
        clients = {at: {m.client_id for m in members if at in m.assigned} for m in members for at in m.assigned}
        expected.append(
            wire.DescribedGroup(
                g.group_id,
                int(g.error_code),
                g.group_state,
                members,
                {at: next(iter(names)) if len(names) == 1 else "" for at, names in clients.items()},
                together([frozenset(m.subscribed_topic_names) for m in g.members]),
                g.assignor_name or None,
                g.group_epoch if not g.error_code else None,
            )
        )
    assert expected == read


subtopology_ids = st.sampled_from(["0", "1", "2"])
streams_groups = answers(wire.STREAMS_GROUP_DESCRIBE, range(1), {"subtopology_id": subtopology_ids})


@over(streams_groups, examples=40)
def test_streams_group_describe_reads_as_kio_wrote_it(drawn):
    """Active tasks are the partitions of their subtopology's source topics; a group without a topology has none."""
    version, entity = drawn

    read = wire.decode_streams_group_describe(encoded(entity), version)

    expected = []
    for g in entity.groups:
        known = g.topology is not None and g.topology.subtopologies is not None
        sources = {
            s.subtopology_id: list(
                dict.fromkeys([*s.source_topics, *(info.name for info in s.repartition_source_topics)])
            )
            for s in (g.topology.subtopologies if known else ())
        }
        members = tuple(
            Member(
                m.member_id,
                m.client_id,
                m.client_host,
                m.instance_id,
                m.member_epoch,
                tuple(
                    TopicPartition(topic, p)
                    for task in m.assignment.active_tasks
                    for topic in sources.get(task.subtopology_id, ())
                    for p in task.partitions
                ),
            )
            for m in g.members
        )
        expected.append(
            wire.DescribedGroup(
                g.group_id,
                int(g.error_code),
                g.group_state,
                members,
                owners(members),
                frozenset(topic for topics in sources.values() for topic in topics) if known else None,
                None,
                g.group_epoch if not g.error_code else None,
            )
        )
    assert expected == read


def test_tasks_beyond_any_cluster_are_malformed(monkeypatch):
    """Tasks times topics may be more than an answer has bytes: memory is bounded all the same."""
    monkeypatch.setattr(wire, "MOST_ASSIGNED", 8)
    module = load_payload_module(wire.STREAMS_GROUP_DESCRIBE.key, 0, EntityType.response)

    def answer(*members: int) -> bytes:
        nothing = module.Assignment(active_tasks=(), standby_tasks=(), warmup_tasks=())
        topology = module.Topology(
            epoch=i32(1),
            subtopologies=(
                module.Subtopology(
                    subtopology_id="0",
                    source_topics=("a", "b"),
                    state_changelog_topics=(),
                    repartition_source_topics=(),
                ),
            ),
        )
        group = module.DescribedGroup(
            error_code=ErrorCode.none,
            group_id="g",
            group_state="Stable",
            group_epoch=i32(1),
            assignment_epoch=i32(1),
            topology=topology,
            members=tuple(
                module.Member(
                    member_id="m",
                    member_epoch=i32(1),
                    client_id="c",
                    client_host="h",
                    topology_epoch=i32(1),
                    process_id="p",
                    client_tags=(),
                    task_offsets=(),
                    task_end_offsets=(),
                    assignment=dataclasses.replace(
                        nothing,
                        active_tasks=(module.TaskIds(subtopology_id="0", partitions=tuple(map(i32, range(tasks)))),),
                    ),
                    target_assignment=nothing,
                    is_classic=False,
                )
                for tasks in members
            ),
        )
        whole = module.StreamsGroupDescribeResponse(throttle_time=datetime.timedelta(0), groups=(group,))
        return encoded(whole)

    (group,) = wire.decode_streams_group_describe(answer(3, 1), 0)
    assert [6, 2] == [len(member.assigned) for member in group.members]
    for too_many in [(5,), (3, 2)]:
        with pytest.raises(wire.MalformedError):
            wire.decode_streams_group_describe(answer(*too_many), 0)


# --- share groups' offsets --------------------------------------------------------------------------

share_message = st.sampled_from(["", None, None, "x", "\0", "ü" * 70])
share_offsets = answers(wire.DESCRIBE_SHARE_GROUP_OFFSETS, range(2), {"error_message": share_message}, is_large=True)
plain_share_offsets = answers(
    wire.DESCRIBE_SHARE_GROUP_OFFSETS, range(2), {"error_message": st.sampled_from(["", None])}, is_large=True
)


def shares_told(entity) -> tuple:
    return (
        [(group.group_id, int(group.error_code)) for group in entity.groups],
        [
            (
                group.group_id,
                topic.topic_name,
                p.partition_index,
                p.start_offset,
                getattr(p, "lag", None),
                int(p.error_code),
            )
            for group in entity.groups
            for topic in group.topics
            for p in topic.partitions
        ],
    )


def shares_decoded(offsets: wire.Offsets) -> tuple:
    shape = offsets.shape
    lag = [None] * len(shape) if offsets.lag is None else offsets.lag.tolist()
    return (
        list(zip(shape.groups, shape.group_error.tolist(), strict=True)),
        [
            (shape.groups[group], shape.topics[topic], *rest)
            for group, topic, *rest in zip(
                shape.group.tolist(),
                shape.topic.tolist(),
                shape.partition.tolist(),
                offsets.offset.tolist(),
                lag,
                shape.error.tolist(),
                strict=True,
            )
        ],
    )


@over(share_offsets)
def test_share_group_offsets_read_as_kio_wrote_them(drawn):
    """Start offset and error of every partition, and its lag from v1 on."""
    version, entity = drawn

    assert shares_told(entity) == shares_decoded(wire.ShareOffsetsDecoder(version).decode(encoded(entity)))


@over(
    plain_share_offsets.flatmap(
        lambda drawn: moved(
            drawn, COMMIT_PATH, {"start_offset": 64, "leader_epoch": 32} | ({"lag": 64} if drawn[0] else {})
        )
    )
)
def test_share_offsets_that_only_moved_keep_their_shape(drawn):
    """Start offsets, epochs and lags may move and the shape stays the same object."""
    version, first, second = drawn
    decoder = wire.ShareOffsetsDecoder(version)

    before, after = decoder.decode(encoded(first)), decoder.decode(encoded(second))

    assert before.shape is after.shape
    assert (shares_told(first), shares_told(second)) == (shares_decoded(before), shares_decoded(after))


def share_answer(*, group="g", topic="t", topic_id=1, lead=0, codes=(0, 0), group_error=0):
    """Write an answer about one group on one topic."""
    module = load_payload_module(wire.DESCRIBE_SHARE_GROUP_OFFSETS.key, 1, EntityType.response)
    partitions = tuple(
        module.DescribeShareGroupOffsetsResponsePartition(
            partition_index=i32(number + lead),
            start_offset=i64(40 + number),
            leader_epoch=i32(3),
            lag=i64(7),
            error_code=ErrorCode(code),
        )
        for number, code in enumerate(codes)
    )
    of = module.DescribeShareGroupOffsetsResponseTopic(
        topic_name=topic, topic_id=uuid.UUID(int=topic_id), partitions=partitions
    )
    told = module.DescribeShareGroupOffsetsResponseGroup(
        group_id=group, topics=(of,), error_code=ErrorCode(group_error)
    )
    return module.DescribeShareGroupOffsetsResponse(throttle_time=datetime.timedelta(0), groups=(told,))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"group": "h"}, id="another group"),
        pytest.param({"topic": "u"}, id="another topic"),
        pytest.param({"topic_id": 2}, id="the topic made again"),
        pytest.param({"lead": 1}, id="other partitions"),
        pytest.param({"codes": (0, 15)}, id="a partition that fails"),
        pytest.param({"codes": (0, 0, 0)}, id="a partition more"),
        pytest.param({"group_error": 30}, id="the group fails"),
    ],
)
def test_a_change_beside_the_share_offsets_makes_a_new_shape(change):
    """Whatever says which entry is about what, or that it failed, is never taken from the answer before."""
    decoder = wire.ShareOffsetsDecoder(1)
    before = decoder.decode(encoded(share_answer()))
    after = decoder.decode(encoded(share_answer(**change)))

    assert before.shape is not after.shape
    assert shares_told(share_answer(**change)) == shares_decoded(after)


# --- broken answers ---------------------------------------------------------------------------------

DECODERS = {
    "OffsetFetch": (offset_fetches, lambda data, _: wire.OffsetFetchDecoder().decode(data)),
    "ListOffsets": (list_offsets, lambda data, _: wire.ListOffsetsDecoder().decode(data)),
    "Metadata": (metadatas, wire.decode_metadata),
    "ListGroups": (group_lists, wire.decode_list_groups),
    "DescribeGroups": (answers(wire.DESCRIBE_GROUPS, range(5, 7)), wire.decode_describe_groups),
    "ConsumerGroupDescribe": (answers(wire.CONSUMER_GROUP_DESCRIBE, range(2)), wire.decode_consumer_group_describe),
    "ShareGroupDescribe": (answers(wire.SHARE_GROUP_DESCRIBE, range(1, 2)), wire.decode_share_group_describe),
    "StreamsGroupDescribe": (streams_groups, wire.decode_streams_group_describe),
    "DescribeShareGroupOffsets": (
        share_offsets,
        lambda data, version: wire.ShareOffsetsDecoder(version).decode(data),
    ),
}


@pytest.mark.parametrize("api", DECODERS)
@over(data=st.data(), examples=30)
def test_a_truncated_answer_is_malformed(api, data):
    """An answer cut anywhere is refused: no value is made up for what is missing."""
    strategy, decode = DECODERS[api]
    version, entity = data.draw(strategy)
    whole = encoded(entity)

    with pytest.raises(wire.MalformedError):
        decode(data.draw(cut(whole)), version)


@pytest.mark.parametrize("api", DECODERS)
@over(data=st.data(), examples=30)
def test_bytes_after_the_answer_are_malformed(api, data):
    """An answer with something behind it is refused too."""
    strategy, decode = DECODERS[api]
    version, entity = data.draw(strategy)

    with pytest.raises(wire.MalformedError):
        decode(encoded(entity) + data.draw(st.binary(min_size=1, max_size=30)), version)


@pytest.mark.parametrize("api", DECODERS)
@over(data=st.data(), examples=30)
def test_a_corrupt_answer_is_malformed_or_another_answer(api, data):
    """Flipped bytes either make another well-formed answer or MalformedError; nothing else, nothing endless."""
    strategy, decode = DECODERS[api]
    version, entity = data.draw(strategy)
    body = bytearray(encoded(entity))
    assume(body)
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
        body[at] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))

    refuses_or_reads(decode, bytes(body), version)


@pytest.mark.parametrize("api", DECODERS)
@over(body=st.binary(max_size=200), version_index=st.integers(0, 4))
@example(body=b"\0\0\0\0\xff\xff\xff\xff\x0f", version_index=0)
@example(body=b"\0\0\0\0\0\0\xff\xff\xff\xff\x0f", version_index=0)
@example(body=b"\xff" * 200, version_index=0)
@example(body=b"\x80" * 200, version_index=0)
def test_random_bytes_are_malformed_or_an_answer(api, body, version_index):
    """The same for bytes that never were an answer: a length of gigabytes allocates nothing."""
    versions = {"OffsetFetch": 8, "ListOffsets": 7, "Metadata": 9, "ListGroups": 3, "DescribeGroups": 5}
    versions |= {"ShareGroupDescribe": 1}
    spans = {"ListOffsets": 5, "Metadata": 4, "ListGroups": 3, "ShareGroupDescribe": 1, "StreamsGroupDescribe": 1}
    version = versions.get(api, 0) + version_index % spans.get(api, 2)

    refuses_or_reads(DECODERS[api][1], body, version)


def refuses_or_reads(decode, body: bytes, version: int) -> None:
    with contextlib.suppress(wire.MalformedError):
        decode(body, version)


@over(offset_fetches, st.data())
def test_a_broken_answer_does_not_spoil_the_template(drawn, data):
    """After an answer that was refused the next good one is right."""
    _, entity = drawn
    whole = encoded(entity)
    decoder = wire.OffsetFetchDecoder()
    decoder.decode(whole)

    with pytest.raises(wire.MalformedError):
        decoder.decode(data.draw(cut(whole)))

    assert commits_told(entity) == commits_decoded(decoder.decode(whole))


# --- requests ---------------------------------------------------------------------------------------


def requested(api: wire.Api, version: int, body: bytes):
    """Read a request with kio, to its last byte."""
    entity, size = entity_reader(load_request_schema(api.key, version))(body, 0)
    assert len(body) == size
    return entity


names = st.lists(texts, max_size=5) | st.just([f"group {n}" for n in range(200)])


@over(st.sampled_from(range(9, 13)), st.none() | names)
def test_metadata_is_asked_for_as_kio_reads_it(version, topics):
    """Every topic or those named, never creating one nor asking what one may do."""
    request = requested(wire.METADATA, version, wire.metadata_request(topics, version))

    assert topics == (None if request.topics is None else [topic.name for topic in request.topics])
    assert not request.allow_auto_topic_creation
    assert not request.include_topic_authorized_operations
    assert not getattr(request, "include_cluster_authorized_operations", False)
    assert {None} >= {getattr(topic, "topic_id", None) for topic in request.topics or ()}


@pytest.mark.parametrize("version", range(3, 6))
def test_groups_are_asked_for_without_filters(version):
    """Groups of every state and every type."""
    request = requested(wire.LIST_GROUPS, version, wire.list_groups_request(version))

    assert () == getattr(request, "states_filter", ())
    assert () == getattr(request, "types_filter", ())


@over(st.sampled_from([8, 9]), names)
def test_offsets_are_asked_for_as_kio_reads_it(version, groups):
    """All topics of every group, as no member, and whether stable or not."""
    request = requested(wire.OFFSET_FETCH, version, wire.offset_fetch_request(groups, version))

    assert groups == [group.group_id for group in request.groups]
    assert {None} >= {group.topics for group in request.groups}
    assert {(None, -1)} >= {
        (getattr(group, "member_id", None), getattr(group, "member_epoch", -1)) for group in request.groups
    }
    assert not request.require_stable


@st.composite
def end_questions(draw):
    partitions = draw(st.lists(number(32), max_size=5, unique=True))
    times = draw(number(64) | st.lists(number(64), min_size=len(partitions), max_size=len(partitions)))
    return draw(texts), partitions, times


@over(st.sampled_from(range(7, 12)), st.lists(end_questions(), max_size=3), st.sampled_from([0, 1]))
@example(7, [("t", list(range(300)), -1)], 0)
def test_ends_are_asked_for_as_kio_reads_it(version, questions, isolation):
    """Partitions with one timestamp for all or one each, no leader epoch, as no replica, with the isolation wanted."""
    asked = [
        (name, np.array(ps, np.int32), times if isinstance(times, int) else np.array(times, np.int64))
        for name, ps, times in questions
    ]

    body = wire.list_offsets_request(asked, version, isolation=isolation)

    request = requested(wire.LIST_OFFSETS, version, body)
    told = [
        (topic.name, [(p.partition_index, p.timestamp, p.current_leader_epoch) for p in topic.partitions])
        for topic in request.topics
    ]
    assert told == [
        (name, [(p, times if isinstance(times, int) else times[i], -1) for i, p in enumerate(ps)])
        for name, ps, times in questions
    ]
    assert (-1, isolation) == (request.replica_id, request.isolation_level)
    assert datetime.timedelta(0) == getattr(request, "timeout", datetime.timedelta(0))


DESCRIBES = [
    (wire.DESCRIBE_GROUPS, 5),
    (wire.DESCRIBE_GROUPS, 6),
    (wire.CONSUMER_GROUP_DESCRIBE, 0),
    (wire.CONSUMER_GROUP_DESCRIBE, 1),
    (wire.SHARE_GROUP_DESCRIBE, 1),
    (wire.STREAMS_GROUP_DESCRIBE, 0),
]


@over(st.sampled_from(DESCRIBES), names)
@example((wire.CONSUMER_GROUP_DESCRIBE, 1), ["a"])
def test_descriptions_are_asked_for_as_kio_reads_it(api, groups):
    """The groups named, without what one may do with them."""
    kind, version = api

    request = requested(kind, version, wire.describe_groups_request(groups, version))

    assert groups == list(request.groups if kind is wire.DESCRIBE_GROUPS else request.group_ids)
    assert not request.include_authorized_operations


@over(st.sampled_from([0, 1]), names)
def test_share_offsets_are_asked_for_as_kio_reads_it(version, groups):
    """All topics of the groups named."""
    body = wire.share_group_offsets_request(groups, version)
    request = requested(wire.DESCRIBE_SHARE_GROUP_OFFSETS, version, body)

    assert [(group, None) for group in groups] == [(each.group_id, each.topics) for each in request.groups]


@over(st.integers(0, 2**32 - 1))
def test_lengths_read_back(value):
    """What is written as an unsigned varint is read as the same number, in as many bytes."""
    read = wire.Reader(wire.uvarint(value))

    assert value == read.uvarint()
    read.end()
