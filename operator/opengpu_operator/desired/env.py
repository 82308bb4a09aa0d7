"""Variables of containers: the file's, the task's, and those that keep GPUs to whom they were given."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

from opengpu_operator.api.task import EnvVar
from opengpu_operator.api.translation import Vendor

Entry = dict[str, Any]

#: With these a container would get devices past the scheduler, or run code while it is set up.
_STRIPPED = re.compile(
    r"(?:AMD|NVIDIA)_VISIBLE_DEVICES"
    r"|NVIDIA_(?:GDRCOPY|GDS|IMEX_CHANNELS|MIG_(?:CONFIG|MONITOR)_DEVICES|MOFED|NVSWITCH)"
    r"|LD_(?:AUDIT|DEBUG|DEBUG_OUTPUT|DYNAMIC_WEAK|ORIGIN_PATH|PRELOAD|PROFILE|PROFILE_OUTPUT)"
    r"|GCONV_PATH|GLIBC_TUNABLES"
)
_ABSOLUTE = re.compile(r"/(?!/|(?:proc|dev)(?:/|\Z))")
#: The runtime's word for no GPU at all; without it an image may say ``all``.
NO_GPU: Entry = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
DRIVER_CAPABILITIES: Entry = {
    "name": "NVIDIA_DRIVER_CAPABILITIES",
    "value": "utility,compute,graphics,video",
}
#: GPUX's count of processors: the container's limit rounded up, or the node's processors where there is none.
NPROC: Entry = {
    "name": "NPROC",
    "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}},
}


def is_stripped(item: Entry) -> bool:
    """Return whether a container doesn't get a variable."""
    if item["name"] == "LD_LIBRARY_PATH":
        # Absolute directories are the image's own; the GPU's hooks would search relative ones too (an empty one is the
        # current directory), and those of their process. What a Secret holds is unknown.
        value = item.get("value", ".")
        return value != "" and not all(
            _ABSOLUTE.match(posixpath.normpath(path)) for path in re.split("[:;]", value)
        )
    return _STRIPPED.fullmatch(item["name"]) is not None


def entry(variable: EnvVar) -> Entry:
    """Return a task's variable as a container has it: its value as it is, without Kubernetes' ``$(NAME)``."""
    if variable.value_from is not None:
        return {
            "name": variable.name,
            "valueFrom": {"secretKeyRef": variable.value_from.secret_key_ref.dump()},
        }
    return {"name": variable.name, "value": (variable.value or "").replace("$", "$$")}


def stripped(variables: Iterable[EnvVar]) -> list[str]:
    """Return the names of a task's variables that are left out."""
    return [variable.name for variable in variables if is_stripped(entry(variable))]


def build(
    own: Iterable[Entry], overrides: Iterable[EnvVar], *, vendor: Vendor | None, gpux: bool
) -> list[Entry]:
    """Return a container's variables: ``own`` of the file, with the task's in their place or after them."""
    merged = {item["name"]: item for item in own}
    merged |= {variable.name: entry(variable) for variable in overrides}
    found = [item for item in merged.values() if not is_stripped(item)]
    if gpux and "NPROC" not in merged:
        found.append(NPROC)
    if vendor is not Vendor.NVIDIA:
        found.append(NO_GPU)
    elif DRIVER_CAPABILITIES["name"] not in merged:
        found.append(DRIVER_CAPABILITIES)
    return found
