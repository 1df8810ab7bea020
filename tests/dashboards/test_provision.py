"""Grafana is made as wanted, once and again, whoever else is at work there, and whatever breaks off half-way.

The same tests run on the stand-in in both profiles, and on the server of GRAFANA_URL where that is set.
"""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grafana_places as at
import pytest

from dashboards.fake_grafana import Faults, Profile
from dashboards.grafana import FaultError, GrafanaError
from dashboards.provision import Action, Kind, NotKeptError, metric_lines
from dashboards.shelves import MARK_FIELD
from monitor.errors import UsageError

REWRITING = {"minimum_refresh_seconds": 60, "fills_in_rules": True}
"""Faults of a server that keeps things otherwise than it is given them."""


@pytest.fixture(params=at.PLACES)
def place(request):
    """A Grafana without anything of ours."""
    if request.param != "real":
        yield at.fake_place(request.param)
        return
    real = at.real_place()
    yield real
    real.provisioner()[0].destroy(force=True, say=lambda step: None)
    for uid in (at.ONE, "theirs", "streamgauge-theirs", "streamgauge-copy"):
        if real.people.find("api", "dashboards", "uid", uid):
            real.people.write("DELETE", "api", "dashboards", "uid", uid)
    real.provisioner()[0].destroy(force=True, say=lambda step: None)


@pytest.fixture
def modern():
    """The stand-in that has alerting."""
    return at.fake_place(Profile.MODERN)


# --- once and again ----------------------------------------------------------------------------------


def test_first_everything_is_missing(place):
    """The plan on an empty Grafana creates everything, what others need first."""
    wanted = place.wanted()

    assert [(Action.CREATE, item.uid) for item in wanted] == at.pending(place.plan(wanted))


def test_after_an_apply_nothing_is_pending(place):
    """An apply leaves an empty plan, and a second one writes nothing."""
    wanted = place.wanted()

    done = place.apply(wanted)
    again, sent = place.provisioner()
    done_again = again.apply(wanted)

    assert [(Action.CREATE, item.uid) for item in wanted] == at.pending(done)
    assert [] == at.pending(place.plan(wanted))
    assert ([], []) == (at.pending(done_again), sent.writes)


def test_what_is_wanted_otherwise_is_updated(place):
    """What nobody has touched follows what is wanted, and only that is written."""
    place.apply(place.wanted())
    wanted = place.wanted(change="2")

    planned = at.pending(place.plan(wanted))
    done = at.pending(place.apply(wanted))

    expected = [(Action.UPDATE, item.uid) for item in wanted if item.kind is not Kind.FOLDER]
    assert (expected, expected) == (planned, done)
    assert [] == at.pending(place.plan(wanted))


def test_the_plan_says_what_differs(place):
    """A step names the paths that differ, what is there and what is wanted."""
    place.apply(place.wanted())

    steps = place.plan(place.wanted(change="2"))

    (step,) = (each for each in steps if each.uid == at.ONE)
    assert ('model.panels[0].title: "Panel" -> "Panel2"',) == step.differences


# --- somebody else -----------------------------------------------------------------------------------

EDITS = [
    pytest.param(at.edit_board, at.ONE, id="a board is edited"),
    pytest.param(at.move_board, at.ONE, id="a board is moved"),
    pytest.param(at.rename_folder, at.FOLDER, id="the folder is renamed"),
    pytest.param(at.edit_datasource, at.DATASOURCE, id="the data source is edited"),
    pytest.param(at.edit_rule, at.GROUP, id="a rule is edited"),
    pytest.param(at.add_rule, at.GROUP, id="a rule is added"),
    pytest.param(at.edit_contact, at.SLACK, id="a contact point is edited"),
]
ALERTING = {at.GROUP, at.SLACK}


