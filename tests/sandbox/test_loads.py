"""Loads count for themselves; another client agrees with their counts."""

import asyncio
import json
from collections import Counter
from itertools import islice

import pytest
from confluent_kafka import Consumer as OtherConsumer
from confluent_kafka import Producer as OtherProducer
from confluent_kafka import TopicPartition as OtherPartition
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SandboxError
from monitor.model import TopicPartition
from monitor.sandbox.loads import (
    Consumer,
    Pace,
    Producer,
    Readings,
    commit_only,
    create_topics,
    jittered,
    lag_records,
    now_ms,
    plain,
    shifted,
    stepping,
    turns,
)
from monitor.sandbox.populate import CAUGHT_UP_SHARE, RECORDS, STEP_MS, Shape, plan, populate

# --- arithmetic -------------------------------------------------------------------------------------


@given(
    rate=st.floats(0.1, 5000),
    steps=st.lists(st.floats(0.001, 0.5), min_size=1, max_size=50),
)
def test_a_pace_neither_loses_nor_invents_records(rate: float, steps: list[float]) -> None:
    """Whatever the steps of the clock, what was due so far is the rate times the time, to less than one record."""
    pace, now, done = Pace(0.0), 0.0, 0
    for step in steps:
        now += step
        due = pace.due(rate, now)
        pace.spend(due)
        done += due

    assert rate * now - 1 - 1e-6 <= done <= rate * now + 1e-6


@pytest.mark.parametrize(
    ("rate", "seconds", "expected"),
    [
        pytest.param(100.0, 0.5, 50, id="half a second's worth"),
        pytest.param(100.0, 60.0, 101, id="after a long break at most a second's worth and one"),
        pytest.param(0.5, 60.0, 1, id="a slow rate still yields one"),
        pytest.param(0.0, 60.0, 0, id="paused"),
    ],
)
def test_what_is_due_after_a_break_is_bounded(rate: float, seconds: float, expected: int) -> None:
    """A load that was held up does not make up for it in one burst."""
    assert expected == Pace(10.0).due(rate, 10.0 + seconds)


def test_a_pause_leaves_nothing_due() -> None:
    """What was due when the rate went to 0 is dropped: paused means paused."""
    pace = Pace(0.0)
    pace.due(1.5, 0.5)
    pace.due(0.0, 0.6)

    assert 0 == pace.due(1.5, 1.2)


@pytest.mark.parametrize(
    ("skew", "expected"),
    [
        pytest.param(0.0, [300, 300, 300, 300], id="even"),
        pytest.param(1.0, [576, 288, 192, 144], id="Zipf"),
    ],
)
def test_partitions_get_their_share_of_the_records(skew: float, expected: list[int]) -> None:
    """Shares follow the skew exactly where they divide."""
    counts = Counter(islice(turns(4, skew), 1200))

    assert expected == [counts[partition] for partition in range(4)]


def test_a_reading_is_json_and_carries_the_timestamp_of_its_record() -> None:
    """The field ``at`` is the record's timestamp in seconds, and the key is the sensor."""
    key, value = Readings(4)(2, 0, 1_795_000_000_123)
    reading = json.loads(value)

    assert (b"s-2", "s-2", 1_795_000_000.123) == (key, reading["sensor"], reading["at"])
    assert isinstance(reading["temperature"], float)


def test_a_sensor_stays_on_its_partition() -> None:
    """No two partitions share a sensor, and each partition has several."""
    make = Readings(4, sensors=40)
    sensors = [{make(partition, number, 0)[0] for number in range(100)} for partition in range(4)]

    assert [10, 10, 10, 10] == [len(some) for some in sensors]
    assert 40 == len(set().union(*sensors))


def test_a_plain_record_has_the_size_asked_for() -> None:
    """100 bytes are 100 bytes."""
    key, value = plain(100)(3, 17, 0)

    assert (None, 100) == (key, len(value))


def test_timestamps_can_be_stepped_shifted_and_out_of_order() -> None:
    """Steps are exact, a shift is from now, and jitter goes back as well as forth."""
    step, early, mixed = stepping(1000, 60), shifted(-3600), jittered(30, seed=7)
    some = [mixed() for _ in range(50)]
    now = now_ms()

    assert [1000, 1060, 1120] == [step() for _ in range(3)]
    assert now - 3_610_000 < early() <= now_ms() - 3_600_000
    assert some != sorted(some)
    assert all(now - 40_000 < stamp <= now for stamp in some)


