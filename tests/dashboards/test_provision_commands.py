"""``streamgauge dashboards`` and ``alerts``: plan, apply, drift and destroy, with their words and exit codes."""

import json

import grafana_places as at
import pytest
from click.testing import CliRunner

from dashboards.desired import reads_old_models, wanted_alerts, wanted_boards
from dashboards.fake_grafana import FakeGrafana, Profile
from dashboards.fake_http import serve
from dashboards.files import BOARDS
from dashboards.grafana import Grafana
from dashboards.provision import Kind
from monitor.cli.dashboards_apply import grafana_settings
from monitor.cli.main import streamgauge
from monitor.errors import SettingsError, UsageError
from monitor.settings import Grafana as GrafanaSettings

TOKEN, HOOK, PASSWORD = "glsa_secret", "http://hook.example/very-secret", "also-secret"

SETTINGS = """\
clusters:
  - bootstrap_servers: localhost:9092
grafana:
  url: {url}
  token: ${{TOKEN}}
  prometheus_url: http://prometheus.example:9090
  prometheus_username: grafana
  prometheus_password: ${{PASSWORD}}
  scrape_interval_seconds: 15
notifications:
  webhook:
    - severities: [critical]
      url_variable: HOOK
"""
ENVIRON = {"TOKEN": TOKEN, "PASSWORD": PASSWORD, "HOOK": HOOK}


@pytest.fixture
def fake(request):
    """A stand-in, of a modern Grafana unless the test says otherwise."""
    return FakeGrafana(getattr(request, "param", Profile.MODERN))


in_both = pytest.mark.parametrize("fake", at.PROFILES, indirect=True)


