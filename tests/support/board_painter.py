"""A board as a page of HTML and SVG, drawn from what a Prometheus answers to its queries.

It is not Grafana: a board's JSON says what is where, which queries, units, thresholds, colours and texts, and what is
done with them here is as little as shows them.
"""

from __future__ import annotations

import html
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from board_reader import Choice, filled
from prometheus_servers import asked

WIDTH, COLUMNS, ROW, GAP = 1500, 24, 31, 6
"""Pixels of the page, columns of the grid, pixels of one of its rows and between two panels."""

LEFT, RIGHT = 62, 56
"""Pixels beside a chart that its axes take."""

LEGENDS = 6
"""Lines that a legend has room for."""

PALETTE = ["#3f8f4f", "#c9972b", "#3574b5", "#d0602f", "#8a4fb0", "#2f9c9c", "#b5476b", "#7a7a2e", "#5b6fbf", "#8c5a3c"]
COLORS = {
    "green": "#3f8f4f", "yellow": "#d9a514", "red": "#d0343f", "dark-red": "#9c1c26", "orange": "#e07a2b",
    "purple": "#8a4fb0", "blue": "#3574b5", "light-blue": "#9bbde0", "text": "#44505c",
}  # fmt: skip


@dataclass
class Source:
    """A Prometheus, the moment up to which it is asked, the seconds shown, and the rate interval."""

    address: str
    end: float
    span: float
    rate: str

    @property
    def begin(self) -> float:
        return self.end - self.span

    @property
    def step(self) -> int:
        return max(1, round(self.span / 360))

    def instant(self, expression: str) -> list[Any]:
        return list(asked(self.address, "/api/v1/query", query=expression, time=self.end)["result"])

    def over_time(self, expression: str) -> list[Any]:
        times = {"start": self.begin, "end": self.end, "step": self.step}
        return list(asked(self.address, "/api/v1/query_range", query=expression, **times)["result"])


# --- numbers as people read them ---------------------------------------------------------------------

SIZES = {
    "s": ((86400, " d"), (3600, " h"), (60, " min"), (1, " s"), (0.001, " ms")),
    "bytes": ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")),
    "short": ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K")),
}
"""The sizes in which each of Grafana's units is written, largest first."""


def shown(value: float | None, unit: str, decimals: int | None = None) -> str:
    """Return a number about as Grafana's units show it."""
    if value is None or math.isnan(value):
        return "?"
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f}%"
    for size, name in SIZES.get(unit, ()):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    if decimals is None:
        decimals = 0 if float(value).is_integer() else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}" + (" s" if unit == "s" else "")


def color_of(value: float, steps: Sequence[Mapping[str, Any]]) -> str:
    """Return the colour of the last threshold that a value has reached."""
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return COLORS[reached[-1]["color"]]


def named(legend: str, labels: Mapping[str, str]) -> str:
    """Return what a series is called."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend).strip() or "value"


def look_of(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return how a field of a panel is shown: the defaults, and over them what the overrides say."""
    defaults = panel["fieldConfig"]["defaults"]
    found = {"decimals": None, **{key: value for key, value in defaults.items() if key not in {"custom", "color"}}}
    for override in panel["fieldConfig"]["overrides"]:
        kind, text = override["matcher"]["id"], override["matcher"]["options"]
        if (kind == "byName" and text == name) or (kind == "byRegexp" and re.search(text.strip("/"), name)):
            found.update({each["id"]: each["value"] for each in override["properties"]})
    return found


def text_of(value: float, look: Mapping[str, Any]) -> str:
    """Return a value, or the text that the panel has for it."""
    for mapping in look["mappings"]:
        if f"{value:g}" in mapping["options"]:
            return str(mapping["options"][f"{value:g}"]["text"])
    return shown(value, look["unit"], look["decimals"])


def stretches(times: Iterable[float], step: float) -> Iterator[tuple[float, float]]:
    """Yield from when to when there are samples without a gap."""
    begin = last = -math.inf
    for at in times:
        if at - last > 1.5 * step:
            if last > -math.inf:
                yield begin, last + step
            begin = at
        last = at
    if last > -math.inf:
        yield begin, last + step


# --- charts ------------------------------------------------------------------------------------------


