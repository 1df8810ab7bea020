"""Which groups there are and who is in them: ListGroups each cycle, descriptions when something changed.

The broker that lists a group coordinates it. A list may be short without an error: right after a restart a
coordinator leaves out the groups it has not loaded yet. So a group missing from the lists is not gone before
the coordinator that should have it says so (``offsets`` asks it).

Each kind of group has a description of its own. Which one fits is the type that ListGroups tells from v5 on; before,
every group is taken for a classic one until its coordinator says that it is none.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from monitor.errors import TransportError
from monitor.model import Failure, Member, TopicPartition, Why, why_name
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import (
    HARMLESS,
    MOVING,
    NOT_COORDINATOR,
    Brokers,
    ClusterMap,
    Patience,
    Poll,
    now,
)

CLASSIC = "classic"
CONSUMER = "consumer"
SHARE = "share"
STREAMS = "streams"

GROUP_ID_NOT_FOUND = 69

# States of a group without members (Kafka's GroupState).
WITHOUT_MEMBERS = frozenset({"Empty", "Dead"})

STABLE = "Stable"
REBALANCING = "rebalancing"
"""Every other state with members: a rebalance passes through several, and they tell nothing new of who is there."""

# A description may hold thousands of members: so many groups in one answer are enough.
DESCRIBED_AT_ONCE = 500


class _Description(NamedTuple):
    """How to ask for descriptions of one kind of group."""

    api: wire.Api
    offered: tuple[int, int]
    decode: Callable[[bytes, int], list[wire.DescribedGroup]]


# By type of ListGroups, in lower case.
_DESCRIPTIONS = {
    CLASSIC: _Description(wire.DESCRIBE_GROUPS, (5, 6), wire.decode_describe_groups),
    CONSUMER: _Description(wire.CONSUMER_GROUP_DESCRIBE, (0, 1), wire.decode_consumer_group_describe),
    SHARE: _Description(wire.SHARE_GROUP_DESCRIBE, (1, 1), wire.decode_share_group_describe),
    STREAMS: _Description(wire.STREAMS_GROUP_DESCRIBE, (0, 0), wire.decode_streams_group_describe),
}

Lists = Mapping[int, tuple[wire.ListedGroup, ...]]


@dataclass(slots=True)
class Group:
    """What is known of a group from cycle to cycle.

    While a classic group rebalances, its coordinator says who is there and not what they read: ``assigned``,
    ``subscribed`` and ``assignor`` stay as they were told last, and ``described_at`` is when that was.
    """

    name: str
    nodes: tuple[int, ...]
    """The brokers that list it, or all of them while none does: one of these coordinates it."""
    protocol_type: str | None = None
    state: str | None = None
    type: str | None = None
    listed: bool = True
    """Whether this cycle's lists name it."""
    described: wire.DescribedGroup | None = None
    described_at: float | None = None
    """When that was read, in seconds since the epoch."""
    described_by: int | None = None
    """The broker that described it: of several that list the group, it coordinates it."""
    described_as: str | None = field(default=None, repr=False)
    """The type by which its coordinator described it last, for brokers whose lists tell none."""
    asked_at: float = field(default=float("-inf"), repr=False)
    """When its description was asked for last (of ``now()``)."""
    asked_for: tuple[str | None, str | None] | None = field(default=None, repr=False)
    """Type and phase that the last description is about."""

    @property
    def protocol(self) -> str | None:
        """Return what kind of group it is (a type of ListGroups v5, in lower case), None if nobody told."""
        return self.type or self.described_as

    @property
    def is_share(self) -> bool:
        """Return whether it is a share group (KIP-932), which commits no offsets."""
        return self.type == SHARE

    @property
    def has_members(self) -> bool:
        """Return whether it is there and has members, as far as the lists tell."""
        return self.listed and self.state not in WITHOUT_MEMBERS

    @property
    def members(self) -> int | None:
        """Return how many members it has, None if unknown."""
        if self.state in WITHOUT_MEMBERS:
            return 0
        return len(self.described.members) if self.described is not None else None

    @property
    def owners(self) -> tuple[Member, ...]:
        """Return its members, none where they are unknown."""
        return self.described.members if self.described is not None else ()

    @property
    def assigned(self) -> Mapping[TopicPartition, str]:
        """Return the client id of each assigned partition's member; empty where several members share it."""
        return self.described.assigned if self.described is not None else {}

    @property
    def subscribed(self) -> frozenset[str] | None:
        """Return the topics its members subscribe to, None where that cannot be told."""
        return self.described.subscribed if self.described is not None else None

    @property
    def assignor(self) -> str | None:
        """Return who assigns its partitions, None where that is unknown or there is no choice."""
        return self.described.assignor if self.described is not None else None

    @property
    def epoch(self) -> int | None:
        """Return its group epoch (KIP-848 and later protocols), None where it has none or it is unknown."""
        return self.described.epoch if self.described is not None else None

    @property
    def coordinator(self) -> int | None:
        """Return the broker that coordinates it, None where several say so and nobody asked them yet."""
        if self.described_by in self.nodes:
            return self.described_by
        return self.nodes[0] if len(self.nodes) == 1 else None

    @property
    def phase(self) -> str | None:
        """Return what a description depends on: whether it is stable or rebalances, None where nobody told."""
        return _phase(self.state)


