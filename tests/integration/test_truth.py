"""`streamgauge lag -o json` says what another client sees: every committed offset, log end, lag and age."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

FILLER = Path(__file__).parents[1] / "support" / "filler.py"
STREAMGAUGE = Path(sys.executable).with_name("streamgauge")


async def run(*args: object) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, args), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 240)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(("topics", "partitions", "groups"), [(2, 5, 1), (40, 5, 2000)], ids=["1 group", "2000 groups"])
async def test_the_whole_view_of_another_client(kafka, topics, partitions, groups):
    """Committed offset, log end and lag are equal position by position; each true age lies within its bound."""
    code, out, err = await run(sys.executable, FILLER, kafka.bootstrap, topics, partitions, groups)
    assert 0 == code, err
    theirs = json.loads(out)

    code, out, err = await run(STREAMGAUGE, "lag", "-o", "json", "--bootstrap-servers", kafka.bootstrap)
    assert 1 == code, err  # the groups have no members and unread records: stopped
    report = json.loads(out)

    at = datetime.fromisoformat(report["at"]).timestamp()
    (cluster,) = report["clusters"]
    ours = {c["name"]: c["partitions"] for c in cluster["consumers"] if c["name"].startswith(f"filled-{groups}-group")}
    assert cluster["up"]
    assert theirs.keys() == ours.keys()
    placed = 0
    for name, positions in theirs.items():
        seen = {(p["topic"], p["partition"]): p for p in ours[name]}
        assert len(positions) == len(seen)
        for truth in positions:
            ours_here = seen[truth["topic"], truth["partition"]]
            lag = truth["log_end"] - truth["committed"]
            assert (truth["committed"], truth["log_end"], lag) == (
                ours_here["committed"],
                ours_here["log_end"],
                ours_here["lag_records"],
            )
            if lag and ours_here["lag_seconds"] is not None:
                age = at - truth["first_unread_ms"] / 1000
                # The report's time is written in milliseconds.
                assert abs(age - ours_here["lag_seconds"]) <= ours_here["lag_seconds_bound"] + 0.002, (name, truth)
                placed += 1
            elif not lag:
                assert 0 == ours_here["lag_seconds"]
    total = sum(truth["log_end"] > truth["committed"] for positions in theirs.values() for truth in positions)
    assert placed > 0.9 * total, "a one-shot command places (nearly) every record"
