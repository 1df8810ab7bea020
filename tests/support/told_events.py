"""Messages of Spark listeners as they are on the wire, and the recordings of Spark 3.5 to 4.3 as such messages."""

from __future__ import annotations

import json
from pathlib import Path

from monitor.observe.spark.listener import Told

RECORDINGS = Path(__file__).parents[1] / "data" / "spark"
T0 = 1_795_333_200.0


def message(kind, event, *, at=T0, seq=1, app="app-1", instance="i1", **more):
    envelope = {"v": 1, "kind": kind, "at": at, "app": app, "instance": instance, "seq": seq, "event": event, **more}
    return json.dumps(envelope).encode()


def recorded(name):
    """Return the messages of a recording."""
    lines = [json.loads(line) for line in (RECORDINGS / name).read_text().splitlines()]
    kinds = {"term": "terminated"}
    return [
        message(kinds.get(line["kind"], line["kind"]), line["event"], at=line.get("received_at", T0), seq=seq)
        for seq, line in enumerate(lines, 1)
    ]


def kafka_progress(batch_id, ends, *, starts=None, newest=None, query="q1", run="r1", name="orders", **more):
    """Make a progress event of a Kafka source as Spark 4.2 writes it: offsets are JSON in strings."""
    source = {
        "description": "KafkaV2[Subscribe[orders]]",
        "startOffset": None if starts is None else json.dumps(starts),
        "endOffset": json.dumps(ends),
        "latestOffset": json.dumps(newest or ends),
        "numInputRows": 7,
    }
    return {
        "id": query,
        "runId": run,
        "name": name,
        "timestamp": "2026-11-22T07:40:00.000Z",
        "batchId": batch_id,
        "batchDuration": 1500,
        "numInputRows": 7,
        "durationMs": {"addBatch": 1200, "walCommit": 100, "triggerExecution": 1500},
        "sources": [source],
        "sink": {"numOutputRows": 5},
        **more,
    }


def running(query="q1", run="r1", **more):
    return {"id": query, "runId": run, "name": "orders", "trigger": None, "checkpoint": None, **more}


def told(*messages, now=T0 + 10):
    """Return what is known after some messages."""
    known = Told()
    for each in messages:
        known.take(each, now)
    known.settle(now)
    return known
