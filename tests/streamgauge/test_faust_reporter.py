"""What a worker reports of itself, without brokers: counted here, and told as the module spells it out."""

import ast
import asyncio
import json
import logging
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import faust
import pytest
from faust.exceptions import KeyDecodeError, ValueDecodeError
from faust.types import TP

import streamgauge.faust
from streamgauge.faust import BOUNDS_SECONDS, Reporter

ORDERS = TP("orders", 0)


class Clock:
    """Gives the time it was told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class OneStream:
    """What a sensor sees of the stream of an agent."""

    def __init__(self, agent):
        self.prefix = agent

    def get_root_stream(self):
        return self


@pytest.fixture
async def app():
    return faust.App("shop", web_enabled=False)


def process(reporter, stream, tp, seconds, monkeypatch):
    """Let an agent take this long over a record."""
    monkeypatch.setattr(streamgauge.faust, "perf_counter", lambda: 10.0)
    state = reporter.on_stream_event_in(tp, 0, stream, None)
    monkeypatch.setattr(streamgauge.faust, "perf_counter", lambda: 10.0 + seconds)
    reporter.on_stream_event_out(tp, 0, stream, None, state)


def told_of(reporter, agent, topic="orders"):
    return next(each for each in reporter.report()["agents"] if (agent, topic) == (each["agent"], each["topic"]))


async def test_records_are_counted_by_agent_and_topic_with_how_long_they_took(app, monkeypatch):
    """A bound is the greatest duration that it still counts; beyond all there is one place more."""
    reporter = streamgauge.faust.install(app)
    add = OneStream("add")
    for seconds in (BOUNDS_SECONDS[0] / 2, 0.0625, 0.0625, 100.0):
        process(reporter, add, ORDERS, seconds, monkeypatch)
    process(reporter, add, TP("returns", 3), 0.0, monkeypatch)
    process(reporter, OneStream("log"), ORDERS, 0.0, monkeypatch)
    told = told_of(reporter, "add")

    assert 4 == told["events"]
    assert 100.125 + BOUNDS_SECONDS[0] / 2 == pytest.approx(told["seconds"])
    assert {0: 1, BOUNDS_SECONDS.index(0.1): 2, len(BOUNDS_SECONDS): 1} == {
        place: count for place, count in enumerate(told["durations"]) if count
    }
    assert [1, 1] == [told_of(reporter, "add", "returns")["events"], told_of(reporter, "log")["events"]]


async def test_a_bound_counts_what_takes_exactly_as_long(app, monkeypatch):
    """As Prometheus' le has it."""
    reporter = streamgauge.faust.install(app)
    monkeypatch.setattr(streamgauge.faust, "perf_counter", lambda: 0.5)
    reporter.on_stream_event_out(ORDERS, 0, OneStream("add"), None, 0.0)

    assert 1 == told_of(reporter, "add")["durations"][BOUNDS_SECONDS.index(0.5)]


async def test_a_record_handed_over_before_the_sensor_came_is_not_counted(app):
    """Nobody knows when that was."""
    reporter = streamgauge.faust.install(app)
    reporter.on_stream_event_out(ORDERS, 0, OneStream("add"), None, None)

    assert [] == reporter.report()["agents"]


async def test_a_batch_counts_each_of_its_records_with_its_share_of_the_time(app):
    """For processors that take fetched batches past Faust's streams."""
    reporter = streamgauge.faust.install(app)
    reporter.note_batch("fast", "orders", 200, 0.2, errors=3)
    reporter.note_batch("fast", "orders", 0, 5.0)
    reporter.note_errors("fast", "orders", 2)
    told = told_of(reporter, "fast")

    assert (200, 5, 0.2) == (told["events"], told["errors"], told["seconds"])
    assert 200 == told["durations"][BOUNDS_SECONDS.index(0.001)]


