"""The labels of every row of a level, as bytes that lines are put together from.

A line's labels are a *head* that many rows share (a consumer on a topic) and a *tail* that many rows share too
(a partition number), so that 100,000 rows take 10,000 short strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from monitor.catalog import (
    GROUP_STATES,
    LABELS,
    PARTITION_STATUSES,
    Level,
    faust_agents,
    faust_tables,
    finding_kinds,
    owner_rows,
    spark_phases,
)
from monitor.model import HEALTHS, ClusterReport, Consumer, Int32s, Int64s


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Row i carries the labels ``heads[head[i]] + tails[tail[i]]``, from the opening brace to the value."""

    heads: Sequence[bytes]
    head: Int32s
    tails: Sequence[bytes]
    tail: Int32s

    def __len__(self) -> int:
        return len(self.head)

    def picked(self, rows: npt.NDArray[np.intp]) -> Rows:
        """Return some of the rows."""
        return Rows(self.heads, self.head[rows], self.tails, self.tail[rows])


@dataclass(frozen=True, slots=True, eq=False)
class RestRows:
    """The series that stand for several partitions of a topic: row i is of ``consumer[i]`` on ``topic[i]``."""

    consumer: Int64s
    topic: Int64s


def escape(value: str) -> bytes:
    """Return a label value as the text format wants it: UTF-8, with backslash, quote and newline escaped.

    What is no text (a lone surrogate) is spelled out, so that it stays distinct and the answer valid.
    """
    return (
        value.encode("utf-8", "backslashreplace").replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    )


def rows_of(level: Level, report: ClusterReport) -> Rows:
    """Return the labels of every row of a level, in the order in which the catalogue reads values."""
    return _ROWS[level](report)


def rest_rows(rest: RestRows, report: ClusterReport) -> Rows:
    """Return the labels of the series that stand for several partitions: no partition has a number like theirs."""
    consumers, topics = _consumers(report), _topic_labels(report)
    heads = [consumers[c] + topics[t] for c, t in zip(rest.consumer.tolist(), rest.topic.tolist(), strict=True)]
    return replace(_one_a_row(heads), tails=(b',partition="rest"} ',))


def rows_key(level: Level, report: ClusterReport) -> object:
    """Return what the rows of a level depend on: equal keys mean equal rows.

    Layouts are compared by identity, which the service keeps while the rows stay the same.
    """
    return _KEYS[level](report)


# --- building blocks ---------------------------------------------------------------------------------


_NAMES = {level: [name.encode() for name in names] for level, names in LABELS.items()}


def _opened(level: Level, values: Iterable[str]) -> bytes:
    """Return ``{a="1",b="2"`` for the first labels of a level; nothing for none."""
    return b"{" + b",".join([b'%s="%s"' % label for label in zip(_NAMES[level], map(escape, values), strict=False)])


def _one_a_row(heads: Sequence[bytes]) -> Rows:
    """Return rows with all labels in the head."""
    count = len(heads)
    return Rows(heads, np.arange(count, dtype=np.int32), (b"} ",), np.zeros(count, np.int32))


def _each_of(level: Level, heads: Sequence[bytes], values: Sequence[str]) -> Rows:
    """Return rows that carry, for each head, each of the values as their last label."""
    tails = [b',%s="%s"} ' % (_NAMES[level][-1], escape(value)) for value in values]
    head = np.repeat(np.arange(len(heads), dtype=np.int32), len(tails))
    return Rows(heads, head, tails, np.tile(np.arange(len(tails), dtype=np.int32), len(heads)))


def _consumers(report: ClusterReport) -> list[bytes]:
    return _labels_of_consumers(report.name, report.positions.layout.consumers)


def _topic_labels(report: ClusterReport) -> list[bytes]:
    return _labels_of_topics(report.partitions.layout.topics)


# Several levels are laid out from the same consumers and topics, and when positions come and go these mostly stay.
@lru_cache(maxsize=4)
def _labels_of_consumers(cluster: str, consumers: tuple[Consumer, ...]) -> list[bytes]:
    return [_opened(Level.CONSUMER, (cluster, *consumer)) for consumer in consumers]


@lru_cache(maxsize=4)
def _labels_of_topics(topics: tuple[str, ...]) -> list[bytes]:
    return [b',topic="%s"' % escape(topic) for topic in topics]


def _partition_tails(report: ClusterReport) -> tuple[list[bytes], Int32s]:
    """Return the tails of all partition numbers, and which of them each row of the partition layout has."""
    numbers, tail = np.unique(report.partitions.layout.partition, return_inverse=True)
    return [b',partition="%d"} ' % number for number in numbers.tolist()], tail.astype(np.int32)


# --- the rows of each level --------------------------------------------------------------------------


def _sources(report: ClusterReport) -> Rows:
    return _one_a_row([_opened(Level.SOURCE, (report.name, source.source)) for source in report.sources])


def _requests(report: ClusterReport) -> Rows:
    return _one_a_row([_opened(Level.REQUEST, (report.name, *key)) for key in report.requests_total])


def _failures(report: ClusterReport) -> Rows:
    return _one_a_row([_opened(Level.FAILURE, (report.name, *key)) for key in report.failures_total])


def _topics(report: ClusterReport) -> Rows:
    return _one_a_row([_opened(Level.TOPIC, (report.name, topic)) for topic in report.partitions.layout.topics])


def _partitions(report: ClusterReport) -> Rows:
    return Rows(_topics(report).heads, report.partitions.layout.topic, *_partition_tails(report))


def _consumer_rows(report: ClusterReport) -> Rows:
    return _one_a_row(_consumers(report))


def _consumer_statuses(report: ClusterReport) -> Rows:
    return _each_of(Level.CONSUMER_STATUS, _consumers(report), PARTITION_STATUSES)


