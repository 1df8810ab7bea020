"""Tumbling windows as values: what a sensor's panes hold, and for how long."""

import math
from collections import defaultdict
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.agents.panes import Pane, add, from_json, to_json, window_start

TIMES = st.floats(0, 1e10, allow_nan=False)
VALUES = st.integers(-360, 240).map(lambda quarter: quarter / 4)  # sums of these are exact


@pytest.mark.parametrize(
    ("at", "size", "start"),
    [
        pytest.param(120.0, 60, 120, id="at its beginning"),
        pytest.param(179.999, 60, 120, id="just before its end"),
        pytest.param(180.0, 60, 180, id="the end belongs to the next"),
        pytest.param(0.5, 60, 0, id="the first of all"),
        pytest.param(1795000000.123, 60, 1794999960, id="today"),
    ],
)
def test_a_moment_lies_in_one_window(at, size, start):
    """Windows begin at multiples of their size; the end is exclusive."""
    assert start == window_start(at, size)


def exact_start(at, size):
    return math.floor(Fraction(at) / size) * size


def add_all(readings, size=60, keep=300):
    panes, changes = (), []
    for at, value in readings:
        added = add(panes, at, value, size=size, keep=keep)
        if added is not None:
            panes = added[0]
        changes.append(None if added is None else added[1])
    return panes, changes


def test_values_of_a_window_are_averaged_in_any_order():
    """Out of order, across two windows: each value is in its own."""
    panes, changes = add_all([(60.0, 10.0), (130.0, 1.0), (61.0, 20.0), (119.0, 30.0)])

    assert (Pane(60, 3, 60.0), Pane(120, 1, 1.0)) == panes
    assert [10.0, 1.0, 15.0, 20.0] == [pane.average for pane in changes]


@pytest.mark.parametrize(
    ("at", "is_late"),
    [
        pytest.param(660.0, False, id="the oldest kept: 240 s before the newest"),
        pytest.param(659.9, True, id="its end is 240 s before the newest began"),
        pytest.param(0.0, True, id="ages ago"),
        pytest.param(900.0, False, id="the newest"),
    ],
)
def test_what_is_too_late_is_told(at, is_late):
    """With the newest window at 900 s and 300 s kept, windows from 660 s on still take values."""
    _, changes = add_all([(905.0, 1.0), (at, 1.0)])

    assert is_late == (changes[1] is None)


def test_a_newer_window_ends_the_oldest():
    """What is kept is bounded by event time."""
    panes, _ = add_all([(at, 1.0) for at in range(0, 6000, 60)])

    assert [5700, 5760, 5820, 5880, 5940] == [pane.start for pane in panes]


@given(st.lists(st.tuples(TIMES, VALUES), max_size=30), st.integers(1, 120), st.integers(1, 10))
def test_panes_are_few_and_hold_what_was_added(readings, size, kept):
    """Never more than keep / size panes, the oldest first, none with more than was added to its window."""
    panes, _ = add_all(readings, size=size, keep=kept * size)

    assert len(panes) <= kept
    assert sorted(panes, key=lambda pane: pane.start) == list(panes)
    added = defaultdict(list)
    for at, value in readings:
        added[exact_start(at, size)].append(value)
    for pane in panes:
        assert pane.count <= len(added[pane.start])


@given(st.lists(st.tuples(st.floats(1000, 1299), VALUES), min_size=1, max_size=50))
def test_within_what_is_kept_nothing_is_lost(readings):
    """Times less than keep apart, in any order: every value counts, and the averages are those of a plain loop."""
    panes, _ = add_all(readings, size=60, keep=360)

    expected = defaultdict(list)
    for at, value in readings:
        expected[exact_start(at, 60)].append(value)
    assert {start: sum(values) / len(values) for start, values in expected.items()} == {
        pane.start: pane.average for pane in panes
    }


@given(st.lists(st.tuples(TIMES, VALUES), max_size=10))
def test_a_table_gives_back_what_it_was_given(readings):
    """Through JSON and back."""
    panes, _ = add_all(readings)

    assert panes == from_json(to_json(panes))
