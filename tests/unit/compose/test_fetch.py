"""Fetching from strangers' URLs: nothing inside is ever connected to."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import ipaddress
import itertools
import re
import resource
import socket
import time
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.translation import TranslateOptions
from opengpu_operator.compose import fetch as subject
from opengpu_operator.compose import pipeline
from opengpu_operator.compose.addresses import is_public
from opengpu_operator.compose.fetch import Fetcher, FetchError, resolve_by_system
from tests.support.compose import Echo

COMPOSE = b"services: {app: {image: x}}\n"


class Trap:
    """A server on loopback that counts who connects, and answers what it is told."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.answers: dict[str, bytes] = {}
        self.streams: dict[str, Iterator[bytes]] = {}
        self.slow = asyncio.Event()
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            path = head.split()[1].decode()
            if path == "/slow":
                await self.slow.wait()
            for part in self.streams.get(path, [self.answers.get(path, response(COMPOSE))]):
                writer.write(part)
                await writer.drain()
                if len(part) == 1:
                    # One that drips: a byte now and then.
                    await asyncio.sleep(0.01)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def response(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n".encode() + body
    )


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def endless(head: bytes, part: bytes) -> Callable[[], Iterator[bytes]]:
    """Return a stream that starts with ``head`` and never ends."""
    return lambda: itertools.chain([head], itertools.repeat(part))


def drip(data: bytes) -> Callable[[], Iterator[bytes]]:
    """Return a stream of single bytes that goes on with the last one for ever."""
    single = [bytes([byte]) for byte in data]
    return lambda: itertools.chain(single, itertools.repeat(single[-1]))


def redirect(location: str, status: str = "302 Found") -> bytes:
    return response(b"", status=status, headers=f"Location: {location}\r\n")


