"""The gateway against a real API server: what it answers is what the code believes it answers."""

import asyncio
import time

import pytest

from opengpu_operator.api.labels import MANAGED_BY, MANAGER
from opengpu_operator.kube import gateway as module
from opengpu_operator.kube.errors import (
    AlreadyExists,
    ConflictError,
    Forbidden,
    Gone,
    NotFound,
    TooManyRequests,
    Unprocessable,
)
from opengpu_operator.kube.events import Recorder
from opengpu_operator.kube.gateway import HttpGateway
from opengpu_operator.kube.kinds import CONFIG_MAP, EVENT, NAMESPACE, POD, SERVICE, TASK, kind_of

pytestmark = pytest.mark.controlplane

LABELS = {MANAGED_BY: MANAGER}


@pytest.fixture
async def gateway(kubeconfig):
    async with await HttpGateway.connect(kubeconfig=kubeconfig) as gateway:
        yield gateway


def config_map(namespace, name="a", **data):
    metadata = {"namespace": namespace, "name": name, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def task(namespace, name="a"):
    metadata = {"namespace": namespace, "name": name}
    spec = {"sourceRef": {"name": "s"}, "functionName": "f", "data": {"x": None, "y": [1, {"z": None}]}}
    return {"apiVersion": TASK.api_version, "kind": TASK.kind, "metadata": metadata, "spec": spec}


async def test_an_object_from_creation_to_deletion(gateway, namespace):
    stored = await gateway.create(config_map(namespace, x="1"))
    assert kind_of(stored) is CONFIG_MAP
    assert stored["metadata"]["managedFields"][0]["manager"] == MANAGER
    patched = await gateway.merge_patch(CONFIG_MAP, namespace, "a", {"data": {"y": "2"}})
    assert patched["data"] == {"x": "1", "y": "2"}
    test = [{"op": "test", "path": "/data/x", "value": "1"}, {"op": "remove", "path": "/data/x"}]
    assert (await gateway.json_patch(CONFIG_MAP, namespace, "a", test))["data"] == {"y": "2"}
    with pytest.raises(Unprocessable):
        await gateway.json_patch(CONFIG_MAP, namespace, "a", test)
    with pytest.raises(ConflictError):
        await gateway.replace(patched)
    newest = await gateway.get(CONFIG_MAP, namespace, "a")
    assert (await gateway.replace({**newest, "data": {"z": "3"}}))["data"] == {"z": "3"}
    assert not await gateway.delete(CONFIG_MAP, namespace, "a", uid="0b5e6f0e-0000-0000-0000-000000000000")
    assert await gateway.delete(CONFIG_MAP, namespace, "a", uid=stored["metadata"]["uid"])
    assert not await gateway.delete(CONFIG_MAP, namespace, "a")
    assert await gateway.get(CONFIG_MAP, namespace, "a") is None


async def test_each_refusal_has_its_error(gateway, namespace):
    await gateway.create(config_map(namespace))
    with pytest.raises(AlreadyExists):
        await gateway.create(config_map(namespace))
    with pytest.raises(NotFound):
        await gateway.create(config_map("no-such-namespace"))
    with pytest.raises(NotFound):
        await gateway.merge_patch(CONFIG_MAP, namespace, "none", {})
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": "1-starts-badly"},
    }
    with pytest.raises(Unprocessable, match="1-starts-badly"):
        await gateway.create(service | {"spec": {"clusterIP": "None"}})
    assert await gateway.list(SERVICE, namespace) == []


