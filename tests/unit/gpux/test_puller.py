"""The agent's side of pulls: every store is asked, and the answer goes to the one that asked."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gpux.agent import pulls
from gpux.agent.config import Address
from gpux.agent.link import Reply, StoreAwayError
from gpux.agent.pulls import Pull, Puller

FIRST, SECOND = Address("10.0.0.1", 8080), Address("10.0.0.2", 8080)
QUESTION = {"id": "0" * 32, "root": "job", "path": "out", "kind": "list"}


class Stores:
    """What each of the stores answers, one after the other; then it has gone."""

    def __init__(self, **answers: list[Reply]) -> None:
        self.answers = {Address(host.replace("_", "."), 8080): replies for host, replies in answers.items()}
        self.asked: queue.Queue[Address] = queue.Queue()
        self.gone = threading.Event()

    def request(self, method: str, path: str, *, seconds: float, to: Address) -> Reply:
        self.asked.put(to)
        if self.answers.get(to):
            return self.answers[to].pop(0)
        self.gone.wait()
        raise StoreAwayError("gone")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses that the stores' name stands for. Afterwards the puller ends, which else it never does."""
    addresses = ["10.0.0.1", "10.0.0.2"]

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise SystemExit
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(pulls, "_LOOK_UP_SECONDS", 0.05)
    yield addresses
    addresses.clear()
    for thread in threading.enumerate():
        if thread.name == "the puller":
            thread.join(30)
            assert not thread.is_alive()


class Recorded(Puller):
    served: queue.Queue[tuple[Address, Pull]]

    def _serve(self, store: Address, pull: Pull) -> None:
        self.served.put((store, pull))


def until_its_end(puller: Puller) -> None:
    with contextlib.suppress(SystemExit):
        puller.run()


def started(stores: Stores) -> Recorded:
    puller = Recorded(stores, task="t", stores=Address("stores", 8080), roots={})  # type: ignore[arg-type]
    puller.served = queue.Queue()
    threading.Thread(target=until_its_end, args=(puller,), daemon=True, name="the puller").start()
    return puller


def test_every_store_is_asked_and_has_its_answer_itself(known: list[str]) -> None:
    stores = Stores(**{"10_0_0_2": [Reply(204, None), Reply(200, QUESTION)]})
    puller = started(stores)
    assert puller.served.get(timeout=30) == (SECOND, Pull("0" * 32, "job", "out", "list"))
    assert {stores.asked.get(timeout=30) for _ in range(4)} == {FIRST, SECOND}


def test_a_store_that_comes_later_is_found_and_one_that_went_is_asked_again_if_it_is_back(
    known: list[str],
) -> None:
    known.remove("10.0.0.2")
    stores = Stores()
    started(stores)
    assert stores.asked.get(timeout=30) == FIRST
    known.append("10.0.0.2")
    assert stores.asked.get(timeout=30) == SECOND
    stores.gone.set()
    assert {stores.asked.get(timeout=30) for _ in range(4)} == {FIRST, SECOND}


@pytest.mark.parametrize(
    "document",
    [None, [], {}, QUESTION | {"id": "../x"}, QUESTION | {"kind": "delete"}, QUESTION | {"path": 1}],
)
def test_questions_that_are_none(document: object) -> None:
    with pytest.raises(ValueError, match="isn't known"):
        Pull.of_document(document)
