"""What is done before the operator is removed, against an API server in memory."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from opengpu_operator.api.labels import SOURCE_IN_USE_FINALIZER
from opengpu_operator.kube.errors import ConflictError, Forbidden, NotFound, Unavailable
from opengpu_operator.kube.gateway import Listing
from opengpu_operator.kube.kinds import DEPLOYMENT, POD, SOURCE
from opengpu_operator.reconcile.uninstall import _ROUNDS, clear_finalizers, stop

OURS = SOURCE_IN_USE_FINALIZER
LABELS = {"app.kubernetes.io/instance": "og", "app.kubernetes.io/component": "operator"}


class Server:
    """Sources with resource versions, one Deployment with pods; every request can be made to fail first."""

    def __init__(self, sources=(), *, pods=(), deployment=True):
        self.sources: dict[str, dict[str, Any]] = {
            name: {"finalizers": list(finalizers), "version": 1} for name, finalizers in sources
        }
        self.pods = list(pods)
        self.deployment = deployment
        self.replicas = 1
        self.before_patch: Callable[[str], object] = lambda _name: None
        self.after_list: Callable[[], object] = lambda: None
        self.asleep: Callable[[], object] = lambda: None
        self.patched: Callable[[], object] = lambda: None
        self.patches: list[str] = []
        self.selectors: list[Any] = []
        self.said: list[str] = []
        self.slept = 0

    def say(self, text):
        self.said.append(text)

    async def sleep(self, _seconds):
        self.slept += 1
        self.asleep()

    async def get(self, kind, namespace, name):
        assert (kind, namespace, name) == (DEPLOYMENT, "system", "og-operator")
        return {"spec": {"selector": {"matchLabels": LABELS}}} if self.deployment else None

    async def list(self, kind, namespace=None, *, label_selector=None, metadata_only=False):
        assert metadata_only
        if kind == POD:
            self.selectors.append((namespace, label_selector))
            return Listing({"metadata": {"name": name}} for name in self.pods)
        assert (kind, namespace) == (SOURCE, None)
        found = Listing(copy.deepcopy(self._object(name)) for name in self.sources)
        self.after_list()
        return found

    def _object(self, name):
        source = self.sources[name]
        metadata = {"namespace": "team", "name": name, "resourceVersion": str(source["version"])}
        if source["finalizers"]:
            metadata["finalizers"] = source["finalizers"]
        return {"metadata": metadata}

    async def merge_patch(self, kind, namespace, name, patch, *, subresource=None):
        if kind == DEPLOYMENT:
            assert (namespace, name, subresource) == ("system", "og-operator", "scale")
            if self.deployment == "going":
                raise NotFound("gone")
            self.replicas = patch["spec"]["replicas"]
            return patch
        assert (kind, namespace, subresource) == (SOURCE, "team", None)
        self.before_patch(name)
        if name not in self.sources:
            raise NotFound("gone")
        source = self.sources[name]
        assert set(patch["metadata"]) == {"finalizers", "resourceVersion"}
        if patch["metadata"]["resourceVersion"] != str(source["version"]):
            raise ConflictError("the object has been modified")
        source["finalizers"] = patch["metadata"]["finalizers"]
        source["version"] += 1
        self.patches.append(name)
        stored = self._object(name)
        self.patched()
        return stored

    def finalizers(self):
        return {name: source["finalizers"] for name, source in self.sources.items()}

    async def clear(self):
        gateway: Any = self
        return await clear_finalizers(gateway, say=self.say, sleep=self.sleep)

    async def stop(self, *, timeout=10):
        gateway: Any = self
        return await stop(gateway, "system", "og-operator", timeout=timeout, say=self.say, sleep=self.sleep)


async def test_only_our_finalizer_goes():
    server = Server([("a", [OURS]), ("b", ["x/first", OURS, "x/last"]), ("c", ["x/other"]), ("d", [])])
    assert await server.clear() == 0
    assert server.finalizers() == {"a": [], "b": ["x/first", "x/last"], "c": ["x/other"], "d": []}
    assert sorted(server.patches) == ["a", "b"]
    assert server.said == [
        "team/a: cleared",
        "team/b: cleared",
        "2 finalizers were removed, 0 sources still have one",
    ]


async def test_a_source_that_changes_meanwhile_is_read_again():
    server = Server([("a", [OURS])])
    changes = iter([None, None])

    def change(name):
        if next(changes, "none left") is None:
            server.sources[name]["version"] += 1
            server.sources[name]["finalizers"] = [*server.sources[name]["finalizers"], "x/new"]

    server.before_patch = change
    assert await server.clear() == 0
    # What others added in between isn't lost.
    assert server.finalizers() == {"a": ["x/new", "x/new"]}


async def test_one_that_changes_all_the_time_is_given_up():
    server = Server([("a", [OURS]), ("b", [OURS])])

    def change(name):
        if name == "a":
            server.sources[name]["version"] += 1

    server.before_patch = change
    assert await server.clear() == 1
    assert server.finalizers() == {"a": [OURS], "b": []}
    assert "team/a: not cleared: it changes all the time" in server.said
    assert server.slept == _ROUNDS


async def test_one_that_is_put_back_is_not_cleared():
    server = Server([("a", [OURS])])

    def put_back():
        server.sources["a"] = {"finalizers": [OURS], "version": server.sources["a"]["version"] + 1}

    server.patched = put_back
    assert await server.clear() == 1
    assert any("is an operator running?" in line for line in server.said)


async def test_one_that_is_gone_needs_nothing():
    server = Server([("a", [OURS])])
    server.before_patch = server.sources.pop
    assert await server.clear() == 0


async def test_no_such_kind_is_fine():
    server = Server()

    def missing():
        raise NotFound("404 page not found")

    server.after_list = missing
    assert await server.clear() == 0


async def test_what_cannot_be_cleared_is_named_and_the_others_are_cleared():
    server = Server([("a", [OURS]), ("b", [OURS])])

    def refuse(name):
        if name == "a":
            raise Forbidden("no")

    server.before_patch = refuse
    assert await server.clear() == 1
    assert server.finalizers() == {"a": [OURS], "b": []}
    assert "team/a: not cleared: no" in server.said


async def test_no_server_is_an_error():
    server = Server([("a", [OURS])])

    def down():
        raise Unavailable("no answer")

    server.after_list = down
    with pytest.raises(Unavailable):
        await server.clear()


async def test_the_operator_is_stopped_once_its_pods_are_gone():
    server = Server(pods=["og-operator-1", "og-operator-2"])

    def one_goes():
        assert server.replicas == 0
        server.pods.pop()

    server.asleep = one_goes
    assert await server.stop()
    assert server.pods == []
    selector = "app.kubernetes.io/instance=og,app.kubernetes.io/component=operator"
    assert set(server.selectors) == {("system", selector)}
    assert server.said == ["Deployment system/og-operator is stopped"]


async def test_pods_that_stay_are_named():
    server = Server(pods=["og-operator-1"])
    assert not await server.stop(timeout=3)
    assert server.slept == 3
    assert server.said == ["still there after 3 s: og-operator-1"]


async def test_no_deployment_is_as_good_as_a_stopped_one():
    server = Server(deployment=False)
    assert await server.stop()
    assert server.replicas == 1
    assert server.said == ["there is no Deployment system/og-operator to stop"]


async def test_a_deployment_that_goes_meanwhile_still_has_pods():
    server = Server(pods=["og-operator-1"], deployment="going")
    assert not await server.stop(timeout=1)
    server.pods.clear()
    assert await server.stop()
