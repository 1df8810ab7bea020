"""The monitor's own health: how far the other boards can be trusted, and what the monitor costs.

First whether it sees everything and in time; then what it asks of the brokers and what of that fails; then its answers
to Prometheus and its process.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, SOURCE, by, equals, matches, series
from alerts.words import (
    CLUSTER_UP,
    DROPPED_SERIES,
    FAILURES,
    FINDINGS,
    INTERVAL_SECONDS,
    LAST_SUCCESS,
    LOOK_SECONDS,
    OBJECTIVE_SECONDS,
    PARTITIONS,
)
from dashboards import frame
from dashboards.board import Board, Row, Variable
from dashboards.panels import (
    DASHED,
    GOOD_IS_ZERO,
    RATIO,
    Link,
    Override,
    Panel,
    Query,
    Step,
    lines,
    stat,
    timeline,
    unit_of,
)
from dashboards.queries import EXPOSED_SERIES, NO_WATCHDOG, REQUESTS, Chosen, alerts

CHOSEN = Chosen(many=("cluster",))

OF_INTERVAL = (Step(None, "green"), Step(0.5, "yellow"), Step(1, "red"))
"""The share of its interval that a look takes: above 1 looks start late."""

_IN_JOB = matches("job", "$job")
_of_interval = by("max", SOURCE, f"{CHOSEN(LOOK_SECONDS)} / {CHOSEN(INTERVAL_SECONDS)}")
_about_monitoring = alerts(NO_WATCHDOG, equals("consumer", ""), matches("cluster", "|$cluster"))


def _of_job(name: str) -> str:
    """Return the selector of a series of the scrape or of the process, which no catalogue has."""
    return f"{name}{{{_IN_JOB}}}"


def since_the_last_complete_look(chosen: Chosen, *links: Link) -> Panel:
    """Return the chart of how old what is known may be."""
    return lines(
        "Since the last complete look",
        "Time since everybody who had to be asked answered, when Prometheus asked the monitor. Numbers cannot be "
        "younger than that.",
        Query(chosen.since(LAST_SUCCESS, SOURCE), "{{cluster}} {{source}}"),
        unit=unit_of(LAST_SUCCESS),
        links=links,
    )


NOW = Row(
    "Does it see everything, and in time?",
    (
        stat(
            "Sources",
            "Whether the last look at each source of a cluster was complete. Incomplete: somebody who had to be "
            "asked is away, and what could not be read is unknown.",
            Query(by("max", SOURCE, CHOSEN(CLUSTER_UP)), "{{cluster}} {{source}}"),
            unit=unit_of(CLUSTER_UP),
            width=6,
            steps=(Step(None, "red"), Step(1, "green")),
            texts={"1": "complete", "0": "incomplete"},
            named=True,
        ),
        stat(
            "Since a complete look",
            "How many of its intervals ago a source was looked at completely when Prometheus asked the monitor, the "
            "longest: up to 1 is usual.",
            Query(f"max(\n{CHOSEN.since(LAST_SUCCESS, SOURCE)}\n/ {by('max', SOURCE, CHOSEN(INTERVAL_SECONDS))}\n)"),
            unit="none",
            width=3,
            steps=(Step(None, "green"), Step(2, "yellow"), Step(6, "red")),
            decimals=1,
        ),
        stat(
            "Longest look of interval",
            "How long the last look took against the interval of its source, the longest: above 100 % looks start "
            "late.",
            Query(f"max({_of_interval})"),
            unit=RATIO,
            width=3,
            steps=OF_INTERVAL,
            decimals=0,
        ),
        stat(
            "Reads failed",
            "Reads that failed in the last ten minutes. What failed is unknown, never zero.",
            Query(f"sum(increase({CHOSEN(FAILURES)}[10m]))"),
            unit=unit_of(FAILURES),
            width=3,
            steps=(Step(None, "green"), Step(1, "yellow")),
            decimals=0,
        ),
        stat(
            "Partitions unknown",
            "The share of all consumers' partitions whose lag could not be told.",
            Query(
                f"sum({CHOSEN(PARTITIONS, equals('status', 'unknown'))})\n/ (sum({CHOSEN(PARTITIONS)}) > 0)",
            ),
            unit=RATIO,
            width=3,
            steps=(Step(None, "green"), Step(0.001, "purple")),
            decimals=1,
        ),
        stat(
            "Series left out",
            "Series that the monitor has and does not expose because there are more than the settings allow: boards "
            "and alerts by partition or topic are incomplete.",
            Query(f"max({_of_job(series(DROPPED_SERIES))})"),
            unit=unit_of(DROPPED_SERIES),
            width=3,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Alerts about monitoring",
            "Alerts that fire about clusters, sources and the monitor itself. Unknown where Prometheus does not "
            "evaluate streamgauge's rules.",
            Query(f"count({_about_monitoring})\nor 0 * count({alerts()})"),
            unit="short",
            width=3,
            steps=GOOD_IS_ZERO,
        ),
    ),
)

LOOKS = Row(
    "Looking",
    (
        lines(
            "Duration of a look and its interval",
            "How long the last look at each source took, and how often it is looked at (dashed). Above the dashed "
            "line looks start late.",
            Query(by("max", SOURCE, CHOSEN(LOOK_SECONDS)), "{{cluster}} {{source}}"),
            Query(by("max", SOURCE, CHOSEN(INTERVAL_SECONDS)), "{{cluster}} {{source}} interval"),
            unit=unit_of(LOOK_SECONDS),
            overrides=(Override("byRegexp", "/ interval$/", DASHED),),
        ),
        since_the_last_complete_look(CHOSEN),
        lines(
            "Failed reads",
            "Reads that failed a second, by what they were about: a group, a topic, a broker, a checkpoint.",
            Query(by("sum", (*SOURCE, "scope"), CHOSEN.rate(FAILURES)), "{{cluster}} {{source}} {{scope}}"),
            unit=unit_of(FAILURES),
            axis="failures/s",
        ),
        lines(
            "Requests",
            "Requests sent a second, by API: what the monitor costs those that it asks. They grow with the brokers, "
            "not with groups or partitions.",
            Query(by("sum", (*SOURCE, "api"), CHOSEN.rate(REQUESTS)), "{{cluster}} {{source}} {{api}}"),
            unit=unit_of(REQUESTS),
            axis="requests/s",
        ),
        lines(
            "Partitions by knowledge",
            "Partitions of all consumers whose lag is known, and those whose lag is not.",
            Query(by("sum", ("status",), CHOSEN(PARTITIONS)), "{{status}}"),
            unit=unit_of(PARTITIONS),
            stacked=True,
        ),
        lines(
            "Consumers and findings",
            "How many consumers the monitor knows, and what it found odd about the clusters' data.",
            Query(f"count({by('max', CONSUMER, CHOSEN(OBJECTIVE_SECONDS))})", "consumers"),
            Query(by("sum", ("finding",), CHOSEN(FINDINGS)), "{{finding}}"),
            unit="short",
        ),
        timeline(
            "Alerts about monitoring over time",
            "Which alerts about clusters, sources and the monitor itself fired when, by Prometheus' own rules. Empty "
            "where nothing fired, or where Prometheus does not evaluate streamgauge's rules.",
            Query(by("max", ("alertname", *SOURCE), _about_monitoring), "{{alertname}} {{cluster}} {{source}}"),
            width=24,
            height=4,
        ),
    ),
)

ANSWERS = Row(
    "Answers to Prometheus",
    (
        lines(
            "Scrapes",
            "Whether the last scrape of each monitor worked (1) and how long it took.",
            Query(_of_job("up"), "{{instance}} up"),
            Query(_of_job("scrape_duration_seconds"), "{{instance}} duration"),
            unit="none",
            width=8,
            overrides=(Override("byRegexp", "/ duration$/", {"unit": "s", "custom.axisPlacement": "right"}),),
        ),
        lines(
            "Series",
            "Series in an answer of /metrics, those left out because there are more than the settings allow, and the "
            "samples that Prometheus took.",
            Query(f"max({_of_job(series(EXPOSED_SERIES))})", "exposed"),
            Query(f"max({_of_job(series(DROPPED_SERIES))})", "left out"),
            Query(f"max({_of_job('scrape_samples_scraped')})", "scraped"),
            unit=unit_of(EXPOSED_SERIES),
            width=8,
        ),
        lines(
            "Processor",
            "Processor seconds that the monitor uses a second: 1 is a whole core.",
            Query(f"rate({_of_job('process_cpu_seconds_total')}[$__rate_interval])", "{{instance}}"),
            unit=RATIO,
            width=8,
            axis="of a core",
        ),
        lines(
            "Memory",
            "Resident memory of the monitor. It follows the number of partitions and series, and should stand still "
            "while those do.",
            Query(_of_job("process_resident_memory_bytes"), "{{instance}}"),
            unit="bytes",
            width=8,
        ),
        lines(
            "Files and sockets",
            "Open files and sockets of the monitor: a few for each broker. A line that only rises is a leak.",
            Query(_of_job("process_open_fds"), "{{instance}}"),
            unit="short",
            width=8,
        ),
        lines(
            "Up for",
            "How long the monitor's process has been running. A step down is a restart: counters begin anew, and ages "
            "are known again after the first look.",
            Query(f"time() - {_of_job('process_start_time_seconds')}", "{{instance}}"),
            unit="s",
            width=8,
        ),
    ),
)

MONITOR_BOARD = Board(
    frame.MONITOR,
    "Streaming monitor",
    "The monitor's own health: does it see everything in time, what fails, and what does it cost?",
    (
        Variable("job", "Job", f"label_values({series(EXPOSED_SERIES)}, job)"),
        frame.choices("cluster", "Cluster", CLUSTER_UP),
    ),
    (frame.beginning(_about_monitoring), frame.RESTARTS),
    (NOW, LOOKS, ANSWERS),
)
