"""Run the real kompose on our own file, trusting neither its environment nor its answer.

kompose exits with 0 on empty and on cut output, reads what it can reach, and can be made to run for minutes. So it
gets a fresh directory, no environment, hard limits, a process group that is killed as a whole, and its answer counts
only if it holds exactly the workloads that were asked for. Its error text is never shown: it may quote files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

TIME_LIMIT: Final = 20.0
#: kompose is a Go program: it reserves much more address space than it uses.
ADDRESS_SPACE: Final = 4 * 1024**3
CPU_SECONDS: Final = 15
OUTPUT_LIMIT: Final = 16 * 1024 * 1024
_FILE_LIMIT: Final = 1024 * 1024
_DESCRIPTORS: Final = 64
_NAME: Final = "compose.yaml"
_ALLOWED: Final = frozenset({("apps/v1", "Deployment"), ("v1", "Service")})
_ARGUMENTS: Final = ("convert", "--stdout", "--with-kompose-annotation=false", "--volumes", "emptyDir")
_CHUNK: Final = 64 * 1024
#: Of its output; a Deployment has ten levels.
_DEPTH: Final = 32


class KomposeError(Exception):
    """kompose is missing, broken, too slow, or answered something else than was asked for."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        """Whether trying again may help."""


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where kompose is: OPENGPU_KOMPOSE, beside Python, or in PATH."""
    configured = environ.get("OPENGPU_KOMPOSE")
    candidates = [Path(configured)] if configured else [Path(sys.executable).parent / "kompose"]
    if not configured and (found := shutil.which("kompose", path=environ.get("PATH"))):
        candidates.append(Path(found))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    msg = "kompose was not found"
    raise KomposeError(msg)


class Kompose:
    """kompose as a function from a file to the Deployments in its output, by name."""

    def __init__(
        self, path: Path, *, time_limit: float = TIME_LIMIT, output_limit: int = OUTPUT_LIMIT
    ) -> None:
        self._path = path
        self._time_limit = time_limit
        self._output_limit = output_limit
        self._version: str | None = None

    async def version(self) -> str:
        """Return kompose's version; translations are cached by it."""
        if self._version is None:
            with tempfile.TemporaryDirectory(prefix="opengpu-kompose-") as directory:
                output = await self._run(["version"], Path(directory))
            self._version = output.decode("utf-8", "replace").strip().partition("\n")[0] or "unknown"
        return self._version

    async def convert(self, file: bytes) -> dict[str, dict[str, Any]]:
        """Return the Deployments that kompose makes of a file."""
        with tempfile.TemporaryDirectory(prefix="opengpu-kompose-") as name:
            directory = Path(name)  # mkdtemp makes it 0700
            (directory / _NAME).write_bytes(file)
            output = await self._run(["-f", _NAME, *_ARGUMENTS], directory)
        return await asyncio.to_thread(_deployments, output)

    async def _run(self, arguments: list[str], directory: Path) -> bytes:
        environment = {
            "HOME": str(directory),
            "PATH": "/nonexistent",
            "COMPOSE_DISABLE_ENV_FILE": "1",
            "COMPOSE_PROJECT_NAME": "opengpu",
        }
        loop = asyncio.get_running_loop()
        try:
            # As asyncio.create_subprocess_exec does it, which keeps the transport to itself.
            transport, protocol = await loop.subprocess_exec(
                lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=_CHUNK, loop=loop),
                str(self._path),
                *arguments,
                cwd=directory,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_limit,
            )
        except OSError as error:
            msg = f"kompose can't be started: {error.strerror}"
            raise KomposeError(msg) from error
        process = asyncio.subprocess.Process(transport, protocol, loop)
        try:
            async with asyncio.timeout(self._time_limit):
                output = await self._read(process)
                status = await process.wait()
        except TimeoutError:
            msg = f"kompose took longer than {self._time_limit:g} s"
            raise KomposeError(msg, transient=True) from None
        finally:
            # Also after success: nothing it started may live on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # Whoever left the group may hold the other end of the pipe for ever.
            transport.close()
            await process.wait()
        if status != 0:
            msg = f"kompose ended with status {status}"
            raise KomposeError(msg)
        return output

    async def _read(self, process: asyncio.subprocess.Process) -> bytes:
        if process.stdout is None:
            msg = "kompose has no output"
            raise KomposeError(msg)
        parts: list[bytes] = []
        size = 0
        while part := await process.stdout.read(_CHUNK):
            size += len(part)
            if size > self._output_limit:
                msg = "kompose wrote too much"
                raise KomposeError(msg)
            parts.append(part)
        return b"".join(parts)


def _limit() -> None:
    """Limit the process that becomes kompose; runs between fork and exec."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, _FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _deployments(output: bytes) -> dict[str, dict[str, Any]]:
    try:
        documents = list(_documents(yaml.parse(output, Loader=yaml.CBaseLoader)))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        msg = "kompose's output is not YAML"
        raise KomposeError(msg) from error
    result: dict[str, dict[str, Any]] = {}
    for document in documents:
        if not isinstance(document, dict):
            msg = "kompose's output holds something that is no object"
            raise KomposeError(msg)
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind not in _ALLOWED:
            msg = f"kompose made an object that was not asked for: {str(kind[1])[:63]!r}"
            raise KomposeError(msg)
        if kind[1] == "Deployment":
            metadata = document.get("metadata")
            name = metadata.get("name") if isinstance(metadata, dict) else None
            if not isinstance(name, str) or name in result:
                msg = "kompose made an object without a name of its own"
                raise KomposeError(msg)
            result[name] = document
    return result


def _documents(events: Iterator[Any]) -> Iterator[Any]:
    """Yield what is not empty, every scalar as text: kompose's YAML and ours differ in what else they could be."""
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent) and (document := _value(next(events), events)):
            yield document


def _value(event: Any, events: Iterator[Any], depth: int = 1) -> Any:
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    if depth > _DEPTH or isinstance(event, yaml.AliasEvent):
        # PyYAML's own loader ends the process where C's stack ends.
        msg = "kompose's output is not plain"
        raise KomposeError(msg)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_value(event, events, depth + 1))
        return items
    result: dict[str, Any] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent) or event.value in result:
            msg = "kompose's output is not plain"
            raise KomposeError(msg)
        result[event.value] = _value(next(events), events, depth + 1)
    return result
