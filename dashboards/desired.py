"""What is wanted in Grafana: a folder, a data source for Prometheus, the boards, the alerts and their contacts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from alerts import grafana as alert_rules
from alerts.contacts import Secret, for_grafana
from dashboards.board import Board
from dashboards.files import BOARDS
from dashboards.grafana import Grafana as Server
from dashboards.provision import SECRET, Hidden, Item, Kind
from dashboards.schema_27 import translated
from dashboards.shelves import (
    DATASOURCE_PASSWORD,
    board_content,
    folder_content,
    group_content,
    group_uid,
    has_alerting,
)
from monitor.settings import Grafana, Settings

FOLDER = alert_rules.FOLDER
"""Uid and title of the folder; what provisions itself from files has the same."""


NEW_MODEL = 10
"""The first version of Grafana for which boards are written; for those before they are translated."""


def reads_old_models(server: Server) -> bool:
    """Return whether boards have to be translated for a Grafana; in doubt, if it has no alerting yet."""
    found = re.match(r"(\d+)\.", server.abilities.version or "")
    return int(found[1]) < NEW_MODEL if found else not has_alerting(server)


def wanted_boards(grafana: Grafana, *, is_old: bool, boards: Sequence[Board] = BOARDS) -> list[Item]:
    """Return the folder, the data source unless there is one already, and the boards, in the form of old or of new."""
    models = [(board, translated(board.json()) if is_old else board.json()) for board in boards]
    return [
        *_common(grafana),
        *(Item(Kind.BOARD, board.uid, board.title, board_content(FOLDER, model)) for board, model in models),
    ]


def wanted_alerts(grafana: Grafana, settings: Settings | None, environ: Mapping[str, str]) -> list[Item]:
    """Return the folder, the data source, the contact points of the settings and the rule group.

    A variable that is not set in the environment is no mistake before something has to be written with it.
    """
    points = for_grafana(settings) if settings else []
    texts = alert_rules.render(
        datasource_uid=datasource_uid(grafana),
        receivers=alert_rules.receivers_of(settings) if settings else None,
        runbooks_url=grafana.runbooks_url,
        grafana_url=grafana.url,
    )
    group = json.loads(texts[alert_rules.GROUP_FILE])
    name = group_uid(FOLDER, alert_rules.GROUP)
    return [
        *_common(grafana),
        *(_contact_point(point, environ) for point in points),
        Item(Kind.RULE_GROUP, name, alert_rules.GROUP, group_content(group)),
    ]


def datasource_uid(grafana: Grafana) -> str:
    """Return the uid of the data source that rules ask."""
    return grafana.datasource_uid or alert_rules.DATASOURCE_UID


def _common(grafana: Grafana) -> list[Item]:
    folder = Item(Kind.FOLDER, FOLDER, FOLDER, folder_content(FOLDER))
    return [folder] if grafana.datasource_uid else [folder, _datasource(grafana)]


def _datasource(grafana: Grafana) -> Item:
    password = grafana.prometheus_password
    hidden = (
        {DATASOURCE_PASSWORD: Hidden("grafana.prometheus_password", password.get_secret_value())} if password else {}
    )
    content = {
        "name": "streamgauge",
        "type": "prometheus",
        "access": "proxy",
        "url": grafana.prometheus_url,
        "basicAuth": grafana.prometheus_username is not None,
        "basicAuthUser": grafana.prometheus_username or "",
        "jsonData": {"timeInterval": f"{grafana.scrape_interval_seconds}s", "httpMethod": "POST"},
        "secrets": [*hidden],
    }
    return Item(Kind.DATASOURCE, alert_rules.DATASOURCE_UID, "streamgauge", content, hidden)


def _contact_point(point: Mapping[str, object], environ: Mapping[str, str]) -> Item:
    settings = point["settings"]
    assert isinstance(settings, dict)  # noqa: S101 - its maker says so
    uid = str(point["uid"])
    hidden = {
        name: Hidden(value.variable, environ.get(value.variable) or None)
        for name, value in settings.items()
        if isinstance(value, Secret)
    }
    content = {key: value for key, value in point.items() if key != "uid"}
    content["settings"] = {name: SECRET if name in hidden else value for name, value in settings.items()}
    return Item(Kind.CONTACT_POINT, uid, uid, content, hidden)
