"""``streamgauge lag``: what it prints, how it judges, and what it says when it cannot know."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scripted_kafka import ScriptedKafka
from snapshots import group, kafka_snapshot

from monitor.cli.consumers import BAD, age_cell, is_bad
from monitor.cli.lag import CSV_COLUMNS
from monitor.cli.output import Cell, Column, Table, age_text, fit, names_text, plain_lines, printable, rich_table
from monitor.model import Failure, GroupFacts, Health, Member, TopicPartition, Why

AT = 1_795_000_000.0
ENDS = {("orders", 0): (0, 100), ("orders", 1): (0, 100), ("other", 0): (0, 10)}
LOG = {key: [(i, int(AT * 1000) - 1_000 * (end - i)) for i in range(end)] for key, (_, end) in ENDS.items()}


def empty(name):
    return GroupFacts(group(name), state="Empty", protocol="classic", members=0)


def snapshot(commits=None, ends=ENDS, stopped=(), **extra):
    commits = commits or {"billing": {("orders", 0): 100, ("orders", 1): 90}, "audit": {("other", 0): 10}}
    return kafka_snapshot(ends, commits, at=AT, states={name: empty(name) for name in stopped}, **extra)


@pytest.fixture
def lag(run, kafkas):
    """Run ``lag`` against one cluster that shows this snapshot."""

    def invoke(*args, snapshot=snapshot(), **script):  # noqa: B008
        kafkas["default"] = ScriptedKafka(snapshot, log=LOG, **script)
        return run("lag", "--bootstrap-servers", "x:1", *args)

    return invoke


# --- the table ----------------------------------------------------------------------------------------------------


def test_the_table_says_lag_and_age(lag):
    """A consumer a line: health, records, age with its bound, members; fine is exit code 0."""
    result = lag()

    assert 0 == result.exit_code
    assert "" == result.stderr
    assert [
        "CONSUMER  HEALTH  LAG     AGE  MEMBERS",
        "billing   ok       10  10.0 s        1",
        "audit     ok        0     0 s        1",
    ] == result.stdout.splitlines()


def test_partitions_are_shown_when_asked(lag):
    """With --partitions each partition has a line with its offsets."""
    result = lag("--partitions", "billing")

    assert [
        "CONSUMER  HEALTH  LAG     AGE  MEMBERS",
        "billing   ok       10  10.0 s        1",
        "",
        "CONSUMER  TOPIC   PART  COMMITTED  END  LAG     AGE  HEALTH",
        "billing   orders     0        100  100    0     0 s  ok",
        "billing   orders     1         90  100   10  10.0 s  ok",
    ] == result.stdout.splitlines()


def reader_of_orders(**kw):
    """A live group that subscribes to orders alone; one member has it all."""
    owner = Member("member-1", "client-1", "/10.0.0.7", assigned=(TopicPartition("orders", 0),))
    return GroupFacts(
        group("g"), "Stable", "classic", members=1, owners=(owner,), subscribed=frozenset({"orders"}),
        assigned={TopicPartition("orders", 0): "client-1"}, described_at=AT, **kw,
    )  # fmt: skip


LEFT = {"g": {("orders", 0): 100, ("other", 0): 3}}


def test_abandoned_topics_are_told_and_count_for_nothing(lag):
    """The lag is that of what is read; a line below names what is not, with the records that wait there."""
    states = {"g": reader_of_orders()}
    result = lag("--partitions", snapshot=kafka_snapshot(ENDS, LEFT, at=AT, states=states))

    assert 0 == result.exit_code
    assert [
        "CONSUMER  HEALTH  LAG  AGE  MEMBERS",
        "g         ok        0  0 s        1",
        "",
        "CONSUMER  TOPIC   PART  COMMITTED  END  LAG    AGE  HEALTH     MEMBER",
        "g         orders     0        100  100    0    0 s  ok         client-1",
        "g         other      0          3   10    7  7.0 s  abandoned",
        "",
        "g: abandoned other (7 records)",
    ] == result.stdout.splitlines()


def test_an_abandoned_topic_that_cannot_be_read_says_so(lag):
    """How many records wait there is unknown, and the consumer's own lag is not."""
    ends = {**ENDS, ("other", 0): Why.NO_LEADER}
    result = lag(snapshot=kafka_snapshot(ends, LEFT, at=AT, states={"g": reader_of_orders()}))

    assert "g: abandoned other (?)" == result.stdout.splitlines()[-1]
    assert "g         ok        0  0 s        1" in result.stdout


