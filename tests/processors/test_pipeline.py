"""Jobs in memory: what is declared, what it does to records, and what happens to those that fail."""

import dataclasses
import json
import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors import aggregates
from processors.memory import Memory
from processors.pipeline import JobError, Poison, from_json, read, to_json
from processors.running import IDLE_SECONDS, Counts, Quiet, TooManyFailuresError
from processors.windows import WindowError


def numbers(**options):
    return read("numbers", name="job", **options)


def at(value):
    return value["at"]


def dead(run):
    """Return (value, error) of what is on the dead letter topic."""
    return [(each.value, dict(each.headers)["streamgauge.error"].decode()) for each in run.sent["numbers-dlq"]]


async def coroutine(value):
    return value


# Declaring


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        pytest.param(lambda: read("a b", name="job"), "topic 'a b'", id="a space in a topic"),
        pytest.param(lambda: read("", name="job"), "topic ''", id="no topic"),
        pytest.param(lambda: read("..", name="job"), "topic '..'", id="a topic that Kafka refuses"),
        pytest.param(lambda: read("t", name="é"), "job name 'é'", id="a name that is no group id we make topics of"),
        pytest.param(lambda: read("t", name="j", decode=3), "decode 3", id="decode is no function"),
        pytest.param(lambda: numbers().map(None), "map None", id="no function"),
        pytest.param(lambda: numbers().map(coroutine), "plain function", id="a coroutine"),
        pytest.param(lambda: numbers().filter(lambda: True), "filter <lambda>()", id="a function of nothing"),
        pytest.param(lambda: numbers().flat_map(lambda a, b: []), "flat_map <lambda>(a, b)", id="a function of two"),
        pytest.param(lambda: numbers().join([1], at, max), "join with list", id="a join with a list"),
        pytest.param(lambda: numbers().join({}, at, at), "join into at(value)", id="into takes what was found as well"),
        pytest.param(lambda: numbers().window(60, 25), "must divide", id="a step that does not divide the size"),
        pytest.param(lambda: numbers().window(0), "window size 0", id="no size"),
        pytest.param(lambda: numbers().window(60, at=7), "window at 7", id="an event time that is no function"),
        pytest.param(lambda: numbers().window(60, late="numbers"), "reads that itself", id="late ones read again"),
        pytest.param(lambda: numbers().window(60).aggregate(sum), "aggregate <built-in", id="not an aggregate"),
        pytest.param(lambda: numbers().to("numbers"), "reads that itself, without end", id="writes what it reads"),
        pytest.param(lambda: numbers().to("x", encode=None), "encode None", id="encode is no function"),
        pytest.param(lambda: numbers().key_by(at).key_by(at), "key_by twice", id="two keys"),
        pytest.param(
            lambda: numbers().window(60).aggregate(aggregates.count()).window(60), "window after a window", id="windows"
        ),
        pytest.param(
            lambda: numbers().window(60).aggregate(aggregates.count()).key_by(at), "key_by after a window", id="key"
        ),
        pytest.param(lambda: Poison(limit=2), "poison limit 2", id="a ratio above one"),
        pytest.param(lambda: Poison(last=0), "the last 0 records", id="a limit over nothing"),
    ],
)
def test_what_cannot_be_is_one_line_when_it_is_declared(declare, says):
    """It names the step and what was given."""
    with pytest.raises((JobError, WindowError)) as raised:
        declare()

    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert 2 == raised.value.exit_code


def test_functions_of_c_and_with_more_that_may_be_left_out_will_do():
    """What can be called with a value is a function of a value."""
    job = numbers().map(abs).map(str).map(lambda text, base=10: int(text, base)).to("out")
    run = Memory(job)
    run.feed(-3)

    assert [3] == run.values("out")


def test_a_step_gives_a_new_stream():
    """What was declared before is as it was: jobs may share a beginning."""
    begun = numbers().map(lambda n: n + 1)
    doubled, halved = Memory(begun.map(lambda n: n * 2).to("out")), Memory(begun.map(lambda n: n / 2).to("out"))
    for run in (doubled, halved):
        run.feed(5)

    assert ([12], [3]) == (doubled.values("out"), halved.values("out"))


# Doing


