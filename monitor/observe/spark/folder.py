"""One checkpoint folder and what was read of it so far.

A checkpoint holds ``metadata`` (the query id), ``offsets/N`` (what batch N shall read up to, written before the
batch) and ``commits/N`` (batch N is done). From these:

- *committed* positions are those of ``offsets/<newest commit>``, *planned* those of the newest ``offsets/N`` beyond it;
- a batch's duration is the modification time of ``commits/N`` minus the batchTimestampMs in ``offsets/N``
  (in the middle 0.14 s below what Spark calls triggerExecution);
- a batch's input rows are what its offset ranges span since the batch before it on record. With asynchronous progress
  tracking only every n-th is on record, and then stands for those in between as well.

Every file but ``metadata`` is written once, so each is read once. The next batch is asked for by its number; folders
are listed at first, where numbers have gaps, where something changed that no number explains, and once a minute.
Positions are kept of the plans that are still needed, and of older batches only what they add up to.

A file that vanishes or is torn while being read is looked at again once; then it is a failure of that query alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from monitor.model import Consumer, Kind, SparkBatch, SparkMode, SparkQuery
from monitor.observe.spark.batches import (
    HISTORY,
    Commit,
    Plan,
    batches_of,
    input_rows,
    mode_of,
    restarts,
    slowest,
)
from monitor.observe.spark.formats import (
    CheckpointError,
    Positions,
    Sources,
    T,
    is_number,
    parse_commit,
    parse_initial_offsets,
    parse_offsets,
    parse_query_id,
    parsed,
)
from monitor.observe.spark.store import Content, Store
from monitor.settings import SparkCheckpoints

HEAD = 2
"""Batches read at first where the whole history is for later: one, and the one before it for its rows."""

NEIGHBOURS = 8
"""Committed batches of which more is kept than they came to: the next ones are judged by these."""

AT_ONCE = 20
"""More new batches than this are listed instead of asked for one by one."""

LIST_SECONDS = 60.0
"""How often folders are listed where nothing tells that they changed: somebody may have set a query back by hand."""

MOST_SOURCES = 1000
"""No query has as many sources."""


class Checkpoint:
    """One checkpoint folder. ``path`` is its whole name, with the store's."""

    def __init__(self, store: Store, path: str, shown: SparkCheckpoints) -> None:
        self.path = store.root + path
        self.name = (shown.name or "{folder}").replace("{folder}", path.rpartition("/")[2])
        self.query_id: str | None = None
        self._id_stamp: object | None = None
        self.has_history = False
        self.looked_at = -math.inf
        self._store = store
        self._folder = path
        self._trigger_interval_seconds = shown.trigger_interval_seconds
        self._forget()

    def _forget(self) -> None:
        self._plans: dict[int, Plan] = {}
        self._commits: dict[int, Commit] = {}
        self._last_plan = -1
        self._last_commit = -1
        self._sources: dict[int, Sources] = {}
        self._initial: dict[str, Positions | None] = {}
        self._batches: list[SparkBatch] = []
        self._new_from: int | None = None
        self._pinned: Mapping[str, str] = {}
        self._listed_at = -math.inf
        self._folder_stamps: list[object] = []
        self._file_stamps: object = (None, None)
        self._mode = SparkMode.MICRO_BATCH
        self._built: SparkQuery | None = None
        self.has_history = False

    def look(self, clock: Callable[[], float], *, history: bool = True) -> SparkQuery:
        """Read what is new and return the query; its consumer carries the name as configured.

        With ``history`` the last HISTORY batches are read where they were not, else the newest suffice for now.

        Raises:
            CheckpointError: it cannot be read, twice in a row.
        """
        try:
            query = self._look(clock, history=history)
        except CheckpointError:
            # Renames are atomic where Spark writes, but a listing and what it lists are two moments.
            self._listed_at = -math.inf
            query = self._look(clock, history=history)
        self.looked_at = query.observed_at
        return query

    def _look(self, clock: Callable[[], float], *, history: bool) -> SparkQuery:
        try:
            self._read(clock(), history=history)
        except FileNotFoundError as exc:
            self._listed_at = -math.inf
            raise CheckpointError("NOT_FOUND", f"{self._store.root}{exc.filename} does not exist") from exc
        except OSError as exc:
            self._listed_at = -math.inf
            where = f"{self._store.root}{exc.filename}" if exc.filename else self.path
            raise CheckpointError("UNREADABLE", f"{where}: {exc.strerror or exc}") from exc
        return self._query(clock())

    # --- reading ------------------------------------------------------------------------------------

    def _read(self, now: float, *, history: bool) -> None:
        history = history or self.has_history
        is_due = not 0 <= now - self._listed_at < LIST_SECONDS
        self._read_query_id(is_due=is_due)
        if self._file_stamps != self._stamps_of_newest():
            self._forget()  # its newest files were replaced: somebody set the query back, or copied another over it
        if history and not self.has_history:
            self._forget()
            self.has_history = True
        try:
            if is_due or self._listed_at == -math.inf:
                self._list(now)
            else:
                self._probe_or_list(now)
        finally:
            if self._built is None:
                self._file_stamps = self._stamps_of_newest()
        if not self._commits:
            self._read_initial()

    def _read_query_id(self, *, is_due: bool) -> None:
        path = f"{self._folder}/metadata"
        stamp = self._store.stamp(path)
        is_as_before = stamp is not None and stamp == self._id_stamp
        if self.query_id is not None and (is_as_before if self._store.has_stamps else not is_due):
            return
        try:
            query_id = self._parsed(path, self._store.read(path), parse_query_id)
        except FileNotFoundError:
            raise self._no_metadata() from None
        if query_id != self.query_id:
            self._forget()  # also where a checkpoint was made anew in its old place
        self.query_id, self._id_stamp = query_id, stamp

    def _no_metadata(self) -> CheckpointError:
        try:
            entries = self._store.entries(self._folder)
        except FileNotFoundError:
            return CheckpointError("NOT_FOUND", f"there is no folder {self.path}: is the path right?")
        if not entries and self._store.root:
            return CheckpointError("NOT_FOUND", f"there is nothing under {self.path}: is the path right?")
        detail = f"{self.path} has no file 'metadata': name the folder that the query has as checkpointLocation"
        return CheckpointError("NOT_A_CHECKPOINT", detail)

    def _stamps_of_newest(self) -> tuple[object | None, object | None]:
        """Return the stamps of the newest plan and commit known: they are written once."""
        stamp, folder = self._store.stamp, self._folder
        return (
            stamp(f"{folder}/offsets/{self._last_plan}") if self._plans else None,
            stamp(f"{folder}/commits/{self._last_commit}") if self._commits else None,
        )

    def _probe_or_list(self, now: float) -> None:
        """Ask for the next batch; list where its number cannot be known, or where a change is not explained by it."""
        before, self._folder_stamps = self._folder_stamps, self._stamps_of_folders()
        is_told = self._folder_stamps != before
        has_gaps = self._mode is SparkMode.ASYNC_PROGRESS
        if not has_gaps and self._probe():
            return
        if is_told or (has_gaps and not self._store.has_stamps):
            self._list(now)

    def _stamps_of_folders(self) -> list[object]:
        return [self._store.stamp(f"{self._folder}/{log}") for log in ("offsets", "commits")]

    def _probe(self) -> bool:
        """Ask for the next batches by their numbers; return whether that found any, and not too many."""
        found = 0
        # Commits first: a batch that is committed in between then looks in flight a moment longer, never lost.
        commits: dict[int, Content] = {}
        after = self._last_commit + 1
        while found <= AT_ONCE and (content := self._read_if_there("commits", after + len(commits))):
            commits[after + len(commits)] = content
            found += 1
        plan = self._last_plan + 1
        committed = self._last_commit + len(commits)
        # One that is in flight is committed before the next is planned.
        while found <= 2 * AT_ONCE and plan <= committed + 1 and (content := self._read_if_there("offsets", plan)):
            self._take_plan(plan, content)
            plan, found = plan + 1, found + 1
        for number, content in commits.items():
            self._take_commit(number, content)
        return 0 < found <= AT_ONCE

    def _read_if_there(self, log: str, number: int) -> Content | None:
        try:
            return self._store.read(f"{self._folder}/{log}/{number}")
        except FileNotFoundError:
            return None

    def _list(self, now: float) -> None:
        """List both folders, forget what is gone, and read what is new of the batches that count."""
        self._folder_stamps, with_history = self._stamps_of_folders(), self.has_history
        commits = self._numbers("commits")
        plans = self._numbers("offsets")
        if not self._go_on_from(plans, self._plans) or not self._go_on_from(commits, self._commits):
            self._forget()
            self.has_history = with_history
        newest = max(commits, default=-1)
        done = sorted(number for number in plans if number <= newest)[-(HISTORY + 1 if with_history else HEAD) :]
        ahead = sorted(number for number in plans if number > newest)[-AT_ONCE:]
        wanted = [*done, *ahead]
        known = self._last_plan
        new_commits = sorted(n for n in commits if n > self._last_commit and n >= (done[0] if done else newest))
        self._take_all("commits", new_commits, commits, self._take_commit)
        self._take_all("offsets", [n for n in wanted if n > known], plans, self._take_plan)
        self._listed_at = now

    def _numbers(self, log: str) -> dict[int, float]:
        """Return the numbers in a log with their times; one that is not there yet is empty: Spark makes it last."""
        try:
            entries = self._store.entries(f"{self._folder}/{log}")
        except FileNotFoundError:
            return {}
        return {int(each.name): each.written_at for each in entries if is_number(each.name)}

    @staticmethod
    def _go_on_from(listed: dict[int, float], known: dict[int, Plan] | dict[int, Commit]) -> bool:
        """Return whether the newest known is still there, and was not written again as far as the listing tells."""
        if not known:
            return True
        newest = max(known)
        if newest not in listed:
            return False
        then = known[newest].written_at
        return math.isnan(listed[newest]) or math.isnan(then) or abs(listed[newest] - then) <= 1

    def _take_all(
        self, log: str, numbers: Sequence[int], times: dict[int, float], take: Callable[[int, Content], None]
    ) -> None:
        paths = [f"{self._folder}/{log}/{number}" for number in numbers]
        for number, content in zip(numbers, self._store.read_all(paths), strict=True):
            if isinstance(content, OSError):
                raise content
            known = times[number] if math.isnan(content.written_at) else content.written_at
            take(number, Content(content.data, known))

    def _take_plan(self, number: int, content: Content) -> None:
        file = self._parsed(f"{self._folder}/offsets/{number}", content, parse_offsets)
        if number == 0:
            self._read_initial()  # it was written before the first plan
        last = self._last_plan
        before = self._initial if number == 0 else self._sources.get(last, {})
        planned_at = math.nan if file.batch_timestamp_ms is None else file.batch_timestamp_ms / 1000
        rows = input_rows(before, file.sources)
        self._plans[number] = Plan(planned_at, content.written_at, file.watermark, rows)
        self._sources[number] = file.sources
        if last < self._last_commit:
            self._sources.pop(last, None)  # history: what it came to is all that is wanted of it
        self._pinned, self._last_plan = file.pinned, number
        self._note(number)

    def _take_commit(self, number: int, content: Content) -> None:
        file = self._parsed(f"{self._folder}/commits/{number}", content, parse_commit)
        self._commits[number] = Commit(file.watermark, content.written_at)
        self._last_commit = number
        self._note(number)

    def _note(self, number: int) -> None:
        self._built = None
        self._new_from = number if self._new_from is None else min(self._new_from, number)

    def _read_initial(self) -> None:
        """Read where the sources started, once each: Spark makes the folder first, and the file later."""
        try:
            entries = self._store.entries(f"{self._folder}/sources")
        except FileNotFoundError:
            return
        places = [
            each.name for each in entries if is_number(each.name, MOST_SOURCES) and each.name not in self._initial
        ]
        for place in places:
            path = f"{self._folder}/sources/{place}/0"
            try:
                content = self._store.read(path)
            except FileNotFoundError:
                continue
            self._initial[place] = self._parsed(path, content, parse_initial_offsets)
            self._built = None

    def _parsed(self, path: str, content: Content, parse: Callable[[str], T]) -> T:
        try:
            text = content.data.decode()
        except UnicodeDecodeError as exc:
            raise CheckpointError("MALFORMED", f"{self._store.root}{path} is not text: {exc.reason}") from exc
        return parsed(self._store.root + path, text, parse)

    # --- the query ----------------------------------------------------------------------------------

    def _query(self, now: float) -> SparkQuery:
        newest = self._last_commit if self._commits else None
        if newest is not None and newest not in self._plans:
            raise CheckpointError("MALFORMED", f"{self.path} has commits/{newest} but no offsets/{newest}")
        self._built = self._build(newest, now) if self._built is None else replace(self._built, observed_at=now)
        return self._built

    def _build(self, newest: int | None, now: float) -> SparkQuery:
        self._update_batches()
        self._mode = mode_of(self._plans, self._commits)
        inflight = [number for number in self._plans if newest is None or number > newest]
        planned_at = self._plans[inflight[0]].planned_at if inflight else math.nan
        last = self._sources.get(self._last_plan)
        return SparkQuery(
            consumer=Consumer(Kind.SPARK, self.name),
            query_id=self.query_id or "",
            checkpoint=self.path,
            observed_at=now,
            committed=slowest(self._initial if newest is None else self._sources[newest]),
            planned=slowest(self._sources[inflight[-1]]) if inflight else {},
            batch_id=newest,
            batches=tuple(self._batches),
            inflight_batch_id=inflight[0] if inflight else None,
            inflight_planned_at=None if math.isnan(planned_at) else planned_at,
            watermark=None if newest is None else self._commits[newest].watermark,
            trigger_interval_seconds=self._trigger_interval_seconds,
            mode=self._mode,
            pinned=self._pinned,
            sources=None if last is None else len(last),
            kafka_sources=None if last is None else sum(each is not None for each in last.values()),
            restarts=restarts(self._batches),
        )

    def _update_batches(self) -> None:
        """Work out the batches that are new, and the one before them, which has a new neighbour."""
        if self._new_from is None:
            return
        changed = batches_of(self._plans, self._commits, since=self._new_from)
        first = changed[0].batch_id if changed else self._new_from
        while self._batches and self._batches[-1].batch_id >= first:
            self._batches.pop()
        self._batches = [*self._batches, *changed][-HISTORY:]
        self._new_from = None
        self._prune()

    def _prune(self) -> None:
        """Keep of the files what the next batches are judged by: the newest committed, and what was planned beyond."""
        first = self._last_commit
        while len(self._commits) > NEIGHBOURS:
            del self._commits[next(iter(self._commits))]
        while len(self._plans) > NEIGHBOURS and (oldest := next(iter(self._plans))) < first:
            del self._plans[oldest]
        for number in [each for each in self._sources if each < first and each != self._last_plan]:
            del self._sources[number]
