from __future__ import annotations

import asyncio
import hashlib
import json

import aiohttp
import pytest

from gpux.blobs import PUBLIC, Retention
from gpux.hashes import b58encode
from tests.unit.gpux.filestore.kit import DAY, FullDisk, contents, get
from tests.unit.gpux.store.conftest import serving, token

CONTENT = bytes(range(100))
SHA1 = hashlib.sha1(CONTENT)
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
OPERATOR = token("operator")


async def upload(service, content=CONTENT, *, query="", **claims):
    bearer = claims.pop("bearer", None) or token(**claims)
    status, _, answer = await service.ask("POST", f"/v1/files{query}", body=content, bearer=bearer)
    return status, json.loads(answer)


# -------------------------------------------------------------------------------------------------------- references


async def test_a_job_refers_for_itself_and_its_owner(service):
    await upload(service, owner="alice@example")
    (entry,) = service.blobs.entries("a", limit=9)
    assert entry.references == ["owner:alice@example", "task:t"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", "keep:operator"), ("&reference=keep:log-1", "keep:log-1"), ("&reference=task:u", "task:u")],
)
async def test_the_operator_says_what_for(service, query, expected):
    await upload(service, query=f"?namespace=a{query}", bearer=OPERATOR)
    (entry,) = service.blobs.entries("a", limit=9)
    assert entry.references == [expected]


@pytest.mark.parametrize(
    "reference", ["", "x", "task:", "keep:a/b", "keep:..%2Fb", "task:" + "a" * 200, "evil:x"]
)
async def test_references_that_are_none(service, reference):
    status, document = await upload(service, query=f"?namespace=a&reference={reference}", bearer=OPERATOR)
    # An empty value is no value.
    assert status == (400 if reference else 201)
    assert reference == "" or "reference" in document["error"]


@pytest.mark.parametrize("owner", ["../x", "a/b", "a\n", "x" * 200])
async def test_an_owner_that_cannot_be_a_reference(service, owner):
    assert (await upload(service, owner=owner))[0] == 400


async def test_public_files_are_entered_for_everybody(service):
    await upload(service, public=True)
    assert get(service.blobs, CONTENT, PUBLIC) == CONTENT
    # On this port that name is nobody's.
    assert (
        await service.status("GET", f"/v1/files/{SHA1.hexdigest()}?namespace={PUBLIC}", bearer=OPERATOR)
        == 400
    )
    assert await service.status("GET", f"/v1/files/{SHA1.hexdigest()}", bearer=token(namespace="b")) == 404


# ------------------------------------------------------------------------------------------------------------- quotas


async def chunked(content):
    yield content[:50]
    yield content[50:]


@pytest.mark.parametrize("body", [lambda: CONTENT, lambda: chunked(CONTENT)], ids=["known", "chunked"])
@pytest.mark.parametrize("claims", [{"jobBytes": 99}, {"owner": "o", "ownerBytes": 99}])
async def test_over_a_quota(service, root, body, claims):
    status, document = await upload(service, body(), **claims)
    assert status == 507
    assert document["error"].startswith("quota: the ")
    assert "99 bytes" in document["error"]
    assert contents(root) == []
    assert not list((root / "tmp").iterdir())
    assert b"gpux_store_over_quota_total 1.0" in service.metrics.text()
    assert (await upload(service, body(), **dict.fromkeys(claims, 100) | {"owner": "o"}))[0] == 201


async def test_a_body_without_end_is_refused_when_it_is_over_the_quota(service, root):
    async def body():
        while True:
            yield bytes(1000)

    try:
        status, document = await upload(service, body(), jobBytes=100_000)
    except aiohttp.ClientError:
        # The connection may be closed before the client has read the answer.
        status, document = 507, {"error": "quota: "}
    assert status == 507
    assert document["error"].startswith("quota: ")
    assert not list((root / "tmp").iterdir())
    assert b"gpux_store_over_quota_total 1.0" in service.metrics.text()


async def test_over_a_quota_with_bytes_that_others_have(service):
    await upload(service)
    assert (await upload(service, task="u", jobBytes=99))[0] == 507
    assert (await upload(service, jobBytes=100))[0] == 200
    assert service.blobs.holders("task") == [("a", "t")]


