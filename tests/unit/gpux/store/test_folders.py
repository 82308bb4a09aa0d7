from __future__ import annotations

import asyncio
import hashlib
import io
import json
import subprocess
import tarfile

import pytest

from gpux.blobs import Retention, Usage
from tests.unit.gpux.filestore.kit import contents, get
from tests.unit.gpux.store.conftest import token

FILES = {
    "a.txt": b"hello",
    "b/c.bin": bytes(range(256)) * 1000,
    "b/empty": b"",
    "é" * 60 + "/" + "x" * 90: b"long",
}


def tar(files=FILES, *, kind=tarfile.PAX_FORMAT, directories=()):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=kind) as archive:
        for path in directories:
            member = tarfile.TarInfo(path)
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime, member.uid = len(content), 12345.5, 1000
            member.mode = 0o755 if path.endswith(".bin") else 0o640
            archive.addfile(member, io.BytesIO(content))
    return output.getvalue()


def one(name="a", content=b"x", **fields):
    """An archive of one member whose header is as it is told."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512) + bytes(1024)


def extended(content, kind=b"x"):
    member = tarfile.TarInfo("pax")
    member.type, member.size = kind, len(content)
    return member.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def record(key, value):
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


async def put(service, archive, **options):
    status, _, content = await service.ask("POST", "/v1/folders", body=archive, **options)
    return status, json.loads(content)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
async def test_round_trip(service, kind):
    status, document = await put(service, tar(kind=kind, directories=["void", "b"]))
    assert status == 201
    assert document["folder"] is True
    assert document["files"] == 4
    status, headers, content = await service.ask("GET", f"/v1/folders/{document['sha1_b58']}.tar")
    assert (status, headers["Content-Type"]) == (200, "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {
            member.name: data.read()
            for member in archive
            if (data := archive.extractfile(member)) is not None
        }
        modes = {member.name: member.mode for member in archive.getmembers()}
    assert found == FILES
    assert (modes["a.txt"], modes["b/c.bin"], modes["void"]) == (0o644, 0o755, 0o755)
    # Nothing of when and by whom it was made is left: the same folder is the same file.
    status, again = await put(service, content)
    assert (status, again) == (200, document)
    status, headers, _ = await service.ask("HEAD", f"/v1/folders/{document['sha1']}")
    assert (status, int(headers["Content-Length"])) == (200, len(content))
    unchanged = {"If-None-Match": headers["ETag"]}
    assert await service.status("GET", f"/v1/folders/{document['sha1']}", headers=unchanged) == 304


async def run(*command, standard_input=b""):
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, error = await process.communicate(standard_input)
    assert process.returncode == 0, error
    return output


async def test_what_tar_makes_and_reads(service, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    for name, content in {"one": b"1" * 100_000, "sub/two": b"2", "sub/" + "n" * 120: b"3"}.items():
        (source / name).write_bytes(content)
    made = await run("tar", "c", "-C", str(source), ".")
    _, document = await put(service, made)
    _, _, content = await service.ask("GET", f"/v1/folders/{document['sha1']}")
    await run("tar", "x", "-C", str(target), standard_input=content)
    await run("diff", "-r", str(source), str(target))


async def test_each_file_is_one_of_its_own(service):
    await put(service, tar())
    assert get(service.blobs, b"hello") == b"hello"
    status, _, content = await service.ask("GET", "/v1/files?limit=10")
    assert status == 200
    assert {tuple(file["references"]) for file in json.loads(content)["files"]} == {("task:t",)}
    assert len(json.loads(content)["files"]) == len(FILES) + 1


REFUSED = {
    "absolute": one("/etc/passwd"),
    "up": one("../a"),
    "up later": one("a/../../b"),
    "backslash": one("..\\a"),
    "symbolic link": one(content=b"", type=tarfile.SYMTYPE, linkname="/etc"),
    "hard link": one(content=b"", type=tarfile.LNKTYPE, linkname="b"),
    "device": one(content=b"", type=tarfile.CHRTYPE),
    "pipe": one(content=b"", type=tarfile.FIFOTYPE),
    "sparse": one(type=tarfile.GNUTYPE_SPARSE),
    "sparse in pax": extended(record("GNU.sparse.major", "1")) + one(),
    "link in pax": extended(record("linkpath", "b")) + one(),
    "path in pax": extended(record("path", "../a")) + one(),
    "end in a path": extended(record("path", "a\0b")) + one(),
    "size in pax": extended(record("size", "600")) + one(),
    "no size in pax": extended(record("size", "-1")) + one(),
    "twice in pax": extended(record("path", "a") + record("path", "b")) + one(),
    "two headers": extended(record("path", "a")) * 2 + one(),
    "many headers": extended(record("mtime", "1")) * 6 + one(),
    "for all": extended(record("path", "a"), b"g") + one(),
    "long header": extended(bytes(70_000)) + one(),
    "header alone": extended(record("path", "a")) + bytes(1024),
    "twice": one()[:1024] + one(),
    "file and folder": one()[:1024] + one("a/b"),
    "file like a folder": one("a/"),
    "folder with bytes": one(type=tarfile.DIRTYPE),
    "long name": one("n" * 256),
    "no name": one(""),
    "no tar": b"PK\3\4" + bytes(2000),
    "text": b"hello",
    "empty": b"",
    "no end": one()[:1024],
    "cut": tar()[:3000],
    "hidden": bytes(bytearray(one())[:5] + b"\0evil" + bytearray(one())[10:]),
}


@pytest.mark.parametrize("archive", REFUSED.values(), ids=REFUSED)
async def test_archives_that_are_none_leave_nothing(service, root, archive):
    status, document = await put(service, one("first", b"first")[:1024] + archive)
    assert status == 400
    assert document["error"]
    assert contents(root) == []
    assert service.blobs.entries("a", limit=9) == []
    assert not list((root / "tmp").iterdir())


async def test_too_many_members(service, root, monkeypatch):
    monkeypatch.setattr("gpux.folders.MOST_MEMBERS", 5)
    status, document = await put(service, tar({str(number): b"%d" % number for number in range(6)}))
    assert (status, contents(root)) == (400, [])
    assert "more than 5 members" in document["error"]


@pytest.mark.parametrize("quota", [3, 256_000, 256_100])
async def test_a_quota_is_for_all_of_it(service, root, quota):
    """Too small for the first file, for another one, and for the manifest."""
    limited = token(jobBytes=quota)
    before = await service.ask("POST", "/v1/files", body=b"hello", bearer=token(task="u"))
    assert before[0] == 201
    status, document = await put(service, tar(), bearer=limited)
    assert status == 507
    assert document["error"].startswith("quota: the task t may keep")
    assert service.blobs.holders("task") == [("a", "u")]
    assert len(contents(root)) == 1
    assert service.blobs.usage() == Usage(1, 5)
    assert (await put(service, tar(), bearer=token(jobBytes=300_000)))[0] == 201


@pytest.mark.parametrize(
    ("archive", "claims", "expected"),
    [(tar(), {"jobBytes": 256_100}, 507), (one("b", FILES["b/c.bin"])[:-1024] + b"no header" * 100, {}, 400)],
    ids=["over a quota", "no archive"],
)
async def test_nobody_can_read_what_a_refused_folder_had_stored(either, archive, claims, expected):
    other = token(task="u")
    assert await either.status("POST", "/v1/files", body=b"hello", bearer=other) == 201
    status, document = await put(either, archive, bearer=token(**claims))
    assert status == expected, document
    for content in FILES.values():
        for algorithm in (hashlib.sha1, hashlib.sha256):
            for bearer in (other, token(**claims)):
                status = await either.status(
                    "GET", f"/v1/files/{algorithm(content).hexdigest()}", bearer=bearer
                )
                assert status == (200 if content == b"hello" else 404)
    assert await either.status("POST", "/v1/folders", body=tar()) == 201


async def test_the_same_file_in_several_places_counts_once(service):
    archive = tar({str(number): b"x" * 1000 for number in range(50)})
    status, document = await put(service, archive, bearer=token(jobBytes=10_000))
    assert (status, document["files"]) == (201, 50)


async def test_a_full_disk(service, root):
    service.disk.left = 20
    status, _ = await put(service, tar())
    assert status == 507
    service.disk.left = None
    assert service.blobs.holders("task") == []
    service.blobs.sweep(Retention(grace=-60.0, unused=None))
    assert contents(root) == []
    assert (await put(service, tar()))[0] == 201


async def test_a_sender_who_goes_away(service, root):
    async def body():
        yield tar()[:2000]
        raise ConnectionError

    with pytest.raises((OSError, ConnectionError)):
        await service.ask("POST", "/v1/folders", body=body())
    # The next request is served after what was begun is over.
    assert (await put(service, tar()))[0] == 201


async def test_senders_who_stall_leave_room_for_others_and_nothing_else(service, root, monkeypatch):
    """As many as a namespace may have at once, in the middle of a member."""
    monkeypatch.setattr("gpux.store.body.IDLE_SECONDS", 1.0)
    going_on = asyncio.Event()

    async def body():
        yield tar()[:2000]
        await going_on.wait()

    stalled = [asyncio.create_task(service.ask("POST", "/v1/folders", body=body())) for _ in range(2)]
    while b"gpux_store_uploads 2.0" not in service.metrics.text():  # noqa: ASYNC110 only a metric tells
        await asyncio.sleep(0.01)
    assert (await put(service, tar(), bearer=token(namespace="b")))[0] == 201
    answers = await asyncio.gather(*stalled)
    going_on.set()
    assert [status for status, _, _ in answers] == [408, 408]
    assert service.blobs.entries("a", limit=9) == []
    assert not list((root / "tmp").iterdir())


async def test_manifests_reach_nothing_that_files_do_not(service):
    _, _, content = await service.ask("POST", "/v1/files", body=b"secret", bearer=token(namespace="b"))
    secret = json.loads(content)["sha1"]
    forged = f"gpux-folder 1\nfile {secret} 6 a\n".encode()
    _, _, content = await service.ask("POST", "/v1/files", body=forged)
    assert await service.status("GET", f"/v1/folders/{json.loads(content)['sha1']}") == 404
    _, _, content = await service.ask("POST", "/v1/files", body=b"x" * (5 << 20))
    assert await service.status("GET", f"/v1/folders/{json.loads(content)['sha1']}") == 400
    assert await service.status("GET", f"/v1/folders/{'0' * 40}") == 404
    assert await service.status("GET", "/v1/folders/zzz") == 400


async def test_a_manifest_with_wrong_sizes(service):
    _, _, content = await service.ask("POST", "/v1/files", body=b"hello")
    forged = f"gpux-folder 1\nfile {json.loads(content)['sha1']} 6 a\n".encode()
    _, _, content = await service.ask("POST", "/v1/files", body=forged)
    assert await service.status("GET", f"/v1/folders/{json.loads(content)['sha1']}") == 400
