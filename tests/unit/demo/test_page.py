"""The page of the demo's worker, over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from demo.worker import page, store


def read(picture: bytes) -> list[str]:
    """Stand in for the model: it knows one picture."""
    if picture != b"a picture":
        raise ValueError("no picture")
    return ["a", "picture"]


@pytest.fixture
def port() -> Iterator[int]:
    server = page.serve(read, port=0)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    return answer.status, json.loads(content) if answer.getheader(
        "Content-Type"
    ) == "application/json" else content


def test_the_form(port: int) -> None:
    status, body = ask(port, "GET", "/")
    assert status == 200
    assert b"<title>Reader</title>" in body


def test_reading(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1")
    monkeypatch.delenv("AMD_VISIBLE_DEVICES", raising=False)
    expected = {"text": ["a", "picture"], "devices": {"NVIDIA_VISIBLE_DEVICES": "GPU-1"}}
    assert ask(port, "POST", "/read", b"a picture") == (200, expected)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/read", b"something else", {}, 422),
        ("POST", "/read", b"", {}, 413),
        ("POST", "/read", b"x", {"Content-Length": str(page.LIMIT + 1)}, 413),
        ("POST", "/elsewhere", b"a picture", {}, 404),
        ("GET", "/elsewhere", None, {}, 404),
    ],
)
def test_mistakes(
    port: int, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    found, answer = ask(port, method, path, body, **headers)
    assert found == status
    assert answer["error"]


def test_a_store_that_is_away_is_said(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SOCKET", "/nowhere/gpux_api")
    status, answer = ask(port, "POST", "/pictures", b"a picture")
    assert status == 502
    assert "/api/file/upload/" in answer["error"]
