"""What Spark tells about its streaming queries, sent on as it is told: one line in the job.

    import streamgauge.spark
    streamgauge.spark.attach(spark, bootstrap_servers="kafka-1:9092")

One file, standard library only, so that it can be given to spark-submit as ``--py-files``. Events are sent by a Kafka
client that the process has anyway (confluent-kafka, kafka-python, or the one in the JVM that the job's own Kafka source
brought), by HTTP, or by a function of yours.

**The query comes first.** A listener that is slow makes Spark drop events of every listener, and one that sleeps in
``onQueryStarted`` delays ``start()``. So a callback does no more than to put the event's text into a bounded queue; a
thread of its own sends it. A full queue drops its oldest batches and counts them. Whatever goes wrong here is logged
once a kind, by the logger ``streamgauge.spark``, and never raised into the job.

**The cheap path.** pyspark's own listener reads every field of an event through py4j, some hundreds of round trips,
before it calls anybody. This one implements the Java interface behind it and asks for the event's JSON: two of them.
That interface is private, so where it is not as expected the public class is used instead.

**On the wire**: one JSON object an event. In Kafka the key is the query id (for ``alive`` and ``ended`` the app's), by
HTTP they are lines of a POST (``application/x-ndjson``)::

    {"v": 1, "kind": "progress", "at": 1795000000.123, "app": "app-1", "instance": "5f1c22ab", "seq": 17, "event": {…}}

``kind``     ``started``, ``progress``, ``idle``, ``terminated``: ``event`` is Spark's own JSON of it, unchanged.
             ``alive``: every ten seconds and when a query is new, so that silence means something:
             ``{"spark", "events", "dropped": {"queue", "size", "refused"}, "bus_dropped", "reattached", "queries":
             [{"id", "runId", "name", "trigger", "checkpoint", "active", "message"}]}``; null where it is not known.
             ``ended``: the last words, as ``alive``, with ``reason``.
``at``       when the event came, in seconds since the epoch
``instance`` one attachment in one process; ``seq`` counts its messages from 1: a gap was lost on the way, a repetition
             is one that was sent again
"""

# ruff: noqa: SLF001 (what Spark tells only by private names is asked for with care: without them less is known)

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter, deque
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Sequence, Tuple  # noqa: UP035 (Python 3.8 runs this)

log = logging.getLogger("streamgauge.spark")

VERSION = 1
TOPIC = "streamgauge.spark"
STARTED, PROGRESS, IDLE, TERMINATED, ALIVE, ENDED = "started", "progress", "idle", "terminated", "alive", "ended"

LARGEST_BYTES = 900_000
"""Of a message; Kafka's message.max.bytes is 1,048,588 by default, with its overhead."""

SEND_SECONDS = 10.0
"""How long one attempt to send may take."""

ANSWER_SECONDS = 2.0
"""How long a sign of life waits for what the session says. Spark Connect tries again for minutes when it is cut off."""

LONGEST_PAUSE_SECONDS = 30.0
"""Between attempts, while what is sent to does not answer."""

TOGETHER = 100
"""Messages that are sent in one go."""

REMOTE_ERRORS = 500
"""HTTP's first status code of what the other side may have mended by the next attempt."""

MOST_RUNS = 1000
"""Runs that are kept in mind, should their ends never be told."""

_UNKNOWN = object()

Message = Tuple[bytes, bytes]  # noqa: UP006
"""Key and value."""

Send = Callable[[Sequence[Message]], None]
"""Sends messages or raises: RefusedError for what will never be taken, anything else for what may be tried again."""


class RefusedError(Exception):
    """What it was sent to does not want these messages, now or later."""


class Event(NamedTuple):
    """An event as it came: ``text`` is its JSON."""

    kind: str
    at: float
    text: str


# --- what the job calls -----------------------------------------------------------------------------


_attachments: list[Attachment] = []
_lock = threading.Lock()


