"""GPUs in all forms."""

from __future__ import annotations

import pytest

from tests.support.compose import errors, one, reasons, service, translate


def reserved(entry: str) -> str:
    return f"deploy: {{resources: {{reservations: {{devices: [{entry}]}}}}}}"


@pytest.mark.parametrize(
    ("body", "vendor", "count"),
    [
        (reserved("{driver: nvidia, count: all, capabilities: [gpu]}"), "nvidia", None),
        (reserved("{driver: nvidia, count: 2, capabilities: [gpu]}"), "nvidia", 2),
        (reserved("{driver: nvidia, count: '${N:-3}', capabilities: [gpu, compute, utility]}"), "nvidia", 3),
        (reserved("{capabilities: [gpu]}"), "nvidia", None),
        (reserved("{capabilities: [gpu], count: -1}"), "nvidia", None),
        (reserved("{capabilities: [GPU], count: ALL}"), "nvidia", None),
        (reserved("{driver: nvidia, capabilities: [compute]}"), "nvidia", None),
        (reserved("{capabilities: [nvidia-compute], count: 1}"), "nvidia", 1),
        (reserved("{driver: nvidia, device_ids: ['0', '3'], capabilities: [gpu]}"), "nvidia", 2),
        (reserved("{driver: nvidia, device_ids: ['0', ' 0'], capabilities: [gpu]}"), "nvidia", 1),
        (reserved("{driver: nvidia, device_ids: ['0,1', '2'], capabilities: [gpu]}"), "nvidia", 3),
        (reserved("{driver: nvidia, count: ALL, capabilities: [gpu]}"), "nvidia", None),
        (reserved("{driver: '${DRIVER:-}', count: 2, capabilities: [gpu]}"), "nvidia", 2),
        (reserved("{driver: nvidia, device_ids: [all], capabilities: [gpu]}"), "nvidia", None),
        (reserved("{driver: amd, count: 1, capabilities: [gpu]}"), "amd", 1),
        (reserved("{driver: cdi, device_ids: [nvidia.com/gpu=all], capabilities: [gpu]}"), "nvidia", None),
        (
            reserved("{driver: cdi, device_ids: ['amd.com/gpu=0', 'amd.com/gpu=1'], capabilities: [gpu]}"),
            "amd",
            2,
        ),
        (
            reserved(
                "{driver: nvidia, count: 1, capabilities: [gpu]}, {driver: nvidia, count: 2, capabilities: [gpu]}"
            ),
            "nvidia",
            3,
        ),
        ("gpus: all", "nvidia", None),
        ("gpus: [{driver: nvidia, count: 2}]", "nvidia", 2),
        ("gpus: [{}]", "nvidia", None),
        ("gpus: [{driver: amd, device_ids: ['0']}]", "amd", 1),
        ("runtime: nvidia", "nvidia", None),
        ("runtime: amd", "amd", None),
        ("runtime: nvidia\nenvironment: [NVIDIA_VISIBLE_DEVICES=all]", "nvidia", None),
        ("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: '0,1'}", "nvidia", 2),
        ("runtime: nvidia\n" + reserved("{count: 4, capabilities: [gpu]}"), "nvidia", 4),
        ("devices: [/dev/kfd, /dev/dri]", "amd", None),
        ("devices: ['/dev/kfd:/dev/kfd', '/dev/dri/:/dev/dri:rwm']", "amd", None),
        ("devices: [/dev/kfd, /dev/dri/card0, /dev/dri/renderD128, /dev/dri/renderD129]", "amd", 2),
        ("devices: [{source: /dev/kfd}, {source: /dev/dri}]", "amd", None),
        ("devices: [/dev/nvidia0, /dev/nvidia1, /dev/nvidiactl, /dev/nvidia-uvm]", "nvidia", 2),
        ("devices: [/dev/nvidiactl]", "nvidia", None),
        ("devices: [nvidia.com/gpu=all]", "nvidia", None),
        ("devices: ['nvidia.com/gpu=0']", "nvidia", 1),
        ("devices: ['nvidia.com/gpu=0', 'nvidia.com/gpu=1']", "nvidia", 2),
        ("volumes: ['/dev/kfd:/dev/kfd', '/dev/dri:/dev/dri']", "amd", None),
        (
            (
                "deploy: {resources: {reservations: {generic_resources: "
                "[{discrete_resource_spec: {kind: NVIDIA-GPU, value: 2}}]}}}"
            ),
            "nvidia",
            2,
        ),
    ],
)
def test_forms(body: str, vendor: str, count: int | None) -> None:
    found = service(body).gpu
    assert found is not None
    assert (found.vendor.value, found.count) == (vendor, count)


