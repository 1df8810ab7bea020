"""The Spark job: its query on a static DataFrame, and the real job on a real Kafka, seen through its checkpoint."""

import asyncio
import json
import math
import random
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka_feed import PATIENCE_SECONDS, Feed, consume, create_topics

import streamgauge.spark
from monitor.errors import SandboxError
from monitor.model import TopicPartition
from monitor.observe.spark.checkpoint import CheckpointSource
from monitor.observe.spark.source import SparkSource
from monitor.sandbox import jars
from monitor.sandbox.java import QUICK, find_java
from monitor.settings import Cluster, SparkCheckpoints, SparkEvents
from processors.agents import reading
from processors.examples import average_temperature, edge, enrichment, error_codes, word_count
from processors.memory import Memory
from processors.spark.jobs import common, readings_average

pytestmark = pytest.mark.integration

JOB = Path(readings_average.__file__)
PARTITIONS = 3
T0 = 1_795_000_200  # a multiple of five minutes
POLL_SECONDS = 0.25


def readings(seed, count, begin, span):
    """Make readings of 10 sensors; temperatures in quarters of a degree, so that sums are exact."""
    chance = random.Random(seed)
    return [
        (f"s-{chance.randrange(10)}", chance.randrange(-80, 160) / 4, begin + i * span / count) for i in range(count)
    ]


def averages(made):
    """Return average and count by sensor and beginning of a window: each reading lies in ten of them."""
    values = defaultdict(list)
    for sensor, temperature, at in made:
        newest = math.floor(at / 30) * 30
        for start in range(newest - 270, newest + 1, 30):
            values[sensor, start].append(temperature)
    return {key: (sum(each) / len(each), len(each)) for key, each in values.items()}


def encoded(sensor, temperature, at):
    return json.dumps({"sensor": sensor, "temperature": temperature, "at": at}).encode()


BAD = [b"nonsense", b"{}", b'{"sensor": "s-1", "temperature": "warm", "at": 1795000200}', encoded("", 20.0, T0)]
IMPOSSIBLE = [encoded("s-1", 60.1, T0), encoded("s-1", -90.1, T0)]


@pytest.fixture(scope="module")
def java():
    """Have Spark run on a Java that is told to start fast."""
    try:
        found = find_java(full=True)
    except SandboxError as exc:
        pytest.skip(str(exc))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(found.home))
        patch.setenv("SPARK_SUBMIT_OPTS", " ".join(QUICK))
        yield found


@pytest.fixture(scope="module")
def spark(java):
    """Give a small local session in this process, with Spark's Kafka source."""
    from pyspark.sql import SparkSession

    kafka_source = asyncio.run(jars.resolve(jars.SPARK_KAFKA))
    builder = SparkSession.builder.config("spark.jars", ",".join(map(str, kafka_source)))
    for name, value in readings_average.LOCAL.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def test_the_query_on_a_static_dataframe(spark):
    """Windows of five minutes every 30 seconds, by event time; what is bad or impossible is left out."""
    made = readings(seed=1, count=200, begin=T0, span=400)
    values = [encoded(*each) for each in made] + BAD + IMPOSSIBLE
    rows = readings_average.averages(spark.createDataFrame([(value,) for value in values], "value BINARY")).collect()

    assert averages(made) == {(row["sensor"], row["start"]): (row["average"], row["count"]) for row in rows}
    assert {300} == {row["end"] - row["start"] for row in rows}


def test_both_pipelines_know_the_same_limits():
    """The job is one file by itself, so it repeats them."""
    assert (reading.COLDEST, reading.HOTTEST) == (readings_average.COLDEST, readings_average.HOTTEST)


