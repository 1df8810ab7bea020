"""Are these the same logs and the same commits? Topics created again, logs cut, commits set back, records lost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import Leaders, group, kafka_snapshot

from monitor.derive.findings import KEPT_SECONDS, MOST
from monitor.derive.history import History
from monitor.derive.reads import LOSING_SECONDS, REWOUND_SECONDS
from monitor.derive.report import derive, learn, observe, wanted
from monitor.model import HEALTHS, Change, Finding, GroupFacts, Health, Why

P0, P1 = ("orders", 0), ("orders", 1)
ID_A, ID_B = {"orders": bytes(15) + b"\x01"}, {"orders": bytes(15) + b"\x02"}
EMPTY = {"g": GroupFacts(group("g"), state="Empty", members=0)}


class Cluster:
    """A cluster looked at every 10 seconds."""

    def __init__(self):
        self.history, self.at = History(), 1_795_000_000.0

    def look(self, ends, commits, after=10.0, **kw):
        self.at += after
        seen = observe(kafka_snapshot(ends, commits, at=self.at, **kw), None, self.history)
        return derive(seen, self.history, lambda _: 300.0)


def kinds(report):
    return [finding.kind for finding in report.findings]


def health_of(report):
    return HEALTHS[report.consumers.health[0]]


# --- topics created again -------------------------------------------------------------------------------


def test_another_id_is_another_topic_though_its_log_is_longer():
    """Created again within one look and grown beyond the old end: no read is counted, no rate crosses the change."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}}, ids=ID_A)
    before = cluster.look({P0: (0, 110)}, {"g": {P0: 100}}, ids=ID_A)
    report = cluster.look({P0: (0, 5000)}, {"g": {P0: 4000}}, ids=ID_B)
    after = cluster.look({P0: (0, 5010)}, {"g": {P0: 4005}}, ids=ID_B)

    assert ["recreated"] == kinds(report)
    (finding,) = report.findings
    assert (Change(None, "AAAAAAAAAAAAAAAAAAAAAQ", "AAAAAAAAAAAAAAAAAAAAAg"),) == finding.changes
    assert "orders: was deleted and created again: its topic id was AAAAAAAAAAAAAAAAAAAAAQ and is" in finding.text
    assert [[10], [10], [15]] == [each.consumer_topics.records_total.tolist() for each in (before, report, after)]
    assert np.isnan(report.topics.records_per_second[0])
    assert 1.0 == after.topics.records_per_second[0]


def test_another_topic_forgets_record_times():
    """A bracket of the old topic says nothing of the new one, which is longer and has later records."""
    cluster = Cluster()
    now = int(cluster.at * 1000)
    for ids, log in ((ID_A, [(i, now - 900_000) for i in range(10)]), (ID_B, [(i, now + 5_000) for i in range(50)])):
        cluster.at += 10
        snapshot = kafka_snapshot({P0: (0, len(log))}, {"g": {P0: 4}}, at=cluster.at, ids=ids)
        seen = observe(snapshot, None, cluster.history)
        while (questions := wanted(seen, cluster.history, 10)) is not None:
            learn(Leaders({P0: log}).look_up(questions), cluster.history)
        report = derive(seen, cluster.history, lambda _: 300.0)

    assert report.positions.lag_seconds[0] == pytest.approx(15.0, abs=0.1)


def test_without_look_ups_another_topic_forgets_arrivals():
    """Our readings of the old log end place no record of the new one."""
    cluster = Cluster()
    for end in (10, 20, 30):
        cluster.look({P0: (0, end)}, {"g": {P0: 15}}, ids=ID_A)
    report = cluster.look({P0: (0, 40)}, {"g": {P0: 15}}, ids=ID_B)

    assert np.isnan(report.positions.lag_seconds[0])


def test_a_topic_that_was_away_for_a_look_is_known_again():
    """Deleted in one look, there again in the next, with another id."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}}, ids=ID_A)
    cluster.look({P0: Why.TOPIC_GONE}, {"g": {P0: 90}}, ids={})
    report = cluster.look({P0: (0, 100)}, {"g": {P0: 95}}, ids=ID_B)

    assert ["recreated"] == kinds(report)
    assert [0] == report.consumer_topics.records_total.tolist()


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param((ID_A, ID_A), id="the same"),
        pytest.param(({}, ID_A), id="known only now"),
        pytest.param((ID_A, {}), id="no longer told"),
        pytest.param((ID_A, {**ID_A, "more": bytes(16)}), id="another topic came"),
    ],
)
def test_the_same_topic_is_no_finding(ids):
    """Both ids have to be known, and differ."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}}, ids=ids[0])
    report = cluster.look({P0: (0, 110)}, {"g": {P0: 100}}, ids=ids[1])

    assert [] == kinds(report)
    assert [10] == report.consumer_topics.records_total.tolist()


