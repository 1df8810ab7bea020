"""One broker of three fails in the middle of a cycle: what is known is right, and nothing is missing once it can be.

Every cycle of these tests is compared with what the loads counted before and after it (``three_brokers.faults_of``):
each known number was true at some moment of the cycle, a sum is known only with all its parts, every group keeps its
positions, nothing was read before the cycle began, ``up`` means that everything is known. The tests add where within
the cycle a fault falls, what must be unknown then and what may not, and that two cycles are enough afterwards.
"""

from __future__ import annotations

import functools

import pytest
from three_brokers import LIST_OFFSETS, OFFSET_FETCH

from monitor.model import TopicPartition
from monitor.observe.kafka.cluster import OFFSETS_TOPIC
from monitor.observe.kafka.takeover import offsets_partition

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def brokers_named(cycle) -> set[int]:
    """Return the brokers that a cycle's failures are about."""
    return {int(failure["name"].split()[0]) for failure in cycle.cluster["failures"] if failure["scope"] == "broker"}


async def test_a_group_is_coordinated_by_who_leads_its_partition(three):
    """The partition of __consumer_offsets that its name is hashed into: whoever is asked about that knows the group."""
    standing = await three.standing()
    partitions = sum(where.topic == OFFSETS_TOPIC for where in standing.leaders)
    expected = {
        group: standing.leaders[TopicPartition(OFFSETS_TOPIC, offsets_partition(group, partitions))]
        for group in standing.coordinators
    }

    assert 3 == len(set(expected.values()))
    assert expected == standing.coordinators


async def test_a_leader_and_coordinator_is_killed_before_its_commits_are_read(three):
    """Its groups and partitions are unknown, no others are; all known while it is still dead, and when it is back."""
    victim = await three.one_that_does_both()
    touched = three.touched(await three.standing(), victim)
    strike = {"api": OFFSET_FETCH, "nth": 1, "when": "before", "port": three.proxies[victim].port}
    cycle = await three.cycle(strike, functools.partial(three.kill, victim))

    assert cycle.struck
    assert {victim} == brokers_named(cycle), three.incomplete(cycle)
    still = touched & three.touched(await three.standing(), victim)
    assert still <= cycle.unknown <= touched
    assert 0 < len(cycle.unknown) < len(cycle.lags), "two of three brokers still answer"
    await three.complete()  # the others took over
    await three.bring_back(victim)
    await three.complete()


async def test_the_controller_freezes_between_two_answers(three):
    """It leads and coordinates as well: what it had not answered is unknown, until the others have taken over."""
    victim = await three.controller()
    touched = three.touched(await three.standing(), victim)
    strike = {"api": OFFSET_FETCH, "nth": 1, "when": "after", "port": three.proxies[victim].port}
    cycle = await three.cycle(strike, functools.partial(three.freeze, victim))

    assert cycle.struck
    assert {victim} == brokers_named(cycle), three.incomplete(cycle)
    standing = await three.standing()
    led = {(group, where) for group, where in touched if standing.leaders[where] == victim}
    assert led <= cycle.unknown <= touched
    assert 0 < len(cycle.unknown) < len(cycle.lags)
    await three.complete()  # the others took over
    assert victim != await three.controller()
    await three.bring_back(victim)
    await three.complete()


@pytest.mark.parametrize("way", ["cut", "silence"])
async def test_the_network_to_one_broker_fails(three, way):
    """Brokers and loads talk on, nobody takes over: exactly what that broker leads or coordinates stays unknown."""
    victim = await three.one_that_does_both()
    standing = await three.standing()
    touched = three.touched(standing, victim)
    led = {(group, where) for group, where in three.positions if standing.leaders[where] == victim}
    strike = {"api": LIST_OFFSETS, "nth": 1, "when": "before", "port": three.proxies[victim].port}
    struck = await three.cycle(strike, functools.partial(getattr(three, way), victim))
    whole = await three.cycle()
    await three.mend(victim)
    after = await three.complete()

    assert struck.struck
    assert led == struck.unknown, f"its commits were read before; {three.incomplete(struck)}"
    assert touched == whole.unknown, three.incomplete(whole)
    assert [{victim}, {victim}] == [brokers_named(struck), brokers_named(whole)], three.incomplete(struck)
    assert len(after) <= 2


async def test_the_network_to_one_broker_is_slow(three):
    """An answer that takes a while is an answer: everything is known."""
    victim = await three.one_that_does_both()
    strike = {"api": OFFSET_FETCH, "nth": 1, "when": "before", "port": None}
    struck = await three.cycle(strike, functools.partial(three.slow, victim))
    whole = await three.cycle()

    assert struck.struck
    assert [True, True] == [struck.is_complete, whole.is_complete]


async def test_everything_moves_off_a_broker_under_load(three):
    """Leaders and coordinators move by reassignment in the middle of a cycle, and no cycle says a wrong number."""
    victim = await three.one_that_does_both()
    moving = set()

    async def fault() -> None:
        moving.update(await three.empty(victim))

    cycle = await three.cycle({"api": OFFSET_FETCH, "nth": 1, "when": "after", "port": None}, fault)
    await three.cycles_until(lambda: three.has_left(victim, moving))
    await three.complete()

    assert cycle.struck
    assert {"__consumer_offsets", "live"} < {where.topic for where in moving}
    assert victim not in (await three.standing()).coordinators.values()
