"""When everything has been seen, and what is done about what wasn't."""

import asyncio
from typing import Any

import kopf
import pytest

from opengpu_operator.handlers import WATCHED, Informer, Scope
from opengpu_operator.handlers import informer as module
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.errors import NotFound, Unavailable
from opengpu_operator.kube.gateway import Listing
from opengpu_operator.kube.kinds import CONFIG_MAP, HTTP_ROUTE, NAMESPACE, NODE, POD, TASK
from opengpu_operator.settings import NamespaceSettings, Settings


class Cluster:
    """What there is, as a Gateway lists it."""

    def __init__(self):
        self.objects = {}
        self.version = 100
        self.failures = 0
        self.listed = []

    def add(self, kind, name, *, namespace="ns", version="50", uid=None):
        metadata = {"name": name, "uid": uid or f"{kind}-{name}", "resourceVersion": version}
        if kind.namespaced:
            metadata["namespace"] = namespace
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        self.objects[kind, metadata.get("namespace"), name] = obj
        return obj

    async def list(
        self, kind, namespace=None, *, label_selector=None, field_selector=None, metadata_only=False
    ):
        assert metadata_only
        self.listed.append((kind, namespace, label_selector, field_selector))
        if self.failures:
            self.failures -= 1
            raise Unavailable("no answer")
        found = [obj for (k, ns, _), obj in self.objects.items() if k == kind and namespace in {None, ns}]
        return Listing(found, resource_version=str(self.version))

    async def get(self, kind, namespace, name):
        return self.objects.get((kind, namespace, name))


class Seen:
    """Feeds a cache, as the operator's core does, and remembers."""

    def __init__(self, cache):
        self.cache = cache
        self.calls = []

    def __call__(self, kind, type_, obj):
        metadata = obj["metadata"]
        self.calls.append((kind, type_, metadata["name"]))
        if metadata["name"] == "odd":
            raise KeyError("spec")
        if type_ == "DELETED":
            self.cache.drop(kind, metadata.get("namespace"), metadata["name"], metadata["uid"])
        elif metadata.get("namespace") != "excluded":
            self.cache.put(kind, obj)


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def cache():
    return Cache()


@pytest.fixture
def seen(cache):
    return Seen(cache)


def make(cluster, cache, seen, settings=None):
    informer = Informer(scope=Scope(settings or Settings()), gateway=cluster, cache=cache, observe=seen)
    registry = kopf.OperatorRegistry()
    informer.register(registry)
    handlers: dict[Any, Any] = {}
    for handler in registry._watching.get_all_handlers():
        assert handler.selector is not None
        handlers[handler.selector.group, handler.selector.plural] = handler.fn

    async def event(kind, type_, obj):
        await handlers[kind.group, kind.plural](event={"type": type_, "object": obj}, memo=None)

    return informer, event


@pytest.fixture
def informer(cluster, cache, seen):
    return make(cluster, cache, seen)


async def test_every_watched_kind_has_a_handler(informer, cluster, seen):
    _, event = informer
    for kind in WATCHED:
        await event(kind, "ADDED", cluster.add(kind, "a"))
    assert seen.calls == [(kind, "ADDED", "a") for kind in WATCHED]


async def test_an_object_that_cannot_be_taken_over_stops_no_other(informer, cluster, seen, caplog):
    _, event = informer
    await event(POD, "ADDED", cluster.add(POD, "odd"))
    await event(POD, "ADDED", cluster.add(POD, "even"))
    assert len(seen.calls) == 2
    assert "Pod ns/odd" in caplog.text


async def test_an_empty_cluster_is_synced(informer):
    informer, _ = informer
    await asyncio.wait_for(informer.wait(), 5)
    assert informer.synced.is_set()


async def test_synced_means_that_all_of_every_kind_was_seen(informer, cluster):
    informer, event = informer
    first, second = cluster.add(TASK, "a"), cluster.add(POD, "b")
    waiting = asyncio.create_task(informer.wait())
    await event(TASK, None, first)
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await event(POD, None, second)
    await asyncio.wait_for(waiting, 5)
    assert informer.synced.is_set()


async def test_what_is_deleted_before_it_was_seen_is_not_waited_for(informer, cluster):
    informer, _ = informer
    cluster.add(TASK, "a")
    waiting = asyncio.create_task(informer.wait())
    await asyncio.sleep(0.05)
    cluster.objects.clear()
    await asyncio.wait_for(waiting, 5)


async def test_no_answer_is_waited_out(informer, cluster, caplog):
    informer, _ = informer
    cluster.failures = 2
    await asyncio.wait_for(informer.wait(), 5)
    assert "can't be listed" in caplog.text


