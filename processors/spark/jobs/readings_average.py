"""Spark job: average temperature per sensor over five minutes, sliding by half a minute, on event time.

    python readings_average.py --bootstrap-servers HOST:PORT --checkpoint DIR --jars A.jar,B.jar
    spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0 readings_average.py …

Reads JSON readings, ``{"sensor": "s-17", "temperature": 21.4, "at": 1795000000.123}`` (``at``: measured, in seconds
since the epoch), and writes to topic readings-averages-5m, key sensor, ``{"sensor", "start", "end", "count",
"average"}``: the last record of a sensor and window is the final one. Spark commits nothing to Kafka; where it is
stands in the checkpoint folder, which is what the monitor reads, and from where the next start goes on.

One file that needs nothing of streamgauge, so that it can be handed to spark-submit as it is.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

WINDOW, SLIDE = "5 minutes", "30 seconds"
LATEST = "1 minute"
"""How much older than the newest reading one may be that still counts: the watermark."""

COLDEST, HOTTEST = -90.0, 60.0
"""Air temperatures in degrees Celsius beyond which a sensor is broken, as in the Faust pipeline."""

READING = "sensor STRING, temperature DOUBLE, at DOUBLE"

LOCAL = {
    "spark.master": "local[2]",
    "spark.driver.memory": "640m",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "2",  # as many as there are cores: more only cost time in each batch
}
"""Settings of a session without spark-submit, which brings its own."""

LOOK_SECONDS = 0.5

EXIT_UNREACHABLE = 3


class JobError(Exception):
    """The job cannot run; the text is one line a person can act on."""


def averages(records: DataFrame) -> DataFrame:
    """Return the averages of Kafka records (column ``value``): sensor, start, end, count, average.

    ``start`` and ``end`` (exclusive) are seconds since the epoch. What is no reading or cannot be true is left out.
    """
    from pyspark.sql import functions as f  # noqa: PLC0415 (a machine without pyspark is told so in a line)

    readings = (
        records.select(f.from_json(f.col("value").cast("string"), READING).alias("reading"))
        .select("reading.*")
        .where(f.col("sensor").isNotNull() & (f.col("sensor") != "") & (f.col("at") >= 0))
        .where(f.col("temperature").between(COLDEST, HOTTEST))
        .withColumn("time", f.timestamp_seconds("at"))
        .withWatermark("time", LATEST)
    )
    return (
        readings.groupBy("sensor", f.window("time", WINDOW, SLIDE))
        .agg(f.count("*").alias("count"), f.avg("temperature").alias("average"))
        .select(
            "sensor",
            f.unix_timestamp("window.start").alias("start"),
            f.unix_timestamp("window.end").alias("end"),
            "count",
            "average",
        )
    )


def start(spark: SparkSession, options: argparse.Namespace) -> StreamingQuery:
    """Start the query."""
    from pyspark.sql import functions as f  # noqa: PLC0415

    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", options.bootstrap_servers)
        .option("subscribe", options.topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    found = averages(records)
    if options.sink == "kafka":
        found = found.select(
            f.col("sensor").alias("key"),
            f.to_json(f.struct("sensor", "start", "end", "count", "average")).alias("value"),
        )
    writer = found.writeStream.format(options.sink).outputMode("update").queryName(options.name)
    for name, value in _sink_options(options).items():
        writer = writer.option(name, value)
    return writer.trigger(processingTime=f"{options.trigger_seconds} seconds").start()


def _sink_options(options: argparse.Namespace) -> dict[str, str]:
    sink = {"checkpointLocation": options.checkpoint}
    if options.sink == "kafka":
        sink |= {"kafka.bootstrap.servers": options.bootstrap_servers, "topic": options.results}
    return sink


def run(options: argparse.Namespace) -> None:
    """Run the query until SIGTERM or Ctrl-C; a batch they interrupt is run again by the next start.

    Raises:
        JobError: there is no Java for Spark, no Kafka, no Kafka source, or the query failed.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    check_reachable(options.bootstrap_servers)
    spark = _session(options)
    try:
        query = start(spark, options)
        sys.stderr.write(f"{options.name} reads {options.topic} at {options.bootstrap_servers}\n")
        while not stopping.is_set():
            query.awaitTermination(LOOK_SECONDS)  # type: ignore[arg-type]  # fractions do; raises what it failed with
    except Exception as exc:
        if stopping.is_set() or not _is_spark_error(exc):
            raise
        raise JobError(f"the query on {options.topic} failed: {_first_line(exc)}") from exc  # noqa: EM102
    finally:
        _stop(spark, stopping)


