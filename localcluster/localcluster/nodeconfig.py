"""The configuration files of a node's services, as pure functions of the cluster's shape."""

import json
from pathlib import Path
from typing import Any

from localcluster import cgroups
from localcluster.topology import Node, Topology

PAUSE_IMAGE = "localhost/localcluster/pause:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
# Inside the node /run is its own, so that none of these can meet another node's or the machine's files.
CNI_CONFIG = "/run/cni/conf"
CNI_ALLOCATIONS = "/run/cni/networks"
POD_RESOLV_CONF = "/run/localcluster/resolv.conf"
VOLUMES = "/run/localcluster/volumes"


def containerd(state: Path, cni_plugins: Path) -> str:
    """Return containerd's configuration (TOML; version 2 is read by every containerd from 1.6 on)."""
    cri = "io.containerd.grpc.v1.cri"
    return f"""\
version = 2
root = "{state}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "{state}/opt"

[plugins."{cri}"]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE a lower score than containerd's own cannot be set, and runc would fail.
restrict_oom_score_adj = true

[plugins."{cri}".containerd]
snapshotter = "overlayfs"

[plugins."{cri}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."{cri}".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{CNI_CONFIG}"
"""


def cni(node: Node) -> str:
    """Return the pod network: a bridge per node, routed without address translation between nodes.

    Pods must keep their addresses on the way to another node, or NetworkPolicies would see the node's.
    """
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": CNI_ALLOCATIONS,
        },
    }
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, port_map]}, indent=1)


def kubelet(topology: Topology, node: Node, authority: Path) -> dict[str, Any]:
    """Return the kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority)}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.parent(topology.name)}/{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [topology.dns_address],
        "clusterDomain": "cluster.local",
        "resolvConf": POD_RESOLV_CONF,
        "oomScoreAdj": 0,
        # Images come from `localcluster load` alone: never collect them, never run out of room on paper.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        # With the controller manager's grace period: a dead node is noticed in about 16 s.
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 10,
    }


def kube_proxy(topology: Topology, node: Node, kubeconfig: Path) -> dict[str, Any]:
    """Return kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": topology.pod_cidr,
        "hostnameOverride": node.name,
        "bindAddress": node.address,
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0},
    }


def labels(node: Node) -> dict[str, str]:
    """Return what GPU feature discovery would have found out."""
    found = {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": "Fake-A100-SXM4-80GB",
        "nvidia.com/gpu.memory": "81920",
        "nvidia.com/gpu.count": str(node.nvidia),
    }
    if node.amd:
        found |= {
            "amd.com/gpu.present": "true",
            "amd.com/gpu.product-name": "Fake-MI300X",
            "amd.com/gpu.vram": "192G",
        }
    return found


def resolvers(*sources: str, fallback: str) -> str:
    """Return a resolv.conf for pods: the first source with a name server that a pod can reach.

    A stub on the machine's loopback (systemd-resolved) means nothing in another network namespace. CoreDNS does
    not start with an empty file, hence the fallback: an address where nobody answers.
    """
    for source in sources:
        servers = [
            line
            for line in source.splitlines()
            if line.startswith("nameserver ") and not line.split()[1].startswith(("127.", "::1"))
        ]
        if servers:
            return "\n".join(servers) + "\n"
    return f"nameserver {fallback}\n"
