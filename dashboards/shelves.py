"""Where Grafana has what: for each kind its endpoints, what they take and give, and where its mark is.

All of this is the API below ``/api``, which is there from 7.5 to 13; ``dashboards.apis`` has what takes its place. Rule
groups and contact points are there from unified alerting on. What is said here of 7.5 was seen on a running 7.5.5; what
is said of later versions was read in their sources and documentation, and never run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from dashboards.grafana import Grafana, NotFoundError, RefusedError
from dashboards.marks import Mark
from dashboards.provision import OTHER_SECRET, SECRET, Hidden, Item, Kind, Live, NotOursError, Shelf
from monitor.errors import UnreachableError

Json: TypeAlias = dict[str, Any]

MARK_FIELD = "streamgauge"
"""Field of a data source's ``jsonData``, of a contact point's ``settings``, and name of a board's hidden variable."""

MARK_ANNOTATION = "__streamgauge__"
"""Annotation of a rule. Grafana keeps what is between double underscores out of notifications."""

UID_PREFIX = "streamgauge"
MASKED = "[REDACTED]"
FROM_FILE = "a file on Grafana's machine provisions it: change it there, or take it out of there"
NEWER_FORM = "it was saved in a newer form (v2), which /api/dashboards does not give: delete it, and apply again"
PAGE = 1000
SHOWN = 3


def shelves(grafana: Grafana, folder: str, kinds: Collection[Kind] = tuple(Kind)) -> dict[Kind, Shelf]:
    """Return the shelves of these kinds, as far as this Grafana has them; ``folder`` is the uid of ours."""
    from dashboards.apis import BoardsBelowApis, FoldersBelowApis, are_there  # noqa: PLC0415 - they build on this module

    is_gone = grafana.find("api", "folders", limit=1) is None and are_there(grafana)
    found: dict[Kind, Shelf] = {
        Kind.FOLDER: FoldersBelowApis(grafana, folder) if is_gone else Folders(grafana, folder),
        Kind.DATASOURCE: Datasources(grafana),
        Kind.BOARD: BoardsBelowApis(grafana, folder) if is_gone else Boards(grafana, folder),
    }
    if {Kind.CONTACT_POINT, Kind.RULE_GROUP} & {*kinds} and has_alerting(grafana):
        found |= {Kind.CONTACT_POINT: ContactPoints(grafana), Kind.RULE_GROUP: RuleGroups(grafana, folder)}
    return {kind: shelf for kind, shelf in found.items() if kind in kinds}


def has_alerting(grafana: Grafana) -> bool:
    """Return whether this Grafana takes rules and contact points by its provisioning API."""
    return grafana.find("api", "v1", "provisioning", "contact-points") is not None


def require_alerting(grafana: Grafana) -> None:
    """Refuse a Grafana that takes no rules.

    Raises:
        UnreachableError: it has no provisioning API for alerts.
    """
    if not has_alerting(grafana):
        version = grafana.abilities.version or "of an unknown version"
        msg = (
            f"the Grafana {version} at {grafana.url} has no API for alert rules and contact points (from 9.1 on, and "
            "these rules need 11.6): load the rules into Prometheus instead, with: streamgauge alerts render"
        )
        raise UnreachableError(msg)


# --- folder ------------------------------------------------------------------------------------------


def folder_content(title: str) -> Json:
    """Return the content of a folder."""
    return {"title": title}


