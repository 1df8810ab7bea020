"""The report as JSON: the exact shape that other programs rely on, and a reason for every null."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import SCRIPT_NAME, Pipeline, Reader, member, query, report_of, shop
from snapshots import group, kafka_snapshot

from monitor.derive.history import History
from monitor.derive.report import derive, observe
from monitor.model import Basis, Change, Consumer, Finding, GroupFacts, Kind, Member, Report, TopicPartition, Why
from monitor.publish.report_json import consumer_json, dump, find, json_pieces, report_json

# The keys of the example in the contracts, in its order, and what was added since; ``unknown`` also beside a topic's
# null rate.
REPORT = ["at", "clusters"]
CLUSTER = ["name", "up", "sources", "topics", "consumers", "findings", "failures"]
SOURCE = ["source", "observed_at", "up"]
TOPIC = ["name", "partitions", "records_per_second", "unknown"]
CONSUMER = [
    "kind", "name", "state", "protocol", "members", "observed_at",
    "health", "evidence", "objective_seconds", "records_per_second",
    "lag_records", "lag_seconds", "lag_seconds_bound", "basis", "assumed",
    "lost_records", "known_lag_records", "partitions_unknown",
    "assignor", "coordinator", "epoch", "subscribed", "rebalances", "abandoned_topics", "unknown",
]  # fmt: skip
PARTITION = [
    "topic", "partition", "log_start", "log_end", "last_stable", "committed",
    "lag_records", "lost_records", "lag_seconds", "lag_seconds_bound", "basis", "assumed",
    "health", "member", "owner", "abandoned",
]  # fmt: skip
SPARK = [
    "query_id", "batch_id", "last_batch_duration_seconds", "trigger_interval_seconds",
    "inflight_batch_age_seconds", "watermark", "seen_by", "via",
]  # fmt: skip
P0, P1 = ("orders", 0), ("orders", 1)


def one(ends, commits, **kw):
    history = History()
    return derive(observe(kafka_snapshot(ends, commits, **kw), None, history), history, lambda _: 300.0)


def the(document, name):
    (cluster,) = document["clusters"]
    return next(each for each in cluster["consumers"] if each["name"] == name)


def nulls(values):
    return {name for name, value in values.items() if value is None}


@pytest.fixture(scope="module")
def document():
    return report_json(report_of(shop().run(3)))


def test_the_keys_are_those_of_the_contract(document):
    """Every object has exactly the keys of the example, in its order."""
    cluster = document["clusters"][0]
    billing = the(document, "billing")

    assert REPORT == list(document)
    assert CLUSTER == list(cluster)
    assert SOURCE == list(cluster["sources"][0])
    assert TOPIC == list(cluster["topics"][0])
    assert [*CONSUMER, "partitions"] == list(billing)
    assert [*PARTITION, "unknown"] == list(billing["partitions"][0])
    assert ["scope", "name", "error", "detail"] == list(cluster["failures"][0])


def test_a_spark_query_has_its_own_keys(document):
    """A query has no state, protocol or members, but batches; its partitions add planned and reported."""
    spark = the(document, "readings-average-5m")

    assert [*CONSUMER, "spark", "partitions"] == list(spark)
    assert SPARK == list(spark["spark"])
    assert [*PARTITION, "planned", "reported", "unknown"] == list(spark["partitions"][0])
    assert (None, None, None) == (spark["state"], spark["protocol"], spark["members"])
    assert ["checkpoint"] == spark["spark"]["seen_by"]
    assert spark["partitions"][0]["committed"] + 90 == spark["partitions"][0]["planned"]


def test_values_of_a_known_consumer(document):
    """Seven records behind on each of six partitions, written at 20 a second and partition."""
    billing = the(document, "billing")

    assert ("group", "Stable", "classic", 2) == tuple(billing[k] for k in ("kind", "state", "protocol", "members"))
    assert (42, 42, 0, 0) == tuple(
        billing[k] for k in ("lag_records", "known_lag_records", "lost_records", "partitions_unknown")
    )
    assert 0.35 == pytest.approx(billing["lag_seconds"], abs=billing["lag_seconds_bound"] + 1e-6)
    assert ("record", "ok", 300.0) == (billing["basis"], billing["health"], billing["objective_seconds"])
    assert ["billing-0", "billing-1"] * 3 == [each["member"] for each in billing["partitions"]]
    assert list(range(6)) == [each["partition"] for each in billing["partitions"]]


def test_times_are_iso_with_milliseconds_in_utc():
    """2026-11-18 11:06:40 and 123.9 ms UTC: cut, not rounded up to a moment that has not been."""
    cluster = replace(one({P0: (0, 1)}, {"g": {P0: 1}}), at=1_795_000_000.1239)

    assert "2026-11-18T11:06:40.123Z" == report_json(report_of(cluster))["at"]


@pytest.mark.parametrize(
    ("facts", "commit", "field", "reason"),
    [
        pytest.param(None, Why.NO_COMMIT, "lag_records", "no offset committed yet", id="no commit"),
        pytest.param(None, Why.NO_COMMIT, "known_lag_records", "no offset committed yet", id="no part known"),
        pytest.param(None, Why.TIMEOUT, "lost_records", "the broker did not answer in time", id="time-out"),
        pytest.param(None, 30, "records_per_second", "a rate needs two readings", id="first cycle"),
        pytest.param(
            GroupFacts(group("g"), why=30),
            None,
            "partitions_unknown",
            "the broker answered GROUP_AUTHORIZATION_FAILED",
            id="not allowed to read the group: how many partitions it has is unknown",
        ),
        pytest.param(GroupFacts(group("g")), 30, "state", "the broker did not tell", id="old broker"),
        pytest.param(GroupFacts(group("g")), 30, "members", "the broker did not tell", id="old broker: members"),
    ],
)
def test_a_null_says_why(facts, commit, field, reason):
    """The reason stands under the name of the null."""
    cluster = one({P0: (0, 100)}, {"g": {} if commit is None else {P0: commit}}, states={"g": facts} if facts else None)
    consumer = consumer_json(cluster, 0)

    assert consumer[field] is None
    assert reason == consumer["unknown"][field]


def test_an_unknown_part_leaves_a_lower_bound():
    """One partition of two unknown: no sum, at least 42, and the partition says what happened."""
    consumer = consumer_json(one({P0: (0, 100), P1: Why.NO_LEADER}, {"g": {P0: 58, P1: 10}}), 0)

    assert (None, 42, 1) == (consumer["lag_records"], consumer["known_lag_records"], consumer["partitions_unknown"])
    assert "the partition has no leader" == consumer["partitions"][1]["unknown"]["log_end"]
    assert 10 == consumer["partitions"][1]["committed"]


def test_an_empty_partition_without_a_commit_has_no_lag():
    """Nothing can be unread: 0 records, and the missing commit has its reason although the lag has none."""
    (partition,) = consumer_json(one({P0: (7, 7)}, {"g": {P0: Why.NO_COMMIT}}), 0)["partitions"]

    assert (0, None) == (partition["lag_records"], partition["committed"])
    assert "no offset committed yet" == partition["unknown"]["committed"]


def test_no_cluster_yet_has_no_time():
    """A monitor that has read nothing does not claim 1970."""
    assert {"at": None, "clusters": [], "unknown": {"at": "no cluster has been read yet"}} == report_json(
        Report(0.0, ())
    )


def test_a_finding_names_its_topic():
    """Kind, topic and text are always there; what was, what is, whom and when it is about only where it applies."""
    changes = (Change(0, 90, 10),)
    findings = (
        Finding("incomplete", "may not see everything"),
        Finding("recreated", "orders is new", "orders", seen_at=1_795_000_000.5, changes=(Change(None, "A", "B"),)),
        Finding("rewound", "g was set back", "orders", 0, group("g"), 1_795_000_000.0, 80, changes),
    )
    cluster = replace(one({P0: (0, 1)}, {"g": {P0: 1}}), findings=findings)

    told = report_json(report_of(cluster))["clusters"][0]["findings"]

    assert [
        {"kind": "incomplete", "topic": None, "text": "may not see everything"},
        {
            "kind": "recreated",
            "topic": "orders",
            "text": "orders is new",
            "seen_at": "2026-11-18T11:06:40.500Z",
            "changes": [{"old": "A", "new": "B"}],
        },
        {
            "kind": "rewound",
            "topic": "orders",
            "text": "g was set back",
            "partition": 0,
            "consumer": {"kind": "group", "name": "g"},
            "seen_at": "2026-11-18T11:06:40.000Z",
            "records": 80,
            "changes": [{"partition": 0, "old": 90, "new": 10}],
        },
    ] == told


def described(**kw):
    """Facts of a group with a member on each of two partitions."""
    owners = tuple(
        Member(f"member-{i}", f"client-{i}", f"/10.0.0.{i}", assigned=(TopicPartition(*key),))
        for i, key in enumerate((P0, P1))
    )
    values = {
        "state": "Stable", "protocol": "consumer", "members": 2, "owners": owners, "assignor": "uniform", "epoch": 7,
        "assigned": {where: owner.client_id for owner in owners for where in owner.assigned},
        "coordinator": 3, "subscribed": frozenset({"orders", "a"}), "described_at": 1000.0, **kw,
    }  # fmt: skip
    return GroupFacts(group("g"), **values)


def test_members_are_told_with_owner_and_host():
    """Who has a partition, by member, client and host; who assigns, who coordinates, what is subscribed to."""
    consumer = consumer_json(one({P0: (0, 1), P1: (0, 1)}, {"g": {P0: 1, P1: 1}}, states={"g": described()}), 0)

    assert ("uniform", 3, 7, ["a", "orders"]) == tuple(
        consumer[name] for name in ("assignor", "coordinator", "epoch", "subscribed")
    )
    assert {"count": 0, "exact": True, "seconds": 0.0, "seconds_bound": 0.0} == consumer["rebalances"]
    assert {"member_id": "member-1", "client_id": "client-1", "host": "/10.0.0.1"} == consumer["partitions"][1]["owner"]
    assert "client-1" == consumer["partitions"][1]["member"]


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        pytest.param(
            GroupFacts(group("g"), "Empty", "consumer", members=0),
            {"assignor": "it has no members", "subscribed": "it has no members", "epoch": "the broker did not tell"},
            id="an empty group",
        ),
        pytest.param(
            described(protocol="classic", epoch=None, subscribed=None),
            {
                "epoch": "the classic protocol has none",
                "subscribed": "what its members subscribe to is not told, or cannot be told from outside",
            },
            id="a classic group with members that subscribe to a pattern",
        ),
        pytest.param(
            GroupFacts(group("g"), why=30),
            dict.fromkeys(
                ("assignor", "coordinator", "epoch", "subscribed", "rebalances"),
                "the broker answered GROUP_AUTHORIZATION_FAILED",
            ),
            id="not allowed to read it",
        ),
    ],
)
def test_what_a_group_does_not_tell_has_its_reason(facts, reasons):
    """Each null under its own name."""
    consumer = consumer_json(one({P0: (0, 1)}, {"g": {P0: 1}}, states={"g": facts}), 0)

    assert reasons == {name: consumer["unknown"][name] for name in reasons}


@pytest.mark.parametrize("partitions", [True, False])
def test_abandoned_topics_stand_apart(partitions):
    """Shown with their own lag, marked, and no part of the sum; unknown with the reason."""
    ends = {P0: (0, 100), ("old", 0): (0, 500), ("older", 0): Why.NO_LEADER}
    commits = {P0: 90, ("old", 0): 200, ("older", 0): 5}
    cluster = one(ends, {"g": commits}, states={"g": described(subscribed=frozenset({"orders"}))})
    consumer = consumer_json(cluster, 0, partitions=partitions)

    assert (10, 0) == (consumer["lag_records"], consumer["partitions_unknown"])
    assert [
        {"topic": "old", "partitions": 1, "lag_records": 300, "unknown": {}},
        {
            "topic": "older",
            "partitions": 1,
            "lag_records": None,
            "unknown": {"lag_records": "the partition has no leader"},
        },
    ] == consumer["abandoned_topics"]
    if partitions:
        marks = {each["topic"]: each["abandoned"] for each in consumer["partitions"]}
        assert {"orders": False, "old": True, "older": True} == marks


def test_a_share_group_whose_log_is_unread_has_a_lag():
    """The broker tells how many records wait; how many were lost is then unknown, for the leader's reason."""
    cluster = one({P0: Why.NO_LEADER}, {"s": {P0: 4}}, said={"s": {P0: 7}})
    consumer = consumer_json(cluster, 0)

    assert (7, None) == (consumer["lag_records"], consumer["lost_records"])
    assert "the partition has no leader" == consumer["partitions"][0]["unknown"]["lost_records"]
    assert "share groups: the broker tells how many records wait, not since when" == consumer["unknown"]["lag_seconds"]


