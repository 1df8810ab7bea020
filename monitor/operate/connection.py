"""From an address to a cluster: names, connections, TLS, log-in, then the same at every broker that it names.

The classic trap stands in the middle: a bootstrap address only tells where the brokers say they listen
(``advertised.listeners``), and every number is read there. So each step is taken at both, and said of both.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from monitor.errors import TransportError
from monitor.model import Why
from monitor.observe.kafka import cold
from monitor.observe.kafka.transport import TLS_PROTOCOLS, Address, addresses, tls_context
from monitor.operate import releases
from monitor.operate.certificates import CertificateError, read_der
from monitor.operate.configuration import SOON, ends
from monitor.operate.doctor import (
    CLUSTER,
    CONFIGURATION,
    Check,
    Line,
    counted,
    failed,
    ok,
    skipped,
    softened,
    some,
    warning,
)
from monitor.operate.notes import Notes
from monitor.operate.reach import ReachError, reach, shake_hands, trusting_anybody

SASL_AUTHENTICATION_FAILED = 58

CLOCK_SECONDS = 1.0
"""A difference of clocks from which ages in seconds are visibly wrong."""

BOOTSTRAP_REACH, BOOTSTRAP_TLS, BOOTSTRAP_LOGIN = "bootstrap reach", "bootstrap TLS", "bootstrap log-in"
BROKER_REACH, BROKER_TLS, BROKER_LOGIN = "broker reach", "broker TLS", "broker log-in"
CONTROLLER = "controller"


def checks(notes: Notes) -> list[Check]:
    """Return the checks of a cluster's connections, in the order in which they depend on each other."""
    tls = notes.cluster.security_protocol in TLS_PROTOCOLS
    every = [
        Check(BOOTSTRAP_REACH, partial(_reach_bootstrap, notes), (CONFIGURATION,), 2),
        Check(BOOTSTRAP_TLS, partial(_one_of, notes, _tls), (BOOTSTRAP_REACH,), 3),
        Check(BOOTSTRAP_LOGIN, partial(_one_of, notes, _log_in), (BOOTSTRAP_REACH, BOOTSTRAP_TLS), 5),
        Check(CLUSTER, partial(_cluster, notes), (BOOTSTRAP_LOGIN,)),
        Check(BROKER_REACH, partial(_reach_brokers, notes), (CLUSTER,), 2),
        Check(BROKER_TLS, partial(_each, notes, _brokers, _tls), (BROKER_REACH,), 3),
        Check(BROKER_LOGIN, partial(_each, notes, _brokers, _log_in), (BROKER_REACH, BROKER_TLS), 5),
        Check("versions", partial(_versions, notes), (BROKER_LOGIN,), 4),
        Check(CONTROLLER, partial(_controller, notes), (BROKER_LOGIN,), 4),
        Check("clock", partial(_clock, notes), (CONTROLLER,)),
    ]
    return [each for each in every if tls or each.name not in {BOOTSTRAP_TLS, BROKER_TLS}]


# --- addresses ------------------------------------------------------------------------------------------

Place = tuple[str, Address]
"""What a person calls it (``broker 2 (b:9092)``), and where it is."""


def _bootstrap(notes: Notes) -> list[Place]:
    return [(str(address), address) for address in addresses(notes.cluster.bootstrap_servers)]


def _brokers(notes: Notes) -> list[Place]:
    return [(f"broker {node} ({address})", address) for node, address in notes.brokers.items()]


async def _reach_bootstrap(notes: Notes) -> Sequence[Line]:
    places = _bootstrap(notes)
    answers = await asyncio.gather(*(_reached(notes, address) for _, address in places))
    lines = [
        failed(name, str(answer), answer.advice)
        for (name, _), answer in zip(places, answers, strict=True)
        if answer is not None
    ]
    fine = [name for (name, _), answer in zip(places, answers, strict=True) if answer is None]
    return softened([*([ok(some(fine), f"{some(fine)} accepts connections")] if fine else []), *lines])


async def _reach_brokers(notes: Notes) -> Sequence[Line]:
    answers = dict(
        zip(
            notes.brokers,
            await asyncio.gather(*(_reached(notes, address) for address in notes.brokers.values())),
            strict=True,
        )
    )
    asked = next(iter(notes.described))
    fine = [node for node, answer in answers.items() if answer is None]
    lines = [
        advertised(asked, node, notes.brokers[node], answer) for node, answer in answers.items() if answer is not None
    ]
    seen = f"every advertised address accepts connections: {some(notes.brokers[node] for node in fine)}"
    if lines:
        seen = f"{some(notes.brokers[node] for node in fine)} accepts connections"
    return [*([ok(_numbers(fine), seen)] if fine else []), *lines]


