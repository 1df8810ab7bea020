"""The smallest app that ``streamgauge worker`` runs: how many records each key has had.

    streamgauge worker --app processors.examples.counts:app --bootstrap-servers HOST:PORT

Yours needs no more than this: a module on the path or in the current folder, with a ``faust.App`` in it that takes
its brokers from STREAMGAUGE_BROKERS. The monitor shows it under its app id.
"""

from __future__ import annotations

import os
from typing import Any

import faust

from processors.brokers import broker_url

app = faust.App(
    "streamgauge-counts",
    broker=broker_url(os.environ.get("STREAMGAUGE_BROKERS") or "127.0.0.1:9092"),
    topic_partitions=4,  # as many as the topic read has: a table is kept by partition
    web_enabled=False,
)
records = app.topic("readings", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
count_of = app.Table("counts", default=int)


@app.agent(records)
async def count(stream: Any) -> None:
    """Count the records of each key."""
    async for event in stream.events():
        key = (event.key or b"").decode(errors="replace")
        count_of[key] += 1
