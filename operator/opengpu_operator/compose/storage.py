"""Volumes, shared memory and inline files: what each service mounts where.

Nothing of the host is mounted. A bind becomes an empty volume that all services with the same host path share, since
exchanging files is what people use it for; a path below another shared one is a directory in it.
"""

from __future__ import annotations

import bisect
import posixpath
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from opengpu_operator.api.translation import FileMount, InlineFile, Mount, TranslateOptions, Volume
from opengpu_operator.compose import hostpaths, names, policy, values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.project import Definition, MountEntry, Project

#: Of all services, with what they take from each other.
MAX_MOUNTS: Final = 1024


@dataclass
class ServiceStorage:
    """What one service mounts."""

    mounts: list[Mount] = field(default_factory=list)
    files: list[FileMount] = field(default_factory=list)
    pod_volumes: list[dict[str, Any]] = field(default_factory=list)
    volume_mounts: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Storage:
    """What a file's services mount, and the volumes and files themselves."""

    services: dict[str, ServiceStorage]
    volumes: dict[str, Volume]
    files: dict[str, InlineFile]
    places: dict[str, Path]
    """Where the content of each file is written."""


@dataclass(frozen=True)
class _Placed:
    """A mount of a volume, before volumes have keys."""

    identity: str
    origin: str
    label: str
    path: Path
    mount: values.Mounted
    sub_path: str = ""


@dataclass(frozen=True)
class _Memory:
    """A mount of a memory volume."""

    target: str
    size: int | str | None
    path: Path


@dataclass(frozen=True)
class _File:
    """A mount of an inline file."""

    identity: str
    target: str
    mode: int | None
    path: Path


def plan(project: Project, options: TranslateOptions, report: Report) -> Storage:
    """Return the storage of a file's active services."""
    roots = _shared_roots(project)
    planner = _Planner(project, options, report, roots)
    planned = {service.name: planner.of(service) for service in project.services.values()}
    placed = [entry for entries in planned.values() for entry in entries if isinstance(entry, _Placed)]
    keys = names.unique_labels(entry.identity for entry in placed)
    volumes: dict[str, Volume] = {}
    for entry in placed:
        cache = hostpaths.is_model_cache(entry.mount.target)
        known = volumes.get(keys[entry.identity])
        if known is None and entry.origin != "bind":
            report.add(
                FindingReason.VOLUME_STARTS_EMPTY,
                entry.path,
                f"What the image has at {clip(entry.mount.target)} isn't copied into the volume.",
            )
        if cache and (known is None or not known.model_cache):
            report.add(
                FindingReason.MODEL_CACHE, entry.path, f"{clip(entry.mount.target)} holds downloaded models."
            )
        volumes[keys[entry.identity]] = Volume.model_validate(
            {
                "origin": entry.origin,
                "label": entry.label,
                "model_cache": cache or bool(known and known.model_cache),
            }
        )
    files, file_keys = _files(project, options, planned.values(), report)
    identities = {key: identity.partition(":") for identity, key in file_keys.items()}
    return Storage(
        services={name: _service(entries, keys, file_keys) for name, entries in planned.items()},
        volumes=volumes,
        files=files,
        places={key: (f"{kind}s", name, "content") for key, (kind, _, name) in identities.items()},
    )


def _service(
    entries: Iterable[_Placed | _Memory | _File], keys: Mapping[str, str], file_keys: Mapping[str, str]
) -> ServiceStorage:
    result = ServiceStorage()
    for entry in entries:
        if isinstance(entry, _Placed):
            result.mounts.append(
                Mount(
                    volume=keys[entry.identity],
                    path=entry.mount.target,
                    read_only=entry.mount.read_only,
                    sub_path=posixpath.join(entry.sub_path, entry.mount.sub_path).strip("/") or None,
                )
            )
        elif isinstance(entry, _File):
            result.files.append(FileMount(file=file_keys[entry.identity], path=entry.target, mode=entry.mode))
        else:
            name = "shm" if entry.target == hostpaths.SHARED_MEMORY else f"tmpfs-{len(result.pod_volumes)}"
            source: dict[str, Any] = {"medium": "Memory"}
            if entry.size is not None:
                source["sizeLimit"] = str(entry.size)
            result.pod_volumes.append({"name": name, "emptyDir": source})
            result.volume_mounts.append({"name": name, "mountPath": entry.target})
    return result


def _shared_roots(project: Project) -> list[str]:
    """Return, in order and ending in a slash, the bound host paths that hold other bound ones.

    A project's own directory isn't one, nor is one inside of another.
    """
    sources = sorted(
        {
            hostpaths.absolute(entry.mount.source).rstrip("/")
            for service in project.services.values()
            for entry in service.mounts
            if entry.mount.kind == "bind" and not _left_out(entry.mount)
        }
    )
    roots: list[str] = []
    for root in sorted(f"{source}/" for source in sources):
        following = bisect.bisect_left(sources, root)
        if (
            posixpath.basename(root[:-1]) not in ("", ".", "..", "~")
            and sources[following : following + 1]
            and sources[following].startswith(root)
            and not (roots and root.startswith(roots[-1]))
        ):
            roots.append(root)
    return roots


