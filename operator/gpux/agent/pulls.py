"""Reads the job's storage for those who ask the store for it, so that the pod needs no open port.

The agent asks the store what is wanted, and brings it there on a connection of its own; the store passes the bytes on
as they come and keeps none. Where there are several stores, each is asked: a question waits in the one it came to.
Only for tasks that are open to the outside: the others' agents have no such folders.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gpux.agent import storage
from gpux.agent.config import Address
from gpux.agent.http1 import BUFFER, ProtocolError, Reader
from gpux.agent.link import Backoff, Link, StoreAwayError
from gpux.log import log

_POLL_SECONDS = 25
_LOOK_UP_SECONDS = 10.0
"""How soon a store that came is found. One that went is noticed at once."""
_AT_ONCE = 4
_RESPONSE_SECONDS = 120.0
_ID = re.compile(r"[0-9a-f]{32}")
_TAR, _BYTES, _JSON = "application/x-tar", "application/octet-stream", "application/json"


class Pull(NamedTuple):
    """What somebody wants of the storage."""

    id: str
    root: str
    """job or usr."""
    path: str
    kind: str
    """list, or get: a file as it is, a folder as tar."""

    @classmethod
    def of_document(cls, document: object) -> Pull:
        """Read the store's answer. Raises ValueError."""
        match document:
            case {"id": str(name), "root": str(root), "path": str(path), "kind": "list" | "get" as kind} if (
                _ID.fullmatch(name)
            ):
                return cls(name, root, path, kind)
        raise ValueError("the store wants something that isn't known here")


class Puller:
    """Serves the pulls of one task, whichever of the store's processes they wait in."""

    def __init__(self, link: Link, *, task: str, stores: Address, roots: Mapping[str, str]) -> None:
        """``stores`` is a name that stands for all of them; ``roots`` are the folders that may be read, by name."""
        self._link = link
        self._base = f"/v1/pulls/{task}"
        self._stores = stores
        self._roots = roots
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._followed: set[Address] = set()
        self._lost = threading.Event()

    def run(self) -> None:
        """Serve for ever."""
        backoff = Backoff(first=0.2, longest=10.0)
        while True:
            for store in self._addresses():
                with self._lock:
                    new = store not in self._followed
                    self._followed.add(store)
                if new:
                    threading.Thread(
                        target=self._follow, args=(store, backoff), daemon=True, name="pulls"
                    ).start()
            if self._lost.wait(_LOOK_UP_SECONDS):
                self._lost.clear()
                backoff.pause(until=self._lost)

    def _addresses(self) -> list[Address]:
        try:
            found = socket.getaddrinfo(self._stores.host, self._stores.port, type=socket.SOCK_STREAM)
        except OSError as error:
            log("warning", "the store's name can't be looked up", error=str(error))
            self._lost.set()
            return []
        return list(dict.fromkeys(Address(str(entry[4][0]), self._stores.port) for entry in found))

    def _follow(self, store: Address, backoff: Backoff) -> None:
        """Ask one store, as long as it is there."""
        path = f"{self._base}?wait={_POLL_SECONDS}"
        try:
            while True:
                reply = self._link.request("GET", path, seconds=_POLL_SECONDS + 15.0, to=store)
                if reply.status not in {200, 204}:
                    log(
                        "error",
                        "the store refuses to tell what is wanted of the storage",
                        status=reply.status,
                    )
                    return
                backoff.reset()
                if reply.status == 200:
                    pull = Pull.of_document(reply.document)
                    self._free.acquire()
                    threading.Thread(target=self._run, args=(store, pull), daemon=True, name="pull").start()
        except (StoreAwayError, ValueError) as error:
            log("warning", "what is wanted of the storage can't be asked for", error=str(error))
        finally:
            with self._lock:
                self._followed.discard(store)
            self._lost.set()

    def _run(self, store: Address, pull: Pull) -> None:
        try:
            self._serve(store, pull)
        except (OSError, ProtocolError) as error:
            # Whoever waits for it is told by the store, which sees the connection end.
            log("warning", "the storage could not be brought to its end", error=str(error))
        except MemoryError:
            log("warning", "the storage could not be read for lack of memory")
        finally:
            self._free.release()

    def _serve(self, store: Address, pull: Pull) -> None:
        try:
            found = storage.find(self._roots.get(pull.root), pull.path)
            try:
                self._answer(store, pull, found)
            finally:
                os.close(found.fd)
        except storage.StorageError as error:
            content = json.dumps({"error": error.message}).encode()
            self._send(store, pull, f"?error={error.status}", _JSON, [content], length=len(content))

    def _answer(self, store: Address, pull: Pull, found: storage.Found) -> None:
        if pull.kind == "list":
            content = json.dumps(storage.listing(found)).encode()
            self._send(store, pull, "", _JSON, [content], length=len(content))
            return
        buffer = memoryview(bytearray(BUFFER))
        if found.is_file:
            # Opened before it is promised.
            pieces = storage.content(found, buffer)
            self._send(store, pull, "", _BYTES, pieces, length=found.state.st_size)
        else:
            self._send(store, pull, "", _TAR, storage.archive(found, buffer), length=None)

    def _send(
        self,
        store: Address,
        pull: Pull,
        query: str,
        kind: str,
        pieces: Iterable[bytes | memoryview],
        *,
        length: int | None,
    ) -> None:
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        with self._link.connect(store) as connection:
            waiting = select.poll()
            waiting.register(connection, select.POLLIN)
            connection.sendall(
                self._link.head("PUT", f"{self._base}/{pull.id}{query}", {"Content-Type": kind, **framing})
            )
            for piece in pieces:
                if waiting.poll(0):
                    # Answered before the end: whoever asked has gone.
                    return
                if length is None and piece:
                    connection.sendall(b"%x\r\n" % len(piece))
                    connection.sendall(piece)
                    connection.sendall(b"\r\n")
                elif piece:
                    connection.sendall(piece)
            if length is None:
                connection.sendall(b"0\r\n\r\n")
            Reader(connection).response(seconds=_RESPONSE_SECONDS)
