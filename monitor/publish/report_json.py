"""The report as JSON: the words of the manual, for ``-o json`` and ``/api/v1``.

A value that is unknown is null, and its reason stands under the same name in ``unknown`` beside it. Times are ISO 8601
in UTC with milliseconds, seconds are rounded to microseconds, everything else is as the report has it.

Objects for all positions of a large cluster take a second and a hundred megabytes. So ``json_pieces`` makes and drops
them consumer by consumer, and ``partitions=False`` leaves them out: a consumer then has ``topics`` and
``over_objective`` in place of ``partitions``, which is what a list of consumers needs of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from monitor.model import (
    HEALTHS,
    Basis,
    ClusterReport,
    Consumer,
    FaustWorker,
    Finding,
    GroupFacts,
    Kind,
    LastHour,
    Member,
    RebalanceColumns,
    Report,
    SparkFacts,
    Why,
    why_text,
)

Object: TypeAlias = dict[str, object]

_BASIS: dict[int, str | None] = {Basis.NONE: None, Basis.RECORD: "record", Basis.ARRIVAL: "arrival"}
_OVER_OBJECTIVE = {1: True, 0: False, -1: None}

_NO_REPORT = "no cluster has been read yet"
_IS_SPARK = "a Spark query has none"
_NOT_TOLD = "the broker did not tell"
_NO_MEMBERS = "it has no members"
_NO_EPOCH = "the classic protocol has none"
_NOT_SUBSCRIBED = "what its members subscribe to is not told, or cannot be told from outside"
_NO_BATCH = "no micro-batch was committed yet"
_NOT_IN_FLIGHT = "no micro-batch is in flight"
_NOT_REPORTED = "no listener tells it"


# --- the whole report -------------------------------------------------------------------------------


def report_json(report: Report, *, partitions: bool = True) -> Object:
    """Return the report as JSON values; without ``partitions`` as the module says."""
    return _report(report, lambda cluster: list(_consumers(cluster, partitions=partitions)))


def json_pieces(report: Report, *, partitions: bool = True) -> Iterator[str]:
    """Return the text of ``report_json`` piece by piece.

    The encoder holds the interpreter's lock for as long as one call of it takes: a piece is one consumer, so that
    other threads get their turn in between.
    """
    return _pieces(_report(report, lambda cluster: _consumers(cluster, partitions=partitions)), _DEPTH_OF_CONSUMERS)


def dump(value: object) -> str:
    """Return the JSON text of a value in one line. NaN is an error: an unknown value is null."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def find(report: Report, consumer: Consumer, cluster: str | None = None) -> list[tuple[ClusterReport, int]]:
    """Return where a consumer is: each cluster that has it (or that one alone), and its row there."""
    return [
        (each, each.positions.layout.consumers.index(consumer))
        for each in report.clusters
        if cluster in {None, each.name} and consumer in each.positions.layout.consumers
    ]


def _report(report: Report, consumers: Callable[[ClusterReport], Iterable[Object]]) -> Object:
    at = _time(report.at) if report.clusters else None
    values: Object = {"at": at, "clusters": [_cluster(each, consumers(each)) for each in report.clusters]}
    return values if report.clusters else {**values, "unknown": {"at": _NO_REPORT}}


def _cluster(cluster: ClusterReport, consumers: Iterable[Object]) -> Object:
    return {
        "name": cluster.name,
        "up": cluster.up,
        "sources": [
            {"source": each.source, "observed_at": _time(each.observed_at), "up": each.up}
            | _told(interval_seconds=each.interval_seconds)
            for each in cluster.sources
        ],
        "topics": _topics(cluster),
        "consumers": consumers,
        "findings": [_finding(each) for each in cluster.findings],
        "failures": [
            {"scope": each.scope, "name": each.name, "error": each.error, "detail": each.detail}
            for each in cluster.failures
        ],
    }


