"""Share groups: what the broker counts is their lag, and what it does not count is unknown."""

import numpy as np
import pytest
from snapshots import kafka_snapshot, shared

from monitor.derive.history import History
from monitor.derive.report import derive, observe, wanted
from monitor.model import HEALTHS, GroupFacts, Health, Why

P0, P1 = ("orders", 0), ("orders", 1)


def look(ends, offsets, said, *, members=1, history=None):
    states = {"s": GroupFacts(shared("s"), "Stable", "share", members=members)}
    history = history or History()
    seen = observe(kafka_snapshot(ends, {"s": offsets}, said={"s": said}, states=states), None, history)
    assert wanted(seen, history, 10) is None, "no record time is looked up for a share group"
    return derive(seen, history, lambda _: 300.0)


@pytest.mark.parametrize(
    ("ends", "offset", "said", "lag", "why"),
    [
        pytest.param((0, 100), 40, 7, 7, 0, id="told: fewer than the offsets say, some are read out of order"),
        pytest.param((0, 100), 100, 0, 0, 0, id="told: nothing"),
        pytest.param(Why.TIMEOUT, 40, 7, 7, 0, id="told while the leader does not answer"),
        pytest.param((0, 100), 40, -1, -1, Why.UNSUPPORTED, id="before Kafka 4.2"),
        pytest.param((0, 100), Why.TIMEOUT, -1, -1, Why.TIMEOUT, id="not read"),
        pytest.param((0, 100), Why.NO_COORDINATOR, -1, -1, Why.NO_COORDINATOR, id="nobody coordinates it"),
        pytest.param((7, 7), Why.NO_COMMIT, -1, 0, 0, id="an empty partition holds nothing unread"),
        pytest.param((0, 100), Why.NO_COMMIT, -1, -1, Why.NO_COMMIT, id="no offset yet"),
    ],
)
def test_lag_is_what_the_broker_tells(ends, offset, said, lag, why):
    """Where it tells nothing, the reason stands with it."""
    report = look({P0: ends}, {P0: offset}, {P0: said})

    assert (lag, why) == (report.positions.lag_records[0], report.positions.why[0])
    assert lag == report.consumers.lag_records[0]
    assert not report.findings


def test_seconds_are_unknown_but_for_nothing():
    """The broker says how many wait, not since when: no age, and its reason; 0 where nothing waits."""
    report = look({P0: (0, 100), P1: (0, 100)}, {P0: 40, P1: 100}, {P0: 7, P1: 0})

    assert np.isnan(report.positions.lag_seconds[0])
    assert [Why.SHARE_AGE, 0] == report.positions.why_seconds.tolist()
    assert 0.0 == report.positions.lag_seconds[1]
    assert np.isnan(report.consumers.lag_seconds[0])
    assert Why.SHARE_AGE == report.consumers.why_seconds[0]
    assert Health.OK is HEALTHS[report.consumers.health[0]]


def test_a_start_offset_below_the_log_start_loses_nothing_yet():
    """The broker itself moves the start offset along: that it lags behind is no loss."""
    history = History()
    look({P0: (0, 200)}, {P0: 10}, {P0: 190}, history=history)
    for _ in range(2):
        report = look({P0: (100, 200)}, {P0: 10}, {P0: 100}, history=history)

    assert () == report.findings
    assert Health.OK is HEALTHS[report.consumers.health[0]]


def test_a_share_group_without_members_is_stopped():
    """As any other consumer."""
    report = look({P0: (0, 100)}, {P0: 40}, {P0: 7}, members=0)

    assert Health.STOPPED is HEALTHS[report.consumers.health[0]]
