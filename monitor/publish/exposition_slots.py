"""The lines of one metric of one cluster, laid out once and patched.

The text format allows any number of blanks between labels and value, and a comment anywhere. So every line ends in a
slot of fixed width that holds its value, right-aligned, and a line whose value is unknown becomes a comment: ``#`` over
its first byte, and back again when the value is known.

Values are integers: seconds are milliseconds with a point set in, for no reading of ours is finer. Digits are looked up
four at a time, so the width of a slot is a multiple of four bytes. A value that outgrows its slot asks for a new
layout. Everything works on columns, and only on the rows that changed (``benchmarks/bench_exposition.py`` has figures).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from monitor.catalog import Column
from monitor.model import UNKNOWN, Bools, Int32s, Int64s
from monitor.publish.exposition_budget import Cut
from monitor.publish.exposition_gzip import Piece, deflate
from monitor.publish.exposition_labels import Rows

PIECE_ROWS = 2048
"""Rows compressed together, and left alone together while none of them changes: some 250 KB of text."""

_LATEST = 2.0**43
"""Seconds beyond this are no time that anybody measured, and as milliseconds would not be exact."""

_Words = npt.NDArray[np.uint32]


def _words(texts: list[bytes]) -> _Words:
    return np.frombuffer(b"".join(texts), np.uint32)


_PADDED = 10_000
_BLANK = 20_000
_FOUR_DIGITS = _words([b"%04d" % n for n in range(10_000)] + [b"%4d" % n for n in range(10_000)] + [b"    "])
"""Four digits by number: with zeros in front, from _PADDED on with blanks instead, and at _BLANK none at all."""
_MILLISECONDS = _words([b".%03d" % n for n in range(1000)])


def is_known(column: Column) -> Bools:
    """Return of each value whether it is one."""
    return column >= 0 if column.dtype.kind == "i" else column < _LATEST  # false for NaN


def slot_values(column: Column) -> Int64s:
    """Return a column of the catalogue as integers for the slots: seconds in milliseconds, -1 where unknown."""
    if column.dtype.kind == "i":
        return column.astype(np.int64, copy=False)
    return np.where(is_known(column), np.rint(column * 1000.0), UNKNOWN).astype(np.int64)


def digits(values: Int64s, words: int, *, seconds: bool) -> _Words:
    """Return each value in ``words`` x 4 bytes, right-aligned. Values are not negative and fit."""
    out = np.empty((len(values), words), np.uint32)
    rest, last = values, words - 1
    if seconds:
        rest = values // 1000
        out[:, last] = _MILLISECONDS[values - rest * 1000]
        last -= 1
    for word in range(last, -1, -1):
        above = rest // 10_000
        number = rest - above * 10_000 + (above == 0) * _PADDED
        if word != last:
            number += (rest == 0) * (_BLANK - _PADDED)
        out[:, word] = _FOUR_DIGITS[number]
        rest = above
    return out


class SlotBlock:
    """Lines of one metric of one cluster, their values, and their compressed pieces. Not for several threads at once.

    ``cut`` makes a column of the metric to that of ``rows``; None: it is.
    """

    def __init__(self, name: str, rows: Rows, column: Column, cut: Cut | None = None) -> None:
        self._seconds = column.dtype.kind == "f"
        self._first_byte = name.encode()[0]
        self._column, self._cut = column, cut
        values = slot_values(cut(column) if cut else column)
        self._words = _words_needed(values, seconds=self._seconds)
        self._text, self._starts = _lay_out(name.encode(), rows, width=4 * self._words)
        self._bytes = np.frombuffer(self._text, np.uint8)
        self._values = np.full(len(rows), UNKNOWN, np.int64)
        self._bytes[self._starts[:-1]] = ord("#")
        self._bounds = list(pairwise((*self._starts[:-1:PIECE_ROWS].tolist(), len(self._text))))
        self.pieces: list[Piece] = []
        self.series = 0
        self._write(values, np.arange(len(rows)))
        self.pieces = [self._deflated(piece) for piece in range(len(self._bounds))]

    def patch(self, column: Column, cut: Cut | None = None) -> bool:
        """Write what has changed; return False, with nothing written, if a value does not fit its slot."""
        if cut is self._cut and _is_same(column, self._column):
            self._column = column  # so that the one before is not kept alive
            return True
        values = slot_values(cut(column) if cut else column)
        changed = np.flatnonzero(values != self._values)
        if len(changed) and _words_needed(values, seconds=self._seconds, headroom=1) > self._words:
            return False
        self._column, self._cut = column, cut
        if not len(changed):
            return True
        self._write(values, changed)
        dirty = np.zeros(len(self.pieces), np.bool_)
        dirty[changed // PIECE_ROWS] = True
        for piece in np.flatnonzero(dirty).tolist():
            self.pieces[piece] = self._deflated(piece)
        return True

    def _write(self, values: Int64s, changed: npt.NDArray[np.intp]) -> None:
        known = values[changed] >= 0
        turned = changed[known != (self._values[changed] >= 0)]
        self._bytes[self._starts[turned]] = np.where(values[turned] >= 0, self._first_byte, ord("#"))
        rows, width = changed[known], 4 * self._words
        if len(rows):
            text = digits(values[rows], self._words, seconds=self._seconds).view(f"V{width}")[:, 0]
            # Every place of the text where a slot may begin: one slot is one element.
            slots = np.ndarray((len(self._text) - width + 1,), f"V{width}", self._text, strides=(1,))
            slots[self._starts[rows + 1] - (width + 1)] = text
        self._values = values
        self.series = int(np.count_nonzero(values >= 0))

    def _deflated(self, piece: int) -> Piece:
        start, end = self._bounds[piece]
        return deflate(memoryview(self._text)[start:end])


def _is_same(column: Column, other: Column) -> bool:
    """Return whether two columns are the same to the byte, and so in every NaN."""
    return column is other or (
        column.dtype == other.dtype and np.array_equal(column.view(np.int64), other.view(np.int64))
    )


def _words_needed(values: Int64s, *, seconds: bool, headroom: int = 10) -> int:
    """Return how many words hold the largest value ``headroom`` times."""
    largest = max(int(values.max(initial=0)), 1) * headroom
    if seconds:
        return 1 + -(-len(str(largest // 1000)) // 4)
    return -(-min(len(str(largest)), 20) // 4)  # 19 digits hold any int64


def _lay_out(name: bytes, rows: Rows, *, width: int) -> tuple[bytearray, Int32s]:
    """Return the lines with empty slots, and where each begins (with the end of the last behind)."""
    heads = [name + head for head in rows.heads]
    tails = [tail + b" " * width + b"\n" for tail in rows.tails]
    lengths = _lengths(heads)[rows.head] + _lengths(tails)[rows.tail]
    starts = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    parts = np.empty((len(rows), 2), object)
    parts[:, 0] = np.array(heads, object)[rows.head]
    parts[:, 1] = np.array(tails, object)[rows.tail]
    return bytearray().join(parts.ravel().tolist()), starts


def _lengths(texts: list[bytes]) -> Int32s:
    return np.fromiter(map(len, texts), np.int32, len(texts))
