"""The ways in which a stored file may be named: SHA-1 or SHA-256, as hex or Base58, with or without an extension.

The published ``gpux://`` links are Base58 of the SHA-1, scripts paste what ``sha1sum`` prints, and some append
``.zip`` so that other programs know what they get. All of them mean the same bytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_SHA1_BYTES = 20
_SHA256_BYTES = 32
_LONGEST_TEXT = 64
_HEX = re.compile(r"(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{64})")
_EXTENSION = re.compile(r"(?:\.[A-Za-z0-9_-]{1,32}){1,3}")


class MalformedHashError(ValueError):
    """The text names no file, whatever is stored."""


class FileHash(NamedTuple):
    """A parsed name: which function, and the digest as lowercase hex."""

    algorithm: str
    hex: str


def b58encode(raw: bytes) -> str:
    """Base58 in Bitcoin's alphabet; a leading zero byte is a leading 1."""
    number = int.from_bytes(raw, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def b58decode(text: str) -> bytes:
    """Invert `b58encode`. Raises MalformedHashError on a foreign character or an absurd length."""
    if len(text) > _LONGEST_TEXT:
        raise MalformedHashError("too long")
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            raise MalformedHashError("a character is not in the Base58 alphabet")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def parse(text: str) -> FileHash:
    """Read a name as clients write it. Raises MalformedHashError, which says what would be right.

    Forty characters that are hex are hex, although a Base58 text could in theory look so.
    """
    stem, dot, rest = text.partition(".")
    if dot and not _EXTENSION.fullmatch(dot + rest):
        raise MalformedHashError("the extension of the hash is malformed")
    if _HEX.fullmatch(stem):
        return FileHash("sha1" if len(stem) == 2 * _SHA1_BYTES else "sha256", stem.lower())
    try:
        raw = b58decode(stem)
    except MalformedHashError:
        raw = b""
    if len(raw) == _SHA1_BYTES:
        return FileHash("sha1", raw.hex())
    if len(raw) == _SHA256_BYTES:
        return FileHash("sha256", raw.hex())
    raise MalformedHashError("not a hash: expected the hex or Base58 text of a SHA-1 or SHA-256")