def advertised(bootstrap: Address, node: int, address: Address, error: ReachError) -> Line:
    """Say that a bootstrap address answers and the broker it names does not, with both addresses."""
    return failed(
        f"broker {node} ({address})",
        f"bootstrap {bootstrap} answers and says that broker {node} listens at {address}, but {error}",
        f"if broker {node} runs, set its advertised.listeners to an address that this machine reaches, "
        f"or open the way to {address}; else start it",
    )


async def _reached(notes: Notes, address: Address) -> ReachError | None:
    if address in notes.reached:
        return None
    try:
        await reach(address, notes.seconds)
    except ReachError as exc:
        return exc
    notes.reached.add(address)
    return None


def _numbers(nodes: Sequence[object]) -> str:
    return f"broker{'' if len(nodes) == 1 else 's'} {some(nodes)}"


async def _each(
    notes: Notes, places: Callable[[Notes], list[Place]], look: Callable[[Notes, Place], Awaitable[Line]]
) -> Sequence[Line]:
    """Look at every place that accepts connections; those where all is the same and fine share a line."""
    reached = [place for place in places(notes) if place[1] in notes.reached]
    return merged(await asyncio.gather(*(look(notes, place) for place in reached)))


async def _one_of(notes: Notes, look: Callable[[Notes, Place], Awaitable[Line]]) -> Sequence[Line]:
    """Look at the bootstrap addresses, of which one that answers is enough."""
    return softened(await _each(notes, _bootstrap, look))


def merged(lines: Sequence[Line]) -> list[Line]:
    """Put lines that say the same fine thing into one: a person reads what differs."""
    places: dict[Line, list[str]] = defaultdict(list)
    for line in lines:
        places[Line(line.verdict, "", line.seen, line.advice)].append(line.what)
    return [
        Line(each.verdict, some(names), each.seen if len(names) == 1 else f"{some(names)}: {each.seen}", each.advice)
        for each, names in places.items()
    ]


# --- TLS ------------------------------------------------------------------------------------------------


async def _tls(notes: Notes, place: Place) -> Line:
    name, address = place
    if address in notes.silent:
        return failed(name, notes.silent[address], _SILENT)
    try:
        shaken = await shake_hands(address, tls_context(notes.cluster.tls), notes.seconds)
    except ssl.SSLCertVerificationError as exc:
        return await _distrusted(notes, place, exc)
    except TimeoutError:
        notes.silent[address] = f"{address} accepts the connection and does not shake hands within {notes.seconds:g} s"
        return failed(name, notes.silent[address], _SILENT)
    except (OSError, EOFError) as exc:
        spoken = await _spoken(notes, address)
        return failed(name, f"no TLS: {_tls_text(exc)}", advice(notes.cluster.security_protocol, spoken))
    notes.greeted.add(address)
    return certificate_line(name, shaken.protocol, shaken.certificate, datetime.fromtimestamp(notes.clock(), UTC))


def certificate_line(name: str, protocol: str, certificate: bytes | None, at: datetime) -> Line:
    """Say what was agreed with a broker whose certificate is trusted, and whether that ends soon."""
    try:
        shown = read_der(certificate or b"")
    except CertificateError as exc:
        return ok(name, f"{protocol}, certificate trusted ({exc}, as far as can be told here)")
    seen = f"{protocol}, certificate of {ends(shown)}, signed by {shown.issuer}"
    if shown.not_after <= at + SOON:
        return warning(name, f"{seen}: it expires soon", "renew the broker's certificate")
    return ok(name, seen)


async def _distrusted(notes: Notes, place: Place, exc: ssl.SSLCertVerificationError) -> Line:
    name, address = place
    try:
        certificate = (await shake_hands(address, trusting_anybody(), notes.seconds)).certificate
        shown = read_der(certificate or b"")
    except (OSError, EOFError, CertificateError):
        return failed(name, f"its certificate is not trusted: {exc.verify_message}", _DISTRUSTED[0])
    whose = f"{ends(shown)}, signed by {shown.issuer}"
    names = f", for {some(shown.names)}" if shown.names else ", for no host at all"
    what_to_do = _DISTRUSTED.get(exc.verify_code, _DISTRUSTED[0]).format(
        host=address.host, issuer=shown.issuer, names=some(shown.names) or shown.subject
    )
    return failed(name, f"its certificate ({whose}{names}) is not trusted: {exc.verify_message}", what_to_do)


# By OpenSSL's code of what is wrong (x509_vfy.h).
_DISTRUSTED: Mapping[int, str] = {
    0: "check tls.ca_file: it must hold the certificate of who signed the broker's",
    9: "check the clock of this machine, or give the broker another certificate",
    10: "renew the broker's certificate; if it is not expired, check the clock of this machine",
    18: "add the broker's own certificate to tls.ca_file: it is signed by itself",
    19: "add the certificate of {issuer} to tls.ca_file",
    20: "add the certificate of {issuer} to tls.ca_file",
    62: "name the broker as its certificate does ({names}), or give it a certificate for {host}",
    64: "name the broker as its certificate does ({names}), or give it a certificate for {host}",
}


