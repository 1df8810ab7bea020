"""``streamgauge alerts backtest``: what the rules would have fired over what a Prometheus remembers."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from monitor.cli.options import debug_option, output_option
from monitor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from alerts.backtest import Backtest, Span
    from alerts.objectives import Changed
    from alerts.replay import Firing
    from alerts.rule import Rule

EXIT_FIRED = 1


@click.command()
@click.option(
    "--prometheus",
    "url",
    metavar="URL",
    default="http://127.0.0.1:9090",
    show_default=True,
    help="The Prometheus that scraped the monitor.",
)
@click.option(
    "--from",
    "begin",
    metavar="WHEN",
    default="24h",
    show_default=True,
    help="Beginning, as 24h (ago) or 2026-11-23T13:00.",
)
@click.option("--to", "end", metavar="WHEN", default="0s", help="End, in the same way.  [default: now]")
@click.option("--step", metavar="DURATION", default="1m", show_default=True, help="How often rules are evaluated.")
@click.option(
    "--alert", "names", metavar="NAME", multiple=True, help="Only these alerts: names or patterns with * and ?."
)
@click.option(
    "--objective",
    "objectives",
    metavar="CONSUMER=SECONDS",
    multiple=True,
    help="Compare with this objective instead of the exported one, for a consumer or a pattern.",
)
@click.option(
    "--objectives-of",
    metavar="FILE",
    help="Compare with all objectives of a settings file instead of the exported ones.",
)
@output_option("table", "json", "csv")
@debug_option
def backtest(
    *,
    url: str,
    begin: str,
    end: str,
    step: str,
    names: tuple[str, ...],
    objectives: tuple[str, ...],
    objectives_of: str | None,
    output: str,
) -> int:
    """Replay the rules over a Prometheus.

    What would have fired, when, and for how long; and with other objectives, whether each alert is the same, gone or
    new under them: one that begins or ends at another time is gone and new. It begins as if the rules had been loaded
    at the first evaluation. Times are UTC.

    A log-in to Prometheus comes from the environment: STREAMGAUGE_PROMETHEUS_TOKEN, or _USERNAME and _PASSWORD.

    Exit code: 0 no critical alert or warning would have fired (under the other objectives, where there are any); 1 one
    would have; 2 wrong usage; 3 Prometheus cannot be asked, or has nothing of a monitor.
    """
    import os
    import time

    from alerts.backtest import Prometheus, login
    from alerts.backtest import backtest as replayed

    rules = _rules(names)
    changed = _changed(objectives, objectives_of)
    span = _span(begin, end, step, time.time())
    prometheus = Prometheus(url, login(os.environ))
    answer = replayed(prometheus, rules, span, changed)
    _print(answer, len(rules), output)
    _complain(answer, span.begin)
    judged = answer.fired if answer.changed is None else answer.changed
    return EXIT_FIRED if any(firing.rule.severity in {"critical", "warning"} for firing in judged) else 0


# --- what was asked for ------------------------------------------------------------------------------


def _rules(names: Sequence[str]) -> list[Rule]:
    """Return the rules meant; without names all but the watchdog, which always fires.

    Raises:
        UsageError: a name that no rule has.
    """
    from alerts.rule import Severity
    from alerts.rules import ALL_RULES

    if not names:
        return [rule for rule in ALL_RULES if rule.severity is not Severity.NONE]
    for name in names:
        if not any(_is_meant(rule, name) for rule in ALL_RULES):
            from difflib import get_close_matches

            near = get_close_matches(name, [rule.name for rule in ALL_RULES], n=1)
            advice = f"did you mean {near[0]}?" if near else "streamgauge alerts render --out - shows all"
            msg = f"there is no alert {name!r}: {advice}"
            raise UsageError(msg)
    return [rule for rule in ALL_RULES if any(_is_meant(rule, name) for name in names)]


def _is_meant(rule: Rule, name: str) -> bool:
    from monitor.settings import matches

    return matches(rule.name, name) or matches(rule.name.removeprefix("Streamgauge"), name)


def _changed(pairs: Sequence[str], file: str | None) -> list[Changed] | None:
    """Return the other objectives, the first that matches a consumer first; None where none were given.

    Raises:
        UsageError: something that is no objective.
    """
    from alerts.objectives import Changed

    changed = [_objective(pair) for pair in pairs]
    if file is not None:
        from monitor.cli.options import Where
        from monitor.cli.settings_file import find_settings

        settings = find_settings(Where(file)).settings.objectives
        changed += [Changed(each.consumer, each.seconds) for each in settings.consumers]
        changed.append(Changed("*", settings.default_seconds))
    return changed or None


def _objective(pair: str) -> Changed:
    from alerts.objectives import Changed

    consumer, _, text = pair.rpartition("=")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not consumer or not math.isfinite(seconds) or seconds <= 0:
        msg = f"cannot use --objective {pair}: write CONSUMER=SECONDS, for example billing-*=60"
        raise UsageError(msg)
    return Changed(consumer, seconds)


def _span(begin: str, end: str, step: str, now: float) -> Span:
    """Return the evaluations between two times, at whole multiples of the step as far as they go.

    Raises:
        UsageError: a time or a duration that is none, or an end before the beginning.
    """
    from alerts.backtest import Span
    from alerts.replay import whole_seconds

    seconds = whole_seconds(step)
    if not seconds:
        msg = f"cannot use --step {step}: write a duration of at least 1s, for example 30s or 1m"
        raise UsageError(msg)
    first, last = (_moment(option, text, now) for option, text in (("--from", begin), ("--to", end)))
    first, last = -(-first // seconds) * seconds, last // seconds * seconds
    if last <= first:
        msg = f"there is no evaluation between --from {begin} and --to {end}: the end has to come after the beginning"
        raise UsageError(msg)
    return Span(first, last, seconds)


def _moment(option: str, text: str, now: float) -> int:
    from alerts.replay import whole_seconds

    ago = whole_seconds(text)
    if ago is not None:
        return int(now) - ago
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = (
            f"cannot use {option} {text}: write how long ago, for example 24h or 7d, or a time such as 2026-11-23T13:00"
        )
        raise UsageError(msg) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


# --- what is printed ---------------------------------------------------------------------------------


class Row(NamedTuple):
    """One alert, and what other objectives make of it: ``same``, ``gone``, ``new``, or nothing without any."""

    firing: Firing
    change: str


def rows(answer: Backtest) -> list[Row]:
    """Return every alert that would have fired, with or without other objectives, in the order of time."""
    if answer.changed is None:
        return [Row(firing, "") for firing in answer.fired]
    before, after = ({(each.key, each.begin, each.end) for each in those} for those in (answer.fired, answer.changed))
    gone_or_same = [Row(each, "same" if _place(each) in after else "gone") for each in answer.fired]
    new = [Row(each, "new") for each in answer.changed if _place(each) not in before]
    return sorted([*gone_or_same, *new], key=lambda row: (row.firing.begin, row.firing.key))


def _place(firing: Firing) -> tuple[tuple[str, ...], int, int | None]:
    return firing.key, firing.begin, firing.end


LABELS = ("cluster", "kind", "consumer", "topic", "source", "scope")
"""Every label that an alert of ours may have."""


def _print(answer: Backtest, rules: int, output: str) -> None:
    import sys

    if output == "table":
        _print_table(answer, rules)
    elif output == "json":
        import json

        sys.stdout.write(f"{json.dumps(as_json(answer), indent=2, ensure_ascii=False)}\n")
    else:
        sys.stdout.write(as_csv(answer))


def as_json(answer: Backtest) -> dict[str, Any]:
    """Return the answer as JSON: an alert that was firing at the last evaluation has a null for its end."""
    return {
        "from": _time(answer.span.begin),
        "to": _time(answer.span.last),
        "step_seconds": answer.span.step,
        "unseen_seconds": answer.unseen_seconds,
        "alerts": [_data(row, answer.span.last) for row in rows(answer)],
    }


def _data(row: Row, last: int) -> dict[str, Any]:
    firing = row.firing
    change = {"change": row.change} if row.change else {}
    return {
        "alert": firing.rule.name,
        "severity": str(firing.rule.severity),
        **{label: firing.labels[label] for label in LABELS if label in firing.labels},
        "from": _time(firing.begin),
        "to": None if firing.end is None else _time(firing.end),
        "duration_seconds": firing.seconds_until(last),
        "worst": firing.worst if math.isfinite(firing.worst) else None,
        **change,
    }


def as_csv(answer: Backtest) -> str:
    """Return the answer as CSV with a header; what an alert does not have is empty."""
    import csv
    import io

    buffer = io.StringIO()
    columns = ("alert", "severity", *LABELS, "from", "to", "duration_seconds", "worst", "change")
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_data(row, answer.span.last) for row in rows(answer))
    return buffer.getvalue()


def _print_table(answer: Backtest, rules: int) -> None:
    from monitor.cli.output import Cell, Column, Table, age_text, plural, printable, show

    found = rows(answer)
    when = f"{_time(answer.span.begin)} and {_time(answer.span.last)}"
    if not found:
        click.echo(f"nothing would have fired between {when} ({plural(rules, 'rule')})")
        return
    changes = [Column("change")] if answer.changed is not None else []
    columns = [
        *changes,
        Column("alert"),
        Column("severity"),
        Column("about", may_fold=True),
        Column("from"),
        Column("to"),
        Column("for", is_number=True),
        Column("worst", is_number=True),
    ]
    cells = [
        [
            *([Cell(row.change, _CHANGES[row.change])] if row.change else []),
            Cell(row.firing.rule.name),
            Cell(str(row.firing.rule.severity), _COLOURS.get(str(row.firing.rule.severity), "")),
            Cell(printable(_about(row.firing))),
            Cell(_time(row.firing.begin)),
            Cell("still firing" if row.firing.end is None else _time(row.firing.end)),
            Cell(age_text(row.firing.seconds_until(answer.span.last))),
            Cell(_worst(row.firing)),
        ]
        for row in found
    ]
    show(Table(tuple(columns), cells))
    click.echo(f"\nbetween {when}: {_sum(answer.fired, answer.span.last)}")
    if answer.changed is not None:
        click.echo(f"under the other objectives: {_sum(answer.changed, answer.span.last)}")


_COLOURS = {"critical": "bold red", "warning": "yellow"}
_CHANGES = {"same": "", "gone": "green", "new": "red"}


def _about(firing: Firing) -> str:
    return "/".join(firing.labels[label] for label in LABELS if label in firing.labels)


def _worst(firing: Firing) -> str:
    """Write the largest value as the alert's text has it; empty where the text has none, for then it says nothing."""
    from alerts.rule import VALUE, Format
    from monitor.cli.output import age_text, count_text

    shown: dict[Format, Callable[[float], str]] = {
        Format.SECONDS: age_text,
        Format.COUNT: lambda value: count_text(round(value)),
        Format.RATE: lambda value: f"{value:.1f}/s",
        Format.SHARE: lambda value: f"{value:.1%}",
    }
    number = next((each for each in firing.rule.numbers if each.name == VALUE), None)
    return "" if number is None or not math.isfinite(firing.worst) else shown[number.format](firing.worst)


def _sum(fired: Iterable[Firing], last: int) -> str:
    """Return how many alerts of each severity there are, and how long they fired together."""
    from monitor.cli.output import age_text

    parts = []
    for severity in ("critical", "warning", "info", "none"):
        those = [firing.seconds_until(last) for firing in fired if firing.rule.severity == severity]
        if those:
            parts.append(f"{len(those)} {severity} for {age_text(sum(those))}")
    return ", ".join(parts) or "nothing"


def _time(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _complain(answer: Backtest, begin: int) -> None:
    """Say on stderr what the answer does not know."""
    from monitor.cli.output import age_text, complain_each

    lines = [f"Prometheus warns: {' '.join(each.split())}" for each in answer.warnings]
    if answer.span.begin > begin:
        lines.append(f"Prometheus has nothing of a monitor before {_time(answer.span.begin)}: replayed from there")
    if answer.unseen_seconds:
        lines.append(f"Prometheus has nothing of a monitor for {age_text(answer.unseen_seconds)} in between")
    complain_each(lines)
