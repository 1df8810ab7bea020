"""The rollups of the last hour, read from ``streamgauge.rollups`` where that topic exists: memory across restarts.

At the start everything from the last hour is read, after that what is new. Only windows of a minute are kept, and only
for as long as they end within the hour; longer ones are for whoever else reads the topic.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from monitor.model import Consumer, Failure, Kind, LastHour
from monitor.observe.kafka.topic_tail import Tail, TopicTail
from monitor.records import ROLLUPS_TOPIC, RefusedError, Rollup, read_rollup
from monitor.settings import Cluster

MINUTE, HOUR = 60, 3600

LOOK_BACK_SECONDS = HOUR + 5 * MINUTE
"""A window is written when it has ended, and a worker may have been late."""

MOST_ROLLUPS = 500_000
"""Kept at most, of some 8,000 consumers; what comes beyond is a failure."""


class RollupSource:
    """The rollups of one cluster's consumers."""

    def __init__(self, cluster: Cluster, *, tail: Tail | None = None, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster.name
        self._clock = clock
        self._tail = tail or TopicTail(cluster, ROLLUPS_TOPIC, look_back_seconds=LOOK_BACK_SECONDS)
        self._minutes: defaultdict[Consumer, dict[int, Rollup]] = defaultdict(dict)
        self._count = 0

    async def look(self) -> tuple[dict[Consumer, LastHour], tuple[Failure, ...]]:
        """Read what is new; return the last hour of each consumer that has any of it, and what failed."""
        read = await self._tail.read()
        refused: Counter[str] = Counter()
        for record in read.records:
            if record.value is None:
                continue  # the removal of one that is no longer kept
            try:
                self._keep(read_rollup(record.value))
            except (RefusedError, ValueError) as exc:
                refused[str(exc)] += 1
        failures = (
            *read.failures,
            *(
                Failure("topic", ROLLUPS_TOPIC, "MALFORMED", f"{n} records are no rollups: {why}")
                for why, n in refused.items()
            ),
        )
        return self._hours(), failures

    async def close(self) -> None:
        """Close the connections."""
        await self._tail.close()

    def _keep(self, rollup: Rollup) -> None:
        if rollup.window_seconds != MINUTE or rollup.cluster != self._cluster:
            return
        who = Consumer(Kind(rollup.kind), rollup.name)
        is_new = rollup.start not in self._minutes.get(who, ())
        if is_new and self._count >= MOST_ROLLUPS:
            raise RefusedError("more rollups than are kept")
        self._minutes[who][rollup.start] = rollup
        self._count += is_new

    def _hours(self) -> dict[Consumer, LastHour]:
        since = self._clock() - HOUR
        hours = {}
        for consumer in list(self._minutes):
            minutes = self._minutes[consumer]
            for start in [start for start in minutes if start + MINUTE <= since]:
                del minutes[start]
            if minutes:
                hours[consumer] = last_hour(minutes.values())
            else:
                del self._minutes[consumer]
        self._count = sum(map(len, self._minutes.values()))
        return hours


def last_hour(minutes: Iterable[Rollup]) -> LastHour:
    """Return what windows of one consumer say together; each counts by the samples that knew the figure."""
    some = list(minutes)
    return LastHour(
        minutes=len(some),
        lag_records_max=max((each.lag_records_max for each in some if each.lag_records_max is not None), default=None),
        lag_records_mean=_mean((each.lag_records_mean, each.lag_records_known) for each in some),
        lag_seconds_max=max((each.lag_seconds_max for each in some if each.lag_seconds_max is not None), default=None),
        lag_seconds_mean=_mean((each.lag_seconds_mean, each.lag_seconds_known) for each in some),
        records_in_per_second=_mean((each.records_in_per_second, each.samples) for each in some),
        records_out_per_second=_mean((each.records_out_per_second, each.samples) for each in some),
        within_objective=_mean((each.within_objective, each.objective_known) for each in some),
    )


def _mean(parts: Iterable[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in parts if value is not None]
    weights = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / weights if weights else None