@pytest.mark.parametrize(("edit", "uid"), EDITS)
def test_what_somebody_changed_is_seen_and_left_alone(place, edit, uid):
    """Drift is seen by plan and drift, left alone by apply, and mended with force."""
    if uid in ALERTING and not place.has_alerting:
        pytest.skip("7.5 has no such thing")
    wanted = place.wanted()
    place.apply(wanted)
    edit(place)
    there = at.contents(place, wanted)

    assert [(Action.DRIFTED, uid)] == at.pending(place.plan(wanted))
    assert [(Action.DRIFTED, uid)] == at.pending(place.provisioner()[0].drift(wanted))
    process, sent = place.provisioner()
    assert [(Action.DRIFTED, uid)] == at.pending(process.apply(wanted))
    assert ([], there) == (sent.writes, at.contents(place, wanted))

    place.apply(wanted, force=True)

    assert [] == at.pending(place.plan(wanted))


@pytest.mark.parametrize(("edit", "uid"), [each for each in EDITS if each.values[1] != at.FOLDER])
def test_a_conflict_stops_everything(place, edit, uid):
    """Where somebody changed what is wanted otherwise now, nothing at all is written without force."""
    if uid in ALERTING and not place.has_alerting:
        pytest.skip("7.5 has no such thing")
    place.apply(place.wanted())
    edit(place)
    wanted = place.wanted(change="2")

    process, sent = place.provisioner()
    left = process.apply(wanted)

    assert (Action.CONFLICT, uid) in at.pending(left)
    assert [] == sent.writes

    place.apply(wanted, force=True)

    assert [] == at.pending(place.plan(wanted))


def test_a_board_of_somebody_else_under_our_uid_is_a_conflict(place):
    """A uid alone does not make it ours."""
    place.apply(place.wanted(boards=()))
    at.new_board(place, at.ONE)

    steps = place.plan(place.wanted())

    assert [(Action.CONFLICT, at.ONE), (Action.CREATE, at.TWO)] == at.pending(steps)


def test_an_edit_that_is_what_we_want_now_is_taken_over(place):
    """Somebody who has made by hand what is wanted now is not overruled, and is no conflict later."""
    place.apply(place.wanted())
    at.edit_board(place, title="Panel2")
    wanted = place.wanted(change="2")

    assert (Action.UPDATE, at.ONE) in at.pending(place.plan(wanted))
    place.apply(wanted)

    assert [] == at.pending(place.plan(wanted))
    assert (Action.UPDATE, at.ONE) in at.pending(place.plan(place.wanted(change="3")))


def test_what_is_set_beside_ours_in_a_data_source_stays(place):
    """Fields of a data source that are not wanted one way or the other are kept when it is updated."""
    place.apply(place.wanted())
    raw = place.people.get("api", "datasources", "uid", at.DATASOURCE)
    raw["jsonData"]["exemplarTraceIdDestinations"] = []
    where = ("uid", at.DATASOURCE) if place.has_alerting else (str(raw["id"]),)
    place.people.write("PUT", "api", "datasources", *where, body={**raw, "isDefault": True})

    assert [] == at.pending(place.plan(place.wanted()))
    place.apply(place.wanted(change="2"))

    kept = place.people.get("api", "datasources", "uid", at.DATASOURCE)
    assert ([], True) == (kept["jsonData"]["exemplarTraceIdDestinations"], kept["isDefault"])
    assert "http://prometheus2.example" == kept["url"]


# --- what is not wanted any more ---------------------------------------------------------------------


def test_pruning_takes_ours_and_spares_strangers(place):
    """What carries our mark goes; boards of others stay, in our folder, under our prefix, with our tag, or copied."""
    place.apply(place.wanted())
    at.new_board(place, "theirs")
    at.new_board(place, "streamgauge-theirs")
    at.copy_board(place, at.TWO, "streamgauge-copy")
    wanted = place.wanted(boards=(at.ONE,))

    assert [] == at.pending(place.plan(wanted, prune=False))
    assert [(Action.DELETE, at.TWO)] == at.pending(place.plan(wanted))
    assert [(Action.DELETE, at.TWO)] == at.pending(place.apply(wanted))

    left = {hit["uid"] for hit in place.people.get("api", "search", type="dash-db")}
    assert {at.ONE, "theirs", "streamgauge-theirs", "streamgauge-copy"} <= left
    assert at.TWO not in left


