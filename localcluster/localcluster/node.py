"""Starting a node: its cgroup, its plan, its first process, its cable."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from localcluster import binaries, cgroups, network, nodeconfig, processes
from localcluster.commands import Argument, run
from localcluster.errors import Failure
from localcluster.packages import SYSTEM_PATH, cni_directory, find
from localcluster.paths import Layout
from localcluster.pki import Authority
from localcluster.processes import Identity, require, spawn
from localcluster.topology import Node, Topology
from localcluster.waiting import until

QUEUE = "100"  # on which kube-network-policies judges new connections


def pid_file(layout: Layout, node: Node) -> Path:
    return layout.pids / node.name


def log(layout: Layout, node: Node) -> Path:
    return layout.logs / f"{node.name}.log"


def start(layout: Layout, topology: Topology, node: Node) -> None:
    """Start a node and return at once; the kubelet registers it when everything in it runs."""
    directory = layout.node(node.name)
    directory.mkdir(parents=True, exist_ok=True)
    # After a power cut the groups of dead containers are still there; they would hold the kubelet up.
    cgroups.destroy(topology.name, node.name)
    cgroups.create(topology.name, node.name)
    plan = directory / "plan.json"
    plan.write_text(json.dumps(_plan(layout, topology, node), indent=1))
    init: list[Argument] = [sys.executable, "-m", "localcluster.nodeinit", plan]
    namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    argv: list[Argument] = [find("unshare") or "unshare", *namespaces, *init]
    env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"}
    identity = spawn(argv, pid_file(layout, node), log(layout, node), env)
    own = Path("/proc/self/ns/net").readlink()

    def unshared() -> bool:
        require(identity, node.name, log(layout, node))
        return Path(f"/proc/{identity.pid}/ns/net").readlink() != own

    until(f"the namespaces of {node.name}", unshared, 60, interval=0.005)
    network.plug(topology, node, identity.pid)


def is_on(layout: Layout, topology: Topology, node: Node) -> bool:
    """Tell whether a node's first process runs and is connected."""
    identity = Identity.read(pid_file(layout, node))
    return bool(identity and identity.alive and network.is_plugged(topology, node))


def stop(layout: Layout, node: Node) -> None:
    """End a node as a power cut would: everything in it is gone at once, its disk stays."""
    processes.stop([pid_file(layout, node)])


def enter(layout: Layout, node: Node) -> list[str]:
    """Return the start of a command line that runs a program inside a node."""
    identity = Identity.read(pid_file(layout, node))
    if identity is None or not identity.alive:
        raise Failure(f"{node.name} does not run: `localcluster up` repairs the cluster.")
    return [find("nsenter") or "nsenter", "-t", str(identity.pid), "--mount", "--net", "--uts", "--ipc", "--"]


def ctr(layout: Layout, node: Node) -> list[str]:
    """Return the start of a command line that talks to a node's containerd."""
    return [*enter(layout, node), find("ctr") or "ctr", "-a", nodeconfig.CONTAINERD_SOCKET, "-n", "k8s.io"]


def await_containerd(layout: Layout, node: Node) -> None:
    """Wait until images can be loaded into a node."""
    command = ctr(layout, node)

    def answers() -> bool:
        try:
            run([*command, "version"])
        except Failure:
            return False
        return True

    until(f"containerd of {node.name} (see {log(layout, node)})", answers, 120)


def _plan(layout: Layout, topology: Topology, node: Node) -> dict[str, Any]:
    directory = layout.node(node.name)
    credentials = Authority(layout.pki)
    cni_plugins = cni_directory()
    assert cni_plugins is not None
    resolvers = nodeconfig.resolvers(*_resolv_confs(), fallback=topology.host_address)
    # Where this is a link into /run the node's own /run would leave it dangling.
    system_resolv_conf = Path("/etc/resolv.conf").resolve()
    hidden = {str(system_resolv_conf): resolvers} if system_resolv_conf.is_relative_to("/run") else {}
    others = [other for other in topology.nodes if other != node]
    return {
        "name": node.name,
        "address": node.address,
        "gateway": topology.host_address,
        "routes": [(other.pod_cidr, other.address) for other in others],
        "tmpfs": ["/var/lib/cni"],
        "binds": [
            (str(directory / "kubelet"), "/var/lib/kubelet"),
            (str(directory / "log"), "/var/log"),
            (str(directory / "volumes"), nodeconfig.VOLUMES),
        ],
        "files": hidden
        | {
            f"{nodeconfig.CNI_CONFIG}/10-pods.conflist": nodeconfig.cni(node),
            nodeconfig.POD_RESOLV_CONF: resolvers,
            "/run/localcluster/containerd.toml": nodeconfig.containerd(directory, cni_plugins),
            "/run/localcluster/kubelet.json": json.dumps(
                nodeconfig.kubelet(topology, node, credentials.bundle)
            ),
            "/run/localcluster/kube-proxy.json": json.dumps(
                nodeconfig.kube_proxy(topology, node, layout.pki / "kube-proxy.kubeconfig")
            ),
        },
        "sysctls": {
            "net/ipv4/ip_forward": 1,
            "net/bridge/bridge-nf-call-iptables": 1,
        },
        "firewall": firewall(),
        "services": _services(layout, node),
    }


def firewall() -> list[list[str]]:
    """Return the rules of a node that hand new connections to the network policies.

    kube-network-policies makes such rules itself with nftables, but a kernel without NFT_QUEUE refuses them.
    Where both work a connection is judged twice, with the same result.
    """
    queue = ["-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE", "--queue-num", QUEUE, "--queue-bypass"]
    return [["-I", "FORWARD", *queue], ["-I", "INPUT", "-i", "cni0", *queue]]


def _services(layout: Layout, node: Node) -> list[dict[str, Any]]:
    commands: dict[str, list[Argument]] = {
        "containerd": [find("containerd") or "containerd", "--config", "/run/localcluster/containerd.toml"],
        "kubelet": [
            binaries.path("kubelet"),
            "--config=/run/localcluster/kubelet.json",
            f"--kubeconfig={layout.pki / node.name}.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--node-labels={','.join(f'{key}={value}' for key, value in nodeconfig.labels(node).items())}",
        ],
        "kube-proxy": [binaries.path("kube-proxy"), "--config=/run/localcluster/kube-proxy.json"],
    }
    return [
        {
            "name": name,
            "argv": [str(arg) for arg in argv],
            "log": str(layout.logs / f"{node.name}-{name}.log"),
            "needs": nodeconfig.CONTAINERD_SOCKET if name == "kubelet" else None,
        }
        for name, argv in commands.items()
    ]


def _resolv_confs() -> list[str]:
    paths = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
    return [path.read_text() for path in paths if path.exists()]