async def test_an_app_says_in_its_own_words_what_its_records_came_to(app):
    """Nothing as long as nobody says it, nor where saying it fails; the rest of the report is there."""
    reporter = streamgauge.faust.install(app)
    before = reporter.report()["outcomes"]
    reporter.outcomes = lambda: {"averaged": 9, "late": 1}
    told = reporter.report()["outcomes"]
    reporter.outcomes = lambda: 1 // 0
    failing = reporter.report()

    assert ({}, {"averaged": 9, "late": 1}, {}) == (before, told, failing["outcomes"])
    assert streamgauge.faust.SCHEMA == failing["schema"]


def commits(reporter):
    told = reporter.report()["commits"]
    return told["count"], told["age_seconds"], told["waiting_seconds"]


async def test_a_record_waits_until_a_commit_of_its_partition_went_through(app):
    """A commit that failed, one of another partition, and one that began before it do not cover it."""
    clock = Clock()
    reporter = Reporter(app, "t", 5.0, "w", clock)
    other = TP("orders", 1)
    assert (0, None, 0.0) == commits(reporter)
    reporter.on_message_out(ORDERS, 1, None)
    clock.now += 1
    reporter.on_message_out(ORDERS, 2, None)
    reporter.on_message_out(other, 1, None)
    reporter.on_commit_initiated(None)  # and fails
    clock.now += 1
    reporter.on_message_out(ORDERS, 3, None)
    assert (0, None, 2.0) == commits(reporter)
    reporter.on_commit_initiated(None)
    reporter.on_message_out(other, 2, None)
    clock.now += 1
    app.tables.on_commit({other: 2})
    assert (1, 0.0, 3.0) == commits(reporter)
    reporter.on_commit_initiated(None)
    clock.now += 1
    app.tables.on_commit({ORDERS: 3})
    assert (2, 0.0, 2.0) == commits(reporter)
    reporter.on_commit_initiated(None)
    app.tables.on_commit({other: 3})

    assert (3, 0.0, 0.0) == commits(reporter)


async def test_after_a_rebalance_nothing_waits_that_others_will_commit(app):
    """Records that were not committed come again, to whoever has their partition."""
    clock = Clock()
    reporter = Reporter(app, "t", 5.0, "w", clock)
    reporter.on_message_out(ORDERS, 1, None)
    reporter.on_rebalance_start(app)
    reporter.on_rebalance_end(app, {})
    clock.now += 60

    assert 0.0 == reporter.report()["commits"]["waiting_seconds"]


async def test_a_rebalance_lasts_from_its_first_beginning_until_records_flow_again(app):
    """One that begins while another goes on is counted, and is no new beginning."""
    clock = Clock()
    reporter = Reporter(app, "t", 5.0, "w", clock)
    assert "starting" == reporter.report()["state"]
    reporter.on_rebalance_start(app)
    clock.now += 2
    reporter.on_rebalance_start(app)
    clock.now += 3
    told = reporter.report()
    assert ("rebalancing", 5.0) == (told["state"], told["rebalances"]["running_seconds"])
    reporter.on_rebalance_end(app, {})
    clock.now += 50
    reporter.on_rebalance_start(app)
    clock.now += 1
    reporter.on_rebalance_end(app, {})
    told = reporter.report()

    assert {"count": 3, "seconds": 6.0, "last_seconds": 1.0, "running_seconds": None} == told["rebalances"]
    assert "running" == told["state"]


async def test_what_an_agent_raises_is_counted_and_goes_on_to_its_own_handler(app):
    """The handler is called once however often agents are looked at."""
    heard = []

    async def on_error(agent, exc):
        heard.append(exc)

    @app.agent(app.topic("orders"), name="add")
    async def add(stream):
        async for _ in stream:
            pass

    add._on_error = on_error
    reporter = streamgauge.faust.install(app)
    for _ in range(3):
        reporter._watch_agents()
    problem = ValueError("thirteen")
    await add._on_error(add, problem)

    assert [problem] == heard
    assert 1 == told_of(reporter, "add")["errors"]