def test_pruning_spares_what_somebody_changed(place):
    """A board of ours that somebody edited is not deleted without force."""
    place.apply(place.wanted())
    at.edit_board(place, at.TWO)
    wanted = place.wanted(boards=(at.ONE,))

    assert [(Action.SPARED, at.TWO)] == at.pending(place.apply(wanted))
    assert place.people.find("api", "dashboards", "uid", at.TWO)

    place.apply(wanted, force=True)

    assert None is place.people.find("api", "dashboards", "uid", at.TWO)


def test_destroying_leaves_nothing_of_ours(place):
    """Everything that was applied is deleted, the folder last."""
    wanted = place.wanted()
    place.apply(wanted)

    planned = place.provisioner()[0].destroy(say=None)
    done = place.provisioner()[0].destroy(say=lambda step: None)

    assert {(Action.DELETE, item.uid) for item in wanted} == set(at.pending(planned)) == set(at.pending(done))
    assert at.FOLDER == done[-1].uid
    assert [(Action.CREATE, item.uid) for item in wanted] == at.pending(place.plan(wanted))


def test_destroying_spares_a_folder_with_strangers_in_it(place):
    """Grafana deletes a folder with all that is in it, so one that holds a stranger's board stays."""
    place.apply(place.wanted())
    at.new_board(place, "theirs")

    done = place.provisioner()[0].destroy(force=True, say=lambda step: None)

    assert [(Action.SPARED, at.FOLDER, "it still holds board Theirs theirs")] == [
        (step.action, step.uid, step.reason) for step in done if step.action is not Action.DELETE
    ]
    assert place.people.find("api", "dashboards", "uid", "theirs")


def test_contact_points_of_others_and_the_policies_are_never_touched(modern):
    """Nothing is asked of the policy tree, and only contact points of ours are written or deleted."""
    theirs = {"uid": "theirs", "name": "theirs", "type": "webhook", "settings": {"url": "http://x"}}
    modern.people.write("POST", "api", "v1", "provisioning", "contact-points", body=theirs)
    process, sent = modern.provisioner()

    process.apply(modern.wanted())
    process.apply(modern.wanted(receiver=False))
    process.destroy(force=True, say=lambda step: None)

    assert ["theirs"] == list(modern.fake.points)
    assert [] == [request.path for request in sent.requests if "polic" in request.path or "theirs" in request.path]


# --- secrets -----------------------------------------------------------------------------------------


def test_a_secret_that_changed_is_written(modern):
    """Grafana masks it, but the mark tells that another one is set in the environment."""
    modern.apply(modern.wanted())
    wanted = [
        replace(
            item, secrets={name: at.Hidden(each.variable, f"http://{item.uid}") for name, each in item.secrets.items()}
        )
        for item in modern.wanted()
    ]

    changed = [at.DATASOURCE, at.HOOK, at.SLACK]
    assert [(Action.UPDATE, uid) for uid in changed] == at.pending(modern.plan(wanted))
    modern.apply(wanted)

    assert [] == at.pending(modern.plan(wanted))
    assert {uid: f"http://{uid}" for uid in (at.HOOK, at.SLACK)} == {
        uid: each["settings"]["url"] for uid, each in modern.fake.points.items()
    }
    assert {"basicAuthPassword": f"http://{at.DATASOURCE}"} == modern.fake.datasources[at.DATASOURCE]["secure"]


def test_a_masked_secret_is_never_written_back(modern):
    """Updates carry the secret from the environment, and the masked text is in nothing that is sent."""
    modern.apply(modern.wanted())
    process, sent = modern.provisioner()

    process.apply(modern.wanted(change="2"))

    assert any(request.path.endswith(at.SLACK) for request in sent.requests)
    assert [] == [request for request in sent.requests if "REDACTED" in str(request.body)]
    assert at.SLACK_URL == modern.fake.points[at.SLACK]["settings"]["url"]


