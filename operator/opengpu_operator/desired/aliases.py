"""The other names of a job's pods: ``container_name``, the networks' aliases and those of links.

Kubernetes knows a pod by one name. EndpointSlices of our own beside those that it makes of the job's Service give it
more, with the addresses that the pods have now. Several services may share a name, and then DNS answers with all of
them, as in Docker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from opengpu_operator.api import labels as keys
from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.plan import Unit

Object = dict[str, Any]

#: Kubernetes takes no more in one slice.
_ENDPOINTS = 1000
_FAMILIES = {4: "IPv4", 6: "IPv6"}


@dataclass(frozen=True, kw_only=True)
class Aliases:
    """The other names of a job's pods, and what slices with them are made of."""

    names: Mapping[str, Sequence[str]]
    """By component, where its pods have any."""
    metadata: Object
    """A slice's, but for its name's end."""

    def slices(self, addresses: Mapping[str, Iterable[str]]) -> list[Object]:
        """Return a slice for each IP version that the pods have, given their addresses by component."""
        found = []
        for version, family in _FAMILIES.items():
            pairs = [
                [(alias, address) for address in _of_version(version, addresses.get(component, ()))]
                for component, given in self.names.items()
                for alias in given
            ]
            # Each name's first address comes before anybody's second, should there be too many.
            fair = [pair for rank in zip_longest(*pairs) for pair in rank if pair is not None]
            if fair:
                found.append(self._slice(family, fair[:_ENDPOINTS]))
        return found

    def _slice(self, family: str, endpoints: Iterable[tuple[str, str]]) -> Object:
        name = names.child(self.metadata["name"], family.lower())
        return labels.stamped(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**self.metadata, "name": name},
                "addressType": family,
                "endpoints": [
                    # Ready or not, as the pods' own names.
                    {"addresses": [address], "conditions": {"ready": True}, "hostname": alias}
                    for alias, address in endpoints
                ],
            }
        )


def build(units: Iterable[Unit], context: JobContext) -> Aliases | None:
    """Return the other names of a job's pods; None if there are none."""
    found = {}
    for unit in units:
        given = dict.fromkeys(alias for member in unit.members for alias in member.aliases)
        given.pop(unit.component, None)
        if given:
            found[unit.component] = list(given)
    if not found:
        return None
    metadata = labels.metadata(
        names.child(context.name, "aliases"),
        context,
        labels={
            **labels.of_job(context),
            keys.SERVICE_NAME: context.name,
            keys.SLICE_MANAGED_BY: keys.MANAGER,
        },
        owner=context.owner_reference,
    )
    return Aliases(names=found, metadata=metadata)


def _of_version(version: int, addresses: Iterable[str]) -> list[str]:
    return sorted(address for address in addresses if ipaddress.ip_address(address).version == version)
