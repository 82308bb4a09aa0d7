"""The URL of a tunnel in every form in which it is printed, and nothing that only looks like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from opengpu_operator.reconcile.tunnelurl import find

DATA = Path(__file__).parents[2] / "data" / "tunnels"
URL = "https://amber-birch-cedar-delta.trycloudflare.com"
PRINTED = {
    "2022.log": "https://words-words-words-words.trycloudflare.com",
    "2026.log": URL,
    "2026-json.log": URL,
    "colours.log": URL,
    "crlf.log": URL,
    "wrapped.log": URL,
    "sentence.log": URL,
    "failed.log": None,
}


def lines(name: str) -> list[str]:
    return (DATA / name).read_bytes().decode().splitlines(keepends=True)


@pytest.mark.parametrize(("name", "url"), PRINTED.items(), ids=PRINTED)
def test_every_form(name: str, url: str | None) -> None:
    assert find(lines(name)) == url


def test_every_file_is_read_and_has_a_source() -> None:
    files = {path.name for path in DATA.glob("*.log")}
    assert files == set(PRINTED)
    sources = (DATA / "README.md").read_text()
    assert [name for name in sorted(files) if f"| `{name}` |" not in sources] == []


@pytest.mark.parametrize(
    "line",
    [
        URL,
        f"{URL}/",
        f"Visit {URL}.",
        f"({URL})",
        f'{{"url":"{URL}"}}',
        f'{{"message":"up at\\n{URL}\\n"}}',
        f"level=info url={URL} port=8000",
        f"URL:{URL}",
        f"2026-08-20 10:54:24.123 | INFO | tunnel:main:7 - {URL}",
        f"\x1b]8;;{URL}\x07{URL}\x1b]8;;\x07",
        f"50 %\r100 %\r{URL}\r\n",
        "https://a.trycloudflare.com",
        f"https://{'a' * 63}.trycloudflare.com",
    ],
)
def test_a_line_of_somebody_else(line: str) -> None:
    found = find([line])
    assert found is not None
    assert found.startswith("https://a")
    assert found in line


@pytest.mark.parametrize(
    "line",
    [
        "Requesting new quick Tunnel on trycloudflare.com...",
        "https://api.trycloudflare.com",
        'Post "https://api.trycloudflare.com/tunnel": EOF',
        "https://www.trycloudflare.com",
        "https://trycloudflare.com",
        "https://.trycloudflare.com",
        "http://a-b.trycloudflare.com",
        "HTTPS://a-b.trycloudflare.com",
        "https://A-b.trycloudflare.com",
        "https://a-b.TryCloudflare.com",
        "https://a-b.trycloudflare.com.evil.example",
        "https://a-b.trycloudflare.com-evil.example",
        "https://a-b.trycloudflare.comevil.example",
        "https://a-b.trycloudflare.com@evil.example",
        "https://a-b.trycloudflare.com:pass@evil.example",
        "https://a-b.trycloudflare.com:8443",
        "https://a-b.trycloudflare.com\\@evil.example",
        "https://a-b.trycloudflare.com/api",
        "https://a-b.trycloudflare.com?x",
        "https://a-b.trycloudflare.com#x",
        "https://a-b.trycloudflare.com%2eevil.example",
        "https://user@a-b.trycloudflare.com",
        "https://evil.example/https://a-b.trycloudflare.com",
        "https://evil.example/?to=https://a-b.trycloudflare.com",
        "xhttps://a-b.trycloudflare.com",
        "https://a.b.trycloudflare.com",
        "https://-a.trycloudflare.com",
        "https://a-.trycloudflare.com",
        "https://a--b.trycloudflare.com",
        "https://xn--bcher-kva.trycloudflare.com",
        "https://a_b.trycloudflare.com",
        f"https://{'a' * 64}.trycloudflare.com",
        "https://\u0430-b.trycloudflare.com",
        "https://a-b.trycl\u043eudflare.com",
        "https://a-b.trycloudflare.com\u3002evil.example",
        "https://a-b.trycloudflare.com\u200b.evil.example",
        "https://a\u2010b.trycloudflare.com",
        "https://a-b.trycloudflare.com\ufffd",
        "https://a-b.trycloud\x00flare.com",
        "https://a-b.trycloudflare.co",
        "https://a-b\\.trycloudflare\\.com",
        "https://[a-z0-9-]+.trycloudflare.com",
    ],
)
def test_what_only_looks_like_one(line: str) -> None:
    assert find([line]) is None
    assert find([f"|  {line}  |"]) is None
    assert find([f"before {line}", f'{{"message":"{line}"}}', "after"]) is None


def test_the_first_of_several_counts() -> None:
    assert find(["https://api.trycloudflare.com", f"see {URL}", "https://b.trycloudflare.com"]) == URL


@pytest.mark.parametrize(
    "rows",
    [
        ("https://amber-birch", "-cedar.trycloudflare.com.evil.example"),
        ("https://amber-birch", "", "-cedar.trycloudflare.com"),
        ("https://amber-birch", "@evil.example/", ".trycloudflare.com"),
        ("https://amber-birch", "and https://else.example", ".trycloudflare.com"),
        ("https://" + "a" * 60, "a" * 10, ".trycloudflare.com"),
        ("https://api.trycloud", "flare.com"),
        ("amber-birch", ".trycloudflare.com"),
    ],
)
def test_rows_that_do_not_make_a_url(rows: tuple[str, ...]) -> None:
    if "" in rows:
        # An empty row is nothing in between: viewers leave them.
        assert find([f"| {row:40} |" for row in rows]) == "https://amber-birch-cedar.trycloudflare.com"
    else:
        assert find([f"| {row:40} |" for row in rows]) is None


def test_other_lines_between_the_rows_of_a_box() -> None:
    box = lines("wrapped.log")
    mixed = [line for row in box for line in (row, '10.0.0.1 - - "GET / HTTP/1.1" 200 -\n')]
    assert find(mixed) == URL


def test_one_endless_line_takes_no_longer_than_its_length() -> None:
    """What backtracks would take minutes for these."""
    for text in (
        "https://",
        "a-",
        "https://a-",
        "x=",
        " https://a.trycloudflare.com@",
        "|https://a",
        "\x1b[",
    ):
        assert find([text * (256 * 1024 // len(text))]) is None
