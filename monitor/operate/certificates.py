"""What a certificate says, read from its bytes: whom it names, who signed it, from when until when it holds.

Python's ssl tells that only of certificates it trusts, and the interesting ones are those it does not. So the few
fields that matter are picked out of the DER encoding (X.690; the layout of RFC 5280). Nothing is verified here.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

SEQUENCE, SET, OID = 0x30, 0x31, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
VERSION, EXTENSIONS = 0xA0, 0xA3
OCTETS, BOOLEAN = 0x04, 0x01
DNS_NAME, IP_ADDRESS = 0x82, 0x87

COMMON_NAME = bytes((0x55, 0x04, 0x03))  # 2.5.4.3
ORGANIZATION = bytes((0x55, 0x04, 0x0A))  # 2.5.4.10
ALTERNATIVE_NAMES = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17

LONG_LENGTH = 0x80
"""From here on the first byte of a length says how many bytes of length follow."""


class CertificateError(ValueError):
    """The bytes are no certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's names and times; ``names`` are the hosts and addresses it is for."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime


def read_pem(text: str) -> list[Certificate]:
    """Read every certificate of a PEM text.

    Raises:
        CertificateError: One of them cannot be read.
    """
    blocks = re.findall(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", text, re.DOTALL)
    try:
        return [read_der(base64.b64decode("".join(block.split()), validate=True)) for block in blocks]
    except binascii.Error as exc:
        raise CertificateError("what is between BEGIN and END is not base64") from exc


def read_der(data: bytes) -> Certificate:
    """Read a certificate in DER.

    Raises:
        CertificateError: The bytes are no certificate.
    """
    try:
        return _read(data)
    except (IndexError, ValueError, StopIteration, RuntimeError) as exc:
        if isinstance(exc, CertificateError):
            raise
        raise CertificateError("the bytes are no X.509 certificate") from exc


def _read(data: bytes) -> Certificate:
    (_, whole) = next(_parts(data))
    (_, signed) = next(_parts(whole))
    fields = [part for part in _parts(signed) if part[0] != VERSION]
    # serial number, algorithm, issuer, validity, subject, key, then what has a tag
    _, _, issuer, validity, subject, *rest = fields
    not_before, not_after = (_time(*part) for part in _parts(validity[1]))
    extensions = next((content for tag, content in rest if tag == EXTENSIONS), b"")
    return Certificate(_name(subject[1]), _name(issuer[1]), tuple(_names(extensions)), not_before, not_after)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of the elements that lie one after another."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= LONG_LENGTH:
            count = size - LONG_LENGTH
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            raise CertificateError("the certificate ends early")
        yield tag, data[at : at + size]
        at += size


def _time(tag: int, content: bytes) -> datetime:
    """Read a time; of a two-digit year, below 50 is this century (RFC 5280, 4.1.2.5.1)."""
    text = content.decode("ascii")
    if tag == UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text
    elif tag != GENERALIZED_TIME:
        raise CertificateError("its validity is no time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _name(data: bytes) -> str:
    """Return the common name of a distinguished name, else its organization."""
    found = {}
    for _, attributes in _parts(data):
        for _, attribute in _parts(attributes):
            (_, kind), (tag, value) = _parts(attribute)
            found[kind] = value.decode("utf-16-be" if tag == 0x1E else "utf-8", "replace")  # noqa: PLR2004 - BMPString
    return found.get(COMMON_NAME) or found.get(ORGANIZATION) or "no name"


def _names(data: bytes) -> Iterator[str]:
    for _, sequence in _parts(data):
        for _, extension in _parts(sequence):
            (_, kind), *rest = _parts(extension)
            if kind != ALTERNATIVE_NAMES:
                continue
            (_, names) = next(_parts(rest[-1][1]))
            for tag, value in _parts(names):
                if tag == DNS_NAME:
                    yield value.decode("ascii", "replace")
                elif tag == IP_ADDRESS:
                    yield str(ipaddress.ip_address(value))
