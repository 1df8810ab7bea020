"""Lag in records: the table of meanings, row by row, and sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import kafka_snapshot

from monitor.derive.lag import record_lag, sum_parts
from monitor.model import Why

P0 = ("orders", 0)


@pytest.mark.parametrize(
    ("ends", "committed", "lag", "lost", "why"),
    [
        pytest.param((0, 100), 58, 42, 0, 0, id="behind"),
        pytest.param((0, 100), 100, 0, 0, 0, id="caught up is a measured zero"),
        pytest.param((0, 0), 0, 0, 0, 0, id="empty log"),
        pytest.param((7, 7), 3, 0, 4, 0, id="log emptied by retention: nothing to read, four lost"),
        pytest.param((60, 100), 58, 40, 2, 0, id="committed below start: lag from start, lost apart"),
        pytest.param((0, 100), Why.NO_COMMIT, -1, -1, Why.NO_COMMIT, id="no commit is neither zero nor the whole log"),
        pytest.param((5, 5), Why.NO_COMMIT, 0, 0, 0, id="no commit on an empty partition is zero"),
        pytest.param((0, 100), 101, -1, -1, Why.BEYOND_END, id="beyond the end is unknown"),
        pytest.param((0, 0), 3, -1, -1, Why.BEYOND_END, id="beyond the end of an empty log too"),
        pytest.param(Why.NO_LEADER, 58, -1, -1, Why.NO_LEADER, id="end not read"),
        pytest.param((0, 100), Why.TIMEOUT, -1, -1, Why.TIMEOUT, id="commit not read"),
        pytest.param((5, 5), Why.TIMEOUT, -1, -1, Why.TIMEOUT, id="commit not read on an empty partition"),
    ],
)
def test_meanings(ends, committed, lag, lost, why):
    """Each case of the contract has its lag, lost records and reason."""
    snapshot = kafka_snapshot({P0: ends}, {"g": {P0: committed}})

    result = record_lag(snapshot.partitions, snapshot.positions)

    assert ([lag], [lost], [why]) == (result.lag.tolist(), result.lost.tolist(), result.why.tolist())


offsets = st.integers(0, 2**40)


@given(st.lists(st.tuples(offsets, offsets, st.integers(-1, 2**41)), min_size=1, max_size=20))
def test_known_lag_is_never_negative_and_never_more_than_the_log(rows):
    """Published lag is zero or more, or unknown with a reason; a negative difference is always beyond_end."""
    ends = {("t", i): (min(a, b), max(a, b)) for i, (a, b, _) in enumerate(rows)}
    commits = {("t", i): c if c >= 0 else Why.NO_COMMIT for i, (_, _, c) in enumerate(rows)}
    snapshot = kafka_snapshot(ends, {"g": commits})

    result = record_lag(snapshot.partitions, snapshot.positions)

    for i, key in enumerate(sorted(ends)):
        start, end = ends[key]
        committed = commits[key]
        if result.why[i] == 0:
            assert 0 <= result.lag[i] <= end - start
            assert result.lost[i] == (
                max(0, start - committed) if isinstance(committed, int) and not isinstance(committed, Why) else 0
            )
        else:
            assert result.lag[i] == -1
        assert result.beyond_end[i] == (not isinstance(committed, Why) and committed > end)


@given(st.lists(st.tuples(st.integers(-1, 10**12), st.integers(0, 4)), max_size=50))
def test_a_total_is_known_only_if_all_its_parts_are(parts):
    """The sum of a group with any unknown part is unknown; the known parts are a lower bound."""
    values, groups = [v for v, _ in parts], [g for _, g in parts]

    sums = sum_parts(np.array(values, np.int64), np.array(groups, np.int32), 5)

    for g in range(5):
        mine = [v for v, group in parts if group == g]
        assert sums.total[g] == (-1 if -1 in mine else sum(mine))
        assert sums.known[g] == sum(v for v in mine if v >= 0)
        assert (sums.parts_known[g], sums.parts_unknown[g]) == (len(mine) - mine.count(-1), mine.count(-1))
