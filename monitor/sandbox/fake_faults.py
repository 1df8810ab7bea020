"""How a fake broker misbehaves: what it does about one request, and the actions that change it. Pure.

A healthy broker's ``Reaction`` is its answer at once. Every action that is scripted for a request changes the
reaction in turn. Whoever carries the reaction out (``fake.FakeCluster``: over TCP, or in process under any clock)
waits, sends and breaks connections; nothing here does.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from kio.schema.errors import ErrorCode as KioErrorCode

from monitor.sandbox.fake_answers import Header, decode_answer, encode_answer


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a broker does about one request."""

    body: bytes | None
    """The body of its answer; None: it never answers, and keeps the connection open."""
    delay_seconds: float = 0.0
    """How long it waits before that."""
    cut: int | None = None
    """After so many bytes of the answer (size and header included) it closes the connection; None: it does not."""


class Action(Protocol):
    """Something scripted: ``before`` the request is answered, and on the reaction."""

    def before(self) -> None:
        """Change the truth before the answer is made."""

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Return the changed reaction."""
        ...


class _Action:
    def before(self) -> None:
        """Do nothing."""

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Leave it as it is."""
        del header
        return reaction


@dataclass(frozen=True)
class Delay(_Action):
    """Answer late."""

    seconds: float

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Add the delay."""
        del header
        return dataclasses.replace(reaction, delay_seconds=reaction.delay_seconds + self.seconds)


@dataclass(frozen=True)
class Hang(_Action):
    """Never answer, and keep the connection open."""

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Take the answer away."""
        del header
        return dataclasses.replace(reaction, body=None)


@dataclass(frozen=True)
class Disconnect(_Action):
    """Close the connection instead of answering."""

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Cut before the first byte."""
        del header
        return dataclasses.replace(reaction, cut=0)


@dataclass(frozen=True)
class Tear(_Action):
    """Send the first ``keep`` bytes of the answer, size and header included, then close the connection."""

    keep: int

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Cut there."""
        del header
        return dataclasses.replace(reaction, cut=self.keep)


@dataclass(frozen=True)
class Truncate(_Action):
    """Answer with the first ``keep`` bytes of the body only (without the last ``-keep`` if negative), well framed."""

    keep: int

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Shorten the body."""
        del header
        return reaction if reaction.body is None else dataclasses.replace(reaction, body=reaction.body[: self.keep])


@dataclass(frozen=True)
class Garbage(_Action):
    """Answer with random bytes in place of the body, well framed; the same for the same seed."""

    size: int | None = None
    """How many; None: as many as the answer would have had."""
    seed: int = 0

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Replace the body."""
        del header
        if reaction.body is None:
            return reaction
        size = len(reaction.body) if self.size is None else self.size
        return dataclasses.replace(reaction, body=random.Random(self.seed).randbytes(size))  # noqa: S311


@dataclass(frozen=True)
class Corrupt(_Action):
    """Flip bits: XOR the byte at each place of the body (negative: from its end) with the value given."""

    flips: tuple[tuple[int, int], ...]

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Change the bytes."""
        del header
        if reaction.body is None:
            return reaction
        body = bytearray(reaction.body)
        for at, value in self.flips:
            body[at] ^= value
        return dataclasses.replace(reaction, body=bytes(body))


@dataclass(frozen=True)
class Lie(_Action):
    """Change the answer as kio reads it: ``change`` takes and returns the response entity."""

    change: Callable[[Any], Any]

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Decode, change, encode."""
        if reaction.body is None:
            return reaction
        entity = self.change(decode_answer(header, reaction.body))
        return dataclasses.replace(reaction, body=encode_answer(entity))


