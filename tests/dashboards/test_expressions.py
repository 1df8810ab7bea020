"""Every expression of rules and boards: parses, and names nothing that the catalogue does not have.

The reading here is independent of how expressions are built: it takes the finished text apart.
"""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from alerts.rules import RULES
from dashboards.board import ALL
from dashboards.files import BOARDS
from monitor.catalog import BY_NAME, METRICS, Type

VARIABLES = {"$__range": "1h", "$__rate_interval": "4m", "$cluster": ALL, "$kind": ALL, "$consumer": ALL}

QUERIES = [
    pytest.param(query.expression, id=f"{board.uid}: {panel.title} {index}")
    for board in BOARDS
    for panel in board.panels
    for index, query in enumerate(panel.queries)
]
EXPRESSIONS = [*(pytest.param(rule.expression, id=rule.name) for rule in RULES), *QUERIES]

SELECTOR = re.compile(r"(streamgauge_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")


def substituted(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def metrics_in(expression):
    """Every metric in an expression with the labels of its matchers."""
    return [(name, re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) for name, matchers in SELECTOR.findall(expression)]


def faults_in(expression):
    """What an expression names that is not in the catalogue."""
    found = metrics_in(expression)
    faults = [name for name, _ in found if name not in BY_NAME]
    faults += [f"{name}{{{label}}}" for name, labels in found for label in labels if label not in labels_of(name)]
    grouped = {label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")} - {""}
    known = {label for name, _ in found for label in labels_of(name)}
    return faults + sorted(grouped - known)


def labels_of(name):
    return BY_NAME[name].labels if name in BY_NAME else ()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_name_is_in_the_catalogue(expression):
    """Metrics, labels in matchers and labels in groupings all exist; nothing is asked for that nobody publishes."""
    assert metrics_in(expression)
    assert [] == faults_in(expression)


@pytest.mark.parametrize(
    ("expression", "faults"),
    [
        pytest.param("streamgauge_consumer_lag > 0", ["streamgauge_consumer_lag"], id="metric"),
        pytest.param('streamgauge_cluster_up{kind="group"}', ["streamgauge_cluster_up{kind}"], id="matcher"),
        pytest.param("max by (cluster, group) (streamgauge_cluster_up)", ["group"], id="grouping"),
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

        assert is_rated == (BY_NAME[match[1]].type is Type.COUNTER)


@pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool is not on PATH (Debian: package prometheus)",
)
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


PER_PARTITION = {
    "streamgauge_consumer_lag_records",
    "streamgauge_consumer_lag_seconds",
    "streamgauge_consumer_lag_seconds_bound",
    "streamgauge_consumer_committed_offset",
    "streamgauge_consumer_lost_records",
    "streamgauge_consumer_partition_owner_info",
    "streamgauge_partition_log_start_offset",
    "streamgauge_partition_log_end_offset",
}
"""For looking into one consumer; the overview must stay readable with ten thousands of positions."""

LOOKED_UP = {
    "streamgauge_consumer_topic_lag_records",
    "streamgauge_consumer_topic_abandoned",
    "streamgauge_consumer_rebalancing_seconds_total",
    "streamgauge_consumer_state",
    "streamgauge_consumer_info",
    "streamgauge_spark_batch_duration_seconds",
    "streamgauge_spark_batches_total",
    "streamgauge_observe_requests_total",
}
"""For asking by hand: no board and no rule needs them so far."""


def test_every_metric_is_used_or_listed():
    """A new metric is put on a board, into a rule, or listed here with the reason why not."""
    used = {name for each in EXPRESSIONS for name, _ in metrics_in(each.values[0])}
    everything = {metric.name for metric in METRICS}

    assert everything == used | PER_PARTITION | LOOKED_UP
    assert set() == used & (PER_PARTITION | LOOKED_UP)
