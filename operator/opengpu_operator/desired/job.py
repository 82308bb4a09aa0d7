"""Puts the objects of one job together: the only function of this package that others need."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from opengpu_operator.api.errors import Invalid
from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.labels import AGENT_CONTAINER
from opengpu_operator.api.reasons import Reason
from opengpu_operator.api.task import EnvVar, Resources, Url
from opengpu_operator.api.translation import Service, Translation
from opengpu_operator.desired import (
    agent,
    aliases,
    containers,
    files,
    files_access,
    labels,
    network,
    placement,
    plan,
    podrules,
    pods,
    resources,
    routes,
    service,
    volumes,
    workload,
)
from opengpu_operator.desired.aliases import Aliases
from opengpu_operator.desired.context import JobContext
from opengpu_operator.desired.plan import Plan, Unit
from opengpu_operator.desired.problems import Problems
from opengpu_operator.desired.resources import Needs
from opengpu_operator.desired.volumes import Storage
from opengpu_operator.settings import Settings

Object = dict[str, Any]

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class JobObjects:
    """The objects of a job, each with its spec hash, in the order in which they are best created."""

    retained: list[Object]
    """Storage of owners: made if it isn't there, never changed, belongs to no task."""
    source_objects: list[Object]
    """Volumes that the source owns: made if they aren't there, go with the source."""
    objects: list[Object]
    """All else: belongs to the task and goes with it."""
    urls: list[Url]
    main: str
    """The service whose end is the end of a job without a call."""
    components: Mapping[str, str]
    """By service of the file: the component label (and DNS name) of the pods in which it runs."""
    aliases: Aliases | None
    """What serves the pods' other names once they have addresses."""
    gated: dict[str, list[str]]
    """By component: the scheduling gates that its pods are made with, where there are any."""
    gpus: dict[str, int]
    """By resource name: how many GPUs the job holds when all of it runs."""
    findings: list[Finding]
    """What making the job changed or chose, besides the findings of the translation."""

    @property
    def routed(self) -> bool:
        """Whether ports have URLs; without a domain none has."""
        return bool(self.urls)

    @property
    def everything(self) -> list[Object]:
        """Every object, in the order in which they are best created."""
        return [*self.retained, *self.source_objects, *self.objects]


def build(translation: Translation, context: JobContext, settings: Settings) -> JobObjects:
    """Return the objects of a job.

    Raises :class:`Invalid` with everything that is wrong with the task's spec or with the file. The same
    input gives the same objects, byte for byte.
    """
    problems = Problems()
    _check_translation(translation)
    planned = plan.make(translation, context, problems)
    overrides = _Overrides.of(translation, context, planned.main, problems)
    gpux = _gpux_services(translation, context, planned, problems)
    volumes.check(context, settings, problems)
    storage = volumes.storage(translation, context, settings, gpux=gpux)
    needs = {
        member.name: resources.needs(
            member,
            overrides.resources.get(member.name),
            environment=context.environment,
            settings=settings,
            problems=problems,
        )
        for member in translation.services
    }
    chosen = routes.choose(planned, context, settings.routes, problems=problems)
    built = _Workloads(
        translation=translation,
        context=context,
        settings=settings,
        planned=planned,
        overrides=overrides,
        needs=needs,
        storage=storage,
        gpux=gpux,
        problems=problems,
    )
    workloads = built.build()
    problems.stop()
    token = agent.secret(context) if gpux else None
    policies = network.build(
        [unit.root for unit in planned.units],
        context,
        settings,
        resolvers=pods.resolvers(context, settings),
        routed_ports=chosen.ports if settings.routes.domain is not None else (),
        closed_worker=context.call and translation.worker is not None,
    )
    claims = [*((storage.job,) if storage.job else ()), *storage.task_scope.values()]
    owned = [
        *(claim.obj for claim in claims),
        *files.objects(translation, context),
        *([token] if token is not None else ()),
        *files_access.objects(context),
        service.build(context),
        *(policies if settings.network.enabled else ()),
        *workloads,
        *routes.objects(chosen, context, settings.routes),
    ]
    found = JobObjects(
        retained=[labels.stamped(storage.user.obj)] if storage.user else [],
        source_objects=[labels.stamped(claim.obj) for claim in storage.source_scope.values()],
        objects=[labels.stamped(obj) for obj in owned],
        urls=routes.urls(chosen, context, settings.routes),
        main=planned.main.name,
        components={member.name: unit.component for unit in planned.units for member in unit.members},
        aliases=aliases.build(planned.units, context),
        gated=built.gated,
        gpus=_gpu_counts(planned, needs),
        findings=[
            *planned.findings,
            *storage.findings,
            *chosen.findings,
            *built.findings,
        ],
    )
    _check_names(found.everything)
    return found


