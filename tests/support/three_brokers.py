"""Three real brokers behind proxies, loads on them, and the monitor in a process of its own that sees only proxies.

Brokers, loads and the witness talk directly. Truth is what ``populate`` committed, what the loads count, and what the
witness, another client, is told by the brokers; nothing of it comes from the monitor's decoders.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
from tcp_proxy import Proxy
from witness import NotToldError, Standing, Witness

from monitor.errors import SandboxError
from monitor.model import TopicPartition
from monitor.sandbox.kafka import OUTSIDE, KafkaSandbox
from monitor.sandbox.loads import Consumer, Producer, commit_only, create_topics
from monitor.sandbox.populate import Shape, Truth, populate

CHILD = Path(__file__).with_name("monitor_child.py")

SHAPE = Shape(topics=6, partitions=6, groups=30, positions=12)
LIVE, LIVE_PARTITIONS = "live", 6
MOVER, MEMBER = "mover", "member"
RESTING = 6
"""Groups at the end of logs that do not move: the monitor reads these less often, unless a broker is in trouble."""

PROPERTIES = {
    # A dead or frozen broker loses its partitions after this long.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Otherwise a broker that had asked a frozen controller may wait half a minute before it turns to the next one.
    "controller.socket.timeout.ms": "2000",
    "offsets.topic.num.partitions": "12",
}

RECORDS_PER_SECOND = 40.0
COMMIT_EVERY_SECONDS = 0.2

ANSWER_SECONDS = 60.0
"""How long the monitor may take for one cycle or scrape before it counts as hung."""

PATIENCE_SECONDS = 120.0
"""How long brokers may take until another client reads everything again after a fault."""

LIST_GROUPS, OFFSET_FETCH, LIST_OFFSETS, METADATA = 16, 9, 2, 3

MILLISECOND = 0.001

ROUNDED_SECONDS = 2 * MILLISECOND
"""Times in the report are cut to milliseconds."""


@dataclass(frozen=True)
class Bounds:
    """The least and the most that each number may be at one moment: what was acknowledged, what was asked for."""

    ends: Mapping[TopicPartition, tuple[int, int]]
    committed: Mapping[str, Mapping[TopicPartition, tuple[int, int]]]


@dataclass(frozen=True)
class Cycle:
    """What one cycle of the monitor published, and what was true before and after it."""

    number: int
    began: float
    seconds: float
    struck: bool
    report: Mapping[str, Any]
    metrics: str
    before: Bounds
    after: Bounds
    requests: Mapping[str, int]
    measured: Mapping[str, int] | None

    @property
    def cluster(self) -> Mapping[str, Any]:
        (cluster,) = self.report["clusters"]
        return cluster

    @property
    def lags(self) -> dict[tuple[str, TopicPartition], int | None]:
        """Return the lag of every position, None where unknown."""
        return {
            (consumer["name"], TopicPartition(part["topic"], part["partition"])): part["lag_records"]
            for consumer in self.cluster["consumers"]
            for part in consumer["partitions"]
        }

    @property
    def unknown(self) -> set[tuple[str, TopicPartition]]:
        """Return the positions whose lag is unknown."""
        return {where for where, lag in self.lags.items() if lag is None}

    @property
    def is_complete(self) -> bool:
        """Return whether everything is known and the monitor says so."""
        return bool(self.cluster["up"]) and not self.unknown


@dataclass
class Mover:
    """Commits ever higher offsets for a group without members, one commit after the other.

    A commit without an acknowledgement may count or not, so the same one is sent until it is acknowledged.
    """

    witness: Witness
    producer: Producer
    live: Callable[[], Collection[int]]
    acknowledged: dict[TopicPartition, int] = field(default_factory=dict)
    attempted: dict[TopicPartition, int] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            self.attempted = {
                where: max(self.attempted.get(where, 0), self.producer.sent[where.partition] * 3 // 4)
                for where in (TopicPartition(LIVE, number) for number in range(LIVE_PARTITIONS))
            }
            while not await self._commit():
                await asyncio.sleep(COMMIT_EVERY_SECONDS)
            self.acknowledged = dict(self.attempted)
            await asyncio.sleep(COMMIT_EVERY_SECONDS)

    async def _commit(self) -> bool:
        try:
            await self.witness.commit(MOVER, self.attempted, self.live())
        except NotToldError:
            return False
        return True


@dataclass
class Member:
    """A real member of a group. One that gave up in an outage is replaced, as people restart theirs."""

    bootstrap: str
    acknowledged: dict[TopicPartition, int] = field(default_factory=dict)
    replaced: int = 0
    consumer: Consumer = field(init=False)

    def __post_init__(self) -> None:
        self.consumer = self._new()

    def _new(self) -> Consumer:
        return Consumer(self.bootstrap, MEMBER, LIVE, speed=RECORDS_PER_SECOND * 3 / 4, session_timeout_seconds=6.0)

    async def run(self) -> None:
        await self.consumer.start()
        while True:
            if self.consumer.error is not None:
                await self.consumer.kill()
                self.replaced += 1
                self.consumer = self._new()
                while not await self._started():
                    await asyncio.sleep(1.0)
            await asyncio.sleep(COMMIT_EVERY_SECONDS)

    async def _started(self) -> bool:
        try:
            await self.consumer.start()
        except SandboxError:
            return False
        return True

    def note(self) -> dict[TopicPartition, int]:
        """Return the highest offset of each partition that was acknowledged so far."""
        known, committed = self.acknowledged, self.consumer.committed
        if any(offset > known.get(where, 0) for where, offset in committed.items()):
            self.acknowledged = {**known, **{where: max(at, known.get(where, 0)) for where, at in committed.items()}}
        return self.acknowledged


class MonitorProcess:
    """The monitor's process: see ``monitor_child``."""

    def __init__(self, settings: Mapping[str, Any], log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._address = ""
        self._http: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        with self._log.open("w") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(CHILD), json.dumps(self._settings)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._address = (await self._heard())["address"]
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))

    async def stop(self) -> None:
        assert self._process is not None
        if self._http is not None:
            await self._http.close()
        self._process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                assert 0 == await self._process.wait(), self._log.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def cycle(
        self, strike: Mapping[str, Any] | None, struck: Callable[[], Awaitable[None]], *, measure: bool
    ) -> dict[str, Any]:
        """Run a cycle; ``struck`` is awaited where it stops, and it goes on afterwards."""
        await self._say({"strike": strike, "measure": measure})
        answer = await self._heard()
        was_struck = "struck" in answer
        if was_struck:
            await struck()
            await self._say({})
            answer = await self._heard()
        return answer | {"struck": was_struck}

    async def scrape(self, path: str) -> str:
        async with self._http.get(self._address + path) as answer:
            text = await answer.text()
            assert 200 == answer.status, text
            return text

    async def _say(self, what: Mapping[str, Any]) -> None:
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        await self._process.stdin.drain()

    async def _heard(self) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        assert line, f"the monitor ended: {self._log.read_text()}"
        return json.loads(line)


