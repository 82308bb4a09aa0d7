"""Serves a page with a WebSocket, slow answers and large uploads, on every port that is named.

It needs aiohttp, which the operator's image has; the tests hand it over as a command's text.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import WSMsgType, web

PAGE = """<!doctype html><title>web</title><p id="echo"></p><script>
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
socket.onopen = () => socket.send("typed in a browser");
socket.onmessage = event => { document.getElementById("echo").textContent = event.data; };
socket.onerror = () => { document.getElementById("echo").textContent = "no WebSocket"; };
</script>"""


async def page(request: web.Request) -> web.Response:
    """Return the page."""
    return web.Response(text=PAGE, content_type="text/html")


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send every text back."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(f"echo: {message.data}")
    return socket


async def slow(request: web.Request) -> web.StreamResponse:
    """Send a line per second; with ``after``, nothing at all for so long at first."""
    await asyncio.sleep(int(request.query.get("after", "0")))
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(int(request.query["seconds"])):
        await response.write(f"{number}\n".encode())
        await asyncio.sleep(1)
    await response.write_eof()
    return response


async def count(request: web.Request) -> web.Response:
    """Return how many bytes the body has."""
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
    return web.json_response({"bytes": size})


async def serve(ports: list[int]) -> None:
    """Serve until the end."""
    app = web.Application()
    app.add_routes(
        [web.get("/", page), web.get("/ws", echo), web.get("/slow", slow), web.post("/count", count)]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    for port in ports:
        await web.TCPSite(runner, None, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