class Folders:
    """Our one folder. It has no room for a mark: the uid is ours, and its title has always been the uid."""

    has_versions = True

    def __init__(self, grafana: Grafana, uid: str) -> None:
        self._grafana, self._uid = grafana, uid

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return the folder. Its numeric id, which 7.5 wants for boards, is in ``raw``."""
        raw = self._grafana.find("api", "folders", uid)
        if raw is None:
            return None
        mark = Mark.of(uid, folder_content(uid), {}) if uid == self._uid else None
        return Live(Kind.FOLDER, uid, raw["title"], folder_content(raw["title"]), mark, raw.get("version"), raw=raw)

    def ours(self) -> Iterable[Live]:
        """Return the folder."""
        live = self.find(self._uid, {})
        return [live] if live else []

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Create or rename it."""
        if live is None:
            body = {"uid": item.uid, **item.content}
            made = self._grafana.write("POST", "api", "folders", body=body)
        else:
            body = {**item.content, "version": live.version}
            made = self._grafana.write("PUT", "api", "folders", item.uid, body=body)
        return _version(made)

    def delete(self, live: Live) -> None:
        """Delete it if nothing is in it: Grafana would delete all of that as well.

        Raises:
            NotOursError: it holds something.
        """
        held = [*self._held(live.uid), *RuleHolder(self._grafana).held(live.uid)]
        if held:
            raise NotOursError(held_text(held))
        self._grafana.write("DELETE", "api", "folders", live.uid)

    def _held(self, uid: str) -> Iterator[str]:
        # 7.5 does not know folderUIDs and then returns everything: so it is looked at here again.
        for hit in _pages(self._grafana, folderUIDs=uid):
            if hit.get("folderUid") == uid:
                yield f"{'folder' if hit.get('type') == 'dash-folder' else 'board'} {hit['title']}"


class RuleHolder:
    """The alert rules in a folder, whosever they are."""

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana

    def held(self, folder: str) -> Iterator[str]:
        """Yield what is in a folder, for a person."""
        for rule in self._grafana.find("api", "v1", "provisioning", "alert-rules") or []:
            if rule.get("folderUID") == folder:
                yield f"alert rule {rule['title']}"


def held_text(held: Sequence[str]) -> str:
    """Return why a folder stays, for a person."""
    more = f" and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
    return f"it still holds {', '.join(held[:SHOWN])}{more}"


def _pages(grafana: Grafana, **query: str | int) -> Iterator[Json]:
    page = 1
    while True:
        hits = grafana.get("api", "search", **query, limit=PAGE, page=page)
        yield from hits
        if len(hits) < PAGE:
            return
        page += 1


def _version(answer: object) -> int | None:
    version = answer.get("version") if isinstance(answer, dict) else None
    return version if isinstance(version, int) else None


# --- data sources ------------------------------------------------------------------------------------

_KEPT = ("isDefault", "withCredentials", "user", "database")
"""What an update has to say again, or Grafana resets it; not ours to decide."""


class Datasources:
    """Data sources. Ours are the fields that an item has; what else a person sets there stays."""

    has_versions = True

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return a data source."""
        raw = self._grafana.find("api", "datasources", "uid", uid)
        return None if raw is None else _datasource(raw)

    def ours(self) -> Iterable[Live]:
        """Return the data sources that carry our mark."""
        for raw in self._grafana.get("api", "datasources"):
            # The list lacks which secrets are set.
            live = self.find(raw["uid"], {}) if _datasource(raw).mark else None
            if live is not None:
                yield live

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Create or change it; secrets are sent only where they are wanted, and Grafana keeps the others."""
        content = {key: value for key, value in item.content.items() if key not in {"jsonData", "secrets"}}
        raw = live.raw if live else {}
        options = {**(raw.get("jsonData") or {}), **item.content["jsonData"], MARK_FIELD: mark.text()}
        body = {**{key: raw[key] for key in _KEPT if key in raw}, **content, "uid": item.uid, "jsonData": options}
        secrets = {name: hidden.value for name, hidden in item.secrets.items()}
        self._grafana.hide(*filter(None, secrets.values()))
        if secrets:
            body["secureJsonData"] = secrets
        if live is None:
            return _version(self._grafana.write("POST", "api", "datasources", body=body).get("datasource"))
        body["version"] = live.version
        try:
            answer = self._grafana.write("PUT", "api", "datasources", "uid", item.uid, body=body)
        except NotFoundError:  # 7.5 changes them by their numeric id only, which 13 does not
            answer = self._grafana.write("PUT", "api", "datasources", str(raw["id"]), body=body)
        return _version(answer.get("datasource"))

    def delete(self, live: Live) -> None:
        """Delete it."""
        self._grafana.write("DELETE", "api", "datasources", "uid", live.uid)


