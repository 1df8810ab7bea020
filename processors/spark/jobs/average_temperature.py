"""Spark job: average temperature of each sensor over five minutes, every thirty seconds, once a window is over.

The twin of ``processors.examples.average_temperature``; ``readings_average`` beside it writes each change of an average
instead. Reads ``{"sensor": "s-17", "temperature": 21.4, "at": 1795000000.123}`` from readings and writes ``{"sensor",
"start", "end", "count", "average"}`` to readings-averages-5m. A reading may come a minute late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors.spark.jobs.common import Job
from processors.spark.jobs.readings_average import averages

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def transform(records: DataFrame) -> DataFrame:
    """Return the averages of Kafka records, keyed by sensor."""
    from pyspark.sql import functions as f  # noqa: PLC0415

    result = f.struct("sensor", "start", "end", "count", "average")
    return averages(records).select(f.col("sensor").alias("key"), f.to_json(result).alias("value"))


JOB = Job(
    "average-temperature",
    "Average temperature of each sensor over five minutes, every thirty seconds.",
    "readings",
    "readings-averages-5m",
    transform,
)