def test_a_source_says_how_often_it_is_read():
    """Where the settings say it."""
    history = History()
    seen = observe(kafka_snapshot({P0: (0, 1)}, {"g": {P0: 1}}), None, history)
    cluster = derive(seen, history, lambda _: 300.0, interval_seconds=10.0)

    assert 10.0 == report_json(report_of(cluster))["clusters"][0]["sources"][0]["interval_seconds"]


@pytest.mark.parametrize(
    ("watermark", "shown", "reason"),
    [
        pytest.param(1_795_000_000.0, "2026-11-18T11:06:40.000Z", None, id="a time"),
        pytest.param(None, None, "the query has none", id="none"),
        pytest.param(9e15, None, "9000000000000000.0 s since the epoch is not a date", id="any number in the file"),
    ],
)
def test_a_watermark_is_a_time_or_has_a_reason(watermark, shown, reason):
    """A checkpoint can hold any number: one that is no date must not break the report."""
    cluster = shop().run(1)
    (index,) = cluster.spark
    facts = replace(cluster.spark[index], query=replace(cluster.spark[index].query, watermark=watermark))
    consumer = consumer_json(replace(cluster, spark={index: facts}), index)

    assert shown == consumer["spark"]["watermark"]
    assert reason == consumer["unknown"].get("watermark")


