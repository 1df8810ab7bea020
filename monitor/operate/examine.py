"""The whole examination: every cluster's checks, all clusters at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from monitor.observe.kafka.transport import Transport
from monitor.operate import access, connection, spark
from monitor.operate.configuration import configuration
from monitor.operate.doctor import CONFIGURATION, Check, Result, run_checks
from monitor.operate.notes import Notes
from monitor.settings import Cluster, Settings


def checks(notes: Notes) -> list[Check]:
    """Return every check of a cluster, in the order in which a person reads them."""
    return [
        Check(CONFIGURATION, partial(configuration, notes)),
        *connection.checks(notes),
        *access.checks(notes),
        *spark.checks(notes),
    ]


async def examine(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    connect: Callable[[Cluster], Transport] | None = None,
) -> list[Result]:
    """Examine every cluster and return what was found, cluster by cluster. Never raises for what a broker does."""
    found = await asyncio.gather(*(examine_cluster(Notes(cluster, clock, connect)) for cluster in settings.clusters))
    return [result for results in found for result in results]


async def examine_cluster(notes: Notes) -> list[Result]:
    """Examine one cluster."""
    try:
        found = await run_checks(checks(notes), notes.seconds)
    finally:
        await notes.close()
    return [Result(notes.cluster.name, name, line) for name, line in found]
