"""Large files go on where they broke off; what the store is asked, and what is remembered."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opengpu_operator.cli import sending
from opengpu_operator.cli.outside import Access, Outside, RefusedError, Unreachable
from opengpu_operator.cli.progress import Progress

LENGTH = 100_000
CONTENT = os.urandom(LENGTH)
SHA1 = hashlib.sha1(CONTENT).hexdigest()


class Store:
    """A store of one upload at a time, that can be told to answer otherwise."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.plain: list[bytes] = []
        self.script: dict[str, list[int]] = {}
        """What the next requests of a kind are answered; 0: nothing, after half of the body was taken."""
        self.url = ""

    def answer(self, method: str, path: str, body: bytes, offset: int) -> tuple[int, object]:
        kind = f"{method} {path.rpartition('/')[2] if path.endswith(('done', 'uploads', 'file')) else 'one'}"
        self.asked.append(kind)
        _, _, _, name, *_ = [*path.split("/"), "", ""]
        planned = self.script.get(kind)
        status = planned.pop(0) if planned else 200
        if kind == "PATCH one" and status == 0:
            self.uploads[name] += body[: len(body) // 2]
        if status != 200:
            if status == 404:
                self.uploads.pop(name, None)
            return status, {"error": f"HTTP {status}"}
        if kind == "POST upload_file":
            self.plain.append(body)
            return 201, {"sha1": hashlib.sha1(body).hexdigest()}
        if kind == "POST uploads":
            name = f"{len(self.asked):032x}"
            self.uploads[name] = b""
        elif name not in self.uploads:
            return 404, {"error": "no such upload"}
        elif kind == "POST done":
            return 201, {"sha1": hashlib.sha1(self.uploads[name]).hexdigest()}
        elif kind == "PATCH one":
            if offset != len(self.uploads[name]):
                return 409, {"error": "elsewhere"}
            self.uploads[name] += body
        return 200, {"id": name, "offset": len(self.uploads[name])}


@contextmanager
def serving(store: Store) -> Iterator[Store]:
    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            offset = int(self.headers.get("Upload-Offset", "-1"))
            status, document = store.answer(self.command, self.path, body, offset)
            if status:
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _any  # noqa: N815 http.server's names

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        store.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield store
        finally:
            server.shutdown()


@pytest.fixture
def store():
    with serving(Store()) as made:
        yield made


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Large is what is small elsewhere, and no pause is long."""
    monkeypatch.setattr(sending, "_LARGE", 1000)
    monkeypatch.setattr(sending, "_PIECE", 30_000)
    monkeypatch.setattr(sending, "_PAUSES", (0.0,) * 3)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def send(store, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)

    def sent(*, task="t", progress=None):
        outside = Outside(Access(store.url, "token", task))
        with path.open("rb") as file:
            progress = progress or Progress("a", LENGTH, stream=io.StringIO())
            return sending.send(outside, file, sha1=SHA1, length=LENGTH, progress=progress)

    return sent


@pytest.fixture
def notes(tmp_path):
    return lambda: sorted(
        path.read_text() for path in (tmp_path / "state").rglob("uploads/*") if path.is_file()
    )


def test_it_goes_in_pieces(store, send, notes):
    assert send() == {"sha1": SHA1}
    assert store.asked == ["POST uploads", "GET one", *["PATCH one"] * 4, "POST done"]
    assert notes() == []


@pytest.mark.parametrize("trouble", [0, 400, 408, 409, 429, 502, 503, 504])
@pytest.mark.parametrize("kind", ["PATCH one", "GET one", "POST done"])
def test_what_breaks_off_goes_on(store, send, notes, trouble, kind):
    store.script = {kind: [trouble, trouble]}
    assert send() == {"sha1": SHA1}
    assert store.asked.count("POST uploads") == 1
    assert store.plain == notes() == []


def test_progress_is_a_reason_to_go_on_trying(store, send):
    store.script = {"PATCH one": [0] * 6}
    assert send() == {"sha1": SHA1}


def test_what_a_store_forgot_begins_anew(store, send, notes):
    store.script = {"PATCH one": [200, 404]}
    assert send() == {"sha1": SHA1}
    assert store.asked.count("POST uploads") == 2
    assert store.plain == notes() == []


def test_what_stores_always_forget_goes_plainly(store, send, notes):
    store.script = {"PATCH one": [200, 404] * 5}
    assert send() == {"sha1": SHA1}
    assert store.asked.count("POST uploads") == 3
    assert store.plain == [CONTENT]
    assert notes() == []


@pytest.mark.parametrize("status", [404, 405, 429])
def test_a_store_without_such_uploads_is_sent_it_plainly(store, send, notes, status):
    store.script = {"POST uploads": [status]}
    assert send() == {"sha1": SHA1}
    assert (store.asked, store.plain) == (["POST uploads", "POST upload_file"], [CONTENT])
    assert notes() == []


def test_what_is_small_goes_plainly(store, send, monkeypatch):
    monkeypatch.setattr(sending, "_LARGE", LENGTH + 1)
    assert send() == {"sha1": SHA1}
    assert store.asked == ["POST upload_file"]


def test_the_next_command_goes_on(store, send, notes):
    store.script = {"PATCH one": [200, *[503] * 4]}
    with pytest.raises(Unreachable, match="goes on from there"):
        send()
    assert notes() == list(store.uploads)
    asked = len(store.asked)
    assert send() == {"sha1": SHA1}
    assert store.asked[asked:] == ["GET one", *["PATCH one"] * 3, "POST done"]
    assert notes() == []


def test_another_task_has_uploads_of_its_own(store, send, notes):
    store.script = {"PATCH one": [200, *[503] * 4]}
    with pytest.raises(Unreachable):
        send()
    assert send(task="other") == {"sha1": SHA1}
    assert len(store.uploads) == 2
    assert len(notes()) == 1


def test_an_ended_token_loses_nothing(store, send, notes):
    store.script = {"PATCH one": [200, 401]}
    with pytest.raises(RefusedError):
        send()
    assert len(notes()) == 1


@pytest.mark.parametrize("status", [403, 413, 507])
def test_what_is_refused_is_not_tried_again(store, send, notes, status):
    store.script = {"PATCH one": [status]}
    with pytest.raises(RefusedError) as refused:
        send()
    assert refused.value.status == status
    assert store.asked == ["POST uploads", "GET one", "PATCH one"]
    assert notes() == []


def test_two_commands_never_share_an_upload(store, send, notes):
    outside = Outside(Access(store.url, "token", "t"))
    with sending._remembered(outside, SHA1) as note:
        note.write("0" * 32)
        assert send() == {"sha1": SHA1}
        assert store.asked[0] == "POST uploads"
        assert notes() == ["0" * 32]


@pytest.mark.parametrize("damaged", ["", "x", "../../etc", "0" * 31, "0" * 33, "\0" * 32])
def test_a_damaged_note_is_none(store, send, notes, tmp_path, damaged):
    store.script = {"PATCH one": [503] * 4}
    with pytest.raises(Unreachable):
        send()
    (note,) = (tmp_path / "state" / "opengpu" / "uploads").iterdir()
    note.write_text(damaged)
    assert send() == {"sha1": SHA1}
    assert store.asked.count("POST uploads") == 2
    assert notes() == []


def test_without_a_home_it_is_sent_all_the_same(store, send, tmp_path):
    (tmp_path / "state").write_text("no folder")
    store.script = {"PATCH one": [503]}
    assert send() == {"sha1": SHA1}


def test_old_notes_go(store, send, notes, tmp_path):
    folder = tmp_path / "state" / "opengpu" / "uploads"
    folder.mkdir(parents=True)
    for name, age in (("old", 8), ("new", 1)):
        (folder / name).write_text(name)
        os.utime(folder / name, times=(seconds := (folder / name).stat().st_mtime - age * 86_400, seconds))
    send()
    assert notes() == ["new"]


def test_a_store_that_never_answered_is_not_waited_for(monkeypatch, send, store):
    monkeypatch.setattr(store, "url", "http://127.0.0.1:1")
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(Unreachable):
        send()


def test_what_is_no_store_is_said(store, send, monkeypatch):
    monkeypatch.setattr(store, "answer", lambda *_: (200, {"id": "../x", "offset": None}))
    with pytest.raises(RefusedError, match="isn't a store's"):
        send()


def test_a_file_that_became_shorter_is_said(store, send, tmp_path, monkeypatch):
    answer = store.answer

    def truncating(*request):
        if request[0] == "GET":
            os.truncate(tmp_path / "a.bin", 10)
        return answer(*request)

    monkeypatch.setattr(store, "answer", truncating)
    with pytest.raises(RefusedError, match="became shorter"):
        send()


def test_a_terminal_shows_where_it_goes_on(store, send):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    store.script = {"PATCH one": [200, 503]}
    with Progress("a", LENGTH, stream=shown) as progress:
        send(progress=progress)
    lines = shown.getvalue().split("\r")
    (broken,) = [number for number, line in enumerate(lines) if "broke off, again in 0 s" in line]
    assert "of 97.7 KiB" in lines[broken]
    assert "100%  97.7 KiB of 97.7 KiB" in lines[-1]
