"""Writing samples to ``streamgauge.lag``: each cycle's together, acknowledged or given up within a time.

The producer belongs to it alone. What cannot be written is a failure and is not kept: the next cycle has newer ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from monitor.model import Failure
from monitor.records import LAG_TOPIC, Sample


class LagWriter:
    """Writes to one cluster; ``options`` are where it is and how to log in, as aiokafka's arguments."""

    def __init__(self, options: Mapping[str, Any], timeout_seconds: float) -> None:
        self._options = options
        self._timeout_seconds = timeout_seconds
        self._producer: AIOKafkaProducer | None = None

    async def write(self, samples: Iterable[Sample]) -> tuple[Failure, ...]:
        """Write samples and return what failed."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                producer = self._producer or await self._started()
                sent = [await producer.send(LAG_TOPIC, each.to_json(), each.key.encode()) for each in samples]
                await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as exc:
            return (Failure("topic", LAG_TOPIC, type(exc).__name__, " ".join(str(exc).split())),)
        return ()

    async def close(self) -> None:
        """Close the connections."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def _started(self) -> AIOKafkaProducer:
        # A sample that is lost is followed by the next. gzip: what Python can open by itself, for readers of the topic.
        producer = AIOKafkaProducer(**self._options, acks=1, compression_type="gzip", linger_ms=50)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return producer
