"""Average temperature of each sensor over five minutes, every thirty seconds.

    streamgauge worker --app processors.examples.average_temperature:app --bootstrap-servers HOST:PORT

Reads readings, ``{"sensor": "s-17", "temperature": 21.4, "at": 1795000000.123}``, keyed by sensor, and writes
``{"sensor", "start", "end", "count", "average", "partial"}`` to readings-averages-5m. A reading may
come a minute late; those that come later are on readings-late, with the windows that they have missed.
"""

from __future__ import annotations

from typing import Any

from processors.agents.reading import COLDEST, HOTTEST, BadRecord, Reading, parse
from processors.aggregates import count, mean, several
from processors.job_app import JobApp
from processors.pipeline import Job, read
from processors.windows import Result


def declare(topic: str = "readings", results: str = "readings-averages-5m", name: str = "average-temperature") -> Job:
    """Return the job."""
    return (
        read(topic, name=name, decode=reading)
        .filter(lambda one: COLDEST <= one.temperature <= HOTTEST)
        .window(300, 30, grace=60, at=lambda one: one.at, late=f"{topic}-late")
        .aggregate(several(count=count(), average=mean(lambda one: one.temperature)))
        .map(averaged)
        .to(results)
    )


def reading(value: bytes | None) -> Reading:
    """Return a record's reading.

    Raises:
        ValueError: it is none.
    """
    parsed = parse(value)
    if isinstance(parsed, BadRecord):
        raise ValueError(parsed.reason)  # noqa: TRY004  # of the value, whatever its type
    return parsed


def averaged(result: Result) -> dict[str, Any]:
    """Return what is written of a sensor in a window."""
    return {"sensor": result.key, "start": result.start, "end": result.end, "partial": result.partial, **result.value}


job = declare()
app = JobApp(job)
