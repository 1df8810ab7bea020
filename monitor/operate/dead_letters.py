"""Dead letters: what a processor could not work on, and sending it back to where it came from.

    read   the letters of a topic, and which of them have been replayed already
    plan   where each would go, or why it cannot
    apply  send them, wait until they are there, then note that on the topic of dead letters

**Nothing is lost.** Letters stay where they are. Each that is sent is noted only when the brokers have acknowledged it,
by a *mark*: a record on the topic of dead letters itself, with the header ``streamgauge.replayed`` and the offsets as
JSON. What is interrupted in between is sent once more the next time; what was sent twice is the processor's to see.

A letter says where it was by the headers ``streamgauge.topic``, ``.partition``, ``.offset`` and ``.error`` (older
ones: ``topic``, ``partition``, ``offset`` and ``reason``). It is sent back to its topic and partition as it came,
without what was added. Not sent back are letters

- that came from a topic of a processor's own, behind ``key_by``: there a record is known by its place in the source,
  and is passed over when it comes again;
- that are results of windows rather than records;
- whose key and value were left out because they were too large.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from monitor.errors import UnreachableError, UsageError
from monitor.observe.kafka.clients import client_options
from monitor.settings import Cluster

PREFIX = "streamgauge."
REPLAYED = "streamgauge.replayed"
LEFT_OUT = "streamgauge.left_out"
INTERNAL = "-repartition"
RESULT = frozenset({"key", "start", "end", "value", "final", "partial"})
"""The fields of a window's result (``processors.windows.Result``)."""

STANDSTILL_SECONDS = 30.0
"""Without a record for so long, reading has failed."""

AT_ONCE = 500
"""Letters that are on their way together."""

Headers = tuple[tuple[str, bytes], ...]


class Place(NamedTuple):
    """Where a record was; offset None where that is not known."""

    topic: str
    partition: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter; ``at`` is the time of its record in seconds since the epoch."""

    place: Place
    at: float
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def origin(self) -> Place | None:
        """Return where it came from, None if it does not say so."""
        topic, partition, offset = (self._said(name) for name in ("topic", "partition", "offset"))
        if topic is None or partition is None or not partition.isdecimal():
            return None
        return Place(topic, int(partition), int(offset) if offset is not None and offset.isdecimal() else None)

    @property
    def error(self) -> str:
        """Return why it is one, as it says."""
        return self._said("error") or self._said("reason") or ""

    @property
    def as_it_came(self) -> Headers:
        """Return the headers of the record it was."""
        added = {"reason", "topic", "partition", "offset"} if self._is_older else set()
        return tuple(each for each in self.headers if not each[0].startswith(PREFIX) and each[0] not in added)

    @property
    def _is_older(self) -> bool:
        return not any(name == f"{PREFIX}topic" for name, _ in self.headers)

    def _said(self, name: str) -> str | None:
        wanted = name if self._is_older else PREFIX + name
        # The last one is the letter's own: a record that was a letter before brings the others with it.
        return next(
            (value.decode(errors="replace") for known, value in reversed(self.headers) if known == wanted), None
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant; empty texts mean all."""

    error: str = ""
    origin: str = ""
    key: str = ""
    again: bool = False

    def takes(self, letter: Letter) -> bool:
        """Return whether a letter is meant, whether or not it has been replayed."""
        return (
            self.error.casefold() in letter.error.casefold()
            and (not self.origin or (letter.origin is not None and letter.origin.topic == self.origin))
            and (not self.key or letter.key == self.key.encode())
        )


