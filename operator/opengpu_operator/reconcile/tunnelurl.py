"""Finds the URL of a quick tunnel in what a program prints: a pure function of lines of text.

``cloudflared tunnel --url …`` prints the URL in a box, which is as wide as its longest line and whose frame, prefix and
encoding (text or JSON) have changed over the years; programs that start it print the URL in sentences of their own.
Whoever collects or shows logs may wrap the box. So what is looked for is the URL itself, as a word of its own: a label
as Cloudflare makes them right below ``trycloudflare.com``, and nothing behind it that would lead elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_START: Final = "https://"
#: Letters, digits and single hyphens between them. Two in a row are those of an internationalised name, which
#: Cloudflare never gives and which looks like something else.
_URL: Final = r"https://(?=[a-z0-9-]{1,63}\.)[a-z0-9]+(?:-[a-z0-9]+)*\.trycloudflare\.com"
#: Where a word may begin: at the start, after white space, a frame, quotes, brackets or an escaped line break in JSON,
#: and after the key of a ``key=value`` or ``key:value`` there.
_BEFORE: Final = r"""(?:^|[\s|"'(<>\[]|\\[nrt])(?:[A-Za-z_]{1,20}[=:])?"""
#: And how it may end. A path, a port, credentials or more labels make another URL of it.
_AFTER: Final = r"""/?[.,;!]?(?=$|[\s|"')<>\]]|\\[nrt"])"""
_WORD: Final = re.compile(f"{_BEFORE}({_URL}){_AFTER}", re.ASCII)
_WHOLE: Final = re.compile(f"({_URL})/?", re.ASCII)
#: What a wrapped URL consists of. It is longer than the longest only if it is none.
_PIECE: Final = re.compile(r"[a-z0-9./-]+", re.ASCII)
_LONGEST: Final = len("https://.trycloudflare.com/") + 63

#: Colours and other control sequences of terminals, and the links of some of them.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")

#: Cloudflare's own.
_NOT_TUNNELS: Final = frozenset({"https://api.trycloudflare.com", "https://www.trycloudflare.com"})


def find(lines: Iterable[str]) -> str | None:
    """Return the first tunnel's URL in lines of text, without a slash at its end; None if there is none.

    Lines are whole ones: of one that was cut nobody can say what the rest of it makes of a URL.
    """
    wrapped = ""
    for line in lines:
        if _START not in line and not wrapped:
            continue
        plain = _ESCAPES.sub("", line).rstrip("\r\n") if "\x1b" in line else line.rstrip("\r\n")
        for match in _WORD.finditer(plain):
            if match[1] not in _NOT_TUNNELS:
                return match[1]
        for row in plain.split("|")[1:-1]:
            wrapped = _joined(wrapped, row.strip(" \t"))
            whole = _WHOLE.fullmatch(wrapped)
            if whole and whole[1] not in _NOT_TUNNELS:
                return whole[1]
    return None


def _joined(wrapped: str, row: str) -> str:
    """Return what a row of a box makes of a URL that may go on from row to row."""
    if row.startswith(_START):
        wrapped = ""
    elif not wrapped:
        return ""
    joined = wrapped + row
    fits = len(joined) <= _LONGEST and _PIECE.fullmatch(joined.removeprefix(_START) or "-")
    return joined if fits else ""
