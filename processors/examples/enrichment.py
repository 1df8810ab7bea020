"""Readings with what is known of their sensors, from a static data set.

    streamgauge worker --app processors.examples.enrichment:app --bootstrap-servers HOST:PORT

Reads readings from topic readings and writes them with ``site`` and ``floor`` to readings-enriched; null where the
sensor is not known. Yours would load the data set from a file when the module is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from processors.job_app import JobApp
from processors.pipeline import Job, read


class Place(NamedTuple):
    """Where a sensor is."""

    site: str
    floor: int


PLACES: Mapping[str, Place] = {
    "s-1": Place("Rotterdam", 0),
    "s-2": Place("Rotterdam", 3),
    "s-3": Place("Lagos", 1),
}


def declare(
    topic: str = "readings",
    results: str = "readings-enriched",
    name: str = "enrichment",
    places: Mapping[str, Place] = PLACES,
) -> Job:
    """Return the job."""
    return read(topic, name=name).join(places, lambda reading: reading["sensor"], placed).to(results)


def placed(reading: dict[str, Any], place: Place | None) -> dict[str, Any]:
    """Return a reading with its place."""
    return {**reading, "site": place.site if place else None, "floor": place.floor if place else None}


job = declare()
app = JobApp(job)
