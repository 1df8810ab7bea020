"""The fake broker misbehaving: every action, over TCP and in process, and the journal of what was asked."""

import asyncio
import dataclasses
import io
import struct

import pytest
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode as KioErrorCode
from kio.serial import entity_writer
from kio.serial.errors import SerialError

from monitor.sandbox.fake import (
    Call,
    Corrupt,
    Delay,
    Disconnect,
    ErrorCode,
    FakeCluster,
    Garbage,
    Hang,
    Header,
    Lie,
    Member,
    Omit,
    Seen,
    Tear,
    Truncate,
)
from monitor.sandbox.fake_answers import API_KEYS, decode_answer


def encoded(api: str, version: int, **fields) -> tuple[Header, bytes]:
    schema = load_request_schema(API_KEYS[api], version)
    with io.BytesIO() as buffer:
        entity_writer(schema)(buffer, schema(**fields))
        return Header(API_KEYS[api], version, 7, "test"), buffer.getvalue()


LIST_GROUPS = encoded("ListGroups", 4)
VERSIONS = encoded("ApiVersions", 0)


def questions(cluster: FakeCluster) -> dict[str, tuple[Header, bytes]]:
    """Return a question about the story's topic or group for every API."""
    offsets = load_module("ListOffsets", 7)
    fetch = load_module("OffsetFetch", 8)
    asked = offsets.ListOffsetsTopic(
        name="orders", partitions=(offsets.ListOffsetsPartition(partition_index=0, timestamp=-1),)
    )
    both = ("billing", "other")
    shares = load_module("DescribeShareGroupOffsets", 1).DescribeShareGroupOffsetsRequestGroup(
        group_id="new", topics=None
    )
    return {
        "ListOffsets": encoded("ListOffsets", 7, replica_id=-1, isolation_level=0, topics=(asked,)),
        "Metadata": encoded("Metadata", 12, topics=None, include_topic_authorized_operations=False),
        "OffsetFetch": encoded(
            "OffsetFetch",
            8,
            groups=tuple(fetch.OffsetFetchRequestGroup(group_id=name, topics=None) for name in both),
        ),
        "FindCoordinator": encoded("FindCoordinator", 4, coordinator_keys=both),
        "DescribeGroups": encoded("DescribeGroups", 5, groups=both, include_authorized_operations=False),
        "ConsumerGroupDescribe": encoded(
            "ConsumerGroupDescribe", 1, group_ids=("new",), include_authorized_operations=False
        ),
        "ShareGroupDescribe": encoded("ShareGroupDescribe", 1, group_ids=("new",), include_authorized_operations=False),
        "StreamsGroupDescribe": encoded(
            "StreamsGroupDescribe", 0, group_ids=("new",), include_authorized_operations=False
        ),
        "DescribeShareGroupOffsets": encoded("DescribeShareGroupOffsets", 1, groups=(shares,)),
        "ListGroups": LIST_GROUPS,
        "ApiVersions": VERSIONS,
    }


def load_module(api, version):
    from kio.index import load_payload_module
    from kio.static.constants import EntityType

    return load_payload_module(API_KEYS[api], version, EntityType.request)


def told(cluster: FakeCluster) -> FakeCluster:
    """Tell the story: one topic, three groups, all at broker 1."""
    cluster.topic("orders", partitions=2, records=100, leaders=1)
    cluster.group("billing", {("orders", 0): 58}, members=[Member("c", {"orders": [0]})], coordinator=1)
    cluster.group("other", {("orders", 1): 7}, coordinator=1)
    cluster.group("new", {}, type="consumer", members=[Member("d", {"orders": [1]})], coordinator=1)
    return cluster


