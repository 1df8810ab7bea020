"""One line in a Faust app that lets streamgauge see its workers: what they do, how long it takes, what holds them up.

    import streamgauge.faust

    app = faust.App("orders", broker="kafka://localhost")
    streamgauge.faust.install(app)

Needs nothing beyond Faust itself and imports nothing else of streamgauge's, so this file may be copied into a project.
Every few seconds each worker writes one JSON record to the topic ``streamgauge.faust``, under the key APP/WORKER. Lag
is not in it: the monitor asks the brokers, as a worker knows nothing of the partitions that it does not get.

**It does no harm.** Reports are made in a task of their own, one at a time; one that cannot be sent within
``SEND_SECONDS`` is dropped and counted. They have a producer of their own: through the app's, a report that cannot be
delivered would hold up every commit, as Faust flushes its producer before it commits. The topic is never created here.
Whatever goes wrong in here is logged once, and the app runs on.

**The record**, schema 1; counts are since the worker started, times are seconds since the epoch, ages and durations
are seconds, and null means unknown:

    {"schema": 1, "app": "orders", "worker": "host-4711", "at": 1795000000.1, "started_at": 1794999000.0,
     "interval_seconds": 5.0, "state": "running", "dropped_reports": 0, "bounds_seconds": [0.001, …, 60.0],
     "agents": [{"agent": "take", "topic": "orders", "events": 10, "errors": 1, "decode_errors": 0, "seconds": 0.2,
                 "durations": [9, 1, …], "buffered": 3, "buffer_size": 4096}],
     "commits": {"count": 4, "age_seconds": 1.2, "waiting_seconds": 0.4},
     "buffer_full": {"orders": 2},
     "rebalances": {"count": 1, "seconds": 3.5, "last_seconds": 3.5, "running_seconds": null},
     "recovery": {"running": false, "remaining": 0}, "tables": [{"table": "totals", "entries": 17}],
     "assigned": {"orders": [0, 1]}, "outcomes": {"averaged": 9, "late": 1}}

``state`` is starting, rebalancing, recovering, running or stopped. ``events`` are records that an agent is done with,
``errors`` those of them that it raised on, ``decode_errors`` those that Faust could not decode and skipped.
``durations`` counts events by the first bound that their processing time does not exceed, and at last those beyond all.
``buffered`` are the records that wait for the agent, null with any of its buffers unknown. ``waiting_seconds`` is how
long the oldest processed record has been waiting for a commit of its partition, 0 if none is; ``age_seconds`` the time
since the last commit that went through. A rebalance lasts until records flow again, recovery of tables included;
``running_seconds`` is the age of one that still goes on. ``outcomes`` is how many records came to what, in words of the
app: what ``Reporter.outcomes`` returns, empty where it is not set.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from time import monotonic, perf_counter
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from aiokafka.protocol.metadata import MetadataRequest
from faust.channels import Channel
from faust.exceptions import DecodeError
from faust.sensors import Sensor
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

__all__ = ["Reporter", "install", "reporter"]

log = logging.getLogger(__name__)

SCHEMA = 1
TOPIC = "streamgauge.faust"
INTERVAL_SECONDS = 5.0

SEND_SECONDS = 4.0
"""How long one report may take to be acknowledged before it is dropped."""

LOOK_SECONDS = 30.0
"""How often the brokers are asked for a topic that is not there yet."""

STOP_SECONDS = 2.0
"""How long the last report may hold up an app that stops."""

BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Upper bounds of the processing time histogram: from a dictionary update to a call of a slow service."""

DEFAULT_PORT = 9092


def install(
    app: faust.App, *, topic: str = TOPIC, interval_seconds: float = INTERVAL_SECONDS, worker: str | None = None
) -> Reporter:
    """Let the workers of an app report about themselves; call it once, before the app starts.

    Args:
        app: The Faust app.
        topic: Where reports go; the monitor reads the default.
        interval_seconds: Time from one report to the next.
        worker: What this worker is called; the host's name and the process id by default.
    """
    known = reporter(app)
    if known is not None:
        return known
    made = Reporter(app, topic, interval_seconds, worker or f"{socket.gethostname()}-{os.getpid()}")
    app.sensors.add(made)
    _see_decode_errors()
    return made


