"""The files of a checkpoint, parsed and checked: ``metadata``, ``offsets/N``, ``commits/N`` and ``sources/I/0``.

Offset log versions 1 and 2 and commit log versions 1 and 2 (Spark 2.1 to 4.3) are known. Only sources whose offsets
look like Kafka's, ``{"topic": {"0": 42}}``, have positions; any other has None. Nothing here trusts a file: what is
torn, of the wrong type, too deep or out of Kafka's range is a ``CheckpointError``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from monitor.model import TopicPartition

INT64_MAX = 2**63 - 1
"""Kafka's offsets and times are signed 64-bit integers."""

INT32_MAX = 2**31 - 1
"""Kafka's partition numbers are signed 32-bit integers."""

TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")
"""What Kafka allows as the name of a topic."""

LONGEST_QUERY_ID = 100
"""Spark writes a UUID of 36 characters."""

SHOWN = 40
"""Characters of a file that a message quotes at most."""

Positions = Mapping[TopicPartition, int]

Sources = Mapping[str, Positions | None]
"""Each source's positions by its place or name; None where they are not like Kafka's."""

T = TypeVar("T")


class CheckpointError(Exception):
    """A checkpoint could not be read; ``error`` is the short name of why."""

    def __init__(self, error: str, detail: str) -> None:
        self.error = error
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class OffsetsFile:
    """``offsets/N``: what batch N shall read up to.

    ``batch_timestamp_ms`` is None in continuous mode; ``watermark`` is in effect in this batch, in seconds since the
    epoch, None where there is none; ``pinned`` are the settings that the query is held to.
    """

    batch_timestamp_ms: int | None
    sources: Sources
    watermark: float | None = None
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommitFile:
    """``commits/N``: the watermark for the next batch in seconds since the epoch, None where there is none."""

    watermark: float | None


def parse_query_id(text: str) -> str:
    """Return the query id that ``metadata`` holds."""
    query_id = _json(text, dict).get("id")
    if not isinstance(query_id, str) or not 0 < len(query_id) <= LONGEST_QUERY_ID or not query_id.isprintable():
        raise CheckpointError("MALFORMED", "no query id in it")
    return query_id


def parse_offsets(text: str) -> OffsetsFile:
    """Parse an offset log entry of version 1 (a line a source, in plan order) or 2 (``source:offset`` lines).

    Raises:
        CheckpointError: it is torn, or of a version unknown here.
    """
    version, header, *lines = _lines(text, versions=("v1", "v2"), at_least=3)
    numbered = (line.partition(":")[::2] for line in lines) if version == "v2" else enumerate(lines)
    sources = {str(source): _source_positions(offset) for source, offset in numbered}
    if not header:  # continuous mode
        return OffsetsFile(None, sources)
    fields = _json(header, dict)
    pinned = fields.get("conf")
    return OffsetsFile(
        _integer(fields, "batchTimestampMs"),
        sources,
        _watermark(_integer({"batchWatermarkMs": 0, **fields}, "batchWatermarkMs")),
        {key: value for key, value in pinned.items() if isinstance(value, str)} if isinstance(pinned, dict) else {},
    )


def parse_commit(text: str) -> CommitFile:
    """Parse a commit log entry of version 1 or 2, which differ only in the state's ids.

    Raises:
        CheckpointError: it is torn, or of a version unknown here.
    """
    _, body, *_ = _lines(text, versions=("v1", "v2"), at_least=2)
    # Spark 2.1 wrote an empty object.
    return CommitFile(_watermark(_integer({"nextBatchWatermarkMs": 0, **_json(body, dict)}, "nextBatchWatermarkMs")))


def parse_initial_offsets(text: str) -> Positions | None:
    """Parse ``sources/I/0``, where Spark's Kafka source keeps what it started from; None if it is not like Kafka's.

    Other sources keep what they like under that name.
    """
    # Spark puts a zero byte in front, for readers as old as 2.1 (SPARK-19517).
    version, _, offsets = text.removeprefix("\0").partition("\n")
    try:
        return _source_positions(offsets.strip()) if version == "v1" else None
    except CheckpointError:
        return None


def parsed(path: str, text: str, parse: Callable[[str], T]) -> T:
    """Parse the text of a file; the path stands before whatever is wrong with it."""
    try:
        return parse(text)
    except CheckpointError as exc:
        raise CheckpointError(exc.error, f"{path}: {exc}") from exc


def _watermark(milliseconds: int) -> float | None:
    return milliseconds / 1000 if milliseconds > 0 else None


def _lines(text: str, *, versions: Sequence[str], at_least: int) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    if lines[0] not in versions:
        if lines[0][:1] == "v" and lines[0][1:].isdigit():
            raise CheckpointError("UNSUPPORTED", f"version {lines[0]} is not known here ({' and '.join(versions)} are)")
        raise CheckpointError("MALFORMED", f"it does not begin with a version but with {lines[0][:20]!r}")
    if len(lines) < at_least:
        raise CheckpointError("MALFORMED", f"it ends after {len(lines)} lines")
    return lines


def _source_positions(text: str) -> Positions | None:
    """Return the positions in one source's offset: none yet for "-", None for what is not like Kafka's."""
    if text == "-":
        return {}
    if not text.startswith("{"):
        return None
    topics = _json(text, dict)
    if not topics or not all(TOPIC_NAME.fullmatch(name) and _is_partitions(each) for name, each in topics.items()):
        return None
    positions: dict[TopicPartition, int] = {}
    for topic, partitions in topics.items():
        for key, offset in partitions.items():
            if not 0 <= offset <= INT64_MAX:
                raise CheckpointError("MALFORMED", f"{str(offset)[:SHOWN]} is no offset")
            positions[TopicPartition(topic, int(key))] = offset
    return positions


def _is_partitions(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return all(map(_is_partition, value)) and all(type(offset) is int for offset in value.values())


@lru_cache(maxsize=10_000)  # the same few numbers, millions of times
def _is_partition(key: str) -> bool:
    return is_number(key, INT32_MAX)


def is_number(text: str, largest: int = INT64_MAX) -> bool:
    """Return whether a text is a number as Java writes it: digits, no sign, no zero before others."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(largest))):
        return False
    return (text == "0" or text[0] != "0") and int(text) <= largest


def _integer(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= INT64_MAX:
        raise CheckpointError("MALFORMED", f"{name} is {repr(value)[:SHOWN]}")
    return value


def _json(text: str, kind: type[T]) -> T:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise CheckpointError("MALFORMED", f"it is not JSON: {text[:SHOWN]!r}") from exc
    if not isinstance(value, kind):
        raise CheckpointError("MALFORMED", f"it is not a JSON object: {text[:SHOWN]!r}")
    return value
