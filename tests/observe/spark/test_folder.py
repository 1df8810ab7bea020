"""One checkpoint folder: how the query runs, what it tells of restarts and skew, and folders that mean harm."""

import json
import os
import random
import re
import shutil
import tracemalloc
from pathlib import Path

import pytest

from monitor.model import SparkMode, TopicPartition
from monitor.observe.spark import store as stores
from monitor.observe.spark.batches import HISTORY
from monitor.observe.spark.checkpoint import CheckpointSource
from monitor.observe.spark.folder import Checkpoint
from monitor.observe.spark.formats import CheckpointError
from monitor.observe.spark.store import LocalStore
from monitor.settings import Cluster, SparkCheckpoints

FIXTURES = Path(__file__).parents[2] / "data" / "spark"
T0_MS = 1_795_400_000_000
NOW = 1_795_500_000.0


class Counting(LocalStore):
    """This machine's folders; counts what is asked."""

    def __init__(self):
        self.asked = []

    def entries(self, folder):
        self.asked.append(f"list {folder.rpartition('/')[2]}")
        return super().entries(folder)

    def read(self, path):
        self.asked.append("/".join(path.split("/")[-2:]))
        return super().read(path)


def checkpoint(folder, store=None):
    return Checkpoint(store or LocalStore(), str(folder), SparkCheckpoints(path=str(folder)))


def look(folder):
    return checkpoint(folder).look(lambda: NOW)


def new_folder(tmp_path, name="q"):
    folder = tmp_path / name
    for each in ("offsets", "commits"):
        (folder / each).mkdir(parents=True)
    (folder / "metadata").write_text('{"id":"11111111-2222-3333-4444-555555555555"}')
    return folder


def write(path, text, at):
    path.write_text(text)
    os.utime(path, (at, at))


def plan(folder, batch, planned_ms, offsets, *, delay=0.1, watermark_ms=0, conf=None):
    header = {"batchWatermarkMs": watermark_ms, "batchTimestampMs": planned_ms, "conf": conf or {}}
    lines = ["v1", json.dumps(header), json.dumps({"orders": {str(p): each for p, each in enumerate(offsets)}})]
    write(folder / "offsets" / str(batch), "\n".join(lines), planned_ms / 1000 + delay)


def commit(folder, batch, at):
    write(folder / "commits" / str(batch), 'v1\n{"nextBatchWatermarkMs":0}', at)


def run(folder, batch, planned_ms, took, offsets, **kw):
    plan(folder, batch, planned_ms, offsets, **kw)
    commit(folder, batch, planned_ms / 1000 + took)


# --- how a query runs -------------------------------------------------------------------------------


def as_recorded(tmp_path, name, plan_delay, took):
    """Copy a recording and give its files the times they had: seconds after batchTimestampMs."""
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    for log, delay in (("offsets", plan_delay), ("commits", took)):
        for file in (folder / log).iterdir():
            stamp = re.search(r'"batchTimestampMs":(\d+)', (folder / "offsets" / file.name).read_text())
            at = int(stamp[1]) / 1000 + delay if stamp else NOW
            os.utime(file, (at, at))
    return folder


@pytest.mark.parametrize(
    ("name", "plan_delay", "took", "mode", "sources"),
    [
        pytest.param("kafka-4.2.0", 0.1, 0.5, SparkMode.MICRO_BATCH, (1, 1), id="micro-batches"),
        pytest.param("async-progress-4.3.0", 0.1, 0.5, SparkMode.ASYNC_PROGRESS, (1, 0), id="every n-th on record"),
        pytest.param("continuous-4.3.0", 0, 0, SparkMode.CONTINUOUS, (1, 0), id="epochs"),
        # rtm-4.3.0.jsonl: batchDuration 5844, 5104, 5118 ms, of which 5 and 1 ms lie after the plan was written.
        pytest.param("rtm-4.3.0", 5.09, 5.1, SparkMode.REAL_TIME, (1, 0), id="real-time mode"),
        pytest.param("two-sources-4.3.0", 0.1, 0.5, SparkMode.MICRO_BATCH, (2, 1), id="one of two is Kafka's"),
    ],
)
def test_how_a_query_runs_is_told_by_its_files(tmp_path, name, plan_delay, took, mode, sources):  # noqa: PLR0917 (a row)
    """Numbers with gaps, a header that is empty, plans written when the batch is over."""
    query = look(as_recorded(tmp_path, name, plan_delay, took))

    assert (mode, sources) == (query.mode, (query.sources, query.kafka_sources))


