"""Expressions with other objectives than those that were exported: what a changed objective would have changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from alerts.promql import last, matches, series
from alerts.words import FRESH, OBJECTIVE_SECONDS

EXPORTED = last(series(OBJECTIVE_SECONDS), FRESH)
"""How every rule reads the objectives of the consumers."""


class Changed(NamedTuple):
    """An objective in seconds for the consumers that match a pattern of ``*`` and ``?``."""

    consumer: str
    seconds: float


def reads_objectives(expression: str) -> bool:
    """Return whether an expression depends on objectives."""
    return EXPORTED in expression


def with_objectives(expression: str, changed: Sequence[Changed]) -> str:
    """Return an expression in which these objectives stand in the place of the exported ones.

    The first pattern that matches wins, as in the settings; a consumer that none matches keeps what was exported. Only
    consumers with an exported objective get another one: the metric also says that the consumer was there.
    """
    others = [
        f"{last(series(OBJECTIVE_SECONDS, matches('consumer', pattern(each.consumer))), FRESH)} * 0 + {each.seconds!r}"
        for each in changed
    ]
    return expression.replace(EXPORTED, f"({' or '.join([*others, EXPORTED])})") if changed else expression


def pattern(glob: str) -> str:
    """Return a pattern of ``*`` and ``?`` as a regular expression of PromQL; every other character is itself."""
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(each) or re.escape(each) for each in glob)
