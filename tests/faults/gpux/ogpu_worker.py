"""A worker as a source's author writes it, on the published runtime; it notes in a journal how often it is called.

While the file that WORKER_HOLD names is there, it works and doesn't answer.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

# By name, since the runtime is in the environment that this runs in and not in the one that checks it.
service: Any = importlib.import_module("ogpu.service")
server: Any = importlib.import_module("ogpu.service.server")


class Text(BaseModel):
    text: str
    seconds: float = 0.0


class Reversed(BaseModel):
    text: str


@service.expose()
def reverse(data: Text) -> Reversed:
    with Path(os.environ["WORKER_JOURNAL"]).open("a", encoding="utf-8") as journal:
        journal.write(data.text + "\n")
    time.sleep(data.seconds)
    while Path(os.environ["WORKER_HOLD"]).exists():
        time.sleep(0.01)
    return Reversed(text=data.text[::-1])


# The runtime's port is fixed, which on a shared machine would let tests meet.
server.SERVICE_HOST = "127.0.0.1"
server.SERVICE_PORT = int(os.environ["WORKER_PORT"])
service.start()