async def test_two_at_once_cannot_both_have_the_last_bytes(service):
    results = await asyncio.gather(
        *(upload(service, chunked(bytes([number]) * 60), jobBytes=100) for number in range(6))
    )
    assert sorted(status for status, _ in results) == [201, 507, 507, 507, 507, 507]


async def test_a_quota_keeps_no_answer_out(service):
    """It is what the task is for; an agent would bring it again and again until the task's time is over."""
    full = {"owner": "o", "jobBytes": 100, "ownerBytes": 100}
    assert (await upload(service, **full))[0] == 201
    call = {"namespace": "a", "function": "f", "address": "0x1", "data": {}}
    path = "/v1/calls/t/1"
    assert await service.status("PUT", path, bearer=OPERATOR, body=json.dumps(call).encode()) == 201
    answer = json.dumps("x" * 200).encode()
    assert await service.status("PUT", f"{path}/answer", bearer=token(**full), body=answer) == 201
    assert (await upload(service, b"one more", **full))[0] == 507, "it counts all the same"
    assert len(service.blobs.entries("a", limit=9, references=["owner:o"])) == 2


async def test_a_full_disk_is_not_the_end(service):
    for room in range(8):
        service.disk.left = room
        assert (await upload(service))[0] == 507
        service.disk.left = None
        assert await service.status("GET", f"/v1/files/{SHA1.hexdigest()}") == 404
    assert (await upload(service))[0] == 201


async def test_a_full_disk_is_not_the_end_for_calls_either(service, monkeypatch):
    call = json.dumps({"namespace": "a", "function": "f", "address": "0x1", "data": {}})
    full = FullDisk()
    monkeypatch.setattr(service.calls, "_disk", full)
    for room in range(7):
        full.left = room
        status, _, content = await service.ask("PUT", "/v1/calls/t/1", body=call, bearer=OPERATOR)
        assert (status, json.loads(content)) == (507, {"error": "the store is full"})
    full.left = None
    assert await service.status("PUT", "/v1/calls/t/1", body=call, bearer=OPERATOR) == 201


async def test_the_largest_file(tmp_path):
    async with serving(tmp_path, file_bytes=99) as service:
        assert (await upload(service, CONTENT))[0] == 413
        assert (await upload(service, chunked(CONTENT)))[0] == 413
        assert (await upload(service, CONTENT[:99]))[0] == 201


# ------------------------------------------------------------------------------------------------------------- reading

