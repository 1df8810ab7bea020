"""Consumers of a report as a person asks for them: chosen by name, ranked by gravity, judged, put into tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from monitor.cli.output import UNKNOWN_TEXT, Cell, Column, Table, age_text, count_text, names_text, plural, printable
from monitor.errors import UnreachableError, UsageError
from monitor.model import HEALTHS, ClusterReport, Consumer, Failure, Health, Report, why_text

BAD = frozenset(
    {Health.LOSING_DATA, Health.LOST, Health.STALLED, Health.STOPPED, Health.BLOCKED, Health.FALLING_BEHIND}
)
"""What ends a command with exit code 1; being over the objective does so as well."""

_STYLES = {
    **dict.fromkeys(BAD, "bold red"),
    Health.REWOUND: "yellow",
    Health.CATCHING_UP: "cyan",
    Health.UNKNOWN: "yellow",
    Health.OK: "green",
}
_OVER = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A consumer of a cluster's report: where its numbers are."""

    cluster: ClusterReport
    index: int

    @property
    def consumer(self) -> Consumer:
        """Return who it is."""
        return self.cluster.positions.layout.consumers[self.index]

    @property
    def health(self) -> Health:
        """Return what it is judged to be."""
        return HEALTHS[int(self.cluster.consumers.health[self.index])]

    @property
    def is_over_objective(self) -> bool:
        """Return whether its age is surely over the objective."""
        return int(self.cluster.consumers.over_objective[self.index]) == _OVER

    @property
    def lag_records(self) -> int:
        """Return the lag, -1 where unknown."""
        return int(self.cluster.consumers.lag_records[self.index])

    @property
    def known_lag_records(self) -> int:
        """Return the lag of the partitions that are known."""
        return int(self.cluster.consumers.known_lag_records[self.index])

    @property
    def lag_seconds(self) -> float:
        """Return the age in seconds, NaN where unknown."""
        return float(self.cluster.consumers.lag_seconds[self.index])

    def gravity(self) -> tuple[object, ...]:
        """Return a sort key: gravest health first, then over the objective, oldest, most records, name.

        An age that is unknown may be any, so it stands with the oldest.
        """
        age = math.inf if math.isnan(self.lag_seconds) else self.lag_seconds
        return (
            HEALTHS.index(self.health),
            not self.is_over_objective,
            -age,
            -max(self.lag_records, self.known_lag_records),
            self.consumer.name,
            self.cluster.name,
        )


def is_bad(row: Row, *, strict: bool) -> bool:
    """Return whether a consumer is judged bad; ``strict`` takes unknown for bad."""
    return row.health in BAD or row.is_over_objective or (strict and row.health is Health.UNKNOWN)


def choose(report: Report, patterns: Sequence[str]) -> list[Row]:
    """Return the consumers that a name or pattern means, all without any, the gravest first.

    A name that is there is meant literally, also where it looks like a pattern.

    Raises:
        UsageError: A name or pattern means nobody.
        UnreachableError: It means nobody that was seen, and part of a cluster could not be read.
    """
    rows = [Row(cluster, i) for cluster in report.clusters for i in range(len(cluster.positions.layout.consumers))]
    names = {row.consumer.name for row in rows}
    wanted: set[str] = set()
    for pattern in patterns:
        found = {pattern} if pattern in names else {name for name in names if fnmatchcase(name, pattern)}
        if not found:
            raise _nobody(pattern, names, report)
        wanted |= found
    return sorted((row for row in rows if not patterns or row.consumer.name in wanted), key=Row.gravity)


def _nobody(pattern: str, names: set[str], report: Report) -> UsageError | UnreachableError:
    blind = [cluster.name for cluster in report.clusters if not cluster.up]
    shown = printable(pattern)
    if blind:
        unread = f"no consumer called {shown!r} was seen, but part of {names_text(blind)} did not answer: try again"
        return UnreachableError(unread)
    near = get_close_matches(pattern, names, n=2, cutoff=0.5)
    if near:
        advice = f"did you mean {' or '.join(repr(printable(name)) for name in near)}?"
    else:
        advice = f"there are {names_text(sorted(names))}" if names else "the cluster has no consumer"
    return UsageError(f"no consumer is called {shown!r}: {advice}")


# --- tables -------------------------------------------------------------------------------------------------