def test_without_partitions_a_list_has_topics_and_the_judgement():
    """What a list of consumers needs of the partitions: which topics, and whether the objective is surely missed."""
    pipeline = shop()
    full = report_json(report_of(pipeline.run(3)))
    slim = report_json(report_of(pipeline.report()), partitions=False)

    for name in ("billing", "archive", "mailer"):
        keys = [key for key in the(full, name) if key not in {"unknown", "partitions"}]
        assert [*keys, "over_objective", "unknown", "topics"] == list(the(slim, name))
    assert ["orders", "payments"] == the(slim, "archive")["topics"]
    assert [] == the(slim, "secret")["topics"]
    assert (False, None) == (the(slim, "billing")["over_objective"], the(slim, "mailer")["over_objective"])


def test_over_objective_is_told():
    """1,000 records behind at 5.5 a second: older than 20 s."""
    slim = report_json(report_of(shop(objective=20.0).run(3)), partitions=False)

    assert the(slim, "fraud-detection")["over_objective"] is True


@pytest.mark.parametrize("partitions", [True, False])
@pytest.mark.parametrize("cycles", [0, 3])
def test_the_text_in_pieces_is_the_same_document(partitions, cycles):
    """Piece by piece or at once: the same text, and JSON for any parser, whatever consumers are called."""
    report = report_of(shop().run(cycles)) if cycles else Report(0.0, ())
    document = report_json(report, partitions=partitions)

    text = "".join(json_pieces(report, partitions=partitions))

    assert dump(document) == text
    assert document == json.loads(text)


