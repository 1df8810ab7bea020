"""Grafana as it should be: what is wanted is compared with what is there and with what was applied last.

    wanted   there                     applied last      then
    x        nothing                   -                 create
    x        x                         x                 nothing to do
    x        y                         y                 update: nobody has touched it since
    x        y                         x                 drifted: somebody changed it; left alone without force
    x        y                         z                 conflict: both changed; nothing at all is written without force
    x        y                         no mark           conflict: it is somebody else's
    -        y                         y                 delete
    -        y                         z                 spared: somebody changed it; deleted only with force

What was applied last is in the mark that each object carries (``dashboards.marks``), written together with it: so a
crash leaves each object either as it was or as it is wanted, and the next run goes on from there. Nothing is kept
elsewhere, so that it does not matter from where it is run.

A version check is not a lock (two writers at once can both succeed on 7.5 with SQLite), and answers to a write do not
always say what is stored. So everything is read again after it was written, and what is found there decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import Any, Protocol, TypeAlias

from dashboards.grafana import ChangedError, FaultError, GrafanaError, NotFoundError, UnansweredError
from dashboards.marks import Mark, checksum, differences, version_text
from monitor.errors import StreamgaugeError, UsageError

Json: TypeAlias = dict[str, Any]

ATTEMPTS = 4
"""How often one object is written at most, where others write to it at the same time or answers get lost."""

SHOWN_DIFFERENCES = 5

SECRET, OTHER_SECRET = "(secret)", "(another secret)"
"""What a content has in the place of a secret: the one that was applied, or another."""


class Kind(StrEnum):
    """What there is in Grafana, in the order in which one needs the other."""

    FOLDER = "folder"
    DATASOURCE = "data source"
    BOARD = "board"
    CONTACT_POINT = "contact point"
    RULE_GROUP = "rule group"


FOR_BOARDS = (Kind.FOLDER, Kind.DATASOURCE, Kind.BOARD)
FOR_ALERTS = (Kind.FOLDER, Kind.DATASOURCE, Kind.CONTACT_POINT, Kind.RULE_GROUP)


class Action(StrEnum):
    """What is to be done with an object, or why nothing is."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    DRIFTED = "drifted"
    """Somebody changed it since it was applied, and nothing new is wanted."""
    CONFLICT = "conflict"
    """Somebody changed it, or it is somebody else's, and something new is wanted."""
    LOCKED = "locked"
    """It is not as wanted, and Grafana does not let it be changed from outside."""
    SPARED = "spared"
    """It is no longer wanted, but somebody changed it, or it holds what is not ours."""
    UNMARKED = "unmarked"
    """It is as wanted, but does not carry our mark."""
    NOTHING = "nothing"


FORCEABLE = frozenset({Action.DRIFTED, Action.CONFLICT, Action.UNMARKED})
STOPPING = frozenset({Action.CONFLICT, Action.LOCKED})
WRITING = frozenset({Action.CREATE, Action.UPDATE, Action.DELETE})
PENDING = WRITING | STOPPING | {Action.DRIFTED}


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret and the environment variable that holds it; the value is None where that is not set."""

    variable: str
    value: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Item:
    """One object as wanted. ``content`` has SECRET in the place of each of ``secrets``, which go by field."""

    kind: Kind
    uid: str
    title: str
    content: Json = field(repr=False)
    secrets: Mapping[str, Hidden] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Live:
    """One object as it is there, in the form of an ``Item``'s content, without our mark.

    ``version`` rises by one with every change, and is None where there is none. ``locked`` says why it cannot be
    changed; ``raw`` is Grafana's own form.
    """

    kind: Kind
    uid: str
    title: str
    content: Json = field(repr=False)
    mark: Mark | None
    version: int | None = None
    locked: str | None = None
    raw: Json = field(default_factory=dict, repr=False)

    @property
    def is_as_applied(self) -> bool:
        """Return whether it is ours and nobody has changed it since it was applied."""
        return self.mark is not None and self.mark.fits(self.content, self.version)


class NotOursError(StreamgaugeError):
    """What was to be deleted holds things that are not ours."""


class NotKeptError(StreamgaugeError):
    """Grafana makes something else of an object each time that it is written."""


class Shelf(Protocol):
    """Where the objects of one kind are. What goes wrong is a ``GrafanaError``."""

    has_versions: bool
    """Whether they have versions, which start with 1 and rise by one with every change."""

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return what is there; the values of the fields that ``secrets`` names must not show in its content."""

    def ours(self) -> Iterable[Live]:
        """Return everything that carries our mark."""

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Create it, or change what was found there, and return its version if Grafana says it."""

    def delete(self, live: Live) -> None:
        """Delete what was found there.

        Raises:
            NotOursError: it holds things that are not ours.
        """


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done with one object, and why; after ``apply``, what was done."""

    action: Action
    kind: Kind
    uid: str
    title: str
    reason: str = ""
    differences: tuple[str, ...] = ()