def _topics(cluster: ClusterReport) -> list[Object]:
    columns = cluster.topics
    rates = _floats(columns.records_per_second)
    rows = zip(cluster.partitions.layout.topics, columns.partitions.tolist(), rates, columns.records_total, strict=True)
    return [_topic(name, partitions, rate, is_read=total >= 0) for name, partitions, rate, total in rows]


def _topic(name: str, partitions: int, rate: float | None, *, is_read: bool) -> Object:
    reason = why_text(Why.FIRST_READING if is_read else Why.PART_UNKNOWN)
    unknown = {"records_per_second": reason} if rate is None else {}
    return {"name": name, "partitions": partitions, "records_per_second": rate, "unknown": unknown}


def _finding(finding: Finding) -> Object:
    """What does not apply to a kind of finding is left out: only the topic is always there."""
    who, at = finding.consumer, finding.seen_at
    return {"kind": finding.kind, "topic": finding.topic, "text": finding.text} | _told(
        partition=finding.partition,
        consumer=None if who is None else {"kind": who.kind.value, "name": who.name},
        seen_at=None if at is None else _time(at),
        records=finding.records,
        changes=[_told(partition=change.partition, old=change.old, new=change.new) for change in finding.changes]
        or None,
    )


def _told(**values: object) -> Object:
    return {name: value for name, value in values.items() if value is not None}


# --- a consumer -------------------------------------------------------------------------------------


def consumer_json(cluster: ClusterReport, index: int, *, partitions: bool = True) -> Object:
    """Return the consumer in row ``index`` of its cluster, with its partitions or what stands for them."""
    columns, facts, spark = cluster.consumers, cluster.groups[index], cluster.spark.get(index)
    consumer = cluster.positions.layout.consumers[index]
    is_counted = columns.partitions_known[index] + columns.partitions_unknown[index] > 0
    is_counted |= columns.why[index] == Why.NO_POSITIONS
    values: Object = {
        "kind": consumer.kind.value,
        "name": consumer.name,
        "state": facts.state,
        "protocol": facts.protocol,
        "members": _count(columns.members[index]),
        "observed_at": _time(float(at)) if (at := columns.observed_at[index]) == at else None,
        "health": HEALTHS[columns.health[index]].value,
        "evidence": columns.evidence[index],
        "objective_seconds": float(columns.objective_seconds[index]),
        "records_per_second": _number(columns.records_per_second[index]),
        "lag_records": _count(columns.lag_records[index]),
        "lag_seconds": _number(columns.lag_seconds[index]),
        "lag_seconds_bound": _number(columns.lag_seconds_bound[index]),
        "basis": _BASIS[int(columns.basis[index])],
        "assumed": bool(columns.assumed[index]),
        "lost_records": _count(columns.lost_records[index]),
        # A lower bound from no known partition at all says nothing.
        "known_lag_records": _count(columns.known_lag_records[index]) if columns.partitions_known[index] else None,
        "partitions_unknown": _count(columns.partitions_unknown[index]) if is_counted else None,
        "assignor": facts.assignor,
        "coordinator": facts.coordinator,
        "epoch": facts.epoch,
        "subscribed": None if facts.subscribed is None else sorted(facts.subscribed),
        "rebalances": _rebalances(columns.rebalances, index),
        "abandoned_topics": _abandoned(cluster, index) if columns.abandoned[index] else [],
    }
    if not partitions:
        values["over_objective"] = _OVER_OBJECTIVE[int(columns.over_objective[index])]
    about_spark = {} if spark is None else _spark(spark)
    reasons = _consumer_reasons(cluster, index) | _spark_reasons(spark)
    nulls = [name for name, value in (*values.items(), *about_spark.items()) if value is None]
    values["unknown"] = {name: reasons[name] for name in nulls}
    if spark is not None:
        values["spark"] = about_spark
    workers = [each for each in cluster.faust if each.consumer == consumer]
    if workers:
        values["workers"] = [_faust_worker(each) for each in workers]
    hour = cluster.last_hour.get(consumer)
    if hour is not None:
        values["last_hour"] = _last_hour(hour)
    if partitions:
        values["partitions"] = _partitions(cluster, index)
    else:
        values["topics"] = _topics_read(cluster, index)
    return values