@dataclass(slots=True)
class Found:
    """The first of the letters that are meant, how many there are in all, and how many had been replayed."""

    letters: list[Letter] = field(default_factory=list)
    count: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A letter and where it goes; ``target`` None: it cannot, and ``why``."""

    letter: Letter
    target: Place | None
    why: str = ""


def is_mark(headers: Headers) -> bool:
    """Return whether a record on a topic of dead letters is a mark."""
    return any(name == REPLAYED for name, _ in headers)


def marked(value: bytes | None) -> dict[int, set[int]]:
    """Return the offsets by partition that a mark names; none for what is no mark of ours."""
    try:
        return {int(partition): set(map(int, offsets)) for partition, offsets in json.loads(value or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def plan(letters: Iterable[Letter], partitions: Mapping[str, int], to: str | None = None) -> list[Step]:
    """Return what would become of letters; ``partitions`` are the topics there are, ``to`` is another target."""
    return [_step(each, partitions, to) for each in letters]


def _step(letter: Letter, partitions: Mapping[str, int], to: str | None) -> Step:
    if any(name == LEFT_OUT for name, _ in letter.headers):
        return Step(letter, None, "its key and value were left out, as they were too large")
    if to is not None:
        return Step(letter, Place(to, -1))
    origin = letter.origin
    why = _why_not(letter, origin, partitions)
    if origin is None or why:
        return Step(letter, None, f"{why}: name a topic with --to")
    return Step(letter, Place(origin.topic, origin.partition if origin.partition < partitions[origin.topic] else -1))


def _why_not(letter: Letter, origin: Place | None, partitions: Mapping[str, int]) -> str:
    """Return why a letter cannot go back to where it came from; nothing if it can."""
    if origin is None:
        return "it does not say where it came from"
    reasons = (
        (origin.topic.endswith(INTERNAL), f"it came from {origin.topic}, where it would be passed over"),
        (_is_result(letter), "it is a window's result and no record"),
        (origin.topic not in partitions, f"there is no topic {origin.topic} any more"),
    )
    return next((text for is_so, text in reasons if is_so), "")


def _is_result(letter: Letter) -> bool:
    try:
        value = json.loads(letter.value or b"")
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.keys() == RESULT


# --- the edge ---------------------------------------------------------------------------------------


class DeadLetters:
    """Reads and replays the dead letters of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._options = client_options(cluster)

    async def topics(self) -> dict[str, int]:
        """Return the topics with their number of partitions.

        Raises:
            UnreachableError: no broker answers.
        """
        client = AIOKafkaClient(**self._options)
        try:
            async with asyncio.timeout(self._cluster.timeout_seconds):
                await client.bootstrap()
                seen = await client.fetch_all_metadata()
            names = seen.topics(exclude_internal_topics=False)
            return {name: len(seen.partitions_for_topic(name) or ()) for name in names}
        except (KafkaError, OSError, TimeoutError) as exc:
            raise self._unreachable("listing topics", exc) from exc
        finally:
            await client.close()

    async def read(self, topic: str, wanted: Wanted, limit: int) -> Found:
        """Return the letters of a topic that are meant, oldest first.

        It is read twice, as what has been replayed is noted behind the letters; only what is returned is kept.

        Raises:
            UsageError: there is no such topic.
            UnreachableError: the brokers do not answer, or refuse.
        """
        count = (await self.topics()).get(topic)
        if not count:
            problem = f"{topic}: there is no such topic in cluster {self._cluster.name}, or we may not see it"
            raise UsageError(problem)
        parts = [TopicPartition(topic, number) for number in range(count)]
        consumer = AIOKafkaConsumer(**self._options, enable_auto_commit=False, auto_offset_reset="earliest")
        try:
            await consumer.start()
            consumer.assign(parts)
            ends = await consumer.end_offsets(parts)
            done: defaultdict[int, set[int]] = defaultdict(set)
            async for record in _records(consumer, ends):
                if is_mark(record.headers):
                    for partition, offsets in marked(record.value).items():
                        done[partition] |= offsets
            found = Found()
            async for record in _records(consumer, ends):
                letter = _letter(record)
                if is_mark(record.headers) or not wanted.takes(letter):
                    continue
                if record.offset in done[record.partition] and not wanted.again:
                    found.replayed += 1
                    continue
                found.count += 1
                if found.count <= limit:
                    found.letters.append(letter)
        except (KafkaError, OSError, TimeoutError) as exc:
            what = f"reading {topic}"
            raise self._unreachable(what, exc) from exc
        else:
            return found
        finally:
            await consumer.stop()

    async def apply(self, steps: Sequence[Step]) -> list[tuple[Step, str]]:
        """Send letters where they go and note which are there; return those that failed, with why.

        Raises:
            UnreachableError: no broker answers, or what was sent could not be noted: it would be sent again.
        """
        # Not idempotent: after a refused batch such a producer's sequence has a gap, and all that follows is refused.
        producer = AIOKafkaProducer(**self._options, acks="all")
        failed: list[tuple[Step, str]] = []
        going = [each for each in steps if each.target is not None]
        try:
            await producer.start()
            for first in range(0, len(going), AT_ONCE):
                some = going[first : first + AT_ONCE]
                problems = []
                for step in await self._failing(producer, some):
                    # Brokers refuse a batch as a whole: by itself a letter fails for its own fault only.
                    exc = await self._alone(producer, step)
                    problems += [(step, exc)] if exc is not None else []
                failed += [(step, f"{type(exc).__name__}: {exc}") for step, exc in problems]
                bad = {id(step) for step, _ in problems}
                await self._mark(producer, [step.letter.place for step in some if id(step) not in bad])
        except (KafkaError, OSError, TimeoutError) as exc:
            raise self._unreachable("replaying dead letters", exc) from exc
        finally:
            await producer.stop()
        return failed

    async def _failing(self, producer: AIOKafkaProducer, steps: Sequence[Step]) -> list[Step]:
        answers = await asyncio.gather(*(self._send(producer, each) for each in steps), return_exceptions=True)
        return [step for step, exc in zip(steps, answers, strict=True) if exc is not None]

    async def _alone(self, producer: AIOKafkaProducer, step: Step) -> Exception | None:
        try:
            await self._send(producer, step)
        except (KafkaError, OSError, TimeoutError) as exc:
            return exc
        return None

    async def _send(self, producer: AIOKafkaProducer, step: Step) -> None:
        target, letter = step.target, step.letter
        assert target is not None  # noqa: S101 - the caller's filter
        await producer.send_and_wait(
            target.topic,
            letter.value,
            letter.key,
            partition=None if target.partition < 0 else target.partition,
            headers=list(letter.as_it_came),
        )

    async def _mark(self, producer: AIOKafkaProducer, places: Sequence[Place]) -> None:
        by_topic: defaultdict[str, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for topic, partition, offset in places:
            by_topic[topic][partition].append(offset or 0)
        for topic, offsets in by_topic.items():
            told = json.dumps({str(partition): sorted(each) for partition, each in offsets.items()}).encode()
            await producer.send_and_wait(topic, told, partition=0, headers=[(REPLAYED, b"1")])

    def _unreachable(self, what: str, exc: BaseException) -> UnreachableError:
        why = " ".join(str(exc).split()) or type(exc).__name__
        return UnreachableError(
            f"{what} at {self._cluster.bootstrap_servers} failed: {type(exc).__name__}: {why}: "
            "check addresses, log-in and permissions with streamgauge doctor"
        )


async def _records(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> AsyncIterator[Any]:
    """Yield all records before these ends, from the beginning.

    Raises:
        TimeoutError: Nothing came for STANDSTILL_SECONDS.
    """
    await consumer.seek_to_beginning(*ends)
    left = {part for part, end in ends.items() if await consumer.position(part) < end}
    while left:
        async with asyncio.timeout(STANDSTILL_SECONDS):
            batches = await consumer.getmany(*left, timeout_ms=1000)
            # Positions move over what is no record (control records, gaps of compaction) as well.
            ended = {part for part in left if await consumer.position(part) >= ends[part]}
        for part, records in batches.items():
            for record in records:
                if record.offset < ends[part]:
                    yield record
        left -= ended


def _letter(record: Any) -> Letter:
    headers = tuple((name, value or b"") for name, value in record.headers)
    place = Place(record.topic, record.partition, record.offset)
    return Letter(place, record.timestamp / 1000, record.key, record.value, headers)
