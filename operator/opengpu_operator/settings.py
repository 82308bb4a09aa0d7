"""The operator's settings: one YAML file, made by the Helm chart, every field documented where it is defined.

Unknown keys are refused, so that a typing error can't pass for a setting. Times are seconds, sizes are Kubernetes
quantities.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class _Section(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


NodeLabel = Annotated[
    str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
]


ProfileName = Literal[
    "none",
    "contour",
    "haproxy",
    "haproxy-ingress",
    "nginx",
    "nginx-f5",
    "skipper",
    "skipper-behind-proxy",
    "traefik",
]


class GpuClass(_Section):
    """How one vendor's GPUs are asked for in this cluster."""

    resource_name: str
    """The extended resource, for instance ``nvidia.com/gpu`` or ``nvidia.com/mig-1g.10gb``."""
    product_label: str = "nvidia.com/gpu.product"
    """The node label that holds the product's name."""
    memory_label: str = "nvidia.com/gpu.memory"
    """The node label that holds the memory of one GPU."""
    memory_form: Literal["MiB", "G"] = "MiB"
    """How it says it: in MiB (``16384``), or in GiB with a ``G`` (``16G``), as AMD's node labeller does."""
    supplemental_groups: list[int] = Field(default_factory=list)
    """Groups given to pods with this vendor's GPUs, so that they needn't be root to open the devices. AMD's belong to
    ``video``, which is 44 nearly everywhere, and ``render``, whose number differs: see ``getent group render``."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """Added to pods with this vendor's GPUs, and to no other."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    runtime_class_name: str | None = None


class GpuSettings(_Section):
    """GPUs."""

    count_all: Annotated[int, Field(ge=1)] = 1
    """What Compose's ``count: all`` means. All of a node's GPUs would starve everyone else."""
    nvidia: GpuClass = GpuClass(resource_name="nvidia.com/gpu")
    amd: GpuClass = GpuClass(
        resource_name="amd.com/gpu",
        product_label="amd.com/gpu.product-name",
        memory_label="amd.com/gpu.vram",
        memory_form="G",
        supplemental_groups=[44, 109],
    )


class GatewayReference(_Section):
    """The Gateway that HTTPRoutes belong to; a listener of it must let them come from the namespaces of tasks."""

    name: str | None = None
    """Needed with ``kind: HTTPRoute``, and so is its namespace."""
    namespace: str | None = None
    """The Gateway's own, in which no task runs."""
    section_name: str | None = None
    """One listener of the Gateway. None: all that the host fits."""


class RouteSettings(_Section):
    """URLs of job ports."""

    kind: Literal["Ingress", "HTTPRoute"] = "Ingress"
    """What a route is made as. HTTPRoute needs the Gateway API's definitions in the cluster, and ``gateway``."""
    gateway: GatewayReference = GatewayReference()
    profile: ProfileName = "none"
    """The controller behind the Ingresses, which decides how a task's ``portOptions`` and ``access`` are said to it.
    What it can't be told is said in the task's condition Routed; with ``none`` that is everything."""

    domain: str | None = None
    """Jobs are reached at ``<jobId>-<port>.<domain>``. None: no routes, and a condition that says so."""
    scheme: Literal["http", "https"] = "http"
    """How the URLs in the status start; ``https`` where the controller terminates TLS with a wildcard certificate."""
    external_port: int | None = None
    """Port in the URLs, where it isn't the scheme's own."""
    ingress_class_name: str | None = None
    """None leaves the choice to the cluster's default class."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Put on every Ingress; from the cluster's owner only, never from a Compose file."""

    @model_validator(mode="after")
    def _gateway_is_named(self) -> Self:
        if self.kind == "HTTPRoute" and not (self.gateway.name and self.gateway.namespace):
            raise ValueError("kind HTTPRoute needs gateway.name and gateway.namespace")
        return self


