"""The exposition: every value a scraper reads is the report's, and what is unknown is not there.

What is served is read back with prometheus_client's parser and compared with the report's columns, told here a second
time, metric by metric, without the catalogue.
"""

import gzip
import math
import os
import shutil
import subprocess
import threading
import zlib
from fnmatch import fnmatchcase
from itertools import groupby

import numpy as np
import pytest
from expositions import EVERYTHING as EVERY_METRIC
from expositions import Cluster, cycles, metrics, ours, read, values, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from snapshots import group

from monitor.model import (
    HEALTHS,
    Consumer,
    Failure,
    GroupFacts,
    Kind,
    Report,
    SparkBatch,
    SparkQuery,
    SparkSnapshot,
    SparkState,
    TopicPartition,
    Why,
)
from monitor.publish.exposition import CONTENT_TYPE, Exposition
from monitor.publish.exposition_gzip import deflate, gzip_member
from monitor.publish.exposition_labels import Rows, escape
from monitor.publish.exposition_slots import PIECE_ROWS, SlotBlock, digits, slot_values
from monitor.settings import Metrics

P0, P1 = ("orders", 0), ("orders", 1)
EVERYTHING = Metrics(**EVERY_METRIC)
HALF_A_MILLISECOND = 0.000_500_1
STATES = (
    "Empty",
    "PreparingRebalance",
    "CompletingRebalance",
    "Assigning",
    "Reconciling",
    "Stable",
    "NotReady",
    "Dead",
)
FINDINGS = ("beyond_end", "clock_skew", "lost", "recreated", "rewound", "truncated")


# --- making reports ----------------------------------------------------------------------------------


def spark_snapshot(*queries: SparkQuery, at: float = 1000.0) -> SparkSnapshot:
    return SparkSnapshot("default", at - 0.1, at, True, queries)


def spark_query(last_batch: int, **kw) -> SparkQuery:
    batches = tuple(SparkBatch(n, 990.0 + n, 992.5 + n, 2.5, 5) for n in range(last_batch + 1))
    return SparkQuery(
        Consumer(Kind.SPARK, "q"), "id-1", "/chk/q", 1000.0, {TopicPartition(*P0): 30}, {}, last_batch, batches, **kw
    )


STATE = (SparkState("dedupe 0", 40, 1000), SparkState("stateStoreSave 1", 2, 1000))


# --- reading back ------------------------------------------------------------------------------------


def expected(report: Report, metrics: Metrics) -> dict[tuple[str, frozenset], float]:
    """Return every sample that the report calls for."""
    return {
        (f"streamgauge_{name}", frozenset({"cluster": cluster.name, **labels}.items())): value
        for cluster in report.clusters
        for name, labels, value in (
            *_rows_of_consumers(cluster),
            *_rows_of_positions(cluster, metrics),
            *_rows_of_owners(cluster, metrics),
            *_other(cluster),
        )
        if value is not None and value != -1 and not math.isnan(value)
    }


def _who(consumer: Consumer) -> dict[str, str]:
    return {"kind": str(consumer.kind), "consumer": consumer.name}


