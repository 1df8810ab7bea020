"""The boards' JSON against Grafana's own types, and the older spelling against what Grafana 7.5 knows."""

import copy
import json
from pathlib import Path

import pytest
from json_schema import complaints

from dashboards.files import BOARDS
from dashboards.schema_27 import translated

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "grafana-schema" / "board.schema.json").read_text())

MODELS = [pytest.param(board.json(), id=board.uid) for board in BOARDS]
OLD = [pytest.param(board.json(), translated(board.json()), id=board.uid) for board in BOARDS]


@pytest.mark.parametrize("board", MODELS)
def test_a_board_is_what_grafanas_types_say(board):
    """Nothing is missing, nothing is unknown, nothing has a wrong type: dashboards, panels, options and fields."""
    assert [] == complaints(board, SCHEMA)


def first(board, kind):
    return next(panel for panel in board["panels"] if panel["type"] == kind)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        pytest.param(lambda b: b.update(schemaVersion="38"), ".schemaVersion: '38' is no number", id="type"),
        pytest.param(lambda b: b.update(colour="red"), ": colour is not known", id="unknown key"),
        pytest.param(lambda b: b.pop("schemaVersion"), ": schemaVersion is missing", id="missing"),
        pytest.param(
            lambda b: first(b, "stat")["options"].update(graphMode="bars"), "'bars' is none of", id="option's value"
        ),
        pytest.param(
            lambda b: first(b, "timeseries")["options"].update(tooltipOptions={}),
            "tooltipOptions is not known",
            id="an old option",
        ),
        pytest.param(
            lambda b: first(b, "timeseries")["fieldConfig"]["defaults"]["custom"].update(drawStyle="dots"),
            "'dots' is none of",
            id="field's value",
        ),
        pytest.param(
            lambda b: first(b, "timeseries").update(datasource="${datasource}"), "is no object", id="an old data source"
        ),
        pytest.param(
            lambda b: first(b, "timeseries")["fieldConfig"]["defaults"].update(min="0"), "'0' is no number", id="min"
        ),
        pytest.param(lambda b: first(b, "table").update(type="tabel"), "'tabel' is not", id="kind of panel"),
        pytest.param(lambda b: first(b, "row").update(collapsed="no"), "'no' is no boolean", id="row"),
        pytest.param(
            lambda b: b["templating"]["list"][1].update(refresh=5), "5 is none of [0, 1, 2]", id="variable"
        ),
        pytest.param(
            lambda b: b["annotations"]["list"][0].update(enable=1), "1 is no boolean", id="annotation"
        ),
    ],
)  # fmt: skip
def test_a_wrong_board_is_seen(spoil, complaint):
    """The check itself finds what it is for, and names it."""
    board = copy.deepcopy(BOARDS[0].json())
    spoil(board)

    found = complaints(board, SCHEMA)

    assert len(found) == 1
    assert complaint in found[0]


# --- the older spelling ---------------------------------------------------------------------------------

KNOWN_TO_7_5 = {
    "stat": {"colorMode", "graphMode", "justifyMode", "orientation", "reduceOptions", "text", "textMode"},
    "table": {"showHeader", "sortBy"},
    "timeseries": {"legend", "tooltipOptions"},
}
"""The kinds of panel used that are part of Grafana 7.5, with those of their options that it reads."""


def mappings_of(panel):
    """The texts for values of a panel, those of single columns of a table among them."""
    yield from panel["fieldConfig"]["defaults"]["mappings"]
    for override in panel["fieldConfig"]["overrides"]:
        yield from (mapping for each in override["properties"] if each["id"] == "mappings" for mapping in each["value"])


@pytest.mark.parametrize(("_", "board"), OLD)
def test_the_older_model_is_one_that_7_5_reads(_, board):
    """Schema version 27 and what belongs to it: names as data sources, known panels and options, old mappings."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    sourced = [*panels, *board["annotations"]["list"], *board["templating"]["list"][1:]]
    mappings = [each for panel in panels for each in mappings_of(panel)]

    assert 27 == board["schemaVersion"]
    assert {"${datasource}"} == {each["datasource"] for each in sourced}
    assert all(set(panel["options"]) <= KNOWN_TO_7_5[panel["type"]] for panel in panels)
    assert all({"id", "type", "value", "text"} == set(mapping) for mapping in mappings)
    assert "cellOptions" not in json.dumps(board)
    assert "uid" not in json.dumps(board["panels"])


@pytest.mark.parametrize(("board", "old"), OLD)
def test_the_older_model_shows_the_same(board, old):
    """Same panels at the same places with the same queries, units, thresholds and links."""
    keys = ("id", "title", "description", "gridPos")
    pairs = list(zip(board["panels"], old["panels"], strict=True))
    fields = [
        (new["fieldConfig"]["defaults"], was["fieldConfig"]["defaults"]) for new, was in pairs if new["type"] != "row"
    ]

    assert all(new[key] == was[key] for new, was in pairs for key in keys if key in new)
    assert all(
        [(t["refId"], t["expr"], t["legendFormat"], t["instant"]) for t in new.get("targets", [])]
        == [(t["refId"], t["expr"], t["legendFormat"], t["instant"]) for t in was.get("targets", [])]
        for new, was in pairs
    )
    assert all(new[key] == was[key] for new, was in fields for key in ("unit", "links", "thresholds"))
    assert [each["name"] for each in board["templating"]["list"]] == [
        each["name"] for each in old["templating"]["list"]
    ]


def test_gauges_in_cells_and_texts_for_values_have_their_older_spelling():
    """A share of an objective is still a gauge, a cluster still complete or not."""
    old = translated(BOARDS[0].json())
    table, stat = first(old, "table"), first(old, "stat")
    shown = {
        each["value"]
        for override in table["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "custom.displayMode"
    }

    assert {"gradient-gauge", "color-text"} == shown
    assert [(0, 1, "1", "complete"), (1, 1, "0", "incomplete")] == [
        (each["id"], each["type"], each["value"], each["text"]) for each in stat["fieldConfig"]["defaults"]["mappings"]
    ]
