"""Boards for the demo, where this machine has a Prometheus and there is a Grafana: on the PATH, or in GRAFANA_URL.

    the monitor's /metrics -> Prometheus, with the alert rules -> Grafana, with the boards

Both are extras: without them the demo says how to get them and goes on. A Grafana that is somebody's own is handed back
as it was: nothing is applied where there is anything of streamgauge already, and what was applied is taken away at the
end.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml

from alerts.prometheus import FILE_NAME
from alerts.prometheus import render as rendered_rules
from dashboards.desired import FOLDER, reads_old_models, wanted_boards
from dashboards.grafana import connect, login_of
from dashboards.provision import FOR_BOARDS, Action, Provisioner
from dashboards.shelves import shelves
from monitor.demo.stage import Stage
from monitor.errors import SandboxError, StreamgaugeError
from monitor.sandbox.kafka import telling
from monitor.sandbox.process import Child, spawn
from monitor.settings import Grafana

PROMETHEUS, GRAFANA = "Prometheus", "Grafana"

SCRAPE_SECONDS = 2
FASTER = 60 // SCRAPE_SECONDS
"""Rules are made for a scrape a minute: as much faster, alerts fire within seconds."""

READY_SECONDS = {PROMETHEUS: 30.0, GRAFANA: 90.0}
"""A Grafana makes its database when it starts for the first time."""
STOP_SECONDS = 5.0
POLL_SECONDS = 0.1

GET_PROMETHEUS = (
    "not on the PATH: install it to see alerts and boards (Debian: apt install prometheus; else "
    "https://prometheus.io/download/)"
)
GET_GRAFANA = (
    "set GRAFANA_URL and GRAFANA_TOKEN to use one that runs, or put grafana-server on the PATH "
    "(https://grafana.com/grafana/download) to see boards"
)
NO_DATA = "left out: boards are drawn from a Prometheus"

HOMES = ("/usr/share/grafana",)
"""Where packages put what Grafana needs to start."""


class Boards:
    """Prometheus and Grafana between ``start`` and the end of the stage."""

    def __init__(self, stage: Stage, folder: Path, monitor_url: str, environ: Mapping[str, str]) -> None:
        self._stage = stage
        self._folder = folder
        self._monitor_url = monitor_url
        self._environ = environ
        self._prometheus_url = ""
        self._is_ours = False  # what is in that Grafana, to be taken away again

    async def start(self) -> None:
        """Start what there is; the stage says what was started, and where, or what is missing."""
        if self._program("prometheus") is None:
            self._stage.skip(PROMETHEUS, GET_PROMETHEUS)
        else:
            await self._stage.try_start(PROMETHEUS, self._start_prometheus)
        if not self._environ.get("GRAFANA_URL") and self._grafana_program() is None:
            self._stage.skip(GRAFANA, GET_GRAFANA)
        elif not self._prometheus_url:
            self._stage.skip(GRAFANA, NO_DATA)
        else:
            await self._stage.try_start(GRAFANA, self._start_grafana)

    def _program(self, name: str) -> str | None:
        return shutil.which(name, path=self._environ.get("PATH"))

    # --- Prometheus -----------------------------------------------------------------------------------

    async def _start_prometheus(self) -> str:
        address = f"127.0.0.1:{_free_port()}"
        home = self._folder / "prometheus"
        home.mkdir()
        (home / FILE_NAME).write_text(rendered_rules(faster=FASTER), encoding="utf-8")
        (home / "prometheus.yml").write_text(self._configuration(), encoding="utf-8")
        command = [
            self._program("prometheus") or "",
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address={address}",
        ]
        await self._run(PROMETHEUS, command, {}, f"http://{address}/-/ready")
        self._prometheus_url = f"http://{address}"
        return f"{self._prometheus_url}/alerts"

    def _configuration(self) -> str:
        every = f"{SCRAPE_SECONDS}s"
        target = {"targets": [urlsplit(self._monitor_url).netloc]}
        return yaml.safe_dump(
            {
                "global": {"scrape_interval": every, "evaluation_interval": every},
                "rule_files": [FILE_NAME],
                "scrape_configs": [{"job_name": "streamgauge", "static_configs": [target]}],
            }
        )

    # --- Grafana --------------------------------------------------------------------------------------

    async def _start_grafana(self) -> str:
        if self._environ.get("GRAFANA_URL"):
            settings = self._settings(url=self._environ["GRAFANA_URL"], **login_of(self._environ))
            self._stage.at_end("boards", lambda: asyncio.to_thread(self._take_away, settings))
        else:
            settings = await self._run_grafana()
        await asyncio.to_thread(self._provision, settings)
        return f"{settings.url.rstrip('/')}/d/streamgauge-overview"

    def _settings(self, **fields: str) -> Grafana:
        return Grafana.model_validate(
            {**fields, "prometheus_url": self._prometheus_url, "scrape_interval_seconds": SCRAPE_SECONDS}
        )

    def _grafana_program(self) -> list[str] | None:
        """Return the command that starts a Grafana; from 9.4 on it is a part of ``grafana``."""
        server, grafana = self._program("grafana-server"), self._program("grafana")
        return [grafana, "server"] if grafana else [server] if server else None

    async def _run_grafana(self) -> Grafana:
        command = self._grafana_program() or []
        port, password = _free_port(), secrets.token_urlsafe()
        environment = {
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_PATHS_DATA": str(self._folder / "grafana"),
            "GF_PATHS_LOGS": str(self._folder / "grafana" / "log"),
            "GF_PATHS_PLUGINS": str(self._folder / "grafana" / "plugins"),
            "GF_SECURITY_ADMIN_PASSWORD": password,
            "GF_AUTH_ANONYMOUS_ENABLED": "true",  # as a viewer: the address that is printed just works
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        }
        (self._folder / "grafana").mkdir()
        url = f"http://127.0.0.1:{port}"
        await self._run(GRAFANA, [*command, "--homepath", self._home(command[0])], environment, f"{url}/api/health")
        return self._settings(url=url, username="admin", password=password)

    def _home(self, program: str) -> str:
        """Return the folder that Grafana starts from.

        Raises:
            SandboxError: it is not where packages and archives have it.
        """
        named = self._environ.get("GF_PATHS_HOME")
        places = [named] if named else [str(Path(program).resolve().parent.parent), *HOMES]
        for place in places:
            if Path(place, "conf", "defaults.ini").is_file():
                return place
        msg = f"no conf/defaults.ini in {' or '.join(places)}: set GF_PATHS_HOME to Grafana's folder"
        raise SandboxError(msg)

    def _provision(self, settings: Grafana) -> None:
        server = connect(settings)
        wanted = wanted_boards(settings, is_old=reads_old_models(server))
        provisioner = Provisioner(shelves(server, FOLDER, FOR_BOARDS))
        if any(step.action is not Action.CREATE for step in provisioner.plan(wanted)):
            msg = (
                f"there is something of streamgauge in the Grafana at {settings.url} already, and it stays as it is: "
                "take it away with streamgauge dashboards destroy, or name another Grafana"
            )
            raise StreamgaugeError(msg)
        self._is_ours = True
        provisioner.apply(wanted, say=lambda step: None)

    def _take_away(self, settings: Grafana) -> None:
        if self._is_ours:
            Provisioner(shelves(connect(settings), FOLDER, FOR_BOARDS)).destroy(say=lambda step: None)

    # --- both -----------------------------------------------------------------------------------------

    async def _run(self, name: str, command: list[str], environment: Mapping[str, str], url: str) -> None:
        """Start a program that serves HTTP and wait until it does.

        Raises:
            SandboxError: it does not in time, or ends.
        """
        log = self._folder / f"{name.lower()}.log"
        child = spawn(command, log=log, env={**self._environ, **environment}, cwd=self._folder)
        self._stage.at_end(name, lambda: child.stop(STOP_SECONDS))
        await _until_serving(child, url, READY_SECONDS[name])


async def _until_serving(child: Child, url: str, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=STOP_SECONDS)) as session:
        while not await _answers(session, url):
            if not child.running:
                msg = f"ended with status {child.returncode}: {telling(child.log)} (log: {child.log})"
                raise SandboxError(msg)
            if time.monotonic() > deadline:
                msg = f"not ready after {wait_seconds:g} s: {telling(child.log)} (log: {child.log})"
                raise SandboxError(msg)
            await asyncio.sleep(POLL_SECONDS)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.ok
    except (aiohttp.ClientError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
