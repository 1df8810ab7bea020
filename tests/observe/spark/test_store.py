"""Where checkpoints lie: this machine's folders, and object stores by fsspec, played by a file system in memory."""

import datetime
import json
import math
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from monitor.model import TopicPartition
from monitor.observe.spark import store as stores
from monitor.observe.spark.checkpoint import CheckpointSource
from monitor.observe.spark.discovery import expand
from monitor.observe.spark.folder import LIST_SECONDS
from monitor.observe.spark.formats import CheckpointError
from monitor.observe.spark.store import FsspecStore, LocalStore, store_for, written_at
from monitor.settings import Cluster, SparkCheckpoints

T0_MS = 1_795_400_000_000


class Bucket:
    """An fsspec file system in memory: what is asked of it, and nothing else. ``asked`` counts the requests."""

    def __init__(self):
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.asked: list[str] = []
        self.broken: Exception | None = None

    def put(self, path, text, at=T0_MS / 1000):
        self.objects[path] = (text.encode() if isinstance(text, str) else text, at)

    def ls(self, path, detail):
        self._ask("ls")
        assert detail
        inside = sorted(each for each in self.objects if each.startswith(f"{path}/"))
        if not inside:
            raise FileNotFoundError(path)
        files = [self._info(each) for each in inside if "/" not in each.removeprefix(f"{path}/")]
        folders = {f"{path}/{each.removeprefix(f'{path}/').partition('/')[0]}" for each in inside} - {
            each["name"] for each in files
        }
        return [*files, *({"name": each, "type": "directory", "size": 0} for each in sorted(folders))]

    def cat_file(self, path, start, end):
        self._ask("get")
        return self._bytes(path)[start:end]

    def cat_ranges(self, paths, starts, ends, on_error):
        assert "return" == on_error
        self.asked.extend("get" for _ in paths)
        found = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            try:
                found.append(self._bytes(path)[start:end])
            except FileNotFoundError as exc:
                found.append(exc)
        return found

    def info(self, path):
        self._ask("head")
        self._bytes(path)
        return self._info(path)

    def _ask(self, what):
        self.asked.append(what)
        if self.broken is not None:
            raise self.broken

    def _bytes(self, path):
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][0]

    def _info(self, path):
        data, at = self.objects[path]
        when = datetime.datetime.fromtimestamp(at, datetime.UTC)
        return {"name": path, "type": "file", "size": len(data), "LastModified": when}


class Clock:
    def __init__(self):
        self.now = T0_MS / 1000 + 10_000

    def __call__(self):
        return self.now


def in_bucket(bucket, *paths, clock=None, name=None):
    entries = tuple(SparkCheckpoints(path=path, name=name) for path in paths)
    cluster = Cluster(bootstrap_servers="x:1", spark=entries)

    def open_store(uri):
        scheme, _, rest = uri.partition("://")
        return FsspecStore(bucket, f"{scheme}://"), rest

    return CheckpointSource(cluster, clock=clock or Clock(), open_store=open_store)


def new_query(bucket, folder, batches, *, query_id="11111111-2222", step=1):
    bucket.put(f"{folder}/metadata", json.dumps({"id": query_id}))
    for number in range(0, batches, step):
        run(bucket, folder, number)


def plan(bucket, folder, number):
    planned = T0_MS + number * 10_000
    header = json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": planned, "conf": {"a": "b"}})
    bucket.put(f"{folder}/offsets/{number}", f'v1\n{header}\n{{"orders":{{"0":{10 * number}}}}}', planned / 1000 + 1)


def run(bucket, folder, number):
    plan(bucket, folder, number)
    bucket.put(f"{folder}/commits/{number}", 'v1\n{"nextBatchWatermarkMs":0}', (T0_MS + number * 10_000) / 1000 + 4)


async def test_a_checkpoint_on_an_object_store_is_read_as_one_on_disk():
    """Positions, the hundred batches before, durations by the store's clock; names and paths carry the scheme."""
    bucket = Bucket()
    new_query(bucket, "lake/chk/billing", 120)
    plan(bucket, "lake/chk/billing", 120)
    (query,) = (await in_bucket(bucket, "s3a://lake/chk/*").observe()).queries

    assert ("billing", "s3a://lake/chk/billing", 119) == (query.consumer.name, query.checkpoint, query.batch_id)
    assert ({TopicPartition("orders", 0): 1190}, {TopicPartition("orders", 0): 1200}) == (
        query.committed,
        query.planned,
    )
    assert [(number, 4.0, 10) for number in range(20, 120)] == [
        (each.batch_id, each.duration_seconds, each.input_rows) for each in query.batches
    ]


