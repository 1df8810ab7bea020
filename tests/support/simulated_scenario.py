"""What happens to a simulated cluster: a story from one seed, and nothing else.

Traffic flows all the time. Troubles come in spells with calm between them, in which everything has to be well again.
The story depends on the seed and on the cluster's truth, never on what the observer does: a seed tells the same story
whatever the observer has become.
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from simulated_time import WallClock
from simulated_world import CLASSIC, Cause, Reader, World

from monitor.sandbox.fake import (
    Corrupt,
    Delay,
    Disconnect,
    ErrorCode,
    Garbage,
    Hang,
    Omit,
    Tear,
    Truncate,
)
from monitor.sandbox.fake_state import CONSUMER, RELEASES

PLAYED_RELEASES = ("3.7", "3.9", "4.0", "4.3")

SPELL_SECONDS = (60.0, 140.0)
CALM_SECONDS = (50.0, 80.0)
BETWEEN_TROUBLES_SECONDS = 6.0
MAX_TOPICS, MAX_GROUPS = 12, 14

# Until a cluster without a broker notices: Kafka's broker.session.timeout.ms default is 9 s.
NOTICED_AFTER_SECONDS = (2.0, 9.0)
# Shorter than the observer's SETTLING_SECONDS: what a coordinator does not know for longer counts as true.
BEHIND_SECONDS = (1.0, 22.0)

KNOWN_SECONDS = 60.0

HOUR_MS = 3_600_000

LIST_OFFSETS_CODES = (-1, 3, 5, 6, 9, 56, 74, 78)
OFFSET_FETCH_CODES = (-1, 14, 15, 16)
LIST_GROUPS_CODES = (-1, 14, 15)
DESCRIBE_CODES = (-1, 14, 15, 16)
PARTITION_CODES = (-1, 5, 6, 56, 78)
GROUP_CODES = (-1, 14, 15)

APIS = ("Metadata", "ListGroups", "OffsetFetch", "ListOffsets", "DescribeGroups", "ConsumerGroupDescribe")
# Where the number of entries stands in an answer's body (one byte, KIP-482): changing it breaks the framing.
COUNT_AT = {"ListOffsets": 4, "OffsetFetch": 4, "Metadata": 4, "ListGroups": 6}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A kind of event: how often it comes, compared with the others."""

    weight: int
    happen: Callable[[Scenario], None]