def _consumers(cluster: ClusterReport, *, partitions: bool) -> Iterator[Object]:
    for index in range(len(cluster.positions.layout.consumers)):
        yield consumer_json(cluster, index, partitions=partitions)


def _rebalances(columns: RebalanceColumns, index: int) -> Object | None:
    if columns.count[index] < 0:
        return None
    return {
        "count": int(columns.count[index]),
        "exact": bool(columns.exact[index]),
        "seconds": _number(columns.seconds[index]),
        "seconds_bound": _number(columns.seconds_bound[index]),
    }


def _abandoned(cluster: ClusterReport, index: int) -> list[Object]:
    """Return the topics it no longer reads, each with its own lag."""
    rows, positions = cluster.consumer_topics, cluster.positions
    first, end = np.searchsorted(rows.consumer, [index, index + 1])
    mine = slice(int(positions.layout.starts[index]), int(positions.layout.starts[index + 1]))
    topic = cluster.partitions.layout.topic[positions.layout.row[mine]]
    return [
        _abandoned_topic(cluster.partitions.layout.topics[number], lag, positions.why[mine][topic == number])
        for number, lag, mark in zip(
            rows.topic[first:end].tolist(), rows.lag_records[first:end], rows.abandoned[first:end], strict=True
        )
        if mark == 1
    ]


def _abandoned_topic(name: str, lag: Any, why: npt.NDArray[np.int16]) -> Object:
    records = _count(lag)
    reasons = {"lag_records": why_text(int(why[why != 0][0]))} if records is None else {}
    return {"topic": name, "partitions": len(why), "lag_records": records, "unknown": reasons}


def _consumer_reasons(cluster: ClusterReport, index: int) -> dict[str, str]:
    columns, facts = cluster.consumers, cluster.groups[index]
    group = _group_reason(facts)
    of_members = _NO_MEMBERS if columns.members[index] == 0 and not facts.why else group
    records, seconds = why_text(int(columns.why[index])), why_text(int(columns.why_seconds[index]))
    counted = why_text(facts.why) if facts.why else records
    return {
        "state": group,
        "protocol": group,
        "members": group,
        "observed_at": why_text(facts.why or Why.NOT_ASKED),
        "records_per_second": why_text(int(columns.why_rate[index])),
        "lag_records": records,
        "lag_seconds": seconds,
        "lag_seconds_bound": seconds,
        "basis": seconds,
        "over_objective": seconds,
        # The broker may tell a share group's lag where the log itself could not be read.
        "lost_records": records or why_text(Why.PART_UNKNOWN),
        "known_lag_records": counted,
        "partitions_unknown": counted,
        "assignor": of_members,
        "coordinator": group,
        "epoch": _NO_EPOCH if facts.protocol == "classic" and not facts.why else group,
        "subscribed": _NOT_SUBSCRIBED if of_members == _NOT_TOLD else of_members,
        "rebalances": group,
    }


def _group_reason(facts: GroupFacts) -> str:
    if facts.consumer.kind is Kind.SPARK:
        return _IS_SPARK
    return why_text(facts.why) if facts.why else _NOT_TOLD


def _topics_read(cluster: ClusterReport, index: int) -> list[str]:
    rows = cluster.consumer_topics
    first, end = np.searchsorted(rows.consumer, [index, index + 1])
    names = cluster.partitions.layout.topics
    return [names[topic] for topic in rows.topic[first:end].tolist()]


# --- a Spark query ----------------------------------------------------------------------------------


