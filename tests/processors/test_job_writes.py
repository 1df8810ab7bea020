"""What a job writes and releases, in which order, and what a failure or a rebalance leaves undone.

The producer is a list here: what was handed to it, and what it has acknowledged.
"""

import asyncio
import json
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import TopicPartition
from faust.types import TP

from processors import job_app
from processors.aggregates import count
from processors.batches import TopicMadeAnewError
from processors.job_app import JobApp
from processors.kept import META
from processors.outbox import Outbox, acknowledged
from processors.pipeline import read
from processors.running import IDLE_SECONDS, Output, Quiet, parts
from streamgauge import faust as sensor

JOB = read("in", name="job").window(60, at=lambda value: value["at"]).aggregate(count()).to("out")
KEYED = read("in", name="job").key_by(lambda value: value["k"]).window(60).aggregate(count()).to("out")
CHANGELOG = "job-panes-changelog"
KAFKAS = {b"key-0": 1, b"key-1": 0, b"key-2": 2, b"key-3": 3, b"key-4": 1, b"key-5": 0, b"key-6": 0}
"""Partitions of four, as librdkafka's partitioner "murmur2_random" chose them, which is that of Kafka's in Java."""


class ListProducer:
    """Takes batches; acknowledges them at once, or when it is told to, or fails."""

    def __init__(self):
        self.sent, self.happened = [], []
        self.fails = ""
        self.waits = {}
        self.max_bytes = 16_384

    async def partitions_for(self, topic):
        return {0, 1, 2, 3}

    def create_batch(self):
        return BatchBuilder(self.max_bytes, 0)

    async def send_batch(self, batch, topic, *, partition):
        future = asyncio.get_running_loop().create_future()
        offset = sum(1 for place, _, _, _ in self.sent if place == (topic, partition))
        for record in DefaultRecordBatch(bytes(batch._build())):
            self.sent.append(((topic, partition), record.key, record.value, record.headers))
            self.happened.append((topic, record.key))
        if topic == self.fails:
            future.set_exception(KafkaError("not today"))
        elif topic in self.waits:
            self.waits[topic].append(future)
        else:
            future.set_result(SimpleNamespace(offset=offset))
        return future

    def keys(self, topic):
        return [key for place, key, _, _ in self.sent if place[0] == topic]


class Committing:
    """Stands for the consumer: what is released, and what a broker would say."""

    def __init__(self, happened):
        self.released, self._happened = {}, happened
        self.held = {TP("in", 0), TP(CHANGELOG, 0), TP("job-by-key-repartition", 0)}
        self.in_group = True
        self.ends = {}

    def release(self, tp, offset):
        self.released[tp] = offset
        self._happened.append(("released", tp.topic))

    def assignment(self):
        return self.held

    async def is_member(self):
        return self.in_group

    async def highwaters(self, *tps):
        if self.ends is None:
            raise KafkaError("nobody there")
        return {tp: self.ends.get(tp) for tp in tps}

    async def position(self, tp):
        return 7

    def topic_partitions(self, topic):
        return 4


class App(JobApp):
    """A job whose consumer and producer are at hand."""

    def __init__(self, job=JOB):
        super().__init__(job, "127.0.0.1:1")
        self.made = ListProducer()
        self.consumer = Committing(self.made.happened)
        self._declared = True
        self.may_go_on = lambda: True
        for part in self._parts:
            part.kept = self.table.take

    def _producing(self):
        return self.made

    async def assigned(self):
        self.table.is_ready = True
        await self._keep_assigned(self, self.consumer.held)

    async def take(self, *values, begin=0, part=0):
        take = self._taker(self._parts[part])
        await take(TP(self._parts[part].topic, 0), records(*values, begin=begin), self.may_go_on)


def records(*values, begin=0):
    return [
        SimpleNamespace(
            topic="in",
            partition=0,
            offset=offset,
            timestamp=1_000_000,
            headers=(),
            key=b"k",
            value=json.dumps(value).encode(),
        )
        for offset, value in enumerate(values, begin)
    ]


@pytest.fixture
async def app():
    app = App()
    await app.assigned()
    return app


