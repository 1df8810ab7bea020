"""Whom to ask, and asking: the brokers of a cluster, one bounded request at a time, and the map of its topics.

The list of brokers comes from our own Metadata answers. When none of them can be asked, the configured
addresses are tried again, so that a cluster that was away altogether is found again without help.

A ``Poll`` is the notebook of one cycle: which brokers failed it, every failure, and whether the cluster
counts as up. A broker that failed is not asked again in the same cycle, and is one entry however much
depends on it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from monitor.errors import TransportError
from monitor.model import UNKNOWN, Failure, Int16s, Int32s, PartitionLayout, Why, why_name
from monitor.observe.kafka import wire
from monitor.observe.kafka.transport import Address, Request, Transport
from monitor.settings import Filter

T = TypeVar("T")

# Codes that pass by themselves, soon: a coordinator or leader that moves or is not ready.
LEADER_NOT_AVAILABLE = 5
NOT_LEADER_OR_FOLLOWER = 6
COORDINATOR_LOAD_IN_PROGRESS = 14
COORDINATOR_NOT_AVAILABLE = 15
NOT_COORDINATOR = 16
UNKNOWN_TOPIC_OR_PARTITION = 3
TOPIC_AUTHORIZATION_FAILED = 29

MOVING = frozenset({
    Why.NO_LEADER,
    LEADER_NOT_AVAILABLE,
    NOT_LEADER_OR_FOLLOWER,
    8,  # BROKER_NOT_AVAILABLE
    9,  # REPLICA_NOT_AVAILABLE
    COORDINATOR_LOAD_IN_PROGRESS,
    COORDINATOR_NOT_AVAILABLE,
    NOT_COORDINATOR,
    74,  # FENCED_LEADER_EPOCH
    75,  # UNKNOWN_LEADER_EPOCH
    78,  # OFFSET_NOT_AVAILABLE: a new leader that does not know its high watermark yet (KIP-207)
})  # fmt: skip

# Codes that say nothing against the brokers: permissions, deletion races, what a broker does not offer.
HARMLESS = frozenset({
    Why.KNOWN,
    Why.NO_COMMIT,
    Why.TOPIC_GONE,
    Why.UNSUPPORTED,
    Why.SHARE_GROUP,
    UNKNOWN_TOPIC_OR_PARTITION,
    17,  # INVALID_TOPIC_EXCEPTION
    24,  # INVALID_GROUP_ID
    TOPIC_AUTHORIZATION_FAILED,
    30,  # GROUP_AUTHORIZATION_FAILED
    31,  # CLUSTER_AUTHORIZATION_FAILED
    35,  # UNSUPPORTED_VERSION
    43,  # UNSUPPORTED_FOR_MESSAGE_FORMAT
    69,  # GROUP_ID_NOT_FOUND
    100,  # UNKNOWN_TOPIC_ID
})  # fmt: skip

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0
"""Between two tries within a cycle while a leader or coordinator moves: the first, and what it doubles up to."""

HEAD_START_SECONDS = 0.5
"""How long one address has for itself before the next is tried as well."""

COMING_BACK_SECONDS = 0.1
"""How long a cycle waits for the word of silent brokers: one that has just come back gives it at once."""

LONGEST_THROTTLE_SECONDS = 60.0
"""A broker that asks to be left alone for longer is asked after that all the same: it may have meant something else."""

LAG_DEPENDS_ON = frozenset({wire.METADATA.key, wire.LIST_GROUPS.key, wire.OFFSET_FETCH.key, wire.LIST_OFFSETS.key})
"""The requests without which there is no lag; what else a broker does not answer takes nothing else along."""

ASIDE_SECONDS = 10.0
"""How long a broker is not asked again something else that it let time out twice in a row."""

OFFSETS_TOPIC = "__consumer_offsets"
"""Its partitions hold what groups committed: who leads one coordinates the groups in it."""

FAIR_SHARE = 0.5
"""Of the timeout, what a broker may use in every cycle: what others have used up is not its silence."""

BREATH_SECONDS = 0.1
"""Before a silent broker is asked again: what else it was asked at the same time times out first."""


def now() -> float:
    """Return the time by which this room waits and grows impatient: the event loop's, which a simulation may own."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class _Silent:
    """A broker that owes an answer: how it failed, and the task that asks again and again."""

    failure: TransportError
    asking: asyncio.Task[None]


