"""Which checkpoint folders a path or glob of the settings names, on whatever store.

A glob is followed one part of the path at a time, so that nothing is listed that it does not name. ``*``, ``?`` and
``[…]`` stand for characters of one part; hidden folders (``.name``) are matched only by a part that begins with a dot.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from monitor.observe.spark.formats import CheckpointError
from monitor.observe.spark.store import Store

MAX_CHECKPOINTS = 10_000
"""More than one monitor can look at; a glob that names more was meant otherwise."""

SIGNS = frozenset({"metadata", "offsets", "commits"})
"""One of these lies in every checkpoint; other folders may lie beside it."""


def expand(store: Store, pattern: str, known: Iterable[str] = ()) -> list[str]:
    """Return the folders that a path or glob names, sorted; a path as it is.

    A glob that matches nothing (yet) is fine; the folder in which it is looked for must exist. Where that is gone, the
    ``known`` ones in it are returned: a file system that is not mounted must not make queries leave.

    Raises:
        CheckpointError: it can never match, or matches too many.
        OSError: a folder cannot be listed.
    """
    if not glob.has_magic(pattern):
        return [pattern]
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = "/".join(parts[:fixed])
    try:
        names = [each.name for each in store.entries(root or "/")]
    except FileNotFoundError:
        left = sorted(each for each in known if each.startswith(f"{root}/"))
        if left:
            return left
        shown = f"{store.root}{root}"
        detail = f"there is no folder {shown}, in which {store.root}{pattern} is looked for"
        raise CheckpointError("NOT_FOUND", detail) from None
    found = [f"{root}/{name}" for name in names if _matches(name, parts[fixed])]
    for part in parts[fixed + 1 :]:
        found = list(_bounded(_step(store, found, part), f"{store.root}{pattern}"))
    matches = _bounded((each for each in found if _is_checkpoint(store, each)), f"{store.root}{pattern}")
    return sorted(matches)


def _matches(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (not name.startswith(".") or part.startswith("."))


def _step(store: Store, folders: Iterable[str], part: str) -> Iterator[str]:
    if not glob.has_magic(part):
        yield from (f"{folder}/{part}" for folder in folders)
        return
    for folder in folders:
        try:
            entries = store.entries(folder)
        except OSError:
            continue  # a file, or one of the others' folders
        yield from (f"{folder}/{each.name}" for each in entries if _matches(each.name, part))


def _bounded(paths: Iterable[str], pattern: str) -> Iterator[str]:
    for number, path in enumerate(paths):
        if number == MAX_CHECKPOINTS:
            raise CheckpointError("TOO_MANY", f"{pattern} matches more than {MAX_CHECKPOINTS:,} folders: narrow it")
        yield path


def _is_checkpoint(store: Store, path: str) -> bool:
    """Return whether a glob's match is meant: other folders and files may lie beside checkpoints."""
    if store.stamp(f"{path}/metadata") is not None:
        return True
    try:
        return any(each.name in SIGNS for each in store.entries(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # whatever it is, looking at it will fail and say why
