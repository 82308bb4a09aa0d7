"""Which ports get a URL, and which number stands for them."""

import pytest

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.translation import Port
from opengpu_operator.desired.job import build
from tests.support.jobs import JOB, JOB_ID, context, one, service, settings, translation, worker

CALL = {"functionName": "chat"}


def made(*services, ports=None, **configured):
    spec = {**CALL, **({"ports": ports} if ports else {})}
    return build(translation(worker(), *services), context(spec=spec), settings(**configured))


def numbers(objects):
    """Return service, port and the number in the URL."""
    return [(url.service, url.port, url.url) for url in objects.urls]


def at(number):
    return f"http://{JOB_ID}-{number}.gpux.example"


def published(name, *ports):
    return service(name, ports=[Port(container=inner, published=outer) for outer, inner in ports])


def test_published_tcp_ports_by_default_and_never_the_workers():
    web = service(
        "web",
        ports=[
            Port(container=80, published=8080),
            Port(container=81),
            Port(container=53, protocol="UDP", published=53),
            Port(container=9000, exposed_only=True),
        ],
    )
    assert numbers(made(web)) == [("web", 80, at(80)), ("web", 81, at(81))]


def test_a_port_published_twice_has_one_url():
    assert numbers(made(published("web", (8080, 80), (8081, 80)))) == [("web", 80, at(80))]


def test_a_port_of_two_services_goes_by_the_published_numbers():
    objects = made(published("web", (8081, 80)), published("api", (8082, 80)))
    assert numbers(objects) == [("web", 80, at(8081)), ("api", 80, at(8082))]


@pytest.mark.parametrize(
    "services",
    [
        pytest.param(
            (published("web", (8080, 80)), service("api", ports=[Port(container=80)])), id="unpublished"
        ),
        pytest.param((published("web", (8080, 80)), published("api", (8080, 80))), id="the same number"),
        pytest.param((published("web", (5555, 80)), published("api", (8080, 80))), id="the worker's number"),
        pytest.param(
            (published("web", (8081, 80)), published("api", (8082, 80)), published("old", (1, 8081))),
            id="another's number",
        ),
    ],
)
def test_a_number_that_stands_for_two_is_refused(services):
    with pytest.raises(Invalid) as caught:
        made(*services)
    assert caught.value.reason == "SpecRefused:ports"


def test_listed_ports_only():
    objects = made(published("web", (8080, 80), (8443, 443)), ports=[443])
    assert numbers(objects) == [("web", 443, at(443))]


def test_a_listed_port_may_be_one_that_only_siblings_see():
    objects = made(service("db", ports=[Port(container=5432, exposed_only=True)]), ports=[5432])
    assert numbers(objects) == [("db", 5432, at(5432))]


def test_a_listed_port_prefers_who_publishes_it():
    exposed = service("db", ports=[Port(container=80, exposed_only=True)])
    assert numbers(made(exposed, published("web", (8080, 80)), ports=[80])) == [("web", 80, at(80))]


def test_a_published_number_may_be_listed():
    assert numbers(made(published("web", (8080, 80)), ports=[8080])) == [("web", 80, at(80))]


def test_a_listed_port_that_nobody_declares_is_the_main_services():
    objects = made(published("web", (8080, 80)), ports=[7860])
    assert numbers(objects) == [("worker", 7860, at(7860))]
    assert [finding.reason for finding in objects.findings] == ["PortOfMainService"]


def test_the_workers_port_cannot_be_listed():
    with pytest.raises(Invalid, match="5555 is the worker's port") as caught:
        made(ports=[5555])
    assert caught.value.reason == "SpecRefused:ports"


def test_a_file_with_very_many_ports_is_cut():
    objects = made(published("web", *((port, port) for port in range(10000, 10100))))
    assert len(objects.urls) == 64
    assert [finding.reason for finding in objects.findings] == ["PortsCut"]


def test_without_a_domain_there_are_none():
    objects = made(published("web", (8080, 80)), routes={})
    assert objects.urls == []
    assert not objects.routed
    assert [obj["metadata"]["name"] for obj in objects.objects if obj["kind"] == "Service"] == [JOB]
    assert not [obj for obj in objects.objects if obj["kind"] == "Ingress"]
    assert len(one(objects, "NetworkPolicy")["spec"]["ingress"]) == 1


def test_objects():
    objects = made(published("web", (8080, 80)))
    routed = one(objects, "Service", f"{JOB}-r-web")
    assert routed["spec"] == {
        "clusterIP": "None",
        "ports": [{"name": "p-80", "port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"opengpu.network/job": JOB_ID, "app.kubernetes.io/component": "web"},
    }
    backend = {"service": {"name": f"{JOB}-r-web", "port": {"number": 80}}}
    assert one(objects, "Ingress")["spec"] == {
        "rules": [
            {
                "host": f"{JOB_ID}-80.gpux.example",
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ]
    }


def test_settings_of_the_controller():
    routes = {
        "domain": "gpux.example",
        "scheme": "https",
        "externalPort": 8443,
        "ingressClassName": "skipper",
        "annotations": {"example.org/buffer": "off"},
    }
    objects = made(published("web", (8080, 80)), routes=routes)
    ingress = one(objects, "Ingress")
    assert ingress["spec"]["ingressClassName"] == "skipper"
    assert ingress["spec"]["tls"] == [{"hosts": [f"{JOB_ID}-80.gpux.example"]}]
    assert ingress["metadata"]["annotations"]["example.org/buffer"] == "off"
    assert objects.urls[0].url == f"https://{JOB_ID}-80.gpux.example:8443"


def test_a_joined_services_port_leads_to_the_pod():
    objects = made(service("web"), service("proxy", joins="web", ports=[Port(container=80, published=80)]))
    selector = one(objects, "Service", f"{JOB}-r-web")["spec"]["selector"]
    assert selector["app.kubernetes.io/component"] == "web"
    assert numbers(objects) == [("proxy", 80, at(80))]
