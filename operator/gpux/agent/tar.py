"""Writes tar, the little of it that the agent needs: its own headers in GNU's form, which any length and byte fits.

Not the tarfile module: with what that imports it would take a tenth of the agent's memory.
"""

from __future__ import annotations

_BLOCK = 512
_FIELD = 100
FILE, LINK, FOLDER = b"0", b"2", b"5"
_LONG_NAME, _LONG_LINK = b"L", b"K"
_SMALL = 8**11

END = bytes(2 * _BLOCK)
"""What an archive ends with."""


def header(
    name: bytes, *, kind: bytes, mode: int = 0o644, size: int = 0, modified: int = 0, target: bytes = b""
) -> bytes:
    """Write what comes before a member's content. Owners are left out: they mean nothing elsewhere."""
    return b"".join(
        [
            *(_long(_LONG_NAME, name) if len(name) >= _FIELD else ()),
            *(_long(_LONG_LINK, target) if len(target) >= _FIELD else ()),
            _header(name, kind=kind, mode=mode, size=size, modified=modified, target=target),
        ]
    )


def padding(size: int) -> bytes:
    """Return what fills a member's last block."""
    return bytes(-size % _BLOCK)


def _long(kind: bytes, text: bytes) -> tuple[bytes, bytes, bytes]:
    content = text + b"\0"
    head = _header(b"././@LongLink", kind=kind, mode=0o644, size=len(content), modified=0, target=b"")
    return head, content, padding(len(content))


def _header(name: bytes, *, kind: bytes, mode: int, size: int, modified: int, target: bytes) -> bytes:
    before = b"".join(
        [
            name[:_FIELD].ljust(_FIELD, b"\0"),
            b"%07o\0" % (mode & 0o777),
            b"%07o\0" % 0,
            b"%07o\0" % 0,
            _number(size),
            _number(min(max(modified, 0), _SMALL - 1)),
        ]
    )
    after = kind + target[:_FIELD].ljust(_FIELD, b"\0") + b"ustar  \0"
    # The sum is taken with blanks in its own place.
    total = sum(before) + sum(b" " * 8) + sum(after)
    return (before + b"%06o\0 " % total + after).ljust(_BLOCK, b"\0")


def _number(value: int) -> bytes:
    """Write a number of twelve bytes: octal, and binary where that is too short."""
    return b"%011o\0" % value if value < _SMALL else b"\x80" + value.to_bytes(11, "big")
