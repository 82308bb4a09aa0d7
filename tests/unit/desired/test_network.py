"""What a job's pods may reach and who may reach them."""

from ipaddress import ip_address, ip_network

import pytest

from opengpu_operator.api.translation import Port
from opengpu_operator.desired.job import build
from tests.support.jobs import JOB, JOB_ID, context, one, service, settings, translation, worker

SIBLINGS = {"podSelector": {"matchLabels": {"opengpu.network/job": JOB_ID}}}


def policy(*, call=True, network=None, **fields):
    services = worker(), service("web", ports=[Port(container=80, published=8080)])
    spec = {"functionName": "chat"} if call else {}
    configured = settings(network=network or {})
    return one(build(translation(*services), context(spec=spec, **fields), configured), "NetworkPolicy")[
        "spec"
    ]


def test_applies_to_the_jobs_pods_both_ways():
    assert policy()["podSelector"] == SIBLINGS["podSelector"]
    assert policy()["policyTypes"] == ["Ingress", "Egress"]


def test_siblings_reach_every_port_but_the_workers():
    rule = policy()["ingress"][0]
    assert rule["from"] == [SIBLINGS]
    tcp = [range(item["port"], item["endPort"] + 1) for item in rule["ports"] if item["protocol"] == "TCP"]
    assert [port for port in range(1, 65536) if not any(port in part for part in tcp)] == [5555]


def test_where_nothing_is_called_siblings_reach_every_port():
    assert policy(call=False)["ingress"][0] == {"from": [SIBLINGS]}


@pytest.mark.parametrize(
    ("namespace", "selector"),
    [("edge", {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}), (None, {})],
)
def test_the_ingress_controller_reaches_routed_ports(namespace, selector):
    rule = policy(network={"ingressNamespace": namespace})["ingress"][1]
    assert rule == {"from": [{"namespaceSelector": selector}], "ports": [{"port": 80, "protocol": "TCP"}]}


def test_resolvers_by_address_and_by_pod():
    rule = policy(resolvers=["10.96.0.10", "fd00::a"])["egress"][1]
    assert [item["ipBlock"]["cidr"] for item in rule["to"][:-1]] == ["10.96.0.10/32", "fd00::a/128"]
    assert rule["to"][-1]["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    assert rule["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def test_the_store():
    assert policy()["egress"][2] == {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "opengpu-system"}},
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "store"}},
            }
        ],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    }


