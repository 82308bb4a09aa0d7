"""What every handler of the store needs: errors with honest codes, bounded bodies, and the rules of ranges."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from aiohttp import web

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


def check_length(request: web.BaseRequest, *, limit: int) -> None:
    """Refuse a body that is announced as too large before any of it is read."""
    if (request.content_length or 0) > limit:
        raise HttpError(413, f"the body is larger than {limit} bytes")


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