def test_a_secret_that_is_not_there_stops_before_anything_is_written(modern):
    """What has to be written needs its secret; what has not, does not."""
    without = [
        replace(item, secrets={name: at.Hidden(each.variable, None) for name, each in item.secrets.items()})
        for item in modern.wanted()
    ]
    process, sent = modern.provisioner()

    with pytest.raises(UsageError, match="HOOK_URL, PROMETHEUS_PASSWORD, SLACK_URL not set"):
        process.apply(without)
    assert [] == sent.writes

    modern.apply(modern.wanted())

    assert [] == at.pending(modern.plan(without))


def test_the_url_of_a_webhook_is_a_secret_though_grafana_shows_it(modern):
    """Somebody who sets another URL has changed it, and neither URL shows in what is said."""
    modern.apply(modern.wanted())
    (raw,) = (
        each for each in modern.people.get("api", "v1", "provisioning", "contact-points") if each["uid"] == at.HOOK
    )
    raw["settings"]["url"] = "http://their.hook/ddd444"
    modern.people.write("PUT", "api", "v1", "provisioning", "contact-points", at.HOOK, body=raw)

    steps = modern.plan(modern.wanted())

    assert [(Action.DRIFTED, at.HOOK)] == at.pending(steps)
    assert [] == [secret for secret in ("ddd444", "aaa111") if secret in str(steps)]


def test_secrets_show_neither_in_errors_nor_in_words(modern):
    """Grafana repeats what it was given when it refuses; what we say of that hides the secret."""
    broken = replace(at.webhook(), content={**at.webhook().content, "type": "email"})

    with pytest.raises(GrafanaError, match=r"\*\*\*\*") as caught:
        modern.apply([broken])

    assert [] == [secret for secret in (at.HOOK_URL, "aaa111") if secret in f"{caught.value} {broken!r}"]


# --- what servers do ---------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", at.PROFILES)
def test_what_the_server_rewrites_is_not_taken_for_a_person(profile):
    """A refresh that is raised to the server's minimum is put down in the mark, and an edit after that is seen."""
    place = at.fake_place(profile, Faults(**REWRITING))
    wanted = place.wanted()

    place.apply(wanted)

    assert "60s" == place.people.get("api", "dashboards", "uid", at.ONE)["dashboard"]["refresh"]
    assert [] == at.pending(place.plan(wanted))
    at.edit_board(place)
    assert [(Action.DRIFTED, at.ONE)] == at.pending(place.plan(wanted))


def test_a_server_that_never_keeps_what_it_is_given_is_reported(modern):
    """Something else each time is no state that anything could be compared with."""
    count = iter(range(1000))

    def tamper(request):
        if request.path == "/api/dashboards/db":
            modern.fake.boards[at.ONE]["model"]["refresh"] = f"{next(count)}h"

    modern.fake.faults.after = tamper

    with pytest.raises(NotKeptError, match=r"does not keep it as it is given: model\.refresh"):
        modern.apply(modern.wanted(boards=(at.ONE,)))


def test_a_contact_point_that_loses_its_mark_still_settles():
    """Where Grafana drops what it does not know, the plan is empty after an apply all the same."""
    place = at.fake_place(Profile.MODERN, Faults(drops_unknown_settings=True))
    place.apply(place.wanted())

    assert not any(MARK_FIELD in each["settings"] for each in place.fake.points.values())
    assert [] == at.pending(place.plan(place.wanted()))


@pytest.mark.parametrize("profile", at.PROFILES)
def test_answers_that_get_lost_change_nothing(profile):
    """A write that was carried out and not answered is found when it is read again."""
    place = at.fake_place(profile, Faults(lose_answers=4))
    wanted = place.wanted()

    place.apply(wanted)

    assert 0 == place.fake.faults.lose_answers
    assert [] == at.pending(place.plan(wanted))


