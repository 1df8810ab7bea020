"""The whole chain, all of it real: a slow consumer, the monitor, Prometheus, Alertmanager, and who is told at the end.

Rules and routes are the rendered ones with their durations divided (``alerts.haste``), so that what takes a quarter of
an hour takes seconds. What alerts say is held against what the loads counted themselves.
"""

import asyncio
import re
import time
from bisect import bisect_left
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import aiohttp
import pytest
import yaml
from aiohttp import web
from prometheus_servers import alertmanager, asked, needs_alertmanager, needs_prometheus, prometheus

from alerts import alertmanager as routes
from alerts.prometheus import render
from alerts.rules import ALL_RULES
from monitor import service
from monitor.model import TopicPartition
from monitor.sandbox.loads import Consumer, Producer, create_topics, lag_records
from monitor.settings import Settings

pytestmark = [pytest.mark.integration, needs_prometheus, needs_alertmanager]

OVER_OBJECTIVE, BURN = "StreamgaugeConsumerOverObjective", "StreamgaugeConsumerBudgetBurnFast"
WITHOUT_BURN = [rule for rule in ALL_RULES if "Burn" not in rule.name]
"""A page about a consumer mutes warnings about it, their ends as well: the short test is about a warning."""

PARTITIONS = 3
RATE = 60.0  # records a second
SLOW, QUICK = 6.0, 100_000.0  # the same, of the consumer
PATIENCE_SECONDS = 120.0


