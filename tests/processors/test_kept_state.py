"""What is kept of windows, over any number of deaths: results are those of a plain loop over the records.

Kafka is lists here: topics, changelogs and committed offsets. A worker dies between any two writes, in the middle of
a flush or between flush and commit, and the next one goes on from what is written and committed.
"""

import contextlib
import json
import math
import random
import zlib
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.aggregates import count, count_by, least, mean, reduce, several, total
from processors.kept import META, KeptError, PartitionState
from processors.pipeline import read
from processors.running import IDLE_SECONDS, LONGEST_KEY, Quiet, Record, parts
from processors.windows import WindowError

SIZE, STEP, GRACE = 30, 10, 5
AGGREGATE = several(
    n=count(),
    sum=total(lambda value: value["n"]),
    mean=mean(lambda value: value["n"]),
    least=least(lambda value: value["n"]),
    by=count_by(lambda value: value["n"]),
    first=reduce(lambda a, b: a),
)
BY_KEY = (
    read("in", name="job")
    .window(SIZE, STEP, grace=GRACE, at=lambda value: value["at"], late="late")
    .aggregate(AGGREGATE)
    .to("out")
)
BY_NEW_KEY = (
    read("in", name="job")
    .key_by(lambda value: value["key"])
    .window(SIZE, STEP, grace=GRACE, at=lambda value: value["at"], late="late")
    .aggregate(AGGREGATE)
    .to("out")
)
ENDS = 12
"""Keys of values that close windows: some in each partition."""
BETWEEN = "job-by-key-repartition"


class DiedError(Exception):
    """The worker was killed."""


class Log:
    """Topics, changelogs and committed offsets: what outlives a worker."""

    def __init__(self, partitions):
        self.partitions = partitions
        self.topics = defaultdict(list)
        self.changelogs = defaultdict(list)
        self.committed = defaultdict(int)
        self.on_their_way = defaultdict(list)
        self.arrived = set()  # since the last whole flush; of two workers in a row it would be one too many

    def read_back(self, place, chance):
        """Return a changelog as it is now; what its last writer had on its way may arrive after that."""
        kept = self.latest(place)
        late = self.on_their_way.pop(place, [])
        if place not in self.arrived and chance.random() < 0.5:
            self.changelogs[place] += late
            self.arrived.add(place)
        return kept

    def latest(self, place):
        """Return what is left of a changelog when it is compacted."""
        kept = dict(self.changelogs[place])
        return {key: value for key, value in kept.items() if value is not None}


class Worker:
    """Reads, flushes and commits in any order, and dies after a number of writes."""

    def __init__(self, job, log, chance, writes):
        self.log, self.chance, self.writes = log, chance, writes
        self.parts = parts(job, partitions=log.partitions)
        self.read = dict(log.committed)
        for part in self.parts:
            part.kept = lambda partition, topic=part.topic: log.read_back((topic, partition), chance)
        self.quiet, self.now = Quiet(), 0.0
        self.quiet.expect(range(log.partitions), range(log.partitions), 0.0)

    def run(self):
        while any(self.behind()):
            part, partition = self.chance.choice(self.behind())
            self.take(part, partition, self.chance.randrange(1, 30))
            if self.chance.random() < 0.3:
                self.mark_quiet()
            if self.chance.random() < 0.5:
                self.flush(*self.chance.choice([(each, number) for each in self.parts for number in each.state]))

    def behind(self):
        return [
            (part, partition)
            for part in self.parts
            for partition in range(self.log.partitions)
            if self.read.get((part.topic, partition), 0) < len(self.log.topics[part.topic, partition])
        ]

    def take(self, part, partition, count):
        place = (part.topic, partition)
        begin = self.read.get(place, 0)
        for offset in range(begin, min(begin + count, len(self.log.topics[place]))):
            key, value, headers = self.log.topics[place][offset]
            for output in part.process(Record(part.topic, partition, offset, 1e9, key, value, headers)):
                self.send(output)
            self.read[place] = offset + 1

    def send(self, output):
        self.write()
        partition = 0
        if output.topic == BETWEEN:
            partition = output.partition
            if partition is None:
                partition = zlib.crc32(output.key) % self.log.partitions
                self.quiet.sent(output.source, partition, self.now)
        self.log.topics[output.topic, partition].append((output.key, output.value, output.headers))

    def mark_quiet(self):
        self.now += IDLE_SECONDS / 2
        for source in self.quiet.sources(self.now):
            end = len(self.log.topics["in", source])
            if self.read.get(("in", source), 0) == end:
                for to in self.quiet.markers(source, self.now):
                    self.send(self.parts[0].marker(source, end - 1, to))
            else:
                self.quiet.busy(source, self.now)

    def flush(self, part, partition):
        state, place = part.state[partition], (part.topic, partition)
        position = state.next
        if part.window is not None:
            flush = state.take_flush()
            position = flush.next
            entries = [*flush.entries, (META, flush.meta), *((key, None) for key in flush.gone)]
            for number, entry in enumerate(entries):
                sent = len(flush.entries) + 1  # what is gone is deleted when those are acknowledged
                self.log.on_their_way[place] = entries[number:sent]
                self.write()
                self.log.changelogs[place].append(entry)
            self.log.on_their_way.pop(place)
            self.log.arrived.discard(place)
        self.write()
        self.log.committed[place] = max(self.log.committed[place], position)

    def write(self):
        self.writes -= 1
        if self.writes < 0:
            raise DiedError


