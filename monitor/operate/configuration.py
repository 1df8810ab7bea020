"""What can be told of a cluster's settings without asking anybody: certificates, and what is unwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from monitor.errors import StreamgaugeError
from monitor.operate.certificates import Certificate, CertificateError, read_pem
from monitor.operate.doctor import CONFIGURATION, Line, failed, ok, some, warning
from monitor.operate.notes import Notes
from monitor.settings import Cluster, Tls

SOON = timedelta(days=30)
"""A certificate that ends within this time is worth a warning: people are away for three weeks."""


async def configuration(notes: Notes) -> Sequence[Line]:
    """Check the settings of a cluster; without anything to go on with, only what failed is returned."""
    cluster = notes.cluster
    try:
        notes.asker  # noqa: B018 - making the connections' options reads every file
    except StreamgaugeError as exc:
        return [failed(CONFIGURATION, str(exc), "correct the settings")]
    at = datetime.fromtimestamp(notes.clock(), UTC)
    tls = f", trusting {cluster.tls.ca_file}" if cluster.tls.ca_file else ""
    seen = f"{cluster.bootstrap_servers} by {cluster.security_protocol}{tls}"
    return [ok(CONFIGURATION, seen), *_certificates(cluster.tls, at), *_unwise(cluster)]


def _certificates(tls: Tls, at: datetime) -> Iterator[Line]:
    for name, file, pem in (("ca", tls.ca_file, tls.ca_pem), ("cert", tls.cert_file, tls.cert_pem)):
        if file is None and pem is None:
            continue
        what = f"tls.{name}_file" if pem is None else f"tls.{name}_pem"
        try:
            text = pem if pem is not None else Path(str(file)).read_text("utf-8", "replace")
            yield from certificate_lines(what, read_pem(text), at)
        except (OSError, CertificateError) as exc:
            yield failed(what, f"{file or 'its text'} cannot be read: {exc}", "give a PEM file with certificates")


def certificate_lines(what: str, certificates: Sequence[Certificate], at: datetime) -> Iterator[Line]:
    """Say of the settings' certificates from when until when they hold: a line for what is over or ends soon."""
    over = [each for each in certificates if each.not_after <= at]
    soon = [each for each in certificates if at < each.not_after <= at + SOON]
    early = [each for each in certificates if at < each.not_before]
    renew = "put a new certificate there"
    if over:
        # Of a bundle one may be over and another hold; the other side's chain decides.
        say = failed if len(over) == len(certificates) or what.startswith("tls.cert") else warning
        yield say(what, f"expired: {some(map(ends, over))}", renew)
    if soon:
        yield warning(what, f"expires soon: {some(map(ends, soon))}", renew)
    if early:
        begins = some(f"{each.subject} from {each.not_before:%Y-%m-%d %H:%M}Z" for each in early)
        yield failed(what, f"not valid yet: {begins}", "check the clock of this machine, or put another certificate")
    if certificates and not over + soon + early:
        yield ok(what, f"valid: {some((ends(each) for each in certificates), 2)}")


def ends(certificate: Certificate) -> str:
    """Write whose certificate it is and when it ends."""
    return f"{certificate.subject} until {certificate.not_after:%Y-%m-%d %H:%M}Z"


def _unwise(cluster: Cluster) -> Iterator[Line]:
    protocol, sasl = cluster.security_protocol, cluster.sasl
    if protocol == "SASL_PLAINTEXT" and sasl is not None and sasl.mechanism == "PLAIN":
        yield warning("sasl", "the password travels in the clear", "use SASL_SSL, or a SCRAM mechanism")
    if protocol == "SASL_PLAINTEXT" and sasl is not None and sasl.mechanism == "OAUTHBEARER":
        yield warning("sasl", "the token travels in the clear", "use SASL_SSL")
    if protocol.endswith("SSL") and not cluster.tls.check_hostname:
        seen = "any certificate of a trusted signer is taken, whatever host it names"
        yield warning("tls.check_hostname", seen, "set it to true once the brokers' certificates name their hosts")
