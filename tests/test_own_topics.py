"""The monitor's own topics: what is known from them is in the report, and reading them holds nothing up."""

import asyncio
import json
from dataclasses import replace

import pytest
from reports import Pipeline, Reader, member, report_of

from monitor.model import Consumer, Failure, FaustAgent, FaustSnapshot, FaustWorker, Kind
from monitor.model import DurationHistogram as Durations
from monitor.own_topics import FAUST_TOPIC, OwnTopics
from monitor.publish.exposition import Exposition
from monitor.publish.report_json import consumer_json, report_json
from monitor.settings import Metrics

AT = 1_795_000_000.0
SHOP = Consumer(Kind.GROUP, "shop")
AGENT = FaustAgent("add", "orders", 10, 3, Durations((0.001, 0.1), (7, 9), 10, 0.5), 4, 4096)
WORKER = FaustWorker(
    SHOP, "host-1", "recovering", AT, AT - 60, 5.0, (AGENT,), 4, 1.5, 0.25, 3, 4.5, 1.0, True, 90,
    {"totals": 7, "big": None}, {"orders": (0, 1), "returns": (2,)}, 5, 0,
)  # fmt: skip


def cluster_report(*topics):
    """Return a report of a cluster with these topics, and a group that reads orders."""
    made = Pipeline(dict.fromkeys(("orders", *topics), (2, 10.0)), {"shop": Reader({"orders": 2}, 0, member("shop"))})
    return made.report()


class Reports:
    """What is read from the topic: a snapshot a look, or an exception."""

    def __init__(self, *looks):
        self.looks = list(looks)
        self.asked = asyncio.Event()
        self.closed = False

    async def look(self):
        self.asked.set()
        look = self.looks.pop(0) if self.looks else await asyncio.Future()
        if isinstance(look, Exception):
            raise look
        return look

    async def close(self):
        self.closed = True


def snapshot(*workers, failures=()):
    return FaustSnapshot("default", AT - 1, AT, not failures, tuple(workers), tuple(failures))


async def looked(own, report):
    """Look until it has been told; return how often."""
    count = 0

    async def told():
        nonlocal count
        count += 1

    own.look(report, told)
    await own._looking
    return count


async def test_workers_are_in_the_report_after_the_first_look_and_from_then_on():
    """The first time is told at once; later ones come with the next cycle."""
    own = OwnTopics("default", faust=Reports(snapshot(WORKER), snapshot()))
    report = cluster_report(FAUST_TOPIC)
    assert own.join(report) is report
    assert 1 == await looked(own, report)
    joined = own.join(report)
    assert (WORKER,) == joined.faust
    assert ["kafka", "faust"] == [each.source for each in joined.sources]
    assert 0 == await looked(own, report)

    assert () == own.join(report).faust


async def test_a_topic_that_is_not_there_is_not_read():
    """It costs no request, and no permission."""
    reports = Reports(snapshot(WORKER))
    own = OwnTopics("default", faust=reports)
    assert 0 == await looked(own, cluster_report())

    assert not reports.asked.is_set()
    assert () == own.join(cluster_report()).faust


async def test_failures_are_listed_and_counted_beside_those_of_the_cluster():
    """Joined twice they are there once."""
    failure = Failure("topic", FAUST_TOPIC, "TOPIC_AUTHORIZATION_FAILED")
    own = OwnTopics("default", faust=Reports(*[snapshot(failures=(failure,))] * 2))
    report = cluster_report(FAUST_TOPIC)
    await looked(own, report)
    await looked(own, report)
    joined = own.join(own.join(report))

    assert (failure,) == joined.failures
    assert 2 == joined.failures_total["faust", "topic"]
    assert [True, False] == [each.up for each in joined.sources]


async def test_a_look_that_hangs_is_not_started_again_and_ends_with_the_monitor():
    """Cycles go on meanwhile."""
    reports = Reports()
    own = OwnTopics("default", faust=reports)
    own.look(cluster_report(FAUST_TOPIC), asyncio.sleep)
    await reports.asked.wait()
    hanging = own._looking
    own.look(cluster_report(FAUST_TOPIC), asyncio.sleep)
    assert hanging is own._looking
    await own.close()

    assert hanging.cancelled()
    assert reports.closed


async def test_a_fault_of_ours_takes_the_workers_and_nothing_else():
    """Stale ones would look well."""
    own = OwnTopics("default", faust=Reports(snapshot(WORKER), ZeroDivisionError()))
    report = cluster_report(FAUST_TOPIC)
    await looked(own, report)
    await looked(own, report)

    assert own.join(report) is report


LABELS = '{cluster="default",kind="group",consumer="shop",worker="host-1"'


@pytest.mark.parametrize(
    ("silent", "name", "value"),
    [
        pytest.param(False, f"streamgauge_faust_up{LABELS}}}", "1", id="reports"),
        pytest.param(True, f"streamgauge_faust_up{LABELS}}}", "0", id="silent"),
        *(
            pytest.param(
                silent,
                f'streamgauge_faust_{name}_total{LABELS},agent="add",topic="orders"}}',
                value,
                id=f"{name}, silent: {silent}",
            )
            for silent in (False, True)
            for name, value in (("events", "10"), ("event_errors", "3"))
        ),
        pytest.param(False, f"streamgauge_faust_rebalances_total{LABELS}}}", "3", id="rebalances"),
        pytest.param(False, f"streamgauge_faust_recovering{LABELS}}}", "1", id="recovering"),
        pytest.param(True, f"streamgauge_faust_recovering{LABELS}}}", None, id="nobody knows whether it recovers"),
        pytest.param(False, f"streamgauge_faust_recovery_remaining_records{LABELS}}}", "90", id="remaining"),
        pytest.param(False, f"streamgauge_faust_uncommitted_seconds{LABELS}}}", "0.25", id="uncommitted"),
        pytest.param(False, f"streamgauge_faust_assigned_partitions{LABELS}}}", "3", id="partitions"),
        pytest.param(False, f'streamgauge_faust_table_entries{LABELS},table="totals"}}', "7", id="a table"),
        pytest.param(False, f'streamgauge_faust_table_entries{LABELS},table="big"}}', None, id="a table not counted"),
        pytest.param(
            True, f'streamgauge_faust_table_entries{LABELS},table="totals"}}', None, id="a silent one's table"
        ),
        pytest.param(
            False,
            f'streamgauge_faust_event_duration_seconds_bucket{LABELS},agent="add",topic="orders",le="0.1"}}',
            "9",
            id="durations",
        ),
    ],
)
def test_workers_are_exposed(silent, name, value):
    """Counts hold as long as the worker is known; what it said of the moment does not outlast its silence."""
    report = replace(cluster_report(), faust=(replace(WORKER, is_silent=silent),))
    text = Exposition(Metrics()).render(report_of(report)).plain.decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("streamgauge_faust"))

    assert value == found.get(name)


def test_workers_stand_with_their_consumer_in_the_json():
    """A null has its reason; consumers without workers have no such field."""
    report = replace(cluster_report(), faust=(WORKER, replace(WORKER, worker="host-2", is_silent=True)))
    (first, second) = consumer_json(report, 0)["workers"]
    json.dumps(report_json(report_of(report)), allow_nan=False)

    assert ("host-1", "recovering", 90) == (first["worker"], first["state"], first["recovery_remaining_records"])
    assert {"orders": [0, 1], "returns": [2]} == first["assigned"]
    assert ("silent", None, 4) == (second["state"], second["assigned"], second["commits"])
    assert "the worker does not report any more" == second["unknown"]["assigned"]
    assert "workers" not in consumer_json(cluster_report(), 0)
