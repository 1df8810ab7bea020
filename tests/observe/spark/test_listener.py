"""What listeners tell: recordings of Spark 3.5 to 4.3, and messages of whoever may write to the topic."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from told_events import RECORDINGS, T0, kafka_progress, message, recorded, running, told

from monitor.model import SparkMode, SparkState, TopicPartition
from monitor.observe.spark import listener
from monitor.observe.spark.listener import (
    RefusedError,
    Told,
    a_count,
    a_number,
    a_time,
    positions,
    read_progress,
    slowest,
    trigger_of,
)


def tp(topic, partition):
    return TopicPartition(topic, partition)


@pytest.mark.parametrize("release", ["3.5.8", "4.0.5", "4.3.0"])
def test_recordings_of_each_release_are_understood(release):
    """Every batch that was recorded is known by its number, with the duration Spark told, and none is refused."""
    lines = [json.loads(line) for line in (RECORDINGS / f"listener-events-{release}.jsonl").read_text().splitlines()]
    expected = {}
    for event in (line["event"] for line in lines if line["kind"] == "progress"):
        duration = event.get("batchDuration", event["durationMs"].get("triggerExecution"))
        expected.setdefault(event["id"], {})[event["batchId"]] = duration / 1000
    known = told(*recorded(f"listener-events-{release}.jsonl"), now=1_795_335_000)

    assert {} == known.refused
    assert expected == {
        each.query_id: {number: batch.duration_seconds for number, batch in each.batches.items()}
        for each in known.queries.values()
        if each.batches
    }
    assert {"agg_q", "file_q", "idle_q", "boom_q", None} == {each.name for each in known.queries.values()}
    failed = next(each for each in known.queries.values() if each.name == "boom_q")
    assert "Exception" in failed.exception
    assert "\n" not in failed.exception
    restarted = next(each for each in known.queries.values() if each.name == "agg_q")
    assert 1 == restarted.restarts


def test_a_recorded_stateful_batch_has_phases_and_state():
    """Seconds by phase without the whole, and the state after it, as Spark 4.3 told them."""
    known = told(*recorded("listener-events-4.3.0.jsonl"), now=1_795_335_000)
    query = next(each for each in known.queries.values() if each.name == "agg_q")
    line = next(
        json.loads(line)["event"]
        for line in (RECORDINGS / "listener-events-4.3.0.jsonl").read_text().splitlines()
        if '"name": "agg_q"' in line and '"batchId": 3' in line
    )
    batch = query.batches[3]
    operator = query.last.state[0]

    assert {name: ms / 1000 for name, ms in line["durationMs"].items() if name != "triggerExecution"} == batch.phases
    assert (line["numInputRows"], line["sink"]["numOutputRows"]) == (batch.input_rows, batch.output_rows)
    assert a_time(line["eventTime"]["watermark"]) == batch.watermark
    assert isinstance(operator, SparkState)
    assert "stateStoreSave 0" == operator.operator
    assert operator.rows > 0
    assert operator.commit_seconds > 0


def test_real_time_batches_are_read_like_others():
    """Their events have the same shape; which mode it is, the trigger says."""
    known = told(*recorded("rtm-4.3.0.jsonl"))
    (query,) = known.queries.values()

    assert [5.844, 5.104, 5.118] == [batch.duration_seconds for batch in query.batches.values()]


def test_kafka_offsets_are_positions_rows_and_reported_lag():
    """Committed are the ends, rows what the ranges span, and what Spark calls its lag is kept apart."""
    event = kafka_progress(
        3,
        {"orders": {"0": 122, "1": 121}},
        starts={"orders": {"0": 82, "1": 101}},
        newest={"orders": {"0": 542, "1": 121}},
    )  # fmt: skip
    progress = read_progress(event)

    assert {tp("orders", 0): 122, tp("orders", 1): 121} == progress.ends
    assert {tp("orders", 0): 420, tp("orders", 1): 0} == progress.reported
    assert (60, 40, 30.0) == (progress.batch.input_rows, progress.batch.most_rows, progress.batch.median_rows)
    assert (1, 1) == (progress.sources, progress.kafka_sources)


def test_the_recorded_shape_with_objects_is_the_same():
    """Other releases and sources have offsets as objects."""
    progress = read_progress(json.loads((RECORDINGS / "progress-kafka-shaped-4.3.0.json").read_text()))

    assert {tp("orders", 0): 122, tp("orders", 1): 121, tp("pay", 0): 122} == progress.ends
    assert {tp("orders", 0): 420, tp("orders", 1): 150, tp("pay", 0): 420} == progress.reported
    assert 120 == progress.batch.input_rows


@pytest.mark.parametrize(
    ("starts", "ends", "rows"),
    [
        pytest.param(None, {"t": {"0": 9}}, 7, id="first-batch-counts-what-spark-counts"),
        pytest.param({"t": {"0": 4}}, {"t": {"0": 9, "1": 3}}, 7, id="new-partition-as-well"),
        pytest.param({"t": {"0": 9}}, {"t": {"0": 4}}, 0, id="topic-made-anew"),
    ],
)
def test_rows_where_a_range_is_not_known(starts, ends, rows):
    """Spark's count stands in where a start is missing; an end below its start is no negative number."""
    assert rows == read_progress(kafka_progress(1, ends, starts=starts)).batch.input_rows


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        pytest.param({"batchDuration": 1639, "durationMs": {"triggerExecution": 1, "addBatch": 1}}, 1.639, id="4.x"),
        pytest.param({"durationMs": {"triggerExecution": 7830, "addBatch": 7000}}, 7.83, id="3.5"),
        pytest.param({"durationMs": {"addBatch": 400, "walCommit": 100}}, 0.5, id="whole-missing"),
        pytest.param({"durationMs": {}}, None, id="nothing-told"),
        pytest.param({"batchDuration": "long", "durationMs": {"addBatch": -4}}, None, id="wrong-types"),
    ],
)
def test_how_long_a_batch_took(event, seconds):
    """Spark's own words in the order of what they are worth."""
    event |= {"batchId": 1, "timestamp": "2026-11-22T07:40:00.000Z"}

    assert seconds == read_progress(event).batch.duration_seconds


