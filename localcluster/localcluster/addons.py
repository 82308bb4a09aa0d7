"""What runs in the cluster as pods: name service, ingress, storage, network policies, GPUs."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from localcluster import binaries, ingresstls
from localcluster.commands import Argument, run
from localcluster.node import QUEUE
from localcluster.nodeconfig import VOLUMES
from localcluster.paths import Layout
from localcluster.topology import AMD_GPUS, NODE_PORT, NVIDIA_GPUS, TLS_NODE_PORT, Topology

WORKLOADS = (
    "fake-gpus/daemonsets/nvidia",
    "fake-gpus/daemonsets/amd",
    "kube-system/daemonsets/kube-network-policies",
    "kube-system/deployments/coredns",
    "ingress-system/deployments/skipper",
    "local-path-storage/deployments/local-path-provisioner",
)
# What other ways to make a cluster lack too.
PORTABLE = ("gpus.yaml", "ingress.yaml")
_ALL = (*PORTABLE, "coredns.yaml", "network-policies.yaml", "storage.yaml")
_VALUES = {
    "amd": str(AMD_GPUS),
    "node_port": str(NODE_PORT),
    "nvidia": str(NVIDIA_GPUS),
    "queue": QUEUE,
    "tls_node_port": str(TLS_NODE_PORT),
    "volumes": VOLUMES,
}


def render(names: Sequence[str] = _ALL, **values: str) -> str:
    """Return manifests with the cluster's own values in them."""
    directory = files("localcluster") / "manifests"
    texts = [(directory / name).read_text(encoding="utf-8") for name in names]
    return "\n---\n".join(Template(text).safe_substitute(_VALUES | values) for text in texts)


def apply(layout: Layout, topology: Topology) -> None:
    """Create or update everything that the cluster needs."""
    text = _manifests(layout, topology)
    apply_manifests(layout.kubeconfig, f"{text}\n---\n{ingresstls.manifest(ingresstls.ensure(layout))}")
    layout.applied.write_text(_digest(text), encoding="utf-8")


def is_current(layout: Layout, topology: Topology) -> bool:
    """Tell whether the cluster got what this version applies; one that another version made may lack some of it."""
    return layout.applied.exists() and layout.applied.read_text(encoding="utf-8") == _digest(
        _manifests(layout, topology)
    )


def _manifests(layout: Layout, topology: Topology) -> str:
    return render(dns_address=topology.dns_address, shared=str(layout.shared))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def apply_manifests(kubeconfig: Path, manifests: str) -> None:
    """Create or update what the manifests say."""
    kubectl: list[Argument] = [binaries.path("kubectl"), f"--kubeconfig={kubeconfig}"]
    run([*kubectl, "apply", "--server-side", "--force-conflicts", "-f", "-"], stdin=manifests)
