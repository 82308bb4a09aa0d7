"""The translation of one Compose file: what ``compose`` hands to ``desired``.

It depends on the file, the environment, the variables and the policy, and on no task, so it is made once per
(file, environment) and kept; ``desired`` turns it into the objects of one job.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.labels import CALLBACK_PORT, WORKER_PORT


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class Vendor(StrEnum):
    """Whose GPUs a service asks for."""

    NVIDIA = "nvidia"
    AMD = "amd"


class GpuRequest(_Model):
    """The GPUs of one service. The resource's name is a setting of the cluster, not of the file."""

    vendor: Vendor
    count: int | None = None
    """How many; None is Compose's ``all``, which the cluster's policy turns into a number."""


class Port(_Model):
    """A container port, as declared under ``ports`` or ``expose``."""

    container: int
    protocol: Literal["TCP", "UDP"] = "TCP"
    published: int | None = None
    """The host port of the file. None: exposed to siblings only, or published on a port of Docker's choice."""
    exposed_only: bool = False
    """True for ``expose``: reachable by siblings, never routed."""


class Mount(_Model):
    """A volume of the file at a path of a service."""

    volume: str
    """Key into :attr:`Translation.volumes`."""
    path: str
    read_only: bool = False
    sub_path: str | None = None


class FileMount(_Model):
    """An inline config or secret at a path of a service."""

    file: str
    """Key into :attr:`Translation.files`."""
    path: str
    mode: int | None = None


class InlineFile(_Model):
    """The content of an inline ``configs`` or ``secrets`` entry."""

    content: str
    secret: bool = False


class Volume(_Model):
    """A volume of the file: named, anonymous, or standing in for a bind of a host path."""

    origin: Literal["named", "anonymous", "bind"]
    label: str
    """What the file calls it: the name, or the host path of a bind."""
    model_cache: bool = False
    """Mounted at a path known to hold downloaded models, worth keeping between tasks."""


class Until(StrEnum):
    """What a service waits for in another before it may be scheduled."""

    STARTED = "service_started"
    """Needs nothing: Compose's start order is advisory, and siblings retry."""
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


class Dependency(_Model):
    """One entry of ``depends_on``."""

    service: str
    """The other's :attr:`Service.name`."""
    until: Until = Until.STARTED
    required: bool = True


class Restart(StrEnum):
    """What the file says of a service that ends."""

    UNSET = "unset"
    """Compose's default is "no"; a server is still best served by a Deployment, so the task decides."""
    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    """``always`` and ``unless-stopped``."""


class Service(_Model):
    """One service of the file, in Kubernetes' terms."""

    name: str
    """As the file spells it."""
    dns_name: str
    """A DNS label that is unique in the file: hostname, container name and part of object names."""
    aliases: list[str] = Field(default_factory=list)
    """Other DNS labels that siblings may call it by."""
    container: dict[str, Any]
    """A container as in Kubernetes' core/v1: name, image, command, args, env, ports, resources, workingDir,
    readinessProbe, securityContext, lifecycle, stdin, tty. Without the mounts and GPUs below; with the mounts of
    ``pod["volumes"]`` (tmpfs, /dev/shm)."""
    pod: dict[str, Any] = Field(default_factory=dict)
    """Fragments of a pod spec: volumes (emptyDir only), securityContext (fsGroup, supplementalGroups, sysctls),
    terminationGracePeriodSeconds, hostAliases, nodeSelector."""
    gpu: GpuRequest | None = None
    ports: list[Port] = Field(default_factory=list)
    mounts: list[Mount] = Field(default_factory=list)
    files: list[FileMount] = Field(default_factory=list)
    depends_on: list[Dependency] = Field(default_factory=list)
    restart: Restart = Restart.UNSET
    max_retries: int | None = None
    """The N of ``on-failure:N``."""
    replicas: int = 1
    update_parallelism: int = 1
    """How many pods an update may replace at once; 0 is all of them."""
    joins: str | None = None
    """``network_mode: service:x`` → x: this service's container lives in x's pod."""
    networks: list[str] | None = None
    """DNS labels of the file's networks that it shares with others; it reaches nobody else. None: all reach all."""
    offline: bool = False
    """True where none of its networks leads outside (``internal``, ``network_mode: none``)."""


class Translation(_Model):
    """Everything that is known of one file for one environment."""

    digest: str
    """``sha256:`` + hex of the file's bytes."""
    environment: Literal["cpu", "nvidia", "amd"] | None = None
    services: list[Service] = Field(default_factory=list)
    volumes: dict[str, Volume] = Field(default_factory=dict)
    """By a key that is a DNS label and unique in the file."""
    files: dict[str, InlineFile] = Field(default_factory=dict)
    """By a key that is a DNS label and unique in the file."""
    worker: str | None = None
    """The :attr:`Service.name` that publishes the worker runtime's port 5555, if one does."""
    findings: list[Finding] = Field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether any finding forbids to run the file; ``services`` is then not to be used."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def service(self, name: str) -> Service:
        """Return the service that the file calls ``name``; KeyError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise KeyError(name)


def network_variables(source_address: str = "") -> dict[str, str]:
    """Return the variables that OpenGPU's files use. Those that say nothing off the chain are empty, not unset."""
    return {
        "PORT": str(WORKER_PORT),
        "CALLBACK_URL": f"http://127.0.0.1:{CALLBACK_PORT}",
        "SOURCE_ADDRESS": source_address,
        "PROVIDER_ADDRESS": "",
        "PROTOCOL_VERSION": "",
    }


class TranslateOptions(_Model):
    """What a translation depends on besides the file. Part of the cache key, so it holds nothing of a task."""

    environment: Literal["cpu", "nvidia", "amd"] | None = None
    variables: dict[str, str] = Field(default_factory=dict)
    """The only variables that ``${NAME}`` in the file can see."""
    profiles: list[str] = Field(default_factory=list)
    """Compose profiles that are active, besides services without any (and with ``""``)."""
    shm_size: str = "1Gi"
    """Size of ``/dev/shm`` for ``ipc: host``, which has no size of its own."""
    placement_labels: list[str] = Field(default_factory=list)
    """Labels of nodes that a file may select."""
    restricted: bool = False
    """Translate for Kubernetes' ``restricted`` Pod Security Standard instead of ``baseline``."""
