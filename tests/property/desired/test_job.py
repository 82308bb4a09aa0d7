"""Whatever a translation and a task hold: the objects are valid, refer to each other, and can all be scheduled."""

import copy
import json
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import (
    Dependency,
    FileMount,
    GpuRequest,
    InlineFile,
    Mount,
    Port,
    Restart,
    Service,
    Translation,
    Until,
    Vendor,
    Volume,
)
from opengpu_operator.desired.job import build
from tests.support import jobs, manifest
from tests.support.manifest import workloads

SERVICES = ["api", "db", "web", "init", "x" * 63, "x" * 62 + "y", "job", "r-web", "v-data", "0"]
VOLUMES = ["data", "models", "w" * 63, "w" * 62 + "z"]
PATHS = ["/data", "/root/.ollama", "/gpux_job", "/gpux_usr/cache", "/srv/"]
FILES = {"conf": InlineFile(content="a"), "key": InlineFile(content="b", secret=True)}

ports = st.builds(
    Port,
    container=st.sampled_from([80, 5555, 8080, 11434]),
    protocol=st.sampled_from(["TCP", "TCP", "UDP"]),
    published=st.sampled_from([None, 80, 5555, 8081, 9000]),
    exposed_only=st.booleans(),
)
variable_names = st.sampled_from(
    ["A", "NVIDIA_VISIBLE_DEVICES", "LD_PRELOAD", "NPROC", "CUDA_VISIBLE_DEVICES"]
)
quantities = st.sampled_from(["1Mi", "512Mi", "2Gi", "64Gi"])


@st.composite
def services(draw: st.DrawFn, name: str, before: list[str]) -> Service:
    """A service that waits for and joins only those before it, so that there is no circle."""
    shm = draw(st.booleans())
    others = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
    container: dict[str, Any] = {
        "name": name,
        "image": f"example.org/{name}",
        "env": [
            {"name": key, "value": "v"} for key in draw(st.lists(variable_names, unique=True, max_size=3))
        ],
        "resources": {
            "requests": draw(st.dictionaries(st.just("memory"), quantities)),
            "limits": draw(st.dictionaries(st.just("memory"), quantities)),
        },
        "securityContext": {"capabilities": {"add": draw(st.lists(st.just("CHOWN"), max_size=1))}},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}] if shm else [],
    }
    return Service(
        name=name.upper(),
        dns_name=name,
        container=container,
        pod={"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}] if shm else []},
        gpu=draw(
            st.none()
            | st.builds(GpuRequest, vendor=st.sampled_from(Vendor), count=st.sampled_from([None, 0, 1, 4]))
        ),
        ports=draw(st.lists(ports, max_size=3)),
        mounts=[
            Mount(volume=draw(st.sampled_from(VOLUMES)), path=path, read_only=draw(st.booleans()))
            for path in draw(st.lists(st.sampled_from(PATHS), unique=True, max_size=3))
        ],
        files=[
            FileMount(file=file, path=f"/etc/{file}")
            for file in draw(st.lists(st.sampled_from(sorted(FILES)), unique=True))
        ],
        depends_on=[
            Dependency(service=other.upper(), until=draw(st.sampled_from(Until))) for other in others
        ],
        restart=draw(st.sampled_from(Restart)),
        max_retries=draw(st.none() | st.integers(0, 5)),
        replicas=draw(st.sampled_from([1, 1, 1, 0, 3])),
        joins=draw(st.sampled_from(before)).upper() if before and draw(st.integers(0, 3)) == 0 else None,
    )


@st.composite
def translations(draw: st.DrawFn) -> Translation:
    names = ["api", *draw(st.lists(st.sampled_from(SERVICES[1:]), unique=True, max_size=5))]
    made: list[Service] = []
    for index, name in enumerate(names):
        made.append(draw(services(name, names[:index])))
    made = draw(st.permutations(made))
    published = [
        item.name
        for item in made
        if any(port.container == 5555 and not port.exposed_only for port in item.ports)
    ]
    return Translation(
        digest=jobs.DIGEST,
        services=made,
        volumes={key: Volume(origin="named", label=key, model_cache=draw(st.booleans())) for key in VOLUMES},
        files=FILES,
        worker=published[0] if published else None,
    )


specs = st.fixed_dictionaries(
    {},
    optional={
        "functionName": st.just("run"),
        "owner": st.just("me"),
        "suspend": st.booleans(),
        "ports": st.lists(st.sampled_from([80, 8080, 7860, 11434, 5555]), max_size=2),
        "mainService": st.sampled_from(["API"]),
        "env": st.just([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
        "resources": st.just({"memory": "1Gi", "gpu": {"count": 2, "product": "H200"}}),
        "storage": st.just({"gpuxServices": ["API"]}),
    },
)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "pods": st.just({"profile": "restricted"}),
        "routes": st.sampled_from([{}, {"domain": "gpux.example", "scheme": "https"}]),
        "storage": st.just({"userMode": "Shared"}),
    },
)


def component(obj: dict[str, Any]) -> str:
    return str(obj["metadata"]["labels"]["app.kubernetes.io/component"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    translations(),
    specs,
    configurations,
    st.sampled_from(Environment),
)
def test_any_job(translation, spec, configuration, environment):
    context = jobs.context(spec=spec, environment=environment)
    configured = jobs.settings(**configuration)
    before = copy.deepcopy(translation)
    try:
        made = build(translation, context, configured)
    except Invalid as refused:
        event(refused.reason)
        return
    finally:
        assert translation == before
    event("built")
    objects = made.everything
    again = build(Translation.model_validate_json(translation.model_dump_json()), context, configured)
    assert again == made
    assert json.loads(json.dumps(objects)) == objects
    manifest.check(objects, restricted="pods" in configuration)
    check_worker_port(objects)
    check_order(made)


def check_worker_port(objects):
    for obj in objects:
        if obj["kind"] in {"Service", "Ingress"}:
            assert "5555" not in json.dumps(obj["spec"])


def check_order(made):
    """Lift gates as the operator does, and see that every pod gets its turn and finds its neighbour there."""
    pending = {component(obj): obj for obj in workloads(made.objects)}
    names = list(pending)
    placed: set[str] = set()
    endless = any(finding.reason == "NeverCompletes" for finding in made.findings)
    for _ in names:
        for name in names:
            gates = {
                gate["name"] for gate in pending[name]["spec"]["template"]["spec"].get("schedulingGates", [])
            }
            assert gates == set(made.gated.get(name, []))
            if gates <= lifted(placed, pending):
                placed.add(name)
                affinity = (
                    pending[name]["spec"]["template"]["spec"].get("affinity", {}).get("podAffinity", {})
                )
                for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", []):
                    neighbour = term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"]
                    assert neighbour in placed
                    assert pending[neighbour]["kind"] == "Deployment" or neighbour == name
    assert placed == set(names) or endless, f"never scheduled: {set(names) - placed}"


def lifted(placed, pending):
    from opengpu_operator.desired import names

    found = set()
    for name in placed:
        for until in ("healthy", "placed", *(("completed",) if pending[name]["kind"] == "Job" else ())):
            found.add(names.gate(until, name))
    return found
