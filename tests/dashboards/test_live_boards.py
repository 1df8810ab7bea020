"""No dead panel: a real Prometheus scrapes a monitor that has it all, and every query of every board has an answer.

The monitor serves what the service would serve of a shop whose readers are late, catch up, stand still, lose records
and rebalance, once a second. Rules are evaluated without any waiting, so that alerts fire at once.
"""

import asyncio
import math
import re
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio
import yaml
from board_reader import ALL, filled, panels_of, queries_of
from board_scenario import EVERYTHING, Played
from prometheus_api import scraping, serving, until
from prometheus_servers import PATIENCE_SECONDS, needs_prometheus

from alerts.prometheus import render
from alerts.rules import ALL_RULES
from dashboards.files import BOARDS
from monitor.publish.exposition import Exposition
from monitor.publish.http import Published

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    needs_prometheus,
]

CYCLE_SECONDS = 1.0
SPAN, RATE = "5m", "10s"

ONE = {"cluster": "shop", "kind": "group", "topic": "orders"}
CHOSEN = {
    "streamgauge-consumer": [{**ONE, "consumer": name} for name in ("billing", "returns-desk")],
    "streamgauge-topic": [ONE],
}
"""What is chosen on boards about one thing; a query is alive if one of these gives it data. On others it is all."""

EMPTY_BY_DESIGN: dict[tuple[str, str, str], str] = {}
"""Queries (board, panel, letter) that have no data here, each with the reason."""

RENDERED = {board.uid: board.json() for board in BOARDS}
QUERIES = sorted(
    {
        (asked.board, asked.panel, asked.ref)
        for board in RENDERED.values()
        for asked in queries_of(board, {}, span="", rate="")
    }
)


@asynccontextmanager
async def monitor():
    """Reports of the shop, served as the service serves them; yields the port."""
    played, exposition = Played(time.time(), CYCLE_SECONDS), Exposition(EVERYTHING)

    def publish():
        report = played.report()
        return Published(report, exposition.render(report), complete=True)

    async with serving(publish, lambda: played.due_at - time.time()) as port:
        yield port


def hasty_rules():
    """The rules as rendered, but for the waiting: neither ``for`` nor an interval of a group."""
    tree = yaml.safe_load(render([replace(rule, hold="0s", keep=None) for rule in ALL_RULES]))
    for each in tree["groups"]:
        each.pop("interval", None)
    return yaml.safe_dump(tree)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(tmp_path_factory):
    """A Prometheus that has scraped the monitor a few times."""
    folder = tmp_path_factory.mktemp("prometheus")
    async with monitor() as target, scraping(folder, {"rules.yml": hasty_rules()}, target) as server:
        await until(lambda: server.query("count_over_time(streamgauge_cluster_up[1m]) > 1"))
        yield server


def ways_to_ask(board, panel, ref):
    """A query once for each choice that is tried."""
    for chosen in CHOSEN.get(board, [{}]):
        yield from (
            asked
            for asked in queries_of(RENDERED[board], chosen, span=SPAN, rate=RATE)
            if (asked.panel, asked.ref) == (panel, ref)
        )


def has_a_number(series):
    values = [value for each in series for _, value in each.get("values", [each.get("value")])]
    return any(math.isfinite(float(value)) for value in values)


async def has_data(prometheus, board, panel, ref):
    """Whether a query, asked as Grafana asks it, has an answer with a number in it."""
    for asked in ways_to_ask(board, panel, ref):
        ask = prometheus.query if asked.is_instant else prometheus.query_range
        if has_a_number(await ask(asked.expression)):
            return True
    return False


async def test_every_query_of_every_board_returns_data(prometheus):
    """No panel is dead; what has no data here is listed, and listed only as long as that is so."""
    waiting, deadline = set(QUERIES) - set(EMPTY_BY_DESIGN), time.monotonic() + PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        waiting -= {each for each in waiting if await has_data(prometheus, *each)}
        await asyncio.sleep(0.5 if waiting else 0)

    assert set() == waiting
    assert set() == {each for each in EMPTY_BY_DESIGN if await has_data(prometheus, *each)}


async def test_every_choice_has_values(prometheus):
    """The lists at the top of the boards are not empty."""
    for uid, board in RENDERED.items():
        for variable in board["templating"]["list"][1:]:
            expression = filled(variable["query"]["query"], board, CHOSEN.get(uid, [{}])[0], span=SPAN, rate=RATE)
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", expression).groups()

            assert await prometheus.get(f"/api/v1/label/{label}/values", **{"match[]": selector}), (uid, label)


SILENT = {"streamgauge-topic"}
"""Boards without an alert here: the only one about a topic looks back half an hour."""


async def test_every_mark_can_be_asked_for(prometheus):
    """Alerts that fire or begin are marked on every board; the other marks have no error."""
    for uid, board in RENDERED.items():
        for mark in board["annotations"]["list"]:
            series = await prometheus.query_range(
                filled(mark["expr"], board, CHOSEN.get(uid, [{}])[-1], span=SPAN, rate=RATE), seconds=120
            )

            assert series or mark["name"] != "Alerts" or uid in SILENT, uid


async def test_a_table_has_a_row_for_everybody(prometheus):
    """Consumers of which nearly nothing is known are in the overview's table, and each once."""
    (table,) = [panel for panel in panels_of(RENDERED["streamgauge-overview"]) if panel["type"] == "table"]
    rows = await prometheus.query(
        filled(table["targets"][0]["expr"], RENDERED["streamgauge-overview"], {"cluster": ALL}, span=SPAN, rate=RATE)
    )

    assert sorted(
        [
            "billing", "fraud-detection", "ledger", "mailer", "nightly-report", "notebook", "orders-by-region",
            "readings-average-5m", "replayer", "returns-desk", "search-indexer", "secret",
        ]
    ) == sorted(each["metric"]["consumer"] for each in rows)  # fmt: skip


async def test_a_choice_narrows_what_is_asked_for(prometheus):
    """Of two clusters the one that is chosen is shown, and no other."""
    board = RENDERED["streamgauge-overview"]
    (asked,) = [
        each for each in queries_of(board, {"cluster": "lab"}, span=SPAN, rate=RATE) if each.panel == "Clusters"
    ]

    assert {"lab"} == {each["metric"]["cluster"] for each in await prometheus.query(asked.expression)}
