"""Reconciles one OpenGPUTask, level-triggered: whatever happened since, look at everything and take the next steps.

The order is that of the guards: over, expired, excluded, source, terms, environment, children, gates, call. One
status write ends it, and events follow only if that write succeeded.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gpux import tokens
from opengpu_operator.api.conditions import is_true, timestamp
from opengpu_operator.api.errors import Conflict, Invalid, ReconcileError, Transient, Waiting
from opengpu_operator.api.jobid import job_id, job_name
from opengpu_operator.api.labels import (
    API_VERSION,
    EXTERNAL_STORAGE,
    REQUIRE_OWNER_PROOF,
    REVISION,
    SPEC_HASH,
    TASK_UID,
)
from opengpu_operator.api.reasons import ConditionType, Reason
from opengpu_operator.api.source import KIND as SOURCE_KIND
from opengpu_operator.api.source import Environment, EnvironmentStatus, Source
from opengpu_operator.api.task import (
    KIND,
    Task,
    TaskStatus,
    TaskStatusName,
    Times,
    Url,
)
from opengpu_operator.api.translation import Translation
from opengpu_operator.desired import external, names
from opengpu_operator.desired.aliases import Aliases
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.job import JobObjects, build
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import ConflictError, NotFound, TooManyRequests
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    SOURCE,
    TASK,
    Kind,
    kind_of,
)
from opengpu_operator.reconcile import (
    access,
    environment,
    expiry,
    gates,
    grants,
    ownerproof,
    pinned,
    pods,
    terms,
)
from opengpu_operator.reconcile.call import CallSteps, End
from opengpu_operator.reconcile.calls import Calls
from opengpu_operator.reconcile.children import ROUTES, Children, spec_hash
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.reconcile.owners import OwnerStorage
from opengpu_operator.reconcile.routing import Routing, as_seen, routing
from opengpu_operator.reconcile.status import StatusWriter
from opengpu_operator.reconcile.translations import Translations
from opengpu_operator.reconcile.tunnels import Tunnels
from opengpu_operator.settings import Settings

logger = logging.getLogger(__name__)

#: How long a token outlives its task's expiry, so that an answer given in the last second can be delivered.
TOKEN_GRACE = timedelta(minutes=10)
#: How long a pod waits for a node that its volume keeps it from, before it is asked whether it does so in vain.
PINNED_PATIENCE = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job's objects were when they were last built: enough to see that nothing is missing."""

    key: tuple[object, ...]
    digest: str
    """The file's."""
    children: tuple[tuple[Kind, str, str, str], ...]
    urls: tuple[Url, ...]
    routing: Routing | None
    main: str
    """The component label of the main service's pods."""
    worker: str | None
    gpus: int
    pods: int
    """How many pods there will be."""
    aliases: Aliases | None


