"""Which groups there are and who is in them: ListGroups each cycle, descriptions when something changed.

The broker that lists a group coordinates it. A list may be short without an error: right after a restart a
coordinator leaves out the groups it has not loaded yet. So a group missing from the lists is not gone before
the coordinator that should have it says so (``offsets`` asks it).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import MOVING, PAUSE_SECONDS, Brokers, ClusterMap, Patience, Poll, now

SHARE = "share"
CONSUMER = "consumer"

# States of a group without members (Kafka's GroupState).
WITHOUT_MEMBERS = frozenset({"Empty", "Dead"})

# A description may hold thousands of members: so many groups in one answer are enough.
DESCRIBED_AT_ONCE = 500


@dataclass(slots=True)
class Group:
    """What is known of a group from cycle to cycle."""

    name: str
    nodes: tuple[int, ...]
    """The brokers that listed it last, in this cycle or before."""
    protocol_type: str | None = None
    state: str | None = None
    type: str | None = None
    listed: bool = True
    """Whether this cycle's lists name it."""
    observed_at: float | None = None
    described: wire.DescribedGroup | None = None
    described_state: str | None = None
    described_at: float = field(default=float("-inf"))

    @property
    def is_share(self) -> bool:
        """Return whether it is a share group (KIP-932), which commits no offsets."""
        return self.type == SHARE

    @property
    def members(self) -> int | None:
        """Return how many members it has, None if unknown."""
        if self.state in WITHOUT_MEMBERS:
            return 0
        return len(self.described.members) if self.described is not None else None

    def is_description_due(self, interval_seconds: float) -> bool:
        """Return whether it has to be described (anew)."""
        if not self.listed or self.state in WITHOUT_MEMBERS or self.type not in {None, "classic", CONSUMER}:
            return False
        return self.state != self.described_state or now() - self.described_at >= interval_seconds


class GroupKeeper:
    """Knows the groups of a cluster: lists them each cycle and keeps their descriptions."""

    def __init__(self, brokers: Brokers, describe_interval_seconds: float) -> None:
        self._brokers = brokers
        self._describe_interval_seconds = describe_interval_seconds
        self._lists: dict[int, tuple[tuple[bytes, int], tuple[int, tuple[wire.ListedGroup, ...]]]] = {}
        self.groups: dict[str, Group] = {}

    async def list(self, poll: Poll, cluster_map: ClusterMap, patience: Patience) -> None:
        """Ask every broker for its groups and update what is known; a broker that fails is an entry of the poll."""
        nodes = [node for node in cluster_map.brokers if node not in poll.down]
        answers = dict(
            zip(nodes, await asyncio.gather(*(self._list(poll, cluster_map, n) for n in nodes)), strict=True)
        )
        while patience.is_left(_moving(answers)):
            await asyncio.sleep(PAUSE_SECONDS)
            for (_, node), _ in _moving(answers):
                answers[node] = await self._list(poll, cluster_map, node)
        for node, answer in answers.items():
            if answer is not None and answer[0]:
                poll.fail("broker", f"{node} ({cluster_map.brokers[node]})", answer[0], "ListGroups")
        self._update({node: answer[1] for node, answer in answers.items() if answer is not None})

    async def describe(self, poll: Poll, cluster_map: ClusterMap) -> None:
        """Describe the groups that changed their state or were described too long ago, batched by coordinator."""
        due: dict[tuple[int, bool], list[str]] = defaultdict(list)
        for group in self.groups.values():
            if group.is_description_due(self._describe_interval_seconds):
                due[group.nodes[0], group.type == CONSUMER].append(group.name)
            elif group.state in WITHOUT_MEMBERS or not group.listed:
                group.described = group.described_state = None
        await asyncio.gather(
            *(
                self._describe(poll, cluster_map, node, names[first : first + DESCRIBED_AT_ONCE], is_consumer=kind)
                for (node, kind), names in due.items()
                for first in range(0, len(names), DESCRIBED_AT_ONCE)
                if node not in poll.down and node in cluster_map.brokers
            )
        )

    def forget(self, names: Iterable[str]) -> None:
        """Drop groups that are gone."""
        for name in names:
            self.groups.pop(name, None)

    async def _list(
        self, poll: Poll, cluster_map: ClusterMap, node: int
    ) -> tuple[int, tuple[wire.ListedGroup, ...]] | None:
        address = cluster_map.brokers[node]
        try:
            return await self._brokers.ask(
                address, wire.LIST_GROUPS, (3, 5), wire.list_groups_request, partial(self._decode, node)
            )
        except TransportError as exc:
            poll.broker_failed(node, address, exc)
            return None

    def _decode(self, node: int, data: bytes, version: int) -> tuple[int, tuple[wire.ListedGroup, ...]]:
        before = self._lists.get(node)
        if before is None or before[0] != (data, version):
            before = self._lists[node] = ((data, version), wire.decode_list_groups(data, version))
        return before[1]

    def _update(self, lists: Mapping[int, Sequence[wire.ListedGroup]]) -> None:
        nodes: dict[str, tuple[int, ...]] = {}
        for group in self.groups.values():
            group.listed = False
        for node, listed in lists.items():
            for name, protocol_type, state, kind in listed:
                nodes[name] = (*nodes.get(name, ()), node)
                group = self.groups.get(name) or Group(name, ())
                group.nodes = nodes[name]
                group.protocol_type, group.state = protocol_type, state
                group.type = None if kind is None else kind.lower()
                group.listed = True
                self.groups[name] = group
        for group in self.groups.values():
            if not group.listed:
                group.state = None

    async def _describe(
        self, poll: Poll, cluster_map: ClusterMap, node: int, names: Sequence[str], *, is_consumer: bool
    ) -> None:
        address = cluster_map.brokers[node]
        api, offered = (wire.CONSUMER_GROUP_DESCRIBE, (0, 1)) if is_consumer else (wire.DESCRIBE_GROUPS, (5, 6))
        decode: Callable[[bytes, int], list[wire.DescribedGroup]] = (
            wire.decode_consumer_group_describe if is_consumer else wire.decode_describe_groups
        )
        try:
            described = await self._brokers.ask(
                address, api, offered, partial(wire.describe_groups_request, names), decode
            )
        except TransportError as exc:
            poll.broker_failed(node, address, exc)
            described = []
        answers = {group.name: group for group in described}
        for name in names:
            group, answer = self.groups[name], answers.get(name)
            if answer is None or answer.error:
                if described:
                    poll.note("group", name, Why.MALFORMED if answer is None else answer.error, api.name)
                group.described = group.described_state = None
            else:
                group.described, group.described_state = answer, group.state
                group.described_at = now()


def _moving(
    answers: Mapping[int, tuple[int, tuple[wire.ListedGroup, ...]] | None],
) -> list[tuple[tuple[str, int], int]]:
    """Return the brokers whose list is about to come: what and why, as Patience wants it."""
    return [
        (("list", node), answer[0]) for node, answer in answers.items() if answer is not None and answer[0] in MOVING
    ]
