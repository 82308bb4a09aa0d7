"""Everything about one job that isn't in the translation of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opengpu_operator.api.source import Environment, VolumePolicy
from opengpu_operator.api.task import TaskSpec


@dataclass(frozen=True)
class FilesAccess:
    """The way to a task's files from outside the cluster."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The task, its source and what the cluster says, as far as the objects depend on them."""

    name: str
    """The prefix of every child's name: ``j-<jobId>``."""
    job_id: str
    namespace: str
    task: str
    task_uid: str
    source: str
    source_uid: str | None
    """None where the source is gone already: a task keeps what it started with."""
    owner_reference: Mapping[str, Any] | None
    """The controller reference to the task; None (in ``opengpu translate``) leaves it out."""
    source_owner_reference: Mapping[str, Any] | None
    """The controller reference to the source, for volumes that all its tasks share."""
    environment: Environment
    spec: TaskSpec
    volumes: Mapping[str, VolumePolicy] = field(default_factory=dict)
    """The source's policies, by the volumes' names in the Compose file."""
    image_pull_secrets: Sequence[str] = ()
    resolvers: Sequence[str]
    """Addresses of the cluster's resolvers, unless ``pods.nameservers`` is set."""
    token: str | None
    """The agent's token for the store. None: no Secret is made, and pods don't wait for one."""
    files: FilesAccess | None = None
    """None: the task isn't open to the outside."""
    call: bool
    """Whether the job serves a call, so that services that don't say when to restart stay up."""
