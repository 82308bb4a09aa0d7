"""What a task asks of its ports, what can be had, and how each controller is told."""

import re

import pytest

from opengpu_operator.api.access import Protocol
from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.translation import Port
from opengpu_operator.desired.controllers import PROFILES
from opengpu_operator.desired.job import build
from opengpu_operator.desired.options import GATEWAY, Options, annotate, judge
from tests.support.jobs import JOB, JOB_ID, context, one, service, settings, translation, worker

HASH = "0a" * 32
CIDRS = ["192.0.2.7/24", "2001:DB8::1/32"]
EVERYTHING = Options(timeout=70, body=64 * 1024 * 1024, cidrs=("192.0.2.0/24", "2001:db8::/32"), token=HASH)


def made(*ports, routes=None, **spec):
    web = service("web", ports=[Port(container=port, published=port) for port in ports or (80, 81)])
    configured = {"domain": "gpux.example", **(routes or {})}
    return build(
        translation(worker(), web),
        context(spec={"functionName": "chat", **spec}),
        settings(routes=configured),
    )


def ingresses(objects):
    """Return the annotations of the Ingress that each port is in, without our own."""
    return {
        int(rule["host"].partition(".")[0].rpartition("-")[2]): {
            key: value
            for key, value in obj["metadata"]["annotations"].items()
            if not key.startswith("opengpu.network/")
        }
        for obj in objects.objects
        if obj["kind"] == "Ingress"
        for rule in obj["spec"]["rules"]
    }


def names(objects, kind="Ingress"):
    return [obj["metadata"]["name"] for obj in objects.objects if obj["kind"] == kind]


def reasons(objects):
    return [finding.reason for finding in objects.findings]


def refused(**spec):
    with pytest.raises(Invalid) as caught:
        made(routes={"profile": "skipper"}, **spec)
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize("profile", PROFILES)
def test_what_nobody_said_anything_about_stays_in_the_one_ingress(profile):
    assert names(made(routes={"profile": profile})) == [JOB]


def test_ports_that_are_asked_for_alike_share_an_ingress():
    objects = made(
        80,
        81,
        82,
        routes={"profile": "nginx"},
        portOptions=[{"port": port, "requestTimeoutSeconds": 70} for port in (80, 82)],
    )
    assert len(names(objects)) == 2
    assert names(objects)[1] == JOB
    found = ingresses(objects)
    assert found[80] == found[82] != found[81] == {}


def test_other_options_are_in_another_ingress():
    """No annotation is ever taken back, so what an Ingress says never changes."""

    def name(**options):
        return names(made(80, routes={"profile": "nginx"}, portOptions=[{"port": 80, **options}]))

    assert name(requestTimeoutSeconds=70) == name(requestTimeoutSeconds=70)
    assert name(requestTimeoutSeconds=70) != name(requestTimeoutSeconds=71)
    other = made(80, routes={"profile": "nginx-f5"}, portOptions=[{"port": 80, "requestTimeoutSeconds": 70}])
    assert name(requestTimeoutSeconds=70) != names(other)


def test_the_tasks_access_is_that_of_every_port_but_those_with_their_own():
    objects = made(
        routes={"profile": "skipper"},
        access={"tokenSha256": HASH},
        portOptions=[{"port": 81, "access": {"allowedCidrs": CIDRS}}],
    )
    found = {port: value["zalando.org/skipper-predicate"] for port, value in ingresses(objects).items()}
    assert found == {
        80: f'HeaderSHA256("Authorization", "{HASH}")',
        81: 'ClientIP("192.0.2.0/24", "2001:db8::/32")',
    }


@pytest.mark.parametrize("routes", [{}, {"kind": "HTTPRoute", "gateway": {"name": "g", "namespace": "n"}}])
@pytest.mark.parametrize("access", [{"allowedCidrs": CIDRS}, {"tokenSha256": HASH}])
def test_what_cannot_be_enforced_is_not_routed(routes, access):
    objects = made(routes=routes, portOptions=[{"port": 81, "access": access}])
    assert [url.port for url in objects.urls] == [80]
    kind = routes.get("kind", "Ingress")
    assert f"-81.{'gpux.example'}" not in str([obj for obj in objects.objects if obj["kind"] == kind])
    assert reasons(objects) == ["PortNotRouted"]
    assert 81 not in [
        port["port"]
        for rule in one(objects, "NetworkPolicy")["spec"]["ingress"]
        for port in rule.get("ports", [])
    ]


def test_half_of_an_access_is_none():
    """nginx knows addresses and no tokens."""
    objects = made(routes={"profile": "nginx"}, access={"allowedCidrs": CIDRS, "tokenSha256": HASH})
    assert objects.urls == []
    assert not names(objects)
    assert "can't have access.tokenSha256" in objects.findings[0].message


def test_a_language_that_the_controller_does_not_speak_is_not_routed():
    objects = made(routes={"profile": "skipper"}, portOptions=[{"port": 80, "protocol": "GRPC"}])
    assert [url.port for url in objects.urls] == [81]
    assert "protocol: GRPC" in objects.findings[0].message


