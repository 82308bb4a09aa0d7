"""Slots: who has one, who waits for one, and what is left in memory of who has none."""

from __future__ import annotations

import asyncio
import hashlib
import json
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from gpux.blobs import Keeper
from gpux.store import uploads
from gpux.store.body import BUFFER
from gpux.store.uploads import Slots, receive
from tests.unit.gpux.filestore.kit import store
from tests.unit.gpux.store.conftest import serving, token

NEVER = 1e9


def asked(slots, *namespaces):
    return [slots.ask(namespace) for namespace in namespaces]


def having(turns):
    return [turn.done() for turn in turns]


async def test_no_more_than_there_are():
    turns = asked(Slots(total=3, per_namespace=2), "a", "a", "a", "b", "b")
    assert having(turns) == [True, True, False, True, False]


async def test_the_next_is_for_the_namespace_that_has_fewest():
    slots = Slots(total=3, per_namespace=3)
    turns = asked(slots, "a", "a", "a", "a", "b", "b")
    slots.give_back(turns[0], "a")
    assert having(turns[3:]) == [False, True, False]
    # Two to one, then one to one: the first that came.
    slots.give_back(turns[1], "a")
    assert having(turns[3:]) == [True, True, False]


async def test_whoever_waits_no_more_gets_nothing():
    slots = Slots(total=1, per_namespace=1)
    turns = asked(slots, "a", "a", "b", "c")
    slots.give_back(turns[1], "a")
    turns[2].cancel()
    slots.give_back(turns[0], "a")
    assert having(turns[1:]) == [False, True, True]
    assert turns[2].cancelled()
    slots.give_back(turns[2], "b")
    slots.give_back(turns[3], "c")
    assert having(asked(slots, "a", "a")) == [True, False]


async def test_whose_slot_is_wanted():
    slots = Slots(total=3, per_namespace=3)
    asked(slots, "a", "a", "b")
    assert not slots.wanted("a", slow=True)
    waiting = slots.ask("b")
    assert slots.wanted("a", slow=True)
    assert not slots.wanted("a", slow=False)
    slots.give_back(waiting, "b")
    asked(slots, "c")
    assert slots.wanted("a", slow=False)
    assert not slots.wanted("b", slow=False)


class Sender:
    """An upload under way, whose body is what it is told to send."""

    def __init__(self, service, path="/v1/files", *, method="POST", bearer=None):
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._answer = asyncio.create_task(service.ask(method, path, body=self._body(), bearer=bearer))

    async def _body(self):
        while chunk := await self._chunks.get():
            yield chunk

    def send(self, chunk):
        self._chunks.put_nowait(chunk)

    async def end(self):
        self.send(b"")
        status, headers, content = await self._answer
        return status, headers, json.loads(content)

    async def pour(self, chunk, *, pause):
        """Send until it is cancelled."""
        while True:
            if self._chunks.qsize() < 2:
                self.send(chunk)
            await asyncio.sleep(pause)


async def under_way(service, count):
    while f"gpux_store_uploads {count}.0".encode() not in service.metrics.text():  # noqa: ASYNC110 only a metric tells
        await asyncio.sleep(0.01)


async def test_a_silent_sender_keeps_nobody_out(root):
    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        silent = Sender(service)
        silent.send(b"before, ")
        await under_way(service, 1)
        assert await service.status("POST", "/v1/files", body=b"another") == 201
        silent.send(b"after")
        status, _, document = await silent.end()
        assert (status, document["sha1"]) == (201, hashlib.sha1(b"before, after").hexdigest())


async def test_a_slow_sender_lets_others_go_first(root):
    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        slow = Sender(service)
        dripping = asyncio.create_task(slow.pour(b"x", pause=0.01))
        await under_way(service, 1)
        assert await service.status("POST", "/v1/files", body=b"another") == 201
        dripping.cancel()
        status, _, document = await slow.end()
        assert status == 201
        assert document["sha1"] == hashlib.sha1(b"x" * document["size"]).hexdigest()