DATASOURCE_FIELDS = ("name", "type", "access", "url", "basicAuth", "basicAuthUser")
DATASOURCE_OPTIONS = ("timeInterval", "httpMethod")
DATASOURCE_PASSWORD = "basicAuthPassword"  # noqa: S105 - the name of a field


def _datasource(raw: Json) -> Live:
    options = raw.get("jsonData") or {}
    mark = Mark.parse(options.get(MARK_FIELD), raw["uid"])
    is_set = (raw.get("secureJsonFields") or {}).get(DATASOURCE_PASSWORD, False)
    content = {
        **{key: raw.get(key) for key in DATASOURCE_FIELDS},
        "basicAuthUser": raw.get("basicAuthUser") or "",
        "jsonData": {key: options.get(key) for key in DATASOURCE_OPTIONS},
        "secrets": [DATASOURCE_PASSWORD] if is_set else [],
    }
    locked = FROM_FILE if raw.get("readOnly") else None
    return Live(Kind.DATASOURCE, raw["uid"], raw["name"], content, mark, _version(raw), locked, raw)


# --- boards ------------------------------------------------------------------------------------------


def board_content(folder: str, model: Json) -> Json:
    """Return the content of a board in a folder, without what a server adds and without our mark."""
    kept = {key: value for key, value in model.items() if key not in {"id", "uid", "version", "iteration"}}
    if "templating" in kept:
        variables = [each for each in kept["templating"].get("list", []) if each.get("name") != MARK_FIELD]
        kept["templating"] = {**kept["templating"], "list": variables}
    return {"folder": folder, "model": kept}


def marked(model: Json, uid: str, mark: Mark) -> Json:
    """Return a board's model with our mark: a hidden constant, which is valid in every version and survives saving."""
    variables = model.get("templating", {}).get("list", [])
    return {**model, "uid": uid, "templating": {"list": [*variables, _constant(mark.text())]}}


def mark_in(model: Json, uid: str) -> Mark | None:
    """Return the mark in a board's model."""
    variables = (model.get("templating") or {}).get("list") or []
    found = (each.get("query") for each in variables if each.get("name") == MARK_FIELD)
    return Mark.parse(next(found, None), uid)


def _constant(value: str) -> Json:
    chosen = {"selected": True, "text": value, "value": value}
    return {
        "type": "constant",
        "name": MARK_FIELD,
        "label": "Applied by streamgauge",
        "query": value,
        "hide": 2,
        "skipUrlSync": True,
        "current": chosen,
        "options": [chosen],
    }


class Boards:
    """Boards, by ``/api/dashboards``."""

    has_versions = True

    def __init__(self, grafana: Grafana, folder: str) -> None:
        self._grafana, self._folder = grafana, folder

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return a board."""
        try:
            raw = self._grafana.find("api", "dashboards", "uid", uid)
        except RefusedError as exc:
            if exc.status != _NOT_ACCEPTABLE:
                raise
            # Somebody saved it in the form of version 2, which this endpoint does not give out.
            return Live(Kind.BOARD, uid, uid, {}, None, locked=NEWER_FORM)
        if raw is None:
            return None
        model, meta = raw["dashboard"], raw["meta"]
        content = board_content(_folder_of(meta), model)
        is_from_file = meta.get("provisioned") or meta.get("provisionedExternalId")
        locked = FROM_FILE if is_from_file else None
        return Live(
            Kind.BOARD, uid, model.get("title", uid), content, mark_in(model, uid), model.get("version"), locked, raw
        )

    def ours(self) -> Iterable[Live]:
        """Return the boards that carry our mark, in our folder and under a uid of ours."""
        for hit in _pages(self._grafana, tag=UID_PREFIX, type="dash-db"):
            if hit.get("folderUid") != self._folder or not hit["uid"].startswith(f"{UID_PREFIX}-"):
                continue
            live = self.find(hit["uid"], {})
            if live is not None and live.mark is not None:
                yield live

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Save it, on top of the version that was found and of no other."""
        folder = self._grafana.get("api", "folders", item.content["folder"])
        version = {} if live is None else {"version": live.version}
        body = {
            "dashboard": {**marked(item.content["model"], item.uid, mark), **version},
            # 7.5 knows the number only, and moves a board without one to General; later versions take the uid.
            "folderId": folder.get("id", 0),
            "folderUid": item.content["folder"],
            "message": "Applied by streamgauge",
            "overwrite": False,
        }
        return _version(self._grafana.write("POST", "api", "dashboards", "db", body=body))

    def delete(self, live: Live) -> None:
        """Delete it."""
        self._grafana.write("DELETE", "api", "dashboards", "uid", live.uid)