async def test_offsets_are_released_when_the_flush_that_holds_their_effect_is_acknowledged(app):
    """After what was sent, after the panes and META; what is gone is deleted last."""
    await app.take({"at": 10}, {"at": 70}, {"at": 130})
    await app.write_out()

    released = app.made.happened.index(("released", "in"))
    assert {TP("in", 0): 3} == app.consumer.released
    assert [b"k", b"k"] == app.made.keys("out")
    before, after = app.made.happened[:released], app.made.happened[released + 1 :]
    assert [("out", b"k"), ("out", b"k"), (CHANGELOG, META), (CHANGELOG, b"2/k"), (CHANGELOG, META)] == before
    assert [] == after  # what was closed before it was ever kept needs no deletion
    app.made.happened.clear()
    await app.take({"at": 190}, begin=3)
    await app.write_out()
    flush = [(CHANGELOG, b"3/k"), (CHANGELOG, META)]
    assert [("out", b"k"), *flush, ("released", "in"), (CHANGELOG, b"2/k")] == app.made.happened


@pytest.mark.parametrize("topic", ["out", CHANGELOG])
async def test_nothing_is_released_before_it_is_acknowledged(app, topic):
    """However long that takes."""
    await app.take({"at": 10}, {"at": 70})
    app.made.waits[topic] = waiting = []
    await app.take({"at": 130}, begin=2)
    writing = asyncio.ensure_future(app.write_out())
    while not waiting:
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert {} == app.consumer.released
    for future in waiting:
        future.set_result(SimpleNamespace(offset=1))
    await writing

    assert {TP("in", 0): 3} == app.consumer.released


@pytest.mark.parametrize("topic", ["out", CHANGELOG])
async def test_what_failed_is_never_taken_for_written(app, topic):
    """Nothing is released, then or later; the records are read again by a worker that begins anew."""
    await app.take({"at": 10}, {"at": 70}, {"at": 130})
    app.made.fails = topic
    if topic == "out":
        await app.take({"at": 190}, begin=3)
    with pytest.raises(KafkaError):
        await app.write_out()
    app.made.fails = ""
    await app.take({"at": 250}, begin=4)
    await app.write_out(is_last=True)

    assert {} == app.consumer.released


async def test_nothing_is_written_between_the_last_time_and_the_next_assignment(app):
    """Another worker may have the partitions; what was processed then is read again there."""
    await app.take({"at": 10})
    await app.write_out(is_last=True)
    written = len(app.made.sent)
    await app.take({"at": 20}, begin=1)
    await app.write_out()
    assert written == len(app.made.sent)
    assert {TP("in", 0): 1} == app.consumer.released
    await app.assigned()
    await app.write_out()

    assert {TP("in", 0): 2} == app.consumer.released


@pytest.mark.parametrize(("in_group", "released"), [(True, {TP("in", 0): 1}), (False, {})], ids=["still", "no more"])
async def test_a_worker_that_stood_still_asks_whether_it_is_in_the_group(app, in_group, released):
    """Stopped for longer than the group waits, it would write over its successor's windows."""
    await app.take({"at": 10})
    app._wrote_at -= app.conf.broker_session_timeout
    app.consumer.in_group = in_group
    await app.write_out()

    assert released == app.consumer.released


async def test_a_flush_is_not_taken_in_the_middle_of_a_chunk(app):
    """It would send what is being sent."""
    sending, most, blocked, send = 0, 0, asyncio.Event(), app._outbox.send

    async def slow():
        nonlocal sending, most
        sending += 1
        most = max(most, sending)
        await blocked.wait()
        await send()
        sending -= 1

    app._outbox.send = slow
    taking = asyncio.ensure_future(app.take({"at": 10}, {"at": 70}))
    writing = asyncio.ensure_future(app.write_out())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not writing.done()
    blocked.set()
    await taking
    await writing

    assert 1 == most
    assert {TP("in", 0): 2} == app.consumer.released