def expected(values):
    """Aggregate in the plainest way: what each window holds of each key."""
    found = defaultdict(list)
    for value in values:
        for start in range(int(value["at"]) - SIZE - STEP, int(value["at"]) + 1):
            if start % STEP == 0 and start <= value["at"] < start + SIZE:
                found[value["key"], start].append(value)
    return {where: plainly(held) for where, held in found.items()}


def plainly(held):
    numbers = [value["n"] for value in held]
    return {
        "n": len(held),
        "sum": sum(numbers),
        "mean": sum(numbers) / len(numbers),
        "least": min(numbers),
        "by": {str(number): numbers.count(number) for number in set(numbers)},
    }


def fill(log, job, chance, count, *, disorder):
    """Produce values out of order, then what closes all windows.

    Those of a key are in one partition, unless the job gives them new keys: then they are anywhere.
    """
    values = []
    for number in range(count):
        key = f"k{chance.randrange(4)}"
        at = 1000 + number * 0.7 - chance.random() * disorder
        values.append({"key": key, "at": at, "n": chance.randrange(5)})
        produce(log, values[-1], None if job is BY_KEY else chance.randrange(log.partitions))
    for partition in range(log.partitions):
        for number in range(ENDS):
            produce(log, {"key": f"end-{number}", "at": 5000, "n": 0}, partition)
    return values


def produce(log, value, partition=None):
    key = value["key"].encode()
    if partition is None:
        partition = zlib.crc32(key) % log.partitions
    log.topics["in", partition].append((key, json.dumps(value).encode(), ()))


def results(log, *, drop=("first",)):
    """Return final results by key and start; that they are the same each time they are there."""
    found = {}
    for _, value, _ in log.topics["out", 0]:
        result = json.loads(value)
        where = result["key"], result["start"]
        assert result == found.setdefault(where, result)
    assert not any(result["partial"] for result in found.values())
    return {
        where: {name: each for name, each in result["value"].items() if name not in drop}
        for where, result in found.items()
        if not result["key"].startswith("end-")
    }


def survive(job, log, chance, deaths):
    """Run workers that die one after the other, and one that does not."""
    for _ in range(deaths):
        with contextlib.suppress(DiedError):
            Worker(job, log, chance, chance.randrange(1, 150)).run()
    last = Worker(job, log, chance, math.inf)
    last.run()
    return last


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([BY_KEY, BY_NEW_KEY]), st.integers(0, 12))
def test_results_are_those_of_a_plain_loop_whenever_workers_die(seed, job, deaths):
    """Every key and window, each time the same; nothing is late that was not."""
    chance, log = random.Random(seed), Log(3)
    values = fill(log, job, chance, 200, disorder=4)
    survive(job, log, chance, deaths)

    assert expected(values) == results(log)
    assert [] == log.topics["late", 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([BY_KEY, BY_NEW_KEY]))
def test_a_result_that_comes_again_is_the_same_with_late_records_too(seed, job):
    """Records that miss some of their windows count in the others alone, however often they are read."""
    chance, log = random.Random(seed), Log(2)
    fill(log, job, chance, 150, disorder=60)
    survive(job, log, chance, 8)

    assert results(log)
    assert log.topics["late", 0]


@pytest.mark.parametrize("job", [BY_KEY, BY_NEW_KEY], ids=["by the record's key", "by a new key"])
def test_what_is_kept_does_not_outgrow_the_open_windows(job):
    """Closed windows leave the changelog, restored ones too, and so does what torn flushes left."""
    chance, log = random.Random(5), Log(2)
    fill(log, job, chance, 600, disorder=4)
    last = survive(job, log, chance, 12)
    for partition in range(2):
        produce(log, {"key": "k1", "at": 5000, "n": 0}, partition)
    last.run()
    for part in last.parts:
        for partition in part.state:
            last.flush(part, partition)
    (windowed,) = [part for part in last.parts if part.window is not None]
    held = {partition: state.windows.held for partition, state in windowed.state.items()}

    assert {0, 1} == held.keys()
    assert held == {partition: len(log.latest((windowed.topic, partition))) - 1 for partition in held}
    assert ENDS * (2 if job is BY_KEY else 1) < sum(held.values()) <= ENDS * 2 + 2  # those of the end


def one(key="a", n=1, at=1000.0):
    return [(key, at, {"key": key, "n": n, "at": at})]


