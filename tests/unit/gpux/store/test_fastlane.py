from __future__ import annotations

import asyncio

import looptime
import pytest

from gpux.store import fastlane
from tests.support.wire import KEY, Store, authorization, head
from tests.unit.gpux.filestore.kit import Clock, put, rot, sha1, sha256, store

CONTENT, OTHER = b"small" * 20, b"another"


def path(content=CONTENT) -> str:
    return f"/v1/files/{sha1(content).hex}"


PLAIN = head(path(), authorization())


def figure(served, name):
    labels = {"route": "file", "method": "GET", "code": "200"}
    return served.metrics._registry.get_sample_value(
        f"gpux_store_{name}_total", labels if name == "requests" else None
    )


@pytest.fixture
def blobs(root):
    made = store(root)
    put(made, CONTENT)
    put(made, OTHER)
    return made


async def learned(blobs, **options):
    """A store that has answered one request by the ordinary path, and the connection."""
    served = Store(blobs, **options)
    connection = await served.connect()
    await connection.ask(PLAIN)
    assert served.parsed == 1
    return served, connection


async def test_the_second_answer_is_the_first_from_memory(blobs):
    served, connection = await learned(blobs)
    first = connection.wire.sent
    assert first.endswith(b"\r\n\r\n" + CONTENT)
    second = await connection.ask(PLAIN)
    # The date is of now in both.
    assert [line for line in second.split(b"\r\n") if not line.startswith(b"Date:")] == [
        line for line in first.split(b"\r\n") if not line.startswith(b"Date:")
    ]
    assert served.parsed == 1
    assert figure(served, "requests") == 2
    assert figure(served, "sent_bytes") == 2 * len(CONTENT)


async def test_the_date_is_now(blobs):
    clock = Clock()
    _, connection = await learned(blobs, clock=clock)
    clock.ahead = 60 - clock() % 60
    assert b":00 GMT\r\n" in await connection.ask(PLAIN)


async def test_known_lines_ask_for_what_others_read(blobs):
    served, connection = await learned(blobs)
    await (await served.connect()).ask(head(path(OTHER), authorization(task="u")))
    assert (await connection.ask(head(path(OTHER), authorization()))).endswith(OTHER)
    assert served.parsed == 2


async def test_another_namespace_has_its_own(blobs):
    served, connection = await learned(blobs)
    other = authorization(namespace="b")
    put(blobs, OTHER, "b")
    await connection.ask(head(path(OTHER), other))
    assert (await connection.ask(head(path(), other))).startswith(b"HTTP/1.1 404")
    assert served.parsed == 3


def entry_gone(root, blobs, clock):
    (root / "index" / "a" / "sha1" / sha1(CONTENT).hex).unlink()


def content_gone(root, blobs, clock):
    blobs._shelves.set_aside(sha256(CONTENT))


def another_content(root, blobs, clock):
    entry_gone(root, blobs, clock)
    (root / "index" / "a" / "sha1" / sha1(CONTENT).hex).symlink_to(sha256(OTHER))


def an_hour_later(root, blobs, clock):
    clock.ahead = 3601.0


def token_ended(root, blobs, clock):
    clock.ahead = 2.0**34


@pytest.mark.parametrize(
    "happens",
    [entry_gone, content_gone, another_content, an_hour_later, token_ended],
    ids=lambda f: f.__name__,
)
async def test_what_may_have_changed_is_for_the_ordinary_path(root, blobs, happens):
    clock = Clock()
    served, connection = await learned(blobs, clock=clock)
    happens(root, blobs, clock)
    await connection.ask(PLAIN)
    assert served.parsed == 2


async def test_an_answer_is_learned_again_after_its_hour(blobs):
    clock = Clock()
    served, connection = await learned(blobs, clock=clock)
    clock.ahead = 3601.0
    await connection.ask(PLAIN)
    await connection.ask(PLAIN)
    assert served.parsed == 2


async def test_another_key_ends_what_the_former_one_signed(blobs):
    keys = [KEY]
    served, connection = await learned(blobs, key=lambda: keys[-1])
    keys.append(b"another key, also of thirty-two b")
    assert (await connection.ask(PLAIN)).startswith(b"HTTP/1.1 401")
    # Somebody with the new one doesn't bring back those with the old one.
    new = head(path(), authorization(key=keys[-1]))
    for _ in range(2):
        assert (await connection.ask(new)).startswith(b"HTTP/1.1 200")
    assert (await connection.ask(PLAIN)).startswith(b"HTTP/1.1 401")
    assert served.parsed == 4


async def test_a_key_that_cannot_be_read(blobs):
    failing: list[bool] = []

    def key():
        if failing:
            raise OSError
        return KEY

    _, connection = await learned(blobs, key=key)
    failing.append(True)
    assert (await connection.ask(PLAIN)).startswith(b"HTTP/1.1 500")


