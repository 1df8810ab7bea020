"""The Faust app that ships with streamgauge: averages of sensor readings, a window at a time.

    readings ── parse ── filter ── average per sensor and window (table) ── readings-averages
                  └─ readings-dlq

Faust's group id is the app id, so the monitor sees this app like every consumer group. The environment says where
and what: STREAMGAUGE_BROKERS (HOST:PORT, several separated by commas), STREAMGAUGE_APP_ID, STREAMGAUGE_TOPIC (the
other topics are called after it).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitor.errors import UsageError
from processors import brokers
from processors.agents import readings
from processors.batches import BatchApp
from processors.brokers import broker_url

PARTITIONS = 4
"""Partitions of the topic where it does not exist yet and is made here."""


@dataclass(frozen=True, slots=True)
class AppSettings:
    """Where the app reads and what it is called."""

    bootstrap_servers: str = "127.0.0.1:9092"
    app_id: str = "streamgauge-readings"
    topic: str = "readings"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> AppSettings:
        """Return the settings that the environment gives, the defaults where it gives none."""
        default = cls()
        return cls(
            environ.get("STREAMGAUGE_BROKERS") or default.bootstrap_servers,
            environ.get("STREAMGAUGE_APP_ID") or default.app_id,
            environ.get("STREAMGAUGE_TOPIC") or default.topic,
        )


class ReadingsApp(BatchApp):
    """The app; before it starts it takes over the number of partitions of its topic.

    A table's changelog must have as many partitions as the topic it is filled from; Faust makes eight by default. Its
    consumer is ours, as Faust's can drop the first records after a start: those fetched before its buffers are cleared.
    """

    def __init__(self, settings: AppSettings, **options: Any) -> None:
        super().__init__(
            settings.app_id,
            broker=broker_url(settings.bootstrap_servers),
            store="memory://",
            web_enabled=False,  # its web server has no log-in
            datadir=brokers.data_folder(settings.app_id),
            **options,
        )
        self.source = settings.topic
        self.counts = readings.attach(
            self,
            topic=settings.topic,
            results=f"{settings.topic}-averages",
            dead_letters=f"{settings.topic}-dlq",
        )

    async def on_first_start(self) -> None:
        """Take over the topic's partitions.

        Raises:
            UnreachableError: no broker answers.
            UsageError: the topic was given more partitions since the table's changelog was made.
        """
        found = await brokers.topics(self)
        partitions = found.get(self.source, PARTITIONS)
        for table in self.tables.values():
            changelog = table.changelog_topic_name
            if found.get(changelog, partitions) != partitions:
                problem = (
                    f"topic {self.source} has {partitions} partitions, but {changelog} has {found[changelog]}: the "
                    "averages kept so far cannot be used any more; start under another id (STREAMGAUGE_APP_ID)"
                )
                raise UsageError(problem)
        self.conf.topic_partitions = partitions
        await super().on_first_start()


app = ReadingsApp(AppSettings.from_environment())