def test_steps_are_done_in_order_under_the_key_of_the_record():
    """Each value alone; what flat_map makes goes on one by one."""
    job = (
        numbers()
        .map(lambda n: n * 10)
        .flat_map(lambda n: range(n, n + 3))
        .filter(lambda n: n % 2 == 0)
        .join({10: "ten", 12: "twelve"}, lambda n: n, lambda n, word: (n, word))
        .to("out")
    )
    run = Memory(job)
    run.feed(1, key="a")
    run.feed(2)

    assert [[10, "ten"], [12, "twelve"], [20, None], [22, None]] == run.values("out")
    assert [b"a", b"a", None, None] == [output.key for output in run.sent["out"]]
    assert Counts(read=2, sent=4) == run.counts


def test_a_table_is_looked_up_when_the_record_comes():
    """It is a mapping like any other, and may change."""
    table = {}
    run = Memory(numbers().join(table, lambda n: n, lambda _, found: found).to("out"))
    run.feed(1)
    table[1] = "one"
    run.feed(1)

    assert [None, "one"] == run.values("out")


def windowed(**options):
    options = {"at": at, "grace": 10, "late": "late"} | options
    return numbers().window(60, 20, **options).aggregate(aggregates.total(lambda value: value["n"])).to("out")


def test_final_results_are_written_when_windows_close():
    """Key, window and value; the key of the output is that of the record."""
    run = Memory(windowed())
    run.feed({"n": 1, "at": 100}, key="a")
    run.feed({"n": 2, "at": 119.5}, key="a")
    run.feed({"n": 4, "at": 130}, key="b")

    first = {"key": "a", "start": 60, "end": 120, "value": 3, "final": True, "partial": False}
    assert [first] == run.values("out")
    assert [b"a"] == [output.key for output in run.sent["out"]]
    assert {("a", 80, 3), ("a", 100, 3)} <= {(r.key, r.start, r.value) for r in run.early()}
    run.close()
    assert 3 + 3 == len(run.values("out"))


def test_late_records_are_counted_and_kept_as_they_came():
    """On the side topic, with where they were and what they missed."""
    run = Memory(windowed())
    run.feed({"n": 1, "at": 130}, key="a")
    run.feed({"n": 1, "at": 80}, key="a", headers=(("trace", b"7"),))
    run.feed(b' {"n": 1, "at": 5}', key="a")

    assert (1, 1) == (run.counts.partly_late, run.counts.late)
    partly, wholly = run.sent["late"]
    assert b' {"n": 1, "at": 5}' == wholly.value
    told = [("topic", b"numbers"), ("partition", b"0"), ("offset", b"1")]
    said = [("missed", b"2 of 3 windows"), ("event_time", b"80")]
    named = [(f"streamgauge.{name}", value) for name, value in (*told, *said)]
    assert (("trace", b"7"), *named) == partly.headers
    run.close()
    assert 3 + 1 == sum(value["value"] for value in run.values("out"))


def test_a_timestamp_is_the_event_time_where_nothing_else_is_said():
    """That of the record."""
    run = Memory(numbers().window(60).aggregate(aggregates.count()).to("out"))
    run.feed(1, key="a", timestamp=70.0)
    run.close()

    assert [60] == [value["start"] for value in run.values("out")]


def test_key_by_brings_equal_keys_together_by_what_json_makes_of_values():
    """Over all partitions; the slowest of them holds the windows open."""
    job = (
        numbers()
        .map(lambda value: {**value, "pair": (1, 2)})
        .key_by(lambda value: value["who"])
        .window(60, at=at)
        .aggregate(aggregates.several(n=aggregates.count(), pairs=aggregates.reduce(lambda a, b: a)))
        .to("out")
    )
    run = Memory(job, partitions=2)
    run.feed({"who": "x", "at": 10}, partition=0)
    run.feed({"who": "x", "at": 20}, partition=1)
    run.feed({"who": "x", "at": 500}, partition=0)
    assert [] == run.values("out")
    run.feed({"who": "x", "at": 400}, partition=1)

    assert [("x", 0, 2)] == [(value["key"], value["start"], value["value"]["n"]) for value in run.values("out")]
    assert [["who", "at", "pair"]] == [list(value["value"]["pairs"]) for value in run.values("out")]
    assert {"job-by-key-repartition"} < run.sent.keys()


KEYED = numbers().key_by(lambda value: "all").window(60, at=at).aggregate(aggregates.count()).to("out")


def test_a_partition_that_is_said_to_be_idle_holds_nothing():
    """Until it brings a record again."""
    run = Memory(KEYED, partitions=2)
    run.feed({"at": 10}, partition=0)
    run.feed({"at": 500}, partition=0)
    assert [] == run.values("out")
    run.idle(1)

    assert [(0, 1)] == [(value["start"], value["value"]) for value in run.values("out")]


