"""Bringing a cluster up and down, and telling how it is."""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcluster import (
    addons,
    binaries,
    cgroups,
    controlplane,
    images,
    ingresstls,
    network,
    node,
    packages,
)
from localcluster.controlplane import ControlPlane
from localcluster.errors import Failure
from localcluster.lock import exclusive
from localcluster.paths import Layout, home
from localcluster.pki import Authority
from localcluster.processes import Identity, require, spawn, stop
from localcluster.report import say, step
from localcluster.topology import (
    INGRESS_PORT,
    MAX_NODES,
    MAX_SLOTS,
    NODE_PORT,
    TLS_NODE_PORT,
    Node,
    Topology,
    free_ports,
    next_port,
)
from localcluster.waiting import until

_API_PORT = 6443
# What is slow isn't broken: seconds that `up` gives an API server that runs, and `status` any problem, to come right.
_PATIENCE = 180.0
_BREATH = 10.0
# What leads from the machine's loopback to the ingress, by the node port that it leads to.
_FORWARDS = {"ingress-forward": NODE_PORT, "ingress-forward-tls": TLS_NODE_PORT}


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    nodes: int = 2
    control_plane_only: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise Failure(f"A local cluster has 1 to {MAX_NODES} nodes, not {self.nodes}.")

    def fits(self, topology: Topology) -> bool:
        wanted = 0 if self.control_plane_only else self.nodes
        return topology.node_count == wanted


def up(layout: Layout, wish: Wish) -> None:
    """Bring the cluster into existence.

    A healthy one is left as it is. One whose control plane runs keeps its objects and gets back what it lacks,
    however slowly it answers; any other is made anew.
    """
    with exclusive(layout.lock):
        existing = Topology.load(layout.state)
        if existing and _is_worth_keeping(layout, existing):
            _require_fit(layout, wish, existing)
            _mend(layout, wish, existing)
            return
        _prepare(wish)
        _destroy(layout, existing)
        start = time.monotonic()
        _create(layout, wish)
        say(f"Cluster {layout.name} is up after {time.monotonic() - start:.1f} s.")


def down(layout: Layout) -> None:
    """Remove the cluster and everything that belongs to it."""
    with exclusive(layout.lock):
        _destroy(layout, Topology.load(layout.state))
        say(f"Cluster {layout.name} is gone.")


def stop_node(layout: Layout, name: str) -> None:
    """Make a node fail, for those who want to see what happens then."""
    with exclusive(layout.lock):
        node.stop(layout, _node(layout, name))
        say(f"{name} is off; the control plane notices in about 16 s.")


def start_node(layout: Layout, name: str) -> None:
    """Start a node again that was stopped, as after a reboot: with its images, without its processes."""
    with exclusive(layout.lock):
        entry, topology = _node(layout, name), running(layout)
        start = datetime.now(UTC).isoformat()
        if not node.is_on(layout, topology, entry):
            _restart(layout, topology, entry)
        _await_heartbeat(layout, topology, entry, since=start)


def reboot_node(layout: Layout, name: str) -> None:
    """Have a node fail and start again at once, sooner than the control plane would notice."""
    with exclusive(layout.lock):
        entry, topology = _node(layout, name), running(layout)
        node.stop(layout, entry)
        start = datetime.now(UTC).isoformat()
        node.start(layout, topology, entry)
        _await_heartbeat(layout, topology, entry, since=start)


def _restart(layout: Layout, topology: Topology, entry: Node) -> None:
    node.stop(layout, entry)
    node.start(layout, topology, entry)


def _await_heartbeat(layout: Layout, topology: Topology, entry: Node, *, since: str) -> None:
    api = ControlPlane(layout, topology).api()
    # A node that was off for a moment only is still called Ready: a heartbeat must have come since.
    until(f"a heartbeat of {entry.name}", lambda: api.last_heartbeat(entry.name) > since, 300)
    until(f"{entry.name} to be Ready", lambda: entry.name in api.ready_nodes(), 300)
    say(f"{entry.name} is Ready.")


def _node(layout: Layout, name: str) -> Node:
    nodes = {entry.name: entry for entry in running(layout).nodes}
    if name not in nodes:
        raise Failure(f"Cluster {layout.name} has no node {name}: there are {', '.join(nodes) or 'none'}.")
    return nodes[name]


