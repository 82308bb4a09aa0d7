"""What a local cluster leaves on a machine: its processes, mounts, links, firewall rules, cgroups and state."""

from __future__ import annotations

import re
import subprocess
from contextlib import suppress
from pathlib import Path

from localcluster import cgroups, packages

_CGROUPS = Path("/sys/fs/cgroup")
#: A rule that leads into a cluster's chain names the cluster.
_OWNER = re.compile(r'--comment "localcluster ([a-z0-9-]+)" -j LOCALCLUSTER-([0-9]+)')
_SLOT = re.compile(r"(?:LOCALCLUSTER-|\blc)([0-9]+)")


def traces(name: str, state: Path) -> set[str]:
    """Return what there is of the cluster ``name`` with this state directory.

    Links and chains carry a number instead of a name: those whose number isn't another cluster's count too, since
    nobody else would remove them.
    """
    found = {f"process {line}" for line in processes(state)}
    found |= {f"mount {line}" for line in _lines(Path("/proc/self/mountinfo")) if str(state) in line}
    found |= {f"cgroup {path}" for path in _groups(cgroups.parent(name))}
    if state.exists():
        found.add(f"state {state}")
    rules = _rules()
    others = {slot for owner, slot in _OWNER.findall("\n".join(rules)) if owner != name}
    links = [path.name for path in Path("/sys/class/net").iterdir() if re.match(r"lc[0-9]", path.name)]
    found |= {f"link {link}" for link in links if _slot(link) not in others}
    found |= {f"rule {rule}" for rule in rules if "LOCALCLUSTER-" in rule and _slot(rule) not in others}
    return found


def processes(state: Path) -> list[str]:
    """Return the command lines of all processes that have to do with a state directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(state) in line:
                found.append(line)
    return found


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _groups(group: str) -> list[Path]:
    """Return a cgroup in each hierarchy: one in version 2, one per controller in version 1."""
    return [path for path in (_CGROUPS / group, *_CGROUPS.glob(f"*/{group}")) if path.exists()]


def _rules() -> list[str]:
    program = packages.find("iptables-save")
    if program is None:  # and so no rule was ever made
        return []
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


def _slot(text: str) -> str:
    match = _SLOT.search(text)
    assert match, text
    return match[1]
