"""All sources of a cluster's Spark queries in one look: each fails by itself."""

import aiohttp
import pytest
from told_events import T0, kafka_progress, message

from monitor.model import Consumer, Failure, Kind, SparkQuery, SparkSnapshot
from monitor.observe.kafka.record_batches import Record
from monitor.observe.kafka.topic_tail import Read
from monitor.observe.spark.source import SparkSource
from monitor.settings import Cluster, SparkEvents

PROGRESS = message("progress", kafka_progress(3, {"orders": {"0": 100}}, starts={"orders": {"0": 60}}))


class Tail:
    """A topic with what is scripted for each look."""

    def __init__(self, *reads):
        self.reads = list(reads)
        self.closed = False

    async def read(self):
        return self.reads.pop(0)

    async def close(self):
        self.closed = True


class Checkpoints:
    """Checkpoints that are as they are given."""

    def __init__(self, *queries, failures=()):
        self.snapshot = SparkSnapshot("default", T0, T0, not failures, queries, tuple(failures))

    async def observe(self):
        return self.snapshot


def read(*values, failures=()):
    return Read([Record(number, 0, None, value) for number, value in enumerate(values)], list(failures))


def query(query_id="q1", name="orders"):
    return SparkQuery(Consumer(Kind.SPARK, name), query_id, f"/c/{name}", T0, {}, {}, None)


def source(**parts):
    return SparkSource(Cluster(bootstrap_servers="k:1"), clock=lambda: T0 + 10, **parts)


async def test_what_each_source_has_is_one_list():
    """A query of both is one; tombstones are nothing."""
    found = await source(
        checkpoints=Checkpoints(query(), query("q2", "pay")), tail=Tail(read(PROGRESS, None))
    ).observe()

    assert ([], True) == (list(found.failures), found.up)
    assert [("orders", ("checkpoint", "listener")), ("pay", ("checkpoint",))] == [
        (each.consumer.name, each.seen_by) for each in found.queries
    ]


async def test_what_was_told_is_kept_from_look_to_look():
    """A topic is read on and on."""
    spark = source(tail=Tail(read(PROGRESS), read()))
    first, second = await spark.observe(), await spark.observe()
    await spark.close()

    assert (
        ["orders"] == [each.consumer.name for each in first.queries] == [each.consumer.name for each in second.queries]
    )


async def test_each_source_fails_by_itself():
    """The others' queries are there; what cannot be read means that not everything is up."""
    gone = Failure("topic", "events", "TOPIC_GONE", "there is no topic events")
    torn = Failure("checkpoint", "/c/pay", "MALFORMED", "torn")
    found = await source(checkpoints=Checkpoints(query(), failures=[torn]), tail=Tail(read(failures=[gone]))).observe()

    assert {gone, torn} == set(found.failures)
    assert (False, ["orders"]) == (found.up, [each.consumer.name for each in found.queries])


async def test_what_others_write_wrongly_is_told_and_says_nothing_against_our_reading():
    """One entry a reason with its number; the source stays up."""
    found = await source(tail=Tail(read(b"\xff", b"{", b'{"v": 9}'))).observe()

    assert [
        Failure("listener", "events", "MALFORMED", "2 not taken: a message that is not JSON"),
        Failure("listener", "events", "MALFORMED", "1 not taken: a message of a version that is not known here"),
    ] == list(found.failures)
    assert found.up


async def test_events_by_http_are_heard():
    """With the token of the settings."""
    events = SparkEvents(topic=None, listen="127.0.0.1:0", token="secret")
    spark = SparkSource(Cluster(bootstrap_servers="k:1", spark_events=events), clock=lambda: T0 + 10)
    url = await spark.listen()
    headers = {"Authorization": "Bearer secret"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, data=PROGRESS) as answer:
        assert 204 == answer.status
    found = await spark.observe()
    await spark.close()

    assert [("orders", 3)] == [(each.consumer.name, each.batch_id) for each in found.queries]


@pytest.mark.parametrize("events", [None, SparkEvents(topic=None)], ids=["none", "no-way"])
async def test_without_an_address_nothing_listens(events):
    """It is opt-in."""
    spark = SparkSource(Cluster(bootstrap_servers="k:1", spark_events=events))

    assert None is await spark.listen()
    assert () == (await spark.observe()).queries
    await spark.close()


async def test_everything_is_closed():
    """Connections of the topic's reader too."""
    tail = Tail()
    await source(tail=tail).close()

    assert tail.closed