class Client:
    """A client of one connection that speaks in frames."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.headers = []

    @classmethod
    async def connect(cls, cluster: FakeCluster, broker: int = 1) -> "Client":
        host, port = cluster.bootstrap.split(",")[broker - 1].split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def ask(self, question: tuple[Header, bytes]) -> None:
        header, body = question
        schema = load_request_schema(header.api_key, header.version).__header_schema__
        client_id = header.client_id.encode()
        head = struct.pack(">hhih", header.api_key, header.version, header.correlation_id, len(client_id)) + client_id
        frame = head + (b"\0" if schema.__version__ == 2 else b"") + body
        self.headers.append(load_response_schema(header.api_key, header.version).__header_schema__.__version__)
        self.writer.write(struct.pack(">i", len(frame)) + frame)

    async def answer(self) -> bytes:
        """Return what follows the header of the next answer."""
        (size,) = struct.unpack(">i", await self.reader.readexactly(4))
        return (await self.reader.readexactly(size))[4 + self.headers.pop(0) :]

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
async def cluster():
    async with FakeCluster(brokers=2) as running:
        yield told(running)


# --- in process: what each action makes of an answer -----------------------------------------------


async def test_in_process_a_cluster_answers_without_ports():
    """Nothing has to be opened to ask it, and the answer is the same as over TCP."""
    cluster = told(FakeCluster(brokers=2))

    in_process = await cluster.exchange(1, *VERSIONS)

    async with told(FakeCluster(brokers=2)) as served:
        client = await Client.connect(served)
        client.ask(VERSIONS)
        assert in_process == await client.answer()
        await client.close()


async def test_a_delay_is_waited_for_on_the_simulation_s_clock():
    """Delays add up and go to the sleep that is handed in; no real time passes."""
    cluster = told(FakeCluster())
    cluster.fail("ListGroups", Delay(3600.0), Delay(30.0))
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    await cluster.exchange(1, *LIST_GROUPS, sleep=sleep)

    assert [3630.0] == waited


async def test_hanging_never_answers():
    """The answer does not come however long one waits; the request is in the journal all the same."""
    cluster = told(FakeCluster())
    cluster.fail("ListGroups", Hang())

    asking = asyncio.ensure_future(cluster.exchange(1, *LIST_GROUPS))
    await cluster.asked("ListGroups")

    assert (set(), {asking}) == await asyncio.wait([asking], timeout=0)
    asking.cancel()


@pytest.mark.parametrize("action", [Disconnect(), Tear(9)], ids=["instead of an answer", "within the answer"])
async def test_a_broken_connection_is_an_error_in_process(action):
    """Whoever asks in process gets what a socket would say."""
    cluster = told(FakeCluster())
    cluster.fail("ListGroups", action)

    with pytest.raises(ConnectionResetError):
        await cluster.exchange(1, *LIST_GROUPS)


async def test_a_stopped_broker_refuses_in_process():
    """It refuses until it is started again; one that stops while it delays an answer breaks the connection."""
    cluster = told(FakeCluster())
    cluster.stop(1)
    with pytest.raises(ConnectionRefusedError):
        await cluster.exchange(1, *LIST_GROUPS)
    cluster.start(1)

    async def stop_meanwhile(_seconds):
        cluster.stop(1)

    cluster.fail("ListGroups", Delay(1.0))
    with pytest.raises(ConnectionResetError):
        await cluster.exchange(1, *LIST_GROUPS, sleep=stop_meanwhile)


ERRORS = {
    "ListOffsets": lambda e: [(int(p.error_code), p.offset) for t in e.topics for p in t.partitions],
    "Metadata": lambda e: [(int(t.error_code), t.partitions) for t in e.topics],
    "OffsetFetch": lambda e: [(int(g.error_code), g.topics) for g in e.groups],
    "FindCoordinator": lambda e: [(int(c.error_code), c.node_id) for c in e.coordinators],
    "DescribeGroups": lambda e: [(int(g.error_code), g.members) for g in e.groups],
    "ConsumerGroupDescribe": lambda e: [(int(g.error_code), g.members) for g in e.groups],
    "ShareGroupDescribe": lambda e: [(int(g.error_code), g.members) for g in e.groups],
    "StreamsGroupDescribe": lambda e: [(int(g.error_code), g.members) for g in e.groups],
    "DescribeShareGroupOffsets": lambda e: [(int(g.error_code), g.topics) for g in e.groups],
    "ListGroups": lambda e: [(int(e.error_code), e.groups)],
    "ApiVersions": lambda e: [(int(e.error_code), e.api_keys)],
}
BLANK = {"ListOffsets": -1, "FindCoordinator": -1}


@pytest.mark.parametrize("api", ERRORS)
async def test_an_error_code_stands_where_the_api_has_it(api):
    """Each API carries an error in its own place, and nothing beside it."""
    cluster = told(FakeCluster())
    question = questions(cluster)[api]
    cluster.fail(api, ErrorCode(14))

    entity = decode_answer(question[0], await cluster.exchange(1, *question))

    found = ERRORS[api](entity)
    assert [(14, BLANK.get(api, ()))] * len(found) == found
    assert found


@pytest.mark.parametrize("version", [1, 2, 7], ids=["v1: per partition", "v2: once", "v7: once"])
async def test_an_error_code_in_old_offset_fetches(version):
    """Before v8 the error is the answer's, and before v2 each partition's."""
    cluster = told(FakeCluster())
    topic = load_module("OffsetFetch", version).OffsetFetchRequestTopic(name="orders", partition_indexes=(0,))
    question = encoded("OffsetFetch", version, group_id="billing", topics=(topic,))
    cluster.fail("OffsetFetch", ErrorCode(16))

    entity = decode_answer(question[0], await cluster.exchange(1, *question))

    if version == 1:
        ((partition,),) = (topic.partitions for topic in entity.topics)
        assert (16, -1) == (int(partition.error_code), partition.committed_offset)
    else:
        assert (16, ()) == (int(entity.error_code), entity.topics)


async def test_an_error_code_for_named_groups_leaves_the_others_alone():
    """Only the groups named fail."""
    cluster = told(FakeCluster())
    question = questions(cluster)["OffsetFetch"]
    cluster.fail("OffsetFetch", ErrorCode(14, names={"other"}))

    entity = decode_answer(question[0], await cluster.exchange(1, *question))

    assert [("billing", 0, 1), ("other", 14, 0)] == [
        (g.group_id, int(g.error_code), len(g.topics)) for g in entity.groups
    ]


@pytest.mark.parametrize(
    ("api", "action", "left"),
    [
        pytest.param("OffsetFetch", Omit(groups={"billing"}), ["other"], id="a group of OffsetFetch"),
        pytest.param("ListGroups", Omit(groups={"billing", "new"}), ["other"], id="groups of ListGroups"),
        pytest.param("DescribeGroups", Omit(groups={"other"}), ["billing"], id="a group of DescribeGroups"),
        pytest.param("Metadata", Omit(topics={"orders"}), [], id="a topic of Metadata"),
        pytest.param("ListOffsets", Omit(topics={"orders"}), [], id="a topic of ListOffsets"),
    ],
)
async def test_groups_and_topics_can_be_left_out(api, action, left):
    """What is omitted is not in the answer, everything else is."""
    cluster = told(FakeCluster())
    question = questions(cluster)[api]
    cluster.fail(api, action)

    entity = decode_answer(question[0], await cluster.exchange(1, *question))

    entries = entity.groups if hasattr(entity, "groups") else entity.topics
    assert left == [getattr(entry, "group_id", None) or entry.name for entry in entries]


async def test_partitions_can_be_left_out():
    """A partition is left out of the topics named, of every topic if none is."""
    cluster = told(FakeCluster())
    cluster.topic("second", partitions=2)
    question = questions(cluster)["Metadata"]

    async def left():
        entity = decode_answer(question[0], await cluster.exchange(1, *question))
        return {topic.name: [p.partition_index for p in topic.partitions] for topic in entity.topics}

    cluster.fail("Metadata", Omit(topics={"orders"}, partitions={0}), times=1)
    assert {"orders": [1], "second": [0, 1]} == await left()
    cluster.fail("Metadata", Omit(partitions={0}), times=1)
    assert {"orders": [1], "second": [1]} == await left()
    assert {"orders": [0, 1], "second": [0, 1]} == await left()


async def test_a_lie_is_told_in_kio_s_words():
    """The callable gets the entity and returns what is sent instead."""
    cluster = told(FakeCluster())
    question = questions(cluster)["ListGroups"]
    cluster.fail("ListGroups", Lie(lambda e: dataclasses.replace(e, error_code=KioErrorCode(-1), groups=e.groups[:1])))

    entity = decode_answer(question[0], await cluster.exchange(1, *question))

    assert (-1, 1) == (int(entity.error_code), len(entity.groups))


async def test_bytes_can_be_shortened_scrambled_and_flipped():
    """Truncated, random and corrupt bodies differ from the true one just as told, the same in each run."""
    cluster = told(FakeCluster())
    true = await cluster.exchange(1, *LIST_GROUPS)

    async def got(*actions):
        cluster.fail("ListGroups", *actions, times=1)
        return await cluster.exchange(1, *LIST_GROUPS)

    assert true[:10] == await got(Truncate(10))
    assert true[:-3] == await got(Truncate(-3))
    assert (len(true), True) == (len(garbage := await got(Garbage())), garbage == await got(Garbage()))
    assert 5 == len(await got(Garbage(size=5, seed=3)))
    assert bytes([true[0] ^ 1]) + true[1:-1] + bytes([true[-1] ^ 0x80]) == await got(Corrupt(((0, 1), (-1, 0x80))))
    with pytest.raises(SerialError):
        decode_answer(LIST_GROUPS[0], await got(Truncate(10)))
    assert true == await cluster.exchange(1, *LIST_GROUPS)


# --- which requests are met ------------------------------------------------------------------------


async def test_a_fault_meets_the_requests_it_is_scripted_for():
    """API, broker, number of times and predicate all count; cancelling ends it."""
    cluster = told(FakeCluster(brokers=2))
    fault = cluster.fail("ListGroups", ErrorCode(15), broker=1, times=2, when=lambda header, _: header.version == 4)

    async def error(broker=1, version=4):
        question = encoded("ListGroups", version)
        return int(decode_answer(question[0], await cluster.exchange(broker, *question)).error_code)

    assert [0, 0, 15, 15, 0] == [await error(2), await error(version=3), await error(), await error(), await error()]
    assert 2 == fault.happened
    unbounded = cluster.fail(None, ErrorCode(15))
    assert [15, 15] == [await error(), await error(2)]
    unbounded.cancel()
    assert 0 == await error()


async def test_faults_add_up():
    """Two faults that meet a request apply one after another."""
    cluster = told(FakeCluster())
    cluster.fail("ListGroups", Omit(groups={"new"}))
    cluster.fail("ListGroups", Omit(groups={"other"}))

    entity = decode_answer(LIST_GROUPS[0], await cluster.exchange(1, *LIST_GROUPS))

    assert ["billing"] == [group.group_id for group in entity.groups]


async def test_a_call_changes_the_truth_just_before_the_answer():
    """A topic can go, a coordinator move or a broker die the moment a request arrives."""
    cluster = told(FakeCluster(brokers=2))
    cluster.fail("OffsetFetch", Call(lambda: cluster.move_coordinator("billing", 2)), times=1)
    question = questions(cluster)["OffsetFetch"]

    entity = decode_answer(question[0], await cluster.exchange(1, *question))

    assert [16, 0] == [int(group.error_code) for group in entity.groups]


async def test_the_journal_has_every_request():
    """API, version, broker, size and client of each, at the cluster's own time."""
    cluster = told(FakeCluster(brokers=2, clock=lambda: 12.5))

    await cluster.exchange(2, *LIST_GROUPS)
    await cluster.exchange(1, *VERSIONS)

    expected = [Seen(12.5, 2, "ListGroups", 4, len(LIST_GROUPS[1]), "test"), Seen(12.5, 1, "ApiVersions", 0, 0, "test")]
    assert expected == cluster.journal
    assert (2, 1, 1, 0) == (
        cluster.count(),
        cluster.count("ListGroups"),
        cluster.count(broker=1),
        cluster.count("ListGroups", broker=1),
    )