NAMES = {
    "sha1": SHA1.hexdigest(),
    "sha1 in capitals": SHA1.hexdigest().upper(),
    "sha1 in base58": b58encode(SHA1.digest()),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "sha256 in base58": b58encode(hashlib.sha256(CONTENT).digest()),
    "extension": SHA1.hexdigest() + ".zip",
    "extensions": b58encode(SHA1.digest()) + ".tar.gz",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_names(service, method, name):
    await upload(service)
    status, headers, content = await service.ask(method, f"/v1/files/{name}")
    assert (status, headers["ETag"], headers["Content-Length"]) == (200, ETAG, "100")
    assert content == (CONTENT if method == "GET" else b"")


PARTS = [
    ({}, 200, CONTENT),
    ({"Range": "bytes=0-9"}, 206, CONTENT[:10]),
    ({"Range": "bytes=90-"}, 206, CONTENT[90:]),
    ({"Range": "bytes=90-1000"}, 206, CONTENT[90:]),
    ({"Range": "bytes=-10"}, 206, CONTENT[-10:]),
    ({"Range": "bytes=-1000"}, 206, CONTENT),
    ({"Range": "bytes=99-99"}, 206, CONTENT[99:]),
    ({"Range": "bytes=100-"}, 416, None),
    ({"Range": "bytes=-0"}, 416, None),
    ({"Range": "bytes=9999999999999999999-"}, 416, None),
    ({"Range": "bytes=9-0"}, 200, CONTENT),
    ({"Range": "bytes=-"}, 200, CONTENT),
    ({"Range": "bytes=0-1,3-4"}, 200, CONTENT),
    ({"Range": "bytes=a-b"}, 200, CONTENT),
    ({"Range": "lines=0-1"}, 200, CONTENT),
    ({"Range": "bytes=" + "9" * 40 + "-"}, 200, CONTENT),
    ({"Range": "bytes=0-9", "If-Range": ETAG}, 206, CONTENT[:10]),
    ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200, CONTENT),
    ({"Range": "bytes=0-9", "If-Range": f"W/{ETAG}"}, 200, CONTENT),
    ({"Range": "bytes=0-9", "If-Range": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200, CONTENT),
    ({"If-None-Match": ETAG}, 304, b""),
    ({"If-None-Match": f'"x", W/{ETAG}'}, 304, b""),
    ({"If-None-Match": "*"}, 304, b""),
    ({"If-None-Match": '"x"'}, 200, CONTENT),
    ({"If-None-Match": ETAG, "Range": "bytes=0-9"}, 304, b""),
]


@pytest.mark.parametrize(("headers", "expected", "part"), PARTS, ids=lambda value: str(value)[:60])
async def test_parts_and_conditions(service, headers, expected, part):
    await upload(service)
    status, answered, content = await service.ask("GET", f"/v1/files/{SHA1.hexdigest()}", headers=headers)
    assert status == expected
    if part is not None:
        assert content == part
    if status == 206:
        start = CONTENT.index(part)
        assert answered["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/100"
    if status == 416:
        assert answered["Content-Range"] == "bytes */100"
    status, answered, content = await service.ask("HEAD", f"/v1/files/{SHA1.hexdigest()}", headers=headers)
    # A range is for GET alone.
    assert status == (304 if expected == 304 else 200)
    assert content == b""


async def test_a_large_file_goes_by_the_kernel(either):
    content = bytes(range(256)) * 4096
    _, document = await upload(either, content)
    name = document["sha1"]
    assert (await either.ask("GET", f"/v1/files/{name}"))[2] == content
    part = await either.ask("GET", f"/v1/files/{name}", headers={"Range": "bytes=1000-900000"})
    assert part[2] == content[1000:900_001]


async def test_a_backend_without_files_is_read_in_pieces(service, monkeypatch):
    monkeypatch.setattr("gpux.contents.FileContent.file", lambda self: None)
    content = bytes(range(256)) * 8192
    _, document = await upload(service, content)
    assert (await service.ask("GET", f"/v1/files/{document['sha1']}"))[2] == content


HEADERS = [
    ({"Authorization": "Basic eDp5"}, 401),
    ({"Authorization": "Bearer"}, 401),
    ({"Authorization": "Bearer  "}, 401),
    ({"Content-Encoding": "gzip"}, 201),
    ({"Content-Type": "multipart/form-data; boundary=x"}, 201),
    ({"X-Namespace": "b", "X-Forwarded-For": "127.0.0.1"}, 201),
    ({"Expect": "100-continue"}, 201),
]


@pytest.mark.parametrize(("headers", "expected"), HEADERS, ids=str)
async def test_headers_change_nothing_of_what_is_stored(service, headers, expected):
    status, _, content = await service.ask("POST", "/v1/files", body=CONTENT, headers=headers)
    assert status == expected
    if status == 201:
        assert json.loads(content)["sha1"] == SHA1.hexdigest()
        assert service.blobs.holders("task") == [("a", "t")]


# -------------------------------------------------------------------------------------------------------------- lists


async def names(service, query="", **claims):
    bearer = claims.pop("bearer", None) or token(**claims)
    status, _, content = await service.ask("GET", f"/v1/files{query}", bearer=bearer)
    assert status == 200, content
    return [file["sha1"] for file in json.loads(content)["files"]]


async def test_lists(service):
    stored = {}
    for key, claims in {
        "task": {},
        "owner": {"task": "u", "owner": "o"},
        "other": {"task": "v"},
        "elsewhere": {"namespace": "b"},
    }.items():
        stored[key] = (await upload(service, key.encode(), **claims))[1]["sha1"]
    assert await names(service) == [stored["task"]]
    assert await names(service, owner="o") == sorted([stored["task"], stored["owner"]])
    assert await names(service, "?owner=o", owner="o") == [stored["owner"]]
    assert await names(service, "?task=t", scope="files", owner="o") == [stored["task"]]
    everything = await names(service, "?namespace=a", bearer=OPERATOR)
    assert everything == sorted(value for key, value in stored.items() if key != "elsewhere")
    assert await names(service, "?namespace=a&task=v", bearer=OPERATOR) == [stored["other"]]
    assert await names(service, "?namespace=a&limit=1", bearer=OPERATOR) == everything[:1]
    assert await names(service, f"?namespace=a&after={everything[0]}", bearer=OPERATOR) == everything[1:]
    assert await names(service, "?namespace=b&limit=99999", bearer=OPERATOR) == [stored["elsewhere"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?namespace=b", 403),
        ("?task=u", 403),
        ("?owner=o", 403),
        ("?task=..%2F..%2Fcalls", 400),
        ("?task=a%00", 400),
        ("?owner=", 200),
        ("?" + "a=1&" * 17, 400),
        ("?limit=x", 400),
        ("?limit=-1", 400),
    ],
)
@pytest.mark.parametrize("scope", ["job", "files"])
async def test_lists_of_others(service, scope, query, expected):
    assert await service.status("GET", f"/v1/files{query}", bearer=token(scope)) == expected


@pytest.mark.parametrize("task", ["../../../calls", "%2E%2E/%2E%2E/calls", "a%00", "a" * 300, "a/b", "a%0A"])
async def test_a_strange_task_is_no_path(service, task):
    assert await service.status("GET", f"/v1/files?namespace=a&task={task}", bearer=OPERATOR) == 400


# -------------------------------------------------------------------------------------------------------------- tasks


async def test_a_task_that_is_gone(service):
    await upload(service, b"one", owner="o")
    await upload(service, b"two", public=True)
    await upload(service, b"three", task="u")
    call = {"namespace": "a", "function": "f", "address": "0x1", "data": {}}
    for task in ("t", "w"):
        path = f"/v1/calls/{task}/1"
        assert await service.status("PUT", path, body=json.dumps(call), bearer=OPERATOR) == 201
    _, _, content = await service.ask("GET", "/v1/tasks", bearer=OPERATOR)
    assert json.loads(content) == [{"task": task, "namespace": "a"} for task in ("t", "u", "w")]
    for _ in range(2):
        assert await service.status("DELETE", "/v1/tasks/t", bearer=OPERATOR) == 204
    assert await service.status("GET", "/v1/calls/t/1", bearer=OPERATOR) == 404
    _, _, content = await service.ask("GET", "/v1/tasks", bearer=OPERATOR)
    assert [holder["task"] for holder in json.loads(content)] == ["u", "w"]
    service.clock.ahead = 8 * DAY
    assert service.blobs.sweep(Retention(7 * DAY, None)).objects == 1
    assert get(service.blobs, b"one") == b"one"
    assert get(service.blobs, b"two") is get(service.blobs, b"two", PUBLIC) is None


async def test_what_a_crash_left_in_public_is_listed_too(service, root):
    (root / "refs" / PUBLIC / "task:x").mkdir(parents=True)
    _, _, content = await service.ask("GET", "/v1/tasks", bearer=OPERATOR)
    assert json.loads(content) == [{"task": "x", "namespace": PUBLIC}]
    assert await service.status("DELETE", "/v1/tasks/x", bearer=OPERATOR) == 204
    _, _, content = await service.ask("GET", "/v1/tasks", bearer=OPERATOR)
    assert json.loads(content) == []


async def test_other_references(service):
    for namespace in ("a", "b"):
        await upload(service, query=f"?namespace={namespace}&reference=keep:x", bearer=OPERATOR)
    assert await service.status("DELETE", "/v1/references/keep:x?namespace=a", bearer=OPERATOR) == 204
    assert service.blobs.holders("keep") == [("b", "x")]
    assert await service.status("DELETE", "/v1/references/keep:x", bearer=OPERATOR) == 204
    assert service.blobs.holders("keep") == []
    assert await service.status("DELETE", "/v1/references/x", bearer=OPERATOR) == 400


# ------------------------------------------------------------------------------------------------------------- tokens

FILE = f"/v1/files/{SHA1.hexdigest()}"
UPLOAD = f"/v1/uploads/{'0' * 32}"
ANYWHERE = ("operator", "job", "files")


@pytest.mark.parametrize(
    ("method", "path", "scopes"),
    [
        ("POST", "/v1/files", ANYWHERE),
        ("GET", "/v1/files", ANYWHERE),
        ("GET", FILE, ANYWHERE),
        ("HEAD", FILE, ANYWHERE),
        ("POST", "/v1/folders", ANYWHERE),
        ("GET", f"/v1/folders/{SHA1.hexdigest()}", ANYWHERE),
        ("POST", "/v1/uploads", ANYWHERE),
        ("PATCH", UPLOAD, ANYWHERE),
        ("GET", UPLOAD, ANYWHERE),
        ("HEAD", UPLOAD, ANYWHERE),
        ("DELETE", UPLOAD, ANYWHERE),
        ("POST", f"{UPLOAD}/done", ANYWHERE),
        ("POST", "/v1/links", ANYWHERE),
        ("GET", "/v1/pulls/t", ("job",)),
        ("PUT", f"/v1/pulls/t/{'0' * 32}", ("job",)),
        ("GET", "/v1/tasks", ("operator",)),
        ("DELETE", "/v1/tasks/t", ("operator",)),
        ("DELETE", "/v1/references/task:t", ("operator",)),
        ("GET", "/v1/calls", ("operator",)),
        ("GET", "/v1/changes", ("operator",)),
        ("GET", "/v1/calls/t", ("operator", "job")),
        ("GET", "/v1/calls/t/1", ("operator",)),
        ("PUT", "/v1/calls/t/1", ("operator",)),
        ("DELETE", "/v1/calls/t", ("operator",)),
        ("POST", "/v1/calls/t/1/claim", ("operator", "job")),
        ("POST", "/v1/calls/t/1/state", ("operator", "job")),
        ("PUT", "/v1/calls/t/1/answer", ("operator", "job")),
    ],
)
async def test_scopes(service, method, path, scopes):
    await upload(service)
    links = [{"task": "", "hash": SHA1.hexdigest()}, {"path": "/"}]
    held = {
        "operator": [token("operator")],
        "job": [token("job", external=True)],
        "files": [token("files")],
        "link": [token("link", **link) for link in links],
    }
    for scope, some in held.items():
        for bearer in some:
            status = await service.status(method, f"{path}?namespace=a", bearer=bearer)
            assert (status == 403) == (scope not in scopes), (scope, status)
            assert status not in {401, 405, 500}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/calls/u"),
        ("POST", "/v1/calls/u/1/claim"),
        ("POST", "/v1/calls/u/1/state"),
        ("PUT", "/v1/calls/u/1/answer"),
        ("GET", "/v1/pulls/u"),
        ("PUT", f"/v1/pulls/u/{'0' * 32}"),
    ],
)
@pytest.mark.parametrize("bearer", [token(task="t", external=True), token("files", task="u")])
async def test_calls_and_storage_of_others(service, method, path, bearer):
    status, _, content = await service.ask(
        method, path, bearer=bearer, body=b"{}" if method != "GET" else None
    )
    assert status == 403
    assert json.loads(content) == {"error": "the token doesn't reach this"}


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/links"), ("GET", "/v1/pulls/t"), ("PUT", f"/v1/pulls/t/{'0' * 32}")]
)
async def test_a_task_that_is_not_open_to_the_outside(service, method, path):
    body = b"{}" if method != "GET" else None
    status, _, content = await service.ask(method, path, bearer=token(), body=body)
    assert (status, b"spec.storage.external" in content) == (403, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", FILE),
        ("HEAD", FILE),
        ("GET", f"/v1/folders/{SHA1.hexdigest()}"),
        ("GET", f"{FILE}?namespace=b"),
    ],
)
async def test_other_namespaces_cannot_tell_what_is_there(service, method, path):
    there, _, there_content = await service.ask(method, path, bearer=token(namespace="b"))
    await upload(service)
    now, _, now_content = await service.ask(method, path, bearer=token(namespace="b"))
    assert (there, there_content) == (now, now_content)
    assert now == 404


async def test_storing_what_others_have_tells_nothing(service):
    first = await upload(service, CONTENT)
    second = await upload(service, CONTENT, namespace="b")
    assert first == second
    assert first[0] == 201
