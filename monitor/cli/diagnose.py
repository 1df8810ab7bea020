"""``streamgauge diagnose``: why a consumer is late, with the numbers that show it and the setting to change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.options import Where, is_debug, output_option, settings_options

if TYPE_CHECKING:
    from monitor.cli.consumers import Row
    from monitor.cli.output import Table
    from monitor.derive.spark_diagnosis import Diagnosis
    from monitor.derive.spark_health import Case
    from monitor.model import Health, Report
    from monitor.settings import Settings

EXIT_BAD = 1

CSV_COLUMNS = ("cluster", "kind", "consumer", "health", "evidence", "diagnosis", "text", "remedy", "setting")
"""One line a diagnosis, or one without for a consumer that has none; new columns are only ever added at the end."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A consumer with what is said of it; ``case`` is None for what is no Spark query."""

    row: Row
    health: Health
    evidence: str
    diagnoses: Sequence[Diagnosis]
    case: Case | None


@click.command()
@click.argument("consumers", nargs=-1, required=True, metavar="CONSUMER...")
@settings_options
@output_option("table", "json", "csv")
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to watch how fast topics are written; 0 looks once, and rates are unknown.",
)
@click.option("--strict", is_flag=True, help="Take what is unknown for bad.")
def diagnose(consumers: tuple[str, ...], where: Where, output: str, seconds: float, strict: bool) -> int:
    """Name what makes a consumer late, with numbers and the setting to change.

    CONSUMER is a name or a pattern with * and ?. Of a Spark query it tells whether it is lost, hangs, has ended, waits
    or falls behind, the bottleneck of its batches, and its lag by what is committed, by what is planned, and as Spark
    itself reports it. Of other consumers it tells the health and the numbers behind it.

    Exit code: 0 fine; 1 one of them is judged bad or over its objective; 2 wrong usage or settings; 3 nothing could be
    reached.
    """
    from monitor.cli.consumers import choose, failure_lines
    from monitor.cli.logs import log_for_results
    from monitor.cli.output import complain_each
    from monitor.cli.settings_file import find_settings

    settings = find_settings(where).settings
    log_for_results(debug=is_debug())
    report = asyncio.run(watch(settings, seconds))
    judged = [judge_row(row) for row in choose(report, consumers)]
    printers = {"table": print_text, "json": print_json, "csv": print_csv}
    printers[output](judged)
    complain_each(failure_lines(report))
    return EXIT_BAD if any(is_bad(each, strict=strict) for each in judged) else 0


async def watch(settings: Settings, seconds: float) -> Report:
    """Run two cycles of every cluster, so many seconds apart (one for 0), and close the connections.

    Raises:
        UnreachableError: Nothing could be reached.
    """
    from monitor.cli.consumers import failure_lines
    from monitor.errors import UnreachableError
    from monitor.service import ONE_SHOT, Monitor

    monitor = Monitor(settings, budget=ONE_SHOT)
    try:
        await monitor.check()
        report = await monitor.cycle()
        if seconds:
            await asyncio.sleep(seconds)
            report = await monitor.cycle()
    finally:
        await monitor.close()
    if not any(cluster.up or len(cluster.partitions.layout) for cluster in report.clusters):
        raise UnreachableError("; ".join(failure_lines(report)))
    return report


def judge_row(row: Row) -> Judged:
    """Return what is said of a consumer: the graver of what its positions and its batches tell."""
    from monitor.derive.spark_diagnosis import diagnose as diagnose_case
    from monitor.derive.spark_health import case_of, judge
    from monitor.model import HEALTHS

    evidence = row.cluster.consumers.evidence[row.index]
    if row.index not in row.cluster.spark:
        return Judged(row, row.health, evidence, (), None)
    case = case_of(row.cluster, row.index)
    verdict = judge(case)
    health = row.health
    if verdict is not None and HEALTHS.index(verdict.health) <= HEALTHS.index(health):
        health, evidence = verdict.health, verdict.evidence
    return Judged(row, health, evidence, diagnose_case(case), case)


def is_bad(judged: Judged, *, strict: bool) -> bool:
    """Return whether a consumer is judged bad; ``strict`` takes unknown for bad."""
    from monitor.cli.consumers import BAD
    from monitor.cli.consumers import is_bad as is_row_bad

    return judged.health in BAD or is_row_bad(judged.row, strict=strict)


# --- for a person -------------------------------------------------------------------------------------------


def print_text(judged: Sequence[Judged]) -> None:
    """Print a paragraph a consumer, and the partitions of Spark queries."""
    from monitor.cli.output import show

    for number, each in enumerate(judged):
        if number:
            click.echo()
        click.echo("\n".join(paragraph(each)))
        if each.case is not None and each.case.partitions:
            click.echo()
            show(partition_table(each.case))


def paragraph(judged: Judged) -> list[str]:
    """Return the lines about a consumer: its health, what is wrong, and what to do."""
    from monitor.cli.output import printable

    consumer = judged.row.consumer
    lines = [
        f"{printable(consumer.name)} ({consumer.kind.value}): {judged.health.value}",
        f"  {printable(judged.evidence)}",
    ]
    if judged.case is None:
        return lines
    lines.append(f"  {printable(pace(judged.case))}")
    for each in judged.diagnoses:
        lines += [f"  {each.kind}: {printable(each.text)}", f"    do: {printable(each.remedy)}"]
    if not judged.diagnoses:
        lines.append("  nothing holds it up")
    return lines


