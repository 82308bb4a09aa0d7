"""OpenGPUTask: one call of a source, or one job that runs its containers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from opengpu_operator.api.access import BY_PORT, Access, PortOptions
from opengpu_operator.api.conditions import Condition
from opengpu_operator.api.meta import (
    BY_NAME,
    BY_TYPE,
    UNIQUE,
    Digest,
    EnvName,
    LocalKey,
    Meta,
    Model,
    ObjectName,
    PortNumber,
    Quantity,
    Rule,
    ServiceName,
    Timestamp,
    Wei,
    immutable,
)
from opengpu_operator.api.source import Environment, Publish

KIND = "OpenGPUTask"
PLURAL = "opengputasks"

#: A call's data may be this large in the object, as compact JSON; more belongs into dataFrom. The operator checks it:
#: the API server's rules can't measure an object of unknown shape.
DATA_LIMIT = 64 * 1024
#: An answer up to this size is repeated in the status.
INLINE_LIMIT = 8 * 1024


#: A task's storage.external in the API server's rules, empty where it isn't set.
_EXTERNAL = "has({0}.storage) && has({0}.storage.external) ? {0}.storage.external : ''"


class TaskStatusName(StrEnum):
    """The states of a task on the OpenGPU network, spelled as its SDK does."""

    NEW = "New"
    """Nobody works on it yet, or nobody ever will: the condition Ready says which."""
    ATTEMPTED = "Attempted"
    """A provider works on it, or did so in vain: the condition Failed is there then."""
    RESPONDED = "Responded"
    """There is an answer."""
    CANCELED = "Canceled"
    """It was given up before an answer."""
    EXPIRED = "Expired"
    """Its time ran out."""
    FINALIZED = "Finalized"
    """It ended as it should."""


class SourceRef(Model):
    """SourceRef names the source in the same namespace."""

    name: ObjectName
    """name of the OpenGPUSource."""


class DataFrom(Model):
    """DataFrom takes a call's data from a ConfigMap or from a file in the store: exactly one of them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.configMapKeyRef) != has(self.sha1)",
            "exactly one of configMapKeyRef and sha1 must be set",
        ),
    )

    config_map_key_ref: LocalKey | None = None
    """configMapKeyRef names a key of a ConfigMap in the same namespace that holds the data as a JSON object."""
    sha1: Annotated[str | None, Field(pattern=r"^[0-9a-f]{40}$", max_length=40)] = None
    """sha1 of a file in the store that holds the data as a JSON object (40 hex digits)."""


class EnvFrom(Model):
    """EnvFrom is where a variable's value comes from."""

    secret_key_ref: LocalKey
    """secretKeyRef names a key of a Secret in the same namespace."""


class EnvVar(Model):
    """EnvVar is one variable: a value, or a key of a Secret in the same namespace."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.value) != has(self.valueFrom)", "exactly one of value and valueFrom must be set"),
    )

    name: EnvName
    """name of the variable."""
    value: Annotated[str | None, Field(max_length=32768)] = None
    """value of the variable."""
    value_from: EnvFrom | None = None
    """valueFrom takes the value from a Secret."""


class Gpu(Model):
    """Gpu asks for a kind of GPU."""

    count: Annotated[int | None, Field(ge=1, le=64)] = None
    """count of GPUs; what the file asks for if absent."""
    product: Annotated[
        str | None, Field(max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    ] = None
    """product is the value of the node label that names the GPU, for instance NVIDIA-A100-SXM4-80GB."""
    memory: Quantity | None = None
    """memory that each GPU must have at least."""


class Resources(Model):
    """Resources of a service: requests and limits are set to the same values."""

    cpu: Quantity | None = None
    """cpu cores: 500m, 2."""
    memory: Quantity | None = None
    """memory: 512Mi, 16Gi."""
    ephemeral_storage: Quantity | None = None
    """ephemeralStorage is disk space of the container itself: 10Gi."""
    gpu: Gpu | None = None
    """gpu asks for a kind of GPU."""


class ServiceOverride(Model):
    """ServiceOverride changes one service of the file for this task."""

    env: Annotated[list[EnvVar] | None, Field(max_length=128, json_schema_extra=BY_NAME)] = None
    """env is set besides, or instead of, what the file sets."""
    resources: Resources | None = None
    """resources replace what the file asks for."""


class External(StrEnum):
    """How far a task's files can be fetched from outside the cluster."""

    OFF = "Off"
    """Not at all."""
    LINKS = "Links"
    """With a token, or by a link that somebody with one has made."""
    PUBLIC = "Public"
    """What the task uploads, by whoever knows its hash; its storage as with Links."""


