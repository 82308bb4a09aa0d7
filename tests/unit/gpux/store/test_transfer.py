"""The thread that sends what has to be read first."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from gpux.splice import Pipe
from gpux.store import transfer
from gpux.store.transfer import _pump

CONTENT = os.urandom(3_000_001)


@pytest.fixture
def sockets():
    """Where the bytes come from with who sends them, and where they go with who reads them."""
    source, sender = socket.socketpair()
    target, reader = socket.socketpair()
    with source, sender, target, reader:
        source.settimeout(30)
        target.setblocking(False)
        reader.settimeout(30)
        yield source, sender, target, reader


def pieces(source, pipe):
    """As a backend's: the first bytes were read already."""
    yield source.recv(1000, socket.MSG_WAITALL)
    left = len(CONTENT) - 1000
    while left:
        left -= pipe.fill(source, left)
        yield None


def pumped(source, target):
    """Send all, as who waits for a slow reader does; the turns that it took."""
    pipe = Pipe()
    coming = pieces(source, pipe)
    total = 0
    while total < len(CONTENT):
        count, rest = _pump(coming, target, pipe)
        assert count
        assert target.gettimeout() == 0
        total += count
        yield count, len(rest)
        target.setblocking(True)
        target.sendall(rest)
        target.setblocking(False)


def sending(sender):
    def send():
        with contextlib.suppress(BrokenPipeError):
            sender.sendall(CONTENT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def reading(reader, arrived):
    def read():
        while len(arrived) < len(CONTENT):
            arrived.extend(reader.recv(1 << 16))

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_every_byte_is_sent_in_order(sockets):
    source, sender, target, reader = sockets
    arrived = bytearray()
    threads = [sending(sender), reading(reader, arrived)]
    assert sum(count for count, _ in pumped(source, target)) == len(CONTENT)
    for thread in threads:
        thread.join()
    assert arrived == CONTENT


def test_a_reader_who_waits_is_waited_for_without_the_thread(sockets):
    source, sender, target, reader = sockets
    arrived = bytearray()
    threads = [sending(sender)]
    turns = pumped(source, target)
    # It comes back although nobody reads, with what is in the pipe.
    count, rest = next(turns)
    assert 0 < rest < count < len(CONTENT)
    threads.append(reading(reader, arrived))
    assert count + sum(more for more, _ in turns) == len(CONTENT)
    for thread in threads:
        thread.join()
    assert arrived == CONTENT


def test_a_thread_is_given_back_after_its_turn(sockets, monkeypatch):
    monkeypatch.setattr(transfer, "_TURN_SECONDS", 0.0)
    source, sender, target, reader = sockets
    arrived = bytearray()
    threads = [sending(sender), reading(reader, arrived)]
    turns = list(pumped(source, target))
    assert len(turns) > 2
    assert turns[0] == (1000, 0)
    for thread in threads:
        thread.join()
    assert arrived == CONTENT


def test_a_reader_who_has_gone(sockets):
    source, sender, target, reader = sockets
    thread = sending(sender)
    reader.close()
    with pytest.raises(ConnectionError):
        list(pumped(source, target))
    source.close()
    thread.join()
