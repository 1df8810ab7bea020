"""Every invariant is seen to fail: on builds that are broken on purpose, each in one way."""

import dataclasses

import broken_observers as broken
import numpy as np
import pytest
from simulated_invariants import INVARIANTS
from simulated_run import BrokenInvariantError, Simulation

from monitor.derive import consumers, observed
from monitor.observe.kafka import commits
from monitor.publish.exposition import Exposition

SEEDS = range(1, 9)
MINUTES = 4.0


class _FoundError(Exception):
    """The simulation has reported the invariant that it should."""


def _is_reported(invariant: str, wrap, minutes: float, seeds=SEEDS) -> bool:
    def on_broken(error: BrokenInvariantError) -> None:
        if invariant in error.invariants:
            raise _FoundError

    for seed in seeds:
        try:
            Simulation(seed, minutes, wrap=wrap, on_broken=on_broken).run()
        except _FoundError:
            return True
    return False


READERS = {
    "commits are kept where they could not be read": (broken.KeepsCommits, "numbers_are_borne_out"),
    "log ends are kept where they could not be read": (broken.KeepsEnds, "numbers_are_borne_out"),
    "look-ups say the wrong time": (broken.ShiftsTimes, "ages_lie_within_their_bound"),
    "a position of each group is left out": (
        broken.changed(broken.without_last_positions),
        "totals_miss_nothing",
    ),
    "members that were not read are none": (broken.changed(broken.without_members), "zeros_are_measured"),
    "a group is not read again after a failure": (broken.GivesUp, "nothing_is_unknown_without_cause"),
    "a group is left out": (broken.changed(broken.without_last), "nothing_is_missing_without_cause"),
    "groups that are gone are kept": (broken.ForgetsNobody, "nothing_is_shown_that_is_gone"),
    "a group counts twice": (broken.changed(broken.twice), "everybody_counts_once"),
    "the cluster is always up": (
        broken.changed(lambda snapshot: dataclasses.replace(snapshot, up=True)),
        "up_is_honest",
    ),
    "the cluster is never up": (
        broken.changed(lambda snapshot: dataclasses.replace(snapshot, up=False)),
        "up_is_honest",
    ),
    "a task is left over": (broken.LeaksTasks, "nothing_is_left_over"),
    "connections are not closed": (broken.LeavesConnections, "nothing_is_left_over"),
    "a cycle takes a minute": (broken.Dawdles, "cycles_keep_time"),
}


@pytest.mark.parametrize(("wrap", "invariant"), READERS.values(), ids=READERS.keys())
def test_a_broken_observer_is_found_out(wrap, invariant):
    """What is wrong about what was read, or about the reading."""
    assert _is_reported(invariant, wrap, MINUTES)


@pytest.mark.parametrize(
    ("wrap", "is_reported"),
    [(broken.KeepsSnapshots, True), (broken.KeepsNames, True), (broken.Around, False)],
    ids=["every snapshot is held", "names are kept", "nothing is kept"],
)
def test_what_is_kept_for_ever_is_found_out(wrap, is_reported):
    """It takes as long as something may be known after it has gone, or until enough has gathered."""
    assert is_reported == _is_reported("memory_is_bounded", wrap, 15.0, seeds=(2,))


def _unknown_is_zero(monkeypatch):
    right = observed.record_lag

    def wrong(*arguments):
        records = right(*arguments)
        return records._replace(lag=np.maximum(records.lag, 0), why=np.zeros_like(records.why))

    monkeypatch.setattr(observed, "record_lag", wrong)


def _one_too_many(monkeypatch):
    right = observed.record_lag

    def wrong(*arguments):
        records = right(*arguments)
        return records._replace(lag=np.where(records.lag > 0, records.lag + 1, records.lag))

    monkeypatch.setattr(observed, "record_lag", wrong)


def _only_known_parts(monkeypatch):
    right = consumers.sum_parts

    def wrong(*arguments):
        sums = right(*arguments)
        return sums._replace(total=sums.known)

    monkeypatch.setattr(consumers, "sum_parts", wrong)


def _no_settling(monkeypatch):
    monkeypatch.setattr(commits, "SETTLING_SECONDS", 0.0)


def _a_cycle_late(monkeypatch):
    right, last = Exposition.render, []

    def wrong(self, report):
        last.append(right(self, report))
        return last[-2:][0]

    monkeypatch.setattr(Exposition, "render", wrong)


def _minus_one(monkeypatch):
    right = Exposition.render

    class Told:
        def __init__(self, rendered):
            self.plain = rendered.plain + b'streamgauge_topic_records_total{cluster="simulated",topic="topic-1"} -1\n'

    monkeypatch.setattr(Exposition, "render", lambda self, report: Told(right(self, report)))


PARTS = {
    "an unknown lag is zero": (_unknown_is_zero, "zeros_are_measured"),
    "a lag has one record too many": (_one_too_many, "lags_follow_from_their_parts"),
    "a total is the sum of what is known": (_only_known_parts, "totals_miss_nothing"),
    "a new coordinator is believed at once": (_no_settling, "numbers_are_borne_out"),
    "the exposition is a cycle late": (_a_cycle_late, "exposition_says_the_same"),
    "an unknown number is exposed as -1": (_minus_one, "exposition_says_the_same"),
}


@pytest.mark.parametrize(("wrong", "invariant"), PARTS.values(), ids=PARTS.keys())
def test_a_broken_part_is_found_out(wrong, invariant, monkeypatch):
    """What is wrong about the arithmetic, or about what is exposed."""
    wrong(monkeypatch)

    assert _is_reported(invariant, lambda reader: reader, MINUTES)


def test_every_invariant_has_a_broken_build():
    """An invariant that nothing breaks is none."""
    broken_by = {invariant for _, invariant in (*READERS.values(), *PARTS.values())} | {"memory_is_bounded"}

    assert {each.__name__ for each in INVARIANTS} == broken_by