def test_without_ids_a_lower_start_tells():
    """A broker without topic ids: a log that begins and ends lower than before is a new one."""
    cluster = Cluster()
    cluster.look({P0: (50, 100)}, {"g": {P0: 90}})
    report = cluster.look({P0: (0, 3)}, {"g": {P0: 1}})

    assert ["recreated"] == kinds(report)
    assert (Change(0, 100, 3),) == report.findings[0].changes
    assert "the log end went from 100 to 3" in report.findings[0].text


def test_an_end_unread_at_the_change_is_no_fall_later():
    """The new topic's leader was away when its id was read: its lower end is no truncation afterwards."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}}, ids=ID_A)
    cluster.look({P0: Why.TIMEOUT}, {"g": {P0: 90}}, ids=ID_B)
    report = cluster.look({P0: (0, 40)}, {"g": {P0: 5}}, ids=ID_B)

    assert ["recreated"] == kinds(report)


# --- logs that were cut ---------------------------------------------------------------------------------


def test_a_log_that_was_cut_names_who_read_beyond():
    """Same id, lower end: records are gone, and the commits beyond it are named."""
    cluster = Cluster()
    commits = {"audit": {P0: 50}, "billing": {P0: 90}, "fraud": {P0: 80}}
    cluster.look({P0: (0, 100), P1: (0, 7)}, commits, ids=ID_A)
    report = cluster.look({P0: (0, 60), P1: (0, 7)}, commits, ids=ID_A)

    told = report.findings[-1]
    assert ["beyond_end", "beyond_end", "truncated"] == kinds(report)
    assert (
        "orders/0: log end fell from 100 to 60: 40 records are gone; committed beyond it: 2 consumers (billing, fraud)"
        == told.text
    )
    assert ((Change(0, 100, 60),), 40, "orders", 0) == (told.changes, told.records, told.topic, told.partition)


@pytest.mark.parametrize(
    ("end", "commit", "early"),
    [
        pytest.param(60, 50, "truncated", id="its log is shorter"),
        pytest.param(120, 3, "rewound", id="its log is longer, and its reader began anew"),
    ],
)
def test_what_was_said_of_a_new_topic_is_taken_back(end, commit, early):
    """It was another topic before its new id was read: once that is known, only that is told."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 50}}, ids=ID_A)
    first = cluster.look({P0: (0, end)}, {"g": {P0: commit}}, ids=ID_A)
    report = cluster.look({P0: (0, end)}, {"g": {P0: commit}}, ids=ID_B)

    assert ([early], ["recreated"]) == (kinds(first), kinds(report))
    assert Health.OK is health_of(report)


def test_beyond_the_end_says_since_when():
    """A condition: told while it holds, with the moment at which it was seen first."""
    cluster = Cluster()
    first = cluster.look({P0: (0, 100)}, {"g": {P0: 200}})
    second = cluster.look({P0: (0, 101)}, {"g": {P0: 200}})
    gone = cluster.look({P0: (0, 101)}, {"g": {P0: 101}})

    assert "g on orders/0: committed offset 200 lies beyond the log end 100" == first.findings[0].text
    assert second.findings[0].text.endswith("beyond the log end 101 (since 11:06:50 UTC)")
    assert first.at == first.findings[0].seen_at == second.findings[0].seen_at
    assert [] == kinds(gone)


# --- commits set back -----------------------------------------------------------------------------------


def test_a_commit_set_back_is_told_with_what_is_read_again():
    """Old and new offset, and the records between that are still there; the consumer is rewound, not worse."""
    cluster = Cluster()
    cluster.look({P0: (20, 100)}, {"g": {P0: 90}})
    report = cluster.look({P0: (20, 100)}, {"g": {P0: 10}})

    (finding,) = report.findings
    assert "g on orders/0: committed offset went back from 90 to 10: 70 records are read again" == finding.text
    assert ("rewound", group("g"), 70, (Change(0, 90, 10),)) == (
        finding.kind, finding.consumer, finding.records, finding.changes,
    )  # fmt: skip
    assert Health.REWOUND is health_of(report)
    assert report.consumers.evidence[0].startswith("set back and 80 records behind")


