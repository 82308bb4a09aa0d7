"""``/gpux_api``: files and folders by hash, streamed between job and store with one small buffer per transfer.

A file is stored as it is, whatever type its upload is said to be of. Only what comes to the paths of folders, which
GPUX promised and never had, is taken for a tar.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable

from gpux.agent.http1 import BUFFER, Body, ProtocolError, Reader, Response
from gpux.agent.link import Link
from gpux.agent.serving import Exchange
from gpux.hashes import MalformedHashError, parse
from gpux.log import log
from gpux.splice import Pipe, SpliceUnsupportedError

_FILES, _FOLDERS = "/v1/files", "/v1/folders"
#: What the paths that jobs know stand for at the store.
_UPLOADS = {
    "/api/file/upload": _FILES,
    "/api/file/upload/": _FILES,
    "/api/folder/upload": _FOLDERS,
    "/api/folder/upload/": _FOLDERS,
}
_DOWNLOADS = {"/api/file/download/": _FILES, "/api/folder/download/": _FOLDERS}
_RESPONSE_SECONDS = 300.0
"""The store makes an upload durable before it answers; a large one on a slow disk takes a while."""
_ERROR_LIMIT = 64 * 1024
_WORTH_SPLICING = 256 * 1024
_AWAY = {"Retry-After": "5"}
_ASKED = ("range", "if-none-match", "if-range")
_TOLD = ("content-type", "content-length", "content-range", "accept-ranges", "etag", "x-content-type-options")
#: What the store says about the job's request, and not about the agent.
_PASSED = {400, 404, 408, 409, 413, 416, 507}


class TargetGoneError(OSError):
    """The side that bytes are moved to has gone, and not the one they come from."""


class FileApi:
    """Handles the requests of one job."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # Touched by every transfer, so that it is made once per thread and not once per request.
        self._local = threading.local()
        self._splices = True

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path, method = exchange.request.path, exchange.request.method
        prefix = next((known for known in _DOWNLOADS if path.startswith(known)), None)
        if path in _UPLOADS:
            if method not in {"POST", "PUT"}:
                exchange.fail(405, "allowed: POST, PUT", {"Allow": "POST, PUT"})
            else:
                self._upload(exchange, _UPLOADS[path])
        elif prefix is not None:
            if method not in {"GET", "HEAD"}:
                exchange.fail(405, "allowed: GET, HEAD", {"Allow": "GET, HEAD"})
            else:
                self._download(exchange, _DOWNLOADS[prefix], path[len(prefix) :])
        else:
            exchange.fail(404, "no such path")

    # ------------------------------------------------------------------------------------------------ down

    def _download(self, exchange: Exchange, kind: str, name: str) -> None:
        # Before the store is asked: what isn't a hash never becomes part of a request there.
        try:
            parse(name)
        except MalformedHashError as error:
            exchange.fail(400, str(error))
            return
        method = exchange.request.method
        asked = {key: value for key in _ASKED if (value := exchange.request.headers.get(key))}
        try:
            connection = self._link.connect()
        except OSError as error:
            _away(exchange, error)
            return
        with connection:
            try:
                connection.sendall(self._link.head(method, f"{kind}/{name}", asked))
                reader = Reader(connection)
                response = reader.response(seconds=_RESPONSE_SECONDS)
                body = reader.response_body(response, method=method)
                if response.status >= 300 and response.status != 304:
                    _pass_error(exchange, response, body)
                    return
            except (OSError, ProtocolError) as error:
                _away(exchange, error)
                return
            exchange.start(
                response.status, {key: response.headers[key] for key in _TOLD if key in response.headers}
            )
            self._copy(body, exchange.connection)

    def _copy(self, body: Body, target: socket.socket) -> None:
        view = self._buffer()
        try:
            while not body.ended:
                if body.directly >= _WORTH_SPLICING and self._spliced(body, target):
                    return
                if count := body.read_into(view):
                    target.sendall(view[:count])
        except ProtocolError as error:
            raise ConnectionResetError(error.message) from None

    def _spliced(self, body: Body, target: socket.socket, stop: Callable[[], bool] = lambda: False) -> bool:
        """Move what is left of a body, or what of it comes before `stop`; False where the kernel can't."""
        if not self._splices:
            return False
        with Pipe() as pipe:
            while body.directly and not stop():
                try:
                    count = pipe.fill(body.connection, body.directly)
                except SpliceUnsupportedError:
                    self._splices = False
                    return False
                if not count:
                    raise ConnectionResetError("the body broke off")
                body.took(count)
                try:
                    pipe.drain(target)
                except OSError as error:
                    raise TargetGoneError from error
        return True

    # ------------------------------------------------------------------------------------------------ up

    def _upload(self, exchange: Exchange, kind: str) -> None:
        length = exchange.body.length
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        try:
            connection = self._link.connect()
        except OSError as error:
            _away(exchange, error)
            return
        with connection:
            reader = Reader(connection)
            try:
                connection.sendall(self._link.head("POST", kind, framing))
            except OSError as error:
                _away(exchange, error)
                return
            exchange.proceed()
            self._forward(exchange.body, connection)
            try:
                response = reader.response(seconds=_RESPONSE_SECONDS)
                body = reader.response_body(response, method="POST")
                if response.status >= 300:
                    _pass_error(exchange, response, body)
                    return
                document = json.loads(body.read_all(limit=_ERROR_LIMIT))
            except (OSError, ProtocolError, ValueError) as error:
                _away(exchange, error)
                return
            exchange.reply(200, document)

    def _forward(self, body: Body, store: socket.socket) -> None:
        """Pass the body on, until its end or until the store answers early or goes away."""
        waiting = select.poll()
        waiting.register(store, select.POLLIN)

        def answered() -> bool:
            return bool(waiting.poll(0))

        def send(*pieces: bytes | memoryview) -> None:
            try:
                for piece in pieces:
                    store.sendall(piece)
            except OSError as error:
                raise TargetGoneError from error

        view = self._buffer()
        chunked = body.length is None
        try:
            while not body.ended and not answered():
                if body.directly >= _WORTH_SPLICING and self._spliced(body, store, answered):
                    return
                count = body.read_into(view)
                if chunked:
                    send(f"{count:x}\r\n".encode(), view[:count], b"\r\n")
                elif count:
                    send(view[:count])
        except TargetGoneError:
            # What the store said before it went is read next; if it said nothing, that is noticed there.
            return

    def _buffer(self) -> memoryview:
        buffer = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(BUFFER))
        return buffer


def _pass_error(exchange: Exchange, response: Response, body: Body) -> None:
    try:
        message = str(json.loads(body.read_all(limit=_ERROR_LIMIT))["error"])
    except (ValueError, KeyError, TypeError, ProtocolError, OSError):
        message = f"the store answered HTTP {response.status}"
    headers = {"Content-Range": response.headers["content-range"]} if response.status == 416 else {}
    if response.status in _PASSED:
        exchange.fail(response.status, message, headers)
    elif response.status in {401, 403}:
        # The agent's own trouble, and no fault in the job's request.
        log("error", "the store refuses the agent's token", status=response.status, error=message)
        exchange.fail(502, "the store refuses this agent")
    else:
        exchange.fail(503, message, {"Retry-After": response.headers.get("retry-after", "5")})


def _away(exchange: Exchange, error: Exception) -> None:
    log("warning", "the store can't be reached", error=str(error) or type(error).__name__)
    exchange.fail(503, "the store can't be reached", _AWAY)