def test_the_internet_without_what_is_private_or_ours():
    rule = policy(network={"extraBlockedCidrs": ["203.0.113.7/24", "2001:db8::/48", "10.0.0.0/8"]})["egress"][
        3
    ]
    assert "ports" not in rule
    four, six = (item["ipBlock"] for item in rule["to"])
    assert four["cidr"] == "0.0.0.0/0"
    assert six["cidr"] == "::/0"
    for blocked in ("10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "203.0.113.0/24"):
        assert four["except"].count(blocked) == 1
    for blocked in ("fc00::/7", "fe80::/10", "2001:db8::/48"):
        assert six["except"].count(blocked) == 1


def test_can_be_left_to_the_clusters_owner():
    objects = build(
        translation(worker()), context(spec={"functionName": "chat"}), settings(network={"enabled": False})
    )
    assert not [obj for obj in objects.objects if obj["kind"] == "NetworkPolicy"]


def separated(*, call=True, **fields):
    services = (
        worker(networks=["front", "back"], ports=[Port(container=80, published=8080)]),
        service("proxy", networks=["front"]),
        service("db", networks=["back"], offline=True),
        service("beside", joins="db", networks=["back"], offline=True),
    )
    spec = {"functionName": "chat"} if call else {}
    objects = build(translation(*services), context(spec=spec, **fields), settings()).objects
    return {
        kind: {obj["metadata"]["name"]: obj["spec"] for obj in objects if obj["kind"] == kind}
        for kind in ("NetworkPolicy", "Deployment", "Job")
    }


def marks(network):
    return {"matchLabels": {"opengpu.network/job": JOB_ID, f"network.opengpu.network/{network}": ""}}


def test_services_that_the_file_separates_reach_their_networks_only():
    policies = separated()["NetworkPolicy"]
    assert set(policies) == {JOB, f"{JOB}-internet", f"{JOB}-network-front", f"{JOB}-network-back"}
    for network in ("front", "back"):
        spec = policies[f"{JOB}-network-{network}"]
        assert spec["podSelector"] == marks(network)
        assert spec["egress"] == [{"to": [{"podSelector": marks(network)}]}]
        (rule,) = spec["ingress"]
        assert rule["from"] == [{"podSelector": marks(network)}]
        assert 5555 not in {number for item in rule["ports"] for number in (item["port"], item["endPort"])}
    common = policies[JOB]
    assert common["podSelector"] == {"matchLabels": {"opengpu.network/job": JOB_ID}}
    assert SIBLINGS not in [peer for rule in common["egress"] for peer in rule["to"]]
    assert [list(rule["from"][0]) for rule in common["ingress"]] == [["namespaceSelector"]]
    assert not any(
        "ipBlock" in peer and peer["ipBlock"]["cidr"] == "0.0.0.0/0"
        for rule in common["egress"]
        for peer in rule["to"]
    )


def test_pods_of_internal_networks_do_not_reach_the_internet():
    found = separated()
    spec = found["NetworkPolicy"][f"{JOB}-internet"]
    assert spec["podSelector"]["matchExpressions"] == [
        {"key": "opengpu.network/offline", "operator": "DoesNotExist"}
    ]
    assert spec["policyTypes"] == ["Egress"]
    assert {peer["ipBlock"]["cidr"] for peer in spec["egress"][0]["to"]} == {"0.0.0.0/0", "::/0"}
    labels = {
        name.removeprefix(f"{JOB}-"): {
            key
            for key in workload["template"]["metadata"]["labels"]
            if "network.opengpu" in key or "offline" in key
        }
        for name, workload in found["Deployment"].items()
    }
    assert labels == {
        "worker": {"network.opengpu.network/front", "network.opengpu.network/back"},
        "proxy": {"network.opengpu.network/front"},
        "db": {"network.opengpu.network/back", "opengpu.network/offline"},
    }


def test_a_job_that_is_wholly_cut_off_has_no_way_out():
    one_service = service("main", networks=[], offline=True)
    objects = build(translation(one_service), context(), settings()).objects
    policies = [obj for obj in objects if obj["kind"] == "NetworkPolicy"]
    assert [obj["metadata"]["name"] for obj in policies] == [JOB]


def test_a_job_without_a_call_closes_no_port_of_a_network():
    policies = separated(call=False)["NetworkPolicy"]
    assert "ports" not in policies[f"{JOB}-network-back"]["ingress"][0]


# --- tunnels: https to ask for one, and port 7844 by QUIC or HTTP/2 to keep it ----------------------------------------


def reaches(policies, labels, address, port, protocol):
    """Return whether a pod with these labels may send to an address outside, by the policies that select it."""

    def selects(selector):
        absent = [item["key"] for item in selector.get("matchExpressions", [])]
        return selector["matchLabels"].items() <= labels.items() and not set(absent) & set(labels)

    def allows(rule):
        blocks = [peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer]
        to = any(
            ip_address(address) in ip_network(block["cidr"])
            and not any(ip_address(address) in ip_network(part) for part in block.get("except", []))
            for block in blocks
        )
        ports = rule.get("ports")
        return to and (
            ports is None
            or any(
                item["protocol"] == protocol and item["port"] <= port <= item.get("endPort", item["port"])
                for item in ports
            )
        )

    return any(allows(rule) for spec in policies if selects(spec["podSelector"]) for rule in spec["egress"])


@pytest.mark.parametrize("call", [True, False], ids=["call", "job"])
@pytest.mark.parametrize("split", [True, False], ids=["networks", "one network"])
@pytest.mark.parametrize(("port", "protocol"), [(443, "TCP"), (7844, "TCP"), (7844, "UDP")])
def test_a_tunnel_gets_out_to_the_internet_alone(call, split, port, protocol):
    if split:
        policies = separated(call=call)["NetworkPolicy"].values()
        labels = separated(call=call)["Deployment" if call else "Job"]
        labels = next(
            workload["template"]["metadata"]["labels"]
            for name, workload in labels.items()
            if name.endswith("-proxy")
        )
    else:
        policies = [policy(call=call)]
        labels = {"opengpu.network/job": JOB_ID}
    # Cloudflare's edge, by both of its families.
    for address in ("198.41.192.7", "2606:4700:a0::1"):
        assert reaches(policies, labels, address, port, protocol)
    for address in ("10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1"):
        assert not reaches(policies, labels, address, port, protocol)


@pytest.mark.parametrize(("port", "protocol"), [(443, "TCP"), (7844, "TCP"), (7844, "UDP")])
def test_a_service_of_internal_networks_gets_no_tunnel(port, protocol):
    found = separated()
    labels = found["Deployment"][f"{JOB}-db"]["template"]["metadata"]["labels"]
    for address in ("198.41.192.7", "2606:4700:a0::1"):
        assert not reaches(found["NetworkPolicy"].values(), labels, address, port, protocol)
