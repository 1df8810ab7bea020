"""A thousand seeds, and whole hours: for the failures that come seldom."""

import pytest
from simulated_run import simulate

pytestmark = pytest.mark.soak

HUNDREDS = range(1000, 2000, 100)


@pytest.mark.parametrize("first", HUNDREDS)
def test_a_hundred_seeds_hold(first):
    """Ten minutes each."""
    for seed in range(first, first + 100):
        simulate(seed, 10)


@pytest.mark.parametrize("seed", range(3000, 3010))
def test_hours_hold(seed):
    """Six hours each: what grows slowly is seen."""
    outcome = simulate(seed, 360)

    assert outcome.cycles > 1700
