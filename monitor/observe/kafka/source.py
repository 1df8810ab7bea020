"""One Kafka cluster read once a cycle: the only thing of this room that the service knows.

    groups -> commits -> roster -> log starts and ends -> positions -> snapshot

Commits are read before ends, so that a commit beyond the end is a finding and never the order of reading. Requests
grow with brokers: one ListGroups a broker, one OffsetFetch a coordinator, three ListOffsets a leader; the map of the
cluster and the descriptions of groups are read anew only when they are due or proved wrong.

Whatever could not be read is unknown with its reason in this very cycle. A group that its coordinator did not answer
for keeps its rows, so that it is unknown and not gone; it is gone when a coordinator answered and has nothing of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from monitor.errors import TransportError, UnreachableError
from monitor.model import (
    UNKNOWN,
    Consumer,
    Failure,
    Floats,
    Found,
    GroupFacts,
    Int32s,
    Int64s,
    KafkaSnapshot,
    Kind,
    Lookups,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    TopicPartition,
    Why,
)
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import Brokers, ClusterMap, MapKeeper, Patience, Poll, Rows, lay_out, leaders
from monitor.observe.kafka.commits import Commits, Joined
from monitor.observe.kafka.ends import END, STABLE, START, Ask, EndReader, Ends
from monitor.observe.kafka.groups import Group, GroupKeeper
from monitor.observe.kafka.positions import Plan, Sources, keep, used_partitions
from monitor.observe.kafka.quiet import RestfulReader
from monitor.observe.kafka.share import NOTHING, ShareReader
from monitor.observe.kafka.takeover import Takeovers
from monitor.observe.kafka.transport import KafkaTransport, Transport, addresses
from monitor.observe.kafka.visibility import Visibility
from monitor.observe.kafka.wire import Shape, Topic
from monitor.settings import Cluster

WITHIN = 0.8
"""The share of the interval that the requests of one cycle may take together, so that the next begins in time."""

ADVICE = "check bootstrap_servers, security_protocol and that the brokers run"

LOG_IN_REFUSED = frozenset({33, 58})
"""UNSUPPORTED_SASL_MECHANISM and SASL_AUTHENTICATION_FAILED: the brokers are there, and the text says what to do."""

VISIBILITY_SECONDS = 300.0
"""How often the cluster is asked whether it shows us all there is."""

T = TypeVar("T")
N = TypeVar("N", bound=np.generic)


class KafkaSource:
    """Reads one cluster. Not for two cycles at once: the service runs one at a time."""

    def __init__(
        self, cluster: Cluster, *, transport: Transport | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._brokers = Brokers(transport or KafkaTransport(cluster), cluster.timeout_seconds)
        self._map = MapKeeper(
            self._brokers, addresses(cluster.bootstrap_servers), cluster.metadata_interval_seconds, cluster.topics
        )
        self._groups = GroupKeeper(self._brokers, cluster.describe_interval_seconds, cluster.groups.takes, clock)
        self._takeovers = Takeovers(self._brokers)
        self._commits = RestfulReader(self._brokers, clock, self._takeovers)
        self._shares = ShareReader(self._brokers, clock)
        self._share_offsets = NOTHING
        self._joined = Joined()
        self._roster = Roster(self._groups, None)
        self._ends = EndReader(self._brokers, clock)
        self._visibility = Visibility(self._brokers, VISIBILITY_SECONDS)
        self._patience = Patience(cluster.timeout_seconds)
        self._rows = _RowKeeper(self._map)
        self._plan: Plan | None = None
        self._kept: tuple[Mapping[str, int], Shape] = ({}, _nothing_kept())
        self._ends_before: PartitionColumns | None = None
        self._positions_before: PositionColumns | None = None
        self._lookups = _LookupReader(self._brokers, self._map)
        self._late: list[Failure] = []
        self._counted: Counter[str] = Counter()

    async def observe(self) -> KafkaSnapshot:
        """Read the cluster once. Never raises for what a broker does: that is a failure in the snapshot."""
        started_at, poll = self._clock(), Poll(failures=self._late)
        self._late = []
        self._patience.start()
        self._brokers.begin(max(self._cluster.timeout_seconds, WITHIN * self._cluster.interval_seconds))

        commits = await self._read_commits(poll)
        roster = self._current_roster()
        while True:
            sources = self._sources(roster, commits)
            rows, errors = await self._rows.lay_out(poll, sources)
            ends = await self._ends.read(poll, self._map, self._patience, rows, errors)
            partitions = _partitions(rows, ends, self._ends_before)
            if not self._commits.is_outdated_by(partitions, self._ends_before):
                break
            commits = self._joined.join(
                await self._commits.read_the_rest(poll, self._map, self._patience), self._share_offsets
            )
        positions = self._positions(sources, rows, partitions)
        self._commits.learn(positions, partitions, self._ends_before)
        if self._went_back(partitions, positions):
            # A topic may have been created again: whose these numbers are is told by the ids of now.
            await self._map.refresh(poll)
        self._ends_before, self._positions_before = partitions, positions

        _note_unread(poll, commits, partitions, positions)
        self._brokers.end()
        self._lookups.skip = dict(poll.down)
        if not poll.up:
            # Whatever is away may come back elsewhere: the next cycle starts from a fresh map.
            self._map.expire()
        return KafkaSnapshot(
            cluster=self._cluster.name,
            started_at=started_at,
            at=self._clock(),
            up=poll.up,
            partitions=partitions,
            positions=positions,
            groups=roster.facts(commits),
            read_at=roster.read_at(commits),
            failures=tuple(poll.failures),
            requests=self._requests(),
            topic_ids=self._map.map.topic_ids,
            findings=self._visibility.findings(roster.wanted, errors),
        )

    async def look_up(self, wanted: Lookups) -> Found:
        """Ask the leaders which record is the first at or after each time; what is not answered has its reason."""
        found, failures = await self._lookups.read(wanted)
        self._late += failures
        return found

    @property
    def received_bytes(self) -> Mapping[str, int]:
        """Return the bytes of all answers so far, by API."""
        return self._brokers.received_bytes

    async def check(self) -> None:
        """Make sure that a broker answers.

        Raises:
            UnreachableError: None of the configured addresses does: what was tried, and why it failed.
        """
        poll = Poll()
        if not await self._map.refresh(poll):
            failure = poll.failures[0]
            advice = "" if poll.unreachable in LOG_IN_REFUSED else f"; {ADVICE}"
            message = f"no broker of cluster {self._cluster.name} answers at {failure.name}: {failure.detail}{advice}"
            raise UnreachableError(message)

    async def close(self) -> None:
        """Close every connection."""
        await self._brokers.close()

    async def _read_commits(self, poll: Poll) -> Commits:
        """Read who is there and what they committed; groups that are gone are forgotten."""
        if not await self._map.refresh_if_due(poll):
            # Not one address answers: everything known is unknown now, for that reason.
            poll.down.update(dict.fromkeys(self._map.map.brokers, poll.unreachable))
        else:
            await self._map.note_silent(poll)
        await self._takeovers.ask_all(poll, self._map.map, self._patience)
        await self._groups.list(poll, self._map.map, self._patience)
        roster = self._current_roster()
        commits = await self._commits.read(poll, self._map, self._patience, roster.asked, roster.states)
        self._share_offsets = await self._shares.read(poll, self._map, self._patience, roster.shares)
        commits = self._joined.join(commits, self._share_offsets)
        gone = [group.name for group in roster.unlisted if commits.has_nothing_of(group.name)]
        for keeper in (self._groups, self._commits, self._shares):
            keeper.forget(gone)
        await asyncio.gather(
            self._groups.describe(poll, self._map.map), self._visibility.ask_if_due(poll, self._map.map)
        )
        return commits

    def _current_roster(self) -> Roster:
        if self._roster.version != self._groups.version:
            self._roster = Roster(self._groups, self._roster)
        return self._roster

    def _sources(self, roster: Roster, commits: Commits) -> Sources:
        before = self._plan.layout if self._plan is not None else None
        if commits.unknown != self._kept[0]:
            kept = _nothing_kept() if before is None else keep(commits.unknown, before)
            self._kept = (commits.unknown, kept)
        return Sources(
            consumers=roster.consumers,
            answers=commits.answers,
            owner=roster.owners(commits),
            assigned=roster.assigned,
            kept=self._kept[1] if commits.unknown else None,
            subscribed=roster.subscribed,
            takes_topic=self._cluster.topics.takes,
        )

    def _positions(self, sources: Sources, rows: Rows, partitions: PartitionColumns) -> PositionColumns:
        plan = self._plan
        if plan is None or plan.rows is not rows or not plan.sources.is_like(sources):
            plan = self._plan = Plan(sources, rows, plan.layout if plan is not None else None)
            sizes = np.diff(plan.layout.starts).tolist()
            self._commits.remember_sizes({who.name: n for who, n in zip(sources.consumers, sizes, strict=True)})
        return plan.columns(sources.answers, partitions.why)

    def _went_back(self, partitions: PartitionColumns, positions: PositionColumns) -> bool:
        """Return whether a log end or a commit is lower than at the last look."""
        ends, commits = self._ends_before, self._positions_before
        return (ends is not None and ends.layout is partitions.layout and _fell(partitions.log_end, ends.log_end)) or (
            commits is not None and commits.layout is positions.layout and _fell(positions.committed, commits.committed)
        )

    def _requests(self) -> dict[str, int]:
        """Return the requests sent since this was asked last: look-ups count with the poll after them."""
        sent = self._brokers.requests - self._counted
        self._counted = Counter(self._brokers.requests)
        return dict(sent)


class _RowKeeper:
    """Lays out the rows of the cluster, kept for as long as map and positions stay as they are."""

    def __init__(self, keeper: MapKeeper) -> None:
        self._keeper = keeper
        self._listed: Rows | None = None
        self._rows: Rows | None = None
        self._laid_for: tuple[ClusterMap, Sources] | None = None
        self._used: dict[str, set[int]] = {}
        self._odd: dict[str, set[int]] = {}
        self._wanted_by: Mapping[str, Collection[str]] = {}
        self._wanted_of: Mapping[str, Topic] = {}
        self._wanted_errors: dict[str, int] = {}

    async def lay_out(self, poll: Poll, sources: Sources) -> tuple[Rows, Mapping[str, int]]:
        """Return the rows, and the error of topics that somebody uses and the map lacks."""
        rows = self._lay_out(sources)
        odd = self._unmapped()
        lacking = [name for name in odd if name not in self._keeper.map.topics]
        errors = await self._keeper.topic_errors(poll, lacking) if lacking else {}
        errors |= await self._errors_of_wanted(poll, sources)
        # Topics or partitions younger than the map: read it again, once for the same set.
        if (odd != self._odd or 0 in errors.values()) and odd and await self._keeper.refresh(poll):
            rows = self._lay_out(sources)
            odd = self._unmapped()
        self._odd = odd
        return rows, errors

    async def _errors_of_wanted(self, poll: Poll, sources: Sources) -> dict[str, int]:
        """Return the errors of topics that members want, that nobody has a position on and that the map lacks."""
        topics = self._keeper.map.topics
        if sources.subscribed is not self._wanted_by or topics is not self._wanted_of:
            wanted = {topic for topics in sources.subscribed.values() for topic in topics if sources.takes_topic(topic)}
            lacking = sorted(wanted - topics.keys() - self._used.keys())
            self._wanted_errors = await self._keeper.topic_errors(poll, lacking) if lacking else {}
            self._wanted_by, self._wanted_of = sources.subscribed, topics
        return self._wanted_errors

    def _lay_out(self, sources: Sources) -> Rows:
        cluster_map = self._keeper.map
        if self._rows is None or self._laid_for is None or not self._is_current(cluster_map, sources):
            self._listed = lay_out(cluster_map, {}, self._listed)
            self._used = used_partitions(sources, self._listed)
            self._rows = lay_out(cluster_map, self._used, self._rows)
            self._laid_for = (cluster_map, sources)
        return self._rows

    def _is_current(self, cluster_map: ClusterMap, sources: Sources) -> bool:
        return self._laid_for is not None and self._laid_for[0] is cluster_map and self._laid_for[1].is_like(sources)

    def _unmapped(self) -> dict[str, set[int]]:
        """Return the used partitions that the map does not have, by topic."""
        topics = self._keeper.map.topics
        odd = {
            name: partitions - set(topics[name].partitions.tolist()) if name in topics else partitions
            for name, partitions in self._used.items()
        }
        return {name: partitions for name, partitions in odd.items() if partitions}


class _LookupReader:
    """Look-ups by timestamp, one ListOffsets a leader and round."""

    def __init__(self, brokers: Brokers, keeper: MapKeeper) -> None:
        self._brokers = brokers
        self._keeper = keeper
        self._leaders: tuple[ClusterMap, PartitionLayout, Rows, Int32s] | None = None
        self.skip: dict[int, int] = {}
        """Brokers that are not asked before the next cycle, and why."""

    async def read(self, wanted: Lookups) -> tuple[Found, list[Failure]]:
        rows, leader = self._led(wanted.layout)
        order = np.argsort(wanted.row)
        at, times = wanted.row[order], wanted.timestamp_ms[order]
        offset, stamp = np.full(len(at), UNKNOWN, np.int64), np.full(len(at), UNKNOWN, np.int64)
        why = np.full(len(at), Why.NO_LEADER, np.int16)
        failures: list[Failure] = []

        async def ask(node: int) -> None:
            mine = np.flatnonzero(leader[at] == node)
            address = self._keeper.map.brokers.get(node)
            if node in self.skip or address is None:
                why[mine] = self.skip.get(node, Why.NO_LEADER)
                return
            question = Ask(rows, at[mine], times[mine], wire.READ_UNCOMMITTED)
            try:
                offset[mine], stamp[mine], why[mine] = await self._brokers.ask(
                    address, wire.LIST_OFFSETS, (6, 11), question.encode, question.decode
                )
            except TransportError as exc:
                self.skip[node] = why[mine] = exc.why
                note = Poll()
                note.note("broker", f"{node} ({address})", exc.why, str(exc))
                failures.extend(note.failures)

        await asyncio.gather(*(ask(node) for node in np.unique(leader[at]).tolist() if node >= 0))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return Found(wanted, offset[back], stamp[back], why[back]), failures

    def _led(self, layout: PartitionLayout) -> tuple[Rows, Int32s]:
        """Return the rows of a layout and the leader of each, -1 without."""
        known = self._leaders
        if known is None or known[0] is not self._keeper.map or known[1] is not layout:
            rows = Rows(layout)
            known = self._leaders = (self._keeper.map, layout, rows, leaders(self._keeper.map, rows, {})[0])
        return known[2], known[3]


class Roster:
    """Who is there and what they read, as of one version of what is known of the groups.

    What did not change since the roster before is the same object, so that whatever is built on it may stay.
    """

    def __init__(self, keeper: GroupKeeper, before: Roster | None) -> None:
        self.version = keeper.version
        groups = sorted(keeper.groups.values(), key=_consumer)
        self._groups = groups
        consumers = tuple(map(_consumer, groups))
        asked = {group.name: group.nodes for group in groups if not group.is_share}
        assigned = {group.name: read for group in groups if (read := _read_by(group))}
        subscribed = {group.name: topics for group in groups if (topics := _subscribed(group))}
        self.consumers: tuple[Consumer, ...] = _kept(consumers, None if before is None else before.consumers)
        self.asked: Mapping[str, tuple[int, ...]] = _kept(asked, None if before is None else before.asked)
        self.assigned: Mapping[str, Mapping[TopicPartition, str]] = _kept(
            assigned, None if before is None else before.assigned
        )
        self.subscribed: Mapping[str, frozenset[str]] = _kept(subscribed, None if before is None else before.subscribed)
        self.states = {group.name: (group.state, group.nodes, group.listed) for group in groups}
        self.wanted = {who: subscribed[who.name] for who in consumers if who.name in subscribed}
        self.shares = tuple(group for group in groups if group.is_share)
        self.unlisted = tuple(group for group in groups if not group.listed)
        self._facts = tuple(map(self._of, groups))
        self._unknown: Mapping[str, int] = {}
        self._answers: tuple[object, Int64s] = (None, np.zeros(0, np.int64))
        self._owners: tuple[Mapping[str, tuple[int, int]], Mapping[str, tuple[int, int]]] = ({}, {})

    def owners(self, commits: Commits) -> Mapping[str, tuple[int, int]]:
        """Return which answer counts for each of the groups."""
        if commits.owner is not self._owners[0]:
            # Groups that have gone in this very cycle were answered for, with nothing.
            there = {group.name for group in self._groups}
            self._owners = (commits.owner, {name: at for name, at in commits.owner.items() if name in there})
        return self._owners[1]

    def facts(self, commits: Commits) -> tuple[GroupFacts, ...]:
        """Return what is known of each group, with why it could not be read in this cycle."""
        if commits.unknown != self._unknown:
            self._unknown = commits.unknown
            self._facts = tuple(
                each if each.why == (why := commits.unknown.get(each.consumer.name, 0)) else replace(each, why=why)
                for each in self._facts
            )
        return self._facts

    def read_at(self, commits: Commits) -> Floats:
        """Return when the commits of each group were read, NaN where they were not."""
        answer = self._answer_of(commits.owner)
        return np.array([*commits.arrived_at, np.nan])[answer]

    def _answer_of(self, owner: Mapping[str, tuple[int, int]]) -> Int64s:
        """Return the number of the answer that counts for each group, -1 without one."""
        if self._answers[0] is not owner:
            numbers = (owner.get(who.name, (UNKNOWN, 0))[0] for who in self.consumers)
            self._answers = (owner, np.fromiter(numbers, np.int64, len(self.consumers)))
        return self._answers[1]

    def _of(self, group: Group) -> GroupFacts:
        return GroupFacts(
            _consumer(group),
            state=group.state,
            protocol=group.protocol,
            protocol_type=group.protocol_type or None,
            members=group.members,
            assigned=self.assigned.get(group.name, {}),
            owners=group.owners,
            subscribed=None if group.subscribed is None else _subscribed(group),
            assignor=group.assignor,
            epoch=group.epoch,
            coordinator=group.coordinator,
            described_at=group.described_at,
        )


def _kept(new: T, old: T | None) -> T:
    """Return the old object where the new one says the same."""
    return old if old is not None and old == new else new


def _consumer(group: Group) -> Consumer:
    return Consumer(Kind.SHARE_GROUP if group.is_share else Kind.GROUP, group.name)


def _read_by(group: Group) -> Mapping[TopicPartition, str]:
    """Return the partitions that its members read, and whose each is.

    Faust has its assignor hand out the changelogs of its tables as well, which workers write and only read to recover:
    nothing is ever committed there. They are named ``<app id>-<table>-changelog``, and the app id is the group.
    """
    return {where: owner for where, owner in group.assigned.items() if not _is_own_changelog(group, where.topic)}


def _is_own_changelog(group: Group, topic: str) -> bool:
    return topic.startswith(group.name + "-") and topic.endswith("-changelog")


def _subscribed(group: Group) -> frozenset[str]:
    """Return the topics that its members want, as far as they tell."""
    return frozenset(topic for topic in group.subscribed or () if not _is_own_changelog(group, topic))


def _nothing_kept() -> Shape:
    nothing = np.empty(0, np.int32)
    return Shape((), nothing, nothing, np.empty(0, np.int16), (), nothing, np.empty(0, np.int16))


def _partitions(rows: Rows, ends: Ends, before: PartitionColumns | None) -> PartitionColumns:
    """Return the columns, each the same object as before where no number of it has moved."""
    why = ends.reason().astype(np.int16)
    known = why == 0
    start, end = (np.where(known, ends.offset[question], UNKNOWN) for question in (START, END))
    stable = ends.offset[STABLE]
    if before is not None and before.layout is rows.layout:
        start, end = _kept_column(start, before.log_start), _kept_column(end, before.log_end)
        stable, why = _kept_column(stable, before.last_stable), _kept_column(why, before.why)
    return PartitionColumns(rows.layout, start, end, stable, why, ends.read_at)


def _fell(new: Int64s, old: Int64s) -> bool:
    return new is not old and bool(((new >= 0) & (new < old)).any())


def _kept_column(new: npt.NDArray[N], old: npt.NDArray[N]) -> npt.NDArray[N]:
    return old if np.array_equal(old, new) else new


_NO_ROWS = np.empty(0, np.intp)


def _note_unread(poll: Poll, commits: Commits, partitions: PartitionColumns, positions: PositionColumns) -> None:
    """Note every group, topic and position that could not be read for a reason of its own.

    What a silent broker took along is told by that broker's entry.
    """
    told = {0, *poll.down.values()}
    for name, why in commits.unknown.items():
        if why not in told:
            poll.fail("group", name, why)
    layout = partitions.layout
    unread = np.flatnonzero(~np.isin(partitions.why, list(told))) if partitions.why.any() else _NO_ROWS
    topics: dict[tuple[int, int], int] = defaultdict(int)
    for row in unread.tolist():
        topics[int(layout.topic[row]), int(partitions.why[row])] += 1
    for (topic, why), count in topics.items():
        poll.fail("topic", layout.topics[topic], why, f"{count} of its partitions")
    _note_positions(poll, commits, partitions, positions, told)


def _note_positions(
    poll: Poll, commits: Commits, partitions: PartitionColumns, positions: PositionColumns, told: set[int]
) -> None:
    layout = positions.layout
    if not positions.why.any():
        return
    odd = ~np.isin(positions.why, [Why.NO_COMMIT, *told]) & (positions.why != partitions.why[layout.row])
    if not odd.any():
        return
    owner = layout.consumer
    found: dict[tuple[int, int], int] = defaultdict(int)
    for index in np.flatnonzero(odd).tolist():
        found[int(owner[index]), int(positions.why[index])] += 1
    for (number, why), count in found.items():
        name = layout.consumers[number].name
        if name not in commits.unknown:
            poll.fail("group", name, why, f"{count} of its partitions")
