"""The machine's side of the cluster's network: one bridge, its firewall rules, and nothing else.

Everything inside a node (pod network, kube-proxy's and the network policies' rules) is in the node's own
network namespace and ends with it.
"""

import shlex
from pathlib import Path

from localcluster.commands import run, succeeds
from localcluster.packages import find
from localcluster.topology import Node, Topology

Rule = tuple[str, str, tuple[str, ...]]


def chain(topology: Topology) -> str:
    """Return the name of the chain, in whichever table, that is the cluster's own."""
    return f"LOCALCLUSTER-{topology.slot}"


def jumps(topology: Topology) -> list[Rule]:
    """Return the rules in built-in chains, as (table, chain, rule); each carries the cluster's name."""
    mark = ("-m", "comment", "--comment", f"localcluster {topology.name}", "-j", chain(topology))
    return [
        ("filter", "FORWARD", mark),
        ("filter", "INPUT", ("-i", topology.bridge, "-d", topology.host_address, *mark)),
        ("nat", "POSTROUTING", mark),
    ]


def rules(topology: Topology) -> list[Rule]:
    """Return the rules in the cluster's own chains.

    Nodes and pods may open connections to anywhere; from elsewhere only answers may come in.
    """
    bridge, own = topology.bridge, chain(topology)
    masquerade = ("!", "-o", bridge, "-j", "MASQUERADE")
    return [
        ("filter", own, ("-i", bridge, "-j", "ACCEPT")),
        (
            "filter",
            own,
            ("-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"),
        ),
        ("nat", own, ("-s", topology.node_cidr, *masquerade)),
        ("nat", own, ("-s", topology.pod_cidr, *masquerade)),
    ]


def create(topology: Topology) -> None:
    """Make the bridge with the machine's address on it, and the firewall rules."""
    ip = _ip()
    run([ip, "link", "add", topology.bridge, "type", "bridge"])
    run([ip, "address", "add", f"{topology.host_address}/24", "dev", topology.bridge])
    run([ip, "link", "set", topology.bridge, "up"])
    for node in topology.nodes:
        run([ip, "route", "add", node.pod_cidr, "via", node.address])
    run([ip, "route", "add", topology.service_cidr, "via", topology.nodes[0].address])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    _remove_rules(topology)  # of a cluster whose state directory was lost
    for table in ("filter", "nat"):
        run([_iptables(), "-w", "-t", table, "-N", chain(topology)])
    for table, name, rule in rules(topology):
        run([_iptables(), "-w", "-t", table, "-A", name, *rule])
    for table, name, rule in jumps(topology):
        run([_iptables(), "-w", "-t", table, "-I", name, *rule])


def destroy(topology: Topology) -> None:
    """Remove what ``create`` makes, as far as it is there: links first, so that nothing uses the rules any more."""
    links = [topology.bridge, *(_port(topology, node) for node in topology.nodes)]
    for link in links:
        if Path("/sys/class/net", link).exists():
            run([_ip(), "link", "delete", link])
    _remove_rules(topology)


def _remove_rules(topology: Topology) -> None:
    """Remove the cluster's chains and every rule that leads to them.

    What is there is read from the kernel, and not tried out, so that a failure is told from an absence.
    """
    if find("iptables") is None:
        return
    own = chain(topology)
    for table in ("filter", "nat"):
        iptables = [_iptables(), "-w", "-t", table]
        listed = [shlex.split(line) for line in run([*iptables, "-S"]).splitlines()]
        for command, *rule in listed:
            if command == "-A" and rule[-2:] == ["-j", own]:
                run([*iptables, "-D", *rule])
        if ["-N", own] in listed:
            run([*iptables, "-F", own])
            run([*iptables, "-X", own])


def plug(topology: Topology, node: Node, pid: int) -> None:
    """Connect the network namespace of a process to the bridge: it sees ``eth0``."""
    port = _port(topology, node)
    if Path("/sys/class/net", port).exists():
        # Of a node that died: the kernel keeps its cable until the last process in its namespace is gone.
        succeeds([_ip(), "link", "delete", port])
    run([_ip(), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    run([_ip(), "link", "set", port, "master", topology.bridge, "up"])


def is_plugged(topology: Topology, node: Node) -> bool:
    """Tell whether a node is connected to the bridge."""
    return Path("/sys/class/net", topology.bridge, "brif", _port(topology, node)).exists()


def slot_is_free(topology: Topology) -> bool:
    """Tell whether neither a link nor an address range of the slot is in use on this machine."""
    if Path("/sys/class/net", topology.bridge).exists():
        return False
    taken = run([_ip(), "-4", "route", "show", "table", "all"])
    ranges = (topology.node_cidr, topology.pod_cidr, topology.service_cidr)
    prefixes = tuple(f"10.{cidr.split('.')[1]}." for cidr in ranges)
    return not any(word.startswith(prefixes) for line in taken.splitlines() for word in line.split()[:2])


def _port(topology: Topology, node: Node) -> str:
    return f"{topology.bridge}-{node.name}"


def _ip() -> str:
    return find("ip") or "ip"


def _iptables() -> str:
    return find("iptables") or "iptables"