class ThreeBrokers:
    """All of it, inside ``async with``; every cycle is checked as it is made."""

    def __init__(self, *, interval_seconds: float, timeout_seconds: float, heap_mb: int = 384) -> None:
        self.proxies = {node: Proxy() for node in (1, 2, 3)}
        self.away: set[int] = set()
        """Brokers that were killed, frozen or told to stop, and are not back yet."""
        self.blocked: set[int] = set()
        """Brokers that cannot answer the monitor: killed, frozen, or behind a proxy that is cut or silent."""
        self.cycles = 0
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._heap_mb = heap_mb
        self._began, self._started = 0.0, time.monotonic()
        self.trail: deque[str] = deque(maxlen=12)
        """The last things that happened, for whoever has to understand a failure."""
        self._stopping: dict[int, asyncio.Task[None]] = {}
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamgauge-chaos-")))
        for proxy in self.proxies.values():
            await proxy.start()
            stack.push_async_callback(proxy.stop)
        addresses = [proxy.address for proxy in self.proxies.values()]
        self.sandbox = KafkaSandbox(nodes=3, outside=addresses, properties=PROPERTIES, heap_mb=self._heap_mb)
        await stack.enter_async_context(self.sandbox)
        for node, proxy in self.proxies.items():
            host, _, port = self.node(node).addresses[OUTSIDE].rpartition(":")
            proxy.target = (host, int(port))
        self.witness = Witness({node.id: node.address for node in self.sandbox.nodes})

        bootstrap = self.sandbox.bootstrap
        # Two replicas: a partition has somewhere to go, by a kill as by a reassignment.
        self.truth: Truth = await populate(bootstrap, SHAPE, replicas=2)
        topics = sorted({where.topic for where in self.truth.ends})
        resting = {
            f"resting-{number}": {where: end for where, end in self.truth.ends.items() if where.topic == topics[number]}
            for number in range(RESTING)
        }
        await commit_only(bootstrap, resting)
        self.truth.committed.update(resting)
        await create_topics(bootstrap, {LIVE: LIVE_PARTITIONS}, replicas=3)
        self.producer = Producer(bootstrap, LIVE, RECORDS_PER_SECOND, LIVE_PARTITIONS)
        await self.producer.start()
        self.mover = Mover(self.witness, self.producer, self.live)
        self.member = Member(bootstrap)
        self._tasks = [asyncio.create_task(self.mover.run()), asyncio.create_task(self.member.run())]
        stack.push_async_callback(self._stop_loads)
        await self._until(self._loads_are_known, "the loads did not commit on every partition")

        settings = {
            "clusters": [{
                "bootstrap_servers": ",".join(addresses),
                "interval_seconds": self._interval_seconds,
                "timeout_seconds": self._timeout_seconds,
                # Often, so that faults strike there too.
                "metadata_interval_seconds": 4.0,
                "describe_interval_seconds": 4.0,
            }],
            "http": {"port": 0},
        }  # fmt: skip
        self.monitor = MonitorProcess(settings, folder / "monitor.log")
        await self.monitor.start()
        stack.push_async_callback(self.monitor.stop)

    async def _stop_loads(self) -> None:
        for task in self._tasks:
            task.cancel()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.member.consumer.kill()
        with contextlib.suppress(SandboxError):  # judged by ``bounds`` in every cycle
            await self.producer.stop()
        for each in done:
            if isinstance(each, Exception):
                raise each

    # --- who is who -------------------------------------------------------------------------------

    def node(self, number: int) -> Any:
        """Return a node of the sandbox."""
        return self.sandbox.nodes[number - 1]

    def live(self) -> set[int]:
        """Return the brokers that nothing was done to."""
        return {1, 2, 3} - self.away

    @property
    def groups(self) -> list[str]:
        """Return every group there is."""
        return [*self.truth.committed, MOVER, MEMBER]

    async def standing(self) -> Standing:
        """Return who leads and coordinates what, once a broker tells."""
        found: list[Standing] = []

        async def ask() -> bool:
            with contextlib.suppress(NotToldError):
                found.append(await self.witness.standing(self.groups, self.live()))
            return bool(found)

        await self._until(ask, "no broker tells who leads and coordinates")
        return found[0]

    async def controller(self) -> int:
        """Return who leads the controllers, once a broker tells."""
        found: list[int] = []

        async def ask() -> bool:
            with contextlib.suppress(NotToldError):
                found.append(await self.witness.controller(self.live()))
            return bool(found)

        await self._until(ask, "no broker tells who leads the controllers")
        return found[0]

    def touched(self, standing: Standing, node: int) -> set[tuple[str, TopicPartition]]:
        """Return the positions that cannot be read without a broker, which leads the partition or has the group."""
        return {
            (group, where)
            for group, bounds in self.bounds().committed.items()
            for where in bounds
            if node in {standing.leaders[where], standing.coordinators[group]}
        }

    async def one_that_does_both(self) -> int:
        """Return a broker that leads partitions and coordinates groups, others of each being led and coordinated."""
        standing = await self.standing()
        return next(n for n in standing.coordinators.values() if self.touched(standing, n) != set(self.positions))

    @property
    def positions(self) -> list[tuple[str, TopicPartition]]:
        """Return every position there is."""
        return [(group, where) for group, bounds in self.bounds().committed.items() for where in bounds]

    # --- faults -----------------------------------------------------------------------------------

    async def kill(self, node: int) -> None:
        """End a broker as kill -9 does."""
        self._note(f"kill {node}")
        self._take_away(node)
        self.node(node).kill()

    async def freeze(self, node: int) -> None:
        """Stop a broker where it is (SIGSTOP)."""
        self._note(f"freeze {node}")
        self._take_away(node)
        self.node(node).pause()

    async def shut_down(self, node: int) -> None:
        """Tell a broker to end in order, and do not wait: it hands over what it leads before it goes."""
        self._note(f"shut down {node}")
        self.away.add(node)
        self._stopping[node] = asyncio.create_task(self.node(node).stop())

    async def bring_back(self, node: int) -> None:
        """Thaw a broker or start it again, and return when it answers."""
        self._note(f"bring back {node}")
        self.blocked.discard(node)
        if node in self._stopping:
            await self._stopping.pop(node)
        self.node(node).resume()
        await self.node(node).start()
        self.away.discard(node)

    def _take_away(self, node: int) -> None:
        self.away.add(node)
        self.blocked.add(node)

    async def cut(self, node: int) -> None:
        """Reset every connection of the monitor to a broker."""
        self._note(f"cut {node}")
        self.proxies[node].cut()
        self.blocked.add(node)

    async def silence(self, node: int) -> None:
        """Let nothing pass between the monitor and a broker."""
        self._note(f"silence {node}")
        self.proxies[node].silence()
        self.blocked.add(node)

    async def slow(self, node: int) -> None:
        """Let everything between the monitor and a broker take longer, well within its timeout."""
        self._note(f"slow {node}")
        self.proxies[node].slow(0.1)

    async def mend(self, node: int) -> None:
        """Let the monitor reach a broker again."""
        self._note(f"mend {node}")
        self.proxies[node].open()
        if node not in self.away:
            self.blocked.discard(node)

    async def empty(self, node: int) -> set[TopicPartition]:
        """Have everything that a broker leads or coordinates move to the two others; return what moves."""
        self._note(f"empty {node}")
        standing = await self.standing()
        to = [other for other in (1, 2, 3) if other != node]
        moving = {}
        for number, (where, leader) in enumerate(sorted(standing.leaders.items())):
            if leader == node:
                moving[where] = (to[number % 2], to[1 - number % 2])
        await self.witness.move(moving, self.live())
        return set(moving)

    async def has_left(self, node: int, places: Collection[TopicPartition]) -> bool:
        """Return whether a broker has given up its replicas of partitions."""
        standing = await self.standing()
        return all(node not in standing.replicas[where] and node != standing.leaders[where] for where in places)

    # --- truth ------------------------------------------------------------------------------------

    def bounds(self) -> Bounds:
        """Return what the log ends and committed offsets may be right now."""
        assert self.producer.error is None, f"the producer's truth is lost: {self.producer.error!r}"
        for task in self._tasks:
            if task.done():
                task.result()
        live = [TopicPartition(LIVE, number) for number in range(LIVE_PARTITIONS)]
        written = {where: (self.producer.sent[where.partition], self.producer.given[where.partition]) for where in live}
        ends = {where: (end, end) for where, end in self.truth.ends.items()} | written
        committed = {
            group: {where: (offset, offset) for where, offset in offsets.items()}
            for group, offsets in self.truth.committed.items()
        }
        known, done = self.mover.acknowledged, self.mover.attempted
        committed[MOVER] = {where: (known.get(where, 0), done.get(where, 0)) for where in live}
        read = self.member.note()
        # Nobody commits what is not there to be read.
        committed[MEMBER] = {where: (read.get(where, 0), written[where][1]) for where in live}
        return Bounds(ends, committed)

    def record_time(self, where: TopicPartition, offset: int) -> float | None:
        """Return the timestamp of a record in seconds since the epoch, None where the loads know of none."""
        if where.topic == LIVE:
            return self.producer.record_time(where.partition, offset)
        return self.truth.record_time(offset) if offset < self.truth.ends[where] else None

    async def is_healthy(self) -> bool:
        """Return whether another client reads everything, from brokers that agree, with all live replicas in sync."""
        try:
            standings = [await self.witness.standing(self.groups, {node}) for node in self.live()]
            return all(each == standings[0] for each in standings) and await self._reads_all(standings[0])
        except NotToldError:
            return False

    async def _reads_all(self, standing: Standing) -> bool:
        before = self.bounds()
        live = self.live()
        if standing.brokers != live:
            return False  # whoever reads the list of brokers still asks one that is on its way out or in
        for where, leader in standing.leaders.items():
            if leader not in live or live & set(standing.replicas[where]) - standing.in_sync[where]:
                return False
        committed: dict[str, dict[TopicPartition, int]] = {}
        for node in set(standing.coordinators.values()):
            groups = [group for group, by in standing.coordinators.items() if by == node]
            committed |= await self.witness.committed(node, groups)
        ends: dict[TopicPartition, int] = {}
        for node in {standing.leaders[where] for where in before.ends}:
            ends |= await self.witness.ends(node, [w for w in before.ends if standing.leaders[w] == node])
        after = self.bounds()
        return all(
            low <= ends.get(where, -1) <= after.ends[where][1] for where, (low, _) in before.ends.items()
        ) and all(
            low <= committed[group].get(where, -1) <= after.committed[group][where][1]
            for group, bounds in before.committed.items()
            for where, (low, _) in bounds.items()
        )

    async def _loads_are_known(self) -> bool:
        bounds = self.bounds()
        return all(low > 0 for group in (MOVER, MEMBER) for low, _ in bounds.committed[group].values())

    async def _until(self, holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, otherwise
            await asyncio.sleep(0.1)

    # --- cycles -----------------------------------------------------------------------------------

    async def cycle(
        self,
        strike: Mapping[str, Any] | None = None,
        fault: Callable[[], Awaitable[None]] | None = None,
        *,
        measure: bool = False,
    ) -> Cycle:
        """Run a cycle, an interval after the last one began, with a fault in the middle of it; check and return it."""
        await asyncio.sleep(max(0.0, self._began + self._interval_seconds - time.monotonic()))
        self._began = time.monotonic()
        self.cycles += 1

        async def nothing() -> None:
            pass

        blocked, unreadable = set(self.blocked), await self._unreadable(self.blocked)
        before, began = self.bounds(), time.time()
        done = await self.monitor.cycle(strike, fault or nothing, measure=measure)
        after = self.bounds()
        report = json.loads(await self.monitor.scrape("api/v1/report"))
        metrics = await self.monitor.scrape("metrics")
        cycle = Cycle(
            self.cycles, began, done["seconds"], done["struck"], report, metrics,
            before, after, done["requests"], done.get("measured"),
        )  # fmt: skip
        wrong = list(faults_of(cycle, self.record_time))
        unreadable &= await self._unreadable(blocked & self.blocked)
        wrong += [f"{group} on {where} is known and its broker was away" for group, where in unreadable - cycle.unknown]
        self._note(f"cycle {cycle.number}, {cycle.seconds:.2f} s, {len(cycle.unknown)} unknown")
        assert not wrong, f"{len(wrong)} wrong: {'; '.join(wrong[:8])}; what happened: {'; '.join(self.trail)}"
        return cycle

    def _note(self, what: str) -> None:
        self.trail.append(f"{time.monotonic() - self._started:.2f} s {what}")

    async def _unreadable(self, blocked: Collection[int]) -> set[tuple[str, TopicPartition]]:
        """Return the positions that cannot be read without one of these brokers, in the eyes of all that live."""
        seen: set[tuple[str, TopicPartition]] | None = None
        for node in self.live() if blocked else ():
            try:
                standing = await self.witness.standing(self.groups, {node})
            except NotToldError:
                return set()
            found = {position for each in blocked for position in self.touched(standing, each)}
            seen = found if seen is None else seen & found
        return seen or set()

    async def complete(self) -> list[Cycle]:
        """Cycle until everything is known: at most two cycles after another client reads everything. Return them."""
        cycles: list[Cycle] = []
        since_healthy = 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not cycles or not cycles[-1].is_complete:
            is_healthy = await self.is_healthy()
            cycles.append(await self.cycle())
            # Healthy all the time: brokers may stumble again while they recover.
            since_healthy = since_healthy + 1 if is_healthy and await self.is_healthy() else 0
            assert cycles[-1].is_complete or since_healthy < 2, self.incomplete(cycles[-1])
            assert time.monotonic() < deadline, f"another client cannot read everything: {self.incomplete(cycles[-1])}"
        return cycles

    async def cycles_until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Cycle until something holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await holds():
            await self.cycle()
            assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s"

    def incomplete(self, cycle: Cycle) -> str:
        """Return what is missing in a cycle, why, and what happened before, for whoever has to understand it."""
        reasons = Counter(
            part["unknown"].get("lag_records")
            for consumer in cycle.cluster["consumers"]
            for part in consumer["partitions"]
        )
        return (
            f"cycle {cycle.number}: up {cycle.cluster['up']}, {len(cycle.unknown)} of {len(cycle.lags)} unknown, "
            f"such as {sorted(cycle.unknown)[:3]}; {dict(reasons)}; {cycle.cluster['failures'][:6]}; "
            f"what happened: {'; '.join(self.trail)}"
        )

    async def at_rest(self) -> None:
        """Undo what was done, and return once another client reads everything and the monitor knows everything."""
        for node in self.proxies:
            await self.mend(node)
        for node in sorted(self.away):
            await self.bring_back(node)
        await self._until(self.is_healthy, "the brokers did not recover")
        await self.complete()


# --- what a cycle must not say ----------------------------------------------------------------------


def faults_of(cycle: Cycle, record_time: Callable[[TopicPartition, int], float | None]) -> Iterator[str]:
    """Yield everything a cycle says that is not true, or not allowed to be said, one sentence each."""
    consumers = {each["name"]: each for each in cycle.cluster["consumers"]}
    for group, bounds in cycle.before.committed.items():
        if group not in consumers:
            yield f"group {group} is gone"
            continue
        parts = {TopicPartition(p["topic"], p["partition"]): p for p in consumers[group]["partitions"]}
        if missing := bounds.keys() - parts.keys():
            yield f"positions {sorted(missing)} of {group} are gone"
        for where in bounds.keys() & parts.keys():
            yield from (f"{group} on {where.topic}/{where.partition}: {said}" for said in _position(
                parts[where], cycle.before.ends[where][0], cycle.after.ends[where][1],
                bounds[where][0], cycle.after.committed[group][where][1],
            ))  # fmt: skip
            yield from _age(cycle, group, where, parts[where], record_time)
        yield from (f"{group}: {said}" for said in _sums(consumers[group]))
        yield from _freshness(cycle, consumers[group])
    # Nothing here is deleted, reset or made anew, and logs and commits only grow: whatever fails, there is no finding.
    yield from (f"a finding that is none: {found['text']}" for found in cycle.cluster["findings"])
    yield from _up(cycle)
    yield from _exposed(cycle)


def _position(part: Mapping[str, Any], end_low: int, end_high: int, low: int, high: int) -> Iterator[str]:
    end, committed, lag, start = part["log_end"], part["committed"], part["lag_records"], part["log_start"]
    if end is not None and not end_low <= end <= end_high:
        yield f"log end {end}, true is {end_low} to {end_high}"
    if committed is not None and not low <= committed <= high:
        yield f"committed {committed}, true is {low} to {high}"
    if lag is None:
        if "lag_records" not in part["unknown"]:
            yield "no lag and no reason"
    elif end is None or committed is None:
        yield f"lag {lag} although end is {end} and committed {committed}"
    elif lag != end - max(committed, start):
        yield f"lag {lag} is not {end} - {committed}"
    if part["lag_seconds"] is not None and lag is None:
        yield f"{part['lag_seconds']} s behind with an unknown lag"


def _age(
    cycle: Cycle,
    group: str,
    where: TopicPartition,
    part: Mapping[str, Any],
    record_time: Callable[[TopicPartition, int], float | None],
) -> Iterator[str]:
    seconds, lag = part["lag_seconds"], part["lag_records"]
    if seconds is None or lag is None:
        return
    written = record_time(where, part["committed"]) if lag else None
    age = 0.0 if written is None else _moment(cycle.report["at"]) - written
    if lag and written is None:
        return  # handed to the broker and not acknowledged yet: its time is not known for sure
    if abs(age - seconds) > part["lag_seconds_bound"] + ROUNDED_SECONDS and age > 0:
        yield f"{group} on {where}: {seconds} ± {part['lag_seconds_bound']} s, true is {age:.3f}"


def _sums(consumer: Mapping[str, Any]) -> Iterator[str]:
    lags = [part["lag_records"] for part in consumer["partitions"]]
    known = [lag for lag in lags if lag is not None]
    total = sum(known) if len(known) == len(lags) else None
    if consumer["lag_records"] != total:
        yield f"sum {consumer['lag_records']}, its partitions say {total}"
    if consumer["partitions_unknown"] != len(lags) - len(known):
        yield f"{consumer['partitions_unknown']} partitions unknown, of which {len(lags) - len(known)} are"
    if (consumer["known_lag_records"] or 0) != sum(known):
        yield f"known lag {consumer['known_lag_records']}, its partitions say {sum(known)}"
    if consumer["lag_records"] is None and "lag_records" not in consumer["unknown"]:
        yield "no sum and no reason"


def _freshness(cycle: Cycle, consumer: Mapping[str, Any]) -> Iterator[str]:
    """A number that is shown was read in this cycle; a group that is caught up may be left out of it."""
    at = consumer["observed_at"]
    if any(part["lag_records"] for part in consumer["partitions"]) and (
        at is None or _moment(at) < cycle.began - MILLISECOND
    ):
        yield f"{consumer['name']} has numbers and was read at {at}, before this cycle"


def _up(cycle: Cycle) -> Iterator[str]:
    up, failures = cycle.cluster["up"], cycle.cluster["failures"]
    if up and cycle.unknown:  # a failure alone may be of something that lag does not depend on, such as a look-up
        yield f"up with {len(cycle.unknown)} positions unknown and {len(failures)} failures"
    if not up and not failures:
        yield "not up, and no failure says why"


LINE = re.compile(r"^(streamgauge_\w+)\{([^}]*)\} +(\S+) *$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def _exposed(cycle: Cycle) -> Iterator[str]:
    """What a scraper gets is what the report says: no series where a number is unknown."""
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for name, labels, value in LINE.findall(cycle.metrics):
        found = dict(LABEL.findall(labels))
        samples.setdefault(name, {})[found.get("consumer", ""), found.get("topic", ""), found.get("partition", "")] = (
            float(value)
        )
    known = {
        (group, where.topic, str(where.partition)): lag for (group, where), lag in cycle.lags.items() if lag is not None
    }
    exposed = samples.get("streamgauge_consumer_lag_records", {})
    if known != exposed:
        yield f"the lag that is exposed is not the report's: {_differing(known, exposed)}"
    sums = {
        (each["name"], "", ""): each["lag_records"]
        for each in cycle.cluster["consumers"]
        if each["lag_records"] is not None
    }
    exposed = samples.get("streamgauge_consumer_sum_lag_records", {})
    if sums != exposed:
        yield f"the sums that are exposed are not the report's: {_differing(sums, exposed)}"
    if [float(cycle.cluster["up"])] != list(samples.get("streamgauge_cluster_up", {}).values()):
        yield "the cluster is exposed as up and reported as not, or the other way round"


def _differing(expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> list[Any]:
    keys = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    return [(key, expected.get(key), found.get(key)) for key in sorted(keys)[:3]]


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