async def test_a_status_is_written_whole_with_its_nulls_and_to_one_object_only(gateway, namespace):
    uid = (await gateway.create(task(namespace)))["metadata"]["uid"]
    conditions = [
        {
            "type": "Ready",
            "status": "False",
            "reason": "Pending",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ]
    answer = {"id": "1", "inline": {"nothing": None}}
    status = {"observedGeneration": 1, "conditions": conditions, "responses": [answer]}
    stored = await gateway.replace_status(TASK, namespace, "a", status, uid=uid)
    assert stored["status"]["responses"] == [answer]
    stored = await gateway.replace_status(TASK, namespace, "a", {"conditions": conditions}, uid=uid)
    assert "responses" not in stored["status"]
    assert stored["metadata"]["generation"] == 1
    with pytest.raises(Unprocessable):
        await gateway.replace_status(TASK, namespace, "a", status, uid="0b5e6f0e-0000-0000-0000-000000000000")


async def test_a_status_made_from_an_older_version_is_not_written(gateway, namespace):
    made = await gateway.create(task(namespace))
    uid, first = made["metadata"]["uid"], made["metadata"]["resourceVersion"]
    stored = await gateway.replace_status(TASK, namespace, "a", {"attempts": 1}, uid=uid, version=first)
    second = stored["metadata"]["resourceVersion"]
    assert second != first
    for status in ({"attempts": 1}, {"attempts": 2}):
        with pytest.raises(ConflictError):
            await gateway.replace_status(TASK, namespace, "a", status, uid=uid, version=first)
    found = await gateway.get(TASK, namespace, "a")
    assert (found["status"], found["metadata"]["resourceVersion"]) == (stored["status"], second)
    stored = await gateway.replace_status(TASK, namespace, "a", {"attempts": 2}, uid=uid, version=second)
    assert stored["status"]["attempts"] == 2


async def test_a_pod_is_evicted_and_no_namesake_of_it(gateway, namespace):
    spec = {"containers": [{"name": "main", "image": "example.com/main:1"}]}
    metadata = {"namespace": namespace, "name": "a"}
    made = await _pod(gateway, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert not await gateway.evict(namespace, "a", uid="0b5e6f0e-0000-0000-0000-000000000000")
    assert await gateway.get(POD, namespace, "a") is not None
    assert await gateway.evict(namespace, "a", uid=made["metadata"]["uid"])
    assert await gateway.get(POD, namespace, "a") is None
    assert not await gateway.evict(namespace, "a", uid=made["metadata"]["uid"])


async def _pod(gateway, manifest):
    """Make a pod as soon as the namespace has the account that pods run under."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return await gateway.create(manifest)
        except Forbidden:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)  # between two looks


async def test_a_list_of_many_pages_is_of_one_moment(gateway, namespace, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 3)
    for number in range(8):
        await gateway.create(config_map(namespace, f"c{number}"))
    found = await gateway.list(CONFIG_MAP, namespace, label_selector=f"{MANAGED_BY}={MANAGER}")
    assert sorted(obj["metadata"]["name"] for obj in found) == [f"c{number}" for number in range(8)]
    assert {kind_of(obj) for obj in found} == {CONFIG_MAP}
    newest = max(int(obj["metadata"]["resourceVersion"]) for obj in found)
    assert int(found.resource_version) >= newest


async def test_a_list_of_metadata_holds_nothing_else(gateway, namespace):
    await gateway.create(config_map(namespace, x="1" * 1000))
    await gateway.create(config_map(namespace, "kept"))
    (obj,) = await gateway.list(
        CONFIG_MAP,
        namespace,
        field_selector="metadata.name!=kept,metadata.name!=kube-root-ca.crt",
        metadata_only=True,
    )
    assert obj["metadata"]["name"] == "a"
    assert "data" not in obj


async def test_a_continuation_that_is_too_old_is_no_list(gateway, namespace):
    with pytest.raises((Gone, Unprocessable)):
        await gateway._json(
            "list", CONFIG_MAP, CONFIG_MAP.path(namespace), query={"limit": "1", "continue": "bm9uc2Vuc2U"}
        )


async def test_a_quota_and_the_end_of_a_namespace_are_told_apart(gateway, api, namespace):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}}
    quota["spec"] = {"hard": {"count/opengputasks.opengpu.network": "0"}}
    assert api.request("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", quota)[0] == 201

    async def create_until_refused():
        # The quota is counted a moment after it was made.
        async with asyncio.timeout(90):
            while True:
                await gateway.create(task(namespace))
                await gateway.delete(TASK, namespace, "a")

    with pytest.raises(Forbidden) as caught:
        await create_until_refused()
    assert caught.value.quota_exceeded
    assert not caught.value.namespace_terminating

    finalizer = config_map(namespace, "holds")
    finalizer["metadata"]["finalizers"] = ["opengpu.network/test"]
    await gateway.create(finalizer)
    assert await gateway.delete(NAMESPACE, None, namespace)
    with pytest.raises(Forbidden) as caught:
        await gateway.create(config_map(namespace, "late"))
    assert caught.value.namespace_terminating
    assert not caught.value.quota_exceeded
    await gateway.merge_patch(CONFIG_MAP, namespace, "holds", {"metadata": {"finalizers": None}})


async def test_the_log_of_a_pod_that_is_not_there(gateway, namespace):
    with pytest.raises(NotFound):
        await gateway.pod_log(namespace, "none", container="main", tail=1)
    assert await gateway.list(POD, namespace) == []


async def test_events_are_accepted_counted_and_found_by_their_object(gateway, namespace):
    uid = (await gateway.create(task(namespace)))["metadata"]["uid"]
    involved = {
        "apiVersion": TASK.api_version,
        "kind": TASK.kind,
        "namespace": namespace,
        "name": "a",
        "uid": uid,
    }
    for recorder in (Recorder(gateway=gateway), Recorder(gateway=gateway)):
        for _ in range(2):
            await recorder.event(
                involved, type_="Warning", reason="TermsRefused:payment", message="too little"
            )
    (event,) = await gateway.list(EVENT, namespace, field_selector=f"involvedObject.uid={uid}")
    assert (event["count"], event["reason"], event["type"]) == (4, "TermsRefused:payment", "Warning")


async def test_creations_are_cheap(gateway, api, namespace, measured):
    """The CPU of a request is held against that of the barest client in the same run, in turns with it."""
    count, rounds = 100, 3

    async def gathered(numbers):
        async def worker():
            for number in numbers:
                await gateway.create(config_map(namespace, f"c{number}"))

        try:
            await asyncio.gather(*(worker() for _ in range(16)))
        except TooManyRequests:
            pytest.fail("sixteen at once are too many for this API server")

    def bare(numbers):
        for number in numbers:
            path = f"/api/v1/namespaces/{namespace}/configmaps"
            assert api.request("POST", path, config_map(namespace, f"b{number}"))[0] == 201

    # The first ones open the connections.
    await gathered(iter(range(16)))
    bare([0])
    ours = theirs = 0.0
    for start in range(1000, 1000 + rounds * count, count):
        began = time.process_time()
        await gathered(iter(range(start, start + count)))
        between = time.process_time()
        bare(range(start, start + count))
        ours, theirs = ours + between - began, theirs + time.process_time() - between
    each = 1000 / (rounds * count)
    measured(f"a creation costs {ours * each:.2f} ms of CPU; of the barest client, {theirs * each:.2f} ms")
    # Generated clients take three to six times as much as either.
    assert ours < 2 * theirs