# --- over TCP --------------------------------------------------------------------------------------


async def test_requests_of_a_connection_are_answered_in_turn(cluster):
    """A delayed answer holds up the ones behind it on the same connection, and no other connection."""
    release = asyncio.Event()
    fault = cluster.fail("ListGroups", Hang(), when=lambda *_: not release.is_set())
    slow, quick = await Client.connect(cluster), await Client.connect(cluster)

    slow.ask(LIST_GROUPS)
    slow.ask(VERSIONS)
    await cluster.asked("ListGroups")
    quick.ask(VERSIONS)
    await quick.answer()

    assert 1 == cluster.count("ApiVersions")
    fault.cancel()
    await slow.close()
    await quick.close()


async def test_delay_over_tcp_answers_in_the_end(cluster):
    """The answer is the usual one."""
    cluster.fail("ListGroups", Delay(0.01))
    client = await Client.connect(cluster)

    client.ask(LIST_GROUPS)

    assert await cluster.exchange(1, *LIST_GROUPS, sleep=asyncio.sleep) == await client.answer()
    await client.close()


async def test_disconnect_and_tear_over_tcp(cluster):
    """The connection ends before the answer, or within it."""
    for action, received in ((Disconnect(), 0), (Tear(9), 9)):
        cluster.fail("ListGroups", action, times=1)
        client = await Client.connect(cluster)
        client.ask(LIST_GROUPS)

        assert received == len(await client.reader.read())

        await client.close()


