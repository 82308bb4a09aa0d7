"""Stands in for ollama: the calls that OpenGPU's chat worker makes, answered without a model."""

from __future__ import annotations

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.images.devices import devices

PORT = 11434


def answer(path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the answer of a POST; None where ollama has nothing."""
    if path == "/api/pull":
        return {"status": "success"}
    if path == "/api/chat":
        words = str(body["messages"][-1]["content"]).split()
        content = json.dumps(
            {"text": " ".join(reversed(words)), "devices": devices(), "model": body["model"]}
        )
        return {
            "model": body["model"],
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": content},
            "done": True,
        }
    return None


class _Ollama(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"devices": devices()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        found = answer(self.path, body)
        self._send(404 if found is None else 200, found or {"error": f"nothing at {self.path}"})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", PORT), _Ollama).serve_forever()
