"""Samples of lag through the real worker on a real Kafka, against a plain recomputation, and read by the monitor."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from kafka_feed import PATIENCE_SECONDS, consume, create_topics

from monitor.model import Consumer, Kind
from monitor.observe.rollups import RollupSource
from monitor.records import LAG_TOPIC, ROLLUPS_TOPIC, Sample
from monitor.settings import Cluster

pytestmark = pytest.mark.integration

STREAMGAUGE = Path(sys.executable).with_name("streamgauge")
NAMES = ("billing", "shipping")
MINUTES = 8


def made_samples(cluster, *, seed=7):
    """Make samples every ten seconds, the last in the minute that goes on; lags in quarters, so that sums are exact."""
    chance = random.Random(seed)
    begin = int(time.time()) // 60 * 60 - 60 * MINUTES
    return [
        Sample(begin + second, cluster, "group", name, "ok", lag := chance.randrange(1000), chance.randrange(400) / 4,
               60.0, lag > 500, 8.0, 8.0)
        for second in range(0, 60 * MINUTES + 1, 10)
        for name in NAMES
    ]  # fmt: skip


def produce(bootstrap, samples):
    producer = Producer({"bootstrap.servers": bootstrap})
    for each in samples:
        producer.produce(LAG_TOPIC, each.to_json(), each.key)
    producer.produce(LAG_TOPIC, b"nonsense")
    assert 0 == producer.flush(PATIENCE_SECONDS)


def expected(samples):
    """Return of each name and minute that is over: samples, maximum and mean of the lag, share within the objective."""
    minutes = {}
    for each in samples:
        minutes.setdefault((each.name, int(each.at) // 60 * 60), []).append(each)
    last = max(start for _, start in minutes)
    return {
        key: (
            len(some),
            max(each.lag_records for each in some),
            sum(each.lag_records for each in some) / len(some),
            sum(not each.over_objective for each in some) / len(some),
        )
        for key, some in minutes.items()
        if key[1] != last
    }


def written(bootstrap, cluster):
    """Return the same of what is on the topic, the last record of a key."""
    latest = {}
    for record in consume(bootstrap, ROLLUPS_TOPIC):
        if record.value() is not None:
            told = json.loads(record.value())
            if told["cluster"] == cluster and told["window_seconds"] == 60 and told["final"]:
                figures = ("samples", "lag_records_max", "lag_records_mean", "within_objective")
                latest[told["name"], told["start"]] = tuple(told[name] for name in figures)
    return latest


@contextlib.contextmanager
def worker(bootstrap, folder):
    command = [STREAMGAUGE, "worker", "--app", "processors.agents.rollups:app", "--bootstrap-servers", bootstrap]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_until(is_there, process):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_there():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)


@pytest.fixture
def topics(kafka):
    for name, partitions in ((LAG_TOPIC, 1), (ROLLUPS_TOPIC, 1)):
        with contextlib.suppress(KafkaException):
            create_topics(kafka.bootstrap, {name: partitions})


async def hours(bootstrap, cluster):
    """Return what a monitor that has just started knows of the last hour."""
    source = RollupSource(Cluster(name=cluster, bootstrap_servers=bootstrap))
    try:
        return (await source.look())[0]
    finally:
        await source.close()


@pytest.mark.parametrize("kills", [0, pytest.param(3, marks=pytest.mark.soak)], ids=["undisturbed", "killed"])
def test_rollups_are_those_of_the_samples_and_outlive_the_monitor(kafka, topics, tmp_path, kills):
    """Killed in between or not; what is no sample is passed over, and a monitor that starts knows the hour."""
    cluster = f"c-{uuid.uuid4().hex[:8]}"
    samples = made_samples(cluster)
    truth = expected(samples)
    pieces = [
        samples[len(samples) * n // (kills + 1) : len(samples) * (n + 1) // (kills + 1)] for n in range(kills + 1)
    ]
    for number, piece in enumerate(pieces):
        known = len(written(kafka.bootstrap, cluster))
        produce(kafka.bootstrap, piece)
        with worker(kafka.bootstrap, tmp_path) as process:
            enough = len(truth) if number == kills else known + 1
            wait_until(lambda enough=enough: len(written(kafka.bootstrap, cluster)) >= enough, process)
    known = asyncio.run(hours(kafka.bootstrap, cluster))

    assert truth == written(kafka.bootstrap, cluster)
    assert {Consumer(Kind.GROUP, name): MINUTES for name in NAMES} == {who: hour.minutes for who, hour in known.items()}
    assert max(figures[1] for figures in truth.values()) == max(hour.lag_records_max for hour in known.values())
