"""URLs of ports as the real operator makes them: Ingresses by option, HTTPRoutes, and what can't be had."""

from __future__ import annotations

import pytest

from opengpu_operator.api.translation import Port
from opengpu_operator.desired.job import build
from tests.controlplane import dryrun
from tests.controlplane.conftest import install
from tests.controlplane.test_operator import OGT, Cluster
from tests.support.gatewayapi import definitions
from tests.support.jobs import context, service, settings, translation, worker
from tests.support.stack import Stack, eventually, running

pytestmark = pytest.mark.controlplane

INGRESSES = "/apis/networking.k8s.io/v1/namespaces/{}/ingresses"
HTTP_ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
HASH = "ab" * 32
GATEWAY = {"name": "public", "namespace": "gateways", "sectionName": "https"}
COMPOSE = """
services:
  worker:
    image: example.com/worker:1
    ports: ["${PORT}:5555", "8080:8080", "9000:9000"]
    environment: ["CALLBACK_URL=${CALLBACK_URL}"]
"""


@pytest.fixture
def clustered(api, kubeconfig, namespace, tmp_path):
    """Starts an operator with some settings of routes, which sees this test's namespace alone."""
    stacks = []

    def start(**routes):
        configured = {"domain": "gpux.localhost", **routes}
        stack = running(Stack(tmp_path, kubeconfig, namespaces={"watch": [namespace]}, routes=configured))
        stacks.append(stack)
        cluster = Cluster(api, stack.__enter__(), namespace)
        cluster.source(files={"cpu": COMPOSE})
        return cluster

    yield start
    for stack in stacks:
        stack.__exit__(None, None, None)


@pytest.fixture
def gateway_api(api):
    """Defines the Gateway API's kinds when it is called; they are gone before and after."""
    names = [definition["metadata"]["name"] for definition in definitions()]

    def remove():
        for name in names:
            api.request("DELETE", f"{DEFINITIONS}/{name}")
        eventually(
            lambda: all(api.request("GET", f"{DEFINITIONS}/{name}")[0] == 404 for name in names),
            within=60,
            otherwise="the Gateway API's definitions don't go",
        )

    def define():
        for definition in definitions():
            install(api, definition)

    remove()
    yield define
    remove()


def routed(cluster, path, uid):
    """Return a task's routes by host."""
    _, answer = cluster.api.request(
        "GET", path.format(cluster.namespace), labelSelector=f"opengpu.network/task-uid={uid}"
    )
    return {
        host: item
        for item in answer["items"]
        for host in item["spec"].get("hostnames") or [rule["host"] for rule in item["spec"]["rules"]]
    }


def change(cluster, **spec):
    path = OGT.format(cluster.namespace) + "/ask"
    status, body = cluster.api.request("PATCH", path, {"spec": spec}, content=MERGE)
    assert status == 200, body


def accept(cluster, route, *, accepted):
    """Say of a route what a Gateway's controller says of it."""
    condition = {
        "type": "Accepted",
        "status": str(accepted),
        "reason": "Accepted" if accepted else "NotAllowedByListeners",
        "message": "played by the test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    parent = {
        "parentRef": {"name": "public"},
        "controllerName": "example.org/gateway",
        "conditions": [condition],
    }
    path = f"{HTTP_ROUTES.format(cluster.namespace)}/{route['metadata']['name']}/status"
    status, body = cluster.api.request(
        "PATCH", path, {"status": {"parents": [parent]}}, content=MERGE, fieldValidation="Strict"
    )
    assert status == 200, body


def urls(cluster):
    return [entry["port"] for entry in cluster.get(OGT, "ask")["status"].get("urls", [])]