def _root_of(source: str, roots: list[str]) -> str:
    """Return the shared path that holds a host path, or the path itself."""
    before = bisect.bisect(roots, source)
    return roots[before - 1][:-1] if before and source.startswith(roots[before - 1]) else source


def _left_out(mount: values.Mounted) -> bool:
    """Whether a bind isn't mounted at all: a file, or a part of the system that would only be hidden."""
    source = hostpaths.absolute(mount.source)
    if hostpaths.is_dropped(mount.source) or hostpaths.GPU_DEVICES.fullmatch(source):
        return True
    return not mount.is_directory and hostpaths.is_file(mount.source, mount.target)


class _Planner:
    def __init__(self, project: Project, options: TranslateOptions, report: Report, roots: list[str]) -> None:
        self._project = project
        self._options = options
        self._report = report
        self._roots = roots
        self._count = 0
        self._found: dict[str, _Placed | _Memory | _File] = {}

    def of(self, service: Definition) -> list[_Placed | _Memory | _File]:
        """Return what a service mounts."""
        self._found = {}
        if self._count > MAX_MOUNTS:
            return []
        for entry in self._inherited(service):
            if self._count > MAX_MOUNTS:
                break
            self._mount(service, entry)
        for index, written in enumerate(values.strings(service.get("tmpfs"))):
            target, _, flags = written.partition(":")
            size, ignored = _tmpfs_options(flags)
            self._ignored(ignored, service.at("tmpfs", index), "Memory volumes can be written by everyone.")
            self._memory(target, size, service.at("tmpfs", index))
        self._shared_memory(service)
        for kind in ("configs", "secrets"):
            for index, written in enumerate(service.get(kind) or []):
                self._file(kind, written, service.at(kind, index))
        return list(self._found.values())

    def _inherited(self, service: Definition) -> list[MountEntry]:
        """Return a service's mounts with those it takes from others, as far as they take none themselves."""
        inherited: list[MountEntry] = []
        named = (written.partition(":") for written in values.strings(service.get("volumes_from")))
        for name, read_only in dict.fromkeys((name, mode == "ro") for name, _, mode in named):
            other = self._project.services.get(name)
            for entry in other.mounts if other else []:
                mount = entry.mount
                taken = replace(
                    mount,
                    source=mount.source or f"{name}:{mount.target}",
                    read_only=mount.read_only or read_only,
                )
                inherited.append(MountEntry(taken, entry.path))
        own = {entry.mount.target for entry in service.mounts}
        return [entry for entry in inherited if entry.mount.target not in own] + service.mounts

    def _put(self, target: str, entry: _Placed | _Memory | _File) -> None:
        self._count += 1
        if self._count == MAX_MOUNTS + 1:
            self._report.add(FindingReason.TOO_MANY, entry.path, f"A file has at most {MAX_MOUNTS} mounts.")
            return
        if target in self._found:
            self._report.add(
                FindingReason.MOUNT_SHADOWED,
                entry.path,
                f"Several mounts have the path {clip(target)}; the last counts.",
            )
            del self._found[target]
        self._found[target] = entry

    def _mount(self, service: Definition, entry: MountEntry) -> None:
        mount = entry.mount
        if policy.refused_mount(mount) is not None:
            # That it isn't mounted is said already.
            return
        self._ignored(mount.options, entry.path, "They are about the host.")
        if mount.kind == "tmpfs":
            self._memory(mount.target, mount.size, entry.path)
        elif mount.kind == "bind":
            self._bind(service, entry)
        elif mount.kind == "volume" and mount.source and not mount.source.partition(":")[2]:
            self._put(mount.target, _Placed(mount.source, "named", mount.source, entry.path, mount))
        else:
            if mount.kind not in ("volume", "npipe"):
                self._report.add(
                    FindingReason.BIND_REPLACED,
                    entry.path,
                    f"A mount of type {mount.kind} becomes an empty volume.",
                )
            identity = f"anon:{mount.source or f'{service.name}:{mount.target}'}"
            self._put(mount.target, _Placed(identity, "anonymous", mount.target, entry.path, mount))

    def _ignored(self, options: Collection[str], path: Path, why: str) -> None:
        if options:
            self._report.add(
                FindingReason.KEY_IGNORED, path, f"The options {clip(', '.join(options))} are ignored: {why}"
            )

    def _bind(self, service: Definition, entry: MountEntry) -> None:
        mount = entry.mount
        source = hostpaths.absolute(mount.source).rstrip("/") or "/"
        shown = clip(mount.source)
        if source == hostpaths.SHARED_MEMORY:
            self._memory(mount.target, self._shm_size(service), entry.path)
            self._shm_sized(service, entry.path)
        elif hostpaths.GPU_DEVICES.fullmatch(source):
            # It asks for GPUs, which is said with those.
            return
        elif _left_out(mount):
            self._report.add(FindingReason.BIND_DROPPED, entry.path, f"{shown} of the host is not mounted.")
        else:
            root = _root_of(source, self._roots)
            self._report.add(
                FindingReason.BIND_REPLACED, entry.path, f"{shown} of the host becomes an empty volume."
            )
            placed = _Placed(
                f"host:{root}", "bind", root, entry.path, mount, sub_path=source[len(root) :].strip("/")
            )
            self._put(mount.target, placed)

    def _memory(self, target: str, size: int | str | None, path: Path) -> None:
        if (cleaned := self._path(target, path)) is not None:
            self._put(cleaned, _Memory(cleaned, size, path))

    def _path(self, target: str, path: Path) -> str | None:
        """Return a path in the container, or report that it is none."""
        try:
            return values.container_path(target)
        except ValueError as error:
            self._report.add(
                FindingReason.BAD_VALUE, path, f"Nothing can be mounted at {clip(target)}: {error}."
            )
            return None

    def _shared_memory(self, service: Definition) -> None:
        written = service.get("shm_size")
        is_host = service.get("ipc") == "host"
        if hostpaths.SHARED_MEMORY in self._found or (written is None and not is_host):
            return
        path = service.at("shm_size" if written is not None else "ipc")
        size = self._shm_size(service)
        self._found[hostpaths.SHARED_MEMORY] = _Memory(hostpaths.SHARED_MEMORY, size, path)
        if is_host:
            self._shm_sized(service, service.at("ipc"), f"ipc: host becomes a /dev/shm of {size or 0}.")

    def _shm_size(self, service: Definition) -> int | str | None:
        written = service.get("shm_size")
        return self._options.shm_size if written is None else values.size(written) or None

    def _shm_sized(self, service: Definition, path: Path, message: str = "") -> None:
        advice = "" if service.get("shm_size") is None else "Nothing needs to be done."
        self._report.add(FindingReason.SHM_SIZED, path, message, advice=advice)

    def _file(self, kind: str, written: Any, path: Path) -> None:
        entry = written if isinstance(written, dict) else {"source": written}
        source = values.text(entry["source"])
        target = values.text(entry.get("target")) or source
        if not target.startswith("/"):
            target = posixpath.join("/run/secrets" if kind == "secrets" else "/", target)
        place = self._path(target, path)
        mode = entry.get("mode")
        try:
            bits = None if mode is None else int(mode, 8) if isinstance(mode, str) else values.integer(mode)
        except ValueError:
            bits = -1
        if place is None:
            return
        if bits is not None and not 0 <= bits <= 0o777:
            self._report.add(FindingReason.BAD_VALUE, path, f"{clip(mode)} is no file mode.")
            return
        if bits is not None:
            bits = _for_everyone(bits, entry)
        if isinstance(self._project.section(kind).get(source), dict):
            self._put(place, _File(f"{kind.removesuffix('s')}:{source}", place, bits, path))