# --- deciding ----------------------------------------------------------------------------------------


def decide(item: Item, live: Live | None) -> Step:
    """Return what is to be done so that an object is as wanted, without force."""
    action, reason = _decided(item, live)
    differing = () if live is None or action is Action.NOTHING else tuple(differences(item.content, live.content))
    shown = (*islice(differing, SHOWN_DIFFERENCES),)
    more = len(differing) - len(shown)
    return Step(action, item.kind, item.uid, item.title, reason, (*shown, f"and {more} more") if more else shown)


def _decided(item: Item, live: Live | None) -> tuple[Action, str]:
    if live is None:
        return Action.CREATE, "it is not there"
    wanted, applied = checksum(item.content), live.mark.applied if live.mark else None
    is_as_wanted = checksum(live.content) == wanted
    is_touched = not live.is_as_applied
    others = [
        hidden.variable
        for name, hidden in item.secrets.items()
        if hidden.value is not None and live.mark is not None and not live.mark.knows(name, hidden.value)
    ]
    rules = (
        (live.locked and is_as_wanted, Action.NOTHING, ""),
        (live.locked, Action.LOCKED, live.locked or ""),
        (live.mark is None and is_as_wanted, Action.UNMARKED, "it is as wanted, but does not carry our mark"),
        (live.mark is None, Action.CONFLICT, "it does not carry our mark: it is somebody else's"),
        (is_touched and is_as_wanted, Action.UPDATE, "somebody made it as wanted; only the mark is old"),
        (is_touched and applied == wanted, Action.DRIFTED, "somebody changed it since it was applied"),
        (is_touched, Action.CONFLICT, "somebody changed it since it was applied, and it is wanted otherwise now"),
        (applied != wanted, Action.UPDATE, "it is wanted otherwise now"),
        (others, Action.UPDATE, f"another secret is in {', '.join(others)}"),
    )
    return next(((action, reason) for applies, action, reason in rules if applies), (Action.NOTHING, ""))


def decide_unwanted(live: Live) -> Step:
    """Return what is to be done with an object that carries our mark and is not wanted, without force."""
    if live.locked is not None:
        action, reason = Action.SPARED, live.locked
    elif live.is_as_applied:
        action, reason = Action.DELETE, "it is not wanted any more"
    else:
        action, reason = Action.SPARED, "it is not wanted any more, but somebody changed it"
    return Step(action, live.kind, live.uid, live.title, reason)


# --- doing -------------------------------------------------------------------------------------------


Say: TypeAlias = Callable[[Step], None]


