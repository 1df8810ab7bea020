"""Loads: producers and consumers that keep their own counts, so that truth is known without asking the broker.

A ``Producer`` is the only writer of its topic, chooses the partition itself and is idempotent: its n-th
acknowledged record of a partition *is* the record at offset n, and every acknowledgement is checked against that.
A ``Consumer`` commits what it has processed and nothing else, so its count is the group's committed offset.
Neither asks for log ends or committed offsets, so what a monitor says can be compared with their counts:

    lag of a partition = producer.sent[partition] - consumer.committed.get((topic, partition), 0)

Times are seconds since the epoch; record timestamps are integer milliseconds and named so.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import random
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka import TopicPartition as Assigned
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    CommitFailedError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NodeNotReadyError,
    NotCoordinatorError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest

from monitor.errors import SandboxError
from monitor.model import TopicPartition

TICK_SECONDS = 0.05
"""How often a steady load acts: short enough that a rate looks smooth, long enough to cost little."""

READY_SECONDS = 30.0
"""How long a fresh topic or coordinator may refuse: both do for some seconds after they were created."""

RETRY_SECONDS = 0.1

GRACE_SECONDS = 5.0
"""How long a load that is stopped may take to finish what it is doing, such as a commit that is on its way."""

COORDINATOR_MOVING = (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    NotCoordinatorError,
    NodeNotReadyError,
)

Timestamps = Callable[[], int]
"""Gives the next record's timestamp in milliseconds since the epoch."""

MakeRecord = Callable[[int, int, int], tuple[bytes | None, bytes]]
"""Makes key and value of a record from its partition, its number within it, and its timestamp in milliseconds."""


# --- topics -----------------------------------------------------------------------------------------


async def create_topics(
    bootstrap: str,
    topics: Mapping[str, int],
    *,
    replicas: int = 1,
    config: Mapping[str, str] | None = None,
    chunk: int = 100,
) -> None:
    """Create topics (name to number of partitions) and return once every partition has a leader.

    A topic that exists is left as it is. ``chunk`` topics go into one request.

    Raises:
        SandboxError: the brokers cannot be reached or refuse a topic, or a partition has no leader for too long.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await _connect(admin.start, admin.close, f"creating topics at {bootstrap}")
    try:
        names = list(topics)
        for start in range(0, len(names), chunk):
            wanted = [
                NewTopic(name, topics[name], replicas, topic_configs=dict(config or {}))
                for name in names[start : start + chunk]
            ]
            _check_created(await admin.create_topics(wanted))
        await _wait_for_leaders(admin, topics)
    finally:
        await admin.close()


def _check_created(answer: Any) -> None:
    for topic, code, *text in answer.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            detail = f" ({text[0]})" if text and text[0] else ""
            msg = f"creating topic {topic}: the broker answered {for_code(code).__name__}{detail}"
            raise SandboxError(msg)


async def _wait_for_leaders(admin: AIOKafkaAdminClient, topics: Mapping[str, int]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        described = await admin.describe_topics(list(topics))
        led = {topic["topic"]: sum(part["leader"] >= 0 for part in topic["partitions"]) for topic in described}
        missing = {name: count for name, count in topics.items() if led.get(name, 0) != count}
        if not missing:
            return
        if time.monotonic() > deadline:
            name, count = next(iter(missing.items()))
            msg = f"topic {name}: {led.get(name, 0)} of {count} partitions have a leader after {READY_SECONDS:g} s"
            raise SandboxError(msg)
        await asyncio.sleep(RETRY_SECONDS)


# --- what a producer writes -------------------------------------------------------------------------


def now_ms() -> int:
    """Return the current time in milliseconds since the epoch: the timestamp of a record written now."""
    return time.time_ns() // 1_000_000


def shifted(seconds: float) -> Timestamps:
    """Return timestamps that many seconds from now: behind where negative, in the future where positive."""
    return lambda: now_ms() + round(seconds * 1000)


def jittered(seconds: float, seed: int = 1) -> Timestamps:
    """Return timestamps up to so many seconds behind now, out of order; the same ``seed`` gives the same jitter."""
    chance = random.Random(seed)  # noqa: S311 (jitter, not a secret)
    return lambda: now_ms() - round(chance.uniform(0, seconds * 1000))


def stepping(first_ms: int, step_ms: int) -> Timestamps:
    """Return timestamps that start at ``first_ms`` and go on by ``step_ms``."""
    return itertools.count(first_ms, step_ms).__next__


class Readings:
    """Records of sensors as JSON: ``{"sensor": "s-17", "temperature": 21.4, "at": 1795000000.123}``.

    The key is the sensor, and a sensor stays on one partition, as it would with any partitioner.
    ``at`` is the record's timestamp. Temperatures follow from the record's number: a wave of their own per sensor.
    """

    def __init__(self, partitions: int, sensors: int = 40) -> None:
        self._partitions = partitions
        self._sensors_each = max(1, sensors // partitions)

    def __call__(self, partition: int, number: int, timestamp_ms: int) -> tuple[bytes, bytes]:
        """Return key and value of a record."""
        turn, sensor = divmod(number, self._sensors_each)
        sensor = partition + sensor * self._partitions
        name = f"s-{sensor}"
        temperature = round(20 + sensor % 7 + 3 * math.sin(turn / 10 + sensor), 1)
        value = {"sensor": name, "temperature": temperature, "at": timestamp_ms / 1000}
        return name.encode(), json.dumps(value).encode()


def plain(size: int = 100) -> MakeRecord:
    """Return a maker of records without a key and with a value of (at least) ``size`` bytes."""
    return lambda partition, number, timestamp_ms: (None, (b"%d/%d " % (partition, number)).ljust(size, b"."))


# --- pace -------------------------------------------------------------------------------------------


class Pace:
    """How many records are due at a rate that may change: fractions are kept, and at most a second's worth and one."""

    def __init__(self, now: float) -> None:
        self._seen = now
        self._due = 0.0

    def due(self, rate: float, now: float) -> int:
        """Return how many records are due at ``now`` (seconds of a monotonic clock), ``rate`` in records a second."""
        self._due = min(self._due + rate * (now - self._seen), rate + 1.0) if rate > 0 else 0.0
        self._seen = now
        return int(self._due)

    def spend(self, count: int) -> None:
        """Take off what was done."""
        self._due -= count


