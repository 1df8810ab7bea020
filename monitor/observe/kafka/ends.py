"""Log starts, last stable offsets and log ends from the leaders.

All partitions of a leader go into one ListOffsets for each question. Questions are encoded once and asked again until
who leads what changes. What a leader leaves out of its answer is a failure: never zero, never what it said before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monitor.errors import TransportError
from monitor.model import UNKNOWN, Bools, Floats, Int16s, Int32s, Int64s, Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import (
    MOVING,
    UNKNOWN_TOPIC_OR_PARTITION,
    Brokers,
    ClusterMap,
    MapKeeper,
    Patience,
    Poll,
    Rows,
    leaders,
)

# 27 bytes a partition: about 3 MB an answer.
PARTITIONS_AT_ONCE = 100_000


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
            for node, reason in poll.down.items():
                why = np.where((why == 0) & (leader == node), np.int16(reason), why)
            for question in QUESTIONS:
                moved = again & ((why != 0) | ~asked)
                ends.why[question][moved] = why[moved]
            again &= why == 0
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
