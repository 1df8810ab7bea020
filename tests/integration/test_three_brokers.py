"""One broker of three dies or hangs: what the others know is right, and nothing is missing once they took over."""

import asyncio
import time

import pytest

from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.populate import Shape, populate
from monitor.service import STEADY, ClusterMonitor
from monitor.settings import Settings

pytestmark = pytest.mark.integration

SHAPE = Shape(topics=6, partitions=6, groups=30, positions=12)


def unlike_truth(report, truth) -> tuple[int, int]:
    """Return how many positions are unknown, and how many are known and wrong; every group and position is there."""
    layout = report.positions.layout
    seen = {}
    for index, owner in enumerate(layout.consumer.tolist()):
        where = (layout.consumers[owner].name, layout.partitions.key(layout.row[index]))
        seen[where] = int(report.positions.lag_records[index])
    expected = {(group, where): lag for group in truth.committed for where, lag in truth.lag(group).items()}
    assert expected.keys() == seen.keys(), "unknown is not gone"
    known = {key: lag for key, lag in seen.items() if lag >= 0}
    return len(seen) - len(known), sum(expected[key] != lag for key, lag in known.items())


async def test_a_broker_dies_and_another_hangs(kafka_factory):
    """Not one wrong number on the way; up again while the broker is still away; complete when it is back."""
    sandbox = await kafka_factory(nodes=3, heap_mb=384)
    truth = await populate(sandbox.bootstrap, SHAPE, replicas=3)
    settings = Settings(clusters=[{"bootstrap_servers": sandbox.bootstrap, "timeout_seconds": 2}])
    monitor = ClusterMonitor(settings.clusters[0], settings, STEADY, KafkaSource(settings.clusters[0]), None)

    async def until(up: bool) -> int:
        """Cycle until the cluster is (not) up; return how many positions are unknown then."""
        deadline = time.monotonic() + 90
        while True:
            report = await monitor.cycle()
            unknown, wrong = unlike_truth(report, truth)
            assert 0 == wrong
            assert report.up == (unknown == 0), "up says that everything is known"
            if report.up is up:
                return unknown
            assert time.monotonic() < deadline
            await asyncio.sleep(0.3)

    try:
        assert 0 == await until(up=True)
        sandbox.nodes[1].kill()
        some = await until(up=False)
        assert 0 < some < SHAPE.groups * SHAPE.positions, "two of three brokers still answer"
        assert 0 == await until(up=True), "the others took over"
        await sandbox.nodes[1].start()
        assert 0 == await until(up=True)
        sandbox.nodes[2].pause()
        assert 0 < await until(up=False) < SHAPE.groups * SHAPE.positions
        assert 0 == await until(up=True)
        sandbox.nodes[2].resume()
        assert 0 == await until(up=True)
    finally:
        await monitor.kafka.close()
