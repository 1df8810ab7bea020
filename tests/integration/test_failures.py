"""What happens to brokers and groups in real life, scraped as Prometheus would: every row of the peers' failure tables.

The truth is what this test produced, committed and deleted through another client; the monitor is the real service.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict

import aiohttp
import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from prometheus_client.parser import text_string_to_metric_families

from monitor.sandbox.kafka import KafkaSandbox
from monitor.service import serve
from monitor.settings import Settings

pytestmark = pytest.mark.integration

SCRAPE_TIMEOUT = 10  # Prometheus' default scrape_timeout
PARTITIONS = 10
GROUPS = 30
MOVING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
LAG = "streamgauge_consumer_lag_records"


class Truth:
    """Fills a broker through confluent-kafka and remembers what it did."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
        self.ends: dict[tuple[str, int], int] = defaultdict(int)

    def topic(self, name: str, records: int = 0) -> None:
        for created in self.admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
            created.result(30)
        deadline = time.monotonic() + 30
        while len(self.admin.list_topics(name, timeout=10).topics[name].partitions) < PARTITIONS:
            assert time.monotonic() < deadline, f"{name} was not created"
        if records:
            self.produce(name, records)

    def produce(self, topic: str, records: int) -> None:
        for partition in range(PARTITIONS):
            for _ in range(records):
                self.producer.produce(topic, b"x", partition=partition)
            self.ends[topic, partition] += records
        assert 0 == self.producer.flush(30)

    def commit(self, group: str, offsets: dict[tuple[str, int], int]):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        wanted = [TopicPartition(t, p, o) for (t, p), o in offsets.items()]
        deadline = time.monotonic() + 60
        try:
            while True:
                try:
                    return consumer.commit(offsets=wanted, asynchronous=False)
                except KafkaException as exc:
                    # A young __consumer_offsets moves about for some seconds.
                    if exc.args[0].code() not in MOVING or time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
        finally:
            consumer.close()

    def expected_lag(self, commits: dict[str, dict[tuple[str, int], int]]) -> dict[tuple[str, str, str], int]:
        return {
            (group, topic, str(partition)): self.ends[topic, partition] - offset
            for group, offsets in commits.items()
            for (topic, partition), offset in offsets.items()
        }


class Scraper:
    """Scrapes the running service the way Prometheus does."""

    def __init__(self, base: str, http: aiohttp.ClientSession) -> None:
        self.base = base
        self.http = http

    async def scrape(self) -> tuple[int, dict]:
        async with self.http.get(self.base + "metrics") as answer:
            text = await answer.text()
            samples = defaultdict(dict)
            if answer.status == 200:
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
            return answer.status, samples

    async def report(self) -> dict:
        async with self.http.get(self.base + "api/v1/report") as answer:
            return (await answer.json())["clusters"][0]

    async def until(self, holds, seconds: float = 60.0):
        """Scrape until ``holds(status, samples)``; return what was seen last and everything seen on the way."""
        seen = []
        deadline = time.monotonic() + seconds
        while True:
            status, samples = await self.scrape()
            seen.append((status, samples))
            if holds(status, samples):
                return samples, seen
            assert time.monotonic() < deadline, f"not in {seconds} s; last: {status} {dict(samples.get(LAG, {}))}"
            await asyncio.sleep(0.2)


def lag_of(samples, groups) -> dict[tuple[str, str, str], int]:
    """Return the lag of these groups by group, topic and partition."""
    found = {}
    for labels, value in samples[LAG].items():
        named = dict(labels)
        if named["consumer"] in groups:
            found[named["consumer"], named["topic"], named["partition"]] = int(value)
    return found


def is_up(samples) -> bool:
    return 1.0 in [v for k, v in samples["streamgauge_cluster_up"].items() if dict(k)["source"] == "kafka"]


def is_down(samples) -> bool:
    return 0.0 in [v for k, v in samples["streamgauge_cluster_up"].items() if dict(k)["source"] == "kafka"]


def value(samples, name, consumer):
    return next((v for k, v in samples[name].items() if dict(k).get("consumer") == consumer), None)


@contextlib.asynccontextmanager
async def running(bootstrap: str, **cluster):
    settings = Settings(
        clusters=[
            {"bootstrap_servers": bootstrap, "interval_seconds": 0.5, "timeout_seconds": 2.0, **cluster},
        ],
        http={"port": 0},
        metrics={"lost_records": True, "committed_offset": True},
    )
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, on_ready=address.set_result, stop=stop))
    try:
        done, _ = await asyncio.wait({serving, address}, return_when=asyncio.FIRST_COMPLETED)
        assert address in done, serving.exception()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SCRAPE_TIMEOUT)) as http:
            yield Scraper(address.result(), http)
    finally:
        stop.set()
        await serving


