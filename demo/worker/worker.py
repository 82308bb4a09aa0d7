"""An OpenGPU worker: reads the text in a picture that is named by its hash.

It runs on OpenGPU's own runtime (``ogpu.service``), which serves ``POST /run/read_text/{task}`` on port 5555, does the
work in the background and posts the answer to ``CALLBACK_URL/{task}``. With ``MODEL_URL`` the model is in another
service of the same job, as in OpenGPU's chat source, whose worker asks an ollama beside it.

Without an argument it is the worker; with ``model`` it is only the model with its page.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, Field

from demo.worker import page, store
from demo.worker.reader import Reader

MODEL_START_SECONDS = 900
MODEL_SECONDS = 600


class Picture(BaseModel):
    """What to read: a picture in the job's store."""

    sha1: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]


class Text(BaseModel):
    """What the picture says, and where it was read."""

    text: list[str]
    """The lines, from top to bottom."""
    devices: dict[str, str]
    """The GPUs that the reading container was given."""
    worker_devices: dict[str, str]
    """The GPUs that the worker's container was given; the same container, unless MODEL_URL is set."""
    pod: str


Read = Callable[[bytes], tuple[list[str], dict[str, str]]]


def local_model() -> Read:
    """Load the model into this process, and serve its page."""
    model = Reader()
    page.serve(model.read)
    return lambda picture: (model.read(picture), page.devices())


def remote_model(url: str) -> Read:
    """Wait for the model in another service, and ask that one."""

    def read(picture: bytes) -> tuple[list[str], dict[str, str]]:
        request = urllib.request.Request(f"{url}/read", data=picture, method="POST")
        with urllib.request.urlopen(request, timeout=MODEL_SECONDS) as answer:
            body = json.load(answer)
        return body["text"], body["devices"]

    deadline = time.monotonic() + MODEL_START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{url}/devices", timeout=5) as answer:
                if answer.status == HTTPStatus.OK:
                    return read
        except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                message = f"no model at {url} after {MODEL_START_SECONDS} s: {error}"
                raise RuntimeError(message) from error
        # Nothing tells a container when its sibling listens: Compose's short depends_on only waits for its start.
        time.sleep(0.2)


def main() -> None:
    """Serve the model alone, or the worker."""
    # As PID 1 a process has no default action for SIGTERM; without this the pod ends only after its grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1:] == ["model"]:
        local_model()
        threading.Event().wait()
        return

    # The service with the model alone does not need it.
    from ogpu.service import expose, init, start  # type: ignore[import-not-found]  # noqa: PLC0415

    backend: list[Read] = []

    def load() -> None:
        url = os.environ.get("MODEL_URL")
        backend.append(remote_model(url.rstrip("/")) if url else local_model())

    def read_text(data: Picture) -> Text:
        text, devices = backend[0](store.download(data.sha1))
        return Text(text=text, devices=devices, worker_devices=page.devices(), pod=os.uname().nodename)

    # Called rather than used as decorators: the runtime carries no types.
    init()(load)
    expose(timeout=MODEL_SECONDS)(read_text)
    start()


if __name__ == "__main__":
    main()
