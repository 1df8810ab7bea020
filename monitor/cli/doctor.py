"""``streamgauge doctor``: what is wrong between here and the numbers, in the order in which one would look."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.options import Where, is_debug, output_option, settings_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.cli.output import Table
    from monitor.operate.doctor import Result


@click.command()
@settings_options
@output_option("table", "json", "csv")
@click.option("--strict", is_flag=True, help="Take warnings for failures.")
def doctor(where: Where, output: str, strict: bool) -> int:
    """Check settings, connections, versions and permissions.

    Each line is a verdict, what was checked, what was seen and what to do about it, in the order in which one depends
    on the other. Nothing is changed anywhere; each step takes timeout_seconds at most.

    Exit code: 0 fine, warnings included; 1 something makes numbers incomplete; 2 wrong usage or settings; 3 no cluster
    answers at all.
    """
    from monitor.cli.logs import log_for_results
    from monitor.operate.doctor import exit_code

    log_for_results(debug=is_debug())
    results = look(where)
    {"table": print_table, "json": print_json, "csv": print_csv}[output](results)
    return exit_code(results, strict=strict)


def look(where: Where) -> list[Result]:
    """Read the settings and examine every cluster; settings that cannot be used are a result as well."""
    from monitor.cli.settings_file import find_settings
    from monitor.errors import SettingsError, UsageError
    from monitor.operate.doctor import CONFIGURATION, Result, failed, ok, skipped
    from monitor.operate.examine import examine

    try:
        found = find_settings(where)
    except UsageError as exc:
        complaints = exc.complaints if isinstance(exc, SettingsError) else [str(exc)]
        wrong = [Result("", CONFIGURATION, failed("settings", text, "correct it")) for text in complaints]
        return [
            *wrong,
            Result("", "everything else", skipped("everything else", "not looked at: there are no settings")),
        ]
    used = Result("", CONFIGURATION, ok("settings", f"{found.source} is understood"))
    return [used, *asyncio.run(examine(found.settings))]


# --- for a person -------------------------------------------------------------------------------------------

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def print_table(results: Sequence[Result]) -> None:
    """Print a line for each result, and how many there are of each verdict."""
    from collections import Counter

    from monitor.cli.output import show

    show(result_table(results))
    counts = Counter(str(result.line.verdict) for result in results)
    click.echo("\n" + ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict]))


def result_table(results: Sequence[Result]) -> Table:
    """Return the results as a table; with one cluster its name is left out."""
    from monitor.cli.output import Cell, Column, Table, printable

    has_clusters = len({result.cluster for result in results if result.cluster}) > 1
    columns = [Column("VERDICT"), *([Column("CLUSTER")] if has_clusters else []), Column("CHECK"),
               Column("SEEN", may_fold=True), Column("TO DO", may_fold=True)]  # fmt: skip
    rows = [
        [
            Cell(result.line.verdict, STYLES[result.line.verdict]),
            *([Cell(printable(result.cluster))] if has_clusters else []),
            Cell(result.check),
            Cell(printable(seen(result))),
            Cell(printable(result.line.advice)),
        ]
        for result in together(results)
    ]
    return Table(tuple(columns), rows)


def together(results: Sequence[Result]) -> list[Result]:
    """Put checks that were skipped for the same reason into one row: what matters is the reason."""
    from dataclasses import replace

    same: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.line.verdict == "skipped":
            same.setdefault((result.cluster, result.line.seen), []).append(result.check)
    rows = []
    for result in results:
        names = same.get((result.cluster, result.line.seen), [result.check])
        if names[0] == result.check:
            said = f"{', '.join(names)}: {result.line.seen}"
            rows.append(
                result if len(names) == 1
                else replace(result, check=f"{len(names)} checks", line=replace(result.line, what="", seen=said))
            )  # fmt: skip
    return rows


def seen(result: Result) -> str:
    """Return what was seen, after what it was seen of where the check's name does not say that."""
    line = result.line
    is_said = line.what in result.check or line.what in line.seen
    return line.seen if is_said else f"{line.what}: {line.seen}"


# --- for a program ------------------------------------------------------------------------------------------

COLUMNS = ("cluster", "check", "verdict", "what", "seen", "advice")
"""New columns are only ever added at the end."""


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return the results as plain values; ``cluster`` is null for what is about all of them."""
    return [
        {
            "cluster": result.cluster or None,
            "check": result.check,
            "verdict": str(result.line.verdict),
            "what": result.line.what,
            "seen": result.line.seen,
            "advice": result.line.advice,
        }
        for result in results
    ]


def print_json(results: Sequence[Result]) -> None:
    """Print the results as JSON."""
    import json

    # Not click.echo: it would take what looks like colour out of names.
    sys.stdout.write(json.dumps({"checks": rows(results)}, indent=2, ensure_ascii=False) + "\n")


def print_csv(results: Sequence[Result]) -> None:
    """Print the results as CSV with a header."""
    import csv

    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
