"""Marks, checksums and differences: what two contents have in common however they are spelled."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.fake_alerting import _spelled
from dashboards.marks import NO_VERSION, Mark, checksum, differences, hashed, is_hash_of
from dashboards.shelves import board_content, mark_in, marked, seconds

WORDS = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="-_/"), min_size=1, max_size=40)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)

MARKS = st.builds(
    Mark,
    WORDS,
    HEX,
    st.none() | HEX,
    st.none() | st.just(NO_VERSION) | st.integers(1, 99).map(str),
    st.dictionaries(st.text("abcXYZ_", min_size=1), HEX, max_size=3),
)


@given(MARKS)
def test_a_mark_is_read_as_it_was_written(mark):
    """And by nobody else: under another uid it is none."""
    assert mark == Mark.parse(mark.text(), mark.uid)
    assert None is Mark.parse(mark.text(), f"{mark.uid}-copy")


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "streamgauge/1", "streamgauge/1 a b", "streamgauge/2 a 0 - -", "Somebody's own words, five of them"],
)
def test_what_is_no_mark_is_none(text):
    """Whatever people write there."""
    assert None is Mark.parse(text, "a")


@given(MARKS, OBJECTS)
def test_a_mark_in_a_board_survives_and_is_no_part_of_its_content(mark, rest):
    """It is found again in what is saved, and the content is the one without it."""
    model = {**rest, "templating": {"list": [{"name": "cluster"}]}}
    saved = json.loads(json.dumps(marked(model, mark.uid, mark)))

    assert mark == mark_in(saved, mark.uid)
    assert checksum(board_content("f", model)) == checksum(board_content("f", {**saved, "id": 7, "version": 3}))


@given(OBJECTS)
def test_a_checksum_does_not_depend_on_spelling(content):
    """Order of keys and 1.0 for 1 make no difference, and neither does a way through JSON."""
    turned = dict(reversed(list(content.items())))

    assert checksum(content) == checksum(turned) == checksum(json.loads(json.dumps(content)))
    assert [] == list(differences(content, turned))


@given(OBJECTS, OBJECTS)
def test_contents_differ_where_their_checksums_do(one, other):
    """What a plan shows and what it decides by are the same."""
    assert (checksum(one) == checksum(other)) == (not list(differences(one, other)))


@pytest.mark.parametrize(
    ("wanted", "live", "expected"),
    [
        pytest.param({"a": 1}, {"a": 1.0}, [], id="the same number"),
        pytest.param({"a": 1}, {"a": True}, ["a: true -> 1"], id="a switch is no number"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, ["a[1]: nothing -> 2"], id="one more"),
        pytest.param({}, {"a": {"b": None}}, ['a: {"b": null} -> nothing'], id="one less"),
        pytest.param({"a": None}, {}, ["a: nothing -> null"], id="null is something"),
        pytest.param({"a": "x" * 99}, {"a": ""}, [f'a: "" -> "{"x" * 39}…'], id="shortened"),
    ],
)
def test_differences_name_what_is_there_and_what_is_wanted(wanted, live, expected):
    """Each with its path."""
    assert expected == list(differences(wanted, live))


@pytest.mark.parametrize(
    ("written_as", "version", "expected"),
    [
        pytest.param("3", 3, True, id="nobody has saved since"),
        pytest.param("3", 4, False, id="somebody has"),
        pytest.param(None, 3, False, id="settled"),
        pytest.param(NO_VERSION, None, True, id="without versions, not settled yet"),
        pytest.param(None, None, False, id="without versions, settled"),
        pytest.param(NO_VERSION, 3, False, id="a version that was not expected"),
    ],
)
def test_another_content_is_the_servers_doing_as_long_as_nobody_has_saved(written_as, version, expected):
    """Known by the version as which it was written."""
    assert expected is Mark("a", checksum({"a": 1}), None, written_as).fits({"a": 2}, version)


def test_a_secret_is_known_by_its_hash_alone():
    """The mark holds no secret, and another secret is another."""
    mark = Mark.of("a", {}, {"url": "hunter2", "token": None})

    assert "hunter2" not in mark.text()
    assert (True, False, False) == (mark.knows("url", "hunter2"), mark.knows("url", "x"), mark.knows("token", "x"))
    assert not is_hash_of("no hash", "hunter2")
    assert is_hash_of(hashed("hunter2"), "hunter2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5m", 300), ("300s", 300), ("5m0s", 300), ("1h30m", 5400), ("1d", 86_400), ("0s", 0), ("250ms", 0.25), (60, 60)],
)
def test_durations_are_the_same_however_they_are_spelled(text, expected):
    """As Prometheus spells them, or a number of seconds."""
    assert expected == seconds(text)


@given(st.integers(0, 10**7))
def test_a_duration_that_was_spelled_anew_is_the_same(whole):
    """What the stand-in gives back is what it was given."""
    assert whole == seconds(_spelled(f"{whole}s"))
