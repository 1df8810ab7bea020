"""``streamgauge lag``: one cycle, judged."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.options import Where, is_debug, output_option, settings_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from monitor.cli.consumers import Row
    from monitor.model import Report
    from monitor.settings import Settings

EXIT_BAD = 1


@click.command()
@click.argument("consumers", nargs=-1, metavar="[CONSUMER]...")
@settings_options
@output_option("table", "json", "csv")
@click.option("--partitions", is_flag=True, help="Show every partition of each consumer (json and csv always do).")
@click.option("--strict", is_flag=True, help="Take what is unknown for bad.")
def lag(consumers: tuple[str, ...], where: Where, output: str, partitions: bool, strict: bool) -> int:
    """Ask once how late every consumer is, and judge it.

    CONSUMER is a name or a pattern with * and ?; without any, all are shown, the gravest first. A ? in the table is
    unknown: the reason stands below. What could not be read goes to stderr.

    Exit code: 0 fine; 1 a consumer shown is losing_data, lost, stalled, stopped, blocked, falling_behind or over its
    objective; 2 wrong usage or settings; 3 nothing could be reached.
    """
    from monitor.cli.consumers import choose, failure_lines, is_bad
    from monitor.cli.logs import log_for_results
    from monitor.cli.output import complain_each
    from monitor.cli.settings_file import find_settings

    settings = find_settings(where).settings
    log_for_results(debug=is_debug())
    report = asyncio.run(one_cycle(settings))
    rows = choose(report, consumers)
    if output == "table":
        print_tables(report, rows, partitions=partitions)
    else:
        print_data(report, rows, output)
    complain_each(failure_lines(report))
    is_blind = strict and not all(cluster.up for cluster in report.clusters)
    return EXIT_BAD if is_blind or any(is_bad(row, strict=strict) for row in rows) else 0


async def one_cycle(settings: Settings) -> Report:
    """Run one cycle of every cluster and close the connections.

    Raises:
        UnreachableError: Nothing could be reached.
    """
    from monitor.errors import UnreachableError
    from monitor.service import ONE_SHOT, Monitor

    monitor = Monitor(settings, budget=ONE_SHOT)
    try:
        await monitor.check()
        report = await monitor.cycle()
    finally:
        await monitor.close()
    if not any(cluster.up or len(cluster.partitions.layout) for cluster in report.clusters):
        from monitor.cli.consumers import failure_lines

        raise UnreachableError("; ".join(failure_lines(report)))
    return report


# --- for a person -------------------------------------------------------------------------------------------


def print_tables(report: Report, rows: Sequence[Row], *, partitions: bool) -> None:
    """Print the consumers, their partitions if wanted, and a line for what is bad, unknown or found."""
    from monitor.cli import consumers
    from monitor.cli.output import show

    if not rows:
        click.echo("no consumers")
        return
    show(consumers.consumer_table(rows))
    if partitions:
        click.echo()
        show(consumers.partition_table(rows))
    notes = [*consumers.reasons(rows), *consumers.abandoned_topics(rows), *consumers.findings(report, rows)]
    if notes:
        click.echo("\n" + "\n".join(notes))


# --- for a program ------------------------------------------------------------------------------------------

CSV_COLUMNS = (
    "cluster", "kind", "consumer", "topic", "partition", "health", "log_start", "log_end", "last_stable", "committed",
    "lag_records", "lost_records", "lag_seconds", "lag_seconds_bound", "basis", "assumed", "member", "unknown",
    "abandoned", "member_id", "host",
)  # fmt: skip
"""One line a partition; new columns are only ever added at the end."""


def print_data(report: Report, rows: Sequence[Row], output: str) -> None:
    """Print the report, narrowed to these consumers, as JSON or CSV."""
    from monitor.publish.report_json import dump, report_json

    data = narrow(report_json(report), {(row.cluster.name, *row.consumer) for row in rows})
    # Not click.echo: it would take what looks like colour out of names.
    sys.stdout.write(f"{dump(data)}\n" if output == "json" else csv_text(data))


def narrow(data: dict[str, Any], shown: set[tuple[str, str, str]]) -> dict[str, Any]:
    """Return a report's JSON with only these consumers, as (cluster, kind, name), and the topics they read."""
    return {**data, "clusters": [_narrow_cluster(cluster, shown) for cluster in data["clusters"]]}


def _narrow_cluster(cluster: dict[str, Any], shown: set[tuple[str, str, str]]) -> dict[str, Any]:
    kept = [each for each in cluster["consumers"] if (cluster["name"], each["kind"], each["name"]) in shown]
    if len(kept) == len(cluster["consumers"]):
        return cluster
    topics = {partition["topic"] for each in kept for partition in each["partitions"]}
    return {**cluster, "consumers": kept, "topics": [each for each in cluster["topics"] if each["name"] in topics]}


def csv_text(data: dict[str, Any]) -> str:
    """Return a report's JSON as CSV with a header: unknown is empty, and its reason is in the last column."""
    import csv
    import io

    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(data))
    return buffer.getvalue()


def _csv_rows(data: dict[str, Any]) -> Iterator[dict[str, object]]:
    for cluster in data["clusters"]:
        for consumer in cluster["consumers"]:
            key = {"cluster": cluster["name"], "kind": consumer["kind"], "consumer": consumer["name"]}
            # A consumer without a partition still has a line: it must not vanish from a list.
            for part in consumer["partitions"] or [consumer]:
                words = {name: _word(part[name]) for name in ("assumed", "abandoned") if name in part}
                yield {**part, **(part.get("owner") or {}), **key, **words, "unknown": _reasons(part["unknown"])}


def _word(value: bool) -> str:
    return "true" if value else "false"


def _reasons(unknown: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in unknown.items())
