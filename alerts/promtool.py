"""Prometheus' own checker of rule files, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from alerts.files import write
from alerts.prometheus import FILE_NAME
from monitor.errors import StreamgaugeError, UnreachableError


def check(rules: str) -> str:
    """Check a rule file given as text, every lint on, and return what promtool says about it.

    Raises:
        UnreachableError: promtool is not on PATH.
        StreamgaugeError: promtool does not accept the rules.
    """
    promtool = shutil.which("promtool")
    if promtool is None:
        raise UnreachableError(
            "cannot check the rules: promtool is not on PATH; it comes with Prometheus (Debian: package prometheus)"
        )
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write({FILE_NAME: rules}, Path(folder))
        command = [promtool, "check", "rules", "--lint=all", "--lint-fatal", str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed words and our path)
    said = " ".join(f"{answer.stdout} {answer.stderr}".replace(f"{folder}/", "").split())
    if answer.returncode != 0:
        msg = f"promtool does not accept the rules: {said}"
        raise StreamgaugeError(msg)
    return said
