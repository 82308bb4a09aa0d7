"""A way to the store that a test may break."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable


class Relay(ABC):
    """Takes connections, one at a time, and counts the bytes that matter."""

    def __init__(self, port: int) -> None:
        """``port`` is the store's."""
        self.passed = 0
        self.at_limit: Callable[[], object] = lambda: None
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._connect(client)

    @abstractmethod
    def _connect(self, client: socket.socket) -> None:
        """Pass on what a connection brings, as long as that goes well."""