@pytest.fixture
async def trap() -> AsyncIterator[Trap]:
    found = Trap()
    server = await asyncio.start_server(found.handle, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    found.slow.set()
    server.close()
    await server.wait_closed()


def names(table: Mapping[str, Sequence[str]]) -> Callable[[str, int], object]:
    async def resolve(host: str, port: int, /) -> Sequence[str]:
        del port
        if host not in table:
            raise socket.gaierror(host)
        return table[host]

    return resolve


LOCAL = {"inside.test": ["127.0.0.1"], "files.cluster.test": ["127.0.0.1"]}


def local(**options: object) -> Fetcher:
    """Return a fetcher that may fetch from the trap, by its name."""
    options.setdefault("allowed_hosts", ["inside.test", "*.cluster.test"])
    options.setdefault("resolve", names(LOCAL))
    return Fetcher(**options)  # type: ignore[arg-type]


ADDRESSES = [
    *(
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0x7F.0x0.0x0.0x1",
    ),
    *(
        "0",
        "0.0.0.0",
        "0x0",
        "00.0.0.0",
        "127.0.0.1.",
        "127.0.0.01",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "x.localhost",
    ),
    *(
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.192",
        "198.18.0.1",
    ),
    *("168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.88.99.1", "192.0.2.1"),
    *(
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ),
    *(
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fe80::1%eth0]",
        "[fc00::1]",
    ),
    *(
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[100::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[5f00::1]",
        "[::ffff:0:127.0.0.1]",
    ),
    *(
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[2002:c0a8:101::]",
        "[2001::1]",
        "[2001:20::1]",
        "[2620:4f:8000::1]",
        "[fec0::1]",
        "[::169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[0000:0000:0000:0000:0000:ffff:7f00:0001]",
        "[::1]x",
        "x[::1]",
        "[::1].",
        "[fe80::1%251]",
    ),
    *(
        "0x7f.0x1",
        "0177.1",
        "127.0.0.1.1",
        "0127.0.0.1",
        "0x7f000001.",
        "000000000177.0.0.1",
        "4294967295",
        "127.0.1.",
        "0b1111111",
        "1e3",
        "\uff11\uff12\uff17.0.0.1",
        "\u0661\u0662\u0667.0.0.1",
        "127\uff0e0\uff0e0\uff0e1",
        "loc\u00adalhost",
        "\u2488\u2488\u2488\u2488",
        "xn--127-0-0-1",
    ),
]
URLS = [
    *(f"https://{host}{{port}}/x" for host in ADDRESSES),
    *(f"http://{host}{{port}}/x" for host in ADDRESSES),
    *(
        "https://user@127.0.0.1{port}/",
        "https://user:pw@example.com{port}/",
        "https://example.com@127.0.0.1{port}/",
    ),
    *(
        "https://127.0.0.1{port}#@example.com/",
        "https://127.0.0.1{port}?@example.com/",
        "https://example.com\\@127.0.0.1{port}/",
    ),
    *(
        "https://127.0.0.1%2f@example.com{port}/",
        "https://127%2e0.0.1{port}/",
        "https://①②⑦.⓪.⓪.①{port}/",
        "https://127。0。0。1{port}/",
    ),
    *(
        "https://[::1{port}/",
        "https://[::1]x{port}/",
        "https://::1{port}/",
        "https://{port}/",
        "https:///127.0.0.1{port}/",
    ),
    *(
        "file:///etc/passwd",
        "ftp://127.0.0.1{port}/",
        "gopher://127.0.0.1{port}/_x",
        "unix:///run/x.sock",
        "data:text/plain,x",
    ),
    *(
        "//127.0.0.1{port}/",
        "127.0.0.1{port}",
        "https:127.0.0.1{port}",
        "https://127.0.0.1{port}\r\nHost: x/",
        "https://127.0.0.1 {port}/",
    ),
    *(
        "https://ex ample.com{port}/",
        "https://example.com:99999/",
        "https://example.com:0x50/",
        "javascript:x",
        "",
        "https://",
    ),
    *(
        "https://-{port}/",
        "https://a..b{port}/",
        "https://{port}.{port}/",
        "https://example.com:-1/",
        "http://169.254.169.254/latest/meta-data",
    ),
    *(
        "https://private.test{port}/",
        "https://mixed.test{port}/",
        "https://mapped.test{port}/",
        "https://odd.test{port}/",
        "https://" + "a" * 3000,
    ),
    *(
        "https://example.com:{port}@127.0.0.1{port}/",
        "https://127.0.0.1{port}:@example.com/",
        "https://:@127.0.0.1{port}/",
        "https://@127.0.0.1{port}/",
        "https://a@b@127.0.0.1{port}/",
        "https://example.com%40127.0.0.1{port}/",
        "https://127.0.0.1{port}/@example.com/",
        "https://127.0.0.1{port};@example.com/",
        "https://example.com&@127.0.0.1{port}#@example.com/",
        "https://[::1]@example.com{port}/",
        "https://[example.com]{port}/",
        "https://[v1.127.0.0.1]{port}/",
    ),
]


def test_there_are_enough_of_them() -> None:
    assert len(set(URLS)) >= 190


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("default_port", [False, True])
async def test_nothing_inside_is_connected_to(
    trap: Trap, url: str, default_port: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {
        "private.test": ["10.0.0.1"],
        "mixed.test": ["93.184.215.14", "127.0.0.1"],
        "mapped.test": ["::ffff:127.0.0.1"],
        "odd.test": ["fe80::1%lo"],
        **{key: ["127.0.0.1", "::1"] for key in ["localhost", "localhost.", "x.localhost"]},
        # As a resolver that is too helpful would have it.
        **{key: ["127.0.0.1"] for key in ["0b1111111", "1e3", "xn--127-0-0-1"]},
    }
    monkeypatch.setitem(subject._PORTS, "http", trap.port)
    monkeypatch.setitem(subject._PORTS, "https", trap.port)
    fetcher = Fetcher(allow_http=True, resolve=names(table))  # type: ignore[arg-type]
    with pytest.raises(FetchError) as caught:
        await fetcher.fetch(url.replace("{port}", "" if default_port else f":{trap.port}"))
    assert caught.value.reason == Reason.FETCH_FAILED
    if ".test" in url:
        # What a name of the cluster's network means is nobody's business.
        assert not re.search(r"10\.0\.0\.1|127\.0\.0\.1|fe80", caught.value.message)
    assert trap.connections == 0


async def test_a_name_that_changes_its_mind(trap: Trap) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int, /) -> Sequence[str]:
        del port
        asked.append(host)
        return ["93.184.215.14"] if len(asked) == 1 else ["127.0.0.1"]

    fetcher = Fetcher(resolve=rebinding)
    target = await fetcher._check("https://rebind.test/x")
    assert [str(address) for address in target.addresses] == ["93.184.215.14"]
    resolved = await subject._Pinned(target).resolve("rebind.test", 443)
    assert [entry["host"] for entry in resolved] == ["93.184.215.14"]
    assert asked == ["rebind.test"]
    with pytest.raises(FetchError, match="not public"):
        await fetcher._check("https://rebind.test/x")
    assert trap.connections == 0


PUBLIC, PRIVATE = "127.0.0.1", "127.0.0.2"


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([[PUBLIC], [PRIVATE]], ""),
        ([[PUBLIC, PRIVATE]], "not public"),
        ([[PRIVATE, PUBLIC]], "not public"),
        ([[PUBLIC, f"::ffff:{PRIVATE}"]], "not public"),
        ([[PUBLIC, "::1"]], "not public"),
        ([[PUBLIC] * 31 + [PRIVATE]], "not public"),
        ([[PUBLIC] * 100 + [PRIVATE]], ""),
        ([["127.0.0.3"], [PRIVATE]], "can't be fetched"),
        ([[]], "no address"),
        ([[PRIVATE + "\n", PUBLIC]], "can't be looked up"),
        ([["inside.test"]], "can't be looked up"),
        ([[""]], "can't be looked up"),
        ([["fe80::1%lo", PUBLIC]], "not public"),
    ],
)
async def test_names_that_mean_several_things(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, answers: list[list[str]], error: str
) -> None:
    """Two servers on one port, of which one is private; nobody must get to that one, whatever a name means when."""
    private = Trap()
    server = await asyncio.start_server(private.handle, PRIVATE, trap.port)
    monkeypatch.setitem(subject._PORTS, "http", trap.port)
    monkeypatch.setattr(subject, "is_public", lambda address: str(address) in (PUBLIC, "127.0.0.3"))
    asked: list[str] = []

    async def rebinding(host: str, port: int, /) -> Sequence[str]:
        del port
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    fetcher = Fetcher(allow_http=True, resolve=rebinding)
    url = f"http://rebind.test:{trap.port}/x"
    try:
        if error:
            with pytest.raises(FetchError, match=error):
                await fetcher.fetch(url)
        else:
            assert (await fetcher.fetch(url)).text
        assert asked == ["rebind.test"]
        if len(answers) > 1:
            # The next time it means the other one; so does a redirect to itself.
            with pytest.raises(FetchError, match="not public"):
                await fetcher.fetch(url)
            asked.clear()
            trap.answers["/again"] = redirect("/x")
            with pytest.raises(FetchError):
                await fetcher.fetch(f"http://rebind.test:{trap.port}/again")
        assert private.connections == 0
    finally:
        server.close()
        await server.wait_closed()