async def until(question, seconds=PATIENCE_SECONDS, otherwise=""):
    """Wait until a question is answered with something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{otherwise} after {seconds:g} s"
        await asyncio.sleep(0.1)
    return answer


# --- what is true ------------------------------------------------------------------------------------


class Pipeline:
    """A producer and a consumer, and what they know of each other at every moment."""

    def __init__(self, bootstrap, name):
        self.name = name
        self.producer = Producer(bootstrap, name, RATE, PARTITIONS)
        self.consumer = Consumer(bootstrap, f"{name}-readers", name, QUICK)
        self.truth = []

    @asynccontextmanager
    async def running(self, replicas):
        await create_topics(self.consumer.bootstrap, {self.name: PARTITIONS}, replicas=replicas)
        async with self.producer, self.consumer:
            watching = asyncio.create_task(self._watch())
            try:
                await until(lambda: self.truth, otherwise="nothing was committed")
                yield self
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self):
        while True:
            lags, ages = lag_records(self.producer, self.consumer), self._ages()
            if None not in lags:
                self.truth.append((time.time(), sum(lags), max(ages)))
            await asyncio.sleep(0.05)

    def _ages(self):
        for partition in range(PARTITIONS):
            done = self.consumer.committed.get(TopicPartition(self.name, partition), 0)
            written = self.producer.record_time(partition, done)
            yield 0.0 if written is None else time.time() - written

    def between(self, begin, end):
        """The least and the most records and seconds that waited at any moment between two, and just beside them."""
        moments = [at for at, _, _ in self.truth]
        those = self.truth[max(0, bisect_left(moments, begin) - 1) : bisect_left(moments, end) + 1]
        return [(min(each), max(each)) for each in zip(*((lag, age) for _, lag, age in those), strict=True)]


# --- the chain ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """One alert of a notification, and when it came."""

    at: float
    place: str
    status: str
    labels: dict
    annotations: dict
    starts_at: float

    @property
    def name(self):
        return self.labels["alertname"]


class Chain:
    """A monitor that can be restarted, a scrape that can be lost, Prometheus, Alertmanager, and who is told."""

    def __init__(self, bootstrap, pipelines, objective, faster):
        self.faster = faster
        self.told = []
        self.scrapes = self.lost = self.to_lose = 0
        self._settings = Settings.model_validate(
            {
                "clusters": [
                    {
                        "bootstrap_servers": bootstrap,
                        "interval_seconds": 0.5,
                        "groups": {"include": [f"{each}-readers" for each in pipelines]},
                        "topics": {"include": [*pipelines]},
                    }
                ],
                "objectives": {"default_seconds": objective},
                "http": {"port": 0},
            }
        )

    @asynccontextmanager
    async def running(self, folder, rules):
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._scrape),
                web.post("/alerts", self._receive("alerts")),
                web.post("/heartbeat", self._receive("heartbeat")),
            ]
        )
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            await self.start_monitor()
            with ExitStack() as servers:
                self.prometheus = await asyncio.to_thread(self._start, servers, folder, port, rules)
                async with aiohttp.ClientSession() as self._session:
                    yield self
        finally:
            await self.stop_monitor()
            await runner.cleanup()

    def _start(self, servers, folder, port, rules):
        here = f"http://127.0.0.1:{port}"
        urls = {"STREAMGAUGE_WEBHOOK_URL": f"{here}/alerts", "STREAMGAUGE_HEARTBEAT_URL": f"{here}/heartbeat"}
        told_by = servers.enter_context(alertmanager(folder, routes.filled(routes.render(faster=self.faster), urls)))
        (folder / "streamgauge-rules.yml").write_text(render(rules, faster=self.faster))
        config = {
            "global": {"scrape_interval": f"{60_000 // self.faster}ms", "evaluation_interval": "500ms"},
            "rule_files": ["streamgauge-rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [told_by]}]}]},
            "scrape_configs": [{"job_name": "streamgauge", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
        }
        config["scrape_configs"][0]["scrape_timeout"] = config["global"]["scrape_interval"]
        # What fires before Prometheus knows of its Alertmanager, 5 s after its start, is only told when it is resent.
        options = ["--rules.alert.resend-delay=5s"]
        return servers.enter_context(prometheus(folder, *options, config=yaml.safe_dump(config)))

    # --- the monitor ---------------------------------------------------------------------------------

    async def start_monitor(self):
        addresses, self._stop = [], asyncio.Event()
        self._serving = asyncio.create_task(
            service.serve(self._settings, on_ready=addresses.append, stop=self._stop), name="monitor"
        )
        await until(lambda: addresses or self._serving.done(), otherwise="the monitor does not listen")
        (self._address,) = addresses

    async def stop_monitor(self):
        self._address = None
        self._stop.set()
        await self._serving

    async def _scrape(self, _request):
        self.scrapes += 1
        if self.to_lose or self._address is None:
            self.to_lose = max(0, self.to_lose - 1)
            self.lost += 1
            raise web.HTTPBadGateway
        async with aiohttp.ClientSession() as session, session.get(f"{self._address}metrics") as answer:
            self.lost += answer.status != 200
            kind = answer.headers["Content-Type"]
            return web.Response(body=await answer.read(), status=answer.status, headers={"Content-Type": kind})

    async def scraped(self, times=2):
        """Wait until so many more scrapes in a row were answered."""
        begun, lost = self.scrapes, self.lost
        while self.scrapes < begun + times:
            await asyncio.sleep(0.1)
            if self.lost != lost:
                begun, lost = self.scrapes, self.lost

    # --- who is told ---------------------------------------------------------------------------------

    def _receive(self, place):
        async def receive(request):
            body, at = await request.json(), time.time()
            self.told += [
                Told(at, place, each["status"], each["labels"], each["annotations"], moment(each["startsAt"]))
                for each in body["alerts"]
            ]
            return web.Response()

        return receive

    def of(self, name, status):
        return [each for each in self.told if (each.name, each.status) == (name, status)]

    async def first(self, name, status):
        """Wait for a notification and return the first one."""
        return (await until(lambda: self.of(name, status), otherwise=f"nobody was told that {name} is {status}"))[0]

    def is_firing(self, name):
        rules = [rule for group in asked(self.prometheus, "/api/v1/rules")["groups"] for rule in group["rules"]]
        return any(rule["name"] == name and rule["state"] == "firing" for rule in rules)

    def fired(self, name, begin, end):
        """The moments between two at which Prometheus had an alert firing, once a second."""
        query = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
        found = asked(self.prometheus, "/api/v1/query_range", query=query, start=begin, end=end, step=1)["result"]
        return sorted(float(at) for each in found for at, _ in each["values"])


def moment(text):
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()


SAID = re.compile(
    r"The group (?P<who>\S+) on cluster default is at least (?P<late>[\dms .]+) late; "
    r"its objective is (?P<allowed>\S+)\. Records known to wait: (?P<records>\d+)\."
)
UNITS = {"m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(text):
    """A duration as Prometheus shows it: 1m 5s, 2.5s, 300ms."""
    return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|m|s)", text))


def numbers_are_true(told, pipeline, faster):
    """What an alert says was true at some moment that it can have been read.

    Between the oldest sample that counted when it fired and its arrival. The age is told less its bound: it is never
    too much, but for the last of the four digits that Prometheus shows.
    """
    said = SAID.fullmatch(told.annotations["description"])
    assert said, told.annotations["description"]
    oldest = told.starts_at - 180 / faster - 1.0
    (fewest, most), (_, oldest_age) = pipeline.between(oldest, told.at)
    assert f"{pipeline.name}-readers" == said["who"]
    assert fewest <= int(said["records"]) <= most
    assert seconds(said["allowed"]) < seconds(said["late"]) <= oldest_age + 0.01
    return said


# --- the tests ---------------------------------------------------------------------------------------


async def test_a_slow_consumer_is_told_and_told_to_be_over(kafka, tmp_path):
    """Late for as long as the rule waits: somebody is told, with the numbers. Quick again: told to be over."""
    faster, objective, name = 100, 1.5, "chain"
    chain = Chain(kafka.bootstrap, [name], objective, faster)
    async with Pipeline(kafka.bootstrap, name).running(1) as pipeline, chain.running(tmp_path, WITHOUT_BURN):
        pipeline.consumer.slow_down(SLOW)
        firing = await chain.first(OVER_OBJECTIVE, "firing")
        said = numbers_are_true(firing, pipeline, faster)
        pipeline.consumer.slow_down(QUICK)
        resolved = await chain.first(OVER_OBJECTIVE, "resolved")
        watchdog = await chain.first("StreamgaugeWatchdog", "firing")

    assert {
        "alertname": OVER_OBJECTIVE, "severity": "warning", "cluster": "default", "kind": "group",
        "consumer": f"{name}-readers",
    } == firing.labels == resolved.labels  # fmt: skip
    assert ("1.5s", "docs/runbooks/StreamgaugeConsumerOverObjective.md") == (
        said["allowed"],
        firing.annotations["runbook"],
    )
    assert firing.starts_at == resolved.starts_at
    assert ("alerts", "heartbeat") == (firing.place, watchdog.place)


@pytest.mark.soak
async def test_what_happens_meanwhile_is_no_alert_and_no_end(kafka_factory, tmp_path):
    """The monitor restarted, a broker killed, a scrape lost: the one alert goes on, the one page is the true one.

    The page comes for the budget of the month that is used up, and for nothing else. Of the consumer beside, which is
    in time, nobody is told anything.
    """
    faster, objective = 10, 3.0
    kafka = await kafka_factory(nodes=3)
    chain = Chain(kafka.bootstrap, ["late", "fine"], objective, faster)
    late, fine = Pipeline(kafka.bootstrap, "late"), Pipeline(kafka.bootstrap, "fine")
    async with late.running(3), fine.running(3), chain.running(tmp_path, ALL_RULES):
        late.consumer.slow_down(SLOW)
        firing = await chain.first(OVER_OBJECTIVE, "firing")
        numbers_are_true(firing, late, faster)

        chain.to_lose = 1
        await until(lambda: chain.lost == 1, otherwise="no scrape was lost")
        await chain.scraped()
        await chain.stop_monitor()
        await chain.start_monitor()
        await chain.scraped()
        kafka.nodes[0].kill()
        await chain.scraped(5)
        page = await chain.first(BURN, "firing")
        recovered = time.time()
        so_far = [*chain.told]

        late.consumer.slow_down(QUICK)
        over = await chain.first(BURN, "resolved")
        await until(lambda: not chain.is_firing(OVER_OBJECTIVE), otherwise="the warning does not end")
        fired = chain.fired(OVER_OBJECTIVE, firing.starts_at + 1, recovered)

    assert [] == [each for each in so_far if each.status == "resolved"]
    assert {BURN} == {each.name for each in chain.told if each.labels["severity"] == "critical"}
    assert {"late-readers"} == {each.labels["consumer"] for each in chain.told if "consumer" in each.labels}
    assert page.labels == over.labels
    assert int(recovered - firing.starts_at - 1) <= len(fired), "the alert was not firing all the time"
    assert [] == [(left, right) for left, right in pairwise(fired) if right - left > 1]
