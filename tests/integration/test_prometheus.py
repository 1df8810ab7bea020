"""A real Prometheus scrapes the real exposition, evaluates the rendered rules and has the numbers of the overview.

A small pipeline (readers that are fine, late, stopped, unreadable; a Spark query) is played through the service's own
chain, one cycle a second; what is expected of it follows from the numbers it is played with.
"""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio
import yaml
from prometheus_api import scraping, until
from prometheus_servers import needs_prometheus
from reports import Pipeline, Reader, member, query, report_of
from snapshots import group

from alerts.prometheus import render
from alerts.rules import ALL_RULES, RECORDS
from dashboards.board import ALL
from dashboards.overview import OVERVIEW
from monitor.model import Failure, GroupFacts, Why
from monitor.publish.exposition import Exposition
from monitor.publish.http import HttpServer, Published
from monitor.settings import Metrics

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    needs_prometheus,
]

CYCLE_SECONDS = 1.0
LATE_WITH_ODD_NAME = "pay\"roll\\ 'a'\nüx"
VARIABLES = {"$__range": "5m", "$__rate_interval": "1m", "$cluster": ALL, "$kind": ALL, "$consumer": ALL}


def played():
    """Readers that are fine, late, stopped, without a commit and unreadable, and a Spark query that is quick enough."""
    return Pipeline(
        topics={"orders": (6, 20.0), "payments": (3, 5.5), "readings": (4, 25.0)},
        readers={
            "billing": Reader({"orders": 1}, 7),
            # 5,000 records at 5.5 a second: 909 seconds late, and the objective is 300.
            LATE_WITH_ODD_NAME: Reader({"payments": 1}, 5000),
            "nightly-report": Reader({"orders": 1}, 200, member("nightly-report", members=0, state="Empty")),
            "mailer": Reader({"payments": 1}, Why.NO_COMMIT),
            "secret": Reader({}, 0, GroupFacts(group("secret"), why=30)),
        },
        failures=(Failure("group", "secret", "GROUP_AUTHORIZATION_FAILED", "OffsetFetch"),),
        spark=(query("readings-average-5m", "readings", 4, trigger=10.0),),
        objective=300.0,
        interval=CYCLE_SECONDS,
        start=time.time(),
    )


@asynccontextmanager
async def monitor():
    """Reports of the pipeline, served as the service serves them; yields the port."""
    pipeline = played()
    exposition, latest = Exposition(Metrics()), []

    def publish():
        report = report_of(pipeline.report())
        latest[:] = [Published(report, exposition.render(report), True)]

    async def run():
        while True:
            publish()
            await asyncio.sleep(max(0.0, pipeline.start + pipeline.cycle * CYCLE_SECONDS - time.time()))

    server = HttpServer("127.0.0.1", 0, lambda: latest[0] if latest else None)
    _, port = await server.start()
    running = asyncio.create_task(run())
    try:
        yield port
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


def hastened(rules):
    """Return rendered rules without the intervals of their groups, the first of which is waited for.

    They are evaluated at the interval of the server then.
    """
    tree = yaml.safe_load(rules)
    for each in tree["groups"]:
        each.pop("interval", None)
    return yaml.safe_dump(tree)