class PodSettings(_Section):
    """Pods of jobs."""

    profile: Literal["baseline", "restricted"] = "baseline"
    """The Pod Security Standard that every pod keeps."""
    cpu_request: str = "100m"
    memory_request: str = "128Mi"
    ephemeral_storage_request: str = "64Mi"
    cpu_limit: str | None = None
    """None: no CPU limit (throttling helps nobody where requests are honest)."""
    memory_limit: str = "4Gi"
    """Of services without GPUs. What a file has in memory volumes (``shm_size``, ``tmpfs``) comes on top."""
    gpu_memory_limit: str | None = None
    """Of services with GPUs, likewise. None: no limit, since models need what they need, and few files say it."""
    ephemeral_storage_limit: str = "8Gi"
    """Requests and limits are for services that ask for nothing; what a file or task asks for replaces them."""
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Compose's ``pull_policy`` is ignored: a provider's owner decides what is pulled when."""
    nameservers: list[str] = Field(default_factory=list)
    """The resolvers of job pods. Empty: those of the operator's own /etc/resolv.conf."""
    cluster_domain: str = "cluster.local"
    placement_labels: list[NodeLabel] = Field(default_factory=list)
    """Labels of nodes that a file may select by ``node.labels.<key> == value`` under ``deploy.placement``."""
    shm_size: str = "1Gi"
    """Size of ``/dev/shm`` where a file says ``ipc: host``."""


class NetworkSettings(_Section):
    """NetworkPolicies of jobs."""

    enabled: bool = True
    blocked_cidrs: list[str] = Field(
        default_factory=lambda: [
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/128",
            "::1/128",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "fc00::/7",
            "fe80::/10",
            "ff00::/8",
        ]
    )
    """Never reached by a job: private, shared, link-local (cloud metadata), multicast, NAT64."""
    extra_blocked_cidrs: list[str] = Field(default_factory=list)
    """Public addresses of this cluster: nodes, pods, Services, the API server."""
    ingress_namespace: str | None = "ingress-system"
    """Namespace of the ingress controller, which may reach routed ports. None: any namespace may."""


#: A Kubernetes quantity of bytes.
StorageQuantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]


class VolumeClass(_Section):
    """Defaults of one sort of volume."""

    size: str
    storage_class: str | None = None
    """None: the cluster's default class."""


class ExternalSettings(_Section):
    """Files that are fetched from outside the cluster, where the chart's ``store.external`` lets that in at all."""

    allowed: Literal["Off", "Links", "Public"] = "Links"
    """The most that a task can have. Public: whoever knows a file's hash can fetch it, as in GPUX itself."""
    grace_seconds: Annotated[int, Field(ge=0)] = 24 * 3600
    """How long after its expiry a task's files can still be fetched with what it was given."""


class UserVolumeClass(VolumeClass):
    """``/gpux_usr``: how large it may be, and how long it stays unused."""

    max_size: StorageQuantity | None = None
    """The most that a task may ask for by ``spec.storage.userSize``. None: no limit but the cluster's own quotas."""
    unused_seconds: Annotated[int, Field(ge=1)] | None = None
    """After how long without a task of the owner its end is announced. None: it stays until somebody removes it."""
    grace_seconds: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
    """From the announcement to the removal; a task of the owner that comes meanwhile calls it off."""


class QuotaSettings(_Section):
    """How much may be kept in the store; a namespace's annotations come first."""

    job_bytes: StorageQuantity | None = None
    """By one task: everything that it uploads. None: no limit."""
    owner_bytes: StorageQuantity | None = None
    """By one owner of a namespace, over all tasks. None: no limit."""


class StorageSettings(_Section):
    """Volumes, and what is kept in the store."""

    job: VolumeClass = VolumeClass(size="10Gi")
    """``/gpux_job``."""
    user: UserVolumeClass = UserVolumeClass(size="20Gi")
    """``/gpux_usr``."""
    user_mode: Literal["NodeLocal", "Shared"] = "NodeLocal"
    """NodeLocal: ReadWriteOnce per namespace, owner and environment. Shared: ReadWriteMany per namespace and owner."""
    volumes: VolumeClass = VolumeClass(size="20Gi")
    """Volumes that Compose files name."""
    external: ExternalSettings = ExternalSettings()
    require_owner_proof: bool = False
    """Whether ``spec.owner`` has to be a public key, and a task has to prove that its holder wants it to run."""
    quota: QuotaSettings = QuotaSettings()


class TaskSettings(_Section):
    """Defaults and bounds of tasks."""

    default_expiry_seconds: Annotated[int, Field(ge=1)] = 3600
    max_expiry_seconds: Annotated[int, Field(ge=1)] = 7 * 24 * 3600
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts after infrastructure failures. A worker's own failure is never retried."""


