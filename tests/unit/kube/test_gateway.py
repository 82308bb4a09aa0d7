"""What is sent, what is sent again and what isn't, against a server that answers as it is told.

The rest is in tests/controlplane, where a real API server answers.
"""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from opengpu_operator.kube import gateway as module
from opengpu_operator.kube.errors import (
    AlreadyExists,
    ConflictError,
    Forbidden,
    Gone,
    TooManyRequests,
    Unavailable,
)
from opengpu_operator.kube.gateway import HttpGateway, RetryBudget
from opengpu_operator.kube.kinds import CONFIG_MAP, DEPLOYMENT, POD, TASK

OBJECT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ns", "name": "a"}}


class Server:
    """Answers with what is in ``answers`` (the last one for ever), and remembers what was asked."""

    def __init__(self):
        self.answers: list[Any] = [(200, {}, {})]
        self.asked = []
        self.in_flight = self.most_in_flight = 0
        self.delay = 0.0
        self.url = ""

    async def handle(self, request):
        body = await request.read()
        self.asked.append((request.method, request.path_qs, dict(request.headers), body))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.in_flight -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "cut":
            request.transport.close()
            return web.Response()
        status, body, headers = answer
        return web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def server():
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
def slept():
    return []


@pytest.fixture
def seen():
    return []


@pytest.fixture
async def gateway(server, slept, seen):
    configuration = Configuration(host=server.url)
    configuration.api_key["BearerToken"] = "bearer secret\n"

    async def sleep(seconds):
        slept.append(seconds)

    async with HttpGateway(
        configuration=configuration,
        max_in_flight=4,
        rand=lambda: 0.0,
        sleep=sleep,
        observe=lambda *what: seen.append(what[:3]),
    ) as gateway:
        yield gateway


async def test_a_request_says_who_asks_and_who_manages(gateway, server, seen):
    server.answers = [(201, OBJECT, {})]
    assert await gateway.create(OBJECT) == OBJECT
    method, path, headers, body = server.asked[0]
    assert (method, path) == ("POST", "/api/v1/namespaces/ns/configmaps?fieldManager=opengpu-operator")
    assert headers["Authorization"] == "bearer secret"
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept-Encoding"] == "identity"
    assert json.loads(body) == OBJECT
    assert seen == [("create", 201, "ConfigMap")]


@pytest.mark.parametrize("verb", ["create", "get", "delete"])
async def test_what_was_turned_away_is_sent_again_when_the_server_says(gateway, server, slept, verb):
    server.answers = [(429, {"reason": "TooManyRequests"}, {"Retry-After": "2"}), (200, OBJECT, {})]
    await (gateway.create(OBJECT) if verb == "create" else getattr(gateway, verb)(CONFIG_MAP, "ns", "a"))
    assert len(server.asked) == 2
    assert slept == [2]


async def test_an_overload_is_passed_on_after_two_retries(gateway, server):
    server.answers = [(429, {"message": "slow down"}, {"Retry-After": "3"})]
    with pytest.raises(TooManyRequests) as caught:
        await gateway.create(OBJECT)
    assert caught.value.retry_after == 3
    assert len(server.asked) == 3


async def test_a_long_wait_is_the_queues_business(gateway, server, slept):
    server.answers = [(429, {}, {"Retry-After": "60"})]
    with pytest.raises(TooManyRequests) as caught:
        await gateway.create(OBJECT)
    assert caught.value.retry_after == 60
    assert (len(server.asked), slept) == (1, [])


async def test_retries_end_with_the_budget_and_come_back_with_success(gateway, server):
    server.answers = [(503, {}, {})]
    for _ in range(100):
        with pytest.raises(Unavailable):
            await gateway.get(CONFIG_MAP, "ns", "a")
    assert len(server.asked) == 100 + 20
    server.answers = [(404, {}, {}), (200, OBJECT, {})]
    for _ in range(11):
        await gateway.get(CONFIG_MAP, "ns", "a")
    server.asked.clear()
    server.answers = [(503, {}, {}), (200, OBJECT, {})]
    assert await gateway.get(CONFIG_MAP, "ns", "a") == OBJECT
    assert len(server.asked) == 2


def test_a_budget_never_saves_up_for_a_storm():
    budget = RetryBudget(share=0.5, most=2)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("answer", [(500, {"message": "etcd"}, {}), "cut"], ids=["500", "cut"])