def _phase(state: str | None) -> str | None:
    return state if state in {None, STABLE} else REBALANCING


class GroupKeeper:
    """Knows the groups of a cluster: lists them each cycle and keeps their descriptions.

    Args:
        brokers: Whom to ask.
        describe_interval_seconds: How often unchanged groups are described anew, all of them together.
        takes: Which groups are looked at, by name; of the others nothing is asked, kept or shown.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        brokers: Brokers,
        describe_interval_seconds: float,
        takes: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._brokers = brokers
        self._describe_interval_seconds = describe_interval_seconds
        self._takes = takes
        self._clock = clock
        self._answers: dict[int, tuple[tuple[bytes, int], tuple[int, tuple[wire.ListedGroup, ...]]]] = {}
        self._listed: Lists = {}
        self._everybody: tuple[int, ...] = ()
        self._due: dict[str, None] = {}
        """Groups to be described (anew)."""
        self._beat_at = float("-inf")
        self._failures: dict[str, Failure] = {}
        """Why a group is not described, for as long as it is not asked again."""
        self.groups: dict[str, Group] = {}
        self.version = 0
        """Another number whenever anything of the groups has changed: listed, state, description."""

    async def list(self, poll: Poll, cluster_map: ClusterMap, patience: Patience) -> None:
        """Ask every broker for its groups and update what is known; a broker that fails is an entry of the poll."""
        nodes = [node for node in cluster_map.brokers if node not in poll.down]
        answers = dict(
            zip(nodes, await asyncio.gather(*(self._list(poll, cluster_map, n) for n in nodes)), strict=True)
        )
        while patience.is_left(_moving(answers)):
            await patience.pause()
            for (_, node), _ in _moving(answers):
                answers[node] = await self._list(poll, cluster_map, node)
        for node, answer in answers.items():
            if answer is not None and answer[0]:
                poll.fail("broker", f"{node} ({cluster_map.brokers[node]})", answer[0], "ListGroups")
        lists = {node: answer[1] for node, answer in answers.items() if answer is not None}
        self._update(lists, tuple(cluster_map.brokers))

    async def describe(self, poll: Poll, cluster_map: ClusterMap) -> None:
        """Describe the groups that changed, and at each beat all of them, batched by coordinator.

        A description that fails leaves the members of its group unknown, and is an entry of the poll until they are
        known. What may pass is asked again in the next cycle, the rest at the next beat.
        """
        if now() >= self._beat_at:
            # Those that were described lately for another reason may wait for the next beat.
            old = now() - self._describe_interval_seconds / 2
            self._due |= {g.name: None for g in self.groups.values() if _is_describable(g) and g.asked_at <= old}
            self._beat_at = now() + self._describe_interval_seconds
        if self._due:
            await self._describe_due(poll, cluster_map)
        poll.failures.extend(self._failures.values())

    def forget(self, names: Iterable[str]) -> None:
        """Drop groups that are gone."""
        for name in names:
            if self.groups.pop(name, None) is not None:
                self._undescribe(name)
                self.version += 1

    # --- lists ---

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
        before = self._answers.get(node)
        if before is None or before[0] != (data, version):
            error, listed = wire.decode_list_groups(data, version)
            taken = tuple(group for group in listed if self._takes(group.name))
            before = self._answers[node] = ((data, version), (error, taken))
        return before[1]

    def _update(self, lists: Lists, brokers: tuple[int, ...]) -> None:
        if self._is_unchanged(lists) and brokers == self._everybody:
            return
        self._listed, self._everybody = lists, brokers
        self.version += 1
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
                # Gone, or its coordinator is away or another by now: whoever coordinates it can say which.
                group.state, group.nodes = None, brokers
            self._plan(group)

    def _is_unchanged(self, lists: Lists) -> bool:
        """Return whether every list is the very same as the one before: byte for byte the same answer."""
        return lists.keys() == self._listed.keys() and all(lists[node] is self._listed[node] for node in lists)

    def _plan(self, group: Group) -> None:
        """Plan a description if the group needs one, and drop the one it has if that says nothing any more."""
        if not _is_describable(group):
            group.described = group.described_at = group.asked_for = None
            self._undescribe(group.name)
        elif group.asked_for is None or (group.phase is not None and group.asked_for != (group.type, group.phase)):
            self._due[group.name] = None

    def _undescribe(self, name: str) -> None:
        self._due.pop(name, None)
        self._failures.pop(name, None)

    # --- descriptions ---

    async def _describe_due(self, poll: Poll, cluster_map: ClusterMap) -> None:
        """Ask for each group that is due until one of those that list it describes it; most need one question."""
        open_ = [_Question(self.groups[name]) for name in self._due]
        while open_:
            batches: dict[tuple[int, str], list[_Question]] = defaultdict(list)
            for question in open_:
                node = question.next_node(poll, cluster_map)
                if node is None:
                    self._give_up(question)
                else:
                    batches[node, question.kind].append(question)
            await asyncio.gather(
                *(
                    self._describe(poll, cluster_map, node, kind, batch[first : first + DESCRIBED_AT_ONCE])
                    for (node, kind), batch in batches.items()
                    for first in range(0, len(batch), DESCRIBED_AT_ONCE)
                )
            )
            open_ = [question for batch in batches.values() for question in batch if not question.is_answered]

    async def _describe(
        self, poll: Poll, cluster_map: ClusterMap, node: int, kind: str, questions: Sequence[_Question]
    ) -> None:
        address, (api, offered, decode) = cluster_map.brokers[node], _DESCRIPTIONS[kind]
        names = [question.group.name for question in questions]
        try:
            described = await self._brokers.ask(
                address, api, offered, partial(wire.describe_groups_request, names), decode
            )
        except TransportError as exc:
            is_told = exc.why != Why.UNSUPPORTED  # which says nothing of the broker but what its groups lack
            if is_told:
                poll.failed_aside(node, address, exc)
            for question in questions:
                question.failed(_Reason(exc.why, api.name, is_told))
            return
        answers = {answer.name: answer for answer in described}
        for question in questions:
            answer = answers.get(question.group.name)
            error = Why.MALFORMED if answer is None else _error(answer)
            if answer is None or error:
                question.failed(_Reason(error, api.name))
            else:
                question.is_answered = True
                self._take(question.group, node, kind, _existing(answer, cluster_map) if kind == STREAMS else answer)

    def _take(self, group: Group, node: int, kind: str, answer: wire.DescribedGroup) -> None:
        self._undescribe(group.name)
        self.version += 1
        before = group.described
        if kind == CLASSIC and before is not None and _phase(answer.state) == REBALANCING:
            answer = _as_told_before(answer, before)
        else:
            group.described_at = self._clock()
        group.described = before if answer == before else answer
        group.described_by, group.described_as = node, kind
        group.asked_at, group.asked_for = now(), (group.type, _phase(answer.state))

    def _give_up(self, question: _Question) -> None:
        """Leave the members of a group unknown, with the reason that tells most."""
        group, reason = question.group, question.reason
        if group.described is not None:
            self.version += 1
        group.described = group.described_at = None
        self._failures.pop(group.name, None)
        if reason is None:
            return  # nobody could be asked: it stays due
        if not reason.is_told:
            self._failures[group.name] = Failure("group", group.name, why_name(reason.why), reason.api)
        if reason.why in HARMLESS:  # so it will be the same soon
            self._due.pop(group.name, None)
            group.asked_at, group.asked_for = now(), (group.type, group.phase)


class _Reason(NamedTuple):
    """Why a description failed, at which request, and whether the poll has been told."""

    why: int
    api: str
    is_told: bool = False


class _Question:
    """Asking for one description: of the brokers that list a group one after another, as what fits its type."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.is_answered = False
        self.reason: _Reason | None = None
        self._nodes = sorted(group.nodes, key=lambda node: node != group.described_by)
        self._kinds = self._fitting()

    @property
    def kind(self) -> str:
        """Return as what the group is to be described."""
        return self._kinds[0]

    def next_node(self, poll: Poll, cluster_map: ClusterMap) -> int | None:
        """Return the broker to ask next, None if none is left."""
        while self._nodes and (self._nodes[0] in poll.down or self._nodes[0] not in cluster_map.brokers):
            self._nodes.pop(0)
        return self._nodes[0] if self._nodes else None

    def failed(self, reason: _Reason) -> None:
        """Go on to the next kind, if the broker does not know the group as this one, or to the next broker."""
        # Whoever does not coordinate a group says so, and nothing of it.
        if self.reason is None or self.reason.why == NOT_COORDINATOR:
            self.reason = reason
        if reason.why == GROUP_ID_NOT_FOUND and len(self._kinds) > 1:
            self._kinds.pop(0)
        else:
            self._nodes.pop(0)
            self._kinds = self._fitting()

    def _fitting(self) -> list[str]:
        if self.group.type is not None:
            return [self.group.type]
        # Lists before v5 do not tell, and brokers that old have no other kinds.
        return sorted((CLASSIC, CONSUMER), key=lambda kind: kind != self.group.described_as)


