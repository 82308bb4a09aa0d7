"""The EndpointSlices that let DNS know pods by further names."""

from opengpu_operator.desired.aliases import Aliases
from opengpu_operator.desired.job import build
from tests.support.jobs import JOB, context, service, settings, translation


def aliases(*services) -> Aliases:
    found = build(translation(*services), context(), settings()).aliases
    assert found is not None
    return found


def entries(slice_):
    return [(entry["hostname"], *entry["addresses"]) for entry in slice_["endpoints"]]


def test_a_name_has_the_address_of_its_pods():
    found = aliases(service("db", aliases=["postgres", "pg"]), service("app"))
    (made,) = found.slices({"db": ["10.0.0.2"], "app": ["10.0.0.3"]})
    assert entries(made) == [("postgres", "10.0.0.2"), ("pg", "10.0.0.2")]
    assert made["metadata"]["name"] == f"{JOB}-aliases-ipv4"
    assert made["addressType"] == "IPv4"
    labels = made["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == JOB
    assert labels["endpointslice.kubernetes.io/managed-by"] == "opengpu-operator"
    assert labels["opengpu.network/task-uid"] == context().task_uid
    assert made["metadata"]["ownerReferences"][0]["kind"] == "OpenGPUTask"
    assert all(entry["conditions"] == {"ready": True} for entry in made["endpoints"])


def test_services_may_share_a_name_with_each_other_and_with_a_service():
    found = aliases(service("one", aliases=["model", "two"]), service("two", aliases=["model"]))
    (made,) = found.slices({"one": ["10.0.0.1"], "two": ["10.0.0.2"]})
    assert entries(made) == [("model", "10.0.0.1"), ("two", "10.0.0.1"), ("model", "10.0.0.2")]


def test_containers_of_one_pod_have_its_address_and_need_no_entry_for_its_own_name():
    found = aliases(
        service("web", aliases=["www", "web"]), service("tunnel", joins="web", aliases=["vpn", "www"])
    )
    (made,) = found.slices({"web": ["10.0.0.1"]})
    assert entries(made) == [("www", "10.0.0.1"), ("vpn", "10.0.0.1")]


def test_each_ip_version_has_a_slice_and_no_address_none():
    found = aliases(service("db", aliases=["pg"]))
    assert found.slices({}) == []
    four, six = found.slices({"db": ["fd00::2", "10.0.0.2"]})
    assert (four["addressType"], entries(four)) == ("IPv4", [("pg", "10.0.0.2")])
    assert (six["addressType"], entries(six)) == ("IPv6", [("pg", "fd00::2")])
    assert four["metadata"]["name"] != six["metadata"]["name"]


def test_the_order_of_pods_makes_no_difference_and_another_address_does():
    found = aliases(service("db", aliases=["pg"], replicas=2))
    one, same, other = (
        found.slices({"db": addresses})[0]
        for addresses in (["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.3"])
    )
    assert one == same
    hashes = [made["metadata"]["annotations"]["opengpu.network/spec-hash"] for made in (one, other)]
    assert hashes[0] != hashes[1]


def test_a_slice_holds_no_more_than_kubernetes_takes_and_every_name_first():
    names = [f"a{number}" for number in range(600)]
    found = aliases(service("db", aliases=names, replicas=3), service("x", aliases=["last"]))
    (made,) = found.slices({"db": ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "x": ["10.0.0.9"]})
    assert len(made["endpoints"]) == 1000
    assert {entry["hostname"] for entry in made["endpoints"]} == {*names, "last"}


def test_a_job_without_other_names_has_none():
    assert build(translation(service("db", aliases=["db"])), context(), settings()).aliases is None
