"""Holes found in other monitors of consumer lag, each shown not to be ours: tests/chaos/HOLES.md says which is which.

A fake cluster fails or lies in the way that opens the hole; what is checked is what people get, the report and the
exposition. What was written and committed there is known, since the test did it.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import gc
import json
import math
import re
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pytest

from monitor.model import Report
from monitor.observe.kafka.source import KafkaSource
from monitor.publish.exposition import Exposition
from monitor.publish.report_json import report_json
from monitor.sandbox.fake import ErrorCode, FakeCluster, Hang, Member, Omit
from monitor.service import ONE_SHOT, STEADY, ClusterMonitor, Monitor, Publisher
from monitor.settings import Filter, Objectives, Settings

TESTS = Path(__file__).parents[2]
LINE = re.compile(r"^(streamgauge_\w+)\{([^}]*)\} +(\S+) *$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')

LAG = "streamgauge_consumer_lag_records"
SUM = "streamgauge_consumer_sum_lag_records"

READS_NO_RECORD = {
    *("ApiVersions", "Metadata", "FindCoordinator", "ListGroups", "OffsetFetch", "ListOffsets"),
    *("DescribeGroups", "ConsumerGroupDescribe", "ShareGroupDescribe", "StreamsGroupDescribe"),
    *("DescribeShareGroupOffsets", "DescribeCluster"),
}

NOW_MS = int(time.time() * 1000)


class Reading:
    """A monitor of one or more clusters, and what it says after a cycle."""

    def __init__(self, clusters: Mapping[str, str], budget=ONE_SHOT, **options) -> None:
        settings = Settings(
            clusters=[
                {"name": name, "bootstrap_servers": servers, "timeout_seconds": 1.5, **options}
                for name, servers in clusters.items()
            ],
            metrics={"lost_records": True},
        )
        self._exposition = Exposition(settings.metrics)
        self._monitors = [
            ClusterMonitor(cluster, settings, budget, KafkaSource(cluster), None) for cluster in settings.clusters
        ]
        self.report: dict = {}
        self.metrics = ""

    async def cycle(self) -> None:
        reports = await asyncio.gather(*(each.cycle() for each in self._monitors))
        report = Report(max(each.at for each in reports), tuple(reports))
        # Through text: a NaN or an infinity would not get through.
        self.report = json.loads(json.dumps(report_json(report), allow_nan=False))
        self.metrics = self._exposition.render(report).plain.decode()

    async def close(self) -> None:
        for each in self._monitors:
            await each.kafka.close()

    def cluster(self, name: str = "default") -> dict:
        return next(each for each in self.report["clusters"] if each["name"] == name)

    def consumer(self, name: str, cluster: str = "default") -> dict:
        return next(each for each in self.cluster(cluster)["consumers"] if each["name"] == name)

    def part(self, name: str, topic: str = "orders", partition: int = 0) -> dict:
        parts = self.consumer(name)["partitions"]
        return next(part for part in parts if (part["topic"], part["partition"]) == (topic, partition))

    def samples(self, name: str, **labels: str) -> list[float]:
        """Return the values of a metric's series with these labels."""
        found = [
            (dict(LABEL.findall(text)), float(value))
            for each, text, value in LINE.findall(self.metrics)
            if each == name
        ]
        return [value for had, value in found if labels.items() <= had.items()]


@pytest.fixture
async def fake():
    """Two brokers, one leading and coordinating for each name: orders/0 on the first, orders/1 on the second."""
    async with FakeCluster(brokers=2) as cluster:
        cluster.topic("orders", partitions=2, records=10, leaders=[1, 2], timestamp_ms=NOW_MS - 60_000, step_ms=1000)
        cluster.group("billing", {("orders", 0): 4, ("orders", 1): 4}, coordinator=1)
        cluster.group("shipping", {("orders", 0): 10, ("orders", 1): 7}, coordinator=2)
        yield cluster


@pytest.fixture
async def reading(fake):
    found = Reading({"default": fake.bootstrap})
    yield found
    await found.close()


