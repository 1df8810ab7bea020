"""Spark job: readings in degrees Fahrenheit become degrees Celsius, without what cannot be true.

The twin of ``processors.examples.edge``. Reads ``{"sensor": "s-17", "fahrenheit": 70.5, "at": 1795000000.123}`` from
readings-raw and writes ``{"sensor", "temperature", "at"}`` to readings, keyed as they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors.spark.jobs.common import Job
from processors.spark.jobs.readings_average import COLDEST, HOTTEST

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

RAW = "sensor STRING, fahrenheit DOUBLE, at DOUBLE"


def transform(records: DataFrame) -> DataFrame:
    """Return the readings of Kafka records in degrees Celsius, to a hundredth."""
    from pyspark.sql import functions as f  # noqa: PLC0415

    raw = records.select(
        f.col("key").cast("string").alias("key"), f.from_json(f.col("value").cast("string"), RAW).alias("raw")
    ).select("key", "raw.*")
    celsius = raw.where(f.col("sensor").isNotNull() & f.col("at").isNotNull()).withColumn(
        "temperature", f.round((f.col("fahrenheit") - 32) * 5 / 9, 2)
    )
    result = f.struct("sensor", "temperature", "at")
    return celsius.where(f.col("temperature").between(COLDEST, HOTTEST)).select("key", f.to_json(result).alias("value"))


JOB = Job("edge", "Readings in degrees Fahrenheit, as degrees Celsius.", "readings-raw", "readings", transform)
