"""The translator process and its client, over a real socket."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket as sockets
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from opengpu_operator.api.translation import TranslateOptions
from opengpu_operator.compose import pipeline, server
from opengpu_operator.compose.client import FetchError, TranslatorClient, TranslatorUnavailable
from opengpu_operator.compose.fetch import Fetched, Fetcher
from opengpu_operator.compose.kompose import KomposeError
from opengpu_operator.compose.server import Translator, serving
from opengpu_operator.settings import Settings
from tests.support.compose import NO_KOMPOSE, Echo, one, real_kompose
from tests.support.environment import unavailable


class Counting(Echo):
    """A converter with a version, that can fail, wait, and be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most = 0
        self.number = "1.0"

    async def version(self) -> str:
        return self.number

    async def convert(self, file: bytes) -> dict[str, dict[str, Any]]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            if self.error:
                raise self.error
            return await super().convert(file)
        finally:
            self.running -= 1


class Files(Fetcher):
    async def fetch(self, url: str, *, sha256: str | None = None) -> Fetched:
        if url.endswith("/missing"):
            raise FetchError("FetchFailed", "the server answers 404")
        if url.endswith("/busy"):
            raise FetchError("FetchFailed", "the server answers 503", transient=True)
        return Fetched(text=f"{url} {sha256}", digest="sha256:0")


@pytest.fixture
def converter() -> Counting:
    return Counting()


@pytest.fixture
async def client(tmp_path: Path, converter: Counting) -> AsyncIterator[TranslatorClient]:
    socket = tmp_path / "translator.sock"
    translator = Translator(fetcher=Files(), kompose=converter, concurrency=2)  # type: ignore[arg-type]
    async with serving(socket, translator, deadline=2), TranslatorClient(socket) as found:
        yield found


async def test_fetching(client: TranslatorClient) -> None:
    assert await client.fetch("https://x/y", sha256="abc") == Fetched(
        text="https://x/y abc", digest="sha256:0"
    )
    with pytest.raises(FetchError) as caught:
        await client.fetch("https://x/missing")
    assert (caught.value.reason, caught.value.transient) == ("FetchFailed", False)
    with pytest.raises(FetchError) as caught:
        await client.fetch("https://x/busy")
    assert caught.value.transient


async def test_translating(client: TranslatorClient) -> None:
    text = one("ports: ['${PORT}:5555']\ngpus: all")
    options = TranslateOptions(environment="nvidia", variables={"PORT": "1"}, profiles=["a"])
    translation = await client.translate(text, options)
    assert translation == await pipeline.translate(text, options, kompose=Echo())
    assert translation.worker == "app"
    refused = await client.translate(one("privileged: true"), options)
    assert refused.refused


async def test_translations_are_kept_by_what_they_depend_on(
    client: TranslatorClient, converter: Counting
) -> None:
    options = TranslateOptions()
    first = await client.translate(one(""), options)
    assert await client.translate(one(""), options) == first
    assert len(converter.files) == 1
    for other in (
        TranslateOptions(environment="amd"),
        TranslateOptions(variables={"A": "b"}),
        TranslateOptions(profiles=["x"]),
    ):
        await client.translate(one(""), other)
    await client.translate(one("tty: true"), options)
    assert len(converter.files) == 5
    converter.number = "2.0"
    await client.translate(one(""), options)
    assert len(converter.files) == 6