def test_a_plan_follows_its_shape() -> None:
    """As many topics, partitions, groups and positions as asked, a quarter caught up, none beyond the end."""
    shape = Shape(topics=20, partitions=5, groups=40, positions=50)
    truth = plan(shape, 1_000_000)
    lags = [lag for group in truth.committed for lag in truth.lag(group).values()]

    assert (100, 40, 2000) == (len(truth.ends), len(truth.committed), len(lags))
    assert RECORDS == (min(truth.ends.values()), max(truth.ends.values()))
    assert min(lags) == 0
    assert abs(lags.count(0) / len(lags) - CAUGHT_UP_SHARE) < 0.05
    assert (1_000_000 + 3 * STEP_MS) / 1000 == truth.record_time(3)


def test_a_plan_that_cannot_be_is_refused() -> None:
    """A group cannot commit on more partitions than exist."""
    with pytest.raises(SandboxError, match="11 positions a group"):
        plan(Shape(topics=2, partitions=5, groups=1, positions=11), 0)


# --- against a real broker, seen by another client --------------------------------------------------


def other_view(bootstrap: str, group: str, places: list[TopicPartition]) -> tuple[list[int], list[int]]:
    """Return committed offsets and log ends as confluent-kafka sees them."""
    other = OtherConsumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        asked = [OtherPartition(*place) for place in places]
        committed = [answer.offset for answer in other.committed(asked, timeout=20)]
        ends = [other.get_watermark_offsets(place, timeout=20)[1] for place in asked]
    finally:
        other.close()
    return committed, ends


def other_members(bootstrap: str, group: str) -> int:
    """Return how many members a group has, as confluent-kafka sees it."""
    admin = AdminClient({"bootstrap.servers": bootstrap})  # kept until the answer is here: it ends with its name
    return len(admin.describe_consumer_groups([group], request_timeout=20)[group].result(20).members)


