"""Spark job: errors of each service, counted by their code every minute.

The twin of ``processors.examples.error_codes``. Reads requests, ``{"service": "cart", "code": 503, "at":
1795000000.123}``, from topic requests and writes ``{"service", "start", "end", "codes": {"503": 2}}`` to error-codes.
Codes below 400 are no errors; a request may come 30 seconds late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors.spark.jobs.common import Job

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FIRST_ERROR = 400
"""HTTP's first status code of an error."""

WINDOW, GRACE = "1 minute", "30 seconds"
REQUEST = "service STRING, code INT, at DOUBLE"


def transform(records: DataFrame) -> DataFrame:
    """Return the counts of Kafka records, keyed by service.

    Counted by code first and put together by service then: the state grows with codes and not with requests.
    """
    from pyspark.sql import functions as f  # noqa: PLC0415

    errors = (
        records.select(f.from_json(f.col("value").cast("string"), REQUEST).alias("request"))
        .select("request.*")
        .where(f.col("service").isNotNull() & (f.col("code") >= FIRST_ERROR) & (f.col("at") >= 0))
        .withColumn("time", f.timestamp_seconds("at"))
        .withWatermark("time", GRACE)
    )
    by_code = errors.groupBy("service", "code", f.window("time", WINDOW)).agg(f.count("*").alias("count"))
    code_and_count = f.struct(f.col("code").cast("string"), "count")
    by_service = by_code.groupBy("service", f.window(f.window_time("window"), WINDOW)).agg(
        f.map_from_entries(f.collect_list(code_and_count)).alias("codes")
    )
    result = f.struct(
        "service",
        f.unix_timestamp("window.start").alias("start"),
        f.unix_timestamp("window.end").alias("end"),
        "codes",
    )
    return by_service.select(f.col("service").alias("key"), f.to_json(result).alias("value"))


JOB = Job(
    "error-codes", "Errors of each service, counted by their code every minute.", "requests", "error-codes", transform
)
