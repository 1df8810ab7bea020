"""One query from its checkpoint and its listener: which of them each value is from, and where they disagree."""

import pytest
from told_events import T0, kafka_progress, message, running, told

from monitor.model import Consumer, Kind, SparkBatch, SparkMode, SparkQuery, TopicPartition
from monitor.observe.spark.join import EVENTS_DROPPED, EVENTS_MISSING, join

PLANNED = 1_795_333_200.0  # 2026-11-22T07:40:00Z, as kafka_progress says


def tp(partition):
    return TopicPartition("orders", partition)


def batch(number, *, committed_at=PLANNED + 1.2, **more):
    return SparkBatch(number, PLANNED, committed_at, 1.2, 39, **more)


def checkpoint(*, name="orders-v1", batches=(), batch_id=None, **more):
    return SparkQuery(
        consumer=Consumer(Kind.SPARK, name),
        query_id="q1",
        checkpoint="/data/checkpoints/orders-v1",
        observed_at=T0 + 10,
        committed={tp(0): 100},
        planned=more.pop("planned", {}),
        batch_id=batches[-1].batch_id if batches and batch_id is None else batch_id,
        batches=tuple(batches),
        **more,
    )


def progress(number, seq=1, ends=None, at=T0 + 2, **more):
    event = kafka_progress(number, {"orders": ends or {"0": 100}}, starts={"orders": {"0": 60}}, **more)
    return message("progress", event, seq=seq, at=at)


def joined(query, *messages):
    (only,), _ = join([query] if query else [], told(*messages), T0 + 10)
    return only


def test_a_query_that_both_see_is_one():
    """Positions and rows are the checkpoint's, what only the job knows is put in, and each value says where from."""
    query = joined(
        checkpoint(batches=[batch(3), batch(4)]),
        progress(3, newest={"orders": {"0": 142}}),
        progress(4, seq=2, newest={"orders": {"0": 142}}),
    )

    assert ("checkpoint", "listener") == query.seen_by
    assert ({tp(0): 100}, {tp(0): 42}) == (query.committed, query.reported)
    assert [(1.5, 39, 5), (1.5, 39, 5)] == [(b.duration_seconds, b.input_rows, b.output_rows) for b in query.batches]
    assert {"addBatch": 1.2, "walCommit": 0.1} == query.batches[-1].phases
    assert ("r1", T0 + 2) == (query.run_id, query.alive_at)
    assert "listener" == query.via["batches"] == query.via["reported"] == query.via["alive_at"]
    assert "committed" not in query.via


def test_batches_that_were_not_told_stay_as_the_checkpoint_has_them():
    """Batches of before the listener was there."""
    query = joined(checkpoint(batches=[batch(3), batch(4)]), progress(4))

    assert [(1.2, None), (1.5, 5)] == [(b.duration_seconds, b.output_rows) for b in query.batches]


@pytest.mark.parametrize(
    ("configured", "told_name", "shown"),
    [
        pytest.param("billing", "orders", "billing", id="configured"),
        pytest.param("orders-v1", "orders", "orders", id="else-the-listeners"),
        pytest.param("orders-v1", None, "orders-v1", id="else-the-folders"),
    ],
)
def test_what_it_is_called(configured, told_name, shown):
    """As the contract says."""
    query = joined(checkpoint(name=configured, batches=[batch(3)]), progress(3, name=told_name))

    assert shown == query.consumer.name


def test_the_listener_is_ahead_of_a_checkpoint_that_is_written_less_often():
    """Asynchronous progress tracking: what was told since counts, and no batch is in flight that has ended."""
    query = joined(
        checkpoint(
            batches=[batch(3, committed_at=PLANNED - 60)],
            planned={tp(0): 150},
            inflight_batch_id=4,
            inflight_planned_at=1.0,
        ),
        progress(5, ends={"0": 170, "1": 9}),
    )

    assert ({tp(0): 170, tp(1): 9}, {}, 5) == (query.committed, query.planned, query.batch_id)
    assert [3, 5] == [b.batch_id for b in query.batches]
    assert None is query.inflight_batch_id
    assert "listener" == query.via["committed"]


def test_a_checkpoint_that_was_rewound_is_not_overruled():
    """A higher batch of before the newest commit is of the past."""
    query = joined(checkpoint(batches=[batch(3, committed_at=PLANNED + 600)]), progress(9, ends={"0": 999}))

    assert ({tp(0): 100}, 3) == (query.committed, query.batch_id)


@pytest.mark.parametrize(
    ("configured", "trigger", "seconds", "via"),
    [
        (7.0, "ProcessingTimeTrigger(10000)", 7.0, "settings"),
        (None, "ProcessingTimeTrigger(10000)", 10.0, "listener"),
        (None, "AvailableNowTrigger", None, None),
    ],
    ids=["settings", "told", "none"],
)
def test_the_trigger_interval(configured, trigger, seconds, via):
    """As configured, else as the job itself has it."""
    query = joined(
        checkpoint(batches=[batch(3)], trigger_interval_seconds=configured),
        message("alive", {"queries": [running(trigger=trigger)]}),
    )

    assert (seconds, via) == (query.trigger_interval_seconds, query.via.get("trigger_interval_seconds"))