async def test_windows_are_written_out_when_many_have_changed(app, monkeypatch):
    """Not only after a while: what a flush holds is bounded."""
    monkeypatch.setattr(job_app, "MOST_TOUCHED", 2)
    monkeypatch.setattr(job_app, "CHUNK", 1)
    await app.take({"at": 10}, {"at": 70})
    assert {} == app.consumer.released
    for number in range(3):
        app._parts[0].state[0].windows.add(f"k{number}", 130.0, {})
    await app.take({"at": 130}, begin=2)

    assert {TP("in", 0): 3} == app.consumer.released


async def test_the_rest_of_a_batch_is_left_when_the_flow_stops(app, monkeypatch):
    """It is read again."""
    monkeypatch.setattr(job_app, "CHUNK", 2)
    answers = iter([True, False])
    app.may_go_on = lambda: next(answers)
    await app.take({"at": 10}, {"at": 20}, {"at": 30})
    await app.write_out()

    assert {TP("in", 0): 2} == app.consumer.released


@pytest.mark.parametrize(
    ("completed", "taken"),
    [
        pytest.param(None, 0, id="not read back yet"),
        pytest.param(7, 0, id="read back before another rebalance"),
        pytest.param(8, 1, id="read back"),
    ],
)
async def test_nothing_is_taken_before_what_is_kept_is_read_back(app, recovering, completed, taken):
    """Windows would begin anew, and be kept so. The records come again when all is there."""
    recovering.active_offsets[TP(CHANGELOG, 0)] = 5
    await app.table.on_rebalance({TP(CHANGELOG, 0)}, set(), set(), 8)
    if completed is not None:
        recovering._generation_id = completed
        await app.table.on_recovery_completed({TP(CHANGELOG, 0)}, set())
    await app.take({"at": 10})

    assert taken == app.counts.read


@pytest.mark.parametrize(
    ("ends", "refused"),
    [
        pytest.param({TP("in", 0): 1}, False, id="nothing more"),
        pytest.param({TP("in", 0): 0}, True, id="it ends before"),
        pytest.param({}, False, id="its end is not known"),
        pytest.param(None, False, id="nobody answers"),
    ],
)
async def test_a_source_that_was_made_again_is_refused(app, ends, refused):
    """Its records would be taken for those that were read before, and skipped."""
    await app.take({"at": 10})
    await app.write_out()
    kept = {key: value for place, key, value, _ in app.made.sent if place[0] == CHANGELOG}
    app._forget(0)
    app._parts[0].kept = lambda partition: kept
    app.consumer.ends = ends

    if refused:
        with pytest.raises(TopicMadeAnewError, match=r"in partition 0 ends at 0, .* hold what was read up to 1"):
            await app.take({"at": 20})
    else:
        await app.take({"at": 20}, begin=1)
        assert 2 == app.counts.read


async def test_what_was_not_read_back_to_its_end_ends_the_worker(app, recovering):
    """Windows would go on from an old state, and write other results than before."""
    crashes = []

    async def crash(exc):
        crashes.append(str(exc))

    app.crash = crash
    await app.table.on_rebalance({TP(CHANGELOG, 0)}, set(), set(), 8)
    recovering._generation_id = 8
    await app.table.on_recovery_completed({TP(CHANGELOG, 0)}, set())

    assert [f"{CHANGELOG} was not read to its end, and windows would begin from an old state"] == crashes
    assert not app.table.is_ready


async def test_the_end_of_one_recovery_is_not_that_of_the_next(app, recovering):
    """Two rebalances can be a second apart."""
    table, tp = app.table, TP(CHANGELOG, 0)
    await table.read_back(tp, changed(table, 0, (5, b"1/a", b"x")), lambda: True)
    assert recovering.signal_recovery_end.is_set()
    await table.on_rebalance({tp}, set(), set(), 8)

    assert not recovering.signal_recovery_end.is_set()


async def test_the_sensor_is_told_of_batches(app):
    """By agent and topic, with those that failed, and that they wait for a commit."""
    reporter = sensor.install(app)
    await app.take({"at": 10}, {"no": 1}, {"at": 20})

    ((agent, topic), counted), *others = reporter._counted.items()
    assert [] == others
    assert ("job", "in", 3, 1) == (agent, topic, counted.events, counted.errors)
    assert 3 == sum(counted.durations)
    assert {TP("in", 0)} == set(reporter._commits.waiting)


