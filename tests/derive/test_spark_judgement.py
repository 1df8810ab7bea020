"""What is said of Spark queries: how grave it is, the bottleneck with its numbers, and when nothing must be said.

Each rule has rows that trigger it and rows that must not; what Spark 3.5, 4.0 and 4.3 told their listeners stands at
the end. A row is a query as its sources show it, in numbers.
"""

import json
import math
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from snapshots import kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.derive.spark import SparkMemory, inferred_interval, rows_per_second
from monitor.derive.spark_diagnosis import HARMLESS, diagnose
from monitor.derive.spark_health import Case, PartitionLag, age, case_of, judge, judged
from monitor.model import (
    HEALTHS,
    Consumer,
    Failure,
    Health,
    Kind,
    SparkBatch,
    SparkDriver,
    SparkMode,
    SparkPast,
    SparkQuery,
    SparkSnapshot,
    SparkState,
    TopicPartition,
)
from monitor.observe.spark.join import join
from monitor.observe.spark.listener import Told

EVENTS = Path(__file__).parents[1] / "data" / "spark"
AT = 1_795_400_000.0
KEY = TopicPartition("orders", 0)
USUAL = {"latestOffset": 0.05, "queryPlanning": 0.05, "walCommit": 0.05, "addBatch": 1.6, "commitOffsets": 0.05}


def batches(count=20, *, took=2.0, rows=1000, every=10.0, until=AT - 3, **kw):
    """Give the last batches; ``took`` and ``rows`` are numbers or functions of the batch's number."""

    def of(value, number):
        return value(number) if callable(value) else value

    return tuple(
        SparkBatch(
            number,
            planned_at=until - (count - 1 - number) * every - of(took, number),
            committed_at=until - (count - 1 - number) * every,
            duration_seconds=of(took, number),
            input_rows=of(rows, number),
            **{name: of(value, number) for name, value in kw.items()},
        )
        for number in range(count)
    )


def case(*, at=AT, lag=0, seconds=None, written=100.0, partitions=4, restarts=(), past=(), interval=10.0, **query):
    """Give a query that is well unless said otherwise: twenty batches of 2 s, every 10 s, nothing waits."""
    query = {"batches": batches(), **query}
    seen = SparkQuery(
        Consumer(Kind.SPARK, "q"), "id", "/chk/q", at, {KEY: 1}, {}, 19, trigger_interval_seconds=interval, **query
    )
    memory = SparkMemory(seen, counted_to=-1, restarts=deque(restarts), past=deque(past))
    memory.see(replace(seen, batches=tuple(seen.batches)))
    lags = tuple(
        PartitionLag(TopicPartition("orders", i), 9, 9, None, 0, None, None, 0.0, 0.0) for i in range(partitions)
    )
    return Case(at, memory.facts(at), lags, lag, seconds, written)


def kinds(what):
    return [each.kind for each in diagnose(what)]


