"""The boards' JSON: laid out without overlaps, complete, in Grafana 7.5's schema, and written by the command."""

import json
import re
from itertools import combinations

import pytest
import yaml
from click.testing import CliRunner

from dashboards.board import COLUMNS
from dashboards.files import BOARDS, render
from dashboards.overview import OVERVIEW
from dashboards.panels import RATIO, UNITS, unit_of
from monitor.catalog import BY_NAME, METRICS
from monitor.cli.main import streamgauge

RENDERED = [pytest.param(board.json(), id=board.uid) for board in BOARDS]
PANELS = [pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]

KNOWN_TYPES = {"row", "stat", "table", "timeseries"}
"""Panels that are part of Grafana from 7.4 on."""


def overlap(one, other):
    a, b = one["gridPos"], other["gridPos"]
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


@pytest.mark.parametrize("board", RENDERED)
def test_panels_fill_the_grid_without_overlaps(board):
    """Nothing covers anything, nothing stands out, and every line of the grid is full."""
    panels = board["panels"]
    cells = sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)

    assert [] == [(a["title"], b["title"]) for a, b in combinations(panels, 2) if overlap(a, b)]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS for panel in panels)
    assert COLUMNS * height == cells


@pytest.mark.parametrize("board", RENDERED)
def test_ids_are_unique_and_stable(board):
    """No two panels share an id, and an id depends on the title only, so links survive a change of order."""
    ids = [panel["id"] for panel in board["panels"]]

    assert len(set(ids)) == len(ids)
    assert all(0 < each < 2**31 for each in ids)
    assert {panel.title: panel.json(0, 0)["id"] for panel in OVERVIEW.panels} == {
        panel.title: panel.json(7, 9)["id"] for panel in reversed(OVERVIEW.panels)
    }


