"""The firewall rules: exactly the cluster's own, in and out."""

import re
import shlex

import pytest

from localcluster import network
from localcluster.topology import MAX_NODES, MAX_SLOTS, Topology


def _topology(slot: int, name: str = "demo", nodes: int = 2) -> Topology:
    return Topology(name, nodes, slot, etcd_port=1, etcd_peer_port=2, api_port=6443, ingress_port=8088)


def test_every_rule_in_a_shared_chain_names_the_cluster() -> None:
    for _, chain, rule in network.jumps(_topology(0)):
        assert chain in ("FORWARD", "INPUT", "POSTROUTING")
        assert "localcluster demo" in rule
        assert rule[-2:] == ("-j", "LOCALCLUSTER-0")


def test_the_rules_as_text() -> None:
    text = [" ".join((table, chain, *rule)) for table, chain, rule in network.rules(_topology(1))]
    assert text == [
        "filter LOCALCLUSTER-1 -i lc1 -j ACCEPT",
        "filter LOCALCLUSTER-1 -o lc1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "nat LOCALCLUSTER-1 -s 10.233.0.0/24 ! -o lc1 -j MASQUERADE",
        "nat LOCALCLUSTER-1 -s 10.245.0.0/16 ! -o lc1 -j MASQUERADE",
    ]


class Iptables:
    """A machine's rules, kept as ``iptables -S`` prints them."""

    def __init__(self, *foreign: str) -> None:
        self.rules = list(foreign)

    def __call__(self, argv: list[str]) -> str:
        program, *arguments = argv
        if program != "iptables":
            return ""
        assert arguments[:2] == ["-w", "-t"]
        table, command, *rule = arguments[2:]
        text = f"{table} {shlex.join(rule)}"
        match command:
            case "-S":
                mine = [line.partition(" ") for line in self.rules]
                return "".join(f"{rest}\n" for name, _, rest in mine if name == table)
            case "-N":
                self.rules.append(f"{table} -N {rule[0]}")
            case "-A" | "-I":
                self.rules.append(f"{table} -A {shlex.join(rule)}")
            case "-D":
                self.rules.remove(f"{table} -A {shlex.join(rule)}")
            case "-F":
                self.rules = [kept for kept in self.rules if not kept.startswith(f"{table} -A {rule[0]} ")]
            case "-X":
                self.rules.remove(f"{table} -N {rule[0]}")
            case _:
                pytest.fail(text)
        return ""


def test_what_is_created_is_what_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = (
        "filter -P FORWARD DROP",
        "filter -N DOCKER",
        "filter -A FORWARD -j DOCKER",
        "nat -A POSTROUTING -j X",
    )
    machine = Iptables(*foreign)
    monkeypatch.setattr(network, "find", lambda program: program)
    monkeypatch.setattr(network, "run", machine)
    topology = _topology(MAX_SLOTS - 1)
    for table in ("filter", "nat"):
        machine(["iptables", "-w", "-t", table, "-N", network.chain(topology)])
    for table, chain, rule in [*network.rules(topology), *network.jumps(topology)]:
        machine(["iptables", "-w", "-t", table, "-A", chain, *rule])
    assert len(machine.rules) == len(foreign) + 9
    network.destroy(topology)
    assert machine.rules == list(foreign)
    network.destroy(topology)
    assert machine.rules == list(foreign)


def test_names_fit_and_ranges_do_not_overlap() -> None:
    seen: set[str] = set()
    for slot in range(MAX_SLOTS):
        topology = _topology(slot, nodes=MAX_NODES)
        assert len(network.chain(topology)) <= 28
        assert all(len(f"{topology.bridge}-{node.name}") <= 15 for node in topology.nodes)
        ranges = {topology.node_cidr, topology.pod_cidr, topology.service_cidr}
        assert not ranges & seen
        seen |= ranges
        for cidr in ranges:
            assert all(int(octet) < 256 for octet in re.findall(r"\d+", cidr)[:4])


def test_a_slot_in_use_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        network, "run", lambda _: "default via 192.0.2.1 dev eth0\n10.244.0.0/16 dev docker0\n"
    )
    assert not network.slot_is_free(_topology(0, name="x"))
    assert network.slot_is_free(_topology(MAX_SLOTS - 1, name="x"))
