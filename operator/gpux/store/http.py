"""What every handler of the store needs: errors with honest codes, bounded bodies, and the rules of ranges."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web

#: A peer that sends nothing for so long, in the middle of something, has gone.
IDLE_SECONDS = 60.0

_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,19})-(?P<last>[0-9]{0,19})")


class HttpError(Exception):
    """An answer that isn't a success. The message goes to the client."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


def reply(document: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON."""
    body = json.dumps(document).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


async def body_chunks(
    request: web.BaseRequest, *, limit: int, silence: float | None = None
) -> AsyncIterator[bytes]:
    """Yield a request's body as it comes. Raises HttpError for one that is too large, stalls or breaks off.

    When nothing has come for ``silence`` seconds, an empty chunk says so.
    """
    # Somebody who asks first is told now, when everything but the body has been checked.
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    size = 0
    while True:
        chunk = await _next(request, IDLE_SECONDS if silence is None else silence)
        if chunk is None and silence is not None:
            yield b""
            chunk = await _next(request, IDLE_SECONDS)
        if chunk is None:
            raise HttpError(408, "the body stalled")
        if not chunk:
            return
        size += len(chunk)
        if size > limit:
            raise HttpError(413, f"the body is larger than {limit} bytes")
        yield chunk


async def _next(request: web.BaseRequest, seconds: float) -> bytes | None:
    """Read what has come of a body: nothing at its end, None if nothing comes for so long."""
    try:
        async with asyncio.timeout(seconds):
            return await request.content.readany()
    except TimeoutError:
        return None
    except (web.RequestPayloadError, ConnectionError):
        raise HttpError(400, "the body ended early") from None


def check_length(request: web.BaseRequest, *, limit: int) -> None:
    """Refuse a body that is announced as too large before any of it is read."""
    if (request.content_length or 0) > limit:
        raise HttpError(413, f"the body is larger than {limit} bytes")


async def read_object(request: web.BaseRequest, *, limit: int) -> dict[str, Any]:
    """Read a JSON object."""
    check_length(request, limit=limit)
    raw = b"".join([chunk async for chunk in body_chunks(request, limit=limit)])
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise HttpError(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise HttpError(400, "the body is not a JSON object")
    return document


def byte_range(request: web.BaseRequest, *, size: int, etag: str) -> tuple[int, int] | None:
    """Read the one range that a request asks for as (start, end), None for everything.

    What can't be understood is ignored, as RFC 9110 has it; what lies outside raises HttpError 416.
    """
    found = _RANGE.fullmatch(request.headers.get("Range", "").replace(" ", ""))
    if not found or request.method != "GET" or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = found["first"], found["last"]
    if not first and not last:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    if start >= end:
        raise HttpError(416, "the range lies outside the file", headers={"Content-Range": f"bytes */{size}"})
    return start, end


def has_etag(header: str, etag: str) -> bool:
    """Whether an If-None-Match names the tag."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or "*" in tags
