"""The records on ``streamgauge.faust``: what ``streamgauge.faust`` writes, schema 1, read into the model's words.

Whoever may write to the topic decides what is in a record. What does not follow the schema is refused, with a reason
that is one of a few, and how much is kept is bounded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from monitor.model import Consumer, DurationHistogram, FaustAgent, FaustWorker, Kind

SCHEMA = 1
LARGEST = 1_000_000
"""Bytes of a record: a worker with a thousand agents and ten thousand partitions."""
MOST_AGENTS = 1000
MOST_PARTITIONS = 100_000
MOST_OUTCOMES = 100
LONGEST_NAME = 300
STATES = frozenset({"starting", "rebalancing", "recovering", "running", "stopped"})


class RefusedError(Exception):
    """A record is no report; the text says why."""


def read_report(value: bytes | None) -> FaustWorker:
    """Return what a worker said.

    Raises:
        RefusedError: it does not follow the schema.
    """
    if value is None or len(value) > LARGEST:
        raise RefusedError("empty, or larger than is taken")
    try:
        told = json.loads(value)
    except (ValueError, RecursionError) as exc:
        raise RefusedError("not JSON") from exc
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise RefusedError("of a schema that is not known here")
    try:
        return _worker(told)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise RefusedError("a field is missing or of another kind") from exc


def _worker(told: Mapping[str, Any]) -> FaustWorker:
    commits, rebalances, recovery = told["commits"], told["rebalances"], told["recovery"]
    state = told["state"]
    if state not in STATES:
        raise ValueError(state)
    bounds = tuple(_seconds(each) for each in told["bounds_seconds"])
    if list(bounds) != sorted(set(bounds)):
        raise ValueError(bounds)
    agents = tuple(_agent(each, bounds) for each in _few(told["agents"], MOST_AGENTS))
    if len({(each.agent, each.topic) for each in agents}) < len(agents):
        raise ValueError(agents)  # two series of the same name
    assigned = told["assigned"]
    return FaustWorker(
        consumer=Consumer(Kind.GROUP, _name(told["app"])),
        worker=_name(told["worker"]),
        state=state,
        reported_at=_seconds(told["at"]),
        started_at=_seconds(told["started_at"]),
        interval_seconds=_seconds(told["interval_seconds"]),
        agents=agents,
        commits_total=_count(commits["count"]),
        commit_age_seconds=_or_none(_seconds, commits["age_seconds"]),
        uncommitted_seconds=_or_none(_seconds, commits["waiting_seconds"]),
        rebalances_total=_count(rebalances["count"]),
        rebalancing_seconds_total=_seconds(rebalances["seconds"]),
        last_rebalance_seconds=_or_none(_seconds, rebalances["last_seconds"]),
        recovering=_or_none(_flag, recovery["running"]),
        recovery_remaining=_or_none(_count, recovery["remaining"]),
        tables={_name(each["table"]): _or_none(_count, each["entries"]) for each in _few(told["tables"], MOST_AGENTS)},
        assigned=None if assigned is None else _assigned(assigned),
        buffer_full_total=sum(_count(each) for each in told["buffer_full"].values()),
        dropped_reports=_count(told["dropped_reports"]),
        outcomes=_outcomes(told.get("outcomes", {})),  # copies of the sensor from before it told them
    )


def _agent(told: Mapping[str, Any], bounds: Sequence[float]) -> FaustAgent:
    counts = [_count(each) for each in told["durations"]]
    if len(counts) != len(bounds) + 1:
        raise ValueError(counts)
    running = [sum(counts[: place + 1]) for place in range(len(bounds))]
    return FaustAgent(
        agent=_name(told["agent"], least=0),
        topic=_name(told["topic"], least=0),
        events_total=_count(told["events"]),
        errors_total=_count(told["errors"]) + _count(told["decode_errors"]),
        durations=DurationHistogram(tuple(bounds), tuple(running), sum(counts), _seconds(told["seconds"])),
        buffered=_or_none(_count, told["buffered"]),
        buffer_size=_or_none(_count, told["buffer_size"]),
    )


def _assigned(told: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    if sum(map(len, told.values())) > MOST_PARTITIONS:
        raise ValueError(len(told))
    return {_name(topic): tuple(map(_count, partitions)) for topic, partitions in told.items()}


def _outcomes(told: Mapping[str, Any]) -> dict[str, int]:
    if len(told) > MOST_OUTCOMES:
        raise ValueError(len(told))
    return {_name(word): _count(records) for word, records in told.items()}


# --- fields -----------------------------------------------------------------------------------------


def _name(value: Any, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= LONGEST_NAME:
        raise ValueError(value)
    return value


def _count(value: Any) -> int:
    # Larger numbers than Kafka's own are refused: columns hold 64 bits.
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError(value)
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value < math.inf):
        raise ValueError(value)
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _or_none(read: Any, value: Any) -> Any:
    return None if value is None else read(value)


def _few(values: Any, most: int) -> Sequence[Any]:
    if not isinstance(values, list) or len(values) > most:
        raise ValueError(values)
    return values
