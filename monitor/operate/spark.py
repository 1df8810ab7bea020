"""Spark's checkpoints: whether each path or glob of the settings names some, and whether they can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from monitor.model import SparkSnapshot
from monitor.operate.doctor import CONFIGURATION, Check, Line, counted, failed, ok, some, warning
from monitor.operate.notes import Notes
from monitor.operate.reach import in_thread
from monitor.settings import Cluster, SparkCheckpoints


def checks(notes: Notes) -> list[Check]:
    """Return the checks of a cluster's checkpoints; none if it has none."""
    if not notes.cluster.spark:
        return []
    return [Check("Spark checkpoints", partial(_checkpoints, notes), (CONFIGURATION,))]


async def _checkpoints(notes: Notes) -> Sequence[Line]:
    looks = (in_thread(partial(_look, notes.cluster, entry)) for entry in notes.cluster.spark)
    answers = await asyncio.gather(*looks)
    return [
        line
        for entry, seen in zip(notes.cluster.spark, answers, strict=True)
        for line in checkpoint_lines(entry.path, seen)
    ]


def _look(cluster: Cluster, entry: SparkCheckpoints) -> SparkSnapshot:
    from monitor.observe.spark.checkpoint import CheckpointSource  # noqa: PLC0415 (only where there are some)

    only = cluster.model_copy(update={"spark": (entry,)})
    return asyncio.run(CheckpointSource(only).observe())


def checkpoint_lines(path: str, seen: SparkSnapshot) -> list[Line]:
    """Say which queries a path or glob names, and what cannot be read of it."""
    lines = [
        failed(path, f"{each.error}: {each.detail}", "check the path, and that we may read the folder")
        for each in seen.failures
    ]
    if seen.queries:
        names = some(query.consumer.name for query in seen.queries)
        lines.insert(0, ok(path, f"{counted(len(seen.queries), 'checkpoint')} can be read: {names}"))
    elif not lines:
        lines.append(
            warning(path, "matches no checkpoint folder", "check the glob, unless its queries are yet to come")
        )
    return lines
