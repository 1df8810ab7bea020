"""What is kept of a partition, as keys and values of a changelog: nothing of Kafka or Faust, no I/O.

A *flush* writes what has changed since the one before: an entry for each key and pane that was touched, and at the
end one of the partition itself (``META``): watermarks, what has been applied of each source, and the number of the
flush. A flush counts when its META is there. It may be torn by the death of its worker: some entries written, META
not. So an entry has the number of its flush and, beside its value, the one from before that flush. ``restore`` takes
what META's flush left behind, whatever of a later one is there, and the records since then are applied again to that:
they find the watermarks and values that they found the first time, and give the same results.

Entries of a torn flush are written anew by the next one, before its META, which would make them count otherwise. What
is gone is deleted after META: without it, its windows are not closed yet.

A worker that has lost a partition may have a flush on its way that arrives when its successor has already read what is
kept. So a successor begins its numbers a random stretch further on, and META says where: numbers between are of no
flush that counts. Its first flush begins with META as it was read, in case another one has come since.

An entry has the key ``PANE/KEY`` and the value ``[flush, value]`` or ``[flush, value, value before]``, in JSON.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from processors.coding import encoder
from processors.pipeline import Window
from processors.windows import NEW, UNKNOWN, Windows

META = b"meta"

Position = tuple[int, int]
"""How far a source has been applied: the offset of a record, and which of those it was made into."""

STRETCH = 1 << 20
"""How far apart, at most, the numbers of flushes of two workers are; at least half of that."""

NOTHING_APPLIED: Position = (-1, 0)

_encode = encoder()
_decode = json.JSONDecoder().decode


class KeptError(ValueError):
    """What is to be kept cannot be said in JSON."""


class Flush(NamedTuple):
    """What is to be written of a partition, in this order, and the offset that may be committed after ``meta``.

    Without windows there is nothing to be written.
    """

    number: int
    next: int
    entries: list[tuple[bytes, bytes | None]]
    meta: bytes
    gone: list[bytes]


class PartitionState:
    """What is known of one partition that is read: windows, how far each source has been applied, the next offset.

    ``sources`` are waited for by its windows; ``whole`` says that no record came before.
    """

    def __init__(self, window: Window | None, sources: Iterable[int], *, whole: bool) -> None:
        self.applied: dict[int, Position] = {}
        self.next = 0
        self.windows = None if window is None else Windows(window.span, window.aggregate, whole=whole)
        self._flushed_next = 0
        self._taken_over: list[tuple[bytes, bytes | None]] = []
        self._begin_after(0, last=0)
        if self.windows is not None:
            self.windows.expect(sources)
            self.windows.track_changes()

    @classmethod
    def restore(
        cls, kept: Mapping[bytes, bytes], window: Window, sources: Iterable[int], *, whole: bool
    ) -> PartitionState:
        """Return a partition as its last flush left it; a new one, ``whole`` or not, if there was none.

        Raises:
            WindowError: it was kept by other windows.
        """
        self = cls(window, sources, whole=whole)
        meta: dict[str, Any] = json.loads(kept[META]) if META in kept else {"flush": 0, "begin": [0, 0]}
        panes, torn, last = _panes(kept, meta["flush"], *meta["begin"])
        if META in kept:
            snapshot = {**meta["windows"], "panes": [(number, pane.items()) for number, pane in sorted(panes.items())]}
            self.windows = Windows.restore(window.span, window.aggregate, snapshot)
            self.windows.expect(sources)
            self.windows.track_changes()
            self.windows.drop_closed()
            self.applied = {source: (offset, index) for source, offset, index in meta["applied"]}
            self.next = self._flushed_next = meta["next"]
        self._begin_after(meta["flush"], last=max(last, meta["flush"]))
        for number, key, has_one in torn:
            if self.windows is not None:
                self.windows.mark_changed(number, key, known=has_one)
        as_read = _encode({**meta, "begin": [self._base, self._begin]}).encode() if META in kept else None
        self._taken_over = [(META, as_read)]
        return self

    def write_again(self, names: Iterable[bytes]) -> None:
        """Have the next flush write these entries as they are here, as another worker has written them since."""
        self._flushed_next = -1
        for name in names:
            if name != META and self.windows is not None:
                self.windows.mark_changed(*_parsed(name), known=True)

    def _begin_after(self, base: int, *, last: int) -> None:
        """Number flushes from well after the last that was seen; those up to ``base`` count."""
        self._base = base
        self._begin = last + random.randrange(STRETCH // 2, STRETCH)  # noqa: S311  # no secret
        self._flush = self._begin - 1

    @property
    def is_changed(self) -> bool:
        """Return whether a record came since the last flush was taken."""
        return self.next != self._flushed_next

    def take_flush(self) -> Flush:
        """Return what has changed; take another one only after this one has been written.

        Raises:
            KeptError: values cannot be said in JSON.
        """
        self._flushed_next = self.next
        if self.windows is None:
            return Flush(0, self.next, [], b"", [])
        self._flush += 1
        changed, lost, removed = self.windows.take_changes()
        encode, number = self.windows.aggregate.encode, self._flush
        entries: list[tuple[bytes, bytes | None]] = [*self._taken_over, *((_key(*where), None) for where in lost)]
        self._taken_over = []
        try:
            for pane, key, now, before in changed:
                has_none = before is NEW or before is UNKNOWN
                value = [number, encode(now)] if has_none else [number, encode(now), encode(before)]
                entries.append((_key(pane, key), _encode(value).encode()))
            meta = _encode(
                {
                    "flush": number,
                    "begin": [self._base, self._begin],
                    "next": self.next,
                    "applied": [[source, *position] for source, position in self.applied.items()],
                    "windows": self.windows.head(),
                }
            ).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            problem = f"windows cannot be kept: {exc}; what an aggregate keeps has to be JSON"
            raise KeptError(problem) from exc
        return Flush(number, self.next, entries, meta, [_key(*where) for where in removed])


def _panes(
    kept: Mapping[bytes, bytes], counts_to: int, base: int, begin: int
) -> tuple[dict[int, dict[str, Any]], list[tuple[int, str, bool]], int]:
    """Return values by pane as the flushes that count left them, what others wrote, and the last number.

    Those up to ``base`` count, and from ``begin`` to ``counts_to``. Of what others wrote it is told whether there is a
    value from before.
    """
    panes: dict[int, dict[str, Any]] = {}
    torn: list[tuple[int, str, bool]] = []
    last = 0
    for name, value in kept.items():
        if name == META:
            continue
        number, key = _parsed(name)
        flush, now, *before = _decode(value.decode())
        last = max(last, flush)
        if not (flush <= base or begin <= flush <= counts_to):
            torn.append((number, key, bool(before)))
            if not before:
                continue
            (now,) = before
        pane = panes.get(number)
        if pane is None:
            pane = panes[number] = {}
        pane[key] = now
    return panes, torn, last


def _key(number: int, key: Any) -> bytes:
    return b"%d/%s" % (number, key.encode())


def _parsed(name: bytes) -> tuple[int, str]:
    number, _, key = name.partition(b"/")
    return int(number), key.decode()
