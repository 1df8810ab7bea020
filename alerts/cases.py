"""The tests of the rules, as data: what series come in, when an alert fires and with what words, when it is silent.

``cases/*.yml`` has a file for each rule. A case says its series by the metric's name alone; the labels that the
catalogue gives the metric are filled in from those of the file (or the usual ones), ``{topic=orders}`` adds or replaces
some. Samples are written as promtool has them, one a minute: ``_`` is a lost one, ``stale`` a series that ended.
``kept`` marks a moment at which an alert is no longer true and kept firing. What comes out of here is promtool's own
format, in which every label and every annotation is compared literally.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, TypeAlias

import yaml

from alerts.prometheus import ALERTS_GROUP, FILE_NAME, RECORDS_GROUP, render
from alerts.rule import Rule
from alerts.rules import ALL_RULES
from monitor.catalog import BY_NAME

Document: TypeAlias = dict[str, Any]
"""A test file in promtool's format."""

USUAL_LABELS: Mapping[str, str] = {
    "cluster": "default",
    "kind": "group",
    "consumer": "billing",
    "topic": "orders",
    "partition": "0",
    "source": "kafka",
    "scope": "group",
    "worker": "host-1",
    "agent": "take",
}
"""What a label is where a case does not say it."""

_SERIES = re.compile(r"(\w+)(?:\{(.*)\})?")


def case_files() -> dict[str, dict[str, Any]]:
    """Return what each file says, by the name of its rule."""
    texts = [each.read_text(encoding="utf-8") for each in _folder() if each.name.endswith(".yml")]
    said = [read_as_text(text) for text in texts]
    return {each["alert"]: each for each in sorted(said, key=lambda each: each["alert"])}


def read_as_text(text: str) -> Any:
    """Return a YAML document in which every value is text, so that the samples 0x20 are not the number 32."""
    return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 (it makes nothing but texts, lists and mappings)


def as_text(document: Document) -> str:
    """Return a test file's text. promtool takes groups in any order unless told, and a record may be a minute late."""
    ordered = {**document, "group_eval_order": [RECORDS_GROUP, ALERTS_GROUP]}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)


def asked_about(document: Document) -> set[str]:
    """Return the names of the alerts that a test file asks about."""
    return {each["alertname"] for test in document["tests"] for each in test["alert_rule_test"]}


def jobs(documents: Mapping[str, Document]) -> dict[str, tuple[Document, str]]:
    """Return each test file with a rule file that holds no rules but those it asks about."""
    return {
        name: (document, render([rule for rule in ALL_RULES if rule.name in asked_about(document)]))
        for name, document in documents.items()
    }


def documents() -> dict[str, Document]:
    """Return promtool's test file for each rule, by the rule's name.

    Raises:
        LookupError: a case is about a rule or a metric that there is not.
    """
    rules = {rule.name: rule for rule in ALL_RULES}
    return {name: _document(rules[name], said) for name, said in case_files().items()}


def _folder() -> Iterator[Any]:
    return files("alerts").joinpath("cases").iterdir()


def _document(rule: Rule, said: Mapping[str, Any]) -> Document:
    labels = {**USUAL_LABELS, **said.get("labels", {})}
    return {
        "rule_files": [FILE_NAME],
        "evaluation_interval": "1m",
        "tests": [_test(rule, said, case, labels) for case in said["cases"]],
    }


def _test(rule: Rule, said: Mapping[str, Any], case: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    fires = case.get("fires", [])
    at = {moment: [each for each in fires if each["at"] == moment] for moment in (each["at"] for each in fires)}
    expected = [_expectation(rule, said, labels, moment, alerts) for moment, alerts in at.items()]
    silent = [{"alertname": rule.name, "eval_time": moment, "exp_alerts": []} for moment in case.get("silent", [])]
    return {
        "name": case["name"],
        "interval": "1m",
        "input_series": [{"series": _series(key, labels), "values": values} for key, values in case["series"].items()],
        "alert_rule_test": [*expected, *silent],
    }


def _expectation(
    rule: Rule, said: Mapping[str, Any], labels: Mapping[str, str], moment: str, alerts: list[dict[str, Any]]
) -> dict[str, Any]:
    own = {label: labels[label] for label in rule.labels}
    return {
        "alertname": rule.name,
        "eval_time": moment,
        "exp_alerts": [
            {
                "exp_labels": {"severity": said["severity"], **own, **each.get("labels", {})},
                "exp_annotations": {
                    "summary": said["summary"],
                    "description": each["says"],
                    "runbook": f"docs/runbooks/{said['alert']}.md",
                },
            }
            for each in alerts
        ],
    }


def _series(key: str, labels: Mapping[str, str]) -> str:
    match = _SERIES.fullmatch(key)
    if match is None:
        msg = f"{key!r} is no series: write metric or metric{{label=value,...}}"
        raise LookupError(msg)
    name, extra = match[1], match[2]
    own = dict(pair.split("=", 1) for pair in extra.split(",")) if extra else {}
    # Labels that the scrape adds (instance) are in no catalogue: they come from the case alone.
    usual = {label: labels[label] for label in BY_NAME[name].labels if label not in own}
    pairs = ",".join(f'{label}="{value}"' for label, value in {**usual, **own}.items())
    return f"{name}{{{pairs}}}"