def rule_files():
    """The rendered rules, and once more the same without any waiting (names end in Now)."""
    at_once = [replace(rule, name=f"{rule.name}Now", hold="0s", keep=None) for rule in ALL_RULES]
    return {"streamgauge-rules.yml": hastened(render()), "at-once.yml": hastened(render(at_once))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prometheus")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(folder):
    """A Prometheus that has scraped the monitor a few times."""
    async with monitor() as target, scraping(folder, rule_files(), target) as server:

        async def has_rates():
            return await server.query("count_over_time(streamgauge_cluster_up[1m]) > 4")

        await until(has_rates)
        yield server


def substituted(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


async def test_the_scrape_is_accepted(prometheus):
    """The target is up, and nothing about the answer was complained about."""
    (target,) = (await prometheus.get("/api/v1/targets"))["activeTargets"]

    assert ("up", "") == (target["health"], target["lastError"])


async def test_every_rule_is_evaluated_without_error(prometheus):
    """Each rule was evaluated and its texts could be made."""

    async def evaluated():
        rules = (await prometheus.rules()).values()
        return list(rules) if all(rule["health"] != "unknown" for rule in rules) else None

    rules = await until(evaluated)

    assert 2 * len(ALL_RULES) + len(RECORDS) == len(rules)
    assert [] == [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"]
    assert "error expanding" not in str(rules)


async def alerts_of(prometheus, name):
    return {each["labels"]["consumer"]: each for each in (await prometheus.rules())[name]["alerts"]}


async def test_a_late_consumer_is_pending_at_first(prometheus):
    """Over its objective, but not yet for five minutes; who is in time has no alert."""
    pending = await until(lambda: alerts_of(prometheus, "StreamgaugeConsumerOverObjective"))

    assert {LATE_WITH_ODD_NAME: "pending"} == {name: each["state"] for name, each in pending.items()}
    assert {"alertname", "severity", "cluster", "kind", "consumer"} == set(pending[LATE_WITH_ODD_NAME]["labels"])


async def test_a_late_consumer_fires_with_its_numbers(prometheus):
    """Its age, its objective and the records that wait, whatever characters its name is made of."""
    firing = (await until(lambda: alerts_of(prometheus, "StreamgaugeConsumerOverObjectiveNow")))[LATE_WITH_ODD_NAME]
    said = re.fullmatch(
        r"The group (.*) on cluster default is at least 15m (\d+)s late; its objective is 5m 0s\. "
        r"Records known to wait: 15000\.",
        firing["annotations"]["description"],
        re.DOTALL,
    )

    assert ("firing", "warning") == (firing["state"], firing["labels"]["severity"])
    assert said, firing["annotations"]["description"]
    assert said[1] == LATE_WITH_ODD_NAME
    assert 909 == pytest.approx(15 * 60 + int(said[2]), abs=2)


async def test_a_group_without_members_fires_alone(prometheus):
    """The one group that nobody reads for fires; one that cannot be read does not."""
    firing = await until(lambda: alerts_of(prometheus, "StreamgaugeConsumerStoppedNow"))

    assert {"nightly-report": "firing"} == {name: each["state"] for name, each in firing.items()}


async def test_what_is_fine_stays_silent(prometheus):
    """The cluster answers, the monitor is fresh, the batches are quick: no alert, not even a pending one."""
    rules = await prometheus.rules()
    silent = ["ClusterDown", "MonitorStale", "MonitorDown", "SparkBatchSlowerThanTrigger"]

    assert {} == {
        name: rules[f"Streamgauge{name}Now"]["alerts"] for name in silent if rules[f"Streamgauge{name}Now"]["alerts"]
    }


async def value_of(prometheus, title):
    """The number that a panel of the overview shows."""
    (panel,) = [panel for panel in OVERVIEW.panels if panel.title == title]
    (answer,) = await prometheus.query(substituted(panel.queries[0].expression))
    return float(answer["value"][1])


@pytest.mark.parametrize(
    ("title", "number"),
    [
        pytest.param("Over objective", 1, id="over objective"),
        pytest.param("Stopped", 1, id="stopped"),
        pytest.param("Age unknown", 2, id="age unknown: no commit, and not to be read"),
        pytest.param("Worst age of objective", 909 / 300, id="worst age"),
    ],
)
async def test_the_numbers_on_the_board_are_true(title, number, prometheus):
    """What stands at the top is what was played."""
    assert number == pytest.approx(await value_of(prometheus, title), rel=0.01)


async def test_the_board_says_which_sources_answer(prometheus):
    """Kafka and Spark's checkpoints both do."""
    answers = await prometheus.query(substituted(OVERVIEW.panels[0].queries[0].expression))

    assert {"kafka": "1", "spark": "1"} == {each["metric"]["source"]: each["value"][1] for each in answers}


async def test_every_consumer_is_in_the_table(prometheus):
    """Also those of which little is known, and one whose name holds a newline."""
    (table,) = [panel for panel in OVERVIEW.panels if panel.type == "table"]
    rows = await prometheus.query(substituted(table.queries[0].expression))

    assert {
        "billing": "ok",
        LATE_WITH_ODD_NAME: "ok",
        "nightly-report": "stopped",
        "mailer": "unknown",
        "secret": "unknown",
        "readings-average-5m": "ok",
    } == {each["metric"]["consumer"]: each["metric"]["health"] for each in rows}
