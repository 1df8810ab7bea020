"""The mark on everything that is applied: what it was when it was applied.

Grafana keeps no record of who wrote what. So each object carries, where its kind has room for it, one line that names
the object itself and the checksum of the content that was applied. With it three states can be compared: what was
applied last, what is there now and what is wanted. A copy under another name carries the mark of its original, which
does not name it: it is not ours.

A server may keep what it is given in another form (defaults filled in, a refresh interval raised to its minimum). Then
the mark also has the checksum of what the server made of it, so that its doing is not taken for a person's. Until that
is put down, in a second write, the mark says as which version the first one was made: while the object has that version
nobody has saved it since, and whatever its content is was made by the server.

Secrets are not part of a content. What is kept of them is what servers keep of passwords: a salted, slow hash, enough
to see that another one was set since.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hmac import compare_digest
from typing import Any, Self, TypeAlias

Json: TypeAlias = dict[str, Any]

WORD = "streamgauge/1"
"""First word of every mark: ours, and the version of its form."""

ABSENT = "-"
NO_VERSION = "?"

_SALT_BYTES = 8
_HASH = {"n": 2**12, "r": 8, "p": 1, "dklen": 16}  # 4 MiB and about 10 ms each


@dataclass(frozen=True, slots=True)
class Mark:
    """``applied`` is the checksum of the content as wanted, ``kept`` that of what the server made of it, if another.

    ``written_as`` is the version as which this was written, NO_VERSION for what has none, None once it is settled.
    ``secrets`` has a hash of each secret by its field.
    """

    uid: str
    applied: str
    kept: str | None = None
    written_as: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, uid: str, content: Json, secrets: Mapping[str, str | None]) -> Self:
        """Return the mark of a content that is about to be applied; a secret that is not known has no hash."""
        hashes = {name: hashed(secret) for name, secret in secrets.items() if secret is not None}
        return cls(uid, checksum(content), secrets=hashes)

    @classmethod
    def parse(cls, text: object, uid: str) -> Self | None:
        """Read a mark; None if it is none, or if it is that of another object."""
        words = text.split() if isinstance(text, str) else []
        if len(words) < _LEAST_WORDS or words[0] != WORD or words[1] != uid:
            return None
        pairs = [word.partition("=")[::2] for word in words[_LEAST_WORDS:]]
        kept, written_as = (None if word == ABSENT else word for word in words[3:_LEAST_WORDS])
        return cls(uid, words[2], kept, written_as, dict(pairs))

    def text(self) -> str:
        """Return the line that is put into the object."""
        hashes = [f"{name}={value}" for name, value in sorted(self.secrets.items())]
        return " ".join([WORD, self.uid, self.applied, self.kept or ABSENT, self.written_as or ABSENT, *hashes])

    def fits(self, content: Json, version: int | None) -> bool:
        """Return whether a content, at a version, is what was applied or what the server made of that."""
        return checksum(content) in {self.applied, self.kept} or self.written_as == version_text(version)

    def knows(self, name: str, secret: str) -> bool:
        """Return whether this secret is the one that was applied."""
        return name in self.secrets and is_hash_of(self.secrets[name], secret)


_LEAST_WORDS = 5


def version_text(version: int | None) -> str:
    """Return a version as a mark has it."""
    return NO_VERSION if version is None else str(version)


def checksum(content: Json) -> str:
    """Return the same text for the same content, whatever the order of keys and the spelling of numbers."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:32]


def plain(value: Any) -> Any:
    """Return a value of JSON with whole numbers as integers: 1.0 and 1 are the same number."""
    match value:
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


# Everything is read several times in one apply, and each hash costs its 10 ms: so they are kept for the process.
@lru_cache(maxsize=256)
def hashed(secret: str) -> str:
    """Return a salted hash of a secret, in one process the same each time."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return salt.hex() + hashlib.scrypt(secret.encode(), salt=salt, **_HASH).hex()


@lru_cache(maxsize=256)
def is_hash_of(hash_: str, secret: str) -> bool:
    """Return whether a hash was made of this secret."""
    try:
        salt = bytes.fromhex(hash_[: 2 * _SALT_BYTES])
    except ValueError:
        return False
    made = hashlib.scrypt(secret.encode(), salt=salt, **_HASH).hex()
    return compare_digest(hash_[2 * _SALT_BYTES :], made)


def differences(wanted: object, live: object, path: str = "") -> Iterator[str]:
    """Yield where two contents differ, as ``path: what is there -> what is wanted``, shortened."""
    match plain(wanted), plain(live):
        case dict() as one, dict() as other:
            for key in dict.fromkeys([*one, *other]):
                yield from differences(one.get(key, _NONE), other.get(key, _NONE), f"{path}.{key}" if path else key)
        case list() as one, list() as other:
            for index in range(max(len(one), len(other))):
                wanted_here, live_here = (each[index] if index < len(each) else _NONE for each in (one, other))
                yield from differences(wanted_here, live_here, f"{path}[{index}]")
        case one, other if one != other or isinstance(one, bool) != isinstance(other, bool):
            yield f"{path}: {_shown(other)} -> {_shown(one)}"


class _Nothing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "nothing"


_NONE = _Nothing()
_SHOWN = 40


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, _Nothing) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
