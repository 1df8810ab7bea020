"""Spark checkpoints: folders that Spark 3.5 to 4.3 wrote, and folders made here one file at a time."""

import asyncio
import contextlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.model import Kind, SparkSnapshot, TopicPartition
from monitor.observe.spark.batches import HISTORY, input_rows, is_duration, slowest
from monitor.observe.spark.checkpoint import CheckpointSource
from monitor.observe.spark.formats import (
    CheckpointError,
    parse_commit,
    parse_initial_offsets,
    parse_offsets,
    parse_query_id,
)
from monitor.settings import Cluster, SparkCheckpoints

FIXTURES = Path(__file__).parents[2] / "data" / "spark"
NOW = 1_795_500_000.0
T0_MS = 1_795_400_000_000


def tp(topic, partition):
    return TopicPartition(topic, partition)


def source(*paths, name=None, interval=None, timeout=5.0):
    entries = tuple(SparkCheckpoints(path=str(path), name=name, trigger_interval_seconds=interval) for path in paths)
    cluster = Cluster(bootstrap_servers="x:1", spark=entries, timeout_seconds=timeout)
    return CheckpointSource(cluster, clock=lambda: NOW)


async def look(*paths, **kw) -> SparkSnapshot:
    return await source(*paths, **kw).observe()


async def the_query(path, **kw):
    snapshot = await look(path, **kw)
    assert () == snapshot.failures
    return snapshot.queries[0]


def fixture(tmp_path, name, took=0.5):
    """Copy a checkpoint and give its files the times they would have: planned after 0.1 s, committed after ``took``."""
    folder = tmp_path / name
    shutil.copytree(FIXTURES / name, folder)
    for log, delay in (("offsets", 0.1), ("commits", took)):
        for file in (folder / log).iterdir():
            stamp = re.search(r'"batchTimestampMs":(\d+)', (folder / "offsets" / file.name).read_text())
            at = int(stamp[1]) / 1000 + delay if stamp else NOW
            os.utime(file, (at, at))
    return folder


def new_checkpoint(tmp_path, name="q", query_id="11111111-2222-3333-4444-555555555555"):
    folder = tmp_path / name
    for each in ("offsets", "commits", "sources/0"):
        (folder / each).mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"id": query_id}))
    return folder


def write(path, text, at):
    path.write_text(text)
    os.utime(path, (at, at))


def plan(folder, batch, planned_ms, *sources, delay=0.1):
    header = json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": planned_ms, "conf": {}})
    write(folder / "offsets" / str(batch), "\n".join(["v1", header, *map(as_text, sources)]), planned_ms / 1000 + delay)


def commit(folder, batch, at, watermark_ms=0):
    write(folder / "commits" / str(batch), f'v1\n{{"nextBatchWatermarkMs":{watermark_ms}}}', at)


def run(folder, batch, planned_ms, took, *sources):
    plan(folder, batch, planned_ms, *sources)
    commit(folder, batch, planned_ms / 1000 + took)


def as_text(offset):
    return offset if isinstance(offset, str) else json.dumps(offset)


def orders(*offsets):
    return {"orders": {str(partition): offset for partition, offset in enumerate(offsets)}}


