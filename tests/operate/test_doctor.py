"""How checks are run, what their lines say, and what becomes of it all."""

import asyncio

import pytest

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka.cold import Coordinator, GroupAccess, TopicFacts
from monitor.observe.kafka.transport import Address
from monitor.operate import access, connection, releases
from monitor.operate.connection import Spoken
from monitor.operate.doctor import (
    CLUSTER,
    CONFIGURATION,
    Check,
    Result,
    Verdict,
    exit_code,
    failed,
    ok,
    run_checks,
    skipped,
    softened,
    some,
    warning,
)
from monitor.operate.reach import ReachError

FINE, BAD, ODD = ok("a", "fine"), failed("a", "broken", "mend it"), warning("a", "odd", "look")


def check(name, *lines, needs=(), ran=None):
    async def run():
        if ran is not None:
            ran.append(name)
        return lines

    return Check(name, run, needs)


def verdicts(found) -> dict[str, str]:
    return {name: str(line.verdict) for name, line in found}


# --- the runner -------------------------------------------------------------------------------------------------------


async def test_independent_checks_run_although_another_failed():
    """What does not need a failed check is looked at; what does is skipped, and names it."""
    ran = []
    found = await run_checks(
        [check("a", BAD, ran=ran), check("b", FINE, ran=ran), check("c", FINE, needs=("a",), ran=ran)], 5
    )

    assert {"a": "failed", "b": "ok", "c": "skipped"} == verdicts(found)
    assert "not looked at: a failed" == found[2][1].seen
    assert ["a", "b"] == sorted(ran)


async def test_the_first_cause_is_named_down_the_chain():
    """Whatever hangs on a failed check is skipped for the same reason, which is that check."""
    chain = [check("a", BAD), check("b", FINE, needs=("a",)), check("c", FINE, needs=("b",))]

    assert ["not looked at: a failed"] * 2 == [line.seen for _, line in (await run_checks(chain, 5))[1:]]


async def test_a_part_that_went_well_is_enough_to_go_on():
    """One broker of two that failed does not keep the other from being looked at."""
    assert {"a": "ok", "b": "ok"} == verdicts(
        await run_checks([check("a", BAD, FINE), check("b", FINE, needs=("a", "not there"))], 5)
    )


async def test_lines_come_in_the_order_of_the_checks():
    """However long each takes, a person reads them in order."""
    released = asyncio.Event()

    async def late():
        await released.wait()
        return [FINE]

    async def early():
        released.set()
        return [FINE]

    assert ["late", "early"] == [name for name, _ in await run_checks([Check("late", late), Check("early", early)], 5)]


async def test_a_check_that_hangs_is_a_failure_and_holds_up_nobody():
    """Each check is bounded in time, and a check beside it is not concerned."""

    async def hang():
        await asyncio.Event().wait()

    found = await run_checks([Check("hangs", hang, steps=0), check("b", FINE)], 1e9)

    assert {"hangs": "failed", "b": "ok"} == verdicts(found)
    assert "not finished within 1 s" == found[0][1].seen


async def test_a_broker_that_fails_is_a_line():
    """An error of transport that a check did not expect is its result."""

    async def fail():
        raise TransportError("b:1 did not answer Metadata within 5 s", Why.TIMEOUT)

    ((_, line),) = await run_checks([Check("a", fail)], 5)

    assert (Verdict.FAILED, "b:1 did not answer Metadata within 5 s") == (line.verdict, line.seen)


async def test_a_fault_of_ours_is_not_hidden():
    """What nobody expected is raised: a check must not look fine because it broke."""

    async def fail():
        raise KeyError("x")

    with pytest.raises(ExceptionGroup):
        await run_checks([Check("a", fail)], 5)


def result(check, line):
    return Result("default", check, line)


