"""Which services of a file reach each other: those that share a network of the file.

Most files put all services into one network; their jobs need no more than the closure to other jobs that every job
has. Only where a file separates services, or cuts some off from the outside, is anything said of networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from opengpu_operator.compose import names, values
from opengpu_operator.compose.findings import FindingReason, Report
from opengpu_operator.compose.project import Definition, Project

DEFAULT: Final = "default"
#: Each becomes a NetworkPolicy of its own.
MAX_NETWORKS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """The networks of a service, as far as others are in them too, and whether none of them leads outside."""

    networks: list[str]
    """DNS labels."""
    offline: bool


def attachments(project: Project, roots: Mapping[str, str], report: Report) -> dict[str, Attachment] | None:
    """Return the networks of each service's pod, or None where all reach each other and the outside.

    ``roots`` gives for each service the one in whose pod it runs, whose networks are then its own.
    """
    written = {name: _written(project.services[root]) for name, root in roots.items()}
    inside = {name for name, network in project.section("networks").items() if _is_internal(network)}
    members: dict[str, set[str]] = {}
    for name, networks in written.items():
        for network in networks:
            members.setdefault(network, set()).add(roots[name])
    everyone = set(roots.values())
    offline = {name for name, networks in written.items() if inside.issuperset(networks)}
    if not offline and (len(everyone) < 2 or everyone in members.values()):
        return None
    # Of networks with the same members, and of those that nobody shares, nothing is left to say.
    shared = {frozenset(those): network for network, those in reversed(members.items()) if len(those) > 1}
    if len(shared) > MAX_NETWORKS:
        report.add(
            FindingReason.TOO_MANY, ("networks",), f"A file has at most {MAX_NETWORKS} different networks."
        )
        return None
    kept = set(shared.values())
    labels = names.unique_labels(network for network in members if network in kept)
    return {
        name: Attachment(
            networks=[labels[network] for network in networks if network in kept], offline=name in offline
        )
        for name, networks in written.items()
    }


def _written(service: Definition) -> list[str]:
    if service.get("network_mode") == "none":
        return []
    return [values.text(network) for network in service.get("networks") or [DEFAULT]]


def _is_internal(network: object) -> bool:
    return isinstance(network, dict) and values.boolean(network.get("internal") or False)