def _tls_text(exc: Exception) -> str:
    return (
        f"{exc.reason or exc}" if isinstance(exc, ssl.SSLError) else "the connection was closed instead of a handshake"
    )


# --- log-in -----------------------------------------------------------------------------------------------


async def _log_in(notes: Notes, place: Place) -> Line:
    name, address = place
    if notes.cluster.security_protocol in TLS_PROTOCOLS and address not in notes.greeted:
        return skipped(name, "not looked at: TLS did not succeed")
    if address in notes.silent:
        return failed(name, notes.silent[address], _SILENT)
    try:
        notes.versions[address] = await notes.asker.versions(address)
        facts = await cold.describe_cluster(notes.asker, address)
    except TransportError as exc:
        notes.versions.pop(address, None)
        if exc.why == Why.TIMEOUT:
            notes.silent[address] = str(exc)
            return failed(name, str(exc), _SILENT)
        return failed(name, str(exc), await _login_advice(notes, address, exc))
    notes.described.setdefault(address, facts)
    sasl = notes.cluster.sasl
    who = "" if sasl is None else f" to {sasl.username or sasl.client_id or 'us'} by {sasl.mechanism}"
    return ok(name, f"answers{who}")


_SILENT = "see whether the broker is overloaded, stopped or starting; if it is no Kafka broker, correct the port"


