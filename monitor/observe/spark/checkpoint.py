"""Spark queries by their checkpoint folders: positions, batches, watermark, without touching the job.

What one folder tells is ``folder``, what its files say ``formats``, where it lies ``store``. Here every checkpoint that
the settings name for a cluster is found and looked at: those of a glob together, each path on this machine beside the
others, in threads of their own, so that a store that hangs takes only its own along.

A look has ``timeout_seconds``. What was not read in it is a failure; those that have waited longest are first the
next time. A look at a checkpoint that still hangs is waited for and never started twice. The hundred batches before
the first look are read a few queries a look.
"""

from __future__ import annotations

import asyncio
import glob
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from monitor.model import Consumer, Failure, Kind, SparkQuery, SparkSnapshot
from monitor.observe.spark.crew import Crew
from monitor.observe.spark.discovery import expand
from monitor.observe.spark.folder import Checkpoint
from monitor.observe.spark.formats import CheckpointError
from monitor.observe.spark.store import Store, store_for
from monitor.settings import Cluster, SparkCheckpoints

FIND_SECONDS = 60.0
"""How often a glob on an object store is followed anew: each of its folders is a request."""

MOST_THREADS = 32
"""Threads that may wait for one place at once."""

HISTORIES = 25
"""Queries of one place whose hundred batches are read in one look: two hundred files each."""

Answer = SparkQuery | CheckpointError