def test_an_idle_poll_is_no_batch():
    """Without addBatch nothing was run: its number is that of the next batch."""
    idle = kafka_progress(4, {"t": {"0": 9}}, starts={"t": {"0": 9}}) | {"durationMs": {"latestOffset": 2}}
    known = told(message("progress", kafka_progress(3, {"t": {"0": 9}})), message("progress", idle, seq=2))

    assert [3] == list(known.queries["q1"].batches)


def test_the_epoch_is_no_watermark():
    """Spark says 1970 for: none yet."""
    event = kafka_progress(1, {"t": {"0": 9}}, eventTime={"watermark": "1970-01-01T00:00:00.000Z"})

    assert None is read_progress(event).watermark


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ProcessingTimeTrigger(10000)", (10.0, SparkMode.MICRO_BATCH)),
        ("ProcessingTimeTrigger(0)", (None, SparkMode.MICRO_BATCH)),
        ("ContinuousTrigger(1000)", (None, SparkMode.CONTINUOUS)),
        ("RealTimeTrigger(5000)", (None, SparkMode.REAL_TIME)),
        ("AvailableNowTrigger", (None, None)),
        ("OneTimeTrigger", (None, None)),
        (None, (None, None)),
    ],
    ids=str,
)
def test_triggers(text, expected):
    """What no event tells, as Spark prints it; as-soon-as-possible has no interval."""
    assert expected == trigger_of(text)


def test_signs_of_life_name_queries_that_nothing_else_was_told_of():
    """A query that hangs in its first batch is known by its name, trigger and checkpoint."""
    alive = {"queries": [running(trigger="ProcessingTimeTrigger(2000)", checkpoint="file:/c/orders")]}
    query = told(message("alive", alive)).queries["q1"]

    assert ("orders", "ProcessingTimeTrigger(2000)", "file:/c/orders", T0) == (
        query.name, query.trigger, query.checkpoint, query.heard_at,
    )  # fmt: skip