def reporter(app: faust.App) -> Reporter | None:
    """Return what was installed in an app, None if nothing was."""
    return next((each for each in app.sensors if isinstance(each, Reporter)), None)


class Counted:
    """What became of the records of one topic in one agent."""

    __slots__ = ("decode_errors", "durations", "errors", "events", "seconds")

    def __init__(self) -> None:
        self.events = 0
        self.errors = 0
        self.decode_errors = 0
        self.seconds = 0.0
        self.durations = [0] * (len(BOUNDS_SECONDS) + 1)


class Reporter(Sensor):
    """A Faust sensor that counts in plain integers, and a task that reports them.

    What Faust calls for each record takes some hundred nanoseconds and touches nothing but this object. ``outcomes``
    may be set to what returns how many records came to what since the worker started, by a word of the app's own.
    """

    def __init__(
        self,
        app: faust.App,
        topic: str,
        interval_seconds: float,
        worker: str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self.worker = worker
        self.outcomes: Callable[[], Mapping[str, int]] | None = None
        self._app = app
        self._interval_seconds = interval_seconds
        self._started_at = time.time()
        self._state = "starting"
        self._counted: dict[tuple[str, str], Counted] = {}
        self._cells: dict[tuple[Any, str], Counted] = {}
        self._buffer_full: dict[str, int] = {}
        self._undecoded: dict[Any, int] = {}
        self._clock = clock
        self._commits = _Commits(clock)
        self._rebalances = _Rebalances(clock)
        self._sender = _Sender(app, topic)
        self._reporting: asyncio.Task[None] | None = None
        self._complained: set[str] = set()

    # --- for processors that take whole batches ------------------------------------------------------

    def note_batch(self, agent: str, topic: str, records: int, seconds: float, errors: int = 0) -> None:
        """Count records that went past Faust's streams: ``seconds`` is what all of them took together."""
        if records <= 0:
            return
        cell = self._cell(agent, topic)
        cell.events += records
        cell.errors += errors
        cell.seconds += seconds
        cell.durations[bisect_left(BOUNDS_SECONDS, seconds / records)] += records

    def note_errors(self, agent: str, topic: str, errors: int) -> None:
        """Count records that an agent dealt with as failures without raising, as by sending them to dead letters."""
        if errors > 0:
            self._cell(agent, topic).errors += errors

    # --- called by Faust ------------------------------------------------------------------------------

    def on_stream_event_in(self, tp: Any, offset: int, stream: Any, event: Any) -> Any:
        """Remember when a record was handed to an agent."""
        return perf_counter()

    def on_stream_event_out(self, tp: Any, offset: int, stream: Any, event: Any, state: Any = None) -> None:
        """Count a record that an agent is done with."""
        if state is None:
            return  # handed over before this was installed
        seconds = perf_counter() - state
        try:
            cell = self._cells[stream, tp[0]]
        except KeyError:
            cell = self._cells[stream, tp[0]] = self._cell(_agent_of(stream), tp[0])
        cell.events += 1
        cell.seconds += seconds
        cell.durations[bisect_left(BOUNDS_SECONDS, seconds)] += 1

    def on_message_out(self, tp: Any, offset: int, message: Any) -> None:
        """Note that a record waits for a commit, if it is the first of its partition."""
        waiting = self._commits.waiting
        if tp not in waiting:
            waiting[tp] = self._clock()

    def on_topic_buffer_full(self, tp: Any) -> None:
        """Count that a partition had to wait for its agents."""
        self._buffer_full[tp.topic] = self._buffer_full.get(tp.topic, 0) + 1

    def on_commit_initiated(self, consumer: Any) -> Any:
        """Note what a commit may cover."""
        self._guarded("commits", self._watch_commits)
        self._commits.begin()

    def on_rebalance_start(self, app: Any) -> dict[str, Any]:
        """Note that records have stopped to flow."""
        self._rebalances.begin()
        return {}

    def on_rebalance_end(self, app: Any, state: Any) -> None:
        """Note that records flow again, with tables recovered."""
        self._rebalances.end()
        self._commits.forget()  # what was not committed before comes again, to whoever has it now

    async def on_start(self) -> None:
        """Start reporting, before the app has any partitions."""
        self._guarded("errors", self._watch_agents)
        self._reporting = asyncio.get_running_loop().create_task(self._report_for_ever())

    async def on_stop(self) -> None:
        """Report for the last time."""
        if self._reporting is None:
            return
        self._reporting.cancel()
        await asyncio.wait({self._reporting}, timeout=STOP_SECONDS)
        self._reporting, self._state = None, "stopped"
        ending = asyncio.get_running_loop().create_task(self._end())
        await asyncio.wait({ending}, timeout=STOP_SECONDS)
        ending.cancel()

    # --- reporting ------------------------------------------------------------------------------------

    async def _report_for_ever(self) -> None:
        while True:
            try:
                self._cells.clear()  # streams come and go with rebalances
                self._watch_agents()
                await self._sender.send(self._key, self.report())
            except Exception as exc:  # noqa: BLE001 - an observer leaves the observed alone
                self._complain("reporting", exc)
            await asyncio.sleep(self._interval_seconds)

    async def _end(self) -> None:
        try:
            await self._sender.send(self._key, self.report())
            await self._sender.close()
        except Exception as exc:  # noqa: BLE001 - as above
            self._complain("the last report", exc)

    @property
    def _key(self) -> str:
        return f"{self._app.conf.id}/{self.worker}"

    def report(self) -> dict[str, Any]:
        """Return the record, as the module spells it out."""
        recovery = self._guarded("recovery", self._recovery) or {"running": None, "remaining": None}
        return {
            "schema": SCHEMA,
            "app": self._app.conf.id,
            "worker": self.worker,
            "at": time.time(),
            "started_at": self._started_at,
            "interval_seconds": self._interval_seconds,
            "state": self._current_state(recovering=bool(recovery["running"])),
            "dropped_reports": self._sender.dropped,
            "bounds_seconds": BOUNDS_SECONDS,
            "agents": self._agents(),
            "commits": self._commits.told(),
            "buffer_full": dict(self._buffer_full),
            "rebalances": self._rebalances.told(),
            "recovery": recovery,
            "tables": self._guarded("tables", self._tables) or [],
            "assigned": self._guarded("assignment", self._assigned),
            "outcomes": self._guarded("outcomes", self._outcomes) or {},
        }

    def _current_state(self, *, recovering: bool) -> str:
        if self._state == "stopped":
            return self._state
        if self._rebalances.began is not None:
            return "recovering" if recovering else "rebalancing"
        return "running" if self._rebalances.count else "starting"

    def _agents(self) -> list[dict[str, Any]]:
        buffers = self._guarded("buffers", self._buffers) or {}
        return [
            {
                "agent": agent,
                "topic": topic,
                "events": each.events,
                "errors": each.errors,
                "decode_errors": each.decode_errors,
                "seconds": each.seconds,
                "durations": list(each.durations),
                "buffered": buffers.get(agent, (None, None))[0],
                "buffer_size": buffers.get(agent, (None, None))[1],
            }
            for (agent, topic), each in list(self._counted.items())
        ]

    def _buffers(self) -> dict[str, tuple[int, int]]:
        """Return how many records wait for each agent, and how many may.

        An agent that raised leaves its old buffer behind, still being filled; only those that somebody empties count.
        """
        found = {}
        for name, agent in list(self._app.agents.items()):
            actors = [each for each in list(agent._actors) if _is_alive(each)]  # noqa: SLF001 - no public name
            queues = {id(each.stream.channel.queue): each.stream.channel.queue for each in actors}.values()
            if queues:
                found[name] = (sum(each.qsize() for each in queues), sum(each.maxsize for each in queues))
        return found

    def _recovery(self) -> dict[str, Any]:
        tables: Any = self._app.tables
        running = bool(self._app.in_recovery)
        remaining = max(0, tables.recovery.active_remaining_total()) if running else 0
        return {"running": running, "remaining": remaining}

    def _tables(self) -> list[dict[str, Any]]:
        return [{"table": name, "entries": _entries(table)} for name, table in list(self._app.tables.items())]

    def _outcomes(self) -> dict[str, int]:
        return {} if self.outcomes is None else dict(self.outcomes())

    def _assigned(self) -> dict[str, list[int]]:
        consumer: Any = getattr(self._app, "_consumer", None)  # the public name would make one
        assigned: dict[str, list[int]] = {}
        if consumer is not None and self._rebalances.count:  # it raises before its first assignment
            for topic, partition in sorted(consumer.assignment()):
                assigned.setdefault(topic, []).append(partition)
        return assigned

    # --- what Faust has no hook for -------------------------------------------------------------------

    def note_decode_error(self, message: Any) -> None:
        """Count a record that Faust could not decode, for each agent that reads its topic.

        Faust says so once for every channel that the record would have gone to.
        """
        if self._undecoded.get(message.tp) == message.offset:
            return
        self._undecoded[message.tp] = message.offset
        readers = [name for name, agent in list(self._app.agents.items()) if message.topic in _topics_of(agent)]
        for agent in readers or [""]:
            self._cell(agent, message.topic).decode_errors += 1

    def _watch_agents(self) -> None:
        """Hear of what agents raise: Faust tells only the agent's own ``on_error``."""
        for name, agent in list(self._app.agents.items()):
            before = agent._on_error  # noqa: SLF001 - it has no public name
            if getattr(before, "streamgauge", None) is None:
                agent._on_error = self._hearing(name, before)  # noqa: SLF001

    def _hearing(self, name: str, before: Any) -> Any:
        async def on_error(agent: Any, exc: BaseException) -> None:
            if not isinstance(exc, DecodeError):  # that was counted where it happened; Faust throws it into the agent
                self._guarded("errors", lambda: self._note_error(name, agent))
            if before is not None:
                await before(agent, exc)

        on_error.streamgauge = self  # type: ignore[attr-defined]
        return on_error

    def _note_error(self, name: str, agent: Any) -> None:
        event = faust.current_event()
        topics = [event.message.topic] if event is not None else sorted(_topics_of(agent))[:1]
        self._cell(name, topics[0] if topics else "").errors += 1

    def _watch_commits(self) -> None:
        """Hear of commits that went through: the sensor's own hook is called for failed ones as well."""
        tables: Any = self._app.tables
        before = tables.on_commit
        if getattr(before, "streamgauge", None) is not None:
            return

        def on_commit(offsets: Any) -> None:
            self._commits.done(offsets)
            before(offsets)

        on_commit.streamgauge = self  # type: ignore[attr-defined]
        tables.on_commit = on_commit

    # --- helpers --------------------------------------------------------------------------------------

    def _cell(self, agent: str, topic: str) -> Counted:
        cell = self._counted.get((agent, topic))
        if cell is None:
            cell = self._counted[agent, topic] = Counted()
        return cell

    def _guarded(self, what: str, read: Any) -> Any:
        """Return what something of Faust's says, None if it cannot be read: another release may have moved it."""
        try:
            return read()
        except Exception as exc:  # noqa: BLE001 - an observer leaves the observed alone
            self._complain(what, exc)
            return None

    def _complain(self, what: str, exc: BaseException) -> None:
        if what not in self._complained:
            self._complained.add(what)
            log.warning("streamgauge: %s cannot be observed: %s: %s (said once)", what, type(exc).__name__, exc)


class _Commits:
    """Since when records of each partition wait for a commit; commits come from the consumer's thread as well."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.waiting: dict[Any, float] = {}
        self._before: dict[Any, float] = {}
        self._count = 0
        self._last: float | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A commit covers what was processed before it begins; what comes later waits for the next one."""
        with self._lock:
            new, self.waiting = self.waiting, {}
            self._before = {**new, **self._before}

    def done(self, offsets: Any) -> None:
        """These partitions were committed."""
        with self._lock:
            self._count += 1
            self._last = self._clock()
            for tp in offsets:
                self._before.pop(tp, None)

    def told(self) -> dict[str, Any]:
        """Return what is reported."""
        with self._lock:
            since = min((*self._before.values(), *list(self.waiting.values())), default=None)
            now = self._clock()
            return {
                "count": self._count,
                "age_seconds": None if self._last is None else now - self._last,
                "waiting_seconds": 0.0 if since is None else now - since,
            }

    def forget(self) -> None:
        """After a rebalance others commit for partitions that went."""
        with self._lock:
            self._before, self.waiting = {}, {}


class _Rebalances:
    """How many, and how long they took; one that begins within another goes on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.count = 0
        self.began: float | None = None
        self._seconds = 0.0
        self._last: float | None = None

    def begin(self) -> None:
        """Records have stopped to flow."""
        self.count += 1
        if self.began is None:
            self.began = self._clock()

    def end(self) -> None:
        """Records flow again."""
        if self.began is not None:
            self._last = self._clock() - self.began
            self._seconds += self._last
            self.began = None

    def told(self) -> dict[str, Any]:
        """Return what is reported."""
        running = None if self.began is None else self._clock() - self.began
        return {
            "count": self.count,
            "seconds": self._seconds + (running or 0.0),
            "last_seconds": self._last,
            "running_seconds": running,
        }


class _Sender:
    """Sends reports, one at a time, to a topic that it never creates."""

    def __init__(self, app: faust.App, topic: str) -> None:
        self.dropped = 0
        self._app = app
        self._topic = topic
        self._producer: AIOKafkaProducer | None = None
        self._is_there = False
        self._look_at = 0.0

    async def send(self, key: str, record: dict[str, Any]) -> None:
        """Send a record, or drop and count it."""
        self.dropped += 1
        value = json.dumps(record, separators=(",", ":")).encode()
        if await asyncio.wait_for(self._sent(key.encode(), value), SEND_SECONDS):
            self.dropped -= 1

    async def close(self) -> None:
        """Close the connections."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def _sent(self, key: bytes, value: bytes) -> bool:
        producer = self._producer or await self._started()
        if not self._is_there and monotonic() >= self._look_at:
            self._look_at = monotonic() + LOOK_SECONDS
            self._is_there = await self._exists(producer)
        if self._is_there:
            await producer.send_and_wait(self._topic, value, key)
        return self._is_there

    async def _started(self) -> AIOKafkaProducer:
        producer = self._new_producer()
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        return producer

    async def _exists(self, producer: AIOKafkaProducer) -> bool:
        """Ask for the topic without having it created, which sending to it would do where brokers allow it."""
        client = producer.client
        question = MetadataRequest([self._topic], allow_auto_topic_creation=False)
        answer = await client.send(client.get_random_node(), question)
        if any(error == 0 for error, *_ in answer.topics):
            return True
        log.info("streamgauge: nothing is reported while there is no topic %s", self._topic)
        return False

    def _new_producer(self) -> AIOKafkaProducer:
        conf = self._app.conf
        login = credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
        return AIOKafkaProducer(
            bootstrap_servers=server_list(conf.broker_producer or conf.broker, DEFAULT_PORT),
            client_id=f"{conf.broker_client_id}-streamgauge",
            acks=1,  # a report that is lost is followed by the next
            request_timeout_ms=int(SEND_SECONDS * 1000),
            **login,
        )


def _agent_of(stream: Any) -> str:
    """Return the name of the agent whose stream it is: Faust keeps it as the prefix of its topics."""
    return str(stream.get_root_stream().prefix or "")


def _is_alive(actor: Any) -> bool:
    return actor.actor_task is not None and not actor.actor_task.done()


def _topics_of(agent: Any) -> set[str]:
    channel = agent.channel
    return set(getattr(channel, "topics", None) or ())


def _entries(table: Any) -> int | None:
    """Return how many entries a table holds; an estimate for RocksDB, None where counting would read all of it."""
    data = table.data
    held = getattr(data, "data", None)
    if isinstance(held, dict):
        return len(held)
    databases: Any = getattr(data, "_dbs", None)
    try:
        return sum(int(each.property_int_value("rocksdb.estimate-num-keys") or 0) for each in databases.values())
    except (AttributeError, TypeError, ValueError):
        return None


def _see_decode_errors() -> None:
    """Hear of records that cannot be decoded: Faust skips them, and calls nothing but a method that does nothing.

    The method is that of all channels of the process; those of apps without a reporter go on as before.
    """
    if getattr(Channel.on_decode_error, "streamgauge", False):
        return
    before = Channel.on_decode_error

    async def on_decode_error(self: Any, exc: Exception, message: Any) -> None:
        found = reporter(self.app)
        if found is not None:
            found._guarded("decode errors", lambda: found.note_decode_error(message))  # noqa: SLF001
        await before(self, exc, message)

    on_decode_error.streamgauge = True  # type: ignore[attr-defined]
    Channel.on_decode_error = on_decode_error  # type: ignore[method-assign]
