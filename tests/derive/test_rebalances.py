"""Rebalances: counted by epoch where there is one, else at least so many; time between looks, never more than known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from snapshots import group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import GroupFacts, Member, TopicPartition

P0, P1 = ("orders", 0), ("orders", 1)
START = 1000.0


def owner(name, *keys, epoch=None):
    return Member(name, f"client-{name}", "/10.0.0.1", None, epoch, tuple(TopicPartition(*key) for key in keys))


ONE, TWO = (owner("a", P0, P1),), (owner("a", P0), owner("b", P1))


def facts(state="Stable", owners=ONE, *, described_at=START, epoch=None, members=None, **kw):
    return GroupFacts(
        group("g"), state, "classic", "consumer", len(owners) if members is None else members,
        owners=owners, epoch=epoch, described_at=described_at, **kw,
    )  # fmt: skip


class Looks:
    """A group looked at every ten seconds; a look takes one second."""

    def __init__(self):
        self.history, self.at = History(), START

    def look(self, what, others=()):
        names = {"g": {P0: 1}, **{name: {P0: 1} for name in others}}
        snapshot = kafka_snapshot({P0: (0, 1)}, dict(sorted(names.items())), at=self.at, states={"g": what})
        index = sorted(names).index("g")
        seen = observe(replace(snapshot, started_at=self.at - 1), None, self.history)
        report = derive(seen, self.history, lambda _: 300.0)
        self.at += 10
        columns = report.consumers.rebalances
        return tuple(
            column[index].item() for column in (columns.count, columns.exact, columns.seconds, columns.seconds_bound)
        )


def after(*whats):
    looks = Looks()
    return [looks.look(what) for what in whats][-1]


def test_nothing_is_counted_before_the_first_look():
    """What was before the monitor is not known: it begins at 0 with whatever it finds."""
    assert (0, False, 0.0, 0.0) == after(facts())
    assert (0, True, 0.0, 0.0) == after(facts(epoch=17))


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(facts(None), id="an old broker tells no state"),
        pytest.param(facts(why=30), id="not allowed to read the group"),
    ],
)
def test_without_a_state_nothing_is_known(unknown):
    """Not zero: unknown."""
    count, exact, seconds, bound = after(unknown)

    assert (-1, False) == (count, exact)
    assert np.isnan([seconds, bound]).all()


@pytest.mark.parametrize(
    ("epochs", "counted"),
    [
        pytest.param([5, 5, 5], (0, True), id="none"),
        pytest.param([5, 6, 6], (1, True), id="one"),
        pytest.param([5, 9, 11], (6, True), id="between two descriptions"),
        pytest.param([5, 9, 2], (6, False), id="another group of that name: at least two more"),
    ],
)
def test_epochs_are_counted(epochs, counted):
    """The group epoch grows with each: its difference is the number."""
    looks = [facts(epoch=epoch, described_at=START + 10 * k) for k, epoch in enumerate(epochs)]

    assert counted == after(*looks)[:2]


def test_a_rebalance_seen_and_counted_by_epoch_is_one():
    """The state tells how long, the epoch how many: nothing is counted twice."""
    looks = [
        facts(epoch=5),
        facts("Reconciling", epoch=6, described_at=START + 10),
        facts(epoch=6, described_at=START + 20),
    ]

    assert (1, True, 0.0, 21.0) == after(*looks)


@pytest.mark.parametrize(
    ("looks", "count"),
    [
        pytest.param([facts(), facts(owners=TWO, described_at=START + 10)], 1, id="other members"),
        pytest.param(
            [facts(owners=TWO), facts(owners=(owner("a", P1), owner("b", P0)), described_at=START + 10)],
            1,
            id="another assignment",
        ),
        pytest.param(
            [facts(owners=TWO), facts(owners=(TWO[1], TWO[0]), described_at=START + 10)], 0, id="another order"
        ),
        pytest.param([facts(), facts(described_at=START + 10)], 0, id="the same"),
        pytest.param([facts(), facts("PreparingRebalance"), facts(owners=TWO, described_at=START + 20)], 1, id="seen"),
        pytest.param(
            [facts(), facts("PreparingRebalance"), facts("CompletingRebalance"), facts(described_at=START + 30)],
            1,
            id="seen for long",
        ),
        pytest.param(
            [facts(), facts("PreparingRebalance"), facts(described_at=START + 20), facts("PreparingRebalance")],
            2,
            id="seen twice",
        ),
        pytest.param([facts("PreparingRebalance")], 1, id="at the first look"),
        pytest.param([facts(), facts(why=14), facts(described_at=START + 20)], 0, id="unread between"),
        pytest.param(
            [facts(), facts("Empty", members=0), facts(owners=TWO, described_at=START + 20)], 1, id="left and came back"
        ),
    ],
)
def test_a_classic_group_has_had_at_least(looks, count):
    """Each time it is seen rebalancing, and each time a description differs although it was not."""
    assert (count, False) == after(*looks)[:2]


def test_time_is_between_looks():
    """Looks at 9-10, 19-20, 29-30 and 39-40: rebalancing in the middle two, so from 9 to 31 seconds."""
    looks = Looks()
    looks.look(facts())
    first = looks.look(facts("PreparingRebalance"))
    second = looks.look(facts("CompletingRebalance"))
    over = looks.look(facts(described_at=START + 30))
    later = looks.look(facts(described_at=START + 30))

    assert [(0.0, 11.0), (9.0, 12.0), (9.0, 22.0), (9.0, 22.0)] == [each[2:] for each in (first, second, over, later)]


def test_an_unseen_one_took_at_most_a_gap():
    """Looks 10 s apart, each a second long: what fitted between two of them took at most 11 s."""
    assert (1, False, 0.0, 11.0) == after(facts(), facts(owners=TWO, described_at=START + 10))


def test_an_episode_is_no_gap():
    """Of three by epoch one was seen, from 9 to 41 s at most; the other two fitted into gaps of 11 s each."""
    looks = [
        facts(epoch=5),
        facts("Assigning", epoch=5),
        facts("Reconciling", epoch=5),
        facts(epoch=5),
        facts(epoch=8, described_at=START + 40),
    ]

    assert (3, True, 9.0, 22.0 + 2 * 11.0) == after(*looks)


def test_counts_follow_their_group():
    """Groups that come and go around it change nothing."""
    looks = Looks()
    looks.look(facts(epoch=5))
    looks.look(facts(epoch=7, described_at=START + 10))

    assert (3, True) == looks.look(facts(epoch=8, described_at=START + 20), others=["a", "z"])[:2]
    assert (4, True) == looks.look(facts(epoch=9, described_at=START + 30), others=["z"])[:2]


@given(st.lists(st.sampled_from(["Stable", "PreparingRebalance", "CompletingRebalance", "Empty"]), min_size=1))
def test_counters_only_grow_and_hold_the_truth(states):
    """Whatever was seen: count, seconds and the upper limit never fall, and the limit is not below the seconds."""
    looks, before = Looks(), (0, False, 0.0, 0.0)
    for k, state in enumerate(states):
        now = looks.look(facts(state, members=0 if state == "Empty" else 1, described_at=START + 10 * k))
        assert now[0] >= before[0]
        assert now[2] >= before[2]
        assert now[2] + now[3] >= before[2] + before[3]
        assert now[3] >= 0
        assert now[2] <= 10 * k
        before = now
