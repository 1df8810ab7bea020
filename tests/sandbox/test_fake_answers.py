"""What the fake broker answers, read back with kio: every version of every API, and errors where Kafka has them."""

import io
import random
from datetime import timedelta

import numpy as np
import pytest
from kio.index import load_payload_module, load_request_schema
from kio.schema.consumer_protocol_assignment.v0 import ConsumerProtocolAssignment
from kio.serial import entity_reader, entity_writer
from kio.static.constants import EntityType

from monitor.sandbox import fake_answers
from monitor.sandbox.fake_answers import (
    API_KEYS,
    API_NAMES,
    Header,
    RefusedError,
    answer,
    consumer_assignment,
    decode_answer,
    encode_answer,
    join,
    split,
)
from monitor.sandbox.fake_state import NO_LEADER, RELEASES, Group, Member, Truth

HOUR = 1_700_000_000_000


def story() -> Truth:
    """Return a cluster with a bit of everything."""
    truth = Truth(brokers=3)
    truth.topic(
        "orders", partitions=4, records=100, timestamp_ms=HOUR, step_ms=1000, leaders=[1, 2, 3, 1], replication=2
    )
    truth.topic("Zähler", partitions=1, leaders=1, internal=True)
    truth.group(
        "billing", {("orders", 0): 58, ("orders", 2): 7}, members=[Member("c-1", {"orders": [0, 2]})], coordinator=1
    )
    truth.commit("billing", "orders", 1, 99, metadata="größe 4 KB? " + "x" * 4096)
    truth.commit("billing", "orders", 3, 5, metadata=None)
    truth.groups["billing"].commits["orders"].leader_epoch[0] = 3
    truth.group("idle", {"Zähler": [0]}, coordinator=1)
    truth.group("new", {("orders", 1): 1}, type="consumer", members=[Member("c-2", {"orders": [1]})], coordinator=1)
    truth.group("moved away", {("orders", 1): 1}, coordinator=2)
    return truth


def newest_story() -> Truth:
    """Return the same with groups of the newest kinds."""
    truth = story()
    truth.group("jobs", {"orders": [90, -1]}, type="share", members=[Member("c-3", {"orders": [0, 1]})], coordinator=1)
    truth.groups["jobs"].acknowledged["orders", 0] = 4
    truth.group("app", {("orders", 1): 1}, type="streams", members=[Member("c-4", {"orders": [1, 3]})], coordinator=1)
    return truth


def ask(truth, api, version, *, broker=1, now=0.0, **fields):
    """Send a request, written by kio with the fields that its version has, and read the answer with kio."""
    header = Header(API_KEYS[api], version)
    return decode_answer(header, answer(truth, broker, header, request(api, version, **fields), now))


def request(api, version, **fields):
    schema = load_request_schema(API_KEYS[api], version)
    with io.BytesIO() as buffer:
        entity_writer(schema)(buffer, schema(**fields))
        return buffer.getvalue()


def parts(api, version):
    return load_payload_module(API_KEYS[api], version, EntityType.request)


def list_offsets(truth, version, questions, *, broker=1, isolation=0, epoch=-1):
    """Ask for (topic, partition, timestamp) and return (error, timestamp, offset) of each."""
    part = parts("ListOffsets", version)
    fields = {"replica_id": -1}
    fields |= {"isolation_level": isolation} if version >= 2 else {}
    fields |= {"timeout": timedelta(0)} if version >= 10 else {}
    told = {"current_leader_epoch": epoch} if version >= 4 else {}
    topics = tuple(
        part.ListOffsetsTopic(
            name=name,
            partitions=tuple(
                part.ListOffsetsPartition(partition_index=p, timestamp=t, **told) for n, p, t in questions if n == name
            ),
        )
        for name in dict.fromkeys(name for name, _, _ in questions)
    )
    response = ask(truth, "ListOffsets", version, broker=broker, topics=topics, **fields)
    return [(int(p.error_code), p.timestamp, p.offset) for t in response.topics for p in t.partitions]


def fetch(truth, version, groups, *, broker=1, topics=None, now=0.0):
    """Ask for offsets and return by group its error and its (topic, partition) -> (offset, metadata, error)."""
    part = parts("OffsetFetch", version)
    wanted = None
    if topics is not None:
        kind = getattr(part, "OffsetFetchRequestTopics", None) or part.OffsetFetchRequestTopic
        name = "topic_id" if version >= 10 else "name"
        wanted = tuple(kind(**{name: topic, "partition_indexes": tuple(ps)}) for topic, ps in topics.items())
    if version >= 8:
        asked = tuple(part.OffsetFetchRequestGroup(group_id=group, topics=wanted) for group in groups)
        response = ask(truth, "OffsetFetch", version, broker=broker, now=now, groups=asked)
        return {group.group_id: (int(group.error_code), offsets(group.topics)) for group in response.groups}
    (group,) = groups
    response = ask(truth, "OffsetFetch", version, broker=broker, now=now, group_id=group, topics=wanted)
    return {group: (int(getattr(response, "error_code", 0)), offsets(response.topics))}


