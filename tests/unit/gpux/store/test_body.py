"""Long bodies, which are read past aiohttp: whole or refused, and nothing after them is taken for a request."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import tarfile
import threading
from io import BytesIO

import pytest

from gpux.store import body
from tests.support.patience import PATIENCE
from tests.unit.gpux.store.conftest import serving, token

LONG = 3 * body._LONG + 4711
CONTENT = os.urandom(LONG)
SHA1 = hashlib.sha1(CONTENT).hexdigest()


class Client:
    """A connection that sends what it is told, and reads answers."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, service):
        host, port = service.url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def head(self, method, path, length, *, bearer=None, **headers):
        """Send a request without its body."""
        headers = {
            "Host": "x",
            "Authorization": f"Bearer {bearer or token()}",
            "Content-Length": length,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())

    async def answer(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        assert length
        content = await self.reader.readexactly(int(length[1]))
        return int(head.split()[1]), head.lower(), json.loads(content)

    async def sent(self, content):
        self.writer.write(content)
        await self.writer.drain()

    async def rest(self):
        """What comes until the connection ends; that it is reset says that not everything was read."""
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    def close(self):
        self.writer.transport.abort()


@pytest.fixture
def straight(monkeypatch):
    """How much was read past aiohttp, piece by piece."""
    pieces = []
    fill = body._Straight._fill

    async def counted(self, buffer, seconds):
        count = await fill(self, buffer, seconds)
        pieces.append(count)
        return count

    monkeypatch.setattr(body._Straight, "_fill", counted)
    return pieces


async def test_a_long_body_is_stored_as_it_was_sent(either, straight):
    client = await Client.to(either)
    client.head("POST", "/v1/files", LONG)
    await client.sent(CONTENT)
    status, head, document = await client.answer()
    assert (status, document["sha1"], document["size"]) == (201, SHA1, LONG)
    assert "\r\nconnection: close\r\n" in head
    assert await client.rest() == b""
    assert sum(straight) > body._LONG
    assert (await either.ask("GET", f"/v1/files/{SHA1}"))[2] == CONTENT
    client.close()


async def test_a_body_of_unknown_length_is_parsed(service, straight):
    async def chunks():
        yield CONTENT

    status, _, answer = await service.ask("POST", "/v1/files", body=chunks())
    assert (status, json.loads(answer)["sha1"]) == (201, SHA1)
    assert not straight


async def test_a_connection_is_kept_after_a_short_body(service, straight):
    client = await Client.to(service)
    for content in (b"one", b"two"):
        client.head("POST", "/v1/files", len(content))
        await client.sent(content)
        status, head, _ = await client.answer()
        assert status == 201
        assert "connection: close" not in head
    assert not straight
    client.close()


async def test_what_follows_a_long_body_is_no_request(service, straight):
    client = await Client.to(service)
    client.head("POST", "/v1/files", LONG)
    client.writer.write(CONTENT)
    client.head("POST", "/v1/files", 3)
    await client.sent(b"two")
    assert (await client.answer())[0] == 201
    assert await client.rest() == b""
    assert sum(straight) > body._LONG
    assert await service.status("GET", f"/v1/files/{hashlib.sha1(b'two').hexdigest()}") == 404
    client.close()


async def test_a_refused_body_is_heard_out(service, straight):
    """Else its sender would see a broken connection instead of the answer."""
    client = await Client.to(service)
    client.head("POST", "/v1/files", LONG)
    await client.sent(CONTENT[: body._LONG])
    await until(lambda: sum(straight))
    service.disk.left = 0
    await client.sent(CONTENT[body._LONG : 2 * body._LONG])
    status, head, document = await client.answer()
    assert (status, document["error"]) == (507, "the store is full")
    assert "\r\nconnection: close\r\n" in head
    await client.sent(CONTENT[2 * body._LONG :])
    assert await client.reader.read() == b""
    client.close()


async def test_a_long_body_that_breaks_off_leaves_nothing(service, straight, root):
    client = await Client.to(service)
    client.head("POST", "/v1/files", LONG)
    await client.sent(CONTENT[: 2 * body._LONG])
    await until(lambda: sum(straight) > body._LONG)
    client.close()
    await until(lambda: not list((root / "tmp").iterdir()))
    assert await service.status("GET", f"/v1/files/{SHA1}") == 404


async def test_what_came_of_a_part_that_breaks_off_is_kept(service, straight):
    _, _, answer = await service.ask("POST", "/v1/uploads", headers={"Upload-Length": str(LONG)})
    upload = f"/v1/uploads/{json.loads(answer)['id']}"
    client = await Client.to(service)
    client.head("PATCH", upload, LONG, Upload_Offset="0")
    came = 2 * body._LONG + 1
    await client.sent(CONTENT[:came])
    client.writer.write_eof()
    assert (await client.answer())[0] == 400
    assert sum(straight) > body._LONG
    assert (await service.ask("GET", upload))[1]["Upload-Offset"] == str(came)
    rest = {"Upload-Offset": str(came)}
    assert await service.status("PATCH", upload, body=CONTENT[came:], headers=rest) == 200
    _, _, answer = await service.ask("POST", f"{upload}/done")
    assert json.loads(answer)["sha1"] == SHA1
    client.close()


async def test_whoever_falls_silent_in_a_long_body_keeps_nobody_out(root, straight):
    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        client = await Client.to(service)
        client.head("POST", "/v1/files", LONG)
        for start in range(0, LONG, body._LONG):
            await client.sent(CONTENT[start : start + body._LONG])
            assert await service.status("POST", "/v1/files", body=f"another {start}".encode()) == 201
        status, _, document = await client.answer()
        assert (status, document["sha1"]) == (201, SHA1)
        assert sum(straight) > body._LONG
        client.close()


async def test_whoever_drips_in_a_long_body_lets_others_go_first(root, straight):
    sent = body._LONG

    async def drip():
        nonlocal sent
        while True:
            client.writer.write(CONTENT[sent : sent + 1])
            sent += 1
            await client.writer.drain()
            await asyncio.sleep(0.001)

    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        client = await Client.to(service)
        client.head("POST", "/v1/files", LONG)
        await client.sent(CONTENT[: body._LONG])
        dripping = asyncio.create_task(drip())
        await until(lambda: sum(straight))
        assert await service.status("POST", "/v1/files", body=b"another") == 201
        dripping.cancel()
        await client.sent(CONTENT[sent:])
        assert (await client.answer())[2]["sha1"] == SHA1
        client.close()


async def test_whoever_waits_in_a_long_body_has_no_large_buffer(root, straight, monkeypatch):
    made = []

    class Watched(body._Straight):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(body, "_Straight", Watched)
    async with serving(root) as service:
        client = await Client.to(service)
        client.head("POST", "/v1/files", LONG)
        await client.sent(CONTENT[: body._LONG])
        await until(lambda: made and made[0]._fast)
        await until(lambda: not made[0]._fast)
        await client.sent(CONTENT[body._LONG :])
        assert (await client.answer())[2]["sha1"] == SHA1
        client.close()


async def test_a_silent_sender_of_a_long_body_is_told_so(service, straight, monkeypatch):
    monkeypatch.setattr(body, "IDLE_SECONDS", 0.5)
    client = await Client.to(service)
    client.head("POST", "/v1/files", LONG)
    await client.sent(CONTENT[: body._LONG])
    status, _, document = await client.answer()
    assert (status, document["error"]) == (408, "the body stalled")
    assert straight
    client.close()


async def test_an_archive_longer_than_a_buffer_is_taken_apart_rightly(service, straight):
    """Its members end anywhere in the buffers that are used again and again."""
    sizes = [0, 1, 511, body.BUFFER - 512, 3 * body.BUFFER + 7, body.BUFFER, 100, 2 * body.BUFFER, 70_000]
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        start = 0
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"{number}-{'x' * 120}")
            info.size = size
            tar.addfile(info, BytesIO(CONTENT[start : start + size]))
            start += size
    status, _, answer = await service.ask("POST", "/v1/folders", body=archive.getvalue())
    assert status == 201, answer
    assert straight
    _, _, content = await service.ask("GET", f"/v1/folders/{json.loads(answer)['sha1']}")
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        contents = {}
        for member in tar:
            extracted = tar.extractfile(member)
            assert extracted is not None
            contents[member.name.partition("-")[0]] = extracted.read()
    start = 0
    for number, size in enumerate(sizes):
        assert contents[str(number)] == CONTENT[start : start + size], number
        start += size


