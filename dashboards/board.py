"""Boards as data: rows of panels and variables, laid out on Grafana's grid of 24 columns."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dashboards.panels import DATASOURCE, SCHEMA_VERSION, Json, Panel, panel_id

COLUMNS = 24
TAG = "streamgauge"

ALL = "(?s:.+)"
"""Matches every value of a label. A group's name may hold a newline, which a plain dot does not match."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right, going on below when a line of the grid is full."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a board: the values of a label, all of them at first, or of one (``single``) the first."""

    name: str
    label: str
    query: str
    single: bool = False

    def json(self) -> Json:
        """Return it as Grafana's JSON."""
        several = {
            "multi": True,
            "includeAll": True,
            "allValue": ALL,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": DATASOURCE,
            "query": {"query": self.query, "refId": "StandardVariableQuery"},
            "refresh": 2,  # whenever the time range changes
            "regex": "",
            "sort": 1,
            **({"multi": False, "includeAll": False} if self.single else several),
            "options": [],
            "hide": 0,
            "skipUrlSync": False,
        }


@dataclass(frozen=True, slots=True)
class Annotation:
    """Marks on every chart, one a series of the expression, for as long as it is there."""

    name: str
    expression: str
    title: str
    text: str
    color: str
    tags: str = ""

    def json(self) -> Json:
        """Return it as Grafana's JSON."""
        return {
            "name": self.name,
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "iconColor": self.color,
            "expr": self.expression,
            "step": "60s",
            "titleFormat": self.title,
            "textFormat": self.text,
            "tagKeys": self.tags,
        }


@dataclass(frozen=True, slots=True)
class Board:
    """A board. ``uid`` is part of its address and never changes."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    annotations: tuple[Annotation, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Return every panel, row by row."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def json(self) -> Json:
        """Return the board as Grafana's JSON model."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,  # one cross-hair for all charts
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "timepicker": {},
            "timezone": "",
            "links": [_TAGGED_BOARDS],
            "annotations": {"list": [each.json() for each in self.annotations]},
            "templating": {"list": [_DATASOURCE_VARIABLE, *(each.json() for each in self.variables)]},
            "panels": _laid_out(self.rows),
        }

    def text(self) -> str:
        """Return the JSON model as text, the same for the same board to the byte."""
        return text_of(self.json())


def text_of(model: Json) -> str:
    """Return a JSON model as text, the same for the same model to the byte."""
    return json.dumps(model, indent=2, ensure_ascii=False) + "\n"


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    placed: list[Json] = []
    y = 0
    for row in rows:
        placed.append(_heading(row, y))
        y += 1
        x = line_height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line_height = 0, y + line_height, 0
            placed.append(panel.json(x, y))
            x += panel.width
            line_height = max(line_height, panel.height)
        y += line_height
    return placed


def _heading(row: Row, y: int) -> Json:
    return {
        "id": panel_id(f"row {row.title}"),
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        "panels": [],
    }


_DATASOURCE_VARIABLE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "refresh": 1,
    "regex": "",
    "multi": False,
    "includeAll": False,
    "options": [],
    "hide": 0,
    "skipUrlSync": False,
}

_TAGGED_BOARDS: Json = {
    "type": "dashboards",
    "title": "streamgauge",
    "tags": [TAG],
    "asDropdown": True,
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}
