"""The series of the rules' cases as samples for a real Prometheus, each case in a time of its own."""

import re

from alerts.cases import documents
from monitor.catalog import BY_NAME

APART_SECONDS = 16 * 3600
"""Between the beginnings of two cases: longer than the longest case and what rules look back together."""

BEGIN = 1_700_006_400  # a multiple of APART_SECONDS and of a minute

CASES = [(name, case) for name, document in documents().items() for case in document["tests"]]
BASES = {id(case): BEGIN + index * APART_SECONDS for index, (_, case) in enumerate(CASES)}


def minute(moment):
    return int(moment.removesuffix("m"))


def samples(notation):
    """promtool's notation as values, None where there is no sample."""
    for token in notation.split():
        match = re.fullmatch(r"(?P<from>_|stale|[\d.]+)(?P<step>[+-][\d.]+)?(x(?P<times>\d+))?", token)
        if match["from"] in {"_", "stale"}:
            yield from [None] * int(match["times"] or 1)
        else:
            yield from (
                float(match["from"]) + float(match["step"] or 0) * i for i in range(int(match["times"] or 0) + 1)
            )


def case_lines():
    """Every sample of every case as lines of OpenMetrics, by metric."""
    lines = {}
    for _, case in CASES:
        base = BASES[id(case)]
        for series in case["input_series"]:
            name = series["series"].split("{")[0]
            shift = base if BY_NAME[name].unit == "timestamp" else 0
            for index, value in enumerate(samples(series["values"])):
                if value is not None:
                    lines.setdefault(name, []).append(f"{series['series']} {value + shift!r} {base + 60 * index}")
    return lines


def openmetrics(*parts):
    """Lines by metric, of several sources, as one text for promtool."""
    names = dict.fromkeys(name for lines in parts for name in lines)
    return "".join(
        f"# TYPE {name} unknown\n" + "".join(f"{line}\n" for lines in parts for line in lines.get(name, ()))
        for name in names
    ) + "# EOF\n"  # fmt: skip
