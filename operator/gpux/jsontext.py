"""Is this text one JSON value? Answered in constant memory, whatever the text.

A parser would build objects of twenty times the text's size, and the texts come from strangers: 16 MiB of ``[[],[],…``
would end a container of 64 MiB. Runs of plain members are swallowed by one regular expression; only brackets cost a
step of Python.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from mmap import mmap
from typing import TypeAlias

Buffer: TypeAlias = "bytes | bytearray | mmap"

_DEEPEST = 512
"""Deeper nesting makes ordinary parsers fail; so it is refused where it enters."""

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_EMPTY = rb"\[" + _SPACE + rb"\]|\{" + _SPACE + rb"\}"
_PLAIN = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null|" + _EMPTY + rb")"
_COMMA = _SPACE + rb"," + _SPACE
_KEY = _STRING + _SPACE + rb":" + _SPACE

_LEADING = re.compile(_SPACE)
_VALUE = re.compile(_PLAIN)
_OPEN = re.compile(rb"[\[{]" + _SPACE)
_MEMBERS = {
    # As many plain members as there are, each with the comma after it: what follows must be one more member.
    ord("["): re.compile(rb"(?:" + _PLAIN + _COMMA + rb")*+"),
    ord("{"): re.compile(rb"(?:" + _KEY + _PLAIN + _COMMA + rb")*+"),
}
_KEYS = {ord("["): re.compile(rb""), ord("{"): re.compile(_KEY)}
_CLOSE = {ord("["): re.compile(_SPACE + rb"\]"), ord("{"): re.compile(_SPACE + rb"\}")}
_NEXT = re.compile(_COMMA)
_CHUNK = 1 << 16


def is_json(text: Buffer) -> bool:
    """Whether the text is exactly one JSON value in UTF-8, strictly (RFC 8259: no NaN) and at most 512 deep."""
    return _is_utf8(text) and _is_value(text)


def _is_utf8(text: Buffer) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(text):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _chunks(text: Buffer) -> Iterator[bytes]:
    for start in range(0, len(text), _CHUNK):
        yield bytes(text[start : start + _CHUNK])


def _is_value(text: Buffer) -> bool:
    stack = bytearray()
    at = _end(_LEADING, text, 0)
    while True:
        # A value starts at `at`.
        plain = _end(_VALUE, text, at)
        if plain < 0:
            opened = _end(_OPEN, text, at)
            if opened < 0 or len(stack) == _DEEPEST:
                return False
            stack.append(text[at])
            at = _member(text, opened, stack[-1])
            if at < 0:
                return False
            continue
        at = plain
        # A value has ended at `at`: close what ends here, then go to the next member.
        while stack:
            closed = _end(_CLOSE[stack[-1]], text, at)
            if closed < 0:
                break
            stack.pop()
            at = closed
        if not stack:
            return _end(_LEADING, text, at) == len(text)
        following = _end(_NEXT, text, at)
        at = _member(text, following, stack[-1]) if following >= 0 else -1
        if at < 0:
            return False


def _member(text: Buffer, at: int, bracket: int) -> int:
    """Skip plain members and the key of the next; where that one's value starts, or -1."""
    return _end(_KEYS[bracket], text, _end(_MEMBERS[bracket], text, at))


def _end(pattern: re.Pattern[bytes], text: Buffer, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else -1