def test_partitions_have_their_member_and_the_reason_of_an_unknown(lag):
    """Who owns a partition, and why something about it is unknown, are columns that appear when needed."""
    states = {"g": GroupFacts(group("g"), members=1, assigned={TopicPartition("orders", 0): "client\n1"})}
    commits = {"g": {("orders", 0): 100, ("orders", 1): Why.TIMEOUT}}
    result = lag("--partitions", snapshot=kafka_snapshot(ENDS, commits, at=AT, states=states))

    assert [
        r"CONSUMER  TOPIC   PART  COMMITTED  END  LAG  AGE  HEALTH   MEMBER     WHY",
        r"g         orders     0        100  100    0  0 s  ok       client\n1",
        r"g         orders     1          ?  100    ?    ?  unknown             the broker did not answer in time",
    ] == result.stdout.splitlines()[3:6]


def test_unknown_is_never_zero(lag):
    """What is unknown is a question mark or a lower bound, and its reason stands below."""
    commits = {
        "half": {("orders", 0): 90, ("orders", 1): Why.TIMEOUT},
        "nothing": {("orders", 0): Why.TIMEOUT},
        "gone": {},
    }
    states = {"gone": GroupFacts(group("gone"), why=int(Why.NO_COORDINATOR))}
    result = lag(snapshot=kafka_snapshot(ENDS, commits, at=AT, states=states))

    lines = result.stdout.splitlines()
    assert 0 == result.exit_code
    assert "half      unknown  at least 10    ?        1" == lines[1]
    assert {"nothing   unknown            ?    ?        1", "gone      unknown            ?    ?        ?"} == set(
        lines[2:4]
    )
    assert (
        "half: 1 of its partitions unknown (the broker did not answer in time); at least 10 records behind" in lines[4:]
    )
    assert "gone: could not be read: no broker coordinates the group right now" in lines[4:]


def test_an_unknown_age_has_its_reason(lag, kafkas, run, in_folder):
    """Where look-ups are switched off the age is unknown, and the line below says why."""
    (in_folder / "streamgauge.yml").write_text("clusters:\n  - {bootstrap_servers: 'x:1', lookups_per_cycle: 0}\n")
    kafkas["default"] = ScriptedKafka(snapshot(), log=LOG)

    result = run("lag", "billing")

    assert "billing   ok       10    ?        1" in result.stdout
    assert "(the record's time has not been looked up yet)" in result.stdout


def test_consumers_without_any(lag):
    """A cluster without consumers says so."""
    result = lag(snapshot=kafka_snapshot(ENDS, {}, at=AT))

    assert (0, "no consumers\n") == (result.exit_code, result.stdout)


def test_two_clusters_are_told_apart(run, kafkas, in_folder):
    """With more than one cluster each line says which; with one, or of one kind, that column is left out."""
    (in_folder / "streamgauge.yml").write_text(
        "clusters:\n  - {name: a, bootstrap_servers: 'x:1'}\n  - {name: b, bootstrap_servers: 'x:1'}\n"
    )
    for name in ("a", "b"):
        kafkas[name] = ScriptedKafka(kafka_snapshot(ENDS, {"g": {("other", 0): 10}}, at=AT), log=LOG)
        object.__setattr__(kafkas[name].script[0], "cluster", name)

    result = run("lag")

    assert ["CLUSTER  CONSUMER  HEALTH  LAG  AGE  MEMBERS", "a        g         ok        0  0 s        1"] == (
        result.stdout.splitlines()[:2]
    )


HOSTILE = 'a\nb\x1b[31m"c d"\t\x00\u202eé日\\'


def test_hostile_names_stay_on_their_line(lag):
    """Newlines, escape codes and text direction marks in a name are escapes; letters of any script stay."""
    result = lag("--partitions", snapshot=kafka_snapshot(ENDS, {HOSTILE: {("orders", 0): Why.TIMEOUT}}, at=AT))

    shown = r'a\nb\x1b[31m"c d"\t\x00\u202eé日\\'
    assert [shown] == [line[: len(shown)] for line in result.stdout.splitlines()[1:2]]
    assert "\x1b" not in result.stdout
    assert 3 == sum(line.startswith(shown) for line in result.stdout.splitlines())


