"""The boards' JSON: laid out without overlaps, complete, narrowed by what is chosen, and written by the command."""

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

OURS = re.compile(r"streamgauge_[a-z_]+?(?=_bucket|\b)")

RENDERED = [pytest.param(board.json(), id=board.uid) for board in BOARDS]
PANELS = [pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]

ABOVE_THE_FOLD = 14
"""Panels that somebody sees at first, at most: a grid of 20 rows fits a common screen."""


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
def test_what_decides_is_above_the_fold(board):
    """A strip of single numbers comes first, and no more panels are seen at first than can be taken in."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    top = [panel for panel in panels if panel["gridPos"]["y"] < 20]

    assert len(top) <= ABOVE_THE_FOLD
    assert {"stat"} == {panel["type"] for panel in panels if panel["gridPos"]["y"] == 1}


@pytest.mark.parametrize("board", RENDERED)
def test_a_boards_address_is_one_that_grafana_takes(board):
    """At most 40 letters, digits, dashes and underscores; with our own beginning, by which provisioning knows it."""
    assert re.fullmatch("streamgauge-[a-z-]{1,28}", board["uid"])


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_says_what_it_shows(panel):
    """A title, a description that is more than the title, a unit, at least one query, each with a name of its own."""
    model = panel.json(0, 0)
    refs = [target["refId"] for target in model["targets"]]

    assert len(panel.title) > 2
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

    over_time = panel.type in {"timeseries", "state-timeline"}

    assert {not over_time} == {target["instant"] for target in targets}
    assert {over_time} == {target["range"] for target in targets}
    if panel.type == "stat":
        assert ["last"] == panel.options["reduceOptions"]["calcs"]
    if panel.type == "timeseries":
        assert panel.custom["spanNulls"] is False
        assert "lastNotNull" not in panel.options["legend"]["calcs"]


CHARTS = [each for each in PANELS if each.values[0].type == "timeseries"]
OF_A_RATE = re.compile(r"\b(?:rate|deriv)\(")


def units_shown(panel):
    """Each query of a chart with the unit that its lines are shown in."""
    for query in panel.queries:
        own = [each.properties["unit"] for each in panel.overrides if "unit" in each.properties and named(each, query)]
        yield query, (own or [panel.unit])[0]


def named(override, query):
    name = re.sub(r"\{\{\w+\}\}", "x", query.legend)
    return override.options == name or bool(re.search(override.options.strip("/"), name))


@pytest.mark.parametrize("panel", CHARTS)
def test_charts_show_the_unit_of_their_metrics(panel):
    """Seconds are shown as durations, counts as counts; a share, or a count of series, is neither."""
    for query, shown in units_shown(panel):
        units = {unit_of(name) for name in OURS.findall(query.expression)} - {"none"}

        if "count(" in query.expression:
            assert "short" == shown
        elif units and shown != RATIO:
            assert shown in units
        assert "none" != shown or not units


@pytest.mark.parametrize("panel", CHARTS)
def test_rates_name_what_they_count(panel):
    """A rate's axis says what it counts a second, or that it is a share."""
    if any(OF_A_RATE.search(query.expression) for query in panel.queries):
        assert panel.custom["axisLabel"].endswith("/s") or panel.unit in {RATIO, "s"}


def test_every_unit_of_the_catalogue_has_one_of_grafana():
    """A new unit in the catalogue needs a line in UNITS, and no line is left over."""
    assert {metric.unit for metric in METRICS} == set(UNITS)


FIXED = {"streamgauge-spark": {"kind": "spark"}}
"""Labels that a board is about one value of."""

FOR_COMPARISON = {
    ("streamgauge-consumer", "streamgauge_topic_records_total"),  # of the topics that the consumer reads
    ("streamgauge-topic", "streamgauge_consumer_objective_seconds"),  # of the consumers that read the topic
}


@pytest.mark.parametrize("board", [pytest.param(board, id=board.uid) for board in BOARDS])
def test_the_choices_at_the_top_apply_everywhere(board):
    """Every selector of a metric that has a chosen label is narrowed by that choice: one value as itself, many as a
    pattern.
    """
    chosen = {each.name: f'{each.name}={"" if each.single else "~"}"${each.name}"' for each in board.variables}
    chosen |= {label: f'{label}="{value}"' for label, value in FIXED.get(board.uid, {}).items()}
    for panel in board.panels:
        for query in panel.queries:
            for name, matchers in re.findall(r"(streamgauge_\w+)(?:\{([^}]*)\})?", query.expression):
                labels = BY_NAME[name.removesuffix("_bucket")].labels
                wanted = {matcher for label, matcher in chosen.items() if label in labels}

                if (board.uid, name) not in FOR_COMPARISON:
                    assert wanted <= set(matchers.split(",")), panel.title


@pytest.mark.parametrize("board", [pytest.param(board, id=board.uid) for board in BOARDS])
def test_variables_are_asked_for_in_order(board):
    """Data source first; each choice is narrowed by some of those before it, and asked anew when the time changes."""
    variables = board.json()["templating"]["list"]
    before = set()
    for variable in variables[1:]:
        used = set(re.findall(r"\$(\w+)", variable["query"]["query"]))

        assert used <= before
        assert 2 == variable["refresh"]
        assert variable["query"]["query"].endswith(f", {variable['name']})")
        before.add(variable["name"])

    assert "datasource" == variables[0]["name"]
    assert all(variable["includeAll"] == variable["multi"] for variable in variables)
    assert {"$__all"} >= {
        value for variable in variables if variable["multi"] for value in variable["current"]["value"]
    }


