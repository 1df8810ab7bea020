"""Sliding windows over event time, against a recomputation that follows the definitions and knows no panes."""

import functools
import json
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.aggregates import AggregateError, count, count_by, greatest, least, mean, reduce, several, total
from processors.windows import Late, Result, Span, WindowError, Windows

SIZE, STEP, GRACE = 60, 20, 10


def windows(size=SIZE, step=STEP, grace=GRACE, aggregate=None, **options):
    return Windows(Span(size, step, grace), aggregate or count(), **options)


def results(outputs):
    return [output for output in outputs if isinstance(output, Result)]


def feed(these, records):
    """Add (key, at, value) records; return all that came of it."""
    return [output for key, at, value in records for output in these.add(key, at, value)]


# What a window is


@pytest.mark.parametrize(
    ("size", "step", "grace", "says"),
    [
        pytest.param(60, 25, 0, "the step must divide the size", id="a step that does not divide the size"),
        pytest.param(30, 60, 0, "the step must divide the size", id="a step longer than the window"),
        pytest.param(0, 20, 0, "window size 0:", id="no size"),
        pytest.param(-60, 20, 0, "window size -60:", id="a size below zero"),
        pytest.param(60, 0, 0, "window step 0:", id="no step"),
        pytest.param(60, -20, 0, "window step -20:", id="a step below zero"),
        pytest.param(60, 0.5, 0, "window step 0.5:", id="parts of a second"),
        pytest.param("60", 20, 0, "window size '60':", id="a size in quotes"),
        pytest.param(True, True, 0, "window size True:", id="true is no number of seconds"),
        pytest.param(60, 20, -1, "window grace -1:", id="a grace below zero"),
        pytest.param(60, 20, 0.5, "window grace 0.5:", id="a grace of parts of a second"),
        pytest.param(60, 20, None, "window grace None:", id="no grace"),
    ],
)
def test_windows_that_cannot_be_are_one_line(size, step, grace, says):
    """It names what was given and what is wanted."""
    with pytest.raises(WindowError) as raised:
        Span(size, step, grace)

    assert str(raised.value).startswith(says) or says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_record_is_in_size_by_step_windows():
    """Those that it lies in, each once; the one that ends where it lies is not among them."""
    these = windows()
    these.add("a", 100.0, 1)

    assert [
        Result("a", start, start + 60, 1, final=True, partial=False) for start in (60, 80, 100)
    ] == these.close_all()
    assert 0 == these.held


def test_a_window_closes_when_the_watermark_has_reached_its_end_and_the_grace():
    """Not a moment before, and with what came until then."""
    these = windows()

    assert [] == feed(these, [("a", 0.0, 1), ("a", 29.999, 1)])
    assert [("a", -40, 20, 1)] == [r[:4] for r in feed(these, [("a", 30.0, 1)])]
    assert [("a", -20, 40, 3)] == [r[:4] for r in feed(these, [("b", 69.9, 1)])]
    assert 69.9 == these.watermark


@pytest.mark.parametrize(
    ("at", "missed", "is_lost"),
    [
        pytest.param(130.0, 0, False, id="in order"),
        pytest.param(120.0, 0, False, id="older, all its windows are open"),
        pytest.param(119.9, 1, False, id="the first of its windows is closed"),
        pytest.param(80.0, 2, False, id="all but one are closed"),
        pytest.param(79.9, 3, True, id="all are closed"),
        pytest.param(0.0, 3, True, id="ages ago"),
    ],
)
def test_a_late_record_is_told_and_counts_where_it_still_can(at, missed, is_lost):
    """At watermark 130 with a grace of 10 s the windows that end at 120 and before are closed."""
    these = windows()
    these.add("a", 130.0, 1)
    outputs = list(these.add("a", at, 1))

    assert ([Late("a", at, 1, missed, 3)] if missed else []) == outputs
    assert [is_lost] * len(outputs) == [late.is_lost for late in outputs]
    assert (0 < missed < 3, is_lost) == (these.counts.partly_late == 1, these.counts.late == 1)
    assert 6 - missed == sum(result.value for result in these.close_all())


