"""The Faust table that panes are kept in: its changelog is written a flush at a time and read in whole batches.

Faust declares the changelog (compacted), gives its partitions to the workers that read those of the topic, and has
them read back before records come. Entries are those of ``processors.kept``. Open windows live in memory; the table
holds a partition's entries only from when they are read back until its first record. With ``rocksdb://`` as the
app's store, entries are also on disk, and only what was written since then is read from the changelog.

What this worker has written itself is not read back: a partition that stays through a rebalance goes on as it is. Had
the worker missed a generation of the group, another one may have written, and all is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import faust
from faust.stores import memory, rocksdb
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.types import TP

from processors.batches import partitions_of

Entry = tuple[bytes, bytes | None]

ROCKSDB_OPTIONS = {
    "block_cache_size": 16 << 20,  # what is read is read once, in order
    "write_buffer_size": 16 << 20,
}
"""Bytes. Faust's defaults allow two gigabytes of cache for each partition of each table."""


class InMemory(memory.Store[bytes, bytes]):
    """Entries that were read back, until they are taken."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._entries: dict[int, dict[bytes, bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def apply(self, tp: TP, entries: Iterable[Entry], offset: int) -> None:
        """Note entries of the changelog up to an offset; None for a value deletes."""
        held = self._entries.setdefault(tp.partition, {})
        for key, value in entries:
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value

    def written(self, tp: TP, entries: Iterable[Entry], offset: int) -> None:
        """Note what was written to the changelog, up to an offset."""

    def take(self, partition: int) -> Mapping[bytes, bytes]:
        """Return the entries of a partition and forget them."""
        return self._entries.pop(partition, {})

    def drop(self, partition: int) -> None:
        """Forget the entries of a partition."""
        self._entries.pop(partition, None)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return None: what is in memory does not outlive the worker."""
        return None

    def reset_state(self) -> None:
        """Forget all."""
        self._entries.clear()


class OnDisk(rocksdb.Store):
    """Entries in one database a partition, each with the offset of the changelog that it has come to."""

    def __len__(self) -> int:
        return 0 if not self._dbs else int(self._size())

    def apply(self, tp: TP, entries: Iterable[Entry], offset: int) -> None:
        """Write entries of the changelog and how far it was read, in one step."""
        batch = rocksdb.WriteBatch(raw_mode=True)  # type: ignore[attr-defined]
        for key, value in entries:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.offset_key, b"%d" % offset)
        self._db_for_partition(tp.partition).write(batch)

    written = apply

    def take(self, partition: int) -> Mapping[bytes, bytes]:
        """Return the entries of a partition."""
        return dict(self._visible_items(self._db_for_partition(partition)))

    def drop(self, partition: int) -> None:
        """Leave entries on disk: when the partition comes back, only what is new is read."""


class PaneTable(faust.Table[bytes, bytes]):
    """The table of the panes of one topic.

    ``forget`` is told of partitions whose windows are not valid any more, ``write_again`` of entries of valid ones that
    another worker has written.
    """

    def __init__(
        self,
        app: faust.App,
        topic: str,
        forget: Callable[[int], None],
        write_again: Callable[[int, list[bytes]], None],
        **options: Any,
    ) -> None:
        super().__init__(app, name="panes", key_type=bytes, value_type=bytes, **options)
        self.source = topic
        self._forget = forget
        self._write_again = write_again
        self._known: dict[int, int] = {}  # by partition: the offset of its changelog that is known, or was written
        self._taken: set[int] = set()
        self._generation = -1
        self.is_ready = False
        """Whether all that is kept has been read back since the last rebalance."""

    def _new_store_by_url(self, url: Any) -> Any:
        kind = OnDisk if str(url).startswith("rocksdb:") else InMemory
        return kind(
            url,
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            loop=self.loop,
            options=dict(ROCKSDB_OPTIONS),
        )

    @property
    def store(self) -> InMemory | OnDisk:
        """Return where entries are."""
        return cast("InMemory | OnDisk", self.data)

    def take(self, partition: int) -> Mapping[bytes, bytes]:
        """Return what is kept of a partition; only once, until the partition is forgotten.

        Raises:
            RuntimeError: it was taken already.
        """
        if partition in self._taken:
            problem = f"what is kept of {self.source} partition {partition} was taken already, and lost"
            raise RuntimeError(problem)
        self._taken.add(partition)
        return self.store.take(partition)

    def written(self, partition: int, entries: Iterable[Entry], offset: int) -> None:
        """Note what was written to the changelog of a partition, up to an offset."""
        self._known[partition] = offset
        self.store.written(TP(self.changelog_topic_name, partition), entries, offset)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return the offset of the changelog up to which nothing needs to be read; -1 to read all."""
        known = self._known.get(tp.partition)
        if known is None:
            known = self.store.persisted_offset(tp)
        return -1 if known is None else known

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Forget partitions that went, and all if other workers may have had them."""
        self.is_ready = False
        # Faust clears it every five seconds: set by the last recovery, it would end the next one at once.
        self._recovery.signal_recovery_end.clear()
        # A leader that does not know of a topic yet assigns the other without it.
        mine = partitions_of(assigned, self.changelog_topic_name) & partitions_of(assigned, self.source)
        is_next = generation_id == self._generation + 1
        self._generation = generation_id
        for partition in list(self._known.keys() | self._taken):
            if not is_next or partition not in mine:
                self._known.pop(partition, None)
                self._taken.discard(partition)
                self.store.drop(partition)
                self._forget(partition)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Note that all has been read back, unless another rebalance has begun."""
        await super().on_recovery_completed(active_tps, standby_tps)
        if self._recovery._generation_id != self._generation:  # noqa: SLF001  # nothing else tells
            return
        if self._recovery.need_recovery():
            problem = f"{self.changelog_topic_name} was not read to its end, and windows would begin from an old state"
            await self.app.crash(RuntimeError(problem))
        else:
            self.is_ready = True

    @property
    def _recovery(self) -> Recovery:
        return cast("TableManager", self.app.tables).recovery

    async def read_back(self, tp: TP, records: Sequence[Any], is_current: Callable[[], bool]) -> None:
        """Take a batch of the changelog; tell Faust when all has been read."""
        recovery = self._recovery
        if tp not in recovery.active_tps:
            return
        seen = recovery.active_offsets[tp]
        fresh = [record for record in records if seen is None or record.offset > seen]
        if fresh:
            offset = fresh[-1].offset
            if tp.partition in self._taken:  # it came when this worker had begun: of one that had lost the partition
                self._write_again(tp.partition, [record.key for record in fresh])
            self.store.apply(tp, ((record.key, record.value) for record in fresh), offset)
            self._known[tp.partition] = offset
            recovery.active_offsets[tp] = offset
        if recovery.in_recovery and not recovery.need_recovery():
            recovery.signal_recovery_end.set()