def test_a_slow_plan_alone_is_no_real_time_mode(tmp_path):
    """Brokers that are slow to tell their heads delay the plan; the batch still takes its time after it."""
    folder = new_folder(tmp_path)
    for batch in range(5):
        run(folder, batch, T0_MS + batch * 10_000, 9.0, [batch], delay=6.0)

    assert SparkMode.MICRO_BATCH == look(folder).mode


def test_a_copy_is_no_real_time_mode(tmp_path):
    """Copied files are all of one moment, long after their batches: nothing says that they were planned late."""
    shutil.copytree(FIXTURES / "kafka-4.2.0", tmp_path / "q")
    for log, at in (("offsets", NOW), ("commits", NOW + 0.5)):
        for file in (tmp_path / "q" / log).iterdir():
            os.utime(file, (at, at))

    assert SparkMode.MICRO_BATCH == look(tmp_path / "q").mode


def test_what_the_checkpoint_pins_is_told(tmp_path):
    """The newest plan's settings: a change of the job's own has no effect on them."""
    pinned = look(as_recorded(tmp_path, "v1-4.3.0", 0.1, 0.5)).pinned

    assert "3" == pinned["spark.sql.shuffle.partitions"]
    assert pinned["spark.sql.streaming.stateStore.providerClass"].endswith("RocksDBStateStoreProvider")


def test_batches_tell_their_skew_and_watermark(tmp_path):
    """Rows of the fullest partition and of the median one, and the watermark that was in effect."""
    folder = new_folder(tmp_path)
    run(folder, 0, T0_MS, 0.5, [0, 0, 0])
    run(folder, 1, T0_MS + 1000, 0.5, [900, 40, 60], watermark_ms=T0_MS - 60_000)
    batch = look(folder).batches[-1]

    assert (1000, 900, 60) == (batch.input_rows, batch.most_rows, batch.median_rows)
    assert T0_MS / 1000 - 60 == batch.watermark


def test_restarts_are_counted_by_the_batches_they_interrupted(tmp_path):
    """Much longer than both neighbours and committed before the next plan; a copied file is none."""
    folder = new_folder(tmp_path)
    at = T0_MS
    for batch, took in enumerate([1.0, 1.0, 240.0, 1.0, 1.0, 300.0, 1.0]):
        run(folder, batch, at, took, [batch])
        at += int(took * 1000) + 500
    query = look(folder)

    assert 2 == query.restarts
    assert [True, True, False, True, True, False, True] == [each.duration_seconds is not None for each in query.batches]


# --- what is read -----------------------------------------------------------------------------------


def test_a_look_reads_only_the_next_batch(tmp_path):
    """First the listings, then by number; with a batch in flight only its commit is asked for."""
    folder, store = new_folder(tmp_path), Counting()
    for batch in range(3):
        run(folder, batch, T0_MS + batch * 1000, 0.5, [batch])
    query = checkpoint(folder, store)
    query.look(lambda: NOW)
    assert ["list commits", "list offsets"] == [each for each in store.asked if each.startswith("list ")][:2]

    store.asked.clear()
    run(folder, 3, T0_MS + 3000, 0.5, [3])
    plan(folder, 4, T0_MS + 4000, [5])
    assert (3, 4) == ((seen := query.look(lambda: NOW)).batch_id, seen.inflight_batch_id)
    assert ["commits/3", "commits/4", "offsets/3", "offsets/4"] == store.asked

    store.asked.clear()
    query.look(lambda: NOW)
    assert ["commits/4"] == store.asked


