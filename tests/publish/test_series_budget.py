"""The series budget: what is left out, that nothing said is wrong for it, and that little is done again.

Two expositions of the same reports are compared, one without caps and one with: a series that both have says the same,
and what the capped one says of the rest follows from what only the other one shows.
"""

import math
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from expositions import EVERYTHING, Cluster, crowded_cycles, cycles, metrics, ours, read, values, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import group
from structlog.testing import capture_logs

from alerts.rules import RULES
from dashboards.files import BOARDS
from monitor.catalog import GROUP_STATES, METRICS, PARTITION_STATUSES, Level, Type
from monitor.model import HEALTHS, GroupFacts, Member, TopicPartition, Why
from monitor.publish.exposition import Exposition
from monitor.publish.exposition_budget import (
    RANK_SECONDS,
    ROOM,
    SURELY,
    SWAPPED_AT_LEAST,
    Step,
    carry,
    filled,
    next_steps,
    saved,
    steps_to_take,
    swapped,
)
from monitor.publish.exposition_cluster import ClusterText
from monitor.publish.exposition_labels import Rows
from monitor.publish.exposition_slots import SlotBlock
from monitor.settings import ConsumerLevel, Metrics

LAG, SECONDS, LOST = (f"streamgauge_consumer_{name}" for name in ("lag_records", "lag_seconds", "lost_records"))
BY_POSITION = {LAG, SECONDS, LOST, "streamgauge_consumer_committed_offset", "streamgauge_consumer_lag_seconds_bound"}
BY_TOPIC = {each.name for each in METRICS if each.level is Level.CONSUMER_TOPIC and each.type is Type.GAUGE}
UNCAPPED = {"max_positions": 10**9, "max_series": 10**9}
MANUAL = (Path(__file__).parents[2] / "docs/series.md").read_text("utf-8")


def with_ages(report):
    """Return the report with an age wherever a lag is known, and a bound: as when look-ups have placed them."""
    lag = report.positions.lag_records
    seconds = np.where(lag > 0, lag % 9973 + 0.25, np.where(lag == 0, 0.0, np.nan))
    return replace(report, positions=replace(report.positions, lag_seconds=seconds, lag_seconds_bound=seconds / 8))


def by_pair(samples, name):
    """Return the samples of a metric by consumer and topic: partition -> value."""
    found = defaultdict(dict)
    for (each, labels), value in samples.items():
        if each == name:
            of = dict(labels)
            found[of["consumer"], of["topic"]][of["partition"]] = value
    return found


def shown(text):
    """Return the exact positions of an answer with a lag: (consumer, topic, partition) -> records."""
    return {
        (*pair, partition): value
        for pair, partitions in by_pair(ours(text), LAG).items()
        for partition, value in partitions.items()
        if partition != "rest"
    }


def unknown_parts(cluster):
    """Return the (consumer, topic) pairs of which a position is unknown."""
    layout = cluster.positions.layout
    pairs = zip(layout.consumer, layout.partitions.topic[layout.row], strict=True)
    return {
        (layout.consumers[consumer].name, layout.partitions.topics[topic])
        for (consumer, topic), lag in zip(pairs, cluster.positions.lag_records, strict=True)
        if lag < 0
    }


# --- levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "without"),
    [("position", set()), ("topic", BY_POSITION), ("consumer", BY_POSITION | BY_TOPIC)],
)
def test_a_consumer_has_what_its_level_says(level, without):
    """By the first pattern that matches; what is coarser stays as it is, and nothing counts as left out."""
    levels = (ConsumerLevel(consumer="a*", level=level), ConsumerLevel(consumer="*", level="consumer"))
    report = whole(Cluster().report(ENDS, committed(a1=[5, 7], b=[5, 7])))
    text, plain = (Exposition(each).render(report).plain for each in (Metrics(levels=levels), Metrics()))
    names = [{name for name, labels in ours(each) if ("consumer", "a1") in labels} for each in (text, plain)]
    coarse = [
        {key: value for key, value in ours(each).items() if "topic" not in dict(key[1])} for each in (text, plain)
    ]

    assert names[1] - without == names[0]
    assert {LAG, "streamgauge_consumer_topic_lag_records", "streamgauge_consumer_records_total"} <= names[1]
    assert coarse[0] == coarse[1]
    assert [12, 12] == values(text, "streamgauge_consumer_sum_lag_records")
    assert [0] == values(text, "streamgauge_dropped_series")


