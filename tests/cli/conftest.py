"""The commands run in this process, against scripted clusters in place of Kafka."""

import pytest
from click.testing import CliRunner
from scripted_kafka import ScriptedKafka

from monitor.cli.main import streamgauge


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty current folder, and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STREAMGAUGE_CONFIG", raising=False)
    return tmp_path


@pytest.fixture
def kafkas(in_folder, monkeypatch):
    """Scripted clusters by name: filled by the test, read by the monitor instead of Kafka."""
    scripted: dict[str, ScriptedKafka] = {}
    monkeypatch.setattr("monitor.observe.kafka.source.KafkaSource", lambda cluster: scripted[cluster.name])
    return scripted


@pytest.fixture
def run():
    """Run a command line and return its result: exit code, stdout, stderr."""

    def invoke(*args, **extra):
        return CliRunner().invoke(streamgauge, [str(arg) for arg in args], **extra)

    return invoke
