"""Faust apps from within, by what their workers report: who is there, what they are busy with, what holds them up.

All apps at once or those chosen; each leads to its board as a consumer, which says how late it is and where.
"""

from __future__ import annotations

from alerts.promql import CONSUMER, by, matches, on
from alerts.words import FAUST_ERRORS, FAUST_EVENTS, FAUST_RECOVERING, FAUST_REMAINING, FAUST_UP, LAG_SECONDS
from dashboards import frame
from dashboards.board import Board, Row
from dashboards.panels import (
    DASHED,
    GAUGE_OF_OBJECTIVE,
    GOOD_IS_ZERO,
    OF_OBJECTIVE,
    RATIO,
    RED_ABOVE_ZERO,
    Column,
    Override,
    Query,
    Step,
    lines,
    mappings,
    stat,
    table,
    thresholds,
    unit_of,
)
from dashboards.queries import NO_WATCHDOG, WORST, Chosen, alerts

REPORTED_AT = "streamgauge_faust_report_timestamp_seconds"
STARTED_AT = "streamgauge_faust_start_timestamp_seconds"
DURATIONS = "streamgauge_faust_event_duration_seconds"
BUFFERED = "streamgauge_faust_buffered_records"
BUFFER_SIZE = "streamgauge_faust_buffer_size_records"
BUFFER_FULL = "streamgauge_faust_buffer_full_total"
COMMITS = "streamgauge_faust_commits_total"
UNCOMMITTED = "streamgauge_faust_uncommitted_seconds"
WORKER_REBALANCES = "streamgauge_faust_rebalances_total"
WORKER_REBALANCING = "streamgauge_faust_rebalancing_seconds_total"
ASSIGNED = "streamgauge_faust_assigned_partitions"
ENTRIES = "streamgauge_faust_table_entries"

CHOSEN = Chosen(many=("cluster", "consumer"))

WORKER = (*CONSUMER, "worker")
AGENT = (*CONSUMER, "agent", "topic")
TABLE = (*WORKER, "table")

_apps = by("max", CONSUMER, CHOSEN(FAUST_UP))
_of_objective = f"{by('max', CONSUMER, CHOSEN.of_objective)}\nand {on(CONSUMER)}\n{_apps}"
_failing = f"sum(increase({CHOSEN(FAUST_ERRORS)}[10m]))\n/ (sum(increase({CHOSEN(FAUST_EVENTS)}[10m])) > 0)"
_full = f"{CHOSEN(BUFFERED)} / ({CHOSEN(BUFFER_SIZE)} > 0)"


def _by_worker(name: str) -> str:
    return by("max", WORKER, CHOSEN(name))


NOW = Row(
    "Do the apps keep up?",
    (
        stat(
            "Worst age of objective",
            "The share of its objective that the latest app has used up: above 100 % it is late. By its committed "
            "offsets, not by what its workers say.",
            Query(f"max(\n{_of_objective}\n)"),
            unit=RATIO,
            width=4,
            steps=OF_OBJECTIVE,
            decimals=0,
        ),
        stat(
            "Workers that report",
            "Workers that report as they should. One that was stopped is not missed; one that fell silent is.",
            Query(f"sum(\n{_by_worker(FAUST_UP)}\n)"),
            unit="short",
            width=3,
        ),
        stat(
            "Workers silent",
            "Workers that should have reported again and did not: dead, cut off, or so busy that nothing else runs.",
            Query(f"count(\n{_by_worker(FAUST_UP)} == 0\n)\nor on ()\n0 * count({CHOSEN(FAUST_UP)})"),
            unit="short",
            width=3,
            steps=GOOD_IS_ZERO,
        ),
        stat(
            "Recovering",
            "Workers that read their tables back from their changelogs: they process nothing meanwhile.",
            Query(f"sum(\n{_by_worker(FAUST_RECOVERING)}\n)"),
            unit="short",
            width=3,
            steps=(Step(None, "green"), Step(1, "yellow")),
        ),
        stat(
            "Records failed",
            "The share of the records of the last ten minutes that an agent raised on, set aside, or that could not be "
            "decoded.",
            Query(_failing),
            unit=RATIO,
            width=3,
            steps=(Step(None, "green"), Step(0.001, "yellow"), Step(0.05, "red")),
            decimals=1,
        ),
        stat(
            "Fullest buffer",
            "How full the fullest buffer before an agent is. At 100 % its partitions are paused: the agent is what "
            "holds the app up.",
            Query(f"max({_full})"),
            unit=RATIO,
            width=4,
            steps=(Step(None, "green"), Step(0.8, "yellow"), Step(1, "red")),
            decimals=0,
        ),
        stat(
            "Longest uncommitted",
            "How long the oldest processed record has waited for a commit of its partition: all since then is "
            "processed again after a crash.",
            Query(f"max({CHOSEN(UNCOMMITTED)})"),
            unit=unit_of(UNCOMMITTED),
            width=4,
        ),
    ),
)

