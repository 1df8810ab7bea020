"""Records that are too large to be sent again, and keys that cannot be: set aside, and nothing else is touched."""

import json

import pytest

from processors.aggregates import count, reduce
from processors.memory import Memory
from processors.pipeline import read
from processors.running import FACTS, LARGEST, LONGEST_ERROR

BIG = "x" * LARGEST


def letters(run):
    """Return (key, value, error) of what is on the dead letter topic."""
    return [
        (letter.key, letter.value, dict(letter.headers)["streamgauge.error"].decode()) for letter in run.sent["in-dlq"]
    ]


def size(output):
    return len(output.key or b"") + len(output.value or b"") + sum(len(n) + len(v) for n, v in output.headers)


@pytest.mark.parametrize(
    ("job", "error"),
    [
        pytest.param(read("in", name="job").map(lambda value: BIG).to("out"), "to: ValueError", id="what is written"),
        pytest.param(
            read("in", name="job").map(lambda value: BIG).key_by(lambda value: "k").to("out"),
            "key_by: ValueError",
            id="what gets a new key",
        ),
        pytest.param(
            read("in", name="job").key_by(lambda value: BIG).to("out"), "key_by: ValueError", id="the new key itself"
        ),
    ],
)
def test_what_a_record_becomes_is_not_larger_than_can_be_sent(job, error):
    """The record fails, as it came; the next one does not."""
    run = Memory(job)
    run.feed({"n": 1}, key="a")

    ((key, value, said),) = letters(run)
    assert (b"a", b'{"n":1}') == (key, value)
    assert said.startswith(f"{error}: a record of 90")
    assert said.endswith(f"bytes, more than {LARGEST}")
    assert not run.sent["out"]


def test_a_result_that_is_too_large_is_set_aside_by_itself():
    """Others of the same window are written."""
    job = read("in", name="job").window(60, at=lambda value: value["at"]).aggregate(reduce(lambda a, b: a)).to("out")
    run = Memory(job)
    run.feed({"at": 10, "big": BIG}, key="a")
    run.feed({"at": 10}, key="b")
    run.close()

    assert [b"b"] == [output.key for output in run.sent["out"]]
    (letter,) = run.sent["in-dlq"]
    assert (None, None) == (letter.key, letter.value)  # nor can it be set aside
    assert dict(letter.headers)["streamgauge.error"].startswith(b"to: ValueError")


def test_a_large_record_that_fails_says_where_it_is():
    """Without key, value and headers of its own, with which it could not be sent."""
    run = Memory(read("in", name="job").to("out"))
    run.feed(b"\xff" + BIG.encode(), key="k" * 100, headers=(("own", b"h" * 1000),), partition=0, offset=7)

    (letter,) = run.sent["in-dlq"]
    said = dict(letter.headers)
    assert (None, None) == (letter.key, letter.value)
    assert (b"in", b"0", b"7", b"key and value") == tuple(
        said[f"streamgauge.{name}"] for name in ("topic", "partition", "offset", "left_out")
    )
    assert "own" not in said
    assert size(letter) < LARGEST


def test_a_large_record_that_is_late_says_where_it_is():
    """And which windows it missed."""
    job = read("in", name="job").window(60, at=lambda value: value["at"], late="late").aggregate(count()).to("out")
    run = Memory(job)
    run.feed({"at": 1000}, key="a")
    run.feed({"at": 10, "big": BIG}, key="a")

    (late,) = run.sent["late"]
    assert (None, b"1 of 1 windows") == (late.value, dict(late.headers)["streamgauge.missed"])
    assert FACTS + 1 == len(late.headers)


def test_an_error_that_says_the_whole_value_is_cut():
    """It would not fit into a header."""

    def fail(value):
        raise ValueError(BIG)

    run = Memory(read("in", name="job").map(fail).to("out"))
    run.feed({"n": 1}, key="a")

    ((key, value, said),) = letters(run)
    assert (b"a", b'{"n":1}', LONGEST_ERROR) == (key, value, len(said))


def test_a_new_key_that_is_no_text_is_a_failure():
    """JSON can say half of a character."""
    run = Memory(read("in", name="job").key_by(lambda value: value["k"]).to("out"))
    run.feed(json.dumps({"k": "\ud800"}).encode(), key="a")
    run.feed({"k": "b"}, key="a")

    assert ["key_by: UnicodeEncodeError"] == [said[:26] for _, _, said in letters(run)]
    assert [b"b"] == [output.key for output in run.sent["out"]]
