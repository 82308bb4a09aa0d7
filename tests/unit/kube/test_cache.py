import pytest

from opengpu_operator.api.labels import SPEC_HASH, TASK_UID
from opengpu_operator.kube.cache import _TOMBSTONES, Cache
from opengpu_operator.kube.kinds import CONFIG_MAP, NODE, POD, TASK


def make(name="a", *, version="10", uid="u1", namespace="ns", labels=None, **parts):
    metadata = {"name": name, "uid": uid, "resourceVersion": version, "labels": labels or {}}
    if namespace:
        metadata["namespace"] = namespace
    return {"metadata": metadata, **parts}


@pytest.fixture
def cache():
    return Cache()


def phase(cache, name="a"):
    return cache.get(POD, "ns", name)["status"]["phase"]


def test_newer_versions_replace_older_ones_and_never_the_other_way_round(cache):
    assert cache.put(POD, make(version="9", status={"phase": "Pending"}))
    assert cache.put(POD, make(version="10", status={"phase": "Running"}))
    assert not cache.put(POD, make(version="9", status={"phase": "Pending"}))
    assert not cache.put(POD, make(version="10", status={"phase": "Pending"}))
    assert phase(cache) == "Running"


def test_a_change_of_what_is_not_kept_is_none(cache):
    cache.put(POD, make(version="1", spec={"containers": [], "hostNetwork": False}))
    assert not cache.put(POD, make(version="2", spec={"containers": [], "hostNetwork": True}))
    assert cache.get(POD, "ns", "a")["metadata"]["resourceVersion"] == "2"


def test_what_was_deleted_stays_so_whatever_comes_late(cache):
    cache.put(POD, make())
    assert cache.drop(POD, "ns", "a", "u1")
    assert not cache.put(POD, make(version="11"))
    assert cache.get(POD, "ns", "a") is None
    assert not cache.drop(POD, "ns", "a", "u1")


def test_a_deletion_that_comes_before_the_object(cache):
    cache.drop(POD, "ns", "a", "u1")
    assert not cache.put(POD, make())


def test_the_deletion_of_a_predecessor_leaves_the_successor(cache):
    cache.put(POD, make(version="10", uid="u1"))
    assert cache.put(POD, make(version="12", uid="u2"))
    assert not cache.drop(POD, "ns", "a", "u1")
    assert cache.get(POD, "ns", "a")["metadata"]["uid"] == "u2"
    assert not cache.put(POD, make(version="11", uid="u1"))


def test_deletions_are_remembered_for_a_while_only(cache):
    for number in range(_TOMBSTONES + 1):
        cache.drop(POD, "ns", f"p{number}", f"u{number}")
    assert len(cache._dead) == len(cache._dead_order) == _TOMBSTONES
    assert cache.put(POD, make(uid="u0"))


def test_versions_that_are_no_numbers_only_differ(cache):
    cache.put(POD, make(version="abc", status={"phase": "Pending"}))
    assert not cache.put(POD, make(version="abc", status={"phase": "Running"}))
    assert cache.put(POD, make(version="abb", status={"phase": "Running"}))


def test_children_by_their_task(cache):
    cache.put(POD, make("p", uid="u1", labels={TASK_UID: "t"}))
    cache.put(CONFIG_MAP, make("c", uid="u2", labels={TASK_UID: "t"}))
    cache.put(POD, make("other", uid="u3", labels={TASK_UID: "t2"}))
    assert [(kind, obj["metadata"]["name"]) for kind, obj in cache.children("t")] == [
        (POD, "p"),
        (CONFIG_MAP, "c"),
    ]
    assert [obj["metadata"]["name"] for _, obj in cache.children("t", POD)] == ["p"]
    # Somebody takes the label away.
    cache.put(POD, make("p", uid="u1", version="11"))
    cache.drop(CONFIG_MAP, "ns", "c", "u2")
    assert cache.children("t") == []
    assert "t" not in cache._children