def _check_translation(translation: Translation) -> None:
    """Refuse a translation that isn't fit to be built from, whoever made it."""
    errors = [finding.message for finding in translation.findings if finding.severity is Severity.ERROR]
    services = translation.services
    if errors or not services:
        raise Invalid(Reason.COMPOSE_REFUSED, "; ".join(errors) or "the file has no services")
    problems = Problems()
    for field in ("name", "dns_name"):
        values = [getattr(item, field) for item in services]
        for value in sorted({value for value in values if values.count(value) > 1}):
            problems.file(f"two services go by {value!r}")
    for item in services:
        if not _DNS_LABEL.fullmatch(item.dns_name) or item.dns_name == AGENT_CONTAINER:
            problems.file(f"services.{item.name}: {item.dns_name!r} can't be a service's name in DNS")
        for mount in item.mounts:
            if mount.volume not in translation.volumes:
                problems.file(f"services.{item.name}.volumes names {mount.volume!r}, which isn't there")
        for file in item.files:
            if file.file not in translation.files:
                problems.file(f"services.{item.name} names the file {file.file!r}, which isn't there")
    problems.stop()


@dataclass(frozen=True, kw_only=True)
class _Overrides:
    """What the task changes in the file's services."""

    env: Mapping[str, tuple[EnvVar, ...]]
    resources: Mapping[str, Resources]

    @classmethod
    def of(
        cls, translation: Translation, context: JobContext, main: Service, problems: Problems
    ) -> _Overrides:
        spec = context.spec
        target = translation.worker if context.call and translation.worker is not None else main.name
        env: dict[str, tuple[EnvVar, ...]] = {target: tuple(spec.env or ())}
        needed: dict[str, Resources] = {} if spec.resources is None else {target: spec.resources}
        known = [item.name for item in translation.services]
        for name, override in (spec.services or {}).items():
            if name not in known:
                problems.spec("services", f"the file has no service {name!r}, only {', '.join(known)}")
                continue
            env[name] = (*env.get(name, ()), *(override.env or ()))
            if override.resources is not None:
                needed[name] = _merged(needed.get(name), override.resources)
        return cls(env=env, resources=needed)


def _merged(general: Resources | None, special: Resources) -> Resources:
    """Return ``special`` with what it leaves open taken from ``general``."""
    if general is None:
        return special
    return Resources.model_validate({**general.model_dump(), **special.model_dump(exclude_none=True)})


def _gpux_services(
    translation: Translation, context: JobContext, planned: Plan, problems: Problems
) -> Collection[str]:
    """Return the services that get GPUX's paths, in the file's order."""
    known = [item.name for item in translation.services]
    listed = (context.spec.storage.gpux_services if context.spec.storage else None) or []
    for name in listed:
        if name not in known:
            problems.spec("storage", f"gpuxServices names {name!r}; the file has {', '.join(known)}")
    wanted = {planned.main.name, *listed}
    if context.call and translation.worker is not None:
        wanted.add(translation.worker)
    return {
        item.name: None
        for item in translation.services
        if item.name in wanted or any(volumes.is_gpux_path(mount.path) for mount in item.mounts)
    }


