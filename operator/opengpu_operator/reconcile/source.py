"""Reconciles one OpenGPUSource: fetch its files, have them translated, keep the translations, guard its deletion."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from opengpu_operator.api.conditions import timestamp
from opengpu_operator.api.errors import Invalid, ReconcileError, Transient, Waiting
from opengpu_operator.api.findings import FileReport, Finding, Severity
from opengpu_operator.api.labels import (
    RECONCILE_REQUESTED_AT,
    SOURCE_IN_USE_FINALIZER,
)
from opengpu_operator.api.reasons import ConditionType, Reason
from opengpu_operator.api.source import (
    STATUS_FINDINGS,
    Environment,
    EnvironmentStatus,
    ImageEnv,
    ServiceSummary,
    Source,
    SourceStatus,
    StoredReport,
)
from opengpu_operator.api.translation import Restart, TranslateOptions, Translation, network_variables
from opengpu_operator.compose import differences
from opengpu_operator.compose.client import FetchError, TranslatorClient, TranslatorUnavailable
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import NotFound
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import CONFIG_MAP, SOURCE
from opengpu_operator.reconcile import expiry
from opengpu_operator.reconcile.draft import Draft
from opengpu_operator.reconcile.reports import Reports
from opengpu_operator.reconcile.status import StatusWriter
from opengpu_operator.reconcile.translations import Translations
from opengpu_operator.settings import Settings

logger = logging.getLogger(__name__)

#: How often a missing thing that we aren't told about (a key of a ConfigMap, a dead URL) is looked for again.
RETRY_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """Why an environment's file could not be had."""

    reason: Reason
    message: str
    transient: bool


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What became of an environment's file."""

    entry: EnvironmentStatus
    translation: Translation | None = None
    """The file's, or the one that stands in for it while it can't be had; refused ones too."""
    failure: _Failure | None = None


