"""Rules with divided durations: the same rules on a faster clock, held against the same cases."""

import re

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_servers import needs_prometheus

from alerts import promtool
from alerts.alertmanager import render as routes
from alerts.cases import documents
from alerts.haste import hastened, shorter
from alerts.prometheus import render
from alerts.rules import ALL_RULES
from monitor.cli.main import streamgauge

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()
    return int(number) * MILLISECONDS[unit]


@given(number=st.integers(1, 400), unit=st.sampled_from([*MILLISECONDS]), by=st.integers(1, 1000))
def test_a_duration_is_divided_to_the_millisecond(number, unit, by):
    """Never to nothing: what waits at all goes on waiting."""
    exact = number * MILLISECONDS[unit] / by

    assert max(1.0, exact) == pytest.approx(milliseconds(shorter(f"{number}{unit}", by)), abs=0.5)


@pytest.mark.parametrize(("text", "divided"), [("3m", "3s"), ("10s", "167ms"), ("0s", "0s"), ("3d", "4320s")])
def test_durations_as_they_are_written(text, divided):
    """Whole seconds where they are; no wait stays none."""
    assert divided == shorter(text, 60)


DURATIONS = re.compile(r"\[(\d\w*)\]|offset (\w+)")


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_every_duration_of_a_rule_is_divided_and_nothing_else(rule):
    """With its durations put back the expression is what it was."""
    fast = hastened(rule, 60)
    slow, divided = (
        [each for found in DURATIONS.findall(each.expression) for each in found if each] for each in (rule, fast)
    )

    assert [milliseconds(each) for each in slow] == [60 * milliseconds(each) for each in divided]
    assert DURATIONS.sub("", rule.expression) == DURATIONS.sub("", fast.expression)
    assert [milliseconds(rule.hold), rule.keep and milliseconds(rule.keep)] == [
        60 * milliseconds(fast.hold), fast.keep and 60 * milliseconds(fast.keep),
    ]  # fmt: skip
    assert [milliseconds(number.window) for number in rule.numbers] == [
        60 * milliseconds(number.window) for number in fast.numbers
    ]
    assert rule == hastened(rule, 1)


ON_ANY_CLOCK = [
    "ConsumerOverObjective",
    "ConsumerBudgetBurnFast",
    "ConsumerStopped",
    "ConsumerIncomplete",
    "SeriesDropped",
]
"""Rules that compare with no number of seconds or of records a second, and tell none that depends on the clock."""


def sooner(document):
    """A test file with seconds in place of its minutes."""
    tests = [
        {
            **test,
            "interval": "1s",
            "alert_rule_test": [
                {**each, "eval_time": each["eval_time"].replace("m", "s")} for each in test["alert_rule_test"]
            ],
        }
        for test in document["tests"]
    ]
    return {**document, "evaluation_interval": "1s", "tests": tests}


@needs_prometheus
def test_a_divided_rule_does_at_seconds_what_the_rule_does_at_minutes():
    """promtool runs the cases of the rules with a sample a second: it fires, is silent, is kept and resolves alike."""
    names = [f"Streamgauge{name}" for name in ON_ANY_CLOCK]
    written = {name: sooner(document) for name, document in documents().items() if name in names}
    rules = {rule.name: render([rule], faster=60) for rule in ALL_RULES}
    verdicts = promtool.test({name: (document, rules[name]) for name, document in written.items()})

    assert set(names) == set(verdicts)
    assert {} == {name: verdict.said for name, verdict in verdicts.items() if not verdict.passed}


def test_the_files_say_that_they_are_for_trying_out():
    """Divided durations must not be taken for those that were meant."""
    for text in (render(faster=60), routes(faster=60)):
        assert "# For trying out only: every duration in here is divided by 60." in text.splitlines()
    assert "trying out" not in render() + routes()
    assert ["167ms", "1s", "5s", "0s"] == [
        each["group_wait"] for each in yaml.safe_load(routes(faster=60))["route"]["routes"]
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(("--target", "grafana", "--faster", "60"), "no sooner than every 10 s", id="grafana"),
        pytest.param(("--faster", "0"), "0 is not in the range 1<=x<=1000", id="zero"),
    ],
)  # fmt: skip
def test_what_cannot_be_faster_is_one_line(arguments, complaint):
    """Wrong usage: exit code 2, and why."""
    result = CliRunner().invoke(streamgauge, ["alerts", "render", "--out", "-", *arguments])

    assert 2 == result.exit_code
    assert complaint in result.output
    assert 1 == result.output.count("\n")
