"""The operator's client against a real store."""

from __future__ import annotations

import asyncio
import hashlib
import time

import pytest

from gpux import tokens
from gpux.client import StoreClient, StoreRefused, StoreUnavailable
from tests.faults.gpux.processes import KEY, OPERATOR, TASK, Lab, laboratory, token, wait_for


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with laboratory(tmp_path_factory.mktemp("client")) as made:
        made.start_store()
        yield made


@pytest.fixture
async def client(running):
    async with StoreClient(f"http://127.0.0.1:{running.store_port}/", lambda: OPERATOR) as made:
        yield made


def call(task=TASK, attempt=1, **changes):
    fixed = {
        "namespace": "tenant",
        "task": task,
        "attempt": attempt,
        "function": "run",
        "address": f"0x{attempt}",
        "data": {"a": 1},
        "deadline": 5.0,
    }
    return fixed | changes


async def test_calls(client):
    assert await client.put_call(**call())
    assert not await client.put_call(**call())
    with pytest.raises(StoreRefused) as caught:
        await client.put_call(**call(data={"a": 2}))
    assert caught.value.status == 409
    assert "another call" in caught.value.message
    record = await client.get_call(TASK, 1)
    assert (record["state"], record["answer"]) == ("queued", None)
    assert record["times"]["queued"]
    assert {"namespace": "tenant", "task": TASK, "attempt": 1, "state": "queued"} in await client.list_calls()
    assert {"task": TASK, "namespace": "tenant"} in await client.list_tasks()
    await client.delete_task(TASK)
    await client.delete_task(TASK)
    assert TASK not in [entry["task"] for entry in await client.list_tasks()]
    with pytest.raises(StoreRefused) as caught:
        await client.get_call(TASK, 1)
    assert caught.value.status == 404


async def waits(lab: Lab) -> None:
    """Wait until a request waits in the store."""
    polls = "gpux_store_long_polls"
    await asyncio.to_thread(wait_for, lambda: lab.metric(polls) == 1, "a long poll")


async def test_changes(running, client):
    feed = await client.changes(after=0, wait=0)
    waiting = asyncio.create_task(client.changes(after=feed["last"], epoch=feed["epoch"], wait=20))
    await waits(running)
    assert not waiting.done()
    await client.put_call(**call("changing"))
    seen = await waiting
    assert seen["epoch"] == feed["epoch"]
    assert seen["changes"] == [
        {"seq": seen["last"], "namespace": "tenant", "task": "changing", "attempt": 1, "state": "queued"}
    ]
    everything = await client.changes(after=seen["last"], epoch="of a store that was", wait=20)
    assert any(change["task"] == "changing" for change in everything["changes"])


async def test_files(client):
    async def pieces():
        for _ in range(100):
            yield b"x" * 10_000

    stored = await client.put_file("tenant", b"hello", reference="keep:test")
    assert stored["sha1"] == hashlib.sha1(b"hello").hexdigest()
    assert await client.get_file("tenant", stored["sha1_b58"], limit=5) == b"hello"
    streamed = await client.put_file("tenant", pieces(), reference="keep:test")
    assert streamed["size"] == 1_000_000
    with pytest.raises(StoreRefused) as caught:
        await client.get_file("tenant", streamed["sha1"], limit=999_999)
    assert caught.value.status == 413
    with pytest.raises(StoreRefused) as caught:
        await client.get_file("other", stored["sha1"], limit=5)
    assert caught.value.status == 404
    with pytest.raises(StoreRefused) as caught:
        await client.put_file("../x", b"", reference="keep:test")
    assert caught.value.status == 400


async def test_a_token_that_is_refused(running):
    async with StoreClient(
        f"http://127.0.0.1:{running.store_port}", lambda: token(scope="operator", seconds=-1)
    ) as old:
        # It is no answer to what was asked, and the next token may be better.
        with pytest.raises(StoreUnavailable, match=r"HTTP 401: the token has expired"):
            await old.list_calls()


async def test_a_key_that_is_replaced_counts_at_once(tmp_path):
    with laboratory(tmp_path) as lab:
        lab.start_store()
        claims = {"scope": "operator", "namespace": "", "task": "", "exp": int(time.time()) + 60}
        new = tokens.sign(b"another key, of thirty-two bytes", claims)
        url = f"http://127.0.0.1:{lab.store_port}"
        async with StoreClient(url, lambda: OPERATOR) as old, StoreClient(url, lambda: new) as client:
            assert await old.list_calls() == []
            with pytest.raises(StoreUnavailable, match="signature"):
                await client.list_calls()
            replace_key(lab, b"another key, of thirty-two bytes")
            assert await client.list_calls() == []
            with pytest.raises(StoreUnavailable, match="signature"):
                await old.list_calls()
            # One that is no key lets nobody in, and does no harm besides.
            replace_key(lab, b"short")
            with pytest.raises(StoreUnavailable, match="HTTP 500"):
                await client.list_calls()
            replace_key(lab, KEY)
            assert await old.list_calls() == []


def replace_key(lab: Lab, key: bytes) -> None:
    """Replace the key at one stroke, as the kubelet does."""
    (lab.root / "new-key").write_bytes(key)
    (lab.root / "new-key").replace(lab.root / "key")


async def test_a_store_that_is_away():
    async with StoreClient("http://127.0.0.1:1", lambda: OPERATOR) as nowhere:
        for attempt in (
            nowhere.list_calls(),
            nowhere.changes(after=0),
            nowhere.put_file("tenant", b"", reference="keep:test"),
        ):
            with pytest.raises(StoreUnavailable):
                await attempt


async def test_a_store_that_ends_lets_its_waiters_go(tmp_path):
    with laboratory(tmp_path) as lab:
        lab.start_store()
        async with StoreClient(f"http://127.0.0.1:{lab.store_port}", lambda: OPERATOR) as client:
            await client.put_call(**call())
            feed = await client.changes(after=0, wait=0)
            waiting = asyncio.create_task(client.changes(after=feed["last"], epoch=feed["epoch"], wait=25))
            await waits(lab)
            process = lab.store.process
            process.terminate()
            assert (await asyncio.wait_for(waiting, 60))["changes"] == []
            assert await asyncio.to_thread(process.wait, 60) == 0
            with pytest.raises(StoreUnavailable):
                await client.changes(after=0)
            await asyncio.to_thread(lab.start_store)
            again = await client.changes(after=feed["last"], epoch=feed["epoch"], wait=25)
            assert again["epoch"] != feed["epoch"]
            assert [change["state"] for change in again["changes"]] == ["queued"]
