"""A real Kafka, started, hurt and stopped; confluent-kafka is the witness."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewTopic

from monitor.errors import SandboxError, UsageError
from monitor.sandbox.jars import cache_folder
from monitor.sandbox.kafka import KafkaSandbox, registered, telling

pytestmark = pytest.mark.integration

Factory = Callable[..., Awaitable[KafkaSandbox]]

SOON = {"broker.session.timeout.ms": "2500", "broker.heartbeat.interval.ms": "500"}
"""A node that was killed is let in again when its former session has timed out."""


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Write values and wait until the broker has them all."""
    failed = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 60_000})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: error and failed.append(error))
    assert 0 == producer.flush(60)
    assert [] == failed


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """Read so many values from the beginning, as a consumer group of one."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        messages = [consumer.poll(60) for _ in range(count)]
        return [message.value() for message in messages]
    finally:
        consumer.close()


def metadata(bootstrap: str, topic: str | None = None, **options: str) -> ClusterMetadata:
    """Return what another client is told about the cluster."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, **options})
    return client.list_topics(topic, timeout=30)


def refuses(address: str) -> bool:
    """Say whether nobody listens."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return True
    return False


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


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where temporary ones are made, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new cache, with the jars of the one in use."""
    (tmp_path / "jars").symlink_to(cache_folder() / "jars")
    monkeypatch.setenv("STREAMGAUGE_CACHE", str(tmp_path))
    return tmp_path


async def test_one_node_serves_another_client(kafka: KafkaSandbox):
    """What confluent-kafka writes, it reads back, as a member of a group."""
    values = [b"a", b"b", b"c"]
    produce(kafka.bootstrap, "written", values)

    assert values == consume(kafka.bootstrap, "written", 3)
    assert {1} == set(metadata(kafka.bootstrap).brokers)


async def test_a_test_of_another_loop_uses_the_same_kafka(kafka: KafkaSandbox):
    """The shared fixture belongs to no event loop: this test's own loop can talk to it as well."""
    host, _, port = kafka.bootstrap.rpartition(":")

    assert {1} == await registered(host, int(port))


async def test_a_node_comes_back_on_its_port_with_its_records(kafka_factory: Factory):
    """Killed or stopped, its port refuses; started again, the same port serves what was written before."""
    sandbox = await kafka_factory(properties=SOON)
    [node] = sandbox.nodes
    produce(sandbox.bootstrap, "kept", [b"before"])
    before = node.pid
    node.kill()

    assert node.pid is None
    assert refuses(node.address)

    await node.start()

    assert node.pid not in {None, before}
    assert [b"before"] == consume(sandbox.bootstrap, "kept", 1)

    await node.stop()

    assert refuses(node.address)

    await node.start()

    assert [b"before"] == consume(sandbox.bootstrap, "kept", 1)


async def test_a_paused_node_is_connected_and_silent(kafka_factory: Factory):
    """While it is paused its port takes connections and nobody answers; afterwards the answer comes."""
    sandbox = await kafka_factory()
    [node] = sandbox.nodes
    host, _, port = node.address.rpartition(":")
    node.pause()

    assert not refuses(node.address)
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(registered(host, int(port)), 0.5)
    finally:
        node.resume()

    assert {1} == await registered(host, int(port))


async def test_three_nodes_go_on_without_one(kafka_factory: Factory):
    """Internal topics have three replicas; with one node killed the others serve, and it comes back."""
    sandbox = await kafka_factory(nodes=3, properties=SOON)
    client = AdminClient({"bootstrap.servers": sandbox.bootstrap})
    client.create_topics([NewTopic("three", 1, 3)])["three"].result(60)
    produce(sandbox.bootstrap, "three", [b"a"])

    assert [b"a"] == consume(sandbox.bootstrap, "three", 1)
    described = metadata(sandbox.bootstrap, "__consumer_offsets")
    assert {1, 2, 3} == set(described.brokers)
    assert {(1, 2, 3)} == {
        tuple(sorted(partition.replicas)) for partition in described.topics["__consumer_offsets"].partitions.values()
    }

    sandbox.nodes[0].kill()
    others = ",".join(node.address for node in sandbox.nodes[1:])
    produce(others, "three", [b"b"])

    assert refuses(sandbox.nodes[0].address)

    await sandbox.nodes[0].start()

    assert {1, 2, 3} == set(metadata(sandbox.nodes[0].address).brokers)
    assert [b"a", b"b"] == consume(sandbox.nodes[0].address, "three", 2)


@pytest.mark.parametrize("version", ["4.0", "3.9", "3.7"])
async def test_older_versions_serve_as_well(kafka_factory: Factory, version: str):
    """Each supported version formats its folder its own way, starts and serves."""
    sandbox = await kafka_factory(version=version)
    produce(sandbox.bootstrap, "written", [b"old"])

    assert sandbox.version.startswith(version)
    assert [b"old"] == consume(sandbox.bootstrap, "written", 1)


async def test_a_kept_folder_is_used_again_after_a_crash(kafka_factory: Factory, tmp_path: Path):
    """A second sandbox finds the records of the first; while one runs, another is refused, as is another size."""
    data = tmp_path / "data"
    first = await kafka_factory(data=data)
    produce(first.bootstrap, "kept", [b"before"])
    with pytest.raises(SandboxError, match="another sandbox runs on"):
        await KafkaSandbox(data=data).start()
    first.nodes[0].kill()
    await first.stop()
    with pytest.raises(UsageError, match="holds 1 nodes, not 3: start it with 1, or name another folder"):
        await KafkaSandbox(3, data=data).start()
    second = await kafka_factory(data=data)

    assert [b"before"] == consume(second.bootstrap, "kept", 1)


