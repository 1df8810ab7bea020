"""``streamgauge dlq``: look at dead letters, and send them back to where they came from."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.options import Where, is_debug, output_option, settings_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from monitor.operate.dead_letters import Found, Letter, Step, Wanted
    from monitor.settings import Cluster

EXIT_PENDING = 1
LONGEST_VALUE = 60


@click.group()
def dlq() -> None:
    """List and replay the dead letters that processors set aside."""


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which letters are meant; the command gets them as ``wanted``."""

    @click.option("--cluster", "name", metavar="NAME", help="Cluster of the settings, if there are several.")
    @click.option("--error", default="", metavar="TEXT", help="Only letters whose error has this text in it.")
    @click.option("--from", "origin", default="", metavar="TOPIC", help="Only letters that came from this topic.")
    @click.option("--key", default="", metavar="KEY", help="Only letters with this key.")
    @click.option("--again", is_flag=True, help="Take those that have been replayed as well.")
    @functools.wraps(command)
    def with_wanted(*args: Any, error: str, origin: str, key: str, again: bool, **kwargs: Any) -> Any:
        from monitor.operate.dead_letters import Wanted

        return command(*args, wanted=Wanted(error, origin, key, again), **kwargs)

    return with_wanted


def _limit(default: int) -> Callable[..., Any]:
    return click.option(
        "--limit", type=click.IntRange(1), default=default, show_default=True, help="How many at most, oldest first."
    )


@dlq.command(name="list")
@click.argument("topic")
@_which
@_limit(100)
@settings_options
@output_option("table", "json", "csv")
def list_letters(topic: str, *, where: Where, name: str | None, wanted: Wanted, limit: int, output: str) -> None:
    """List the letters on TOPIC, oldest first, without those that have been replayed.

    Exit code: 0, whether or not there are any; 2 wrong usage or settings, or no such topic; 3 nothing could be reached.
    """
    from monitor.operate.dead_letters import DeadLetters

    found = asyncio.run(DeadLetters(_cluster(where, name)).read(topic, wanted, limit))
    if output == "table":
        _print_table([_row(each) for each in found.letters], _HEADS)
        click.echo(_summary(found), err=True)
    else:
        _print_data([_data(each) for each in found.letters], output)


@dlq.command()
@click.argument("topic")
@_which
@_limit(1000)
@click.option("--to", metavar="TOPIC", help="Send them there, and not where they came from.")
@click.option("--apply", "is_applied", is_flag=True, help="Do it; without this only the plan is shown.")
@settings_options
@output_option("table", "json", "csv")
def replay(
    topic: str,
    *,
    where: Where,
    name: str | None,
    wanted: Wanted,
    limit: int,
    to: str | None,
    is_applied: bool,
    output: str,
) -> int:
    """Send letters on TOPIC back to where they came from, as they came; without --apply show what would be sent.

    Letters stay on TOPIC. What has been sent is noted there, by a record with the header streamgauge.replayed, and is
    left out the next time. What cannot be sent back is listed with the reason, and stays.

    Exit code: 0 nothing is left to do; 1 there is: without --apply what is planned, with it what failed or could not be
    sent back; 2 wrong usage or settings, or no such topic; 3 nothing could be reached.
    """
    from monitor.cli.output import complain_each
    from monitor.errors import UsageError

    cluster = _cluster(where, name)
    if to == topic:
        problem = f"--to {to}: that is where the letters are"
        raise UsageError(problem)
    found, steps, failed = asyncio.run(_replay(cluster, topic, wanted, limit=limit, to=to, is_applied=is_applied))
    problems = {id(step): why for step, why in failed}
    results = [_step(each, problems, is_applied) for each in steps]
    if output == "table":
        _print_table([(*_row(step.letter), *result) for step, result in zip(steps, results, strict=True)], _PLAN_HEADS)
    else:
        _print_data(
            [
                {**_data(step.letter), "target": result[0], "result": result[1]}
                for step, result in zip(steps, results, strict=True)
            ],
            output,
        )
    sendable = sum(step.target is not None for step in steps)
    sent = sendable - len(failed)
    words = f"replayed {sent}" if is_applied else f"would replay {sendable}; add --apply to do it"
    click.echo(f"{_summary(found)}; {words}", err=True)
    complain_each(f"{_where(step.letter)}: {why}" for step, why in failed)
    left = found.count - sent if is_applied else found.count
    return EXIT_PENDING if left else 0