_NOT_ACCEPTABLE = 406


def _folder_of(meta: Json) -> str:
    """Return the uid of a board's folder; 7.5 has it in an address only, which may be below a sub-path."""
    if "folderUid" in meta:
        return str(meta["folderUid"])
    found = re.search(r"/dashboards/f/([^/]+)", meta.get("folderUrl", ""))
    return found[1] if found else ""


# --- contact points ----------------------------------------------------------------------------------


class ContactPoints:
    """Contact points, each integration by itself. Grafana gives most of their secrets back masked."""

    has_versions = False

    def __init__(self, grafana: Grafana) -> None:
        self._grafana = grafana

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return a contact point."""
        return next((_contact_point(raw, secrets) for raw in self._all() if raw.get("uid") == uid), None)

    def ours(self) -> Iterable[Live]:
        """Return the contact points that carry our mark."""
        return [live for live in (_contact_point(raw, {}) for raw in self._all()) if live.mark is not None]

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Create or change it, with every secret from the environment: what was read is never written back."""
        secrets = {name: hidden.value for name, hidden in item.secrets.items()}
        self._grafana.hide(*filter(None, secrets.values()))
        settings = {**item.content["settings"], **secrets, MARK_FIELD: mark.text()}
        body = {**item.content, "uid": item.uid, "settings": settings}
        where = ("api", "v1", "provisioning", "contact-points")
        if live is None:
            self._grafana.write("POST", *where, body=body)
        else:
            self._grafana.write("PUT", *where, item.uid, body=body)
        return None

    def delete(self, live: Live) -> None:
        """Delete it; Grafana refuses while a rule or a policy uses it."""
        self._grafana.write("DELETE", "api", "v1", "provisioning", "contact-points", live.uid)

    def _all(self) -> list[Json]:
        return self._grafana.get("api", "v1", "provisioning", "contact-points") or []


def _contact_point(raw: Json, secrets: Mapping[str, Hidden]) -> Live:
    settings = {key: value for key, value in (raw.get("settings") or {}).items() if key != MARK_FIELD}
    mark = Mark.parse((raw.get("settings") or {}).get(MARK_FIELD), raw["uid"])
    names: set[str] = {*secrets, *(mark.secrets if mark else ()), *_masked(settings)}
    for name in names & settings.keys():
        value = settings[name]
        is_wanted = name in secrets and secrets[name].value == value
        is_applied = value == MASKED or is_wanted or (mark is not None and mark.knows(name, str(value)))
        settings[name] = SECRET if is_applied else OTHER_SECRET
    content = {
        "name": raw["name"],
        "type": raw["type"],
        "settings": settings,
        "disableResolveMessage": raw.get("disableResolveMessage", False),
    }
    locked = FROM_FILE if raw.get("provenance") == "file" else None
    return Live(Kind.CONTACT_POINT, raw["uid"], raw["uid"], content, mark, locked=locked)


def _masked(settings: Json) -> set[str]:
    return {name for name, value in settings.items() if value == MASKED}


# --- rule groups -------------------------------------------------------------------------------------


def group_uid(folder: str, name: str) -> str:
    """Return what a rule group is known by here: it has no uid of its own."""
    return f"{folder}/{name}"


def group_content(raw: Json) -> Json:
    """Return the content of a rule group as the API takes or gives it, without what a server adds."""
    return {"interval": raw["interval"], "rules": [_rule(rule) for rule in raw["rules"]]}


