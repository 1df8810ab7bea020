"""A job as a Faust app: whole fetched batches to each of its parts.

    app = JobApp(averages)

and ``streamgauge worker --app MODULE:app`` runs it. Brokers come from STREAMGAUGE_BROKERS unless they are given; the
consumer group is the job's name.

A batch is processed in chunks and what comes of it is handed to the producer. Every ``FLUSH_SECONDS``, and before
partitions go to another worker, the job is *written out*:

1. what it sent is acknowledged: results, late records, dead letters, what goes through the topic between;
2. what has changed of windows is written to the changelog, and acknowledged (``processors.kept``);
3. the offsets that had come by then are released for commit;
4. panes of closed windows are deleted.

A crash before 2 repeats outputs, with the same values; one between 2 and 3 has records read again that change nothing.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any, cast

from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import Producer
from faust.types import TP
from mode import Service
from mode.supervisors import CrashingSupervisor

from monitor.errors import UsageError
from processors import brokers
from processors.batches import BatchApp, BatchConsumer, TopicMadeAnewError, partitions_of
from processors.kept import META, Flush
from processors.outbox import Outbox, acknowledged
from processors.pane_table import Entry, PaneTable
from processors.pipeline import Job
from processors.running import Counts, Output, Part, Quiet, Record, parts
from processors.windows import Result
from streamgauge import faust as sensor

PARTITIONS = 4
"""Partitions of the source where it does not exist yet and is made here."""

CHUNK = 500
"""Records that are processed before others get their turn: some 10 ms."""

FLUSH_SECONDS = 2.0
"""How often what has changed is written out: what a crash has to do again."""

MOST_TOUCHED = 50_000
"""Values that may change before they are written out in any case."""

RAW: dict[str, Any] = {
    "key_type": bytes,
    "value_type": bytes,
    "key_serializer": "raw",
    "value_serializer": "raw",
    "allow_empty": True,
}
"""Topics of bytes: what Faust cannot decode it skips; what a job cannot, it sets aside."""


class JobApp(BatchApp):
    """A Faust app that does one job; options are Faust's. ``store="rocksdb://"`` keeps windows on disk as well."""

    def __init__(self, job: Job, bootstrap_servers: str | None = None, **options: Any) -> None:
        servers = bootstrap_servers or os.environ.get("STREAMGAUGE_BROKERS") or "127.0.0.1:9092"
        defaults = {
            "store": "memory://",
            "web_enabled": False,
            "datadir": brokers.data_folder(job.name),
            "table_standby_replicas": 0,
            "producer_max_batch_size": 512 << 10,  # one batch of a partition is on its way at a time
        }
        super().__init__(job.name, broker=brokers.broker_url(servers), **{**defaults, **options})
        self.job = job
        self._parts = parts(job, partitions=PARTITIONS)
        written = {job.sink, job.dead_letters, job.late} - {None}
        self._written = {name: self.topic(name, **RAW) for name in sorted(map(str, written))}
        self._declared = False
        for number, part in enumerate(self._parts):
            read = self.topic(part.topic, internal=part.topic != job.source, **RAW)
            if number:
                self._written[part.topic] = read
            self._subscribe(number, read)
        self.table: PaneTable | None = None
        windowed = next((part for part in self._parts if part.window is not None), None)
        if windowed is not None:
            self.table = PaneTable(self, windowed.topic, self._forget, self._write_again)
            self.tables.add(self.table)
        self._outbox = Outbox(self._producing, self._note_sent)
        self._changelog = Outbox(self._producing)
        self._quiet = Quiet()
        self._sources = PARTITIONS
        self._ends: tuple[Mapping[TP, int], float] = ({}, 0.0)
        self._busy_seconds = 0.0  # in which records came to the source: others are no quieter than one that is quiet
        self._turn = asyncio.Lock()  # who processes or takes a flush: never in the middle of each other
        self._writing = asyncio.Lock()
        self._may_write = False  # nor after a failure: what failed may not be taken for written
        self._wrote_at = time.monotonic()
        self.on_partitions_assigned.connect(self._keep_assigned)

    @property
    def counts(self) -> Counts:
        """Return what became of the records this worker has read."""
        return self._parts[0].counts

    def early(self) -> list[Result]:
        """Return what open windows of this worker hold so far."""
        return [result for part in self._parts for result in part.early()]

    async def on_first_start(self) -> None:
        """Take over the number of partitions of the source.

        Raises:
            UnreachableError: no broker answers.
            UsageError: a topic was given more partitions since its changelog was made.
        """
        found = await brokers.topics(self)
        partitions = found.get(self.job.source, PARTITIONS)
        self.conf.topic_partitions = self._sources = partitions
        self._parts = parts(self.job, partitions=partitions)
        for part in self._parts:
            self._batches.take_batches(part.topic, self._taker(part))
        if self.table is not None:
            self._check_changelog(self.table, found, partitions)
            for part in self._parts:
                part.kept = self.table.take
            self._batches.take_batches(self.table.changelog_topic_name, self.table.read_back)
        await super().on_first_start()

    async def write_out(self, *, is_last: bool = False) -> None:
        """Write what has changed, and release the offsets that had come by then.

        Nothing is written between the last time before partitions go and their assignment: others may have them. A
        worker that stood still for long asks first whether it still is in the group.

        Raises:
            KafkaError: something was not acknowledged; nothing was released then, and nothing will be.
            KeptError: windows hold what cannot be kept.
        """
        async with self._writing:
            stood_still = time.monotonic() - self._wrote_at > self.conf.broker_session_timeout / 2
            if not self._may_write or (stood_still and not await self._batches.is_member()):
                return
            self._may_write = False
            await self._write_out()
            self._may_write = not is_last
            self._wrote_at = time.monotonic()

    async def _write_out(self) -> None:
        async with self._turn:
            await self._outbox.send()
            sent = self._outbox.take_sent()
            flushes = [
                (part, partition, state.take_flush())
                for part in self._parts
                for partition, state in part.state.items()
                if state.is_changed
            ]
        await acknowledged(sent)
        kept = {partition: flush for part, partition, flush in flushes if part.window is not None}
        await self._keep({number: [*flush.entries, (META, flush.meta)] for number, flush in kept.items()})
        for part, partition, flush in flushes:
            self._batches.release(TP(part.topic, partition), flush.next)
        await self._keep({number: _deleted(flush) for number, flush in kept.items() if flush.gone})

    async def _keep(self, entries: dict[int, list[Entry]]) -> None:
        if self.table is None or not entries:
            return
        topic = self.table.changelog_topic_name
        for partition, each in entries.items():
            self._changelog.put(Output(topic, key, value, partition=partition) for key, value in each)
        await self._changelog.send()
        offsets = await acknowledged(self._changelog.take_sent())
        for partition, each in entries.items():
            self.table.written(partition, each, offsets[partition])

    @Service.task
    async def _write_out_regularly(self) -> None:
        while not self.should_stop:
            await self.sleep(FLUSH_SECONDS)
            if not self.rebalancing:
                await self._mark_quiet()
                await self.write_out()

    def _subscribe(self, number: int, topic: Any) -> None:
        # Faust subscribes to the topics of agents, and shows them; batches go to the taker instead.
        @self.agent(topic, name=self._agent_of(self._parts[number]), supervisor_strategy=CrashingSupervisor)
        async def take(stream: Any) -> None:
            async for event in stream.events():
                problem = f"a record of {event.message.topic} came by itself"
                raise RuntimeError(problem)

    def _taker(self, part: Part) -> Any:
        async def take(tp: TP, records: Any, may_go_on: Any) -> None:
            await self._declare()
            for begin in range(0, len(records), CHUNK):
                async with self._turn:
                    if not may_go_on() or not (self.table is None or self.table.is_ready):
                        return  # they come again, after a seek
                    self._check_table(part, tp)
                    await self._check_source(part.begin(tp.partition, records[0].offset))
                    await self._process(part, records[begin : begin + CHUNK])
                windows = part.state[tp.partition].windows
                if windows is not None and windows.touched > MOST_TOUCHED:
                    # Goes on if this is cancelled: the next one waits for it.
                    await asyncio.shield(asyncio.ensure_future(self.write_out()))
                await asyncio.sleep(0)

        return take

    async def _check_source(self, applied: Mapping[int, int] | None) -> None:
        """Refuse to go on if a partition of the source ends before what has been applied of it: it is another one."""
        if not applied:
            return
        try:
            ends = await self.consumer.highwaters(*(TP(self.job.source, source) for source in applied))
        except (KafkaError, OSError, TimeoutError) as exc:
            self.log.info("End offsets are not known: %r", exc)
            return
        for tp, end in ends.items():
            if end is not None and end < applied[tp.partition]:
                problem = (
                    f"topic {tp.topic} partition {tp.partition} ends at {end}, but the windows of {self.job.name} hold "
                    f"what was read up to {applied[tp.partition]}: it was made again; start under another name"
                )
                raise TopicMadeAnewError(problem)

    async def _process(self, part: Part, records: Any) -> None:
        process, put = part.process, self._outbox.put
        begun, failed = time.perf_counter(), part.counts.failed
        try:
            for record in records:
                outputs = process(record_of(record))
                if outputs:
                    put(outputs)
                    part.check()
        finally:
            self._report(part, records, time.perf_counter() - begun, part.counts.failed - failed)
            await self._outbox.send()

    def _report(self, part: Part, records: Any, seconds: float, failed: int) -> None:
        """Tell the sensor, if there is one, what Faust tells it of each record: these went past Faust's streams."""
        reporter = sensor.reporter(self)
        if reporter is not None:
            reporter.note_batch(self._agent_of(part), part.topic, len(records), seconds, failed)
            reporter.on_message_out(TP(part.topic, records[0].partition), records[0].offset, None)

    def _agent_of(self, part: Part) -> str:
        return self.job.name if part.topic == self.job.source else f"{self.job.name}-by-key"

    async def _mark_quiet(self) -> None:
        """Send markers of partitions of the source that have nothing more to read; see ``processors.running``."""
        if self.table is None or self.job.rekeyed is None:
            return
        first, now = self._parts[0], asyncio.get_running_loop().time()
        try:
            ends = await self.consumer.highwaters(*(TP(first.topic, source) for source in range(self._sources)))
        except (KafkaError, OSError, TimeoutError) as exc:
            self.log.info("End offsets are not known: %r", exc)
            return
        before, was = self._ends
        if before and before != ends:
            self._busy_seconds += min(now - was, 2 * FLUSH_SECONDS)
        self._ends = ends, now
        async with self._turn:
            for source in self._quiet.sources(self._busy_seconds):
                tp = TP(first.topic, source)
                if ends.get(tp) is None or ends[tp] != await self._next(first, tp):
                    self._quiet.busy(source, self._busy_seconds)
                    continue
                for to in self._quiet.markers(source, self._busy_seconds):
                    self._outbox.put([first.marker(source, ends[tp] - 1, to)])
            await self._outbox.send()

    async def _next(self, part: Part, tp: TP) -> int | None:
        state = part.state.get(tp.partition)
        return await self.consumer.position(tp) if state is None else state.next

    def _note_sent(self, output: Output, partition: int) -> None:
        if output.source is not None:
            self._quiet.sent(output.source, partition, self._busy_seconds)

    @property
    def _batches(self) -> BatchConsumer:
        return cast("BatchConsumer", self.consumer)

    def _producing(self) -> Any:
        return cast("Producer", self.producer)._ensure_producer()  # noqa: SLF001  # Faust's own sends one by one

    async def _declare(self) -> None:
        if not self._declared:
            for topic in self._written.values():
                await topic.maybe_declare()
            self._declared = True

    def _forget(self, partition: int) -> None:
        for part in self._parts:
            if part.window is not None:
                part.forget(partition)

    def _write_again(self, partition: int, names: list[bytes]) -> None:
        for part in self._parts:
            if part.window is not None and partition in part.state:
                part.state[partition].write_again(names)

    async def _keep_assigned(self, _app: Any, /, *args: Any, **_: Any) -> None:
        self._may_write, self._wrote_at = not self.crashed, time.monotonic()
        places = list(args[0])
        for part in self._parts:
            part.keep(partitions_of(places, part.topic))
        if self.job.rekeyed is not None and self.table is not None:
            targets = range(self.consumer.topic_partitions(self.job.rekeyed) or 0)
            self._quiet.expect(partitions_of(places, self.job.source), targets, self._busy_seconds)

    def _check_changelog(self, table: PaneTable, found: dict[str, int], partitions: int) -> None:
        wanted, changelog = found.get(table.source, partitions), table.changelog_topic_name
        table.changelog_topic.partitions = wanted
        if found.get(changelog, wanted) != wanted:
            problem = (
                f"topic {table.source} has {wanted} partitions, but {changelog} has {found[changelog]}: the windows "
                "kept so far cannot be used any more; start under another name"
            )
            raise UsageError(problem)

    def _check_table(self, part: Part, tp: TP) -> None:
        if part.window is None or self.table is None:
            return
        changelog = self.table.changelog_topic_name
        if TP(changelog, tp.partition) not in self.consumer.assignment():
            problem = (
                f"topic {tp.topic} partition {tp.partition} has no changelog ({changelog}): the topic was given more "
                "partitions; the windows kept so far cannot be used any more, start under another name"
            )
            raise UsageError(problem)


def record_of(message: Any) -> Record:
    """Return a record of what the consumer has; its timestamp is in milliseconds there."""
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp / 1000.0,
        message.key,
        message.value,
        tuple((name, value or b"") for name, value in message.headers) if message.headers else (),
    )


def _deleted(flush: Flush) -> list[Entry]:
    return [(key, None) for key in flush.gone]
