"""The rare requests: read as kio writes them, refused when torn, and asked of a fake cluster over its own transport."""

import contextlib
import dataclasses
import datetime
import io
import random
import tracemalloc
import types
import typing
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka import cold
from monitor.observe.kafka.cluster import Brokers
from monitor.observe.kafka.transport import Address, KafkaTransport
from monitor.observe.kafka.wire import MalformedError
from monitor.sandbox.fake import FakeCluster
from monitor.settings import Cluster

ANSWERS = [
    *((3, version) for version in range(8, 13)),
    *((10, version) for version in range(1, 7)),
    *((15, version) for version in range(3, 7)),
    (17, 0), (17, 1), (18, 3), (18, 4), (55, 0), (55, 1), (55, 2), (60, 0), (60, 1), (60, 2), (69, 0), (69, 1),
    (77, 1), (89, 0),
]  # fmt: skip
"""API key and version of every answer that is read here."""

ids = [f"{load_response_schema(key, version).__name__} v{version}" for key, version in ANSWERS]
each_answer = pytest.mark.parametrize(("key", "version"), ANSWERS, ids=ids)


def over(*strategies, examples=20):
    limits = settings(deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck))
    return lambda test: limits(given(*strategies))(test)  # noqa: PLW0108 - it names what it decorates


seeds = st.integers(0, 2**32)
"""One draw an answer: drawing each of its fields would take most of the time."""


# --- answers of every form, written by kio --------------------------------------------------------------------------

SIMPLE = {
    **{
        f"int{bits}": lambda rnd, bits=bits: rnd.randrange(-(2 ** (bits - 1)), 2 ** (bits - 1))
        for bits in (8, 16, 32, 64)
    },
    "uint16": lambda rnd: rnd.randrange(2**16),
    "string": lambda rnd: "".join(rnd.choices("aö日\0", k=rnd.choice([0, 1, 5, 150]))),
    "bytes": lambda rnd: rnd.randbytes(rnd.choice([0, 1, 5, 150])),
    "uuid": lambda rnd: uuid.UUID(int=rnd.randrange(1, 2**128)),
    "bool": lambda rnd: rnd.random() < 0.5,
    "error_code": lambda rnd: rnd.choice(list(ErrorCode)),
    "timedelta_i32": lambda rnd: datetime.timedelta(milliseconds=rnd.randrange(2**31)),
}


def drawn(rnd, schema):
    """Draw an entity of a schema of kio's."""
    hints = typing.get_type_hints(schema)
    values = {}
    for each in dataclasses.fields(schema):
        hint = hints[each.name]
        may_be_null = type(None) in typing.get_args(hint)
        if typing.get_origin(hint) in {typing.Union, types.UnionType}:
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        is_array = typing.get_origin(hint) is tuple
        inner = typing.get_args(hint)[0] if is_array else hint
        kind = each.metadata.get("kafka_type")
        if may_be_null and not is_array and kind != "uuid" and rnd.random() < 0.3:
            values[each.name] = None
            continue
        some = [
            drawn(rnd, inner) if dataclasses.is_dataclass(inner) else SIMPLE[kind](rnd)
            for _ in range(rnd.randrange(3) if is_array else 1)
        ]
        values[each.name] = tuple(some) if is_array else some[0]
    return schema(**values)


def plain(value):
    """Return what kio holds as plain values, as the decoder gives them."""
    match value:
        case None:
            return None
        case tuple():
            return tuple(plain(each) for each in value)
        case datetime.timedelta():
            return value // datetime.timedelta(milliseconds=1)
        case uuid.UUID():
            return value.bytes
        case _ if dataclasses.is_dataclass(value):
            return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        case _:
            return value


def written(entity) -> bytes:
    buffer = io.BytesIO()
    entity_writer(type(entity))(buffer, entity)
    return buffer.getvalue()


@each_answer
@over(seeds)
def test_every_answer_is_read_as_kio_wrote_it(key, version, seed):
    """Every field of every version has the value that another implementation put there."""
    entity = drawn(random.Random(seed), load_response_schema(key, version))

    assert plain(entity) == cold.decode(key, written(entity), version)


