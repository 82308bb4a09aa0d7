"""What a source's status says of its files, and what goes to the store. API server, translator and store are dicts."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from typing import Any, cast

import pytest

from gpux.client import StoreClient, StoreUnavailable
from opengpu_operator.api.errors import Transient
from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.labels import RECONCILE_REQUESTED_AT, SOURCE_IN_USE_FINALIZER
from opengpu_operator.api.source import Environment, EnvironmentStatus, SourceStatus
from opengpu_operator.api.translation import Port, TranslateOptions, Translation
from opengpu_operator.compose.client import Fetched, FetchError, TranslatorClient
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import CONTROLLER_REVISION, SOURCE, Kind
from opengpu_operator.reconcile.reports import FIRST_DELAY, Reports
from opengpu_operator.reconcile.source import RETRY_SECONDS, SourceReconciler
from opengpu_operator.reconcile.translations import Translations
from opengpu_operator.settings import Settings
from tests.support.jobs import service, translation
from tests.unit.reconcile.builders import at
from tests.unit.reconcile.test_reports import Clock, Store

Object = dict[str, Any]

WEB = Port(container=8080, published=8080)
#: Longer than the store is left alone after its first failure, shorter than a file is.
LATER = FIRST_DELAY.total_seconds() + 1


def remarks(count: int, severity: Severity = Severity.INFO) -> list[Finding]:
    return [
        Finding(severity=severity, reason="KeyIgnored", path=f"x{number}", message="M.", line=number + 1)
        for number in range(count)
    ]


def app(*findings: Finding, **fields: Any) -> Translation:
    return translation(service("app", **fields), findings=list(findings))


def refusal(*findings: Finding) -> Translation:
    return translation(findings=[*findings, *remarks(1, Severity.ERROR)])


class Cluster:
    """The part of a Gateway that a source needs, and what was written through it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._versions = itertools.count(1)
        self.source: Object = {}
        self.revisions: dict[str, Object] = {}
        self.statuses: list[Object] = []
        self.reads: list[str] = []

    def apply(self, source: Object) -> None:
        source["metadata"]["resourceVersion"] = str(next(self._versions))
        self.source = source
        self._cache.put(SOURCE, source)

    async def replace_status(self, kind: Kind, *_: object, **__: object) -> Object:
        assert kind == SOURCE
        status = cast("Object", _[2])
        self.statuses.append(json.loads(json.dumps(status)))
        self.source = {**self.source, "status": status}
        self.source["metadata"] = {**self.source["metadata"], "resourceVersion": str(next(self._versions))}
        return self.source

    async def create(self, obj: Object) -> Object:
        metadata = {"uid": obj["metadata"]["name"], "resourceVersion": str(next(self._versions))}
        stored = {**obj, "metadata": {**obj["metadata"], **metadata}}
        self.revisions[obj["metadata"]["name"]] = stored
        return stored

    async def get(self, kind: Kind, _: str, name: str) -> Object | None:
        assert kind == CONTROLLER_REVISION
        self.reads.append(name)
        return self.revisions.get(name)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        self.revisions.pop(name)
        self._cache.drop(kind, namespace, name, uid)


class Translator:
    """A TranslatorClient: what each URL serves, by its last word, becomes what is said here."""

    def __init__(self) -> None:
        self.files: dict[str, Translation | FetchError] = {}
        self.fetched: list[str] = []
        self.asked: list[TranslateOptions] = []

    async def fetch(self, url: str, *, sha256: str | None = None) -> Fetched:
        del sha256
        name = url.rpartition("/")[2]
        self.fetched.append(name)
        found = self.files[name]
        if isinstance(found, FetchError):
            raise found
        return Fetched(text=name, digest=found.digest)

    async def translate(self, text: str, options: TranslateOptions) -> Translation:
        self.asked.append(options)
        found = self.files[text]
        assert isinstance(found, Translation)
        return found.model_copy(update={"environment": options.environment}, deep=True)


class NoEvents:
    async def event(self, *_: object, **__: object) -> None:
        return