def test_a_limit_that_cannot_be_said_is_left_out_and_said():
    objects = made(portOptions=[{"port": 80, "requestTimeoutSeconds": 70, "maxBodySize": "1Gi"}])
    assert [url.port for url in objects.urls] == [80, 81]
    assert names(objects) == [JOB]
    assert reasons(objects) == ["PortOptionIgnored"]
    assert "requestTimeoutSeconds, maxBodySize of port 80" in objects.findings[0].message


def test_without_a_domain_nothing_is_said():
    objects = made(routes={"domain": None}, access={"tokenSha256": HASH})
    assert reasons(objects) == []


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        pytest.param(
            {"portOptions": [{"port": 82}]},
            "SpecRefused:portOptions",
            "port 82 has no URL",
            id="no such port",
        ),
        pytest.param(
            {"portOptions": [{"port": 5555}]}, "SpecRefused:portOptions", "worker's port", id="the worker's"
        ),
        pytest.param(
            {"portOptions": [{"port": 80, "maxBodySize": "64m"}]},
            "SpecRefused:portOptions",
            "less than a byte",
            id="milli",
        ),
        pytest.param(
            {"access": {"allowedCidrs": ["192.0.2.0/33"]}},
            "SpecRefused:access",
            "no address range",
            id="no range",
        ),
        pytest.param({"access": {"allowedCidrs": []}}, "SpecRefused:access", "who gets in", id="nobody"),
        pytest.param({"access": {}}, "SpecRefused:access", "who gets in", id="nothing"),
        pytest.param(
            {"portOptions": [{"port": 80, "access": {"allowedCidrs": ["::/129"]}}]},
            "SpecRefused:portOptions",
            "no address range",
            id="of a port",
        ),
    ],
)
def test_nonsense_is_refused(spec, reason, words):
    found = refused(**spec)
    assert found[0] == reason
    assert words in found[1]


