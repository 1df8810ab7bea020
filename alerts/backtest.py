"""Rules replayed over a Prometheus: what would have fired, when and for how long, and under other objectives.

Every rule's expression is asked for at every evaluation of a time that is over (``query_range``), with recorded metrics
written out, so that Prometheus need not have had the rules; ``alerts.replay`` makes alerts of the answers. It begins as
if the rules had been loaded at the first evaluation.
"""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alerts.grafana import inlined
from alerts.objectives import Changed, reads_objectives, with_objectives
from alerts.promql import last, series
from alerts.replay import Firing, firings
from alerts.rule import Rule
from alerts.words import CLUSTER_UP, FRESH
from monitor.errors import UnreachableError, UsageError

EVALUATIONS_AT_ONCE = 1440
"""How many evaluations one query asks for: a day's at one a minute. Prometheus refuses more than 11,000."""

ANSWER_SECONDS = 150.0
"""How long an answer may take: Prometheus gives a query up after 2 minutes (``--query.timeout``)."""

NAME = "__name__"

Alarms = dict[tuple[tuple[str, str], ...], dict[int, float]]
"""The values of an expression by its labels and by evaluation, where it was true."""


@dataclass(frozen=True, slots=True)
class Span:
    """Evaluations from ``begin`` to ``end``, both of them included, every ``step`` seconds; seconds since the epoch."""

    begin: int
    end: int
    step: int

    def parts(self, most: int = EVALUATIONS_AT_ONCE) -> Iterator[Span]:
        """Yield the same evaluations, at most so many at once."""
        for begin in range(self.begin, self.end + 1, most * self.step):
            yield Span(begin, min(self.end, begin + (most - 1) * self.step), self.step)

    def __len__(self) -> int:
        return (self.end - self.begin) // self.step + 1

    @property
    def last(self) -> int:
        """Return the last evaluation."""
        return self.begin + (len(self) - 1) * self.step


class _EveryAnswer(urllib.request.HTTPErrorProcessor):
    """Whatever the status, an answer is one. None is followed: what logs in here is nobody else's."""

    def http_response(self, request: Any, response: Any) -> Any:
        """Return the answer as it is."""
        return response

    https_response = http_response


