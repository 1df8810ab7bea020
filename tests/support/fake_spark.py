"""Spark sessions that are none: what streamgauge.spark asks of them, and events told by hand."""

from __future__ import annotations

import json
import threading
import uuid
from types import SimpleNamespace


class JavaEvent:
    """An event as py4j shows it."""

    def __init__(self, body, has_json=True):
        self._body = body
        if has_json:
            self.json = lambda: json.dumps(body)

    def progress(self):
        return JavaEvent(self._body)

    def __getattr__(self, name):
        return lambda: self._body[name]


class JavaText(str):
    """A Java object of which only the text matters."""

    __slots__ = ()

    def toString(self):  # noqa: N802
        return str(self)


class JavaQuery:
    """A running query."""

    def __init__(self, query_id, run_id, name="q", trigger="ProcessingTimeTrigger(10000)", checkpoint="file:/c"):
        self.id, self.runId = (lambda: JavaText(query_id)), (lambda: JavaText(run_id))
        self.name = lambda: name
        execution = SimpleNamespace(trigger=lambda: JavaText(trigger), resolvedCheckpointRoot=lambda: checkpoint)
        self.streamingQuery = lambda: execution

    def status(self):
        return JavaEvent({"message": "Waiting for data", "isDataAvailable": False, "isTriggerActive": True})


class FakeSpark:
    """A classic session. ``direct=False``: the private interface is not there."""

    def __init__(self, *, direct=True, conf=(), dropped=0):
        self.conf = dict(conf)
        self.version = "4.2.0"
        self.listeners, self.running = [], []
        self.streams = SimpleNamespace(addListener=self.listeners.append, removeListener=self.listeners.remove)
        java = SimpleNamespace(active=lambda: list(self.running), **vars(self.streams))
        key = uuid.uuid4().hex
        self._jsparkSession = SimpleNamespace(sessionUUID=lambda: key, streams=lambda: java)
        wrapper = SimpleNamespace(PythonStreamingQueryListenerWrapper=lambda listener: listener) if direct else None
        sql = SimpleNamespace(streaming=wrapper)
        self._jvm = SimpleNamespace(org=SimpleNamespace(apache=SimpleNamespace(spark=SimpleNamespace(sql=sql))))
        counter = SimpleNamespace(getCount=lambda: dropped)
        registry = SimpleNamespace(getCounters=lambda: {"queue.streams.numDroppedEvents": counter})
        bus = SimpleNamespace(metrics=lambda: SimpleNamespace(metricRegistry=lambda: registry))
        self.sparkContext = SimpleNamespace(
            applicationId="app-1",
            _gateway=SimpleNamespace(_callback_server=object()),
            _jsc=SimpleNamespace(sc=lambda: SimpleNamespace(listenerBus=lambda: bus)),
        )

    def tell(self, kind, body, *, has_json=True):
        """Have every listener called, as the bus does; what they raise is raised here."""
        for listener in list(self.listeners):
            getattr(listener, f"onQuery{kind.capitalize()}")(JavaEvent(body, has_json))

    def stop(self):
        self.sparkContext._jsc = None


class ConnectBus:
    """pyspark's own bus of a Connect session."""

    def __init__(self):
        self._listener_bus = []
        self._execution_thread = threading.current_thread()


class FakeConnect:
    """A session of Spark Connect; its module says so."""

    __module__ = "pyspark.sql.connect.session"

    def __init__(self):
        self.session_id, self.version, self.is_stopped = uuid.uuid4().hex, "4.2.0", False
        self.conf = {}
        bus = ConnectBus()
        self.streams = SimpleNamespace(
            _sqlb=bus, active=[], addListener=bus._listener_bus.append, removeListener=bus._listener_bus.remove
        )

    def break_stream(self):
        """Do what pyspark does when the connection breaks: forget every listener."""
        self.streams._sqlb._listener_bus.clear()

    def tell(self, kind, event):
        for listener in list(self.streams._sqlb._listener_bus):
            getattr(listener, f"onQuery{kind.capitalize()}")(event)


class Sink:
    """Where messages arrive; ``fail`` is raised instead for as long as it is set."""

    def __init__(self):
        self.fail = None
        self.tries = 0
        self.messages = []
        self._changed = threading.Condition()

    def __call__(self, messages):
        with self._changed:
            self.tries += 1
            self._changed.notify_all()
            if self.fail is not None:
                raise self.fail
            self.messages += messages

    @property
    def bodies(self):
        return [json.loads(value) for _, value in self.messages]

    def kinds(self, *without):
        return [each["kind"] for each in self.bodies if each["kind"] not in without]

    def wait(self, is_there, seconds=20.0):
        """Wait until a predicate of this sink holds."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_there(self), seconds), self.bodies


def started(query="q1", run="r1", name="orders"):
    return {"id": query, "runId": run, "name": name, "timestamp": "2026-11-22T07:39:45.131Z"}


def progress(query="q1", run="r1", batch=0, **more):
    return {"id": query, "runId": run, "name": "orders", "batchId": batch, "durationMs": {"addBatch": 5}, **more}


def terminated(query="q1", run="r1", exception=None):
    return {"id": query, "runId": run, "exception": exception, "errorClassOnException": None}
