"""The stand-in for cloudflared says what cloudflared has said, to the byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.e2e.test_tunnels import DOCUMENTED, FORMS

NAME = re.compile(rb"https://[a-z-]+\.trycloudflare\.com")


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
@pytest.mark.parametrize("form", ["2022", "2026", "2026-json", "colours", "crlf"])
def test_every_byte_but_the_name_is_that_of_the_file(form: str, stream: str) -> None:
    expected = (FORMS / f"{form}.log").read_bytes()
    says = {"FORMS": str(FORMS), "FORM": form, "STREAM": stream, "AFTER": "0"}
    with subprocess.Popen(
        [sys.executable, "-u", DOCUMENTED / "cloudflared.py", "tunnel", "--url", "http://localhost:8000"],
        env={**os.environ, **{f"STAND_IN_{key}": value for key, value in says.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        pipes = {"stdout": process.stdout, "stderr": process.stderr}
        pipe = pipes[stream]
        assert pipe
        printed = pipe.read(len(expected))
        process.kill()
    (name,), (own,) = NAME.findall(printed), NAME.findall(expected)
    assert name != own
    assert printed.replace(name, own) == expected


def test_the_box_of_2022_is_as_the_page_shows_it() -> None:
    """Its row with the URL is wider than its frame: the page's copy put shorter words in the place of the name."""
    widths = [len(line) for line in (FORMS / "2022.log").read_text().splitlines()]
    assert widths == [119, 119, 120, 119]