async def test_names_that_nobody_answers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CONNECT_SECONDS", 0.1)

    async def silent(host: str, port: int, /) -> Sequence[str]:
        del host, port
        await asyncio.Event().wait()
        return []

    with pytest.raises(FetchError, match="looked up") as caught:
        await Fetcher(resolve=silent).fetch("https://silent.test/x")
    assert caught.value.transient


async def test_the_checked_address_is_connected_to_under_the_name(trap: Trap) -> None:
    fetched = await local().fetch(f"http://inside.test:{trap.port}/x?y=z")
    assert fetched.text == COMPOSE.decode()
    assert fetched.digest == f"sha256:{hashlib.sha256(COMPOSE).hexdigest()}"
    (request,) = trap.requests
    assert request.startswith(b"GET /x?y=z HTTP/1.1\r\n")
    assert f"host: inside.test:{trap.port}\r\n".encode() in request.lower()
    assert b"accept-encoding: identity" in request.lower()


async def test_proxies_of_the_environment_are_not_used(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://203.0.113.1:1")
    assert (await local().fetch(f"http://files.cluster.test:{trap.port}/x")).text


@pytest.mark.parametrize(
    ("allowed", "host", "reason"),
    [
        (["inside.test"], "inside.test", ""),
        (["INSIDE.test."], "inside.TEST", ""),
        (["*.cluster.test"], "files.cluster.test", ""),
        (["*.cluster.test"], "inside.test", "only https"),
        (["cluster.test"], "files.cluster.test", "only https"),
        (["*.test.evil"], "inside.test", "only https"),
        ([], "inside.test", "only https"),
    ],
)
async def test_hosts_that_the_owner_allows(trap: Trap, allowed: list[str], host: str, reason: str) -> None:
    fetcher = local(allowed_hosts=allowed)
    url = f"http://{host}:{trap.port}/x"
    if not reason:
        assert (await fetcher.fetch(url)).text
        return
    with pytest.raises(FetchError, match=reason):
        await fetcher.fetch(url)
    assert trap.connections == 0


async def test_ports(trap: Trap) -> None:
    with pytest.raises(FetchError, match="only 80 and 443"):
        await local(allowed_hosts=[], allow_http=True).fetch(f"https://inside.test:{trap.port}/x")


REDIRECTS = [
    *(
        "http://127.0.0.1:{port}/x",
        "http://private.test/",
        "https://169.254.169.254/",
        "file:///etc/passwd",
        "//127.0.0.1/x",
    ),
    *(
        "http://user@inside.test:{port}/x",
        "http://[::ffff:127.0.0.1]:{port}/x",
        "ftp://inside.test/",
        "http://2130706433/",
    ),
    *(
        "http://localhost:{port}/",
        "http://inside.test@127.0.0.1:{port}/",
        "http://[::1]:{port}/",
        "http:/\\\\127.0.0.1:{port}/",
        "\\\\127.0.0.1:{port}\\x",
        "http://inside.test:{port}x/",
        "http://other.test:{port}/",
        "data:text/plain,services: {}",
        "http://inside.test:1/",
        "?" + "x" * 3000,
    ),
]


@pytest.mark.parametrize("location", REDIRECTS)
async def test_redirects_go_through_the_same_door(trap: Trap, location: str) -> None:
    trap.answers["/start"] = redirect(location.replace("{port}", str(trap.port)))
    with pytest.raises(FetchError):
        await local().fetch(f"http://inside.test:{trap.port}/start")
    assert trap.connections == 1


@pytest.mark.parametrize("status", ["301 x", "302 x", "303 x", "307 x", "308 x"])
async def test_redirects_are_followed(trap: Trap, status: str) -> None:
    trap.answers |= {"/a": redirect("b", status), "/b": redirect("/c", status)}
    trap.answers["/c"] = redirect(f"http://files.cluster.test:{trap.port}/d", status)
    assert (await local().fetch(f"http://inside.test:{trap.port}/a")).text
    assert trap.connections == 4


async def test_redirects_end(trap: Trap) -> None:
    trap.answers["/a"] = redirect("/a")
    with pytest.raises(FetchError, match="more than 3"):
        await local().fetch(f"http://inside.test:{trap.port}/a")
    assert trap.connections == 4
    trap.answers["/b"] = response(b"", status="302 x")
    with pytest.raises(FetchError, match="nowhere"):
        await local().fetch(f"http://inside.test:{trap.port}/b")


@pytest.mark.parametrize(
    ("answer", "reason", "transient"),
    [
        (response(b"x" * (256 * 1024 + 1)), "NotAComposeFile", False),
        (
            response(gzip.compress(b"x" * 10_000_000), headers="Content-Encoding: gzip\r\n"),
            "FetchFailed",
            False,
        ),
        (response(b"x", headers="Content-Encoding: br\r\n"), "FetchFailed", False),
        (response(b"\xff"), "NotAComposeFile", False),
        (response(b"", status="404 x"), "FetchFailed", False),
        (response(b"", status="403 x"), "FetchFailed", False),
        (response(b"", status="429 x"), "FetchFailed", True),
        (response(b"", status="503 x"), "FetchFailed", True),
        (response(b"", status="204 x"), "FetchFailed", False),
        (response(b"x", length=100), "FetchFailed", True),
        (b"", "FetchFailed", True),
        (b"SSH-2.0-x\r\n", "FetchFailed", True),
        (response(b"x", headers="X: " + "y" * 100_000 + "\r\n"), "FetchFailed", True),
    ],
)
async def test_bad_answers(trap: Trap, answer: bytes, reason: str, transient: bool) -> None:
    trap.answers["/x"] = answer
    with pytest.raises(FetchError) as caught:
        await local().fetch(f"http://inside.test:{trap.port}/x")
    assert (caught.value.reason, caught.value.transient) == (reason, transient)


BOMB = zlib.compress(b"services: {}\n" * 1_000_000)


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("compose.yaml", b"services: {}\n" * 1_000_000)
    return held.getvalue()


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        *(
            (f"Content-Encoding: {name}", gzip.compress(BOMB), "FetchFailed")
            for name in (
                *(
                    "gzip",
                    "GZIP",
                    " x-gzip ",
                    "deflate",
                    "br",
                    "zstd",
                    "compress",
                    "gzip, gzip",
                    "identity, gzip",
                ),
                *("gzip;q=1", "x" * 5000, "\t", "aes128gcm"),
            )
            if name.strip()
        ),
        ("Content-Encoding: identity\r\nContent-Encoding: gzip", gzip.compress(BOMB), "NotAComposeFile"),
        ("Content-Encoding:", BOMB, "NotAComposeFile"),
        ("Content-Type: application/gzip", gzip.compress(BOMB), "NotAComposeFile"),
        ("Content-Type: application/zlib", BOMB, "NotAComposeFile"),
        ("Content-Type: application/zip", zipped(), "NotAComposeFile"),
        ("Content-Type: text/plain", gzip.compress(gzip.compress(BOMB)), "NotAComposeFile"),
        ("Transfer-Encoding: gzip", gzip.compress(BOMB), "NotAComposeFile"),
        ("Transfer-Encoding: gzip, chunked", gzip.compress(BOMB), "FetchFailed"),
    ],
)
async def test_nothing_is_unpacked(trap: Trap, headers: str, body: bytes, reason: str) -> None:
    length = "" if "Transfer" in headers else f"Content-Length: {len(body)}\r\n"
    trap.answers["/x"] = f"HTTP/1.1 200 OK\r\n{length}{headers}\r\n\r\n".encode() + body
    with pytest.raises(FetchError) as caught:
        await local().fetch(f"http://inside.test:{trap.port}/x")
    assert caught.value.reason == reason
    assert len(caught.value.message) < 200