def test_rewound_ends_where_it_was():
    """Back at the old offset it is ok again; the finding is told for its time, and not as new."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}})
    seen_at = cluster.look({P0: (0, 100)}, {"g": {P0: 10}}).findings[0].seen_at
    on_the_way = cluster.look({P0: (0, 100)}, {"g": {P0: 60}})
    back = cluster.look({P0: (0, 100)}, {"g": {P0: 90}})

    assert (Health.REWOUND, Health.OK) == (health_of(on_the_way), health_of(back))
    assert [seen_at] * 2 == [report.findings[0].seen_at for report in (on_the_way, back)]


@pytest.mark.parametrize(("after", "told"), [(KEPT_SECONDS - 10, True), (KEPT_SECONDS + 10, False)])
def test_an_event_is_told_for_its_time(after, told):
    """Then it is dropped, and a commit that never came back is judged like any other."""
    assert KEPT_SECONDS == REWOUND_SECONDS == LOSING_SECONDS
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}})
    cluster.look({P0: (0, 100)}, {"g": {P0: 10}})
    report = cluster.look({P0: (0, 100)}, {"g": {P0: 10}}, after=after)

    assert told == ("rewound" in kinds(report))
    assert (Health.REWOUND if told else Health.OK) is health_of(report)


@pytest.mark.parametrize(
    ("looks", "why"),
    [
        pytest.param([((0, 100), 200), ((0, 100), 90)], "was beyond the end", id="beyond the end"),
        pytest.param([((0, 100), 90), ((0, 60), 90), ((0, 60), 60)], "the log was cut", id="cut"),
        pytest.param([((0, 100), 30), ((50, 100), 30), ((50, 100), 20)], "nothing is there to be read", id="deleted"),
        pytest.param([((0, 100), 90), ((0, 100), Why.TIMEOUT), ((0, 100), 95)], "it went on", id="a gap"),
    ],
)
def test_what_is_no_rewind(looks, why):
    """A commit that cannot stay, or goes back over nothing, was not set back to read again."""
    cluster = Cluster()
    for ends, commit in looks:
        report = cluster.look({P0: ends}, {"g": {P0: commit}}, ids=ID_A)

    assert "rewound" not in kinds(report), why


def test_many_partitions_are_one_finding():
    """A reset of a whole topic is told once, with the first partitions in words and all of them as numbers."""
    cluster = Cluster()
    ends = {("orders", i): (0, 100) for i in range(6)}
    cluster.look(ends, {"g": dict.fromkeys(ends, 90)})
    report = cluster.look(ends, {"g": dict.fromkeys(ends, 10)})

    (finding,) = report.findings
    assert (480, 6, None) == (finding.records, len(finding.changes), finding.partition)
    assert (
        "g on orders: committed offset went back on 6 partitions "
        "(0 from 90 to 10, 1 from 90 to 10, 2 from 90 to 10 and 3 more): 480 records are read again" == finding.text
    )


def test_a_rewind_whose_size_is_unknown_says_so():
    """The leader did not answer: it was set back all the same."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}})
    report = cluster.look({P0: Why.TIMEOUT}, {"g": {P0: 10}})

    assert report.findings[0].text.endswith("how many records are read again is unknown")
    assert report.findings[0].records is None
    assert Health.UNKNOWN is health_of(report)


