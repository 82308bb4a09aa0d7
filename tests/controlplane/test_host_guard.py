"""The admission policy that keeps the hosts of the domain to the operator, as the chart renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.controlplane.conftest import install
from tests.support.gatewayapi import definitions
from tests.support.stack import eventually

pytestmark = pytest.mark.controlplane

CHART = Path(__file__).parents[2] / "charts" / "opengpu-operator"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/{}/ingresses"
HTTP_ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes"
GRPC_ROUTES = "/apis/gateway.networking.k8s.io/v1/namespaces/{}/grpcroutes"
DOMAIN = "jobs.example.org"
FILES = "files.example.net"
RELEASE = "opengpu-guarded"
OPERATOR = f"system:serviceaccount:{RELEASE}:opengpu-operator"
ISSUER = "system:serviceaccount:cert-manager:cert-manager"
TENANT = "tenant"
JOB = f"0123456789abcdef-8080.{DOMAIN}"
BACKEND = {"service": {"name": "a", "port": {"number": 80}}}


def policies(namespace):
    """Return the chart's policies and bindings, with names of this test's own and for its namespace alone."""
    helm = shutil.which("helm", path=f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert helm, "helm isn't there: run make"
    values = {
        "routes": {"hostGuard": {"allow": [ISSUER]}},
        "store": {"external": {"enabled": True, "host": FILES}},
        "settings": {
            "routes": {
                "domain": DOMAIN,
                "ingressClassName": "public",
                "kind": "HTTPRoute",
                "gateway": {"name": "public", "namespace": "gateways"},
            }
        },
    }
    rendered = subprocess.run(
        [
            helm,
            "template",
            "opengpu",
            CHART,
            "-n",
            RELEASE,
            "-s",
            "templates/hostguard.yaml",
            "--values",
            "-",
        ],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for document in filter(None, yaml.safe_load_all(rendered)):
        document["metadata"]["name"] += f"-{os.getpid()}"
        if "policyName" in document["spec"]:
            document["spec"]["policyName"] += f"-{os.getpid()}"
            document["spec"]["matchResources"] = {
                "namespaceSelector": {
                    "matchExpressions": [
                        {
                            "key": "kubernetes.io/metadata.name",
                            "operator": "In",
                            "values": [namespace, RELEASE],
                        }
                    ]
                }
            }
        yield document


@pytest.fixture(scope="module")
def guarded(api):
    """A namespace in which the policies are enforced, and who may do there whatever the policies let them."""
    namespace = f"guarded-{os.getpid()}"
    paths = []

    def make(path, document):
        status, body = api.request("POST", path, document, fieldValidation="Strict")
        assert status == 201, body
        paths.append(f"{path}/{document['metadata']['name']}")

    for name in (namespace, RELEASE):
        make("/api/v1/namespaces", {"metadata": {"name": name}})
    for definition in definitions():
        install(api, definition)
    for document in policies(namespace):
        plural = {
            "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
            "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
        }[document["kind"]]
        make(f"{ADMISSION}/{plural}", document)
    subjects = [
        {"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        for name in (OPERATOR, ISSUER, TENANT)
    ]
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
    make(
        f"{RBAC}/clusterrolebindings",
        {"metadata": {"name": namespace}, "roleRef": role, "subjects": subjects},
    )
    first = ((INGRESSES.format(namespace), ingress(JOB)), (HTTP_ROUTES.format(namespace), http_route([JOB])))
    eventually(
        lambda: all(refused(api, path, document) for path, document in first),
        within=30,
        otherwise="the policies are not enforced",
    )
    yield namespace
    for path in reversed(paths):
        api.request("DELETE", path)
    for definition in definitions():
        api.request(
            "DELETE",
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition['metadata']['name']}",
        )


def ingress(host=None, **spec):
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}
    annotations = spec.pop("annotations", {})
    spec = {"rules": [rule | ({} if host is None else {"host": host})], "ingressClassName": "public", **spec}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "a", "annotations": annotations},
        "spec": spec,
    }


def http_route(hostnames=None, *, gateway="gateways", kind="HTTPRoute"):
    parents = [{"name": "public", "namespace": gateway}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "a"},
        "spec": {"parentRefs": parents, **({} if hostnames is None else {"hostnames": hostnames})},
    }


def refused(api, path, document, user=TENANT):
    """Return why a user may not make an object; None if they may."""
    status, body = api.request("POST", path, document, user=user, dryRun="All")
    assert status in {201, 403}, body
    if status == 201:
        return None
    words = ("hosts are given by the OpenGPU", f"the host {FILES} is the OpenGPU store's alone")
    assert any(said in body["message"].replace(f"under {DOMAIN} ", "") for said in words), body
    return body["message"]


OTHER = "shop.example.com"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(ingress(JOB), id="a job's"),
        pytest.param(ingress(f"files.{DOMAIN}"), id="the store's"),
        pytest.param(ingress(FILES), id="the store's elsewhere"),
        pytest.param(ingress(OTHER, tls=[{"hosts": [FILES]}]), id="the store's certificate"),
        pytest.param(ingress(DOMAIN), id="the domain"),
        pytest.param(ingress(f"a.b.{DOMAIN}"), id="deeper"),
        pytest.param(ingress(f"*.{DOMAIN}"), id="wildcard"),
        pytest.param(ingress("*.example.org"), id="wildcard above"),
        pytest.param(ingress(JOB, ingressClassName="other"), id="of another controller"),
        pytest.param(ingress(), id="any host"),
        pytest.param(ingress(ingressClassName=None), id="any host of the default controller"),
        pytest.param(ingress(OTHER, defaultBackend=BACKEND), id="default backend"),
        pytest.param(ingress(rules=[], defaultBackend=BACKEND), id="default backend alone"),
        pytest.param(ingress(OTHER, tls=[{"hosts": [OTHER]}, {"hosts": [JOB]}]), id="certificate"),
        pytest.param(
            ingress(
                OTHER,
                annotations={"nginx.ingress.kubernetes.io/server-alias": f"x.example.com, {JOB.upper()}."},
            ),
            id="alias",
        ),
        pytest.param(
            ingress(OTHER, annotations={"nginx.ingress.kubernetes.io/server-alias": "~^.*$"}), id="any alias"
        ),
        pytest.param(
            ingress(OTHER, annotations={"haproxy-ingress.github.io/server-alias-regex": ".*"}), id="pattern"
        ),
    ],
)
def test_nobody_else_leads_a_host_of_the_domain_anywhere(api, guarded, document):
    path = INGRESSES.format(guarded)
    assert refused(api, path, document)
    assert refused(api, path, document, user=OPERATOR) is None
    assert refused(api, path, document, user=ISSUER) is None
    assert refused(api, INGRESSES.format(RELEASE), document) is None


@pytest.mark.parametrize("host", [JOB.upper(), f"{JOB}.", f"*.*.{DOMAIN}"])
def test_other_spellings_are_refused_whoever_refuses_them(api, guarded, host):
    status, body = api.request("POST", INGRESSES.format(guarded), ingress(host), user=TENANT, dryRun="All")
    assert status in {403, 422}, body


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(ingress(OTHER), id="another domain"),
        pytest.param(ingress("jobs.example.org.example.com"), id="below another"),
        pytest.param(ingress("more-jobs.example.org"), id="ends alike"),
        pytest.param(ingress("*.example.com"), id="another wildcard"),
        pytest.param(ingress("example.org"), id="above"),
        pytest.param(ingress(f"more.{FILES}"), id="below the store's"),
        pytest.param(ingress("*.example.net"), id="wildcard around the store's"),
        pytest.param(ingress(ingressClassName="other"), id="any host of another controller"),
        pytest.param(ingress(OTHER, tls=[{"hosts": [OTHER], "secretName": "a"}]), id="certificate"),
        pytest.param(
            ingress(OTHER, annotations={"nginx.ingress.kubernetes.io/server-alias": "www.example.com"}),
            id="alias",
        ),
    ],
)
def test_everything_else_is_as_before(api, guarded, document):
    assert refused(api, INGRESSES.format(guarded), document) is None


def test_what_the_operator_made_is_changed_by_nobody_else(api, guarded):
    path = INGRESSES.format(guarded)
    limit = {"nginx.ingress.kubernetes.io/whitelist-source-range": "203.0.113.0/24"}
    made = ingress(JOB, annotations=limit)
    assert api.request("POST", path, made, user=OPERATOR)[0] == 201
    patch = {"metadata": {"annotations": {next(iter(limit)): None}}}
    merge = "application/merge-patch+json"
    status, body = api.request("PATCH", f"{path}/a", patch, content=merge, user=TENANT)
    assert status == 403, body
    assert f"hosts under {DOMAIN}" in body["message"]
    assert api.request("PATCH", f"{path}/a", patch, content=merge, user=OPERATOR)[0] == 200
    assert api.request("DELETE", f"{path}/a", user=TENANT)[0] == 200


@pytest.mark.parametrize(
    ("path", "document", "grab"),
    [
        pytest.param(INGRESSES, ingress(OTHER), {"spec": {"rules": [{"host": JOB}]}}, id="rule"),
        pytest.param(
            INGRESSES,
            ingress(OTHER),
            {"metadata": {"annotations": {"nginx.ingress.kubernetes.io/server-alias": JOB}}},
            id="alias",
        ),
        pytest.param(HTTP_ROUTES, http_route([OTHER]), {"spec": {"hostnames": [JOB]}}, id="route"),
    ],
)
def test_what_is_on_its_way_out_may_lose_its_finalizers_and_grab_nothing(api, guarded, path, document, grab):
    path = path.format(guarded)
    document = {**document, "metadata": {**document["metadata"], "finalizers": ["example.com/held"]}}
    assert api.request("POST", path, document, user=TENANT)[0] == 201
    assert api.request("DELETE", f"{path}/a", user=TENANT)[0] == 200
    merge = "application/merge-patch+json"
    status, body = api.request("PATCH", f"{path}/a", grab, content=merge, user=TENANT)
    assert status == 403, body
    # One that leads to the domain since before there was a guard must still be able to go.
    assert api.request("PATCH", f"{path}/a", grab, content=merge, user=OPERATOR)[0] == 200
    released = {"metadata": {"finalizers": None}}
    assert api.request("PATCH", f"{path}/a", released, content=merge, user=TENANT)[0] == 200
    assert api.request("GET", f"{path}/a")[0] == 404


@pytest.mark.parametrize(
    ("path", "document"),
    [
        pytest.param(HTTP_ROUTES, http_route([OTHER, JOB]), id="a job's"),
        pytest.param(HTTP_ROUTES, http_route([f"*.{DOMAIN}"]), id="wildcard"),
        pytest.param(HTTP_ROUTES, http_route(["*.org"]), id="wildcard above"),
        pytest.param(HTTP_ROUTES, http_route([FILES], gateway="elsewhere"), id="the store's"),
        pytest.param(HTTP_ROUTES, http_route([JOB], gateway="elsewhere"), id="at another gateway"),
        pytest.param(HTTP_ROUTES, http_route(), id="any host"),
        pytest.param(GRPC_ROUTES, http_route([JOB], kind="GRPCRoute"), id="gRPC"),
    ],
)
def test_routes_of_the_gateway_api_are_guarded_too(api, guarded, path, document):
    assert refused(api, path.format(guarded), document)
    assert refused(api, path.format(guarded), document, user=OPERATOR) is None


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(http_route([OTHER]), id="another domain"),
        pytest.param(http_route(gateway="elsewhere"), id="any host at another gateway"),
    ],
)
def test_other_routes_are_as_before(api, guarded, document):
    assert refused(api, HTTP_ROUTES.format(guarded), document) is None
