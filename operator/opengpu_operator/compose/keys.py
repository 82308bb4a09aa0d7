"""Every key of the Compose specification and what becomes of it: the table that code and documentation share.

A key that is not in the table is unknown and refused, as Compose does; a key that is in the table is never dropped
silently: what is *ignored* is reported from here, and the rest is used by the module that the note names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from opengpu_operator.api.findings import Severity
from opengpu_operator.compose import values
from opengpu_operator.compose.findings import FindingReason, Path


class Treatment(StrEnum):
    """What becomes of a key."""

    MAPPED = "mapped"
    """It has its meaning in the cluster."""
    CHANGED = "changed"
    """It is mapped, but not always to what it says; a finding tells."""
    REFUSED = "refused"
    """It, or some of its values, forbid to run the file."""
    IGNORED = "ignored"
    """It has no effect; a finding tells."""


class Key(NamedTuple):
    """One key."""

    treatment: Treatment
    note: str
    """What becomes of it, in one sentence, for the documentation and, where it is ignored, for the finding."""
    reasons: tuple[FindingReason, ...] = ()
    """What may be found about it; the first is what is found about a key that is ignored."""
    of: str = ""
    """The table of the mapping that it holds, or of those in the list that it holds."""
    named: bool = False
    """Whether the keys of the mapping are names, and the table is that of their values."""
    parse: Callable[[Any], object] | None = None
    """Reads the value, as far as the specification's schema can't tell whether it means something."""
    each: Callable[[Any], object] | None = None
    """The same, of every entry of the list."""
    severity: Severity | None = None
    required: bool = False
    """Whether Compose requires it without its schema saying so."""

    def inside(self, value: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield every mapping in a value that has the key's table."""
        if not self.of:
            return
        if isinstance(value, dict) and not self.named:
            yield path, value
            return
        held = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for name, entry in held:
            if isinstance(entry, dict):
                yield (*path, name), entry


_M, _C, _R, _I = Treatment.MAPPED, Treatment.CHANGED, Treatment.REFUSED, Treatment.IGNORED
_F = FindingReason


def _ignored(note: str, *, warn: bool = False) -> Key:
    return Key(_I, note, (_F.KEY_IGNORED,), severity=Severity.WARNING if warn else None)


_LABELS: Final = _ignored("Labels of a file aren't put on the cluster's objects.")
_CPUS: Final = _ignored("Use cpus.", warn=True)
_NO_REAL_TIME: Final = _ignored("There is no real-time scheduling.", warn=True)
_LOOK_UP: Final = _ignored("Names are looked up by the cluster.", warn=True)
_HOOKS: Final = _ignored("Hooks of Compose aren't run.", warn=True)
_PULLING: Final = _ignored("The cluster's owner decides when images are pulled.")
_SWAP: Final = _ignored("Pods don't swap.")
_ADDRESSES: Final = _ignored("Pods have the cluster's addresses.", warn=True)
_CLUSTERS: Final = _ignored("Pods are in the cluster's network.")
_DRIVERS: Final = _ignored("Networks have no drivers here.")
_HOST: Final = _ignored("It is about the host's path, which isn't mounted.")

TOP: Final[Mapping[str, Key]] = {
    "version": _ignored("Compose itself no longer reads the version."),
    "name": _ignored("It is the variable COMPOSE_PROJECT_NAME; jobs have their own names."),
    "services": Key(
        _M,
        "Each active service becomes a workload.",
        (_F.NO_SERVICES, _F.NAME_CHANGED, _F.PROFILE_INACTIVE),
        of="service",
        named=True,
    ),
    "networks": Key(
        _M,
        "Services that share no network don't reach each other.",
        of="network",
        named=True,
    ),
    "volumes": Key(_M, "Named volumes become persistent volume claims.", of="volume", named=True),
    "configs": Key(_M, "Inline configs become files.", (_F.MISSING_KEY,), of="config", named=True),
    "secrets": Key(_M, "Inline secrets become files.", (_F.MISSING_KEY,), of="secret", named=True),
    "include": Key(_R, "Other files aren't fetched.", (_F.REMOTE_FILE,)),
    "models": Key(_R, "There is no model runner.", (_F.UNSUPPORTED_KEY,)),
}