@pytest.mark.parametrize(
    ("results", "strict", "code"),
    [
        pytest.param([result(CLUSTER, FINE)], False, 0, id="fine"),
        pytest.param([result(CLUSTER, FINE), result("x", ODD)], False, 0, id="a warning"),
        pytest.param([result(CLUSTER, FINE), result("x", ODD)], True, 1, id="a warning, strictly"),
        pytest.param([result(CLUSTER, FINE), result("x", skipped("x", "no"))], True, 0, id="skipped is no failure"),
        pytest.param([result(CLUSTER, FINE), result("x", BAD)], False, 1, id="incomplete"),
        pytest.param([result(CLUSTER, FINE), result(CLUSTER, BAD)], False, 1, id="one cluster of two"),
        pytest.param([result("bootstrap reach", BAD), result(CLUSTER, skipped("x", "no"))], False, 3, id="unreachable"),
        pytest.param([result(CONFIGURATION, BAD), result(CLUSTER, FINE)], False, 2, id="configuration"),
        pytest.param([result(CONFIGURATION, BAD), result("x", BAD)], False, 2, id="configuration comes first"),
    ],
)
def test_the_exit_code(results, strict, code):
    """2 for the settings, 3 if no cluster answers, 1 if numbers are incomplete, else 0."""
    assert code == exit_code(results, strict=strict)


def test_one_bootstrap_address_is_enough():
    """Failures beside something that is fine become warnings; with nothing fine they stay."""
    assert ["ok", "warning"] == [str(line.verdict) for line in softened([FINE, BAD])]
    assert ["failed", "failed"] == [str(line.verdict) for line in softened([BAD, BAD])]


def test_long_lists_are_cut_and_counted():
    """Five names, and how many more there are."""
    assert "0, 1, 2, 3, 4 and 7 more" == some(range(12))


# --- what a port speaks ----------------------------------------------------------------------------------------------

TLS, PLAIN = Spoken(tls=True, kafka=True), Spoken(tls=False, kafka=True)
LOGINS = ("PLAIN", "SCRAM-SHA-256")


@pytest.mark.parametrize(
    ("protocol", "spoken", "said"),
    [
        pytest.param(
            "PLAINTEXT",
            Spoken(True, False),
            "speaks TLS: set security_protocol to SSL or SASL_SSL",
            id="TLS, not trusted",
        ),
        pytest.param("PLAINTEXT", TLS, "speaks TLS: set security_protocol to SSL", id="TLS"),
        pytest.param(
            "PLAINTEXT",
            Spoken(True, True, LOGINS),
            "to SASL_SSL and give a log-in it offers (PLAIN, SCRAM-SHA-256)",
            id="TLS and log-in",
        ),
        pytest.param("SASL_PLAINTEXT", Spoken(True, False), "speaks TLS", id="log-in sent to TLS"),
        pytest.param("SSL", PLAIN, "without TLS: set security_protocol to PLAINTEXT", id="no TLS"),
        pytest.param(
            "SASL_SSL",
            Spoken(False, True, LOGINS),
            "without TLS: set security_protocol to SASL_PLAINTEXT",
            id="log-in without TLS",
        ),
        pytest.param(
            "PLAINTEXT",
            Spoken(False, True, LOGINS),
            "wants a log-in: set security_protocol to SASL_PLAINTEXT",
            id="log-in missing",
        ),
        pytest.param(
            "SSL",
            Spoken(True, True, LOGINS),
            "wants a log-in: set security_protocol to SASL_SSL",
            id="log-in over TLS missing",
        ),
        pytest.param(
            "SASL_PLAINTEXT", PLAIN, "wants no log-in: set security_protocol to PLAINTEXT", id="needless log-in"
        ),
        pytest.param("SASL_SSL", TLS, "wants no log-in: set security_protocol to SSL", id="needless log-in over TLS"),
        pytest.param(
            "SASL_SSL",
            Spoken(True, True, LOGINS),
            "set sasl.mechanism to one it offers: PLAIN, SCRAM-SHA-256",
            id="another mechanism",
        ),
        pytest.param("SSL", Spoken(True, False), "client certificate", id="TLS that closes"),
        pytest.param("PLAINTEXT", Spoken(False, False), "may be no Kafka broker", id="something else"),
        pytest.param("SSL", Spoken(False, False), "may be no Kafka broker", id="something else than TLS"),
    ],
)
def test_the_advice_fits_what_the_port_speaks(protocol, spoken, said):
    """Each mismatch of protocol and port has its own advice."""
    assert said in connection.advice(protocol, spoken)


