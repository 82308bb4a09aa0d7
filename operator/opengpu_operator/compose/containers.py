"""The parts of a container and its pod that kompose drops or gets wrong, each from its Compose keys."""

from __future__ import annotations

import math
import posixpath
import re
from typing import Any, Final

from opengpu_operator.api.findings import Severity
from opengpu_operator.api.translation import GpuRequest, Restart, TranslateOptions, Vendor
from opengpu_operator.compose import values
from opengpu_operator.compose.findings import FindingReason, Path, Report, clip, format_path
from opengpu_operator.compose.policy import ALLOWED_CAPABILITIES, DROPPED_CAPABILITIES, capability
from opengpu_operator.compose.project import Definition

_ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
#: They steer what NVIDIA's and AMD's hooks do outside of the container, or what the loader runs in them.
_STRIPPED: Final = re.compile(
    r"(?:NVIDIA|AMD)_VISIBLE_DEVICES|NVIDIA_(?:MIG_(?:CONFIG|MONITOR)_DEVICES|IMEX_CHANNELS|GDS|MOFED|GDRCOPY|NVSWITCH)"
    r"|LD_(?:PRELOAD|AUDIT|DEBUG|DEBUG_OUTPUT|PROFILE|PROFILE_OUTPUT|ORIGIN_PATH|DYNAMIC_WEAK)|GLIBC_TUNABLES|GCONV_PATH"
)
_GPU_VARIABLES: Final = ("NVIDIA_", "AMD_")
_LOADER_ADVICE: Final = "Set the variable in the command where the program needs it: env NAME=value program."
_ABSOLUTE: Final = re.compile(r"/(?!/|(?:proc|dev)(?:/|\Z))")
_REFERENCE: Final = re.compile(r"\$(?=[$(]|[^\x00-\x7f])")
_SAFE_SYSCTLS: Final = frozenset(
    {
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    }
)
_LOOSENING: Final = re.compile(r"unconfined|disable|label|\bfalse\b|systempaths|\.json", re.IGNORECASE)
_MAX_ID: Final = 2**31 - 1
_ID_DIGITS: Final = 10
#: They own the devices of AMD's GPUs; the cluster's settings say their numbers.
_GPU_GROUPS: Final = frozenset({"render", "video"})
_MAX_REPLICAS: Final = 100
_DEFAULT_RETRIES: Final = 3
_MAX_RETRIES: Final = 10_000
_DEFAULT_SECONDS: Final = 30
_DEFAULT_START_INTERVAL: Final = 5
_LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "386": "386",
    **{name: name for name in ("amd64", "arm64", "arm", "ppc64le", "riscv64", "s390x")},
}


def escape(value: str) -> str:
    """Return a value that Kubernetes expands to what it was.

    Kubernetes reads ``$(NAME)`` as a reference and ``$$`` as a dollar sign in env, command, args and probes, and
    takes a byte of a character after a lone ``$`` for the character.
    """
    return _REFERENCE.sub("$$", value)


def environment(
    service: Definition, options: TranslateOptions, report: Report, *, taken: str | None = None
) -> dict[str, str]:
    """Return the variables that a service gets; the values aren't escaped yet.

    ``taken`` is the one that was read as the request for GPUs, of which that is said already.
    """
    result: dict[str, str] = {}
    places = variable_places(service)
    for name, written in service.environment.items():
        path = places[name]
        value = written
        if value is None:
            value = options.variables.get(name)
            if value is None:
                report.add(
                    FindingReason.VARIABLE_UNSET,
                    path,
                    f"{clip(name)} has no value, and no variable of that name is set: it is left out.",
                )
                continue
        if name == "LD_LIBRARY_PATH":
            value = _without_nothing(value)
        if not _ENV_NAME.fullmatch(name):
            report.add(FindingReason.ENV_NAME_INVALID, path, f"{clip(name)!r} is no name of a variable.")
        elif name == taken:
            continue
        elif is_stripped(name, value):
            advice = "" if name.startswith(_GPU_VARIABLES) else _LOADER_ADVICE
            report.add(FindingReason.ENV_STRIPPED, path, f"{name} is left out.", advice=advice)
        else:
            result[name] = value
    return result


def variable_places(service: Definition) -> dict[str, Path]:
    """Return where each variable is written."""
    written = service.get("environment")
    if not isinstance(written, list):
        return {name: service.at("environment", name) for name in service.environment}
    return {
        values.text(entry).partition("=")[0].strip(): service.at("environment", index)
        for index, entry in enumerate(written)
    }


def is_stripped(name: str, value: str) -> bool:
    """Whether a variable reaches outside of its container."""
    if name == "LD_LIBRARY_PATH":
        # Absolute directories are the image's own; the GPU hooks search relative ones too, and those of their process.
        return value != "" and not all(
            _ABSOLUTE.match(posixpath.normpath(entry)) for entry in re.split("[:;]", value)
        )
    return bool(_STRIPPED.fullmatch(name))