class Provisioner:
    """Plans, applies and takes away on the shelves of one Grafana. A kind without a shelf is not touched."""

    def __init__(self, shelves: Mapping[Kind, Shelf]) -> None:
        self._shelves = {kind: shelves[kind] for kind in Kind if kind in shelves}

    def plan(self, wanted: Sequence[Item], *, prune: bool = True) -> list[Step]:
        """Return a step for every object that is wanted, and with ``prune`` for those of ours that are not any more.

        Raises:
            GrafanaError: something cannot be read.
        """
        steps = [decide(item, self._find(item)) for item in self._in_order(wanted)]
        return steps + ([decide_unwanted(live) for live in self._unwanted(wanted)] if prune else [])

    def apply(self, wanted: Sequence[Item], *, prune: bool = True, force: bool = False, say: Say) -> list[Step]:
        """Make everything as wanted, and return what was done and what was left; each step is also said at once.

        Without ``force`` nothing that somebody else changed is written over; with a conflict, or something that is
        locked, nothing is written at all.

        Raises:
            UsageError: a secret that has to be written is not in the environment; nothing was written.
            GrafanaError: a request failed; running it again goes on from there.
        """
        plan = self.plan(wanted, prune=prune)
        stopping = [step for step in plan if step.action in STOPPING]
        if any(step.action is Action.LOCKED for step in stopping) or (stopping and not force):
            return plan
        items = {(item.kind, item.uid): item for item in wanted}
        _refuse_missing([items[step.kind, step.uid] for step in plan if _is_written(step, force=force)])
        done = []
        for step in plan:
            item = items.get((step.kind, step.uid))
            done.append(self._put(item, force=force) if item else self._delete(step, force=force))
            if done[-1].action not in {Action.NOTHING, Action.UNMARKED}:
                say(done[-1])
        return done

    def drift(self, wanted: Sequence[Item], optional: Collection[Kind] = ()) -> list[Step]:
        """Return what is not as it was applied: changed, or gone, or never applied.

        Of the ``optional`` kinds, only what is there counts.
        """
        steps = self.plan(wanted)
        gone = {step.uid for step in steps if step.kind in optional and step.action is Action.CREATE}
        return [step for step in steps if step.uid not in gone]

    def destroy(self, *, force: bool = False, say: Say | None) -> list[Step]:
        """Delete everything that carries our mark, last the folder; without ``say``, only return what would be done.

        What somebody changed is spared without ``force``, and so is a folder that holds what is not ours.
        """
        plan = [decide_unwanted(live) for live in self._unwanted(())]
        if say is None:
            return plan
        done = []
        for step in plan:
            done.append(self._delete(step, force=force))
            say(done[-1])
        return done

    # --- one object ---------------------------------------------------------------------------------

    def _put(self, item: Item, *, force: bool) -> Step:
        """Make one object as wanted. Whatever goes wrong on the way, what is there is read again and decides."""
        shelf, failure = self._shelves[item.kind], None
        first: Step | None = None
        for _ in range(ATTEMPTS):
            live = self._find(item)
            step = decide(item, live)
            if step.action is Action.NOTHING:
                return first or step
            if not _is_written(step, force=force):
                return step
            first = first or _as_written(step)
            mark = _new_mark(item, live, shelf.has_versions)
            try:
                version = shelf.put(item, mark, live)
                if self._is_settled(item, mark, version):
                    return _with_history(first, live, version)
            except (ChangedError, NotFoundError, UnansweredError, FaultError) as exc:
                failure = exc
        if failure is not None:
            raise failure
        msg = f"{item.kind} {item.title}: others write to it all the time; run it again when they have ended"
        raise NotKeptError(msg)

    def _is_settled(self, item: Item, mark: Mark, version: int | None) -> bool:
        """Return whether what is there now is what was written; False means: somebody else wrote after that.

        Raises:
            NotKeptError: the server makes something else of it each time.
        """
        shelf, live = self._shelves[item.kind], self._find(item)
        if live is None or (live.mark is not None and live.mark.applied != mark.applied):
            return False
        is_kept = checksum(live.content) == checksum(item.content)
        if live.mark is None or (is_kept and shelf.has_versions and version != _FIRST_VERSION):
            return is_kept
        if live.version != version and not is_kept:
            return False
        # Nobody has written since, so this is what the server makes of it: that is put down in the mark. So is that
        # a new object is as it was given: the version 1 could also be that of one that was deleted and made again.
        shelf.put(item, replace(mark, kept=None if is_kept else checksum(live.content), written_as=None), live)
        again = self._find(item)
        if again is None or again.mark is None or not again.is_as_applied:
            changed = "; ".join(islice(differences(item.content, again.content if again else {}), SHOWN_DIFFERENCES))
            msg = f"{item.kind} {item.title}: Grafana does not keep it as it is given: {changed}"
            raise NotKeptError(msg)
        return True

    def _delete(self, step: Step, *, force: bool) -> Step:
        shelf, failure = self._shelves[step.kind], None
        is_sure = step.action is Action.DELETE or force
        for _ in range(ATTEMPTS if is_sure else 0):
            live = shelf.find(step.uid, {})
            if live is None:
                return replace(step, action=Action.DELETE)
            now = decide_unwanted(live)
            if live.locked is not None or live.mark is None or not (now.action is Action.DELETE or force):
                return replace(step, action=Action.SPARED, reason=now.reason)
            try:
                shelf.delete(live)
            except NotOursError as exc:
                return replace(step, action=Action.SPARED, reason=str(exc))
            except NotFoundError:
                continue
            except (ChangedError, UnansweredError, FaultError) as exc:
                failure = exc
        if isinstance(failure, ChangedError | FaultError):
            # It is in use (older versions say 500), or Grafana refuses every deletion (13.1.3 does): the others are
            # none the worse for that.
            return replace(step, action=Action.SPARED, reason=str(failure))
        if failure is not None:
            raise failure
        return step

    def _find(self, item: Item) -> Live | None:
        return self._shelves[item.kind].find(item.uid, item.secrets)

    def _in_order(self, wanted: Sequence[Item]) -> Iterator[Item]:
        return (item for kind in self._shelves for item in wanted if item.kind is kind)

    def _unwanted(self, wanted: Sequence[Item]) -> Iterator[Live]:
        """Yield what is ours and not wanted, those first that need the others."""
        known = {(item.kind, item.uid) for item in wanted}
        for kind, shelf in reversed(self._shelves.items()):
            yield from (live for live in shelf.ours() if (kind, live.uid) not in known)


