"""Results that are kept: a step whose inputs are the very same objects as the last time need not be done again.

Columns are never written to once they are handed on, so the same object means the same values. What comes from outside
is compared by value once, with ``same``; every step behind it compares objects only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from monitor.derive.belonging import Counted
    from monitor.derive.consumers import Parts
    from monitor.derive.findings import Key, Part
    from monitor.derive.groups import GroupColumns
    from monitor.derive.lag import RecordLag, Sums
    from monitor.derive.seconds import Places
    from monitor.model import Bools, Floats, GroupFacts, Int8s

T = TypeVar("T")
Column = TypeVar("Column", bound=npt.NDArray[Any])


class Kept(Generic[T]):
    """The last result of one step."""

    def __init__(self) -> None:
        self._inputs: tuple[Any, ...] | None = None
        self._result: T

    def get(self, step: Callable[..., T], *inputs: Any) -> T:
        """Return ``step(*inputs)``, or what it returned last if every input is the same object as then."""
        # The inputs are held on to, so that no other object can take the place of one in memory.
        if self._inputs is None or not _are_same(self._inputs, inputs):
            self._result = step(*inputs)
            self._inputs = inputs
        return self._result


def same(new: Column, old: Column) -> Column:
    """Return the old column where the new one says the same, so that what was made of it can be kept."""
    if new is old or (len(new) == len(old) and np.array_equal(new, old, equal_nan=new.dtype.kind == "f")):
        return old
    return new


def _are_same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return len(left) == len(right) and all(one is other for one, other in zip(left, right, strict=True))


@dataclass(slots=True)
class Steps:
    """The steps of a cycle whose results are kept, each with what it gives."""

    facts: Kept[tuple[GroupFacts, ...]] = field(default_factory=Kept)
    groups: Kept[GroupColumns] = field(default_factory=Kept)
    records: Kept[RecordLag] = field(default_factory=Kept)
    topics: Kept[Sums] = field(default_factory=Kept)
    counted: Kept[Counted] = field(default_factory=Kept)
    reads_known: Kept[Bools] = field(default_factory=Kept)
    places: Kept[Places] = field(default_factory=Kept)
    judged: Kept[Int8s] = field(default_factory=Kept)
    pairs: Kept[Sums] = field(default_factory=Kept)
    objectives: Kept[Floats] = field(default_factory=Kept)
    parts: Kept[Parts] = field(default_factory=Kept)
    beyond_end: Kept[dict[Key, list[Part]]] = field(default_factory=Kept)
