"""kopf is set up as an informer; above all, that its selectors really apply to what is watched."""

import itertools

import kopf
import pytest

from opengpu_operator.handlers import WATCHED, configure
from opengpu_operator.handlers.configure import Backoffs
from opengpu_operator.handlers.watched import CHILDREN, watched
from opengpu_operator.kube.kinds import (
    CONFIG_MAP,
    ENDPOINT_SLICE,
    HTTP_ROUTE,
    KINDS,
    NAMESPACE,
    NODE,
    SECRET,
    SOURCE,
    STORAGE_CLASS,
    TASK,
)
from opengpu_operator.settings import NamespaceSettings, Settings


@pytest.fixture
def kopf_settings():
    made = kopf.OperatorSettings()
    configure(made, Settings())
    return made


def resource(kind):
    """What kopf learns of a kind from the API server."""
    return kopf.Resource(
        group=kind.group, version=kind.version, plural=kind.plural, kind=kind.kind, namespaced=kind.namespaced
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_of_child_kinds_only_ours_are_asked_for(kopf_settings, kind):
    selectors = kopf_settings.watching.label_selectors.collect(resource(kind))
    label = "endpointslice.kubernetes.io" if kind == ENDPOINT_SLICE else "app.kubernetes.io"
    assert selectors == ([f"{label}/managed-by=opengpu-operator"] if kind in CHILDREN else [])


def test_kinds_that_a_cluster_may_lack_are_watched_by_choice_only(kopf_settings):
    gateway = {"name": "public", "namespace": "gateways"}
    chosen = Settings.model_validate({"routes": {"kind": "HTTPRoute", "gateway": gateway}})
    assert watched(Settings()) == WATCHED
    assert watched(chosen) == (*WATCHED, HTTP_ROUTE)
    made = kopf.OperatorSettings()
    configure(made, chosen)
    assert made.watching.label_selectors.collect(resource(HTTP_ROUTE)) == [
        "app.kubernetes.io/managed-by=opengpu-operator"
    ]


def test_a_namesake_in_another_group_is_not_meant(kopf_settings):
    other = kopf.Resource(group="serving.knative.dev", version="v1", plural="services", namespaced=True)
    assert kopf_settings.watching.label_selectors.collect(other) == []


def test_of_config_maps_all_but_those_that_cannot_matter():
    made = kopf.OperatorSettings()
    configure(made, Settings(namespace="mine", namespaces=NamespaceSettings(excluded=["kube-system"])))
    (selector,) = made.watching.field_selectors.collect(resource(CONFIG_MAP))
    assert selector == (
        "metadata.name!=kube-root-ca.crt,metadata.namespace!=kube-system,metadata.namespace!=mine"
    )
    assert made.watching.field_selectors.collect(resource(TASK)) == []


def test_everything_that_reconciling_reads_is_watched_and_no_secret():
    assert {SOURCE, TASK, NODE, NAMESPACE, CONFIG_MAP, STORAGE_CLASS} | set(CHILDREN) == set(WATCHED)
    assert SECRET not in WATCHED


def test_time_limits_are_whole_numbers(kopf_settings):
    assert type(kopf_settings.watching.server_timeout) is int
    assert kopf_settings.watching.client_timeout > kopf_settings.watching.server_timeout
    assert kopf_settings.queueing.worker_limit is None
    assert not kopf_settings.posting.enabled
    assert kopf_settings.persistence.finalizer.startswith("opengpu.network/")


def test_nothing_is_copied_or_stored(kopf_settings):
    storage = kopf_settings.persistence.diffbase_storage
    body = kopf.Body({"metadata": {"name": "a"}, "spec": {"x": 1}})
    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    patch = kopf.Patch()
    storage.store(body=body, patch=patch, essence=storage.build(body=body))
    assert not patch


def test_the_api_server_is_tried_for_ever_but_never_in_step():
    delays = list(itertools.islice(Backoffs(rand=lambda: 0.5), 100))
    assert delays[:4] == [0.5, 1, 2, 4]
    assert delays[-1] == 30
    least = next(itertools.islice(Backoffs(rand=lambda: 0.0), 50, None))
    most = next(itertools.islice(Backoffs(rand=lambda: 1.0), 50, None))
    assert (least, most) == (22.5, 37.5)
    # kopf walks through them anew for each request.
    backoffs = Backoffs(rand=lambda: 0.5)
    assert next(iter(backoffs)) == next(iter(backoffs)) == 0.5
