"""Prometheus' own checker of rule files and runner of their tests, where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from alerts.cases import Document, as_text
from alerts.files import write
from alerts.prometheus import FILE_NAME
from monitor.errors import StreamgaugeError, UnreachableError


class Verdict(NamedTuple):
    """What promtool thinks of a test file, and its words where it failed."""

    passed: bool
    said: str


def check(rules: str) -> str:
    """Check a rule file given as text, every lint on, and return what promtool says about it.

    Raises:
        UnreachableError: promtool is not on PATH.
        StreamgaugeError: promtool does not accept the rules.
    """
    promtool = _promtool("check")
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write({FILE_NAME: rules}, Path(folder))
        command = [promtool, "check", "rules", "--lint=all", "--lint-fatal", str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed words and our path)
    said = " ".join(f"{answer.stdout} {answer.stderr}".replace(f"{folder}/", "").split())
    if answer.returncode != 0:
        msg = f"promtool does not accept the rules: {said}"
        raise StreamgaugeError(msg)
    return said


def test(jobs: Mapping[str, tuple[Document, str]]) -> dict[str, Verdict]:
    """Run test files, each against a rule file of its own, all in one promtool; return each one's verdict by its name.

    A rule file with the one rule that is asked about is evaluated many times faster than one with all.

    Raises:
        UnreachableError: promtool is not on PATH.
        StreamgaugeError: promtool ended without a word about some of them.
    """
    promtool = _promtool("test")
    names = {f"{index}": name for index, name in enumerate(jobs)}
    with tempfile.TemporaryDirectory() as folder:
        for index, (document, rules) in zip(names, jobs.values(), strict=True):
            write({FILE_NAME: rules, "test.yml": as_text(document)}, Path(folder) / index)
        command = [promtool, "test", "rules", *(f"{index}/test.yml" for index in names)]
        answer = subprocess.run(  # noqa: S603 (fixed words and our paths)
            command, cwd=folder, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    parts = re.split(r"^Unit Testing:  (\d+)/test\.yml$", answer.stdout, flags=re.MULTILINE)
    words = {names[index]: text.strip() for index, text in zip(parts[1::2], parts[2::2], strict=True)}
    if set(words) != set(jobs):
        msg = f"cannot test the rules: promtool ended with {answer.returncode}: {' '.join(answer.stdout.split())}"
        raise StreamgaugeError(msg)
    return {name: Verdict(text == "SUCCESS", text) for name, text in words.items()}


def _promtool(purpose: str) -> str:
    promtool = shutil.which("promtool")
    if promtool is None:
        msg = (
            f"cannot {purpose} the rules: promtool is not on PATH; it comes with Prometheus "
            "(Debian: package prometheus)"
        )
        raise UnreachableError(msg)
    return promtool
