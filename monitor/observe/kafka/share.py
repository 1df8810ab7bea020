"""Where share groups are (KIP-932): start offset and lag of their partitions, as their coordinators tell.

A share group commits nothing. Its share partitions have a start offset, before which everything is done (the one told
may be behind that: no lag can be computed from it); beyond it
single records are done, being worked on, or free, so end minus start is more than its lag. Brokers since Kafka 4.2
count the lag themselves (KIP-1226, DescribeShareGroupOffsets v1); 4.1 tells the start offset only, and before that
nobody can be asked.

To answer, a broker reads a summary of every share partition and, for the lag, every log end: that costs it more than
an OffsetFetch, so few groups go into one request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from monitor.model import Why
from monitor.observe.kafka import wire
from monitor.observe.kafka.cluster import Brokers, MapKeeper, Patience, Poll
from monitor.observe.kafka.commits import Asking, CommitReader, Commits
from monitor.observe.kafka.groups import Group

SHARED = Asking(
    wire.DESCRIBE_SHARE_GROUP_OFFSETS,
    (0, 1),
    wire.share_group_offsets_request,
    wire.ShareOffsetsDecoder,
    groups_at_once=100,
)


NOTHING = Commits((), (), {}, {})
"""What there is where there is no share group."""


class ShareReader:
    """Reads start offsets and lags of all share groups."""

    def __init__(self, brokers: Brokers, clock: Callable[[], float]) -> None:
        self._reader = CommitReader(brokers, clock, SHARED)

    async def read(self, poll: Poll, keeper: MapKeeper, patience: Patience, groups: Iterable[Group]) -> Commits:
        """Ask every coordinator for all its share groups, and anew for those whose coordinator moves.

        Returns:
            The answers; ``offset`` of each is the start offset. A group whose broker does not offer the request is
            unknown with ``Why.SHARE_GROUP``.
        """
        groups = tuple(groups)
        if not groups:
            return NOTHING
        found = await self._reader.read(poll, keeper, patience, {group.name: group.nodes for group in groups})
        too_old = [name for name, why in found.unknown.items() if why == Why.UNSUPPORTED]
        return found.without(too_old, Why.SHARE_GROUP) if too_old else found

    def forget(self, names: Iterable[str]) -> None:
        """Drop groups that are gone."""
        self._reader.forget(names)