def objections(api, namespace, **routes):
    """Return what the API server has against the routes of a job that uses every option."""
    ports = [Port(container=port, published=port) for port in (8080, 8443, 9000, 9001)]
    access = {"allowedCidrs": ["192.0.2.0/24", "2001:db8::/32"], "tokenSha256": HASH}
    spec = {
        "functionName": "chat",
        "portOptions": [
            {"port": 8080, "requestTimeoutSeconds": 70, "maxBodySize": "64Mi"},
            {"port": 8443, "protocol": "HTTPS"},
            {"port": 9000, "protocol": "GRPC", "requestTimeoutSeconds": 86400},
            {"port": 9001, "access": access},
        ],
    }
    built = build(
        translation(worker(), service("web", ports=ports)),
        context(spec=spec, namespace=namespace),
        settings(routes={"domain": "gpux.example", **routes}),
    )
    found = [obj for obj in built.objects if obj["kind"] in {"Service", "Ingress", "HTTPRoute"}]
    assert {obj["kind"] for obj in found} == {"Service", routes.get("kind", "Ingress")}
    return [problem for obj in found for problem in dryrun.objections(api, obj, namespace)]


def test_options_come_and_go_with_ingresses_of_their_own(clustered):
    cluster = clustered(profile="skipper", ingressClassName="skipper")
    task = cluster.call()
    uid = task["metadata"]["uid"]
    job = cluster.until(OGT, "ask", "Routed", status="True")["status"]["jobId"]
    open_, limited = f"{job}-8080.gpux.localhost", f"{job}-9000.gpux.localhost"
    before = routed(cluster, INGRESSES, uid)
    assert {item["metadata"]["name"] for item in before.values()} == {f"j-{job}"}
    change(
        cluster,
        portOptions=[
            {
                "port": 9000,
                "requestTimeoutSeconds": 70,
                "access": {"allowedCidrs": ["192.0.2.7/24"], "tokenSha256": HASH},
            }
        ],
    )
    eventually(
        lambda: (
            "zalando.org/skipper-predicate"
            in (
                routed(cluster, INGRESSES, uid)
                .get(limited, {"metadata": {}})["metadata"]
                .get("annotations", {})
            )
        ),
        within=20,
        otherwise=cluster.stack.logs,
    )
    after = routed(cluster, INGRESSES, uid)
    assert after[open_]["metadata"]["uid"] == before[open_]["metadata"]["uid"]
    annotations = after[limited]["metadata"]["annotations"]
    assert annotations["zalando.org/skipper-predicate"] == (
        f'ClientIP("192.0.2.0/24") && HeaderSHA256("Authorization", "{HASH}")'
    )
    assert 'backendTimeout("70s")' in annotations["zalando.org/skipper-filter"]
    pods = cluster.children(uid)["deployments"]
    assert [item["metadata"]["generation"] for item in pods] == [1], "routes never restart a pod"
    change(cluster, portOptions=None)
    eventually(
        lambda: (
            {item["metadata"]["name"] for item in routed(cluster, INGRESSES, uid).values()} == {f"j-{job}"}
        ),
        within=20,
        otherwise=cluster.stack.logs,
    )


def test_a_port_that_is_listed_later_is_in_the_service_too(clustered):
    cluster = clustered()
    uid = cluster.call(ports=[8080])["metadata"]["uid"]
    cluster.until(OGT, "ask", "Routed", status="True")
    change(cluster, ports=[8080, 9000])

    def ports():
        found = [
            item
            for item in cluster.children(uid)["services"]
            if item["metadata"]["name"].endswith("-r-worker")
        ]
        return [port["port"] for item in found for port in item["spec"]["ports"]]

    eventually(lambda: ports() == [8080, 9000], within=20, otherwise=cluster.stack.logs)
    assert "5555" not in str([item["spec"] for item in cluster.children(uid)["services"]])