class SourceReconciler:
    """Reconciles sources."""

    def __init__(
        self,
        *,
        settings: Settings,
        gateway: Gateway,
        cache: Cache,
        recorder: Recorder,
        translator: TranslatorClient,
        translations: Translations,
        reports: Reports,
        changed: Callable[[str, str], None],
        revision_of: Callable[[Mapping[str, Any]], str | None],
        clock: Callable[[], datetime],
    ) -> None:
        """``changed(namespace, name)`` is called when a source's translations changed, for its tasks.

        ``revision_of`` gives the translation that a task runs, if any.
        """
        self._settings = settings
        self._gateway = gateway
        self._cache = cache
        self._status = StatusWriter(
            SOURCE, gateway=gateway, cache=cache, recorder=recorder, event_type=_event_type
        )
        self._translator = translator
        self._translations = translations
        self._reports = reports
        self._changed = changed
        self._revision_of = revision_of
        self._clock = clock
        self._touched: set[tuple[str, str]] = set()

    def content_changed(self, namespace: str, name: str) -> None:
        """Have the next reconcile look at a source's files again: a ConfigMap that holds one changed."""
        self._touched.add((namespace, name))

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """Bring a source up to date; return after how many seconds to look again."""
        seen = self._cache.get(SOURCE, namespace, name)
        if seen is None:
            return None
        source = Source.model_validate(seen)
        draft = Draft(status=source.status, generation=source.metadata.generation, now=self._clock())
        users = self._users(source)
        if source.metadata.deletion_timestamp is not None:
            return await self._release(source, draft, users)
        if self._cache.terminating(namespace):
            return None
        await self._hold(source)
        error: ReconcileError | None = None
        again: float | None = None
        earlier = Source.model_validate(seen)
        same_spec = earlier.status.observed_generation == source.metadata.generation
        stale = (namespace, name) in self._touched or self._stale(source, earlier)
        self._touched.discard((namespace, name))
        try:
            if stale:
                again = await self._refresh(source, draft, same_spec=same_spec)
            else:
                again = self._due(source)
                await self._report_later(source)
        except ReconcileError as stopped:
            error = stopped
            if isinstance(stopped, Invalid):
                draft.stalled(stopped.reason, stopped.message)
            else:
                draft.progressing(stopped.reason, stopped.message)
        draft.status.active_tasks = len(users)
        await self._status.write(source.metadata, draft)
        if stale:
            self._changed(namespace, name)
            await self._translations.prune(source, used=self._used(source))
        if isinstance(error, Transient):
            raise error
        if isinstance(error, Waiting):
            again = RETRY_SECONDS
        if any(map(_is_unreported, source.status.environments)):
            retry = max(self._reports.delay, RETRY_SECONDS)
            again = retry if again is None else min(again, retry)
        return again

    # --- deletion -------------------------------------------------------------------------------------------------

    def _users(self, source: Source) -> list[str]:
        """Return the names of the tasks that run on this source now."""
        tasks = self._cache.tasks_of(source.metadata.namespace, source.metadata.name)
        return sorted(
            task["metadata"]["name"]
            for task in tasks
            if self._revision_of(task) is not None and not expiry.is_finished(task)
        )

    async def _hold(self, source: Source) -> None:
        if SOURCE_IN_USE_FINALIZER in source.metadata.finalizers:
            return
        finalizers = [*source.metadata.finalizers, SOURCE_IN_USE_FINALIZER]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": source.metadata.resource_version}}
        stored = await self._gateway.merge_patch(
            SOURCE, source.metadata.namespace, source.metadata.name, patch
        )
        self._cache.put(SOURCE, stored)

    async def _release(self, source: Source, draft: Draft[SourceStatus], users: list[str]) -> float | None:
        if SOURCE_IN_USE_FINALIZER not in source.metadata.finalizers:
            return None
        if users and not self._cache.terminating(source.metadata.namespace):
            shown = ", ".join(users[:5]) + (" …" if len(users) > 5 else "")
            message = f"deletion waits for {len(users)} running task(s): {shown}"
            draft.progressing(Reason.IN_USE, message)
            draft.status.active_tasks = len(users)
            await self._status.write(source.metadata, draft)
            return None
        await self._reports.forget(source.metadata.uid)
        rest = [name for name in source.metadata.finalizers if name != SOURCE_IN_USE_FINALIZER]
        patch = {"metadata": {"finalizers": rest, "resourceVersion": source.metadata.resource_version}}
        with contextlib.suppress(NotFound):
            await self._gateway.merge_patch(SOURCE, source.metadata.namespace, source.metadata.name, patch)
        return None

    # --- files ----------------------------------------------------------------------------------------------------

    def _stale(self, source: Source, seen: Source) -> bool:
        """Return whether the files are to be looked at again."""
        status = seen.status
        requested = source.metadata.annotations.get(RECONCILE_REQUESTED_AT)
        if status.observed_generation != source.metadata.generation:
            return True
        if requested is not None and requested != status.reconcile_requested_at:
            return True
        offered = source.spec.image_envs.offered() if source.spec.image_envs else {}
        for name in offered:
            entry = source.environment(name)
            if entry is None or (not entry.ready and entry.reason not in _FINAL):
                return True
            if entry.ready and not self._translations.exists(source.metadata.namespace, entry.revision or ""):
                return True
            if not entry.ready and _is_unreported(entry) and not self._reports.delay:
                # Nothing but the status is kept of a refused file.
                return True
        return self._due(source) == 0

    def _used(self, source: Source) -> set[str | None]:
        """Return the revisions that an environment or an unfinished task refers to."""
        used = {entry.revision for entry in source.status.environments}
        for task in self._cache.tasks_of(source.metadata.namespace, source.metadata.name):
            if not expiry.is_finished(task):
                used.add(self._revision_of(task))
        return used

    def _due(self, source: Source) -> float | None:
        """Return in how many seconds the files are to be fetched again; None if they are pinned or local."""
        offered = source.spec.image_envs.offered() if source.spec.image_envs else {}
        if not any(file.compose_url and file.sha256 is None for file in offered.values()):
            return None
        if source.status.fetched_at is None:
            return 0
        fetched = datetime.fromisoformat(source.status.fetched_at)
        due = fetched + timedelta(seconds=self._settings.sources.refresh_seconds)
        return max(0.0, (due - self._clock()).total_seconds())

    async def _refresh(self, source: Source, draft: Draft[SourceStatus], *, same_spec: bool) -> float | None:
        status = draft.status
        requested = source.metadata.annotations.get(RECONCILE_REQUESTED_AT)
        # Who asks for it has also those reports put into the store that should be there.
        known = {} if requested != status.reconcile_requested_at else _reports(status.environments)
        status.reconcile_requested_at = requested
        missing = _unsupported(source)
        if missing or source.spec.image_envs is None:
            fields = ", ".join(f"spec.{field}" for field in missing)
            raise Invalid(
                Reason.UNSUPPORTED.about(",".join(missing)),
                f"this version can't do what {fields} asks for yet",
            )
        if any(file.compose_url for file in source.spec.image_envs.offered().values()):
            status.fetched_at = timestamp(draft.now)
        # What another spec led to is no stand-in for what this one asks.
        before = {entry.name: entry for entry in status.environments} if same_spec else {}
        found = {
            name: await self._environment(source, name, file, before.get(name))
            for name, file in source.spec.image_envs.offered().items()
        }
        entries = status.environments = [each.entry for each in found.values()]
        failures = [(name, each.failure) for name, each in found.items() if each.failure is not None]
        translations = {
            name: each.translation for name, each in found.items() if each.translation is not None
        }
        await self._report(source, translations, known=known)
        ready = [entry.name.value for entry in entries if entry.ready]
        status.offered = ",".join(ready)
        unfetched = [failure for _, failure in failures if failure.reason in _FETCH_REASONS]
        draft.set(
            ConditionType.SOURCE_RESOLVED,
            status=not unfetched,
            reason=unfetched[0].reason if unfetched else Reason.FETCHED,
            message=unfetched[0].message if unfetched else "",
        )
        message = "; ".join(f"{name.value}: {failure.message}" for name, failure in failures)
        if not failures:
            draft.set(ConditionType.TRANSLATED, status=True, reason=Reason.TRANSLATED)
            unchecked = "; answers aren't checked against spec.responseSchema yet"
            draft.ready(
                Reason.TRANSLATED,
                f"offers {status.offered}{unchecked if source.spec.response_schema is not None else ''}",
            )
            return self._due(source)
        first = failures[0][1]
        draft.set(
            ConditionType.TRANSLATED, status=len(ready) == len(entries), reason=first.reason, message=message
        )
        transient = any(failure.transient for _, failure in failures)
        if ready:
            # What works is offered: a broken amd file is no reason to refuse nvidia tasks.
            draft.ready(first.reason, f"offers {status.offered}; {message}")
        elif transient:
            raise Transient(first.reason, message, retry_after=RETRY_SECONDS)
        else:
            raise Invalid(first.reason, message)
        return RETRY_SECONDS if transient else self._due(source)

    async def _environment(
        self, source: Source, name: Environment, file: ImageEnv, before: EnvironmentStatus | None
    ) -> _Found:
        """Fetch and translate one environment's file."""
        options = TranslateOptions(
            environment=name.value,
            variables=network_variables(source.status.address or source.spec.address or ""),
            profiles=file.profiles or [],
            shm_size=self._settings.pods.shm_size,
            placement_labels=self._settings.pods.placement_labels,
            restricted=self._settings.pods.profile == "restricted",
        )
        try:
            text = await self._text(source, file)
            translation = await self._translator.translate(text, options)
        except FetchError as error:
            failure = _Failure(reason=Reason(error.reason), message=error.message, transient=error.transient)
        except TranslatorUnavailable as error:
            failure = _Failure(reason=Reason.TRANSLATOR_UNAVAILABLE, message=str(error), transient=True)
        else:
            if translation.refused:
                return _refused(name, translation)
            revision = await self._translations.keep(source, name, translation)
            return _Found(entry=_summary(name, translation, revision), translation=translation)
        if before is not None and before.ready and failure.transient:
            return _Found(entry=before, translation=await self._kept(source, before), failure=failure)
        entry = EnvironmentStatus(
            name=name, ready=False, reason=failure.reason, message=failure.message[:1024]
        )
        return _Found(entry=entry, failure=failure)

    async def _text(self, source: Source, file: ImageEnv) -> str:
        reference = file.config_map_key_ref
        if reference is None:
            fetched = await self._translator.fetch(file.compose_url or "", sha256=file.sha256)
            return fetched.text
        found = await self._gateway.get(CONFIG_MAP, source.metadata.namespace, reference.name)
        text = ((found or {}).get("data") or {}).get(reference.key)
        if not isinstance(text, str):
            what = f"key {reference.key} in ConfigMap" if found else "ConfigMap"
            raise FetchError(
                Reason.CONFIG_MAP_NOT_FOUND, f"there is no {what} {reference.name} yet", transient=True
            )
        digest = hashlib.sha256(text.encode()).hexdigest()
        if file.sha256 is not None and digest != file.sha256:
            raise FetchError(
                Reason.DIGEST_MISMATCH,
                f"the file has sha256 {digest}, the source pins {file.sha256}",
                transient=False,
            )
        return text

    # --- findings -------------------------------------------------------------------------------------------------

    async def _report(
        self,
        source: Source,
        translations: Mapping[Environment, Translation],
        *,
        known: Mapping[Environment, StoredReport],
    ) -> None:
        """Say in the status what was found in the files, and between them; put all of it into the store."""
        differ = differences.compare(translations)
        for entry in source.status.environments:
            translation = translations.get(entry.name)
            if translation is None:
                continue
            findings = [*translation.findings, *differ.get(entry.name, ())]
            entry.findings = _listed(findings)
            entry.findings_count = len(findings)
            entry.report = None
            if findings:
                report = FileReport(environment=entry.name, digest=entry.digest, findings=findings)
                entry.report = await self._reports.keep(
                    source.metadata.namespace, source.metadata.uid, report, known=known.get(entry.name)
                )

    async def _report_later(self, source: Source) -> None:
        """Put into the store what it couldn't take when the files were translated."""
        entries = source.status.environments
        if self._reports.delay or not any(map(_is_unreported, entries)):
            return
        kept = {entry.name: await self._kept(source, entry) for entry in entries}
        translations = {name: translation for name, translation in kept.items() if translation is not None}
        await self._report(source, translations, known=_reports(entries))

    async def _kept(self, source: Source, entry: EnvironmentStatus) -> Translation | None:
        if entry.revision is None:
            return None
        return await self._translations.get(source.metadata.namespace, entry.revision)