def attach(
    spark: Any,
    *,
    bootstrap_servers: str | None = None,
    url: str | None = None,
    send: Send | None = None,
    topic: str = TOPIC,
    client: str | None = None,
    properties: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    alive_seconds: float = 10.0,
    flush_seconds: float = 3.0,
    queue_events: int = 1000,
    queue_bytes: int = 16_000_000,
) -> Attachment:
    """Send what a Spark session tells about its streaming queries, from now on.

    Listeners belong to one session: attach each session that has queries (``attachment.add(other)``). Attaching a
    session again replaces what was attached to it before. With Spark Connect the listener is put back when the
    connection had broken.

    Without any of ``bootstrap_servers``, ``url`` and ``send`` the destination is that of Spark's configuration
    ``spark.streamgauge.bootstrapServers`` or ``spark.streamgauge.url``, else of the environment's STREAMGAUGE_BROKERS
    or STREAMGAUGE_URL. If there is none, a line is logged and nothing is attached: the job runs all the same.

    Args:
        spark: The session, classic or Connect.
        bootstrap_servers: Brokers to send to, HOST:PORT, several separated by commas.
        url: Where to POST to instead, as lines of JSON.
        send: A function that sends messages instead, called from a thread of its own; it raises if it could not.
        topic: The Kafka topic. It is not created.
        client: ``confluent``, ``kafka-python`` or ``jvm``; None: the first of them that there is.
        properties: More settings for the Kafka client (log-in, TLS), as that client calls them.
        headers: Of the POST, such as Authorization.
        alive_seconds: Seconds between signs of life.
        flush_seconds: How long the end of the process may be held up for what is still to be sent.
        queue_events: How many events wait at most while nothing can be sent.
        queue_bytes: How many bytes of them.

    Raises:
        ValueError: more than one destination is given, or a client that is not known here.
    """
    if sum(each is not None for each in (bootstrap_servers, url, send)) > 1:
        raise ValueError("attach: give one of bootstrap_servers, url and send")
    if client not in (None, *_KAFKA_CLIENTS):
        raise ValueError(f"attach: client {client!r} is none of {', '.join(_KAFKA_CLIENTS)}")  # noqa: EM102
    if send is None and bootstrap_servers is None and url is None:
        bootstrap_servers, url = _configured(spark)
    make_send: Callable[[], Send] | None = None
    if send is not None:
        given = send
        make_send = lambda: given  # noqa: E731
    elif url is not None:
        address = url
        make_send = lambda: HttpSend(address, headers or {})  # noqa: E731
    elif bootstrap_servers is not None:
        servers = bootstrap_servers
        make_send = lambda: kafka_send(servers, topic, client, properties or {}, _session(spark).jvm())  # noqa: E731
    attachment = Attachment(make_send, alive_seconds, flush_seconds, Waiting(queue_events, queue_bytes))
    if make_send is None:
        log.warning("not attached: no destination: give bootstrap_servers or url, or set STREAMGAUGE_BROKERS")
        return attachment
    return attachment.add(spark)


def _configured(spark: Any) -> tuple[str | None, str | None]:
    """Return the brokers or the URL that Spark's configuration or the environment names."""
    for brokers, url in (
        (_conf(spark, "spark.streamgauge.bootstrapServers"), _conf(spark, "spark.streamgauge.url")),
        (os.environ.get("STREAMGAUGE_BROKERS"), os.environ.get("STREAMGAUGE_URL")),
    ):
        if brokers or url:
            return (brokers, None) if brokers else (None, url)
    return None, None


def _conf(spark: Any, name: str) -> str | None:
    try:
        return spark.conf.get(name, "") or None
    except Exception:  # noqa: BLE001 (a session that does not answer is a job without a destination)
        return None


