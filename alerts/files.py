"""Rendered files onto the disk: whole or not at all, so that a server that re-reads them never sees half a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from monitor.errors import UsageError


def write(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write texts under their relative paths below a folder, which is made, and return the paths in order.

    Raises:
        UsageError: a file cannot be written there.
    """
    return [_write(folder / name, text) for name, text in texts.items()]


def _write(path: Path, text: str) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as exc:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        reason = exc.strerror or str(exc)
        msg = f"cannot write {path}: {reason}; name a folder that can be written with --out"
        raise UsageError(msg) from exc
    return path