def _is_written(step: Step, *, force: bool) -> bool:
    return step.action in {Action.CREATE, Action.UPDATE} or (force and step.action in FORCEABLE)


_FIRST_VERSION = 1


def _new_mark(item: Item, live: Live | None, has_versions: bool) -> Mark:
    """Return the mark with which an object is written, on top of what was found."""
    mark = Mark.of(item.uid, item.content, {name: hidden.value for name, hidden in item.secrets.items()})
    before = (live.version or 0) if live else 0
    return replace(mark, written_as=version_text(before + 1 if has_versions else None))


def _as_written(step: Step) -> Step:
    """Return what a step becomes by being carried out: what is forced is an update."""
    return step if step.action is Action.CREATE else replace(step, action=Action.UPDATE)


def _with_history(step: Step, live: Live | None, version: int | None) -> Step:
    """Say it where somebody has saved between our reading and our writing: Grafana let both through."""
    before = live.version if live else None
    if step.kind is Kind.BOARD and isinstance(before, int) and isinstance(version, int) and version > before + 1:
        reason = f"{step.reason}; version {version - 1} was saved meanwhile: look at it in the board's history"
        return replace(step, reason=reason)
    return step


def _refuse_missing(items: Sequence[Item]) -> None:
    missing = sorted({each.variable for item in items for each in item.secrets.values() if each.value is None})
    if missing:
        msg = (
            f"cannot apply: {', '.join(missing)} not set in the environment; nothing was written; set it and try again"
        )
        raise UsageError(msg)


# --- drift as a metric -------------------------------------------------------------------------------


STATES: Mapping[Action, str] = {
    Action.NOTHING: "as_wanted",
    Action.UNMARKED: "as_wanted",
    Action.UPDATE: "outdated",
    Action.DELETE: "outdated",
    Action.CREATE: "missing",
    Action.DRIFTED: "drifted",
    Action.CONFLICT: "drifted",
    Action.SPARED: "drifted",
    Action.LOCKED: "locked",
}
"""What the metric says of an object: ``outdated`` and ``missing`` are ours to mend, ``drifted`` is somebody's doing."""

METRIC = "streamgauge_grafana_objects"


def metric_lines(steps: Iterable[Step]) -> list[str]:
    """Return the state of everything as lines of Prometheus' text format, every kind and state with its count."""
    counts = Counter((step.kind, STATES[step.action]) for step in steps)
    states = dict.fromkeys(STATES.values())
    return [
        f"# HELP {METRIC} Objects in Grafana that are provisioned from here, by how they are there.",
        f"# TYPE {METRIC} gauge",
        *(
            f'{METRIC}{{kind="{kind.replace(" ", "_")}",state="{state}"}} {counts[kind, state]}'
            for kind in Kind
            for state in states
        ),
    ]


__all__ = [
    "FOR_ALERTS", "FOR_BOARDS", "METRIC", "OTHER_SECRET", "PENDING", "SECRET", "STATES", "Action", "GrafanaError",
    "Hidden", "Item", "Kind", "Live", "NotKeptError", "NotOursError", "Provisioner", "Shelf", "Step", "decide",
    "decide_unwanted", "metric_lines",
]  # fmt: skip
