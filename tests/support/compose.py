"""Translating files in tests: with the real kompose where it is there, and with a stand-in that needs no process."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
from textwrap import dedent
from typing import Any

from opengpu_operator.api.translation import Service, TranslateOptions, Translation
from opengpu_operator.compose import kompose, pipeline

NO_KOMPOSE = "kompose is not there: set OPENGPU_KOMPOSE, or put it beside Python or into PATH"

VARIABLES = {"PORT": "5555", "CALLBACK_URL": "http://127.0.0.1:20000"}


class Echo:
    """Makes of our file what kompose makes of it, without starting a process."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []

    async def convert(self, file: bytes) -> dict[str, dict[str, Any]]:
        parsed = json.loads(file)
        self.files.append(parsed)
        return {name: self._deployment(name, service) for name, service in parsed["services"].items()}

    @staticmethod
    def _deployment(name: str, service: dict[str, Any]) -> dict[str, Any]:
        container: dict[str, Any] = {"name": name, "image": service["image"].replace("$$", "$")}
        if service.get("environment"):
            container["env"] = [
                {"name": key, "value": value.replace("$$", "$")}
                for key, value in sorted(service["environment"].items())
            ]
        ports = [entry.split("/") for entry in service.get("expose", [])]
        if ports:
            container["ports"] = [
                {"containerPort": number, "protocol": protocol.upper()} for number, protocol in ports
            ]
        for key, ours in (("stdin", "stdin_open"), ("tty", "tty")):
            if service.get(ours):
                container[key] = "true"
        return {"spec": {"template": {"spec": {"containers": [container]}}}}


class Once:
    """Asks a converter once for each file: what it makes of one depends on nothing else."""

    def __init__(self, converter: pipeline.Converter) -> None:
        self._converter = converter
        self._known: dict[bytes, dict[str, dict[str, Any]]] = {}

    async def convert(self, file: bytes) -> dict[str, dict[str, Any]]:
        if file not in self._known:
            self._known[file] = await self._converter.convert(file)
        return self._known[file]


def real_kompose() -> kompose.Kompose | None:
    """Return kompose, or None where there is none."""
    try:
        return kompose.Kompose(kompose.find())
    except kompose.KomposeError:
        return None


def translate(
    text: str | bytes, *, converter: pipeline.Converter | None = None, **options: Any
) -> Translation:
    """Translate a file; the variables of the network are set."""
    options.setdefault("variables", VARIABLES)
    source = dedent(text) if isinstance(text, str) else text
    return _loop().run_until_complete(
        pipeline.translate(source, TranslateOptions(**options), kompose=converter or Echo())
    )


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return one loop for all tests that aren't asynchronous: making one costs more than most of them."""
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def service(body: str, *, top: str = "", **options: Any) -> Service:
    """Return the service ``app`` of a file that has to be translated, given its keys besides the image."""
    translation = translate(one(body, top=top), **options)
    assert not translation.refused, translation.findings
    return translation.service("app")


def one(body: str, *, top: str = "") -> str:
    """Return a file with one service ``app`` that has an image and these keys."""
    lines = "\n".join(f"    {line}" for line in dedent(body).strip("\n").splitlines())
    return f"services:\n  app:\n    image: example.org/app:1\n{lines}\n{dedent(top)}"


def reasons(translation: Translation, severity: str | None = None) -> set[str]:
    """Return the reasons of what was found."""
    return {
        finding.reason for finding in translation.findings if severity is None or finding.severity == severity
    }


def errors(text: str | bytes, **options: Any) -> set[str]:
    """Return why a file is refused."""
    translation = translate(text, **options)
    assert translation.refused, "the file is translated"
    assert not translation.services
    return reasons(translation, "error")