def _rows_of_consumers(cluster):
    columns = cluster.consumers
    for i, consumer in enumerate(cluster.positions.layout.consumers):
        who, facts = _who(consumer), cluster.groups[i]
        known, unknown = int(columns.partitions_known[i]), int(columns.partitions_unknown[i])
        yield "consumer_sum_lag_records", who, columns.lag_records[i]
        yield "consumer_known_lag_records", who, columns.known_lag_records[i] if known else None
        yield "consumer_max_lag_seconds", who, columns.lag_seconds[i]
        yield "consumer_max_lag_seconds_bound", who, columns.lag_seconds_bound[i]
        yield "consumer_sum_lost_records", who, columns.lost_records[i]
        yield "consumer_objective_seconds", who, columns.objective_seconds[i]
        yield "consumer_members", who, columns.members[i]
        yield "consumer_rebalances_total", who, columns.rebalances.count[i]
        yield "consumer_rebalancing_seconds_total", who, columns.rebalances.seconds[i]
        yield "consumer_info", {**who, "protocol": facts.protocol}, 1 if facts.protocol else None
        is_read = known + unknown > 0 or columns.why[i] == Why.NO_POSITIONS
        yield "consumer_partitions", {**who, "status": "known"}, known if is_read else None
        yield "consumer_partitions", {**who, "status": "unknown"}, unknown if is_read else None
        for index, health in enumerate(HEALTHS):
            yield "consumer_health", {**who, "health": str(health)}, int(columns.health[i] == index)
        for state in STATES if facts.state in STATES else ():
            yield "consumer_state", {**who, "state": state}, int(facts.state == state)


def _level(consumer: Consumer, metrics: Metrics) -> str:
    matching = [each.level for each in metrics.levels if fnmatchcase(consumer.name, each.consumer)]
    return [*matching, metrics.level][0]


def _rows_of_positions(cluster, metrics: Metrics):
    layout, columns = cluster.positions.layout, cluster.positions
    for i, row in enumerate(layout.row):
        topic, partition = layout.partitions.key(row)
        consumer = layout.consumers[layout.consumer[i]]
        if _level(consumer, metrics) != "position":
            continue
        labels = {**_who(consumer), "topic": topic, "partition": str(partition)}
        yield "consumer_lag_records", labels, columns.lag_records[i]
        yield "consumer_lag_seconds", labels, columns.lag_seconds[i]
        if metrics.lag_seconds_bound:
            yield "consumer_lag_seconds_bound", labels, columns.lag_seconds_bound[i]
        if metrics.committed_offset:
            yield "consumer_committed_offset", labels, columns.committed[i]
        if metrics.lost_records:
            yield "consumer_lost_records", labels, columns.lost_records[i]
    pairs = cluster.consumer_topics
    for i, (index, topic) in enumerate(zip(pairs.consumer, pairs.topic, strict=True)):
        consumer = layout.consumers[index]
        labels = {**_who(consumer), "topic": layout.partitions.topics[topic]}
        if _level(consumer, metrics) != "consumer":
            yield "consumer_topic_lag_records", labels, pairs.lag_records[i]
            yield "consumer_topic_abandoned", labels, pairs.abandoned[i]
        yield "consumer_records_total", labels, pairs.records_total[i]


def _rows_of_owners(cluster, metrics: Metrics):
    shown = [each for each in cluster.groups if _level(each.consumer, metrics) == "position"]
    for facts in shown if metrics.owner_info else ():
        for member in facts.owners:
            who = {**_who(facts.consumer), "client_id": member.client_id, "member_id": member.member_id}
            for topic, partition in member.assigned:
                labels = {**who, "host": member.host, "topic": topic, "partition": str(partition)}
                yield "consumer_partition_owner_info", labels, 1


