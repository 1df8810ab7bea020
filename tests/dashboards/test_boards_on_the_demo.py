"""The boards on the demo: a real Kafka, a real Faust app, a real Spark query, the monitor and a real Prometheus.

Every query has data, but for those that are listed with the reason why the demo has none.
"""

import asyncio
import re
import sys
from contextlib import asynccontextmanager

import pytest
from board_reader import queries_of
from prometheus_api import scraping
from prometheus_servers import free_port, needs_prometheus

from alerts.prometheus import render
from dashboards.files import BOARDS

pytestmark = [pytest.mark.soak, pytest.mark.integration, needs_prometheus]

PATIENCE_SECONDS = 420
"""On two busy cores the demo takes minutes to start its Spark query; some windows of the boards take ten to fill."""

DEMO = {"cluster": "demo", "kind": "group", "topic": "readings"}
CHOSEN = {
    "streamgauge-consumer": [{**DEMO, "consumer": name} for name in ("shipping", "billing", "streamgauge-readings")],
    "streamgauge-topic": [DEMO],
}

OPT_IN = "metrics that are off unless the settings say otherwise"
NO_ALERTS = "rules need minutes to fire, and the demo's alerts are over before"
TOO_SHORT = "a batch of the demo takes 0.4 s of every 3 s, and looks once a second may always miss it"
UNTOLD = "the job of the demo's query does not tell of itself"
NO_END = "retention deletes nothing in the demo"

EMPTY = {
    ("streamgauge-consumer", "Its partitions by age", "B"): OPT_IN,
    ("streamgauge-consumer", "Its partitions by age", "D"): OPT_IN,
    ("streamgauge-consumer", "Its partitions by age", "E"): OPT_IN,
    ("streamgauge-consumer", "Its partitions by age", "F"): OPT_IN,
    ("streamgauge-consumer", "Its partitions by age", "G"): OPT_IN,
    ("streamgauge-topic", "Until unread records are deleted", "A"): NO_END,
    ("streamgauge-overview", "Batch duration and trigger interval", "B"): TOO_SHORT,
    ("streamgauge-spark", "Batch duration and trigger interval", "B"): TOO_SHORT,
    ("streamgauge-spark", "Longest batch in flight", "A"): TOO_SHORT,
    ("streamgauge-spark", "Queries by age", "G"): TOO_SHORT,
    ("streamgauge-spark", "State", "A"): UNTOLD,
    ("streamgauge-overview", "Alerts over time", "A"): NO_ALERTS,
    ("streamgauge-consumer", "Its alerts over time", "A"): NO_ALERTS,
    ("streamgauge-monitor", "Alerts about monitoring over time", "A"): NO_ALERTS,
}
"""Queries that may have no data on the demo, with the reason."""

FROM_WITHIN = "streamgauge-faust"
"""The board of Faust apps that report from within: empty where the demo's own app does not."""


@asynccontextmanager
async def demo(folder):
    """The demo as a user starts it; yields the monitor's port once its page is served."""
    port = free_port()
    command = [sys.executable, "-c", "from monitor.cli.main import main; main()", "demo", "--port", str(port)]
    with (folder / "demo.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await asyncio.wait_for(served(process, folder / "demo.log"), PATIENCE_SECONDS)
        yield port
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 60)


async def served(process, log):
    while not re.search(r"Status page: http", log.read_text()):
        assert process.returncode is None, log.read_text()
        await asyncio.sleep(0.5)


def alive_at_least(queries):
    """The queries that are waited for."""
    return {key for key in queries if key not in EMPTY and key[0] != FROM_WITHIN}


async def test_every_query_has_data_on_the_demo(tmp_path):
    """What has no data and is not listed is dead."""
    boards = [board.json() for board in BOARDS]
    async with demo(tmp_path) as port, scraping(tmp_path, {"rules.yml": render()}, port) as prometheus:
        waiting, seen = {}, set()
        for board in boards:
            for chosen in CHOSEN.get(board["uid"], [{}]):
                for asked in queries_of(board, chosen, span="5m", rate="20s"):
                    waiting.setdefault((asked.board, asked.panel, asked.ref), []).append(asked)
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while alive_at_least(waiting) - seen and asyncio.get_running_loop().time() < deadline:
            for key in set(waiting) - seen:
                for asked in waiting[key]:
                    ask = prometheus.query if asked.is_instant else prometheus.query_range
                    if await ask(asked.expression):
                        seen.add(key)
            await asyncio.sleep(2)

        tells = await prometheus.query("streamgauge_faust_up")
    untold = set() if tells else {key for key in waiting if key[0] == FROM_WITHIN}

    assert set() == set(waiting) - seen - set(EMPTY) - untold