# --- how grave it is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "kind", "health"),
    [
        pytest.param({}, None, None, id="well"),
        # idle
        pytest.param({"at": AT + 3000}, None, None, id="idle, and nothing waits"),
        pytest.param(
            {"at": AT + 3000, "lag": 5, "alive_at": AT + 2990},
            "idle_but_lagging",
            Health.STALLED,
            id="idle, records wait",
        ),
        pytest.param({"at": AT + 600, "lag": 5, "alive_at": AT + 595}, None, None, id="within Spark's maxTriggerDelay"),
        # lost
        pytest.param({"at": AT + 60, "lag": 5}, "lost", Health.LOST, id="silent for a minute, records wait"),
        pytest.param({"at": AT + 50, "lag": 5}, None, None, id="not yet silent"),
        pytest.param(
            {"at": AT + 300, "lag": 5, "interval": 120.0}, None, None, id="three of its triggers are not over"
        ),
        pytest.param(
            {"at": AT + 400, "lag": 5, "interval": 120.0}, "lost", Health.LOST, id="three of its triggers are"
        ),
        pytest.param({"at": AT + 3000, "lag": None}, None, None, id="silent, but nobody knows whether records wait"),
        pytest.param(
            {"at": AT + 3000, "lag": 5, "batches": batches(4, every=7200.0)},
            None,
            None,
            id="one that runs every other hour",
        ),
        pytest.param(
            {"at": AT + 12_000, "lag": 5, "batches": batches(4, every=7200.0)}, "lost", Health.LOST, id="and missed it"
        ),
        pytest.param(
            {"at": AT + 600, "lag": 5, "inflight_batch_id": 20, "inflight_planned_at": AT, "alive_at": AT + 1},
            "lost",
            Health.LOST,
            id="in the middle of a batch, and its listener fell silent",
        ),
        # hung
        pytest.param(
            {"at": AT + 301, "lag": 5, "inflight_batch_id": 20, "inflight_planned_at": AT},
            "hung_batch",
            Health.STALLED,
            id="in flight for five minutes, two seconds are usual",
        ),
        pytest.param(
            {"at": AT + 299, "lag": 5, "inflight_batch_id": 20, "inflight_planned_at": AT}, None, None, id="not yet"
        ),
        pytest.param(
            {
                "at": AT + 900,
                "lag": 5,
                "inflight_batch_id": 20,
                "inflight_planned_at": AT,
                "batches": batches(took=100.0, every=120.0),
                "interval": None,
                "written": 1.0,
            },
            None,
            None,
            id="long batches are usual here",
        ),
        pytest.param(
            {"at": AT + 1200, "lag": 5, "inflight_batch_id": 0, "inflight_planned_at": AT, "batches": ()},
            None,
            None,
            id="the first batch goes through all there is",
        ),
        pytest.param(
            {"at": AT + 1900, "lag": 5, "inflight_batch_id": 0, "inflight_planned_at": AT, "batches": ()},
            "hung_batch",
            Health.STALLED,
            id="for half an hour",
        ),
        pytest.param(
            {
                "at": AT + 3000,
                "lag": 0,
                "inflight_batch_id": 20,
                "inflight_planned_at": AT,
                "mode": SparkMode.REAL_TIME,
            },
            None,
            None,
            id="real-time batches are as long as they are meant to be",
        ),
        # ended
        pytest.param(
            {"lag": 5, "ended_at": AT - 60, "exception": "java.lang.Boom:\n  at x"},
            "ended",
            Health.STOPPED,
            id="failed",
        ),
        pytest.param({"lag": 0, "ended_at": AT - 60}, None, None, id="stopped, and nothing waits"),
        # crash loop
        pytest.param(
            {"lag": 5, "restarts": [AT - 800, AT - 500, AT - 200, AT - 9]}, "crash_loop", Health.STALLED, id="loop"
        ),
        pytest.param({"lag": 5, "restarts": [AT - 2000, AT - 500, AT - 200, AT - 9]}, None, None, id="three restarts"),
        # falling behind
        pytest.param(
            {"lag": 500, "batches": batches(took=12.0, every=12.0), "written": 200.0},
            "falling_behind",
            Health.FALLING_BEHIND,
            id="longer than its interval, more is written than read",
        ),
        pytest.param(
            {"lag": 500, "batches": batches(took=12.0, every=12.0), "written": 80.0}, None, None, id="and catching up"
        ),
        pytest.param(
            {"lag": 500, "batches": batches(took=lambda n: 12.0 if n < 19 else 9.0, every=12.0), "written": 200.0},
            None,
            None,
            id="one was fast enough",
        ),
        pytest.param(
            {"lag": 500, "batches": batches(took=12.0, every=12.0), "written": None},
            None,
            None,
            id="nobody knows the rate",
        ),
        pytest.param(
            {"lag": 500, "batches": batches(took=3.0, every=3.0), "written": 900.0, "interval": None},
            "falling_behind",
            Health.FALLING_BEHIND,
            id="without an interval",
        ),
    ],
)
def test_how_grave_it_is(what, kind, health):
    """The gravest that batches tell, and nothing where they tell nothing."""
    verdict = judge(case(**what))

    assert (kind, health) == ((verdict.kind, verdict.health) if verdict else (None, None))


def test_the_evidence_has_the_numbers():
    """What is seen, what is usual, how late it is, and what cannot be told."""
    hung = case(at=AT + 400, lag=1234, seconds=390.0, inflight_batch_id=20, inflight_planned_at=AT)
    driver = SparkDriver(AT, tasks=200, tasks_done=199, tasks_running=1)
    seen = replace(hung.facts, query=replace(hung.query, driver=driver))

    assert judge(hung).evidence == (
        "batch 20 is in flight for 6.7 min, where 2 s are usual: it hangs, or its driver is gone (the checkpoint "
        "cannot tell which); 1,234 records behind, the oldest 6.5 min old"
    )
    assert judge(replace(hung, facts=seen)).evidence == (
        "batch 20 is in flight for 6.7 min, where 2 s are usual, with 199 of 200 tasks done and 1 running; 1,234 "
        "records behind, the oldest 6.5 min old"
    )


