"""Small files from memory, past the HTTP library: a request that differs in nothing from what was answered before.

A parsed request costs ten times what sending four kilobytes does, and a job that reads many small files sends the same
header lines with each. Nothing is parsed here that could be parsed otherwise elsewhere. What the ordinary path has
answered teaches two things: these header lines, byte for byte, are a plain request of somebody in this namespace; and
this path in this namespace is this content. A request made of both would be answered so again. What can change since
is looked at each time: the key, the token's end, and whether the entry and the content are still there.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import NamedTuple

from aiohttp import web

from gpux import hashes, tokens
from gpux.store.http import HttpError
from gpux.store.metrics import Metrics
from gpux.store.routes import HASH
from gpux.store.server import bearer

_LARGEST = 16 * 1024
_CONTENTS = 8 << 20
_OVERHEAD = 1024
"""What a content takes in memory beside itself, rounded up."""
_SENDERS = 512
_LONGEST_HEAD = 2048
_AGAIN_SECONDS = 3600.0
"""After this the ordinary path answers once, which notes that the file is used."""

_LINE = re.compile(rf"GET /v1/files/{HASH} HTTP/1\.1".encode())
_PLAIN = frozenset({"accept", "accept-encoding", "accept-language", "authorization", "host", "user-agent"})
"""Headers that, whatever they say, change nothing in how a file is sent, other than by whom it is asked for."""


class _Sender(NamedTuple):
    """Who sends some header lines."""

    namespace: str
    exp: int


class _File(NamedTuple):
    """An answer, but for its date."""

    size: int
    there: Callable[[], bool]
    before: bytes
    after: bytes
    until: float


class Lane:
    """Remembers answers, and gives them again. For one loop."""

    def __init__(
        self,
        watch: Callable[[str, hashes.FileHash], tuple[str, Callable[[], bool]] | None],
        *,
        key: Callable[[], bytes],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``watch`` is `FileBlobs.watch`.

        ``key`` is asked anew for each request, too: it may be replaced.
        """
        self._watch = watch
        self._ask_key = key
        self._clock = clock
        self._key = b""
        # Both in the order in which they were learned; the oldest make room.
        self._senders: dict[bytes, _Sender] = {}
        self._files: dict[tuple[str, bytes], _File] = {}
        self._size = 0
        self._date = 0, b""
        self._requests = metrics.requests.labels("file", "GET", "200")
        self._seconds = metrics.seconds.labels("file", "GET")
        self._sent = metrics.sent

    def answer(self, head: bytes) -> bytes | None:
        """Give the whole answer to a request; None if that is for the ordinary path to find."""
        if len(head) > _LONGEST_HEAD:
            return None
        line, _, lines = head.partition(b"\r\n")
        sender = self._senders.get(lines)
        if sender is None:
            return None
        started = time.monotonic()
        now = self._clock()
        place = sender.namespace, line
        file = self._files.get(place)
        try:
            if file is None or sender.exp <= now or self._ask_key() != self._key:
                return None
            if file.until <= now or not file.there():
                self._forget(place)
                return None
        except (OSError, ValueError):
            # The ordinary path meets the same, and says so.
            return None
        answer = b"".join((file.before, self._dated(int(now)), file.after))
        self._requests.inc()
        self._sent.inc(file.size)
        self._seconds.observe(time.monotonic() - started)
        return answer

    def learn(self, head: bytes, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Look at an answer of the ordinary path to a request that was sent as these bytes and nothing else."""
        line, _, lines = head.partition(b"\r\n")
        found = _LINE.fullmatch(line)
        if found is None or not isinstance(response, web.Response) or response.status != 200:
            return
        body = response.body
        if (
            len(head) > _LONGEST_HEAD
            or not isinstance(body, bytes)
            or len(body) > _LARGEST
            or not response.keep_alive
            or not _PLAIN.issuperset(map(str.lower, request.headers))
        ):
            return
        try:
            key = self._ask_key()
            claims = bearer(lambda: key)(request)
            watched = self._watch(claims.namespace, hashes.parse(found["hash"].decode()))
        except (HttpError, OSError, ValueError):
            return
        # What has rotted may be found out and stored anew, and mustn't outlive that here.
        if watched is None or hashlib.sha256(body).hexdigest() != watched[0]:
            return
        if key != self._key:
            self._senders.clear()
            self._key = key
        self._remember(lines, claims)
        place = claims.namespace, line
        self._forget(place)
        self._files[place] = _written(response, body, there=watched[1], until=self._clock() + _AGAIN_SECONDS)
        self._size += len(body) + _OVERHEAD
        while self._size > _CONTENTS:
            self._forget(next(iter(self._files)))

    def _remember(self, lines: bytes, claims: tokens.Claims) -> None:
        self._senders.pop(lines, None)
        self._senders[lines] = _Sender(claims.namespace, claims.exp)
        if len(self._senders) > _SENDERS:
            del self._senders[next(iter(self._senders))]

    def _forget(self, place: tuple[str, bytes]) -> None:
        file = self._files.pop(place, None)
        if file is not None:
            self._size -= file.size + _OVERHEAD

    def _dated(self, second: int) -> bytes:
        if second != self._date[0]:
            self._date = second, formatdate(second, usegmt=True).encode()
        return self._date[1]


def _written(response: web.Response, body: bytes, *, there: Callable[[], bool], until: float) -> _File:
    """Write an answer down as it was sent."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    before, date, after = f"HTTP/1.1 200 OK\r\n{lines}\r\n".partition("\r\nDate: ")
    return _File(
        size=len(body),
        there=there,
        before=f"{before}{date}".encode(),
        after=after[after.index("\r\n") :].encode() + body,
        until=until,
    )