async def test_the_same_is_asked_for_as_is_watched(informer, cluster):
    informer, _ = informer
    await informer.wait()
    asked = {kind: (labels, fields) for kind, _, labels, fields in cluster.listed}
    assert asked[POD] == ("app.kubernetes.io/managed-by=opengpu-operator", None)
    assert asked[TASK] == (None, None)
    assert asked[CONFIG_MAP][1].startswith("metadata.name!=kube-root-ca.crt")


async def test_only_the_watched_namespaces_are_asked_for(cluster, cache, seen):
    settings = Settings(namespaces=NamespaceSettings(watch=["team-*", "lab"]))
    for name in ("team-a", "lab", "default"):
        cluster.add(NAMESPACE, name)
    informer, event = make(cluster, cache, seen, settings)
    assert not informer.clusterwide
    for (kind, _, _), obj in list(cluster.objects.items()):
        await event(kind, None, obj)
    cluster.add(TASK, "elsewhere", namespace="default")
    await asyncio.wait_for(informer.wait(), 5)
    assert {namespace for kind, namespace, *_ in cluster.listed if kind == TASK} == {"team-a", "lab"}
    assert {namespace for kind, namespace, *_ in cluster.listed if kind == NODE} == {None}


@pytest.fixture
def no_lag(monkeypatch):
    monkeypatch.setattr(module, "_LAG_SECONDS", 0)


@pytest.mark.usefixtures("no_lag")
async def test_an_audit_of_what_is_all_known_finds_nothing(informer, cluster, seen):
    informer, event = informer
    await event(TASK, None, cluster.add(TASK, "a"))
    seen.calls.clear()
    await informer.audit()
    assert seen.calls == []
    assert informer.behind == {}


@pytest.mark.usefixtures("no_lag")
async def test_a_deletion_that_was_missed_is_made_good(informer, cluster, cache, seen):
    informer, event = informer
    await event(TASK, None, cluster.add(TASK, "a"))
    await event(TASK, "ADDED", cluster.add(TASK, "new", version="101"))
    cluster.objects.clear()
    await informer.audit()
    assert (TASK, "DELETED", "a") in seen.calls
    # Newer than the list: its deletion, if there was one, will be told of.
    assert cache.get(TASK, "ns", "new") is not None
    assert informer.behind == {TASK: 1}
    cluster.version = 100
    await informer.audit()
    assert informer.behind == {}


@pytest.mark.usefixtures("no_lag")
async def test_a_change_that_was_missed_is_made_good_and_counted(informer, cluster, cache, seen):
    informer, event = informer
    await event(TASK, None, cluster.add(TASK, "a"))
    for times in (1, 2):
        cluster.add(TASK, "a", version=str(60 + times))
        await informer.audit()
        assert cache.get(TASK, "ns", "a")["metadata"]["resourceVersion"] == str(60 + times)
        assert informer.behind == {TASK: times}
    assert seen.calls[-1] == (TASK, None, "a")


async def test_a_kind_that_the_cluster_lacks_is_said_and_not_waited_for(cache, caplog):
    class Bare(Cluster):
        async def list(self, kind, namespace=None, **options):
            if kind == HTTP_ROUTE:
                raise NotFound(
                    "the server could not find the requested resource", code=404, reason="NotFound"
                )
            return await super().list(kind, namespace, **options)

    gateway = {"name": "public", "namespace": "gateways"}
    settings = Settings.model_validate({"routes": {"kind": "HTTPRoute", "gateway": gateway}})
    bare: Any = Bare()
    informer = Informer(scope=Scope(settings), gateway=bare, cache=cache, observe=Seen(cache))
    await asyncio.wait_for(informer.wait(), 10)
    assert informer.synced.is_set()
    assert "httproutes can't be listed" in caplog.text


@pytest.mark.usefixtures("no_lag")
async def test_what_is_not_kept_was_not_missed(informer, cluster):
    informer, _ = informer
    cluster.add(TASK, "a", namespace="excluded")
    cluster.add(CONFIG_MAP, "of-a-user")
    await informer.audit()
    assert informer.behind == {}


@pytest.mark.usefixtures("no_lag")
async def test_an_audit_without_an_answer_concludes_nothing(informer, cluster, cache, caplog):
    informer, event = informer
    await event(TASK, None, cluster.add(TASK, "a"))
    cluster.objects.clear()
    cluster.failures = len(WATCHED)
    await informer.audit()
    assert cache.get(TASK, "ns", "a") is not None
    assert "can't be audited" in caplog.text
