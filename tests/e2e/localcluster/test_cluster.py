"""What everything else stands on: each property of the running cluster is shown by using it."""

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localcluster.images import BASE_IMAGE
from tests.e2e.localcluster.cluster_probe import Cluster, eventually

_SERVER = "python3 -m http.server 8080 --directory /etc"


def _pod(
    namespace: str, name: str, command: str = "sleep infinity", node: str = "", **spec: Any
) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": BASE_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", f"exec {command}"],
    }
    container |= spec.pop("container", {})
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def _service(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def _await_ready(cluster: Cluster, namespace: str, *pods: str) -> None:
    cluster(
        "wait", "-n", namespace, "--for=condition=Ready", "--timeout=300s", *(f"pod/{pod}" for pod in pods)
    )


def _fetch(cluster: Cluster, namespace: str, pod: str, url: str) -> Callable[[], bool]:
    """Return a probe: does a pod get an answer from a URL within 2 s?"""
    program = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=2).status)"

    def probe() -> bool:
        return (
            cluster.run("exec", "-n", namespace, pod, "--", "python3", "-c", program).stdout.strip() == "200"
        )

    return probe


def _not(probe: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: not probe()


def test_both_nodes_are_ready(cluster: Cluster) -> None:
    conditions = {
        node["metadata"]["name"]: {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"]
        for node in cluster.get("nodes")["items"]
    }
    assert conditions == {"node-a": "True", "node-b": "True"}


def test_two_pods_share_a_claim_of_the_default_class(cluster: Cluster, namespace: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "shared", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}]
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    cluster.apply(
        claim,
        _pod(namespace, "writer", volumes=volumes, container=mount),
        _pod(namespace, "reader", volumes=volumes, container=mount),
    )
    _await_ready(cluster, namespace, "writer", "reader")
    cluster.python(namespace, "writer", "open('/data/x', 'w').write('hello')")
    assert cluster.python(namespace, "reader", "print(open('/data/x').read())") == "hello"
    assert cluster.get("pvc", "shared", "-n", namespace)["status"]["phase"] == "Bound"


def test_a_pod_finds_a_service_by_name(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        _pod(namespace, "server", _SERVER), _service(namespace, "server"), _pod(namespace, "client")
    )
    _await_ready(cluster, namespace, "server", "client")
    eventually("an answer by name", _fetch(cluster, namespace, "client", "http://server/hostname"))
    resolve = "import socket; print(socket.gethostbyname('kubernetes.default.svc.cluster.local'))"
    expected = cluster.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    assert cluster.python(namespace, "client", resolve) == expected


def test_pods_of_different_nodes_reach_each_other_with_their_own_addresses(
    cluster: Cluster, namespace: str
) -> None:
    serve = """python3 -c '
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()'"""
    for name, node in (("left", "node-a"), ("right", "node-b")):
        cluster.apply(_pod(namespace, name, serve, node), _service(namespace, name))
    _await_ready(cluster, namespace, "left", "right")
    addresses = {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in cluster.get("pods", "-n", namespace)["items"]
    }
    for client, server in (("left", "right"), ("right", "left")):
        for target in (f"http://{addresses[server]}:8080/", f"http://{server}/"):
            eventually(f"{client} to reach {target}", _fetch(cluster, namespace, client, target))
            seen = f"import urllib.request as u; print(u.urlopen({target!r}, timeout=30).read().decode())"
            assert cluster.python(namespace, client, seen) == addresses[client]


def test_the_ingress_leads_from_loopback_to_a_pod(cluster: Cluster, namespace: str) -> None:
    # Not below the operator's domain, whose hosts are the operator's.
    host = f"{namespace}.other.localhost"
    backend = {"service": {"name": "server", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "server", "namespace": namespace},
        "spec": {"rules": [rule]},
    }
    cluster.apply(_pod(namespace, "server", _SERVER), _service(namespace, "server"), ingress)
    _await_ready(cluster, namespace, "server")
    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.status['ingressPort']}/hostname", headers={"Host": host}
    )

    def answer() -> bytes | None:
        try:
            with urllib.request.urlopen(request, timeout=2) as response:
                body: bytes = response.read()
                return body
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    assert eventually("the ingress to answer", answer).strip() == b"server"
    assert cluster.get("ingressclass", "skipper")["metadata"]["annotations"] == {
        "ingressclass.kubernetes.io/is-default-class": "true"
    }


