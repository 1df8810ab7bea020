"""Drivers' REST API: recordings of Spark 3.5, 4.2 and 4.3 served over HTTP, and servers that are none."""

import asyncio
import json

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from told_events import RECORDINGS, T0, kafka_progress, message, told

from monitor.model import Consumer, Kind, SparkDriver, SparkQuery, TopicPartition
from monitor.observe.spark import driver
from monitor.observe.spark.driver import (
    DriverLook,
    DriverQuery,
    DriverSource,
    Executors,
    a_rest_time,
    dstream,
    executors,
    gc_ratio,
    running_applications,
    running_queries,
    stage_times,
    stages_of,
    whose,
)
from monitor.observe.spark.join import join
from monitor.observe.spark.source import SparkSource
from monitor.settings import Cluster, SparkDriverUi

ID, RUN = "fe0ea0b1-0374-4cf6-965c-ef07750dce9b", "294bdbd3-1d32-4a75-a24d-e8aeffc6398b"
NOW = 1_795_600_000.0


def recording(name):
    return json.loads((RECORDINGS / name).read_text())


def job(*, batch="7", name="orders", status="RUNNING", submitted="2026-11-22T07:46:40.532GMT", **more):
    return {
        "jobId": 3, "status": status, "submissionTime": submitted, "stageIds": [4, 5], "numTasks": 6,
        "numCompletedTasks": 2, "numActiveTasks": 3, "numFailedTasks": 1,
        "description": f"{name}\nid = {ID}\nrunId = {RUN}\nbatch = {batch}", **more,
    }  # fmt: skip


STAGE = [{"stageId": 5, "diskBytesSpilled": 70, "taskMetricsDistributions": {"executorRunTime": [200.0, 900.0]}}]


@pytest.fixture
async def served():
    """Give a function that serves answers by path, and returns the source that asks and what was asked."""
    runners = []

    async def do(answers, *, timeout_seconds=5.0, clock=lambda: NOW):
        asked = []

        async def answer(request):
            path = request.path_qs.removeprefix("/api/v1/")
            asked.append(path)
            given = answers.get(path, 404)
            given = given() if callable(given) else given
            if isinstance(given, web.Response):
                return given
            return web.Response(status=given) if isinstance(given, int) else web.json_response(given)

        app = web.Application()
        app.router.add_get("/{any:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        cluster = Cluster(
            bootstrap_servers="k:1", spark_drivers=(SparkDriverUi(url=url),), timeout_seconds=timeout_seconds
        )
        source = DriverSource(cluster, clock=clock)
        runners.append((runner, source))
        return source, asked, url

    yield do
    for runner, source in runners:
        await source.close()
        await runner.cleanup()


def answers(release="3.5.8", **more):
    """Return a recording of a driver by path; the jobs are those that run."""
    seen = recording(f"rest-{release}.json")
    app = seen["applications"][0]["id"]
    base = f"applications/{app}"
    return {
        "applications": seen["applications"],
        f"{base}/jobs?status=running": [each for each in seen["jobs[0:3]"] if each["status"] == "RUNNING"],
        f"{base}/executors": seen["executors"],
        **{path.format(base=base): answer for path, answer in more.items()},
    }


async def test_a_recorded_batch_in_flight_is_seen(served):
    """Its number, since when, its tasks, and the executors: as Spark 3.5 answered."""
    source, _, _ = await served(answers("3.5.8"))
    look = await source.look()
    query = look.queries[ID]

    assert [] == look.failures
    assert (None, 7, a_rest_time("2026-11-22T07:46:40.532GMT")) == (query.name, query.driver.batch_id, query.since)
    assert (2, 0, 0, 0) == (
        query.driver.tasks, query.driver.tasks_done, query.driver.tasks_running, query.driver.tasks_failed,
    )  # fmt: skip
    assert (1, 2) == (query.driver.executors, query.driver.cores)
    assert pytest.approx(681 / 39551) == query.driver.gc_ratio


async def test_an_application_at_rest_has_no_query_yet(served):
    """Between batches there is no job that says whose it is."""
    source, asked, _ = await served(answers("4.3.0"))

    assert {} == (await source.look()).queries
    assert 4 == len(asked)


async def test_tasks_of_all_jobs_of_a_batch_count_together(served):
    """A batch may run several at once; its age is the oldest one's, its task times those of its latest stage."""
    path = "{base}/jobs?status=running"
    jobs = [job(), job(submitted="2026-11-22T07:46:10.000GMT", stageIds=[3]), job(status="SUCCEEDED")]
    stage = "{base}/stages/5?withSummaries=true&quantiles=0.5,1.0"
    source, _, _ = await served(answers("3.5.8", **{path: jobs, stage: STAGE}))
    query = (await source.look()).queries[ID]

    assert (12, 4, 6, 2) == (
        query.driver.tasks, query.driver.tasks_done, query.driver.tasks_running, query.driver.tasks_failed,
    )  # fmt: skip
    assert a_rest_time("2026-11-22T07:46:10.000GMT") == query.since
    assert (0.2, 0.9, 70) == (
        query.driver.median_task_seconds, query.driver.longest_task_seconds, query.driver.spilled_bytes,
    )  # fmt: skip


