"""The Spark job where it cannot run: one line, exit 3, no Spark started."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from processors.spark.jobs import readings_average
from processors.spark.jobs.readings_average import JobError, check_java, parse_options


@pytest.fixture
def java_that_says(tmp_path):
    """Make a JAVA_HOME whose java prints what it is given."""

    def make(text):
        java = tmp_path / "bin" / "java"
        java.parent.mkdir()
        java.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        java.chmod(java.stat().st_mode | stat.S_IXUSR)
        return {"JAVA_HOME": str(tmp_path)}

    return make


def test_a_full_java_17_will_do(java_that_says):
    """It lists the module that Spark asks for."""
    check_java(java_that_says("java.base@17.0.15\njdk.incubator.vector@17.0.15"))


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        pytest.param("java.base@25.0.1\njava.logging@25.0.1", "Java 25", id="recent, but trimmed"),
        pytest.param("java.base@11.0.2\njdk.incubator.vector@11.0.2", "Java 11", id="too old"),
        pytest.param("Unrecognized option: --list-modules", "older", id="so old that it has no modules"),
    ],
)
def test_a_java_that_does_not_run_spark_is_refused(java_that_says, listed, found):
    """It says which Java it found where, and what is needed."""
    environ = java_that_says(listed)

    with pytest.raises(JobError, match="full Java 17 or later") as raised:
        check_java(environ)
    assert found in str(raised.value)
    assert f"{environ['JAVA_HOME']}/bin/java" in str(raised.value)


@pytest.mark.parametrize("environ", [{"PATH": "/nowhere"}, {"JAVA_HOME": "/nowhere"}], ids=["no java", "wrong home"])
def test_no_java_is_told(environ):
    """With what to do."""
    with pytest.raises(JobError, match="JAVA_HOME"):
        check_java(environ)


def test_no_kafka_is_one_line_and_exit_3(tmp_path):
    """It does not start Spark to find out."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        command = [sys.executable, Path(readings_average.__file__), "--bootstrap-servers", address]
        ended = subprocess.run(
            [*command, "--checkpoint", tmp_path / "q"], check=False, capture_output=True, text=True, env={**os.environ}
        )

    assert 3 == ended.returncode
    assert [
        f"readings-average-5m: no Kafka answers at {address}: does it run, is the address right?"
    ] == ended.stderr.splitlines()
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize("address", ["nonsense", "host:port", "127.0.0.1:99999", "[::1]:1"])
def test_an_address_that_is_none_is_told(address):
    """It is as unreachable as any other."""
    with pytest.raises(JobError, match="no Kafka answers"):
        readings_average.check_reachable(address)


def test_defaults():
    """Topic, results and name are those of the demo."""
    options = parse_options(["--bootstrap-servers", "h:1", "--checkpoint", "c"])

    assert ("readings", "readings-averages-5m", "readings-average-5m", "kafka") == (
        options.topic,
        options.results,
        options.name,
        options.sink,
    )
