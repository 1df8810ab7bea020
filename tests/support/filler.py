"""Fill a broker through confluent-kafka, in a process of its own, and print that client's view of it as JSON.

Usage: python filler.py BOOTSTRAP TOPICS PARTITIONS GROUPS

Every partition gets records with known timestamps, 90 s apart and the last a minute old; group g commits offset
(g + p) % (records + 1) on partition p of a few topics. What is printed is read back from the broker by this client
(committed offsets, log ends); the timestamps are the ones produced here.
"""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

RECORDS = 12
TOPICS_A_GROUP = 2
MOVING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}


def main(bootstrap: str, topics: int, partitions: int, groups: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    names = [f"filled-{groups}-{number:03}" for number in range(topics)]
    for created in admin.create_topics([NewTopic(name, partitions, 1) for name in names]).values():
        created.result(60)
    now_ms = int(time.time() * 1000)
    stamps = [now_ms - 60_000 - 90_000 * (RECORDS - 1 - i) for i in range(RECORDS)]
    produce(bootstrap, names, partitions, stamps)

    wanted = {
        f"filled-{groups}-group-{number:04}": {
            (names[(number + shift) % topics], partition): (number + partition) % (RECORDS + 1)
            for shift in range(TOPICS_A_GROUP)
            for partition in range(partitions)
        }
        for number in range(groups)
    }
    commit(admin, wanted)
    json.dump(view(admin, names, partitions, list(wanted), stamps), sys.stdout)


def produce(bootstrap: str, names: list[str], partitions: int, stamps: list[int]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for name in names:
        for partition in range(partitions):
            for stamp in stamps:
                producer.produce(name, b"x" * 20, partition=partition, timestamp=stamp)
    left = producer.flush(120)
    if left:
        sys.exit(f"{left} records were not delivered")


def commit(admin: AdminClient, wanted: dict[str, dict[tuple[str, int], int]]) -> None:
    """Commit for every group; a young __consumer_offsets moves about for some seconds, so what moved is tried again."""
    left = list(wanted)
    deadline = time.monotonic() + 60
    while left:
        moved = []
        for first in range(0, len(left), 100):
            moved += commit_once(admin, {name: wanted[name] for name in left[first : first + 100]})
        if moved and time.monotonic() > deadline:
            sys.exit(f"{len(moved)} groups could not commit, the first is {moved[0]}")
        left = moved
        time.sleep(0.2 if left else 0)


def commit_once(admin: AdminClient, wanted: dict[str, dict[tuple[str, int], int]]) -> list[str]:
    pending = {
        name: admin.alter_consumer_group_offsets([
            ConsumerGroupTopicPartitions(name, [TopicPartition(t, p, o) for (t, p), o in offsets.items()])
        ])[name]
        for name, offsets in wanted.items()
    }  # fmt: skip
    moved = []
    for name, future in pending.items():
        try:
            errors = {tp.error.code() for tp in future.result(60).topic_partitions if tp.error is not None}
        except KafkaException as exc:
            errors = {exc.args[0].code()}
        if errors & MOVING:
            moved.append(name)
        elif errors:
            sys.exit(f"committing for {name}: {errors}")
    return moved


def view(admin: AdminClient, names: list[str], partitions: int, groups: list[str], stamps: list[int]) -> dict:
    asked = {TopicPartition(name, p): OffsetSpec.latest() for name in names for p in range(partitions)}
    ends = {(tp.topic, tp.partition): f.result(60).offset for tp, f in admin.list_offsets(asked).items()}
    seen = {}
    for first in range(0, len(groups), 100):
        pending = {
            name: admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name]
            for name in groups[first : first + 100]
        }
        for name, future in pending.items():
            seen[name] = [
                {
                    "topic": tp.topic,
                    "partition": tp.partition,
                    "committed": tp.offset,
                    "log_end": ends[tp.topic, tp.partition],
                    "first_unread_ms": stamps[tp.offset] if tp.offset < len(stamps) else None,
                }
                for tp in future.result(60).topic_partitions
            ]
    return seen


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