def offsets(topics):
    return {
        (getattr(t, "name", None) or t.topic_id, p.partition_index): (p.committed_offset, p.metadata, int(p.error_code))
        for t in topics
        for p in t.partitions
    }


def metadata(truth, version, topics=None, *, broker=1):
    part = parts("Metadata", version)
    wanted = None
    if topics is not None or version == 0:
        ids = {"topic_id": None} if version >= 10 else {}
        wanted = tuple(part.MetadataRequestTopic(name=name, **ids) for name in topics or ())
    fields = {"include_topic_authorized_operations": False} if version >= 8 else {}
    fields |= {"include_cluster_authorized_operations": False} if 8 <= version <= 10 else {}
    return ask(truth, "Metadata", version, broker=broker, topics=wanted, **fields)


REQUESTS = {
    "DescribeCluster": lambda truth, v: request(
        "DescribeCluster",
        v,
        include_cluster_authorized_operations=True,
        **({"include_fenced_brokers": False} if v >= 2 else {}),
    ),
    "ListOffsets": lambda truth, v: request(
        "ListOffsets",
        v,
        replica_id=-1,
        topics=tuple(
            parts("ListOffsets", v).ListOffsetsTopic(
                name=name,
                partitions=tuple(
                    parts("ListOffsets", v).ListOffsetsPartition(partition_index=p, timestamp=t) for p, t in ps
                ),
            )
            for name, ps in {
                "orders": [(0, -1), (1, -2), (3, HOUR + 5), (9, -1)],
                "Zähler": [(0, -1)],
                "none": [],
            }.items()
        ),
        **({"isolation_level": 1} if v >= 2 else {}),
        **({"timeout": timedelta(0)} if v >= 10 else {}),
    ),
    "Metadata": lambda truth, v: request(
        "Metadata",
        v,
        topics=() if v == 0 else None,
        **({"include_topic_authorized_operations": True} if v >= 8 else {}),
        **({"include_cluster_authorized_operations": True} if 8 <= v <= 10 else {}),
    ),
    "OffsetFetch": lambda truth, v: request(
        "OffsetFetch",
        v,
        **(
            {"group_id": "billing", "topics": _topic(v)}
            if v < 8
            else {
                "groups": tuple(
                    parts("OffsetFetch", v).OffsetFetchRequestGroup(group_id=name, topics=None)
                    for name in ("billing", "idle", "no such", "moved away")
                )
            }
        ),
    ),
    "FindCoordinator": lambda truth, v: request(
        "FindCoordinator", v, **({"key": "billing"} if v < 4 else {"coordinator_keys": ("billing", "new", "none")})
    ),
    "DescribeGroups": lambda truth, v: request(
        "DescribeGroups",
        v,
        groups=("billing", "idle", "new", "no such", "moved away"),
        **({"include_authorized_operations": True} if v >= 3 else {}),
    ),
    "ConsumerGroupDescribe": lambda truth, v: request(
        "ConsumerGroupDescribe",
        v,
        group_ids=("billing", "new", "no such", "moved away"),
        include_authorized_operations=True,
    ),
    "ShareGroupDescribe": lambda truth, v: request(
        "ShareGroupDescribe",
        v,
        group_ids=("billing", "jobs", "no such", "moved away"),
        include_authorized_operations=True,
    ),
    "StreamsGroupDescribe": lambda truth, v: request(
        "StreamsGroupDescribe",
        v,
        group_ids=("billing", "app", "no such", "moved away"),
        include_authorized_operations=True,
    ),
    "DescribeShareGroupOffsets": lambda truth, v: request(
        "DescribeShareGroupOffsets",
        v,
        groups=tuple(
            parts("DescribeShareGroupOffsets", v).DescribeShareGroupOffsetsRequestGroup(group_id=name, topics=None)
            for name in ("billing", "jobs", "no such", "moved away")
        ),
    ),
    "ListGroups": lambda truth, v: request("ListGroups", v),
    "ApiVersions": lambda truth, v: request(
        "ApiVersions", v, **({"client_software_name": "a", "client_software_version": "b"} if v >= 3 else {})
    ),
}


def _topic(version):
    if version >= 2:
        return None
    return (parts("OffsetFetch", version).OffsetFetchRequestTopic(name="orders", partition_indexes=(0, 1, 2, 3, 7)),)


