"""A stand-in for a Grafana that remembers what it is told, for tests and for trying things out without a server.

It has two profiles. ``SEVEN_FIVE`` answers as a running 7.5.5 did, whose recorded exchanges it is held against.
``MODERN`` answers as the sources, tests and documentation of Grafana 11 to 13 say: nobody has held it against a running
one. Where those say different things of different versions, and for what servers are known to do wrong, there are
switches in ``Faults``.

    fake = FakeGrafana(Profile.MODERN)
    grafana = Grafana(fake)                      # in this process, or
    with serve(fake) as url: ...                 # over HTTP (dashboards.fake_http)

It does not know permissions, organisations, or anything that is not asked of it here.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from dashboards.grafana import Reply, Request, UnansweredError

Json: TypeAlias = dict[str, Any]
Answer: TypeAlias = tuple[int, Any]


class Profile(StrEnum):
    """Which Grafana it is."""

    SEVEN_FIVE = "7.5.5"
    MODERN = "13.2.3"


@dataclass(slots=True)
class Faults:
    """What goes wrong, or differs between versions. Everything may be switched while it runs."""

    before: Callable[[Request], None] | None = None
    """Called before each request is carried out: what somebody else does at that moment."""
    after: Callable[[Request], None] | None = None
    """Called when a request has been carried out, before it is answered."""
    busy: int = 0
    """So many requests are refused with 429, and not carried out."""
    away: int = 0
    """So many requests are answered by a proxy in front, with 502 and a page, and not carried out."""
    lose_answers: int = 0
    """So many writes are carried out and not answered."""
    stale_saves_pass: bool = False
    """A save on top of an old version is let through: what 7.5 does where two writers meet on SQLite."""
    deletes_conflict: bool = False
    """Every DELETE is refused with 409 (13.1.3 on SQLite, grafana/grafana#130334)."""
    minimum_refresh_seconds: int = 5
    """Boards that refresh more often are rewritten to this."""
    drops_unknown_settings: bool = False
    """A contact point's settings lose what their type does not know."""
    fills_in_rules: bool = False
    """Rules come back with a field more than they were written with."""
    folder_exists_status: int = 412
    """What says that a folder's uid is taken: 412, in the newest versions 409."""
    point_exists_status: int = 500
    """What says that a contact point's uid is taken: 500, later 409."""
    point_in_use_status: int = 409
    """What says that a contact point is still named by a policy or a rule: 409, before that 500."""
    v2_boards: set[str] = field(default_factory=set)
    """Boards (uids) that somebody saved in the form of version 2."""
    legacy_is_gone: bool = False
    """The endpoints for boards and folders below /api are away, as it is announced (said before it is made)."""
    namespace: str = "default"
    """Where objects below /apis are: that of the first organisation, org-2, or stacks-7 (said before it is made)."""
    groups: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("dashboard.grafana.app", ("v2", "v1", "v1beta1", "v0alpha1")),
        ("folder.grafana.app", ("v1", "v1beta1")),
    )
    """API groups below /apis, with their versions (modern)."""


class Refusal(Exception):  # noqa: N818 - an answer of the stand-in, no error of ours
    """An answer that ends the handling of a request."""

    def __init__(self, status: int, content: Any) -> None:
        self.answer: Answer = (status, {"message": content} if isinstance(content, str) else content)
        super().__init__(status)


Handler: TypeAlias = Callable[..., Answer]