def test_the_first_batch_has_its_start_however_much_came_at_once(tmp_path):
    """The start, the plan and the commit all appear between two looks: the batch's rows count from that start."""
    folder = new_folder(tmp_path)
    query = checkpoint(folder)
    assert {} == query.look(lambda: NOW).committed
    (folder / "sources/0").mkdir(parents=True)
    (folder / "sources/0/0").write_text('\0v1\n{"orders":{"0":3,"1":4}}')
    run(folder, 0, T0_MS, 0.5, [10, 10])
    run(folder, 1, T0_MS + 1000, 0.5, [11, 12])

    assert [13, 3] == [each.input_rows for each in query.look(lambda: NOW).batches]


def test_a_folder_that_changed_in_a_way_no_number_explains_is_listed(tmp_path):
    """A query that skips numbers from now on, and one that was set back and has not gone on yet."""
    folder, store = new_folder(tmp_path), Counting()
    for batch in range(3):
        run(folder, batch, T0_MS + batch * 1000, 0.5, [batch])
    query = checkpoint(folder, store)
    query.look(lambda: NOW)
    run(folder, 7, T0_MS + 7000, 0.5, [7])
    assert (7, SparkMode.ASYNC_PROGRESS) == ((seen := query.look(lambda: NOW)).batch_id, seen.mode)

    for log in ("offsets", "commits"):
        (folder / log / "7").unlink()
    assert 2 == query.look(lambda: NOW).batch_id


def test_history_comes_when_it_is_asked_for(tmp_path):
    """At first the newest two batches, later all; what was seen stays as it is."""
    folder = new_folder(tmp_path)
    for batch in range(HISTORY + 20):
        run(folder, batch, T0_MS + batch * 1000, 0.5, [2 * batch])
    query = checkpoint(folder)
    first = query.look(lambda: NOW, history=False)
    run(folder, HISTORY + 20, T0_MS + 1_000_000, 0.5, [2 * HISTORY + 40])
    second = query.look(lambda: NOW, history=False)
    third = query.look(lambda: NOW, history=True)

    assert [HISTORY + 18, HISTORY + 19] == [each.batch_id for each in first.batches]
    assert [None, 2] == [each.input_rows for each in first.batches]
    assert [HISTORY + 18, HISTORY + 19, HISTORY + 20] == [each.batch_id for each in second.batches]
    assert list(range(21, HISTORY + 21)) == [each.batch_id for each in third.batches]
    assert second.batches[1:] == third.batches[-2:]


@pytest.mark.parametrize("seed", range(5))
def test_looks_in_between_tell_the_same_as_one_look_at_the_end(tmp_path, seed):
    """However batches, looks and restarts of the monitor fall: what was read step by step is what lies there."""
    chance, folder = random.Random(seed), new_folder(tmp_path)
    query, at, batch, ends, in_flight = checkpoint(folder), T0_MS, 0, [0, 0], False
    for _ in range(150):
        match chance.randrange(5):
            case 0 | 1 if in_flight:
                took = chance.choice([0.4, 2.0, 90.0])
                commit(folder, batch, at / 1000 + took)
                batch, at, in_flight = batch + 1, at + int(took * 1000) + chance.randrange(2000), False
            case 0 | 1 | 2 if not in_flight:
                ends = [each + chance.randrange(50) for each in ends]
                plan(folder, batch, at, ends)
                in_flight = True
            case 3:
                oldest = min((int(each.name) for each in (folder / "commits").iterdir()), default=0)
                if batch - oldest > 3:
                    (folder / "commits" / str(oldest)).unlink()
            case _:
                query.look(lambda: NOW, history=chance.random() < 0.5)
    seen, anew = query.look(lambda: NOW, history=True), look(folder)

    assert (anew.batch_id, anew.committed, anew.planned, anew.inflight_batch_id) == (
        seen.batch_id, seen.committed, seen.planned, seen.inflight_batch_id,
    )  # fmt: skip
    shared = {each.batch_id: each for each in seen.batches}
    # The oldest one's rows and neighbour lie before what is still there.
    assert list(anew.batches[1:]) == [shared[each.batch_id] for each in anew.batches[1:]]


