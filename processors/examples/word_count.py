"""How often each word was written, by the minute.

    streamgauge worker --app processors.examples.word_count:app --bootstrap-servers HOST:PORT

Reads lines of text from topic lines and writes ``{"word", "start", "end", "count", "partial"}`` to word-counts.
A record has no time of its own: its timestamp in Kafka is taken.
"""

from __future__ import annotations

import re
from typing import Any

from processors.aggregates import count
from processors.job_app import JobApp
from processors.pipeline import Job, read
from processors.windows import Result


def declare(topic: str = "lines", results: str = "word-counts", name: str = "word-count") -> Job:
    """Return the job."""
    return (
        read(topic, name=name, decode=text)
        .flat_map(words)
        .key_by(lambda word: word)
        .window(60, grace=10)
        .aggregate(count())
        .map(counted)
        .to(results)
    )


def text(value: bytes | None) -> str:
    """Return a record's text."""
    return (value or b"").decode()


def words(line: str) -> list[str]:
    """Return the words of a line, in small letters."""
    return re.findall(r"\w+", line.lower())


def counted(result: Result) -> dict[str, Any]:
    """Return what is written of a word in a minute."""
    return {
        "word": result.key,
        "start": result.start,
        "end": result.end,
        "count": result.value,
        "partial": result.partial,
    }


job = declare()
app = JobApp(job)