@pytest.mark.parametrize("profile", at.PROFILES)
def test_a_server_that_is_away_for_a_moment_is_waited_for(profile):
    """Refusals that pass by themselves do not end an apply."""
    place = at.fake_place(profile)
    place.fake.faults.busy, place.fake.faults.away = 2, 1

    place.apply(place.wanted())

    assert [] == at.pending(place.plan(place.wanted()))


def test_a_server_that_stays_away_is_reported(modern):
    """Writing is not repeated for ever."""
    modern.fake.faults.before = lambda request: setattr(modern.fake.faults, "away", request.method != "GET")

    with pytest.raises(FaultError, match="502 Bad Gateway"):
        modern.apply(modern.wanted())


def test_deletions_that_are_refused_are_reported(modern):
    """Where every DELETE is refused (13.1.3 did that) it is said, and everything else is done."""
    modern.apply(modern.wanted())
    modern.fake.faults.deletes_conflict = True
    wanted = modern.wanted(boards=(at.ONE,), change="2")

    done = modern.apply(wanted)

    (spared,) = (step for step in done if step.action is Action.SPARED)
    assert (at.TWO, True) == (spared.uid, "does not match current RV" in spared.reason)
    assert [(Action.DELETE, at.TWO)] == at.pending(modern.plan(wanted))


@pytest.mark.parametrize("status", [409, 500])
def test_a_contact_point_that_a_policy_uses_stays(modern, status):
    """Grafana refuses to delete it; that is said, and everything else goes."""
    modern.apply(modern.wanted())
    modern.fake.policy_receivers.add("streamgauge-critical")
    modern.fake.faults.point_in_use_status = status

    done = modern.provisioner()[0].destroy(say=lambda step: None)

    (spared,) = (step for step in done if step.action is Action.SPARED)
    assert (True, True) == (
        spared.uid in modern.fake.points,
        "currently used by a notification policy" in spared.reason,
    )
    assert (1, {}, {}) == (len(modern.fake.points), modern.fake.boards, modern.fake.folders)


@pytest.mark.parametrize("statuses", [(412, 500), (409, 409)], ids=["12.0", "13"])
def test_versions_say_differently_that_something_exists(statuses):
    """Whatever status says so, what is there decides."""
    place = at.fake_place(Profile.MODERN)
    place.fake.faults.folder_exists_status, place.fake.faults.point_exists_status = statuses
    wanted = place.wanted()
    interrupt(place, place.provisioner()[0], wanted, at_request=lambda request: request.method == "POST")

    assert [] == at.pending(place.plan(wanted))


@pytest.mark.parametrize("profile", at.PROFILES)
def test_what_a_file_provisions_is_not_written(profile):
    """A board from a file is locked: not even force writes it, though 7.5 would let that pass."""
    place = at.fake_place(profile)
    place.apply(place.wanted(boards=()))
    place.fake.add_board(at.ONE, at.model(at.ONE, "of a file"), at.FOLDER, provisioned="one.json")

    process, sent = place.provisioner()
    left = process.apply(place.wanted(), force=True)

    assert (Action.LOCKED, at.ONE) in at.pending(left)
    assert [] == sent.writes


def test_a_board_in_the_newer_form_is_not_written(modern):
    """What cannot be read cannot be compared."""
    modern.apply(modern.wanted())
    modern.fake.faults.v2_boards.add(at.ONE)

    assert [(Action.LOCKED, at.ONE)] == at.pending(modern.plan(modern.wanted()))


# --- at once, and broken off -------------------------------------------------------------------------


def interrupt(place, process, wanted, at_request=None, number=None):
    """Apply, and in the middle of it have another process apply the same from beginning to end."""
    seen = []

    def another(request):
        seen.append(request)
        is_now = at_request(request) if at_request else len(seen) - 1 == number
        if is_now:
            place.fake.faults.before = None
            place.apply(wanted)

    place.fake.faults.before = another
    process.apply(wanted)
    place.fake.faults.before = None
    return len(seen)


