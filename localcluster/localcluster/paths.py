"""Where things are kept: one directory per cluster, one cache per user."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import Failure

DEFAULT_NAME = "local"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


def cache() -> Path:
    """Return the per-user cache: what is built once and serves every cluster."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "localcluster"


def home() -> Path:
    """Return the directory that holds one directory per cluster."""
    if chosen := os.environ.get("LOCALCLUSTER_HOME"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "localcluster"


@dataclass(frozen=True)
class Layout:
    """The files of one cluster."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Failure(
                f"{self.name!r} cannot name a cluster: use up to 20 lowercase letters, digits and inner dashes."
            )

    @property
    def root(self) -> Path:
        return home() / self.name

    @property
    def lock(self) -> Path:
        """Beside the directory, since ``down`` removes the directory while it holds the lock."""
        return home() / f".{self.name}.lock"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def ingress_pki(self) -> Path:
        return self.root / "ingress-pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pids(self) -> Path:
        return self.root / "pids"

    @property
    def audit_log(self) -> Path:
        return self.root / "audit.log"

    @property
    def applied(self) -> Path:
        """Which manifests the cluster got last, by their digest."""
        return self.root / "applied"

    @property
    def shared(self) -> Path:
        """What every node sees of the machine at the same place: volumes for pods on any of them."""
        return self.root / "shared"

    def node(self, node: str) -> Path:
        return self.root / "nodes" / node
