"""One simulation: a seed in, a verdict out. The whole monitor in process, from its requests to its exposition.

    seed -> story -> fake cluster <- transport <- KafkaSource <- ClusterMonitor.watch -> publish -> invariants

The real ``watch`` runs its cycles under virtual time. After each cycle the report is rendered and held against the
truth; what is wrong ends the simulation with everything that it takes to see it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from simulated_invariants import Cycle, Memory, check
from simulated_scenario import PLAYED_RELEASES, Scenario
from simulated_time import Timeline, VirtualLoop, WallClock, run_virtually
from simulated_transport import SimulatedTransport
from simulated_world import Event, World

from monitor.model import ClusterReport, Found, KafkaSnapshot, Lookups, Report
from monitor.observe.kafka.source import KafkaSource
from monitor.publish.exposition import Exposition
from monitor.publish.report_json import dump, report_json
from monitor.sandbox.fake import FakeCluster
from monitor.service import STEADY, ClusterMonitor, KafkaReader
from monitor.settings import Cluster, Metrics, Settings

FORGET_SECONDS = 600.0
SHOWN_EVENTS = 30
OFFSETS_PARTITIONS = 500

OWN_METRICS = ("python_", "process_", "streamgauge_exposed_series")
"""What the exposition says about the process, and not about the cluster."""


class BrokenInvariantError(AssertionError):
    """Something that has to hold does not: the text says what, where, and how to see it again."""

    def __init__(self, text: str, invariants: frozenset[str]) -> None:
        super().__init__(text)
        self.invariants = invariants


@dataclass(slots=True)
class Outcome:
    """What a simulation that held says of itself."""

    seed: int
    cycles: int
    requests: int
    events: int
    unknown: int
    """Positions that were unknown, over all cycles."""
    known: int
    longest_cycle: float
    wire: str
    """Digest of every request and answer, with their times."""
    reports: str
    """Digest of every report and exposition."""
    broken: Counter[str] = field(default_factory=Counter)


class _Watched:
    """The reader under test, and when it was asked."""

    def __init__(self, reader: KafkaReader, loop: VirtualLoop) -> None:
        self._reader = reader
        self._loop = loop
        self._is_reading = False
        self.began = 0.0

    async def observe(self) -> KafkaSnapshot:
        assert not self._is_reading, "two cycles at once"
        self._is_reading = True
        self.began = self._loop.time()
        try:
            return await self._reader.observe()
        finally:
            self._is_reading = False

    async def look_up(self, wanted: Lookups) -> Found:
        return await self._reader.look_up(wanted)

    async def check(self) -> None:
        await self._reader.check()

    async def close(self) -> None:
        await self._reader.close()


class Simulation:
    """A cluster, a monitor and a story.

    Args:
        seed: Everything random comes from it.
        minutes: How long, in virtual minutes.
        wrap: Puts something around the reader: how broken builds are made.
        on_broken: Called with what is broken in place of raising it, and the simulation goes on.
    """

    def __init__(
        self,
        seed: int,
        minutes: float,
        *,
        wrap: Callable[[KafkaReader], KafkaReader] = lambda reader: reader,
        on_broken: Callable[[BrokenInvariantError], None] | None = None,
    ) -> None:
        self.seed = seed
        self.cluster_settings = {"metadata_interval_seconds": 30.0, "describe_interval_seconds": 30.0}
        self._minutes = minutes
        self._wrap = wrap
        self._on_broken = on_broken
        self._cycles = 0
        self._known = self._unknown = 0
        self._longest = 0.0
        self._broken: Counter[str] = Counter()
        self._reports = hashlib.blake2b()
        self._errors: list[str] = []

    def run(self) -> Outcome:
        """Run it.

        Raises:
            BrokenInvariantError: An invariant does not hold.
        """
        before = structlog.get_config()
        structlog.configure(processors=[self._log])
        try:
            return run_virtually(self._main)
        finally:
            structlog.configure(**before)

    @property
    def events(self) -> Sequence[Event]:
        """Return the last of what happened."""
        return self._world.events

    def _log(self, _logger: object, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if event.get("exc_info"):
            self._errors.append("".join(traceback.format_exception(*sys.exc_info())))
        del level
        raise structlog.DropEvent

    async def _main(self, loop: VirtualLoop) -> Outcome:
        seeds = random.Random(self.seed)
        story, network = random.Random(seeds.getrandbits(64)), random.Random(seeds.getrandbits(64))
        release = story.choice(PLAYED_RELEASES)
        fake = FakeCluster(story.randint(3, 5), release=release, clock=loop.time)
        if self.seed % 3:
            # In the other seeds it may not be seen.
            fake.show_offsets(OFFSETS_PARTITIONS)
        self._loop = loop
        self._transport = SimulatedTransport(fake, network)
        self._clock = WallClock(loop)
        self._world = World(fake, self._transport, loop.time)
        self._offsets: Timeline[float] = self._clock.offsets
        self._cluster = Cluster(
            name="simulated",
            bootstrap_servers=",".join(f"{each.host}:{each.port}" for each in list(fake.brokers.values())[:2]),
            **self.cluster_settings,
        )
        scenario = Scenario(self._world, self._clock, story, release)
        scenario.begin()
        self._source = KafkaSource(self._cluster, transport=self._transport, clock=self._clock)
        self._watched = _Watched(self._wrap(self._source), loop)
        settings = Settings(clusters=(self._cluster,))
        self._monitor = ClusterMonitor(self._cluster, settings, STEADY, self._watched, None)
        self._exposition = Exposition(Metrics())
        self._memory = Memory()
        await self._run_for(self._minutes * 60, scenario)
        await self._watched.close()
        if self._transport.open_connections:
            self._fail(
                {"nothing_is_left_over": [f"{self._transport.open_connections} connections outlive the monitor"]}
            )
        return Outcome(
            self.seed,
            self._cycles,
            self._transport.requests,
            len(self._world.events),
            self._unknown,
            self._known,
            self._longest,
            self._transport.digest,
            self._reports.hexdigest(),
            self._broken,
        )

    async def _run_for(self, seconds: float, scenario: Scenario) -> None:
        story = asyncio.create_task(scenario.run())
        watching = asyncio.create_task(self._monitor.watch(self._publish))
        self._ours = {story, watching, asyncio.current_task()}
        end = asyncio.create_task(asyncio.sleep(seconds))
        self._ours.add(end)
        done, _ = await asyncio.wait({story, watching, end}, return_when=asyncio.FIRST_COMPLETED)
        for task in (story, watching, end):
            task.cancel()
        await asyncio.gather(story, watching, end, return_exceptions=True)
        for task in sorted(done, key=hash):
            task.result()

    async def _publish(self) -> None:
        self._cycles += 1
        report = self._monitor.report
        if report is None or self._loop.unhandled:
            errors = [*self._errors, *map(str, self._loop.unhandled)]
            self._fail({"no_cycle_fails": errors or ["the cycle raised"]})
            return
        text = self._render(report)
        cycle = Cycle(
            number=self._cycles,
            began=self._watched.began,
            ended=self._loop.time(),
            report=report,
            text=text,
            world=self._world,
            cluster=self._cluster,
            offsets=self._offsets,
            memory=self._memory,
            roots=(self._monitor, self._source, self._exposition),
            tasks=frozenset(asyncio.all_tasks(self._loop) - self._ours),
        )
        self._longest = max(self._longest, cycle.ended - cycle.began)
        unknown = sum(row.lag < 0 for row in cycle.rows)
        self._unknown += unknown
        self._known += len(cycle.rows) - unknown
        wrong = check(cycle)
        if wrong:
            self._fail(wrong)
        self._world.forget(cycle.began - FORGET_SECONDS)

    def _render(self, report: ClusterReport) -> str:
        whole = Report(report.at, (report,))
        text = self._exposition.render(whole).plain.decode()
        about_cluster = "\n".join(line for line in text.splitlines() if not line.startswith(OWN_METRICS))
        said = report_json(whole)
        for each in said["clusters"]:
            # Known: groups that are not believed yet come from a set (monitor/observe/kafka/commits.py: doubtful).
            each["failures"].sort(key=dump)
        self._reports.update(dump(said).encode())
        self._reports.update(about_cluster.encode())
        return about_cluster

    def _fail(self, wrong: dict[str, list[str]]) -> None:
        self._broken.update(wrong.keys())
        error = BrokenInvariantError(self._text(wrong), frozenset(wrong))
        if self._on_broken is None:
            raise error
        self._on_broken(error)

    def _text(self, wrong: dict[str, list[str]]) -> str:
        began, ended = self._watched.began, self._loop.time()
        events = list(self._world.events)[-SHOWN_EVENTS:]
        found = [f"  {name}:" + "".join(f"\n    {each}" for each in texts[:6]) for name, texts in wrong.items()]
        return "\n".join([
            f"seed {self.seed}, cycle {self._cycles} ({began:.3f} s to {ended:.3f} s):",
            *found,
            "what happened before:",
            *(f"  {event.at:9.3f} {event.text}" for event in events),
            "to see it again:",
            f"  {replay_command(self.seed, self._minutes)}",
        ])  # fmt: skip


def replay_command(seed: int, minutes: float) -> str:
    """Return the command line that runs one simulation again."""
    return f"pytest tests/simulation -k every_cycle --seed {seed} --minutes {minutes:g}"


def simulate(seed: int, minutes: float) -> Outcome:
    """Run one simulation; see Simulation."""
    return Simulation(seed, minutes).run()


def main(arguments: list[str]) -> None:
    """Run seeds from the command line: FIRST LAST MINUTES; say what is broken and how often, and go on."""
    first, last, minutes = int(arguments[0]), int(arguments[1]), float(arguments[2])
    for seed in range(first, last + 1):
        shown: set[str] = set()

        def show(error: BrokenInvariantError, shown: set[str] = shown) -> None:
            if not error.invariants <= shown:
                print(error)
            shown |= error.invariants

        outcome = Simulation(seed, minutes, on_broken=show).run()
        print(
            json.dumps(
                {
                    name: getattr(outcome, name)
                    for name in ("seed", "cycles", "requests", "known", "unknown", "longest_cycle", "broken")
                }
            )
        )


if __name__ == "__main__":
    main(sys.argv[1:])
