"""Boards as Grafana asks for them: variables filled in, links and choices taken from the JSON and not from the code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Choice = str | Sequence[str]
"""What is chosen of a variable: one value as it is, or several as Grafana's regular expression of them."""

ALL: tuple[str, ...] = ()
"""Every value."""


@dataclass(frozen=True)
class Asked:
    """A query of a panel with everything filled in."""

    board: str
    panel: str
    ref: str
    type: str
    expression: str
    is_instant: bool

    @property
    def name(self) -> str:
        return f"{self.board}: {self.panel} {self.ref}"


def panels_of(board: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries_of(board: Mapping[str, Any], chosen: Mapping[str, Choice], *, span: str, rate: str) -> Iterator[Asked]:
    """Yield every query of a board's panels for what is chosen, a range shown and a rate interval."""
    for panel in panels_of(board):
        for target in panel["targets"]:
            yield Asked(
                board["uid"],
                panel["title"],
                target["refId"],
                panel["type"],
                filled(target["expr"], board, chosen, span=span, rate=rate),
                target["instant"],
            )


def filled(expression: str, board: Mapping[str, Any], chosen: Mapping[str, Choice], *, span: str, rate: str) -> str:
    """Put values in the places of a board's variables, as Grafana's Prometheus data source does."""
    values = {"__range": span, "__rate_interval": rate}
    for variable in board["templating"]["list"]:
        values[variable["name"]] = _value(variable, chosen.get(variable["name"], ALL))
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], expression)


def _value(variable: Mapping[str, Any], choice: Choice) -> str:
    if not variable["multi"]:
        return _in_quotes(choice if isinstance(choice, str) else next(iter(choice), ""))
    several = [choice] if isinstance(choice, str) else list(choice)
    if not several:
        return str(variable["allValue"])
    escaped = [_in_quotes(re.sub(r"[\\^$*+?.()|{}\[\]]", r"\\\g<0>", each)) for each in several]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _in_quotes(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
