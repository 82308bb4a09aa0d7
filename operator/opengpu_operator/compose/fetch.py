"""Fetch a Compose file from a URL that a stranger chose, without becoming their way into the network.

A name is resolved once; every address it has must be public; the connection goes to an address that was checked,
while TLS and the Host header keep the name. Redirects go through the same door. Hosts that the cluster's owner
allows may be private.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from opengpu_operator.api.reasons import Reason
from opengpu_operator.compose.addresses import IPAddress, is_public

MAX_BYTES: Final = 256 * 1024
MAX_REDIRECTS: Final = 3
CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 10.0
_MAX_URL: Final = 2048
_MAX_ADDRESSES: Final = 32
_PORTS: Final = {"https": 443, "http": 80}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)
#: What urlsplit finds brackets in, though something stands around them.
_BRACKETS: Final = re.compile(r"\[[^\[\]]*\](?::[0-9]*)?")
#: What C libraries read as an IPv4 address: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1.
_NUMERIC: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*\.?")
_UNAVAILABLE: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_OK: Final = 200


class FetchError(Exception):
    """A file can't be fetched: one of the :class:`Reason` s, and whether trying again may help."""

    def __init__(self, reason: str, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.reason = str(reason)
        self.message = message
        self.transient = transient


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched."""

    text: str
    digest: str


class Resolve(Protocol):
    """Looks up a name: all of its addresses, in order of preference."""

    async def __call__(self, host: str, port: int, /) -> Sequence[str]:
        """Return the addresses of a host."""


async def resolve_by_system(host: str, port: int, /) -> Sequence[str]:
    """Look up a name as the system does."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class _Target:
    """A URL that may be asked, and the addresses to ask it at."""

    url: str
    host: str
    port: int
    addresses: tuple[IPAddress, ...]


class Fetcher:
    """Fetches files, by the rules of the cluster's owner."""

    def __init__(
        self,
        *,
        allowed_hosts: Sequence[str] = (),
        allow_http: bool = False,
        resolve: Resolve = resolve_by_system,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed_hosts = tuple(host.lower().rstrip(".") for host in allowed_hosts)
        self._allow_http = allow_http
        self._resolve = resolve
        self._tls = tls

    async def fetch(self, url: str, *, sha256: str | None = None) -> Fetched:
        """Return the file at a URL, or raise FetchError."""
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                data = await self._follow(url)
        except TimeoutError:
            raise FetchError(
                Reason.FETCH_FAILED, f"the server took longer than {TOTAL_SECONDS:g} s", transient=True
            ) from None
        found = hashlib.sha256(data).hexdigest()
        if sha256 is not None and not hmac.compare_digest(found, sha256.lower()):
            raise FetchError(Reason.DIGEST_MISMATCH, f"the file's sha256 is {found}, not {sha256}")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise FetchError(Reason.NOT_A_COMPOSE_FILE, "the file is not UTF-8 text") from None
        return Fetched(text=text, digest=f"sha256:{found}")

    async def _follow(self, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._ask(await self._check(url))
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise FetchError(Reason.FETCH_FAILED, f"the server redirects more than {MAX_REDIRECTS} times")

    def _is_allowed(self, host: str) -> bool:
        host = host.rstrip(".")
        return any(
            host.endswith(entry[1:]) and len(host) >= len(entry) if entry.startswith("*.") else host == entry
            for entry in self._allowed_hosts
        )

    async def _check(self, url: str) -> _Target:
        """Return what a URL leads to, if it may be asked."""
        scheme, host, port = _parts(url)
        allowed = self._is_allowed(host)
        if scheme == "http" and not (allowed or self._allow_http):
            raise FetchError(Reason.FETCH_FAILED, "only https is fetched")
        if port != _PORTS[scheme] and port not in _PORTS.values() and not allowed:
            raise FetchError(Reason.FETCH_FAILED, f"port {port} is not fetched from; only 80 and 443 are")
        addresses = await self._addresses(host, port)
        if not allowed and not all(is_public(address) for address in addresses):
            # Which address it is would tell strangers about the cluster's network.
            raise FetchError(Reason.FETCH_FAILED, f"{host} has an address that is not public")
        return _Target(url=url, host=host, port=port, addresses=addresses)

    async def _addresses(self, host: str, port: int) -> tuple[IPAddress, ...]:
        try:
            return (ipaddress.ip_address(host),)
        except ValueError:
            pass
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await self._resolve(host, port)
            addresses = tuple(ipaddress.ip_address(address) for address in found[:_MAX_ADDRESSES])
        except (OSError, TimeoutError, ValueError, UnicodeError) as error:
            raise FetchError(
                Reason.FETCH_FAILED, f"the name {host} can't be looked up", transient=True
            ) from error
        if not addresses:
            raise FetchError(Reason.FETCH_FAILED, f"the name {host} has no address", transient=True)
        return addresses

    async def _ask(self, target: _Target) -> bytes | str:
        """Return a file's bytes, or where the server redirects to."""
        connector = aiohttp.TCPConnector(
            resolver=_Pinned(target),
            use_dns_cache=False,
            force_close=True,
            ssl=self._tls or True,
        )
        timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
        headers = {
            "Accept-Encoding": "identity",
            "Accept": "text/plain, */*;q=0.1",
            "User-Agent": "opengpu-operator",
        }
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=timeout,
                    headers=headers,
                    trust_env=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    auto_decompress=False,
                ) as session,
                session.get(target.url, allow_redirects=False) as response,
            ):
                return await _read(response)
        except aiohttp.ClientConnectorCertificateError as error:
            raise FetchError(Reason.FETCH_FAILED, f"the certificate of {target.host} is not valid") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            what = type(error).__name__
            raise FetchError(
                Reason.FETCH_FAILED, f"{target.host} can't be fetched from ({what})", transient=True
            ) from error


def _parts(url: str) -> tuple[str, str, int]:
    """Return a URL's scheme, host and port, in one spelling; raise FetchError for what has no business in one."""
    if (
        len(url) > _MAX_URL
        or any(ord(character) <= ord(" ") or ord(character) > ord("~") for character in url)
        or "\\" in url
    ):
        raise FetchError(
            Reason.FETCH_FAILED, "the URL is too long, or holds spaces, backslashes or other than ASCII"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").lower()
    except ValueError:
        raise FetchError(Reason.FETCH_FAILED, "the URL can't be understood") from None
    if parts.scheme not in _PORTS:
        raise FetchError(Reason.FETCH_FAILED, "the URL has to start with https://")
    if "@" in parts.netloc:
        raise FetchError(Reason.FETCH_FAILED, "the URL holds a user name or password")
    if "%" in parts.netloc:
        raise FetchError(Reason.FETCH_FAILED, "the URL's host is escaped or has a zone")
    if "[" in parts.netloc and not _BRACKETS.fullmatch(parts.netloc):
        raise FetchError(Reason.FETCH_FAILED, "the URL's host is not valid")
    if ":" in host:
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise FetchError(Reason.FETCH_FAILED, "the URL's host is not valid") from None
    elif _NUMERIC.fullmatch(host):
        try:
            host = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise FetchError(Reason.FETCH_FAILED, "the URL's host is an odd spelling of an address") from None
    elif not _HOST.fullmatch(host):
        raise FetchError(Reason.FETCH_FAILED, "the URL's host is not valid")
    return parts.scheme, host, port if port is not None else _PORTS[parts.scheme]


async def _read(response: aiohttp.ClientResponse) -> bytes | str:
    if response.status in _REDIRECTS:
        location = response.headers.get("Location")
        if not location:
            raise FetchError(Reason.FETCH_FAILED, "the server redirects to nowhere")
        return location
    if response.status != _OK:
        transient = response.status in _UNAVAILABLE or response.status >= _SERVER_ERROR
        raise FetchError(Reason.FETCH_FAILED, f"the server answers {response.status}", transient=transient)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise FetchError(
            Reason.FETCH_FAILED, f"the server answers compressed ({encoding[:20]}), though asked not to"
        )
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(64 * 1024):
        size += len(part)
        if size > MAX_BYTES:
            raise FetchError(Reason.NOT_A_COMPOSE_FILE, f"the file is larger than {MAX_BYTES // 1024} KiB")
        parts.append(part)
    return b"".join(parts)


class _Pinned(AbstractResolver):
    """Answers with the addresses that were checked, whatever the name means by now."""

    def __init__(self, target: _Target) -> None:
        self._target = target

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._target.addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""