class Attachment:
    """What is attached: a queue, and the thread that sends what is in it.

    ``counts`` says what became of events: ``events`` came, ``sent`` messages went out, and of those dropped ``queue``
    (it was full), ``size`` (too large for a message) and ``refused`` (by what they were sent to).
    """

    def __init__(
        self,
        make_send: Callable[[], Send] | None,
        alive_seconds: float,
        flush_seconds: float,
        waiting: Waiting,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.instance = uuid.uuid4().hex[:8]
        self._make_send = make_send
        self._send: Send | None = None
        self._alive_seconds = alive_seconds
        self._flush_seconds = flush_seconds
        self._waiting = waiting
        self._sessions: list[Any] = []
        self._app = ""
        self._spark_version: str | None = None
        self._aside = Aside()
        self._runs: dict[str, None] = {}
        self._seq = 0
        self._said: set[str] = set()
        self._stop = threading.Event()
        self._give_up_at = float("inf")
        self._reason = "detached"
        self._thread: threading.Thread | None = None

    def add(self, spark: Any) -> Attachment:
        """Listen to one more session of the same process. Never raises; an attachment that has ended does nothing."""
        if self._stop.is_set():
            return self
        try:
            session = _session(spark)
            if any(each.key == session.key for each in self._sessions):
                return self
            with _lock:
                others = list(_attachments)
            for other in others:
                other._forget(session.key)
            self._app, self._spark_version = session.app, session.version
            session.listen(self._take)
        except Exception as exc:  # noqa: BLE001 (the job runs without being seen)
            self._say_once("not attached", exc)
            return self
        self._sessions = [*self._sessions, session]
        if self._thread is None:
            with _lock:
                _attachments.append(self)
            self._thread = threading.Thread(target=self._run, name="streamgauge", daemon=True)
            self._thread.start()
            atexit.register(self._at_exit)
        return self

    def detach(self, reason: str = "detached") -> None:
        """Listen no longer, send what is left within ``flush_seconds``, and end the thread. Never raises."""
        self._end(reason)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(self._flush_seconds + 0.5)

    def _leave(self) -> None:
        for session in self._sessions:
            with contextlib.suppress(Exception):
                session.leave()

    def _at_exit(self) -> None:
        self.detach("the process ends")

    def _forget(self, key: str) -> None:
        """Leave a session, which somebody else listens to from now on; without any it is the end."""
        for session in [each for each in self._sessions if each.key == key]:
            with contextlib.suppress(Exception):
                session.leave()
            self._sessions = [each for each in self._sessions if each is not session]
        if not self._sessions:
            self._end("attached anew")

    def _end(self, reason: str) -> None:
        """Have the thread send what is left, for as long as that may take, and end."""
        if self._stop.is_set():
            return
        self._reason = reason
        self._give_up_at = time.monotonic() + self._flush_seconds
        self._stop.set()
        self._waiting.wake()
        with _lock:
            if self in _attachments:
                _attachments.remove(self)

    # --- on Spark's threads

    def _take(self, kind: str, read: Callable[[], str]) -> None:
        """Take an event: read its JSON and put it into the queue; nothing else, and nothing leaves here."""
        try:
            at = time.time()
            self._waiting.put(kind, at, read())
        except Exception as exc:  # noqa: BLE001 (an observer leaves the observed alone)
            self._say_once(f"{kind} event not read", exc)

    # --- on the thread of its own

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as exc:  # noqa: BLE001 (it is the end of the thread, and never of the job)
            self._say_once("ended by itself", exc)
        finally:
            atexit.unregister(self._at_exit)
            self._aside.end()
            if isinstance(self._send, (KafkaPythonSend, JvmSend)):
                with contextlib.suppress(Exception):
                    self._send.close()

    def _loop(self) -> None:
        self._deliver([self._alive(ALIVE)])  # with the queries that run already
        due = time.monotonic() + self._alive_seconds
        while not self._stop.is_set():
            events = self._waiting.take(max(0.0, due - time.monotonic()), TOGETHER)
            messages = self._messages(events)
            if time.monotonic() >= due or any(event.kind == STARTED for event in events):
                messages.append(self._alive(ALIVE))
                due = time.monotonic() + self._alive_seconds
            self._deliver(messages)
            if all(session.is_over() for session in self._sessions):
                self._end("Spark stopped")
        self._aside.within(self._flush_seconds, self._leave)
        while True:
            events = self._waiting.take(0.0, TOGETHER)
            if not events:
                break
            self._deliver(self._messages(events))
        self._deliver([self._alive(ENDED, self._reason)])

    def _messages(self, events: Sequence[Event]) -> list[Message]:
        messages = []
        for event in events:
            self.counts["events"] += 1
            ids = _ids(event.text)
            if event.kind == TERMINATED and self._runs.pop(ids[1], _UNKNOWN) is _UNKNOWN:
                continue  # sessions are told of the ends of each other's queries
            if event.kind != TERMINATED:
                self._know(ids[1])
            text = event.text if len(event.text) < LARGEST_BYTES // 4 else self._fitting(event.text)
            if text is not None:
                messages.append((ids[0].encode(), self._message(event.kind, event.at, text)))
        return messages

    def _fitting(self, text: str) -> str | None:
        """Return an event that fits into a message, if need be without what may be left out; None if it never does."""
        if len(text.encode()) <= LARGEST_BYTES:
            return text
        short = _shortened(text)
        if short is not None and len(short.encode()) <= LARGEST_BYTES:
            return short
        self.counts["size"] += 1
        return None

    def _message(self, kind: str, at: float, event: str) -> bytes:
        self._seq += 1
        app = json.dumps(self._app)
        head = f'{{"v":{VERSION},"kind":"{kind}","at":{at:.3f},"app":{app},"instance":"{self.instance}"'
        return f'{head},"seq":{self._seq},"event":{event}}}'.encode()

    def _alive(self, kind: str, reason: str | None = None) -> Message:
        queries, bus_dropped = self._aside.within(ANSWER_SECONDS, self._ask) or (None, None)
        for query in queries or ():
            self._know(query["runId"])
        body: dict[str, Any] = {
            "spark": self._spark_version,
            "events": self.counts["events"],
            "dropped": {"queue": self._waiting.dropped, "size": self.counts["size"], "refused": self.counts["refused"]},
            "bus_dropped": bus_dropped,
            "reattached": sum(session.reattached for session in self._sessions),
            "queries": queries,
        }
        if reason is not None:
            body["reason"] = reason
        return self._app.encode(), self._message(kind, time.time(), json.dumps(body, separators=(",", ":")))

    def _ask(self) -> tuple[list[dict[str, Any]] | None, int | None]:
        """Return which queries run and what Spark has dropped; it may take its time."""
        queries: list[dict[str, Any]] = []
        bus_dropped: int | None = None
        try:
            for session in self._sessions:
                if not self._stop.is_set():
                    session.mend()
                bus_dropped = session.bus_dropped()
                queries += session.queries()
        except Exception as exc:  # noqa: BLE001 (the session has ended, or the JVM)
            if not self._stop.is_set():
                self._say_once("session does not answer", exc)
            return None, bus_dropped
        return queries, bus_dropped

    def _know(self, run: str) -> None:
        """Note that a run is one of our sessions'; the ends of others are none of our business."""
        self._runs[run] = None
        while len(self._runs) > MOST_RUNS:
            del self._runs[next(iter(self._runs))]

    def _deliver(self, messages: Sequence[Message]) -> None:
        """Send messages, again and again with longer and longer pauses, until they are sent or it is the end."""
        pause = 0.5
        while messages:
            try:
                if self._send is None and self._make_send is not None:
                    self._send = self._make_send()
                if self._send is not None:
                    self._send(messages)
            except RefusedError as exc:
                self.counts["refused"] += len(messages)
                self._say_once("events refused", exc)
                return
            except Exception as exc:  # noqa: BLE001 (whatever a client raises: brokers come back)
                self.counts["failed"] += 1
                self._say_once("events not sent yet", exc)
                if self._stop.is_set() and time.monotonic() + pause >= self._give_up_at:
                    self.counts["refused"] += len(messages)
                    return
                if self._stop.is_set():
                    time.sleep(pause)
                else:
                    self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self.counts["sent"] += len(messages)
                return

    def _say_once(self, what: str, exc: Exception) -> None:
        if what not in self._said:
            self._said.add(what)
            words = " ".join(str(exc).split())[:300]
            log.warning("%s: %s: %s (said once; the job is not affected)", what, type(exc).__name__, words)


class Aside:
    """Does on a thread of its own what may take long, one thing at a time."""

    def __init__(self) -> None:
        self._work: Callable[[], Any] | None = None
        self._wanted, self._done = threading.Event(), threading.Event()
        self._result: Any = None
        self._thread: threading.Thread | None = None
        self._is_over = False

    def within(self, seconds: float, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns; None if that is not in time, and until it has ended nothing else is begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="streamgauge-aside", daemon=True)
            self._thread.start()
        elif not self._done.is_set():
            return None
        self._done.clear()
        self._work = work
        self._wanted.set()
        return self._result if self._done.wait(seconds) else None

    def end(self) -> None:
        """Let the thread end once it has nothing to do."""
        self._is_over = True
        self._wanted.set()

    def _run(self) -> None:
        while not self._is_over:
            self._wanted.wait()
            self._wanted.clear()
            if self._work is not None:
                work, self._work = self._work, None
                self._result = work()
                self._done.set()


class Waiting:
    """Events that wait to be sent: bounded in number and in bytes; the oldest go first, batches before the rest."""

    def __init__(self, most_events: int, most_bytes: int) -> None:
        self.dropped = 0
        self._most_events, self._most_bytes = most_events, most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._woken = False

    def put(self, kind: str, at: float, text: str) -> None:
        """Take an event in; drop what there is no room for."""
        with self._changed:
            self._events.append(Event(kind, at, text))
            self._bytes += len(text)
            while len(self._events) > self._most_events or self._bytes > self._most_bytes:
                self._drop_one()
            self._changed.notify()

    def take(self, timeout_seconds: float, most: int) -> list[Event]:
        """Return the oldest events, waiting until there is one or somebody calls ``wake``."""
        with self._changed:
            if not self._events and not self._woken:
                self._changed.wait(timeout_seconds)
            self._woken = False
            taken = [self._events.popleft() for _ in range(min(most, len(self._events)))]
            self._bytes -= sum(len(event.text) for event in taken)
            return taken

    def wake(self) -> None:
        """Have ``take`` return."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def _drop_one(self) -> None:
        """Drop the oldest batch or idle event: starts and ends are few and say more."""
        place = next((i for i, event in enumerate(self._events) if event.kind in (PROGRESS, IDLE)), 0)
        self._bytes -= len(self._events[place].text)
        del self._events[place]
        self.dropped += 1


def _ids(text: str) -> tuple[str, str]:
    """Return query id and run id of an event, empty where it has none."""
    head = text[:1000]
    query, run = (re.search(rf'"{name}"\s*:\s*"([^"]*)"', head) for name in ("id", "runId"))
    return (query[1] if query else "", run[1] if run else "")


def _shortened(text: str) -> str | None:
    """Return a progress event without metrics that grow with the number of partitions or of stores."""
    try:
        event = json.loads(text)
        for operator in event.get("stateOperators", ()):
            operator.pop("customMetrics", None)
        event.pop("observedMetrics", None)
        for source in event.get("sources", ()):
            source.pop("latestOffset", None)
            source.pop("startOffset", None)
        event["shortened"] = True
        return json.dumps(event, separators=(",", ":"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


# --- sessions ---------------------------------------------------------------------------------------


Take = Callable[[str, Callable[[], str]], None]


def _session(spark: Any) -> Any:
    return ConnectSession(spark) if type(spark).__module__.startswith("pyspark.sql.connect") else ClassicSession(spark)


class ClassicSession:
    """A session in this process: its JVM is asked through py4j."""

    def __init__(self, spark: Any) -> None:
        self.reattached = 0
        self._spark = spark
        self._listener: Any = None
        self._java_listener: Any = None
        self._known: dict[str, dict[str, Any]] = {}

    @property
    def key(self) -> str:
        """Return what names the session in this process."""
        try:
            return str(self._spark._jsparkSession.sessionUUID())
        except Exception:  # noqa: BLE001 (a private name)
            return f"classic-{id(self._spark)}"

    @property
    def app(self) -> str:
        """Return Spark's application id."""
        return str(self._spark.sparkContext.applicationId)

    @property
    def version(self) -> str:
        """Return Spark's version."""
        return str(self._spark.version)

    def jvm(self) -> Any:
        """Return py4j's view of the JVM."""
        return self._spark._jvm

    def listen(self, take: Take) -> None:
        """Have ``take`` called with each event."""
        try:
            self._listen_directly(take)
        except Exception as exc:  # noqa: BLE001 (whatever py4j makes of a private class that is another now)
            log.info("pyspark's own listener is used, as the direct one cannot be: %s", exc)
            self._java_listener = None
            self._listener = public_listener(take)
            self._spark.streams.addListener(self._listener)

    def _listen_directly(self, take: Take) -> None:
        import pyspark.java_gateway  # noqa: PLC0415

        start: Any = pyspark.java_gateway.ensure_callback_server_started
        start(self._spark.sparkContext._gateway)
        streaming = self._spark._jvm.org.apache.spark.sql.streaming
        self._listener = DirectListener(take)
        self._java_listener = streaming.PythonStreamingQueryListenerWrapper(self._listener)
        self._spark._jsparkSession.streams().addListener(self._java_listener)

    def leave(self) -> None:
        """Have nothing called any more."""
        if self._java_listener is not None:
            self._spark._jsparkSession.streams().removeListener(self._java_listener)
        elif self._listener is not None:
            self._spark.streams.removeListener(self._listener)

    def mend(self) -> None:
        """Do nothing: a listener in the JVM stays."""

    def is_over(self) -> bool:
        """Return whether Spark was stopped in this process."""
        return self._spark.sparkContext._jsc is None

    def queries(self) -> list[dict[str, Any]]:
        """Return the queries that run, with what no event tells: trigger, checkpoint, what they do right now."""
        found = []
        for query in self._spark._jsparkSession.streams().active():
            run = query.runId().toString()
            if run not in self._known:
                self._known[run] = {"id": query.id().toString(), "runId": run, "name": query.name()}
                self._known[run].update(_told_by_execution(query))
            found.append({**self._known[run], **_status(query)})
        self._known = {each["runId"]: self._known[each["runId"]] for each in found}
        return found

    def bus_dropped(self) -> int | None:
        """Return how many events Spark itself has dropped for its streaming listeners; None where it does not tell."""
        try:
            bus = self._spark.sparkContext._jsc.sc().listenerBus()
            counters = bus.metrics().metricRegistry().getCounters()
            return int(counters.get("queue.streams.numDroppedEvents").getCount())
        except Exception:  # noqa: BLE001 (private names)
            return None


def _told_by_execution(query: Any) -> dict[str, str | None]:
    try:
        execution = query.streamingQuery()
        return {
            "trigger": str(execution.trigger().toString()),
            "checkpoint": str(execution.resolvedCheckpointRoot()),
        }
    except Exception:  # noqa: BLE001 (private names)
        return {"trigger": None, "checkpoint": None}


def _status(query: Any) -> dict[str, Any]:
    try:
        status = json.loads(query.status().json())
        return {"active": status.get("isTriggerActive"), "message": str(status.get("message"))[:200]}
    except Exception:  # noqa: BLE001 (a query that ends just now)
        return {"active": None, "message": None}


class ConnectSession:
    """A session of Spark Connect: events come over its connection, which may break."""

    def __init__(self, spark: Any) -> None:
        self.reattached = 0
        self._spark = spark
        self._listener: Any = None

    @property
    def key(self) -> str:
        """Return what names the session in this process."""
        return str(getattr(self._spark, "session_id", None) or f"connect-{id(self._spark)}")

    @property
    def app(self) -> str:
        """Return what stands for the application: a client is not told its id."""
        return f"connect-{self.key}"

    @property
    def version(self) -> str:
        """Return the server's version."""
        return str(self._spark.version)

    def jvm(self) -> None:
        """Return None: there is no JVM here."""

    def listen(self, take: Take) -> None:
        """Have ``take`` called with each event."""
        self._listener = public_listener(take)
        self._spark.streams.addListener(self._listener)

    def leave(self) -> None:
        """Have nothing called any more."""
        if self._listener is not None:
            self._spark.streams.removeListener(self._listener)

    def mend(self) -> None:
        """Listen anew where pyspark has given up: it forgets all listeners, or its thread, when the stream breaks."""
        bus = getattr(self._spark.streams, "_sqlb", None)
        listeners = getattr(bus, "_listener_bus", None)
        if listeners is None:
            return  # another pyspark: nothing is known of what it does
        thread = getattr(bus, "_execution_thread", None)
        if self._listener in listeners and (thread is None or thread.is_alive()):
            return
        with contextlib.suppress(Exception):
            self._spark.streams.removeListener(self._listener)
        self._spark.streams.addListener(self._listener)
        self.reattached += self._listener in listeners  # it warns only, where it was not added

    def is_over(self) -> bool:
        """Return whether the session was stopped."""
        return bool(getattr(self._spark, "is_stopped", False))

    def queries(self) -> list[dict[str, Any]]:
        """Return the queries that run. Their trigger and checkpoint are not told to clients."""
        unknown = {"trigger": None, "checkpoint": None, "active": None, "message": None}
        return [
            {"id": str(query.id), "runId": str(query.runId), "name": query.name, **unknown}
            for query in self._spark.streams.active
        ]

    def bus_dropped(self) -> None:
        """Return None: a client is not told."""


class DirectListener:
    """What the JVM calls: the interface behind pyspark's listener, without its conversion of every field."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def onQueryStarted(self, event: Any) -> None:  # noqa: N802 (Spark's names)
        """Take the start of a query; it waits for this."""
        self._take(STARTED, lambda: _json_of(event, ("id", "runId", "name", "timestamp")))

    def onQueryProgress(self, event: Any) -> None:  # noqa: N802
        """Take a batch."""
        self._take(PROGRESS, lambda: str(event.progress().json()))

    def onQueryIdle(self, event: Any) -> None:  # noqa: N802
        """Take that there is nothing to do."""
        self._take(IDLE, lambda: _json_of(event, ("id", "runId", "timestamp")))

    def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
        """Take the end of a query."""
        self._take(TERMINATED, lambda: _json_of(event, ("id", "runId")))

    class Java:
        """Which interface this is, for py4j."""

        implements = ["org.apache.spark.sql.streaming.PythonStreamingQueryListener"]  # noqa: RUF012 (py4j wants a list)


def _json_of(event: Any, fields: Iterable[str]) -> str:
    """Return a Java event's JSON; releases that have no such method are asked for the fields that matter."""
    try:
        return str(event.json())
    except Exception:  # noqa: BLE001 (py4j's word for: no such method)
        values = {name: getattr(event, name)() for name in fields}
        return json.dumps({name: None if value is None else str(value) for name, value in values.items()})


def public_listener(take: Take) -> Any:
    """Return a listener of pyspark's public class: what it costs is its conversion, done before it is called."""
    from pyspark.sql.streaming.listener import StreamingQueryListener  # noqa: PLC0415

    def plain(event: Any, *fields: str) -> Callable[[], str]:
        return lambda: json.dumps({name: _plain(getattr(event, name, None)) for name in fields})

    class Listener(StreamingQueryListener):  # type: ignore[misc, unused-ignore]
        """Hands on what it is told."""

        def onQueryStarted(self, event: Any) -> None:  # noqa: N802
            take(STARTED, plain(event, "id", "runId", "name", "timestamp"))

        def onQueryProgress(self, event: Any) -> None:  # noqa: N802
            take(PROGRESS, lambda: str(event.progress.json))

        def onQueryIdle(self, event: Any) -> None:  # noqa: N802
            take(IDLE, plain(event, "id", "runId", "timestamp"))

        def onQueryTerminated(self, event: Any) -> None:  # noqa: N802
            take(TERMINATED, plain(event, "id", "runId", "exception", "errorClassOnException"))

    return Listener()


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)


