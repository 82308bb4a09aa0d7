"""What a source's files offer differently: a task may run on any hardware, and should find the same thing there.

A warning is what a client of the source notices: where functions can be called, which ports have URLs, what ends by
itself. The rest is a remark. GPUs differ by design, and so do the variables that steer them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from opengpu_operator.api.findings import Finding, Severity
from opengpu_operator.api.labels import WORKER_PORT
from opengpu_operator.api.source import Environment
from opengpu_operator.api.translation import Restart, Service, Translation
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip

_SHOWN: Final = 5
_GPU_VARIABLE: Final = re.compile(r"(?:PYTORCH_)?(?:CUDA|NVIDIA|NCCL|HIP|HSA|ROCM|ROCR|AMD|MIOPEN)_.*")
_HUB: Final = re.compile(r"(?:(?:index\.)?docker\.io/)?(?:library/)?")


def compare(translations: Mapping[Environment, Translation]) -> dict[Environment, list[Finding]]:
    """Return how each environment's file differs from the first one's, in the order cpu, nvidia, amd.

    Refused files offer nothing and aren't compared. An environment without differences isn't in the result.
    """
    sides = [
        _Side(environment.value, translations[environment])
        for environment in Environment
        if environment in translations and not translations[environment].refused
    ]
    found = {Environment(side.name): _Comparison(side, sides[0]).findings() for side in sides[1:]}
    return {environment: findings for environment, findings in found.items() if findings}


@dataclass(frozen=True)
class _Side:
    """One of the two files."""

    name: str
    file: Translation

    @property
    def services(self) -> dict[str, Service]:
        return {service.name: service for service in self.file.services}

    @property
    def volumes(self) -> list[str]:
        """What the source's spec.volumes calls them."""
        return [volume.label for volume in self.file.volumes.values() if volume.origin == "named"]


class _Comparison:
    def __init__(self, here: _Side, there: _Side) -> None:
        self._here, self._there = here, there
        self._report = Report()

    def findings(self) -> list[Finding]:
        here, there = self._here.services, self._there.services
        if (self._here.file.worker is None) is not (self._there.file.worker is None):
            only = self._one(here=self._here.file.worker is not None)
            self._add(("services",), f"Functions can be called in {only} only: the other file has no worker.")
        for name in {**there, **here}:
            if name in here and name in there:
                self._service(here[name], there[name])
            else:
                self._add(
                    ("services", name),
                    f"There is {clip(name)} in {self._one(here=name in here)} only.",
                    remark=self._have_urls(_urls([here.get(name) or there[name]])),
                )
        self._names(("volumes",), "Volumes", self._here.volumes, self._there.volumes)
        return self._report.findings()

    def _service(self, here: Service, there: Service) -> None:
        """Compare what both files call by the same name."""
        path = ("services", here.name)
        ports = _urls([here]), _urls([there])
        listed = [[str(port) for port in sorted(found)] for found in ports]
        self._names((*path, "ports"), "Published ports", *listed, remark=self._have_urls(ports[0] ^ ports[1]))
        if _ends(here) is not _ends(there):
            ends = self._one(here=_ends(here))
            self._add((*path, "restart"), f"It runs to its end in {ends}, and is kept running in the other.")
        self._names((*path, "environment"), "Variables", _variables(here), _variables(there))
        images = _repository(here), _repository(there)
        if images[0] != images[1]:
            said = f"{clip(images[0])} in {self._here.name}, {clip(images[1])} in {self._there.name}"
            self._add((*path, "image"), f"The images differ: {said}.", remark=True)
        if _is_checked(here) is not _is_checked(there):
            only = self._one(here=_is_checked(here))
            self._add((*path, "healthcheck"), f"Its health is checked in {only} only.", remark=True)

    def _one(self, *, here: bool) -> str:
        return self._here.name if here else self._there.name

    def _have_urls(self, ports: Iterable[int]) -> bool:
        """Whether ports have URLs in both files, whichever service it is that listens."""
        both = _urls(self._here.file.services) & _urls(self._there.file.services)
        return both.issuperset(ports)

    def _names(
        self, path: Path, what: str, here: Iterable[str], there: Iterable[str], *, remark: bool = True
    ) -> None:
        here, there = dict.fromkeys(here), dict.fromkeys(there)
        only = {
            self._here.name: [name for name in here if name not in there],
            self._there.name: [name for name in there if name not in here],
        }
        said = [f"{_some(names)} in {side} only" for side, names in only.items() if names]
        if said:
            self._add(path, f"{what} differ: {'; '.join(said)}.", remark=remark)

    def _add(self, path: Path, message: str, *, remark: bool = False) -> None:
        self._report.add(
            FindingReason.ENVIRONMENTS_DIFFER,
            path,
            message,
            severity=Severity.INFO if remark else None,
            advice="Nothing needs to be done if it is meant." if remark else "",
        )


def _urls(services: Iterable[Service]) -> set[int]:
    """Return the ports that have a URL each."""
    return {
        port.container
        for service in services
        for port in service.ports
        if port.protocol == "TCP" and not port.exposed_only and port.container != WORKER_PORT
    }


def _ends(service: Service) -> bool:
    return service.restart in {Restart.NO, Restart.ON_FAILURE}


def _is_checked(service: Service) -> bool:
    return "readinessProbe" in service.container


def _variables(service: Service) -> list[str]:
    names = (entry["name"] for entry in service.container.get("env") or ())
    return [name for name in names if not _GPU_VARIABLE.fullmatch(name)]


def _repository(service: Service) -> str:
    """Return an image's name without digest, without tag, and without what Docker adds to short ones."""
    head, slash, last = service.container["image"].partition("@")[0].rpartition("/")
    return _HUB.sub("", head + slash + last.partition(":")[0], count=1)


def _some(names: list[str]) -> str:
    shown = ", ".join(clip(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
