"""Private keys as Kafka wants them: PKCS #8 (RFC 5958), which many tools do not write.

OpenSSL's traditional forms, "EC PRIVATE KEY" (RFC 5915) and "RSA PRIVATE KEY" (RFC 8017), are what PKCS #8 wraps
together with the name of the algorithm, so wrapping needs no cryptography.
"""

from __future__ import annotations

import base64
import re
import textwrap

from monitor.errors import UsageError

_INTEGER, _OCTETS, _OID, _SEQUENCE, _PARAMETERS = 0x02, 0x04, 0x06, 0x30, 0xA0

_LONG = 0x80
"""Lengths from here on have a long form: this plus how many bytes hold the length."""

_RSA_ALGORITHM = bytes.fromhex("06092a864886f70d0101010500")  # rsaEncryption, NULL
_EC_ALGORITHM = bytes.fromhex("06072a8648ce3d0201")  # ecPublicKey; the curve follows


def pkcs8(pem: str) -> str:
    """Return PEM text with its private key as "PRIVATE KEY"; certificates are left as they are.

    Raises:
        UsageError: There is no private key, or it is encrypted or of a kind that is not known here.
    """
    found = re.search(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.+?)-----END \1-----", pem, re.DOTALL)
    if found is None:
        raise UsageError("the server's PEM holds no private key: put the key and the certificates into one text")
    kind, body = found[1], found[2]
    if kind == "PRIVATE KEY":
        return pem
    if "Proc-Type" in body or kind not in {"EC PRIVATE KEY", "RSA PRIVATE KEY"}:
        msg = f"the server's PEM holds {kind!r} that cannot be used: write it unencrypted, as PKCS #8"
        raise UsageError(msg)
    key = base64.b64decode(body)
    algorithm = _RSA_ALGORITHM if kind == "RSA PRIVATE KEY" else _EC_ALGORITHM + _curve(key)
    wrapped = _der(_SEQUENCE, _der(_INTEGER, b"\0") + _der(_SEQUENCE, algorithm) + _der(_OCTETS, key))
    lines = textwrap.fill(base64.b64encode(wrapped).decode(), 64)
    text = f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----"
    return pem[: found.start()] + text + pem[found.end() :]


def _curve(key: bytes) -> bytes:
    """Return the curve's object identifier, encoded, out of an EC private key."""
    _, fields, _ = _read(key)
    while fields:
        tag, content, fields = _read(fields)
        if tag == _PARAMETERS and content[:1] == bytes([_OID]):
            return content
    raise UsageError("the server's private key does not name its curve: write it as PKCS #8")


def _read(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag, content and what follows of the first DER element."""
    length, start = data[1], 2
    if length >= _LONG:
        start += length - _LONG
        length = int.from_bytes(data[2:start], "big")
    return data[0], data[start : start + length], data[start + length :]


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    head = bytes([tag, _LONG | len(length)]) + length if size >= _LONG else bytes([tag, size])
    return head + content