def _is_unreported(entry: EnvironmentStatus) -> bool:
    return entry.findings_count > 0 and entry.report is None


def _reports(entries: Iterable[EnvironmentStatus]) -> dict[Environment, StoredReport]:
    return {entry.name: entry.report for entry in entries if entry.report is not None}


def _event_type(reason: str, _stalled: bool) -> str:  # noqa: FBT001 - the signature is the writer's
    """Return the type of the event for a new reason of a source's Ready condition."""
    return "Normal" if reason in {Reason.TRANSLATED, Reason.IN_USE} else "Warning"


#: Failures of fetching, as opposed to failures of the file itself.
_FETCH_REASONS = {
    Reason.FETCH_FAILED,
    Reason.CONFIG_MAP_NOT_FOUND,
    Reason.DIGEST_MISMATCH,
    Reason.NOT_A_COMPOSE_FILE,
    Reason.TRANSLATOR_UNAVAILABLE,
}
#: Failures that only another file, URL or pin can mend; looked at again at the refresh interval.
_FINAL = {Reason.COMPOSE_REFUSED, Reason.NOT_A_COMPOSE_FILE, Reason.DIGEST_MISMATCH}


def _unsupported(source: Source) -> list[str]:
    """Return the fields that ask for what the kind has and this version doesn't do, rather than pass over them."""
    spec = source.spec
    asked = {
        "template": spec.template is not None,
        "address": spec.address is not None,
        "publish": spec.publish is not None,
        "serving": spec.serving is not None and spec.serving.mode == "Shared",
    }
    return [field for field, given in asked.items() if given]