def consumer_table(rows: Sequence[Row]) -> Table:
    """Return one row a consumer. Columns that would say the same everywhere are left out."""
    shown = [
        (column, cell)
        for column, cell, is_shown in (
            (Column("CLUSTER", may_fold=True), _cluster_cell, len({row.cluster.name for row in rows}) > 1),
            (Column("KIND"), _kind_cell, any(row.consumer.kind.value != "group" for row in rows)),
            (Column("CONSUMER", may_fold=True), _name_cell, True),
            (Column("HEALTH"), _health_cell, True),
            (Column("LAG", is_number=True), _lag_cell, True),
            (Column("AGE", is_number=True), _age_cell, True),
            (Column("LOST", is_number=True), _lost_cell, any(_lost(row) > 0 for row in rows)),
            (Column("READ/S", is_number=True), _rate_cell, any(not math.isnan(_rate(row)) for row in rows)),
            (Column("MEMBERS", is_number=True), _members_cell, True),
        )
        if is_shown
    ]
    return Table(tuple(column for column, _ in shown), [[cell(row) for _, cell in shown] for row in rows])


def _cluster_cell(row: Row) -> Cell:
    return Cell(printable(row.cluster.name))


def _kind_cell(row: Row) -> Cell:
    return Cell(row.consumer.kind.value)


def _name_cell(row: Row) -> Cell:
    return Cell(printable(row.consumer.name) or '""')


def _health_cell(row: Row) -> Cell:
    if row.is_over_objective and row.health not in BAD:
        return Cell(f"{row.health.value}, late", "bold red")
    return Cell(row.health.value, _STYLES[row.health])


def _lag_cell(row: Row) -> Cell:
    if row.lag_records >= 0:
        return Cell(count_text(row.lag_records))
    is_any_known = int(row.cluster.consumers.partitions_known[row.index]) > 0
    return Cell(f"at least {count_text(row.known_lag_records)}" if is_any_known else UNKNOWN_TEXT, "yellow")


def _age_cell(row: Row) -> Cell:
    return age_cell(row.lag_seconds, float(row.cluster.consumers.lag_seconds_bound[row.index]))


def age_cell(seconds: float, bound: float) -> Cell:
    """Return an age with its bound, where that shows in the digits shown."""
    if math.isnan(seconds):
        return Cell(UNKNOWN_TEXT, "yellow")
    shown, within = age_text(seconds), age_text(bound)
    return Cell(shown if within in {"0 s", "0.0 s"} else f"{shown} ± {within}")


def _lost(row: Row) -> int:
    return int(row.cluster.consumers.lost_records[row.index])


def _lost_cell(row: Row) -> Cell:
    return Cell(count_text(_lost(row)), "bold red" if _lost(row) else "") if _lost(row) >= 0 else Cell(UNKNOWN_TEXT)


def _rate(row: Row) -> float:
    return float(row.cluster.consumers.records_per_second[row.index])


def _rate_cell(row: Row) -> Cell:
    return Cell(UNKNOWN_TEXT if math.isnan(_rate(row)) else f"{_rate(row):,.1f}")


def _members_cell(row: Row) -> Cell:
    members = int(row.cluster.consumers.members[row.index])
    return Cell(count_text(members) if members >= 0 else UNKNOWN_TEXT)


def partition_table(rows: Sequence[Row]) -> Table:
    """Return one row a partition of each consumer; the last column says why something is unknown.

    Columns that would be empty everywhere are left out: a terminal has 80 columns.
    """
    columns = (
        Column("CONSUMER", may_fold=True),
        Column("TOPIC", may_fold=True),
        Column("PART", is_number=True),
        Column("COMMITTED", is_number=True),
        Column("END", is_number=True),
        Column("LAG", is_number=True),
        Column("AGE", is_number=True),
        Column("HEALTH"),
        Column("MEMBER", may_fold=True),
        Column("WHY", may_fold=True, is_sentence=True),
    )
    cells = [row_cells for row in rows for row_cells in _partition_cells(row)]
    shown = [at for at in range(len(columns)) if any(row[at].text for row in cells)]
    return Table(tuple(columns[at] for at in shown), [[row[at] for at in shown] for row in cells])