def status(layout: Layout) -> dict[str, Any]:
    """Return what a user, or a test, may want to know."""
    topology = Topology.load(layout.state)
    if topology is None:
        return {"name": layout.name, "running": False, "problems": [f"there is no cluster {layout.name}"]}
    found = _lasting_problems(layout, topology)
    return {
        "name": layout.name,
        "running": not found,
        "problems": found,
        "controlPlaneOnly": topology.control_plane_only,
        "server": topology.server,
        "kubeconfig": str(layout.kubeconfig),
        "auditLog": str(layout.audit_log),
        "logs": str(layout.logs),
        "binaries": str(binaries.directory()),
        "nodes": [entry.name for entry in topology.nodes],
        "podCIDR": topology.pod_cidr,
        "serviceCIDR": topology.service_cidr,
        "nodeCIDR": topology.node_cidr,
        "ingressPort": topology.ingress_port,
        "ingressURL": topology.ingress_port and f"http://<name>.gpux.localhost:{topology.ingress_port}/",
        "ingressTLSPort": topology.ingress_tls_port,
        "ingressTLSURL": topology.ingress_tls_port
        and f"https://<name>.gpux.localhost:{topology.ingress_tls_port}/",
        "ingressCA": topology.ingress_tls_port and str(certificate_authority(layout)),
        "processes": {file.name: _pid(file) for file in sorted(layout.pids.glob("*")) if not file.suffix},
    }


def certificate_authority(layout: Layout) -> Path:
    """Return where the certificate is that https clients of the ingress must trust."""
    return Authority(layout.ingress_pki).bundle


def running(layout: Layout) -> Topology:
    """Return the shape of a cluster that is there, or fail."""
    topology = Topology.load(layout.state)
    if topology is None:
        raise Failure(
            f"There is no cluster {layout.name}: start it with `localcluster up --name {layout.name}`."
        )
    return topology


def problems(layout: Layout, topology: Topology) -> list[str]:
    """Return everything that keeps the cluster from being healthy just now."""
    if dead := _dead(layout, topology):
        return [f"{name} does not run" for name in dead]
    try:
        api = ControlPlane(layout, topology).api()
    except OSError as error:
        return [f"the credentials are not complete ({error})"]
    if not api.ready():
        return ["the API server is not ready"]
    if not api.has_default_account():
        return ["the controllers have not worked yet"]
    if topology.control_plane_only:
        return []
    missing = {entry.name for entry in topology.nodes} - api.ready_nodes()
    return [
        *(f"node {name} is not Ready" for name in sorted(missing)),
        *(f"{workload} has no ready pods" for workload in api.unready(addons.WORKLOADS)),
        *([] if _has_https(layout, topology) else ["the ingress does not answer by https"]),
        *([] if addons.is_current(layout, topology) else ["its system pods are another version's"]),
    ]


def _has_https(layout: Layout, topology: Topology) -> bool:
    return topology.ingress_tls_port is not None and ingresstls.answers(layout, topology.ingress_tls_port)


def _lasting_problems(layout: Layout, topology: Topology) -> list[str]:
    """Return the problems that don't pass within seconds, as a late answer of a busy machine does."""
    deadline = time.monotonic() + _BREATH
    while found := problems(layout, topology):
        if _dead(layout, topology) or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    return found


def _dead(layout: Layout, topology: Topology) -> list[str]:
    """Return the names of the processes that should run and don't."""
    names = controlplane.processes(topology)
    if not topology.control_plane_only:
        names += [*_FORWARDS, *(entry.name for entry in topology.nodes)]
    return [name for name in names if _pid(layout.pids / name) is None]


def _pid(file: Path) -> int | None:
    identity = Identity.read(file)
    return identity.pid if identity and identity.alive else None


def _prepare(wish: Wish) -> None:
    """See that everything is there that a start needs, before anything is touched."""
    if wish.control_plane_only:
        packages.ensure(packages.missing(packages.CONTROL_PLANE_PROGRAMS))
        binaries.ensure(binaries.CONTROL_PLANE)
        return
    absent = packages.missing(packages.NODE_PROGRAMS, node=True)
    if os.geteuid() != 0:
        needed = f" These Debian packages are missing too: {', '.join(absent)}." if absent else ""
        raise Failure(
            f"Nodes need root, for namespaces, mounts and a bridge: run `sudo {sys.argv[0]} up`, or "
            f"`localcluster up --control-plane-only` for an API server without nodes.{needed}"
        )
    packages.ensure(absent)
    binaries.ensure(binaries.CLUSTER)


def _require_fit(layout: Layout, wish: Wish, existing: Topology) -> None:
    if not wish.fits(existing):
        raise Failure(
            f"Cluster {layout.name} runs with {existing.node_count} nodes: take it down first with "
            f"`localcluster down --name {layout.name}`, or choose another --name."
        )


def _is_worth_keeping(layout: Layout, topology: Topology) -> bool:
    """Tell whether there may be objects in the cluster: it once answered, and nothing that keeps them has died."""
    living = all(_pid(layout.pids / name) for name in controlplane.processes(topology))
    return living and layout.kubeconfig.exists()


