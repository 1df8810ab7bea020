"""The live table: the report as lines a person reads, for a terminal that can redraw and for one that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from monitor.demo.client import Report
from monitor.model import Health

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADINGS = ("consumer", "kind", "state", "lag records", "lag seconds", "read/s", "health", "objective")
HEALTH, OBJECTIVE = HEADINGS.index("health"), HEADINGS.index("objective")
RIGHT = frozenset({"lag records", "lag seconds", "read/s"})
COLOURS = {Health.OK: "green", Health.UNKNOWN: "yellow"}
"""Of the words of health; every other word is a bad one."""

UNKNOWN = "?"
OVER = ", exceeded"


def rows(report: Report) -> list[tuple[str, ...]]:
    """Return a row of cells for each consumer of the report, by name."""
    said = [each for cluster in report["clusters"] for each in cluster["consumers"]]
    return [_row(each) for each in sorted(said, key=lambda each: (each["kind"], each["name"]))]


def _row(said: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        said["name"],
        said["kind"],
        said["state"] or "",
        _count(said["lag_records"]),
        _age(said["lag_seconds"], said["lag_seconds_bound"]),
        _rate(said["records_per_second"]),
        said["health"],
        f"{said['objective_seconds']:g} s{OVER if said['over_objective'] else ''}",
    )


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _age(seconds: float | None, bound: float | None) -> str:
    if seconds is None or bound is None:
        return UNKNOWN
    return f"{seconds:.1f} ± {bound:.1f}" if seconds or bound else "0"


def _rate(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def facts(report: Report) -> list[str]:
    """Return a line for each Faust worker and for what is kept of each consumer's last hour."""
    said = [each for cluster in report["clusters"] for each in cluster["consumers"]]
    workers = [
        f"worker of {each['name']}: {worker['state']}, {in_words(worker['outcomes'])}"
        for each in said
        for worker in each.get("workers", [])
    ]
    hours = [_hour(each["name"], each["last_hour"]) for each in said if "last_hour" in each]
    return [*workers, *hours]


def in_words(outcomes: Mapping[str, int]) -> str:
    """Return what a worker's records came to."""
    return ", ".join(f"{records:,} {word}" for word, records in outcomes.items()) or "no word of its records"


def _hour(name: str, hour: Mapping[str, Any]) -> str:
    within, most = hour["within_objective"], hour["lag_records_max"]
    share = UNKNOWN if within is None else f"{100 * within:.1f}"
    return (
        f"last hour of {name}, {hour['minutes']} min of it kept: lag at most {_count(most)} records, "
        f"{share} % within its objective"
    )


def screen(report: Report, below: Sequence[str]) -> RenderableType:
    """Return the report as a table, with lines of text below."""
    from rich.console import Group  # noqa: PLC0415 (only where there is a terminal)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in RIGHT else "left", no_wrap=True)
    for row in rows(report):
        cells = [Text(cell) for cell in row]
        cells[HEALTH].stylize(COLOURS.get(Health(row[HEALTH]), "bold red"))
        cells[OBJECTIVE].stylize("bold red" if row[OBJECTIVE].endswith(OVER) else "")
        table.add_row(*cells)
    return Group(Text(), table, Text(), *(Text(text, "dim") for text in below))


def block(report: Report, below: Sequence[str]) -> str:
    """Return the report as plain lines for a pipe or a file."""
    cells = [HEADINGS, *rows(report)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if heading in RIGHT else cell.ljust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(["", f"{clock(report)}", *lines, *below])


def clock(report: Report) -> str:
    """Return the report's time of day, as this machine's clock shows it."""
    return datetime.fromisoformat(report["at"]).astimezone().strftime("%H:%M:%S")
