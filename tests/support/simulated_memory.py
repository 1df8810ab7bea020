"""How much an object holds on to: everything reachable from it, counted in elements, and the texts among it."""

from __future__ import annotations

import types
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CONTAINERS = (list, tuple, set, frozenset, deque)
# Shared by everybody, or nobody's data.
SKIPPED = (int, float, types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.CodeType)


HOLDERS = ("_Fetch", "Identity", "Finding", "Notebook")
"""Where names of what is gone are not looked for.

Identity keeps the ids of topics for a while, to know one that comes back, and findings are told for a while. Known,
until it is mended: a coordinator that has nothing to coordinate any more keeps its last question and answer
(monitor/observe/kafka/commits.py: CommitReader).
"""


@dataclass(frozen=True, slots=True)
class Weight:
    """``elements`` of containers; columns, bytes and texts count one each eight bytes."""

    elements: int
    texts: frozenset[str]
    largest: list[tuple[str, int]]


def weigh(roots: Iterable[object]) -> Weight:
    """Count what can be reached from objects of this project, through their attributes and containers."""
    todo: list[object] = list(roots)
    seen: set[int] = set()
    texts: set[str] = set()
    by_type: Counter[str] = Counter()
    while todo:
        each = todo.pop()
        if id(each) in seen or each is None or isinstance(each, SKIPPED):
            continue
        seen.add(id(each))
        if isinstance(each, str):
            texts.add(each)
            by_type["str"] += 1 + len(each) // 8
        elif isinstance(each, bytes | bytearray | memoryview):
            by_type["bytes"] += 1 + len(each) // 8
        elif isinstance(each, np.ndarray):
            by_type["array"] += 1 + each.nbytes // 8
            if each.base is not None:
                todo.append(each.base)
        elif isinstance(each, dict):
            by_type["dict"] += 1 + len(each)
            todo.extend(each.keys())
            todo.extend(each.values())
        elif isinstance(each, CONTAINERS):
            by_type[type(each).__name__] += 1 + len(each)
            todo.extend(each)
        elif type(each).__module__.startswith("monitor."):
            by_type[type(each).__name__] += 1
            if type(each).__name__ not in HOLDERS:
                todo.extend(_attributes(each))
        elif isinstance(each, types.MethodType):
            todo.append(each.__self__)
    return Weight(sum(by_type.values()), frozenset(texts), by_type.most_common(4))


def _attributes(each: object) -> Iterable[object]:
    yield from getattr(each, "__dict__", {}).values()
    for kind in type(each).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(each, name):
                yield getattr(each, name)