def _tmpfs_options(flags: str) -> tuple[int | None, list[str]]:
    """Return the size of a memory volume, and the options that mean nothing to a cluster."""
    size: int | None = None
    ignored = []
    for flag in filter(None, flags.split(",")):
        name, _, value = flag.partition("=")
        given = _size(value) if name == "size" else None
        if given is not None:
            size = given or None
        elif flag != "rw":
            ignored.append(flag)
    return size, ignored


def _size(value: str) -> int | None:
    try:
        return values.size(value)
    except ValueError:
        return None


def _for_everyone(bits: int, entry: Mapping[str, Any]) -> int:
    """Return a file's mode: it belongs to root here, so what another owner or group may, everybody may."""
    for key, shift in (("uid", 6), ("gid", 3)):
        if values.text(entry.get(key)).strip() not in ("", "0"):
            bits |= bits >> shift & 0o7
    return bits


def _files(
    project: Project,
    options: TranslateOptions,
    planned: Iterable[Iterable[_Placed | _Memory | _File]],
    report: Report,
) -> tuple[dict[str, InlineFile], dict[str, str]]:
    used = [entry.identity for entries in planned for entry in entries if isinstance(entry, _File)]
    keys = names.unique_labels(used)
    files: dict[str, InlineFile] = {}
    for identity, key in keys.items():
        kind, _, name = identity.partition(":")
        entry = project.section(f"{kind}s")[name]
        content = entry.get("content")
        if content is None:
            variable = values.text(entry.get("environment"))
            content = options.variables.get(variable)
            if content is None:
                content = ""
                report.add(
                    FindingReason.VARIABLE_UNSET,
                    (f"{kind}s", name, "environment"),
                    f"The variable {clip(variable)} is not set; the file is empty.",
                )
        files[key] = InlineFile(content=content, secret=kind == "secret")
    return files, keys