class Storage(Model):
    """Storage of a task."""

    job_size: Quantity | None = None
    """jobSize is the size of /gpux_job; the operator's default if absent."""
    user_size: Quantity | None = None
    """userSize is the least size of /gpux_usr: it is made with that, and grows to it where its StorageClass allows; it
    never shrinks. The operator's default, when it is made, if absent."""
    gpux_services: Annotated[list[ServiceName] | None, Field(max_length=64, json_schema_extra=UNIQUE)] = None
    """gpuxServices lists services that get the GPUX paths besides the worker or main one."""
    external: External | None = None
    """external opens the task's files to the outside: "Off" (to be quoted in YAML), Links (with a token from the Secret
    <job>-files, or by links that expire) or Public (also by their hash alone). If absent, the namespace's annotation
    opengpu.network/external-storage decides, else Off. Can't be changed: tokens can't be called back."""


class OwnerProof(Model):
    """OwnerProof is a signature by the key that spec.owner names, as `opengpu owner sign` makes it."""

    signature: Annotated[str, Field(max_length=88, pattern=r"^[A-Za-z0-9+/]{86}==$")]
    """signature is the ed25519 signature in base64; what is signed is described in docs/security.md."""
    not_after: Annotated[
        str,
        Field(
            max_length=20,
            pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
            json_schema_extra={"format": "date-time"},
        ),
    ]
    """notAfter is until when a task may start by this proof."""
    digests: Annotated[list[Digest], Field(max_length=8, json_schema_extra=UNIQUE)]
    """digests are those of the Compose files that the task may run, as in the source's status.environments."""


class Confirm(Model):
    """Confirm accepts a response, where the source asks for manual confirmation."""

    response_id: Annotated[str, Field(min_length=1, max_length=128)]
    """responseId is the id of an entry of status.responses."""