EVERY = [
    pytest.param(api, version, id=f"{api} v{version}")
    for api, (low, high) in RELEASES["4.3"].items()
    for version in range(low, high + 1)
]


@pytest.mark.parametrize(("api", "version"), EVERY)
def test_every_answer_reads_and_writes_back_to_the_same_bytes(api, version):
    """kio reads each version of each answer to its last byte, and writes what it read as the same bytes."""
    truth = newest_story()
    header = Header(API_KEYS[api], version)

    body = answer(truth, 1, header, REQUESTS[api](truth, version), 0.0)

    assert body == encode_answer(decode_answer(header, body))


def test_every_version_of_offset_fetch_tells_the_same_commits():
    """Offsets and metadata are those committed, from v1 with named topics to v10 with topic ids."""
    truth = story()
    long = "größe 4 KB? " + "x" * 4096

    for version in range(1, 11):
        name = truth.topics["orders"].id if version >= 10 else "orders"
        expected = {(name, 0): (58, "", 0), (name, 1): (99, long, 0), (name, 2): (7, "", 0), (name, 3): (5, None, 0)}
        topics = {"orders": [0, 1, 2, 3]} if version == 1 else None
        assert {"billing": (0, expected)} == fetch(truth, version, ["billing"], topics=topics), version


def test_offset_fetch_knows_no_group_nor_commit_without_error():
    """A group that does not exist has no offsets and no error; a partition without commit has -1."""
    truth = story()

    assert {"nobody": (0, {})} == fetch(truth, 9, ["nobody"], broker=truth.coordinator("nobody"))
    asked = {"orders": [0, 9], "none": [0]}
    expected = {("orders", 0): (58, "", 0), ("orders", 9): (-1, "", 0), ("none", 0): (-1, "", 0)}
    assert {"billing": (0, expected)} == fetch(truth, 8, ["billing"], topics=asked)


@pytest.mark.parametrize("version", [2, 7, 8, 10])
def test_offset_fetch_from_another_broker_is_not_coordinator(version):
    """Whoever does not coordinate a group says so and nothing else."""
    assert {"billing": (16, {})} == fetch(story(), version, ["billing"], broker=2)


def test_offset_fetch_errors_stand_where_each_version_has_them():
    """Forbidden groups, loading coordinators and unstable partitions each have their code; v1 has it per partition."""
    truth = story()
    truth.forbid(group="billing")
    assert {"billing": (30, {})} == fetch(truth, 9, ["billing"])
    assert {"billing": (0, {("orders", 0): (-1, "", 30)})} == fetch(truth, 1, ["billing"], topics={"orders": [0]})
    truth.allow(group="billing")

    truth.brokers[1].loading_until = 10.0
    assert {"billing": (14, {})} == fetch(truth, 9, ["billing"], now=9.9)
    assert 0 == fetch(truth, 9, ["billing"], now=10.0)["billing"][0]
    truth.brokers[1].loading_until = 0.0

    truth.groups["billing"].commits["orders"].error[0] = 88
    assert (-1, "", 88) == fetch(truth, 9, ["billing"])["billing"][1]["orders", 0]

    truth.groups["billing"].error = 15
    assert {"billing": (15, {})} == fetch(truth, 9, ["billing"])


def test_forbidden_topics_are_left_out_silently_or_refused_by_name():
    """Without names a forbidden topic is simply not there; by name it is TOPIC_AUTHORIZATION_FAILED."""
    truth = story()
    truth.forbid(topic="orders")

    assert {"billing": (0, {})} == fetch(truth, 9, ["billing"])
    assert {"billing": (0, {("orders", 0): (-1, "", 29)})} == fetch(truth, 9, ["billing"], topics={"orders": [0]})
    assert ["Zähler"] == [topic.name for topic in metadata(truth, 12).topics]
    assert [(29, ())] == [(int(t.error_code), t.partitions) for t in metadata(truth, 12, ["orders"]).topics]
    assert [(29, -1, -1)] == list_offsets(truth, 7, [("orders", 0, -1)])
    described = ask(truth, "ConsumerGroupDescribe", 1, group_ids=("new",), include_authorized_operations=False)
    assert [(29, ())] == [(int(g.error_code), g.members) for g in described.groups]


def test_a_commit_on_a_deleted_topic_stays_if_told_so():
    """Deleting a topic takes its commits along, unless they outlive it; v10, which speaks of ids, leaves them out."""
    truth = story()
    truth.delete_topic("orders", keep_commits=True)
    assert 4 == len(fetch(truth, 9, ["billing"])["billing"][1])
    assert {"billing": (0, {})} == fetch(truth, 10, ["billing"])

    truth = story()
    truth.delete_topic("orders")
    assert {"billing": (0, {})} == fetch(truth, 9, ["billing"])


