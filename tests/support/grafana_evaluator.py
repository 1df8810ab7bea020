"""What Grafana does with an alert rule, as its documentation and sources say it: enough to hold ours against.

A rule's queries are asked at every evaluation; its condition is a threshold on one of them. A series is Normal,
Pending, Alerting or Recovering (``keepFiringFor``), and forgotten when it was missing for
``missing_series_evals_to_resolve`` evaluations. Texts know ``$labels`` and ``$values``: of each query the value whose
labels are the series' own, else one whose labels contain them or are contained in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Labels = frozenset[tuple[str, str]]
Answer = Mapping[Labels, float]
Ask = Callable[[str, int], Answer]
"""Answer a query (PromQL) at a moment (seconds)."""

UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> int:
    return int(duration[:-1]) * UNITS[duration[-1]]


@dataclass
class State:
    name: str
    since: int
    seen: int


@dataclass
class GrafanaRule:
    """A rule of a provisioning file, evaluated once an interval."""

    rule: Mapping
    interval: int
    ask: Ask
    states: dict[Labels, State] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)

    def evaluate(self, at: int) -> list[dict]:
        """Take in one evaluation and return the alerts that fire after it."""
        nodes = {node["refId"]: node for node in self.rule["data"]}
        queries = {ref: node for ref, node in nodes.items() if node["datasourceUid"] != "__expr__"}
        for ref, node in queries.items():
            assert (True, False) == (node["model"]["instant"], node["model"]["range"])
            assert node["relativeTimeRange"]["from"] > node["relativeTimeRange"]["to"] >= 0
            self.answers[ref] = self.ask(node["model"]["expr"], at)
        result = self.condition(nodes[self.rule["condition"]])
        if not result:
            assert self.rule["noDataState"] == "OK"
            result = dict.fromkeys(self.states, False)
        for labels, alarm in result.items():
            self.states[labels] = self.next_state(self.states.get(labels), alarm, at)
        patience = self.rule["missing_series_evals_to_resolve"] * self.interval
        self.states = {labels: state for labels, state in self.states.items() if at - state.seen < patience}
        return [self.alert(labels) for labels, state in self.states.items() if state.name in {"Alerting", "Recovering"}]

    def condition(self, node: Mapping) -> dict[Labels, bool]:
        model = node["model"]
        (condition,) = model["conditions"]
        assert ("threshold", "gt") == (model["type"], condition["evaluator"]["type"])
        (limit,) = condition["evaluator"]["params"]
        return {labels: value > limit for labels, value in self.answers[model["expression"]].items()}

    def next_state(self, state: State | None, alarm: bool, at: int) -> State:
        name, since = (state.name, state.since) if state else ("Normal", at)
        hold, keep = seconds(self.rule["for"]), seconds(self.rule["keepFiringFor"])
        if alarm:
            if name == "Normal":
                name, since = "Pending", at
            if name == "Recovering" or (name == "Pending" and at - since >= hold):
                name, since = "Alerting", at
        elif name == "Alerting":
            name, since = ("Recovering", at) if keep else ("Normal", at)
        elif name == "Pending" or (name == "Recovering" and at - since >= keep):
            name, since = "Normal", at
        return State(name, since, at)

    def alert(self, labels: Labels) -> dict:
        annotations = {name: self.text(text, labels) for name, text in self.rule["annotations"].items()}
        return {"exp_labels": {**self.rule["labels"], **dict(labels)}, "exp_annotations": annotations}

    def text(self, template: str, labels: Labels) -> str:
        template = re.sub(r"{{ \$labels\.(\w+) }}", lambda match: dict(labels)[match[1]], template)
        action = r"{{ with \$values\.(\w+) }}{{ \.Value \| (.*?) }}{{ else }}(\w+){{ end }}"
        return re.sub(action, lambda match: self.number(match, labels), template)

    def number(self, match: re.Match, labels: Labels) -> str:
        answer = self.answers[match[1]]
        fitting = [value for other, value in answer.items() if other == labels]
        fitting += [value for other, value in answer.items() if other < labels or labels < other]
        return SHOWN[match[2]](fitting[0]) if fitting else match[3]


def humanize_duration(value: float) -> str:
    assert value == 0 or value >= 1  # milliseconds are not needed here
    if value < 60:
        return f"{value:.4g}s"
    minutes, secs = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (secs, "s")]
    while not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{number}{unit}" for number, unit in parts)


SHOWN = {
    "humanizeDuration": humanize_duration,
    'printf "%.0f"': lambda value: f"{value:.0f}",
    'printf "%.1f"': lambda value: f"{value:.1f}",
    "humanizePercentage": lambda value: f"{value * 100:.4g}%",
}
