"""A job as a Faust app: an agent for each of its parts.

    app = JobApp(averages)

and ``streamgauge worker --app MODULE:app`` runs it. Brokers come from STREAMGAUGE_BROKERS unless they are given; the
consumer group is the job's name.

Faust flushes what was sent before it commits, so a crash repeats outputs rather than losing them. Windows are kept
in memory: those of partitions that stay with a worker outlive a rebalance, those that were open when a worker ended
are gone, and what is counted anew of them is marked as partial.
"""

from __future__ import annotations

import os
from typing import Any

import faust
from mode.supervisors import CrashingSupervisor

from processors import brokers
from processors.pipeline import Job
from processors.running import Counts, Part, Record, parts
from processors.windows import Result

PARTITIONS = 4
"""Partitions of the source where it does not exist yet and is made here."""

RAW: dict[str, Any] = {
    "key_type": bytes,
    "value_type": bytes,
    "key_serializer": "raw",
    "value_serializer": "raw",
    "allow_empty": True,
}
"""Topics of bytes: what Faust cannot decode it skips; what a job cannot, it sets aside."""


class JobApp(faust.App):
    """A Faust app that does one job; options are Faust's."""

    def __init__(self, job: Job, bootstrap_servers: str | None = None, **options: Any) -> None:
        servers = bootstrap_servers or os.environ.get("STREAMGAUGE_BROKERS") or "127.0.0.1:9092"
        super().__init__(
            job.name,
            broker=brokers.broker_url(servers),
            **{"store": "memory://", "web_enabled": False, "datadir": brokers.data_folder(job.name), **options},
        )
        self.job = job
        self._parts = parts(job, partitions=PARTITIONS)
        written = {job.sink, job.dead_letters, job.late} - {None}
        self._written = {name: self.topic(name, **RAW) for name in sorted(map(str, written))}
        for number, part in enumerate(self._parts):
            read = self.topic(part.topic, internal=part.topic != job.source, **RAW)
            if number:
                self._written[part.topic] = read
            self._attach(number, read)
        self.on_partitions_assigned.connect(self._keep_assigned)

    @property
    def counts(self) -> Counts:
        """Return what became of the records this worker has read."""
        return self._parts[0].counts

    def early(self) -> list[Result]:
        """Return what open windows of this worker hold so far."""
        return [result for part in self._parts for result in part.early()]

    async def on_first_start(self) -> None:
        """Take over the number of partitions of the source.

        Raises:
            UnreachableError: no broker answers.
        """
        partitions = (await brokers.topics(self)).get(self.job.source, PARTITIONS)
        self.conf.topic_partitions = partitions
        self._parts = parts(self.job, partitions=partitions)
        await super().on_first_start()

    def _attach(self, number: int, topic: Any) -> None:
        name = self.job.name if number == 0 else f"{self.job.name}-by-key"

        # Faust would otherwise start a failing agent anew behind the record, for ever: records lost, and looking well.
        @self.agent(topic, name=name, supervisor_strategy=CrashingSupervisor)
        async def take(stream: Any) -> None:
            part = self._parts[number]
            for written in self._written.values():
                await written.maybe_declare()
            async for event in stream.events():
                await self._process(part, event.message)

    async def _process(self, part: Part, message: Any) -> None:
        for output in part.process(record_of(message)):
            await self._written[output.topic].send(
                key=output.key, value=output.value, headers=list(output.headers), timestamp=output.timestamp
            )
        part.check()

    async def _keep_assigned(self, _app: Any, /, *args: Any, **_: Any) -> None:
        places = list(args[0])
        for part in self._parts:
            part.keep(partition for topic, partition in places if topic == part.topic)


def record_of(message: Any) -> Record:
    """Return a record of what Faust has."""
    headers = message.headers.items() if isinstance(message.headers, dict) else message.headers or ()
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.value,
        tuple((name, value or b"") for name, value in headers),
    )