def _partition_cells(row: Row) -> Iterable[list[Cell]]:
    report, ends = row.cluster.positions, row.cluster.partitions
    assigned = row.cluster.groups[row.index].assigned
    name = _name_cell(row)
    mine = slice(int(report.layout.starts[row.index]), int(report.layout.starts[row.index + 1]))
    where = report.layout.row[mine]
    columns = (
        report.committed[mine], ends.log_end[where], report.lag_records[mine], report.lag_seconds[mine],
        report.lag_seconds_bound[mine], report.health[mine], report.why[mine], report.why_seconds[mine],
        report.abandoned[mine],
    )  # fmt: skip
    # Whole columns to Python numbers at once: one by one takes twice as long, and there may be 100,000.
    for at, committed, end, lag, age, bound, health, why, why_age, abandoned in zip(
        where.tolist(), *(column.tolist() for column in columns), strict=True
    ):
        key = ends.layout.key(at)
        yield [
            name,
            Cell(printable(key.topic)),
            Cell(str(key.partition)),
            _count_cell(committed),
            _count_cell(end),
            _count_cell(lag),
            age_cell(age, bound),
            Cell("abandoned", "dim") if abandoned else Cell(HEALTHS[health].value, _STYLES[HEALTHS[health]]),
            Cell(printable(assigned.get(key, ""))),
            Cell(why_text(why) or why_text(why_age), "yellow"),
        ]


def _count_cell(count: int) -> Cell:
    return Cell(count_text(count)) if count >= 0 else Cell(UNKNOWN_TEXT, "yellow")


# --- lines below and beside the table ---------------------------------------------------------------------


def reasons(rows: Sequence[Row]) -> list[str]:
    """Return a line with the evidence for everything that is bad or unknown; equal ones share a line."""
    told: dict[str, list[str]] = {}
    for row in rows:
        is_unknown = row.lag_records < 0 or math.isnan(row.lag_seconds)
        if is_unknown or is_bad(row, strict=True):
            text = row.cluster.consumers.evidence[row.index]
            if row.lag_records >= 0 and is_unknown:
                text = f"{text} ({why_text(int(row.cluster.consumers.why_seconds[row.index]))})"
            told.setdefault(text, []).append(row.consumer.name)
    return [f"{names_text(names)}: {printable(text)}" for text, names in told.items()]


def abandoned_topics(rows: Sequence[Row]) -> list[str]:
    """Return a line for each consumer with topics that it no longer reads, each with the records that wait there."""
    return [
        f"{printable(row.consumer.name)}: abandoned {names_text([_abandoned_text(topic, lag) for topic, lag in left])}"
        for row in rows
        if (left := _left(row))
    ]


def _left(row: Row) -> list[tuple[str, int]]:
    if not row.cluster.consumers.abandoned[row.index]:
        return []
    pairs, names = row.cluster.consumer_topics, row.cluster.partitions.layout.topics
    mine = (pairs.consumer == row.index) & (pairs.abandoned == 1)
    return [
        (names[topic], lag)
        for topic, lag in zip(pairs.topic[mine].tolist(), pairs.lag_records[mine].tolist(), strict=True)
    ]


def _abandoned_text(topic: str, lag: int) -> str:
    return f"{topic} ({plural(lag, 'record') if lag >= 0 else UNKNOWN_TEXT})"


def findings(report: Report, rows: Sequence[Row]) -> list[str]:
    """Return a line for each finding about these consumers, or about no consumer in particular."""
    shown = {(row.cluster.name, row.consumer) for row in rows}
    return [
        f"{finding.kind}: {printable(finding.text)}"
        for cluster in report.clusters
        for finding in cluster.findings
        if finding.consumer is None or (cluster.name, finding.consumer) in shown
    ]


def failure_lines(report: Report) -> list[str]:
    """Return a line for each read that failed; many that failed alike share one, with their count."""
    alike: dict[tuple[str, str, str, str], list[Failure]] = {}
    for cluster in report.clusters:
        for failure in cluster.failures:
            alike.setdefault((cluster.name, failure.scope, failure.error, failure.detail), []).append(failure)
    return [_failure_line(cluster, failures) for (cluster, *_), failures in alike.items()]


def _failure_line(cluster: str, failures: Sequence[Failure]) -> str:
    first = failures[0]
    names = names_text([failure.name for failure in failures])
    what = f"{first.scope} {names}" if len(failures) == 1 else f"{plural(len(failures), first.scope)} ({names})"
    because = f"{first.error}: {printable(first.detail)}" if first.detail else first.error
    return f"cluster {printable(cluster)}: {what} could not be read: {because}"
