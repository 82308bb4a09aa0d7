import pytest

from opengpu_operator.kube.kinds import DEPLOYMENT, KINDS, NODE, POD, TASK, kind_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (POD.path("ns"), "/api/v1/namespaces/ns/pods"),
        (POD.path(None), "/api/v1/pods"),
        (POD.path("ns", "a", "log"), "/api/v1/namespaces/ns/pods/a/log"),
        (DEPLOYMENT.path("ns", "a"), "/apis/apps/v1/namespaces/ns/deployments/a"),
        (
            TASK.path("ns", "a", "status"),
            "/apis/opengpu.network/v1alpha1/namespaces/ns/opengputasks/a/status",
        ),
        (NODE.path(None, "n"), "/api/v1/nodes/n"),
        (NODE.path("", "n"), "/api/v1/nodes/n"),
    ],
)
def test_paths(path, expected):
    assert path == expected


def test_a_name_from_outside_reaches_no_other_object():
    assert (
        POD.path("ns", "a/../../secrets/b?x#y")
        == "/api/v1/namespaces/ns/pods/a%2F..%2F..%2Fsecrets%2Fb%3Fx%23y"
    )
    for name in ("", ".", ".."):
        with pytest.raises(ValueError, match="is no name"):
            POD.path("ns", name)
        with pytest.raises(ValueError, match="is no name"):
            POD.path(name, "a")


def test_one_object_of_a_namespaced_kind_has_a_namespace():
    with pytest.raises(ValueError, match="namespace"):
        POD.path(None, "a")


def test_every_kind_is_found_by_its_manifest():
    for kind in KINDS:
        assert kind_of({"apiVersion": kind.api_version, "kind": kind.kind}) is kind


@pytest.mark.parametrize(
    "obj",
    [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"},
        {},
        {"apiVersion": [], "kind": {}},
    ],
)
def test_no_other_kind_is(obj):
    with pytest.raises(ValueError, match="no kind"):
        kind_of(obj)
