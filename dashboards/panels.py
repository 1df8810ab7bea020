"""Panels as data, and the house style in which they become Grafana's JSON.

Written as Grafana 10 and later read it themselves (schema version 38); ``dashboards.schema_27`` translates for older
ones.

What is not known is shown as not known: single numbers and tables ask for the value of this moment only (a range
would show the last one known), lines are broken where samples are missing, and the legend's last value is the last one
even where that is none.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from monitor.catalog import BY_NAME

Json = dict[str, Any]

SCHEMA_VERSION = 38
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
UNKNOWN = "?"
"""Shown where there is no value; the command line shows the same."""

UNITS: Mapping[str, str] = {
    "bool": "none",
    "seconds": "s",
    "timestamp": "s",  # shown as the time passed since
    "records": "short",
    "restarts": "short",
    "rows": "short",
    "members": "short",
    "partitions": "short",
    "offset": "none",
    "batches": "short",
    "requests": "short",
    "failures": "short",
    "findings": "short",
    "rebalances": "short",
    "pauses": "short",
    "commits": "short",
    "entries": "short",
    "series": "short",
}
"""Grafana's unit for each unit of the catalogue."""

RATIO = "percentunit"


def unit_of(metric: str) -> str:
    """Return Grafana's unit of a metric's values."""
    return UNITS[BY_NAME[metric].unit]


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and how its series are called, with labels as ``{{label}}``."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """From ``value`` on (None: from the start), the colour is this one."""

    value: float | None
    color: str


CALM = (Step(None, "text"),)
GOOD_IS_ZERO = (Step(None, "green"), Step(1, "red"))
OF_OBJECTIVE = (Step(None, "green"), Step(0.5, "yellow"), Step(1, "red"))
"""The one scale for ages: the share of its objective that a consumer has used up."""

DASHED: Mapping[str, Any] = {"custom.lineStyle": {"fill": "dash", "dash": [8, 8]}, "custom.lineWidth": 2}
"""How a limit is drawn among what it limits."""


@dataclass(frozen=True, slots=True)
class Link:
    """A way to another board, for the same time and data source and with some of its choices made.

    ``choices`` says for each of that board's variables where its value is: a label of the series that was clicked at,
    or, ``from_row``, a column of the table, or ``$name``, a choice on this board.
    """

    title: str
    board: str
    choices: Mapping[str, str]
    from_row: bool = False

    def json(self) -> Json:
        """Return it as Grafana's JSON."""
        kept = ["${__url_time_range}", "${datasource:queryparam}"]
        chosen = [f"var-{name}=${{{self._place(where)}:percentencode}}" for name, where in self.choices.items()]
        return {"title": self.title, "url": f"/d/{self.board}?{'&'.join([*kept, *chosen])}"}

    def _place(self, where: str) -> str:
        if where.startswith("$"):
            return where.removeprefix("$")
        return f'__data.fields["{where}"]' if self.from_row else f'__field.labels["{where}"]'


@dataclass(frozen=True, slots=True)
class Override:
    """Properties of the fields that a matcher (byName, byRegexp) picks."""

    matcher: str
    options: str
    properties: Mapping[str, Any]

    def json(self) -> Json:
        """Return it as Grafana's JSON."""
        return {
            "matcher": {"id": self.matcher, "options": self.options},
            "properties": [{"id": name, "value": value} for name, value in self.properties.items()],
        }


def painted(colors: Mapping[str, str]) -> tuple[Override, ...]:
    """Return overrides that give the series of each name its colour."""
    return tuple(
        Override("byName", name, {"color": {"mode": "fixed", "fixedColor": color}}) for name, color in colors.items()
    )


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel, ``width`` of 24 columns wide and ``height`` rows high."""

    title: str
    description: str
    type: str
    unit: str
    width: int
    height: int
    queries: tuple[Query, ...]
    options: Json
    custom: Json = field(default_factory=dict)
    steps: tuple[Step, ...] = CALM
    texts: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    transformations: tuple[Json, ...] = ()
    links: tuple[Link, ...] = ()
    color: str = "thresholds"
    is_instant: bool = False
    minimum: float | None = None
    decimals: int | None = None
    no_value: str = UNKNOWN

    @property
    def id(self) -> int:
        """Return its id: from the title, so that links to it survive a change of order."""
        return panel_id(self.title)

    def json(self, x: int, y: int) -> Json:
        """Return it as Grafana's JSON, placed on the grid."""
        return {
            "id": self.id,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(index, query) for index, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": [each.json() for each in self.overrides]},
            "options": self.options,
            "transformations": list(self.transformations),
        }

    def _defaults(self) -> Json:
        minimum = {} if self.minimum is None else {"min": self.minimum}
        decimals = {} if self.decimals is None else {"decimals": self.decimals}
        return {
            "unit": self.unit,
            **minimum,
            **decimals,
            "color": {"mode": self.color},
            "custom": self.custom,
            "links": [link.json() for link in self.links],
            "mappings": mappings(self.texts),
            "noValue": self.no_value,
            "thresholds": thresholds(self.steps),
        }

    def _target(self, index: int, query: Query) -> Json:
        return {
            "refId": ref_id(index),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expression,
            "legendFormat": query.legend,
            "format": "table" if self.type == "table" else "time_series",
            "instant": self.is_instant,
            "range": not self.is_instant,
            "interval": "",
        }


def panel_id(title: str) -> int:
    """Return a stable id for a title: a positive 31-bit number."""
    return zlib.crc32(title.encode()) & 0x7FFFFFFF


def ref_id(index: int) -> str:
    """Return the letter of the nth query of a panel."""
    return ascii_uppercase[index]