class Brokers:
    """Asks brokers: each request bounded in time, counted by name, decoded.

    A broker that let a request time out is *silent*: the same request is sent to it again in the background until it
    is answered or refused, and meanwhile a cycle can do without it, so that it costs one timeout and not one a cycle.
    What was hanging decides, since a broker may answer one kind of request and not another. A request that no lag
    depends on is put aside for ASIDE_SECONDS instead: a broker answers one by one what comes on a connection, so
    asking on would hold up what it does answer.
    """

    def __init__(self, transport: Transport, timeout_seconds: float) -> None:
        self._transport = transport
        self.timeout_seconds = timeout_seconds
        self.requests: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.breaks: Counter[Address] = Counter()
        """How often the connection to each broke, or was dropped because an answer did not come."""
        self._deadline = float("inf")
        """When the requests of a cycle should all be over, of ``now()``, whatever its own time each has left."""
        self._spent_seconds: defaultdict[Address, float] = defaultdict(float)
        """What each broker used of the cycle."""
        self._silent: dict[Address, _Silent] = {}
        self._throttled_until: dict[Address, float] = {}
        self._aside: dict[tuple[Address, int], tuple[float, TransportError]] = {}

    def begin(self, seconds: float) -> None:
        """Begin a cycle, whose requests should all be over within this time."""
        self._deadline = now() + seconds
        self._spent_seconds.clear()

    def end(self) -> None:
        """End a cycle: requests have their own time again."""
        self._deadline = float("inf")

    async def ask(
        self,
        address: Address,
        api: wire.Api,
        offered: tuple[int, int],
        encode: Callable[[int], bytes],
        decode: Callable[[bytes, int], T],
    ) -> T:
        """Send one request in the highest version both sides speak, and decode the answer.

        Args:
            address: The broker.
            api: The request type.
            offered: Lowest and highest version that ``encode`` and ``decode`` know.
            encode: Version to request body.
            decode: Answer and version to result; may raise MalformedError.

        Raises:
            TransportError: No answer within the timeout, no connection, no common version, or not decodable.
        """
        self._be_put_aside(address, api)
        for attempt in (1, 2):
            try:
                answer, version = await self._send(address, api, offered, encode, self._seconds_left(address))
                break
            except TransportError as exc:
                self.breaks[address] += exc.why not in {Why.UNSUPPORTED, Why.THROTTLED}
                if exc.why == Why.TIMEOUT and api.key in LAG_DEPENDS_ON:
                    self._fell_silent(address, exc, partial(self._send, address, api, offered, encode))
                elif exc.why == Why.TIMEOUT:
                    self._put_aside(address, api, exc)
                # The connection may have broken while nobody used it (broker restarted): a fresh one decides.
                if exc.why != Why.DISCONNECTED or attempt == 2:  # noqa: PLR2004
                    raise
        self._aside.pop((address, api.key), None)
        try:
            decoded = decode(answer, version)
        except wire.MalformedError as exc:
            message = f"the answer of {address} to {api.name} v{version} could not be decoded: {exc}"
            raise TransportError(message, Why.MALFORMED) from exc
        if api.begins_with_throttle:
            throttle_seconds = int.from_bytes(answer[:4], "big", signed=True) / 1000
            if throttle_seconds > 0:
                self._throttled_until[address] = now() + min(throttle_seconds, LONGEST_THROTTLE_SECONDS)
        return decoded

    async def version(self, address: Address, api: wire.Api) -> int:
        """Return the highest version of a request that a broker offers, -1 if it does not.

        Raises:
            TransportError: It could not be connected in time.
        """
        seconds = self._seconds_left(address)
        try:
            async with self._within(seconds, address):
                return (await self._transport.versions(address)).get(api.key, (0, -1))[1]
        except TimeoutError as exc:
            self._transport.drop(address)
            message = f"{address} could not be connected within {seconds:.3g} s"
            raise TransportError(message, Why.TIMEOUT) from exc

    async def silent(self, addresses: Collection[Address]) -> dict[Address, TransportError]:
        """Return which of some brokers are silent still, and how they failed."""
        asking = [self._silent[address].asking for address in addresses if address in self._silent]
        if asking:
            await asyncio.wait(asking, timeout=COMING_BACK_SECONDS)
        return {address: self._silent[address].failure for address in addresses if address in self._silent}

    def retain(self, addresses: Collection[Address]) -> None:
        """Ask silent brokers no more that are not among these."""
        for address in self._silent.keys() - set(addresses):
            self._silent.pop(address).asking.cancel()
        self._aside = {key: aside for key, aside in self._aside.items() if key[0] in addresses}

    async def close(self) -> None:
        """Close every connection, and ask nobody any more."""
        asking = [silent.asking for silent in self._silent.values()]
        self.retain(())
        await asyncio.gather(*asking, return_exceptions=True)
        await self._transport.close()

    def _seconds_left(self, address: Address) -> float:
        of_its_own = FAIR_SHARE * self.timeout_seconds - self._spent_seconds[address]
        return max(0.0, min(self.timeout_seconds, max(self._deadline - now(), of_its_own)))

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float, address: Address) -> AsyncIterator[None]:
        """Bound what is done in time, and book it on the broker."""
        began = now()
        try:
            async with asyncio.timeout(seconds):
                yield
        finally:
            self._spent_seconds[address] += now() - began

    async def _send(
        self,
        address: Address,
        api: wire.Api,
        offered: tuple[int, int],
        encode: Callable[[int], bytes],
        seconds: float,
    ) -> tuple[bytes, int]:
        await self._be_throttled(address, seconds)
        try:
            async with self._within(seconds, address):
                version = _common(address, api, offered, await self._transport.versions(address))
                request = Request(api.key, version, version >= api.flexible_from, encode(version))
                self.requests[api.name] += 1
                answer = await self._transport.send(address, request)
        except TimeoutError as exc:
            self._transport.drop(address)
            message = f"{address} did not answer {api.name} within {seconds:.3g} s"
            raise TransportError(message, Why.TIMEOUT) from exc
        self.received_bytes[api.name] += len(answer)
        return answer, version

    async def _be_throttled(self, address: Address, seconds: float) -> None:
        """Leave a broker alone for as long as it told to (KIP-219): it does not read what is sent before."""
        left = self._throttled_until.get(address, 0.0) - now()
        if left <= 0:
            return
        if left > seconds:
            message = f"{address} throttles us for {left:.1f} s more (a quota of its)"
            raise TransportError(message, Why.THROTTLED)
        await asyncio.sleep(left)

    def _be_put_aside(self, address: Address, api: wire.Api) -> None:
        """Fail at once as the last time where a broker is not asked this for now."""
        until, failure = self._aside.get((address, api.key), (0.0, None))
        if failure is not None and now() < until:
            raise failure

    def _put_aside(self, address: Address, api: wire.Api, failure: TransportError) -> None:
        # Once may have been bad luck: only the second time in a row has it left alone.
        is_second = (address, api.key) in self._aside
        self._aside[address, api.key] = (now() + ASIDE_SECONDS if is_second else now(), failure)

    def _fell_silent(
        self, address: Address, failure: TransportError, send: Callable[[float], Awaitable[object]]
    ) -> None:
        if address not in self._silent:
            asking = asyncio.get_running_loop().create_task(self._until_answered(address, send))
            self._silent[address] = _Silent(failure, asking)

    async def _until_answered(self, address: Address, send: Callable[[float], Awaitable[object]]) -> None:
        await asyncio.sleep(BREATH_SECONDS)
        while True:
            try:
                await send(self.timeout_seconds)
                break
            except TransportError as exc:
                # Whatever comes at once costs a cycle nothing: then it is asked there, as everybody is.
                if exc.why != Why.TIMEOUT:
                    break
                self._silent[address].failure = exc
        del self._silent[address]


