"""A real Kafka, started, hurt and stopped; confluent-kafka is the witness."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Awaitable, Callable

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from monitor.sandbox.kafka import KafkaSandbox, registered

pytestmark = pytest.mark.integration

Factory = Callable[..., Awaitable[KafkaSandbox]]


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


def brokers(bootstrap: str) -> set[int]:
    return set(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30).brokers)


def refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_one_node_serves_another_client(kafka: KafkaSandbox):
    """What confluent-kafka writes, it reads back, as a member of a group."""
    values = [b"a", b"b", b"c"]
    produce(kafka.bootstrap, "written", values)

    assert values == consume(kafka.bootstrap, "written", 3)
    assert {1} == brokers(kafka.bootstrap)


async def test_a_test_of_another_loop_uses_the_same_kafka(kafka: KafkaSandbox):
    """The shared fixture belongs to no event loop: this test's own loop can talk to it as well."""
    host, _, port = kafka.bootstrap.rpartition(":")

    assert {1} == await registered(host, int(port))


async def test_a_killed_node_comes_back_on_its_port_with_its_records(kafka_factory: Factory):
    """After kill -9, the port refuses; after a start, the same port serves what was written before."""
    sandbox = await kafka_factory()
    [node] = sandbox.nodes
    produce(sandbox.bootstrap, "kept", [b"before"])
    before = node.pid
    node.kill()

    assert node.pid is None
    assert refuses(node.address)

    await node.start()

    assert node.pid not in {None, before}
    assert [b"before"] == consume(sandbox.bootstrap, "kept", 1)
