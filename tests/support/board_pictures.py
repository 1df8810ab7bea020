"""Pictures of the boards for the manual, from what a real Prometheus answers.

    python tests/support/board_pictures.py docs/boards                          three hours of board_scenario's shop
    python tests/support/board_pictures.py docs/boards monitor --of URL         a Prometheus that runs, up to now

Needs prometheus and promtool, chromium, and pngquant, which makes the pictures small (Debian packages of those names).
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from board_painter import WIDTH, Painter, Source
from board_reader import Choice
from board_scenario import EVERYTHING, OUT, Played
from prometheus_servers import asked, backfilled

from alerts.prometheus import render as rules_text
from alerts.replay import whole_seconds
from alerts.rules import ALL_RULES, RECORDS
from dashboards.files import BOARDS
from monitor.publish.exposition import Exposition

START, INTERVAL, CYCLES = 1_795_000_000.0, 15.0, 920
"""When the played hours begin, a cycle's seconds and how many: the end is in the middle of catching up."""

SPAN = 3 * 3600
LOOK_BACK = "20s"

SHOP = {"cluster": "shop", "kind": "group", "consumer": "fraud-detection", "topic": "payments"}
CHOSEN: dict[str, dict[str, Choice]] = {"consumer": SHOP, "topic": SHOP}
"""What is chosen on boards about one thing."""

# --- data --------------------------------------------------------------------------------------------


def played_samples(cycles: int = CYCLES, out: tuple[int, int] = OUT) -> str:
    """Return the scenario as OpenMetrics with times: what a scrape at the end of each cycle would have taken.

    Without what is about the monitor's own process, which has played three hours in some seconds.
    """
    played, exposition = Played(START, INTERVAL, segments=20, out=out), Exposition(EVERYTHING)
    lines = []
    for _ in range(cycles):
        at = played.due_at + 0.5
        for line in exposition.render(played.report()).plain.decode().splitlines():
            if line.startswith("streamgauge_"):
                lines.append(f"{_of_target(line)} {at:.1f}")
    return "\n".join([*lines, "# EOF", ""])


def remembering(folder: Path, *samples: str) -> AbstractContextManager[str]:
    """Run a Prometheus that has these samples as if it had scraped them; gives its address.

    A scrape marks a series that has gone. These samples cannot, so that a value would be taken for the present one
    for five minutes: instead it is for one interval and a little.
    """
    return backfilled(folder, *samples, options=[f"--query.lookback-delta={LOOK_BACK}"])


def _of_target(line: str) -> str:
    """Give a sample the labels that a scrape does."""
    target = 'job="streamgauge",instance="127.0.0.1:9760"'
    series, value = line.rsplit(None, 1)
    name, brace, labels = series.partition("{")
    return f"{name}{{{target},{labels} {value}" if brace else f"{name}{{{target}}} {value}"


def alerts_samples(address: str, start: float, end: float, step: int = 15) -> str:
    """Return the alerts that fire between two moments, as Prometheus would write them, evaluated with each scrape."""
    lines = []
    for rule in ALL_RULES:
        hold = whole_seconds(rule.hold)
        assert hold is not None, rule.name
        found = asked(address, "/api/v1/query_range", query=rule.expression, start=start, end=end, step=step)["result"]
        for series in found:
            since = last = -math.inf
            for at, _ in series["values"]:
                since, last = (since if at - last <= step else at), at
                if at - since >= hold:
                    labels = {
                        **series["metric"],
                        "alertname": rule.name,
                        "severity": rule.severity,
                        "alertstate": "firing",
                    }
                    text = ",".join(f'{key}="{value}"' for key, value in labels.items() if key != "__name__")
                    lines.append(f"ALERTS{{{text}}} 1 {at}")
    return "\n".join([*lines, "# EOF", ""])


# --- pictures ----------------------------------------------------------------------------------------


def draw(out: Path, source: Source, names: Sequence[str], chosen: Mapping[str, Mapping[str, Choice]]) -> None:
    """Write the picture of each board that is named."""
    for board in BOARDS:
        name = board.uid.removeprefix("streamgauge-")
        if name in names:
            photograph(Painter(board.json(), source, chosen.get(name, {})), out / f"{name}.png")


def photograph(painter: Painter, path: Path) -> None:
    """Have Chromium take a picture of a board, in as few colours as keep it readable."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(painter.page())
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={path}",
             f"--window-size={WIDTH + 12},{painter.height}", f"--user-data-dir={folder}/profile", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    subprocess.run(["pngquant", "--force", "--strip", "--output", path, "64", path], check=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KB")


def draw_what_runs(out: Path, source: Source, names: Sequence[str], choices: Sequence[str]) -> None:
    """Draw boards from a Prometheus that runs."""
    chosen: dict[str, Choice] = dict(each.split("=", 1) for each in choices)
    draw(out, source, names, dict.fromkeys(names, chosen))


def draw_what_is_played(out: Path, names: Sequence[str]) -> None:
    """Play the scenario, let Prometheus record and alert what it would have, and draw boards from that."""
    end = START + (CYCLES - 1) * INTERVAL
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with remembering(folder, played_samples()) as address:
            (folder / "records.yml").write_text(rules_text([], RECORDS))
            subprocess.run(
                ["promtool", "tsdb", "create-blocks-from", "rules", f"--url={address}", f"--start={START:.0f}",
                 f"--end={end:.0f}", "--eval-interval=1m", "--output-dir=data", "records.yml"],
                cwd=folder, check=True, capture_output=True,
            )  # fmt: skip
        with remembering(folder) as address:
            alerts = alerts_samples(address, START, end)
        with remembering(folder, alerts) as address:
            draw(out, Source(address, end, SPAN, "1m"), names, CHOSEN)


def main() -> None:
    """Draw what the command line says."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("boards", nargs="*", default=[board.uid.removeprefix("streamgauge-") for board in BOARDS])
    arguments.add_argument("--of", metavar="URL", help="a Prometheus that runs")
    arguments.add_argument("--minutes", type=float, default=10, help="how far back, with --of")
    arguments.add_argument("--until", type=float, default=time.time(), help="seconds since the epoch, with --of")
    arguments.add_argument("--choose", metavar="NAME=VALUE", action="append", default=[], help="with --of")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.of:
        source = Source(given.of, given.until, given.minutes * 60, "30s")
        draw_what_runs(given.out, source, given.boards, given.choose)
    else:
        draw_what_is_played(given.out, given.boards)


if __name__ == "__main__":
    sys.exit(main())
