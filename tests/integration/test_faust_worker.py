"""The real worker on a real Kafka: what it wrote and committed, against what was produced here."""

import contextlib
import json
import math
import os
import queue
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import defaultdict
from pathlib import Path

import pytest
from kafka_feed import PATIENCE_SECONDS, Feed, committed, consume, create_topics

pytestmark = pytest.mark.integration

STREAMGAUGE = Path(sys.executable).with_name("streamgauge")
GROUP = "streamgauge-readings"
PARTITIONS = 3  # neither Faust's default for a changelog nor ours
T0 = 1_795_000_020  # the beginning of a window
BAD = [b"nonsense", b'{"sensor": "s-1", "temperature": "warm", "at": 1}', b"\xff\xfe", b""]


def readings(seed, count):
    """Make readings of 20 sensors over four minutes; temperatures in quarters of a degree, so that sums are exact."""
    chance = random.Random(seed)
    return [(f"s-{chance.randrange(20)}", chance.randrange(-80, 160) / 4, T0 + i * 240 / count) for i in range(count)]


def averages(made):
    """Return average and count by sensor and window of a minute: the truth, counted the plain way."""
    values = defaultdict(list)
    for sensor, temperature, at in made:
        values[sensor, math.floor(at / 60) * 60].append(temperature)
    return {key: (sum(each) / len(each), len(each)) for key, each in values.items()}


def encoded(sensor, temperature, at):
    return json.dumps({"sensor": sensor, "temperature": temperature, "at": at}).encode()


