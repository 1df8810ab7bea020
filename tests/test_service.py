"""The service's cycle: what is looked up, in which order things are read, and that a cluster's fault stays its own."""

import asyncio

import numpy as np
import pytest
import structlog
from snapshots import Leaders, kafka_snapshot

from monitor.errors import UnreachableError
from monitor.model import Failure, Found
from monitor.service import ONE_SHOT, STEADY, Budget, ClusterMonitor, Monitor
from monitor.settings import Cluster, Settings

AT = 1_000_000.0
P0 = ("orders", 0)
LOG = [(i, int(AT * 1000) - 1_000 * (100 - i)) for i in range(100)]
# Half of the records an hour ago, the rest in a burst: interpolation by offset misleads.
BURST = [(i, int(AT * 1000) - (3_600_000 - i if i < 45 else 1_000 * (100 - i))) for i in range(100)]


class ScriptedKafka:
    """A cluster that plays prepared snapshots; an exception in the script is raised."""

    def __init__(self, *script, log=None, reachable=True, journal=None):
        self.script = list(script)
        self.leaders = Leaders({P0: log or LOG})
        self.rounds = 0
        self.reachable = reachable
        self.journal = journal if journal is not None else []

    async def observe(self):
        self.journal.append("kafka")
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step

    async def look_up(self, wanted) -> Found:
        self.rounds += 1
        return self.leaders.look_up(wanted)

    async def check(self):
        if not self.reachable:
            raise UnreachableError("nothing answers at nowhere:9092: check the address")

    async def close(self):
        self.journal.append("closed")


def settings(*names, **cluster):
    return Settings(
        clusters=[Cluster(name=name, bootstrap_servers="x:1", **{"interval_seconds": 0.1, **cluster}) for name in names]
    )


def monitor_of(kafkas, budget=STEADY, **cluster):
    monitor = Monitor(settings(*kafkas, **cluster), budget=budget)
    monitor.clusters = [
        ClusterMonitor(config, monitor.settings, budget, kafkas[config.name], None)
        for config in monitor.settings.clusters
    ]
    return monitor


def snapshot(committed=40, **kw):
    return kafka_snapshot({P0: (0, 100)}, {"g": {P0: committed}}, at=AT, **kw)


async def test_one_cycle_places_the_record():
    """A one-shot cycle narrows the age down to the record itself."""
    monitor = monitor_of({"default": ScriptedKafka(snapshot())}, ONE_SHOT)

    report = await monitor.cycle()

    assert AT == report.at
    assert 60.0 == pytest.approx(report.clusters[0].consumers.lag_seconds[0], abs=0.05)


async def test_the_budget_bounds_rounds_and_questions():
    """Three rounds are three rounds; no look-ups allowed are none, and the age is unknown with a reason."""
    three, none = ScriptedKafka(snapshot(), log=BURST), ScriptedKafka(snapshot())

    await monitor_of({"default": three}, Budget(rounds=3, seconds=60)).cycle()
    report = await monitor_of({"default": none}, lookups_per_cycle=0).cycle()

    assert 3 == three.rounds
    assert 0 == none.rounds
    assert np.isnan(report.clusters[0].consumers.lag_seconds[0])
    assert report.clusters[0].consumers.why_seconds[0] != 0


async def test_spark_is_read_before_kafka():
    """A checkpoint is a commit: read before the log ends, so that a negative difference is always a finding."""
    journal = []

    class Spark:
        async def observe(self):
            journal.append("spark")

    config = settings("default")
    each = ClusterMonitor(config.clusters[0], config, STEADY, ScriptedKafka(snapshot(), journal=journal), Spark())
    await each.cycle()

    assert ["spark", "kafka"] == journal


async def test_check_fails_only_when_no_cluster_answers():
    """One cluster of two that answers is enough; none raises one line with every reason."""
    up, down = ScriptedKafka(snapshot()), ScriptedKafka(snapshot(), reachable=False)

    await monitor_of({"a": up, "b": down}).check()
    with pytest.raises(UnreachableError, match="nothing answers at nowhere:9092"):
        await monitor_of({"a": down, "b": down}).check()


async def test_a_fault_in_one_cluster_leaves_the_others_fresh():
    """A cycle that breaks takes its own cluster's numbers away, and only those; the next one brings them back."""
    good = ScriptedKafka(snapshot())
    bad = ScriptedKafka(snapshot(), RuntimeError("ours"), snapshot())
    monitor = monitor_of({"good": good, "bad": bad}, interval_seconds=0.1)
    seen = []
    enough = asyncio.Event()

    async def publish():
        seen.append(tuple(report.at and len(monitor.report().clusters) for report in [monitor.report()]))
        if len(bad.journal) >= 3:
            enough.set()

    watching = asyncio.create_task(monitor.watch(publish))
    await asyncio.wait_for(enough.wait(), 20)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    sizes = [size for (size,) in seen]
    assert 1 in sizes
    assert 2 == sizes[-1]
    assert monitor.is_complete()


async def test_a_cluster_that_goes_and_comes_is_logged_once_each():
    """One line when it cannot be read in full, one when it can again, none in between."""
    down = snapshot(up=False, failures=[Failure("broker", "1 (x:1)", "TIMEOUT", "x:1 did not answer")])
    kafka = ScriptedKafka(snapshot(), snapshot(), down, down, snapshot())
    monitor = monitor_of({"default": kafka}, interval_seconds=0.1)
    enough = asyncio.Event()

    async def publish():
        if len(kafka.journal) >= 6:
            enough.set()

    with structlog.testing.capture_logs() as logs:
        watching = asyncio.create_task(monitor.watch(publish))
        await asyncio.wait_for(enough.wait(), 20)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    told = [(entry["event"], entry.get("first")) for entry in logs]
    assert [
        ("cluster read in full", None),
        ("cluster not read in full", "x:1 did not answer"),
        ("cluster read in full", None),
    ] == told
