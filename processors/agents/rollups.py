"""The Faust app that is the monitor's long memory: samples of lag rolled up per consumer, by minute, hour and day.

    streamgauge.lag ── add to its windows (table) ── streamgauge.rollups

    $ streamgauge worker --app processors.agents.rollups:app --bootstrap-servers HOST:PORT

The monitor writes the samples and reads the rollups, where these topics exist; ``streamgauge serve --create-topics``
makes them. What is due is acknowledged before the state that has it behind itself is written, so that a crash repeats
rollups, with the same key and value, and loses none.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Any

import faust
from mode.supervisors import CrashingSupervisor

from monitor.errors import UsageError
from monitor.records import LAG_TOPIC, ROLLUPS_TOPIC, RefusedError, read_sample
from processors import brokers
from processors.agents.rollup_windows import add

log = logging.getLogger(__name__)

APP_ID = "streamgauge-rollups"


@dataclass(slots=True)
class Counts:
    """What became of the samples this worker has read."""

    added: int = 0
    bad: int = 0
    written: int = 0

    def __str__(self) -> str:
        return f"{self.added} samples rolled up, {self.bad} that were none, {self.written} rollups written"


class RollupsApp(faust.App):
    """The app; options are Faust's."""

    def __init__(self, bootstrap_servers: str | None = None, app_id: str = APP_ID, **options: Any) -> None:
        servers = bootstrap_servers or os.environ.get("STREAMGAUGE_BROKERS") or "127.0.0.1:9092"
        super().__init__(
            app_id,
            broker=brokers.broker_url(servers),
            **{"store": "memory://", "web_enabled": False, "datadir": brokers.data_folder(app_id), **options},
        )
        self.counts = Counts()
        raw: dict[str, Any] = {"key_serializer": "raw", "value_serializer": "raw", "allow_empty": True}
        samples = self.topic(LAG_TOPIC, key_type=bytes, value_type=bytes, **raw)
        self._rollups = self.topic(ROLLUPS_TOPIC, key_type=bytes, value_type=bytes, **raw)
        self._windows: Any = self.Table("windows", default=dict)

        # Faust would otherwise start a failing agent anew behind the record, for ever.
        @self.agent(samples, name="rollups", supervisor_strategy=CrashingSupervisor)
        async def roll_up(stream: Any) -> None:
            async for event in stream.events():
                await self._take(event.value, event.message.offset)

    async def on_first_start(self) -> None:
        """Take over the number of partitions of the samples.

        Raises:
            UnreachableError: no broker answers.
            UsageError: there are no such topics, or there are more partitions than there were.
        """
        found = await brokers.topics(self)
        missing = [name for name in (LAG_TOPIC, ROLLUPS_TOPIC) if name not in found]
        if missing:
            problem = (
                f"there is no topic {' and no topic '.join(missing)}: make them with streamgauge serve --create-topics"
            )
            raise UsageError(problem)
        changelog = self._windows.changelog_topic_name
        if found.get(changelog, found[LAG_TOPIC]) != found[LAG_TOPIC]:
            problem = (
                f"topic {LAG_TOPIC} has {found[LAG_TOPIC]} partitions, but {changelog} has {found[changelog]}: delete "
                "the latter; the windows that are open are begun anew"
            )
            raise UsageError(problem)
        self.conf.topic_partitions = found[LAG_TOPIC]
        await super().on_first_start()

    async def _take(self, value: bytes | None, offset: int) -> None:
        try:
            sample = read_sample(value)
        except RefusedError as exc:
            self.counts.bad += 1
            log.warning("no sample", extra={"reason": str(exc), "offset": offset})
            return
        state, due = add(self._windows[sample.key], offset, sample)
        sent = [
            await self._rollups.send(key=key.encode(), value=None if rollup is None else rollup.to_json())
            for key, rollup in due
        ]
        await asyncio.gather(*sent)
        self.counts.written += sum(rollup is not None for _, rollup in due)
        self.counts.added += 1
        self._windows[sample.key] = state


app = RollupsApp()