@pytest.mark.parametrize("profile", at.PROFILES)
@pytest.mark.parametrize("change", ["", "2"], ids=["creating", "updating"])
def test_two_at_once_end_as_one(profile, change):
    """Whenever another one applies the same in between, both succeed, and what is there is what is wanted."""
    number, count = 0, 1
    while number < count:
        place = at.fake_place(profile)
        if change:
            place.apply(place.wanted(boards=(at.ONE, at.TWO, "streamgauge-old")))
        wanted = place.wanted(change=change)
        count = max(count, interrupt(place, place.provisioner()[0], wanted, number=number))

        assert [] == at.pending(place.plan(wanted)), number
        number += 1


@pytest.mark.parametrize(
    ("profile", "faults"),
    [
        pytest.param(Profile.SEVEN_FIVE, {}, id="7.5"),
        pytest.param(Profile.MODERN, {}, id="modern", marks=pytest.mark.soak),
        pytest.param(Profile.MODERN, REWRITING, id="modern, rewriting"),
    ],
)
@pytest.mark.parametrize("is_there", [False, True], ids=["creating", "updating and pruning"])
def test_a_crash_at_any_request_leaves_a_state_from_which_apply_goes_on(profile, faults, is_there):
    """After a crash at the nth request, for every n, a plain apply ends where an undisturbed one does.

    Before the next request or after the one before: what is there is the same.
    """
    number, has_crashed, undisturbed = 0, True, None
    while has_crashed:
        place = at.fake_place(profile, Faults(**faults))
        before = place.wanted(boards=(at.ONE, at.TWO, "streamgauge-old"))
        wanted = place.wanted(change="2", hook="http://hook.example/new")
        if is_there:
            place.apply(before)
        if undisturbed is None:
            place.apply(wanted)
            undisturbed = at.contents(place, wanted)
            continue
        process = _started(place, number)
        has_crashed = process is None or _crashes(process, wanted)

        left = at.pending(place.plan(wanted))
        assert set() == {action for action, _ in left} - {Action.CREATE, Action.UPDATE, Action.DELETE}, number
        place.apply(wanted)
        assert [] == at.pending(place.plan(wanted)), number
        assert undisturbed == at.contents(place, wanted), number
        number += 1
    assert number > len(wanted)


@pytest.mark.soak
@pytest.mark.parametrize("profile", at.PROFILES)
@pytest.mark.parametrize("stale_saves_pass", [False, True], ids=["one winner", "both win"])
@pytest.mark.parametrize("change", ["", "2"], ids=["creating", "updating"])
def test_many_at_once_end_as_one(profile, stale_saves_pass, change):
    """Three that apply the same at once, however their requests mix, all succeed and leave nothing pending."""
    mixed = random.Random(7)
    for _ in range(20):
        place = at.fake_place(profile, Faults(stale_saves_pass=stale_saves_pass))
        if change:
            place.apply(place.wanted(boards=(at.ONE, at.TWO, "streamgauge-old")))
        wanted = place.wanted(change=change)
        place.fake.faults.before = lambda request: time.sleep(mixed.random() * 0.002)

        with ThreadPoolExecutor(3) as pool:
            applied = [pool.submit(place.apply, wanted) for _ in range(3)]
            for each in applied:
                each.result()

        assert [] == at.pending(place.plan(wanted))


def _started(place, number):
    try:
        return place.provisioner(crash_at=number)[0]
    except at.Crash:
        return None


def _crashes(process, wanted):
    try:
        process.apply(wanted)
    except at.Crash:
        return True
    return False


@pytest.mark.parametrize("profile", at.PROFILES)
def test_an_edit_between_reading_and_writing_is_not_written_over(profile):
    """Somebody who saves after the board was read and before it is written wins, and it is a conflict."""
    place = at.fake_place(profile)
    place.apply(place.wanted())
    wanted = place.wanted(change="2")

    def save_first(request):
        if request.path == "/api/dashboards/db":
            place.fake.faults.before = None
            at.edit_board(place)

    place.fake.faults.before = save_first
    left = place.apply(wanted)

    assert [(Action.CONFLICT, at.ONE)] == [pair for pair in at.pending(left) if pair[0] is Action.CONFLICT]
    assert "Mine" == place.people.get("api", "dashboards", "uid", at.ONE)["dashboard"]["panels"][0]["title"]


