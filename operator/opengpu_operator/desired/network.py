"""The NetworkPolicy of a job: its pods see each other, the Internet, the resolvers and the store.

They see no other job, nothing of the cluster and no private network behind it. With calls, not even siblings
reach the worker's port: the agent beside it does, on loopback.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from opengpu_operator.api.labels import WORKER_PORT
from opengpu_operator.desired import labels
from opengpu_operator.desired.context import JobContext
from opengpu_operator.settings import NetworkSettings, Settings

Object = dict[str, Any]

_NAMESPACE = "kubernetes.io/metadata.name"
_DNS_PORTS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
_LAST_PORT = 65535


def build(
    context: JobContext,
    settings: Settings,
    *,
    resolvers: Iterable[str],
    routed_ports: Sequence[int],
    closed_worker: bool,
) -> Object:
    """Return the policy; ``closed_worker`` says that siblings may not reach the worker's port."""
    siblings: Object = {"from": [_siblings(context)]}
    if closed_worker:
        siblings["ports"] = _all_ports_but(WORKER_PORT)
    ingress = [siblings]
    if routed_ports:
        ingress.append(
            {
                "from": [{"namespaceSelector": _namespace(settings.network.ingress_namespace)}],
                "ports": [{"port": port, "protocol": "TCP"} for port in routed_ports],
            }
        )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": labels.metadata(
            context.name, context, labels=labels.of_job(context), owner=context.owner_reference
        ),
        "spec": {
            "podSelector": {"matchLabels": labels.selector(context)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [
                {"to": [_siblings(context)]},
                {"to": _resolvers(resolvers), "ports": _DNS_PORTS},
                {
                    "to": [
                        {
                            "namespaceSelector": _namespace(settings.store.namespace),
                            "podSelector": {"matchLabels": dict(settings.store.pod_labels)},
                        }
                    ],
                    "ports": [{"port": settings.store.port, "protocol": "TCP"}],
                },
                {"to": _internet(settings.network)},
            ],
        },
    }


def _siblings(context: JobContext) -> Object:
    return {"podSelector": {"matchLabels": labels.selector(context)}}


def _namespace(name: str | None) -> Object:
    return {} if name is None else {"matchLabels": {_NAMESPACE: name}}


def _all_ports_but(port: int) -> list[Object]:
    return [
        {"port": 1, "endPort": port - 1, "protocol": "TCP"},
        {"port": port + 1, "endPort": _LAST_PORT, "protocol": "TCP"},
        {"port": 1, "endPort": _LAST_PORT, "protocol": "UDP"},
    ]


def _resolvers(addresses: Iterable[str]) -> list[Object]:
    found: list[Object] = []
    for address in addresses:
        number = ipaddress.ip_address(address)
        found.append({"ipBlock": {"cidr": f"{number}/{number.max_prefixlen}"}})
    # A resolver's address is often a Service's, and most enforcers only see the pod behind it.
    found.append(
        {
            "namespaceSelector": _namespace("kube-system"),
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    )
    return found


def _internet(settings: NetworkSettings) -> list[Object]:
    blocked = _normal(*settings.blocked_cidrs, *settings.extra_blocked_cidrs)
    return [
        {"ipBlock": {"cidr": cidr, "except": [text for of, text in blocked if of == version]}}
        for version, cidr in ((4, "0.0.0.0/0"), (6, "::/0"))
    ]


@functools.cache
def _normal(*cidrs: str) -> list[tuple[int, str]]:
    """Return the IP version and the normal form of each; the same few for every job."""
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in dict.fromkeys(cidrs)]
    return [(network.version, str(network)) for network in networks]
