"""Members of groups that no Python client can join, by raw requests in kio's words, against one broker.

Each knows what it was given and what it has done, so that a monitor can be compared with it. Nothing beats in the
background: a member lives for its session timeout after it was heard last, which is longer than a test.
"""

from __future__ import annotations

import asyncio
import datetime
import io
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self

from kio.index import load_payload_module, load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType
from kio.static.primitive import i8, i16, i32, i64

PATIENCE_SECONDS = 30.0

JOIN_GROUP, SYNC_GROUP, LEAVE_GROUP, METADATA = (11, 9), (14, 5), (13, 5), (3, 12)
SHARE_HEARTBEAT, SHARE_FETCH, SHARE_ACKNOWLEDGE = (76, 1), (78, 1), (79, 1)
STREAMS_HEARTBEAT = (88, 0)
FIND_COORDINATOR, INCREMENTAL_ALTER_CONFIGS = (10, 4), (44, 1)

JOINING, LEAVING = 0, -1
ACCEPT = 1

# Codes that pass by themselves: a coordinator that is not ready yet.
LOADING = {14, 15, 16}
MEMBER_ID_REQUIRED = 79


def part(api: tuple[int, int], name: str, /, **values: Any) -> Any:
    """Make a part of a request."""
    return getattr(load_payload_module(*api, EntityType.request), name)(**values)


def milliseconds(number: int) -> datetime.timedelta:
    return datetime.timedelta(milliseconds=number)


class Connection:
    """A connection to a broker that asks in kio's words."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client_id: str) -> None:
        self._reader, self._writer, self._client_id = reader, writer, client_id

    @classmethod
    async def to(cls, bootstrap: str, client_id: str) -> Self:
        host, port = bootstrap.split(":")
        return cls(*await asyncio.open_connection(host, int(port)), client_id)

    async def ask(self, api: tuple[int, int], **fields: Any) -> Any:
        schema, answered = load_request_schema(*api), load_response_schema(*api)
        with io.BytesIO() as buffer:
            header = schema.__header_schema__(
                request_api_key=i16(api[0]),
                request_api_version=i16(api[1]),
                correlation_id=i32(1),
                client_id=self._client_id,
            )
            entity_writer(type(header))(buffer, header)
            entity_writer(schema)(buffer, schema(**fields))
            frame = buffer.getvalue()
        self._writer.write(struct.pack(">i", len(frame)) + frame)
        (size,) = struct.unpack(">i", await self._reader.readexactly(4))
        answer = await self._reader.readexactly(size)
        entity, _ = entity_reader(answered)(answer, 4 + answered.__header_schema__.__version__)
        return entity

    async def ask_patiently(self, api: tuple[int, int], **fields: Any) -> Any:
        """Ask again and again while the coordinator is not ready."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while int((answer := await self.ask(api, **fields)).error_code) in LOADING:
                await asyncio.sleep(0.1)
        return answer

    async def coordinate(self, group: str) -> None:
        """Wait until the broker coordinates a group: the first question makes the topic for that."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (
                (await self.ask(FIND_COORDINATOR, key_type=i8(0), coordinator_keys=(group,))).coordinators[0].error_code
            ):
                await asyncio.sleep(0.1)

    async def topic_ids(self, *topics: str) -> dict[str, uuid.UUID]:
        wanted = tuple(part(METADATA, "MetadataRequestTopic", topic_id=None, name=topic) for topic in topics)
        answer = await self.ask(
            METADATA,
            topics=wanted,
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
        return {topic.name: topic.topic_id for topic in answer.topics}

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def refuse(answer: Any) -> None:
    assert int(answer.error_code) == 0, answer


class RawMember:
    """The only member of a classic group of any protocol type, such as Connect's ``connect``."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._connection, self.group, self.member_id = connection, group, ""

    async def join(self, protocol_type: str, protocol: str, metadata: bytes, assignment: bytes) -> None:
        """Join as the leader, which hands itself an assignment."""
        asked = {
            "group_id": self.group,
            "session_timeout": milliseconds(40_000),
            "rebalance_timeout": milliseconds(40_000),
            "protocol_type": protocol_type,
            "protocols": (part(JOIN_GROUP, "JoinGroupRequestProtocol", name=protocol, metadata=metadata),),
        }
        await self._connection.coordinate(self.group)
        named = await self._connection.ask_patiently(JOIN_GROUP, member_id="", **asked)
        assert int(named.error_code) == MEMBER_ID_REQUIRED, named
        self.member_id = named.member_id
        joined = await self._connection.ask(JOIN_GROUP, member_id=self.member_id, **asked)
        refuse(joined)
        mine = part(SYNC_GROUP, "SyncGroupRequestAssignment", member_id=self.member_id, assignment=assignment)
        synced = await self._connection.ask(
            SYNC_GROUP,
            group_id=self.group,
            generation_id=joined.generation_id,
            member_id=self.member_id,
            protocol_type=protocol_type,
            protocol_name=protocol,
            assignments=(mine,),
        )
        refuse(synced)

    async def leave(self) -> None:
        me = part(LEAVE_GROUP, "MemberIdentity", member_id=self.member_id)
        refuse(await self._connection.ask(LEAVE_GROUP, group_id=self.group, members=(me,)))


