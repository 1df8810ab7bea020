"""Another client of a cluster, that sees it without the monitor: raw requests by kio's schemas, one connection each.

It asks brokers at their own addresses, whatever is done to the network of the monitor, and raises ``NotToldError`` for
whatever a broker does not tell within ``ANSWER_SECONDS``. librdkafka's AdminClient can abort the interpreter when
brokers hang in the middle of a call, which is what these tests have them do.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from kio.schema.alter_partition_reassignments.v0 import request as alter_request
from kio.schema.alter_partition_reassignments.v0.response import AlterPartitionReassignmentsResponse
from kio.schema.describe_quorum.v0 import request as quorum_request
from kio.schema.describe_quorum.v0.response import DescribeQuorumResponse
from kio.schema.find_coordinator.v4.request import FindCoordinatorRequest
from kio.schema.find_coordinator.v4.response import FindCoordinatorResponse
from kio.schema.list_offsets.v7 import request as list_offsets_request
from kio.schema.list_offsets.v7.response import ListOffsetsResponse
from kio.schema.metadata.v12.request import MetadataRequest
from kio.schema.metadata.v12.response import MetadataResponse
from kio.schema.offset_commit.v8 import request as commit_request
from kio.schema.offset_commit.v8.response import OffsetCommitResponse
from kio.schema.offset_fetch.v8 import request as fetch_request
from kio.schema.offset_fetch.v8.response import OffsetFetchResponse
from kio.schema.response_header.v1.header import ResponseHeader
from kio.serial import entity_reader, entity_writer

from monitor.model import TopicPartition

ANSWER_SECONDS = 2.0

LATEST = -1
REASSIGNED = {0, 60}  # 60: REASSIGNMENT_IN_PROGRESS, asked for before


class NotToldError(Exception):
    """A broker did not answer, or answered an error."""


@dataclass(frozen=True)
class Standing:
    """Which brokers there are, who leads and replicates what and who coordinates whom, as one broker knows it."""

    brokers: frozenset[int]
    leaders: Mapping[TopicPartition, int]
    replicas: Mapping[TopicPartition, tuple[int, ...]]
    in_sync: Mapping[TopicPartition, frozenset[int]]
    coordinators: Mapping[str, int]


class Witness:
    """Asks brokers by id; ``addresses`` are their own."""

    def __init__(self, addresses: Mapping[int, str]) -> None:
        self._addresses = dict(addresses)

    async def standing(self, groups: Iterable[str], live: Collection[int]) -> Standing:
        """Ask the first of the live brokers that tells who leads, replicates and coordinates."""
        return await self._first(live, lambda node: self._standing(node, tuple(groups)))

    async def controller(self, live: Collection[int]) -> int:
        """Return the leader of the controllers (KIP-595); Metadata names any broker in KRaft."""

        async def ask(node: int) -> int:
            partition = quorum_request.PartitionData(partition_index=0)
            topic = quorum_request.TopicData(topic_name="__cluster_metadata", partitions=(partition,))
            answer = await self._ask(
                node, quorum_request.DescribeQuorumRequest(topics=(topic,)), DescribeQuorumResponse
            )
            found = answer.topics[0].partitions[0]
            if found.error_code or found.leader_id < 0:
                raise NotToldError(f"broker {node} knows no controller: {found.error_code!r}")
            return int(found.leader_id)

        return await self._first(live, ask)

    async def coordinator(self, group: str, live: Collection[int]) -> int | None:
        """Return who coordinates a group, None if nobody tells."""
        try:
            return (await self._first(live, lambda node: self._coordinators(node, (group,))))[group]
        except NotToldError:
            return None

    async def committed(self, node: int, groups: Iterable[str]) -> dict[str, dict[TopicPartition, int]]:
        """Return what a coordinator says that groups have committed."""
        wanted = tuple(fetch_request.OffsetFetchRequestGroup(group_id=group, topics=None) for group in groups)
        answer = await self._ask(node, fetch_request.OffsetFetchRequest(groups=wanted), OffsetFetchResponse)
        for group in answer.groups:
            if group.error_code:
                raise NotToldError(f"broker {node} on group {group.group_id}: {group.error_code!r}")
        return {
            group.group_id: {
                TopicPartition(topic.name, int(partition.partition_index)): int(partition.committed_offset)
                for topic in group.topics
                for partition in topic.partitions
            }
            for group in answer.groups
        }

    async def ends(self, node: int, places: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return what a leader says where the logs of partitions end."""
        topics = tuple(
            list_offsets_request.ListOffsetsTopic(
                name=topic,
                partitions=tuple(
                    list_offsets_request.ListOffsetsPartition(partition_index=number, timestamp=LATEST)
                    for number in numbers
                ),
            )
            for topic, numbers in _by_topic(places).items()
        )
        question = list_offsets_request.ListOffsetsRequest(replica_id=-1, isolation_level=0, topics=topics)
        answer = await self._ask(node, question, ListOffsetsResponse)
        found = {}
        for topic in answer.topics:
            for partition in topic.partitions:
                if partition.error_code:
                    raise NotToldError(f"broker {node} on {topic.name}: {partition.error_code!r}")
                found[TopicPartition(topic.name, int(partition.partition_index))] = int(partition.offset)
        return found

    async def commit(self, group: str, offsets: Mapping[TopicPartition, int], live: Collection[int]) -> None:
        """Commit for a group without members; returns once its coordinator acknowledged all of it."""
        node = (await self._first(live, lambda asked: self._coordinators(asked, (group,))))[group]
        topics = tuple(
            commit_request.OffsetCommitRequestTopic(
                name=topic,
                partitions=tuple(
                    commit_request.OffsetCommitRequestPartition(
                        partition_index=number,
                        committed_offset=offsets[TopicPartition(topic, number)],
                        committed_metadata="",
                    )
                    for number in numbers
                ),
            )
            for topic, numbers in _by_topic(offsets).items()
        )
        question = commit_request.OffsetCommitRequest(
            group_id=group, generation_id_or_member_epoch=-1, member_id="", group_instance_id=None, topics=topics
        )
        answer = await self._ask(node, question, OffsetCommitResponse)
        refused = [p.error_code for topic in answer.topics for p in topic.partitions if p.error_code]
        if refused:
            raise NotToldError(f"broker {node} refused a commit of {group}: {refused[0]!r}")

    async def move(self, replicas: Mapping[TopicPartition, tuple[int, ...]], live: Collection[int]) -> None:
        """Have partitions move to other brokers, the first of which is to lead (KIP-455); they move afterwards."""
        topics = tuple(
            alter_request.ReassignableTopic(
                name=topic,
                partitions=tuple(
                    alter_request.ReassignablePartition(
                        partition_index=number, replicas=replicas[TopicPartition(topic, number)]
                    )
                    for number in numbers
                ),
            )
            for topic, numbers in _by_topic(replicas).items()
        )
        limit = datetime.timedelta(seconds=ANSWER_SECONDS)
        question = alter_request.AlterPartitionReassignmentsRequest(timeout=limit, topics=topics)

        async def ask(node: int) -> None:
            answer = await self._ask(node, question, AlterPartitionReassignmentsResponse)
            refused = [p.error_code for topic in answer.responses for p in topic.partitions]
            for code in (answer.error_code, *refused):
                if code not in REASSIGNED:
                    raise NotToldError(f"broker {node} refused to reassign: {code!r}")

        await self._first(live, ask)

    async def _standing(self, node: int, groups: tuple[str, ...]) -> Standing:
        answer = await self._ask(
            node, MetadataRequest(topics=None, include_topic_authorized_operations=False), MetadataResponse
        )
        parts = {
            TopicPartition(topic.name, int(part.partition_index)): part
            for topic in answer.topics
            for part in topic.partitions
        }
        return Standing(
            frozenset(int(broker.node_id) for broker in answer.brokers),
            {where: int(part.leader_id) for where, part in parts.items()},
            {where: tuple(map(int, part.replica_nodes)) for where, part in parts.items()},
            {where: frozenset(map(int, part.isr_nodes)) for where, part in parts.items()},
            await self._coordinators(node, groups),
        )

    async def _coordinators(self, node: int, groups: tuple[str, ...]) -> dict[str, int]:
        answer = await self._ask(node, FindCoordinatorRequest(coordinator_keys=groups), FindCoordinatorResponse)
        for each in answer.coordinators:
            if each.error_code:
                raise NotToldError(f"broker {node} on the coordinator of {each.key}: {each.error_code!r}")
        return {each.key: int(each.node_id) for each in answer.coordinators}

    async def _first(self, live: Collection[int], ask: Any) -> Any:
        error: NotToldError | None = None
        for node in sorted(live):
            try:
                return await ask(node)
            except NotToldError as exc:
                error = exc
        raise error or NotToldError("no broker is left to ask")

    async def _ask(self, node: int, question: Any, schema: Any) -> Any:
        host, _, port = self._addresses[node].rpartition(":")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await _exchange(host, int(port), question, schema)
        except (OSError, TimeoutError, EOFError) as exc:
            raise NotToldError(f"broker {node}: {exc!r}") from exc


async def _exchange(host: str, port: int, question: Any, schema: Any) -> Any:
    header = question.__header_schema__(
        request_api_key=question.__api_key__,
        request_api_version=question.__version__,
        correlation_id=1,
        client_id="witness",
    )
    buffer = BytesIO()
    entity_writer(type(header))(buffer, header)
    entity_writer(type(question))(buffer, question)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(len(buffer.getvalue()).to_bytes(4, "big") + buffer.getvalue())
        body = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
    finally:
        writer.transport.abort()
    _, start = entity_reader(ResponseHeader)(body, 0)
    answer, _ = entity_reader(schema)(body, start)
    return answer


def _by_topic(places: Iterable[TopicPartition]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for topic, partition in places:
        found[topic].append(partition)
    return found
