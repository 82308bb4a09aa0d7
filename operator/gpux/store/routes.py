"""What a part of the store's API is made of: routes, who may use them, and what a handler is given.

Each part is a module with an object that has `routes`; the server asks them in their order. Paths are matched as they
were sent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from aiohttp import web

from gpux import hashes, tokens
from gpux.blobs import Keeper, is_namespace, is_reference
from gpux.store.http import HttpError

OPERATOR: frozenset[tokens.Scope] = frozenset({"operator"})
JOBS: frozenset[tokens.Scope] = frozenset({"operator", "job"})
"""The operator, and the agents beside jobs."""
FILES: frozenset[tokens.Scope] = frozenset({"operator", "job", "files"})
"""These, and whoever acts for a task from outside."""

TASK = r"(?P<task>[A-Za-z0-9][A-Za-z0-9._-]{0,127})"
HASH = r"(?P<hash>[A-Za-z0-9._-]{1,200})"

#: What the operator stores without saying what for.
OPERATORS_OWN = "keep:operator"


class Context(NamedTuple):
    """One request, after its token was checked."""

    request: web.BaseRequest
    claims: tokens.Claims
    path: Mapping[str, str]
    query: Mapping[str, str]

    @property
    def tenant(self) -> str | None:
        """The namespace that the token is confined to; None for an operator's."""
        return None if self.claims.scope == "operator" else self.claims.namespace

    @property
    def namespace(self) -> str:
        """The namespace that the request is about. Raises HttpError for one that the token doesn't reach."""
        asked = self.query.get("namespace", self.claims.namespace)
        if self.tenant not in {None, asked}:
            raise HttpError(403, "the token doesn't reach this namespace")
        if not is_namespace(asked):
            raise HttpError(400, "a namespace is needed")
        return asked

    @property
    def keeper(self) -> Keeper:
        """On whose behalf the request stores something: a task and its owner, or whom the operator names."""
        claims = self.claims
        if claims.scope == "operator":
            return keeper(self.namespace, {self.query.get("reference", OPERATORS_OWN): None})
        references = {f"task:{claims.task}": claims.job_bytes}
        if claims.owner is not None:
            references[f"owner:{claims.owner}"] = claims.owner_bytes
        return keeper(self.namespace, references, public=claims.public)

    @property
    def hash(self) -> hashes.FileHash:
        """The hash in the path. Raises HttpError."""
        try:
            return hashes.parse(self.path["hash"])
        except hashes.MalformedHashError as error:
            raise HttpError(400, str(error)) from None


def keeper(namespace: str, references: Mapping[str, int | None], *, public: bool = False) -> Keeper:
    """Make a keeper. Raises HttpError for what can't be a reference."""
    for reference in references:
        if not is_reference(reference):
            raise HttpError(
                400, "a reference is task:, owner: or keep: and a name of letters, digits and ._:@-"
            )
    return Keeper(namespace, references, public)


Handler: TypeAlias = Callable[[Context], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """One path, and what can be done there."""

    name: str
    """As metrics call it."""
    path: re.Pattern[str]
    methods: Mapping[str, tuple[frozenset[tokens.Scope], Handler]]
    """Method → (whose tokens, handler). Where the path has a task, a token must be for this task, or an operator's."""


class Api(Protocol):
    """A part of the API."""

    @property
    def routes(self) -> Sequence[Route]:
        """Its routes."""


def route(name: str, path: str, **methods: tuple[frozenset[tokens.Scope], Handler]) -> Route:
    """Make a route of a regular expression."""
    return Route(name, re.compile(path), methods)


def number(query: Mapping[str, str], name: str, *, default: int = 0) -> int:
    """Read a number of the query. Raises HttpError."""
    text = query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise HttpError(400, f"{name} is not a number")
    return int(text)