async def _replay(
    cluster: Cluster, topic: str, wanted: Wanted, *, limit: int, to: str | None, is_applied: bool
) -> tuple[Found, list[Step], list[tuple[Step, str]]]:
    from monitor.errors import UsageError
    from monitor.operate.dead_letters import DeadLetters, plan

    letters = DeadLetters(cluster)
    found = await letters.read(topic, wanted, limit)
    topics = await letters.topics()
    if to is not None and to not in topics:
        problem = f"--to {to}: there is no such topic in cluster {cluster.name}"
        raise UsageError(problem)
    steps = plan(found.letters, topics, to)
    return found, steps, await letters.apply(steps) if is_applied else []


def _cluster(where: Where, name: str | None) -> Cluster:
    """Return the cluster that is meant.

    Raises:
        UsageError: there is none of that name, or several and none was named.
    """
    from monitor.cli.logs import log_for_results
    from monitor.cli.settings_file import find_settings
    from monitor.errors import UsageError

    clusters = find_settings(where).settings.clusters
    log_for_results(debug=is_debug())
    chosen = [each for each in clusters if name in {None, each.name}]
    if len(chosen) != 1:
        names = ", ".join(each.name for each in clusters)
        problem = f"--cluster {name}: there is no such cluster" if name else "several clusters: name one with --cluster"
        text = f"{problem}; there are {names}"
        raise UsageError(text)
    return chosen[0]


# --- how they look ------------------------------------------------------------------------------------

_HEADS = ("PARTITION", "OFFSET", "TIME", "FROM", "KEY", "ERROR", "VALUE")
_PLAN_HEADS = (*_HEADS, "TO", "RESULT")


def _row(letter: Letter) -> tuple[str, ...]:
    value = _text(letter.value)
    return (
        str(letter.place.partition),
        str(letter.place.offset),
        _time(letter.at),
        _origin(letter),
        _text(letter.key),
        letter.error,
        value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…",
    )


def _step(step: Step, failed: dict[int, str], is_applied: bool) -> tuple[str, str]:
    if step.target is None:
        return "", f"stays: {step.why}"
    place = step.target.topic if step.target.partition < 0 else f"{step.target.topic} {step.target.partition}"
    if not is_applied:
        return place, "would be sent"
    return place, f"failed: {failed[id(step)]}" if id(step) in failed else "sent"


def _data(letter: Letter) -> dict[str, object]:
    origin = letter.origin
    return {
        "topic": letter.place.topic,
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "at": _time(letter.at),
        "from_topic": None if origin is None else origin.topic,
        "from_partition": None if origin is None else origin.partition,
        "from_offset": None if origin is None else origin.offset,
        "error": letter.error,
        "key": None if letter.key is None else _text(letter.key),
        "value": None if letter.value is None else _text(letter.value),
    }


def _where(letter: Letter) -> str:
    return f"{letter.place.topic} {letter.place.partition}/{letter.place.offset}"


def _origin(letter: Letter) -> str:
    origin = letter.origin
    return (
        "?"
        if origin is None
        else f"{origin.topic} {origin.partition}/{'?' if origin.offset is None else origin.offset}"
    )


def _text(value: bytes | None) -> str:
    return "–" if value is None else value.decode("utf-8", "backslashreplace")


def _time(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _summary(found: Found) -> str:
    from monitor.cli.output import plural

    shown = f"the first {len(found.letters)} of " if found.count > len(found.letters) else ""
    return f"{shown}{plural(found.count, 'letter')}; {found.replayed} replayed before"


def _print_table(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> None:
    from monitor.cli.output import Cell, Column, Table, printable, show

    if rows:
        columns = tuple(
            Column(each, each in {"PARTITION", "OFFSET"}, each not in {"PARTITION", "OFFSET"}) for each in heads
        )
        show(Table(columns, [[Cell(printable(text)) for text in row] for row in rows]))


def _print_data(rows: Sequence[dict[str, object]], output: str) -> None:
    import csv
    import json

    if output == "json":
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, allow_nan=False) + "\n")
        return
    names = list(rows[0]) if rows else [*_DATA]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)


_DATA = ("topic", "partition", "offset", "at", "from_topic", "from_partition", "from_offset", "error", "key", "value")