def _stop(spark: SparkSession, stopping: threading.Event) -> None:
    """Stop the query and Spark. Who signals a whole group of processes has ended Spark's own as well by now."""
    try:
        for query in spark.streams.active:
            query.stop()
        spark.stop()
    except Exception as exc:
        if not stopping.is_set() or not (_is_spark_error(exc) or isinstance(exc, OSError)):
            raise


def _session(options: argparse.Namespace) -> SparkSession:
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415
    except ImportError as exc:
        raise JobError("pyspark is not installed: install streamgauge[spark]") from exc
    builder: Any = SparkSession.builder.appName(options.name)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # not started by spark-submit
        check_java(os.environ)
        for name, value in LOCAL.items():
            builder = builder.config(name, value)
    if options.jars:
        builder = builder.config("spark.jars", options.jars)
    spark: SparkSession = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def check_java(environ: Mapping[str, str]) -> None:
    """Make sure that there is a Java that runs Spark: 17 or later with all its modules.

    Raises:
        JobError: there is none.
    """
    home = environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java", path=environ.get("PATH"))
    if java is None:
        raise JobError("no Java found: Spark needs a full Java 17 or later; install one or set JAVA_HOME")
    try:
        listed = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise JobError(f"{java} does not run ({exc}): Spark needs a full Java 17 or later; set JAVA_HOME") from exc  # noqa: EM102
    version = re.search(r"^java\.base@(\d+)", listed.stdout, re.MULTILINE)
    # Spark is started with this module added; a trimmed Java has none to add.
    if version is None or int(version[1]) < 17 or "jdk.incubator.vector" not in listed.stdout:  # noqa: PLR2004
        found = f"Java {version[1]}" if version else "older or no Java"
        raise JobError(f"{java} is {found} and does not run Spark, which needs a full Java 17 or later: set JAVA_HOME")  # noqa: EM102


def check_reachable(bootstrap_servers: str) -> None:
    """Make sure that a broker takes connections: Spark would try for a minute, and print a page about it.

    Raises:
        JobError: none does.
    """
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
                return
        except (OSError, ValueError, OverflowError):
            continue
    raise JobError(f"no Kafka answers at {bootstrap_servers}: does it run, is the address right?")  # noqa: EM102


def _is_spark_error(exc: Exception) -> bool:
    return type(exc).__module__.startswith(("pyspark.", "py4j."))


def _first_line(exc: Exception) -> str:
    """Return what Spark says in its first line; it goes on with plans and stack traces."""
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(description="Average temperature per sensor, five minutes sliding by 30 seconds.")
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT[,…]")
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="Where the query keeps its position.")
    parser.add_argument("--topic", default="readings")
    parser.add_argument("--results", default="readings-averages-5m", metavar="TOPIC")
    parser.add_argument("--sink", choices=("kafka", "console", "noop"), default="kafka")
    parser.add_argument("--trigger-seconds", type=int, default=5, metavar="N", help="Seconds from batch to batch.")
    parser.add_argument("--jars", default="", metavar="JAR[,…]", help="Jars of Spark's Kafka source.")
    parser.add_argument("--name", default="readings-average-5m", help="Name of the query.")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the job; return its exit code."""
    options = parse_options()
    try:
        run(options)
    except JobError as exc:
        sys.stderr.write(f"{options.name}: {exc}\n")
        return EXIT_UNREACHABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