# --- folders that mean harm -------------------------------------------------------------------------

DEEP = "[" * 100_000
HEADER = '{"batchTimestampMs":1795400000000}'


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        pytest.param("metadata", json.dumps({"id": ["a"]}), "MALFORMED", id="a list for an id"),
        pytest.param("metadata", json.dumps({"id": "x" * 10_000}), "MALFORMED", id="an id without end"),
        pytest.param("metadata", json.dumps({"id": "a\nb\x1b[31m"}), "MALFORMED", id="an id that writes to a terminal"),
        pytest.param("metadata", DEEP, "MALFORMED", id="deep metadata"),
        pytest.param("offsets/1", f"v1\n{HEADER}\n{{{DEEP}", "MALFORMED", id="deep offsets"),
        pytest.param("offsets/1", 'v1\n{"batchTimestampMs":"soon"}\n1', "MALFORMED", id="a text for a time"),
        pytest.param("offsets/1", 'v1\n{"batchTimestampMs":true}\n1', "MALFORMED", id="true for a time"),
        pytest.param("offsets/1", 'v1\n{"batchTimestampMs":-5}\n1', "MALFORMED", id="a time before all"),
        pytest.param(
            "offsets/1", f'v1\n{{"batchTimestampMs":{"9" * 5000}}}\n1', "MALFORMED", id="a number without end"
        ),
        pytest.param("offsets/1", 'v1\n{"batchTimestampMs":["' + "x" * 9000 + '"]}\n1', "MALFORMED", id="a long list"),
        pytest.param("offsets/1", f'v1\n{HEADER}\n{{"orders":{{"0":9223372036854775808}}}}', "MALFORMED", id="too far"),
        pytest.param("commits/1", 'v1\n{"nextBatchWatermarkMs":1e400}', "MALFORMED", id="an infinite watermark"),
        pytest.param("commits/1", "v1\nnull", "MALFORMED", id="nothing"),
        pytest.param("commits/1", "v99999999999999999999\n{}", "UNSUPPORTED", id="a version of the far future"),
    ],
)
def test_a_hostile_file_is_one_short_failure(tmp_path, file, text, error):
    """Whatever is in it: one line of bearable length that quotes little of it."""
    folder = new_folder(tmp_path)
    for batch in range(2):
        run(folder, batch, T0_MS + batch * 1000, 0.5, [batch])
    (folder / file).write_text(text)

    with pytest.raises(CheckpointError) as caught:
        look(folder)
    told = str(caught.value).removeprefix(str(folder))
    assert (error, True, True) == (caught.value.error, len(told) < 200, told.isprintable())


@pytest.mark.parametrize(
    "offsets",
    [
        pytest.param({"../../etc/passwd": {"0": 1}}, id="a path for a topic"),
        pytest.param({"a\nb": {"0": 1}}, id="a line break in a topic"),
        pytest.param({"x" * 250: {"0": 1}}, id="a topic longer than Kafka allows"),
        pytest.param({"orders": {"2147483648": 1}}, id="a partition beyond 32 bits"),
        pytest.param({"orders": {"00": 1, "0": 2}}, id="a partition twice"),
        pytest.param({"orders": {"-1": 1}}, id="a negative partition"),
        pytest.param({"orders": {"0": 1.5}}, id="half an offset"),
        pytest.param({"orders": {"0": True}}, id="true for an offset"),
        pytest.param({"orders": {"²": 1}}, id="a digit of another kind"),
    ],
)
def test_offsets_that_cannot_be_kafkas_are_no_positions(tmp_path, offsets):
    """They may be another source's: the query is there, without positions on this cluster."""
    folder = new_folder(tmp_path)
    write(folder / "offsets/0", f"v1\n{HEADER}\n{json.dumps(offsets)}", T0_MS / 1000)
    commit(folder, 0, T0_MS / 1000 + 1)
    query = look(folder)

    assert ({}, 1, 0) == (query.committed, query.sources, query.kafka_sources)


