"""The cgroups under which a node's pods live, in whichever version the machine has."""

import os
import time
from pathlib import Path

from localcluster.errors import Failure

_ROOT = Path("/sys/fs/cgroup")
_INHERITED_CPUSET = ("cpuset.cpus", "cpuset.mems")


def parent(cluster: str) -> str:
    return f"localcluster-{cluster}"


def _hierarchies() -> list[Path]:
    """Return the root of each hierarchy: one in version 2, one per controller in version 1."""
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in _ROOT.iterdir() if path.is_dir() and not path.is_symlink()]


def create(cluster: str, node: str) -> None:
    """Make the node's cgroup: the kubelet wants it to exist in every hierarchy."""
    for hierarchy in _hierarchies():
        above = hierarchy
        for name in (parent(cluster), node):
            group = above / name
            _delegate(above)
            group.mkdir(exist_ok=True)
            for setting in _INHERITED_CPUSET:  # version 1 starts a cpuset empty, and nothing could run in it
                if (above / setting).exists() and (group / setting).exists():
                    (group / setting).write_text((above / setting).read_text())
            above = group
        _delegate(above)


def _delegate(group: Path) -> None:
    """Let children of a version 2 cgroup have the controllers that this one has."""
    available = group / "cgroup.controllers"
    if available.exists():
        for controller in available.read_text().split():
            try:
                (group / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                continue  # some controllers cannot be delegated here; the kubelet names those it misses


def destroy(cluster: str, node: str = "") -> None:
    """Remove a node's cgroups, or the whole cluster's, once the processes in them are gone."""
    deadline = time.monotonic() + 120
    for hierarchy in _hierarchies():
        top = hierarchy / parent(cluster) / node
        while top.exists() and not _remove(top):
            if time.monotonic() > deadline:
                raise Failure(f"Processes are still in {top}: end them and run `localcluster down` again.")
            time.sleep(0.05)


def _remove(top: Path) -> bool:
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            Path(directory).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