@pytest.mark.parametrize("board", RENDERED)
def test_the_model_is_one_that_7_5_reads_and_later_versions_migrate(board):
    """Schema version 27 and what belongs to it: names as data sources, known panels, the old value mappings."""
    sources = [each["datasource"] for each in [*board["panels"], *board["annotations"]["list"]] if "datasource" in each]
    mappings = [
        m
        for panel in board["panels"]
        for m in panel.get("fieldConfig", {"defaults": {}})["defaults"].get("mappings", [])
    ]

    assert 27 == board["schemaVersion"]
    assert {"${datasource}"} == set(sources)
    assert {panel["type"] for panel in board["panels"]} <= KNOWN_TYPES
    assert all({"id", "type", "value", "text"} == set(mapping) for mapping in mappings)
    assert mappings
    assert "tooltip" not in json.dumps([panel.get("options", {}) for panel in board["panels"]]).replace(
        "tooltipOptions", ""
    )
    assert re.fullmatch("[a-zA-Z0-9-_]{1,40}", board["uid"])
    assert board["editable"] is False


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_says_what_it_shows(panel):
    """A title, a description that is more than the title, a unit, at least one query, each with a name of its own."""
    model = panel.json(0, 0)
    refs = [target["refId"] for target in model["targets"]]

    assert len(panel.title) > 3
    assert len(panel.description) > len(panel.title) + 20
    assert panel.description.endswith(".")
    assert model["fieldConfig"]["defaults"]["unit"]
    assert refs
    assert len(set(refs)) == len(refs)
    assert all(target["expr"].strip() for target in model["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_present_values_are_asked_for_as_such(panel):
    """Numbers and tables take this moment's value: over a range a value long gone would still be shown."""
    targets = panel.json(0, 0)["targets"]

    assert {panel.type != "timeseries"} == {target["instant"] for target in targets}
    assert {panel.type == "timeseries"} == {target["range"] for target in targets}
    if panel.type == "timeseries":
        assert panel.custom["spanNulls"] is False
        assert "lastNotNull" not in panel.options["legend"]["calcs"]


@pytest.mark.parametrize("panel", [each for each in PANELS if each.values[0].type == "timeseries"])
def test_charts_show_the_unit_of_their_metrics(panel):
    """Seconds are shown as durations, counts as counts, and nothing else than a ratio differs from the catalogue."""
    units = {unit_of(name) for query in panel.queries for name in re.findall(r"streamgauge_\w+", query.expression)} - {
        "none"
    }

    if panel.unit == RATIO:
        assert {"s"} == units
    elif units:
        assert {panel.unit} == units


@pytest.mark.parametrize("panel", [each for each in PANELS if each.values[0].type == "timeseries"])
def test_rates_name_what_they_count(panel):
    """A rate's axis says what it counts a second."""
    if any("rate(" in query.expression for query in panel.queries):
        assert panel.custom["axisLabel"].endswith("/s")


def test_every_unit_of_the_catalogue_has_one_of_grafana():
    """A new unit in the catalogue needs a line in UNITS, and no line is left over."""
    assert {metric.unit for metric in METRICS} == set(UNITS)


def test_the_choices_at_the_top_apply_everywhere():
    """Every selector of a metric with a cluster, kind or consumer label is narrowed by that choice."""
    for panel in OVERVIEW.panels:
        for query in panel.queries:
            for name, matchers in re.findall(r"(streamgauge_\w+)(?:\{([^}]*)\})?", query.expression):
                wanted = {
                    f'{label}=~"${label}"' for label in ("cluster", "kind", "consumer") if label in BY_NAME[name].labels
                }

                assert wanted <= set(matchers.split(",")), panel.title


def test_variables_are_asked_for_in_order():
    """Data source first, then cluster, kind, consumer; each narrowed by the ones before it, and all chosen at first."""
    variables = OVERVIEW.json()["templating"]["list"]
    queries = [variable["query"]["query"] for variable in variables[1:]]

    assert ["datasource", "cluster", "kind", "consumer"] == [variable["name"] for variable in variables]
    assert [[], ["cluster"], ["cluster", "kind"]] == [re.findall(r'=~"\$(\w+)"', query) for query in queries]
    assert all(variable["refresh"] == 2 and variable["current"]["value"] == ["$__all"] for variable in variables[1:])
    assert all(name in BY_NAME for query in queries for name in re.findall(r"streamgauge_\w+", query))


def test_the_table_names_every_column():
    """Each value and label is renamed to its heading or hidden; nothing is left as Value #X."""
    (model,) = [panel.json(0, 0) for panel in OVERVIEW.panels if panel.type == "table"]
    organize = model["transformations"][1]["options"]
    values = {f"Value #{target['refId']}" for target in model["targets"]}
    headings = list(organize["renameByName"].values())

    assert ["merge", "organize"] == [each["id"] for each in model["transformations"]]
    assert values | {"Time"} == {each for each in organize["renameByName"] if each.startswith("Value")} | set(
        organize["excludeByName"]
    )
    assert {each["matcher"]["options"] for each in model["fieldConfig"]["overrides"]} <= set(headings)
    assert model["options"]["sortBy"][0]["displayName"] in headings
    assert len(set(headings)) == len(headings)
    assert all(target["format"] == "table" for target in model["targets"])


# --- the files ------------------------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(streamgauge, ["dashboards", "render", *map(str, arguments)])


def test_render_writes_what_grafana_provisions_itself_from(tmp_path):
    """Boards, a provider that points at them, and an example of a data source; every path is printed."""
    result = invoke("--target", "grafana", "--out", tmp_path)
    names = [
        "dashboards/streamgauge-overview.json",
        *(f"provisioning/{d}/streamgauge.yaml" for d in ("dashboards", "datasources")),
    ]
    provider = yaml.safe_load((tmp_path / names[1]).read_text())["providers"][0]
    source = yaml.safe_load((tmp_path / names[2]).read_text())["datasources"][0]

    assert (0, "".join(f"wrote {tmp_path / name}\n" for name in names)) == (result.exit_code, result.output)
    assert OVERVIEW.json() == json.loads((tmp_path / names[0]).read_text())
    assert ("file", str(tmp_path / "dashboards")) == (provider["type"], provider["options"]["path"])
    assert ("prometheus", "http://127.0.0.1:9090", "1m") == (
        source["type"],
        source["url"],
        source["jsonData"]["timeInterval"],
    )


def test_paths_and_addresses_of_another_machine(tmp_path):
    """Grafana in a container sees other paths and addresses; a dollar in them stays a dollar."""
    invoke(
        "--out",
        tmp_path,
        "--boards-path",
        "/boards/$x",
        "--prometheus-url",
        "http://prom:9090/a$b",
        "--scrape-interval",
        "15s",
    )
    provider, source = (
        yaml.safe_load((tmp_path / f"provisioning/{folder}/streamgauge.yaml").read_text())
        for folder in ("dashboards", "datasources")
    )

    assert "/boards/$$x" == provider["providers"][0]["options"]["path"]
    assert "http://prom:9090/a$$b" == source["datasources"][0]["url"]
    assert "15s" == source["datasources"][0]["jsonData"]["timeInterval"]


def test_rendering_boards_is_deterministic(tmp_path):
    """The same boards give the same bytes."""
    arguments = {"prometheus_url": "http://p", "scrape_interval": "1m"}

    assert render(tmp_path, **arguments) == render(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--scrape-interval", "often"], "'often' is not a duration", id="interval"),
        pytest.param(["--target", "kibana"], "kibana", id="target"),
        pytest.param(["--out", "/proc/nowhere"], "cannot write /proc/nowhere/dashboards", id="folder"),
    ],
)
def test_bad_input_is_one_line(arguments, complaint, tmp_path):
    """What was tried and what to do, on one line, exit code 2."""
    result = invoke("--out", tmp_path, *arguments)

    assert 2 == result.exit_code
    assert complaint in result.output
    assert 1 == result.output.count("\n")
