"""The examples, against plain loops over what was fed to them."""

import json
import random
import re
from collections import Counter, defaultdict

import pytest

from processors.examples import average_temperature, edge, enrichment, error_codes, word_count
from processors.memory import Memory

T0 = 1_795_000_020  # the beginning of a minute
LINES = ["The sea, the sea", "", "¿Qué? the end", "sea 42", "a-b a_b"]


@pytest.fixture
def chance():
    return random.Random(7)


def sensors_readings(chance, count):
    """Make readings in parts of a quarter of a degree, up to 20 s out of order."""
    return [
        {
            "sensor": f"s-{chance.randrange(4)}",
            "temperature": chance.randrange(-400, 280) / 4,  # some are colder or hotter than air gets
            "at": T0 + number * 0.7 - chance.random() * 20,
        }
        for number in range(count)
    ]


def starts(at, size, step):
    """Return the beginnings of the windows that a moment lies in."""
    return [
        start for start in range(int(at) - size - step, int(at) + 1) if start % step == 0 and start <= at < start + size
    ]


def test_word_count(chance):
    """Words of all partitions, by the minute of the record."""
    run, expected = Memory(word_count.job, partitions=3), Counter()
    for number in range(600):
        line, at = chance.choice(LINES), T0 + number * 0.5 - chance.random() * 5
        run.feed(line.encode(), partition=number % 3, timestamp=at)
        for word in re.split(r"[^a-z0-9_é]+", line.lower()):
            if word:
                expected[word, int(at) // 60 * 60] += 1
    run.feed(b"\xff\xfe", partition=0, timestamp=T0)
    run.close()

    found = run.values("word-counts")
    assert expected == {(each["word"], each["start"]): each["count"] for each in found}
    assert len(expected) == len(found)
    assert (1, 0, 0) == (run.counts.failed, run.counts.late, run.counts.partly_late)


def test_average_temperature(chance):
    """Of each sensor in each window that it had a reading in; what cannot be true is left out."""
    run, expected = Memory(average_temperature.job, partitions=2), defaultdict(list)
    for reading in sensors_readings(chance, 2000):
        run.feed(reading, key=reading["sensor"], partition=int(reading["sensor"][2:]) % 2, timestamp=reading["at"])
        if -90 <= reading["temperature"] <= 60:
            for start in starts(reading["at"], 300, 30):
                expected[reading["sensor"], start].append(reading["temperature"])
    run.feed({"sensor": "s-1", "temperature": "warm", "at": T0}, key="s-1")
    run.feed({"sensor": "s-1", "temperature": 1, "at": T0 - 5000}, key="s-1", partition=1)
    run.close()

    found = run.values("readings-averages-5m")
    assert {where: (len(values), sum(values) / len(values)) for where, values in expected.items()} == {
        (each["sensor"], each["start"]): (each["count"], each["average"]) for each in found
    }
    assert len(expected) == len(found)
    assert {300} == {each["end"] - each["start"] for each in found}
    assert [b"decode: ValueError: temperature is not a number"] == [
        dict(letter.headers)["streamgauge.error"] for letter in run.sent["readings-dlq"]
    ]
    assert [T0 - 5000] == [json.loads(late.value)["at"] for late in run.sent["readings-late"]]


def test_error_codes(chance):
    """Only errors; of each service and minute, whatever partition they came in."""
    run, expected = Memory(error_codes.job, partitions=2), defaultdict(Counter)
    for number in range(1500):
        request = {
            "service": chance.choice(["cart", "login", "search"]),
            "code": chance.choice([200, 301, 399, 400, 404, 500, 503]),
            "at": T0 + number * 0.3 - chance.random() * 10,
        }
        run.feed(request, partition=number % 2, timestamp=request["at"])
        if request["code"] > 399:
            expected[request["service"], int(request["at"]) // 60 * 60][str(request["code"])] += 1
    run.feed({"service": "cart", "at": T0})
    run.close()

    found = run.values("error-codes")
    assert expected == {(each["service"], each["start"]): each["codes"] for each in found}
    assert len(expected) == len(found)
    assert 1 == run.counts.failed


def test_edge(chance):
    """Every reading that can be true, in order, in degrees Celsius."""
    run, expected = Memory(edge.job), []
    for number in range(500):
        fahrenheit = chance.randrange(-2000, 2000) / 10
        run.feed({"sensor": "s-1", "fahrenheit": fahrenheit, "at": T0 + number}, key="s-1")
        celsius = (fahrenheit - 32) / 1.8
        if -90 <= celsius <= 60:
            expected.append({"sensor": "s-1", "temperature": pytest.approx(celsius, abs=0.0051), "at": T0 + number})
    run.feed({"sensor": "s-1"}, key="s-1")

    assert expected == run.values("readings")
    assert {b"s-1"} == {output.key for output in run.sent["readings"]}
    assert 100 < len(expected) < 500
    assert 1 == run.counts.failed


def test_what_the_edge_writes_is_what_the_averages_read():
    """One example feeds the other."""
    first, second = Memory(edge.job), Memory(average_temperature.job)
    first.feed({"sensor": "s-1", "fahrenheit": 68, "at": T0}, key="s-1")
    (output,) = first.sent["readings"]
    second.feed(output.value, key=output.key, timestamp=T0)
    second.close()

    assert {20.0} == {each["average"] for each in second.values("readings-averages-5m")}


def test_enrichment(chance):
    """Every reading, whether its sensor is known or not."""
    run, expected = Memory(enrichment.job), []
    for reading in sensors_readings(chance, 200):
        run.feed(reading, key=reading["sensor"])
        place = {"s-1": ("Rotterdam", 0), "s-2": ("Rotterdam", 3), "s-3": ("Lagos", 1)}.get(
            reading["sensor"], (None, None)
        )
        expected.append({**reading, "site": place[0], "floor": place[1]})

    assert expected == run.values("readings-enriched")
    assert {None, "Lagos", "Rotterdam"} == {each["site"] for each in expected}


@pytest.mark.parametrize("example", [average_temperature, edge, enrichment, error_codes, word_count])
def test_an_example_is_an_app_that_the_worker_runs(example):
    """Its group is the name of the job, and each part of the job is an agent."""
    assert example.job.name == example.app.conf.id
    assert (2 if example.job.rekeyed else 1) == len(example.app.agents)
