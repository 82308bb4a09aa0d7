"""Stands in for OpenGPU's chat worker: same function, same fields, and the real client of ollama."""

from __future__ import annotations

import time

import httpx  # type: ignore[import-not-found]
import ollama  # type: ignore[import-not-found]
from ogpu.service import expose, init, logger, start  # type: ignore[import-not-found]
from pydantic import BaseModel

from tests.e2e.images.devices import devices

MODEL = "qwen2.5:3b"
START_SECONDS = 120


class Message(BaseModel):
    """One message of a conversation."""

    role: str = "user"
    content: str = "what is the capital of France?"


class Conversation(BaseModel):
    """The conversation so far."""

    messages: list[Message]


class Reply(Message):
    """The next message, and the GPUs of the worker's own container."""

    devices: dict[str, str]


def pull() -> None:
    """Have the model pulled, waiting for ollama: the file's depends_on only says that it was started."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            ollama.pull(MODEL)
        except (ConnectionError, httpx.HTTPError) as error:
            if time.monotonic() > deadline:
                raise
            logger.info(f"ollama isn't up yet: {error}")
            time.sleep(0.2)
        else:
            return


def text2text(data: Conversation) -> Reply:
    """Return the model's next message."""
    response = ollama.chat(model=MODEL, messages=[message.model_dump() for message in data.messages])
    return Reply(role=response["message"]["role"], content=response["message"]["content"], devices=devices())


if __name__ == "__main__":
    init()(pull)
    expose()(text2text)
    start()
