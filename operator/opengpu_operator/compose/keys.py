"""Every key of the Compose specification and what becomes of it: the table that code and documentation share.

A key that is not in the table is unknown and refused, as Compose does; a key that is in the table is never dropped
silently: what is *ignored* is reported from here, and the rest is used by the module that the note names.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from opengpu_operator.api.findings import Severity
from opengpu_operator.compose.findings import FindingReason


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


class Form(StrEnum):
    """The form of a key's value, which ``shape`` checks."""

    ANY = "anything"
    STRING = "a string"
    SCALAR = "a string or a number"
    BOOLEAN = "true or false"
    INTEGER = "a whole number"
    NUMBER = "a number"
    SIZE = "a size such as 512m or 2gb"
    DURATION = "a duration such as 1m30s"
    STRINGS = "a list of strings"
    STRING_OR_STRINGS = "a string or a list of strings"
    COMMAND = "a string or a list of strings "
    VARIABLES = "a mapping or a list of NAME=value"
    HOSTS = "a mapping or a list of host:address"
    MAPPING = "a mapping"
    LIST = "a list"
    NAMED = "a mapping of names to mappings"
    """A mapping whose values have the table ``of``."""
    ENTRIES = "a list of strings or mappings"
    """A list whose mappings have the table ``of``."""
    OBJECT = "a mapping  "
    """A mapping with the table ``of``."""
    STRING_OR_OBJECT = "a string or a mapping"
    NAMES_OR_NAMED = "a list of names or a mapping"
    PORTS = "a list of ports"
    EXPOSED = "a list of port numbers"
    MOUNTS = "a list of volumes"
    GPUS = "all or a list of device requests"
    ENV_FILES = "a path, or a list of paths"


class Key(NamedTuple):
    """One key."""

    treatment: Treatment
    form: Form = Form.ANY
    note: str = ""
    """What becomes of it, in one sentence, for the documentation and, where it is ignored, for the finding."""
    of: str = ""
    """The table of the mapping inside."""
    reason: FindingReason = FindingReason.KEY_IGNORED
    severity: Severity | None = None
    required: bool = False


_M, _C, _R, _I = Treatment.MAPPED, Treatment.CHANGED, Treatment.REFUSED, Treatment.IGNORED
_WARN: Final = Severity.WARNING


def _ignored(form: Form, note: str, *, warn: bool = False) -> Key:
    return Key(_I, form, note, severity=_WARN if warn else None)


TOP: Final[Mapping[str, Key]] = {
    "version": _ignored(Form.SCALAR, "Compose itself no longer reads the version."),
    "name": _ignored(Form.STRING, "It is the variable COMPOSE_PROJECT_NAME; jobs have their own names."),
    "services": Key(_M, Form.NAMED, "Each active service becomes a workload.", of="service", required=True),
    "networks": Key(_M, Form.NAMED, "Services that share no network don't reach each other.", of="network"),
    "volumes": Key(_C, Form.NAMED, "Named volumes become persistent volume claims.", of="volume"),
    "configs": Key(
        _C, Form.NAMED, "Inline configs become files; files of the host are refused.", of="config"
    ),
    "secrets": Key(
        _C, Form.NAMED, "Inline secrets become files; files of the host are refused.", of="secret"
    ),
    "include": Key(_R, Form.ANY, "Other files aren't fetched.", reason=FindingReason.REMOTE_FILE),
    "models": Key(_R, Form.ANY, "There is no model runner.", reason=FindingReason.UNSUPPORTED_KEY),
}

