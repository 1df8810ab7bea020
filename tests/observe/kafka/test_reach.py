"""What is looked at and what is not, and how old a broker may be."""

import pytest

from monitor.model import TopicPartition
from monitor.observe.kafka.source import KafkaSource
from monitor.sandbox.fake import ErrorCode, FakeCluster, Hang, Member, Truncate
from monitor.settings import Cluster


async def observe(cluster, cycles=1, **settings):
    source = KafkaSource(Cluster(bootstrap_servers=cluster.bootstrap, timeout_seconds=0.5, **settings))
    try:
        for _ in range(cycles):
            snapshot = await source.observe()
    finally:
        await source.close()
    return snapshot


def committed(snapshot) -> dict:
    layout = snapshot.positions.layout
    found = {consumer.name: {} for consumer in layout.consumers}
    for index, owner in enumerate(layout.consumer.tolist()):
        why = int(snapshot.positions.why[index])
        where = tuple(layout.partitions.key(layout.row[index]))
        found[layout.consumers[owner].name][where] = f"?{why}" if why else int(snapshot.positions.committed[index])
    return found


# --- filters ----------------------------------------------------------------------------------------


@pytest.fixture
async def shop():
    """Three topics, and groups that read several."""
    async with FakeCluster(brokers=2) as fake:
        for topic in ("orders", "payments", "audit"):
            fake.topic(topic, partitions=2, records=5)
        for group in ("billing", "billing-test", "console-consumer-17"):
            fake.group(group, {(topic, 0): 3 for topic in ("orders", "payments", "audit")}, coordinator=1)
        fake.group(
            "audit-only", {("audit", 0): 1}, members=[Member("c-1", {"audit": [0, 1], "orders": [1]})], coordinator=2
        )
        yield fake


ANY = {"include": ("*",)}


@pytest.mark.parametrize(
    ("groups", "seen"),
    [
        pytest.param(ANY, {"billing", "billing-test", "console-consumer-17", "audit-only"}, id="all"),
        pytest.param({"exclude": ("console-consumer-*",)}, {"billing", "billing-test", "audit-only"}, id="exclude"),
        pytest.param({"include": ("billing*",)}, {"billing", "billing-test"}, id="include"),
        pytest.param({"include": ("billing*",), "exclude": ("*-test",)}, {"billing"}, id="both"),
        pytest.param({"include": ("billing",)}, {"billing"}, id="a name is no pattern"),
        pytest.param({"include": ("nobody",)}, set(), id="none"),
    ],
)
async def test_only_wanted_groups_are_asked_about(shop, groups, seen):
    """Whatever is left out is never named to a broker: not for its offsets, not for its members."""
    bodies = []
    for api in ("OffsetFetch", "DescribeGroups", "ConsumerGroupDescribe"):
        shop.fail(api, when=lambda _header, body: bodies.append(body) is not None)
    snapshot = await observe(shop, groups=groups)

    assert seen == set(committed(snapshot)) == {group.consumer.name for group in snapshot.groups}
    unwanted = {"billing", "billing-test", "console-consumer-17", "audit-only"} - seen
    for body in bodies:
        # "billing" is a part of "billing-test": names are told apart by the length before them.
        assert not [name for name in unwanted if bytes([len(name) + 1]) + name.encode() in body]


@pytest.mark.parametrize(
    ("topics", "seen"),
    [
        pytest.param({"exclude": ("audit",)}, {"orders", "payments"}, id="exclude"),
        pytest.param({"include": ("*s",)}, {"orders", "payments"}, id="include"),
        pytest.param({"include": ("orders", "payments", "gone")}, {"orders", "payments"}, id="names"),
    ],
)
async def test_only_wanted_topics_are_asked_about(shop, topics, seen):
    """Their log ends are not asked for, and what is committed or assigned on the others is nobody's lag."""
    bodies = []
    shop.fail("ListOffsets", when=lambda _header, body: bodies.append(body) is not None)
    snapshot = await observe(shop, cycles=2, topics=topics)

    assert seen == set(snapshot.partitions.layout.topics)
    assert {(topic, 0): 3 for topic in seen} == committed(snapshot)["billing"]
    assert seen >= {topic for topic, _ in committed(snapshot)["audit-only"]}
    assert bodies
    assert not [body for body in bodies if b"audit" in body]
    assert snapshot.up
    assert () == snapshot.failures


async def test_topics_by_name_are_the_only_ones_that_metadata_is_asked_for(shop):
    """Where no pattern has to be matched, a cluster of 100,000 topics need not be listed."""
    bodies = []
    shop.fail("Metadata", when=lambda _header, body: bodies.append(body) is not None)
    await observe(shop, topics={"include": ("orders",)})

    assert bodies
    assert all(b"orders" in body and b"payments" not in body for body in bodies)


# --- old brokers ------------------------------------------------------------------------------------


@pytest.fixture
async def old():
    """Three brokers of Kafka 2.8, which answer OffsetFetch for one group at a time."""
    async with FakeCluster(brokers=3, release="2.8") as fake:
        fake.topic("orders", partitions=3, records=10)
        for number in range(120):
            fake.group(f"group-{number:03}", {("orders", p): number % 10 for p in range(3)})
        yield fake


