"""The rules that every pod keeps, whatever a namespace's labels enforce.

They are Kubernetes' Pod Security Standards ``baseline`` and ``restricted``, and stricter where a job needs
nothing of the kind: only the fields that we set are allowed at all. What fails here was let through by the
translation, and is refused rather than repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

Object = Mapping[str, Any]

_POD_FIELDS = frozenset(
    {
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostname",
        "imagePullSecrets",
        "initContainers",
        "nodeSelector",
        "priorityClassName",
        "restartPolicy",
        "runtimeClassName",
        "schedulingGates",
        "securityContext",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "volumes",
    }
)
_POD_SECURITY_FIELDS = frozenset(
    {
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile",
        "supplementalGroups",
        "sysctls",
    }
)
_VOLUME_SOURCES = frozenset({"configMap", "emptyDir", "persistentVolumeClaim", "secret"})
_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_RESTRICTED_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_RUNTIME_DEFAULT = {"type": "RuntimeDefault"}


def violations(spec: Object, *, profile: Literal["baseline", "restricted"]) -> list[str]:
    """Return what a pod's spec breaks, in words; empty if it keeps the rules."""
    restricted = profile == "restricted"
    found = [f"pods may not have {key}" for key in spec if key not in _POD_FIELDS]
    found += _pod_security(spec.get("securityContext") or {}, restricted=restricted)
    if spec.get("automountServiceAccountToken") is not False:
        found.append("pods may not have a service account's token")
    for volume in spec.get("volumes") or []:
        sources = set(volume) - {"name"}
        if not sources <= _VOLUME_SOURCES:
            found.append(
                f"volume {volume.get('name')} may not be {', '.join(sorted(sources - _VOLUME_SOURCES))}"
            )
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    for what, named in (("volumes", spec.get("volumes") or []), ("containers", containers)):
        # The API server would refuse them too, but only later and again and again.
        if len({item["name"] for item in named}) < len(named):
            found.append(f"two {what} have the same name")
    for container in containers:
        found += [
            f"{container['name']}: {problem}" for problem in _container(container, restricted=restricted)
        ]
    return found


def _pod_security(context: Object, *, restricted: bool) -> Iterator[str]:
    for key in context:
        if key not in _POD_SECURITY_FIELDS:
            yield f"a pod's securityContext may not have {key}"
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']} is not allowed"
    if context.get("seccompProfile") != _RUNTIME_DEFAULT:
        yield "pods must have the runtime's seccomp profile"
    if restricted and context.get("runAsNonRoot") is not True:
        yield "pods must run as another user than root"
    if restricted and context.get("runAsUser") == 0:
        yield "pods may not run as root"


def _container(container: Object, *, restricted: bool) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield "containers may not be privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "containers may not gain privileges"
    if "seccompProfile" in context or "procMount" in context:
        yield "containers may not have a seccomp profile or a view of /proc of their own"
    yield from _privileges(context, restricted=restricted)
    for port in container.get("ports") or []:
        if port.get("hostPort") or port.get("hostIP"):
            yield "containers may not have a port of the host"
    for handler in _handlers(container):
        action = handler.get("httpGet") or handler.get("tcpSocket") or {}
        if action.get("host"):
            yield "probes and hooks may not name a host"


def _privileges(context: Object, *, restricted: bool) -> Iterator[str]:
    capabilities = context.get("capabilities") or {}
    allowed = _RESTRICTED_CAPABILITIES if restricted else _CAPABILITIES
    for capability in capabilities.get("add") or []:
        if capability not in allowed:
            yield f"the capability {capability} is not allowed"
    if restricted and "ALL" not in (capabilities.get("drop") or []):
        yield "containers must drop all capabilities"
    if restricted and (context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0):
        yield "containers must run as another user than root"


def _handlers(container: Object) -> Iterator[Object]:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        yield container.get(probe) or {}
    lifecycle = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        yield lifecycle.get(hook) or {}
