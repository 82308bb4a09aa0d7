"""The ingress' certificate: for every host, by an authority that nothing else trusts, made once."""

import base64
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from localcluster import ingresstls
from localcluster.paths import Layout
from localcluster.pki import Authority
from localcluster.topology import INGRESS_PORT, Topology, tls_port


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("LOCALCLUSTER_HOME", str(tmp_path))
    return Layout("local")


def verified(authority: Authority, bundle: Path, host: str) -> bool:
    command: list[str | Path] = ["openssl", "verify", "-CAfile", bundle, "-verify_hostname", host]
    return subprocess.run([*command, authority.certificate("ingress")], check=False).returncode == 0


def test_it_is_for_every_host_and_of_no_other_authority(layout: Layout, tmp_path: Path) -> None:
    made = ingresstls.ensure(layout)
    assert verified(made, made.bundle, "0123456789abcdef-8080.gpux.localhost")
    assert not verified(made, made.bundle, "gpux.localhost.example.org")
    cluster = Authority(tmp_path / "cluster")
    cluster.create()
    assert not verified(made, cluster.bundle, "a.gpux.localhost")


def test_it_is_made_once_and_whole(layout: Layout) -> None:
    half = layout.ingress_pki.with_suffix(".partial")
    half.mkdir(parents=True)
    (half / "ca.key").write_text("a run that was killed")
    first = ingresstls.ensure(layout).bundle.read_bytes()
    assert ingresstls.ensure(layout).bundle.read_bytes() == first
    assert not half.exists()


def test_the_controllers_namespace_gets_the_certificate_and_not_the_authoritys_key(layout: Layout) -> None:
    made = ingresstls.ensure(layout)
    secret = json.loads(ingresstls.manifest(made))
    assert secret["metadata"]["namespace"] == "ingress-system"
    values = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    assert values == {
        "tls.crt": made.certificate("ingress").read_bytes(),
        "tls.key": made.key("ingress").read_bytes(),
    }


def test_an_answer_is_one_with_that_certificate(layout: Layout, tmp_path: Path) -> None:
    made = ingresstls.ensure(layout)
    other = Authority(tmp_path / "other")
    other.create()
    other.issue("ingress", "up", alternatives=["DNS:*.gpux.localhost"])
    for authority, expected in ((made, True), (other, False)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate("ingress"), authority.key("ingress"))
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            thread = threading.Thread(target=shake_hands, args=(server, context))
            thread.start()
            assert ingresstls.answers(layout, port) is expected
            thread.join()
        assert not ingresstls.answers(layout, port), "nobody listens any more"


def shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = server.accept()
    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
        tls.recv(1)


def test_a_cluster_without_a_certificate_does_not_answer(layout: Layout) -> None:
    assert not ingresstls.answers(layout, 1)


def test_its_port_follows_from_the_other_so_that_what_is_known_of_a_cluster_stays_the_same() -> None:
    topology = Topology("local", 2, 0, etcd_port=1, etcd_peer_port=2, api_port=3, ingress_port=INGRESS_PORT)
    assert topology.ingress_tls_port == tls_port(INGRESS_PORT) == 8443
    alone = Topology("local", 0, None, etcd_port=1, etcd_peer_port=2, api_port=3)
    assert alone.ingress_tls_port is None
