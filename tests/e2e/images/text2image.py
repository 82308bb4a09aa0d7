"""Stands in for OpenGPU's picture worker: same function, same fields, no diffusion model."""

from __future__ import annotations

import base64
import json
import struct
import zlib

from ogpu.service import expose, start  # type: ignore[import-not-found]
from pydantic import BaseModel

from tests.e2e.images.devices import devices


class Prompt(BaseModel):
    """What to paint."""

    prompt: str = "a photo of an astronaut riding a horse on mars"


class Image(BaseModel):
    """A PNG."""

    image_base64: str


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(comment: str) -> bytes:
    """Return a grey pixel whose comment says what was asked for."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"tEXt", b"Comment\0" + comment.encode()),
            _chunk(b"IDAT", zlib.compress(b"\0\x80")),
            _chunk(b"IEND", b""),
        )
    )


def text2image(data: Prompt) -> Image:
    """Return the picture."""
    comment = json.dumps({"prompt": data.prompt, "devices": devices()})
    return Image(image_base64=base64.b64encode(png(comment)).decode())


if __name__ == "__main__":
    expose()(text2image)
    start()
