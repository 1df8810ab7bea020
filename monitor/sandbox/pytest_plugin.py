"""Pytest fixtures of the sandbox: ``kafka``, one node for the whole run; ``kafka_factory``, clusters of one's own.

    async def test_it(kafka):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)

    async def test_three(kafka_factory):
        sandbox = await kafka_factory(nodes=3, version="4.0")
        sandbox.nodes[0].kill()

This module is imported in every pytest run of everybody who has streamgauge installed: what costs time is imported
by the fixtures. They start Kafka in a thread of their own, so that it belongs to no test's event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from monitor.sandbox.kafka import KafkaSandbox


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaSandbox]:
    """Give a running one-node Kafka that all tests of the run share; give topics and groups names of their own."""
    from monitor.sandbox.kafka import KafkaSandbox  # noqa: PLC0415 - see the module

    sandbox = KafkaSandbox()
    _in_thread(sandbox.start())
    yield sandbox
    _in_thread(sandbox.stop())


@pytest.fixture
def kafka_factory() -> Iterator[Callable[..., Awaitable[KafkaSandbox]]]:
    """Give a function that starts a KafkaSandbox with its arguments; all are ended after the test."""
    from monitor.sandbox.kafka import KafkaSandbox  # noqa: PLC0415 - see the module

    started: list[KafkaSandbox] = []

    async def start(*args: Any, **options: Any) -> KafkaSandbox:
        sandbox = KafkaSandbox(*args, **options)
        started.append(sandbox)
        await sandbox.start()
        return sandbox

    yield start
    for sandbox in started:
        _in_thread(sandbox.stop())


def _in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end beside whatever event loop the tests have."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as exc:  # noqa: BLE001 - raised again below, where the fixture is
            failures.append(exc)

    thread = threading.Thread(target=run, name="kafka sandbox")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
