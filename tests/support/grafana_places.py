"""Grafanas to provision in tests: the stand-in in both profiles, and a real one where GRAFANA_URL names it.

What people do there is done through the same HTTP API, so that it can be done on a real server as well.
"""

import os

import pytest

from dashboards.fake_grafana import FakeGrafana, Profile
from dashboards.grafana import Grafana, Patience, connect
from dashboards.marks import Mark
from dashboards.provision import SECRET, Action, Hidden, Item, Kind, Provisioner
from dashboards.shelves import DATASOURCE_PASSWORD, board_content, folder_content, group_content, shelves
from monitor.settings import Grafana as GrafanaSettings

FOLDER = "streamgauge"
DATASOURCE = "streamgauge-prometheus"
ONE, TWO = "streamgauge-one", "streamgauge-two"
GROUP = f"{FOLDER}/rules"
HOOK, SLACK = "streamgauge-critical-webhook-1", "streamgauge-critical-slack-1"
HOOK_URL, SLACK_URL, PASSWORD = "http://hook.example/aaa111", "https://slack.example/bbb222", "ccc333"

PROFILES = [pytest.param(Profile.SEVEN_FIVE, id="7.5"), pytest.param(Profile.MODERN, id="modern")]
PLACES = [*PROFILES, *([pytest.param("real", id="real")] if os.environ.get("GRAFANA_URL") else [])]


class Recorder:
    """A transport that counts, and that crashes before its nth request."""

    def __init__(self, transport, crash_at=None):
        self.transport, self.crash_at, self.requests = transport, crash_at, []

    @property
    def url(self):
        return self.transport.url

    def send(self, request):
        if len(self.requests) == self.crash_at:
            raise Crash
        self.requests.append(request)
        return self.transport.send(request)

    @property
    def writes(self):
        return [(request.method, request.path) for request in self.requests if request.method != "GET"]


class Crash(BaseException):
    """The process ends here."""


class Place:
    """One Grafana, and what is to be there."""

    def __init__(self, transport, fake=None):
        self.transport, self.fake = transport, fake
        self.people = Grafana(transport)
        self.has_alerting = self.provisioner()[0].has_alerting

    def provisioner(self, crash_at=None):
        """A provisioner as a new process has it, with what it sends."""
        recorder = Recorder(self.transport, crash_at)
        return Process(recorder), recorder

    def plan(self, wanted, **options):
        return self.provisioner()[0].plan(wanted, **options)

    def apply(self, wanted, **options):
        return self.provisioner()[0].apply(wanted, **options)

    def wanted(self, *, boards=(ONE, TWO), change="", hook=HOOK_URL, receiver=True):
        """What is to be there; ``change`` makes every content another."""
        items = [folder(), datasource(f"http://prometheus{change}.example"), *(board(uid, change) for uid in boards)]
        if self.has_alerting:
            points = [webhook(hook, change), slack(change)] if receiver else []
            items += [*points, rules(change, has_receiver=receiver)]
        return items


class Process(Provisioner):
    """A provisioner with shelves of its own."""

    def __init__(self, transport):
        grafana = Grafana(transport, patience=Patience(), sleep=lambda seconds: None)
        found = shelves(grafana, FOLDER)
        self.has_alerting = Kind.RULE_GROUP in found
        super().__init__(found)

    def apply(self, wanted, **options):
        return super().apply(wanted, say=options.pop("say", lambda step: None), **options)


def fake_place(profile, faults=None):
    fake = FakeGrafana(profile, faults)
    return Place(fake, fake)


def real_place():
    """The server of GRAFANA_URL, which must not have a folder of ours: everything in it is made and deleted here."""
    environ = os.environ
    grafana = connect(
        GrafanaSettings(
            url=environ["GRAFANA_URL"],
            token=environ.get("GRAFANA_TOKEN"),
            username=environ.get("GRAFANA_USER"),
            password=environ.get("GRAFANA_PASSWORD"),
        )
    )
    if grafana.find("api", "folders", FOLDER):
        pytest.fail(f"the Grafana at {grafana.url} has a folder {FOLDER}: name one that can be played with")
    return Place(grafana._transport)


# --- what is to be there -----------------------------------------------------------------------------


def folder():
    return Item(Kind.FOLDER, FOLDER, FOLDER, folder_content(FOLDER))


def datasource(url, password=PASSWORD):
    content = {
        "name": "streamgauge", "type": "prometheus", "access": "proxy", "url": url, "basicAuth": True,
        "basicAuthUser": "grafana", "jsonData": {"timeInterval": "15s", "httpMethod": "POST"},
        "secrets": [DATASOURCE_PASSWORD],
    }  # fmt: skip
    hidden = {DATASOURCE_PASSWORD: Hidden("PROMETHEUS_PASSWORD", password)}
    return Item(Kind.DATASOURCE, DATASOURCE, "streamgauge", content, hidden)


def model(uid, change=""):
    panel = {"id": 7, "type": "stat", "title": f"Panel{change}", "gridPos": {"x": 0, "y": 0, "w": 6, "h": 4}}
    return {
        "title": f"Board {uid}", "tags": ["streamgauge"], "schemaVersion": 27, "editable": False, "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"}, "annotations": {"list": []}, "templating": {"list": []},
        "panels": [panel],
    }  # fmt: skip