APPS = Row(
    "Apps and their workers",
    (
        table(
            "Workers",
            "Every worker that reports or should. A question mark is a value that is not known right now: a silent "
            "worker says nothing of the moment. An app's name leads to its board as a consumer.",
            Column(
                "Reports",
                _by_worker(FAUST_UP),
                shown={
                    "mappings": mappings({"0": "silent", "1": "yes"}),
                    "thresholds": thresholds((Step(None, "red"), Step(1, "green"))),
                    "custom.cellOptions": {"type": "color-text"},
                },
            ),
            Column(
                "Age of objective",
                by(
                    "max",
                    WORKER,
                    f"0 * {CHOSEN(FAUST_UP)} + {on(CONSUMER)} group_left () {by('max', CONSUMER, CHOSEN.of_objective)}",
                ),
                RATIO,
                0,
                shown=GAUGE_OF_OBJECTIVE,
            ),
            Column("Partitions", _by_worker(ASSIGNED), unit_of(ASSIGNED)),
            Column("Processed, records/s", by("sum", WORKER, CHOSEN.rate(FAUST_EVENTS)), unit_of(FAUST_EVENTS), 1),
            Column(
                "Failed, records/s",
                by("sum", WORKER, CHOSEN.rate(FAUST_ERRORS)),
                unit_of(FAUST_ERRORS),
                2,
                shown=RED_ABOVE_ZERO,
            ),
            Column("Waiting, records", by("sum", WORKER, CHOSEN(BUFFERED)), unit_of(BUFFERED)),
            Column("Uncommitted", _by_worker(UNCOMMITTED), unit_of(UNCOMMITTED)),
            Column("Up for", f"time() - {_by_worker(STARTED_AT)}", unit_of(STARTED_AT)),
            Column("Last report", f"time() - {_by_worker(REPORTED_AT)}", unit_of(REPORTED_AT)),
            keys={"cluster": "Cluster", "kind": "Kind", "consumer": "Consumer", "worker": "Worker"},
            sort_by="Age of objective",
            height=8,
            links={"Consumer": frame.row_to_consumer()},
        ),
        lines(
            "Age of objective over time",
            "How much of its objective each app has used up: one scale for all of them.",
            Query(_of_objective, "{{consumer}}"),
            unit=RATIO,
            steps=OF_OBJECTIVE,
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Age",
            "Age of the oldest record that an app has still to read. A gap: not known at that time.",
            Query(f"{CHOSEN.by_consumer(LAG_SECONDS)}\nand {on(CONSUMER)}\n{_apps}", "{{consumer}}"),
            unit=unit_of(LAG_SECONDS),
            links=(frame.TO_CONSUMER,),
        ),
    ),
)

