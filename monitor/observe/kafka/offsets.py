"""Committed offsets from the coordinators, log starts and log ends from the leaders.

All groups of a coordinator go into one OffsetFetch (KIP-709), all partitions of a leader into one ListOffsets.
Questions are encoded once and asked again until who coordinates or leads what changes. What a broker leaves out
of its answer is a failure: never zero, never what it said before.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from monitor.errors import TransportError
from monitor.model import UNKNOWN, Bools, Floats, Int16s, Int32s, Int64s, Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import (
    COORDINATOR_LOAD_IN_PROGRESS,
    MOVING,
    UNKNOWN_TOPIC_OR_PARTITION,
    Brokers,
    ClusterMap,
    MapKeeper,
    Patience,
    Poll,
    Rows,
    leaders,
    now,
)
from monitor.observe.kafka.transport import Address

# 23 bytes a position: about 6 MB an answer.
POSITIONS_AT_ONCE = 250_000
# The versions of OffsetFetch about one group, and how many of these are under way to a broker.
OF_ONE_GROUP = (6, 7)
ONE_BY_ONE_AT_ONCE = 50
# 27 bytes a partition: about 3 MB an answer.
PARTITIONS_AT_ONCE = 100_000

SETTLING_SECONDS = 30.0
"""Kafka's replica.lag.time.max.ms default: by then a new leader knows how far its log is committed."""


# --- commits ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Commits:
    """What the coordinators said about every group that was asked for.

    ``owner`` says which answer, and which group within it, counts for a group; it is the same object for as long as
    that stays so. ``unknown`` has the reason of groups without any. ``arrived_at`` is when each answer did.
    """

    answers: Sequence[wire.Offsets]
    arrived_at: Sequence[float]
    owner: Mapping[str, tuple[int, int]]
    unknown: Mapping[str, int]

    def without(self, names: Collection[str], why: int) -> Commits:
        """Return the same with some groups unknown."""
        owner = {name: at for name, at in self.owner.items() if name not in names}
        return Commits(self.answers, self.arrived_at, owner, {**self.unknown, **dict.fromkeys(names, why)})

    def read_at(self, name: str) -> float | None:
        """Return when the answer about a group arrived, None if none did."""
        return self.arrived_at[self.owner[name][0]] if name in self.owner else None

    def has_nothing_of(self, name: str) -> bool:
        """Return whether somebody answered for a group, and it has no position."""
        if name not in self.owner:
            return False
        number, index = self.owner[name]
        return _is_empty(self.answers[number].shape, index)


class Joined:
    """Joins what two readers said of different groups into one, the owners being the same object while they can."""

    def __init__(self) -> None:
        self._owners: tuple[object, object, int, Mapping[str, tuple[int, int]]] | None = None

    def join(self, some: Commits, more: Commits) -> Commits:
        """Return both as one."""
        if not (more.owner or more.unknown):
            return some
        first, known = len(some.answers), self._owners
        if known is None or known[0] is not some.owner or known[1] is not more.owner or known[2] != first:
            moved = {name: (first + number, index) for name, (number, index) in more.owner.items()}
            known = self._owners = (some.owner, more.owner, first, {**some.owner, **moved})
        return Commits(
            [*some.answers, *more.answers],
            [*some.arrived_at, *more.arrived_at],
            known[3],
            {**some.unknown, **more.unknown},
        )


def _is_empty(shape: wire.Shape, index: int) -> bool:
    first, end = np.searchsorted(shape.group, [index, index + 1])
    return bool(first == end)


class Asking(NamedTuple):
    """How a coordinator is asked where its groups are.

    ``request`` makes the body for some groups in a version, ``decoder`` what decodes the answers in a version.
    """

    api: wire.Api
    offered: tuple[int, int]
    request: Callable[[Sequence[str], int], bytes]
    decoder: Callable[[int], wire.OffsetFetchDecoder | wire.ShareOffsetsDecoder]
    groups_at_once: int


COMMITTED = Asking(
    wire.OFFSET_FETCH,
    (8, 9),
    wire.offset_fetch_request,
    lambda _version: wire.OffsetFetchDecoder(),
    groups_at_once=5_000,
)


