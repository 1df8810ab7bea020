"""A thousand cycles with faults in the middle, drawn from one seed: every number stays true, and nothing grows.

    make soak ARGS="tests/chaos"                          a new seed, which is printed
    CHAOS_SEED=7 CHAOS_CYCLES=200 make soak ARGS=tests/chaos

An episode is a fault, or two at once, at one moment of a cycle; some cycles with it; its end; and cycles until
everything is known, which may take two once another client reads everything. The monitor is a process of its own,
measured every fifty cycles while everything is known.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from three_brokers import LIST_GROUPS, LIST_OFFSETS, METADATA, OFFSET_FETCH, ThreeBrokers

pytestmark = [pytest.mark.soak, pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

CYCLES = int(os.environ.get("CHAOS_CYCLES", "1000"))
MEASURED_EVERY = 50
WARM_UP_CYCLES = 100
"""By then the readings that place arrivals (48) and those of the rates (60 s) are full."""

APIS = (LIST_GROUPS, OFFSET_FETCH, LIST_OFFSETS, METADATA)
"""Requests that a fault falls on, as far as the cycle before sent some; Metadata is sent by some cycles only."""

ROLES = ("leader", "coordinator", "controller")

HELD = {"tasks": 2, "sockets": 2, "files": 2, "positions": 0, "partitions": 0}
"""What each may be beyond its value before the first fault, at any time: one connection that is being replaced."""

GROWN = {"rss_kb": 6 * 1024, "objects": 1000, "threads": 0}
"""What each may be beyond its value after the warm-up; a thousand cycles were seen to add 2 MB and no object."""


@dataclass(frozen=True)
class Fault:
    """What is done to a broker, and how it is undone; ``moves`` says that its duties go to others meanwhile."""

    strike: Callable[[ThreeBrokers, int], Awaitable[object]]
    undo: Callable[[ThreeBrokers, int], Awaitable[None]]
    weight: int


async def _moved(three: ThreeBrokers, node: int) -> None:
    """Nothing to undo: moved is moved."""


FAULTS = {
    "kill": Fault(ThreeBrokers.kill, ThreeBrokers.bring_back, 2),
    "shut down": Fault(ThreeBrokers.shut_down, ThreeBrokers.bring_back, 1),
    "freeze": Fault(ThreeBrokers.freeze, ThreeBrokers.bring_back, 3),
    "cut": Fault(ThreeBrokers.cut, ThreeBrokers.mend, 3),
    "silence": Fault(ThreeBrokers.silence, ThreeBrokers.mend, 3),
    "slow": Fault(ThreeBrokers.slow, ThreeBrokers.mend, 2),
    "reassign": Fault(ThreeBrokers.empty, _moved, 3),
}
NETWORK = ("cut", "silence", "slow")


@dataclass
class Tally:
    """What happened, to be printed."""

    faults: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    cycles: Counter[str] = field(default_factory=Counter)
    to_complete: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    requests: dict[int, int] = field(default_factory=dict)
    """How many requests of each API the last cycle sent."""

    def note(self, cycle) -> None:
        kind = "complete" if cycle.is_complete else "with unknown" if cycle.unknown else "complete, not up"
        self.cycles[kind] += 1
        self.seconds.append(cycle.seconds)
        self.requests = {int(api): count for api, count in cycle.requests.items() if int(api) in APIS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three():
    async with ThreeBrokers(interval_seconds=0.5, timeout_seconds=1.5) as brokers:
        yield brokers


async def victim_of(three: ThreeBrokers, role: str, chance: random.Random) -> int:
    """Return a broker with a role, as another client knows it right now."""
    if role == "controller":
        return await three.controller()
    standing = await three.standing()
    duties = standing.leaders if role == "leader" else standing.coordinators
    return chance.choice(sorted(set(duties.values()) & three.live()))


async def episode(three: ThreeBrokers, chance: random.Random, tally: Tally) -> None:
    """Strike in the middle of a cycle, go on for some, undo it, and wait until everything is known."""
    name = chance.choices(list(FAULTS), [fault.weight for fault in FAULTS.values()])[0]
    role = chance.choice(ROLES)
    victim = await victim_of(three, role, chance)
    fault = FAULTS[name]
    tally.faults[f"{name} of {role}"] += 1
    await strike(three, chance, tally, fault.strike, victim)
    for _ in range(chance.randint(0, 3)):
        tally.note(await three.cycle())
    if name in {"kill", "freeze"} and chance.random() < 0.5:  # the others take over first
        await complete(three, tally)

    back = asyncio.create_task(fault.undo(three, victim))
    while not back.done():
        if name in NETWORK or chance.random() < 0.5:
            tally.note(await three.cycle())
        else:  # and the network to another broker at the same time
            await network_fails(three, chance, tally, chance.choice(sorted({1, 2, 3} - {victim})))
    await back
    await complete(three, tally)


async def network_fails(three: ThreeBrokers, chance: random.Random, tally: Tally, victim: int) -> None:
    """Strike in the middle of one cycle, mend in the middle of the next."""
    name = chance.choice(NETWORK)
    tally.faults[f"{name} beside another fault"] += 1
    await strike(three, chance, tally, FAULTS[name].strike, victim)
    await strike(three, chance, tally, ThreeBrokers.mend, victim)


async def strike(
    three: ThreeBrokers,
    chance: random.Random,
    tally: Tally,
    act: Callable[[ThreeBrokers, int], Awaitable[object]],
    victim: int,
) -> None:
    """Run a cycle and act on a broker in the middle of it: before or after one of its requests."""
    sent = tally.requests or dict.fromkeys(APIS, 1)
    api = chance.choice(sorted(sent))
    nth, when = chance.randint(1, sent[api]), chance.choice(["before", "after"])
    moment = {"api": api, "nth": nth, "when": when, "port": None}
    cycle = await three.cycle(moment, functools.partial(act, three, victim))
    tally.note(cycle)
    tally.struck["in mid-cycle" if cycle.struck else "between two cycles"] += 1
    if not cycle.struck:  # it had no such request
        await act(three, victim)


async def complete(three: ThreeBrokers, tally: Tally) -> None:
    cycles = await three.complete()
    for cycle in cycles:
        tally.note(cycle)
    tally.to_complete[len(cycles)] += 1


async def test_a_thousand_cycles_with_faults_neither_lie_nor_grow(three):
    """Tasks, connections and rows stay what they were before the first fault, memory what the warm-up made it."""
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
    print(f"seed {seed}, {CYCLES} cycles", flush=True)
    chance, tally, measured, began = random.Random(seed), Tally(), {}, time.monotonic()
    await three.at_rest()
    calm = (await three.cycle(measure=True)).measured
    print(f"before the first fault: {calm}", flush=True)
    while three.cycles < CYCLES:
        await episode(three, chance, tally)
        if three.cycles // MEASURED_EVERY > max(measured, default=0) // MEASURED_EVERY:
            cycle = await three.cycle(measure=True)
            assert cycle.is_complete, cycle.cluster["failures"]
            measured[cycle.number] = dict(cycle.measured)
            print(f"{time.monotonic() - began:6.0f} s, cycle {cycle.number}: {measured[cycle.number]}", flush=True)

    seconds = sorted(tally.seconds)
    print(f"faults: {dict(tally.faults.most_common())}")
    print(f"struck {dict(tally.struck)}; cycles: {dict(tally.cycles)}")
    print(f"cycles to complete: {dict(sorted(tally.to_complete.items()))}; members replaced: {three.member.replaced}")
    print(f"a cycle: median {seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s", flush=True)

    warm, *later = [what for number, what in measured.items() if number >= WARM_UP_CYCLES]
    assert later, "too few cycles to compare"
    assert [] == [said for what in measured.values() for said in above(calm, what, HELD)]
    assert [] == [said for what in later for said in above(warm, what, GROWN)]


def above(before: Mapping[str, int], after: Mapping[str, int], allowed: Mapping[str, int]) -> list[str]:
    """Return what is more than it was, by more than is allowed."""
    return [
        f"{name}: {before[name]} and then {after[name]}"
        for name, more in allowed.items()
        if after[name] > before[name] + more
    ]