async def test_a_look_at_an_object_store_asks_for_the_next_batch_only():
    """Nothing new: two requests. A batch more: the commit, the plan, their times. A minute later: listings again."""
    bucket, clock = Bucket(), Clock()
    new_query(bucket, "lake/q", 5)
    source = in_bucket(bucket, "s3://lake/q", clock=clock)
    await source.observe()

    bucket.asked.clear()
    await source.observe()
    assert ["get", "get"] == bucket.asked

    bucket.asked.clear()
    run(bucket, "lake/q", 5)
    (query,) = (await source.observe()).queries
    assert (5, 10) == (query.batch_id, query.batches[-1].input_rows)
    assert ["get", "get", "get", "get", "head", "head"] == sorted(bucket.asked)

    bucket.asked.clear()
    plan(bucket, "lake/q", 6)
    await source.observe()
    bucket.asked.clear()
    await source.observe()
    assert ["get"] == bucket.asked, "with a batch in flight only its commit can come"

    bucket.asked.clear()
    clock.now += LIST_SECONDS
    await source.observe()
    assert ["get", "head", "ls", "ls"] == sorted(bucket.asked)


async def test_on_an_object_store_numbers_with_gaps_are_listed():
    """With asynchronous progress nobody knows the next number: a listing tells it at once."""
    bucket = Bucket()
    new_query(bucket, "lake/q", 7, step=3)
    source = in_bucket(bucket, "s3://lake/q")
    await source.observe()
    run(bucket, "lake/q", 11)

    assert 11 == (await source.observe()).queries[0].batch_id


async def test_a_query_set_back_on_an_object_store_is_seen_with_the_next_listing():
    """Its newest batch is gone or was written again: what was known is forgotten."""
    bucket, clock = Bucket(), Clock()
    new_query(bucket, "lake/q", 5)
    source = in_bucket(bucket, "s3://lake/q", clock=clock)
    await source.observe()
    for log in ("offsets", "commits"):
        for number in (3, 4):
            del bucket.objects[f"lake/q/{log}/{number}"]
    clock.now += LIST_SECONDS

    assert 2 == (await source.observe()).queries[0].batch_id


async def test_a_batch_written_again_on_an_object_store_is_seen_with_the_next_listing():
    """Under the same number, but at another time: the query was set back and has caught up with itself."""
    bucket, clock = Bucket(), Clock()
    new_query(bucket, "lake/q", 5)
    source = in_bucket(bucket, "s3://lake/q", clock=clock)
    await source.observe()
    text, at = bucket.objects["lake/q/offsets/4"]
    bucket.put("lake/q/offsets/4", text.replace(b'{"0":40}', b'{"0":77}'), at + 500)
    clock.now += LIST_SECONDS

    assert {TopicPartition("orders", 0): 77} == (await source.observe()).queries[0].committed


async def test_an_object_store_that_fails_makes_every_query_unknown_and_none_leave():
    """One line each, whatever its driver raises, and they are back when it is."""
    bucket, clock = Bucket(), Clock()
    new_query(bucket, "lake/a", 3)
    new_query(bucket, "lake/b", 3, query_id="other")
    source = in_bucket(bucket, "s3://lake/*", clock=clock)
    await source.observe()
    bucket.broken, clock.now = RuntimeError("Could not connect\nto the endpoint"), clock.now + 61
    away = await source.observe()
    bucket.broken = None
    back = await source.observe()

    assert {"s3://lake/*", "s3://lake/a", "s3://lake/b"} == {each.name for each in away.failures}
    assert {"UNREADABLE"} == {each.error for each in away.failures}
    assert not [each.detail for each in away.failures if "\n" in each.detail]
    assert ([], 2) == ([query.query_id for query in away.queries], len(back.queries))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("s3://lake/none", "NOT_FOUND", id="nothing there"),
        pytest.param("s3://lake/other", "NOT_A_CHECKPOINT", id="something else"),
        pytest.param("s3://none/*", "NOT_FOUND", id="a glob where nothing is"),
    ],
)
async def test_a_wrong_path_on_an_object_store_is_told(path, error):
    """An object store has no folders: nothing under a path is as good as none."""
    bucket = Bucket()
    bucket.put("lake/other/data.parquet", b"PAR1")

    assert [(path, error)] == [(each.name, each.error) for each in (await in_bucket(bucket, path).observe()).failures]


async def test_a_vast_object_is_a_failure_and_never_read_whole(monkeypatch):
    """Beyond the limit a file is none of a checkpoint's."""
    monkeypatch.setattr(stores, "MAX_FILE_BYTES", 1000)
    bucket = Bucket()
    new_query(bucket, "lake/q", 3)
    bucket.put("lake/q/offsets/2", b"v1\n" + b" " * 5000)
    (failure,) = (await in_bucket(bucket, "s3://lake/q").observe()).failures

    assert "UNREADABLE" == failure.error
    assert "larger than 1,000 bytes" in failure.detail


@pytest.mark.parametrize(
    ("info", "at"),
    [
        pytest.param({"LastModified": datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)}, 1_795_478_400.0, id="S3"),
        pytest.param({"mtime": 12.5}, 12.5, id="a disk"),
        pytest.param({"updated": "2026-11-24T00:00:00+00:00"}, 1_795_478_400.0, id="Google's text"),
        pytest.param({"updated": "yesterday", "created": 7}, 7.0, id="a text that is no time"),
        pytest.param({"size": 3}, math.nan, id="none"),
    ],
)
def test_the_time_of_an_object(info, at):
    """Every store names it otherwise; one that tells none leaves it unknown."""
    assert pytest.approx(at, nan_ok=True) == written_at(info)