def test_a_partition_with_nothing_more_to_read_is_idle_after_a_while():
    """Until it brings a record again, however old."""
    run = Memory(KEYED, partitions=2)
    run.feed({"at": 10}, partition=0, now=0)
    run.feed({"at": 500}, partition=0, now=1)
    run.tick(IDLE_SECONDS - 1)
    assert [] == run.values("out")
    run.tick(IDLE_SECONDS)
    assert [0] == [value["start"] for value in run.values("out")]
    run.feed({"at": 480}, partition=1, now=IDLE_SECONDS + 1)
    run.feed({"at": 700}, partition=0, now=IDLE_SECONDS + 2)

    assert [0] == [value["start"] for value in run.values("out")]


def test_a_marker_is_sent_once_to_each_partition_that_heard_nothing():
    """It says which record it comes after; what is sent again from before it changes nothing."""
    run = Memory(KEYED, partitions=2)
    run.feed({"at": 10}, partition=1, now=0)
    for now in (IDLE_SECONDS, IDLE_SECONDS + 1, 2 * IDLE_SECONDS):
        run.tick(now)
    markers = [each for each in run.sent["job-by-key-repartition"] if each.value is None]
    again = next(each for each in run.sent["job-by-key-repartition"] if each.value is not None)
    run._send(0, [again], 0.0)

    said = [(each.partition, each.headers) for each in markers]
    assert sorted(said) == [
        (0, (("streamgauge.idle", b"0/-1"),)),
        (0, (("streamgauge.idle", b"1/0"),)),
        (1, (("streamgauge.idle", b"0/-1"),)),
        (1, (("streamgauge.idle", b"1/0"),)),
    ]
    assert (1, 1) == (run.counts.read, run.counts.repeated)


def test_a_source_that_is_busy_or_read_elsewhere_is_not_quiet():
    """Neither one that has more to read, nor one whose end could not be asked for."""
    quiet = Quiet()
    quiet.expect([0, 1], [0], now=0.0)
    assert {0, 1} == quiet.sources(IDLE_SECONDS)
    quiet.busy(0, IDLE_SECONDS)
    assert {1} == quiet.sources(IDLE_SECONDS)
    quiet.expect([0], [0], now=IDLE_SECONDS)

    assert set() == quiet.sources(IDLE_SECONDS)
    assert {0} == quiet.sources(2 * IDLE_SECONDS)


@pytest.mark.parametrize("job", [windowed(), KEYED], ids=["by the record's key", "by a new key"])
def test_a_record_that_comes_again_changes_nothing(job):
    """After a rebalance Faust gives again what was not committed; known by partition and offset of the source."""
    run = Memory(job, partitions=2)
    for offset in (0, 1, 2, 1, 2, 3, 0):
        run.feed({"n": 1, "at": 100}, key="a", offset=offset)
    run.close()

    assert [4] * len(run.values("out")) == [value["value"] for value in run.values("out")]
    assert 3 == run.counts.repeated


def test_what_was_sent_again_between_the_parts_changes_nothing():
    """It has another offset there; the origin in its header is the same."""
    run = Memory(KEYED)
    second = run._parts[1]
    run.feed({"at": 100})
    again = run.sent["job-by-key-repartition"][0]
    run._send(0, [again], 0.0)
    run.close()

    assert [1] == [value["value"] for value in run.values("out")]
    assert 1 == second.counts.repeated


def test_windows_begun_in_the_middle_of_a_partition_say_so():
    """What was read before is not known; windows that begin later lack nothing."""
    run = Memory(windowed())
    run.feed({"n": 1, "at": 100}, key="a", offset=50)
    run.feed({"n": 1, "at": 115}, key="a")
    run.feed({"n": 1, "at": 125}, key="a")
    run.close()

    assert {60: True, 80: True, 100: True, 120: False} == {
        value["start"]: value["partial"] for value in run.values("out")
    }


def test_what_is_kept_of_partitions_read_elsewhere_is_forgotten():
    """And that of the others goes on."""
    run = Memory(windowed(late=None), partitions=2)
    for partition in (0, 1):
        run.feed({"n": 1, "at": 100}, key=f"k{partition}", partition=partition)
    run._parts[0].keep([1])
    run.close()

    assert {"k1"} == {value["key"] for value in run.values("out")}


# Failing


def refuse(value):
    if value["n"] == 13:
        raise ValueError("unlucky\nnumber")
    return value


