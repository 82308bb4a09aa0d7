"""The NetworkPolicies of a job: its pods see each other, the Internet, the resolvers and the store.

They see no other job, nothing of the cluster and no private network behind it. A file may separate its services
further, or cut them off from the Internet. With calls, not even siblings reach the worker's port: the agent beside
it does, on loopback.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opengpu_operator.api.labels import NETWORK_PREFIX, OFFLINE, WORKER_PORT
from opengpu_operator.api.translation import Service
from opengpu_operator.desired import labels, names
from opengpu_operator.desired.context import JobContext
from opengpu_operator.settings import NetworkSettings, Settings

Object = dict[str, Any]

_NAMESPACE = "kubernetes.io/metadata.name"
_DNS_PORTS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
_LAST_PORT = 65535


def build(
    services: Iterable[Service],
    context: JobContext,
    settings: Settings,
    *,
    resolvers: Iterable[str],
    routed_ports: Sequence[int],
    closed_worker: bool,
) -> list[Object]:
    """Return the policies of a job; ``closed_worker`` says that siblings may not reach the worker's port.

    ``services`` are those that pods are made of. One policy is enough where all reach all; otherwise it holds what
    everybody has, another adds the Internet for those that have it, and one more for each network of the file.
    """
    policy = functools.partial(_policy, context)
    ports: Object = {"ports": _all_ports_but(WORKER_PORT)} if closed_worker else {}
    siblings = [_pods(labels.selector(context))]
    internet: Object = {"to": _internet(settings.network)}
    ingress: list[Object] = []
    if routed_ports:
        ingress.append(
            {
                "from": [{"namespaceSelector": _namespace(settings.network.ingress_namespace)}],
                "ports": [{"port": port, "protocol": "TCP"} for port in routed_ports],
            }
        )
    common: list[Object] = [
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
    ]
    separated = [service for service in services if service.networks is not None]
    if not separated:
        ingress.insert(0, {"from": siblings, **ports})
        return [policy(ingress=ingress, egress=[{"to": siblings}, *common, internet])]
    found = [policy(ingress=ingress, egress=common)]
    if any(not service.offline for service in separated):
        online = [{"key": OFFLINE, "operator": "DoesNotExist"}]
        found.append(policy("internet", egress=[internet], expressions=online))
    for network in dict.fromkeys(network for service in separated for network in service.networks or ()):
        mark = {f"{NETWORK_PREFIX}{network}": ""}
        members = [_pods(labels.selector(context) | mark)]
        found.append(
            policy(
                "network",
                network,
                ingress=[{"from": members, **ports}],
                egress=[{"to": members}],
                mark=mark,
            )
        )
    return found


def _policy(
    context: JobContext,
    *parts: str,
    ingress: Sequence[Object] | None = None,
    egress: Sequence[Object],
    mark: Mapping[str, str] | None = None,
    expressions: Sequence[Object] | None = None,
) -> Object:
    """Return a policy of the job's pods, or of those with a ``mark`` or that meet ``expressions``."""
    selector: Object = {"matchLabels": labels.selector(context) | dict(mark or {})}
    if expressions is not None:
        selector["matchExpressions"] = list(expressions)
    spec: Object = {
        "podSelector": selector,
        "policyTypes": ["Egress"] if ingress is None else ["Ingress", "Egress"],
        "egress": list(egress),
    }
    if ingress is not None:
        spec["ingress"] = list(ingress)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": labels.metadata(
            names.child(context.name, *parts),
            context,
            labels=labels.of_job(context),
            owner=context.owner_reference,
        ),
        "spec": spec,
    }


def _pods(selector: Mapping[str, str]) -> Object:
    return {"podSelector": {"matchLabels": dict(selector)}}


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