# --- the bottleneck ---------------------------------------------------------------------------------

SLOW = {"took": 9.0, "phases": {**USUAL, "addBatch": 8.7}}


def slow(**phases):
    return {"batches": batches(took=9.0, phases={**USUAL, "addBatch": 6.0, **phases})}


def spread(number):
    return 1000 * (1 + number % 4)


STATE = SparkState("stateStoreSave", 10_000, 5_000_000, 10, 5, 0, 20.0, 5.0, 7.0, 4)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        pytest.param({}, ["more_than_needed"], id="two of ten seconds, nothing waits"),
        pytest.param({"batches": batches(took=4.0)}, [], id="four of ten seconds: well"),
        pytest.param(
            {"batches": batches(took=9.0, rows=spread)}, ["slow_batches"], id="no phases: what is seen from outside"
        ),
        pytest.param({"lag": 9000}, ["rate_limited"], id="a thousand records a batch, done in no time, and nine wait"),
        pytest.param({"lag": 900}, [], id="less than a batch waits"),
        pytest.param({"lag": 9000, "batches": batches(rows=spread)}, [], id="batches of all sizes: no limit"),
        pytest.param(
            {
                "batches": batches(took=lambda n: 2.0 + 20 * (n % 4 == 0), rows=lambda n: 1000 + 10_000 * (n % 4 == 0)),
                "interval": 2.0,
            },
            ["unbounded_burst"],
            id="every fourth batch has ten times the records and the time",
        ),
        pytest.param(
            {"batches": batches(took=lambda n: 9.0 + n % 3, rows=lambda n: 1000 + 10_000 * (n % 4 == 0))},
            ["fixed_overhead"],
            id="bursts that cost no time are no burst",
        ),
        pytest.param({"batches": batches(took=9.0, rows=lambda n: 10 + 90 * (n % 4))}, ["fixed_overhead"], id="fixed"),
        pytest.param(slow(latestOffset=2.5), ["source_metadata"], id="slow brokers"),
        pytest.param(slow(latestOffset=0.9), ["slow_batches"], id="brokers that take 10 %"),
        pytest.param(slow(queryPlanning=2.5), ["planning"], id="slow planning"),
        pytest.param(slow(walCommit=1.0, commitOffsets=1.2), ["checkpoint_writes"], id="slow checkpoint"),
        pytest.param({**slow(), "state": (STATE,)}, ["state"], id="32 s of state over four stores of a 6 s batch"),
        pytest.param(
            {**slow(), "state": (replace(STATE, updates_seconds=4.0, removals_seconds=0.0, commit_seconds=4.0),)},
            ["slow_batches"],
            id="8 s over four stores are 2 s",
        ),
        pytest.param({**slow(), "driver": SparkDriver(AT, gc_ratio=0.3)}, ["memory"], id="garbage"),
        pytest.param({**slow(), "driver": SparkDriver(AT, spilled_bytes=7_000_000)}, ["memory"], id="spill"),
        pytest.param(
            {**slow(), "driver": SparkDriver(AT, gc_ratio=0.05, spilled_bytes=0)}, ["slow_batches"], id="neither"
        ),
        pytest.param(
            {"batches": batches(took=9.0, most_rows=800, median_rows=60.0)}, ["skew"], id="one partition has it all"
        ),
        pytest.param(
            {"batches": batches(took=9.0, most_rows=99, median_rows=0.0)},
            ["slow_batches"],
            id="few records, however spread",
        ),
        pytest.param(
            {"batches": batches(took=9.0, most_rows=300, median_rows=250.0)}, ["slow_batches"], id="evenly spread"
        ),
        pytest.param(
            {**slow(), "driver": SparkDriver(AT, longest_task_seconds=6.0, median_task_seconds=1.0)},
            ["skew"],
            id="a task",
        ),
        pytest.param(
            {"batches": batches(**SLOW), "driver": SparkDriver(AT, cores=16)}, ["too_few_tasks"], id="16 cores"
        ),
        pytest.param(
            {"batches": batches(**SLOW), "driver": SparkDriver(AT, cores=4)}, ["sink"], id="as many cores as partitions"
        ),
        pytest.param(
            {**slow(), "driver": SparkDriver(AT, tasks=200, cores=4, median_task_seconds=0.02)},
            ["tiny_tasks"],
            id="tiny",
        ),
        pytest.param(
            {**slow(), "driver": SparkDriver(AT, tasks=12, cores=4, median_task_seconds=0.02)},
            ["slow_batches"],
            id="few",
        ),
        pytest.param(
            {"batches": batches(**SLOW), "driver": SparkDriver(AT, cores=4, tasks=40, tasks_done=8, tasks_running=4)},
            ["cores"],
            id="every core works and tasks wait",
        ),
        pytest.param(
            {"batches": batches(**SLOW), "driver": SparkDriver(AT, cores=4, tasks=12, tasks_done=8, tasks_running=2)},
            ["sink"],
            id="cores are free",
        ),
        pytest.param({"batches": batches(**SLOW)}, ["sink"], id="the work itself"),
        pytest.param({"batches": batches(took=9.0, phases=USUAL)}, ["slow_batches"], id="the work is little of it"),
        pytest.param(
            {**slow(), "mode": SparkMode.REAL_TIME}, [], id="real-time batches have no bottleneck of this kind"
        ),
        pytest.param({"batches": batches(4, took=9.0)}, [], id="four batches say nothing"),
        # whatever the speed
        pytest.param(
            {"batches": batches(took=4.0, watermark=AT - 500)}, ["watermark_stalled"], id="no watermark moves"
        ),
        pytest.param(
            {"batches": batches(took=4.0, watermark=AT - 500), "watermark": AT - 400}, [], id="it has just moved"
        ),
        pytest.param(
            {"batches": batches(took=4.0, watermark=AT - 500, rows=0)}, [], id="nothing came that could move it"
        ),
        pytest.param({"batches": batches(took=4.0, watermark=lambda n: AT - 500 + n)}, [], id="it moves"),
        pytest.param(
            {"batches": batches(took=4.0), "past": [SparkPast(AT + n, n, 100 + n, 9000, 0, 0) for n in range(12)]},
            ["state_growth"],
            id="state only grows",
        ),
        pytest.param(
            {"batches": batches(took=4.0), "past": [SparkPast(AT + n, n, 100 + n, 9000, n == 7, 0) for n in range(12)]},
            [],
            id="something was removed",
        ),
        pytest.param(
            {"batches": batches(took=4.0), "past": [SparkPast(AT + n, n, 100 + n, 9000, 0, 0) for n in range(9)]},
            [],
            id="too early to say",
        ),
        pytest.param(
            {"batches": batches(took=4.0), "past": [SparkPast(AT, 1, 100, 9000, 0, 3)]}, ["late_rows"], id="late rows"
        ),
        # plainly wrong
        pytest.param({"at": AT + 600, "lag": 5, "batches": batches(took=4.0)}, ["lost"], id="lost"),
        pytest.param(
            {
                "at": AT + 400,
                "lag": 5,
                "batches": batches(took=4.0),
                "inflight_batch_id": 20,
                "inflight_planned_at": AT,
            },
            ["hung_batch"],
            id="hung",
        ),
    ],
)
def test_the_bottleneck(what, found):
    """Each rule alone, and silence where its numbers do not hold."""
    assert found == kinds(case(**what))