def thresholds(steps: tuple[Step, ...]) -> Json:
    """Return colour steps as Grafana's JSON."""
    return {"mode": "absolute", "steps": [{"color": step.color, "value": step.value} for step in steps]}


def mappings(texts: Mapping[str, str]) -> list[Json]:
    """Return texts for values as Grafana's JSON."""
    options = {value: {"index": index, "text": text} for index, (value, text) in enumerate(texts.items())}
    return [{"type": "value", "options": options}] if options else []


# --- the kinds of panel ------------------------------------------------------------------------------


def stat(
    title: str, description: str, *queries: Query, unit: str, width: int,
    steps: tuple[Step, ...] = CALM, texts: Mapping[str, str] | None = None,
    named: bool = False, only_name: bool = False,
    overrides: tuple[Override, ...] = (), links: tuple[Link, ...] = (), decimals: int | None = None,
    no_value: str = UNKNOWN,
) -> Panel:  # fmt: skip
    """Return a panel with the present value of each series.

    ``named``: with the name of each, for where there are several; ``only_name``: the name is what there is to say.
    """
    return Panel(
        title,
        description,
        "stat",
        unit,
        width,
        4,
        queries,
        {
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
            "showPercentChange": False,
            "text": {},
            "textMode": "name" if only_name else "value_and_name" if named else "value",
            "wideLayout": True,
        },
        steps=steps,
        texts=texts or {},
        overrides=overrides,
        links=links,
        is_instant=True,
        decimals=decimals,
        no_value=no_value,
    )


def lines(
    title: str, description: str, *queries: Query, unit: str, width: int = 12, height: int = 9, axis: str = "",
    stacked: bool = False, steps: tuple[Step, ...] = CALM, overrides: tuple[Override, ...] = (),
    links: tuple[Link, ...] = (), minimum: float | None = 0,
) -> Panel:  # fmt: skip
    """Return a panel with lines over time, and a legend with the last and the largest value of each."""
    has_steps = steps != CALM
    return Panel(
        title,
        description,
        "timeseries",
        unit,
        width,
        height,
        queries,
        {
            "legend": {"showLegend": True, "displayMode": "table", "placement": "bottom", "calcs": ["last", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        custom={
            "drawStyle": "line",
            "lineInterpolation": "stepAfter" if stacked else "linear",
            "lineWidth": 1,
            "fillOpacity": 60 if stacked else 5,
            "gradientMode": "none",
            "showPoints": "auto",
            "pointSize": 4,
            "spanNulls": False,
            "axisLabel": axis,
            "axisPlacement": "auto",
            "scaleDistribution": {"type": "linear"},
            "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
            "thresholdsStyle": {"mode": "line" if has_steps else "off"},
        },
        steps=steps,
        overrides=overrides,
        links=links,
        minimum=minimum,
        color="palette-classic",
    )


def timeline(
    title: str, description: str, *queries: Query, width: int = 12, height: int = 6,
    overrides: tuple[Override, ...] = (), links: tuple[Link, ...] = (), texts: Mapping[str, str] | None = None,
) -> Panel:  # fmt: skip
    """Return a panel with a bar for each series, drawn while it is there: when what was the case."""
    return Panel(
        title,
        description,
        "state-timeline",
        "none",
        width,
        height,
        queries,
        {
            "alignValue": "left",
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "never",
            "tooltip": {"mode": "single", "sort": "none"},
        },
        custom={"fillOpacity": 80, "lineWidth": 0},
        overrides=overrides,
        links=links,
        texts=texts or {},
        color="palette-classic",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, the expression of its values, and how they are shown.

    ``label``: shown is not the value but this label of the series.
    """

    heading: str
    expression: str
    unit: str = "none"
    decimals: int | None = None
    label: str | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self) -> Override:
        """Return how its cells are shown."""
        decimals = {} if self.decimals is None else {"decimals": self.decimals}
        return Override("byName", self.heading, {"unit": self.unit, **decimals, **self.shown})


GAUGE_OF_OBJECTIVE: Mapping[str, Any] = {
    "min": 0,
    "max": 1,
    "thresholds": thresholds(OF_OBJECTIVE),
    "custom.cellOptions": {"type": "gauge", "mode": "gradient"},
}
"""How a share of an objective is shown in a table."""

RED_ABOVE_ZERO: Mapping[str, Any] = {
    "thresholds": thresholds((Step(None, "green"), Step(0.000001, "red"))),  # rates are small numbers
    "custom.cellOptions": {"type": "color-text"},
}


def table(
    title: str, description: str, *columns: Column, keys: Mapping[str, str], sort_by: str, height: int,
    width: int = 24, links: Mapping[str, Link] | None = None, hidden: tuple[str, ...] = (),
) -> Panel:  # fmt: skip
    """Return a table with a row for each combination of the labels ``keys`` (label: heading).

    ``hidden`` are labels that are the same in every row. ``links`` says where a click at a cell leads, by the heading
    of its column.
    """
    values = {f"Value #{ref_id(index)}": column for index, column in enumerate(columns)}
    unseen = ["Time", *hidden, *(value for value, column in values.items() if column.label)]
    named = dict(keys) | {column.label or value: column.heading for value, column in values.items()}
    linked = tuple(Override("byName", heading, {"links": [link.json()]}) for heading, link in (links or {}).items())
    return Panel(
        title,
        description,
        "table",
        "none",
        width,
        height,
        tuple(Query(column.expression) for column in columns),
        {"frameIndex": 0, "showHeader": True, "sortBy": [{"displayName": sort_by, "desc": True}]},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        overrides=(*(column.overrides() for column in columns), *linked),
        transformations=(
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(unseen, True),
                    "indexByName": {name: index for index, name in enumerate(named)},
                    "renameByName": named,
                },
            },
        ),
        is_instant=True,
    )