_MODES = {
    "micro_batch": "micro-batches",
    "async_progress": "micro-batches with asynchronous progress",
    "continuous": "continuous",
    "real_time": "real-time mode",
}


def pace(case: Case) -> str:
    """Say how its batches go: how long they take, of what interval, and what is read and written."""
    from statistics import median

    from monitor.derive.spark_health import age

    query, facts, durations = case.query, case.facts, case.durations
    words = [_MODES[query.mode.value]]
    if durations:
        words.append(f"usually {age(round(median(durations), 2))} long")
    if facts.trigger_interval_seconds is not None:
        how = " (inferred)" if facts.trigger_inferred else ""
        share = f", {case.utilisation:.0%} of it" if case.utilisation is not None else ""
        words.append(f"every {age(facts.trigger_interval_seconds)}{how}{share}")
    if facts.inflight_batch_age_seconds is not None:
        words.append(f"batch {query.inflight_batch_id} in flight for {age(facts.inflight_batch_age_seconds)}")
    for rate, done in ((facts.input_rows_per_second, "read"), (case.written_per_second, "written")):
        words.append(f"{'?' if rate is None else f'{rate:,.1f}'} records/s {done}")
    words.append(f"seen by {' and '.join(query.seen_by)}")
    return ", ".join(words)


def partition_table(case: Case) -> Table:
    """Return a row a partition: its lag behind the broker's end by commit and by plan, and as Spark reports it."""
    from monitor.cli.consumers import age_cell
    from monitor.cli.output import UNKNOWN_TEXT, Cell, Column, Table, count_text, printable

    def count(value: int | None, none: str = UNKNOWN_TEXT) -> Cell:
        return Cell(none if value is None else count_text(value))

    headings = ("TOPIC", "PART", "END", "COMMITTED", "LAG", "AGE", "PLANNED", "PLANNED LAG", "SPARK SAYS")
    columns = tuple(Column(heading, is_number=heading != "TOPIC") for heading in headings)
    nan = float("nan")
    rows = [
        [
            Cell(printable(each.key.topic)),
            Cell(str(each.key.partition)),
            count(each.log_end),
            count(each.committed),
            count(each.lag),
            age_cell(nan if each.lag_seconds is None else each.lag_seconds, each.lag_seconds_bound or 0.0),
            count(each.planned, "-"),
            count(each.planned_lag, "-"),
            count(each.reported_lag, "-"),
        ]
        for each in case.partitions
    ]
    return Table(columns, rows)


# --- for a program ------------------------------------------------------------------------------------------


def print_json(judged: Sequence[Judged]) -> None:
    """Print everything as JSON; unknown is null."""
    from monitor.publish.report_json import dump

    sys.stdout.write(f"{dump({'consumers': [as_json(each) for each in judged]})}\n")


def as_json(judged: Judged) -> dict[str, Any]:
    """Return what is said of a consumer as JSON."""
    row, case = judged.row, judged.case
    data: dict[str, Any] = {
        "cluster": row.cluster.name,
        "kind": row.consumer.kind.value,
        "name": row.consumer.name,
        "health": judged.health.value,
        "evidence": judged.evidence,
        "lag_records": None if row.lag_records < 0 else row.lag_records,
        "lag_seconds": None if row.lag_seconds != row.lag_seconds else row.lag_seconds,
        "diagnoses": [each._asdict() for each in judged.diagnoses],
    }
    if case is not None:
        query = case.query
        data["spark"] = {
            "query_id": query.query_id,
            "mode": query.mode.value,
            "batch_id": query.batch_id,
            "usual_batch_seconds": case.usual_seconds,
            "trigger_interval_seconds": case.facts.trigger_interval_seconds,
            "trigger_interval_inferred": case.facts.trigger_inferred,
            "utilisation": case.utilisation,
            "inflight_batch_age_seconds": case.facts.inflight_batch_age_seconds,
            "records_read_per_second": case.facts.input_rows_per_second,
            "records_written_per_second": case.written_per_second,
            "restarts": query.restarts,
            "seen_by": list(query.seen_by),
        }
        data["partitions"] = [
            {
                "topic": each.key.topic,
                "partition": each.key.partition,
                "log_end": each.log_end,
                "committed": each.committed,
                "planned": each.planned,
                "lag_records": each.lag,
                "planned_lag_records": each.planned_lag,
                "reported_lag_records": each.reported_lag,
                "lag_seconds": each.lag_seconds,
                "lag_seconds_bound": each.lag_seconds_bound,
            }
            for each in case.partitions
        ]
    return data


def print_csv(judged: Sequence[Judged]) -> None:
    """Print a line a diagnosis as CSV."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for each in judged:
        consumer = each.row.consumer
        head = (each.row.cluster.name, consumer.kind.value, consumer.name, each.health.value, each.evidence)
        found = [(one.kind, one.text, one.remedy, one.setting or "") for one in each.diagnoses] or [("", "", "", "")]
        writer.writerows((*head, *one) for one in found)
    sys.stdout.write(buffer.getvalue())
