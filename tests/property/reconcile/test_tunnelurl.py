"""The box of cloudflared, of any width, in any frame and cut anywhere."""

from __future__ import annotations

import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from opengpu_operator.reconcile.tunnelurl import find

WORDS = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)
NAMES = (
    st.lists(WORDS, min_size=1, max_size=4)
    .map("-".join)
    .filter(lambda name: len(name) <= 63 and name not in {"api", "www"})
)
SENTENCE = "Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):"
PREFIXES = ("", "2026-08-20T10:54:24Z INF ", "\x1b[90m10:54AM\x1b[0m \x1b[32mINF\x1b[0m ", "[tunnel] ")


def box(texts: list[str], *, width: int, padding: int) -> list[str]:
    border = f"+{'-' * (width + 2 * padding)}+"
    space = " " * padding
    rows = [text[start : start + width] for text in texts for start in range(0, len(text), width)]
    return [border, *(f"|{space}{row:{width}}{space}|" for row in rows), border]


@st.composite
def printed(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Return a URL, and lines that print it in a box."""
    url = f"https://{draw(NAMES)}.trycloudflare.com"
    rows = box([SENTENCE, url], width=draw(st.integers(20, 200)), padding=draw(st.integers(0, 4)))
    if draw(st.booleans()):
        rows = [json.dumps({"level": "info", "message": row}) for row in rows]
    prefix, end = draw(st.sampled_from(PREFIXES)), draw(st.sampled_from(["", "\r", "\x1b[0m"]))
    return url, [f"{prefix}{row}{end}" for row in rows]


@given(printed())
def test_a_box_of_any_width(case: tuple[str, list[str]]) -> None:
    url, lines = case
    assert find(lines) == url


@given(printed(), st.data())
def test_nothing_is_found_before_the_url_is_whole(case: tuple[str, list[str]], data: st.DataObject) -> None:
    """Whole lines are looked at only, so what is found in a part of them is what is found in all."""
    url, lines = case
    shown = lines[: data.draw(st.integers(0, len(lines)))]
    assert find(shown) in {None, url}


@given(st.lists(st.text(), max_size=5))
@example(["https://", "|https://|", "| |"])
def test_anything_else_is_no_url(lines: list[str]) -> None:
    found = find(lines)
    assert found is None or re.fullmatch(r"https://[a-z0-9-]{1,63}\.trycloudflare\.com", found)


@given(NAMES, st.text(max_size=20), st.text(max_size=20))
def test_what_is_found_is_all_that_a_browser_would_open(name: str, before: str, after: str) -> None:
    """Whatever stands around a URL: either it isn't taken, or nothing of that belongs to it."""
    url = f"https://{name}.trycloudflare.com"
    if find([f"{before}{url}{after}"]) == url:
        tail = after.lstrip("/")
        assert not re.match(r"[a-zA-Z0-9@:%_-]", after), after
        assert not re.match(r"\.[a-zA-Z0-9]", tail), after
