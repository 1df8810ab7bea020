"""The listener in the job: what is sent, what is dropped and counted, and that the job never notices."""

import ast
import gc
import http.server
import json
import logging
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_spark import FakeConnect, FakeSpark, JavaQuery, Sink, progress, started, terminated
from hypothesis import given
from hypothesis import strategies as st
from kafka_feed import consume, create_topics

import streamgauge.spark
from streamgauge.spark import HttpSend, RefusedError, Waiting, attach, kafka_send

SOURCE = Path(streamgauge.spark.__file__)


@pytest.fixture
def attached():
    """Give a function that attaches a session to a sink; all are detached after the test."""
    made = []

    def do(spark, sink, **options):
        made.append(attach(spark, send=sink, **{"alive_seconds": 1000.0, **options}))
        return made[-1]

    yield do
    for each in made:
        each.detach()


@pytest.fixture
def warnings_of(caplog):
    caplog.set_level(logging.WARNING, "streamgauge.spark")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "streamgauge.spark"]


def test_events_are_sent_as_spark_told_them(attached):
    """Each event is one message with Spark's JSON unchanged, its query id as key, numbered, in order."""
    spark, sink = FakeSpark(), Sink()
    attached(spark, sink)
    told = [
        ("started", started()),
        ("progress", progress(batch=0)),
        ("idle", {"id": "q1", "runId": "r1", "timestamp": "t"}),
        ("terminated", terminated()),
    ]
    for kind, body in told:
        spark.tell(kind, body)
    sink.wait(lambda s: "terminated" in s.kinds())

    assert told == [(each["kind"], each["event"]) for each in sink.bodies if each["kind"] != "alive"]
    assert [b"q1"] * 4 == [key for key, value in sink.messages if b'"kind":"alive"' not in value]
    assert list(range(1, len(sink.bodies) + 1)) == [each["seq"] for each in sink.bodies]
    assert {(1, "app-1")} == {(each["v"], each["app"]) for each in sink.bodies}


def test_a_new_query_is_told_with_what_no_event_says(attached):
    """Trigger, checkpoint and what it does right now follow its start at once."""
    spark, sink = FakeSpark(dropped=7), Sink()
    attached(spark, sink)
    sink.wait(lambda s: s.kinds() == ["alive"])
    spark.running.append(JavaQuery("q1", "r1", "orders"))
    spark.tell("started", started())
    sink.wait(lambda s: s.kinds() == ["alive", "started", "alive"])

    alive = sink.bodies[-1]["event"]
    assert [
        {
            "id": "q1", "runId": "r1", "name": "orders", "trigger": "ProcessingTimeTrigger(10000)",
            "checkpoint": "file:/c", "active": True, "message": "Waiting for data",
        }
    ] == alive["queries"]  # fmt: skip
    assert (7, "4.2.0") == (alive["bus_dropped"], alive["spark"])


def test_signs_of_life_are_sent_while_nothing_happens(attached):
    """A batch that hangs sends no event; the process says that it lives."""
    sink = Sink()
    attached(FakeSpark(), sink, alive_seconds=0.01)
    sink.wait(lambda s: len(s.kinds()) >= 3)

    assert {"alive"} == set(sink.kinds())


def test_a_session_that_does_not_answer_is_unknown_and_not_empty(attached):
    """When the JVM is gone, which queries run is null."""
    spark, sink = FakeSpark(), Sink()
    spark.running.append(object())
    attached(spark, sink)
    sink.wait(lambda s: s.kinds() == ["alive"])

    assert sink.bodies[0]["event"]["queries"] is None


def test_ends_of_other_sessions_queries_are_left_out(attached):
    """Spark tells every session of the end of each query: those that are not ours are left out, none is told twice."""
    ours, second, sink = FakeSpark(), FakeSpark(), Sink()
    attached(ours, sink).add(second)
    ours.tell("terminated", terminated("q9", "r9"))
    second.tell("started", started("q2", "r2"))
    for spark in (ours, second):
        spark.tell("terminated", terminated("q2", "r2"))
    ours.tell("started", started("q3", "r3"))
    sink.wait(lambda s: s.kinds("alive")[-1:] == ["started"] and len(s.kinds("alive")) > 2)

    assert [("started", "q2"), ("terminated", "q2"), ("started", "q3")] == [
        (each["kind"], each["event"]["id"]) for each in sink.bodies if each["kind"] != "alive"
    ]