def test_an_advertised_address_that_does_not_answer_is_said_with_both_addresses():
    """The classic trap: bootstrap answers, and the broker is somewhere this machine cannot reach."""
    line = connection.advertised(Address("kafka", 9092), 2, Address("10.0.0.9", 9092), ReachError("it hangs", "wait"))

    assert Verdict.FAILED is line.verdict
    assert "bootstrap kafka:9092 answers and says that broker 2 listens at 10.0.0.9:9092, but it hangs" == line.seen
    assert "advertised.listeners" in line.advice


def test_lines_that_say_the_same_share_one():
    """Three brokers that are fine are a line; the one that differs has its own."""
    lines = connection.merged([ok("a", "answers"), ok("b", "answers"), failed("c", "hangs", "wait")])

    assert [ok("a, b", "a, b: answers"), failed("c", "hangs", "wait")] == lines


@pytest.mark.parametrize(
    ("theirs", "verdict", "said"),
    [
        pytest.param(100.25, "ok", "0.00 s behind ours, ± 0.25 s", id="together"),
        pytest.param(101.4, "ok", "1.15 s ahead of ours", id="within what is known"),
        pytest.param(400.25, "warning", "300.00 s ahead of ours", id="ahead"),
        pytest.param(40.25, "warning", "60.00 s behind ours", id="behind"),
    ],
)
def test_clocks_are_compared_to_within_what_is_known(theirs, verdict, said):
    """A warning only where the difference is proven: the time the answer took is its bound."""
    line = connection.clock_line(1, theirs, before=100.0, after=100.5)

    assert verdict == line.verdict
    assert said in line.seen


def test_no_controller_is_a_failure():
    """Without an active controller no leader is elected."""
    assert (Verdict.FAILED, Verdict.OK) == (
        connection.controller_line(-1).verdict,
        connection.controller_line(3).verdict,
    )


# --- releases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "offered", "name"),
    [
        # Level and versions as Kafka 3.7.2, 3.9.2, 4.0.2 and 4.3.1 answered them.
        pytest.param(19, {}, "3.7", id="3.7"),
        pytest.param(21, {}, "3.9", id="3.9"),
        pytest.param(25, {}, "4.0", id="4.0"),
        pytest.param(30, {}, "4.3", id="4.3"),
        pytest.param(99, {}, "4.3", id="one to come"),
        pytest.param(None, {16: (0, 5), 60: (0, 0)}, "3.8", id="ZooKeeper, 3.9"),
        pytest.param(None, {16: (0, 4), 60: (0, 0), 2: (1, 6)}, "2.8", id="2.8"),
        pytest.param(None, {3: (0, 7)}, None, id="older than anything"),
    ],
)
def test_a_release_is_a_lower_bound(level, offered, name):
    """The newest metadata.version tells it, else the requests that are offered."""
    assert name == releases.release(level, offered)


def test_what_is_lacking_has_what_is_done_instead():
    """A broker that offers nothing lacks everything, one that offers all nothing."""
    everything = {each.api_key: (0, 99) for each in releases.FEATURES}

    assert [] == releases.lacking(everything)
    assert {each.api_key for each in releases.FEATURES} - {90} == {each.api_key for each in releases.lacking({})}
    assert "lag of share groups (DescribeShareGroupOffsets v1): their lag is unknown" in connection.version_text(
        27, everything | {90: (0, 0)}
    )


# --- permissions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operations", "verdict"),
    [
        pytest.param({"DESCRIBE", "ALTER"}, "ok", id="may"),
        pytest.param({"ALTER"}, "failed", id="may not"),
        pytest.param(set(), "failed", id="nothing at all"),
        pytest.param(None, "skipped", id="not told"),
    ],
)
def test_describe_on_the_cluster_decides_whether_lists_are_whole(operations, verdict):
    """Without it groups are hidden and no error says so."""
    line = access.cluster_line(None if operations is None else frozenset(operations), "kafka-acls.sh …")

    assert verdict == line.verdict
    assert ("kafka-acls.sh …" in line.advice) is (verdict == "failed")


