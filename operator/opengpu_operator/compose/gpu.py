"""Read a request for GPUs in all of its forms.

``deploy.resources.reservations.devices``, ``gpus``, ``runtime: nvidia``, device files, Swarm's generic resources and
names of the Container Device Interface mean the same; where a file says it twice, what names a number wins. A pod has
GPUs of one vendor; what is asked of another, or isn't used, is reported.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from opengpu_operator.api.findings import Severity
from opengpu_operator.api.translation import GpuRequest, Vendor
from opengpu_operator.compose import hostpaths, values
from opengpu_operator.compose.containers import variable_places
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip
from opengpu_operator.compose.project import Definition

_RENDER: Final = re.compile(r"/dev/dri/renderD\d+")
_NVIDIA_DEVICE: Final = re.compile(r"/dev/nvidia\d+")
_CDI: Final = re.compile(r"(nvidia|amd)\.com/[a-z]+=(.+)")
_RANGE: Final = re.compile(r"([0-9]{1,6})-([0-9]{1,6})")
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


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """What one entry of a form asks for."""

    vendor: Vendor
    count: int | None
    """None is all."""
    place: Path
    ids: str = ""
    """The ids that were counted, as they are shown."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a service asks for, and how."""

    request: GpuRequest | None = None
    variable: str | None = None
    """The variable that was taken for the request, gave its number or took it back."""


def is_said(services: Iterable[Definition], environment: str | None) -> bool:
    """Whether any service asks for GPUs in a form that is nothing else, so that the others want none."""
    unheard = Report()
    return any(read(service, environment, unheard, hinted=False).request for service in services)


def read(service: Definition, environment: str | None, report: Report, *, hinted: bool) -> Asked:
    """Return the GPUs that a service asks for.

    Forms aren't added up: the first that names a number counts, and all only where none does. ``hinted``: where the
    runtime is Docker's default, its variable alone asks too. Many images and files set it without meaning anything.
    """
    reader = _Reader(service, environment, report, hinted=hinted)
    forms = reader.forms()
    wishes = [wish for form in forms for wish in form]
    vendors = sorted(dict.fromkeys(wish.vendor for wish in wishes), key=lambda vendor: vendor != environment)
    for vendor in vendors:
        chosen, count = _of(vendor, forms)
        if count == 0:
            continue
        variable = reader.variable if chosen[0].place == reader.variable_place else None
        if environment == "cpu":
            report.add(FindingReason.GPU_REMOVED, chosen[0].place)
            return Asked(variable=variable)
        if environment in ("nvidia", "amd") and vendor.value != environment:
            report.add(
                FindingReason.GPU_VENDOR_MISMATCH,
                service.path,
                f"The service asks for GPUs of {vendor.value}, in the file for {environment}.",
            )
        reader.report_chosen(chosen, count, variable)
        reader.report_ignored(_others(vendor, count, forms), vendor, count)
        reader.report_unclear(vendor)
        return Asked(request=GpuRequest(vendor=vendor, count=count), variable=variable)
    reader.report_unclear(None)
    # Where a variable says that none is asked for, the service would get some without it.
    return Asked(variable=reader.variable if not wishes and reader.variable_place else None)


def _of(vendor: Vendor, forms: list[list[_Wish]]) -> tuple[list[_Wish], int | None]:
    """Return the wishes for one vendor's GPUs that count, and the number of those; None is all."""
    own = [mine for form in forms if (mine := [wish for wish in form if wish.vendor is vendor])]
    counted = [(form, _total(form)) for form in own]
    return next((entry for entry in counted if entry[1] is not None), counted[0])


def _others(vendor: Vendor, count: int | None, forms: list[list[_Wish]]) -> list[_Wish]:
    """Return the wishes of other vendors, and of forms that name another number."""
    return [
        wish
        for form in forms
        for wish in form
        if wish.vendor is not vendor or _total([mine for mine in form if mine.vendor is vendor]) != count
    ]


def _total(form: list[_Wish]) -> int | None:
    counts = [wish.count for wish in form]
    return None if None in counts else sum(count for count in counts if count is not None)