async def test_bytes_stay_what_they_are_until_they_are_written(service, straight):
    """However far the disk is behind, and however small the pieces are in which the end of a member comes."""
    content = CONTENT[: 8 * body.BUFFER + 1]
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.size = len(content)
        tar.addfile(info, BytesIO(content))
    raw = archive.getvalue()
    end = 512 + len(content)
    write, go_on = service.disk.write, threading.Event()
    written = 0

    def behind(fd, data):
        nonlocal written
        if written > len(content) - 1.5 * body.BUFFER:
            go_on.wait(60 * PATIENCE)
        written += len(data)
        write(fd, data)

    service.disk.write = behind
    client = await Client.to(service)
    client.head("POST", "/v1/folders", len(raw))
    await client.sent(raw[:end])
    for start in range(end, end + 240, 20):
        await asyncio.sleep(2 * body._GATHER_SECONDS)
        await client.sent(raw[start : start + 20])
    go_on.set()
    await client.sent(raw[end + 240 :])
    assert (await client.answer())[0] == 201
    status, _, got = await service.ask("GET", f"/v1/files/{hashlib.sha1(content).hexdigest()}")
    assert (status, got == content) == (200, True)
    client.close()


async def until(condition):
    async with asyncio.timeout(60 * PATIENCE):
        while not condition():  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.005)
