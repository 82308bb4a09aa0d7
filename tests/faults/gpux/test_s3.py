"""Stores over one bucket of a real S3 server, killed and left without it: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpux.blobs import Keeper, Retention
from gpux.calls import CallBook, CallRequest
from gpux.filestore.backend import FileBlobs
from gpux.s3.blobs import S3Blobs
from tests.faults.gpux.processes import (
    HERE,
    KEY,
    OPERATOR,
    SOURCE,
    Process,
    accepts,
    rss_kib,
    token,
    wait_for,
)
from tests.support.ports import free_port
from tests.support.s3 import s3_server

pytestmark = pytest.mark.faults

JOB = token()
MIB = 1 << 20


class Store:
    """A store's process, and requests to it."""

    def __init__(self, root, server, options):
        self.root, self.port = root, free_port()
        root.mkdir()
        (root / "key").write_bytes(KEY)
        self.armed = root / "armed"
        self.command = [
            *server.arguments(options),
            f"--listen=127.0.0.1:{self.port}",
            f"--key-file={root / 'key'}",
            "--sweep-seconds=0",
        ]
        self.process = None

    def start(self, *fault):
        program = ["-m", "gpux.store"]
        if fault:
            program = [str(HERE / "faulty_bucket.py"), str(self.armed), *map(str, fault)]
        environment = {"PYTHONPATH": str(SOURCE), "TMPDIR": str(self.root)}
        self.process = Process(
            [sys.executable, *program, *self.command], environment=environment, log=self.root / "log"
        )
        wait_for(lambda: accepts(self.port), "the store's start")

    def ask(self, method, path, *, body=None, bearer=JOB):
        """Status, headers and content; None where the connection broke."""
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        ) as connection:
            try:
                connection.request(method, path, body=content, headers={"Authorization": f"Bearer {bearer}"})
                response = connection.getresponse()
                return response.status, dict(response.getheaders()), response.read()
            except (ConnectionError, http.client.HTTPException):
                return None

    def put(self, content):
        """The SHA-1 of what was stored, if that was said."""
        answer = self.ask("POST", "/v1/files", body=content)
        if answer is None or answer[0] >= 500:
            return None
        assert answer[0] in {200, 201}, answer
        return json.loads(answer[2])["sha1"]

    def get(self, sha1):
        answer = self.ask("GET", f"/v1/files/{sha1}")
        return answer and (answer[0], answer[2])

    def document(self, method, path, body=None):
        status, _, content = self.ask(method, path, body=body, bearer=OPERATOR)
        return status, json.loads(content or "null")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as running:
        yield running


@pytest.fixture
def start(tmp_path):
    """Starts stores, which end with the test."""
    stores: list[Store] = []

    def one(server, options, *fault, run=True):
        store = Store(tmp_path / f"store{len(stores)}", server, options)
        stores.append(store)
        if run:
            store.start(*fault)
        return store

    yield one
    for store in stores:
        if store.process is not None:
            store.process.kill()


def test_a_store_killed_at_any_write_of_an_upload_loses_nothing_that_it_acknowledged(shared, start):
    options = shared.options()
    witness, victim = start(shared, options), start(shared, options, run=False)
    acknowledged = {}
    killed = 0
    for content in (b"small", os.urandom(9 * MIB)):
        for nth in itertools.count(1):
            # Its own each time, so that every run goes the whole way.
            mine = content + f" {nth}".encode()
            victim.start(nth, "after")
            victim.armed.touch()
            sha1 = victim.put(mine)
            victim.armed.unlink()
            if sha1:
                victim.process.kill()
                acknowledged[sha1] = mine
                break
            assert victim.process.process.wait(30) == -9, "killed before the answer"
            killed += 1
            name = hashlib.sha1(mine).hexdigest()
            status, found = witness.get(name)
            assert status == 404 or found == mine, "what isn't there whole isn't there"
            if nth % 2:
                # The client tries again, at another store.
                assert witness.put(mine) == name
                acknowledged[name] = mine
    assert killed >= 11
    for sha1, content in acknowledged.items():
        assert witness.get(sha1) == (200, content)
    with shared.bucket(options) as bucket:
        # What the crashes left is found and removed, and nothing else.
        blobs = S3Blobs(bucket, settle=-5.0, abandoned=-5.0)
        blobs.sweep(Retention(grace=3600.0, unused=None))
        assert list(bucket.uploads("data/")) == []
        entries = list(bucket.listing("entries/"))
        assert len(list(bucket.listing("data/"))) == len(entries) >= len(acknowledged)
    for sha1, content in acknowledged.items():
        assert witness.get(sha1) == (200, content)