class ShareMember:
    """A member of a share group: what it fetches is its own until it acknowledges it."""

    def __init__(self, connection: Connection, group: str) -> None:
        self._connection, self.group = connection, group
        self.member_id = str(uuid.uuid4())
        self.epoch = JOINING
        self.assigned: dict[str, tuple[int, ...]] = {}
        self.acquired: dict[tuple[str, int], list[tuple[int, int]]] = {}
        """First and last offset of what it was given by (topic, partition), not acknowledged yet."""
        self._ids: dict[str, uuid.UUID] = {}
        self._session = 0

    async def join(self, topics: Mapping[str, int]) -> None:
        """Join, and wait until every partition (topics by their number of them) is assigned."""
        await self._connection.coordinate(self.group)
        self._ids = await self._connection.topic_ids(*topics)
        names = {id_: name for name, id_ in self._ids.items()}
        subscribed: tuple[str, ...] | None = tuple(topics)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while {name: len(numbers) for name, numbers in self.assigned.items()} != dict(topics):
                answer = await self._heartbeat(subscribed)
                refuse(answer)
                self.epoch, subscribed = answer.member_epoch, None
                if answer.assignment is not None:
                    self.assigned = {
                        names[each.topic_id]: tuple(sorted(each.partitions))
                        for each in answer.assignment.topic_partitions
                    }
                await asyncio.sleep(0.05)

    async def _heartbeat(self, topics: Sequence[str] | None) -> Any:
        return await self._connection.ask_patiently(
            SHARE_HEARTBEAT,
            group_id=self.group,
            member_id=self.member_id,
            member_epoch=i32(self.epoch),
            subscribed_topic_names=topics,
        )

    async def fetch(self, topic: str, partition: int, most: int) -> int:
        """Fetch up to so many records of a partition; return how many it was given."""
        asked = part(SHARE_FETCH, "FetchPartition", partition_index=i32(partition), acknowledgement_batches=())
        found = 0
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not found:
                answer = await self._connection.ask(
                    SHARE_FETCH,
                    group_id=self.group,
                    member_id=self.member_id,
                    share_session_epoch=i32(self._session),
                    max_wait=milliseconds(500),
                    min_bytes=i32(1),
                    max_records=i32(most),
                    batch_size=i32(most),
                    topics=(part(SHARE_FETCH, "FetchTopic", topic_id=self._ids[topic], partitions=(asked,)),),
                    forgotten_topics_data=(),
                )
                refuse(answer)
                self._session += 1
                for one in answer.responses:
                    for data in one.partitions:
                        got = [(batch.first_offset, batch.last_offset) for batch in data.acquired_records]
                        self.acquired.setdefault((topic, data.partition_index), []).extend(got)
                        found += sum(last - first + 1 for first, last in got)
        return found

    async def acknowledge(self, topic: str, partition: int, first: int, last: int) -> None:
        """Accept the records from one offset to another, both included."""
        batch = part(
            SHARE_ACKNOWLEDGE,
            "AcknowledgementBatch",
            first_offset=i64(first),
            last_offset=i64(last),
            acknowledge_types=(i8(ACCEPT),),
        )
        of = part(
            SHARE_ACKNOWLEDGE, "AcknowledgePartition", partition_index=i32(partition), acknowledgement_batches=(batch,)
        )
        answer = await self._connection.ask(
            SHARE_ACKNOWLEDGE,
            group_id=self.group,
            member_id=self.member_id,
            share_session_epoch=i32(self._session),
            topics=(part(SHARE_ACKNOWLEDGE, "AcknowledgeTopic", topic_id=self._ids[topic], partitions=(of,)),),
        )
        refuse(answer)
        self._session += 1
        for one in answer.responses:
            for data in one.partitions:
                refuse(data)

    async def leave(self) -> None:
        self.epoch = LEAVING
        refuse(await self._heartbeat(None))


