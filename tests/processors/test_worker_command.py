"""``streamgauge worker``: what it says when it cannot run."""

import logging
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import faust
import pytest

from monitor.cli.worker import load_app
from monitor.errors import UsageError
from processors.app import AppSettings, broker_url
from processors.worker import OncePerInterval, assignment, crash_line

STREAMGAUGE = Path(sys.executable).with_name("streamgauge")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the current folder and return its name."""

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    monkeypatch.chdir(tmp_path)
    return write


def test_an_app_in_the_current_folder_is_found(module):
    """It need not be installed."""
    name = module("own_app", "import faust\nmine = faust.App('mine', web_enabled=False)")

    assert "mine" == load_app(f"{name}:mine").conf.id


@pytest.mark.parametrize(
    ("text", "spec", "says"),
    [
        pytest.param("", "own_empty", "must be MODULE:APP", id="no app named"),
        pytest.param("", ":app", "must be MODULE:APP", id="no module named"),
        pytest.param("", "no_such_module:app", "No module named 'no_such_module'", id="no such module"),
        pytest.param("", "own_empty:app", "app in own_empty is not there", id="nothing of that name"),
        pytest.param("app = 17", "own_number:app", "of type int", id="not an app"),
        pytest.param("import no_such_thing", "own_import:app", "No module named 'no_such_thing'", id="import fails"),
        pytest.param("def :", "own_syntax:app", "SyntaxError", id="not Python"),
        pytest.param("raise RuntimeError('one\\ntwo')", "own_raise:app", "RuntimeError: one two", id="raises"),
    ],
)
def test_a_wrong_app_is_one_line_of_wrong_usage(module, text, spec, says):
    """It names the option's value and what is wrong with it."""
    module(spec.partition(":")[0] or "x", text) if "no_such" not in spec else None

    with pytest.raises(UsageError) as raised:
        load_app(spec)
    assert says in str(raised.value)
    assert f"--app {spec}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_kafka_is_one_line_and_exit_3():
    """Nobody listens there."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        ended = subprocess.run(
            [STREAMGAUGE, "worker", "--bootstrap-servers", address],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert 3 == ended.returncode
    assert "" == ended.stdout
    tried = f"streamgauge: no Kafka answers at {address} for the app streamgauge-readings"
    assert [f"{tried}: does it run, is the address right?"] == ended.stderr.splitlines()


def test_an_app_with_brokers_of_its_own_is_not_run_against_others(module):
    """Asked for one cluster it must not quietly read another."""
    module("own_brokers", "import faust\napp = faust.App('own', broker='kafka://10.0.0.1:9092', web_enabled=False)")
    command = [STREAMGAUGE, "worker", "--app", "own_brokers:app", "--bootstrap-servers", "127.0.0.1:1"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert 2 == ended.returncode
    assert "names its own brokers (10.0.0.1:9092)" in ended.stderr
    assert 1 == len(ended.stderr.splitlines())


def test_the_environment_says_where_and_what():
    """Empty is as good as not set."""
    given = {"STREAMGAUGE_BROKERS": "a:1,b:2", "STREAMGAUGE_APP_ID": "", "STREAMGAUGE_TOPIC": "t"}

    assert AppSettings("a:1,b:2", "streamgauge-readings", "t") == AppSettings.from_environment(given)
    assert "kafka://a:1;b:2" == broker_url(" a:1, b:2,")


@pytest.mark.parametrize(
    ("assigned", "line"),
    [
        pytest.param(
            [("b", 0), ("a", 2), ("a", 0), ("x-averages-changelog", 0)],
            "x reads a 0, 2; b 0 (at h:9092)",
            id="the app's own changelog is left out",
        ),
        pytest.param(
            [], "x waits: no partitions are left for this worker (at h:9092)", id="more workers than partitions"
        ),
    ],
)
def test_the_line_about_an_assignment(assigned, line):
    """Topics with their partitions, in order."""
    assert line == assignment(faust.App("x", broker="kafka://h:9092", web_enabled=False), assigned)


def test_the_line_about_a_crash():
    """What was raised, and where."""
    with pytest.raises(ValueError, match="substring") as raised:
        "one\ntwo".index("three")
    line = crash_line(faust.App("x", web_enabled=False), raised.value)

    assert line.startswith("the app x crashed: ValueError: substring not found (test_worker_command.py:")


def test_many_equal_events_are_one_line_with_their_number():
    """Equal is what has the same text before its values are filled in; another one is not held back."""
    now = 0.0
    fold = OncePerInterval(10.0, clock=lambda: now)

    def shown(text, *values):
        record = logging.LogRecord("aiokafka", logging.ERROR, __file__, 1, text, values, None)
        return record.getMessage() if fold.filter(record) else None

    assert "no node 1" == shown("no node %d", 1)
    assert [None, None] == [shown("no node %d", 1), shown("no node %d", 2)]
    assert "other" == shown("other")
    now = 10.0
    assert "no node 3 (2 more like it)" == shown("no node %d", 3)
    now = 20.0
    assert "no node 3" == shown("no node %d", 3)
