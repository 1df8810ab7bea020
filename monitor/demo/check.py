"""The check: what the monitor says is compared with what the loads have counted, at three known moments.

    drained   the load is paused and every reader has read all: lag 0 everywhere
    backlog   the readers stand still and exactly so many records are written: that lag, of that age
    resumed   the readers go on: lag 0 again

The truth never comes from the monitor or the broker: log ends are what the load has had acknowledged, committed
offsets of the groups what their members have committed, and the Faust app and the Spark query, stopped where they
were (SIGSTOP) after they had read all, are behind by what was written since. The monitor's side is fetched over
HTTP, and counts only from cycles that began after the truth was fixed.

At the end the workers must be said to run: that of the Faust app to have made of each record that the load has written
what must become of it (a few are bad or late), that of the rollups to have rolled up samples.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from monitor.demo.client import MonitorClient, consumers, seconds
from monitor.demo.pipeline import BILLING, FAUST, PARTS, ROLLUPS, SHIPPING, SPARK, TOPIC, Pipeline
from monitor.demo.records import expected_outcomes
from monitor.demo.table import in_words
from monitor.errors import UnreachableError
from monitor.model import Consumer, Health, Kind
from monitor.sandbox.loads import Producer

BACKLOG = 400
"""Records written while the readers stand still, a hundred a partition."""

BACKLOG_SECONDS = 3.0
"""They are spread over this long, so that the first unread record is older than the last one by as much."""

WARM_UP_SECONDS = 5.0
DRAIN_SECONDS = 40.0
SETTLE_SECONDS = 25.0
"""How long each moment may take to show: the monitor's interval, Faust's commit interval (2.8 s), Spark's trigger."""

FINEST_BOUND_SECONDS = 1.0
"""An age is of use only within a bound: this one is the widest that passes here."""

PRINTED_SECONDS = 0.001
"""The report prints its time to the millisecond, cut off: an age computed from that may be short by as much."""

POLL_SECONDS = 0.2

SUM_LAG = "streamgauge_consumer_sum_lag_records"


@dataclass(frozen=True, slots=True)
class Truth:
    """What must be said of a consumer: of each partition its offsets, and when its next record was written.

    ``next_at`` is in seconds since the epoch, None where nothing is unread.
    """

    who: Consumer
    committed: tuple[int, ...]
    ends: tuple[int, ...]
    next_at: tuple[float | None, ...]
    health: Health

    @property
    def lag(self) -> tuple[int, ...]:
        """Return the lag of each partition in records."""
        return tuple(end - committed for end, committed in zip(self.ends, self.committed, strict=True))


def truth_of(who: Consumer, committed: Sequence[int], producer: Producer, health: Health = Health.OK) -> Truth:
    """Return what must be said of a consumer that has committed these offsets, now that the producer has paused."""
    next_at = tuple(producer.record_time(partition, offset) for partition, offset in enumerate(committed))
    return Truth(who, tuple(committed), tuple(producer.sent), next_at, health)


# --- judging one consumer of one report -------------------------------------------------------------


def complaints(said: Mapping[str, Any] | None, at: float, truth: Truth) -> list[str]:
    """Return what is wrong with what a report of the time ``at`` says of a consumer; nothing if all is true."""
    if said is None:
        return ["it is not in the report"]
    wrong = _wrong_values(said, truth)
    # An app may have topics of its own (Faust's leader topic): the sums say that nothing is unread or unknown there.
    parts = {part["partition"]: part for part in said["partitions"] if part["topic"] == TOPIC}
    if sorted(parts) != list(range(len(truth.ends))):
        return [*wrong, f"partitions {sorted(parts)} are said, there are {len(truth.ends)}"]
    for number, part in parts.items():
        wrong += [f"partition {number}: {text}" for text in _wrong_partition(part, number, at, truth)]
    return wrong + _wrong_age(said, at, min((time for time in truth.next_at if time is not None), default=None))


def _wrong_values(said: Mapping[str, Any], truth: Truth) -> list[str]:
    expected = {
        "lag_records": sum(truth.lag),
        "known_lag_records": sum(truth.lag),
        "lost_records": 0,
        "partitions_unknown": 0,
        "health": truth.health.value,
    }
    return _differences(said, expected)


def _wrong_partition(part: Mapping[str, Any], number: int, at: float, truth: Truth) -> list[str]:
    expected = {
        "committed": truth.committed[number],
        "log_end": truth.ends[number],
        "lag_records": truth.lag[number],
        "lost_records": 0,
    }
    return _differences(part, expected) + _wrong_age(part, at, truth.next_at[number])


def _differences(said: Mapping[str, Any], expected: Mapping[str, object]) -> list[str]:
    return [
        f"{name} {said[name]}{_reason(said, name)}, counted {value}"
        for name, value in expected.items()
        if said[name] != value
    ]


