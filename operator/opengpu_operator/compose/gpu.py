"""Read a request for GPUs in all of its forms.

``deploy.resources.reservations.devices``, ``gpus``, ``runtime: nvidia``, device files, Swarm's generic resources and
names of the Container Device Interface mean the same; where a file says it twice, what names a number wins.
"""

from __future__ import annotations

import re
from typing import Any, Final

from opengpu_operator.api.translation import GpuRequest, Vendor
from opengpu_operator.compose import hostpaths, values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.project import Definition

_RENDER: Final = re.compile(r"/dev/dri/renderD\d+")
_NVIDIA_DEVICE: Final = re.compile(r"/dev/nvidia\d+")
_CDI: Final = re.compile(r"(nvidia|amd)\.com/[a-z]+=(.+)")
#: Parts of NVIDIA's driver that containers don't get by default.
_DRIVER_PARTS: Final = frozenset({"display", "ngx", "compat32"})
_NONE: Final = frozenset({"", "none", "void"})
#: Any GPU under Windows' Linux.
_WINDOWS: Final = "/dev/dxg"
#: None stands for the make of the environment.
_DRIVERS: Final = {
    "": None,
    "nvidia": Vendor.NVIDIA,
    **dict.fromkeys(("amd", "amdgpu", "rocm"), Vendor.AMD),
}
#: More than any machine has: a typing error.
_MAX_COUNT: Final = 64


class _Wish:
    """What one form asks for; ``count`` None is all."""

    def __init__(self, vendor: Vendor, count: int | None) -> None:
        self.vendor = vendor
        self.count = count


def request(service: Definition, environment: str | None, report: Report) -> GpuRequest | None:
    """Return the GPUs that a service asks for."""
    reader = _Reader(service, environment, report)
    wishes = reader.reserved() or reader.devices() or reader.runtime() or reader.variable()
    if not wishes:
        return None
    vendor = wishes[0].vendor
    counts = [wish.count for wish in wishes if wish.vendor is vendor]
    count = None if None in counts else sum(entry for entry in counts if entry is not None)
    if count == 0:
        return None
    if environment == "cpu":
        report.add(FindingReason.GPU_REMOVED, reader.place)
        return None
    if environment in ("nvidia", "amd") and vendor.value != environment:
        report.add(
            FindingReason.GPU_VENDOR_MISMATCH,
            service.path,
            f"The service asks for GPUs of {vendor.value}, in the file for {environment}.",
        )
    if count is None:
        report.add(FindingReason.GPU_COUNT_BY_POLICY, reader.place)
    return GpuRequest(vendor=vendor, count=count)


