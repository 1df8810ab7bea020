"""The memory behind sparklines: bounded, gaps stay gaps, who is gone is gone."""

import numpy as np
import pytest
from reports import Pipeline, Reader, report_of, shop

from monitor.model import Report, Why
from monitor.publish.trail import CYCLES, Trail


def pipeline(**readers):
    readers = {name: Reader({"t": 1}, behind) for name, behind in readers.items()}
    return Pipeline({"t": (1, 10.0)}, readers)


def rows(trail, since=None, cluster=0):
    return {each["name"]: each for each in trail.as_json(since)["clusters"][cluster]["consumers"]}


def note(trail, pipe, cycles=1):
    for _ in range(cycles):
        trail.note(report_of(pipe.report()))


def test_lag_is_remembered_cycle_by_cycle():
    """Oldest first, each with its time."""
    trail, pipe = Trail(), pipeline(a=lambda cycle: 10 * cycle)

    note(trail, pipe, 3)

    (cluster,) = trail.as_json()["clusters"]
    assert ["2026-11-18T11:06:40.000Z", "2026-11-18T11:06:50.000Z", "2026-11-18T11:07:00.000Z"] == cluster["at"]
    assert [0, 10, 20] == rows(trail)["a"]["lag_records"]
    assert [0.0, 1.0, 2.0] == pytest.approx(rows(trail)["a"]["lag_seconds"], abs=0.01)


def test_unknown_stays_a_gap():
    """A cycle without an answer is null between two numbers, not zero and not the number before."""
    trail, pipe = Trail(), pipeline(a=lambda cycle: Why.TIMEOUT if cycle == 1 else 5)

    note(trail, pipe, 3)

    assert [5, None, 5] == rows(trail)["a"]["lag_records"]
    assert rows(trail)["a"]["lag_seconds"][1] is None


def test_memory_is_bounded():
    """The last cycles are kept, no more."""
    trail, pipe = Trail(), pipeline(a=lambda cycle: cycle)

    note(trail, pipe, CYCLES + 5)

    assert list(range(5, CYCLES + 5)) == rows(trail)["a"]["lag_records"]
    assert CYCLES == len(trail.as_json()["clusters"][0]["at"])


def test_consumers_come_and_go_and_keep_their_own_past():
    """A new one begins with gaps, one that is gone is dropped, the others keep their rows."""
    trail, pipe = Trail(), pipeline(a=1, b=2)
    note(trail, pipe, 2)

    pipe.readers = {"c": Reader({"t": 1}, 3), "b": Reader({"t": 1}, 4)}
    note(trail, pipe)

    assert {"c", "b"} == set(rows(trail))
    assert [2, 2, 4] == rows(trail)["b"]["lag_records"]
    assert [None, None, 3] == rows(trail)["c"]["lag_records"]


def test_the_same_report_counts_once():
    """A publish because another cluster was read does not repeat this cluster's cycle."""
    trail, first, second = Trail(), pipeline(a=1), pipeline(b=1)
    second.name = "second"
    one, other = first.report(), second.report()

    trail.note(report_of(one, other))
    trail.note(report_of(one, second.report()))

    assert [1] == rows(trail)["a"]["lag_records"]
    assert [1, 1] == rows(trail, cluster=1)["b"]["lag_records"]


def test_a_cluster_without_a_report_keeps_its_past():
    """A cluster that is missing in one publish goes on where it was."""
    trail, pipe = Trail(), pipeline(a=1)
    note(trail, pipe)

    trail.note(Report(0.0, ()))
    note(trail, pipe)

    assert [1, 1] == rows(trail)["a"]["lag_records"]


def test_only_what_is_new_since_a_time():
    """Times go out in milliseconds; asked with the last one, only later cycles come, however fine the clock was."""
    trail, pipe = Trail(), pipeline(a=lambda cycle: cycle)
    pipe.start += 0.0007
    note(trail, pipe, 4)

    since = pipe.start + 10.0
    assert [2, 3] == rows(trail, since)["a"]["lag_records"]
    assert [2, 3] == rows(trail, np.floor(since * 1000) / 1000)["a"]["lag_records"]
    assert [] == rows(trail, since + 1000)["a"]["lag_records"]
    assert [0, 1, 2, 3] == rows(trail, 0.0)["a"]["lag_records"]


def test_spark_adds_the_duration_of_its_batches():
    """Of queries only: groups have no batches."""
    trail, pipe = Trail(), shop()

    note(trail, pipe, 2)

    assert [4.0, 4.818] == pytest.approx(rows(trail)["readings-average-5m"]["batch_duration_seconds"], abs=0.001)
    assert "batch_duration_seconds" not in rows(trail)["billing"]
