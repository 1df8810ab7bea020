"""Boards and folders below /apis, for a Grafana that no longer has them below /api."""

import grafana_places as at
import pytest

from dashboards.apis import are_there
from dashboards.fake_grafana import FakeGrafana, Faults, Profile
from dashboards.grafana import Grafana
from dashboards.provision import Action


def place_with(versions):
    groups = (("dashboard.grafana.app", versions), ("folder.grafana.app", ("v1",)))
    return at.fake_place(Profile.MODERN, Faults(legacy_is_gone=True, groups=groups))


@pytest.fixture(params=["v1", "v0alpha1"])
def place(request):
    """A Grafana without the older endpoints, which has boards in this version; v1 migrates what it is given."""
    return place_with((request.param,))


def edit(place, uid=at.ONE):
    """Somebody saves a board with another panel title."""
    model = place.fake.boards[uid]["model"]
    model["panels"][0]["title"] = "Mine"
    model["version"] += 1


def test_everything_is_applied_and_taken_away_again(place):
    """The plan is empty after an apply, follows what is wanted, and destroy leaves nothing."""
    wanted = place.wanted()

    assert [(Action.CREATE, item.uid) for item in wanted] == at.pending(place.apply(wanted))
    assert [] == at.pending(place.plan(wanted))
    place.apply(place.wanted(change="2", boards=(at.ONE,)))
    assert [] == at.pending(place.plan(place.wanted(change="2", boards=(at.ONE,))))
    assert [at.ONE] == list(place.fake.boards)
    place.provisioner()[0].destroy(say=lambda step: None)

    assert ({}, {}, {}) == (place.fake.boards, place.fake.folders, place.fake.datasources)


def test_only_the_newer_endpoints_are_used_for_boards_and_folders(place):
    """Nothing is written to the older ones, and the version that is offered is the one that is asked."""
    process, sent = place.provisioner()

    process.apply(place.wanted())

    boards = [path for method, path in sent.writes if "dashboard" in path]
    version = place.fake.faults.groups[0][1][0]
    assert boards
    assert {f"/apis/dashboard.grafana.app/{version}/namespaces/default/dashboards"} == {
        path.removesuffix(f"/{at.ONE}").removesuffix(f"/{at.TWO}") for path in boards
    }
    assert [] == [path for _, path in sent.writes if path.startswith(("/api/folders", "/api/dashboards"))]


def test_another_organisation_has_a_namespace_of_its_own():
    """Grafana says which; objects of the first organisation are not looked at."""
    place = at.fake_place(Profile.MODERN, Faults(legacy_is_gone=True, namespace="org-2"))

    place.apply(place.wanted())

    assert [] == at.pending(place.plan(place.wanted()))
    assert {at.ONE, at.TWO} == set(place.fake.boards)


def test_what_somebody_changed_is_seen_left_and_forced(place):
    """Drift, conflict and force are as they are below /api."""
    wanted = place.wanted()
    place.apply(wanted)
    edit(place)

    assert [(Action.DRIFTED, at.ONE)] == at.pending(place.plan(wanted))
    process, sent = place.provisioner()
    assert (Action.CONFLICT, at.ONE) in at.pending(process.apply(place.wanted(change="2")))
    assert [] == sent.writes
    place.apply(wanted, force=True)

    assert [] == at.pending(place.plan(wanted))
    assert "Panel" == place.fake.boards[at.ONE]["model"]["panels"][0]["title"]


def test_an_edit_between_reading_and_writing_is_not_written_over(place):
    """The version that was read is sent along, and another one is refused."""
    place.apply(place.wanted())

    def save_first(request):
        if request.method == "PUT" and request.path.endswith(at.ONE):
            place.fake.faults.before = None
            edit(place)

    place.fake.faults.before = save_first
    left = place.apply(place.wanted(change="2"))

    assert (Action.CONFLICT, at.ONE) in at.pending(left)
    assert "Mine" == place.fake.boards[at.ONE]["model"]["panels"][0]["title"]


def test_a_folder_with_strangers_in_it_stays(place):
    """What is in it is looked at before it is deleted."""
    place.apply(place.wanted())
    place.fake.add_board("theirs", at.model("theirs"), at.FOLDER)

    done = place.provisioner()[0].destroy(force=True, say=lambda step: None)

    assert "it still holds board Board theirs" == done[-1].reason
    assert ["theirs"] == list(place.fake.boards)


def test_what_another_tool_manages_is_not_written(place, monkeypatch):
    """An object that says who manages it is theirs to change, whatever --force says."""
    place.apply(place.wanted())
    monkeypatch.setattr("dashboards.apis.MANAGER", "grafana.app/createdBy")  # which the stand-in sets on every board

    left = place.apply(place.wanted(change="2"), force=True)

    assert {(Action.LOCKED, at.ONE), (Action.LOCKED, at.TWO)} <= set(at.pending(left))


def test_a_crash_at_any_request_leaves_a_state_from_which_apply_goes_on():
    """Here as well."""
    number, has_crashed = 0, True
    while has_crashed:
        place = place_with(("v1",))
        wanted = place.wanted()
        try:
            place.provisioner(crash_at=number)[0].apply(wanted)
            has_crashed = False
        except at.Crash:
            place.apply(wanted)
        assert [] == at.pending(place.plan(wanted)), number
        number += 1
    assert number > len(wanted)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        pytest.param((("dashboard.grafana.app", ("v2", "v1")), ("folder.grafana.app", ("v1",))), True, id="both"),
        pytest.param((("dashboard.grafana.app", ("v2",)), ("folder.grafana.app", ("v1",))), False, id="v2 alone"),
        pytest.param((("dashboard.grafana.app", ("v1",)),), False, id="no folders"),
        pytest.param((), False, id="none"),
    ],
)
def test_they_are_there_in_a_version_that_is_known_or_not_at_all(groups, expected):
    """Boards of version 2 have another form, which is not made here."""
    assert expected is are_there(Grafana(FakeGrafana(Profile.MODERN, Faults(groups=groups))))
