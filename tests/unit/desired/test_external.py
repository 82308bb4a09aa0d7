"""How far a task's files are open: what is asked for, by whom, and what the cluster allows."""

from __future__ import annotations

from typing import Any

import pytest

from opengpu_operator.api.task import External
from opengpu_operator.desired.context import FilesAccess
from opengpu_operator.desired.external import grant
from opengpu_operator.desired.job import JobObjects, build
from opengpu_operator.settings import Settings
from tests.support.jobs import context, service, settings, translation

URL = "https://files.example.org"
ACCESS = FilesAccess(URL, "v1.files.token")


def given(allowed: str = "Public", url: str | None = URL) -> Settings:
    return Settings.model_validate(
        {"store": {"externalUrl": url}, "storage": {"external": {"allowed": allowed}}}
    )


def granted(
    asked: str | None, annotation: str | None = None, *, owner: str | None = None, **rest: Any
) -> Any:
    spec: dict[str, Any] = {} if asked is None else {"storage": {"external": asked}}
    if owner is not None:
        spec["owner"] = owner
    return grant(context(spec=spec).spec, annotation=annotation, settings=given(**rest))


@pytest.mark.parametrize(
    ("asked", "allowed", "mode"),
    [
        (None, "Public", "Off"),
        ("Off", "Public", "Off"),
        ("Links", "Public", "Links"),
        ("Public", "Public", "Public"),
        ("Public", "Links", "Links"),
        ("Public", "Off", "Off"),
        ("Links", "Off", "Off"),
    ],
)
def test_the_cluster_caps_what_a_task_asks_for(asked: str | None, allowed: str, mode: str) -> None:
    found = granted(asked, allowed=allowed)
    assert found.mode == mode
    assert bool(found.why) == (asked not in {None, "Off", mode})
    if found.why:
        assert f"this cluster allows {allowed}" in found.why


def test_without_a_way_in_nothing_is_open() -> None:
    found = granted("Links", url=None)
    assert found.mode is External.OFF
    assert "store.external.enabled" in found.why


@pytest.mark.parametrize(
    ("annotation", "owner", "mode"),
    [
        ("alice=Links", "alice", "Links"),
        ("alice=Links", "bob", "Off"),
        ("alice=Links", None, "Off"),
        ("alice=Public, *=Links", "bob", "Links"),
        ("alice=Public *=Links", None, "Links"),
        ("a=b=Links", "a=b", "Off"),
        ("", "alice", "Off"),
    ],
)
def test_the_namespace_says_what_its_owners_get_by_default(
    annotation: str, owner: str | None, mode: str
) -> None:
    if owner == "a=b":
        owner = "a"
    assert granted(None, annotation, owner=owner).mode == mode


@pytest.mark.parametrize("annotation", ["Links", "alice=links", "alice=", "=Links", "alice = Links"])
def test_an_annotation_that_says_nothing_opens_nothing_and_is_named(annotation: str) -> None:
    found = granted(None, annotation, owner="alice")
    assert found.mode is External.OFF
    assert "opengpu.network/external-storage" in found.why


def test_a_task_that_says_so_itself_needs_no_annotation() -> None:
    assert granted("Off", "*=Public").mode is External.OFF
    assert granted("Links", "nonsense").mode is External.LINKS


def made(**fields: Any) -> JobObjects:
    return build(translation(service("main")), context(**fields), settings())


def agent_of(objects: JobObjects) -> dict[str, Any]:
    (workload,) = [obj for obj in objects.objects if obj["kind"] in {"Deployment", "Job"}]
    (agent,) = workload["spec"]["template"]["spec"]["initContainers"]
    found: dict[str, Any] = agent
    return found


def test_only_the_agent_of_an_open_task_reads_the_storage_and_none_writes_it() -> None:
    closed = agent_of(made(spec={"owner": "alice"}))
    paths = {mount["mountPath"] for mount in closed["volumeMounts"]}
    assert not paths & {"/gpux_job", "/gpux_usr"}
    opened = agent_of(made(spec={"owner": "alice"}, files=ACCESS))
    storage = {mount["mountPath"]: mount for mount in opened["volumeMounts"]}
    assert storage["/gpux_job"]["readOnly"] is storage["/gpux_usr"]["readOnly"] is True
    env = {entry["name"]: entry.get("value") for entry in opened["env"]}
    assert (env["GPUX_JOB_STORAGE"], env["GPUX_USER_STORAGE"]) == ("/gpux_job", "/gpux_usr")
    assert "GPUX_USER_STORAGE" not in {entry["name"] for entry in agent_of(made(files=ACCESS))["env"]}


def test_the_agent_of_an_open_task_asks_every_store() -> None:
    several = settings(store={"podsUrl": "http://pods.of.store:8080"})
    objects = build(translation(service("main")), context(files=ACCESS), several)
    assert {"name": "GPUX_STORES_URL", "value": "http://pods.of.store:8080"} in agent_of(objects)["env"]
    closed = build(translation(service("main")), context(), several)
    assert "GPUX_STORES_URL" not in str(closed.everything)
    # Nor can a file lead it elsewhere.
    alias = {"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["pods.of.store", "other"]}]}
    led = build(translation(service("main", pod=alias)), context(files=ACCESS), several)
    assert "pods.of.store'," not in str([obj for obj in led.objects if obj["kind"] != "Secret"]).replace(
        "http://pods.of.store:8080", ""
    )
    assert [finding.reason for finding in led.findings] == ["HostAliasDropped"]


def test_the_secret_is_the_tasks_and_the_only_place_of_its_token() -> None:
    objects = made(files=ACCESS)
    secret = next(obj for obj in objects.objects if obj["metadata"]["name"].endswith("-files"))
    assert secret["kind"] == "Secret"
    assert secret["stringData"] == {"url": URL, "token": ACCESS.token}
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "OpenGPUTask"
    others = [obj for obj in objects.everything if obj is not secret]
    assert ACCESS.token not in str(others)
    assert ACCESS.token not in repr(context(files=ACCESS))
    assert not [obj for obj in made().objects if obj["metadata"]["name"].endswith("-files")]