@pytest.mark.parametrize("version", range(1, 12))
def test_list_offsets_tells_start_end_and_times(version):
    """Earliest, latest and the first record not older than a timestamp, in every version."""
    truth = story()
    truth.expire("orders", 3, 40)
    asked = [("orders", 0, -1), ("orders", 3, -2)]

    assert [(0, -1, 100), (0, -1, 40)] == list_offsets(truth, version, asked)
    by_time = {0: HOUR - 1, 3: HOUR + 55_001}
    asked = [("orders", p, t) for p, t in by_time.items()]
    assert [(0, HOUR, 0), (0, HOUR + 56_000, 56)] == list_offsets(truth, version, asked)
    asked = [("orders", 0, HOUR + 99_001), ("orders", 3, HOUR)]
    assert [(0, -1, -1), (0, HOUR + 40_000, 40)] == list_offsets(truth, version, asked)


def test_list_offsets_respects_isolation():
    """A reader of committed records sees the last stable offset as the end, and no record beyond it."""
    truth = story()
    truth.topics["orders"].last_stable[0] = 30
    asked = [("orders", 0, -1)]
    assert [(0, -1, 30)] == list_offsets(truth, 7, asked, isolation=1)
    assert [(0, -1, 100)] == list_offsets(truth, 7, asked, isolation=0)

    asked = [("orders", 0, HOUR + 30_000)]
    assert [(0, -1, -1)] == list_offsets(truth, 7, asked, isolation=1)
    assert [(0, HOUR + 30_000, 30)] == list_offsets(truth, 7, asked)


@pytest.mark.parametrize(
    ("question", "options", "error"),
    [
        pytest.param(("orders", 1, -1), {}, 6, id="led by another"),
        pytest.param(("orders", 4, -1), {}, 3, id="no such partition"),
        pytest.param(("none", 0, -1), {}, 3, id="no such topic"),
        pytest.param(("orders", 0, -6), {}, 35, id="a timestamp of a later version"),
        pytest.param(("orders", 0, -1), {"epoch": 4}, 74, id="an old leader epoch"),
        pytest.param(("orders", 0, -1), {"epoch": 6}, 75, id="a leader epoch to come"),
    ],
)
def test_list_offsets_errors(question, options, error):
    """Each mistake has Kafka's code, and no offset."""
    truth = story()
    truth.topics["orders"].leader_epoch[0] = 5

    assert [(error, -1, -1)] == list_offsets(truth, 7, [question], **options)


def test_the_same_partition_twice_is_an_invalid_request():
    """ListOffsets answers INVALID_REQUEST for a partition that is asked for twice, and the others properly."""
    asked = [("orders", 0, -1), ("orders", 0, -2), ("orders", 3, -1)]

    assert [(42, -1, -1), (42, -1, -1), (0, -1, 100)] == list_offsets(story(), 7, asked)


def test_the_newest_record_is_the_first_with_the_highest_timestamp():
    """MAX_TIMESTAMP finds a late record in the middle of the log, from v7 on."""
    truth = story()
    truth.append("orders", 0, 2, timestamp_ms=HOUR + 500_000)
    truth.append("orders", 0, 5, timestamp_ms=HOUR)

    assert [(0, HOUR + 500_000, 100)] == list_offsets(truth, 7, [("orders", 0, -3)])
    assert [(35, -1, -1)] == list_offsets(truth, 6, [("orders", 0, -3)])


def test_appending_moves_the_ends_and_truncation_takes_them_back():
    """Ends, last stable offsets and look-ups follow what is written and what is lost."""
    truth = story()
    truth.append("orders", 0, 10, timestamp_ms=HOUR + 200_000, step_ms=10)
    assert [(0, -1, 110)] == list_offsets(truth, 7, [("orders", 0, -1)], isolation=1)
    assert [(0, HOUR + 200_050, 105)] == list_offsets(truth, 7, [("orders", 0, HOUR + 200_041)])

    truth.truncate("orders", 0, 103)
    assert [(0, -1, 103)] == list_offsets(truth, 7, [("orders", 0, -1)], isolation=1)
    assert [(0, -1, -1)] == list_offsets(truth, 7, [("orders", 0, HOUR + 200_041)])


def test_a_truncated_log_that_grows_again_has_the_new_records():
    """What was cut off is not found any more, neither where the log is shorter nor where it was written anew."""
    truth = story()
    truth.truncate("orders", 0, 50)
    truth.append("orders", 0, 50, timestamp_ms=HOUR + 500_000)

    assert [(0, HOUR + 500_000, 50)] == list_offsets(truth, 7, [("orders", 0, HOUR + 60_000)])