def _mend(layout: Layout, wish: Wish, topology: Topology) -> None:
    """Give a cluster what it lacks; one that can't be mended stays as it is."""
    start = time.monotonic()
    try:
        until("the API server to answer", ControlPlane(layout, topology).api().ready, _PATIENCE)
        found = problems(layout, topology)
        if not found:
            say(f"Cluster {layout.name} is up and healthy.")
            return
        say(f"Cluster {layout.name} is not healthy ({found[0]}): mending it.")
        _prepare(wish)
        _complete(layout, topology)
    except (Failure, OSError) as error:
        raise Failure(
            f"{error} Nothing was removed: run it again, or make a new cluster after "
            f"`localcluster down --name {layout.name}`."
        ) from error
    say(f"Cluster {layout.name} is healthy again after {time.monotonic() - start:.1f} s.")


def _create(layout: Layout, wish: Wish) -> None:
    layout.root.mkdir(parents=True, mode=0o700)
    topology = _claim(layout, wish)
    plane = ControlPlane(layout, topology)
    with step("credentials"):
        plane.create_credentials()
    with step("control plane"):
        plane.start()
    _complete(layout, topology)


def _complete(layout: Layout, topology: Topology) -> None:
    """Add to a working control plane whatever is missing; what is there stays untouched."""
    shutil.copy2(layout.pki / "admin.kubeconfig", layout.kubeconfig)
    if not topology.control_plane_only:
        with step(f"{topology.node_count} nodes started"):
            for entry in topology.nodes:
                if not node.is_on(layout, topology, entry):
                    _restart(layout, topology, entry)
            for entry in topology.nodes:
                node.await_containerd(layout, entry)
        for name, node_port in _FORWARDS.items():
            if _pid(layout.pids / name) is None:
                _forward(layout, topology, name, node_port=node_port)
        with step("images of the system pods"):
            images.load_archives(layout, topology, images.system_archives())
        with step("system pods and GPUs"):
            addons.apply(layout, topology)
    _await_health(layout, topology)


def _claim(layout: Layout, wish: Wish) -> Topology:
    """Choose ports and, for a cluster with nodes, a slot; write them down before anything is made from them."""
    etcd, peers = free_ports(2)
    if wish.control_plane_only:
        (port,) = free_ports(1)
        topology = Topology(layout.name, 0, None, etcd_port=etcd, etcd_peer_port=peers, api_port=port)
        topology.save(layout.state)
        return topology
    with exclusive(home() / ".claims.lock"):
        others = [Topology.load(state) for state in home().glob("*/state.json")]
        ingress = next_port(INGRESS_PORT, taken={other.ingress_port for other in others if other})
        for slot in range(MAX_SLOTS):
            topology = Topology(
                layout.name,
                wish.nodes,
                slot,
                etcd_port=etcd,
                etcd_peer_port=peers,
                api_port=_API_PORT,
                ingress_port=ingress,
            )
            if network.slot_is_free(topology):
                topology.save(layout.state)
                network.create(topology)
                return topology
    raise Failure(
        f"All {MAX_SLOTS} address ranges (10.232.0.0/24, 10.244.0.0/16, 10.96.0.0/16 and the following) are in "
        "use on this machine: take a cluster down."
    )


def _forward(layout: Layout, topology: Topology, name: str, *, node_port: int) -> None:
    targets = [f"{entry.address}:{node_port}" for entry in topology.nodes]
    port = topology.ingress_tls_port if node_port == TLS_NODE_PORT else topology.ingress_port
    argv = [sys.executable, "-m", "localcluster.forward", str(port), *targets]
    log = layout.logs / f"{name}.log"
    require(spawn(argv, layout.pids / name, log), name, log)


def _await_health(layout: Layout, topology: Topology) -> None:
    api = ControlPlane(layout, topology).api()
    wrong: list[str] = []
    wanted = {
        "nvidia.com/gpu": sum(entry.nvidia for entry in topology.nodes),
        "amd.com/gpu": sum(entry.amd for entry in topology.nodes),
    }

    def healthy() -> bool:
        wrong[:] = problems(layout, topology)
        wrong.extend(
            f"not all of {resource} is offered"
            for resource, count in wanted.items()
            if not wrong and api.allocatable(resource) != count
        )
        return not wrong

    try:
        until("the cluster to be healthy", healthy, 600, interval=0.2)
    except Failure as failure:
        raise Failure(
            f"{failure} Still wrong: {'; '.join(wrong)}. The logs in {layout.logs} say more."
        ) from failure


def _destroy(layout: Layout, topology: Topology | None) -> None:
    """Remove whatever is left of a cluster, in the order in which things depend on each other."""
    stop([file for file in layout.pids.glob("*") if not file.suffix])
    if topology and not topology.control_plane_only:
        cgroups.destroy(layout.name)
        network.destroy(topology)
    if layout.root.exists():
        until(f"the removal of {layout.root}", lambda: _remove_tree(layout.root), 60)


def _remove_tree(root: Path) -> bool:
    """Remove a directory; not yet, while the kernel is still ending processes that write into it."""
    try:
        shutil.rmtree(root)
    except OSError:
        return False
    return True