async def test_compressed_bytes_are_not_unpacked(trap: Trap) -> None:
    trap.answers["/x"] = response(gzip.compress(COMPOSE), headers="Content-Encoding: identity\r\n")
    with pytest.raises(FetchError, match="UTF-8"):
        await local().fetch(f"http://inside.test:{trap.port}/x")


async def test_slow_servers(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TOTAL_SECONDS", 0.2)
    with pytest.raises(FetchError) as caught:
        await local().fetch(f"http://inside.test:{trap.port}/slow")
    assert caught.value.transient


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), "FetchFailed"),
        (endless(b"HTTP/1.1 200 ", b"x" * 10_000), "FetchFailed"),
        (endless(HEAD, b"X-A: y\r\n" * 1000), "FetchFailed"),
        (endless(HEAD + b"X-A: ", b"y" * 10_000), "FetchFailed"),
        (endless(HEAD + b"\r\n", b"# endless\n" * 1000), "NotAComposeFile"),
        (endless(HEAD + b"Content-Length: 99999999999\r\n\r\n", b"# long\n" * 1000), "NotAComposeFile"),
        (endless(CHUNKED, b"1\r\n#\r\n" * 1000), "NotAComposeFile"),
        (endless(CHUNKED, b"fff\r\n" + b"#" * 0xFFF + b"\r\n"), "NotAComposeFile"),
        (endless(CHUNKED + b"1;", b"x=y;" * 1000), "FetchFailed"),
        (endless(CHUNKED + b"0\r\n", b"X-A: y\r\n" * 1000), "FetchFailed"),
        (endless(CHUNKED + b"1", b"0" * 1000), "FetchFailed"),
        (drip(HEAD + b"X: y"), "FetchFailed"),
        (drip(HEAD + b"\r\nservices: {}\n"), "FetchFailed"),
        (drip(CHUNKED), "FetchFailed"),
        (lambda: iter([HEAD + b"Content-Length: 99\r\n\r\n", *([b"#"] * 98), b""]), "FetchFailed"),
    ],
)
async def test_endless_answers(
    trap: Trap, monkeypatch: pytest.MonkeyPatch, stream: Callable[[], Iterator[bytes]], reason: str
) -> None:
    if reason == "FetchFailed":
        # The others end by their size, and have the time for it.
        monkeypatch.setattr(subject, "TOTAL_SECONDS", 0.5)
    trap.streams["/x"] = stream()
    before = time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FetchError) as caught:
        await local().fetch(f"http://inside.test:{trap.port}/x")
    assert time.monotonic() - before < (5 if reason == "FetchFailed" else subject.TOTAL_SECONDS)
    assert caught.value.reason == reason
    # A hundred megabytes come in that time where nothing is kept of them.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 32 * 1024