class _Fetch:
    """One request for some groups to one coordinator, asked again and again."""

    def __init__(self, node: int, groups: tuple[str, ...], how: Asking) -> None:
        self.node = node
        self.groups = groups
        self.last: wire.Offsets | None = None
        """The last answer."""
        self._how = how
        self._bodies: dict[int, bytes] = {}
        self._decoders: dict[int, wire.OffsetFetchDecoder | wire.ShareOffsetsDecoder] = {}

    def encode(self, version: int) -> bytes:
        """Return the request body, the same bytes each time."""
        if version not in self._bodies:
            self._bodies[version] = self._how.request(self.groups, version)
        return self._bodies[version]

    def decode(self, data: bytes, version: int) -> wire.Offsets:
        """Decode the answer, keeping its shape while only numbers move."""
        if version not in self._decoders:
            self._decoders[version] = self._how.decoder(version)
        self.last = self._decoders[version].decode(data)
        return self.last


def _undecoded(data: bytes, _version: int) -> bytes:
    return data


_Positions = dict[tuple[str, int], int]


class Memory:
    """What each group had committed when it was last read, for the moment when another broker takes over.

    A coordinator answers from what is committed in its log as far as it knows, and one that has just become leader
    may not know how far that is (its high watermark): for a while it has older offsets of a group, some of them, or
    does not know the group at all, and none of that is an error. So where the coordinator of a group changed, or was
    away, an answer with less than was known before is not believed until it has stayed so for SETTLING_SECONDS.
    """

    def __init__(self) -> None:
        self._read: dict[str, _Fetch] = {}
        """The last request that a group was read by."""
        self._had: dict[str, _Positions] = {}
        """What groups had that are unread now, or were when they were asked for last."""
        self._settling: dict[str, float] = {}
        """Until when groups of those are doubted."""

    @property
    def is_wary(self) -> bool:
        """Return whether there is any group whose next answer has to be looked at closely."""
        return bool(self._had)

    def forget(self, names: Iterable[str]) -> None:
        """Drop groups that are gone."""
        for name in names:
            self._read.pop(name, None)
            self._settle(name)

    def doubtful(self, commits: Commits, answered: Sequence[_Answered]) -> set[str]:
        """Return the groups whose answer is not to be believed yet."""
        # Who coordinates a group no longer has just answered so: what counts is what it said before.
        before = {each.fetch: each.before for each in answered}
        for name in commits.unknown:
            self._remember(name, before)
        found = set()
        for name, (number, index) in commits.owner.items():
            fetch = answered[number].fetch
            known = self._read.get(name)
            if known is not None and known.node != fetch.node:
                self._remember(name, before)
                self._settling.pop(name, None)
            if name in self._had:
                until = self._settling.setdefault(name, now() + SETTLING_SECONDS)
                has = _positions(commits.answers[number], index)
                if now() < until and any(has.get(at, UNKNOWN) < offset for at, offset in self._had[name].items()):
                    found.add(name)
                else:
                    self._settle(name)
            if known is not fetch:
                self._read[name] = fetch
        return found

    def _remember(self, name: str, before: Mapping[_Fetch, wire.Offsets | None]) -> None:
        known = self._read.get(name)
        answer = None if known is None else before.get(known, known.last)
        if name not in self._had and answer is not None and name in answer.shape.groups:
            self._had[name] = _positions(answer, answer.shape.groups.index(name))

    def _settle(self, name: str) -> None:
        self._had.pop(name, None)
        self._settling.pop(name, None)


def _positions(answer: wire.Offsets, index: int) -> _Positions:
    """Return what one group of an answer has committed."""
    shape = answer.shape
    first, end = np.searchsorted(shape.group, [index, index + 1])
    at = np.flatnonzero(shape.error[first:end] == 0) + first
    topics = (shape.topics[topic] for topic in shape.topic[at].tolist())
    return dict(zip(zip(topics, shape.partition[at].tolist(), strict=True), answer.offset[at].tolist(), strict=True))


