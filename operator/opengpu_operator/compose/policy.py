"""What is refused, all of it at once: each refusal names the key, its line and what to do instead.

A provider runs strangers' files. What would give a container power over the node is refused by name rather than left
out, because the program would not work without it and nobody would know why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from opengpu_operator.api.labels import CALLBACK_PORT
from opengpu_operator.compose import hostpaths, values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.project import Definition, MountEntry, Project
from opengpu_operator.compose.values import Mounted

#: What Kubernetes' baseline standard lets containers add.
ALLOWED_CAPABILITIES: Final = frozenset(
    {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
#: Asked for out of habit; programs run without them.
DROPPED_CAPABILITIES: Final = frozenset(
    {"SYS_PTRACE", "SYS_NICE", "IPC_LOCK", "IPC_OWNER", "NET_RAW", "SYS_RESOURCE", "LEASE"}
)
_HOST_KEYS: Final = ("network_mode", "pid", "uts", "userns_mode", "cgroup")
#: Where a config's or secret's content may come from.
_SOURCES: Final = frozenset({"content", "environment", "file", "external"})
#: Their devices are paths of another machine.
_REMOTE_FILE_SYSTEMS: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs"})
#: https://github.com/distribution/reference, without its limits on each part.
_IMAGE: Final = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,128})?"
)
_MAX_IMAGE: Final = 1024


def check(project: Project, report: Report) -> None:
    """Report everything that forbids to run the active services of a file."""
    _files(project, report)
    for service in project.services.values():
        extends = (project.raw["services"][service.name] or {}).get("extends")
        complete = not (isinstance(extends, dict) and extends.get("file") is not None)
        _Service(service, report).check(complete=complete)


def foreign_namespace(value: str | None) -> FindingReason | None:
    """Return why a namespace can't be shared: it is the node's, or a container's outside of the file."""
    text = (value or "").strip().lower()
    if text == "host":
        return FindingReason.HOST_NAMESPACE
    return FindingReason.FOREIGN_NAMESPACE if text.startswith("container:") else None


def refused_mount(mount: Mounted) -> FindingReason | None:
    """Return why something of the host can't be mounted."""
    if mount.kind == "npipe":
        return FindingReason.RUNTIME_SOCKET
    if mount.kind != "bind":
        return None
    if hostpaths.is_runtime_socket(mount.source, mount.target):
        return FindingReason.RUNTIME_SOCKET
    return FindingReason.HOST_PATH_REFUSED if hostpaths.is_refused(mount.source) else None


def capability(name: str) -> str:
    """Return a capability in the one spelling that Kubernetes knows: upper case, without ``CAP_``."""
    return name.strip().upper().removeprefix("CAP_")


def _files(project: Project, report: Report) -> None:
    if project.raw.get("include"):
        report.add(
            FindingReason.REMOTE_FILE, ("include",), "include needs other files, which aren't fetched."
        )
    if project.raw.get("models"):
        report.add(FindingReason.UNSUPPORTED_KEY, ("models",), "There is no model runner in a cluster.")
    for name, service in (project.raw.get("services") or {}).items():
        extends = service.get("extends")
        if isinstance(extends, dict) and extends.get("file") is not None:
            report.add(
                FindingReason.REMOTE_FILE,
                ("services", name, "extends", "file"),
                f"The service extends one of {clip(extends['file'])}, which isn't fetched.",
            )
    for section in ("configs", "secrets"):
        for name, entry in project.section(section).items():
            if isinstance(entry, dict) and all(entry.get(key) in (None, False) for key in _SOURCES):
                report.add(
                    FindingReason.MISSING_KEY,
                    (section, name),
                    f"{clip(name)} has no content.",
                    advice="Add content.",
                )
    for section, name in dict.fromkeys(_used(project)):
        entry = project.section(section).get(name)
        if isinstance(entry, dict):
            _resource(section, name, entry, report)


def _used(project: Project) -> Iterator[tuple[str, str]]:
    """Return the resources that active services use: what nobody uses isn't missed."""
    for service in project.services.values():
        for section in ("configs", "secrets"):
            for entry in service.get(section) or []:
                yield section, values.text(entry["source"] if isinstance(entry, dict) else entry)
        for mounted in service.mounts:
            if mounted.mount.kind == "volume" and mounted.mount.source:
                yield "volumes", mounted.mount.source


def _resource(section: str, name: str, entry: dict[str, Any], report: Report) -> None:
    path: Path = (section, name)
    external = entry.get("external")
    if external is not None and (isinstance(external, dict) or _boolean(external)):
        report.add(
            FindingReason.EXTERNAL_RESOURCE,
            (*path, "external"),
            f"{clip(name)} was made outside of the file, so it isn't there.",
        )
    elif section != "volumes" and entry.get("file") is not None:
        report.add(
            FindingReason.HOST_FILE,
            (*path, "file"),
            f"{clip(entry['file'])} is a file of the machine the file was written on.",
        )
    elif section != "volumes" and None not in (entry.get("content"), entry.get("environment")):
        report.add(FindingReason.BAD_VALUE, path, "content and environment can't be given together.")
    options = entry.get("driver_opts") or {}
    if section == "volumes" and options:
        kind = values.text(options.get("type"))
        kinds = [*values.text(options.get("o")).split(","), kind]
        device = values.text(options.get("device"))
        if any(entry.strip() in ("bind", "rbind", "none") for entry in kinds) or (
            device.startswith(("/", "~", ".")) and kind not in _REMOTE_FILE_SYSTEMS
        ):
            report.add(
                FindingReason.HOST_PATH_REFUSED,
                (*path, "driver_opts"),
                f"The volume {clip(name)} is a bind of the host's path {clip(device)}.",
                advice="Remove driver_opts: the volume then is one of the cluster.",
            )
        else:
            report.add(FindingReason.VOLUME_OPTIONS_IGNORED, (*path, "driver_opts"))


