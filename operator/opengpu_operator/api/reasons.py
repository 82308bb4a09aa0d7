"""Reasons: one word per cause, the same in conditions, events, logs, metrics, the CLI and the documentation.

CamelCase and stable. A word may carry the field it is about after a colon: ``TermsRefused:payment``.
"""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """Types of conditions on our objects."""

    READY = "Ready"
    """kstatus: present from the first reconcile."""
    RECONCILING = "Reconciling"
    """kstatus, abnormal-true: work is under way."""
    STALLED = "Stalled"
    """kstatus, abnormal-true: only a change of the object itself helps."""
    SOURCE_RESOLVED = "SourceResolved"
    """The files were fetched, or a task found its source."""
    TRANSLATED = "Translated"
    """The files were translated."""
    SCHEDULED = "Scheduled"
    """Every pod of the task has a node."""
    AVAILABLE = "Available"
    """Every service of the task is up."""
    ROUTED = "Routed"
    """The task's ports have URLs."""
    EXTERNAL = "External"
    """The task's files are as open to the outside as was asked for."""
    AGENT_RESTARTED = "AgentRestarted"
    """Abnormal-true: /gpux_api is dead in one of the task's pods."""
    STORAGE_SIZED = "StorageSized"
    """False where /gpux_usr is smaller than the task asks for; absent otherwise."""
    SUSPENDED = "Suspended"
    """The object is suspended by its spec."""
    COMPLETE = "Complete"
    """The task ended as it should (kubectl wait --for=condition=Complete)."""
    FAILED = "Failed"
    """The task ended otherwise."""


class Reason(StrEnum):
    """Reasons of conditions and events."""

    # Sources
    FETCHED = "Fetched"
    FETCHING = "Fetching"
    FETCH_FAILED = "FetchFailed"
    CONFIG_MAP_NOT_FOUND = "ConfigMapNotFound"
    DIGEST_MISMATCH = "DigestMismatch"
    NOT_A_COMPOSE_FILE = "NotAComposeFile"
    COMPOSE_REFUSED = "ComposeRefused"
    TRANSLATED = "Translated"
    TRANSLATOR_UNAVAILABLE = "TranslatorUnavailable"
    IN_USE = "InUse"
    UNSUPPORTED = "Unsupported"

    # Tasks on their way
    PENDING = "Pending"
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_NOT_READY = "SourceNotReady"
    SOURCE_DELETING = "SourceDeleting"
    SOURCE_SUSPENDED = "SourceSuspended"
    TERMS_REFUSED = "TermsRefused"
    OWNER_PROOF_REFUSED = "OwnerProofRefused"
    SPEC_REFUSED = "SpecRefused"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    DATA_NOT_FOUND = "DataNotFound"
    QUOTA_EXCEEDED = "QuotaExceeded"
    FORBIDDEN = "Forbidden"
    CHILD_CONFLICT = "ChildConflict"
    WAITING_FOR_GPUS = "WaitingForGPUs"
    NO_NODE_FITS = "NoNodeFits"
    UNSCHEDULABLE = "Unschedulable"
    STORAGE_NODE_CONFLICT = "StorageNodeConflict"
    STORAGE_TOO_SMALL = "StorageTooSmall"
    SCHEDULED = "Scheduled"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_FAILING = "ContainerFailing"
    STARTING = "Starting"
    WAITING_FOR_DEPENDENCY = "WaitingForDependency"
    DEPENDENCY_FAILED = "DependencyFailed"
    RUNNING = "Running"
    CALLED = "Called"
    WORKER_BUSY = "WorkerBusy"
    STORE_UNAVAILABLE = "StoreUnavailable"
    RETRYING = "Retrying"
    AGENT_RESTARTED = "AgentRestarted"
    NO_DOMAIN = "NoDomain"
    ROUTED = "Routed"
    PORT_NOT_ROUTED = "PortNotRouted"
    PORT_OPTION_IGNORED = "PortOptionIgnored"
    GATEWAY_API_MISSING = "GatewayApiMissing"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    LINKS = "Links"
    PUBLIC = "Public"
    CAPPED = "Capped"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"

    # Storage of owners (events)
    STORAGE_EXPIRES = "StorageExpires"
    STORAGE_KEPT = "StorageKept"
    STORAGE_REMOVED = "StorageRemoved"

    # Ends of a task (also status.endReason)
    ANSWERED = "Answered"
    COMPLETED = "Completed"
    EXPIRED = "Expired"
    MAIN_SERVICE_FAILED = "MainServiceFailed"
    ROOT_REFUSED = "RootRefused"
    WORKER_REFUSED = "WorkerRefused"
    WORKER_CRASHED = "WorkerCrashed"
    POD_LOST = "PodLost"
    NODE_LOST = "NodeLost"
    EVICTED = "Evicted"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"

    def about(self, field: str) -> str:
        """Return the reason with the field it is about: ``TermsRefused:payment``."""
        return f"{self.value}:{field}"
