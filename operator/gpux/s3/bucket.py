"""The requests to S3 that the store is made of, over urllib3: objects whole or in parts, conditions, listings.

Whatever comes back is one of four things: done, not there (None), `ChangedError` for a condition that doesn't hold, or
`UnavailableError`. A request that may have been carried out without our learning of it is sent again, and so are all
that the service asks to repeat; conditions are looked at once more then, since the one that changed the object may
have been ourselves.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import urllib3

from gpux.errors import UnavailableError
from gpux.s3.signing import UNSIGNED, Scope, encode_path, encode_query, load_credentials, sign

_TRIES = 4
_PAUSE_SECONDS = 0.2
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_LARGEST_DOCUMENT = 16 << 20
_BLOCK = 1 << 18
_CONNECTIONS = 64
_PREFIX = re.compile(r"(?:[A-Za-z0-9._-]+/)*")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class ChangedError(Exception):
    """The object isn't as the condition of the request has it."""


class Options(NamedTuple):
    """Where the bucket is, and how to get in."""

    endpoint: str
    """For instance https://s3.eu-central-1.amazonaws.com."""
    bucket: str
    prefix: str
    """Before all keys: empty, or ending in a slash."""
    region: str
    credentials: Path
    """A directory that `load_credentials` reads, anew for each request, so that they may be replaced."""
    path_style: bool = True
    """Whether the bucket is the first part of the path rather than of the host's name."""
    ca: Path | None = None
    """Certificates to trust instead of the system's."""


def parse_location(text: str) -> tuple[str, str]:
    """Read ``s3://BUCKET[/PREFIX]`` into bucket and prefix. Raises ValueError, which says what would be right."""
    scheme, _, rest = text.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{text!r} names no bucket: expected s3://BUCKET or s3://BUCKET/PREFIX")
    prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"the prefix in {text!r} may have letters, digits and ._- between its slashes")
    return bucket, prefix


class Found(NamedTuple):
    """A small object."""

    body: bytes
    etag: str


class Listed(NamedTuple):
    """An object as a listing shows it; `key` is without the bucket's prefix."""

    key: str
    etag: str
    size: int
    modified: float


class Part(NamedTuple):
    """A part of a large object that the service has."""

    number: int
    etag: str


class Abandoned(NamedTuple):
    """An upload in parts that hasn't ended; `key` is without the bucket's prefix."""

    key: str
    upload: str
    started: float


