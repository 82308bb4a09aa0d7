"""Who is where: addresses, ports and names of one cluster, all derived from a few numbers."""

import contextlib
import json
import socket
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localcluster.errors import Failure

MAX_SLOTS = 8
MAX_NODES = 6
NODE_PORT = 30088
TLS_NODE_PORT = 30443
INGRESS_PORT = 8088
# The ingress' port for https follows from the one for http: 8443.
_TLS_OFFSET = 355
_LOOPBACK = "127.0.0.1"
NVIDIA_GPUS = 4  # on every node
AMD_GPUS = 2  # on the first node only, so that the two vendors can be told apart


@dataclass(frozen=True)
class Node:
    """A node: its address on the bridge, its share of the pod network, its fake GPUs."""

    name: str
    address: str
    pod_cidr: str
    nvidia: int
    amd: int


@dataclass(frozen=True)
class Topology:
    """A cluster's shape.

    Several clusters can run beside each other: each full one has a slot of its own, from which all its
    address ranges and the names of its links and firewall chains follow. A control plane alone has no slot
    and listens on loopback only.
    """

    name: str
    node_count: int
    slot: int | None
    etcd_port: int
    etcd_peer_port: int
    api_port: int
    ingress_port: int | None = None

    @property
    def control_plane_only(self) -> bool:
        return self.slot is None

    @property
    def bridge(self) -> str:
        return f"lc{self.slot}"

    @property
    def host_address(self) -> str:
        return _LOOPBACK if self.control_plane_only else f"10.{232 + self._slot}.0.1"

    @property
    def node_cidr(self) -> str:
        return f"10.{232 + self._slot}.0.0/24"

    @property
    def pod_cidr(self) -> str:
        return f"10.{244 + self._slot}.0.0/16"

    @property
    def service_cidr(self) -> str:
        return f"10.{96 + self._slot}.0.0/16"

    @property
    def dns_address(self) -> str:
        return f"10.{96 + self._slot}.0.10"

    @property
    def api_service_address(self) -> str:
        return f"10.{96 + self._slot}.0.1"

    @property
    def server(self) -> str:
        return f"https://{self.host_address}:{self.api_port}"

    @property
    def ingress_tls_port(self) -> int | None:
        return None if self.ingress_port is None else tls_port(self.ingress_port)

    @property
    def nodes(self) -> list[Node]:
        """Return the nodes in the order of their names."""
        return [
            Node(
                name=f"node-{chr(ord('a') + index)}",
                address=f"10.{232 + self._slot}.0.{11 + index}",
                pod_cidr=f"10.{244 + self._slot}.{index}.0/24",
                nvidia=NVIDIA_GPUS,
                amd=AMD_GPUS if index == 0 else 0,
            )
            for index in range(self.node_count)
        ]

    @property
    def _slot(self) -> int:
        return self.slot or 0

    def save(self, path: Path) -> None:
        """Write the shape down, whole or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> "Topology | None":
        """Read a shape; nothing if there is none or it cannot be understood."""
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            return cls(**data)
        except (FileNotFoundError, ValueError, TypeError):
            return None


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that the kernel chose: two runs at once hardly ever get the same ones."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind((_LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]


def tls_port(port: int) -> int:
    """Return the ingress' port for https."""
    return port + _TLS_OFFSET


def next_port(preferred: int, taken: Collection[int | None] = ()) -> int:
    """Return the preferred port of loopback, or the next one, that nobody uses or has claimed; nor its https port."""
    for port in range(preferred, preferred + 200):
        if port not in taken and _is_free(port) and _is_free(tls_port(port)):
            return port
    raise Failure(
        f"Ports {preferred} to {preferred + 199} are all in use on {_LOOPBACK}: close what uses them."
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_LOOPBACK, port))
        return True
    return False