class TaskReconciler:
    """Reconciles tasks. Holds no state that a restart could lose."""

    def __init__(
        self,
        *,
        settings: Settings,
        gateway: Gateway,
        cache: Cache,
        recorder: Recorder,
        calls: Calls,
        translations: Translations,
        tunnels: Tunnels,
        storage: OwnerStorage,
        counted: Callable[[str, str, str | None], None],
        store_key: Callable[[], bytes],
        resolvers: list[str],
        clock: Callable[[], datetime],
    ) -> None:
        """``counted(namespace, source, owner)`` is called when a task begins or ceases to use these."""
        self._settings = settings
        self._gateway = gateway
        self._cache = cache
        self._status = StatusWriter(
            TASK, gateway=gateway, cache=cache, recorder=recorder, event_type=_event_type
        )
        self._translations = translations
        self._tunnels = tunnels
        self._storage = storage
        self._counted = counted
        self._store_key = store_key
        self._resolvers = resolvers
        self._clock = clock
        self._children = Children(gateway=gateway, cache=cache)
        self._call = CallSteps(settings=settings, gateway=gateway, cache=cache, calls=calls, clock=clock)
        self._plans: dict[str, Plan] = {}
        self._starting: dict[str, str] = {}

    def revision_of(self, task: Mapping[str, Any]) -> str | None:
        """Return the translation that a task runs, also while its status doesn't say so yet; None if it runs none."""
        uid = task["metadata"]["uid"]
        known = task.get("status", {}).get("revision") or self._starting.get(uid)
        if known is not None:
            return str(known)
        made_from = self._made_from(uid)
        return made_from[1] if made_from is not None else None

    def _made_from(self, uid: str) -> tuple[Environment, str] | None:
        """Return what a task's children were made from, which the status doesn't say yet after a crash."""
        for _, child in self._cache.children(uid):
            environment_name, _, revision = (
                (child["metadata"].get("annotations") or {}).get(REVISION, "").partition("/")
            )
            if revision:
                return Environment(environment_name), revision
        return None

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a task that is gone."""
        self._plans.pop(uid, None)
        self._starting.pop(uid, None)
        self._tunnels.forget(uid)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Take a task's next steps; return after how many seconds to look again, None for only on events."""
        seen = self._cache.get(TASK, namespace, name)
        if seen is None or seen["metadata"].get("deletionTimestamp") or self._cache.terminating(namespace):
            # Its children have it as their owner: Kubernetes removes them.
            return None
        task = Task.model_validate(seen)
        draft = Draft(status=task.status, generation=task.metadata.generation, now=self._clock())
        again: float | None = None
        error: ReconcileError | None = None
        try:
            again = await self._advance(task, draft)
        except ReconcileError as stopped:
            error = stopped
            again = self._stopped(draft, stopped)
        except ConflictError as conflict:
            error = Transient(Reason.RETRYING, str(conflict))
        if error is not None and not is_true(draft.status.conditions, ConditionType.FAILED):
            wake = (expiry.expires_at(task, None, self._settings.tasks) - draft.now).total_seconds()
            again = min(again, max(wake, 0)) if again is not None else max(wake, 0)
        await self._write(task, draft)
        if isinstance(error, (Transient, Conflict)):
            raise error
        return again

    # --- the steps ------------------------------------------------------------------------------------------------

    async def _advance(self, task: Task, draft: Draft[TaskStatus]) -> float | None:
        status, now = task.status, draft.now
        if expiry.finished_at(task) is not None:
            return await self._over(task, draft)
        if status.job_id is None:
            status.job_id = status.uuid = job_id(task.metadata.creation_timestamp, task.metadata.uid)
            status.task_status = TaskStatusName.NEW
        seen = self._cache.get(SOURCE, task.metadata.namespace, task.spec.source_ref.name)
        source = Source.model_validate(seen) if seen is not None else None
        ends = expiry.expires_at(task, source, self._settings.tasks)
        status.expires_at = timestamp(ends)
        if now >= ends:
            return await self._expired(task, draft, source, ends)
        left = (ends - now).total_seconds()
        revision, started = await self._revision(task, draft, source)
        if task.spec.suspend and not started:
            self._suspended(draft)
            return left
        blocked: ReconcileError | None = None
        try:
            plan = await self._ensure(task, draft, source, revision)
        except ReconcileError as error:
            # What can't be made or mended doesn't keep what runs from being looked after, nor an answer from arriving.
            made = self._plans.get(task.metadata.uid)
            if made is None:
                raise
            plan, blocked = made, error
        try:
            # Before any gate is lifted: whoever starts then finds its siblings.
            await self._serve_aliases(task.metadata.uid, plan)
        except ReconcileError as error:
            blocked = blocked or error
        await self._storage.fit(task, draft)
        again = await self._observe(task, draft, plan)
        if is_true(draft.status.conditions, ConditionType.COMPLETE) or is_true(
            draft.status.conditions, ConditionType.FAILED
        ):
            return again
        if blocked is not None:
            raise blocked
        return left if again is None else min(left, again)

    async def _expired(
        self, task: Task, draft: Draft[TaskStatus], source: Source | None, ends: datetime
    ) -> float | None:
        """End a task whose time is over, unless it was answered or done in time and nobody was there to see it."""
        revision = self._started(task)
        if revision is not None and task.spec.is_call:
            end = await self._call.answered_by(task, draft, ends)
            if isinstance(end, End):
                return self._end(task, draft, end)
            if end is not None:
                return end
        elif revision is not None:
            main = await self._main_service(task, source, revision)
            jobs = [obj for _, obj in self._cache.children(task.metadata.uid, JOB)]
            if any(gates.component(job) == main and _done_by(job, ends) for job in jobs):
                return self._end(task, draft, End(reason=Reason.COMPLETED, message=f"{main} completed"))
        end = End(reason=Reason.EXPIRED, message=f"expired at {timestamp(ends)}", failed=True)
        return self._end(task, draft, end)

    async def _main_service(self, task: Task, source: Source | None, revision: str) -> str | None:
        """Return the component of a task's main service; None if its objects can't be made any more."""
        plan = self._plans.get(task.metadata.uid)
        if plan is None:
            try:
                plan, _ = await self._planned(task, source, revision)
            except ReconcileError:
                return None
        return plan.main

    def _started(self, task: Task) -> str | None:
        """Return the translation that a task runs, also while its status doesn't say so yet; None if it runs none."""
        status = task.status
        if status.revision is None and (made_from := self._made_from(task.metadata.uid)) is not None:
            status.environment, status.revision = made_from
        return status.revision

    async def _revision(
        self, task: Task, draft: Draft[TaskStatus], source: Source | None
    ) -> tuple[str, bool]:
        """Return the translation that the task runs, and whether it was chosen before now."""
        status, spec = task.status, task.spec
        started = self._started(task)
        if started is not None:
            if "revision" not in draft.before and task.spec.owner is not None:
                # Only its children say that it runs, and whoever may make such objects may not thereby be the owner.
                translation = await self._translations.get(task.metadata.namespace, started)
                self._check_owner(task, translation.digest if translation else "", draft.now)
            return started, True
        if source is None:
            message = f"there is no OpenGPUSource {spec.source_ref.name} yet"
            draft.set(
                ConditionType.SOURCE_RESOLVED, status=False, reason=Reason.SOURCE_NOT_FOUND, message=message
            )
            raise Waiting(Reason.SOURCE_NOT_FOUND, message)
        if source.metadata.deletion_timestamp is not None:
            raise Waiting(Reason.SOURCE_DELETING, f"OpenGPUSource {source.metadata.name} is being deleted")
        if spec.publish is not None:
            raise Invalid(
                Reason.UNSUPPORTED.about("publish"), "this version doesn't publish tasks on a chain yet"
            )
        broken = terms.violations(task, source)
        if broken:
            raise Invalid(
                Reason.TERMS_REFUSED.about(broken[0].field),
                "; ".join(violation.message for violation in broken),
            )
        if source.spec.suspend:
            raise Waiting(Reason.SOURCE_SUSPENDED, f"OpenGPUSource {source.metadata.name} is suspended")
        chosen = self._choose(task, source)
        self._check_owner(task, chosen.digest or "", draft.now)
        draft.set(
            ConditionType.SOURCE_RESOLVED, status=True, reason=Reason.FETCHED, message=chosen.digest or ""
        )
        status.environment = chosen.name
        status.source_digest = chosen.digest
        if task.spec.suspend:
            return chosen.revision or "", False
        status.revision = chosen.revision
        # From here until there are children nothing else shows that the translation is in use.
        self._starting[task.metadata.uid] = chosen.revision or ""
        return chosen.revision or "", False

    def _check_owner(self, task: Task, digest: str, now: datetime) -> None:
        """Refuse a task that can't prove whom it names as the owner, where that is asked for."""
        namespace = self._cache.get(NAMESPACE, None, task.metadata.namespace) or {}
        asked = (namespace.get("metadata", {}).get("annotations") or {}).get(REQUIRE_OWNER_PROOF)
        required = self._settings.storage.require_owner_proof if asked is None else asked != "false"
        ownerproof.check(task, digest=digest, cluster=self._settings.cluster_id, required=required, now=now)

    def _choose(self, task: Task, source: Source) -> EnvironmentStatus:
        current = source.status.observed_generation == source.metadata.generation
        ready = {entry.name: entry for entry in source.status.environments if entry.ready} if current else {}
        wanted = task.spec.environment or "Auto"
        if wanted == "Auto":
            choice = environment.choose(ready, nodes=self._cache.all(NODE), settings=self._settings.gpu)
        else:
            choice = Environment(wanted) if Environment(wanted) in ready else None
        if choice is None:
            seen = source.environment(Environment(wanted)) if wanted != "Auto" else None
            why = f"{seen.reason}: {seen.message}" if seen and seen.reason else "no environment is ready"
            raise Waiting(Reason.SOURCE_NOT_READY, f"OpenGPUSource {source.metadata.name}: {why}")
        return ready[choice]

    async def _ensure(
        self, task: Task, draft: Draft[TaskStatus], source: Source | None, revision: str
    ) -> Plan:
        uid = task.metadata.uid
        plan = self._plans.get(uid)
        if plan is None or plan.key != _key(task, source, revision) or self._children.missing(plan.children):
            try:
                plan, wanted = await self._planned(task, source, revision)
            except Invalid as error:
                await self._close(task, draft, error)
                raise
            self._plans[uid] = plan
            keep = {child[:3] for child in plan.children}
            # What lets more people in than the task wants goes first, and no two may lead the same host anywhere.
            await self._children.prune(uid, keep=keep, kinds=ROUTES)
            await self._children.ensure(wanted)
            await self._children.prune(uid, keep=keep)
        # Chosen before a crash, it isn't there yet.
        task.status.source_digest = plan.digest
        draft.set(ConditionType.SOURCE_RESOLVED, status=True, reason=Reason.FETCHED, message=plan.digest)
        task.status.urls = list(plan.urls)
        task.status.gpus = plan.gpus
        seen = as_seen(plan.routing, (route for _, route in self._cache.children(uid, HTTP_ROUTE)))
        if seen is not None:
            draft.set(ConditionType.ROUTED, status=seen.status, reason=seen.reason, message=seen.message)
        elif self._settings.routes.domain is None:
            draft.set(
                ConditionType.ROUTED,
                status=False,
                reason=Reason.NO_DOMAIN,
                message="no domain is configured (settings.routes.domain), so ports have no URL",
            )
        else:
            draft.drop(ConditionType.ROUTED)
        access.say(draft, self._granted(task))
        return plan

    async def _close(self, task: Task, draft: Draft[TaskStatus], error: Invalid) -> None:
        """Take the routes of a job whose spec was changed into one that can't be had and is about who may enter."""
        spec = task.spec
        if spec.access is None and all(options.access is None for options in spec.port_options or ()):
            return
        await self._children.prune(task.metadata.uid, keep=(), kinds=ROUTES)
        task.status.urls = []
        draft.set(ConditionType.ROUTED, status=False, reason=error.reason, message=error.message)

    async def _planned(
        self, task: Task, source: Source | None, revision: str
    ) -> tuple[Plan, list[dict[str, Any]]]:
        """Return the plan of a job, and its objects."""
        translation = await self._translations.get(task.metadata.namespace, revision)
        if translation is None:
            raise Waiting(Reason.SOURCE_NOT_READY, f"ControllerRevision {revision} isn't there")
        objects = build(translation, self._context(task, source), self._settings)
        wanted = _stamped(objects.everything, task, revision)
        return _plan(_key(task, source, revision), objects, wanted, translation), wanted

    async def _serve_aliases(self, uid: str, plan: Plan) -> None:
        """Let DNS know the pods by their other names."""
        if plan.aliases is None:
            return
        addresses = pods.addresses(pod for _, pod in self._cache.children(uid, POD))
        wanted = plan.aliases.slices(addresses)
        await self._children.ensure(wanted)
        keep = {(ENDPOINT_SLICE, obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in wanted}
        await self._children.prune(uid, keep=keep, kinds={ENDPOINT_SLICE})

    def _context(self, task: Task, source: Source | None) -> JobContext:
        job = task.status.job_id or ""
        key = self._store_key()
        ends = expiry.expires_at(task, source, self._settings.tasks) + TOKEN_GRACE
        claims = grants.of_job(
            task,
            namespace=self._cache.get(NAMESPACE, None, task.metadata.namespace),
            quota=self._settings.storage.quota,
            ends=ends,
        ) | access.claims(self._granted(task))
        token = tokens.sign(key, claims)
        return JobContext(
            name=job_name(job),
            job_id=job,
            namespace=task.metadata.namespace,
            task=task.metadata.name,
            task_uid=task.metadata.uid,
            source=task.spec.source_ref.name,
            source_uid=source.metadata.uid if source else "",
            owner_reference=_owner(KIND, task.metadata.name, task.metadata.uid),
            source_owner_reference=(
                _owner(SOURCE_KIND, source.metadata.name, source.metadata.uid) if source else None
            ),
            environment=task.status.environment or Environment.CPU,
            spec=task.spec,
            volumes=(source.spec.volumes or {}) if source else {},
            image_pull_secrets=[
                reference.name for reference in ((source.spec.image_pull_secrets or []) if source else [])
            ],
            resolvers=self._resolvers,
            token=token,
            files=access.files(key, claims, granted=self._granted(task), settings=self._settings),
            call=task.spec.is_call,
        )

    def _granted(self, task: Task) -> external.Granted:
        """Return how far the task's files are open to the outside."""
        namespace = self._cache.get(NAMESPACE, "", task.metadata.namespace) or {"metadata": {}}
        annotation = (namespace["metadata"].get("annotations") or {}).get(EXTERNAL_STORAGE)
        return external.grant(task.spec, annotation=annotation, settings=self._settings)

    async def _observe(self, task: Task, draft: Draft[TaskStatus], plan: Plan) -> float | None:
        """Look at the children, lift gates, follow the call; return when to look again."""
        uid, status = task.metadata.uid, task.status
        children = self._cache.children(uid)
        own_pods = [obj for kind, obj in children if kind == POD]
        jobs = [obj for kind, obj in children if kind == JOB]
        await self._lift(own_pods, jobs)
        self._tunnels.observe(task, own_pods, main=plan.main)
        if task.spec.suspend:
            self._suspended(draft)
            return None
        if draft.get(ConditionType.SUSPENDED) is not None:
            draft.set(ConditionType.SUSPENDED, status=False, reason=Reason.RESUMED)
        deployments = [obj for kind, obj in children if kind == DEPLOYMENT]
        summary = pods.summarise(own_pods, nodes=self._cache.all(NODE), deployments=deployments, jobs=jobs)
        times = status.times = status.times or Times()
        self._scheduling(draft, summary, times)
        self._progress(task, draft, plan, summary, times)
        restarted = next(
            (
                pod
                for pod in own_pods
                if pods.agent_restarted(pod) and not pod["metadata"].get("deletionTimestamp")
            ),
            None,
        )
        if restarted is None:
            draft.drop(ConditionType.AGENT_RESTARTED)
        elif self._settings.agent.on_restart == "Replace":
            await self._replace(restarted, draft)
        else:
            self._report(restarted, draft)
        if summary.problem is not None and summary.problem.reason is Reason.ROOT_REFUSED:
            # The kubelet tries again for ever, and always with the same image.
            end = End(reason=summary.problem.reason, message=summary.problem.message, failed=True)
            return self._end(task, draft, end)
        if task.spec.is_call:
            step: float | End | None = await self._call.follow(task, draft, own_pods)
        else:
            step = self._main(task, plan, jobs=jobs, own_pods=own_pods)
        if summary.problem is not None and summary.problem.reason is Reason.STORAGE_NODE_CONFLICT:
            step = step if isinstance(step, End) else await self._pinned(own_pods, draft.now, step)
        return self._end(task, draft, step) if isinstance(step, End) else step

    async def _lift(self, own_pods: list[Mapping[str, Any]], jobs: list[Mapping[str, Any]]) -> None:
        for lift in gates.lifts(pods=own_pods, jobs=jobs, gate_of=names.gate):
            metadata = lift.pod["metadata"]
            try:
                stored = await self._gateway.json_patch(
                    POD, metadata["namespace"], metadata["name"], lift.patch()
                )
            except NotFound:
                continue
            self._cache.put(POD, stored)

    async def _replace(self, pod: Mapping[str, Any], draft: Draft[TaskStatus]) -> None:
        """Replace a pod whose agent's container restarted: the socket that the job has open is dead.

        It is evicted, since its Job would take a deletion for a failure of its own.
        """
        namespace, name, uid = (pod["metadata"][key] for key in ("namespace", "name", "uid"))
        message = f"the gpux agent of pod {name} restarted, so /gpux_api is dead in it; the pod is replaced"
        draft.set(ConditionType.AGENT_RESTARTED, status=True, reason=Reason.AGENT_RESTARTED, message=message)
        try:
            await self._gateway.evict(namespace, name, uid=uid)
        except TooManyRequests as error:
            # A PodDisruptionBudget forbids it for now. All else that the task needs goes on.
            logger.warning("%s can't be replaced yet: %s", name, error)
            return
        # Whether it is on its way out or gone, it isn't evicted twice.
        left = await self._gateway.get(POD, namespace, name)
        if left is None:
            self._cache.drop(POD, namespace, name, uid)
        else:
            self._cache.put(POD, left)
        draft.event("Warning", Reason.AGENT_RESTARTED, message)

    def _report(self, pod: Mapping[str, Any], draft: Draft[TaskStatus]) -> None:
        """Say that a pod's socket is dead, once; the cluster's owner wants the pod kept."""
        message = (
            f"the gpux agent of pod {pod['metadata']['name']} restarted, so /gpux_api is dead in it; "
            "delete the pod to have it replaced"
        )
        said = draft.get(ConditionType.AGENT_RESTARTED)
        draft.set(ConditionType.AGENT_RESTARTED, status=True, reason=Reason.AGENT_RESTARTED, message=message)
        if said is None or said.message != message:
            draft.event("Warning", Reason.AGENT_RESTARTED, message)

    async def _pinned(
        self, own_pods: list[Mapping[str, Any]], now: datetime, again: float | None
    ) -> float | End:
        """End a task of which a pod will never get a node; return when to look again where there is hope."""
        for pod in pods.pinned(own_pods, before=now - PINNED_PATIENCE):
            metadata = pod["metadata"]
            why = await pinned.never_fits(self._gateway, metadata["namespace"], metadata["name"], now=now)
            if why is not None:
                message = f"{gates.component(pod)} can't run anywhere: {why}"
                return End(reason=Reason.STORAGE_NODE_CONFLICT, message=message, failed=True)
        patience = PINNED_PATIENCE.total_seconds()
        return patience if again is None else min(again, patience)

    def _scheduling(self, draft: Draft[TaskStatus], summary: pods.Summary, times: Times) -> None:
        if summary.total and summary.scheduled == summary.total:
            draft.set(ConditionType.SCHEDULED, status=True, reason=Reason.SCHEDULED)
            times.scheduled = times.scheduled or timestamp(draft.now)
        elif summary.problem is not None and summary.scheduled < max(summary.total, 1):
            draft.set(
                ConditionType.SCHEDULED,
                status=False,
                reason=summary.problem.reason,
                message=summary.problem.message,
            )
        else:
            draft.set(ConditionType.SCHEDULED, status=False, reason=Reason.PENDING)

    def _progress(
        self, task: Task, draft: Draft[TaskStatus], plan: Plan, summary: pods.Summary, times: Times
    ) -> None:
        if summary.total and summary.ready == summary.total:
            draft.set(ConditionType.AVAILABLE, status=True, reason=Reason.RUNNING)
            times.started = times.started or timestamp(draft.now)
            if task.spec.is_call:
                draft.progressing(Reason.RUNNING, f"{plan.worker} is up")
            else:
                draft.ready(Reason.RUNNING, f"{plan.main} is up")
            return
        draft.set(ConditionType.AVAILABLE, status=False, reason=Reason.STARTING)
        if summary.problem is not None:
            draft.progressing(summary.problem.reason, summary.problem.message)
        else:
            # Not as many as there are so far: each that is made would be news, and a write.
            total = max(summary.total, plan.pods)
            draft.progressing(Reason.STARTING, f"{summary.ready} of {total} pods are ready")

    def _main(
        self,
        task: Task,
        plan: Plan,
        *,
        jobs: list[Mapping[str, Any]],
        own_pods: list[Mapping[str, Any]],
    ) -> End | None:
        """Return the end of a task without a call once its main service's Job ended."""
        task.status.task_status = TaskStatusName.ATTEMPTED
        task.status.attempts = 1
        main = next((job for job in jobs if gates.component(job) == plan.main), None)
        if main is None:
            return None
        for condition in main.get("status", {}).get("conditions", []):
            if condition["status"] != "True":
                continue
            if condition["type"] == "Complete":
                return End(reason=Reason.COMPLETED, message=f"{plan.main} completed")
            if condition["type"] == "Failed":
                how = (
                    pods.exit_of(own_pods, plan.main)
                    or condition.get("message")
                    or condition.get("reason", "")
                )
                return End(
                    reason=Reason.MAIN_SERVICE_FAILED, message=f"{plan.main} failed: {how}", failed=True
                )
        return None

    # --- ends -----------------------------------------------------------------------------------------------------

    def _end(self, task: Task, draft: Draft[TaskStatus], end: End) -> float | None:
        """Write down how the task ended. Its children go in the reconcile that this write causes."""
        status, now = task.status, draft.now
        status.end_reason = end.reason.value
        times = status.times = status.times or Times()
        times.finished = timestamp(now)
        if status.gpus and times.scheduled:
            held = now - datetime.fromisoformat(times.scheduled)
            status.gpu_seconds = max(0, round(held.total_seconds())) * status.gpus
        if end.failed:
            if end.reason is Reason.EXPIRED:
                status.task_status = TaskStatusName.EXPIRED
            draft.set(ConditionType.FAILED, status=True, reason=end.reason, message=end.message)
            draft.stalled(end.reason, end.message)
        else:
            status.task_status = TaskStatusName.FINALIZED
            draft.set(ConditionType.COMPLETE, status=True, reason=end.reason, message=end.message)
            draft.ready(end.reason, end.message)
        # What is about to be removed is no longer there to be reached.
        status.urls = []
        status.cftunnel = status.tunnel = None
        for name in (
            ConditionType.AVAILABLE,
            ConditionType.SCHEDULED,
            ConditionType.ROUTED,
            ConditionType.AGENT_RESTARTED,
        ):
            draft.drop(name)
        return 0

    async def _over(self, task: Task, draft: Draft[TaskStatus]) -> float | None:
        """Remove the children of a task that ended, and the task itself when its time has come."""
        job = job_name(task.status.job_id or "")
        secrets = [names.child(job, "agent"), names.child(job, "secrets")]
        removed = await self._children.remove(
            namespace=task.metadata.namespace, task_uid=task.metadata.uid, secrets=secrets
        )
        if removed:
            logger.info("removed %d children of %s", removed, task.metadata.name)
        self._plans.pop(task.metadata.uid, None)
        self._tunnels.forget(task.metadata.uid)
        due = expiry.removal_at(task)
        if due is None:
            return None
        left = (due - draft.now).total_seconds()
        if left > 0:
            return left
        await self._gateway.delete(TASK, task.metadata.namespace, task.metadata.name, uid=task.metadata.uid)
        return None

    def _suspended(self, draft: Draft[TaskStatus]) -> None:
        draft.set(ConditionType.SUSPENDED, status=True, reason=Reason.SUSPENDED)
        draft.progressing(Reason.SUSPENDED, "spec.suspend is true")
        draft.drop(ConditionType.RECONCILING)

    def _stopped(self, draft: Draft[TaskStatus], error: ReconcileError) -> float | None:
        """Write down why a reconcile stopped; return when to look again."""
        if isinstance(error, (Invalid, Conflict)):
            draft.stalled(error.reason, error.message)
        else:
            draft.progressing(error.reason, error.message)
        if isinstance(error, Transient):
            return error.retry_after
        return None

    # --- writing --------------------------------------------------------------------------------------------------

    async def _write(self, task: Task, draft: Draft[TaskStatus]) -> None:
        written = await self._status.write(task.metadata, draft, version=task.metadata.resource_version)
        self._starting.pop(task.metadata.uid, None)
        if written and _uses(draft.before) != _uses(task.status.dump()):
            # Our own write comes back as no news, and the source and the owner's storage wait for it.
            self._counted(task.metadata.namespace, task.spec.source_ref.name, task.spec.owner)


def _event_type(reason: str, stalled: bool) -> str | None:  # noqa: FBT001 - the signature is the writer's
    """Return the type of the event for a new reason of a task's Ready condition."""
    if reason in _QUIET:
        return None
    return "Warning" if stalled or reason in _WARN else "Normal"


#: Steps that everybody takes and nobody needs an event for.
_QUIET = {Reason.STARTING, Reason.PENDING, Reason.SUSPENDED, Reason.RUNNING}
_WARN = {
    Reason.NO_NODE_FITS,
    Reason.UNSCHEDULABLE,
    Reason.STORAGE_NODE_CONFLICT,
    Reason.DEPENDENCY_FAILED,
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_FAILING,
    Reason.STORE_UNAVAILABLE,
    Reason.QUOTA_EXCEEDED,
    Reason.FORBIDDEN,
}


def _uses(status: Mapping[str, Any]) -> bool:
    """Return whether a task with this status needs its source."""
    return status.get("revision") is not None and not expiry.is_finished({"status": status})


def _owner(kind: str, name: str, uid: str) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _done_by(job: Mapping[str, Any], moment: datetime) -> bool:
    completed = job.get("status", {}).get("completionTime")
    return completed is not None and datetime.fromisoformat(completed) <= moment


def _stamped(objects: Iterable[dict[str, Any]], task: Task, revision: str) -> list[dict[str, Any]]:
    """Return children with what tells whether they are what the task asks, and what they were made from."""
    asked = task.spec.model_dump(mode="json", exclude_none=True, include=_SHAPING)
    # A volume grows beside its pods.
    asked.get("storage", {}).pop("user_size", None)
    hashes = {}
    # Ports are routed beside the pods, and Jobs are suspended and resumed in place: neither makes others of them.
    for kind, beside in ((None, ()), (DEPLOYMENT, _ROUTING), (JOB, (*_ROUTING, "suspend"))):
        part = {field: value for field, value in asked.items() if field not in beside}
        hashes[kind] = names.digest(revision, json.dumps(part, sort_keys=True))
    made_from = f"{task.status.environment}/{revision}"
    stamped = []
    for obj in objects:
        metadata = obj["metadata"]
        if TASK_UID in metadata["labels"]:
            annotations = {
                **metadata["annotations"],
                SPEC_HASH: hashes.get(kind_of(obj), hashes[None]),
                REVISION: made_from,
            }
            stamped.append({**obj, "metadata": {**metadata, "annotations": annotations}})
        else:
            stamped.append(obj)
    return stamped


#: What of a task's spec routes alone depend on.
_ROUTING = ("ports", "port_options", "access")
#: What of a task's spec its children depend on.
_SHAPING = {
    "env",
    "resources",
    "services",
    *_ROUTING,
    "storage",
    "main_service",
    "owner",
    "suspend",
}


def _key(task: Task, source: Source | None, revision: str) -> tuple[object, ...]:
    """Return what a plan follows from."""
    return task.metadata.generation, revision, source.metadata.uid if source else None


def _plan(
    key: tuple[object, ...], objects: JobObjects, wanted: list[dict[str, Any]], translation: Translation
) -> Plan:
    return Plan(
        key=key,
        digest=translation.digest,
        children=tuple(
            (kind_of(obj), obj["metadata"]["namespace"], obj["metadata"]["name"], spec_hash(obj) or "")
            for obj in wanted
        ),
        urls=tuple(objects.urls),
        routing=routing(objects),
        main=objects.components[objects.main],
        worker=translation.worker,
        gpus=sum(objects.gpus.values()),
        pods=sum(
            obj["spec"]["parallelism" if kind_of(obj) == JOB else "replicas"]
            for obj in objects.everything
            if kind_of(obj) in {DEPLOYMENT, JOB}
        ),
        aliases=objects.aliases,
    )
