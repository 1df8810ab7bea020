"""The demo's judgement, schedule, stage and table: values in, values out."""

import asyncio
import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from monitor.demo.check import (
    FINEST_BOUND_SECONDS,
    PRINTED_SECONDS,
    Truth,
    complaints,
    praise,
    sum_lags,
    truth_of,
    worker_complaints,
)
from monitor.demo.client import consumers
from monitor.demo.records import EACH, LATE_SECONDS, DemoReadings, expected_outcomes
from monitor.demo.run import Phase, Schedule
from monitor.demo.stage import Stage, line
from monitor.demo.table import block, facts, rows
from monitor.errors import SandboxError
from monitor.model import Consumer, Health, Kind
from monitor.sandbox.loads import Consumer as Load
from monitor.sandbox.loads import Producer
from processors.agents import panes
from processors.agents.reading import BadRecord, parse

WHO = Consumer(Kind.GROUP, "billing")
AT = 1_795_000_100.0
TRUTH = Truth(WHO, committed=(10, 20), ends=(13, 20), next_at=(AT - 5.0, None), health=Health.OK)


def part(number: int, committed: int, end: int, seconds: float, bound: float) -> dict[str, Any]:
    """Return what a report says of a partition."""
    return {
        "topic": "readings", "partition": number, "log_start": 0, "log_end": end, "committed": committed,
        "lag_records": end - committed, "lost_records": 0, "lag_seconds": seconds, "lag_seconds_bound": bound,
        "unknown": {},
    }  # fmt: skip


SAID: dict[str, Any] = {
    "kind": "group", "name": "billing", "state": "Stable", "health": "ok", "lag_records": 3, "known_lag_records": 3,
    "lost_records": 0, "partitions_unknown": 0, "lag_seconds": 5.0, "lag_seconds_bound": 0.01, "unknown": {},
    "records_per_second": 12.34, "objective_seconds": 300.0, "over_objective": False,
    "partitions": [part(0, 10, 13, 5.0, 0.01), part(1, 20, 20, 0.0, 0.0)],
}  # fmt: skip


def test_what_is_true_is_passed() -> None:
    """Offsets, lag, age and health as counted: no complaint, and the verdict shows the numbers."""
    assert [] == complaints(SAID, AT, TRUTH)
    expected = "lag 3 = 3 counted on 2 partitions; age 5.000 ± 0.010 s, true 5.000 s; health ok"
    assert expected == praise(SAID, AT, TRUTH)