async def test_a_partition_without_a_changelog_is_refused(app):
    """The topic was given more partitions: its windows would be kept nowhere."""
    app.consumer.held = {TP("in", 0)}

    with pytest.raises(Exception, match="topic in partition 0 has no changelog"):
        await app.take({"at": 10})


def changed(table, partition, *entries):
    """Return records of a changelog."""
    return [
        SimpleNamespace(topic=CHANGELOG, partition=partition, offset=offset, key=key, value=value)
        for offset, key, value in entries
    ]


@pytest.fixture
def recovering(app):
    recovery = SimpleNamespace(
        active_tps={TP(CHANGELOG, 0), TP(CHANGELOG, 1)},
        active_offsets={TP(CHANGELOG, 0): -1, TP(CHANGELOG, 1): -1},
        in_recovery=True,
        need_recovery=lambda: recovery.active_offsets[TP(CHANGELOG, 0)] < 5,
        signal_recovery_end=asyncio.Event(),
    )
    app.tables._recovery = recovery
    return recovery


async def test_a_changelog_is_read_back_in_batches(app, recovering):
    """The last value of a key counts, None deletes; Faust is told when all is there, and of nothing twice."""
    table, tp = app.table, TP(CHANGELOG, 0)
    await table.read_back(tp, changed(table, 0, (0, b"1/a", b"x"), (1, b"1/b", b"y")), lambda: True)
    assert not recovering.signal_recovery_end.is_set()
    await table.read_back(
        tp, changed(table, 0, (1, b"1/b", b"old"), (3, b"1/a", None), (5, b"1/c", b"z")), lambda: True
    )

    assert recovering.signal_recovery_end.is_set()
    assert 5 == table.persisted_offset(tp)
    assert {b"1/b": b"y", b"1/c": b"z"} == table.take(0)
    with pytest.raises(RuntimeError, match="was taken already"):  # to begin anew would be to forget it
        table.take(0)


@pytest.mark.parametrize(
    ("generation", "assigned", "kept"),
    [
        pytest.param(8, {0}, True, id="it stays"),
        pytest.param(9, {0}, False, id="a generation was missed"),
        pytest.param(8, {1}, False, id="it goes"),
        pytest.param(8, set(), False, id="only its changelog stays"),
    ],
)
async def test_windows_stay_through_a_rebalance_if_nobody_else_can_have_had_them(
    app, recovering, generation, assigned, kept
):
    """Otherwise all is read back from the changelog."""
    app.table._generation = 7
    tp = TP(CHANGELOG, 0)
    await app.table.read_back(tp, changed(app.table, 0, (5, b"1/a", b"[1, 2]")), lambda: True)
    await app.take({"at": 10})
    assert 1 == app.counts.read
    held = {TP(topic, number) for number in assigned for topic in ("in", CHANGELOG)} | {TP(CHANGELOG, 0)}
    if assigned == {1}:
        held.remove(TP(CHANGELOG, 0))
    await app.table.on_rebalance(held, set(), set(), generation)

    assert (5 if kept else -1) == app.table.persisted_offset(tp)
    assert kept == (0 in app._parts[0].state)


async def test_what_another_worker_has_written_meanwhile_is_written_again(app, recovering):
    """One that had lost the partition and did not know yet."""
    await app.take({"at": 10})
    await app.write_out()
    app.made.sent.clear()
    recovering.active_offsets[TP(CHANGELOG, 0)] = app.table.persisted_offset(TP(CHANGELOG, 0))
    await app.table.read_back(TP(CHANGELOG, 0), changed(app.table, 0, (9, b"0/k", b"[9,9]")), lambda: True)
    await app.write_out()

    assert [b"0/k", META] == app.made.keys(CHANGELOG)


