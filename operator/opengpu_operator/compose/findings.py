"""Every reason a Compose file can be remarked on for, with its severity and what to do about it.

The table is the single source of the reference page: a reason that is not here can't be reported. The
:class:`Report` collects findings while a file goes through the pipeline, so that all of them come at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from opengpu_operator.api.findings import Finding, Severity

#: A place in a file: mapping keys and list indices from the top.
Path = tuple[str | int, ...]

#: More findings than this are counted, not kept: a hostile file could make one per node.
MAX_FINDINGS: Final = 500
#: About keys that are ignored although the program may need what they ask for.
LOST_ADVICE: Final = "Remove it if the program works without."
_SHOWN: Final = 200
_MESSAGE: Final = 1000


class FindingReason(StrEnum):
    """Stable words; renaming one is a breaking change."""

    # The file as a whole
    NOT_A_COMPOSE_FILE = "NotAComposeFile"
    TOO_LARGE = "TooLarge"
    TOO_DEEP = "TooDeep"
    TOO_MANY_NODES = "TooManyNodes"
    TOO_MANY_ALIASES = "TooManyAliases"
    BAD_ENCODING = "BadEncoding"
    BAD_YAML = "BadYaml"
    DUPLICATE_KEY = "DuplicateKey"
    MULTIPLE_DOCUMENTS = "MultipleDocuments"
    NO_SERVICES = "NoServices"
    TOO_MANY = "TooMany"
    TOO_MANY_FINDINGS = "TooManyFindings"

    # Form
    UNKNOWN_KEY = "UnknownKey"
    WRONG_TYPE = "WrongType"
    BAD_VALUE = "BadValue"
    MISSING_KEY = "MissingKey"
    BAD_INTERPOLATION = "BadInterpolation"
    VARIABLE_REQUIRED = "VariableRequired"
    VARIABLE_UNSET = "VariableUnset"
    UNDEFINED_REFERENCE = "UndefinedReference"
    DEPENDENCY_CYCLE = "DependencyCycle"
    EXTENDS_CYCLE = "ExtendsCycle"

    # Refused by policy
    PRIVILEGED = "Privileged"
    HOST_NAMESPACE = "HostNamespace"
    FOREIGN_NAMESPACE = "ForeignNamespace"
    CAPABILITY_REFUSED = "CapabilityRefused"
    DEVICE_REFUSED = "DeviceRefused"
    DEVICE_CGROUP_RULES = "DeviceCgroupRules"
    RUNTIME_SOCKET = "RuntimeSocket"
    HOST_PATH_REFUSED = "HostPathRefused"
    HOST_FILE = "HostFile"
    EXTERNAL_RESOURCE = "ExternalResource"
    REMOTE_FILE = "RemoteFile"
    BUILD_ONLY = "BuildOnly"
    AGENT_PORT = "AgentPort"
    UNSUPPORTED_KEY = "UnsupportedKey"

    # Changed
    BIND_REPLACED = "BindReplaced"
    BIND_DROPPED = "BindDropped"
    MOUNT_SHADOWED = "MountShadowed"
    VOLUME_OPTIONS_IGNORED = "VolumeOptionsIgnored"
    MODEL_CACHE = "ModelCache"
    VOLUME_STARTS_EMPTY = "VolumeStartsEmpty"
    SHM_SIZED = "ShmSized"
    NAME_CHANGED = "NameChanged"
    NAME_NOT_REWRITTEN = "NameNotRewritten"
    ALIAS_NOT_POSSIBLE = "AliasNotPossible"
    HOST_REFERENCE_REWRITTEN = "HostReferenceRewritten"
    HOST_REFERENCE_UNRESOLVED = "HostReferenceUnresolved"
    ENV_FILE_IGNORED = "EnvFileIgnored"
    ENV_STRIPPED = "EnvStripped"
    ENV_NAME_INVALID = "EnvNameInvalid"
    GPU_IDS_COUNTED = "GpuIdsCounted"
    GPU_COUNT_BY_POLICY = "GpuCountByPolicy"
    GPU_VENDOR_MISMATCH = "GpuVendorMismatch"
    GPU_IGNORED = "GpuIgnored"
    GPU_REMOVED = "GpuRemoved"
    CAPABILITY_DROPPED = "CapabilityDropped"
    SECURITY_OPTION_DROPPED = "SecurityOptionDropped"
    SYSCTL_DROPPED = "SysctlDropped"
    USER_NAME_IGNORED = "UserNameIgnored"
    GROUP_NAME_IGNORED = "GroupNameIgnored"
    COMMAND_CUT = "CommandCut"
    CANNOT_CLEAR = "CannotClear"
    HEALTHCHECK_WITHOUT_TEST = "HealthcheckWithoutTest"
    HEALTHY_WITHOUT_CHECK = "HealthyWithoutCheck"
    DEPENDENCY_INACTIVE = "DependencyInactive"
    DEPENDENCY_IN_SAME_POD = "DependencyInSamePod"
    RESOURCES_CLAMPED = "ResourcesClamped"
    LOOPBACK_PORT = "LoopbackPort"
    PORT_UNROUTED = "PortUnrouted"
    PORT_UNDECLARED = "PortUndeclared"
    SEVERAL_WORKERS = "SeveralWorkers"
    PLACEMENT_IGNORED = "PlacementIgnored"
    RUNTIME_IGNORED = "RuntimeIgnored"

    # Found between the files of one source
    ENVIRONMENTS_DIFFER = "EnvironmentsDiffer"

    LOOSE_VALUE = "LooseValue"

    # Ignored
    KEY_IGNORED = "KeyIgnored"
    PROFILE_INACTIVE = "ProfileInactive"


class Rule(NamedTuple):
    """What belongs to a reason."""

    severity: Severity
    meaning: str
    advice: str


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
_R = FindingReason

RULES: Final[Mapping[FindingReason, Rule]] = {
    _R.NOT_A_COMPOSE_FILE: Rule(
        _E, "The text is not a Compose file.", "Give the raw URL of a Docker Compose file."
    ),
    _R.TOO_LARGE: Rule(_E, "The file is larger than 256 KiB.", "Make the file smaller."),
    _R.TOO_DEEP: Rule(_E, "The file is nested more than 64 levels deep.", "Flatten the file."),
    _R.TOO_MANY_NODES: Rule(
        _E, "The file has more than 10,000 values once its aliases are expanded.", "Make the file smaller."
    ),
    _R.TOO_MANY_ALIASES: Rule(_E, "The file has more than 500 aliases.", "Use fewer aliases."),
    _R.BAD_ENCODING: Rule(_E, "The file is not plain UTF-8 text.", "Save the file as UTF-8."),
    _R.BAD_YAML: Rule(
        _E, "The file is not valid YAML.", "Correct the YAML; `docker compose config` shows the place."
    ),
    _R.DUPLICATE_KEY: Rule(_E, "A mapping has the same key twice.", "Remove one of the two."),
    _R.MULTIPLE_DOCUMENTS: Rule(
        _E, "The file holds several YAML documents.", "Put everything into one document."
    ),
    _R.NO_SERVICES: Rule(_E, "No service is active.", "Define services, or name the profiles to activate."),
    _R.TOO_MANY: Rule(_E, "The file asks for more than one job can have.", "Split the file."),
    _R.TOO_MANY_FINDINGS: Rule(
        _E, "The file has too many findings to list.", "Correct the listed ones first."
    ),
    _R.UNKNOWN_KEY: Rule(
        _E, "Compose doesn't know the key.", "Correct the spelling, or prefix the key with x-."
    ),
    _R.WRONG_TYPE: Rule(
        _E, "The value has the wrong type.", "Write the value as the Compose specification says."
    ),
    _R.BAD_VALUE: Rule(
        _E, "The value can't be understood.", "Write the value as the Compose specification says."
    ),
    _R.LOOSE_VALUE: Rule(
        _W,
        "Compose doesn't allow the value as it is written; it is read as what it can only mean.",
        "Write the value as the Compose specification says.",
    ),
    _R.MISSING_KEY: Rule(_E, "A key that Compose requires is missing.", "Add the key."),
    _R.BAD_INTERPOLATION: Rule(
        _E, "A variable reference can't be understood.", "Write ${NAME}, or $$ for a dollar sign."
    ),
    _R.VARIABLE_REQUIRED: Rule(
        _E, "The file requires a variable that is not set.", "Give the variable a default in the file."
    ),
    _R.VARIABLE_UNSET: Rule(
        _W,
        "A variable is not set; it is empty. A file sees only the variables of the network.",
        "Write ${NAME:-default}, or set the value in the task's env.",
    ),
    _R.UNDEFINED_REFERENCE: Rule(
        _E, "The file refers to something it doesn't define.", "Define it, or correct the name."
    ),
    _R.DEPENDENCY_CYCLE: Rule(
        _E, "Services wait for each other in a circle.", "Break the circle of depends_on."
    ),
    _R.EXTENDS_CYCLE: Rule(_E, "Services extend each other in a circle.", "Break the circle of extends."),
    _R.PRIVILEGED: Rule(
        _E, "The container asks for full control of the node.", "Remove privileged; GPUs don't need it."
    ),
    _R.HOST_NAMESPACE: Rule(
        _E, "The container asks to share a namespace of the node.", "Remove the key; publish ports instead."
    ),
    _R.FOREIGN_NAMESPACE: Rule(
        _E,
        "The container asks to join a container that is not in the file.",
        "Join a service of the file instead.",
    ),
    _R.CAPABILITY_REFUSED: Rule(_E, "The capability gives power over the node.", "Remove the capability."),
    _R.DEVICE_REFUSED: Rule(_E, "Only GPUs can be asked for as devices.", "Remove the device."),
    _R.DEVICE_CGROUP_RULES: Rule(
        _E, "Device rules give access to devices of the node.", "Remove device_cgroup_rules."
    ),
    _R.RUNTIME_SOCKET: Rule(
        _E,
        "The container asks to control the node's container runtime.",
        "Remove the socket; the service can't work without it, so remove the service too.",
    ),
    _R.HOST_PATH_REFUSED: Rule(
        _E, "The path belongs to the node's system.", "Remove the mount, or use a named volume."
    ),
    _R.HOST_FILE: Rule(
        _E,
        "The file refers to a file of the machine it was written on.",
        "Put the content into the file (content:).",
    ),
    _R.EXTERNAL_RESOURCE: Rule(
        _E, "The file needs something that was made outside of it.", "Define it in the file; remove external."
    ),
    _R.REMOTE_FILE: Rule(
        _E,
        "The file needs other files.",
        "Publish one self-contained file: `docker compose config` makes it.",
    ),
    _R.BUILD_ONLY: Rule(
        _E,
        "The service has to be built: it names no image.",
        "Push the image to a public registry and name it.",
    ),
    _R.AGENT_PORT: Rule(
        _E, "The port is the agent's, which takes the worker's answers on it.", "Use another port."
    ),
    _R.UNSUPPORTED_KEY: Rule(
        _E, "The key asks for something that does not exist in a cluster.", "Remove the key."
    ),
    _R.BIND_REPLACED: Rule(
        _W,
        "A path of the host becomes an empty volume.",
        "Put the data into the image, or have the program download it.",
    ),
    _R.BIND_DROPPED: Rule(
        _W,
        "A file of the host is not mounted: it isn't there.",
        "Put the file into the image, or inline it with configs: content.",
    ),
    _R.MOUNT_SHADOWED: Rule(
        _W, "Another mount has the same path; the last one counts.", "Remove one of the two."
    ),
    _R.VOLUME_OPTIONS_IGNORED: Rule(
        _W,
        "The volume's options have no meaning in a cluster.",
        "Set size and class in the source's spec.volumes.",
    ),
    _R.VOLUME_STARTS_EMPTY: Rule(
        _I,
        "The volume starts empty and belongs to root: nothing is copied from the image, as Docker does.",
        "Have the program make what it needs there; where it isn't root, write its number as user.",
    ),
    _R.MODEL_CACHE: Rule(
        _I,
        "The path holds downloaded models, so the volume is kept for the source's next tasks.",
        "Set scope: Task in the source's spec.volumes to have a fresh one each time.",
    ),
    _R.SHM_SIZED: Rule(
        _I, "Shared memory of the host becomes a /dev/shm of its own.", "Set shm_size to choose its size."
    ),
    _R.NAME_CHANGED: Rule(
        _W, "DNS doesn't allow the name, so it was changed.", "Use lower-case letters, digits and hyphens."
    ),
    _R.NAME_NOT_REWRITTEN: Rule(
        _W,
        "The value mentions a service whose name had to be changed, and may not mean the service.",
        "Rename the service so that DNS allows it.",
    ),
    _R.ALIAS_NOT_POSSIBLE: Rule(_W, "DNS doesn't allow the alias.", "Call the service by its own name."),
    _R.HOST_REFERENCE_REWRITTEN: Rule(
        _I,
        "An address of the host becomes the service that publishes the port.",
        "Call the service by its name.",
    ),
    _R.HOST_REFERENCE_UNRESOLVED: Rule(
        _W,
        "The value refers to the host, which a job can't reach.",
        "Call a service of the file by its name.",
    ),
    _R.ENV_FILE_IGNORED: Rule(
        _W, "The env file isn't there, so it counts as empty.", "Write the variables under environment."
    ),
    _R.ENV_STRIPPED: Rule(
        _W,
        "The variable steers the GPU runtime or the loader outside of the container, so it is left out.",
        "Remove the variable; GPUs that are asked for are visible anyway.",
    ),
    _R.ENV_NAME_INVALID: Rule(
        _W,
        "Not every release of Kubernetes allows the variable's name, so it is left out.",
        "Use letters, digits, dots, hyphens and underscores, and no digit first.",
    ),
    _R.GPU_IDS_COUNTED: Rule(
        _W, "GPUs can't be chosen by id; their number counts.", "Ask for a number: count: 2."
    ),
    _R.GPU_COUNT_BY_POLICY: Rule(
        _I, "All GPUs of a node means what the cluster's owner says it means.", "Ask for a number: count: 2."
    ),
    _R.GPU_VENDOR_MISMATCH: Rule(
        _W,
        "The GPUs are of another make than the environment the file is offered for.",
        "Offer the file for the environment of its GPUs.",
    ),
    _R.GPU_IGNORED: Rule(
        _W, "The device alone doesn't say which GPU is meant.", "Ask for GPUs under deploy.resources."
    ),
    _R.GPU_REMOVED: Rule(
        _W,
        "The service asks for GPUs in the file for cpu, where it gets none.",
        "Offer the file for the environment of its GPUs.",
    ),
    _R.CAPABILITY_DROPPED: Rule(
        _W, "The capability is not given.", "Remove it if the program works without."
    ),
    _R.SECURITY_OPTION_DROPPED: Rule(
        _W, "Protections are never loosened.", "Remove the option if the program works without."
    ),
    _R.SYSCTL_DROPPED: Rule(_W, "The kernel setting is not among the safe ones.", "Remove it."),
    _R.USER_NAME_IGNORED: Rule(
        _W, "Users can be given by number only; the image's own user is used.", "Write the user's number."
    ),
    _R.GROUP_NAME_IGNORED: Rule(
        _W,
        "Groups can be given by number only.",
        "Write the group's number; those of AMD's GPUs are given anyway.",
    ),
    _R.COMMAND_CUT: Rule(
        _W,
        "Compose runs no shell: it drops what follows a shell operator.",
        'Write ["sh", "-c", "…"] for a shell.',
    ),
    _R.CANNOT_CLEAR: Rule(_W, "An image's own command can't be cleared.", "Name the command to run."),
    _R.HEALTHCHECK_WITHOUT_TEST: Rule(
        _W,
        "The check is the image's own, which a cluster doesn't see.",
        "Repeat the image's test in the file.",
    ),
    _R.HEALTHY_WITHOUT_CHECK: Rule(
        _W,
        "A service is waited for to be healthy but has no check; it counts as healthy once it started.",
        "Add a healthcheck to it.",
    ),
    _R.DEPENDENCY_INACTIVE: Rule(
        _W, "A service depends on one that is not active.", "Activate its profile, or set required: false."
    ),
    _R.DEPENDENCY_IN_SAME_POD: Rule(
        _W,
        "Two services that share a network are started together.",
        "Let the one retry until the other answers.",
    ),
    _R.RESOURCES_CLAMPED: Rule(
        _W, "A reservation is larger than its limit; the limit counts for both.", "Correct the reservation."
    ),
    _R.LOOPBACK_PORT: Rule(
        _I,
        "The port is published on loopback only, so it gets no URL by default.",
        "List it in the task's ports.",
    ),
    _R.PORT_UNROUTED: Rule(
        _W,
        "Several services have the port and no published number of their own, so it gets no URL by default.",
        "Publish each on a host port of its own.",
    ),
    _R.PORT_UNDECLARED: Rule(
        _W,
        "Other services reach long ranges of ports, and those of SCTP, but they get no URL.",
        "Publish a port that needs a URL in an entry of its own.",
    ),
    _R.SEVERAL_WORKERS: Rule(
        _W,
        "Several services publish the worker's port 5555; the first one is the worker.",
        "Publish it once.",
    ),
    _R.PLACEMENT_IGNORED: Rule(
        _W,
        "A file doesn't choose the nodes of somebody else's cluster, but by labels that its owner allows.",
        "Remove the constraint.",
    ),
    _R.RUNTIME_IGNORED: Rule(_W, "Container runtimes are chosen by the cluster's owner.", "Remove runtime."),
    _R.ENVIRONMENTS_DIFFER: Rule(
        _W,
        "The source's file for another environment offers something else, so tasks depend on where they run.",
        "Offer the same in all of the source's files, or make two sources.",
    ),
    _R.KEY_IGNORED: Rule(_I, "The key has no effect in a cluster.", "Nothing needs to be done."),
    _R.PROFILE_INACTIVE: Rule(
        _I, "The service belongs to profiles that are not active.", "Name a profile to run it too."
    ),
}


def format_path(path: Path) -> str:
    """Return a place as people write it: ``services.web.ports[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{clip(part)}" if text else clip(part)
    return text


def clip(text: object, length: int = _SHOWN) -> str:
    """Return a value from the file in a form fit for a message: one line, bounded, printable."""
    whole = str(text)
    cut = whole if len(whole) <= length else whole[: length - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


class Report:
    """The findings of one file, in the order of their lines."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self._errors = 0
        self._dropped = 0
        self.positions: Mapping[Path, tuple[int, int]] = {}
        """Line and column by place; set once the file is loaded."""

    def add(
        self,
        reason: FindingReason,
        path: Path = (),
        message: str = "",
        *,
        severity: Severity | None = None,
        advice: str = "",
        at: tuple[int, int] | None = None,
    ) -> None:
        """Remember one finding; what the reason's rule says is used where nothing is given."""
        rule = RULES[reason]
        severity = severity or rule.severity
        if severity is Severity.ERROR:
            self._errors += 1
        if len(self._findings) >= MAX_FINDINGS:
            self._dropped += 1
            return
        line, column = at or self._locate(path)
        finding = Finding(
            severity=severity,
            reason=reason.value,
            path=format_path(path),
            line=line,
            column=column,
            # Keys and names of the file are in it, and terminals and logs are where it ends.
            message=clip(message or rule.meaning, _MESSAGE),
            advice=advice or rule.advice,
        )
        self._findings.setdefault((finding.reason, finding.path, finding.message), finding)

    def count(self, errors: int) -> None:
        """Count errors that are too many to be described."""
        self._errors += errors
        self._dropped += errors

    @property
    def refused(self) -> bool:
        """Whether anything found so far forbids to run the file."""
        return self._errors > 0

    @property
    def unreadable(self) -> bool:
        """Whether the file isn't YAML at all."""
        return any(finding.reason == FindingReason.BAD_YAML for finding in self._findings.values())

    def take(self, other: Report) -> None:
        """Take over the findings of another report."""
        self._findings.update(other._findings)
        self._errors += other._errors
        self._dropped += other._dropped

    def findings(self) -> list[Finding]:
        """Return what was found: by line, then in the order of discovery."""
        found = sorted(self._findings.values(), key=lambda finding: finding.line or 0)
        if self._dropped:
            rule = RULES[FindingReason.TOO_MANY_FINDINGS]
            found.append(
                Finding(
                    severity=rule.severity if self._errors else Severity.WARNING,
                    reason=FindingReason.TOO_MANY_FINDINGS.value,
                    message=f"{self._dropped} more findings are not listed.",
                    advice=rule.advice,
                )
            )
        return found

    def _locate(self, path: Path) -> tuple[int | None, int | None]:
        for length in range(len(path), 0, -1):
            position = self.positions.get(path[:length])
            if position is not None:
                return position
        return None, None
