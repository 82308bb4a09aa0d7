from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading

import pytest

from gpux.agent.api import FileApi, TargetGoneError
from gpux.agent.http1 import Reader, Response
from gpux.splice import Pipe, SpliceUnsupportedError

CONTENT = os.urandom(3_000_001)


@contextlib.contextmanager
def pair():
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(5)
        there.settimeout(5)
        yield here, there


def send(connection, *pieces):
    def run():
        with contextlib.suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def receive(connection):
    digest = hashlib.sha1()
    while piece := connection.recv(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


@pytest.fixture(params=["spliced", "unsupported", "copied"])
def api(request, monkeypatch):
    made = FileApi(link=None)  # type: ignore[arg-type]
    if request.param == "copied":
        made._splices = False
    if request.param == "unsupported":

        def refuse(pipe, source, limit):
            raise SpliceUnsupportedError

        monkeypatch.setattr(Pipe, "fill", refuse)
    return made


def body_of(connection, length):
    return Reader(connection).response_body(Response(200, {"content-length": str(length)}), method="GET")


def test_every_byte_arrives_in_order(api):
    with pair() as (source, sender), pair() as (target, receiver):
        sending = send(
            sender, b"HTTP/1.1 200 OK\r\nContent-Length: 3000001\r\n\r\n" + CONTENT[:100], CONTENT[100:]
        )
        reader = Reader(source)
        body = reader.response_body(reader.response(seconds=5), method="GET")

        def copy():
            api._copy(body, target)
            target.shutdown(socket.SHUT_WR)

        copying = threading.Thread(target=copy)
        copying.start()
        assert receive(receiver) == hashlib.sha1(CONTENT).hexdigest()
        copying.join()
        sending.join()
        assert body.ended


def test_a_source_that_breaks_off(api):
    with pair() as (source, sender), pair() as (target, receiver):
        threads = [send(sender, CONTENT[:1_000_000]), threading.Thread(target=receive, args=(receiver,))]
        threads[1].start()
        with pytest.raises(ConnectionResetError):
            api._copy(body_of(source, 2_000_000), target)
        target.shutdown(socket.SHUT_WR)
        for thread in threads:
            thread.join()


def test_a_target_that_goes_away():
    with pair() as (source, sender), pair() as (target, receiver):
        sending = send(sender, CONTENT)
        receiver.close()
        with pytest.raises(TargetGoneError):
            FileApi(link=None)._spliced(body_of(source, len(CONTENT)), target)  # type: ignore[arg-type]
        source.close()
        sending.join()


def test_a_source_that_stalls():
    with pair() as (source, _), Pipe() as pipe:
        source.settimeout(0.05)
        with pytest.raises(TimeoutError):
            pipe.fill(source, 10)
