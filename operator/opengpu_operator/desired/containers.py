"""The container of a service: what the translation says, with what the cluster's owner insists on.

The translation comes from a process that handles strangers' files, so nothing of it is taken over unseen:
only the fields named here, and the finished pod is checked once more in
:mod:`~opengpu_operator.desired.podrules`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from opengpu_operator.api.findings import Finding
from opengpu_operator.api.task import EnvVar
from opengpu_operator.api.translation import Service
from opengpu_operator.desired import env, names, volumes
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.problems import Problems
from opengpu_operator.desired.resources import Needs
from opengpu_operator.settings import PodSettings

Object = dict[str, Any]

_TAKEN_OVER = (
    "command",
    "args",
    "workingDir",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "stdin",
    "stdinOnce",
    "tty",
)
_MADE_HERE = (
    "name",
    "image",
    "imagePullPolicy",
    "env",
    "ports",
    "resources",
    "securityContext",
    "volumeMounts",
)
_SECURITY = ("runAsUser", "runAsGroup", "runAsNonRoot", "readOnlyRootFilesystem")
#: The one capability that the restricted profile leaves room for.
_RESTRICTED_CAPABILITY = "NET_BIND_SERVICE"


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a container gets from the task and the job."""

    needs: Needs
    env: tuple[EnvVar, ...]
    mounts: tuple[Object, ...]
    """Mounts of claims and files; the translation's own (of emptyDirs) come before them."""
    gpux: bool
    """Whether it has GPUX's paths."""


def build(
    service: Service, extras: Extras, *, pods: PodSettings, problems: Problems
) -> tuple[Object, list[Finding]]:
    """Return the container of a service, and what was changed in it."""
    given = service.container
    for key in given:
        if key not in _TAKEN_OVER and key not in _MADE_HERE:
            problems.file(f"services.{service.name}: a container may not have {key}")
    security, findings = _security(service, restricted=pods.profile == "restricted", problems=problems)
    needs = extras.needs
    own_env = given.get("env") or []
    if any(set(item) - {"name", "value"} for item in own_env):
        problems.file(f"services.{service.name}.environment: only values can be given")
    obj: Object = {
        "name": service.dns_name,
        "image": given.get("image", ""),
        "imagePullPolicy": pods.image_pull_policy,
        **{key: given[key] for key in _TAKEN_OVER if key in given},
        "env": env.build(
            own_env, extras.env, vendor=needs.gpu.vendor if needs.gpu else None, gpux=extras.gpux
        ),
        "resources": needs.resources,
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if ports := _ports(service):
        obj["ports"] = ports
    if mounts := _mounts([*_own_mounts(service, problems), *extras.mounts]):
        obj["volumeMounts"] = mounts
    return obj, findings


def scratch_name(service: Service, volume: str) -> str:
    """Return the pod's name for an emptyDir of a service, which no other volume of the pod can have."""
    return names.child("tmp", service.dns_name, volume)


def _ports(service: Service) -> list[Object]:
    declared = [
        (int(port["containerPort"]), str(port.get("protocol", "TCP")))
        for port in service.container.get("ports") or []
    ]
    declared += [(port.container, port.protocol) for port in service.ports]
    return [{"containerPort": number, "protocol": protocol} for number, protocol in dict.fromkeys(declared)]


def _own_mounts(service: Service, problems: Problems) -> list[Object]:
    own = {volume["name"] for volume in service.pod.get("volumes") or []}
    found = []
    for mount in service.container.get("volumeMounts") or []:
        if mount["name"] not in own:
            problems.file(f"services.{service.name}: {mount['mountPath']} is mounted from nowhere")
        found.append({**mount, "name": scratch_name(service, mount["name"])})
    return found


def _mounts(mounts: Iterable[Object]) -> list[Object]:
    """Return the mounts with one per path, the last of which wins, as in Compose."""
    return list({volumes.normalised(mount["mountPath"]): mount for mount in mounts}.values())


def _security(service: Service, *, restricted: bool, problems: Problems) -> tuple[Object, list[Finding]]:
    given = service.container.get("securityContext") or {}
    for key in given:
        if key not in {*_SECURITY, "capabilities", "allowPrivilegeEscalation"}:
            problems.file(f"services.{service.name}: a container's securityContext may not have {key}")
    found: Object = {
        "allowPrivilegeEscalation": False,
        **{key: given[key] for key in _SECURITY if key in given},
    }
    capabilities = {key: list(value) for key, value in (given.get("capabilities") or {}).items() if value}
    findings = []
    if restricted:
        found["runAsNonRoot"] = True
        added = capabilities.get("add", [])
        findings = [
            remark(
                JobFinding.CAPABILITY_DROPPED,
                path=f"services.{service.name}.cap_add",
                message=f"The restricted profile has no room for {capability}.",
            )
            for capability in added
            if capability != _RESTRICTED_CAPABILITY
        ]
        kept = [capability for capability in added if capability == _RESTRICTED_CAPABILITY]
        capabilities = {"drop": ["ALL"], **({"add": kept} if kept else {})}
    if capabilities:
        found["capabilities"] = capabilities
    return found, findings


def stripped_findings(service: Service, variables: Iterable[EnvVar]) -> list[Finding]:
    """Return a finding for each of the task's variables that is left out."""
    return [
        remark(
            JobFinding.ENV_STRIPPED,
            path=f"services.{service.name}.environment.{name}",
            message=f"{name} is left out: it would reach around what the container was given.",
        )
        for name in env.stripped(variables)
    ]