@pytest.mark.parametrize(
    ("value", "key", "error"),
    [
        pytest.param(b"nonsense", "a", "decode: JSONDecodeError: Expecting value", id="not JSON"),
        pytest.param(None, "a", "decode: ValueError: the record has no value", id="no value"),
        pytest.param(b"[" * 100_000, "a", "decode: ValueError: JSON nested too deeply", id="nested without end"),
        pytest.param(b"\xff", "a", "decode: UnicodeDecodeError:", id="binary"),
        pytest.param({"n": 13, "at": 100}, "a", "map: ValueError: unlucky number", id="a step raises"),
        pytest.param({"at": 100}, "a", "map: KeyError: 'n'", id="a field is missing"),
        pytest.param({"n": 1}, "a", "window at: KeyError: 'at'", id="no event time"),
        pytest.param({"n": 1, "at": "noon"}, "a", "window at: TypeError:", id="a time in words"),
        pytest.param(
            {"n": 1, "at": 1e9}, "a", "window at: ValueError: event time 1000000000.0 is", id="the far future"
        ),
        pytest.param({"n": 1, "at": -5}, "a", "aggregate: ValueError: event time -5", id="the far past"),
        pytest.param({"n": "x", "at": 100}, "a", "aggregate: TypeError:", id="a value that cannot be summed"),
        pytest.param({"n": 1, "at": 100}, None, "window: ValueError: the record has no key", id="no key"),
        pytest.param({"n": 1, "at": 100}, b"\xff", "key: UnicodeDecodeError:", id="a key that is no text"),
    ],
)
def test_a_record_that_fails_is_set_aside_and_touches_no_other(value, key, error):
    """As it came, with its headers, where it was and why; the records around it count."""
    job = numbers().map(refuse).window(60, at=at).aggregate(aggregates.total(lambda each: each["n"])).to("out")
    run = Memory(job)
    run.feed({"n": 1, "at": 100}, key="a", timestamp=100)
    run.feed(value, key=key, timestamp=200, headers=(("trace", b"7"),))
    run.feed({"n": 2, "at": 101}, key="a", timestamp=100)
    run.close()

    assert [3] == [each["value"] for each in run.values("out")]
    (letter,) = run.sent["numbers-dlq"]
    assert value is None or isinstance(value, dict) or value == letter.value
    assert key is None or isinstance(key, str) or key == letter.key
    said = dict(letter.headers)
    assert (b"7", b"numbers", b"0", b"1") == tuple(
        said[name] for name in ("trace", "streamgauge.topic", "streamgauge.partition", "streamgauge.offset")
    )
    assert said["streamgauge.error"].decode().startswith(error)
    assert "\n" not in said["streamgauge.error"].decode()
    assert (3, 1) == (run.counts.read, run.counts.failed)


def test_a_record_is_taken_whole_or_not_at_all():
    """The last of three parts fails: nothing of the first two is written or counted."""
    parts = numbers().flat_map(lambda value: value["parts"]).map(refuse)
    plain = Memory(parts.to("out"))
    summed = Memory(parts.window(60, at=at).aggregate(aggregates.total(lambda each: each["n"])).to("out"))
    for run in (plain, summed):
        run.feed({"parts": [{"n": 1, "at": 5}, {"n": 2, "at": 5}]}, key="a", timestamp=5)
        run.feed({"parts": [{"n": 4, "at": 5}, {"n": 8, "at": 5}, {"n": 13, "at": 5}]}, key="a", timestamp=5)
    summed.feed({"parts": [{"n": 4, "at": 5}, {"n": "x", "at": 5}]}, key="a", timestamp=5)  # cannot be summed
    for run in (plain, summed):
        run.close()

    assert [1, 2] == [value["n"] for value in plain.values("out")]
    assert [3] == [value["value"] for value in summed.values("out")]


def test_what_fails_after_key_by_says_where_it_was_there():
    """The record of the topic between: its value is what the steps before have made."""
    job = numbers().map(lambda n: n * 10).key_by(str).map(lambda n: 1 / (n - 20)).to("out")
    run = Memory(job)
    for number in (1, 2, 3):
        run.feed(number)

    assert [-0.1, 0.1] == run.values("out")
    assert [(b"20", "map: ZeroDivisionError: division by zero")] == dead(run)
    assert b"job-by-key-repartition" == dict(run.sent["numbers-dlq"][0].headers)["streamgauge.topic"]