# --- the cap on positions ----------------------------------------------------------------------------


@given(
    cycles() | cycles(st.nothing()),
    st.integers(0, 20),
    metrics(**UNCAPPED) | st.just(Metrics(**EVERYTHING, **UNCAPPED)),
)
@settings(deadline=None, max_examples=40)
def test_beyond_the_cap_nothing_is_wrong_and_nothing_lost(told, limit, everything):
    """Exact positions are as without a cap, no more than it allows, and with the rest they add up to the same."""
    cluster = Cluster()
    free, capped = Exposition(everything), Exposition(everything.model_copy(update={"max_positions": limit}))
    for each in told:
        report = with_ages(cluster.report(**each))
        text = capped.render(whole(report)).plain
        all_of_it, found = ours(free.render(whole(report)).plain), ours(text)
        exact = {key: value for key, value in found.items() if ("partition", "rest") not in key[1]}
        left_out = all_of_it.keys() - exact.keys()

        assert exact == {key: all_of_it[key] for key in exact}
        assert {name for name, _ in left_out} <= BY_POSITION
        assert [len(left_out)] == values(text, "streamgauge_dropped_series")
        assert [len(read(text))] == values(text, "streamgauge_exposed_series")
        assert len(shown(text)) <= limit
        for name, together in ((LAG, sum), (LOST, sum), (SECONDS, max)):
            free_values, capped_values = by_pair(all_of_it, name), by_pair(found, name)
            for pair in free_values.keys() - unknown_parts(report):
                assert together(free_values[pair].values()) == together(capped_values[pair].values()), (name, pair)
            for pair, partitions in capped_values.items():
                if "rest" in partitions:  # even where a position is unknown: then it is none of the rest
                    rest = [free_values[pair][p] for p in free_values[pair].keys() - partitions.keys()]
                    assert together(rest) == partitions["rest"]
        rests = {name: {labels for each, labels in found if each == name and ("partition", "rest") in labels}
                 for name in BY_POSITION}  # fmt: skip
        assert rests[LAG] == rests[LOST] == rests[SECONDS]  # in these reports known together
        assert {LAG, LOST, SECONDS} >= {name for name in rests if rests[name]}


ENDS = {("t", partition): (0, 10_000) for partition in range(6)}


def committed(**lags):
    """Return the commits of groups whose partitions of topic t lag so much; None: no commit."""
    return {
        name: {("t", p): Why.NO_COMMIT if lag is None else 10_000 - lag for p, lag in enumerate(of) if lag != "-"}
        for name, of in lags.items()
    }


def test_those_that_lag_most_are_exact():
    """At first exactly the largest are, of equal ones the first."""
    report = Cluster().report(ENDS, committed(a=[5, 70, 0], b=[70, 900, 70]))
    text = Exposition(Metrics(max_positions=3)).render(whole(report)).plain

    assert {("a", "t", "1"): 70, ("b", "t", "0"): 70, ("b", "t", "1"): 900} == shown(text)
    assert {"a": 5, "b": 70} == {pair[0]: of["rest"] for pair, of in by_pair(ours(text), LAG).items()}
    assert [3 + 1] == values(text, "streamgauge_dropped_series")  # and the age of the one that has read everything


def test_without_any_exact_position_the_rest_is_the_lag_by_topic():
    """Each consumer and topic has its own."""
    ends = {(topic, p): (0, 100) for topic in "st" for p in range(3)}
    commits = {name: {key: 90 - 10 * n - key[1] for key in ends} for n, name in enumerate("abc")}
    found = ours(Exposition(Metrics(max_positions=0)).render(whole(Cluster().report(ends, commits))).plain)

    rests = {(name, topic): {"rest": 33 + 30 * n} for n, name in enumerate("abc") for topic in "st"}
    assert rests == by_pair(found, LAG)
    assert sorted(each["rest"] for each in rests.values()) == sorted(
        value for (name, _), value in found.items() if name == "streamgauge_consumer_topic_lag_records"
    )