def test_a_window_is_closed_even_if_it_held_nothing():
    """The first record of a window that is over is late, not its only one."""
    these = windows()
    these.add("a", 1000.0, 1)

    assert [Late("b", 10.0, 1, 3, 3)] == list(these.add("b", 10.0, 1))
    assert [] == [result for result in these.close_all() if result.key == "b"]


def test_early_results_are_given_on_request_and_change_nothing():
    """Of all keys or of some; the final ones are those of windows nobody asked about."""
    these = windows()
    feed(these, [("a", 100.0, 1), ("b", 130.0, 1), ("a", 131.0, 1)])
    before = these.snapshot()

    assert [("a", 80, 2), ("a", 100, 2), ("a", 120, 1)] == [(r.key, r.start, r.value) for r in these.early(["a"])]
    assert {("b", 80), ("b", 100), ("b", 120)} == {(r.key, r.start) for r in these.early() if r.key == "b"}
    assert not any(result.final for result in these.early())
    assert before == these.snapshot()


# Sources


def test_the_slowest_source_holds_the_watermark():
    """A window closes when all sources have passed it."""
    these = windows()
    these.add("a", 10.0, 1, source=0)
    these.add("b", 10.0, 1, source=1)

    assert [] == list(these.add("a", 500.0, 1, source=0))
    assert 10.0 == these.watermark
    assert [-40, -20, 0] == sorted({r.start for r in these.add("b", 400.0, 1, source=1)})


def test_an_idle_source_holds_nothing_until_it_is_back():
    """What it brings then may be late; it holds the watermark again, which never goes back."""
    these = windows()
    these.add("a", 10.0, 1, source=0)
    these.add("b", 500.0, 1, source=1)

    assert [-40, -20, 0] == [result.start for result in these.idle(0)]
    assert [Late("a", 11.0, 1, 3, 3)] == list(these.add("a", 11.0, 1, source=0))
    assert 500.0 == these.watermark
    these.add("b", 900.0, 1, source=1)
    assert 500.0 == these.watermark
    these.add("a", 700.0, 1, source=0)
    assert 700.0 == these.watermark


def test_the_only_source_awake_moves_the_watermark():
    """Back from being idle with an old record, it has been further before."""
    these = windows(1, 1, 0)
    these.add("a", 0.0, 1, source=0)
    these.add("a", 1.0, 1, source=1)
    these.idle(1)
    these.idle(0)

    assert [("a", 0, 1, 2)] == [result[:4] for result in these.add("a", 0.0, 1, source=1)]


def test_an_expected_source_holds_the_watermark_before_its_first_record():
    """Or until it is said to be idle."""
    these = windows()
    these.expect([0, 1])

    assert [] == list(these.add("a", 500.0, 1, source=0))
    assert -math.inf == these.watermark
    these.idle(1)
    assert 500.0 == these.watermark


def test_what_may_lack_earlier_records_is_marked():
    """Begun in the middle of a partition: windows that begin up to the grace after the first event time."""
    these = windows(whole=False)
    feed(these, [("a", 100.0, 1), ("a", 115.0, 1), ("a", 125.0, 1)])

    assert {(start, start <= 110) for start in (60, 80, 100, 120)} == {(r.start, r.partial) for r in these.close_all()}


# Values


NUMBERS = [3, -1, 7.5, 0]