SERVICE: Final[Mapping[str, Key]] = {
    "annotations": _ignored("A file can't annotate objects of the cluster."),
    "attach": _ignored("It is about the terminal that runs Compose."),
    "blkio_config": _ignored("Disk bandwidth isn't divided up.", warn=True),
    "build": Key(
        _R,
        "Nothing is built: the named image is used, and a service that names none is refused.",
        (_F.BUILD_ONLY, _F.KEY_IGNORED),
    ),
    "cap_add": Key(
        _R,
        "Harmless capabilities are given, some are dropped, the others are refused.",
        (_F.CAPABILITY_REFUSED, _F.CAPABILITY_DROPPED),
    ),
    "cap_drop": Key(_M, "Dropped."),
    "cgroup": Key(
        _R, "host is refused; private is what containers have.", (_F.HOST_NAMESPACE, _F.KEY_IGNORED)
    ),
    "cgroup_parent": _ignored("The cluster arranges its control groups.", warn=True),
    "command": Key(
        _M,
        "The container's args, word for word, but for addresses of the host.",
        (
            *(_F.COMMAND_CUT, _F.CANNOT_CLEAR, _F.NAME_NOT_REWRITTEN),
            *(_F.HOST_REFERENCE_REWRITTEN, _F.HOST_REFERENCE_UNRESOLVED),
        ),
        parse=values.command,
    ),
    "configs": Key(_M, "Inline files mounted at their target.", (_F.UNDEFINED_REFERENCE,), of="file"),
    "container_name": Key(_C, "Another name that the service is reached by.", (_F.ALIAS_NOT_POSSIBLE,)),
    "cpu_count": _CPUS,
    "cpu_percent": _CPUS,
    "cpu_period": _CPUS,
    "cpu_quota": _CPUS,
    "cpu_rt_period": _NO_REAL_TIME,
    "cpu_rt_runtime": _NO_REAL_TIME,
    "cpu_shares": _ignored("Use deploy.resources.reservations.cpus.", warn=True),
    "cpus": Key(_M, "The CPU limit.", parse=values.number),
    "cpuset": _ignored("CPUs aren't chosen by number.", warn=True),
    "credential_spec": Key(_R, "It is a file of the host.", (_F.HOST_FILE,)),
    "depends_on": Key(
        _M,
        "healthy and completed hold the pod back until then.",
        (_F.HEALTHY_WITHOUT_CHECK, _F.DEPENDENCY_INACTIVE, _F.UNDEFINED_REFERENCE),
        of="dependency",
        named=True,
    ),
    "deploy": Key(_M, "See its table.", of="deploy"),
    "develop": _ignored("It is for development."),
    "device_cgroup_rules": Key(_R, "Refused.", (_F.DEVICE_CGROUP_RULES,)),
    "devices": Key(
        _R,
        "GPU devices ask for GPUs; others are refused.",
        (_F.DEVICE_REFUSED, _F.RUNTIME_SOCKET, _F.GPU_IDS_COUNTED, _F.GPU_COUNT_BY_POLICY, _F.GPU_IGNORED),
        of="device_mapping",
    ),
    "dns": _LOOK_UP,
    "dns_opt": _LOOK_UP,
    "dns_search": _LOOK_UP,
    "domainname": _ignored("The pod has the job's domain.", warn=True),
    "entrypoint": Key(
        _M,
        "The container's command, word for word.",
        (_F.COMMAND_CUT, _F.CANNOT_CLEAR),
        parse=values.command,
    ),
    "env_file": Key(_I, "Files of the host aren't there and count as empty.", (_F.ENV_FILE_IGNORED,)),
    "environment": Key(
        _C,
        "Variables; those that steer the GPU runtime are left out, and addresses of the host are rewritten.",
        (
            *(_F.ENV_STRIPPED, _F.ENV_NAME_INVALID, _F.VARIABLE_UNSET, _F.NAME_NOT_REWRITTEN),
            *(_F.HOST_REFERENCE_REWRITTEN, _F.HOST_REFERENCE_UNRESOLVED),
            *(_F.GPU_COUNT_BY_POLICY, _F.GPU_IDS_COUNTED),
        ),
    ),
    "expose": Key(
        _C, "Ports for the other services.", (_F.AGENT_PORT, _F.PORT_UNDECLARED), each=values.exposed
    ),
    "extends": Key(
        _M, "A service of the same file is merged.", (_F.UNDEFINED_REFERENCE, _F.EXTENDS_CYCLE), of="extends"
    ),
    "external_links": _ignored("Containers outside of the file can't be reached.", warn=True),
    "extra_hosts": Key(
        _C,
        "Host entries; the host itself becomes the service that publishes the port.",
        (_F.KEY_IGNORED, _F.BAD_VALUE),
    ),
    "gpus": Key(_M, "GPUs.", (_F.GPU_COUNT_BY_POLICY, _F.GPU_IGNORED), of="gpu"),
    "group_add": Key(
        _C,
        "Numbers are added; names can't be, but video and render come with AMD's GPUs.",
        (_F.GROUP_NAME_IGNORED,),
    ),
    "healthcheck": Key(
        _M,
        "A readiness probe with the same timing.",
        (_F.HEALTHCHECK_WITHOUT_TEST,),
        of="healthcheck",
    ),
    "hostname": Key(
        _C,
        "Another name that the service is reached by; the pod's host name is the service's name.",
        (_F.KEY_IGNORED, _F.ALIAS_NOT_POSSIBLE),
    ),
    "image": Key(_M, "The image, digest and all.", (_F.BAD_VALUE,)),
    "init": _ignored("The image's own first process is used."),
    "ipc": Key(_C, "host becomes a /dev/shm of its own.", (_F.SHM_SIZED, _F.KEY_IGNORED)),
    "isolation": _ignored("It is for Windows."),
    "label_file": _LABELS,
    "labels": _LABELS,
    "links": Key(
        _C,
        "A start order, and other names for services.",
        (_F.ALIAS_NOT_POSSIBLE, _F.UNDEFINED_REFERENCE),
    ),
    "logging": _ignored("Logs go where the cluster's logs go."),
    "mac_address": _ADDRESSES,
    "mem_limit": Key(_M, "The memory limit.", parse=values.size),
    "mem_reservation": Key(_M, "The memory request.", (_F.RESOURCES_CLAMPED,), parse=values.size),
    "mem_swappiness": _SWAP,
    "memswap_limit": _SWAP,
    "models": Key(_R, "There is no model runner.", (_F.UNSUPPORTED_KEY,)),
    "network_mode": Key(
        _R,
        "service:x joins its pod; none cuts it off; host and containers outside of the file are refused.",
        (_F.HOST_NAMESPACE, _F.FOREIGN_NAMESPACE, _F.UNDEFINED_REFERENCE, _F.KEY_IGNORED),
    ),
    "networks": Key(
        _M,
        "The services of the same networks are reached.",
        (_F.UNDEFINED_REFERENCE,),
        of="service_network",
        named=True,
    ),
    "oom_kill_disable": _ignored("The kernel decides.", warn=True),
    "oom_score_adj": _ignored("The cluster decides."),
    "pid": Key(
        _R,
        "host and containers outside of the file are refused.",
        (_F.HOST_NAMESPACE, _F.FOREIGN_NAMESPACE, _F.KEY_IGNORED),
    ),
    "pids_limit": _ignored("The cluster limits processes."),
    "platform": Key(_C, "The node's architecture.", (_F.PLACEMENT_IGNORED,)),
    "ports": Key(
        _C,
        "Container ports; published TCP ports get a URL.",
        (_F.LOOPBACK_PORT, _F.PORT_UNROUTED, _F.SEVERAL_WORKERS, _F.AGENT_PORT, _F.PORT_UNDECLARED),
        of="port",
        each=values.ports,
    ),
    "post_start": _HOOKS,
    "pre_stop": _HOOKS,
    "privileged": Key(_R, "true is refused.", (_F.PRIVILEGED,), parse=values.boolean),
    "profiles": Key(_M, "Without an active profile the service isn't run.", (_F.PROFILE_INACTIVE,)),
    "provider": Key(_R, "Programs of the host can't be run.", (_F.UNSUPPORTED_KEY,)),
    "pull_policy": _PULLING,
    "pull_refresh_after": _PULLING,
    "read_only": Key(_M, "A read-only root file system.", parse=values.boolean),
    "restart": Key(_M, "no and on-failure become Jobs; the others Deployments.", (_F.BAD_VALUE,)),
    "runtime": Key(
        _C,
        "nvidia and amd ask for GPUs; others are ignored.",
        (_F.RUNTIME_IGNORED, _F.GPU_COUNT_BY_POLICY, _F.GPU_IGNORED),
    ),
    "scale": Key(_M, "Replicas.", (_F.BAD_VALUE,), parse=values.integer),
    "secrets": Key(_M, "Inline files mounted under /run/secrets.", (_F.UNDEFINED_REFERENCE,), of="file"),
    "security_opt": Key(
        _C, "Tightening is done anyway; loosening is dropped.", (_F.SECURITY_OPTION_DROPPED,)
    ),
    "shm_size": Key(_M, "The size of /dev/shm.", parse=values.size),
    "stdin_open": Key(_M, "stdin.", parse=values.boolean),
    "stop_grace_period": Key(_M, "The termination grace period.", parse=values.duration),
    "stop_signal": _ignored("The image's own signal is used.", warn=True),
    "storage_opt": _ignored("Set resources.ephemeralStorage on the task.", warn=True),
    "sysctls": Key(_C, "Safe ones are set, others dropped.", (_F.SYSCTL_DROPPED,)),
    "tmpfs": Key(
        _C, "Memory volumes of that size; other options are ignored.", (_F.KEY_IGNORED, _F.MOUNT_SHADOWED)
    ),
    "tty": Key(_M, "tty.", parse=values.boolean),
    "ulimits": _ignored("Limits are the node's.", warn=True),
    "use_api_socket": Key(_R, "true is refused.", (_F.RUNTIME_SOCKET,)),
    "user": Key(_C, "Numbers and root are used; other names can't be.", (_F.USER_NAME_IGNORED,)),
    "userns_mode": Key(_R, "host is refused.", (_F.HOST_NAMESPACE, _F.KEY_IGNORED)),
    "uts": Key(_R, "host is refused.", (_F.HOST_NAMESPACE, _F.KEY_IGNORED)),
    "volumes": Key(
        _C,
        "Named volumes are kept; paths of the host become empty volumes, or are refused.",
        (
            *(_F.BIND_REPLACED, _F.BIND_DROPPED, _F.MOUNT_SHADOWED, _F.SHM_SIZED, _F.MODEL_CACHE),
            *(_F.VOLUME_STARTS_EMPTY, _F.GPU_COUNT_BY_POLICY, _F.GPU_IGNORED),
            *(_F.HOST_PATH_REFUSED, _F.RUNTIME_SOCKET, _F.UNDEFINED_REFERENCE, _F.KEY_IGNORED),
        ),
        of="mount",
        each=values.mount,
    ),
    "volumes_from": Key(_M, "The mounts of another service.", (_F.FOREIGN_NAMESPACE, _F.UNDEFINED_REFERENCE)),
    "working_dir": Key(_M, "workingDir."),
}