@each_answer
@over(seeds)
def test_a_torn_answer_is_malformed(key, version, seed):
    """An answer that ends early or goes on too long is refused, wherever it was cut."""
    rnd = random.Random(seed)
    whole = written(drawn(rnd, load_response_schema(key, version)))

    for wrong in (whole[: rnd.randrange(len(whole))], whole + b"\0"):
        with pytest.raises(MalformedError):
            cold.decode(key, wrong, version)


@each_answer
@over(seeds, examples=30)
def test_a_mutated_answer_is_a_value_or_malformed(key, version, seed):
    """Whatever bytes come, the decoder returns or raises MalformedError, and nothing else ever."""
    rnd = random.Random(seed)
    raw = bytearray(written(drawn(rnd, load_response_schema(key, version))))
    for _ in range(rnd.randrange(1, 5)):
        raw[rnd.randrange(len(raw))] = rnd.choice([0, 1, 127, 128, 255, rnd.randrange(256)])
    with contextlib.suppress(MalformedError):
        cold.decode(key, bytes(raw), version)


@each_answer
def test_a_length_beyond_the_answer_reserves_nothing(key, version):
    """An array that claims 2**31 elements in forty bytes costs no memory: kio's reader would end the process."""
    huge = b"\xff\xff\xff\xff\x0f" if load_response_schema(key, version).__flexible__ else b"\x7f\xff\xff\xff"
    refused = 0
    tracemalloc.start()
    for before in range(36):
        try:
            cold.decode(key, bytes(before) + huge + bytes(2), version)
        except MalformedError:
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert refused > 30
    assert peak < 1_000_000


def test_a_null_where_none_may_be_is_malformed():
    """A name that is null is no name: SaslHandshake v1 with one mechanism, whose length is -1."""
    with pytest.raises(MalformedError, match="null"):
        cold.decode(17, b"\0\0" + b"\0\0\0\1" + b"\xff\xff", 1)


def test_a_tagged_field_that_is_longer_than_its_value_is_malformed():
    """ApiVersions v3 with an epoch (tag 1, eight bytes) that claims nine, whatever could be read after it."""
    head = b"\0\0" + b"\1" + bytes(4)
    fine = b"\2" + b"\1\x08" + bytes(8) + b"\x63\0"

    assert 0 == cold.decode(18, head + fine, 3)["finalized_features_epoch"]
    with pytest.raises(MalformedError, match="tagged field 1"):
        cold.decode(18, head + fine.replace(b"\1\x08", b"\1\x09"), 3)


@over(st.binary(max_size=40))
def test_a_subscription_is_topics_or_nothing(data):
    """Clients write these bytes: whatever they are, they are no fault of the answer."""
    assert isinstance(cold.subscribed(data), list)


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        pytest.param(-(2**31), None, id="not said"),
        pytest.param(0, frozenset(), id="none"),
        pytest.param(1 << 8 | 1 << 3, {"READ", "DESCRIBE"}, id="two"),
        pytest.param(1 << 15 | 1 << 20, {"TWO_PHASE_COMMIT", "OPERATION_20"}, id="of a Kafka to come"),
    ],
)
def test_operations_have_the_names_of_kafka(bits, names):
    """The bit of each AclOperation is its code; what was not said is None and never nothing."""
    assert names == cold.operations(bits)


# --- requests as kio reads them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(8, 13))
def test_metadata_asks_for_topics_with_their_operations(version):
    """By name or all of them; never so that a topic is created."""
    schema = load_request_schema(3, version)
    fields = {"include_topic_authorized_operations": True}

    (everything, _) = entity_reader(schema)(cold.encode(3, fields | {"topics": None}, version), 0)
    (named, _) = entity_reader(schema)(cold.encode(3, fields | {"topics": [{"name": "orders"}]}, version), 0)

    assert (None, True, False) == (
        everything.topics, everything.include_topic_authorized_operations, everything.allow_auto_topic_creation
    )  # fmt: skip
    assert ["orders"] == [topic.name for topic in named.topics]


# --- a fake cluster -------------------------------------------------------------------------------------------------


@pytest.fixture
async def fake():
    async with FakeCluster(brokers=2) as cluster:
        cluster.topic("orders", partitions=2)
        cluster.topic("secret", partitions=1)
        cluster.group("billing", {("orders", 0): 0})
        yield cluster


