"""What runs in the cluster as pods is that of the version at hand."""

from pathlib import Path

import pytest

from localcluster import addons, ingresstls
from localcluster.paths import Layout
from localcluster.topology import Topology

TOPOLOGY = Topology("test", 2, 0, etcd_port=1, etcd_peer_port=2, api_port=3)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("LOCALCLUSTER_HOME", str(tmp_path))
    monkeypatch.setattr(addons, "apply_manifests", lambda *_: None)
    monkeypatch.setattr(ingresstls, "ensure", lambda _: None)
    monkeypatch.setattr(ingresstls, "manifest", lambda _: "")
    made = Layout("test")
    made.root.mkdir()
    return made


def test_what_another_version_applied_is_seen(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not addons.is_current(layout, TOPOLOGY)
    addons.apply(layout, TOPOLOGY)
    assert addons.is_current(layout, TOPOLOGY)
    monkeypatch.setattr(addons, "render", lambda **_: "kind: Namespace")
    assert not addons.is_current(layout, TOPOLOGY)


def test_what_could_not_be_applied_is_applied_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cut off")

    monkeypatch.setattr(addons, "apply_manifests", refuse)
    with pytest.raises(OSError, match="cut off"):
        addons.apply(layout, TOPOLOGY)
    assert not addons.is_current(layout, TOPOLOGY)
