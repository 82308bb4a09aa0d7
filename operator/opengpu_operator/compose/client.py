"""The operator's side of the translator's socket."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from pydantic import ValidationError

from opengpu_operator.api.translation import TranslateOptions, Translation
from opengpu_operator.compose.fetch import Fetched, FetchError

__all__ = ["FetchError", "Fetched", "TranslatorClient", "TranslatorUnavailable"]

#: Longer than the translator's own deadline, so that its answer about that arrives.
TIMEOUT_SECONDS: Final = 40.0
_UNPROCESSABLE: Final = 422


class TranslatorUnavailable(Exception):
    """The translator can't be reached, or failed; trying again helps."""


class TranslatorClient:
    """Calls the translator; use it as an async context manager, or close it."""

    def __init__(self, socket: Path | str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self._socket = str(socket)
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, url: str, *, sha256: str | None = None) -> Fetched:
        """Return the file at a URL. Raises FetchError and TranslatorUnavailable."""
        status, body = await self._post("/fetch", {"url": url, "sha256": sha256})
        if status == _UNPROCESSABLE and isinstance(body, dict):
            raise FetchError(
                str(body.get("reason")), str(body.get("error")), transient=bool(body.get("transient"))
            )
        self._expect(status, body)
        try:
            return Fetched(text=body["text"], digest=body["digest"])
        except (KeyError, TypeError) as error:
            raise TranslatorUnavailable("the translator's answer can't be understood") from error

    async def translate(self, text: str, options: TranslateOptions) -> Translation:
        """Return a file's translation, which may be a refusal. Raises TranslatorUnavailable."""
        status, body = await self._post(
            "/translate", {"text": text, "options": options.model_dump(mode="json", by_alias=True)}
        )
        self._expect(status, body)
        try:
            return Translation.model_validate(body)
        except ValidationError as error:
            raise TranslatorUnavailable("the translator's answer can't be understood") from error

    def _expect(self, status: int, body: Any) -> None:
        if status != 200:
            message = body.get("error") if isinstance(body, dict) else None
            raise TranslatorUnavailable(f"the translator answers {status}: {message or 'nothing more'}")

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=self._socket),
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                trust_env=False,
            )
        try:
            async with self._session.post(f"http://translator{path}", json=body) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise TranslatorUnavailable(
                f"the translator can't be reached ({type(error).__name__})"
            ) from error