def test_topics_of_its_own_are_no_lie_where_nothing_is_unread() -> None:
    """A Faust app also reads its leader topic, which is empty."""
    said = copy.deepcopy(SAID)
    said["partitions"].append({**part(0, 0, 0, 0.0, 0.0), "topic": "app-leader"})

    assert [] == complaints(said, AT, TRUTH)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda said: said.update(lag_records=4), "lag_records 4, counted 3", id="one record too many in the sum"
        ),
        pytest.param(
            lambda said: said.update(lag_records=None, unknown={"lag_records": "the broker did not answer in time"}),
            "lag_records None (the broker did not answer in time), counted 3",
            id="unknown is not the count either",
        ),
        pytest.param(lambda said: said.update(health="stopped"), "health stopped, counted ok", id="wrong health"),
        pytest.param(lambda said: said.update(lost_records=1), "lost_records 1, counted 0", id="loss that is none"),
        pytest.param(
            lambda said: said.update(partitions_unknown=1), "partitions_unknown 1, counted 0", id="a partition unknown"
        ),
        pytest.param(
            lambda said: said["partitions"][0].update(lag_records=2),
            "partition 0: lag_records 2, counted 3",
            id="right sum, wrong partition",
        ),
        pytest.param(
            lambda said: said["partitions"][1].update(committed=19),
            "partition 1: committed 19, counted 20",
            id="wrong committed offset",
        ),
        pytest.param(
            lambda said: said["partitions"][1].update(log_end=21),
            "partition 1: log_end 21, counted 20",
            id="wrong log end",
        ),
        pytest.param(
            lambda said: said["partitions"].pop(),
            "partitions [0] are said, there are 2",
            id="a partition missing",
        ),
        pytest.param(
            lambda said: said["partitions"][0].update(lag_seconds=5.02),
            "partition 0: age 5.020 ± 0.010 s, true 5.000 s",
            id="an age too high for its bound",
        ),
        pytest.param(
            lambda said: said.update(lag_seconds=4.98),
            "age 4.980 ± 0.010 s, true 5.000 s",
            id="an age too low for its bound",
        ),
        pytest.param(
            lambda said: said.update(lag_seconds_bound=FINEST_BOUND_SECONDS + 0.5),
            "age 5.000 ± 1.500 s: a bound of more than 1 s",
            id="a bound that says nothing",
        ),
        pytest.param(
            lambda said: said.update(lag_seconds=None, unknown={"lag_seconds": "not looked up yet"}),
            "age unknown (not looked up yet), true 5.000 s",
            id="an unknown age",
        ),
        pytest.param(
            lambda said: said["partitions"][1].update(lag_seconds=1.0, lag_seconds_bound=0.1),
            "partition 1: age 1.000 ± 0.100 s, true 0.000 s",
            id="an age where nothing is unread",
        ),
    ],
)
def test_what_is_not_true_is_complained_about(change: Callable[[dict[str, Any]], object], expected: str) -> None:
    """Each difference from the count is named, with both numbers."""
    said = copy.deepcopy(SAID)
    change(said)

    assert [expected] == complaints(said, AT, TRUTH)


def test_the_printed_time_may_be_short_by_its_rounding() -> None:
    """The report's time is cut off to the millisecond: an age may be that much higher than what is computed from it."""
    said = copy.deepcopy(SAID)
    for each in (said, said["partitions"][0]):
        each.update(lag_seconds=5.0 + PRINTED_SECONDS, lag_seconds_bound=0.0)

    assert [] == complaints(said, AT, TRUTH)


def test_who_is_missing_is_complained_about() -> None:
    """A consumer that the report leaves out is not a consumer without lag."""
    assert ["it is not in the report"] == complaints(None, AT, TRUTH)


def test_the_truth_is_what_the_producer_has_sent() -> None:
    """Log ends are its acknowledged counts, the next record's time is the one it gave that record."""
    producer = Producer("127.0.0.1:1", "readings", 0, 2)
    producer.stamps_ms[0].extend([1000, 2000, 3000])
    producer.stamps_ms[1].extend([1500])
    truth = truth_of(WHO, [1, 1], producer, Health.STOPPED)

    assert Truth(WHO, (1, 1), (3, 1), (2.0, None), Health.STOPPED) == truth
    assert (2, 0) == truth.lag


def test_sums_are_read_from_the_metrics() -> None:
    """One value a consumer, whatever else is exposed."""
    text = """# TYPE streamgauge_consumer_sum_lag_records gauge
streamgauge_consumer_sum_lag_records{cluster="demo",kind="group",consumer="billing"} 400
streamgauge_consumer_sum_lag_records{cluster="demo",kind="spark",consumer="q"} 0
# TYPE streamgauge_consumer_members gauge
streamgauge_consumer_members{cluster="demo",kind="group",consumer="billing"} 1
"""

    assert {WHO: 400.0, Consumer(Kind.SPARK, "q"): 0.0} == sum_lags(text)


def test_consumers_are_found_by_kind_and_name() -> None:
    """A group and a query of one name are two consumers."""
    query = {**SAID, "kind": "spark"}
    report = {"at": "2026-11-24T10:00:00.000Z", "clusters": [{"consumers": [SAID, query]}]}

    assert {WHO: SAID, Consumer(Kind.SPARK, "billing"): query} == consumers(report)


