"""Requests to the API server, as plain dicts.

The official client's configuration and authentication are used, so that kubeconfigs, client certificates, exec
plugins and rotating service account tokens work as with kubectl; its generated models aren't, because they cost
several times the CPU per request and drop fields that they don't know.

Overload is never made worse: requests in flight are bounded, the API server's Retry-After is honoured, and retries
come out of a budget that only requests which went well fill up again. What isn't retried here is raised, and retried
by the queue with its own back-off.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config
from yaml import YAMLError

from opengpu_operator.api.labels import MANAGER
from opengpu_operator.kube.errors import (
    ConflictError,
    KubeError,
    NotFound,
    TooManyRequests,
    Unavailable,
    error_of,
)
from opengpu_operator.kube.kinds import POD, Kind, kind_of

Object = dict[str, Any]
Propagation = Literal["Background", "Foreground", "Orphan"]
#: Told of every answer: verb, status code (0 for none), kind, seconds.
Observe = Callable[[str, int, str, float], None]

PAGE: Final = 500
TIMEOUT: Final = 30.0
CONNECT_TIMEOUT: Final = 10.0

_JSON: Final = "application/json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE_PATCH: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"

#: How the API server says that an object has another UID than the precondition wants.
_OTHER_UID: Final = re.compile("UID in (the )?precondition")

#: How often one request is sent again, at most.
_RETRIES: Final = 2
#: Longer than this, an overloaded API server is left to the queue's back-off: a worker has better things to do.
_LONGEST_WAIT: Final = 5.0


class Listing(list[Object]):
    """Objects as they all were at one moment."""

    def __init__(self, objects: Iterable[Object] = (), *, resource_version: str = "") -> None:
        super().__init__(objects)
        self.resource_version = resource_version
        """The moment: whatever changed since has a higher resource version."""


class Gateway(Protocol):
    """The Kubernetes API."""

    async def create(self, obj: Mapping[str, Any], *, field_manager: str = MANAGER) -> Object:
        """Create an object; return it as stored. Raises AlreadyExists, Forbidden, Unprocessable, NotFound."""
        ...

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return an object as it is now; None if there is none."""
        ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        cached: bool = False,
        metadata_only: bool = False,
    ) -> Listing:
        """Return all objects of a namespace or the cluster, or raise: never a part of them.

        ``cached``: what the API server has in memory is good enough, which may be a little old.
        ``metadata_only``: of each object, only its metadata.
        """
        ...

    async def merge_patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: str | None = None,
        field_manager: str = MANAGER,
    ) -> Object:
        """Apply a JSON merge patch to an object or a subresource of it; return what is stored."""
        ...

    async def json_patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Sequence[Mapping[str, Any]],
        *,
        field_manager: str = MANAGER,
    ) -> Object:
        """Apply a JSON patch; return the object as stored. A ``test`` that fails raises Unprocessable."""
        ...

    async def replace_status(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        status: Mapping[str, Any],
        *,
        uid: str,
        version: str | None = None,
        field_manager: str = MANAGER,
    ) -> Object:
        """Write the whole status of exactly the object ``uid``; of another one of its name raises Unprocessable.

        With ``version``, a resource version, raises ConflictError where the object has changed since.
        """
        ...

    async def replace(
        self, obj: Mapping[str, Any], *, subresource: str | None = None, field_manager: str = MANAGER
    ) -> Object:
        """Replace an object, at the resource version that it carries; return it as stored."""
        ...

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        propagation: Propagation = "Background",
    ) -> bool:
        """Delete an object; return False if it (with that ``uid``) wasn't there any more.

        With ``version``, a resource version, raises ConflictError where the object has changed since.
        """
        ...

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """Have a pod replaced, which its Job doesn't take for a failure; return False if it wasn't there any more.

        Raises TooManyRequests where a PodDisruptionBudget forbids it for now.
        """
        ...

    async def pod_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str,
        tail: int | None = None,
        since: str | None = None,
        limit_bytes: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> bytes:
        """Return (the last ``tail`` lines of) a container's log, from time ``since`` on, at most ``limit_bytes``.

        ``timestamps``: each line begins with the time at which it was printed. Tried only once: nobody waits for a
        log, and a kubelet that is away is no reason to use up the retries of those who can be helped.
        """
        ...