async def test_a_namespace_with_many_fast_senders_lets_another_go_first(root):
    async with serving(root, uploads=2, uploads_per_namespace=2) as service:
        fast = [Sender(service) for _ in range(2)]
        pouring = [asyncio.create_task(each.pour(b"x" * 100_000, pause=0)) for each in fast]
        await under_way(service, 2)
        assert await service.status("POST", "/v1/files", body=b"b's", bearer=token(namespace="b")) == 201
        for task in pouring:
            task.cancel()
        for each in fast:
            status, _, document = await each.end()
            assert status in {200, 201}
            assert document["sha1"] == hashlib.sha1(b"x" * document["size"]).hexdigest()


async def test_no_upload_keeps_an_answer_out(root, monkeypatch):
    monkeypatch.setattr(uploads, "_TURN_SECONDS", NEVER)
    call = {"namespace": "a", "function": "f", "address": "0x1", "data": {}}
    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        operator = token("operator")
        assert await service.status("PUT", "/v1/calls/t/1", body=json.dumps(call), bearer=operator) == 201
        holding = Sender(service)
        holding.send(b"x")
        await under_way(service, 1)
        assert await service.status("PUT", "/v1/calls/t/1/answer", body=b"{}") == 201
        assert (await holding.end())[0] == 201


async def test_more_than_may_be_under_way_are_refused_at_once(root, monkeypatch):
    monkeypatch.setattr(uploads, "UNDER_WAY", 4)
    async with serving(root) as service:
        many = [Sender(service) for _ in range(4)]
        for each in many:
            # With its first bytes a client sends the header.
            each.send(b"x")
        await under_way(service, 4)
        status, headers, _ = await service.ask("POST", "/v1/files", body=b"one more")
        assert (status, headers["Retry-After"]) == (503, "10")
        assert await service.status("POST", "/v1/files", body=b"x", bearer=token(namespace="b")) == 201
        for each in many:
            assert (await each.end())[0] in {200, 201}
        assert await service.status("POST", "/v1/files", body=b"one more") == 201


async def test_who_waits_for_too_long_is_refused_and_leaves_nothing(root, monkeypatch):
    monkeypatch.setattr(uploads, "_TURN_SECONDS", NEVER)
    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        holding = Sender(service)
        holding.send(b"x")
        await under_way(service, 1)
        with monkeypatch.context() as patch:
            patch.setattr(uploads, "_WAIT_SECONDS", 0.01)
            for body in (b"", b"in the first packet", b"x" * 2_000_000):
                status, headers, _ = await service.ask("POST", "/v1/files", body=body)
                assert (status, headers["Retry-After"]) == (503, "10")
        assert (await holding.end())[0] == 201
        assert await service.status("POST", "/v1/files", body=b"another") == 201


async def test_a_silent_sender_waits_for_a_slot_to_end(root, monkeypatch):
    """What remains to be done is work, too."""
    async with serving(root, uploads=1, uploads_per_namespace=1) as service:
        silent = Sender(service)
        silent.send(b"all")
        await under_way(service, 1)
        assert await service.status("POST", "/v1/files", body=b"another") == 201
        monkeypatch.setattr(uploads, "_TURN_SECONDS", NEVER)
        holding = Sender(service)
        holding.send(b"x")
        await under_way(service, 2)
        with monkeypatch.context() as patch:
            patch.setattr(uploads, "_WAIT_SECONDS", 0.01)
            assert (await silent.end())[0] == 503
        assert (await holding.end())[0] == 201


class Later(Executor):
    """Does nothing before the loop's next turn."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future[Any] = Future()
        asyncio.get_running_loop().call_soon(lambda: future.set_result(fn(*args, **kwargs)))
        return future


@pytest.mark.parametrize("size", [1, BUFFER + 1])
async def test_an_empty_chunk_leaves_nothing_in_memory(root, size):
    def held():
        return [file.stat().st_size for file in (root / "tmp").iterdir()]

    seen = []

    async def chunks():
        yield b"x" * size
        seen.append(held())
        yield b""
        seen.append(held())
        yield b"y"

    blob, _ = await receive(
        chunks(),
        blobs=store(root),
        keeper=Keeper("a", {"task:t": None}),
        size=None,
        executor=Later(),
        count=int,
    )
    assert seen[-1] == [size]
    assert blob.sha256 == hashlib.sha256(b"x" * size + b"y").hexdigest()
