"""Spark job: readings with what is known of their sensors. The twin of ``processors.examples.enrichment``.

Reads readings from topic readings and writes them with ``site`` and ``floor`` to readings-enriched; null where the
sensor is not known. The table is small and goes to every executor; yours would be read from where it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from processors.spark.jobs.common import Job
from processors.spark.jobs.readings_average import READING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PLACES: Mapping[str, tuple[str, int]] = {
    "s-1": ("Rotterdam", 0),
    "s-2": ("Rotterdam", 3),
    "s-3": ("Lagos", 1),
}
"""Site and floor of each sensor."""


def transform(records: DataFrame) -> DataFrame:
    """Return the readings of Kafka records with their places, keyed as they came."""
    from pyspark.sql import functions as f  # noqa: PLC0415

    rows = [(sensor, *place) for sensor, place in PLACES.items()]
    places = records.sparkSession.createDataFrame(rows, "sensor STRING, site STRING, floor INT")
    readings = records.select(
        f.col("key").cast("string").alias("key"), f.from_json(f.col("value").cast("string"), READING).alias("reading")
    ).select("key", "reading.*")
    placed = readings.where(f.col("sensor").isNotNull()).join(f.broadcast(places), "sensor", "left")
    result = f.struct("sensor", "temperature", "at", "site", "floor")
    return placed.select("key", f.to_json(result, {"ignoreNullFields": "false"}).alias("value"))


JOB = Job("enrichment", "Readings with the place of their sensor.", "readings", "readings-enriched", transform)
