"""What is left to do when the operator goes: sources hold a finalizer that nobody would remove any more.

It is done by a process of its own, just before the operator is removed, with rights of its own. The operator would put
the finalizers back as soon as they are gone, so it is stopped first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from opengpu_operator.api.labels import SOURCE_IN_USE_FINALIZER
from opengpu_operator.kube.errors import ConflictError, KubeError, NotFound
from opengpu_operator.kube.gateway import Gateway, Object
from opengpu_operator.kube.kinds import DEPLOYMENT, POD, SOURCE

#: Each finds what changed, or got the finalizer back, after the one before.
_ROUNDS: Final = 5
_PAUSE: Final = 1.0

Say = Callable[[str], None]
Sleep = Callable[[float], Awaitable[object]]


async def stop(
    gateway: Gateway,
    namespace: str,
    name: str,
    *,
    timeout: float,
    say: Say,
    sleep: Sleep = asyncio.sleep,
) -> bool:
    """Scale a Deployment to zero and wait until its pods are gone; return whether they are."""
    deployment = await gateway.get(DEPLOYMENT, namespace, name)
    if deployment is None:
        say(f"there is no Deployment {namespace}/{name} to stop")
        return True
    try:
        # By its scale: whoever may patch the Deployment itself may run anything in its place.
        await gateway.merge_patch(DEPLOYMENT, namespace, name, {"spec": {"replicas": 0}}, subresource="scale")
    except NotFound:
        say(f"Deployment {namespace}/{name} is gone")
    selector = ",".join(
        f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items()
    )
    # The Deployment's own count leaves out pods that are being deleted, which still work.
    waited = 0.0
    while pods := await gateway.list(POD, namespace, label_selector=selector, metadata_only=True):
        if waited >= timeout:
            names = ", ".join(sorted(pod["metadata"]["name"] for pod in pods))
            say(f"still there after {timeout:.0f} s: {names}")
            return False
        await sleep(_PAUSE)
        waited += _PAUSE
    say(f"Deployment {namespace}/{name} is stopped")
    return True


async def clear_finalizers(gateway: Gateway, *, say: Say, sleep: Sleep = asyncio.sleep) -> int:
    """Remove our finalizer from every source; return how many could not be cleared."""
    errors: dict[str, str] = {}
    cleared = 0
    holding = await _holding(gateway)
    for _ in range(_ROUNDS):
        if not holding:
            break
        results = await asyncio.gather(*(_clear(gateway, source) for source in holding))
        for source, error in zip(holding, results, strict=True):
            if error is None:
                cleared += 1
                say(f"{_name(source)}: cleared")
                errors.pop(_name(source), None)
            else:
                errors[_name(source)] = error
        await sleep(_PAUSE)
        holding = await _holding(gateway)
    for source in holding:
        what = errors.get(_name(source), "somebody puts the finalizer back; is an operator running?")
        say(f"{_name(source)}: not cleared: {what}")
    say(f"{cleared} finalizers were removed, {len(holding)} sources still have one")
    return len(holding)


async def _holding(gateway: Gateway) -> list[Object]:
    """Return the sources that have our finalizer; none if there is no such kind."""
    try:
        sources = await gateway.list(SOURCE, metadata_only=True)
    except NotFound:
        return []
    return [source for source in sources if SOURCE_IN_USE_FINALIZER in _finalizers(source)]


async def _clear(gateway: Gateway, source: Mapping[str, Any]) -> str | None:
    """Remove our finalizer, and no other, from one source; return why that failed, if it did."""
    metadata = source["metadata"]
    rest = [name for name in _finalizers(source) if name != SOURCE_IN_USE_FINALIZER]
    patch = {"metadata": {"finalizers": rest, "resourceVersion": metadata["resourceVersion"]}}
    try:
        await gateway.merge_patch(SOURCE, metadata["namespace"], metadata["name"], patch)
    except NotFound:
        return None
    except ConflictError:
        return "it changes all the time"
    except KubeError as error:
        return str(error)
    return None


def _finalizers(source: Mapping[str, Any]) -> list[str]:
    found: list[str] = source["metadata"].get("finalizers") or []
    return found


def _name(source: Mapping[str, Any]) -> str:
    return f"{source['metadata']['namespace']}/{source['metadata']['name']}"