class Scenario:
    """Acts on the world until it is cancelled."""

    def __init__(self, world: World, clock: WallClock, rng: random.Random, release: str) -> None:
        self._world = world
        self._clock = clock
        self._rng = rng
        self._types = (
            (CLASSIC, CONSUMER)
            if "ConsumerGroupDescribe" in RELEASES[release] and world.fake.has_consumer_protocol
            else (CLASSIC,)
        )
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._names = count()
        self._partitions_taken: set[int] = set()
        self._calm_from = 0.0
        self._calm_until = 0.0
        self._busy: set[int] = set()
        """Brokers that already have a trouble of their own."""
        self._pace: dict[str, float] = {}
        self._disordered: set[str] = set()

    # --- the course of things ---

    def begin(self) -> None:
        """Fill the cluster, and plan what comes."""
        for _ in range(self._rng.randint(6, 10)):
            self._create_topic(self._rng.randint(0, 400))
        for _ in range(self._rng.randint(8, 12)):
            self._create_group()
        self._in(0.5, self._traffic)
        self._in(20.0, self._retention)
        self._begin_spell()
        self._in(self._rng.expovariate(1 / BETWEEN_TROUBLES_SECONDS), self._trouble)

    async def run(self) -> None:
        """Let everything happen when it is due."""
        while True:
            at, _, action = heapq.heappop(self._agenda)
            await asyncio.sleep(max(0.0, at - self._world.now()))
            action()

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self._world.now() + seconds, next(self._numbers), action))

    def _begin_spell(self) -> None:
        self._calm_from = self._world.now() + self._rng.uniform(*SPELL_SECONDS)
        self._calm_until = self._calm_from + self._rng.uniform(*CALM_SECONDS)
        self._in(self._calm_until - self._world.now(), self._begin_spell)

    def _duration(self, shortest: float, longest: float) -> float:
        """Draw how long a trouble lasts: it ends before the calm."""
        drawn = self._rng.uniform(shortest, longest)
        return max(0.1, min(drawn, self._calm_from - self._world.now()))

    def _trouble(self) -> None:
        if self._world.now() < self._calm_from:
            trouble = self._rng.choices(TROUBLES, [each.weight for each in TROUBLES])[0]
            trouble.happen(self)
        self._in(self._rng.expovariate(1 / BETWEEN_TROUBLES_SECONDS), self._trouble)

    # --- traffic ---

    def _traffic(self) -> None:
        world, rng = self._world, self._rng
        alive = set(world.alive())
        for name, topic in list(world.fake.topics.items()):
            for partition in range(len(topic)):
                if rng.random() < 0.25 and int(topic.leader[partition]) in alive:
                    self._produce(name, partition, rng.randint(1, 40))
        for name in list(world.readers):
            ready = world.fake.coordinator(name) in alive and name not in world.fake.behind
            if ready and world.readers[name].members and rng.random() < 0.6:
                self._read(name)
        self._in(rng.uniform(0.8, 2.0), self._traffic)

    def _produce(self, topic: str, partition: int, records: int, shift_ms: int = 0) -> None:
        step = self._rng.randint(0, 4)
        at = self._world.milliseconds() - (records - 1) * step + shift_ms
        if topic in self._disordered:
            at -= self._rng.randint(0, 600_000)
        else:
            at = max(at, min(self._world.log(topic, partition).newest_ms, self._world.milliseconds()))
        self._world.append(topic, partition, records, at, step)

    def _read(self, name: str) -> None:
        world, rng = self._world, self._rng
        pace = self._pace[name]
        for topic in world.readers[name].topics:
            if topic not in world.fake.topics:
                continue
            for partition in range(len(world.fake.topics[topic])):
                if rng.random() > 0.5:
                    continue
                log = world.log(topic, partition)
                at = world.committed(name, topic, partition)
                begin = max(at, log.start.now)
                if at <= log.end.now:
                    target = begin + round((log.end.now - begin) * pace * rng.random())
                    if rng.random() < 0.3 and pace > 0.7:
                        target = log.end.now
                    world.commit(name, topic, partition, target)

    def _retention(self) -> None:
        world, rng = self._world, self._rng
        for name, topic in list(world.fake.topics.items()):
            for partition in range(len(topic)):
                log = world.log(name, partition)
                living = [each for each in log.written if each.until > world.now()]
                if len(living) > 12 and rng.random() < 0.6:
                    cut = living[rng.randint(1, len(living) - 6)]
                    offset = rng.randint(cut.offset, cut.stop)
                    world.expire(name, partition, max(offset, log.start.now))
                elif rng.random() < 0.02:
                    world.expire(name, partition, log.end.now)
        world.note("retention")
        self._in(rng.uniform(20.0, 40.0), self._retention)

    # --- who comes and goes ---

    def _create_topic(self, records: int = 0) -> None:
        world, rng = self._world, self._rng
        if len(world.fake.topics) >= MAX_TOPICS:
            return
        name = f"topic-{next(self._names)}"
        alive = world.alive()
        partitions = rng.choice((1, 1, 2, 3, 4, 6))
        world.create_topic(
            name, [rng.choice(alive) for _ in range(partitions)], rng.randint(1, min(3, len(world.fake.brokers)))
        )
        if rng.random() < 0.2:
            self._disordered.add(name)
        for partition in range(partitions):
            if records:
                world.append(name, partition, records, world.milliseconds() - 60_000, 60_000 // records)

    def _group_name(self) -> str:
        """Return a name that no group had, in a partition of ``__consumer_offsets`` that no group was in.

        The coordinator of every group has a life of its own here, and those of one partition have the same.
        """
        while True:
            name = f"group-{next(self._names)}"
            partition = self._world.fake.offsets_partition(name)
            if self._world.fake.offsets is None or partition not in self._partitions_taken:
                self._partitions_taken.add(partition)
                return name

    def _create_group(self) -> None:
        world, rng = self._world, self._rng
        topics = list(world.fake.topics)
        if len(world.readers) >= MAX_GROUPS or not topics:
            return
        name = self._group_name()
        reads = rng.sample(topics, rng.randint(1, min(3, len(topics))))
        self._pace[name] = rng.choice((1.0, 1.0, 0.9, 0.5, 0.1, 0.0))
        world.create_group(Reader(name, rng.choice(self._types), reads, rng.randint(0, 4)))
        for topic in reads:
            for partition in range(len(world.fake.topics[topic])):
                if rng.random() < 0.85:
                    log = world.log(topic, partition)
                    world.commit(name, topic, partition, rng.randint(log.start.now, log.end.now))

    def _delete_topic(self) -> None:
        world, rng = self._world, self._rng
        if len(world.fake.topics) < 4:
            return
        name = rng.choice(list(world.fake.topics))
        keep = rng.random() < 0.5
        world.delete_topic(name, keep_commits=keep)
        self._disordered.discard(name)
        for reader in list(world.readers.values()):
            if name in reader.topics:
                world.rebalance(reader.name)
        if keep:
            self._in(
                rng.uniform(0.01, 15.0), lambda: world.drop_commits(name) if name not in world.fake.topics else None
            )

    def _recreate_topic(self) -> None:
        if self._world.fake.topics:
            self._world.recreate_topic(self._rng.choice(list(self._world.fake.topics)))

    def _add_partitions(self) -> None:
        world, rng = self._world, self._rng
        names = [name for name, topic in world.fake.topics.items() if len(topic) < 8]
        if not names:
            return
        name = rng.choice(names)
        world.add_partitions(name, [rng.choice(world.alive()) for _ in range(rng.randint(1, 3))])
        self._in(rng.uniform(0.1, 5.0), lambda: self._rebalance_readers(name))

    def _rebalance_readers(self, topic: str) -> None:
        for reader in list(self._world.readers.values()):
            if topic in reader.topics:
                self._world.rebalance(reader.name)

    def _delete_group(self) -> None:
        if len(self._world.readers) > 4:
            self._world.delete_group(self._rng.choice(list(self._world.readers)))

    def _change_members(self) -> None:
        world, rng = self._world, self._rng
        name = rng.choice(list(world.readers))
        reader = world.readers[name]
        reader.members = rng.choice((0, 0, 1, 2, 3, 5))
        if reader.members and reader.type == CLASSIC and rng.random() < 0.5:
            world.rebalance(name, "PreparingRebalance")
            self._in(rng.uniform(0.1, 15.0), lambda: world.rebalance(name) if name in world.readers else None)
        else:
            world.rebalance(name)

    # --- offsets and logs ---

    def _reset(self) -> None:
        """Reset a group on one of its topics, as an operator does: back, forth, to an end, or beyond it."""
        world, rng = self._world, self._rng
        name = rng.choice(list(world.readers))
        topics = world.readers[name].topics
        if not topics:
            return
        topic = rng.choice(topics)
        how = rng.choice(("start", "end", "anywhere", "anywhere", "beyond", "withdrawn"))
        for partition in range(len(world.fake.topics[topic])):
            log = world.log(topic, partition)
            start, end = log.start.now, log.end.now
            to = {
                "start": start,
                "end": end,
                "anywhere": rng.randint(0, end),
                "beyond": end + rng.randint(1, 500),
                "withdrawn": -1,
            }
            world.commit(name, topic, partition, to[how])
        world.moment(f"group {name} is reset on {topic}: {how}", group=name, topic=topic)

    def _truncate(self) -> None:
        where = self._some_partition()
        if where is not None:
            log = self._world.log(*where)
            self._world.truncate(*where, self._rng.randint(log.start.now, log.end.now))

    def _produce_into_the_future(self) -> None:
        where = self._some_partition()
        if where is not None:
            self._world.note(f"a producer with a wrong clock writes to {where[0]}/{where[1]}")
            self._produce(*where, self._rng.randint(1, 10), shift_ms=self._rng.randint(60_000, HOUR_MS))

    def _open_transaction(self) -> None:
        where = self._some_partition()
        if where is None:
            return
        self._world.note(f"a transaction stays open on {where[0]}/{where[1]}")
        self._produce(*where, 1)
        self._world.hold_stable(*where, held=True)
        life = self._world.log(*where)

        def close() -> None:
            if where in self._world.logs and self._world.log(*where) is life and life.died > self._world.now():
                self._world.hold_stable(*where, held=False)

        self._in(self._rng.uniform(5.0, 90.0), close)

    def _some_partition(self) -> tuple[str, int] | None:
        topics = self._world.fake.topics
        if not topics:
            return None
        name = self._rng.choice(list(topics))
        return name, self._rng.randrange(len(topics[name]))

    # --- leaders and coordinators ---

    def _move_leaders(self) -> None:
        world, rng = self._world, self._rng
        alive = world.alive()
        for topic in rng.sample(list(world.fake.topics), min(2, len(world.fake.topics))):
            for partition in range(len(world.fake.topics[topic])):
                if rng.random() < 0.6:
                    world.move_leader(topic, partition, rng.choice(alive))

    def _move_coordinators(self) -> None:
        world, rng = self._world, self._rng
        alive = world.alive()
        names = list(world.readers)
        for name in rng.sample(names, min(len(names), rng.randint(1, 4))):
            self._take_over(name, rng.choice(alive))

    def _take_over(self, name: str, broker: int) -> None:
        """Move a coordinator; the new one may know less for a while."""
        world, rng = self._world, self._rng
        if broker == world.fake.coordinator(name):
            return
        # One that has coordinated the group a moment ago has its offsets still; and nobody could tell from outside
        # that another one had been in between.
        is_new = broker not in world.groups[name].coordinator.during(world.now() - KNOWN_SECONDS, world.now())
        world.move_coordinator(name, broker)
        if name in world.fake.behind:
            world.catch_up(name)
        if is_new and rng.random() < 0.5:
            known = None
            if rng.random() < 0.7:
                known = copy.deepcopy(world.fake.groups[name])
                self._take_away(known)
            world.fall_behind(name, known)
            text = f"{broker} knows {'less of' if known else 'nothing of'} group {name}"
            cause = world.cause(text, group=name)
            self._in(rng.uniform(*BEHIND_SECONDS), lambda: self._catch_up(name, cause))

    def _take_away(self, known: Any) -> None:
        rng = self._rng
        for topic in list(known.commits):
            offsets = known.commits[topic].offset
            for partition in range(len(offsets)):
                if offsets[partition] > 0 and rng.random() < 0.7:
                    offsets[partition] = rng.choice((-1, max(0, int(offsets[partition]) - rng.randint(1, 200))))

    def _catch_up(self, name: str, cause: Cause) -> None:
        if name in self._world.fake.groups:
            self._world.catch_up(name)
        self._world.end(cause)

    # --- permissions and single errors ---

    def _forbid(self) -> None:
        world, rng = self._world, self._rng
        if rng.random() < 0.5 and world.readers:
            about = {"group": rng.choice(list(world.readers))}
        elif world.fake.topics:
            about = {"topic": rng.choice(list(world.fake.topics))}
        else:
            return
        if set(about.values()) & (world.fake.forbidden_groups | world.fake.forbidden_topics):
            return
        cause = world.forbid(**about)
        self._in(self._duration(5.0, 90.0), lambda: world.allow(cause, **about))

    def _fail_partition(self) -> None:
        world, rng = self._world, self._rng
        where = self._some_partition()
        if where is None:
            return
        topic, code = world.fake.topics[where[0]], rng.choice(PARTITION_CODES)
        topic.error[where[1]] = code
        cause = world.cause(f"{where[0]}/{where[1]} answers error {code}", topic=where[0], partition=where[1])
        self._in(self._duration(1.0, 40.0), lambda: (topic.error.pop(where[1], None), world.end(cause)))

    def _fail_group(self) -> None:
        world, rng = self._world, self._rng
        name = rng.choice(list(world.readers))
        group, code = world.fake.groups[name], rng.choice(GROUP_CODES)
        group.error = code
        cause = world.cause(f"group {name} answers error {code}", group=name)

        def heal() -> None:
            group.error = 0
            world.end(cause)

        self._in(self._duration(1.0, 40.0), heal)

    def _list_oddly(self) -> None:
        """Have a group listed by two brokers, or by none."""
        world, rng = self._world, self._rng
        name = rng.choice(list(world.readers))
        two = set(rng.sample(list(world.fake.brokers), 2)) | {world.fake.coordinator(name)}
        world.list_by(name, two if rng.random() < 0.6 else set())
        self._in(self._duration(5.0, 60.0), lambda: world.list_by(name, None) if name in world.readers else None)

    # --- brokers ---

    def _idle_broker(self) -> int | None:
        """Return a broker without a trouble of its own, as long as another one is left."""
        idle = [id_ for id_ in self._world.alive() if id_ not in self._busy]
        return self._rng.choice(idle) if len(idle) > 1 else None

    def _for_a_while(
        self,
        id_: int,
        text: str,
        seconds: float,
        undo: Callable[[], Any],
        *,
        everything: bool = False,
        is_away: bool = False,
        kind: str = "",
    ) -> None:
        """Let a broker have a trouble, which touches everything or what the broker leads and coordinates."""
        self._busy.add(id_)
        cause = self._world.cause(text, broker=None if everything else id_, is_away=is_away, kind=kind)

        def over() -> None:
            undo()
            self._busy.discard(id_)
            self._world.end(cause)

        self._in(seconds, over)

    def _stop(self) -> None:
        self._go_away("dies", self._world.stop, self._world.start)

    def _pause(self) -> None:
        self._go_away("freezes", self._world.pause, self._world.resume)

    def _go_away(self, text: str, away: Callable[[int], None], back: Callable[[int], None]) -> None:
        broker = self._idle_broker()
        if broker is None:
            return
        away(broker)
        seconds = self._duration(0.5, 60.0)
        noticed = self._rng.uniform(*NOTICED_AFTER_SECONDS)
        if noticed < seconds:
            self._in(noticed, lambda: self._fence(broker))
        self._for_a_while(
            broker,
            f"broker {broker} {text}",
            seconds,
            lambda: self._come_back(broker, back),
            is_away=True,
        )

    def _fence(self, broker: int) -> None:
        """Notice that a broker is gone: others take over what it led and coordinated, where there are others."""
        world, rng = self._world, self._rng
        world.fence(broker, fenced=True)
        alive = world.alive()
        for topic, partition in world.led_by(broker):
            others = [id_ for id_ in world.fake.topics[topic].replicas[partition] if id_ in alive]
            if others:
                world.move_leader(topic, partition, rng.choice(others))
        for name in world.coordinated_by(broker):
            if rng.random() < 0.9:
                self._take_over(name, rng.choice(alive))

    def _come_back(self, broker: int, back: Callable[[int], None]) -> None:
        world, rng = self._world, self._rng
        back(broker)
        node = world.fake.brokers[broker]
        world.fence(broker, fenced=False)
        if rng.random() < 0.4:
            seconds = rng.uniform(0.5, 12.0)
            node.loading_until = world.now() + seconds
            cause = world.cause(f"broker {broker} loads its groups", broker=broker)
            self._in(seconds, lambda: world.end(cause))

    def _load(self) -> None:
        broker = self._idle_broker()
        if broker is None:
            return
        seconds = self._duration(0.5, 20.0)
        self._world.fake.brokers[broker].loading_until = self._world.now() + seconds
        self._for_a_while(broker, f"broker {broker} loads its groups", seconds, lambda: None)

    def _refuse(self) -> None:
        broker = self._idle_broker()
        if broker is None:
            return
        refused = self._world.transport.refused
        refused.add(broker)
        self._world.transport.break_connections(broker)
        self._for_a_while(
            broker, f"broker {broker} cannot be connected", self._duration(0.5, 60.0), lambda: refused.discard(broker)
        )

    def _cut_off(self) -> None:
        """Cut the monitor off from the whole cluster."""
        refused = self._world.transport.refused
        if self._busy:
            return
        everybody = set(self._world.fake.brokers)
        self._busy |= everybody
        refused |= everybody
        for broker in sorted(everybody):
            self._world.transport.break_connections(broker)
        cause = self._world.cause("the cluster cannot be reached")

        def heal() -> None:
            refused.clear()
            self._busy.clear()
            self._world.end(cause)

        self._in(self._duration(0.5, 45.0), heal)

    def _throttle(self) -> None:
        broker = self._idle_broker()
        if broker is None:
            return
        node, milliseconds = self._world.fake.brokers[broker], self._rng.choice((100, 1000, 5000))
        node.throttle_ms = milliseconds

        def over() -> None:
            node.throttle_ms = 0

        text = f"broker {broker} states a throttle time of {milliseconds} ms"
        self._for_a_while(broker, text, self._duration(0.5, 45.0), over)

    # --- answers ---

    def _script(
        self, api: str | None, actions: Sequence[Any], text: str, *, everything: bool = False, kind: str = ""
    ) -> None:
        broker = self._idle_broker()
        if broker is None:
            return
        fault = self._world.fake.fail(api, *actions, broker=broker)
        text = f"broker {broker} {text} ({api or 'every request'})"
        self._for_a_while(broker, text, self._duration(0.5, 45.0), fault.cancel, everything=everything, kind=kind)

    def _lag(self) -> None:
        rng = self._rng
        seconds = rng.choice((0.05, 0.3, 1.0, 3.0, 4.9, 8.0))
        self._script(rng.choice((None, *APIS)), [Delay(seconds)], f"answers {seconds:g} s late", kind="slow")

    def _hang(self) -> None:
        self._script(self._rng.choice((None, *APIS, "ApiVersions")), [Hang()], "does not answer")

    def _disconnect(self) -> None:
        self._script(self._rng.choice((None, *APIS, "ApiVersions")), [Disconnect()], "closes the connection")

    def _tear(self) -> None:
        self._script(self._rng.choice((None, *APIS)), [Tear(self._rng.randint(1, 60))], "tears its answers")

    def _truncate_answers(self) -> None:
        rng = self._rng
        keep = rng.randint(0, 80) if rng.random() < 0.5 else -rng.randint(1, 30)
        self._script(rng.choice(APIS), [Truncate(keep)], f"cuts its answers ({keep})")

    def _garble(self) -> None:
        rng = self._rng
        self._script(rng.choice(APIS), [Garbage(rng.randint(40, 400), rng.getrandbits(32))], "answers garbage")

    def _miscount(self) -> None:
        """Change the number of entries in an answer: what follows no longer fits, and that can be seen."""
        rng = self._rng
        api = rng.choice(list(COUNT_AT))
        self._script(api, [Corrupt(((COUNT_AT[api], rng.choice((1, 2, 3, 64))),))], "miscounts")

    def _answer_errors(self) -> None:
        rng = self._rng
        api, codes = rng.choice((
            ("ListOffsets", LIST_OFFSETS_CODES),
            ("OffsetFetch", OFFSET_FETCH_CODES),
            ("ListGroups", LIST_GROUPS_CODES),
            ("DescribeGroups", DESCRIBE_CODES),
            ("ConsumerGroupDescribe", DESCRIBE_CODES),
        ))  # fmt: skip
        code = rng.choice(codes)
        self._script(api, [ErrorCode(code)], f"answers error {code}")

    def _fail_metadata(self) -> None:
        code = self._rng.choice((-1, 5))
        self._script("Metadata", [ErrorCode(code)], f"answers error {code} for every topic", everything=True)

    def _omit(self) -> None:
        """Leave entries out where that can be seen: groups and partitions that were asked for by name."""
        world, rng = self._world, self._rng
        if rng.random() < 0.5 and world.readers:
            groups = rng.sample(list(world.readers), min(2, len(world.readers)))
            self._script("OffsetFetch", [Omit(groups=groups)], f"leaves out {', '.join(groups)}", kind="omitted groups")
        elif world.fake.topics:
            topic = rng.choice(list(world.fake.topics))
            partitions = (rng.randrange(len(world.fake.topics[topic])),) if rng.random() < 0.5 else ()
            self._script(
                "ListOffsets", [Omit(topics=(topic,), partitions=partitions)], f"leaves out {topic}{list(partitions)}"
            )

    # --- time ---

    def _jump(self) -> None:
        rng = self._rng
        seconds = rng.choice((1, -1)) * rng.choice((0.02, 0.5, 3.0, 30.0, 600.0, 3600.0))
        seconds = -self._clock.offset if rng.random() < 0.5 and self._clock.offset else seconds
        self._clock.jump(seconds)
        self._world.note(f"the wall clock jumps by {seconds:g} s, it is {self._clock.offset:g} s ahead")


TROUBLES = (
    Trouble(4, Scenario._create_topic),
    Trouble(3, Scenario._delete_topic),
    Trouble(2, Scenario._recreate_topic),
    Trouble(3, Scenario._add_partitions),
    Trouble(5, Scenario._create_group),
    Trouble(4, Scenario._delete_group),
    Trouble(5, Scenario._change_members),
    Trouble(6, Scenario._reset),
    Trouble(2, Scenario._truncate),
    Trouble(1, Scenario._produce_into_the_future),
    Trouble(3, Scenario._open_transaction),
    Trouble(5, Scenario._move_leaders),
    Trouble(5, Scenario._move_coordinators),
    Trouble(4, Scenario._forbid),
    Trouble(4, Scenario._fail_partition),
    Trouble(4, Scenario._fail_group),
    Trouble(4, Scenario._list_oddly),
    Trouble(5, Scenario._stop),
    Trouble(4, Scenario._pause),
    Trouble(3, Scenario._load),
    Trouble(3, Scenario._refuse),
    Trouble(1, Scenario._cut_off),
    Trouble(1, Scenario._throttle),
    Trouble(6, Scenario._lag),
    Trouble(3, Scenario._hang),
    Trouble(3, Scenario._disconnect),
    Trouble(3, Scenario._tear),
    Trouble(3, Scenario._truncate_answers),
    Trouble(3, Scenario._garble),
    Trouble(3, Scenario._miscount),
    Trouble(6, Scenario._answer_errors),
    Trouble(1, Scenario._fail_metadata),
    Trouble(4, Scenario._omit),
    Trouble(3, Scenario._jump),
)