def test_an_unknown_part_makes_the_rest_unknown_until_it_is_back():
    """What is known of the rest is no sum; the count by status says that something is unknown."""
    cluster, exposition = Cluster(), Exposition(Metrics(max_positions=1))
    lags = [[900, 5, 7], [900, 5, None], [900, 5, 8]]
    texts = [exposition.render(whole(with_ages(cluster.report(ENDS, committed(a=each))))).plain for each in lags]

    assert [{"0": 900, "rest": 12}, {"0": 900}, {"0": 900, "rest": 13}] == [
        by_pair(ours(text), LAG)["a", "t"] for text in texts
    ]
    assert [{"0": 900.25, "rest": 7.25}, {"0": 900.25}, {"0": 900.25, "rest": 8.25}] == [
        by_pair(ours(text), SECONDS)["a", "t"] for text in texts
    ]
    assert [[3, 0], [2, 1], [3, 0]] == [values(text, "streamgauge_consumer_partitions") for text in texts]
    assert [[], [2]] == [values(texts[1], "streamgauge_consumer_sum_lag_records"), [2]]


def test_an_exact_position_stays_exact_while_it_is_unknown():
    """It may be back in the next cycle; as part of the rest it would make that unknown."""
    cluster, exposition = Cluster(), Exposition(Metrics(max_positions=1))
    lags = [[900, 5, 7], [None, 5, 7], [800, 5, 7]]
    texts = [
        exposition.render(whole(cluster.report(ENDS, committed(a=each), at=1000.0 + 100 * n))).plain
        for n, each in enumerate(lags)
    ]

    assert [{"0": 900, "rest": 12}, {"rest": 12}, {"0": 800, "rest": 12}] == [
        by_pair(ours(text), LAG)["a", "t"] for text in texts
    ]


@pytest.mark.parametrize(
    ("lag", "after", "exact"),
    [
        pytest.param(900, RANK_SECONDS - 1, "0", id="much more, but a moment ago it was ranked"),
        pytest.param(900, RANK_SECONDS, "1", id="much more, a minute later"),
        pytest.param(901, -5.0, "1", id="much more, and the clock went back"),
        pytest.param(200, RANK_SECONDS, "0", id="twice as much is not surely more"),
        pytest.param(201, RANK_SECONDS, "1", id="more than twice as much is"),
    ],
)
def test_the_exact_ones_change_seldom(lag, after, exact):
    """Each swap ends a series and begins another: it takes a clear case, and time."""
    cluster, exposition = Cluster(), Exposition(Metrics(max_positions=1))
    exposition.render(whole(cluster.report(ENDS, committed(a=[100, 5]), at=1000.0)))
    text = exposition.render(whole(cluster.report(ENDS, committed(a=[100, lag]), at=1000.0 + after))).plain

    assert {exact, "rest"} == by_pair(ours(text), LAG)["a", "t"].keys()


def test_a_swap_counts_although_nothing_moved():
    """The ranking finds what was so for a while: the rest is then the sum of others, with no value new."""
    cluster, exposition = Cluster(), Exposition(Metrics(max_positions=1))
    texts = [
        exposition.render(whole(cluster.report(ENDS, committed(a=lags), at=at))).plain
        for lags, at in (([100, 5], 1000.0), ([100, 900], 1001.0), ([100, 900], 1060.0))
    ]

    assert [{"0": 100, "rest": 5}, {"0": 100, "rest": 900}, {"1": 900, "rest": 100}] == [
        by_pair(ours(text), LAG)["a", "t"] for text in texts
    ]


def test_groups_that_come_and_go_leave_the_exact_ones_alone():
    """Even where the newcomer lags more: its turn comes with the next ranking. A free place is taken at once."""
    cluster, exposition = Cluster(), Exposition(Metrics(max_positions=2))
    before = committed(a=[100, 5], m=[50, 4])
    exposition.render(whole(cluster.report(ENDS, before)))
    come = exposition.render(whole(cluster.report(ENDS, {**committed(k=[999]), **before}))).plain
    gone = exposition.render(whole(cluster.report(ENDS, {**committed(k=[999]), "m": before["m"]}))).plain

    assert {("a", "t", "0"), ("m", "t", "0")} == shown(come).keys()
    assert {("k", "t", "0"), ("m", "t", "0")} == shown(gone).keys()


def test_back_under_the_cap_every_position_is_exact():
    """Growing beyond it sums, shrinking shows everything again; each is said once."""
    cluster, exposition = Cluster(), Exposition(Metrics(max_positions=2))
    with capture_logs() as logs:
        texts = [
            exposition.render(whole(cluster.report(ENDS, committed(a=lags)))).plain
            for lags in ([1, 2], [1, 2, 3], [1, 2, 4], [1, 2])
        ]

    assert [{"0", "1"}, {"0", "1", "rest"}, {"0", "1", "rest"}, {"0", "1"}] == [
        by_pair(ours(text), LAG)["a", "t"].keys() for text in texts
    ]
    assert [("warning", 3), ("info", 2)] == [(each["log_level"], each["positions"]) for each in logs]