class _Reader:
    def __init__(self, service: Definition, environment: str | None, report: Report) -> None:
        self._service = service
        self._environment = environment
        self._report = report
        self.place: Path = service.path

    def reserved(self) -> list[_Wish]:
        """Read ``gpus``, device reservations and generic resources."""
        service = self._service
        wishes: list[_Wish] = []
        gpus = service.get("gpus")
        if isinstance(gpus, list):
            for index, entry in enumerate(gpus):
                wishes += self._entry({"capabilities": ["gpu"], **entry}, service.at("gpus", index))
        elif gpus is not None:
            # The schema allows one string: all.
            self.place = service.at("gpus")
            wishes.append(_Wish(self._vendor(), None))
        base = ("deploy", "resources", "reservations")
        for index, entry in enumerate(service.get(*base, "devices") or []):
            wishes += self._entry(entry, service.at(*base, "devices", index))
        for index, entry in enumerate(service.get(*base, "generic_resources") or []):
            spec = entry.get("discrete_resource_spec") or {}
            kind = values.text(spec.get("kind"))
            path = service.at(*base, "generic_resources", index, "discrete_resource_spec")
            if "GPU" in kind.upper():
                vendor = Vendor.AMD if "AMD" in kind.upper() else self._vendor()
                wishes.append(_Wish(vendor, self._count(spec.get("value", 1), (*path, "value"))))
            else:
                self._report.add(
                    FindingReason.KEY_IGNORED, (*path, "kind"), f"The resource {clip(kind)} is not a GPU."
                )
        return wishes

    def devices(self) -> list[_Wish]:
        """Read device files, under ``devices`` and among the mounts."""
        service = self._service
        found: list[tuple[str, Path]] = []
        for index, entry in enumerate(service.get("devices") or []):
            source = entry.get("source") if isinstance(entry, dict) else _source(values.text(entry))
            found.append((values.text(source), service.at("devices", index)))
        found += [(entry.mount.source, entry.path) for entry in service.mounts if entry.mount.kind == "bind"]
        paths = [(name if "=" in name else hostpaths.absolute(name), place) for name, place in found]
        named = [(match, place) for name, place in paths if (match := _CDI.fullmatch(name))]
        if named:
            match, self.place = named[0]
            return self._ids([match.group() for match, _ in named], Vendor(match.group(1)), self.place)
        names = {name: place for name, place in paths if hostpaths.GPU_DEVICES.fullmatch(name)}
        nvidia = [name for name in names if name.startswith("/dev/nvidia")]
        renders = [name for name in names if _RENDER.fullmatch(name)]
        if nvidia:
            self.place = names[nvidia[0]]
            return [_Wish(Vendor.NVIDIA, sum(1 for name in nvidia if _NVIDIA_DEVICE.fullmatch(name)) or None)]
        if _WINDOWS in names and self._environment == "nvidia":
            self.place = names[_WINDOWS]
            return [_Wish(Vendor.NVIDIA, None)]
        if "/dev/kfd" in names or (names and self._environment == "amd"):
            self.place = names.get("/dev/kfd", next(iter(names.values())))
            return [_Wish(Vendor.AMD, len(renders) or None)]
        for name, place in names.items():
            self._report.add(
                FindingReason.GPU_IGNORED, place, f"{clip(name)} alone doesn't say which GPU is meant."
            )
        return []

    def runtime(self) -> list[_Wish]:
        """Read ``runtime``."""
        runtime = self._service.get("runtime")
        if not runtime:
            return []
        path = self._service.at("runtime")
        if runtime not in ("nvidia", "amd"):
            self._report.add(FindingReason.RUNTIME_IGNORED, path, f"The runtime {clip(runtime)} is ignored.")
            return []
        self.place = path
        vendor = Vendor(runtime)
        visible = self._service.environment.get(f"{vendor.name}_VISIBLE_DEVICES")
        return self._ids(["all" if visible is None else visible], vendor, path)

    def variable(self) -> list[_Wish]:
        """Read the variable by which NVIDIA's runtime, where it is Docker's own, is asked for GPUs."""
        name = "NVIDIA_VISIBLE_DEVICES"
        visible = self._service.environment.get(name)
        if self._environment != "nvidia" or visible is None:
            return []
        self.place = self._service.at("environment", name)
        return self._ids([visible], Vendor.NVIDIA, self.place)

    def _vendor(self) -> Vendor:
        if self._environment == "amd" or self._service.get("runtime") == "amd":
            return Vendor.AMD
        return Vendor.NVIDIA

    def _entry(self, entry: dict[str, Any], path: Path) -> list[_Wish]:
        self.place = (*path, "count") if entry.get("count") is not None else path
        driver = values.text(entry.get("driver")).lower()
        capabilities = [name.lower() for name in entry["capabilities"]]
        ids = values.strings(entry.get("device_ids"))
        count = entry.get("count")
        if count is not None and ids:
            self._report.add(FindingReason.BAD_VALUE, path, "count and device_ids can't be given together.")
        if driver == "cdi" or any(_CDI.fullmatch(name) for name in ids):
            match = next((match for name in ids if (match := _CDI.fullmatch(name))), None)
            vendor = Vendor(match.group(1)) if match else self._vendor()
            return self._ids(ids, vendor, (*path, "device_ids"))
        known = driver in _DRIVERS and bool(driver)
        if not known and "gpu" not in capabilities and not any("nvidia" in name for name in capabilities):
            what = driver or ", ".join(capabilities) or "this"
            self._report.add(
                FindingReason.DEVICE_REFUSED, (*path, "capabilities"), f"{clip(what)} is not a GPU."
            )
            return []
        for name in _DRIVER_PARTS & set(capabilities):
            self._report.add(
                FindingReason.KEY_IGNORED,
                (*path, "capabilities"),
                f"{name} is ignored: name it in NVIDIA_DRIVER_CAPABILITIES.",
            )
        vendor = _DRIVERS.get(driver) or self._vendor()
        if driver and not known:
            self._report.add(
                FindingReason.KEY_IGNORED,
                (*path, "driver"),
                f"The driver {clip(driver)} is ignored: the GPUs are taken for those of {vendor.value}.",
            )
        if ids:
            return self._ids(ids, vendor, (*path, "device_ids"))
        if count is None or values.text(count).lower() in ("all", "-1"):
            return [_Wish(vendor, None)]
        return [_Wish(vendor, self._count(count, self.place))]

    def _ids(self, ids: list[str], vendor: Vendor, path: Path) -> list[_Wish]:
        each = [name.strip().rpartition("=")[2] for entry in ids for name in entry.split(",")]
        names = [name for name in each if name.lower() not in _NONE]
        if "all" in names:
            return [_Wish(vendor, None)]
        if names:
            self._report.add(
                FindingReason.GPU_IDS_COUNTED,
                path,
                f"GPUs can't be chosen by id ({clip(', '.join(names))}): the service gets {len(set(names))}.",
            )
        return [_Wish(vendor, len(set(names)))]

    def _count(self, value: Any, path: Path) -> int:
        try:
            count = values.integer(value)
        except ValueError:
            count = -1
        if not 0 <= count <= _MAX_COUNT:
            self._report.add(
                FindingReason.BAD_VALUE,
                path,
                f"The number of GPUs is all, or from 0 to {_MAX_COUNT}, not {clip(value)}.",
            )
            return 0
        return count


def _source(entry: str) -> str:
    return entry if "=" in entry else entry.partition(":")[0]