# --- unknown is never zero --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [-2, -1], ids=["log start", "log end"])
@pytest.mark.parametrize("fault", [ErrorCode(6), Omit(topics=["orders"], partitions=[1])], ids=["error", "left out"])
async def test_an_unread_log_bound_is_neither_zero_lag_nor_lost_data(fake, reading, asked, fault):
    """A bound that one leader does not tell leaves its partition, and every sum over it, unknown."""
    await reading.cycle()

    def asks_for_it(header, body: bytes) -> bool:
        return asked.to_bytes(8, "big", signed=True) in body

    fake.fail("ListOffsets", fault, broker=2, when=asks_for_it)
    await reading.cycle()

    for group in ("billing", "shipping"):
        part, consumer = reading.part(group, partition=1), reading.consumer(group)
        assert (None, None, None) == (part["lag_records"], part["lost_records"], part["lag_seconds"])
        assert (None, None, 1) == (consumer["lag_records"], consumer["lag_seconds"], consumer["partitions_unknown"])
        assert [] == reading.samples(LAG, consumer=group, partition="1")
        assert [] == reading.samples(SUM, consumer=group)
        assert [] == reading.samples("streamgauge_consumer_topic_lag_records", consumer=group)
    assert 6 == reading.part("billing", partition=0)["lag_records"], "the other leader answered"
    assert 0 == reading.part("shipping", partition=0)["lag_records"], "measured zero"


async def test_a_group_whose_commits_fail_has_no_sum_and_is_said_to_fail(fake, reading):
    """Not 0 and not at most 0: unknown, counted as a failure, and the cluster is not up."""
    await reading.cycle()
    fake.fail("OffsetFetch", ErrorCode(-1), broker=1)
    await reading.cycle()

    failed = reading.consumer("billing")
    assert [None, None] == [part["lag_records"] for part in failed["partitions"]]
    assert (None, None, None) == (failed["lag_records"], failed["lag_seconds"], failed["lost_records"])
    assert ([], []) == (reading.samples(LAG, consumer="billing"), reading.samples(SUM, consumer="billing"))
    assert ("group", "billing", "UNKNOWN_SERVER_ERROR") in {
        (each["scope"], each["name"], each["error"]) for each in reading.cluster()["failures"]
    }
    assert [0.0] == reading.samples("streamgauge_cluster_up")
    assert sum(reading.samples("streamgauge_observe_failures_total")) > 0
    assert 3 == reading.consumer("shipping")["lag_records"]


async def test_no_commit_is_no_number_and_in_no_sum(fake, reading):
    """An assigned partition without a commit is unknown: not -1, not 0, not the whole log."""
    fake.group("young", {("orders", 0): 4}, members=[Member("c", {"orders": [0, 1]})])
    await reading.cycle()

    part, consumer = reading.part("young", partition=1), reading.consumer("young")
    assert (None, None) == (part["committed"], part["lag_records"])
    assert (None, 6) == (consumer["lag_records"], consumer["known_lag_records"])
    assert [] == reading.samples(LAG, consumer="young", partition="1")
    assert [] == reading.samples(SUM, consumer="young")
    assert not re.search(r"^streamgauge_consumer_\w+\{[^}]*\} +-", reading.metrics, re.MULTILINE), "nothing below zero"


async def test_a_commit_beyond_the_end_lowers_no_sum(fake, reading):
    """It is no lag of -88, and the group's other partitions are not reduced by it."""
    fake.commit("billing", "orders", 0, 98)
    await reading.cycle()

    assert reading.part("billing", partition=0)["lag_records"] is None
    assert (None, 6) == (
        reading.consumer("billing")["lag_records"],
        reading.consumer("billing")["known_lag_records"],
    )
    assert ["beyond_end"] == [each["kind"] for each in reading.cluster()["findings"]]


async def test_lost_records_do_not_hide_the_lag(fake, reading):
    """Retention passed the commit: what is left is lag, what is gone is told beside it."""
    fake.expire("orders", 0, 7)
    await reading.cycle()

    part = reading.part("billing", partition=0)
    assert (3, 3) == (part["lag_records"], part["lost_records"])
    assert part["lag_seconds"] > 0