def test_of_the_records_of_the_demo_a_few_are_bad_and_a_few_late() -> None:
    """What is expected of so many is what the Faust app's own steps make of them, partition by partition."""
    make, came_to, sent = DemoReadings(2), Counter({"filtered": 0}), [3 * EACH, 2 * EACH + EACH // 2]
    for partition, count in enumerate(sent):
        kept: dict[str, panes.Panes] = {}
        for number in range(count):
            _, value = make(partition, number, int(AT * 1000) + 10 * number)
            reading = parse(value)
            if isinstance(reading, BadRecord):
                came_to["bad"] += 1
                continue
            before = kept.get(reading.sensor, ())
            added = panes.add(
                before, reading.at, reading.temperature, size=panes.WINDOW_SECONDS, keep=panes.KEEP_SECONDS
            )
            came_to["late" if added is None else "averaged"] += 1
            if added is not None:
                kept[reading.sensor] = added[0]

    assert panes.KEEP_SECONDS + panes.WINDOW_SECONDS < LATE_SECONDS
    assert expected_outcomes(sent) == came_to
    assert (6, 5) == (came_to["bad"], came_to["late"])


OUTCOMES = {"averaged": 8, "bad": 1, "filtered": 0, "late": 1}
WORKER: dict[str, Any] = {"worker": "host-1", "state": "running", "outcomes": OUTCOMES}
ROLLUP_WORKER: dict[str, Any] = {**WORKER, "outcomes": {"added": 9, "bad": 0, "written": 0}}


@pytest.mark.parametrize(
    ("workers", "counted", "expected"),
    [
        pytest.param([WORKER], OUTCOMES, [], id="as counted"),
        pytest.param([], OUTCOMES, ["0 workers are said, there is 1"], id="no worker"),
        pytest.param([WORKER, WORKER], OUTCOMES, ["2 workers are said, there is 1"], id="one worker too many"),
        pytest.param([{**WORKER, "state": "silent"}], OUTCOMES, ["it is said to be silent"], id="a silent worker"),
        pytest.param(
            [WORKER],
            {**OUTCOMES, "late": 2},
            ["8 averaged, 1 bad, 0 filtered, 1 late, counted 8 averaged, 1 bad, 0 filtered, 2 late"],
            id="one late record missed",
        ),
        pytest.param([ROLLUP_WORKER], None, [], id="samples rolled up"),
        pytest.param(
            [{**WORKER, "outcomes": {"added": 0, "bad": 0}}], None, ["0 added, 0 bad"], id="nothing rolled up"
        ),
        pytest.param(
            [{**WORKER, "outcomes": {"added": 9, "bad": 1}}], None, ["9 added, 1 bad"], id="a sample that is none"
        ),
        pytest.param([{**WORKER, "outcomes": {}}], None, ["no word of its records"], id="outcomes not told"),
    ],
)
def test_a_worker_must_run_and_have_made_of_its_records_what_was_counted(
    workers: list[dict[str, Any]], counted: dict[str, int] | None, expected: list[str]
) -> None:
    """Each difference is named; where nobody counts, samples must have been rolled up, and none been bad."""
    assert expected == worker_complaints({**SAID, "workers": workers}, counted)


def test_who_reports_no_worker_is_complained_about() -> None:
    """Neither a consumer without workers nor one that is missing has a healthy one."""
    assert [["0 workers are said, there is 1"]] * 2 == [worker_complaints(said, None) for said in (SAID, None)]


def test_workers_and_the_last_hour_have_a_line_each() -> None:
    """Below the table: what the workers say, then what is kept; unknown is a question mark."""
    hour = {"minutes": 2, "lag_records_max": 1234, "within_objective": 0.75}
    unknown = {"minutes": 1, "lag_records_max": None, "within_objective": None}
    said = [{**SAID, "last_hour": hour}, {**SAID, "name": "app", "workers": [WORKER], "last_hour": unknown}, SAID]

    assert [
        "worker of app: running, 8 averaged, 1 bad, 0 filtered, 1 late",
        "last hour of billing, 2 min of it kept: lag at most 1,234 records, 75.0 % within its objective",
        "last hour of app, 1 min of it kept: lag at most ? records, ? % within its objective",
    ] == facts({"clusters": [{"consumers": said}]})


async def test_the_schedule_slows_and_lets_go_in_turn() -> None:
    """Each phase sets its speed once it is due, and the line says what is going on and for how long."""
    load = Load("127.0.0.1:1", "shipping", "readings", 7.0)
    schedule = Schedule(load, [Phase(1.0, 10.0, "slow"), Phase(9.0, 5.0, "fast")])
    seen = [(schedule.step(now), load.speed) for now in (100.0, 104.0, 110.0, 115.0)]

    assert [
        ("shipping is slow (10 s more)", 1.0),
        ("shipping is slow (6 s more)", 1.0),
        ("shipping is fast (5 s more)", 9.0),
        ("shipping is slow (10 s more)", 1.0),
    ] == seen


async def test_a_stage_ends_what_it_started_the_first_part_last() -> None:
    """Whatever was registered is ended, also where another part does not end well, and that is said."""
    said: list[str] = []
    ended: list[str] = []
    stage = Stage(said.append)

    def ending(name: str) -> Callable[[], Any]:
        async def end() -> None:
            await asyncio.sleep(0)
            ended.append(name)
            if name == "load":
                raise SandboxError("it is stuck")

        return end

    for name in ("Kafka", "load", "group"):
        stage.at_end(name, ending(name))
    await stage.end_all()
    await stage.end_all()

    assert "Kafka" == ended[-1]
    assert ["Kafka", "group", "load"] == sorted(ended)
    assert ["failed   load: ending it: it is stuck"] == said


async def test_a_part_that_others_can_do_without_may_fail() -> None:
    """Why it failed is said in one line and kept; a part that is needed raises."""
    said: list[str] = []
    starting: list[list[str]] = []
    stage = Stage(said.append)
    stage.on_change = lambda names: starting.append(list(names))

    async def fail() -> str:
        raise SandboxError("no Java")

    await stage.try_start("Spark query", fail)
    stage.skip("Faust app", "not wanted")

    assert ["failed   Spark query: no Java", "skipped  Faust app: not wanted"] == said
    assert ({"Spark query": "no Java"}, {"Faust app": "not wanted"}) == (stage.failed, stage.skipped)
    assert [["Spark query"], []] == starting
    with pytest.raises(SandboxError, match="no Java"):
        await stage.start("Kafka", fail)


def test_a_line_says_what_started_and_how_long_it_took() -> None:
    """One line a part, the time at its end."""
    assert "started  Kafka: here".ljust(89) + "   5.2 s" == line("started", "Kafka: here", 5.23)
    assert "skipped  Spark: no Java" == line("skipped", "Spark: no Java")


def test_the_table_shows_unknown_as_unknown() -> None:
    """A question mark stands where the report has null, and an exceeded objective is said."""
    unknown = {**SAID, "name": "a", "state": None, "lag_records": None, "lag_seconds": None, "records_per_second": None}
    late = {**SAID, "lag_records": 1234, "over_objective": True, "objective_seconds": 10.0}
    report = {"at": "2026-11-24T10:00:00.000Z", "clusters": [{"consumers": [late, unknown]}]}

    assert [
        ("a", "group", "", "?", "?", "?", "ok", "300 s"),
        ("billing", "group", "Stable", "1,234", "5.0 ± 0.0", "12.3", "ok", "10 s, exceeded"),
    ] == rows(report)
    assert block(report, ["below"]).splitlines()[3:] == [
        "a         group                    ?            ?       ?  ok      300 s",
        "billing   group  Stable        1,234    5.0 ± 0.0    12.3  ok      10 s, exceeded",
        "below",
    ]
