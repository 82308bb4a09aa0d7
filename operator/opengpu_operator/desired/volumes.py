"""Volumes: what GPUX promises, what the file names, how long each lives and which pods share it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from opengpu_operator.api import labels as keys
from opengpu_operator.api.findings import Finding
from opengpu_operator.api.source import VolumePolicy
from opengpu_operator.api.translation import Mount, Service, Translation, Volume
from opengpu_operator.desired import agent, labels, names, quantities
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.findings import JobFinding, remark
from opengpu_operator.desired.problems import Problems
from opengpu_operator.settings import Settings

Object = dict[str, Any]

_JOB_VOLUME = "gpux-job"
_USER_VOLUME = "gpux-usr"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A PersistentVolumeClaim, as pods refer to it."""

    volume: str
    """The name of the pod's volume."""
    obj: Object

    @property
    def name(self) -> str:
        """The claim's name."""
        return str(self.obj["metadata"]["name"])

    @property
    def one_node(self) -> bool:
        """Whether all pods that mount it must be on one node."""
        return "ReadWriteMany" not in self.obj["spec"]["accessModes"]

    def pod_volume(self) -> Object:
        """Return the volume of a pod that mounts the claim."""
        return {"name": self.volume, "persistentVolumeClaim": {"claimName": self.name}}


@dataclass(frozen=True, kw_only=True)
class Storage:
    """All claims of a job."""

    job: Claim | None
    user: Claim | None
    task_scope: Mapping[str, Claim]
    """Volumes of the file that go with the task, by their key in the translation."""
    source_scope: Mapping[str, Claim]
    """Volumes of the file that the source's tasks share."""
    findings: tuple[Finding, ...]

    def claim(self, key: str) -> Claim:
        """Return the claim of one of the file's volumes."""
        return self.task_scope[key] if key in self.task_scope else self.source_scope[key]


def normalised(path: str) -> str:
    """Return a mount path without what doesn't distinguish it."""
    return "/" + "/".join(part for part in path.split("/") if part not in {"", "."})


def is_gpux_path(path: str) -> bool:
    """Return whether a path is one of GPUX's, or inside one."""
    return any(f"{normalised(path)}/".startswith(f"{gpux}/") for gpux in agent.PATHS)


def own_mounts(service: Service, *, gpux: bool) -> list[Mount]:
    """Return the mounts of the file that stay: not those at the very paths that GPUX provides."""
    return [mount for mount in service.mounts if not (gpux and _is_replaced(mount))]


def _is_replaced(mount: Mount) -> bool:
    """Return whether GPUX provides the very path of a mount."""
    return normalised(mount.path) in agent.PATHS


def storage(
    translation: Translation, context: JobContext, settings: Settings, *, gpux: Collection[str]
) -> Storage:
    """Return the claims of a job, in which the services named ``gpux`` have GPUX's paths."""
    findings: list[Finding] = []
    used: dict[str, Volume] = {}
    for service in translation.services:
        has_gpux = service.name in gpux
        used |= {
            mount.volume: translation.volumes[mount.volume] for mount in own_mounts(service, gpux=has_gpux)
        }
        findings += [
            remark(
                JobFinding.VOLUME_REPLACED,
                path=f"services.{service.name}.volumes",
                message=f"{mount.path} is GPUX's; what the file mounts there is left out.",
            )
            for mount in service.mounts
            if has_gpux and _is_replaced(mount)
        ]
    task_scope, source_scope = {}, {}
    for key, volume in used.items():
        policy = context.volumes.get(volume.label) or context.volumes.get(key) or VolumePolicy()
        scope = policy.scope or ("Source" if volume.model_cache else "Task")
        if scope == "Task":
            task_scope[key] = _of_task(key, policy, context, settings)
        else:
            source_scope[key] = _of_source(key, policy, context, settings)
    return Storage(
        job=_job(context, settings) if gpux else None,
        user=_user(context, settings) if gpux and context.spec.owner else None,
        task_scope=task_scope,
        source_scope=source_scope,
        findings=tuple(findings),
    )


