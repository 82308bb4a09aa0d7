"""Missing packages are installed where that is allowed; elsewhere one message says exactly what to type."""

from pathlib import Path

import pytest

from localcluster import packages
from localcluster.errors import Failure


def _only(*present: str):
    return lambda program: f"/usr/bin/{program}" if program in present else None


def test_the_packages_of_missing_programs_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find", _only("containerd", "runc", "ip", "openssl", "unshare", "busybox"))
    monkeypatch.setattr(packages, "cni_directory", lambda: Path("/usr/lib/cni"))
    assert packages.missing(packages.NODE_PROGRAMS, node=True) == ["conntrack", "iptables", "nftables"]


def test_the_plugins_and_busybox_are_wanted_for_nodes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find", _only("openssl"))
    monkeypatch.setattr(packages, "cni_directory", lambda: None)
    assert packages.missing(packages.CONTROL_PLANE_PROGRAMS) == []
    wanted = packages.missing(packages.CONTROL_PLANE_PROGRAMS, node=True)
    assert wanted == ["busybox-static", "containernetworking-plugins"]


def test_a_file_counts_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "find", _only("buildah"))
    keyring = tmp_path / "keyring.gpg"
    wanted = {"buildah": "buildah", str(keyring): "debian-archive-keyring"}
    assert packages.missing(wanted) == ["debian-archive-keyring"]
    keyring.touch()
    assert packages.missing(wanted) == []


@pytest.mark.parametrize(("user", "setting"), [(1000, "0"), (0, "1")])
def test_without_leave_to_install_the_message_is_a_command(
    monkeypatch: pytest.MonkeyPatch, user: int, setting: str
) -> None:
    monkeypatch.setattr(packages, "find", _only("apt-get"))
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setenv("NO_INSTALL", setting)
    with pytest.raises(Failure) as failure:
        packages.ensure(["runc", "iptables"])
    assert "apt-get update && apt-get install -y --no-install-recommends runc iptables" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_nothing_missing_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("nothing should run"))
    packages.ensure([])