def test_real_time_mode_is_told():
    """The checkpoint does not say it."""
    alive = message("alive", {"queries": [running(trigger="RealTimeTrigger(5000)")]})

    assert SparkMode.REAL_TIME is joined(checkpoint(batches=[batch(3)]), alive).mode


ENDED = message(
    "terminated", {"id": "q1", "runId": "r1", "exception": "boom", "errorClassOnException": None}, at=T0, seq=1
)


@pytest.mark.parametrize(
    ("query", "exception"),
    [
        pytest.param(checkpoint(batches=[batch(3, committed_at=T0)]), "boom", id="ended"),
        pytest.param(checkpoint(batches=[batch(3, committed_at=T0 + 60)]), None, id="commits-since"),
        pytest.param(
            checkpoint(batches=[batch(3, committed_at=T0)], inflight_batch_id=4, inflight_planned_at=T0 + 60),
            None,
            id="plans-since",
        ),
    ],
)  # fmt: skip
def test_an_end_counts_until_the_checkpoint_moves_again(query, exception):
    """The job may have been started again without the listener."""
    found = joined(query, ENDED)

    assert (exception, T0 if exception else None) == (found.exception, found.ended_at)


def test_a_query_without_a_checkpoint_here_is_known_by_its_listener():
    """Positions, batches, trigger, name: all as told."""
    alive = {"queries": [running(trigger="ProcessingTimeTrigger(2000)", checkpoint="file:/c/orders")]}
    query = joined(None, progress(3, ends={"0": 100}, eventTime={"watermark": "2026-11-22T07:39:00.000Z"}),
                   message("alive", alive, seq=2))  # fmt: skip

    assert (Consumer(Kind.SPARK, "orders"), "query q1", ("listener",)) == (
        query.consumer,
        query.checkpoint,
        query.seen_by,
    )
    assert ({tp(0): 100}, 3, 2.0) == (query.committed, query.batch_id, query.trigger_interval_seconds)
    assert (1.5, PLANNED - 60) == (query.batches[0].duration_seconds, query.watermark)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("a", "b"), {"a", "b"}),
        (("a", "a"), {"a", "a (q2)"}),
        ((None, None), {"q1", "q2"}),
    ],
    ids=["different", "same", "unnamed"],
)
def test_names_are_distinct(names, shown):
    """A name that is taken gets the query's id as well."""
    told_of = told(*(
        message("started", {"id": f"q{number}", "runId": "r", "name": name}, seq=number)
        for number, name in enumerate(names, 1)
    ))  # fmt: skip

    assert shown == {query.consumer.name for query in join([], told_of, T0 + 10)[0]}


def test_an_ended_query_is_replaced_by_its_next_life():
    """A checkpoint made anew has another id; its old one is not shown beside it."""
    known = told(
        message("started", {"id": "q1", "runId": "r1", "name": "orders"}, seq=1),
        message("terminated", {"id": "q1", "runId": "r1"}, seq=2, at=T0 + 1),
        message("started", {"id": "q2", "runId": "r2", "name": "orders"}, seq=3, at=T0 + 2),
    )

    assert ["q2"] == [each.query_id for each in join([], known, T0 + 10)[0]]


def test_a_copied_checkpoint_does_not_take_what_was_told_twice():
    """Of two folders with the same id the one that is further on is the query."""
    old = checkpoint(name="copy", batches=[batch(1)])
    new = checkpoint(name="real", batches=[batch(3)])
    queries, _ = join([old, new], told(progress(3)), T0 + 10)

    assert [("copy", ("checkpoint",)), ("real", ("checkpoint", "listener"))] == [
        (each.consumer.name, each.seen_by) for each in queries
    ]


def test_batches_that_the_listener_never_told_are_a_finding():
    """Between two that it told; not those of before it was there, nor the newest."""
    query = checkpoint(batches=[batch(number) for number in range(1, 8)])
    _, findings = join([query], told(progress(3), progress(6, seq=2)), T0 + 10)

    assert [(EVENTS_MISSING, "orders", 2)] == [(each.kind, each.consumer.name, each.records) for each in findings]
    assert "did not tell 2 of its last batches (first 4)" in findings[0].text


def test_events_that_were_dropped_or_lost_are_a_finding():
    """By the job's own word, and by the gap in its numbers."""
    alive = {"queries": [], "dropped": {"queue": 3}, "bus_dropped": 2}
    known = told(message("alive", alive, seq=1), message("alive", alive, seq=5))
    known.settle(T0 + 11)
    _, findings = join([], known, T0 + 11)

    assert [(EVENTS_DROPPED, 8)] == [(each.kind, each.records) for each in findings]
    assert (
        "events of the Spark application app-1 are missing: 3 dropped by the listener's own queue, "
        "2 dropped by Spark before its listeners, 3 lost on the way"
    ) == findings[0].text
    assert [] == join([], known, T0 + 9999)[1]


def test_nothing_told_changes_nothing():
    """Without listeners queries are as their checkpoints show them."""
    query = checkpoint(batches=[batch(3)])

    assert ([query], []) == join([query], told(), T0)