async def test_a_creation_whose_answer_is_lost_is_not_sent_again(gateway, server, answer):
    server.answers = [answer]
    with pytest.raises(Unavailable):
        await gateway.create(OBJECT)
    assert len(server.asked) == 1


@pytest.mark.parametrize("answer", [(500, {"message": "etcd"}, {}), "cut"], ids=["500", "cut"])
async def test_what_may_be_repeated_is(gateway, server, answer):
    server.answers = [answer, (200, OBJECT, {})]
    assert await gateway.merge_patch(CONFIG_MAP, "ns", "a", {"data": {}}) == OBJECT
    assert server.asked[0][2]["Content-Type"] == "application/merge-patch+json"
    assert len(server.asked) == 2


async def test_no_server_is_unavailable_for_every_verb(unused_tcp_port, slept):
    async def sleep(seconds):
        slept.append(seconds)

    async with HttpGateway(
        configuration=Configuration(host=f"http://127.0.0.1:{unused_tcp_port}"), sleep=sleep
    ) as gateway:
        with pytest.raises(Unavailable, match="create ConfigMap"):
            await gateway.create(OBJECT)
    # Nothing was ever sent, so even a creation may be tried again.
    assert len(slept) == 2


async def test_no_answer_in_time_is_unavailable(gateway, server):
    server.delay = 0.5
    gateway._session._timeout = aiohttp.ClientTimeout(total=0.05)
    with pytest.raises(Unavailable, match="no answer in time"):
        await gateway.create(OBJECT)
    server.delay = 0


@pytest.mark.parametrize("body", ["<html>bad gateway</html>", [1], None])
async def test_an_error_that_is_no_status(gateway, server, body):
    server.answers = [(403, body, {"Retry-After": "soon"})]
    with pytest.raises(Forbidden):
        await gateway.get(CONFIG_MAP, "ns", "a")


async def test_requests_in_flight_are_bounded(gateway, server):
    server.delay = 0.02
    await asyncio.gather(*(gateway.get(CONFIG_MAP, "ns", str(number)) for number in range(20)))
    assert server.most_in_flight == 4


async def test_a_list_is_read_to_its_end(gateway, server):
    server.answers = [
        (
            200,
            {"metadata": {"resourceVersion": "7", "continue": "x y"}, "items": [{"metadata": {"name": "a"}}]},
            {},
        ),
        (200, {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}, {}),
    ]
    found = await gateway.list(POD, "ns", label_selector="a=b,c", cached=True)
    assert [pod["metadata"]["name"] for pod in found] == ["a", "b"]
    assert found.resource_version == "7"
    assert found[0]["kind"] == "Pod"
    assert found[0]["apiVersion"] == "v1"
    first, second = (path for _, path, _, _ in server.asked)
    assert first == "/api/v1/namespaces/ns/pods?limit=500&labelSelector=a%3Db,c&resourceVersion=0"
    assert "resourceVersion=0" not in second
    assert "continue=x+y" in second


async def test_a_list_with_a_page_missing_is_none(gateway, server):
    server.answers = [
        (200, {"metadata": {"continue": "x"}, "items": [{"metadata": {"name": "a"}}]}, {}),
        (410, {"reason": "Expired"}, {}),
    ]
    with pytest.raises(Gone):
        await gateway.list(POD)


async def test_what_is_not_there(gateway, server):
    server.answers = [(404, {"reason": "NotFound"}, {})]
    assert await gateway.get(POD, "ns", "a") is None
    assert await gateway.delete(POD, "ns", "a") is False


@pytest.mark.parametrize(
    "message",
    [
        "Precondition failed: UID in precondition: 1, UID in object meta: 2",
        "the UID in the precondition (1) does not match the UID in record (2)",
    ],
)
async def test_a_namesake_is_not_deleted(gateway, server, message):
    server.answers = [(409, {"reason": "Conflict", "message": message}, {})]
    assert await gateway.delete(POD, "ns", "a", uid="1") is False
    assert json.loads(server.asked[0][3])["preconditions"] == {"uid": "1"}


async def test_what_has_changed_is_not_deleted(gateway, server):
    message = "Precondition failed: ResourceVersion in precondition: 1, ResourceVersion in object meta: 2"
    server.answers = [(409, {"reason": "Conflict", "message": message}, {})]
    with pytest.raises(ConflictError):
        await gateway.delete(POD, "ns", "a", uid="1", version="1")
    assert json.loads(server.asked[0][3])["preconditions"] == {"uid": "1", "resourceVersion": "1"}