class StreamsMember:
    """A member of a streams group with a topology of one subtopology."""

    SUBTOPOLOGY = "0"

    def __init__(self, connection: Connection, group: str) -> None:
        self._connection, self.group = connection, group
        self.member_id = str(uuid.uuid4())
        self.epoch = JOINING
        self.tasks: tuple[int, ...] = ()

    async def join(self, topics: Sequence[str], tasks: int) -> None:
        """Join with a topology that reads these topics, and wait until so many tasks are active here."""
        subtopology = part(
            STREAMS_HEARTBEAT,
            "Subtopology",
            subtopology_id=self.SUBTOPOLOGY,
            source_topics=tuple(topics),
            state_changelog_topics=(),
            repartition_source_topics=(),
            copartition_groups=(),
        )
        topology = part(STREAMS_HEARTBEAT, "Topology", epoch=i32(1), subtopologies=(subtopology,))
        await self._connection.coordinate(self.group)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.tasks) != tasks:
                answer = await self._heartbeat(topology)
                refuse(answer)
                self.epoch = answer.member_epoch
                if answer.active_tasks is not None:
                    self.tasks = tuple(sorted(p for task in answer.active_tasks for p in task.partitions))
                await asyncio.sleep(0.05)
        # The coordinator waits to hear that its tasks have arrived.
        refuse(await self._heartbeat(topology))

    async def _heartbeat(self, topology: Any = None) -> Any:
        is_new = self.epoch == JOINING
        owned = (part(STREAMS_HEARTBEAT, "TaskIds", subtopology_id=self.SUBTOPOLOGY, partitions=self.tasks),)
        return await self._connection.ask_patiently(
            STREAMS_HEARTBEAT,
            group_id=self.group,
            member_id=self.member_id,
            member_epoch=i32(self.epoch),
            endpoint_information_epoch=i32(0),
            rebalance_timeout=milliseconds(40_000),
            topology=topology if is_new else None,
            active_tasks=owned if self.tasks else (),
            standby_tasks=(),
            warmup_tasks=(),
            process_id="process" if is_new else None,
            client_tags=() if is_new else None,
            task_offsets=None,
            task_end_offsets=None,
        )

    async def leave(self) -> None:
        self.epoch = LEAVING
        refuse(await self._heartbeat())


async def read_share_group_from_the_start(connection: Connection, group: str) -> None:
    """Have a share group read what was there before it: by default it starts at the end."""
    change = part(
        INCREMENTAL_ALTER_CONFIGS,
        "AlterableConfig",
        name="share.auto.offset.reset",
        config_operation=i8(0),
        value="earliest",
    )
    group_type = 32  # ConfigResource.Type.GROUP
    resource = part(
        INCREMENTAL_ALTER_CONFIGS,
        "AlterConfigsResource",
        resource_type=i8(group_type),
        resource_name=group,
        configs=(change,),
    )
    answer = await connection.ask(INCREMENTAL_ALTER_CONFIGS, resources=(resource,), validate_only=False)
    for each in answer.responses:
        refuse(each)
