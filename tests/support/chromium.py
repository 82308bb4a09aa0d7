"""A real browser without a screen, driven through its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import platform
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from localcluster import packages
from localcluster.errors import Failure
from tests.support.environment import unavailable
from tests.support.patience import PATIENCE


def program() -> str:
    """Return the browser's path; installed on Debian where that is allowed, else the test ends with the reason."""
    if (found := packages.find("chromium")) is not None:
        return found
    system = platform.freedesktop_os_release().get("ID", "an unknown system")
    if system != "debian":
        unavailable(f"chromium isn't there, and only Debian's package is known to work, not that of {system}")
    try:
        packages.ensure(["chromium"])
    except Failure as failure:
        unavailable(f"chromium isn't there: {failure}")
    return packages.find("chromium") or "chromium"


def pin(host: str, port: int) -> str:
    """Return the pin of the key that a TLS server on loopback shows for a host, as the browser takes it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        context.wrap_socket(connection, server_hostname=host) as tls,
    ):
        certificate = tls.getpeercert(binary_form=True)
    pem = subprocess.run(
        ["openssl", "x509", "-inform", "der", "-pubkey", "-noout"],
        input=certificate,
        capture_output=True,
        check=True,
    ).stdout
    key = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


class Page:
    """An open page."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what the browser answers to a command."""
        number = next(self._numbers)
        await self._connection.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._connection.receive_json(timeout=60 * PATIENCE)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    async def evaluate(self, script: str) -> Any:
        """Return the value of a script."""
        result = await self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    async def until(self, script: str, *, within: float = 60 * PATIENCE) -> Any:
        """Return a script's first true value; a page that didn't come is asked for again."""
        deadline = time.monotonic() + within
        while not (value := await self.evaluate(script)):
            if await self.evaluate("location.protocol") == "chrome-error:":
                await self.ask("Page.reload")
            if time.monotonic() > deadline:
                html = await self.evaluate("document.documentElement.outerHTML")
                raise AssertionError(f"{script} was not true within {within} s: {html[:2000]}")
            await asyncio.sleep(0.1)
        return value


@contextlib.asynccontextmanager
async def browsing(url: str, directory: Path, *options: str) -> AsyncIterator[Page]:
    """Open a page; ``options`` are the browser's."""
    log = directory / "chromium.log"
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-proxy-server",
        "--remote-debugging-port=0",
        f"--user-data-dir={directory}",
        *options,
        url,
    ]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(program(), *arguments, stdout=output, stderr=output)
    try:
        async with aiohttp.ClientSession() as session:
            address = await _page_address(session, directory / "DevToolsActivePort", log)
            async with session.ws_connect(address, max_msg_size=0) as connection:
                yield Page(connection)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _page_address(session: aiohttp.ClientSession, file: Path, log: Path) -> str:
    """Return where the open page is spoken to, once the browser is up."""
    deadline = time.monotonic() + 60 * PATIENCE
    while True:
        with contextlib.suppress(OSError, IndexError, aiohttp.ClientError):
            port = file.read_text().splitlines()[0]
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                targets = await answer.json()
            pages = [target for target in targets if target["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        assert time.monotonic() < deadline, f"chromium isn't up: {log.read_text(errors='replace')[-2000:]}"
        await asyncio.sleep(0.1)
