"""``streamgauge spark submit``: run a reference job on this machine, or hand it to a Spark cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from monitor.cli.options import debug_option

JOBS = ("word-count", "average-temperature", "error-codes", "enrichment", "edge")
"""As ``processors.spark.jobs.common`` has them; a test compares."""

LOCAL = "local[2]"


@click.group()
@debug_option
def spark() -> None:
    """Run Spark jobs."""


@spark.command()
@click.argument("name", type=click.Choice(JOBS), metavar="NAME")
@click.option("--master", default=LOCAL, show_default=True, metavar="URL", help="Where to run it, as Spark names it.")
@click.option("--bootstrap-servers", required=True, metavar="HOST:PORT[,…]", help="Brokers to read from and write to.")
@click.option(
    "--checkpoint", required=True, metavar="DIR", help="Where the query keeps its position; shared by the cluster."
)
@click.option("--topic", metavar="TOPIC", help="Topic to read, instead of the job's own.")
@click.option("--results", metavar="TOPIC", help="Topic to write, instead of the job's own.")
@click.option(
    "--sink", type=click.Choice(("kafka", "files", "console", "noop")), default="kafka", show_default=True,
    help="Where results go.",
)  # fmt: skip
@click.option("--out", metavar="DIR", help="Of --sink files: a folder a batch.")
@click.option(
    "--trigger-seconds", type=click.IntRange(min=0), default=5, show_default=True, help="From batch to batch."
)
@click.option("--max-offsets", type=click.IntRange(min=1), help="Records that a batch takes at most.")
@click.option("--once", is_flag=True, help="End when all that is there now has been read.")
@click.option("--attach", is_flag=True, help="Tell the monitor, by topic streamgauge.spark, what the query does.")
@click.option("--query-name", "query_name", metavar="TEXT", help="Name of the query, instead of the job's.")
@click.option("--conf", "conf", multiple=True, metavar="KEY=VALUE", help="A setting of Spark; repeat it for more.")
@debug_option
def submit(name: str, **options: Any) -> int:
    """Run a reference job: word-count, average-temperature, error-codes, enrichment or edge.

    They read and write the same topics as the Faust examples of these names and give the same results. On this machine
    it runs until Ctrl-C; a cluster named by --master fetches Spark's Kafka source by itself.
    """
    import os
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory(prefix="streamgauge-spark-") as folder:
        command, environ = prepare(name, options, Path(folder))
        child = subprocess.Popen(command, env={**os.environ, **environ}, start_new_session=True)  # noqa: S603
        return _wait(child)


def prepare(name: str, options: dict[str, Any], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that submits a job, and what is set in its environment; files go to ``folder``.

    Raises:
        UsageError: the options do not go together.
        SandboxError: there is no pyspark, no Java, or the Kafka source cannot be fetched.
    """
    import asyncio
    import sys
    from importlib.util import find_spec

    from monitor.errors import SandboxError, UsageError
    from monitor.sandbox import jars
    from monitor.sandbox.java import QUICK, find_java

    if options["sink"] == "files" and not options["out"]:
        raise UsageError("--sink files needs --out DIR: where results are written")
    wrong = [each for each in options["conf"] if "=" not in each]
    if wrong:
        problem = f"--conf {wrong[0]}: it must be KEY=VALUE"
        raise UsageError(problem)
    spec = find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise SandboxError("pyspark is not installed: install streamgauge[spark]")
    home = Path(spec.submodule_search_locations[0])
    is_local = options["master"].startswith("local")
    kafka = (
        ["--jars", ",".join(map(str, asyncio.run(jars.resolve(jars.SPARK_KAFKA))))]
        if is_local
        else ["--packages", ",".join(jars.SPARK_KAFKA.coordinates)]
    )
    package = pack(folder)
    submit_script, launch = home / "bin" / "spark-submit", Path(__file__).parents[2] / "processors/spark/jobs/launch.py"
    command = [str(submit_script), "--master", options["master"], "--py-files", str(package), *kafka]
    for each in (*(_local_settings() if is_local else ()), *options["conf"]):
        command += ["--conf", each]
    command += [str(launch), name, *_job_options(options)]
    environ = {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable}
    if is_local:
        environ["JAVA_HOME"] = str(find_java(full=True).home)
        environ["SPARK_SUBMIT_OPTS"] = " ".join(QUICK)
    if options["attach"]:
        environ["STREAMGAUGE_BROKERS"] = options["bootstrap_servers"]
    return command, environ


def pack(folder: Path) -> Path:
    """Make the zip that executors and a driver elsewhere import the jobs from: they need nothing else of ours."""
    import zipfile

    root = Path(__file__).parents[2]
    files = [
        "processors/__init__.py",
        "processors/spark/__init__.py",
        *sorted(str(path.relative_to(root)) for path in (root / "processors/spark/jobs").glob("*.py")),
        "streamgauge/__init__.py",
        "streamgauge/spark.py",
    ]
    package = folder / "streamgauge-jobs.zip"
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in files:
            archive.write(root / each, each)
    return package


def _local_settings() -> list[str]:
    return [
        "spark.driver.memory=700m",
        "spark.driver.bindAddress=127.0.0.1",
        "spark.driver.host=127.0.0.1",
        "spark.ui.showConsoleProgress=false",
        "spark.sql.shuffle.partitions=2",  # as many as there are cores: more only cost time in each batch
    ]


def _job_options(options: dict[str, Any]) -> list[str]:
    """Return the options as the job itself takes them."""
    given = {
        "--bootstrap-servers": options["bootstrap_servers"],
        "--checkpoint": options["checkpoint"],
        "--topic": options["topic"],
        "--results": options["results"],
        "--sink": options["sink"],
        "--out": options["out"],
        "--trigger-seconds": options["trigger_seconds"],
        "--max-offsets": options["max_offsets"],
        "--name": options["query_name"],
    }
    named = [text for key, value in given.items() if value is not None for text in (key, str(value))]
    return [*named, *(f"--{flag}" for flag in ("once", "attach") if options[flag])]


def _wait(child: Any) -> int:
    """Wait for the job; hand on Ctrl-C and SIGTERM to it alone, so that it stops its query before its JVM is gone."""
    import os
    import signal

    def hand_on(number: int, _frame: object) -> None:
        # spark-submit has become a Java, whose child is the job's Python: that one stops both in order.
        for pid in _children(child.pid) or [child.pid]:
            os.kill(pid, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = int(child.wait())
        return code if code >= 0 else 128 - code  # as shells tell that a signal ended it
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child.poll() is None:
            child.kill()


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started itself, where the system tells."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
