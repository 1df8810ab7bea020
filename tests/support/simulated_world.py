"""The truth of a simulated cluster over time: every change is made to the fake cluster and written down here.

What is written down is the simulation's own bookkeeping, never something that was decoded: for each partition its
log start, log end and records, for each group and partition its commits, who led and coordinated when, and the
*causes*: what may have kept the observer from knowing something, from when to when and about whom.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulated_time import EPOCH, Timeline
from simulated_transport import SimulatedTransport

from monitor.sandbox.fake import FakeCluster, Group, Member
from monitor.sandbox.fake_state import CLASSIC, NO_LEADER

Partition = tuple[str, int]
FOREVER = float("inf")


@dataclass(slots=True)
class Written:
    """Records in a row, as they were written, until the log was cut."""

    offset: int
    stop: int
    timestamp_ms: int
    step_ms: int
    at: float
    until: float = FOREVER


class Log:
    """One life of a partition."""

    def __init__(self, at: float) -> None:
        self.born, self.died = at, FOREVER
        self.start: Timeline[int] = Timeline(at, 0)
        self.end: Timeline[int] = Timeline(at, 0)
        self.stable: Timeline[int] = Timeline(at, 0)
        self.written: deque[Written] = deque()
        self.newest_ms = -1
        self.disordered_at = -FOREVER
        """When records were last written that are older than others before them."""
        self.cuts: list[tuple[float, int]] = []
        """When its end was cut off, and where that had been."""

    def lives_during(self, since: float, until: float) -> bool:
        """Return whether it existed at some moment."""
        return self.born <= until and self.died >= since

    def lives_throughout(self, since: float, until: float) -> bool:
        """Return whether it existed all the time."""
        return self.born <= since and self.died >= until

    def records_at(self, offset: int, since: float, until: float) -> list[Written]:
        """Return what lay at an offset at some moment: several if the log was cut and written anew."""
        return [
            each
            for each in self.written
            if each.offset <= offset < each.stop and each.at <= until and each.until >= since
        ]


@dataclass(eq=False, slots=True)
class Cause:
    """Something that may keep the observer from knowing; without any name it touches everything."""

    text: str
    since: float
    until: float = FOREVER
    broker: int | None = None
    group: str | None = None
    topic: str | None = None
    partition: int | None = None
    is_away: bool = False
    """Whether the broker answers nothing at all."""
    kind: str = ""
    """The name of the trouble, for those that invariants have to tell from others."""

    @property
    def is_about_all(self) -> bool:
        """Return whether it touches everything."""
        return self.broker is None and self.group is None and self.topic is None

    def is_near(self, since: float, until: float) -> bool:
        """Return whether it was there at some moment."""
        return self.since <= until and self.until >= since


@dataclass(eq=False, slots=True)
class Reader:
    """A group and what it reads."""

    name: str
    type: str
    topics: list[str]
    members: int


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for whoever reads a failure."""

    at: float
    text: str


@dataclass(slots=True)
class GroupTruth:
    """A group over time; every value is None while it does not exist."""

    members: Timeline[int | None]
    state: Timeline[str | None]
    assigned: Timeline[frozenset[Partition]]
    coordinator: Timeline[int]
    commits: dict[Partition, Timeline[int]] = field(default_factory=dict)
    """-1 without a commit."""
    behind: Timeline[bool] = field(default_factory=lambda: Timeline(-1.0, value=False))
    """Whether its coordinator knows less than was committed."""
    listed_by: Timeline[frozenset[int]] = field(default_factory=lambda: Timeline(-1.0, frozenset()))
    """Brokers that list it in place of its coordinator."""
    went_back_at: float = -FOREVER
    """When less was committed than before, or its coordinator knew less than was committed."""
    behind_offsets: dict[Partition, set[int]] = field(default_factory=dict)
    """What coordinators that were behind ever told of it."""


