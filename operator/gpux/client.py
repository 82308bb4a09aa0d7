"""The operator's side of the store's API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 30.0
_DOCUMENT_LIMIT = 64 << 20


#: Refusals that say nothing of the request: our token isn't known (the key was just replaced), or it is too much now.
_NOT_NOW = frozenset({401, 403, 408, 429})


class StoreUnavailable(Exception):
    """The store can't be reached, can't serve now or doesn't know our token; the same request may succeed later."""


class StoreRefused(Exception):
    """The store understood and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


class StoreClient:
    """Requests with an operator's token. Every method raises StoreUnavailable and StoreRefused."""

    def __init__(self, url: str, token: Callable[[], str]) -> None:
        """``token`` is asked anew for each request, so that it may expire and be replaced."""
        self._url = url.rstrip("/")
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def put_call(
        self,
        *,
        namespace: str,
        task: str,
        attempt: int,
        function: str,
        address: str,
        data: Any,
        deadline: float | None,
    ) -> bool:
        """Record a call; whether it was new. The same call again changes nothing."""
        body = {
            "namespace": namespace,
            "function": function,
            "address": address,
            "data": data,
            "deadline": deadline,
        }
        status, _ = await self._request(
            "PUT", f"/v1/calls/{_part(task)}/{attempt}", body=json.dumps(body).encode()
        )
        return status == 201

    async def get_call(self, task: str, attempt: int) -> dict[str, Any]:
        """One attempt."""
        return await self._document("GET", f"/v1/calls/{_part(task)}/{attempt}")  # type: ignore[no-any-return]

    async def list_calls(self) -> list[dict[str, Any]]:
        """Every attempt: namespace, task, attempt and state."""
        return await self._document("GET", "/v1/calls")  # type: ignore[no-any-return]

    async def changes(self, *, after: int, epoch: str = "", wait: int = 25) -> dict[str, Any]:
        """What has changed since ``after`` in that epoch; everything there is, if the epoch is another."""
        query = {"after": str(after), "epoch": epoch, "wait": str(wait)}
        return await self._document("GET", "/v1/changes", query=query, wait=wait)  # type: ignore[no-any-return]

    async def list_tasks(self) -> list[dict[str, Any]]:
        """Every task that has calls or holds files: its UID (``task``) and its namespace."""
        return await self._document("GET", "/v1/tasks")  # type: ignore[no-any-return]

    async def delete_task(self, task: str) -> None:
        """Forget a task: its calls, and its hold on files. Nothing to forget is no error."""
        await self._request("DELETE", f"/v1/tasks/{_part(task)}")

    async def put_file(
        self, namespace: str, data: bytes | AsyncIterable[bytes], *, reference: str
    ) -> dict[str, Any]:
        """Store a file for a namespace, as long as ``reference`` isn't dropped; its hashes, size and URL."""
        query = {"namespace": namespace, "reference": reference}
        return await self._document("POST", "/v1/files", query=query, body=data)  # type: ignore[no-any-return]

    async def drop_reference(self, reference: str) -> None:
        """Let go of every file that is stored for a reference. Nothing to let go of is no error."""
        await self._request("DELETE", f"/v1/references/{_part(reference)}")

    async def get_file(self, namespace: str, name: str, *, limit: int) -> bytes:
        """Read a namespace's file of at most ``limit`` bytes; a larger one is refused with 413."""
        query = {"namespace": namespace}
        _, content = await self._request("GET", f"/v1/files/{_part(name)}", query=query, limit=limit)
        return content

    async def _document(self, method: str, path: str, **options: Any) -> Any:
        _, content = await self._request(method, path, **options)
        try:
            return json.loads(content)
        except ValueError as error:
            raise StoreUnavailable(f"the store's answer is not JSON: {error}") from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        wait: float = 0,
        limit: int = _DOCUMENT_LIMIT,
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_SECONDS, sock_read=wait + _IDLE_SECONDS
        )
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=query,
                data=body,
                timeout=timeout,
                allow_redirects=False,
                headers={"Authorization": f"Bearer {self._token()}"},
            ) as response:
                status = response.status
                content = await _read(response, limit if status < 300 else _DOCUMENT_LIMIT)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise StoreUnavailable(
                f"the store can't be reached: {str(error) or type(error).__name__}"
            ) from error
        if status < 300:
            return status, content
        message = _message(content)
        if status >= 500 or status in _NOT_NOW:
            raise StoreUnavailable(f"the store answered HTTP {status}: {message}")
        raise StoreRefused(status, message)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > limit:
            raise StoreRefused(413, f"larger than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")


def _part(text: str) -> str:
    return quote(text, safe="")
