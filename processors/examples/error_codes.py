"""Errors of each service, counted by their code every minute.

    streamgauge worker --app processors.examples.error_codes:app --bootstrap-servers HOST:PORT

Reads requests, ``{"service": "cart", "code": 503, "at": 1795000000.123}``, from topic requests, in any partition,
and writes ``{"service", "start", "end", "codes": {"503": 2}, "partial"}`` to error-codes. Codes below 400
are no errors.
"""

from __future__ import annotations

from typing import Any

from processors.aggregates import count_by
from processors.job_app import JobApp
from processors.pipeline import Job, from_json, read
from processors.windows import Result

FIRST_ERROR = 400
"""HTTP's first status code of an error."""


def declare(topic: str = "requests", results: str = "error-codes", name: str = "count-error-codes") -> Job:
    """Return the job."""
    return (
        read(topic, name=name, decode=request)
        .filter(lambda one: one["code"] >= FIRST_ERROR)
        .key_by(lambda one: one["service"])
        .window(60, grace=30, at=lambda one: one["at"])
        .aggregate(count_by(lambda one: one["code"]))
        .map(counted)
        .to(results)
    )


def request(value: bytes | None) -> dict[str, Any]:
    """Return a record's request.

    Raises:
        ValueError: it is none.
    """
    from_record = from_json(value)
    if not isinstance(from_record, dict) or not isinstance(from_record.get("code"), int):
        raise ValueError("not a request with a code")  # noqa: TRY004  # of the value, whatever its type
    return from_record


def counted(result: Result) -> dict[str, Any]:
    """Return what is written of a service in a minute."""
    return {
        "service": result.key,
        "start": result.start,
        "end": result.end,
        "codes": result.value,
        "partial": result.partial,
    }


job = declare()
app = JobApp(job)
