"""Every expression of rules and boards: parses, and names nothing that nobody publishes.

The reading here is independent of how expressions are built: it takes the finished text apart.
"""

import re
import subprocess

import pytest
import yaml
from prometheus_servers import needs_promtool

from alerts.rules import ALL_RULES, RECORDS, WATCHDOG
from dashboards.board import ALL
from dashboards.files import BOARDS
from monitor.catalog import BY_NAME, METRICS, Type

VARIABLES = {
    "$__range": "1h", "$__rate_interval": "4m",
    **{f"${name}": ALL for name in ("cluster", "kind", "consumer", "topic", "partition", "job")},
}  # fmt: skip

QUERIES = [
    pytest.param(query.expression, id=f"{board.uid}: {panel.title} {index}")
    for board in BOARDS
    for panel in board.panels
    for index, query in enumerate(panel.queries)
]
MARKS = [
    pytest.param(each.expression, id=f"{board.uid}: mark {each.name}") for board in BOARDS for each in board.annotations
]
EXPRESSIONS = [
    *(pytest.param(rule.expression, id=rule.name) for rule in ALL_RULES if rule != WATCHDOG),
    *QUERIES,
    *MARKS,
]
CHOICES = [pytest.param(each.query, id=f"{board.uid}: ${each.name}") for board in BOARDS for each in board.variables]

OF_ALERTS = {"alertname", "alertstate", "severity", *(label for rule in ALL_RULES for label in rule.labels)}
FOREIGN = {
    "ALERTS": OF_ALERTS,
    "up": set(),
    "scrape_duration_seconds": set(),
    "scrape_samples_scraped": set(),
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_open_fds": set(),
    "process_start_time_seconds": set(),
}
"""What Prometheus writes itself, and what its client library tells of a process: with the labels they have."""

OF_A_TARGET = {"job", "instance"}
"""Labels that Prometheus gives every series that it scrapes."""

NAMES = "|".join(["streamgauge_\\w+", *FOREIGN])
SELECTOR = re.compile(rf"(?<![\w:])({NAMES})\b(?:\{{([^}}]*)\}})?")
GROUPING = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')
WORDS = {"and", "bool", "by", "or", "unless"}
"""What PromQL itself has words for, as far as they stand before no bracket: functions are promtool's business."""


def substituted(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def metrics_in(expression):
    """Every metric in an expression with the labels of its matchers; a histogram by its own name."""
    return [
        (name if name in BY_NAME else name.removesuffix("_bucket"), re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        for name, matchers in SELECTOR.findall(expression)
    ]


def faults_in(expression):
    """What an expression names that nobody publishes: metrics, labels, and words that are neither."""
    found = metrics_in(expression)
    faults = [name for name, _ in found if name not in BY_NAME and name not in FOREIGN]
    faults += [f"{name}{{{label}}}" for name, labels in found for label in labels if label not in labels_of(name)]
    grouped = {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")} - {""}
    known = {label for name, _ in found for label in labels_of(name)}
    return faults + sorted(grouped - known) + strangers_in(expression)


def strangers_in(expression):
    """Words outside of quotes, selectors, groupings and ranges that are neither PromQL's nor a metric's."""
    bare = STRINGS.sub("", expression)
    for known in (r"\[[^]]*\]", r"offset \S+", GROUPING, SELECTOR):
        bare = re.sub(known, " ", bare)
    words = set(re.findall(r"\b[a-zA-Z_:][\w:]*+(?!\s*\()", bare))
    return sorted(words - WORDS - {record.name for record in RECORDS})


def labels_of(name):
    if name in FOREIGN:
        return FOREIGN[name] | OF_A_TARGET
    if name not in BY_NAME:
        return set()
    is_histogram = BY_NAME[name].type is Type.HISTOGRAM
    return {*BY_NAME[name].labels, *OF_A_TARGET, *(["le"] if is_histogram else [])}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_name_is_published(expression):
    """Metrics, labels in matchers and labels in groupings all exist; nothing is asked for that nobody publishes."""
    assert metrics_in(expression)
    assert [] == faults_in(expression)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_is_among_labels_that_are_published(choice):
    """The values of a variable are those of a label that the metric has."""
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", choice).groups()
    ((name, _),) = metrics_in(selector)

    assert [] == faults_in(selector)
    assert label in labels_of(name)


@pytest.mark.parametrize(
    ("expression", "faults"),
    [
        pytest.param("streamgauge_consumer_lag > 0", ["streamgauge_consumer_lag"], id="metric"),
        pytest.param('streamgauge_cluster_up{kind="group"}', ["streamgauge_cluster_up{kind}"], id="matcher"),
        pytest.param("max by (cluster, group) (streamgauge_cluster_up)", ["group"], id="grouping"),
        pytest.param("streamgauge_cluster_up / kafka_brokers", ["kafka_brokers"], id="a metric of somebody else"),
        pytest.param('ALERTS{consumer="a"}', [], id="a label of an alert"),
        pytest.param('ALERTS{member="1"}', ["ALERTS{member}"], id="a label of no alert"),
        pytest.param("max by (cluster) (streamgauge_cluster_up)", [], id="none"),
    ],
)
def test_a_wrong_name_is_seen(expression, faults):
    """The check itself finds what it is for."""
    assert faults == faults_in(expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_counters_are_only_read_as_rates(expression):
    """A counter's own value means nothing on a board or in a rule; a gauge has no rate."""
    for match in SELECTOR.finditer(expression):
        is_rated = expression[: match.start()].endswith(("rate(", "increase("))
        name = match[1].removesuffix("_bucket")
        is_counter = BY_NAME[name].type is not Type.GAUGE if name in BY_NAME else name.endswith("_total")

        is_looked_for = expression[: match.start()].endswith("last_over_time(")

        assert is_rated == is_counter or (is_counter and is_looked_for)


@needs_promtool
def test_every_expression_parses(tmp_path):
    """Prometheus' parser takes each of them, with the variables filled in."""
    texts = [substituted(each.values[0]) for each in EXPRESSIONS]
    rules = [{"record": f"expression:{index}", "expr": text} for index, text in enumerate(texts)]
    path = tmp_path / "expressions.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": rules}]}))
    command = ["promtool", "check", "rules", "--lint=none", str(path)]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)

    assert not [text for text in texts if "$" in text]
    assert 0 == answer.returncode, answer.stdout + answer.stderr
    assert f"{len(texts)} rules found" in answer.stdout


LOOKED_UP: set[str] = {
    # The crash loop is judged by the monitor, with its evidence; a count alone says nothing of why.
    "streamgauge_spark_restarts_total",
    # Only queries whose job tells them have these: boards show what every query has, and diagnose reads them.
    "streamgauge_spark_output_rows_total",
    "streamgauge_spark_batch_phase_seconds_total",
}
"""For asking by hand only, each with the reason why no board and no rule needs it."""


def test_every_metric_is_used_or_listed():
    """A new metric is put on a board, into a rule, or listed here with the reason why not."""
    used = {name for each in EXPRESSIONS for name, _ in metrics_in(each.values[0])} - set(FOREIGN)
    everything = {metric.name for metric in METRICS}

    assert everything == used | LOOKED_UP
    assert set() == used & LOOKED_UP


def test_alerts_that_boards_name_exist():
    """A mark for one alert is about an alert that there is."""
    named = {name for mark in MARKS for name in re.findall(r'alertname="(\w+)"', mark.values[0])}

    assert named
    assert named <= {rule.name for rule in ALL_RULES}
