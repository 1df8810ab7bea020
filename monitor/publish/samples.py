"""What a report says of each consumer, as the samples that go to ``streamgauge.lag``: one a consumer and cycle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from monitor.model import HEALTHS, ClusterReport, Floats
from monitor.records import Sample

_OVER = {1: True, 0: False, -1: None}


def samples(report: ClusterReport) -> Iterator[Sample]:
    """Yield a sample of each consumer.

    Records come in at the rate of all topics that it reads; with the rate of any of them unknown that is unknown.
    """
    columns = report.consumers
    coming = _coming(report)
    for index, consumer in enumerate(report.positions.layout.consumers):
        yield Sample(
            at=report.at,
            cluster=report.name,
            kind=consumer.kind.value,
            name=consumer.name,
            health=HEALTHS[columns.health[index]].value,
            lag_records=None if columns.lag_records[index] < 0 else int(columns.lag_records[index]),
            lag_seconds=_known(columns.lag_seconds[index]),
            objective_seconds=float(columns.objective_seconds[index]),
            over_objective=_OVER[int(columns.over_objective[index])],
            records_in_per_second=_known(coming[index]),
            records_out_per_second=_known(columns.records_per_second[index]),
        )


def _coming(report: ClusterReport) -> Floats:
    """Return the sum of the rates of each consumer's topics; NaN without any."""
    pairs, count = report.consumer_topics, len(report.positions.layout.consumers)
    is_read = pairs.abandoned != 1
    consumer = pairs.consumer[is_read]
    rates: Floats = np.bincount(consumer, report.topics.records_per_second[pairs.topic[is_read]], count).astype(float)
    rates[np.bincount(consumer, minlength=count) == 0] = np.nan
    return rates


def _known(value: Any) -> float | None:
    return None if math.isnan(value) else max(0.0, round(float(value), 6))
