"""What a source's files offer differently: what clients notice is a warning, GPUs are nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import (
    GpuRequest,
    Port,
    Restart,
    Service,
    Translation,
    Vendor,
    Volume,
)
from opengpu_operator.compose.differences import compare
from tests.support.compose import translate
from tests.support.jobs import AMD, NVIDIA, service, translation, worker

CPU, GPU, OTHER = Environment.CPU, Environment.NVIDIA, Environment.AMD
WEB = Port(container=8080, published=80)


def found(here: Translation, there: Translation) -> list[tuple[str, str, str]]:
    """Return what is said of a file for nvidia beside one for cpu."""
    result = compare({GPU: here, CPU: there})
    assert set(result) <= {GPU}
    findings = result.get(GPU, [])
    assert {finding.reason for finding in findings} <= {"EnvironmentsDiffer"}
    return [(finding.severity.value, finding.path, finding.message) for finding in findings]


def env(*names: str) -> dict[str, Any]:
    return {"env": [{"name": name, "value": "x"} for name in names]}


def app(**fields: Any) -> Translation:
    return translation(service("app", **fields))


SAME = [
    ([worker()], [worker(gpu=None)]),
    ([worker(gpu=NVIDIA)], [worker(gpu=GpuRequest(vendor=Vendor.AMD, count=8))]),
    # Tags and digests, and Docker's own long form of a short name.
    *(
        ([service("app", container={"image": here})], [service("app", container={"image": there})])
        for here, there in [
            ("ollama/ollama:rocm", "ollama/ollama"),
            ("a.example:5000/x/y:1@sha256:00", "a.example:5000/x/y"),
            ("redis", "docker.io/library/redis:7"),
            ("index.docker.io/me/x", "me/x"),
        ]
    ),
    # How the hardware is steered, and how patiently a check waits for it.
    (
        [service("app", container=env("A", "CUDA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"))],
        [service("app", container=env("A", "HSA_OVERRIDE_GFX_VERSION", "PYTORCH_HIP_ALLOC_CONF"))],
    ),
    (
        [service("app", container={"readinessProbe": {"periodSeconds": 1}})],
        [service("app", container={"readinessProbe": {"periodSeconds": 30}})],
    ),
    # Ports of the machine that the files were written on, and ports without a URL.
    ([service("app", ports=[WEB])], [service("app", ports=[Port(container=8080, published=8080)])]),
    (
        [service("app", ports=[Port(container=53, protocol="UDP"), Port(container=9, exposed_only=True)])],
        [service("app")],
    ),
    ([service("app", restart=Restart.ALWAYS)], [service("app", restart=Restart.UNSET)]),
    ([service("app", restart=Restart.NO)], [service("app", restart=Restart.ON_FAILURE)]),
]


@pytest.mark.parametrize(("here", "there"), SAME)
def test_what_may_differ(here: list[Service], there: list[Service]) -> None:
    assert found(translation(*here), translation(*there)) == []
    assert found(translation(*there), translation(*here)) == []


def test_a_worker_in_one_file_only() -> None:
    without, with_worker = translation(service("worker")), translation(worker())
    message = "Functions can be called in {} only: the other file has no worker."
    assert found(without, with_worker) == [("warning", "services", message.format("cpu"))]
    assert found(with_worker, without) == [("warning", "services", message.format("nvidia"))]


def test_a_service_in_one_file_only() -> None:
    small, large = translation(service("app")), translation(service("app"), service("cache"))
    assert found(large, small) == [("info", "services.cache", "There is cache in nvidia only.")]
    assert found(small, large) == [("info", "services.cache", "There is cache in cpu only.")]


def test_a_port_with_a_url_in_one_file_only() -> None:
    with_port, without = app(ports=[WEB, Port(container=5555)]), app(ports=[Port(container=5555)])
    expected = ("warning", "services.app.ports", "Published ports differ: 8080 in {} only.")
    for files, name in (((with_port, without), "nvidia"), ((without, with_port), "cpu")):
        assert found(*files) == [(*expected[:2], expected[2].format(name))]
    both = found(app(ports=[WEB]), app(ports=[Port(container=7, published=7)]))
    assert both == [
        ("warning", "services.app.ports", "Published ports differ: 8080 in nvidia only; 7 in cpu only.")
    ]
    alone = found(translation(service("app"), service("web", ports=[WEB])), translation(service("app")))
    assert alone == [("warning", "services.web", "There is web in nvidia only.")]


def test_a_port_that_another_service_has_keeps_its_url() -> None:
    split = translation(service("app"), service("web", ports=[WEB]))
    severities = [severity for severity, _, _ in found(split, translation(service("app", ports=[WEB])))]
    assert severities == ["info", "info"]


@pytest.mark.parametrize("ends", [Restart.NO, Restart.ON_FAILURE])
def test_what_ends_in_one_file_only(ends: Restart) -> None:
    message = "It runs to its end in {}, and is kept running in the other."
    assert found(app(restart=ends), app()) == [("warning", "services.app.restart", message.format("nvidia"))]
    assert found(app(restart=Restart.ALWAYS), app(restart=ends)) == [
        ("warning", "services.app.restart", message.format("cpu"))
    ]


def test_remarks() -> None:
    here = translation(
        service("app", container={"image": "a/one:1", "readinessProbe": {}, **env("A", "B")}),
        volumes={"m": Volume(origin="named", label="models"), "x": Volume(origin="bind", label="/x")},
    )
    there = translation(
        service("app", container={"image": "a/two:1", **env("B", "C")}),
        volumes={"a": Volume(origin="anonymous", label="data")},
    )
    assert found(here, there) == [
        ("info", "services.app.environment", "Variables differ: A in nvidia only; C in cpu only."),
        ("info", "services.app.image", "The images differ: a/one in nvidia, a/two in cpu."),
        ("info", "services.app.healthcheck", "Its health is checked in nvidia only."),
        ("info", "volumes", "Volumes differ: models in nvidia only."),
    ]


def test_long_lists_are_cut() -> None:
    names = [f"V{number}" for number in range(9)]
    ((_, _, message),) = found(app(container=env(*names)), app())
    assert message == "Variables differ: V0, V1, V2, V3, V4 and 4 more in nvidia only."


def test_every_file_is_compared_with_the_first() -> None:
    """Whatever order they come in, so that a status that nothing changed stays as it is."""
    files = {CPU: app(ports=[WEB]), GPU: app(), OTHER: translation(service("app", ports=[WEB], gpu=AMD))}
    results = [compare(dict(order)) for order in itertools.permutations(files.items())]
    assert all(result == results[0] for result in results)
    assert [list(result) for result in results] == [[GPU]] * 6
    assert list(compare({OTHER: files[OTHER], GPU: files[GPU]})) == [OTHER]


def test_refused_files_and_single_ones_differ_from_nothing() -> None:
    refused = translation(findings=[Finding(severity=Severity.ERROR, reason="Privileged", message="No.")])
    assert compare({}) == {}
    assert compare({CPU: app()}) == {}
    assert compare({CPU: refused, GPU: app(ports=[WEB])}) == {}
    assert list(compare({CPU: refused, GPU: app(), OTHER: app(ports=[WEB])})) == [OTHER]


def test_hostile_names_stay_short() -> None:
    name = "A\x1b[2J" + "x" * 5000
    for finding in compare({CPU: app(), GPU: app(container=env(*(name + str(n) for n in range(99))))})[GPU]:
        assert len(finding.message) <= 512
        assert "\x1b" not in finding.message


def test_files_as_they_are_translated() -> None:
    """The same, from text: what the translation adds by itself is no difference."""
    cpu = """
    services:
      worker:
        image: example.org/worker:cpu
        ports: ["${PORT}:5555", "8080:8080"]
        volumes: ["models:/root/.ollama"]
    volumes: {models: }
    """
    gpu = cpu.replace(":cpu", ":cuda").replace(
        "        ports", "        gpus: 1\n        shm_size: 1gb\n        ports"
    )
    files = {CPU: translate(cpu, environment="cpu"), GPU: translate(gpu, environment="nvidia")}
    assert files[GPU].services[0].gpu is not None
    assert compare(files) == {}
    (finding,) = compare({**files, GPU: translate(gpu.replace(', "8080:8080"', ""))})[GPU]
    assert (finding.path, finding.severity) == ("services.worker.ports", Severity.WARNING)
    assert finding.advice.startswith("Offer the same")