class Place:
    """Checkpoints that are looked at together: those of a glob, or the single paths of this machine."""

    def __init__(
        self,
        entries: Sequence[SparkCheckpoints],
        clock: Callable[[], float],
        open_store: Callable[[str], tuple[Store, str]],
    ) -> None:
        self.checkpoints: dict[str, Checkpoint] = {}
        self._entries = entries
        self._clock = clock
        self._open_store = open_store
        self._stores: dict[str, tuple[Store, str]] = {}
        self._found: dict[str, tuple[float, list[Checkpoint]]] = {}
        self._crew: Crew[Answer] | None = None
        self._finder: Crew[list[Failure]] = Crew(size=1, at_once=1)

    async def look(self, timeout_seconds: float) -> tuple[list[SparkQuery], list[Failure]]:
        """Find the checkpoints and look at each; what fails, or is not read in time, is an entry."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_seconds
        found = await self._finder.run({"find": self._find}, timeout_seconds)
        failures = found.get("find")
        if failures is None:
            return [], self._late([*self.checkpoints] or [each.path for each in self._entries], timeout_seconds)
        crew = self._crew = self._crew or self._hire()
        answers = await crew.run(self._jobs(), max(0.0, until - loop.time()))
        queries: list[SparkQuery] = []
        for path, answer in answers.items():
            if isinstance(answer, CheckpointError):
                failures.append(Failure("checkpoint", path, answer.error, str(answer)))
            else:
                queries.append(answer)
        late = [path for path in self.checkpoints if path not in answers]
        return queries, [*failures, *self._late(late, timeout_seconds)]

    def _hire(self) -> Crew[Answer]:
        # A disk is one thread's work; the others are for file systems that hang.
        return Crew(MOST_THREADS, max((store.threads for store, _ in self._stores.values()), default=1))

    def _jobs(self) -> dict[str, Callable[[], Answer]]:
        waiting = sorted(self.checkpoints.values(), key=lambda each: each.looked_at)
        without = [each.path for each in waiting if not each.has_history][:HISTORIES]
        return {each.path: partial(self._look, each, history=each.path in without) for each in waiting}

    def _look(self, checkpoint: Checkpoint, *, history: bool) -> Answer:
        try:
            return checkpoint.look(self._clock, history=history)
        except CheckpointError as exc:
            return exc

    @staticmethod
    def _late(paths: Iterable[str], timeout_seconds: float) -> list[Failure]:
        detail = f"not read within {timeout_seconds:g} s: does its file system answer?"
        return [Failure("checkpoint", path, "TIMEOUT", detail) for path in dict.fromkeys(paths)]

    # --- finding ------------------------------------------------------------------------------------

    def _find(self) -> list[Failure]:
        """Find the checkpoints of every entry; return what is wrong with an entry as a whole."""
        failures: list[Failure] = []
        found: dict[str, Checkpoint] = {}
        for entry in self._entries:
            try:
                self._find_of(entry)
            except CheckpointError as exc:
                failures.append(Failure("checkpoint", entry.path, exc.error, str(exc)))
            except OSError as exc:
                failures.append(Failure("checkpoint", entry.path, "UNREADABLE", f"{entry.path}: {exc.strerror or exc}"))
            # Where it failed, those known are looked at all the same: what cannot be listed has not left.
            _, checkpoints = self._found.get(entry.path, (0.0, []))
            for each in checkpoints:
                found.setdefault(each.path, each)
        # Swapped as one reference: a look that hangs is asked from outside which checkpoints there are.
        self.checkpoints = found
        return failures

    def _find_of(self, entry: SparkCheckpoints) -> None:
        if entry.path not in self._stores:
            self._stores[entry.path] = self._open_store(entry.path)
        store, pattern = self._stores[entry.path]
        at, before = self._found.get(entry.path, (0.0, []))
        now = self._clock()
        if before and store.root and 0 <= now - at < FIND_SECONDS:
            return
        known = {each.path.removeprefix(store.root): each for each in before}
        checkpoints = [known.get(path) or Checkpoint(store, path, entry) for path in expand(store, pattern, known)]
        self._found[entry.path] = now, checkpoints


class CheckpointSource:
    """Every checkpoint that the settings name for a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        clock: Callable[[], float] = time.time,
        open_store: Callable[[str], tuple[Store, str]] = store_for,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._places = [Place(entries, clock, open_store) for entries in places_of(cluster.spark)]

    async def observe(self) -> SparkSnapshot:
        """Look at every checkpoint; what fails is an entry, what takes longer than ``timeout_seconds`` as well."""
        started_at = self._clock()
        looks = await asyncio.gather(*(each.look(self._cluster.timeout_seconds) for each in self._places))
        # A path that two entries name is the first one's.
        queries: dict[str, SparkQuery] = {}
        for seen, _ in looks:
            for query in seen:
                queries.setdefault(query.checkpoint, query)
        failures = {(each.name, each.error): each for _, failed in looks for each in failed}
        shown = shown_names([one for each in self._places for one in each.checkpoints.values()])
        named = sorted((_named(query, shown[query.checkpoint]) for query in queries.values()), key=_by_path)
        return SparkSnapshot(
            self._cluster.name, started_at, self._clock(), not failures, tuple(named), tuple(failures.values())
        )


def places_of(entries: Sequence[SparkCheckpoints]) -> list[list[SparkCheckpoints]]:
    """Return the entries as they are looked at: globs and paths on object stores by themselves, the others together."""
    together = [each for each in entries if not _is_apart(each.path)]
    apart = [[each] for each in entries if _is_apart(each.path)]
    return [*([together] if together else []), *apart]


def _is_apart(path: str) -> bool:
    return glob.has_magic(path) or "://" in path.removeprefix("file://")


def _named(query: SparkQuery, name: str) -> SparkQuery:
    return query if query.consumer.name == name else replace(query, consumer=Consumer(Kind.SPARK, name))


def _by_path(query: SparkQuery) -> str:
    return query.checkpoint


def shown_names(checkpoints: Sequence[Checkpoint]) -> dict[str, str]:
    """Return the shown name of each by path: as configured, else with the short query id, else with the path."""
    checkpoints = [each for each in checkpoints if each.query_id is not None]
    shown = {each.path: each.name for each in checkpoints}
    for longer in ("{name} ({query_id:.8})", "{name} ({path})"):
        times = Counter(shown.values())
        for each in checkpoints:
            if times[shown[each.path]] > 1:
                shown[each.path] = longer.format(name=each.name, query_id=each.query_id, path=each.path)
    return shown