def test_consumers_below_position_level_take_no_place():
    """The cap counts what would be exposed, and nothing else is summed or missed."""
    chosen = Metrics(max_positions=2, levels=(ConsumerLevel(consumer="big-*", level="topic"),))
    cluster, exposition = Cluster(), Exposition(chosen)
    texts = [
        exposition.render(whole(cluster.report(ENDS, committed(**{"big-1": [900, 900], "small": lags, "big-2": [5]}))))
        for lags in ([1, 2], [1, 2, 3, 4])
    ]

    assert [{("small", "t"): {"0": 1, "1": 2}}, {("small", "t"): {"0": 1, "1": 2, "rest": 7}}] == [
        by_pair(ours(text.plain), LAG) for text in texts
    ]
    assert [[0], [2]] == [values(text.plain, "streamgauge_dropped_series") for text in texts]


# --- choosing, by itself -----------------------------------------------------------------------------


@st.composite
def members(draw):
    """Lags (-1: unknown), which positions are asked for, and up to a limit which of those are members."""
    lag = np.array(draw(st.lists(st.integers(-1, 5) | st.integers(-1, 10**6), min_size=1, max_size=60)), np.int64)
    asked = np.array(draw(st.lists(st.booleans(), min_size=len(lag), max_size=len(lag))))
    places = np.flatnonzero(asked)
    chosen = draw(st.sets(st.sampled_from(places.tolist()))) if len(places) else set()
    member = np.isin(np.arange(len(lag)), list(chosen))
    return lag, asked, member, draw(st.integers(len(chosen), len(lag) + 1))


@given(members())
def test_filling_takes_the_largest(case):
    """As many as there is room for are added, and none that stays outside lags more than one that was added."""
    lag, asked, member, limit = case
    result = filled(member, asked, lag, limit)

    assert min(limit, np.count_nonzero(asked)) == np.count_nonzero(result)
    assert not (member & ~result).any()
    assert not (result & ~asked).any()
    added, outside = lag[result & ~member], lag[asked & ~result]
    assert not len(added) or not len(outside) or added.min() >= outside.max()


@given(members())
def test_swapping_is_bounded_sure_and_fair(case):
    """Few go, each for one that surely lags more; nobody unknown moves; without a clear case nothing happens at all."""
    lag, asked, member, limit = case
    result = swapped(member, asked, lag, limit)
    went, came = np.sort(lag[member & ~result]), np.sort(lag[result & ~member])

    assert len(went) == len(came) <= SWAPPED_AT_LEAST
    assert not (result & ~asked).any()
    assert (np.append(went, came) >= 0).all()
    assert (came > SURELY * went).all()
    assert len(went) or result is member
    if len(went) < SWAPPED_AT_LEAST:  # then no clear case is left
        inside, outside = lag[result & (lag >= 0)], lag[asked & ~result & (lag >= 0)]
        assert not len(inside) or not len(outside) or outside.max() <= SURELY * inside.min()


def test_of_many_a_hundredth_is_swapped_at_a_time():
    """However wrong the set is, most of its series live on."""
    lag = np.append(np.zeros(5000, np.int64), np.full(5000, 9))
    member = np.arange(10_000) < 5000
    result = swapped(member, np.ones(10_000, np.bool_), lag, 5000)

    assert [50, 50] == [np.count_nonzero(member & ~result), np.count_nonzero(result & ~member)]


def keys(layout):
    return [(layout.consumers[c], layout.partitions.key(r)) for c, r in zip(layout.consumer, layout.row, strict=True)]


@given(crowded_cycles() | cycles(), st.data())
@settings(deadline=None, max_examples=30)
def test_members_are_carried_to_their_new_rows(told, data):
    """By name of consumer and topic and number of partition, wherever the rows went."""
    cluster = Cluster()
    layouts = [cluster.report(**each).positions.layout for each in told]
    old, new = layouts[0], layouts[-1]
    member = np.array(data.draw(st.lists(st.booleans(), min_size=len(old), max_size=len(old))), np.bool_)
    were = {key for key, is_member in zip(keys(old), member, strict=True) if is_member}

    assert [key in were for key in keys(new)] == carry(member, old, new).tolist()


