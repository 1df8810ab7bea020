"""A user's Faust app with the sensor on a real Kafka: what it reports, against what was produced here."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka_feed import PATIENCE_SECONDS, Feed, consume, create_topics

from monitor.observe.faust.source import FaustSource
from monitor.settings import Cluster

pytestmark = pytest.mark.integration

TOPIC = "streamgauge.faust"
PARTITIONS = 2
KEYS = 7
GOOD = 200

# Its own monitor/ and processors/ shadow ours, as it is started from its own folder.
USERS_APP = """
import os

import faust
import monitor
import streamgauge.faust

assert monitor.WHO == "the user"
app = faust.App(
    os.environ["GROUP"],
    broker="kafka://" + os.environ["BROKERS"],
    topic_partitions=2,
    topic_replication_factor=1,
    web_enabled=False,
    datadir=os.environ["DATA"],
)
streamgauge.faust.install(app, topic=os.environ["REPORTS"], interval_seconds=0.5)
totals = app.Table("totals", default=int)


@app.agent(app.topic(os.environ["TOPIC"], key_type=str, value_type=int, value_serializer="json"), name="add")
async def add(orders):
    async for event in orders.events():
        if event.value == 13:
            raise ValueError("thirteen")
        totals[event.key] += event.value


if __name__ == "__main__":
    app.main()
"""


@contextlib.contextmanager
def users_app(bootstrap, folder, group, topic, reports=TOPIC):
    """Run the user's app as its own program."""
    files = {
        "monitor/__init__.py": "WHO = 'the user'",
        "processors/__init__.py": "",
        "processors/orders.py": USERS_APP,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    given = {"GROUP": group, "BROKERS": bootstrap, "TOPIC": topic, "REPORTS": reports, "DATA": str(folder / "data")}
    command = [sys.executable, "-m", "processors.orders", "worker", "-l", "error", "--without-web"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env={**os.environ, **given}, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def topic(kafka):
    """Make a topic with records in it, and that of reports if no other test has."""
    name = f"orders-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {name: PARTITIONS})
    with contextlib.suppress(KafkaException):
        create_topics(kafka.bootstrap, {TOPIC: 1})
    feed = Feed(kafka.bootstrap, name, PARTITIONS)
    for number in range(GOOD):
        feed.send(f"k{number % KEYS}", str(number % 10).encode(), time.time())
    feed.flush()
    return name


def reports(bootstrap, group):
    """Return what the workers of an app have reported so far."""
    told = consume(bootstrap, TOPIC)
    return [json.loads(each.value()) for each in told if each.key().startswith(f"{group}/".encode())]


def wait_for(process, bootstrap, group, is_there):
    """Return the first last report that has what is waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    told = []
    while time.monotonic() < deadline and process.poll() is None:
        told = reports(bootstrap, group)
        if told and is_there(told[-1]):
            return told[-1]
        time.sleep(0.2)
    raise AssertionError(told[-1:])


async def look(bootstrap):
    """Return what the monitor sees."""
    source = FaustSource(Cluster(bootstrap_servers=bootstrap))
    try:
        return await source.look()
    finally:
        await source.close()


def test_a_users_app_with_packages_called_like_ours_reports_what_it_does(kafka, topic, tmp_path):
    """Its counts are those of what was produced, and its last word is that it has stopped."""
    group = f"shop-{uuid.uuid4().hex[:8]}"
    with users_app(kafka.bootstrap, tmp_path, group, topic) as process:
        told = wait_for(
            process,
            kafka.bootstrap,
            group,
            lambda last: (
                last["agents"]
                and last["agents"][0]["events"] == GOOD
                and last["commits"]["count"]
                and last["commits"]["waiting_seconds"] == 0
            ),
        )
        (agent,) = told["agents"]
        assert ("add", topic, 0, 0) == (agent["agent"], agent["topic"], agent["errors"], agent["buffered"])
        assert GOOD == sum(agent["durations"])
        assert "running" == told["state"]
        assert [0, 1] == told["assigned"][topic]
        assert [{"table": "totals", "entries": KEYS}] == told["tables"]
        assert {"running": False, "remaining": 0} == told["recovery"]
        assert told["rebalances"]["count"] >= 1
        assert told["rebalances"]["seconds"] > 0
        seen = asyncio.run(look(kafka.bootstrap))
        assert seen.up
        (worker,) = (each for each in seen.workers if each.consumer.name == group)
        assert (told["worker"], False, GOOD) == (worker.worker, worker.is_silent, worker.agents[0].events_total)

        feed = Feed(kafka.bootstrap, topic, PARTITIONS)
        for value, count in ((b"13", "errors"), (b"nonsense", "decode_errors")):
            feed.send("k0", value, time.time())
            feed.flush()
            wait_for(process, kafka.bootstrap, group, lambda last, count=count: last["agents"][0][count] == 1)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)
    last = reports(kafka.bootstrap, group)[-1]

    assert ("stopped", GOOD + 1) == (last["state"], last["agents"][0]["events"])


@pytest.mark.soak
def test_reports_never_make_their_topic(kafka, topic, tmp_path):
    """Topics are made by whoever asks for them; an app that may not report works all the same."""
    group, absent = f"shop-{uuid.uuid4().hex[:8]}", f"absent-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    with users_app(kafka.bootstrap, tmp_path, group, topic, reports=absent) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        changelog = f"{group}-totals-changelog"
        while changelog not in admin.list_topics().topics or not consume(kafka.bootstrap, changelog):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)

    assert absent not in admin.list_topics().topics