@pytest.fixture
def run(fake, tmp_path, monkeypatch):
    """Run a command line against the stand-in over HTTP, by a settings file; nothing secret may ever be printed."""
    monkeypatch.chdir(tmp_path)
    for name in ("STREAMGAUGE_CONFIG", "GRAFANA_URL", "GRAFANA_TOKEN", "GRAFANA_USER", "GRAFANA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with serve(fake, token=TOKEN) as url:
        (tmp_path / "streamgauge.yml").write_text(SETTINGS.format(url=url))

        def invoke(*arguments, env=ENVIRON, **more):
            result = CliRunner().invoke(streamgauge, arguments, env=env, **more)
            assert [] == [each for each in ENVIRON.values() if each in result.output]
            return result

        yield invoke


OBJECTS = 2 + len(BOARDS)


@in_both
def test_boards_from_plan_to_destroy(run, fake):
    """Plan says what is pending (1), apply does it (0), plan is empty (0), destroy leaves nothing (0)."""
    planned = run("dashboards", "plan")
    applied = run("dashboards", "apply")
    again = run("dashboards", "plan")
    ended = run("dashboards", "destroy", "--yes")

    assert (1, f"{OBJECTS} objects not as wanted: apply does what it may") == (
        planned.exit_code, planned.stdout.splitlines()[-1]
    )  # fmt: skip
    assert "create    board streamgauge-overview: it is not there" in planned.stdout.splitlines()
    assert (0, f"everything is as wanted: {OBJECTS} objects") == (applied.exit_code, applied.stdout.splitlines()[-1])
    assert "created   folder streamgauge: it is not there" == applied.stdout.splitlines()[0]
    assert (0, f"nothing to do: {OBJECTS} objects\n") == (again.exit_code, again.stdout)
    assert (0, OBJECTS) == (ended.exit_code, len(ended.stdout.splitlines()))
    assert ({}, {}, {}) == (fake.folders, fake.boards, fake.datasources)


def test_the_data_source_has_what_the_settings_say(run, fake):
    """Address, log-in and scrape interval of Prometheus, the password among Grafana's secrets only."""
    run("dashboards", "apply")

    made = fake.datasources["streamgauge-prometheus"]
    assert ("http://prometheus.example:9090", True, "grafana", "15s", {"basicAuthPassword": PASSWORD}) == (
        made["url"], made["basicAuth"], made["basicAuthUser"], made["jsonData"]["timeInterval"], made["secure"]
    )  # fmt: skip
    assert PASSWORD not in json.dumps(made["jsonData"])


@in_both
def test_boards_come_in_a_form_that_this_grafana_reads(run, fake):
    """7.5 gets schema version 27, a modern one the boards as they are."""
    run("dashboards", "apply")

    expected = {board.json()["schemaVersion"] for board in BOARDS} if fake.is_modern else {27}
    assert expected == {each["model"]["schemaVersion"] for each in fake.boards.values()}


def edit(fake, uid="streamgauge-overview"):
    """Somebody saves a board with another title."""
    model = fake.boards[uid]["model"]
    model |= {"title": "Mine\x1b[31m", "version": model["version"] + 1}


def test_what_somebody_changed_is_left_alone(run, fake):
    """Apply says so and ends with 1; with --force it is written over."""
    run("dashboards", "apply")
    edit(fake)

    left = run("dashboards", "apply")
    forced = run("dashboards", "apply", "--force")

    assert (1, ["drifted   board streamgauge-overview: somebody changed it since it was applied"]) == (
        left.exit_code, left.stdout.splitlines()
    )  # fmt: skip
    assert 0 == forced.exit_code
    assert "Mine" not in fake.boards["streamgauge-overview"]["model"]["title"]


def test_a_conflict_is_said_and_nothing_written(run, fake):
    """A board of somebody else under our uid stops it all."""
    fake.add_board("streamgauge-overview", {"title": "Theirs"})

    result = run("dashboards", "apply")

    assert (1, [
        "conflict  board streamgauge-overview: it does not carry our mark: it is somebody else's",
        "nothing was written: look at what is there, and then apply with --force",
    ]) == (result.exit_code, result.stdout.splitlines())  # fmt: skip
    assert {} == fake.folders


def test_drift_in_words_as_json_and_as_metrics(run, fake, tmp_path):
    """Each names the board that somebody edited, and the exit code is 1; what others write cannot hurt a terminal."""
    run("dashboards", "apply")
    fine = run("dashboards", "drift")
    edit(fake)

    words = run("dashboards", "drift")
    as_json = run("dashboards", "drift", "-o", "json")
    metrics = run("dashboards", "drift", "-o", "metrics", "--metrics-file", str(tmp_path / "grafana.prom"))

    assert (0, f"no drift: {OBJECTS} objects\n") == (fine.exit_code, fine.stdout)
    assert [1, 1, 1] == [words.exit_code, as_json.exit_code, metrics.exit_code]
    assert ("drifted   board streamgauge-overview", False) == (words.stdout[:36], "\x1b" in words.stdout)
    assert ["streamgauge-overview"] == [
        each["uid"] for each in json.loads(as_json.stdout) if each["action"] != "nothing"
    ]
    assert 'streamgauge_grafana_objects{kind="board",state="drifted"} 1' in metrics.stdout.splitlines()
    assert metrics.stdout == (tmp_path / "grafana.prom").read_text()


def test_destroy_asks(run, fake):
    """Where nobody can be asked nothing is deleted."""
    run("dashboards", "apply")

    result = run("dashboards", "destroy")

    assert (2, "streamgauge: nobody can be asked here: give --yes to delete all that\n") == (
        result.exit_code, result.stderr
    )  # fmt: skip
    assert len(BOARDS) == len(fake.boards)


@in_both
def test_alerts_from_plan_to_drift(run, fake):
    """Rules and contact points with what they need; 7.5 has no place for them (3)."""
    planned = run("alerts", "plan")
    if not fake.is_modern:
        assert (3, "streamgauge: the Grafana 7.5.5 at ") == (planned.exit_code, planned.stderr[:34])
        assert {} == fake.folders
        return
    applied = run("alerts", "apply")

    assert (1, 0, 0) == (planned.exit_code, applied.exit_code, run("alerts", "plan").exit_code)
    assert HOOK == fake.points["streamgauge-critical-webhook-1"]["settings"]["url"]
    rules = fake.groups["streamgauge", "streamgauge"]["rules"]
    critical = [each for each in rules if each["labels"]["severity"] == "critical"]
    assert [{"receiver": "streamgauge-critical"}] * len(critical) == [
        each["notification_settings"] for each in critical
    ]
    assert (1, {}) == (run("dashboards", "drift").exit_code, fake.boards)
    run("dashboards", "apply")
    assert 0 == run("dashboards", "drift").exit_code

    fake.groups["streamgauge", "streamgauge"]["rules"].pop()

    assert 1 == run("dashboards", "drift").exit_code
    assert 0 == run("dashboards", "destroy", "--force", "--yes").exit_code
    assert ({}, {}, {}) == (fake.groups, fake.points, fake.folders)


def test_a_secret_that_is_not_set_is_named(run, fake):
    """The variable is named, and nothing was written (2)."""
    result = run("alerts", "apply", env={"TOKEN": TOKEN, "PASSWORD": PASSWORD, "HOOK": ""})

    assert (2, True, {}) == (result.exit_code, "HOOK not set in the environment" in result.stderr, fake.folders)


def test_a_wrong_token_and_nobody_there(run, fake):
    """Both are one line and exit code 3."""
    refused = run("dashboards", "plan", env={**ENVIRON, "TOKEN": "wrong"})
    with serve(fake) as url:
        pass
    absent = run("dashboards", "plan", "--grafana-url", url, env={**ENVIRON, "GRAFANA_TOKEN": "x"})

    assert (3, 1, True) == (refused.exit_code, refused.stderr.count("\n"), "check the token" in refused.stderr)
    assert (3, 1, True) == (absent.exit_code, absent.stderr.count("\n"), "Connection refused" in absent.stderr)


def test_with_a_data_source_of_ones_own_none_is_even_listed(run, fake, tmp_path):
    """An Editor may not list data sources: where none is made, none is asked for."""
    path = tmp_path / "streamgauge.yml"
    path.write_text(path.read_text().replace("scrape_interval_seconds: 15", "datasource_uid: mine"))

    assert 0 == run("dashboards", "apply").exit_code

    assert [] == [request.path for request in fake.requests if "datasources" in request.path]


# --- where Grafana is --------------------------------------------------------------------------------

SAID = GrafanaSettings(url="http://said", token=TOKEN, org_id=3)


@pytest.mark.parametrize(
    ("said", "option", "environ", "expected"),
    [
        pytest.param(
            SAID, None, {"GRAFANA_URL": "http://e", "GRAFANA_TOKEN": "e"}, ("http://said", TOKEN, 3), id="said"
        ),
        pytest.param(
            None, None, {"GRAFANA_URL": "http://e", "GRAFANA_TOKEN": "e"}, ("http://e", "e", None), id="environ"
        ),
        pytest.param(None, "http://o", {"GRAFANA_TOKEN": "e"}, ("http://o", "e", None), id="option"),
        pytest.param(SAID, "http://o", {}, ("http://o", None, 3), id="elsewhere the settings' token is not sent"),
        pytest.param(SAID, "http://said/", {}, ("http://said/", TOKEN, 3), id="the same address again"),
    ],
)
def test_where_grafana_is(said, option, environ, expected):
    """Options, then settings, then environment; the settings' log-in is for the settings' address only."""
    found = grafana_settings(said, option, environ)

    assert expected == (found.url, found.token and found.token.get_secret_value(), found.org_id)


def test_no_grafana_and_no_address_are_said():
    """One line that says what to give."""
    with pytest.raises(UsageError, match="give --grafana-url URL"):
        grafana_settings(None, None, {})
    with pytest.raises(SettingsError, match="--grafana-url: is no URL"):
        grafana_settings(None, "grafana", {})


@pytest.mark.parametrize(
    ("version", "has_alerting", "expected"),
    [
        pytest.param("7.5.5", False, True, id="7.5"),
        pytest.param("9.5.21", True, True, id="9"),
        pytest.param("10.0.0-beta", True, False, id="10"),
        pytest.param("13.2.3", True, False, id="13"),
        pytest.param(None, False, True, id="not told, without alerting"),
        pytest.param(None, True, False, id="not told, with alerting"),
    ],
)
def test_which_grafana_reads_old_models(version, has_alerting, expected):
    """Boards are translated for Grafana 7.5 to 9."""
    fake = FakeGrafana(Profile.MODERN if has_alerting else Profile.SEVEN_FIVE)
    server = Grafana(fake)
    fake.version = version

    assert expected is reads_old_models(server)


def test_a_data_source_of_ones_own_is_used_and_none_made():
    """The rules ask it, and no data source is wanted."""
    grafana = GrafanaSettings(url="http://x", datasource_uid="mine")

    items = [*wanted_boards(grafana, is_old=False), *wanted_alerts(grafana, None, {})]

    assert Kind.DATASOURCE not in {item.kind for item in items}
    (group,) = (item for item in items if item.kind is Kind.RULE_GROUP)
    asked = {node["datasourceUid"] for rule in group.content["rules"] for node in rule["data"]}
    assert {"mine", "__expr__"} == asked