async def test_the_cache_is_bounded(converter: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CACHE_ENTRIES", 3)
    translator = Translator(fetcher=Files(), kompose=converter)  # type: ignore[arg-type]
    for number in (0, 1, 2, 0, 3, 0):
        await translator.translate(
            server.TranslateRequest(text=one(f"scale: {number}"), options=TranslateOptions())
        )
    assert len(converter.files) == 4
    assert len(translator._cache) == 3
    assert translator._cached == sum(map(len, translator._cache.values()))
    monkeypatch.setattr(server, "_CACHE_CHARACTERS", translator._cached - 1)
    await translator.translate(server.TranslateRequest(text=one("scale: 9"), options=TranslateOptions()))
    assert len(translator._cache) < 3
    assert translator._cached == sum(map(len, translator._cache.values()))


async def test_failures_are_not_kept(client: TranslatorClient, converter: Counting) -> None:
    converter.error = KomposeError("kompose took longer than 20 s", transient=True)
    with pytest.raises(TranslatorUnavailable, match="longer than 20 s"):
        await client.translate(one(""), TranslateOptions())
    converter.error = None
    assert not (await client.translate(one(""), TranslateOptions())).refused


async def test_few_at_once(client: TranslatorClient, converter: Counting) -> None:
    converter.gate.clear()
    tasks = [
        asyncio.create_task(client.translate(one(f"scale: {number}"), TranslateOptions()))
        for number in range(6)
    ]
    async with asyncio.timeout(5):
        while converter.running < 2:  # noqa: ASYNC110 - a count, not an event
            await asyncio.sleep(0)
    converter.gate.set()
    assert not any(translation.refused for translation in await asyncio.gather(*tasks))
    assert converter.most == 2


async def test_the_deadline(client: TranslatorClient, converter: Counting) -> None:
    converter.gate.clear()
    with pytest.raises(TranslatorUnavailable, match="504"):
        await client.translate(one(""), TranslateOptions())
    assert converter.running == 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/fetch", "{}", 400),
        ("/fetch", '{"url": 1}', 400),
        ("/fetch", '{"url": "x", "more": 1}', 400),
        ("/translate", "[", 400),
        ("/translate", '{"text": "x", "options": {"unknown": 1}}', 400),
        ("/translate", json.dumps({"text": "x" * 3_000_000, "options": {}}), 413),
        ("/nothing", "{}", 404),
    ],
)
async def test_bad_requests(client: TranslatorClient, path: str, body: str, status: int) -> None:
    connector = aiohttp.UnixConnector(path=client._socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://x{path}", data=io.BytesIO(body.encode())) as answer,
    ):
        assert answer.status == status


async def test_health(client: TranslatorClient) -> None:
    connector = aiohttp.UnixConnector(path=client._socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://x/healthz") as answer,
    ):
        assert (answer.status, await answer.json()) == (200, {"ok": True})


async def test_the_socket(tmp_path: Path, converter: Counting) -> None:
    path = tmp_path / "t.sock"
    with sockets.socket(sockets.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    before = os.umask(0)
    os.umask(before)
    async with serving(path, Translator(fetcher=Files(), kompose=converter)):  # type: ignore[arg-type]
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        after = os.umask(0)
        os.umask(after)
        assert after == before
        async with TranslatorClient(path) as client:
            assert (await client.fetch("x")).text == "x None"


async def test_nobody_is_there(tmp_path: Path) -> None:
    async with TranslatorClient(tmp_path / "none") as client:
        with pytest.raises(TranslatorUnavailable, match="can't be reached"):
            await client.fetch("x")
        with pytest.raises(TranslatorUnavailable):
            await client.translate("x", TranslateOptions())


@pytest.mark.parametrize("answer", [b"[]", b'{"text": 1}', b"{", b'{"digest": "x", "services": 1}'])
async def test_answers_that_make_no_sense(tmp_path: Path, answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
        writer.write(head.encode() + answer)
        await writer.drain()
        writer.close()

    path = tmp_path / "t.sock"
    listening = await asyncio.start_unix_server(handle, path)
    async with listening, TranslatorClient(path) as client:
        with pytest.raises(TranslatorUnavailable):
            await client.fetch("x")
        with pytest.raises(TranslatorUnavailable):
            await client.translate("x", TranslateOptions())


async def test_the_process(tmp_path: Path) -> None:
    if real_kompose() is None:
        unavailable(NO_KOMPOSE)
    path = tmp_path / "t.sock"
    running = asyncio.create_task(server.run(path, Settings()))
    async with asyncio.timeout(10), TranslatorClient(path) as client:
        while not path.exists():  # noqa: ASYNC110 - the kernel makes it
            await asyncio.sleep(0.01)
        assert (await client.translate(one(""), TranslateOptions())).services
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    assert not path.exists()