def _wrong_age(said: Mapping[str, Any], at: float, written_at: float | None) -> list[str]:
    """Return what is wrong with the age: it must enclose the true one, within a bound that is of use."""
    age, bound = said["lag_seconds"], said["lag_seconds_bound"]
    true_age = 0.0 if written_at is None else at - written_at
    if age is None or bound is None:
        return [f"age unknown{_reason(said, 'lag_seconds')}, true {true_age:.3f} s"]
    if not age - bound <= true_age + PRINTED_SECONDS or not true_age <= age + bound:
        return [f"age {age:.3f} ± {bound:.3f} s, true {true_age:.3f} s"]
    if bound > FINEST_BOUND_SECONDS:
        return [f"age {age:.3f} ± {bound:.3f} s: a bound of more than {FINEST_BOUND_SECONDS:g} s"]
    return []


def _reason(said: Mapping[str, Any], name: str) -> str:
    reason = said.get("unknown", {}).get(name)
    return f" ({reason})" if reason else ""


def praise(said: Mapping[str, Any], at: float, truth: Truth) -> str:
    """Return the numbers that agree, for a verdict that a person reads."""
    lag = f"lag {said['lag_records']} = {sum(truth.lag)} counted on {len(truth.ends)} partitions"
    written_at = min((time for time in truth.next_at if time is not None), default=None)
    if written_at is None:
        return f"{lag} of {sum(truth.ends)} records"
    age = f"age {said['lag_seconds']:.3f} ± {said['lag_seconds_bound']:.3f} s, true {at - written_at:.3f} s"
    return f"{lag}; {age}; health {said['health']}"


def sum_lags(metrics: str) -> dict[Consumer, float]:
    """Return the lag of each consumer as /metrics has it."""
    return {
        Consumer(Kind(sample.labels["kind"]), sample.labels["consumer"]): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == SUM_LAG
    }


# --- judging what workers say -----------------------------------------------------------------------


def worker_complaints(said: Mapping[str, Any] | None, expected: Mapping[str, int] | None) -> list[str]:
    """Return what is wrong with what a report says of a consumer's only worker; nothing if all is true.

    ``expected`` is what its records must have come to; None: samples that were rolled up, nobody counts how many.
    """
    workers = [] if said is None else said.get("workers", [])
    if len(workers) != 1:
        return [f"{len(workers)} workers are said, there is 1"]
    state, outcomes = workers[0]["state"], workers[0]["outcomes"]
    wrong = [] if state == "running" else [f"it is said to be {state}"]
    if expected is not None and outcomes != expected:
        wrong.append(f"{in_words(outcomes)}, counted {in_words(expected)}")
    if expected is None and not (outcomes.get("added", 0) > 0 and outcomes.get("bad") == 0):
        wrong.append(in_words(outcomes))
    return wrong


# --- the scenario -----------------------------------------------------------------------------------