def _without_nothing(paths: str) -> str:
    """Return a list of directories without empty ones (a variable that isn't set), which would mean the current one."""
    return ":".join(entry for entry in paths.split(":") if entry and not entry.startswith("$"))


def command(service: Definition, report: Report) -> tuple[list[str], list[str]]:
    """Return Kubernetes' ``command`` and ``args``, not escaped; empty where the image's own are used."""
    words: dict[str, list[str] | None] = {}
    for key in ("entrypoint", "command"):
        written = service.get(key)
        if written is None:
            words[key] = None
            continue
        parsed = values.command(written)
        words[key] = parsed.words
        if parsed.cut:
            report.add(
                FindingReason.COMMAND_CUT,
                service.at(key),
                f"Compose drops {clip(parsed.cut.strip())!r}: it runs no shell.",
            )
    entrypoint, arguments = words["entrypoint"], words["command"]
    if entrypoint == [] and arguments:
        # The image's entrypoint is cleared, so the command is run itself.
        return arguments, []
    if entrypoint == []:
        report.add(
            FindingReason.CANNOT_CLEAR,
            service.at("entrypoint"),
            "The entrypoint is cleared but nothing is run.",
        )
    if arguments == [] and not entrypoint:
        report.add(FindingReason.CANNOT_CLEAR, service.at("command"), "The image's command can't be cleared.")
    return entrypoint or [], arguments or []


def readiness(service: Definition, report: Report) -> dict[str, Any] | None:
    """Return a readiness probe with Compose's timing, its command not escaped; None without a check."""
    check = service.get("healthcheck")
    if check is None or (check.get("disable") is not None and values.boolean(check["disable"])):
        return None
    test = check.get("test")
    path = service.at("healthcheck")
    if test is None:
        report.add(FindingReason.HEALTHCHECK_WITHOUT_TEST, path)
        return None
    words = values.strings(test) if isinstance(test, list) else ["CMD-SHELL", test]
    if not words or words[0] == "NONE" or words == ["CMD-SHELL", ""]:
        return None
    if words[0] == "CMD" and len(words) > 1:
        run = words[1:]
    elif words[0] == "CMD-SHELL" and len(words) > 1:
        run = ["/bin/sh", "-c", " ".join(words[1:])]
    else:
        report.add(
            FindingReason.BAD_VALUE,
            (*path, "test"),
            "A test is a string, or a list that starts with CMD, CMD-SHELL or NONE and goes on.",
        )
        return None
    period = interval = _seconds(check.get("interval"), _DEFAULT_SECONDS)
    if check.get("start_interval") is not None and values.duration(check.get("start_period") or 0) > 0:
        period = min(interval, _seconds(check["start_interval"], _DEFAULT_START_INTERVAL))
    retries = _retries(check.get("retries") or 0)
    # Asking more often must not mean giving up sooner.
    failures = math.ceil((retries or _DEFAULT_RETRIES) * interval / period)
    return {
        "exec": {"command": run},
        "periodSeconds": period,
        "timeoutSeconds": _seconds(check.get("timeout"), _DEFAULT_SECONDS),
        "failureThreshold": min(failures, _MAX_RETRIES),
        "successThreshold": 1,
    }


def _seconds(value: Any, default: int) -> int:
    """Return whole seconds, at least one: Kubernetes knows no fractions. Zero means the default, as in Docker."""
    seconds = values.duration(value) if value is not None else 0.0
    return max(1, math.ceil(seconds)) if seconds else default


def user(service: Definition, options: TranslateOptions, report: Report) -> dict[str, int]:
    """Return ``runAsUser`` and ``runAsGroup``, as far as they are numbers."""
    written = values.text(service.get("user")).strip()
    if not written:
        return {}
    name, _, group = written.partition(":")
    result: dict[str, int] = {}
    for key, value in (("runAsUser", name), ("runAsGroup", group)):
        number = _identity(value)
        if number is None:
            if value:
                report.add(
                    FindingReason.USER_NAME_IGNORED, service.at("user"), f"{clip(value)} is not a number."
                )
        elif number == 0 and options.restricted and key == "runAsUser":
            report.add(
                FindingReason.USER_NAME_IGNORED, service.at("user"), "This cluster runs nothing as root."
            )
        else:
            result[key] = number
    return result


def _identity(value: str) -> int | None:
    if value == "root":
        return 0
    if value.isascii() and value.isdigit() and len(value) <= _ID_DIGITS and int(value) <= _MAX_ID:
        return int(value)
    return None


