"""The half of the stand-in below /apis: boards and folders as objects of Kubernetes' form (Grafana 12 and 13).

From sources, upstream's tests and documentation; never held against a running server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dashboards.fake_grafana import Answer, FakeGrafana, Handler, Json


def routes(fake: FakeGrafana) -> Iterator[tuple[str, str, Handler]]:
    """Yield the endpoints."""
    apis = _Apis(fake)
    yield "GET", "/apis", apis.list_groups
    for kind in ("dashboard", "folder"):
        base = f"/apis/{kind}.grafana.app/([^/]+)/namespaces/{re.escape(fake.faults.namespace)}/{kind}s"
        yield "GET", base, getattr(apis, f"list_{kind}s")
        yield "GET", f"{base}/([^/]+)", getattr(apis, f"get_{kind}")
        yield "POST", base, getattr(apis, f"create_{kind}")
        yield "PUT", f"{base}/([^/]+)", getattr(apis, f"update_{kind}")
        yield "DELETE", f"{base}/([^/]+)", getattr(apis, f"delete_{kind}")


class _Apis:
    def __init__(self, fake: FakeGrafana) -> None:
        self._fake = fake

    def list_groups(self) -> Answer:
        listed = [
            {
                "name": name,
                "versions": [{"groupVersion": f"{name}/{version}", "version": version} for version in versions],
            }
            for name, versions in self._fake.faults.groups
        ]
        return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}

    # --- boards ---------------------------------------------------------------------------------------

    def list_dashboards(self, version: str) -> Answer:
        listed = [_board(stored, version) for stored in self._fake.boards.values()]
        return 200, {"kind": "DashboardList", "metadata": {}, "items": listed}

    def get_dashboard(self, version: str, name: str) -> Answer:
        stored = self._fake.boards.get(name)
        return _missing("dashboards.dashboard", name) if stored is None else (200, _board(stored, version))

    def create_dashboard(self, version: str, body: Json) -> Answer:
        name = body["metadata"]["name"]
        if name in self._fake.boards:
            return _conflict("AlreadyExists", f'dashboards.dashboard.grafana.app "{name}" already exists')
        folder = _folder(body)
        if folder and folder not in self._fake.folders:
            return _missing("folders.folder", folder)
        return 201, _board(self._fake.add_board(name, _spec(body, version), folder), version)

    def update_dashboard(self, version: str, name: str, body: Json) -> Answer:
        stored = self._fake.boards.get(name)
        if stored is None:
            return _missing("dashboards.dashboard", name)
        sent = body["metadata"].get("resourceVersion")
        if sent and sent != str(stored["model"]["version"]) and not self._fake.faults.stale_saves_pass:
            return _conflict("Conflict", "requested RV does not match current RV")
        model, folder = stored["model"], _folder(body)
        if folder and folder not in self._fake.folders:
            return _missing("folders.folder", folder)
        saved = {**_spec(body, version), "id": model["id"], "uid": name, "version": model["version"] + 1}
        stored |= {"model": dict(sorted(saved.items())), "folder": folder}
        return 200, _board(stored, version)

    def delete_dashboard(self, version: str, name: str) -> Answer:
        del version
        if self._fake.boards.pop(name, None) is None:
            return _missing("dashboards.dashboard", name)
        return 200, {"kind": "Status", "status": "Success"}

    # --- folders --------------------------------------------------------------------------------------

    def list_folders(self, version: str) -> Answer:
        listed = [_folder_object(stored, version) for stored in self._fake.folders.values()]
        return 200, {"kind": "FolderList", "metadata": {}, "items": listed}

    def get_folder(self, version: str, name: str) -> Answer:
        stored = self._fake.folders.get(name)
        return _missing("folders.folder", name) if stored is None else (200, _folder_object(stored, version))

    def create_folder(self, version: str, body: Json) -> Answer:
        name = body["metadata"]["name"]
        if name in self._fake.folders:
            return _conflict("AlreadyExists", f'folders.folder.grafana.app "{name}" already exists')
        return 201, _folder_object(self._fake.add_folder(name, body["spec"]["title"]), version)

    def update_folder(self, version: str, name: str, body: Json) -> Answer:
        stored = self._fake.folders.get(name)
        if stored is None:
            return _missing("folders.folder", name)
        sent = body["metadata"].get("resourceVersion")
        if sent and sent != str(stored["version"]):
            return _conflict("Conflict", "requested RV does not match current RV")
        stored |= {"title": body["spec"]["title"], "version": stored["version"] + 1}
        return 200, _folder_object(stored, version)

    def delete_folder(self, version: str, name: str) -> Answer:
        del version
        if self._fake.folders.pop(name, None) is None:
            return _missing("folders.folder", name)
        return 200, {"kind": "Status", "status": "Success"}


FOLDER = "grafana.app/folder"
NEWEST_SCHEMA = 42


def _folder(body: Json) -> str:
    return str(body["metadata"].get("annotations", {}).get(FOLDER, ""))


def _spec(body: Json, version: str) -> Json:
    """Return a spec as it is stored: from v1 on it is migrated to the newest schema version first."""
    newest = {} if version == "v0alpha1" else {"schemaVersion": NEWEST_SCHEMA}
    kept = {key: value for key, value in body["spec"].items() if key not in {"id", "uid", "version"}}
    return {**kept, **newest}


def _board(stored: Json, version: str) -> Json:
    model = stored["model"]
    annotations: dict[str, Any] = {"grafana.app/createdBy": "user:1", "grafana.app/updatedBy": "user:1"}
    if stored["folder"]:
        annotations[FOLDER] = stored["folder"]
    return {
        "kind": "Dashboard",
        "apiVersion": f"dashboard.grafana.app/{version}",
        "metadata": {
            "name": model["uid"],
            "uid": f"object-{model['id']}",
            "resourceVersion": str(model["version"]),
            "generation": model["version"],
            "labels": {"grafana.app/deprecatedInternalID": str(model["id"])},
            "annotations": annotations,
        },
        "spec": {key: value for key, value in model.items() if key not in {"id", "uid", "version"}},
        "status": {},
    }


def _folder_object(stored: Json, version: str) -> Json:
    return {
        "kind": "Folder",
        "apiVersion": f"folder.grafana.app/{version}",
        "metadata": {
            "name": stored["uid"],
            "resourceVersion": str(stored["version"]),
            "generation": stored["version"],
            "labels": {"grafana.app/deprecatedInternalID": str(stored["id"])},
        },
        "spec": {"title": stored["title"]},
    }


def _missing(kind: str, name: str) -> Answer:
    return 404, _status(404, "NotFound", f'{kind}.grafana.app "{name}" not found')


def _conflict(reason: str, text: str) -> Answer:
    return 409, _status(409, reason, f"Operation cannot be fulfilled: {text}" if reason == "Conflict" else text)


def _status(code: int, reason: str, message: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