def test_a_new_topic_has_no_members():
    """Not even where its consumer stands behind one that has: nothing of another row is taken for its."""
    key = ("t", 0)
    old = Cluster().report({key: (0, 9)}, {"a": {key: 1}, "b": {key: 1}}).positions.layout
    new = Cluster().report({key: (0, 9), ("u", 0): (0, 9)}, {"a": {key: 1}, "b": {("u", 0): 1}, "c": {key: 1}})

    assert [True, False, False] == carry(np.array([True, False]), old, new.positions.layout).tolist()


# --- the cap on the whole answer ---------------------------------------------------------------------

SAVINGS = st.dictionaries(st.tuples(st.sampled_from(Step), st.sampled_from("abc")), st.integers(0, 50))


@given(SAVINGS, st.integers(0, 200))
def test_steps_are_taken_in_their_order_and_none_in_vain(savings, excess):
    """What is left out is enough if that is possible at all, and no single step could be put back."""
    taken = steps_to_take(savings, excess)

    assert saved(savings, taken) >= min(excess, sum(savings.values()))
    assert [] == [each for each in taken if saved(savings, taken - {each}) >= excess]
    before = [each for each in savings if taken and each[0] < max(taken)[0]]
    assert saved(savings, before) < excess or not taken  # it went so far only because it had to


@given(SAVINGS, st.integers(0, 200), st.integers(1, 200), st.integers(1, 200))
def test_what_fits_is_left_alone(savings, fixed, limit, later):
    """Steps stay as they are until they are not enough, or until there is room for more."""
    total = fixed + sum(savings.values())
    taken = next_steps(savings, total, limit, frozenset())
    again = next_steps(savings, total, later, taken)

    assert total - saved(savings, taken) <= max(limit, fixed)
    assert total - saved(savings, again) <= max(later, fixed)
    assert taken == next_steps(savings, total, limit, taken)
    if again != taken and total - saved(savings, taken) <= later:
        assert saved(savings, again) < saved(savings, taken)
        assert total - saved(savings, again) <= ROOM * later


@given(st.lists(crowded_cycles() | cycles(), min_size=1, max_size=2), st.integers(1, 300), metrics(**UNCAPPED))
@settings(deadline=None, max_examples=25)
def test_the_whole_answer_is_capped(clusters, limit, everything):
    """No more series than allowed, unless consumers alone are more; the same as without cap, less what is counted."""
    told = [cluster[-1] for cluster in clusters]
    report = whole(*(Cluster(f"cluster-{i}").report(**each) for i, each in enumerate(told)))
    free = Exposition(everything).render(report).plain
    text = Exposition(everything.model_copy(update={"max_series": limit})).render(report).plain
    least = Exposition(everything.model_copy(update={"max_series": 1})).render(report).plain
    all_of_it, found = ours(free), ours(text)

    assert len(read(text)) <= max(limit, len(read(least)))
    assert found == {key: all_of_it[key] for key in found}
    assert [len(all_of_it) - len(found)] == values(text, "streamgauge_dropped_series")
    if limit >= len(read(free)) + 200:  # rows are counted, not known values: there is a difference
        assert all_of_it == found


def test_the_steps_are_the_stated_ones():
    """From the owners on, the finest goes first; consumers as a whole and topics stay."""
    facts = GroupFacts(group("a"), state="Stable", members=1, owners=(Member("m", "c", "h", assigned=(("t", 0),)),))
    facts = replace(facts, owners=(replace(facts.owners[0], assigned=(TopicPartition("t", 0),)),))
    report = whole(Cluster().report(ENDS, committed(a=[1, 2, 3, 4, 5, 6]), states={"a": facts}))
    everything = Metrics(**EVERYTHING)
    all_names = {name for name, _ in ours(Exposition(everything).render(report).plain)}
    gone, limit = [], 200
    while limit > 1:
        text = Exposition(everything.model_copy(update={"max_series": limit})).render(report).plain
        missing = all_names - {name for name, _ in ours(text)}
        if not gone or gone[-1] != missing:
            gone.append(missing)
        limit -= 1

    owners, offsets = {"streamgauge_consumer_partition_owner_info"}, {
        "streamgauge_partition_log_start_offset", "streamgauge_partition_log_end_offset"}  # fmt: skip
    positions = {each for each in BY_POSITION if each in all_names}
    topic, reads = BY_TOPIC & all_names, {"streamgauge_consumer_records_total"}
    steps = [owners, offsets, positions, topic, reads]
    assert [set(), owners, offsets] == gone[:3]
    assert set.union(*steps) == gone[-1]
    assert [] == [each for missing in gone for each in steps if each & missing not in (set(), each)]  # none in part