def test_columns_may_be_set_by_hand():
    """A log end that is simply set hides the records beyond it."""
    truth = story()
    truth.topics["orders"].log_end[0] = 50

    assert [(0, -1, 50)] == list_offsets(truth, 7, [("orders", 0, -1)])
    assert [(0, -1, -1)] == list_offsets(truth, 7, [("orders", 0, HOUR + 60_000)])


def test_what_a_fenced_broker_leads_has_no_leader():
    """Metadata shows neither the broker nor its leaderships, until the cluster sees it again."""
    truth = story()
    truth.brokers[2].fenced = True

    def shown():
        (topic,) = metadata(truth, 12, ["orders"]).topics
        return [(int(p.error_code), p.leader_id) for p in topic.partitions]

    assert [(0, 1), (5, -1), (0, 3), (0, 1)] == shown()
    truth.brokers[2].fenced = False
    assert [(0, 1), (0, 2), (0, 3), (0, 1)] == shown()


def test_metadata_shows_brokers_leaders_and_replicas():
    """Leaders, epochs and replicas are those of the truth; what nobody leads is LEADER_NOT_AVAILABLE."""
    truth = story()
    truth.move_leader("orders", 1, 3)
    truth.move_leader("orders", 2, NO_LEADER)
    truth.brokers[2].fenced = True

    answer_ = metadata(truth, 12, ["orders", "none"])

    assert [1, 3] == [broker.node_id for broker in answer_.brokers]
    orders, none = answer_.topics
    rows = [(p.partition_index, int(p.error_code), p.leader_id, p.leader_epoch) for p in orders.partitions]
    assert [(0, 0, 1, 0), (1, 0, 3, 1), (2, 5, -1, 1), (3, 0, 1, 0)] == rows
    first = orders.partitions[0]
    assert ((1, 2), (1,), (2,)) == (first.replica_nodes, first.isr_nodes, first.offline_replicas)
    assert (3, "none", None, ()) == (int(none.error_code), none.name, none.topic_id, none.partitions)


def test_a_topic_made_again_has_another_id():
    """Topic ids differ between two topics of the same name, and are the same in two runs of the same story."""
    truth, again = story(), story()
    before = truth.topics["orders"].id
    assert before == again.topics["orders"].id

    truth.delete_topic("orders")
    truth.topic("orders")

    assert before != truth.topics["orders"].id


def test_metadata_finds_topics_by_id():
    """Metadata v12 by id names the topic; an id of none is UNKNOWN_TOPIC_ID."""
    truth = story()
    topic = parts("Metadata", 12).MetadataRequestTopic
    asked = (topic(topic_id=truth.topics["orders"].id, name=None), topic(topic_id=Truth().topic("x").id, name=None))

    topics = ask(truth, "Metadata", 12, topics=asked, include_topic_authorized_operations=False).topics

    assert [(0, "orders"), (100, None)] == [(int(topic.error_code), topic.name) for topic in topics]


def test_list_groups_names_what_the_broker_coordinates():
    """Each group is listed by its coordinator only, with state and type, filtered as asked; forbidden ones are not."""
    truth = story()
    truth.group("share", type="share", protocol_type="share", coordinator=1)

    def listed(**fields):
        response = ask(truth, "ListGroups", 5, **fields)
        return {group.group_id: (group.protocol_type, group.group_state, group.group_type) for group in response.groups}

    everything = {
        "billing": ("consumer", "Stable", "classic"),
        "idle": ("consumer", "Empty", "classic"),
        "new": ("consumer", "Stable", "consumer"),
        "share": ("share", "Empty", "share"),
    }
    assert everything == listed()
    assert {"billing", "new"} == listed(states_filter=("stable",)).keys()
    assert {"share"} == listed(types_filter=("Share",)).keys()
    truth.forbid(group="billing")
    assert {"idle", "new", "share"} == listed().keys()
    truth.lists_forbidden_groups = True
    truth.groups["idle"].listed_by = set()
    truth.groups["moved away"].listed_by = {1, 2}
    assert {"billing", "new", "share", "moved away"} == listed().keys()


def test_a_loading_coordinator_lists_nothing_and_says_why():
    """ListGroups is COORDINATOR_LOAD_IN_PROGRESS until the coordinator has loaded."""
    truth = story()
    truth.brokers[1].loading_until = 5.0

    assert (14, ()) == ((loading := ask(truth, "ListGroups", 4, now=4.0)).error_code, loading.groups)
    assert 0 == ask(truth, "ListGroups", 4, now=5.0).error_code