def test_the_end_of_a_query_that_ran_before_is_told(attached):
    """Who attaches late knows the queries that run already."""
    spark, sink = FakeSpark(), Sink()
    spark.running.append(JavaQuery("q1", "r1"))
    attached(spark, sink)
    sink.wait(lambda s: s.kinds() == ["alive"])
    spark.tell("terminated", terminated())
    sink.wait(lambda s: s.kinds() == ["alive", "terminated"])


def test_attaching_again_replaces(attached):
    """A notebook cell that is run twice does not send everything twice."""
    spark, first, second = FakeSpark(), Sink(), Sink()
    attached(spark, first)
    attached(spark, second).add(spark)
    spark.tell("started", started())
    second.wait(lambda s: "started" in s.kinds())
    first.wait(lambda s: "ended" in s.kinds())

    assert 1 == len(spark.listeners)
    assert "attached anew" == first.bodies[-1]["event"]["reason"]
    assert "started" not in first.kinds()


def test_what_cannot_be_sent_yet_is_sent_later(attached, warnings_of):
    """Nothing is lost while the other side is away for a moment; it is logged once."""
    spark, sink = FakeSpark(), Sink()
    sink.fail = OSError("nobody there")
    attached(spark, sink)
    sink.wait(lambda s: s.tries == 1)
    for batch in range(20):
        spark.tell("progress", progress(batch=batch))
    sink.wait(lambda s: s.tries >= 2)
    sink.fail = None
    sink.wait(lambda s: len(s.kinds("alive")) == 20)

    assert list(range(20)) == [each["event"]["batchId"] for each in sink.bodies if each["kind"] == "progress"]
    assert ["events not sent yet: OSError: nobody there (said once; the job is not affected)"] == warnings_of()


def test_what_nobody_wants_is_counted_and_left(attached, warnings_of):
    """A refusal is final for these messages; the next ones are tried."""
    spark, sink = FakeSpark(), Sink()
    sink.fail = RefusedError("400 Bad Request")
    attachment = attached(spark, sink)
    sink.wait(lambda s: s.tries == 1)
    sink.fail = None
    spark.tell("started", started())
    sink.wait(lambda s: s.kinds() == ["started", "alive"])

    assert 1 == attachment.counts["refused"] == sink.bodies[-1]["event"]["dropped"]["refused"]
    assert 2 == sink.bodies[0]["seq"]
    assert 1 == len(warnings_of())


def test_a_full_queue_drops_old_batches_and_says_so(attached):
    """Starts and ends are kept; how much was dropped is in the next sign of life."""
    spark, sink, gate = FakeSpark(), Sink(), threading.Event()

    def slow(messages):
        gate.wait(20)
        sink(messages)

    attachment = attached(spark, slow, queue_events=3)
    spark.tell("started", started())
    for batch in range(10):
        spark.tell("progress", progress(batch=batch))
    gate.set()
    sink.wait(lambda s: "progress" in s.kinds())
    attachment.detach()

    assert [8, 9] == [each["event"]["batchId"] for each in sink.bodies if each["kind"] == "progress"]
    assert "started" in sink.kinds()
    assert ("ended", 8) == (sink.bodies[-1]["kind"], sink.bodies[-1]["event"]["dropped"]["queue"])


@given(
    st.lists(st.tuples(st.sampled_from(["started", "progress", "idle", "terminated"]), st.integers(0, 40))),
    st.integers(1, 8),
    st.integers(1, 100),
)
def test_the_queue_is_bounded_and_loses_nothing_uncounted(puts, most_events, most_bytes):
    """However much is put in, neither number nor bytes exceed their bounds; what went in came out or was counted."""
    waiting = Waiting(most_events, most_bytes)
    for kind, size in puts:
        waiting.put(kind, 0.0, "x" * size)
    taken = waiting.take(0.0, 1000)

    assert len(taken) <= most_events
    assert sum(len(event.text) for event in taken) <= most_bytes
    assert len(puts) == len(taken) + waiting.dropped
    waiting.put("idle", 0.0, "x")
    assert ["x"] == [event.text for event in waiting.take(0.0, 1000)]


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        pytest.param(
            {"stateOperators": [{"operatorName": "s", "customMetrics": {"a": "x" * 950_000}}]}, True, id="fits"
        ),
        pytest.param({"sources": [{"endOffset": "x" * 950_000}]}, False, id="never-fits"),
    ],
)
def test_an_event_too_large_for_a_message(attached, more, sent):
    """What grows with partitions is left out, and the event says so; if it is still too large it is counted."""
    spark, sink = FakeSpark(), Sink()
    attachment = attached(spark, sink)
    spark.tell("progress", progress(**more))
    spark.tell("started", started())
    sink.wait(lambda s: "started" in s.kinds())

    found = [each["event"] for each in sink.bodies if each["kind"] == "progress"]
    assert [True] * sent == [each["shortened"] for each in found]
    assert (not sent) == attachment.counts["size"]
    assert all(len(value) < 1_000_000 for _, value in sink.messages)