def _listed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings for the status: the gravest first, at most as many as it holds."""
    order = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
    return sorted(findings, key=lambda finding: order[finding.severity])[:STATUS_FINDINGS]


def _refused(name: Environment, translation: Translation) -> _Found:
    errors = [finding for finding in translation.findings if finding.severity is Severity.ERROR]
    no_compose = next((error for error in errors if error.reason == Reason.NOT_A_COMPOSE_FILE), None)
    reason = Reason.NOT_A_COMPOSE_FILE if no_compose else Reason.COMPOSE_REFUSED
    shown = [no_compose] if no_compose else errors
    text = "; ".join(_sentence(error) for error in shown[:5])
    if len(shown) > 5:
        text += f"; and {len(shown) - 5} more (status.environments)"
    entry = EnvironmentStatus(
        name=name,
        ready=False,
        reason=reason,
        message=text[:1024],
        digest=translation.digest,
    )
    return _Found(
        entry=entry,
        translation=translation,
        failure=_Failure(reason=reason, message=text, transient=False),
    )


def _sentence(finding: Finding) -> str:
    where = f"{finding.path}: " if finding.path else ""
    advice = f" ({finding.advice})" if finding.advice else ""
    return f"{where}{finding.message}{advice}"


def _summary(name: Environment, translation: Translation, revision: str) -> EnvironmentStatus:
    services = [
        ServiceSummary(
            name=service.name,
            kind="Job" if service.restart in {Restart.NO, Restart.ON_FAILURE} else "Deployment",
            gpus=(service.gpu.count or 1) if service.gpu else 0,
            ports=[port.container for port in service.ports][:64],
        )
        for service in translation.services
    ]
    return EnvironmentStatus(
        name=name,
        ready=True,
        reason=Reason.TRANSLATED,
        digest=translation.digest,
        revision=revision,
        worker=translation.worker,
        gpus=sum(service.gpus for service in services),
        services=services[:128],
    )