async def test_a_truncated_answer_is_well_framed(cluster):
    """Size and correlation id fit what is sent, so that only the decoder can tell."""
    cluster.fail("ListGroups", Truncate(6), times=1)
    client = await Client.connect(cluster)
    client.ask(LIST_GROUPS)
    client.ask(LIST_GROUPS)

    short, whole = await client.answer(), await client.answer()

    assert whole[: len(short)] == short
    assert len(short) == 6
    await client.close()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\x80\0\0\0", id="a negative size"),
        pytest.param(struct.pack(">ihhi", 8, 9, 99, 1), id="a version that is not offered"),
        pytest.param(struct.pack(">ihhih", 10, 1, 4, 1, -1), id="an API that is not there"),
        pytest.param(struct.pack(">ih", 2, 3), id="less than a header"),
    ],
)
async def test_what_is_no_request_ends_the_connection(cluster, sent):
    """As Kafka does: no answer, connection closed."""
    client = await Client.connect(cluster)

    client.writer.write(sent)

    assert b"" == await client.reader.read()
    await client.close()


async def test_a_stopped_broker_refuses_and_comes_back_on_its_port(cluster):
    """Stopping breaks its connections and no other's; starting opens the same port."""
    one, two = await Client.connect(cluster, 1), await Client.connect(cluster, 2)
    before = cluster.bootstrap
    one.ask(VERSIONS)
    await one.answer()

    cluster.stop(1)

    assert b"" == await one.reader.read()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(cluster, 1)
    two.ask(VERSIONS)
    await two.answer()
    cluster.start(1)
    again = await Client.connect(cluster, 1)
    again.ask(VERSIONS)
    await again.answer()
    assert before == cluster.bootstrap
    for client in (one, two, again):
        await client.close()