async def test_a_drained_partition_knows_what_was_lost_and_costs_no_timeout(fake, reading):
    """All its records were deleted: nothing to read, 990 lost, and no request waits for a record."""
    fake.topic("drained", records=1000, leaders=[1])
    fake.expire("drained", 0, 1000)
    fake.group("late", {("drained", 0): 10}, coordinator=1)
    await reading.cycle()

    part = reading.part("late", "drained")
    assert (1000, 1000, 0, 990, 0) == (
        part["log_start"],
        part["log_end"],
        part["lag_records"],
        part["lost_records"],
        part["lag_seconds"],
    )
    assert reading.cluster()["up"]


# --- seconds ----------------------------------------------------------------------------------------


def age(reading: Reading, written_ms: int) -> float:
    """Return how old a record is at the time of the report."""
    return datetime.fromisoformat(reading.report["at"]).timestamp() - written_ms / 1000


def is_within(part: Mapping, true: float) -> bool:
    return abs(part["lag_seconds"] - true) <= part["lag_seconds_bound"] + 0.002


async def test_a_backlog_on_an_idle_topic_is_as_old_as_its_record(fake, reading):
    """Nobody writes any more: the age is the record's, not 0 and not unknown, and it grows."""
    await reading.cycle()
    first = reading.part("billing", partition=0)
    await reading.cycle()
    second = reading.part("billing", partition=0)

    assert is_within(second, age(reading, NOW_MS - 60_000 + 4 * 1000))
    assert 50 < first["lag_seconds"] <= second["lag_seconds"]
    assert 50 < reading.consumer("billing")["lag_seconds"]


async def test_a_burst_misleads_no_age(fake, reading):
    """A million records in an hour, ten days ago, then one a second: the rate says days where the truth is seconds."""
    burst = NOW_MS - 10 * 86_400_000
    fake.topic("bursty", leaders=[1], records=1_000_000, timestamp_ms=burst, step_ms=4)
    fake.append("bursty", 0, 600, timestamp_ms=NOW_MS - 600_000, step_ms=1000)
    fake.group("near", {("bursty", 0): 1_000_300}, coordinator=1)
    fake.group("far", {("bursty", 0): 500_000}, coordinator=1)
    await reading.cycle()

    near, far = reading.part("near", "bursty"), reading.part("far", "bursty")
    assert is_within(near, age(reading, NOW_MS - 600_000 + 300 * 1000))
    assert is_within(far, age(reading, burst + 500_000 * 4))
    assert near["lag_seconds_bound"] < 10


async def test_an_old_record_is_old_without_a_cap(fake, reading):
    """A group that starts over at a record of three years ago is three years behind, and that is the truth."""
    old = NOW_MS - 3 * 365 * 86_400_000
    fake.topic("ancient", leaders=[1], records=100, timestamp_ms=old, step_ms=86_400_000 * 10)
    fake.group("replay", {("ancient", 0): 0}, coordinator=1)
    await reading.cycle()

    assert is_within(reading.part("replay", "ancient"), age(reading, old))


async def test_flat_logs_and_commits_below_them_give_finite_numbers(fake, reading):
    """Cycles in which no end moves, a commit below the log start: no division by nothing, no infinity anywhere."""
    fake.expire("orders", 1, 8)
    for _ in range(4):
        await reading.cycle()

    part = reading.part("billing", partition=1)
    assert is_within(part, age(reading, NOW_MS - 60_000 + 8 * 1000))
    values = [float(value) for _, _, value in LINE.findall(reading.metrics)]
    assert values
    assert all(map(math.isfinite, values))


@pytest.mark.parametrize("broken", [1, 2], ids=["the first", "the last"])
async def test_the_oldest_age_is_unknown_whichever_part_is(fake, reading, broken):
    """The largest of some ages and an unknown one does not depend on their order: it is unknown."""
    await reading.cycle()
    fake.fail("ListOffsets", Hang(), broker=broken)
    await reading.cycle()

    assert reading.consumer("billing")["lag_seconds"] is None
    assert [] == reading.samples("streamgauge_consumer_max_lag_seconds", consumer="billing")


