"""The rules of Grafana's dashboard-linter, by their names there, and ours beside them.

Left out, with the reason:

- template-job-rule, template-instance-rule, target-job-rule, target-instance-rule: what a board is about is a cluster
  and its consumers, whoever scrapes them; only the monitor's own process is chosen by job.
- target-logql-rule, target-logql-auto-rule: there are no logs.
"""

import re

import pytest

from dashboards.files import BOARDS

RENDERED = [pytest.param(board.json(), id=board.uid) for board in BOARDS]
PANELS = [
    pytest.param(panel, id=f"{board['uid']}: {panel['title']}")
    for board in (each.json() for each in BOARDS)
    for panel in board["panels"]
    if panel["type"] != "row"
]

UNITS = {"s", "short", "none", "percentunit", "bytes"}
"""Units used, as Grafana calls them."""

WINDOWS = {"3m": "", "10m": "ten minutes", "6h": "six hours"}
"""Fixed windows, with the words by which a panel's description says so; marks have no description."""

RATED = re.compile(r"\b(rate|irate|increase|deriv|delta|idelta)\([^[\]]*\[([^\]]+)\]")


@pytest.mark.parametrize("board", RENDERED)
def test_the_data_source_is_chosen_first(board):
    """template-datasource-rule: a variable named datasource, labelled Data source, of type prometheus."""
    first = board["templating"]["list"][0]

    assert ("datasource", "datasource", "prometheus") == (first["type"], first["name"], first["query"])
    assert first["label"].lower() == "data source"


@pytest.mark.parametrize("board", RENDERED)
def test_variables_are_asked_for_anew_when_the_time_changes(board):
    """template-on-time-change-reload-rule."""
    assert {2} == {each["refresh"] for each in board["templating"]["list"] if each["type"] == "query"}


@pytest.mark.parametrize("board", RENDERED)
def test_variables_list_the_values_of_labels(board):
    """template-label-promql-rule: label_values of a selector, and every query variable is labelled for people."""
    queries = [each for each in board["templating"]["list"] if each["type"] == "query"]

    assert all(
        re.fullmatch(r"label_values\(streamgauge_\w+(\{.*\})?, \w+\)", each["query"]["query"]) for each in queries
    )
    assert all(each["label"] for each in queries)


@pytest.mark.parametrize("board", RENDERED)
def test_boards_are_not_edited_by_hand(board):
    """uneditable-dashboard-rule: changes are made in code."""
    assert board["editable"] is False


@pytest.mark.parametrize("panel", PANELS)
def test_panels_have_a_source_a_query_a_title_a_description_and_a_unit(panel):
    """panel-datasource-rule, panel-no-targets-rule, panel-title-description-rule, panel-units-rule."""
    defaults = panel["fieldConfig"]["defaults"]
    units = {
        each["value"] for o in panel["fieldConfig"]["overrides"] for each in o["properties"] if each["id"] == "unit"
    }

    assert "${datasource}" == panel["datasource"]["uid"]
    assert panel["targets"]
    assert panel["title"]
    assert panel["description"]
    assert {defaults["unit"], *units} <= UNITS
    assert all("${datasource}" == target["datasource"]["uid"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS)
def test_rates_reach_back_the_rate_interval(panel):
    """target-rate-interval-rule: or over the whole range shown, or over a window that the description names."""
    for target in panel["targets"]:
        for function, window in RATED.findall(target["expr"]):
            if function == "rate":
                assert "$__rate_interval" == window
            elif window not in {"$__rate_interval", "$__range"}:
                assert WINDOWS[window]
                assert re.search(WINDOWS[window], panel["description"]) or panel["type"] == "table"


@pytest.mark.parametrize("panel", PANELS)
def test_counters_are_read_as_rates(panel):
    """target-counter-agg-rule: a name that ends in _total, _bucket, _sum or _count stands in rate or increase only."""
    for target in panel["targets"]:
        for match in re.finditer(r"\b(?:streamgauge|process)_\w+_(?:total|bucket|sum|count)\b", target["expr"]):
            assert target["expr"][: match.start()].endswith(("rate(", "increase("))


@pytest.mark.parametrize("panel", PANELS)
def test_the_best_of_many_are_the_same_at_every_step(panel):
    """Ours: topk over a range picks others at each step, so that lines flicker, unless it ranks by one moment."""
    for target in panel["targets"]:
        if target["range"] and "topk(" in target["expr"]:
            ranked = target["expr"].split("topk(")[1]

            assert ranked.count("@ end()") >= len(re.findall(r"streamgauge_\w+|ALERTS", ranked)) > 0


@pytest.mark.parametrize("panel", PANELS)
def test_ages_are_shown_on_one_scale(panel):
    """Ours: a share of an objective is a ratio, yellow from one half and red from the whole on, on every board."""
    defaults = panel["fieldConfig"]["defaults"]
    if "of objective" in panel["title"].lower():
        assert "percentunit" == defaults["unit"]
        assert [(None, "green"), (0.5, "yellow"), (1, "red")] == [
            (step["value"], step["color"]) for step in defaults["thresholds"]["steps"]
        ]


@pytest.mark.parametrize("panel", PANELS)
def test_panels_say_what_they_need(panel):
    """Ours: a panel by topic or partition is empty at coarser levels of the settings, and its description says so."""
    names = {name for target in panel["targets"] for name in re.findall(r"streamgauge_consumer_\w+", target["expr"])}
    opt_in = {
        "streamgauge_consumer_committed_offset", "streamgauge_consumer_lost_records",
        "streamgauge_consumer_partition_owner_info",
    }  # fmt: skip

    if names & opt_in:
        assert "metrics.committed_offset" in panel["description"]
