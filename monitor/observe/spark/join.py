"""One query from all that was seen of it: its checkpoint, what its listener told, what its driver shows.

Pure. Sources are joined by query id, which all of them know. Of each value the source that knows it best counts, and
``via`` says which that was:

- *Positions* are the checkpoint's: it is what the query goes on from. Those of the listener count where it told of a
  later batch that ended after the newest commit that we see, as with asynchronous progress tracking, and where no
  checkpoint is read.
- *Batches* are the checkpoint's with what only the job knows put in: how long they really took, phases, rows out.
- A *batch in flight* is the checkpoint's; a driver's where that has none.
- How it *ended* counts until the checkpoint shows that it runs again, without a listener.

Where sources contradict each other it is a finding: batches that the checkpoint has and the listener never told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from monitor.model import Consumer, Finding, Kind, SparkBatch, SparkMode, SparkQuery
from monitor.observe.spark.driver import DriverLook, DriverQuery, is_later
from monitor.observe.spark.listener import Instance, Told, ToldQuery, trigger_of

CHECKPOINT, LISTENER, DRIVER, SETTINGS = "checkpoint", "listener", "driver", "settings"

EVENTS_MISSING = "spark_events_missing"
EVENTS_DROPPED = "spark_events_dropped"

AGAIN_SECONDS = 5.0
"""How long after the end of a run its last files may still appear; later ones are of another run."""

RECENT_SECONDS = 3600.0
"""How long a loss of events is told."""


def join(
    queries: Sequence[SparkQuery], told: Told, now: float, drivers: DriverLook | None = None
) -> tuple[list[SparkQuery], list[Finding]]:
    """Return every query once, under a name of its own, and where sources contradict each other.

    ``queries`` are those of checkpoints, under the names that the settings give.
    """
    best = {query.query_id: query for query in sorted(queries, key=lambda each: each.batch_id or -1)}
    found: list[SparkQuery] = []
    findings: list[Finding] = []
    for query in queries:
        words = told.queries.get(query.query_id)
        if words is None or best[query.query_id] is not query:  # a copied checkpoint has the id of its original
            found.append(query)
            continue
        found.append(with_told(query, words))
        findings += _missing(query, words, now)
    alone = [each for each in told.queries.values() if each.query_id not in best and not _is_replaced(each, told)]
    found += [only_told(each, now) for each in sorted(alone, key=lambda each: each.heard_at, reverse=True)]
    if drivers is not None:
        found = with_drivers(found, drivers)
    return _distinct(found), [*findings, *_dropped(told.instances, now)]


# --- checkpoint and listener ------------------------------------------------------------------------


def with_told(query: SparkQuery, told: ToldQuery) -> SparkQuery:
    """Return a checkpoint's query with what its listener told."""
    last = told.last
    via = dict.fromkeys(("run_id", "alive_at", "ended_at", "exception"), LISTENER)
    more: dict[str, object] = {
        "consumer": Consumer(Kind.SPARK, _name(query, told)),
        "seen_by": (*query.seen_by, LISTENER),
        "run_id": told.run_id,
        "alive_at": told.heard_at,
        "restarts": max(query.restarts, told.restarts),
    }
    if told.ended_at is not None and not _runs_again(query, told.ended_at):
        more |= {"ended_at": told.ended_at, "exception": told.exception}
    interval, mode = trigger_of(told.trigger)
    if query.trigger_interval_seconds is not None:
        via["trigger_interval_seconds"] = SETTINGS
    elif interval is not None:
        more["trigger_interval_seconds"], via["trigger_interval_seconds"] = interval, LISTENER
    if mode in {SparkMode.REAL_TIME, SparkMode.CONTINUOUS}:
        more["mode"], via["mode"] = mode, LISTENER
    if last is not None:
        more |= {"reported": last.reported, "state": last.state}
        via |= {"reported": LISTENER, "state": LISTENER}
        if query.batches:
            more["batches"], via["batches"] = _joined_batches(query.batches, told.batches), LISTENER
        if _is_ahead(query, last.batch):
            more |= _ahead(query, told)
            via |= dict.fromkeys(("committed", "planned", "batch_id"), LISTENER)
        if query.watermark is None and told.watermark is not None:
            more["watermark"], via["watermark"] = told.watermark, LISTENER
    return replace(query, via={**query.via, **via}, **more)  # type: ignore[arg-type]  # names are SparkQuery's own