async def test_a_status_is_written_to_exactly_one_object(gateway, server):
    await gateway.replace_status(TASK, "ns", "a", {"phase": None}, uid="u")
    method, path, _, body = server.asked[0]
    assert (method, path.partition("?")[0]) == ("PATCH", TASK.path("ns", "a", "status"))
    assert json.loads(body) == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "add", "path": "/status", "value": {"phase": None}},
    ]


async def test_a_status_may_be_of_one_version_only(gateway, server):
    await gateway.replace_status(TASK, "ns", "a", {}, uid="u", version="7")
    replaced = {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}
    assert json.loads(server.asked[0][3])[-1] == replaced


async def test_an_eviction_is_of_one_pod(gateway, server):
    assert await gateway.evict("ns", "a", uid="1")
    method, path, _, body = server.asked[0]
    assert (method, path) == ("POST", POD.path("ns", "a", "eviction"))
    eviction = json.loads(body)
    assert (eviction["apiVersion"], eviction["kind"]) == ("policy/v1", "Eviction")
    assert eviction["metadata"] == {"namespace": "ns", "name": "a"}
    assert eviction["deleteOptions"]["preconditions"] == {"uid": "1"}


async def test_an_eviction_of_what_is_gone_or_forbidden_for_now(gateway, server):
    server.answers = [(404, {"reason": "NotFound"}, {})]
    assert not await gateway.evict("ns", "a", uid="1")
    server.answers = [(429, {"message": "it would violate the pod's disruption budget"}, {})]
    with pytest.raises(TooManyRequests, match="budget"):
        await gateway.evict("ns", "a", uid="1")


async def test_a_subresource_is_patched_by_itself(gateway, server):
    await gateway.merge_patch(DEPLOYMENT, "ns", "a", {"spec": {"replicas": 0}}, subresource="scale")
    method, path, _, body = server.asked[0]
    assert (method, path.partition("?")[0]) == ("PATCH", DEPLOYMENT.path("ns", "a", "scale"))
    assert json.loads(body) == {"spec": {"replicas": 0}}


async def test_a_name_that_is_taken(gateway, server):
    server.answers = [(409, {"reason": "AlreadyExists", "message": "taken"}, {})]
    with pytest.raises(AlreadyExists):
        await gateway.create(OBJECT)


async def test_a_log_is_bytes(gateway, server):
    server.answers = [(200, "text", {})]
    raw = await gateway.pod_log(
        "ns", "a", container="main", tail=10, since="2026-01-01T00:00:00Z", limit_bytes=99, previous=True
    )
    assert raw == b'"text"'
    assert server.asked[0][1] == (
        "/api/v1/namespaces/ns/pods/a/log?container=main&tailLines=10&sinceTime=2026-01-01T00:00:00Z"
        "&limitBytes=99&previous=true"
    )
    await gateway.pod_log("ns", "a", container="main", timestamps=True)
    assert server.asked[1][1] == "/api/v1/namespaces/ns/pods/a/log?container=main&timestamps=true"


async def test_a_log_is_asked_for_once(gateway, server):
    server.answers = [(500, {"message": "dial tcp 10.0.0.7:10250: connection refused"}, {})]
    with pytest.raises(Unavailable, match="refused"):
        await gateway.pod_log("ns", "a", container="main")
    assert len(server.asked) == 1


async def test_outside_of_a_cluster_a_kubeconfig_is_needed(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Unavailable, match="kubeconfig"):
        await HttpGateway.connect()


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Unavailable, match=r"none\.yaml"):
        await HttpGateway.connect(kubeconfig=tmp_path / "none.yaml")


async def test_a_service_accounts_token_is_read_anew(server, tmp_path, monkeypatch):
    from kubernetes.aio.config import incluster_config

    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    ca.write_text("unused")
    configuration = Configuration()
    loader = incluster_config.InClusterConfigLoader(
        str(token), str(ca), environ={"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}
    )
    loader.load_and_set(configuration)
    configuration.host = server.url
    async with HttpGateway(configuration=configuration) as gateway:
        await gateway.get(POD, "ns", "a")
        token.write_text("second")
        loader.token_expires_at -= loader._token_refresh_period
        await gateway.get(POD, "ns", "a")
    assert [headers["Authorization"] for _, _, headers, _ in server.asked] == [
        "bearer first",
        "bearer second",
    ]
    assert module.TIMEOUT == 30
