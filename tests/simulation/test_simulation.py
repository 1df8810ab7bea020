"""The whole observer against clusters that do everything, under virtual time: what holds after every cycle."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import simulated_run
from simulated_run import BrokenInvariantError, Simulation, replay_command, simulate
from simulated_time import EPOCH, StuckError, Timeline, WallClock, run_virtually


def test_every_cycle_holds(seed, minutes):
    """No number is wrong, no total misses a part, nothing stays away without a cause, and nothing is left over."""
    outcome = simulate(seed, minutes)

    assert outcome.cycles >= 0.8 * minutes * 6
    assert outcome.known > 50 * minutes, "a simulation in which little is known shows little"
    assert outcome.unknown > 0, "a simulation in which nothing fails shows nothing"


def test_a_seed_tells_the_same_story_each_time():
    """Every request, every answer, every report and every exposition is the same, byte for byte, with its time."""
    first, second, other = simulate(7, 3), simulate(7, 3), simulate(8, 3)

    assert first == second
    assert (first.wire, first.reports) != (other.wire, other.reports)
    assert first.requests > 200


def test_a_seed_tells_the_same_story_to_each_process():
    """Nothing hangs on the order of a set of strings, which differs from process to process."""
    stories = [_story_in_a_process(hash_seed) for hash_seed in ("1", "2")]

    assert stories[0] == stories[1]


def _story_in_a_process(hash_seed: str) -> str:
    program = "import simulated_run as s; o = s.simulate(7, 3); print(o.requests, o.wire, o.reports)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(simulated_run.__file__).parent)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_failure_says_all_that_it_takes_to_see_it_again(monkeypatch):
    """Seed, cycle, invariant, what happened before, and the command line."""

    def never(cycle):
        if cycle.number == 5:
            yield "nothing holds"

    monkeypatch.setattr("simulated_invariants.INVARIANTS", (never,))
    with pytest.raises(BrokenInvariantError) as caught:
        simulate(3, 2)

    text = str(caught.value)
    assert text.startswith("seed 3, cycle 5 (40.")
    assert "never:\n    nothing holds" in text
    assert "what happened before:" in text
    assert text.endswith(replay_command(3, 2))
    assert frozenset({"never"}) == caught.value.invariants


def test_a_cycle_that_raises_is_a_failure(monkeypatch):
    """The service logs a fault of its own and goes on; the simulation does not."""
    monkeypatch.setattr("monitor.service.derive", lambda *_, **__: 1 / 0)

    with pytest.raises(BrokenInvariantError, match="ZeroDivisionError") as caught:
        simulate(1, 1)
    assert frozenset({"no_cycle_fails"}) == caught.value.invariants


def test_time_is_virtual():
    """An hour of waiting passes at once, to the very moment that was waited for."""

    async def main(loop):
        clock = WallClock(loop)
        await asyncio.sleep(3600)
        clock.jump(-30)
        return loop.time(), clock() - EPOCH, clock.offsets.during(0, 3600)

    assert (3600.0, 3570.0, [0.0, -30.0]) == run_virtually(main)


def test_waiting_for_nothing_is_an_error():
    """Where nothing would ever happen any more, the loop says so in place of hanging."""

    async def main(loop):
        await loop.create_future()

    with pytest.raises(StuckError):
        run_virtually(main)


def test_a_timeline_tells_every_value_of_a_while():
    """What held at its beginning counts, what came later does not."""
    line = Timeline(0.0, "a")
    line.put(10.0, "b")
    line.put(20.0, "c")

    assert [["a"], ["a", "b"], ["b"], ["b", "c"], []] == [
        line.during(*each) for each in ((0, 9), (9, 10), (10, 19), (12, 30), (-2, -1))
    ]


def test_the_story_does_not_depend_on_the_observer():
    """A reader that sees half as much leaves everything that happens as it is: seeds keep their meaning."""
    one, other = Simulation(5, 3, on_broken=lambda _: None), Simulation(5, 3, on_broken=lambda _: None)
    other.cluster_settings["interval_seconds"] = 20.0
    one.run()
    other.run()

    assert list(one.events) == list(other.events)
    assert len(one.events) > 50
