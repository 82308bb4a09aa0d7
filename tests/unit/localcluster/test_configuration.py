"""The files that the cluster's programs read, and those that the user does."""

import json
import ssl
import tomllib
from pathlib import Path

import pytest
import yaml

from localcluster import addons, kubeconfig, nodeconfig, packages
from localcluster.errors import Failure
from localcluster.paths import Layout
from localcluster.pki import Authority
from localcluster.topology import Topology, free_ports, next_port
from tests.support.environment import unavailable

TOPOLOGY = Topology("demo", 2, 0, etcd_port=1, etcd_peer_port=2, api_port=6443, ingress_port=8088)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if packages.find("openssl") is None:
        unavailable("openssl is not installed")
    made = Authority(tmp_path_factory.mktemp("pki") / "pki")
    made.create()
    made.issue("server", "server", alternatives=["DNS:kubernetes", "IP:127.0.0.1"])
    made.issue("admin", "someone", "system:masters")
    return made


def test_the_kubeconfig_holds_everything_and_is_private(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    kubeconfig.write(path, authority, "admin", "https://127.0.0.1:6443", "localcluster-demo")
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == "localcluster-demo"
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}
    assert path.stat().st_mode & 0o077 == 0


def test_certificates_are_what_a_client_accepts(authority: Authority) -> None:
    client = ssl.create_default_context(cafile=str(authority.bundle))
    client.load_cert_chain(authority.certificate("admin"), authority.key("admin"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate("server"), authority.key("server"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done: set[int] = set()
    for _ in range(4):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue
    assert done == {0, 1}


def test_keys_are_private(authority: Authority) -> None:
    assert all(key.stat().st_mode & 0o077 == 0 for key in authority.directory.glob("*.key"))


def test_containerd_reads_its_configuration() -> None:
    config = tomllib.loads(nodeconfig.containerd(Path("/state"), Path("/usr/lib/cni")))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["root"] == "/state/containerd"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == nodeconfig.PAUSE_IMAGE
    assert cri["cni"]["bin_dir"] == "/usr/lib/cni"


def test_pods_keep_their_addresses_between_nodes() -> None:
    bridge = json.loads(nodeconfig.cni(TOPOLOGY.nodes[1]))["plugins"][0]
    assert "ipMasq" not in bridge
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["nameserver 192.0.2.53\nsearch x\n"], "nameserver 192.0.2.53\n"),
        (["nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n"], "nameserver 192.0.2.1\n"),
        (["nameserver ::1\nnameserver 127.0.0.1\n"], "nameserver 10.232.0.1\n"),
        ([], "nameserver 10.232.0.1\n"),
    ],
)
def test_pods_get_a_resolver_that_they_can_reach(sources: list[str], expected: str) -> None:
    assert nodeconfig.resolvers(*sources, fallback="10.232.0.1") == expected


def test_every_manifest_is_rendered_completely() -> None:
    text = addons.render(dns_address="10.96.0.10", shared="/shared")
    objects = [found for found in yaml.safe_load_all(text) if found]
    assert "${" not in text
    named = {
        f"{o['metadata'].get('namespace')}/{o['kind'].lower()}s/{o['metadata']['name']}"
        for o in objects
        if o["kind"] in ("Deployment", "DaemonSet")
    }
    assert named == set(addons.WORKLOADS)


def test_a_topology_survives_being_written_down(tmp_path: Path) -> None:
    TOPOLOGY.save(tmp_path / "state.json")
    assert Topology.load(tmp_path / "state.json") == TOPOLOGY
    (tmp_path / "state.json").write_text('{"name": ')
    assert Topology.load(tmp_path / "state.json") is None


def test_the_state_directory_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALCLUSTER_HOME", str(tmp_path))
    assert Layout("x").root == tmp_path / "x"
    monkeypatch.delenv("LOCALCLUSTER_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert Layout("x").root == tmp_path / "state/localcluster/x"


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a" * 21])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(Failure):
        Layout(name)


def test_a_taken_port_is_passed_over() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert next_port(port) > port


def test_a_claimed_port_is_passed_over() -> None:
    (port,) = free_ports(1)
    assert next_port(port, taken={port}) > port


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20