class RetryBudget:
    """How many retries are allowed: a few at first, then a share of the requests that went well."""

    def __init__(self, *, share: float = 0.1, most: float = 20.0) -> None:
        self._share = share
        self._most = most
        self._left = most

    def earn(self) -> None:
        """Count a request that went well."""
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Return whether one more retry is allowed, and count it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class HttpGateway:
    """The Kubernetes API over HTTP."""

    def __init__(
        self,
        *,
        configuration: Configuration,
        max_in_flight: int = 64,
        observe: Observe | None = None,
        rand: Callable[[], float] = random.random,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        """Use :meth:`connect` for the usual ways to find the API server."""
        self._configuration = configuration
        self._base = configuration.host.rstrip("/")
        self._observe = observe
        self._rand = rand
        self._sleep = sleep
        self._budget = RetryBudget()
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._server_hostname = configuration.tls_server_name or None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_in_flight, ssl=_ssl_context(configuration)),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT, connect=CONNECT_TIMEOUT),
            # Compressing costs the API server more than an in-cluster network has to give.
            headers={"Accept-Encoding": "identity", "User-Agent": MANAGER},
            proxy=configuration.proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        max_in_flight: int = 64,
        observe: Observe | None = None,
    ) -> Self:
        """Return a gateway to the API server of a kubeconfig; without one, to that of the cluster we run in."""
        configuration = Configuration()
        if kubeconfig is not None:
            try:
                await load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=str(kubeconfig),
                    context=context,
                    client_configuration=configuration,
                    persist_config=False,
                )
            except (ConfigException, OSError, ValueError, TypeError, YAMLError) as error:
                # The client reads it with little care: what isn't as it expects fails in many ways.
                raise Unavailable(f"{kubeconfig} can't be used: {error}") from error
        else:
            try:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except ConfigException as error:
                raise Unavailable(f"not in a cluster, and no kubeconfig was given: {error}") from error
        return cls(configuration=configuration, max_in_flight=max_in_flight, observe=observe)

    @property
    def configuration(self) -> Configuration:
        """Where the API server is, and how we log in."""
        return self._configuration

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(self, obj: Mapping[str, Any], *, field_manager: str = MANAGER) -> Object:
        """See :class:`Gateway`."""
        kind, metadata = kind_of(obj), obj["metadata"]
        # Not idempotent: an answer that got lost may have been a success, and whoever sends the same again would
        # have to tell its own object from somebody else's. The caller can, by reading; we can't.
        return await self._json(
            "create",
            kind,
            kind.path(metadata.get("namespace")),
            query={"fieldManager": field_manager},
            body=obj,
        )

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """See :class:`Gateway`."""
        try:
            return await self._json("get", kind, kind.path(namespace, name))
        except NotFound:
            return None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        cached: bool = False,
        metadata_only: bool = False,
    ) -> Listing:
        """See :class:`Gateway`."""
        query: dict[str, str] = {"limit": str(PAGE)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        if cached:
            query["resourceVersion"] = "0"
        found = Listing()
        while True:
            page = await self._json(
                "list", kind, kind.path(namespace), query=query, accept=_METADATA if metadata_only else _JSON
            )
            for item in page.get("items") or ():
                # Items of built-in kinds come without these two.
                item.setdefault("apiVersion", kind.api_version)
                item.setdefault("kind", kind.kind)
                found.append(item)
            metadata = page.get("metadata") or {}
            found.resource_version = str(metadata.get("resourceVersion") or found.resource_version)
            token = metadata.get("continue")
            if not token:
                return found
            query["continue"] = token
            query.pop("resourceVersion", None)

    async def merge_patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        subresource: str | None = None,
        field_manager: str = MANAGER,
    ) -> Object:
        """See :class:`Gateway`."""
        return await self._json(
            "patch",
            kind,
            kind.path(namespace, name, subresource),
            query={"fieldManager": field_manager},
            body=patch,
            content_type=_MERGE_PATCH,
        )

    async def json_patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Sequence[Mapping[str, Any]],
        *,
        field_manager: str = MANAGER,
    ) -> Object:
        """See :class:`Gateway`."""
        return await self._json(
            "patch",
            kind,
            kind.path(namespace, name),
            query={"fieldManager": field_manager},
            body=patch,
            content_type=_JSON_PATCH,
        )

    async def replace_status(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        status: Mapping[str, Any],
        *,
        uid: str,
        version: str | None = None,
        field_manager: str = MANAGER,
    ) -> Object:
        """See :class:`Gateway`."""
        # Not a merge patch: that drops every null, those inside an answer too.
        patch = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": status},
        ]
        if version is not None:
            # Not a test either, which would say no more than that the patch doesn't fit.
            patch.append({"op": "replace", "path": "/metadata/resourceVersion", "value": version})
        return await self._json(
            "patch",
            kind,
            kind.path(namespace, name, "status"),
            query={"fieldManager": field_manager},
            body=patch,
            content_type=_JSON_PATCH,
        )

    async def replace(
        self, obj: Mapping[str, Any], *, subresource: str | None = None, field_manager: str = MANAGER
    ) -> Object:
        """See :class:`Gateway`."""
        kind, metadata = kind_of(obj), obj["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._json("update", kind, path, query={"fieldManager": field_manager}, body=obj)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        version: str | None = None,
        propagation: Propagation = "Background",
    ) -> bool:
        """See :class:`Gateway`."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        given = {"uid": uid, "resourceVersion": version}
        preconditions = {name: value for name, value in given.items() if value is not None}
        if preconditions:
            body["preconditions"] = preconditions
        return await self._end("delete", kind, kind.path(namespace, name), body)

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """See :class:`Gateway`."""
        body: Object = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": namespace, "name": name},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        return await self._end("create", POD, POD.path(namespace, name, "eviction"), body)

    async def _end(self, verb: str, kind: Kind, path: str, body: Object) -> bool:
        """Have an object go; return False if it wasn't there any more."""
        try:
            await self._json(verb, kind, path, body=body)
        except NotFound:
            return False
        except ConflictError as error:
            if _OTHER_UID.search(error.message):
                # Only a namesake is there: ours is gone.
                return False
            raise
        return True

    async def pod_log(
        self,
        namespace: str,
        name: str,
        *,
        container: str,
        tail: int | None = None,
        since: str | None = None,
        limit_bytes: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> bytes:
        """See :class:`Gateway`."""
        query = {"container": container}
        if tail is not None:
            query["tailLines"] = str(tail)
        if since is not None:
            query["sinceTime"] = since
        if limit_bytes is not None:
            query["limitBytes"] = str(limit_bytes)
        if previous:
            query["previous"] = "true"
        if timestamps:
            query["timestamps"] = "true"
        path = POD.path(namespace, name, "log")
        return await self._request("get", POD, path, query=query, retries=0)

    async def _json(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Object:
        raw = await self._request(
            verb, kind, path, query=query, body=body, content_type=content_type, accept=accept
        )
        answer: Object = json.loads(raw)
        return answer

    async def _request(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
        retries: int = _RETRIES,
    ) -> bytes:
        """Send a request until there is an answer that is worth returning or raising."""
        url = f"{self._base}{path}?{urlencode(query)}" if query else f"{self._base}{path}"
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"Accept": accept}
        if data is not None:
            headers["Content-Type"] = content_type
        tries = 0
        while True:
            try:
                async with self._in_flight:
                    answer = await self._send(verb, kind, url, data, headers)
            except (TooManyRequests, Unavailable) as error:
                wait = self._wait(error, verb, tries) if tries < retries else None
                if wait is None or not self._budget.spend():
                    raise
            except KubeError:
                # A refusal is an answer: the server is well.
                self._budget.earn()
                raise
            else:
                self._budget.earn()
                return answer
            tries += 1
            await self._sleep(wait)

    def _wait(self, error: KubeError, verb: str, tries: int) -> float | None:
        """Return how long to wait before the same request is sent again; None if it isn't."""
        if isinstance(error, TooManyRequests):
            # It was turned away before it did anything, so any verb may be sent again.
            return error.retry_after * (1 + self._rand()) if error.retry_after <= _LONGEST_WAIT else None
        if verb == "create" and not isinstance(error.__cause__, aiohttp.ClientConnectorError):
            return None
        return 0.1 * 2.0**tries * (1 + self._rand())

    async def _send(
        self, verb: str, kind: Kind, url: str, data: bytes | None, headers: dict[str, str]
    ) -> bytes:
        """Send a request once."""
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers = {**headers, "Authorization": token.strip()}
        code, started = 0, time.perf_counter()
        try:
            async with self._session.request(
                _METHODS[verb], url, data=data, headers=headers, server_hostname=self._server_hostname
            ) as response:
                raw = await response.read()
                code = response.status
        except TimeoutError as error:
            raise Unavailable(f"{verb} {kind}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{verb} {kind}: {type(error).__name__}: {error}") from error
        finally:
            if self._observe is not None:
                self._observe(verb, code, kind.kind, time.perf_counter() - started)
        if code < 300:
            return raw
        raise error_of(code, _status(raw), retry_after=_seconds(response.headers.get("Retry-After")))


_METHODS: Final = {
    "create": "POST",
    "get": "GET",
    "list": "GET",
    "patch": "PATCH",
    "update": "PUT",
    "delete": "DELETE",
}


def _status(raw: bytes) -> Mapping[str, Any]:
    """Return the Status object of an error; anything else (a proxy's page) becomes its message."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {"message": raw[:200].decode(errors="replace")}
    return body if isinstance(body, dict) else {"message": str(body)[:200]}


def _seconds(retry_after: str | None) -> float:
    """Return the seconds of a Retry-After header; the API server never sends dates."""
    try:
        return max(0.0, float(retry_after or 1))
    except ValueError:
        return 1.0


def _ssl_context(configuration: Configuration) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
