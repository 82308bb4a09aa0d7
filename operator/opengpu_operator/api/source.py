"""OpenGPUSource: where the Compose files are, and the terms on which tasks may call them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from opengpu_operator.api.conditions import Condition
from opengpu_operator.api.findings import Finding
from opengpu_operator.api.meta import (
    BY_NAME,
    BY_TYPE,
    UNIQUE,
    Address,
    Label,
    LocalKey,
    LocalReference,
    Meta,
    Model,
    ObjectName,
    PortNumber,
    Quantity,
    Rule,
    ServiceName,
    Sha256,
    Timestamp,
    Wei,
    cut_to,
)

KIND = "OpenGPUSource"
PLURAL = "opengpusources"

#: How many findings the status holds; the count says how many there are.
STATUS_FINDINGS = 64


class Environment(StrEnum):
    """The hardware a file is written for."""

    CPU = "cpu"
    NVIDIA = "nvidia"
    AMD = "amd"


class DeliveryMethod(StrEnum):
    """When an answer is final."""

    FIRST_RESPONSE = "FirstResponse"
    """The first valid answer."""
    MANUAL_CONFIRMATION = "ManualConfirmation"
    """The answer that the task confirms."""


class Info(Model):
    """Info describes the source to people."""

    name: Annotated[str, Field(max_length=128)] = ""
    """name is a title; the object's name if absent."""
    description: Annotated[str, Field(max_length=4096)] = ""
    """description says what the source does."""
    logo_url: Annotated[str, Field(max_length=2048, pattern=r"^(https?://.*)?$")] = ""
    """logoUrl is the URL of a picture."""


#: Name of a profile in a Compose file.
ProfileName = Annotated[str, Field(max_length=63, pattern=r"^([*]|[a-zA-Z0-9][a-zA-Z0-9_.-]*)$")]


class ImageEnv(Model):
    """ImageEnv is the Compose file of one environment: exactly one of composeUrl and configMapKeyRef."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.composeUrl) != has(self.configMapKeyRef)",
            "exactly one of composeUrl and configMapKeyRef must be set",
        ),
        Rule(
            "!has(self.composeUrl) || (isURL(self.composeUrl) && url(self.composeUrl).getHostname() != '')",
            "composeUrl must be a URL with a host",
            path=".composeUrl",
        ),
        Rule(
            "!has(self.composeUrl) || !self.composeUrl.matches('^https?://[^/?#]*@')",
            "composeUrl must not hold a user name or password: the file is public, and so is the URL",
            path=".composeUrl",
            reason="FieldValueForbidden",
        ),
    )

    compose_url: Annotated[str | None, Field(max_length=2048, pattern=r"^https?://[^\s]+$")] = None
    """composeUrl is the public URL of the Compose file."""
    config_map_key_ref: LocalKey | None = None
    """configMapKeyRef names a key of a ConfigMap in the same namespace that holds the Compose file."""
    sha256: Sha256 | None = None
    """sha256 pins the file's content (64 hex digits); anything else at that place is refused."""
    profiles: Annotated[list[ProfileName] | None, Field(max_length=16, json_schema_extra=UNIQUE)] = None
    """profiles of the file that are active, besides services without any; * is all of them."""