async def test_a_slow_reader_is_not_given_more(blobs):
    served, connection = await learned(blobs)
    connection.wire.stuck = 1
    await connection.ask(PLAIN)
    assert served.parsed == 2


async def test_a_request_does_not_overtake_another(blobs):
    served, connection = await learned(blobs)
    await connection.send(head("/v1/files/x", authorization()), settle=False)
    await connection.send(PLAIN)
    assert [part[:3] for part in connection.wire.sent.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400", b"200"]
    assert served.parsed == 3


async def test_nor_completes_the_start_of_another(blobs):
    served, connection = await learned(blobs)
    # What comes then is the value of a header.
    await connection.send(b"GET /v1/files/x HTTP/1.1\r\nX-Y: ")
    assert b"not a hash" in await connection.ask(PLAIN)
    assert served.parsed == 2


async def test_nor_is_learned_as_what_completes_another(blobs):
    served = Store(blobs)
    connection = await served.connect()
    # The token came before the piece that could be taken for a request of its own.
    await connection.send(f"GET {path()} HTTP/1.1\r\n{authorization()}\r\nAccept: ".encode())
    assert (await connection.ask(head(path()))).endswith(CONTENT)
    assert (await connection.ask(head(path()))).startswith(b"HTTP/1.1 401")


async def test_two_requests_in_one_piece_are_two_each_time(blobs):
    served, connection = await learned(blobs)
    for _ in range(2):
        assert (await connection.ask(PLAIN + PLAIN)).count(b"HTTP/1.1 200") == 2
    assert served.parsed == 5


async def test_the_lane_is_open_again_after_a_body(blobs):
    served, connection = await learned(blobs)
    await connection.ask(head(path(), authorization(), "Content-Length: 3", method="PUT") + b"abc")
    for _ in range(3):
        await connection.ask(PLAIN)
    # The body, and the one request that shows that nothing was left over.
    assert served.parsed == 3


@pytest.mark.parametrize(
    "line",
    [
        "Range: bytes=0-1",
        f'If-None-Match: "{sha256(CONTENT)}"',
        "Connection: close",
        "Connection: keep-alive",
        "Content-Length: 0",
        "Expect: 100-continue",
        "X-Unknown: 1",
    ],
)
async def test_only_plain_requests_are_learned_from(blobs, line):
    served = Store(blobs)
    for _ in range(2):
        await (await served.connect()).ask(head(path(), authorization(), line))
    assert served.parsed == 2


async def test_large_files_are_not_kept(root, blobs):
    large = bytes(16 * 1024 + 1)
    put(blobs, large)
    served = Store(blobs)
    for _ in range(2):
        await (await served.connect()).ask(head(path(large), authorization()))
    assert served.parsed == 2


async def test_long_heads_are_not_kept(blobs):
    served = Store(blobs)
    for _ in range(2):
        await (await served.connect()).ask(head(path(), authorization(), "User-Agent: " + "x" * 2048))
    assert served.parsed == 2


async def test_what_has_rotted_is_not_kept(root, blobs):
    rot(root, CONTENT)
    served = Store(blobs)
    connection = await served.connect()
    for _ in range(2):
        await connection.ask(PLAIN)
    assert served.parsed == 2


async def test_the_oldest_contents_make_room(blobs, monkeypatch):
    monkeypatch.setattr(fastlane, "_CONTENTS", 2 * fastlane._OVERHEAD)
    served, connection = await learned(blobs)
    await connection.ask(head(path(OTHER), authorization()))
    await connection.ask(PLAIN)
    assert served.parsed == 3
    assert len(served.lane._files) == 1
    assert served.lane._size == len(CONTENT) + fastlane._OVERHEAD


async def test_the_oldest_senders_make_room(blobs, monkeypatch):
    monkeypatch.setattr(fastlane, "_SENDERS", 2)
    served, connection = await learned(blobs)
    for task in "uv":
        await connection.ask(head(path(), authorization(task=task)))
    await connection.ask(PLAIN)
    assert served.parsed == 4
    assert len(served.lane._senders) == 2


async def test_a_store_that_ends_does_not_answer(blobs):
    served, connection = await learned(blobs)
    served.listener.pre_shutdown()
    assert await connection.ask(PLAIN) == b""


def test_a_connection_in_the_lane_is_as_idle_as_any(blobs):
    async def scenario():
        served, _ = await learned(blobs)
        connection = await served.connect()
        open_at = []
        for _ in range(3):
            # The first of them is the connection's first request.
            await connection.ask(PLAIN)
            await asyncio.sleep(60)
            open_at.append(not connection.wire.closed)
        await asyncio.sleep(20)
        return open_at, connection.wire.closed

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        assert runner.run(scenario()) == ([True] * 3, True)