async def test_records_that_faust_skips_are_counted_for_who_reads_their_topic(app):
    """Faust says nothing of them; apps without a reporter are left alone."""

    @app.agent(app.topic("orders"), name="add")
    async def add(stream):
        async for _ in stream:
            pass

    reporter = streamgauge.faust.install(app)
    first, second = (SimpleNamespace(topic="orders", tp=ORDERS, offset=offset) for offset in (7, 8))
    reporter._watch_agents()
    for each in (app, app, faust.App("other", web_enabled=False)):  # Faust says it to each of an agent's channels
        await each.topic("orders").on_value_decode_error(ValueDecodeError("no JSON"), first)
    await app.topic("orders").on_key_decode_error(KeyDecodeError("no text"), second)
    await add._on_error(add, ValueDecodeError("no JSON"))  # and throws it into the agent

    assert (0, 2) == (told_of(reporter, "add")["events"], told_of(reporter, "add")["decode_errors"])
    assert 0 == told_of(reporter, "add")["errors"]


async def test_an_app_gets_one_reporter_however_often_it_is_installed(app):
    """As when a module is imported under two names."""
    first = streamgauge.faust.install(app)

    assert first is streamgauge.faust.install(app)
    assert first is streamgauge.faust.reporter(app)
    assert streamgauge.faust.reporter(faust.App("other", web_enabled=False)) is None


async def test_table_sizes_are_told_where_they_cost_nothing(app, monkeypatch):
    """RocksDB estimates its own; what would have to be read in full is unknown."""
    reporter = streamgauge.faust.install(app)
    app.Table("totals").data.data.update(a=1, b=2)
    size = SimpleNamespace(property_int_value={"rocksdb.estimate-num-keys": 20}.get)
    app.Table("big")._data = SimpleNamespace(data=None, _dbs={0: size, 1: size})
    app.Table("foreign")._data = SimpleNamespace()
    told = {each["table"]: each["entries"] for each in reporter.report()["tables"]}

    assert {"totals": 2, "big": 40, "foreign": None} == told


async def test_a_report_is_json_with_the_names_of_its_schema(app):
    """The module's own words are the contract."""
    reporter = streamgauge.faust.install(app, worker="w-1", interval_seconds=2.0)
    told = json.loads(json.dumps(reporter.report(), allow_nan=False))

    assert ("shop", "w-1", 2.0, 1) == (told["app"], told["worker"], told["interval_seconds"], told["schema"])
    assert [] == [name for name in told if f'"{name}":' not in streamgauge.faust.__doc__]


async def test_what_faust_cannot_say_is_unknown_and_logged_once(app, caplog):
    """Another release may have moved it; the app runs on."""
    reporter = streamgauge.faust.install(app)
    app.tables = SimpleNamespace(items=lambda: 1 / 0)
    with caplog.at_level(logging.WARNING, "streamgauge.faust"):
        first, second = reporter.report(), reporter.report()

    assert [[], []] == [first["tables"], second["tables"]]
    assert 1 == sum("tables cannot be observed: ZeroDivisionError" in each for each in caplog.messages)


async def test_brokers_that_are_away_cost_reports_and_nothing_else(caplog):
    """Each report that cannot be sent is dropped and counted; stopping does not wait for it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        app = faust.App("alone", broker=f"kafka://127.0.0.1:{reserved.getsockname()[1]}", web_enabled=False)
        reporter = streamgauge.faust.install(app, interval_seconds=0.01)
        await reporter.on_start()
        async with asyncio.timeout(30):
            while reporter.report()["dropped_reports"] < 2:
                await asyncio.sleep(0.01)
        await reporter.on_stop()

    assert "stopped" == reporter.report()["state"]
    assert 1 == sum("reporting cannot be observed" in each for each in caplog.messages)


def test_it_needs_faust_and_the_standard_library_only():
    """It may be copied into a project that has nothing else of ours."""
    tree = ast.parse(Path(streamgauge.faust.__file__).read_text(encoding="utf-8"))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else each.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for each in node.names
    }

    assert {"faust", "aiokafka"} == imported - set(sys.stdlib_module_names) - {"__future__"}
