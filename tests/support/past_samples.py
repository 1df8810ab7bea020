"""A past for ``alerts backtest``: readers whose ages wander, one that stops; and what is true of it.

Samples lie between the evaluations, so that what a window holds does not depend on whether its edges count.
"""

import random
from datetime import UTC, datetime

BEGIN = 1_690_000_800 // 60 * 60  # long before the cases
MINUTES = 600
SAMPLE_AT = 17
"""Seconds after an evaluation at which the scrape was."""

OBJECTIVE = 300.0
WANDERERS = [f"walk-{number}" for number in range(12)]
STOPPED = "nightly"
STOPPED_FROM, STOPPED_TO = 200, 240
UNSEEN_FROM, UNSEEN_TO = 400, 420
"""Minutes at which no scrape was."""


def utc(minute):
    """A minute of this past as the command prints and takes it."""
    return datetime.fromtimestamp(BEGIN + 60 * minute, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def wandering(name):
    """Age and bound of a reader at every minute; None where its age was unknown."""
    chance, age, ages = random.Random(name), 250.0, []
    for minute in range(MINUTES):
        age = min(600.0, max(0.0, age + chance.gauss(0, 40)))
        is_unknown = chance.random() < 0.08 or UNSEEN_FROM <= minute < UNSEEN_TO
        ages.append(None if is_unknown else (round(age, 1), round(chance.uniform(0, 20), 1)))
    return ages


def past_lines():
    """Every sample as lines of OpenMetrics, by metric."""
    lines = {}

    def add(metric, labels, minute, value):
        text = ",".join(f'{label}="{each}"' for label, each in labels.items())
        at = BEGIN + 60 * minute + SAMPLE_AT
        lines.setdefault(metric, []).append(f"{metric}{{{text}}} {value} {at}")

    seen = [minute for minute in range(MINUTES) if not UNSEEN_FROM <= minute < UNSEEN_TO]
    for minute in seen:
        add("streamgauge_cluster_up", {"cluster": "past", "source": "kafka"}, minute, 1)
    for name in WANDERERS:
        who = {"cluster": "past", "kind": "group", "consumer": name}
        known = [(minute, each) for minute, each in enumerate(wandering(name)) if each is not None]
        for minute, (age, _) in known:
            add("streamgauge_consumer_max_lag_seconds", who, minute, age)
        for minute, (_, bound) in known:
            add("streamgauge_consumer_max_lag_seconds_bound", who, minute, bound)
        for minute in seen:
            add("streamgauge_consumer_objective_seconds", who, minute, OBJECTIVE)
    who = {"cluster": "past", "kind": "group", "consumer": STOPPED, "health": "stopped"}
    for minute in seen:
        add("streamgauge_consumer_health", who, minute, int(STOPPED_FROM <= minute < STOPPED_TO))
    return lines


def is_late(name, objective):
    """At every evaluation of this past, whether the reader was surely over an objective, as the manual has it.

    Its last known age counts for 15 minutes, for as long as it was listed within the last 3.
    """
    ages = wandering(name)
    late = []
    for minute in range(MINUTES):
        newest = next((ages[at] for at in range(minute - 1, minute - 16, -1) if at >= 0 and ages[at] is not None), None)
        is_listed = any(at >= 0 and not UNSEEN_FROM <= at < UNSEEN_TO for at in range(minute - 3, minute))
        late.append(newest is not None and is_listed and newest[0] - newest[1] > objective)
    return late
