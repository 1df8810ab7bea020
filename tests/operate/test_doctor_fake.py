"""The whole examination of a fake cluster, and of ports that are something else: what it says and where it stops."""

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from monitor.operate.doctor import Result, exit_code
from monitor.operate.examine import examine
from monitor.sandbox.fake import Call, Delay, FakeCluster, Hang, Member, Truncate
from monitor.settings import Cluster, Sasl, Settings, SparkCheckpoints, Tls

PROGRAM = Path(sys.executable).with_name("streamgauge")


@pytest.fixture
async def fake():
    async with FakeCluster(brokers=2) as cluster:
        cluster.topic("orders", partitions=2, replication=2)
        cluster.topic("audit", partitions=1)
        cluster.group("billing", {("orders", 0): 0})
        yield cluster


@pytest.fixture(scope="module")
def ca():
    return trustme.CA(organization_name="Our CA")


async def look(bootstrap, **options) -> list[Result]:
    options.setdefault("timeout_seconds", 5)
    return await examine(Settings(clusters=(Cluster(bootstrap_servers=bootstrap, **options),)))


def said(results, check) -> list[tuple[str, str]]:
    return [(str(each.line.verdict), each.line.seen) for each in results if each.check == check]


def verdicts(results) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in results:
        found.setdefault(each.check, set()).add(str(each.line.verdict))
    return found


def advice(results, check) -> str:
    return " / ".join(each.line.advice for each in results if each.check == check)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def test_a_healthy_cluster_is_fine(fake):
    """Every check is ok but those that these brokers offer nothing for."""
    results = await look(fake.bootstrap)

    assert {} == {name: found for name, found in verdicts(results).items() if not found <= {"ok", "skipped"}}
    assert {"skipped"} == verdicts(results)["clock"]
    assert 0 == exit_code(results, strict=True)


READING = {
    "ApiVersions", "Metadata", "DescribeCluster", "ListGroups", "DescribeGroups", "FindCoordinator", "OffsetFetch",
    "DescribeQuorum",
}  # fmt: skip


async def test_only_reading_requests_are_sent(fake):
    """Nothing that could change a cluster."""
    await look(fake.bootstrap)

    assert {seen.api for seen in fake.journal} <= READING


async def test_a_wrong_advertised_address_is_said_with_both(fake):
    """Bootstrap answers; the broker it names is nowhere; the other broker is looked at all the same."""
    bootstrap, dead = f"127.0.0.1:{fake.brokers[1].port}", free_port()
    fake.brokers[2].port = dead
    results = await look(bootstrap)

    wrong = next(each.line for each in results if each.check == "broker reach" and each.line.verdict == "failed")
    assert f"bootstrap {bootstrap} answers and says that broker 2 listens at 127.0.0.1:{dead}, but" in wrong.seen
    assert "advertised.listeners" in wrong.advice
    assert {"ok"} == verdicts(results)["broker log-in"]
    assert "failed" in verdicts(results)["groups"]
    assert 1 == exit_code(results)


async def test_an_advertised_name_that_does_not_resolve_is_said(fake):
    """As it is with names that only the brokers' own network knows."""
    bootstrap = f"127.0.0.1:{fake.brokers[1].port}"
    for broker in fake.brokers.values():
        broker.host = "kafka.invalid"
    results = await look(bootstrap)

    assert all("the name kafka.invalid does not resolve" in seen for _, seen in said(results, "broker reach"))
    assert [("skipped", "not looked at: broker reach failed")] == said(results, "topics")
    assert 1 == exit_code(results)


async def test_nothing_there_skips_the_rest_for_that_reason():
    """A port that nobody listens on: one failure, and everything else names it."""
    results = await look(f"127.0.0.1:{free_port()}")

    assert ["failed"] == [verdict for verdict, _ in said(results, "bootstrap reach")]
    assert {"not looked at: bootstrap reach failed"} == {
        each.line.seen for each in results if each.line.verdict == "skipped"
    }
    assert 3 == exit_code(results)


async def test_one_dead_bootstrap_address_of_two_is_a_warning(fake):
    """What is behind it is looked at by the brokers' own addresses."""
    results = await look(f"127.0.0.1:{free_port()},127.0.0.1:{fake.brokers[1].port}")

    assert {"ok", "warning"} == verdicts(results)["bootstrap reach"]
    assert 0 == exit_code(results)