TABLES = [each for each in PANELS if each.values[0].type == "table"]


@pytest.mark.parametrize("panel", TABLES)
def test_the_table_names_every_column(panel):
    """Each value and label is renamed to its heading or hidden; nothing is left as Value #X."""
    model = panel.json(0, 0)
    organize = model["transformations"][1]["options"]
    values = {f"Value #{target['refId']}" for target in model["targets"]}
    headings = list(organize["renameByName"].values())

    assert ["merge", "organize"] == [each["id"] for each in model["transformations"]]
    seen = {each for each in organize["renameByName"] if each.startswith("Value")}
    unseen = set(organize["excludeByName"])
    labels = set.union(*({"Time"}, *(labels_left(target["expr"]) for target in model["targets"])))

    assert values | labels | {"Time"} == seen | unseen | set(organize["renameByName"])
    assert {each["matcher"]["options"] for each in model["fieldConfig"]["overrides"]} <= set(headings)
    assert model["options"]["sortBy"][0]["displayName"] in headings
    assert len(set(headings)) == len(headings)
    assert all(target["format"] == "table" for target in model["targets"])


# --- ways to other boards -------------------------------------------------------------------------------


def links_of(model):
    """Every link of a panel, with the expressions whose series it starts from."""
    fields, targets = model["fieldConfig"], {target["refId"]: target["expr"] for target in model["targets"]}
    for link in fields["defaults"]["links"]:
        yield link, list(targets.values())
    for override in fields["overrides"]:
        of_one = override["matcher"]["id"] == "byFrameRefID"
        expressions = [targets[override["matcher"]["options"]]] if of_one else list(targets.values())
        for each in override["properties"]:
            yield from ((link, expressions) for link in (each["value"] if each["id"] == "links" else ()))


@pytest.mark.parametrize(
    ("board", "panel"),
    [pytest.param(board.uid, panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels],
)
def test_links_keep_time_and_data_source_and_choose_what_was_clicked_at(board, panel):
    """Each leads to a board that exists, for the same time and source, and sets choices that the board has, from a
    column, a label or a choice that is there.
    """
    model = panel.json(0, 0)
    boards = {board.uid: {variable.name for variable in board.variables} for board in BOARDS}
    headings = {each for t in model["transformations"] for each in t["options"].get("renameByName", {}).values()}
    own = boards[board]
    for link, expressions in links_of(model):
        uid, _, query = link["url"].removeprefix("/d/").partition("?")
        parts = query.split("&")
        chosen = {}
        for part in parts[2:]:
            name, place = re.fullmatch(r"var-(\w+)=\$\{(.*):percentencode\}", part).groups()
            chosen[name] = re.fullmatch(r'(?:__(data\.fields|field\.labels)\[")?(\w+)(?:"\])?', place).groups()

        assert ["${__url_time_range}", "${datasource:queryparam}"] == parts[:2]
        assert set(chosen) <= boards[uid]
        for kind, where in chosen.values():
            if kind is None:
                assert where in own
            elif kind == "data.fields":
                assert where in headings
            else:
                assert all(where in labels_left(expression) for expression in expressions)


def labels_left(expression):
    """The labels that the outermost aggregation of an expression keeps: those of its first grouping."""
    return {label.strip() for label in re.search(r"by \(([^)]*)\)", expression)[1].split(",")}


@pytest.mark.parametrize("board", RENDERED)
def test_every_board_is_reached_from_every_other(board):
    """The list of boards at the top keeps time and choices."""
    (link,) = board["links"]

    assert ("dashboards", ["streamgauge"], True, True) == (
        link["type"],
        link["tags"],
        link["keepTime"],
        link["includeVars"],
    )
    assert ["streamgauge"] == board["tags"]


def test_a_click_leads_to_each_board_of_detail():
    """From the symptom to the cause: consumer, topic, Spark query and monitor are each linked to from some panel."""
    reached = {link["url"][3:].partition("?")[0] for each in PANELS for link, _ in links_of(each.values[0].json(0, 0))}

    assert {board.uid for board in BOARDS} == reached


@pytest.mark.parametrize("board", RENDERED)
def test_alerts_are_marked_on_every_board(board):
    """Alerts that fire, and at least one kind of event besides."""
    marks = {each["name"]: each for each in board["annotations"]["list"]}

    assert len(marks) >= 2
    assert 'alertstate="firing"' in marks["Alerts"]["expr"]
    assert all(each["enable"] and each["titleFormat"] for each in marks.values())


# --- the files ------------------------------------------------------------------------------------------


def invoke(*arguments):
    return CliRunner().invoke(streamgauge, ["dashboards", "render", *map(str, arguments)])


def test_render_writes_what_grafana_provisions_itself_from(tmp_path):
    """Boards, a provider that points at them, and an example of a data source; every path is printed."""
    result = invoke("--target", "grafana", "--out", tmp_path)
    boards = [f"dashboards/{board.uid}.json" for board in BOARDS]
    names = [*boards, *(f"provisioning/{d}/streamgauge.yaml" for d in ("dashboards", "datasources"))]
    provider = yaml.safe_load((tmp_path / names[-2]).read_text())["providers"][0]
    source = yaml.safe_load((tmp_path / names[-1]).read_text())["datasources"][0]

    assert (0, "".join(f"wrote {tmp_path / name}\n" for name in names)) == (result.exit_code, result.output)
    assert [board.json() for board in BOARDS] == [json.loads((tmp_path / name).read_text()) for name in boards]
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
