"""Whether a coordinator knows all that was acknowledged before it took over.

What groups committed is the log of a partition of ``__consumer_offsets``, and whoever leads that partition coordinates
them. A new leader serves what its log holds up to the high watermark, which it learns from its followers: until it has
caught up with the end of its predecessors' log, it answers OffsetFetch with older offsets, or with none, and without
an error. The same broker says so of the partition, though: it refuses to tell the log end (OFFSET_NOT_AVAILABLE,
KIP-207) for exactly as long. So it is asked for that first, once for every partition it has taken over.

What was said holds for as long as the connection does, nobody else says that he leads the partition, and the broker
does not refuse to answer for its groups.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import numpy as np

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import NOT_LEADER_OR_FOLLOWER, OFFSETS_TOPIC, Brokers, ClusterMap, Patience, Poll
from monitor.observe.kafka.transport import Address

OFFSET_NOT_AVAILABLE = 78
BEHIND = frozenset({OFFSET_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER})
"""What was said of a partition by a broker that may not know all of it, if it answers for its groups all the same."""

LEADS = frozenset({0, OFFSET_NOT_AVAILABLE})
"""What a broker says of a partition that it leads."""

PASSING = frozenset({OFFSET_NOT_AVAILABLE, Why.MALFORMED, 5, 8, 9})
"""Answers after which a partition is asked for again: 5, 8 and 9 are of a leader or replica that is not there yet."""

BEHIND_TEXT = "it has just taken over and does not know all groups yet"


def offsets_partition(group: str, partitions: int) -> int:
    """Return the partition of ``__consumer_offsets`` that a group is in.

    That is the absolute value of Java's ``String.hashCode()``, over UTF-16 code units, modulo the number of partitions
    (GroupCoordinatorService.partitionFor, Utils.abs).
    """
    units = np.frombuffer(group.encode("utf-16-le", "surrogatepass"), "<u2").tolist()
    code = 0
    for unit in units:
        code = (31 * code + unit) & 0xFFFFFFFF
    if code >= 1 << 31:
        code = (1 << 32) - code
    return 0 if code == 1 << 31 else code % partitions


class Takeovers:
    """Asks brokers whether they know all of the groups that they coordinate, and remembers those that do."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._said: dict[Address, tuple[int, dict[int, int]]] = {}
        self._partitions = 0
        self._of: dict[str, int] = {}
        self._sure: dict[Address, tuple[dict[int, int], list[Sequence[str]]]] = {}
        """Groups (the same object from cycle to cycle) of which a broker knows all by what it said last."""

    async def ask(self, address: Address, partitions: int) -> bool:
        """Ask a broker for those partitions that it has not answered for; most cycles there are none.

        Args:
            address: The broker.
            partitions: How many ``__consumer_offsets`` has, 0 if that is not known: nothing is asked then.

        Returns:
            Whether it knows all of those that it leads, as far as anybody can tell.

        Raises:
            TransportError: As Brokers.ask.
        """
        if partitions != self._partitions:
            self._partitions = partitions
            for known in (self._of, self._said, self._sure):
                known.clear()
        said = self._said_by(address)
        unasked = [number for number in range(partitions) if said.get(number, OFFSET_NOT_AVAILABLE) in PASSING]
        if unasked:
            answer = await self._ask(address, unasked)
            said = self._said_by(address)  # a connection that broke meanwhile was made anew for the answer
            new = [number for number, code in answer.items() if code in LEADS and said.get(number) not in LEADS]
            said.update(answer)
            self._sure.pop(address, None)
            self._take_over(address, new)
        return OFFSET_NOT_AVAILABLE not in said.values()

    async def ask_all(self, poll: Poll, cluster_map: ClusterMap, patience: Patience) -> None:
        """Ask every broker, until all know all or there is no time left: before that, no list of groups is complete."""
        while True:
            live = [node for node in cluster_map.brokers if node not in poll.down]
            ready = await asyncio.gather(*(self._is_ready(poll, cluster_map, node) for node in live))
            behind = [node for node, is_ready in zip(live, ready, strict=True) if not is_ready]
            if not patience.is_left([(("coordinator", node), int(Why.NEW_COORDINATOR)) for node in behind]):
                break
            await patience.pause()
        for node in behind:
            poll.fail("broker", f"{node} ({cluster_map.brokers[node]})", Why.NEW_COORDINATOR, BEHIND_TEXT)

    async def _is_ready(self, poll: Poll, cluster_map: ClusterMap, node: int) -> bool:
        address = cluster_map.brokers[node]
        try:
            return await self.ask(address, cluster_map.offsets_partitions)
        except TransportError as exc:
            self.failed(address)
            poll.broker_failed(node, address, exc)
            return True

    def unready(self, address: Address, answered: Sequence[str], refused: Sequence[str]) -> dict[str, int]:
        """Return which groups a broker may not know all of, and why, given how it has just answered OffsetFetch.

        Args:
            address: The broker.
            answered: The groups that it answered for.
            refused: The groups that it answered with an error: it may not coordinate them any more.

        Returns:
            Why.NEW_COORDINATOR for those it may not know all of, any other reason for those of which nobody can tell:
            its answer is all there is.
        """
        if not self._partitions:
            return dict.fromkeys(answered, Why.UNSUPPORTED)
        said = self._said_by(address)
        if not refused and self._is_sure(address, said, answered):
            return {}
        self._sure.pop(address, None)
        for group in refused:
            if said.get(self._partition(group)) == 0:
                del said[self._partition(group)]
        unready = {}
        for group in answered:
            code = said.get(self._partition(group), OFFSET_NOT_AVAILABLE)
            if code in BEHIND:
                unready[group] = int(Why.NEW_COORDINATOR)
            elif code:
                unready[group] = code
            if code == NOT_LEADER_OR_FOLLOWER:
                del said[self._partition(group)]  # it has become the leader since
        return unready

    def _is_sure(self, address: Address, said: dict[int, int], groups: Sequence[str]) -> bool:
        if address not in self._sure or self._sure[address][0] is not said:
            self._sure[address] = (said, [])
        sure = self._sure[address][1]
        if any(each is groups for each in sure):
            return True
        is_sure = not any(said.get(self._partition(group), OFFSET_NOT_AVAILABLE) for group in groups)
        if is_sure:
            # As many as there are questions to a broker; those that have changed go in time.
            self._sure[address] = (said, [*sure[-100:], groups])
        return is_sure

    def failed(self, address: Address) -> None:
        """Drop what a broker said: it has failed, and may know less when it answers again."""
        self._said.pop(address, None)

    def forget(self, groups: Iterable[str]) -> None:
        """Drop groups that are gone."""
        for group in groups:
            self._of.pop(group, None)

    def _take_over(self, address: Address, partitions: Sequence[int]) -> None:
        """Take note that somebody leads these: whoever said so before has to say it again."""
        for other, (_, said) in self._said.items():
            gone = [number for number in partitions if said.get(number) == 0] if other != address else []
            for number in gone:
                del said[number]
            if gone:
                self._sure.pop(other, None)

    def _said_by(self, address: Address) -> dict[int, int]:
        """Return the error code of each partition that a broker answered for since its connection last broke."""
        breaks = self._brokers.breaks[address]
        if address not in self._said or self._said[address][0] != breaks:
            self._said[address] = (breaks, {})
        return self._said[address][1]

    def _partition(self, group: str) -> int:
        if group not in self._of:
            self._of[group] = offsets_partition(group, self._partitions)
        return self._of[group]

    async def _ask(self, address: Address, partitions: Sequence[int]) -> dict[int, int]:
        question = [(OFFSETS_TOPIC, np.array(partitions, np.int32), wire.LATEST)]
        try:
            answer = await self._brokers.ask(
                address,
                wire.LIST_OFFSETS,
                (6, 11),
                lambda version: wire.list_offsets_request(question, version),
                lambda data, _version: wire.ListOffsetsDecoder().decode(data),
            )
        except TransportError as exc:
            if exc.why not in {Why.MALFORMED, Why.UNSUPPORTED}:
                raise
            return dict.fromkeys(partitions, exc.why)
        shape = answer.shape
        at = np.array([topic == OFFSETS_TOPIC for topic in shape.topics], np.bool_)[shape.topic]
        said = dict(zip(shape.partition[at].tolist(), shape.error[at].tolist(), strict=True))
        return {number: said.get(number, int(Why.MALFORMED)) for number in partitions}
