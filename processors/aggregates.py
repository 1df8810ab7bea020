"""What a window keeps of its records: count, sum, mean, min, max, count by value, reduce, and several at once.

An aggregate is a way to add values to an *accumulator* and to merge two of them; panes hold accumulators, a window
is the merge of its panes in the order of time, so ``reduce`` needs a function that may be applied in any grouping.
Each takes ``of``, a function that gives the number or value wanted of what comes; without it that is taken itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from monitor.errors import UsageError

V = TypeVar("V")
R = TypeVar("R")

NONE_YET: Any = None


class AggregateError(UsageError):
    """An aggregate was declared that cannot be."""


class Aggregate(ABC, Generic[V, R]):
    """Adds values of kind V, gives a result of kind R."""

    name: str
    """Tells accumulators of one kind from those of another in what is kept."""

    @abstractmethod
    def first(self) -> Any:
        """Return the accumulator of no value."""

    @abstractmethod
    def add(self, acc: Any, value: V) -> Any:
        """Return ``acc`` with a value added, which may be the same object, changed.

        Raises:
            ValueError: the value cannot be added; the accumulator is as it was.
            TypeError: it is of a kind that cannot be added; the accumulator is as it was.
        """

    @abstractmethod
    def merge(self, a: Any, b: Any) -> Any:
        """Return a new accumulator of two that hold a value each; ``a`` is the earlier. Neither is changed."""

    def result(self, acc: Any) -> R:
        """Return what an accumulator amounts to."""
        return acc  # type: ignore[no-any-return]

    def copy(self, acc: Any) -> Any:
        """Return an accumulator that ``add`` may change without changing this one."""
        return acc

    def encode(self, acc: Any) -> Any:
        """Return an accumulator as lists, numbers and what values are."""
        return acc

    def decode(self, kept: Any) -> Any:
        """Return the accumulator that ``encode`` was given."""
        return kept


def count() -> Aggregate[Any, int]:
    """Count records."""
    return _Count()


def total(of: Callable[[V], float] | None = None) -> Aggregate[V, float]:
    """Sum numbers."""
    return _Total("sum", of)


def mean(of: Callable[[V], float] | None = None) -> Aggregate[V, float]:
    """Average numbers."""
    return _Mean("mean", of)


def least(of: Callable[[V], float] | None = None) -> Aggregate[V, float]:
    """Take the smallest number."""
    return _Extreme("min", of, min)


def greatest(of: Callable[[V], float] | None = None) -> Aggregate[V, float]:
    """Take the greatest number."""
    return _Extreme("max", of, max)


def count_by(of: Callable[[V], Any] | None = None) -> Aggregate[V, dict[Any, int]]:
    """Count how often each value occurs. What is kept grows with the number of different values."""
    return _CountBy("count by value", of)


def reduce(function: Callable[[V, V], V]) -> Aggregate[V, V]:
    """Fold values by a function of two that gives one of the same kind; it must be associative and change neither."""
    return _Reduce(function)


def several(**parts: Aggregate[V, Any]) -> Aggregate[V, dict[str, Any]]:
    """Take several aggregates at once; the result has each under its name.

    Raises:
        AggregateError: there is none, or one is no aggregate.
    """
    return _Several(parts)


class _Count(Aggregate[Any, int]):
    name = "count"

    def first(self) -> Any:
        return 0

    def add(self, acc: Any, value: Any) -> Any:
        return acc + 1

    def merge(self, a: Any, b: Any) -> Any:
        return a + b


class _Of(Aggregate[V, R]):
    """Of each value a part of it."""

    def __init__(self, name: str, of: Any) -> None:
        if of is not None and not callable(of):
            problem = f"{name} of {of!r}: it must be a function of a value"
            raise AggregateError(problem)
        self.name = name
        self._of = of

    def _number(self, value: V) -> float:
        number: Any = value if self._of is None else self._of(value)
        if not math.isfinite(number):  # it would make the whole window so
            problem = f"{number!r} is not a finite number"
            raise ValueError(problem)
        return number  # type: ignore[no-any-return]


class _Total(_Of[V, float]):
    def first(self) -> Any:
        return 0

    def add(self, acc: Any, value: V) -> Any:
        return acc + self._number(value)

    def merge(self, a: Any, b: Any) -> Any:
        return a + b


class _Mean(_Of[V, float]):
    def first(self) -> Any:
        return (0, 0)

    def add(self, acc: Any, value: V) -> Any:
        return (acc[0] + 1, acc[1] + self._number(value))

    def merge(self, a: Any, b: Any) -> Any:
        return (a[0] + b[0], a[1] + b[1])

    def result(self, acc: Any) -> float:
        return acc[1] / acc[0]  # type: ignore[no-any-return]

    def encode(self, acc: Any) -> Any:
        return list(acc)

    def decode(self, kept: Any) -> Any:
        return tuple(kept)


class _Extreme(_Of[V, float]):
    def __init__(self, name: str, of: Callable[[V], Any] | None, choose: Callable[[Any, Any], Any]) -> None:
        super().__init__(name, of)
        self._choose = choose

    def first(self) -> Any:
        return NONE_YET

    def add(self, acc: Any, value: V) -> Any:
        number = self._number(value)
        return number if acc is NONE_YET else self._choose(acc, number)

    def merge(self, a: Any, b: Any) -> Any:
        return self._choose(a, b)


class _CountBy(_Of[V, dict[Any, int]]):
    def first(self) -> Any:
        return {}

    def add(self, acc: Any, value: V) -> Any:
        what = value if self._of is None else self._of(value)
        acc[what] = acc.get(what, 0) + 1
        return acc

    def merge(self, a: Any, b: Any) -> Any:
        both = dict(a)
        for what, times in b.items():
            both[what] = both.get(what, 0) + times
        return both

    def result(self, acc: Any) -> dict[Any, int]:
        return dict(acc)

    def copy(self, acc: Any) -> Any:
        return dict(acc)

    def encode(self, acc: Any) -> Any:
        return [[what, times] for what, times in acc.items()]  # JSON has only strings as names

    def decode(self, kept: Any) -> Any:
        return {tuple(what) if isinstance(what, list) else what: times for what, times in kept}


class _Reduce(Aggregate[V, V]):
    """Accumulators are lists of no or one value, as None may be a value."""

    name = "reduce"

    def __init__(self, function: Any) -> None:
        if not callable(function):
            problem = f"reduce by {function!r}: it must be a function of two values"
            raise AggregateError(problem)
        self._function = function

    def first(self) -> Any:
        return ()

    def add(self, acc: Any, value: V) -> Any:
        return (self._function(acc[0], value),) if acc else (value,)

    def merge(self, a: Any, b: Any) -> Any:
        return (self._function(a[0], b[0]),)

    def result(self, acc: Any) -> V:
        return acc[0]  # type: ignore[no-any-return]

    def encode(self, acc: Any) -> Any:
        return acc[0]

    def decode(self, kept: Any) -> Any:
        return (kept,)


class _Several(Aggregate[V, dict[str, Any]]):
    def __init__(self, parts: dict[str, Any]) -> None:
        wrong = [name for name, part in parts.items() if not isinstance(part, Aggregate)]
        if wrong or not parts:
            problem = f"several: {wrong[0]} is not an aggregate" if wrong else "several: give it aggregates by name"
            raise AggregateError(problem)
        self.name = ", ".join(f"{name}={part.name}" for name, part in parts.items())
        self._names = tuple(parts)
        self._parts = tuple(parts.values())

    def first(self) -> Any:
        return tuple(part.first() for part in self._parts)

    def add(self, acc: Any, value: V) -> Any:
        # Copies, as one part may have been changed when the next one raises.
        return tuple(part.add(part.copy(each), value) for part, each in zip(self._parts, acc, strict=True))

    def merge(self, a: Any, b: Any) -> Any:
        return tuple(part.merge(x, y) for part, x, y in zip(self._parts, a, b, strict=True))

    def result(self, acc: Any) -> dict[str, Any]:
        parts = zip(self._names, self._parts, acc, strict=True)
        return {name: part.result(each) for name, part, each in parts}

    def copy(self, acc: Any) -> Any:
        return tuple(part.copy(each) for part, each in zip(self._parts, acc, strict=True))

    def encode(self, acc: Any) -> Any:
        return [part.encode(each) for part, each in zip(self._parts, acc, strict=True)]

    def decode(self, kept: Any) -> Any:
        return tuple(part.decode(each) for part, each in zip(self._parts, kept, strict=True))
