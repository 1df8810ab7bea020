"""The decoders against kio, an implementation of others: same values, same refusals, nothing but MalformedError."""

import contextlib
import dataclasses
import datetime
import io
import types
import typing
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema, load_response_schema
from kio.schema.consumer_protocol_assignment import v0, v1, v2, v3
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import i32, i64

from monitor.model import TopicPartition
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
            values[each.name] = draw(st.lists(one, max_size=3).map(tuple)) if is_array else draw(one)
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


# One pair a member: its bytes are drawn once, so that the truth is known when they are decoded.
assignment_pool = st.lists(assignments(), min_size=1, max_size=3)


@over(assignment_pool, st.data())
def test_describe_groups_reads_as_kio_wrote_it(pool, data):
    """State, number of members and whose client each partition is; assignments of consumers only."""
    truth = {raw: partitions for partitions, raw in pool}
    special = {
        "member_assignment": st.sampled_from([*truth, b"", b"\xff\xff"]),
        "protocol_type": st.sampled_from(["consumer", "connect", ""]),
    }
    version, entity = data.draw(answers(wire.DESCRIBE_GROUPS, range(5, 7), special))

    read = wire.decode_describe_groups(encoded(entity), version)

    assert [
        wire.DescribedGroup(
            g.group_id,
            int(g.error_code),
            g.group_state,
            len(g.members),
            {
                partition: member.client_id
                for member in g.members
                for partition in truth.get(member.member_assignment, [])
                if g.protocol_type == "consumer"
            },
        )
        for g in entity.groups
    ] == read


@over(answers(wire.CONSUMER_GROUP_DESCRIBE, range(2)))
def test_consumer_group_describe_reads_as_kio_wrote_it(drawn):
    """The same for the new protocol: where members are counts, not where they are meant to be."""
    version, entity = drawn

    read = wire.decode_consumer_group_describe(encoded(entity), version)

    assert [
        wire.DescribedGroup(
            g.group_id,
            int(g.error_code),
            g.group_state,
            len(g.members),
            {
                TopicPartition(topic.topic_name, partition): member.client_id
                for member in g.members
                for topic in member.assignment.topic_partitions
                for partition in topic.partitions
            },
        )
        for g in entity.groups
    ] == read


# --- broken answers ---------------------------------------------------------------------------------

DECODERS = {
    "OffsetFetch": (offset_fetches, lambda data, _: wire.OffsetFetchDecoder().decode(data)),
    "ListOffsets": (list_offsets, lambda data, _: wire.ListOffsetsDecoder().decode(data)),
    "Metadata": (metadatas, wire.decode_metadata),
    "ListGroups": (group_lists, wire.decode_list_groups),
    "DescribeGroups": (answers(wire.DESCRIBE_GROUPS, range(5, 7)), wire.decode_describe_groups),
    "ConsumerGroupDescribe": (answers(wire.CONSUMER_GROUP_DESCRIBE, range(2)), wire.decode_consumer_group_describe),
}


@pytest.mark.parametrize("api", DECODERS)
@over(data=st.data(), examples=40)
def test_a_truncated_answer_is_malformed(api, data):
    """An answer cut anywhere is refused: no value is made up for what is missing."""
    strategy, decode = DECODERS[api]
    version, entity = data.draw(strategy)
    whole = encoded(entity)

    with pytest.raises(wire.MalformedError):
        decode(data.draw(cut(whole)), version)


@pytest.mark.parametrize("api", DECODERS)
@over(data=st.data(), examples=40)
def test_bytes_after_the_answer_are_malformed(api, data):
    """An answer with something behind it is refused too."""
    strategy, decode = DECODERS[api]
    version, entity = data.draw(strategy)

    with pytest.raises(wire.MalformedError):
        decode(encoded(entity) + data.draw(st.binary(min_size=1, max_size=30)), version)


@pytest.mark.parametrize("api", DECODERS)
@over(data=st.data(), examples=40)
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
    spans = {"OffsetFetch": 2, "ListOffsets": 5, "Metadata": 4, "ListGroups": 3, "DescribeGroups": 2}
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


@over(st.sampled_from([(wire.DESCRIBE_GROUPS, 5), (wire.DESCRIBE_GROUPS, 6), (wire.CONSUMER_GROUP_DESCRIBE, 0)]), names)
@example((wire.CONSUMER_GROUP_DESCRIBE, 1), ["a"])
def test_descriptions_are_asked_for_as_kio_reads_it(api, groups):
    """The groups named, without what one may do with them."""
    kind, version = api

    request = requested(kind, version, wire.describe_groups_request(groups, version))

    assert groups == list(request.groups if kind is wire.DESCRIBE_GROUPS else request.group_ids)
    assert not request.include_authorized_operations


@over(st.integers(0, 2**32 - 1))
def test_lengths_read_back(value):
    """What is written as an unsigned varint is read as the same number, in as many bytes."""
    read = wire.Reader(wire.uvarint(value))

    assert value == read.uvarint()
    read.end()