async def test_a_job_that_tells_is_seen_by_its_listener(spark, kafka, tmp_path):
    """What it told through the JVM's Kafka client equals what was produced, its checkpoint, and Spark's progress."""
    topic, events = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("told", "events"))
    create_topics(kafka.bootstrap, {topic: PARTITIONS, events: 1})
    feed = Feed(kafka.bootstrap, topic, PARTITIONS)
    checkpoint = tmp_path / "orders-v1"
    attachment = streamgauge.spark.attach(spark, bootstrap_servers=kafka.bootstrap, topic=events, client="jvm")
    records = spark.readStream.format("kafka").option("kafka.bootstrap.servers", kafka.bootstrap)
    records = records.option("subscribe", topic).option("startingOffsets", "earliest").load()
    query = (
        records.writeStream.format("noop").queryName("orders").option("checkpointLocation", str(checkpoint))
        .trigger(processingTime="1 second").start()
    )  # fmt: skip
    cluster = Cluster(
        bootstrap_servers=kafka.bootstrap,
        spark=(SparkCheckpoints(path=str(checkpoint)),),
        spark_events=SparkEvents(topic=events),
    )
    both, alone = SparkSource(cluster), SparkSource(cluster.model_copy(update={"spark": ()}))
    try:
        for _ in range(2):
            for number in range(60):
                feed.send(f"k{number}", b"x", T0)
            feed.flush()
            wanted = {TopicPartition(topic, partition): count for partition, count in enumerate(feed.sent)}
            while (told := (await alone.observe()).queries) == () or told[0].committed != wanted:
                assert query.isActive, query.exception()
                await asyncio.sleep(POLL_SECONDS)
        joined = (await both.observe()).queries
        progress = {each.batchId: each.batchDuration / 1000 for each in query.recentProgress if each.numInputRows}
        query.stop()
        while (await alone.observe()).queries[0].ended_at is None:
            await asyncio.sleep(POLL_SECONDS)
    finally:
        query.stop()
        attachment.detach()
        await both.close()
        await alone.close()

    assert 120 == sum(feed.sent)
    (told_only,), (seen,) = told, joined
    assert ("orders", ("listener",)) == (told_only.consumer.name, told_only.seen_by)
    assert ("orders", ("checkpoint", "listener"), wanted) == (seen.consumer.name, seen.seen_by, seen.committed)
    assert (1.0, str(query.runId)) == (seen.trigger_interval_seconds, seen.run_id)
    durations = {each.batch_id: each.duration_seconds for each in seen.batches if each.input_rows}
    assert progress.items() <= durations.items()
    assert set(wanted) == set(seen.reported)
    assert all({"addBatch", "walCommit", "commitOffsets"} <= each.phases.keys() for each in told_only.batches)


CHANCE = random.Random(5)
SPREAD = [T0 + number * 0.9 for number in range(500)]
LINES = ["The sea, the sea", "", "¿Qué? the END", "sea 42", "a-b a_b", "naïve Ærø ½"]
RECORDS = {
    "word-count": (word_count, [
        *((at, None, CHANCE.choice(LINES).encode()) for at in SPREAD), (T0, None, b"\xff\xfe"),
    ]),
    "average-temperature": (average_temperature, [
        *((at, sensor, encoded(sensor, temperature, at)) for sensor, temperature, at in readings(4, 500, T0, 450)),
        *((T0, "bad", value) for value in BAD + IMPOSSIBLE),
    ]),
    "error-codes": (error_codes, [
        *(
            (at, None, json.dumps(
                {"service": CHANCE.choice("ab"), "code": CHANCE.choice((200, 399, 400, 404, 503)), "at": at}
            ).encode())
            for at in SPREAD
        ),
        *((T0, None, value) for value in (b"nonsense", b'{"service": "a", "code": "503", "at": 1}', b"[]")),
    ]),
    "enrichment": (enrichment, [
        (at, f"s-{CHANCE.randrange(1, 5)}", encoded(f"s-{CHANCE.randrange(1, 5)}", CHANCE.randrange(99) / 4, at))
        for at in SPREAD
    ]),
    "edge": (edge, [
        (at, "k", json.dumps({"sensor": f"s-{CHANCE.randrange(4)}", "fahrenheit": CHANCE.randrange(-2000, 2000) / 10,
                              "at": at}).encode())
        for at in SPREAD
    ]),
}  # fmt: skip
"""Each job's Faust example, and records for both: time, key, value."""


def by_faust(example, records):
    """Return what the Faust example makes of records, each result without what only Faust says."""
    run = Memory(example.job)
    for at, key, value in records:
        run.feed(value, key=key, timestamp=at)
    run.close()
    (results,) = (topic for topic in run.sent if topic.rsplit("-", 1)[-1] not in {"dlq", "late", "repartition"})
    return [{name: value for name, value in each.items() if name != "partial"} for each in run.values(results)]


def canonical(results):
    """Return results in an order of their own, numbers as numbers."""
    return sorted(json.dumps(json.loads(json.dumps(each), parse_int=float), sort_keys=True) for each in results)


@pytest.mark.parametrize("name", RECORDS)
def test_a_reference_job_and_its_faust_example_agree(spark, name):
    """The same records give the same results, whichever engine counts."""
    example, records = RECORDS[name]
    rows = [(key.encode() if key else None, value, datetime.fromtimestamp(at, UTC)) for at, key, value in records]
    frame = spark.createDataFrame(rows, "key BINARY, value BINARY, timestamp TIMESTAMP")
    found = [json.loads(row["value"]) for row in common.job_of(name).transform(frame).collect()]

    assert canonical(by_faust(example, records)) == canonical(found)
    assert len(found) > 10