# --- one failure hides nothing else -----------------------------------------------------------------


async def test_a_cluster_does_not_vouch_for_another(fake):
    """Two clusters with the same names: each has its own numbers and ``up``; one away leaves the other alone."""
    async with FakeCluster(brokers=1) as second:
        second.topic("orders", partitions=2, records=30)
        second.group("billing", {("orders", 0): 1})
        reading = Reading({"one": fake.bootstrap, "two": second.bootstrap})
        try:
            await reading.cycle()
            both = [reading.consumer("billing", name)["lag_records"] for name in ("one", "two")]
            second.stop(1)
            await reading.cycle()
            away = [reading.consumer("billing", name)["lag_records"] for name in ("one", "two")]
            up = [reading.samples("streamgauge_cluster_up", cluster=name) for name in ("one", "two")]
        finally:
            await reading.close()

    assert [12, 29] == both
    assert [12, None] == away
    assert [[1.0], [0.0]] == up


async def test_a_tenth_of_the_groups_failing_leaves_the_rest(fake, reading):
    """12 groups of 123 refused: these are unknown with their reason, the others right, in every cycle."""
    bad = [f"bad-{number}" for number in range(12)]
    for name in (*bad, *(f"good-{number}" for number in range(111))):
        fake.group(name, {("orders", 0): 3}, coordinator=1)
    fake.fail("OffsetFetch", ErrorCode(30, bad))
    for _ in range(3):
        await reading.cycle()

        lags = {each["name"]: each["lag_records"] for each in reading.cluster()["consumers"]}
        assert [None] * 12 == [lags.get(name) for name in bad]
        assert [7] * 111 == [lags[f"good-{number}"] for number in range(111)]


async def test_no_series_comes_twice(fake, reading):
    """A group listed by both brokers is one consumer: a scraper would refuse the whole answer otherwise."""
    fake.groups["billing"].listed_by = {1, 2}
    await reading.cycle()

    series = [(name, labels) for name, labels, _ in LINE.findall(reading.metrics)]
    assert len(set(series)) == len(series)
    assert [12.0] == reading.samples(SUM, consumer="billing")


# --- what goes and what stays -----------------------------------------------------------------------


async def test_what_was_deleted_leaves_no_series(fake, reading):
    """A topic, a group, one committed offset (OffsetDelete): gone in the next cycle, nothing frozen."""
    fake.topic("doomed", records=5, leaders=[1])
    fake.group("on-doomed", {("doomed", 0): 2, ("orders", 0): 2}, coordinator=1)
    await reading.cycle()
    shown = reading.metrics.count('topic="doomed"')
    fake.delete_topic("doomed")
    fake.delete_group("shipping")
    fake.groups["billing"].commits["orders"].offset[1] = -1
    for _ in range(2):  # between the deletion and the next map it is unknown
        await reading.cycle()

    assert shown
    assert 'topic="doomed"' not in reading.metrics
    assert 'consumer="shipping"' not in reading.metrics
    assert [6.0] == reading.samples(LAG, consumer="billing")


async def test_a_consumer_that_died_keeps_its_lag_and_it_grows(fake, reading):
    """Exactly when it is needed: no members left, records still coming."""
    fake.group("crashed", {("orders", 0): 4}, members=[Member("c", {"orders": [0]})], coordinator=1)
    await reading.cycle()
    fake.groups["crashed"].members.clear()
    fake.groups["crashed"].state = "Empty"
    seen = []
    for _ in range(3):
        fake.append("orders", 0, 5, timestamp_ms=NOW_MS)
        await reading.cycle()
        seen.append((reading.consumer("crashed")["lag_records"], reading.consumer("crashed")["health"]))

    assert [(11, "stopped"), (16, "stopped"), (21, "stopped")] == seen


async def test_a_dip_in_the_lag_of_a_stopped_consumer_changes_nothing(fake, reading):
    """Retention or truncation lets the lag fall once; a window of samples would call that progress."""
    await reading.cycle()
    before = reading.consumer("billing")["health"]
    fake.expire("orders", 0, 6)
    await reading.cycle()

    assert ["stopped", "stopped"] == [before, reading.consumer("billing")["health"]]
    assert 10 == reading.consumer("billing")["lag_records"]