def _boolean(value: Any) -> bool:
    try:
        return values.boolean(value)
    except ValueError:
        return True


class _Service:
    def __init__(self, service: Definition, report: Report) -> None:
        self._service = service
        self._report = report

    def check(self, *, complete: bool) -> None:
        service = self._service
        if complete:
            self._image()
        for key in ("privileged", "use_api_socket"):
            if service.flag(key):
                reason = FindingReason.PRIVILEGED if key == "privileged" else FindingReason.RUNTIME_SOCKET
                self._add(reason, (key,))
        for key in _HOST_KEYS:
            self._namespace(key)
        if service.get("device_cgroup_rules"):
            self._add(FindingReason.DEVICE_CGROUP_RULES, ("device_cgroup_rules",))
        if service.get("credential_spec") is not None:
            self._add(FindingReason.HOST_FILE, ("credential_spec",))
        if foreign_namespace(service.get("ipc")) is FindingReason.FOREIGN_NAMESPACE:
            self._add(FindingReason.FOREIGN_NAMESPACE, ("ipc",))
        for key in ("provider", "models"):
            if service.get(key):
                self._add(FindingReason.UNSUPPORTED_KEY, (key,))
        for index, name in enumerate(values.strings(service.get("cap_add"))):
            if capability(name) not in ALLOWED_CAPABILITIES | DROPPED_CAPABILITIES:
                self._add(
                    FindingReason.CAPABILITY_REFUSED,
                    ("cap_add", index),
                    f"The capability {clip(name)} gives power over the node.",
                )
        for index, entry in enumerate(service.get("devices") or []):
            self._device(entry, index)
        for entry in service.mounts:
            self._mount(entry)
        for index, name in enumerate(values.strings(service.get("volumes_from"))):
            if name.startswith("container:"):
                self._add(FindingReason.FOREIGN_NAMESPACE, ("volumes_from", index))
        self._ports()

    def _add(self, reason: FindingReason, place: tuple[str | int, ...], message: str = "") -> None:
        self._report.add(reason, self._service.at(*place), message)

    def _image(self) -> None:
        image = self._service.get("image")
        if image and self._service.get("build") is not None:
            self._add(FindingReason.KEY_IGNORED, ("build",), "build is ignored: the named image is used.")
        if not image:
            if image is None and self._service.get("build") is not None:
                self._add(FindingReason.BUILD_ONLY, ("build",))
            elif self._service.get("provider") is None:
                self._add(FindingReason.MISSING_KEY, (), "The service names no image.")
        elif len(image) > _MAX_IMAGE or not _IMAGE.fullmatch(image):
            self._add(FindingReason.BAD_VALUE, ("image",), f"{clip(image)} is no image's name.")

    def _namespace(self, key: str) -> None:
        reason = foreign_namespace(self._service.get(key))
        if reason is FindingReason.HOST_NAMESPACE:
            self._add(reason, (key,), f"{key}: host shares a namespace of the node.")
        elif reason is not None:
            self._add(reason, (key,))

    def _device(self, entry: Any, index: int) -> None:
        source = entry.get("source") if isinstance(entry, dict) else values.text(entry).partition(":")[0]
        device = values.text(source)
        if hostpaths.is_runtime_socket(device):
            self._add(FindingReason.RUNTIME_SOCKET, ("devices", index))
        elif not is_gpu_device(device):
            self._add(FindingReason.DEVICE_REFUSED, ("devices", index), f"{clip(device)} is not a GPU.")

    def _mount(self, entry: MountEntry) -> None:
        mount = entry.mount
        reason = refused_mount(mount)
        if reason is FindingReason.HOST_PATH_REFUSED:
            self._report.add(reason, entry.path, f"{clip(mount.source)} belongs to the node's system.")
        elif reason is not None:
            self._report.add(reason, entry.path)

    def _ports(self) -> None:
        for entry in (*self._service.ports, *self._service.exposed):
            port = entry.port
            # The agent's is one of TCP.
            if port.protocol == "tcp" and (CALLBACK_PORT in port or port.published == CALLBACK_PORT):
                self._report.add(
                    FindingReason.AGENT_PORT, entry.path, f"Port {CALLBACK_PORT} is the agent's."
                )


def is_gpu_device(device: str) -> bool:
    """Whether an entry of ``devices`` is a GPU: a device file, or a name of the Container Device Interface."""
    if re.match(r"(?:nvidia|amd)\.com/gpu=", device):
        return True
    return device.startswith("/") and bool(hostpaths.GPU_DEVICES.fullmatch(hostpaths.absolute(device)))