def test_an_event_that_cannot_be_read_never_reaches_the_job(attached, warnings_of):
    """What py4j raises stays here, said once a kind."""
    spark, sink = FakeSpark(), Sink()
    attached(spark, sink)

    def torn():
        raise ValueError("torn")

    for _ in range(3):
        for listener in spark.listeners:
            listener.onQueryProgress(SimpleNamespace(progress=torn))
    spark.tell("started", started())
    sink.wait(lambda s: "started" in s.kinds())

    assert ["progress event not read: ValueError: torn (said once; the job is not affected)"] == warnings_of()


def test_what_is_no_session_is_not_attached_and_not_raised(warnings_of):
    """A job with a Spark that is not understood runs unseen."""
    attach(object(), send=lambda messages: None).detach()

    assert 1 == len(warnings_of())
    assert warnings_of()[0].startswith("not attached: AttributeError")


def test_releases_whose_events_have_no_json(attached):
    """The fields that matter are asked for one by one."""
    spark, sink = FakeSpark(), Sink()
    attached(spark, sink)
    spark.tell("started", started(name=None), has_json=False)
    sink.wait(lambda s: "started" in s.kinds())

    assert started(name=None) == next(each["event"] for each in sink.bodies if each["kind"] == "started")


def public(kind, body):
    """Make an event as pyspark's public class hands it on."""
    if kind == "progress":
        return SimpleNamespace(progress=SimpleNamespace(json=json.dumps(body)))
    return SimpleNamespace(**body)


def test_without_the_private_interface_the_public_class_is_used(attached):
    """The same messages, at what pyspark's conversion costs."""
    spark, sink = FakeSpark(direct=False), Sink()
    attached(spark, sink)
    from pyspark.sql.streaming.listener import StreamingQueryListener

    (listener,) = spark.listeners
    assert isinstance(listener, StreamingQueryListener)
    listener.onQueryStarted(public("started", started()))
    listener.onQueryProgress(public("progress", progress()))
    listener.onQueryIdle(SimpleNamespace(id="q1", runId="r1", timestamp="t"))
    listener.onQueryTerminated(public("terminated", terminated(exception="boom")))
    sink.wait(lambda s: "terminated" in s.kinds())

    assert [started(), progress(), {"id": "q1", "runId": "r1", "timestamp": "t"}, terminated(exception="boom")] == [
        each["event"] for each in sink.bodies if each["kind"] != "alive"
    ]


def test_a_connect_session_is_listened_to_again_when_its_stream_broke(attached):
    """pyspark forgets all listeners then and only warns; the next sign of life puts ours back and counts it."""
    spark, sink = FakeConnect(), Sink()
    attachment = attached(spark, sink, alive_seconds=0.01)
    sink.wait(lambda s: s.kinds() != [])
    spark.break_stream()
    sink.wait(lambda s: s.bodies[-1]["event"].get("reattached") == 1)
    spark.tell("started", public("started", started()))
    sink.wait(lambda s: "started" in s.kinds())

    listeners = spark.streams._sqlb._listener_bus
    assert 1 == len(listeners)
    assert None is sink.bodies[-1]["event"].get("bus_dropped")
    attachment.detach()
    assert [] == listeners


def test_a_stopped_spark_ends_the_thread(attached):
    """Its last words say why; nothing pretends to be alive after that."""
    spark, sink = FakeSpark(), Sink()
    attached(spark, sink, alive_seconds=0.01)
    spark.stop()
    sink.wait(lambda s: "ended" in s.kinds())

    assert ("ended", "Spark stopped") == (sink.bodies[-1]["kind"], sink.bodies[-1]["event"]["reason"])