def _name(query: SparkQuery, told: ToldQuery) -> str:
    """Return the configured name, else the listener's, else the checkpoint folder's last part."""
    folder = PurePosixPath(query.checkpoint).name
    is_configured = query.consumer.name not in {folder, f"{folder} ({query.query_id:.8})"}
    return query.consumer.name if is_configured or told.name is None else told.name


def _runs_again(query: SparkQuery, ended_at: float) -> bool:
    moves = [batch.committed_at for batch in query.batches[-1:]]
    if query.inflight_planned_at is not None:
        moves.append(query.inflight_planned_at)
    return any(at > ended_at + AGAIN_SECONDS for at in moves)


def _joined_batches(seen: Iterable[SparkBatch], told: Mapping[int, SparkBatch]) -> tuple[SparkBatch, ...]:
    return tuple(_joined(batch, told.get(batch.batch_id)) for batch in seen)


def _joined(seen: SparkBatch, told: SparkBatch | None) -> SparkBatch:
    if told is None:
        return seen
    return replace(
        seen,
        duration_seconds=seen.duration_seconds if told.duration_seconds is None else told.duration_seconds,
        input_rows=told.input_rows if seen.input_rows is None else seen.input_rows,
        most_rows=told.most_rows if seen.most_rows is None else seen.most_rows,
        median_rows=told.median_rows if seen.median_rows is None else seen.median_rows,
        watermark=told.watermark if seen.watermark is None else seen.watermark,
        output_rows=told.output_rows,
        phases=told.phases,
    )


def _is_ahead(query: SparkQuery, told: SparkBatch) -> bool:
    """Return whether the listener knows a later batch than the checkpoint shows, and not one of before a rewind."""
    newest = query.batches[-1].committed_at if query.batches else 0.0
    return told.batch_id > (-1 if query.batch_id is None else query.batch_id) and told.committed_at > newest


def _ahead(query: SparkQuery, told: ToldQuery) -> dict[str, object]:
    assert told.last is not None  # noqa: S101 (its batch was just compared)
    batch = told.last.batch
    more: dict[str, object] = {
        "committed": {**query.committed, **told.last.ends},
        "batch_id": batch.batch_id,
        "batches": (*_joined_batches(query.batches, told.batches), *_later(told, query.batch_id)),
    }
    if query.inflight_batch_id is not None and query.inflight_batch_id <= batch.batch_id:
        more |= {"planned": {}, "inflight_batch_id": None, "inflight_planned_at": None}
    return more


def _later(told: ToldQuery, than: int | None) -> list[SparkBatch]:
    return [batch for batch_id, batch in sorted(told.batches.items()) if than is None or batch_id > than]


def _missing(query: SparkQuery, told: ToldQuery, now: float) -> list[Finding]:
    """Return what the listener should have told: batches on record between two that it did tell."""
    if query.mode is not SparkMode.MICRO_BATCH or not told.batches:
        return []
    first, last = min(told.batches), max(told.batches)
    missing = [
        batch.batch_id
        for batch in query.batches
        if first < batch.batch_id < last and batch.batch_id not in told.batches
    ]
    if not missing:
        return []
    consumer = Consumer(Kind.SPARK, _name(query, told))
    text = (
        f"the listener of {consumer.name} did not tell {len(missing)} of its last batches (first {missing[0]}): events "
        "were dropped or lost, or the job ran without it"
    )
    return [Finding(EVENTS_MISSING, text, consumer=consumer, seen_at=now, records=len(missing))]


# --- listener alone ---------------------------------------------------------------------------------


def only_told(told: ToldQuery, now: float) -> SparkQuery:
    """Return a query whose checkpoint nobody reads, as its listener told it."""
    last = told.last
    interval, mode = trigger_of(told.trigger)
    folder = PurePosixPath(told.checkpoint).name if told.checkpoint else ""
    return SparkQuery(
        consumer=Consumer(Kind.SPARK, told.name or folder or told.query_id),
        query_id=told.query_id,
        checkpoint=alone(told.query_id),
        observed_at=now,
        committed=last.ends if last else {},
        planned={},
        batch_id=last.batch.batch_id if last else None,
        batches=tuple(batch for _, batch in sorted(told.batches.items())),
        watermark=told.watermark,
        trigger_interval_seconds=interval,
        seen_by=(LISTENER,),
        mode=mode or SparkMode.MICRO_BATCH,
        sources=last.sources if last else None,
        kafka_sources=last.kafka_sources if last else None,
        restarts=told.restarts,
        reported=last.reported if last else {},
        run_id=told.run_id,
        alive_at=told.heard_at,
        ended_at=told.ended_at,
        exception=told.exception,
        state=last.state if last else (),
    )