class ImageEnvs(Model):
    """ImageEnvs holds a Compose file for each environment that the source offers."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.cpu) || has(self.nvidia) || has(self.amd)",
            "imageEnvs must name a Compose file for at least one of cpu, nvidia and amd",
            reason="FieldValueRequired",
        ),
    )

    cpu: ImageEnv | None = None
    """cpu is the file for machines without a GPU."""
    nvidia: ImageEnv | None = None
    """nvidia is the file for NVIDIA GPUs."""
    amd: ImageEnv | None = None
    """amd is the file for AMD GPUs."""

    def offered(self) -> dict[Environment, ImageEnv]:
        """Return the files by environment, in the fixed order cpu, nvidia, amd."""
        files = {Environment.CPU: self.cpu, Environment.NVIDIA: self.nvidia, Environment.AMD: self.amd}
        return {environment: file for environment, file in files.items() if file is not None}


#: Name of a template's parameter.
ParameterName = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]
#: Name of a volume in a Compose file.
VolumeName = Annotated[str, Field(max_length=128, pattern=r"^[a-zA-Z0-9._-]+$")]


class Template(Model):
    """Template names a ready-made source that is configured by parameters."""

    name: Label
    """name of the template."""
    parameters: Annotated[
        dict[ParameterName, Annotated[str, Field(max_length=4096)]], Field(max_length=64)
    ] = Field(default_factory=dict)
    """parameters of the template, by name."""


class Serving(Model):
    """Serving says whether each task gets containers of its own (Dedicated) or tasks share them (Shared)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.mode) && self.mode == 'Shared') || "
            "!(has(self.minReplicas) || has(self.maxReplicas) || has(self.idleSeconds))",
            "minReplicas, maxReplicas and idleSeconds are for mode Shared: with Dedicated, each task has containers of "
            "its own",
            path=".mode",
        ),
        Rule(
            "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas must not exceed maxReplicas",
            path=".minReplicas",
        ),
    )

    mode: Literal["Dedicated", "Shared"] = "Dedicated"
    """mode is Dedicated if absent: each task gets containers of its own. Shared: tasks are sent to running ones."""
    min_replicas: Annotated[int | None, Field(ge=0, le=1000)] = None
    """minReplicas is how many are kept running without a task (Shared)."""
    max_replicas: Annotated[int | None, Field(ge=1, le=1000)] = None
    """maxReplicas is how many may run at once (Shared)."""
    idle_seconds: Annotated[int | None, Field(ge=0, le=31_536_000)] = None
    """idleSeconds is how long a replica above minReplicas is kept without a task (Shared)."""


class VolumePolicy(Model):
    """VolumePolicy says how long a named volume of the Compose file lives, and where."""

    scope: Literal["Source", "Task"] | None = None
    """scope is Source (kept between tasks) or Task (deleted with the task). Absent: Task, but Source for known
    caches of models."""
    size: Quantity | None = None
    """size of the volume; the operator's default if absent."""
    storage_class: ObjectName | None = None
    """storageClass of the volume; the operator's default if absent."""


class Publish(Model):
    """Publish puts the object on the chain through an account."""

    account_ref: LocalReference
    """accountRef names the OpenGPUAccount in the same namespace that signs and pays."""


class SourceSpec(Model):
    """What a source offers and asks."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.imageEnvs), has(self.template), has(self.address)].exists_one(given, given)",
            "exactly one of imageEnvs, template and address must be set",
        ),
        Rule(
            "!(has(self.publish) && has(self.address))",
            "publish can't be combined with address: a source that is imported is on the chain already",
            path=".publish",
            reason="FieldValueForbidden",
        ),
    )

    info: Info | None = None
    """info describes the source to people."""
    image_envs: ImageEnvs | None = None
    """imageEnvs holds a Compose file for each environment that the source offers."""
    template: Template | None = None
    """template names a ready-made source that is configured by parameters."""
    address: Address | None = None
    """address imports a source that is already published on the chain."""
    min_payment: Wei | None = None
    """minPayment is the least payment of a task, in wei as a decimal string; nothing if absent."""
    min_available_lockup: Wei | None = None
    """minAvailableLockup is the least stake of a provider on a chain, in wei as a decimal string; nothing if
    absent. It has no effect yet."""
    max_expiry_seconds: Annotated[int | None, Field(ge=1, le=31_536_000)] = None
    """maxExpirySeconds is the longest expirySeconds of a task; the operator's maximum if absent."""
    delivery_method: DeliveryMethod | None = None
    """deliveryMethod says when an answer is final: with the first valid one (FirstResponse, if absent) or when the
    task confirms one (ManualConfirmation)."""
    serving: Serving | None = None
    """serving says whether each task gets containers of its own (if absent) or tasks share them."""
    volumes: Annotated[dict[VolumeName, VolumePolicy] | None, Field(max_length=64)] = None
    """volumes says how long named volumes of the Compose file live, by their names in the file."""
    response_schema: Annotated[dict[str, Any] | None, Field(max_length=64)] = None
    """responseSchema is a JSON Schema that answers must fit."""
    image_pull_secrets: Annotated[
        list[LocalReference] | None, Field(max_length=16, json_schema_extra=BY_NAME)
    ] = None
    """imagePullSecrets names Secrets in the same namespace with which the images are pulled."""
    publish: Publish | None = None
    """publish puts the source on the chain."""
    suspend: bool | None = None
    """suspend keeps new tasks from starting; running ones go on."""