@given(st.text())
def test_printable_text_stays_in_its_cell(text):
    """Whatever a name holds, it is printed as one line of characters that show, and differs for different names."""
    shown = printable(text)

    assert shown.isprintable()
    assert text == shown.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") or "\\" in shown


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_different_names_look_different(names):
    """Two names never look the same."""
    assert printable(names[0]) != printable(names[1])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_table_fits(width):
    """On a terminal no line is wider than it, and folded names are whole."""
    name = "a-very-long-group-name-" * 5
    table = Table((Column("CONSUMER", may_fold=True), Column("LAG", is_number=True)), [[Cell(name), Cell("1,234")]])
    console = Console(file=io.StringIO(), width=width)

    console.print(rich_table(table))

    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert name == "".join(line.replace("1,234", "").strip() for line in lines[1:])


@pytest.mark.parametrize(
    ("width", "cells", "notes"),
    [
        pytest.param(40, ["a long reason", "", "a long reason"], [], id="there is room"),
        pytest.param(12, ["1", "", "1"], ["1: a long reason"], id="too narrow"),
    ],
)
def test_reasons_stand_below_a_table_that_is_too_wide(width, cells, notes):
    """A column of sentences would be folded to a word a line: then each is told once, and numbered."""
    columns = (Column("A"), Column("WHY", is_sentence=True))
    reasons = ["a long reason", "", "a long reason"]

    table, below = fit(Table(columns, [[Cell("x"), Cell(reason)] for reason in reasons]), width)

    assert cells == [row[1].text for row in table.rows]
    assert notes == below


def test_markup_in_names_is_text():
    """A group called [bold] is called [bold]."""
    console = Console(file=io.StringIO(), width=80)

    console.print(rich_table(Table((Column("CONSUMER"),), [[Cell("[bold]x[/]")]])))

    assert "[bold]x[/]" in console.file.getvalue()


def test_wide_characters_are_aligned():
    """A character that takes two columns counts as two."""
    table = Table((Column("A"), Column("B")), [[Cell("日本"), Cell("x")], [Cell("abcd"), Cell("y")]])

    assert ["A     B", "日本  x", "abcd  y"] == plain_lines(table)


# --- judging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "snapshot", "code"),
    [
        pytest.param([], snapshot(), 0, id="all fine"),
        pytest.param([], snapshot(stopped=["billing"]), 1, id="one stopped"),
        pytest.param(["audit"], snapshot(stopped=["billing"]), 0, id="only those asked for are judged"),
        pytest.param(["bill*"], snapshot(stopped=["billing"]), 1, id="a pattern"),
        pytest.param([], snapshot({"g": {("orders", 0): Why.TIMEOUT}}), 0, id="unknown is not bad"),
        pytest.param(["--strict"], snapshot({"g": {("orders", 0): Why.TIMEOUT}}), 1, id="unless strict"),
        pytest.param(["--strict"], snapshot(), 0, id="strict and fine"),
        pytest.param(["--strict"], snapshot(up=False), 1, id="strict and a broker away"),
        pytest.param(["-o", "json"], snapshot(stopped=["billing"]), 1, id="as JSON"),
        pytest.param(["-o", "csv"], snapshot(stopped=["billing"]), 1, id="as CSV"),
    ],
)
def test_exit_codes_judge(lag, args, snapshot, code):
    """Bad is 1, fine is 0, whatever the form of the answer."""
    assert code == lag(*args, snapshot=snapshot).exit_code


def test_over_the_objective_is_bad(run, kafkas, in_folder):
    """A consumer later than its objective allows is judged bad, and says so, while its health is ok."""
    (in_folder / "streamgauge.yml").write_text(
        "clusters: [{bootstrap_servers: 'x:1'}]\nobjectives: {consumers: [{consumer: bill*, seconds: 5}]}\n"
    )
    kafkas["default"] = ScriptedKafka(snapshot(), log=LOG)

    result = run("lag")

    assert 1 == result.exit_code
    assert "billing   ok, late   10  10.0 s" in result.stdout
    assert "over its objective of 5 s" in result.stdout
    assert kafkas["default"].closed == 1


@pytest.mark.parametrize("health", list(Health), ids=list(Health))
def test_every_health_is_judged(health):
    """The six grave ones are bad, unknown when strict, the others fine."""
    grave = {"losing_data", "lost", "stalled", "stopped", "blocked", "falling_behind"}

    class Judged:
        is_over_objective = False

    Judged.health = health

    assert (health in grave) == is_bad(Judged, strict=False)
    assert (health in {*grave, "unknown"}) == is_bad(Judged, strict=True)
    assert grave == BAD


