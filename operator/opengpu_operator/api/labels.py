"""Names that other people's tools select on: the API group, labels, annotations, gates and finalizers.

They are part of the public interface; change one only with an entry in CHANGELOG.md.
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "opengpu.network"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

MANAGER: Final = "opengpu-operator"

# The standard labels (https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/).
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
NAME: Final = "app.kubernetes.io/name"
INSTANCE: Final = "app.kubernetes.io/instance"
COMPONENT: Final = "app.kubernetes.io/component"
PART_OF: Final = "app.kubernetes.io/part-of"

# Kubernetes' own, on EndpointSlices: whose names they serve, and who looks after them.
SERVICE_NAME: Final = "kubernetes.io/service-name"
SLICE_MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"

#: On every child of a task: the task's name (shortened with a hash where it is longer than a label value).
TASK: Final = f"{GROUP}/task"
#: On every child of a task: the task's UID, so that a namesake that was deleted can never be mistaken for it.
TASK_UID: Final = f"{GROUP}/task-uid"
#: On every child of a task: its job id. The job's pods, and nothing else, are selected by it.
JOB: Final = f"{GROUP}/job"
#: On every child of a source and on its tasks' children: the source's name.
SOURCE: Final = f"{GROUP}/source"
#: On volumes that outlive a task: the owner of ``/gpux_usr`` (hashed; the clear text is an annotation).
OWNER: Final = f"{GROUP}/owner"
ENVIRONMENT: Final = f"{GROUP}/environment"

#: Hash of what a child was made from. Of a task's children: what the task asks, and not the cluster's settings, so that
#: new settings or a new version of the operator never restart what runs.
SPEC_HASH: Final = f"{GROUP}/spec-hash"
#: On a task's children: ``<environment>/<ControllerRevision>``, the translation that they were made from.
REVISION: Final = f"{GROUP}/revision"
#: Write any new value to reconcile now (a source fetches its files again).
RECONCILE_REQUESTED_AT: Final = f"{GROUP}/reconcile-requested-at"
OWNER_NAME: Final = f"{GROUP}/owner-name"
#: On the claim of an owner's ``/gpux_usr``: when a task of the owner was last seen to use it, to the hour.
LAST_USED_AT: Final = f"{GROUP}/last-used-at"
#: On the same: when it is removed, unless it is used before.
EXPIRES_AT: Final = f"{GROUP}/expires-at"
#: On the same, by whoever wants that: ``"true"``, and it is never removed.
KEEP: Final = f"{GROUP}/keep"

# On a namespace, by the cluster's owner; they come before the settings.
#: How open to the outside its tasks' files are that don't say it themselves, by owner.
EXTERNAL_STORAGE: Final = f"{GROUP}/external-storage"
#: ``"true"``: tasks that name an owner have to prove it; ``"false"``: they needn't.
REQUIRE_OWNER_PROOF: Final = f"{GROUP}/require-owner-proof"
#: How much a task, and an owner, may keep in the store: a quantity, or ``none``.
QUOTA_JOB: Final = f"{GROUP}/store-quota-job"
QUOTA_OWNER: Final = f"{GROUP}/store-quota-owner"

#: Prefix of the scheduling gates that hold a pod: ``<prefix>healthy.<service>``, ``completed.<service>`` or
#: ``placed.<service>`` name what must become of which sibling first.
GATE_PREFIX: Final = f"{GROUP}/"

#: Prefix of the labels of pods whose file separates its services: ``<prefix><network>`` for each network they share.
NETWORK_PREFIX: Final = f"network.{GROUP}/"
#: On pods that the file gives no way outside.
OFFLINE: Final = f"{GROUP}/offline"

SOURCE_IN_USE_FINALIZER: Final = f"{GROUP}/in-use"

AGENT_CONTAINER: Final = "gpux-agent"
#: The port of OpenGPU's worker runtime. It is in no Service and no route: only the agent, on loopback, calls it.
WORKER_PORT: Final = 5555
#: Where the agent takes the worker's callback, on the pod's loopback.
CALLBACK_PORT: Final = 20000