@pytest.mark.parametrize(
    ("aggregate", "values", "expected"),
    [
        pytest.param(count(), ["x", None, 3], 3, id="count"),
        pytest.param(total(), NUMBERS, 9.5, id="sum"),
        pytest.param(mean(), NUMBERS, 2.375, id="mean"),
        pytest.param(least(), NUMBERS, -1, id="min"),
        pytest.param(greatest(), NUMBERS, 7.5, id="max"),
        pytest.param(greatest(abs), [-3, 2], 3, id="max of a part"),
        pytest.param(total(len), ["a", "bcd"], 4, id="sum of a part"),
        pytest.param(count_by(), ["x", "y", "x"], {"x": 2, "y": 1}, id="count by value"),
        pytest.param(count_by(len), ["x", "yy", "z"], {1: 2, 2: 1}, id="count by a part"),
        pytest.param(reduce(lambda a, b: a + b), ["x", "y", "z"], "xyz", id="reduce, in the order of time"),
        pytest.param(reduce(lambda a, b: a), [None, 1], None, id="reduce where None is a value"),
        pytest.param(
            several(n=count(), by=count_by()), ["x", "x"], {"n": 2, "by": {"x": 2}}, id="several, each by its name"
        ),
    ],
)
@pytest.mark.parametrize("apart", [0.0, 10.0])
def test_aggregates(aggregate, values, expected, apart):
    """The same in one pane and across panes, and through a snapshot; the early result is the final one."""
    these = windows(100, 10, aggregate=aggregate)
    for number, value in enumerate(values):
        these.add("a", 1000.0 + number * apart, value)
    again = Windows.restore(these.span, aggregate, json.loads(json.dumps(these.snapshot())))
    early = these.early()

    assert expected == next(result.value for result in early if result.start == 950)
    assert expected == next(result.value for result in these.close_all() if result.start == 950)
    assert expected == next(result.value for result in again.close_all() if result.start == 950)


@pytest.mark.parametrize(
    ("aggregate", "at", "value"),
    [
        pytest.param(total(), 100.0, "one", id="words"),
        pytest.param(total(), 100.0, math.nan, id="NaN"),
        pytest.param(mean(), 100.0, math.inf, id="without end"),
        pytest.param(least(), 100.0, None, id="nothing"),
        pytest.param(count_by(), 100.0, [1], id="a list as value to count"),
        pytest.param(several(by=count_by(), sum=total()), 100.0, "x", id="the second of two cannot"),
        pytest.param(reduce(lambda a, b: a + b), 100.0, "x", id="the function raises"),
        pytest.param(count(), -1.0, 1, id="before 1970"),
        pytest.param(count(), math.nan, 1, id="no time"),
        pytest.param(count(), 1.79e12, 1, id="milliseconds"),
        pytest.param(count(), "100", 1, id="a time in quotes"),
    ],
)
@pytest.mark.parametrize("several_items", [False, True])
def test_what_cannot_be_added_changes_nothing(aggregate, at, value, several_items):
    """It raises, and what is there stays as it was, also if a good one came in the same record."""
    these = windows(aggregate=aggregate)
    these.add("a", 100.0, 1)
    before = json.dumps(these.snapshot())

    with pytest.raises((ValueError, TypeError)):
        these.add_all([("a", 101.0, 1), ("b", 500.0, 1), ("a", at, value)]) if several_items else these.add(
            "a", at, value
        )
    assert before == json.dumps(these.snapshot())


@pytest.mark.parametrize("key", [[1], {}], ids=["a list", "a dictionary"])
def test_a_key_that_is_none_changes_nothing(key):
    """Whether it would open a pane or not."""
    these = windows()
    these.add("a", 100.0, 1)
    before = these.snapshot()

    for at in (100.0, 300.0):
        with pytest.raises(TypeError):
            these.add(key, at, 1)
    assert before == these.snapshot()