async def test_a_query_between_batches_keeps_what_is_of_its_application(served):
    """For ten minutes; no tasks, and no batch."""
    jobs, at = [[job()]], [NOW]
    source, _, _ = await served(
        answers("3.5.8", **{"{base}/jobs?status=running": lambda: jobs[0]}), clock=lambda: at[0]
    )
    await source.look()
    jobs[0] = []
    resting = (await source.look()).queries[ID]
    at[0] += 601
    later = await source.look()

    assert ("orders", 1, None, None, None) == (
        resting.name, resting.driver.executors, resting.driver.tasks, resting.driver.batch_id, resting.since,
    )  # fmt: skip
    assert {} == later.queries


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        pytest.param(500, "REFUSED", "answers 500", id="500"),
        pytest.param(404, "REFUSED", "answers 404", id="404"),
        pytest.param(
            lambda: web.Response(text="<html>", content_type="text/html"), "MALFORMED", "text/html", id="page"
        ),
        pytest.param(
            lambda: web.Response(text="[{", content_type="application/json"), "MALFORMED", "not JSON", id="torn"
        ),
        pytest.param(
            lambda: web.Response(text="[" * 50_000, content_type="application/json"), "MALFORMED", "not JSON", id="deep"
        ),
        pytest.param(
            lambda: web.Response(body=b" " * 2000, content_type="application/json"), "MALFORMED", "more than", id="huge"
        ),
    ],
)
async def test_what_is_no_driver_is_a_failure(served, monkeypatch, answer, error, said):
    """One entry by its address, with what it answered."""
    if said == "more than":
        monkeypatch.setattr(driver, "LARGEST_ANSWER", 1000)
    source, _, url = await served({"applications": answer})
    look = await source.look()

    assert [("driver", url.rstrip("/"), error)] == [(each.scope, each.name, each.error) for each in look.failures]
    assert said in look.failures[0].detail


async def test_a_driver_that_hangs_costs_its_timeout(served):
    """It is waited for no longer than any other request."""
    hangs = asyncio.Event()
    source, _, _ = await served({}, timeout_seconds=0.2)
    source._get = lambda *_, **__: hangs.wait()
    look = await source.look()

    assert ["TIMEOUT"] == [each.error for each in look.failures]


async def test_a_driver_that_is_gone_is_a_failure():
    """Nothing is raised."""
    cluster = Cluster(bootstrap_servers="k:1", spark_drivers=(SparkDriverUi(url="http://127.0.0.1:1"),))
    source = DriverSource(cluster)
    look = await source.look()
    await source.close()

    assert ["UNREACHABLE"] == [each.error for each in look.failures]


async def test_a_recorded_dstream_application_is_a_query_of_its_own(served):
    """Completed batches with what they waited and took, the oldest that waits or runs, the interval: Spark 4.2."""
    seen = recording("dstreams-4.2.0.json")
    more = {"{base}/streaming/statistics": seen["statistics"], "{base}/streaming/batches": seen["batches"]}
    source, _, _ = await served(answers("3.5.8", **more))
    (query,) = (await source.look()).applications
    done = {each["batchId"]: each for each in seen["batches"] if each["status"] == "COMPLETED"}
    open_ones = [each["batchId"] for each in seen["batches"] if each["status"] in ("QUEUED", "PROCESSING")]

    assert (Consumer(Kind.SPARK, "lagprobe"), 1.0) == (query.consumer, query.trigger_interval_seconds)
    assert sorted(done) == [batch.batch_id for batch in query.batches]
    for batch in query.batches:
        row = done[batch.batch_id]
        assert (row["processingTime"] / 1000, row["inputSize"]) == (batch.duration_seconds, batch.input_rows)
        assert row["schedulingDelay"] / 1000 == batch.phases["schedulingDelay"]
    assert min(open_ones) == query.inflight_batch_id
    assert min(open_ones) / 1000 == query.inflight_planned_at


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (f"orders\nid = {ID}\nrunId = {RUN}\nbatch = 7", ("orders", ID, RUN, 7)),
        (f"\nid = {ID}\nrunId = {RUN}\nbatch = 7", (None, ID, RUN, 7)),
        (f"orders\nid = {ID}\nrunId = {RUN}\nbatch = init", ("orders", ID, RUN, None)),
        (f"a\nid = x\nb\nid = {ID}\nrunId = {RUN}\nbatch = 7", ("a\nid = x\nb", ID, RUN, 7)),
        ("count at <console>", None),
        (f"orders\nid = {ID}\nrunId = {RUN}\nbatch = 7; drop", None),
        (None, None),
        (7, None),
    ],
    ids=["named", "unnamed", "initialising", "name-with-lines", "other-job", "more-behind", "none", "number"],
)
def test_whose_a_job_is(description, expected):
    """By the lines at the end of its description, whatever the name before them is."""
    assert expected == whose(description)


