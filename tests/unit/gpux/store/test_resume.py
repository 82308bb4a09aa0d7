"""Uploads in several requests: what came before a break counts, and what isn't ended leaves nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os

import pytest

from gpux.store import resume
from gpux.store.http import HttpError
from tests.support.patience import PATIENCE
from tests.unit.gpux.store.conftest import serving, token

MIB = 1 << 20


def requests_for(path):
    """Every request that there is for an upload."""
    return [*((method, path) for method in ("PATCH", "GET", "HEAD", "DELETE")), ("POST", f"{path}/done")]


async def begin(service, *, length=None, **options):
    headers = {} if length is None else {"Upload-Length": str(length)}
    status, _, content = await service.ask("POST", "/v1/uploads", headers=headers, **options)
    assert status == 201, content
    document = json.loads(content)
    assert document["offset"] == 0
    return f"/v1/uploads/{document['id']}"


async def append(service, path, offset, body, **options):
    status, headers, content = await service.ask(
        "PATCH", path, body=body, headers={"Upload-Offset": str(offset)}, **options
    )
    return status, headers.get("Upload-Offset"), content


async def offset(service, path):
    status, headers, content = await service.ask("GET", path)
    assert status == 200, content
    assert headers["Upload-Offset"] == str(json.loads(content)["offset"])
    return json.loads(content)["offset"]


async def cut(service, path, at, body, *, announced):
    """Send a part of a body, and break off."""
    host, port = service.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\nUpload-Offset: {at}\r\n"
    writer.write(f"{head}Content-Length: {announced}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def free(service, path):
    """Wait until no request has the upload any more; where it is."""
    async with asyncio.timeout(60 * PATIENCE):
        while True:
            status, headers, _ = await service.ask("GET", path)
            if status != 409:
                assert status == 200
                return int(headers["Upload-Offset"])
            await asyncio.sleep(0.01)


async def until_empty(folder):
    async with asyncio.timeout(60 * PATIENCE):
        while True:
            if not list(folder.iterdir()):
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("known", [True, False])
async def test_pieces_become_one_file(either, known):
    content = os.urandom(9 * MIB + 1)
    path = await begin(either, length=len(content) if known else None)
    for start, end in ((0, 1), (1, 1), (1, 8 * MIB + 1), (8 * MIB + 1, len(content))):
        assert (await append(either, path, start, content[start:end]))[:2] == (200, str(end))
    plain = await either.ask("POST", f"{path}/done")
    assert plain[0] == 201
    document = json.loads(plain[2])
    assert (document["sha1"], document["sha256"], document["size"]) == (
        hashlib.sha1(content).hexdigest(),
        hashlib.sha256(content).hexdigest(),
        len(content),
    )
    assert (await either.ask("GET", f"/v1/files/{document['sha1']}"))[2] == content
    again = await either.ask("POST", f"{path}/done")
    assert (again[0], again[2]) == (plain[0], plain[2]), "an answer may get lost"
    status, _, same = await either.ask("POST", "/v1/files", body=content)
    assert (status, json.loads(same)) == (200, document), "as if it had come at once"


async def test_what_came_before_a_break_counts(either):
    content = os.urandom(5 * MIB)
    path = await begin(either)
    at = 0
    while at < len(content) - MIB:
        await cut(either, path, at, content[at : at + MIB + 17], announced=len(content) - at)
        reached = await free(either, path)
        assert at < reached <= at + MIB + 17
        at = reached
    assert (await append(either, path, at, content[at:]))[0] == 200
    status, _, answer = await either.ask("POST", f"{path}/done")
    assert (status, json.loads(answer)["sha1"]) == (201, hashlib.sha1(content).hexdigest())


async def test_head_says_where_it_is(service):
    path = await begin(service, length=7)
    await append(service, path, 0, b"abc")
    status, headers, _ = await service.ask("HEAD", path)
    assert (status, headers["Upload-Offset"], headers["Upload-Length"]) == (200, "3", "7")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("0", 409),
        ("2", 409),
        ("4", 409),
        ("999999999999999", 409),
        ("-3", 400),
        ("3.0", 400),
        ("", 400),
        ("9" * 16, 400),
        ("٣", 400),
    ],
)
async def test_a_wrong_offset_changes_nothing(service, header, status):
    path = await begin(service)
    await append(service, path, 0, b"abc")
    found, right, _ = await append(service, path, header, b"x")
    assert found == status
    assert right == ("3" if status == 409 else None)
    assert await offset(service, path) == 3
    assert await service.status("PATCH", path, body=b"x") == 400


async def test_one_request_at_a_time(service):
    path = await begin(service)
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\nUpload-Offset: 0\r\n"
    # The server says that it goes on when it has the upload.
    writer.write(f"{head}Content-Length: 6\r\nExpect: 100-continue\r\n\r\n".encode())
    assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")
    for method, place in requests_for(path):
        assert await service.status(method, place, headers={"Upload-Offset": "0"}) == 409
    writer.write(b"abcdef")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert await offset(service, path) == 6


@pytest.mark.parametrize(
    "stranger",
    [
        {"namespace": "b"},
        {"task": "other"},
        {"owner": "alice"},
        {"namespace": "b", "task": "other"},
    ],
)
async def test_an_upload_is_its_tasks_alone(service, stranger):
    path = await begin(service)
    other = token(**stranger)
    headers = {"Upload-Offset": "0"}
    for method, place in requests_for(path):
        assert await service.status(method, place, bearer=other, headers=headers) == 404
    assert await offset(service, path) == 0
    assert await service.status("GET", path, bearer=token("files")) == 200, "the same task, from outside"
    assert await service.status("GET", path, bearer=token("link", hash="0" * 40)) == 403


async def test_too_many_are_refused_until_some_end(service):
    paths = [await begin(service) for _ in range(8)]
    assert await service.status("POST", "/v1/uploads") == 429
    assert await service.status("POST", "/v1/uploads", bearer=token(task="other")) == 429
    await begin(service, bearer=token(namespace="b"))
    assert await service.status("DELETE", paths[0]) == 204
    paths[0] = await begin(service)
    assert await service.status("POST", f"{paths[1]}/done") == 201
    await begin(service)
    assert await service.status("POST", "/v1/uploads") == 429
    for number in range(resume._TOTAL - 9):
        await begin(service, bearer=token(namespace=f"c{number // 8}"))
    assert await service.status("POST", "/v1/uploads", bearer=token(namespace="d")) == 429
    assert await service.status("POST", "/v1/files", body=b"plainly") == 201


async def test_answers_are_bounded(service, monkeypatch):
    monkeypatch.setattr(resume, "_ANSWERS_PER_NAMESPACE", 2)
    paths = []
    for _ in range(3):
        paths.append(await begin(service))
        assert await service.status("POST", f"{paths[-1]}/done") == (200 if paths[1:] else 201)
    assert [await service.status("POST", f"{path}/done") for path in paths] == [404, 200, 200]


async def test_what_was_aborted_is_gone(service, root):
    path = await begin(service)
    await append(service, path, 0, b"abc")
    assert list((root / "tmp").iterdir())
    assert await service.status("DELETE", path) == 204
    assert not list((root / "tmp").iterdir())
    for method, place in (("DELETE", path), ("GET", path), ("POST", f"{path}/done")):
        assert await service.status(method, place) == 404


async def test_what_nobody_goes_on_with_is_gone(root):
    async with serving(root, upload_seconds=0.2) as service:
        path = await begin(service)
        await until_empty(root / "tmp")
        assert await service.status("GET", path) == 404


async def test_an_answer_is_not_kept_for_ever(root):
    async with serving(root, upload_seconds=0.5) as service, asyncio.timeout(60 * PATIENCE):
        found = 0
        while found not in {200, 201}:
            # On a slow machine it may be gone before it is done.
            path = await begin(service)
            found = await service.status("POST", f"{path}/done")
        while True:
            if await service.status("POST", f"{path}/done") == 404:
                return
            await asyncio.sleep(0.01)


async def test_the_end_of_the_store_leaves_nothing(root):
    async with serving(root) as service:
        await append(service, await begin(service), 0, b"abc")
    assert not list((root / "tmp").iterdir())


async def test_the_announced_length_counts(service):
    path = await begin(service, length=5)
    assert (await append(service, path, 0, b"abcdef"))[0] == 413

    async def chunked():
        yield b"abc"
        yield b"def"

    assert (await append(service, path, 0, chunked()))[0] == 413
    at = await offset(service, path)
    assert at in {0, 3}
    status, headers, content = await service.ask("POST", f"{path}/done")
    assert (status, headers["Upload-Offset"]) == (409, str(at))
    assert "of 5" in json.loads(content)["error"]
    assert (await append(service, path, at, b"abcde"[at:]))[0] == 200
    assert await service.status("POST", f"{path}/done") == 201
    assert (await append(service, path, 5, b""))[0] == 409, "it has ended"


async def test_the_largest_file(root):
    async with serving(root, file_bytes=10) as service:
        assert await service.status("POST", "/v1/uploads", headers={"Upload-Length": "11"}) == 413
        assert await service.status("POST", "/v1/uploads", headers={"Upload-Length": "-1"}) == 400
        path = await begin(service)
        assert (await append(service, path, 0, b"x" * 8))[0] == 200
        assert (await append(service, path, 8, b"x" * 3))[0] == 413
        assert (await append(service, path, 8, b"xx"))[0] == 200


async def test_quotas(service, root):
    small = token(jobBytes=10)
    headers = {"Upload-Length": "11"}
    assert await service.status("POST", "/v1/uploads", bearer=small, headers=headers) == 507
    path = await begin(service, bearer=small)
    assert (await append(service, path, 0, b"x" * 8, bearer=small))[0] == 200
    assert (await append(service, path, 8, b"x" * 3, bearer=small))[0] == 507

    async def chunked():
        yield b"xxx"

    assert (await append(service, path, 8, chunked(), bearer=small))[0] == 507
    assert await service.status("GET", path, bearer=small) == 404, "nobody knows how much of it was added"
    await until_empty(root / "tmp")
    # Beside what the task has, only the end can tell.
    assert await service.status("POST", "/v1/files", body=b"12345678", bearer=small) == 201
    path = await begin(service, bearer=small)
    assert (await append(service, path, 0, b"abc", bearer=small))[0] == 200
    assert await service.status("POST", f"{path}/done", bearer=small) == 507
    await until_empty(root / "tmp")


async def test_a_full_disk(service, root):
    path = await begin(service)
    assert (await append(service, path, 0, b"abc"))[0] == 200
    service.disk.left = 0
    assert (await append(service, path, 3, b"x" * 100))[0] == 507
    assert await service.status("GET", path) == 404
    await until_empty(root / "tmp")


async def test_a_busy_store_loses_nothing(service, monkeypatch):
    path = await begin(service)
    await append(service, path, 0, b"abc")

    def busy(*_):
        raise HttpError(503, "too many uploads at once")

    with monkeypatch.context() as patched:
        patched.setattr("gpux.store.uploads.Slots.take", busy)
        assert (await append(service, path, 3, b"def"))[0] == 503
        assert await service.status("POST", f"{path}/done") == 503
    assert (await append(service, path, 3, b"def"))[0] == 200
    assert await service.status("POST", f"{path}/done") == 201