def _other(cluster):
    for kind in {*FINDINGS, *(finding.kind for finding in cluster.findings)}:
        yield "findings", {"finding": kind}, sum(finding.kind == kind for finding in cluster.findings)
    partitions = cluster.partitions
    for row in range(len(partitions.layout)):
        topic, partition = partitions.layout.key(row)
        labels = {"topic": topic, "partition": str(partition)}
        yield "partition_log_start_offset", labels, partitions.log_start[row]
        yield "partition_log_end_offset", labels, partitions.log_end[row]
    for topic, total in zip(partitions.layout.topics, cluster.topics.records_total, strict=True):
        yield "topic_records_total", {"topic": topic}, total
    for source in cluster.sources:
        yield "cluster_up", {"source": source.source}, int(source.up)
        yield "observe_duration_seconds", {"source": source.source}, source.duration_seconds
        yield "observe_interval_seconds", {"source": source.source}, source.interval_seconds
        yield "observe_last_success_timestamp_seconds", {"source": source.source}, source.last_success
    for (source, api), count in cluster.requests_total.items():
        yield "observe_requests_total", {"source": source, "api": api}, count
    for (source, scope), count in cluster.failures_total.items():
        yield "observe_failures_total", {"source": source, "scope": scope}, count
    for index, facts in cluster.spark.items():
        who, counts = _who(cluster.positions.layout.consumers[index]), facts.durations
        yield "spark_last_batch_duration_seconds", who, facts.last_batch_duration_seconds
        yield "spark_trigger_interval_seconds", who, facts.trigger_interval_seconds
        yield "spark_last_commit_timestamp_seconds", who, facts.last_commit_at
        yield "spark_inflight_batch_age_seconds", who, facts.inflight_batch_age_seconds
        yield "spark_watermark_timestamp_seconds", who, facts.query.watermark
        yield "spark_state_rows", who, sum(each.rows for each in facts.query.state) if facts.query.state else None
        is_told = "listener" in facts.query.seen_by
        yield "spark_failed", who, int(facts.query.exception is not None) if is_told else None
        yield "spark_batches_total", who, facts.batches_total
        yield "spark_input_rows_total", who, facts.input_rows_total
        yield "spark_output_rows_total", who, facts.output_rows_total
        yield "spark_restarts_total", who, facts.restarts_total
        for phase, seconds in facts.phase_seconds_total.items():
            yield "spark_batch_phase_seconds_total", {**who, "phase": phase}, seconds
        for bound, count in zip((*counts.bounds, math.inf), (*counts.counts, counts.count), strict=True):
            le = "+Inf" if bound == math.inf else str(bound)
            yield "spark_batch_duration_seconds_bucket", {**who, "le": le}, count
        yield "spark_batch_duration_seconds_sum", who, counts.sum
        yield "spark_batch_duration_seconds_count", who, counts.count


def assert_says(text: bytes, report: Report, metrics: Metrics = EVERYTHING) -> None:
    """Compare an answer with what the report calls for: the same series, and the same values to the millisecond."""
    wanted, found = expected(report, metrics), ours(text)
    assert wanted.keys() == found.keys()
    assert {} == {
        key: (wanted[key], found[key]) for key in wanted if abs(wanted[key] - found[key]) > HALF_A_MILLISECOND
    }


# --- whatever the report is --------------------------------------------------------------------------


@given(st.lists(cycles() | cycles(st.nothing()), min_size=1, max_size=2), metrics())
@settings(deadline=None, max_examples=40)
def test_every_value_is_the_reports_in_every_cycle(clusters, metrics):
    """One exposition patched through cycles says after each exactly what the report says, and nothing else.

    At every level: what is finer than a consumer's level is not there, and not counted as left out.
    """
    exposition = Exposition(metrics)
    observed = [Cluster(f"cluster-{i}") for i in range(len(clusters))]
    latest = {}
    for at in range(max(map(len, clusters))):
        for cluster, told in zip(observed, clusters, strict=True):
            if at < len(told):
                latest[cluster.name] = cluster.report(**told[at])
        report = whole(*latest.values())
        text = exposition.render(report).plain

        assert_says(text, report, metrics)
        assert [len(read(text))] == values(text, "streamgauge_exposed_series")
        assert [0] == values(text, "streamgauge_dropped_series")


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 10**5), min_size=1))
def test_digits_are_the_number(numbers):
    """Any offset a broker can send reads back as itself."""
    written = digits(np.array(numbers, np.int64), 5, seconds=False)

    assert numbers == [int(row.tobytes()) for row in written]


