"""Fetch, and what is in its answers: records of a topic that the monitor reads, within bounds of memory.

Written and read here are Fetch v4 (the lowest that Kafka 4 takes, KIP-896), ListOffsets by time, and record batches of
magic 2 (KIP-98), plain or gzip, which Python itself can open. Whoever may write to the topic decides what is in a
batch: what does not follow the format raises MalformedError, and what would become larger than ``LARGEST_BATCH`` when
unpacked is not unpacked. Control records are left out; aborted transactions are not (isolation read_uncommitted), as
nothing that writes here uses any. The check sum is not looked at: broker and TCP have.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from monitor.observe.kafka.wire import Api, MalformedError, Reader

FETCH = Api(1, "Fetch", 12)
FETCH_VERSION = 4

LARGEST_BATCH = 32_000_000
"""Bytes of a record batch, unpacked."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""baseOffset, batchLength, partitionLeaderEpoch, magic, crc, attributes, lastOffsetDelta, baseTimestamp, maxTimestamp,
producerId, producerEpoch, baseSequence, count."""
_OUTSIDE = 12
"""Bytes before what batchLength counts."""
_LEAST = _HEADER.size

_CODEC, _LOG_APPEND_TIME, _CONTROL = 0x07, 0x08, 0x20
_PLAIN, _GZIP = 0, 1
_CODEC_NAMES = {2: "snappy", 3: "lz4", 4: "zstd"}


class Record(NamedTuple):
    """A record; its timestamp in milliseconds since the epoch."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class Fetched(NamedTuple):
    """What a leader answered for a partition: its code, and bytes of record batches, the last of them maybe torn."""

    partition: int
    error: int
    batches: bytes


# --- requests ---------------------------------------------------------------------------------------