@pytest.fixture(scope="module")
def cluster():
    """A broker of this module's own, with 30 simple groups on one topic; each test adds groups and topics of its own.

    A broker that was killed is let in when its former session has timed out.
    """
    sandbox = KafkaSandbox(
        properties={"broker.session.timeout.ms": "2500", "broker.heartbeat.interval.ms": "500"},
    )
    asyncio.run(sandbox.start())
    truth = Truth(sandbox.bootstrap)
    commits = {}
    truth.topic("orders", records=8)
    for number in range(GROUPS):
        offsets = {("orders", p): (p + number) % 9 for p in range(PARTITIONS)}
        commits[f"group-{number:02}"] = offsets
        truth.commit(f"group-{number:02}", offsets)
    yield sandbox, truth, commits
    asyncio.run(sandbox.stop())


async def outage_and_return(scraper, truth, commits, begin, end) -> None:
    """Nothing hangs, nothing known stays while the broker is away, and the first answer afterwards is complete."""
    expected = truth.expected_lag(commits)
    await scraper.until(lambda _, s: is_up(s) and lag_of(s, commits) == expected)

    begin()
    samples, seen = await scraper.until(lambda _, s: is_down(s))
    assert {200} == {status for status, _ in seen}, "while a broker is away /metrics answers at once"
    for _ in range(10):
        _, samples = await scraper.scrape()
        assert is_down(samples)
        assert {} == samples[LAG], "what could not be read is absent"
        assert {} == samples["streamgauge_consumer_sum_lag_records"], "totals that miss a part are absent"
        assert value(samples, "streamgauge_consumer_health", "group-00") is not None, "unknown is not gone"
        await asyncio.sleep(0.2)

    await end()
    samples, seen = await scraper.until(lambda _, s: is_up(s), 120)
    for status, each in seen:
        assert 200 == status
        if is_up(each):
            assert expected == lag_of(each, commits), "the first answer after the outage is complete"
        else:
            partial = lag_of(each, commits)
            assert partial.items() <= expected.items(), "what is known on the way is right"
    known = {dict(k)["consumer"] for k in samples["streamgauge_consumer_sum_lag_records"]}
    assert commits.keys() <= known


async def test_a_broker_that_hangs(cluster):
    """SIGSTOP, then SIGCONT."""
    sandbox, truth, commits = cluster

    async def resume() -> None:
        sandbox.nodes[0].resume()

    async with running(sandbox.bootstrap) as scraper:
        await outage_and_return(scraper, truth, commits, sandbox.nodes[0].pause, resume)


async def test_a_broker_that_dies_and_comes_back(cluster):
    """SIGKILL, then a start on the same data."""
    sandbox, truth, commits = cluster
    async with running(sandbox.bootstrap) as scraper:
        await outage_and_return(scraper, truth, commits, sandbox.nodes[0].kill, sandbox.nodes[0].start)