def _common(address: Address, api: wire.Api, ours: tuple[int, int], theirs: Mapping[int, tuple[int, int]]) -> int:
    low, high = theirs.get(api.key, (0, -1))
    version = min(high, ours[1])
    if version < max(low, ours[0]):
        message = f"{address} offers {api.name} v{low} to v{high}, v{ours[0]} to v{ours[1]} wanted"
        raise TransportError(message if high >= 0 else f"{address} does not offer {api.name}", Why.UNSUPPORTED)
    return version


@dataclass(frozen=True, slots=True, eq=False)
class ClusterMap:
    """The brokers and topics of one Metadata answer."""

    brokers: Mapping[int, Address]
    topics: Mapping[str, wire.Topic]
    topic_ids: Mapping[str, bytes] = field(default_factory=dict)
    offsets_partitions: int = 0
    """How many partitions ``__consumer_offsets`` has, 0 where it is not there or may not be seen."""


@dataclass(slots=True)
class Poll:
    """What one cycle has met so far."""

    down: dict[int, int] = field(default_factory=dict)
    """Brokers that failed in this cycle, and why: they are not asked again before the next."""
    failures: list[Failure] = field(default_factory=list)
    up: bool = True
    aside: set[int] = field(default_factory=set)
    """Brokers that failed something that no lag depends on: one entry each."""
    unreachable: int = 0
    """Why no broker answered at all, 0 while one does."""

    def note(self, scope: str, name: str, why: int, detail: str = "") -> None:
        """Note a failure of something that lag does not depend on."""
        self.failures.append(Failure(scope, name, why_name(why), detail))

    def fail(self, scope: str, name: str, why: int, detail: str = "") -> None:
        """Note a failure; all but the harmless ones mean that the cluster is not up."""
        self.note(scope, name, why, detail)
        self.up = self.up and why in HARMLESS

    def broker_failed(self, node: int, address: Address, exc: TransportError) -> None:
        """Note that a broker failed a request.

        One that could be reached but not understood may still be asked something else.
        """
        if node in self.down:
            return
        if exc.why not in {Why.MALFORMED, Why.UNSUPPORTED}:
            self.down[node] = exc.why
        self.fail("broker", f"{node} ({address})", exc.why, str(exc))

    def failed_aside(self, node: int, address: Address, exc: TransportError) -> None:
        """Note that a broker failed a request that no lag depends on: it may still be asked what lag needs."""
        if node not in self.aside and node not in self.down:
            self.aside.add(node)
            self.fail("broker", f"{node} ({address})", exc.why, str(exc))