SERVICE: Final[Mapping[str, Key]] = {
    "annotations": _ignored(Form.VARIABLES, "A file can't annotate objects of the cluster."),
    "attach": _ignored(Form.BOOLEAN, "It is about the terminal that runs Compose."),
    "blkio_config": _ignored(Form.MAPPING, "Disk bandwidth isn't divided up.", warn=True),
    "build": _ignored(Form.STRING_OR_OBJECT, "Nothing is built: the named image is used."),
    "cap_add": Key(
        _R, Form.STRINGS, "Harmless capabilities are given, some are dropped, the others are refused."
    ),
    "cap_drop": Key(_M, Form.STRINGS, "Dropped."),
    "cgroup": Key(_R, Form.STRING, "host is refused; private is what containers have."),
    "cgroup_parent": _ignored(Form.STRING, "The cluster arranges its control groups.", warn=True),
    "command": Key(_M, Form.COMMAND, "The container's args, word for word."),
    "configs": Key(_M, Form.ENTRIES, "Inline files mounted at their target.", of="file"),
    "container_name": Key(_C, Form.STRING, "Another name that the service is reached by."),
    "cpu_count": _ignored(Form.INTEGER, "Use cpus.", warn=True),
    "cpu_percent": _ignored(Form.INTEGER, "Use cpus.", warn=True),
    "cpu_period": _ignored(Form.ANY, "Use cpus.", warn=True),
    "cpu_quota": _ignored(Form.ANY, "Use cpus.", warn=True),
    "cpu_rt_period": _ignored(Form.ANY, "There is no real-time scheduling.", warn=True),
    "cpu_rt_runtime": _ignored(Form.ANY, "There is no real-time scheduling.", warn=True),
    "cpu_shares": _ignored(Form.NUMBER, "Use deploy.resources.reservations.cpus.", warn=True),
    "cpus": Key(_M, Form.NUMBER, "The CPU limit."),
    "cpuset": _ignored(Form.SCALAR, "CPUs aren't chosen by number.", warn=True),
    "credential_spec": Key(_R, Form.MAPPING, "It is a file of the host.", reason=FindingReason.HOST_FILE),
    "depends_on": Key(
        _M, Form.NAMES_OR_NAMED, "healthy and completed hold the pod back until then.", of="dependency"
    ),
    "deploy": Key(_M, Form.OBJECT, "See the table of deploy.", of="deploy"),
    "develop": _ignored(Form.MAPPING, "It is for development."),
    "device_cgroup_rules": Key(_R, Form.STRINGS, "Refused.", reason=FindingReason.DEVICE_CGROUP_RULES),
    "devices": Key(_R, Form.ENTRIES, "GPU devices ask for GPUs; others are refused.", of="device_mapping"),
    "dns": _ignored(Form.STRING_OR_STRINGS, "Names are looked up by the cluster.", warn=True),
    "dns_opt": _ignored(Form.STRINGS, "Names are looked up by the cluster.", warn=True),
    "dns_search": _ignored(Form.STRING_OR_STRINGS, "Names are looked up by the cluster.", warn=True),
    "domainname": _ignored(Form.STRING, "The pod has the job's domain.", warn=True),
    "driver_opts": _ignored(Form.MAPPING, "Networks have no drivers here."),
    "entrypoint": Key(_M, Form.COMMAND, "The container's command, word for word."),
    "env_file": Key(_C, Form.ENV_FILES, "Files of the host aren't there and count as empty."),
    "environment": Key(_M, Form.VARIABLES, "Variables; those that steer the GPU runtime are left out."),
    "expose": Key(_M, Form.EXPOSED, "Ports for the other services."),
    "extends": Key(
        _R,
        Form.STRING_OR_OBJECT,
        "A service of the same file is merged; other files are refused.",
        of="extends",
    ),
    "external_links": _ignored(Form.STRINGS, "Containers outside of the file can't be reached.", warn=True),
    "extra_hosts": Key(
        _C, Form.HOSTS, "Host entries; the host itself becomes the service that publishes the port."
    ),
    "gpus": Key(_M, Form.GPUS, "GPUs."),
    "group_add": Key(_C, Form.STRINGS, "Numbers are added; names can't be."),
    "healthcheck": Key(_M, Form.OBJECT, "A readiness probe with the same timing.", of="healthcheck"),
    "hostname": _ignored(Form.STRING, "The pod's host name is the service's name."),
    "image": Key(_M, Form.STRING, "The image, digest and all."),
    "init": _ignored(Form.BOOLEAN, "The image's own first process is used."),
    "ipc": Key(_C, Form.STRING, "host becomes a /dev/shm of its own."),
    "isolation": _ignored(Form.STRING, "It is for Windows."),
    "label_file": _ignored(Form.STRING_OR_STRINGS, "Labels of a file aren't put on the cluster's objects."),
    "labels": _ignored(Form.VARIABLES, "Labels of a file aren't put on the cluster's objects."),
    "links": Key(_C, Form.STRINGS, "A start order, and other names for services."),
    "logging": _ignored(Form.MAPPING, "Logs go where the cluster's logs go."),
    "mac_address": _ignored(Form.STRING, "Pods have the cluster's addresses.", warn=True),
    "mem_limit": Key(_M, Form.SIZE, "The memory limit."),
    "mem_reservation": Key(_M, Form.SIZE, "The memory request."),
    "mem_swappiness": _ignored(Form.INTEGER, "Pods don't swap."),
    "memswap_limit": _ignored(Form.ANY, "Pods don't swap."),
    "models": Key(_R, Form.ANY, "There is no model runner.", reason=FindingReason.UNSUPPORTED_KEY),
    "network_mode": Key(_R, Form.STRING, "service:x joins its pod; none cuts it off; host is refused."),
    "networks": Key(
        _M, Form.NAMES_OR_NAMED, "The services of the same networks are reached.", of="service_network"
    ),
    "oom_kill_disable": _ignored(Form.BOOLEAN, "The kernel decides.", warn=True),
    "oom_score_adj": _ignored(Form.INTEGER, "The cluster decides."),
    "pid": Key(_R, Form.STRING, "host is refused."),
    "pids_limit": _ignored(Form.INTEGER, "The cluster limits processes."),
    "platform": Key(_M, Form.STRING, "The node's architecture."),
    "ports": Key(_M, Form.PORTS, "Container ports; published TCP ports get a URL.", of="port"),
    "post_start": _ignored(Form.LIST, "Hooks of Compose aren't run.", warn=True),
    "pre_stop": _ignored(Form.LIST, "Hooks of Compose aren't run.", warn=True),
    "privileged": Key(_R, Form.BOOLEAN, "true is refused.", reason=FindingReason.PRIVILEGED),
    "profiles": Key(_M, Form.STRINGS, "Without an active profile the service isn't run."),
    "provider": Key(
        _R, Form.MAPPING, "Programs of the host can't be run.", reason=FindingReason.UNSUPPORTED_KEY
    ),
    "pull_policy": _ignored(Form.STRING, "The cluster's owner decides when images are pulled."),
    "pull_refresh_after": _ignored(Form.STRING, "The cluster's owner decides when images are pulled."),
    "read_only": Key(_M, Form.BOOLEAN, "A read-only root file system."),
    "restart": Key(_M, Form.SCALAR, "no and on-failure become Jobs; the others Deployments."),
    "runtime": Key(_C, Form.STRING, "nvidia and amd ask for GPUs; others are ignored."),
    "scale": Key(_M, Form.INTEGER, "Replicas."),
    "secrets": Key(_M, Form.ENTRIES, "Inline files mounted under /run/secrets.", of="file"),
    "security_opt": Key(_C, Form.STRINGS, "Tightening is done anyway; loosening is dropped."),
    "shm_size": Key(_M, Form.SIZE, "The size of /dev/shm."),
    "stdin_open": Key(_M, Form.BOOLEAN, "stdin."),
    "stop_grace_period": Key(_M, Form.DURATION, "The termination grace period."),
    "stop_signal": _ignored(Form.SCALAR, "The image's own signal is used.", warn=True),
    "storage_opt": _ignored(Form.MAPPING, "Set resources.ephemeralStorage on the task.", warn=True),
    "sysctls": Key(_C, Form.VARIABLES, "Safe ones are set, others dropped."),
    "tmpfs": Key(_M, Form.STRING_OR_STRINGS, "Memory volumes."),
    "tty": Key(_M, Form.BOOLEAN, "tty."),
    "ulimits": _ignored(Form.MAPPING, "Limits are the node's.", warn=True),
    "use_api_socket": Key(_R, Form.BOOLEAN, "true is refused.", reason=FindingReason.RUNTIME_SOCKET),
    "user": Key(_C, Form.SCALAR, "Numbers are used; names can't be."),
    "userns_mode": Key(_R, Form.STRING, "host is refused."),
    "uts": Key(_R, Form.STRING, "host is refused."),
    "volumes": Key(
        _C, Form.MOUNTS, "Named volumes are kept; paths of the host become empty volumes.", of="mount"
    ),
    "volumes_from": Key(_M, Form.STRINGS, "The mounts of another service."),
    "working_dir": Key(_M, Form.STRING, "workingDir."),
}