def test_where_to_comes_from_spark_or_the_environment(monkeypatch, warnings_of):
    """attach(spark) alone is enough where spark-submit was told the destination; nowhere is one line in the log."""
    configured = streamgauge.spark._configured
    monkeypatch.setenv("STREAMGAUGE_URL", "http://monitor:9761/")
    monkeypatch.delenv("STREAMGAUGE_BROKERS", raising=False)

    assert ("kafka:1", None) == configured(FakeSpark(conf={"spark.streamgauge.bootstrapServers": "kafka:1"}))
    assert (None, "http://x/") == configured(FakeSpark(conf={"spark.streamgauge.url": "http://x/"}))
    assert (None, "http://monitor:9761/") == configured(FakeSpark())
    monkeypatch.delenv("STREAMGAUGE_URL")
    spark = FakeSpark()
    attach(spark)
    assert [] == spark.listeners
    assert ["not attached: no destination: give bootstrap_servers or url, or set STREAMGAUGE_BROKERS"] == warnings_of()


@pytest.mark.parametrize(
    "wrong", [{"url": "http://x/", "bootstrap_servers": "k:1"}, {"client": "pulsar", "url": "http://x/"}], ids=str
)
def test_arguments_that_do_not_go_together_are_refused(wrong):
    """That is a mistake in the program and is found at once."""
    with pytest.raises(ValueError, match="attach: "):
        attach(FakeSpark(), **wrong)


LEAVING = """
import sys
from fake_spark import FakeSpark, started
from streamgauge.spark import attach

spark = FakeSpark()
attach(spark, send=lambda messages: sys.stdout.buffer.write(b"".join(value + b"\\n" for _, value in messages)))
spark.tell("started", started())
"""


def test_what_is_left_is_sent_when_the_process_ends():
    """A driver that ends says so and loses nothing that it had."""
    support = str(Path(sys.modules["fake_spark"].__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LEAVING], capture_output=True, check=True, env={"PYTHONPATH": support}, timeout=60
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]

    assert "started" in [each["kind"] for each in said]
    assert ("ended", "the process ends") == (said[-1]["kind"], said[-1]["event"]["reason"])
    assert b"" == done.stderr


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers with the codes that the server has, one after the other."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, self.headers["Content-Type"], self.headers["X-Token"], body))
        self.send_response(self.server.codes.pop(0))
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.taken, server.codes = [], []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}/events"
        yield server
        server.shutdown()


def test_by_http_messages_are_lines_of_a_post(web):
    """One POST for what is sent together, with the headers given."""
    web.codes = [204]
    HttpSend(web.url, {"X-Token": "t"})([(b"k", b'{"a":1}'), (b"k", b'{"a":2}')])

    assert [("/events", "application/x-ndjson", "t", b'{"a":1}\n{"a":2}\n')] == web.taken


@pytest.mark.parametrize(
    ("code", "raised"),
    [(400, RefusedError), (413, RefusedError), (429, OSError), (503, OSError)],
    ids=["bad", "too-large", "later", "down"],
)
def test_by_http_a_refusal_is_told_from_a_failure(web, code, raised):
    """What the other side may have mended by the next attempt is tried again; the rest is not."""
    web.codes = [code]
    with pytest.raises(raised):
        HttpSend(web.url, {})([(b"k", b"{}")])
    gc.collect()


def test_by_kafka_messages_are_records_with_the_query_id_as_key(kafka, attached):
    """confluent-kafka is found, and what it acknowledged another consumer reads."""
    topic = f"spark-events-{uuid.uuid4().hex[:8]}"
    create_topics(kafka.bootstrap, {topic: 1})
    spark = FakeSpark()
    attachment = attach(spark, bootstrap_servers=kafka.bootstrap, topic=topic, alive_seconds=1000)
    spark.tell("started", started())
    spark.tell("progress", progress())
    attachment.detach()
    records = consume(kafka.bootstrap, topic)

    found = [(record.key(), json.loads(record.value())) for record in records]
    assert [("started", b"q1"), ("progress", b"q1")] == [
        (body["kind"], key) for key, body in found if body["kind"] not in {"alive", "ended"}
    ]
    assert ("ended", b"app-1") == (found[-1][1]["kind"], found[-1][0])


def test_without_a_kafka_client_the_reason_says_what_to_do():
    """A job without any client is told all that was tried."""
    with pytest.raises(RefusedError, match=r"no Kafka client here: install confluent-kafka, or use url \(jvm: no JVM"):
        kafka_send("k:1", "t", "jvm", {}, None)


def test_it_is_one_file_of_the_standard_library_for_python_3_8():
    """Fit for --py-files on clusters whose Python is older than ours: syntax, and what it imports at its top."""
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level
            imported.add(node.module.split(".")[0])

    assert set() == imported - sys.stdlib_module_names
