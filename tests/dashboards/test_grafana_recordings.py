"""The stand-in for 7.5 answers what a running Grafana 7.5.5 answered: recorded exchanges, replayed in their order."""

import json
from pathlib import Path

import pytest

from dashboards.fake_grafana import FakeGrafana, Profile
from dashboards.grafana import Grafana, Request

DATA = Path(__file__).parents[1] / "data" / "grafana-7.5"
FILES = sorted(DATA.glob("*.jsonl"))

TIMES_AND_PEOPLE = {"created", "updated", "createdBy", "updatedBy"}


def exchanges(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def comparable(value, uids):
    """An answer without times and people, and with the recorded uids in the place of those made up here."""
    match value:
        case dict():
            return {key: comparable(each, uids) for key, each in value.items() if key not in TIMES_AND_PEOPLE}
        case list():
            return [comparable(each, uids) for each in value]
        case str():
            for made, recorded in uids.items():
                value = value.replace(made, recorded)
    return value


def generated(answer, recorded):
    """The uid that was made up for something that came without, here and on the recording."""
    one, other = (each.get("datasource", each) if isinstance(each, dict) else {} for each in (answer, recorded))
    return {one["uid"]: other["uid"]} if str(one.get("uid", "")).startswith("generated") else {}


def started(name):
    """A stand-in in the state in which the recording began."""
    fake = FakeGrafana(Profile.SEVEN_FIVE)
    if name == "file-provisioning":
        fake.add_folder("from-files", "From files")
        fake.add_board(
            "f-locked", {"title": "File locked", "tags": ["file"], "panels": []}, "from-files", provisioned="a.json"
        )
        source = {
            "uid": "file-prom", "name": "File Prometheus", "type": "prometheus", "access": "proxy", "isDefault": True,
            "url": "http://prometheus.example:9090", "jsonData": {"timeInterval": "15s"},
        }  # fmt: skip
        Grafana(fake).write("POST", "api", "datasources", body=source)
        fake.datasources["file-prom"]["readOnly"] = True
    return fake


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_stand_in_answers_as_the_server_did(path):
    """Status and body are the recorded ones, for every request and in the state that those before it left."""
    fake, uids, wrong = started(path.stem), {}, []

    for each in exchanges(path):
        asked, recorded = each["request"], each["response"]
        reply = fake.send(Request(asked["method"], asked["path"], asked["body"]))
        uids |= generated(reply.content(), recorded["body"]) if asked["method"] == "POST" else {}
        said = (reply.status, comparable(reply.content(), uids))
        expected = (recorded["status"], comparable(recorded["body"], {}))
        if said != expected:
            wrong.append((each["number"], each["name"], said, expected))

    assert [] == wrong


def test_every_kind_of_request_that_is_sent_was_recorded():
    """The recordings that are kept cover each endpoint that provisioning uses on 7.5."""
    recorded = {
        (each["request"]["method"], each["request"]["path"].split("?")[0].split("/")[-1 if each["number"] == 3 else 2])
        for path in FILES
        for each in exchanges(path)
    }

    assert {
        ("GET", "health"), ("GET", "search"), ("GET", "folders"), ("POST", "folders"), ("PUT", "folders"),
        ("DELETE", "folders"), ("GET", "datasources"), ("POST", "datasources"), ("PUT", "datasources"),
        ("DELETE", "datasources"), ("GET", "dashboards"), ("POST", "dashboards"), ("DELETE", "dashboards"),
    } <= recorded  # fmt: skip


def test_7_5_has_none_of_the_newer_endpoints():
    """Its version is told, and that there is nothing below /apis."""
    abilities = Grafana(FakeGrafana(Profile.SEVEN_FIVE)).abilities

    assert ("7.5.5", {}) == (abilities.version, abilities.groups)


def test_a_search_by_the_newer_parameter_finds_everything_on_7_5():
    """Recorded as well (159): it does not know folderUIDs and passes over it."""
    fake = FakeGrafana(Profile.SEVEN_FIVE)
    fake.add_folder("one", "One")
    fake.add_board("b", {"title": "B"})
    grafana = Grafana(fake)

    assert grafana.get("api", "search") == grafana.get("api", "search", folderUIDs="one") != []