def test_a_port_is_known_by_its_published_number_too():
    web = service("web", ports=[Port(container=80, published=8080)])
    for number in (80, 8080):
        spec = {"functionName": "chat", "portOptions": [{"port": number, "requestTimeoutSeconds": 70}]}
        objects = build(
            translation(worker(), web),
            context(spec=spec),
            settings(routes={"domain": "gpux.example", "profile": "nginx"}),
        )
        assert ingresses(objects)[80]["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "70"


@pytest.mark.parametrize(
    ("profile", "options", "wanted"),
    [
        ("contour", Options(timeout=70), {"projectcontour.io/response-timeout": "70s"}),
        (
            "haproxy",
            Options(protocol=Protocol.GRPC, timeout=70, cidrs=("192.0.2.0/24", "2001:db8::/32")),
            {
                "haproxy.org/server-proto": "h2",
                "haproxy.org/timeout-server": "70s",
                "haproxy.org/allow-list": "192.0.2.0/24,2001:db8::/32",
            },
        ),
        (
            "haproxy-ingress",
            Options(protocol=Protocol.HTTPS, body=1024, cidrs=("192.0.2.0/24",)),
            {
                "haproxy-ingress.github.io/backend-protocol": "h1-ssl",
                "haproxy-ingress.github.io/proxy-body-size": "1024",
                "haproxy-ingress.github.io/allowlist-source-range": "192.0.2.0/24",
            },
        ),
        (
            "nginx",
            Options(protocol=Protocol.GRPC, timeout=70, body=1024, cidrs=("192.0.2.0/24",)),
            {
                "nginx.ingress.kubernetes.io/backend-protocol": "GRPC",
                "nginx.ingress.kubernetes.io/proxy-read-timeout": "70",
                "nginx.ingress.kubernetes.io/proxy-send-timeout": "70",
                "nginx.ingress.kubernetes.io/proxy-body-size": "1024",
                "nginx.ingress.kubernetes.io/whitelist-source-range": "192.0.2.0/24",
            },
        ),
        (
            "nginx-f5",
            Options(protocol=Protocol.HTTPS, timeout=70, body=1024),
            {
                "nginx.org/ssl-services": "a,b",
                "nginx.org/websocket-services": "a,b",
                "nginx.org/proxy-read-timeout": "70s",
                "nginx.org/proxy-send-timeout": "70s",
                "nginx.org/client-max-body-size": "1024",
            },
        ),
        (
            "skipper",
            Options(protocol=Protocol.HTTPS, timeout=70, cidrs=("192.0.2.0/24", "::/0"), token=HASH),
            {
                "zalando.org/skipper-backend-protocol": "https",
                "zalando.org/skipper-filter": 'backendTimeout("70s") -> readTimeout("70s") -> writeTimeout("70s")',
                "zalando.org/skipper-predicate": (
                    f'ClientIP("192.0.2.0/24", "::/0") && HeaderSHA256("Authorization", "{HASH}")'
                ),
            },
        ),
        (
            "skipper-behind-proxy",
            Options(cidrs=("192.0.2.0/24",)),
            {"zalando.org/skipper-predicate": 'SourceFromLast("192.0.2.0/24")'},
        ),
        ("traefik", Options(protocol=Protocol.H2C), {}),
    ],
)
def test_each_controller_is_told_in_its_own_words(profile, options, wanted):
    known = PROFILES[profile]
    assert judge(options, known).lacking == ()
    found = annotate(options, known, {}, services=["a", "b"])
    assert found == {**{key: text.format(services="a,b") for key, text in known.always.items()}, **wanted}


def test_the_owners_annotations_are_joined_where_they_can_be_and_never_loosen_the_tasks():
    own = {
        "zalando.org/skipper-filter": "compress()",
        "zalando.org/skipper-predicate": "Traffic(1)",
        "nginx.ingress.kubernetes.io/whitelist-source-range": "0.0.0.0/0",
    }
    options = Options(timeout=70, cidrs=("192.0.2.0/24",))
    skipper = annotate(options, PROFILES["skipper"], own, services=[])
    assert skipper["zalando.org/skipper-filter"].startswith('compress() -> backendTimeout("70s")')
    assert skipper["zalando.org/skipper-predicate"] == 'Traffic(1) && ClientIP("192.0.2.0/24")'
    nginx = annotate(options, PROFILES["nginx"], own, services=[])
    assert nginx["nginx.ingress.kubernetes.io/whitelist-source-range"] == "192.0.2.0/24"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_says_what_it_has_words_for_and_nothing_else(profile):
    """Each option either changes the annotations or is counted as lacking or ignored: none is silently dropped."""
    known = PROFILES[profile]
    plain = annotate(Options(), known, {}, services=["a"])
    for options in (
        Options(timeout=70),
        Options(body=1024),
        Options(cidrs=("192.0.2.0/24",)),
        Options(token=HASH),
    ):
        verdict = judge(options, known)
        said = annotate(verdict.options, known, {}, services=["a"]) != plain
        assert said != bool(verdict.lacking or verdict.ignored)
    for protocol in Protocol:
        if protocol is Protocol.HTTP or judge(Options(protocol=protocol), known).lacking:
            continue
        said = annotate(Options(protocol=protocol), known, {}, services=["a"]) != plain
        assert said or protocol in known.service_protocols


@pytest.mark.parametrize("profile", PROFILES)
def test_annotations_hold_no_text_of_users(profile):
    for value in annotate(EVERYTHING, PROFILES[profile], {}, services=[f"{JOB}-r-web"]).values():
        assert re.fullmatch(r"[A-Za-z0-9.:/,\"() >&-]*", value), value


def test_protocols_of_a_gateway_are_in_the_service():
    routes = {"kind": "HTTPRoute", "gateway": {"name": "public", "namespace": "gateways"}}
    objects = made(80, 81, routes=routes, portOptions=[{"port": 81, "protocol": "GRPC"}])
    assert names(objects) == []
    assert names(objects, "HTTPRoute") == [f"{JOB}-p-80", f"{JOB}-p-81"]
    (port,) = one(objects, "Service", f"{JOB}-rs-grpc-web")["spec"]["ports"]
    assert (port["port"], port["appProtocol"]) == (81, "kubernetes.io/h2c")
    assert "appProtocol" not in one(objects, "Service", f"{JOB}-r-web")["spec"]["ports"][0]
    assert one(objects, "HTTPRoute", f"{JOB}-p-81")["spec"] == {
        "parentRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "name": "public",
                "namespace": "gateways",
            }
        ],
        "hostnames": [f"{JOB_ID}-81.gpux.example"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [
                    {"group": "", "kind": "Service", "name": f"{JOB}-rs-grpc-web", "port": 81, "weight": 1}
                ],
            }
        ],
    }


def test_a_gateway_is_told_of_time_limits():
    routes = {
        "kind": "HTTPRoute",
        "gateway": {"name": "public", "namespace": "gateways", "sectionName": "https"},
    }
    objects = made(80, routes=routes, portOptions=[{"port": 80, "requestTimeoutSeconds": 86400}])
    spec = one(objects, "HTTPRoute")["spec"]
    assert spec["rules"][0]["timeouts"] == {"request": "86400s"}
    assert spec["parentRefs"][0]["sectionName"] == "https"
    assert judge(EVERYTHING, GATEWAY).ignored == ("maxBodySize",)


@pytest.mark.parametrize(
    ("profile", "wanted"),
    [
        ("contour", {"projectcontour.io/upstream-protocol.h2c": "80,81"}),
        ("traefik", {"traefik.ingress.kubernetes.io/service.serversscheme": "h2c"}),
    ],
)
def test_protocols_that_a_controller_reads_of_the_service(profile, wanted):
    options = [{"port": port, "protocol": "H2C"} for port in (80, 81)]
    objects = made(80, 81, routes={"profile": profile}, portOptions=options)
    annotations = one(objects, "Service", f"{JOB}-rs-h2c-web")["metadata"]["annotations"]
    assert wanted.items() <= annotations.items()