# --- what Spark wrote -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "query_id", "batch_id", "committed", "rows", "watermark"),
    [
        pytest.param(
            "kafka-4.2.0",
            "610bdd6d-0c0f-4616-89e5-688bf06d5d60",
            9,
            {tp("orders", 0): 4800, tp("orders", 1): 5200, tp("orders", 2): 4800, tp("orders", 3): 5200},
            [None, 2000, 2000, 2000],
            None,
            id="the real Kafka source",
        ),
        pytest.param(
            "kafka-shaped-4.3.0",
            "5227eb02-e5ee-4a5c-90af-13d69adc939b",
            3,
            {tp("orders", 0): 122, tp("orders", 1): 121, tp("pay", 0): 122},
            [None, 120, 120, 120],
            None,
            id="two topics in one source",
        ),
        pytest.param(
            "two-sources-4.3.0",
            "53719ef6-c802-45f6-ad6c-871a069f91dd",
            2,
            {tp("orders", 0): 85, tp("orders", 1): 59, tp("pay", 0): 85},
            [None, 109, 108],
            None,
            id="one Kafka-like source, one of another kind",
        ),
        pytest.param(
            "offsetlog-v2-4.3.0",
            "4d4d7b8a-45a8-4719-928d-4a6fc9404552",
            9,
            {},
            [None, None, None, None],
            1795334415.574,
            id="offset log v2, a source of another kind",
        ),
        pytest.param(
            "commitlog-v2-4.3.0",
            "ffb50467-d5ad-425c-849b-6de8e46cada2",
            9,
            {},
            [None, None, None, None],
            1795334425.755,
            id="commit log v2",
        ),
        pytest.param(
            "v1-3.5.8", "a87ef109-06bc-43cb-a366-2dd6f1e1866d", 14, {}, [None] * 4, 1795333604.388, id="Spark 3.5"
        ),
        pytest.param(
            "v1-4.3.0", "5403f041-3a8b-4a37-bfaa-d33eb21b2236", 14, {}, [None] * 4, 1795333215.177, id="Spark 4.3"
        ),
        pytest.param(
            "async-progress-4.3.0", "610ac1c0-797e-43c1-859a-d636e4ec376c", 6, {}, [None] * 3, None, id="ids with gaps"
        ),
        pytest.param(
            "rtm-4.3.0",
            "a7f94009-ceef-44cf-8be5-47adfea5ff0d",
            2,
            {},
            [None] * 3,
            None,
            id="real-time mode, a source with partitions but no topic",
        ),
    ],
)
async def test_what_spark_wrote(tmp_path, name, query_id, batch_id, committed, rows, watermark):  # noqa: PLR0917 (a row)
    """Each layout gives the query, its position after the newest commit, its batches and its watermark."""
    query = await the_query(fixture(tmp_path, name, took=0.5))

    assert (query_id, batch_id, committed, {}, watermark) == (
        query.query_id,
        query.batch_id,
        query.committed,
        query.planned,
        query.watermark,
    )
    assert rows == [batch.input_rows for batch in query.batches]
    assert pytest.approx([0.5] * len(rows)) == [batch.duration_seconds for batch in query.batches]
    assert (None, None) == (query.inflight_batch_id, query.inflight_planned_at)
    assert ("checkpoint", NOW) == (*query.seen_by, query.observed_at)


async def test_batches_say_when_they_were_planned_and_committed(tmp_path):
    """planned_at is batchTimestampMs, committed_at the commit file's time."""
    query = await the_query(fixture(tmp_path, "kafka-4.2.0", took=1.25))

    assert [6, 7, 8, 9] == [batch.batch_id for batch in query.batches]
    assert pytest.approx(1795438308.024) == query.batches[-1].planned_at
    assert pytest.approx(1795438309.274) == query.batches[-1].committed_at


async def test_continuous_mode_has_epochs_but_no_durations(tmp_path):
    """Its header line is empty: nothing says when an epoch began, so nothing says how long it took."""
    query = await the_query(fixture(tmp_path, "continuous-4.3.0"))

    assert 6 == query.batch_id
    assert [None] * 4 == [batch.duration_seconds for batch in query.batches]
    assert NOW == query.batches[-1].committed_at
    assert query.batches[-1].planned_at != query.batches[-1].planned_at  # NaN


async def test_a_copied_checkpoint_has_positions_but_no_durations(tmp_path):
    """Files that are much younger than their batchTimestampMs were copied: their times say nothing of the batch."""
    shutil.copytree(FIXTURES / "kafka-4.2.0", tmp_path / "copy")
    query = await the_query(tmp_path / "copy")

    assert 4800 == query.committed[tp("orders", 0)]
    assert [None] * 4 == [batch.duration_seconds for batch in query.batches]