@dataclass
class Line:
    """A series on a chart."""

    name: str
    points: dict[float, float]
    look: dict[str, Any]
    color: str

    def last(self, source: Source) -> float | None:
        """Return its value at the end, or None where it has ended before."""
        newest = max(self.points, default=-math.inf)
        return self.points[newest] if newest >= source.end - 2 * source.step else None


class Plot:
    """The plane of a chart: times to x, values to y, from ``low`` to ``top`` in round ticks."""

    def __init__(self, source: Source, place: tuple[float, float, float], low: float, top: float) -> None:
        self.source, (self.left, self.right, self.height) = source, place
        top = top if top > low else low + 1
        rough = (top - low) / 4
        size = 10.0 ** math.floor(math.log10(rough))
        self.tick = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough * 0.999)
        self.low = math.floor(low / self.tick) * self.tick
        self.top = math.ceil(top / self.tick) * self.tick

    def x(self, at: float) -> float:
        share = (min(at, self.source.end) - self.source.begin) / self.source.span
        return self.left + share * (self.right - self.left)

    def y(self, value: float) -> float:
        return 4 + (self.height - 4) * (1 - (value - self.low) / (self.top - self.low))

    def polyline(self, line: Line) -> str:
        dash = "stroke-dasharray='7 6'" if "custom.lineStyle" in line.look else ""
        width = line.look.get("custom.lineWidth", 1) + 0.4
        style = f"fill=none stroke='{line.color}' stroke-width={width} {dash}"
        parts = []
        for begin, end in stretches(sorted(line.points), self.source.step):
            points = " ".join(
                f"{self.x(at):.1f},{self.y(value):.1f}"
                for at, value in sorted(line.points.items())
                if begin <= at < end
            )
            parts.append(f"<polyline points='{points}' {style} />")
        return "".join(parts)

    def level(self, value: float, color: str) -> str:
        y = self.y(value)
        inside = self.low <= value <= self.top
        return f"<line x1={self.left} x2={self.right} y1={y:.1f} y2={y:.1f} stroke='{color}' />" if inside else ""

    def stacked(self, lines: Sequence[Line]) -> str:
        times = sorted({at for line in lines for at in line.points})
        below, parts = [0.0] * len(times), []
        for line in lines:
            above = [low + line.points.get(at, 0.0) for low, at in zip(below, times, strict=True)]
            there, back = zip(times, above, strict=True), zip(reversed(times), reversed(below), strict=True)
            points = " ".join(f"{self.x(at):.1f},{self.y(value):.1f}" for at, value in (*there, *back))
            parts.append(f"<polygon points='{points}' fill='{line.color}' fill-opacity=.65 stroke='{line.color}' />")
            below = above
        return "".join(parts)

    def ticks(self) -> Iterator[float]:
        for index in range(round((self.top - self.low) / self.tick) + 1):
            yield self.low + index * self.tick

    def axis(self, unit: str, label: str) -> str:
        parts = [f"<text x={self.left + 3} y=11 class=unit>{html.escape(label)}</text>"]
        for value in self.ticks():
            y = self.y(value)
            parts.append(
                f"<line x1={self.left} x2={self.right} y1={y:.1f} y2={y:.1f} class=grid />"
                f"<text x={self.left - 5} y={y + 4:.1f} text-anchor=end>{shown(value, unit)}</text>"
            )
        return "".join(parts) + self.times()

    def right_axis(self, unit: str) -> str:
        return "".join(
            f"<text x={self.right + 5} y={self.y(value) + 4:.1f}>{shown(value, unit)}</text>" for value in self.ticks()
        )

    def times(self) -> str:
        parts = []
        for index, anchor in enumerate(["start", *["middle"] * 4, "end"]):
            at = self.source.begin + self.source.span * index / 5
            text = time.strftime("%H:%M", time.gmtime(at))
            parts.append(f"<text x={self.x(at):.1f} y={self.height + 15:.0f} text-anchor={anchor}>{text}</text>")
        return "".join(parts)


# --- the board ---------------------------------------------------------------------------------------


