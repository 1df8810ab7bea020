"""A board for Grafana 7.5 to 9: the same panels in schema version 27, which all of these read or migrate from.

What differs is spelling: a data source is a name and no reference, texts for values are a list of their own kind, a
tooltip is ``tooltipOptions``, a table's cell has a ``displayMode``. A state timeline came with Grafana 8: it becomes
stacked steps here, one for each series while it is there.
"""

from __future__ import annotations

from typing import Any

from dashboards.panels import CALM, Json, Query, lines

SCHEMA_VERSION = 27

_VALUE_TO_TEXT = 1
_GAUGES = {"gradient": "gradient-gauge", "basic": "basic", "lcd": "lcd-gauge"}
_NOT_YET = {
    "stat": {"percentChangeColorMode", "showPercentChange", "wideLayout"},
    "table": {"frameIndex"},
}
"""Options that a kind of panel did not have then."""


def translated(board: Json) -> Json:
    """Return the JSON model of a board, as ``Board.json`` gives it, in schema version 27."""
    return {
        **board,
        "schemaVersion": SCHEMA_VERSION,
        "panels": [panel if panel["type"] == "row" else _panel(panel) for panel in board["panels"]],
        "annotations": {"list": [_naming_its_source(each) for each in board["annotations"]["list"]]},
        "templating": {
            "list": [{"current": {}, **_naming_its_source(each)} for each in board["templating"]["list"]],
        },
    }


def _naming_its_source(part: Json) -> Json:
    return {**part, "datasource": part["datasource"]["uid"]} if "datasource" in part else part


def _panel(panel: Json) -> Json:
    if panel["type"] == "state-timeline":
        panel = _as_steps(panel)
    left_out = _NOT_YET.get(panel["type"], set())
    options = {key: value for key, value in panel["options"].items() if key not in left_out}
    if "tooltip" in options:
        options["tooltipOptions"] = {"mode": options.pop("tooltip")["mode"]}
    if "legend" in options:
        options["legend"] = {key: value for key, value in options["legend"].items() if key != "showLegend"}
    targets = [
        {key: value for key, value in target.items() if key not in {"datasource", "editorMode"}}
        for target in panel["targets"]
    ]
    return {**_naming_its_source(panel), "targets": targets, "options": options, "fieldConfig": _fields(panel)}


def _fields(panel: Json) -> Json:
    defaults, overrides = panel["fieldConfig"]["defaults"], panel["fieldConfig"]["overrides"]
    custom = dict(_property(f"custom.{name}", value) for name, value in defaults["custom"].items())
    return {
        "defaults": {
            **defaults,
            "custom": {
                name.removeprefix("custom."): value for name, value in custom.items() if name != "custom.inspect"
            },
            "mappings": _texts(defaults["mappings"]),
        },
        "overrides": [
            {
                **override,
                "properties": [
                    dict(zip(("id", "value"), _property(each["id"], each["value"]), strict=True))
                    for each in override["properties"]
                ],
            }
            for override in overrides
        ],
    }


def _texts(mappings: list[Json]) -> list[Json]:
    texts = [(value, shown["text"]) for mapping in mappings for value, shown in mapping["options"].items()]
    return [
        {"id": index, "type": _VALUE_TO_TEXT, "value": value, "text": text} for index, (value, text) in enumerate(texts)
    ]


def _property(name: str, value: Any) -> tuple[str, Any]:
    if name == "mappings":
        return name, _texts(value)
    if name != "custom.cellOptions":
        return name, value
    return "custom.displayMode", _GAUGES[value["mode"]] if value["type"] == "gauge" else value["type"]


def _as_steps(panel: Json) -> Json:
    """Return a chart of stacked steps in the place of a state timeline."""
    place = panel["gridPos"]
    steps = lines(
        panel["title"],
        panel["description"],
        *(Query(target["expr"], target["legendFormat"]) for target in panel["targets"]),
        unit="none",
        width=place["w"],
        height=place["h"],
        stacked=True,
        steps=CALM,
    ).json(place["x"], place["y"])
    fields = {
        "defaults": {**steps["fieldConfig"]["defaults"], "links": panel["fieldConfig"]["defaults"]["links"]},
        "overrides": panel["fieldConfig"]["overrides"],
    }
    return {**steps, "fieldConfig": fields}
