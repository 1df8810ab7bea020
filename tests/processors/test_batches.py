"""Whole batches beside Faust's own way: what Faust keeps of gaps, commits, suspension and rebalances is kept.

The consumer's thread is a script here: which batches it has fetched after how many seeks, and what was committed.
"""

import asyncio
import contextlib
from collections import Counter
from types import SimpleNamespace

import pytest
from faust.types import TP

from processors.batches import BatchApp, BatchThread, TopicMadeAnewError

ONE, TWO = TP("batched", 0), TP("batched", 1)
RAW = TP("raw", 0)


def records(tp, *offsets):
    return [SimpleNamespace(topic=tp.topic, partition=tp.partition, offset=offset) for offset in offsets]


class ScriptedThread:
    """Stands for the thread that talks to Kafka."""

    def __init__(self, *tps):
        self.seeks = Counter()
        self.tps = set(tps)
        self.fetched = asyncio.Queue()
        self.committed = {}
        self.asked = 0

    def has(self, batches, seeks=None):
        """Have a batch fetched, after so many seeks: those up to now, unless told."""
        self.fetched.put_nowait((batches, {tp: self.seeks[tp] if seeks is None else seeks for tp in batches}))

    async def fetch(self, active):
        self.asked += 1
        return await self.fetched.get()

    async def seek_to_committed(self):
        self.seeks.update(self.tps)
        return {tp: offset for tp, offset in self.committed.items() if tp in self.tps}

    async def seek_wait(self, partitions):
        self.seeks.update(partitions)

    async def commit(self, offsets):
        self.committed.update(offsets)
        return True

    def assignment(self):
        return self.tps

    def highwater(self, tp):
        return 100


class Reader:
    """A consumer that reads, what was taken, and what went Faust's way."""

    def __init__(self):
        self.app = BatchApp("batches", broker="kafka://127.0.0.1:1", web_enabled=False)
        self.one_by_one = []
        self.consumer = self.app.transport.create_consumer(
            self.call, on_partitions_revoked=self.revoked, on_partitions_assigned=self.assigned
        )
        self.consumer._thread.thread_loop.close()
        self.app.consumer = self.consumer
        self.thread = self.consumer._thread = ScriptedThread(ONE, TWO, RAW)
        self.consumer._set_active_tps({ONE, TWO, RAW})
        self.taken = []
        self.released = 0
        self.before_going_on = None
        self.written = []
        self.app.write_out = self.write_out
        self.app.producer = SimpleNamespace(flush=self.flushed)
        self.consumer.take_batches("batched", self.take)
        self.consumer.resume_flow()

    async def call(self, message):
        self.one_by_one.append(message.offset)

    async def revoked(self, tps):
        """As Faust's app, which waits for nothing when it stops."""
        if not self.app.should_stop:
            await self.consumer.wait_empty()

    async def assigned(self, tps, generation_id):
        pass

    async def flushed(self):
        pass

    async def write_out(self, *, is_last=False):
        self.written.append(is_last)
        for tp, offset in self.taken[self.released :]:
            self.consumer.release(tp, offset + 1)
        self.released = len(self.taken)

    async def take(self, tp, batch, may_go_on):
        for record in batch:
            if self.before_going_on is not None:
                await self.before_going_on()
            if not may_go_on():
                return
            self.taken.append((tp, record.offset))

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def reader():
    reader = Reader()
    fetcher = SimpleNamespace(should_stop=False, wait=asyncio.ensure_future, sleep=asyncio.sleep)
    draining = asyncio.ensure_future(reader.consumer._drain_messages(fetcher))
    yield reader
    draining.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await draining


async def test_a_batch_is_taken_whole_and_others_go_their_way(reader):
    """In order, each partition by itself."""
    reader.thread.has({ONE: records(ONE, 0, 1), TWO: records(TWO, 7), RAW: raw(3, 4)})
    await reader.until(lambda: len(reader.one_by_one) == 2)

    assert [(ONE, 0), (ONE, 1), (TWO, 7)] == reader.taken
    assert [3, 4] == reader.one_by_one


async def test_only_what_was_released_is_committed_whatever_lies_before(reader):
    """Offsets that no record has hold nothing back."""
    reader.thread.has({ONE: records(ONE, 0, 1, 5), TWO: records(TWO, 2)})
    await reader.until(lambda: len(reader.taken) == 4)
    await reader.consumer.commit()
    assert {} == reader.thread.committed
    reader.consumer.release(ONE, 6)
    await reader.consumer.commit()
    assert {ONE: 6} == reader.thread.committed
    reader.consumer.release(ONE, 3)
    await reader.consumer.commit()

    assert {ONE: 6} == reader.thread.committed


