"""When an alert would have fired: held against Prometheus' steps, one evaluation after the other."""

import pytest
from alert_steps import stepped
from hypothesis import given
from hypothesis import strategies as st

from alerts.grafana import inlined
from alerts.objectives import Changed, pattern, reads_objectives, with_objectives
from alerts.promql import equals, matches
from alerts.replay import episodes, firings, whole_seconds
from alerts.rules import ALL_RULES
from alerts.words import OBJECTIVE_SECONDS


@given(
    is_true=st.lists(st.booleans() | st.just(True), max_size=60),
    hold=st.integers(0, 400),
    keep=st.integers(0, 400),
    step=st.sampled_from([1, 15, 60]),
)
def test_alerts_begin_and_end_as_in_prometheus(is_true, hold, keep, step):
    """Whatever is true when, and however long is waited: the same beginnings and ends."""
    true_at = [index * step for index, holds in enumerate(is_true) if holds]
    last = (len(is_true) - 1) * step

    assert stepped(is_true, hold, keep, step) == [*episodes(true_at, hold, keep, step, last)]


RULE = next(rule for rule in ALL_RULES if (rule.hold, rule.keep) == ("5m", "5m"))


def test_an_alert_knows_its_worst_value_and_how_long_it_fired():
    """The largest value while it fired, not what was larger before; without an end it is as long as was looked."""
    values = {0: 99.0} | {minute * 60: float(minute) for minute in range(1, 10)}
    (ended,) = firings(RULE, {"consumer": "billing"}, values, 60, 7200)
    (going_on,) = firings(RULE, {"consumer": "billing"}, values, 60, 600)

    assert (300, 900, 9.0, 600) == (ended.begin, ended.end, ended.worst, ended.seconds_until(7200))
    assert (300, None, 300) == (going_on.begin, going_on.end, going_on.seconds_until(600))
    assert (RULE.name, "", "", "billing") == ended.key


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2w", 1_209_600), ("m", None), ("1.5h", None), ("-1m", None)]
)
def test_durations_are_whole_seconds(text, seconds):
    """What is no duration is none."""
    assert seconds == whole_seconds(text)


# --- other objectives --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.name)
def test_every_objective_is_read_in_the_way_that_can_be_changed(rule):
    """With another objective for everybody no expression asks for an exported one but to know who is there."""
    expression = inlined(rule.expression)
    changed = with_objectives(expression, [Changed("billing", 60.0)])

    assert (OBJECTIVE_SECONDS in expression) == reads_objectives(expression)
    assert 2 * expression.count(OBJECTIVE_SECONDS) == changed.count(OBJECTIVE_SECONDS)
    assert expression == with_objectives(expression, [])


@pytest.mark.parametrize(
    ("glob", "regex"),
    [("billing-*", r"billing\-(?s:.*)"), ("a?c", "a(?s:.)c"), ("a.b", r"a\.b"), ("[x]", r"\[x\]")],
)
def test_only_two_characters_of_a_pattern_are_not_themselves(glob, regex):
    """As in the settings."""
    assert regex == pattern(glob)


def test_a_name_with_a_newline_stays_within_its_quotes():
    """PromQL ends a quoted text at the end of a line."""
    assert r'consumer="a\nb"' == str(equals("consumer", "a\nb"))
    assert r'consumer=~"a\\.b"' == str(matches("consumer", r"a\.b"))