class RuleGroups:
    """Rule groups. Every rule of a group carries its mark, and what is written replaces the whole group."""

    has_versions = False

    def __init__(self, grafana: Grafana, folder: str) -> None:
        self._grafana, self._folder = grafana, folder

    def find(self, uid: str, secrets: Mapping[str, Hidden]) -> Live | None:
        """Return a rule group."""
        raw = self._grafana.find(*_group_path(uid))
        if not raw or not raw.get("rules"):
            return None
        marks = [Mark.parse((rule.get("annotations") or {}).get(MARK_ANNOTATION), uid) for rule in raw["rules"]]
        # Only a rule by itself tells where it comes from.
        first = self._grafana.find("api", "v1", "provisioning", "alert-rules", raw["rules"][0]["uid"]) or {}
        locked = FROM_FILE if first.get("provenance") == "file" else None
        mark = next(filter(None, marks), None)
        return Live(Kind.RULE_GROUP, uid, raw["title"], group_content(raw), mark, locked=locked)

    def ours(self) -> Iterable[Live]:
        """Return the rule groups in our folder that carry our mark."""
        rules = self._grafana.get("api", "v1", "provisioning", "alert-rules") or []
        names = dict.fromkeys(rule["ruleGroup"] for rule in rules if rule["folderUID"] == self._folder)
        for name in names:
            live = self.find(group_uid(self._folder, name), {})
            if live is not None and live.mark is not None:
                yield live

    def put(self, item: Item, mark: Mark, live: Live | None) -> int | None:
        """Write the group. Its answer only repeats the request, so nothing is taken from that."""
        folder, _, name = item.uid.partition("/")
        rules = [
            {
                **_spelled(rule),
                "annotations": {**rule.get("annotations", {}), MARK_ANNOTATION: mark.text()},
                "orgID": 1,
                "folderUID": folder,
                "ruleGroup": name,
            }
            for rule in item.content["rules"]
        ]
        body = {"title": name, "folderUid": folder, "interval": item.content["interval"], "rules": rules}
        self._grafana.write("PUT", *_group_path(item.uid), body=body)
        return None

    def delete(self, live: Live) -> None:
        """Delete the group: writing it without rules would leave them."""
        self._grafana.write("DELETE", *_group_path(live.uid))


def _group_path(uid: str) -> tuple[str, ...]:
    folder, _, name = uid.partition("/")
    return ("api", "v1", "provisioning", "folder", folder, "rule-groups", name)


_SERVERS_OWN = frozenset({"id", "orgID", "folderUID", "ruleGroup", "updated", "provenance"})
_DURATIONS = ("for", "keep_firing_for")
_DEFAULTS: Json = {"annotations": {}, "labels": {}, "isPaused": False, "for": 0, "keep_firing_for": 0}


def _rule(raw: Json) -> Json:
    """Return a rule without what a server adds, durations in seconds, and defaults where they are left out."""
    kept = {key: value for key, value in raw.items() if key not in _SERVERS_OWN and value is not None}
    rule = {**_DEFAULTS, **kept, "data": [_node(each) for each in raw["data"]]}
    rule |= {key: seconds(rule[key]) for key in _DURATIONS}
    rule["annotations"] = {key: value for key, value in rule["annotations"].items() if key != MARK_ANNOTATION}
    return rule


def _node(raw: Json) -> Json:
    model = {"intervalMs": 1000, "maxDataPoints": 43200, **raw["model"]}
    kept = {key: value for key, value in raw.items() if not (key == "queryType" and not value)}
    return {"relativeTimeRange": {"from": 0, "to": 0}, **kept, "model": model}


def _spelled(rule: Json) -> Json:
    return {**rule, **{key: f"{rule[key]}s" for key in _DURATIONS}}


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}


def seconds(duration: str | float) -> float:
    """Return a duration of Prometheus' spelling in seconds: 5m, 300s and 5m0s are the same."""
    if not isinstance(duration, str):
        return duration
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))