@pytest.mark.parametrize("stopping", [False, True], ids=["in a rebalance", "in a rebalance while it stops"])
async def test_what_was_taken_is_written_and_committed_before_partitions_go(reader, stopping):
    """For the last time, and forgotten then: another worker commits from here on."""
    reader.thread.has({ONE: records(ONE, 0, 1, 2)})
    await reader.until(lambda: len(reader.taken) == 3)
    await reader.write_out()
    assert {} == reader.thread.committed
    if stopping:
        reader.app._stopped.set()
    reader.consumer.stop_flow()
    await reader.consumer.on_partitions_revoked({ONE, TWO, RAW})

    assert {ONE: 3} == reader.thread.committed
    assert [False, True] == reader.written
    reader.thread.committed.clear()
    reader.consumer._committed_offset.clear()
    await reader.consumer.commit()
    assert {} == reader.thread.committed


async def test_nothing_is_taken_once_the_flow_stops(reader):
    """Not even the rest of a batch; it is read again after the seek."""

    async def stop_after_two():
        if len(reader.taken) == 2:
            reader.consumer.stop_flow()

    reader.before_going_on = stop_after_two
    reader.thread.has({ONE: records(ONE, 0, 1, 2, 3), TWO: records(TWO, 0), RAW: raw(0)})
    await reader.until(lambda: not reader.consumer.flow_active)
    reader.thread.has({ONE: records(ONE, 4)})
    await asyncio.sleep(0.01)  # nothing more is asked for, however long

    assert [(ONE, 0), (ONE, 1)] == reader.taken
    assert [] == reader.one_by_one
    assert 1 == reader.thread.asked


async def test_a_batch_that_was_fetched_before_a_seek_is_dropped(reader):
    """Its records come again; after them it would be as if those in between had been taken."""
    await reader.until(lambda: reader.thread.asked)
    reader.consumer.stop_flow()
    await reader.consumer.perform_seek()
    reader.consumer.resume_flow()
    reader.thread.has({ONE: records(ONE, 5, 6), RAW: raw(5)}, seeks=0)
    reader.thread.has({ONE: records(ONE, 0, 1), RAW: raw(0)})
    await reader.until(lambda: reader.one_by_one)

    assert [(ONE, 0), (ONE, 1)] == reader.taken
    assert [0] == reader.one_by_one


async def test_a_seek_of_others_leaves_a_batch_alone(reader):
    """One that an earlier rebalance had asked for may come late; what it does not seek is not fetched again."""
    reader.thread.has({ONE: records(ONE, 0), TWO: records(TWO, 0)})
    reader.thread.seeks[TWO] += 1
    await reader.until(lambda: reader.taken)
    reader.thread.has({TWO: records(TWO, 0)})
    await reader.until(lambda: len(reader.taken) > 1)

    assert [(ONE, 0), (TWO, 0)] == reader.taken


async def test_a_batch_that_was_fetched_after_a_seek_waits_for_the_flow(reader):
    """Faust clears its buffers when it resumes; and the batch is not fetched again."""
    await reader.until(lambda: reader.thread.asked)
    await reader.consumer.perform_seek()
    reader.thread.has({ONE: records(ONE, 0), RAW: raw(0)})
    await reader.until(reader.thread.fetched.empty)
    await asyncio.sleep(0.01)
    assert [] == reader.taken
    reader.consumer.resume_flow()
    await reader.until(lambda: reader.one_by_one)

    assert [(ONE, 0)] == reader.taken


@pytest.mark.parametrize("step", ["revoked", "assigned"])
async def test_a_rebalance_stops_the_flow_even_if_no_partitions_were_assigned(reader, step):
    """Faust leaves it on then, and new partitions would be read before their tables are."""
    await reader.until(lambda: reader.thread.asked)
    reader.thread.tps = set()
    reader.app.on_rebalance_return = lambda: None
    await getattr(reader.consumer, f"on_partitions_{step}")({ONE})
    reader.thread.has({ONE: records(ONE, 0)})
    await reader.until(reader.thread.fetched.empty)
    await asyncio.sleep(0.01)
    assert [] == reader.taken
    reader.consumer.resume_flow()
    await reader.until(lambda: reader.taken)

    assert [(ONE, 0)] == reader.taken