@pytest.mark.parametrize(
    "make",
    [lambda: total(of=3), lambda: reduce(None), several, lambda: several(a=1)],
    ids=["of", "reduce", "none", "part"],
)
def test_an_aggregate_that_cannot_be_is_one_line(make):
    """At the declaration, not at the first record."""
    with pytest.raises(AggregateError) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("span", "aggregate"),
    [
        pytest.param(Span(SIZE, 10, GRACE), count(), id="another step"),
        pytest.param(Span(SIZE, STEP, 0), count(), id="another grace"),
        pytest.param(Span(SIZE, STEP, GRACE), mean(), id="another aggregate"),
    ],
)
def test_other_windows_are_not_restored(span, aggregate):
    """One line; numbers of another kind would be nonsense."""
    with pytest.raises(WindowError, match="cannot go on as"):
        Windows.restore(span, aggregate, windows().snapshot())


def test_what_is_held_is_bounded():
    """Panes go when their last window closes, whatever the number of records."""
    these = windows(300, 30, 60)
    most = 0
    for number in range(20_000):
        these.add(number % 7, number * 1.0, number)
        most = max(most, these.held)

    assert most <= 7 * (300 + 60 + 30 + 30) / 30
    assert len(json.dumps(these.snapshot())) < 7 * 14 * 20 + 500


# Everything at once, against the definitions


class Definitions:
    """What windows are, written down again: every record is kept, and looked at anew for every result."""

    def __init__(self, size, step, grace):
        self.size, self.step, self.grace = size, step, grace
        self.records = []  # (key, at, value, the windows that have counted it)
        self.greatest, self.idle_ones = {}, set()
        self.watermark, self.given = None, set()

    def is_closed(self, start):
        return self.watermark is not None and self.watermark >= start + self.size + self.grace

    def starts(self, at):
        last = math.floor(Fraction(at) / self.step) * self.step
        return [last - back for back in range(0, self.size, self.step)]

    def keep(self, key, at, value):
        open_ones = [start for start in self.starts(at) if not self.is_closed(start)]
        self.records.append((key, at, value, open_ones))
        missed = self.size // self.step - len(open_ones)
        return [(key, at, value, missed)] if missed else []

    def add(self, key, at, value, source):
        late = self.keep(key, at, value)
        self.greatest[source] = max(at, self.greatest.get(source, at))
        self.idle_ones.discard(source)
        return late, self.move()

    def idle(self, source):
        self.greatest.setdefault(source, -math.inf)
        self.idle_ones.add(source)
        return [], self.move()

    def move(self):
        awake = [at for source, at in self.greatest.items() if source not in self.idle_ones]
        if awake and min(awake) > -math.inf:
            self.watermark = max(Fraction(min(awake)), self.watermark or Fraction(0))
        return self.results(self.is_closed)

    def results(self, which):
        held = {}
        for key, at, value, open_ones in self.records:
            for start in open_ones:
                if which(start) and (key, start) not in self.given:
                    held.setdefault((key, start), []).append((at, value))
        self.given |= held.keys()
        return {where: self.value(values) for where, values in held.items()}

    def value(self, values):
        numbers = [value for _, value in values]
        return {
            "count": len(numbers),
            "sum": sum(numbers),
            "mean": Fraction(sum(map(Fraction, numbers)), len(numbers)),
            "min": min(numbers),
            "max": max(numbers),
            "by": Counter(numbers),
            "reduce": functools.reduce(math.gcd, (int(number * 4) for number in numbers)),
        }


EVERYTHING = several(
    count=count(),
    sum=total(),
    mean=mean(),
    min=least(),
    max=greatest(),
    by=count_by(),
    # Any grouping and any order give the same, or the definitions would have to know the panes.
    reduce=reduce(lambda a, b: {"n": math.gcd(made(a), made(b))}),
)


def made(value):
    return value["n"] if isinstance(value, dict) else int(value * 4)