@pytest.fixture
async def brokers(fake):
    cluster = Cluster(bootstrap_servers=fake.bootstrap, timeout_seconds=5)
    asking = Brokers(KafkaTransport(cluster), 5)
    yield asking
    await asking.close()


def address_of(fake, broker=1) -> Address:
    return Address("127.0.0.1", fake.brokers[broker].port)


async def test_topics_that_are_forbidden_are_left_out_and_refused_by_name(fake, brokers):
    """The list of all topics hides them; asked by name each has its error."""
    fake.forbidden_topics.add("secret")

    listed = await cold.describe_topics(brokers, address_of(fake))
    named = await cold.describe_topics(brokers, address_of(fake), ["orders", "secret"])

    assert [("orders", 0, frozenset({"DESCRIBE"}))] == [(each.name, each.error, each.operations) for each in listed]
    assert {"orders": 0, "secret": 29} == {each.name: each.error for each in named}


async def test_topics_say_which_partitions_lack_a_leader(fake, brokers):
    """A partition without a leader is named."""
    fake.topics["orders"].leader[1] = -1

    (orders,) = await cold.describe_topics(brokers, address_of(fake), ["orders"])

    assert (2, (1,)) == (orders.partitions, orders.leaderless)


async def test_a_group_says_what_we_may_do_with_it(fake, brokers):
    """The coordinator's answer holds its state and the operations; a forbidden one its error."""
    fake.group("other", {})
    node = fake.coordinator("billing")
    fake.coordinators |= {"other": node}
    fake.forbidden_groups.add("other")

    groups = await cold.describe_groups(brokers, address_of(fake, node), ["billing", "other"])

    assert {("billing", 0), ("other", 30)} == {(each.name, each.error) for each in groups}
    assert frozenset({"DESCRIBE", "READ", "DELETE"}) == next(e.operations for e in groups if e.name == "billing")


@pytest.mark.parametrize("release", ["2.8", "4.3"])
async def test_coordinators_are_found_by_old_and_new_brokers(release):
    """In one request since Kafka 3.0, one by one before."""
    async with FakeCluster(brokers=2, release=release) as fake:
        groups = [f"g{number}" for number in range(5)]
        for group in groups:
            fake.group(group, {})
        brokers = Brokers(KafkaTransport(Cluster(bootstrap_servers=fake.bootstrap)), 5)
        found = await cold.find_coordinators(brokers, address_of(fake), groups)
        await brokers.close()

        assert {group: fake.coordinator(group) for group in groups} == {k: v.node for k, v in found.items()}
        assert (1 if release == "4.3" else 5) == fake.count("FindCoordinator")


async def test_a_broker_without_describe_cluster_is_asked_by_metadata(fake, brokers):
    """Metadata v8 to v10 says the same where DescribeCluster is missing."""
    fake.brokers[1].versions.pop("DescribeCluster", None)
    facts = await cold.describe_cluster(brokers, address_of(fake))

    assert (fake.cluster_id, frozenset({"DESCRIBE"})) == (facts.id, facts.operations)
    assert {1, 2} == {broker.node for broker in facts.brokers}
    assert frozenset({"DESCRIBE"}) == await cold.authorised_operations(brokers, address_of(fake))


async def test_a_broker_too_old_to_say_says_none(fake, brokers):
    """Without DescribeCluster and Metadata v8 the operations are unknown, which is not the same as none."""
    fake.brokers[1].versions.pop("DescribeCluster", None)
    fake.brokers[1].versions["Metadata"] = (0, 7)

    assert None is await cold.authorised_operations(brokers, address_of(fake))


async def test_what_is_not_offered_is_unsupported(fake, brokers):
    """A broker without the request says so by the reason of the error."""
    with pytest.raises(TransportError) as caught:
        await cold.quorum(brokers, address_of(fake))

    assert Why.UNSUPPORTED == caught.value.why


async def test_a_garbled_answer_is_malformed(fake, brokers):
    """What cannot be decoded is a TransportError with that reason, naming broker and request."""
    from monitor.sandbox.fake import Truncate

    fake.fail("Metadata", Truncate(10))
    with pytest.raises(TransportError) as caught:
        await cold.describe_topics(brokers, address_of(fake))

    assert Why.MALFORMED == caught.value.why
    assert "Metadata" in str(caught.value)
