"""Committed offsets from the coordinators.

All groups of a coordinator go into one OffsetFetch (KIP-709). Questions are encoded once and asked again until who
coordinates what changes. What a coordinator leaves out of its answer is a failure: never zero, never what it said
before.
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
from monitor.model import UNKNOWN, Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import (
    COORDINATOR_LOAD_IN_PROGRESS,
    MOVING,
    Brokers,
    MapKeeper,
    Patience,
    Poll,
    now,
)
from monitor.observe.kafka.takeover import Takeovers
from monitor.observe.kafka.transport import Address

# 23 bytes a position: about 6 MB an answer.
POSITIONS_AT_ONCE = 250_000
# The versions of OffsetFetch about one group, and how many of these are under way to a broker.
OF_ONE_GROUP = (6, 7)
ONE_BY_ONE_AT_ONCE = 50

TAKING_OVER = frozenset({COORDINATOR_LOAD_IN_PROGRESS, Why.NEW_COORDINATOR})
"""Why a group is unknown whose coordinator is the right one, and will know it in a moment."""

WORTH_ASKING_AGAIN = frozenset({*MOVING, Why.NO_COORDINATOR, Why.NEW_COORDINATOR})

SETTLING_SECONDS = 30.0
"""Kafka's replica.lag.time.max.ms default: by then a new leader knows how far its log is committed."""


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

    A new coordinator may have older offsets of a group for a while, some of them, or none (``takeover``). Where nobody
    can tell whether it does, since ``__consumer_offsets`` may not be seen, and the coordinator of a group changed or
    was away, an answer with less than was known before is not believed until it has stayed so for SETTLING_SECONDS.
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
                is_sure = name not in answered[number].unready
                if (
                    not is_sure
                    and now() < until
                    and any(has.get(at, UNKNOWN) < offset for at, offset in self._had[name].items())
                ):
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
    """Reads where all groups are, by what they committed or, ``how`` says so, as share groups.

    With ``takeovers`` no coordinator is believed before it knows all of its groups.
    """

    def __init__(
        self,
        brokers: Brokers,
        clock: Callable[[], float],
        how: Asking = COMMITTED,
        *,
        memory: Memory | None = None,
        takeovers: Takeovers | None = None,
    ) -> None:
        self._brokers = brokers
        self._clock = clock
        self._how = how
        self._memory = memory or Memory()
        self._takeovers = takeovers
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
            again = {name: asked[name] if why in TAKING_OVER else tuple(keeper.map.brokers) for (_, name), why in open_}
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
        if self._takeovers is not None:
            self._takeovers.forget(names)

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
                if self._takeovers is not None:
                    await self._takeovers.ask(address, keeper.map.offsets_partitions)
                answer = await self._ask(address, fetch)
            except TransportError as exc:
                if self._takeovers is not None:
                    self._takeovers.failed(address)
                if self._how is COMMITTED:
                    poll.broker_failed(node, address, exc)
                elif exc.why != Why.UNSUPPORTED:  # that is told with each group
                    poll.failed_aside(node, address, exc)
                collected.failed(fetch.groups, exc.why)
            else:
                answered.append(_Answered(fetch, before, answer, self._clock(), self._unready(address, answer)))
        return answered

    def _unready(self, address: Address, answer: wire.Offsets) -> Mapping[str, int]:
        """Return the groups that an answer may not have all of, and why."""
        if self._takeovers is None:
            return {}
        groups, errors = answer.shape.groups, answer.shape.group_error
        if not errors.any():
            return self._takeovers.unready(address, groups, ())
        by_error = list(zip(groups, errors.tolist(), strict=True))
        moved = [name for name, error in by_error if error in MOVING]
        return self._takeovers.unready(address, [name for name, error in by_error if not error], moved)

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
    """One answer: to what, what was answered to the same the last time, and when it arrived.

    ``unready`` has the groups that it may not have all of, and why (Takeovers.unready).
    """

    fetch: _Fetch
    before: wire.Offsets | None
    answer: wire.Offsets
    at: float
    unready: Mapping[str, int]

    @property
    def is_behind(self) -> bool:
        """Return whether anything of it must not be believed."""
        return Why.NEW_COORDINATOR in self.unready.values()


class _Collected:
    """Answers as they come in, best answer a group. ``last`` is what was collected in the cycle before."""

    def __init__(self, last: _Collected | None) -> None:
        self.answered: list[_Answered] = []
        self.owner: dict[str, tuple[int, int]] = {}
        self.errors: dict[str, int] = {}
        self.key: list[tuple[_Fetch, wire.Shape, bool]] = []
        """Fetch and shape of each answer that was looked at, and whether any of it was not to be believed."""
        self._last = None if last is None else (last.key, last.owner, last.errors)

    def failed(self, names: Iterable[str], why: int) -> None:
        """Note groups that an answer left out, or that got none."""
        self.errors.update(dict.fromkeys(names, why))

    def moving(self, poll: Poll, asked: Mapping[str, Collection[int]]) -> list[tuple[tuple[str, str], int]]:
        """Return the groups worth asking again: what and why, as Patience wants it."""
        unknown = self._unknown(poll, asked)
        return [(("group", name), why) for name, why in unknown.items() if why in WORTH_ASKING_AGAIN]

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
        self.key = [(each.fetch, each.answer.shape, each.is_behind) for each in self.answered]
        is_behind = any(is_behind for *_, is_behind in self.key)
        if first == 0 and not is_behind and self._last is not None and self.key == self._last[0]:
            # The same answers about the same groups as in the cycle before: the same object says so.
            _, self.owner, errors = self._last
            self.errors = {**errors, **self.errors}
            return
        self.owner = dict(self.owner)
        for number in range(first, len(self.answered)):
            self._settle(number)

    def _settle(self, number: int) -> None:
        found = self.answered[number]
        fetch, answer, unready = found.fetch, found.answer, found.unready
        shape, asked = answer.shape, fetch.groups
        if (
            not (found.is_behind or shape.group_error.any())
            and shape.groups == asked
            and self.owner.keys().isdisjoint(asked)
        ):
            # All at once: this is how nearly every answer looks.
            self.owner.update(zip(asked, zip((number,) * len(asked), range(len(asked)), strict=True), strict=True))
            return
        wanted = set(asked)
        for index, (name, error) in enumerate(zip(shape.groups, shape.group_error.tolist(), strict=True)):
            if name not in wanted:
                continue
            wanted.remove(name)
            # An error counts only for groups that no other broker answered for.
            if error or unready.get(name) == Why.NEW_COORDINATOR:
                self.errors[name] = error or int(Why.NEW_COORDINATOR)
            elif name not in self.owner or self._is_empty(name):
                self.owner[name] = (number, index)
        self.failed(wanted, Why.MALFORMED)

    def _is_empty(self, name: str) -> bool:
        number, index = self.owner[name]
        return _is_empty(self.answered[number].answer.shape, index)