AGENTS = Row(
    "Agents",
    (
        lines(
            "Processed",
            f"Records that agents were done with a second, those that failed included, the {WORST} busiest.",
            Query(CHOSEN.busiest(FAUST_EVENTS, AGENT), "{{consumer}} {{agent}}"),
            unit=unit_of(FAUST_EVENTS),
            axis="records/s",
            links=(frame.TO_TOPIC,),
        ),
        lines(
            "Time for a record",
            "Half of the records took an agent less than the one line, 95 of 100 less than the other. Read off a "
            "histogram: between two of its bounds the line is a guess.",
            Query(CHOSEN.quantile(0.5, DURATIONS, (*CONSUMER, "agent")), "{{consumer}} {{agent}} half"),
            Query(CHOSEN.quantile(0.95, DURATIONS, (*CONSUMER, "agent")), "{{consumer}} {{agent}} 95 %"),
            unit=unit_of(DURATIONS),
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Failed",
            f"Records a second that an agent raised on or set aside, or that could not be decoded for it, the {WORST} "
            "most.",
            Query(CHOSEN.busiest(FAUST_ERRORS, AGENT), "{{consumer}} {{agent}}"),
            unit=unit_of(FAUST_ERRORS),
            axis="records/s",
            links=(frame.TO_TOPIC,),
        ),
        lines(
            "Waiting for an agent",
            "Records that wait in a worker for an agent, and how many may (dashed): at that line its partitions are "
            "paused, because the agent does not keep up.",
            Query(CHOSEN.worst(BUFFERED, (*WORKER, "agent", "topic")), "{{agent}} {{worker}}"),
            Query(by("max", (*CONSUMER, "topic"), CHOSEN(BUFFER_SIZE)), "{{consumer}} {{topic}} at most"),
            unit=unit_of(BUFFERED),
            axis="records",
            overrides=(Override("byRegexp", "/ at most$/", DASHED),),
            links=(frame.TO_TOPIC,),
        ),
    ),
)

WORKERS = Row(
    "Workers",
    (
        lines(
            "Commits",
            f"Commits a second that went through, the {WORST} busiest workers. 0 while records are processed: nothing "
            "of it is kept.",
            Query(CHOSEN.busiest(COMMITS, WORKER), "{{worker}}"),
            unit=unit_of(COMMITS),
            axis="commits/s",
            width=8,
        ),
        lines(
            "Oldest uncommitted record",
            f"How long the oldest processed record has waited for a commit of its partition, the {WORST} longest.",
            Query(CHOSEN.worst(UNCOMMITTED, WORKER), "{{worker}}"),
            unit=unit_of(UNCOMMITTED),
            width=8,
        ),
        lines(
            "Partitions",
            "Partitions that each worker has, those of its own internal topics included. Far apart: some have more to "
            "do.",
            Query(CHOSEN.worst(ASSIGNED, WORKER), "{{worker}}"),
            unit=unit_of(ASSIGNED),
            width=8,
        ),
        lines(
            "Rebalances",
            "Rebalances in the ten minutes before, and the share of that time for which they kept workers from their "
            "records, recovery included.",
            Query(by("max", CONSUMER, f"increase({CHOSEN(WORKER_REBALANCES)}[10m])"), "{{consumer}}"),
            Query(
                by("max", CONSUMER, f"increase({CHOSEN(WORKER_REBALANCING)}[10m])") + " / 600",
                "{{consumer}} share of the time",
            ),
            unit="short",
            width=8,
            overrides=(
                Override("byRegexp", "/ share of the time$/", {"unit": RATIO, "custom.axisPlacement": "right"}),
            ),
            links=(frame.TO_CONSUMER,),
        ),
        lines(
            "Partitions paused",
            "How often a second a partition was paused because an agent did not keep up.",
            Query(CHOSEN.busiest(BUFFER_FULL, WORKER), "{{worker}}"),
            unit=unit_of(BUFFER_FULL),
            axis="pauses/s",
            width=8,
        ),
        lines(
            "Recovery and tables",
            "Records of changelogs that a worker has still to read before its tables are back, and the entries of each "
            "table in each worker (on the right).",
            Query(CHOSEN.worst(FAUST_REMAINING, WORKER), "{{worker}} to recover"),
            Query(CHOSEN.worst(ENTRIES, TABLE), "{{worker}} {{table}} entries"),
            unit="short",
            width=8,
            overrides=(Override("byRegexp", "/ entries$/", {"custom.axisPlacement": "right"}),),
        ),
    ),
)

_its_alerts = alerts(NO_WATCHDOG, *CHOSEN.matchers)

FAUST_BOARD = Board(
    frame.FAUST,
    "Streaming Faust apps",
    "Faust apps from within: do they keep up, and if not, is it an agent, a rebalance, a recovery or a worker?",
    (
        frame.choices("cluster", "Cluster", FAUST_UP),
        frame.choices("consumer", "App", FAUST_UP, matches("cluster", "$cluster")),
    ),
    (
        frame.beginning(_its_alerts, among=f"{on(CONSUMER)}\n{_apps}"),
        frame.restarted_workers(CHOSEN, STARTED_AT),
    ),
    (NOW, APPS, AGENTS, WORKERS),
)