async def test_a_paused_broker_accepts_and_answers_when_it_goes_on(cluster):
    """Nothing is read while it is paused; what was asked meanwhile is answered afterwards."""
    cluster.pause(1)
    client = await Client.connect(cluster)
    client.ask(VERSIONS)
    waiting = asyncio.ensure_future(client.answer())
    other = await Client.connect(cluster, 2)
    other.ask(VERSIONS)
    await other.answer()
    assert (0, False) == (cluster.count(broker=1), waiting.done())

    cluster.resume(1)

    assert await waiting
    await client.close()
    await other.close()


async def test_a_broker_that_dies_on_a_request_does_not_answer_it(cluster):
    """Stopped by a call in the middle of a request, it takes the answer along."""
    cluster.fail("ListGroups", Call(lambda: cluster.stop(1)))
    client = await Client.connect(cluster)

    client.ask(LIST_GROUPS)

    assert b"" == await client.reader.read()
    await client.close()


async def test_healing_takes_every_fault_back(cluster):
    """Faults, stopped and paused brokers are all well again."""
    cluster.fail(None, Disconnect())
    cluster.pause(1)
    cluster.stop(2)

    cluster.heal()

    for broker in (1, 2):
        client = await Client.connect(cluster, broker)
        client.ask(VERSIONS)
        await client.answer()
        await client.close()


async def test_nothing_is_left_behind():
    """Leaving the cluster closes its ports and ends its tasks, connections that hang among them."""
    before = asyncio.all_tasks()
    async with told(FakeCluster(brokers=3)) as cluster:
        cluster.fail(None, Hang())
        client = await Client.connect(cluster)
        client.ask(VERSIONS)
        await cluster.asked()

    assert b"" == await client.reader.read()
    assert before == asyncio.all_tasks()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(cluster)
    await client.close()


async def test_a_broker_stopped_before_the_ports_open_is_stopped_afterwards():
    """It has an address, which refuses."""
    cluster = FakeCluster(brokers=2)
    cluster.stop(2)
    async with cluster:
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(cluster, 2)
        await (await Client.connect(cluster, 1)).close()