@contextlib.contextmanager
def worker(bootstrap, topic, *options, folder=None):
    """Run the worker; yield the process, and a queue of the lines it prints."""
    command = [STREAMGAUGE, "worker", "--bootstrap-servers", bootstrap, *options]
    lines = queue.Queue()
    with subprocess.Popen(
        command,
        env={**os.environ, "STREAMGAUGE_TOPIC": topic},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        reader = threading.Thread(target=lambda: [lines.put(line.rstrip("\n")) for line in process.stdout])
        reader.start()
        try:
            yield process, lines
        finally:
            process.kill()
            reader.join()


def stop(process, lines):
    """Send SIGTERM; return the exit code and the last line."""
    process.terminate()
    code = process.wait(PATIENCE_SECONDS)
    last = ""
    with contextlib.suppress(queue.Empty):
        while True:
            last = lines.get(timeout=0.5)
    return code, last


@pytest.fixture
def topic(kafka):
    name = f"readings-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {name: PARTITIONS, f"{name}-averages": 1, f"{name}-dlq": 1})
    return name


def test_a_worker_averages_what_is_good_and_sets_aside_what_is_bad(kafka, topic):
    """Averages equal ours, bad records are on the dead letter topic, everything is committed; a new start goes on."""
    made = readings(seed=1, count=600)
    feed = Feed(kafka.bootstrap, topic, PARTITIONS)
    for number, (sensor, temperature, at) in enumerate(made):
        feed.send(sensor, encoded(sensor, temperature, at), at)
        if number % 150 == 0:
            feed.send("bad", BAD[number // 150], at)
    feed.send("s-1", encoded("s-1", 999.0, T0 + 200), T0 + 200)  # no air is that hot
    feed.send("s-1", encoded("s-1", 20.0, T0 + 9000), T0 + 200)  # measured after it was sent
    feed.send("s-1", encoded("s-1", 20.0, T0 - 600), T0 + 240)  # its window is long over
    feed.flush()

    with worker(kafka.bootstrap, topic) as (process, lines):
        assert f"{GROUP} reads {topic} 0, 1, 2 (at {kafka.bootstrap})" == lines.get(timeout=PATIENCE_SECONDS)
        results = consume(kafka.bootstrap, f"{topic}-averages", len(made))
        letters = consume(kafka.bootstrap, f"{topic}-dlq", len(BAD))
        assert (
            0,
            f"{GROUP} stopped: 600 averaged, 4 bad ones sent to the dead letters, 2 out of range, 1 too late",
        ) == (stop(process, lines))

    assert feed.sent == committed(kafka.bootstrap, GROUP, topic, PARTITIONS)
    assert 600 + 4 + 3 == sum(feed.sent)
    latest = {
        (r["sensor"], r["start"]): (r["average"], r["count"]) for r in map(json.loads, (m.value() for m in results))
    }
    assert averages(made) == latest
    assert sorted(BAD) == sorted(message.value() or b"" for message in letters)
    assert {b"not JSON", b"temperature is not a number"} == {dict(message.headers())["reason"] for message in letters}

    more = ("s-2", 30.0, T0 + 239)
    feed.send(more[0], encoded(*more), more[2])
    feed.flush()
    with worker(kafka.bootstrap, topic) as (process, lines):
        lines.get(timeout=PATIENCE_SECONDS)
        again = consume(kafka.bootstrap, f"{topic}-averages", len(made) + 1)[len(made)]
        code, line = stop(process, lines)

    # The state survived: the new reading is added to what the first worker had.
    first = json.loads(again.value())
    assert averages([*made, more])["s-2", T0 + 180] == (first["average"], first["count"])
    assert (0, f"{GROUP} stopped: 1 averaged") == (code, line.split(",")[0])
    assert feed.sent == committed(kafka.bootstrap, GROUP, topic, PARTITIONS)


OWN_JOB = """
from processors.examples.word_count import declare
from processors.job_app import JobApp

app = JobApp(declare("{topic}", "{topic}-counts", "{topic}-job"))
"""
WORDS = ["sea", "sky", "sun", "sand"]


def test_a_declared_job_counts_in_windows_behind_a_new_key(kafka, tmp_path):
    """Word counts equal ours over three partitions, bad records are set aside, all is committed."""
    topic = f"lines-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {topic: PARTITIONS, f"{topic}-counts": 1, f"{topic}-dlq": 1})
    chance, expected = random.Random(3), defaultdict(int)
    feed = Feed(kafka.bootstrap, topic, PARTITIONS)
    for number in range(900):
        at, line = T0 + number // 3 * 0.8, [chance.choice(WORDS) for _ in range(3)]
        feed.send(f"line-{number}", " ".join(line).encode(), at)
        for word in line:
            expected[word, math.floor(at / 60) * 60] += 1
        if number % 300 == 0:
            feed.send(f"line-{number}", b"\xff\xfe", at)
    feed.flush()
    assert 0 not in feed.sent
    # Windows close when all partitions of the source have passed them, as seen in the partition of the word.
    for number in range(300):
        feed.send(f"end-{number}", " ".join(WORDS).encode(), T0 + 1000)
    feed.flush()
    (tmp_path / "own_job.py").write_text(OWN_JOB.format(topic=topic))

    with worker(kafka.bootstrap, topic, "--app", "own_job:app", folder=tmp_path) as (process, lines):
        reads = f"{topic}-job reads {topic} 0, 1, 2 (at {kafka.bootstrap})"
        assert reads == lines.get(timeout=PATIENCE_SECONDS)
        results = consume(kafka.bootstrap, f"{topic}-counts", len(expected))
        letters = consume(kafka.bootstrap, f"{topic}-dlq", 3)
        code, line = stop(process, lines)

    assert (0, f"{topic}-job stopped: 1203 read") == (code, line.split(",")[0])
    assert f" {len(expected)} sent, 3 sent to the dead letters, 0 too late, 0 too late for some windows" in line
    found = [json.loads(each.value()) for each in results]
    assert expected == {(each["word"], each["start"]): each["count"] for each in found}
    assert len(expected) == len(found)
    assert not any(each["partial"] for each in found)
    assert [b"\xff\xfe"] * 3 == [each.value() for each in letters]
    assert {topic.encode()} == {dict(each.headers())["streamgauge.topic"] for each in letters}
    assert feed.sent == committed(kafka.bootstrap, f"{topic}-job", topic, PARTITIONS)


def test_a_job_stops_loudly_when_most_records_fail(kafka, tmp_path):
    """One line with how many and why, exit code 70; the records that failed are on the dead letter topic."""
    topic = f"lines-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {topic: 1, f"{topic}-counts": 1, f"{topic}-dlq": 1})
    feed = Feed(kafka.bootstrap, topic, 1)
    for number in range(110):
        feed.send("a", b"sea" if number < 40 else b"\xff\xfe", T0)
    feed.flush()
    (tmp_path / "own_job.py").write_text(OWN_JOB.format(topic=topic))

    with worker(kafka.bootstrap, topic, "--app", "own_job:app", folder=tmp_path) as (process, lines):
        code = process.wait(PATIENCE_SECONDS)
        letters = consume(kafka.bootstrap, f"{topic}-dlq", 60)
        said = ""
        while "streamgauge: the app" not in said:
            said = lines.get(timeout=5)

    assert 70 == code
    assert "TooManyFailuresError: the job" in said
    assert "stops: 60 of the last 100 records failed (limit 0.5), the last by decode: UnicodeDecodeError" in said
    assert [b"\xff\xfe"] * 60 == [each.value() for each in letters]


HANGING = """
import asyncio
import os

import faust

app = faust.App("{group}", broker="kafka://" + os.environ["STREAMGAUGE_BROKERS"])


@app.agent(app.topic("{topic}", value_type=bytes, value_serializer="raw"))
async def take(stream):
    async for _ in stream:
        print("took", flush=True)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
"""


@pytest.mark.soak
def test_a_worker_whose_agent_hangs_says_so_and_ends_within_its_deadline(kafka, tmp_path):
    """Health is told from what moves; an agent that cannot even be cancelled does not keep the process."""
    group, topic = f"hang-{uuid.uuid4().hex[:8]}", f"hang-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {topic: 1})
    feed = Feed(kafka.bootstrap, topic, 1)
    for _ in range(5):
        feed.send("k", b"v", T0)
    feed.flush()
    (tmp_path / "hanging.py").write_text(HANGING.format(group=group, topic=topic))
    (tmp_path / "given.yml").write_text(
        f"clusters: [{{bootstrap_servers: '{kafka.bootstrap}'}}]\nworker: {{stop_seconds: 2, patience_seconds: 1}}\n"
    )
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    options = ("--app", "hanging:app", "--config", "given.yml", "--data", "data", "--health", str(port))
    with worker(kafka.bootstrap, topic, *options, folder=tmp_path) as (process, lines):
        while lines.get(timeout=PATIENCE_SECONDS) != "took":
            pass
        deadline, status = time.monotonic() + PATIENCE_SECONDS, 0
        while status != 503:
            assert time.monotonic() < deadline
            status, said = health(port)
            time.sleep(0.5)
        assert "nothing has moved" in said["problem"]
        process.terminate()
        code = process.wait(PATIENCE_SECONDS)

    assert 70 == code
    assert ["worker-0"] == [each.name for each in (tmp_path / "data").iterdir()]
    assert [-1001] == committed(kafka.bootstrap, group, topic, 1)


def health(port):
    """Return the status and the words of /healthz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)