class Patience:
    """How long to try again within a cycle: for the timeout in all, and only for what is new.

    What was left over by the cycle before is not waited for again: it is asked anew each cycle anyway,
    and a cluster that lacks a broker for hours must not spend every cycle waiting.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._given_up: frozenset[tuple[object, int]] = frozenset()
        self._open: set[tuple[object, int]] = set()
        self._ends_at = 0.0
        self._pause_seconds = PAUSE_SECONDS

    def start(self) -> None:
        """Begin a cycle: what the one before left open has been waited for."""
        self._given_up, self._open = frozenset(self._open), set()
        self._ends_at = now() + self._seconds
        self._pause_seconds = PAUSE_SECONDS

    def is_left(self, unresolved: Collection[tuple[object, int]]) -> bool:
        """Return whether to try again, given what is open: pairs of what and why. What is given up is remembered."""
        if now() < self._ends_at and not self._given_up.issuperset(unresolved):
            return True
        self._open.update(unresolved)
        return False

    async def pause(self) -> None:
        """Wait before trying again, twice as long as before."""
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)


class MapKeeper:
    """Holds the newest map of the cluster, and fetches a new one when it is due or known to be wrong."""

    def __init__(
        self, brokers: Brokers, bootstrap: Sequence[Address], interval_seconds: float, wanted: Filter | None = None
    ) -> None:
        self._brokers = brokers
        self._bootstrap = tuple(bootstrap)
        self._wanted = wanted or Filter()
        self._interval_seconds = interval_seconds
        self._answer: tuple[bytes, int] | None = None
        self._read_at = -np.inf
        self.map = ClusterMap({}, {})

    def expire(self) -> None:
        """Have the map fetched anew at the next chance: something it says proved wrong."""
        self._read_at = -np.inf

    async def refresh_if_due(self, poll: Poll) -> bool:
        """Fetch the map if it is old or has expired; return False if that was tried and failed."""
        due = now() - self._read_at >= self._interval_seconds
        return await self.refresh(poll) if due else True

    async def refresh(self, poll: Poll) -> bool:
        """Fetch the map from the first broker that answers; without any, the old map stays and False is returned."""
        if poll.unreachable:
            return False
        candidates = dict.fromkeys((*self.map.brokers.values(), *self._bootstrap))
        down = {self.map.brokers[node] for node in poll.down if node in self.map.brokers}
        silent = await self._brokers.silent(candidates)
        live = [partial(self._fetch, address) for address in candidates if address not in down | silent.keys()]
        try:
            if silent and not live:
                raise next(iter(silent.values()))
            self.map = await first_answer(live)
        except TransportError as exc:
            self.expire()
            poll.unreachable = exc.why
            poll.fail("cluster", ",".join(map(str, self._bootstrap)), exc.why, str(exc))
            return False
        self._read_at = now()
        self._brokers.retain((*self.map.brokers.values(), *self._bootstrap))
        return True

    async def note_silent(self, poll: Poll) -> None:
        """Note which brokers of the map are silent still: they are not asked in this cycle."""
        silent = await self._brokers.silent(set(self.map.brokers.values()))
        for node, address in self.map.brokers.items():
            if address in silent:
                poll.broker_failed(node, address, silent[address])

    async def topic_errors(self, poll: Poll, topics: Sequence[str]) -> dict[str, int]:
        """Ask by name for topics that the map lacks: the code of each tells gone from forbidden."""
        live = [address for node, address in self.map.brokers.items() if node not in poll.down]
        try:
            metadata = await first_answer([partial(self._by_name, address, topics) for address in live])
        except TransportError:
            return {}
        return {topic.name: topic.error for topic in metadata.topics}

    async def _fetch(self, address: Address) -> ClusterMap:
        named = self._wanted.names
        encode = partial(wire.metadata_request, None if named is None else sorted({*named, OFFSETS_TOPIC}))
        return await self._brokers.ask(address, wire.METADATA, (9, 12), encode, partial(self._decode, address))

    def _decode(self, address: Address, data: bytes, version: int) -> ClusterMap:
        # Byte for byte the answer before: the same map, and everything built on it may stay.
        if self._answer == (data, version):
            return self.map
        metadata = wire.decode_metadata(data, version)
        if not metadata.brokers:
            message = f"{address} does not know any broker of its cluster yet"
            raise TransportError(message, COORDINATOR_NOT_AVAILABLE)
        self._answer = (data, version)
        brokers = {broker.node: Address(broker.host, broker.port) for broker in metadata.brokers}
        # A topic that was asked for by name and is not there is an entry with an error and no partitions.
        topics = [topic for topic in metadata.topics if self._wanted.takes(topic.name) and len(topic.partitions)]
        ids = {topic.name: topic.id for topic in topics if topic.id}
        offsets = next((len(topic.partitions) for topic in metadata.topics if topic.name == OFFSETS_TOPIC), 0)
        return ClusterMap(brokers, {topic.name: topic for topic in topics}, ids, offsets)

    async def _by_name(self, address: Address, topics: Sequence[str]) -> wire.Metadata:
        encode = partial(wire.metadata_request, topics)
        return await self._brokers.ask(address, wire.METADATA, (9, 12), encode, wire.decode_metadata)


async def first_answer(asks: Sequence[Callable[[], Awaitable[T]]]) -> T:
    """Try one after another, each with a head start before the next, and return the first answer.

    Raises:
        TransportError: None answered; the reason of the first.
    """
    waiting = list(asks)
    pending: set[asyncio.Future[T]] = set()
    errors: list[BaseException] = []
    try:
        while waiting or pending:
            if waiting:
                pending.add(asyncio.ensure_future(waiting.pop(0)()))
            head_start = HEAD_START_SECONDS if waiting else None
            done, pending = await asyncio.wait(pending, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    return task.result()
                errors.append(error)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    raise errors[0] if errors else TransportError("no broker is left to ask", Why.REFUSED)


class Rows:
    """A partition layout, and the way from topics and partitions to its rows."""

    def __init__(self, layout: PartitionLayout) -> None:
        self.layout = layout
        self._index = {name: index for index, name in enumerate(layout.topics)}
        self._counts = np.bincount(layout.topic, minlength=len(layout.topics) + 1)
        self._firsts = np.cumsum(self._counts) - self._counts
        # Partitions are numbered 0 to n-1 but where a topic is known from its commits only.
        sparse = layout.partition != np.arange(len(layout)) - self._firsts[layout.topic]
        self._sparse = {
            (int(layout.topic[row]), int(layout.partition[row])): int(row)
            for row in np.flatnonzero(np.isin(layout.topic, layout.topic[sparse]))
        }
        self._is_sparse = np.zeros(len(layout.topics) + 1, np.bool_)
        self._is_sparse[layout.topic[sparse]] = True

    def topic_number(self, name: str) -> int | None:
        """Return the index of a topic, None if the layout has none of that name."""
        return self._index.get(name)

    def of_topic(self, number: int) -> Int32s:
        """Return the rows of a topic."""
        first = self._firsts[number]
        return np.arange(first, first + self._counts[number], dtype=np.int32)

    def find(self, topics: Sequence[str], topic: Int32s, partition: Int32s) -> Int32s:
        """Return the row of each (``topics[topic[i]]``, ``partition[i]``), -1 where the layout has none."""
        # The last index stands for "no such topic": it has no partitions.
        nowhere = len(self.layout.topics)
        ours = np.array([self._index.get(name, nowhere) for name in topics] or [nowhere], np.int64)[topic]
        rows = self._firsts[ours] + partition
        rows[(partition < 0) | (partition >= self._counts[ours])] = UNKNOWN
        for i in np.flatnonzero(self._is_sparse[ours]):
            rows[i] = self._sparse.get((int(ours[i]), int(partition[i])), UNKNOWN)
        return rows.astype(np.int32)


def lay_out(cluster_map: ClusterMap, used: Mapping[str, Collection[int]], before: Rows | None) -> Rows:
    """Lay out the rows of a cluster: every topic that is not internal, and every partition somebody uses.

    Args:
        cluster_map: The newest map.
        used: Partitions with a position, by topic: internal topics and what the map does not know (any more).
        before: The rows so far, returned as they are if nothing came or went.
    """
    tables = {
        name: topic.partitions for name, topic in cluster_map.topics.items() if name in used or not topic.internal
    }
    for name, partitions in used.items():
        known = tables.get(name, _NO_PARTITIONS)
        tables[name] = np.union1d(known, np.array(sorted(partitions), np.int32)).astype(np.int32)
    names = tuple(sorted(name for name, partitions in tables.items() if len(partitions)))
    layout = PartitionLayout(
        names,
        np.repeat(np.arange(len(names), dtype=np.int32), [len(tables[name]) for name in names]),
        np.concatenate([_NO_PARTITIONS, *(tables[name] for name in names)]),
    )
    return before if before is not None and before.layout.same_rows(layout) else Rows(layout)


_NO_PARTITIONS = np.empty(0, np.int32)


def leaders(cluster_map: ClusterMap, rows: Rows, errors: Mapping[str, int]) -> tuple[Int32s, Int16s]:
    """Return the leader of each row (-1 without) and why it cannot be asked (0 if it can).

    ``errors`` has the code of topics that the map lacks, if it was asked for.
    """
    layout = rows.layout
    leader = np.full(len(layout), UNKNOWN, np.int32)
    why = np.full(len(layout), Why.TOPIC_GONE, np.int16)
    names: list[str] = []
    topic, partition, leading = [], [], []
    for index, name in enumerate(layout.topics):
        found = cluster_map.topics.get(name)
        if found is not None:
            topic.append(np.full(len(found.partitions), len(names), np.int32))
            names.append(name)
            partition.append(found.partitions)
            leading.append(found.leaders)
        elif errors.get(name, 0) not in {0, UNKNOWN_TOPIC_OR_PARTITION}:
            why[layout.topic == index] = errors[name]
    if names:
        at = rows.find(names, np.concatenate(topic), np.concatenate(partition))
        leading_all = np.concatenate(leading)[at >= 0]
        at = at[at >= 0]
        leader[at] = leading_all
        why[at] = np.where(leading_all >= 0, 0, Why.NO_LEADER)
    return leader, why