async def test_what_a_live_group_committed_elsewhere_is_shown_too(fake, reading):
    """Members present: the partitions they are assigned and those the group has commits on, both."""
    fake.topic("other", records=9, leaders=[2])
    fake.group("mixed", {("other", 0): 2, ("orders", 0): 4}, members=[Member("c", {"orders": [0]})], coordinator=1)
    await reading.cycle()

    assert 6 == reading.part("mixed", "orders")["lag_records"]
    assert 7 == reading.part("mixed", "other")["lag_records"]


async def test_client_ids_that_change_make_no_series(fake, reading):
    """Twenty restarts of a member leave as many series as one."""
    counts = set()
    for number in range(20):
        member = Member(f"client-{number}", {"orders": [0]})
        fake.group(
            "restarts", {("orders", 0): 4}, members=[member], coordinator=1, state=("Stable", "Empty")[number % 2]
        )
        await reading.cycle()
        counts.add(len(reading.samples(LAG)))
        assert f"client-{number}" not in reading.metrics

    assert {5} == counts


@pytest.mark.parametrize("size", [126, 127, 128, 16_383, 16_384])
async def test_metadata_at_every_length_of_a_length(fake, reading, size):
    """A compact length takes a second byte from 127 on, and a third one later: no commit is lost over that."""
    fake.commit("billing", "orders", 0, 5, metadata="m" * size)
    await reading.cycle()

    assert [5, 4] == [part["committed"] for part in reading.consumer("billing")["partitions"]]


async def test_an_empty_partition_keeps_nothing_from_being_ready(fake):
    """A cluster whose topics hold no record, and one that holds no topic, are read in the first cycle."""
    async with FakeCluster(brokers=1) as bare:
        for cluster in (fake, bare):
            cluster.topics.clear()
        fake.topic("empty", partitions=3)
        reading = Reading({"empty": fake.bootstrap, "bare": bare.bootstrap})
        try:
            await reading.cycle()
        finally:
            await reading.close()

    assert [1.0, 1.0] == reading.samples("streamgauge_cluster_up")


# --- what it costs ----------------------------------------------------------------------------------


async def test_no_record_is_ever_read(fake, reading):
    """Ages of a thousand lagging partitions come from look-ups: nothing is fetched and nobody joins a group."""
    fake.topic("wide", partitions=1000, records=100, timestamp_ms=NOW_MS - 500_000, step_ms=5000)
    fake.group("behind", {("wide", p): p % 100 for p in range(1000)}, coordinator=1)
    for _ in range(10):  # a cycle may run out of time for look-ups on a busy machine; the next goes on
        await reading.cycle()
        ages = [part["lag_seconds"] for part in reading.consumer("behind")["partitions"]]
        if None not in ages:
            break

    assert {seen.api for seen in fake.journal} <= READS_NO_RECORD
    assert None not in ages


async def test_groups_are_described_together(fake, reading):
    """Six hundred live groups of one coordinator are a handful of requests, not six hundred one after the other."""
    for number in range(600):
        fake.group(f"live-{number}", {("orders", 0): 4}, members=[Member("c", {"orders": [0]})], coordinator=1)
    await reading.cycle()

    assert 0 < fake.count("DescribeGroups") <= 3
    assert 1 == reading.consumer("live-599")["members"]


async def test_a_scrape_asks_the_brokers_nothing(fake):
    """Ten scrapers cost Kafka what none costs."""
    settings = Settings(clusters=[{"bootstrap_servers": fake.bootstrap}], http={"port": 0})
    monitor = Monitor(settings, budget=STEADY)
    publisher = Publisher(monitor)
    address = await publisher.start()
    import aiohttp

    try:
        await monitor.clusters[0].cycle()
        monitor.clusters[0].tried = True
        await publisher.publish()
        asked = len(fake.journal)
        async with aiohttp.ClientSession() as http:
            for _ in range(10):
                async with http.get(address + "metrics") as answer:
                    assert 200 == answer.status
                    assert SUM in await answer.text()
    finally:
        await publisher.stop()
        await monitor.close()

    assert asked == len(fake.journal)