# --- where to ---------------------------------------------------------------------------------------


class HttpSend:
    """POST messages as lines of JSON."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/x-ndjson", "User-Agent": "streamgauge", **headers}

    def __call__(self, messages: Sequence[Message]) -> None:
        """Send messages.

        Raises:
            RefusedError: they were answered with a status code from 400 to 499, other than "later".
            OSError: they may be tried again.
        """
        body = b"".join(value + b"\n" for _, value in messages)
        request = urllib.request.Request(self._url, body, dict(self._headers), method="POST")  # noqa: S310 (the job's own)
        try:
            with urllib.request.urlopen(request, timeout=SEND_SECONDS) as answer:  # noqa: S310
                answer.read(1000)
        except urllib.error.HTTPError as exc:
            with exc:
                if exc.code >= REMOTE_ERRORS or exc.code in (408, 429):
                    raise
                raise RefusedError(f"{self._url} answers {exc.code} {exc.reason}") from exc  # noqa: EM102


def kafka_send(
    bootstrap_servers: str,
    topic: str,
    client: str | None,
    properties: Mapping[str, str],
    jvm: Any,
) -> Send:
    """Return what sends to a Kafka topic by the client named, or by the first that there is.

    Raises:
        RefusedError: there is none.
    """
    tried = []
    for name in (client,) if client else _KAFKA_CLIENTS:
        try:
            return _KAFKA_CLIENTS[name](bootstrap_servers, topic, properties, jvm)
        except ImportError as exc:
            tried.append(f"{name}: {exc}")
    raise RefusedError("no Kafka client here: install confluent-kafka, or use url (" + "; ".join(tried) + ")")


class ConfluentSend:
    """Send by confluent-kafka; ``properties`` are librdkafka's."""

    def __init__(self, bootstrap_servers: str, topic: str, properties: Mapping[str, str], _jvm: Any) -> None:
        from confluent_kafka import Producer  # noqa: PLC0415

        self._topic = topic
        own = {"bootstrap.servers": bootstrap_servers, "client.id": "streamgauge-spark", "compression.type": "gzip"}
        # A message is given up by the client before we try it again ourselves.
        own["message.timeout.ms"] = str(int(SEND_SECONDS * 1000))
        quiet = logging.getLogger("streamgauge.spark.kafka")
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        self._producer = Producer({**own, **properties}, logger=quiet)

    def __call__(self, messages: Sequence[Message]) -> None:
        """Send messages and wait for all of them.

        Raises:
            OSError: at least one was not acknowledged.
        """
        errors: list[Any] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                errors.append(error)

        for key, value in messages:
            self._producer.produce(self._topic, key=key, value=value, on_delivery=delivered)
        left = self._producer.flush(SEND_SECONDS + 1)
        if errors or left:
            raise OSError(f"{len(errors) + left} of {len(messages)} not acknowledged: {errors[:1]}")  # noqa: EM102


