"""A pipeline that runs for a while: reports as the service would make them, for what is published.

Numbers come from the same chain that the service uses (``monitor.derive``); ``Pipeline`` only plays the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from snapshots import Leaders, group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, learn, observe, wanted
from monitor.model import (
    ClusterReport,
    Consumer,
    Failure,
    GroupFacts,
    Kind,
    Report,
    SparkBatch,
    SparkQuery,
    SparkSnapshot,
    TopicPartition,
    Why,
)

START = 1_795_000_000.0


def member(name: str, *, members: int | None = 2, state: str | None = "Stable", **kw: object) -> GroupFacts:
    """Facts of a classic group."""
    return GroupFacts(group(name), state=state, protocol="classic", members=members, **kw)  # type: ignore[arg-type]


@dataclass
class Reader:
    """A consumer that stays ``behind`` records on each of its partitions (a number, or a function of the cycle)."""

    topics: Mapping[str, int]
    behind: object = 0
    facts: GroupFacts | None = None

    def offset(self, end: int, cycle: int) -> int | Why:
        behind = self.behind(cycle) if callable(self.behind) else self.behind
        return behind if isinstance(behind, Why) else max(0, end - int(behind))


@dataclass
class Pipeline:
    """A cluster: topics written at a steady rate (records per second and partition), and who reads them."""

    topics: dict[str, tuple[int, float]]
    readers: dict[str, Reader]
    name: str = "default"
    interval: float = 10.0
    up: bool = True
    failures: tuple[Failure, ...] = ()
    broken: dict[tuple[str, int], Why] = field(default_factory=dict)
    spark: tuple[SparkQuery, ...] = ()
    objective: float = 300.0
    start: float = START
    history: History = field(default_factory=History)
    cycle: int = 0
    look_ups: bool = True

    def report(self) -> ClusterReport:
        """Run one cycle and return its report."""
        at = self.start + self.cycle * self.interval
        keys = [(topic, i) for topic, (partitions, _) in self.topics.items() for i in range(partitions)]
        # Every topic was empty an hour before the start.
        end = {(t, i): int((at - self.start + 3600) * self.topics[t][1]) for t, i in keys}
        commits = {
            name: {key: reader.offset(end[key], self.cycle) for key in keys if key[0] in reader.topics}
            for name, reader in self.readers.items()
        }
        kafka = kafka_snapshot(
            {key: self.broken.get(key, (0, end[key])) for key in keys},
            commits,
            at=at,
            states={name: reader.facts for name, reader in self.readers.items() if reader.facts is not None},
            up=self.up,
            failures=self.failures,
        )
        kafka = _named(kafka, self.name)
        sparks = SparkSnapshot(self.name, at - 0.2, at, True, tuple(self._look(q, at, end) for q in self.spark))
        seen = observe(kafka, sparks if self.spark else None, self.history)
        if self.look_ups:
            self._look_up(seen, end)
        self.cycle += 1
        return derive(seen, self.history, lambda _: self.objective)

    def run(self, cycles: int) -> ClusterReport:
        """Run some cycles and return the last one's report."""
        return [self.report() for _ in range(cycles)][-1]

    def _look_up(self, seen: object, end: Mapping[tuple[str, int], int]) -> None:
        for _ in range(40):
            questions = wanted(seen, self.history, 2000)  # type: ignore[arg-type]
            if questions is None:
                return
            learn(_Log(self, end).look_up(questions), self.history)

    def _look(self, query: SparkQuery, at: float, end: Mapping[tuple[str, int], int]) -> SparkQuery:
        from dataclasses import replace

        seconds = 4.0 + 2.5 * math.sin(self.cycle / 3)
        committed = {tp: max(0, end[tuple(tp)] - 180) for tp in query.committed}
        batch = SparkBatch(100 + self.cycle, at - seconds - 3, at - 3, seconds, 900)
        return replace(
            query,
            observed_at=at,
            committed=committed,
            planned={tp: offset + 90 for tp, offset in committed.items()},
            batch_id=batch.batch_id,
            batches=(batch,),
            inflight_batch_id=batch.batch_id + 1,
            inflight_planned_at=at - 3,
            watermark=at - 65,
        )


