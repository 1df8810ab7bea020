"""streamgauge spark submit: the command it makes, what is in the package, and what it refuses."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from monitor.cli import spark
from monitor.cli.main import streamgauge
from monitor.errors import SandboxError
from monitor.sandbox import jars
from processors.spark.jobs import common

OPTIONS = {
    "master": "local[2]",
    "bootstrap_servers": "k:1",
    "checkpoint": "/c",
    "topic": None,
    "results": None,
    "sink": "kafka",
    "out": None,
    "trigger_seconds": 5,
    "max_offsets": None,
    "once": False,
    "attach": False,
    "query_name": None,
    "conf": (),
}


@pytest.fixture(autouse=True)
def kafka_source(monkeypatch):
    """Have the Kafka source at hand, as after the first time, and any Java."""

    async def resolve(artifact):
        assert jars.SPARK_KAFKA is artifact
        return (Path("/j/a.jar"), Path("/j/b.jar"))

    monkeypatch.setattr(jars, "resolve", resolve)


def prepared(tmp_path, **options):
    return spark.prepare("word-count", {**OPTIONS, **options}, tmp_path)


def after(command, option):
    return [command[i + 1] for i, each in enumerate(command) if each == option]


@pytest.fixture
def java():
    from monitor.sandbox.java import find_java

    try:
        return find_java(full=True)
    except SandboxError as exc:
        pytest.skip(str(exc))


def test_on_this_machine_it_needs_nothing_of_a_cluster(tmp_path, java):
    """Jars that are here, little memory, loopback only, and the very Python that runs this."""
    command, environ = prepared(tmp_path)

    assert ["/j/a.jar,/j/b.jar"] == after(command, "--jars")
    assert [] == after(command, "--packages")
    assert {"spark.driver.memory=700m", "spark.driver.host=127.0.0.1"} <= set(after(command, "--conf"))
    assert (sys.executable, str(java.home)) == (environ["PYSPARK_PYTHON"], environ["JAVA_HOME"])
    assert Path(command[0]).is_file()


def test_a_cluster_fetches_the_source_and_keeps_its_own_settings(tmp_path):
    """Only what was asked for is set."""
    command, environ = prepared(tmp_path, master="spark://m:7077", conf=("spark.executor.memory=2g",))

    assert ["spark://m:7077"] == after(command, "--master")
    assert ["org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0"] == after(command, "--packages")
    assert ["spark.executor.memory=2g"] == after(command, "--conf")
    assert {"SPARK_HOME", "PYSPARK_PYTHON"} == environ.keys()


def test_the_job_takes_its_options(tmp_path, java):
    """What the command line was given arrives in the job as it was meant."""
    command, environ = prepared(
        tmp_path,
        topic="t",
        results="r",
        sink="files",
        out="/o",
        trigger_seconds=0,
        max_offsets=9,
        once=True,
        attach=True,
        query_name="n",
    )
    launch = next(i for i, each in enumerate(command) if each.endswith("launch.py"))
    options = common.parse_options(command[launch + 1 :])

    assert {
        "job": "word-count", "bootstrap_servers": "k:1", "checkpoint": "/c", "topic": "t", "results": "r",
        "sink": "files", "out": "/o", "trigger_seconds": 0, "max_offsets": 9, "once": True, "attach": True, "name": "n",
    } == vars(options)  # fmt: skip
    assert "k:1" == environ["STREAMGAUGE_BROKERS"]


def test_the_package_is_all_that_a_cluster_needs(tmp_path):
    """The jobs are imported from it alone, without the monitor or anything that is installed."""
    package = spark.pack(tmp_path)
    script = "import sys; from processors.spark.jobs.common import job_of, MODULES; import streamgauge.spark; "
    script += "print(sorted(job_of(each).name for each in MODULES), 'monitor' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path = [{str(package)!r}, *sys.path[1:]]; {script}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )

    assert f"{sorted(spark.JOBS)} False\n" == done.stdout
    assert not [each for each in zipfile.ZipFile(package).namelist() if each.startswith("monitor")]


def test_every_job_is_offered():
    """The names stand twice, so that --help does not import them."""
    assert tuple(common.MODULES) == spark.JOBS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["word-counts"], "'word-counts' is not one of 'word-count'"),
        (["edge", "--sink", "files"], "--sink files needs --out DIR: where results are written"),
        (["edge", "--conf", "spark.x"], "--conf spark.x: it must be KEY=VALUE"),
    ],
    ids=["name", "out", "conf"],
)
def test_wrong_usage_is_one_line(arguments, said):
    """With exit code 2."""
    result = CliRunner().invoke(
        streamgauge, ["spark", "submit", *arguments, "--bootstrap-servers", "k:1", "--checkpoint", "/c"]
    )

    assert 2 == result.exit_code
    assert said in result.stderr
    assert 1 == len(result.stderr.splitlines())


PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); "
                          "print('up', flush=True); signal.pause()"])
sys.exit(child.wait())
"""


def test_a_signal_goes_to_the_job_and_not_to_its_jvm():
    """The process that we started waits for its own child, which stops in order; its code is ours."""
    child = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert "up" == child.stdout.readline().strip()
    waiting = signal.getsignal(signal.SIGTERM)
    original = child.wait

    def wait_and_be_told():
        os.kill(os.getpid(), signal.SIGTERM)
        return original()

    child.wait = wait_and_be_told

    assert 5 == spark._wait(child)
    assert waiting == signal.getsignal(signal.SIGTERM)
    child.stdout.close()


def test_a_job_that_was_killed_has_a_shells_exit_code():
    """128 and the signal's number."""
    child = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])

    assert 137 == spark._wait(child)
