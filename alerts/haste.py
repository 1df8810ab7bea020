"""Rules and routes whose durations are divided by a number: the whole chain works in a minute, not in half an hour.

Divided is every duration: windows and offsets of the expressions, windows of the numbers in the texts, how long a rule
must hold and is kept firing, intervals, and how long Alertmanager waits. Scraping and evaluating have to be as much
faster: with 60 once a second, which stands for once a minute. Not divided is what an expression compares with:
objectives, rates, shares, and the seconds after which the monitor is stale or a Spark query stuck.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from alerts.rule import Record, Rule

_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")

_IN_EXPRESSION = re.compile(rf"(?<=\[){_DURATION.pattern}|(?<=offset ){_DURATION.pattern}")


def shorter(duration: str, by: int) -> str:
    """Return a duration divided by a number: to the millisecond, and never zero by that."""
    match = _DURATION.fullmatch(duration)
    assert match is not None, f"{duration} is no duration"  # noqa: S101 (all of them are written in this package)
    milliseconds = int(match[1]) * _MILLISECONDS[match[2]]
    if by == 1 or not milliseconds:
        return duration
    divided = max(1, round(milliseconds / by))
    return f"{divided // 1000}s" if divided % 1000 == 0 else f"{divided}ms"


def hastened(rule: Rule, by: int) -> Rule:
    """Return a rule with all its durations divided."""
    return replace(
        rule,
        expression=_expression(rule.expression, by),
        hold=shorter(rule.hold, by),
        keep=rule.keep and shorter(rule.keep, by),
        numbers=tuple(replace(number, window=shorter(number.window, by)) for number in rule.numbers),
    )


def hastened_record(record: Record, by: int) -> Record:
    """Return a recording rule with all its durations divided."""
    return replace(record, expression=_expression(record.expression, by))


def hastened_waits(waits: Mapping[str, str], by: int) -> dict[str, str]:
    """Return how long Alertmanager waits, divided."""
    return {name: shorter(wait, by) for name, wait in waits.items()}


def _expression(expression: str, by: int) -> str:
    return _IN_EXPRESSION.sub(lambda match: shorter(match[0], by), expression)