def _spark(facts: SparkFacts) -> Object:
    query = facts.query
    return {
        "query_id": query.query_id,
        "batch_id": query.batch_id,
        "last_batch_duration_seconds": facts.last_batch_duration_seconds,
        "trigger_interval_seconds": facts.trigger_interval_seconds,
        "inflight_batch_age_seconds": facts.inflight_batch_age_seconds,
        "watermark": None if query.watermark is None else _time_or_none(query.watermark),
        "seen_by": list(query.seen_by),
        "via": dict(query.via),
    }


def _spark_reasons(facts: SparkFacts | None) -> dict[str, str]:
    if facts is None:
        return {}
    has_batch, watermark = facts.query.batch_id is not None, facts.query.watermark
    return {
        "batch_id": _NO_BATCH,
        "last_batch_duration_seconds": "the last micro-batch spans a restart" if has_batch else _NO_BATCH,
        "trigger_interval_seconds": "it is not in the settings, no listener tells it, and its batches keep to none",
        "inflight_batch_age_seconds": _NOT_IN_FLIGHT,
        "watermark": "the query has none" if watermark is None else f"{watermark} s since the epoch is not a date",
    }


# --- a Faust worker ----------------------------------------------------------------------------------


def _faust_worker(worker: FaustWorker) -> Object:
    """Return what a worker says of itself; of one that is silent only what it counted."""
    remaining = worker.recovery_remaining
    of_now: Object = {
        "uncommitted_seconds": _seconds(worker.uncommitted_seconds),
        "recovering": worker.recovering,
        "recovery_remaining_records": remaining,
        "assigned": None if worker.assigned is None else {topic: list(each) for topic, each in worker.assigned.items()},
        "tables": dict(worker.tables),
    }
    if worker.is_silent:
        of_now = dict.fromkeys(of_now)
    values: Object = {
        "worker": worker.worker,
        "state": "silent" if worker.is_silent else worker.state,
        "report_age_seconds": round(worker.report_age_seconds, 3),
        "started_at": _time_or_none(worker.started_at),
        "commits": worker.commits_total,
        "rebalances": worker.rebalances_total,
        "rebalancing_seconds": _seconds(worker.rebalancing_seconds_total),
        "last_rebalance_seconds": _seconds(worker.last_rebalance_seconds),
        "buffer_full": worker.buffer_full_total,
        "outcomes": dict(worker.outcomes),
        **of_now,
        "agents": [
            {
                "agent": each.agent,
                "topic": each.topic,
                "events": each.events_total,
                "errors": each.errors_total,
                "seconds": _seconds(each.durations.sum),
                "buffered": None if worker.is_silent else each.buffered,
                "buffer_size": None if worker.is_silent else each.buffer_size,
            }
            for each in worker.agents
        ],
    }
    reason = "the worker does not report any more" if worker.is_silent else "the worker does not tell"
    return values | {"unknown": {name: reason for name, value in values.items() if value is None}}


def _last_hour(hour: LastHour) -> Object:
    values: Object = {
        name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(hour).items()
    }
    return values | {"unknown": {name: "no sample knew it" for name, value in values.items() if value is None}}


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


# --- partitions -------------------------------------------------------------------------------------