def state_of(kept):
    return PartitionState.restore(kept, BY_KEY.stages[0], (), whole=False)


def written(flush, upto=None):
    """Return what a flush has written, or the first so many of it."""
    return dict([*flush.entries, (META, flush.meta), *((key, None) for key in flush.gone)][:upto])


def test_only_what_has_changed_is_written():
    """One entry a key and pane, whatever the number of windows and records."""
    state = PartitionState(BY_KEY.stages[0], (), whole=True)
    for key in "abc":
        for _ in range(10):
            state.windows.add(*one(key)[0])
    assert [b"100/a", b"100/b", b"100/c"] == [key for key, _ in state.take_flush().entries]
    state.windows.add(*one("b")[0])

    assert [b"100/b"] == [key for key, _ in state.take_flush().entries]
    assert [] == state.take_flush().entries


def test_a_torn_flush_is_taken_back_and_written_anew():
    """Its entries do not count, and the next flush does not make them count."""
    state = PartitionState(BY_KEY.stages[0], (), whole=True)
    state.windows.add(*one("a")[0])
    kept = written(state.take_flush())
    state.windows.add(*one("a")[0])
    state.windows.add(*one("b")[0])
    kept |= written(state.take_flush(), upto=2)
    again = state_of(kept)
    assert {("a", 1)} == {(result.key, result.value["n"]) for result in again.windows.early()}
    again.windows.add(*one("c")[0])
    flush = again.take_flush()

    assert [META, b"100/b", b"100/a", b"100/c"] == [key for key, _ in flush.entries]
    assert [(b"100/b", None)] == [entry for entry in flush.entries if entry[1] is None]
    kept |= written(flush)
    left = state_of({key: value for key, value in kept.items() if value is not None})
    assert {("a", 1), ("c", 1)} == {(result.key, result.value["n"]) for result in left.windows.early()}


def test_an_entry_has_the_value_from_before_its_flush():
    """Also of an aggregate that changes what it holds."""
    job = read("in", name="job").window(60).aggregate(count_by()).to("out")
    state = PartitionState(job.stages[0], (), whole=True)
    state.windows.add("a", 1000.0, "x")
    assert [[["x", 1]]] == json.loads(state.take_flush().entries[0][1])[1:]
    state.windows.add("a", 1000.0, "y")
    state.windows.add("a", 1000.0, "y")

    assert [[["x", 1], ["y", 2]], [["x", 1]]] == json.loads(state.take_flush().entries[0][1])[1:]


def test_entries_that_another_worker_has_written_since_are_written_again():
    """As they are here, or deleted; and so is what the partition has come to."""
    state = PartitionState(BY_KEY.stages[0], (), whole=True)
    state.windows.add(*one("a")[0])
    kept = written(state.take_flush())
    assert not state.is_changed
    state.write_again([b"100/a", b"100/b", META])
    assert state.is_changed
    flush = state.take_flush()

    assert [b"100/b", b"100/a"] == [key for key, _ in flush.entries]
    assert (b"100/b", None) == flush.entries[0]
    assert json.loads(kept[b"100/a"])[1] == json.loads(flush.entries[1][1])[1]


def test_windows_that_were_kept_by_others_are_refused():
    """One line says what was kept and what is wanted."""
    state = PartitionState(BY_KEY.stages[0], (), whole=True)
    state.windows.add(*one()[0])
    other = read("in", name="job").window(60).aggregate(AGGREGATE).to("out")

    with pytest.raises(WindowError, match="cannot go on"):
        PartitionState.restore(written(state.take_flush()), other.stages[0], (), whole=False)


def test_what_cannot_be_kept_says_so():
    """Only JSON can."""
    job = read("in", name="job").window(60).aggregate(reduce(lambda a, b: a | b)).to("out")
    state = PartitionState(job.stages[0], (), whole=True)
    state.windows.add("a", 1000.0, {1, 2})

    with pytest.raises(KeptError, match="set is not JSON serializable"):
        state.take_flush()


@pytest.mark.parametrize(
    ("key", "error"),
    [
        pytest.param("k" * LONGEST_KEY, None, id="the longest"),
        pytest.param("k" * (LONGEST_KEY + 1), "longer than 32768 bytes", id="too long"),
        pytest.param("é" * (LONGEST_KEY // 2 + 1), "longer than 32768 bytes", id="too long in bytes"),
    ],
)
def test_the_key_of_a_window_is_not_longer_than_its_entry_may_be(key, error):
    """A record with a longer one fails by itself."""
    (part,) = parts(BY_KEY, partitions=1)
    value = json.dumps({"at": 1000, "n": 1}).encode()
    outputs = part.process(Record("in", 0, 0, 1e9, key.encode(), value))

    assert (error is not None) == bool(outputs)
    assert all(error in dict(output.headers)["streamgauge.error"].decode() for output in outputs)
