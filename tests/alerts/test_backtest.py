"""``streamgauge alerts backtest`` over a real Prometheus: what fired, when, for how long, and under other objectives.

The samples are a past of our own (``past_samples``); what has to come out is worked out from its lists, evaluation by
evaluation, and the cases of the rules are replayed as well.
"""

import csv
import io
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from alert_steps import stepped
from case_samples import BASES, CASES, minute
from click.testing import CliRunner
from past_samples import MINUTES, OBJECTIVE, WANDERERS, is_late, utc
from prometheus_servers import needs_prometheus

from alerts.backtest import Prometheus, Span, login, replay
from alerts.grafana import inlined
from alerts.rules import ALL_RULES
from monitor.cli.alerts_backtest import LABELS
from monitor.cli.main import streamgauge

OVER_OBJECTIVE = "StreamgaugeConsumerOverObjective"
WHOLE = ("--from", utc(0), "--to", utc(MINUTES - 1))


def run(*arguments, **extra):
    return CliRunner().invoke(streamgauge, ["alerts", "backtest", *arguments], **extra)


@pytest.fixture
def over_the_past(backfilled_prometheus):
    """Run the command on the whole past."""
    return lambda *arguments: run("--prometheus", backfilled_prometheus, *WHOLE, *arguments)


def expected(name, objective):
    """When a wanderer was late for long enough: as the command prints it, the last end open."""
    return [
        (f"{name}", utc(begin // 60), None if end is None else utc(end // 60))
        for begin, end in stepped(is_late(name, objective), 300, 300, 60)
    ]


def found(result):
    return [(each["consumer"], each["from"], each["to"]) for each in json.loads(result.stdout)["alerts"]]


@needs_prometheus
def test_every_alert_that_would_have_fired_is_found(over_the_past):
    """Of twelve readers whose ages wander around their objective: each alert with its beginning and its end."""
    result = over_the_past("--alert", OVER_OBJECTIVE, "-o", "json")
    truth = [alert for name in WANDERERS for alert in expected(name, OBJECTIVE)]

    assert 1 == result.exit_code
    assert sorted(truth, key=str) == sorted(found(result), key=str)
    assert len(truth) > 12


@needs_prometheus
def test_how_long_and_how_bad(over_the_past):
    """Durations are between beginning and end, or up to the last evaluation; the worst age was above the objective."""
    answer = json.loads(over_the_past("--alert", "ConsumerOverObjective", "-o", "json").stdout)

    assert (utc(1), utc(MINUTES - 1), 60) == (answer["from"], answer["to"], answer["step_seconds"])
    for each in answer["alerts"]:
        begin, end = (minutes(each["from"]), minutes(each["to"] or answer["to"]))
        assert 60 * (end - begin) == each["duration_seconds"]
        assert OBJECTIVE < each["worst"] <= 600


def minutes(text):
    return next(index for index in range(MINUTES) if utc(index) == text)


@needs_prometheus
def test_what_another_objective_would_have_changed(over_the_past):
    """Some are told no more, some that were not before; whom no pattern matches is the same."""
    objectives = {
        name: 200.0 if name == "walk-1" else 500.0 if name.startswith("walk-1") else OBJECTIVE for name in WANDERERS
    }
    result = over_the_past(
        "--alert", OVER_OBJECTIVE, "-o", "json", "--objective", "walk-1=200", "--objective", "walk-1*=500"
    )
    before = {alert for name in WANDERERS for alert in expected(name, OBJECTIVE)}
    after = {alert for name in WANDERERS for alert in expected(name, objectives[name])}
    changes = {change: set() for change in ("same", "gone", "new")}
    for alert, each in zip(found(result), json.loads(result.stdout)["alerts"], strict=True):
        changes[each["change"]].add(alert)

    assert {"same": before & after, "gone": before - after, "new": after - before} == changes
    assert all(changes.values())


@needs_prometheus
def test_objectives_of_a_settings_file(over_the_past, tmp_path):
    """All of them, with the default for everybody else; fine under these is exit code 0."""
    (tmp_path / "new.yml").write_text(
        "clusters: [{bootstrap_servers: 'x:1'}]\n"
        "objectives: {default_seconds: 100000, consumers: [{consumer: walk-2, seconds: 99999}]}\n"
    )
    result = over_the_past("--alert", OVER_OBJECTIVE, "-o", "csv", "--objectives-of", str(tmp_path / "new.yml"))

    assert (0, {"gone"}) == (result.exit_code, {each["change"] for each in csv.DictReader(io.StringIO(result.stdout))})


@needs_prometheus
def test_a_person_reads_a_table(over_the_past):
    """What stopped, and what was not seen; below what that adds up to, on stderr what is not known."""
    result = over_the_past("--alert", "ConsumerStopped", "--alert", "MonitorDown")

    head, *lines = result.stdout.splitlines()

    assert ["alert", "severity", "about", "from", "to", "for", "worst"] == head.split()
    assert [
        f"StreamgaugeConsumerStopped  critical  past/group/nightly  {utc(206)}  {utc(246)}  40.0 min",
        f"StreamgaugeMonitorDown      critical                      {utc(405)}  {utc(421)}  16.0 min",
        "",
        f"between {utc(1)} and {utc(MINUTES - 1)}: 2 critical for 56.0 min",
    ] == lines
    assert [
        f"streamgauge: Prometheus has nothing of a monitor before {utc(1)}: replayed from there",
        "streamgauge: Prometheus has nothing of a monitor for 18.0 min in between",
    ] == result.stderr.splitlines()
    assert 1 == result.exit_code


@needs_prometheus
def test_a_table_says_what_other_objectives_change(over_the_past):
    """A word for each alert, and a sum for each side."""
    lines = over_the_past("--alert", OVER_OBJECTIVE, "--objective", "*=100000").stdout.splitlines()

    assert ["change", "gone"] == [lines[0].split()[0], *dict.fromkeys(line.split()[0] for line in lines[1:-3])]
    assert lines[-1] == "under the other objectives: nothing"
    assert " warning for " in lines[-2]


@needs_prometheus
def test_csv_has_a_line_for_each_alert(over_the_past):
    """What an alert does not have is empty."""
    lines = over_the_past("--alert", "MonitorDown", "-o", "csv").stdout.splitlines()

    assert [
        "alert,severity,cluster,kind,consumer,topic,source,scope,from,to,duration_seconds,worst,change",
        f"StreamgaugeMonitorDown,critical,,,,,,,{utc(405)},{utc(421)},960,1.0,",
    ] == lines


@needs_prometheus
def test_nothing_would_have_fired(backfilled_prometheus):
    """Said in a line, and exit code 0; the watchdog, which always fires, is not asked about."""
    result = run("--prometheus", backfilled_prometheus, "--from", utc(100), "--to", utc(190), "--alert", "*Stopped")
    calm = run("--prometheus", backfilled_prometheus, "--from", utc(10), "--to", utc(12))

    assert (0, f"nothing would have fired between {utc(100)} and {utc(190)} (1 rule)\n") == (
        result.exit_code,
        result.stdout,
    )
    assert (0, f"({len(ALL_RULES) - 1} rules)\n") == (calm.exit_code, calm.stdout[calm.stdout.index("(") :])


@needs_prometheus
@pytest.mark.parametrize(("name", "case"), [pytest.param(*each, id=f"{each[0]}: {each[1]['name']}") for each in CASES])
def test_the_cases_of_the_rules_are_replayed(name, case, backfilled_prometheus):
    """At every moment a case asks about: the same alerts as Prometheus has there, or none."""
    (rule,) = (rule for rule in ALL_RULES if rule.name == name)
    base, last = BASES[id(case)], max(minute(each["eval_time"]) for each in case["alert_rule_test"])
    fired = [
        *replay(Prometheus(backfilled_prometheus), rule, inlined(rule.expression), Span(base, base + 60 * last, 60))
    ]

    for asked in case["alert_rule_test"]:
        at = base + 60 * minute(asked["eval_time"])
        firing = [dict(each.labels) for each in fired if each.begin <= at and (each.end is None or at < each.end)]
        wanted = [{k: v for k, v in each["exp_labels"].items() if k != "severity"} for each in asked["exp_alerts"]]
        assert sorted(wanted, key=str) == sorted(firing, key=str), asked["eval_time"]


# --- what is asked for, and what cannot be -----------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(("--from", "yesterday"), "cannot use --from yesterday: write how long ago", id="no time"),
        pytest.param(("--to", "25h"), "the end has to come after the beginning", id="backwards"),
        pytest.param(("--step", "0s"), "cannot use --step 0s: write a duration of at least 1s", id="no step"),
        pytest.param(("--step", "fast"), "cannot use --step fast", id="no duration"),
        pytest.param(
            ("--alert", "StreamgaugeConsumerStoped"), "did you mean StreamgaugeConsumerStopped?", id="no alert"
        ),
        pytest.param(("--alert", "xyz"), "there is no alert 'xyz': streamgauge alerts render", id="nothing near"),
        pytest.param(("--objective", "billing"), "write CONSUMER=SECONDS, for example billing-*=60", id="no seconds"),
        pytest.param(("--objective", "billing=-1"), "cannot use --objective billing=-1", id="less than nothing"),
        pytest.param(("--objective", "=5"), "cannot use --objective =5", id="nobody"),
        pytest.param(("--objective", "a=inf"), "cannot use --objective a=inf", id="for ever"),
        pytest.param(("--objectives-of", "no.yml"), "no.yml", id="no file"),
        pytest.param(("--prometheus", "localhost:9090"), "'localhost:9090' is no address of a Prometheus", id="no URL"),
        pytest.param(("--prometheus", "http://me:hunter2@x"), "holds a password", id="a password"),
    ],
)
def test_wrong_usage_is_one_line(arguments, complaint):
    """What was wrong and what to write; exit code 2, and nothing is asked."""
    result = run(*arguments)

    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert complaint in result.stderr
    assert "hunter2" not in result.stderr