def board(uid, change=""):
    return Item(Kind.BOARD, uid, uid, board_content(FOLDER, model(uid, change)))


def webhook(url=HOOK_URL, change=""):
    settings = {"url": SECRET, **({"httpMethod": "PUT"} if change else {})}
    content = {"name": "streamgauge-critical", "type": "webhook", "settings": settings, "disableResolveMessage": False}
    return Item(Kind.CONTACT_POINT, HOOK, HOOK, content, {"url": Hidden("HOOK_URL", url)})


def slack(change=""):
    settings = {"url": SECRET, "title": f"Title{change}"}
    content = {"name": "streamgauge-critical", "type": "slack", "settings": settings, "disableResolveMessage": False}
    return Item(Kind.CONTACT_POINT, SLACK, SLACK, content, {"url": Hidden("SLACK_URL", SLACK_URL)})


def rule(name, change="", has_receiver=True):
    query = {
        "refId": "A", "relativeTimeRange": {"from": 600, "to": 0}, "datasourceUid": DATASOURCE,
        "model": {"refId": "A", "expr": f"up{change}", "instant": True},
    }  # fmt: skip
    receiver = {"notification_settings": {"receiver": "streamgauge-critical"}} if has_receiver else {}
    return {
        "uid": name, "title": name, "condition": "A", "data": [query], "noDataState": "OK", "execErrState": "KeepLast",
        "for": "5m", "keep_firing_for": "90s", "missingSeriesEvalsToResolve": 1, "isPaused": False,
        "annotations": {"summary": "s"}, "labels": {"severity": "critical"}, **receiver,
    }  # fmt: skip


def rules(change="", has_receiver=True):
    named = ("StreamgaugeTestOne", "StreamgaugeTestTwo")
    raw = {"interval": 60, "rules": [rule(name, change, has_receiver) for name in named]}
    return Item(Kind.RULE_GROUP, GROUP, "rules", group_content(raw))


# --- what people do ----------------------------------------------------------------------------------


def edit_board(place, uid=ONE, title="Mine"):
    """Somebody gives a board's panel another title, as the editor saves it."""
    raw = place.people.get("api", "dashboards", "uid", uid)
    raw["dashboard"]["panels"][0]["title"] = title
    save(place, raw["dashboard"], raw["meta"]["folderId"], raw["meta"].get("folderUid"))


def move_board(place, uid=ONE):
    raw = place.people.get("api", "dashboards", "uid", uid)
    save(place, raw["dashboard"], 0, "")


def save(place, model, folder_id, folder_uid):
    body = {"dashboard": model, "folderId": folder_id, "folderUid": folder_uid, "overwrite": False}
    place.people.write("POST", "api", "dashboards", "db", body=body)


def new_board(place, uid, in_ours=True, **more):
    """Somebody makes a board of their own."""
    raw = place.people.get("api", "folders", FOLDER) if in_ours else {"id": 0}
    save(place, {**model(uid), "uid": uid, "title": f"Theirs {uid}", **more}, raw["id"], raw.get("uid"))


def copy_board(place, uid, copy):
    """Somebody saves a board of ours under another name: our mark is copied as well."""
    raw = place.people.get("api", "dashboards", "uid", uid)
    kept = {key: value for key, value in raw["dashboard"].items() if key not in {"id", "version"}}
    save(place, {**kept, "uid": copy, "title": "A copy"}, raw["meta"]["folderId"], raw["meta"].get("folderUid"))


def rename_folder(place):
    raw = place.people.get("api", "folders", FOLDER)
    place.people.write("PUT", "api", "folders", FOLDER, body={"title": "Theirs", "version": raw["version"]})


def edit_datasource(place):
    raw = place.people.get("api", "datasources", "uid", DATASOURCE)
    body = {**raw, "url": "http://theirs.example"}
    where = ("uid", DATASOURCE) if place.has_alerting else (str(raw["id"]),)
    place.people.write("PUT", "api", "datasources", *where, body=body)


def _group(place):
    return ("api", "v1", "provisioning", "folder", FOLDER, "rule-groups", "rules")


def edit_rule(place):
    raw = place.people.get(*_group(place))
    raw["rules"][0]["for"] = "1h"
    place.people.write("PUT", *_group(place), body=raw)


def add_rule(place):
    raw = place.people.get(*_group(place))
    raw["rules"].append(rule("Theirs", has_receiver=False))
    place.people.write("PUT", *_group(place), body=raw)


def edit_contact(place):
    points = place.people.get("api", "v1", "provisioning", "contact-points")
    raw = next(each for each in points if each["uid"] == SLACK)
    raw["settings"]["title"] = "Mine"
    place.people.write("PUT", "api", "v1", "provisioning", "contact-points", SLACK, body=raw)


# --- what is there -----------------------------------------------------------------------------------


def pending(steps):
    """What is not as wanted."""
    return [(step.action, step.uid) for step in steps if step.action not in {Action.NOTHING, Action.UNMARKED}]


def contents(place, wanted):
    """What is there of what is wanted, without marks and versions, and with its secrets where they can be seen."""
    process, _ = place.provisioner()
    found = {(item.kind, item.uid): process._find(item) for item in wanted}
    secrets = {uid: each["settings"]["url"] for uid, each in place.fake.points.items()} if place.fake else {}
    return {key: live and (live.content, isinstance(live.mark, Mark)) for key, live in found.items()}, secrets