async def test_nothing_is_left(kafka_factory: Factory, cache: Path):
    """At the end there is no process, no port and no folder, after the first start in a new cache and after others.

    The first one leaves a class archive in that cache, which the second one's Java has in its memory.
    """
    used = []
    for _ in range(2):
        sandbox = await kafka_factory()
        [node] = sandbox.nodes
        pid = node.pid
        maps = Path(f"/proc/{pid}/maps").read_text()
        used.append({archive for archive in cache.glob("classes/*.jsa") if str(archive) in maps})
        await sandbox.stop()

        assert pid is not None
        assert gone(pid)
        assert refuses(node.address)
        assert not node.folder.parent.exists()

    assert [set(), set(cache.glob("classes/*.jsa"))] == used
    assert 1 == len(used[1])


async def test_what_a_killed_sandbox_left_is_removed(temporary: Path, kafka_factory: Factory):
    """The next start removes the data of one that was killed, and neither logs kept on purpose nor one that runs."""
    for name, inside in {"killed": "node-1/data", "failed": "node-1"}.items():
        (temporary / f"streamgauge-kafka-{name}" / inside).mkdir(parents=True)
        (temporary / f"streamgauge-kafka-{name}" / "sandbox.lock").touch()
    first = await kafka_factory()
    with pytest.raises(SandboxError, match="cannot listen on"):
        await KafkaSandbox(port=int(first.bootstrap.rpartition(":")[2])).start()

    assert not (temporary / "streamgauge-kafka-killed").exists()
    assert (temporary / "streamgauge-kafka-failed").exists()
    assert first.nodes[0].meta.exists()


async def test_a_start_that_is_cancelled_leaves_nothing():
    """Cancelled while its node is starting, the sandbox ends it before the cancellation goes on."""
    sandbox = KafkaSandbox()
    task = asyncio.ensure_future(sandbox.start())
    while not (sandbox.nodes and sandbox.nodes[0].pid):
        await asyncio.sleep(0.01)
        assert not task.done()
    [node] = sandbox.nodes
    pid = node.pid
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert pid is not None
    assert gone(pid)
    assert not node.folder.parent.exists()


async def test_a_port_that_is_taken_is_one_line(temporary: Path):
    """It is said before anything is started, with the way out, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError) as caught:
            await KafkaSandbox(port=port).start()

    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another port, or none" == str(
        caught.value
    )
    assert [] == list(temporary.iterdir())


async def test_a_node_that_does_not_start_is_quoted(temporary: Path):
    """What Kafka itself says about a property is in the line, and its log alone is kept, where the line says."""
    with pytest.raises(SandboxError) as caught:
        await KafkaSandbox(properties={"num.io.threads": "many"}).start()
    said = str(caught.value)
    log = Path(said.rpartition("(log: ")[2].rstrip(")"))

    assert "many" in said
    assert "num.io.threads" in said
    assert "\n" not in said
    assert "num.io.threads" in log.read_text()
    kept = {file.name for file in temporary.rglob("*") if file.is_file()}

    assert {"kafka.log", "server.properties", "sandbox.lock"} == kept


async def test_a_node_that_is_killed_while_starting_is_named(temporary: Path):
    """A start does not wait for a node that is gone."""
    sandbox = KafkaSandbox()
    task = asyncio.ensure_future(sandbox.start())
    while not (sandbox.nodes and sandbox.nodes[0].pid):
        await asyncio.sleep(0.01)
        assert not task.done()
    sandbox.nodes[0].kill()
    with pytest.raises(SandboxError, match=r"^Kafka 4\.3\.1 node 1 was ended by SIGKILL: "):
        await task


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param(
            {"data": "/tmp/a,b"},
            "the data folder /tmp/a,b has a comma in its name, which Kafka takes for two folders: name another one",
            id="comma",
        ),
        pytest.param({"nodes": 2}, "a sandbox has 1 or 3 nodes, not 2", id="two nodes"),
        pytest.param({"port": 70000}, "70000 is no port for 1 nodes: use 1 to 65534, or 0 for any free one", id="port"),
        pytest.param(
            {"version": "2.8"}, "the sandbox has no Kafka 2.8: use one of 4.3.1, 4.0.2, 3.9.2, 3.7.2", id="version"
        ),
        pytest.param(
            {"version": "3.70"}, "the sandbox has no Kafka 3.70: use one of 4.3.1, 4.0.2, 3.9.2, 3.7.2", id="alike"
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], complaint: str):
    """Before anything is started, in a line."""
    with pytest.raises(UsageError) as caught:
        KafkaSandbox(**options)

    assert complaint == str(caught.value)


def test_the_telling_lines_of_a_log(tmp_path: Path):
    """Errors come before the last lines, stack frames never, each once, in one line."""
    log = tmp_path / "log"
    log.write_text(
        "INFO starting\n"
        "ERROR Exiting Kafka due to fatal exception\n"
        "java.net.BindException: Address already in use\n"
        "\tat java.base/sun.nio.ch.Net.bind0(Native Method)\n"
        "\t... 3 more\n"
        "ERROR Exiting Kafka due to fatal exception\n"
        "INFO shut down\n"
    )

    assert "ERROR Exiting Kafka due to fatal exception | java.net.BindException: Address already in use" == telling(log)
    assert "its log is empty" == telling(tmp_path / "none")