class FakeGrafana:
    """One Grafana with its state. It is a ``Transport``; ``requests`` has every request it got."""

    def __init__(
        self, profile: Profile = Profile.MODERN, faults: Faults | None = None, url: str = "http://grafana.example"
    ) -> None:
        self.profile = profile
        self.faults = faults or Faults()
        self.version: str | None = str(profile)
        self.requests: list[Request] = []
        self._url = url
        self._lock = threading.RLock()
        self._ids: dict[str, int] = {}
        self.folders: dict[str, Json] = {}
        self.datasources: dict[str, Json] = {}
        self.boards: dict[str, Json] = {}
        self.points: dict[str, Json] = {}
        self.policy_receivers: set[str] = set()
        self.groups: dict[tuple[str, str], Json] = {}
        self._routes = [*self._legacy_routes(), *(self._modern_routes() if self.is_modern else ())]

    @property
    def url(self) -> str:
        """Return the address it goes by."""
        return self._url

    @property
    def is_modern(self) -> bool:
        """Return whether it is the one that was read of and never run."""
        return self.profile is Profile.MODERN

    def send(self, request: Request) -> Reply:
        """Carry a request out and answer it, as the ``Faults`` want it.

        Raises:
            UnansweredError: the answer is lost.
        """
        faults = self.faults
        if faults.before:
            faults.before(request)
        with self._lock:
            self.requests.append(request)
            if faults.busy:
                faults.busy -= 1
                return Reply(429, b'{"message":"Too many requests"}', retry_after_seconds=1.0)
            if faults.away:
                faults.away -= 1
                return Reply(502, b"<html><body>Bad Gateway</body></html>", "text/html")
            status, content = self._answer(request)
            body = b"" if content is None else json.dumps(content).encode()
        if faults.after:
            faults.after(request)
        if faults.lose_answers and request.method != "GET":
            faults.lose_answers -= 1
            raise UnansweredError(request, self._url, "the connection was closed")
        return Reply(status, body)

    def _answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        query = parse_qsl(parts.query)
        body = json.loads(json.dumps(request.body))  # ours from here on
        if request.method == "DELETE" and self.faults.deletes_conflict:
            return 409, {"message": "Operation cannot be fulfilled: requested RV does not match current RV"}
        for method, pattern, handler in self._routes:
            found = re.fullmatch(pattern, parts.path)
            if found and method == request.method:
                named = [unquote(each) for each in found.groups()]
                given: list[Any] = [*named, *([body or {}] if method in {"POST", "PUT"} else [])]
                try:
                    answer: Answer = handler(*given, query) if handler in self._queried else handler(*given)
                except Refusal as refusal:
                    return refusal.answer
                return answer
        return 404, {"message": "Not found"}

    def _legacy_routes(self) -> Iterator[tuple[str, str, Handler]]:
        self._queried: set[Handler] = {self._search, self._list_folders}
        one = "([^/]+)"
        yield "GET", "/api/health", self._health
        yield from (
            ("GET", "/api/datasources", self._list_datasources),
            ("POST", "/api/datasources", self._create_datasource),
            ("GET", f"/api/datasources/uid/{one}", self._get_datasource),
            ("DELETE", f"/api/datasources/uid/{one}", self._delete_datasource),
            ("GET", f"/api/datasources/name/{one}", self._get_datasource_by_name),
            ("DELETE", f"/api/datasources/name/{one}", self._delete_datasource_by_name),
            ("GET", f"/api/datasources/id/{one}", self._get_datasource_id),
        )
        if not self.is_modern:
            yield "GET", f"/api/datasources/{one}", self._get_datasource_by_id
            yield "PUT", f"/api/datasources/{one}", self._update_datasource_by_id
            yield "DELETE", f"/api/datasources/{one}", self._delete_datasource_by_id
        if not self.faults.legacy_is_gone:
            yield "GET", "/api/search", self._search
            yield "GET", "/api/folders", self._list_folders
            yield "POST", "/api/folders", self._create_folder
            yield "GET", f"/api/folders/{one}", self._get_folder
            yield "PUT", f"/api/folders/{one}", self._update_folder
            yield "DELETE", f"/api/folders/{one}", self._delete_folder
            yield "POST", "/api/dashboards/db", self._save_board
            yield "GET", f"/api/dashboards/uid/{one}", self._get_board
            yield "DELETE", f"/api/dashboards/uid/{one}", self._delete_board

    def _modern_routes(self) -> Iterator[tuple[str, str, Handler]]:
        from dashboards.fake_alerting import routes as alerting_routes  # noqa: PLC0415
        from dashboards.fake_apis import routes as apis_routes  # noqa: PLC0415 - they build on this module

        yield "PUT", "/api/datasources/uid/([^/]+)", self._update_datasource
        yield "GET", "/api/frontend/settings", lambda: (200, {"namespace": self.faults.namespace})
        yield from alerting_routes(self)
        yield from apis_routes(self)

    def _health(self) -> Answer:
        commit = "unknown" if self.is_modern else "6130ba8b4c"
        return 200, {"commit": commit, "database": "ok", **({"version": self.version} if self.version else {})}

    def next_id(self, sequence: str) -> int:
        """Return the next number of a table."""
        self._ids[sequence] = self._ids.get(sequence, 0) + 1
        return self._ids[sequence]

    def generated_uid(self) -> str:
        """Return a uid for something that came without one."""
        return f"generated{self.next_id('uid')}"

    # --- folders --------------------------------------------------------------------------------------

    def _list_folders(self, query: list[tuple[str, str]]) -> Answer:
        asked = dict(query)
        size, page = int(asked.get("limit", 1000)), int(asked.get("page", 1))
        listed = sorted(self.folders.values(), key=_by_title)[size * (page - 1) : size * page]
        return 200, [{key: each[key] for key in ("id", "uid", "title")} for each in listed]

    def _get_folder(self, uid: str) -> Answer:
        return 200, self._folder(uid)

    def _folder(self, uid: str) -> Json:
        if uid not in self.folders:
            raise Refusal(404, {"message": "folder not found", "status": "not-found"})
        return self.folders[uid]

    def _create_folder(self, body: Json) -> Answer:
        title = _checked_title(body.get("title"), "folder title cannot be empty")
        uid = _checked_uid(body.get("uid"))
        if title.lower() == "general":
            raise Refusal(400, "A folder with that name already exists")
        if uid in self.folders:
            changed = "the folder has been changed by someone else"
            raise Refusal(self.faults.folder_exists_status, {"message": changed, "status": "version-mismatch"})
        if not self.is_modern and any(_same(each["title"], title) for each in self._roots()):
            raise Refusal(400, "a folder or dashboard in the general folder with the same name already exists")
        return 200, self.add_folder(uid or self.generated_uid(), title)

    def add_folder(self, uid: str, title: str) -> Json:
        """Put a folder there."""
        self.folders[uid] = {
            "id": self.next_id("dashboard"),
            "uid": uid,
            "title": title,
            "url": f"/dashboards/f/{uid}/{_slug(title)}",
            "hasAcl": False,
            "canSave": True,
            "canEdit": True,
            "canAdmin": True,
            "createdBy": "admin",
            "created": _NOW,
            "updatedBy": "admin",
            "updated": _NOW,
            "version": 1,
        }
        return self.folders[uid]

    def _update_folder(self, uid: str, body: Json) -> Answer:
        folder = self._folder(uid)
        title = _checked_title(body.get("title"), "folder title cannot be empty")
        is_stale = body.get("version") != folder["version"]
        if is_stale and not body.get("overwrite") and not self.faults.stale_saves_pass:
            changed = "the folder has been changed by someone else"
            raise Refusal(412, {"message": changed, "status": "version-mismatch"})
        if not self.is_modern:
            # With overwrite 7.5 then takes the other folder, and answers with that.
            folder = next((each for each in self.folders.values() if _same(each["title"], title)), folder)
        folder |= {"title": title, "url": f"/dashboards/f/{folder['uid']}/{_slug(title)}"}
        folder["version"] += 1
        return 200, folder

    def _delete_folder(self, uid: str) -> Answer:
        folder = self._folder(uid)
        if self.is_modern and any(key[0] == uid for key in self.groups):
            raise Refusal(400, "folder cannot be deleted: folder is not empty (contains alert rules)")
        del self.folders[uid]
        for board in [key for key, each in self.boards.items() if each["folder"] == uid]:
            del self.boards[board]
        return 200, {"id": folder["id"], "message": f"Folder {folder['title']} deleted", "title": folder["title"]}

    def _roots(self) -> Iterator[Json]:
        yield from self.folders.values()
        yield from (each["model"] for each in self.boards.values() if not each["folder"])

    # --- data sources ---------------------------------------------------------------------------------

    def _list_datasources(self) -> Answer:
        listed = sorted(self.datasources.values(), key=lambda each: each["name"].lower())
        shown = [{key: value for key, value in _shown(each).items() if key not in _NOT_LISTED} for each in listed]
        for each in shown:
            is_prometheus = each["type"] == "prometheus"
            each["typeName"] = "Prometheus" if is_prometheus else each["type"]
            each["typeLogoUrl"] = _LOGO if is_prometheus else _NO_LOGO
        return 200, shown

    def _get_datasource(self, uid: str) -> Answer:
        return 200, _shown(self._datasource("uid", uid))

    def _get_datasource_by_name(self, name: str) -> Answer:
        return 200, _shown(self._datasource("name", name))

    def _get_datasource_by_id(self, number: str) -> Answer:
        return 200, _shown(self._datasource("id", _number(number)))

    def _get_datasource_id(self, name: str) -> Answer:
        return 200, {"id": self._datasource("name", name)["id"]}

    def _datasource(self, key: str, value: Any) -> Json:
        found = next((each for each in self.datasources.values() if each[key] == value), None)
        if found is None:
            raise Refusal(404, "Data source not found")
        return found

    def _create_datasource(self, body: Json) -> Answer:
        for name in ("type", "access"):
            if not body.get(name):
                missing = {"fieldNames": [name.title()], "classification": "RequiredError", "message": "Required"}
                raise Refusal(422, [missing])
        if any(each["name"] == body["name"] for each in self.datasources.values()):
            raise Refusal(409, "data source with the same name already exists")
        if body.get("uid") in self.datasources:
            raise Refusal(409, "data source with the same uid already exists")
        uid = body.get("uid") or self.generated_uid()
        made = self.datasources[uid] = {"id": self.next_id("datasource"), "uid": uid, "secure": {}, "readOnly": False}
        return 200, self._stored(made, body, 1, "Datasource added")

    def _update_datasource(self, uid: str, body: Json) -> Answer:
        return self._update(self._datasource("uid", uid), body)

    def _update_datasource_by_id(self, number: str, body: Json) -> Answer:
        try:
            return self._update(self._datasource("id", _number(number)), body)
        except Refusal as refusal:
            if refusal.answer[0] == 404:  # noqa: PLR2004
                raise Refusal(500, "Failed to update datasource") from None
            raise

    def _update(self, stored: Json, body: Json) -> Answer:
        version = body.get("version")
        if version and version != stored["version"] and not self.faults.stale_saves_pass:
            raise Refusal(409, "Datasource has already been updated by someone else. Please reload and try again")
        if stored["readOnly"] and body.get("secureJsonData"):
            raise Refusal(500, "Failed to update datasource")
        if any(each["name"] == body["name"] and each is not stored for each in self.datasources.values()):
            raise Refusal(500, "Failed to update datasource")
        stored["readOnly"] = False
        answer = self._stored(stored, body, version + 1 if version else 1, "Datasource updated")
        renamed = body.get("uid") or stored["uid"]
        del self.datasources[stored["uid"]]
        stored["uid"] = answer["datasource"]["uid"] = renamed
        self.datasources[renamed] = stored
        return 200, answer

    def _stored(self, stored: Json, body: Json, version: int, message: str) -> Json:
        stored |= {key: body.get(key, default) for key, default in _DATASOURCE.items()}
        stored["version"] = version
        stored["secure"] = {**stored["secure"], **(body.get("secureJsonData") or {})}
        return {"datasource": _shown(stored), "id": stored["id"], "message": message, "name": stored["name"]}

    def _delete_datasource(self, uid: str) -> Answer:
        return self._deleted(self._datasource("uid", uid), {})

    def _delete_datasource_by_name(self, name: str) -> Answer:
        stored = self._datasource("name", name)
        return self._deleted(stored, {"id": stored["id"]})

    def _delete_datasource_by_id(self, number: str) -> Answer:
        return self._deleted(self._datasource("id", _number(number)), {})

    def _deleted(self, stored: Json, more: Json) -> Answer:
        if stored["readOnly"]:
            raise Refusal(403, "Cannot delete read-only data source")
        del self.datasources[stored["uid"]]
        return 200, {**more, "message": "Data source deleted"}

    # --- boards ---------------------------------------------------------------------------------------

    def _save_board(self, body: Json) -> Answer:
        model = body.get("dashboard")
        if model is None:
            missing = {"fieldNames": ["Dashboard"], "classification": "RequiredError", "message": "Required"}
            raise Refusal(422, [missing])
        title = _checked_title(
            model.get("title") if isinstance(model, dict) else None, "Dashboard title cannot be empty"
        )
        uid = _checked_uid(model.get("uid"))
        folder = self._wanted_folder(body)
        stored = self._stored_board(uid, model.get("id"))
        if folder and _same(self.folders[folder]["title"], title) and not self.is_modern:
            raise Refusal(400, "Dashboard name cannot be the same as folder")
        namesake = next((each for each in self._in_folder(folder) if _same(each["model"]["title"], title)), None)
        if namesake is not None and namesake is not stored and not self.is_modern:
            if not body.get("overwrite"):
                exists = "A dashboard with the same name in the folder already exists"
                raise Refusal(412, {"message": exists, "status": "name-exists"})
            stored = namesake
        if stored is None:
            return 200, self._saved(self.add_board(uid or self.generated_uid(), model, folder))
        if stored["provisioned"] and model.get("id"):
            raise Refusal(400, "Cannot save provisioned dashboard")
        is_stale = model.get("version") != stored["model"]["version"]
        if is_stale and not body.get("overwrite") and not self.faults.stale_saves_pass:
            changed = "The dashboard has been changed by someone else"
            raise Refusal(412, {"message": changed, "status": "version-mismatch"})
        version, own = stored["model"]["version"] + 1, stored["model"]["uid"]
        stored |= {"model": self._model(model, own, stored["model"]["id"], version), "folder": folder}
        return 200, self._saved(stored)

    def _wanted_folder(self, body: Json) -> str:
        if self.is_modern:
            uid = str(body.get("folderUid") or "")
            if uid and uid not in self.folders:
                raise Refusal(400, "folder not found")
            return uid
        number = body.get("folderId") or 0
        found = next((uid for uid, each in self.folders.items() if each["id"] == number), None)
        if number and found is None:
            raise Refusal(404, "Folder not found")
        return found or ""

    def _stored_board(self, uid: str | None, number: int | None) -> Json | None:
        if number:
            found = next((each for each in self.boards.values() if each["model"]["id"] == number), None)
            if found is None:
                raise Refusal(404, {"message": "Dashboard not found", "status": "not-found"})
            return found
        return self.boards.get(uid or "")

    def add_board(self, uid: str, model: Json, folder: str = "", *, provisioned: str = "") -> Json:
        """Put a board there; ``provisioned`` names the file that it comes from, if it does."""
        made = self._model(model, uid, self.next_id("dashboard"), 1)
        self.boards[uid] = {"model": made, "folder": folder, "provisioned": provisioned}
        return self.boards[uid]

    def _model(self, model: Json, uid: str, number: int, version: int) -> Json:
        kept = {**model, "id": number, "uid": uid, "version": version, "title": model["title"].strip()}
        if kept.get("refresh"):
            kept["refresh"] = self._refresh(kept["refresh"])
        return dict(sorted(kept.items()))

    def _refresh(self, refresh: str) -> str:
        found = re.fullmatch(r"(\d+)(s|m|h|d)", refresh)
        least = self.faults.minimum_refresh_seconds
        seconds = int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else 0
        return refresh if seconds >= least else f"{least}s"

    @staticmethod
    def _saved(stored: Json) -> Json:
        model = stored["model"]
        slug = _slug(model["title"])
        return {
            "id": model["id"],
            "slug": slug,
            "status": "success",
            "uid": model["uid"],
            "url": f"/d/{model['uid']}/{slug}",
            "version": model["version"],
        }

    def _get_board(self, uid: str) -> Answer:
        if uid in self.faults.v2_boards:
            raise Refusal(406, "dashboard api version not supported, use /apis/dashboard.grafana.app/v2 instead")
        stored = self._board(uid)
        model = stored["model"]
        folder = self.folders.get(stored["folder"])
        meta = {
            "type": "db",
            "canSave": True,
            "canEdit": True,
            "canAdmin": True,
            "canStar": True,
            "slug": _slug(model["title"]),
            "url": f"/d/{uid}/{_slug(model['title'])}",
            "expires": "0001-01-01T00:00:00Z",
            "created": _NOW,
            "updated": _NOW,
            "updatedBy": "admin",
            "createdBy": "admin",
            "version": model["version"],
            "hasAcl": False,
            "isFolder": False,
            "folderId": folder["id"] if folder else 0,
            "folderTitle": folder["title"] if folder else "General",
            "folderUrl": folder["url"] if folder else "",
            "provisioned": bool(stored["provisioned"]),
            "provisionedExternalId": stored["provisioned"],
        }
        if self.is_modern:
            meta["folderUid"] = stored["folder"]
        return 200, {"meta": meta, "dashboard": model}

    def _board(self, uid: str) -> Json:
        if uid not in self.boards:
            raise Refusal(404, "Dashboard not found")
        return self.boards[uid]

    def _in_folder(self, folder: str) -> Iterable[Json]:
        return (each for each in self.boards.values() if each["folder"] == folder)

    def _delete_board(self, uid: str) -> Answer:
        stored = self._board(uid)
        if stored["provisioned"]:
            raise Refusal(400, "provisioned dashboard cannot be deleted")
        del self.boards[uid]
        title = stored["model"]["title"]
        return 200, {"id": stored["model"]["id"], "message": f"Dashboard {title} deleted", "title": title}

    # --- search ---------------------------------------------------------------------------------------

    def _search(self, query: list[tuple[str, str]]) -> Answer:
        asked = dict(query)
        size, page = int(asked.get("limit", 1000)), int(asked.get("page", 1))
        if size > _LIMIT:
            raise Refusal(
                422, f"Limit is above maximum allowed ({_LIMIT}), use page parameter to access hits beyond limit"
            )
        hits = [hit for hit in self._hits() if self._is_hit(hit, query)]
        return 200, hits[size * (page - 1) : size * page]

    def _is_hit(self, hit: Json, query: list[tuple[str, str]]) -> bool:
        asked = dict(query)
        tags = {value for key, value in query if key == "tag"}
        folders = {value for key, value in query if key == "folderUIDs"} if self.is_modern else set()
        numbers = {int(value) for key, value in query if key == "folderIds"}
        return (
            tags <= set(hit["tags"])
            and asked.get("query", "").lower() in hit["title"].lower()
            and asked.get("type", hit["type"]) == hit["type"]
            and (not folders or hit.get("folderUid") in folders)
            and (not numbers or hit.get("folderId", 0) in numbers)
        )

    def _hits(self) -> Iterator[Json]:
        for folder in sorted(self.folders.values(), key=_by_title):
            yield _hit(folder, folder["url"], "dash-folder", None)
        for stored in sorted(self.boards.values(), key=lambda each: (_by_title(each["model"]), each["folder"])):
            model = stored["model"]
            url = f"/d/{model['uid']}/{_slug(model['title'])}"
            yield _hit(model, url, "dash-db", self.folders.get(stored["folder"]))


