"""Lay over kompose's containers what it drops or gets wrong, and check what it did on the way.

kompose's container is the base: its image, variables, ports and so on are taken, after comparing them with what its
input said, so that an answer that was cut or forged is noticed.
"""

from __future__ import annotations

from typing import Any

from opengpu_operator.api.translation import Service
from opengpu_operator.compose.containers import escape
from opengpu_operator.compose.kompose import KomposeError
from opengpu_operator.compose.plan import Plan, ServicePlan
from opengpu_operator.compose.sanitise import passed_environments

#: What a container of kompose's may hold, given our input; anything else was not asked for.
_CONTAINER_KEYS = frozenset(
    {"name", "image", "env", "ports", "resources", "workingDir", "stdin", "tty", "securityContext"}
)


def services(plan: Plan, deployments: dict[str, dict[str, Any]]) -> list[Service]:
    """Return a file's services: kompose's containers with the plan laid over them."""
    expected = {service.dns_name for service in plan.services}
    if deployments.keys() != expected:
        msg = "kompose did not make exactly one workload for each service"
        raise KomposeError(msg)
    passed = passed_environments(plan)
    return [
        _service(
            service,
            _container(service, deployments[service.dns_name], environment=passed[service.dns_name]),
        )
        for service in plan.services
    ]


def _container(
    service: ServicePlan, deployment: dict[str, Any], *, environment: dict[str, str]
) -> dict[str, Any]:
    """Return kompose's container of a service, checked against what kompose was given."""
    try:
        containers = deployment["spec"]["template"]["spec"]["containers"]
        (container,) = containers
        env = {entry["name"]: entry.get("value", "") for entry in container.get("env") or []}
        ports = {
            (int(entry["containerPort"]), entry.get("protocol", "TCP"))
            for entry in container.get("ports") or []
        }
        unknown = container.keys() - _CONTAINER_KEYS
        image = container["image"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"kompose's workload for {service.dns_name} can't be read"
        raise KomposeError(msg) from error
    wrong = [
        what
        for what, same in (
            ("image", image == service.image),
            ("variables", env == environment),
            ("ports", ports == {(port.container, port.protocol) for port in service.ports}),
            ("keys", not unknown),
        )
        if not same
    ]
    if wrong:
        msg = f"kompose's workload for {service.dns_name} has other {' and '.join(wrong)} than it was given"
        raise KomposeError(msg)
    return dict(container)


def _service(plan: ServicePlan, base: dict[str, Any]) -> Service:
    definition = plan.definition
    container: dict[str, Any] = {"name": plan.dns_name, "image": base["image"]}
    for key, words in (("command", plan.command), ("args", plan.args)):
        if words:
            container[key] = [escape(word) for word in words]
    directory = definition.get("working_dir")
    if directory:
        container["workingDir"] = directory
    if plan.environment:
        container["env"] = [
            {"name": name, "value": escape(value)} for name, value in sorted(plan.environment.items())
        ]
    if base.get("ports"):
        seen = dict.fromkeys(
            (int(entry["containerPort"]), entry.get("protocol", "TCP")) for entry in base["ports"]
        )
        container["ports"] = [{"containerPort": number, "protocol": protocol} for number, protocol in seen]
    if plan.resources:
        container["resources"] = plan.resources
    if plan.probe is not None:
        words = [escape(word) for word in plan.probe["exec"]["command"]]
        container["readinessProbe"] = {**plan.probe, "exec": {"command": words}}
    if plan.security:
        container["securityContext"] = plan.security
    for key in ("stdin", "tty"):
        if base.get(key) == "true":
            container[key] = True
    if plan.storage.volume_mounts:
        container["volumeMounts"] = plan.storage.volume_mounts
    pod = dict(plan.pod)
    if plan.storage.pod_volumes:
        pod["volumes"] = plan.storage.pod_volumes
    return Service(
        name=definition.name,
        dns_name=plan.dns_name,
        aliases=plan.aliases,
        container=container,
        pod=pod,
        gpu=plan.gpu,
        ports=plan.ports,
        mounts=plan.storage.mounts,
        files=plan.storage.files,
        depends_on=plan.depends_on,
        restart=plan.restart,
        max_retries=plan.max_retries,
        replicas=plan.replicas,
        update_parallelism=plan.update_parallelism,
        joins=plan.joins,
        networks=plan.attachment.networks if plan.attachment is not None else None,
        offline=plan.attachment is not None and plan.attachment.offline,
    )
