"""Lag in seconds: the search by timestamps against logs whose every timestamp is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import Leaders, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, learn, observe, wanted
from monitor.model import Basis, Lookups, Why

P0 = ("t", 0)
AT = 1_000_000.0


def report_on(logs, commits, *, rounds=64, at=AT, history=None, starts=None, limit=1000):
    """Run one whole cycle against leaders that hold these logs (offset, timestamp in ms)."""
    ends = {key: ((starts or {}).get(key, 0), (log[-1][0] + 1) if log else 0) for key, log in logs.items()}
    history = history or History()
    leaders = Leaders(logs)
    seen = observe(kafka_snapshot(ends, commits, at=at), None, history)
    for _ in range(rounds):
        questions = wanted(seen, history, limit)
        if questions is None:
            break
        learn(leaders.look_up(questions), history)
    return derive(seen, history, lambda _: 300.0), leaders


@st.composite
def ordered_logs(draw):
    """A log with timestamps in order, bursts of equal ones and long gaps."""
    gaps = draw(st.lists(st.one_of(st.just(0), st.integers(0, 50), st.integers(0, 3_600_000)), min_size=1, max_size=60))
    stamps = np.cumsum(gaps)
    return [(offset, int(AT * 1000) - int(stamps[-1]) + int(stamp)) for offset, stamp in enumerate(stamps)]


@settings(max_examples=300, deadline=None)
@given(ordered_logs(), st.data())
def test_the_true_age_lies_within_the_bound(log, data):
    """Whatever the flow, and however early the search is cut off, the true age is inside seconds ± bound."""
    committed = data.draw(st.integers(0, len(log)))
    rounds = data.draw(st.integers(0, 40))

    report, _ = report_on({P0: log}, {"g": {P0: committed}}, rounds=rounds)

    seconds, bound = report.positions.lag_seconds[0], report.positions.lag_seconds_bound[0]
    if committed == len(log):
        assert (0, 0) == (seconds, bound)
    elif not np.isnan(seconds):
        truth = AT - log[committed][1] / 1000
        assert abs(truth - seconds) <= bound + 1e-9
    else:
        assert report.positions.why_seconds[0] != 0
        assert rounds == 0


@settings(max_examples=100, deadline=None)
@given(ordered_logs(), st.data())
def test_a_finished_search_is_narrow(log, data):
    """With rounds to spare the bound is the precision, unless what is left cannot be told apart by look-ups."""
    committed = data.draw(st.integers(0, len(log) - 1))

    report, leaders = report_on({P0: log}, {"g": {P0: committed}})

    seconds, bound = report.positions.lag_seconds[0], report.positions.lag_seconds_bound[0]
    next_stamp = log[committed + 1][1] if committed + 1 < len(log) else int(AT * 1000)
    ambiguous = committed > 0 and log[committed - 1][1] == log[committed][1]
    allowed = max(0.02, 0.002 * (seconds + bound)) / 2 + 0.001
    assert bound <= allowed or (ambiguous and bound <= (next_stamp - log[committed][1]) / 2000 + allowed)
    assert leaders.asked <= 60


def test_a_record_landed_on_is_proof():
    """A look-up that answers with the record itself assumes nothing about order."""
    log = [(i, int(AT * 1000) - 60_000 * (10 - i)) for i in range(10)]

    report, _ = report_on({P0: log}, {"g": {P0: 4}})

    assert not report.positions.assumed[0]
    assert report.positions.basis[0] == Basis.RECORD
    assert report.positions.lag_seconds[0] == pytest.approx(360.0, abs=0.001)


def test_a_marker_before_the_next_record_stays_inside_the_bound():
    """A commit on a transaction marker: the first unread record is the one behind it, an hour later."""
    old, new = int(AT * 1000) - 7_200_000, int(AT * 1000) - 3_600_000
    log = [(0, old), (1, old + 5), (3, new), (4, new + 5)]  # 2 is a marker: no record, no timestamp

    report, _ = report_on({P0: log}, {"g": {P0: 2}})

    seconds, bound = report.positions.lag_seconds[0], report.positions.lag_seconds_bound[0]
    assert seconds - bound <= 3600.0 <= seconds + bound


def test_only_a_marker_left_reaches_down_to_zero():
    """Nothing but a transaction marker may be unread: the interval starts at zero."""
    log = [(0, int(AT * 1000) - 9_000), (1, int(AT * 1000) - 5_000)]
    history = History()
    leaders = Leaders({P0: log})
    seen = observe(kafka_snapshot({P0: (0, 3)}, {"g": {P0: 2}}, at=AT), None, history)
    while (questions := wanted(seen, history, 10)) is not None:
        learn(leaders.look_up(questions), history)

    report = derive(seen, history, lambda _: 300.0)

    assert report.positions.lag_records[0] == 1
    assert report.positions.lag_seconds[0] - report.positions.lag_seconds_bound[0] == pytest.approx(0.0, abs=0.001)


def test_a_first_record_behind_a_gap_is_exact():
    """The log starts with offsets that no record has any more: its first record is the first unread one."""
    report, _ = report_on({P0: [(5, int(AT * 1000) - 8_000), (6, int(AT * 1000) - 7_000)]}, {"g": {P0: 2}})

    assert report.positions.lag_seconds[0] == pytest.approx(8.0, abs=0.001)
    assert not report.positions.assumed[0]


def test_a_future_timestamp_is_zero_and_a_finding():
    """A record from the future is a clock fault: age 0 and a finding that says so."""
    report, _ = report_on({P0: [(0, int(AT * 1000) + 60_000), (1, int(AT * 1000) + 61_000)]}, {"g": {P0: 0}})

    assert report.positions.lag_seconds[0] == 0
    assert ["clock_skew"] == [finding.kind for finding in report.findings]


def test_records_without_timestamps_are_unknown():
    """Message format 0 has no timestamps: unknown with its reason, never zero."""
    report, _ = report_on({P0: [(i, -1) for i in range(5)]}, {"g": {P0: 2}})

    assert np.isnan(report.positions.lag_seconds[0])
    assert report.positions.why_seconds[0] == Why.NO_TIMESTAMP


def test_one_answer_serves_every_group_of_the_partition():
    """Look-ups are shared: ten groups at the same offset cost no more than one."""
    log = [(i, int(AT * 1000) - 1_000 * (100 - i)) for i in range(100)]

    _, one = report_on({P0: log}, {"g": {P0: 50}})
    _, ten = report_on({P0: log}, {f"g{i}": {P0: 50} for i in range(10)})

    assert one.asked == ten.asked


def test_that_there_is_no_such_record_proves_nothing_of_one_to_come():
    """A look-up for somebody else found nothing that late; what is written later at the end is later all the same."""
    log = [(i, int(AT * 1000) - 60_000 * (10 - i)) for i in range(10)]
    history, commits = History(), {"behind": {P0: 4}, "idle": {P0: 10}}
    report_on({P0: log}, commits, history=history)
    late = Lookups(history.layout.partitions, np.array([0], np.int32), np.array([int(AT * 1000) - 30_000]))
    learn(Leaders({P0: log}).look_up(late), history)

    longer = [*log, (10, int(AT * 1000) + 5_000), (11, int(AT * 1000) + 6_000)]
    report, _ = report_on({P0: longer}, commits, history=history, at=AT + 20, rounds=0)
    (idle,) = (i for i, who in enumerate(report.positions.layout.consumers) if who.name == "idle")
    low = report.positions.lag_seconds[idle] - report.positions.lag_seconds_bound[idle]

    assert 2 == report.positions.lag_records[idle]
    assert not low > 15.001, "it is 15 s old"


def test_an_unmoved_commit_ages_without_look_ups():
    """What was placed once stays placed: the next cycle asks nothing and the age grows with the clock."""
    log = [(i, int(AT * 1000) - 60_000 * (10 - i)) for i in range(10)]
    history = History()
    first, _ = report_on({P0: log}, {"g": {P0: 4}}, history=history)

    second, leaders = report_on({P0: log}, {"g": {P0: 4}}, history=history, at=AT + 30)

    assert leaders.asked == 0
    assert second.positions.lag_seconds[0] - first.positions.lag_seconds[0] == pytest.approx(30.0)


def test_without_look_ups_our_own_readings_place_the_record():
    """Basis arrival: the record came between two readings of the log end."""
    history = History()
    for k, end in enumerate([10, 20, 30]):
        seen = observe(kafka_snapshot({P0: (0, end)}, {"g": {P0: 10}}, at=AT + 10 * k), None, history)
        report = derive(seen, history, lambda _: 300.0)

    low = report.positions.lag_seconds[0] - report.positions.lag_seconds_bound[0]
    high = report.positions.lag_seconds[0] + report.positions.lag_seconds_bound[0]
    assert report.positions.basis[0] == Basis.ARRIVAL
    assert low <= 10.0
    assert 20.0 <= high <= 20.2


def test_a_re_created_topic_forgets_its_record_times():
    """The end fell: brackets and readings of the old topic say nothing about the new one."""
    old = [(i, int(AT * 1000) - 900_000) for i in range(10)]
    new = [(0, int(AT * 1000) + 1_000), (1, int(AT * 1000) + 2_000)]
    history = History()
    report_on({P0: old}, {"g": {P0: 0}}, history=history)

    report, _ = report_on({P0: new}, {"g": {P0: 0}}, history=history, at=AT + 10)

    assert report.positions.lag_seconds[0] == pytest.approx(9.0, abs=0.05)


def test_rows_follow_when_topics_and_groups_come_and_go():
    """A placed record stays placed although its row moved."""
    log = [(i, int(AT * 1000) - 60_000 * (10 - i)) for i in range(10)]
    history = History()
    report_on({("m", 0): log}, {"g": {("m", 0): 4}}, history=history)

    report, leaders = report_on(
        {("a", 0): [], ("m", 0): log}, {"before": {("a", 0): 0}, "g": {("m", 0): 4}}, history=history, at=AT + 5
    )

    assert leaders.asked == 0
    assert report.positions.lag_seconds.tolist() == pytest.approx([0.0, 365.0], abs=0.01)