def fetch_request(topic: str, offsets: Mapping[int, int], *, most_bytes: int) -> bytes:
    """Encode Fetch v4 for partitions of a topic, each from an offset on: what is there now, without waiting."""
    name = topic.encode()
    each = max(1, most_bytes // max(1, len(offsets)))
    head = struct.pack(">iiiibi", -1, 0, 0, most_bytes, 0, 1)
    parts = [head, struct.pack(">h", len(name)), name, struct.pack(">i", len(offsets))]
    parts += [struct.pack(">iqi", partition, offset, each) for partition, offset in offsets.items()]
    return b"".join(parts)


def decode_fetch(data: bytes, version: int) -> list[Fetched]:
    """Decode the answer to Fetch v4.

    Raises:
        MalformedError: it does not follow its schema.
    """
    del version
    read = Reader(data)
    read.i32()  # throttle_time_ms
    found = []
    for _ in range(_count(read)):
        read.skip(_length(read.i16()))
        for _ in range(_count(read)):
            partition, error = read.i32(), read.i16()
            read.skip(16)  # high watermark, last stable offset
            read.skip(16 * max(0, _count(read)))  # aborted transactions
            found.append(Fetched(partition, error, read.take(_length(read.i32()))))
    read.end()
    return found


def decode_times(data: bytes, version: int) -> dict[int, tuple[int, int]]:
    """Decode the answer to ListOffsets v6 to v11 about one topic: code and offset by partition.

    Raises:
        MalformedError: it does not follow its schema.
    """
    del version
    read = Reader(data)
    read.i32()
    found = {}
    for _ in range(read.count()):
        read.string()
        for _ in range(read.count()):
            partition, error = read.i32(), read.i16()
            read.skip(8)
            (offset,) = struct.unpack(">q", read.take(8))
            read.i32()
            read.tags()
            found[partition] = (error, offset)
        read.tags()
    return found


def _count(read: Reader) -> int:
    """Read the length of an array; null counts as empty, and more elements than bytes are garbage."""
    count = read.i32()
    if count > len(read.data) - read.pos:
        raise MalformedError(f"an array of {count} elements in an answer of {len(read.data)} bytes")  # noqa: EM102
    return max(count, 0)


def _length(size: int) -> int:
    return max(size, 0)


# --- record batches ---------------------------------------------------------------------------------


def records(batches: bytes, first: int) -> tuple[list[Record], int]:
    """Return the records from an offset on, and the offset to go on from: behind the last whole batch that is good.

    Raises:
        MalformedError: the first batch does not follow the format, or is packed in a way that cannot be opened here.
    """
    found: list[Record] = []
    following = first
    try:
        for last, payload in _batches(batches):
            if last >= first:
                found += [record for record in payload if record.offset >= first]
                following = last + 1
    except MalformedError:
        if following == first:
            raise
    return found, following


def skip_batch(batches: bytes, first: int) -> int:
    """Return the offset behind the first batch that reaches an offset, for when what is in it cannot be read.

    It lies behind ``first`` in any case, so that nothing is read for ever.
    """
    position = 0
    while len(batches) - position >= _LEAST:
        head = _HEADER.unpack_from(batches, position)
        last = head[0] + max(head[6], 0)
        if last >= first:
            return int(last) + 1
        position += _OUTSIDE + max(head[1], _LEAST - _OUTSIDE)
    return first + 1


def _batches(data: bytes) -> Iterator[tuple[int, Sequence[Record]]]:
    """Yield the last offset of each whole batch, and its records."""
    position = 0
    while len(data) - position >= _LEAST:
        head = _HEADER.unpack_from(data, position)
        base, length, magic, attributes, last_delta, count = head[0], head[1], head[3], head[5], head[6], head[12]
        end = position + _OUTSIDE + length
        if magic != 2 or length < _LEAST - _OUTSIDE or base < 0 or last_delta < 0:  # noqa: PLR2004
            raise MalformedError(f"no record batch of magic 2 at byte {position}")  # noqa: EM102
        if end > len(data):
            return  # a leader cuts its answer where the bytes asked for end
        if attributes & _CONTROL:
            yield base + last_delta, ()
        else:
            payload = _unpacked(data[position + _LEAST : end], attributes & _CODEC)
            at = head[8] if attributes & _LOG_APPEND_TIME else None
            yield base + last_delta, _records(payload, base, head[7], at, count)
        position = end


def _unpacked(payload: bytes, codec: int) -> bytes:
    if codec == _PLAIN:
        return payload
    if codec != _GZIP:
        name = _CODEC_NAMES.get(codec, f"codec {codec}")
        raise MalformedError(f"records are packed with {name}: only gzip can be opened here")  # noqa: EM102
    try:
        unzip = zlib.decompressobj(wbits=31)
        unpacked = unzip.decompress(payload, LARGEST_BATCH)
    except zlib.error as exc:
        raise MalformedError(f"a record batch is no gzip: {exc}") from exc  # noqa: EM102
    if unzip.unconsumed_tail:
        raise MalformedError(f"a record batch is larger than {LARGEST_BATCH:,} bytes when unpacked")  # noqa: EM102
    return unpacked


def _records(payload: bytes, base: int, first_ms: int, at_ms: int | None, count: int) -> list[Record]:
    read = Reader(payload)
    if not 0 <= count <= len(payload):
        raise MalformedError(f"a batch of {count} records in {len(payload)} bytes")  # noqa: EM102
    found = []
    for _ in range(count):
        length = _varint(read)
        end = read.pos + length
        read.skip(1)  # attributes
        delta_ms, delta = _varint(read), _varint(read)
        key, value = _nullable(read), _nullable(read)
        if length < 0 or end < read.pos or end > len(payload):
            raise MalformedError(f"a record of {length} bytes at byte {read.pos}")  # noqa: EM102
        read.pos = end  # headers are not looked at
        found.append(Record(base + delta, first_ms + delta_ms if at_ms is None else at_ms, key, value))
    return found


def _varint(read: Reader) -> int:
    """Read a zigzag varint of at most 64 bits, as within records."""
    value = shift = 0
    while True:
        byte = read.take(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return (value >> 1) ^ -(value & 1)
        shift += 7
        if shift > 63:  # noqa: PLR2004
            raise MalformedError(f"the number at byte {read.pos} has more than 64 bits")  # noqa: EM102


def _nullable(read: Reader) -> bytes | None:
    size = _varint(read)
    return None if size < 0 else read.take(size)