def _is_describable(group: Group) -> bool:
    return group.has_members and (group.type is None or group.type in _DESCRIPTIONS)


def _error(answer: wire.DescribedGroup) -> int:
    """Return why an answer describes nothing: DescribeGroups calls a group that it does not know dead (before v6)."""
    return answer.error or (GROUP_ID_NOT_FOUND if answer.state == "Dead" else 0)


def _as_told_before(answer: wire.DescribedGroup, before: wire.DescribedGroup) -> wire.DescribedGroup:
    """Return a description with what it does not tell during a rebalance as it was before that."""
    had = {member.member_id: member.assigned for member in before.members}
    return dataclasses.replace(
        answer,
        members=tuple(dataclasses.replace(m, assigned=had.get(m.member_id, ())) for m in answer.members),
        assigned=before.assigned,
        subscribed=before.subscribed,
        assignor=before.assignor,
    )


def _existing(answer: wire.DescribedGroup, cluster_map: ClusterMap) -> wire.DescribedGroup:
    """Return the description of a streams group without partitions that its topics do not have.

    A task is the same partition of several topics, which need not have the same number of them.
    """

    def exists(where: TopicPartition) -> bool:
        topic = cluster_map.topics.get(where.topic)
        return topic is None or where.partition < len(topic.partitions)

    if all(map(exists, answer.assigned)):
        return answer
    return dataclasses.replace(
        answer,
        members=tuple(dataclasses.replace(m, assigned=tuple(filter(exists, m.assigned))) for m in answer.members),
        assigned={where: owner for where, owner in answer.assigned.items() if exists(where)},
    )


def _moving(
    answers: Mapping[int, tuple[int, tuple[wire.ListedGroup, ...]] | None],
) -> list[tuple[tuple[str, int], int]]:
    """Return the brokers whose list is about to come: what and why, as Patience wants it."""
    return [
        (("list", node), answer[0]) for node, answer in answers.items() if answer is not None and answer[0] in MOVING
    ]
