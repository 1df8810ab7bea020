"""Where share groups are (KIP-932): start offset and lag of their partitions, as their coordinators tell.

A share group commits nothing. Its share partitions have a start offset, before which everything is done; beyond it
single records are done, being worked on, or free, so end minus start is more than its lag. Brokers since Kafka 4.2
count the lag themselves (KIP-1226, DescribeShareGroupOffsets v1); 4.1 tells the start offset only, and before that
nobody can be asked.

To answer, a broker reads a summary of every share partition and, for the lag, every log end: that costs it more than
an OffsetFetch, so few groups go into one request.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import (
    COORDINATOR_LOAD_IN_PROGRESS,
    MOVING,
    NOT_COORDINATOR,
    PAUSE_SECONDS,
    Brokers,
    MapKeeper,
    Patience,
    Poll,
)

GROUPS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """What the coordinators said about every share group that was asked for.

    ``offset`` of an answer is the start offset, -1 before the first fetch. ``owner`` says which answer, and which
    group within it, counts for a group; it is the same object for as long as that stays so. ``unknown`` has the reason
    of groups without any, ``Why.UNSUPPORTED`` where the broker does not offer the request. ``arrived_at`` is when each
    answer did.
    """

    answers: Sequence[wire.Offsets]
    arrived_at: Sequence[float]
    owner: Mapping[str, tuple[int, int]]
    unknown: Mapping[str, int]


class _Fetch:
    """One DescribeShareGroupOffsets to one coordinator, asked again and again."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self.groups = groups
        self._bodies: dict[int, bytes] = {}
        self._decoders: dict[int, wire.ShareOffsetsDecoder] = {}

    def encode(self, version: int) -> bytes:
        """Return the request body, the same bytes each time."""
        if version not in self._bodies:
            self._bodies[version] = wire.share_group_offsets_request(self.groups, version)
        return self._bodies[version]

    def decode(self, data: bytes, version: int) -> wire.Offsets:
        """Decode the answer, keeping its shape while only numbers move."""
        if version not in self._decoders:
            self._decoders[version] = wire.ShareOffsetsDecoder(version)
        return self._decoders[version].decode(data)


class ShareReader:
    """Reads start offsets and lags of all share groups."""

    def __init__(self, brokers: Brokers, clock: Callable[[], float]) -> None:
        self._brokers = brokers
        self._clock = clock
        self._fetches: dict[tuple[int, int], _Fetch] = {}
        self._owner: Mapping[str, tuple[int, int]] = {}

    async def read(
        self, poll: Poll, keeper: MapKeeper, patience: Patience, asked: Mapping[str, Collection[int]]
    ) -> Shares:
        """Ask every coordinator for all its share groups, and anew for those whose coordinator moves.

        ``asked`` maps each share group to the brokers that list it.
        """
        found = _Found()
        await self._round(poll, keeper, found, asked, self._fetch)
        while patience.is_left(open_ := found.moving(poll, asked)):
            await asyncio.sleep(PAUSE_SECONDS)
            if not await keeper.refresh(poll):
                break
            # Whoever does not coordinate a group (any more) says so: asking all finds the one that does.
            again = {
                name: asked[name] if why == COORDINATOR_LOAD_IN_PROGRESS else tuple(keeper.map.brokers)
                for (_, name), why in open_
            }
            await self._round(poll, keeper, found, again, lambda _node, _index, names: _Fetch(names))
        if found.owner != self._owner:
            self._owner = found.owner
        return Shares(found.answers, found.arrived_at, self._owner, found.unknown(poll, asked))

    async def _round(
        self,
        poll: Poll,
        keeper: MapKeeper,
        found: _Found,
        asked: Mapping[str, Collection[int]],
        make: Callable[[int, int, tuple[str, ...]], _Fetch],
    ) -> None:
        by_node: dict[int, list[str]] = defaultdict(list)
        for name, nodes in asked.items():
            for node in nodes:
                if node in keeper.map.brokers and node not in poll.down:
                    by_node[node].append(name)

        async def ask_all(node: int, names: list[str]) -> None:
            # One after another: a coordinator has other work to do.
            for index, first in enumerate(range(0, len(names), GROUPS_AT_ONCE)):
                if node in poll.down:
                    return
                fetch = make(node, index, tuple(names[first : first + GROUPS_AT_ONCE]))
                await self._ask(poll, keeper, found, node, fetch)

        await asyncio.gather(*(ask_all(node, names) for node, names in by_node.items()))

    async def _ask(self, poll: Poll, keeper: MapKeeper, found: _Found, node: int, fetch: _Fetch) -> None:
        address = keeper.map.brokers[node]
        try:
            answer = await self._brokers.ask(
                address, wire.DESCRIBE_SHARE_GROUP_OFFSETS, (0, 1), fetch.encode, fetch.decode
            )
        except TransportError as exc:
            if exc.why != Why.UNSUPPORTED:  # that is told with each group
                poll.broker_failed(node, address, exc)
            found.failed(fetch.groups, exc.why)
        else:
            found.add(answer, self._clock(), fetch.groups)

    def _fetch(self, node: int, index: int, names: tuple[str, ...]) -> _Fetch:
        fetch = self._fetches.get((node, index))
        if fetch is None or fetch.groups != names:
            fetch = self._fetches[node, index] = _Fetch(names)
        return fetch


class _Found:
    """Answers as they come in: an error counts only for groups that no other broker answered for."""

    def __init__(self) -> None:
        self.answers: list[wire.Offsets] = []
        self.arrived_at: list[float] = []
        self.owner: dict[str, tuple[int, int]] = {}
        self._error: dict[str, int] = {}

    def add(self, answer: wire.Offsets, at: float, asked: Collection[str]) -> None:
        """Take an answer; a group that it leaves out has none."""
        number, wanted = len(self.answers), set(asked)
        self.answers.append(answer)
        self.arrived_at.append(at)
        for index, (name, error) in enumerate(zip(answer.shape.groups, answer.shape.group_error.tolist(), strict=True)):
            if name not in wanted:
                continue
            wanted.remove(name)
            if error:
                self.failed([name], error)
            else:
                self.owner[name] = (number, index)
        self.failed(wanted, Why.MALFORMED)

    def failed(self, names: Iterable[str], why: int) -> None:
        """Note groups that got no answer; that a broker does not coordinate them says least."""
        for name in names:
            if self._error.get(name, NOT_COORDINATOR) == NOT_COORDINATOR or why != NOT_COORDINATOR:
                self._error[name] = why

    def moving(self, poll: Poll, asked: Mapping[str, Collection[int]]) -> list[tuple[tuple[str, str], int]]:
        """Return the groups worth asking again: what and why, as Patience wants it."""
        unknown = self.unknown(poll, asked)
        return [
            (("share group", name), why) for name, why in unknown.items() if why in MOVING or why == Why.NO_COORDINATOR
        ]

    def unknown(self, poll: Poll, asked: Mapping[str, Collection[int]]) -> dict[str, int]:
        """Return why each group without an answer has none."""
        return {name: self._why(poll, name, nodes) for name, nodes in asked.items() if name not in self.owner}

    def _why(self, poll: Poll, name: str, nodes: Collection[int]) -> int:
        # NOT_COORDINATOR from all that were asked while the coordinator is silent: the silence is the reason.
        silent = (poll.down[node] for node in nodes if node in poll.down)
        return next(silent, self._error.get(name, Why.NO_COORDINATOR))
