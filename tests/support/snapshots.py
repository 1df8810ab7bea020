"""Build snapshots from plain dictionaries, and play the leaders that answer look-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from monitor.model import (
    Consumer,
    Failure,
    Finding,
    Found,
    GroupFacts,
    KafkaSnapshot,
    Kind,
    Lookups,
    PartitionColumns,
    PartitionLayout,
    PositionColumns,
    PositionLayout,
    TopicPartition,
    Why,
)


def group(name: str) -> Consumer:
    return Consumer(Kind.GROUP, name)


def shared(name: str) -> Consumer:
    return Consumer(Kind.SHARE_GROUP, name)


def kafka_snapshot(
    ends: Mapping[tuple[str, int], tuple[int, int] | Why | int],
    commits: Mapping[str, Mapping[tuple[str, int], int | Why]],
    *,
    at: float = 1000.0,
    states: Mapping[str, GroupFacts] | None = None,
    up: bool = True,
    failures: Sequence[Failure] = (),
    ids: Mapping[str, bytes] | None = None,
    said: Mapping[str, Mapping[tuple[str, int], int]] | None = None,
    findings: Sequence[Finding] = (),
) -> KafkaSnapshot:
    """``ends``: (start, end) or why unknown; ``commits``: group -> partition -> offset or why unknown.

    ``ids``: topic -> id. ``said``: the share groups of ``commits``, each with the lag that the broker tells.
    """
    keys = sorted(ends)
    topics = tuple(dict.fromkeys(topic for topic, _ in keys))
    layout = PartitionLayout(
        topics,
        np.array([topics.index(topic) for topic, _ in keys], np.int32),
        np.array([partition for _, partition in keys], np.int32),
    )
    known = [isinstance(ends[key], tuple) for key in keys]
    values = [ends[key] if ok else (-1, -1) for key, ok in zip(keys, known, strict=True)]
    start, end = (np.array([value[i] for value in values], np.int64) for i in (0, 1))
    partitions = PartitionColumns(
        layout,
        start,
        end,
        end.copy(),
        np.array([0 if ok else int(ends[key]) for key, ok in zip(keys, known, strict=True)], np.int16),
        np.array([at if ok else np.nan for ok in known]),
    )
    row_of = {key: row for row, key in enumerate(keys)}
    rows, committed, why, starts, lag_said = [], [], [], [0], []
    said = said or {}
    consumers = {name: shared(name) if name in said else group(name) for name in commits}
    for name, offsets in commits.items():
        for key, offset in sorted(offsets.items()):
            rows.append(row_of[key])
            committed.append(-1 if isinstance(offset, Why) else offset)
            why.append(int(offset) if isinstance(offset, Why) else 0)
            lag_said.append(said.get(name, {}).get(key, -1))
        starts.append(len(rows))
    position_layout = PositionLayout(
        layout, tuple(consumers.values()), np.array(starts, np.int64), np.array(rows, np.int32)
    )
    positions = PositionColumns(
        position_layout,
        np.array(committed, np.int64),
        np.array(why, np.int16),
        np.array(lag_said, np.int64) if said else None,
    )
    states = states or {}
    facts = tuple(
        states.get(name, GroupFacts(who, state="Stable", protocol="classic", members=1))
        for name, who in consumers.items()
    )
    return KafkaSnapshot(
        "default", at - 0.1, at, up, partitions, positions, facts,
        np.array([np.nan if each.why else at for each in facts]), tuple(failures), {"ListGroups": 1},
        ids or {}, tuple(findings),
    )  # fmt: skip


class Leaders:
    """Answer look-ups as Kafka does: the first offset in log order whose timestamp is at or after the asked one."""

    def __init__(self, logs: Mapping[tuple[str, int], Sequence[tuple[int, int]]]) -> None:
        self.logs = {key: list(log) for key, log in logs.items()}
        self.asked = 0

    def look_up(self, wanted: Lookups) -> Found:
        assert len(set(wanted.row.tolist())) == len(wanted), "one look-up a partition a request"
        self.asked += len(wanted)
        answers = [
            self._first_at_or_after(wanted.layout.key(row), ts)
            for row, ts in zip(wanted.row, wanted.timestamp_ms, strict=True)
        ]
        offsets, stamps = zip(*answers, strict=True)
        return Found(wanted, np.array(offsets), np.array(stamps), np.zeros(len(wanted), np.int16))

    def _first_at_or_after(self, key: TopicPartition, ts: int) -> tuple[int, int]:
        return next(((offset, stamp) for offset, stamp in self.logs[tuple(key)] if stamp >= ts), (-1, -1))