def _partitions(cluster: ClusterReport, index: int) -> list[Object]:
    layout, report, ends = cluster.positions.layout, cluster.positions, cluster.partitions
    facts, spark = cluster.groups[index], cluster.spark.get(index)
    owners = {owned: owner for owner in facts.owners for owned in owner.assigned}
    mine = slice(int(layout.starts[index]), int(layout.starts[index + 1]))
    row = layout.row[mine]
    keys = [ends.layout.key(each) for each in row.tolist()]
    columns: dict[str, Sequence[object]] = {
        "topic": [key.topic for key in keys],
        "partition": [key.partition for key in keys],
        "log_start": _counts(ends.log_start[row]),
        "log_end": _counts(ends.log_end[row]),
        "last_stable": _counts(ends.last_stable[row]),
        "committed": _counts(report.committed[mine]),
        "lag_records": _counts(report.lag_records[mine]),
        "lost_records": _counts(report.lost_records[mine]),
        "lag_seconds": _floats(report.lag_seconds[mine]),
        "lag_seconds_bound": _floats(report.lag_seconds_bound[mine]),
        "basis": [_BASIS[basis] for basis in report.basis[mine].tolist()],
        "assumed": report.assumed[mine].tolist(),
        "health": [HEALTHS[health].value for health in report.health[mine].tolist()],
        "member": [facts.assigned.get(key) or None for key in keys],
        "owner": [_owner(owners.get(key)) for key in keys],
        "abandoned": report.abandoned[mine].tolist(),
    }
    if spark is not None:
        columns["planned"] = [spark.query.planned.get(key) for key in keys]
        columns["reported"] = [spark.query.reported.get(key) for key in keys]
    whys = (ends.why[row].tolist(), report.why[mine].tolist(), report.why_seconds[mine].tolist())
    return [
        _partition(dict(zip(columns, values, strict=True)), facts, why)
        for values, why in zip(zip(*columns.values(), strict=True), zip(*whys, strict=True), strict=True)
    ]


def _owner(member: Member | None) -> Object | None:
    if member is None:
        return None
    return {"member_id": member.member_id, "client_id": member.client_id, "host": member.host}


def _partition(values: Object, facts: GroupFacts, why: tuple[int, ...]) -> Object:
    nulls = [name for name, value in values.items() if value is None]
    # Most partitions are known, and there may be a hundred thousand: reasons are put into words only where needed.
    reasons = _partition_reasons(facts, *why) if nulls else {}
    values["unknown"] = {name: reasons[name] for name in nulls}
    return values


def _partition_reasons(facts: GroupFacts, why_end: int, why_lag: int, why_seconds: int) -> Mapping[str, str]:
    end, lag, seconds = why_text(why_end), why_text(why_lag), why_text(why_seconds)
    if facts.consumer.kind is Kind.SPARK:
        member = _IS_SPARK
    else:
        nobody = "members share it" if facts.consumer.kind is Kind.SHARE_GROUP else "no member has it assigned"
        member = _group_reason(facts) if facts.members is None else nobody
    return {
        "log_start": end,
        "log_end": end,
        "last_stable": end or _NOT_TOLD,
        # The lag of an empty partition is known without a commit, and then has no reason.
        "committed": lag or why_text(Why.NO_COMMIT),
        "lag_records": lag,
        "lost_records": lag or end,
        "lag_seconds": seconds,
        "lag_seconds_bound": seconds,
        "basis": seconds,
        "member": member,
        "owner": member,
        "planned": _NOT_IN_FLIGHT,
        "reported": _NOT_REPORTED,
    }


# --- values -----------------------------------------------------------------------------------------


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time_or_none(seconds: float) -> str | None:
    try:
        return _time(seconds)
    except (OverflowError, ValueError, OSError):  # a checkpoint can hold any number
        return None


def _count(value: Any) -> int | None:
    return int(value) if value >= 0 else None


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _counts(column: npt.NDArray[np.integer[Any]]) -> list[int | None]:
    return [None if value < 0 else value for value in column.tolist()]


def _floats(column: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in np.round(column, 6).tolist()]


# --- text -------------------------------------------------------------------------------------------

_DEPTH_OF_CONSUMERS = 4  # report -> clusters -> a cluster -> its consumers (and topics, findings, failures)


def _pieces(value: object, depth: int) -> Iterator[str]:
    """Return the text of a value, opened up to ``depth`` levels; iterators are arrays."""
    if depth and isinstance(value, dict):
        separator = "{"
        for name, member in value.items():
            yield f"{separator}{dump(name)}:"
            yield from _pieces(member, depth - 1)
            separator = ","
        yield "}" if value else "{}"
    elif depth and isinstance(value, list | Iterator):
        separator = "["
        for item in value:
            yield separator
            yield from _pieces(item, depth - 1)
            separator = ","
        yield "[]" if separator == "[" else "]"
    else:
        yield dump(value)