DEPLOY: Final[Mapping[str, Key]] = {
    "mode": Key(_C, Form.STRING, "global is one replica; the job modes become Jobs."),
    "endpoint_mode": _ignored(Form.STRING, "Services are found by DNS."),
    "replicas": Key(_M, Form.INTEGER, "Replicas."),
    "labels": _ignored(Form.VARIABLES, "Labels of a file aren't put on the cluster's objects."),
    "rollback_config": _ignored(Form.MAPPING, "Jobs are replaced as a whole."),
    "update_config": _ignored(Form.MAPPING, "Jobs are replaced as a whole."),
    "resources": Key(_M, Form.OBJECT, "Requests and limits.", of="resources"),
    "restart_policy": Key(_M, Form.OBJECT, "As restart.", of="restart_policy"),
    "placement": Key(_C, Form.OBJECT, "Architecture only.", of="placement"),
}

TABLES: Final[Mapping[str, Mapping[str, Key]]] = {
    "top": TOP,
    "service": SERVICE,
    "deploy": DEPLOY,
    "resources": {
        "limits": Key(_M, Form.OBJECT, "Limits.", of="limits"),
        "reservations": Key(_M, Form.OBJECT, "Requests.", of="reservations"),
    },
    "limits": {
        "cpus": Key(_M, Form.NUMBER, "The CPU limit."),
        "memory": Key(_M, Form.SIZE, "The memory limit."),
        "pids": _ignored(Form.INTEGER, "The cluster limits processes."),
    },
    "reservations": {
        "cpus": Key(_M, Form.NUMBER, "The CPU request."),
        "memory": Key(_M, Form.SIZE, "The memory request."),
        "devices": Key(_M, Form.ENTRIES, "GPUs.", of="gpu"),
        "generic_resources": Key(_C, Form.LIST, "Those named like GPUs ask for GPUs."),
    },
    "gpu": {
        "capabilities": Key(_M, Form.ANY, "gpu is needed.", required=True),
        "count": Key(_M, Form.SCALAR, "The number of GPUs; all is the cluster's choice."),
        "device_ids": Key(_C, Form.STRINGS, "Their number counts."),
        "driver": Key(_M, Form.STRING, "nvidia, amd or cdi."),
        "options": _ignored(Form.VARIABLES, "Drivers have no options here."),
    },
    "restart_policy": {
        "condition": Key(_M, Form.STRING, "none and on-failure become Jobs."),
        "delay": _ignored(Form.STRING, "The cluster backs off by itself."),
        "max_attempts": Key(_M, Form.INTEGER, "The Job's retries."),
        "window": _ignored(Form.STRING, "The cluster judges by itself."),
    },
    "placement": {
        "constraints": Key(_C, Form.STRINGS, "node.platform.arch is kept."),
        "preferences": _ignored(Form.LIST, "The scheduler spreads by itself."),
        "max_replicas_per_node": _ignored(Form.INTEGER, "The scheduler spreads by itself."),
    },
    "healthcheck": {
        "disable": Key(_M, Form.BOOLEAN, "No probe."),
        "interval": Key(_M, Form.DURATION, "periodSeconds."),
        "retries": Key(_M, Form.INTEGER, "failureThreshold."),
        "test": Key(_M, Form.STRING_OR_STRINGS, "The probe's command."),
        "timeout": Key(_M, Form.DURATION, "timeoutSeconds."),
        "start_period": Key(
            _M, Form.DURATION, "Time in which failures don't count: a pod isn't ready then anyway."
        ),
        "start_interval": Key(_M, Form.DURATION, "periodSeconds, where it is the shorter one."),
    },
    "port": {
        "target": Key(_M, Form.SCALAR, "containerPort.", required=True),
        "published": Key(
            _M, Form.SCALAR, "The port of the URL's name where two services share a container port."
        ),
        "protocol": Key(_M, Form.STRING, "TCP or UDP; SCTP gets no URL."),
        "host_ip": Key(_M, Form.STRING, "A loopback address: no URL by default."),
        "mode": _ignored(Form.STRING, "There is no host mode."),
        "name": _ignored(Form.STRING, "Ports have no names here."),
        "app_protocol": _ignored(Form.STRING, "URLs speak HTTP."),
    },
    "mount": {
        "type": Key(_M, Form.STRING, "volume, bind or tmpfs.", required=True),
        "source": Key(_M, Form.STRING, "The volume."),
        "target": Key(_M, Form.STRING, "The path.", required=True),
        "read_only": Key(_M, Form.BOOLEAN, "Read-only."),
        "consistency": _ignored(Form.STRING, "It is for Docker Desktop."),
        "bind": Key(_M, Form.OBJECT, "It is about the host.", of="mount_bind"),
        "volume": Key(_M, Form.OBJECT, "subpath is kept.", of="mount_volume"),
        "tmpfs": Key(_M, Form.OBJECT, "size is kept.", of="mount_tmpfs"),
        "image": _ignored(Form.MAPPING, "Images aren't mounted.", warn=True),
    },
    "mount_bind": {
        "create_host_path": Key(_M, Form.BOOLEAN, "What is missing on the host is always replaced."),
        **{
            key: _ignored(Form.STRING, "Nothing of the host is mounted.")
            for key in ("propagation", "recursive", "selinux")
        },
    },
    "mount_volume": {
        "nocopy": _ignored(Form.BOOLEAN, "New volumes start empty."),
        "labels": _ignored(Form.VARIABLES, "Labels of a file aren't put on the cluster's objects."),
        "subpath": Key(_M, Form.STRING, "subPath."),
    },
    "mount_tmpfs": {
        "size": Key(_M, Form.SIZE, "The size limit."),
        "mode": _ignored(Form.SCALAR, "Memory volumes can be written by everyone."),
    },
    "device_mapping": {
        "source": Key(_M, Form.STRING, "The device.", required=True),
        "target": _ignored(Form.STRING, "Devices keep their paths."),
        "permissions": _ignored(Form.STRING, "The device plugin decides."),
    },
    "dependency": {
        "condition": Key(_M, Form.STRING, "What is waited for.", required=True),
        "restart": _ignored(Form.BOOLEAN, "Services are restarted one by one."),
        "required": Key(_M, Form.BOOLEAN, "Whether the other has to be there."),
    },
    "extends": {
        "service": Key(_M, Form.STRING, "The service to extend.", required=True),
        "file": Key(_R, Form.STRING, "Other files aren't fetched.", reason=FindingReason.REMOTE_FILE),
    },
    "file": {
        "source": Key(_M, Form.STRING, "The entry.", required=True),
        "target": Key(_M, Form.STRING, "The path."),
        "uid": _ignored(Form.SCALAR, "Files belong to root and can be read by everyone."),
        "gid": _ignored(Form.SCALAR, "Files belong to root and can be read by everyone."),
        "mode": Key(_M, Form.SCALAR, "The file's mode."),
    },
    "service_network": {
        "aliases": Key(_M, Form.STRINGS, "Other names that the service is reached by."),
        "driver_opts": _ignored(Form.MAPPING, "Networks have no drivers here."),
        "gw_priority": _ignored(Form.NUMBER, "Pods are in the cluster's network."),
        "interface_name": _ignored(Form.STRING, "Pods are in the cluster's network."),
        "ipv4_address": _ignored(Form.STRING, "Pods have the cluster's addresses.", warn=True),
        "ipv6_address": _ignored(Form.STRING, "Pods have the cluster's addresses.", warn=True),
        "link_local_ips": _ignored(Form.STRINGS, "Pods have the cluster's addresses.", warn=True),
        "mac_address": _ignored(Form.STRING, "Pods have the cluster's addresses.", warn=True),
        "priority": _ignored(Form.NUMBER, "Pods are in the cluster's network."),
    },
    "network": {
        "internal": Key(_M, Form.BOOLEAN, "Services in no other network don't reach the Internet."),
        **{
            key: _ignored(Form.ANY, "Pods are in the cluster's network.")
            for key in (
                *("name", "driver", "driver_opts", "ipam", "external"),
                *("enable_ipv4", "enable_ipv6", "attachable", "labels"),
            )
        },
    },
    "volume": {
        "name": _ignored(Form.STRING, "Volumes have the job's or the source's names."),
        "driver": _ignored(Form.STRING, "Volumes are the cluster's."),
        "driver_opts": Key(_R, Form.MAPPING, "Binds of the host are refused; other options are ignored."),
        "external": Key(_R, Form.ANY, "Refused.", reason=FindingReason.EXTERNAL_RESOURCE),
        "labels": _ignored(Form.VARIABLES, "Labels of a file aren't put on the cluster's objects."),
    },
    "config": {
        "name": _ignored(Form.STRING, "Files have the job's names."),
        "content": Key(_M, Form.STRING, "The file's content."),
        "environment": Key(_M, Form.STRING, "A variable of the network whose value is the content."),
        "file": Key(_R, Form.STRING, "Refused.", reason=FindingReason.HOST_FILE),
        "external": Key(_R, Form.ANY, "Refused.", reason=FindingReason.EXTERNAL_RESOURCE),
        "labels": _ignored(Form.VARIABLES, "Labels of a file aren't put on the cluster's objects."),
        "template_driver": _ignored(Form.STRING, "Contents aren't templates.", warn=True),
    },
    "secret": {
        "name": _ignored(Form.STRING, "Files have the job's names."),
        "content": Key(_M, Form.STRING, "The file's content."),
        "environment": Key(_M, Form.STRING, "A variable of the network whose value is the content."),
        "file": Key(_R, Form.STRING, "Refused.", reason=FindingReason.HOST_FILE),
        "external": Key(_R, Form.ANY, "Refused.", reason=FindingReason.EXTERNAL_RESOURCE),
        "labels": _ignored(Form.VARIABLES, "Labels of a file aren't put on the cluster's objects."),
        "driver": _ignored(Form.STRING, "Secrets have no drivers here.", warn=True),
        "driver_opts": _ignored(Form.MAPPING, "Secrets have no drivers here.", warn=True),
        "template_driver": _ignored(Form.STRING, "Contents aren't templates.", warn=True),
    },
}