def test_a_key_that_is_no_text_fails():
    """One that is a number would come out as a text behind the topic between."""
    run = Memory(numbers().key_by(lambda n: n).to("out"))
    run.feed(1)

    assert [(b"1", "key_by: TypeError: the key 1 is not a text")] == dead(run)


def test_a_result_that_fails_is_set_aside_by_itself():
    """The other results of the same moment are written."""
    job = (
        numbers()
        .window(60, at=at)
        .aggregate(aggregates.total(lambda value: value["n"]))
        .map(lambda result: (result.key, 1 / result.value))
        .to("out")
    )
    run = Memory(job)
    run.feed({"n": 0, "at": 5}, key="a")
    run.feed({"n": 2, "at": 5}, key="b")
    run.feed({"n": 1, "at": 65}, key="c")

    assert [["b", 0.5]] == run.values("out")
    ((value, error),) = dead(run)
    assert ("a", 0, 0) == tuple(json.loads(value)[name] for name in ("key", "start", "value"))
    assert "map: ZeroDivisionError: division by zero" == error


def test_too_many_failures_stop_the_job_loudly():
    """When more than the limit of the last records failed, and not before; all of them are on the dead letters."""
    run = Memory(numbers(poison=Poison(limit=0.5, last=4)).to("out"))
    for value in (b"bad", b"bad", b"bad", 1, 2, 3, b"bad", b"bad"):
        if value == 1:
            with pytest.raises(TooManyFailuresError):
                run.feed(value)
        elif value == 2:
            run.feed(value)  # two of the last four
        else:
            run.feed(value)
    with pytest.raises(TooManyFailuresError) as raised:
        run.feed(b"bad")

    assert str(raised.value).startswith(
        "the job job stops: 3 of the last 4 records failed (limit 0.5), the last by decode"
    )
    assert "they are on numbers-dlq" in str(raised.value)
    assert ([1, 2, 3], 6) == (run.values("out"), len(dead(run)))


def test_a_limit_of_one_never_stops():
    """All may fail."""
    run = Memory(numbers(poison=Poison(limit=1, last=2)).to("out"))
    for _ in range(10):
        run.feed(b"bad")

    assert 10 == len(dead(run))


# Values and JSON


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "coded"),
    [
        pytest.param({"a": [1, None]}, b'{"a":[1,null]}', id="plain"),
        pytest.param([Point(3)], b'[{"x":3}]', id="a dataclass"),
    ],
)
def test_json(value, coded):
    """Values and dataclasses."""
    assert coded == to_json(value)


@pytest.mark.parametrize("value", [math.nan, object(), Point, {1j: 1}], ids=["NaN", "an object", "a class", "a key"])
def test_what_json_cannot_say(value):
    """An error, not something else instead."""
    with pytest.raises((ValueError, TypeError)):
        to_json(value)


# Everything at once


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(-8, 8),
        st.integers(0, 20),
        st.integers(0, 2),
        st.sampled_from(["good"] * 6 + ["bad", "odd"]),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_a_job_is_a_plain_loop_over_the_records(rows):
    """Steps, a new key and windows, with bad records among the good: what a loop over what was fed gives."""
    job = (
        numbers(poison=Poison(limit=1))
        .filter(lambda value: value["n"] % 2 == 0)
        .flat_map(lambda value: [value, {**value, "n": value["n"] * 100}])
        .key_by(lambda value: value["who"])
        .window(60, 20, grace=20, at=at)
        .aggregate(aggregates.total(lambda value: value["n"]))
        .to("out")
    )
    run = Memory(job, partitions=3)
    expected, bad = defaultdict(int), 0
    for number, (who, n, jitter, partition, kind) in enumerate(rows):
        moment = 1000 + number * 10 - jitter
        value = {"who": who, "n": n, "at": moment}
        run.feed(
            b"bad" if kind == "bad" else {"n": n} if kind == "odd" else value, partition=partition, timestamp=moment
        )
        bad += kind == "bad" or (kind == "odd" and n % 2 == 0)
        if kind == "good" and n % 2 == 0:
            for start in range(moment // 20 * 20 - 40, moment // 20 * 20 + 1, 20):
                expected[who, start] += n * 101
    run.close()

    assert expected == {(value["key"], value["start"]): value["value"] for value in run.values("out")}
    assert len(expected) == len(run.values("out"))
    assert (bad, len(rows)) == (run.counts.failed, run.counts.read)


def test_from_json_is_json():
    """Of bytes."""
    assert {"a": 1} == from_json(b'{"a": 1}')
