"""What the reference jobs share: a job is what it makes of Kafka records; here is how it is started and stopped.

    records from Kafka -> the job: columns key and value -> Kafka, a folder, or the console

Runs where Spark runs: it knows neither Faust nor the monitor, so that the package ``processors`` in a zip is all that a
cluster needs (``streamgauge spark submit`` makes it).

**Written twice is the same.** After a crash Spark runs the batch that it was in again. To a folder (``--sink files``)
each batch writes a folder of its own, and again replaces it: every result is there once. Kafka's sink of Spark may
write a record twice; both are the same record under the same key, with window and name in it, so that whoever keeps
the last of each has the same in the end.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from processors.spark.jobs.readings_average import EXIT_UNREACHABLE, LOCAL, JobError, check_java, check_reachable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What is read, what is made of it, where it goes.

    ``transform`` takes Kafka records (key, value, timestamp) and returns key and value as text; ``does`` is a line.
    """

    name: str
    does: str
    topic: str
    results: str
    transform: Callable[[DataFrame], DataFrame]


MODULES: Mapping[str, str] = {
    "word-count": "word_count",
    "average-temperature": "average_temperature",
    "error-codes": "error_codes",
    "enrichment": "enrichment",
    "edge": "edge",
}
"""The reference jobs, by name: the same as the Faust examples, on the same topics."""


def job_of(name: str) -> Job:
    """Return a reference job.

    Raises:
        JobError: there is none of that name.
    """
    if name not in MODULES:
        raise JobError(f"no job {name}: there are {', '.join(MODULES)}")  # noqa: EM102
    job: Job = importlib.import_module(f"processors.spark.jobs.{MODULES[name]}").JOB
    return job


def start(spark: SparkSession, job: Job, options: argparse.Namespace) -> StreamingQuery:
    """Start a job's query; with ``--once`` it ends when all that is there now has been read."""
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", options.bootstrap_servers)
        .option("subscribe", options.topic or job.topic)
        .option("startingOffsets", "earliest")
    )
    if options.max_offsets:
        records = records.option("maxOffsetsPerTrigger", str(options.max_offsets))
    # Finished windows only: one result each, as the Faust examples have it.
    writer = job.transform(records.load()).writeStream.outputMode("append").queryName(options.name or job.name)
    writer = _to_sink(writer, job, options).option("checkpointLocation", options.checkpoint)
    every = {"availableNow": True} if options.once else {"processingTime": f"{options.trigger_seconds} seconds"}
    return writer.trigger(**every).start()  # type: ignore[call-overload, no-any-return, unused-ignore]


def _to_sink(writer: Any, job: Job, options: argparse.Namespace) -> Any:
    if options.sink == "files":
        return writer.foreachBatch(lambda batch, number: write_batch(batch, number, options.out))
    if options.sink == "kafka":
        writer = writer.option("kafka.bootstrap.servers", options.bootstrap_servers)
        writer = writer.option("topic", options.results or job.results)
    return writer.format(options.sink)


def write_batch(batch: DataFrame, number: int, folder: str) -> None:
    """Write a batch as lines of JSON into a folder of its own; written again, it replaces what was there."""
    batch.select("value").write.mode("overwrite").text(f"{folder}/batch={number:010d}")


def run(job: Job, options: argparse.Namespace) -> None:
    """Run a job until SIGTERM, Ctrl-C or, with ``--once``, its end.

    Raises:
        JobError: there is no Kafka, no Kafka source, or the query failed.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    check_reachable(options.bootstrap_servers)
    spark = _session(options.name or job.name)
    try:
        if options.attach:
            _attach(spark)
        query = start(spark, job, options)
        sys.stderr.write(
            f"{options.name or job.name} reads {options.topic or job.topic} at {options.bootstrap_servers}\n"
        )
        while not stopping.is_set() and not query.awaitTermination(LOOK_SECONDS):  # type: ignore[arg-type]  # fractions do
            pass
    except Exception as exc:
        if stopping.is_set() or not type(exc).__module__.startswith(("pyspark.", "py4j.")):
            raise
        first = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise JobError(f"the query of {job.name} failed: {first}") from exc  # noqa: EM102
    finally:
        _stop(spark, stopping)


def _stop(spark: SparkSession, stopping: threading.Event) -> None:
    """Stop the query and Spark. Who signals a whole group of processes has ended Spark's own as well by now."""
    try:
        for query in spark.streams.active:
            query.stop()
        spark.stop()
    except Exception:
        if not stopping.is_set():
            raise


def _session(name: str) -> SparkSession:
    from pyspark.sql import SparkSession  # noqa: PLC0415 (the command line is read without it)

    spark: SparkSession = SparkSession.builder.appName(name).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _attach(spark: SparkSession) -> None:
    """Tell the monitor of the query, where streamgauge is there to do it."""
    try:
        attach = importlib.import_module("streamgauge.spark").attach
    except ImportError:
        sys.stderr.write("not attached: the package streamgauge is not here\n")
    else:
        attach(spark)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(description="Run a reference job.")
    parser.add_argument("job", choices=list(MODULES))
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT[,…]")
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="Where the query keeps its position.")
    parser.add_argument("--topic", default="", help="Instead of the job's own.")
    parser.add_argument("--results", default="", metavar="TOPIC", help="Instead of the job's own.")
    parser.add_argument("--sink", choices=("kafka", "files", "console", "noop"), default="kafka")
    parser.add_argument("--out", default="", metavar="DIR", help="Of --sink files.")
    parser.add_argument("--trigger-seconds", type=int, default=5, metavar="N", help="Seconds from batch to batch.")
    parser.add_argument("--max-offsets", type=int, default=0, metavar="N", help="Records a batch takes at most.")
    parser.add_argument("--once", action="store_true", help="End when all that is there now has been read.")
    parser.add_argument(
        "--attach", action="store_true", help="Send events to $STREAMGAUGE_BROKERS or $STREAMGAUGE_URL."
    )
    parser.add_argument("--name", default="", help="Name of the query, instead of the job's.")
    options = parser.parse_args(arguments)
    if options.sink == "files" and not options.out:
        parser.error("--sink files needs --out")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job that the command line names; return the exit code."""
    options = parse_options(arguments)
    try:
        run(job_of(options.job), options)
    except JobError as exc:
        sys.stderr.write(f"{options.job}: {exc}\n")
        return EXIT_UNREACHABLE
    return 0


__all__ = ["LOCAL", "MODULES", "Job", "JobError", "check_java", "job_of", "main", "run", "start", "write_batch"]
