"""kopf's settings, each with the reason for its value."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from opengpu_operator.api.labels import GROUP
from opengpu_operator.handlers.watched import field_selector, label_selector, watched
from opengpu_operator.kube.kinds import Kind
from opengpu_operator.settings import Settings


def configure(kopf_settings: kopf.OperatorSettings, settings: Settings) -> None:
    """Set kopf up as an informer: selected by the server, reconnecting for ever, never writing anything."""
    watching = kopf_settings.watching
    # Whole numbers: kopf sends them as they are printed, and the API server takes no fractions.
    watching.server_timeout = 300
    watching.client_timeout = 310
    watching.connect_timeout = 30
    watching.reconnect_backoff = 1.0
    # Bookmarks come every minute; a stream without any is dead, whatever TCP says.
    watching.inactivity_timeout = 70
    # A task may hold 64 KiB of data: a page of lists is some ten megabytes at the very most.
    watching.chunk_size = 200
    for kind in watched(settings):
        labels, fields = label_selector(kind), field_selector(kind, settings)
        if labels is not None:
            watching.label_selectors[_is(kind)] = labels
        if fields is not None:
            watching.field_selectors[_is(kind)] = fields

    networking = kopf_settings.networking
    networking.request_timeout = 30
    networking.connect_timeout = 10
    networking.error_backoffs = Backoffs()

    # A limit would be a limit of objects per idle_timeout.
    kopf_settings.queueing.worker_limit = None
    # For that long after an object's last event, a coroutine and the object stay in memory.
    kopf_settings.queueing.idle_timeout = 0.05

    # Handlers only hand on: nothing is lost with what is left at the end.
    kopf_settings.queueing.exit_timeout = 0.5

    # Events are our recorder's.
    kopf_settings.posting.enabled = False
    kopf_settings.peering.standalone = True
    kopf_settings.process.ultimate_exiting_timeout = 30
    # Without change handlers none of these is ever written; should anyone add one, it must not look like kopf's.
    kopf_settings.persistence.finalizer = f"{GROUP}/finalizer"
    kopf_settings.persistence.diffbase_storage = NoDiffBase()
    kopf_settings.persistence.progress_storage = kopf.StatusProgressStorage(field="status.kopf")


def _is(kind: Kind) -> Callable[[kopf.Resource], bool]:
    """Return a key of kopf's selector mappings that means exactly this kind.

    A string with both slashes is taken for something else, silently, and the selector is never applied.
    """

    def matches(resource: kopf.Resource) -> bool:
        return (resource.group, resource.plural) == (kind.group, kind.plural)

    return matches


class NoMemories(ResourceMemories):
    """Keeps nothing per object. kopf keeps a kilobyte, for handlers of changes, daemons and timers: there are none."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """Return a memory that nobody keeps."""
        return await super().recall(raw_body, **options | {"ephemeral": True})


class Backoffs:
    """Delays between attempts to reach the API server: for ever, up to half a minute, no two operators in step."""

    def __init__(self, *, rand: Callable[[], float] = random.random) -> None:
        self._rand = rand

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * (0.75 + 0.5 * self._rand())
            delay = min(delay * 2, 30.0)


class NoDiffBase(kopf.DiffBaseStorage):
    """Spares the deep copy of every object that is seen, which only change handlers have a use for."""

    def build(
        self,
        *,
        body: kopf.Body,  # noqa: ARG002 - the signature is kopf's
        extra_fields: Iterable[Any] | None = None,  # noqa: ARG002 - the same
    ) -> kopf.BodyEssence:
        """Return nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:  # noqa: ARG002 - the signature is kopf's
        """Return nothing to compare with."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""

    def clear(self, *, essence: Mapping[str, Any]) -> Any:
        """Return it as it is."""
        return essence