def test_names_that_are_no_batch_numbers_are_left_alone(tmp_path):
    """Signs, zeros in front, digits of other scripts, numbers beyond 64 bits: Spark writes none of them."""
    folder = new_folder(tmp_path)
    run(folder, 4, T0_MS, 0.5, [7])
    for name in ("+5", "-5", "05", "٥", "9223372036854775808", "9" * 200, "5\n", "5 ", "..5"):
        (folder / "offsets" / name).write_text("harm")
        (folder / "commits" / name).write_text("harm")
    query = look(folder)

    assert (4, {TopicPartition("orders", 0): 7}) == (query.batch_id, query.committed)


def test_a_link_out_of_the_folder_is_read_to_its_limit_only(tmp_path, monkeypatch):
    """A plan that is a link to a device without end is a failure, and memory stays as it is."""
    monkeypatch.setattr(stores, "MAX_FILE_BYTES", 200_000)
    folder = new_folder(tmp_path)
    run(folder, 0, T0_MS, 0.5, [1])
    (folder / "offsets/1").symlink_to("/dev/zero")

    with pytest.raises(CheckpointError, match="larger than") as caught:
        look(folder)
    assert "UNREADABLE" == caught.value.error


def test_a_long_history_costs_the_positions_of_a_few_plans(tmp_path):
    """Positions are kept of the plans still needed: the history of a wide query is a few numbers a batch."""
    folder = new_folder(tmp_path)
    for batch in range(40):
        run(folder, batch, T0_MS + batch * 1000, 0.5, range(500))
    query = checkpoint(folder)
    tracemalloc.start()
    query.look(lambda: NOW)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    one = 500 * 200  # bytes of the positions of one plan, about
    assert held < 5 * one
    assert peak < 15 * one


async def test_a_folder_of_very_many_names_is_one_failure(tmp_path, monkeypatch):
    """And hides no other query."""
    monkeypatch.setattr(stores, "MAX_NAMES", 50)
    bad, good = new_folder(tmp_path, "bad"), new_folder(tmp_path, "good")
    run(good, 0, T0_MS, 0.5, [1])
    for number in range(51):
        (bad / "offsets" / f"junk-{number}").touch()
    entry = SparkCheckpoints(path=f"{tmp_path}/*")
    seen = await CheckpointSource(Cluster(bootstrap_servers="x:1", spark=(entry,))).observe()

    assert ["good"] == [query.consumer.name for query in seen.queries]
    assert [(str(bad), "UNREADABLE")] == [(each.name, each.error) for each in seen.failures]


async def test_every_query_gets_its_history_in_time(tmp_path, monkeypatch):
    """A few queries a look, until all have it."""
    monkeypatch.setattr("monitor.observe.spark.checkpoint.HISTORIES", 2)
    for name in "abcde":
        folder = new_folder(tmp_path, name)
        for batch in range(6):
            run(folder, batch, T0_MS + batch * 1000, 0.5, [batch])
    source = CheckpointSource(Cluster(bootstrap_servers="x:1", spark=(SparkCheckpoints(path=f"{tmp_path}/*"),)))
    looks = [[len(query.batches) for query in (await source.observe()).queries] for _ in range(3)]

    assert [[6, 6, 2, 2, 2], [6, 6, 6, 6, 2], [6, 6, 6, 6, 6]] == [sorted(each, reverse=True) for each in looks]