async def test_brokers_before_3_0_are_read_group_by_group(old):
    """Slower for the broker, the same for the reader: every offset, every end, every state."""
    snapshot = await observe(old, cycles=2)

    expected = {f"group-{n:03}": {("orders", p): n % 10 for p in range(3)} for n in range(120)}
    assert expected == committed(snapshot)
    assert [10] * 3 == snapshot.partitions.log_end.tolist()
    assert {"Empty"} == {group.state for group in snapshot.groups}
    assert 240 == old.count("OffsetFetch")
    assert snapshot.up


async def test_one_group_of_an_old_broker_fails_alone(old):
    """Its error is its own; metadata beside an offset does not matter."""
    old.groups["group-007"].error = 30
    old.commit("group-008", "orders", 1, 4, metadata="a note")
    snapshot = await observe(old)

    assert {"group-007": 30} == {group.consumer.name: group.why for group in snapshot.groups if group.why}
    assert 4 == committed(snapshot)["group-008"]["orders", 1]
    assert 119 == sum(not group.why for group in snapshot.groups)


@pytest.mark.parametrize("fault", [Truncate(9), Truncate(2), Hang(), ErrorCode(15)], ids=str)
async def test_an_old_broker_that_fails_leaves_the_others(old, fault):
    """The groups of that coordinator are unknown, those of the others are read."""
    old.fail("OffsetFetch", fault, broker=2)
    snapshot = await observe(old)

    failed = {name for name in old.groups if old.coordinator(name) == 2}
    assert failed == {group.consumer.name for group in snapshot.groups if group.why}
    assert not snapshot.up


async def test_brokers_too_old_for_us_are_named(old):
    """Before 2.4: what is offered and what is wanted stands in the failure."""
    for broker in old.brokers.values():
        broker.versions["OffsetFetch"] = (1, 5)
    snapshot = await observe(old)

    assert "offers OffsetFetch v1 to v5" in snapshot.failures[0].detail


# --- what belongs to a consumer ---------------------------------------------------------------------


async def test_a_partition_assigned_before_its_topic_is_known_has_a_row_of_its_own(shop):
    """A member may be given a topic that Metadata hides from us: unknown, and nobody else's row."""
    shop.group("secretive", members=[Member("c", {"secret": [0]})], coordinator=1)
    snapshot = await observe(shop)

    (key,) = committed(snapshot)["secretive"]
    assert TopicPartition("secret", 0) == TopicPartition(*key)
    assert str(committed(snapshot)["secretive"][key]).startswith("?")


async def test_what_members_subscribe_to_has_rows_of_its_own(shop):
    """Committed, assigned and subscribed partitions belong to a consumer together."""
    shop.group("eager", members=[Member("c", {"orders": [0]}, subscription=["orders", "payments"])], coordinator=1)
    snapshot = await observe(shop)

    assert {("orders", 0), ("orders", 1), ("payments", 0), ("payments", 1)} == set(committed(snapshot)["eager"])


# --- what is hidden ---------------------------------------------------------------------------------


async def test_groups_that_may_be_hidden_are_a_finding(shop):
    """Without DESCRIBE on the cluster its brokers leave groups out without an error; we say that they may."""
    shop.cluster_operations = 0
    hidden = await observe(shop)
    shop.cluster_operations = 1 << 8
    shown = await observe(shop)

    assert ["incomplete"] == [finding.kind for finding in hidden.findings]
    assert "DESCRIBE on the cluster" in hidden.findings[0].text
    assert () == shown.findings


async def test_a_hidden_topic_that_members_want_is_a_finding(shop):
    """Metadata leaves it out without an error: the consumer is incomplete, by name."""
    shop.group("curious", members=[Member("c", {"orders": [0]}, subscription=["orders", "audit"])], coordinator=1)
    shop.forbid(topic="audit")
    snapshot = await observe(shop, groups={"include": ("curious",)})

    (finding,) = snapshot.findings
    assert ("incomplete", "audit", "curious") == (finding.kind, finding.topic, finding.consumer.name)


async def test_the_cluster_is_asked_what_we_may_do_on_a_slow_beat(shop):
    """Once in five minutes, not once a cycle; brokers before 2.8 are not asked again and again either."""
    await observe(shop, cycles=4)
    for broker in shop.brokers.values():
        broker.versions.pop("DescribeCluster")
    await observe(shop, cycles=4)

    assert 1 == shop.count("DescribeCluster")


# --- which topic it is ------------------------------------------------------------------------------


async def test_the_id_of_a_topic_is_that_of_its_numbers(shop):
    """A log end that fell has the map read anew in the same cycle: created again, and not cut."""
    source = KafkaSource(Cluster(bootstrap_servers=shop.bootstrap))
    try:
        old = (await source.observe()).topic_ids["orders"]
        await source.observe()
        asked = shop.count("Metadata")
        await source.observe()
        assert 0 == shop.count("Metadata") - asked, "the map is as it was"
        made = shop.topic("orders", partitions=2, records=1)
        again = await source.observe()
    finally:
        await source.close()

    assert old != made.id.bytes == again.topic_ids["orders"]
    assert [1, 1] == again.partitions.log_end[again.partitions.layout.topic == 1].tolist()