class Painter:
    """Draws one board from one source."""

    def __init__(self, board: Mapping[str, Any], source: Source, chosen: Mapping[str, Choice]) -> None:
        self.board, self.source, self.chosen = board, source, chosen

    @property
    def height(self) -> int:
        """Pixels of the whole page."""
        return max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in self.board["panels"]) * ROW + 52

    def page(self) -> str:
        """Return the board as a page that needs nothing else."""
        chosen = [
            (each["label"], str(self.chosen.get(each["name"]) or "All"))
            for each in self.board["templating"]["list"][1:]
        ]
        choices = " ".join(f"<span>{html.escape(label)} <b>{html.escape(text)}</b></span>" for label, text in chosen)
        since, until = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in (self.source.begin, self.source.end))
        return (
            f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>"
            f"<header><b>{html.escape(self.board['title'])}</b> {choices}<i>{since} to {until[-5:]} UTC</i></header>"
            f"<main>{''.join(map(self._placed, self.board['panels']))}</main>"
        )

    def _placed(self, panel: Mapping[str, Any]) -> str:
        place, unit = panel["gridPos"], WIDTH / COLUMNS
        width, height = place["w"] * unit - GAP, place["h"] * ROW - GAP
        box = f"left:{place['x'] * unit}px;top:{place['y'] * ROW}px;width:{width}px"
        if panel["type"] == "row":
            return f"<h2 style='{box}'>{html.escape(panel['title'])}</h2>"
        draw = {"stat": self._stat, "table": self._table, "timeseries": self._chart, "state-timeline": self._bars}
        inside = draw[panel["type"]](panel, width - 12, height - 26)
        return f"<section style='{box};height:{height}px'><h3>{html.escape(panel['title'])}</h3>{inside}</section>"

    def _filled(self, expression: str) -> str:
        return filled(
            expression, self.board, self.chosen, span=f"{int(self.source.span)}s", rate=self.source.rate
        )  # fmt: skip

    def _answers(self, panel: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
        for target in panel["targets"]:
            ask = self.source.instant if target["instant"] else self.source.over_time
            yield target, ask(self._filled(target["expr"]))

    # --- single numbers

    def _stat(self, panel: Mapping[str, Any], *_: float) -> str:
        cells = [
            self._number(panel, named(target["legendFormat"], each["metric"]), float(each["value"][1]))
            for target, series in self._answers(panel)
            for each in series
        ]
        nothing = f"<div class=none><b>{html.escape(panel['fieldConfig']['defaults']['noValue'])}</b></div>"
        return f"<div class=stat>{''.join(cells) or nothing}</div>"

    def _number(self, panel: Mapping[str, Any], name: str, value: float) -> str:
        look, mode = look_of(panel, name), panel["options"]["textMode"]
        fixed = look.get("color", {}).get("fixedColor")
        color = COLORS[fixed] if fixed else color_of(value, look["thresholds"]["steps"])
        label = f"<small>{html.escape(name)}</small>" if mode == "value_and_name" else ""
        text = name if mode == "name" else text_of(value, look)
        return f"<div style='background:{color}'>{label}<b>{html.escape(text)}</b></div>"

    # --- tables

    def _table(self, panel: Mapping[str, Any], _: float, height: float) -> str:
        organize = panel["transformations"][1]["options"]
        unseen = organize["excludeByName"]
        columns = {name: heading for name, heading in organize["renameByName"].items() if not unseen.get(name)}
        rows = self._rows(panel)
        there = set().union(*rows)
        columns = {name: heading for name, heading in columns.items() if name in there}
        by = next(key for key, name in columns.items() if name == panel["options"]["sortBy"][0]["displayName"])
        ordered = sorted(rows, key=lambda row: -row.get(by, -1))[: int(height / 22) - 1]
        head = "".join(f"<th>{html.escape(heading)}" for heading in columns.values())
        body = "".join(
            "<tr>" + "".join(self._cell(panel, heading, row.get(name)) for name, heading in columns.items())
            for row in ordered
        )
        return f"<table><tr>{head}</tr>{body}</table>"

    def _rows(self, panel: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Merge the answers: a row for each combination of the labels that all of them have."""
        answers = [(f"Value #{target['refId']}", series) for target, series in self._answers(panel)]
        labels = [set(each["metric"]) for _, series in answers for each in series]
        shared = set.intersection(*labels) if labels else set()
        rows: dict[tuple[str, ...], dict[str, Any]] = {}
        for name, series in answers:
            for each in series:
                row = rows.setdefault(tuple(each["metric"][label] for label in sorted(shared)), {})
                row.update(each["metric"])
                row[name] = float(each["value"][1])
        return list(rows.values())

    def _cell(self, panel: Mapping[str, Any], heading: str, value: Any) -> str:
        look = look_of(panel, heading)
        if value is None:
            return f"<td class=none>{html.escape(panel['fieldConfig']['defaults']['noValue'])}"
        text = html.escape(value if isinstance(value, str) else text_of(value, look))
        kind = look.get("custom.cellOptions", {}).get("type")
        color = color_of(value, look["thresholds"]["steps"]) if kind else ""
        if kind == "gauge":
            share = max(0, min(1, value / look["max"])) * 100
            return f"<td class=gauge><div style='width:{share:.0f}%;background:{color}'></div>{text}"
        leads_on = look.get("links") and isinstance(value, str)
        return f"<td{' class=link' if leads_on else ''} style='color:{color}'>{text}"

    # --- charts

    def _lines(self, panel: Mapping[str, Any]) -> list[Line]:
        lines: list[Line] = []
        for target, series in self._answers(panel):
            for each in series:
                name = named(target["legendFormat"], each["metric"])
                look = look_of(panel, name)
                fixed = look.get("color", {}).get("fixedColor")
                color = COLORS[fixed] if fixed else PALETTE[len(lines) % len(PALETTE)]
                points = {float(at): float(value) for at, value in each["values"] if math.isfinite(float(value))}
                if points:
                    lines.append(Line(name, points, look, color))
        return lines

    def _chart(self, panel: Mapping[str, Any], width: float, height: float) -> str:
        lines = self._lines(panel)
        if not lines:
            return "<p class=none>No data</p>"
        on_right = [line for line in lines if line.look.get("custom.axisPlacement") == "right"]
        on_left = [line for line in lines if line not in on_right] or lines
        height -= 16 * min(len(lines), LEGENDS) + 22
        right = width - (RIGHT if on_right else 8)
        parts = [self._plot(panel, on_left, right, height)]
        if on_right:
            top = max(value for line in on_right for value in line.points.values())
            plot = Plot(self.source, (LEFT, right, height), 0, top)
            parts += [*map(plot.polyline, on_right), plot.right_axis(on_right[0].look["unit"])]
        foremost = sorted(lines, key=lambda line: -max(line.points.values()))[:LEGENDS]
        svg = f"<svg width={width} height={height + 20}>{''.join(parts)}</svg>"
        return f"{svg}<dl>{''.join(map(self._entry, foremost))}</dl>"

    def _plot(self, panel: Mapping[str, Any], lines: Sequence[Line], right: float, height: float) -> str:
        defaults = panel["fieldConfig"]["defaults"]
        custom = defaults["custom"]
        is_stacked = custom["stacking"]["mode"] == "normal"
        values = [value for line in lines for value in line.points.values()]
        if is_stacked:
            times = {at for line in lines for at in line.points}
            values = [sum(line.points.get(at, 0) for line in lines) for at in times]
        has_levels = custom["thresholdsStyle"]["mode"] == "line"
        levels = [step for step in defaults["thresholds"]["steps"] if has_levels and step["value"] is not None]
        top = max(values)
        near = [step["value"] for step in levels if step["value"] <= 1.6 * top]
        low = min([*values, *([0] if "min" in defaults else [])])
        plot = Plot(self.source, (LEFT, right, height), low, max(top, *near, low))
        return "".join(
            [
                plot.stacked(lines) if is_stacked else "",
                plot.axis(defaults["unit"], custom["axisLabel"]),
                *(plot.level(step["value"], COLORS[step["color"]]) for step in levels),
                *([] if is_stacked else map(plot.polyline, lines)),
                self._marks(plot),
            ]
        )

    def _entry(self, line: Line) -> str:
        numbers = (line.last(self.source), max(line.points.values()))
        cells = "".join(f"<dd>{shown(number, line.look['unit'], line.look['decimals'])}" for number in numbers)
        return f"<dt><i style='background:{line.color}'></i>{html.escape(line.name)}{cells}"

    def _marks(self, plot: Plot) -> str:
        """Return the annotations: a line where each begins, and a veil over those that last."""
        drawn = []
        for mark in self.board["annotations"]["list"]:
            color = COLORS[mark["iconColor"]]
            for series in self.source.over_time(self._filled(mark["expr"])):
                for begin, end in stretches([float(at) for at, _ in series["values"]], self.source.step):
                    x, width = plot.x(begin), plot.x(end) - plot.x(begin)
                    drawn.append(
                        f"<line x1={x:.0f} x2={x:.0f} y1=2 y2={plot.height:.0f} stroke='{color}' class=mark />"
                    )
                    if end - begin > 3 * self.source.step:
                        box = f"x={x:.0f} y=2 width={width:.0f} height={plot.height - 2:.0f}"
                        drawn.append(f"<rect {box} fill='{color}' fill-opacity=.08 />")
        return "".join(drawn)

    def _bars(self, panel: Mapping[str, Any], width: float, height: float) -> str:
        lines = self._lines(panel)
        if not lines:
            return "<p class=none>No data</p>"
        plot = Plot(self.source, (min(330, width * 0.4), width - 8, height - 22), 0, 1)
        each, parts = min(28.0, (height - 22) / len(lines)), []
        for index, line in enumerate(lines):
            y = index * each
            parts.append(f"<text x=0 y={y + each * 0.62:.1f}>{html.escape(line.name[:52])}</text>")
            for begin, end in stretches(sorted(line.points), self.source.step):
                x, w = plot.x(begin), max(2.0, plot.x(end) - plot.x(begin))
                box = f"x={x:.1f} y={y + 2:.1f} width={w:.1f} height={each - 4:.1f}"
                parts.append(f"<rect {box} fill='{line.color}' />")
        return f"<svg width={width} height={height}>{''.join(parts)}{plot.times()}</svg>"


STYLE = f"""
body {{ margin: 0; font: 12px 'DejaVu Sans', sans-serif; background: #f1f3f5; color: #2b333b; width: {WIDTH + 12}px }}
header {{ padding: 8px 10px; font-size: 14px; background: #fff; border-bottom: 1px solid #d6dbe0 }}
header span {{ margin-left: 18px; font-size: 12px }}
header i {{ float: right; font-size: 12px }}
main {{ position: relative; margin: 6px }}
section, h2 {{ position: absolute; box-sizing: border-box; overflow: hidden }}
section {{ background: #fff; border: 1px solid #d6dbe0; border-radius: 3px; padding: 0 6px }}
h2 {{ font-size: 14px; margin: 0; padding: 8px 2px }}
h3 {{ font-size: 12px; margin: 5px 0 4px; font-weight: bold; white-space: nowrap }}
.stat {{ display: flex; gap: 3px; height: calc(100% - 28px) }}
.stat div {{ flex: 1; color: #fff; border-radius: 3px; display: flex; flex-direction: column; align-items: center;
  justify-content: center; overflow: hidden; white-space: nowrap }}
.stat b {{ font-size: 19px; font-weight: normal }}
.stat small {{ font-size: 11px }}
.stat .none {{ background: #8a939c }}
p.none {{ text-align: center; color: #8a939c; margin-top: 30px }}
table {{ border-collapse: collapse; width: 100%; font-size: 12px }}
th {{ text-align: left; font-weight: normal; color: #3574b5 }}
td, th {{ padding: 2px 6px; height: 18px; white-space: nowrap }}
tr {{ border-bottom: 1px solid #e6eaed }}
td.none {{ color: #8a939c }}
td.link {{ text-decoration: underline }}
td.gauge {{ width: 170px }}
td.gauge div {{ display: inline-block; height: 11px; margin-right: 6px; max-width: 105px }}
svg text {{ font-size: 11px; fill: #5b6670 }}
svg .grid {{ stroke: #e3e7ea }}
svg .mark {{ stroke-dasharray: 3 3; stroke-opacity: .6 }}
svg .unit {{ font-size: 10px }}
dl {{ display: grid; grid-template-columns: auto 70px 70px; margin: 2px 4px; line-height: 16px; font-size: 11px }}
dt {{ overflow: hidden; white-space: nowrap }}
dd {{ margin: 0; text-align: right }}
dt i {{ display: inline-block; width: 12px; height: 3px; margin: 0 6px 3px 0 }}
"""
