"""Fetch answers and record batches: batches made by aiokafka's builder, and bytes made by nobody."""

import struct

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from monitor.observe.kafka import record_batches
from monitor.observe.kafka.record_batches import (
    Record,
    decode_fetch,
    decode_times,
    fetch_request,
    records,
    skip_batch,
)
from monitor.observe.kafka.wire import MalformedError

PLAIN, GZIP = 0, 1
VALUES = st.none() | st.binary(max_size=50)


def batch(base, made, *, codec=PLAIN, attributes=0):
    """Build a batch with aiokafka from (timestamp, key, value) and place it at an offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=10_000_000,
    )  # fmt: skip
    for offset, (timestamp, key, value) in enumerate(made):
        builder.append(offset, timestamp, key, value, [("h", b"x")])
    raw = bytearray(builder.build())
    struct.pack_into(">q", raw, 0, base)
    (own,) = struct.unpack_from(">h", raw, 21)
    struct.pack_into(">h", raw, 21, own | attributes)
    return bytes(raw)


MADE = st.lists(st.tuples(st.integers(0, 2**40), VALUES, VALUES), min_size=1, max_size=20)


@given(MADE, st.integers(0, 2**50), st.sampled_from([PLAIN, GZIP]))
def test_records_are_what_another_client_wrote(made, base, codec):
    """Offsets, timestamps, keys and values, null or empty, plain or gzip."""
    found, following = records(batch(base, made, codec=codec), base)

    assert [Record(base + number, *each) for number, each in enumerate(made)] == found
    assert base + len(made) == following


def test_reading_goes_on_in_the_middle_of_a_batch():
    """A leader answers with whole batches: what was read before is left out."""
    data = batch(10, [(1, None, b"a"), (2, None, b"b")]) + batch(12, [(3, None, b"c")])

    assert ([b"b", b"c"], 13) == ([each.value for each in records(data, 11)[0]], records(data, 11)[1])
    assert ([], 20) == records(data, 20)


def test_a_torn_batch_at_the_end_is_read_the_next_time():
    """Answers are cut where the bytes asked for end."""
    first, second = batch(0, [(1, None, b"a")]), batch(1, [(1, None, b"b")])
    for cut in range(len(second)):
        found, following = records(first + second[:cut], 0)
        assert ([b"a"], 1) == ([each.value for each in found], following)


def test_a_number_without_an_end_is_malformed():
    """No loop over a record that is nothing but continuation bits."""
    raw = bytearray(batch(0, [(1, None, b"a" * 40)]))
    raw[61:91] = b"\x80" * 30
    with pytest.raises(MalformedError, match="more than 64 bits"):
        records(bytes(raw), 0)


def test_control_records_are_left_out():
    """What transactions leave in the log is nobody's event."""
    assert ([], 2) == records(batch(1, [(1, b"\0\0\0\1", b"\0\0")], attributes=0x20), 1)


def test_append_time_counts_where_the_topic_keeps_it():
    """All records of a batch have the time at which the broker took it."""
    data = batch(0, [(5, None, b"a"), (9, None, b"b")], attributes=0x08)

    assert [9, 9] == [each.timestamp_ms for each in records(data, 0)[0]]


def bad_gzip(data):
    return data[:61] + bytes([data[61] ^ 0xFF]) + data[62:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(batch(0, [(1, None, b"a")], attributes=3), "packed with lz4: only gzip", id="lz4"),
        pytest.param(batch(0, [(1, None, b"a")], attributes=7), "packed with codec 7", id="codec-unknown"),
        pytest.param(bad_gzip(batch(0, [(1, None, b"a" * 50)], codec=GZIP)), "is no gzip", id="gzip-torn"),
        pytest.param(b"\0" * 70, "no record batch of magic 2", id="zeros"),
        pytest.param(b"\xff" * 70, "no record batch of magic 2", id="ones"),
    ],
)
def test_what_cannot_be_opened_is_said_and_stepped_over(data, reason):
    """It is one failure, and what comes behind it is read."""
    with pytest.raises(MalformedError, match=reason):
        records(data, 0)
    assert skip_batch(data, 0) > 0


def test_good_batches_before_a_bad_one_are_kept():
    """The bad one is met, and told, when it is the first."""
    good, bad = batch(0, [(1, None, b"a")]), batch(1, [(1, None, b"b")], attributes=4)

    assert ([b"a"], 1) == ([each.value for each in records(good + bad, 0)[0]], records(good + bad, 0)[1])
    assert 2 == skip_batch(good + bad, 1)


def test_a_small_batch_does_not_become_a_large_one(monkeypatch):
    """What would be too large when unpacked is not unpacked any further."""
    monkeypatch.setattr(record_batches, "LARGEST_BATCH", 100_000)
    with pytest.raises(MalformedError, match="larger than 100,000 bytes when unpacked"):
        records(batch(0, [(1, None, bytes(200_000))], codec=GZIP), 0)


@given(st.binary(max_size=200), MADE, st.data())
def test_changed_bytes_are_records_or_malformed(garbage, made, data):
    """No bytes make it raise anything else, and what it goes on from never lies before what was asked for."""
    whole = bytearray(batch(5, made, codec=data.draw(st.sampled_from([PLAIN, GZIP]))))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for raw in (garbage, bytes(whole), bytes(whole)[: data.draw(st.integers(0, len(whole)))]):
        try:
            _, following = records(raw, 5)
            assert following >= 5
        except MalformedError:
            assert skip_batch(raw, 5) > 5
        try:
            decode_fetch(raw, 4)
            decode_times(raw, 6)
        except MalformedError:
            pass


def fetch_answer(topic, *partitions):
    """Write the answer to Fetch v4 by hand."""
    name = topic.encode()
    parts = [struct.pack(">iih", 0, 1, len(name)), name, struct.pack(">i", len(partitions))]
    for partition, error, batches, aborted in partitions:
        parts.append(struct.pack(">ihqqi", partition, error, 99, 99, len(aborted)))
        parts += [struct.pack(">qq", *each) for each in aborted]
        parts += [struct.pack(">i", len(batches)), batches]
    return b"".join(parts)


def test_a_fetch_answer_is_read_partition_by_partition():
    """With errors, aborted transactions and empty ones between."""
    answer = fetch_answer("t", (0, 0, b"abc", [(1, 2), (3, 4)]), (2, 6, b"", []), (1, 0, b"", []))

    assert [(0, 0, b"abc"), (2, 6, b""), (1, 0, b"")] == [tuple(each) for each in decode_fetch(answer, 4)]
    with pytest.raises(MalformedError):
        decode_fetch(answer + b"\0", 4)


def test_a_fetch_request_shares_the_bytes_among_partitions():
    """As an independent reading of the schema has it: replica -1, no waiting, each partition from its offset."""
    request = fetch_request("t", {3: 10, 4: 11}, most_bytes=1000)

    assert struct.pack(">iiiibi", -1, 0, 0, 1000, 0, 1) == request[:21]
    assert b"\0\1t" + struct.pack(">i", 2) + struct.pack(">iqiiqi", 3, 10, 500, 4, 11, 500) == request[21:]