class TaskSpec(Model):
    """What to run, with which data, on which terms."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *immutable("sourceRef", "functionName", "data", "dataFrom", "payment", "owner", "publish"),
        Rule(
            "!(has(self.data) && has(self.dataFrom))",
            "data and dataFrom can't both be set",
            path=".dataFrom",
            reason="FieldValueForbidden",
        ),
        Rule(
            "has(self.functionName) || !has(self.data)",
            "data is for a call: set functionName too",
            path=".data",
            reason="FieldValueForbidden",
        ),
        Rule(
            "has(self.functionName) || !has(self.dataFrom)",
            "dataFrom is for a call: set functionName too",
            path=".dataFrom",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.functionName) || has(self.data) || has(self.dataFrom)",
            "a call needs data or dataFrom; data: {} for a function that takes nothing",
            path=".data",
            reason="FieldValueRequired",
        ),
        Rule(
            "!has(self.ports) || !(5555 in self.ports)",
            "ports can't hold 5555: the worker's port is never reachable from outside",
            path=".ports",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.portOptions) || !self.portOptions.exists(options, options.port == 5555)",
            "portOptions can't be for 5555: the worker's port is never reachable from outside",
            path=".portOptions",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.portOptions) || !has(self.ports) || "
            "self.portOptions.all(options, options.port in self.ports)",
            "portOptions must be for ports that are listed in ports",
            path=".portOptions",
        ),
        Rule(
            "!(has(self.ttlSecondsAfterFinished) && has(self.publish))",
            "ttlSecondsAfterFinished can't be combined with publish: whatever applies the deleted object again "
            "would pay again",
            path=".ttlSecondsAfterFinished",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.ownerProof) || has(self.owner)",
            "ownerProof is for a task with an owner: set owner too",
            path=".ownerProof",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.publish) || has(self.functionName)",
            "publish is for a call: set functionName too",
            path=".publish",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(self.confirm) || has(self.functionName)",
            "confirm is for a call: a job without functionName has no responses",
            path=".confirm",
            reason="FieldValueForbidden",
        ),
        Rule(
            f"({_EXTERNAL.format('self')}) == ({_EXTERNAL.format('oldSelf')})",
            "storage.external can't be changed: what was handed out can't be called back",
            path=".storage",
            reason="FieldValueForbidden",
        ),
        Rule(
            "!has(oldSelf.confirm) || (has(self.confirm) && self.confirm == oldSelf.confirm)",
            "confirm can't be changed or taken back",
            path=".confirm",
            reason="FieldValueForbidden",
        ),
    )

    source_ref: SourceRef
    """sourceRef names the OpenGPUSource in the same namespace. Immutable."""
    environment: Literal["Auto", "cpu", "nvidia", "amd"] | None = None
    """environment that the task needs; Auto, if absent: one that the source offers and the cluster has."""
    function_name: Annotated[str | None, Field(max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = None
    """functionName is the worker's function that is called. Absent: the task is a job that runs until its main
    service ends, it expires or is deleted. Immutable."""
    data: Annotated[dict[str, Any] | None, Field(max_length=1024)] = None
    """data is the call's input, an object of at most 64 KiB. Immutable."""
    data_from: DataFrom | None = None
    """dataFrom takes the call's input from elsewhere, instead of data. Immutable."""
    expiry_seconds: Annotated[int | None, Field(ge=1, le=31_536_000)] = None
    """expirySeconds is how long the task may take in all, from its creation; the operator's default if absent."""
    payment: Wei | None = None
    """payment for the answer, in wei as a decimal string; 0 if absent. Immutable."""
    owner: Annotated[str | None, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:@-]+$")] = None
    """owner names who /gpux_usr belongs to, inside this namespace. Absent: there is no /gpux_usr. Where the cluster
    asks for proof, it is an ed25519 public key in Base58. Immutable."""
    owner_proof: OwnerProof | None = None
    """ownerProof shows that the owner wants this task to run. Looked at until the task starts."""
    ports: Annotated[list[PortNumber] | None, Field(max_length=32, json_schema_extra=UNIQUE)] = None
    """ports are the container ports that get a URL; default: every TCP port that the file publishes."""
    port_options: Annotated[list[PortOptions] | None, Field(max_length=32, json_schema_extra=BY_PORT)] = None
    """portOptions say how ports are reached by their URLs: protocol, limits, access."""
    access: Access | None = None
    """access to the URLs of all ports; everybody's if absent."""
    env: Annotated[list[EnvVar] | None, Field(max_length=128, json_schema_extra=BY_NAME)] = None
    """env is given to the worker or main service."""
    resources: Resources | None = None
    """resources of the worker or main service."""
    services: Annotated[dict[ServiceName, ServiceOverride] | None, Field(max_length=64)] = None
    """services changes services of the file for this task, by their names in the file."""
    storage: Storage | None = None
    """storage sizes the task's volumes."""
    main_service: ServiceName | None = None
    """mainService is the service whose end is the end of a job; the one that no other depends on if absent."""
    suspend: bool | None = None
    """suspend stops the task's pods and keeps its volumes."""
    max_attempts: Annotated[int | None, Field(ge=1, le=100)] = None
    """maxAttempts is how often the task may be tried after failures of the infrastructure; the operator's default
    if absent."""
    ttl_seconds_after_finished: Annotated[int | None, Field(ge=0, le=31_536_000)] = None
    """ttlSecondsAfterFinished deletes the object that long after its end; it is kept if absent."""
    confirm: Confirm | None = None
    """confirm accepts a response, where the source asks for manual confirmation. Can't be taken back."""
    publish: Publish | None = None
    """publish puts the task on the chain. Immutable."""

    @property
    def is_call(self) -> bool:
        """Whether the task calls a function; otherwise it is a job that runs until its main service ends."""
        return self.function_name is not None


class Url(Model):
    """Url is where a port of the job is reached."""

    service: Annotated[str, Field(max_length=128)]
    """service of the file that the port belongs to."""
    port: PortNumber
    """port of the container."""
    url: Annotated[str, Field(max_length=2048)]
    """url of the port."""


class Tunnel(Model):
    """Tunnel is where cftunnel was found: one run of a container."""

    service: Annotated[str, Field(max_length=63)]
    """service that printed the URL, by its name in DNS, which is its container's too."""
    pod: Annotated[str, Field(max_length=253)]
    """pod of the container."""
    started_at: Timestamp
    """startedAt is when the container started."""
    restarts: Annotated[int, Field(ge=0)]
    """restarts of the container until then."""