# --- in flight, first, idle -------------------------------------------------------------------------


async def test_a_batch_in_flight_is_planned_and_not_committed(tmp_path):
    """The newest commit is the position; what lies beyond is planned, and ages from its batchTimestampMs."""
    folder = new_checkpoint(tmp_path)
    run(folder, 0, T0_MS, 1.0, orders(5, 5))
    plan(folder, 1, T0_MS + 2000, orders(9, 7))
    query = await the_query(folder)

    assert {tp("orders", 0): 5, tp("orders", 1): 5} == query.committed
    assert {tp("orders", 0): 9, tp("orders", 1): 7} == query.planned
    assert (0, 1, T0_MS / 1000 + 2.0) == (query.batch_id, query.inflight_batch_id, query.inflight_planned_at)


async def test_of_several_plans_ahead_the_oldest_is_in_flight(tmp_path):
    """Asynchronous progress may plan ahead: the age is that of the oldest uncommitted batch, the plan the newest."""
    folder = new_checkpoint(tmp_path)
    run(folder, 0, T0_MS, 1.0, orders(5))
    plan(folder, 3, T0_MS + 2000, orders(9))
    plan(folder, 6, T0_MS + 4000, orders(12))
    query = await the_query(folder)

    assert (3, T0_MS / 1000 + 2.0) == (query.inflight_batch_id, query.inflight_planned_at)
    assert {tp("orders", 0): 12} == query.planned


async def test_before_the_first_commit_the_position_is_where_it_started(tmp_path):
    """Spark's Kafka source keeps its start in sources/0/0, behind a zero byte."""
    folder = new_checkpoint(tmp_path)
    checkpoints = source(folder)
    asking = (await checkpoints.observe()).queries[0]
    (folder / "sources/0/0").write_text('\0v1\n{"orders":{"0":3,"1":4}}')
    before = (await checkpoints.observe()).queries[0]
    plan(folder, 0, T0_MS, orders(10, 10))
    during = (await checkpoints.observe()).queries[0]
    commit(folder, 0, T0_MS / 1000 + 1)
    after = (await checkpoints.observe()).queries[0]

    assert {} == asking.committed
    assert (None, {tp("orders", 0): 3, tp("orders", 1): 4}, {}) == (before.batch_id, before.committed, before.planned)
    assert ({tp("orders", 0): 3, tp("orders", 1): 4}, 0) == (during.committed, during.inflight_batch_id)
    assert ({tp("orders", 0): 10, tp("orders", 1): 10}, [13]) == (
        after.committed,
        [batch.input_rows for batch in after.batches],
    )


async def test_a_query_that_has_only_begun_has_no_position(tmp_path):
    """A metadata file alone: the query is there, nothing about it is zero."""
    folder = tmp_path / "q"
    folder.mkdir()
    (folder / "metadata").write_text('{"id":"abc"}')
    query = await the_query(folder)

    assert ("abc", {}, {}, None, ()) == (
        query.query_id,
        query.committed,
        query.planned,
        query.batch_id,
        query.batches,
    )


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [
        pytest.param([orders(5, 5)], [orders(7, 6)], 3, id="two partitions"),
        pytest.param([orders(5)], [orders(5)], 0, id="nothing came"),
        pytest.param([orders(5)], [orders(5, 4)], None, id="a new partition starts nobody knows where"),
        pytest.param([orders(50)], [orders(3)], 0, id="topic made anew"),
        pytest.param(["-"], [orders(3)], None, id="the source had no offset yet"),
        pytest.param([orders(1), "17"], [orders(3), "18"], 2, id="the other source is of another kind"),
        pytest.param([orders(1), orders(1)], [orders(3), orders(2)], 3, id="two sources on the same topic"),
        pytest.param(["17"], ["18"], None, id="not Kafka"),
    ],
)
async def test_input_rows(tmp_path, before, after, rows):
    """Input rows are what the offset ranges of Kafka-like sources span; unknown where a start is."""
    folder = new_checkpoint(tmp_path)
    run(folder, 3, T0_MS, 0.5, *before)
    run(folder, 4, T0_MS + 1000, 0.5, *after)
    query = await the_query(folder)

    assert rows == query.batches[-1].input_rows