SPANS = st.tuples(st.integers(1, 40), st.integers(1, 5), st.sampled_from([0, 1, 7, 30]))
QUARTERS = st.integers(-40, 40).map(lambda quarter: quarter / 4)  # their sums are exact
SOURCES = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(
        st.just("add"),
        st.sampled_from("abc"),
        st.one_of(st.integers(0, 400), st.floats(0, 400)),
        QUARTERS,
        SOURCES,
    ),
    st.tuples(st.just("idle"), SOURCES),
)
DRIFTING = st.lists(st.tuples(st.sampled_from("ab"), st.floats(-60, 40), QUARTERS, SOURCES), max_size=40).map(
    lambda rows: [
        ("add", key, max(0.0, 15.0 * number + off), value, source)
        for number, (key, off, value, source) in enumerate(rows)
    ]
)


def do(these, step):
    match step:
        case ("add", key, at, value, source):
            return list(these.add(key, at, value, source))
        case ("idle", source):
            return list(these.idle(source))


def judged(outputs):
    """Return the late ones, and the results by key and start; none twice."""
    lates = [(out.key, out.at, out.value, out.missed) for out in outputs if isinstance(out, Late)]
    found = {}
    for out in results(outputs):
        assert (out.key, out.start) not in found
        value = out.value
        found[out.key, out.start] = {**value, "mean": value["mean"], "reduce": made(value["reduce"])}
    return lates, found


def compared(expected, found):
    """Compare exactly but for the mean, which is the quotient rounded once, and gcd, which has no sign."""
    assert expected.keys() == found.keys()
    for where, value in expected.items():
        assert {
            **value,
            "mean": float(value["mean"]),
            "by": dict(value["by"]),
            "reduce": abs(value["reduce"]),
        } == {**found[where], "reduce": abs(found[where]["reduce"])}


@settings(max_examples=300, deadline=None)
@given(SPANS, st.one_of(st.lists(STEPS, max_size=40), DRIFTING), st.data())
def test_windows_do_what_is_defined(span, steps, data):
    """Out of order, late, with idle partitions, and restored from a snapshot anywhere: every output is as defined."""
    step, n, grace = span
    these, definitions = Windows(Span(step * n, step, grace), EVERYTHING), Definitions(step * n, step, grace)
    restored_at = data.draw(st.integers(0, len(steps)))
    for number, each in enumerate(steps):
        if number == restored_at:
            these = Windows.restore(these.span, EVERYTHING, json.loads(json.dumps(these.snapshot())))
        lates, finals = getattr(definitions, each[0])(*each[1:])
        found_lates, found = judged(do(these, each))

        assert lates == found_lates
        compared(finals, found)
    compared(definitions.results(lambda _: True), judged(these.close_all())[1])
    assert 0 == these.held


@settings(max_examples=60, deadline=None)
@given(SPANS, st.lists(STEPS, max_size=30), st.integers(0, 30))
def test_what_is_restored_goes_on_exactly_as_before(span, steps, cut):
    """Outputs in the same order, and the same state at the end."""
    step, n, grace = span
    spanned = Span(step * n, step, grace)
    one = Windows(spanned, EVERYTHING, whole=False)
    for each in steps[:cut]:
        do(one, each)
    other = Windows.restore(spanned, EVERYTHING, json.loads(json.dumps(one.snapshot())))

    assert [do(one, each) for each in steps[cut:]] == [do(other, each) for each in steps[cut:]]
    assert one.snapshot() == other.snapshot()
    assert one.early() == other.early()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 200), QUARTERS), max_size=5), max_size=12))
def test_items_of_one_record_are_added_together(records):
    """As many single records would be, but judged by the watermark of before."""
    spanned = Span(30, 10, 5)
    these, definitions = Windows(spanned, EVERYTHING), Definitions(30, 10, 5)
    for items in records:
        lates = [late for item in items for late in definitions.keep(*item)]
        definitions.greatest[0] = max([definitions.greatest.get(0, 0), *(at for _, at, _ in items)])
        finals = definitions.move() if items else {}
        found_lates, found = judged(these.add_all(items))

        assert lates == found_lates
        compared(finals, found)
    counts = these.counts
    assert sum(map(len, records)) == counts.counted + counts.late