def check(context: JobContext, settings: Settings, problems: Problems) -> None:
    """Refuse what a task asks of its owner's storage beyond what this cluster gives."""
    wanted = context.spec.storage.user_size if context.spec.storage else None
    most = settings.storage.user.max_size
    if wanted is not None and most is not None and quantities.parse(wanted) > quantities.parse(most):
        problems.spec(
            "storage", f"userSize is {wanted}; this cluster gives {most} at most (storage.user.maxSize)"
        )


def mounts(service: Service, held: Storage, *, gpux: bool) -> list[Object]:
    """Return the mounts of a service's volumes; GPUX's come last and win."""
    found = []
    for mount in own_mounts(service, gpux=gpux):
        item: Object = {"name": held.claim(mount.volume).volume, "mountPath": mount.path}
        if mount.read_only:
            item["readOnly"] = True
        if mount.sub_path is not None:
            item["subPath"] = mount.sub_path
        found.append(item)
    if gpux:
        found.append(agent.socket_mount())
        if held.job is not None:
            found.append({"name": held.job.volume, "mountPath": agent.JOB_PATH})
        if held.user is not None:
            found.append({"name": held.user.volume, "mountPath": agent.USER_PATH})
    return found


def agent_mounts(held: Storage) -> list[Object]:
    """Return the mounts with which an agent reads GPUX's folders for people outside, and can't write to them."""
    places = ((held.job, agent.JOB_PATH), (held.user, agent.USER_PATH))
    return [
        {"name": claim.volume, "mountPath": path, "readOnly": True}
        for claim, path in places
        if claim is not None
    ]


def claims_of(service: Service, held: Storage, *, gpux: bool) -> list[Claim]:
    """Return the claims that a service mounts."""
    found = {mount.volume: held.claim(mount.volume) for mount in own_mounts(service, gpux=gpux)}
    own = (held.job, held.user) if gpux else ()
    return [*found.values(), *(claim for claim in own if claim is not None)]


def _claim_object(metadata: Object, *, mode: str, size: str, storage_class: str | None) -> Object:
    spec: Object = {"accessModes": [mode], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def _of_task(key: str, policy: VolumePolicy, context: JobContext, settings: Settings) -> Claim:
    metadata = labels.metadata(
        names.child(context.name, "v", key),
        context,
        labels=labels.of_job(context),
        owner=context.owner_reference,
    )
    return _of_file(key, policy, metadata, settings)


def _of_source(key: str, policy: VolumePolicy, context: JobContext, settings: Settings) -> Claim:
    metadata = labels.metadata(
        names.source_volume(context.source, context.environment.value, key),
        context,
        labels=labels.of_source(context),
        owner=context.source_owner_reference,
    )
    return _of_file(key, policy, metadata, settings)


def _of_file(key: str, policy: VolumePolicy, metadata: Object, settings: Settings) -> Claim:
    default = settings.storage.volumes
    obj = _claim_object(
        metadata,
        mode="ReadWriteOnce",
        size=policy.size or default.size,
        storage_class=policy.storage_class or default.storage_class,
    )
    return Claim(volume=names.child("vol", key), obj=obj)


def _job(context: JobContext, settings: Settings) -> Claim:
    metadata = labels.metadata(
        names.child(context.name, "job"),
        context,
        labels=labels.of_job(context),
        owner=context.owner_reference,
    )
    wanted = context.spec.storage.job_size if context.spec.storage else None
    default = settings.storage.job
    obj = _claim_object(
        metadata, mode="ReadWriteOnce", size=wanted or default.size, storage_class=default.storage_class
    )
    return Claim(volume=_JOB_VOLUME, obj=obj)


def _user(context: JobContext, settings: Settings) -> Claim:
    owner = context.spec.owner or ""
    shared = settings.storage.user_mode == "Shared"
    environment = None if shared else context.environment.value
    metadata = labels.metadata(
        names.user_volume(context.namespace, owner, environment),
        context,
        labels=labels.of_user(owner, environment),
        owner=None,
        annotations={keys.OWNER_NAME: owner},
    )
    wanted = context.spec.storage.user_size if context.spec.storage else None
    default = settings.storage.user
    obj = _claim_object(
        metadata,
        mode="ReadWriteMany" if shared else "ReadWriteOnce",
        size=wanted or default.size,
        storage_class=default.storage_class,
    )
    return Claim(volume=_USER_VOLUME, obj=obj)