@pytest.mark.soak
@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.usefixtures("java")
def test_a_submitted_job_and_its_faust_example_agree(kafka, tmp_path, name):
    """On Kafka, by the command, in two runs: what the first left open the second finishes, nothing is there twice."""
    example, records = RECORDS[name]
    records = sorted(records, key=lambda each: each[0])
    topic = f"{name}-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {topic: 1, f"{topic}-results": 1})
    streamgauge = Path(sys.executable).with_name("streamgauge")
    command = [
        streamgauge, "spark", "submit", name, "--bootstrap-servers", kafka.bootstrap, "--topic", topic, "--results",
        f"{topic}-results", "--checkpoint", tmp_path / "checkpoint", "--once", "--max-offsets", "150",
    ]  # fmt: skip
    halves = (records[:300], [*records[300:], *closing(name)])
    for half in halves:
        feed = Feed(kafka.bootstrap, topic, 1)
        for at, key, value in half:
            feed.send(key or "", value, at)
        feed.flush()
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert 0 == done.returncode, done.stderr[-3000:]
    found = [json.loads(message.value()) for message in consume(kafka.bootstrap, f"{topic}-results")]

    late = T0 + 3000
    assert canonical(by_faust(example, records)) == canonical(
        each for each in found if each.get("end", 0) < late and each.get("at", 0) < late
    )


def closing(name):
    """Return a record of much later, which closes every window; the job's own results of it are not looked at."""
    at = T0 + 4000
    values = {
        "word-count": b"end",
        "error-codes": json.dumps({"service": "end", "code": 500, "at": at}).encode(),
        "edge": json.dumps({"sensor": "end", "fahrenheit": 50.0, "at": at}).encode(),
    }
    # Twice: a watermark counts from the batch after the one that raised it.
    return [(at, None, values.get(name, encoded("end", 20.0, at)))] * 2


@pytest.mark.usefixtures("java")
async def test_the_job_is_seen_through_its_checkpoint(kafka, tmp_path):
    """Committed offsets are what was produced, batches have rows and durations, averages equal ours; it stops."""
    topic = f"spark-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {topic: PARTITIONS, f"{topic}-averages": 1})
    feed = Feed(kafka.bootstrap, topic, PARTITIONS)
    first, second = readings(2, 300, T0, 240), readings(3, 200, T0 + 240, 60)
    for sensor, temperature, at in first:
        feed.send(sensor, encoded(sensor, temperature, at), at)
    for value in BAD + IMPOSSIBLE:
        feed.send("bad", value, T0)
    feed.flush()
    checkpoint = tmp_path / "readings-average"
    entry = SparkCheckpoints(path=str(checkpoint), trigger_interval_seconds=1.0)
    source = CheckpointSource(Cluster(bootstrap_servers=kafka.bootstrap, spark=(entry,)))
    command = [
        sys.executable, JOB, "--bootstrap-servers", kafka.bootstrap, "--topic", topic, "--results", f"{topic}-averages",
        "--checkpoint", checkpoint, "--trigger-seconds", "1",
        "--jars", ",".join(map(str, await jars.resolve(jars.SPARK_KAFKA))),
    ]  # fmt: skip
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(command, stderr=log, cwd=tmp_path) as job,
    ):
        try:
            before = await committed(source, topic, feed.sent, job, log)
            for sensor, temperature, at in second:
                feed.send(sensor, encoded(sensor, temperature, at), at)
            feed.flush()
            query = await committed(source, topic, feed.sent, job, log)
            job.terminate()
            assert 0 == job.wait(PATIENCE_SECONDS)
        finally:
            job.kill()

    assert 300 + 6 + 200 == sum(feed.sent)
    assert ("readings-average", 1.0) == (query.consumer.name, query.trigger_interval_seconds)
    assert before.query_id == query.query_id
    assert before.batch_id < query.batch_id
    assert sum(feed.sent) == sum(batch.input_rows for batch in query.batches)
    durations = [batch.duration_seconds for batch in query.batches if batch.duration_seconds is not None]
    assert durations
    assert min(durations) > 0
    assert pytest.approx(max(at for _, _, at in second) - 60, abs=0.001) == query.watermark
    results = [json.loads(message.value()) for message in consume(kafka.bootstrap, f"{topic}-averages")]
    latest = {(each["sensor"], each["start"]): (each["average"], each["count"]) for each in results}
    assert averages(first + second) == latest


async def committed(source, topic, sent, job, log):
    """Look until the checkpoint has committed what was sent; return the query."""
    wanted = {TopicPartition(topic, partition): count for partition, count in enumerate(sent)}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        snapshot = await source.observe()
        if snapshot.queries and snapshot.queries[0].committed == wanted:
            return snapshot.queries[0]
        if job.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            pytest.fail(f"seen {snapshot}, status {job.poll()}, log: {log.read()[-2000:]}")
        await asyncio.sleep(POLL_SECONDS)
