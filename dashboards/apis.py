"""Boards and folders below ``/apis``: for a Grafana that no longer has them below ``/api``.

Objects there have Kubernetes' form: a board's model is the ``spec``, its uid the ``name``, its folder an annotation,
its version the ``generation``; a write has to repeat the ``resourceVersion`` that it is on top of. Read in sources and
documentation of Grafana 12 and 13; never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from dashboards.grafana import Grafana
from dashboards.marks import Mark
from dashboards.provision import Hidden, Item, Kind, Live, NotOursError
from dashboards.shelves import (
    UID_PREFIX,
    RuleHolder,
    board_content,
    folder_content,
    held_text,
    mark_in,
    marked,
)

Json: TypeAlias = dict[str, Any]

BOARD_GROUP, FOLDER_GROUP = "dashboard.grafana.app", "folder.grafana.app"
VERSIONS = ("v1", "v1beta1", "v0alpha1")
"""Versions that take the boards that are made here, the best first; v2 has another form."""

FOLDER = "grafana.app/folder"
MESSAGE = "grafana.app/message"
MANAGER = "grafana.app/managedBy"
PAGE = 500


def are_there(grafana: Grafana) -> bool:
    """Return whether a Grafana has boards and folders below /apis, in a version that is known here."""
    return all(_version(grafana, group) for group in (BOARD_GROUP, FOLDER_GROUP))


def _version(grafana: Grafana, group: str) -> str | None:
    offered = grafana.abilities.groups.get(group, ())
    return next((version for version in VERSIONS if version in offered), None)


class _Objects:
    """One kind of object below /apis."""

    def __init__(self, grafana: Grafana, group: str, kind: str, plural: str) -> None:
        self._grafana = grafana
        self._kind = kind
        self._api_version = f"{group}/{_version(grafana, group)}"
        self._where = ("apis", *self._api_version.split("/"), "namespaces", _namespace(grafana), plural)

    def find(self, name: str) -> Json | None:
        """Return an object."""
        found: Json | None = self._grafana.find(*self._where, name)
        return found

    def all(self) -> Iterator[Json]:
        """Yield every object."""
        more: dict[str, str] = {}
        while True:
            page = self._grafana.get(*self._where, limit=PAGE, **more)
            yield from page["items"]
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            more = {"continue": token}

    def write(self, name: str, spec: Json, annotations: Json, live: Live | None) -> int | None:
        """Create an object or change the one that was found, and return its version."""
        metadata = {"name": name, "annotations": annotations}
        body = {"apiVersion": self._api_version, "kind": self._kind, "metadata": metadata, "spec": spec}
        if live is None:
            answer = self._grafana.write("POST", *self._where, body=body)
        else:
            kept = live.raw["metadata"]
            body["metadata"] = {**kept, "annotations": {**kept.get("annotations", {}), **annotations}}
            answer = self._grafana.write("PUT", *self._where, name, body=body)
        return version_of(answer)

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._grafana.write("DELETE", *self._where, name)


def version_of(raw: Json) -> int | None:
    """Return the version of an object: its generation, which rises by one whenever its spec is changed."""
    generation = raw.get("metadata", {}).get("generation")
    return generation if isinstance(generation, int) else None


def _namespace(grafana: Grafana) -> str:
    """Return where the log-in's organisation has its objects."""
    said = grafana.find("api", "frontend", "settings")
    return str((said or {}).get("namespace") or "default")


def _annotations(raw: Json) -> Json:
    found: Json = raw["metadata"].get("annotations") or {}
    return found


def _locked(raw: Json) -> str | None:
    manager = _annotations(raw).get(MANAGER)
    return f"it is managed by {manager}: change it there" if manager else None


class FoldersBelowApis:
    """Our one folder. Its mark is that of ``dashboards.shelves.Folders``: none, but a uid and title of ours."""

    has_versions = True

    def __init__(self, grafana: Grafana, uid: str) -> None:
        self._uid = uid
        self._folders = _Objects(grafana, FOLDER_GROUP, "Folder", "folders")
        self._boards = _Objects(grafana, BOARD_GROUP, "Dashboard", "dashboards")
        self._rules = RuleHolder(grafana)

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return the folder."""
        raw = self._folders.find(uid)
        if raw is None:
            return None
        title = raw["spec"]["title"]
        mark = Mark.of(uid, folder_content(uid), {}) if uid == self._uid else None
        return Live(Kind.FOLDER, uid, title, folder_content(title), mark, version_of(raw), _locked(raw), raw)

    def ours(self) -> Iterable[Live]:
        """Return the folder."""
        live = self.find(self._uid, {})
        return [live] if live else []

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Create or rename it."""
        spec = {**(live.raw["spec"] if live else {}), **item.content}
        return self._folders.write(item.uid, spec, {}, live)

    def delete(self, live: Live) -> None:
        """Delete it if nothing is in it.

        Raises:
            NotOursError: it holds something.
        """
        held = [
            *(f"board {raw['spec'].get('title')}" for raw in self._boards.all() if _is_in(raw, live.uid)),
            *(f"folder {raw['spec']['title']}" for raw in self._folders.all() if _is_in(raw, live.uid)),
            *self._rules.held(live.uid),
        ]
        if held:
            raise NotOursError(held_text(held))
        self._folders.delete(live.uid)


def _is_in(raw: Json, folder: str) -> bool:
    return bool(_annotations(raw).get(FOLDER, "") == folder)


class BoardsBelowApis:
    """Boards."""

    has_versions = True

    def __init__(self, grafana: Grafana, folder: str) -> None:
        self._folder = folder
        self._boards = _Objects(grafana, BOARD_GROUP, "Dashboard", "dashboards")

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return a board."""
        raw = self._boards.find(uid)
        return None if raw is None else _board(raw)

    def ours(self) -> Iterable[Live]:
        """Return the boards that carry our mark, in our folder and under a uid of ours."""
        for raw in self._boards.all():
            if _is_in(raw, self._folder) and raw["metadata"]["name"].startswith(f"{UID_PREFIX}-"):
                live = _board(raw)
                if live.mark is not None:
                    yield live

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Write it, on top of the version that was found and of no other."""
        spec = marked(item.content["model"], item.uid, mark)
        del spec["uid"]
        return self._boards.write(
            item.uid, spec, {FOLDER: item.content["folder"], MESSAGE: "Applied by streamgauge"}, live
        )

    def delete(self, live: Live) -> None:
        """Delete it."""
        self._boards.delete(live.uid)


def _board(raw: Json) -> Live:
    uid, spec = raw["metadata"]["name"], raw["spec"]
    content = board_content(_annotations(raw).get(FOLDER, ""), spec)
    return Live(
        Kind.BOARD, uid, spec.get("title", uid), content, mark_in(spec, uid), version_of(raw), _locked(raw), raw
    )