class Bucket:
    """One bucket, or what is below a prefix in it. All methods block, raise UnavailableError, and are thread-safe."""

    def __init__(self, options: Options, *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Nothing is connected yet."""
        parts = urlsplit(options.endpoint)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/"):
            raise ValueError(
                f"the endpoint {options.endpoint!r} is not http://HOST[:PORT] or https://HOST[:PORT]"
            )
        self._options = options
        self._sleep = sleep
        self._host = parts.netloc if options.path_style else f"{options.bucket}.{parts.netloc}"
        self._base = f"{parts.scheme}://{self._host}"
        self._root = f"/{options.bucket}/" if options.path_style else "/"
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            retries=False,
            blocksize=_BLOCK,
            ca_certs=None if options.ca is None else str(options.ca),
        )
        self.removes = False
        """Whether the service can remove an object on a condition; see `check`."""

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    # ------------------------------------------------------------------------------------------------ small objects

    def get(self, key: str) -> Found | None:
        """Read a small object."""
        with self._ask("GET", key, missing=True) as response:
            if response.status == 404:
                return None
            return Found(_document(response), response.headers["ETag"])

    def put(self, key: str, body: bytes, *, match: str | None = None, absent: bool = False) -> str:
        """Write a small object; its ETag. Only over the object with the ETag `match`, or only where there is none.

        Raises ChangedError.
        """
        headers = {
            "Content-MD5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        }
        if match is not None:
            headers["If-Match"] = match
        if absent:
            headers["If-None-Match"] = "*"
        conditional = match is not None or absent
        with self._ask("PUT", key, headers=headers, body=body, missing=match is not None) as response:
            if response.status not in {404, 412}:
                return response.headers["ETag"]
        # A former try may have done it without our learning of it; whoever wrote the same, it is written.
        found = self.get(key) if conditional else None
        if found is None or found.body != body:
            raise ChangedError(key)
        return found.etag

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with self._ask("DELETE", key, missing=True):
            pass

    def remove(self, key: str, *, match: str) -> bool:
        """Remove the object, unless it has another ETag; False if it stays, as where the service can't tell."""
        if not self.removes:
            return False
        with self._ask("DELETE", key, headers={"If-Match": match}, missing=True) as response:
            return response.status != 412

    def listing(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield all objects below a prefix in the order of their keys; only those above the key `after`, if given."""
        query = {"list-type": "2", "prefix": self._options.prefix + prefix}
        if after:
            query["start-after"] = self._options.prefix + after
        for page in self._pages(query):
            for item in page.iterfind("{*}Contents"):
                yield Listed(
                    _text(item, "Key").removeprefix(self._options.prefix),
                    _text(item, "ETag"),
                    int(_text(item, "Size")),
                    _time(_text(item, "LastModified")),
                )

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield what stands between a prefix that ends in a slash and the next slash."""
        whole = self._options.prefix + prefix
        for page in self._pages({"list-type": "2", "prefix": whole, "delimiter": "/"}):
            for item in page.iterfind("{*}CommonPrefixes"):
                yield _text(item, "Prefix").removeprefix(whole).rstrip("/")

    def _pages(self, query: dict[str, str]) -> Iterator[ET.Element]:
        while True:
            page = self._query("GET", "", query)
            yield page
            if _text(page, "IsTruncated", "false") != "true":
                return
            query = {**query, "continuation-token": _text(page, "NextContinuationToken")}

    # ------------------------------------------------------------------------------------------------ large objects

    def size(self, key: str) -> int | None:
        """How large an object is; None if there is none."""
        with self._ask("HEAD", key, missing=True) as response:
            return None if response.status == 404 else int(response.headers["Content-Length"])

    @contextmanager
    def open(self, key: str, *, start: int, end: int) -> Iterator[urllib3.BaseHTTPResponse | None]:
        """Read the bytes of an object from start to end, which is not among them; None if there is no object."""
        with self._ask("GET", key, headers={"Range": f"bytes={start}-{end - 1}"}, missing=True) as response:
            yield None if response.status == 404 else response

    def put_file(self, key: str, file: BinaryIO, *, size: int, crc32: int) -> None:
        """Write an object from a file's first bytes."""
        with self._ask("PUT", key, headers=_checked(size, crc32), file=file):
            pass

    def begin(self, key: str) -> str:
        """Start an upload in parts; its name."""
        return _text(self._query("POST", key, {"uploads": ""}), "UploadId")

    def put_part(self, key: str, upload: str, *, number: int, file: BinaryIO, size: int, crc32: int) -> Part:
        """Write a part from a file's first bytes."""
        query = {"partNumber": str(number), "uploadId": upload}
        with self._ask("PUT", key, query=query, headers=_checked(size, crc32), file=file) as response:
            return Part(number, response.headers["ETag"])

    def complete(self, key: str, upload: str, parts: list[Part]) -> None:
        """End an upload: its parts become the object."""
        listed = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><ETag>{part.etag}</ETag></Part>" for part in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        with self._ask("POST", key, query={"uploadId": upload}, body=body, missing=True) as response:
            # A service may send 200 at once to keep the connection, and the error after it.
            if response.status != 404 and not _xml(_document(response)).tag.endswith("Error"):
                return
        # A former try may have done it; uploads have keys of their own, so an object there is this one.
        if self.size(key) is None:
            raise UnavailableError("the S3 service didn't complete an upload in parts")

    def abort(self, key: str, upload: str) -> None:
        """Forget an upload in parts."""
        with self._ask("DELETE", key, query={"uploadId": upload}, missing=True):
            pass

    def uploads(self, prefix: str) -> Iterator[Abandoned]:
        """Yield all uploads in parts below a prefix that haven't ended."""
        query = {"uploads": "", "prefix": self._options.prefix + prefix}
        while True:
            page = self._query("GET", "", query)
            for item in page.iterfind("{*}Upload"):
                key = _text(item, "Key").removeprefix(self._options.prefix)
                yield Abandoned(key, _text(item, "UploadId"), _time(_text(item, "Initiated")))
            if _text(page, "IsTruncated", "false") != "true":
                return
            query |= {
                "key-marker": _text(page, "NextKeyMarker"),
                "upload-id-marker": _text(page, "NextUploadIdMarker"),
            }

    # ------------------------------------------------------------------------------------------------ the service

    def check(self) -> None:
        """Make sure that the service keeps conditions: on them hangs that no worker is called twice.

        Raises ValueError for one that ignores them.
        """
        # Of its own, since another store may be doing the same.
        key = f"checks/{secrets.token_hex(8)}"
        first = self.put(key, b"1")
        for name, what, match in (
            (key, "If-None-Match", None),
            (key, "If-Match", '"0"'),
            # Or what was deleted would come back.
            (f"{key}-absent", "If-Match, where there is no object,", '"0"'),
        ):
            try:
                self.put(name, what.encode(), match=match, absent=match is None)
            except ChangedError:
                continue
            self.delete(name)
            raise ValueError(f"the S3 service ignores {what} in PUT: two stores could overwrite each other")
        self.put(key, b"2", match=first)
        self.removes = True
        if self.remove(key, match=first):
            self.removes = False
        self.delete(key)

    # ------------------------------------------------------------------------------------------------ inside

    def _query(self, method: str, key: str, query: Mapping[str, str]) -> ET.Element:
        with self._ask(method, key, query=query) as response:
            return _xml(_document(response))

    @contextmanager
    def _ask(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        file: BinaryIO | None = None,
        missing: bool = False,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request until it has an answer; with `missing`, 404 is one. 412 always is."""
        path = encode_path(self._root + (self._options.prefix + key if key else ""))
        asked = encode_query(query or {})
        failure = ""
        for attempt in range(_TRIES):
            if attempt:
                self._sleep(_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 jitter
            try:
                response = self._send(method, path, asked, headers=headers or {}, body=body, file=file)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                failure = f"the S3 service can't be reached: {error}"
                continue
            try:
                if response.status < 300 or response.status == 412 or (missing and response.status == 404):
                    yield response
                    return
                failure = _refusal(method, response)
                if response.status not in {408, 409, 429} and response.status < 500:
                    break
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise UnavailableError(f"the S3 service broke off: {error}") from error
            finally:
                _end(response)
        raise UnavailableError(failure)

    def _send(
        self,
        method: str,
        path: str,
        query: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        file: BinaryIO | None,
    ) -> urllib3.BaseHTTPResponse:
        if file is not None:
            file.seek(0)
        scope = Scope(load_credentials(self._options.credentials), self._options.region, datetime.now(UTC))
        payload = UNSIGNED if file is not None else hashlib.sha256(body).hexdigest()
        signed = sign(
            method, path, query=query, headers={"Host": self._host, **headers}, payload=payload, scope=scope
        )
        return self._pool.request(
            method,
            f"{self._base}{path}?{query}" if query else f"{self._base}{path}",
            body=file if file is not None else body or None,
            headers=signed,
            preload_content=False,
            decode_content=False,
            redirect=False,
        )


def _checked(size: int, crc32: int) -> dict[str, str]:
    """Headers by which the service checks what it got; one that doesn't know the checksum ignores it."""
    return {
        "Content-Length": str(size),
        "x-amz-checksum-crc32": base64.b64encode(crc32.to_bytes(4, "big")).decode(),
    }


def crc32(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Go on with a checksum as S3 knows it."""
    return zlib.crc32(data, value)


def _document(response: urllib3.BaseHTTPResponse) -> bytes:
    body = response.read(_LARGEST_DOCUMENT + 1)
    if len(body) > _LARGEST_DOCUMENT:
        raise UnavailableError("the S3 service's answer is too large")
    return body


def rest_of(response: urllib3.BaseHTTPResponse) -> socket.socket | None:
    """The socket that the rest of an answer can be taken from past it, if nothing of that is in its buffer.

    None where it isn't worth it, is encrypted, or is in chunks. The connection isn't used again after that, since the
    answer doesn't learn what was taken: it is long enough that `_end` doesn't wait for it.
    """
    if (response.length_remaining or 0) <= _BLOCK:
        return None
    connection = getattr(response.connection, "sock", None)
    return connection if type(connection) is socket.socket else None


def _end(response: urllib3.BaseHTTPResponse) -> None:
    """Give the connection back if the answer was read to its end, else end it."""
    if response.length_remaining == 0:
        response.release_conn()
    else:
        response.drain_conn() if (response.length_remaining or 0) <= _BLOCK else response.close()


def _refusal(method: str, response: urllib3.BaseHTTPResponse) -> str:
    """Say what the service said; keys and signatures are not repeated."""
    body = response.read(_BLOCK)
    try:
        code = ET.fromstring(body).findtext("{*}Code") or ET.fromstring(body).findtext("Code")  # noqa: S314
    except ET.ParseError:
        code = None
    return f"the S3 service answered HTTP {response.status} {code or ''} to {method}".replace("  ", " ")


def _xml(body: bytes) -> ET.Element:
    try:
        return ET.fromstring(body)  # noqa: S314 the service that keeps our data
    except ET.ParseError as error:
        raise UnavailableError(f"the S3 service's answer is no XML: {error}") from error


def _text(element: ET.Element, name: str, default: str | None = None) -> str:
    text = element.findtext(f"{{*}}{name}", default)
    if text is None:
        raise UnavailableError(f"the S3 service's answer has no {name}")
    return text


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