async def test_two_sources_on_one_partition_are_as_late_as_the_slower(tmp_path):
    """A query joining a topic with itself has read a record only when both sources have."""
    folder = new_checkpoint(tmp_path)
    run(folder, 0, T0_MS, 0.5, orders(9, 4), orders(7, 6))

    assert {tp("orders", 0): 7, tp("orders", 1): 4} == (await the_query(folder)).committed


# --- durations --------------------------------------------------------------------------------------


async def test_the_batch_that_a_restart_interrupted_has_no_duration(tmp_path):
    """Spark commits it under its old batchTimestampMs: the downtime is no batch time; its neighbours keep theirs."""
    folder = new_checkpoint(tmp_path)
    run(folder, 0, T0_MS, 1.0, orders(1))
    run(folder, 1, T0_MS + 2_000, 300.0, orders(2))
    run(folder, 2, T0_MS + 302_500, 1.5, orders(3))
    query = await the_query(folder)

    assert [1.0, None, 1.5] == [
        duration and pytest.approx(duration) for duration in (batch.duration_seconds for batch in query.batches)
    ]


@pytest.mark.parametrize(
    ("span", "delay", "until_next", "neighbours", "is_one"),
    [
        pytest.param(2.0, 0.1, 10.0, [2.0, 2.1], True, id="as ever"),
        pytest.param(2.0, 0.1, float("inf"), [], True, id="the only one"),
        pytest.param(400.0, 0.1, float("inf"), [], True, id="a long one with nothing to compare with"),
        pytest.param(9.0, 0.1, 10.0, [0.1], True, id="sooner than any driver restarts"),
        pytest.param(12.0, 0.1, 12.1, [1.0, 1.0], False, id="far longer than its neighbours"),
        pytest.param(12.0, 0.1, 12.1, [1.0, 11.0], True, id="its neighbour is slow as well"),
        pytest.param(2.0, 30.0, 10.0, [2.0], False, id="planned long after its time"),
        pytest.param(-0.1, -0.2, 10.0, [2.0], False, id="committed before it was planned"),
        pytest.param(2.0, 0.1, 1.0, [2.0], False, id="committed after the next was planned"),
        pytest.param(float("nan"), float("nan"), float("nan"), [], False, id="nothing says when it was planned"),
        pytest.param(2.0, 0.1, float("nan"), [float("nan")], True, id="its neighbours are not known"),
    ],
)
def test_a_span_is_a_duration_only_where_nothing_speaks_against_it(span, delay, until_next, neighbours, is_one):
    """Each sign of a restart or a copy alone makes the duration unknown."""
    assert is_one == is_duration(span, plan_delay=delay, until_next_plan=until_next, neighbours=neighbours)


# --- names, paths, intervals ------------------------------------------------------------------------


async def test_names(tmp_path):
    """The configured name with {folder} filled in, else the folder's last part."""
    new_checkpoint(tmp_path, "billing")

    assert (Kind.SPARK, "billing") == (await the_query(tmp_path / "billing")).consumer
    assert "spark/billing" == (await the_query(tmp_path / "*", name="spark/{folder}")).consumer.name


