"""The store as it is seen from outside the cluster, and how a command finds it and its token there."""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import json
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from urllib.parse import urlsplit

from opengpu_operator.api.jobid import job_name

_SECONDS: Final = 120.0
_BLOCK: Final = 1 << 20
_MESSAGE_LIMIT: Final = 64 * 1024
#: What may be in a request's line and headers as it is.
_PLAIN: Final = re.compile(r"[\x21-\x7e]+")
_MEANING: Final = {401: "the token isn't accepted", 404: "no such file"}


class Unreachable(Exception):
    """There is no way to the store, or it broke off; the same command may work later."""


class RefusedError(Exception):
    """The store says no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Access(NamedTuple):
    """Where the store is, and what it is shown."""

    url: str
    token: str
    task: str
    """The task's UID or job id, for its storage; empty if it isn't known."""


class Outside:
    """Requests to the store."""

    def __init__(self, access: Access, *, ca_file: Path | None = None) -> None:
        """Raises Unreachable for an address that can't be one."""
        try:
            url = urlsplit(access.url)
            sound = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
        except ValueError:
            sound = False
        if not sound or not _PLAIN.fullmatch(access.url):
            raise Unreachable(f"{access.url!r} is not the URL of a store")
        if not _PLAIN.fullmatch(access.token):
            raise Unreachable("what is given as a token is none: it is one word of plain characters")
        self._access = access
        self._url = url
        try:
            self._tls = _context(ca_file) if url.scheme == "https" else None
        except OSError as error:
            raise Unreachable(f"{ca_file} can't be used: {error.strerror or error}") from error

    @property
    def task(self) -> str:
        """Whose storage it is, for paths. Raises Unreachable if that isn't known."""
        if not self._access.task:
            raise Unreachable("the job's storage needs --task, or --job-id with --server")
        return self._access.task

    @property
    def identity(self) -> tuple[str, str]:
        """What tells one store and task from another."""
        return self._access.url, self._access.task

    @contextmanager
    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | Iterable[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; the response, which isn't an error. Raises Unreachable, RefusedError.

        A body of unknown length is sent in chunks.
        """
        connection = self._connection()
        sent = {"Authorization": f"Bearer {self._access.token}", **(headers or {})}
        try:
            response = self._response(connection, method, path, headers=sent, body=body)
            if response.status >= 400:
                raise RefusedError(response.status, _message(response))
            yield response
        finally:
            connection.close()

    def _response(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: Any,
    ) -> http.client.HTTPResponse:
        try:
            # Refused before the body's end, what was said is still to be read, if anything was.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._url.path.rstrip("/") + path, body=body, headers=headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            where = f"{self._url.scheme}://{self._url.netloc}"
            raise Unreachable(f"{where}: {str(error) or type(error).__name__}") from error

    def document(self, method: str, path: str, body: object = None) -> Any:
        """Send a small document, or nothing, and read one. Raises Unreachable, RefusedError."""
        content = None if body is None else json.dumps(body).encode()
        with self.ask(method, path, headers={"Content-Type": "application/json"}, body=content) as response:
            return read_document(response)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._tls is not None:
            return http.client.HTTPSConnection(
                host, port, timeout=_SECONDS, context=self._tls, blocksize=_BLOCK
            )
        return http.client.HTTPConnection(host, port, timeout=_SECONDS, blocksize=_BLOCK)


def _context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the system's certificates, and those of a file besides. Raises OSError."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def read_document(response: http.client.HTTPResponse) -> Any:
    """Read an answer in JSON. Raises Unreachable."""
    try:
        return json.loads(response.read())
    except ValueError:
        raise Unreachable("the answer is not JSON: is this the URL of the store?") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the answer broke off: {str(error) or type(error).__name__}") from error


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield a body. Raises http.client.IncompleteRead, an HTTPException, where it breaks off."""
    length = response.length
    while piece := response.read1(_BLOCK):
        if length is not None:
            length -= len(piece)
        yield piece
    if length:
        raise http.client.IncompleteRead(b"", length)


def add(command: Any) -> None:
    """Add the options that say where the store is."""
    command.add_argument("--task", metavar="NAME", help="the OpenGPUTask whose files they are")
    command.add_argument("-n", "--namespace", help="the task's namespace (default: the kubeconfig's)")
    command.add_argument("--kubeconfig", type=Path, help="the kubeconfig (default: kubectl's)")
    command.add_argument("--context", help="a context of the kubeconfig other than its current one")
    command.add_argument("--server", metavar="URL", help="the store's URL, instead of --task")
    command.add_argument(
        "--token-file", type=Path, metavar="FILE", help="a file with the token, with --server"
    )
    command.add_argument(
        "--job-id", metavar="ID", help="the task's UID or job id, with --server, for its storage"
    )
    command.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="certificates to trust, besides the system's"
    )


def connect(arguments: argparse.Namespace) -> Outside:
    """Return the store that the options mean. Raises Unreachable."""
    if arguments.server and not arguments.task:
        if arguments.token_file is None:
            raise Unreachable("--server needs --token-file")
        try:
            token = arguments.token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise Unreachable(f"{arguments.token_file} can't be read: {error}") from error
        access = Access(arguments.server, token, arguments.job_id or "")
    elif arguments.task and not arguments.server:
        access = asyncio.run(_of_task(arguments))
    else:
        raise Unreachable("either --task NAME or --server URL with --token-file FILE is needed")
    return Outside(access, ca_file=arguments.ca_file)


async def _of_task(arguments: argparse.Namespace) -> Access:
    """Read a task's Secret with the rights that the user has."""
    # Imported here, since they take longer than most commands do.
    from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION  # noqa: PLC0415

    from opengpu_operator.cli.claims import ERRORS, current  # noqa: PLC0415
    from opengpu_operator.kube.gateway import HttpGateway  # noqa: PLC0415
    from opengpu_operator.kube.kinds import SECRET, TASK  # noqa: PLC0415

    kubeconfig = arguments.kubeconfig or Path(KUBE_CONFIG_DEFAULT_LOCATION).expanduser()
    try:
        namespace = arguments.namespace or current(kubeconfig, arguments.context)
        async with await HttpGateway.connect(kubeconfig=kubeconfig, context=arguments.context) as gateway:
            task = await gateway.get(TASK, namespace, arguments.task)
            if task is None:
                raise Unreachable(f"there is no OpenGPUTask {arguments.task} in {namespace}")
            status = task.get("status") or {}
            job = status.get("jobId")
            name = f"{job_name(job)}-files" if job else ""
            secret = await gateway.get(SECRET, namespace, name) if name else None
    except ERRORS as error:
        raise Unreachable(f"the cluster can't be asked: {error}") from error
    if secret is None:
        raise Unreachable(_closed(arguments.task, status.get("conditions") or []))
    url, token = (base64.b64decode(secret["data"][key]).decode() for key in ("url", "token"))
    return Access(url, token, task["metadata"]["uid"])


def _closed(task: str, conditions: Iterable[Mapping[str, Any]]) -> str:
    said = next((entry for entry in conditions if entry["type"] == "External"), None)
    if said is not None:
        return f"the files of {task} aren't open to the outside: {said.get('message') or said['reason']}"
    return (
        f"the files of {task} aren't open to the outside, or it hasn't started: set its spec.storage.external "
        "to Links or Public when it is made"
    )


def _message(response: http.client.HTTPResponse) -> str:
    content = response.read(_MESSAGE_LIMIT)
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        # A HEAD's answer has no words.
        return _MEANING.get(response.status, f"HTTP {response.status} {response.reason}")