def turns(partitions: int, skew: float) -> Iterator[int]:
    """Return the partitions in the order in which records go to them, for ever.

    Partition p gets a share proportional to ``1 / (p + 1) ** skew``: 0 is even, 1 is Zipf's law.
    The order is spread, not random, so counts follow the shares closely at any moment.
    """
    if skew == 0:
        return itertools.cycle(range(partitions))
    return _weighted_turns([1 / (partition + 1) ** skew for partition in range(partitions)])


def _weighted_turns(weights: Sequence[float]) -> Iterator[int]:
    credit = [0.0] * len(weights)
    total = sum(weights)
    while True:
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        richest = max(range(len(credit)), key=credit.__getitem__)
        credit[richest] -= total
        yield richest


# --- producer ---------------------------------------------------------------------------------------


class Producer:
    """Writes records at ``rate`` a second (0 is paused) and knows what it wrote.

    It must be the only writer of its topic, from the topic's first record on.
    ``rate`` may be set at any moment. ``skew`` is explained at ``turns``.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        rate: float,
        partitions: int,
        *,
        skew: float = 0.0,
        timestamps: Timestamps = now_ms,
        value: MakeRecord | None = None,
    ) -> None:
        self.topic = topic
        self.rate = rate
        self.timestamps = timestamps
        self.stamps_ms: list[array[int]] = [array("q") for _ in range(partitions)]
        self.error: BaseException | None = None
        self._bootstrap = bootstrap
        self._value = value or plain()
        self._turns = turns(partitions, skew)
        self._given = [0] * partitions
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._answered.set()
        self._sending = asyncio.Lock()
        self._client: AIOKafkaProducer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def sent(self) -> list[int]:
        """Return how many records of each partition were acknowledged: its log end once all are answered."""
        return [len(stamps) for stamps in self.stamps_ms]

    @property
    def given(self) -> list[int]:
        """Return how many records of each partition were handed to the client: the log end is not beyond that."""
        return list(self._given)

    def record_time(self, partition: int, offset: int) -> float | None:
        """Return the timestamp of the record at an offset in seconds, None where there is no record (yet)."""
        stamps = self.stamps_ms[partition]
        return stamps[offset] / 1000 if 0 <= offset < len(stamps) else None

    async def start(self) -> None:
        """Connect and begin to write.

        Raises:
            SandboxError: the brokers cannot be reached.
        """
        client = AIOKafkaProducer(bootstrap_servers=self._bootstrap, enable_idempotence=True, linger_ms=2)
        await _connect(client.start, client.stop, f"writing to topic {self.topic} of {self._bootstrap}")
        self._client = client
        self._task = asyncio.create_task(self._steadily(), name=f"producer of {self.topic}")

    async def pause(self) -> None:
        """Write nothing more, and return once everything written is acknowledged."""
        self.rate = 0.0
        await self.settle()

    async def settle(self) -> None:
        """Wait until every record written so far is acknowledged.

        Raises:
            SandboxError: one was not, so that the truth is lost.
        """
        async with self._sending:
            pass
        await self._answered.wait()
        self._raise_error()

    async def send_exactly(self, count: int, seconds: float = 0.0) -> list[int]:
        """Write ``count`` records beside the steady rate, evenly over ``seconds``; return how many of each partition.

        Returns once all are acknowledged.

        Raises:
            SandboxError: one was not, so that the truth is lost.
        """
        begun, written, counts = time.monotonic(), 0, [0] * len(self.stamps_ms)
        while written < count:
            share = (time.monotonic() - begun) / seconds if seconds > 0 else 1.0
            for _ in range(min(count, math.ceil(count * share)) - written):
                counts[await self._send_one()] += 1
                written += 1
            if written < count:
                await asyncio.sleep(TICK_SECONDS)
        await self.settle()
        return counts

    async def stop(self) -> None:
        """Stop writing, wait for the acknowledgements and disconnect.

        Raises:
            SandboxError: a record was not acknowledged, so that the truth is lost.
        """
        self.rate = 0.0
        if self._task is not None:
            await _end(self._task, self._sending)
            self._task = None
        if self._client is not None:
            await self._client.stop()
            self._client = None
            await self._answered.wait()
        self._raise_error()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.stop()

    async def _steadily(self) -> None:
        pace = Pace(time.monotonic())
        try:
            while True:
                async with self._sending:
                    due = pace.due(self.rate, time.monotonic())
                    for _ in range(due):
                        await self._send_one()
                    pace.spend(due)
                await asyncio.sleep(TICK_SECONDS)
        except (KafkaError, SandboxError, OSError) as exc:
            self.error = self.error or exc

    async def _send_one(self) -> int:
        if self._client is None:
            msg = f"writing to topic {self.topic}: this producer is not started"
            raise SandboxError(msg)
        partition, stamp = next(self._turns), self.timestamps()
        key, value = self._value(partition, self._given[partition], stamp)
        answer = await self._client.send(self.topic, value, key, partition=partition, timestamp_ms=stamp)
        self._given[partition] += 1
        self._unanswered += 1
        self._answered.clear()
        answer.add_done_callback(lambda done: self._acknowledge(done, partition, stamp))
        return partition

    def _acknowledge(self, answer: asyncio.Future[Any], partition: int, stamp_ms: int) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._answered.set()
        if answer.cancelled():
            self.error = self.error or SandboxError("the record was given up before it was acknowledged")
        elif (failure := answer.exception()) is not None:
            self.error = self.error or failure
        else:
            self._count(answer.result().offset, partition, stamp_ms)

    def _count(self, offset: int, partition: int, stamp_ms: int) -> None:
        stamps = self.stamps_ms[partition]
        if offset != len(stamps):
            text = f"record {len(stamps)} of partition {partition} lies at offset {offset}: somebody else writes to it"
            self.error = self.error or SandboxError(text)
        stamps.append(stamp_ms)

    def _raise_error(self) -> None:
        if self.error is not None:
            msg = f"writing to topic {self.topic} of {self._bootstrap}: {_said(self.error)}"
            raise SandboxError(msg) from self.error


# --- consumer ---------------------------------------------------------------------------------------


class Consumer:
    """One member of a consumer group that processes at most ``speed`` records a second and knows what it committed.

    ``processed`` counts records by partition; ``committed`` has the offset last committed, and acknowledged as such.
    ``speed`` may be set at any moment. After ``close`` or ``kill`` it can be started again; its counts go on.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topic: str,
        speed: float,
        *,
        client_id: str | None = None,
        commit_every_seconds: float = 0.5,
        session_timeout_seconds: float = 10.0,
    ) -> None:
        self.group = group
        self.topic = topic
        self.speed = speed
        self.processed: Counter[TopicPartition] = Counter()
        self.committed: dict[TopicPartition, int] = {}
        self.error: BaseException | None = None
        self._options = {
            "bootstrap_servers": bootstrap,
            "client_id": client_id or group,
            "session_timeout_ms": round(session_timeout_seconds * 1000),
            "heartbeat_interval_ms": round(session_timeout_seconds * 1000 / 3),
        }
        self._commit_every_seconds = commit_every_seconds
        self._uncommitted: dict[TopicPartition, int] = {}
        self._paused = False
        self._turn = 0
        self._assigned = asyncio.Event()
        self._working = asyncio.Lock()
        self._client: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def bootstrap(self) -> str:
        """Return the brokers it was given."""
        return str(self._options["bootstrap_servers"])

    def truth(self) -> dict[TopicPartition, int]:
        """Return the committed offset of every partition this member committed."""
        return dict(self.committed)

    async def start(self) -> None:
        """Connect, join the group and begin to read; returns once the group has given partitions, or none.

        Raises:
            SandboxError: the brokers cannot be reached, or the group does not let it in.
        """
        self._assigned.clear()
        client = AIOKafkaConsumer(
            group_id=self.group, enable_auto_commit=False, auto_offset_reset="earliest", **self._options
        )
        client.subscribe([self.topic], listener=_Rebalances(self._commit, self._assigned))
        await _connect(
            client.start, client.stop, f"reading topic {self.topic} of {self.bootstrap} as group {self.group}"
        )
        self._client = client
        self._task = asyncio.create_task(self._steadily(), name=f"consumer of group {self.group}")
        try:
            await asyncio.wait_for(self._assigned.wait(), READY_SECONDS)
        except TimeoutError as exc:
            await self.kill()
            msg = f"joining group {self.group} of {self.bootstrap}: not let in within {READY_SECONDS:g} s"
            raise SandboxError(msg) from exc

    def slow_down(self, speed: float) -> None:
        """Process at most ``speed`` records a second from now on."""
        self.speed = speed

    async def pause(self) -> None:
        """Process nothing more while staying a member, and return once all that was processed is committed.

        Raises:
            SandboxError: it broke before.
        """
        self._paused = True
        async with self._working:
            await self._commit()
        self._raise_error()

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._paused = False

    async def close(self) -> None:
        """Commit what was processed and leave the group.

        Raises:
            SandboxError: it broke before.
        """
        if self._task is not None:
            await _end(self._task, self._working)
            self._task = None
        if self._client is not None:
            if self.error is None:
                await self._commit()
            await self._client.stop()
            self._client = None
        self._raise_error()

    async def kill(self) -> None:
        """Go without a word, like a crash: nothing is committed, and the group learns it by the session timeout."""
        if self._task is not None:
            await _end(self._task, self._working)
            self._task = None
        if self._client is not None:
            # Without a generation aiokafka sends no LeaveGroup when it is stopped; there is no public way.
            self._client._coordinator.reset_generation()  # noqa: SLF001
            self._uncommitted.clear()
            await self._client.stop()
            self._client = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def _steadily(self) -> None:
        pace, last_commit = Pace(time.monotonic()), time.monotonic()
        try:
            while True:
                async with self._working:
                    if not self._paused:
                        pace.spend(await self._process(pace.due(self.speed, time.monotonic())))
                    if time.monotonic() - last_commit >= self._commit_every_seconds:
                        await self._commit()
                        last_commit = time.monotonic()
                await asyncio.sleep(TICK_SECONDS)
        except (KafkaError, OSError) as exc:
            self.error = exc

    async def _process(self, due: int) -> int:
        """Process up to ``due`` records, shared out evenly over the partitions, and return how many there were."""
        left, client = due, self._client
        assert client is not None  # noqa: S101 (only the running task calls this)
        partitions = sorted(client.assignment())
        self._turn += 1  # a small share goes to another partition first each time
        for done in range(len(partitions)):
            partition = partitions[(self._turn + done) % len(partitions)]
            share = math.ceil(left / (len(partitions) - done))
            if share > 0:
                read = await client.getmany(partition, timeout_ms=0, max_records=share)
                left -= sum(self._count(where, records) for where, records in read.items())
        return due - left

    def _count(self, where: Assigned, records: Sequence[Any]) -> int:
        key = TopicPartition(where.topic, where.partition)
        self.processed[key] += len(records)
        self._uncommitted[key] = records[-1].offset + 1
        return len(records)

    async def _commit(self) -> None:
        if not self._uncommitted or self._client is None:
            return
        offsets = dict(self._uncommitted)
        try:
            await self._client.commit({Assigned(*key): offset for key, offset in offsets.items()})
        except CommitFailedError:
            # The group went on without this member: whoever owns the partitions now reads from the last commit.
            self._uncommitted.clear()
            return
        except BaseException:
            # Whether the broker has it is unknown, and unknown is not a count.
            for key in offsets:
                self.committed.pop(key, None)
            raise
        self.committed.update(offsets)
        for key, offset in offsets.items():
            if self._uncommitted.get(key) == offset:
                del self._uncommitted[key]

    def _raise_error(self) -> None:
        if self.error is not None:
            msg = f"reading topic {self.topic} of {self.bootstrap} as group {self.group}: {_said(self.error)}"
            raise SandboxError(msg) from self.error