@dataclass(kw_only=True)
class _Workloads:
    """The workloads of a job, with what comes off while they are built."""

    translation: Translation
    context: JobContext
    settings: Settings
    planned: Plan
    overrides: _Overrides
    needs: Mapping[str, Needs]
    storage: Storage
    gpux: Collection[str]
    problems: Problems

    def __post_init__(self) -> None:
        self.findings: list[Finding] = []
        self.gated: dict[str, list[str]] = {}

    def build(self) -> list[Object]:
        """Return a workload per unit, in the file's order."""
        units = self.planned.units
        gpus = {
            unit.component: [need.gpu for member in unit.members if (need := self.needs[member.name]).gpu]
            for unit in units
        }
        claims = {unit.component: self._claims(unit) for unit in units}
        placements, findings = placement.place(
            units,
            claims={
                component: [name for name, claim in found.items() if claim.one_node]
                for component, found in claims.items()
            },
            demands={unit.component: self._demand(unit) for unit in units},
            gpus=gpus,
        )
        self.findings += findings
        selectors = {unit.component: labels.selector(self.context, unit.component) for unit in units}
        made = []
        for unit in units:
            where = placements[unit.component]
            if gates := pods.gates(unit, where):
                self.gated[unit.component] = gates
            template = self._template(unit, where, selectors, claims[unit.component])
            made.append(
                workload.build(
                    unit,
                    template,
                    context=self.context,
                    gpu=bool(gpus[unit.component]),
                    claims=bool(claims[unit.component]),
                )
            )
        return made

    def _claims(self, unit: Unit) -> dict[str, volumes.Claim]:
        found: dict[str, volumes.Claim] = {}
        for member in unit.members:
            own = volumes.claims_of(member, self.storage, gpux=member.name in self.gpux)
            found |= {claim.name: claim for claim in own}
        return found

    def _demand(self, unit: Unit) -> placement.Demand:
        demands = [self.needs[member.name].demand for member in unit.members]
        gpus, memory, cpu = zip(*demands, strict=True)
        return sum(gpus), sum(memory, Decimal()), sum(cpu, Decimal())

    def _template(
        self,
        unit: Unit,
        where: placement.Placement,
        selectors: Mapping[str, Mapping[str, str]],
        claims: Mapping[str, volumes.Claim],
    ) -> Object:
        settings, context = self.settings, self.context
        with_agent = any(member.name in self.gpux for member in unit.members)
        calls = context.call and any(member.name == self.translation.worker for member in unit.members)
        parts = pods.Parts(
            containers=[self._container(member) for member in unit.members],
            volumes=[
                *(claim.pod_volume() for claim in claims.values()),
                *files.volumes(unit.members, self.translation, context),
            ],
            agent=(
                agent.container(
                    context,
                    settings,
                    calls=calls,
                    storage=volumes.agent_mounts(self.storage) if context.files is not None else (),
                )
                if with_agent
                else None
            ),
            placement=where,
            selectors=selectors,
        )
        template, findings = pods.template(
            unit, parts, context=context, settings=settings, problems=self.problems
        )
        self.findings += findings
        for problem in podrules.violations(template["spec"], profile=settings.pods.profile):
            self.problems.file(f"{unit.component}: {problem}")
        return template

    def _container(self, member: Service) -> Object:
        gpux = member.name in self.gpux
        env = self.overrides.env.get(member.name, ())
        extras = containers.Extras(
            needs=self.needs[member.name],
            env=env,
            mounts=(
                *files.mounts(member, self.translation),
                *volumes.mounts(member, self.storage, gpux=gpux),
            ),
            gpux=gpux,
        )
        obj, findings = containers.build(member, extras, pods=self.settings.pods, problems=self.problems)
        self.findings += [*findings, *containers.stripped_findings(member, env)]
        return obj


def _gpu_counts(planned: Plan, needs: Mapping[str, Needs]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for unit in planned.units:
        for member in unit.members:
            gpu = needs[member.name].gpu
            if gpu is not None and unit.root.replicas:
                name = gpu.gpu_class.resource_name
                counts[name] = counts.get(name, 0) + gpu.count * unit.root.replicas
    return counts


def _check_names(objects: list[Object]) -> None:
    """Refuse a file in which two services were named so that their objects' names meet."""
    seen: set[tuple[str, str]] = set()
    for obj in objects:
        key = obj["kind"], obj["metadata"]["name"]
        if key in seen:
            raise Invalid(Reason.COMPOSE_REFUSED, f"two services would both make the {key[0]} {key[1]}")
        seen.add(key)