def folder(*contents):
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for number, content in enumerate(contents):
            member = tarfile.TarInfo(f"file {number}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return output.getvalue()


def test_a_store_killed_at_any_write_of_a_folder_that_it_refuses_loses_nobodys_bytes(shared, start):
    options = shared.options()
    witness, victim = start(shared, options), start(shared, options, run=False)
    limited, other = token(jobBytes=1000), token(task="task-2")
    killed, kept, refused = 0, {}, []
    for nth in itertools.count(1):
        # The second is one too many. Somebody else has the first, or takes it as soon as the store is dead.
        contents = [os.urandom(600), os.urandom(600)]
        if nth % 3 == 0:
            assert witness.ask("POST", "/v1/files", body=contents[0], bearer=other)[0] == 201
        victim.start(nth, "after")
        victim.armed.touch()
        answer = victim.ask("POST", "/v1/folders", body=folder(*contents), bearer=limited)
        victim.armed.unlink()
        if answer is None:
            assert victim.process.process.wait(30) == -9, "killed before the answer"
            killed += 1
            if nth % 3 == 1:
                assert witness.ask("POST", "/v1/files", body=contents[0], bearer=other)[0] in {200, 201}
        else:
            victim.process.kill()
            assert answer[0] == 507
            assert witness.get(hashlib.sha1(contents[1]).hexdigest())[0] == 404, "forgotten at once"
        for content in contents:
            sha1 = hashlib.sha1(content).hexdigest()
            if content is contents[0] and (nth % 3 == 0 or (nth % 3 == 1 and answer is None)):
                kept[sha1] = content
                assert witness.get(sha1) == (200, content)
            else:
                refused.append(sha1)
        if answer is not None:
            break
    assert killed >= 8
    with shared.bucket(options) as bucket:
        blobs = S3Blobs(bucket, settle=-5.0)
        for _ in range(2):
            blobs.sweep(Retention(grace=-5.0, unused=None))
            for sha1, content in kept.items():
                assert witness.get(sha1) == (200, content)
            assert {witness.get(sha1)[0] for sha1 in refused} == {404}
        assert len(list(bucket.listing("data/"))) == len(kept)
        assert {entry.blob.sha1 for entry in blobs.entries("tenant", limit=999)} == set(kept)


def test_without_its_server_a_store_says_so_and_goes_on_when_it_is_back(tmp_path, start):
    with s3_server(tmp_path / "server") as server:
        store = start(server, server.options())
        sha1 = store.put(b"content")
        large = os.urandom(9 * MIB)
        call = {"namespace": "tenant", "function": "f", "address": "0x1", "data": {}}
        server.kill()
        for answer in (
            store.ask("POST", "/v1/files", body=large),
            store.ask("GET", f"/v1/files/{sha1}"),
            store.ask("PUT", "/v1/calls/task-1/1", body=call, bearer=OPERATOR),
        ):
            status, headers, content = answer
            assert (status, headers["Retry-After"]) == (503, "5")
            assert b"unavailable" in content
        assert store.ask("GET", "/readyz")[0] == 200
        server.start()
        assert store.get(sha1) == (200, b"content")
        assert store.get(store.put(large)) == (200, large)
        assert store.ask("PUT", "/v1/calls/task-1/1", body=call, bearer=OPERATOR)[0] == 201
        # In the middle of an upload, too.
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", store.port, timeout=120)
        ) as connection:
            body = [large, b"", large]

            def pieces():
                yield body[0]
                server.kill()
                yield body[2]

            headers = {"Authorization": f"Bearer {JOB}", "Content-Length": str(2 * len(large))}
            connection.request("POST", "/v1/files", body=pieces(), headers=headers)
            assert connection.getresponse().status == 503
        server.start()
        assert store.get(store.put(large * 2)) == (200, large * 2)