async def test_what_happens_to_groups_and_topics(cluster):
    """Deleted topics and groups, deleted records, commits beyond the end and on some partitions, live members."""
    sandbox, truth, commits = cluster
    groups = {*commits, "on-doomed", "doomed-group", "loses", "beyond", "partial"}
    expected = dict(truth.expected_lag(commits))

    def prepare() -> None:
        truth.topic("doomed", records=5)
        truth.commit("on-doomed", {("doomed", p): 2 for p in range(PARTITIONS)})
        truth.commit("doomed-group", {("orders", p): 1 for p in range(PARTITIONS)})
        truth.topic("cut", records=8)
        truth.commit("loses", {("cut", p): 2 for p in range(PARTITIONS)})
        truth.commit("beyond", {("orders", 0): 108, **{("orders", p): 3 for p in range(1, PARTITIONS)}})
        truth.commit("partial", {("orders", p): 4 for p in range(3)})

    await asyncio.to_thread(prepare)
    async with running(sandbox.bootstrap) as scraper:
        expected |= {("on-doomed", "doomed", str(p)): 3 for p in range(PARTITIONS)}
        expected |= {("doomed-group", "orders", str(p)): 7 for p in range(PARTITIONS)}
        expected |= {("loses", "cut", str(p)): 6 for p in range(PARTITIONS)}
        expected |= {("beyond", "orders", str(p)): 5 for p in range(1, PARTITIONS)}
        expected |= {("partial", "orders", str(p)): 4 for p in range(3)}
        samples, _ = await scraper.until(lambda _, s: is_up(s) and lag_of(s, groups) == expected)
        assert 12 == value(samples, "streamgauge_consumer_sum_lag_records", "partial")
        assert value(samples, "streamgauge_consumer_sum_lag_records", "beyond") is None
        assert 45 == value(samples, "streamgauge_consumer_known_lag_records", "beyond")
        findings = [f for f in (await scraper.report())["findings"] if f["kind"] == "beyond_end"]
        assert ["orders"] == [f["topic"] for f in findings]
        assert "108" in findings[0]["text"]

        # Seven partitions lose everything below offset 6: four of their records had not been read.
        requests = [TopicPartition("cut", p, 6) for p in range(7)]
        for deleted in (await asyncio.to_thread(truth.admin.delete_records, requests)).values():
            await asyncio.to_thread(deleted.result, 30)
        expected |= {("loses", "cut", str(p)): 2 for p in range(7)}
        samples, _ = await scraper.until(lambda _, s: lag_of(s, groups) == expected)
        assert 28 == value(samples, "streamgauge_consumer_sum_lost_records", "loses")
        assert 7 * 2 + 3 * 6 == value(samples, "streamgauge_consumer_sum_lag_records", "loses")

        for deleted in (await asyncio.to_thread(truth.admin.delete_consumer_groups, ["doomed-group"])).values():
            await asyncio.to_thread(deleted.result, 30)
        expected = {key: lag for key, lag in expected.items() if key[0] != "doomed-group"}
        samples, _ = await scraper.until(lambda _, s: lag_of(s, groups) == expected)
        assert value(samples, "streamgauge_consumer_health", "doomed-group") is None, "no ghost"

        for deleted in (await asyncio.to_thread(truth.admin.delete_topics, ["doomed"])).values():
            await asyncio.to_thread(deleted.result, 30)
        expected = {key: lag for key, lag in expected.items() if key[0] != "on-doomed"}
        samples, seen = await scraper.until(lambda _, s: is_up(s) and lag_of(s, groups) == expected)
        assert {200} == {status for status, _ in seen}
        for _, each in seen:
            rest = {key: lag for key, lag in lag_of(each, groups).items() if key[0] != "on-doomed"}
            assert rest == expected, "the other groups never miss a number"
        await scraper.until(lambda _, s: value(s, "streamgauge_consumer_sum_lag_records", "on-doomed") is None)
        assert not [k for k in samples["streamgauge_partition_log_end_offset"] if dict(k)["topic"] == "doomed"]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_live_group(cluster, protocol):
    """A group with one member, of either protocol: lag, state, protocol, members and the owner of each partition."""
    sandbox, _, _ = cluster
    name = f"real-{protocol}"
    consumer = Consumer({
        "bootstrap.servers": sandbox.bootstrap, "group.id": name, "client.id": f"client-{protocol}",
        "group.protocol": protocol, "auto.offset.reset": "earliest", "enable.auto.commit": False,
    })  # fmt: skip

    def read() -> dict[int, int]:
        consumer.subscribe(["orders"])
        read_to: dict[int, int] = {}
        deadline = time.monotonic() + 60
        while sum(read_to.values()) < 50:
            assert time.monotonic() < deadline
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                read_to[message.partition()] = message.offset() + 1
                consumer.commit(message, asynchronous=False)
        return read_to

    try:
        committed = await asyncio.to_thread(read)
        async with running(sandbox.bootstrap) as scraper:
            await scraper.until(lambda _, s: value(s, "streamgauge_consumer_members", name) == 1)
            report = await scraper.report()
            found = next(c for c in report["consumers"] if c["name"] == name)
    finally:
        await asyncio.to_thread(consumer.close)

    assert ("Stable", protocol, 1) == (found["state"], found["protocol"], found["members"])
    for position in found["partitions"]:
        offset = committed.get(position["partition"])
        assert f"client-{protocol}" == position["member"]
        assert offset == position["committed"], "an assigned partition without a commit is null"
        assert (None if offset is None else 8 - offset) == position["lag_records"]


async def test_a_group_and_its_lag_as_another_client_sees_them(cluster):
    """Every committed offset and log end equals what confluent-kafka reads, group by group."""
    sandbox, truth, _ = cluster

    def theirs(group: str) -> dict[tuple[str, int], int]:
        asked = [ConsumerGroupTopicPartitions(group)]
        answer = next(iter(truth.admin.list_consumer_group_offsets(asked).values())).result(30)
        return {(tp.topic, tp.partition): tp.offset for tp in answer.topic_partitions}

    async with running(sandbox.bootstrap) as scraper:
        await scraper.until(lambda _, s: is_up(s))
        report = await scraper.report()

    for consumer in report["consumers"]:
        ours = {(p["topic"], p["partition"]): p["committed"] for p in consumer["partitions"]}
        assert await asyncio.to_thread(theirs, consumer["name"]) == ours
