"""The model outside the cluster, in an environment of its own: what it reads is what the cluster must answer.

The environment has the packages of the worker image, at the same versions, and is kept in the user's cache. The
pictures are painted there too, with a text that is new each time, so that no answer can be an old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.shell import ROOT, Shell

CONSTRAINTS = ROOT / "demo" / "worker" / "constraints.txt"
PACKAGES = ("rapidocr", "onnxruntime", "pillow")

_PAINT = """
import json, sys
from PIL import Image, ImageDraw, ImageFont
for path, lines in json.load(sys.stdin).items():
    image = Image.new("RGB", (720, 90 * len(lines) + 30), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((30, 25 + 90 * number), line, font=ImageFont.load_default(44), fill="black")
    image.save(path)
"""


@dataclass(frozen=True)
class Picture:
    """A picture, the text that was painted, and what the model outside the cluster reads in it."""

    name: str
    path: Path
    painted: list[str]
    read: list[str]

    @property
    def content(self) -> bytes:
        """The file."""
        return self.path.read_bytes()

    @property
    def sha1(self) -> str:
        """The hash by which the store knows the file."""
        return hashlib.sha1(self.content, usedforsecurity=False).hexdigest()


def cache() -> Path:
    """Return where the demo keeps what is expensive to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opengpu-demo"


def environment(shell: Shell) -> tuple[Path, bool]:
    """Return the Python of the model's environment, and whether it was there already."""
    key = hashlib.sha256(f"{sys.version}\n{CONSTRAINTS.read_text()}".encode()).hexdigest()[:12]
    directory = cache() / f"model-{key}"
    python = directory / "bin" / "python"
    complete = directory / ".complete"
    if complete.exists():
        return python, True
    shell.run(sys.executable, "-m", "venv", "--clear", directory)
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", CONSTRAINTS)
    shell.run(*install, *PACKAGES)
    # Written last: an environment that was interrupted is made anew.
    complete.touch()
    return python, False


def pictures(shell: Shell, python: Path, directory: Path) -> list[Picture]:
    """Paint two pictures with different texts, and read them."""
    number = secrets.randbelow(9000) + 1000
    texts = {
        "invoice": ["Invoice", f"Total {number} euro"],
        "sign": ["Platform " + str(number % 9 + 1), f"Train {number + 1} leaves at noon"],
    }
    paths = {name: directory / f"{name}.png" for name in texts}
    shell.run(
        python, "-c", _PAINT, stdin=json.dumps({str(paths[name]): lines for name, lines in texts.items()})
    )
    read = json.loads(shell.run(python, "-m", "demo.worker.reader", *paths.values()))
    return [Picture(name, paths[name], lines, read[str(paths[name])]) for name, lines in texts.items()]