def test_what_cant_be_enforced_gets_no_url(clustered):
    cluster = clustered()
    access = {"allowedCidrs": ["192.0.2.0/24"]}
    uid = cluster.call(portOptions=[{"port": 9000, "access": access}])["metadata"]["uid"]
    found = cluster.until(OGT, "ask", "Routed", status="False", reason="PortNotRouted")
    message = cluster.condition(OGT, "ask", "Routed")["message"]
    assert "Port 9000 has no URL" in message
    assert "access.allowedCidrs" in message
    assert urls(cluster) == [8080]
    job = found["status"]["jobId"]
    assert set(routed(cluster, INGRESSES, uid)) == {f"{job}-8080.gpux.localhost"}
    assert cluster.children(uid)["deployments"]
    change(cluster, access=access)
    eventually(lambda: not routed(cluster, INGRESSES, uid), within=20, otherwise=cluster.stack.logs)
    eventually(lambda: urls(cluster) == [], within=20)
    change(cluster, access=None, portOptions=[{"port": 9000, "maxBodySize": "64Mi"}])
    cluster.until(OGT, "ask", "Routed", status="True", reason="PortOptionIgnored")
    assert "maxBodySize" in cluster.condition(OGT, "ask", "Routed")["message"]
    assert urls(cluster) == [8080, 9000]


def test_httproutes_wait_for_the_gateway_api_and_are_kept_up(clustered, gateway_api):
    cluster = clustered(kind="HTTPRoute", gateway=GATEWAY)
    uid = cluster.call(portOptions=[{"port": 9000, "protocol": "H2C", "requestTimeoutSeconds": 70}])[
        "metadata"
    ]["uid"]
    cluster.until(OGT, "ask", "Ready", reason="GatewayApiMissing")
    assert "install the Gateway API's definitions" in cluster.condition(OGT, "ask", "Ready")["message"]
    # All else is there.
    assert cluster.pod(uid)
    gateway_api()
    assert objections(cluster.api, cluster.namespace, kind="HTTPRoute", gateway=GATEWAY) == []
    # Whatever makes the operator look again; it does by itself, after half a minute.
    change(cluster, ports=[8080, 9000])
    eventually(lambda: len(routed(cluster, HTTP_ROUTES, uid)) == 2, within=60, otherwise=cluster.stack.logs)
    job = cluster.until(OGT, "ask", "Routed", status="True", reason="Routed")["status"]["jobId"]
    host = f"{job}-9000.gpux.localhost"
    route = routed(cluster, HTTP_ROUTES, uid)[host]
    (parent,) = route["spec"]["parentRefs"]
    assert {key: parent[key] for key in GATEWAY} == GATEWAY
    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "70s"}
    (backend,) = rule["backendRefs"]
    services = {
        item["metadata"]["name"]: item["spec"]["ports"]
        for item in cluster.children(uid)["services"]
        if item["spec"].get("ports")
    }
    assert [(port["port"], port["appProtocol"]) for port in services[backend["name"]]] == [
        (9000, "kubernetes.io/h2c")
    ]
    assert not routed(cluster, INGRESSES, uid)
    accept(cluster, route, accepted=False)
    cluster.until(OGT, "ask", "Routed", status="False", reason="RouteNotAccepted")
    assert "NotAllowedByListeners" in cluster.condition(OGT, "ask", "Routed")["message"]
    accept(cluster, route, accepted=True)
    cluster.until(OGT, "ask", "Routed", status="True", reason="Routed")
    # The watch, which began after the operator: what is deleted by hand is made again, what isn't asked for goes.
    path = HTTP_ROUTES.format(cluster.namespace)
    cluster.api.request("DELETE", f"{path}/{route['metadata']['name']}")
    eventually(
        lambda: (
            routed(cluster, HTTP_ROUTES, uid).get(host, route)["metadata"]["uid"] != route["metadata"]["uid"]
        ),
        within=30,
        otherwise=cluster.stack.logs,
    )
    change(cluster, ports=[8080], portOptions=None)
    eventually(lambda: host not in routed(cluster, HTTP_ROUTES, uid), within=20, otherwise=cluster.stack.logs)


@pytest.mark.parametrize(
    "profile", ["contour", "haproxy", "haproxy-ingress", "nginx", "nginx-f5", "skipper", "traefik"]
)
def test_the_api_server_accepts_ingresses_field_by_field(api, namespace, profile):
    assert objections(api, namespace, profile=profile, scheme="https") == []
