"""Rollups of samples against a plain recomputation, and what a crash in between leaves."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.records import KEPT_SECONDS, LAG_TOPIC, RefusedError, Sample, read_rollup, read_sample, rollup_key
from processors.agents.rollup_windows import add

T0 = 1_795_046_400  # the beginning of a day
SAMPLE = Sample(T0, "main", "group", "billing", "ok", 10, 2.5, 60.0, False, 100.0, 90.0)


def run(samples):
    """Add samples through JSON, as a table keeps the state; return all that was due."""
    state, due = {}, []
    for offset, sample in enumerate(samples):
        state, more = add(state, offset, sample)
        state = json.loads(json.dumps(state))
        due += more
    return due


def mean(values):
    return sum(values) / len(values) if values else None


def recomputed(samples, size):
    """Roll up windows of a size that are over, the plain way."""
    last = int(samples[-1].at // size) * size
    windows = {}
    for each in samples:
        windows.setdefault(int(each.at // size) * size, []).append(each)
    told = {}
    for start, some in windows.items():
        if start == last:
            continue
        records = [each.lag_records for each in some if each.lag_records is not None]
        seconds = [each.lag_seconds for each in some if each.lag_seconds is not None]
        kept = [not each.over_objective for each in some if each.over_objective is not None]
        coming = [each.records_in_per_second for each in some if each.records_in_per_second is not None]
        told[start] = (
            len(some),
            (max(records, default=None), mean(records)),
            (max(seconds, default=None), mean(seconds)),
            mean(kept),
            mean(coming),
        )
    return told


def written(due, size):
    return {
        each.rollup.start: (
            each.rollup.samples,
            (each.rollup.lag_records_max, each.rollup.lag_records_mean),
            (each.rollup.lag_seconds_max, each.rollup.lag_seconds_mean),
            each.rollup.within_objective,
            each.rollup.records_in_per_second,
        )
        for each in due
        if each.rollup is not None and each.rollup.window_seconds == size and each.rollup.final
    }


QUARTERS = st.integers(0, 4000).map(lambda number: number / 4)  # their sums are exact
SAMPLES = st.lists(
    st.builds(
        Sample,
        at=QUARTERS,  # seconds since the one before
        cluster=st.just("main"),
        kind=st.just("group"),
        name=st.just("billing"),
        health=st.just("ok"),
        lag_records=st.none() | st.integers(0, 1000),
        lag_seconds=st.none() | QUARTERS,
        objective_seconds=st.just(60.0),
        over_objective=st.none() | st.booleans(),
        records_in_per_second=st.none() | QUARTERS,
        records_out_per_second=st.none() | QUARTERS,
    ),
    min_size=1,
    max_size=60,
)


def in_order(samples):
    at, placed = T0 - 500.0, []
    for each in samples:
        at += each.at
        placed.append(replace(each, at=at))
    return placed


@given(SAMPLES)
def test_windows_that_are_over_say_what_their_samples_say(samples):
    """Of every size; a figure that no sample knew is unknown, and zero is a value."""
    placed = in_order(samples)
    due = run(placed)

    for size in KEPT_SECONDS:
        assert recomputed(placed, size) == written(due, size)


@given(SAMPLES, st.data())
def test_a_crash_between_writing_and_keeping_the_state_writes_the_same_again(samples, data):
    """And samples that the state has already change nothing."""
    placed = in_order(samples)
    state, latest = {}, {}
    for offset, sample in enumerate(placed):
        _, due = add(state, offset, sample)
        latest.update(due)
        if data.draw(st.booleans()):  # killed here: the state is that from before
            latest.update(add(state, offset, sample)[1])
        state, _ = add(state, offset, sample)
        repeated = data.draw(st.integers(0, offset))
        assert (state, []) == add(state, repeated, placed[repeated])

    assert dict(run(placed)) == latest


def test_once_a_minute_the_hour_and_the_day_are_told_as_they_are_so_far():
    """They are replaced later, under the same key."""
    due = run([replace(SAMPLE, at=T0 + second) for second in (0, 30, 61)])
    told = [(each.rollup.window_seconds, each.rollup.final, each.rollup.samples) for each in due if each.rollup]

    assert [(60, True, 2), (3600, False, 2), (86400, False, 2)] == told
    assert [rollup_key("main/group/billing", 60, T0)] == [each.key for each in due if each.rollup][:1]


def test_what_falls_out_of_what_is_kept_is_removed():
    """A minute after a day, an hour after four weeks, a day after 400."""
    due = run([replace(SAMPLE, at=T0 + second) for second in (0, 86_400)])

    assert [
        rollup_key("main/group/billing", 60, T0 - 86_400),
        rollup_key("main/group/billing", 3600, T0 - 28 * 86_400),
        rollup_key("main/group/billing", 86_400, T0 - 400 * 86_400),
    ] == [each.key for each in due if each.rollup is None]


def test_a_sample_older_than_the_window_that_is_open_is_left_out_of_it():
    """As when the monitor's clock is set back: a window that was told is not told otherwise."""
    due = run([replace(SAMPLE, at=T0 + second) for second in (70, 10, 80, 130)])
    (minute,) = (each.rollup for each in due if each.rollup and each.rollup.window_seconds == 60)

    assert (T0 + 60, 2) == (minute.start, minute.samples)


def test_a_topic_that_was_made_anew_begins_at_offset_0_and_is_counted():
    """Its samples are later than those before."""
    state, _ = add({}, 500, SAMPLE)
    state, due = add(state, 0, replace(SAMPLE, at=T0 + 60))

    assert [1] == [each.rollup.samples for each in due if each.rollup and each.rollup.window_seconds == 60]


def test_a_rollup_is_read_as_it_was_written():
    """By whoever reads the topic."""
    (first, *_) = run([SAMPLE, replace(SAMPLE, at=T0 + 60, lag_seconds=None)])

    assert first.rollup == read_rollup(first.rollup.to_json())
    assert T0 + 60 == json.loads(first.rollup.to_json())["end"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"schema": 2}, id="of tomorrow"),
        pytest.param({"at": "now"}, id="no time"),
        pytest.param({"lag_records": -1}, id="less than none"),
        pytest.param({"lag_records": 1.5}, id="half a record"),
        pytest.param({"over_objective": 1}, id="one for true"),
        pytest.param({"name": ""}, id="nobody"),
    ],
)
def test_a_record_that_is_no_sample_is_refused(changed):
    """Anybody may write to the topic."""
    told = {**json.loads(SAMPLE.to_json()), **changed}
    with pytest.raises(RefusedError):
        read_sample(json.dumps(told).encode())
    assert SAMPLE == read_sample(SAMPLE.to_json())
    assert "streamgauge.lag" == LAG_TOPIC