@pytest.mark.parametrize("back", [True, False], ids=["and comes back", "for good"])
def test_a_server_that_goes_while_a_file_is_read(tmp_path, start, back):
    # More than all buffers on the way have room for.
    content = os.urandom(64 * MIB)
    with s3_server(tmp_path / "server") as server:
        store = start(server, server.options())
        sha1 = store.put(content)
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", store.port, timeout=120)
        ) as connection:
            connection.request("GET", f"/v1/files/{sha1}", headers={"Authorization": f"Bearer {JOB}"})
            response = connection.getresponse()
            arrived = bytearray(response.read(MIB))
            server.kill()
            if back:
                server.start()
                arrived += response.read()
                assert arrived == content
            else:
                # A body that is short of what was announced, never one that ends.
                with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                    response.read()
                server.start()
        assert store.get(sha1) == (200, content)


def test_readers_who_wait_or_go_are_in_nobodys_way(shared, start):
    content = os.urandom(32 * MIB)
    store = start(shared, shared.options())
    sha1 = store.put(content)
    with contextlib.ExitStack() as readers:
        # More than the store has threads.
        waiting = []
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", store.port, timeout=120)
            readers.callback(connection.close)
            connection.request("GET", f"/v1/files/{sha1}", headers={"Authorization": f"Bearer {JOB}"})
            waiting.append(readers.enter_context(connection.getresponse()))
        assert store.get(sha1) == (200, content)
        for response in waiting[:10]:
            assert response.read() == content
    assert store.get(sha1) == (200, content)

    def pipes():
        found = []
        for link in Path(f"/proc/{store.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(link.readlink()))
        return [name for name in found if name.startswith("pipe:")]

    wait_for(lambda: not pipes(), "the end of all pipes")


def test_two_stores_share_calls(shared, start):
    options = shared.options()
    one, other = start(shared, options), start(shared, options)
    tasks = [f"task-{number}" for number in range(50)]

    def put(task):
        body = {"namespace": "tenant", "function": "f", "address": "0x1", "data": {"of": task}}
        assert one.ask("PUT", f"/v1/calls/{task}/1", body=body, bearer=OPERATOR)[0] == 201

    def work(task):
        """As an agent at the other store does it."""
        bearer = token(task=task)
        status, _, content = other.ask("GET", f"/v1/calls/{task}?wait=60", bearer=bearer)
        assert (status, json.loads(content)["data"]) == (200, {"of": task})
        path = f"/v1/calls/{task}/1"
        assert other.ask("POST", f"{path}/claim", body={"pod": f"pod-{task}"}, bearer=bearer)[0] == 200
        assert other.ask("POST", f"{path}/state", body={"state": "accepted"}, bearer=bearer)[0] == 200
        assert other.ask("PUT", f"{path}/answer", body=json.dumps(task).encode(), bearer=bearer)[0] == 201

    with ThreadPoolExecutor(50) as agents, ThreadPoolExecutor(8) as operator:
        working = [agents.submit(work, task) for task in tasks]
        list(operator.map(put, tasks))
        for done in working:
            done.result()
    seen, epoch, last = {}, "", 0

    def feed():
        nonlocal epoch, last
        _, document = one.document("GET", f"/v1/changes?after={last}&epoch={epoch}&wait=1")
        epoch, last = document["epoch"], document["last"]
        seen.update({change["task"]: change["state"] for change in document["changes"]})
        return seen == dict.fromkeys(tasks, "answered")

    wait_for(feed, "the feed of the other store's changes")
    assert {call["state"] for call in one.document("GET", "/v1/calls")[1]} == {"answered"}
    for task in tasks[:5]:
        _, record = one.document("GET", f"/v1/calls/{task}/1")
        assert (record["claimedBy"], record["answer"]["inline"]) == (f"pod-{task}", task)
        assert one.ask("DELETE", f"/v1/calls/{task}", bearer=OPERATOR)[0] == 204
        assert other.ask("GET", f"/v1/calls/{task}/1", bearer=OPERATOR)[0] == 404


def test_of_claims_at_both_stores_at_once_one_wins(shared, start):
    options = shared.options()
    stores = [start(shared, options), start(shared, options)]
    for attempt in range(1, 16):
        body = {"namespace": "tenant", "function": "f", "address": "0x1", "data": {}}
        assert stores[0].ask("PUT", f"/v1/calls/task-1/{attempt}", body=body, bearer=OPERATOR)[0] == 201

        def claim(number, attempt=attempt):
            path = f"/v1/calls/task-1/{attempt}/claim"
            return stores[number % 2].ask("POST", path, body={"pod": f"pod-{number}"})[0]

        with ThreadPoolExecutor(8) as agents:
            codes = list(agents.map(claim, range(8)))
        assert sorted(codes) == [200] + [409] * 7
        _, record = stores[1].document("GET", f"/v1/calls/task-1/{attempt}")
        assert record["claimedBy"] == f"pod-{codes.index(200)}"


def put_file(blobs, content, namespace, references):
    upload = blobs.begin(size=len(content))
    for take in (upload.write, upload.update_sha1, upload.update_sha256):
        take(content)
    return upload.commit(Keeper(namespace, references))[0]


async def test_a_move_that_is_killed_is_run_again(shared, start, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    files = FileBlobs(str(root))
    contents = [b"", os.urandom(9 * MIB), *(f"file {number}".encode() for number in range(20))]
    for number, content in enumerate(contents):
        put_file(files, content, f"tenant{number % 2 or ''}", {"task:task-1": None, "owner:o": None})
    put_file(files, contents[1], "tenant", {"keep:report": None})
    rotten = put_file(files, b"rotten", "tenant", {"task:task-1": None})
    (root / "sha256" / rotten.sha256[:2] / rotten.sha256).write_bytes(b"r0tten")
    with ThreadPoolExecutor(2) as executor:
        book = CallBook(str(root), executor=executor)
        for attempt in (1, 2):
            await book.put(CallRequest("tenant", "task-1", attempt, "f", "0x1", None, {"n": attempt}))
        await book.claim("task-1", 2, namespace="tenant", pod="pod-1")
    options = shared.options()
    where = [argument.replace("--s3=", "--to=") for argument in shared.arguments(options)]
    command = ["move", f"--from=file:{root}", *where]
    armed = tmp_path / "armed"
    armed.touch()

    def move(*fault):
        program = ["-m", "gpux.store"] if not fault else [str(HERE / "faulty_bucket.py"), str(armed), *fault]
        return subprocess.run(
            [sys.executable, *program, *command],
            env={"PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    for nth, when in (("7", "before"), ("12", "after"), ("60", "before"), ("9", "after"), ("30", "after")):
        assert move(nth, when).returncode == -9
    moved = move()
    assert moved.returncode == 1, "something stayed behind"
    assert f"{rotten.sha1} has other bytes than its name says" in moved.stderr
    assert "24 of 24 entries" in moved.stdout
    assert "2 calls are there" in moved.stdout
    again = move()
    assert "0 files sent" in again.stdout
    store = start(shared, options)
    for number, content in enumerate(contents):
        namespace = f"tenant{number % 2 or ''}"
        path = f"/v1/files/{hashlib.sha1(content).hexdigest()}?namespace={namespace}"
        status, _, found = store.ask("GET", path, bearer=OPERATOR)
        assert (status, found) == (200, content)
    assert store.get(rotten.sha1)[0] == 404
    with shared.bucket(options) as bucket:
        for namespace in ("tenant", "tenant1"):
            before = {e.blob.sha1: (e.references, e.created) for e in files.entries(namespace, limit=99)}
            after = {
                e.blob.sha1: (e.references, e.created) for e in S3Blobs(bucket).entries(namespace, limit=99)
            }
            before.pop(rotten.sha1, None)
            assert after == before
        # Kept once, although two namespaces have it.
        assert len(list(bucket.listing("data/"))) == len(contents)
        assert list(bucket.uploads("data/")) == []
    assert store.document("GET", "/v1/calls/task-1/2")[1]["claimedBy"] == "pod-1"
    status, _, content = store.ask("GET", "/v1/calls/task-1")
    assert (status, json.loads(content)["data"]) == (200, {"n": 2})


def test_a_move_takes_no_directory_that_is_used_and_no_other_one(shared, tmp_path, start):
    where = [argument.replace("--s3=", "--to=") for argument in shared.arguments(shared.options())]
    command = [sys.executable, "-m", "gpux.store", "move", f"--from=file:{tmp_path}", *where]
    environment = {"PYTHONPATH": str(SOURCE)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, "folder sha256" in refused.stderr) == (1, True)
    (tmp_path / "key").write_bytes(KEY)
    port = free_port()
    serve = ["-m", "gpux.store", f"--root={tmp_path}", f"--key-file={tmp_path / 'key'}"]
    store = Process(
        [sys.executable, *serve, f"--listen=127.0.0.1:{port}"], environment=environment, log=tmp_path / "log"
    )
    try:
        wait_for(lambda: accepts(port), "the store's start")
        refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        store.kill()
    assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)


@pytest.mark.parametrize(("at_once", "most"), [(1, 64), (4, 96)])
def test_memory_stays_small(shared, start, measured, at_once, most):
    store = start(shared, shared.options())
    block = os.urandom(MIB)
    before = time.monotonic()
    with ThreadPoolExecutor(at_once) as jobs:
        names = list(jobs.map(lambda number: store.put(block * 64 + bytes([number])), range(at_once)))
        assert [len(found[1]) for found in jobs.map(store.get, names)] == [64 * MIB + 1] * at_once
    peak = rss_kib(store.process.pid, "VmHWM") // 1024
    seconds = time.monotonic() - before
    measured(f"store over s3: 64 MiB there and back, {at_once} at once, in {seconds:.1f} s: peak {peak} MiB")
    assert peak <= most


def test_a_cache_fills_in_little_memory_and_begins_anew_after_a_kill(shared, start, tmp_path, measured):
    store, folder, port = start(shared, shared.options(), run=False), tmp_path / "cache", free_port()
    store.command += [
        f"--s3-cache={folder}",
        f"--s3-cache-bytes={128 * MIB}",
        f"--metrics-listen=127.0.0.1:{port}",
    ]
    store.start()
    content = os.urandom(MIB) * 64
    name = store.put(content)
    for _ in range(2):
        assert store.get(name) == (200, content)
    wait_for(lambda: [path.suffix for path in folder.iterdir()] == [""], "the cache")
    wait_for(lambda: cached(port)["bytes"], "the cache's size")
    assert store.get(name) == (200, content)
    assert cached(port) == {"bytes": 64 * MIB, "hits_total": 1, "misses_total": 2, "failures_total": 0}
    peak = rss_kib(store.process.pid, "VmHWM") // 1024
    measured(f"store over s3: 64 MiB to the store, twice from it, and once into its cache: peak {peak} MiB")
    assert peak <= 64
    store.process.kill()
    store.start()
    assert list(folder.iterdir()) == []
    assert store.get(name) == (200, content)


def cached(port):
    """What the metrics say of the cache."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return {
        name: float(value)
        for name, value in re.findall(r"^gpux_store_cache_(\w+) (\S+)$", text, re.MULTILINE)
    }