def test_remedies_name_a_setting_with_a_number():
    """What to change, and to what."""
    limited = diagnose(case(lag=9000))[0]
    burst = diagnose(
        case(
            batches=batches(took=lambda n: 2.0 + 20 * (n % 4 == 0), rows=lambda n: 1000 + 10_000 * (n % 4 == 0)),
            interval=2.0,
        )
    )[0]

    assert ("maxOffsetsPerTrigger", "maxOffsetsPerTrigger") == (limited.setting, burst.setting)
    assert "from about 1,000 to 3,500" in limited.remedy
    assert "set maxOffsetsPerTrigger to 700" in burst.remedy


def test_every_kind_of_advice_that_is_harmless_is_known():
    """The exit code of the command rests on it."""
    assert HARMLESS >= {"more_than_needed"}


# --- interval and rate ------------------------------------------------------------------------------


def planned(*moments):
    return [SparkBatch(i, at, at + 1, 1.0, 10) for i, at in enumerate(moments)]


@pytest.mark.parametrize(
    ("moments", "interval"),
    [
        pytest.param([AT + 10 * n + 0.002 for n in range(8)], 10.0, id="every ten seconds"),
        pytest.param([AT - AT % 7 + 7 * n for n in (0, 1, 3, 4, 6, 9)], 7.0, id="every seven, some without records"),
        pytest.param([AT + 10 * n + 0.01 * (n != 3) + 4.2 * (n == 3) for n in range(8)], 10.0, id="one was late"),
        pytest.param([AT + 3.37 * n for n in range(20)], None, id="as soon as possible"),
        pytest.param([AT + 10 * n for n in range(4)], None, id="too few"),
        pytest.param([AT] * 8, None, id="all at once"),
        pytest.param([math.nan] * 8, None, id="epochs"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_trigger_interval_is_what_batches_keep_to(moments, interval):
    """Spark fires at multiples of the interval since the epoch."""
    assert interval == inferred_interval(planned(*moments))


@pytest.mark.parametrize(
    ("seen", "rate"),
    [
        pytest.param(batches(11, rows=1000, every=10.0), 100.0, id="a thousand every ten seconds"),
        pytest.param(batches(3, rows=lambda n: None if n == 2 else 1000), None, id="rows of one are not known"),
        pytest.param(batches(3, rows=lambda n: None if n == 0 else 1000), 100.0, id="those of the first do not count"),
        pytest.param(batches(1), None, id="one batch"),
        pytest.param((), None, id="none"),
    ],
)
def test_throughput(seen, rate):
    """Records over the time from the first commit to the last."""
    assert rate == rows_per_second(seen)


def test_a_query_that_is_late_ever_since_keeps_the_interval_it_had():
    """Late batches start when the one before is done: they tell no interval, and the one known stays."""
    on_time, late = planned(*(AT + 10 * n for n in range(20))), planned(*(AT + 200 + 12.3 * n for n in range(20)))
    memory = SparkMemory(case(interval=None, batches=tuple(on_time)).query, counted_to=-1)
    memory.see(memory.query)
    memory.see(replace(memory.query, batches=tuple(replace(each, batch_id=each.batch_id + 20) for each in late)))
    facts = memory.facts(AT + 500)

    assert (10.0, True) == (facts.trigger_interval_seconds, facts.trigger_inferred)


def test_restarts_are_those_of_runs_and_of_interrupted_batches():
    """Another run id is a restart; more interrupted batches are as many; history that comes later is none."""
    query = case(batches=batches(5)).query
    memory = SparkMemory(query, counted_to=4)
    memory.see(query)
    memory.see(replace(query, batches=(replace(query.batches[0], batch_id=-1), *query.batches), restarts=3))
    assert 0 == memory.restarts_total
    memory.see(query := replace(memory.query, run_id="a", restarts=4))
    memory.see(query := replace(query, run_id="b"))
    memory.see(query)

    assert (2, [AT, AT]) == (memory.restarts_total, list(memory.restarts))


# --- from a report ----------------------------------------------------------------------------------


def test_lag_by_commit_by_plan_and_as_spark_tells_stand_side_by_side():
    """The broker's end minus what is committed, minus what is planned; Spark's own is 0 all the while."""
    query = SparkQuery(
        Consumer(Kind.SPARK, "q"), "id", "/chk/q", AT, {KEY: 30}, {KEY: 70}, 1, reported={KEY: 0}, batches=batches(2)
    )
    history = History()
    sparks = SparkSnapshot("default", AT - 1, AT, True, (query,))
    report = derive(
        observe(kafka_snapshot({("orders", 0): (0, 100)}, {}, at=AT), sparks, history), history, lambda _: 300.0
    )
    seen = case_of(report, 0)

    (part,) = seen.partitions
    assert (KEY, 100, 30, 70, 70, 30, 0) == (
        part.key, part.log_end, part.committed, part.planned, part.lag, part.planned_lag, part.reported_lag,
    )  # fmt: skip
    assert (70, None) == (seen.lag, seen.written_per_second)


def a_report(*queries, at=AT):
    sparks = SparkSnapshot("default", at - 1, at, True, queries)
    seen = observe(
        kafka_snapshot({("orders", 0): (0, 100)}, {"g": {("orders", 0): 100}}, at=at), sparks, history := History()
    )
    return derive(seen, history, lambda _: 300.0)


def test_a_report_has_the_health_that_batches_tell():
    """The query gone without a word is lost with its evidence; the one that is well and the group stay as they were."""
    gone = case(at=AT + 600, lag=70).query
    well = replace(gone, consumer=Consumer(Kind.SPARK, "well"), query_id="w", checkpoint="/chk/w", committed={KEY: 100})
    before = a_report(gone, well, at=AT + 600)
    after = judged(before)

    assert [Health.OK, Health.LOST, Health.OK] == [HEALTHS[each] for each in after.consumers.health]
    assert after.consumers.evidence[1].startswith("nothing has moved for 10")
    assert list(before.consumers.evidence[::2]) == list(after.consumers.evidence[::2])
    assert before.consumers.evidence[-1] == after.consumers.evidence[-1]
    assert 3 == len(after.consumers.evidence)


def test_a_report_without_anything_graver_is_the_same():
    """Publishers keep what they made of columns that did not change."""
    report = a_report(replace(case().query, committed={KEY: 100}))

    assert report is judged(report)


def test_a_query_that_could_not_be_read_stays_unknown():
    """Its last look is no news: nothing is judged by it."""
    history, query = History(), case(inflight_batch_id=20, inflight_planned_at=AT).query
    kafka = kafka_snapshot({("orders", 0): (0, 100)}, {}, at=AT + 600)
    sparks = SparkSnapshot("default", AT, AT + 1, True, (query,))
    derive(observe(kafka, sparks, history), history, lambda _: 300.0)
    torn = SparkSnapshot("default", AT + 599, AT + 600, False, (), (Failure("checkpoint", "/chk/q", "MALFORMED"),))
    report = judged(derive(observe(kafka, torn, history), history, lambda _: 300.0))

    assert Health.UNKNOWN == HEALTHS[report.consumers.health[0]]


# --- what Spark told --------------------------------------------------------------------------------


VERSIONS = pytest.mark.parametrize("version", ["3.5.8", "4.0.5", "4.3.0"])


def replay(version):
    """Yield what is known of the recorded queries after each event, by name, and the moment."""
    told, memory = Told(), {}
    for seq, line in enumerate((EVENTS / f"listener-events-{version}.jsonl").read_text().splitlines()):
        event = json.loads(line)
        message = {"v": 1, "at": event["received_at"], "app": "a", "instance": "i", "seq": seq}
        told.take(json.dumps({**message, **event}).encode(), event["received_at"])
        queries, _ = join([], told, event["received_at"])
        for query in queries:
            memory.setdefault(query.query_id, SparkMemory(query, counted_to=-1)).see(query)
        yield {each.query.consumer.name: each for each in memory.values()}, event["received_at"]


def seen_by_the_monitor(memory, at, lag):
    return Case(at, memory.facts(at), (), lag, None, None)


@VERSIONS
def test_what_real_queries_told_is_no_false_alarm(version):
    """After each event: nothing, until it has ended, also where it is started again. The one that failed says why."""
    verdicts = {}
    for queries, at in replay(version):
        for name, memory in queries.items():
            verdict = judge(seen_by_the_monitor(memory, at, lag=1))
            if verdicts.setdefault(name, [])[-1:] != [verdict and verdict.kind]:
                verdicts[name].append(verdict and verdict.kind)
            if verdict is not None and name == "boom_q":
                boom = verdict.evidence

    assert ["ended", None, "ended"] == verdicts["agg_q"][1:]
    assert {(None, "ended")} == {tuple(each) for name, each in verdicts.items() if name != "agg_q"}
    assert boom.startswith("it ended with ")


@VERSIONS
def test_a_driver_that_dies_is_lost_by_what_it_told_before(version):
    """The recording ends in the middle, as with kill -9: no event says that anything ended."""
    before = {}
    for queries, at in replay(version):
        if queries["agg_q"].query.ended_at is not None:
            break
        before = {"memory": SparkMemory(queries["agg_q"].query, counted_to=-1), "at": at}
    before["memory"].see(before["memory"].query)

    assert [None, "lost"] == [
        (verdict := judge(seen_by_the_monitor(before["memory"], before["at"] + later, lag=1))) and verdict.kind
        for later in (10, 600)
    ]


@VERSIONS
def test_the_bottleneck_of_a_real_query_is_told_by_its_phases(version):
    """With a second between triggers, writing the checkpoint is what a query into files loses most by."""
    *_, (queries, at) = replay(version)
    memory = queries["file_q"]
    memory.see(pressed := replace(memory.query, ended_at=None, trigger_interval_seconds=1.0))
    found = [each.kind for each in diagnose(seen_by_the_monitor(memory, at, lag=0))]
    memory.see(replace(pressed, trigger_interval_seconds=60.0))
    relaxed = [each.kind for each in diagnose(seen_by_the_monitor(memory, at, lag=0))]

    assert ("checkpoint_writes", []) == (found[-1], relaxed)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "an unknown time"), (0.0, "0 s"), (1.25, "1.2 s"), (150.0, "2.5 min"), (9000.0, "2.5 h"), (2e5, "2.3 d")],
)
def test_ages_read_well(seconds, text):
    """From two of a unit on."""
    assert text == age(seconds)
