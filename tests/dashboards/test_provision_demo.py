"""The demo's Prometheus and Grafana: started or found, filled with boards, and left as they were found."""

import sys
from pathlib import Path

import aiohttp
import pytest

from dashboards.fake_grafana import FakeGrafana, Profile
from dashboards.fake_http import serve
from dashboards.files import BOARDS
from monitor.demo.boards import FASTER, GRAFANA, PROMETHEUS, Boards
from monitor.demo.stage import Stage

MONITOR = "http://127.0.0.1:9760/"
ROOT = Path(__file__).parents[2]

PROGRAM = """\
#!{python}
import signal, sys
sys.path.insert(0, {root!r})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
"""

PROMETHEUS_PROGRAM = """\
import pathlib
from http.server import BaseHTTPRequestHandler, HTTPServer

said = dict(each.split("=", 1) for each in sys.argv[1:])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

host, _, port = said["--web.listen-address"].partition(":")
HTTPServer((host, int(port)), Handler).serve_forever()
"""

GRAFANA_PROGRAM = """\
import json, os, pathlib
from dashboards.fake_grafana import FakeGrafana
from dashboards.fake_http import serve

assert sys.argv[1:2] == ["--homepath"]
fake = FakeGrafana()
with serve(fake, port=int(os.environ["GF_SERVER_HTTP_PORT"])):
    signal.pause()
"""


def program(folder, name, text):
    """Put a program on the PATH."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(PROGRAM.format(python=sys.executable, root=str(ROOT)) + text)
    path.chmod(0o755)


@pytest.fixture
async def boards(tmp_path):
    """Make the boards of a demo whose PATH has only what the test put there, and end them; with what was said."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "demo").mkdir()
    said = []
    stage = Stage(said.append)

    def make(**environ):
        return Boards(stage, tmp_path / "demo", MONITOR, {"PATH": str(tmp_path / "bin"), **environ}), stage, said

    yield make
    await stage.end_all()


async def test_without_either_it_says_how_to_get_them(boards):
    """Two lines, and the demo goes on."""
    made, stage, said = boards()

    await made.start()

    assert [PROMETHEUS, GRAFANA] == list(stage.skipped)
    assert "apt install prometheus" in said[0]
    assert "set GRAFANA_URL" in said[1]


async def test_a_grafana_without_a_prometheus_has_nothing_to_draw(boards):
    """Nothing is asked of it."""
    fake = FakeGrafana()
    with serve(fake) as url:
        made, stage, _ = boards(GRAFANA_URL=url, GRAFANA_TOKEN="x")
        await made.start()

    assert "left out: boards are drawn from a Prometheus" == stage.skipped[GRAFANA]
    assert [] == fake.requests


@pytest.mark.parametrize("profile", list(Profile), ids=["7.5", "modern"])
async def test_boards_in_a_grafana_of_ones_own_come_and_go(boards, tmp_path, profile):
    """The Grafana of GRAFANA_URL gets the boards and a data source for the demo's Prometheus, until the demo ends."""
    program(tmp_path, "prometheus", PROMETHEUS_PROGRAM)
    fake = FakeGrafana(profile)
    with serve(fake, token="x") as url:
        made, stage, said = boards(GRAFANA_URL=url, GRAFANA_TOKEN="x")
        await made.start()
        there = (len(fake.boards), fake.datasources["streamgauge-prometheus"])
        await stage.end_all()

    assert {} == stage.failed
    assert len(BOARDS) == there[0]
    address = there[1]["url"]
    assert f"started  Prometheus: {address}/alerts" in said[0]
    assert f"started  Grafana: {url}/d/streamgauge-overview" in said[1]
    assert "2s" == there[1]["jsonData"]["timeInterval"]
    assert ({}, {}, {}) == (fake.boards, fake.datasources, fake.folders)


async def test_what_prometheus_is_told(boards, tmp_path):
    """It scrapes the monitor, and its rules are as much faster as its scrapes."""
    program(tmp_path, "prometheus", PROMETHEUS_PROGRAM)
    made, stage, _ = boards()

    await made.start()

    assert {} == stage.failed
    told = (tmp_path / "demo" / "prometheus" / "prometheus.yml").read_text()
    assert ("127.0.0.1:9760" in told, "scrape_interval: 2s" in told, 30) == (True, True, FASTER)
    assert (tmp_path / "demo" / "prometheus" / "streamgauge-rules.yml").is_file()


async def test_a_grafana_that_has_boards_of_ours_stays_as_it_is(boards, tmp_path):
    """What somebody applied there is neither changed nor taken away."""
    program(tmp_path, "prometheus", PROMETHEUS_PROGRAM)
    fake = FakeGrafana()
    fake.add_folder("streamgauge", "streamgauge")
    with serve(fake) as url:
        made, stage, _ = boards(GRAFANA_URL=url, GRAFANA_TOKEN="x")
        await made.start()
        await stage.end_all()

    assert "it stays as it is" in stage.failed[GRAFANA]
    assert ["streamgauge"] == list(fake.folders)
    assert [] == [request.path for request in fake.requests if request.method != "GET"]


async def test_a_grafana_on_the_path_is_started(boards, tmp_path):
    """It gets a folder, a port and a password of its own, and the boards."""
    program(tmp_path, "prometheus", PROMETHEUS_PROGRAM)
    program(tmp_path, "grafana-server", GRAFANA_PROGRAM)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "defaults.ini").touch()
    made, stage, said = boards()

    await made.start()

    assert {} == stage.failed
    address = said[1].split()[2].removesuffix("/d/streamgauge-overview")
    async with aiohttp.ClientSession() as session, session.get(f"{address}/api/search?type=dash-db") as answer:
        assert {board.uid for board in BOARDS} == {hit["uid"] for hit in await answer.json()}


async def test_a_program_that_ends_is_said_and_the_rest_goes_on(boards, tmp_path):
    """A Prometheus that does not start leaves the demo without it."""
    program(tmp_path, "prometheus", "print('no such flag'); sys.exit(2)\n")
    made, stage, _ = boards()

    await made.start()

    assert "ended with status 2: no such flag" in stage.failed[PROMETHEUS]
    assert GRAFANA in stage.skipped
