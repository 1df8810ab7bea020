"""What listening costs the driver, an event: ours, and pyspark's stock listener beside it in the same run.

A real session, a stateful query on a fast trigger, both listeners attached to it, so that each event goes to one after
the other. Measured is the time that Spark's bus waits for each: from when py4j calls us to when we give control back,
which has the conversion of the event in it, as that is done within the call. The first ten events warm up both. Then
the query runs alone and with our listener only, in turns, for what that does to its batches.

The py4j call itself is in neither; it is the same for both.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from importlib import import_module
from typing import Any

from monitor.errors import SandboxError
from monitor.sandbox.java import QUICK, find_java
from streamgauge import spark as ours

EVENTS = 40
WARM_UP = 10
ROUNDS = 5
BATCHES = 12
"""Of a round, after which the next begins."""

CONF = {
    "spark.master": "local[2]",
    "spark.driver.memory": "700m",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "2",
}


class Timed:
    """A py4j proxy around another one: how long each progress event keeps the bus waiting."""

    def __init__(self, inner: Any) -> None:
        self.seconds: list[float] = []
        self._inner = inner

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802
        """Hand on."""
        self._inner.onQueryStarted(event)

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        """Hand on, and take the time."""
        begun = time.perf_counter()
        self._inner.onQueryProgress(event)
        self.seconds.append(time.perf_counter() - begun)

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        """Hand on."""
        self._inner.onQueryIdle(event)

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        """Hand on."""
        self._inner.onQueryTerminated(event)

    class Java:
        """Which interface this is, for py4j."""

        implements = ("org.apache.spark.sql.streaming.PythonStreamingQueryListener",)


def stock() -> Any:
    """Return what pyspark itself puts between the JVM and a listener of its public class, which does nothing here."""
    from pyspark.sql.streaming.listener import JStreamingQueryListener, StreamingQueryListener

    class Nothing(StreamingQueryListener):
        """Listens."""

        def onQueryStarted(self, event: Any) -> None:  # noqa: N802
            """Do nothing."""

        def onQueryProgress(self, event: Any) -> None:  # noqa: N802
            """Do nothing."""

        def onQueryIdle(self, event: Any) -> None:  # noqa: N802
            """Do nothing."""

        def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
            """Do nothing."""

    return JStreamingQueryListener(Nothing())


def session() -> Any:
    """Start Spark."""
    os.environ["JAVA_HOME"] = str(find_java(full=True).home)
    os.environ["SPARK_SUBMIT_OPTS"] = " ".join(QUICK)
    from pyspark.sql import SparkSession

    builder: Any = SparkSession.builder
    for name, value in CONF.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    return spark


def query(spark: Any) -> Any:
    """Start a query with one stateful operator whose batches follow each other at once."""
    from pyspark.sql import functions as f

    rows = spark.readStream.format("rate").option("rowsPerSecond", 200).load()
    counts = rows.withWatermark("timestamp", "2 seconds").groupBy(f.window("timestamp", "1 second")).count()
    return counts.writeStream.format("noop").outputMode("update").trigger(processingTime="200 milliseconds").start()


def per_event(spark: Any) -> tuple[list[float], list[float]]:
    """Return the seconds of each event: ours, and the stock listener's."""
    attachment = ours.Attachment(None, 1000.0, 1.0, ours.Waiting(10_000, 100_000_000))
    mine, theirs = Timed(ours.DirectListener(attachment._take)), Timed(stock())  # noqa: SLF001
    start: Any = import_module("pyspark.java_gateway").ensure_callback_server_started
    start(spark.sparkContext._gateway)  # noqa: SLF001
    wrapper = spark._jvm.org.apache.spark.sql.streaming.PythonStreamingQueryListenerWrapper  # noqa: SLF001
    streams = spark._jsparkSession.streams()  # noqa: SLF001
    wrapped = [wrapper(each) for each in (mine, theirs)]
    for each in wrapped:
        streams.addListener(each)
    running = query(spark)
    while len(theirs.seconds) < EVENTS + WARM_UP:
        time.sleep(0.1)
    running.stop()
    for each in wrapped:
        streams.removeListener(each)
    return mine.seconds[WARM_UP:], theirs.seconds[WARM_UP:]


def batch_seconds(spark: Any, *, attached: bool) -> float:
    """Return the median duration of the batches of a fresh query."""
    attachment = ours.attach(spark, send=lambda messages: None) if attached else None
    running = query(spark)
    while not _has_run(running, BATCHES):
        time.sleep(0.5)
    progress = running.recentProgress
    running.stop()
    if attachment is not None:
        attachment.detach()
    return statistics.median(each.batchDuration / 1000 for each in progress[2:])


def _has_run(running: Any, batches: int) -> bool:
    """Return whether a query has run so many batches, without having its progress converted."""
    last = running._jsq.lastProgress()  # noqa: SLF001
    return last is not None and last.batchId() >= batches


def main() -> None:
    """Measure and print."""
    try:
        spark = session()
    except SandboxError as exc:
        sys.exit(f"listener: {exc}")
    try:
        mine, theirs = per_event(spark)
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(batch_seconds(spark, attached=False))
            beside.append(batch_seconds(spark, attached=True))
    finally:
        spark.stop()
    print(f"listener.per_event: {statistics.median(mine):.4f} s")
    print(f"listener.per_event_p95: {statistics.quantiles(mine, n=20)[-1]:.4f} s")
    print(f"listener.stock_per_event: {statistics.median(theirs):.4f} s")
    print(f"listener.batch_alone: {statistics.median(alone):.3f} s")
    print(f"listener.batch_attached: {statistics.median(beside):.3f} s")


if __name__ == "__main__":
    main()
