"""A cluster that still runs on ZooKeeper: started by the command, read completely, gone with the command."""

import asyncio
import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.errors import UsageError
from monitor.sandbox.kafka import KafkaSandbox
from monitor.sandbox.loads import Consumer, Producer, commit_only, create_topics
from monitor.sandbox.security import Security

STREAMGAUGE = str(Path(sys.executable).with_name("streamgauge"))


class Running:
    """``streamgauge sandbox kafka --zookeeper`` once it answers: its bootstrap address, and its Javas' process ids."""

    def __init__(self):
        command = [STREAMGAUGE, "sandbox", "kafka", "--version", "3.9", "--zookeeper"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.bootstrap = self.process.stdout.readline().removeprefix("bootstrap: ").strip()
        lines = [self.process.stderr.readline(), self.process.stderr.readline()]
        self.pids = {line.partition(":")[0]: int(re.search(r"pid (\d+)", line)[1]) for line in lines}

    def kill(self) -> str:
        """Kill the command as nobody expects it, and return the rest of what it said."""
        self.process.kill()
        return self.process.communicate(timeout=60)[1]


def gone(pid: int) -> bool:
    """Wait until a process, anybody's, has ended; say whether it did."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 20)[0])
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def running():
    """The command, shared by this module's tests."""
    started = Running()
    yield started
    started.kill()


async def lag(bootstrap: str) -> dict:
    """Return what ``streamgauge lag`` says of the only cluster."""
    process = await asyncio.create_subprocess_exec(
        *(STREAMGAUGE, "lag", "-o", "json", "--bootstrap-servers", bootstrap),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert b"" == err
    return json.loads(out)["clusters"][0]


@pytest.mark.integration
async def test_the_monitor_reads_it_completely(running):
    """Members, committed offsets, log ends and lag are those that producer and consumers counted themselves."""
    await create_topics(running.bootstrap, {"orders": 3})
    producer = Producer(running.bootstrap, "orders", 0, 3)
    async with producer, Consumer(running.bootstrap, "live", "orders", 1000) as member:
        await producer.send_exactly(50)
        await commit_only(running.bootstrap, {"simple": {("orders", 0): 1, ("orders", 2): 2}})
        while sum(member.truth().values()) < 50:
            await asyncio.sleep(0.1)  # its commits are another process's event
        await member.pause()
        cluster = await lag(running.bootstrap)
        committed = {"live": member.truth(), "simple": {("orders", 0): 1, ("orders", 2): 2}}

    assert (True, []) == (cluster["up"], cluster["failures"])
    seen = {each["name"]: each for each in cluster["consumers"]}
    expected = {
        name: {
            (topic, number): (at, producer.sent[number], producer.sent[number] - at) for (topic, number), at in truth
        }
        for name, truth in ((name, offsets.items()) for name, offsets in committed.items())
    }
    assert expected == {
        name: {
            (p["topic"], p["partition"]): (p["committed"], p["log_end"], p["lag_records"]) for p in each["partitions"]
        }
        for name, each in seen.items()
    }
    assert ("stable", 1) == (seen["live"]["state"].lower(), seen["live"]["members"])


@pytest.mark.integration
def test_both_end_with_the_command(running):
    """Killed, the command takes the broker and the ZooKeeper with it. The last of those that share it."""
    assert {"node 1", "zookeeper"} == running.pids.keys()

    running.kill()

    assert [True, True] == [gone(pid) for pid in running.pids.values()]


@pytest.mark.soak
@pytest.mark.integration
async def test_nodes_come_back(kafka_factory, tmp_path):
    """Killed or stopped, a node registers anew; a kept folder is used again, and only as what it is."""
    data = tmp_path / "data"
    sandbox = await kafka_factory(version="3.9", zookeeper=True, data=data)
    [node] = sandbox.nodes
    await create_topics(sandbox.bootstrap, {"kept": 1})
    node.kill()
    await node.start()
    await node.stop()
    await node.start()
    await sandbox.stop()

    with pytest.raises(UsageError, match="holds a cluster with ZooKeeper: start it with it"):
        await KafkaSandbox(version="3.9", data=data).start()
    again = await kafka_factory(version="3.9", zookeeper=True, data=data)
    async with Producer(again.bootstrap, "kept", 0, 1) as producer:
        await producer.send_exactly(3)
        assert [3] == producer.sent


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({}, "Kafka 4.3.1 runs without ZooKeeper: use one of 3.9.2, 3.7.2 with it", id="Kafka 4"),
        pytest.param(
            {"version": "3.9", "security": Security(users={"alice": "secret"})},
            "users and access control are set up for KRaft only: leave them out, or ZooKeeper",
            id="users",
        ),
        pytest.param(
            {"version": "3.9", "security": Security(authorizer=True)},
            "users and access control are set up for KRaft only: leave them out, or ZooKeeper",
            id="access control",
        ),
    ],
)
def test_what_does_not_go_with_zookeeper(options, said):
    """What is not possible is refused before anything starts."""
    with pytest.raises(UsageError) as caught:
        KafkaSandbox(zookeeper=True, **options)

    assert said == str(caught.value)