class _Rebalances:
    """Commits before partitions go to another member, and tells when the group has given some."""

    def __init__(self, commit: Callable[[], Awaitable[None]], assigned: asyncio.Event) -> None:
        self._commit = commit
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: object) -> None:
        await self._commit()

    async def on_partitions_assigned(self, assigned: object) -> None:
        self._assigned.set()


# A virtual subclass: aiokafka insists on its own base class, whose type it does not declare.
ConsumerRebalanceListener.register(_Rebalances)


def lag_records(producer: Producer, consumer: Consumer) -> list[int | None]:
    """Return the lag of each partition as the two loads have counted it, None where nothing is committed."""
    committed = [consumer.committed.get(TopicPartition(producer.topic, index)) for index in range(len(producer.sent))]
    return [None if done is None else sent - done for sent, done in zip(producer.sent, committed, strict=True)]


# --- groups that only commit ------------------------------------------------------------------------


async def commit_only(bootstrap: str, groups: Mapping[str, Mapping[TopicPartition, int]], *, at_once: int = 16) -> None:
    """Commit offsets for groups without members: one FindCoordinator and one OffsetCommit a group.

    OffsetCommit without a member (generation -1 and no member id) is accepted while the group is empty.

    Raises:
        SandboxError: the brokers cannot be reached, a commit is refused, or no coordinator answers for too long.
    """
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await _connect(client.bootstrap, client.close, f"committing at {bootstrap}")
    turns_at_once = asyncio.Semaphore(at_once)

    async def one(group: str, offsets: Mapping[TopicPartition, int]) -> None:
        async with turns_at_once:
            await _commit_group(client, group, offsets)

    try:
        async with asyncio.TaskGroup() as tasks:
            for group, offsets in groups.items():
                tasks.create_task(one(group, offsets))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        await client.close()


