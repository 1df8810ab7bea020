"""Declared jobs whose workers are killed, added and removed all the time, on a real Kafka.

Results are compared with a plain loop over what was produced here. Workers are real processes. Some are killed by us at
any time; others kill themselves at a chosen place: in the middle of a flush, or between flush and commit.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from kafka_feed import committed, create_topics

pytestmark = [pytest.mark.integration, pytest.mark.soak]

STREAMGAUGE = Path(sys.executable).with_name("streamgauge")
PARTITIONS = 6
T0 = 1_795_000_000
SIZE, STEP, GRACE = 60, 10, 10
RECORDS = int(os.environ.get("STREAMGAUGE_SOAK_RECORDS", "300000"))
RATE = 3000.0
"""Records a second, so that there is something to kill all the time."""
SENSORS = 400
WORKERS = 3
MINUTES = 20
CALM_SECONDS = 60
"""How long nothing more may come before results that are not there are missing."""

OWN_JOB = '''
import os
import random
import signal

from processors import job_app
from processors.aggregates import count, greatest, several, total
from processors.job_app import JobApp
from processors.kept import META
from processors.pipeline import read

DEATHS = {deaths}  # how probable in each flush: in its middle, after it
chance = random.Random()


class MortalApp(JobApp):
    """Kills its process in the middle of a flush, or between flush and commit."""

    async def _keep(self, entries):
        is_flush = any(key == META for each in entries.values() for key, _ in each)
        if is_flush and chance.random() < DEATHS[0]:
            await super()._keep({{number: each[: len(each) // 2] for number, each in entries.items() if each[1:]}})
            os.kill(os.getpid(), signal.SIGKILL)
        await super()._keep(entries)
        if is_flush and chance.random() < DEATHS[1]:
            os.kill(os.getpid(), signal.SIGKILL)


declared = read("{topic}", name="{topic}-job").filter(lambda value: value["n"] != 13)
if {new_key}:
    declared = declared.key_by(lambda value: value["sensor"])
job = (
    declared.window({size}, {step}, grace={grace}, at=lambda value: value["at"], late="{topic}-late")
    .aggregate(several(n=count(), sum=total(lambda value: value["n"]), most=greatest(lambda value: value["n"])))
    .to("{topic}-out")
)
app = MortalApp(job, broker_session_timeout=6.0, broker_heartbeat_interval=1.0, {options})
'''


class Fleet:
    """Workers, and what becomes of them."""

    def __init__(self, bootstrap, folder):
        self._command = [STREAMGAUGE, "worker", "--bootstrap-servers", bootstrap, "--app", "own_job:app"]
        self._folder = folder
        self._running = []
        self.ended = Counter()

    def start(self):
        number = len(self._running) + sum(self.ended.values())
        own = self._folder / f"worker-{number}"
        own.mkdir()
        with (own / "log").open("w") as log:
            process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**os.environ, "WORKER_FOLDER": str(own)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)

    def reap(self):
        """Count those that have ended, by exit code."""
        for process in [process for process in self._running if process.poll() is not None]:
            self._running.remove(process)
            self.ended[process.returncode] += 1
        return len(self._running)

    def end_one(self, chance, number):
        victim = chance.choice(self._running)
        victim.send_signal(number)

    def end(self, number):
        for process in self._running:
            process.send_signal(number)
        for process in self._running:
            process.wait(60)
        self.reap()


class Produced:
    """Values as they were acknowledged; produced at a rate, in a thread of its own."""

    def __init__(self, bootstrap, topic, *, by_sensor):
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
        self._topic = topic
        self._by_sensor = by_sensor
        self.values = []
        self.sent = [0] * PARTITIONS
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        chance, begun = random.Random(11), time.monotonic()
        for number in range(RECORDS):
            while number / RATE > time.monotonic() - begun:
                self._producer.poll(0.005)
            sensor = chance.randrange(SENSORS)
            at = T0 + number / 100 - chance.random() * (GRACE - 1)
            value = {"sensor": f"s-{sensor}", "at": at, "n": chance.randrange(20)}
            self.values.append(value)
            self._send(value, sensor % PARTITIONS if self._by_sensor else chance.randrange(PARTITIONS))
        for partition in range(PARTITIONS):
            for number in range(SENSORS):
                self._send({"sensor": f"end-{number}", "at": T0 + RECORDS / 100 + 1000, "n": 0}, partition)
        assert 0 == self._producer.flush(60)

    def _send(self, value, partition):
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=value["sensor"],
                    value=json.dumps(value).encode(),
                    partition=partition,
                    timestamp=int(value["at"] * 1000),
                    on_delivery=self._count,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _count(self, error, message):
        assert error is None
        self.sent[message.partition()] += 1

    def join(self):
        self._thread.join()

    def is_done(self):
        return not self._thread.is_alive()


def expected(values):
    """Aggregate in the plainest way."""
    held = defaultdict(list)
    for value in values:
        if value["n"] != 13:
            first = int(value["at"] // STEP) * STEP
            for start in range(first - SIZE + STEP, first + STEP, STEP):
                held[value["sensor"], start].append(value["n"])
    return {where: {"n": len(each), "sum": sum(each), "most": max(each)} for where, each in held.items()}


class Results:
    """Results as they come, without those of the end; every repetition has to be the same."""

    def __init__(self, bootstrap, topic):
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4())})
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        self.found, self.repeated, self.partial = {}, 0, 0

    def read(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for message in self._consumer.consume(5000, timeout=0.2):
                assert message.error() is None
                result = json.loads(message.value())
                if result["key"].startswith("end-"):
                    continue
                where = result["key"], result["start"]
                self.repeated += where in self.found
                assert result["value"] == self.found.setdefault(where, result["value"])
                self.partial += result["partial"]

    def close(self):
        self._consumer.close()


def unrest(fleet, produced, results, chance):
    """Kill, stop and add workers while records come, and once more when all are there; return how often which."""
    actions = Counter()
    while not produced.is_done() or not actions["last"]:
        while fleet.reap() < WORKERS:
            fleet.start()
        results.read(chance.uniform(2, 10))
        actions["last"] += produced.is_done()
        action = chance.choice(["kill", "kill", "stop", "add"])
        actions[action] += 1
        if action == "add" and fleet.reap() <= WORKERS:
            fleet.start()
        elif action != "add" and fleet.reap():
            fleet.end_one(chance, {"kill": signal.SIGKILL, "stop": signal.SIGTERM}[action])
    return actions


def count_in(bootstrap, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4())})
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
    consumer.close()
    return high - low


@pytest.mark.parametrize(
    ("new_key", "options"),
    [
        pytest.param(True, "", id="behind a new key"),
        pytest.param(False, "", id="by the record's key"),
        pytest.param(
            True,
            "store='rocksdb://', datadir=os.environ['WORKER_FOLDER']",
            id="behind a new key, on disk",
            marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('rocksdict')", reason="no rocksdict"),
        ),
    ],
)
def test_results_are_those_of_a_plain_loop_while_workers_are_killed(kafka, tmp_path, new_key, options):
    """Every window of every sensor, each time it is there with the same value; nothing late, all committed."""
    topic = f"chaos-{uuid.uuid4().hex[:6]}"
    create_topics(kafka.bootstrap, {topic: PARTITIONS, f"{topic}-out": 1, f"{topic}-late": 1, f"{topic}-dlq": 1})
    text = OWN_JOB.format(
        topic=topic, new_key=new_key, size=SIZE, step=STEP, grace=GRACE, options=options, deaths=(0.02, 0.02)
    )
    (tmp_path / "own_job.py").write_text(text)
    seed = int(time.time())
    chance, fleet, results = (
        random.Random(seed),
        Fleet(kafka.bootstrap, tmp_path),
        Results(kafka.bootstrap, f"{topic}-out"),
    )
    print(f"seed {seed}, workers' logs in {tmp_path}")
    produced = Produced(kafka.bootstrap, topic, by_sensor=not new_key)
    deadline = time.monotonic() + MINUTES * 60
    try:
        actions = unrest(fleet, produced, results, chance)
        truth = expected(produced.values)
        (tmp_path / "own_job.py").write_text(text.replace("(0.02, 0.02)", "(0, 0)"))
        calm = time.monotonic()  # since when all is committed and nothing more comes
        sent = []
        while sent != produced.sent or (len(results.found) < len(truth) and time.monotonic() - calm < CALM_SECONDS):
            assert time.monotonic() < deadline, f"{len(results.found)} of {len(truth)} results"
            while fleet.reap() < WORKERS:
                fleet.start()
            before = len(results.found)
            results.read(2)
            sent = committed(kafka.bootstrap, f"{topic}-job", topic, PARTITIONS)
            if before != len(results.found) or sent != produced.sent:
                calm = time.monotonic()
        fleet.end(signal.SIGTERM)
        results.read(3)
    finally:
        fleet.end(signal.SIGKILL)
        produced.join()
        results.close()
    print(
        f"{len(produced.values)} records, {len(truth)} results, {results.repeated} repeated; "
        f"{dict(actions)}; workers ended {dict(fleet.ended)}"
    )

    missing = sorted(truth.keys() - results.found.keys(), key=lambda where: where[1])
    assert [] == missing[:10]
    assert truth == results.found
    assert produced.sent == committed(kafka.bootstrap, f"{topic}-job", topic, PARTITIONS)
    assert 0 == results.partial
    assert 0 == count_in(kafka.bootstrap, f"{topic}-late")
    assert 0 == count_in(kafka.bootstrap, f"{topic}-dlq")
    assert 70 not in fleet.ended