def test_tasks_by_their_source(cache):
    for name, uid in (("a", "u1"), ("b", "u2")):
        cache.put(TASK, make(name, uid=uid, spec={"sourceRef": {"name": "s"}}))
    cache.put(TASK, make("a", uid="u3", namespace="other", spec={"sourceRef": {"name": "s"}}))
    assert [task["metadata"]["uid"] for task in cache.tasks_of("ns", "s")] == ["u1", "u2"]
    cache.drop(TASK, "ns", "a", "u1")
    assert [task["metadata"]["uid"] for task in cache.tasks_of("ns", "s")] == ["u2"]
    assert cache.tasks_of("ns", "none") == []


def test_tasks_of_an_owner(cache):
    for name, uid in (("a", "u1"), ("b", "u2")):
        cache.put(TASK, make(name, uid=uid, spec={"owner": "alice"}))
    cache.put(TASK, make("a", uid="u3", namespace="other", spec={"owner": "alice"}))
    cache.put(TASK, make("c", uid="u4", spec={}))
    assert [task["metadata"]["uid"] for task in cache.tasks_of_owner("ns", "alice")] == ["u1", "u2"]
    cache.drop(TASK, "ns", "a", "u1")
    assert [task["metadata"]["uid"] for task in cache.tasks_of_owner("ns", "alice")] == ["u2"]
    assert cache.tasks_of_owner("ns", "bob") == []


def test_all_and_count(cache):
    cache.put(POD, make("p", uid="u1"))
    cache.put(POD, make("p", uid="u2", namespace="other"))
    cache.put(NODE, make("n", uid="u3", namespace=None))
    assert len(cache.all(POD)) == cache.count(POD) == 2
    assert [obj["metadata"]["uid"] for obj in cache.all(POD, "other")] == ["u2"]
    assert cache.get(NODE, None, "n") is cache.get(NODE, "", "n") is cache.all(NODE)[0]
    assert cache.all(TASK) == []


def test_what_a_complete_list_lacks_is_absent_unless_it_is_newer(cache):
    for name, uid, version in (("old", "u1", "5"), ("listed", "u2", "6"), ("new", "u3", "21")):
        cache.put(POD, make(name, uid=uid, version=version))
    cache.put(POD, make("elsewhere", uid="u4", version="5", namespace="other"))
    listed = [make("listed", uid="u2", version="7")]
    absent = cache.absent(POD, listed, resource_version="20", namespace="ns")
    assert [obj["metadata"]["name"] for obj in absent] == ["old"]
    assert len(cache.absent(POD, listed, resource_version="20")) == 2


def test_what_is_known(cache):
    cache.put(POD, make(version="10"))
    assert cache.knows(POD, make(version="10"))
    assert cache.knows(POD, make(version="9"))
    assert not cache.knows(POD, make(version="11"))
    assert not cache.knows(POD, make("b", uid="u2"))
    cache.drop(POD, "ns", "a", "u1")
    assert cache.knows(POD, make(version="11"))


def test_a_child_takes_little_memory(cache):
    import tracemalloc

    def child(number):
        uid = f"0f0f0f0f-0000-0000-0000-{number:012}"
        return (
            make(
                f"j-{number:016}-web",
                uid=f"1f0f0f0f-0000-0000-0000-{number:012}",
                labels={TASK_UID: uid, "other/label": "x"},
                spec={"template": {"spec": {"containers": [{"image": "x" * 500}]}}},
            )
            | {}
        )

    for number in range(100):
        cache.put(CONFIG_MAP, child(number))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(100, 1100):
        obj = child(number)
        obj["metadata"]["annotations"] = {SPEC_HASH: f"{number:064}"}
        obj["metadata"]["managedFields"] = [{"x": "y" * 1000}]
        cache.put(CONFIG_MAP, obj)
        del obj
    each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    tracemalloc.stop()
    assert each < 2048