def _consumer_healths(report: ClusterReport) -> Rows:
    return _each_of(Level.CONSUMER_HEALTH, _consumers(report), HEALTHS)


def _consumer_states(report: ClusterReport) -> Rows:
    return _each_of(Level.CONSUMER_STATE, _consumers(report), GROUP_STATES)


def _consumer_protocols(report: ClusterReport) -> Rows:
    protocols = [facts.protocol or "" for facts in report.groups]
    return _one_a_row(
        [
            head + b',protocol="%s"' % escape(protocol)
            for head, protocol in zip(_consumers(report), protocols, strict=True)
        ]
    )


def _consumer_topics(report: ClusterReport) -> Rows:
    consumers, topics, pairs = _consumers(report), _topic_labels(report), report.consumer_topics
    return _one_a_row(
        [consumers[c] + topics[t] for c, t in zip(pairs.consumer.tolist(), pairs.topic.tolist(), strict=True)]
    )


def _positions(report: ClusterReport) -> Rows:
    layout = report.positions.layout
    consumers, topics = _consumers(report), _topic_labels(report)
    consumer, topic = layout.consumer, layout.partitions.topic[layout.row]
    # Rows of a consumer are contiguous, those of a topic within it nearly always: a head for each run of equal ones.
    begins = np.ones(len(layout), np.bool_)
    begins[1:] = (consumer[1:] != consumer[:-1]) | (topic[1:] != topic[:-1])
    heads = [consumers[c] + topics[t] for c, t in zip(consumer[begins].tolist(), topic[begins].tolist(), strict=True)]
    tails, tail = _partition_tails(report)
    return Rows(heads, np.cumsum(begins, dtype=np.int32) - 1, tails, tail[layout.row])


def _owners(report: ClusterReport) -> Rows:
    return _one_a_row(
        [
            _opened(
                Level.OWNER,
                (
                    report.name,
                    *consumer,
                    owned.topic,
                    str(owned.partition),
                    member.client_id,
                    member.member_id,
                    member.host,
                ),
            )
            for consumer, owned, member in owner_rows(report)
        ]
    )


def _findings(report: ClusterReport) -> Rows:
    return _one_a_row([_opened(Level.FINDING, (report.name, kind)) for kind in finding_kinds(report)])


def _spark(report: ClusterReport) -> Rows:
    consumers = report.positions.layout.consumers
    return _one_a_row([_opened(Level.SPARK, (report.name, *consumers[index])) for index in report.spark])


def _spark_phases(report: ClusterReport) -> Rows:
    consumers = report.positions.layout.consumers
    return _one_a_row(
        [
            _opened(Level.SPARK_PHASE, (report.name, *consumers[index], phase))
            for index, phase, _ in spark_phases(report)
        ]
    )


def _faust_workers(report: ClusterReport) -> Rows:
    return _one_a_row(
        [_opened(Level.FAUST_WORKER, (report.name, *each.consumer, each.worker)) for each in report.faust]
    )


def _faust_agents(report: ClusterReport) -> Rows:
    return _one_a_row(
        [
            _opened(Level.FAUST_AGENT, (report.name, *worker.consumer, worker.worker, agent.agent, agent.topic))
            for worker, agent in faust_agents(report)
        ]
    )


def _faust_tables(report: ClusterReport) -> Rows:
    return _one_a_row(
        [
            _opened(Level.FAUST_TABLE, (report.name, *worker.consumer, worker.worker, table))
            for worker, table, _ in faust_tables(report)
        ]
    )


_ROWS: Mapping[Level, Callable[[ClusterReport], Rows]] = MappingProxyType(
    {
        Level.SOURCE: _sources,
        Level.REQUEST: _requests,
        Level.FAILURE: _failures,
        Level.PARTITION: _partitions,
        Level.TOPIC: _topics,
        Level.POSITION: _positions,
        Level.CONSUMER_TOPIC: _consumer_topics,
        Level.CONSUMER: _consumer_rows,
        Level.CONSUMER_STATUS: _consumer_statuses,
        Level.CONSUMER_HEALTH: _consumer_healths,
        Level.CONSUMER_STATE: _consumer_states,
        Level.CONSUMER_PROTOCOL: _consumer_protocols,
        Level.OWNER: _owners,
        Level.FINDING: _findings,
        Level.SPARK: _spark,
        Level.SPARK_PHASE: _spark_phases,
        Level.FAUST_WORKER: _faust_workers,
        Level.FAUST_AGENT: _faust_agents,
        Level.FAUST_TABLE: _faust_tables,
    }
)


def _by_consumers(report: ClusterReport) -> object:
    return report.positions.layout.consumers


_KEYS: Mapping[Level, Callable[[ClusterReport], object]] = MappingProxyType(
    {
        Level.PARTITION: lambda report: report.partitions.layout,
        Level.TOPIC: lambda report: report.partitions.layout.topics,
        Level.POSITION: lambda report: report.positions.layout,
        Level.CONSUMER_TOPIC: lambda report: report.positions.layout,
        Level.CONSUMER: _by_consumers,
        Level.CONSUMER_STATUS: _by_consumers,
        Level.CONSUMER_HEALTH: _by_consumers,
        Level.CONSUMER_STATE: _by_consumers,
        Level.CONSUMER_PROTOCOL: lambda report: (
            report.positions.layout.consumers,
            tuple(facts.protocol for facts in report.groups),
        ),
        Level.OWNER: lambda report: tuple((facts.consumer, facts.owners) for facts in report.groups if facts.owners),
    }
)

LAID_OUT = frozenset(_KEYS)
"""The levels with many rows, whose text is laid out once and patched; the others are few lines, written anew."""