def test_nan_never_gets_out():
    """JSON has no NaN: one that gets this far is a fault of ours and not written."""
    with pytest.raises(ValueError, match="JSON compliant"):
        dump({"lag_seconds": math.nan})


def test_a_consumer_is_found_in_its_clusters():
    """By kind and name, in every cluster that has it or in the one asked for."""
    a, b = shop(name="a").run(1), shop(name="b").run(1)
    report = report_of(a, b)

    assert [a, b] == [cluster for cluster, _ in find(report, Consumer(Kind.GROUP, SCRIPT_NAME))]
    assert [(b, 0)] == find(report, Consumer(Kind.GROUP, "billing"), "b")
    assert [] == find(report, Consumer(Kind.SPARK, "billing"))


# --- properties -------------------------------------------------------------------------------------

REASONS = st.sampled_from([Why.NO_COMMIT, Why.TIMEOUT, Why.NO_LEADER, Why.TOPIC_GONE])
KEYS = st.tuples(st.sampled_from(["a", "b", "ü\n"]), st.integers(0, 3))
ENDS = st.tuples(st.integers(0, 50), st.integers(50, 100)) | st.sampled_from([Why.NO_LEADER, Why.TIMEOUT])
FACTS = st.sampled_from(
    [
        member("g"),
        member("g", members=0, state="Empty"),
        member("g", members=None, state=None),
        member("g", assigned={TopicPartition("a", 0): "client-1"}),
        member("g", subscribed=frozenset("a"), described_at=1.0, epoch=3),
        GroupFacts(group("g"), why=30),
    ]
)


