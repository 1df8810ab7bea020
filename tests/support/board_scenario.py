"""A shop whose readers do everything that a board shows: late, catching up, stopped, losing records, rebalancing.

Played like ``reports.Pipeline``, cycle by cycle and at any speed: everything follows from the number of the cycle, so
three hours can be played in seconds. Two clusters: ``shop`` has it all, ``lab`` is small and fine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from reports import Pipeline, Reader, query, report_of
from snapshots import group, kafka_snapshot

from monitor.derive.report import derive, observe
from monitor.model import (
    ClusterReport,
    DurationHistogram,
    Failure,
    FaustAgent,
    FaustWorker,
    GroupFacts,
    Member,
    Report,
    SparkBatch,
    SparkQuery,
    SparkSnapshot,
    SparkState,
    TopicPartition,
    Why,
)
from monitor.settings import Metrics

EVERYTHING = Metrics(committed_offset=True, lag_seconds_bound=True, lost_records=True, owner_info=True)
"""The settings under which no panel is empty."""

HOUR = 3600.0
TOPICS = {"orders": (6, 20.0), "payments": (3, 5.5), "clicks": (12, 160.0), "readings": (4, 25.0), "legacy": (2, 1.0)}


def wave(cycle: int, period: float) -> float:
    return math.sin(2 * math.pi * cycle / period)


def keeps_up(cycle: int) -> int:
    return int(12 + 9 * wave(cycle, 23))


def outage(cycle: int) -> int:
    """Falls behind for 80 cycles of every 360, and catches up in the 180 after them."""
    phase = cycle % 360
    return int(20 + 60 * max(0, min(phase - 40, (240 - phase) / 2 + 30)))


def returns(cycle: int) -> int:
    """Catches up for as long as it is played."""
    return max(0, 90_000 - 90 * cycle)


@dataclass
class Shop(Pipeline):
    """A cluster as ``Pipeline`` plays it, with retention, rebalances, owners, and readers with a topic they left."""

    segments: float = 4.0
    """Cycles between two deletions of the oldest segment of each log."""
    kept: float = HOUR
    """Seconds that a log keeps."""
    slow: dict[str, float] = field(default_factory=dict)
    """Spark queries with how long their batches take, in seconds; 4 for the others."""
    faust_apps: tuple[str, ...] = ()
    """Which of the groups are Faust apps."""
    out: tuple[int, int] = (0, 0)
    """The cycles in which a broker is away, from and to: the leader of every partition 0."""

    def report(self) -> ClusterReport:
        """Run one cycle and return its report."""
        at = self.start + self.cycle * self.interval
        end = {(t, i): self._end(t, i, at) for t, (partitions, _) in self.topics.items() for i in range(partitions)}
        first = {key: self._first(key[0], key[1], at) for key in end}
        commits = {
            name: {key: self._offset(reader, key, end) for key in end if key[0] in reader.topics}
            for name, reader in self.readers.items()
        }
        is_out = self.out[0] <= self.cycle < self.out[1]
        away = {key: Why.TIMEOUT for key in end if is_out and key[1] == 0}
        silent = [Failure("broker", "1", "no answer in time", "ListOffsets")] if is_out else []
        kafka = kafka_snapshot(
            {key: away.get(key, (first[key], end[key])) for key in end},
            commits,
            at=at,
            states={name: self._facts(name, reader) for name, reader in self.readers.items()},
            up=not is_out,
            failures=(*self.failures, *silent),
        )
        seldom = {"DescribeGroups": 2, "Metadata": 1} if self.cycle % 4 == 0 else {}
        asked = {"OffsetFetch": 3, "ListOffsets": 3, **seldom}
        kafka = replace(kafka, cluster=self.name, requests=asked, started_at=at - 0.3 - 0.1 * wave(self.cycle, 40))
        spark = SparkSnapshot(self.name, at - 0.2, at, True, tuple(self._look(q, at, end) for q in self.spark))
        seen = observe(kafka, spark if self.spark else None, self.history)
        self._look_up(seen, end)
        report = derive(seen, self.history, lambda _: self.objective, interval_seconds=self.interval)
        report = replace(report, faust=tuple(self._workers(at)))
        self.cycle += 1
        return report

    def _end(self, topic: str, partition: int, at: float) -> int:
        return int((at - self.start + HOUR) * self.topics[topic][1])

    def _first(self, topic: str, partition: int, at: float) -> int:
        step = self.segments * self.interval
        deleted = math.floor(max(0.0, at - self.start + HOUR - self.kept) / step) * step
        return int(deleted * self.topics[topic][1])

    def _offset(self, reader: Reader, key, end) -> int | Why:  # type: ignore[no-untyped-def]
        if key[0] == "legacy":
            return 100  # its reader has left the topic
        offset = reader.offset(end[key], self.cycle)
        # One partition lies twice as far back: a key that comes more often than others.
        if isinstance(offset, int) and key == ("clicks", 1):
            offset = max(0, 2 * offset - end[key])
        return offset

    def _facts(self, name: str, reader: Reader) -> GroupFacts:
        if reader.facts is not None:
            return reader.facts
        owned = [TopicPartition(t, i) for t in reader.topics for i in range(self.topics[t][0]) if t != "legacy"]
        count = 3 if name == "billing" and self.cycle % 60 < 30 else 2
        members = tuple(
            Member(f"{name}-{i}-id", f"{name}-{i}", f"/10.0.0.{i + 7}", assigned=tuple(owned[i::count]))
            for i in range(count)
        )
        is_rebalancing = name == "billing" and self.cycle % 30 in {3, 4}
        return GroupFacts(
            group(name),
            state="PreparingRebalance" if is_rebalancing else "Stable",
            protocol="classic",
            members=count,
            assigned={} if is_rebalancing else {tp: each.client_id for each in members for tp in each.assigned},
            owners=() if is_rebalancing else members,
            subscribed=None if is_rebalancing else frozenset(topic for topic in reader.topics if topic != "legacy"),
        )

    def _workers(self, at: float) -> Iterator[FaustWorker]:
        """Yield two workers of each Faust app; the second of the first app falls silent now and then."""
        done = self.cycle + 1
        for app in self.faust_apps:
            topics = self.readers[app].topics
            for number in range(2):
                is_slow = app == "fraud-detection" and 40 <= self.cycle % 360 < 220
                agents = tuple(
                    FaustAgent(
                        f"check_{topic}", topic, int(300 * done), int(0.4 * done), _durations(done, slow=is_slow),
                        buffered=4000 if is_slow else int(300 + 200 * wave(self.cycle, 17)), buffer_size=4096,
                    )
                    for topic in topics if topic != "legacy"
                )  # fmt: skip
                is_silent = number == 1 and app == "billing" and self.cycle % 200 > 180
                yield FaustWorker(
                    group(app), f"{app}-host-{number}", "running", at, self.start - 600, 5.0, agents,
                    commits_total=5 * done, commit_age_seconds=1.0,
                    uncommitted_seconds=2.5 + 1.5 * wave(self.cycle, 11) + number,
                    rebalances_total=1 + done // 30, rebalancing_seconds_total=9.0 * (1 + done // 30),
                    last_rebalance_seconds=9.0, recovering=self.cycle % 120 < 8,
                    recovery_remaining=max(0, 8 - self.cycle % 120) * 4000,
                    tables={"totals": 12_000 + 3 * done},
                    assigned={topic: tuple(range(number, self.topics[topic][0], 2)) for topic in topics},
                    buffer_full_total=self.cycle // 20 if app == "fraud-detection" else 0, dropped_reports=0,
                    is_silent=is_silent,
                )  # fmt: skip

    def _look(self, query: SparkQuery, at: float, end) -> SparkQuery:  # type: ignore[no-untyped-def]
        usual = self.slow.get(query.consumer.name, 4.0)
        seconds = usual * (1 + 0.4 * wave(self.cycle, 37))
        behind = int(usual * 45)
        committed = {tp: max(0, end[tuple(tp)] - behind) for tp in query.committed}
        batch = SparkBatch(100 + self.cycle, at - seconds - 3, at - 3, seconds, int(seconds * 25))
        return replace(
            query,
            observed_at=at,
            committed=committed,
            planned={tp: offset + 90 for tp, offset in committed.items()},
            batch_id=batch.batch_id,
            batches=(batch,),
            inflight_batch_id=batch.batch_id + 1,
            inflight_planned_at=at - 3,
            watermark=at - 65 - 20 * wave(self.cycle, 90),
            state=(SparkState("stateStoreSave 0", int(40_000 + 9_000 * wave(self.cycle, 30)), 8_000_000),),
        )


OUT = (600, 630)
"""The cycles in which a broker is away, from and to, unless told otherwise."""


def shop(start: float, interval: float, segments: float = 4.0, out: tuple[int, int] = OUT) -> Shop:
    """Return the cluster that has it all."""
    return Shop(
        topics=TOPICS,
        readers={
            "billing": Reader({"orders": 1, "payments": 1, "legacy": 1}, keeps_up),
            "fraud-detection": Reader({"payments": 1, "orders": 1}, outage),
            "returns-desk": Reader({"clicks": 1}, returns),
            "search-indexer": Reader({"clicks": 1}, lambda c: int(900 + 700 * wave(c, 90))),
            "nightly-report": Reader({"orders": 1}, lambda c: int(20 * interval * c), _nobody("nightly-report")),
            "mailer": Reader({"payments": 1}, Why.NO_COMMIT),
            "ledger": Reader({"payments": 1}, lambda c: int(5.5 * (0.97 * HOUR)) if c < 500 else int(5.5 * 1.1 * HOUR)),
            "replayer": Reader({"readings": 1}, lambda c: -40 if c % 120 > 100 else 0),
            "secret": Reader({}, 0, GroupFacts(group("secret"), why=30)),
        },
        failures=(Failure("group", "secret", "GROUP_AUTHORIZATION_FAILED", "OffsetFetch"),),
        spark=(query("readings-average-5m", "readings", 4), query("orders-by-region", "orders", 6)),
        slow={"orders-by-region": 9.0},
        faust_apps=("billing", "fraud-detection"),
        name="shop",
        start=start,
        interval=interval,
        segments=segments,
        out=out,
    )


def lab(start: float, interval: float) -> Shop:
    """Return the cluster that is small and fine."""
    return Shop(
        topics={"trials": (2, 3.0)},
        readers={"notebook": Reader({"trials": 1}, 2)},
        name="lab",
        out=(0, 0),
        start=start,
        interval=interval,
    )


def _durations(done: int, *, slow: bool) -> DurationHistogram:
    bounds = (0.001, 0.01, 0.1, 1.0)
    shares = (0.1, 0.4, 0.95, 1.0) if slow else (0.6, 0.97, 0.999, 1.0)
    count = 300 * done
    return DurationHistogram(bounds, tuple(int(count * share) for share in shares), count, count * 0.01)


def _nobody(name: str) -> GroupFacts:
    return GroupFacts(group(name), state="Empty", protocol="classic", members=0)


class Played:
    """Both clusters, cycle by cycle."""

    def __init__(self, start: float, interval: float, segments: float = 4.0, out: tuple[int, int] = OUT) -> None:
        self.clusters = [shop(start, interval, segments, out), lab(start, interval)]
        self.start, self.interval = start, interval

    @property
    def due_at(self) -> float:
        """When the next cycle is due."""
        return self.start + self.clusters[0].cycle * self.interval

    def report(self) -> Report:
        """Run one cycle of each and return their report."""
        return report_of(*(each.report() for each in self.clusters))