class World:
    """The cluster's truth: the only thing that changes the fake cluster."""

    def __init__(self, fake: FakeCluster, transport: SimulatedTransport, now: Callable[[], float]) -> None:
        self.fake = fake
        self.transport = transport
        self.now = now
        self.logs: dict[Partition, list[Log]] = {}
        self.leaders: dict[Partition, Timeline[int]] = {}
        self.groups: dict[str, GroupTruth] = {}
        self.readers: dict[str, Reader] = {}
        self.causes: list[Cause] = []
        self.events: deque[Event] = deque(maxlen=200)
        self.fenced = {broker: Timeline(now(), value=False) for broker in fake.brokers}
        """Whether the cluster has noticed that a broker is gone."""
        self.born: dict[str, float] = {}
        """When each topic or group that exists came into being."""
        self.gone: dict[str, float] = {}
        """When each topic or group that does not exist any more went."""

    # --- notes ---

    def note(self, text: str) -> None:
        """Write down what happens."""
        self.events.append(Event(self.now(), text))

    def cause(self, text: str, **about: Any) -> Cause:
        """Write down something that begins, and may keep the observer from knowing."""
        self.note(text)
        found = Cause(text, self.now(), **about)
        self.causes.append(found)
        return found

    def moment(self, text: str, **about: Any) -> None:
        """Write down a change that is over at once."""
        self.cause(text, **about).until = self.now()

    def end(self, cause: Cause, text: str | None = None) -> None:
        """Write down that it is over."""
        cause.until = self.now()
        self.note(text or f"over: {cause.text}")

    def forget(self, before: float) -> None:
        """Forget causes and lives that nobody looks back for."""
        self.causes = [each for each in self.causes if each.until >= before]
        for logs in self.logs.values():
            logs[:] = [log for log in logs if log.died >= before]
            for log in logs:
                start = log.start.now
                while log.written and (log.written[0].stop <= start) and log.written[0].at < before:
                    log.written.popleft()
        self.logs = {where: logs for where, logs in self.logs.items() if logs}
        self.leaders = {where: leader for where, leader in self.leaders.items() if where in self.logs}
        for name in [name for name, at in self.gone.items() if at < before and name in self.groups]:
            del self.groups[name]

    # --- topics ---

    def log(self, topic: str, partition: int) -> Log:
        """Return the living log of a partition."""
        return self.logs[topic, partition][-1]

    def create_topic(self, name: str, leaders: Sequence[int], replication: int) -> None:
        """Create a topic, one partition a leader."""
        self.fake.topic(name, len(leaders), leaders=leaders, replication=replication)
        self.moment(f"topic {name} is created with {len(leaders)} partitions", topic=name)
        self._live(name, range(len(leaders)), leaders)
        self.born[name] = self.now()
        self.gone.pop(name, None)

    def add_partitions(self, name: str, leaders: Sequence[int]) -> None:
        """Add partitions to a topic."""
        first = len(self.fake.topics[name])
        self.fake.add_partitions(name, leaders)
        self._live(name, range(first, first + len(leaders)), leaders)
        self.moment(f"topic {name} gets {len(leaders)} more partitions, from {first}", topic=name)

    def delete_topic(self, name: str, *, keep_commits: bool) -> None:
        """Delete a topic; its commits go at once or later (``drop_commits``)."""
        self.moment(f"topic {name} is deleted{', its commits stay for now' if keep_commits else ''}", topic=name)
        self._die(name)
        self.fake.delete_topic(name, keep_commits=True)
        if not keep_commits:
            self.drop_commits(name)
        del self.born[name]
        self.gone[name] = self.now()

    def drop_commits(self, topic: str) -> None:
        """Delete what was committed on a topic that is gone, as coordinators do."""
        for name in list(self.fake.groups):
            for known in (self.fake.groups[name], self.fake.behind.get(name)):
                if known is not None:
                    known.commits.pop(topic, None)
            truth = self.groups[name]
            for where, commits in truth.commits.items():
                if where[0] == topic and commits.now >= 0:
                    commits.put(self.now(), -1)
                    truth.went_back_at = self.now()

    def recreate_topic(self, name: str) -> None:
        """Delete a topic and create it again at once, empty."""
        leaders = self.fake.topics[name].leader.tolist()
        replication = len(self.fake.topics[name].replicas[0])
        self._die(name)
        self.drop_commits(name)
        self.fake.topic(name, len(leaders), leaders=leaders, replication=replication)
        self._live(name, range(len(leaders)), leaders)
        self.moment(f"topic {name} is deleted and created again", topic=name)
        self.born[name] = self.now()

    def append(self, topic: str, partition: int, count: int, timestamp_ms: int, step_ms: int) -> None:
        """Write records."""
        self.fake.append(topic, partition, count, timestamp_ms=timestamp_ms, step_ms=step_ms)
        log = self.log(topic, partition)
        offset, now = log.end.now, self.now()
        log.written.append(Written(offset, offset + count, timestamp_ms, step_ms, now))
        if timestamp_ms < log.newest_ms:
            log.disordered_at = now
        log.newest_ms = max(log.newest_ms, timestamp_ms + (count - 1) * step_ms)
        log.end.put(now, offset + count)
        log.stable.put(now, int(self.fake.topics[topic].last_stable[partition]))

    def expire(self, topic: str, partition: int, log_start: int) -> None:
        """Drop records at the beginning."""
        self.fake.expire(topic, partition, log_start)
        self.log(topic, partition).start.put(self.now(), log_start)

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Cut a log."""
        was = self.log(topic, partition).end.now
        self.moment(f"{topic}/{partition} is cut from {was} to {end}", topic=topic, partition=partition)
        self.fake.truncate(topic, partition, end)
        log, now = self.log(topic, partition), self.now()
        log.cuts.append((now, was))
        kept = []
        for each in log.written:
            if each.until == FOREVER and each.stop > end:
                each.until = now
                if each.offset < end:
                    kept.append(Written(each.offset, end, each.timestamp_ms, each.step_ms, each.at))
        log.written.extend(kept)
        log.end.put(now, end)
        log.stable.put(now, int(self.fake.topics[topic].last_stable[partition]))
        log.start.put(now, int(self.fake.topics[topic].log_start[partition]))

    def hold_stable(self, topic: str, partition: int, *, held: bool) -> None:
        """Open a transaction at the end of a log, so that the last stable offset stays there; or end it."""
        found, log = self.fake.topics[topic], self.log(topic, partition)
        found.last_stable[partition] = found.log_end[partition] - (1 if held and log.end.now > log.start.now else 0)
        log.stable.put(self.now(), int(found.last_stable[partition]))

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Make a broker the leader."""
        self.fake.move_leader(topic, partition, broker)
        self.leaders[topic, partition].put(self.now(), broker)
        self.moment(f"{topic}/{partition} is led by {broker}", topic=topic, partition=partition)

    def _live(self, topic: str, partitions: Iterable[int], leaders: Sequence[int]) -> None:
        now = self.now()
        for partition, leader in zip(partitions, leaders, strict=True):
            self.logs.setdefault((topic, partition), []).append(Log(now))
            if (topic, partition) in self.leaders:
                self.leaders[topic, partition].put(now, leader)
            else:
                self.leaders[topic, partition] = Timeline(now, leader)

    def _die(self, topic: str) -> None:
        for partition in range(len(self.fake.topics[topic])):
            self.log(topic, partition).died = self.now()

    # --- groups ---

    def create_group(self, reader: Reader) -> None:
        """Create a group; its members are assigned what it reads."""
        now = self.now()
        self.moment(f"group {reader.name} ({reader.type}) comes, to read {', '.join(reader.topics)}", group=reader.name)
        self.readers[reader.name] = reader
        group = self.fake.group(reader.name, type=reader.type)
        coordinator = self.fake.coordinator(reader.name)
        self.fake.move_coordinator(reader.name, coordinator)
        self.groups[reader.name] = GroupTruth(
            Timeline(now, 0), Timeline(now, group.state), Timeline(now, frozenset()), Timeline(now, coordinator)
        )
        self.born[reader.name] = now
        self.rebalance(reader.name)

    def delete_group(self, name: str) -> None:
        """Delete a group and its offsets."""
        self.moment(f"group {name} goes", group=name)
        self.fake.delete_group(name)
        self.fake.behind.pop(name, None)
        del self.readers[name]
        truth, now = self.groups[name], self.now()
        truth.members.put(now, None)
        truth.state.put(now, None)
        truth.assigned.put(now, frozenset())
        truth.behind.put(now, value=False)
        truth.went_back_at = now
        for commits in truth.commits.values():
            commits.put(now, -1)
        del self.born[name]
        self.gone[name] = now

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Commit an offset, -1 to withdraw it."""
        self.fake.commit(group, topic, partition, offset)
        commits = self.groups[group].commits
        if offset < self.committed(group, topic, partition):
            self.groups[group].went_back_at = self.now()
        commits.setdefault((topic, partition), Timeline(self.born[group], -1)).put(self.now(), offset)

    def committed(self, group: str, topic: str, partition: int) -> int:
        """Return what is committed, -1 without."""
        found = self.groups[group].commits.get((topic, partition))
        return -1 if found is None else found.now

    def rebalance(self, name: str, state: str | None = None) -> None:
        """Assign what a group reads to its members anew, in turn; ``state`` is one on the way to a stable group."""
        reader, group, now = self.readers[name], self.fake.groups[name], self.now()
        reader.topics = [topic for topic in reader.topics if topic in self.fake.topics]
        parts = [(topic, p) for topic in reader.topics for p in range(len(self.fake.topics[topic]))]
        group.members = []
        for number in range(reader.members):
            assignment: dict[str, list[int]] = {}
            for topic, partition in parts[number :: reader.members]:
                assignment.setdefault(topic, []).append(partition)
            group.members.append(Member(f"{name}-client-{number}", assignment))
        group.state = state or ("Stable" if reader.members else "Empty")
        group.epoch += 1
        truth = self.groups[name]
        truth.members.put(now, reader.members)
        truth.state.put(now, group.state)
        truth.assigned.put(now, frozenset(parts) if group.members else frozenset())
        self.note(f"group {name} is {group.state} with {reader.members} members")

    def list_by(self, name: str, brokers: Iterable[int] | None) -> None:
        """Have a group listed by these brokers, or by its coordinator again."""
        self.fake.groups[name].listed_by = None if brokers is None else set(brokers)
        self.groups[name].listed_by.put(self.now(), frozenset(brokers or ()))
        who = "its coordinator" if brokers is None else sorted(brokers) or "nobody"
        # A list says nothing about offsets: the group has to be known all the time. So this is no cause.
        self.note(f"group {name} is listed by {who}")

    def move_coordinator(self, name: str, broker: int) -> None:
        """Make a broker the coordinator of a group."""
        self.fake.move_coordinator(name, broker)
        self.groups[name].coordinator.put(self.now(), broker)
        self.moment(f"group {name} is coordinated by {broker}", group=name)

    def fall_behind(self, name: str, known: Group | None) -> None:
        """Let the coordinator of a group know less than was committed: ``known``."""
        self.fake.behind[name] = known
        truth = self.groups[name]
        truth.behind.put(self.now(), value=True)
        truth.went_back_at = self.now()
        for topic, committed in ({} if known is None else known.commits).items():
            for partition, offset in enumerate(committed.offset.tolist()):
                truth.behind_offsets.setdefault((topic, partition), set()).add(offset)

    def catch_up(self, name: str) -> None:
        """Let it know everything again."""
        self.fake.behind.pop(name, None)
        self.groups[name].behind.put(self.now(), value=False)
        self.groups[name].went_back_at = self.now()

    # --- permissions ---

    def forbid(self, **about: str) -> Cause:
        """Take away the permission to see a topic or a group."""
        self.fake.forbid(**about)
        kind, name = next(iter(about.items()))
        if kind == "topic":
            # Coordinators leave out what was committed on it, without a word.
            for truth in self.groups.values():
                if any(where[0] == name and commits.now >= 0 for where, commits in truth.commits.items()):
                    truth.went_back_at = self.now()
        return self.cause(f"{kind} {name} is forbidden", **about)

    def allow(self, cause: Cause, **about: str) -> None:
        """Give it back."""
        self.fake.allow(**about)
        self.end(cause, f"over: {cause.text}")

    # --- brokers ---

    def stop(self, broker: int) -> None:
        """Kill a broker."""
        self.fake.stop(broker)
        self.transport.break_connections(broker)
        self.transport.wake()

    def start(self, broker: int) -> None:
        """Start it again."""
        self.fake.start(broker)

    def pause(self, broker: int) -> None:
        """Freeze a broker."""
        self.fake.pause(broker)

    def resume(self, broker: int) -> None:
        """Let it go on."""
        self.fake.resume(broker)
        self.transport.wake()

    def fence(self, broker: int, *, fenced: bool) -> None:
        """Let the cluster notice that a broker is gone, or that it is back."""
        self.fake.brokers[broker].fenced = fenced
        self.fenced[broker].put(self.now(), fenced)
        self.note(f"broker {broker} is {'fenced' if fenced else 'back'}")

    def alive(self) -> list[int]:
        """Return the brokers that run and that the cluster counts in."""
        return [id_ for id_, each in self.fake.brokers.items() if self.fake.is_running(id_) and not each.fenced]

    def led_by(self, broker: int) -> list[Partition]:
        """Return the partitions that a broker leads."""
        return [
            (topic.name, p)
            for topic in self.fake.topics.values()
            for p, leader in enumerate(topic.leader.tolist())
            if leader == broker
        ]

    def coordinated_by(self, broker: int) -> list[str]:
        """Return the groups that a broker coordinates."""
        return [name for name in self.fake.groups if self.fake.coordinator(name) == broker]

    # --- looking back ---

    def logs_during(self, where: Partition, since: float, until: float) -> list[Log]:
        """Return the lives of a partition at some moment."""
        return [log for log in self.logs.get(where, ()) if log.lives_during(since, until)]

    def milliseconds(self) -> int:
        """Return the right time as records carry it."""
        return int((EPOCH + self.now()) * 1000)


__all__ = ["CLASSIC", "FOREVER", "NO_LEADER", "Cause", "Log", "Reader", "Timeline", "World"]
