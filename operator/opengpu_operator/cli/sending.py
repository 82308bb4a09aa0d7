"""Sending a file to the store so that a large one goes on where it broke off, also when the command is run again.

In pieces, since what stands before a store may pass on nothing of a request that it didn't get whole. Which upload
it was is noted in a file of its own per content, which is also the lock on it: two commands never share an upload.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from opengpu_operator.cli import outside
from opengpu_operator.cli.outside import Outside, RefusedError, Unreachable
from opengpu_operator.cli.progress import Progress, size

_LARGE: Final = 8 << 20
_PIECE: Final = 64 << 20
_BLOCK: Final = 1 << 20
#: Seconds before each new try. Together longer than a store waits for the rest of a request that has broken off.
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
#: Answers after which the same may work a little later; 400 and 408 are also what a body that broke off gets.
_AGAIN: Final = frozenset({400, 408, 409, 429, 502, 503, 504})
#: What a store answers that doesn't know such uploads, or has no place for another one.
_PLAINLY: Final = frozenset({404, 405, 429})
_BEGINNINGS: Final = 3
"""A store that has forgotten it so often will again: there are several, and each request comes to another one."""
_STALE_SECONDS: Final = 7 * 86_400.0
_NO_STORE: Final = "the answer isn't a store's: is this the URL of the store?"
_ID: Final = re.compile(r"[0-9a-f]{32}")


def send(store: Outside, file: BinaryIO, *, sha1: str, length: int, progress: Progress) -> dict[str, Any]:
    """Store a file; the store's answer. Raises Unreachable, RefusedError."""
    if length >= _LARGE:
        with _remembered(store, sha1) as note:
            document = _Sending(store, file, length=length, progress=progress, note=note).run()
        if document is not None:
            return document
    progress.at(0)
    file.seek(0)
    headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
    body = _part(file, length, progress)
    with store.ask("POST", "/upload_file", headers=headers, body=body) as response:
        plain: dict[str, Any] = outside.read_document(response)
    return plain


class _Note:
    """The id of an upload, kept in a file if there can be one."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self.id: str | None = None
        if file is not None:
            file.seek(0)
            found = file.read(64).decode("ascii", "replace")
            self.id = found if _ID.fullmatch(found) else None

    def write(self, name: str | None) -> None:
        self.id = name
        if self._file is not None:
            with suppress(OSError):
                self._file.truncate(0)
                self._file.write((name or "").encode())


class _Sending:
    """One file on its way."""

    def __init__(
        self, store: Outside, file: BinaryIO, *, length: int, progress: Progress, note: _Note
    ) -> None:
        self._store = store
        self._file = file
        self._length = length
        self._progress = progress
        self._note = note
        self._reached = 0
        self._tries = 0
        self._begun = 0
        self._answered = False
        """Whether the store has ever answered: an address that is wrong isn't tried again."""

    def run(self) -> dict[str, Any] | None:
        """Send it, however often it breaks off; None where that isn't possible in this way."""
        while True:
            try:
                if self._note.id is None and not self._begin():
                    return None
                self._go_on()
                document: dict[str, Any] = self._store.document("POST", f"{self._path}/done")
            except RefusedError as error:
                self._answered = True
                if error.status == 404:
                    # Forgotten, with all that it had.
                    self._note.write(None)
                    self._reached = 0
                elif error.status in _AGAIN:
                    self._pause(error)
                else:
                    if error.status != 401:
                        # A new token may go on where the old one ended.
                        self._note.write(None)
                    raise
            except Unreachable as error:
                if not self._answered:
                    raise
                self._pause(error)
            else:
                self._note.write(None)
                return document

    @property
    def _path(self) -> str:
        return f"/v1/uploads/{self._note.id}"

    def _begin(self) -> bool:
        if self._begun == _BEGINNINGS:
            return False
        try:
            with self._store.ask(
                "POST", "/v1/uploads", headers={"Upload-Length": str(self._length)}
            ) as response:
                begun = outside.read_document(response)
        except RefusedError as error:
            if error.status in _PLAINLY:
                return False
            raise
        self._begun += 1
        self._answered = True
        match begun:
            case {"id": str(name)} if _ID.fullmatch(name):
                self._note.write(name)
            case _:
                raise RefusedError(0, _NO_STORE)
        return True

    def _go_on(self) -> None:
        """Send what is missing."""
        offset = self._at(self._store.document("GET", self._path))
        while offset < self._length:
            count = min(_PIECE, self._length - offset)
            self._file.seek(offset)
            headers = {
                "Content-Length": str(count),
                "Content-Type": "application/offset+octet-stream",
                "Upload-Offset": str(offset),
            }
            body = _part(self._file, count, self._progress)
            with self._store.ask("PATCH", self._path, headers=headers, body=body) as response:
                offset = self._at(outside.read_document(response))

    def _at(self, state: Any) -> int:
        self._answered = True
        match state:
            case {"offset": int(offset)}:
                pass
            case _:
                raise RefusedError(0, _NO_STORE)
        if offset > self._reached:
            self._reached, self._tries = offset, 0
        self._progress.at(offset)
        return offset

    def _pause(self, error: Exception) -> None:
        if self._tries == len(_PAUSES):
            message = f"the upload broke off after {size(self._reached)} ({error})"
            raise Unreachable(f"{message}: the same command goes on from there, for a while") from error
        seconds = _PAUSES[self._tries]
        self._tries += 1
        self._progress.halt(f"broke off, again in {seconds:g} s")
        time.sleep(seconds)


def _part(file: BinaryIO, count: int, progress: Progress) -> Iterator[bytes]:
    while count:
        piece = file.read(min(_BLOCK, count))
        if not piece:
            raise RefusedError(412, f"{file.name} became shorter while it was sent")
        yield piece
        progress.add(len(piece))
        count -= len(piece)


@contextmanager
def _remembered(store: Outside, sha1: str) -> Iterator[_Note]:
    """Give the note on one content's upload; one that is empty, and stays here, if another command has it."""
    key = hashlib.sha256("\n".join((*store.identity, sha1)).encode()).hexdigest()
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    path = state / "opengpu" / "uploads" / key
    with ExitStack() as stack:
        file = None
        # Without a home, or with the other command, there is no second time.
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _tidy(path.parent)
            opened = stack.enter_context(path.open("a+b", buffering=0))
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file = opened
        note = _Note(file)
        try:
            yield note
        finally:
            if file is not None and note.id is None:
                path.unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Remove notes on what no store remembers any more."""
    oldest = time.time() - _STALE_SECONDS
    for entry in folder.iterdir():
        with suppress(OSError):
            if entry.stat().st_mtime < oldest:
                entry.unlink()