class _Log(Leaders):
    """Leaders of logs that are written at a steady rate: record i of a topic came i / rate after it was empty."""

    def __init__(self, pipeline: Pipeline, end: Mapping[tuple[str, int], int]) -> None:
        super().__init__({})
        self.pipeline, self.end = pipeline, end

    def _first_at_or_after(self, key: TopicPartition, ts: int) -> tuple[int, int]:
        rate = self.pipeline.topics[key.topic][1]
        begin_ms = int((self.pipeline.start - 3600) * 1000)
        offset = max(0, math.ceil((ts - begin_ms) / 1000 * rate))
        while begin_ms + int(offset / rate * 1000) < ts:
            offset += 1
        return (offset, begin_ms + int(offset / rate * 1000)) if offset < self.end[tuple(key)] else (-1, -1)


def _named(snapshot, name):
    from dataclasses import replace

    return replace(snapshot, cluster=name)


def query(name: str, topic: str, partitions: int, *, trigger: float | None = 10.0) -> SparkQuery:
    """A Spark query on all partitions of a topic; ``Pipeline`` moves it."""
    committed = {TopicPartition(topic, i): 0 for i in range(partitions)}
    return SparkQuery(
        Consumer(Kind.SPARK, name), f"id-of-{name}", f"/chk/{name}", START, committed, {}, None,
        trigger_interval_seconds=trigger,
    )  # fmt: skip


SCRIPT_NAME = "<script>window.pwned=1</script>\"'&\n<img src=x onerror=window.pwned=1>"
"""A legal group id."""


def shop(**kw: object) -> Pipeline:
    """A small shop: readers that are fine, late, stopped, unknown, unauthorised, and a Spark query."""
    return Pipeline(
        topics={"orders": (6, 20.0), "payments": (3, 5.5), "clicks": (12, 160.0), "readings": (4, 25.0)},
        readers={
            "billing": Reader({"orders": 1}, 7, _assigned("billing", "orders", 6)),
            "fraud-detection": Reader({"payments": 1, "orders": 1}, lambda c: 900 + 60 * c),
            "search-indexer": Reader({"clicks": 1}, lambda c: 500 + 450 * math.sin(c / 4) + 13 * (c % 3)),
            "nightly-report": Reader(
                {"orders": 1}, lambda c: 200 * c, member("nightly-report", members=0, state="Empty")
            ),
            "mailer": Reader({"payments": 1}, Why.NO_COMMIT),
            "archive": Reader({"orders": 1, "payments": 1}, 40),
            "streamgauge-readings": Reader({"readings": 1}, 12),
            "warehouse-sink": Reader({"orders": 1, "clicks": 1}, 0, member("warehouse-sink", members=8)),
            SCRIPT_NAME: Reader({"payments": 1}, 3),
            "secret": Reader({}, 0, GroupFacts(group("secret"), why=30)),
            "bläuliche gruppe/mit schrägstrich": Reader({"orders": 1}, 0),
        },
        failures=(Failure("group", "secret", "GROUP_AUTHORIZATION_FAILED", "OffsetFetch"),),
        spark=(query("readings-average-5m", "readings", 4),),
        **kw,  # type: ignore[arg-type]
    )


def _assigned(name: str, topic: str, partitions: int) -> GroupFacts:
    owners = {TopicPartition(topic, i): f"{name}-{i % 2}" for i in range(partitions)}
    return member(name, assigned=owners)


def crowd(consumers: int, partitions: int = 10, **kw: object) -> Pipeline:
    """Many consumers of one topic each, all alike; the first of every ten lags."""
    topics = {f"topic-{i:04d}": (partitions, 10.0) for i in range(max(1, consumers // 4))}
    names = list(topics)
    readers = {f"group-{i:05d}": Reader({names[i % len(names)]: 1}, 0 if i % 10 else 50 + i) for i in range(consumers)}
    return Pipeline(topics, readers, look_ups=False, **kw)  # type: ignore[arg-type]


def report_of(*clusters: ClusterReport) -> Report:
    """The clusters as one report."""
    return Report(max((each.at for each in clusters), default=0.0), clusters)


def is_same(left: object, right: object) -> bool:
    """Whether two numbers are equal, NaN included."""
    return left == right or (isinstance(left, float) and np.isnan(left) and np.isnan(right))
