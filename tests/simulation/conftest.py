"""Which simulations are run: the usual seeds, or the one that is to be seen again (--seed and --minutes)."""

import pytest

SEEDS = range(1, 21)
MINUTES = 6.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="the simulation to see again")
    parser.addoption("--minutes", type=float, default=MINUTES, help="how long, in virtual minutes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"seed", "minutes"} <= set(metafunc.fixturenames):
        # Without a path to this folder on the command line, the options are not there.
        seed = metafunc.config.getoption("--seed", None)
        minutes = metafunc.config.getoption("--minutes", MINUTES)
        seeds = SEEDS if seed is None else [seed]
        metafunc.parametrize(("seed", "minutes"), [(each, minutes) for each in seeds], ids=map(str, seeds))
