"""``streamgauge top``: a block a cycle into a pipe, one screen on a terminal."""

import io

import numpy as np
import pytest
from rich.console import Console
from scripted_kafka import ScriptedKafka
from snapshots import group, kafka_snapshot

from monitor.cli.consumers import Row
from monitor.cli.top import paced, screen
from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import Failure, GroupFacts, Report
from monitor.settings import Cluster, Settings

AT = 1_795_000_000.0
ENDS = {("orders", 0): (0, 100)}


def snapshot(commits, *, at=AT, stopped=(), **extra):
    states = {name: GroupFacts(group(name), state="Empty", members=0) for name in stopped}
    return kafka_snapshot(ENDS, {n: {("orders", 0): c} for n, c in commits.items()}, at=at, states=states, **extra)


def report(*args, **kw):
    history = History()
    cluster = derive(observe(snapshot(*args, **kw), None, history), history, lambda _: 300.0)
    return Report(cluster.at, (cluster,))


def drawn(report, *, broken=(), width=80, height=24):
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(screen(report, broken, height))
    return console.file.getvalue().splitlines()


@pytest.fixture
def top(run, kafkas):
    def invoke(*snapshots, args=(), **script):
        kafkas["default"] = ScriptedKafka(
            *snapshots, log={("orders", 0): [(i, int(AT * 1000)) for i in range(100)]}, **script
        )
        return run("top", "--bootstrap-servers", "x:1", "--interval", "0.1", *args)

    return invoke


def test_a_pipe_gets_a_block_a_cycle(top, kafkas):
    """Into a pipe each cycle prints a status line and the table; -n ends it, and connections are closed."""
    result = top(snapshot({"g": 100}), snapshot({"g": 100}, at=AT + 10), args=["-n", "2"])

    blocks = result.stdout.split("\n\n")
    assert 0 == result.exit_code
    assert 2 == sum(block.startswith("default up ") for block in blocks)
    assert "g         ok        0  0 s        1" in blocks[0]
    assert "READ/S" in blocks[1]
    assert 1 == kafkas["default"].closed


def test_the_interval_is_that_of_the_option():
    """--interval counts for every cluster, and leaves the settings as they were without it."""
    settings = Settings(clusters=[Cluster(name=name, bootstrap_servers="x:1") for name in "ab"])

    assert [0.5, 0.5] == [each.interval_seconds for each in paced(settings, 0.5).clusters]
    assert settings is paced(settings, None)


def test_nothing_reached_is_exit_3(top):
    """A cluster that does not answer at the start is one line and exit code 3."""
    result = top(snapshot({}), reachable=False)

    assert (3, "") == (result.exit_code, result.stdout)
    assert "streamgauge: no broker answers at nowhere:9092: check bootstrap_servers\n" == result.stderr


def test_a_cycle_that_breaks_is_shown(top):
    """A fault of ours takes away that cluster's numbers and says so; the next cycle brings them back."""
    result = top(snapshot({"g": 100}), RuntimeError("ours"), snapshot({"g": 100}, at=AT + 10), args=["-n", "3"])

    assert ["default up", "default FAILED: see streamgauge --debug top", "default up"] == [
        line if "FAILED" in line else line[:10] for line in result.stdout.splitlines() if line.startswith("default")
    ]


def test_failures_go_to_stderr(top):
    """What could not be read is a line on stderr each cycle."""
    failures = [Failure("broker", "1 (x:1)", "TIMEOUT", "did not answer")]
    result = top(snapshot({"g": 100}, up=False, failures=failures), args=["-n", "1"])

    assert "default DOWN" in result.stdout
    assert "streamgauge: cluster default: broker 1 (x:1) could not be read: TIMEOUT: did not answer\n" == result.stderr


def test_the_gravest_come_first():
    """Stopped before unknown before ok; of equals the later one, then the one with more records, then by name."""
    order = report({"fine": 100, "busy": 50, "down": 90, "worse": 10, "also": 100}, stopped=["down", "worse"])

    rows = sorted((Row(order.clusters[0], i) for i in range(5)), key=Row.gravity)

    assert ["worse", "down", "busy", "also", "fine"] == [row.consumer.name for row in rows]


@pytest.mark.parametrize("height", [8, 24, 100])
def test_the_screen_has_room(height):
    """What does not fit is counted; the screen is never higher than the terminal, nor wider."""
    many = report(
        {f"group-{i:02}": i for i in range(60)}, failures=[Failure("topic", f"t{i}", str(i)) for i in range(60)]
    )

    lines = drawn(many, height=height)

    assert len(lines) <= height
    assert max(map(len, lines)) <= 80
    shown = sum(line.startswith("group-") for line in lines)
    assert (60 - shown > 0) == any(f"and {60 - shown} more, none graver" in line for line in lines)
    assert any("could not be read" in line for line in lines)


def test_the_screen_shows_what_was_found():
    """Findings stand below, as failures do."""
    lines = drawn(report({"g": 200}))

    assert "beyond_end: g on orders/0: committed offset 200 lies beyond the log end 100" == lines[-1].rstrip()


def test_the_screen_of_nothing():
    """A cluster without consumers, or one that broke, is a status line."""
    empty = report({})

    assert drawn(empty)[0].startswith("default up ")
    assert drawn(empty)[0].endswith(", 0 consumers")
    assert "b FAILED: see streamgauge --debug top" == drawn(Report(np.nan, ()), broken=["b"])[0]