# --- choosing -----------------------------------------------------------------------------------------------------

THREE = {name: {("other", 0): 10} for name in ("billing", "group[1]", "group1", "b?")}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        pytest.param([], {"billing", "group[1]", "group1", "b?"}, id="all"),
        pytest.param(["billing"], {"billing"}, id="a name"),
        pytest.param(["group*"], {"group[1]", "group1"}, id="a pattern"),
        pytest.param(["group[1]"], {"group[1]"}, id="a name that looks like a pattern"),
        pytest.param(["b?"], {"b?"}, id="another"),
        pytest.param(["billing", "group1", "*1"], {"billing", "group1"}, id="several"),
    ],
)
def test_names_and_patterns(lag, patterns, names):
    """A name that is there is meant literally; otherwise * ? and [] match."""
    result = lag("-o", "json", *patterns, snapshot=kafka_snapshot(ENDS, THREE, at=AT))

    assert names == {each["name"] for each in json.loads(result.stdout)["clusters"][0]["consumers"]}


@pytest.mark.parametrize(
    ("pattern", "snapshot", "code", "line"),
    [
        pytest.param("biling", snapshot(), 2, "no consumer is called 'biling': did you mean 'billing'?", id="near"),
        pytest.param("xyz", snapshot(), 2, "no consumer is called 'xyz': there are audit, billing", id="far"),
        pytest.param("x\n", snapshot(), 2, r"no consumer is called 'x\\n': there are audit, billing", id="hostile"),
        pytest.param(
            "x", kafka_snapshot(ENDS, {}, at=AT), 2, "no consumer is called 'x': the cluster has no consumer", id="none"
        ),
        pytest.param(
            "biling",
            snapshot(up=False),
            3,
            "no consumer called 'biling' was seen, but part of default did not answer: try again",
            id="perhaps on the broker that is away",
        ),
    ],
)
def test_nobody_of_that_name(lag, pattern, snapshot, code, line):
    """A name that means nobody is wrong usage, unless it may only have been out of sight."""
    result = lag(pattern, snapshot=snapshot)

    assert (code, "", f"streamgauge: {line}\n") == (result.exit_code, result.stdout, result.stderr)


# --- what could not be read ---------------------------------------------------------------------------------------


def test_nothing_reached_is_exit_3(lag):
    """Where no broker answers there is no table, one line, and exit code 3."""
    result = lag(reachable=False)

    assert (3, "") == (result.exit_code, result.stdout)
    assert "streamgauge: no broker answers at nowhere:9092: check bootstrap_servers\n" == result.stderr


def test_lost_between_check_and_cycle_is_exit_3(lag):
    """A cluster that answered once and then nothing at all was not reached."""
    failure = Failure("broker", "1 (x:1)", "TIMEOUT", "did not answer Metadata within 5 s")
    result = lag(snapshot=kafka_snapshot({}, {}, at=AT, up=False, failures=[failure]))

    assert (3, "") == (result.exit_code, result.stdout)
    assert "broker 1 (x:1) could not be read: TIMEOUT: did not answer" in result.stderr


def test_failures_go_to_stderr_and_equal_ones_share_a_line(lag):
    """Each failure is one line; a thousand equal ones are one line with their count."""
    failures = [Failure("group", f"g{i}", "GROUP_AUTHORIZATION_FAILED") for i in range(1000)]
    result = lag(snapshot=snapshot(failures=[*failures, Failure("topic", "a\nb", "TIMEOUT", "3 of its partitions")]))

    assert [
        "streamgauge: cluster default: 1,000 groups (g0, g1, g2 and 997 more) could not be read: "
        "GROUP_AUTHORIZATION_FAILED",
        r"streamgauge: cluster default: topic a\nb could not be read: TIMEOUT: 3 of its partitions",
    ] == result.stderr.splitlines()
    assert result.stdout.startswith("CONSUMER")


def test_findings_are_told(lag):
    """A commit beyond the end is told below the table."""
    result = lag(snapshot=snapshot({"g": {("other", 0): 50}}))

    assert "beyond_end: g on other/0: committed offset 50 lies beyond the log end 10" in result.stdout


# --- for programs -------------------------------------------------------------------------------------------------