async def test_queries_with_the_same_name_are_told_apart(tmp_path):
    """By the short query id; where that is the same too (a copied checkpoint), by the folder."""
    new_checkpoint(tmp_path, "a/q", "aaaaaaaa-1")
    new_checkpoint(tmp_path, "b/q", "bbbbbbbb-1")
    new_checkpoint(tmp_path, "c/q", "bbbbbbbb-1")
    new_checkpoint(tmp_path, "d/other", "cccccccc-1")
    snapshot = await look(tmp_path / "*" / "*")

    assert ["q (aaaaaaaa)", f"q ({tmp_path}/b/q)", f"q ({tmp_path}/c/q)", "other"] == [
        query.consumer.name for query in snapshot.queries
    ]


async def test_a_failing_namesake_does_not_rename_the_other(tmp_path):
    """A query keeps its shown name while the other one's checkpoint cannot be read."""
    new_checkpoint(tmp_path, "a/q", "aaaaaaaa-1")
    other = new_checkpoint(tmp_path, "b/q", "bbbbbbbb-1")
    checkpoints = source(tmp_path / "*" / "*")
    await checkpoints.observe()
    (other / "metadata").write_text("{")

    assert ["q (aaaaaaaa)"] == [query.consumer.name for query in (await checkpoints.observe()).queries]


async def test_a_checkpoint_named_twice_is_seen_once(tmp_path):
    """A path and a glob that matches it: the first entry counts."""
    new_checkpoint(tmp_path, "q")
    entries = (
        SparkCheckpoints(path=str(tmp_path / "q"), trigger_interval_seconds=2.0),
        SparkCheckpoints(path=f"file://{tmp_path}/*"),
    )
    snapshot = await CheckpointSource(Cluster(bootstrap_servers="x:1", spark=entries)).observe()

    assert [("q", 2.0)] == [(q.consumer.name, q.trigger_interval_seconds) for q in snapshot.queries]


async def test_a_glob_that_matches_nothing_yet_is_no_failure(tmp_path):
    """Queries come when they come; other folders, files and hidden ones beside them are left alone."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").write_text("")
    new_checkpoint(tmp_path, ".hidden")
    snapshot = await look(tmp_path / "*")

    assert (True, (), ()) == (snapshot.up, snapshot.queries, snapshot.failures)


# --- failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        pytest.param(shutil.rmtree, "NOT_FOUND", "no folder", id="no folder"),
        pytest.param(lambda q: (q / "metadata").unlink(), "NOT_A_CHECKPOINT", "checkpointLocation", id="no metadata"),
        pytest.param(lambda q: (q / "metadata").write_text('{"id":'), "MALFORMED", "metadata", id="torn metadata"),
        pytest.param(lambda q: (q / "metadata").write_text("[]"), "MALFORMED", "object", id="metadata is a list"),
        pytest.param(lambda q: (q / "metadata").write_text("{}"), "MALFORMED", "query id", id="no id"),
        pytest.param(lambda q: (q / "offsets/1").write_bytes(b""), "MALFORMED", "offsets/1", id="empty plan"),
        pytest.param(lambda q: (q / "offsets/1").write_text('v1\n{"ba'), "MALFORMED", "offsets/1", id="torn header"),
        pytest.param(lambda q: (q / "offsets/1").write_bytes(b"\xff\xfe"), "MALFORMED", "not text", id="binary"),
        pytest.param(lambda q: (q / "offsets/1").write_text("v3\n{}\n{}"), "UNSUPPORTED", "v3", id="newer version"),
        pytest.param(lambda q: (q / "commits/1").write_text("v1\n"), "MALFORMED", "commits/1", id="torn commit"),
        pytest.param(lambda q: (q / "offsets/1").unlink(), "MALFORMED", "no offsets/1", id="a commit without a plan"),
        pytest.param(
            lambda q: plan(q, 1, T0_MS, '{"orders":{"0":5,"1"'), "MALFORMED", "offsets/1", id="torn source offset"
        ),
        pytest.param(lambda q: plan(q, 1, T0_MS, orders(-2)), "MALFORMED", "-2", id="negative offset"),
        pytest.param(lambda q: plan(q, 1, T0_MS, orders(2**63)), "MALFORMED", "offset", id="offset too large"),
        pytest.param(
            lambda q: (shutil.rmtree(q / "offsets"), (q / "offsets").write_text("")),
            "UNREADABLE",
            "offsets",
            id="a file where a folder should be",
        ),
    ],
)
async def test_a_spoilt_checkpoint_is_one_failure_and_hides_no_other(tmp_path, spoil, error, says):
    """The failure carries the checkpoint's name and one line; the query beside it is fresh."""
    bad, good = new_checkpoint(tmp_path, "bad"), new_checkpoint(tmp_path, "good", "good-id")
    for folder in (bad, good):
        run(folder, 0, T0_MS, 0.5, orders(1))
        run(folder, 1, T0_MS + 1000, 0.5, orders(2))
    spoil(bad)
    snapshot = await look(bad, good)

    assert [("checkpoint", str(bad), error)] == [(f.scope, f.name, f.error) for f in snapshot.failures]
    assert says in snapshot.failures[0].detail
    assert "\n" not in snapshot.failures[0].detail
    assert not snapshot.up
    assert ["good"] == [query.consumer.name for query in snapshot.queries]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("s3a://bucket/checkpoints/q", "UNSUPPORTED", id="an object store"),
        pytest.param("/no/such/place/*", "NOT_FOUND", id="a glob in a folder that is not there"),
    ],
)
async def test_a_path_that_can_never_match_is_a_failure(path, error):
    """It is told at once, under the configured path."""
    assert [(path, error)] == [(f.name, f.error) for f in (await look(path)).failures]


