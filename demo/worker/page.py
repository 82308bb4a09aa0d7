"""The page: what a person sees at the URL of the job's port.

``GET /`` is a form, ``POST /read`` answers what the model reads in the posted picture, ``POST /pictures`` puts the
posted picture into the job's store and answers its sha1, ``GET /devices`` says which GPUs this container was given.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from demo.worker import store

PORT = 8080
LIMIT = 20 * 1024 * 1024
DEVICE_VARIABLES = ("NVIDIA_VISIBLE_DEVICES", "AMD_VISIBLE_DEVICES")

_HTML = b"""<!doctype html><meta charset="utf-8"><title>Reader</title>
<style>body{font:16px system-ui;max-width:40rem;margin:3rem auto}pre{background:#eee;padding:1rem}</style>
<h1>What does this picture say?</h1>
<input type="file" accept="image/*" id="file"><pre id="text">Choose a picture.</pre>
<script>
document.getElementById("file").onchange = async event => {
  const out = document.getElementById("text");
  out.textContent = "Reading\\u2026";
  const answer = await fetch("read", {method: "POST", body: event.target.files[0]});
  const body = await answer.json();
  out.textContent = answer.ok ? body.text.join("\\n") || "(no text)" : body.error;
};
</script>
"""


def devices() -> dict[str, str]:
    """Return the variables by which device plugins tell a container its GPUs, as this container has them."""
    return {name: os.environ[name] for name in DEVICE_VARIABLES if name in os.environ}


class Page(BaseHTTPRequestHandler):
    """One request to the page."""

    read: Callable[[bytes], list[str]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the form, or the devices."""
        if self.path == "/":
            self._send(HTTPStatus.OK, _HTML, "text/html; charset=utf-8")
        elif self.path == "/devices":
            self._json(HTTPStatus.OK, {"hostname": os.uname().nodename, "devices": devices()})
        else:
            self._json(HTTPStatus.NOT_FOUND, {"error": f"nothing at {self.path}"})

    def do_POST(self) -> None:
        """Read the posted picture, or store it."""
        picture = self._body()
        if picture is None:
            return
        try:
            if self.path == "/read":
                self._json(HTTPStatus.OK, {"text": type(self).read(picture), "devices": devices()})
            elif self.path == "/pictures":
                self._json(HTTPStatus.OK, {"sha1": store.upload(picture)})
            else:
                self._json(HTTPStatus.NOT_FOUND, {"error": f"nothing at {self.path}"})
        except store.StoreError as error:
            self._json(HTTPStatus.BAD_GATEWAY, {"error": str(error)})
        except Exception as error:  # noqa: BLE001 - any bytes may be posted, and the decoder has its own exceptions
            self._json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": f"this can't be read: {error}"})

    def _body(self) -> bytes | None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= LIMIT:
            self.close_connection = True
            self._json(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"post a picture of 1 to {LIMIT} bytes"}
            )
            return None
        return self.rfile.read(length)

    def _json(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(read: Callable[[bytes], list[str]], port: int = PORT) -> ThreadingHTTPServer:
    """Serve the page from a thread of its own; ``read`` does the reading."""
    handler = type("BoundPage", (Page,), {"read": staticmethod(read)})
    server = ThreadingHTTPServer(("", port), handler)
    threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
    return server