DEPLOY: Final[Mapping[str, Key]] = {
    "mode": Key(_C, "global is one replica; the job modes become Jobs.", (_F.PLACEMENT_IGNORED,)),
    "endpoint_mode": _ignored("Services are found by DNS."),
    "replicas": Key(_M, "Replicas.", (_F.BAD_VALUE,), parse=values.integer),
    "labels": _LABELS,
    "rollback_config": _ignored("Jobs are replaced as a whole."),
    "update_config": Key(_M, "How many are replaced at once.", of="update_config"),
    "resources": Key(_M, "Requests and limits.", (_F.RESOURCES_CLAMPED,), of="resources"),
    "restart_policy": Key(_M, "As restart.", of="restart_policy"),
    "placement": Key(_M, "Architecture, and labels by setting.", of="placement"),
}

TABLES: Final[Mapping[str, Mapping[str, Key]]] = {
    "top": TOP,
    "service": SERVICE,
    "deploy": DEPLOY,
    "resources": {
        "limits": Key(_M, "Limits.", of="limits"),
        "reservations": Key(_M, "Requests.", of="reservations"),
    },
    "limits": {
        "cpus": Key(_M, "The CPU limit.", parse=values.number),
        "memory": Key(_M, "The memory limit.", parse=values.size),
        "pids": _ignored("The cluster limits processes."),
    },
    "reservations": {
        "cpus": Key(_M, "The CPU request.", (_F.RESOURCES_CLAMPED,), parse=values.number),
        "memory": Key(_M, "The memory request.", (_F.RESOURCES_CLAMPED,), parse=values.size),
        "devices": Key(_M, "GPUs.", (_F.GPU_COUNT_BY_POLICY, _F.GPU_IGNORED), of="gpu"),
        "generic_resources": Key(
            _M, "Those named like GPUs ask for GPUs.", (_F.GPU_IGNORED,), of="generic_resource"
        ),
    },
    "gpu": {
        "capabilities": Key(
            _R, "gpu is needed; what isn't a GPU is refused.", (_F.DEVICE_REFUSED, _F.KEY_IGNORED)
        ),
        "count": Key(
            _M,
            "The number of GPUs; all is the cluster's choice.",
            (_F.GPU_COUNT_BY_POLICY, _F.BAD_VALUE),
        ),
        "device_ids": Key(_C, "Their number counts.", (_F.GPU_IDS_COUNTED,)),
        "driver": Key(_C, "nvidia, amd or cdi; with others, the environment decides.", (_F.KEY_IGNORED,)),
        "options": _ignored("Drivers have no options here."),
    },
    "generic_resource": {
        "discrete_resource_spec": Key(_M, "A number of a kind.", of="discrete_resource"),
    },
    "discrete_resource": {
        "kind": Key(_C, "GPUs are asked for; other kinds are ignored.", (_F.KEY_IGNORED,)),
        "value": Key(_M, "The number of GPUs.", (_F.BAD_VALUE,)),
    },
    "restart_policy": {
        "condition": Key(_M, "none and on-failure become Jobs.", (_F.BAD_VALUE,)),
        "delay": _ignored("The cluster backs off by itself."),
        "max_attempts": Key(
            _C,
            "The Job's retries; without on-failure there are none to count.",
            (_F.KEY_IGNORED,),
            parse=values.integer,
        ),
        "window": _ignored("The cluster judges by itself."),
    },
    "update_config": {
        "parallelism": Key(
            _M,
            "The Deployment's maxUnavailable; nothing is started beside the old ones.",
            (_F.BAD_VALUE,),
            parse=values.integer,
        ),
        "delay": _ignored("The next one follows when one is ready."),
        "failure_action": _ignored("An update that fails stops."),
        "max_failure_ratio": _ignored("An update that fails stops."),
        "monitor": _ignored("A replica counts when it is ready."),
        "order": _ignored("The old one stops first: there may be no GPU for both."),
    },
    "placement": {
        "constraints": Key(
            _C, "node.platform.arch, and labels that the cluster's owner allows.", (_F.PLACEMENT_IGNORED,)
        ),
        "preferences": _ignored("The scheduler spreads by itself."),
        "max_replicas_per_node": _ignored("The scheduler spreads by itself."),
    },
    "healthcheck": {
        "disable": Key(_M, "No probe.", parse=values.boolean),
        "interval": Key(_M, "periodSeconds.", parse=values.duration),
        "retries": Key(_M, "failureThreshold.", parse=values.integer),
        "test": Key(_M, "The probe's command.", (_F.BAD_VALUE,)),
        "timeout": Key(_M, "timeoutSeconds.", parse=values.duration),
        "start_period": Key(
            _M,
            "Time in which failures don't count: a pod isn't ready then anyway.",
            parse=values.duration,
        ),
        "start_interval": Key(
            _M,
            "periodSeconds, where it is the shorter one and there is a start_period.",
            parse=values.duration,
        ),
    },
    "port": {
        "target": Key(_M, "containerPort.", required=True),
        "published": Key(_M, "The port of the URL's name where two services share a container port."),
        "protocol": Key(_C, "TCP or UDP; ports of others aren't declared.", (_F.PORT_UNDECLARED,)),
        "host_ip": Key(_C, "A loopback address: no URL by default.", (_F.LOOPBACK_PORT,)),
        "mode": _ignored("There is no host mode."),
        "name": _ignored("Ports have no names here."),
        "app_protocol": _ignored("URLs speak HTTP."),
    },
    "mount": {
        "type": Key(_C, "volume, bind or tmpfs; others become empty volumes.", (_F.BIND_REPLACED,)),
        "source": Key(
            _C, "The volume, or the path of the host that an empty one stands for.", (_F.BIND_REPLACED,)
        ),
        "target": Key(_M, "The path.", required=True),
        "read_only": Key(_M, "Read-only.", parse=values.boolean),
        "consistency": _ignored("It is for Docker Desktop."),
        "bind": Key(_M, "It is about the host.", of="mount_bind"),
        "volume": Key(_M, "A directory of the volume.", of="mount_volume"),
        "tmpfs": Key(_M, "The size.", of="mount_tmpfs"),
        "image": _ignored("Images aren't mounted.", warn=True),
    },
    "mount_bind": {
        "create_host_path": Key(_M, "What is missing on the host is always replaced.", parse=values.boolean),
        "propagation": _HOST,
        "recursive": _HOST,
        "selinux": _HOST,
    },
    "mount_volume": {
        "nocopy": _ignored("New volumes start empty."),
        "labels": _LABELS,
        "subpath": Key(_M, "subPath."),
    },
    "mount_tmpfs": {
        "size": Key(_M, "The size limit.", parse=values.size),
        "mode": _ignored("Memory volumes can be written by everyone."),
    },
    "device_mapping": {
        "source": Key(_R, "The device.", (_F.DEVICE_REFUSED,)),
        "target": _ignored("Devices keep their paths."),
        "permissions": _ignored("The device plugin decides."),
    },
    "dependency": {
        "condition": Key(_M, "What is waited for.", (_F.HEALTHY_WITHOUT_CHECK,)),
        "restart": _ignored("Services are restarted one by one."),
        "required": Key(_M, "Whether the other has to be there.", parse=values.boolean),
    },
    "extends": {
        "service": Key(_M, "The service to extend.", (_F.UNDEFINED_REFERENCE,)),
        "file": Key(_R, "Other files aren't fetched.", (_F.REMOTE_FILE,)),
    },
    "file": {
        "source": Key(_M, "The entry.", (_F.UNDEFINED_REFERENCE,), required=True),
        "target": Key(_M, "The path.", (_F.BAD_VALUE,)),
        "uid": _ignored("Files belong to root and can be read by everyone."),
        "gid": _ignored("Files belong to root and can be read by everyone."),
        "mode": Key(_M, "The file's mode.", (_F.BAD_VALUE,)),
    },
    "service_network": {
        "aliases": Key(_C, "Other names that the service is reached by.", (_F.ALIAS_NOT_POSSIBLE,)),
        "driver_opts": _DRIVERS,
        "gw_priority": _CLUSTERS,
        "interface_name": _CLUSTERS,
        "ipv4_address": _ADDRESSES,
        "ipv6_address": _ADDRESSES,
        "link_local_ips": _ADDRESSES,
        "mac_address": _ADDRESSES,
        "priority": _CLUSTERS,
    },
    "network": {
        "name": _CLUSTERS,
        "driver": _DRIVERS,
        "driver_opts": _DRIVERS,
        "ipam": _ADDRESSES,
        "external": _ignored("Networks outside of the file can't be joined.", warn=True),
        "internal": Key(_M, "Services in no other network don't reach the Internet.", parse=values.boolean),
        "enable_ipv4": _ADDRESSES,
        "enable_ipv6": _ADDRESSES,
        "attachable": _CLUSTERS,
        "labels": _LABELS,
    },
    "volume": {
        "name": _ignored("Volumes have the job's or the source's names."),
        "driver": _ignored("Volumes are the cluster's."),
        "driver_opts": Key(
            _R,
            "Binds of the host are refused; other options are ignored.",
            (_F.HOST_PATH_REFUSED, _F.VOLUME_OPTIONS_IGNORED),
        ),
        "external": Key(_R, "true is refused.", (_F.EXTERNAL_RESOURCE,)),
        "labels": _LABELS,
    },
    "config": {
        "name": _ignored("Files have the job's names."),
        "content": Key(_M, "The file's content.", (_F.HOST_REFERENCE_REWRITTEN,)),
        "environment": Key(_M, "A variable of the network whose value is the content.", (_F.VARIABLE_UNSET,)),
        "file": Key(_R, "Refused.", (_F.HOST_FILE,)),
        "external": Key(_R, "true is refused.", (_F.EXTERNAL_RESOURCE,)),
        "labels": _LABELS,
        "template_driver": _ignored("Contents aren't templates.", warn=True),
    },
    "secret": {
        "name": _ignored("Files have the job's names."),
        "content": Key(_M, "The file's content, which Compose knows for configs only."),
        "environment": Key(_M, "A variable of the network whose value is the content.", (_F.VARIABLE_UNSET,)),
        "file": Key(_R, "Refused.", (_F.HOST_FILE,)),
        "external": Key(_R, "true is refused.", (_F.EXTERNAL_RESOURCE,)),
        "labels": _LABELS,
        "driver": _ignored("Secrets have no drivers here.", warn=True),
        "driver_opts": _ignored("Secrets have no drivers here.", warn=True),
        "template_driver": _ignored("Contents aren't templates.", warn=True),
    },
}
