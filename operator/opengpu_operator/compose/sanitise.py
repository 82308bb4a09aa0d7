"""Write the file that kompose sees: ours in every byte, made of values that were checked.

Nothing that reads files, reaches for variables, steers kompose (its labels) or trips it is in it. A value of which
kompose would make something else, or only slowly the same, is replaced by an empty one or left out, and put back by the
overlay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from opengpu_operator.compose.plan import Plan, ServicePlan

#: kompose rewrites values that mention run/secrets and cuts a manifest at a line that ends in ``status:``.
_PLAIN: Final = re.compile(r"(?!.*(?:run/secrets|status:))[\x20-\x7e]*")


#: kompose takes seconds for thousands of variables, or for a long value, and adds nothing to them.
MAX_VARIABLES: Final = 500
_MAX_VALUE: Final = 1024


def passed_environments(plan: Plan) -> dict[str, dict[str, str]]:
    """Return the variables that kompose is given, by the DNS name of the service."""
    left = MAX_VARIABLES
    result: dict[str, dict[str, str]] = {}
    for service in plan.services:
        variables = islice(service.environment.items(), left)
        result[service.dns_name] = {name: _passed_value(value) for name, value in variables}
        left -= len(result[service.dns_name])
    return result


def _passed_value(value: str) -> str:
    return value if len(value) <= _MAX_VALUE and _PLAIN.fullmatch(value) else ""


def sanitised_file(plan: Plan) -> bytes:
    """Return the Compose file for kompose."""
    environments = passed_environments(plan)
    services = {
        service.dns_name: _service(service, environments[service.dns_name]) for service in plan.services
    }
    # JSON is YAML in which every string is quoted, so no value can be read as anything else.
    return json.dumps({"services": services}).encode()


def _service(service: ServicePlan, environment: Mapping[str, str]) -> dict[str, Any]:
    definition = service.definition
    result: dict[str, Any] = {"image": _literal(service.image), "restart": "always"}
    if environment:
        result["environment"] = {name: _literal(value) for name, value in environment.items()}
    ports = dict.fromkeys((port.container, port.protocol) for port in service.ports)
    if ports:
        result["expose"] = [f"{number}/{protocol.lower()}" for number, protocol in ports]
    for key in ("stdin_open", "tty", "read_only"):
        if definition.flag(key):
            result[key] = True
    directory = definition.get("working_dir")
    if directory and _PLAIN.fullmatch(directory):
        result["working_dir"] = _literal(directory)
    grace = service.pod.get("terminationGracePeriodSeconds")
    if grace is not None:
        result["stop_grace_period"] = f"{grace}s"
    resources = {
        theirs: {
            {"cpu": "cpus"}.get(name, name): _compose_amount(amount)
            for name, amount in service.resources[ours].items()
        }
        for ours, theirs in (("limits", "limits"), ("requests", "reservations"))
        if ours in service.resources
    }
    if resources:
        result["deploy"] = {"resources": resources}
    return result


def _compose_amount(amount: str) -> str:
    return str(int(amount[:-1]) / 1000) if amount.endswith("m") else amount


def _literal(value: str) -> str:
    """Return a value that kompose's interpolation leaves as it is."""
    return value.replace("$", "$$")
