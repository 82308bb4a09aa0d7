from __future__ import annotations

import contextlib
import socket

import pytest

from gpux.agent.http1 import ProtocolError, Reader


@contextlib.contextmanager
def sent(*pieces):
    """A reader at the end of a connection on which these bytes came, and which is closed then."""
    here, there = socket.socketpair()
    with here, there:
        for piece in pieces:
            there.sendall(piece)
        there.shutdown(socket.SHUT_WR)
        yield Reader(here)


def test_requests_one_after_the_other():
    with sent(
        b"POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"GET http://dontcare/x HTTP/1.1\r\nConnection: close\r\n\r\n",
    ) as reader:
        first = reader.request(seconds=1)
        assert (first.method, first.path, first.keep_alive) == ("POST", "/a/b", True)
        assert reader.request_body(first).read_all(limit=10) == b"abc"
        second = reader.request(seconds=1)
        assert (second.path, second.keep_alive) == ("/x", False)
        assert reader.request(seconds=1) is None


def test_chunked():
    with sent(
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    ) as reader:
        body = reader.request_body(reader.request(seconds=1))
        assert body.length is None
        assert body.read_all(limit=100) == b"abc0123456789"
        assert body.ended
        assert not reader.request(seconds=1).keep_alive


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nContent-Length: ²\r\n\r\n".encode("latin-1"), 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 99 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000, 400),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 20_000, 431),
    ],
)
def test_what_is_not_understood_is_refused(raw, status):
    with sent(raw) as reader, pytest.raises(ProtocolError) as caught:
        reader.request_body(reader.request(seconds=1)).read_all(limit=1000)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HT",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ],
)
def test_what_breaks_off_is_an_error(raw):
    with sent(raw) as reader, pytest.raises(ConnectionError):
        reader.request_body(reader.request(seconds=1)).read_all(limit=1000)


def test_a_head_has_one_deadline():
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(TimeoutError):
            Reader(here).request(seconds=0.05)


def test_a_limit_on_bodies():
    with sent(b"POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\n0123456789A") as reader:
        body = reader.request_body(reader.request(seconds=1))
        with pytest.raises(ProtocolError) as caught:
            body.read_all(limit=10)
        assert caught.value.status == 413


def test_responses():
    with sent(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
        b"HTTP/1.1 404 \r\n\r\nuntil the end"
    ) as reader:
        response = reader.response(seconds=1)
        assert response.status == 202
        assert reader.response_body(response, method="POST").read_all(limit=10) == b"{}"
        response = reader.response(seconds=1)
        assert reader.response_body(response, method="GET").read_all(limit=99) == b"until the end"
        with pytest.raises(ConnectionError):
            reader.response(seconds=1)


def test_a_response_without_a_body():
    with sent(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as reader:
        assert reader.response_body(reader.response(seconds=1), method="GET").ended
        assert reader.response_body(reader.response(seconds=1), method="HEAD").ended


@pytest.mark.parametrize("raw", [b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 099 x\r\n\r\n"])
def test_what_is_no_response(raw):
    with sent(raw) as reader, pytest.raises(ProtocolError):
        reader.response(seconds=1)
