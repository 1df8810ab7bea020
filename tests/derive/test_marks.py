"""Marks of a few positions among many: what a dictionary would say, in columns."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.derive.marks import NO_MARKS

POSITIONS = st.sets(st.integers(0, 9)).map(lambda found: np.array(sorted(found), np.int64))


def said(marks):
    return dict(zip(marks.at.tolist(), zip(marks.value.tolist(), marks.until.tolist(), strict=True), strict=True))


@given(st.lists(st.tuples(POSITIONS, st.integers(0, 5))))
def test_the_last_mark_of_a_position_counts(puts):
    """Each position has one mark, in order of positions."""
    marks, model = NO_MARKS, {}
    for at, value in puts:
        marks = marks.put(at, at + value, at, until=float(value))
        model |= {position: (position + value, float(value)) for position in at.tolist()}

    assert model == said(marks)
    assert sorted(model) == marks.at.tolist()
    assert bool(model) == bool(marks)


@given(POSITIONS, st.permutations(range(-4, 10)))
def test_marks_follow_their_positions(at, moved):
    """A position that went takes its mark along; a new one has none."""
    marks = NO_MARKS.put(at, at, at, until=1.0)
    carried = marks.carried(np.maximum(np.array(moved), -1), 10)

    assert {new: (old, 1.0) for new, old in enumerate(moved) if old in at} == said(carried)
    assert sorted(carried.at.tolist()) == carried.at.tolist()


@given(POSITIONS)
def test_only_what_is_wanted_stays(at):
    """The same object where that is all of it."""
    marks = NO_MARKS.put(at, at, at, until=1.0)

    assert marks.only(np.ones(len(at), np.bool_)) is marks
    assert [position for position in at.tolist() if position > 4] == marks.only(at > 4).at.tolist()