class SourceSettings(_Section):
    """Fetching of Compose files."""

    refresh_seconds: Annotated[int, Field(ge=10)] = 3600
    """How often the file at a URL without ``sha256`` is looked at again. Running tasks keep what they started with."""
    allowed_hosts: list[str] = Field(default_factory=list)
    """Hosts, or ``*.suffix``, that may resolve to private addresses and be fetched by http: for files served
    inside the cluster. Everything else must be public."""
    allow_http: bool = False
    """Fetch public URLs over plain http too."""


class StoreSettings(_Section):
    """The gpux store."""

    url: str = "http://opengpu-store:8080"
    """As the operator and the agents reach it."""
    key_file: Path = Path("/etc/opengpu/store-key/key")
    """The key that tokens are signed with; it is in the operator and in the store, and nowhere else."""
    namespace: str = "opengpu-system"
    pod_labels: dict[str, str] = Field(default_factory=lambda: {"app.kubernetes.io/component": "store"})
    """Which pods agents may reach, in NetworkPolicies."""
    port: int = 8080
    external_url: str | None = None
    """As it is reached from outside the cluster; None where it isn't."""
    pods_url: str | None = None
    """A name that stands for each of its pods, where there may be several; None: there is one."""


class AgentSettings(_Section):
    """The gpux agent beside each worker."""

    image: str = "opengpu-agent:latest"
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    memory_limit: str = "64Mi"
    on_restart: Literal["Replace", "Report"] = "Replace"
    """What follows when an agent's container restarted, by which /gpux_api died in the pod: the pod is replaced, or it
    is only said. Report is for jobs that would lose more with their pod than with their socket."""


class TunnelSettings(_Section):
    """Cloudflare tunnels that jobs open by themselves."""

    enabled: bool = True
    """Read the first seconds of what containers print, and put the URL of a quick tunnel into ``status.cftunnel``.
    Where it is off, the chart doesn't give the operator the right to read logs."""
    window_seconds: Annotated[int, Field(ge=1, le=600)] = 30
    """For how long after a container's start its log counts."""


class NamespaceSettings(_Section):
    """Where the operator works."""

    watch: list[str] = Field(default_factory=list)
    """Namespaces, or globs. Empty: the whole cluster."""
    selector: dict[str, str] = Field(default_factory=dict)
    """Only namespaces with these labels."""
    excluded: list[str] = Field(default_factory=lambda: ["kube-system", "kube-public", "kube-node-lease"])
    """Never worked in, besides the operator's own."""


class LogSettings(_Section):
    """Logs on standard error."""

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class ReconcileSettings(_Section):
    """The reconcile loop."""

    workers: Annotated[int, Field(ge=1, le=256)] = 32
    """How many objects are reconciled at once."""
    max_in_flight: Annotated[int, Field(ge=1, le=1024)] = 32
    """How many requests are under way to the API server at once."""
    resync_seconds: Annotated[int, Field(ge=10)] = 600
    """Every object is reconciled at least this often, whatever events were missed."""


class Settings(_Section):
    """All settings."""

    cluster_id: str = "default"
    """Names this cluster in what is signed or published."""
    namespace: str = "opengpu-system"
    """The operator's own namespace."""
    gpu: GpuSettings = GpuSettings()
    routes: RouteSettings = RouteSettings()
    pods: PodSettings = PodSettings()
    network: NetworkSettings = NetworkSettings()
    storage: StorageSettings = StorageSettings()
    tasks: TaskSettings = TaskSettings()
    sources: SourceSettings = SourceSettings()
    store: StoreSettings = StoreSettings()
    agent: AgentSettings = AgentSettings()
    tunnels: TunnelSettings = TunnelSettings()
    namespaces: NamespaceSettings = NamespaceSettings()
    logs: LogSettings = LogSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    translator_socket: Path = Path("/run/opengpu/translator.sock")
    """The unix socket of the translator container."""
    probe_port: int = 8081
    """Liveness and readiness."""
    metrics_port: int = 9090

    @classmethod
    def load(cls, path: Path | None) -> Settings:
        """Read settings from a YAML file; None gives the defaults. Raises ValueError that names every bad key."""
        if path is None:
            return cls()
        document = yaml.safe_load(path.read_text()) or {}
        return cls.model_validate(document)
