"""Where checkpoints lie: folders of this machine, or an object store by fsspec, behind four questions.

A store never trusts what it holds: it reads at most ``MAX_FILE_BYTES`` of a file and keeps at most ``MAX_NAMES`` names
of a folder. A file that is not there is a ``FileNotFoundError``, any other trouble an ``OSError``; both are the answer
about that one file. Stores are asked from several threads at once.

fsspec and the driver of each store (s3fs, gcsfs, adlfs) are imported on first use: folders need neither. Credentials
and endpoints are found the way these drivers find them (environment, profiles, instance roles).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from monitor.observe.spark.formats import CheckpointError

MAX_FILE_BYTES = 4 * 2**20
"""More than any file of a checkpoint holds: the offsets of 200,000 partitions are as large."""

MAX_NAMES = 200_000
"""More than any folder of a checkpoint holds: with hundreds of batches kept, Spark leaves a thousand names."""

SCHEMES = {"s3a": "s3", "s3n": "s3"}
"""Hadoop's names of stores, and fsspec's."""

EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}
"""The package that fsspec needs for a scheme."""


class Entry(NamedTuple):
    """A name in a folder; when it was written, in seconds since the epoch, where the listing says so, else NaN."""

    name: str
    written_at: float = math.nan


class Content(NamedTuple):
    """A file and when it was written, in seconds since the epoch; NaN where the store does not tell."""

    data: bytes
    written_at: float


class Store(Protocol):
    """What is asked of a store. ``threads`` of it may wait at once; ``root`` is what its paths have in front.

    ``has_stamps`` says whether it tells changes cheaply, by ``stamp``.
    """

    threads: int
    root: str
    has_stamps: bool

    def entries(self, folder: str) -> list[Entry]:
        """List a folder.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be listed, or holds too many names.
        """

    def read(self, path: str) -> Content:
        """Read a file.

        Raises:
            FileNotFoundError: it is not there.
            OSError: it cannot be read, or is too large.
        """

    def read_all(self, paths: Sequence[str]) -> list[Content | OSError]:
        """Read several files: each answer is a content or what is wrong with that one."""

    def stamp(self, path: str) -> object | None:
        """Return what differs after a file was replaced or a folder changed; None: it is not there, or not told."""


class LocalStore:
    """Folders of this machine. One thread is enough while they answer: it is work, not waiting."""

    threads = 1
    root = ""
    has_stamps = True

    def entries(self, folder: str) -> list[Entry]:
        """List a folder; names only, as their times would be a question each."""
        with os.scandir(folder) as found:
            return limited(folder, (Entry(each.name) for each in found))

    def read(self, path: str) -> Content:
        """Read a file and its modification time."""
        # Not open(): its buffer and its decoder cost more than these small files.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts, size = [], 0
            while size <= MAX_FILE_BYTES and (part := os.read(number, min(65_536, MAX_FILE_BYTES + 1 - size))):
                parts.append(part)
                size += len(part)
            return Content(within_limit(path, b"".join(parts)), os.fstat(number).st_mtime)
        finally:
            os.close(number)

    def read_all(self, paths: Sequence[str]) -> list[Content | OSError]:
        """Read one after the other."""
        return [_answer(self, path) for path in paths]

    def stamp(self, path: str) -> object | None:
        """Return time, size and place; None if it is not there."""
        try:
            stat = os.stat(path)  # noqa: PTH116 (a thousand times a cycle)
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class FsspecStore:
    """An object store by an fsspec file system that keeps no listings; ``root`` is for example ``s3://``."""

    threads = 32
    has_stamps = False

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self.root = root

    def entries(self, folder: str) -> list[Entry]:
        """List what lies directly in a folder, with times where the store tells them.

        The file system itself has the whole listing in memory, however long.
        """
        found = _told(folder, lambda: self._system.ls(folder, detail=True))
        names = (Entry(str(each["name"]).rstrip("/").rpartition("/")[2], written_at(each)) for each in found)
        return limited(folder, (each for each in names if each.name))

    def read(self, path: str) -> Content:
        """Read an object, then ask when it was written."""
        data = _told(path, lambda: self._system.cat_file(path, start=0, end=MAX_FILE_BYTES + 1))
        within_limit(path, data)
        return Content(data, written_at(_told(path, lambda: self._system.info(path))))

    def read_all(self, paths: Sequence[str]) -> list[Content | OSError]:
        """Read several objects at once, as the store's driver does; when they were written is in a listing."""
        if not paths:
            return []
        ends = [MAX_FILE_BYTES + 1] * len(paths)
        found = self._system.cat_ranges(list(paths), [0] * len(paths), ends, on_error="return")
        return [_content(path, each) for path, each in zip(paths, found, strict=True)]

    def stamp(self, path: str) -> object | None:
        """Return None: it would be a request."""
        return None