def test_json_is_the_report(lag):
    """JSON is one line: the report as the manual has it, with numbers for numbers and null for unknown."""
    result = lag("-o", "json", snapshot=snapshot({"g": {("orders", 0): 60, ("orders", 1): Why.NO_COMMIT}}))

    (cluster,) = json.loads(result.stdout)["clusters"]
    (consumer,) = cluster["consumers"]
    assert 1 == result.stdout.count("\n")
    assert (40, None) == tuple(each["lag_records"] for each in consumer["partitions"])
    assert "no offset committed yet" == consumer["partitions"][1]["unknown"]["lag_records"]
    assert (None, 40, 1) == (consumer["lag_records"], consumer["known_lag_records"], consumer["partitions_unknown"])


def test_json_is_narrowed_to_those_asked_for(lag):
    """With names only those consumers and the topics they read are in the JSON."""
    (cluster,) = json.loads(lag("-o", "json", "audit").stdout)["clusters"]

    assert ["audit"] == [each["name"] for each in cluster["consumers"]]
    assert ["other"] == [each["name"] for each in cluster["topics"]]


def test_csv_has_a_line_a_partition(lag):
    """CSV has a fixed header, a line a partition, nothing for unknown, and the reasons in the last column."""
    states = {"gone": GroupFacts(group("gone"), why=int(Why.NO_COORDINATOR))}
    commits = {HOSTILE: {("orders", 0): 60, ("orders", 1): Why.NO_COMMIT}, "gone": {}}
    result = lag("-o", "csv", snapshot=kafka_snapshot(ENDS, commits, at=AT, states=states))

    rows = {(row["consumer"], row["partition"]): row for row in csv.DictReader(io.StringIO(result.stdout, newline=""))}
    known, no_commit, gone = rows[HOSTILE, "0"], rows[HOSTILE, "1"], rows["gone", ""]
    assert ",".join(CSV_COLUMNS) == result.stdout.splitlines()[0]
    assert ("60", "100", "40", "40.0", "record") == tuple(
        known[name] for name in ("committed", "log_end", "lag_records", "lag_seconds", "basis")
    )
    assert ("", "", "") == tuple(no_commit[name] for name in ("committed", "lag_records", "lag_seconds"))
    assert "lag_records: no offset committed yet" in no_commit["unknown"]
    assert ("unknown", "", "") == (gone["health"], gone["topic"], gone["lag_records"])
    assert 3 == len(rows)


def test_csv_says_who_owns_and_what_is_abandoned(lag):
    """Columns that came later stand at the end."""
    result = lag("-o", "csv", snapshot=kafka_snapshot(ENDS, LEFT, at=AT, states={"g": reader_of_orders()}))

    orders, other = csv.DictReader(io.StringIO(result.stdout))
    assert ("false", "client-1", "member-1", "/10.0.0.7") == tuple(
        orders[name] for name in ("abandoned", "member", "member_id", "host")
    )
    assert ("true", "7", "", "") == tuple(other[name] for name in ("abandoned", "lag_records", "member_id", "host"))


# --- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.04, "0.0 s"),
        (1.84, "1.8 s"),
        (119.9, "119.9 s"),
        (120, "2.0 min"),
        (7_199, "120.0 min"),
        (9_000, "2.5 h"),
        (180_000, "2.1 d"),
    ],
)
def test_ages_have_units(seconds, text):
    """Durations are written in the unit in which they have two digits that count."""
    assert text == age_text(seconds)


@pytest.mark.parametrize(
    ("seconds", "bound", "text"),
    [
        pytest.param(np.nan, np.nan, "?", id="unknown"),
        pytest.param(1.8, 0.5, "1.8 s ± 0.5 s", id="with a bound"),
        pytest.param(1.8, 0.001, "1.8 s", id="a bound below the digits shown"),
        pytest.param(0.0, 0.0, "0 s", id="caught up"),
        pytest.param(600, 90, "10.0 min ± 90.0 s", id="units of their own"),
    ],
)
def test_an_age_has_its_bound(seconds, bound, text):
    """The bound is shown where it shows."""
    assert text == age_cell(seconds, bound).text


def test_long_lists_are_shortened():
    """Three names are named, more are counted."""
    assert "a, b, c" == names_text(["a", "b", "c"])
    assert "a, b, c and 1 more" == names_text(["a", "b", "c", "d"])