class Prometheus:
    """The query API of a Prometheus, or of something that answers like one (Thanos, Mimir, VictoriaMetrics)."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            msg = f"{url!r} is no address of a Prometheus: write for example http://127.0.0.1:9090"
            raise UsageError(msg)
        if "@" in parts.netloc:
            raise UsageError(
                "the address of the Prometheus holds a password: give STREAMGAUGE_PROMETHEUS_USERNAME and "
                "STREAMGAUGE_PROMETHEUS_PASSWORD in the environment instead"
            )
        self.url = url.rstrip("/")
        self.warnings: list[str] = []
        self._headers = {**(headers or {}), "Accept": "application/json"}
        self._opener = urllib.request.build_opener(_EveryAnswer())

    def alarms(self, expression: str, span: Span) -> Alarms:
        """Return the values of an expression by its labels and by evaluation.

        Raises:
            UnreachableError: Prometheus does not answer, or not with numbers.
        """
        found: Alarms = {}
        for part in span.parts():
            for each in self._ask(expression, part):
                labels = tuple(sorted((name, value) for name, value in each["metric"].items() if name != NAME))
                values = {round(float(at)): float(value) for at, value in each["values"]}
                found.setdefault(labels, {}).update(values)
        return found

    def _ask(self, expression: str, span: Span) -> list[dict[str, Any]]:
        form = {"query": expression, "start": span.begin, "end": span.end, "step": span.step}
        answer = self._post("/api/v1/query_range", urllib.parse.urlencode(form).encode())
        self.warnings += [str(each) for each in answer.get("warnings") or [] if str(each) not in self.warnings]
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def _post(self, path: str, form: bytes) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}{path}", form, self._headers)  # noqa: S310 (http or https, see above)
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as response:
                status, body = response.status, response.read()
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            reason = getattr(reason, "strerror", None) or reason
            msg = f"cannot ask Prometheus at {self.url}: {reason}; give its address with --prometheus"
            raise UnreachableError(msg) from exc
        except http.client.HTTPException as exc:  # no HTTP, or half of an answer; its text may hold anything
            raise self._no_prometheus() from exc
        if status != http.client.OK:
            raise UnreachableError(self._refused(status, body))
        return self._read(body)

    def _read(self, body: bytes) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(body)
            if answer["status"] == "success" and answer["data"]["resultType"] == "matrix":
                return answer
        except (ValueError, KeyError, TypeError):
            pass
        raise self._no_prometheus()

    def _no_prometheus(self) -> UnreachableError:
        return UnreachableError(
            f"{self.url} does not answer like a Prometheus; give the address of one with --prometheus"
        )

    def _refused(self, status: int, body: bytes) -> str:
        if status in {401, 403}:
            return (
                f"Prometheus at {self.url} wants a log-in (HTTP {status}): set STREAMGAUGE_PROMETHEUS_TOKEN, or "
                "STREAMGAUGE_PROMETHEUS_USERNAME and STREAMGAUGE_PROMETHEUS_PASSWORD"
            )
        try:
            said = " ".join(str(json.loads(body)["error"]).split())
        except (ValueError, KeyError, TypeError):
            return (
                f"{self.url} answers HTTP {status} and not like a Prometheus; give the address of one with --prometheus"
            )
        return f"Prometheus at {self.url} gave a query up: {said}; try a shorter time, or a longer --step"


def login(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the header that logs in to Prometheus with what the environment has, or none."""
    if token := environ.get("STREAMGAUGE_PROMETHEUS_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if name := environ.get("STREAMGAUGE_PROMETHEUS_USERNAME"):
        both = f"{name}:{environ.get('STREAMGAUGE_PROMETHEUS_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}
    return {}


@dataclass(frozen=True, slots=True)
class Backtest:
    """What would have fired. ``changed`` is what would have under other objectives, None where none were given.

    ``span`` begins where the first sample of a monitor is; ``unseen_seconds`` is how long there was none within it.
    """

    span: Span
    unseen_seconds: int
    fired: list[Firing]
    changed: list[Firing] | None
    warnings: list[str]


def backtest(
    prometheus: Prometheus, rules: Sequence[Rule], span: Span, changed: Sequence[Changed] | None = None
) -> Backtest:
    """Replay rules over the samples of a Prometheus.

    Raises:
        UnreachableError: Prometheus does not answer, or has no sample of a monitor in that time.
    """
    seen = prometheus.alarms(f"count({last(series(CLUSTER_UP), FRESH)})", span).get((), {})
    if not seen:
        msg = (
            f"Prometheus at {prometheus.url} has no {CLUSTER_UP} in that time: let it scrape the monitor, "
            "or choose another time with --from and --to"
        )
        raise UnreachableError(msg)
    known = Span(min(seen), span.last, span.step)
    fired = [firing for rule in rules for firing in replay(prometheus, rule, inlined(rule.expression), known)]
    return Backtest(
        known,
        (len(known) - len(seen)) * span.step,
        _in_order(fired),
        None if changed is None else _in_order(_under(prometheus, rules, fired, known, changed)),
        prometheus.warnings,
    )


def _under(
    prometheus: Prometheus, rules: Sequence[Rule], fired: Sequence[Firing], span: Span, changed: Sequence[Changed]
) -> Iterator[Firing]:
    """Yield what would have fired under other objectives; only rules that read any are asked about again."""
    for rule in rules:
        expression = inlined(rule.expression)
        if reads_objectives(expression):
            yield from replay(prometheus, rule, with_objectives(expression, changed), span)
        else:
            yield from (firing for firing in fired if firing.rule is rule)


def replay(prometheus: Prometheus, rule: Rule, expression: str, span: Span) -> Iterator[Firing]:
    """Yield what a rule with this expression would have fired.

    Raises:
        UnreachableError: Prometheus does not answer.
    """
    for labels, values in prometheus.alarms(expression, span).items():
        yield from firings(rule, dict(labels), values, span.step, span.last)


def _in_order(fired: Sequence[Firing] | Iterator[Firing]) -> list[Firing]:
    return sorted(fired, key=lambda firing: (firing.begin, firing.key))