async def test_redirects_do_not_start_the_clock_again(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TOTAL_SECONDS", 2.0)
    for number in range(1, 4):
        # Each takes less than the time for all.
        head = f"HTTP/1.1 302 x\r\nLocation: /{number + 1}\r\nContent-Length: 0\r\nX: ".encode()
        trap.streams[f"/{number}"] = itertools.chain([head], itertools.repeat(b"y", 80), [b"\r\n\r\n"])
    with pytest.raises(FetchError, match="longer than 2 s"):
        await local().fetch(f"http://inside.test:{trap.port}/1")
    assert trap.connections > 1


async def test_one_that_never_shakes_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TOTAL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(FetchError) as caught:
            await local().fetch(f"https://inside.test:{port}/x")
        assert caught.value.transient


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("text/html; charset=utf-8", b"<!DOCTYPE html><html><body>GitHub</body></html>", "NotAComposeFile"),
        ("text/html", COMPOSE, ""),
        ("application/json", b'{"schemaVersion": 2, "layers": []}', "NotAComposeFile"),
        (
            "application/vnd.oci.image.index.v1+json",
            b'{"mediaType": "application/vnd.oci.x"}',
            "NotAComposeFile",
        ),
        ("application/octet-stream", COMPOSE, ""),
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "NotAComposeFile"),
        ("text/plain; charset=utf-16", "services: {}".encode("utf-16"), "NotAComposeFile"),
        ("text/plain; charset=utf-16le", "services: {}".encode("utf-16-le"), "BadEncoding"),
        ("text/yaml; charset=latin-1", "services: {é: {}}".encode("latin-1"), "NotAComposeFile"),
        ("text/yaml; charset=utf-7", b"+AHM-ervices: {app: {image: x}}", "NotAComposeFile"),
        ("text/x-dockerfile", b"FROM debian\nRUN x\n", "NotAComposeFile"),
        ("application/x-sh", b"#!/bin/sh\nid\n", "NotAComposeFile"),
        ("application/xml", b"<?xml version='1.0'?><services/>", "NotAComposeFile"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nservices: {}\r\n--x--", "BadYaml"),
        ('application/x-yaml; charset="', COMPOSE, ""),
        ("", b"404: Not Found", "NotAComposeFile"),
    ],
)
async def test_what_servers_call_it_means_nothing(trap: Trap, kind: str, body: bytes, reason: str) -> None:
    trap.answers["/x"] = response(body, headers=f"Content-Type: {kind}\r\n" if kind else "")
    found = set()
    try:
        fetched = await local().fetch(f"http://inside.test:{trap.port}/x")
    except FetchError as error:
        found.add(error.reason)
    else:
        translation = await pipeline.translate(fetched.text, TranslateOptions(), kompose=Echo())
        found = {finding.reason for finding in translation.findings if finding.severity == "error"}
    assert found == {reason} - {""}


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"http://{SECRET}@inside.test:{{port}}/x",
        f"http://user:{SECRET}@inside.test:{{port}}/x",
        f"http://:{SECRET}@inside.test:{{port}}/x",
        f"http://{SECRET}:@inside.test:{{port}}/x",
        f"http://user:{SECRET}@inside.test@inside.test:{{port}}/x",
        f"http://user:{SECRET}%40inside.test:{{port}}/x",
        f"http://user:{SECRET}\\@inside.test:{{port}}/x",
        f"http://user:{SECRET} @inside.test:{{port}}/x",
        f"http://inside.test:{SECRET}@/x",
        f"ssh://git:{SECRET}@inside.test/x",
        f"http://nowhere.test/x?token={SECRET}",
        f"http://inside.test:{{port}}/missing?token={SECRET}#{SECRET}",
    ],
)
async def test_credentials_of_an_address_are_not_used_or_told(trap: Trap, url: str) -> None:
    trap.answers[f"/missing?token={SECRET}"] = response(b"", status="404 x")
    with pytest.raises(FetchError) as caught:
        await local().fetch(url.replace("{port}", str(trap.port)))
    told: BaseException | None = caught.value
    while told is not None:
        assert SECRET not in str(told)
        told = told.__cause__
    assert trap.connections == ("missing" in url)