async def _commit_group(client: AIOKafkaClient, group: str, offsets: Mapping[TopicPartition, int]) -> None:
    by_topic: dict[str, list[tuple[int, int, str]]] = {}
    for (topic, partition), offset in offsets.items():
        by_topic.setdefault(topic, []).append((partition, offset, ""))
    request = OffsetCommitRequest(group, -1, "", -1, list(by_topic.items()))
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
            answer = await client.send(coordinator, request, group=ConnectionGroup.COORDINATION)
            refused = [for_code(code) for _, partitions in answer.topics for _, code in partitions if code]
            if not refused:
                return
            raise refused[0]
        except COORDINATOR_MOVING as exc:
            if time.monotonic() > deadline:
                msg = f"committing for group {group}: {_said(exc)} for {READY_SECONDS:g} s"
                raise SandboxError(msg) from exc
            await client.force_metadata_update()
            await asyncio.sleep(RETRY_SECONDS)
        except KafkaError as exc:
            msg = f"committing for group {group}: {_said(exc)}"
            raise SandboxError(msg) from exc


# --- shared -----------------------------------------------------------------------------------------


async def _connect(start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]], doing: str) -> None:
    """Start an aiokafka client, or leave nothing behind and say what was tried."""
    try:
        await start()
    except BaseException as exc:
        await stop()
        if not isinstance(exc, (KafkaError, OSError)):
            raise
        msg = f"{doing}: {_said(exc)}"
        raise SandboxError(msg) from exc


async def _end(task: asyncio.Task[None], working: asyncio.Lock) -> None:
    """End a load's task between two turns, or in the middle of one that takes longer than the grace.

    Raises whatever ended it before, unless the load knows it as its ``error``.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS), working:
            task.cancel()
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def _said(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