async def test_a_file_system_that_goes_away_makes_no_query_leave(tmp_path):
    """A glob's folder is gone: each known query fails by its own name, so that it stays, unknown."""
    new_checkpoint(tmp_path, "mnt/a")
    new_checkpoint(tmp_path, "mnt/b")
    checkpoints = source(tmp_path / "mnt" / "*")
    await checkpoints.observe()
    (tmp_path / "mnt").rename(tmp_path / "gone")
    away = await checkpoints.observe()
    (tmp_path / "gone").rename(tmp_path / "mnt")
    back = await checkpoints.observe()

    assert [str(tmp_path / "mnt/a"), str(tmp_path / "mnt/b")] == [f.name for f in away.failures]
    assert (2, True) == (len(back.queries), back.up)


async def test_a_removed_checkpoint_under_a_glob_is_gone(tmp_path):
    """What somebody deleted is no failure."""
    folder = new_checkpoint(tmp_path)
    checkpoints = source(tmp_path / "*")
    await checkpoints.observe()
    shutil.rmtree(folder)
    snapshot = await checkpoints.observe()

    assert ((), ()) == (snapshot.queries, snapshot.failures)


async def test_a_file_system_that_hangs_is_a_failure_and_is_waited_for_once(tmp_path):
    """A pipe without a writer stands for it: the look times out, and is taken up again when it answers."""
    folder = new_checkpoint(tmp_path)
    (folder / "metadata").unlink()
    os.mkfifo(folder / "metadata")
    checkpoints = source(folder, timeout=0.05)
    hanging = [await checkpoints.observe(), await checkpoints.observe()]
    await asyncio.to_thread((folder / "metadata").write_text, '{"id":"abc"}')
    answer = await checkpoints.observe()
    while answer.failures:
        answer = await checkpoints.observe()

    assert [[(str(folder), "TIMEOUT")]] * 2 == [[(f.name, f.error) for f in seen.failures] for seen in hanging]
    assert ["abc"] == [query.query_id for query in answer.queries]


