"""What making a job changed or chose, or why none can be made: said in addition to the findings of the file itself.

The table is the single source of the reference page, as in the translator: a reason that is not here can't be
reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from opengpu_operator.api.findings import Finding, Severity


class JobFinding(StrEnum):
    """Stable words; renaming one is a breaking change. The same word as in a file means the same."""

    CAPABILITY_DROPPED = "CapabilityDropped"
    COMPOSE_REFUSED = "ComposeRefused"
    DEPENDENCY_WITHOUT_REPLICAS = "DependencyWithoutReplicas"
    ENV_STRIPPED = "EnvStripped"
    GRACE_PERIOD_CAPPED = "GracePeriodCapped"
    HOST_ALIAS_DROPPED = "HostAliasDropped"
    NEVER_COMPLETES = "NeverCompletes"
    PLACED_BEFORE_GPU = "PlacedBeforeGpu"
    PORT_NOT_ROUTED = "PortNotRouted"
    PORT_OF_MAIN_SERVICE = "PortOfMainService"
    PORT_OPTION_IGNORED = "PortOptionIgnored"
    PORTS_CUT = "PortsCut"
    VOLUME_REPLACED = "VolumeReplaced"


class Rule(NamedTuple):
    """What belongs to a reason."""

    severity: Severity
    meaning: str
    advice: str


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_J = JobFinding

RULES: Final[Mapping[JobFinding, Rule]] = {
    _J.CAPABILITY_DROPPED: Rule(
        _W, "The restricted profile has no room for the capability.", "Use an image that does without it."
    ),
    _J.COMPOSE_REFUSED: Rule(
        _E, "No job can be made of the file.", "Change what the message names, in the file or in the task."
    ),
    _J.DEPENDENCY_WITHOUT_REPLICAS: Rule(
        _W,
        "The service that is waited for has no replicas, so nothing waits for it.",
        "Give it a replica, or remove it from depends_on.",
    ),
    _J.ENV_STRIPPED: Rule(
        _W,
        "The variable would reach around what the container was given.",
        "Ask for GPUs under resources; CUDA_VISIBLE_DEVICES chooses among those.",
    ),
    _J.GRACE_PERIOD_CAPPED: Rule(
        _W,
        "A pod keeps its GPUs and volumes until it has stopped, so the time for it is cut.",
        "Let the service stop within five minutes.",
    ),
    _J.HOST_ALIAS_DROPPED: Rule(
        _W, "The extra host would take the store's name.", "Use another name for the host."
    ),
    _J.NEVER_COMPLETES: Rule(
        _W,
        "A service waits until another has ended, which is kept running.",
        "Wait for service_healthy instead.",
    ),
    _J.PLACED_BEFORE_GPU: Rule(
        _W,
        "A service that runs first chooses the node of a volume that a GPU service needs later.",
        "Set the GPUs' nodeSelector in the operator's settings, so that it starts on a node with GPUs.",
    ),
    _J.PORT_NOT_ROUTED: Rule(
        _W,
        "What the task asks for can't be had from the ingress controller, so the port has no URL rather than an "
        "open one.",
        "Ask for less in access or portOptions, or let the cluster's owner see settings.routes.profile.",
    ),
    _J.PORT_OF_MAIN_SERVICE: Rule(
        _I,
        "No service declares the port, so the main service is taken to listen on it.",
        "Declare the port under the service's ports or expose.",
    ),
    _J.PORT_OPTION_IGNORED: Rule(
        _W,
        "The ingress controller can't be told the limit, so its own counts.",
        "Remove it from portOptions, or let the cluster's owner set the controller's own limit.",
    ),
    _J.PORTS_CUT: Rule(
        _W,
        "The file publishes more ports than a task has URLs.",
        "List the ports that matter in the task's spec.ports.",
    ),
    _J.VOLUME_REPLACED: Rule(
        _W, "The path is GPUX's; what the file mounts there is left out.", "Mount it somewhere else."
    ),
}


def remark(reason: JobFinding, *, path: str, message: str = "", severity: Severity | None = None) -> Finding:
    """Return a finding; what the reason's rule says is used where nothing is given."""
    rule = RULES[reason]
    return Finding(
        severity=severity or rule.severity,
        reason=reason.value,
        path=path,
        message=message or rule.meaning,
        advice=rule.advice,
    )
