"""Programs that come from the distribution."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster.errors import Failure
from localcluster.report import say, step

# Program, or a file by its path → Debian package. The names are the same on Ubuntu.
NODE_PROGRAMS: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "openssl": "openssl",
    "unshare": "util-linux",
}
CONTROL_PLANE_PROGRAMS: Mapping[str, str] = {"openssl": "openssl"}
# By which mmdebstrap knows Debian's packages; Ubuntu comes without it.
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
IMAGE_PROGRAMS: Mapping[str, str] = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    DEBIAN_KEYRING: "debian-archive-keyring",
}

_CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(program: str) -> str | None:
    """Find a program, also in the system directories that a user's PATH often lacks."""
    return shutil.which(program) or shutil.which(program, path=SYSTEM_PATH)


def cni_directory() -> Path | None:
    """Return the directory of the CNI plugins, if they are installed."""
    return next((path for path in _CNI_DIRECTORIES if (path / "bridge").exists()), None)


def busybox() -> Path | None:
    """Return a busybox without shared libraries, the helper image's only content."""
    path = find("busybox")
    return Path(path) if path else None


def missing(programs: Mapping[str, str], *, node: bool = False) -> list[str]:
    """Return the packages of the programs that are not there."""
    packages = {package for name, package in programs.items() if not _is_there(name)}
    if node and cni_directory() is None:
        packages.add("containernetworking-plugins")
    if node and busybox() is None:
        packages.add("busybox-static")
    return sorted(packages)


def _is_there(name: str) -> bool:
    return Path(name).is_file() if name.startswith("/") else find(name) is not None


def install_command(packages: Sequence[str]) -> str:
    """Return what an administrator would type."""
    return f"apt-get update && apt-get install -y --no-install-recommends {' '.join(packages)}"


def ensure(packages: Sequence[str]) -> None:
    """Install packages where that is possible and allowed, else say exactly what to do."""
    if not packages:
        return
    command = install_command(packages)
    can_install = os.geteuid() == 0 and find("apt-get") and os.environ.get("NO_INSTALL", "0") in ("", "0")
    if not can_install:
        raise Failure(
            f"These Debian packages are needed and missing: {', '.join(packages)}. "
            f"Install them with `sudo sh -c '{command}'` and run the command again."
        )
    say(f"Installing Debian packages: {' '.join(packages)}")
    with step("Debian packages"):
        done = subprocess.run(
            ["sh", "-c", command],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise Failure(f"`{command}` failed: {done.stderr.strip()[-800:]}")
