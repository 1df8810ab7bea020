"""One cluster of three brokers for all tests of a module: starting it costs more than most of what is done to it."""

from __future__ import annotations

import pytest_asyncio
from three_brokers import ThreeBrokers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster():
    async with ThreeBrokers(interval_seconds=0.5, timeout_seconds=2.0) as three:
        yield three


@pytest_asyncio.fixture(loop_scope="module")
async def three(cluster):
    """The cluster at rest: every broker there and everything known."""
    await cluster.at_rest()
    return cluster
