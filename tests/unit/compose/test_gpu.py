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


def test_the_variable_alone_asks_only_where_nobody_else_does() -> None:
    side = "side: {image: y, environment: {NVIDIA_VISIBLE_DEVICES: all}}"
    translation = translate(f"services: {{app: {{image: x, gpus: all}}, {side}}}", environment="nvidia")
    assert [entry.gpu is not None for entry in translation.services] == [True, False]
    assert "EnvStripped" in reasons(translation)
    translation = translate(f"services: {{app: {{image: x}}, {side}}}", environment="nvidia")
    assert [entry.gpu is not None for entry in translation.services] == [False, True]


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


@pytest.mark.parametrize(
    ("body", "vendor", "count"),
    [
        ("devices: ['nvidia.com/gpu=0', 'amd.com/gpu=1']", "nvidia", 1),
        ("devices: ['amd.com/gpu=1', 'nvidia.com/gpu=0', 'nvidia.com/gpu=1']", "amd", 1),
        (reserved("{device_ids: ['nvidia.com/gpu=0', 'amd.com/gpu=1'], capabilities: [gpu]}"), "nvidia", 1),
        ("gpus: [{driver: nvidia, count: 1}, {driver: amd, count: 2}]", "nvidia", 1),
        (
            "devices: [/dev/kfd, /dev/dri, /dev/nvidia0]\n"
            + reserved("{driver: nvidia, count: 1, capabilities: [gpu]}"),
            "nvidia",
            1,
        ),
        ("runtime: amd\ngpus: [{driver: nvidia, count: 1}]", "nvidia", 1),
        ("gpus: all\n" + reserved("{count: 2, capabilities: [gpu]}"), "nvidia", 2),
        ("gpus: [{count: 1}]\n" + reserved("{count: 2, capabilities: [gpu]}"), "nvidia", 1),
        ("devices: [/dev/dri]\ngpus: [{count: 1}]", "nvidia", 1),
    ],
)
def test_what_is_not_used_is_found(body: str, vendor: str, count: int) -> None:
    translation = translate(one(body))
    (found,) = (entry.gpu for entry in translation.services)
    assert found is not None
    assert (found.vendor.value, found.count) == (vendor, count)
    assert "GpuIgnored" in reasons(translation)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("gpus: [{count: 1}]\n" + reserved("{count: 1, capabilities: [gpu]}"), 1),
        ("devices: [/dev/nvidia0]\ngpus: [{count: 1}]", 1),
        ("runtime: nvidia\ngpus: [{count: 3}]", 3),
        ("gpus: [{driver: amd, count: 1}]\ndevices: [/dev/kfd, /dev/dri]", 1),
    ],
)
def test_forms_that_mean_the_same_are_not_added_up(body: str, count: int) -> None:
    translation = translate(one(body))
    (found,) = (entry.gpu for entry in translation.services)
    assert found is not None
    assert found.count == count
    assert not translation.findings


@pytest.mark.parametrize(
    ("body", "variable", "count"),
    [
        ("runtime: nvidia", "NVIDIA_VISIBLE_DEVICES: '0,1'", 2),
        ("runtime: nvidia\ndevices: [/dev/nvidiactl, /dev/nvidia-uvm]", "NVIDIA_VISIBLE_DEVICES: '0,1'", 2),
        ("runtime: amd\ndevices: [/dev/kfd, /dev/dri]", "AMD_VISIBLE_DEVICES: '0,1'", 2),
        ("runtime: amd", "AMD_VISIBLE_DEVICES: '0-3,5'", 5),
        ("runtime: nvidia", "NVIDIA_VISIBLE_DEVICES: '0-3,2,GPU-1-2'", 5),
        ("runtime: nvidia", "NVIDIA_VISIBLE_DEVICES: '3-0'", 1),
        ("runtime: nvidia", "NVIDIA_VISIBLE_DEVICES: all", None),
    ],
)
def test_the_variable_that_was_the_request_is_not_to_be_removed(
    body: str, variable: str, count: int | None
) -> None:
    translation = translate(one(f"{body}\nenvironment: {{{variable}}}"))
    (found,) = (entry.gpu for entry in translation.services)
    assert found is not None
    assert found.count == count
    (finding,) = translation.findings
    assert finding.reason == ("GpuIdsCounted" if count else "GpuCountByPolicy")
    assert finding.path == f"services.app.environment.{variable.partition(':')[0]}"
    assert f"count: {count or 'N'}" in finding.advice


def test_the_variable_that_takes_the_request_back_is_not_to_be_removed() -> None:
    assert not translate(one("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: void}")).findings


def test_a_variable_that_says_what_is_asked_for_anyway_may_be_removed() -> None:
    body = "runtime: nvidia\ngpus: [{count: 2}]\nenvironment: {NVIDIA_VISIBLE_DEVICES: '0,1'}"
    assert reasons(translate(one(body))) == {"EnvStripped"}


@pytest.mark.parametrize("written", ["0-64", "0-999999"])
def test_ranges_are_bounded(written: str) -> None:
    assert errors(one(f"runtime: amd\nenvironment: {{AMD_VISIBLE_DEVICES: '{written}'}}")) == {"BadValue"}


def test_the_environment_chooses_between_vendors() -> None:
    found = service("devices: ['nvidia.com/gpu=0', 'amd.com/gpu=1', 'amd.com/gpu=2']", environment="amd").gpu
    assert found is not None
    assert (found.vendor.value, found.count) == ("amd", 2)


def test_ids_are_no_matter_where_there_are_no_gpus() -> None:
    body = "gpus: [{driver: nvidia, device_ids: ['1']}]"
    assert reasons(translate(one(body), environment="cpu")) == {"GpuRemoved"}


def test_devices_among_the_mounts_are_not_files_to_be_put_into_the_image() -> None:
    translation = translate(one("volumes: ['/dev/kfd:/dev/kfd', '/dev/dri:/dev/dri']"))
    assert reasons(translation) == {"GpuCountByPolicy"}


def test_a_driver_of_other_gpus_is_a_warning() -> None:
    (finding,) = translate(one(reserved("{driver: intel, count: 1, capabilities: [gpu]}"))).findings
    assert (finding.reason, finding.severity.value) == ("KeyIgnored", "warning")
    assert "nvidia or amd" in finding.advice