def test_garbage_collection_is_the_share_since_the_last_look():
    """Sums that fell (an executor is gone) have no difference."""
    before, now = Executors(1, 2, 100.0, 10.0), Executors(1, 2, 110.0, 12.0)

    assert (0.2, 12.0 / 110.0) == (gc_ratio(now, before), gc_ratio(now, None))
    assert None is gc_ratio(before, now)
    assert None is gc_ratio(now, now)


def test_a_driver_that_runs_no_tasks_is_no_executor():
    """On a cluster it has no cores of its own."""
    rows = [
        {"id": "driver", "isActive": True, "totalCores": 0, "totalDuration": 5, "totalGCTime": 9},
        {"id": "1", "isActive": True, "totalCores": 4, "totalDuration": 2000, "totalGCTime": 500},
        {"id": "2", "isActive": False, "totalCores": 4, "totalDuration": 1000, "totalGCTime": 0},
    ]

    assert Executors(1, 4, 3.0, 0.5) == executors(rows)


def test_only_applications_that_go_on_are_asked():
    """The last attempt decides, and it comes first."""
    rows = [
        {"id": "a", "name": "A", "attempts": [{"completed": False}, {"completed": True}]},
        {"id": "b", "attempts": [{"completed": True}]},
        {"id": "c", "attempts": []},
    ]

    assert [("a", "A"), ("c", "c")] == running_applications(rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = (
    "status", "description", "submissionTime", "numTasks", "stageIds", "batchId", "batchTime", "processingTime", "id",
    "attempts", "totalCores", "isActive", "totalGCTime", "taskMetricsDistributions", "batchDuration",
)  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from(NAMES), JSON) | JSON, max_size=3) | JSON)
def test_no_answer_whatever_its_types_raises(answer):
    """It is understood in part or not at all."""
    whole = SparkDriver(at=NOW)
    running_applications(answer)
    running_queries(answer, whole)
    executors(answer)
    stage_times(answer)
    stages_of(answer, ID)
    dstream("app", "name", answer, answer, whole)


# --- joined -----------------------------------------------------------------------------------------


def shown(**more):
    return DriverQuery("q1", "r1", "orders", SparkDriver(at=T0 + 10, **more), since=T0 + 3 if more else None)


def query(**more):
    return SparkQuery(
        Consumer(Kind.SPARK, "orders"),
        "q1",
        "/c/orders",
        T0,
        {TopicPartition("t", 0): 5},
        {},
        more.pop("batch_id", 6),
        **more,
    )


def joined(seen, look, *messages):
    return join(seen, told(*messages), T0 + 10, look)[0]


def test_the_driver_fills_in_the_batch_in_flight():
    """Where the checkpoint has none, as in real-time mode or when it is not read."""
    (found,) = joined([query()], DriverLook({"q1": shown(batch_id=7, tasks=6)}))

    assert ("checkpoint", "driver") == found.seen_by
    assert (7, T0 + 3, T0 + 10) == (found.inflight_batch_id, found.inflight_planned_at, found.alive_at)
    assert "driver" == found.via["inflight_planned_at"] == found.via["driver"]


@pytest.mark.parametrize(
    ("seen", "inflight"),
    [
        pytest.param(query(inflight_batch_id=7, inflight_planned_at=T0), (7, T0), id="checkpoint-knows"),
        pytest.param(query(batch_id=7), (None, None), id="committed-since"),
    ],
)
def test_the_checkpoint_knows_better(seen, inflight):
    """It was written before the job ran, and after."""
    (found,) = joined([seen], DriverLook({"q1": shown(batch_id=7, tasks=6)}))

    assert inflight == (found.inflight_batch_id, found.inflight_planned_at)


def test_a_driver_at_rest_is_no_sign_of_life():
    """The application answers; whether the query lives it does not say."""
    (found,) = joined(
        [query()], DriverLook({"q1": DriverQuery("q1", "r1", "orders", SparkDriver(at=T0 + 10, executors=2))})
    )

    assert (None, 2) == (found.alive_at, found.driver.executors)


def test_all_three_make_one_query():
    """And one that only the driver knows is shown without positions."""
    look = DriverLook(
        {"q1": shown(batch_id=7, tasks=6), "q9": DriverQuery("q9", "r", None, SparkDriver(at=T0, tasks=1))}
    )
    first, second = joined([query()], look, message("progress", kafka_progress(6, {"t": {"0": 5}})))

    assert (("checkpoint", "listener", "driver"), ("driver",)) == (first.seen_by, second.seen_by)
    assert ("q9", {}) == (second.consumer.name, second.committed)


async def test_drivers_are_part_of_the_look_at_everything(served):
    """Their failures are entries, and their queries are there."""
    _, _, url = await served(answers("3.5.8"))
    cluster = Cluster(
        bootstrap_servers="k:1",
        spark_drivers=(SparkDriverUi(url=url), SparkDriverUi(url="http://127.0.0.1:1")),
    )
    source = SparkSource(cluster)
    found = await source.observe()
    await source.close()

    assert [ID] == [each.query_id for each in found.queries]
    assert (False, ["UNREACHABLE"]) == (found.up, [each.error for each in found.failures])
