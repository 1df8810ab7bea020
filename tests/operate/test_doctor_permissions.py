"""The permission table of the manual, row by row against a real Kafka with ACLs: what is missing and what doctor says.

Each row is a user with rights of its own. Who reads what is known from the members made here.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import io
import re
import time
import uuid

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from kio.schema.share_group_heartbeat.v1.request import ShareGroupHeartbeatRequest
from kio.schema.streams_group_heartbeat.v0.request import StreamsGroupHeartbeatRequest, Subtopology, Topology
from kio.serial import entity_writer
from kio.static.primitive import i32, i32Timedelta

from monitor.observe.kafka import cold
from monitor.observe.kafka.source import KafkaSource
from monitor.observe.kafka.transport import KafkaTransport, addresses
from monitor.observe.kafka.wire import Api
from monitor.operate.doctor import exit_code
from monitor.operate.examine import examine
from monitor.operate.reach import Asker
from monitor.sandbox.loads import commit_only
from monitor.sandbox.security import Security
from monitor.settings import Cluster, Sasl, Settings

pytestmark = pytest.mark.integration

PASSWORD = "correct-horse"
QUIET = {"log_level": 0}

CLUSTER = (ResourceType.BROKER, "kafka-cluster")
GROUPS, TOPICS = (ResourceType.GROUP, "*"), (ResourceType.TOPIC, "*")
ONE_GROUP, ONE_TOPIC = (ResourceType.GROUP, "billing"), (ResourceType.TOPIC, "orders")

RIGHTS = {
    "nothing": [],
    "topics": [TOPICS],
    "groups": [GROUPS],
    "cluster": [CLUSTER],
    "cluster-topics": [CLUSTER, TOPICS],
    "cluster-groups": [CLUSTER, GROUPS],
    "one-topic": [CLUSTER, GROUPS, ONE_TOPIC],
    "one-group": [ONE_GROUP, ONE_TOPIC],
    "everything": [CLUSTER, GROUPS, TOPICS],
}

FORBIDDEN = "offsets and members are unknown (GROUP_AUTHORIZATION_FAILED)"
TOPIC_FORBIDDEN = "members are unknown, since a topic of theirs may not be described (TOPIC_AUTHORIZATION_FAILED)"
HIDDEN = "may not be described: their lag misses it without an error"
UNLISTED = ("failed", "no DESCRIBE: groups that we may not describe are left out without an error")
LISTED = ("ok", "DESCRIBE: groups are listed in full")
NO_GROUP = ("warning", "no group is listed: there is none, or none that we may describe")
NO_TOPIC = ("warning", "no topic is visible: there is none, or none that we may describe")

ROWS = {
    "nothing": {"cluster permission": [UNLISTED], "topics": [NO_TOPIC], "groups": [NO_GROUP]},
    "topics": {"cluster permission": [UNLISTED], "groups": [NO_GROUP]},
    "groups": {
        "cluster permission": [UNLISTED],
        "groups": [("ok", "5 groups listed")],
        "group permissions": [
            ("ok", "2 groups may be described"),
            ("failed", f"3 groups, newer, sharing, streaming: {TOPIC_FORBIDDEN}"),
        ],
        "offsets": [("ok", "0 positions of 4 groups came back")],
        "consumers": [
            ("failed", f"read by reader, {HIDDEN}"),
            ("failed", f"read by reader, {HIDDEN}"),
        ],
    },
    "cluster": {
        "cluster permission": [LISTED],
        "groups": [("ok", "5 groups listed")],
        "group permissions": [("failed", f"5 groups, billing, newer, reader, sharing, streaming: {FORBIDDEN}")],
    },
    "cluster-topics": {
        "group permissions": [("failed", f"5 groups, billing, newer, reader, sharing, streaming: {FORBIDDEN}")],
        "offsets": [
            ("failed", "GROUP_AUTHORIZATION_FAILED for billing, newer, reader, streaming: their lag is unknown")
        ],
    },
    "cluster-groups": {
        "cluster permission": [LISTED],
        "topics": [NO_TOPIC],
        "offsets": [("ok", "0 positions of 4 groups came back")],
    },
    "one-topic": {
        "cluster permission": [LISTED],
        "group permissions": [
            ("ok", "2 groups may be described"),
            ("failed", f"3 groups, newer, sharing, streaming: {TOPIC_FORBIDDEN}"),
        ],
        "offsets": [("ok", "1 position of 4 groups came back")],
        "consumers": [("failed", f"read by reader, {HIDDEN}")],
    },
    "one-group": {
        "cluster permission": [UNLISTED],
        "groups": [("ok", "1 group listed")],
        "group permissions": [("ok", "1 group may be described")],
        "offsets": [("ok", "1 position of 1 group came back")],
    },
    "everything": {
        "versions": [("ok", "Kafka 4.3 or later, with all that is asked for")],
        "controller": [("ok", "node 1 is the active controller")],
        "cluster permission": [LISTED],
        "coordinators": [("ok", "each of 5 groups is listed by its coordinator: broker 1")],
        "group permissions": [("ok", "5 groups may be described")],
        "offsets": [("ok", "2 positions of 4 groups came back")],
        "consumers": [("ok", "2 topics read by members, each of which may be described")],
    },
}
"""What doctor says to each user; of the other lines none fails."""


@pytest.fixture
async def secured(kafka_factory):
    """Two topics, a group that only committed and one member of each type, all reading both topics."""
    sandbox = await kafka_factory(security=Security(users=dict.fromkeys(RIGHTS, PASSWORD), authorizer=True))
    admin = AdminClient({"bootstrap.servers": sandbox.bootstrap, **QUIET})
    for created in admin.create_topics([NewTopic("orders", 1, 1), NewTopic("audit", 1, 1)]).values():
        created.result(30)
    describe = (ResourcePatternType.LITERAL, "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW)
    rules = [
        AclBinding(kind, name, describe[0], f"User:{user}", *describe[1:])
        for user, rights in RIGHTS.items()
        for kind, name in rights
    ]
    for made in admin.create_acls(rules).values():
        made.result(30)
    await commit_only(sandbox.bootstrap, {"billing": {("orders", 0): 0, ("audit", 0): 0}})
    with contextlib.ExitStack() as stack:
        await asyncio.gather(
            asyncio.to_thread(join, stack, sandbox.bootstrap, "reader", "classic"),
            asyncio.to_thread(join, stack, sandbox.bootstrap, "newer", "consumer"),
            join_streams(sandbox.bootstrap),
            join_share(sandbox.bootstrap),
        )
        yield sandbox


def join(stack, bootstrap, group, protocol) -> None:
    """Have a member join and wait until it has its partitions."""
    member = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "group.protocol": protocol,
        "enable.auto.commit": False, **QUIET,
    })  # fmt: skip
    stack.callback(member.close)
    member.subscribe(["orders", "audit"])
    deadline = time.monotonic() + 60
    while len(member.assignment()) < 2:
        assert time.monotonic() < deadline
        member.poll(0.05)


async def join_share(bootstrap) -> None:
    """Have a member of a share group send heartbeats until its partitions are ready and assigned."""
    member = ShareGroupHeartbeatRequest(
        group_id="sharing", member_id=member_id(), member_epoch=i32(0), rack_id=None,
        subscribed_topic_names=("orders", "audit"),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while True:
        answer = await heartbeat(bootstrap, Api(76, "ShareGroupHeartbeat", 0), member)
        if answer["assignment"] is not None and answer["assignment"]["topic_partitions"]:
            return
        assert time.monotonic() < deadline
        member = dataclasses.replace(member, member_epoch=i32(answer["member_epoch"]), subscribed_topic_names=None)
        await asyncio.sleep(0.1)


async def join_streams(bootstrap) -> None:
    """Have a member of a streams group join with a topology that reads both topics."""
    reading = Subtopology(
        subtopology_id="0", source_topics=("orders", "audit"), source_topic_regex=(), state_changelog_topics=(),
        repartition_sink_topics=(), repartition_source_topics=(), copartition_groups=(),
    )  # fmt: skip
    member = StreamsGroupHeartbeatRequest(
        group_id="streaming", member_id=member_id(), member_epoch=i32(0), endpoint_information_epoch=i32(0),
        instance_id=None, rack_id=None, rebalance_timeout=i32Timedelta.parse(datetime.timedelta(minutes=1)),
        topology=Topology(epoch=i32(0), subtopologies=(reading,)), active_tasks=(), standby_tasks=(), warmup_tasks=(),
        process_id="p", user_endpoint=None, client_tags=None, task_offsets=None, task_end_offsets=None,
        shutdown_application=False,
    )  # fmt: skip
    await heartbeat(bootstrap, Api(88, "StreamsGroupHeartbeat", 0), member)


def member_id() -> str:
    return uuid.uuid4().hex


async def heartbeat(bootstrap, api, request) -> dict:
    """Send a heartbeat, by which one joins as well; the member is there for its session timeout, 45 s."""
    buffer = io.BytesIO()
    entity_writer(type(request))(buffer, request)
    asker = Asker(KafkaTransport(Cluster(bootstrap_servers=bootstrap)), 10)
    version = type(request).__version__
    try:
        answer = await asker.ask(
            addresses(bootstrap)[0], api, (version, version), lambda _: buffer.getvalue(),
            lambda data, _: cold.decode(api.key, data, version),
        )  # fmt: skip
    finally:
        await asker.close()
    assert (0, None) == (answer["error_code"], answer["error_message"])
    return answer


def settings_of(sandbox, user, **login) -> Settings:
    login = {"mechanism": "SCRAM-SHA-256", "username": user, "password": PASSWORD, **login}
    cluster = Cluster(
        bootstrap_servers=sandbox.bootstraps["SASL_PLAINTEXT"],
        security_protocol="SASL_PLAINTEXT",
        sasl=Sasl(**login),
        timeout_seconds=10,
    )
    return Settings(clusters=(cluster,))


def said(results, check) -> list[tuple[str, str]]:
    return [(str(each.line.verdict), each.line.seen) for each in results if each.check == check]


async def test_every_row_of_the_permission_table(secured):
    """Each user with what it lacks: hidden, refused or whole, as the manual says."""
    for user, expected in ROWS.items():
        results = await examine(settings_of(secured, user))
        assert expected == {check: said(results, check) for check in expected}, user
        assert ("everything" == user) is (exit_code(results) == 0), user
        wrong = {each.check for each in results if each.line.verdict == "failed"}
        assert wrong <= expected.keys() | {"offsets", "consumers", "group permissions"}, user

    # What is hidden is hidden from the observer as well: two positions there are, one comes back, and no failure.
    source = KafkaSource(settings_of(secured, "one-topic").clusters[0])
    snapshot = await source.observe()
    await source.close()
    layout = snapshot.positions.layout
    sizes = {who.name: int(layout.starts[i + 1] - layout.starts[i]) for i, who in enumerate(layout.consumers)}
    assert 1 == sizes["billing"]
    assert "billing" not in {failure.name for failure in snapshot.failures}

    # The controller tells its clock to who may describe the cluster.
    for skew, verdict in {0.0: "ok", -300.0: "warning"}.items():
        results = await examine(settings_of(secured, "cluster"), clock=lambda skew=skew: time.time() + skew)
        assert [verdict] == [seen for seen, _ in said(results, "clock")]
    told = re.search(r"is ([0-9.]+) s ahead of ours, ± ([0-9.]+) s", said(results, "clock")[0][1])
    assert abs(300.0 - float(told[1])) <= float(told[2]) + 0.02  # both are rounded

    # Log-ins that do not succeed: what to do, and never the password.
    wrong = await examine(settings_of(secured, "everything", password="wrong-staple"))
    assert ["failed"] == [verdict for verdict, _ in said(wrong, "bootstrap log-in")]
    assert "wrong-staple" not in str(wrong)
    assert 3 == exit_code(wrong)
    plain = (
        settings_of(secured, "everything")
        .clusters[0]
        .model_copy(update={"security_protocol": "PLAINTEXT", "sasl": None})
    )
    without = await examine(Settings(clusters=(plain,)))
    assert "set security_protocol to SASL_PLAINTEXT" in str(without)
