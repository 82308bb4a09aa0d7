"""Labels and metadata of what we make. Selectors are minimal, since Kubernetes never lets them change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opengpu_operator.api import labels as keys
from opengpu_operator.api.translation import Service
from opengpu_operator.desired import names
from opengpu_operator.desired.context import JobContext

Object = dict[str, Any]


def _standard(name: str) -> dict[str, str]:
    return {keys.NAME: name, keys.MANAGED_BY: keys.MANAGER, keys.PART_OF: "opengpu"}


def of_job(context: JobContext, component: str | None = None) -> dict[str, str]:
    """Return the labels of a task's child; ``component`` is the DNS name of its service, if it has one."""
    found = {
        **_standard("opengpu-job"),
        keys.INSTANCE: context.name,
        keys.TASK: names.label_value(context.task),
        keys.TASK_UID: context.task_uid,
        keys.JOB: context.job_id,
        keys.SOURCE: names.label_value(context.source),
        keys.ENVIRONMENT: context.environment.value,
    }
    return found if component is None else {**found, keys.COMPONENT: component}


def of_networks(service: Service) -> dict[str, str]:
    """Return the labels by which a pod's file lets others reach it; none where all reach all."""
    found = {f"{keys.NETWORK_PREFIX}{network}": "" for network in service.networks or ()}
    return {**found, keys.OFFLINE: ""} if service.offline else found


def of_source(context: JobContext) -> dict[str, str]:
    """Return the labels of what all tasks of a source share."""
    return {
        **_standard("opengpu-source"),
        keys.SOURCE: names.label_value(context.source),
        keys.ENVIRONMENT: context.environment.value,
    }


def of_user(owner: str, environment: str | None) -> dict[str, str]:
    """Return the labels of an owner's storage, which belongs to no task."""
    found = {**_standard("opengpu-user"), keys.OWNER: names.owner_value(owner)}
    return found if environment is None else {**found, keys.ENVIRONMENT: environment}


def selector(context: JobContext, component: str | None = None) -> dict[str, str]:
    """Return what selects a job's pods, or those of one of its services."""
    found = {keys.JOB: context.job_id}
    return found if component is None else {**found, keys.COMPONENT: component}


def metadata(
    name: str,
    context: JobContext,
    *,
    labels: Mapping[str, str],
    owner: Mapping[str, Any] | None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    """Return an object's metadata; ``owner`` is its controller reference."""
    found: Object = {"name": name, "namespace": context.namespace, "labels": dict(labels)}
    if annotations:
        found["annotations"] = dict(annotations)
    if owner is not None:
        found["ownerReferences"] = [dict(owner)]
    return found


def stamped(obj: Object) -> Object:
    """Return the object with the annotation that tells a change of ours from the API server's defaults.

    It is a copy through and through: parts of ``obj`` are those of a translation that many jobs are made of.
    """
    found: Object = json.loads(json.dumps(obj))
    found["metadata"].setdefault("annotations", {})[keys.SPEC_HASH] = names.spec_hash(obj)
    return found
