"""``streamgauge diagnose``: what it says of a consumer, and how it judges."""

import csv
import io
import json
import os
import time

import pytest
from scripted_kafka import ScriptedKafka
from snapshots import group, kafka_snapshot

from monitor.cli.main import COMMANDS
from monitor.model import GroupFacts


@pytest.fixture
def now():
    return time.time()


@pytest.fixture
def diagnose(run, kafkas, in_folder, monkeypatch, now):
    """Run ``diagnose`` against a cluster of one topic with this end, and the checkpoints in ``chk``."""
    monkeypatch.setitem(COMMANDS, "diagnose", ("monitor.cli.diagnose:diagnose", "Name what makes a consumer late."))
    (in_folder / "chk").mkdir()
    (in_folder / "streamgauge.yml").write_text(
        'clusters: [{bootstrap_servers: "x:1", spark: [{path: "chk/*", trigger_interval_seconds: 10}]}]'
    )

    def invoke(*args, end=5000):
        empty = GroupFacts(group("billing"), state="Empty", protocol="classic", members=0)
        seen = kafka_snapshot(
            {("orders", 0): (0, end)}, {"billing": {("orders", 0): 90}}, at=now, states={"billing": empty}
        )
        log = {("orders", 0): [(i, int(now * 1000) - 50 * (end - i)) for i in range(end)]}
        kafkas["default"] = ScriptedKafka(seen, log=log)
        return run("diagnose", "--for", "0", *args)

    return invoke


def query(in_folder, now, name="etl", *, took=2.0, rows=100, last=5.0, in_flight=False):
    """Write a checkpoint of 20 batches, one every ten seconds; the last was committed ``last`` seconds ago."""
    folder = in_folder / "chk" / name
    for log in ("offsets", "commits"):
        (folder / log).mkdir(parents=True)
    (folder / "metadata").write_text(json.dumps({"id": f"{name}-1111"}))
    for batch in range(20 + in_flight):
        planned = now - last - took - 10 * (19 - batch)
        header = json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": int(planned * 1000), "conf": {}})
        offsets = folder / "offsets" / str(batch)
        offsets.write_text(f'v1\n{header}\n{{"orders":{{"0":{rows * (batch + 1)}}}}}')
        os.utime(offsets, (planned, planned))
        if batch < 20:
            commit = folder / "commits" / str(batch)
            commit.write_text('v1\n{"nextBatchWatermarkMs":0}')
            os.utime(commit, (planned + took, planned + took))


def test_a_query_that_is_limited_is_told_what_to_change(diagnose, in_folder, now):
    """Its health, how its batches go, the bottleneck, what to do, and a row a partition."""
    query(in_folder, now)
    result = diagnose("etl")
    lines = result.stdout.splitlines()

    assert 0 == result.exit_code, "within its objective"
    assert "etl (spark): ok" == lines[0]
    assert lines[2].startswith("  micro-batches, usually 2 s long, every 10 s, 20% of it")
    assert lines[3].startswith("  rate_limited: nearly every batch reads 100 records")
    assert "raise maxOffsetsPerTrigger from about 100 to 350" in lines[4]
    assert ["TOPIC", "PART", "END", "COMMITTED", "LAG", "AGE", "PLANNED", "PLANNED", "LAG", "SPARK", "SAYS"] == lines[
        6
    ].split()
    assert ["orders", "0", "5,000", "2,000", "3,000"] == lines[7].split()[:5]


def test_a_query_gone_without_a_word_is_bad(diagnose, in_folder, now):
    """Nothing for ten minutes while records wait: exit code 1."""
    query(in_folder, now, last=600.0)
    result = diagnose("etl", "-o", "json")
    (told,) = json.loads(result.stdout)["consumers"]

    assert (1, "lost") == (result.exit_code, told["health"])
    assert told["evidence"].startswith("nothing has moved for 10.0 min")
    assert ["lost"] == [each["kind"] for each in told["diagnoses"]][:1]


def test_lag_by_plan_stands_beside_lag_by_commit(diagnose, in_folder, now):
    """With a batch in flight both differ; what Spark itself reports is null where nobody told it."""
    query(in_folder, now, last=3.0, in_flight=True)
    (told,) = json.loads(diagnose("etl", "-o", "json").stdout)["consumers"]
    (part,) = told["partitions"]

    assert (5000, 2000, 2100) == (part["log_end"], part["committed"], part["planned"])
    assert (3000, 2900, None) == (part["lag_records"], part["planned_lag_records"], part["reported_lag_records"])
    assert ("micro_batch", 19, 10.0) == tuple(
        told["spark"][key] for key in ("mode", "batch_id", "records_read_per_second")
    )


def test_a_query_that_is_well_is_held_up_by_nothing(diagnose, in_folder, now):
    """Four of ten seconds and caught up."""
    query(in_folder, now, took=4.0)
    result = diagnose("etl", end=2000)

    assert 0 == result.exit_code
    assert "  nothing holds it up" in result.stdout.splitlines()


def test_a_group_has_its_health_and_the_numbers(diagnose):
    """What is no Spark query has no batches; a stopped one is bad all the same."""
    result = diagnose("billing")

    assert 1 == result.exit_code
    assert ["billing (group): stopped"] == result.stdout.splitlines()[:1]
    assert "4910 records behind" in result.stdout


def test_csv_has_a_line_a_diagnosis(diagnose, in_folder, now):
    """And one without for whoever has none."""
    query(in_folder, now)
    rows = list(csv.DictReader(io.StringIO(diagnose("*", "-o", "csv").stdout)))

    assert [("billing", ""), ("etl", "rate_limited")] == sorted((row["consumer"], row["diagnosis"]) for row in rows)
    assert "maxOffsetsPerTrigger" == next(row["setting"] for row in rows if row["consumer"] == "etl")


def test_a_name_is_needed_and_must_be_somebodys(diagnose, in_folder, now):
    """Nobody is diagnosed by accident, and a near name is offered."""
    query(in_folder, now)
    none, wrong = diagnose(), diagnose("etll")

    assert (2, 2) == (none.exit_code, wrong.exit_code)
    assert "did you mean 'etl'" in wrong.stderr


def test_a_checkpoint_that_cannot_be_read_is_told_beside(diagnose, in_folder, now):
    """On stderr, as everywhere; the others are diagnosed."""
    query(in_folder, now)
    query(in_folder, now, "torn")
    (in_folder / "chk/torn/metadata").write_text("{")
    result = diagnose("etl")

    assert 0 == result.exit_code
    assert "torn/metadata" in result.stderr