def test_how_a_run_ended_is_forgotten_by_the_next():
    """A restart under the same id clears what the run before ended by, and is counted."""
    known = told(
        message("started", {"id": "q1", "runId": "r1"}),
        message(
            "terminated", {"id": "q1", "runId": "r1", "exception": "boom\nat x", "errorClassOnException": "E"}, seq=2
        ),
    )
    query = known.queries["q1"]
    assert ("[E] boom", T0) == (query.exception, query.ended_at)
    known.take(message("started", {"id": "q1", "runId": "r2"}, seq=3, at=T0 + 5), T0 + 10)

    assert (None, None, "r2", 1) == (query.exception, query.ended_at, query.run_id, query.restarts)


def test_old_news_from_another_partition_changes_nothing():
    """A sign of life of the run before that is read late is no restart."""
    known = told(
        message("started", {"id": "q1", "runId": "r2"}, at=T0 + 5, seq=9),
        message("alive", {"queries": [running(run="r1")]}, at=T0, seq=3),
    )

    assert ("r2", 0, T0 + 5) == (
        known.queries["q1"].run_id, known.queries["q1"].restarts, known.queries["q1"].heard_at,
    )  # fmt: skip


def test_what_is_sent_twice_counts_once():
    """A retry has the same number; another process has numbers of its own."""
    event = {"id": "q1", "runId": "r1", "exception": None}
    twice = [
        message("alive", {"queries": []}, seq=4),
        message("started", event, seq=5),
        message("started", event, seq=5),
    ]
    (sender,) = told(*twice).instances.values()

    assert (2, 4, 5) == (sender.received, sender.first, sender.last)


def test_a_gap_is_a_loss_only_when_it_stays():
    """Partitions are not read in order: what is missing at one look may come with the next."""
    known = told(*(message("idle", {"id": "q1", "runId": "r1"}, seq=seq) for seq in (1, 2, 5, 6)))
    (sender,) = known.instances.values()
    assert 0 == sender.lost
    known.take(message("idle", {"id": "q1", "runId": "r1"}, seq=3), T0 + 11)
    known.settle(T0 + 11)

    assert 1 == sender.lost


def test_what_the_job_dropped_is_kept():
    """Its own queue, and the bus of Spark."""
    alive = {"queries": None, "dropped": {"queue": 3, "size": 1, "refused": 0}, "bus_dropped": 40}
    (sender,) = told(message("alive", alive)).instances.values()

    assert (4, 40) == (sender.dropped, sender.bus_dropped)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"\xff\xfe", "a message that is not JSON", id="not-utf8"),
        pytest.param(message("started", {"id": "q"})[:-9], "a message that is not JSON", id="torn"),
        pytest.param(b"[" * 100_000, "a message that is not JSON", id="deep"),
        pytest.param(b"[]", "a message that is no JSON object", id="no-object"),
        pytest.param(b'{"v": 2}', "a message of a version that is not known here", id="version"),
        pytest.param(message("drop_tables", {}), "a message of a kind that is not known here", id="kind"),
        pytest.param(b'{"v":1,"kind":["x"]}', "a message of a kind that is not known here", id="kind-type"),
        pytest.param(message("started", {"runId": "r"}), "a query without an id", id="no-id"),
        pytest.param(message("started", {"id": 7}), "a query without an id", id="id-type"),
        pytest.param(message("started", "text"), "a query without an id", id="event-type"),
        pytest.param(message("progress", {"id": "q"}), "a progress event without a batch id", id="no-batch"),
        pytest.param(message("progress", {"id": "q", "batchId": 1}), "a progress event without a time", id="no-time"),
        pytest.param(b" " * 8_000_001, "a message larger than is taken", id="huge"),
    ],
)
def test_what_does_not_follow_the_schema_is_counted_and_changes_nothing(raw, reason):
    """One reason a kind of fault, never a word of the message itself."""
    known = told(raw)

    assert {reason: 1} == known.refusals()
    assert {} == known.refusals()
    assert {} == dict(known.queries)


def test_times_of_the_future_count_as_now():
    """A clock that is ahead, or a liar, cannot make a query look alive for ever."""
    known = told(message("started", {"id": "q1", "runId": "r1"}, at=9e12), now=T0)

    assert T0 == known.queries["q1"].heard_at