class _Reader:
    def __init__(self, service: Definition, environment: str | None, report: Report, *, hinted: bool) -> None:
        self._service = service
        self._hinted = hinted
        self._environment = environment
        self._report = report
        self._unclear: dict[str, Path] = {}
        self.variable = "NVIDIA_VISIBLE_DEVICES"
        self.variable_place: Path | None = None

    def forms(self) -> list[list[_Wish]]:
        """Return what each form asks for, without those that ask for nothing."""
        found = [self._gpus(), self._reserved(), self._generic(), *self._devices(), self._runtime()]
        return [form for form in found if form]

    def report_chosen(self, chosen: list[_Wish], count: int | None, variable: str | None) -> None:
        """Report what the request is taken for."""
        if variable is not None:
            what = "all GPUs" if count is None else f"{count} of the GPUs"
            reason = FindingReason.GPU_COUNT_BY_POLICY if count is None else FindingReason.GPU_IDS_COUNTED
            self._report.add(
                reason,
                chosen[0].place,
                f"{variable} is taken for a request for {what}; the variable itself is left out.",
                advice=f"Ask under deploy.resources.reservations.devices with count: {count or 'N'}.",
            )
        elif count is None:
            self._report.add(
                FindingReason.GPU_COUNT_BY_POLICY, next(wish.place for wish in chosen if wish.count is None)
            )
        else:
            for wish in chosen:
                if wish.ids:
                    self._report.add(
                        FindingReason.GPU_IDS_COUNTED,
                        wish.place,
                        f"GPUs can't be chosen by id ({clip(wish.ids)}): the service gets {wish.count}.",
                    )

    def report_ignored(self, wishes: list[_Wish], vendor: Vendor, count: int | None) -> None:
        """Report the wishes that aren't among the chosen ones and mean something else."""
        for wish in wishes:
            if wish.vendor is not vendor and wish.count != 0:
                message = (
                    f"GPUs of {wish.vendor.value} are ignored: the service gets those of {vendor.value}."
                )
                advice = "Ask for GPUs of one make: a pod has no others."
            elif (
                wish.vendor is vendor
                and (wish.count is not None or wish.place[-1] in ("count", "gpus"))
                and wish.place != self.variable_place
            ):
                message = f"This request is ignored: the service gets {count}, which is asked for elsewhere."
                advice = "Say the number of GPUs once."
            else:
                continue
            self._report.add(FindingReason.GPU_IGNORED, wish.place, message, advice=advice)

    def report_unclear(self, vendor: Vendor | None) -> None:
        """Report devices that could be any GPU's, where GPUs of no vendor or of NVIDIA are asked for."""
        for name, place in self._unclear.items():
            if vendor is None:
                message = f"{clip(name)} alone doesn't say which GPU is meant."
            elif vendor is Vendor.NVIDIA and name != _WINDOWS:
                message = f"{clip(name)} is ignored: the service gets the devices of NVIDIA's GPUs."
            else:
                continue
            self._report.add(FindingReason.GPU_IGNORED, place, message)

    def _gpus(self) -> list[_Wish]:
        service = self._service
        gpus = service.get("gpus")
        if gpus is None:
            return []
        if not isinstance(gpus, list):
            # The schema allows one string: all.
            return [_Wish(vendor=self._vendor(), count=None, place=service.at("gpus"))]
        found: list[_Wish] = []
        for index, entry in enumerate(gpus):
            found += self._entry({"capabilities": ["gpu"], **entry}, service.at("gpus", index))
        return found

    def _reserved(self) -> list[_Wish]:
        service = self._service
        place = ("deploy", "resources", "reservations", "devices")
        found: list[_Wish] = []
        for index, entry in enumerate(service.get(*place) or []):
            found += self._entry(entry, service.at(*place, index))
        return found

    def _generic(self) -> list[_Wish]:
        service = self._service
        place = ("deploy", "resources", "reservations", "generic_resources")
        found: list[_Wish] = []
        for index, entry in enumerate(service.get(*place) or []):
            spec = entry.get("discrete_resource_spec") or {}
            kind = values.text(spec.get("kind"))
            path = service.at(*place, index, "discrete_resource_spec")
            if "GPU" in kind.upper():
                vendor = Vendor.AMD if "AMD" in kind.upper() else self._vendor()
                count = self._count(spec.get("value", 1), (*path, "value"))
                found.append(_Wish(vendor=vendor, count=count, place=(*path, "value")))
            else:
                self._report.add(
                    FindingReason.KEY_IGNORED, (*path, "kind"), f"The resource {clip(kind)} is not a GPU."
                )
        return found

    def _devices(self) -> tuple[list[_Wish], list[_Wish]]:
        """Read names of the Container Device Interface and device files, under ``devices`` and among the mounts."""
        service = self._service
        written: list[tuple[str, Path]] = []
        for index, entry in enumerate(service.get("devices") or []):
            source = entry.get("source") if isinstance(entry, dict) else _source(values.text(entry))
            written.append((values.text(source), service.at("devices", index)))
        written += [
            (entry.mount.source, entry.path) for entry in service.mounts if entry.mount.kind == "bind"
        ]
        paths = [(name if "=" in name else hostpaths.absolute(name), place) for name, place in written]
        named = [
            wish
            for vendor in Vendor
            if (mine := [(name, place) for name, place in paths if _cdi_vendor(name) is vendor])
            for wish in self._ids([name for name, _ in mine], vendor, mine[0][1])
        ]
        # The first one written counts first.
        named.sort(key=lambda wish: [place for _, place in paths].index(wish.place))
        return named, self._device_files(
            {name: place for name, place in paths if hostpaths.GPU_DEVICES.fullmatch(name)}
        )

    def _device_files(self, names: Mapping[str, Path]) -> list[_Wish]:
        nvidia = [name for name in names if name.startswith("/dev/nvidia")]
        renders = [name for name in names if _RENDER.fullmatch(name)]
        rest = [name for name in names if name not in nvidia]
        found: list[_Wish] = []
        if nvidia:
            count = sum(1 for name in nvidia if _NVIDIA_DEVICE.fullmatch(name)) or None
            found.append(_Wish(vendor=Vendor.NVIDIA, count=count, place=names[nvidia[0]]))
        if _WINDOWS in rest and self._environment == "nvidia":
            if not nvidia:
                found.append(_Wish(vendor=Vendor.NVIDIA, count=None, place=names[_WINDOWS]))
            rest.remove(_WINDOWS)
        if "/dev/kfd" in rest or (rest and self._environment == "amd"):
            place = names.get("/dev/kfd", names[rest[0]])
            found.append(_Wish(vendor=Vendor.AMD, count=len(renders) or None, place=place))
        else:
            self._unclear = {name: names[name] for name in rest}
        return sorted(found, key=lambda wish: list(names.values()).index(wish.place))

    def _runtime(self) -> list[_Wish]:
        """Read ``runtime`` and the variable by which a runtime, which may be Docker's own, is asked for GPUs."""
        runtime = self._service.get("runtime")
        path = self._service.at("runtime")
        if runtime in ("nvidia", "amd"):
            vendor = Vendor(runtime)
        else:
            if runtime:
                self._report.add(
                    FindingReason.RUNTIME_IGNORED, path, f"The runtime {clip(runtime)} is ignored."
                )
            if not self._hinted:
                return []
            vendor = Vendor.NVIDIA
        name = f"{vendor.name}_VISIBLE_DEVICES"
        visible = self._service.environment.get(name)
        if visible is None:
            return [_Wish(vendor=vendor, count=None, place=path)] if runtime == vendor else []
        self.variable, self.variable_place = name, variable_places(self._service)[name]
        # That it hides GPUs from the runtime doesn't take back what another form asks for.
        return [wish for wish in self._ids([visible], vendor, self.variable_place) if wish.count != 0]

    def _vendor(self) -> Vendor:
        if self._environment == "amd" or self._service.get("runtime") == "amd":
            return Vendor.AMD
        return Vendor.NVIDIA

    def _entry(self, entry: dict[str, Any], path: Path) -> list[_Wish]:
        driver = values.text(entry.get("driver")).lower()
        capabilities = [name.lower() for name in entry["capabilities"]]
        ids = values.strings(entry.get("device_ids"))
        count = entry.get("count")
        if count is not None and ids:
            self._report.add(FindingReason.BAD_VALUE, path, "count and device_ids can't be given together.")
        if driver == "cdi" or any(_CDI.fullmatch(name) for name in ids):
            vendors = dict.fromkeys(_cdi_vendor(name) or self._vendor() for name in ids or [""])
            return [
                wish
                for vendor in vendors
                for wish in self._ids(
                    [name for name in ids if (_cdi_vendor(name) or self._vendor()) is vendor],
                    vendor,
                    (*path, "device_ids"),
                )
            ]
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
                severity=Severity.WARNING,
                advice="Name the driver nvidia or amd; there are no GPUs of others.",
            )
        if ids:
            return self._ids(ids, vendor, (*path, "device_ids"))
        if count is None or values.text(count).lower() in ("all", "-1"):
            place = path if count is None else (*path, "count")
            return [_Wish(vendor=vendor, count=None, place=place)]
        place = (*path, "count")
        return [_Wish(vendor=vendor, count=self._count(count, place), place=place)]

    def _ids(self, ids: list[str], vendor: Vendor, path: Path) -> list[_Wish]:
        each = [name.strip().rpartition("=")[2] for entry in ids for name in entry.split(",")]
        names = [name for name in each if name.lower() not in _NONE]
        if "all" in names:
            return [_Wish(vendor=vendor, count=None, place=path)]
        ranges = [_range(name) for name in names]
        for ids_of_one in ranges:
            self._count(len(ids_of_one), path)
        count = len({single for ids_of_one in ranges for single in ids_of_one})
        return [_Wish(vendor=vendor, count=count, place=path, ids=", ".join(names))]

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


def _cdi_vendor(name: str) -> Vendor | None:
    match = _CDI.fullmatch(name)
    return Vendor(match.group(1)) if match else None


def _range(name: str) -> Collection[str]:
    """Return the ids that one stands for: ``0-3`` are four, and never many more than a machine can have."""
    match = _RANGE.fullmatch(name)
    if match is None:
        return [name]
    first, last = int(match.group(1)), int(match.group(2))
    return [str(number) for number in range(first, min(last, first + _MAX_COUNT) + 1)] or [name]
