"""A job as a Faust app, without brokers: what it takes from Faust, and what it keeps when partitions move."""

from types import SimpleNamespace

import pytest
from faust.types import TP

from processors.aggregates import count
from processors.job_app import JobApp, record_of
from processors.pipeline import read
from processors.running import Record

WHERE = {"topic": "t", "partition": 2, "offset": 7, "timestamp": 1500, "key": b"k", "value": None}


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        pytest.param(None, (), id="none"),
        pytest.param([("a", b"1"), ("a", b"2")], (("a", b"1"), ("a", b"2")), id="a name twice"),
        pytest.param([("a", None)], (("a", b""),), id="without value"),
    ],
)
def test_a_record_is_taken_with_its_headers(headers, taken):
    """As Kafka has them, in order."""
    message = SimpleNamespace(**WHERE, headers=headers)

    assert Record("t", 2, 7, 1.5, b"k", None, taken) == record_of(message)


async def test_windows_of_partitions_that_stay_outlive_a_rebalance():
    """Those of partitions that went are forgotten; another worker counts on there."""
    job = read("t", name="moving", decode=bytes.decode).window(60).aggregate(count()).to("out")
    app = JobApp(job)
    (part,) = app._parts
    for partition in (0, 1):
        part.process(Record("t", partition, 0, 100.0, f"k{partition}".encode(), b"x"))
    assert {"k0", "k1"} == {result.key for result in app.early()}
    await app.on_partitions_assigned.send({TP("t", 1), TP("other", 0)})

    assert {"k1"} == {result.key for result in app.early()}


def test_the_brokers_are_those_of_the_environment_unless_given(monkeypatch):
    """As for the other apps."""
    job = read("t", name="somewhere").to("out")
    monkeypatch.setenv("STREAMGAUGE_BROKERS", "a:1,b:2")

    assert ["kafka://a:1", "kafka://b:2"] == [str(each) for each in JobApp(job).conf.broker]
    assert ["kafka://c:3"] == [str(each) for each in JobApp(job, "c:3").conf.broker]