async def until(condition: object, seconds: float = 30.0) -> None:
    """Wait until a condition of our own loads holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.05)


@pytest.mark.integration
async def test_another_client_agrees_with_the_counts(kafka) -> None:
    """Sent is the log end, committed is the committed offset, for every partition; a pause holds both still."""
    topic, group = "counts", "counts-readers"
    places = [TopicPartition(topic, partition) for partition in range(4)]
    await create_topics(kafka.bootstrap, {topic: 4})
    await create_topics(kafka.bootstrap, {topic: 4})  # once more changes nothing
    async with (
        Producer(kafka.bootstrap, topic, 400, 4, value=Readings(4), skew=1.0) as producer,
        Consumer(kafka.bootstrap, group, topic, 100) as consumer,
    ):
        await until(lambda: min(producer.sent) > 20 and len(consumer.committed) == 4)
        await consumer.pause()
        await producer.pause()
        committed, ends = await asyncio.to_thread(other_view, kafka.bootstrap, group, places)

        assert ends == producer.sent
        assert committed == [consumer.truth()[place] for place in places]
        assert sum(committed) == consumer.processed.total()

        before = producer.sent
        added = await producer.send_exactly(101)
        committed, ends = await asyncio.to_thread(other_view, kafka.bootstrap, group, places)

        assert 101 == sum(added)
        assert ends == [had + more for had, more in zip(before, added, strict=True)]
        assert [end - offset for end, offset in zip(ends, committed, strict=True)] == lag_records(producer, consumer)

        consumer.slow_down(5000)
        consumer.resume()
        await until(lambda: lag_records(producer, consumer) == [0, 0, 0, 0])


@pytest.mark.integration
async def test_record_times_are_those_in_the_log(kafka) -> None:
    """The timestamp kept for an offset is the one that another client reads at that offset."""
    await create_topics(kafka.bootstrap, {"stamps": 2})
    async with Producer(kafka.bootstrap, "stamps", 0, 2, timestamps=jittered(60)) as producer:
        await producer.send_exactly(40)
        producer.timestamps = shifted(3600)
        await producer.send_exactly(2)

    def read() -> dict[tuple[int, int], float]:
        other = OtherConsumer({"bootstrap.servers": kafka.bootstrap, "group.id": "stamps", "enable.auto.commit": False})
        other.assign([OtherPartition("stamps", 0, 0), OtherPartition("stamps", 1, 0)])
        records = other.consume(42, timeout=20)
        other.close()
        return {(record.partition(), record.offset()): record.timestamp()[1] / 1000 for record in records}

    seen = await asyncio.to_thread(read)

    assert {where: producer.record_time(*where) for where in seen} == seen
    assert 42 == len(seen)
    assert producer.record_time(0, 21) is None


@pytest.mark.integration
async def test_a_killed_consumer_commits_nothing_more_and_stays_a_member_until_its_session_ends(kafka) -> None:
    """A crash is not a farewell: what was processed and not committed is read again by the next one."""
    await create_topics(kafka.bootstrap, {"crash": 1})
    place = TopicPartition("crash", 0)
    async with Producer(kafka.bootstrap, "crash", 0, 1) as producer:
        await producer.send_exactly(50)
        consumer = Consumer(
            kafka.bootstrap, "crashing", "crash", 1000, commit_every_seconds=3600, session_timeout_seconds=6
        )
        await consumer.start()
        await until(lambda: consumer.processed[place] == 50)
        await consumer.kill()

        assert 1 == await asyncio.to_thread(other_members, kafka.bootstrap, "crashing")
        assert ([-1001], [50]) == await asyncio.to_thread(other_view, kafka.bootstrap, "crashing", [place])
        assert {} == consumer.truth()

        await consumer.start()
        await until(lambda: consumer.processed[place] == 100)
        await consumer.close()

        assert 0 == await asyncio.to_thread(other_members, kafka.bootstrap, "crashing")
        assert ([50], [50]) == await asyncio.to_thread(other_view, kafka.bootstrap, "crashing", [place])
        assert {place: 50} == consumer.truth()


@pytest.mark.integration
async def test_a_producer_that_is_not_alone_says_so(kafka) -> None:
    """Counts are true only for the sole writer: a foreign record is noticed, not counted around."""
    await create_topics(kafka.bootstrap, {"shared": 1})

    def write() -> None:
        other = OtherProducer({"bootstrap.servers": kafka.bootstrap})
        other.produce("shared", b"foreign")
        other.flush(20)

    await asyncio.to_thread(write)
    producer = Producer(kafka.bootstrap, "shared", 0, 1)
    await producer.start()
    with pytest.raises(SandboxError, match="somebody else writes"):
        await producer.send_exactly(1)
    with pytest.raises(SandboxError, match="somebody else writes"):
        await producer.stop()


@pytest.mark.integration
async def test_groups_can_commit_without_members(kafka) -> None:
    """Another client sees the offsets committed for groups with any name."""
    await create_topics(kafka.bootstrap, {"commits": 3})
    groups = {
        name: {TopicPartition("commits", partition): partition + index for partition in range(3)}
        for index, name in enumerate(["plain", "with space", 'a "quote"', "größe"])
    }
    await commit_only(kafka.bootstrap, groups)

    for name, offsets in groups.items():
        committed, _ = await asyncio.to_thread(other_view, kafka.bootstrap, name, list(offsets))
        assert list(offsets.values()) == committed


@pytest.mark.integration
async def test_a_populated_cluster_is_what_its_truth_says(kafka_factory) -> None:
    """Log ends and committed offsets of every group are as planned."""
    kafka = await kafka_factory()
    truth = await populate(kafka.bootstrap, Shape(topics=3, partitions=2, groups=4, positions=5))
    for group, offsets in truth.committed.items():
        committed, ends = await asyncio.to_thread(other_view, kafka.bootstrap, group, list(offsets))
        assert list(offsets.values()) == committed
        assert [truth.ends[place] for place in offsets] == ends


async def test_a_wrong_address_is_said_in_one_line() -> None:
    """Nobody listens there: what was tried, on what."""
    with pytest.raises(SandboxError, match=r"writing to topic t of 127\.0\.0\.1:1: "):
        await Producer("127.0.0.1:1", "t", 1, 1).start()
    with pytest.raises(SandboxError, match=r"reading topic t of 127\.0\.0\.1:1 as group g: "):
        await Consumer("127.0.0.1:1", "g", "t", 1).start()
    with pytest.raises(SandboxError, match=r"creating topics at 127\.0\.0\.1:1: "):
        await create_topics("127.0.0.1:1", {"t": 1})
    with pytest.raises(SandboxError, match=r"committing at 127\.0\.0\.1:1: "):
        await commit_only("127.0.0.1:1", {"g": {TopicPartition("t", 0): 0}})