class Response(Model):
    """Response is one answer."""

    id: Annotated[str, Field(max_length=128)]
    """id of the response, for spec.confirm."""
    sha1: Annotated[str | None, Field(max_length=40)] = None
    """sha1 of the answer's file in the store."""
    url: Annotated[str | None, Field(max_length=2048)] = None
    """url of the answer, where it is published."""
    provider: Annotated[str | None, Field(max_length=128)] = None
    """provider that answered."""
    valid: bool | None = None
    """valid says whether the answer fits the source's responseSchema."""
    confirmed: bool | None = None
    """confirmed says whether the answer was accepted."""
    inline: Any = None
    """inline repeats an answer of at most 8 KiB."""
    received_at: Timestamp | None = None
    """receivedAt is when the answer came."""


class LogReference(Model):
    """LogReference is the end of a container's log, kept in the store."""

    service: Annotated[str, Field(max_length=128)]
    """service of the file that the container belongs to."""
    container: Annotated[str, Field(max_length=63)]
    """container that wrote the log."""
    sha1: Annotated[str, Field(max_length=40)]
    """sha1 of the log's file in the store."""


class Times(Model):
    """Times are when the task reached each step, from which its clocks follow: queue, start, run, total."""

    scheduled: Timestamp | None = None
    """scheduled is when every pod had a node."""
    started: Timestamp | None = None
    """started is when every service was up."""
    called: Timestamp | None = None
    """called is when the worker had accepted the call."""
    answered: Timestamp | None = None
    """answered is when the answer came."""
    finished: Timestamp | None = None
    """finished is when the task ended."""


class TaskStatus(Model):
    """What became of a task."""

    observed_generation: int = 0
    """observedGeneration is the metadata.generation that the status was made from."""
    conditions: Annotated[list[Condition], Field(max_length=16, json_schema_extra=BY_TYPE)] = Field(
        default_factory=list
    )
    """conditions of the task: Ready, Reconciling, Stalled, SourceResolved, Scheduled, Available, Routed, StorageSized,
    External, AgentRestarted, Suspended, Complete, Failed."""
    job_id: Annotated[str | None, Field(max_length=16, pattern=r"^[0-9a-v]{16}$")] = None
    """jobId is the job's id, as in its URLs and the names of its objects."""
    uuid: Annotated[str | None, Field(max_length=16, pattern=r"^[0-9a-v]{16}$")] = None
    """uuid is the jobId, under the name that GPUX gives it."""
    task_status: TaskStatusName | None = None
    """taskStatus is the state in OpenGPU's words."""
    environment: Environment | None = None
    """environment that was chosen."""
    source_digest: Annotated[str | None, Field(max_length=71)] = None
    """sourceDigest is sha256: and the hex digest of the Compose file that the task runs."""
    revision: Annotated[str | None, Field(max_length=253)] = None
    """revision is the ControllerRevision that holds the translation that the task runs."""
    urls: Annotated[list[Url], Field(max_length=64)] = Field(default_factory=list)
    """urls are where the job's ports are reached."""
    cftunnel: Annotated[str | None, Field(max_length=2048)] = None
    """cftunnel is the URL of a Cloudflare tunnel that one of the containers opened in its first seconds."""
    tunnel: Tunnel | None = None
    """tunnel is where cftunnel was found; both go when that container restarts or ends."""
    attempts: Annotated[int, Field(ge=0)] = 0
    """attempts is how often the task was tried."""
    busy_attempts: Annotated[int | None, Field(ge=0)] = None
    """busyAttempts is how many attempts found the worker busy; they don't count towards maxAttempts."""
    attempt_pod: Annotated[str | None, Field(max_length=64)] = None
    """attemptPod is the UID of the pod that took the current attempt."""
    responses: Annotated[list[Response], Field(max_length=16)] = Field(default_factory=list)
    """responses are the answers."""
    logs: Annotated[list[LogReference], Field(max_length=64)] = Field(default_factory=list)
    """logs are the ends of the containers' logs, kept in the store."""
    end_reason: Annotated[str | None, Field(max_length=128)] = None
    """endReason is one word for why the task ended."""
    gpus: Annotated[int | None, Field(ge=0)] = None
    """gpus that the task's services ask for together."""
    gpu_seconds: Annotated[int | None, Field(ge=0)] = None
    """gpuSeconds is the time that GPUs were held, summed over GPUs."""
    expires_at: Timestamp | None = None
    """expiresAt is when the task's time runs out."""
    times: Times | None = None
    """times are when the task reached each step."""


class Task(Model):
    """OpenGPUTask is one call of a source, or one job that runs its containers."""

    metadata: Meta
    spec: TaskSpec
    status: TaskStatus = Field(default_factory=TaskStatus)