@pytest.mark.parametrize(
    "body",
    [
        *(
            "gpus: [{count: 0}]",
            reserved("{count: 0, capabilities: [gpu]}"),
            "tty: true",
            "runtime: runc",
            "devices: [/dev/dri]",
        ),
        *(
            "runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: void}",
            "environment: {NVIDIA_VISIBLE_DEVICES: all}",
            "devices: ['nvidia.com/gpu=none']",
        ),
    ],
)
def test_none(body: str) -> None:
    assert service(body).gpu is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (reserved("{driver: nvidia, count: 1, device_ids: ['0'], capabilities: [gpu]}"), "BadValue"),
        (reserved("{driver: nvidia, count: many, capabilities: [gpu]}"), "BadValue"),
        (reserved("{count: 65, capabilities: [gpu]}"), "BadValue"),
        (reserved("{count: 1}"), "MissingKey"),
        (reserved("{driver: tpu, capabilities: [tpu]}"), "DeviceRefused"),
        (reserved("{capabilities: [tpu]}"), "DeviceRefused"),
        (reserved("nvidia"), "WrongType"),
        ("gpus: some", "BadValue"),
        ("gpus: 0.5", "WrongType"),
        ("deploy: {resources: {limits: {nvidia.com/gpu: 1}}}", "UnknownKey"),
        ("deploy: {resources: {limits: {devices: []}}}", "UnknownKey"),
    ],
)
def test_mistakes(body: str, reason: str) -> None:
    assert errors(one(body)) == {reason}


@pytest.mark.parametrize(
    ("body", "environment", "reason"),
    [
        ("gpus: all", None, "GpuCountByPolicy"),
        ("gpus: [{driver: nvidia, device_ids: ['1']}]", None, "GpuIdsCounted"),
        ("gpus: [{driver: nvidia, count: 1}]", "amd", "GpuVendorMismatch"),
        ("devices: [/dev/dri]", "nvidia", "GpuIgnored"),
        ("devices: [/dev/dxg]", None, "GpuIgnored"),
        ("gpus: [{count: 1}]", "cpu", "GpuRemoved"),
        ("runtime: sysbox-runc", None, "RuntimeIgnored"),
    ],
)
def test_findings(body: str, environment: str | None, reason: str) -> None:
    assert reasons(translate(one(body), environment=environment)) == {reason}


@pytest.mark.parametrize("vendor", ["nvidia", "amd"])
@pytest.mark.parametrize(
    "body", ["gpus: all", "devices: [/dev/dxg]", reserved("{count: 1, capabilities: [gpu]}")]
)
def test_the_environment_decides_where_the_file_does_not(body: str, vendor: str) -> None:
    found = service(body, environment=vendor).gpu
    assert found is not None
    assert found.vendor.value == vendor


def test_render_nodes_are_those_of_amd_where_that_is_the_environment() -> None:
    found = service("devices: [/dev/dri]", environment="amd").gpu
    assert found is not None
    assert found.vendor.value == "amd"


@pytest.mark.parametrize(
    ("written", "asked", "count"),
    [("all", True, None), ("'0,1'", True, 2), ("none", False, None), ("''", False, None)],
)
def test_the_variable_of_a_runtime_that_is_the_default(written: str, asked: bool, count: int | None) -> None:
    body = f"environment: {{NVIDIA_VISIBLE_DEVICES: {written}}}"
    found = service(body, environment="nvidia").gpu
    assert (found is not None, found and found.count) == (asked, count)
    assert service(body, environment="amd").gpu is None


def test_no_gpus_on_cpu() -> None:
    assert service(reserved("{count: all, capabilities: [gpu]}"), environment="cpu").gpu is None


def test_the_gpu_stays_on_the_sidecar() -> None:
    translation = translate(
        """
        services:
          model: {image: ollama/ollama, gpus: all}
          worker: {image: example.org/worker, ports: ["${PORT}:5555"], depends_on: [model]}
        """
    )
    assert translation.worker == "worker"
    assert [entry.gpu is not None for entry in translation.services] == [True, False]
