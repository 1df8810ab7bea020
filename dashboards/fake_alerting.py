"""The alerting half of the stand-in: rule groups and contact points, as the provisioning API of Grafana 11 to 13.

From sources, upstream's tests and documentation; never held against a running server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dashboards.fake_grafana import Answer, FakeGrafana, Handler, Json

MASKED = "[REDACTED]"

SECRET_SETTINGS = {
    "slack": {"url", "token"},
    "pagerduty": {"integrationKey"},
    "teams": {"url"},
    "webhook": {"password", "authorization_credentials"},
}
"""What is given back masked, by the type of contact point. The URL of a webhook is not."""

KNOWN_SETTINGS = {
    "email": {"addresses", "subject", "message", "singleEmail"},
    "slack": {"url", "token", "recipient", "title", "text"},
    "pagerduty": {"integrationKey", "severity", "summary"},
    "teams": {"url", "title", "message"},
    "webhook": {"url", "httpMethod", "username", "password", "authorization_credentials", "authorization_scheme"},
}

BASE = "/api/v1/provisioning"
API = "api"
"""Provenance of what was written by this API."""

_INTERVAL_SECONDS = 10  # the scheduler's base interval


def routes(fake: FakeGrafana) -> Iterator[tuple[str, str, Handler]]:
    """Yield the endpoints."""
    alerting = _Alerting(fake)
    group = f"{BASE}/folder/([^/]+)/rule-groups/([^/]+)"
    yield "GET", f"{BASE}/contact-points", alerting.list_points
    yield "POST", f"{BASE}/contact-points", alerting.create_point
    yield "PUT", f"{BASE}/contact-points/([^/]+)", alerting.update_point
    yield "DELETE", f"{BASE}/contact-points/([^/]+)", alerting.delete_point
    yield "GET", f"{BASE}/alert-rules", alerting.list_rules
    yield "GET", f"{BASE}/alert-rules/([^/]+)", alerting.get_rule
    yield "GET", group, alerting.get_group
    yield "PUT", group, alerting.put_group
    yield "DELETE", group, alerting.delete_group


class _Alerting:
    def __init__(self, fake: FakeGrafana) -> None:
        self._fake = fake

    # --- contact points -------------------------------------------------------------------------------

    def list_points(self) -> Answer:
        listed = sorted(self._fake.points.values(), key=lambda each: each["name"])
        return 200, [_masked(each) for each in listed]

    def create_point(self, body: Json) -> Answer:
        self._check(body)
        uid = body.get("uid") or self._fake.generated_uid()
        if uid in self._fake.points:
            return self._fake.faults.point_exists_status, {"message": "receiver configuration with the same uid exists"}
        self._fake.points[uid] = {**self._kept(body), "uid": uid, "provenance": API}
        return 202, _masked(self._fake.points[uid])

    def update_point(self, uid: str, body: Json) -> Answer:
        stored = self._fake.points.get(uid)
        if stored is None:
            return 404, {"message": "contact point with uid not found"}
        self._check(body)
        if stored["provenance"] == "file":
            return 409, {"message": "cannot change provenance from 'file' to 'api'"}
        kept = self._kept(body)
        # A masked value that comes back means: as it was.
        for name, value in kept["settings"].items():
            if value == MASKED:
                kept["settings"][name] = stored["settings"].get(name, MASKED)
        self._fake.points[uid] = {**kept, "uid": uid, "provenance": API}
        return 202, {"message": "contactpoint updated"}

    def delete_point(self, uid: str) -> Answer:
        stored = self._fake.points.get(uid)
        if stored is None:
            return 404, {"message": "contact point not found"}
        others = [each for each in self._fake.points.values() if each["name"] == stored["name"] and each is not stored]
        if not others and stored["name"] in self._used():
            text = "contact point is currently used by a notification policy or alert rule"
            return self._fake.faults.point_in_use_status, {"message": text}
        del self._fake.points[uid]
        return 202, {"message": "contactpoint deleted"}

    def _check(self, body: Json) -> None:
        from dashboards.fake_grafana import Refusal  # noqa: PLC0415 - it imports this module

        settings = body.get("settings") or {}
        needed = {"webhook": "url", "slack": "url", "teams": "url", "email": "addresses", "pagerduty": "integrationKey"}
        name = needed.get(body.get("type", ""))
        if name is None or not settings.get(name):
            # Upstream repeats what it was given in some of these texts.
            raise Refusal(400, f"invalid contact point: required field '{name}' is not specified in {settings}")

    def _kept(self, body: Json) -> Json:
        known = KNOWN_SETTINGS[body["type"]] if self._fake.faults.drops_unknown_settings else None
        settings = {key: value for key, value in body["settings"].items() if known is None or key in known}
        return {
            "name": body["name"],
            "type": body["type"],
            "settings": settings,
            "disableResolveMessage": body.get("disableResolveMessage", False),
        }

    def _used(self) -> set[str]:
        rules = (rule for group in self._fake.groups.values() for rule in group["rules"])
        named = {rule["notification_settings"]["receiver"] for rule in rules if rule.get("notification_settings")}
        return named | self._fake.policy_receivers

    # --- rules ----------------------------------------------------------------------------------------

    def list_rules(self) -> Answer:
        return 200, [self._given(rule) for group in self._fake.groups.values() for rule in group["rules"]]

    def get_rule(self, uid: str) -> Answer:
        for group in self._fake.groups.values():
            for rule in group["rules"]:
                if rule["uid"] == uid:
                    return 200, {**self._given(rule), "provenance": group["provenance"]}
        return 404, None

    def get_group(self, folder: str, name: str) -> Answer:
        group = self._fake.groups.get((folder, name))
        if group is None:
            return 404, {"message": "rule group not found"}
        given = [self._given(rule) for rule in group["rules"]]
        return 200, {"title": name, "folderUid": folder, "interval": group["interval"], "rules": given}

    def put_group(self, folder: str, name: str, body: Json) -> Answer:
        if folder not in self._fake.folders:
            return 400, {"message": "bad request data"}
        interval = body.get("interval", 60)
        if interval <= 0 or interval % _INTERVAL_SECONDS:
            return 400, {"message": f"interval must be a multiple of {_INTERVAL_SECONDS} seconds"}
        stored = self._fake.groups.get((folder, name))
        if stored and stored["provenance"] == "file":
            return 409, {"message": "cannot update with provided provenance 'api', needs 'file'"}
        rules = body.get("rules") or []
        names = {each["name"] for each in self._fake.points.values()}
        for rule in rules:
            if not re.fullmatch(r"[a-zA-Z0-9-_]{1,40}", rule["uid"]):
                return 400, {"message": "invalid alert rule: uid is not valid"}
            receiver = (rule.get("notification_settings") or {}).get("receiver")
            if receiver and receiver not in names:
                return 400, {"message": f"invalid alert rule: receiver {receiver!r} does not exist"}
        if not rules and stored:
            # No rules means: change only the interval.
            stored["interval"] = interval
        else:
            number = self._fake.next_id("rule group")
            kept = [_stored_rule(rule, folder, name, number + index) for index, rule in enumerate(rules)]
            self._fake.groups[folder, name] = {"interval": interval, "rules": kept, "provenance": API}
        return 200, body

    def delete_group(self, folder: str, name: str) -> Answer:
        if self._fake.groups.pop((folder, name), None) is None:
            return 404, {"message": "rule group not found"}
        return 204, None

    def _given(self, rule: Json) -> Json:
        more = {"missingDataHandling": "usual"} if self._fake.faults.fills_in_rules else {}
        return {**rule, **more}


def _masked(stored: Json) -> Json:
    secret = SECRET_SETTINGS.get(stored["type"], set())
    settings = {name: MASKED if name in secret else value for name, value in stored["settings"].items()}
    return {**stored, "settings": settings}


_RULE_FIELDS = (
    "uid", "title", "condition", "noDataState", "execErrState", "isPaused", "missingSeriesEvalsToResolve",
)  # fmt: skip


def _stored_rule(rule: Json, folder: str, group: str, number: int) -> Json:
    """Return a rule as it is given out later: known fields alone, durations spelled anew, defaults filled in."""
    given: dict[str, Any] = {
        "id": number,
        "orgID": 1,
        "folderUID": folder,
        "ruleGroup": group,
        "updated": "2026-11-23T13:30:54Z",
        **{key: rule[key] for key in _RULE_FIELDS if key in rule},
        "data": [_stored_node(node) for node in rule["data"]],
        "for": _spelled(rule.get("for", "0s")),
        "keep_firing_for": _spelled(rule.get("keep_firing_for", "0s")),
        "notification_settings": rule.get("notification_settings"),
        "record": None,
        **{key: rule[key] for key in ("annotations", "labels") if rule.get(key)},
    }
    given.setdefault("isPaused", False)
    return given


def _stored_node(node: Json) -> Json:
    model = {"intervalMs": 1000, "maxDataPoints": 43200, **node["model"]}
    return {
        "refId": node["refId"],
        "queryType": model.get("queryType", ""),
        "relativeTimeRange": node.get("relativeTimeRange", {"from": 0, "to": 0}),
        "datasourceUid": node["datasourceUid"],
        "model": dict(sorted(model.items())),
    }


def _spelled(duration: str) -> str:
    """Spell a duration as Prometheus does: 90s is 1m30s."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
    left = round(sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)(ms|[smhd])", duration)))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"