def rows(report):
    text = ClusterText([metric for metric in METRICS[:-2] if metric.opt_in is None], Metrics())
    text.look(report)
    return text.rows


def test_a_change_is_said_once():
    """Which parts of which cluster are left out is one line when it begins, one when it changes, one when it ends."""
    one, two = Cluster("one"), Cluster("two")
    small, large = committed(a=[1]), committed(a=[1, 2, 3, 4, 5, 6])
    first = [one.report(ENDS, small), two.report(ENDS, small)]
    text = Exposition(Metrics()).render(whole(*first)).plain
    exposition = Exposition(Metrics(max_series=len(read(text)) - len(ours(text)) + sum(map(rows, first)) + 5))
    texts = []
    with capture_logs() as logs:
        for commits in (small, large, small, {}):
            texts += [exposition.render(whole(first[0], two.report(ENDS, commits))).plain for _ in range(2)]

    offsets = {dict(labels)["cluster"] for name, labels in read(texts[2]) if "partition_log_end" in name}
    assert {"two"} == offsets
    # Not yet with the second small one: it would fill the cap to the brim, and the next group would flap.
    assert [("warning", ["offsets of partitions of one"]), ("info", None)] == [
        (each["log_level"], each.get("left_out")) for each in logs
    ]
    assert all(each["left"] <= each["max_series"] for each in logs)


def test_the_same_reports_give_the_same_answer():
    """Two monitors that see the same expose the same, down to the byte."""
    cluster = Cluster()
    reports = [whole(cluster.report(ENDS, committed(a=[lag, 7, 7], b=[7, 7, lag]), at=at))
               for lag, at in ((7, 1000.0), (900, 1070.0), (3, 1140.0))]  # fmt: skip
    one, two = (Exposition(Metrics(max_positions=2, max_series=120)) for _ in range(2))
    for report in reports:
        texts = [each.render(report).plain.partition(b"# HELP process_")[0] for each in (one, two)]

        assert texts[0] == texts[1]


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ['say "hi"', "back\\slash", "two\nlines", "größe 漢 💡", "trailing\\", "rest", "\r\0\x85\u2028", "\\udc80", "�"],
)
def test_the_rest_of_any_name_reads_back(name):
    """A group and topic of any name have a rest of their own."""
    ends = {(name, p): (0, 100) for p in range(3)}
    report = Cluster(name).report(ends, {name: {key: 90 - key[1] for key in ends}})
    found = ours(Exposition(Metrics(max_positions=1)).render(whole(report)).plain)

    assert {(name, name): {"2": 12, "rest": 21}} == by_pair(found, LAG)


# --- nothing is done again that need not be -------------------------------------------------------------


def pieces(text, families):
    return {metric.name: list(text.pieces(metric)) for metric in families}


def changed(before, after):
    """Return the metrics that do not have the very same pieces."""
    return {
        name for name, now in after.items() if len(now) != len(before[name]) or any(
            new is not old for new, old in zip(now, before[name], strict=True))
    }  # fmt: skip


def taken_in(text, report):
    text.look(report)
    text.lay(frozenset())


def test_a_rebalance_lays_out_the_owners_only():
    """Labels that change often are in a segment of their own: everything else keeps its very pieces."""
    everything, cluster = Metrics(**EVERYTHING), Cluster()
    text = ClusterText(METRICS[:-2], everything)

    def owned_by(client_id):
        member = Member("m", client_id, "h", assigned=(TopicPartition("t", 0),))
        return {"a": GroupFacts(group("a"), state="Stable", members=1, owners=(member,))}

    taken_in(text, cluster.report(ENDS, committed(a=[1, 2]), states=owned_by("x")))
    before = pieces(text, METRICS[:-2])
    taken_in(text, cluster.report(ENDS, committed(a=[1, 2]), states=owned_by("y")))

    expected = {"streamgauge_consumer_partition_owner_info", "streamgauge_observe_requests_total"}
    assert expected == changed(before, pieces(text, METRICS[:-2]))