@contextmanager
def answering(status, body, seen=None, headers=None):
    """A server that answers everything with this, without a status with nothing else; gives its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            if seen is not None:
                seen.append(self.headers.get("Authorization"))
            if status is not None:
                self.send_response(status)
                for each in (headers or {}).items():
                    self.send_header(*each)
                self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


MATRIX = {"status": "success", "data": {"resultType": "matrix", "result": []}}


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [
        pytest.param(200, "<html>hello</html>", "does not answer like a Prometheus", id="a page"),
        pytest.param(
            200, json.dumps({"status": "success", "data": []}), "does not answer like a Prometheus", id="else"
        ),
        pytest.param(None, "SSH-2.0-\x1b[31m\r\n", "does not answer like a Prometheus", id="no HTTP"),
        pytest.param(
            None, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "does not answer like a Prometheus", id="half"
        ),
        pytest.param(
            None, "HTTP/1.1 422 No\r\nContent-Length: 99\r\n\r\n{", "does not answer like a Prometheus", id="half a no"
        ),
        pytest.param(404, "not found", "answers HTTP 404 and not like a Prometheus", id="nothing there"),
        pytest.param(401, "", "wants a log-in (HTTP 401): set STREAMGAUGE_PROMETHEUS_TOKEN", id="log-in"),
        pytest.param(
            422, json.dumps({"error": "too many\nsamples"}), "gave a query up: too many samples; try", id="too much"
        ),
        pytest.param(200, json.dumps(MATRIX), "has no streamgauge_cluster_up in that time", id="no monitor"),
    ],
)
def test_a_prometheus_that_does_not_answer_is_one_line(status, body, complaint):
    """What was asked, what came, what to do; exit code 3."""
    with answering(status, body) as address:
        result = run("--prometheus", address)

    assert (3, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert complaint in result.stderr


def test_nobody_listens():
    """One line, exit code 3."""
    with answering(200, "") as address:
        pass
    result = run("--prometheus", address)

    assert (
        3,
        f"streamgauge: cannot ask Prometheus at {address}: Connection refused; give its address with --prometheus\n",
    ) == (
        result.exit_code,
        result.stderr,
    )


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({"STREAMGAUGE_PROMETHEUS_TOKEN": "t"}, "Bearer t"),
        ({"STREAMGAUGE_PROMETHEUS_USERNAME": "me", "STREAMGAUGE_PROMETHEUS_PASSWORD": "pw"}, "Basic bWU6cHc="),
        ({}, None),
    ],
    ids=["token", "name and password", "nothing"],
)
def test_a_log_in_comes_from_the_environment(environ, sent):
    """A token, or a name and a password; it is sent with every question."""
    seen = []
    with answering(200, json.dumps(MATRIX), seen) as address:
        alarms = Prometheus(address, login(environ)).alarms("up", Span(0, 60, 60))

    assert {} == alarms
    assert [sent] == seen


def test_a_log_in_goes_nowhere_else():
    """Who points to somebody else is no Prometheus: one line, and the other hears nothing."""
    seen = []
    with answering(200, json.dumps(MATRIX), seen) as other, answering(302, "", headers={"Location": other}) as address:
        result = run("--prometheus", address, env={"STREAMGAUGE_PROMETHEUS_TOKEN": "t"})

    assert [] == seen
    assert (3, f"streamgauge: {address} answers HTTP 302 and not like a Prometheus; give the address of one with "
            "--prometheus\n") == (result.exit_code, result.stderr)  # fmt: skip


def test_every_label_of_an_alert_is_printed():
    """Else two alerts would look like one."""
    assert {label for rule in ALL_RULES for label in rule.labels} == set(LABELS)


def test_warnings_are_passed_on():
    """Thanos and Mimir say so when they answered in part: once each, on stderr."""
    matrix = {"resultType": "matrix", "result": [{"metric": {}, "values": [[0, "1"], [60, "1"]]}]}
    body = json.dumps({"status": "success", "warnings": ["a store\nis away"], "data": matrix})
    with answering(200, body) as address:
        result = run(
            "--prometheus", address, "--from", "1970-01-01T00:00", "--to", "1970-01-01T00:01", "--alert", "MonitorSlow"
        )

    assert ["streamgauge: Prometheus warns: a store is away"] == result.stderr.splitlines()


def test_a_long_time_is_asked_for_in_parts():
    """Prometheus answers 11,000 evaluations at most: no part has more than was allowed, and none is asked for twice."""
    parts = [*Span(0, 86_400 * 30, 60).parts()]

    assert [*range(0, 86_400 * 30 + 1, 60)] == [
        at for part in parts for at in range(part.begin, part.end + 1, part.step)
    ]
    assert max(map(len, parts)) == 1440