async def test_nothing_of_ours_goes_along(
    trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine inside.test login me password {SECRET}\ndefault login me password {SECRET}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    trap.answers["/a"] = response(
        b"",
        status="302 x",
        headers=f"Location: http://files.cluster.test:{trap.port}/b\r\nSet-Cookie: a={SECRET}\r\n",
    )
    trap.answers["/b"] = response(
        b"",
        status="302 x",
        headers=f"Location: /c#{SECRET}\r\nWWW-Authenticate: Basic\r\nSet-Cookie: a={SECRET}\r\n",
    )
    assert (await local().fetch(f"http://inside.test:{trap.port}/a#{SECRET}")).text
    assert len(trap.requests) == 3
    for request in trap.requests:
        lines = request.decode().lower().split("\r\n")
        assert SECRET not in request.decode()
        sent = {line.partition(":")[0] for line in lines[1:] if line}
        assert sent == {"host", "accept", "accept-encoding", "user-agent", "connection"}


async def test_names_that_are_not_there() -> None:
    with pytest.raises(FetchError) as caught:
        await local().fetch("https://nowhere.test/x")
    assert (caught.value.reason, caught.value.transient) == ("FetchFailed", True)
    with pytest.raises(FetchError, match="no address"):
        await local(resolve=names({"empty.test": []})).fetch("https://empty.test/x")


async def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(FetchError) as caught:
        await local().fetch(f"http://inside.test:{port}/x")
    assert caught.value.transient


async def test_pins(trap: Trap) -> None:
    url = f"http://inside.test:{trap.port}/x"
    digest = hashlib.sha256(COMPOSE).hexdigest()
    assert (await local().fetch(url, sha256=digest.upper())).text
    with pytest.raises(FetchError) as caught:
        await local().fetch(url, sha256="0" * 64)
    assert caught.value.reason == "DigestMismatch"


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::200e", "172.32.0.1", "100.128.0.1"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def test_the_systems_names() -> None:
    assert set(await resolve_by_system("127.0.0.1", 80)) == {"127.0.0.1"}