def test_a_swap_lays_out_the_positions_only():
    """Whose series they are is nothing to the other metrics, and the rest has the same rows, with other values."""
    cluster = Cluster()
    text = ClusterText(METRICS[:-2], Metrics(max_positions=1, **EVERYTHING))
    taken_in(text, with_ages(cluster.report(ENDS, committed(a=[1, 900]), at=1000.0)))
    taken_in(text, with_ages(cluster.report(ENDS, committed(a=[900, 1]), at=1001.0)))
    before = pieces(text, METRICS[:-2])
    taken_in(text, with_ages(cluster.report(ENDS, committed(a=[900, 1]), at=1100.0)))

    assert BY_POSITION == {name for name in changed(before, pieces(text, METRICS[:-2])) if name in BY_POSITION}
    assert not [name for name in changed(before, pieces(text, METRICS[:-2])) if "partition_log" in name]


@pytest.mark.parametrize("limit", [10**9, 2], ids=["all exact", "capped"])
def test_a_cycle_in_which_nothing_moved_changes_nothing(limit):
    """New columns with the same values leave every piece of every metric as it is."""
    cluster = Cluster()
    text = ClusterText(METRICS[:-2], Metrics(max_positions=limit, **EVERYTHING))
    first = cluster.report(ENDS, committed(a=[1, None, 3], b=[7, 7]))
    copied = {name: getattr(first.positions, name).copy() for name in ("committed", "lag_records", "lag_seconds")}
    taken_in(text, first)
    before = pieces(text, METRICS[:-2])
    taken_in(text, replace(first, positions=replace(first.positions, **copied)))

    assert set() == changed(before, pieces(text, METRICS[:-2]))


def test_the_same_bytes_are_not_even_looked_at():
    """The same column, or one equal to the byte with its NaN, is not cut or formatted again; any change is."""
    cuts = []

    def cut(column):
        cuts.append(column)
        return column

    rows = Rows([b'{a="x"} ', b'{a="y"} '], np.arange(2, dtype=np.int32), [b""], np.zeros(2, np.int32))
    column = np.array([1.5, math.nan])
    block = SlotBlock("m", rows, column, cut)
    for later in (column, column.copy(), np.array([1.5, 2.0])):
        block.patch(later, cut)

    assert [2] == [len(cuts)]


# --- the manual --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "levels"),
    [
        ("consumer", {"consumer", "consumer_status", "consumer_health", "consumer_state", "consumer_protocol"}),
        ("consumer and topic", {"consumer_topic"}),
        ("position: a consumer on a partition", {"position"}),
        ("partition that a member owns", {"owner"}),
        ("topic", {"topic"}),
        ("partition", {"partition"}),
    ],
)
def test_the_manual_counts_series_as_they_are(what, levels):
    """docs/series.md says how many each consumer, topic, position adds: by default, and with everything on."""
    rows = {
        "consumer_status": len(PARTITION_STATUSES),
        "consumer_health": len(HEALTHS),
        "consumer_state": len(GROUP_STATES),
    }
    count = {
        is_on: sum(rows.get(each.level, 1) for each in METRICS if each.level in levels and (not each.opt_in) is is_on)
        for is_on in (True, False)
    }
    told = next(line for line in MANUAL.splitlines() if line.startswith(f"| {what} |"))

    assert [count[True], count[False]] == [int(cell.partition(":")[0]) for cell in told.strip("|").split("|")[1:]]


# --- rules and boards --------------------------------------------------------------------------------

STAYS = {metric.name for metric in METRICS} - BY_POSITION - BY_TOPIC - {
    "streamgauge_consumer_partition_owner_info",
    "streamgauge_partition_log_start_offset",
    "streamgauge_partition_log_end_offset",
}  # fmt: skip


def test_rules_and_the_overview_work_at_every_level():
    """None of them reads a metric that a coarser level or one of the first steps of the cap takes away."""
    (overview,) = (board for board in BOARDS if board.uid == "streamgauge-overview")
    expressions = [rule.expression for rule in RULES]
    expressions += [query.expression for panel in overview.panels for query in panel.queries]
    names = {name for text in expressions for name in re.findall(r"streamgauge_[a-z_]+", text)}
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names - STAYS} - STAYS

    assert len(expressions) > 30
    assert set() == names