@given(st.lists(st.floats(0, 2e9), min_size=1))
def test_seconds_keep_their_milliseconds(seconds):
    """An age or a moment reads back to half a millisecond."""
    written = digits(slot_values(np.array(seconds)), 4, seconds=True)

    assert pytest.approx(seconds, abs=HALF_A_MILLISECOND, rel=0) == [float(row.tobytes()) for row in written]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_no_time_is_unknown(value):
    """What is no time that anybody measured is not exposed as one."""
    assert [-1] == slot_values(np.array([value])).tolist()


@given(st.lists(st.lists(st.integers(-1, 10**19 // 2 - 1), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_block_holds_values_that_fit_and_refuses_others_unwritten(columns):
    """A value that outgrew its slot changes nothing: the caller lays out anew."""
    rows = Rows([b'{a="x"} ', b'{a="y"} ', b'{a="z"} '], np.arange(3, dtype=np.int32), [b""], np.zeros(3, np.int32))
    shown = columns[0]
    block = SlotBlock("m", rows, np.array(shown, np.int64))
    for column in columns[1:]:
        if block.patch(np.array(column, np.int64)):
            shown = column
        text = gzip.decompress(gzip_member(block.pieces))

        known = {(("m", frozenset({("a", name)})), v) for name, v in zip("xyz", shown, strict=True) if v >= 0}
        assert known == set(read(text).items())
        assert len(known) == block.series


# --- unknown, back, come and go ----------------------------------------------------------------------


def test_an_unknown_value_is_absent_and_comes_back():
    """While its leader is away a partition has no lag and its consumer no sum; what is known stays."""
    cluster, exposition = Cluster(), Exposition(EVERYTHING)
    known = cluster.report({P0: (0, 100), P1: (0, 50)}, {"g": {P0: 58, P1: 50}}, at=1000.0)
    away = cluster.report({P0: (0, 100), P1: Why.NO_LEADER}, {"g": {P0: 58, P1: 50}}, at=1010.0, up=False)
    back = cluster.report({P0: (0, 100), P1: (0, 70)}, {"g": {P0: 58, P1: 55}}, at=1020.0)
    texts = [exposition.render(whole(report)).plain for report in (known, away, back)]

    assert [[42, 0], [42], [42, 15]] == [values(text, "streamgauge_consumer_lag_records") for text in texts]
    assert [[42], [], [57]] == [values(text, "streamgauge_consumer_sum_lag_records") for text in texts]
    assert [[42], [42], [57]] == [values(text, "streamgauge_consumer_known_lag_records") for text in texts]
    assert [[1], [0], [1]] == [values(text, "streamgauge_cluster_up") for text in texts]
    assert known.positions.layout is back.positions.layout


def test_a_group_that_could_not_be_read_has_no_numbers():
    """Its health says unknown; nothing else about it is a number, least of all 0."""
    facts = GroupFacts(group("g"), why=30)
    report = whole(Cluster().report({P0: (0, 100)}, {"g": {}}, states={"g": facts}))
    found = {name: value for (name, labels), value in ours(Exposition(EVERYTHING).render(report).plain).items()
             if ("consumer", "g") in labels and name != "streamgauge_consumer_health"}  # fmt: skip

    assert {"streamgauge_consumer_objective_seconds": 300.0} == found


def test_a_value_that_outgrows_its_slot_is_shown_whole():
    """From one digit to nineteen and back."""
    cluster, exposition = Cluster(), Exposition(EVERYTHING)
    ends = [9, 2**62, 10]
    texts = [exposition.render(whole(cluster.report({P0: (0, end)}, {"g": {P0: 0}}))).plain for end in ends]

    assert [[float(end)] for end in ends] == [values(text, "streamgauge_partition_log_end_offset") for text in texts]
    assert b" 4611686018427387904\n" in texts[1]


def test_rows_that_come_and_go_are_laid_out_anew():
    """A new partition, a new group, both gone again."""
    cluster, exposition = Cluster(), Exposition(EVERYTHING)
    reports = [
        cluster.report({P0: (0, 100)}, {"g": {P0: 58}}),
        cluster.report({P0: (0, 100), P1: (0, 9)}, {"g": {P0: 58, P1: 1}, "h": {P1: 2}}),
        cluster.report({P0: (0, 101)}, {"h": {P0: 2}}),
    ]
    for report in reports:
        assert_says(exposition.render(whole(report)).plain, whole(report))


def test_a_protocol_that_changes_relabels_its_series_only():
    """The info series moves to the new protocol although the rows are the same."""
    cluster, exposition = Cluster(), Exposition(EVERYTHING)
    for protocol in ("classic", "consumer", None):
        facts = {"g": GroupFacts(group("g"), state="Stable", protocol=protocol, members=1)}
        report = whole(cluster.report({P0: (0, 100)}, {"g": {P0: 58}}, states=facts))

        assert_says(exposition.render(report).plain, report)


def test_a_cluster_without_report_has_no_series():
    """A cluster that fell out of the report leaves nothing behind, the other one stays."""
    one, two, exposition = Cluster("one"), Cluster("two"), Exposition(EVERYTHING)
    first, second = (each.report({P0: (0, 100)}, {"g": {P0: 58}}) for each in (one, two))
    exposition.render(whole(first, second))
    report = whole(second)

    assert_says(exposition.render(report).plain, report)


def test_nothing_known_at_all_is_still_an_answer():
    """Before the first report there are only the process's own metrics and the counts."""
    text = Exposition(Metrics()).render(Report(0.0, ())).plain

    assert {} == ours(text)
    assert [len(read(text))] == values(text, "streamgauge_exposed_series")


# --- labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "rest",
        "cr\rlf",
        "\0",
        "\x85\u2028\ufeff",
        "\\udc80",
        "\ufffd",
        'say "hi"',
        "back\\slash",
        "two\nlines",
        "größe 漢 💡",
        'all "\\\n" of it',
        "trailing\\",
        "",
        "{x=1} # HELP",
    ],
)
def test_any_name_reads_back(name):
    """Group and topic names may hold anything."""
    report = whole(Cluster(name or "c").report({(name, 3): (0, 100)}, {name: {(name, 3): 58}}))

    assert_says(Exposition(EVERYTHING).render(report).plain, report)


def test_a_name_that_is_no_text_stays_valid_and_distinct():
    """A lone surrogate has no UTF-8; it is spelled out rather than refused."""
    assert b"a\\\\udc80" == escape("a\udc80")
    assert escape("a\udc80") != escape("a\udc81")


# --- Spark -------------------------------------------------------------------------------------------


def test_a_spark_query_has_its_histogram_and_its_moments():
    """Batches seen since the start are counted, the one in flight has an age, and there is no group state."""
    cluster, exposition = Cluster(), Exposition(EVERYTHING)
    query = spark_query(1)
    cluster.report({P0: (0, 100)}, {"g": {P0: 58}}, spark_snapshot(query))
    query = spark_query(3, inflight_batch_id=4, inflight_planned_at=1000.0, watermark=940.125,
                        trigger_interval_seconds=30.0)  # fmt: skip
    report = whole(cluster.report({P0: (0, 100)}, {"g": {P0: 58}}, spark_snapshot(query, at=1004.0), at=1004.0))
    text = exposition.render(report).plain

    assert_says(text, report)
    assert [4.0] == values(text, "streamgauge_spark_inflight_batch_age_seconds")
    assert [940.125] == values(text, "streamgauge_spark_watermark_timestamp_seconds")
    assert [2.0] == values(text, "streamgauge_spark_batches_total")
    assert [5.0] == values(text, "streamgauge_spark_batch_duration_seconds_sum")
    assert [0, 0, 0, 0, *[2] * 10] == values(text, "streamgauge_spark_batch_duration_seconds_bucket")


@pytest.mark.parametrize(
    ("told", "failed", "rows"),
    [
        pytest.param({}, [], [], id="checkpoint alone"),
        pytest.param({"seen_by": ("checkpoint", "listener")}, [0.0], [], id="runs, without state"),
        pytest.param({"seen_by": ("listener",), "ended_at": 999.0, "state": STATE}, [0.0], [42.0], id="was stopped"),
        pytest.param(
            {"seen_by": ("listener", "driver"), "ended_at": 999.0, "exception": "out of memory", "state": STATE},
            [1.0],
            [42.0],
            id="ended with an exception",
        ),
    ],
)
def test_only_a_listener_tells_how_a_query_ended_and_what_it_keeps(told, failed, rows):
    """State is summed over operators; without a listener neither is a number, and no 0 either."""
    sparks = spark_snapshot(spark_query(1, **told))
    report = whole(Cluster().report({P0: (0, 100)}, {"g": {P0: 58}}, sparks))
    text = Exposition(EVERYTHING).render(report).plain

    assert_says(text, report)
    assert failed == values(text, "streamgauge_spark_failed")
    assert rows == values(text, "streamgauge_spark_state_rows")


# --- what is left out --------------------------------------------------------------------------------


def test_metrics_that_are_off_are_not_mentioned():
    """A family that nobody switched on has no lines, no HELP and no TYPE."""
    report = whole(Cluster().report({P0: (10, 100)}, {"g": {P0: 5}}))
    text = Exposition(Metrics()).render(report).plain

    assert_says(text, report, Metrics())
    assert b"streamgauge_consumer_committed_offset" not in text


# --- the form ----------------------------------------------------------------------------------------


@pytest.fixture
def answer():
    """Two clusters with unknown values, a Spark query and failures, in the second cycle."""
    one, two, exposition = Cluster("one"), Cluster('the "second"'), Exposition(EVERYTHING)
    failures = (Failure("group", "secret", "GROUP_AUTHORIZATION_FAILED"),)
    for at in (1000.0, 1010.0):
        report = whole(
            one.report({P0: (0, 100), P1: Why.TIMEOUT}, {"g": {P0: 58, P1: 3}}, spark_snapshot(spark_query(2)), at=at),
            two.report({("größe", 7): (0, 10**15)}, {"h\n": {("größe", 7): 5}}, at=at, failures=failures),
        )
        rendered = exposition.render(report)
    return rendered


def test_every_family_is_one_group_with_its_help_and_type(answer):
    """HELP and TYPE come once, first, and all lines of a family, of every cluster, follow together."""
    families = {"_bucket": "", "_sum": "", "_count": ""}
    order, heads = [], []
    for line in answer.plain.decode().split("\n")[:-1]:
        if line.startswith(("# HELP ", "# TYPE ")):
            heads.append(tuple(line.split()[1:3]))
            order.append(line.split()[2])
        elif not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            for suffix in families if "batch_duration" in name else ():
                name = name.removesuffix(suffix)
            order.append(name)

    groups = [name for name, _ in groupby(order)]
    assert len(set(groups)) == len(groups)
    assert [(word, name) for name in groups for word in ("HELP", "TYPE")] == heads
    assert answer.plain.endswith(b"\n")


def test_types_are_the_catalogues(answer):
    """Scrapers learn what is a counter and what a histogram."""
    types = {family.name: family.type for family in text_string_to_metric_families(answer.plain.decode())}

    assert "counter" == types["streamgauge_topic_records"]
    assert "histogram" == types["streamgauge_spark_batch_duration_seconds"]
    assert "gauge" == types["streamgauge_consumer_lag_seconds"]
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4;")


def test_the_process_tells_of_itself(answer):
    """Its CPU, memory and collector are there, and no series of when a counter was made."""
    names = {name for name, _ in read(answer.plain)}

    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_gc_collections_total"} <= names
    assert not [name for name in names if name.endswith("_created")]


def test_promtool_accepts_it(answer):
    """Prometheus' own checker finds no fault with form, names or help."""
    promtool = shutil.which("promtool")
    if promtool is None and os.environ.get("CI"):
        pytest.fail("promtool is not installed (Debian: prometheus)")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    checked = subprocess.run([promtool, "check", "metrics"], input=answer.plain, capture_output=True, check=False)

    assert (0, b"", b"") == (checked.returncode, checked.stdout, checked.stderr)


# --- compressed --------------------------------------------------------------------------------------


def test_compressed_it_is_the_same_text(answer):
    """One gzip member holds everything: a client that stops after the first misses nothing."""
    one_member = zlib.decompressobj(wbits=31)

    assert answer.plain == gzip.decompress(answer.gzip)
    assert answer.plain == one_member.decompress(answer.gzip)
    assert (True, b"") == (one_member.eof, one_member.unused_data)
    assert answer.plain is not answer.gzip


@given(st.lists(st.binary(max_size=2000), max_size=6))
def test_pieces_join_to_one_member(texts):
    """Any pieces, empty ones too, in any number."""
    member = gzip_member([deflate(text) for text in texts])

    assert b"".join(texts) == gzip.decompress(member)


def long_block() -> tuple[SlotBlock, np.ndarray]:
    """A block of three pieces whose rows hold their own number."""
    count = 2 * PIECE_ROWS + 1
    rows = Rows([b'{n="%d"} ' % n for n in range(count)], np.arange(count, dtype=np.int32), [b""],
                np.zeros(count, np.int32))  # fmt: skip
    column = np.arange(count, dtype=np.int64)
    return SlotBlock("m", rows, column), column


def test_what_did_not_change_stays_compressed():
    """A change in the last row compresses the last piece anew and leaves the others alone."""
    block, column = long_block()
    before = list(block.pieces)
    column = column.copy()
    column[-1] = 7
    block.patch(column)

    assert [True, True, False] == [new is old for new, old in zip(block.pieces, before, strict=True)]


def test_changes_in_several_pieces_all_show():
    """Rows far apart change, turn unknown and stay: each reads back as it is now."""
    block, column = long_block()
    column = column.copy()
    column[[0, PIECE_ROWS - 1, PIECE_ROWS, -1]] = [5, -1, 17, -1]
    block.patch(column)

    shown = {
        int(dict(labels)["n"]): value for (_, labels), value in read(gzip.decompress(gzip_member(block.pieces))).items()
    }
    assert {n: value for n, value in enumerate(column.tolist()) if value >= 0} == shown


# --- never torn --------------------------------------------------------------------------------------


def test_what_was_served_does_not_change():
    """A slow scraper still reads the cycle it began with."""
    cluster, exposition = Cluster(), Exposition(EVERYTHING)
    first = exposition.render(whole(cluster.report({P0: (0, 100)}, {"g": {P0: 58}})))
    text, compressed = bytes(first.plain), bytes(first.gzip)
    exposition.render(whole(cluster.report({P0: (0, 999)}, {"g": {P0: Why.TIMEOUT}})))

    assert text == first.plain
    assert compressed == first.gzip


def test_a_scrape_during_rendering_sees_one_cycle_whole():
    """Whoever reads while the next cycle is written sees every line of one cycle, never of two."""
    cluster, exposition = Cluster(), Exposition(Metrics())
    keys = [("t", partition) for partition in range(300)]
    latest = [exposition.render(whole(cluster.report(dict.fromkeys(keys, (0, 1)), {})))]
    torn, done = [], threading.Event()

    def scrape() -> None:
        while not done.is_set():
            ends = {line.split()[-1] for line in latest[0].plain.splitlines() if b"log_end_offset{" in line}
            if len(ends) != 1:
                torn.append(ends)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        for end in range(2, 60):
            latest[0] = exposition.render(whole(cluster.report(dict.fromkeys(keys, (0, end)), {})))
    finally:
        done.set()
        scraper.join()

    assert [] == torn