class Marked(App):
    """A job behind a new key, of which something was sent long ago."""

    def __init__(self):
        super().__init__(KEYED)
        self._parts, self._sources = parts(KEYED, partitions=2), 2
        for part in self._parts:
            part.kept = self.table.take

    async def tick(self, seconds, ends):
        """Let so many seconds pass, and then see these ends of the source."""
        self.consumer.ends = ends
        known, at = self._ends
        self._ends = known, at - seconds
        await self._mark_quiet()

    def markers(self):
        return [
            (place[1], headers)
            for place, _, value, headers in self.made.sent
            if place[0] == "job-by-key-repartition" and value is None
        ]


def ends(mine, other):
    """Return where the partitions of the source end: that of this worker, and one that is read elsewhere."""
    return {TP("in", 0): mine, TP("in", 1): other}


@pytest.mark.parametrize(
    ("seconds", "moves", "last", "marked"),
    [
        pytest.param(IDLE_SECONDS, True, ends(7, 500), 4, id="nothing more to read"),
        pytest.param(IDLE_SECONDS, True, ends(8, 500), 0, id="more to read"),
        pytest.param(IDLE_SECONDS, True, {TP("in", 1): 500}, 0, id="its end is not known"),
        pytest.param(IDLE_SECONDS, True, None, 0, id="nobody answers"),
        pytest.param(IDLE_SECONDS - 5, True, ends(7, 500), 0, id="not long enough"),
        pytest.param(IDLE_SECONDS, False, ends(7, 100), 0, id="nothing comes to others"),
    ],
)
async def test_a_quiet_partition_is_marked_when_there_is_nothing_more_in_it(seconds, moves, last, marked, monkeypatch):
    """To each partition of the topic between, once; while records come to others, as far as can be known."""
    monkeypatch.setattr(job_app, "FLUSH_SECONDS", 1)
    app = Marked()
    await app.assigned()
    await app.tick(0, ends(7, 100))
    for second in range(int(seconds) - 1):
        await app.tick(1, ends(7, 101 + second if moves else 100))
    assert [] == app.markers()
    for _ in range(2):
        await app.tick(1, last)

    assert [(to, [("streamgauge.idle", b"0/6")]) for to in range(marked)] == sorted(app.markers())


async def test_an_outage_makes_nothing_idle(monkeypatch):
    """Nor the first records after it."""
    app = Marked()
    await app.assigned()
    await app.tick(0, ends(7, 100))
    for _ in range(10):
        await app.tick(IDLE_SECONDS, None)
    await app.tick(1, ends(7, 200))

    assert [] == app.markers()


async def test_what_is_sent_goes_to_the_partition_of_its_key():
    """That of Kafka's own producers, in order; a batch that is full makes room for the next."""
    producer, told = ListProducer(), []
    producer.max_bytes = 150
    outbox = Outbox(lambda: producer, lambda output, partition: told.append((output.source, partition)))
    keys = [f"key-{number % 7}".encode() for number in range(40)]
    outbox.put(Output("out", key, b"%d" % number, source=4) for number, key in enumerate(keys))
    outbox.put([Output("out", None, b"to", partition=2, timestamp=1.5)])
    await outbox.send()
    offsets = await acknowledged(outbox.take_sent())

    by_partition = {}
    for number, key in enumerate(keys):
        by_partition.setdefault(KAFKAS[key], []).append(b"%d" % number)
    by_partition.setdefault(2, []).append(b"to")
    found = {}
    for (_, partition), _, value, _ in producer.sent:
        found.setdefault(partition, []).append(value)
    assert by_partition == found
    assert offsets == {partition: len(values) - 1 for partition, values in found.items()}
    assert told == [(4, KAFKAS[key]) for key in keys]


def test_a_quiet_source_is_told_of_once():
    """Until something is sent again."""
    quiet = Quiet()
    quiet.expect([0], [0, 1], now=0.0)
    assert [0, 1] == quiet.markers(0, IDLE_SECONDS)
    assert [] == quiet.markers(0, IDLE_SECONDS)
    quiet.sent(0, 1, IDLE_SECONDS)

    assert [1] == quiet.markers(0, 2 * IDLE_SECONDS)


def test_the_topic_of_a_partition_is_a_tuple_in_both_libraries():
    """Faust's and aiokafka's are equal, and are looked up by each other."""
    assert {TP("t", 1): 1}[TopicPartition("t", 1)] == 1