async def test_thousands_of_groups_that_came_and_went_leave_nothing(fake, reading):
    """Every console consumer is a new group: what is kept does not grow with those that are gone."""

    async def rounds(count: int, first: int) -> int:
        for turn in range(first, first + count):
            for number in range(100):
                fake.group(f"throw-away-{turn}-{number}", {("orders", 0): 4}, coordinator=1)
            await reading.cycle()
            for number in range(100):
                fake.delete_group(f"throw-away-{turn}-{number}")
            await reading.cycle()
            fake.journal.clear()
        gc.collect()
        return len(gc.get_objects())

    warm = await rounds(5, 0)
    later = await rounds(20, 5)

    assert {"billing", "shipping"} == {each["name"] for each in reading.cluster()["consumers"]}
    assert later < warm + 2000, "two thousand groups later"


async def test_work_grows_in_line_with_groups_and_partitions(fake):
    """Twice the groups on twice the partitions are about twice the calls: nothing is joined each with each."""

    async def calls(size: int) -> int:
        fake.topic("many", partitions=size, records=5)
        fake.groups.clear()
        for number in range(size):
            fake.group(f"group-{number}", {("many", (number + each) % size): 3 for each in range(4)}, coordinator=1)
        reading = Reading({"default": fake.bootstrap}, lookups_per_cycle=0)
        counted = 0

        def count(frame, event, _argument) -> None:
            nonlocal counted
            counted += (
                event == "call"
                and "/monitor/" in frame.f_code.co_filename
                and "sandbox" not in frame.f_code.co_filename
            )

        try:
            await reading.cycle()
            fake.append("many", 0, 1, timestamp_ms=NOW_MS)
            sys.setprofile(count)
            await reading.cycle()
        finally:
            sys.setprofile(None)
            await reading.close()
        return counted

    small, large = await calls(300), await calls(600)

    assert 300 < small, "it was counted"
    assert large < 2.3 * small


@pytest.mark.parametrize(
    ("pattern", "name", "is_taken"),
    [
        pytest.param("a.b", "a.b", True, id="itself"),
        pytest.param("a.b", "aXb", False, id="a dot is a dot"),
        pytest.param("a.b", "xa.b", False, id="not inside"),
        pytest.param("a.b", "a.b.c", False, id="not a beginning"),
        pytest.param("a.*", "a.b", True, id="a star is anything"),
        pytest.param("a+b", "a+b", True, id="a plus is a plus"),
        pytest.param("a+b", "aab", False, id="and no repetition"),
    ],
)
def test_a_literal_name_matches_itself_alone(pattern, name, is_taken):
    """Names are no regular expressions, in filters and in objectives."""
    objectives = Objectives(consumers=[{"consumer": pattern, "seconds": 1}])

    assert is_taken is Filter(include=(pattern,)).takes(name)
    assert is_taken is (objectives.seconds_for(name) == 1)


async def test_the_service_has_no_librdkafka_in_its_process():
    """Its AdminClient aborted the interpreter when a broker hung: no ``except`` catches that."""
    code = "import sys, monitor.service, monitor.observe.kafka.source; print('confluent_kafka' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()

    assert "False" == out.decode().strip()


# --- the table --------------------------------------------------------------------------------------

NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@functools.cache
def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_hole_has_a_test_that_exists():
    """Holes 1 to 25, and rows of requests and of failures: each names at least one test, and all named are there."""
    table = (TESTS / "chaos" / "HOLES.md").read_text()
    rows = {
        cells[1].strip(): NAMED.findall(line)
        for line in table.splitlines()
        if len(cells := line.split("|")) > 3 and re.fullmatch(r"(H|R|F)\d+", cells[1].strip())
    }

    assert {f"H{number}" for number in range(1, 26)} <= rows.keys()
    missing = {
        (hole, f"{file}::{name}")
        for hole, named in rows.items()
        for file, name in named or [("nothing", "nothing")]
        if not (TESTS / file).exists() or name not in functions_of(TESTS / file)
    }
    assert set() == missing