def alone(query_id: str) -> str:
    """Return what stands for the checkpoint of a query that has none here."""
    return f"query {query_id}"


# --- drivers ----------------------------------------------------------------------------------------


def with_drivers(queries: Sequence[SparkQuery], look: DriverLook) -> list[SparkQuery]:
    """Return the queries with what their drivers show, those that only a driver shows, and DStream applications."""
    known = {query.query_id for query in queries}
    joined = [
        with_driver(query, look.queries[query.query_id]) if query.query_id in look.queries else query
        for query in queries
    ]
    return [
        *joined,
        *(only_shown(shown) for query_id, shown in look.queries.items() if query_id not in known),
        *look.applications,
    ]


def with_driver(query: SparkQuery, shown: DriverQuery) -> SparkQuery:
    """Return a query with what its driver shows: tasks, executors, and the batch in flight if nobody else has it."""
    driver = shown.driver
    more: dict[str, object] = {"driver": driver, "seen_by": (*query.seen_by, DRIVER)}
    via = {"driver": DRIVER}
    if driver.tasks is not None:  # it runs a job: that is a sign of life
        more |= {"alive_at": max(query.alive_at or 0.0, driver.at), "run_id": shown.run_id}
        via |= {"alive_at": DRIVER, "run_id": DRIVER}
        if query.ended_at is not None and driver.at > query.ended_at + AGAIN_SECONDS:
            more |= {"ended_at": None, "exception": None}
    if query.inflight_batch_id is None and shown.since is not None and is_later(driver.batch_id, query.batch_id):
        more |= {"inflight_batch_id": driver.batch_id, "inflight_planned_at": shown.since}
        via |= {"inflight_batch_id": DRIVER, "inflight_planned_at": DRIVER}
    return replace(query, via={**query.via, **via}, **more)  # type: ignore[arg-type]  # names are SparkQuery's own


def only_shown(shown: DriverQuery) -> SparkQuery:
    """Return a query that only its driver shows: nothing is known of its positions."""
    empty = SparkQuery(
        consumer=Consumer(Kind.SPARK, shown.name or shown.query_id),
        query_id=shown.query_id,
        checkpoint=alone(shown.query_id),
        observed_at=shown.driver.at,
        committed={},
        planned={},
        batch_id=None,
        seen_by=(),
        run_id=shown.run_id,
    )
    return with_driver(empty, shown)


def _is_replaced(query: ToldQuery, told: Told) -> bool:
    """Return whether it has ended and another one of its name was heard since: its checkpoint was made anew."""
    return query.ended_at is not None and query.name is not None and any(
        other.name == query.name and other.heard_at > query.heard_at for other in told.queries.values()
    )  # fmt: skip


def _distinct(queries: Sequence[SparkQuery]) -> list[SparkQuery]:
    """Give a query whose name is taken by one before it its short id as well."""
    taken: set[str] = set()
    distinct = []
    for query in queries:
        name = query.consumer.name
        for longer in (name, f"{name} ({query.query_id:.8})", f"{name} ({query.query_id})", query.checkpoint):
            if longer not in taken:
                break
        taken.add(longer)
        changed = longer != name
        distinct.append(replace(query, consumer=Consumer(Kind.SPARK, longer)) if changed else query)
    return distinct


def _dropped(instances: Mapping[tuple[str, str], Instance], now: float) -> list[Finding]:
    """Say of each process what it could not send, and what of it did not arrive."""
    findings = []
    for (app, _), sender in instances.items():
        losses = {
            "dropped by the listener's own queue": sender.dropped,
            "dropped by Spark before its listeners": sender.bus_dropped,
            "lost on the way": sender.lost,
        }
        words = [f"{count} {what}" for what, count in losses.items() if count]
        if words and now - sender.heard_at <= RECENT_SECONDS:
            text = f"events of the Spark application {app} are missing: {', '.join(words)}"
            findings.append(Finding(EVENTS_DROPPED, text, seen_at=now, records=sum(losses.values())))
    return findings