def store_for(uri: str) -> tuple[Store, str]:
    """Return the store that a path or URI names, and its path (or glob) in there.

    Raises:
        CheckpointError: the store's driver is not installed, or it refuses the URI.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        path = rest if separator else uri
        return LocalStore(), os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 (globs are no paths)
    protocol = SCHEMES.get(scheme, scheme)
    try:
        core = import_module("fsspec.core")
        # Listings change under us all the time, and this instance is ours alone.
        system, path = core.url_to_fs(f"{protocol}://{rest}", use_listings_cache=False, skip_instance_cache=True)
    except ImportError as exc:
        needs = f"fsspec and {EXTRAS[protocol]}" if protocol in EXTRAS else "fsspec and its driver for this store"
        advice = "pip install 'streamgauge[s3]'" if protocol == "s3" else f"install {needs}"
        raise CheckpointError("UNSUPPORTED", f"{uri}: needs {needs}, which are not installed: {advice}") from exc
    except (ValueError, TypeError) as exc:
        raise CheckpointError("UNSUPPORTED", f"{uri}: fsspec cannot open it: {_line(exc)}") from exc
    return FsspecStore(system, f"{scheme}://"), path.rstrip("/")


# --- limits and answers -----------------------------------------------------------------------------


def limited(folder: str, entries: Iterator[Entry]) -> list[Entry]:
    """Take the entries of a folder, and stop at more than a checkpoint can have.

    Raises:
        OSError: there are more.
    """
    kept: list[Entry] = []
    for entry in entries:
        if len(kept) == MAX_NAMES:
            problem = f"it holds more than {MAX_NAMES:,} names: that is no folder of a checkpoint"
            raise OSError(0, problem, folder)
        kept.append(entry)
    return kept


def within_limit(path: str, data: bytes) -> bytes:
    """Return the data, unless there is more than a file of a checkpoint can hold.

    Raises:
        OSError: there is more.
    """
    if len(data) > MAX_FILE_BYTES:
        problem = f"it is larger than {MAX_FILE_BYTES:,} bytes: that is no file of a checkpoint"
        raise OSError(0, problem, path)
    return data


def written_at(info: Mapping[str, Any]) -> float:
    """Return when an object was written, in seconds since the epoch, as its store names it; NaN where none does."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "modified", "created"):
        value = info.get(name)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return math.nan


def _answer(store: LocalStore, path: str) -> Content | OSError:
    try:
        return store.read(path)
    except OSError as exc:
        return exc


def _content(path: str, found: object) -> Content | OSError:
    if not isinstance(found, bytes):
        return _as_os_error(path, found)
    try:
        return Content(within_limit(path, found), math.nan)
    except OSError as exc:
        return exc


def _told(path: str, ask: Any) -> Any:
    """Ask a file system; what its driver raises, which may be anything of its HTTP client's, is an ``OSError``."""
    try:
        return ask()
    except Exception as exc:
        raise _as_os_error(path, exc) from exc


def _as_os_error(path: str, problem: object) -> OSError:
    if isinstance(problem, FileNotFoundError):
        return FileNotFoundError(2, "it does not exist", path)
    return OSError(0, _line(problem), path)


def _line(problem: object) -> str:
    """Return what is wrong in one line of bearable length."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"  # noqa: PLR2004 (bearable)
