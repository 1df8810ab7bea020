"""Prometheus and Alertmanager as tests start them: real processes on loopback, gone with the test."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest

PATIENCE_SECONDS = 60.0

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")) and not os.environ.get("CI"),
    reason="prometheus and promtool are not on PATH (Debian: package prometheus)",
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool is not on PATH (Debian: package prometheus)",
)
needs_amtool = pytest.mark.skipif(
    shutil.which("amtool") is None and not os.environ.get("CI"),
    reason="amtool is not on PATH (Debian: package prometheus-alertmanager)",
)
needs_alertmanager = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None and not os.environ.get("CI"),
    reason="prometheus-alertmanager is not on PATH (Debian: package prometheus-alertmanager)",
)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def running(command, folder, address):
    """A server in a folder, ready when it says so at its address."""
    log = folder / f"{command[0]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
    try:
        _until_ready(process, log, address)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _until_ready(process, log, address):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, f"{address} is not ready after {PATIENCE_SECONDS:g} s"
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=5) as answer:  # noqa: S310 (our own)
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError):
            pass
        time.sleep(0.05)


@contextmanager
def prometheus(folder, *options, config="{}\n"):
    """A Prometheus with this configuration, its data below the folder; gives its address."""
    (folder / "prometheus.yml").write_text(config)
    place = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
               f"--web.listen-address={place}", *options]  # fmt: skip
    with running(command, folder, f"http://{place}"):
        yield f"http://{place}"


@contextmanager
def backfilled(folder, *openmetrics, options=()):
    """A Prometheus that has these samples and scrapes nobody; gives its address."""
    for text in openmetrics:
        (folder / "samples.txt").write_text(text)
        command = "promtool tsdb create-blocks-from --max-block-duration=50000h openmetrics samples.txt data"
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    with prometheus(folder, "--storage.tsdb.retention.time=100y", *options) as address:
        yield address


@contextmanager
def alertmanager(folder, config):
    """An Alertmanager with this configuration; gives its address."""
    (folder / "alertmanager.yml").write_text(config)
    place = f"127.0.0.1:{free_port()}"
    command = ["prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=alertmanager",
               f"--web.listen-address={place}", "--cluster.listen-address="]  # fmt: skip
    with running(command, folder, f"http://{place}"):
        yield place


def asked(address, path, **parameters):
    """Return the data of an answer of Prometheus' API."""
    form = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{address}{path}?{form}", timeout=30) as answer:  # noqa: S310 (our own)
        return json.load(answer)["data"]
