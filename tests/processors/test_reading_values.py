"""Readings as values: what is one, what is bad and why, what cannot be true."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.agents.panes import Pane
from processors.agents.reading import BadRecord, Reading, average_record, is_sensible, parse

GOOD = {"sensor": "s-17", "temperature": 21.4, "at": 1795000000.123}


def without(field):
    return json.dumps({name: value for name, value in GOOD.items() if name != field}).encode()


def changed(**fields):
    return json.dumps(GOOD | fields).encode()


def test_a_reading_is_parsed():
    """Whole numbers are numbers too, and what else the record holds is nobody's business here."""
    assert Reading("s-17", 21.4, 1795000000.123) == parse(json.dumps(GOOD).encode())
    assert Reading("s-17", 21.0, 1795000000.123) == parse(changed(temperature=21, unit="C"))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "not JSON", id="no value"),
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"nonsense", "not JSON", id="words"),
        pytest.param(b'{"sensor": "s-1"', "not JSON", id="cut short"),
        pytest.param(b"\xff\xfe\x00", "not JSON", id="binary"),
        pytest.param(b"[" * 100_000, "not JSON", id="nested without end"),
        pytest.param(b"[1, 2]", "not a JSON object", id="a list"),
        pytest.param(without("sensor"), "sensor is not a name", id="no sensor"),
        pytest.param(changed(sensor=17), "sensor is not a name", id="a number as sensor"),
        pytest.param(changed(sensor=""), "sensor is not a name", id="nameless"),
        pytest.param(without("temperature"), "temperature is not a number", id="no temperature"),
        pytest.param(changed(temperature="21"), "temperature is not a number", id="a number in quotes"),
        pytest.param(changed(temperature=True), "temperature is not a number", id="true"),
        pytest.param(changed(temperature=math.nan), "temperature is not a number", id="NaN"),
        pytest.param(changed(temperature=10**400), "temperature is not a number", id="too large for a number"),
        pytest.param(without("at"), "at is not a time", id="no time"),
        pytest.param(changed(at=-1), "at is not a time", id="before 1970"),
        pytest.param(changed(at=math.inf), "at is not a time", id="never"),
    ],
)
def test_a_bad_record_says_why(value, reason):
    """Nothing raises: a stream must not end because of one record."""
    assert BadRecord(reason) == parse(value)


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_anything_is_a_reading_or_bad(value):
    """Whatever arrives, it is one of the two."""
    parsed = parse(value.encode() if isinstance(value, str) else value)

    assert isinstance(parsed, Reading | BadRecord)


@pytest.mark.parametrize(
    ("temperature", "ahead", "sensible"),
    [
        pytest.param(20.0, 0.0, True, id="a mild day"),
        pytest.param(-90.0, 0.0, True, id="the coldest"),
        pytest.param(60.0, 0.0, True, id="the hottest"),
        pytest.param(-90.1, 0.0, False, id="colder than it ever was"),
        pytest.param(60.1, 0.0, False, id="hotter than it ever was"),
        pytest.param(20.0, 60.0, True, id="a clock that is a minute fast"),
        pytest.param(20.0, 61.0, False, id="from the future"),
        pytest.param(20.0, -1e6, True, id="sent long after it was measured"),
    ],
)
def test_sensible(temperature, ahead, sensible):
    """Air on Earth, and not measured after the record was written."""
    assert sensible == is_sensible(Reading("s", temperature, 1000.0 + ahead), record_at=1000.0)


def test_the_record_of_an_average():
    """Window, how many, and the mean."""
    assert {"sensor": "s", "start": 60, "end": 120, "count": 4, "average": 2.5} == average_record(
        "s", Pane(60, 4, 10.0), 60
    )