@st.composite
def clusters(draw):
    ends = draw(st.dictionaries(KEYS, ENDS, min_size=1))
    partitions = st.dictionaries(st.sampled_from(sorted(ends)), st.integers(0, 120) | REASONS)
    commits = draw(st.dictionaries(st.text(max_size=4), partitions, min_size=1, max_size=4))
    states = {name: replace(draw(FACTS), consumer=group(name)) for name in commits}
    return one(ends, commits, states=states)


@given(clusters(), st.booleans())
def test_every_null_has_a_reason_and_no_reason_is_without_its_null(cluster, partitions):
    """In ``unknown`` stand exactly the names of the nulls, and each reason is a sentence."""
    (document,) = report_json(report_of(cluster), partitions=partitions)["clusters"]
    objects = [*document["topics"], *document["consumers"]]
    objects += [each for consumer in document["consumers"] for each in consumer.get("partitions", [])]
    objects += [each for consumer in document["consumers"] for each in consumer["abandoned_topics"]]

    for values in objects:
        assert nulls(values) == set(values["unknown"])
        assert all(reason.strip() for reason in values["unknown"].values())


@given(clusters())
def test_sums_are_those_of_the_partitions(cluster):
    """A sum is known only if all its parts are; what is known of it is the sum of the known parts.

    Abandoned partitions are none of its parts.
    """
    for consumer in report_json(report_of(cluster))["clusters"][0]["consumers"]:
        lags = [each["lag_records"] for each in consumer["partitions"] if not each["abandoned"]]
        known = [lag for lag in lags if lag is not None]
        if consumer["lag_records"] is not None:
            assert sum(lags) == consumer["lag_records"] == consumer["known_lag_records"]
        elif known:
            assert sum(known) == consumer["known_lag_records"]
        if lags:
            assert len(lags) - len(known) == consumer["partitions_unknown"]


@given(clusters())
def test_everything_is_plain_json(cluster):
    """No numpy number, enum or tuple is left: the parsed text equals the values."""
    document = report_json(report_of(cluster))

    assert document == json.loads(dump(document))


def test_spark_nulls_stand_with_the_consumers():
    """The reasons of a query's own nulls are in its ``unknown`` too: the names differ from all others."""
    pipeline = Pipeline(
        {"t": (1, 1.0)}, {"g": Reader({"t": 1})}, spark=(query("q", "t", 1, trigger=None),), look_ups=False
    )
    cluster = pipeline.run(1)
    index = next(iter(cluster.spark))
    bare = replace(cluster.spark[index], last_batch_duration_seconds=None, inflight_batch_age_seconds=None)
    consumer = consumer_json(replace(cluster, spark={index: bare}), index)

    assert nulls(consumer) | nulls(consumer["spark"]) == set(consumer["unknown"])
    assert consumer["unknown"]["trigger_interval_seconds"].startswith("it is not in the settings")
    assert {"planned", "reported"} & nulls(consumer["partitions"][0]) == {"reported"}


def test_basis_is_a_word():
    """``record``, ``arrival`` or null."""
    cluster = one({P0: (0, 10)}, {"g": {P0: 0}})
    shown = []
    for basis in Basis:
        columns = replace(cluster.consumers, basis=np.array([basis], np.int8))
        shown.append(consumer_json(replace(cluster, consumers=columns), 0)["basis"])

    assert [None, "record", "arrival"] == shown
