"""The worker and its store: one that is away for a while is asked again."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from demo.worker import store

AWAY, THERE, UNKNOWN = HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.OK, HTTPStatus.NOT_FOUND


@pytest.fixture
def codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[HTTPStatus]]:
    """What the next requests are answered with, behind the socket of a job."""
    answers: list[HTTPStatus] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0))
            self.end_headers()
            self.wfile.write(b"content")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(store, "SOCKET", str(tmp_path / "api"))
    monkeypatch.setattr(store, "PAUSE", 0.01)
    with socketserver.ThreadingUnixStreamServer(store.SOCKET, Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield answers
        server.shutdown()


def test_a_store_that_comes_back(codes: list[HTTPStatus]) -> None:
    codes += [AWAY, AWAY, THERE]
    assert store.download("0" * 40) == b"content"
    assert codes == []


def test_a_store_that_stays_away(codes: list[HTTPStatus], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", -1)
    codes += [AWAY, THERE]
    with pytest.raises(store.StoreError, match="503 content"):
        store.download("0" * 40)
    assert codes == [THERE]


def test_what_it_refuses_is_final(codes: list[HTTPStatus]) -> None:
    codes += [UNKNOWN, THERE]
    with pytest.raises(store.StoreError, match="404 content"):
        store.download("0" * 40)
    assert codes == [THERE]