async def _login_advice(notes: Notes, address: Address, exc: TransportError) -> str:
    protocol, sasl = notes.cluster.security_protocol, notes.cluster.sasl
    if exc.why == SASL_AUTHENTICATION_FAILED and sasl is not None:
        if sasl.mechanism in {"OAUTHBEARER", "GSSAPI"}:
            return ""  # what was seen says what to do
        return f"check sasl.username, sasl.password and sasl.mechanism ({sasl.mechanism}): they go together"
    if exc.why == Why.UNSUPPORTED and not protocol.startswith("SASL_"):
        return "use brokers of Kafka 2.8 or later"
    return advice(protocol, await _spoken(notes, address))


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a port turned out to speak: TLS, Kafka (below it), and with which log-ins; none where it wants none."""

    tls: bool
    kafka: bool
    mechanisms: tuple[str, ...] = ()


async def _spoken(notes: Notes, address: Address) -> Spoken:
    """Find out what a port speaks, without logging in."""
    try:
        await shake_hands(address, trusting_anybody(), notes.seconds)
        tls = True
    except (OSError, EOFError):
        tls = False
    asker = notes.asker_for(
        notes.cluster.model_copy(update={"security_protocol": "SSL" if tls else "PLAINTEXT", "sasl": None})
    )
    try:
        await asker.versions(address)
    except TransportError:
        await asker.close()
        return Spoken(tls, kafka=False)
    try:
        return Spoken(tls, kafka=True, mechanisms=await cold.sasl_mechanisms(asker, address))
    except TransportError:  # a broker without log-ins at all does not offer the request
        return Spoken(tls, kafka=True)
    finally:
        await asker.close()


def advice(protocol: str, spoken: Spoken) -> str:
    """Say what to set so that it fits what a port speaks; where it fits as far as that tells, what else there is."""
    login, tls = "SASL_" if spoken.mechanisms else "", "SSL" if spoken.tls else "PLAINTEXT"
    one_of = f" and give a log-in it offers ({', '.join(spoken.mechanisms)})" if spoken.mechanisms else ""
    has_login, has_tls = protocol.startswith("SASL_"), protocol in TLS_PROTOCOLS
    rules = (
        (spoken.tls and not has_tls and not spoken.kafka,
         "the port speaks TLS: set security_protocol to SSL or SASL_SSL, and tls.ca_file to its signer"),
        (spoken.tls and not has_tls, f"the port speaks TLS: set security_protocol to {login}{tls}{one_of}"),
        (has_tls and not spoken.tls and spoken.kafka,
         f"the port speaks Kafka without TLS: set security_protocol to {login}{tls}{one_of}"),
        (has_login and spoken.kafka and not spoken.mechanisms,
         f"the listener wants no log-in: set security_protocol to {tls}"),
        (not has_login and bool(spoken.mechanisms),
         f"the listener wants a log-in: set security_protocol to {login}{tls}{one_of}"),
        (bool(spoken.mechanisms), f"set sasl.mechanism to one it offers: {', '.join(spoken.mechanisms)}"),
        (has_tls and spoken.tls and not spoken.kafka,
         "it may want a client certificate, or another one: see tls.cert_file, and by whom the broker wants it signed"),
        (True, "check the port: it may be no Kafka broker, or a listener for the brokers among themselves"),
    )  # fmt: skip
    return next(text for applies, text in rules if applies)


# --- the cluster ------------------------------------------------------------------------------------------


async def _cluster(notes: Notes) -> Sequence[Line]:
    found = {address: facts for address, facts in notes.described.items() if facts.brokers}
    if not found:
        return [failed("cluster", "no bootstrap address knows any broker yet", "wait until the brokers have started")]
    clusters = {facts.id for facts in found.values()}
    if len(clusters) > 1:
        said = ", ".join(f"{address} belongs to {facts.id}" for address, facts in found.items())
        return [failed("cluster", f"bootstrap_servers names several clusters: {said}", "name those of one cluster")]
    facts = next(iter(found.values()))
    notes.brokers = {node: Address(host, port) for node, host, port in sorted(facts.brokers)}
    notes.operations = facts.operations
    where = some(f"{node} ({address})" for node, address in notes.brokers.items())
    lines = [ok("cluster", f"{facts.id}: {counted(len(facts.brokers), 'broker')}: {where}")]
    if len(addresses(notes.cluster.bootstrap_servers)) == 1 and len(facts.brokers) > 1:
        lines.append(
            warning(
                "bootstrap_servers",
                f"names one address of {counted(len(facts.brokers), 'broker')}: while it is away nothing can start",
                f"name more: {','.join(map(str, notes.brokers.values()))}",
            )
        )
    return lines


async def _versions(notes: Notes) -> Sequence[Line]:
    live = notes.live()
    levels = await asyncio.gather(*(_metadata_level(notes, address) for address in live.values()))
    found: dict[str, list[int]] = defaultdict(list)
    for (node, address), level in zip(live.items(), levels, strict=True):
        found[version_text(level, notes.versions[address])].append(node)
    if len(found) == 1:
        (text,) = found
        return [ok(_numbers(list(live)), f"{text}")]
    said = "; ".join(f"{_numbers(nodes)}: {text}" for text, nodes in found.items())
    return [warning("brokers", f"of different releases: {said}", "finish the upgrade, if one is under way")]


async def _metadata_level(notes: Notes, address: Address) -> int | None:
    try:
        return (await cold.features(notes.asker, address)).supported.get(releases.METADATA_VERSION)
    except TransportError as exc:
        if exc.why == Why.UNSUPPORTED:
            return None
        raise


def version_text(level: int | None, offered: Mapping[int, tuple[int, int]]) -> str:
    """Say which Kafka a broker is at least, what of ours it lacks, and what is done instead."""
    release = releases.release(level, offered)
    text = f"Kafka {release} or later" if release else "older than Kafka 2.3"
    missing = [f"{each.name}: {each.instead}" for each in releases.lacking(offered)]
    return f"{text}; without {'; without '.join(missing)}" if missing else f"{text}, with all that is asked for"


async def _controller(notes: Notes) -> Sequence[Line]:
    before = notes.clock()
    try:
        quorum = await cold.quorum(notes.asker, notes.anyone())
    except TransportError as exc:
        if exc.why == Why.UNSUPPORTED:  # ZooKeeper elects the controller: Metadata names it
            return [controller_line(next(iter(notes.described.values())).controller)]
        seen = f"the quorum is not told: {exc}"
        return [skipped("controller", seen, f"if you want to know, grant DESCRIBE: {notes.grant('--cluster')}")]
    notes.quorum = (quorum, before, notes.clock())
    return [controller_line(quorum.leader)]


def controller_line(node: int) -> Line:
    """Say who the active controller is."""
    if node < 0:
        seen = "there is no active controller: no leader is elected, no topic made"
        return failed("controller", seen, "start controllers until more than half of them run")
    return ok("controller", f"node {node} is the active controller")


async def _clock(notes: Notes) -> Sequence[Line]:
    if notes.quorum is None or notes.quorum[0].leader_clock_ms is None:
        return [
            skipped("clock", "the brokers' time is not told: DescribeQuorum v1 and DESCRIBE on the cluster tell it")
        ]
    quorum, before, after = notes.quorum
    return [clock_line(quorum.leader, (quorum.leader_clock_ms or 0) / 1000, before, after)]


def clock_line(node: int, theirs: float, before: float, after: float) -> Line:
    """Say how far the controller's clock and ours are apart, known to within the time its answer took."""
    ahead, bound = theirs - (before + after) / 2, (after - before) / 2
    seen = f"the controller's clock (node {node}) is {abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} ours"
    if abs(ahead) - bound <= CLOCK_SECONDS:
        return ok("clock", f"{seen}, ± {bound:.2f} s")
    effect = "ages in seconds are wrong by as much where records carry the brokers' time"
    return warning("clock", f"{seen}, ± {bound:.2f} s: {effect}", "let both run NTP")