# --- opening ----------------------------------------------------------------------------------------


def test_a_path_is_a_folder_of_this_machine(tmp_path, monkeypatch):
    """With file:// or without, relative or from home."""
    monkeypatch.setenv("HOME", str(tmp_path))

    for path in (str(tmp_path / "q"), f"file://{tmp_path}/q", f"{tmp_path}/x/../q", "~/q"):
        store, inside = store_for(path)
        assert (LocalStore, f"{tmp_path}/q", "") == (type(store), inside, store.root)


def test_a_store_whose_driver_is_missing_is_told_with_what_to_install(monkeypatch):
    """fsspec is an extra: without it there is one line that says so."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)

    with pytest.raises(CheckpointError, match=r"pip install 'streamgauge\[s3\]'") as caught:
        store_for("s3a://lake/q")
    assert "UNSUPPORTED" == caught.value.error


def test_fsspec_opens_a_store_without_keeping_listings(monkeypatch):
    """Hadoop's s3a is fsspec's s3; the instance is ours, and lists anew each time."""
    asked = {}

    def url_to_fs(url, **options):
        asked.update(url=url, **options)
        return SimpleNamespace(), url.partition("://")[2]

    core = ModuleType("fsspec.core")
    core.url_to_fs = url_to_fs
    monkeypatch.setitem(sys.modules, "fsspec", ModuleType("fsspec"))
    monkeypatch.setitem(sys.modules, "fsspec.core", core)
    store, path = store_for("s3a://lake/chk/*")

    assert {"url": "s3://lake/chk/*", "use_listings_cache": False, "skip_instance_cache": True} == asked
    assert ("s3a://", "lake/chk/*") == (store.root, path)


# --- this machine's folders -------------------------------------------------------------------------


def test_a_folder_of_very_many_names_is_refused(tmp_path, monkeypatch):
    """No folder of a checkpoint holds so many: reading stops there."""
    monkeypatch.setattr(stores, "MAX_NAMES", 20)
    for number in range(21):
        (tmp_path / str(number)).touch()

    with pytest.raises(OSError, match="more than 20 names"):
        LocalStore().entries(str(tmp_path))


def test_a_file_is_read_to_its_limit_only(monkeypatch):
    """A device that never ends stands for a vast file."""
    monkeypatch.setattr(stores, "MAX_FILE_BYTES", 100_000)

    with pytest.raises(OSError, match="larger than 100,000 bytes"):
        LocalStore().read("/dev/zero")


def test_a_file_is_told_with_its_time(tmp_path):
    """And several at once, each with what is wrong with it."""
    (tmp_path / "0").write_bytes(b"x" * 70_000)
    os.utime(tmp_path / "0", (5, 1234.5))
    there, missing = LocalStore().read_all([str(tmp_path / "0"), str(tmp_path / "1")])

    assert (b"x" * 70_000, 1234.5) == there
    assert isinstance(missing, FileNotFoundError)


# --- globs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        pytest.param("a/q", ["a/q"], id="a path"),
        pytest.param("nowhere/at/all", ["nowhere/at/all"], id="a path that is not there (looking at it will tell)"),
        pytest.param("*/q", ["a/q", "b/q"], id="one part"),
        pytest.param("a/*", ["a/q", "a/r1"], id="folders without a checkpoint and files are left alone"),
        pytest.param("a/r?", ["a/r1"], id="one character"),
        pytest.param("[ab]/[!q]*", ["a/r1"], id="characters"),
        pytest.param("a/.*", ["a/.hidden"], id="hidden ones where they are meant"),
        pytest.param("**/q", ["a/q", "b/q"], id="two stars are as one"),
        pytest.param("*/*/q", [], id="deeper than anything"),
    ],
)
def test_globs(tmp_path, pattern, found):
    """A glob names checkpoint folders, one part of the path at a time."""
    for name in ("a/q", "a/r1", "a/.hidden", "b/q"):
        (tmp_path / name / "offsets").mkdir(parents=True)
    (tmp_path / "a/lost+found").mkdir()
    (tmp_path / "a/file").touch()

    assert [f"{tmp_path}/{each}" for each in found] == expand(LocalStore(), f"{tmp_path}/{pattern}")


def test_a_glob_that_matches_too_much_is_refused(tmp_path, monkeypatch):
    """Nobody meant that many."""
    monkeypatch.setattr("monitor.observe.spark.discovery.MAX_CHECKPOINTS", 3)
    for number in range(4):
        (tmp_path / f"q{number}/offsets").mkdir(parents=True)

    with pytest.raises(CheckpointError, match="more than 3 folders"):
        expand(LocalStore(), f"{tmp_path}/*")