class World:
    """A reconciler, which a restart makes anew, in a world that it doesn't."""

    def __init__(self, **files: Translation | FetchError) -> None:
        self.clock, self.store, self.translator = Clock(), Store(), Translator()
        self.translator.files.update(files)
        self.cache = Cache()
        self.cluster = Cluster(self.cache)
        self.cluster.apply(
            {
                "metadata": {
                    "name": "ocr",
                    "namespace": "team",
                    "uid": "s",
                    "generation": 1,
                    "creationTimestamp": at(-100),
                    "finalizers": [SOURCE_IN_USE_FINALIZER],
                },
                "spec": {
                    "imageEnvs": {name: {"composeUrl": f"https://example.com/{name}"} for name in files}
                },
            }
        )
        self.restart()

    def restart(self) -> None:
        gateway = cast("Gateway", self.cluster)
        self.reconciler = SourceReconciler(
            settings=Settings(),
            gateway=gateway,
            cache=self.cache,
            recorder=cast("Recorder", NoEvents()),
            translator=cast("TranslatorClient", self.translator),
            translations=Translations(gateway=gateway, cache=self.cache),
            reports=Reports(store=cast("StoreClient", self.store), clock=self.clock),
            changed=lambda *_: None,
            revision_of=lambda _: None,
            clock=self.clock,
        )

    def reconcile(self) -> float | None:
        return asyncio.run(self.reconciler.reconcile("team", "ocr"))

    def change(self, **annotations: str) -> None:
        """Have somebody ask for a fresh look."""
        metadata = {**self.cluster.source["metadata"], "annotations": annotations}
        self.cluster.apply({**self.cluster.source, "metadata": metadata})

    def refresh(self) -> None:
        """Let the time pass after which files are looked at again, and look at them."""
        self.clock.passes(Settings().sources.refresh_seconds)
        self.reconcile()

    @property
    def status(self) -> SourceStatus:
        return SourceStatus.model_validate(self.cluster.source["status"])

    def entry(self, name: str) -> EnvironmentStatus:
        return next(entry for entry in self.status.environments if entry.name == name)

    def reports(self) -> list[Object]:
        """What was put into the store."""
        return [json.loads(data) for _, data in self.store.files]


def differences(entry: EnvironmentStatus) -> list[tuple[str, str]]:
    return [
        (finding.severity.value, finding.path)
        for finding in entry.findings
        if finding.reason == "EnvironmentsDiffer"
    ]


# --- what a translation depends on --------------------------------------------------------------------------------


def test_profiles_are_those_of_the_file() -> None:
    world = World(cpu=app(), nvidia=app())
    source = world.cluster.source
    source["spec"]["imageEnvs"]["nvidia"]["profiles"] = ["gpu", "ui"]
    world.cluster.apply(source)
    world.reconcile()
    assert [options.profiles for options in world.translator.asked] == [[], ["gpu", "ui"]]


# --- the whole report ---------------------------------------------------------------------------------------------


def test_the_whole_report_is_in_the_store_and_the_gravest_in_the_status() -> None:
    findings = [*remarks(70), *remarks(2, Severity.WARNING)]
    world = World(cpu=app(*findings))
    world.reconcile()
    entry = world.entry("cpu")
    assert [finding.severity.value for finding in entry.findings] == ["warning"] * 2 + ["info"] * 62
    assert entry.findings_count == 72
    ((namespace, data),) = world.store.files
    assert namespace == "team"
    report = json.loads(data)
    assert [report["environment"], report["digest"], report["refused"]] == ["cpu", entry.digest, False]
    assert [Finding.model_validate(finding) for finding in report["findings"]] == findings
    assert entry.report is not None
    assert entry.report.sha1 == hashlib.sha1(data).hexdigest()
    assert entry.report.size == len(data)
    # In the same write as all else.
    assert len(world.cluster.statuses) == 1


