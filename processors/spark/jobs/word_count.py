"""Spark job: how often each word was written, by the minute. The twin of ``processors.examples.word_count``.

Reads lines of text from topic lines and writes ``{"word", "start", "end", "count"}`` to word-counts once a minute is
over and ten seconds have passed by the timestamps of the records. What is not UTF-8 is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processors.spark.jobs.common import Job

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WINDOW, GRACE = "1 minute", "10 seconds"

WORD = r"[\p{L}\p{N}_]+"
"""What Python's ``\\w+`` matches, in Java's words."""


def transform(records: DataFrame) -> DataFrame:
    """Return the counts of Kafka records, keyed by word."""
    from pyspark.sql import functions as f  # noqa: PLC0415

    text = f.col("value").cast("string")
    words = (
        records.where(f.is_valid_utf8(text))
        .withWatermark("timestamp", GRACE)
        .select("timestamp", f.explode(f.regexp_extract_all(f.lower(text), f.lit(WORD), f.lit(0))).alias("word"))
    )
    counts = words.groupBy("word", f.window("timestamp", WINDOW)).agg(f.count("*").alias("count"))
    return counts.select(
        f.col("word").alias("key"),
        f.to_json(
            f.struct(
                "word",
                f.unix_timestamp("window.start").alias("start"),
                f.unix_timestamp("window.end").alias("end"),
                "count",
            )
        ).alias("value"),
    )


JOB = Job("word-count", "How often each word was written, by the minute.", "lines", "word-counts", transform)