def test_what_is_kept_is_bounded(monkeypatch):
    """Queries, positions of all of them, processes, batches, texts: the longest silent go first, and it is said."""
    monkeypatch.setattr(listener, "MOST_QUERIES", 3)
    monkeypatch.setattr(listener, "MOST_INSTANCES", 2)
    monkeypatch.setattr(listener, "MOST_BATCHES", 5)
    known = Told()
    for number in range(6):
        known.take(message("started", {"id": f"q{number}", "name": "n" * 9000}, instance=f"i{number}"), T0)
    for batch in range(20):
        known.take(message("progress", kafka_progress(batch, {"t": {"0": batch}}, query="q5"), seq=batch + 2), T0)

    assert ["q3", "q4", "q5"] == list(known.queries)
    assert 2 == len(known.instances)
    assert [15, 16, 17, 18, 19] == list(known.queries["q5"].batches)
    assert 500 == max(len(query.name) for query in known.queries.values())
    assert 3 == known.refused["more queries or positions than are kept: the longest silent one was forgotten"]


def test_positions_of_all_queries_are_bounded_together(monkeypatch):
    """A few queries of very many partitions cannot fill the memory either."""
    monkeypatch.setattr(listener, "MOST_POSITIONS", 250)
    known = Told()
    wide = {"t": {str(partition): 5 for partition in range(100)}}
    for number in range(4):
        known.take(message("progress", kafka_progress(1, wide, query=f"q{number}"), seq=number + 1), T0)

    assert ["q3"] == list(known.queries)


def test_silent_queries_are_forgotten_after_a_day():
    """Who has not been heard of for so long is not shown any more."""
    known = told(message("started", {"id": "q1"}))
    known.settle(T0 + listener.FORGET_SECONDS + 1)

    assert ({}, {}) == (dict(known.queries), dict(known.instances))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("id", "runId", "name", "batchId", "timestamp", "durationMs", "sources", "sink", "eventTime", "stateOperators",
          "queries", "dropped", "exception", "batchDuration", "numInputRows")  # fmt: skip


@given(
    st.sampled_from(["started", "progress", "idle", "terminated", "alive", "ended"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON),
    st.dictionaries(st.sampled_from(["at", "app", "instance", "seq"]), JSON),
)
def test_no_event_whatever_its_types_gets_through_or_raises(kind, changes, envelope):
    """Good events with anything in place of some of their fields are taken in part or refused, nothing else."""
    event = kafka_progress(1, {"t": {"0": 9}}, starts={"t": {"0": 4}}) | {"queries": [running()]} | changes
    raw = json.loads(message(kind, {})) | {"event": event} | envelope
    known = told(json.dumps(raw).encode())
    known.refusals()

    for query in known.queries.values():
        assert query.heard_at <= T0 + 10
        for batch in query.batches.values():
            assert batch.duration_seconds is None or 0 <= batch.duration_seconds < math.inf
            assert batch.input_rows is None or batch.input_rows >= 0


@given(JSON)
def test_values_are_what_they_seem_or_unknown(value):
    """Counts are whole and not negative, numbers finite, times after the epoch, positions like Kafka's."""
    count, number, found = a_count(value), a_number(value), positions(value)

    assert count is None or (type(count) is int and count >= 0)
    assert number is None or 0 <= number < math.inf
    assert found is None or all(offset >= 0 for offset in found.values())


@pytest.mark.parametrize(
    "value",
    [
        "-", None, 11, "{", [], {}, {"t": 5}, {"t": {"x": 1}}, {"t": {"0": -1}}, {"t": {"0": 1.5}}, {"t": {"0": True}},
        {"t": {"0": 2**63}}, {"t": {"²": 1}}, {"t": {"9" * 12: 1}}, '{"t": {"0": "1"}}',
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_like_kafkas_offsets(value):
    """Other sources have offsets of their own, and they are no positions."""
    assert None is positions(value)


def test_of_two_sources_on_one_partition_the_slower_counts():
    """What it has not read of either source it has not read."""
    assert {tp("t", 0): 3, tp("t", 1): 9} == slowest([{tp("t", 0): 5, tp("t", 1): 9}, {tp("t", 0): 3}])


def test_a_refusal_is_a_value_error():
    """Who calls the parts by themselves may catch it as what it is."""
    with pytest.raises(ValueError, match="without a batch id"):
        read_progress({})
    assert issubclass(RefusedError, ValueError)
