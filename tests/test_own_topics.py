"""The monitor's own topics: what is known from them is in the report, and reading them holds nothing up."""

import asyncio
import json
from dataclasses import replace

import pytest
from reports import Pipeline, Reader, member, report_of

from monitor.model import Consumer, Failure, FaustAgent, FaustSnapshot, FaustWorker, Kind, LastHour, Why
from monitor.model import DurationHistogram as Durations
from monitor.own_topics import FAUST_TOPIC, OwnTopics
from monitor.publish.exposition import Exposition
from monitor.publish.report_json import consumer_json, report_json
from monitor.publish.samples import samples
from monitor.records import LAG_TOPIC, ROLLUPS_TOPIC, read_sample
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


class Rollups(Reports):
    """What is read of rollups: hours and failures a look."""


class Samples:
    """Keeps what is written to the topic of samples."""

    def __init__(self, *failures):
        self.written = []
        self._failures = failures

    async def write(self, samples):
        self.written.append(list(samples))
        return self._failures

    async def close(self):
        pass


def own_topics(faust=None, rollups=None, lag=None):
    return OwnTopics("default", faust=faust or Reports(), rollups=rollups or Rollups(), lag=lag or Samples())


async def looked(own, report):
    """Look until it has been told; return how often."""
    count = 0

    async def told():
        nonlocal count
        count += 1

    own.look(report, told)
    await asyncio.gather(*(job.task for job in own._jobs if job.task is not None))
    return count


async def test_workers_are_in_the_report_after_the_first_look_and_from_then_on():
    """The first time is told at once; later ones come with the next cycle."""
    own = own_topics(Reports(snapshot(WORKER), snapshot()))
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
    own = own_topics(reports)
    assert 0 == await looked(own, cluster_report())

    assert not reports.asked.is_set()
    assert () == own.join(cluster_report()).faust


async def test_failures_are_listed_and_counted_beside_those_of_the_cluster():
    """Joined twice they are there once."""
    failure = Failure("topic", FAUST_TOPIC, "TOPIC_AUTHORIZATION_FAILED")
    own = own_topics(Reports(*[snapshot(failures=(failure,))] * 2))
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
    own = own_topics(reports)
    own.look(cluster_report(FAUST_TOPIC), asyncio.sleep)
    await reports.asked.wait()
    hanging = own._jobs[0].task
    own.look(cluster_report(FAUST_TOPIC), asyncio.sleep)
    assert hanging is own._jobs[0].task
    await own.close()

    assert hanging.cancelled()
    assert reports.closed


async def test_a_fault_of_ours_takes_the_workers_and_nothing_else():
    """Stale ones would look well."""
    own = own_topics(Reports(snapshot(WORKER), ZeroDivisionError()))
    report = cluster_report(FAUST_TOPIC)
    await looked(own, report)
    await looked(own, report)
    joined = own.join(report)

    assert () == joined.faust
    assert [("kafka", True), ("faust", False)] == [(each.source, each.up) for each in joined.sources]
    assert ["ZeroDivisionError"] == [each.error for each in joined.failures]


HOUR = LastHour(59, 120, 60.5, None, None, 10.0, 9.5, 0.75)


async def test_the_last_hour_is_in_the_report_as_soon_as_it_is_read():
    """Beside the workers, each told once; of a consumer that has one it is in the JSON, with reasons for nulls."""
    own = own_topics(rollups=Rollups(({SHOP: HOUR}, ())))
    report = cluster_report(ROLLUPS_TOPIC)
    assert 1 == await looked(own, report)
    joined = own.join(report)
    told = consumer_json(joined, 0)["last_hour"]

    assert {SHOP: HOUR} == joined.last_hour
    assert (59, 120, None, 0.75) == tuple(
        told[name] for name in ("minutes", "lag_records_max", "lag_seconds_max", "within_objective")
    )
    assert {"lag_seconds_max", "lag_seconds_mean"} == set(told["unknown"])
    assert "last_hour" not in consumer_json(report, 0)


async def test_each_cycle_writes_a_sample_of_each_consumer_where_the_topic_is():
    """And none where it is not."""
    lag = Samples()
    own = own_topics(lag=lag)
    await looked(own, cluster_report())
    assert [] == lag.written
    await looked(own, cluster_report(LAG_TOPIC))

    assert [["shop"]] == [[each.name for each in samples] for samples in lag.written]


def test_a_sample_says_what_the_report_says():
    """Records come in at the rate of what the consumer reads, whatever else there is; unknown stays unknown."""
    made = Pipeline(
        {"orders": (2, 10.0), "other": (1, 99.0)},
        {
            "shop": Reader({"orders": 2}, 40, member("shop")),
            "blind": Reader({"orders": 2}, Why.TIMEOUT, member("blind")),
        },
    )
    made.report()
    report = made.report()
    by_name = {each.name: each for each in samples(report)}
    shop, blind = by_name["shop"], by_name["blind"]

    assert (report.at, "default", "group", 80, 300.0, False) == (
        shop.at,
        shop.cluster,
        shop.kind,
        shop.lag_records,
        shop.objective_seconds,
        shop.over_objective,
    )
    assert (20.0, 20.0) == pytest.approx((shop.records_in_per_second, shop.records_out_per_second))
    assert (None, None, None) == (blind.lag_records, blind.lag_seconds, blind.over_objective)
    assert shop == read_sample(shop.to_json())
    assert blind == read_sample(blind.to_json())


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
    told = replace(WORKER, outcomes={"averaged": 9, "late": 1})
    report = replace(cluster_report(), faust=(told, replace(WORKER, worker="host-2", is_silent=True)))
    (first, second) = consumer_json(report, 0)["workers"]
    json.dumps(report_json(report_of(report)), allow_nan=False)

    assert ("host-1", "recovering", 90) == (first["worker"], first["state"], first["recovery_remaining_records"])
    assert {"orders": [0, 1], "returns": [2]} == first["assigned"]
    assert ({"averaged": 9, "late": 1}, {}) == (first["outcomes"], second["outcomes"])
    assert ("silent", None, 4) == (second["state"], second["assigned"], second["commits"])
    assert "the worker does not report any more" == second["unknown"]["assigned"]
    assert "workers" not in consumer_json(cluster_report(), 0)
