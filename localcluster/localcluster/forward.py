"""A forwarder from the machine's loopback to the ingress controller's node port.

Run as ``python -m localcluster.forward LISTEN_PORT TARGET…`` with targets ``ADDRESS:PORT``; a target that
does not answer is passed over, so that the ingress survives the loss of a node.
"""

import asyncio
import contextlib
import sys

_CONNECT_SECONDS = 2.0
_CHUNK = 64 * 1024


async def _connect(targets: list[str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for target in targets:
        host, _, port = target.rpartition(":")
        with contextlib.suppress(OSError, TimeoutError):
            return await asyncio.wait_for(asyncio.open_connection(host, int(port)), _CONNECT_SECONDS)
    raise ConnectionError("no target answers")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction; its end is passed on, since the other direction may still have to answer."""
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _serve(port: int, targets: list[str]) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            upstream_reader, upstream_writer = await _connect(targets)
            with contextlib.closing(upstream_writer):
                await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Forward until the end."""
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
