"""Whatever comes on a connection, and however it is cut: with the fast lane and without, the answer is the same."""

from __future__ import annotations

import asyncio
import re
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpux.hashes import b58encode
from tests.support.wire import KEY, Store, authorization, head
from tests.unit.gpux.filestore.kit import put, sha1, sha256, store

SMALL, FOREIGN, LARGE = b"small" * 20, b"of another namespace", bytes(20_000)
HEX = sha1(SMALL).hex
ANOTHER_KEY = b"another key, also of thirty-two b"
#: Who is known to the lane before the first of the requests that are compared.
KNOWN = [authorization(), authorization(task="u"), authorization(namespace="b"), authorization("files")]
NAMES = [
    HEX,
    HEX,
    HEX.upper(),
    b58encode(bytes.fromhex(HEX)),
    sha256(SMALL),
    f"{HEX}.zip",
    sha1(FOREIGN).hex,
    sha1(LARGE).hex,
    "0" * 40,
    "x",
    "",
    f"%{ord(HEX[0]):02x}{HEX[1:]}",
]
AUTHORIZATIONS = [
    *KNOWN,
    authorization("operator"),
    authorization("link", hash=HEX),
    authorization(exp=1),
    authorization(key=ANOTHER_KEY),
    authorization().replace(": ", ":"),
    authorization().replace(": ", " : "),
    authorization().replace(": ", ":\t") + " ",
    authorization().replace("Bearer", "bearer"),
    authorization().replace("Bearer", "Basic"),
    authorization().upper(),
    authorization().lower(),
    authorization()[:-1],
]
OTHERS = [
    "Range: bytes=1-3",
    "Range: bytes=900-",
    f'If-None-Match: "{sha256(SMALL)}"',
    f'If-Range: "{sha256(SMALL)}"',
    "Connection: close",
    "Connection: keep-alive",
    "Connection: upgrade",
    "Upgrade: websocket",
    "Content-Length: 0",
    "Content-Length: 3",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Host: y",
    "Accept-Encoding: gzip",
    "User-Agent: z",
    " folded",
    "no colon",
    "X-\x00: y",
    "",
]
TARGETS = ["/v1/files/{}"] * 4 + [
    "/v1/files/{}?namespace=b",
    "/v1/files/{}?",
    "/v1/files/{}#x",
    "/v1/files/{}/",
    "//v1/files/{}",
    "/v1//files/{}",
    "/V1/files/{}",
    "/v1/files/../files/{}",
    "http://x/v1/files/{}",
]

plain = st.builds(lambda name, token: head(f"/v1/files/{name}", token), *map(st.sampled_from, (NAMES, KNOWN)))
odd = st.builds(
    lambda target, name, lines, method, version: head(
        target.format(name), *lines, method=method, version=version
    ),
    st.sampled_from(TARGETS),
    st.sampled_from(NAMES),
    st.lists(st.sampled_from(AUTHORIZATIONS) | st.sampled_from(OTHERS), max_size=3),
    st.sampled_from(["GET"] * 6 + ["HEAD", "PUT", "get", "GET ", " GET", "\r\nGET", "GARBAGE"]),
    st.sampled_from(["HTTP/1.1"] * 6 + ["HTTP/1.0", "http/1.1", "HTTP/1.2", " HTTP/1.1", "HTTP/1.1 ", ""]),
)


@st.composite
def damaged(draw):
    """A plain request with some bytes taken out or put in."""
    data = draw(plain)
    at = draw(st.integers(0, len(data)))
    return (
        data[:at]
        + draw(st.sampled_from(b"\r \n \0 \t : / ? % \xff abc".split(b" ")))
        + data[at + draw(st.integers(0, 3)) :]
    )


@st.composite
def pieces(draw):
    """What comes on a connection, cut anywhere or not at all, or broken off; and whether more comes at once."""
    found = []
    for data in draw(st.lists(plain | plain | odd | damaged(), min_size=1, max_size=6)):
        cut = draw(st.none() | st.integers(0, len(data)))
        found += [data] if cut is None else [data[:cut], data[cut:]][: draw(st.sampled_from((1, 2, 2)))]
        if len(found) > 1 and draw(st.integers(0, 4)) == 0:
            found[-2:] = [found[-2] + found[-1]]
    # What was learned from the first time may be answered the second.
    found *= draw(st.sampled_from((1, 2)))
    return [(piece, draw(st.booleans())) for piece in found if piece]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def blobs(root):
    made = store(root)
    for content, namespace in [(SMALL, "a"), (SMALL, "b"), (FOREIGN, "b"), (LARGE, "a")]:
        put(made, content, namespace)
    return made


def undated(answers: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]*", b"", answers)


async def answers(served, found, change) -> tuple[bytes, bool]:
    """All that a connection gets, and whether it is closed then; midway something changes."""
    for token in KNOWN:
        for name in NAMES:
            if name and "%" not in name:
                known = await served.connect()
                await known.send(head(f"/v1/files/{name}", token))
                await known.leave()
    connection = await served.connect()
    with ExitStack() as restoring:
        for number, (piece, settle) in enumerate(found):
            if number == len(found) // 2:
                await connection.settled()
                change(restoring)
            await connection.send(piece, settle=settle)
        sent = await connection.settled()
        await connection.leave()
    return undated(sent), connection.wire.closed


@settings(max_examples=60)
@given(pieces(), st.sampled_from(["nothing", "nothing", "entry", "content", "key"]))
def test_the_answer_is_the_same(root, blobs, found, what):
    keys = [KEY]

    def change(restoring):
        if what == "key":
            keys.append(ANOTHER_KEY)
            restoring.callback(keys.pop)
        elif what != "nothing":
            content = sha256(SMALL)
            path = root / {"entry": f"index/a/sha1/{HEX}", "content": f"sha256/{content[:2]}/{content}"}[what]
            gone = path.rename(root / "gone")
            restoring.callback(gone.rename, path)

    async def both():
        return [
            await answers(Store(blobs, key=lambda: keys[-1], lane=lane), found, change)
            for lane in (True, False)
        ]

    with asyncio.Runner() as runner:
        with_lane, without = runner.run(both())
    assert with_lane == without