def groups(service: Definition, asked: GpuRequest | None, report: Report) -> list[int]:
    """Return supplemental groups, as far as they are numbers; who gets AMD's GPUs gets their groups anyway."""
    result: dict[int, None] = {}
    is_amd = asked is not None and asked.vendor is Vendor.AMD
    for index, written in enumerate(values.strings(service.get("group_add"))):
        number = _identity(written.strip())
        if number is None and is_amd and written.strip() in _GPU_GROUPS:
            continue
        if number is None:
            report.add(
                FindingReason.GROUP_NAME_IGNORED,
                service.at("group_add", index),
                f"{clip(written)} is not a number.",
            )
        else:
            result[number] = None
    return list(result)


def capabilities(service: Definition, options: TranslateOptions, report: Report) -> dict[str, list[str]]:
    """Return capabilities to add and to drop."""
    allowed = frozenset({"NET_BIND_SERVICE"}) if options.restricted else ALLOWED_CAPABILITIES
    added: list[str] = []
    for index, written in enumerate(values.strings(service.get("cap_add"))):
        name = capability(written)
        if name in allowed:
            added.append(name)
        elif name in ALLOWED_CAPABILITIES | DROPPED_CAPABILITIES:
            # The policy refuses the others.
            report.add(
                FindingReason.CAPABILITY_DROPPED,
                service.at("cap_add", index),
                f"The capability {clip(name)} is not given.",
            )
    dropped = [capability(written) for written in values.strings(service.get("cap_drop"))]
    result = {"add": list(dict.fromkeys(added)), "drop": list(dict.fromkeys(dropped))}
    return {key: entries for key, entries in result.items() if entries}


def report_security_options(service: Definition, report: Report) -> None:
    """Report options that would loosen a protection; those that tighten one are kept anyway."""
    for index, written in enumerate(values.strings(service.get("security_opt"))):
        if not written.startswith("no-new-privileges") or _LOOSENING.search(written):
            report.add(
                FindingReason.SECURITY_OPTION_DROPPED,
                service.at("security_opt", index),
                f"{clip(written)} is dropped.",
            )


def sysctls(service: Definition, report: Report) -> list[dict[str, str]]:
    """Return the safe kernel settings."""
    result: list[dict[str, str]] = []
    for name, value in values.variables(service.get("sysctls")).items():
        if name in _SAFE_SYSCTLS and value is not None:
            result.append({"name": name, "value": value})
        else:
            report.add(FindingReason.SYSCTL_DROPPED, service.at("sysctls"), f"{clip(name)} is not set.")
    return result


def resources(service: Definition, report: Report) -> dict[str, dict[str, str]]:
    """Return limits and requests of CPU and memory, as Kubernetes' quantities."""
    asked: dict[str, dict[str, float]] = {"limits": {}, "requests": {}}
    places: dict[tuple[str, str], Path] = {}
    for key, place, resource in (
        ("limits", ("cpus",), "cpu"),
        ("limits", ("mem_limit",), "memory"),
        ("requests", ("mem_reservation",), "memory"),
        ("limits", ("deploy", "resources", "limits", "cpus"), "cpu"),
        ("limits", ("deploy", "resources", "limits", "memory"), "memory"),
        ("requests", ("deploy", "resources", "reservations", "cpus"), "cpu"),
        ("requests", ("deploy", "resources", "reservations", "memory"), "memory"),
    ):
        written = service.get(*place)
        amount = (
            0.0 if written is None else values.number(written) if resource == "cpu" else values.size(written)
        )
        if amount <= 0:
            continue
        if asked[key].setdefault(resource, amount) != amount:
            _contradiction(service, places[key, resource], place, report)
        places[key, resource] = place
    for resource, amount in list(asked["requests"].items()):
        limit = asked["limits"].get(resource)
        if limit is not None and amount > limit:
            asked["requests"][resource] = limit
            report.add(
                FindingReason.RESOURCES_CLAMPED,
                service.at(*places["requests", resource]),
                f"The reservation of {resource} is larger than its limit; the limit counts.",
            )
    return {
        key: {
            name: f"{math.ceil(amount * 1000)}m" if name == "cpu" else str(int(amount))
            for name, amount in entry.items()
        }
        for key, entry in asked.items()
        if entry
    }


