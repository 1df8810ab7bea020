"""Words and tables for a person: numbers with units, text that cannot hurt a terminal, aligned columns.

On a terminal tables are drawn by rich, in colour and within its width; into a pipe they go as aligned text, whole
and without colour, one row a line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from monitor.cli.yaml_document import printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["UNKNOWN_TEXT", "Cell", "Column", "Table", "age_text", "count_text", "names_text", "printable", "show"]

UNKNOWN_TEXT = "?"


class Cell(NamedTuple):
    """A text and the style it has on a terminal."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """A heading, and whether the cells below are numbers (set flush right), may be folded to fit, or are sentences.

    On a terminal that is too narrow sentences stand below the table, and in it the number of each.
    """

    heading: str
    is_number: bool = False
    may_fold: bool = False
    is_sentence: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows; a row has a cell for each column."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell]]


def show(table: Table) -> None:
    """Print a table to stdout, as the place it goes to wants it."""
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        fitted, notes = fit(table, console.width)
        console.print(rich_table(fitted))
        click.echo("".join(f"{note}\n" for note in notes), nl=False)
    else:
        click.echo("\n".join(plain_lines(table)))


def fit(table: Table, width: int) -> tuple[Table, list[str]]:
    """Return the table as it is where it fits into this width, else with numbers for sentences, and the sentences."""
    sentences = {at for at, column in enumerate(table.columns) if column.is_sentence}
    if not sentences or sum(_widths(table)) + 2 * (len(table.columns) - 1) <= width:
        return table, []
    texts = dict.fromkeys(row[at].text for row in table.rows for at in sorted(sentences) if row[at].text)
    number = {text: str(index) for index, text in enumerate(texts, 1)}
    rows = [
        [Cell(number.get(cell.text, ""), cell.style) if at in sentences else cell for at, cell in enumerate(row)]
        for row in table.rows
    ]
    return Table(table.columns, rows), [f"{index}: {text}" for text, index in number.items()]


def rich_table(table: Table) -> RichTable:
    """Return the table for a terminal: without boxes, names folded rather than cut."""
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        options: dict[str, Any] = {"overflow": "fold"} if column.may_fold else {"no_wrap": True}
        drawn.add_column(column.heading, justify="right" if column.is_number else "left", **options)
    for row in table.rows:
        # Text, not str: a name with [brackets] is a name and no markup.
        drawn.add_row(*(Text(cell.text, cell.style) for cell in row))
    return drawn


def plain_lines(table: Table) -> list[str]:
    """Return the lines of the table as aligned text without trailing blanks."""
    widths = _widths(table)
    return ["  ".join(map(_pad, row, widths, table.columns)).rstrip() for row in _texts(table)]


def _texts(table: Table) -> list[list[str]]:
    return [[column.heading for column in table.columns], *([cell.text for cell in row] for row in table.rows)]


def _widths(table: Table) -> list[int]:
    return [max(map(_width, column)) for column in zip(*_texts(table), strict=True)]


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # East Asian characters take two columns

    return cell_len(text)


def _pad(text: str, width: int, column: Column) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if column.is_number else text + blanks


# --- words ------------------------------------------------------------------------------------------------

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def age_text(seconds: float) -> str:
    """Write a duration as people do: ``1.8 s``, ``12.5 min``, ``3.4 h``, ``2.1 d``."""
    for size, unit in _UNITS:
        # From two of a unit on, so that the figure keeps two digits that count.
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return "0 s" if seconds == 0 else f"{seconds:.1f} s"


def count_text(count: int) -> str:
    """Write a count with separators of thousands."""
    return f"{count:,}"


def names_text(names: Sequence[str], most: int = 3) -> str:
    """Write a list of names, and of a long one how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {count_text(len(names) - most)} more"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 group``, ``2 groups``, ``2 queries``."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count_text(count)} {noun if count == 1 else many}"


def complain_each(lines: Iterable[str]) -> None:
    """Print lines to stderr under the program's name."""
    for line in lines:
        click.echo(f"streamgauge: {line}", err=True)
