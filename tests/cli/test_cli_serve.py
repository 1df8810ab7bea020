"""``streamgauge serve``: it starts without Kafka, says where its page is, and ends when told to."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from monitor.cli.logs import log_to_stderr
from monitor.cli.serve import listening_on
from monitor.settings import Cluster, Settings

PROGRAM = Path(sys.executable).with_name("streamgauge")


@pytest.fixture
def closed_port():
    """A port that nobody listens on while the test runs: it is bound, but refuses."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def served(closed_port):
    """Start ``serve`` for a cluster that is not there, and return it with the address of its page."""
    args = [PROGRAM, "serve", "--bootstrap-servers", f"127.0.0.1:{closed_port}", "--port", "0"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith("status page: http://127.0.0.1:"), line + process.stderr.read()
        yield process, line.removeprefix("status page: ").strip()
        process.kill()


def fetch(address):
    """Return status and body of a page."""
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310 - http, the test wrote it
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_runs_without_kafka_and_ends_when_told(served, number):
    """A cluster that is away is no reason not to start: the page answers, and a signal ends it with exit code 0."""
    process, address = served
    assert 200 == fetch(f"{address}healthz")[0]

    process.send_signal(number)
    _, errors = process.communicate(timeout=20)

    assert 0 == process.returncode
    assert "Traceback" not in errors


def test_a_cluster_that_is_away_is_down(served):
    """Once it failed, metrics say so: up is 0."""
    _, address = served
    status, text = fetch(f"{address}metrics")
    while status == 503:  # until the cluster has answered or failed once
        status, text = fetch(f"{address}metrics")

    assert 200 == status
    assert 'streamgauge_cluster_up{cluster="default",source="kafka"} 0' in text


def test_a_taken_port_is_one_line(closed_port):
    """A port that another process listens on is one line and exit code 3."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        args = ["serve", "--bootstrap-servers", f"127.0.0.1:{closed_port}", "--port", str(port)]
        done = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=60, check=False)

    assert (3, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(f"streamgauge: cannot serve HTTP on 127.0.0.1:{port}: the port is taken")
    assert 1 == done.stderr.count("\n")


def test_options_win_over_the_settings():
    """--host and --port replace what the settings say, each on its own."""
    settings = Settings(clusters=[Cluster(bootstrap_servers="x:1")])

    def listens(host, port):
        http = listening_on(settings, host, port).http
        return http.host, http.port

    assert ("127.0.0.1", 9760) == listens(None, None)
    assert ("::1", 9760) == listens("::1", None)
    assert ("127.0.0.1", 0) == listens(None, 0)


def test_logs_are_json_for_a_program(capfd):
    """Without a terminal every event, ours or a library's, is a line of JSON on stderr with its fields."""
    import logging

    import structlog

    log_to_stderr("info")
    structlog.get_logger("ours").warning("offsets unavailable", group='g"\n')
    logging.getLogger("theirs").error("broke: %s", "x", extra={"host": "h"})
    logging.getLogger("theirs").debug("too quiet")

    out, err = capfd.readouterr()
    ours, theirs = map(json.loads, err.splitlines())
    assert "" == out
    assert ("offsets unavailable", 'g"\n', "warning", "ours") == tuple(
        ours[name] for name in ("event", "group", "level", "logger")
    )
    assert ("broke: x", "h", "error") == tuple(theirs[name] for name in ("event", "host", "level"))


def test_logs_are_lines_for_a_person(capfd):
    """On a terminal an event is a readable line, and a traceback is kept."""
    import structlog

    log_to_stderr("debug", as_json=False)
    try:
        int("why")
    except ValueError:
        structlog.get_logger("ours").exception("it broke", group="g")

    err = capfd.readouterr().err
    assert "it broke" in err
    assert "ValueError: invalid literal" in err