def test_describe_groups_tells_members_and_assignments():
    """A classic group has its members with assignments as consumers write them, unless it rebalances."""
    truth = story()
    (group,) = ask(truth, "DescribeGroups", 5, groups=("billing",), include_authorized_operations=False).groups
    assert ("Stable", "consumer", "range") == (group.group_state, group.protocol_type, group.protocol_data)
    (member,) = group.members
    assert ("c-1", "/127.0.0.1") == (member.client_id, member.client_host)
    assert {"orders": (0, 2)} == read_assignment(member.member_assignment)

    truth.groups["billing"].state = "PreparingRebalance"
    (group,) = ask(truth, "DescribeGroups", 5, groups=("billing",), include_authorized_operations=False).groups
    assert ("", b"") == (group.protocol_data, group.members[0].member_assignment)


def read_assignment(data):
    assert b"\0\0" == data[:2]
    entity, size = entity_reader(ConsumerProtocolAssignment)(data, 2)
    assert len(data) == size + 2
    return {each.topic: each.partitions for each in entity.assigned_partitions}


def test_an_assignment_reads_back():
    """Topics with any name and several partitions survive."""
    assert {"a": (0, 5), "größe": (1,), "c": ()} == read_assignment(
        consumer_assignment({"a": [0, 5], "größe": [1], "c": []})
    )


@pytest.mark.parametrize(
    ("api", "version", "name", "error", "state"),
    [
        pytest.param("DescribeGroups", 5, "none", 0, "Dead", id="classic v5: unknown is dead, no error"),
        pytest.param("DescribeGroups", 6, "none", 69, "Dead", id="classic v6: unknown is an error"),
        pytest.param("DescribeGroups", 5, "new", 0, "Dead", id="classic v5: of another kind is dead"),
        pytest.param("DescribeGroups", 6, "new", 69, "Dead", id="classic v6: of another kind is an error"),
        pytest.param("DescribeGroups", 6, "moved away", 16, "", id="classic: another coordinator"),
        pytest.param("ConsumerGroupDescribe", 0, "none", 69, "", id="consumer: unknown"),
        pytest.param("ConsumerGroupDescribe", 1, "billing", 69, "", id="consumer: of another kind"),
        pytest.param("ConsumerGroupDescribe", 1, "moved away", 16, "", id="consumer: another coordinator"),
        pytest.param("ConsumerGroupDescribe", 1, "secret", 30, "", id="consumer: forbidden"),
        pytest.param("DescribeGroups", 6, "secret", 30, "", id="classic: forbidden"),
        pytest.param("ShareGroupDescribe", 1, "none", 69, "", id="share: unknown"),
        pytest.param("ShareGroupDescribe", 1, "billing", 69, "", id="share: of another kind"),
        pytest.param("StreamsGroupDescribe", 0, "none", 69, "", id="streams: unknown"),
        pytest.param("StreamsGroupDescribe", 0, "new", 69, "", id="streams: of another kind"),
        pytest.param("StreamsGroupDescribe", 0, "moved away", 16, "", id="streams: another coordinator"),
    ],
)
def test_describing_what_is_not_there(api, version, name, error, state):
    """Each API has its own way to say that it does not know a group."""
    truth = story()
    truth.group("secret", coordinator=1)
    truth.forbid(group="secret")
    truth.coordinators["none"] = 1
    names = {"groups": (name,)} if api == "DescribeGroups" else {"group_ids": (name,)}

    (group,) = ask(truth, api, version, **names, include_authorized_operations=False).groups

    assert (error, state, ()) == (int(group.error_code), group.group_state, group.members)


def test_members_of_a_streams_group_have_tasks():
    """A task is a partition of a subtopology, and each topic has a subtopology of its own."""
    fields = {"group_ids": ("app",), "include_authorized_operations": False}
    (group,) = ask(newest_story(), "StreamsGroupDescribe", 0, **fields).groups

    ((subtopology,), (member,)) = group.topology.subtopologies, group.members
    assert ("orders",) == subtopology.source_topics
    assert [(subtopology.subtopology_id, (1, 3))] == [
        (task.subtopology_id, task.partitions) for task in member.assignment.active_tasks
    ]


@pytest.mark.parametrize("version", [0, 1])
def test_a_share_group_has_start_offsets_and_commits_nothing(version):
    """Its lag is what is neither before the start offset nor acknowledged beyond; OffsetFetch knows nothing of it."""
    truth = newest_story()
    part = parts("DescribeShareGroupOffsets", version).DescribeShareGroupOffsetsRequestGroup
    asked = tuple(part(group_id=name, topics=None) for name in ("jobs", "billing"))
    jobs, other = ask(truth, "DescribeShareGroupOffsets", version, groups=asked).groups

    assert [(0, 90, 6 if version else None), (1, -1, -1 if version else None)] == [
        (p.partition_index, p.start_offset, getattr(p, "lag", None)) for topic in jobs.topics for p in topic.partitions
    ]
    assert (0, ()) == (int(other.error_code), other.topics)
    assert {"jobs": (0, {})} == fetch(truth, 9, ["jobs"])


