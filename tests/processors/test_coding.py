"""JSON as the standard library says it, only faster."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.coding import encoder, text
from processors.pipeline import to_json
from processors.windows import Result

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(PLAIN)
def test_values_are_said_as_by_the_standard_library(value):
    """Without spaces; infinity as Python does, when it is allowed."""
    assert json.dumps(value, separators=(",", ":")) == encoder()(value)


@given(st.text())
def test_texts_are_said_as_by_the_standard_library(value):
    """Texts that are none as well."""
    assert json.dumps(value) == text(value)


@given(
    st.builds(
        Result,
        st.text() | st.integers() | st.none(),
        st.integers(),
        st.integers(),
        FINITE | st.integers() | st.text() | st.dictionaries(st.text(), FINITE),
        st.booleans(),
        st.booleans(),
    )
)
def test_results_are_said_by_their_fields(result):
    """As the standard library would."""
    assert json.dumps(result._asdict(), separators=(",", ":")).encode() == to_json(result)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        pytest.param(math.nan, ValueError, id="no number"),
        pytest.param(Result("a", 0, 1, math.inf, True), ValueError, id="a result without end"),
        pytest.param({1}, TypeError, id="a set"),
        pytest.param({(1, 2): 3}, TypeError, id="a name that is a tuple"),
    ],
)
def test_what_json_has_no_word_for_is_refused(value, error):
    """Written, nobody could read it."""
    with pytest.raises(error):
        to_json(value)


def test_what_holds_itself_is_refused():
    """There is no end to it."""
    value = []
    value.append(value)

    with pytest.raises(RecursionError):
        to_json(value)