# --- helpers -----------------------------------------------------------------------------------------

_NOW = "2026-11-23T13:30:54Z"
_LIMIT = 5000
_NO_LOGO = "public/img/icn-datasource.svg"
_LOGO = "public/app/plugins/datasource/prometheus/img/prometheus_logo.svg"
_NOT_LISTED = frozenset({"secureJsonFields", "basicAuthUser", "basicAuthPassword", "withCredentials", "version"})
_DATASOURCE: Json = {
    "name": "", "type": "", "access": "", "url": "", "password": "", "user": "", "database": "", "basicAuth": False,
    "basicAuthUser": "", "basicAuthPassword": "", "withCredentials": False, "isDefault": False, "jsonData": {},
}  # fmt: skip


def _shown(stored: Json) -> Json:
    """Return a data source as it is given out: of its secrets only the names."""
    return {
        "id": stored["id"],
        "uid": stored["uid"],
        "orgId": 1,
        "typeLogoUrl": "",
        **{key: stored[key] for key in _DATASOURCE},
        "secureJsonFields": dict.fromkeys(stored["secure"], True),
        "version": stored["version"],
        "readOnly": stored["readOnly"],
    }


def _hit(each: Json, url: str, kind: str, folder: Json | None) -> Json:
    where = (
        {
            "folderId": folder["id"],
            "folderUid": folder["uid"],
            "folderTitle": folder["title"],
            "folderUrl": folder["url"],
        }
        if folder
        else {}
    )
    return {
        "id": each["id"],
        "uid": each["uid"],
        "title": each["title"],
        "uri": f"db/{_slug(each['title'])}",
        "url": url,
        "slug": "",
        "type": kind,
        "tags": each.get("tags") or [],
        "isStarred": False,
        **where,
        "sortMeta": 0,
    }


def _checked_title(title: object, complaint: str) -> str:
    if not isinstance(title, str) or not title.strip():
        raise Refusal(400, complaint)
    return title.strip()


def _checked_uid(uid: object) -> str | None:
    if not isinstance(uid, str) or not uid:
        return None
    if not re.fullmatch(r"[A-Za-z0-9_-]+", uid):
        raise Refusal(400, "uid contains illegal characters")
    if len(uid) > 40:  # noqa: PLR2004 - Grafana's limit
        raise Refusal(400, "uid too long, max 40 characters")
    return uid


def _number(text: str) -> int:
    if not text.isdecimal():
        raise Refusal(400, "Datasource id is missing")
    return int(text)


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def _by_title(each: Json) -> str:
    return str(each["title"]).lower()


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
