"""The commands against a real Kafka that another client filled: the numbers are that client's own."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

pytestmark = pytest.mark.integration

PROGRAM = Path(sys.executable).with_name("streamgauge")
PARTITIONS = 3
SENT = 40
"""Records in each partition, a second apart, the last one as old as a second."""

QUIET = {"log_level": 0}


class Filled:
    """A topic and two groups of this run: ``late`` committed less than was written, ``done`` everything."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.topic = f"cli-{uuid.uuid4().hex[:8]}"
        self.late, self.done = f"{self.topic} late\n\x1b[31mé", f"{self.topic}-done"
        self.committed = {self.late: [10, 40, 0], self.done: [40, 40, 40]}
        self.wrote_at = time.time()
        self._write()
        for group, offsets in self.committed.items():
            self._commit(group, offsets)

    def _write(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **QUIET})
        admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result()
        producer = Producer({"bootstrap.servers": self.bootstrap, **QUIET})
        for number in range(SENT):
            at = int((self.wrote_at - SENT + number) * 1000)
            for partition in range(PARTITIONS):
                producer.produce(self.topic, b"x", partition=partition, timestamp=at)
        assert 0 == producer.flush(30)

    def _commit(self, group, offsets):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, **QUIET})
        wanted = [TopicPartition(self.topic, partition, offset) for partition, offset in enumerate(offsets)]
        deadline = time.monotonic() + 60
        while True:
            try:
                consumer.commit(offsets=wanted, asynchronous=False)
                break
            except KafkaException:  # a young coordinator refuses for some seconds
                assert time.monotonic() < deadline
        consumer.close()

    def lag(self, group):
        return {partition: SENT - offset for partition, offset in enumerate(self.committed[group])}


@pytest.fixture(scope="module")
def filled(kafka):
    return Filled(kafka.bootstrap)


def lag(filled, *args):
    command = [PROGRAM, "lag", "--bootstrap-servers", filled.bootstrap, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_json_equals_the_other_clients_counts(filled):
    """Offsets, ends and lag in the JSON are those that the other client wrote and committed."""
    done = lag(filled, "-o", "json", f"{filled.topic}*")

    (cluster,) = json.loads(done.stdout)["clusters"]
    seen = {each["name"]: each for each in cluster["consumers"]}
    assert (1, "") == (done.returncode, done.stderr)
    assert {filled.late, filled.done} == set(seen)
    for group, consumer in seen.items():
        assert filled.lag(group) == {each["partition"]: each["lag_records"] for each in consumer["partitions"]}
        assert filled.committed[group] == [each["committed"] for each in consumer["partitions"]]
        assert {SENT} == {each["log_end"] for each in consumer["partitions"]}
        assert sum(filled.lag(group).values()) == consumer["lag_records"]
    assert ("stopped", "ok") == (seen[filled.late]["health"], seen[filled.done]["health"])


def test_the_age_is_that_of_the_first_unread_record(filled):
    """The age's interval holds the true age: the time since the timestamp that the producer gave that record."""
    before = time.time()
    (cluster,) = json.loads(lag(filled, "-o", "json", filled.late).stdout)["clusters"]
    after = time.time()

    for part in cluster["consumers"][0]["partitions"]:
        if part["lag_records"]:
            stamp = filled.wrote_at - SENT + filled.committed[filled.late][part["partition"]]
            low = part["lag_seconds"] - part["lag_seconds_bound"]
            high = part["lag_seconds"] + part["lag_seconds_bound"]
            assert before - stamp - 0.001 <= high
            assert low <= after - stamp + 0.001


def test_csv_has_every_partition(filled):
    """CSV has the same lag, a line a partition, with a name that holds a newline."""
    done = lag(filled, "-o", "csv", f"{filled.topic}*")

    rows = list(csv.DictReader(io.StringIO(done.stdout, newline="")))
    assert 1 == done.returncode
    for group in filled.committed:
        mine = {int(row["partition"]): int(row["lag_records"]) for row in rows if row["consumer"] == group}
        assert filled.lag(group) == mine


def test_the_table_says_the_same(filled):
    """The table has one line a consumer, the graver first, and escapes what is not fit for a terminal."""
    done = lag(filled, f"{filled.topic}*")

    first, second = (line.split("  ") for line in done.stdout.splitlines()[1:3])
    assert [rf"{filled.topic} late\n\x1b[31mé", "stopped", "70"] == [cell.strip() for cell in first if cell][:3]
    assert [filled.done, "ok", "0"] == [cell.strip() for cell in second if cell][:3]
    assert "no members and 70 records behind" in done.stdout


def test_fine_is_exit_0(filled):
    """A consumer that is caught up is judged fine."""
    done = lag(filled, filled.done)

    assert (0, "") == (done.returncode, done.stderr)


# Whoever runs the tests in the background may have had SIGINT ignored, which a terminal's programs would inherit.
ON_A_TERMINAL = """
import os, pty, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


def test_top_leaves_the_terminal_as_it_was(filled):
    """On a terminal top draws one screen, and Ctrl-C brings the old one and the cursor back, with exit code 130."""
    top = [PROGRAM, "top", "--bootstrap-servers", filled.bootstrap, "--interval", "0.2"]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, *top], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        drawn = b""
        while filled.done.encode() not in drawn:
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, drawn
            drawn += piece
        process.stdin.write(b"\x03")
        process.stdin.flush()
        try:
            rest, _ = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    assert drawn.startswith(b"\x1b[?1049h")
    assert b"\x1b[?1049l" in rest
    assert rest.rindex(b"\x1b[?25h") > rest.rfind(b"\x1b[?25l")
    assert b"Traceback" not in rest
    assert 130 == process.returncode


def test_sigterm_ends_top_cleanly(filled):
    """SIGTERM ends top as a shell expects, without a traceback."""
    args = [PROGRAM, "top", "--bootstrap-servers", filled.bootstrap, "--interval", "0.2"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("default up ")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)

    assert (143, "") == (process.returncode, errors)