@pytest.mark.parametrize("uid", [at.DATASOURCE, at.SLACK, at.ONE], ids=["data source", "contact point", "board"])
def test_what_disappears_between_reading_and_writing_is_made_again(modern, uid):
    """Somebody deletes it at that very moment: it is missing then, and what is missing is created."""
    modern.apply(modern.wanted())
    wanted = modern.wanted(change="2")

    def delete_first(request):
        if request.method in {"PUT", "POST"} and uid in f"{request.path} {request.body}":
            modern.fake.faults.before = None
            for each in (modern.fake.datasources, modern.fake.points, modern.fake.boards):
                each.pop(uid, None)

    modern.fake.faults.before = delete_first
    modern.apply(wanted)

    assert None is modern.fake.faults.before
    assert [] == at.pending(modern.plan(wanted))


def test_a_save_that_the_server_let_both_through_is_said():
    """7.5 on SQLite can take two saves on top of one version: the other's is in the history, and that is said."""
    place = at.fake_place(Profile.SEVEN_FIVE)
    place.apply(place.wanted())

    def save_first(request):
        if request.path == "/api/dashboards/db":
            place.fake.faults.before = None
            at.edit_board(place)
            place.fake.faults.stale_saves_pass = True

    place.fake.faults.before = save_first
    done = place.apply(place.wanted(change="2"))

    (step,) = (each for each in done if each.uid == at.ONE)
    assert "version 3 was saved meanwhile: look at it in the board's history" in step.reason


def test_the_other_of_two_winners_is_seen_afterwards():
    """Where somebody's save passes on top of ours, it is found when it is read again and left as a drift."""
    place = at.fake_place(Profile.SEVEN_FIVE)
    place.apply(place.wanted())
    wanted = place.wanted(change="2")

    def save_after(request):
        if request.path == "/api/dashboards/db":
            place.fake.faults.after = None
            at.edit_board(place)

    place.fake.faults.after = save_after
    left = place.apply(wanted)

    assert [(Action.DRIFTED, at.ONE)] == [pair for pair in at.pending(left) if pair[0] is not Action.UPDATE]
    assert "Mine" == place.people.get("api", "dashboards", "uid", at.ONE)["dashboard"]["panels"][0]["title"]


# --- drift as a metric -------------------------------------------------------------------------------


def test_drift_is_a_metric(modern):
    """Every kind and state has its count, zero included."""
    modern.apply(modern.wanted())
    at.edit_board(modern)
    at.edit_rule(modern)
    modern.people.write("DELETE", "api", "dashboards", "uid", at.TWO)

    lines = metric_lines(modern.provisioner()[0].drift(modern.wanted()))

    counted = {line for line in lines if not line.endswith(" 0") and not line.startswith("#")}
    assert {
        'streamgauge_grafana_objects{kind="folder",state="as_wanted"} 1',
        'streamgauge_grafana_objects{kind="data_source",state="as_wanted"} 1',
        'streamgauge_grafana_objects{kind="board",state="drifted"} 1',
        'streamgauge_grafana_objects{kind="board",state="missing"} 1',
        'streamgauge_grafana_objects{kind="contact_point",state="as_wanted"} 2',
        'streamgauge_grafana_objects{kind="rule_group",state="drifted"} 1',
    } == counted
    assert 2 + 5 * 5 == len(lines)


def test_what_was_never_applied_of_an_optional_kind_is_no_drift(modern):
    """Whoever has the rules in Prometheus misses none in Grafana."""
    boards = [item for item in modern.wanted() if item.kind not in {Kind.RULE_GROUP, Kind.CONTACT_POINT}]
    modern.apply(boards)

    optional = (Kind.RULE_GROUP, Kind.CONTACT_POINT)

    assert [] == at.pending(modern.provisioner()[0].drift(modern.wanted(), optional))
