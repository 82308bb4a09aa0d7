"""The least that can stand between a client and a server: it splices what the server sends, and knows no HTTP.

Started with the server's port; it says its own.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress

from gpux.splice import Pipe


def _requests(client: socket.socket, server: socket.socket) -> None:
    with client, server, suppress(OSError):
        while data := client.recv(1 << 16):
            server.sendall(data)


def _answers(client: socket.socket, server: socket.socket) -> None:
    with Pipe() as pipe, suppress(OSError):
        while pipe.fill(server, 1 << 30):
            pipe.drain(client)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
            for way in (_requests, _answers):
                threading.Thread(target=way, args=(client, server), daemon=True).start()


if __name__ == "__main__":
    main()