async def test_a_port_that_never_answers_is_bounded_and_asked_once():
    """A connection that is accepted and then silent costs the timeout once, not once a check."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        results = await look(f"127.0.0.1:{deaf.getsockname()[1]}", timeout_seconds=0.3)
        accepted = 0
        deaf.setblocking(False)
        while True:
            try:
                deaf.accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1

    assert [("failed", f"127.0.0.1:{deaf_port(results)} accepts the connection and says nothing within 0.3 s")] == said(
        results, "bootstrap log-in"
    )
    assert 2 == accepted  # to see whether it is reached, and to log in


def deaf_port(results) -> str:
    return said(results, "bootstrap reach")[0][1].split(" ")[0].split(":")[1]


async def test_a_frozen_broker_is_named_and_the_other_is_looked_at(fake):
    """The frozen one costs a timeout; the groups it coordinates are said to be missing."""
    bootstrap = fake.bootstrap
    fake.pause(2)
    results = await look(bootstrap, timeout_seconds=0.5)

    assert {"ok", "failed"} == verdicts(results)["broker log-in"]
    assert ("failed", "the groups that broker 2 coordinate are missing") in said(results, "groups")
    assert {"ok"} == verdicts(results)["topics"]


async def test_forbidden_groups_and_topics_are_named(fake):
    """Metadata hides a topic without an error: the consumer that reads it is named as incomplete."""
    fake.group("late", {("audit", 0): 0}, members=[Member("m", {"audit": [0]})])
    fake.group("secret", {})
    fake.forbid(topic="audit")
    fake.forbid(group="secret")
    fake.lists_forbidden_groups = True
    results = await look(fake.bootstrap)

    assert [("failed", "read by late, may not be described: their lag misses it without an error")] == said(
        results, "consumers"
    )
    assert ("failed", "1 group, secret: offsets and members are unknown (GROUP_AUTHORIZATION_FAILED)") in said(
        results, "group permissions"
    )
    assert ("failed", "GROUP_AUTHORIZATION_FAILED for secret: their lag is unknown") in said(results, "offsets")


async def test_what_the_settings_leave_out_is_not_complained_about(fake):
    """Groups and topics that are filtered away need no permission."""
    fake.group("secret", {})
    fake.forbid(group="secret")
    fake.lists_forbidden_groups = True
    results = await look(fake.bootstrap, groups={"exclude": ("secret",)})

    assert {"ok"} == verdicts(results)["group permissions"]


async def test_a_coordinator_that_loads_is_named(fake):
    """Its groups are missing from the lists, and it says so."""
    fake.brokers[2].loading_until = float("inf")
    results = await look(fake.bootstrap)

    assert "COORDINATOR_LOAD_IN_PROGRESS" in str(said(results, "groups"))
    assert 1 == exit_code(results)


async def test_partitions_without_a_leader_are_named(fake):
    """Their lag is unknown; of __consumer_offsets it is whole groups."""
    fake.topics["orders"].leader[1] = -1
    fake.topic("__consumer_offsets", partitions=3, internal=True).leader[2] = -1
    results = await look(fake.bootstrap)

    assert "1 partition without a leader, whose lag is unknown: orders 1" in str(said(results, "topics"))
    assert "1 partition of 3 without a leader (2)" in str(said(results, "__consumer_offsets"))


async def test_an_old_broker_is_told_what_is_done_instead():
    """Kafka 2.8: what it lacks is a line, and the numbers are no worse for most of it."""
    async with FakeCluster(brokers=1, release="2.8") as old:
        results = await look(old.bootstrap)

    ((verdict, seen),) = said(results, "versions")
    assert "ok" == verdict
    assert "offsets of many groups at once (OffsetFetch v8): each group is asked by itself" in seen


async def test_two_clusters_behind_one_list_of_addresses_are_told_apart(fake):
    """Bootstrap addresses of different clusters: numbers would be of the one or the other."""
    async with FakeCluster(brokers=1) as other:
        other.cluster_id = "another"
        results = await look(f"127.0.0.1:{fake.brokers[1].port},{other.bootstrap}")

    ((verdict, seen),) = said(results, "cluster")
    assert "failed" == verdict
    assert "belongs to another" in seen


async def test_garbage_is_a_line(fake):
    """A broker whose answers are torn fails that check and no other."""
    fake.fail("ListGroups", Truncate(5))
    results = await look(fake.bootstrap)

    assert "could not be decoded" in str(said(results, "groups"))
    assert {"ok"} == verdicts(results)["topics"]


async def test_a_request_that_hangs_is_bounded(fake):
    """One kind of request that is never answered fails its check by the timeout."""
    fake.fail("FindCoordinator", Hang())
    results = await look(fake.bootstrap, timeout_seconds=0.5)

    assert "did not answer FindCoordinator within 0.5 s" in str(said(results, "coordinators"))
    assert {"ok"} == verdicts(results)["offsets"]


async def test_a_broker_that_freezes_in_the_middle_is_not_waited_for_again_and_again(fake):
    """One request that is not answered, one connection that does not come about, and the rest fails at once."""
    fake.fail("ListGroups", Hang())
    fake.fail("ListGroups", Call(lambda: fake.pause(1) or fake.pause(2)))
    results = await look(fake.bootstrap, timeout_seconds=0.3)

    assert "did not answer ListGroups within 0.3 s" in str(said(results, "groups"))
    assert 1 == exit_code(results)


async def test_every_cluster_is_looked_at(fake):
    """One that is away does not keep the other from being examined."""
    away = Cluster(name="away", bootstrap_servers=f"127.0.0.1:{free_port()}")
    results = await examine(Settings(clusters=(away, Cluster(name="here", bootstrap_servers=fake.bootstrap))))

    assert {"failed"} == verdicts([each for each in results if each.cluster == "away"])["bootstrap reach"]
    assert {"ok"} == verdicts([each for each in results if each.cluster == "here"])["groups"]
    assert 1 == exit_code(results)


async def test_slow_is_not_wrong(fake):
    """Answers that take their time, but less than the timeout, change nothing."""
    fake.fail(None, Delay(0.05))

    assert 0 == exit_code(await look(fake.bootstrap))


# --- TLS ------------------------------------------------------------------------------------------------------------


def server_of(ca, *names, **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, **options).configure_cert(context)
    return context


async def over_tls(ca, tmp_path, server, trusted=None, **options) -> list[Result]:
    file = tmp_path / "ca.pem"
    (trusted or ca).cert_pem.write_to_path(file)
    async with FakeCluster(brokers=1, tls=server) as cluster:
        options.setdefault("security_protocol", "SSL")
        options.setdefault("tls", Tls(ca_file=file))
        return await look(cluster.bootstrap, **options)


async def test_tls_that_is_fine_says_until_when(ca, tmp_path):
    """Protocol, whose certificate, until when, signed by whom."""
    results = await over_tls(ca, tmp_path, server_of(ca, "127.0.0.1", common_name="kafka-1"))

    assert 0 == exit_code(results)
    assert "certificate of kafka-1 until 3000-01-01" in said(results, "bootstrap TLS")[0][1]
    assert "signed by Our CA" in said(results, "bootstrap TLS")[0][1]


PAST = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        pytest.param("127.0.0.1", PAST, ("until 2021-01-01 00:00Z", "renew the broker's certificate"), id="expired"),
        pytest.param("a.example", {}, ("for a.example", "as its certificate does (a.example)"), id="other host"),
    ],
)
async def test_a_certificate_that_is_not_trusted_is_shown(ca, tmp_path, name, options, told):
    """Why, whose it is and what to do, and all the rest is skipped for it."""
    results = await over_tls(ca, tmp_path, server_of(ca, name, **options))

    ((verdict, seen),) = said(results, "bootstrap TLS")
    assert ("failed", True, True) == (verdict, told[0] in seen, told[1] in advice(results, "bootstrap TLS"))
    assert [("skipped", "not looked at: bootstrap TLS failed")] == said(results, "bootstrap log-in")
    assert 3 == exit_code(results)


async def test_a_signer_that_is_not_trusted_is_named(ca, tmp_path):
    """The certificate of another authority: whose to add."""
    results = await over_tls(ca, tmp_path, server_of(ca, "127.0.0.1"), trusted=trustme.CA())

    assert "add the certificate of Our CA to tls.ca_file" in advice(results, "bootstrap TLS")


async def test_a_tls_port_without_tls_is_told(ca, tmp_path):
    """PLAINTEXT sent to a port that speaks TLS."""
    results = await over_tls(ca, tmp_path, server_of(ca, "127.0.0.1"), security_protocol="PLAINTEXT", tls=Tls())

    assert "the port speaks TLS: set security_protocol to SSL" in advice(results, "bootstrap log-in")


async def test_tls_sent_to_a_port_without_it_is_told(fake, ca, tmp_path):
    """TLS sent to a port that speaks Kafka in the clear."""
    results = await look(fake.bootstrap, security_protocol="SSL")

    assert "speaks Kafka without TLS: set security_protocol to PLAINTEXT" in advice(results, "bootstrap TLS")


async def test_an_expired_client_certificate_is_a_fault_of_the_configuration(ca, tmp_path):
    """It is told before anybody is asked, and the rest is looked at all the same."""
    old = ca.issue_cert("monitor", **PAST)
    old.private_key_pem.write_to_path(tmp_path / "key.pem")
    old.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = Tls(ca_file=tmp_path / "ca.pem", cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    results = await over_tls(ca, tmp_path, server_of(ca, "127.0.0.1"), tls=tls)

    (told,) = [seen for verdict, seen in said(results, "configuration") if verdict == "failed"]
    assert told.startswith("expired: ")
    assert "until 2021-01-01 00:00Z" in told
    assert {"ok"} == verdicts(results)["groups"]
    assert 2 == exit_code(results)


async def test_files_that_do_not_fit_stop_everything_else(ca, tmp_path):
    """A key of another certificate: nothing can be connected with it."""
    ca.issue_cert("a").private_key_pem.write_to_path(tmp_path / "key.pem")
    ca.issue_cert("b").cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = Tls(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    results = await look("127.0.0.1:1", security_protocol="SSL", tls=tls)

    assert {"failed"} == verdicts(results)["configuration"]
    assert [("skipped", "not looked at: configuration failed")] == said(results, "bootstrap reach")
    assert 2 == exit_code(results)


async def test_a_password_in_the_clear_is_a_warning():
    """PLAIN without TLS, and the password itself is nowhere."""
    results = await look(
        f"127.0.0.1:{free_port()}", security_protocol="SASL_PLAINTEXT", sasl=Sasl(username="u", password="hunter2")
    )

    assert "warning" in verdicts(results)["configuration"]
    assert "hunter2" not in str(results)


# --- Spark ----------------------------------------------------------------------------------------------------------


async def test_checkpoints_are_looked_at_although_kafka_is_away(tmp_path):
    """A glob that matches nothing is a warning, a folder that is none a failure."""
    (tmp_path / "queries").mkdir()
    spark = (SparkCheckpoints(path=f"{tmp_path}/queries/*"), SparkCheckpoints(path=f"{tmp_path}/nowhere"))
    results = await look(f"127.0.0.1:{free_port()}", spark=spark)

    assert ["warning", "failed"] == [verdict for verdict, _ in said(results, "Spark checkpoints")]
    assert "nowhere" in said(results, "Spark checkpoints")[1][1]


# --- leaving --------------------------------------------------------------------------------------------------------


def test_interrupted_it_leaves_at_once(tmp_path):
    """Ctrl-C in the middle of a wait of an hour ends it without a word."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        deaf.settimeout(60)
        file = tmp_path / "s.yml"
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        file.write_text(f"clusters: [{{bootstrap_servers: '{address}', timeout_seconds: 3600}}]\n")
        running = subprocess.Popen(
            [PROGRAM, "doctor", "--config", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        held = [deaf.accept()[0], deaf.accept()[0]]  # reached, and then waited for
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        for each in held:
            each.close()

    assert (130, "", "") == (running.returncode, out.strip(), err.strip())


async def test_cancelled_it_leaves_nothing_behind(fake):
    """No task is left, whatever was under way."""
    fake.fail("Metadata", Hang())
    task = asyncio.create_task(look(fake.bootstrap, timeout_seconds=3600))
    await fake.asked("Metadata")
    before = asyncio.all_tasks() - {task}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    ours = {each for each in asyncio.all_tasks() - before if "_run" in repr(each) or "look" in repr(each)}
    assert set() == ours
