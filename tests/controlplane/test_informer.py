"""kopf as an informer against a real API server: all is seen, only what is ours, and nothing is ever written."""

import asyncio
import contextlib

import kopf
import pytest

from opengpu_operator.api.labels import MANAGED_BY, MANAGER
from opengpu_operator.handlers import Informer, Scope, configure, login
from opengpu_operator.kube.cache import Cache
from opengpu_operator.kube.gateway import HttpGateway
from opengpu_operator.kube.kinds import CONFIG_MAP, NAMESPACE, SERVICE, TASK
from opengpu_operator.settings import NamespaceSettings, Settings

pytestmark = pytest.mark.controlplane


@pytest.fixture
async def gateway(kubeconfig):
    async with await HttpGateway.connect(kubeconfig=kubeconfig) as gateway:
        yield gateway


class Watching:
    """A cache that kopf feeds, and whoever waits for it to change."""

    def __init__(self, gateway, settings):
        self.cache = Cache()
        self.changed = asyncio.Event()
        self.informer = Informer(
            scope=Scope(settings), gateway=gateway, cache=self.cache, observe=self.observe
        )

    def observe(self, kind, type_, obj):
        metadata = obj["metadata"]
        if type_ == "DELETED":
            self.cache.drop(kind, metadata.get("namespace"), metadata["name"], metadata["uid"])
        else:
            self.cache.put(kind, obj)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(90):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def watching(gateway, settings):
    watching = Watching(gateway, settings)
    informer = watching.informer
    kopf_settings, registry = kopf.OperatorSettings(), kopf.OperatorRegistry()
    configure(kopf_settings, settings)
    login(registry, gateway.configuration)
    informer.register(registry)
    stop = asyncio.Event()
    running = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=kopf_settings,
            stop_flag=stop,
            standalone=True,
            clusterwide=informer.clusterwide,
            namespaces=settings.namespaces.watch,
        )
    )
    async with asyncio.timeout(180):
        await informer.wait()
    yield watching
    stop.set()
    async with asyncio.timeout(60):
        await running


def service(namespace, name, **labels):
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "None"}}


def task(namespace, name="a"):
    spec = {"sourceRef": {"name": "s"}, "functionName": "f", "data": {}}
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": TASK.api_version, "kind": TASK.kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("scoped", [False, True], ids=["cluster", "namespace"])
async def test_what_is_there_and_what_comes_is_seen_and_left_as_it_is(gateway, namespace, scoped):
    before = await gateway.create(task(namespace, "before"))
    await gateway.create(service(namespace, "ours-before", **{MANAGED_BY: MANAGER}))
    settings = Settings(namespaces=NamespaceSettings(watch=[namespace] if scoped else []))
    async with watching(gateway, settings) as seen:
        cache = seen.cache
        # Synced is synced: nothing has to be waited for.
        assert cache.get(TASK, namespace, "before")["metadata"]["uid"] == before["metadata"]["uid"]
        assert cache.get(SERVICE, namespace, "ours-before") is not None
        assert cache.get(NAMESPACE, None, namespace) is not None

        await gateway.create(service(namespace, "theirs"))
        await gateway.create(service(namespace, "ours", **{MANAGED_BY: MANAGER}))
        await gateway.create(task(namespace, "after"))
        await seen.until(
            lambda: cache.get(SERVICE, namespace, "ours") and cache.get(TASK, namespace, "after")
        )
        assert cache.get(SERVICE, namespace, "theirs") is None
        assert cache.get(CONFIG_MAP, namespace, "kube-root-ca.crt") is None

        await gateway.delete(TASK, namespace, "after")
        await seen.until(lambda: cache.get(TASK, namespace, "after") is None)
        assert seen.informer.behind == {}
    untouched = await gateway.get(TASK, namespace, "before")
    assert untouched["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_an_audit_finds_what_was_missed(gateway, namespace, monkeypatch):
    monkeypatch.setattr("opengpu_operator.handlers.informer._LAG_SECONDS", 0)
    stored = await gateway.create(task(namespace))
    settings = Settings(namespaces=NamespaceSettings(watch=[namespace]))
    async with watching(gateway, settings) as seen:
        ghost = {**stored, "metadata": {**stored["metadata"], "name": "ghost", "uid": "no-such-uid"}}
        seen.cache.put(TASK, ghost)
        await seen.informer.audit()
        assert seen.cache.get(TASK, namespace, "ghost") is None
        assert seen.cache.get(TASK, namespace, "a") is not None
        assert seen.informer.behind[TASK] == 1
        await seen.informer.audit()
        assert TASK not in seen.informer.behind
