"""The options of a job's routes: what a task asks for, in its normal form, and what of it can be had.

What decides who gets in, and in which language, has to be had, or the port gets no route at all: fail closed. A limit
that the controller can't be told is left out. Either is said.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from opengpu_operator.api.access import Access, PortOptions, Protocol
from opengpu_operator.api.labels import WORKER_PORT
from opengpu_operator.api.task import TaskSpec
from opengpu_operator.desired import names, quantities
from opengpu_operator.desired.controllers import PROFILES, Profile
from opengpu_operator.desired.problems import Problems
from opengpu_operator.settings import RouteSettings


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one port is reached. Equal ones can share an object."""

    protocol: Protocol = Protocol.HTTP
    timeout: int | None = None
    """Seconds."""
    body: int | None = None
    """Bytes."""
    cidrs: tuple[str, ...] | None = None
    """In their normal form; None: everybody."""
    token: str | None = None
    """Hex SHA-256 of the Authorization header; None: none is needed."""

    @property
    def digest(self) -> str:
        """Hex digits for names."""
        parts = (self.protocol, self.timeout, self.body, ",".join(self.cidrs or ()), self.token)
        return names.digest(*(str(part) for part in parts))[:8]


#: What a port has that nobody said anything about.
PLAIN: Final = Options()

#: What HTTPRoutes themselves can say. Filters of addresses and headers are in kinds of each implementation; the
#: backend's protocol is in the Service.
GATEWAY: Final = Profile(
    protocols={Protocol.HTTP: {}, Protocol.GRPC: {}, Protocol.H2C: {}},
    timeout={},
)


def profile(settings: RouteSettings) -> tuple[str, Profile]:
    """Return who makes routes of the objects, in words, and what it can be told."""
    if settings.kind == "HTTPRoute":
        return "an HTTPRoute", GATEWAY
    if settings.profile == "none":
        return "an Ingress without settings.routes.profile", PROFILES["none"]
    return f"the profile {settings.profile}", PROFILES[settings.profile]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What of a route's options can be had."""

    options: Options
    """Without what can't be said."""
    lacking: tuple[str, ...] = ()
    """Fields without which there must be no route."""
    ignored: tuple[str, ...] = ()
    """Fields that are left out."""


def judge(options: Options, known: Profile) -> Verdict:
    """Compare what is asked with what a controller can be told."""
    lacking = []
    if options.protocol not in known.protocols:
        lacking.append(f"protocol: {options.protocol}")
    if options.cidrs is not None and known.cidrs is None:
        lacking.append("access.allowedCidrs")
    if options.token is not None and known.token is None:
        lacking.append("access.tokenSha256")
    ignored = []
    if options.timeout is not None and known.timeout is None:
        ignored.append("requestTimeoutSeconds")
        options = replace(options, timeout=None)
    if options.body is not None and known.body is None:
        ignored.append("maxBodySize")
        options = replace(options, body=None)
    return Verdict(options=options, lacking=tuple(lacking), ignored=tuple(ignored))


class Wishes:
    """What a task asks for, by port."""

    def __init__(self, spec: TaskSpec, problems: Problems) -> None:
        """Everything wrong with it is a problem."""
        self._problems = problems
        self._access = self._rules(spec.access, "access")
        self._of: dict[int, PortOptions] = {}
        self._answered: set[int] = set()
        for entry in spec.port_options or ():
            if entry.port == WORKER_PORT:
                problems.spec("portOptions", f"{WORKER_PORT} is the worker's port, which is never reachable")
            else:
                self._of[entry.port] = entry

    def of(self, container: int, published: int | None, containers: Sequence[int]) -> Options:
        """Return the options of a port; ``containers`` are all container ports, by which it is known first."""
        number = container
        if container not in self._of and published is not None and published not in containers:
            number = published
        entry = self._of.get(number)
        if entry is None:
            cidrs, token = self._access
            return Options(cidrs=cidrs, token=token)
        self._answered.add(number)
        rules = self._access if entry.access is None else self._rules(entry.access, "portOptions")
        return Options(
            protocol=entry.protocol or Protocol.HTTP,
            timeout=entry.request_timeout_seconds,
            body=self._bytes(entry),
            cidrs=rules[0],
            token=rules[1],
        )

    def check(self) -> None:
        """Add a problem for each entry that is for no port."""
        for number in self._of.keys() - self._answered:
            self._problems.spec("portOptions", f"port {number} has no URL: publish it, or list it in ports")

    def _bytes(self, entry: PortOptions) -> int | None:
        if entry.max_body_size is None:
            return None
        size = int(quantities.parse(entry.max_body_size))
        if size < 1:
            self._problems.spec(
                "portOptions", f"{entry.max_body_size} is less than a byte: mebibytes are written 64Mi"
            )
        return size

    def _rules(self, access: Access | None, field: str) -> tuple[tuple[str, ...] | None, str | None]:
        """Return the normal form of the ranges, and the hash."""
        if access is None:
            return None, None
        if not access.allowed_cidrs and access.token_sha256 is None:
            self._problems.spec(field, "allowedCidrs or tokenSha256 must say who gets in")
        if access.allowed_cidrs is None:
            return None, access.token_sha256
        found: list[str] = []
        for text in access.allowed_cidrs:
            try:
                found.append(str(ipaddress.ip_network(text, strict=False)))
            except ValueError:
                self._problems.spec(field, f"{text!r} is no address range, as 203.0.113.0/24 is")
        return tuple(dict.fromkeys(found)), access.token_sha256


def annotate(
    options: Options, known: Profile, own: Mapping[str, str], *, services: Sequence[str]
) -> dict[str, str]:
    """Return the annotations of an Ingress: ``own``, which every one has, and what says the options.

    ``services`` are the names of those that it leads to. Where both say something, it is joined if the controller can
    have it so, else the task's restriction counts.
    """
    cidrs = options.cidrs or ()
    said = [
        (known.always, {"services": ",".join(services)}),
        (known.protocols[options.protocol], {"services": ",".join(services)}),
        (known.timeout if options.timeout is not None else None, {"seconds": str(options.timeout)}),
        (known.body if options.body is not None else None, {"bytes": str(options.body)}),
        (
            known.cidrs if options.cidrs is not None else None,
            {"cidrs": ",".join(cidrs), "quoted": ", ".join(f'"{cidr}"' for cidr in cidrs)},
        ),
        (known.token if options.token is not None else None, {"sha256": str(options.token)}),
    ]
    found = dict(own)
    for texts, values in said:
        for key, text in (texts or {}).items():
            part = text.format_map(values)
            joint = known.joined.get(key)
            found[key] = f"{found[key]}{joint}{part}" if joint is not None and key in found else part
    return found