def test_a_broker_without_the_new_protocol_offers_its_description_and_refuses_it():
    """As Kafka 3.9 does unless it is switched on: UNSUPPORTED_VERSION for each group."""
    truth = Truth(release="3.9")
    truth.group("billing")
    fields = {"group_ids": ("billing", "none"), "include_authorized_operations": False}

    assert [35, 35] == [int(group.error_code) for group in ask(truth, "ConsumerGroupDescribe", 0, **fields).groups]


def test_consumer_group_describe_tells_current_and_target_assignment():
    """A group of the new protocol has topic ids, epochs and both assignments of each member."""
    truth = story()
    truth.groups["new"].members[0].target = {"orders": [1, 2]}

    (group,) = ask(truth, "ConsumerGroupDescribe", 1, group_ids=("new",), include_authorized_operations=False).groups

    (member,) = group.members
    assert ("c-2", 1) == (member.client_id, member.member_type)
    ((now,), (then,)) = member.assignment.topic_partitions, member.target_assignment.topic_partitions
    assert (truth.topics["orders"].id, "orders", (1,)) == (now.topic_id, now.topic_name, now.partitions)
    assert (1, 2) == then.partitions


def test_a_member_asking_about_its_own_group_is_checked():
    """OffsetFetch v9 with a member id wants the right group, member and epoch (KIP-848)."""
    truth = story()
    member = truth.groups["new"].members[0]
    part = parts("OffsetFetch", 9)

    def error(group, member_id, epoch):
        truth.coordinators[group] = 1
        asked = part.OffsetFetchRequestGroup(group_id=group, member_id=member_id, member_epoch=epoch, topics=None)
        return int(ask(truth, "OffsetFetch", 9, groups=(asked,)).groups[0].error_code)

    assert 0 == error("new", member.member_id, 1)
    assert 113 == error("new", member.member_id, 2)
    assert 25 == error("new", "stranger", 1)
    assert 69 == error("none", "stranger", 1)
    assert 0 == error("billing", "whoever", 1)


def test_find_coordinator_names_the_broker_or_says_why_not():
    """The coordinator by name, for groups that do not exist too; fenced and forbidden ones have their codes."""
    truth = story()
    truth.brokers[2].fenced = True
    truth.forbid(group="new")

    found = ask(truth, "FindCoordinator", 4, coordinator_keys=("billing", "moved away", "new")).coordinators

    assert [(0, 1), (15, -1), (30, -1)] == [(int(each.error_code), each.node_id) for each in found]
    assert truth.coordinator("x y") == ask(truth, "FindCoordinator", 2, key="x y").node_id or truth.brokers[2].fenced


def test_an_unknown_version_of_api_versions_is_told_the_known_ones():
    """UNSUPPORTED_VERSION in the oldest format with ApiVersions' own range, so that the client can try again."""
    header = Header(18, 77)

    body = answer(story(), 1, header, b"whatever", 0.0)

    told = decode_answer(Header(18, 0), body)
    assert (35, [(18, 0, 4)]) == (told.error_code, [(k.api_key, k.min_version, k.max_version) for k in told.api_keys])


@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param(Header(9, 11), b"", id="a version that is not offered"),
        pytest.param(Header(1, 11), b"", id="an API it does not have"),
        pytest.param(Header(3, 12), b"\x05ab", id="a body that ends too early"),
    ],
)
def test_a_broker_refuses_what_it_does_not_understand(header, body):
    """As Kafka does: by closing the connection."""
    with pytest.raises(RefusedError):
        answer(story(), 1, header, body, 0.0)


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_offers_what_kio_can_speak(release):
    """ApiVersions lists the release's ranges, and every version in them has a schema."""
    truth = Truth(release=release)

    told = ask(truth, "ApiVersions", 0).api_keys

    offered = {API_NAMES[k.api_key]: (k.min_version, k.max_version) for k in told}
    assert RELEASES[release] == offered
    for api, (low, high) in offered.items():
        for version in range(low, high + 1):
            assert load_request_schema(API_KEYS[api], version)


@pytest.mark.parametrize("version", [7, 8], ids=["legacy header", "header with tags"])
def test_frames_are_split_and_joined(version):
    """Size, correlation id and client id survive, with and without tagged fields in the header."""
    schema = load_request_schema(3, version if version < 8 else 12)
    header = schema.__header_schema__
    with io.BytesIO() as buffer:
        entity_writer(header)(
            buffer,
            header(request_api_key=3, request_api_version=schema.__version__, correlation_id=7, client_id="ich"),
        )
        frame = buffer.getvalue() + b"body"

    found, body = split(frame)

    assert (Header(3, schema.__version__, 7, "ich"), b"body") == (found, body)
    sent = join(found, b"answer")
    tags = b"\0" if version == 8 else b""
    assert (len(sent) - 4).to_bytes(4, "big") + b"\0\0\0\7" + tags + b"answer" == sent