class Check:
    """Runs the scenario on a started pipeline and says a verdict a line; ``failures`` counts those that failed."""

    def __init__(self, pipeline: Pipeline, client: MonitorClient, say: Callable[[str], None]) -> None:
        self.failures = 0
        self._verdicts = 0
        self._pipeline = pipeline
        self._client = client
        self._say = say

    async def run(self) -> bool:
        """Run it, and return whether everything said was true."""
        producer, readers = self._pipeline.producer, self._readers()
        await asyncio.sleep(WARM_UP_SECONDS)

        self._say("\nThe load pauses, and every reader reads all there is.")
        await producer.pause()
        readers = await self._compare("drained", self._drained(readers), DRAIN_SECONDS)

        self._say(f"\nThe readers stand still, and the load writes {BACKLOG} records.")
        await self._stand_still()
        before = producer.sent
        await producer.send_exactly(BACKLOG, BACKLOG_SECONDS)
        behind = self._behind(readers, before)
        await self._compare("backlog", behind, SETTLE_SECONDS)
        await self._compare_metrics(behind, SETTLE_SECONDS)

        self._say("\nThe readers go on.")
        await self._go_on()
        await self._compare("resumed", self._drained(readers), DRAIN_SECONDS)
        if FAUST in readers:
            await self._compare_worker(FAUST, expected_outcomes(producer.sent))
        if self._is_started(ROLLUPS):
            await self._compare_worker(ROLLUPS, None)

        self._say(f"\n{self._verdicts} verdicts, {self.failures} of them FAIL")
        return self.failures == 0

    def _readers(self) -> list[Consumer]:
        """Return whom to check, and say who is left out and why."""
        return [BILLING, SHIPPING, *(who for who in (FAUST, SPARK) if self._is_started(who))]

    def _is_started(self, who: Consumer) -> bool:
        """Return whether a part runs, and say why not: it was left out, or that is a failure."""
        part, stage = PARTS[who], self._pipeline.stage
        if part in stage.skipped:
            self._say(f"skip {part}: {stage.skipped[part]}")
        elif part in stage.failed:
            self._fail(f"{part}: it did not start: {stage.failed[part]}")
        return part not in stage.skipped and part not in stage.failed

    def _drained(self, readers: Sequence[Consumer]) -> list[Truth]:
        sent = self._pipeline.producer.sent
        return [truth_of(who, sent, self._pipeline.producer) for who in readers]

    def _behind(self, readers: Sequence[Consumer], before: Sequence[int]) -> list[Truth]:
        """Return the truth about readers that stand where the log ended before."""
        producer = self._pipeline.producer
        # Nobody is left in this group, the others are only not reading.
        health = {SHIPPING: Health.STOPPED}
        return [truth_of(who, before, producer, health.get(who, Health.OK)) for who in readers]

    async def _stand_still(self) -> None:
        """Stop every reader where it is: one group pauses, one has no member left, processes are stopped."""
        await self._pipeline.billing.pause()
        await self._pipeline.shipping.close()
        for who in self._standing():
            self._pipeline.children[who].pause()

    def _standing(self) -> list[Consumer]:
        """Return whose processes are stopped: the monitor's memory is none of those that are judged by lag."""
        return [who for who in self._pipeline.children if who != ROLLUPS]

    async def _go_on(self) -> None:
        for who in self._standing():
            self._pipeline.children[who].resume()
        self._pipeline.billing.resume()
        await self._pipeline.shipping.start()

    async def _compare(self, moment: str, truths: Sequence[Truth], wait_seconds: float) -> list[Consumer]:
        """Compare until all agree or the time is over; say a verdict each, and return who agreed."""
        fixed_at, deadline = time.time(), time.monotonic() + wait_seconds
        open_ = {truth.who: ["no report since"] for truth in truths}
        while open_ and time.monotonic() < deadline:
            report = await self._report()
            if report is not None and seconds(report["at"]) > fixed_at:
                said, at = consumers(report), seconds(report["at"])
                for truth in truths:
                    if truth.who in open_ and _is_read_after(said.get(truth.who), fixed_at):
                        open_[truth.who] = complaints(said.get(truth.who), at, truth)
                        if not open_[truth.who]:
                            del open_[truth.who]
                            self._pass(f"{moment}: {shown(truth.who)}: {praise(said[truth.who], at, truth)}")
            self._say_who_ended()
            await asyncio.sleep(POLL_SECONDS)
        for who, wrong in open_.items():
            self._fail(f"{moment}: {shown(who)}: after {wait_seconds:g} s: {'; '.join(wrong)}")
        return [truth.who for truth in truths if truth.who not in open_]

    async def _compare_worker(self, who: Consumer, expected: Mapping[str, int] | None) -> None:
        """Compare what a worker is said to have done until that is true or the time is over."""
        deadline = time.monotonic() + SETTLE_SECONDS
        wrong = ["no report since"]
        while wrong and time.monotonic() < deadline:
            report = await self._report()
            said = None if report is None else consumers(report).get(who)
            wrong = worker_complaints(said, expected)
            if said is not None and not wrong:
                counted = "" if expected is None else " as counted"
                outcomes = in_words(said["workers"][0]["outcomes"])
                self._pass(f"resumed: worker of {shown(who)}: running; {outcomes}{counted}")
            self._say_who_ended()
            await asyncio.sleep(POLL_SECONDS)
        if wrong:
            self._fail(f"resumed: worker of {shown(who)}: after {SETTLE_SECONDS:g} s: {'; '.join(wrong)}")

    async def _compare_metrics(self, truths: Sequence[Truth], wait_seconds: float) -> None:
        """Compare the sums in /metrics until they agree or the time is over."""
        counted = {truth.who: float(sum(truth.lag)) for truth in truths}
        deadline = time.monotonic() + wait_seconds
        while True:
            metrics = await self._client.metrics()
            said = {who: lag for who, lag in sum_lags(metrics or "").items() if who in counted}
            if said == counted:
                self._pass(f"backlog: /metrics: {SUM_LAG} of {len(said)} consumers: {BACKLOG} as counted")
                return
            if time.monotonic() > deadline:
                wrong = [f"{shown(who)} {said.get(who, 'absent')}" for who in counted if said.get(who) != counted[who]]
                self._fail(f"backlog: /metrics: {SUM_LAG}: {'; '.join(wrong)}, counted {BACKLOG}")
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _report(self) -> Mapping[str, Any] | None:
        try:
            return await self._client.report()
        except UnreachableError as exc:
            self._fail(str(exc))
            raise

    def _say_who_ended(self) -> None:
        for text in self._pipeline.ended():
            self._fail(text)

    def _pass(self, text: str) -> None:
        self._verdicts += 1
        self._say(f"ok   {text}")

    def _fail(self, text: str) -> None:
        self._verdicts += 1
        self.failures += 1
        self._say(f"FAIL {text}")


def _is_read_after(said: Mapping[str, Any] | None, moment: float) -> bool:
    """Return whether what is said was read after a moment; who is missing in a later report is missing indeed."""
    return said is None or (said["observed_at"] is not None and seconds(said["observed_at"]) > moment)


def shown(who: Consumer) -> str:
    """Return how a consumer is named to a person."""
    return f"{'Spark query' if who.kind is Kind.SPARK else 'group'} {who.name}"
