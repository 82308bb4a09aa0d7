"""Fetching from strangers' URLs: nothing inside is ever connected to."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest

from opengpu_operator.api.reasons import Reason
from opengpu_operator.compose import fetch as subject
from opengpu_operator.compose.addresses import is_public
from opengpu_operator.compose.fetch import Fetcher, FetchError, resolve_by_system

COMPOSE = b"services: {app: {image: x}}\n"


class Trap:
    """A server on loopback that counts who connects, and answers what it is told."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.answers: dict[str, bytes] = {}
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
            writer.write(self.answers.get(path, response(COMPOSE)))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def response(body: bytes, *, status: str = "200 OK", headers: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n".encode() + body
    )


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
]


def test_there_are_enough_of_them() -> None:
    assert len(set(URLS)) >= 120


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


async def test_compressed_bytes_are_not_unpacked(trap: Trap) -> None:
    trap.answers["/x"] = response(gzip.compress(COMPOSE), headers="Content-Encoding: identity\r\n")
    with pytest.raises(FetchError, match="UTF-8"):
        await local().fetch(f"http://inside.test:{trap.port}/x")


async def test_slow_servers(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "TOTAL_SECONDS", 0.2)
    with pytest.raises(FetchError) as caught:
        await local().fetch(f"http://inside.test:{trap.port}/slow")
    assert caught.value.transient


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