class ServiceSummary(Model):
    """ServiceSummary is one service of a translated file."""

    name: ServiceName
    """name of the service in the file."""
    kind: Literal["Deployment", "Job"] = "Deployment"
    """kind of workload it becomes: a Deployment is kept running, a Job runs to its end."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """gpus that it asks for."""
    ports: Annotated[list[PortNumber], Field(max_length=64)] = Field(default_factory=list)
    """ports of its containers that the file publishes."""


class StoredReport(Model):
    """StoredReport is a file in the store, in the source's namespace, that holds all findings as JSON."""

    sha1: Annotated[str, Field(max_length=40)]
    """sha1 of the file."""
    size: Annotated[int, Field(ge=0)]
    """size of the file in bytes."""


class EnvironmentStatus(Model):
    """EnvironmentStatus is what became of one environment's file."""

    name: Environment
    """name of the environment."""
    ready: bool = False
    """ready says whether tasks can use it."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """reason is one word for why it is ready or not."""
    message: Annotated[str, Field(max_length=1024), cut_to(1024)] = ""
    """message explains it to people."""
    digest: Annotated[str | None, Field(max_length=71)] = None
    """digest is sha256: and the hex digest of the file."""
    revision: Annotated[str | None, Field(max_length=253)] = None
    """revision is the ControllerRevision that holds the translation."""
    worker: Annotated[str | None, Field(max_length=128)] = None
    """worker is the service that tasks with a call are sent to."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """gpus that all services together ask for."""
    services: Annotated[list[ServiceSummary], Field(max_length=128)] = Field(default_factory=list)
    """services of the file."""
    findings: Annotated[list[Finding], Field(max_length=STATUS_FINDINGS)] = Field(default_factory=list)
    """findings are what a person should know about the file."""
    findings_count: Annotated[int, Field(ge=0)] = 0
    """findingsCount is how many findings there are, of which at most 64 are listed."""
    report: StoredReport | None = None
    """report names the file in the store that holds all findings. Absent if there are none, or while the store can't
    take it."""


class SourceStatus(Model):
    """What the operator knows of a source."""

    observed_generation: int = 0
    """observedGeneration is the metadata.generation that the status was made from."""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=BY_TYPE)] = Field(
        default_factory=list
    )
    """conditions of the source: Ready, Reconciling, Stalled, SourceResolved, Translated."""
    environments: Annotated[list[EnvironmentStatus], Field(max_length=3, json_schema_extra=BY_NAME)] = Field(
        default_factory=list
    )
    """environments of the source, each with what became of its file."""
    offered: Annotated[str, Field(max_length=64)] = ""
    """offered lists the environments that are ready, for people: cpu,nvidia."""
    active_tasks: Annotated[int, Field(ge=0)] = 0
    """activeTasks is how many tasks use the source and have not ended."""
    address: Address | None = None
    """address of the source on the chain."""
    reconcile_requested_at: Annotated[str | None, Field(max_length=128), cut_to(128)] = None
    """reconcileRequestedAt is the last value of the annotation that was acted on."""
    fetched_at: Timestamp | None = None
    """fetchedAt is when the files were last fetched."""


class Source(Model):
    """OpenGPUSource says where Compose files are, and on which terms tasks may run them."""

    metadata: Meta
    spec: SourceSpec
    status: SourceStatus = Field(default_factory=SourceStatus)

    def environment(self, name: Environment) -> EnvironmentStatus | None:
        """Return the status of an environment's file, if it was looked at."""
        return next((entry for entry in self.status.environments if entry.name is name), None)