async def test_what_is_torn_at_first_and_whole_at_second_sight_is_no_failure(tmp_path):
    """A pipe stands for the first sight: it ends early, and is a whole file by the time it is looked at again."""
    folder = new_checkpoint(tmp_path)
    run(folder, 0, T0_MS, 0.5, orders(4))
    (tmp_path / "offsets").mkdir()
    plan(tmp_path, 1, T0_MS, orders(6))
    os.mkfifo(folder / "offsets/1")
    looking = asyncio.create_task(the_query(folder))

    def tear():
        with (folder / "offsets/1").open("w") as pipe:
            pipe.write("v1")
            (tmp_path / "offsets/1").rename(folder / "offsets/1")

    await asyncio.to_thread(tear)

    assert {tp("orders", 0): 6} == (await looking).planned


# --- only what changed is read ----------------------------------------------------------------------


async def test_what_was_read_is_not_read_again(tmp_path):
    """Old entries are immutable: spoiling one that was read changes nothing, a new one is taken in."""
    folder = new_checkpoint(tmp_path)
    for batch in range(3):
        run(folder, batch, T0_MS + batch * 1000, 0.5, orders(batch))
    checkpoints = source(folder)
    await checkpoints.observe()
    (folder / "offsets/0").write_text("spoilt")
    (folder / "commits/0").write_text("spoilt")
    run(folder, 3, T0_MS + 3000, 0.5, orders(7))
    snapshot = await checkpoints.observe()

    assert () == snapshot.failures
    assert (3, {tp("orders", 0): 7}) == (snapshot.queries[0].batch_id, snapshot.queries[0].committed)


async def test_a_query_rewound_by_hand_is_read_anew(tmp_path):
    """The newest files were removed and written again with other offsets: the old ones must not linger."""
    folder = new_checkpoint(tmp_path)
    for batch in range(3):
        run(folder, batch, T0_MS + batch * 1000, 0.5, orders(10 * batch))
    checkpoints = source(folder)
    await checkpoints.observe()
    for batch in (1, 2):
        run(folder, batch, T0_MS + 60_000 + batch * 1000, 0.5, orders(batch))
    query = (await checkpoints.observe()).queries[0]

    assert ({tp("orders", 0): 2}, [1, 1]) == (query.committed, [batch.input_rows for batch in query.batches[1:]])


async def test_a_checkpoint_made_anew_in_its_old_place_is_another_query(tmp_path):
    """A new id in metadata: nothing of the old query is kept."""
    folder = new_checkpoint(tmp_path)
    (folder / "sources/0/0").write_text('\0v1\n{"orders":{"0":90}}')
    for batch in range(5):
        run(folder, batch, T0_MS + batch * 1000, 0.5, orders(100 + batch))
    checkpoints = source(folder)
    await checkpoints.observe()
    shutil.rmtree(folder)
    new_checkpoint(tmp_path, query_id="another")
    (folder / "sources/0/0").write_text('\0v1\n{"orders":{"0":200}}')
    for batch in range(6):
        run(folder, batch, T0_MS + 90_000 + batch * 1000, 0.5, orders(203))
    query = (await checkpoints.observe()).queries[0]

    assert ("another", 5, {tp("orders", 0): 203}) == (query.query_id, query.batch_id, query.committed)
    assert [3, 0, 0, 0, 0, 0] == [batch.input_rows for batch in query.batches]


async def test_history_is_bounded(tmp_path):
    """Somebody keeps thousands of batches: the last hundred count, each with its start."""
    folder = new_checkpoint(tmp_path)
    for batch in range(HISTORY + 30):
        run(folder, batch, T0_MS + batch * 1000, 0.5, orders(2 * batch))
    (folder / "offsets/3").write_text("older than anybody asks for")
    query = await the_query(folder)

    assert list(range(30, HISTORY + 30)) == [batch.batch_id for batch in query.batches]
    assert {2} == {batch.input_rows for batch in query.batches}


async def test_checksums_temporary_and_hidden_files_are_ignored(tmp_path):
    """Hadoop's file systems leave .crc files, and writing goes through temporary names."""
    folder = new_checkpoint(tmp_path)
    run(folder, 0, T0_MS, 0.5, orders(4))
    for name in (".0.crc", ".1.5f4f5a1e.tmp", "1.tmp", "_ignored", "9.compact"):
        (folder / "offsets" / name).write_bytes(b"\x00crc")
        (folder / "commits" / name).write_bytes(b"\x00crc")

    assert {tp("orders", 0): 4} == (await the_query(folder)).committed


