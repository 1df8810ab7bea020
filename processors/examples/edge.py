"""At the edge: what sensors send in degrees Fahrenheit goes on in degrees Celsius, without what cannot be true.

    streamgauge worker --app processors.examples.edge:app --bootstrap-servers HOST:PORT

Reads ``{"sensor": "s-17", "fahrenheit": 70.5, "at": 1795000000.123}`` from topic readings-raw and writes readings as
the other examples read them, ``{"sensor", "temperature", "at"}``, to topic readings, keyed as they came.
"""

from __future__ import annotations

from typing import Any

from processors.agents.reading import COLDEST, HOTTEST
from processors.job_app import JobApp
from processors.pipeline import Job, read


def declare(topic: str = "readings-raw", results: str = "readings", name: str = "edge") -> Job:
    """Return the job."""
    return (
        read(topic, name=name)
        .map(in_celsius)
        .filter(lambda reading: COLDEST <= reading["temperature"] <= HOTTEST)
        .to(results)
    )


def in_celsius(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a reading in degrees Celsius, to a hundredth."""
    return {"sensor": raw["sensor"], "temperature": round((raw["fahrenheit"] - 32) * 5 / 9, 2), "at": raw["at"]}


job = declare()
app = JobApp(job)