async def test_records_of_others_note_gaps_and_come_once(reader):
    """As Faust does for its agents."""
    reader.app.topics._acking_topics.add("raw")
    reader.thread.has({RAW: raw(1, 2, 6)})
    reader.thread.has({RAW: raw(3, 7)})
    await reader.until(lambda: 7 in reader.one_by_one)

    assert [1, 2, 6, 7] == reader.one_by_one
    assert [(3, 7)] == [(gap.begin, gap.end) for gap in reader.consumer._gap[RAW]]


async def test_a_topic_that_begins_anew_is_refused():
    """What is committed is of one that is gone; reading on would skip what is in the new one."""
    reader = Reader()
    reader.thread.committed[ONE] = 50
    await reader.consumer.perform_seek()
    reader.consumer.resume_flow()

    with pytest.raises(TopicMadeAnewError, match=r"batched partition 0 has a record 3 to read, .* has committed 50"):
        await reader.consumer._hand_over({ONE: records(ONE, 3)}, dict(reader.thread.seeks), {ONE})


@pytest.mark.parametrize(
    ("committed", "still"),
    [
        pytest.param({}, True, id="nothing committed yet"),
        pytest.param({ONE: 3}, True, id="it may commit"),
        pytest.param({ONE: 3}, False, id="it may not"),
    ],
)
async def test_a_worker_asks_whether_it_is_in_the_group(committed, still):
    """By committing what it has committed."""
    reader = Reader()
    reader.consumer._committed_offset.update(committed)
    asked = []

    async def commit(offsets):
        asked.append(dict(offsets))
        return still

    reader.thread.commit = commit

    assert still == await reader.consumer.is_member()
    assert [committed] * bool(committed) == asked


class SoughtConsumer:
    """Stands for aiokafka's consumer: what is committed, and where it was sought to."""

    def __init__(self, committed, begins):
        self._committed, self._begins = committed, begins
        self.positions = {}

    def assignment(self):
        return set(self._committed)

    async def committed(self, tp):
        return self._committed[tp]

    async def beginning_offsets(self, tps):
        return dict.fromkeys(tps, self._begins)

    async def end_offsets(self, tps):
        return dict.fromkeys(tps, 99)

    async def position(self, tp):
        return self.positions[tp]

    def seek(self, tp, offset):
        self.positions[tp] = offset


@pytest.mark.parametrize(
    ("reset", "begins"), [pytest.param("earliest", 4, id="earliest"), pytest.param("latest", 99, id="latest")]
)
async def test_partitions_without_a_commit_are_sought_to_where_they_begin(reset, begins):
    """Or what was fetched of them and dropped would be lost. Changelogs are left alone, they have no commits."""
    changelog = TP("changelog", 0)
    thread = BatchThread.__new__(BatchThread)
    thread.seeks = Counter()
    thread.app = SimpleNamespace(
        tables=SimpleNamespace(changelog_topics={"changelog"}), conf=SimpleNamespace(consumer_auto_offset_reset=reset)
    )
    thread._consumer = SoughtConsumer({ONE: None, TWO: 0, RAW: 7, changelog: None}, begins=4)

    assert {TWO: 0, RAW: 7} == await thread._seek_to_committed()
    assert {ONE: begins, TWO: 0, RAW: 7} == thread._consumer.positions
    assert {ONE: 1, TWO: 1, RAW: 1} == thread.seeks


async def test_seeks_to_what_a_changelog_has_come_to_are_counted_too():
    """And are where the next records are read from."""
    thread = BatchThread.__new__(BatchThread)
    thread.seeks = Counter()
    thread.app = SimpleNamespace(conf=SimpleNamespace(broker_request_timeout=1.0))
    thread.consumer = SimpleNamespace(_read_offset={ONE: 50, TWO: 50})
    thread._consumer = consumer = SoughtConsumer({}, begins=0)
    await thread._seek_wait(consumer, {ONE: 0, TWO: 7})

    assert {ONE: 0, TWO: 7} == consumer.positions
    assert {TWO: 7} == thread.consumer._read_offset
    assert {ONE: 1, TWO: 1} == thread.seeks


def raw(*offsets):
    """Return records with all that Faust's own messages are made of."""
    return [
        SimpleNamespace(
            topic="raw",
            partition=0,
            offset=offset,
            timestamp=1000,
            timestamp_type=0,
            headers=(),
            key=b"k",
            value=b"v",
            checksum=None,
            serialized_key_size=1,
            serialized_value_size=1,
        )
        for offset in offsets
    ]