# --- properties -------------------------------------------------------------------------------------

OFFSETS = st.integers(0, 2**63 - 1)
TOPICS = st.dictionaries(
    st.text(st.sampled_from("abc.-_9"), min_size=1),
    st.dictionaries(st.integers(0, 2**31 - 1), OFFSETS, max_size=4),
    min_size=1,
    max_size=3,
)
OTHER_SOURCES = st.one_of(
    st.integers().map(str),
    st.dictionaries(st.sampled_from(["logOffset", "0", "reservoirVersion"]), st.integers(), min_size=1).map(json.dumps),
    st.just("some words: of a source"),
)


@settings(deadline=None)  # a machine may be busy
@given(st.lists(TOPICS | st.none() | OTHER_SOURCES, min_size=1, max_size=3), st.sampled_from(["v1", "v2"]), OFFSETS)
def test_what_is_written_is_read(sources, version, timestamp_ms):
    """Whatever the sources, in both versions of the log: Kafka's positions come back, others are none, "-" is empty."""
    texts = ["-" if each is None else as_text(each) for each in sources]
    lines = [f"{i}:{text}" if version == "v2" else text for i, text in enumerate(texts)]
    parsed = parse_offsets("\n".join([version, json.dumps({"batchTimestampMs": timestamp_ms, "conf": {}}), *lines]))

    expected = [
        {} if each is None
        else None if isinstance(each, str)
        else {tp(topic, p): offset for topic, offsets in each.items() for p, offset in offsets.items()}
        for each in sources
    ]  # fmt: skip
    assert (timestamp_ms, expected) == (parsed.batch_timestamp_ms, list(parsed.sources.values()))


@settings(deadline=None)  # a machine may be busy
@given(st.data())
def test_a_torn_or_foreign_file_is_told_or_read_never_a_crash(data):
    """Cut anywhere, or anything at all: a parser returns a value or says CheckpointError."""
    whole = 'v1\n{"batchWatermarkMs":0,"batchTimestampMs":17954,"conf":{"a":"b"}}\n{"orders":{"0":12,"1":3}}'
    text = data.draw(
        st.integers(0, len(whole)).map(lambda n: whole[:n]) | st.text() | st.text().map("v1\n{}\n".__add__)
    )
    for parse in (parse_offsets, parse_commit, parse_query_id, parse_initial_offsets):
        with contextlib.suppress(CheckpointError):
            parse(text)


@settings(deadline=None)  # a machine may be busy
@given(st.integers(0, 100))
def test_a_plan_cut_short_never_passes_for_a_smaller_one(cut):
    """Each true prefix of a plan is refused: no offset is ever read from half of its digits."""
    whole = 'v1\n{"batchTimestampMs":17954}\n{"orders":{"0":12,"1":3}}'
    text = whole[: min(cut, len(whole) - 1)]

    with pytest.raises(CheckpointError):
        parse_offsets(text)


POSITIONS = st.dictionaries(st.builds(TopicPartition, st.sampled_from("ab"), st.integers(0, 2)), st.integers(0, 50))
SOURCES = st.dictionaries(st.sampled_from("01"), st.none() | POSITIONS)


@settings(deadline=None)  # a machine may be busy
@given(SOURCES, SOURCES)
def test_rows_are_never_negative_and_positions_never_ahead(before, after):
    """Input rows are zero or more or unknown; a joined position is that of one of the sources, the smallest."""
    rows = input_rows(before, after)

    assert rows is None or rows.total >= rows.most >= rows.median >= 0
    for key, offset in slowest(after).items():
        assert offset == min(positions[key] for positions in after.values() if positions and key in positions)
