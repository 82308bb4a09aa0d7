"""The host that is checked is the one that the HTTP client asks: both read a URL alike, or it is refused."""

from __future__ import annotations

from hypothesis import event, given, settings
from hypothesis import strategies as st
from yarl import URL

from opengpu_operator.compose.fetch import FetchError, _parts

HOSTS = (
    "a.example",
    "A.EXAMPLE",
    "127.0.0.1",
    "[::1]",
    "[::ffff:1.2.3.4]",
    "[2606:4700::1111]",
    "1.1.1.1",
    "0x7f.1",
)
PIECES = st.sampled_from(
    [
        *HOSTS,
        ":443",
        ":00443",
        ":80",
        ":",
        ".",
        "..",
        "/",
        "//",
        "#",
        "?",
        "@",
        "%2e",
        "%40",
        "-",
        "_",
        "xn--a",
        "1",
    ]
) | st.sampled_from(list("[]&=;!$()*+,~\\|^`{}\"'<>\t\u2024\uff0f\uff11\u3002"))
SCHEMES = st.sampled_from(["https://", "http://", "HTTPS://", "https:", "https:/", "//", ""])


@settings(max_examples=2000, deadline=None)
@given(SCHEMES, st.lists(PIECES, min_size=1, max_size=6).map("".join))
def test_parsers_agree(scheme: str, rest: str) -> None:
    try:
        parts = _parts(scheme + rest)
    except FetchError:
        return
    event("asked")
    url = URL(scheme + rest)
    assert (url.scheme, url.raw_host, url.port) == parts
    assert (url.raw_user, url.raw_password) == (None, None)
