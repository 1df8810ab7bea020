"""The fake broker beside a real Kafka that was told the same story: both give the same answers."""

import asyncio
import dataclasses
import datetime
import io
import struct
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.serial import entity_writer
from kio.static.constants import EntityType

from monitor.sandbox.fake import RELEASES, FakeCluster
from monitor.sandbox.fake_answers import API_KEYS, API_NAMES, Header, decode_answer

HOUR = 1_700_000_000_000
METADATA = 'größe, "quoted"'


class Names:
    """Names that no other test of the run uses."""

    def __init__(self):
        unique = uuid.uuid4().hex[:8]
        self.topic, self.group, self.nobody = f"fake-{unique}", f"fake-group-{unique}", f"nobody-{unique}"


async def tell_kafka(bootstrap: str, names: Names) -> None:
    """Write ten records a second apart, and commit once with and once without metadata, as a group without members."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for i in range(10):
            await producer.send_and_wait(names.topic, b"x", partition=0, timestamp_ms=HOUR + i * 1000)
    partition = TopicPartition(names.topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=names.group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([partition])
        await consumer.commit({partition: OffsetAndMetadata(7, METADATA)})
    finally:
        await consumer.stop()


def tell_fake(cluster: FakeCluster, names: Names) -> None:
    cluster.topic(names.topic, 1, records=10, timestamp_ms=HOUR, step_ms=1000)
    cluster.commit(names.group, names.topic, 0, 7, metadata=METADATA)


def part(api, version):
    return load_payload_module(API_KEYS[api], version, EntityType.request)


def list_offsets(version, names, timestamp, *, partition=0, topic=None, isolation=0):
    told = {"current_leader_epoch": -1} if version >= 4 else {}
    p = part("ListOffsets", version).ListOffsetsPartition(partition_index=partition, timestamp=timestamp, **told)
    topics = (part("ListOffsets", version).ListOffsetsTopic(name=topic or names.topic, partitions=(p,)),)
    more = {"isolation_level": isolation} if version >= 2 else {}
    more |= {"timeout": datetime.timedelta(seconds=1)} if version >= 10 else {}
    return {"replica_id": -1, "topics": topics, **more}


def offset_fetch(version, names, group, topics=None):
    if version < 8:
        kind = part("OffsetFetch", version).OffsetFetchRequestTopic
        wanted = topics and tuple(kind(name=name, partition_indexes=ps) for name, ps in topics.items())
        return {"group_id": group, "topics": wanted}
    kind = part("OffsetFetch", version).OffsetFetchRequestTopics
    wanted = topics and tuple(kind(name=name, partition_indexes=ps) for name, ps in topics.items())
    return {"groups": (part("OffsetFetch", version).OffsetFetchRequestGroup(group_id=group, topics=wanted),)}


def metadata(version, topic):
    asked = part("Metadata", version).MetadataRequestTopic
    ids = {"topic_id": None} if version >= 10 else {}
    more = {"allow_auto_topic_creation": False} if version >= 4 else {}
    more |= {"include_topic_authorized_operations": False} if version >= 8 else {}
    more |= {"include_cluster_authorized_operations": False} if 8 <= version <= 10 else {}
    return {"topics": (asked(name=topic, **ids),), **more}


def describe(api, name):
    return {"groups" if api == "DescribeGroups" else "group_ids": (name,), "include_authorized_operations": False}


def share_offsets(version, name):
    kind = part("DescribeShareGroupOffsets", version).DescribeShareGroupOffsetsRequestGroup
    return {"groups": (kind(group_id=name, topics=None),)}


def coordinator(version, name):
    return {"key": name} if version < 4 else {"coordinator_keys": (name,)}


# API, versions, and the fields of the request by version and names
QUESTIONS = [
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -1), "latest"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -2), "earliest"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -3), "newest"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -4), "earliest local"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -5), "latest tiered"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -6), "earliest pending upload"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, HOUR + 4_500), "by time"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, HOUR + 9_001), "later than the last"),
    ("ListOffsets", range(2, 12), lambda v, n: list_offsets(v, n, -1, isolation=1), "last stable"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -1, partition=5), "no such partition"),
    ("ListOffsets", range(1, 12), lambda v, n: list_offsets(v, n, -1, topic=n.nobody), "no such topic"),
    ("OffsetFetch", range(2, 10), lambda v, n: offset_fetch(v, n, n.group), "all of a group"),
    ("OffsetFetch", range(2, 10), lambda v, n: offset_fetch(v, n, n.nobody), "all of nobody"),
    ("OffsetFetch", range(1, 10), lambda v, n: offset_fetch(v, n, n.group, {n.topic: (0, 5)}), "by partition"),
    ("OffsetFetch", range(1, 10), lambda v, n: offset_fetch(v, n, n.nobody, {n.topic: (0,)}), "by partition of nobody"),
    ("Metadata", range(14), lambda v, n: metadata(v, n.topic), "a topic"),
    ("Metadata", range(4, 14), lambda v, n: metadata(v, n.nobody), "no such topic"),
    ("FindCoordinator", range(7), lambda v, n: coordinator(v, n.group), "of a group"),
    ("FindCoordinator", range(7), lambda v, n: coordinator(v, n.nobody), "of nobody"),
    ("DescribeGroups", range(3, 7), lambda _, n: describe("DescribeGroups", n.group), "a group"),
    ("DescribeGroups", range(3, 7), lambda _, n: describe("DescribeGroups", n.nobody), "nobody"),
    ("ConsumerGroupDescribe", range(2), lambda _, n: describe("ConsumerGroupDescribe", n.group), "of another kind"),
    ("ConsumerGroupDescribe", range(2), lambda _, n: describe("ConsumerGroupDescribe", n.nobody), "nobody"),
    ("ShareGroupDescribe", [1], lambda _, n: describe("ShareGroupDescribe", n.group), "of another kind"),
    ("ShareGroupDescribe", [1], lambda _, n: describe("ShareGroupDescribe", n.nobody), "nobody"),
    ("StreamsGroupDescribe", [0], lambda _, n: describe("StreamsGroupDescribe", n.group), "of another kind"),
    ("StreamsGroupDescribe", [0], lambda _, n: describe("StreamsGroupDescribe", n.nobody), "nobody"),
    ("DescribeShareGroupOffsets", range(2), lambda v, n: share_offsets(v, n.group), "of another kind"),
    ("DescribeShareGroupOffsets", range(2), lambda v, n: share_offsets(v, n.nobody), "nobody"),
    ("ListGroups", range(6), lambda *_: {}, "all"),
]


class Client:
    """A connection that asks in kio's words."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, bootstrap: str) -> "Client":
        host, port = bootstrap.split(",", maxsplit=1)[0].split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, api: str, version: int, fields: dict):
        schema = load_request_schema(API_KEYS[api], version)
        with io.BytesIO() as buffer:
            head = schema.__header_schema__
            more = {"client_id": "test"} if head.__version__ >= 1 else {}
            entity_writer(head)(
                buffer, head(request_api_key=API_KEYS[api], request_api_version=version, correlation_id=1, **more)
            )
            entity_writer(schema)(buffer, schema(**fields))
            frame = buffer.getvalue()
        self.writer.write(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        answer = await self.reader.readexactly(size)
        skip = 4 + load_response_schema(API_KEYS[api], version).__header_schema__.__version__
        return decode_answer(Header(API_KEYS[api], version), answer[skip:])

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


# What differs between two clusters that were told the same story.
OWN = {"host", "port", "node_id", "cluster_id", "controller_id", "topic_id", "leader_id", "brokers", "throttle_time"}
OWN |= {"replica_nodes", "isr_nodes", "authorized_operations"}


def common(entity, names: Names):
    """Return what two clusters must agree on: every field but their own ones; of groups only ours."""
    if isinstance(entity, tuple):
        ours = [each for each in entity if getattr(each, "group_id", names.group) in {names.group, names.nobody}]
        return [common(each, names) for each in ours]
    if not dataclasses.is_dataclass(entity):
        return entity
    fields = {f.name: getattr(entity, f.name) for f in dataclasses.fields(entity) if f.name not in OWN}
    if "committed_leader_epoch" in fields:  # the real client commits the epoch that it knows
        fields["committed_leader_epoch"] = "known"
    return {name: common(value, names) for name, value in fields.items()}


@pytest.mark.integration
async def test_the_fake_answers_as_kafka_does(kafka):
    """Every question in every version: the same fields, the same errors, the same numbers."""
    names = Names()
    await tell_kafka(kafka.bootstrap, names)
    differing = {}
    async with FakeCluster() as cluster:
        tell_fake(cluster, names)
        real, fake = await Client.connect(kafka.bootstrap), await Client.connect(cluster.bootstrap)
        for api, versions, fields, what in QUESTIONS:
            for version in versions:
                asked = fields(version, names)
                expected = common(await real.ask(api, version, asked), names)
                actual = common(await fake.ask(api, version, asked), names)
                if expected != actual:
                    differing[f"{api} v{version}: {what}"] = (expected, actual)
        await real.close()
        await fake.close()

    assert {} == differing


@pytest.mark.integration
async def test_the_newest_release_offers_what_kafka_does(kafka):
    """The ranges of the release that the sandbox runs; v0 of ListOffsets and OffsetFetch is long gone."""
    client = await Client.connect(kafka.bootstrap)
    offered = await client.ask("ApiVersions", 0, {})
    await client.close()

    told = {API_NAMES[k.api_key]: (k.min_version, k.max_version) for k in offered.api_keys if k.api_key in API_NAMES}
    assert RELEASES["4.3"] == told