def test_a_request_that_ends_in_its_header_is_refused():
    """Fewer bytes than a header has are no request."""
    with pytest.raises(RefusedError):
        split(b"\0\3\0")


def test_throttle_time_is_told():
    """Every answer states the broker's throttle time, in milliseconds."""
    truth = story()
    truth.brokers[1].throttle_ms = 250

    for response in (metadata(truth, 12), ask(truth, "ListGroups", 5), ask(truth, "FindCoordinator", 3, key="x")):
        assert 250 == round(response.throttle_time.total_seconds() * 1000)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_few_ends_are_answered_as_many_are(version, monkeypatch):
    """A few partitions are answered one by one, byte for byte as in columns: what is wrong with them included."""
    truth = story()
    truth.topics["orders"].error[2] = 56
    truth.topics["orders"].leader_epoch[0] = 3
    truth.topics["orders"].last_stable[3] = 70
    truth.append("orders", 3, 5, timestamp_ms=HOUR - 5_000, step_ms=1)
    parts = load_payload_module(API_KEYS["ListOffsets"], version, EntityType.request)
    rng = random.Random(version)

    def partition():
        fields = {
            "partition_index": rng.choice((-1, 0, 0, 1, 2, 3, 3, 4)),
            "timestamp": rng.choice((-7, -6, -5, -4, -3, -2, -1, 0, HOUR, HOUR + 50_000, HOUR + 10**9)),
        }
        if version >= 4:
            fields["current_leader_epoch"] = rng.choice((-1, 0, 2, 3, 4))
        return parts.ListOffsetsPartition(**fields)

    def topic():
        several = tuple(partition() for _ in range(rng.randint(1, 3)))
        return parts.ListOffsetsTopic(name=rng.choice(("orders", "Zähler", "nobody's")), partitions=several)

    def answered(few):
        monkeypatch.setattr(fake_answers, "FEW", few)
        return answer(truth, 1, Header(API_KEYS["ListOffsets"], version), body, 0.0)

    for number in range(300):
        truth.forbidden_topics = {"orders"} if number % 20 == 0 else set()
        isolation = {"isolation_level": rng.choice((0, 1))} if version >= 2 else {}
        timeout = {"timeout": timedelta(seconds=1)} if version >= 10 else {}
        fields = {"replica_id": -1, "topics": tuple(topic() for _ in range(3)), **isolation, **timeout}
        body = request("ListOffsets", version, **fields)
        assert answered(0) == answered(1000)


def test_a_coordinator_that_is_behind_answers_from_what_it_has():
    """One that has just taken over tells older offsets, or does not know the group, and neither is an error."""
    truth = story()
    older = Group("billing")
    older.commit("orders", 0, 41)

    truth.behind["billing"] = older
    assert (0, {("orders", 0): (41, "", 0)}) == fetch(truth, 9, ["billing"])["billing"]

    truth.behind["billing"] = None
    assert (0, {}) == fetch(truth, 9, ["billing"])["billing"]
    assert ["idle", "new"] == [group.group_id for group in ask(truth, "ListGroups", 5).groups]

    truth.behind.clear()
    assert 58 == fetch(truth, 9, ["billing"])["billing"][1]["orders", 0][0]


def test_partitions_can_be_added():
    """New partitions are empty, and have their leaders and as many replicas as the others."""
    truth = story()

    truth.add_partitions("orders", [2, 3])

    shown = next(topic for topic in metadata(truth, 12).topics if topic.name == "orders").partitions
    assert [(4, 2, (2, 3)), (5, 3, (3, 1))] == [
        (each.partition_index, each.leader_id, each.replica_nodes) for each in shown[4:]
    ]
    truth.append("orders", 5, 3, timestamp_ms=HOUR)
    assert [0, 3] == truth.topics["orders"].log_end[4:].tolist()


def test_large_columns_cost_little():
    """A cluster of 100,000 partitions and as many commits is a few arrays, and shows what was put into it."""
    truth = Truth(brokers=2)
    topic = truth.topic("big", partitions=100_000, records=1000, timestamp_ms=HOUR, step_ms=60)
    truth.group("g", {"big": np.arange(100_000)}, coordinator=1)

    assert 1 == len({id(runs) for runs in topic.runs})
    (error, found) = fetch(truth, 9, ["g"])["g"]
    assert (0, 100_000, (77_777, "", 0)) == (error, len(found), found["big", 77_777])
