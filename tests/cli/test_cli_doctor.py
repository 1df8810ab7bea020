"""``streamgauge doctor``: how it prints what was found, and by which code it exits."""

import csv
import io
import json
import socket

import pytest

from monitor.cli.doctor import COLUMNS, together
from monitor.operate.doctor import Result, failed, ok, skipped
from monitor.operate.examine import checks
from monitor.operate.notes import Notes
from monitor.sandbox.fake import FakeCluster
from monitor.settings import Cluster


@pytest.fixture
def closed():
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def examined(monkeypatch):
    """What the examination is to find, instead of a real one."""
    found = []

    async def examine(_settings):
        return found

    monkeypatch.setattr("monitor.operate.examine.examine", examine)
    return found


def names() -> list[str]:
    """Every check of one cluster, and the settings before them."""
    return ["configuration", *(check.name for check in checks(Notes(Cluster(bootstrap_servers="x:1"))))]


FINE = Result("default", "cluster", ok("cluster", "abc: 1 broker"))


def test_nothing_reachable_exits_3(run, in_folder, closed):
    """The refused address is named with what to do; whatever hangs on it shares a row."""
    result = run("doctor", "--bootstrap-servers", closed)

    assert 3 == result.exit_code
    assert "" == result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["VERDICT", "CHECK", "SEEN", "TO", "DO"]
    assert 1 == sum(line.startswith("failed") for line in lines)
    assert 1 == sum(line.startswith("skipped") for line in lines)
    assert f"{closed} refuses connections: nothing listens there" in result.stdout
    assert f"2 ok, 1 failed, {len(names()) - 3} skipped" == lines[-1]


def test_json_has_every_check_as_an_object(run, in_folder, closed):
    """The same as data, each skipped check by itself."""
    result = run("doctor", "--bootstrap-servers", closed, "-o", "json")

    found = json.loads(result.stdout)["checks"]
    assert 3 == result.exit_code
    assert names() == [each["check"] for each in found]
    assert {COLUMNS} == {tuple(each) for each in found}
    assert [None, *["default"] * (len(found) - 1)] == [each["cluster"] for each in found]
    assert {"ok", "failed", "skipped"} == {each["verdict"] for each in found}


def test_csv_has_a_header_and_a_row_a_check(run, in_folder, closed):
    """For tools that take lines."""
    result = run("doctor", "--bootstrap-servers", closed, "-o", "csv")

    read = list(csv.DictReader(io.StringIO(result.stdout)))
    assert names() == [each["check"] for each in read]
    assert list(COLUMNS) == list(read[0])


@pytest.mark.parametrize(
    ("args", "text"),
    [
        pytest.param(["--config", "missing.yml"], "there is no file missing.yml", id="no file"),
        pytest.param([], "there is no ./streamgauge.yml", id="no settings"),
        pytest.param(["--config", "a.yml"], "unknown key `clutsers`", id="a wrong file"),
    ],
)
def test_settings_that_cannot_be_used_exit_2(run, in_folder, args, text):
    """They are the first failed check, and everything else is skipped for it."""
    (in_folder / "a.yml").write_text("clutsers: []\n")
    result = run("doctor", *args, "-o", "json")

    found = json.loads(result.stdout)["checks"]
    assert 2 == result.exit_code
    assert text in " ".join(each["seen"] for each in found)
    assert ["failed", "skipped"] == sorted({each["verdict"] for each in found})


@pytest.mark.parametrize(
    ("args", "code"), [pytest.param([], 0, id="fine"), pytest.param(["--strict"], 1, id="strictly not")]
)
def test_a_warning_is_fine_unless_strict(run, in_folder, examined, args, code):
    """Warnings fail where that is asked for."""
    from monitor.operate.doctor import warning

    examined += [FINE, Result("default", "clock", warning("clock", "60 s behind", "let both run NTP"))]

    assert code == run("doctor", "--bootstrap-servers", "x:1", *args).exit_code


def test_several_clusters_have_a_column(run, in_folder, examined):
    """With one cluster its name is noise, with two it is needed."""
    examined += [FINE, Result("other", "cluster", failed("cluster", "gone", "mend"))]
    result = run("doctor", "--bootstrap-servers", "x:1")

    assert "VERDICT  CLUSTER  CHECK" in result.stdout
    assert 1 == result.exit_code


def test_names_cannot_hurt_the_terminal(run, in_folder, examined):
    """A topic may be called anything."""
    examined += [FINE, Result("default", "consumers", failed("topic \x1b[31mx", "read by \x1b[0m\n", "grant"))]
    result = run("doctor", "--bootstrap-servers", "x:1")

    assert "\x1b" not in result.stdout
    assert r"\x1b[31mx" in result.stdout


def test_checks_skipped_for_the_same_reason_share_a_row():
    """Other reasons and other clusters have rows of their own."""
    reason = skipped("a", "not looked at: x failed")
    rows = together([
        Result("one", "a", reason), FINE, Result("one", "b", reason), Result("two", "a", reason),
        Result("one", "c", skipped("c", "another reason")),
    ])  # fmt: skip

    assert ["2 checks", "cluster", "a", "c"] == [row.check for row in rows]
    assert "a, b: not looked at: x failed" == rows[0].line.seen


async def test_against_a_cluster_it_is_fine(in_folder):
    """The program itself, in a process of its own, against a fake cluster."""
    import asyncio
    import sys
    from pathlib import Path

    program = Path(sys.executable).with_name("streamgauge")
    async with FakeCluster(brokers=2) as fake:
        fake.topic("orders")
        fake.group("billing", {("orders", 0): 0})
        running = await asyncio.create_subprocess_exec(
            program, "doctor", "--bootstrap-servers", fake.bootstrap, stdout=-1, stderr=-1
        )
        out, err = await running.communicate()

    assert (0, b"") == (running.returncode, err)
    assert b"1 group may be described" in out