def test_a_refused_file_has_its_report_too() -> None:
    world = World(cpu=refusal(*remarks(70)))
    world.reconcile()
    assert world.entry("cpu").report is not None
    assert (world.entry("cpu").ready, world.entry("cpu").findings_count) == (False, 71)
    (report,) = world.reports()
    assert (report["refused"], len(report["findings"])) == (True, 71)
    assert len(world.cluster.statuses) == 1


def test_nothing_found_is_nothing_to_report() -> None:
    world = World(cpu=app())
    assert world.reconcile() == pytest.approx(Settings().sources.refresh_seconds)
    assert world.store.tried == 0
    assert world.entry("cpu").report is None


def test_the_same_report_is_put_once() -> None:
    world = World(cpu=app(*remarks(1)), nvidia=refusal())
    world.reconcile()
    before = world.status.environments
    world.refresh()
    world.restart()
    world.refresh()
    assert world.store.tried == 2
    assert world.status.environments == before
    world.translator.files["cpu"] = app(*remarks(2))
    world.refresh()
    assert world.store.tried == 3
    assert world.entry("cpu").report != before[0].report
    world.translator.files["cpu"] = app()
    world.refresh()
    assert world.entry("cpu").report is None
    assert world.entry("cpu").findings_count == 0


def test_who_asks_for_a_fresh_look_gets_lost_reports_back() -> None:
    world = World(cpu=app(*remarks(1)))
    world.reconcile()
    world.store.files.clear()
    world.change(**{RECONCILE_REQUESTED_AT: "now"})
    world.reconcile()
    assert len(world.reports()) == 1


# --- a store that is away -----------------------------------------------------------------------------------------


def test_a_translation_doesnt_wait_for_the_store() -> None:
    world = World(cpu=app(*remarks(1)))
    world.store.fails = StoreUnavailable("away")
    assert world.reconcile() == RETRY_SECONDS
    entry = world.entry("cpu")
    assert (entry.ready, entry.findings_count, entry.report) == (True, 1, None)
    assert world.status.offered == "cpu"


def test_while_the_store_is_left_alone_nothing_is_read_for_it() -> None:
    world = World(cpu=app(*remarks(1)))
    world.store.fails = StoreUnavailable("away")
    world.reconcile()
    world.reconciler._translations._remembered.clear()
    world.reconcile()
    assert world.cluster.reads == []


@pytest.mark.parametrize("restarted", [False, True])
def test_the_report_is_stored_once_the_store_is_back(restarted: bool) -> None:
    world = World(cpu=app(*remarks(70)), nvidia=app(*remarks(1), ports=[WEB]))
    world.store.fails = StoreUnavailable("away")
    world.reconcile()
    world.store.fails = None
    if restarted:
        world.restart()
    world.clock.passes(LATER)
    again = world.reconcile()
    assert len(world.cluster.statuses) == 2
    assert [len(report["findings"]) for report in world.reports()] == [70, 2]
    assert all(entry.report is not None for entry in world.status.environments)
    # From what is kept of the files, not from the strangers who serve them.
    assert world.translator.fetched == ["cpu", "nvidia"]
    assert again == pytest.approx(Settings().sources.refresh_seconds - LATER)
    world.restart()
    world.reconcile()
    assert (len(world.cluster.statuses), world.store.tried) == (2, 3)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_refused_file_is_looked_at_again_for_its_report(restarted: bool) -> None:
    """Of it, nothing but the status is kept."""
    world = World(cpu=refusal(*remarks(70)))
    world.store.fails = StoreUnavailable("away")
    assert world.reconcile() == RETRY_SECONDS
    assert world.entry("cpu").report is None
    world.store.fails = None
    if restarted:
        world.restart()
    world.clock.passes(LATER)
    assert world.reconcile() is None
    assert len(world.reports()[0]["findings"]) == 71
    assert world.entry("cpu").report is not None
    world.reconcile()
    assert world.translator.fetched == ["cpu", "cpu"]


