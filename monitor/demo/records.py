"""What the load of the demo writes: readings, of which a few cannot be decoded and a few come much too late.

Which ones these are follows from a record's number within its partition, so what must become of all that was written
is known without asking anybody who reads them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from monitor.sandbox.loads import Readings

EACH = 100
"""Of so many records of a partition one is bad, and half as many later one is late."""

BAD, LATE = EACH // 2 - 1, EACH - 1
"""Their places in a hundred. A reading can only be late if its sensor has sent one before."""

LATE_SECONDS = 900.0
"""How much before its record such a reading was measured: three times what the Faust app waits for."""


class DemoReadings(Readings):
    """Readings with bad and late ones among them; timestamps of records are as without these."""

    def __call__(self, partition: int, number: int, timestamp_ms: int) -> tuple[bytes, bytes]:
        """Return key and value of a record."""
        key, value = super().__call__(partition, number, timestamp_ms)
        match number % EACH:
            case place if place == BAD:
                return key, value[: len(value) // 2]
            case place if place == LATE:
                reading = json.loads(value)
                return key, json.dumps({**reading, "at": reading["at"] - LATE_SECONDS}).encode()
        return key, value


def expected_outcomes(sent: Sequence[int]) -> dict[str, int]:
    """Return what must become of the first so many records of each partition, in the words of the Faust app."""
    places = Counter(number % EACH for count in sent for number in range(count))
    bad, late = places[BAD], places[LATE]
    return {"averaged": sum(sent) - bad - late, "bad": bad, "filtered": 0, "late": late}