@dataclass(frozen=True)
class ErrorCode(_Action):
    """Answer with an error, as the API does: for all that was asked, or for the groups or topics named only."""

    code: int
    names: Collection[str] = ()

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Put the code where the API has it, in place of what it would have said."""
        return Lie(lambda entity: _FAIL[header.api](entity, KioErrorCode(self.code), self.names)).on(header, reaction)


@dataclass(frozen=True)
class Omit(_Action):
    """Leave groups, topics (by name) or partitions (by number, of those topics or of all) out of the answer."""

    groups: Collection[str] = ()
    topics: Collection[str] = ()
    partitions: Collection[int] = ()

    def on(self, header: Header, reaction: Reaction) -> Reaction:
        """Filter every array of the answer."""
        return Lie(self._filter).on(header, reaction)

    def _filter(self, entity: Any, *, within: bool = True) -> Any:
        if not dataclasses.is_dataclass(entity) or isinstance(entity, type):
            return entity
        topic = _topic_name(entity)
        within = within if topic is None or not self.topics else topic in self.topics
        changes = {}
        for each in dataclasses.fields(entity):
            value = getattr(entity, each.name)
            if isinstance(value, tuple):
                changes[each.name] = tuple(
                    self._filter(item, within=within) for item in value if not self._is_omitted(item, within=within)
                )
        return dataclasses.replace(entity, **changes)

    def _is_omitted(self, item: Any, *, within: bool) -> bool:
        if self.partitions:
            return within and getattr(item, "partition_index", None) in self.partitions
        return getattr(item, "group_id", None) in self.groups or _topic_name(item) in self.topics


@dataclass(frozen=True)
class Call(_Action):
    """Run a function when the request has arrived, before it is answered: the way to race with the client."""

    function: Callable[[], object]

    def before(self) -> None:
        """Run it."""
        self.function()


@dataclass(eq=False)
class Fault:
    """What is scripted for some requests; cancel it to have them answered properly again."""

    api: str | None
    broker: int | None
    actions: tuple[Action, ...]
    times: int | None
    when: Callable[[Header, bytes], bool] | None = None
    happened: int = field(default=0, init=False)
    """How many requests it has met."""

    @property
    def is_over(self) -> bool:
        """Return whether it applies to no request any more."""
        return self.times == self.happened

    def meets(self, broker: int, header: Header, body: bytes) -> bool:
        """Return whether it is about a request."""
        return (
            self.api in {None, header.api}
            and self.broker in {None, broker}
            and (self.when is None or self.when(header, body))
        )

    def cancel(self) -> None:
        """Apply it to no request any more."""
        self.times = self.happened


# --- errors, by API ---------------------------------------------------------------------------------


def _topic_name(entity: Any) -> str | None:
    """Return the name of a topic's entry; the brokers of Metadata have no name, other things no partitions."""
    name = getattr(entity, "topic_name", None) or getattr(entity, "name", None)
    return name if hasattr(entity, "partitions") else None


def _fail_each(array: str, name: str, **blank: Any) -> Callable[[Any, KioErrorCode, Collection[str]], Any]:
    """Put the error into every entry of an array (or those named), blanking the rest of what it says."""

    def fail(entity: Any, code: KioErrorCode, names: Collection[str]) -> Any:
        entries = tuple(
            dataclasses.replace(entry, error_code=code, **blank)
            if not names or getattr(entry, name) in names
            else entry
            for entry in getattr(entity, array)
        )
        return dataclasses.replace(entity, **{array: entries})

    return fail


def _fail_all(**blank: Any) -> Callable[[Any, KioErrorCode, Collection[str]], Any]:
    return lambda entity, code, _names: dataclasses.replace(entity, error_code=code, **blank)


def _fail_partitions(entity: Any, code: KioErrorCode, names: Collection[str], **blank: Any) -> Any:
    fail = _fail_each("partitions", "partition_index", **blank)
    topics = tuple(
        fail(topic, code, ()) if not names or getattr(topic, "name", None) in names else topic
        for topic in entity.topics
    )
    return dataclasses.replace(entity, topics=topics)


def _fail_offset_fetch(entity: Any, code: KioErrorCode, names: Collection[str]) -> Any:
    if hasattr(entity, "groups"):
        return _fail_each("groups", "group_id", topics=())(entity, code, names)
    if hasattr(entity, "error_code"):
        return _fail_all(topics=())(entity, code, names)
    return _fail_partitions(entity, code, (), committed_offset=-1)


def _fail_find_coordinator(entity: Any, code: KioErrorCode, names: Collection[str]) -> Any:
    blank = {"node_id": -1, "host": "", "port": -1}
    if hasattr(entity, "coordinators"):
        return _fail_each("coordinators", "key", **blank)(entity, code, names)
    return _fail_all(**blank)(entity, code, names)


_FAIL: dict[str, Callable[[Any, KioErrorCode, Collection[str]], Any]] = {
    "ListOffsets": lambda entity, code, names: _fail_partitions(entity, code, names, offset=-1, timestamp=-1),
    "Metadata": _fail_each("topics", "name", partitions=()),
    "OffsetFetch": _fail_offset_fetch,
    "FindCoordinator": _fail_find_coordinator,
    "DescribeGroups": _fail_each("groups", "group_id", group_state="", members=()),
    "ListGroups": _fail_all(groups=()),
    "ApiVersions": _fail_all(api_keys=()),
    "ConsumerGroupDescribe": _fail_each("groups", "group_id", group_state="", members=()),
    "ShareGroupDescribe": _fail_each("groups", "group_id", group_state="", members=()),
    "StreamsGroupDescribe": _fail_each("groups", "group_id", group_state="", members=(), topology=None),
    "DescribeShareGroupOffsets": _fail_each("groups", "group_id", topics=()),
}
