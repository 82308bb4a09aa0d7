"""Contents that the kernel moves: from a real server, and from one that says what it is told to."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import threading

import pytest

from gpux.errors import UnavailableError
from gpux.s3 import bucket as buckets
from gpux.s3.blobs import _S3Content
from gpux.s3.bucket import Bucket, crc32
from gpux.splice import Pipe, SpliceUnsupportedError
from tests.support.s3 import s3_server

MIB = 1 << 20
SIZE = 9 * MIB + 1
CONTENT = os.urandom(SIZE)


def put(bucket, content=CONTENT):
    bucket.put_file("data/x", io.BytesIO(content), size=len(content), crc32=crc32(content))
    return _S3Content(bucket, "data/x")


def receive(content, start=0, end=SIZE):
    """What arrives, and how much of it came through the pipe."""
    arrived = bytearray()
    spliced = take(content, arrived, start, end)
    return bytes(arrived), spliced


def take(content, arrived, start=0, end=SIZE):
    """As `receive`, into what is there also if it raises."""
    spliced = 0
    with Pipe() as pipe:
        for piece in content.stream(start, end, pipe):
            spliced += pipe.held if piece is None else 0
            arrived += pipe.rest() if piece is None else piece
    return spliced


@pytest.mark.parametrize(("start", "end"), [(0, SIZE), (7, 6_000_000), (SIZE - MIB, SIZE)])
def test_every_byte_arrives_in_order(bucket, start, end):
    arrived, spliced = receive(put(bucket), start, end)
    assert arrived == CONTENT[start:end]
    assert end - start - io.DEFAULT_BUFFER_SIZE <= spliced < end - start


def test_what_is_small_is_read_and_its_connection_used_again(bucket):
    content = put(bucket)
    with bucket.open("data/x", start=0, end=1) as response:
        response.read()
    pool = bucket._pool.connection_from_url(bucket._options.endpoint)
    before = pool.num_connections
    for end in (1, 1000, 250_000):
        assert receive(content, 0, end) == (CONTENT[:end], 0)
    assert list(content.stream(5, 5, Pipe())) == []
    assert pool.num_connections == before


def test_where_the_kernel_cannot_it_is_read(bucket, monkeypatch):
    def refuse(pipe, source, limit):
        raise SpliceUnsupportedError

    monkeypatch.setattr(Pipe, "fill", refuse)
    assert receive(put(bucket)) == (CONTENT, 0)


def test_what_is_encrypted_is_read(tmp_path):
    with s3_server(tmp_path / "server", tls=True) as server:
        options = server.options()._replace(ca=server.certificate)
        with server.bucket(options) as bucket:
            assert receive(put(bucket)) == (CONTENT, 0)


class Gateway:
    """Answers each request for bytes with as many as it is told to, one connection after the other."""

    def __init__(self, *counts, stall=False):
        self.asked: list[tuple[int, int]] = []
        """Start and end of each request."""
        self.connections = 0
        self._counts = list(counts)
        self._stall = stall
        self._stalled: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for connection in (self._listener, *self._stalled):
            connection.close()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(ConnectionError):
                    self._serve(connection)

    def _serve(self, connection):
        for _ in iter(lambda: self._request(connection), None):
            start, end = self.asked[-1]
            if not self._counts:
                return
            count = min(self._counts.pop(0), end - start)
            head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {end - start}\r\n\r\n".encode()
            # The first bytes with the headers, as servers send them.
            connection.sendall(head + CONTENT[start : start + min(count, 100)])
            connection.sendall(CONTENT[start + min(count, 100) : start + count])
            if count < end - start:
                if self._stall:
                    self._stalled.append(connection.dup())
                return

    def _request(self, connection):
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := connection.recv(65536)):
                return None
            head += more
        found = re.search(rb"bytes=(\d+)-(\d+)", head)
        assert found
        start, end = found.groups()
        self.asked.append((int(start), int(end) + 1))
        return head

    @contextlib.contextmanager
    def content(self, server):
        options = server.options()._replace(endpoint=f"http://127.0.0.1:{self.port}")
        bucket = Bucket(options, sleep=lambda _: None)
        try:
            yield _S3Content(bucket, "data/x")
        finally:
            bucket.close()


@pytest.mark.parametrize("count", [0, 50, 100, 3 * MIB, SIZE - 1])
def test_what_breaks_off_goes_on_where_it_broke_off(server, count):
    with Gateway(count, SIZE) as gateway, gateway.content(server) as content:
        assert receive(content)[0] == CONTENT
        assert gateway.asked == [(0, SIZE), (count, SIZE)]


def test_what_breaks_off_for_good_is_an_error_and_no_end(server):
    arrived = bytearray()
    with (
        Gateway(3 * MIB) as gateway,
        gateway.content(server) as content,
        pytest.raises(UnavailableError),
    ):
        take(content, arrived)
    assert arrived == CONTENT[: 3 * MIB]


def test_a_server_that_stalls_is_left(server, monkeypatch):
    monkeypatch.setattr(buckets, "_READ_SECONDS", 1.0)
    with Gateway(MIB, stall=True) as gateway, gateway.content(server) as content:
        with pytest.raises(UnavailableError):
            receive(content)
        assert gateway.asked[:2] == [(0, SIZE), (MIB, SIZE)]


@pytest.mark.parametrize("whole", [True, False])
def test_a_connection_whose_bytes_were_taken_is_not_used_again(server, whole):
    with Gateway(*[SIZE] * 2) as gateway, gateway.content(server) as content:
        with Pipe() as pipe:
            pieces = content.stream(0, SIZE, pipe)
            for piece in pieces:
                assert piece or pipe.rest()
                if piece is None and not whole:
                    break
            pieces.close()
        assert b"".join(content.read(0, 10)) == CONTENT[:10]
        assert gateway.connections == 2