def restart(service: Definition, report: Report) -> tuple[Restart, int | None]:
    """Return what happens when a service ends, and how often it is tried again."""
    result: tuple[Restart, int | None] = (Restart.UNSET, None)
    written = service.get("restart")
    if written is not None:
        name, _, count = values.text(written).strip().partition(":")
        retries = _retries(count[:_ID_DIGITS]) if count.isascii() and count.isdigit() else None
        match name:
            case "no" | "false":
                result = (Restart.NO, None)
            case "always" | "unless-stopped":
                result = (Restart.ALWAYS, None)
            case "on-failure" if not count or retries is not None:
                result = (Restart.ON_FAILURE, retries)
            case "":
                pass
            case _:
                report.add(
                    FindingReason.BAD_VALUE, service.at("restart"), f"{clip(written)} is no restart policy."
                )
    policy = service.get("deploy", "restart_policy")
    if policy is not None:
        attempts = policy.get("max_attempts")
        match policy.get("condition") or "any":
            case "none" | "no":
                result = (Restart.NO, None)
            case "on-failure":
                result = (Restart.ON_FAILURE, None if attempts is None else _retries(attempts))
            case "any" | "always" | "unless-stopped":
                result = (Restart.ALWAYS, None)
            case other:
                path = service.at("deploy", "restart_policy", "condition")
                report.add(FindingReason.BAD_VALUE, path, f"{clip(other)} is no condition to restart.")
        if attempts is not None and result[0] is not Restart.ON_FAILURE:
            report.add(
                FindingReason.KEY_IGNORED,
                service.at("deploy", "restart_policy", "max_attempts"),
                "max_attempts is ignored: only on-failure counts.",
                severity=Severity.WARNING,
            )
    if (
        service.get("deploy", "mode") in ("replicated-job", "global-job")
        and result[0] is not Restart.ON_FAILURE
    ):
        result = (Restart.NO, None)
    return result


def _retries(written: Any) -> int:
    return max(0, min(values.integer(written), _MAX_RETRIES))


def replicas(service: Definition, report: Report) -> int:
    """Return how many pods a service asks for."""
    found: list[int] = []
    for place in (("deploy", "replicas"), ("scale",)):
        written = service.get(*place)
        if written is None:
            continue
        count = values.integer(written)
        found.append(count)
        if not 0 <= count <= _MAX_REPLICAS:
            report.add(
                FindingReason.BAD_VALUE,
                service.at(*place),
                f"A service has from 0 to {_MAX_REPLICAS} replicas, not {count}.",
            )
    if len(set(found)) > 1:
        _contradiction(service, ("scale",), ("deploy", "replicas"), report)
    return found[0] if found else 1


def _contradiction(service: Definition, place: Path, other: Path, report: Report) -> None:
    report.add(
        FindingReason.BAD_VALUE,
        service.at(*place),
        f"{format_path(place)} says something else than {format_path(other)}.",
        advice="Remove one of the two.",
    )


def update_parallelism(service: Definition, report: Report) -> int:
    """Return how many pods of a service are replaced at once; 0 is all of them."""
    written = service.get("deploy", "update_config", "parallelism")
    count = 1 if written is None else values.integer(written)
    if 0 <= count <= _MAX_REPLICAS:
        return count
    report.add(
        FindingReason.BAD_VALUE,
        service.at("deploy", "update_config", "parallelism"),
        f"From 0 to {_MAX_REPLICAS} replicas are updated at once, not {count}.",
    )
    return 1


def node_selector(service: Definition, options: TranslateOptions, report: Report) -> dict[str, str]:
    """Return what a service asks of its node: the architecture, and labels that the cluster's owner allows.

    Other wishes about nodes are reported.
    """
    result: dict[str, str] = {}
    wishes: list[tuple[str, tuple[str | int, ...], str]] = []
    allowed = {f"node.labels.{label}": label for label in options.placement_labels}
    platform = service.get("platform")
    if platform:
        system, _, machine = platform.partition("/")
        architecture = _ARCHITECTURES.get(machine.partition("/")[0] or system)
        if architecture and (system == "linux" or not machine):
            result["kubernetes.io/arch"] = architecture
        elif platform != "linux":
            wishes.append((platform, ("platform",), "Name a platform of Linux, or none: nodes run Linux."))
    for index, written in enumerate(service.get("deploy", "placement", "constraints") or []):
        name, _, value = (part.strip() for part in values.text(written).partition("=="))
        if name == "node.platform.arch" and value in _ARCHITECTURES:
            result["kubernetes.io/arch"] = _ARCHITECTURES[value]
        elif name in allowed and _LABEL_VALUE.fullmatch(value):
            result[allowed[name]] = value
        elif (name, value) != ("node.platform.os", "linux"):
            wishes.append((values.text(written), ("deploy", "placement", "constraints", index), ""))
    mode = service.get("deploy", "mode")
    if mode not in (None, "", "replicated", "replicated-job"):
        advice = "Say the number with deploy.replicas; without it, one is run."
        wishes.append((f"mode: {mode}", ("deploy", "mode"), advice))
    for wish, place, advice in wishes:
        message = f"{clip(wish)} is ignored."
        report.add(FindingReason.PLACEMENT_IGNORED, service.at(*place), message, advice=advice)
    return result
