"""What is made, adopted, mended and removed; above all after a crash between a write and what we hear of it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from opengpu_operator.api.errors import Conflict, Transient, Waiting
from opengpu_operator.api.labels import MANAGED_BY, MANAGER, SPEC_HASH, TASK_UID
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import Forbidden, NotFound, Unavailable, Unprocessable
from opengpu_operator.kube.gateway import Gateway
from opengpu_operator.kube.kinds import DEPLOYMENT, HTTP_ROUTE, INGRESS, JOB, POD, PVC, SECRET, SERVICE, Kind
from opengpu_operator.reconcile.children import Children
from tests.unit.reconcile.builders import at
from tests.unit.reconcile.fakes import ApiServer

UID = "task-1"
ALL = {("create", "Secret"): 1, ("create", "Service"): 1, ("create", "Deployment"): 1}


def child(kind: Kind, name: str = "j-1", *, owner: str = UID, made_from: str = "one", **parts: Any) -> Any:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": "team",
            "labels": {MANAGED_BY: MANAGER, TASK_UID: UID},
            "annotations": {SPEC_HASH: made_from},
            "ownerReferences": [{"kind": "OpenGPUTask", "name": "ask", "uid": owner, "controller": True}],
        },
        **parts,
    }


WANTED = [child(SECRET), child(SERVICE), child(DEPLOYMENT)]


def process(api: ApiServer, cache: Cache | None = None) -> Children:
    """Return the children as a process sees them that has just started, before its watches said anything."""
    return Children(gateway=cast("Gateway", api), cache=cache or Cache())


async def test_the_first_time_everything_is_made_and_nothing_read(api, cache):
    children = process(api, cache)
    assert await children.ensure(WANTED) == 3
    assert api.asked == ALL
    # Our own writes are known: neither a request nor an event is needed to see that nothing is missing.
    assert await children.ensure(WANTED) == 0
    assert api.asked == ALL


@pytest.mark.parametrize("kind", ["Secret", "Service", "Deployment"])
async def test_what_was_made_though_the_answer_was_lost_is_adopted(api, cache, kind):
    children = process(api, cache)
    api.lost = {("create", kind)}
    with pytest.raises(Unavailable):
        await children.ensure(WANTED)
    uids = {key: obj["metadata"]["uid"] for key, obj in api.objects.items()}
    await children.ensure(WANTED)
    assert len(api.objects) == 3
    after = {key: obj["metadata"]["uid"] for key, obj in api.objects.items()}
    assert uids.items() <= after.items(), "nothing that was made is made again"
    before = api.asked.copy()
    assert await children.ensure(WANTED) == 0
    assert api.asked == before


async def test_after_a_crash_what_is_there_is_taken_over_and_secrets_arent_read(api):
    await process(api).ensure(WANTED)
    versions = {key: obj["metadata"]["resourceVersion"] for key, obj in api.objects.items()}
    # The watches of the next process have shown nothing yet; ApiServer refuses to give a Secret away.
    await process(api).ensure(WANTED)
    assert versions == {key: obj["metadata"]["resourceVersion"] for key, obj in api.objects.items()}


async def test_once_the_workloads_are_seen_no_secret_is_made(api, cache):
    await process(api).ensure(WANTED)
    api.show(cache)
    assert await process(api, cache).ensure(WANTED) == 0
    assert api.asked["create", "Secret"] == 1


@pytest.mark.parametrize("kind", [SERVICE, DEPLOYMENT], ids=str)
@pytest.mark.parametrize(
    "stranger",
    [{"labels": {}}, {"ownerReferences": child(SERVICE, owner="task-0")["metadata"]["ownerReferences"]}],
    ids=["somebody's", "another task's"],
)
async def test_a_strangers_object_is_never_adopted(api, kind, stranger):
    theirs = child(kind)
    theirs["metadata"] |= stranger
    kept = api.put(kind, theirs)
    with pytest.raises(Conflict, match="belongs to somebody else"):
        await process(api).ensure([child(kind)])
    assert api.all(kind) == [kept]


async def test_an_object_that_comes_and_goes_is_tried_again(api, monkeypatch):
    api.put(SERVICE, child(SERVICE))

    async def gone(*_: object) -> None:
        return None

    monkeypatch.setattr(api, "get", gone)
    with pytest.raises(Transient, match="comes and goes"):
        await process(api).ensure([child(SERVICE)])


async def test_a_predecessor_that_is_still_on_its_way_out_is_waited_for(api):
    going = child(DEPLOYMENT)
    going["metadata"]["deletionTimestamp"] = at(0)
    api.put(DEPLOYMENT, going)
    with pytest.raises(Transient, match="still being deleted"):
        await process(api).ensure([child(DEPLOYMENT)])


async def test_no_workload_is_made_before_all_that_it_needs_and_one_failure_stops_no_other(api):
    api.refusals["create", "Service"] = Unavailable("etcd")
    with pytest.raises(Unavailable):
        await process(api).ensure(WANTED)
    assert [kind for kind, _, _ in api.objects] == [SECRET]


@pytest.mark.parametrize(
    ("refusal", "error", "reason"),
    [
        (Forbidden("exceeded quota: pods"), Transient, "QuotaExceeded"),
        (Forbidden("denied the request"), Transient, "Forbidden"),
        (Forbidden("because it is being terminated"), Waiting, "NamespaceTerminating"),
        (Unprocessable("spec: Invalid value"), Conflict, "SpecRefused"),
    ],
)
async def test_a_refusal_says_what_follows_from_it(api, refusal, error, reason):
    api.refusals["create", "Deployment"] = refusal
    with pytest.raises(error) as caught:
        await process(api).ensure([child(DEPLOYMENT)])
    assert caught.value.reason == reason


async def test_a_cluster_without_the_gateway_api_is_told_what_it_lacks(api):
    api.refusals["create", "HTTPRoute"] = NotFound("the server could not find the requested resource")
    with pytest.raises(Transient, match="install the Gateway API's definitions") as caught:
        await process(api).ensure([child(DEPLOYMENT), child(HTTP_ROUTE)])
    assert caught.value.reason == "GatewayApiMissing"
    assert api.all(DEPLOYMENT), "what can be made is made"


async def test_a_service_gets_the_ports_that_are_asked_for_later(api, cache):
    children = process(api, cache)
    await children.ensure([child(SERVICE, spec={"ports": [80]})])
    assert await children.ensure([child(SERVICE, made_from="two", spec={"ports": [80, 81]})]) == 1
    assert api.all(SERVICE)[0]["spec"] == {"ports": [80, 81]}


async def test_what_a_task_closes_is_closed_though_something_else_cant_be_made(api, cache):
    children = process(api, cache)
    await children.ensure([child(INGRESS, spec={"rules": ["open", "shut"]})])
    api.refusals["create", "Service"] = Forbidden("exceeded quota: services")
    with pytest.raises(Transient, match="quota"):
        await children.ensure([child(SERVICE), child(INGRESS, made_from="two", spec={"rules": ["open"]})])
    assert api.all(INGRESS)[0]["spec"] == {"rules": ["open"]}


async def test_what_differs_is_mended_where_that_may_be(api, cache):
    children = process(api, cache)
    await children.ensure([child(DEPLOYMENT, spec={"replicas": 1}), child(PVC, spec={"size": 1})])
    changed = [
        child(DEPLOYMENT, made_from="two", spec={"replicas": 0}),
        child(PVC, made_from="two", spec={"size": 2}),
    ]
    assert await children.ensure(changed) == 1
    assert await children.ensure(changed) == 0
    assert api.all(DEPLOYMENT)[0]["spec"] == {"replicas": 0}
    assert api.all(PVC)[0]["spec"] == {"size": 1}


async def test_a_job_is_suspended_in_place_and_otherwise_made_again(api, cache):
    children = process(api, cache)
    await children.ensure([child(JOB, spec={"suspend": False})])
    (first,) = api.all(JOB)
    assert await children.ensure([child(JOB, spec={"suspend": True})]) == 1
    (same,) = api.all(JOB)
    assert (same["metadata"]["uid"], same["spec"]) == (first["metadata"]["uid"], {"suspend": True})
    again = [child(JOB, made_from="two", spec={"suspend": False})]
    with pytest.raises(Transient, match="being replaced"):
        await children.ensure(again)
    # The watch tells of its end.
    cache.drop(JOB, "team", "j-1", first["metadata"]["uid"])
    assert await children.ensure(again) == 1
    assert api.all(JOB)[0]["metadata"]["uid"] != first["metadata"]["uid"]


async def test_the_end_takes_everything_once_and_its_secrets_too(api, cache):
    children = process(api, cache)
    await children.ensure(WANTED)
    pod = {"metadata": {"name": "p", "namespace": "team", "labels": {TASK_UID: UID}}, "spec": {}}
    cache.put(POD, api.put(POD, pod))
    assert await children.remove(namespace="team", task_uid=UID, secrets=["j-1", "j-2"]) == 3
    assert [kind for kind, _, _ in api.objects] == [POD], "pods go with their workloads"
    asked = api.asked.copy()
    assert await children.remove(namespace="team", task_uid=UID, secrets=["j-1", "j-2"]) == 0
    assert api.asked == asked


async def test_what_is_no_longer_asked_for_goes_and_volumes_stay(api, cache):
    children = process(api, cache)
    await children.ensure([*WANTED, child(PVC), child(DEPLOYMENT, "j-2")])
    await children.prune(UID, keep={(DEPLOYMENT, "team", "j-1")})
    assert {(kind.kind, name) for kind, _, name in api.objects} == {
        ("Secret", "j-1"),
        ("PersistentVolumeClaim", "j-1"),
        ("Deployment", "j-1"),
    }