class CommitReader:
    """Reads where all groups are, by what they committed or, ``how`` says so, as share groups."""

    def __init__(
        self, brokers: Brokers, clock: Callable[[], float], how: Asking = COMMITTED, *, memory: Memory | None = None
    ) -> None:
        self._brokers = brokers
        self._clock = clock
        self._how = how
        self._memory = memory or Memory()
        self._sizes: Mapping[str, int] = {}
        self._asked: Mapping[str, Collection[int]] = {}
        self._fetches: dict[int, list[_Fetch]] = {}
        self._last: _Collected | None = None

    async def read(
        self, poll: Poll, keeper: MapKeeper, patience: Patience, asked: Mapping[str, Collection[int]]
    ) -> Commits:
        """Ask every coordinator for all its groups, and those that answered something passing once more.

        ``asked`` maps each group to the brokers that list it: the same object for as long as that stays so.
        """
        if asked is not self._asked:
            self._fetches = self._cut(asked, self._fetches)
            self._asked = asked
        collected = _Collected(self._last)
        await self._round(poll, keeper, collected, self._fetches)
        while patience.is_left(open_ := collected.moving(poll, asked)):
            await patience.pause()
            if not await keeper.refresh(poll):
                break
            # Whoever does not coordinate a group (any more) says so: asking all finds the one that does.
            again = {
                name: asked[name] if why == COORDINATOR_LOAD_IN_PROGRESS else tuple(keeper.map.brokers)
                for (_, name), why in open_
            }
            await self._round(poll, keeper, collected, self._cut(again, {}))
        commits = collected.commits(poll, asked)
        before, self._last = self._last, collected
        if before is not None and before.key == collected.key and not (commits.unknown or self._memory.is_wary):
            return commits  # the same brokers about the same groups as the cycle before
        doubtful = self._memory.doubtful(commits, collected.answered)
        return commits.without(doubtful, Why.NEW_COORDINATOR) if doubtful else commits

    def forget(self, names: Iterable[str]) -> None:
        """Drop groups that are gone."""
        self._memory.forget(names)

    def remember_sizes(self, sizes: Mapping[str, int]) -> None:
        """Take note of how many positions each group has, to cut the questions to size when they change next."""
        self._sizes = sizes

    async def _round(
        self, poll: Poll, keeper: MapKeeper, collected: _Collected, fetches: Mapping[int, Sequence[_Fetch]]
    ) -> None:
        asks = (self._ask_node(poll, keeper, collected, node, some) for node, some in fetches.items())
        for answered in await asyncio.gather(*asks):
            collected.answered += answered  # in the order of asking, whoever was first to answer

    async def _ask_node(
        self, poll: Poll, keeper: MapKeeper, collected: _Collected, node: int, fetches: Sequence[_Fetch]
    ) -> list[_Answered]:
        answered = []
        for fetch in fetches:
            address = keeper.map.brokers.get(node)
            if address is None or node in poll.down:
                break
            before = fetch.last
            try:
                answer = await self._ask(address, fetch)
            except TransportError as exc:
                if self._how is COMMITTED:
                    poll.broker_failed(node, address, exc)
                elif exc.why != Why.UNSUPPORTED:  # that is told with each group
                    poll.failed_aside(node, address, exc)
                collected.failed(fetch.groups, exc.why)
            else:
                answered.append(_Answered(fetch, before, answer, self._clock()))
        return answered

    async def _ask(self, address: Address, fetch: _Fetch) -> wire.Offsets:
        how = self._how
        if how is COMMITTED and await self._brokers.version(address, how.api) in OF_ONE_GROUP:
            return await self._ask_one_by_one(address, fetch)
        return await self._brokers.ask(address, how.api, how.offered, fetch.encode, fetch.decode)

    async def _ask_one_by_one(self, address: Address, fetch: _Fetch) -> wire.Offsets:
        """Ask a broker before 3.0, which answers for one group at a time: a few are under way on its connection."""
        answers: list[tuple[str, bytes]] = []
        for first in range(0, len(fetch.groups), ONE_BY_ONE_AT_ONCE):
            some = fetch.groups[first : first + ONE_BY_ONE_AT_ONCE]
            asks = (
                self._brokers.ask(
                    address,
                    wire.OFFSET_FETCH,
                    OF_ONE_GROUP,
                    partial(wire.old_offset_fetch_request, group),
                    _undecoded,
                )
                for group in some
            )
            raw = await asyncio.gather(*asks, return_exceptions=True)
            for group, answer in zip(some, raw, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                answers.append((group, answer))
        try:
            return fetch.decode(wire.join_old_offset_fetches(answers), 8)
        except wire.MalformedError as exc:
            message = f"an answer of {address} to {wire.OFFSET_FETCH.name} could not be decoded: {exc}"
            raise TransportError(message, Why.MALFORMED) from exc

    def _cut(
        self, asked: Mapping[str, Collection[int]], before: Mapping[int, Sequence[_Fetch]]
    ) -> dict[int, list[_Fetch]]:
        """Return what to ask whom, with those of the fetches before that ask the same."""
        by_node: dict[int, list[str]] = defaultdict(list)
        for name, nodes in asked.items():
            for node in nodes:
                by_node[node].append(name)
        kept = {(fetch.node, fetch.groups): fetch for fetches in before.values() for fetch in fetches}
        return {
            node: [kept.get((node, chunk)) or _Fetch(node, chunk, self._how) for chunk in self._chunks(names)]
            for node, names in by_node.items()
        }

    def _chunks(self, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
        chunk: list[str] = []
        positions = 0
        for name in names:
            size = self._sizes.get(name, 0)
            if chunk and (positions + size > POSITIONS_AT_ONCE or len(chunk) >= self._how.groups_at_once):
                yield tuple(chunk)
                chunk, positions = [], 0
            chunk.append(name)
            positions += size
        if chunk:
            yield tuple(chunk)


class _Answered(NamedTuple):
    """One answer: to what, what was answered to the same the last time, and when it arrived."""

    fetch: _Fetch
    before: wire.Offsets | None
    answer: wire.Offsets
    at: float


class _Collected:
    """Answers as they come in, best answer a group. ``last`` is what was collected in the cycle before."""

    def __init__(self, last: _Collected | None) -> None:
        self.answered: list[_Answered] = []
        self.owner: dict[str, tuple[int, int]] = {}
        self.errors: dict[str, int] = {}
        self.key: list[tuple[_Fetch, wire.Shape]] = []
        """Fetch and shape of each answer that was looked at."""
        self._last = None if last is None else (last.key, last.owner, last.errors)

    def failed(self, names: Iterable[str], why: int) -> None:
        """Note groups that an answer left out, or that got none."""
        self.errors.update(dict.fromkeys(names, why))

    def moving(self, poll: Poll, asked: Mapping[str, Collection[int]]) -> list[tuple[tuple[str, str], int]]:
        """Return the groups worth asking again: what and why, as Patience wants it."""
        unknown = self._unknown(poll, asked)
        return [(("group", name), why) for name, why in unknown.items() if why in MOVING or why == Why.NO_COORDINATOR]

    def commits(self, poll: Poll, asked: Mapping[str, Collection[int]]) -> Commits:
        """Return what was collected."""
        unknown = self._unknown(poll, asked)
        answers, times = [each.answer for each in self.answered], [each.at for each in self.answered]
        return Commits(answers, times, self.owner, unknown)

    def _unknown(self, poll: Poll, asked: Mapping[str, Collection[int]]) -> dict[str, int]:
        self._settle_owners()
        if len(self.owner) == len(asked):
            return {}
        return {name: self._why(poll, name, nodes) for name, nodes in asked.items() if name not in self.owner}

    def _why(self, poll: Poll, name: str, nodes: Collection[int]) -> int:
        silent = (poll.down[node] for node in nodes if node in poll.down)
        # NOT_COORDINATOR from all that were asked while the coordinator is silent: the silence is the reason.
        return next(silent, self.errors.get(name, Why.NO_COORDINATOR))

    def _settle_owners(self) -> None:
        """Say of each answer that came in since this was called last whom it counts for."""
        first = len(self.key)
        if first == len(self.answered):
            return
        self.key = [(each.fetch, each.answer.shape) for each in self.answered]
        if first == 0 and self._last is not None and self.key == self._last[0]:
            # The same answers about the same groups as in the cycle before: the same object says so.
            _, self.owner, errors = self._last
            self.errors = {**errors, **self.errors}
            return
        self.owner = dict(self.owner)
        for number in range(first, len(self.answered)):
            self._settle(number)

    def _settle(self, number: int) -> None:
        fetch, _, answer, _ = self.answered[number]
        shape, asked = answer.shape, fetch.groups
        if shape.groups == asked and not shape.group_error.any() and self.owner.keys().isdisjoint(asked):
            # All at once: this is how nearly every answer looks.
            self.owner.update(zip(asked, zip((number,) * len(asked), range(len(asked)), strict=True), strict=True))
            return
        wanted = set(asked)
        for index, (name, error) in enumerate(zip(shape.groups, shape.group_error.tolist(), strict=True)):
            if name not in wanted:
                continue
            wanted.remove(name)
            # An error counts only for groups that no other broker answered for.
            if error:
                self.errors[name] = error
            elif name not in self.owner or self._is_empty(name):
                self.owner[name] = (number, index)
        self.failed(wanted, Why.MALFORMED)

    def _is_empty(self, name: str) -> bool:
        number, index = self.owner[name]
        return _is_empty(self.answered[number].answer.shape, index)


# --- ends -------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """One of the three numbers asked of every leader."""

    timestamp: int
    isolation: int


# In this order on one connection, which a broker serves one by one: so start and last stable offset are
# never beyond the end that is read after them.
START = Question(wire.EARLIEST, wire.READ_UNCOMMITTED)
STABLE = Question(wire.LATEST, wire.READ_COMMITTED)
END = Question(wire.LATEST, wire.READ_UNCOMMITTED)
QUESTIONS = (START, STABLE, END)


@dataclass(slots=True, eq=False)
class Ends:
    """What the leaders said, one row a partition; -1 and a reason where unknown."""

    offset: dict[Question, Int64s]
    why: dict[Question, Int16s]
    read_at: Floats

    @classmethod
    def unknown(cls, why: Int16s) -> Ends:
        """Return ends that nobody has been asked for yet."""
        return cls(
            {question: np.full(len(why), UNKNOWN, np.int64) for question in QUESTIONS},
            {question: why.copy() for question in QUESTIONS},
            np.full(len(why), np.nan),
        )

    def take_ends_as_stable(self, at: Int32s) -> None:
        """Say that the last stable offset of these rows is their log end."""
        self.offset[STABLE][at], self.why[STABLE][at] = self.offset[END][at], 0

    def cap_stable(self, at: Int32s) -> None:
        """Say of a last stable offset that was read after its log end and is beyond it that it has reached the end."""
        known = at[(self.why[STABLE][at] == 0) & (self.why[END][at] == 0)]
        self.offset[STABLE][known] = np.minimum(self.offset[STABLE][known], self.offset[END][known])

    def reason(self) -> Int16s:
        """Return why start and end of each row are unknown, 0 where both are known."""
        return np.where(self.why[END] != 0, self.why[END], self.why[START])


class Ask:
    """One ListOffsets to one leader about the same rows, asked again and again."""

    def __init__(self, rows: Rows, at: Int32s, timestamps: Int64s | int, isolation: int) -> None:
        self._rows = rows
        self._at = at
        self._timestamps = timestamps
        self._isolation = isolation
        self._bodies: dict[int, bytes] = {}
        self._decoder = wire.ListOffsetsDecoder()
        self._placed: tuple[wire.Shape, Int64s, Int64s] | None = None
        self._last: tuple[wire.Offsets, tuple[Int64s, Int64s, Int16s]] | None = None

    def encode(self, version: int) -> bytes:
        """Return the request body, the same bytes each time."""
        if version not in self._bodies:
            topics = list(_by_topic(self._rows, self._at, self._timestamps))
            self._bodies[version] = wire.list_offsets_request(topics, version, isolation=self._isolation)
        return self._bodies[version]

    def decode(self, data: bytes, _version: int) -> tuple[Int64s, Int64s, Int16s]:
        """Return offset, timestamp and error of every row asked for, in that order; omitted ones are MALFORMED."""
        answer = self._decoder.decode(data)
        if self._last is not None and self._last[0] is answer:
            return self._last[1]
        if self._placed is None or self._placed[0] is not answer.shape:
            self._placed = (answer.shape, *self._place(answer.shape))
        _, source, target = self._placed
        offset = np.full(len(self._at), UNKNOWN, np.int64)
        timestamp = np.full(len(self._at), UNKNOWN, np.int64)
        why = np.full(len(self._at), Why.MALFORMED, np.int16)
        offset[target] = answer.offset[source]
        timestamp[target] = answer.timestamp_ms[source]
        why[target] = answer.shape.error[source]
        self._last = (answer, (offset, timestamp, why))
        return self._last[1]

    def _place(self, shape: wire.Shape) -> tuple[Int64s, Int64s]:
        """Return which entries of the answer belong to which of the rows asked for."""
        index = np.full(len(self._rows.layout) + 1, UNKNOWN, np.int64)
        index[self._at] = np.arange(len(self._at))
        index[-1] = UNKNOWN  # row -1: not ours
        target = index[self._rows.find(shape.topics, shape.topic, shape.partition)]
        source = np.flatnonzero(target >= 0)
        return source, target[source]


def _by_topic(rows: Rows, at: Int32s, timestamps: Int64s | int) -> Iterator[tuple[str, Int32s, Int64s | int]]:
    """Cut rows (ascending) into topics as ListOffsets wants them."""
    layout = rows.layout
    topic = layout.topic[at]
    cuts = np.flatnonzero(np.diff(topic, prepend=UNKNOWN)).tolist()
    for first, end in zip(cuts, [*cuts[1:], len(at)], strict=True):
        times = timestamps if isinstance(timestamps, int) else timestamps[first:end]
        yield layout.topics[topic[first]], layout.partition[at[first:end]], times


class _Chunk:
    """Rows that one leader is asked about at once, in a request for each question."""

    def __init__(self, rows: Rows, at: Int32s) -> None:
        self.at = at
        self.asks = {question: Ask(rows, at, question.timestamp, question.isolation) for question in QUESTIONS}
        self._stable_end: Int64s | None = None
        """The log ends of all its rows where the last look found each to be the last stable offset too."""

    @property
    def is_stable(self) -> bool:
        """Return whether no transaction was open at the last look."""
        return self._stable_end is not None

    def stands_still(self, ends: Ends) -> bool:
        """Return whether no log end has moved since then, so that every last stable offset is the log end still."""
        known, end = not ends.why[END][self.at].any(), ends.offset[END][self.at]
        return known and self._stable_end is not None and np.array_equal(end, self._stable_end)

    def learn(self, ends: Ends) -> None:
        """Take note of what was answered."""
        end, stable = ends.offset[END][self.at], ends.offset[STABLE][self.at]
        is_known = not (ends.why[END][self.at].any() or ends.why[STABLE][self.at].any())
        self._stable_end = end if is_known and np.array_equal(end, stable) else None


class EndReader:
    """Reads log start, last stable offset and log end of all partitions.

    A transaction that is opened writes a record. So while no log end of a chunk moves and none of its transactions was
    open, every last stable offset is the log end, and is not asked for.
    """

    def __init__(self, brokers: Brokers, clock: Callable[[], float]) -> None:
        self._brokers = brokers
        self._clock = clock
        self._key: tuple[Rows, Int32s] | None = None
        self._led: tuple[ClusterMap, Rows, Mapping[str, int], tuple[Int32s, Int16s]] | None = None
        self._chunks: dict[int, list[_Chunk]] = {}

    async def read(
        self, poll: Poll, keeper: MapKeeper, patience: Patience, rows: Rows, errors: Mapping[str, int]
    ) -> Ends:
        """Ask every leader for all its partitions, and once more about those whose leader moves."""
        leader, why = self._leaders(keeper.map, rows, errors)
        ends = Ends.unknown(why)
        self._prepare(rows, leader)
        await self._round(poll, keeper, ends, self._chunks)
        asked = why == 0
        while patience.is_left(self.open(poll, keeper, ends, leader)):
            await patience.pause()
            if not await keeper.refresh(poll):
                break
            leader, why = leaders(keeper.map, rows, errors)
            again = _may_pass(poll, ends.reason(), leader)
            for question in QUESTIONS:
                moved = again & ((why != 0) | ~asked)
                ends.why[question][moved] = why[moved]
            again &= (why == 0) & ~np.isin(leader, list(poll.down))
            await self._round(poll, keeper, ends, self._cut(rows, np.where(again, leader, UNKNOWN)))
            asked |= again
        return ends

    def open(self, poll: Poll, keeper: MapKeeper, ends: Ends, leader: Int32s) -> list[tuple[object, int]]:
        """Return the rows worth asking again: what and why, as Patience wants it."""
        reason = ends.reason()
        if not reason.any():
            return []
        rows = np.flatnonzero(_may_pass(poll, reason, leader))
        return [(("row", row), why) for row, why in zip(rows.tolist(), reason[rows].tolist(), strict=True)]

    def _leaders(self, cluster_map: ClusterMap, rows: Rows, errors: Mapping[str, int]) -> tuple[Int32s, Int16s]:
        led = self._led
        if led is None or led[0] is not cluster_map or led[1] is not rows or led[2] != errors:
            led = self._led = (cluster_map, rows, errors, leaders(cluster_map, rows, errors))
        return led[3]

    def _prepare(self, rows: Rows, leader: Int32s) -> None:
        if self._key is None or self._key[0] is not rows or not np.array_equal(self._key[1], leader):
            self._chunks = self._cut(rows, leader)
            self._key = (rows, leader)

    def _cut(self, rows: Rows, leader: Int32s) -> dict[int, list[_Chunk]]:
        cut = {}
        for node in np.unique(leader[leader >= 0]).tolist():
            led = np.flatnonzero(leader == node).astype(np.int32)
            cut[node] = [_Chunk(rows, led[i : i + PARTITIONS_AT_ONCE]) for i in range(0, len(led), PARTITIONS_AT_ONCE)]
        return cut

    async def _round(self, poll: Poll, keeper: MapKeeper, ends: Ends, chunks: Mapping[int, Sequence[_Chunk]]) -> None:
        await asyncio.gather(*(self._ask_node(poll, keeper, ends, node, some) for node, some in chunks.items()))

    async def _ask_node(self, poll: Poll, keeper: MapKeeper, ends: Ends, node: int, chunks: Sequence[_Chunk]) -> None:
        for chunk in chunks:

            async def ask(*questions: Question, chunk: _Chunk = chunk) -> None:
                asks = (
                    self._ask(poll, keeper, ends, node, at=chunk.at, question=question, ask=chunk.asks[question])
                    for question in questions
                )
                await asyncio.gather(*asks)

            if not chunk.is_stable:
                await ask(*QUESTIONS)
            else:
                await ask(START, END)
                if chunk.stands_still(ends):
                    ends.take_ends_as_stable(chunk.at)
                    continue
                await ask(STABLE)
                ends.cap_stable(chunk.at)
            chunk.learn(ends)

    async def _ask(
        self, poll: Poll, keeper: MapKeeper, ends: Ends, node: int, *, at: Int32s, question: Question, ask: Ask
    ) -> None:
        offset, why = np.full(len(at), UNKNOWN, np.int64), np.full(len(at), Why.NO_LEADER, np.int16)
        address = keeper.map.brokers.get(node)
        if node in poll.down:
            why[:] = poll.down[node]
        elif address is not None:
            try:
                offset, _, why = await self._brokers.ask(address, wire.LIST_OFFSETS, (6, 11), ask.encode, ask.decode)
            except TransportError as exc:
                poll.broker_failed(node, address, exc)
                why[:] = poll.down.get(node, exc.why)
        # Leaders know all three numbers: a negative one without an error is no answer.
        why = np.where((why == 0) & (offset < 0), Why.MALFORMED, why).astype(np.int16)
        ends.offset[question][at] = np.where(why == 0, offset, UNKNOWN)
        ends.why[question][at] = why
        if question is END:
            ends.read_at[at] = np.where(why == 0, self._clock(), np.nan)


def _may_pass(poll: Poll, reason: Int16s, leader: Int32s) -> Bools:
    """Return the rows whose failure may pass within the cycle: a leader moves, or the topic has just gone."""
    passing = np.isin(reason, [*MOVING, UNKNOWN_TOPIC_OR_PARTITION])
    passing |= (reason != 0) & np.isin(leader, list(poll.down)) & (leader >= 0)
    return np.asarray(passing)