class KafkaPythonSend:
    """Send by kafka-python; ``properties`` are its arguments."""

    def __init__(self, bootstrap_servers: str, topic: str, properties: Mapping[str, Any], _jvm: Any) -> None:
        from importlib import import_module  # noqa: PLC0415

        self._topic = topic
        own: dict[str, Any] = {"client_id": "streamgauge-spark", "compression_type": "gzip"}
        own["max_block_ms"] = int(SEND_SECONDS * 1000)
        self._producer = import_module("kafka").KafkaProducer(
            bootstrap_servers=bootstrap_servers.split(","), **{**own, **properties}
        )

    def __call__(self, messages: Sequence[Message]) -> None:
        """Send messages and wait for all of them; raises what the client raises."""
        futures = [self._producer.send(self._topic, key=key, value=value) for key, value in messages]
        for future in futures:
            future.get(timeout=SEND_SECONDS)

    def close(self) -> None:
        """End the client's own threads."""
        self._producer.close(timeout=1)


class JvmSend:
    """Send by the Kafka client in Spark's JVM, which the job's Kafka source brought; ``properties`` are Java's."""

    def __init__(self, bootstrap_servers: str, topic: str, properties: Mapping[str, str], jvm: Any) -> None:
        if jvm is None:
            raise ImportError("no JVM in this process")
        self._jvm, self._topic = jvm, topic
        own = {
            "bootstrap.servers": bootstrap_servers,
            "client.id": "streamgauge-spark",
            "compression.type": "gzip",
            "max.block.ms": str(int(SEND_SECONDS * 1000)),
            "delivery.timeout.ms": str(int(SEND_SECONDS * 1000)),
            "request.timeout.ms": str(int(SEND_SECONDS * 500)),
            **properties,
        }
        settings = jvm.java.util.Properties()
        for name, value in own.items():
            settings.setProperty(name, str(value))
        try:
            bytes_of = jvm.org.apache.kafka.common.serialization.ByteArraySerializer
            self._producer = jvm.org.apache.kafka.clients.producer.KafkaProducer(settings, bytes_of(), bytes_of())
        except TypeError as exc:  # py4j takes a class that is not there for a package
            raise ImportError("the JVM has no Kafka client: the job does not use Spark's Kafka source") from exc

    def __call__(self, messages: Sequence[Message]) -> None:
        """Send messages and wait for all of them; raises what py4j raises."""
        record = self._jvm.org.apache.kafka.clients.producer.ProducerRecord
        futures = [self._producer.send(record(self._topic, key, value)) for key, value in messages]
        for future in futures:
            future.get(int(SEND_SECONDS) + 1, self._jvm.java.util.concurrent.TimeUnit.SECONDS)

    def close(self) -> None:
        """End the client's thread in the JVM, which would go on looking for brokers."""
        self._producer.close(self._jvm.java.time.Duration.ofSeconds(1))


_KAFKA_CLIENTS: dict[str, Callable[[str, str, Mapping[str, Any], Any], Send]] = {
    "confluent": ConfluentSend,
    "kafka-python": KafkaPythonSend,
    "jvm": JvmSend,
}