def test_a_network_policy_isolates_until_it_is_removed(cluster: Cluster, namespace: str) -> None:
    """Both ways to the server, on the client's own node and across nodes, and through the Service."""
    cluster.apply(
        _pod(namespace, "server", _SERVER, "node-a"),
        _service(namespace, "server"),
        _pod(namespace, "near", node="node-a"),
        _pod(namespace, "far", node="node-b"),
    )
    _await_ready(cluster, namespace, "server", "near", "far")
    address = cluster.get("pod", "server", "-n", namespace)["status"]["podIP"]
    probes = {
        (client, url): _fetch(cluster, namespace, client, url)
        for client in ("near", "far")
        for url in (f"http://{address}:8080/", "http://server/")
    }
    for who, reaches in probes.items():
        eventually(f"{who} before the policy", reaches)
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
    }
    cluster.apply(policy)
    for who, reaches in probes.items():
        eventually(f"{who} to be kept out", _not(reaches))
    cluster("delete", "networkpolicy", "deny", "-n", namespace)
    for who, reaches in probes.items():
        eventually(f"{who} after the policy", reaches)


def test_gpu_limits_give_devices_and_no_more_than_there_are(cluster: Cluster, namespace: str) -> None:
    def wants(name: str, resource: str, count: int) -> dict[str, Any]:
        limits = {"resources": {"limits": {resource: str(count)}}}
        return _pod(namespace, name, node="node-a", container=limits)

    cluster.apply(
        _pod(namespace, "plain"), wants("first", "nvidia.com/gpu", 2), wants("amd", "amd.com/gpu", 2)
    )
    _await_ready(cluster, namespace, "plain", "first", "amd")
    cluster.apply(wants("second", "nvidia.com/gpu", 2))
    _await_ready(cluster, namespace, "second")
    cluster.apply(wants("third", "nvidia.com/gpu", 1))

    def devices(pod: str, variable: str) -> set[str]:
        seen = cluster.python(namespace, pod, f"import os; print(os.environ.get({variable!r}, ''))")
        return set(filter(None, seen.split(",")))

    first, second = (devices(pod, "NVIDIA_VISIBLE_DEVICES") for pod in ("first", "second"))
    assert len(first) == len(second) == 2
    assert not first & second
    assert all(device.startswith("GPU-fake-") for device in first | second)
    assert len(devices("amd", "AMD_VISIBLE_DEVICES")) == 2
    assert cluster.python(namespace, "amd", "import os; print(os.path.exists('/dev/kfd'))") == "True"
    assert devices("plain", "NVIDIA_VISIBLE_DEVICES") == set()

    def refused() -> str | None:
        status = cluster.get("pod", "third", "-n", namespace)["status"]
        return next(
            (c["message"] for c in status.get("conditions", []) if c.get("reason") == "Unschedulable"), None
        )

    assert "Insufficient nvidia.com/gpu" in eventually("the scheduler's verdict", refused)


def test_only_the_first_node_has_amd_gpus(cluster: Cluster) -> None:
    offered = {
        node["metadata"]["name"]: (
            node["status"]["allocatable"]["nvidia.com/gpu"],
            node["status"]["allocatable"].get("amd.com/gpu", "0"),
            node["metadata"]["labels"]["nvidia.com/gpu.product"],
        )
        for node in cluster.get("nodes")["items"]
    }
    assert offered == {
        "node-a": ("4", "2", "Fake-A100-SXM4-80GB"),
        "node-b": ("4", "0", "Fake-A100-SXM4-80GB"),
    }


def test_the_audit_log_names_who_created_what(cluster: Cluster, namespace: str) -> None:
    cluster("create", "configmap", "seen", "-n", namespace)
    wanted = f'"namespace":"{namespace}","name":"seen"'

    def logged() -> bool:
        with Path(cluster.status["auditLog"]).open(encoding="utf-8") as log:
            return any(wanted in line and '"verb":"create"' in line for line in log)

    eventually("the audit log", logged, 10)


def test_pod_security_is_enforced_by_namespace_labels(cluster: Cluster, namespace: str) -> None:
    cluster("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline")
    refused = cluster.run("run", "bad", "-n", namespace, "--image=x", "--privileged")
    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr


def test_nothing_listens_on_a_public_address(cluster: Cluster) -> None:
    """The API server and the ingress answer on the bridge and on loopback alone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which address would be used
        public = probe.getsockname()[0]
    for port in (6443, cluster.status["ingressPort"], cluster.status["ingressTLSPort"]):
        with socket.socket() as connection:
            connection.settimeout(1)
            assert connection.connect_ex((public, port)) != 0