def test_a_stopped_consumer_that_was_set_back_is_stopped():
    """The graver one counts."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}}, states=EMPTY)
    report = cluster.look({P0: (0, 100)}, {"g": {P0: 10}}, states=EMPTY)

    assert Health.STOPPED is health_of(report)
    assert ["rewound"] == kinds(report)


# --- records lost ---------------------------------------------------------------------------------------


def test_records_deleted_unread_are_lost():
    """Retention passes the commit: how many, once the commit was read again and still lies below."""
    cluster = Cluster()
    cluster.look({P0: (0, 200)}, {"g": {P0: 10}})
    passed = cluster.look({P0: (100, 200)}, {"g": {P0: 20}})
    sure = cluster.look({P0: (100, 200)}, {"g": {P0: 20}})

    assert [] == kinds(passed)
    (finding,) = sure.findings
    assert ("lost", 80, (Change(0, 0, 100),)) == (finding.kind, finding.records, finding.changes)
    assert "g on orders/0: 80 records were deleted before they were read: log start moved from 0 to 100" == finding.text
    assert Health.LOSING_DATA is health_of(sure)
    assert sure.consumers.evidence[0].startswith("losing data: 80 records deleted unread")


def test_losing_goes_on_in_one_finding():
    """Each step of retention adds to it, and keeps it from being forgotten."""
    cluster = Cluster()
    cluster.look({P0: (0, 900)}, {"g": {P0: 10}})
    for start in (100, 100, 300, 300):
        report = cluster.look({P0: (start, 900)}, {"g": {P0: 10}}, after=600.0)

    (finding,) = report.findings
    assert (290, (Change(0, 0, 300),), report.at) == (finding.records, finding.changes, finding.seen_at)


@pytest.mark.parametrize(
    ("looks", "what"),
    [
        pytest.param([((0, 200), 10), ((100, 200), 20), ((100, 200), 150)], "it read on", id="nobody can tell"),
        pytest.param([((100, 200), 10), ((100, 200), 10), ((100, 200), 10)], "before our time", id="already so"),
        pytest.param([((100, 200), 150), ((100, 200), 20), ((100, 200), 20)], "set back below", id="by hand"),
        pytest.param([((0, 200), 150), ((100, 200), 150), ((100, 200), 150)], "read before", id="behind it"),
    ],
)
def test_what_is_not_known_to_be_lost(looks, what):
    """A reader that deletes what it has read must not be told to lose it; nothing is guessed."""
    cluster = Cluster()
    for ends, commit in looks:
        report = cluster.look({P0: ends}, {"g": {P0: commit}})

    assert "lost" not in kinds(report), what
    assert health_of(report) is not Health.LOSING_DATA


def test_past_the_log_start_nothing_is_being_lost():
    """What is lost is lost; with the commit in the log again the consumer is ok."""
    cluster = Cluster()
    for ends, commit in [((0, 200), 10), ((100, 200), 10), ((100, 200), 10), ((100, 200), 120)]:
        report = cluster.look({P0: ends}, {"g": {P0: commit}})

    assert Health.OK is health_of(report)
    assert ["lost"] == kinds(report)


# --- all of them ----------------------------------------------------------------------------------------


def test_findings_of_the_source_come_first():
    """What the observer has to say stands as it is."""
    incomplete = Finding("incomplete", "may not see everything")

    assert (incomplete,) == Cluster().look({P0: (0, 1)}, {"g": {P0: 1}}, findings=[incomplete]).findings


def test_findings_are_bounded_and_say_so():
    """Thousands of topics set back at once: so many are listed, and how many are not."""
    cluster = Cluster()
    ends = {(f"t{i:04}", 0): (0, 100) for i in range(MOST + 20)}
    cluster.look(ends, {"g": dict.fromkeys(ends, 90)})
    report = cluster.look(ends, {"g": dict.fromkeys(ends, 10)})
    later = cluster.look(ends, {"g": dict.fromkeys(ends, 10)}, after=KEPT_SECONDS + 1)

    assert MOST + 1 == len(report.findings)
    assert "20 further findings of the last 15 minutes" == report.findings[-1].text
    assert () == later.findings


def test_marks_follow_their_rows():
    """A group set back stays so when rows come before it."""
    cluster = Cluster()
    cluster.look({P0: (0, 100)}, {"g": {P0: 90}})
    cluster.look({P0: (0, 100)}, {"g": {P0: 10}})
    report = cluster.look({("a", 0): (0, 5), P0: (0, 100)}, {"before": {("a", 0): 5, P0: 100}, "g": {P0: 10}})

    assert [Health.OK, Health.OK, Health.REWOUND] == [HEALTHS[i] for i in report.positions.health]


LOOKS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 100), st.integers(0, 160), st.booleans(), st.sampled_from([1, 2])),
    min_size=2,
    max_size=8,
)


@given(LOOKS)
def test_read_counters_never_fall_nor_jump(looks):
    """Whatever logs and commits do, a counter only grows, and never by more than the commit moved forward."""
    cluster, total, before = Cluster(), 0, None
    for start, length, commit, is_read, number in looks:
        ends = {P0: (start, start + length) if is_read else Why.TIMEOUT}
        report = cluster.look(ends, {"g": {P0: commit}}, ids={"orders": bytes([number]) * 16})
        (now,) = report.consumer_topics.records_total.tolist()
        assert total <= now <= total + max(0, commit - (commit if before is None else before[0]))
        if before is not None and before[1] != number:
            assert total == now
        total, before = now, (commit, number)
