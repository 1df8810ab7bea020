"""A Faust consumer that hands over whole fetched batches, beside Faust's own way of a task for each record.

Topics that have a *taker* are taken in batches; records of other topics, those of raw agents, go Faust's way. What a
taker has taken is committed when it says so (``release``), by Faust's own commits.

What Faust keeps, and how it is kept here:

- *Gaps*: offsets that no record has (compacted, or of transactions) hold back no commit: what is released is the
  offset after a record, whatever lies before it.
- *Commit*: nothing is committed that was not released; what was released before a rebalance is committed before the
  partitions go. (Faust 0.15 forgets what is acknowledged before it asks for that last commit.)
- *Suspend*: nothing is handed over between the beginning of a rebalance and its end; a batch on its way is dropped,
  and read again.
- *Rebalance*: a batch that was fetched before a seek is dropped. Faust tells by the generation when it looks at the
  batch, which may be a later one than when it was fetched.

Faust seeks to committed offsets when it resumes, and only those partitions that have one. Records of the others that
were fetched before and dropped would be lost to this worker: here these are sought to where they begin.

Of ``aiokafka`` private attributes are used where Faust's own driver does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import faust
from aiokafka.errors import ConsumerStoppedError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from monitor.errors import UsageError

Fetched = tuple[Mapping[TP, Sequence[Any]], Mapping[TP, int]]

Taker = Callable[[TP, Sequence[Any], Callable[[], bool]], Coroutine[Any, Any, None]]
"""Takes records of a partition. The function says whether it may go on: ask again after each await."""

POLL_SECONDS = 1.0

YIELD_EVERY = 100
"""Records that go Faust's way before others get their turn; as Faust's."""


class TopicMadeAnewError(UsageError):
    """A topic ends before what was committed in it: it was deleted and made again."""


class BatchThread(AIOKafkaConsumerThread):
    """Fetches and seeks in the consumer's thread, and counts the seeks: a batch is of those before or those after."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seeks: Counter[TP] = Counter()

    def _stopped_set(self) -> None:
        if self.thread_loop.is_closed():  # it has ended by itself, as the app crashed
            self._stopped.set()
        else:
            super()._stopped_set()

    async def fetch(self, active: set[TP]) -> Fetched:
        """Return fetched records by partition, and how many seeks of it came before them.

        By partition, as what is dropped has to be fetched again: only a seek of its own partition sees to that.
        """
        fetched: Fetched = await self.call_thread(self._fetch, active)
        return fetched

    async def _fetch(self, active: set[TP]) -> Fetched:
        consumer = self._ensure_consumer()
        most = self.app.conf.broker_max_poll_records
        records = await self._fetch_records(consumer, active, timeout=POLL_SECONDS, max_records=most)
        return records, {tp: self.seeks[tp] for tp in records}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek all partitions to their committed offsets, or to where they begin."""
        committed: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return committed

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        changelogs = self.app.tables.changelog_topics
        assigned = [tp for tp in consumer.assignment() if tp.topic not in changelogs]
        committed = {tp: await consumer.committed(tp) for tp in assigned}
        fresh = [tp for tp in assigned if committed[tp] is None]
        begins = {}
        if fresh:
            from_end = self.app.conf.consumer_auto_offset_reset == "latest"
            begins = await (consumer.end_offsets(fresh) if from_end else consumer.beginning_offsets(fresh))
        # No await from here on: what is fetched is of before all of these, or of after.
        for tp in assigned:
            if tp in consumer.assignment():
                consumer.seek(tp, begins[tp] if committed[tp] is None else committed[tp])
                self.seeks[tp] += 1
        return {tp: offset for tp, offset in committed.items() if offset is not None}

    async def _seek_wait(self, consumer: Any, partitions: Mapping[TP, int]) -> None:
        # As Faust's; the seeks are counted together with them.
        read = self.consumer._read_offset  # noqa: SLF001  # as Faust's own does
        for tp, offset in partitions.items():
            consumer.seek(tp, offset)
            read.pop(tp, None)
            if offset > 0:
                read[tp] = offset
            self.seeks[tp] += 1
        positions = asyncio.gather(*[consumer.position(tp) for tp in partitions])
        await asyncio.wait_for(positions, self.app.conf.broker_request_timeout)


class BatchConsumer(Consumer):
    """Hands batches to takers, and other records to Faust."""

    app: BatchApp
    _thread: BatchThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._released: dict[TP, int] = {}
        self._takers: dict[str, Taker] = {}
        self._opened = asyncio.Event()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    def take_batches(self, topic: str, taker: Taker) -> None:
        """Hand records of a topic to a taker from now on."""
        self._takers[topic] = taker

    def release(self, tp: TP, offset: int) -> None:
        """Let an offset be committed: what comes before it has been taken, and its effects are acknowledged."""
        self._released[tp] = offset

    async def is_member(self) -> bool:
        """Return whether the group still counts on this worker: whether it may commit again what it has committed."""
        held = self.assignment()
        committed = {tp: offset for tp, offset in self._committed_offset.items() if offset and tp in held}
        return not committed or await self._thread.commit(committed)

    # Flow: open from ``resume_flow`` to the next seek or ``stop_flow``.

    def stop_flow(self) -> None:
        """Hand nothing over any more."""
        self._opened.clear()
        super().stop_flow()

    def resume_flow(self) -> None:
        """Hand over what was fetched after the last seek."""
        super().resume_flow()
        self._opened.set()

    async def perform_seek(self) -> None:
        """Seek to committed offsets; nothing is handed over until the flow is resumed after it."""
        self._opened.clear()
        for tp in list(self._read_offset):
            if not self._is_changelog_tp(tp):
                del self._read_offset[tp]
        await super().perform_seek()

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek; nothing is handed over until the flow is resumed after it."""
        self._opened.clear()
        await super().seek_wait(partitions)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)
                if not self._opened.is_set():
                    await fetcher.wait(self._opened.wait())
                    continue
                active = self._get_active_partitions()
                if not active:
                    await fetcher.sleep(POLL_SECONDS / 10)
                    continue
                records, seeks = await self._thread.fetch(set(active))
                if not self._opened.is_set():  # a seek has begun, and they may be of after it
                    await fetcher.wait(self._opened.wait())
                await self._hand_over(records, seeks, set(active))
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    async def _hand_over(self, records: Mapping[TP, Sequence[Any]], seeks: Mapping[TP, int], active: set[TP]) -> None:
        def is_current(tp: TP) -> bool:
            return self._opened.is_set() and seeks[tp] == self._thread.seeks[tp] and not self.should_stop

        others: dict[TP, list[Any]] = {}
        for tp, batch in records.items():
            taker = self._takers.get(tp.topic)
            if taker is None:
                others[tp] = list(batch)
            elif is_current(tp):
                place = TP(tp.topic, tp.partition)
                self._check_begin(place, batch[0].offset)
                self.app.monitor.track_tp_end_offset(place, self.highwater(tp))
                await taker(place, batch, partial(is_current, tp))
        for number, (tp, record) in enumerate(self.scheduler.iterate(others) if others else ()):
            if not is_current(tp):
                continue
            if number % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
            if tp in active or tp in self._buffered_partitions:
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                await self._hand_over_one(tp, self._to_message(tp, record))

    def _check_begin(self, tp: TP, offset: int) -> None:
        committed = self._committed_offset[tp]
        if committed is not None and offset < committed and tp.topic not in self.app.tables.changelog_topics:
            problem = (
                f"{tp.topic} partition {tp.partition} has a record {offset} to read, but the group {self.app.conf.id} "
                f"has committed {committed}: the topic was deleted and made again, or the group's offsets were moved "
                "by hand; start under another name"
            )
            raise TopicMadeAnewError(problem)

    async def _hand_over_one(self, tp: TP, message: Any) -> None:
        """As Faust does: note gaps, and wait for room in the buffer or for the flow to stop."""
        offset, read = message.offset, self._read_offset[tp]
        if read is not None and offset < read:
            return
        if read and offset - read > 1 and self.app.topics.acks_enabled_for(message.topic):
            await self._add_gap(tp, read + 1, offset)
        if self._commit_every is not None and self._n_acked >= self._commit_every:
            self._n_acked = 0
            await self.commit()
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        self._read_offset[tp] = offset

    # Commits: Faust's own, of what was released as of what was acknowledged.

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        yield from super()._filter_tps_with_pending_acks(topics)
        yield from (tp for tp in list(self._released) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        released = self._released.get(tp)
        offset: int | None = super()._new_offset(tp) if released is None else released
        return offset

    async def wait_empty(self) -> None:
        """Wait for takers to have written what they took, then as Faust does for others, and commit."""
        await self.app.write_out(is_last=True)
        await super().wait_empty()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Have takers write for the last time, commit what was released, then forget it."""
        self._opened.clear()  # Faust stops the flow only if it knows of an assignment
        if self.app.should_stop:  # Faust waits for nothing then, and the partitions would go before all is written
            await self.wait_empty()
        await super().on_partitions_revoked(revoked)
        self._released.clear()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Hand nothing over before tables are read back and the flow is resumed; Faust's flow may be on."""
        self._opened.clear()
        await super().on_partitions_assigned(assigned, generation_id)


class BatchTransport(Transport):
    """Faust's transport with this consumer."""

    Consumer: ClassVar[Any] = BatchConsumer


class BatchApp(faust.App):
    """A Faust app with this consumer."""

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    async def write_out(self, *, is_last: bool = False) -> None:
        """Write what takers have taken, so that it may be committed; ``is_last`` before the partitions go."""


def partitions_of(tps: Iterable[Any], topic: str) -> set[int]:
    """Return the partitions of a topic among others."""
    return {tp.partition for tp in tps if tp.topic == topic}