def group(name, error=0, topics=(), operations=frozenset({"DESCRIBE"})):
    return GroupAccess(name, error, "", "Stable", 1, frozenset(topics), operations)


def test_groups_that_may_not_be_described_are_named_with_the_grant():
    """A group of its own error has a line; one that is gone since has none."""
    lines = access.group_lines(
        [group("a"), group("b", 30), group("c", 30), group("d", 29), group("e", 69), group("f", 16)], "GROUPS", "TOPICS"
    )

    assert ["ok", "failed", "failed", "failed"] == [str(line.verdict) for line in lines]
    assert "1 group may be described" == lines[0].seen
    assert ("2 groups, b, c: " in lines[1].seen, "GROUPS" in lines[1].advice) == (True, True)
    assert ("d" in lines[2].seen, "TOPICS" in lines[2].advice) == (True, True)
    assert "NOT_COORDINATOR" in lines[3].seen


def test_consumers_whose_topic_is_hidden_are_named():
    """Assigned and hidden is incomplete; assigned and gone is a warning; all else is fine."""
    readers = access.readers_of([group("billing", topics=["orders", "audit"]), group("b", topics=["audit", "gone"])])
    lines = access.consumer_lines(readers, {"audit": 29, "gone": 3}, "GRANT")

    assert ["failed", "warning"] == [str(line.verdict) for line in lines]
    assert "read by b, billing, may not be described: their lag misses it without an error" == lines[0].seen
    assert "grant DESCRIBE: GRANT audit" in lines[0].advice
    assert "gone" in lines[1].seen
    assert ["ok"] == [str(line.verdict) for line in access.consumer_lines(readers, {}, "GRANT")]


def test_groups_without_a_coordinator_are_named():
    """Each error has a line; a group that moved is a warning; a forbidden one is told elsewhere."""
    listed = dict.fromkeys("abcd", (1, "classic"))
    found = {"a": Coordinator(1, 0), "b": Coordinator(-1, 15), "c": Coordinator(2, 0), "d": Coordinator(-1, 30)}

    assert ["failed", "warning"] == [str(line.verdict) for line in access.coordinator_lines(listed, found)]
    assert ["ok"] == [str(line.verdict) for line in access.coordinator_lines({"a": (1, "")}, {"a": Coordinator(1, 0)})]
    assert ["skipped"] == [str(each.verdict) for each in access.coordinator_lines(listed, {"d": Coordinator(-1, 30)})]


def topic(name, error=0, leaderless=(), partitions=2):
    return TopicFacts(name, error, False, partitions, leaderless, frozenset({"DESCRIBE"}))


@pytest.mark.parametrize(
    ("offsets", "verdict"),
    [
        pytest.param(topic("__consumer_offsets"), "ok", id="all led"),
        pytest.param(topic("__consumer_offsets", leaderless=(1,)), "failed", id="one not led"),
        pytest.param(topic("__consumer_offsets", error=29), "skipped", id="forbidden"),
        pytest.param(topic("__consumer_offsets", error=3), "ok", id="not there yet"),
        pytest.param(topic("__consumer_offsets", error=5), "failed", id="another error"),
    ],
)
def test_a_partition_of_the_offsets_topic_without_a_leader_is_groups_without_a_coordinator(offsets, verdict):
    """They are unknown however well everything else goes."""
    assert verdict == access.offsets_topic_line(offsets).verdict


def test_topics_without_a_leader_are_a_failure_and_no_topic_at_all_is_a_doubt():
    """No topic may be for lack of a permission, which is no error to a broker."""
    assert ["ok", "failed"] == [
        str(line.verdict) for line in access.topic_lines([topic("a"), topic("b", leaderless=(0,))], "")
    ]
    assert [Verdict.WARNING] == [line.verdict for line in access.topic_lines([], "GRANT")]