@pytest.mark.parametrize("file", [app(*remarks(1)), refusal()], ids=["ready", "refused"])
def test_a_store_that_stays_away_costs_no_writes_and_ever_fewer_tries(file: Translation) -> None:
    world = World(cpu=file)
    world.store.fails = StoreUnavailable("away")
    passed = 0.0
    while passed < Settings().sources.refresh_seconds - 600:
        again = world.reconcile()
        assert again is not None
        assert again >= RETRY_SECONDS
        # Whatever else has it looked at in between changes nothing.
        assert world.reconcile() == again
        passed += again
        world.clock.passes(again)
    assert world.store.tried <= 10
    environments = [status["environments"] for status in world.cluster.statuses]
    assert all(entry == environments[0] for entry in environments)
    if file.services:
        assert len(environments) == 1
        assert world.translator.fetched == ["cpu"]
    else:
        assert len(world.translator.fetched) == world.store.tried


def test_a_transient_failure_beside_it_is_still_raised() -> None:
    world = World(cpu=FetchError("FetchFailed", "gone", transient=True), amd=refusal())
    world.store.fails = StoreUnavailable("away")
    with pytest.raises(Transient):
        world.reconcile()
    assert len(world.cluster.statuses) == 1
    assert world.entry("amd").findings_count == 1


# --- differences between the files --------------------------------------------------------------------------------


def test_differences_are_findings_of_the_file_that_differs() -> None:
    world = World(cpu=app(*remarks(1)), nvidia=app(ports=[WEB]), amd=app())
    world.reconcile()
    warning = ("warning", "services.app.ports")
    assert [differences(entry) for entry in world.status.environments] == [[], [warning], []]
    assert world.entry("nvidia").findings_count == 1
    assert world.status.offered == "cpu,nvidia,amd"
    (_, report) = world.reports()
    assert [finding["reason"] for finding in report["findings"]] == ["EnvironmentsDiffer"]
    # The translation itself, which tasks run, knows nothing of the other files.
    (kept,) = (item for name, item in world.cluster.revisions.items() if "nvidia" in name)
    assert kept["data"]["findings"] == []


@pytest.mark.parametrize("gone", ["cpu", "nvidia"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_file_that_cant_be_fetched_for_a_while_changes_no_finding(gone: str, restarted: bool) -> None:
    world = World(cpu=app(*remarks(70)), nvidia=app(ports=[WEB]))
    world.reconcile()
    before = world.status.environments
    file = world.translator.files[gone]
    world.translator.files[gone] = FetchError("FetchFailed", "away", transient=True)
    if restarted:
        world.restart()
    world.refresh()
    assert world.status.environments == before
    assert len(world.cluster.reads) == int(restarted)
    world.translator.files[gone] = file
    world.reconcile()
    assert world.status.environments == before
    assert world.store.tried == 2


def test_a_file_that_is_refused_is_compared_with_nothing() -> None:
    world = World(cpu=refusal(), nvidia=app(ports=[WEB]), amd=app())
    world.reconcile()
    assert [differences(entry) for entry in world.status.environments] == [
        [],
        [],
        [("warning", "services.app.ports")],
    ]
    world.translator.files["cpu"] = app()
    world.change(**{RECONCILE_REQUESTED_AT: "now"})
    world.reconcile()
    assert [bool(differences(entry)) for entry in world.status.environments] == [False, True, False]


def test_a_revision_that_somebody_deleted_leaves_the_status_as_it_was() -> None:
    """While the file can't be had either: nothing is known of it but what the status says."""
    world = World(cpu=app(*remarks(1)), nvidia=app(ports=[WEB]))
    world.reconcile()
    (name,) = (name for name in world.cluster.revisions if "cpu" in name)
    revision = world.cluster.revisions.pop(name)
    world.cache.drop(CONTROLLER_REVISION, "team", name, revision["metadata"]["uid"])
    world.restart()
    before = world.entry("cpu")
    world.translator.files["cpu"] = FetchError("FetchFailed", "away", transient=True)
    assert world.reconcile() == RETRY_SECONDS
    assert world.entry("cpu") == before
    assert Environment.CPU in {entry.name for entry in world.status.environments}
